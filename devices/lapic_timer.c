/* SPDX-License-Identifier: MIT */
/*
 * The local APIC's timer. Its count is never stored but follows from the clock and the time at which it began, so that
 * it costs nothing while nobody looks; the host timer is armed only for an interrupt that would be delivered.
 */
#include "devices/lapic_regs.h"

#include "devices/clock.h"
#include "lib/bits.h"
#include "lib/port.h"

enum timer_mode { ONE_SHOT, PERIODIC, TSC_DEADLINE };

static unsigned mode_of(u32 lvt) { return (lvt >> 17) & 3; }
static unsigned mode(const struct lapic *l) { return mode_of(l->reg[REG_LVT_TIMER]); }

/* log2 of ns per count: the divide register has 0 for 2 .. 6 for 128, 7 for 1, in bits 3, 1 and 0. */
static unsigned shift(const struct lapic *l)
{
	return (((l->reg[REG_DIVIDE] & 3) | ((l->reg[REG_DIVIDE] >> 1) & 4)) + 1) & 7;
}

static u64 period(const struct lapic *l) { return (u64)l->reg[REG_INITIAL] << shift(l); }

static u64 deadline_ns(const struct lapic *l)
{
	u64 ns = scale_up(l->tsc_deadline, 1000000, l->clock->tsc_khz);

	return ns > TIMER_NEVER - 1 - l->clock->start_ns ? TIMER_NEVER : l->clock->start_ns + ns;
}

static u32 count_at(const struct lapic *l, u64 now)
{
	u64 ns = period(l), ran = now - l->timer_start;

	if (ns == 0)
		return 0;
	if (mode(l) == PERIODIC)
		ran %= ns;
	return ran < ns ? l->reg[REG_INITIAL] - (u32)(ran >> shift(l)) : 0;
}

static void deliver(struct lapic *l)
{
	l->tsc_deadline = 0;
	if (!(l->reg[REG_LVT_TIMER] & LVT_MASKED))
		lapic_post(l, (u8)l->reg[REG_LVT_TIMER], false);
}

/* The end of the count that runs at now, or TIMER_NEVER. */
static u64 count_end(const struct lapic *l, u64 now)
{
	u64 ns = period(l), ran = now - l->timer_start;

	if (ns == 0 || (mode(l) == ONE_SHOT && ran >= ns))
		return TIMER_NEVER;
	if (mode(l) == ONE_SHOT)
		return l->timer_start + ns;
	if (ns < GUEST_PERIOD_MIN_NS)
		ran += GUEST_PERIOD_MIN_NS;
	return l->timer_start + (ran / ns + 1) * ns;
}

static u64 next_interrupt(const struct lapic *l, u64 now)
{
	if (l->reg[REG_LVT_TIMER] & LVT_MASKED)
		return TIMER_NEVER;
	if (mode(l) == TSC_DEADLINE)
		return l->tsc_deadline ? deadline_ns(l) : TIMER_NEVER;
	return mode(l) <= PERIODIC ? count_end(l, now) : TIMER_NEVER;
}

/*
 * now: when the count was looked at or loaded. A change reads the clock once: a later look could find the count over,
 * and nobody would be told.
 */
static void arm(struct lapic *l, u64 now)
{
	u64 when = next_interrupt(l, now);

	if (when <= now) { /* a deadline that has passed */
		deliver(l);
		when = TIMER_NEVER;
	}
	timer_set(&l->timer, when);
}

void lapic_timer_fired(void *lapic)
{
	struct lapic *l = lapic;

	deliver(l);
	if (mode(l) == PERIODIC)
		arm(l, port_now());
}

/* Zero once it has passed, which nobody may have noticed while the LVT entry was masked. */
static u64 deadline_at(const struct lapic *l, u64 now)
{
	return l->tsc_deadline && deadline_ns(l) > now ? l->tsc_deadline : 0;
}

u64 lapic_timer_deadline(const struct lapic *l) { return deadline_at(l, port_now()); }

/* Before the LVT entry or the rate change: what is due, though the host timer has not run yet, is due as it was. */
static u64 settle(struct lapic *l)
{
	u64 now = port_now();

	if (l->timer.when <= now)
		lapic_timer_fired(l);
	return now;
}

/* Into and out of deadline mode the timer is disarmed (SDM vol. 3, 11.5.4.1). */
void lapic_timer_set_lvt(struct lapic *l, u32 lvt)
{
	u64 now = settle(l);

	if ((mode_of(lvt) == TSC_DEADLINE) != (mode(l) == TSC_DEADLINE)) {
		l->reg[REG_INITIAL] = 0;
		l->tsc_deadline = 0;
	}
	l->tsc_deadline = deadline_at(l, now);
	l->reg[REG_LVT_TIMER] = lvt;
	arm(l, now);
}

void lapic_timer_set_initial(struct lapic *l, u32 count)
{
	if (mode(l) == TSC_DEADLINE)
		return;
	l->reg[REG_INITIAL] = count;
	l->timer_start = port_now();
	arm(l, l->timer_start);
}

/* The count goes on from where it is, at the new rate. */
void lapic_timer_set_divide(struct lapic *l, u32 divide)
{
	u64 now = settle(l), counted = l->reg[REG_INITIAL] - count_at(l, now);

	l->reg[REG_DIVIDE] = divide & 0xb;
	l->timer_start = now - (counted << shift(l));
	arm(l, now);
}

void lapic_timer_set_deadline(struct lapic *l, u64 tsc)
{
	if (mode(l) != TSC_DEADLINE)
		return;
	l->tsc_deadline = tsc;
	arm(l, port_now());
}

u32 lapic_timer_count(const struct lapic *l) { return count_at(l, port_now()); }
