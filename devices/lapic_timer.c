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
static unsigned mode(const struct lapic *l) { return mode_of(l->lvt); }

/* log2 of ns per count: the divide register has 0 for 2 .. 6 for 128, 7 for 1, in bits 3, 1 and 0. */
static unsigned shift(const struct lapic *l) { return (((l->divide & 3) | ((l->divide >> 1) & 4)) + 1) & 7; }

static u64 period(const struct lapic *l) { return (u64)l->initial << shift(l); }

static u64 deadline_ns(const struct lapic *l)
{
	u64 ns = mul_div(l->tsc_deadline, 1000000, l->clock->tsc_khz, true);

	return ns > TIMER_NEVER - 1 - l->clock->start_ns ? TIMER_NEVER : l->clock->start_ns + ns;
}

u32 lapic_timer_count(const struct lapic *l, u64 now)
{
	u64 ns = period(l), ran = now - l->timer_start;

	if (ns == 0)
		return 0;
	if (mode(l) == PERIODIC)
		ran %= ns;
	return ran < ns ? l->initial - (u32)(ran >> shift(l)) : 0;
}

static void deliver(struct lapic *l)
{
	l->tsc_deadline = 0;
	if (!(l->lvt & LVT_MASKED))
		lapic_post(l, (u8)l->lvt, false);
}

/* The time of the next interrupt that would be delivered, or TIMER_NEVER. */
static u64 next_interrupt(const struct lapic *l, u64 now)
{
	u64 ns = period(l), ran = now - l->timer_start;

	if (l->lvt & LVT_MASKED)
		return TIMER_NEVER;
	if (mode(l) == TSC_DEADLINE)
		return l->tsc_deadline ? deadline_ns(l) : TIMER_NEVER;
	if (ns == 0 || mode(l) > PERIODIC || (mode(l) == ONE_SHOT && ran >= ns))
		return TIMER_NEVER;
	if (mode(l) == PERIODIC && ns < GUEST_PERIOD_MIN_NS)
		ran += GUEST_PERIOD_MIN_NS;
	return l->timer_start + (ran / ns + 1) * ns;
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
u64 lapic_timer_deadline(const struct lapic *l, u64 now)
{
	return l->tsc_deadline && deadline_ns(l) > now ? l->tsc_deadline : 0;
}

/*
 * What is due by then, though the host timer has not run yet, is due as it was. Into and out of deadline mode the timer
 * is disarmed (SDM vol. 3, 11.5.4.1). At another rate the count goes on from where it is.
 */
void lapic_timer_write(struct lapic *l, unsigned reg, u32 val)
{
	u64 now = port_now(), counted;
	bool deadline = mode(l) == TSC_DEADLINE;

	if (reg == REG_INITIAL && deadline) {
		lapic_put(l, reg, 0);
		return;
	}
	if (l->timer.when <= now)
		lapic_timer_fired(l);
	if (reg == REG_LVT_TIMER && (mode_of(val) == TSC_DEADLINE) != deadline) {
		lapic_put(l, REG_INITIAL, 0);
		l->initial = 0;
		l->tsc_deadline = 0;
	}
	l->tsc_deadline = lapic_timer_deadline(l, now);
	counted = reg == REG_DIVIDE ? l->initial - lapic_timer_count(l, now) : 0;
	lapic_put(l, reg, val);
	*(reg == REG_LVT_TIMER ? &l->lvt : reg == REG_DIVIDE ? &l->divide : &l->initial) = val;
	if (reg != REG_LVT_TIMER)
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
