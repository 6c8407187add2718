/* SPDX-License-Identifier: MIT */
/* The screen as a console sink: EGA/VGA text memory, or a linear framebuffer with a font; scrolls, wraps, knows \n \r
 * \t \b. */
#ifndef DRIVERS_SCREEN_H
#define DRIVERS_SCREEN_H

#include "drivers/console.h"

struct framebuffer {
	hpa_t base; /* 0: none */
	u32 pitch, width, height;
	u8 bpp; /* 15, 16, 24, 32; 0 with text: EGA text */
	bool text;
	u8 red_pos, red_size, green_pos, green_size, blue_pos, blue_size;
};

/*
 * Opens the screen that fb describes at va (where its memory is mapped, fb->pitch * fb->height bytes, or 4000 bytes of
 * text). Returns false for a format it cannot draw. Drawing is into RAM first; only changed rows reach video memory.
 */
bool screen_open(const struct framebuffer *fb, volatile void *va);

#endif
