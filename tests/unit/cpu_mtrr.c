/* SPDX-License-Identifier: MIT */
/* Memory types by the MTRRs: fixed, variable, default, overlaps, and where a type ends. */
#include "arch/x86/cpu/mtrr.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { UC = 0, WC = 1, WT = 4 };

/* What firmware sets on a PC with 8 GB: UC by default, RAM write-back, the hole below 4 GB by omission. */
static struct mtrrs pc(void)
{
	struct mtrrs m = {.def = MTRR_ON | MTRR_FIXED_ON | UC, .pairs = 4};

	for (unsigned i = 0; i < 11; i++)
		m.fixed[i] = i == 2 ? 0 : 0x0606060606060606; /* 0xa0000-0xbffff: video memory */
	m.pair[0][0] = 0 | MTRR_WB;
	m.pair[0][1] = BITS(39, 31) | MTRR_PAIR_VALID; /* 2 GB */
	m.pair[1][0] = 2 * GB | MTRR_WB;
	m.pair[1][1] = BITS(39, 30) | MTRR_PAIR_VALID; /* 1 GB */
	m.pair[2][0] = 4 * GB | MTRR_WB;
	m.pair[2][1] = BITS(39, 32) | MTRR_PAIR_VALID; /* 4 GB */
	return m;
}

static void off(void **state)
{
	struct mtrrs m = pc();

	m.def = UC;
	assert_true(mtrr_is_wb(&m, 0xa0000));
	assert_true(mtrr_is_wb(&m, 3 * GB));
}

static void fixed(void **state)
{
	struct mtrrs m = pc();

	assert_true(mtrr_is_wb(&m, 0));
	assert_true(mtrr_is_wb(&m, 0x9ffff));
	assert_false(mtrr_is_wb(&m, 0xa0000));
	assert_false(mtrr_is_wb(&m, 0xbffff));
	assert_true(mtrr_is_wb(&m, 0xc0000));
	m.fixed[0] = 0x06060606060600ul << 8 | 6; /* 0x10000-0x1ffff */
	assert_true(mtrr_is_wb(&m, 0xffff));
	assert_false(mtrr_is_wb(&m, 0x10000));
	m.fixed[10] = 0x01ul << 56 | 0x06060606060606; /* the last page */
	assert_true(mtrr_is_wb(&m, 0xfefff));
	assert_false(mtrr_is_wb(&m, 0xff000));
	m.def &= ~(u64)MTRR_FIXED_ON; /* then the variable ones hold here too */
	assert_true(mtrr_is_wb(&m, 0xa0000));
}

static void variable(void **state)
{
	struct mtrrs m = pc();

	assert_true(mtrr_is_wb(&m, 3 * GB - 1));
	assert_false(mtrr_is_wb(&m, 3 * GB));
	assert_false(mtrr_is_wb(&m, 4 * GB - 1));
	assert_true(mtrr_is_wb(&m, 4 * GB));
	assert_false(mtrr_is_wb(&m, 8 * GB));
	m.def |= MTRR_WB;
	assert_true(mtrr_is_wb(&m, 8 * GB));
	m.pair[2][1] &= ~MTRR_PAIR_VALID;
	m.def &= ~0xfful;
	assert_false(mtrr_is_wb(&m, 4 * GB));
}

static void overlaps(void **state)
{
	static const u8 t[][2] = {{MTRR_WB, UC}, {UC, MTRR_WB}, {MTRR_WB, WT}, {WT, MTRR_WB}, {WC, MTRR_WB}, {WC, WC}};
	struct mtrrs m = pc();

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		m.pair[0][0] = t[i][0];
		m.pair[3][0] = 1 * GB | t[i][1];
		m.pair[3][1] = BITS(39, 20) | MTRR_PAIR_VALID; /* 1 MB */
		assert_false(mtrr_is_wb(&m, 1 * GB));
		assert_false(mtrr_is_wb(&m, 1 * GB + MB - 1));
		assert_int_equal(mtrr_is_wb(&m, 1 * GB + MB), t[i][0] == MTRR_WB);
	}
}

/* A range's end is where the type changes, however many registers it goes through; and each page agrees with it. */
static void ends(void **state)
{
	struct mtrrs m = pc();

	assert_int_equal(mtrr_end(&m, 0, 16 * GB), 0xa0000);
	assert_int_equal(mtrr_end(&m, 0xa0000, 16 * GB), 0xc0000);
	assert_int_equal(mtrr_end(&m, 0xc0000, 16 * GB), 3 * GB);
	assert_int_equal(mtrr_end(&m, 0xc0000, 1 * GB), 1 * GB);
	assert_int_equal(mtrr_end(&m, 3 * GB, 16 * GB), 4 * GB);
	assert_int_equal(mtrr_end(&m, 4 * GB, 16 * GB), 8 * GB);
	m.pair[3][0] = 0x12300000 | UC;
	m.pair[3][1] = BITS(39, 12) | MTRR_PAIR_VALID; /* one page */
	assert_int_equal(mtrr_end(&m, 0x12000000, 1 * GB), 0x12300000);
	assert_int_equal(mtrr_end(&m, 0x12300000, 1 * GB), 0x12301000);
	for (hpa_t at = 0x12000000; at < 0x12800000; at += PAGE_SIZE)
		assert_int_equal(mtrr_is_wb(&m, at), at != 0x12300000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(off), cmocka_unit_test(fixed), cmocka_unit_test(variable),
					   cmocka_unit_test(overlaps), cmocka_unit_test(ends)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
