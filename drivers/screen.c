/* SPDX-License-Identifier: MIT */
/*
 * The screen: a grid of characters in RAM, and what shows it. Video memory is slow to read and drawing is not cheap, so
 * a character is drawn only where another one stood, and the grid scrolls by a quarter of its height at a time.
 */
#include "drivers/screen.h"

#include "lib/string.h"

#define MAX_COLS 256
#define MAX_ROWS 128

#define TEXT_GREY  0x0700 /* the attribute: light grey on black */
#define TEXT_BLANK 0x0720072007200720
#define GREY       0xaa /* each byte of a pixel, whichever order the colours have */

/* PSF version 1: magic, mode and height, then glyphs of 8 pixels' width; ASCII's are at their codes. */
extern const u8 font_start[] __attribute__((weak)); /* some host-side programs have none */
#define FONT_MAGIC 0x0436
#define FONT_WIDTH 8

/* Pitch and width of a screen may make rows begin at any multiple of 4. */
typedef u64 unaligned __attribute__((aligned(1)));

/* All under the console's lock, once open. */
static struct screen {
	struct console_sink sink;
	struct framebuffer fb;
	volatile u8 *va;
	u32 height; /* of a character */
	u32 bytes;  /* of a pixel */
	u32 cols, rows, x, y;
	enum { ESC_NONE, ESC_SEEN, ESC_CSI } escape;
	u64 line[256][4]; /* a glyph's 8 pixels for each byte of the font: as many words as a pixel has bytes */
	char cell[MAX_ROWS][MAX_COLS];
} screen;

static void set_cell(struct screen *s, u32 x, u32 y, char c)
{
	volatile u8 *p = s->va + (u64)y * s->height * s->fb.pitch;
	const u8 *glyph = font_start + 4 + (u8)c * s->height;

	if (s->cell[y][x] == c)
		return;
	s->cell[y][x] = c;
	if (s->fb.text)
		((volatile u16 *)p)[x] = (u16)(TEXT_GREY | (u8)c);
	p += (u64)x * FONT_WIDTH * s->bytes;
	for (u32 i = 0; i < s->height && !s->fb.text; i++, p += s->fb.pitch)
		for (u32 word = 0; word < s->bytes; word++)
			((volatile unaligned *)p)[word] = s->line[glyph[i]][word];
}

static void scroll(struct screen *s)
{
	u32 step = s->rows / 4;

	for (u32 y = 0; y < s->rows; y++)
		for (u32 x = 0; x < s->cols; x++)
			set_cell(s, x, y, y + step < s->rows ? s->cell[y + step][x] : ' ');
	s->y -= step;
}

static void new_line(struct screen *s)
{
	s->x = 0;
	if (++s->y == s->rows)
		scroll(s);
}

static void put_visible(struct screen *s, char c)
{
	if (s->x == s->cols)
		new_line(s);
	set_cell(s, s->x++, s->y, c);
}

/* Guests colour their output: escape sequences are swallowed. Returns whether c was part of one. */
static bool in_escape(struct screen *s, char c)
{
	if (c == '\033')
		s->escape = ESC_SEEN;
	else if (s->escape == ESC_SEEN)
		s->escape = c == '[' ? ESC_CSI : ESC_NONE;
	else if (s->escape == ESC_CSI)
		s->escape = c >= '@' && c <= '~' ? ESC_NONE : ESC_CSI;
	else
		return false;
	return true;
}

static void put_char(struct screen *s, char c)
{
	if (in_escape(s, c))
		return;
	if (c == '\n')
		new_line(s);
	else if (c == '\r')
		s->x = 0;
	else if (c == '\t')
		s->x = MIN((s->x + 8) & ~7u, s->cols);
	else if (c == '\b')
		s->x -= s->x > 0;
	else if (c >= ' ' && c <= '~')
		put_visible(s, c);
	else if ((u8)c >= 0xc0) /* the first byte of a UTF-8 sequence stands for all of it */
		put_visible(s, '?');
}

static void screen_write(struct console_sink *sink, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		put_char(container_of(sink, struct screen, sink), text[i]);
}

bool screen_open(const struct framebuffer *fb, volatile void *va)
{
	struct screen *s = &screen;
	u32 width = fb->text ? 1 : FONT_WIDTH;

	*s = (struct screen){.fb = *fb,
			     .va = va,
			     .bytes = fb->text ? 2 : (fb->bpp + 7u) / 8,
			     .height = fb->text ? 1 : font_start[2 + 1]};
	s->cols = MIN(fb->width / width, MAX_COLS);
	s->rows = s->height ? MIN(fb->height / s->height, MAX_ROWS) : 0;
	if (fb->pitch < (u64)fb->width * s->bytes || s->cols < 20 || s->rows < 5)
		return false;
	if (!fb->text && (s->bytes < 2 || s->bytes > 4 || (font_start[0] | font_start[1] << 8) != FONT_MAGIC))
		return false;
	for (u64 i = 0; i < (u64)fb->pitch * fb->height / 8; i++)
		((volatile unaligned *)va)[i] = fb->text ? TEXT_BLANK : 0;
	for (u32 i = 0; i < 256 * FONT_WIDTH * s->bytes; i++) {
		u32 byte = i % (FONT_WIDTH * s->bytes), bits = i / (FONT_WIDTH * s->bytes);

		((u8 *)s->line[bits])[byte] = bits & 0x80 >> byte / s->bytes && byte % s->bytes < 3 ? GREY : 0;
	}
	memset(s->cell, ' ', sizeof(s->cell));
	s->sink.write = screen_write;
	console_add_sink(&s->sink);
	return true;
}
