/* SPDX-License-Identifier: MIT */
/*
 * Starting the other pCPUs, one at a time, and what pCPUs ask of each other afterwards.
 *
 *     boot processor              the other
 *     INIT, SIPI          ---->   trampoline (real mode to long mode)
 *     answers with its TSC <--->  measures how far its own is off
 *                         <----   online, then entry()
 *
 * A flush is a number: the asker raises flush_gen of every pCPU concerned, interrupts them, and waits until each has
 * said in flush_ack that it was outside guest mode after that. Whoever waits answers its own requests meanwhile, so two
 * that ask each other cannot block, even with interrupts off.
 */
#include "arch/x86/cpu/smp.h"

#include "arch/x86/cpu/apic.h"
#include "arch/x86/cpu/cpu.h"
#include "arch/x86/cpu/features.h"
#include "arch/x86/cpu/pcpu.h"
#include "arch/x86/cpu/time.h"
#include "arch/x86/cpu/traps.h"
#include "lib/port.h"
#include "lib/print.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/hostmap.h"
#include "sched/kick.h"

#define INIT_SETTLE_NS   20000ul
#define ONLINE_NS        500000000ul
#define STOP_NS          2000000ul
#define SYNC_ROUNDS      8u
#define SYNC_SLACK_TICKS 1000

/* The tail of the trampoline: see there. */
struct PACKED tramp_args {
	u64 gdt[2], stack, pcpu, entry;
	u32 cr3, efer, far_offset;
	u16 far_sel, gdt_limit;
	u32 gdt_base;
};

extern const u8 trampoline[], trampoline_args[], trampoline_end[];

static int (*ap_prepare)(void);
static NORETURN void (*ap_entry)(void);
static u32 stopper;  /* pCPU + 1 that has stopped the others; atomic */
static u64 sync_tsc; /* 0: the starting pCPU asks for the boot processor's TSC; else the answer; atomic */

/*
 * How far this TSC is off the boot processor's, by the shortest of some round trips. What that trip's length explains
 * is taken as none.
 */
static void sync_measure(struct pcpu *p)
{
	u64 best = ~0ul;
	s64 offset = 0;

	for (u32 i = 0; i < SYNC_ROUNDS; i++) {
		u64 before = rdtsc_ordered();

		atomic_store(&sync_tsc, 0);
		while (!atomic_load(&sync_tsc))
			cpu_pause();

		u64 took = rdtsc_ordered() - before;

		if (took < best)
			offset = (s64)(sync_tsc - (before + took / 2));
		best = MIN(best, took);
	}

	s64 bound = (s64)(best / 2) + SYNC_SLACK_TICKS;

	p->tsc_offset = offset > bound || offset < -bound ? (u64)offset : 0;
	if (p->tsc_offset)
		log("smp: the TSC of pCPU %u is off by %ld ticks: compensated\n", p->id, -offset);
}

static NORETURN void ap_main(struct pcpu *p)
{
	traps_load_pcpu(p);
	cpu_init_this(p);
	apic_init_this();
	sync_measure(p);
	time_init_this();
	if (ap_prepare() < 0)
		cpu_stop(); /* until it is given up: nobody may count on it */
	atomic_store(&p->online, true);
	cpu_sti();
	ap_entry();
}

/*
 * Fills the trampoline and its table: the host's upper half, and the trampoline at its own address. For that one page
 * the table's first entry leads back to the table, so that it is its own lower levels too. Returns where the arguments
 * are.
 */
static struct tramp_args *tramp_fill(mfn_t code, mfn_t table)
{
	u32 base = (u32)mfn_to_hpa(code);
	struct tramp_args *args = port_virt(base + (u64)trampoline_args - (u64)trampoline);
	u64 *entries = port_virt(mfn_to_hpa(table));

	memcpy(port_virt(base), trampoline, (u64)trampoline_end - (u64)trampoline);
	args->entry = (u64)ap_main;
	args->cr3 = (u32)mfn_to_hpa(table);
	args->efer = (u32)(EFER_LME | (cpu_has(FEAT_NX) ? EFER_NX : 0));
	args->far_offset += base;
	args->gdt_base += base;
	memcpy(entries + 256, (u64 *)port_virt(hostmap_root()) + 256, 256 * sizeof(u64));
	entries[0] = mfn_to_hpa(table) | 1; /* present */
	entries[code.n] = base | 1;
	return args;
}

/* Whether it is online within that time. Waits busily, and answers its questions for the TSC. */
static bool wait_online(const struct pcpu *p, u64 ns)
{
	u64 end = port_now() + ns;

	while (!atomic_load(&p->online) && port_now() < end) {
		if (!atomic_load(&sync_tsc))
			atomic_store(&sync_tsc, rdtsc_ordered());
		cpu_pause();
	}
	return atomic_load(&p->online);
}

/* Brings up one. On failure it is back in wait-for-SIPI, and its pcpu is free for another. */
static bool ap_start(struct pcpu *p, u32 id, struct tramp_args *args)
{
	if (traps_init_pcpu(p) < 0)
		return false;
	p->online = false;
	args->stack = (u64)p->stack[STACK_MAIN];
	args->pcpu = (u64)p;
	apic_ipi(id, IPI_INIT);
	wait_online(p, INIT_SETTLE_NS);
	for (unsigned i = 0; i < 2; i++) { /* what runs already ignores the second */
		apic_ipi(id, IPI_STARTUP | (u32)(port_phys(args) / PAGE_SIZE));
		if (wait_online(p, ONLINE_NS))
			return true;
	}
	apic_ipi(id, IPI_INIT);
	return false;
}

static void ap_start_all(const struct acpi *a, struct tramp_args *args)
{
	for (unsigned i = 0; i < a->cpus; i++) {
		u32 id = a->apic_id[i];

		if (id == apic_id())
			continue;
		if (pcpu_count == MAX_PCPUS || (!cpu_has(FEAT_X2APIC) && id >= 0xff))
			log("smp: processor with APIC id %u is left out: too many, or no x2APIC\n", id);
		else if (ap_start(&pcpus[pcpu_count], id, args))
			atomic_store(&pcpu_count, pcpu_count + 1);
		else
			log("smp: processor with APIC id %u does not start: left out\n", id);
	}
}

/* All translations of this pCPU's own, global ones too (SDM 3A 4.10.4.1). Interrupts off. */
static void flush_all(void)
{
	u64 cr4 = read_cr4();

	write_cr3(read_cr3());
	write_cr4(cr4 & ~CR4_PGE);
	write_cr4(cr4);
}

/* Answers all that was asked of this pCPU so far. Interrupted by itself, an answer could go back in time. */
static void flush_serve(void)
{
	struct pcpu *p = this_pcpu();
	u64 irq = port_irq_save();
	u32 gen = atomic_load(&p->flush_gen);

	if (atomic_swap(&p->flush_host, 0))
		flush_all();
	atomic_store(&p->flush_ack, gen);
	port_irq_restore(irq);
}

/* Asks every online pCPU of the mask but this one, and waits for all. */
static void flush_others(u64 mask, bool host)
{
	unsigned me = port_cpu(), count = atomic_load(&pcpu_count);

	mask &= ~BIT(me) & BITS(count - 1, 0);
	for (u64 left = mask; left; left &= left - 1) {
		struct pcpu *p = &pcpus[bit_low(left)];

		if (host) /* before the number: whoever sees the number sees this */
			atomic_store(&p->flush_host, 1);
		atomic_add(&p->flush_gen, 1);
		apic_ipi(p->apic_id, VEC_FLUSH);
	}
	for (u64 left = mask; left; left &= left - 1) {
		struct pcpu *p = &pcpus[bit_low(left)];
		u32 want = atomic_load(&p->flush_gen); /* ours or a later one */

		while ((s32)(atomic_load(&p->flush_ack) - want) < 0) {
			flush_serve();
			cpu_pause();
		}
	}
}

/*
 * The pCPUs only leave guest mode: the P2M's generation, which the caller has raised, has them forget on the next
 * entry. This one is not in guest mode.
 */
void port_flush_root(hpa_t root, u64 pcpu_mask) { flush_others(pcpu_mask, false); }

/* Rare, so all of it: the range does not matter. */
void port_flush_host(u64 va, u64 len)
{
	u64 irq = port_irq_save();

	flush_all();
	port_irq_restore(irq);
	flush_others(~0ul, true);
}

void port_kick(unsigned cpu)
{
	struct pcpu *p = &pcpus[cpu];

	if (atomic_swap(&p->kicked, 1) == 0 && p != this_pcpu() && atomic_load(&p->online))
		apic_ipi(p->apic_id, VEC_KICK);
}

static NORETURN void stop_this(void)
{
	atomic_store(&this_pcpu()->online, false);
	cpu_stop();
}

void smp_stop_if_asked(void)
{
	u32 by = atomic_load(&stopper);

	if (by && by != port_cpu() + 1)
		stop_this();
}

/* By NMI: whoever has interrupts off, perhaps for ever, stops too. */
void smp_stop_others(void)
{
	u32 nobody = 0;
	u64 end = port_now() + STOP_NS;

	atomic_cas(&stopper, &nobody, port_cpu() + 1);
	smp_stop_if_asked();
	for (unsigned i = 0; i < pcpu_count; i++)
		if (i != port_cpu() && atomic_load(&pcpus[i].online))
			apic_ipi(pcpus[i].apic_id, IPI_NMI);
	for (unsigned i = 0; i < pcpu_count; i++)
		while (i != port_cpu() && atomic_load(&pcpus[i].online) && port_now() < end)
			cpu_pause();
}

unsigned smp_start(const struct acpi *a, int (*prepare)(void), NORETURN void (*entry)(void))
{
	mfn_t code, table;

	traps_set_handler(VEC_FLUSH, flush_serve);
	ap_prepare = prepare;
	ap_entry = entry;
	if (frames_alloc(ORDER_4K, OWNER_HOST, FRAMES_LOW, &code) == 0) {
		if (frames_alloc(ORDER_4K, OWNER_HOST, FRAMES_LOW | FRAMES_ZERO, &table) == 0) {
			ap_start_all(a, tramp_fill(code, table));
			frames_free(table, ORDER_4K, OWNER_HOST);
		}
		frames_free(code, ORDER_4K, OWNER_HOST);
	}
	log("smp: %u of %u pCPUs online\n", pcpu_count, a->cpus);
	return pcpu_count;
}
