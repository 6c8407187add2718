/* SPDX-License-Identifier: MIT */
/*
 * The buddy allocator. A free block of 2^n frames is naturally aligned; its first frame is FRAME_FREE_HEAD with the
 * order and the links of one of the circular lists below, all others are FRAME_FREE_BODY:
 *
 *     list[zone][order] -> clean ... clean, dirty ... dirty      (clean at the front, dirty at the back)
 *
 * Zones keep the scarce low memory (SIPI trampoline, old DMA) for the end: an allocation takes the smallest sufficient
 * block of the highest zone that has one. Blocks never reach over a zone's boundary, so no block of 32 MB or more
 * begins below 16 MB, which the holes of a PC forbid anyway.
 *
 * "Clean" is known for each 2 MB chunk (or smaller block) by the dirty bit of its first frame, so that merging a clean
 * block with a dirty one does not make the clean half dirty, and the head's count says how many chunks are dirty.
 */
#include "mm/frames.h"

#include "lib/assert.h"
#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/lock.h"
#include "lib/port.h"
#include "lib/print.h"
#include "lib/string.h"

#define TOP   (FRAME_ORDERS - 1)
#define NIL   (~0u)
#define ZONES 3

/* First frame of each zone: below 1 MB, below 16 MB, the rest. */
static const u64 zone_start[ZONES] = {0, MB / PAGE_SIZE, 16 * MB / PAGE_SIZE};

/* All under lock, and so are the entries of frames that are not allocated. */
static struct {
	struct lock lock;
	struct frame *table;
	u64 n, total, free, dirty;     /* frames */
	u32 list[ZONES][FRAME_ORDERS]; /* first block, or NIL */
	u64 blocks[ZONES][FRAME_ORDERS];
} mem = {.lock = LOCK_INIT(LOCK_FRAMES)};

static unsigned zone_of(u64 n)
{
	unsigned z = ZONES - 1;

	while (n < zone_start[z])
		z--;
	return z;
}

struct frame *frame_of(mfn_t mfn) { return mfn.n < mem.n ? &mem.table[mfn.n] : NULL; }

/* Lists. */

/* by: 1 or -1. */
static void count_block(const struct frame *f, unsigned zone, unsigned order, u64 by)
{
	mem.blocks[zone][order] += by;
	mem.free += by << order;
	mem.dirty += by * f->count << MIN(order, FRAMES_CHUNK);
}

static void list_add(u64 n, unsigned order, u32 dirty)
{
	struct frame *t = mem.table, *f = &t[n];
	u32 *first = &mem.list[zone_of(n)][order];

	f->state = FRAME_FREE_HEAD;
	f->order = order;
	f->count = dirty;
	count_block(f, zone_of(n), order, 1);
	if (*first == NIL) {
		f->next = f->prev = *first = (u32)n;
		return;
	}
	f->next = *first;
	f->prev = t[*first].prev;
	t[f->prev].next = t[f->next].prev = (u32)n;
	if (!dirty)
		*first = (u32)n;
}

static void list_del(u64 n, unsigned order)
{
	struct frame *t = mem.table, *f = &t[n];
	u32 *first = &mem.list[zone_of(n)][order];

	count_block(f, zone_of(n), order, -1ul);
	t[f->prev].next = f->next;
	t[f->next].prev = f->prev;
	if (*first == n)
		*first = f->next == n ? NIL : f->next;
	f->state = FRAME_FREE_BODY;
}

static bool is_free_block(u64 n, unsigned order)
{
	return n < mem.n && mem.table[n].state == FRAME_FREE_HEAD && mem.table[n].order == order;
}

static u32 count_dirty(u64 n, unsigned order)
{
	u32 dirty = 0;

	for (u64 i = 0; i < BIT(order); i += BIT(FRAMES_CHUNK))
		dirty += mem.table[n + i].dirty;
	return dirty;
}

/* Puts a free block on its list, joined with its buddy as long as that is free too. */
static void put(u64 n, unsigned order, u32 dirty)
{
	for (; order < TOP; order++) {
		u64 buddy = n ^ BIT(order), low = MIN(n, buddy), high = MAX(n, buddy);
		if (!is_free_block(buddy, order) || zone_of(buddy) != zone_of(n))
			break;
		dirty += mem.table[buddy].count;
		list_del(buddy, order);
		if (order < FRAMES_CHUNK) {
			dirty = dirty > 0;
			mem.table[low].dirty = dirty;
		}
		mem.table[high].state = FRAME_FREE_BODY;
		n = low;
	}
	list_add(n, order, dirty);
}

/*
 * Takes [n, n + 2^order) off the lists, out of the free block at head that contains it. The dirty bits of the halves
 * are right as they are: a block's first frame keeps its bit when it becomes the second half of a larger block.
 */
static void carve(u64 head, u64 n, unsigned order)
{
	unsigned o = mem.table[head].order;

	list_del(head, o);
	while (o > order) {
		u64 half = head + BIT(--o), other = head;
		if (n < half)
			other = half;
		else
			head = half;
		list_add(other, o, count_dirty(other, o));
	}
}

/* The free block that contains n, or NIL. */
static u64 block_around(u64 n)
{
	for (unsigned o = 0; o <= TOP; o++) {
		u64 head = ROUND_DOWN(n, BIT(o));
		if (mem.table[head].state == FRAME_FREE_HEAD)
			return mem.table[head].order >= o ? head : NIL;
	}
	return NIL;
}

static void mark_used(u64 n, unsigned order, u16 owner)
{
	for (struct frame *f = &mem.table[n]; f < &mem.table[n + BIT(order)]; f++)
		*f = (struct frame){.gfn = FRAME_NO_GFN,
				    .owner = owner,
				    .state = FRAME_USED,
				    .order = FRAME_BODY,
				    .dirty = f->dirty};
	mem.table[n].order = order;
}

static void mark_free(u64 n, unsigned order, bool dirty)
{
	for (struct frame *f = &mem.table[n]; f < &mem.table[n + BIT(order)]; f++)
		*f = (struct frame){.owner = OWNER_FREE, .state = FRAME_FREE_BODY, .dirty = dirty};
	put(n, order, dirty ? order < FRAMES_CHUNK ? 1 : (u32)BIT(order - FRAMES_CHUNK) : 0);
}

/* Zeroes the dirty chunks of an allocated block. Without the lock. */
static void scrub(u64 n, unsigned order)
{
	unsigned chunk = MIN(order, FRAMES_CHUNK);

	for (u64 i = n; i < n + BIT(order); i += BIT(chunk)) {
		if (!mem.table[i].dirty)
			continue;
		memset(port_virt(mfn_to_hpa(MFN(i))), 0, PAGE_SIZE << chunk);
		mem.table[i].dirty = false;
	}
}

/* Boot. */

void frames_init(struct frame *table, u64 n)
{
	ASSERT(n < NIL);
	mem.table = table;
	mem.n = n;
	mem.total = mem.free = mem.dirty = 0;
	memset(mem.list, 0xff, sizeof(mem.list));
	memset(mem.blocks, 0, sizeof(mem.blocks));
}

/* The largest block that begins at n and ends by end. */
static unsigned order_at(u64 n, u64 end)
{
	unsigned order = n ? MIN(bit_low(n), (unsigned)TOP) : TOP;

	while (BIT(order) > end - n)
		order--;
	/* Not over a zone's boundary: those are aligned, so only a block that begins below can reach over. */
	while (order && zone_of(n + BIT(order) - 1) != zone_of(n))
		order--;
	return order;
}

/* A firmware's map may list memory twice or in any order: what is known already is left alone. */
void frames_add(mfn_t first, u64 count)
{
	u64 known = first.n < mem.n ? mem.n - first.n : 0, end = first.n + MIN(count, known);

	lock_take(&mem.lock);
	for (u64 n = first.n, run; n < end; n = run) {
		for (run = n; run < end && mem.table[run].state == FRAME_RESERVED && !mem.table[run].owner;)
			run++;
		mem.total += run - n;
		for (unsigned order; n < run; n += BIT(order)) {
			order = order_at(n, run);
			mark_free(n, order, true);
		}
		run += run < end;
	}
	lock_drop(&mem.lock);
}

int frames_reserve(mfn_t first, u64 count, u16 owner)
{
	int err = -EBUSY;

	lock_take(&mem.lock);
	if (first.n >= mem.n || count > mem.n - first.n)
		goto out;
	for (u64 n = first.n; n < first.n + count; n++) {
		if (mem.table[n].state != FRAME_FREE_HEAD && mem.table[n].state != FRAME_FREE_BODY)
			goto out;
	}
	for (u64 n = first.n; n < first.n + count; n++) {
		carve(block_around(n), n, 0);
		mark_used(n, 0, owner);
		if (owner == OWNER_NONE)
			mem.table[n].state = FRAME_RESERVED;
	}
	err = 0;
out:
	lock_drop(&mem.lock);
	return err;
}

/* Allocation. */

/* A block to take 2^order frames from: smallest first, in the highest zone that has one. NIL: none. */
static u32 find(unsigned order, unsigned flags)
{
	for (int z = flags & FRAMES_LOW ? 0 : ZONES - 1; z >= 0; z--) {
		for (unsigned o = order; o <= TOP; o++) {
			u32 first = mem.list[z][o];
			if (first != NIL)
				return flags & FRAMES_ZERO ? first : mem.table[first].prev;
		}
	}
	return NIL;
}

int frames_alloc(unsigned order, u16 owner, unsigned flags, mfn_t *out)
{
	ASSERT(order <= TOP && owner > OWNER_FREE);
	if (port_fail_alloc())
		return -ENOMEM;

	lock_take(&mem.lock);
	u32 n = find(order, flags);
	if (n != NIL) {
		carve(n, n, order);
		mark_used(n, order, owner);
	}
	lock_drop(&mem.lock);

	if (n == NIL)
		return -ENOMEM;
	if (flags & FRAMES_ZERO)
		scrub(n, order);
	*out = MFN(n);
	return 0;
}

/* The first frame of the allocation that [n, n + 2^order) is part of, or NIL. */
static u64 allocation_of(u64 n, unsigned order)
{
	for (unsigned o = order; o <= TOP; o++) {
		u64 head = ROUND_DOWN(n, BIT(o));
		const struct frame *f = &mem.table[head];
		if (f->state != FRAME_USED && f->state != FRAME_TABLE)
			return NIL;
		if (f->order != FRAME_BODY)
			return f->order >= o ? head : NIL;
	}
	return NIL;
}

/* Makes [n, n + 2^order) of the allocation at head one of its own, and of what remains the largest that fit. */
static void split_allocation(u64 head, u64 n, unsigned order)
{
	for (unsigned o = mem.table[head].order; o > order;) {
		u64 half = head + BIT(--o);
		mem.table[n < half ? half : head].order = o;
		if (n >= half)
			head = half;
	}
}

int frames_free(mfn_t mfn, unsigned order, u16 owner)
{
	u64 n = mfn.n, head = NIL;

	lock_take(&mem.lock);
	if (order <= TOP && IS_ALIGNED(n, BIT(order)) && n < mem.n && BIT(order) <= mem.n - n &&
	    mem.table[n].owner == owner)
		head = allocation_of(n, order);
	if (head != NIL) {
		split_allocation(head, n, order);
		mark_free(n, order, true);
	}
	lock_drop(&mem.lock);

	if (head != NIL)
		return 0;
	log("frames: owner %u may not free frame %#llx, order %u\n", owner, (unsigned long long)n, order);
	return -EINVAL;
}

/* Reads others' entries without the lock: a stale order only skips frames that were not the owner's at the time. */
u64 frames_free_all(u16 owner)
{
	u64 freed = 0;

	for (u64 n = 0, step; n < mem.n; n += step) {
		struct frame f = mem.table[n];
		bool head = f.order <= TOP && (f.state == FRAME_FREE_HEAD || f.owner == owner);
		step = head ? BIT(f.order) : 1;
		if (head && f.owner == owner && !frames_free(MFN(n), f.order, owner))
			freed += step;
	}
	return freed;
}

void frames_set_gfn(mfn_t mfn, u64 n, gfn_t gfn)
{
	for (u64 i = 0; i < n; i++)
		mem.table[mfn.n + i].gfn = gfn.n + i;
}

void frames_clear_gfn(mfn_t mfn, u64 n)
{
	for (u64 i = 0; i < n; i++)
		mem.table[mfn.n + i].gfn = FRAME_NO_GFN;
}

/* Idle work. */

bool frames_scrub_one(void)
{
	u64 n = NIL;
	unsigned order = 0;

	lock_take(&mem.lock);
	for (unsigned i = 0; i < ZONES * FRAME_ORDERS && n == NIL; i++) {
		u32 first = mem.list[i % ZONES][TOP - i / ZONES];
		u32 last = first == NIL ? NIL : mem.table[first].prev;
		if (last == NIL || !mem.table[last].count)
			continue;
		order = MIN((unsigned)mem.table[last].order, FRAMES_CHUNK);
		for (n = last; !mem.table[n].dirty;)
			n += BIT(FRAMES_CHUNK);
		carve(last, n, order);
		mark_used(n, order, OWNER_HOST);
	}
	lock_drop(&mem.lock);
	if (n == NIL)
		return false;

	scrub(n, order);
	lock_take(&mem.lock);
	mark_free(n, order, false);
	lock_drop(&mem.lock);
	return true;
}

/* Reports. */

void frames_stats(struct frames_stats *out)
{
	lock_take(&mem.lock);
	*out = (struct frames_stats){.total = mem.total, .free = mem.free, .dirty = mem.dirty};
	for (unsigned z = 0; z < ZONES; z++) {
		for (unsigned o = 0; o <= TOP; o++)
			out->blocks[o] += mem.blocks[z][o];
	}
	lock_drop(&mem.lock);
}

int frames_largest(void)
{
	int order = TOP;

	lock_take(&mem.lock);
	while (order >= 0 && !mem.blocks[0][order] && !mem.blocks[1][order] && !mem.blocks[2][order])
		order--;
	lock_drop(&mem.lock);
	return order;
}

/* Audit. */

static u64 bad(u64 n, const char *what)
{
	log("frames: frame %#llx: %s\n", (unsigned long long)n, what);
	return 1;
}

static u64 audit_free(u64 n, const struct frame *f, u64 seen[ZONES][FRAME_ORDERS])
{
	unsigned order = f->order, zone = zone_of(n);
	u64 errors = 0, buddy = n ^ BIT(order);

	seen[zone][order]++;
	if (order < TOP && is_free_block(buddy, order) && zone_of(buddy) == zone)
		errors += bad(n, "free, and its buddy too");
	if (f->count != count_dirty(n, order))
		errors += bad(n, "wrong count of dirty chunks");
	if (zone_of(n + BIT(order) - 1) != zone)
		errors += bad(n, "block over a zone's boundary");
	if (!is_free_block(f->next, order) || mem.table[f->next].prev != n || zone_of(f->next) != zone)
		errors += bad(n, "broken links");
	for (u64 i = 0; i < BIT(order); i++) {
		if (f[i].owner != OWNER_FREE || (i && f[i].state != FRAME_FREE_BODY))
			return errors + bad(n + i, "inside a free block, but not free");
	}
	return errors;
}

static u64 audit_used(u64 n, const struct frame *f)
{
	if (f->owner <= OWNER_FREE)
		return bad(n, "used, without owner");
	for (u64 i = 1; i < BIT(f->order); i++) {
		if (f[i].owner != f->owner || f[i].order != FRAME_BODY || f[i].state != FRAME_USED)
			return bad(n + i, "not as the allocation that it is part of");
	}
	return 0;
}

u64 frames_audit(void)
{
	u64 errors = 0, seen[ZONES][FRAME_ORDERS] = {0};

	lock_take(&mem.lock);
	for (u64 n = 0, step; n < mem.n; n += step) {
		const struct frame *f = &mem.table[n];
		step = 1;
		if (f->state == FRAME_RESERVED)
			continue;
		if (f->order > TOP || !IS_ALIGNED(n, BIT(f->order)) || BIT(f->order) > mem.n - n ||
		    f->state == FRAME_FREE_BODY) {
			errors += bad(n, "not the first frame of anything");
			continue;
		}
		step = BIT(f->order);
		errors += f->state == FRAME_FREE_HEAD ? audit_free(n, f, seen) : audit_used(n, f);
	}
	for (unsigned i = 0; i < ZONES * FRAME_ORDERS; i++) {
		unsigned z = i % ZONES, order = i / ZONES;
		u32 first = mem.list[z][order];
		if (seen[z][order] != mem.blocks[z][order] || (first == NIL) != !seen[z][order] ||
		    (first != NIL && !is_free_block(first, order)))
			errors += bad(zone_start[z], "a list of this zone has the wrong beginning or length");
	}
	lock_drop(&mem.lock);
	return errors;
}
