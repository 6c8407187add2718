/* SPDX-License-Identifier: MIT */
/* One area for each pCPU, reached through GS. */
#pragma once

#include "lib/lock.h"
#include "lib/types.h"
#include "sched/sched.h"
#include "sched/timer.h"

#define MAX_PCPUS  64
#define STACK_SIZE (16 * KB)

/* A pCPU's stacks, in the order of its TSS. */
enum { STACK_MAIN, STACK_NMI, STACK_DF, STACK_MC, PCPU_STACKS };

struct vcpu;

struct pcpu {
	struct pcpu *self;        /* at GS:0 */
	u32 id, apic_id;          /* id: at GS:8, where port_inline.h reads it */
	void *stack[PCPU_STACKS]; /* their tops; NULL while the boot processor has none of its own */
	bool online;
	/*
	 * Set by port_kick and by every interrupt; the run loop clears it by atomic_swap (a full barrier) before it
	 * looks at its queues, and looks at it again with interrupts off before it enters a guest or halts.
	 */
	u32 kicked;
	u32 flush_gen;  /* bumped by port_flush_*: asks it to leave guest mode, and to say so in flush_ack; atomic */
	u32 flush_ack;  /* the last flush_gen that this pCPU has seen outside guest mode; written by itself */
	u32 flush_host; /* a pending flush_gen wants the hypervisor's own translations flushed too; atomic */
	u32 nmi_seen;   /* an NMI that nobody sent: told at the next idle */
	struct runq runq;
	struct timerq timers;
	struct vcpu *loaded;  /* vCPU whose FPU, XCR0 and MSRs are in this pCPU's registers, or NULL */
	struct vcpu *running; /* vCPU between entry and the end of its exit's handling */
	u64 timer_deadline;   /* what the hardware timer is programmed for, ns; TIMER_NEVER once it has fired */
	u64 work_due;         /* when background work is done here though a vCPU wants to run, ns */
	u64 tsc_offset;       /* what to add to this pCPU's TSC to get the boot processor's; 0 where they agree */
	u64 gdt[8];
	struct PACKED {
		u32 reserved0;
		u64 rsp[3], reserved1, ist[7], reserved2;
		u16 reserved3, iomap;
	} tss;
} ALIGNED(64);

extern struct pcpu pcpus[MAX_PCPUS];
extern unsigned pcpu_count; /* online; ids 0 .. pcpu_count - 1 are in use. Written by the boot processor only */

static inline struct pcpu *this_pcpu(void)
{
	struct pcpu *p;
	__asm__("mov %%gs:0, %0" : "=r"(p));
	return p;
}

/* Randomises the stack protector's guard: no caller, at any depth, may have a guarded frame to return from. */
void stack_guard_init(void);
/*
 * This pCPU's control registers, EFER, PAT and XCR0, and the host table (hostmap_root): to be called once the table
 * maps everything in use, the stack included.
 */
void cpu_init_this(struct pcpu *p);
/* Halts until an interrupt or the absolute deadline (ns), unless there is work. Called and returns with interrupts on.
 */
void cpu_idle(u64 deadline);
