/* SPDX-License-Identifier: MIT */
/*
 * What an operation costs, as the guest sees it: ticks of the TSC from before to after, the least of many. Under an
 * emulator that counts instructions a tick is one instruction, the hypervisor's included.
 */
#include "tests/guests/guest.h"

#define TIMES  200
#define NOBODY 0x5670
#define HOLE   0xd0000000ull

static inline u64 ticks(void)
{
	u32 a, d;
	asm volatile("rdtsc" : "=a"(a), "=d"(d) : : "memory");
	return (u64)d << 32 | a;
}

#define BENCH(name, operation)                                    \
	do {                                                      \
		u64 least = ~0ull;                                \
		for (unsigned i_ = 0; i_ < TIMES; i_++) {         \
			u64 t_ = ticks();                         \
			operation;                                \
			t_ = ticks() - t_;                        \
			least = t_ < least ? t_ : least;          \
		}                                                 \
		print("@bench name=%s ticks=%lu\n", name, least); \
	} while (0)

static void bench(void)
{
	BENCH("cpuid", cpuid(0, 0));
	BENCH("port-pic", inb(0x21));
	BENCH("port-nobody", inb(NOBODY));
	BENCH("lapic-read", lapic_read(0x20));
	BENCH("lapic-eoi", lapic_write(0xb0, 0));
	mmio_write(IOAPIC, 1);
	BENCH("ioapic-read", mmio_read(IOAPIC + 0x10));
	BENCH("mmio-nobody-read", mmio_read(HOLE));
	BENCH("mmio-nobody-write", mmio_write(HOLE, 0));
	BENCH("rdmsr-apic-base", rdmsr(0x1b));
	/* HLT to the handler of a self-IPI that is pending: one way in and out of the scheduler. */
	BENCH("self-ipi-hlt", lapic_write(0x300, 1 << 18 | VEC_IPI); asm volatile("sti; hlt; cli" : : : "memory"));
}

const struct test bench_tests[] = {{"bench", bench, false}, {NULL, NULL, false}};
