/* SPDX-License-Identifier: MIT */
/*
 * Everything against everything: the tree from the root down, the M2P from the frames up, counts and statistics made
 * anew. A frame that is mapped twice shows because it has one gfn in the M2P; a table that is reached twice, because
 * its frame is tagged with the one place where it belongs. So the audit needs no memory of its own.
 */
#include "lib/print.h"
#include "p2m/internal.h"

struct audit {
	const struct p2m *p;
	u64 errors;
	u64 tables, owned_tables, leaves[3];
	gfn_t gfn; /* the last lookup: [gfn, gfn + n) is at e */
	u64 n;
	struct p2m_entry e;
};

static void bad(struct audit *a, u64 gfn, const char *what)
{
	a->errors++;
	log("p2m: owner %u, gfn %#llx: %s\n", a->p->owner, (unsigned long long)gfn, what);
}

static void audit_frames(struct audit *a, gfn_t gfn, mfn_t mfn, u64 n, unsigned type)
{
	u16 owner = p2m_frame_owner(a->p, type);

	if (type != P2M_DIRECT && !frame_of(MFN(mfn.n + n - 1)))
		return bad(a, gfn.n, "mapped to a frame beyond memory");
	for (u64 i = 0; (P2M_MASK(type) & P2M_OWNED) && i < n; i++) {
		const struct frame *f = frame_of(MFN(mfn.n + i));
		if (f->owner != owner)
			return bad(a, gfn.n + i, "mapped to a frame of another owner");
		if (f->state == FRAME_USED && f->gfn != gfn.n + i)
			return bad(a, gfn.n + i, "the M2P says that the frame is elsewhere");
	}
	if (!frames_are(mfn, n, owner))
		bad(a, gfn.n, "mapped to a table, a free frame or another's");
}

/* RAM is not writable for a while where the dirty log or a collapse wants to know of the next write. */
static bool may_lack_w(const struct p2m *p, gfn_t gfn)
{
	const struct p2m_collapse *c = &p->work.current;

	return p->log || (c->running && gfn.n - c->gfn.n < BIT(ORDER_2M));
}

static void audit_leaf(struct audit *a, gfn_t gfn, u64 raw, unsigned level)
{
	const struct pt *pt = &a->p->pt;
	struct pt_entry e = pt_decode(pt->fmt, raw, level, 0);
	mfn_t mfn = hpa_to_mfn(e.pa);
	u64 hw = pt->fmt->accessed | pt->fmt->dirty;

	if (e.type >= P2M_TYPES || pt_present(e) != !!(P2M_MASK(e.type) & P2M_BACKED))
		return bad(a, gfn.n, "no such type, or one that has a frame without one, or the other way round");
	if (level > 3)
		return bad(a, gfn.n, "a leaf above level 3");
	struct pt_entry expected = p2m_leaf(e.type, mfn);
	if (e.type == P2M_RAM && may_lack_w(a->p, gfn))
		expected.flags &= (u8)(e.flags | ~PT_W);
	if (pt->exec_small) /* after a split, until code is fetched */
		expected.flags &= (u8)(e.flags | ~PT_X);
	if (((raw ^ pt_encode(pt, expected, level)) & ~(pt_present(e) ? hw : 0)))
		bad(a, gfn.n, "the entry is not what its type and frame make it");
	if (!pt_present(e))
		return;
	a->leaves[level - 1]++;
	if (e.order > pt->max_order || !IS_ALIGNED(mfn.n, BIT(e.order)))
		return bad(a, gfn.n, "too large, or misaligned");
	if (e.order && !p2m_may_large(a->p, gfn, e.order))
		bad(a, gfn.n, "a large mapping where the count forbids it");
	audit_frames(a, gfn, mfn, BIT(e.order), e.type);
}

static void audit_table(struct audit *a, gfn_t gfn, mfn_t mfn, unsigned level)
{
	const struct pt_format *fmt = a->p->pt.fmt;
	const struct frame *f = frame_of(mfn);
	u32 used = 0;

	if (!f || f->owner != a->p->owner || f->state != FRAME_TABLE || f->gfn != pt_tag(gfn_to_gpa(gfn), level))
		return bad(a, gfn.n, "a table that is none, is another's or belongs elsewhere");
	a->tables++;
	for (const u64 *entry = port_virt(mfn_to_hpa(mfn)), *end = entry + 512; entry < end;
	     entry++, gfn.n += BIT(pt_order(level))) {
		u64 raw = atomic_load(entry);
		used += raw != 0;
		if (raw && gfn.n >= a->p->limit)
			bad(a, gfn.n, "an entry beyond the guest's width");
		else if (pt_is_table(fmt, raw, level))
			audit_table(a, gfn, hpa_to_mfn(raw & PT_ADDR), level - 1);
		else if (raw)
			audit_leaf(a, gfn, raw, level);
	}
	if (used != f->count)
		bad(a, gfn.n - BIT(pt_order(level + 1)), "the table's count of used entries is wrong");
}

/* Frames on a list, to be freed after a flush, belong to nothing any more. */
static void audit_owned(void *ctx, mfn_t mfn, const struct frame *f)
{
	struct audit *a = ctx;

	if (f->gfn == FRAME_NO_GFN || (f->gfn & PT_LISTED))
		return;
	a->owned_tables += f->state == FRAME_TABLE;
	if (f->state != FRAME_USED)
		return;
	if (f->gfn - a->gfn.n >= a->n) {
		a->gfn = GFN(f->gfn);
		a->e = p2m_entry_at(a->p, a->gfn);
		a->n = p2m_rest(a->e, a->gfn);
	}
	if (mfn_eq(a->e.mfn, MFN_NONE) || mfn.n - a->e.mfn.n != f->gfn - a->gfn.n)
		bad(a, f->gfn, "the M2P says that a frame is here, the P2M does not");
}

static void audit_m2p(struct audit *a)
{
	frames_for_each(a->p->owner, audit_owned, a);
	if (a->owned_tables != a->tables)
		bad(a, 0, "some table frames are not in the tree");
}

static u32 overlaid(const struct p2m *p, const struct p2m_slot *s, u64 gfn, u64 end)
{
	u32 frames = 0;

	for (u64 step; gfn < end; gfn += step) {
		struct p2m_entry e = p2m_entry_at(p, GFN(gfn));
		step = MIN(p2m_rest(e, GFN(gfn)), end - gfn);
		frames += p2m_overlays(s, e.type) ? (u32)step : 0;
	}
	return frames;
}

static void audit_counts(struct audit *a, const struct p2m_slot *s, unsigned order)
{
	u64 end = s->first.n + s->frames;

	for (u64 gfn = ROUND_DOWN(s->first.n, BIT(order)); gfn < end; gfn += BIT(order)) {
		u64 first = MAX(gfn, s->first.n), last = gfn + BIT(order);
		u32 expected = p2m_outside(s, GFN(gfn), order) + overlaid(a->p, s, first, MIN(last, end));
		if ((*p2m_forbid(s, GFN(first), order) & ~P2M_HAS_CODE) != expected)
			bad(a, gfn, "the count that forbids large mappings is wrong");
	}
}

static void audit_stats(struct audit *a)
{
	const struct pt *pt = &a->p->pt;

	for (unsigned i = 0; i < ARRAY_SIZE(a->leaves); i++)
		if (a->leaves[i] != pt->leaves[i])
			bad(a, i, "the statistics of entries by size are wrong (for the size with this number)");
	if (a->tables != pt->tables || pt->spare != PT_DEBT_END)
		bad(a, 0, "the statistics of tables are wrong, or spare tables are left");
}

u64 p2m_audit(struct p2m *p)
{
	struct audit a = {.p = p};

	lock_take(&p->lock);
	audit_table(&a, GFN(0), p->pt.root, PT_LEVELS);
	audit_stats(&a);
	if (!a.errors) { /* what follows walks the tree, which must be one */
		audit_m2p(&a);
		for (const struct p2m_slot *s = p->slot; s < p->slot + p->nslots; s++) {
			audit_counts(&a, s, ORDER_2M);
			audit_counts(&a, s, ORDER_1G);
		}
	}
	lock_drop(&p->lock);
	return a.errors;
}
