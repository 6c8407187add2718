/* SPDX-License-Identifier: MIT */
/* The screen as a console sink: EGA/VGA text memory, or a linear framebuffer with a font; scrolls, wraps, knows \n \r
 * \t \b. */
#ifndef DRIVERS_SCREEN_H
#define DRIVERS_SCREEN_H

#include "boot/bootinfo.h"
#include "drivers/console.h"

/*
 * Opens the screen that fb describes at va (where its memory is mapped, fb->pitch * fb->height bytes, or 4000 bytes of
 * text). Returns false for a format it cannot draw. Drawing is into RAM first; only changed rows reach video memory.
 */
bool screen_open(const struct framebuffer *fb, volatile void *va);

#endif
