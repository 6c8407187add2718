/* SPDX-License-Identifier: MIT */
/*
 * GDT, TSS, IDT and what happens behind them.
 *
 *     stub -> trap_dispatch -+- vector >= 0x20: handler, EOI, kicked
 *                            +- NMI: stop if another pCPU panics, else remember it
 *                            +- an instruction in the exception table: continue at its fix-up
 *                            +- anything else: fault_report, the end
 *
 * NMI, #DF and #MC have stacks of their own: they come when the current stack may be unusable.
 */
#include "arch/x86/cpu/traps.h"

#include "arch/x86/cpu/apic.h"
#include "arch/x86/cpu/cpu.h"
#include "arch/x86/cpu/pcpu.h"
#include "arch/x86/cpu/smp.h"
#include "lib/assert.h"
#include "lib/errno.h"
#include "lib/print.h"
#include "mm/hostmap.h"

enum { TRAP_NMI = 2, TRAP_DF = 8, TRAP_MC = 18, VECTOR_FIRST = 0x20, STUB_SIZE = 16 };
enum { IST_NMI = 1, IST_DF, IST_MC, ISTS = IST_MC };

struct gate {
	u16 offset_low, sel;
	u8 ist, type;
	u16 offset_mid;
	u32 offset_high, reserved;
};
STATIC_ASSERT(sizeof(struct gate) == 16, "SDM 3A figure 6-8");

struct PACKED table_ptr {
	u16 limit;
	u64 base;
};

struct ex_entry {
	u64 insn, fixup;
};

extern const char trap_stubs[];
extern const struct ex_entry ex_table_start[], ex_table_end[];
void trap_dispatch(struct trap_frame *f);

struct pcpu pcpus[MAX_PCPUS];
unsigned pcpu_count = 1;

static struct gate idt[256] ALIGNED(16);
static void (*handlers[256])(void); /* written at boot or as one pointer store */
/* For the time before hostmap_stack: one for all three, as two at a time would be the end anyway. */
static u8 boot_ist[IST_STACK_SIZE] ALIGNED(16);

static void idt_init(void)
{
	for (unsigned v = 0; v < 256; v++) {
		u64 stub = (u64)trap_stubs + v * STUB_SIZE;

		idt[v] = (struct gate){
			.offset_low = (u16)stub,
			.offset_mid = (u16)(stub >> 16),
			.offset_high = (u32)(stub >> 32),
			.sel = SEL_CODE,
			.type = 0x8e, /* present, DPL 0, 64-bit interrupt gate */
		};
	}
	idt[TRAP_NMI].ist = IST_NMI;
	idt[TRAP_DF].ist = IST_DF;
	idt[TRAP_MC].ist = IST_MC;
}

static void gdt_init(struct pcpu *p)
{
	u64 base = (u64)&p->tss;

	p->tss.iomap = sizeof(p->tss);
	p->gdt[SEL_CODE / 8] = 0x00af9b000000ffff; /* 64-bit code */
	p->gdt[SEL_DATA / 8] = 0x00cf93000000ffff;
	p->gdt[SEL_TSS / 8] = (sizeof(p->tss) - 1) | (base & 0xffffff) << 16 | 0x89ul << 40 | (base >> 24 & 0xff) << 56;
	p->gdt[SEL_TSS / 8 + 1] = base >> 32;
}

void traps_load_pcpu(struct pcpu *p)
{
	struct table_ptr gdtr = {sizeof(p->gdt) - 1, (u64)p->gdt}, idtr = {sizeof(idt) - 1, (u64)idt};

	gdt_init(p); /* again: LTR marked the TSS busy, and refuses it so */
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
	struct pcpu *p = &pcpus[0];

	stack_guard_init();
	p->self = p;
	p->online = true;
	p->timer_deadline = TIMER_NEVER;
	idt_init();
	for (unsigned i = 0; i < ISTS; i++)
		p->tss.ist[i] = (u64)boot_ist + sizeof(boot_ist);
	traps_load_pcpu(p);
}

static int stack_once(void **top, u64 size)
{
	if (!*top)
		*top = hostmap_stack(size);
	return *top ? 0 : -ENOMEM;
}

int traps_init_pcpu(struct pcpu *p)
{
	p->self = p;
	p->id = (u32)(p - pcpus);
	p->timer_deadline = TIMER_NEVER;
	runq_init(&p->runq, p->id);
	timerq_init(&p->timers, p->id);
	if (stack_once(&p->stack_top, STACK_SIZE) < 0)
		return -ENOMEM;
	for (unsigned i = 0; i < ISTS; i++) {
		if (stack_once(&p->ist_top[i], IST_STACK_SIZE) < 0)
			return -ENOMEM;
		p->tss.ist[i] = (u64)p->ist_top[i];
	}
	gdt_init(p);
	return 0;
}

void traps_set_handler(u8 vector, void (*fn)(void)) { atomic_store(&handlers[vector], fn); }

/* An interrupt nobody asked for (spurious, late from the firmware, from an 8259) gets an EOI only if the APIC waits for
 * it. */
static void interrupt(u8 vector)
{
	void (*fn)(void) = atomic_load(&handlers[vector]);

	atomic_store(&this_pcpu()->kicked, 1);
	if (fn)
		fn();
	if (fn || apic_in_service(vector))
		apic_eoi();
}

static void nmi(void)
{
	if (smp_stopping())
		smp_stop_this();
	atomic_store(&this_pcpu()->nmi_seen, 1);
	atomic_store(&this_pcpu()->kicked, 1);
}

static bool fixup(struct trap_frame *f)
{
	for (const struct ex_entry *e = ex_table_start; (u64)e < (u64)ex_table_end; e++)
		if (e->insn == f->rip) {
			f->rip = e->fixup;
			return true;
		}
	return false;
}

void trap_dispatch(struct trap_frame *f)
{
	if (f->vector >= VECTOR_FIRST)
		interrupt((u8)f->vector);
	else if (f->vector == TRAP_NMI)
		nmi();
	else if (!fixup(f))
		fault_report(f);
}

/* Runs insn; the error in %[err] is cleared only if it did not fault. */
#define SAFE(insn)                         \
	"mov %[fault], %[err]\n"           \
	"1:	" insn "\n"                \
	"	xor %[err], %[err]\n"            \
	"2:\n"                             \
	".pushsection __ex_table, \"a\"\n" \
	"	.balign 8\n"                     \
	"	.quad 1b, 2b\n"                  \
	".popsection\n"

int rdmsr_safe(u32 msr, u64 *val)
{
	u32 lo = 0, hi = 0;
	int err;

	asm_volatile(SAFE("rdmsr") : [err] "=&r"(err), "+a"(lo), "+d"(hi) : [fault] "i"(-EFAULT), "c"(msr));
	*val = (u64)hi << 32 | lo;
	return err;
}

int wrmsr_safe(u32 msr, u64 val)
{
	int err;

	asm_volatile(SAFE("wrmsr")
		     : [err] "=&r"(err)
		     : [fault] "i"(-EFAULT), "c"(msr), "a"((u32)val), "d"((u32)(val >> 32))
		     : "memory");
	return err;
}

int xsetbv_safe(u32 n, u64 val)
{
	int err;

	asm_volatile(SAFE("xsetbv")
		     : [err] "=&r"(err)
		     : [fault] "i"(-EFAULT), "c"(n), "a"((u32)val), "d"((u32)(val >> 32))
		     : "memory");
	return err;
}
