/* SPDX-License-Identifier: MIT */
/* The arithmetic behind time: scaling, its inverse, wrapping counters, claims, the CMOS clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arch/x86/cpu/calibrate.h"
#include "arch/x86/cpu/cmos.c"

static void test_mul_div(void **state)
{
	(void)state;
	assert_int_equal(mul_div(7, 3, 2, false), 10);
	assert_int_equal(mul_div(7, 3, 2, true), 11);
	assert_int_equal(mul_div(8, 3, 2, true), 12);
	assert_int_equal(mul_div(~0ul, ~0ul, ~0ul, true), ~0ul);
	assert_int_equal(mul_div(~0ul, 2, 1, false), ~0ul);                      /* does not fit */
	assert_int_equal(mul_div(5, 5, 0, false), ~0ul);                         /* no division by zero */
	assert_int_equal(mul_div(1ul << 63, 2, 3, false), 0x5555555555555555ul); /* a product of 65 bits */
}

/* Without an exact inverse a deadline's tick reads as slightly before the deadline, more so the longer the machine is
 * up. */
static void test_inverse_is_never_early(void **state)
{
	static const u64 hz[] = {1000000, 19995000, 1000000000, 2596132000, 3579545000, 5800000000};
	static const u64 ns[] = {0, 1, 999, 1000000007, 86400000000000, 31536000000000000, 3153600000000000000};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(hz); i++)
		for (unsigned j = 0; j < ARRAY_SIZE(ns); j++) {
			u64 mul = clock_mul(hz[i]), ticks = clock_ticks(ns[j], mul);

			assert_true(clock_ns(ticks, mul) >= ns[j]);
			assert_true(ticks == 0 || clock_ns(ticks - 1, mul) < ns[j]);
		}
}

static void test_scale_is_accurate(void **state)
{
	u64 mul = clock_mul(3000000000ul), ns = clock_ns(3000000000ul * 86400, mul); /* a day of 3 GHz */

	(void)state;
	assert_in_range(ns, 86400ul * NS_PER_SECOND - 100000, 86400ul * NS_PER_SECOND);
}

static void test_far_deadline_saturates(void **state)
{
	(void)state;
	assert_int_equal(clock_ticks(~0ul, clock_mul(5000000000ul)), ~0ul);
}

static void test_counter_wraps(void **state)
{
	(void)state;
	assert_int_equal(unwrap(0, 0x123456, 0xffffff), 0x123456);
	assert_int_equal(unwrap(0xfffff0, 0x000010, 0xffffff), 0x1000010);
	assert_int_equal(unwrap(0x1000010, 0x000010, 0xffffff), 0x1000010);
	assert_int_equal(unwrap(0x1fffffff0, 5, ~0u), 0x200000005);
}

/* Bochs' CPUID 15h tells a frequency that its TSC does not have. */
static void test_claims(void **state)
{
	(void)state;
	assert_true(claim_holds(2000100000, 2000000000));
	assert_true(claim_holds(1999900000, 2000000000));
	assert_false(claim_holds(20000000, 3500000000));
	assert_false(claim_holds(3500000000, 20000000));
	assert_false(claim_holds(1000000000, 0));
}

/* Second, minute, hour, day, month, year and status B, at their places in the clock. */
static bool decode(const u8 field[7], u64 *seconds)
{
	static const u8 place[] = {0, 2, 4, 7, 8, 9, CMOS_STATUS_B};
	u8 reg[CMOS_REGS] = {0};

	for (unsigned i = 0; i < ARRAY_SIZE(place); i++)
		reg[place[i]] = field[i];
	return cmos_decode(reg, seconds);
}

static void test_cmos(void **state)
{
	const u8 bcd[] = {0x59, 0x59, 0x23, 0x31, 0x12, 0x99, 2}, bin[] = {40, 46, 1, 9, 9, 1, 6};
	u8 leap[] = {0, 0, 0x12, 0x29, 2, 0x24, 0};
	u64 s;

	(void)state;
	assert_true(decode(bcd, &s));
	assert_int_equal(s, 4102444799ul); /* 2099-12-31 23:59:59 */
	assert_true(decode(bin, &s));
	assert_int_equal(s, 1000000000ul); /* 2001-09-09 01:46:40 */
	assert_true(decode(leap, &s));
	assert_int_equal(s, 1709164800ul); /* 2024-02-29 12 am is midnight */
	leap[2] = 0x92;
	assert_true(decode(leap, &s));
	assert_int_equal(s, 1709208000ul); /* 12 pm is noon */
	leap[2] = 0x81;
	leap[3] = 1;
	leap[4] = 3;
	assert_true(decode(leap, &s));
	assert_int_equal(s, 1709298000ul); /* 2024-03-01 13:00 */
}

static void test_cmos_nonsense(void **state)
{
	const u8 good[] = {1, 1, 1, 1, 1, 1, 2}, all_ones[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	u64 s;

	(void)state;
	assert_true(decode(good, &s));
	for (unsigned i = 0; i < 6; i++) { /* each field in turn: no BCD, then a value out of range */
		u8 t[7];

		for (unsigned j = 0; j < sizeof(t); j++)
			t[j] = j == i ? 0x1a : good[j];
		assert_false(decode(t, &s));
		t[i] = 0xff;
		assert_false(decode(t, &s));
	}
	assert_false(decode(all_ones, &s));
	assert_false(decode((const u8[]){0, 0, 0, 1, 0, 0, 2}, &s));
	assert_false(decode((const u8[]){0, 0, 0, 0, 1, 0, 2}, &s));
	assert_false(decode((const u8[]){0, 0, 0x13, 1, 1, 0, 0}, &s)); /* 12 h */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mul_div),
		cmocka_unit_test(test_inverse_is_never_early),
		cmocka_unit_test(test_scale_is_accurate),
		cmocka_unit_test(test_far_deadline_saturates),
		cmocka_unit_test(test_counter_wraps),
		cmocka_unit_test(test_claims),
		cmocka_unit_test(test_cmos),
		cmocka_unit_test(test_cmos_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
