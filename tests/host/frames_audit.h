/* SPDX-License-Identifier: MIT */
/* The whole frame table against itself and the free lists, seen through the public interface only. */
#pragma once

#include "lib/bits.h"
#include "lib/print.h"
#include "mm/frames.h"

#define LOW_FRAMES (MB / PAGE_SIZE)

/* Frees all that an owner has. Returns how many frames. */
static inline u64 frames_free_all(u16 owner)
{
	struct frames_stats before, after;
	u64 at = 0;

	frames_stats(&before);
	while (frames_free_step(owner, &at))
		continue;
	frames_stats(&after);
	return after.free - before.free;
}

struct frames_audit {
	u64 errors, free;
	u64 blocks[2][FRAME_ORDERS], lists[2][FRAME_ORDERS]; /* below 1 MB, and above */
};

static inline void frames_bad(struct frames_audit *a, u64 n, const char *what)
{
	log("frames: frame %#lx: %s\n", n, what);
	a->errors++;
}

static inline bool frames_is_block(u64 n, unsigned order, bool high)
{
	const struct frame *f = frame_of(MFN(n));

	return f && f->state == FRAME_FREE && f->order == order && (n >= LOW_FRAMES) == high;
}

static inline void frames_audit_free(struct frames_audit *a, u64 n, const struct frame *f)
{
	unsigned order = f->order;
	bool high = n >= LOW_FRAMES;

	a->free += BIT(order);
	a->blocks[high][order]++;
	a->lists[high][order] += f->prev == ~0u;
	if (order < FRAME_ORDERS - 1 && frames_is_block(n ^ BIT(order), order, high))
		frames_bad(a, n, "free, and its buddy too");
	if (!high && n + BIT(order) > LOW_FRAMES)
		frames_bad(a, n, "block over the 1 MB boundary");
	if ((f->next != ~0u && (!frames_is_block(f->next, order, high) || frame_of(MFN(f->next))->prev != n)) ||
	    (f->prev != ~0u && (!frames_is_block(f->prev, order, high) || frame_of(MFN(f->prev))->next != n)))
		frames_bad(a, n, "broken links");
	if (f->owner != OWNER_FREE)
		frames_bad(a, n, "free, with an owner");
	for (u64 i = 1; i < BIT(order); i++)
		if (f[i].state == FRAME_FREE || (f[i].state > FRAME_INSIDE && f[i].order != FRAME_BODY))
			return frames_bad(a, n + i, "inside a free block, but not free");
}

static inline void frames_audit_used(struct frames_audit *a, u64 n, const struct frame *f)
{
	if (f->owner <= OWNER_FREE)
		frames_bad(a, n, "used, without owner");
	for (u64 i = 1; i < BIT(f->order); i++)
		if (f[i].owner != f->owner || f[i].order != FRAME_BODY || f[i].state != FRAME_USED)
			return frames_bad(a, n + i, "not as the allocation that it is part of");
}

static inline struct frames_audit frames_audit_all(void)
{
	struct frames_audit a = {0};
	struct frames_stats s;
	const struct frame *f;
	u64 known = 0;

	frames_stats(&s);
	while (frame_of(MFN(known)))
		known++;
	for (u64 n = 0, step; n < known; n += step) {
		f = frame_of(MFN(n));
		step = 1;
		if (f->state == FRAME_RESERVED)
			continue;
		if (f->order >= FRAME_ORDERS || !IS_ALIGNED(n, BIT(f->order)) || BIT(f->order) > known - n ||
		    f->state == FRAME_INSIDE) {
			frames_bad(&a, n, "not the first frame of anything");
			continue;
		}
		step = BIT(f->order);
		if (f->state == FRAME_FREE)
			frames_audit_free(&a, n, f);
		else
			frames_audit_used(&a, n, f);
	}
	if (a.free != s.free)
		frames_bad(&a, 0, "the count of free frames is wrong");
	for (unsigned i = 0; i < 2 * FRAME_ORDERS; i++)
		if (a.lists[i / FRAME_ORDERS][i % FRAME_ORDERS] != !!a.blocks[i / FRAME_ORDERS][i % FRAME_ORDERS])
			frames_bad(&a, i, "the free blocks of an order are not one list");
	return a;
}

/* How many errors there are; each is logged. */
static inline u64 frames_audit(void) { return frames_audit_all().errors; }

static inline u64 frames_blocks(unsigned order)
{
	struct frames_audit a = frames_audit_all();

	return a.blocks[0][order] + a.blocks[1][order];
}

/* The largest order of which a free block exists, or -1. */
static inline int frames_largest(void)
{
	struct frames_audit a = frames_audit_all();
	int order = FRAME_ORDERS - 1;

	while (order >= 0 && !a.blocks[0][order] && !a.blocks[1][order])
		order--;
	return order;
}
