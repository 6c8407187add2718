/* SPDX-License-Identifier: MIT */
/*
 * Clocks and their interrupts. Only what holds however slow the machine is: an interrupt comes, and not early; clocks
 * agree about an interval. How late one is says nothing under an emulator.
 */
#include "tests/guests/guest.h"

#define LVT_TIMER 0x320
#define INITIAL   0x380
#define CURRENT   0x390
#define PERIODIC  (1 << 17)
#define DEADLINE  (1 << 18)
#define MASKED    (1 << 16)

static void pit_rate(u32 hz)
{
	u32 count = 1193182 / hz;
	outb(0x43, 0x34);
	outb(0x40, (u8)count);
	outb(0x40, (u8)(count >> 8));
}

static void pit_off(void) { outb(0x43, 0x30); /* one-shot, no count: silent */ }

static u32 pit_count(void)
{
	outb(0x43, 0x00);
	u32 low = inb(0x40);
	return low | (u32)inb(0x40) << 8;
}

/* Ticks by interrupt n that something drives: they come, and `ticks` of them not in less than least_us. */
static void expect_ticks(const char *name, unsigned vector, u64 ticks, u64 least_us)
{
	u64 first = irq_count[vector] + 1;

	if (!wait_count(&irq_count[vector], first)) {
		failed(name, "no interrupt");
		return;
	}
	u64 start = rdtsc();
	first = irq_count[vector];
	if (!wait_count(&irq_count[vector], first + ticks)) {
		failed(name, "only %lu of %lu interrupts", irq_count[vector] - first, ticks);
		return;
	}
	u64 us = (rdtsc() - start) * 1000 / tsc_khz;
	check(name, us >= least_us, "too early: %lu us", us);
}

static void pit_8259(void)
{
	pic_init(0xfffe);
	lapic_write(0x350, 0x700);
	pit_rate(1000);
	expect_ticks("pit-8259", VEC_PIC, 10, 8000);
	u32 a = pit_count(), b = a;
	for (unsigned i = 0; i < 100 && a == b; i++)
		b = pit_count();
	check("pit-counts", a <= 1193 && b <= 1193 && a != b, "a=%u b=%u", a, b);
	pit_off();
	pic_init(0xffff);
	lapic_write(0x350, MASKED | 0x700);
}

/*
 * One-shots so short that they are over before the device has looked twice: an emulator that took the count as loaded
 * at one moment and as already over at the next forgot the interrupt, and a guest that slept on it slept for ever.
 */
static void pit_oneshot(void)
{
	u64 lost = 0;

	pic_init(0xfffe);
	lapic_write(0x350, 0x700);
	for (u32 i = 0; i < 300 && !lost; i++) {
		u64 before = irq_count[VEC_PIC];
		outb(0x43, 0x30);
		outb(0x40, (u8)(1 + i % 20));
		outb(0x40, 0);
		for (u64 start = rdtsc(); irq_count[VEC_PIC] == before && rdtsc() - start < tsc_khz * 2000;)
			asm volatile("sti; nop; nop; cli" : : : "memory");
		lost += irq_count[VEC_PIC] == before;
	}
	check("pit-oneshot", !lost, "an interrupt was lost");
	pit_off();
	pic_init(0xffff);
	lapic_write(0x350, MASKED | 0x700);
}

static void ioapic_pit(void)
{
	ioapic_write(0x15, (lapic_read(0x20) >> 24) << 24);
	ioapic_write(0x14, VEC_IOAPIC); /* pin 2 */
	pit_rate(1000);
	expect_ticks("ioapic-pit", VEC_IOAPIC, 10, 8000);
	u64 seen = irq_count[VEC_IOAPIC];
	ioapic_write(0x14, VEC_IOAPIC | MASKED);
	sti();
	delay_us(1000);
	cli();
	seen = irq_count[VEC_IOAPIC];
	sti();
	delay_us(5000);
	cli();
	check("ioapic-mask", irq_count[VEC_IOAPIC] == seen, "interrupts=%lu", irq_count[VEC_IOAPIC] - seen);
	pit_off();
}

/* The serial port's transmitter-empty interrupt through pin 4. */
static void ioapic_uart(void)
{
	u64 before = irq_count[VEC_IOAPIC];

	ioapic_write(0x19, (lapic_read(0x20) >> 24) << 24);
	ioapic_write(0x18, VEC_IOAPIC);
	outb(0x3fc, 0x0b);
	outb(0x3f9, 2);
	bool came = wait_count(&irq_count[VEC_IOAPIC], before + 1);
	u8 iir = inb(0x3fa);
	outb(0x3f9, 0);
	ioapic_write(0x18, VEC_IOAPIC | MASKED);
	check("ioapic-uart", came, "iir=0x%x", iir);
}

/* The timer off, and whatever it has still asked for taken. */
static void timer_off(void)
{
	lapic_write(LVT_TIMER, MASKED);
	lapic_write(INITIAL, 0);
	sti();
	delay_us(100);
	cli();
}

static void lapic_timer(void)
{
	u32 khz = bare() ? 0 : cpuid(0x40000010, 0).b;
	u64 before = irq_count[VEC_TIMER], start = rdtsc();

	lapic_write(LVT_TIMER, VEC_TIMER);
	lapic_write(INITIAL, khz ? khz * 5 : 1000000); /* 5 ms */
	bool counts = lapic_read(CURRENT) || rdtsc() - start > tsc_khz * 5;
	bool came = wait_count(&irq_count[VEC_TIMER], before + 1);
	u64 us = (rdtsc() - start) * 1000 / tsc_khz;
	check("lapic-oneshot", came && counts, "came=%d counts=%d", came, counts);
	if (khz)
		check("lapic-not-early", us >= 4950, "us=%lu", us);
	sti();
	delay_us(2000);
	cli();
	check("lapic-oneshot-once", irq_count[VEC_TIMER] == before + 1 && !lapic_read(CURRENT), "interrupts=%lu",
	      irq_count[VEC_TIMER] - before);
	lapic_write(LVT_TIMER, VEC_TIMER | PERIODIC);
	lapic_write(INITIAL, khz ? khz : 1000000);
	expect_ticks("lapic-periodic", VEC_TIMER, 5, khz ? 4000 : 0);
	timer_off();
}

/* As pit_oneshot: counts that are over before the device looks again. */
static void lapic_short(void)
{
	u64 lost = 0;

	lapic_write(LVT_TIMER, VEC_TIMER);
	for (u32 i = 0; i < 300 && !lost; i++) {
		u64 before = irq_count[VEC_TIMER];
		lapic_write(INITIAL, 1 + i % 100);
		for (u64 start = rdtsc(); irq_count[VEC_TIMER] == before && rdtsc() - start < tsc_khz * 2000;)
			asm volatile("sti; nop; nop; cli" : : : "memory");
		lost += irq_count[VEC_TIMER] == before;
	}
	check("lapic-short", !lost, "an interrupt was lost");
	timer_off();
}

static void tsc_deadline(void)
{
	u64 before = irq_count[VEC_TIMER];

	if (!(cpuid(1, 0).c & 1 << 24)) {
		if (!bare())
			failed("tsc-deadline", "not offered");
		return;
	}
	lapic_write(LVT_TIMER, VEC_TIMER | DEADLINE);
	u64 at = rdtsc() + tsc_khz * 5;
	wrmsr(0x6e0, at);
	bool armed = rdmsr(0x6e0) == at;
	bool came = wait_count(&irq_count[VEC_TIMER], before + 1);
	u64 now = rdtsc();
	check("tsc-deadline", came && armed && now >= at && !rdmsr(0x6e0), "came=%d armed=%d early=%lu", came, armed,
	      now < at ? at - now : 0);
	at = rdtsc() + tsc_khz * 20;
	wrmsr(0x6e0, at);
	wrmsr(0x6e0, 0);
	bool late = rdtsc() >= at; /* the machine was busy elsewhere: it had every right to fire */
	sti();
	delay_us(25000);
	cli();
	check("tsc-deadline-cancel", late || irq_count[VEC_TIMER] == before + 1, "interrupts=%lu",
	      irq_count[VEC_TIMER] - before);
	before = irq_count[VEC_TIMER];
	wrmsr(0x6e0, 1); /* in the past: at once */
	check("tsc-deadline-past", wait_count(&irq_count[VEC_TIMER], before + 1), "no interrupt");
	timer_off();
}

/* HLT ends by the timer, the flags as they were, and the instruction after it runs. */
static void hlt_wakes(void)
{
	u64 before = irq_count[VEC_TIMER];

	lapic_write(LVT_TIMER, VEC_TIMER | PERIODIC);
	lapic_write(INITIAL, 2000000);
	for (unsigned i = 0; i < 5; i++)
		asm volatile("sti; hlt; cli" : : : "memory");
	timer_off();
	check("hlt-wakes", irq_count[VEC_TIMER] >= before + 5, "interrupts=%lu", irq_count[VEC_TIMER] - before);
}

/* A self-IPI that TPR holds back until it is lowered. */
static void priority(void)
{
	u64 before = irq_count[VEC_IPI];

	lapic_write(0x80, 0xf0);
	lapic_write(0x300, 1 << 18 | VEC_IPI);
	sti();
	delay_us(100);
	u64 held = irq_count[VEC_IPI] - before;
	bool requested = lapic_read(0x200 + (VEC_IPI / 32) * 0x10) & 1u << VEC_IPI % 32;
	lapic_write(0x80, 0);
	cli();
	check("tpr-holds", !held && requested, "held=%lu irr=%d", held, requested);
	check("self-ipi", wait_count(&irq_count[VEC_IPI], before + 1), "no interrupt");
}

struct pair {
	u64 tsc, clock;
};

/* The least disturbed of many readings of a clock beside the TSC. */
static struct pair read_beside(u32 (*clock)(void))
{
	struct pair best = {0, 0};
	u64 width = ~0ull;

	for (unsigned i = 0; i < 50; i++) {
		u64 a = rdtsc(), c = clock(), b = rdtsc();
		if (b - a < width) {
			width = b - a;
			best = (struct pair){a + (b - a) / 2, c};
		}
	}
	return best;
}

static u32 pm_timer(void) { return inl(0x608); }

static void pm_agrees(void)
{
	if (inl(0x608) == 0xffffffff) {
		check("pm-timer", bare(), "no PM timer");
		return;
	}
	struct pair a = read_beside(pm_timer);
	delay_us(50000);
	struct pair b = read_beside(pm_timer);
	u64 ticks = (b.clock - a.clock) & 0xffffff, khz = ticks ? (b.tsc - a.tsc) * 3579545 / 1000 / ticks : 0;
	check("pm-timer-agrees", khz > tsc_khz * 98 / 100 && khz < tsc_khz * 102 / 100, "by-pm=%lu kHz told=%lu kHz",
	      khz, tsc_khz);
}

static void monotonic(void)
{
	u64 last = rdtsc();
	bool back = false;

	for (unsigned i = 0; i < 2000; i++) {
		if (i % 8 == 0)
			inb(0x21);
		u64 now = rdtsc();
		back |= now < last;
		last = now;
	}
	check("tsc-monotonic", !back, "went backwards");
}

const struct test timer_tests[] = {
	{"pit", pit_8259, true},
	{"pit-oneshot", pit_oneshot, true},
	{"ioapic-pit", ioapic_pit, true},
	{"ioapic-uart", ioapic_uart, true},
	{"lapic-timer", lapic_timer, true},
	{"lapic-short", lapic_short, true},
	{"tsc-deadline", tsc_deadline, true},
	{"hlt", hlt_wakes, true},
	{"priority", priority, true},
	{"pm-timer", pm_agrees, true},
	{"monotonic", monotonic, true},
	{NULL, NULL, false},
};
