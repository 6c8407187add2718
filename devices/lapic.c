/* SPDX-License-Identifier: MIT */
/*
 * Registers and state of a local APIC. Messages between APICs are in apic_msg.c, the timer is in lapic_timer.c.
 *
 *     lapic_send, lapic_post (any pCPU) --> IRR --lapic_pending: above PPR?--> lapic_ack --> ISR --EOI--> gone
 *                                                                                             |
 *                                           IOAPIC's remote IRR <--platform_eoi, if level-----+
 */
#include "devices/lapic.h"

#include "devices/lapic_regs.h"
#include "devices/platform.h"
#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/string.h"

/* Register offsets in the page; the x2APIC MSR is 0x800 + offset / 16. */
enum {
	REG_ID = 0x20,
	REG_VERSION = 0x30,
	REG_TPR = 0x80,
	REG_APR = 0x90,
	REG_PPR = 0xa0,
	REG_EOI = 0xb0,
	REG_RRD = 0xc0,
	REG_LDR = 0xd0,
	REG_DFR = 0xe0,
	REG_SVR = 0xf0,
	REG_ISR = 0x100,
	REG_TMR = 0x180,
	REG_IRR = 0x200,
	REG_ESR = 0x280,
	REG_ICR = 0x300,
	REG_ICR_HI = 0x310,
	REG_LVT = 0x320,
	REG_LVT_END = 0x380,
	REG_INITIAL = 0x380,
	REG_CURRENT = 0x390,
	REG_DIVIDE = 0x3e0,
	REG_SELF_IPI = 0x3f0,
};

#define SVR_WRITABLE    0x3ffu
#define ESR_SEND_VECTOR 0x20u
#define ESR_REGISTER    0x80u

#define ICR_WRITABLE 0xffffffff000ccffful /* what xAPIC mode keeps; x2APIC mode faults on the rest, but for status */
#define ICR_STATUS   0x1000ul
#define ICR_LEVEL    0x8000u
#define ICR_ASSERT   0x4000u
#define ICR_LOGICAL  0x800u

static const u32 lvt_writable[LVT_COUNT] = {
	[LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
	[LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,   [LVT_ERROR] = 0x100ff,
};

static bool in_x2apic(const struct lapic *l) { return l->base & LAPIC_BASE_X2APIC; }

static int highest(const u64 *bits)
{
	for (int i = 3; i >= 0; i--) {
		u64 word = atomic_load(&bits[i]);

		if (word)
			return i * 64 + (int)bit_high(word);
	}
	return -1;
}

static u8 ppr(const struct lapic *l)
{
	int isr = highest(l->isr);
	u8 serving = isr < 0 ? 0 : isr & 0xf0;

	return (l->tpr & 0xf0) >= serving ? (u8)l->tpr : serving;
}

int lapic_pending(const struct lapic *l)
{
	int vector = highest(l->irr);

	return vector >= 0 && (vector & 0xf0) > (ppr(l) & 0xf0) ? vector : -1;
}

void lapic_ack(struct lapic *l, u8 vector)
{
	atomic_and(&l->irr[vector / 64], ~BIT(vector % 64));
	bitmap_set(l->isr, vector);
}

bool lapic_accepts_pic(const struct lapic *l)
{
	u32 lint0 = atomic_load_relaxed(&l->lvt[LVT_LINT0]);

	if (!(atomic_load_relaxed(&l->base) & LAPIC_BASE_ENABLE))
		return l->vcpu == 0;
	return !(lint0 & LVT_MASKED) && ((lint0 >> 8) & 7) == APIC_EXTINT;
}

u8 lapic_get_cr8(const struct lapic *l) { return (l->tpr >> 4) & 0xf; }

void lapic_set_cr8(struct lapic *l, u8 cr8) { atomic_store_relaxed(&l->tpr, (cr8 & 0xfu) << 4); }

gpa_t lapic_page(const struct lapic *l)
{
	return (l->base & (LAPIC_BASE_ENABLE | LAPIC_BASE_X2APIC)) == LAPIC_BASE_ENABLE ? l->base & PAGE_MASK : ~0ul;
}

static void eoi(struct lapic *l)
{
	int vector = highest(l->isr);

	if (vector < 0)
		return;
	bitmap_clear(l->isr, (unsigned)vector);
	if (atomic_load(&l->tmr[vector / 64]) & BIT(vector % 64))
		platform_eoi(l->platform, (u8)vector);
}

static void error(struct lapic *l, u32 bit)
{
	l->esr_latch |= bit;
	if (!(l->lvt[LVT_ERROR] & LVT_MASKED))
		lapic_post(l, (u8)l->lvt[LVT_ERROR], false);
}

static void send_icr(struct lapic *l, u64 icr)
{
	u32 lo = (u32)icr;
	struct apic_msg m = {
		.dest = (u32)(icr >> 32),
		.vector = (u8)lo,
		.delivery = (lo >> 8) & 7,
		.logical = lo & ICR_LOGICAL,
		.level = lo & ICR_LEVEL,
		.assert = lo & ICR_ASSERT,
		.shorthand = (lo >> 18) & 3,
	};

	l->icr = icr;
	if (!in_x2apic(l)) {
		m.dest >>= 24;
		if (m.dest == 0xff && !m.logical)
			m.dest = APIC_BROADCAST;
	}
	if (m.delivery != APIC_INIT)
		m.level = false; /* only an INIT can be level-triggered */
	if (m.delivery <= APIC_LOWEST && m.vector < 16)
		error(l, ESR_SEND_VECTOR);
	else
		lapic_send(l->platform, l, &m);
}

/* A software-disabled APIC keeps all its LVT entries masked. */
static void write_svr(struct lapic *l, u32 val)
{
	atomic_store_relaxed(&l->svr, val & SVR_WRITABLE);
	if (val & LAPIC_SVR_ENABLE)
		return;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		atomic_store_relaxed(&l->lvt[i], l->lvt[i] | LVT_MASKED);
	lapic_timer_set_lvt(l, l->lvt[LVT_TIMER]);
}

static void write_lvt(struct lapic *l, unsigned i, u32 val)
{
	val &= lvt_writable[i];
	if (!(l->svr & LAPIC_SVR_ENABLE))
		val |= LVT_MASKED;
	if (i == LVT_TIMER)
		lapic_timer_set_lvt(l, val);
	else
		atomic_store_relaxed(&l->lvt[i], val);
}

static u32 bits_register(const u64 *bits, u32 reg)
{
	return (u32)(atomic_load(&bits[(reg >> 5) & 3]) >> (reg & 16) * 2);
}

/* The registers that both modes have and that can be read, or -1. */
static s64 read_common(const struct lapic *l, u32 reg)
{
	switch (reg) {
	case REG_ID:
		return in_x2apic(l) ? l->vcpu : l->vcpu << 24;
	case REG_VERSION:
		return LAPIC_VERSION;
	case REG_TPR:
		return l->tpr;
	case REG_PPR:
		return ppr(l);
	case REG_LDR:
		return l->ldr;
	case REG_SVR:
		return l->svr;
	case REG_ISR ... REG_TMR - 16:
		return bits_register(l->isr, reg);
	case REG_TMR ... REG_IRR - 16:
		return bits_register(l->tmr, reg);
	case REG_IRR ... REG_ESR - 16:
		return bits_register(l->irr, reg);
	case REG_ESR:
		return l->esr;
	case REG_ICR:
		return (u32)l->icr;
	case REG_LVT ... REG_LVT_END - 16:
		return l->lvt[(reg - REG_LVT) / 16];
	case REG_INITIAL:
		return l->timer_initial;
	case REG_CURRENT:
		return lapic_timer_count(l);
	case REG_DIVIDE:
		return l->timer_divide;
	default:
		return -1;
	}
}

/* The registers that both modes have, can be written, and are the same in both. Returns false for others. */
static bool write_common(struct lapic *l, u32 reg, u32 val)
{
	switch (reg) {
	case REG_TPR:
		atomic_store_relaxed(&l->tpr, val & 0xff);
		break;
	case REG_EOI:
		eoi(l);
		break;
	case REG_SVR:
		write_svr(l, val);
		break;
	case REG_ESR:
		l->esr = l->esr_latch;
		l->esr_latch = 0;
		break;
	case REG_LVT ... REG_LVT_END - 16:
		write_lvt(l, (reg - REG_LVT) / 16, val);
		break;
	case REG_INITIAL:
		lapic_timer_set_initial(l, val);
		break;
	case REG_DIVIDE:
		lapic_timer_set_divide(l, val);
		break;
	default:
		return false;
	}
	return true;
}

/* APR is what Intel dropped with the Pentium 4 and AMD still has: the highest of what is wanted and what is served. */
static u32 xapic_read(struct lapic *l, u32 reg)
{
	int irr = highest(l->irr);
	s64 val;

	switch (reg) {
	case REG_APR:
		return MAX((u32)ppr(l), irr < 0 ? 0u : (u32)irr & 0xf0);
	case REG_RRD:
		return 0;
	case REG_DFR:
		return l->dfr;
	case REG_ICR_HI:
		return (u32)(l->icr >> 32);
	}
	val = read_common(l, reg);
	if (val >= 0)
		return (u32)val;
	error(l, ESR_REGISTER);
	return 0;
}

static void xapic_write(struct lapic *l, u32 reg, u32 val)
{
	switch (reg) {
	case REG_LDR:
		atomic_store_relaxed(&l->ldr, val & 0xff000000);
		return;
	case REG_DFR:
		atomic_store_relaxed(&l->dfr, val | 0x0fffffff);
		return;
	case REG_ICR:
		send_icr(l, (l->icr >> 32 << 32) | (val & (u32)ICR_WRITABLE));
		return;
	case REG_ICR_HI:
		l->icr = (u32)l->icr | (u64)(val & 0xff000000) << 32;
		return;
	}
	if (!write_common(l, reg, val))
		error(l, ESR_REGISTER);
}

void lapic_mmio(struct lapic *l, struct bus_op *op)
{
	u32 offset = op->addr & 0xfff, reg = offset & ~0xfu;

	if (!op->write) {
		/* Only the first 4 of 16 bytes are a register, whatever part of them is read. */
		op->val = (offset & 0xf) < 4 ? (u64)xapic_read(l, reg) >> (offset & 3) * 8 : 0;
	} else if (op->size == 4 && offset == reg) {
		xapic_write(l, reg, (u32)op->val);
	}
}

static int x2apic_write(struct lapic *l, u32 reg, u64 val)
{
	if (reg == REG_ICR) {
		if (val & ~(ICR_WRITABLE | ICR_STATUS))
			return -EINVAL;
		send_icr(l, val & ~ICR_STATUS);
		return 0;
	}
	if (val >> 32 || ((reg == REG_EOI || reg == REG_ESR) && val) ||
	    ((reg == REG_TPR || reg == REG_SELF_IPI) && val > 0xff))
		return -EINVAL;
	if (reg == REG_SELF_IPI)
		send_icr(l, APIC_SELF << 18 | val);
	else if (!write_common(l, reg, (u32)val))
		return -EINVAL;
	return 0;
}

/* The x2APIC's logical id is not chosen by software: 16 APICs a cluster (SDM vol. 3, 11.12.10.2). */
static u32 x2apic_ldr(const struct lapic *l) { return (l->vcpu >> 4) << 16 | 1u << (l->vcpu & 15); }

/* Legal ways (SDM vol. 3, 11.12.5): off to xAPIC, xAPIC to x2APIC, any to off. */
static int write_base(struct lapic *l, u64 val)
{
	bool on = val & LAPIC_BASE_ENABLE, x2 = val & LAPIC_BASE_X2APIC;
	bool was_on = l->base & LAPIC_BASE_ENABLE, was_x2 = in_x2apic(l);

	if (val & (BITS(63, 52) | BIT(9) | BITS(7, 0)) || (x2 && !on))
		return -EINVAL;
	if ((x2 && !was_on) || (was_x2 && on && !x2))
		return -EINVAL;
	atomic_store_relaxed(&l->base, val);
	if (was_on && !on)
		lapic_reset(l, true);
	else if (x2 && !was_x2)
		atomic_store_relaxed(&l->ldr, x2apic_ldr(l));
	return 0;
}

int lapic_rdmsr(struct lapic *l, u32 msr, u64 *val)
{
	u32 reg = (msr - MSR_X2APIC_FIRST) * 16;
	s64 common;

	if (msr == MSR_APIC_BASE) {
		*val = l->base;
		return 0;
	}
	if (msr == MSR_TSC_DEADLINE) {
		*val = lapic_timer_deadline(l);
		return 0;
	}
	if (msr < MSR_X2APIC_FIRST || msr > MSR_X2APIC_LAST || !in_x2apic(l))
		return -EINVAL;
	common = read_common(l, reg);
	*val = reg == REG_ICR ? l->icr : (u64)common;
	return common < 0 ? -EINVAL : 0;
}

int lapic_wrmsr(struct lapic *l, u32 msr, u64 val)
{
	if (msr == MSR_APIC_BASE)
		return write_base(l, val);
	if (msr == MSR_TSC_DEADLINE) {
		lapic_timer_set_deadline(l, val);
		return 0;
	}
	if (msr < MSR_X2APIC_FIRST || msr > MSR_X2APIC_LAST || !in_x2apic(l))
		return -EINVAL;
	return x2apic_write(l, (msr - MSR_X2APIC_FIRST) * 16, val);
}

void lapic_reset(struct lapic *l, bool init)
{
	if (!init) {
		l->base = LAPIC_DEFAULT_BASE | LAPIC_BASE_ENABLE | (l->vcpu == 0 ? LAPIC_BASE_BSP : 0);
		atomic_store(&l->events, 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		atomic_store(&l->irr[i], 0);
		atomic_store(&l->tmr[i], 0);
		l->isr[i] = 0;
	}
	l->tpr = l->esr = l->esr_latch = 0;
	l->svr = 0xff;
	l->dfr = 0xffffffff;
	l->ldr = in_x2apic(l) ? x2apic_ldr(l) : 0;
	l->icr = 0;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		l->lvt[i] = LVT_MASKED;
	if (!init && l->vcpu == 0) {
		l->lvt[LVT_LINT0] = APIC_EXTINT << 8;
		l->lvt[LVT_LINT1] = APIC_NMI << 8;
	}
	l->timer_initial = l->timer_divide = 0;
	l->tsc_deadline = 0;
	timer_set(&l->timer, TIMER_NEVER);
}

void lapic_init(struct lapic *l, struct platform *p, unsigned vcpu, struct timerq *q, const struct guest_clock *clock)
{
	memset(l, 0, sizeof(*l));
	l->platform = p;
	l->vcpu = vcpu;
	l->clock = clock;
	timer_init(&l->timer, q, lapic_timer_fired, l);
	lapic_reset(l, false);
}

void lapic_free(struct lapic *l) { timer_cancel(&l->timer); }
