/* SPDX-License-Identifier: MIT */
/*
 * The page-table engine against a flat model, in both formats: random operations on three gigabytes, allocation
 * failures among them, a "CPU" that sets accessed and dirty bits, and a walker that looks at the table after every
 * single store of the engine. Usage: pt_model [operations [seed]].
 *
 * The model knows what each of some thousands of probe pages says: all pages around a few interesting boundaries, and
 * one page in each other 2 MB.
 */
#include "mm/pt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/port.h"
#include "mm/frames.h"
#include "tests/host/frames_audit.h"
#include "tests/host/host.h"

#define OWNER  OWNER_GUEST
#define WINDOW (3 * GB)
#define PROBES 6000

#define CHECK(x)                                                                                            \
	do {                                                                                                \
		if (!(x)) {                                                                                 \
			fprintf(stderr, "%s:%d: %s, operation %u, seed %llu\n", __FILE__, __LINE__, #x, op, \
				(unsigned long long)seed);                                                  \
			abort();                                                                            \
		}                                                                                           \
	} while (0)

/* What a page says; A and D are what must be set at least. */
struct page {
	bool present;
	hpa_t pa;
	u8 prot, type, hw;
};

static struct pt pt;
static u64 seed, state;
static unsigned op, stores;
static u64 probe[PROBES];
static struct page before[PROBES], after[PROBES];
static unsigned probes, first_probe, last_probe; /* the ones that this operation's stores can reach */
static u64 forbidden;                            /* 2 MB regions, modulo 64, without large leaves */

static u64 next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

static u64 below(u64 n) { return next() % n; }

static bool may_large(const struct pt *p, u64 va, unsigned order)
{
	(void)p;
	return order == ORDER_1G ? !(va & GB) || !forbidden : !bitmap_test(&forbidden, (va / (2 * MB)) % 64);
}

static void flush(struct pt *p, const struct pt_debt *debt)
{
	(void)p;
	/* Everything that is about to be freed is intact. */
	for (u64 f = debt->frames; f != PT_DEBT_END; f = frame_of(MFN(f & ~PT_LISTED))->gfn)
		CHECK(frame_of(MFN(f & ~PT_LISTED))->state == FRAME_TABLE);
	if (debt->flush)
		CHECK(debt->first <= debt->last);
}

static bool says(const struct pt_entry *e, const struct page *m)
{
	if (pt_present(*e) != m->present || e->type != m->type)
		return false;
	return !m->present || (e->pa == m->pa && (e->flags & PT_RWX) == m->prot && (e->flags & m->hw) == m->hw);
}

/* A walker between two stores: each page is as before or as after, all of it. */
static void look(struct pt *p)
{
	stores++;
	for (unsigned i = first_probe; i < last_probe; i++) {
		struct pt_entry e = pt_lookup(p, probe[i]);
		CHECK(says(&e, &before[i]) || says(&e, &after[i]));
	}
}

static const struct pt_ops ops = {.flush = flush, .may_large = may_large, .watch = look};

static void make_probes(void)
{
	static const u64 dense[] = {0, 2 * MB, GB - 512 * KB, GB + 2 * MB, 2 * GB - 64 * KB, 2 * GB + 510 * MB};

	probes = 0;
	for (u64 va = 0; va < WINDOW; va += 2 * MB) {
		bool all = false;
		for (unsigned i = 0; i < ARRAY_SIZE(dense); i++)
			all |= dense[i] / (2 * MB) == va / (2 * MB);
		for (u64 page = 0; all && page < 512; page++)
			probe[probes++] = va + page * PAGE_SIZE;
		if (!all)
			probe[probes++] = va + below(512) * PAGE_SIZE;
	}
	CHECK(probes <= PROBES);
}

/* A range that begins and ends where it may hurt. */
static void choose_range(u64 *va, u64 *len)
{
	static const u64 steps[] = {PAGE_SIZE, PAGE_SIZE, 2 * MB, 2 * MB, GB};
	unsigned s = below(pt.max_order ? ARRAY_SIZE(steps) : 2);
	u64 count = s < 2 ? 1 + below(40) : s < 4 ? 1 + below(4) : 1;

	*va = probe[below(probes)];
	*va = ROUND_DOWN(*va, steps[s]);
	*len = count * steps[s];
	if (s == 2) /* both ends unaligned */
		*va += below(3) * PAGE_SIZE, *len += below(3) * PAGE_SIZE;
	if (*va + *len > WINDOW)
		*va = WINDOW - *len;
}

/* The stores of an operation stay in the gigabytes that it touches; looking at more would only take time. */
static void choose_view(u64 va, u64 len)
{
	for (first_probe = 0; first_probe < probes && probe[first_probe] < ROUND_DOWN(va, GB);)
		first_probe++;
	for (last_probe = first_probe; last_probe < probes && probe[last_probe] < ROUND_UP(va + len, GB);)
		last_probe++;
}

static u8 random_prot(void)
{
	static const u8 prots[] = {PT_RWX, PT_R | PT_W, PT_R | PT_X, PT_R};

	return prots[below(4)];
}

static int do_map(u64 va, u64 len, struct pt_debt *debt)
{
	static const u64 shifts[] = {0, GB, 2 * MB, PAGE_SIZE, 4 * GB};
	struct pt_entry e = {.flags = random_prot() | PT_USER, .type = 1 + below(3)};
	u64 shift = shifts[below(ARRAY_SIZE(shifts))];

	if (below(2)) /* the usual mapping, so that siblings agree now and then */
		e = (struct pt_entry){.flags = PT_RWX | PT_USER, .type = 1}, shift = 0;
	else if (!below(4))
		e = (struct pt_entry){.type = below(3) ? 4 + below(3) : 0};
	if (len >= GB && shift == PAGE_SIZE) /* a quarter of a million stores to look at */
		shift = 2 * MB;
	e.pa = pt_present(e) ? va + 8 * GB + shift : 0;
	for (unsigned i = 0; i < probes; i++) {
		u64 pa = e.pa + (probe[i] - va);
		if (probe[i] < va || probe[i] >= va + len)
			continue;
		/* A leaf for the same page keeps A and D, but one that takes a table's place need not. */
		after[i] = (struct page){.present = pt_present(e), .pa = pa, .prot = e.flags & PT_RWX, .type = e.type};
		if (!pt_present(e))
			after[i].pa = after[i].prot = 0;
	}
	return pt_map(&pt, va, len, e, debt);
}

static int do_unmap(u64 va, u64 len, struct pt_debt *debt)
{
	for (unsigned i = 0; i < probes; i++) {
		if (probe[i] >= va && probe[i] < va + len)
			after[i] = (struct page){0};
	}
	return pt_map(&pt, va, len, (struct pt_entry){0}, debt);
}

/* The first page that is there in the range, again, with other permissions. */
static int do_protect(u64 va, u64 len, struct pt_debt *debt)
{
	u8 prot = random_prot();
	unsigned i = 0;

	while (i < probes && (probe[i] < va || !before[i].present))
		i++;
	if (i == probes || probe[i] >= va + len)
		return 0;
	struct pt_entry e = {.pa = before[i].pa, .flags = prot | PT_USER, .type = before[i].type};
	after[i].prot = prot;
	int err = pt_map(&pt, probe[i], PAGE_SIZE, e, debt);
	if (!err && prot != PT_RWX)
		CHECK(debt->flush);
	return err;
}

static int do_split(u64 va, struct pt_debt *debt)
{
	int err = pt_split(&pt, va, below(2) * 9, debt);

	if (!err)
		CHECK(!pt_lookup(&pt, va).type || pt_lookup(&pt, va).order <= 9);
	return err;
}

/* A CPU reads or writes a page. */
static void touch(unsigned i)
{
	u64 *table = port_virt(mfn_to_hpa(pt.root)), bits = pt.fmt->accessed;

	if (!before[i].present)
		return;
	for (unsigned level = PT_LEVELS;; level--) {
		u64 *slot = &table[pt_index(probe[i], level)];
		if (pt_is_table(pt.fmt, *slot, level)) {
			table = port_virt(*slot & PT_ADDR);
			continue;
		}
		bool write = (before[i].prot & PT_W) && below(2);
		*slot |= bits | (write ? pt.fmt->dirty : 0);
		before[i].hw |= PT_A | (write ? PT_D : 0);
		return;
	}
}

/* The shape: leaves no larger than allowed, used counts and statistics right. */
static void check_shape(const u64 *table, unsigned level, u64 va, u64 *tables, u64 leaves[3])
{
	u32 used = 0;

	++*tables;
	for (unsigned i = 0; i < 512; i++, va += pt_span(level)) {
		used += table[i] != 0;
		if (pt_is_table(pt.fmt, table[i], level)) {
			check_shape(port_virt(table[i] & PT_ADDR), level - 1, va, tables, leaves);
		} else if (table[i] & pt.fmt->present) {
			CHECK(level <= 3 && IS_ALIGNED(table[i] & PT_ADDR, pt_span(level)));
			CHECK(pt_order(level) <= pt.max_order);
			leaves[level - 1]++;
		}
	}
	CHECK(frame_of(hpa_to_mfn(port_phys(table - 0)))->count == used);
}

static void check_all(void)
{
	u64 tables = 0, leaves[3] = {0};
	struct frames_stats s;

	for (unsigned i = 0; i < probes; i++) {
		struct pt_entry e = pt_lookup(&pt, probe[i]);
		CHECK(says(&e, &before[i]));
	}
	check_shape(port_virt(mfn_to_hpa(pt.root)), PT_LEVELS, 0, &tables, leaves);
	CHECK(tables == pt.tables && !memcmp(leaves, pt.leaves, sizeof(leaves)));
	frames_stats(&s);
	CHECK(s.total - s.free == tables); /* nothing leaks */
}

static void one_operation(void)
{
	struct pt_debt debt = PT_DEBT_NONE;
	u64 va, len;
	int err = 0;

	choose_range(&va, &len);
	choose_view(va, len);
	for (unsigned i = 0; i < 4; i++)
		touch(below(probes));
	memcpy(after, before, sizeof(after));
	if (!below(16) || len >= GB)
		forbidden = len < GB && below(2) ? next() & next() & next() : 0;
	unsigned stores_before = stores;
	if (!below(3))
		host_fail_alloc(1 + below(4));
	switch (below(8)) {
	case 0:
		err = do_unmap(va, len, &debt);
		break;
	case 1:
	case 2:
		err = do_protect(va, len, &debt);
		break;
	case 3:
		err = do_split(va, &debt);
		break;
	default:
		err = do_map(va, len, &debt);
	}
	/* Operations and merges may share a debt. */
	if (!err && below(2)) {
		host_fail_alloc(0);
		memcpy(before, after, sizeof(before));
		pt_merge(&pt, va, &debt);
	}
	host_fail_alloc(0);
	CHECK(!err || err == -ENOMEM);
	CHECK(!err || (stores == stores_before && !debt.flush && debt.frames == PT_DEBT_END));
	if (!err)
		memcpy(before, after, sizeof(before));
	pt_settle(&pt, &debt);
}

static void run(const struct pt_format *fmt, unsigned max_order, unsigned operations)
{
	host_machine(32 * MB);
	memset(before, 0, sizeof(before));
	memset(after, 0, sizeof(after));
	make_probes();
	CHECK(!pt_init(&pt, fmt, &ops, OWNER, max_order));
	for (op = 0; op < operations; op++) {
		one_operation();
		if (op % 8 == 0)
			check_all();
	}
	check_all();
	CHECK(frames_audit() == 0);
	printf("pt_model: %s, order %u: %u operations, %u stores, %llu splits, %llu merges\n", fmt->name, max_order, op,
	       stores, (unsigned long long)pt.splits, (unsigned long long)pt.merges);
	stores = 0;
}

int main(int argc, char **argv)
{
	unsigned operations = argc > 1 ? strtoul(argv[1], NULL, 0) : 250;

	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	state = seed * 0x9e3779b97f4a7c15ull | 1;
	for (unsigned order = 0; order <= ORDER_1G; order += 9) {
		run(&pt_format_long, order, operations);
		run(&pt_format_ept, order, operations);
	}
	return 0;
}
