/* SPDX-License-Identifier: MIT */
/*
 * The PC that a guest sees: its bus, interrupt controllers, timers, serial port and power control, as one structure.
 *
 *     hvm exit dispatcher --bus_access--> bus --> device --ioapic/pic line--> lapic_post --kick--> vCPU leaves guest or
 * HLT
 *
 * Everything here except the local APICs is under platform.lock (LOCK_DEVICES).
 */
#ifndef DEVICES_PLATFORM_H
#define DEVICES_PLATFORM_H

#include "devices/bus.h"
#include "devices/lapic.h"
#include "lib/lock.h"
#include "lib/types.h"
#include "sched/timer.h"

#define MAX_VCPUS 64 /* of one guest */

enum power_event { POWER_OFF, POWER_RESET };

/* What the devices ask of the guest that they belong to. All may be called with platform.lock held, from any pCPU. */
struct platform_ops {
	void (*console_out)(void *ctx, u8 c);
	void (*power)(void *ctx, enum power_event ev, const char *how); /* how: "ACPI S5", "port CF9", "8042" */
	void (*kick)(void *ctx, unsigned vcpu);                         /* wake it, or make it look at its APIC again */
};

/* Fixed places that the ACPI tables also name. */
#define IOAPIC_BASE 0xfec00000ull
#define IOAPIC_PINS 24
#define PM_EVT_PORT 0x600 /* PM1a event block, 4 bytes */
#define PM_CNT_PORT 0x604 /* PM1a control block, 2 bytes */
#define PM_TMR_PORT 0x608 /* PM timer, 4 bytes */
#define PM_GPE_PORT 0x620
#define RESET_PORT  0xcf9
#define SCI_IRQ     9
#define S5_TYPE     5

struct pic {
	struct pic_chip {
		u8 irr, isr, imr, lines, elcr;
		u8 base;   /* vector of IR0 */
		u8 lowest; /* rotating priority: the lowest-priority input */
		u8 icw;    /* initialization words still expected: 0, 2, 3, 4 */
		bool read_isr, poll, auto_eoi, rotate_auto, special_mask, need_icw4;
	} chip[2];
};

struct pit {
	struct pit_channel {
		u32 reload;      /* 1..65536 */
		u8 mode, access; /* access: 1 low, 2 high, 3 both */
		bool bcd, gate, write_hi, read_hi, null_count;
		bool count_latched, status_latched;
		u16 latch;
		u8 status, write_lo;
		u64 start; /* ns at which the count was loaded */
	} ch[3];
	u8 port61;
	struct timer irq;
	u64 next_edge;
};

struct ioapic {
	u32 id, select;
	u64 redir[IOAPIC_PINS];
	u32 lines; /* level of each input */
};

struct uart {
	u8 ier, lcr, mcr, scr, fcr, dll, dlm, lsr_errors, msr_delta;
	bool thre_pending;
	u8 rx[256]; /* received and not yet read; a ring */
	unsigned rx_head, rx_count;
	u16 port;
	u8 irq;
};

struct rtc {
	u8 index, ram[128];
	u8 a, b, c;
	s64 offset; /* guest's seconds since 1970 minus ns/1e9 */
	struct timer periodic;
};

struct pm {
	u16 sts, en, cnt;
	u64 gpe;
	u8 reset;
};

struct pci_host {
	u32 address;    /* CF8 */
	u8 config[256]; /* of 00:00.0, the host bridge */
};

struct kbc {
	u8 command, status, out, outport;
	bool expect_outport, expect_command;
};

struct platform {
	struct lock lock;
	struct bus bus;
	const struct platform_ops *ops;
	void *ctx;
	struct pic pic;
	struct pit pit;
	struct ioapic ioapic;
	struct uart uart;
	struct rtc rtc;
	struct pm pm;
	struct pci_host pci;
	struct kbc kbc;
	unsigned vcpus;
	struct lapic *lapic[MAX_VCPUS];
};

/*
 * Builds the platform for that many vCPUs; the lapics are given by the caller and initialised here. q is the timer
 * queue of the first vCPU's pCPU, lapic_q[i] of each vCPU's. epoch: seconds since 1970 now. Returns 0 or what bus_add
 * returns.
 */
int platform_init(struct platform *p, const struct platform_ops *ops, void *ctx, struct lapic **lapics, unsigned vcpus,
		  struct timerq **lapic_q, const struct guest_clock *clock, u64 epoch);
void platform_free(struct platform *p); /* cancels every timer; no vCPU may run */

/* The vector vCPU must take now (local APIC first, then the 8259 through it), or -1. Peeks. Takes platform.lock if
 * needed. */
int platform_pending(struct platform *p, unsigned vcpu);
/* Acknowledges what platform_pending returned and returns the vector to inject (the 8259 may say another: spurious). */
int platform_ack(struct platform *p, unsigned vcpu);

/* Drives an interrupt line (0..15 ISA; reaches 8259 and IOAPIC, IRQ0 on pin 2). With platform.lock held. */
void platform_irq(struct platform *p, unsigned irq, bool level);
/* EOI of a level-triggered vector by a local APIC. Takes platform.lock. */
void platform_eoi(struct platform *p, u8 vector);

/* A character typed at the guest's serial port. Returns false if its buffer is full. Takes platform.lock. */
bool platform_input(struct platform *p, u8 c);

#endif
