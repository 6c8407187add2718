/* SPDX-License-Identifier: MIT */
/* Application processors: they start by INIT and SIPI, share memory, and hear IPIs and NMIs. */
#include "tests/guests/guest.h"

#define TRAMPOLINE 0x9000ull
#define MAX_CPUS   16
#define ICR_LOW    0x300
#define ICR_HIGH   0x310

extern char ap_trampoline[], ap_trampoline_end[];
extern volatile u64 ap_stack;
static u8 stacks[MAX_CPUS][4096] __attribute__((aligned(16)));
static volatile u64 alive, rounds, shared, ap_msr_base;

void ap_main(void);

static void ipi(u32 target, u32 low)
{
	lapic_write(ICR_HIGH, target << 24);
	lapic_write(ICR_LOW, low);
	for (unsigned i = 0; i < 100000 && lapic_read(ICR_LOW) & 1 << 12; i++)
		relax();
}

void ap_main(void)
{
	traps_load();
	lapic_write(0xf0, 0x100 | VEC_SPURIOUS);
	lapic_write(0x80, 0);
	ap_msr_base = rdmsr(0x1b);
	__atomic_add_fetch(&alive, 1, __ATOMIC_SEQ_CST);
	while (!rounds)
		asm volatile("sti; hlt; cli" : : : "memory");
	for (u64 i = 0; i < rounds; i++)
		__atomic_add_fetch(&shared, 1, __ATOMIC_SEQ_CST);
	__atomic_sub_fetch(&alive, 1, __ATOMIC_SEQ_CST);
	for (;;)
		asm volatile("sti; hlt; cli" : : : "memory");
}

static void start(u32 id)
{
	ap_stack = (u64)stacks[id] + sizeof(stacks[id]);
	ipi(id, 0x4500);
	delay_us(1000);
	ipi(id, 0x4600 | TRAMPOLINE >> 12);
}

static void smp(void)
{
	u64 cpus = option_number("vcpus", 1);

	if (cpus < 2 || cpus > MAX_CPUS)
		return;
	memcpy((void *)TRAMPOLINE, ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
	for (u32 id = 1; id < cpus; id++) {
		start(id);
		if (!wait_count(&alive, id)) {
			failed("smp-start", "processor %u does not come", id);
			return;
		}
	}
	ok("smp-start", "processors=%lu", alive + 1);
	check("smp-bsp-flag", !(ap_msr_base & 1 << 8) && rdmsr(0x1b) & 1 << 8, "apic-base=0x%lx", ap_msr_base);

	u64 before = irq_count[VEC_IPI];
	for (u32 id = 1; id < cpus; id++)
		ipi(id, 0x4000 | VEC_IPI);
	check("smp-ipi", wait_count(&irq_count[VEC_IPI], before + cpus - 1), "heard=%lu", irq_count[VEC_IPI] - before);
	before = irq_count[VEC_IPI];
	ipi(0, 3 << 18 | 0x4000 | VEC_IPI);
	check("smp-broadcast", wait_count(&irq_count[VEC_IPI], before + cpus - 1), "heard=%lu",
	      irq_count[VEC_IPI] - before);
	before = irq_count[2];
	ipi(1, 0x4400);
	check("smp-nmi", wait_count(&irq_count[2], before + 1), "heard=%lu", irq_count[2] - before);

	/* All add to one word at once: nothing is lost, and all end. */
	u64 all = cpus - 1, start_tsc = rdtsc();
	rounds = 20000;
	ipi(0, 3 << 18 | 0x4000 | VEC_IPI);
	for (u64 i = 0; i < rounds; i++)
		__atomic_add_fetch(&shared, 1, __ATOMIC_SEQ_CST);
	while (alive && rdtsc() - start_tsc < tsc_khz * 20000)
		relax();
	check("smp-atomic", shared == (all + 1) * rounds, "sum=%lu wanted=%lu", shared, (all + 1) * rounds);
}

const struct test smp_tests[] = {{"smp", smp, true}, {NULL, NULL, false}};
