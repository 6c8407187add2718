/* SPDX-License-Identifier: MIT */
/*
 * The P2M against a flat model: what every gfn says, where every frame of the guest is, and which pages were written
 * since the dirty log was last read. Random operations, allocation failures among them; the model knows which results
 * are right. After each the pages at its ends and some others are looked up; every few operations the whole P2M, the
 * M2P, the frames in use and the audit are compared.
 *
 * Usage: p2m_model [operations [seed [compare-every]]]; operations are those for each format and largest page.
 * A long run: make build/fast/property/p2m_model && build/fast/property/p2m_model 17000000 7 100000
 */
#include "p2m/p2m.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/port.h"
#include "mm/frames.h"
#include "tests/host/frames_audit.h"
#include "tests/host/host.h"

#define OWNER  (OWNER_GUEST + 1)
#define OTHER  (OWNER_GUEST + 2)
#define MEMORY (40 * MB)
#define FRAMES (MEMORY / PAGE_SIZE)
#define GFNS   (6 * BIT(18)) /* the last gigabytes for real devices, so that there are 1 GB pages to split */
#define DEVICE (4 * BIT(18))

#define CHECK(x)                                                                                              \
	do {                                                                                                  \
		if (!(x)) {                                                                                   \
			fprintf(stderr, "%s:%d: %s, operation %u, seed %llu\n%s", __FILE__, __LINE__, #x, op, \
				(unsigned long long)seed, host_log());                                        \
			abort();                                                                              \
		}                                                                                             \
	} while (0)

/* Where a frame is, as the model sees it. */
#define NOT_OURS (~0ull)
#define UNMAPPED (~1ull)

static struct p2m p2m;
static u64 seed, state;
static unsigned op;
static struct {
	u32 mfn;                    /* NONE: no frame */
	u32 type : 8, written : 24; /* written: log_number if it was since the log was read */
} model[GFNS];
#define NONE (~0u)
static bool logging;
static unsigned log_number = 1;
static u64 now_ns;
static u64 touched, touched_n; /* by this operation: a range of gfns */
static u64 where[FRAMES];

static const struct {
	u64 first, frames;
	enum p2m_type type;
} slots[] = {{0, 0xa0, P2M_RAM},
	     {0xf0, 0x10, P2M_RO},
	     {0x100, 0xf00 + 37, P2M_RAM},
	     {BIT(18) - 700, 1400, P2M_RAM},
	     {3 * BIT(18) + 5, 600, P2M_RAM}};

/* Where operations happen and everything is compared. */
static const struct {
	u64 first, frames;
} windows[] = {{0, 0x1400}, {BIT(18) - 1024, 2048}, {3 * BIT(18), 1024}, {DEVICE, 2 * BIT(18)}};

static u64 next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

static u64 below(u64 n) { return next() % n; }

static u64 random_gfn(unsigned order)
{
	unsigned w = order == ORDER_1G || !below(8) ? 3 : below(3);
	u64 gfn = windows[w].first + below(windows[w].frames);

	touched = ROUND_DOWN(gfn, BIT(order));
	touched_n = BIT(order);
	return touched;
}

static bool backed(unsigned type) { return P2M_MASK(type) & P2M_BACKED; }
static bool owned(unsigned type) { return P2M_MASK(type) & P2M_OWNED; }

/* Model: what a range was is gone. */
static void clear(u64 gfn, u64 n, bool freed)
{
	for (u64 i = gfn; i < gfn + n; i++) {
		if (owned(model[i].type))
			where[model[i].mfn] = freed ? NOT_OURS : UNMAPPED;
		model[i].type = P2M_NONE;
		model[i].mfn = NONE;
		model[i].written = 0;
	}
}

/* What comes new counts as written. */
static void record(u64 gfn, u64 n, u64 mfn, unsigned type)
{
	for (u64 i = 0; i < n; i++) {
		model[gfn + i].type = type;
		model[gfn + i].mfn = backed(type) ? (u32)(mfn + i) : NONE;
		model[gfn + i].written = type == P2M_RAM ? log_number : 0;
		if (owned(type))
			where[mfn + i] = gfn + i;
	}
}

static bool in_range(u64 where_now, u64 gfn, u64 n) { return where_now >= gfn && where_now < gfn + n; }

/* What p2m_set must say, if memory does not run out. */
static int expected_set(u64 gfn, u64 mfn, unsigned order, unsigned type)
{
	u64 n = BIT(order);

	if (backed(type) ? !IS_ALIGNED(mfn, n) : mfn != ~0ull)
		return -EINVAL;
	if (type == P2M_DEMAND) {
		for (unsigned s = 0; s < ARRAY_SIZE(slots); s++) {
			if (gfn >= slots[s].first && gfn + n <= slots[s].first + slots[s].frames)
				return 0;
		}
		return -EINVAL;
	}
	for (u64 i = mfn; owned(type) && i < mfn + n; i++) {
		if (i >= FRAMES)
			return -EINVAL;
		if (where[i] == NOT_OURS)
			return -EPERM;
	}
	for (u64 i = mfn; owned(type) && i < mfn + n; i++) {
		if (where[i] != UNMAPPED && !in_range(where[i], gfn, n))
			return -EEXIST;
	}
	return 0;
}

/* Frames for a mapping: new ones, ones that the guest has already, or wrong ones. */
static u64 choose_frames(unsigned order)
{
	mfn_t mfn;

	if (below(3) && order <= 10 && !frames_alloc(order, OWNER, 0, &mfn)) {
		for (u64 i = 0; i < BIT(order); i++)
			where[mfn.n + i] = UNMAPPED;
		return mfn.n;
	}
	u64 any = below(FRAMES - BIT(MIN(order, 10u)));
	for (u64 tries = 0; tries < 500 && where[any] == NOT_OURS; tries++)
		any = (any + 1) % FRAMES;
	const struct p2m_collapse *c = &p2m.work.current;
	if (c->active && any + BIT(order) > c->to.n && any < c->to.n + 512) /* the worker's: nobody else knows them */
		return FRAMES;
	return ROUND_DOWN(any, BIT(order));
}

/* Large ones take long, and so are rare. */
static unsigned random_order(void)
{
	u64 n = below(2048);

	return n < 4 ? ORDER_1G : n < 64 ? 10 : n < 160 ? ORDER_2M : n < 400 ? 3 : n < 700 ? 1 : 0;
}

static bool maybe_fail(u64 one_in, u64 within)
{
	u64 nth = below(one_in) ? 0 : 1 + below(within);

	host_fail_alloc(nth);
	return nth;
}

static void do_set(void)
{
	static const u8 types[] = {P2M_RAM,    P2M_RAM,    P2M_RAM,       P2M_RO,     P2M_MMIO,    P2M_NONE,
				   P2M_DIRECT, P2M_DEMAND, P2M_BALLOONED, P2M_BROKEN, P2M_TRACKED, P2M_APIC};
	unsigned order = random_order(), type = types[below(ARRAY_SIZE(types))];
	u64 gfn = random_gfn(order), mfn = ~0ull;

	if (owned(type) && order == ORDER_1G)
		order = 0;
	if (owned(type))
		mfn = choose_frames(order);
	else if (type == P2M_DIRECT)
		mfn = BIT(24) + (below(4) ? gfn : ROUND_DOWN(below(BIT(20)), BIT(order)));
	int expected = expected_set(gfn, mfn, order, type);
	maybe_fail(4, 3);
	int err = p2m_set(&p2m, GFN(gfn), MFN(mfn), order, type);
	host_fail_alloc(0);
	CHECK(err == expected || (err == -ENOMEM && !expected));
	if (err)
		return;
	bool same = backed(type) && model[gfn].mfn == (u32)mfn && model[gfn].written == log_number && !order;
	clear(gfn, BIT(order), false);
	record(gfn, BIT(order), mfn, type);
	if (same && (P2M_MASK(type) & P2M_MEMORY)) /* another type of memory does not make it clean */
		model[gfn].written = log_number;
}

/* A page is overlaid and put back: the large page that it was part of comes back too. */
static void do_overlay(void)
{
	u64 gfn = random_gfn(0), mfn = model[gfn].mfn;
	unsigned type = model[gfn].type, order = p2m_get(&p2m, GFN(gfn)).order;

	if (!backed(type))
		return;
	int err = p2m_set(&p2m, GFN(gfn), MFN_NONE, 0, P2M_MMIO);
	CHECK(!err || err == -ENOMEM);
	if (err)
		return;
	CHECK(p2m_get(&p2m, GFN(gfn)).type == P2M_MMIO);
	CHECK(!p2m_set(&p2m, GFN(gfn), MFN(mfn), 0, type));
	CHECK(logging || p2m_get(&p2m, GFN(gfn)).order >= order);
	model[gfn].written = type == P2M_RAM ? log_number : 0;
}

static void do_remove(void)
{
	unsigned order = random_order();
	u64 gfn = random_gfn(order);

	maybe_fail(4, 3);
	int err = p2m_remove(&p2m, GFN(gfn), order);
	host_fail_alloc(0);
	CHECK(!err || err == -ENOMEM);
	if (!err)
		clear(gfn, BIT(order), true);
}

/* Takes over what populating may have done in a range: absent pages of a slot may have become the slot's type. */
static u64 adopt(u64 gfn, u64 n, enum p2m_type type)
{
	u64 left = 0;

	for (u64 i = gfn; i < gfn + n; i++) {
		struct p2m_entry e = p2m_get(&p2m, GFN(i));
		if (model[i].type != P2M_NONE && model[i].type != P2M_DEMAND)
			continue;
		if (e.type == model[i].type) {
			left++;
			continue;
		}
		CHECK(e.type == type && e.mfn.n < FRAMES && where[e.mfn.n] == NOT_OURS);
		record(i, 1, e.mfn.n, type);
	}
	return left;
}

static void do_populate(void)
{
	unsigned s = below(8) ? below(2) : below(ARRAY_SIZE(slots));

	maybe_fail(2, 20);
	touched_n = 0;
	int err = p2m_populate(&p2m, GFN(slots[s].first + below(slots[s].frames)));
	host_fail_alloc(0);
	CHECK(!err || err == -ENOMEM);
	u64 left = adopt(slots[s].first, slots[s].frames, slots[s].type);
	CHECK(err || !left);
}

static void do_fault(void)
{
	static const u8 accesses[] = {P2M_READ, P2M_WRITE, P2M_EXEC};
	u64 gfn = random_gfn(0);
	unsigned access = accesses[below(3)], type = model[gfn].type;
	enum p2m_verdict expected = access == P2M_EXEC ? P2M_DENY : P2M_TO_MMIO;

	if (type == P2M_RAM || type == P2M_TRACKED || (type == P2M_RO && access != P2M_WRITE) ||
	    (type == P2M_DIRECT && access != P2M_EXEC))
		expected = P2M_RETRY;
	if (type == P2M_BROKEN)
		expected = P2M_DENY;
	maybe_fail(4, 5);
	enum p2m_verdict v = p2m_fault(&p2m, gfn_to_gpa(GFN(gfn)) + below(4096), access);
	host_fail_alloc(0);
	if (type == P2M_TRACKED && access == P2M_WRITE) {
		CHECK(v == P2M_RETRY || v == P2M_NOMEM);
		if (v == P2M_RETRY)
			record(gfn, 1, model[gfn].mfn, P2M_RAM);
		return;
	}
	if (type != P2M_DEMAND) {
		CHECK(v == expected || (v == P2M_NOMEM && type == P2M_RAM && logging) ||
		      (v == P2M_NOMEM && access == P2M_EXEC && p2m.pt.exec_small));
		if (v == P2M_RETRY && access == P2M_EXEC)
			CHECK(pt_lookup(&p2m.pt, gfn_to_gpa(GFN(gfn))).flags & PT_X);
		return;
	}
	CHECK(v == P2M_RETRY || v == P2M_NOMEM);
	for (unsigned s = 0; s < ARRAY_SIZE(slots); s++) {
		u64 first = MAX(slots[s].first, ROUND_DOWN(gfn, 512));
		u64 a = slots[s].first + slots[s].frames, b = ROUND_DOWN(gfn, 512) + 512, end = MIN(a, b);
		if (in_range(gfn, slots[s].first, slots[s].frames))
			adopt(first, end - first, slots[s].type);
	}
	CHECK(v == P2M_NOMEM ? model[gfn].type == P2M_DEMAND : owned(model[gfn].type));
}

static void do_access(void)
{
	u64 gfn = random_gfn(0), value = next(), got = 0;
	gpa_t gpa = gfn_to_gpa(GFN(gfn)) + below(4089);
	unsigned type = model[gfn].type;
	bool ram = type == P2M_RAM || type == P2M_TRACKED;

	if (type == P2M_DEMAND)
		return; /* as a fault does */
	int err = p2m_write(&p2m, gpa, &value, 8);
	CHECK(err == (ram ? 0 : -EFAULT));
	if (ram)
		record(gfn, 1, model[gfn].mfn, P2M_RAM);
	err = p2m_read(&p2m, gpa, &got, 8);
	CHECK(err == (P2M_MASK(type) & P2M_MEMORY ? 0 : -EFAULT));
	CHECK(!ram || got == value);
}

/* The entry of a page as the CPU finds it; NULL: none that may be written. */
static u64 *writable_entry(u64 gfn)
{
	u64 *table = port_virt(mfn_to_hpa(p2m.pt.root));

	for (unsigned level = PT_LEVELS;; level--) {
		u64 *slot = &table[pt_index(gfn << PAGE_SHIFT, level)];
		if (!pt_is_table(p2m.pt.fmt, *slot, level))
			return pt_decode(p2m.pt.fmt, *slot, level, 0).flags & PT_W ? slot : NULL;
		table = port_virt(*slot & PT_ADDR);
	}
}

/* A CPU writes, after a fault if it must. Without A and D in hardware it sets none. */
static void do_cpu_write(void)
{
	u64 gfn = random_gfn(0), *slot = NULL;

	if (model[gfn].type != P2M_RAM && model[gfn].type != P2M_TRACKED)
		return;
	for (unsigned tries = 0; !(slot = writable_entry(gfn)) && tries < 3; tries++)
		if (p2m_fault(&p2m, gfn_to_gpa(GFN(gfn)), P2M_WRITE) != P2M_RETRY)
			return;
	CHECK(slot);
	if (p2m.pt.ad)
		*slot |= p2m.pt.fmt->accessed | p2m.pt.fmt->dirty;
	record(gfn, 1, model[gfn].mfn, P2M_RAM);
}

static bool in_ram_slot(u64 gfn, u64 n)
{
	for (unsigned s = 0; s < ARRAY_SIZE(slots); s++)
		if (slots[s].type == P2M_RAM && in_range(gfn, slots[s].first, slots[s].frames))
			return gfn + n <= slots[s].first + slots[s].frames;
	return false;
}

static void do_balloon(void)
{
	unsigned order = below(64) ? 0 : ORDER_2M;
	u64 gfn = random_gfn(order), n = BIT(order), ram = 0, out = 0;

	for (u64 i = gfn; i < gfn + n; i++) {
		unsigned t = model[i].type;
		ram += t == P2M_RAM || t == P2M_TRACKED || t == P2M_DEMAND;
		out += t == P2M_BALLOONED;
	}
	maybe_fail(8, 2);
	int err = p2m_balloon(&p2m, GFN(gfn), order, NULL);
	if (!in_ram_slot(gfn, n))
		CHECK(err == -EPERM);
	else if (ram == n)
		CHECK(!err || err == -ENOMEM);
	else
		CHECK(err == -EPERM || (err == -EEXIST && out));
	host_fail_alloc(0);
	if (err)
		return;
	clear(gfn, n, true);
	record(gfn, n, 0, P2M_BALLOONED);
}

static void do_reclaim(void)
{
	unsigned order = below(64) ? 0 : ORDER_2M;
	u64 gfn = random_gfn(order), n = BIT(order), out = 0;

	for (u64 tries = 0; !order && tries < 100 && model[gfn].type != P2M_BALLOONED; tries++)
		gfn = random_gfn(0);
	for (u64 i = gfn; i < gfn + n; i++)
		out += model[i].type == P2M_BALLOONED;
	struct frames_stats memory;
	bool failing = maybe_fail(8, 2);
	int err = p2m_reclaim(&p2m, GFN(gfn), order, NULL);
	host_fail_alloc(0);
	frames_stats(&memory);
	if (!in_ram_slot(gfn, n))
		CHECK(err == -EPERM);
	else
		CHECK(out == n ? !err || err == -ENOMEM : err == -ENOENT);
	for (u64 i = gfn; !err && i < gfn + n; i++) {
		struct p2m_entry e = p2m_get(&p2m, GFN(i));
		if (e.type == P2M_DEMAND && (failing || !memory.free)) { /* not even to undo it was there memory */
			record(i, 1, 0, P2M_DEMAND);
			continue;
		}
		CHECK(e.type == P2M_RAM && e.mfn.n < FRAMES && where[e.mfn.n] == NOT_OURS);
		record(i, 1, e.mfn.n, P2M_RAM);
	}
}

static void do_protect(void)
{
	static const u8 types[] = {P2M_RAM, P2M_RO, P2M_TRACKED, P2M_TRACKED, P2M_MMIO};
	unsigned order = below(64) ? 0 : ORDER_2M, type = types[below(ARRAY_SIZE(types))];
	u64 gfn = random_gfn(order);
	struct p2m_entry e = p2m_get(&p2m, GFN(gfn));

	maybe_fail(8, 2);
	int err = p2m_protect(&p2m, GFN(gfn), order, type);
	host_fail_alloc(0);
	if (!owned(type)) {
		CHECK(err == -EINVAL);
		return;
	}
	CHECK(!err || err == -ENOMEM || err == -EPERM);
	CHECK((err == -EPERM) == (!(P2M_MASK(e.type) & P2M_MEMORY) || e.order < order));
	for (u64 i = gfn; !err && i < gfn + BIT(order); i++)
		model[i].type = type;
}

static void do_log(void)
{
	static const u8 how[] = {P2M_LOG_KEEP, P2M_LOG_LAZY, P2M_LOG_EAGER};

	touched_n = 0;
	if (logging) {
		CHECK(p2m_log_start(&p2m, P2M_LOG_KEEP) == -EEXIST);
		p2m_log_stop(&p2m);
		logging = false;
		return;
	}
	maybe_fail(4, 5);
	int err = p2m_log_start(&p2m, how[below(3)]);
	host_fail_alloc(0);
	CHECK(!err || err == -ENOMEM);
	logging = !err;
	log_number++;
}

/* All that was written is reported, and nothing that is not the guest's. */
static void do_harvest(void)
{
	u64 bitmap[16] = {0}, gfn = random_gfn(0), n = MIN(1 + below(1024), GFNS - gfn);

	touched_n = n;
	CHECK(p2m_log_harvest(&p2m, GFN(gfn), n, bitmap) == (logging ? 0 : -EINVAL));
	for (u64 i = 0; i < n; i++) {
		bool told = bitmap_test(bitmap, (unsigned)i);
		CHECK(!logging || model[gfn + i].written != log_number || told);
		CHECK(!told || owned(model[gfn + i].type));
		model[gfn + i].written = 0;
	}
}

/* The background may have moved 2 MB: the same pages, in other frames. */
static void do_work(void)
{
	u64 collapses = p2m.collapses, gfn = p2m.work.current.gfn.n;

	touched_n = 0;
	if (below(4))
		maybe_fail(8, 2);
	for (unsigned i = 0; i < 100 && p2m.collapses == collapses; i++, now_ns += below(100000000)) {
		if (p2m.work.current.active)
			gfn = p2m.work.current.gfn.n;
		p2m_work(&p2m, now_ns);
	}
	host_fail_alloc(0);
	if (p2m.collapses == collapses)
		return;
	touched = gfn;
	touched_n = 512;
	CHECK(p2m_get(&p2m, GFN(gfn)).order >= ORDER_2M && !logging);
	for (u64 i = gfn; i < gfn + 512; i++) {
		CHECK(model[i].type == P2M_RAM);
		where[model[i].mfn] = NOT_OURS;
	}
	mfn_t mfn = p2m_get(&p2m, GFN(gfn)).mfn;
	for (u64 i = 0; i < 512; i++)
		CHECK(where[mfn.n + i] == NOT_OURS);
	record(gfn, 512, mfn.n, P2M_RAM);
}

/* Makes 2 MB all RAM, of whatever frames there are, so that the background finds something to do. */
static void do_mend(void)
{
	u64 first = ROUND_UP(0x100 + below(0xe00), 512), gfn = first;

	for (mfn_t mfn; gfn < first + 512; gfn++) {
		if (model[gfn].type == P2M_RAM)
			continue;
		if (frames_alloc(0, OWNER, 0, &mfn))
			break;
		where[mfn.n] = UNMAPPED;
		if (p2m_set(&p2m, GFN(gfn), mfn, 0, P2M_RAM))
			break;
		clear(gfn, 1, false);
		record(gfn, 1, mfn.n, P2M_RAM);
	}
	do_work();
}

/* Gives back what the guest owns and has nowhere mapped. */
static void do_reap(void)
{
	for (u64 n = 0; n < FRAMES; n++) {
		if (where[n] != UNMAPPED)
			continue;
		CHECK(frames_free(MFN(n), 0, OWNER) == 0);
		where[n] = NOT_OURS;
	}
}

static void check_frames(void)
{
	const struct p2m_collapse *c = &p2m.work.current;
	u64 tables = 0;

	for (u64 n = 0; n < FRAMES; n++) {
		if (c->active && in_range(n, c->to.n, 512)) /* the worker's */
			continue;
		struct frames_block b = frames_block(MFN(n));
		if (b.owner == OWNER && b.table) {
			tables++;
			CHECK(where[n] == NOT_OURS);
			continue;
		}
		CHECK((b.owner == OWNER) == (where[n] != NOT_OURS));
		if (b.owner == OWNER)
			CHECK(frame_of(MFN(n))->gfn == (where[n] == UNMAPPED ? FRAME_NO_GFN : where[n]));
	}
	CHECK(p2m.pt.tables == tables);
}

static void check_page(u64 gfn)
{
	struct p2m_entry e = p2m_get(&p2m, GFN(gfn));

	CHECK(e.type == model[gfn].type && (backed(e.type) ? e.mfn.n == model[gfn].mfn : mfn_eq(e.mfn, MFN_NONE)));
	CHECK(!backed(e.type) || e.order <= p2m.max_order);
}

static void check_all(void)
{
	for (unsigned w = 0; w < ARRAY_SIZE(windows); w++)
		for (u64 i = 0; i < windows[w].frames; i += w == 3 ? 1 + below(200) : 1)
			check_page(windows[w].first + i);
	check_frames();
	CHECK(p2m_audit(&p2m) == 0);
}

static void check_some(void)
{
	for (u64 i = 0; i < 3 && touched_n; i++)
		check_page(touched + below(touched_n));
	for (u64 i = 0; i < 3; i++) {
		u64 w = below(3);
		check_page(windows[w].first + below(windows[w].frames));
	}
}

static void one_operation(void)
{
	static const struct {
		void (*run)(void);
		unsigned weight;
	} operations[] = {{do_set, 240},      {do_overlay, 60}, {do_remove, 80},  {do_fault, 100},  {do_access, 100},
			  {do_cpu_write, 80}, {do_balloon, 60}, {do_reclaim, 60}, {do_protect, 60}, {do_harvest, 4},
			  {do_work, 5},       {do_mend, 1},     {do_populate, 3}, {do_log, 1}};
	unsigned sum = 0, i = 0;

	for (unsigned n = 0; n < ARRAY_SIZE(operations); n++)
		sum += operations[n].weight;
	for (u64 at = below(sum); at >= operations[i].weight; i++)
		at -= operations[i].weight;
	host_log_clear();
	touched_n = 0;
	operations[i].run();
	check_some();
	if (!below(400))
		do_reap();
}

static void run(const struct pt_format *fmt, unsigned max_order, unsigned operations, unsigned every)
{
	state = (seed * 7 + max_order + (fmt == &pt_format_ept)) * 0x9e3779b97f4a7c15ull | 1;
	host_machine(MEMORY);
	for (u64 n = 0; n < FRAMES; n++)
		where[n] = NOT_OURS;
	for (u64 gfn = 0; gfn < GFNS; gfn++) {
		model[gfn].mfn = NONE;
		model[gfn].type = P2M_NONE;
	}
	logging = false;
	CHECK(!p2m_init(&p2m, fmt, OWNER, max_order, 36));
	p2m.pt.ad = fmt != &pt_format_ept || max_order != ORDER_2M; /* older EPT sets none */
	p2m.pt.exec_small = fmt == &pt_format_ept && max_order == ORDER_1G;
	for (unsigned s = 0; s < ARRAY_SIZE(slots); s++)
		CHECK(!p2m_add_slot(&p2m, GFN(slots[s].first), slots[s].frames, slots[s].type));
	for (op = 0; op < operations; op++) {
		one_operation();
		if (op % every == 0)
			check_all();
	}
	check_all();
	const struct pt *pt = &p2m.pt;
	printf("p2m_model: %s, order %u, seed %lu: %u operations; 4K %lu, 2M %lu, 1G %lu, splits %lu, merges %lu, collapses "
	       "%lu\n",
	       fmt->name, max_order, seed, operations, pt->leaves[0], pt->leaves[1], pt->leaves[2], pt->splits,
	       pt->merges, p2m.collapses);
	fflush(stdout);
	p2m_free(&p2m);
	for (u64 n = 0; n < FRAMES; n++)
		CHECK(frames_block(MFN(n)).owner != OWNER);
	CHECK(frames_audit() == 0);
}

int main(int argc, char **argv)
{
	unsigned operations = argc > 1 ? strtoul(argv[1], NULL, 0) : 3000;

	unsigned every = argc > 3 ? strtoul(argv[3], NULL, 0) : 16;

	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	for (unsigned order = 0; order <= ORDER_1G; order += 9) {
		run(&pt_format_long, order, operations, every);
		run(&pt_format_ept, order, operations, every);
	}
	return 0;
}
