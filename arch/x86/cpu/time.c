/* SPDX-License-Identifier: MIT */
/*
 * Time is the TSC, scaled. Its frequency is measured against a clock whose frequency is known, over 3 ms from one
 * reading that nothing delayed (an SMI, a host that took the CPU away) to another: a PM timer tick is 90 ppm of that.
 * Frequencies that CPUID or a hypervisor claim are believed only where the measurement agrees, or where there is
 * nothing to measure with; then they are exact.
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

#define WINDOW_NS       3000000ul
#define BURST           16u
#define READS_MAX       1000000u
#define HZ_MIN          1000000ul
#define PM_TIMER_HZ     3579545ul
#define PIT_HZ          1193182ul
#define HV_TIMING_LEAF  0x40000010u
#define LVT_DEADLINE    BIT(18)
#define DIVIDE_BY_1     0xbu
#define FALLBACK_WALL   1767225600ul /* 2026-01-01 */
#define CMOS_READ_TRIES 10000u

enum { PIT_CHANNEL2 = 0x42, PIT_COMMAND = 0x43, PIT_GATE = 0x61 };
enum { CMOS_INDEX = 0x70, CMOS_DATA = 0x71, CMOS_UPDATING = 0x80 };

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

static u32 pm_read(void) { return inl(pm_port); }

static u32 pit_read(void)
{
	outb(PIT_COMMAND, 0x80); /* latch channel 2 */

	u32 low = inb(PIT_CHANNEL2);

	return -(low | (u32)inb(PIT_CHANNEL2) << 8);
}

static void pit_start(void)
{
	outb(PIT_GATE, (u8)((inb(PIT_GATE) & 0xfc) | 1)); /* gate on, speaker off */
	outb(PIT_COMMAND, 0xb0);                          /* channel 2, low and high byte, mode 0 */
	outb(PIT_CHANNEL2, 0xff);
	outb(PIT_CHANNEL2, 0xff);
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

/* The shortest of some readings. */
static struct reading read_best(const struct reference *r, struct reading *now)
{
	struct reading best = {0};
	u64 shortest = ~0ul;

	for (unsigned i = 0; i < BURST; i++) {
		u64 took = read_clocks(r, now);

		if (took < shortest)
			best = *now;
		shortest = MIN(shortest, took);
	}
	return best;
}

/* Sets apic_hz and tsc_hz, which is 0 if the reference stands still or the result is absurd. */
static void measure(const struct reference *r)
{
	u64 window = mul_div(r->hz, WINDOW_NS, NS_PER_SECOND, true);
	struct reading now = {0};

	apic_write(XAPIC_TIMER_DIVIDE, DIVIDE_BY_1);
	apic_write(XAPIC_TIMER_INITIAL, ~0u);

	struct reading first = read_best(r, &now);

	for (unsigned i = 0; i < READS_MAX && now.ref - first.ref < window; i++)
		read_clocks(r, &now);

	struct reading last = read_best(r, &now);
	u64 ref = last.ref - first.ref;

	apic_write(XAPIC_TIMER_INITIAL, 0);
	tsc_hz = mul_div(last.tsc - first.tsc, r->hz, ref, false);
	apic_hz = mul_div(last.apic - first.apic, r->hz, ref, false);
	log("time: by %s: TSC %lu kHz, APIC timer %lu kHz\n", r->name, tsc_hz / 1000, apic_hz / 1000);
	if (ref < window || tsc_hz < HZ_MIN)
		tsc_hz = 0;
}

/* The TSC's frequency as the hypervisor below or else CPUID tells it, or 0. */
static u64 claimed_hz(void)
{
	if (cpu_has(FEAT_HYPERVISOR) && cpuid(0x40000000, 0).a - HV_TIMING_LEAF < 0x100)
		return cpuid(HV_TIMING_LEAF, 0).a * 1000ul;

	struct cpuid_regs r = cpu_features.max_leaf >= 0x15 ? cpuid(0x15, 0) : (struct cpuid_regs){0};

	return r.a && r.b ? mul_div(r.c, r.b, r.a, false) : 0;
}

static void timer_interrupt(void) { this_pcpu()->timer_deadline = TIMER_NEVER; }

void time_init(const struct acpi *a)
{
	const struct reference pm = {"ACPI PM timer", pm_read, a->pm_timer_32 ? ~0u : 0xffffff, PM_TIMER_HZ};
	const struct reference pit = {"PIT", pit_read, 0xffff, PIT_HZ};
	u64 claim = claimed_hz();

	pm_port = a->pm_timer;
	if (pm_port)
		measure(&pm);
	if (!tsc_hz) {
		pit_start();
		measure(&pit);
	}
	if (!tsc_hz)
		apic_hz = NS_PER_SECOND;
	if (claim >= HZ_MIN && (!tsc_hz || claim_holds(tsc_hz, claim)))
		tsc_hz = claim;
	tsc_hz = tsc_hz ? tsc_hz : NS_PER_SECOND;
	tsc_mul = clock_mul(tsc_hz);
	tsc_start = rdtsc();
	traps_set_handler(VEC_TIMER, timer_interrupt);
	log("time: TSC %lu kHz\n", tsc_hz / 1000);
}

void time_init_this(void)
{
	apic_write(XAPIC_TIMER_DIVIDE, DIVIDE_BY_1);
	apic_write(XAPIC_LVT_TIMER, (cpu_has(FEAT_TSC_DEADLINE) ? (u32)LVT_DEADLINE : 0) | VEC_TIMER);
	cpu_fence(); /* the mode before the first deadline (SDM 3A 11.5.4.1) */
	this_pcpu()->timer_deadline = TIMER_NEVER;
}

u32 time_tsc_khz(void) { return (u32)(tsc_hz / 1000); }

u64 time_ns_to_tsc(u64 ns)
{
	u64 ticks = clock_ticks(ns, tsc_mul), start = tsc_start - this_pcpu()->tsc_offset;

	return ticks > ~0ul - start ? ~0ul : start + ticks;
}

u64 port_now(void) { return clock_ns(rdtsc() + this_pcpu()->tsc_offset - tsc_start, tsc_mul); }

/* Until the deadline, in the APIC timer's own ticks: at least one, as 0 would stop it. */
static u32 ticks_until(u64 deadline)
{
	u64 now = port_now(), wait = deadline > now ? deadline - now : 0;

	return (u32)MIN(MAX(mul_div(wait, apic_hz, NS_PER_SECOND, true), 1ul), (u64)~0u);
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
	else
		apic_write(XAPIC_TIMER_INITIAL, deadline == TIMER_NEVER ? 0 : ticks_until(deadline));
}

static u8 cmos_read(u8 reg)
{
	outb(CMOS_INDEX, reg);
	return inb(CMOS_DATA);
}

u64 time_wall(void)
{
	u8 reg[CMOS_REGS] = {0}; /* no date */
	u64 seconds;

	/* A reading counts if no update ran before it, and it saw no second pass. */
	for (unsigned i = 0; i < CMOS_READ_TRIES; i++) {
		if (cmos_read(CMOS_STATUS_A) & CMOS_UPDATING)
			continue;
		for (unsigned r = 0; r < CMOS_REGS; r++)
			reg[r] = cmos_read((u8)r);
		if (cmos_read(0) == reg[0])
			break;
	}
	return cmos_decode(reg, &seconds) ? seconds : FALLBACK_WALL + port_now() / NS_PER_SECOND;
}
