/* SPDX-License-Identifier: MIT */
#include "mm/heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mm/frames.h"
#include "tests/host/host.h"

static u64 free_frames(void)
{
	struct frames_stats s;

	frames_stats(&s);
	return s.free;
}

static int setup(void **state)
{
	(void)state;
	host_machine(16 * MB);
	return 0;
}

static void objects_are_zeroed_aligned_and_apart(void **state)
{
	char *p[200];
	size_t size[200];

	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 200; i++) {
			size[i] = 1 + i * 37;
			p[i] = heap_alloc(size[i]);
			assert_non_null(p[i]);
			assert_int_equal((uintptr_t)p[i] % 16, 0);
			for (size_t at = 0; at < size[i]; at++)
				assert_int_equal(p[i][at], 0);
			memset(p[i], (int)i, size[i]);
		}
		for (unsigned i = 0; i < 200; i++) {
			for (size_t at = 0; at < size[i]; at++)
				assert_int_equal(p[i][at], (char)i);
			heap_free(p[i], size[i]);
		}
	}
}

static void whole_frames_come_back(void **state)
{
	const size_t sizes[] = {1, 2049, 4096, 4097, 3 * 4096, 128 * KB, 2 * MB};
	u64 before = free_frames();

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		char *p = heap_alloc(sizes[i]);
		assert_int_equal((uintptr_t)p % PAGE_SIZE, 0);
		for (size_t at = 0; at < sizes[i]; at++)
			assert_int_equal(p[at], 0);
		memset(p, 1, sizes[i]);
		heap_free(p, sizes[i]);
	}
	assert_int_equal(free_frames(), before);
}

static void out_of_memory_is_null(void **state)
{
	(void)state;
	host_fail_alloc(1);
	assert_null(heap_alloc(8));
	assert_null(heap_alloc(8192));
	host_fail_alloc(0);
	assert_null(heap_alloc(64 * MB));
	assert_null(heap_alloc((size_t)1 << 60));
	assert_null(heap_alloc(~(size_t)0));
	heap_free(NULL, 8);
	assert_non_null(heap_alloc(8));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(objects_are_zeroed_aligned_and_apart, setup),
		cmocka_unit_test_setup(whole_frames_come_back, setup),
		cmocka_unit_test_setup(out_of_memory_is_null, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
