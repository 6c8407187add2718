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

static void test_cmos(void **state)
{
	struct cmos_time bcd = {
		.second = 0x59, .minute = 0x59, .hour = 0x23, .day = 0x31, .month = 0x12, .year = 0x99, .status_b = 2};
	struct cmos_time bin = {.second = 40, .minute = 46, .hour = 1, .day = 9, .month = 9, .year = 1, .status_b = 6};
	struct cmos_time leap = {.hour = 0x12, .day = 0x29, .month = 2, .year = 0x24};
	u64 s;

	(void)state;
	assert_true(cmos_decode(&bcd, &s));
	assert_int_equal(s, 4102444799ul); /* 2099-12-31 23:59:59 */
	assert_true(cmos_decode(&bin, &s));
	assert_int_equal(s, 1000000000ul); /* 2001-09-09 01:46:40 */
	assert_true(cmos_decode(&leap, &s));
	assert_int_equal(s, 1709164800ul); /* 2024-02-29 12 am is midnight */
	leap.hour = 0x92;
	assert_true(cmos_decode(&leap, &s));
	assert_int_equal(s, 1709208000ul); /* 12 pm is noon */
	leap.hour = 0x81;
	leap.day = 1;
	leap.month = 3;
	assert_true(cmos_decode(&leap, &s));
	assert_int_equal(s, 1709298000ul); /* 2024-03-01 13:00 */
}

static void test_cmos_nonsense(void **state)
{
	const struct cmos_time good = {
		.second = 1, .minute = 1, .hour = 1, .day = 1, .month = 1, .year = 1, .status_b = 2};
	u8 all_ones[sizeof(good)];
	u64 s;

	(void)state;
	assert_true(cmos_decode(&good, &s));
	for (unsigned i = 0; i < 6; i++) { /* each field in turn: no BCD, then a value out of range */
		struct cmos_time t = good;

		((u8 *)&t)[i] = 0x1a;
		assert_false(cmos_decode(&t, &s));
		((u8 *)&t)[i] = 0xff;
		assert_false(cmos_decode(&t, &s));
	}
	for (unsigned i = 0; i < sizeof(good); i++)
		all_ones[i] = 0xff;
	assert_false(cmos_decode((const struct cmos_time *)all_ones, &s));
	assert_false(cmos_decode(&(struct cmos_time){.month = 0, .day = 1, .status_b = 2}, &s));
	assert_false(cmos_decode(&(struct cmos_time){.month = 1, .day = 0, .status_b = 2}, &s));
	assert_false(
		cmos_decode(&(struct cmos_time){.month = 1, .day = 1, .hour = 0, .status_b = 0}, &s)); /* 12 h: 1..12 */
	assert_false(cmos_decode(&(struct cmos_time){.month = 1, .day = 1, .hour = 0x13, .status_b = 0}, &s));
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
