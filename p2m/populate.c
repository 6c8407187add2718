/* SPDX-License-Identifier: MIT */
/* Where a guest's RAM comes from: at start or at first touch, in the largest blocks that there are. */
#include "lib/errno.h"
#include "p2m/internal.h"

#define NOTHING (-1)

/* Whether code may be fetched from there. */
static bool is_code(unsigned type) { return p2m_leaf(type, MFN(0)).flags & PT_X; }
static bool is_absent(unsigned type) { return type == P2M_NONE || type == P2M_DEMAND; }

/* Whether nothing is populated in the block at first, whose frame gfn has the entry e. */
static bool all_absent(const struct p2m *p, gfn_t first, unsigned order, struct p2m_entry e)
{
	if (order <= ORDER_2M)
		return e.order >= order;
	for (u64 end = first.n + BIT(order); first.n < end; first.n += p2m_rest(e, first)) {
		e = p2m_entry_at(p, first);
		if (!is_absent(e.type))
			return false;
	}
	return true;
}

/* The largest order, of at most max, of a block around gfn that can be populated at once; or NOTHING. */
static int plan(const struct p2m *p, gfn_t gfn, unsigned max)
{
	const struct p2m_slot *s = p2m_slot_at(p, gfn, 1);
	struct p2m_entry e = p2m_entry_at(p, gfn);
	unsigned order = max;

	if (!s || !is_absent(e.type))
		return NOTHING;
	for (; order; order--) {
		gfn_t first = GFN(ROUND_DOWN(gfn.n, BIT(order)));
		bool inside = first.n >= s->first.n && first.n + BIT(order) <= s->first.n + s->frames;
		if (inside && all_absent(p, first, order, e))
			break;
	}
	return (int)order;
}

static int plan_now(const struct p2m *p, gfn_t gfn, unsigned max)
{
	struct p2m_walk w = p2m_walk_begin(p);
	int order = plan(p, gfn, max);

	p2m_walk_end(p, w);
	return order;
}

/* -EAGAIN: somebody else changed the place meanwhile. */
static int install(struct p2m *p, gfn_t gfn, mfn_t mfn, unsigned order, enum p2m_type type)
{
	struct pt_debt debt = PT_DEBT_NONE;
	int err = -EAGAIN;

	lock_take(&p->lock);
	if (plan(p, gfn, order) == (int)order)
		err = p2m_change(p, GFN(ROUND_DOWN(gfn.n, BIT(order))), BIT(order), mfn, type, 0, &debt);
	lock_drop(&p->lock);
	pt_settle(&p->pt, &debt);
	return err;
}

/* Frames are taken and zeroed without the lock; install checks that the plan still holds. */
static int bring(struct p2m *p, gfn_t gfn, unsigned order, unsigned flags)
{
	mfn_t mfn;
	int err = frames_alloc(order, p->owner, flags, &mfn);

	if (err)
		return err;
	err = install(p, gfn, mfn, order, p2m_slot_at(p, gfn, 1)->type);
	if (err)
		(void)!frames_free(mfn, order, p->owner);
	return err;
}

int p2m_populate_at(struct p2m *p, gfn_t gfn, unsigned *max)
{
	for (;;) {
		int order = plan_now(p, gfn, *max);
		if (order == NOTHING)
			return 0;
		int err = bring(p, gfn, (unsigned)order, FRAMES_ZERO);
		if (err == -ENOMEM && order)
			*max = (unsigned)order - 1;
		else if (err != -EAGAIN)
			return err;
	}
}

/* A gigabyte only if nobody has to wait for its zeroing. */
int p2m_touch(struct p2m *p, gfn_t gfn)
{
	unsigned max = MIN((unsigned)p->max_order, (unsigned)ORDER_2M);

	if (p->max_order == ORDER_1G && p2m_get(p, gfn).order == ORDER_1G && !bring(p, gfn, ORDER_1G, FRAMES_CLEAN))
		return 0;
	return p2m_populate_at(p, gfn, &max);
}

/*
 * Blocks may be of any order, whatever the leaves' sizes will be: what lies together in memory is found and freed with
 * less work. The gigabytes come first, or their blocks would be broken for what lies before them in the slot.
 */
int p2m_populate(struct p2m *p, gfn_t first)
{
	const struct p2m_slot *s = p2m_slot_at(p, first, 1);
	unsigned max = ORDER_1G;

	if (!s)
		return -EINVAL;
	u64 end = s->first.n + s->frames;
	for (u64 gfn = ROUND_UP(s->first.n, BIT(ORDER_1G)); gfn < end; gfn += BIT(ORDER_1G))
		if (plan_now(p, GFN(gfn), ORDER_1G) == ORDER_1G && bring(p, GFN(gfn), ORDER_1G, FRAMES_ZERO))
			break;
	for (gfn_t gfn = s->first; gfn.n < end; gfn.n += p2m_rest(p2m_get(p, gfn), gfn)) {
		int err = p2m_populate_at(p, gfn, &max);
		if (err)
			return err;
	}
	return 0;
}

int p2m_populate_on_demand(struct p2m *p, gfn_t first)
{
	const struct p2m_slot *s = p2m_slot_at(p, first, 1);
	u8 other;
	int err = s ? p2m_change_if(p, s->first, s->frames, P2M_MASK(P2M_NONE), &other, P2M_DEMAND, NULL) : -EINVAL;

	return err == -EAGAIN ? -EEXIST : err;
}

static void note_code(struct p2m *p, gfn_t gfn)
{
	const struct p2m_slot *s = p2m_slot_at(p, gfn, 1);

	for (unsigned order = ORDER_2M; s && order <= ORDER_1G; order += 9) {
		u32 *forbid = p2m_forbid(s, gfn, order);
		atomic_store_relaxed(forbid, *forbid | P2M_HAS_CODE);
	}
}

/* All 2 MB at once: where code is there is more of it. */
int p2m_make_executable(struct p2m *p, gfn_t gfn)
{
	struct pt_debt debt = PT_DEBT_NONE;
	int err = 0;

	lock_take(&p->lock);
	struct p2m_entry e = p2m_entry_at(p, gfn);
	gfn_t at = e.order ? GFN(ROUND_DOWN(gfn.n, BIT(ORDER_2M))) : gfn;
	if (e.order)
		err = p2m_split(p, gfn, P2M_CODE, &debt);
	if (e.order && !err)
		note_code(p, gfn);
	if (!err && is_code(e.type))
		for (u64 end = at.n + BIT(MIN(e.order, (u8)ORDER_2M)); at.n < end; at.n++)
			pt_flags(&p->pt, gfn_to_gpa(at), PT_X, 0, &debt);
	lock_drop(&p->lock);
	p2m_cache_of(p, gfn)->gen = 0;
	pt_settle(&p->pt, &debt);
	return err;
}

static enum p2m_verdict judge(struct p2m *p, gfn_t gfn, unsigned access)
{
	struct p2m_entry e = p2m_get(p, gfn);

	if ((access & P2M_EXEC) && p->pt.exec_small && is_code(e.type))
		return p2m_make_executable(p, gfn) ? P2M_NOMEM : P2M_RETRY;
	switch (e.type) {
	case P2M_RAM:
	case P2M_TRACKED:
		if ((access & P2M_WRITE) && !(e.flags & PT_W))
			return p2m_make_writable(p, gfn) ? P2M_NOMEM : P2M_RETRY;
		return P2M_RETRY;
	case P2M_RO:
		return access & P2M_WRITE ? P2M_TO_MMIO : P2M_RETRY;
	case P2M_DIRECT:
		return access & P2M_EXEC ? P2M_DENY : P2M_RETRY;
	case P2M_SHARED:
		return access & P2M_WRITE ? P2M_DENY : P2M_RETRY;
	case P2M_DEMAND:
		return p2m_touch(p, gfn) ? P2M_NOMEM : P2M_RETRY;
	case P2M_BROKEN:
		return P2M_DENY;
	default: /* P2M_NONE, P2M_MMIO, P2M_APIC, P2M_BALLOONED: whatever the bus says; all ones if nobody answers */
		return access & P2M_EXEC ? P2M_DENY : P2M_TO_MMIO;
	}
}

enum p2m_verdict p2m_fault(struct p2m *p, gpa_t gpa, unsigned access)
{
	enum p2m_verdict v = judge(p, gpa_to_gfn(gpa), access);

	atomic_add(&p->faults[v], 1);
	return v;
}
