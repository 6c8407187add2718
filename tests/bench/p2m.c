/* SPDX-License-Identifier: MIT */
/* link: -Wl,--wrap=memcpy -Wl,--wrap=memset */
/*
 * What operations of the P2M cost, in instructions, on a guest of 1 GB. Run by tools/bench_p2m.py under callgrind: each
 * measurement ends in a dump that has its name. Compiled as the image's release is; the port is that of the host tests,
 * whose functions are about as long. Copying and zeroing of memory is left out: it is as long as memory is large.
 */
#include "p2m/p2m.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <valgrind/callgrind.h>

#include "lib/bits.h"
#include "mm/frames.h"
#include "tests/host/host.h"

#define OWNER (OWNER_GUEST + 1)
#define BASE  BIT(ORDER_1G) /* the guest's memory: one aligned gigabyte */

#define MEASURE(what, operation)                                                     \
	do {                                                                         \
		char name_[64];                                                      \
		snprintf(name_, sizeof(name_), "p2m-%s:%s", p2m.pt.fmt->name, what); \
		CALLGRIND_TOGGLE_COLLECT;                                            \
		operation;                                                           \
		CALLGRIND_TOGGLE_COLLECT;                                            \
		CALLGRIND_DUMP_STATS_AT(name_);                                      \
	} while (0)

static struct p2m p2m;
static const char *const orders[] = {"4k", "2m", "1g"};

/* The linker's --wrap: copies of whole pages, and zeroing of 2 MB and more, are neither made nor counted. */
void *__real_memcpy(void *to, const void *from, size_t n);
void *__wrap_memcpy(void *to, const void *from, size_t n);
void *__real_memset(void *to, int c, size_t n);
void *__wrap_memset(void *to, int c, size_t n);

void *__wrap_memcpy(void *to, const void *from, size_t n) { return n == PAGE_SIZE ? to : __real_memcpy(to, from, n); }

void *__wrap_memset(void *to, int c, size_t n) { return n >= BIT(ORDER_2M) * PAGE_SIZE ? to : __real_memset(to, c, n); }

static void must(int err)
{
	if (err)
		exit(1);
}

static void begin(const struct pt_format *fmt, unsigned max_order)
{
	host_machine(3 * GB);
	(void)frames_scrub(); /* from now on the allocator keeps account of what is zero */
	must(p2m_init(&p2m, fmt, OWNER, max_order, 40) || p2m_add_slot(&p2m, GFN(BASE), BIT(ORDER_1G), P2M_RAM));
}

static mfn_t take(unsigned order)
{
	mfn_t mfn;

	must(frames_alloc(order, OWNER, 0, &mfn));
	return mfn;
}

/* A gigabyte by one call, in pages of each size. */
static void map(const struct pt_format *fmt, unsigned order)
{
	char what[32];

	begin(fmt, order);
	mfn_t mfn = take(ORDER_1G);
	snprintf(what, sizeof(what), "map-1g-by-%s", orders[order / 9]);
	MEASURE(what, must(p2m_set(&p2m, GFN(BASE), mfn, ORDER_1G, P2M_RAM)));
	p2m_enter(&p2m);
	snprintf(what, sizeof(what), "walk-%s", orders[order / 9]);
	MEASURE(what, (void)p2m_get(&p2m, GFN(BASE + 12345)));
	snprintf(what, sizeof(what), "get-%s", orders[order / 9]);
	MEASURE(what, (void)p2m_get(&p2m, GFN(BASE + 12345)));
	p2m_leave(&p2m);
	p2m_free(&p2m);
}

/* A guest that gets its gigabyte at its start, in pages of that size, and its end. */
static void life(const struct pt_format *fmt, unsigned order)
{
	char what[32];

	begin(fmt, order);
	must(p2m_populate(&p2m, GFN(BASE)));
	printf("p2m-%s:tables-1g-of-%s %lu\n", fmt->name, orders[order / 9], p2m.pt.tables);
	if (order == ORDER_2M)
		MEASURE("audit-1g", must(p2m_audit(&p2m) != 0));
	snprintf(what, sizeof(what), "teardown-1g-of-%s", orders[order / 9]);
	MEASURE(what, p2m_free(&p2m));
}

/* The same for one whose 2 MB pages were allocated one by one. */
static void scattered(const struct pt_format *fmt)
{
	begin(fmt, ORDER_2M);
	for (u64 gfn = BASE; gfn < 2 * BASE; gfn += BIT(ORDER_2M))
		must(p2m_set(&p2m, GFN(gfn), take(ORDER_2M), ORDER_2M, P2M_RAM));
	MEASURE("teardown-1g-scattered", p2m_free(&p2m));
}

/* On demand, where 1 GB would be allowed but for one page. */
static void touch(const struct pt_format *fmt)
{
	begin(fmt, ORDER_1G);
	must(p2m_populate_on_demand(&p2m, GFN(BASE)) || p2m_fault(&p2m, (2 * BASE - 1) << PAGE_SHIFT, P2M_READ));
	MEASURE("touch", must(p2m_fault(&p2m, BASE << PAGE_SHIFT, P2M_READ)));
	p2m_free(&p2m);
}

static void split_and_merge(const struct pt_format *fmt)
{
	struct pt_debt debt = PT_DEBT_NONE;
	u64 va = BASE << PAGE_SHIFT;

	begin(fmt, ORDER_1G);
	mfn_t mfn = take(ORDER_1G);
	must(p2m_set(&p2m, GFN(BASE), mfn, ORDER_1G, P2M_RAM));
	MEASURE("split-1g", must(pt_split(&p2m.pt, va, ORDER_2M, &debt)));
	MEASURE("split-2m", must(pt_split(&p2m.pt, va, ORDER_4K, &debt)));
	pt_settle(&p2m.pt, &debt);
	p2m.pt.max_order = ORDER_2M;
	MEASURE("merge-2m", pt_merge(&p2m.pt, va, &debt));
	pt_settle(&p2m.pt, &debt);
	p2m.pt.max_order = ORDER_1G;
	MEASURE("merge-1g", pt_merge(&p2m.pt, va, &debt));
	pt_settle(&p2m.pt, &debt);
	must(p2m.pt.leaves[2] != 1);
	p2m_free(&p2m);
}

/* 512 pages that lie anywhere become one, the background's scan for them included. */
static void collapse(const struct pt_format *fmt)
{
	begin(fmt, ORDER_2M);
	p2m.work.collapse = p2m.work.merge = true;
	for (u64 gfn = BASE + 512; gfn-- > BASE;)
		must(p2m_set(&p2m, GFN(gfn), take(ORDER_4K), ORDER_4K, P2M_RAM));
	MEASURE("collapse-2m", for (u64 now = 0; !p2m.collapses; now += 1000000) p2m_work(&p2m, now));
	must(p2m.pt.leaves[1] != 1);
	p2m_free(&p2m);
}

int main(void)
{
	const struct pt_format *const formats[] = {&pt_format_long, &pt_format_ept};

	p2m.pt.fmt = &pt_format_long;
	MEASURE("nothing", (void)0);
	for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
		for (unsigned order = ORDER_4K; order <= ORDER_1G; order += 9) {
			map(formats[i], order);
			life(formats[i], order);
		}
		scattered(formats[i]);
		touch(formats[i]);
		split_and_merge(formats[i]);
		collapse(formats[i]);
	}
	return 0;
}
