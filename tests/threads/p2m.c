/* SPDX-License-Identifier: MIT */
/*
 * The P2M with real threads, for ThreadSanitizer. Two guests share a machine; each has
 *
 *     a writer     overlays, protects, balloons, removes, populates, audits, and copies the guest by the dirty log
 *     a worker     p2m_work: merges, collapses, samples
 *     two CPUs     walk the table as hardware does, set accessed and dirty bits, keep translations in a TLB until they
 *                  acknowledge a flush, and read and write the guest's memory by those; they leave the guest and come
 *                  back with what they know, as the generation allows
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

#define GUESTS 2
enum { WRITER, WALKER, WORKER, CPU_0, CPU_1, THREADS }; /* of a guest */
#define WORDS  (GUESTS * THREADS)
#define PAGES  2048u
#define TLB    32u
#define PACE   100 /* accesses that others make for one step of the writer: it is waited for, or would be starved */
#define MEMORY (160 * MB)

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
	u64 base, random, accesses, gen; /* gen: of the P2M when the TLB's contents were last all right */
	struct guest *g;
	struct translation tlb[TLB];
	u64 wrote[PAGES], lost[PAGES]; /* its word of each page; g->lost at the time */
	pthread_t id;
};

struct guest {
	struct p2m p2m;
	u64 lost[PAGES];  /* how often the page has been given back: odd while that is being done; atomic */
	u64 steps;        /* of the writer; atomic */
	bool over, pause; /* atomic. pause: CPUs and walker make no step */
	u64 paused;       /* how many do not; atomic */
	u64 copies;
	u64 copy[PAGES][WORDS]; /* by the dirty log */
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
		unsigned level = PT_LEVELS;
		for (;; level--) {
			slot = &table[pt_index(gfn << PAGE_SHIFT, level)];
			raw = atomic_load(slot);
			if (!pt_is_table(pt->fmt, raw, level))
				break;
			table = port_virt(raw & PT_ADDR);
			if (frame_of(hpa_to_mfn(raw & PT_ADDR))->state != FRAME_TABLE)
				die("a walk through a frame that is no table");
		}
		struct pt_entry e = pt_decode(pt->fmt, raw, level, 0);
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

static void pause_if_asked(void)
{
	if (!atomic_load(&self->g->pause))
		return;
	atomic_add(&self->g->paused, 1);
	while (atomic_load(&self->g->pause))
		port_relax();
	atomic_add(&self->g->paused, -1ul);
}

/* Whether to go on. */
static bool pace(u64 done)
{
	bool over;

	while (!(over = atomic_load(&self->g->over)) && done > PACE * (atomic_load(&self->g->steps) + 1)) {
		port_relax();
		pause_if_asked();
	}
	pause_if_asked();
	return !over;
}

/* Most of the time elsewhere, or nothing would ever be left alone for as long as a collapse takes. */
static u64 some_page(void)
{
	if (!below(1000))
		self->base = below(PAGES);
	return (self->base + below(40)) % PAGES;
}

/* Out of the guest and in again. What the TLB holds is kept, unless a flush has missed this CPU meanwhile. */
static void leave_and_enter(void)
{
	struct p2m *p = &self->g->p2m;

	p2m_leave(p);
	sched_yield();
	p2m_enter(p);
	u64 gen = atomic_load(&p->gen);
	if (gen != self->gen)
		forget_all(self);
	self->gen = gen;
}

static void run_cpu(void)
{
	p2m_enter(&self->g->p2m);
	for (u64 n = 0; pace(n); n++) {
		if (!below(30))
			leave_and_enter();
		cpu_access(some_page(), below(2));
		take_interrupts();
	}
}

/* The hypervisor's use. */

static void run_walker(void)
{
	struct p2m *p = &self->g->p2m;

	for (u64 n = 0; pace(n); n++) {
		u64 gfn = some_page(), value;
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

static void lose(u64 gfn, u64 n)
{
	for (u64 i = gfn; i < gfn + n; i++)
		atomic_add(&self->g->lost[i], 1);
}

/* A collapse may have moved the page in between: then the guest has a frame too much, and gets another page. */
static void overlay(void)
{
	struct p2m *p = &self->g->p2m;
	u64 gfn;
	struct p2m_entry e = ram_at(&gfn);

	if (p2m_set(p, GFN(gfn), MFN_NONE, 0, P2M_MMIO))
		return;
	if (p2m_get(p, GFN(gfn)).type != P2M_MMIO)
		die("an overlay is not there");
	int err = p2m_set(p, GFN(gfn), e.mfn, 0, P2M_RAM);
	if (err == -EPERM || err == -EEXIST) {
		lose(gfn, 1);
		while (frames_alloc(0, p->owner, FRAMES_ZERO, &e.mfn))
			port_relax();
		err = p2m_set(p, GFN(gfn), e.mfn, 0, P2M_RAM);
		lose(gfn, 1);
	}
	if (err)
		die("an overlay does not go");
}

/* Reads what others write, as whoever copies a running guest does; not for ThreadSanitizer. */
__attribute__((no_sanitize("thread"))) static u64 peek(const u64 *word) { return *(const volatile u64 *)word; }

static u64 sum_of(u64 gfn)
{
	struct p2m_entry e = p2m_get(&self->g->p2m, GFN(gfn));
	const u64 *word = port_virt(mfn_to_hpa(e.mfn));
	u64 sum = 0;

	for (unsigned w = 0; w < WORDS; w++)
		sum += peek(&word[w]);
	return sum;
}

/* While a page is read-only nobody writes to it, and it does not move. */
static void protect(void)
{
	struct p2m *p = &self->g->p2m;
	u64 gfn, sum;

	(void)ram_at(&gfn);
	if (p2m_protect(p, GFN(gfn), 0, P2M_RO))
		return;
	sum = sum_of(gfn);
	sched_yield();
	if (sum != sum_of(gfn))
		die("a read-only page was written");
	expect(p2m_protect(p, GFN(gfn), 0, P2M_RAM), "write permission does not come back");
}

static void track(void)
{
	unsigned order = below(2) ? 0 : ORDER_2M;
	u64 gfn = ROUND_DOWN(below(PAGES), BIT(order));
	int err = p2m_protect(&self->g->p2m, GFN(gfn), order, P2M_TRACKED);

	if (err == -ENOMEM || err == -EPERM) /* EPERM: not one large page */
		return;
	sched_yield();
	for (u64 end = gfn + BIT(order); !err && gfn < end; gfn++)
		err = p2m_protect(&self->g->p2m, GFN(gfn), 0, P2M_RAM);
	expect(err, "a page cannot be tracked");
}

static void give_back(void)
{
	struct p2m *p = &self->g->p2m;
	unsigned order = below(4) ? 0 : ORDER_2M;
	u64 gfn = ROUND_DOWN(below(PAGES), BIT(order));

	lose(gfn, BIT(order));
	if (below(2)) {
		mfn_t taken; /* what was freed last, or the guest would get the same frame again and merge */
		expect(p2m_remove(p, GFN(gfn), order), "a page cannot be removed");
		int err = frames_alloc(0, OWNER_HOST, 0, &taken);
		expect(p2m_populate(p, GFN(0)), "memory cannot be populated again");
		if (!err && frames_free(taken, 0, OWNER_HOST))
			die("a frame cannot be freed");
	} else {
		expect(p2m_balloon(p, GFN(gfn), order, NULL), "a page cannot be given back");
		int err = p2m_reclaim(p, GFN(gfn), order, NULL);
		if (err == -ENOMEM || err == -ENOENT) /* there was no memory for one of the two */
			err = 0;
		expect(err, "memory cannot be reclaimed");
	}
	lose(gfn, BIT(order));
}

static void copy_words(u64 gfn, bool compare)
{
	struct p2m_entry e = p2m_get(&self->g->p2m, GFN(gfn));
	const u64 *word = e.type == P2M_RAM || e.type == P2M_TRACKED ? port_virt(mfn_to_hpa(e.mfn)) : NULL;

	for (unsigned w = 0; word && w < WORDS; w++) {
		u64 now = peek(&word[w]);
		if (compare && self->g->copy[gfn][w] != now)
			die("a write is missing in the dirty log");
		self->g->copy[gfn][w] = now;
	}
}

static void harvest(void)
{
	u64 dirty[PAGES / 64] = {0};

	if (p2m_log_harvest(&self->g->p2m, GFN(0), PAGES, dirty))
		die("there is no dirty log");
	for (u64 gfn = 0; gfn < PAGES; gfn++)
		if (bitmap_test(dirty, (unsigned)gfn))
			copy_words(gfn, false);
}

/* As a migration does: all, then what is dirty, again and again; at last with the guest stopped. Then it is the same.
 */
static void copy_by_log(void)
{
	static const u8 how[] = {P2M_LOG_KEEP, P2M_LOG_LAZY, P2M_LOG_EAGER};
	struct guest *g = self->g;

	if (p2m_log_start(&g->p2m, how[below(3)]))
		return;
	for (u64 gfn = 0; gfn < PAGES; gfn++)
		copy_words(gfn, false);
	for (unsigned i = 0; i < 3; i++) {
		harvest();
		give_back();
		sched_yield();
	}
	atomic_store(&g->pause, true);
	while (atomic_load(&g->paused) != 3)
		port_relax();
	harvest();
	for (u64 gfn = 0; gfn < PAGES; gfn++)
		copy_words(gfn, true);
	atomic_store(&g->pause, false);
	while (atomic_load(&g->paused))
		port_relax();
	p2m_log_stop(&g->p2m);
	g->copies++;
}

/* Leaves the worker the time for a collapse. */
static void rest(void)
{
	for (unsigned i = 0; i < 100; i++)
		port_relax();
}

static void run_writer(void)
{
	static void (*const step[])(void) = {overlay, overlay, protect, give_back, give_back, track, rest};

	for (unsigned i = 0; i < operations; i++) {
		step[below(ARRAY_SIZE(step))]();
		if (!below(50))
			copy_by_log();
		if (i % 64 == 0 && p2m_audit(&self->g->p2m))
			die("the audit is not clean");
		take_interrupts();
		atomic_add(&self->g->steps, 1);
	}
	atomic_store(&self->g->over, true);
}

static void run_worker(void)
{
	struct p2m *p = &self->g->p2m;

	for (u64 now = 0; !atomic_load(&self->g->over); now += 100000000) {
		p2m_work(p, now);
		frames_scrub();
		port_relax();
	}
}

static void *run(void *arg)
{
	static void (*const role[THREADS])(void) = {run_writer, run_walker, run_worker, run_cpu, run_cpu};

	self = arg;
	host_set_cpu(self->cpu);
	role[self->cpu % THREADS]();
	p2m_leave(&self->g->p2m);
	atomic_store(&self->gone, true);
	return NULL;
}

static void start(struct guest *g, unsigned n, const struct pt_format *fmt)
{
	memset(g, 0, sizeof(*g));
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
	const struct p2m *p = &guests[0].p2m;
	printf("p2m: %s, %u operations, %lu writes, %lu flushes, splits %lu, merges %lu, collapses %lu (%lu called off), "
	       "%lu copies by the log\n",
	       fmt->name, GUESTS * operations, accesses, host_flushes, pt->splits, pt->merges, p->collapses,
	       p->cancelled, guests[0].copies);
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
	operations = argc > 1 ? strtoul(argv[1], NULL, 0) : 600;
	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	no_wait = argc > 3;
	host_on_flush = on_flush;
	host_on_irq = on_irq;
	host_on_relax = on_relax;
	round_of(&pt_format_long);
	round_of(&pt_format_ept);
	return argc == 1 && !fails_without_waiting(argv[0]);
}
