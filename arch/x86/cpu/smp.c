/* SPDX-License-Identifier: MIT */
/*
 * Starting the other pCPUs, one at a time, and what pCPUs ask of each other afterwards.
 *
 *     boot processor              the other
 *     INIT, SIPI          ---->   trampoline (real mode to long mode)
 *                         <----   alive
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
#include "lib/errno.h"
#include "lib/port.h"
#include "lib/print.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/hostmap.h"
#include "sched/kick.h"

#define INIT_SETTLE_NS   20000ul
#define ALIVE_FIRST_NS   20000000ul
#define ALIVE_STEP_NS    50000ul
#define ALIVE_SECOND_NS  200000000ul
#define ONLINE_NS        1000000000ul
#define STOP_NS          2000000ul
#define SYNC_ROUNDS      8u
#define SYNC_GOOD_NS     10000ul
#define SYNC_SLACK_TICKS 1000

/* The tail of the trampoline: see there. */
struct PACKED tramp_args {
	u64 gdt[2], stack, pcpu, entry;
	u32 cr3, efer, cr0, far_offset;
	u16 far_sel, gdt_limit;
	u32 gdt_base;
};

/* Frames below 1 MB: the trampoline and the table it runs on. */
enum { LOW_CODE, LOW_PML4, LOW_PDPT, LOW_PD, LOW_FRAMES };

extern const u8 trampoline[];
extern const u32 trampoline_size, trampoline_args;

static NORETURN void (*ap_entry)(void);
static bool ap_alive; /* the starting pCPU has reached C; atomic */
static u32 stopper;   /* pCPU + 1 that has stopped the others; atomic */
static struct {
	u32 ask, answer; /* atomic; equal: nothing is asked */
	u64 tsc;         /* of the boot processor; the other's once answer equals ask */
} sync;

/* On the boot processor while it waits. */
static void sync_serve(void)
{
	u32 ask = atomic_load(&sync.ask);

	if (ask == sync.answer)
		return;
	sync.tsc = rdtsc_ordered();
	atomic_store(&sync.answer, ask);
}

/* On the starting pCPU: its TSC's offset from the boot processor's, and the round trip that this is known within. */
static u64 sync_round(u64 *offset)
{
	u64 before = rdtsc_ordered();
	u32 ask = atomic_add(&sync.ask, 1);

	while (atomic_load(&sync.answer) != ask)
		cpu_pause();

	u64 took = rdtsc_ordered() - before;

	*offset = sync.tsc - (before + took / 2);
	return took;
}

/* By the shortest of some round trips; a TSC that the trip's length explains is taken as right. */
static void sync_measure(struct pcpu *p)
{
	u64 best = ~0ul, offset = 0, good = (u64)time_tsc_khz() * SYNC_GOOD_NS / 1000000;

	for (u32 i = 0; i < SYNC_ROUNDS && best > good; i++) {
		u64 now, took = sync_round(&now);

		if (took < best) {
			best = took;
			offset = now;
		}
	}

	s64 off = (s64)offset, bound = (s64)(best / 2) + SYNC_SLACK_TICKS;

	p->tsc_offset = off > bound || off < -bound ? offset : 0;
	if (p->tsc_offset)
		log("smp: the TSC of pCPU %u is off by %ld ticks: compensated\n", p->id, (long)-off);
}

static NORETURN void ap_main(struct pcpu *p)
{
	traps_load_pcpu(p);
	atomic_store(&ap_alive, true);
	cpu_init_this(p);
	apic_init_this();
	sync_measure(p);
	time_init_this();
	atomic_store(&p->online, true);
	cpu_sti();
	ap_entry();
}

/* Fills the trampoline and its table. Identity for the low 2 MB, the host's upper half. */
static void tramp_fill(const mfn_t *low)
{
	u8 *code = port_virt(mfn_to_hpa(low[LOW_CODE]));
	struct tramp_args *args = (struct tramp_args *)(code + trampoline_args);
	u64 *pml4 = port_virt(mfn_to_hpa(low[LOW_PML4])), *pdpt = port_virt(mfn_to_hpa(low[LOW_PDPT]));
	u64 *pd = port_virt(mfn_to_hpa(low[LOW_PD]));
	u32 base = (u32)mfn_to_hpa(low[LOW_CODE]);

	memcpy(code, trampoline, trampoline_size);
	args->cr3 = (u32)mfn_to_hpa(low[LOW_PML4]);
	args->efer = (u32)(EFER_LME | (cpu_has(FEAT_NX) ? EFER_NX : 0));
	args->cr0 = (u32)(CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG);
	args->far_offset += base;
	args->gdt_base += base;
	memcpy(pml4 + 256, (u64 *)port_virt(hostmap_root()) + 256, 256 * sizeof(u64));
	pml4[0] = mfn_to_hpa(low[LOW_PDPT]) | 3; /* present, writable */
	pdpt[0] = mfn_to_hpa(low[LOW_PD]) | 3;
	pd[0] = 0x83; /* and a 2 MB page */
}

/* Waits halted, so that whatever runs us can run the other. */
static bool wait_alive(u64 ns)
{
	u64 end = port_now() + ns;

	while (!atomic_load(&ap_alive) && port_now() < end) {
		cpu_cli();
		time_arm(port_now() + ALIVE_STEP_NS);
		cpu_sti_hlt();
	}
	return atomic_load(&ap_alive);
}

/* Waits busily, answering questions for the TSC. */
static bool wait_online(const struct pcpu *p)
{
	u64 end = port_now() + ONLINE_NS;

	while (!atomic_load(&p->online) && port_now() < end) {
		sync_serve();
		cpu_pause();
	}
	return atomic_load(&p->online);
}

/* Brings up one. On failure it is back in wait-for-SIPI, and its pcpu is free for another. */
static int ap_start(struct pcpu *p, u32 id, mfn_t code)
{
	struct tramp_args *args = port_virt(mfn_to_hpa(code) + trampoline_args);

	if (traps_init_pcpu(p) < 0)
		return -ENOMEM;
	args->stack = (u64)p->stack_top;
	args->pcpu = (u64)p;
	args->entry = (u64)ap_main;
	atomic_store(&ap_alive, false);
	apic_ipi_init(id);
	time_delay(INIT_SETTLE_NS);
	apic_ipi_startup(id, (u8)code.n);
	if (!wait_alive(ALIVE_FIRST_NS))
		apic_ipi_startup(id, (u8)code.n);
	if (wait_alive(ALIVE_SECOND_NS) && wait_online(p))
		return 0;
	apic_ipi_init(id);
	return -EIO;
}

static void ap_start_all(const struct acpi *a, mfn_t code)
{
	for (unsigned i = 0; i < a->cpus; i++) {
		u32 id = a->apic_id[i];

		if (id == apic_id())
			continue;
		if (pcpu_count == MAX_PCPUS || (!apic_x2() && id >= 0xff))
			log("smp: processor with APIC id %u is left out: too many, or no x2APIC\n", id);
		else if (ap_start(&pcpus[pcpu_count], id, code) < 0)
			log("smp: processor with APIC id %u does not start: left out\n", id);
		else
			atomic_store(&pcpu_count, pcpu_count + 1);
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

/* Every root's translations are given up: a pCPU rarely runs more than one guest between two flushes. */
void port_flush_root(hpa_t root, u64 pcpu_mask)
{
	if (pcpu_mask & BIT(port_cpu())) {
		atomic_add(&this_pcpu()->flush_gen, 1);
		flush_serve();
	}
	flush_others(pcpu_mask, false);
}

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

/* The interrupt has done its work by arriving: the guest has exited, HLT has ended, and kicked is set. */
static void kick_interrupt(void) {}

void smp_stop_this(void)
{
	atomic_store(&this_pcpu()->online, false);
	cpu_stop();
}

bool smp_stopping(void)
{
	u32 by = atomic_load(&stopper);

	return by && by != port_cpu() + 1;
}

/* By NMI: whoever has interrupts off, perhaps for ever, stops too. */
void smp_stop_others(void)
{
	u32 by = 0, me = port_cpu() + 1;
	u64 end = port_now() + STOP_NS;

	if (!atomic_cas(&stopper, &by, me) && by != me)
		smp_stop_this();
	for (unsigned i = 0; i < pcpu_count; i++)
		if (i != port_cpu() && atomic_load(&pcpus[i].online))
			apic_ipi_nmi(pcpus[i].apic_id);
	for (unsigned i = 0; i < pcpu_count; i++)
		while (i != port_cpu() && atomic_load(&pcpus[i].online) && port_now() < end)
			cpu_pause();
}

unsigned smp_start(const struct acpi *a, NORETURN void (*entry)(void))
{
	mfn_t low[LOW_FRAMES];
	unsigned got = 0;

	traps_set_handler(VEC_KICK, kick_interrupt);
	traps_set_handler(VEC_FLUSH, flush_serve);
	if (a->cpus <= 1)
		return pcpu_count;
	ap_entry = entry;
	while (got < LOW_FRAMES && frames_alloc(ORDER_4K, OWNER_HOST, FRAMES_LOW | FRAMES_ZERO, &low[got]) == 0)
		got++;
	if (got == LOW_FRAMES) {
		tramp_fill(low);
		ap_start_all(a, low[LOW_CODE]);
	} else {
		log("smp: no memory below 1 MB: one pCPU only\n");
	}
	while (got > 0)
		frames_free(low[--got], ORDER_4K, OWNER_HOST);
	log("smp: %u of %u pCPUs online\n", pcpu_count, a->cpus);
	return pcpu_count;
}
