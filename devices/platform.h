/* SPDX-License-Identifier: MIT */
/*
 * The PC that a guest sees: its bus, interrupt controllers, timers, serial port and power control, as one structure.
 *
 *     hvm exit dispatcher --bus_access--> bus --> device --ioapic/pic line--> lapic_post --kick--> vCPU leaves guest or
 * HLT
 *
 * Everything here except the local APICs is under platform.lock (LOCK_DEVICES).
 */
#pragma once

#include "devices/bus.h"
#include "devices/lapic.h"
#include "lib/lock.h"
#include "sched/timer.h"

#define MAX_VCPUS 64 /* of one guest */

enum power_event { POWER_OFF, POWER_RESET };

/* What the devices ask of the guest that they belong to. All may be called with platform.lock held, from any pCPU. */
struct platform_ops {
	void (*console_out)(void *ctx, u8 c);
	void (*power)(void *ctx, enum power_event ev, const char *how); /* how: "ACPI S5", "port CF9", "8042" */
	void (*kick)(void *ctx, unsigned vcpu);                         /* wake it, or make it look at its APIC again */
	void (*notify)(void *ctx, unsigned vcpu); /* its hardware is to take what is posted, see lapic.inside */
};

/* Fixed places that the ACPI tables also name. The PM timer has 32 bits (TMR_VAL_EXT); there is no GPE block. */
#define IOAPIC_BASE 0xfec00000ul
#define IOAPIC_PINS 24

/* Value 6 resets. The century is a CMOS index. The SCI is level-triggered, active high. */
enum { RESET_PORT = 0xcf9, RTC_CENTURY = 0x32, SCI_IRQ = 9, S5_TYPE = 5 };

/* ACPI: PM1a event block of 4 bytes, control block of 2 (SCI_EN is always set, there is no SMI_CMD), PM timer of 4. */
enum { PM_EVT_PORT = 0x600, PM_CNT_PORT = 0x604, PM_TMR_PORT = 0x608 };

/* 8259 pair. IR2 of chip 0 is chip 1's output. */
struct pic {
	struct pic_chip {
		u8 irr, isr, imr, lines, elcr;
		u8 base; /* vector of IR0 */
		u8 icw;  /* initialization word expected next: 0 (none), 2, 3, 4 */
		bool read_isr, auto_eoi, special_mask;
		bool icw4; /* there will be one */
	} chip[2];
	bool out; /* the INTR pin; readable without the lock */
};

/* 8254. Times are in its own ticks (PIT_HZ) since port_now's zero. */
struct pit {
	struct pit_channel {
		u32 reload;      /* 1..65536 */
		u8 mode, access; /* mode 0..5; access: 1 low, 2 high, 3 both */
		bool gate;
		bool loaded; /* has a count since its mode was set */
		bool write_hi, read_hi, latched;
		u8 write_lo;
		u16 latch;
		u64 start; /* when the count was loaded, or the gate rose */
	} ch[3];
	u8 port61;
	struct timer timer;
	u64 next_edge; /* of channel 0's output; TIMER_NEVER if none comes */
};

struct ioapic {
	u32 id;
	u8 select;
	u32 lines; /* level of each input */
	u64 redir[IOAPIC_PINS];
};

/* 16550A, COM1. */
struct uart {
	u8 reg[8], divisor[2]; /* registers as written; FCR in place of IIR */
	bool thre_pending, line;
	u8 rx[256]; /* received and not yet read; a ring */
	unsigned rx_head, rx_count;
};

/* MC146818. Times are in its own ticks (RTC_HZ) since 1970. */
struct rtc {
	u8 index, ram[128]; /* registers A to D as well */
	u64 zero;           /* the time at port_now's zero; modulo 2^64 */
	u64 seen;           /* up to when register C's flags are known */
	struct timer timer;
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
	u8 pm[PM_TMR_PORT - PM_EVT_PORT]; /* the registers before the PM timer, by port */
	u32 pci_address;                  /* port CF8 */
	u8 kbc_out;                       /* the 8042's answer */
	bool kbc_full;                    /* that is yet to be read */
	unsigned vcpus;
	struct lapic *lapic[MAX_VCPUS];
};

/*
 * Builds the platform for that many vCPUs (1..MAX_VCPUS); the lapics are given by the caller and initialised here.
 * lapic_q[i] is the timer queue of vCPU i's pCPU; the devices' timers are on the first's. epoch: seconds since 1970
 * now.
 */
void platform_init(struct platform *p, const struct platform_ops *ops, void *ctx, struct lapic **lapics, unsigned vcpus,
		   struct timerq **lapic_q, const struct guest_clock *clock, u64 epoch);
void platform_free(struct platform *p); /* cancels every timer; no vCPU may run, and platform.lock is not held */

/*
 * The vector vCPU must take now (local APIC first, then the 8259 through it), or -1. Changes nothing. On the vCPU's
 * pCPU, without platform.lock, which it takes only while the 8259 has an interrupt.
 */
int platform_pending(struct platform *p, unsigned vcpu);
/*
 * Acknowledges what platform_pending returned and returns the vector to inject, which is another where the 8259's
 * request has changed or gone since (spurious). On the vCPU's pCPU, without platform.lock.
 */
int platform_ack(struct platform *p, unsigned vcpu);

/*
 * Drives an interrupt line: 0..15 reach 8259 and IOAPIC (IRQ 0 on pin 2), 16..23 the IOAPIC only. With platform.lock
 * held.
 */
void platform_irq(struct platform *p, unsigned irq, bool level);
/* EOI of a level-triggered vector by a local APIC. Takes platform.lock. */
void platform_eoi(struct platform *p, u8 vector);

/* A character typed at the guest's serial port. Returns false if its buffer is full. Takes platform.lock. */
bool platform_input(struct platform *p, u8 c);
