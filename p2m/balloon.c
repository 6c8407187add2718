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

/* Whether all entries of [gfn, gfn + n) are of these types; *type: of the first that is not. Needs the lock. */
static bool all_are(const struct p2m *p, gfn_t gfn, u64 n, u32 types, u8 *type)
{
	for (u64 end = gfn.n + n; gfn.n < end;) {
		struct p2m_entry e = p2m_entry_at(p, gfn);
		*type = e.type;
		if (!(P2M_MASK(e.type) & types))
			return false;
		gfn.n += p2m_rest(e, gfn);
	}
	return true;
}

int p2m_balloon(struct p2m *p, gfn_t gfn, unsigned order)
{
	const u32 ram = P2M_MASK(P2M_RAM) | P2M_MASK(P2M_TRACKED) | P2M_MASK(P2M_DEMAND);
	struct pt_debt debt = PT_DEBT_NONE;
	int err = check(p, gfn, order);
	u8 type;

	if (err)
		return err;
	lock_take(&p->lock);
	if (all_are(p, gfn, BIT(order), ram, &type))
		err = p2m_change(p, gfn, BIT(order), MFN_NONE, P2M_BALLOONED, true, &debt);
	else
		err = type == P2M_BALLOONED ? -EEXIST : -EPERM;
	lock_drop(&p->lock);
	pt_settle(&p->pt, &debt);
	return err;
}

/* Undoes a part of a reclaim. Even that may need a table, if its last one was merged away meanwhile. */
static int give_back(struct p2m *p, gfn_t gfn, unsigned order)
{
	struct pt_debt debt = PT_DEBT_NONE;

	lock_take(&p->lock);
	int err = p2m_change(p, gfn, BIT(order), MFN_NONE, P2M_BALLOONED, true, &debt);
	lock_drop(&p->lock);
	pt_settle(&p->pt, &debt);
	return err;
}

/* First it is to be populated at first touch, then touched: of whoever comes first, one populates. */
int p2m_reclaim(struct p2m *p, gfn_t gfn, unsigned order)
{
	struct pt_debt debt = PT_DEBT_NONE;
	int err = check(p, gfn, order);
	unsigned max = order;
	u8 type;

	if (err)
		return err;
	lock_take(&p->lock);
	err = -ENOENT;
	if (all_are(p, gfn, BIT(order), P2M_MASK(P2M_BALLOONED), &type))
		err = p2m_change(p, gfn, BIT(order), MFN_NONE, P2M_DEMAND, false, &debt);
	lock_drop(&p->lock);
	pt_settle(&p->pt, &debt);
	if (err)
		return err;
	for (gfn_t at = gfn; !err && at.n < gfn.n + BIT(order); at.n += p2m_rest(p2m_get(p, at), at))
		err = p2m_populate_at(p, at, &max);
	return err && !give_back(p, gfn, order) ? err : 0; /* what cannot be undone comes at first touch */
}
