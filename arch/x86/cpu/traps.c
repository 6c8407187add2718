/* SPDX-License-Identifier: MIT */
/*
 * GDT, TSS, IDT and what happens behind them.
 *
 *     stub -> trap_dispatch -+- vector >= 0x20: handler, EOI, kicked
 *                            +- NMI: stop if another pCPU panics, else remember it
 *                            +- anything else: fault_report, the end
 *
 * NMI, #DF and #MC have stacks of their own: they come when the current stack may be unusable.
 */
#include "arch/x86/cpu/traps.h"

#include "arch/x86/cpu/apic.h"
#include "arch/x86/cpu/cpu.h"
#include "arch/x86/cpu/pcpu.h"
#include "arch/x86/cpu/smp.h"
#include "lib/errno.h"
#include "mm/hostmap.h"

enum { SEL_CODE = 0x08, SEL_DATA = 0x10, SEL_TSS = 0x18, STUB_SIZE = 16 };

struct PACKED table_ptr {
	u16 limit;
	u64 base;
};

extern const char trap_stubs[];
void trap_dispatch(struct trap_frame *f);

struct pcpu pcpus[MAX_PCPUS];
unsigned pcpu_count = 1;

static u64 idt[256][2] ALIGNED(16); /* SDM 3A figure 6-8 */
static void (*handlers[256])(void); /* written at boot or as one pointer store */

void traps_load_pcpu(struct pcpu *p)
{
	struct table_ptr gdtr = {sizeof(p->gdt) - 1, (u64)p->gdt}, idtr = {sizeof(idt) - 1, (u64)idt};
	u64 tss = (u64)&p->tss;

	p->tss.iomap = sizeof(p->tss);
	p->gdt[SEL_CODE / 8] = 0x00af9b000000ffff; /* 64-bit code */
	p->gdt[SEL_DATA / 8] = 0x00cf93000000ffff;
	/* Not busy, even if it was loaded before: LTR would refuse it. */
	p->gdt[SEL_TSS / 8] = (sizeof(p->tss) - 1) | (tss & 0xffffff) << 16 | 0x89ul << 40 | (tss >> 24 & 0xff) << 56;
	p->gdt[SEL_TSS / 8 + 1] = tss >> 32;
	asm_volatile("lgdt %0" ::"m"(gdtr));
	asm_volatile("pushq %0; leaq 1f(%%rip), %%rax; pushq %%rax; lretq; 1:" ::"i"(SEL_CODE) : "rax", "memory");
	asm_volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss; mov %1, %%fs; mov %1, %%gs" ::"r"(SEL_DATA), "r"(0));
	wrmsr(MSR_FS_BASE, 0);
	wrmsr(MSR_GS_BASE, (u64)p); /* after loading the selector, which clears it */
	asm_volatile("lidt %0" ::"m"(idtr));
	asm_volatile("ltr %w0" ::"r"(SEL_TSS));
}

__attribute__((no_stack_protector)) void traps_init_boot(void)
{
	stack_guard_init();
	pcpus[0].online = true;
	for (unsigned v = 0; v < ARRAY_SIZE(idt); v++) {
		u64 stub = (u64)trap_stubs + v * STUB_SIZE;

		/* Present, DPL 0, 64-bit interrupt gate. */
		idt[v][0] = (stub & 0xffff) | SEL_CODE << 16 | 0x8eul << 40 | (stub >> 16 & 0xffff) << 48;
		idt[v][1] = stub >> 32;
	}
	traps_load_pcpu(&pcpus[0]);
}

int traps_init_pcpu(struct pcpu *p)
{
	p->self = p;
	p->id = (u32)(p - pcpus);
	runq_init(&p->runq, p->id);
	timerq_init(&p->timers, p->id);
	for (unsigned i = 0; i < PCPU_STACKS; i++) {
		if (!p->stack[i])
			p->stack[i] = hostmap_stack(STACK_SIZE);
		if (!p->stack[i])
			return -ENOMEM;
		p->tss.ist[i] = (u64)p->stack[i];
	}
	/* Until the boot processor gets here, these run on the stack that they interrupt. */
	idt[VEC_NMI][0] |= (STACK_NMI + 1ul) << 32;
	idt[VEC_DF][0] |= (STACK_DF + 1ul) << 32;
	idt[VEC_MC][0] |= (STACK_MC + 1ul) << 32;
	return 0;
}

void traps_set_handler(u8 vector, void (*fn)(void)) { atomic_store(&handlers[vector], fn); }

/*
 * The EOI is for all: where the APIC waits for none (spurious, or from an 8259) it means nothing, since handlers do not
 * nest and so nothing else is in service.
 */
void traps_interrupt(u8 vector)
{
	void (*fn)(void) = atomic_load(&handlers[vector]);

	atomic_store(&this_pcpu()->kicked, 1);
	if (fn)
		fn();
	apic_eoi();
}

static void nmi(void)
{
	smp_stop_if_asked();
	atomic_store(&this_pcpu()->nmi_seen, 1);
	atomic_store(&this_pcpu()->kicked, 1);
}

void trap_dispatch(struct trap_frame *f)
{
	if (f->vector >= VECTOR_FIRST)
		traps_interrupt((u8)f->vector);
	else if (f->vector == VEC_NMI)
		nmi();
	else
		fault_report(f);
}
