/* SPDX-License-Identifier: MIT */
/*
 * Machine memory: a buddy allocator of orders 0 to 18 over one table with 16 bytes a frame. The table is also the M2P:
 * it says of every frame who owns it and at which gfn.
 */
#pragma once

#include "lib/types.h"

#define FRAME_ORDERS 19 /* 0 .. 18 */

/*
 * Owners. NONE: not RAM, or reserved by firmware, and never handed out. HOST: the hypervisor's own, such as image, heap
 * and host tables. Guests have ids from OWNER_GUEST up.
 */
enum { OWNER_NONE, OWNER_FREE, OWNER_HOST, OWNER_GUEST = 16 };

/*
 * The first frame of a block says what all of it is. FREE: a free block of .order. USED: an allocation of .order.
 * TABLE: a P2M or shadow table of the owner, never mapped into it. INSIDE: once the first of a block, now inside a
 * larger one. RESERVED: no RAM, or firmware's; also inside blocks that were never allocated.
 *
 * The other frames of an allocation have its owner, USED and FRAME_BODY too. Those of a free block say what they said
 * last, so that memory is freed without a visit to each frame: ask frames_block.
 */
enum frame_state { FRAME_RESERVED, FRAME_FREE, FRAME_INSIDE, FRAME_USED, FRAME_TABLE };

struct frame {
	union {
		u64 gfn; /* allocated to a guest: where it is mapped, or FRAME_NO_GFN */
		struct {
			u32 next, prev;
		}; /* free block head: links, as frame numbers */
	};
	u16 owner;
	u8 state; /* enum frame_state */
	u8 order;
	u32 count; /* a table's live entries; a used frame's is its owner's; else frames.c's */
};
_Static_assert(sizeof(struct frame) == 16, "the frame table's budget is 16 bytes a frame");

#define FRAME_NO_GFN (~0ul)
/* The .order of an allocated frame that is not the first of its allocation. */
#define FRAME_BODY 0x7f

/* table must hold n entries and be zeroed (all FRAME_RESERVED). Frames 0..n-1 become known. */
void frames_init(struct frame *table, u64 n);
/* Hands frames [first, first + count), in the table and reserved so far, to the allocator as free. Boot only. */
void frames_add(mfn_t first, u64 count);

/*
 * FRAMES_ZERO: the block is all zero when returned. FRAMES_CLEAN: so, and only one that is zero already. FRAMES_LOW: it
 * is below 1 MB (SIPI trampoline).
 */
enum { FRAMES_ZERO = 1, FRAMES_LOW = 2, FRAMES_CLEAN = 4 };
/* Allocates 2^order frames, naturally aligned. Returns 0 and *out, or -ENOMEM. Takes LOCK_FRAMES; zeroes outside it. */
int frames_alloc(unsigned order, u16 owner, unsigned flags, mfn_t *out) MUST_CHECK;
/*
 * Frees what was allocated (all, or any naturally aligned part: the allocation is split). Wrong owner, order, alignment
 * or a double free: -EINVAL and a log line; nothing changes.
 */
int frames_free(mfn_t mfn, unsigned order, u16 owner);

/* The entry of a frame, or NULL beyond the table. Fields owner/gfn/count of an allocated frame belong to its owner's
 * lock. */
struct frame *frame_of(mfn_t mfn);

/* Calls fn, under LOCK_FRAMES, for each frame that is the owner's. Frames that he allocates or frees meanwhile may be
 * missing, but none is seen while it changes. */
void frames_for_each(u16 owner, void (*fn)(void *ctx, mfn_t mfn, const struct frame *f), void *ctx);

/* The block that holds mfn: free, allocated, or no RAM (OWNER_NONE; a frame or 2 MB, also beyond the table). */
struct frames_block {
	mfn_t first;
	u16 owner;
	u8 order;
	bool table;
};
struct frames_block frames_block(mfn_t mfn);
/* Whether all of [mfn, mfn + n) are the owner's, and none is a table. */
bool frames_are(mfn_t mfn, u64 n, u16 owner);

/* M2P: frames [mfn, mfn + n) are at [gfn, gfn + n), or with FRAME_NO_GFN nowhere. Needs their owner's lock. */
void frames_set_gfn(mfn_t mfn, u64 n, gfn_t gfn);
/*
 * Frees what a guest owns, tables included, in a bounded part of memory, from *at (0 at first) on. Whether there is
 * more. Nobody may use any of it any more, TLBs included.
 */
bool frames_free_step(u16 owner, u64 *at);

/* For idle pCPUs: zeroes up to 64 KB of free memory, so that who allocates need not. Whether there is more to do. */
bool frames_scrub(void);

struct frames_stats {
	u64 total, free; /* frames */
	u64 dirty;       /* 2 MB ranges in which not all that is free is known to be zero */
};
void frames_stats(struct frames_stats *out);
