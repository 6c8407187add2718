/* SPDX-License-Identifier: MIT */
/* Interrupt controllers set up, and time by the TSC. */
#include "tests/guests/guest.h"

u64 tsc_khz;

void pic_init(u16 mask)
{
	outb(0x20, 0x11);
	outb(0xa0, 0x11);
	outb(0x21, VEC_PIC);
	outb(0xa1, VEC_PIC + 8);
	outb(0x21, 4);
	outb(0xa1, 2);
	outb(0x21, 1);
	outb(0xa1, 1);
	outb(0x21, (u8)mask);
	outb(0xa1, (u8)(mask >> 8));
}

void lapic_init(void)
{
	wrmsr(0x1b, rdmsr(0x1b) | 1 << 11);
	lapic_write(0x80, 0);
	lapic_write(0xf0, 0x100 | VEC_SPURIOUS);
	lapic_write(0x320, 1 << 16);
	lapic_write(0x350, 1 << 16 | 0x700); /* LINT0: the 8259, where a test wants it */
	lapic_write(0x3e0, 0xb);             /* divide by 1 */
}

u32 ioapic_read(u32 reg)
{
	mmio_write(IOAPIC, reg);
	return mmio_read(IOAPIC + 0x10);
}

void ioapic_write(u32 reg, u32 v)
{
	mmio_write(IOAPIC, reg);
	mmio_write(IOAPIC + 0x10, v);
}

/* 10 ms of PIT channel 2. */
static u64 measure_tsc(void)
{
	outb(0x61, (inb(0x61) & ~2) | 1);
	outb(0x43, 0xb0);
	outb(0x42, 11932 & 0xff);
	outb(0x42, 11932 >> 8);
	u64 start = rdtsc();
	while (!(inb(0x61) & 0x20) && rdtsc() - start < 100000000000ull)
		relax();
	return (rdtsc() - start) / 10;
}

void time_init(void)
{
	if (cpuid(0x40000000, 0).a >= 0x40000010 && cpuid(0x40000000, 0).a < 0x40001000)
		tsc_khz = cpuid(0x40000010, 0).a;
	if (!tsc_khz)
		tsc_khz = measure_tsc();
}

void delay_us(u64 us)
{
	u64 start = rdtsc();
	while (rdtsc() - start < us * tsc_khz / 1000)
		relax();
}

bool wait_count(volatile u64 *count, u64 want)
{
	u64 start = rdtsc();

	/* Polled as well as halted: a lost interrupt must become a failed check, not a hang. */
	while (*count < want && rdtsc() - start < tsc_khz * 20000) {
		asm volatile("sti; nop; nop; cli" : : : "memory");
	}
	return *count >= want;
}
