/* SPDX-License-Identifier: MIT */
/* The console's ring and sinks: replay to late sinks, wrap, whole lines for parsers, and no lock in a panic. */
#include "drivers/console.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RING 65536

struct test_sink {
	struct console_sink sink;
	char text[4 * RING];
	size_t len;
	unsigned drained;
};

static void sink_write(struct console_sink *s, const char *text, size_t len)
{
	struct test_sink *t = (struct test_sink *)s;

	assert_true(t->len + len < sizeof(t->text));
	memcpy(t->text + t->len, text, len);
	t->len += len;
	t->text[t->len] = 0;
}

static void sink_drain(struct console_sink *s) { ((struct test_sink *)s)->drained++; }

static struct test_sink a = {.sink = {.write = sink_write, .drain = sink_drain}}, b = {.sink = {.write = sink_write}};
/* A sink that is added last hears what the ring holds. */
static struct test_sink late[2] = {{.sink = {.write = sink_write}}, {.sink = {.write = sink_write}}};

static void say(const char *s) { console_log(s, strlen(s)); }
static void guest_says(const char *s) { console_write("", s, strlen(s)); }

static void late_sink_gets_everything(void **state)
{
	say("one\n");
	say("two\n");
	console_add_sink(&a.sink);
	say("three\n");
	assert_string_equal(a.text, "one\ntwo\nthree\n");
	console_add_sink(&b.sink);
	assert_string_equal(b.text, a.text);
	say("four\n");
	assert_string_equal(b.text, a.text);
}

/* A report line after a guest's prompt must still begin a line; a guest's next text must not. */
static void messages_start_lines(void **state)
{
	a.len = 0;
	guest_says("login: ");
	say("@end guest=x\n");
	guest_says("root");
	guest_says("\n");
	say("part ");
	say("of a line\n");
	guest_says("");
	say("x\n");
	assert_string_equal(a.text, "login: \n@end guest=x\nroot\npart of a line\nx\n");
}

/* The rest of a line that a message had interrupted came without its guest's name. */
static void each_line_has_its_tag(void **state)
{
	static const char x[] = "[x] ", y[] = "[y] ";

	a.len = 0;
	console_write(x, "login: ", 7);
	console_write(x, "root", 4);
	console_write(y, "one\n", 4);
	console_write(x, "two", 3);
	say("@end guest=z\n");
	console_write(x, "three\n", 6);
	console_write(y, "four\n", 5);
	assert_string_equal(a.text, "[x] login: root\n[y] one\n[x] two\n@end guest=z\n[x] three\n[y] four\n");
}

static void ring_keeps_the_last_part(void **state)
{
	static char all[3 * RING + 1];
	size_t len = 0;

	a.len = 0;
	for (unsigned i = 0; len < 2 * RING; i++) {
		int n = sprintf(all + len, "line %u\n", i);

		say(all + len);
		len += (size_t)n;
	}
	console_add_sink(&late[0].sink);
	assert_int_equal(late[0].len, RING);
	assert_string_equal(late[0].text, all + len - RING);
}

static void larger_than_the_ring(void **state)
{
	static char big[RING + 1000];

	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)('a' + i % 23);
	a.len = 0;
	console_write("", big, sizeof(big));
	assert_int_equal(a.len, sizeof(big));
	console_add_sink(&late[1].sink);
	assert_int_equal(late[1].len, RING);
	assert_memory_equal(late[1].text, big + 1000, RING);
}

static void drain_reaches_the_sinks_that_can(void **state)
{
	console_drain();
	assert_int_equal(a.drained, 1);
}

/* Written from inside a write, as by a panic while the lock is held: must come through. */
static void nested_write(struct console_sink *s, const char *text, size_t len)
{
	static bool inside;

	sink_write(s, text, len);
	if (inside)
		return;
	inside = true;
	console_break_lock();
	say("panic\n");
}

static void a_panic_waits_for_no_lock(void **state)
{
	a.len = 0;
	b.sink.write = nested_write;
	say("outer\n");
	assert_non_null(strstr(a.text, "panic\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(late_sink_gets_everything), cmocka_unit_test(messages_start_lines),
		cmocka_unit_test(each_line_has_its_tag),     cmocka_unit_test(ring_keeps_the_last_part),
		cmocka_unit_test(larger_than_the_ring),      cmocka_unit_test(drain_reaches_the_sinks_that_can),
		cmocka_unit_test(a_panic_waits_for_no_lock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
