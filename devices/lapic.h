/* SPDX-License-Identifier: MIT */
/*
 * A vCPU's local APIC (Intel SDM vol. 3, chapter 11): xAPIC page, x2APIC MSRs, timer in its three modes, IPIs. Errors
 * are not recorded: ESR is always 0.
 *
 * Who touches what: the owning vCPU's pCPU reads and writes registers and runs the timer; other pCPUs post interrupts.
 * Requests (posted, TMR and the pending INIT, SIPI, NMI) are atomics that anyone may set, followed by a kick;
 * everything else belongs to the owner, but what routing needs (base, SVR, LDR, DFR, TPR, LINT0) others read, relaxed:
 * an interrupt that races with a change of these takes either way, as on a bus.
 *
 * No function here takes platform.lock but the write of EOI (through platform_eoi); so none may be called with it held
 * but lapic_post, lapic_send and lapic_accepts_pic.
 */
#pragma once

#include "devices/bus.h"
#include "sched/timer.h"

#define LAPIC_DEFAULT_BASE 0xfee00000ul
#define LAPIC_VERSION      0x00050014u
#define LAPIC_TIMER_HZ     1000000000u /* the timer's input clock: a tick is 1 ns */

enum { LAPIC_BASE_BSP = 1 << 8, LAPIC_BASE_X2APIC = 1 << 10, LAPIC_BASE_ENABLE = 1 << 11 };

#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC_FIRST 0x800u

enum lapic_delivery { APIC_FIXED, APIC_LOWEST, APIC_SMI, APIC_NMI = 4, APIC_INIT, APIC_STARTUP, APIC_EXTINT };
enum lapic_shorthand { APIC_DEST, APIC_SELF, APIC_ALL, APIC_OTHERS };

#define APIC_BROADCAST 0xffffffffu /* as apic_msg.dest; 8-bit destinations of all ones are widened to this */

/* Interrupt message: from an ICR, an IOAPIC entry, or an MSI. */
struct apic_msg {
	u32 dest; /* APIC id, or logical destination */
	u8 vector;
	u8 delivery; /* enum lapic_delivery */
	bool logical, level;
	u8 shorthand; /* enum lapic_shorthand */
};

/* How guest TSC values and ns relate: ns = start_ns + tsc * 1e6 / tsc_khz. */
struct guest_clock {
	u64 start_ns;
	u32 tsc_khz; /* not 0 */
};

struct platform;

/* Asynchronous events for the vCPU beside vectors: bits of lapic.events, taken with lapic_take_events. */
enum { LAPIC_EV_NMI = 1, LAPIC_EV_INIT = 2, LAPIC_EV_SIPI = 4 };

struct lapic {
	struct platform *platform;
	unsigned vcpu; /* index in the guest; also the APIC id */
	u64 base;      /* IA32_APIC_BASE */
	/*
	 * Requests on their way to IRR: the owner moves them there, or the hardware if it is told while the vCPU is
	 * inside. A posted-interrupt descriptor (SDM vol. 3, 30.6); a pending notification is not noted in it. Atomic.
	 */
	u64 posted[8] ALIGNED(64);
	/*
	 * The same for level-triggered ones, which only the owner moves: the hardware is to know them as such before it
	 * delivers them, or nobody would hear of their EOI. is_level: there may be some. Atomic.
	 */
	u64 level[4];
	bool is_level;
	/*
	 * In the guest, where the hardware takes what is posted. Set with interrupts off, after the last look whether
	 * the vCPU was kicked; who posts looks here afterwards. Atomic.
	 */
	bool inside;
	u8 rvi, svi;  /* the highest vector in IRR and in ISR, 0 if none: as hardware that virtualises APICs has it */
	bool enabled; /* by SVR; atomic */
	/*
	 * The hardware delivers from IRR and takes EOIs by itself, on the page and its own rvi and svi; these here are
	 * then void unless moved, which says that software has changed them since the hardware was told.
	 */
	bool delivers, moved;
	u32 lvt, initial, divide; /* of the timer, as it runs by them */
	u64 timer_start;          /* ns at which the running count began; modulo 2^64 */
	u64 tsc_deadline;
	struct timer timer;
	u32 events; /* LAPIC_EV_*, atomic */
	u8 sipi_vector;
	const struct guest_clock *clock;
	/*
	 * The registers where the hardware has them (devices/lapic_regs.h), so that it can serve this page to the guest
	 * by itself. TMR is atomic.
	 */
	u32 page[PAGE_SIZE / sizeof(u32)] ALIGNED(PAGE_SIZE);
};

/* Sets up, as after power-up. Only before the guest runs. */
void lapic_init(struct lapic *l, struct platform *p, unsigned vcpu, struct timerq *q, const struct guest_clock *clock);
/*
 * The state after power-up, or (init) after INIT, which keeps IA32_APIC_BASE and pending events. As a PC's firmware
 * leaves it, the first vCPU's power-up state has LINT0 as ExtINT and LINT1 as NMI, unmasked. By the owner.
 */
void lapic_reset(struct lapic *l, bool init);

/* An access inside the 4 KB page at lapic_page(l). op->addr is the full address; only its low 12 bits count. */
void lapic_mmio(struct lapic *l, struct bus_op *op);
/* The hardware has put what the guest wrote into the page, at this offset; what that does is still to be done. */
void lapic_written(struct lapic *l, unsigned offset);
/* Which of the vectors from 64 * i on are level-triggered: the end of their service is to be told. */
u64 lapic_level(const struct lapic *l, unsigned i);
/* From now on the hardware delivers. Before the guest runs. */
void lapic_let_deliver(struct lapic *l);
/* IA32_APIC_BASE, IA32_TSC_DEADLINE, and 0x800-0x8ff. Return 0, or -EINVAL where the guest gets #GP. */
int lapic_rdmsr(struct lapic *l, u32 msr, u64 *val);
int lapic_wrmsr(struct lapic *l, u32 msr, u64 val);
/* The guest-physical address of the page, or ~0 when it is disabled or in x2APIC mode. */
gpa_t lapic_page(const struct lapic *l);

/* CR8. */
u8 lapic_get_cr8(const struct lapic *l);
void lapic_set_cr8(struct lapic *l, u8 cr8);

/* The highest pending vector that priority lets through, or -1: none, or the hardware delivers it. By the owner. */
int lapic_pending(struct lapic *l);
/* Whether the hardware would deliver one, were the guest entered with interrupts on. By the owner. */
bool lapic_delivers(struct lapic *l);
/* The vector is being delivered: IRR to ISR. By the owner. */
void lapic_ack(struct lapic *l, u8 vector);
/* Whether the virtual wire (LINT0 as ExtINT, or the APIC disabled) lets 8259 interrupts through to this vCPU. */
bool lapic_accepts_pic(const struct lapic *l);
/* Takes and clears the pending asynchronous events; *sipi gets the vector of the SIPI. */
u32 lapic_take_events(struct lapic *l, u8 *sipi);

/* Posts a fixed interrupt to one APIC; returns whether that is enabled and took it. Any pCPU. */
bool lapic_post(struct lapic *l, u8 vector, bool level);
/* Routes a message to all APICs it names; src is the sender or NULL. Returns whether one took it. Any pCPU. */
bool lapic_send(struct platform *p, const struct lapic *src, const struct apic_msg *m);
