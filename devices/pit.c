/* SPDX-License-Identifier: MIT */
/*
 * The 8254 timer and port 61. No channel counts by itself: count and output follow from the clock and the tick at
 * which the count was loaded, so polling loops see a real timer and nothing drifts. Only channel 0 has an interrupt,
 * and only channel 2 a gate, whose rise starts the count anew.
 *
 * Modes: 0 interrupt on terminal count, 1 one-shot by gate, 2 rate generator, 3 square wave, 4 strobe, 5 strobe by
 * gate. Binary only, without the read-back command; a strobe of one tick is not seen in the output.
 */
#include "devices/chips.h"
#include "devices/clock.h"
#include "lib/port.h"

/* Port 61 bit 4 toggles at the rate at which a PC refreshed its memory. PERIOD_MIN: GUEST_PERIOD_MIN_NS in ticks. */
enum { CONTROL = 3, REFRESH_NS = 15085, PERIOD_MIN = 24 };
#define PERIODIC(mode) ((mode) == 2 || (mode) == 3)

enum { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };

static u64 ticks(void) { return ns_to_ticks(port_now(), PIT_HZ); }

static u64 elapsed(const struct pit_channel *c) { return c->gate ? ticks() - c->start : 0; }

static u16 current_count(const struct pit_channel *c)
{
	u64 e = elapsed(c);

	if (!c->loaded)
		return 0;
	if (c->mode == 2)
		e %= c->reload;
	if (c->mode == 3)
		return (c->reload - 2 * e % c->reload) & 0xfffe;
	return (u16)(c->reload - e);
}

static bool output(const struct pit_channel *c)
{
	if (!c->loaded || !c->gate)
		return c->mode != 0;
	if (c->mode <= 1)
		return elapsed(c) >= c->reload;
	return c->mode != 3 || elapsed(c) % c->reload < (c->reload + 1) / 2;
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
	if (c->loaded && PERIODIC(c->mode))
		pit->next_edge = c->start + ((c->reload < PERIOD_MIN ? e + PERIOD_MIN : e) / c->reload + 1) * c->reload;
	else if (c->loaded && e < c->reload)
		pit->next_edge = c->start + c->reload;
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

/* A whole count is loaded; the rise of channel 0's output at its end will be an interrupt. */
static void write_count(struct platform *p, unsigned n, u8 val)
{
	struct pit_channel *c = &p->pit.ch[n];
	u32 count = c->access == ACCESS_LOW ? val : (u32)val << 8 | c->write_lo;

	c->write_hi = c->access == ACCESS_BOTH && !c->write_hi;
	if (c->write_hi) {
		c->write_lo = val;
		return;
	}
	c->reload = count ? count : 0x10000;
	c->loaded = true;
	c->start = ticks();
	if (n == 0)
		arm(p, 0);
}

static void write_control(struct platform *p, u8 val)
{
	unsigned n = val >> 6, access = val >> 4 & 3, mode = val >> 1 & 7;
	struct pit_channel *c = &p->pit.ch[n];

	if (n == CONTROL)
		return;
	if (access == ACCESS_LATCH) {
		if (!c->latched)
			c->latch = current_count(c);
		c->latched = true;
		return;
	}
	*c = (struct pit_channel){.access = (u8)access, .gate = c->gate, .reload = c->reload};
	c->mode = (u8)(mode > 5 ? mode - 4 : mode);
	if (n == 0) {
		platform_irq(p, 0, false);
		arm(p, 0);
	}
}

static u8 read_count(struct pit_channel *c)
{
	u16 count = c->latched ? c->latch : current_count(c);
	bool high = c->access == ACCESS_HIGH || c->read_hi;

	c->read_hi = c->access == ACCESS_BOTH && !c->read_hi;
	c->latched &= c->read_hi;
	return (u8)(high ? count >> 8 : count);
}

void pit_io(void *platform, struct bus_op *op)
{
	struct platform *p = platform;
	unsigned n = op->addr & 3;

	if (op->write && n == CONTROL)
		write_control(p, (u8)op->val);
	else if (op->write)
		write_count(p, n, (u8)op->val);
	else if (n != CONTROL)
		op->val = read_count(&p->pit.ch[n]);
}

void port61_io(void *platform, struct bus_op *op)
{
	struct pit *pit = &((struct platform *)platform)->pit;
	struct pit_channel *c = &pit->ch[2];

	if (!op->write) {
		op->val = pit->port61 | (port_now() / REFRESH_NS & 1) << 4 | (u64)output(c) << 5;
		return;
	}
	pit->port61 = op->val & 0xf;
	if (!c->gate)
		c->start = ticks();
	c->gate = op->val & 1;
}

void pit_init(struct platform *p, struct timerq *q)
{
	for (unsigned n = 0; n < 3; n++)
		p->pit.ch[n] =
			(struct pit_channel){.access = ACCESS_BOTH, .mode = 3, .gate = n != 2, .reload = 0x10000};
	p->pit.next_edge = TIMER_NEVER;
	timer_init(&p->pit.timer, q, fired, p);
}
