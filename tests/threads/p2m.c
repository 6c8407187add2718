/* SPDX-License-Identifier: MIT */
/*
 * The P2M with real threads, for ThreadSanitizer. Two guests share a machine; each has
 *
 *     a writer     sets, splits, merges, protects, removes, populates, audits
 *     two CPUs     walk the table as hardware does, set accessed and dirty bits, keep translations in a TLB until they
 *                  acknowledge a flush, and read and write the guest's memory by those
 *     a walker     p2m_get, p2m_read, p2m_write: the hypervisor's own use
 *
 * A thread acknowledges flushes where a pCPU would take the interrupt: not in a walk, and never while interrupts are
 * off. That handshake is all that orders the use of a table or a frame before its release. So if anything is freed too
 * early, ThreadSanitizer sees two accesses that nothing orders: the walk, and the next owner's.
 *
 * Each thread has its own word in each page. What it reads there is what it wrote last, or zero where the page was
 * given back since; never another guest's.
 *
 * Usage: p2m [operations [seed [no-wait]]]. no-wait: flushes do not wait for acknowledgement. Without arguments a
 * second process does that too, and must fail, or the test sees nothing.
 */
#include "p2m/p2m.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/port.h"
#include "mm/frames.h"
#include "tests/host/frames_audit.h"
#include "tests/host/host.h"

#define GUESTS  2
#define THREADS 4 /* of a guest: writer, walker, CPUs */
#define PAGES   2048u
#define TLB     32u
#define PACE    100 /* accesses that others make for one step of the writer: it is waited for, or would be starved */
#define MEMORY  (48 * MB)

struct translation {
	u64 gfn; /* PAGES: none */
	u64 *page;
	bool writable;
};

struct guest;

struct thread {
	u64 asked, done; /* flushes; atomic */
	bool gone;       /* atomic: has ended, and acknowledges everything */
	unsigned off;    /* interrupts: how often switched off */
	unsigned cpu;
	u64 random, accesses;
	struct guest *g;
	struct translation tlb[TLB];
	u64 wrote[PAGES], lost[PAGES]; /* its word of each page; g->lost at the time */
	pthread_t id;
};

struct guest {
	struct p2m p2m;
	u64 lost[PAGES]; /* how often the page has been given back: odd while that is being done; atomic */
	u64 steps;       /* of the writer; atomic */
	bool over;       /* atomic */
	unsigned number;
	struct thread thread[THREADS];
};

static struct guest guests[GUESTS];
static unsigned operations;
static u64 seed;
static bool no_wait;
static __thread struct thread *self;

static void die(const char *what)
{
	fprintf(stderr, "p2m: %s; seed %lu\n%s", what, seed, host_log());
	abort();
}

static u64 below(u64 n)
{
	u64 *s = &self->random;

	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s % n;
}

/* Flushes. */

static void forget_all(struct thread *t)
{
	for (unsigned i = 0; i < TLB; i++)
		t->tlb[i].gfn = PAGES;
}

static void take_interrupts(void)
{
	u64 asked = atomic_load(&self->asked);

	if (self->off || asked == self->done)
		return;
	forget_all(self);
	atomic_store(&self->done, asked);
}

static void on_irq(bool off)
{
	if (!self)
		return;
	self->off += off ? 1 : -1;
	take_interrupts();
}

static void on_relax(void)
{
	if (self)
		take_interrupts();
}

static struct thread *thread_of(unsigned cpu) { return &guests[cpu / THREADS].thread[cpu % THREADS]; }

static void on_flush(hpa_t root, u64 mask)
{
	u64 wanted[GUESTS * THREADS];

	(void)root;
	if (!self)
		return;
	forget_all(self);
	if (self->off)
		die("a flush with interrupts off");
	for (unsigned cpu = 0; cpu < GUESTS * THREADS; cpu++)
		wanted[cpu] = mask & BIT(cpu) ? atomic_add(&thread_of(cpu)->asked, 1) : 0;
	for (unsigned cpu = 0; cpu < GUESTS * THREADS && !no_wait; cpu++)
		while (cpu != self->cpu && !atomic_load(&thread_of(cpu)->gone) &&
		       atomic_load(&thread_of(cpu)->done) < wanted[cpu])
			port_relax();
}

/* A thread's own word of a page, and whether it says what it must. */

static void check_word(u64 gfn, u64 value)
{
	struct thread *t = self;
	u64 lost = atomic_load(&t->g->lost[gfn]);

	if (value == t->wrote[gfn])
		return;
	if (value || lost == t->lost[gfn])
		die(value >> 48 == t->cpu + 1 ? "a write was lost" : "a page has another's contents");
	t->wrote[gfn] = 0;
	t->lost[gfn] = lost;
}

static u64 next_value(u64 gfn)
{
	struct thread *t = self;

	t->lost[gfn] = atomic_load(&t->g->lost[gfn]) & ~1ul;
	return t->wrote[gfn] = (u64)(t->cpu + 1) << 48 | gfn << 32 | (++t->accesses & 0xffffffff);
}

/* A CPU. */

static struct translation walk(u64 gfn, bool write)
{
	const struct pt *pt = &self->g->p2m.pt;

	for (;;) {
		u64 *table = port_virt(mfn_to_hpa(pt->root)), *slot, raw;
		unsigned level = pt->levels;
		for (;; level--) {
			slot = &table[pt_index(gfn << PAGE_SHIFT, level)];
			raw = atomic_load(slot);
			if (!pt_is_table(pt->fmt, raw, level))
				break;
			table = port_virt(raw & PT_ADDR);
			if (frame_of(hpa_to_mfn(raw & PT_ADDR))->state != FRAME_TABLE)
				die("a walk through a frame that is no table");
		}
		struct pt_entry e = pt->fmt->decode(raw, level);
		if (!pt_present(e) || (write && !(e.flags & PT_W)))
			return (struct translation){.gfn = PAGES};
		if (atomic_cas(slot, &raw, raw | pt->fmt->accessed | (write ? pt->fmt->dirty : 0)))
			return (struct translation){gfn, port_virt(e.pa + (gfn << PAGE_SHIFT & (pt_span(level) - 1))),
						    write};
	}
}

static void cpu_access(u64 gfn, bool write)
{
	struct translation *t = &self->tlb[gfn % TLB];
	unsigned access = write ? P2M_WRITE : P2M_READ;

	if (t->gfn != gfn || (write && !t->writable))
		*t = walk(gfn, write);
	if (t->gfn != gfn) {
		if (p2m_fault(&self->g->p2m, gfn << PAGE_SHIFT, access) == P2M_DENY)
			die("a page of RAM is denied");
		return;
	}
	u64 *word = &t->page[self->cpu];
	check_word(gfn, atomic_load_relaxed(word));
	if (write)
		atomic_store_relaxed(word, next_value(gfn));
}

/* Whether to go on. */
static bool pace(u64 done)
{
	bool over;

	while (!(over = atomic_load(&self->g->over)) && done > PACE * (atomic_load(&self->g->steps) + 1))
		port_relax();
	return !over;
}

static void run_cpu(void)
{
	u64 base = 0;

	for (u64 n = 0; pace(n); n++) {
		if (!below(50))
			base = below(PAGES);
		cpu_access((base + below(40)) % PAGES, below(2));
		take_interrupts();
	}
}

/* The hypervisor's use. */

static void run_walker(void)
{
	struct p2m *p = &self->g->p2m;

	for (u64 n = 0; pace(n); n++) {
		u64 gfn = below(PAGES), value;
		gpa_t gpa = (gfn << PAGE_SHIFT) + 8 * self->cpu;
		struct p2m_entry e = p2m_get(p, GFN(gfn));
		if ((P2M_MASK(e.type) & P2M_BACKED) != 0 && !frame_of(e.mfn))
			die("p2m_get tells of a frame that does not exist");
		if (!p2m_read(p, gpa, &value, 8))
			check_word(gfn, value);
		u64 wrote = self->wrote[gfn], lost = self->lost[gfn];
		value = next_value(gfn);
		if (p2m_write(p, gpa, &value, 8)) {
			self->wrote[gfn] = wrote;
			self->lost[gfn] = lost;
		}
		take_interrupts();
	}
}

/* The writer. */

static void expect(int err, const char *what)
{
	if (err && err != -ENOMEM)
		die(what);
}

static struct p2m_entry ram_at(u64 *gfn)
{
	struct p2m_entry e;

	do
		e = p2m_get(&self->g->p2m, GFN(*gfn = below(PAGES)));
	while (e.type != P2M_RAM);
	return e;
}

static void overlay(void)
{
	u64 gfn;
	struct p2m_entry e = ram_at(&gfn);

	if (p2m_set(&self->g->p2m, GFN(gfn), MFN_NONE, 0, P2M_MMIO))
		return;
	if (p2m_get(&self->g->p2m, GFN(gfn)).type != P2M_MMIO)
		die("an overlay is not there");
	expect(p2m_set(&self->g->p2m, GFN(gfn), e.mfn, 0, P2M_RAM), "an overlay does not go");
}

/* While a page is read-only nobody writes to it. */
static void protect(void)
{
	u64 gfn, sum[2] = {0, 0};
	struct p2m_entry e = ram_at(&gfn);
	const u64 *word = port_virt(mfn_to_hpa(e.mfn));

	if (p2m_set(&self->g->p2m, GFN(gfn), e.mfn, 0, P2M_RO))
		return;
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned w = 0; w < GUESTS * THREADS; w++)
			sum[i] += atomic_load_relaxed(&word[w]);
		sched_yield();
	}
	if (sum[0] != sum[1])
		die("a read-only page was written");
	expect(p2m_set(&self->g->p2m, GFN(gfn), e.mfn, 0, P2M_RAM), "write permission does not come back");
}

static void lose(u64 gfn, u64 n)
{
	for (u64 i = gfn; i < gfn + n; i++)
		atomic_add(&self->g->lost[i], 1);
}

static void give_back(void)
{
	unsigned order = below(4) ? 0 : ORDER_2M;
	u64 gfn = ROUND_DOWN(below(PAGES), BIT(order));

	lose(gfn, BIT(order));
	expect(p2m_remove(&self->g->p2m, GFN(gfn), order), "a page cannot be removed");
	expect(p2m_populate(&self->g->p2m, GFN(0)), "memory cannot be populated again");
	lose(gfn, BIT(order));
}

static void run_writer(void)
{
	static void (*const step[])(void) = {overlay, overlay, protect, give_back};

	for (unsigned i = 0; i < operations; i++) {
		step[below(ARRAY_SIZE(step))]();
		if (i % 64 == 0 && p2m_audit(&self->g->p2m))
			die("the audit is not clean");
		take_interrupts();
		atomic_add(&self->g->steps, 1);
	}
	atomic_store(&self->g->over, true);
}

static void *run(void *arg)
{
	self = arg;
	host_set_cpu(self->cpu);
	atomic_or(&self->g->p2m.pcpus, BIT(self->cpu));
	if (self->cpu % THREADS == 0)
		run_writer();
	else if (self->cpu % THREADS == 1)
		run_walker();
	else
		run_cpu();
	atomic_store(&self->gone, true);
	return NULL;
}

static void start(struct guest *g, unsigned n, const struct pt_format *fmt)
{
	*g = (struct guest){.number = n};
	if (p2m_init(&g->p2m, fmt, OWNER_GUEST + n, ORDER_2M, 36) || p2m_add_slot(&g->p2m, GFN(0), PAGES, P2M_RAM) ||
	    p2m_populate(&g->p2m, GFN(0)))
		die("no memory");
	for (unsigned i = 0; i < THREADS; i++) {
		struct thread *t = &g->thread[i];
		t->cpu = n * THREADS + i;
		t->random = (seed + t->cpu) * 0x9e3779b97f4a7c15ul | 1;
		t->g = g;
		forget_all(t);
	}
}

static void round_of(const struct pt_format *fmt)
{
	u64 accesses = 0;

	host_machine(MEMORY);
	for (unsigned n = 0; n < GUESTS; n++)
		start(&guests[n], n, fmt);
	for (unsigned cpu = 0; cpu < GUESTS * THREADS; cpu++)
		pthread_create(&thread_of(cpu)->id, NULL, run, thread_of(cpu));
	for (unsigned cpu = 0; cpu < GUESTS * THREADS; cpu++) {
		pthread_join(thread_of(cpu)->id, NULL);
		accesses += thread_of(cpu)->accesses;
	}
	const struct pt *pt = &guests[0].p2m.pt;
	printf("p2m: %s, %u operations, %lu writes, %lu flushes, splits %lu, merges %lu\n", fmt->name,
	       GUESTS * operations, accesses, host_flushes, pt->splits, pt->merges);
	for (unsigned n = 0; n < GUESTS; n++) {
		if (p2m_audit(&guests[n].p2m))
			die("the audit is not clean");
		p2m_free(&guests[n].p2m);
	}
	if (frames_audit())
		die("the frame table is not clean");
}

static bool fails_without_waiting(const char *program)
{
	int status;

	fflush(stdout);
	pid_t child = fork();
	if (!child) {
		if (freopen("/dev/null", "w", stdout) && freopen("/dev/null", "w", stderr))
			execl(program, program, "500", "1", "no-wait", (char *)NULL);
		_exit(0);
	}
	return waitpid(child, &status, 0) == child && status;
}

int main(int argc, char **argv)
{
	operations = argc > 1 ? strtoul(argv[1], NULL, 0) : 1500;
	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	no_wait = argc > 3;
	host_on_flush = on_flush;
	host_on_irq = on_irq;
	host_on_relax = on_relax;
	round_of(&pt_format_long);
	round_of(&pt_format_ept);
	return argc == 1 && !fails_without_waiting(argv[0]);
}
