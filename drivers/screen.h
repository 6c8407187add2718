/* SPDX-License-Identifier: MIT */
/* The screen as a console sink: EGA/VGA text memory, or a linear framebuffer with a font; scrolls, wraps, knows \n \r
 * \t \b. */
#pragma once

#include "drivers/console.h"

struct framebuffer {
	hpa_t base; /* 0: none */
	u32 pitch, width, height;
	u8 bpp;    /* of a linear one; 32 is what can be drawn */
	bool text; /* EGA text, and sizes are in characters; the pitch is in bytes always */
};

/*
 * Opens the screen that fb describes at va (where its memory is mapped, fb->pitch * fb->height bytes, or 4000 bytes of
 * text). Returns false for a format it cannot draw. Once only.
 */
bool screen_open(const struct framebuffer *fb, volatile void *va);
