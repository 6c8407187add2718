/* SPDX-License-Identifier: MIT */
/*
 * Xen XSA-379 again, with real threads: vCPUs that touch the same memory for the first time all bring frames for it,
 * and one of them wins. Afterwards every page has one frame, every frame one gfn, and those that lost have given theirs
 * back. Usage: p2m_race [rounds].
 */
#include "p2m/p2m.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/bits.h"
#include "lib/port.h"
#include "mm/frames.h"
#include "tests/host/frames_audit.h"
#include "tests/host/host.h"

#define OWNER   (OWNER_GUEST + 1)
#define THREADS 3
#define PAGES   4096u

static struct p2m p2m;
static u64 ready; /* atomic */
static unsigned step;

static void die(const char *what)
{
	fprintf(stderr, "p2m_race: %s\n%s", what, host_log());
	abort();
}

static void *vcpu(void *arg)
{
	host_set_cpu((unsigned)(size_t)arg);
	atomic_add(&ready, 1);
	while (atomic_load(&ready) % THREADS)
		port_relax();
	for (u64 gfn = 0; gfn < PAGES; gfn += step) {
		if (p2m_fault(&p2m, gfn_to_gpa(GFN(gfn)), P2M_WRITE) != P2M_RETRY)
			die("a first touch failed");
		if (p2m_write(&p2m, gfn_to_gpa(GFN(gfn)) + 8 * (size_t)arg, &gfn, 8))
			die("what was touched is not there");
	}
	return NULL;
}

static void round_of(const struct pt_format *fmt, unsigned max_order)
{
	pthread_t thread[THREADS];
	struct frames_stats s;

	host_machine(32 * MB);
	step = max_order ? 256 : 16;
	if (p2m_init(&p2m, fmt, OWNER, max_order, 36) || p2m_add_slot(&p2m, GFN(0), PAGES, P2M_RAM) ||
	    p2m_populate_on_demand(&p2m, GFN(0)))
		die("no memory");
	frames_stats(&s);
	u64 free = s.free;
	const struct pt *pt = &p2m.pt;
	u64 tables = pt->tables;

	for (size_t i = 0; i < THREADS; i++)
		pthread_create(&thread[i], NULL, vcpu, (void *)i);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);

	if (p2m_audit(&p2m) || frames_audit())
		die("the audit is not clean");
	frames_stats(&s);
	if (free - s.free != pt->leaves[0] + (pt->leaves[1] << ORDER_2M) + pt->tables - tables)
		die("frames have leaked");
	for (u64 gfn = 0; gfn < PAGES; gfn += step) {
		u64 got[THREADS] = {0};
		if (p2m_read(&p2m, gfn_to_gpa(GFN(gfn)), got, sizeof(got)) || got[0] != gfn || got[1] != gfn ||
		    got[2] != gfn)
			die("a write went to a frame that lost");
	}
	p2m_free(&p2m);
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? strtoul(argv[1], NULL, 0) : 60;

	for (unsigned i = 0; i < rounds; i++)
		round_of(i & 1 ? &pt_format_long : &pt_format_ept, i & 2 ? ORDER_2M : ORDER_4K);
	printf("p2m_race: %u rounds of %u vCPUs\n", rounds, THREADS);
	return 0;
}
