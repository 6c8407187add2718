/* SPDX-License-Identifier: MIT */
/* Where a guest's RAM comes from: at start or at first touch, in the largest blocks that there are. */
#include "lib/errno.h"
#include "p2m/internal.h"

#define NOTHING (-1)

/* The order, of at most max, of the block around gfn that can be populated at once; or NOTHING. */
static int plan(const struct p2m *p, gfn_t gfn, unsigned max)
{
	const struct p2m_slot *s = p2m_slot_at(p, gfn, 1);
	struct p2m_entry e = p2m_entry_at(p, gfn);
	int order = (int)MIN(max, (unsigned)p->max_order);

	if (!s || (e.type != P2M_NONE && e.type != P2M_DEMAND))
		return NOTHING;
	for (; order > 0; order -= 9) {
		gfn_t first = GFN(ROUND_DOWN(gfn.n, BIT(order)));
		if (e.order >= order && p2m_may_large(p, first, (unsigned)order))
			break;
	}
	return order;
}

/* -EAGAIN: somebody else changed the place meanwhile. */
static int install(struct p2m *p, gfn_t gfn, mfn_t mfn, unsigned order, enum p2m_type type)
{
	struct pt_debt debt = PT_DEBT_NONE;
	int err = -EAGAIN;

	lock_take(&p->lock);
	if (plan(p, gfn, order) == (int)order)
		err = p2m_change(p, GFN(ROUND_DOWN(gfn.n, BIT(order))), BIT(order), mfn, type, false, &debt);
	lock_drop(&p->lock);
	pt_settle(&p->pt, &debt);
	return err;
}

/* Frames are taken and zeroed without the lock; install checks that the plan still holds. */
int p2m_populate_at(struct p2m *p, gfn_t gfn, unsigned *max)
{
	for (;;) {
		struct p2m_walk w = p2m_walk_begin(p);
		int order = plan(p, gfn, *max);
		p2m_walk_end(p, w);
		if (order == NOTHING)
			return 0;

		mfn_t mfn;
		int err = frames_alloc((unsigned)order, p->owner, FRAMES_ZERO, &mfn);
		if (err && !order)
			return err;
		if (err) {
			*max = order > ORDER_2M ? ORDER_2M : ORDER_4K;
			continue;
		}
		err = install(p, gfn, mfn, (unsigned)order, p2m_slot_at(p, gfn, 1)->type);
		if (err)
			(void)!frames_free(mfn, (unsigned)order, p->owner);
		if (err != -EAGAIN)
			return err;
	}
}

int p2m_populate(struct p2m *p, gfn_t first)
{
	const struct p2m_slot *s = p2m_slot_at(p, first, 1);
	unsigned max = ORDER_1G;

	if (!s)
		return -EINVAL;
	for (gfn_t gfn = s->first; gfn.n < s->first.n + s->frames;) {
		int err = p2m_populate_at(p, gfn, &max);
		if (err)
			return err;
		gfn.n += p2m_rest(p2m_get(p, gfn), gfn);
	}
	return 0;
}

int p2m_populate_on_demand(struct p2m *p, gfn_t first)
{
	const struct p2m_slot *s = p2m_slot_at(p, first, 1);
	struct pt_debt debt = PT_DEBT_NONE;
	int err = -EEXIST;

	if (!s)
		return -EINVAL;
	lock_take(&p->lock);
	if (p2m_is_empty(p, s->first, s->frames))
		err = p2m_change(p, s->first, s->frames, MFN_NONE, P2M_DEMAND, false, &debt);
	lock_drop(&p->lock);
	pt_settle(&p->pt, &debt);
	return err;
}

static enum p2m_verdict judge(struct p2m *p, gfn_t gfn, unsigned access)
{
	unsigned max = ORDER_2M; /* at first touch the guest waits for the zeroing, so a touch brings no more */

	switch (p2m_get(p, gfn).type) {
	case P2M_RAM:
		return P2M_RETRY;
	case P2M_RO:
		return access & P2M_WRITE ? P2M_TO_MMIO : P2M_RETRY;
	case P2M_DIRECT:
		return access & P2M_EXEC ? P2M_DENY : P2M_RETRY;
	case P2M_SHARED:
		return access & P2M_WRITE ? P2M_DENY : P2M_RETRY;
	case P2M_DEMAND:
		return p2m_populate_at(p, gfn, &max) ? P2M_NOMEM : P2M_RETRY;
	case P2M_BROKEN:
		return P2M_DENY;
	default: /* P2M_NONE, P2M_MMIO, P2M_BALLOONED: whatever the bus says; all ones if nobody answers */
		return access & P2M_EXEC ? P2M_DENY : P2M_TO_MMIO;
	}
}

enum p2m_verdict p2m_fault(struct p2m *p, gpa_t gpa, unsigned access)
{
	enum p2m_verdict v = judge(p, gpa_to_gfn(gpa), access);

	atomic_add(&p->faults[v], 1);
	return v;
}
