/* SPDX-License-Identifier: MIT */
/* The state that every pCPU gets before it does any work. */
#include "arch/x86/cpu/cpu.h"
#include "arch/x86/cpu/features.h"
#include "arch/x86/cpu/pcpu.h"
#include "arch/x86/cpu/time.h"
#include "arch/x86/cpu/traps.h"
#include "lib/assert.h"
#include "lib/print.h"
#include "mm/hostmap.h"

/* Entries 0 to 7: WB, WC, UC-, UC, WB, WT, UC-, UC (SDM 3A table 11-10). Entry 1 is not the power-on WT. */
#define PAT_VALUE 0x0007040600070106ul

u64 __stack_chk_guard = 0x5bd1e995a7c31d00ul;
void __stack_chk_fail(void) NORETURN;

void __stack_chk_fail(void) { panic("stack smashed"); }

/* Not guarded itself, since it changes the guard. The low byte stays 0, which ends an overrunning string. */
__attribute__((no_stack_protector)) void stack_guard_init(void)
{
	u64 random = 0, tsc = rdtsc();

	if (cpuid(1, 0).c & BIT(30)) /* RDRAND; if it fails, random is 0 */
		asm_volatile("rdrand %0" : "=r"(random)::"cc");
	__stack_chk_guard ^= (random ^ tsc * 0x9e3779b97f4a7c15ul) & ~0xfful;
}

void cpu_init_this(struct pcpu *p)
{
	u64 cr4 = CR4_PAE | CR4_PGE | CR4_MCE | CR4_OSFXSR | CR4_OSXMMEXCPT;

	cr4 |= read_cr4() & CR4_VMXE; /* where somebody has left VMX on it cannot be cleared; hvm_init finds out */
	ASSERT(p == this_pcpu() && hostmap_root());
	wrmsr(MSR_EFER, EFER_LME | EFER_LMA | (cpu_has(FEAT_NX) ? EFER_NX : 0));
	write_cr0(CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG);
	wrmsr(MSR_PAT, PAT_VALUE);
	/* First the table, then the protections: the loader's table may have user pages. Without PGE nothing survives.
	 */
	write_cr4(cr4 & ~CR4_PGE);
	write_cr3(hostmap_root());
	cr4 |= cpu_has(FEAT_SMEP) ? CR4_SMEP : 0;
	cr4 |= cpu_has(FEAT_SMAP) ? CR4_SMAP : 0;
	cr4 |= cpu_has(FEAT_UMIP) ? CR4_UMIP : 0;
	cr4 |= cpu_has(FEAT_XSAVE) ? CR4_OSXSAVE : 0;
	write_cr4(cr4);
	if (cpu_has(FEAT_XSAVE))
		xsetbv(0, cpu_features.xcr0_mask);
}

void cpu_idle(u64 deadline)
{
	struct pcpu *p = this_pcpu();

	if (atomic_swap(&p->nmi_seen, 0))
		log("cpu: pCPU %u got an NMI that nobody sent\n", p->id);
	cpu_cli();
	if (!atomic_load(&p->kicked) && runq_empty(&p->runq)) {
		time_arm(deadline);
		cpu_sti_hlt();
	}
	cpu_sti();
}
