/* SPDX-License-Identifier: MIT */
/*
 * All changes to a P2M go through p2m_change, in this order:
 *
 *   1. take the old pages out of the accounts: M2P and the counts that forbid large mappings
 *   2. check the new frames: the guest's own, and at no gfn (XSA-379: under the lock, so races have one winner)
 *   3. put the new pages into the counts, which decide how large the new leaves may be
 *   4. change the table; the only step that can fail, and all or nothing by itself. Then 3 and 1 are undone exactly,
 *      because the table still says what the old pages were
 *   5. put the new pages into the M2P
 *   6. merge in place what now agrees
 *
 * The flush and what may be freed after it are the debt, which is settled without the lock: whoever takes the lock in
 * between and relies on a permission being gone flushes for itself (the engine sees to that).
 */
#include "p2m/internal.h"

#include "lib/errno.h"
#include "lib/string.h"
#include "mm/heap.h"

static void flush(struct pt *pt, const struct pt_debt *debt)
{
	struct p2m *p = container_of(pt, struct p2m, pt);

	(void)debt;
	atomic_add(&p->gen, 1); /* first: who comes into .pcpus later sees it, and needs no asking */
	port_flush_root(mfn_to_hpa(pt->root), atomic_load(&p->pcpus));
}

static bool may_large(const struct pt *pt, u64 va, unsigned order)
{
	return p2m_may_large(container_of(pt, const struct p2m, pt), gpa_to_gfn(va), order);
}

static const struct pt_ops ops = {.flush = flush, .may_large = may_large};

/* What is new counts as dirty: no CPU has to write that, and a dirty log that is on must tell of it. */
struct pt_entry p2m_leaf(enum p2m_type type, mfn_t mfn)
{
	static const u8 flags[P2M_TYPES] = {
		[P2M_RAM] = PT_RWX | PT_D | PT_USER | PT_IPAT,   [P2M_RO] = PT_R | PT_X | PT_USER | PT_IPAT,
		[P2M_DIRECT] = PT_R | PT_W | PT_D | PT_USER,     [P2M_SHARED] = PT_R | PT_X | PT_USER | PT_IPAT,
		[P2M_TRACKED] = PT_R | PT_X | PT_USER | PT_IPAT, [P2M_APIC] = PT_R | PT_W | PT_D | PT_USER | PT_IPAT,
	};
	struct pt_entry e = {.type = type, .flags = flags[type], .cache = type == P2M_DIRECT ? PT_UC : PT_WB};

	if (pt_present(e))
		e.pa = mfn_to_hpa(mfn);
	return e;
}

/* Lookups. */

FORCE_INLINE struct p2m_entry entry_at(const struct p2m *p, gfn_t gfn)
{
	struct p2m_entry none = {.mfn = MFN_NONE};

	if (gfn.n >= p->limit)
		return none;
	struct pt_entry e = pt_lookup(&p->pt, gfn_to_gpa(gfn));
	bool backed = P2M_MASK(e.type) & P2M_BACKED;
	return (struct p2m_entry){backed ? hpa_to_mfn(e.pa) : MFN_NONE, e.order, e.type, e.flags & P2M_FLAGS};
}

struct p2m_entry p2m_entry_at(const struct p2m *p, gfn_t gfn) { return entry_at(p, gfn); }

static inline bool is_cached(const struct p2m *p, const struct p2m_cache *c, gfn_t gfn)
{
	return c->gfn.n == gfn.n && c->gen == atomic_load(&p->gen);
}

/*
 * In a walk: a flush that begins now waits for its end. What has no frame is not kept, for it can get one without a
 * flush.
 */
FORCE_INLINE void fill(const struct p2m *p, struct p2m_cache *c, gfn_t gfn)
{
	u64 gen = atomic_load(&p->gen);

	c->gfn = gfn;
	c->e = entry_at(p, gfn);
	c->gen = mfn_eq(c->e.mfn, MFN_NONE) ? 0 : gen;
}

struct p2m_cache *p2m_look_up(const struct p2m *p, gfn_t gfn)
{
	struct p2m_cache *c = p2m_cache_of(p, gfn);

	if (!is_cached(p, c, gfn))
		fill(p, c, gfn);
	return c;
}

static __attribute__((noinline)) struct p2m_entry look_up_now(const struct p2m *p, struct p2m_cache *c, gfn_t gfn)
{
	struct p2m_walk w = p2m_walk_begin(p);

	fill(p, c, gfn);
	p2m_walk_end(p, w);
	return c->e;
}

/* The answer may be old by the time it is used, so it needs no walk if it is remembered. */
struct p2m_entry p2m_get(const struct p2m *p, gfn_t gfn)
{
	struct p2m_cache *c = p2m_cache_of(p, gfn);

	return is_cached(p, c, gfn) ? c->e : look_up_now(p, c, gfn);
}

/* Whether all entries of [gfn, gfn + n) are of these types; *other: the first one's that is not. Needs the lock. */
static bool all_are(const struct p2m *p, gfn_t gfn, u64 n, u32 types, u8 *other)
{
	for (u64 end = gfn.n + n; gfn.n < end;) {
		struct p2m_entry e = p2m_entry_at(p, gfn);
		*other = e.type;
		if (!(P2M_MASK(e.type) & types))
			return false;
		gfn.n += p2m_rest(e, gfn);
	}
	return true;
}

/* Slots and the counts. */

const struct p2m_slot *p2m_slot_at(const struct p2m *p, gfn_t gfn, u64 n)
{
	for (const struct p2m_slot *s = p->slot; s < p->slot + p->nslots; s++)
		if (gfn.n < s->first.n + s->frames && s->first.n < gfn.n + n)
			return s;
	return NULL;
}

/* A large frame that is not wholly inside one slot has a count above zero in each slot that it overlaps. */
bool p2m_may_large(const struct p2m *p, gfn_t gfn, unsigned order)
{
	const struct p2m_slot *s = p2m_slot_at(p, gfn, BIT(order));

	return !s || !atomic_load_relaxed(p2m_forbid(s, gfn, order));
}

u32 p2m_outside(const struct p2m_slot *s, gfn_t gfn, unsigned order)
{
	u64 first = MAX(gfn.n, s->first.n), end = MIN(gfn.n + BIT(order), s->first.n + s->frames);

	return (u32)(BIT(order) - (end - first));
}

/* Adds to, or takes from, the counts of one slot for [gfn, gfn + n), which lies inside it. */
static void count(const struct p2m_slot *s, u64 gfn, u64 n, bool add)
{
	for (unsigned order = ORDER_2M; order <= ORDER_1G; order += 9) {
		for (u64 at = gfn, step; at < gfn + n; at += step) {
			u32 *forbid = p2m_forbid(s, GFN(at), order);
			step = MIN(BIT(order) - (at & (BIT(order) - 1)), gfn + n - at);
			atomic_store_relaxed(forbid, add ? *forbid + (u32)step : *forbid - (u32)step);
		}
	}
}

/* The same for all slots that [gfn, gfn + n), pages of this type, overlays. */
static void count_overlay(const struct p2m *p, gfn_t gfn, u64 n, unsigned type, bool add)
{
	for (const struct p2m_slot *s = p->slot; s < p->slot + p->nslots; s++) {
		u64 first = MAX(gfn.n, s->first.n), end = MIN(gfn.n + n, s->first.n + s->frames);
		if (first < end && p2m_overlays(s, type))
			count(s, first, end - first, add);
	}
}

static int check_new_slot(const struct p2m *p, gfn_t first, u64 frames, enum p2m_type type)
{
	u8 other;

	if (!frames || first.n >= p->limit || frames > p->limit - first.n ||
	    !(P2M_MASK(type) & (P2M_MASK(P2M_RAM) | P2M_MASK(P2M_RO))))
		return -EINVAL;
	if (p2m_slot_at(p, first, frames) || !all_are(p, first, frames, P2M_MASK(P2M_NONE), &other))
		return -EEXIST;
	return p->nslots == P2M_SLOTS ? -ENOSPC : 0;
}

/* How many frames of this order the slot overlaps: the length of its array of counts. */
static u64 large_frames(const struct p2m_slot *s, unsigned order)
{
	return ((s->first.n + s->frames - 1) >> order) - (s->first.n >> order) + 1;
}

/* Both arrays are one allocation. */
static size_t counts_size(const struct p2m_slot *s)
{
	return (large_frames(s, ORDER_2M) + large_frames(s, ORDER_1G)) * sizeof(u32);
}

static int alloc_counts(struct p2m_slot *s)
{
	u64 end = s->first.n + s->frames;

	s->forbid_2m = heap_alloc(counts_size(s));
	if (!s->forbid_2m)
		return -ENOMEM;
	s->forbid_1g = s->forbid_2m + large_frames(s, ORDER_2M);
	for (unsigned order = ORDER_2M; order <= ORDER_1G; order += 9) {
		gfn_t first = GFN(ROUND_DOWN(s->first.n, BIT(order))), last = GFN(ROUND_DOWN(end - 1, BIT(order)));
		*p2m_forbid(s, first, order) = p2m_outside(s, first, order);
		*p2m_forbid(s, last, order) = p2m_outside(s, last, order);
	}
	return 0;
}

int p2m_add_slot(struct p2m *p, gfn_t first, u64 frames, enum p2m_type type)
{
	struct p2m_slot slot = {.first = first, .frames = frames, .type = type}, *at = &p->slot[p->nslots];

	lock_take(&p->lock);
	int err = check_new_slot(p, first, frames, type);
	if (!err)
		err = alloc_counts(&slot);
	if (!err) {
		for (; at > p->slot && at[-1].first.n > first.n; at--)
			at[0] = at[-1];
		*at = slot;
		p->nslots++;
	}
	lock_drop(&p->lock);
	return err;
}

/* Changes. */

/*
 * Takes the pages that [gfn, gfn + n) has now out of counts and M2P, or puts them back. debt: also lists the guest's
 * own frames in it; putting them back is enough to undo that.
 */
static void account(const struct p2m *p, gfn_t gfn, u64 n, bool add, struct pt_debt *debt)
{
	for (u64 end = gfn.n + n, step; gfn.n < end; gfn.n += step) {
		struct p2m_entry e = p2m_entry_at(p, gfn);
		step = MIN(p2m_rest(e, gfn), end - gfn.n);
		count_overlay(p, gfn, step, e.type, add);
		if (!(P2M_MASK(e.type) & P2M_OWNED))
			continue;
		if (add) {
			frames_set_gfn(e.mfn, step, gfn);
		} else if (debt) {
			frames_set_gfn(e.mfn, step, GFN(PT_LISTED));
			pt_debt_frames(debt, e.mfn, bit_high(step));
		} else {
			frames_set_gfn(e.mfn, step, GFN(FRAME_NO_GFN));
		}
	}
}

/* Whether the frames may be mapped as this type: whose they are, and that the guest's own are at no other gfn. */
static int check_frames(const struct p2m *p, mfn_t mfn, u64 n, enum p2m_type type)
{
	bool owned = P2M_MASK(type) & P2M_OWNED;

	if (!(P2M_MASK(type) & P2M_BACKED))
		return 0;
	if (type != P2M_DIRECT && !frame_of(MFN(mfn.n + n - 1)))
		return -EINVAL;
	if (!frames_are(mfn, n, p2m_frame_owner(p, type)))
		return -EPERM;
	const struct frame *f = frame_of(mfn);
	for (u64 i = 0; owned && i < n; i++)
		if (f[i].gfn != FRAME_NO_GFN)
			return -EEXIST;
	return 0;
}

static enum p2m_reason reason_of(const struct p2m *p, gfn_t gfn, mfn_t mfn, enum p2m_type type)
{
	if (type == P2M_BALLOONED)
		return P2M_BALLOON;
	if (type == P2M_TRACKED)
		return P2M_TRACK;
	return mfn_eq(p2m_entry_at(p, gfn).mfn, mfn) ? P2M_PERMISSION : P2M_OVERLAY;
}

int p2m_change(struct p2m *p, gfn_t gfn, u64 n, mfn_t mfn, enum p2m_type type, unsigned how, struct pt_debt *debt)
{
	enum p2m_reason reason = reason_of(p, gfn, mfn, type);
	struct pt_debt all = *debt; /* what is listed on top of it is undone by being put back */
	struct pt_entry leaf = p2m_leaf(type, mfn);
	u64 splits = p->pt.splits;

	p2m_call_off(p, gfn, n);
	account(p, gfn, n, false, how & P2M_FREE ? &all : NULL);
	int err = check_frames(p, mfn, n, type);
	if (err)
		goto undo;
	count_overlay(p, gfn, n, type, true);
	leaf.flags &= how & P2M_FROZEN ? (u8)~PT_W : 0xff;
	err = pt_map(&p->pt, gfn_to_gpa(gfn), n << PAGE_SHIFT, leaf, &all);
	if (err)
		goto uncount;
	if (P2M_MASK(type) & P2M_OWNED)
		frames_set_gfn(mfn, n, gfn);
	p->splits[reason] += p->pt.splits - splits;
	pt_merge(&p->pt, gfn_to_gpa(gfn), &all);
	atomic_store(&p->work.changed, true);
	*debt = all;
	return 0;

uncount:
	count_overlay(p, gfn, n, type, false);
undo:
	account(p, gfn, n, true, NULL);
	return err;
}

int p2m_change_if(struct p2m *p, gfn_t gfn, u64 n, u32 types, u8 *other, enum p2m_type type, struct pt_debt *debt)
{
	struct pt_debt own = PT_DEBT_NONE;
	int err = -EAGAIN;

	lock_take(&p->lock);
	if (all_are(p, gfn, n, types, other))
		err = p2m_change(p, gfn, n, MFN_NONE, type, P2M_FREE, debt ? debt : &own);
	lock_drop(&p->lock);
	pt_settle(&p->pt, &own);
	return err;
}

int p2m_split(struct p2m *p, gfn_t gfn, enum p2m_reason why, struct pt_debt *debt)
{
	u64 splits = p->pt.splits;
	int err = pt_split(&p->pt, gfn_to_gpa(gfn), ORDER_4K, debt);

	p->splits[why] += p->pt.splits - splits;
	return err;
}

static bool in_one_slot(const struct p2m *p, gfn_t gfn, u64 n)
{
	const struct p2m_slot *s = p2m_slot_at(p, gfn, 1);

	return s && gfn.n + n <= s->first.n + s->frames;
}

/* The arguments of a change that spans 2^order frames. */
static int check_range(const struct p2m *p, gfn_t gfn, mfn_t mfn, unsigned order, unsigned type)
{
	bool backed = type < P2M_TYPES && (P2M_MASK(type) & P2M_BACKED);

	if (type >= P2M_TYPES || order > ORDER_1G || !IS_ALIGNED(gfn.n, BIT(order)))
		return -EINVAL;
	if (gfn.n >= p->limit || BIT(order) > p->limit - gfn.n)
		return -EINVAL;
	if (!backed && !mfn_eq(mfn, MFN_NONE))
		return -EINVAL;
	if (!backed)
		return type != P2M_DEMAND || in_one_slot(p, gfn, BIT(order)) ? 0 : -EINVAL;
	return IS_ALIGNED(mfn.n, BIT(order)) && mfn.n < BIT(p->machine - PAGE_SHIFT) ? 0 : -EINVAL;
}

int p2m_set(struct p2m *p, gfn_t gfn, mfn_t mfn, unsigned order, enum p2m_type type)
{
	struct pt_debt debt = PT_DEBT_NONE;
	int err = check_range(p, gfn, mfn, order, type);

	if (err)
		return err;
	lock_take(&p->lock);
	err = p2m_change(p, gfn, BIT(order), mfn, type, 0, &debt);
	lock_drop(&p->lock);
	pt_settle(&p->pt, &debt);
	return err;
}

int p2m_remove(struct p2m *p, gfn_t gfn, unsigned order)
{
	int err = check_range(p, gfn, MFN_NONE, order, P2M_NONE);
	u8 other;

	return err ? err : p2m_change_if(p, gfn, BIT(order), ~0u, &other, P2M_NONE, NULL);
}

int p2m_protect(struct p2m *p, gfn_t gfn, unsigned order, enum p2m_type type)
{
	struct pt_debt debt = PT_DEBT_NONE;

	if (!(P2M_MASK(type) & P2M_MEMORY) || check_range(p, gfn, MFN(0), order, type))
		return -EINVAL;
	lock_take(&p->lock);
	struct p2m_entry e = p2m_entry_at(p, gfn);
	int err = -EPERM;
	if ((P2M_MASK(e.type) & P2M_MEMORY) && e.order >= order)
		err = p2m_change(p, gfn, BIT(order), e.mfn, type, 0, &debt);
	lock_drop(&p->lock);
	pt_settle(&p->pt, &debt);
	return err;
}

/* Life. */

int p2m_init(struct p2m *p, const struct pt_format *fmt, u16 owner, unsigned max_order, unsigned width)
{
	*p = (struct p2m){.lock = LOCK_INIT(LOCK_P2M), .owner = owner, .max_order = max_order, .gen = 1};
	p->width = MIN(width, PAGE_SHIFT + pt_order(PT_LEVELS + 1));
	p->limit = BIT(p->width - PAGE_SHIFT);
	p->machine = 52;
	p->work.merge = p->work.collapse = true;
	return pt_init(&p->pt, fmt, &ops, owner, max_order);
}

bool p2m_free_step(struct p2m *p)
{
	if (frames_free_step(p->owner, &p->freeing))
		return true;
	for (unsigned i = 0; i < p->nslots; i++)
		heap_free(p->slot[i].forbid_2m, counts_size(&p->slot[i]));
	p->nslots = 0;
	return false;
}

void p2m_free(struct p2m *p)
{
	while (p2m_free_step(p))
		continue;
}
