/* SPDX-License-Identifier: MIT */
/* Clocks: the 8254, the RTC, the ACPI PM timer; and that none of them drifts. */
#include "tests/unit/pc.h"

static void sets_pit(struct pc *pc, u8 control, u16 count)
{
	unsigned n = control >> 6;

	out8(pc, 0x43, control);
	if (control & 0x10)
		out8(pc, (u16)(0x40 + n), (u8)count);
	if (control & 0x20)
		out8(pc, (u16)(0x40 + n), (u8)(count >> 8));
}

static u16 pit_count(struct pc *pc, unsigned n)
{
	u16 lo;

	out8(pc, 0x43, (u8)(n << 6)); /* latch */
	lo = in8(pc, (u16)(0x40 + n));
	return (u16)(lo | in8(pc, (u16)(0x40 + n)) << 8);
}

static bool out2(struct pc *pc) { return in8(pc, 0x61) & 0x20; }

/* Moves to the first nanosecond of the PIT tick that is n after the one of now. */
static void pass_ticks(struct pc *pc, u64 n)
{
	u64 tick = ns_to_ticks(port_now(), PIT_HZ) + n;

	pc_pass(pc, ticks_to_ns(tick, PIT_HZ) - port_now());
}

static void conversions_are_exact(void **state)
{
	static const u32 rates[] = {PIT_HZ, PM_HZ, RTC_HZ};

	for (unsigned i = 0; i < ARRAY_SIZE(rates); i++) {
		for (u64 t = 1; t < 1ull << 45; t = t * 7 + 1) {
			u64 ns = ticks_to_ns(t, rates[i]);

			assert_int_equal(ns_to_ticks(ns, rates[i]), t);
			assert_int_equal(ns_to_ticks(ns - 1, rates[i]), t - 1);
		}
		assert_int_equal(ns_to_ticks(SEC * 86400 * 365, rates[i]), rates[i] * 86400ull * 365);
	}
}

static void pit_counts_down(void **state)
{
	struct pc *pc = pc_new();

	sets_pit(pc, 0x34, 1000);
	pass_ticks(pc, 300);
	assert_int_equal(pit_count(pc, 0), 700);
	pass_ticks(pc, 999);
	assert_int_equal(pit_count(pc, 0), 701); /* mode 2 starts over */
	sets_pit(pc, 0x36, 1000);
	pass_ticks(pc, 300);
	assert_int_equal(pit_count(pc, 0), 400); /* mode 3 counts by two */
	sets_pit(pc, 0x30, 1000);
	pass_ticks(pc, 1300);
	assert_int_equal(pit_count(pc, 0), 0x10000 - 300); /* mode 0 goes on */
	sets_pit(pc, 0x30, 0);
	assert_int_equal(pit_count(pc, 0), 0);
	pass_ticks(pc, 1);
	assert_int_equal(pit_count(pc, 0), 0xffff);
	sets_pit(pc, 0x14, 0x50); /* low byte only */
	pass_ticks(pc, 0x10);
	assert_int_equal(in8(pc, 0x40), 0x40);
	assert_int_equal(in8(pc, 0x40), 0x40);
	sets_pit(pc, 0x24, 0x5000); /* high byte only */
	pass_ticks(pc, 0x1000);
	assert_int_equal(in8(pc, 0x40), 0x40);
	pc_free(pc);
}

static void pit_latches(void **state)
{
	struct pc *pc = pc_new();

	sets_pit(pc, 0xb4, 0x1234);
	out8(pc, 0x61, 1);
	out8(pc, 0x43, 0x80);
	pass_ticks(pc, 0x34);
	out8(pc, 0x43, 0x80); /* latched already: ignored */
	assert_int_equal(in8(pc, 0x42), 0x34);
	assert_int_equal(in8(pc, 0x42), 0x12);
	assert_int_equal(in8(pc, 0x42), 0x00); /* live again */
	assert_int_equal(in8(pc, 0x42), 0x12);
	out8(pc, 0x43, 0xc8); /* no read-back */
	assert_int_equal(in8(pc, 0x43), 0xff);
	pc_free(pc);
}

static void pit_gate_and_output(void **state)
{
	struct pc *pc = pc_new();

	out8(pc, 0x61, 0);
	sets_pit(pc, 0xb0, 100); /* mode 0, gate closed */
	pass_ticks(pc, 1000);
	assert_false(out2(pc));
	assert_int_equal(pit_count(pc, 2), 100);
	out8(pc, 0x61, 1); /* GRUB loads first, and opens then */
	pass_ticks(pc, 60);
	out8(pc, 0x61, 1);
	assert_int_equal(pit_count(pc, 2), 40);
	pass_ticks(pc, 39);
	assert_false(out2(pc));
	pass_ticks(pc, 1);
	assert_true(out2(pc));
	pass_ticks(pc, 100000);
	assert_true(out2(pc));
	/* mode 1 starts with the gate */
	sets_pit(pc, 0xb2, 100);
	out8(pc, 0x61, 0);
	out8(pc, 0x61, 1);
	pass_ticks(pc, 99);
	assert_false(out2(pc));
	pass_ticks(pc, 1);
	assert_true(out2(pc));
	/* mode 3: half and half, high while stopped */
	sets_pit(pc, 0xb6, 100);
	pass_ticks(pc, 49);
	assert_true(out2(pc));
	pass_ticks(pc, 1);
	assert_false(out2(pc));
	out8(pc, 0x61, 0);
	assert_true(out2(pc));
	pass_ticks(pc, 77);
	out8(pc, 0x61, 3); /* starts over */
	assert_int_equal(pit_count(pc, 2), 100);
	assert_int_equal(in8(pc, 0x61) & 0xf, 3);
	/* the refresh bit toggles */
	u8 first = in8(pc, 0x61) & 0x10;

	pc_pass(pc, 15085);
	assert_int_not_equal(in8(pc, 0x61) & 0x10, first);
	pc_free(pc);
}

/* Linux's quick_pit_calibrate and mach_counter polls: the high byte of channel 2 in mode 0, read without latching. */
static void pit_calibrates_the_tsc(void **state)
{
	struct pc *pc = pc_new();
	u64 start, ns;

	out8(pc, 0x61, (u8)((in8(pc, 0x61) & ~2) | 1));
	sets_pit(pc, 0xb0, 0xffff);
	in8(pc, 0x42);
	assert_int_equal(in8(pc, 0x42), 0xff);
	start = port_now();
	for (u8 want = 0xfe; want > 0xc0; want--) {
		unsigned polls = 0;
		u8 msb;

		do {
			pc_pass(pc, 1500);
			in8(pc, 0x42);
			msb = in8(pc, 0x42);
			assert_true(msb == want || msb == want + 1);
		} while (msb != want && ++polls < 1000);
	}
	ns = port_now() - start;
	assert_in_range(ns, 62 * 214550ull - 3000, 62 * 214550ull + 3000);
	pc_free(pc);
}

static unsigned irqs(struct pc *pc)
{
	unsigned n = 0;

	while (take(pc, 0) >= 0) {
		n++;
		out8(pc, 0x20, 0x20);
	}
	return n;
}

static struct pc *pc_with_irq0(void)
{
	struct pc *pc = pc_new();

	pic_start(pc);
	out8(pc, 0x21, 0xfe);
	return pc;
}

static void pit_does_not_drift(void **state)
{
	struct pc *pc = pc_with_irq0();
	unsigned n = 0;
	u64 end;

	sets_pit(pc, 0x34, 11932); /* 100 Hz, nearly */
	end = port_now() + 3600 * SEC;
	while (pc->q.next <= end) {
		pc_sleep(pc, pc->q.next - port_now());
		n += irqs(pc);
	}
	assert_int_equal(n, 3600ull * PIT_HZ / 11932);
	pc_free(pc);
}

static void pit_interrupts_by_mode(void **state)
{
	struct pc *pc = pc_with_irq0();

	sets_pit(pc, 0x30, 1000);
	assert_int_equal(irqs(pc), 0);
	pass_ticks(pc, 999);
	assert_int_equal(irqs(pc), 0);
	pass_ticks(pc, 1);
	assert_int_equal(irqs(pc), 1);
	pass_ticks(pc, 200000);
	assert_int_equal(irqs(pc), 0);
	sets_pit(pc, 0x38, 1000); /* one-shot as Linux uses it */
	pass_ticks(pc, 1000);
	assert_int_equal(irqs(pc), 1);
	out8(pc, 0x40, 500 & 0xff); /* again, without a control word */
	out8(pc, 0x40, 500 >> 8);
	pass_ticks(pc, 500);
	assert_int_equal(irqs(pc), 1);
	sets_pit(pc, 0x36, 1000);
	for (unsigned i = 0; i < 5; i++) {
		pass_ticks(pc, 1000);
		assert_int_equal(irqs(pc), 1);
	}
	pc_sleep(pc, SEC); /* all the missed ones are one */
	assert_int_equal(irqs(pc), 1);
	sets_pit(pc, 0x14, 1);
	assert_true(pc->q.next - port_now() >= GUEST_PERIOD_MIN_NS);
	out8(pc, 0x43, 0x30); /* control word alone: stops */
	assert_true(pc->q.next == TIMER_NEVER);
	pc_free(pc);
}

/* A count so short that it is over before the timer is armed for it: its interrupt was lost. */
static void pit_counts_of_one_interrupt(void **state)
{
	struct pc *pc = pc_with_irq0();

	for (u16 count = 1; count < 4; count++) {
		host_set_now_step(2000);
		sets_pit(pc, 0x30, count);
		host_set_now(port_now());
		assert_true(pc->q.next != TIMER_NEVER);
		pass_ticks(pc, 4);
		assert_int_equal(irqs(pc), 1);
	}
	pc_free(pc);
}

static u8 cmos(struct pc *pc, u8 reg)
{
	out8(pc, 0x70, reg | 0x80); /* with NMIs masked, as Linux does it */
	return in8(pc, 0x71);
}

static void set_cmos(struct pc *pc, u8 reg, u8 val)
{
	out8(pc, 0x70, reg);
	out8(pc, 0x71, val);
}

static void check_time(struct pc *pc, const u8 *want)
{
	static const u8 regs[] = {0x32, 9, 8, 7, 6, 4, 2, 0};

	for (unsigned i = 0; i < ARRAY_SIZE(regs); i++)
		assert_int_equal(cmos(pc, regs[i]), want[i]);
}

#define TIME(...) ((const u8[]){__VA_ARGS__})

static void rtc_tells_the_time(void **state)
{
	struct pc *pc = pc_new();

	assert_int_equal(cmos(pc, 0x0d), 0x80);
	assert_int_equal(cmos(pc, 0x0b), 2);
	check_time(pc, TIME(0x20, 0x26, 0x11, 0x21, 7, 0x12, 0x34, 0x56));
	pc_pass(pc, 4 * SEC);
	check_time(pc, TIME(0x20, 0x26, 0x11, 0x21, 7, 0x12, 0x35, 0x00));
	set_cmos(pc, 0x0b, 6); /* binary */
	check_time(pc, TIME(20, 26, 11, 21, 7, 12, 35, 0));
	set_cmos(pc, 0x0b, 0); /* 12 hours: there is no such mode */
	assert_int_equal(cmos(pc, 0x0b), 2);
	pc_pass(pc, 12 * 3600 * SEC);
	assert_int_equal(cmos(pc, 4), 0);
	assert_int_equal(cmos(pc, 7), 0x22);
	assert_int_equal(cmos(pc, 6), 1);
	pc_free(pc);
}

static void set_time(struct pc *pc, const u8 *t)
{
	static const u8 regs[] = {0x32, 9, 8, 7, 6, 4, 2, 0};
	u8 b = cmos(pc, 0x0b), a = cmos(pc, 0x0a) & 0x7f;

	set_cmos(pc, 0x0b, b | 0x80);
	set_cmos(pc, 0x0a, a | 0x70);
	for (unsigned i = 0; i < ARRAY_SIZE(regs); i++)
		set_cmos(pc, regs[i], t[i]);
	set_cmos(pc, 0x0b, b);
	set_cmos(pc, 0x0a, a);
}

static void rtc_is_set(void **state)
{
	struct pc *pc = pc_new();

	set_time(pc, TIME(0x20, 0x24, 0x02, 0x28, 1, 0x23, 0x59, 0x58));
	check_time(pc, TIME(0x20, 0x24, 0x02, 0x28, 4, 0x23, 0x59, 0x58));
	pc_pass(pc, SEC / 2 - 1000000);
	assert_int_equal(cmos(pc, 0), 0x58);
	pc_pass(pc, 1000000 + 100000); /* the first update is half a second after the divider starts */
	assert_int_equal(cmos(pc, 0), 0x59);
	pc_pass(pc, SEC);
	check_time(pc, TIME(0x20, 0x24, 0x02, 0x29, 5, 0, 0, 0)); /* a leap year */
	pc_pass(pc, 86400 * SEC);
	check_time(pc, TIME(0x20, 0x24, 0x03, 0x01, 6, 0, 0, 0));
	set_time(pc, TIME(0x19, 0x99, 0x12, 0x31, 1, 0x23, 0x59, 0x59));
	pc_pass(pc, SEC);
	check_time(pc, TIME(0x20, 0x00, 0x01, 0x01, 7, 0, 0, 0));
	set_cmos(pc, 2, 0x30); /* without SET */
	check_time(pc, TIME(0x20, 0x00, 0x01, 0x01, 7, 0, 0x30, 0));
	/* frozen while SET */
	set_cmos(pc, 0x0b, 0x82);
	set_cmos(pc, 0, 0x11);
	pc_pass(pc, 10 * SEC);
	assert_int_equal(cmos(pc, 0), 0x11);
	set_cmos(pc, 0x0b, 0x02);
	assert_int_equal(cmos(pc, 0), 0x11);
	pc_free(pc);
}

/* Dates that do not exist are carried or cut, and nothing overflows. */
static void rtc_takes_nonsense(void **state)
{
	struct pc *pc = pc_new();

	for (unsigned b = 0; b <= 6; b += 2) {
		for (unsigned fill = 0; fill < 256; fill += 5) {
			set_cmos(pc, 0x0b, (u8)(0x80 | b));
			for (u8 reg = 0; reg < 0x80; reg++)
				if (reg < 10 || reg > 13)
					set_cmos(pc, reg, (u8)fill);
			set_cmos(pc, 0x0b, (u8)b);
			for (u8 reg = 0; reg < 0x80; reg++)
				cmos(pc, reg);
			pc_pass(pc, SEC);
		}
	}
	set_cmos(pc, 0x0b, 2);
	set_time(pc, TIME(0, 0, 0, 0, 0, 0, 0, 0));
	assert_int_equal(cmos(pc, 0x32), 0x19);
	assert_int_equal(cmos(pc, 9), 0x70);
	pc_free(pc);
}

static void rtc_shows_update_in_progress(void **state)
{
	struct pc *pc = pc_new();
	unsigned seen = 0, changed_within = 0;

	for (unsigned i = 0; i < 30000; i++) {
		u8 before = cmos(pc, 0);
		bool uip = cmos(pc, 0x0a) & 0x80;

		seen += uip;
		pc_pass(pc, 100000);
		changed_within += !uip && cmos(pc, 0) != before;
	}
	assert_in_range(seen, 6, 9); /* 244 us of each of 3 seconds */
	assert_int_equal(changed_within, 0);
	pc_free(pc);
}

static struct pc *pc_with_irq8(void)
{
	struct pc *pc = pc_new();

	pic_start(pc);
	out8(pc, 0x21, 0xfb);
	out8(pc, 0xa1, 0xfe);
	return pc;
}

static unsigned rtc_irqs(struct pc *pc, u8 *flags)
{
	unsigned n = 0;

	*flags = 0;
	while (take(pc, 0) >= 0) {
		n++;
		*flags |= cmos(pc, 0x0c);
		out8(pc, 0xa0, 0x20);
		out8(pc, 0x20, 0x20);
	}
	return n;
}

static void rtc_interrupts(void **state)
{
	struct pc *pc = pc_with_irq8();
	unsigned n = 0;
	u8 flags;

	assert_true(pc->q.next == TIMER_NEVER); /* nobody waits: no timer */
	cmos(pc, 0x0c);
	set_cmos(pc, 0x0b, 0x12); /* update ended */
	for (unsigned i = 0; i < 20; i++) {
		pc_pass(pc, SEC / 4);
		unsigned got = rtc_irqs(pc, &flags);

		n += got;
		assert_true(!got || (flags & 0x90) == 0x90);
	}
	assert_int_equal(n, 5);
	set_cmos(pc, 0x0b, 0x42); /* periodic, 1024 Hz */
	rtc_irqs(pc, &flags);
	n = 0;
	for (unsigned i = 0; i < 10000; i++) {
		pc_pass(pc, 100000);
		n += rtc_irqs(pc, &flags);
	}
	assert_in_range(n, 1023, 1025);
	/* unread, it does not come again, and costs nothing */
	pc_pass(pc, SEC);
	assert_true(pc->q.next == TIMER_NEVER);
	assert_int_equal(rtc_irqs(pc, &flags), 1);
	set_cmos(pc, 0x0a, 0x20); /* rate 0: none */
	assert_true(pc->q.next == TIMER_NEVER);
	set_cmos(pc, 0x0a, 0x21); /* rates 1 and 2 are 256 and 128 Hz */
	n = 0;
	for (unsigned i = 0; i < 1000; i++) {
		pc_pass(pc, MS);
		n += rtc_irqs(pc, &flags);
	}
	assert_in_range(n, 255, 257);
	pc_free(pc);
}

static void rtc_alarm(void **state)
{
	struct pc *pc = pc_with_irq8();
	u8 flags;

	set_cmos(pc, 1, 0x05);
	set_cmos(pc, 3, 0x35);
	set_cmos(pc, 5, 0xc0); /* any hour */
	cmos(pc, 0x0c);
	set_cmos(pc, 0x0b, 0x22);
	pc_pass(pc, 8 * SEC);
	assert_int_equal(rtc_irqs(pc, &flags), 0);
	pc_pass(pc, 2 * SEC);
	assert_int_equal(rtc_irqs(pc, &flags), 1);
	assert_int_equal(flags & 0xa0, 0xa0);
	pc_pass(pc, 3599 * SEC);
	assert_int_equal(rtc_irqs(pc, &flags), 1);
	pc_free(pc);
}

static void pm_timer_counts(void **state)
{
	struct pc *pc = pc_new();
	u32 first = in32(pc, PM_TMR_PORT);

	for (unsigned i = 0; i < 1000; i++)
		pc_pass(pc, 1000003);
	assert_in_range(in32(pc, PM_TMR_PORT) - first, 3579555, 3579556); /* 1.000003 s */
	out32(pc, PM_TMR_PORT, 0);                                        /* read-only */
	assert_in_range(in32(pc, PM_TMR_PORT) - first, 3579555, 3579556);
	pc_pass(pc, 1200 * SEC); /* wraps at 32 bits */
	assert_int_equal(in32(pc, PM_TMR_PORT), (u32)ns_to_ticks(port_now(), PM_HZ));
	assert_int_equal(in16(pc, PM_TMR_PORT), (u16)ns_to_ticks(port_now(), PM_HZ));
	pc_free(pc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(conversions_are_exact),
		cmocka_unit_test(pit_counts_down),
		cmocka_unit_test(pit_latches),
		cmocka_unit_test(pit_gate_and_output),
		cmocka_unit_test(pit_calibrates_the_tsc),
		cmocka_unit_test(pit_does_not_drift),
		cmocka_unit_test(pit_interrupts_by_mode),
		cmocka_unit_test(pit_counts_of_one_interrupt),
		cmocka_unit_test(rtc_tells_the_time),
		cmocka_unit_test(rtc_is_set),
		cmocka_unit_test(rtc_takes_nonsense),
		cmocka_unit_test(rtc_shows_update_in_progress),
		cmocka_unit_test(rtc_interrupts),
		cmocka_unit_test(rtc_alarm),
		cmocka_unit_test(pm_timer_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
