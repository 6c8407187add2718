/* SPDX-License-Identifier: MIT */
/* Memory that the guest gives back, and gets again. */
#include "lib/errno.h"
#include "p2m/internal.h"

static int check(const struct p2m *p, gfn_t gfn, unsigned order)
{
	if ((order != ORDER_4K && order != ORDER_2M) || !IS_ALIGNED(gfn.n, BIT(order)) || gfn.n >= p->limit)
		return -EINVAL;
	const struct p2m_slot *s = p2m_slot_at(p, gfn, 1);
	return s && s->type == P2M_RAM && gfn.n + BIT(order) <= s->first.n + s->frames ? 0 : -EPERM;
}

int p2m_balloon(struct p2m *p, gfn_t gfn, unsigned order, struct pt_debt *debt)
{
	const u32 ram = P2M_MASK(P2M_RAM) | P2M_MASK(P2M_TRACKED) | P2M_MASK(P2M_DEMAND);
	int err = check(p, gfn, order);
	u8 other = P2M_NONE;

	if (!err)
		err = p2m_change_if(p, gfn, BIT(order), ram, &other, P2M_BALLOONED, debt);
	return err != -EAGAIN ? err : other == P2M_BALLOONED ? -EEXIST : -EPERM;
}

/*
 * First it is to be populated at first touch, then touched: of whoever comes first, one populates. What cannot be
 * undone comes at first touch: for lack of a table, if the last one was merged away, or as it is something else
 * meanwhile.
 */
int p2m_reclaim(struct p2m *p, gfn_t gfn, unsigned order, struct pt_debt *debt)
{
	const u32 undone = P2M_MASK(P2M_RAM) | P2M_MASK(P2M_DEMAND);
	int err = check(p, gfn, order);
	unsigned max = order;
	u8 other;

	if (!err)
		err = p2m_change_if(p, gfn, BIT(order), P2M_MASK(P2M_BALLOONED), &other, P2M_DEMAND, debt);
	if (err)
		return err == -EAGAIN ? -ENOENT : err;
	for (gfn_t at = gfn; !err && at.n < gfn.n + BIT(order); at.n += p2m_rest(p2m_get(p, at), at))
		err = p2m_populate_at(p, at, &max);
	return err && !p2m_change_if(p, gfn, BIT(order), undone, &other, P2M_BALLOONED, debt) ? err : 0;
}
