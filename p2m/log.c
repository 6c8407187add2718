/* SPDX-License-Identifier: MIT */
/*
 * The dirty log: the dirty bits of leaves are the log. Where CPUs do not set them (EPT without A/D), and for large
 * pages that are to be split by the first write, a clean page is write-protected as well; the fault makes it writable
 * and dirty, so that the bits tell the same in all cases.
 *
 *     clean            write, A/D in hardware   ->  D
 *     clean, no W      write, fault             ->  W, D (split first, if the log splits)
 *     D                harvest                  ->  clean, reported
 */
#include "lib/errno.h"
#include "p2m/internal.h"

/* What a page lacks when it is clean. */
static unsigned clean_mask(const struct p2m *p, struct p2m_entry e)
{
	bool protect = e.type == P2M_RAM && (!p->pt.ad || (e.order && p->log != P2M_LOG_KEEP));

	return protect ? PT_D | PT_W : PT_D;
}

/* RAM that was written and then became read-only or tracked is dirty still. */
static bool is_logged(struct p2m_entry e) { return P2M_MASK(e.type) & P2M_MEMORY; }
static bool is_dirty(struct p2m_entry e) { return is_logged(e) && (e.flags & PT_D); }

/* Cleans all RAM, or makes it as if no log had been. Needs the lock. */
static void for_all_ram(struct p2m *p, bool clean, struct pt_debt *debt)
{
	struct p2m_entry e;

	for (gfn_t gfn = GFN(0); gfn.n < p->limit; gfn.n += p2m_rest(e, gfn)) {
		e = p2m_entry_at(p, gfn);
		if (is_logged(e) && clean)
			pt_flags(&p->pt, gfn_to_gpa(gfn), 0, clean_mask(p, e), debt);
		else if (e.type == P2M_RAM)
			pt_flags(&p->pt, gfn_to_gpa(gfn), PT_W | PT_D, 0, debt);
	}
}

static int split_all(struct p2m *p, struct pt_debt *debt)
{
	struct p2m_entry e;
	int err = 0;

	for (gfn_t gfn = GFN(0); !err && gfn.n < p->limit; gfn.n += p2m_rest(e, gfn)) {
		e = p2m_entry_at(p, gfn);
		if (e.type != P2M_RAM || !e.order)
			continue;
		err = p2m_split(p, gfn, P2M_DIRTY, debt);
		e.order = 0;
	}
	return err;
}

/* While the log splits, nothing is merged. What was split and is not logged in the end, the background merges. */
static void set_log(struct p2m *p, enum p2m_log how)
{
	p->log = how;
	p->pt.merge = p->work.merge && how <= P2M_LOG_KEEP;
	atomic_store(&p->work.changed, true);
}

int p2m_log_start(struct p2m *p, enum p2m_log how)
{
	struct pt_debt debt = PT_DEBT_NONE;

	if (how == P2M_LOG_OFF || how > P2M_LOG_EAGER)
		return -EINVAL;
	lock_take(&p->lock);
	int err = p->log ? -EEXIST : 0;
	if (!err) {
		p2m_call_off(p, GFN(0), p->limit);
		set_log(p, how);
		err = how == P2M_LOG_EAGER ? split_all(p, &debt) : 0;
		if (err)
			set_log(p, P2M_LOG_OFF);
		else
			for_all_ram(p, true, &debt);
	}
	lock_drop(&p->lock);
	pt_settle(&p->pt, &debt);
	return err;
}

void p2m_log_stop(struct p2m *p)
{
	struct pt_debt debt = PT_DEBT_NONE;

	lock_take(&p->lock);
	if (p->log) {
		set_log(p, P2M_LOG_OFF);
		for_all_ram(p, false, &debt);
	}
	lock_drop(&p->lock);
	pt_settle(&p->pt, &debt);
}

int p2m_log_harvest(struct p2m *p, gfn_t first, u64 frames, u64 *bitmap)
{
	struct pt_debt debt = PT_DEBT_NONE;
	u64 end = first.n + frames;

	if (first.n >= p->limit || frames > p->limit - first.n)
		return -EINVAL;
	lock_take(&p->lock);
	int err = p->log ? 0 : -EINVAL;
	for (gfn_t gfn = first; !err && gfn.n < end;) {
		struct p2m_entry e = p2m_entry_at(p, gfn);
		u64 whole = p2m_rest(e, gfn), n = MIN(whole, end - gfn.n);
		if (is_dirty(e)) {
			for (u64 i = gfn.n - first.n; i < gfn.n - first.n + n; i++)
				bitmap[i / 64] |= BIT(i % 64);
			if (n == BIT(e.order))
				pt_flags(&p->pt, gfn_to_gpa(gfn), 0, clean_mask(p, e), &debt);
		}
		gfn.n += n;
	}
	lock_drop(&p->lock);
	pt_settle(&p->pt, &debt);
	return err;
}

/* If there is no memory to split a large page, all of it becomes dirty: that is too much, but loses nothing. */
int p2m_make_writable(struct p2m *p, gfn_t gfn)
{
	struct pt_debt debt = PT_DEBT_NONE;
	int err = 0;

	lock_take(&p->lock);
	struct p2m_entry e = p2m_entry_at(p, gfn);
	if (e.type == P2M_TRACKED) {
		err = p2m_change(p, gfn, 1, e.mfn, P2M_RAM, 0, &debt);
	} else if (e.type == P2M_RAM) {
		p2m_call_off(p, gfn, 1);
		if (e.order && p->log > P2M_LOG_KEEP && !(e.flags & PT_W))
			(void)!p2m_split(p, gfn, P2M_DIRTY, &debt);
		pt_flags(&p->pt, gfn_to_gpa(gfn), PT_W | PT_D, 0, &debt);
	}
	lock_drop(&p->lock);
	p2m_cache_of(p, gfn)->gen = 0; /* allowing more needs no flush, but whoever asks again wants to see it */
	pt_settle(&p->pt, &debt);
	return err;
}
