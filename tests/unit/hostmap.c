/* SPDX-License-Identifier: MIT */
#include "mm/hostmap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/port.h"
#include "mm/frames.h"
#include "mm/pt.h"
#include "tests/host/host.h"

/* The table as a CPU reads it, without the engine's help. */
static u64 raw_at(u64 va, unsigned *level)
{
	u64 *table = port_virt(hostmap_root()), raw;

	for (*level = 4;; --*level) {
		raw = table[(va >> (3 + 9 * *level)) & 511];
		if (*level == 1 || !(raw & 1) || (raw & 0x80))
			return raw;
		table = port_virt(raw & PT_ADDR);
	}
}

static void assert_raw(u64 va, u64 expected, unsigned expected_level)
{
	unsigned level;
	u64 raw = raw_at(va, &level);

	assert_int_equal(raw, expected);
	assert_int_equal(level, expected_level);
}

static int setup(void **state)
{
	(void)state;
	host_machine(32 * MB);
	return hostmap_init(ORDER_1G, true);
}

static void the_image_is_write_xor_execute(void **state)
{
	(void)state;
	assert_int_equal(hostmap_map(IMAGE_BASE, 0x200000, 0x3000, HOST_RX, HOST_WB), 0);
	assert_int_equal(hostmap_map(IMAGE_BASE + 0x3000, 0x203000, 0x1000, HOST_R, HOST_WB), 0);
	assert_int_equal(hostmap_map(IMAGE_BASE + 0x4000, 0x204000, 0x1000, HOST_RW, HOST_WB), 0);
	assert_raw(IMAGE_BASE + 0x2000, 0x0000000000202121, 1);
	assert_raw(IMAGE_BASE + 0x3000, 0x8000000000203121, 1);
	assert_raw(IMAGE_BASE + 0x4000, 0x8000000000204163, 1);
	assert_raw(IMAGE_BASE + 0x5000, 0, 1);
}

static void without_nx_the_bit_is_never_set(void **state)
{
	(void)state;
	assert_int_equal(hostmap_init(ORDER_2M, false), 0);
	assert_int_equal(hostmap_map(DIRECT_MAP, 0, 2 * GB, HOST_RW, HOST_WB), 0);
	assert_raw(DIRECT_MAP + GB + 0x1234, GB | 0x1e3, 2);
}

static void the_direct_map_uses_the_largest_pages(void **state)
{
	(void)state;
	assert_int_equal(hostmap_map(DIRECT_MAP, 0, 512 * GB + 2 * MB, HOST_RW, HOST_WB), 0);
	assert_raw(DIRECT_MAP + 3 * GB, 0x80000000c00001e3, 3);
	assert_raw(DIRECT_MAP + 512 * GB, 0x80000080000001e3, 2);
}

static void nothing_is_mapped_twice(void **state)
{
	(void)state;
	assert_int_equal(hostmap_map(DIRECT_MAP, 0, 4 * MB, HOST_RW, HOST_WB), 0);
	assert_int_equal(hostmap_map(DIRECT_MAP + 4 * MB - PAGE_SIZE, 0, 2 * PAGE_SIZE, HOST_R, HOST_WB), -EEXIST);
	assert_raw(DIRECT_MAP + 4 * MB, 0, 2);
}

static void devices_have_their_caching_and_any_alignment(void **state)
{
	(void)state;
	u64 va = (u64)hostmap_io(0xfee00350, 8, HOST_UC);
	assert_int_equal(va & 4095, 0x350);
	assert_raw(va, 0x80000000fee0017b, 1);
	va = (u64)hostmap_io(0xfd000000, 16 * MB, HOST_WC);
	assert_raw(va + 3 * MB, 0x80000000fd2001eb, 2);
	va = (u64)hostmap_io(0xfffffff, 2, HOST_WB); /* straddles two pages */
	assert_raw(va + 1, 0x8000000010000163, 1);
	va = (u64)hostmap_io(0xfd100800, 4 * MB, HOST_UC);
	assert_raw(va, 0x80000000fd10017b, 1);
	assert_raw(va + MB, 0x80000000fd2001fb, 2);
	assert_null(hostmap_io(0x1000, 0, HOST_UC));
	assert_null(hostmap_io(BIT(52), 1, HOST_UC));
	assert_null(hostmap_io(BIT(52) - 8, 16, HOST_UC));
	assert_null(hostmap_io(4096, ~0ull, HOST_UC));
	assert_null(hostmap_io(0, 513 * GB, HOST_UC));
}

static void stacks_have_guard_pages(void **state)
{
	(void)state;
	u64 a = (u64)hostmap_stack(16384), b = (u64)hostmap_stack(4096), c = (u64)hostmap_stack(20480);
	assert_true(a && b && c);
	for (u64 at = a - 16384; at < a; at += 4096)
		assert_false(hostmap_is_guard(at));
	assert_true(hostmap_is_guard(a - 16384 - 1));
	assert_true(hostmap_is_guard(a));
	assert_true(hostmap_is_guard(b - 4096 - 8));
	assert_true(hostmap_is_guard(c - 20480 - 4096));
	assert_false(hostmap_is_guard(c)); /* beyond the last: no stack yet, so no guard */
	assert_false(hostmap_is_guard(DIRECT_MAP));
}

static void out_of_memory_is_told(void **state)
{
	struct frames_stats before, after;

	(void)state;
	frames_stats(&before);
	for (u64 nth = 1; nth <= 4; nth++) {
		host_fail_alloc(nth);
		assert_null(hostmap_stack(8192));
	}
	host_fail_alloc(1);
	assert_null(hostmap_io(0xfee00000, 4, HOST_UC));
	assert_int_equal(hostmap_map(DIRECT_MAP, 0, 4096, HOST_RW, HOST_WB), -ENOMEM);
	assert_int_equal(hostmap_init(ORDER_1G, true), -ENOMEM);
	host_fail_alloc(0);
	frames_stats(&after);
	assert_int_equal(before.free, after.free);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, setup)
	const struct CMUnitTest tests[] = {
		T(the_image_is_write_xor_execute),
		T(without_nx_the_bit_is_never_set),
		T(the_direct_map_uses_the_largest_pages),
		T(nothing_is_mapped_twice),
		T(devices_have_their_caching_and_any_alignment),
		T(stacks_have_guard_pages),
		T(out_of_memory_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
