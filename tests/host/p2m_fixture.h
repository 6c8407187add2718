/* SPDX-License-Identifier: MIT */
/* What the unit tests of the P2M share: one guest, in either format, and pCPUs that interfere. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/port.h"
#include "mm/frames.h"
#include "p2m/internal.h"
#include "p2m/p2m.h"
#include "tests/host/frames_audit.h"
#include "tests/host/host.h"

#define OWNER (OWNER_GUEST + 3)
#define OTHER (OWNER_GUEST + 4)
#define RAM   0x100000u /* gfn: at 4 GB */
#define PAGES 2048u     /* there, of the tests' usual guest */

static struct p2m p2m;

static inline gpa_t gpa(u64 gfn) { return gfn_to_gpa(GFN(gfn)); }
static inline struct p2m_entry entry(u64 gfn) { return p2m_entry_at(&p2m, GFN(gfn)); }
static inline void assert_clean(void) { assert_int_equal(p2m_audit(&p2m), 0); }

static inline struct frames_stats memory(void)
{
	struct frames_stats s;

	frames_stats(&s);
	return s;
}

static inline u64 free_frames(void) { return memory().free; }

static inline mfn_t alloc(unsigned order, u16 owner)
{
	mfn_t mfn;

	assert_int_equal(frames_alloc(order, owner, FRAMES_ZERO, &mfn), 0);
	return mfn;
}

/* A guest without memory, on a machine of 64 MB. *state: the format. */
static inline int setup_empty(void **state)
{
	host_machine(64 * MB);
	host_log_clear();
	return p2m_init(&p2m, *state, OWNER, ORDER_1G, 40);
}

/* With PAGES of RAM, all there. */
static inline int setup_ram(void **state)
{
	return setup_empty(state) || p2m_add_slot(&p2m, GFN(RAM), PAGES, P2M_RAM) || p2m_populate(&p2m, GFN(RAM));
}

static inline int teardown(void **state)
{
	(void)state;
	host_fail_alloc(0);
	host_on_flush = NULL;
	host_on_irq = NULL;
	assert_clean();
	p2m_free(&p2m);
	frames_free_all(OTHER);
	assert_int_equal(frames_audit(), 0);
	assert_true(memory().total - memory().free <= 8); /* the heap's own */
	host_machine_free();
	return 0;
}

/* Something that happens on another pCPU, once, after the n-th lookup from now. */
static void (*meanwhile)(void);
static unsigned lookups;

static inline void on_irq(bool off)
{
	void (*fn)(void) = meanwhile;

	if (off || !fn || lookups--)
		return;
	meanwhile = NULL;
	fn();
}

static inline void interfere(void (*fn)(void), unsigned after)
{
	meanwhile = fn;
	lookups = after;
	host_on_irq = on_irq;
}

/* A test, in both formats. */
#define T(f)                                                            \
	{#f " (npt)", f, setup, teardown, (void *)&pt_format_long},     \
	{                                                               \
#f " (ept)", f, setup, teardown, (void *)&pt_format_ept \
	}
