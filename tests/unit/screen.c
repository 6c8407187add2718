/* SPDX-License-Identifier: MIT */
/* The screen, drawn into memory: text mode, and a framebuffer with a font made here. */
#include "drivers/screen.c"
#include "drivers/console.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* 8 pixels by 8; the glyph of c has all its pixels set in row c % 8, and its leftmost pixel in every row. */
volatile u8 font[4 + 256 * 8];
__asm__(".globl font_start; .set font_start, font");

static u16 *text;
static u8 *pixels;
static const struct framebuffer text_mode = {.base = 1, .pitch = 160, .width = 80, .height = 25, .text = true};

static void make_font(void)
{
	font[0] = 0x36;
	font[1] = 0x04;
	font[3] = 8;
	for (unsigned c = 0; c < 128; c++)
		for (unsigned row = 0; row < 8; row++)
			font[4 + c * 8 + row] = c == ' ' ? 0 : row == c % 8 ? 0xff : 0x80;
}

static int setup(void **state)
{
	make_font();
	text = calloc(25, 160);
	pixels = malloc(1 << 20);
	return 0;
}

static void say(const char *s) { console_write("", s, strlen(s)); }

static void check_row(unsigned row, const char *want)
{
	char got[81];

	for (unsigned i = 0; i < 80; i++) {
		assert_int_equal(text[row * 80 + i] >> 8, 0x07);
		got[i] = (char)text[row * 80 + i];
	}
	for (unsigned n = 80; n; n--) {
		got[n] = 0;
		if (got[n - 1] != ' ')
			break;
		got[n - 1] = 0;
	}
	assert_string_equal(got, want);
}

static void clear(void)
{
	for (unsigned i = 0; i < 200; i++)
		say("\n");
}

/* A machine opens its screen once; here each test has one of its own. */
static bool open_fresh(const struct framebuffer *fb, void *va)
{
	sinks = NULL;
	return screen_open(fb, va);
}

static void open_text(void)
{
	clear();
	assert_true(open_fresh(&text_mode, text));
	clear();
}

/* Rows are found by a marker, since how far the screen scrolls is its own matter. */
static unsigned row_of(const char *start)
{
	for (unsigned y = 0; y < 25; y++) {
		unsigned i = 0;

		while (start[i] && (char)text[y * 80 + i] == start[i])
			i++;
		if (!start[i])
			return y;
	}
	fail_msg("no row starts with %s", start);
	return 0;
}

static void text_control_characters(void **state)
{
	open_text();
	say("first\n");
	say("ab\tc\n");
	say("12345\r678\n");
	say("xyz\b\b.\n\b!\n");
	unsigned y = row_of("first");

	check_row(y + 1, "ab      c");
	check_row(y + 2, "67845");
	check_row(y + 3, "x.z");
	check_row(y + 4, "!");
}

static void text_wraps_and_scrolls(void **state)
{
	char line[82];

	open_text();
	memset(line, 'w', 81);
	line[81] = 0;
	say("mark\n");
	say(line);
	say("\nnext\n");
	unsigned y = row_of("mark");

	line[80] = 0;
	check_row(y + 1, line);
	check_row(y + 2, "w");
	check_row(y + 3, "next");
	for (unsigned i = 0; i < 100; i++) {
		char s[16];

		s[0] = (char)('a' + i / 26);
		s[1] = (char)('a' + i % 26);
		s[2] = '\n';
		s[3] = 0;
		say(s);
	}
	y = row_of("dv"); /* the last of them */
	check_row(y - 1, "du");
	check_row(y - 10, "dl");
	/* A full line and its end are one line, not two. */
	memset(line, 'v', 80);
	say(line);
	say("\nend\n");
	y = row_of("end");
	check_row(y - 1, line);
}

static void escapes_and_utf8(void **state)
{
	open_text();
	say("\033[1;32mgreen\033[0m\033=\007 gr\303\274n\n");
	check_row(row_of("green"), "green gr?n");
}

static void late_screen_shows_what_was_said(void **state)
{
	clear();
	say("early\n");
	assert_true(open_fresh(&text_mode, text));
	row_of("early");
}

/* Outside the characters nothing may be written: not between the end of a line and the next, not behind the last. */
static void draw_in(unsigned bytes)
{
	const struct framebuffer fb = {
		.base = 1, .width = 165, .height = 45, .bpp = (u8)(bytes * 8), .pitch = 165 * bytes + 20};
	static const u8 set[] = {0xaa, 0xaa, 0xaa, 0};

	clear();
	memset(pixels, 0xee, 1 << 20);
	assert_true(open_fresh(&fb, pixels));
	say("\n\n\n\n\n\n\n\n\n\nA");

	unsigned y = 0, lit = 0;

	for (unsigned row = 0; row < 5; row++)
		if (!memcmp(pixels + row * 8 * fb.pitch, set, bytes))
			y = row;
	for (unsigned py = 0; py < 45; py++)
		for (unsigned px = 0; px < 165; px++) {
			const u8 *p = pixels + py * fb.pitch + px * bytes;
			bool in = py / 8 == y && px < 8 && (py % 8 == 'A' % 8 || px == 0);

			lit += in;
			assert_memory_equal(p, in ? set : (const u8 *)"\0\0\0\0", bytes);
		}
	assert_int_equal(lit, 15);
	for (size_t i = (size_t)fb.pitch * 45; i < 1 << 20; i++)
		assert_int_equal(pixels[i], 0xee);
}

/* A loader that sets the mode may choose any depth: GRUB under UEFI gave 24 bits, and the screen stayed black. */
static void graphics(void **state)
{
	for (unsigned bytes = 2; bytes <= 4; bytes++)
		draw_in(bytes);
}

static void refuses_what_it_cannot_draw(void **state)
{
	const struct framebuffer fb = {.base = 1, .width = 640, .height = 400, .pitch = 640 * 4, .bpp = 32};
	struct framebuffer bad;

#define REFUSE(field, value) \
	bad = fb;            \
	bad.field = value;   \
	assert_false(open_fresh(&bad, pixels))
	REFUSE(bpp, 8);
	REFUSE(pitch, 640 * 3);
	REFUSE(width, 100);
	REFUSE(height, 8);
	font[0] = 0; /* no font that we know */
	assert_false(open_fresh(&fb, pixels));
	make_font();
	font[3] = 0; /* of no height */
	assert_false(open_fresh(&fb, pixels));
	say("nothing is drawn now\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_control_characters),
		cmocka_unit_test(text_wraps_and_scrolls),
		cmocka_unit_test(escapes_and_utf8),
		cmocka_unit_test(late_screen_shows_what_was_said),
		cmocka_unit_test(graphics),
		cmocka_unit_test(refuses_what_it_cannot_draw),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
