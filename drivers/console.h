/* SPDX-License-Identifier: MIT */
/*
 * The console: everything logged goes to a memory ring and to each sink (serial port, screen). It works from the first
 * instruction in C: before a sink is there the ring collects, and console_add_sink replays it.
 *
 * port_log is console_log. Writers are serialised by LOCK_CONSOLE; panic breaks the lock.
 */
#pragma once

#include "lib/types.h"

struct console_sink {
	void (*write)(struct console_sink *s, const char *text, size_t len);
	void (*drain)(struct console_sink *s); /* waits until all of it has left; NULL: nothing to wait for */
	struct console_sink *next;
};

void console_add_sink(struct console_sink *s); /* replays the ring to it */
/* A message of the hypervisor's own: starts a new line if a guest has left one unfinished, so that lines can be parsed.
 */
void console_log(const char *text, size_t len);
/*
 * Guest output: raw bytes, in one atomic write. The tag tells guests apart, by where it lies: it comes first on a line,
 * and where the last text was another's.
 */
void console_write(const char *tag, const char *text, size_t len);
/* From a panic: no lock is waited for from now on. */
void console_break_lock(void);
/* Returns once everything written has left the serial ports (LSR.TEMT). Before power-off. */
void console_drain(void);
