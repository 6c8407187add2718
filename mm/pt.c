/* SPDX-License-Identifier: MIT */
/*
 * One recursive function, change_range, visits the entries of a range from the root down and asks at each whether the
 * entry can take the change as it is (takes) and what it becomes (value). Where it cannot, the entry becomes a table:
 *
 *     level 3  [ 1 GB leaf ]  ->  [ table ] -> 512 x 2 MB leaf, one of them -> [ table ] -> 512 x 4 KB
 *
 * with children that say the same as the leaf did, accessed and dirty bits included; then the walk goes on below. The
 * same function without a debt is the rehearsal: it changes nothing and counts the tables that the change will need.
 */
#include "mm/pt.h"

#include "lib/assert.h"
#include "lib/errno.h"
#include "lib/port.h"
#include "mm/frames.h"

enum op { MAP, UNMAP, SPLIT };

struct change {
	struct pt *pt;
	struct pt_debt *debt; /* NULL: a rehearsal */
	enum op op;
	u64 va;            /* where the range begins */
	struct pt_entry e; /* MAP: what to map at va. SPLIT: only its order */
	u64 needed;        /* rehearsal: tables */
};

static u64 *table_of(u64 raw) { return port_virt(raw & PT_ADDR); }

/* A table's frame is never mapped, so its gfn is free to say what the table covers. */
u64 pt_tag(u64 va, unsigned level) { return ROUND_DOWN(va, pt_span(level + 1)) >> PAGE_SHIFT | (u64)level << 56; }

/* Frames wait for their release in a list: the gfn of each links to the next, its count keeps the order. */

static void list_push(u64 *list, mfn_t mfn, unsigned order)
{
	struct frame *f = frame_of(mfn);

	f->gfn = *list;
	f->count = order;
	*list = mfn.n | PT_LISTED;
}

static mfn_t list_pop(u64 *list)
{
	mfn_t mfn = MFN(*list & ~PT_LISTED);

	*list = frame_of(mfn)->gfn;
	return mfn;
}

/* A range that is mapped as one may have been allocated in pieces, or be a piece of an allocation. */
static void free_range(u16 owner, mfn_t mfn, unsigned order)
{
	u64 end = mfn.n + BIT(order);

	for (unsigned part; mfn.n < end; mfn.n += BIT(part)) {
		unsigned allocated = frame_of(mfn)->order;
		part = MIN(allocated, order); /* FRAME_BODY is larger than any order */
		int err = frames_free(mfn, part, owner);
		ASSERT(!err);
	}
}

static void free_list(u16 owner, u64 *list)
{
	while (*list != PT_DEBT_END) {
		mfn_t mfn = list_pop(list);
		free_range(owner, mfn, frame_of(mfn)->count);
	}
}

void pt_debt_frames(struct pt_debt *debt, mfn_t mfn, unsigned order) { list_push(&debt->frames, mfn, order); }

void pt_settle(struct pt *pt, struct pt_debt *debt)
{
	if (debt->flush || debt->frames != PT_DEBT_END)
		pt->ops->flush(pt, debt);
	free_list(pt->owner, &debt->frames);
	*debt = PT_DEBT_NONE;
}

static void owe_flush(struct pt_debt *debt, u64 va, u64 len)
{
	debt->first = debt->flush ? MIN(debt->first, va) : va;
	debt->last = debt->flush ? MAX(debt->last, va + len - 1) : va + len - 1;
	debt->flush = true;
}

/* Bookkeeping after one entry of a published table has changed: how many of the table's entries are in use. */
static void stored(struct pt *pt, u64 *slot, u64 old, u64 new)
{
	struct frame *f = frame_of(hpa_to_mfn(port_phys(slot)));

	f->count += (new != 0) - (old != 0);
	if (pt->ops->watch)
		pt->ops->watch(pt);
}

/* An old entry goes out of use, with all below it. What it says stays readable: walkers may be on their way down. */
static void retire(struct pt *pt, struct pt_debt *debt, u64 raw, unsigned level)
{
	if (!(raw & pt->fmt->present))
		return;
	if (!pt_is_table(pt->fmt, raw, level)) {
		pt->leaves[level - 1]--;
		return;
	}
	for (const u64 *child = table_of(raw), *end = child + 512; child < end; child++) {
		u64 below = atomic_load_relaxed(child);
		if (pt_is_table(pt->fmt, below, level - 1))
			retire(pt, debt, below, level - 1);
		else
			pt->leaves[level - 2] -= (below & pt->fmt->present) != 0;
	}
	pt->tables--;
	list_push(&debt->frames, hpa_to_mfn(raw & PT_ADDR), 0);
}

/* What the first child of a leaf says when the leaf at level + 1 is split, and what each next one adds to that. */
static u64 first_child(const struct pt_format *fmt, u64 raw, unsigned level, u64 *step)
{
	bool present = raw & fmt->present;

	*step = present ? pt_span(level) : 0;
	return present && level == 1 ? raw & ~PT_LARGE : raw;
}

static mfn_t new_table(struct pt *pt, u64 va, unsigned level)
{
	mfn_t mfn = list_pop(&pt->spare);
	struct frame *f = frame_of(mfn);

	atomic_store_relaxed(&f->state, FRAME_TABLE);
	f->gfn = pt_tag(va, level);
	pt->tables++;
	return mfn;
}

/* Puts a table in the place of the leaf or empty entry in slot. Filled again if a CPU sets A or D meanwhile. */
static u64 *split(struct change *c, u64 *slot, unsigned level, u64 va)
{
	struct pt *pt = c->pt;
	mfn_t mfn = new_table(pt, va, level - 1);
	u64 *table = port_virt(mfn_to_hpa(mfn)), old = atomic_load(slot);

	do {
		u64 step, child = first_child(pt->fmt, old, level - 1, &step);
		for (u64 *entry = table; entry < table + 512; entry++, child += step)
			atomic_store_relaxed(entry, child);
	} while (!atomic_cas(slot, &old, mfn_to_hpa(mfn) | pt->fmt->table));

	frame_of(mfn)->count = old ? 512 : 0;
	if (old & pt->fmt->present) {
		pt->leaves[level - 1]--;
		pt->leaves[level - 2] += 512;
		pt->splits++;
		owe_flush(c->debt, ROUND_DOWN(va, pt_span(level)), pt_span(level));
	}
	stored(pt, slot, old, mfn_to_hpa(mfn) | pt->fmt->table);
	return table;
}

static bool may_be_leaf(const struct pt *pt, u64 va, hpa_t pa, unsigned level)
{
	unsigned order = pt_order(level);

	return order <= pt->max_order && IS_ALIGNED(pa, pt_span(level)) &&
	       (!order || !pt->ops->may_large || pt->ops->may_large(pt, va, order));
}

/* Whether an entry at this level, of which [va, va + len) is to change, can take the change without a table. */
static bool takes(const struct change *c, u64 old, unsigned level, u64 va, u64 len)
{
	bool whole = len == pt_span(level);

	switch (c->op) {
	case MAP:
		return whole && level <= 3 &&
		       (!pt_present(c->e) || may_be_leaf(c->pt, va, c->e.pa + (va - c->va), level));
	case UNMAP:
		return whole || !old;
	case SPLIT:
		return pt_order(level) <= c->e.order || !old;
	}
	return false;
}

static u64 value(const struct change *c, u64 old, unsigned level, u64 va)
{
	const struct pt_format *fmt = c->pt->fmt;
	struct pt_entry e = c->e;

	if (c->op != MAP)
		return c->op == SPLIT ? old : 0;
	e.pa += va - c->va;
	u64 new = pt_encode(c->pt, e, level);
	if (!pt_present(e) || !(old & fmt->present))
		return new;
	if (pt_is_table(fmt, old, level))
		return new | fmt->accessed | fmt->dirty; /* as pages below may be, or become until the flush */
	return (old ^ new) & PT_ADDR ? new : new | (old & (fmt->accessed | fmt->dirty));
}

/*
 * Whether CPUs may remember more than the new entry allows. An unchanged entry that denies something counts too: who
 * took the permission away may still be about to flush, and this caller relies on it now.
 */
static bool owes_flush(const struct change *c, u64 old, u64 new)
{
	if (!(old & c->pt->fmt->present) || c->op == SPLIT)
		return false;
	return new != old || (~pt_decode(c->pt->fmt, new, 1, 0).flags & PT_RWX);
}

static void set_entry(struct change *c, u64 *slot, unsigned level, u64 va)
{
	struct pt *pt = c->pt;
	u64 old = atomic_load(slot), new;

	do {
		new = value(c, old, level, va);
	} while (new != old && !atomic_cas(slot, &old, new));

	if (owes_flush(c, old, new))
		owe_flush(c->debt, va, pt_span(level));
	if (new == old)
		return;
	retire(pt, c->debt, old, level);
	if (new & pt->fmt->present)
		pt->leaves[level - 1]++;
	stored(pt, slot, old, new);
}

/* table: NULL in a rehearsal where there is none yet; all its entries would be as inherited. */
static void change_range(struct change *c, u64 *table, u64 inherited, unsigned level, u64 va, u64 len)
{
	ASSERT(level); /* level 1 takes every change */
	if (!c->debt && level == 1)
		return;
	for (u64 step; len; va += step, len -= step) {
		u64 *slot = table ? &table[pt_index(va, level)] : NULL, *below = NULL;
		u64 old = slot ? atomic_load(slot) : inherited, span = pt_span(level);
		step = MIN(len, span - (va & (span - 1)));
		if (takes(c, old, level, va, step)) {
			if (c->debt)
				set_entry(c, slot, level, va);
			continue;
		}
		if (pt_is_table(c->pt->fmt, old, level))
			below = table_of(old);
		else if (c->debt)
			below = split(c, slot, level, va);
		else
			c->needed++;
		change_range(c, below, old, level - 1, va, step);
	}
}

static int reserve(struct pt *pt, u64 tables)
{
	mfn_t mfn;

	for (; tables; tables--) {
		int err = frames_alloc(0, pt->owner, 0, &mfn);
		if (err) {
			free_list(pt->owner, &pt->spare);
			return err;
		}
		list_push(&pt->spare, mfn, 0);
	}
	return 0;
}

static int run(struct change c, u64 len, struct pt_debt *debt)
{
	u64 *root = port_virt(mfn_to_hpa(c.pt->root));

	ASSERT(IS_ALIGNED(c.va | len | c.e.pa, PAGE_SIZE));
	change_range(&c, root, 0, PT_LEVELS, c.va, len);
	int err = reserve(c.pt, c.needed);
	if (err)
		return err;
	c.debt = debt;
	change_range(&c, root, 0, PT_LEVELS, c.va, len);
	ASSERT(c.pt->spare == PT_DEBT_END);
	return 0;
}

int pt_map(struct pt *pt, u64 va, u64 len, struct pt_entry e, struct pt_debt *debt)
{
	bool empty = !pt_present(e) && !e.type;

	if (!pt_present(e))
		e.pa = 0;
	return run((struct change){.pt = pt, .op = empty ? UNMAP : MAP, .va = va, .e = e}, len, debt);
}

int pt_split(struct pt *pt, u64 va, unsigned order, struct pt_debt *debt)
{
	va = ROUND_DOWN(va, PAGE_SIZE);
	return run((struct change){.pt = pt, .op = SPLIT, .va = va, .e.order = (u8)order}, PAGE_SIZE, debt);
}

/* Whether the 512 entries of a table at this level agree, and as what entry one level up. A and D may differ. */
static bool agree(const struct pt *pt, const u64 *table, unsigned level, u64 va, u64 *merged)
{
	const struct pt_format *fmt = pt->fmt;
	u64 hw = fmt->accessed | fmt->dirty, first = atomic_load(&table[0]);
	bool present = first & fmt->present;

	if (level > 2 || pt_is_table(fmt, first, level) ||
	    (present && !may_be_leaf(pt, va, first & PT_ADDR, level + 1)))
		return false;
	u64 no_x = pt->exec_small ? fmt->exec : 0, ignored = present ? hw | no_x : 0, seen = 0, step;
	first = present ? ((first | PT_LARGE) & ~no_x) | (no_x & fmt->exec_off) : first;
	u64 child = first_child(fmt, first, level, &step);
	for (const u64 *entry = table; entry < table + 512; entry++, child += step) {
		u64 raw = atomic_load(entry);
		if ((raw ^ child) & ~ignored)
			return false;
		seen |= raw & ignored & hw;
	}
	/*
	 * A CPU may set bits in the old table until the flush. To say "accessed", and "dirty" if that can be, too early
	 * loses none of them.
	 */
	if (present)
		seen |= fmt->accessed | (pt_decode(fmt, first, level + 1, 0).flags & PT_W ? fmt->dirty : 0);
	*merged = first | seen;
	return true;
}

/* slot, at this level, points to a table. Returns whether it does no more. */
static bool merge_one(struct pt *pt, u64 *slot, unsigned level, u64 va, struct pt_debt *debt)
{
	u64 old = atomic_load(slot), new = 0;
	u32 used = frame_of(hpa_to_mfn(old & PT_ADDR))->count;

	va = ROUND_DOWN(va, pt_span(level));
	if (used && (!pt->merge || used < 512 || !agree(pt, table_of(old), level - 1, va, &new)))
		return false;
	while (!atomic_cas(slot, &old, new))
		continue;
	retire(pt, debt, old, level);
	owe_flush(debt, va, pt_span(level));
	if (new & pt->fmt->present) {
		pt->leaves[level - 1]++;
		pt->merges++;
	}
	stored(pt, slot, old, new);
	return true;
}

void pt_merge(struct pt *pt, u64 va, struct pt_debt *debt)
{
	u64 *slots[6], *table = port_virt(mfn_to_hpa(pt->root));
	unsigned level = PT_LEVELS;

	for (;; level--) {
		slots[level] = &table[pt_index(va, level)];
		u64 raw = atomic_load(slots[level]);
		if (!pt_is_table(pt->fmt, raw, level))
			break;
		table = table_of(raw);
	}
	while (++level <= PT_LEVELS && merge_one(pt, slots[level], level, va, debt))
		continue;
}

struct pt_entry pt_flags(struct pt *pt, u64 va, unsigned set, unsigned clear, struct pt_debt *debt)
{
	unsigned level;
	u64 old, new, *slot = pt_find(pt, va, &level, &old);
	struct pt_entry was, e;

	do {
		was = e = pt_decode(pt->fmt, old, level, 0);
		if (!pt_present(was))
			return was;
		e.flags = (u8)((e.flags & ~clear) | set);
		ASSERT(pt_present(e));
		new = pt_encode(pt, e, level);
	} while (new != old && !atomic_cas(slot, &old, new));

	if (clear & ~(unsigned)PT_A)
		owe_flush(debt, ROUND_DOWN(va, pt_span(level)), pt_span(level));
	if (new != old)
		stored(pt, slot, old, new);
	return was;
}

int pt_init(struct pt *pt, const struct pt_format *fmt, const struct pt_ops *ops, u16 owner, unsigned max_order)
{
	*pt = (struct pt){.fmt = fmt, .ops = ops, .owner = owner, .max_order = max_order};
	pt->nx = pt->ad = pt->merge = true;
	pt->spare = PT_DEBT_END;
	pt->tables = 1;
	int err = frames_alloc(0, owner, FRAMES_ZERO, &pt->root);
	if (err)
		return err;
	struct frame *f = frame_of(pt->root);
	f->state = FRAME_TABLE;
	f->gfn = pt_tag(0, PT_LEVELS);
	return 0;
}
