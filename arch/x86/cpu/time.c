/* SPDX-License-Identifier: MIT */
/*
 * Time is the TSC, scaled. Its frequency is measured against a clock whose frequency is known: two bursts of readings,
 * 2 ms apart, and only readings that nothing delayed (an SMI, a host that took the CPU away). Averaging a burst takes
 * most of the reference's tick out: a PM timer tick is 140 ppm of 2 ms. Frequencies that CPUID or a hypervisor claim
 * are believed only where the measurement agrees; then they are exact.
 */
#include "arch/x86/cpu/time.h"

#include "arch/x86/cpu/apic.h"
#include "arch/x86/cpu/calibrate.h"
#include "arch/x86/cpu/cpu.h"
#include "arch/x86/cpu/features.h"
#include "arch/x86/cpu/pcpu.h"
#include "arch/x86/cpu/traps.h"
#include "lib/port.h"
#include "lib/print.h"
#include "mm/hostmap.h"

#define WINDOW_NS       2000000ul
#define BURST           32u
#define STUCK_READS     10000u
#define HZ_MIN          1000000ul
#define HZ_MAX          20000000000ul
#define PM_TIMER_HZ     3579545ul
#define PIT_HZ          1193182ul
#define HV_TIMING_LEAF  0x40000010u
#define LVT_DEADLINE    BIT(18)
#define DIVIDE_BY_1     0xbu
#define FALLBACK_WALL   1767225600ul /* 2026-01-01 */
#define CMOS_READ_TRIES 10000u

enum { HPET_PERIOD = 1, HPET_CONFIG = 4, HPET_COUNTER = 0x3c }; /* 32-bit words */
enum { PIT_CHANNEL2 = 0x42, PIT_COMMAND = 0x43, PIT_GATE = 0x61 };
enum { CMOS_INDEX = 0x70, CMOS_DATA = 0x71, CMOS_STATUS_A = 10, CMOS_STATUS_B = 11, CMOS_UPDATING = 0x80 };

/* A clock of known frequency. read: its low bits, those of mask, counting up. */
struct reference {
	const char *name;
	u32 (*read)(void);
	u32 mask;
	u64 hz;
};

/* All written by time_init on the boot processor before others are up, read-only afterwards. */
static u64 tsc_mul, tsc_hz, tsc_start, apic_hz;
static u16 pm_port;
static volatile u32 *hpet;

static u32 pm_read(void) { return inl(pm_port); }
static u32 hpet_read(void) { return hpet[HPET_COUNTER]; }

static u32 pit_read(void)
{
	outb(PIT_COMMAND, 0x80); /* latch channel 2 */

	u32 low = inb(PIT_CHANNEL2);

	return -(low | (u32)inb(PIT_CHANNEL2) << 8);
}

static bool pm_open(const struct acpi *a, struct reference *r)
{
	pm_port = a->pm_timer;
	*r = (struct reference){"ACPI PM timer", pm_read, a->pm_timer_32 ? ~0u : 0xffffff, PM_TIMER_HZ};
	return pm_port;
}

static bool hpet_open(const struct acpi *a, struct reference *r)
{
	hpet = a->hpet ? hostmap_io(a->hpet, 1024, HOST_UC) : NULL;
	if (!hpet)
		return false;

	u32 period = hpet[HPET_PERIOD]; /* fs; at most 100 ns (HPET 1.0a, 2.3.4) */

	if (period == 0 || period > 100000000)
		return false;
	hpet[HPET_CONFIG] |= 1;
	*r = (struct reference){"HPET", hpet_read, ~0u, 1000000000000000ul / period};
	return true;
}

static bool pit_open(const struct acpi *a, struct reference *r)
{
	outb(PIT_GATE, (u8)((inb(PIT_GATE) & 0xfc) | 1)); /* gate on, speaker off */
	outb(PIT_COMMAND, 0xb0);                          /* channel 2, low and high byte, mode 0 */
	outb(PIT_CHANNEL2, 0xff);
	outb(PIT_CHANNEL2, 0xff);
	*r = (struct reference){"PIT", pit_read, 0xffff, PIT_HZ};
	return true;
}

/* Reads all clocks once, ref and apic carried on from *now. Returns how long it took in TSC ticks. */
static u64 read_clocks(const struct reference *r, struct reading *now)
{
	u64 before = rdtsc_ordered();
	u32 ref = r->read(), apic = ~apic_read(XAPIC_TIMER_CURRENT); /* counts down */
	u64 after = rdtsc_ordered();

	now->ref = unwrap(now->ref, ref, r->mask);
	now->apic = unwrap(now->apic, apic, ~0u);
	now->tsc = before + (after - before) / 2;
	return after - before;
}

/* Sums a burst of readings. *best is the shortest reading so far: much longer ones were disturbed and do not count. */
static struct reading read_burst(const struct reference *r, struct reading *now, u64 *best)
{
	struct reading sum = {0};

	for (unsigned good = 0, all = 0; good < BURST; all++) {
		u64 took = read_clocks(r, now);

		*best = MIN(*best, took);
		if (took > 2 * *best && all < 8 * BURST)
			continue;
		sum.ref += now->ref;
		sum.tsc += now->tsc;
		sum.apic += now->apic;
		good++;
	}
	return sum;
}

/* Sets tsc_hz and apic_hz. False if the reference stands still or the result is absurd. */
static bool measure(const struct reference *r)
{
	u64 window = mul_div(r->hz, WINDOW_NS, NS_PER_SECOND, true), best = ~0ul;
	struct reading now = {0}, first, last;
	unsigned still = 0;

	apic_write(XAPIC_TIMER_DIVIDE, DIVIDE_BY_1);
	apic_write(XAPIC_TIMER_INITIAL, ~0u);
	for (unsigned i = 0; i < 4; i++) /* learns how long a reading takes */
		best = MIN(best, read_clocks(r, &now));
	first = read_burst(r, &now, &best);
	for (u64 start = now.ref, seen = start; now.ref - start < window; seen = now.ref) {
		read_clocks(r, &now);
		still = now.ref == seen ? still + 1 : 0;
		if (still > STUCK_READS)
			return false;
	}
	last = read_burst(r, &now, &best);
	apic_write(XAPIC_TIMER_INITIAL, 0);

	u64 ref = last.ref - first.ref;

	tsc_hz = mul_div(last.tsc - first.tsc, r->hz, ref, false);
	apic_hz = mul_div(last.apic - first.apic, r->hz, ref, false);
	return tsc_hz >= HZ_MIN && tsc_hz <= HZ_MAX;
}

/* Takes over a claimed frequency if it is plausible; logs it if not. */
static void consider(const char *who, u64 hz)
{
	if (!hz)
		return;
	if (claim_holds(tsc_hz, hz))
		tsc_hz = hz;
	else
		log("time: %s claims a TSC of %lu kHz: not believed\n", who, hz / 1000);
}

static void consider_claims(void)
{
	struct cpuid_regs r;

	if (cpu_features.max_leaf >= 0x15) {
		r = cpuid(0x15, 0);
		consider("CPUID 15h", r.a && r.b && r.c ? mul_div(r.c, r.b, r.a, false) : 0);
	}
	if (cpu_has(FEAT_HYPERVISOR)) {
		r = cpuid(0x40000000, 0);
		if (r.a >= HV_TIMING_LEAF && r.a < HV_TIMING_LEAF + 0x100)
			consider("the hypervisor below", cpuid(HV_TIMING_LEAF, 0).a * 1000ul);
	}
}

static void timer_interrupt(void) { this_pcpu()->timer_deadline = TIMER_NEVER; }

void time_init(const struct acpi *a)
{
	static bool (*const open[])(const struct acpi *, struct reference *) = {pm_open, hpet_open, pit_open};
	struct reference r;
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(open); i++)
		if (open[i](a, &r) && measure(&r))
			break;
	if (i == ARRAY_SIZE(open)) {
		r.name = "nothing that works: time will be wrong";
		tsc_hz = apic_hz = NS_PER_SECOND;
	}
	consider_claims();
	tsc_mul = clock_mul(tsc_hz);
	tsc_start = rdtsc();
	traps_set_handler(VEC_TIMER, timer_interrupt);
	log("time: TSC %lu kHz, APIC timer %lu kHz%s, by %s\n", tsc_hz / 1000, apic_hz / 1000,
	    cpu_has(FEAT_TSC_DEADLINE) ? " (deadline mode)" : "", r.name);
}

void time_init_this(void)
{
	apic_write(XAPIC_TIMER_DIVIDE, DIVIDE_BY_1);
	apic_write(XAPIC_LVT_TIMER, (cpu_has(FEAT_TSC_DEADLINE) ? (u32)LVT_DEADLINE : 0) | VEC_TIMER);
	cpu_fence(); /* the mode before the first deadline (SDM 3A 11.5.4.1) */
	this_pcpu()->timer_deadline = TIMER_NEVER;
}

u32 time_tsc_khz(void) { return (u32)(tsc_hz / 1000); }
u64 time_tsc_to_ns(u64 tsc) { return clock_ns(tsc + this_pcpu()->tsc_offset - tsc_start, tsc_mul); }

u64 time_ns_to_tsc(u64 ns)
{
	u64 ticks = clock_ticks(ns, tsc_mul), start = tsc_start - this_pcpu()->tsc_offset;

	return ticks > ~0ul - start ? ~0ul : start + ticks;
}

u64 port_now(void) { return tsc_mul ? time_tsc_to_ns(rdtsc()) : 0; }

static void arm_count(u64 deadline)
{
	u64 now = port_now(), wait = deadline > now ? deadline - now : 0;
	u64 count = mul_div(wait, apic_hz, NS_PER_SECOND, true);

	apic_write(XAPIC_TIMER_INITIAL, (u32)MIN(MAX(count, 1ul), (u64)~0u));
}

void time_arm(u64 deadline)
{
	struct pcpu *p = this_pcpu();

	if (p->timer_deadline == deadline)
		return;
	/* First the record: the old deadline's interrupt may come in between, and then says that nothing is armed. */
	p->timer_deadline = deadline;
	if (cpu_has(FEAT_TSC_DEADLINE))
		wrmsr(MSR_TSC_DEADLINE, deadline == TIMER_NEVER ? 0 : time_ns_to_tsc(deadline));
	else if (deadline == TIMER_NEVER)
		apic_write(XAPIC_TIMER_INITIAL, 0);
	else
		arm_count(deadline);
}

void time_delay(u64 ns)
{
	u64 end = port_now() + ns;

	while (port_now() < end)
		cpu_pause();
}

static u8 cmos_read(u8 reg)
{
	outb(CMOS_INDEX, reg);
	return inb(CMOS_DATA);
}

static struct cmos_time cmos_read_time(void)
{
	return (struct cmos_time){.second = cmos_read(0),
				  .minute = cmos_read(2),
				  .hour = cmos_read(4),
				  .day = cmos_read(7),
				  .month = cmos_read(8),
				  .year = cmos_read(9),
				  .status_b = cmos_read(CMOS_STATUS_B)};
}

u64 time_wall(void)
{
	u64 seconds;

	/* A reading counts if no update ran before it, and it saw no second pass. */
	for (unsigned i = 0; i < CMOS_READ_TRIES; i++) {
		if (cmos_read(CMOS_STATUS_A) & CMOS_UPDATING)
			continue;

		struct cmos_time t = cmos_read_time();

		if (cmos_read(0) != t.second)
			continue;
		if (cmos_decode(&t, &seconds))
			return seconds;
		break;
	}
	return FALLBACK_WALL + port_now() / NS_PER_SECOND;
}
