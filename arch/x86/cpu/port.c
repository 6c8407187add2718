/* SPDX-License-Identifier: MIT */
/* The port's small parts. Time is in time.c, kicks and flushes in smp.c, panic in fault.c, port_log in the console. */
#include "lib/port.h"

#include "arch/x86/cpu/cpu.h"
#include "arch/x86/cpu/pcpu.h"
#include "mm/hostmap.h"

/* Sums, not dereferences: early mappings and hostmap both map RAM at DIRECT_MAP + pa. */
void *port_virt(hpa_t pa) { return (void *)(DIRECT_MAP + pa); }
hpa_t port_phys(const void *va) { return (hpa_t)va - DIRECT_MAP; }
unsigned port_cpu(void) { return this_pcpu()->id; }
void port_relax(void) { cpu_pause(); }
bool port_fail_alloc(void) { return false; }

u64 port_irq_save(void)
{
	u64 flags;

	asm_volatile("pushfq; pop %0; cli" : "=r"(flags)::"memory");
	return flags;
}

void port_irq_restore(u64 state)
{
	if (state & RFLAGS_IF)
		cpu_sti();
}
