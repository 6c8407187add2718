/* SPDX-License-Identifier: MIT */
#include "drivers/console.h"

#include "lib/bits.h"
#include "lib/lock.h"
#include "lib/port.h"
#include "lib/string.h"

#define RING_SIZE (64 * KB)

/* All under the lock. */
static struct lock lock = LOCK_INIT(LOCK_CONSOLE);
static struct console_sink *sinks;
static char ring[RING_SIZE];
static u64 written;          /* bytes in all; the ring holds the last RING_SIZE of them */
static bool guest_line_open; /* the last text was a guest's and did not end its line */

static bool lock_broken; /* set once, by a panic */

static u64 enter(bool *locked)
{
	*locked = !atomic_load(&lock_broken);
	return *locked ? lock_take_irq(&lock) : 0;
}

static void leave(bool locked, u64 irq)
{
	if (locked)
		lock_drop_irq(&lock, irq);
}

static void put(const char *text, size_t len)
{
	for (struct console_sink *s = sinks; s; s = s->next)
		s->write(s, text, len);
	while (len) {
		size_t at = written % RING_SIZE;
		size_t n = MIN(len, RING_SIZE - at);

		memcpy(ring + at, text, n);
		written += n;
		text += n;
		len -= n;
	}
}

void console_log(const char *text, size_t len)
{
	bool locked;
	u64 irq = enter(&locked);

	if (guest_line_open)
		put("\n", 1);
	guest_line_open = false;
	put(text, len);
	leave(locked, irq);
}

/* Weak, because user space has a port_log of its own. */
__attribute__((weak)) void port_log(const char *text, size_t len) { console_log(text, len); }

void console_write(const char *text, size_t len)
{
	bool locked;
	u64 irq = enter(&locked);

	if (len)
		guest_line_open = text[len - 1] != '\n';
	put(text, len);
	leave(locked, irq);
}

/* The last len bytes of the ring. */
static void pieces(u64 end, size_t len, void (*fn)(void *arg, const char *text, size_t len), void *arg)
{
	size_t at = (end - len) % RING_SIZE;
	size_t first = MIN(len, RING_SIZE - at);

	if (first)
		fn(arg, ring + at, first);
	if (len > first)
		fn(arg, ring, len - first);
}

void console_ring(void (*fn)(void *arg, const char *text, size_t len), void *arg)
{
	bool locked;
	u64 irq = enter(&locked), end = written;

	leave(locked, irq);
	pieces(end, MIN(end, RING_SIZE), fn, arg);
}

static void replay(void *sink, const char *text, size_t len)
{
	struct console_sink *s = sink;

	s->write(s, text, len);
}

void console_add_sink(struct console_sink *s)
{
	bool locked;
	u64 irq = enter(&locked);

	pieces(written, MIN(written, RING_SIZE), replay, s);
	s->next = sinks;
	sinks = s;
	leave(locked, irq);
}

void console_remove_sink(struct console_sink *s)
{
	bool locked;
	u64 irq = enter(&locked);
	struct console_sink **p = &sinks;

	while (*p && *p != s)
		p = &(*p)->next;
	if (*p)
		*p = s->next;
	leave(locked, irq);
}

void console_break_lock(void) { atomic_store(&lock_broken, true); }

void console_drain(void)
{
	bool locked;
	u64 irq = enter(&locked);

	for (struct console_sink *s = sinks; s; s = s->next)
		if (s->drain)
			s->drain(s);
	leave(locked, irq);
}
