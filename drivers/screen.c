/* SPDX-License-Identifier: MIT */
/*
 * The screen. Text goes into a grid of characters in RAM; what differs from the grid that was drawn last is drawn.
 * Video memory is slow to read and drawing is not cheap, so it scrolls by a quarter of its height at a time.
 */
#include "drivers/screen.h"

#include "lib/string.h"

#define MAX_COLS 256
#define MAX_ROWS 128

#define TEXT_COLOUR 0x0700 /* light grey on black */
#define GREY        0xaa

/* PSF version 1 and 2. Glyphs of ASCII are at their codes. Weak: a build without a font can still do text mode. */
extern const u8 font_start[] __attribute__((weak)), font_end[] __attribute__((weak));

struct psf2 {
	u32 magic, version, header_size, flags, glyphs, glyph_size, height, width;
} PACKED;

#define PSF1_MAGIC 0x0436
#define PSF2_MAGIC 0x864ab572

struct unaligned {
	u64 val;
} PACKED;

struct unaligned32 {
	u32 val;
} PACKED;

enum escape { ESC_NONE, ESC_SEEN, ESC_CSI };

/* All under the console's lock, once open. */
static struct screen {
	struct console_sink sink;
	struct framebuffer fb;
	volatile u8 *va;
	const u8 *glyphs;
	u32 glyph_size, width, height; /* of one character, bytes and pixels */
	u32 bytes;                     /* of one pixel */
	u64 four[16][2];               /* what draw_four draws */
	u32 cols, rows, x, y;
	u32 first_dirty, end_dirty; /* rows that may differ from what is drawn */
	enum escape escape;
	char cell[MAX_ROWS][MAX_COLS], drawn[MAX_ROWS][MAX_COLS];
} screen;

/* Pixels go four at a time, as the bits of half a byte of a glyph: 8, 12 or 16 bytes. */
static void draw_four(const struct screen *s, volatile u8 *p, unsigned bits)
{
	const u64 *four = s->four[bits];

	((volatile struct unaligned *)p)->val = four[0];
	if (s->bytes == 4)
		((volatile struct unaligned *)p)[1].val = four[1];
	else if (s->bytes == 3)
		((volatile struct unaligned32 *)p)[2].val = (u32)four[1];
}

static void draw_glyph_row(const struct screen *s, volatile u8 *p, const u8 *bits)
{
	for (u32 x = 0; x < s->width; x += 8, bits++) {
		draw_four(s, p, *bits >> 4);
		p += s->bytes * 4;
		if (x + 4 < s->width)
			draw_four(s, p, *bits & 0xf);
		p += s->bytes * 4;
	}
}

static void make_pixels(struct screen *s, u32 colour)
{
	u8 *p = (u8 *)s->four;

	for (unsigned bits = 0; bits < 16; bits++)
		for (unsigned i = 0; i < 4 * s->bytes; i++) {
			bool set = bits & (8u >> i / s->bytes);

			p[bits * sizeof(s->four[0]) + i] = set ? (u8)(colour >> i % s->bytes * 8) : 0;
		}
}

static void draw_cell(const struct screen *s, u32 x, u32 y, char c)
{
	volatile u8 *p = s->va + (u64)y * s->height * s->fb.pitch + x * s->width * s->bytes;
	const u8 *bits = s->glyphs + (u8)c * s->glyph_size;

	if (s->fb.text) {
		*(volatile u16 *)p = (u16)(TEXT_COLOUR | (u8)c);
		return;
	}
	for (u32 i = 0; i < s->height; i++)
		draw_glyph_row(s, p + (u64)i * s->fb.pitch, bits + i * ((s->width + 7) / 8));
}

static void draw_changes(struct screen *s)
{
	for (u32 y = s->first_dirty; y < s->end_dirty; y++) {
		for (u32 x = 0; x < s->cols; x++) {
			if (s->cell[y][x] == s->drawn[y][x])
				continue;
			draw_cell(s, x, y, s->cell[y][x]);
			s->drawn[y][x] = s->cell[y][x];
		}
	}
	s->first_dirty = s->rows;
	s->end_dirty = 0;
}

static void mark_dirty(struct screen *s, u32 first, u32 end)
{
	s->first_dirty = MIN(s->first_dirty, first);
	s->end_dirty = MAX(s->end_dirty, end);
}

static void scroll(struct screen *s)
{
	u32 step = s->rows / 4;

	memmove(s->cell[0], s->cell[step], (s->rows - step) * sizeof(s->cell[0]));
	memset(s->cell[s->rows - step], ' ', step * sizeof(s->cell[0]));
	s->y -= step;
	mark_dirty(s, 0, s->rows);
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
	s->cell[s->y][s->x++] = c;
	mark_dirty(s, s->y, s->y + 1);
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

static void put(struct screen *s, char c)
{
	if (in_escape(s, c))
		return;
	switch (c) {
	case '\n':
		new_line(s);
		break;
	case '\r':
		s->x = 0;
		break;
	case '\t':
		s->x = MIN((s->x + 8) & ~7u, s->cols);
		break;
	case '\b':
		s->x -= s->x > 0;
		break;
	default:
		if (c >= ' ' && c <= '~')
			put_visible(s, c);
		else if ((u8)c >= 0xc0) /* the first byte of a UTF-8 sequence stands for all of it */
			put_visible(s, '?');
	}
}

static void screen_write(struct console_sink *sink, const char *text, size_t len)
{
	struct screen *s = container_of(sink, struct screen, sink);

	for (size_t i = 0; i < len; i++)
		put(s, text[i]);
	draw_changes(s);
}

static bool open_font(struct screen *s)
{
	const struct psf2 *font = (const void *)font_start;
	u64 size = (u64)font_end - (u64)font_start;
	u32 header = 4, glyphs = 256;

	if (size < sizeof(*font))
		return false;
	if (font->magic == PSF2_MAGIC) {
		header = font->header_size;
		glyphs = font->glyphs;
		s->glyph_size = font->glyph_size;
		s->width = font->width;
		s->height = font->height;
	} else if ((font->magic & 0xffff) == PSF1_MAGIC) {
		s->glyph_size = s->height = font_start[3];
		s->width = 8;
	} else {
		return false;
	}
	s->glyphs = font_start + header;
	return glyphs >= 128 && s->width && s->width <= 64 && s->width % 4 == 0 && s->height && s->height <= 64 &&
	       s->glyph_size >= s->height * ((s->width + 7) / 8) && header + 128ull * s->glyph_size <= size;
}

static u32 grey_part(u8 pos, u8 size) { return size && size <= 8 && pos < 32 ? (u32)(GREY >> (8 - size)) << pos : 0; }

static bool open_graphics(struct screen *s)
{
	const struct framebuffer *fb = &s->fb;

	u32 colour = grey_part(fb->red_pos, fb->red_size) | grey_part(fb->green_pos, fb->green_size) |
		     grey_part(fb->blue_pos, fb->blue_size);

	s->bytes = (fb->bpp + 7) / 8;
	if (s->bytes < 2 || s->bytes > 4 || fb->pitch < fb->width * (u64)s->bytes || !colour || !open_font(s))
		return false;
	make_pixels(s, colour);
	for (u64 i = 0, n = (u64)fb->pitch * fb->height / 8; i < n; i++)
		((volatile struct unaligned *)s->va)[i].val = 0;
	return true;
}

bool screen_open(const struct framebuffer *fb, volatile void *va)
{
	struct screen *s = &screen;

	console_remove_sink(&s->sink);
	memset(s, 0, sizeof(*s));
	s->fb = *fb;
	s->va = va;
	if (fb->text) {
		s->bytes = 2;
		s->width = s->height = 1;
		if (fb->pitch < fb->width * 2)
			return false;
	} else if (!open_graphics(s)) {
		return false;
	}
	s->cols = MIN(fb->width / s->width, MAX_COLS);
	s->rows = MIN(fb->height / s->height, MAX_ROWS);
	if (s->cols < 20 || s->rows < 5)
		return false;
	memset(s->cell, ' ', sizeof(s->cell));
	memset(s->drawn, fb->text ? 0 : ' ', sizeof(s->drawn));
	mark_dirty(s, 0, s->rows);
	s->sink = (struct console_sink){.write = screen_write, .name = "screen"};
	console_add_sink(&s->sink);
	return true;
}
