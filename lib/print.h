/* SPDX-License-Identifier: MIT */
/* Formatted text: the console log and bounded formatting into a buffer. */
#pragma once

#include <stdarg.h>

#include "lib/types.h"

/*
 * Formats like C's snprintf: %d %u %x %c %s %.*s %%, with flags 0 - #, a width, and the lengths l ll z. Never writes
 * more than size bytes, terminates if size > 0, and returns the length the whole text would have had.
 */
size_t vformat(char *buf, size_t size, const char *fmt, va_list ap);
size_t format(char *buf, size_t size, const char *fmt, ...) PRINTF(3, 4);

/* Writes a formatted message (256 bytes at most, one atomic write) to the console and the memory ring. Any context. */
void log(const char *fmt, ...) PRINTF(1, 2);
void vlog(const char *fmt, va_list ap);
