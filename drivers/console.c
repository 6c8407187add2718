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
static u64 written;           /* bytes in all; the ring holds the last RING_SIZE of them */
static const char *open_line; /* the tag of the guest whose unfinished line is the last text; NULL: no guest's */

static bool lock_broken; /* set once, by a panic; from then on nobody takes or drops it */

static u64 enter(void) { return atomic_load(&lock_broken) ? 0 : lock_take_irq(&lock); }

static void leave(u64 irq)
{
	if (!atomic_load(&lock_broken))
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

/* What follows is tag's: ends the line that another has left unfinished, and begins one. */
static void hand_over(const char *tag)
{
	if (open_line && open_line != tag)
		put("\n", 1);
	if (open_line != tag && tag)
		put(tag, strlen(tag));
	open_line = tag;
}

void console_log(const char *text, size_t len)
{
	u64 irq = enter();

	hand_over(NULL);
	put(text, len);
	leave(irq);
}

/* Weak, because user space has a port_log of its own. */
__attribute__((weak)) void port_log(const char *text, size_t len) { console_log(text, len); }

void console_write(const char *tag, const char *text, size_t len)
{
	u64 irq = enter();

	if (len)
		hand_over(tag);
	put(text, len);
	if (len && text[len - 1] == '\n')
		open_line = NULL;
	leave(irq);
}

void console_add_sink(struct console_sink *s)
{
	u64 irq = enter();
	size_t at = written % RING_SIZE;

	if (written > RING_SIZE)
		s->write(s, ring + at, RING_SIZE - at);
	s->write(s, ring, at);
	s->next = sinks;
	sinks = s;
	leave(irq);
}

void console_break_lock(void) { atomic_store(&lock_broken, true); }

void console_drain(void)
{
	u64 irq = enter();

	for (struct console_sink *s = sinks; s; s = s->next)
		if (s->drain)
			s->drain(s);
	leave(irq);
}
