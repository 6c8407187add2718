/* SPDX-License-Identifier: MIT */
/* Formatted printing against libc's, the lock-order checks, lists and bits. */
#include <stdio.h>
/* cmocka wants these first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/list.h"
#include "lib/lock.h"
#include "lib/print.h"
#include "lib/string.h"
#include "tests/host/host.h"

#define SAME(...)                                                                \
	do {                                                                     \
		char ours[128], theirs[128];                                     \
		int want = snprintf(theirs, sizeof(theirs), __VA_ARGS__);        \
		assert_int_equal(format(ours, sizeof(ours), __VA_ARGS__), want); \
		assert_string_equal(ours, theirs);                               \
	} while (0)

static void format_agrees_with_libc(void **state)
{
	int v[] = {0, 1, -1, 42, -12345, 2147483647, -2147483647 - 1};

	for (size_t i = 0; i < ARRAY_SIZE(v); i++) {
		SAME("%d|%5d|%-5d|%05d", v[i], v[i], v[i], v[i]);
		SAME("%u|%x|%#x|%08x|%#10x", v[i], v[i], v[i] | 1, v[i], v[i] | 1);
		SAME("%ld|%lld|%lx|%llx|%zx", (long)v[i], (long long)v[i], (long)v[i], (long long)v[i], (size_t)v[i]);
	}
	SAME("%s|%10s|%-10s|%c|%3c|%%", "abc", "abc", "abc", 'x', 'y');
	SAME("%.*s|%5.*s|%-5.*s|%.*s", 2, "xyz", 2, "xyz", 2, "xyz", 9, "xyz");
}

static void format_is_bounded(void **state)
{
	char buf[8];

	memset(buf, 'x', sizeof(buf));
	assert_int_equal(format(buf, 4, "%s", "abcdefgh"), 8);
	assert_string_equal(buf, "abc");
	assert_int_equal(buf[4], 'x');
	assert_int_equal(format(NULL, 0, "%d", 12), 2);
}

static void a_long_log_line_ends_with_its_newline(void **state)
{
	host_log_clear();
	log("%300s\n", "x");
	assert_int_equal(strlen(host_log()), 255);
	assert_int_equal(host_log()[254], '\n');
}

static void lock_order_is_checked(void **state)
{
	static struct lock frames = LOCK_INIT(LOCK_FRAMES), p2m = LOCK_INIT(LOCK_P2M);

	lock_take(&p2m);
	lock_take(&frames);
	assert_true(lock_held(&frames));
	lock_drop(&p2m);
	lock_drop(&frames);
	assert_false(lock_held(&frames));

	lock_take(&frames);
	host_expect_panic = true;
	if (!setjmp(host_panic_jmp)) {
		lock_take(&p2m);
		fail_msg("taking p2m under frames must be caught");
	}
	lock_drop(&frames);
}

static void foreign_drop_is_caught(void **state)
{
	static struct lock l = LOCK_INIT(LOCK_FRAMES);

	lock_take(&l);
	host_set_cpu(1);
	host_expect_panic = true;
	if (!setjmp(host_panic_jmp)) {
		lock_drop(&l);
		fail_msg("a drop by another pCPU must be caught");
	}
	host_set_cpu(0);
	lock_drop(&l);
}

static void lists_and_bits(void **state)
{
	struct list head, a, b;
	unsigned n = 0;
	struct holder {
		struct list l;
	} * h;

	list_init(&head);
	list_insert(&head, &a);
	list_insert(&head, &b);
	assert_ptr_equal(head.next, &a);
	list_for_each (h, &head, l)
		n++;
	assert_int_equal(n, 2);
	list_remove(&a);
	list_remove(&a);
	list_remove(&b);
	assert_true(list_empty(&head));

	assert_int_equal(bit_high(0x8001), 15);
	assert_int_equal(bit_low(0x8000), 15);
	assert_true(BITS(51, 12) == 0x000ffffffffff000ul);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(format_agrees_with_libc),
		cmocka_unit_test(format_is_bounded),
		cmocka_unit_test(a_long_log_line_ends_with_its_newline),
		cmocka_unit_test(lock_order_is_checked),
		cmocka_unit_test(foreign_drop_is_caught),
		cmocka_unit_test(lists_and_bits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
