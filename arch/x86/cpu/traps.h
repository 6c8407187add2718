/* SPDX-License-Identifier: MIT */
/* The hypervisor's own exceptions and interrupts, its GDT, TSS and IDT. */
#pragma once

#include "lib/types.h"

enum { VECTOR_FIRST = 0x20 };

struct trap_frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, bp, di, si, dx, cx, bx, ax;
	u64 vector, error, rip, cs, rflags, rsp, ss;
};

struct pcpu;
struct vcpu;

/*
 * Boot processor, first thing (under UEFI: once the firmware is done): GDT, IDT, GS; exceptions print and stop
 * from here on. Its caller must never return: the stack protector's guard changes.
 */
void traps_init_boot(void);
/* Full set for a pCPU: queues, and stacks from hostmap_stack if it has none yet. 0 or -ENOMEM; may be repeated. */
int traps_init_pcpu(struct pcpu *p);
void traps_load_pcpu(struct pcpu *p); /* on the pCPU itself */
/*
 * Handler for a vector from 0x20 up; runs with interrupts off, before the APIC's EOI, which the common path sends. It
 * may take no lock. Every interrupt also sets the pCPU's kicked.
 */
void traps_set_handler(u8 vector, void (*fn)(void));
/* An interrupt that the CPU has acknowledged, and not delivered. With interrupts off. */
void traps_interrupt(u8 vector);

/* The function containing addr and the offset in it, from the symbol table in the image; "?" if none. */
const char *symbol_find(u64 addr, u64 *offset);
/* If set: logs what is known about the vCPU that the pCPU was running, as part of a panic's report. */
extern void (*panic_vcpu_hook)(struct vcpu *);
/* Tells what this pCPU's error banks hold, and empties them: after #MC. */
void machine_check_report(void);
/* The report on an exception of our own. */
NORETURN void fault_report(const struct trap_frame *f);
