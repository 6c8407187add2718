/* SPDX-License-Identifier: MIT */
/*
 * What an operation costs, as the guest sees it: ticks of the TSC from before to after, the least of many. Under an
 * emulator that counts instructions a tick is one instruction, the hypervisor's included.
 *
 * op=NAME does one of them alone, times=N so many times: what the hypervisor counts may differ between two such runs
 * by nothing else.
 */
#include "tests/guests/guest.h"

#define NOBODY    0x5670
#define HOLE      0xd0000000ull
#define UNTOUCHED 0x2000000ull /* memory that nobody has used yet, a page for each time */

static inline u64 ticks(void)
{
	u32 a, d;
	asm volatile("rdtsc" : "=a"(a), "=d"(d) : : "memory");
	return (u64)d << 32 | a;
}

#define BENCH(name, operation)                                    \
	do {                                                      \
		u64 least = ~0ull;                                \
		if (!named(only ? only : name, name))             \
			break;                                    \
		for (u64 i_ = 0; i_ < times; i_++) {              \
			u64 t_ = ticks();                         \
			operation;                                \
			t_ = ticks() - t_;                        \
			least = t_ < least ? t_ : least;          \
		}                                                 \
		print("@bench name=%s ticks=%lu\n", name, least); \
	} while (0)

static void bench(void)
{
	const char *only = option("op");
	u64 times = option_number("times", 200), touched = UNTOUCHED;

	BENCH("cpuid", cpuid(0, 0));
	BENCH("port-pic", inb(0x21));
	BENCH("port-nobody", inb(NOBODY));
	BENCH("lapic-read", lapic_read(0x20));
	BENCH("lapic-eoi", lapic_write(0xb0, 0));
	mmio_write(IOAPIC, 1);
	BENCH("ioapic-read", mmio_read(IOAPIC + 0x10));
	BENCH("mmio-nobody-read", mmio_read(HOLE));
	BENCH("mmio-nobody-write", mmio_write(HOLE, 0));
	BENCH("first-touch", *(volatile u8 *)touched = 1; touched += 4096);
	BENCH("rdmsr-apic-base", rdmsr(0x1b));
	/* HLT to the handler of a self-IPI that is pending: one way in and out of the scheduler. */
	BENCH("self-ipi-hlt", lapic_write(0x300, 1 << 18 | VEC_IPI); asm volatile("sti; hlt; cli" : : : "memory"));
}

const struct test bench_tests[] = {{"bench", bench, false}, {NULL, NULL, false}};
