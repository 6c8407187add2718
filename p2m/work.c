/* SPDX-License-Identifier: MIT */
/*
 * What makes small pages large again, in steps that idle pCPUs do.
 *
 * A scan looks at each 2 MB that has a table. If its 512 entries agree they merge in place. If they are 512 pages of
 * RAM that lie anywhere, they collapse:
 *
 *     begin     a fresh 2 MB block; the pages are write-protected, flushed
 *     copy      32 pages a step or, if the guest keeps writing to them, more; without the lock; nobody can write them
 *     switch    under the lock: one leaf instead of the table, as read-only as that; flush; the old frames are freed;
 *               the leaf is made writable. Earlier, one CPU could write the new page while another reads the old one
 *
 * Whoever wants to write to a page in between, or changes any of them, calls the collapse off: the pages are writable
 * again at once, and the worker frees its block when it notices. The next try is some time later.
 *
 * 2 MB pages become 1 GB pages by merging in place only. A copy would need a free gigabyte, half a million frames of
 * M2P and a second of copying to save a table of 4 KB and one level of walks.
 *
 * The working set is how many frames have their accessed bit set, by pages of whatever size, once every SAMPLE_NS, when
 * the bits are cleared.
 */
#include "lib/errno.h"
#include "lib/string.h"
#include "p2m/internal.h"

#define NEVER       (~0ul)
#define LOOK        64u           /* entries that a scan's step looks at... */
#define TABLE_LOOKS 7u            /* ...a table counts as that many more */
#define LOOK_SAMPLE 256u          /* the same for a sample's */
#define COPY        32u           /* frames; doubled with each collapse in a row that is called off */
#define PACE_NS     1000000ul     /* between two collapses: 2 GB/s at most */
#define REST_NS     10000000ul    /* between two scans */
#define RETRY_NS    1000000000ul  /* the same after one in which a collapse was called off, or had no memory */
#define SAMPLE_NS   10000000000ul /* between two samples */
#define PAGES       BIT(ORDER_2M)
#define RESERVE     (4 * PAGES) /* free memory that is left alone: others must not fail for what is only borrowed */

/* Gives the 512 pages of a collapse their permission back, or takes it. Needs the lock. */
static void protect(struct p2m *p, gfn_t first, bool writable, struct pt_debt *debt)
{
	for (u64 i = 0; i < PAGES; i++)
		if (p2m_entry_at(p, GFN(first.n + i)).type == P2M_RAM)
			pt_flags(&p->pt, gfn_to_gpa(GFN(first.n + i)), writable ? PT_W : 0, writable ? 0 : PT_W, debt);
}

void p2m_call_off(struct p2m *p, gfn_t gfn, u64 n)
{
	struct p2m_collapse *c = &p->work.current;
	struct pt_debt none = PT_DEBT_NONE; /* to allow more owes nothing */

	if (!c->running || gfn.n >= c->gfn.n + PAGES || c->gfn.n >= gfn.n + n)
		return;
	atomic_store(&c->running, false);
	p->cancelled++;
	protect(p, c->gfn, true, &none);
}

/* Whether all 512 are RAM that may be one page. Needs the lock. */
static bool can_collapse(const struct p2m *p, gfn_t first)
{
	if (!p->work.collapse || p->log || p->max_order < ORDER_2M || !p2m_may_large(p, first, ORDER_2M))
		return false;
	for (u64 i = 0; i < PAGES; i++) {
		struct p2m_entry e = p2m_entry_at(p, GFN(first.n + i));
		if (e.type != P2M_RAM || e.order)
			return false;
	}
	return true;
}

static void begin(struct p2m *p, gfn_t first)
{
	struct p2m_collapse *c = &p->work.current;
	struct pt_debt debt = PT_DEBT_NONE;
	struct frames_stats memory;
	mfn_t to;

	frames_stats(&memory);
	if (memory.free < RESERVE || frames_alloc(ORDER_2M, p->owner, 0, &to)) {
		p->work.failed = true;
		p->work.at = GFN(p->limit); /* nor for any other */
		return;
	}
	lock_take(&p->lock);
	bool go = can_collapse(p, first);
	if (go) {
		*c = (struct p2m_collapse){.gfn = first, .to = to, .active = true, .running = true};
		protect(p, first, false, &debt);
	}
	lock_drop(&p->lock);
	pt_settle(&p->pt, &debt);
	if (!go)
		(void)!frames_free(to, ORDER_2M, p->owner);
}

static void finish(struct p2m *p)
{
	struct p2m_collapse *c = &p->work.current;
	struct pt_debt debt = PT_DEBT_NONE;
	int err = -EAGAIN;

	lock_take(&p->lock);
	if (c->running) {
		atomic_store(&c->running, false);
		err = p2m_change(p, c->gfn, PAGES, c->to, P2M_RAM, P2M_FREE | P2M_FROZEN, &debt);
	}
	if (!err) {
		pt_settle(&p->pt, &debt);
		pt_flags(&p->pt, gfn_to_gpa(c->gfn), PT_W, 0, &debt);
		p->collapses++;
	}
	c->active = false;
	lock_drop(&p->lock);
	if (!err) {
		p->work.haste = 0;
		return;
	}
	p->work.failed = true;
	p->work.haste += COPY << p->work.haste < PAGES;
	(void)!frames_free(c->to, ORDER_2M, p->owner);
}

static void copy(struct p2m *p)
{
	struct p2m_collapse *c = &p->work.current;

	for (u64 end = MIN(c->copied + (COPY << p->work.haste), PAGES); c->copied < end && atomic_load(&c->running);
	     c->copied++) {
		struct p2m_walk w = p2m_walk_begin(p);
		struct p2m_entry e = p2m_entry_at(p, GFN(c->gfn.n + c->copied));
		if (e.type == P2M_RAM)
			memcpy(port_virt(mfn_to_hpa(MFN(c->to.n + c->copied))), port_virt(mfn_to_hpa(e.mfn)),
			       PAGE_SIZE);
		p2m_walk_end(p, w);
	}
	if (c->copied == PAGES || !atomic_load(&c->running))
		finish(p);
}

/* Merges what is at gfn, and returns whether it is to be collapsed. */
static bool look_at(struct p2m *p, gfn_t gfn)
{
	struct pt_debt debt = PT_DEBT_NONE;

	lock_take(&p->lock);
	pt_merge(&p->pt, gfn_to_gpa(gfn), &debt);
	bool collapse = can_collapse(p, gfn);
	lock_drop(&p->lock);
	pt_settle(&p->pt, &debt);
	return collapse;
}

/* A step of the scan, which begins if there is a reason. */
static void scan(struct p2m *p, u64 now)
{
	struct p2m_work *w = &p->work;

	if (!w->at.n) {
		if (!atomic_swap(&w->changed, false) && !w->failed) {
			w->next = NEVER;
			return;
		}
		w->failed = false;
	}
	w->next = now;
	for (unsigned i = 0; i < LOOK && w->at.n < p->limit; i++) {
		gfn_t gfn = w->at;
		struct p2m_entry e = p2m_get(p, gfn);
		w->at.n = gfn.n + MAX(p2m_rest(e, gfn), PAGES);
		bool table = !e.order || (e.order == ORDER_2M && IS_ALIGNED(gfn.n, BIT(ORDER_1G)));
		i += table ? TABLE_LOOKS : 0;
		if (table && look_at(p, gfn)) {
			begin(p, gfn);
			return;
		}
	}
	if (w->at.n < p->limit)
		return;
	w->at = GFN(0);
	w->next = now + (w->failed ? RETRY_NS : REST_NS);
}

/* Clearing owes one flush a sample: or what CPUs remember for long would look unused. */
static void sample(struct p2m *p, u64 now)
{
	struct pt_debt debt = PT_DEBT_NONE;
	struct p2m_work *w = &p->work;

	lock_take(&p->lock);
	for (unsigned i = 0; i < LOOK_SAMPLE && w->sample_at.n < p->limit; i++) {
		struct p2m_entry e = p2m_entry_at(p, w->sample_at);
		if ((P2M_MASK(e.type) & P2M_MEMORY) && (e.flags & PT_A)) {
			pt_flags(&p->pt, gfn_to_gpa(w->sample_at), 0, PT_A, &debt);
			w->accessed += BIT(e.order);
		}
		w->sample_at.n += p2m_rest(e, w->sample_at);
	}
	lock_drop(&p->lock);
	if (w->sample_at.n < p->limit)
		return;
	p->working_set = w->accessed;
	w->accessed = 0;
	w->sample_at = GFN(0);
	w->sample_next = now + SAMPLE_NS;
	debt.flush = true;
	pt_settle(&p->pt, &debt);
}

static u64 step(struct p2m *p, u64 now)
{
	struct p2m_work *w = &p->work;

	if (w->current.active) {
		copy(p);
		w->next = w->current.active ? now : now + PACE_NS;
	} else if (p->pt.ad && now >= w->sample_next) {
		sample(p, now);
	} else if (now >= w->next || (w->next == NEVER && atomic_load(&w->changed))) {
		scan(p, now);
	}
	return p->pt.ad ? MIN(w->next, w->sample_next) : w->next;
}

u64 p2m_work(struct p2m *p, u64 now)
{
	u64 next = NEVER;

	if (!atomic_swap(&p->work.busy, 1)) {
		next = step(p, now);
		atomic_store(&p->work.busy, 0);
	}
	return next;
}
