/* SPDX-License-Identifier: MIT */
/* A guest's platform for tests: two vCPUs on one pCPU, a clock that the test moves, and what the devices asked for. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "devices/clock.h"
#include "devices/lapic_regs.h"
#include "devices/platform.h"
#include "lib/port.h"
#include "tests/host/host.h"

#define PC_VCPUS 2
#define MS       1000000ull
#define SEC      1000000000ull

struct pc {
	struct platform p;
	struct lapic lapic[PC_VCPUS];
	struct timerq q;
	struct guest_clock clock;
	struct {
		u8 rvi, svi;
	} hardware[PC_VCPUS]; /* guest interrupt status, where it virtualises APICs */
	u64 kicks[PC_VCPUS];
	unsigned power_events;
	enum power_event power;
	const char *how;
	char out[256];
	unsigned out_len;
};

static inline void pc_console(void *ctx, u8 c)
{
	struct pc *pc = ctx;

	pc->out[pc->out_len++ % sizeof(pc->out)] = (char)c;
}

static inline void pc_power(void *ctx, enum power_event ev, const char *how)
{
	struct pc *pc = ctx;

	pc->power_events++;
	pc->power = ev;
	pc->how = how;
}

static inline void pc_kick(void *ctx, unsigned vcpu) { ((struct pc *)ctx)->kicks[vcpu]++; }

static const struct platform_ops pc_ops = {.console_out = pc_console, .power = pc_power, .kick = pc_kick};

/* A date that looks like one: 2026-11-21 12:34:56 UTC, a Saturday. */
#define PC_EPOCH 1795264496ull

/* Whether the hardware virtualises APICs (Intel SDM vol. 3, chapter 30), and so this file plays its part. */
static bool pc_virtual_apic;

static inline struct pc *pc_new(void)
{
	struct pc *pc = aligned_alloc(PAGE_SIZE, sizeof(*pc));
	struct lapic *lapics[PC_VCPUS];
	struct timerq *queues[PC_VCPUS];

	memset(pc, 0, sizeof(*pc));
	host_set_now(1000);
	host_set_cpu(0);
	timerq_init(&pc->q, 0);
	pc->clock = (struct guest_clock){.start_ns = 1000, .tsc_khz = 2500000};
	for (unsigned i = 0; i < PC_VCPUS; i++) {
		lapics[i] = &pc->lapic[i];
		queues[i] = &pc->q;
	}
	platform_init(&pc->p, &pc_ops, pc, lapics, PC_VCPUS, queues, &pc->clock, PC_EPOCH);
	for (unsigned i = 0; pc_virtual_apic && i < PC_VCPUS; i++)
		lapic_let_deliver(&pc->lapic[i]);
	return pc;
}

static inline void pc_free(struct pc *pc)
{
	platform_free(&pc->p);
	assert_true(pc->q.next == TIMER_NEVER);
	free(pc);
}

/* Lets time pass as a run loop would see it: each timer runs at its deadline. */
static inline void pc_pass(struct pc *pc, u64 ns)
{
	u64 end = port_now() + ns;

	while (timers_run(&pc->q, port_now()) <= end)
		host_set_now(pc->q.next);
	host_set_now(end);
	timers_run(&pc->q, end);
}

/* Lets time pass with nobody looking at timers until the end. */
static inline void pc_sleep(struct pc *pc, u64 ns)
{
	host_set_now(port_now() + ns);
	timers_run(&pc->q, port_now());
}

static inline u64 pc_access(struct pc *pc, enum bus_space space, u64 addr, unsigned size, bool write, u64 val)
{
	struct bus_op op = {.space = (u8)space, .size = (u8)size, .write = write, .addr = addr, .val = val};

	lock_take(&pc->p.lock);
	bus_access(&pc->p.bus, &op);
	lock_drop(&pc->p.lock);
	return op.val;
}

static inline u8 in8(struct pc *pc, u16 port) { return (u8)pc_access(pc, BUS_PIO, port, 1, false, 0); }
static inline u16 in16(struct pc *pc, u16 port) { return (u16)pc_access(pc, BUS_PIO, port, 2, false, 0); }
static inline u32 in32(struct pc *pc, u16 port) { return (u32)pc_access(pc, BUS_PIO, port, 4, false, 0); }
static inline void out8(struct pc *pc, u16 port, u8 val) { pc_access(pc, BUS_PIO, port, 1, true, val); }
static inline void out16(struct pc *pc, u16 port, u16 val) { pc_access(pc, BUS_PIO, port, 2, true, val); }
static inline void out32(struct pc *pc, u16 port, u32 val) { pc_access(pc, BUS_PIO, port, 4, true, val); }

static inline u32 ioapic_read(struct pc *pc, u32 reg)
{
	pc_access(pc, BUS_MMIO, IOAPIC_BASE, 4, true, reg);
	return (u32)pc_access(pc, BUS_MMIO, IOAPIC_BASE + 0x10, 4, false, 0);
}

static inline void ioapic_write(struct pc *pc, u32 reg, u32 val)
{
	pc_access(pc, BUS_MMIO, IOAPIC_BASE, 4, true, reg);
	pc_access(pc, BUS_MMIO, IOAPIC_BASE + 0x10, 4, true, val);
}

static inline void irq_line(struct pc *pc, unsigned irq, bool level)
{
	lock_take(&pc->p.lock);
	platform_irq(&pc->p, irq, level);
	lock_drop(&pc->p.lock);
}

static inline u32 apic_read(struct pc *pc, unsigned vcpu, u32 reg)
{
	struct bus_op op = {.space = BUS_MMIO, .size = 4, .addr = LAPIC_DEFAULT_BASE + reg};

	lapic_mmio(&pc->lapic[vcpu], &op);
	return (u32)op.val;
}

static inline u8 pc_highest(struct lapic *l, unsigned reg)
{
	for (unsigned vector = 256; vector-- > 0;)
		if (*lapic_word(l, reg, (u8)vector) >> vector % 32 & 1)
			return (u8)vector;
	return 0;
}

/* At an entry. */
static inline void pc_hardware_takes(struct pc *pc, unsigned vcpu)
{
	struct lapic *l = &pc->lapic[vcpu];

	if (l->moved) {
		pc->hardware[vcpu].rvi = l->rvi;
		pc->hardware[vcpu].svi = l->svi;
		l->moved = false;
	}
	assert_int_equal(pc->hardware[vcpu].rvi, pc_highest(l, REG_IRR));
	assert_int_equal(pc->hardware[vcpu].svi, pc_highest(l, REG_ISR));
}

/* 30.2.2 */
static inline int pc_hardware_delivers(struct pc *pc, unsigned vcpu)
{
	struct lapic *l = &pc->lapic[vcpu];
	u8 vector;

	pc_hardware_takes(pc, vcpu);
	vector = pc->hardware[vcpu].rvi;
	if (vector >> 4 <= MAX((u8)lapic_get(l, REG_TPR), pc->hardware[vcpu].svi) >> 4)
		return -1;
	*lapic_word(l, REG_ISR, vector) |= 1u << vector % 32;
	*lapic_word(l, REG_IRR, vector) &= ~(1u << vector % 32);
	pc->hardware[vcpu].svi = vector;
	pc->hardware[vcpu].rvi = pc_highest(l, REG_IRR);
	return vector;
}

/* 30.1.4 */
static inline void pc_hardware_eoi(struct pc *pc, unsigned vcpu)
{
	struct lapic *l = &pc->lapic[vcpu];
	u8 vector;

	pc_hardware_takes(pc, vcpu);
	vector = pc->hardware[vcpu].svi;
	*lapic_word(l, REG_ISR, vector) &= ~(1u << vector % 32);
	pc->hardware[vcpu].svi = pc_highest(l, REG_ISR);
	if (lapic_level(l, vector / 64) >> vector % 64 & 1)
		platform_eoi(&pc->p, vector);
}

/* 30.4.3.2; of them TPR and EOI without an exit */
static inline bool hardware_writes(unsigned reg)
{
	const u64 regs = BIT(REG_ID) | BIT(REG_TPR) | BIT(REG_EOI) | BITS(REG_SVR, REG_LDR) | BIT(REG_ESR) |
			 BITS(REG_INITIAL, REG_ICR) | BIT(REG_DIVIDE);

	return reg < LAPIC_REGS && (regs >> reg & 1);
}

static inline void apic_write(struct pc *pc, unsigned vcpu, u32 reg, u32 val)
{
	struct bus_op op = {.space = BUS_MMIO, .size = 4, .write = true, .addr = LAPIC_DEFAULT_BASE + reg, .val = val};

	if (pc_virtual_apic && lapic_page(&pc->lapic[vcpu]) == LAPIC_DEFAULT_BASE && reg == REG_EOI * 16) {
		pc_hardware_eoi(pc, vcpu);
	} else if (pc_virtual_apic && hardware_writes(reg / 16)) {
		lapic_put(&pc->lapic[vcpu], reg / 16, val);
		lapic_written(&pc->lapic[vcpu], reg);
	} else {
		lapic_mmio(&pc->lapic[vcpu], &op);
	}
}

#define APIC_TPR     0x80
#define APIC_PPR     0xa0
#define APIC_EOI     0xb0
#define APIC_SVR     0xf0
#define APIC_ESR     0x280
#define APIC_ICR     0x300
#define APIC_ICR_HI  0x310
#define APIC_LVTT    0x320
#define APIC_LVT0    0x350
#define APIC_LVTERR  0x370
#define APIC_INITIAL 0x380
#define APIC_CURRENT 0x390
#define APIC_DIVIDE  0x3e0

static inline void apic_enable(struct pc *pc)
{
	for (unsigned i = 0; i < PC_VCPUS; i++)
		apic_write(pc, i, APIC_SVR, 0x1ff);
}

/* Takes the pending vector as a CPU would, or returns -1. */
static inline int take(struct pc *pc, unsigned vcpu)
{
	int pending = platform_pending(&pc->p, vcpu);

	if (pending >= 0) {
		assert_int_equal(platform_ack(&pc->p, vcpu), pending);
	} else if (pc_virtual_apic) {
		bool wakes = lapic_delivers(&pc->lapic[vcpu]);

		pending = pc_hardware_delivers(pc, vcpu);
		assert_int_equal(wakes, pending >= 0);
	}
	return pending;
}

/* Takes it, ends it in the local APIC, and returns it. */
static inline int serve(struct pc *pc, unsigned vcpu)
{
	int vector = take(pc, vcpu);

	if (vector >= 0)
		apic_write(pc, vcpu, APIC_EOI, 0);
	return vector;
}

/* Initialises both 8259s as PCs do: vectors 0x30 and 0x38, everything masked. */
static inline void pic_start(struct pc *pc)
{
	out8(pc, 0x20, 0x11);
	out8(pc, 0x21, 0x30);
	out8(pc, 0x21, 0x04);
	out8(pc, 0x21, 0x01);
	out8(pc, 0xa0, 0x11);
	out8(pc, 0xa1, 0x38);
	out8(pc, 0xa1, 0x02);
	out8(pc, 0xa1, 0x01);
	out8(pc, 0x21, 0xff);
	out8(pc, 0xa1, 0xff);
}
