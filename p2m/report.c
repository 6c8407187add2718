/* SPDX-License-Identifier: MIT */
/* What people and tools want to know of a P2M: lines on the console. */
#include "lib/print.h"
#include "p2m/internal.h"

#define CELLS 64u /* of a line of the map: bounds the time that it takes */

/* Several lines, for one of all that would be longer than a message may be. */
void p2m_report(struct p2m *p, const char *name)
{
	const struct pt *pt = &p->pt;
	u64 all = p2m_frames(p, ORDER_4K), large = p2m_frames(p, ORDER_2M), permille = all ? large * 1000 / all : 0;
	const u64 *split = p->splits, *fault = p->faults;

	log("@p2m guest=%s 1g=%lu 2m=%lu 4k=%lu super=%lu.%lu tables=%lu splits=%lu merges=%lu collapses=%lu "
	    "cancelled=%lu used=%lu\n",
	    name, pt->leaves[2], pt->leaves[1], pt->leaves[0], permille / 10, permille % 10, pt->tables, pt->splits,
	    pt->merges, p->collapses, p->cancelled, p->working_set);
	log("@splits guest=%s overlay=%lu balloon=%lu permission=%lu dirty=%lu track=%lu code=%lu\n", name,
	    split[P2M_OVERLAY], split[P2M_BALLOON], split[P2M_PERMISSION], split[P2M_DIRTY], split[P2M_TRACK],
	    split[P2M_CODE]);
	log("@faults guest=%s retry=%lu mmio=%lu deny=%lu nomem=%lu\n", name, fault[P2M_RETRY], fault[P2M_TO_MMIO],
	    fault[P2M_DENY], fault[P2M_NOMEM]);
}

u64 p2m_frames(const struct p2m *p, unsigned order)
{
	u64 frames = 0;

	for (unsigned o = order; o <= ORDER_1G; o += 9)
		frames += atomic_load_relaxed(&p->pt.leaves[o / 9]) << o;
	return frames;
}

/* One letter for 2 MB of the guest's addresses. */
static char cell(const struct p2m *p, gfn_t gfn)
{
	static const char letters[] = ".MRmXDBS!TA";
	_Static_assert(sizeof(letters) == P2M_TYPES + 1, "a letter for each type");
	struct p2m_entry e = p2m_get(p, gfn);
	u64 backed = 0;

	if (e.order == ORDER_1G && e.type == P2M_RAM)
		return 'G';
	if (e.order >= ORDER_2M)
		return letters[e.type];
	for (u64 end = gfn.n + BIT(ORDER_2M); gfn.n < end; gfn.n++)
		backed += (P2M_MASK(p2m_get(p, gfn).type) & P2M_MEMORY) != 0;
	return (char)('0' + backed / (BIT(ORDER_2M) / 8));
}

gfn_t p2m_report_map(const struct p2m *p, const char *name, gfn_t from)
{
	u64 first = from.n & ~BITS(ORDER_2M - 1, 0), gfn = first, end = 0;
	char text[CELLS + 1];
	unsigned n = 0;

	if (p->nslots)
		end = p->slot[p->nslots - 1].first.n + p->slot[p->nslots - 1].frames;
	for (; gfn < end && n < CELLS; gfn += BIT(ORDER_2M))
		text[n++] = cell(p, GFN(gfn));
	text[n] = 0;
	if (n)
		log("@map guest=%s gfn=%#lx pages=%s\n", name, first, text);
	return GFN(gfn < end ? gfn : 0);
}
