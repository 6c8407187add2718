/* SPDX-License-Identifier: MIT */
/* Finding the function that an address is in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arch/x86/cpu/symbols.c"

const u32 kallsyms_count = 3;
const struct symbol kallsyms[] = {{0x200000, 0}, {0x200040, 6}, {0x201000, 11}};
const char kallsyms_names[] = "first\0last\0text_end";

static void test_find(void **state)
{
	u64 offset;

	(void)state;
	assert_string_equal(symbol_find(IMAGE_BASE + 0x200000, &offset), "first");
	assert_int_equal(offset, 0);
	assert_string_equal(symbol_find(IMAGE_BASE + 0x20003f, &offset), "first");
	assert_int_equal(offset, 0x3f);
	assert_string_equal(symbol_find(IMAGE_BASE + 0x200fff, &offset), "last");
	assert_string_equal(symbol_find(IMAGE_BASE + 0x201000, &offset), "?"); /* behind the text */
	assert_int_equal(offset, IMAGE_BASE + 0x201000);
	assert_string_equal(symbol_find(IMAGE_BASE, &offset), "?");
	assert_string_equal(symbol_find(0, &offset), "?"); /* below the base: the difference wraps */
	assert_string_equal(symbol_find(0x41414141, &offset), "?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
