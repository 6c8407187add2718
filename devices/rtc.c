/* SPDX-License-Identifier: MIT */
/*
 * The MC146818 clock and its CMOS memory. Time registers are made from the clock when they are read, and frozen while
 * the guest sets them. The flags of register C are brought up to date when someone looks; the timer is armed only for
 * an interrupt that is enabled and not yet pending.
 */
#include "devices/chips.h"
#include "devices/clock.h"
#include "lib/port.h"

#define INDEX_PORT 0x70
#define RTC_IRQ    8

enum { SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, DAY, MONTH, YEAR };
enum { REG_A = 10, REG_B, REG_C, REG_D };

#define A_UIP        0x80
#define A_RESET      0x60 /* both bits: the divider is held in reset */
#define B_SET        0x80
#define B_BINARY     0x04
#define B_24H        0x02
#define C_IRQ        0x80
#define C_PERIODIC   0x40 /* the same bits enable in B */
#define C_ALARM      0x20
#define C_UPDATE     0x10
#define D_VALID      0x80
#define HOUR_PM      0x80
#define ALARM_ANY    0xc0
#define UIP_TICKS    8            /* 244 us before an update */
#define FIRST_UPDATE (RTC_HZ / 2) /* after the divider's reset */
#define SECS_PER_DAY 86400

static u64 ticks(void) { return ns_to_ticks(port_now(), RTC_HZ); }

static u64 seconds(const struct rtc *r, u64 t) { return (t - r->base_tick) / RTC_HZ; }

/* log2 of the ticks between periodic interrupts, 0 for none. */
static unsigned period_shift(const struct rtc *r)
{
	unsigned rate = r->a & 0xf;

	return rate == 0 ? 0 : rate <= 2 ? rate + 6 : rate - 1;
}

static u8 encode(const struct rtc *r, unsigned v) { return (u8)(r->b & B_BINARY ? v : v / 10 << 4 | v % 10); }

static unsigned decode(const struct rtc *r, u8 v) { return r->b & B_BINARY ? v : (v >> 4) * 10u + (v & 15); }

static u8 encode_hour(const struct rtc *r, unsigned h)
{
	if (r->b & B_24H)
		return encode(r, h);
	return encode(r, (h + 11) % 12 + 1) | (h >= 12 ? HOUR_PM : 0);
}

static unsigned decode_hour(const struct rtc *r, u8 v)
{
	if (r->b & B_24H)
		return decode(r, v);
	return decode(r, v & ~HOUR_PM) % 12 + (v & HOUR_PM ? 12 : 0);
}

/* Time registers of t. Days to date: years begin in March, so that leap days come last, in eras of 400 years. */
static void show_time(struct rtc *r, u64 t)
{
	u64 now = r->base_secs + seconds(r, t), days = now / SECS_PER_DAY + 719468;
	unsigned secs = (unsigned)(now % SECS_PER_DAY), in_era = (unsigned)(days % 146097);
	unsigned year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
	unsigned in_year = in_era - (365 * year + year / 4 - year / 100);
	unsigned month = (5 * in_year + 2) / 153; /* from March */
	unsigned full = (unsigned)(days / 146097) * 400 + year + (month >= 10);

	r->ram[SECONDS] = encode(r, secs % 60);
	r->ram[MINUTES] = encode(r, secs / 60 % 60);
	r->ram[HOURS] = encode_hour(r, secs / 3600);
	r->ram[WEEKDAY] = encode(r, (unsigned)((days + 3) % 7) + 1); /* Sunday is 1 */
	r->ram[DAY] = encode(r, in_year - (153 * month + 2) / 5 + 1);
	r->ram[MONTH] = encode(r, month < 10 ? month + 3 : month - 9);
	r->ram[YEAR] = encode(r, full % 100);
	r->ram[RTC_CENTURY] = encode(r, full / 100 % 100);
}

/* The inverse; what is out of range is carried or cut. The sub-second phase stays. */
static void take_time(struct rtc *r, u64 t)
{
	unsigned month = MIN(MAX(decode(r, r->ram[MONTH]), 1u), 12u);
	unsigned full = decode(r, r->ram[RTC_CENTURY]) * 100 + decode(r, r->ram[YEAR]);
	unsigned year = MAX(full, 1970u) - (month <= 2), in_era = year % 400;
	unsigned in_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + MAX(decode(r, r->ram[DAY]), 1u);
	u64 days = year / 400 * 146097ul + in_era * 365 + in_era / 4 - in_era / 100 + in_year;
	u64 secs = decode_hour(r, r->ram[HOURS]) * 3600 + decode(r, r->ram[MINUTES]) * 60 + decode(r, r->ram[SECONDS]);

	r->base_secs = (days - 1 - 719468) * SECS_PER_DAY + secs;
	r->base_tick = t - (t - r->base_tick) % RTC_HZ;
	r->seen = t;
}

static bool alarm_matches(struct rtc *r, u64 t)
{
	show_time(r, t);
	for (unsigned reg = SECONDS; reg <= HOURS; reg += 2)
		if (r->ram[reg + 1] < ALARM_ANY && r->ram[reg + 1] != r->ram[reg])
			return false;
	return true;
}

/* Brings register C's flags and the interrupt line up to date, and arms the timer for what comes next. */
static void update(struct platform *p)
{
	struct rtc *r = &p->rtc;
	u64 t = ticks(), next = TIMER_NEVER;
	unsigned shift = period_shift(r);

	if (shift && t >> shift != r->seen >> shift)
		r->c |= C_PERIODIC;
	if (!(r->b & B_SET) && seconds(r, t) != seconds(r, r->seen))
		r->c |= C_UPDATE | (alarm_matches(r, t) ? C_ALARM : 0);
	r->seen = t;
	r->c = (r->c & 0x7f) | (r->c & r->b & 0x70 ? C_IRQ : 0);
	platform_irq(p, RTC_IRQ, r->c & C_IRQ);
	if (!(r->c & C_IRQ)) {
		if (shift && r->b & C_PERIODIC)
			next = ((t >> shift) + 1) << shift;
		if (r->b & (C_ALARM | C_UPDATE) && !(r->b & B_SET))
			next = MIN(next, r->base_tick + (seconds(r, t) + 1) * RTC_HZ);
	}
	timer_set(&r->timer, next == TIMER_NEVER ? TIMER_NEVER : ticks_to_ns(next, RTC_HZ));
}

static void fired(void *platform)
{
	struct platform *p = platform;

	lock_take(&p->lock);
	update(p);
	lock_drop(&p->lock);
}

static bool is_time(unsigned reg) { return reg == RTC_CENTURY || (reg <= YEAR && (reg >= WEEKDAY || !(reg & 1))); }

static u8 read_a(const struct rtc *r, u64 t)
{
	bool uip = !(r->b & B_SET) && (t - r->base_tick) % RTC_HZ >= RTC_HZ - UIP_TICKS;

	return r->a | (uip ? A_UIP : 0);
}

static u8 read_register(struct platform *p)
{
	struct rtc *r = &p->rtc;
	u8 val;

	switch (r->index) {
	case REG_A:
		return read_a(r, ticks());
	case REG_B:
		return r->b;
	case REG_C:
		update(p);
		val = r->c;
		r->c = 0;
		update(p);
		return val;
	case REG_D:
		return D_VALID;
	}
	if (is_time(r->index) && !(r->b & B_SET))
		show_time(r, ticks());
	return r->ram[r->index];
}

static void write_a(struct rtc *r, u8 val, u64 t)
{
	if ((r->a & A_RESET) == A_RESET && (val & A_RESET) != A_RESET) {
		r->base_secs += seconds(r, t);
		r->base_tick = t - FIRST_UPDATE;
		r->seen = t;
	}
	r->a = val & ~A_UIP;
}

static void write_b(struct rtc *r, u8 val, u64 t)
{
	if (val & B_SET) {
		val &= ~C_UPDATE;
		if (!(r->b & B_SET))
			show_time(r, t);
	} else if (r->b & B_SET) {
		take_time(r, t);
	}
	r->b = val;
}

static void write_register(struct platform *p, u8 val)
{
	struct rtc *r = &p->rtc;
	u64 t = ticks();
	bool running = !(r->b & B_SET);

	update(p);
	if (r->index == REG_A) {
		write_a(r, val, t);
	} else if (r->index == REG_B) {
		write_b(r, val, t);
	} else if (is_time(r->index) && running) {
		show_time(r, t);
		r->ram[r->index] = val;
		take_time(r, t);
	} else if (r->index != REG_C && r->index != REG_D) {
		r->ram[r->index] = val;
	}
	update(p);
}

/* Bit 7 of the index port masks NMIs, which is nobody's business here. */
void rtc_io(void *platform, struct bus_op *op)
{
	struct platform *p = platform;

	if (op->addr == INDEX_PORT && op->write)
		p->rtc.index = op->val & 0x7f;
	else if (op->addr != INDEX_PORT && op->write)
		write_register(p, (u8)op->val);
	else if (op->addr != INDEX_PORT)
		op->val = read_register(p);
}

void rtc_init(struct platform *p, struct timerq *q, u64 epoch)
{
	struct rtc *r = &p->rtc;

	r->a = 0x26; /* 32768 Hz, periodic rate 1024 Hz */
	r->b = B_24H;
	r->base_tick = r->seen = ticks();
	r->base_secs = epoch;
	timer_init(&r->timer, q, fired, p);
}
