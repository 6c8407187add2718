/* SPDX-License-Identifier: MIT */
/*
 * The P2M against a flat model: what every gfn says, and where every frame of the guest is. Random sets, removals,
 * faults, populations and accesses, allocation failures among them; after each the model knows which results are right,
 * and every few operations the whole P2M, the M2P, the frames in use and the audit are compared with it.
 * Usage: p2m_model [operations [seed]].
 */
#include "p2m/p2m.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bits.h"
#include "lib/errno.h"
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
	u64 mfn;
	u8 type;
} model[GFNS];
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

	return ROUND_DOWN(gfn, BIT(order));
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
		model[i].mfn = ~0ull;
	}
}

static void record(u64 gfn, u64 n, u64 mfn, unsigned type)
{
	for (u64 i = 0; i < n; i++) {
		model[gfn + i].type = type;
		model[gfn + i].mfn = backed(type) ? mfn + i : ~0ull;
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
	return ROUND_DOWN(any, BIT(order));
}

static unsigned random_order(void)
{
	static const u8 orders[] = {0, 0, 0, 0, 1, 3, 9, 9, 10, 18};

	return orders[below(ARRAY_SIZE(orders))];
}

static void do_set(void)
{
	static const u8 types[] = {P2M_RAM,  P2M_RAM,    P2M_RAM,    P2M_RO,        P2M_MMIO,
				   P2M_NONE, P2M_DIRECT, P2M_DEMAND, P2M_BALLOONED, P2M_BROKEN};
	unsigned order = random_order(), type = types[below(ARRAY_SIZE(types))];
	u64 gfn = random_gfn(order), mfn = ~0ull;

	if (owned(type) && order == ORDER_1G)
		order = 0;
	if (owned(type))
		mfn = choose_frames(order);
	else if (type == P2M_DIRECT)
		mfn = BIT(24) + (below(4) ? gfn : ROUND_DOWN(below(BIT(20)), BIT(order)));
	int expected = expected_set(gfn, mfn, order, type);
	bool failing = !below(4);
	if (failing)
		host_fail_alloc(1 + below(3));
	int err = p2m_set(&p2m, GFN(gfn), MFN(mfn), order, type);
	host_fail_alloc(0);
	CHECK(err == expected || (err == -ENOMEM && !expected));
	if (err)
		return;
	clear(gfn, BIT(order), false);
	record(gfn, BIT(order), mfn, type);
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
	CHECK(p2m_get(&p2m, GFN(gfn)).order >= order);
}

static void do_remove(void)
{
	unsigned order = random_order();
	u64 gfn = random_gfn(order);

	if (!below(4))
		host_fail_alloc(1 + below(3));
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
	unsigned s = below(ARRAY_SIZE(slots));

	if (!below(2))
		host_fail_alloc(1 + below(20));
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

	if (type == P2M_RAM || (type == P2M_RO && access != P2M_WRITE) || (type == P2M_DIRECT && access != P2M_EXEC))
		expected = P2M_RETRY;
	if (type == P2M_BROKEN)
		expected = P2M_DENY;
	if (!below(4))
		host_fail_alloc(1 + below(5));
	enum p2m_verdict v = p2m_fault(&p2m, gfn_to_gpa(GFN(gfn)) + below(4096), access);
	host_fail_alloc(0);
	if (type != P2M_DEMAND) {
		CHECK(v == expected);
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

	if (model[gfn].type == P2M_DEMAND)
		return; /* as a fault does */
	int err = p2m_write(&p2m, gpa, &value, 8);
	CHECK(err == (model[gfn].type == P2M_RAM ? 0 : -EFAULT));
	err = p2m_read(&p2m, gpa, &got, 8);
	CHECK(err == (owned(model[gfn].type) ? 0 : -EFAULT));
	CHECK(model[gfn].type != P2M_RAM || got == value);
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
	u64 tables = 0;

	for (u64 n = 0; n < FRAMES; n++) {
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

static void check_all(void)
{
	for (unsigned w = 0; w < ARRAY_SIZE(windows); w++) {
		for (u64 i = 0; i < windows[w].frames; i += w == 3 ? 1 + below(200) : 1) {
			u64 gfn = windows[w].first + i;
			struct p2m_entry e = p2m_get(&p2m, GFN(gfn));
			CHECK(e.type == model[gfn].type && e.mfn.n == model[gfn].mfn);
			CHECK(!backed(e.type) || e.order <= p2m.max_order);
		}
	}
	check_frames();
	CHECK(p2m_audit(&p2m) == 0);
}

static void one_operation(void)
{
	static void (*const operations[])(void) = {do_set,    do_set,    do_set,     do_set,    do_set,
						   do_set,    do_remove, do_fault,   do_access, do_populate,
						   do_remove, do_fault,  do_overlay, do_overlay};

	host_log_clear();
	operations[below(ARRAY_SIZE(operations))]();
	if (!below(40))
		do_reap();
}

static void run(const struct pt_format *fmt, unsigned max_order, unsigned operations)
{
	host_machine(MEMORY);
	for (u64 n = 0; n < FRAMES; n++)
		where[n] = NOT_OURS;
	for (u64 gfn = 0; gfn < GFNS; gfn++) {
		model[gfn].mfn = ~0ull;
		model[gfn].type = P2M_NONE;
	}
	CHECK(!p2m_init(&p2m, fmt, OWNER, max_order, 36));
	for (unsigned s = 0; s < ARRAY_SIZE(slots); s++)
		CHECK(!p2m_add_slot(&p2m, GFN(slots[s].first), slots[s].frames, slots[s].type));
	for (op = 0; op < operations; op++) {
		one_operation();
		if (op % 16 == 0)
			check_all();
	}
	check_all();
	const struct pt *pt = &p2m.pt;
	printf("p2m_model: %s, order %u: %u operations; 4K %llu, 2M %llu, 1G %llu, merges %llu\n", fmt->name, max_order,
	       operations, (unsigned long long)pt->leaves[0], (unsigned long long)pt->leaves[1],
	       (unsigned long long)pt->leaves[2], (unsigned long long)pt->merges);
	p2m_free(&p2m);
	for (u64 n = 0; n < FRAMES; n++)
		CHECK(frames_block(MFN(n)).owner != OWNER);
	CHECK(frames_audit() == 0);
}

int main(int argc, char **argv)
{
	unsigned operations = argc > 1 ? strtoul(argv[1], NULL, 0) : 3000;

	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	state = seed * 0x9e3779b97f4a7c15ull | 1;
	for (unsigned order = 0; order <= ORDER_1G; order += 9) {
		run(&pt_format_long, order, operations);
		run(&pt_format_ept, order, operations);
	}
	return 0;
}
