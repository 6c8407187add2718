/* SPDX-License-Identifier: MIT */
/*
 * The MC146818 clock and its CMOS memory. Time registers are made from the clock when they are read, and frozen while
 * the guest sets them. The flags of register C are brought up to date when someone looks; the timer is armed only for
 * an interrupt that is enabled and not yet pending. Hours are always 0 to 23.
 */
#include "devices/chips.h"
#include "devices/clock.h"
#include "lib/port.h"

enum { INDEX_PORT = 0x70, RTC_IRQ = 8 };

enum { SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, DAY, MONTH, YEAR };
enum { REG_A = 10, REG_B, REG_C, REG_D };

enum { A_UIP = 0x80, B_SET = 0x80, B_BINARY = 0x04, B_24H = 0x02, D_VALID = 0x80, ALARM_ANY = 0xc0 };
enum { C_IRQ = 0x80, C_PERIODIC = 0x40, C_ALARM = 0x20, C_UPDATE = 0x10 }; /* the same bits enable in B */

#define UIP_TICKS    8 /* 244 us before an update */
#define SECS_PER_DAY 86400u
#define MARCH_0000   719468u /* days from there to 1970 */

static u64 ticks(const struct rtc *r) { return r->zero + ns_to_ticks(port_now(), RTC_HZ); }

/* log2 of the ticks between periodic interrupts, 0 for none. */
static unsigned period_shift(const struct rtc *r)
{
	unsigned rate = r->ram[REG_A] & 0xf;

	return rate == 0 ? 0 : rate <= 2 ? rate + 6 : rate - 1;
}

static u8 encode(const struct rtc *r, unsigned v) { return (u8)(r->ram[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10); }

static unsigned decode(const struct rtc *r, unsigned reg)
{
	u8 v = r->ram[reg];

	return r->ram[REG_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
}

/* Time registers of t. Days to date: years begin in March, so that leap days come last, in eras of 400 years. */
static void show_time(struct rtc *r, u64 t)
{
	u64 now = t / RTC_HZ, days = now / SECS_PER_DAY + MARCH_0000;
	unsigned secs = (unsigned)(now % SECS_PER_DAY), in_era = (unsigned)(days % 146097);
	unsigned year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
	unsigned in_year = in_era - (365 * year + year / 4 - year / 100);
	unsigned month = (5 * in_year + 2) / 153; /* from March */
	unsigned full = (unsigned)(days / 146097) * 400 + year + (month >= 10);

	r->ram[SECONDS] = encode(r, secs % 60);
	r->ram[MINUTES] = encode(r, secs / 60 % 60);
	r->ram[HOURS] = encode(r, secs / 3600);
	r->ram[WEEKDAY] = encode(r, (unsigned)((days + 3) % 7) + 1); /* Sunday is 1 */
	r->ram[DAY] = encode(r, in_year - (153 * month + 2) / 5 + 1);
	r->ram[MONTH] = encode(r, month < 10 ? month + 3 : month - 9);
	r->ram[YEAR] = encode(r, full % 100);
	r->ram[RTC_CENTURY] = encode(r, full / 100 % 100);
}

/* The inverse; what is out of range is carried or cut. The first second ends half a second later, as in the chip. */
static void take_time(struct rtc *r)
{
	unsigned month = MIN(MAX(decode(r, MONTH), 1u), 12u);
	unsigned full = decode(r, RTC_CENTURY) * 100 + decode(r, YEAR);
	unsigned year = MAX(full, 1970u) - (month <= 2), in_era = year % 400;
	unsigned in_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + MAX(decode(r, DAY), 1u);
	u64 days = year / 400 * 146097ul + in_era * 365 + in_era / 4 - in_era / 100 + in_year;
	u64 secs = decode(r, HOURS) * 3600 + decode(r, MINUTES) * 60 + decode(r, SECONDS);

	r->seen = ((days - 1 - MARCH_0000) * SECS_PER_DAY + secs) * RTC_HZ + RTC_HZ / 2;
	r->zero += r->seen - ticks(r);
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
	u64 t = ticks(r), next = TIMER_NEVER;
	unsigned shift = period_shift(r);

	if (shift && t >> shift != r->seen >> shift)
		r->ram[REG_C] |= C_PERIODIC;
	if (!(r->ram[REG_B] & B_SET) && t / RTC_HZ != r->seen / RTC_HZ)
		r->ram[REG_C] |= C_UPDATE | (alarm_matches(r, t) ? C_ALARM : 0);
	r->seen = t;
	r->ram[REG_C] = (r->ram[REG_C] & 0x7f) | (r->ram[REG_C] & r->ram[REG_B] & 0x70 ? C_IRQ : 0);
	platform_irq(p, RTC_IRQ, r->ram[REG_C] & C_IRQ);
	if (!(r->ram[REG_C] & C_IRQ)) {
		if (shift && r->ram[REG_B] & C_PERIODIC)
			next = ((t >> shift) + 1) << shift;
		if (r->ram[REG_B] & (C_ALARM | C_UPDATE) && !(r->ram[REG_B] & B_SET))
			next = MIN(next, (t / RTC_HZ + 1) * RTC_HZ);
	}
	timer_set(&r->timer, next == TIMER_NEVER ? TIMER_NEVER : ticks_to_ns(next - r->zero, RTC_HZ));
}

static void fired(void *platform)
{
	struct platform *p = platform;

	lock_take(&p->lock);
	update(p);
	lock_drop(&p->lock);
}

static bool is_time(unsigned reg) { return reg == RTC_CENTURY || (reg <= YEAR && (reg >= WEEKDAY || !(reg & 1))); }

static u8 read_register(struct platform *p)
{
	struct rtc *r = &p->rtc;
	bool running = !(r->ram[REG_B] & B_SET);
	u64 t = ticks(r);
	u8 val;

	if (is_time(r->index) && running)
		show_time(r, t);
	if (r->index == REG_A && running && t % RTC_HZ >= RTC_HZ - UIP_TICKS)
		return r->ram[REG_A] | A_UIP;
	if (r->index != REG_C)
		return r->ram[r->index];
	update(p);
	val = r->ram[REG_C];
	r->ram[REG_C] = 0;
	update(p);
	return val;
}

static void write_b(struct rtc *r, u8 val)
{
	if (r->ram[REG_B] & ~val & B_SET)
		take_time(r);
	else if (~r->ram[REG_B] & val & B_SET)
		show_time(r, ticks(r));
	r->ram[REG_B] = val & B_SET ? val & ~C_UPDATE : val;
	r->ram[REG_B] |= B_24H;
}

static void write_register(struct platform *p, u8 val)
{
	struct rtc *r = &p->rtc;

	update(p);
	if (is_time(r->index) && !(r->ram[REG_B] & B_SET)) {
		show_time(r, ticks(r));
		r->ram[r->index] = val;
		take_time(r);
	} else if (r->index == REG_B) {
		write_b(r, val);
	} else if (r->index != REG_C && r->index != REG_D) {
		r->ram[r->index] = r->index == REG_A ? val & ~A_UIP : val;
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

	r->ram[REG_D] = D_VALID;
	r->ram[REG_A] = 0x26; /* 32768 Hz, periodic rate 1024 Hz */
	r->ram[REG_B] = B_24H;
	r->seen = epoch * RTC_HZ;
	r->zero = r->seen - ns_to_ticks(port_now(), RTC_HZ);
	timer_init(&r->timer, q, fired, p);
}
