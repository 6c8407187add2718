/* SPDX-License-Identifier: MIT */
/*
 * The 8254 timer and port 61. No channel counts by itself: count and output follow from the clock and the tick at
 * which the count was loaded, so polling loops see a real timer and nothing drifts. Only channel 0 has an interrupt.
 *
 * Modes: 0 interrupt on terminal count, 1 one-shot by gate, 2 rate generator, 3 square wave, 4 strobe, 5 strobe by
 * gate.
 */
#include "devices/chips.h"
#include "devices/clock.h"
#include "lib/port.h"

#define CONTROL        3
#define REFRESH_NS     15085 /* port 61 bit 4 toggles at the rate at which a PC refreshed its memory */
#define PERIOD_MIN     24    /* ticks: GUEST_PERIOD_MIN_NS */
#define STATUS_NULL    0x40
#define GATED(mode)    ((mode) == 1 || (mode) == 5) /* wait for the gate to rise; others stop while it is low */
#define PERIODIC(mode) ((mode) == 2 || (mode) == 3)

static u64 ticks(void) { return ns_to_ticks(port_now(), PIT_HZ); }

static u64 elapsed(const struct pit_channel *c) { return c->gate || GATED(c->mode) ? ticks() - c->start : c->held; }

static unsigned from_bcd(unsigned v) { return (v >> 12) * 1000 + (v >> 8 & 15) * 100 + (v >> 4 & 15) * 10 + (v & 15); }

static unsigned to_bcd(unsigned v) { return v / 1000 % 10 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10; }

static u16 current_count(const struct pit_channel *c)
{
	u64 e, value, wrap = c->bcd ? 10000 : 0x10000;

	if (!c->loaded)
		return 0;
	e = elapsed(c);
	if (c->mode == 2)
		value = c->reload - e % c->reload;
	else if (c->mode == 3)
		value = (c->reload - 2 * e % c->reload) & ~1ul;
	else
		value = c->reload + wrap - e % wrap;
	value %= wrap;
	return (u16)(c->bcd ? to_bcd((unsigned)value) : value);
}

static bool output(const struct pit_channel *c)
{
	u64 e = c->loaded ? elapsed(c) : 0;

	if (!c->loaded || (GATED(c->mode) && !c->triggered) || (PERIODIC(c->mode) && !c->gate))
		return c->mode != 0;
	switch (c->mode) {
	case 0:
	case 1:
		return e >= c->reload;
	case 2:
		return e % c->reload != c->reload - 1;
	case 3:
		return e % c->reload < (c->reload + 1) / 2;
	default:
		return e != c->reload;
	}
}

/*
 * Arms the timer for the next rise of channel 0's output after e ticks of its count. Ticks missed by then are one
 * interrupt; the phase is kept. A new count passes 0, for the shortest are over before we get here.
 */
static void arm(struct platform *p, u64 e)
{
	struct pit *pit = &p->pit;
	const struct pit_channel *c = &pit->ch[0];

	pit->next_edge = TIMER_NEVER;
	if (c->loaded && PERIODIC(c->mode)) {
		if (c->reload < PERIOD_MIN)
			e += PERIOD_MIN;
		pit->next_edge = c->start + (e / c->reload + 1) * c->reload;
	} else if (c->loaded && !GATED(c->mode) && e < c->reload) {
		pit->next_edge = c->start + c->reload;
	}
	timer_set(&pit->timer, pit->next_edge == TIMER_NEVER ? TIMER_NEVER : ticks_to_ns(pit->next_edge, PIT_HZ));
}

static void fired(void *platform)
{
	struct platform *p = platform;

	lock_take(&p->lock);
	if (ticks() >= p->pit.next_edge) {
		platform_irq(p, 0, false);
		platform_irq(p, 0, true);
		arm(p, elapsed(&p->pit.ch[0]));
	}
	lock_drop(&p->lock);
}

/* Loads a count; the rise of channel 0's output at its end will be an interrupt. */
static void load(struct platform *p, unsigned n, unsigned count)
{
	struct pit_channel *c = &p->pit.ch[n];

	if (c->bcd)
		c->reload = count ? from_bcd(count) : 10000;
	else
		c->reload = count ? count : 0x10000;
	c->loaded = true;
	c->start = ticks();
	c->held = 0;
	if (n == 0)
		arm(p, 0);
}

static void write_count(struct platform *p, unsigned n, u8 val)
{
	struct pit_channel *c = &p->pit.ch[n];

	if (c->access == 1) {
		load(p, n, val);
	} else if (c->access == 2) {
		load(p, n, (unsigned)val << 8);
	} else if (c->write_hi) {
		c->write_hi = false;
		load(p, n, (unsigned)val << 8 | c->write_lo);
	} else {
		c->write_lo = val;
		c->write_hi = true;
	}
}

static void latch_count(struct pit_channel *c)
{
	if (!c->count_latched)
		c->latch = current_count(c);
	c->count_latched = true;
}

static void latch_status(struct pit_channel *c)
{
	if (!c->status_latched)
		c->status =
			(u8)(output(c) << 7 | (c->loaded ? 0 : STATUS_NULL) | c->access << 4 | c->mode << 1 | c->bcd);
	c->status_latched = true;
}

static void read_back(struct pit *pit, u8 val)
{
	for (unsigned n = 0; n < 3; n++) {
		if (!(val & 2 << n))
			continue;
		if (!(val & 0x20))
			latch_count(&pit->ch[n]);
		if (!(val & 0x10))
			latch_status(&pit->ch[n]);
	}
}

static void write_control(struct platform *p, u8 val)
{
	unsigned n = val >> 6, access = val >> 4 & 3, mode = val >> 1 & 7;
	struct pit_channel *c = &p->pit.ch[n];

	if (n == 3) {
		read_back(&p->pit, val);
	} else if (access == 0) {
		latch_count(c);
	} else {
		c->access = (u8)access;
		c->mode = (u8)(mode > 5 ? mode - 4 : mode);
		c->bcd = val & 1;
		c->loaded = c->triggered = c->write_hi = c->read_hi = false;
		c->count_latched = c->status_latched = false;
		if (n == 0) {
			platform_irq(p, 0, false);
			arm(p, 0);
		}
	}
}

static u8 read_count(struct pit_channel *c)
{
	u16 count;
	bool high = c->access == 2 || (c->access == 3 && c->read_hi);

	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	count = c->count_latched ? c->latch : current_count(c);
	if (c->access == 3)
		c->read_hi = !c->read_hi;
	if (high || c->access == 1)
		c->count_latched = false;
	return (u8)(high ? count >> 8 : count);
}

void pit_io(void *platform, struct bus_op *op)
{
	struct platform *p = platform;
	unsigned n = op->addr & 3;

	if (!op->write)
		op->val = n == CONTROL ? 0xff : read_count(&p->pit.ch[n]);
	else if (n == CONTROL)
		write_control(p, (u8)op->val);
	else
		write_count(p, n, (u8)op->val);
}

static void set_gate(struct pit_channel *c, bool gate)
{
	if (gate == c->gate)
		return;
	if (!gate)
		c->held = elapsed(c);
	else if (c->mode == 0 || c->mode == 4)
		c->start = ticks() - c->held;
	else
		c->start = ticks();
	c->triggered |= gate;
	c->gate = gate;
}

void port61_io(void *platform, struct bus_op *op)
{
	struct pit *pit = &((struct platform *)platform)->pit;

	if (op->write) {
		pit->port61 = op->val & 0xf;
		set_gate(&pit->ch[2], op->val & 1);
	} else {
		op->val = pit->port61 | (port_now() / REFRESH_NS & 1) << 4 | (u64)output(&pit->ch[2]) << 5;
	}
}

void pit_init(struct platform *p, struct timerq *q)
{
	for (unsigned n = 0; n < 3; n++)
		p->pit.ch[n] = (struct pit_channel){.access = 3, .mode = 3, .gate = n != 2, .reload = 0x10000};
	p->pit.next_edge = TIMER_NEVER;
	timer_init(&p->pit.timer, q, fired, p);
}
