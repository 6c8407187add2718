/* SPDX-License-Identifier: MIT */
/*
 * Linux 4f510c8bb1dd lost dirty bits because an entry was changed by a plain store while another CPU set bits in it.
 * Here one thread is a CPU: it walks, as hardware does without any lock, and sets A and D with compare-and-swap; the
 * other splits, protects and merges the same 2 MB all the time. No walk may find a hole, a freed table, or a page
 * elsewhere; and a dirty bit, once set, must be there in the end. Usage: pt_race [rounds].
 */
#include "mm/pt.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/bits.h"
#include "lib/port.h"
#include "mm/frames.h"
#include "tests/host/host.h"

#define BASE (4 * GB)

static struct pt pt;
static u64 walks, stop, pause; /* walks: odd while the CPU is inside one. All atomic */
static bool dirtied[512];
static bool only_first; /* the CPU writes page 0 only; with delay, written while it is held */
static u64 delay;       /* of its first write after that */

static void die(const char *what)
{
	fprintf(stderr, "pt_race: %s\n", what);
	abort();
}

/* The acknowledgement of a flush: the CPU is in no walk that began before. */
static void flush(struct pt *p, const struct pt_debt *debt)
{
	u64 seen = atomic_load(&walks);

	(void)p;
	(void)debt;
	while ((seen & 1) && atomic_load(&walks) == seen)
		port_relax();
}

static const struct pt_ops ops = {.flush = flush};

/* Returns whether the write happened; it does not where the page is read-only. */
static bool cpu_write(unsigned page)
{
	u64 va = page * PAGE_SIZE;

	for (;;) {
		u64 *table = port_virt(mfn_to_hpa(pt.root)), *slot = NULL, raw = 0;
		unsigned level = PT_LEVELS;
		for (;; level--) {
			if (frame_of(hpa_to_mfn(port_phys(table)))->state != FRAME_TABLE)
				die("walked through a frame that is no table");
			slot = &table[pt_index(va, level)];
			raw = atomic_load(slot);
			if (!pt_is_table(pt.fmt, raw, level))
				break;
			table = port_virt(raw & PT_ADDR);
		}
		struct pt_entry e = pt_decode(pt.fmt, raw, level, 0);
		if (!pt_present(e))
			die("a hole");
		if (e.pa + (va & (pt_span(level) - 1)) != BASE + va)
			die("a page is elsewhere");
		if (!(e.flags & PT_W))
			return false;
		if (atomic_cas(slot, &raw, raw | pt.fmt->accessed | pt.fmt->dirty))
			return true;
	}
}

/* The engine's own lookup once loaded an entry twice and took a table for a page. */
static void look(unsigned page)
{
	struct pt_entry e = pt_lookup(&pt, page * PAGE_SIZE);

	if (pt_present(e) && e.pa != BASE + page * PAGE_SIZE)
		die("a lookup finds a page elsewhere");
}

static void *cpu(void *arg)
{
	unsigned page = 0;

	(void)arg;
	while (!atomic_load(&stop)) {
		bool held = atomic_load(&pause);
		while (atomic_load(&pause) && !atomic_load(&stop))
			port_relax();
		for (volatile u64 i = 0; held && i < delay; i++)
			continue;
		atomic_add(&walks, 1);
		page = only_first ? 0 : (page * 5 + 77) % 512;
		if (!atomic_load(&pause) && cpu_write(page))
			dirtied[page] = true;
		for (unsigned i = 0; i < 8; i++)
			look(page);
		atomic_add(&walks, 1);
	}
	return NULL;
}

static int protect_page(u64 va, unsigned prot, struct pt_debt *debt)
{
	struct pt_entry e = {.pa = BASE + va, .flags = prot | PT_USER, .type = 1};

	return pt_map(&pt, va, PAGE_SIZE, e, debt);
}

static void change(unsigned round)
{
	struct pt_debt debt = PT_DEBT_NONE;
	u64 va = (round * 13 % 512) * PAGE_SIZE;
	int err = protect_page(va, PT_R | PT_X, &debt);

	pt_settle(&pt, &debt);
	err |= protect_page(va, PT_RWX, &debt);
	if (round & 1)
		pt_merge(&pt, 0, &debt);
	pt_settle(&pt, &debt);
	if (err)
		die("out of memory");
}

static void map_all(void)
{
	struct pt_entry e = {.pa = BASE, .flags = PT_RWX | PT_USER, .type = 1};
	struct pt_debt debt = PT_DEBT_NONE;

	if (pt_map(&pt, 0, 2 * MB, e, &debt))
		die("out of memory");
	pt_settle(&pt, &debt);
}

static void check_dirtied(void)
{
	for (unsigned i = 0; i < 512; i++) {
		if (dirtied[i] && !(pt_lookup(&pt, i * PAGE_SIZE).flags & PT_D))
			die("dirty bits were lost");
	}
}

/* The CPU makes no step between these. */
static void hold_cpu(void)
{
	atomic_swap(&pause, 1);
	flush(&pt, NULL);
}

static void release_cpu(void) { atomic_store(&pause, 0); }

/*
 * The page begins anew, clean, and the CPU's first write comes a little later or earlier each time, so that sometimes
 * it is between the engine's reading of the entry and its writing: while a table is filled, or a permission changed.
 */
static void first_write(unsigned round)
{
	struct pt_debt debt = PT_DEBT_NONE;
	bool protect = round & 1;

	hold_cpu();
	check_dirtied();
	int err = pt_map(&pt, 0, 2 * MB, (struct pt_entry){0}, &debt);
	pt_settle(&pt, &debt);
	map_all();
	err |= protect ? pt_split(&pt, 0, 0, &debt) : 0;
	for (unsigned i = 0; i < 512; i++)
		dirtied[i] = false;
	only_first = protect;
	delay = round * 7 % 1000;
	release_cpu();
	err |= protect ? protect_page(0, PT_R | PT_W, &debt) : pt_split(&pt, 0, 0, &debt);
	hold_cpu();
	check_dirtied();
	only_first = false;
	release_cpu();
	pt_settle(&pt, &debt);
	err |= protect_page(0, PT_RWX, &debt);
	if (err)
		die("out of memory");
}

static void run(const struct pt_format *fmt, unsigned rounds)
{
	pthread_t thread;

	host_machine(8 * MB);
	if (pt_init(&pt, fmt, &ops, OWNER_GUEST, ORDER_2M))
		die("out of memory");
	map_all();
	stop = 0;
	for (unsigned i = 0; i < 512; i++)
		dirtied[i] = false;
	pthread_create(&thread, NULL, cpu, NULL);
	for (unsigned round = 0; round < rounds; round++) {
		change(round);
		first_write(round);
	}
	atomic_store(&stop, 1);
	pthread_join(thread, NULL);
	check_dirtied();
	printf("pt_race: %s: %u rounds, %llu walks\n", fmt->name, rounds, (unsigned long long)walks / 2);
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? strtoul(argv[1], NULL, 0) : 20000;

	run(&pt_format_long, rounds);
	run(&pt_format_ept, rounds);
	return 0;
}
