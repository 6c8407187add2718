/* SPDX-License-Identifier: MIT */
/*
 * Registers and state of a local APIC. Messages between APICs are in apic_msg.c, the timer is in lapic_timer.c.
 *
 *     lapic_send, lapic_post (any pCPU) --> IRR --lapic_pending: above PPR?--> lapic_ack --> ISR --EOI--> gone
 *                                                                                             |
 *                                           IOAPIC's remote IRR <--platform_eoi, if level-----+
 */
#include "devices/lapic_regs.h"

#include "devices/platform.h"
#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/port.h"

enum { ICR_STATUS = 0x1000, ICR_LEVEL = 0x8000, ICR_ASSERT = 0x4000, ICR_LOGICAL = 0x800 };

#define ICR_RESERVED 0xfff32000u /* faults in x2APIC mode, is not kept in xAPIC mode */

/* The registers that can be read in x2APIC mode; all others fault. */
#define READABLE                                                                                       \
	(BIT(REG_ID) | BIT(REG_VERSION) | BIT(REG_TPR) | BIT(REG_PPR) | BIT(REG_LDR) | BIT(REG_SVR) |  \
	 BITS(REG_IRR + 7, REG_ISR) | BIT(REG_ESR) | BIT(REG_ICR) | BITS(REG_CURRENT, REG_LVT_TIMER) | \
	 BIT(REG_DIVIDE))

static bool in_x2apic(const struct lapic *l) { return l->base & LAPIC_BASE_X2APIC; }

/* The highest vector in ISR or IRR, or 0. */
static u8 highest(const struct lapic *l, unsigned first)
{
	for (unsigned i = 8; i-- > 0;) {
		u32 word = lapic_get(l, first + i);

		if (word)
			return (u8)(i * 32 + bit_high(word));
	}
	return 0;
}

static u8 ppr(const struct lapic *l)
{
	u8 tpr = (u8)lapic_get(l, REG_TPR), serving = l->svi & 0xf0;

	return (tpr & 0xf0) >= serving ? tpr : serving;
}

/* After the hardware has worked on the page, and before software uses these. */
static void look_again(struct lapic *l)
{
	if (!l->delivers)
		return;
	l->rvi = highest(l, REG_IRR);
	l->svi = highest(l, REG_ISR);
}

static bool take(struct lapic *l, u64 *posted)
{
	bool any = false;

	for (unsigned i = 0; i < 4; i++) {
		u64 word = atomic_load_relaxed(&posted[i]);

		if (!word)
			continue;
		word = atomic_swap(&posted[i], 0);
		*lapic_reg(l, REG_IRR + 2 * i) |= (u32)word;
		*lapic_reg(l, REG_IRR + 2 * i + 1) |= (u32)(word >> 32);
		l->rvi = MAX(l->rvi, (u8)(i * 64 + bit_high(word)));
		any = true;
	}
	return any;
}

static void take_posted(struct lapic *l)
{
	bool any = take(l, l->posted);

	if (atomic_load_relaxed(&l->is_level)) {
		(void)atomic_swap(&l->is_level, false); /* before the look */
		any |= take(l, l->level);
	}
	if (any)
		look_again(l);
	l->moved |= any;
}

static bool above_ppr(const struct lapic *l) { return l->rvi && (l->rvi & 0xf0) > (ppr(l) & 0xf0); }

int lapic_pending(struct lapic *l)
{
	take_posted(l);
	return !l->delivers && above_ppr(l) ? l->rvi : -1;
}

bool lapic_delivers(struct lapic *l)
{
	look_again(l);
	return l->delivers && above_ppr(l);
}

u64 lapic_level(const struct lapic *l, unsigned i)
{
	return lapic_get(l, REG_TMR + 2 * i) | (u64)lapic_get(l, REG_TMR + 2 * i + 1) << 32;
}

void lapic_let_deliver(struct lapic *l) { l->delivers = l->moved = true; }

void lapic_ack(struct lapic *l, u8 vector)
{
	*lapic_word(l, REG_IRR, vector) &= ~(1u << vector % 32);
	*lapic_word(l, REG_ISR, vector) |= 1u << vector % 32;
	l->rvi = highest(l, REG_IRR);
	l->svi = MAX(l->svi, vector);
}

bool lapic_accepts_pic(const struct lapic *l)
{
	u32 lint0 = lapic_get(l, REG_LVT_LINT0);

	if (!(atomic_load_relaxed(&l->base) & LAPIC_BASE_ENABLE))
		return l->vcpu == 0;
	return !(lint0 & LVT_MASKED) && ((lint0 >> 8) & 7) == APIC_EXTINT;
}

u8 lapic_get_cr8(const struct lapic *l) { return (lapic_get(l, REG_TPR) >> 4) & 0xf; }

void lapic_set_cr8(struct lapic *l, u8 cr8) { lapic_put(l, REG_TPR, (cr8 & 0xfu) << 4); }

gpa_t lapic_page(const struct lapic *l)
{
	return (l->base & (LAPIC_BASE_ENABLE | LAPIC_BASE_X2APIC)) == LAPIC_BASE_ENABLE ? l->base & PAGE_MASK : ~0ul;
}

static void eoi(struct lapic *l)
{
	look_again(l);

	u8 vector = l->svi;

	if (!vector)
		return;
	l->moved = true;
	*lapic_word(l, REG_ISR, vector) &= ~(1u << vector % 32);
	l->svi = highest(l, REG_ISR);
	if (atomic_load(lapic_word(l, REG_TMR, vector)) & 1u << vector % 32)
		platform_eoi(l->platform, vector);
}

static void send_ipi(struct lapic *l, u32 lo, u32 hi)
{
	struct apic_msg m = {.vector = (u8)lo, .delivery = (lo >> 8) & 7, .shorthand = (lo >> 18) & 3};

	m.logical = lo & ICR_LOGICAL;
	m.dest = in_x2apic(l) ? hi : hi >> 24;
	if (!in_x2apic(l) && m.dest == 0xff && !m.logical)
		m.dest = APIC_BROADCAST;
	if (m.delivery == APIC_INIT && (lo & (ICR_LEVEL | ICR_ASSERT)) == ICR_LEVEL)
		return; /* its deassertion is a relic of the 82489DX */
	lapic_send(l->platform, l, &m);
}

static void write_icr(struct lapic *l, u32 lo, u32 hi)
{
	lapic_put(l, REG_ICR, lo & ~(ICR_RESERVED | ICR_STATUS));
	lapic_put(l, REG_ICR_HI, hi);
	send_ipi(l, lo, hi);
}

/* A software-disabled APIC keeps all its LVT entries masked. */
static void write_lvt(struct lapic *l, unsigned reg, u32 val, bool enabled)
{
	static const u32 writable[] = {0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff};

	val &= writable[reg - REG_LVT_TIMER];
	if (!enabled)
		val |= LVT_MASKED;
	if (reg == REG_LVT_TIMER)
		lapic_timer_write(l, reg, val);
	else
		lapic_put(l, reg, val);
}

static void write_svr(struct lapic *l, u32 svr)
{
	for (unsigned reg = REG_LVT_TIMER; reg <= REG_LVT_ERROR; reg++)
		write_lvt(l, reg, lapic_get(l, reg), svr & SVR_ENABLE);
	lapic_put(l, REG_SVR, svr & 0x3ff);
	atomic_store_relaxed(&l->enabled, svr & SVR_ENABLE);
}

static u32 read_register(struct lapic *l, unsigned reg)
{
	if (reg == REG_PPR) {
		look_again(l);
		return ppr(l);
	}
	if (reg >= REG_IRR && reg < REG_IRR + 8)
		take_posted(l);
	return reg == REG_CURRENT ? lapic_timer_count(l, port_now()) : reg < LAPIC_REGS ? lapic_get(l, reg) : 0;
}

/* The registers that can be written in both modes, and are the same in both. Returns false for others. */
static bool write_common(struct lapic *l, unsigned reg, u32 val)
{
	if (reg == REG_TPR)
		lapic_put(l, REG_TPR, val & 0xff);
	else if (reg == REG_EOI)
		eoi(l);
	else if (reg == REG_SVR)
		write_svr(l, val);
	else if (reg >= REG_LVT_TIMER && reg <= REG_LVT_ERROR)
		write_lvt(l, reg, val, l->enabled);
	else if (reg == REG_INITIAL || reg == REG_DIVIDE)
		lapic_timer_write(l, reg, reg == REG_DIVIDE ? val & 0xb : val);
	else
		return reg == REG_ESR;
	return true;
}

static void xapic_write(struct lapic *l, unsigned reg, u32 val)
{
	if (reg == REG_ICR)
		write_icr(l, val, lapic_get(l, REG_ICR_HI));
	else if (reg == REG_ICR_HI || reg == REG_LDR)
		lapic_put(l, reg, val & 0xff000000);
	else if (reg == REG_DFR)
		lapic_put(l, reg, val | 0x0fffffff);
	else
		write_common(l, reg, val);
}

void lapic_written(struct lapic *l, unsigned offset)
{
	unsigned reg = offset / 16;

	if (reg == REG_ID)
		lapic_put(l, REG_ID, l->vcpu << 24);
	else if (reg == REG_ESR)
		lapic_put(l, REG_ESR, 0);
	else
		xapic_write(l, reg, lapic_get(l, reg));
}

void lapic_mmio(struct lapic *l, struct bus_op *op)
{
	unsigned reg = (op->addr & 0xfff) / 16, byte = op->addr & 15;

	/* Only the first 4 of 16 bytes are a register, whatever part of them is read. */
	if (!op->write)
		op->val = byte < 4 ? read_register(l, reg) >> byte * 8 : 0;
	else if (op->size == 4 && byte == 0)
		xapic_write(l, reg, (u32)op->val);
}

static bool x2apic_write(struct lapic *l, unsigned reg, u64 val)
{
	u64 reserved = reg == REG_ICR                          ? ICR_RESERVED
		       : reg == REG_EOI || reg == REG_ESR      ? ~0ul
		       : reg == REG_TPR || reg == REG_SELF_IPI ? ~0xfful
							       : BITS(63, 32);

	if (val & reserved)
		return false;
	if (reg == REG_ICR)
		write_icr(l, (u32)val, (u32)(val >> 32));
	else if (reg == REG_SELF_IPI)
		send_ipi(l, APIC_SELF << 18 | (u32)val, 0);
	else
		return write_common(l, reg, (u32)val);
	return true;
}

/*
 * Ids as the mode shows them. The x2APIC's logical one is not chosen by software: 16 APICs a cluster (SDM vol. 3,
 * 11.12.10.2).
 */
static void set_ids(struct lapic *l)
{
	lapic_put(l, REG_ID, in_x2apic(l) ? l->vcpu : l->vcpu << 24);
	lapic_put(l, REG_LDR, in_x2apic(l) ? l->vcpu >> 4 << 16 | 1u << (l->vcpu & 15) : 0);
}

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
		set_ids(l);
	return 0;
}

int lapic_rdmsr(struct lapic *l, u32 msr, u64 *val)
{
	unsigned reg = msr - MSR_X2APIC_FIRST;

	if (msr == MSR_APIC_BASE) {
		*val = l->base;
	} else if (msr == MSR_TSC_DEADLINE) {
		*val = lapic_timer_deadline(l, port_now());
	} else if (in_x2apic(l) && reg < 64 && (READABLE & BIT(reg))) {
		*val = read_register(l, reg);
		if (reg == REG_ICR)
			*val |= (u64)lapic_get(l, REG_ICR_HI) << 32;
	} else {
		return -EINVAL;
	}
	return 0;
}

int lapic_wrmsr(struct lapic *l, u32 msr, u64 val)
{
	if (msr == MSR_APIC_BASE)
		return write_base(l, val);
	if (msr == MSR_TSC_DEADLINE) {
		lapic_timer_set_deadline(l, val);
		return 0;
	}
	return in_x2apic(l) && x2apic_write(l, msr - MSR_X2APIC_FIRST, val) ? 0 : -EINVAL;
}

void lapic_reset(struct lapic *l, bool init)
{
	if (!init) {
		l->base = LAPIC_DEFAULT_BASE | LAPIC_BASE_ENABLE | (l->vcpu == 0 ? LAPIC_BASE_BSP : 0);
		atomic_store(&l->events, 0);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(l->posted); i++)
		atomic_store(&l->posted[i], 0);
	for (unsigned i = 0; i < ARRAY_SIZE(l->level); i++)
		atomic_store(&l->level[i], 0);
	for (unsigned reg = 0; reg < LAPIC_REGS; reg++)
		atomic_store(lapic_reg(l, reg), reg >= REG_LVT_TIMER && reg <= REG_LVT_ERROR ? LVT_MASKED : 0);
	l->rvi = l->svi = 0;
	l->moved = true;
	lapic_put(l, REG_VERSION, LAPIC_VERSION);
	lapic_put(l, REG_SVR, 0xff);
	lapic_put(l, REG_DFR, 0xffffffff);
	set_ids(l);
	if (!init && l->vcpu == 0) {
		lapic_put(l, REG_LVT_LINT0, APIC_EXTINT << 8);
		lapic_put(l, REG_LVT_LINT1, APIC_NMI << 8);
	}
	atomic_store_relaxed(&l->enabled, false);
	l->lvt = LVT_MASKED;
	l->initial = l->divide = 0;
	l->tsc_deadline = 0;
	timer_set(&l->timer, TIMER_NEVER);
}

void lapic_init(struct lapic *l, struct platform *p, unsigned vcpu, struct timerq *q, const struct guest_clock *clock)
{
	*l = (struct lapic){.platform = p, .vcpu = vcpu, .clock = clock};
	timer_init(&l->timer, q, lapic_timer_fired, l);
	lapic_reset(l, false);
}
