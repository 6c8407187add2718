/* SPDX-License-Identifier: MIT */
/*
 * The buddy allocator. A free block of 2^n frames is naturally aligned; its first frame is FRAME_FREE_HEAD with the
 * order and the links of one of the lists below, all others are FRAME_FREE_BODY:
 *
 *     list[zone][order] -> block <-> block <-> ...
 *
 * The second zone keeps the scarce memory below 1 MB, where CPUs start, for those who ask for it. No block reaches over
 * the boundary.
 *
 * Freed memory keeps its contents; an allocation that another owner could read asks for zeroes, and is cleared without
 * the lock. So each frame is cleared once at most, and not at all for those who fill it themselves.
 */
#include "mm/frames.h"

#include "lib/assert.h"
#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/lock.h"
#include "lib/port.h"
#include "lib/print.h"
#include "lib/string.h"

#define TOP            (FRAME_ORDERS - 1)
#define NIL            (~0u)
#define LOCKED_AT_ONCE 512u /* frames that frames_for_each looks at before it lets others have the lock */
#define LOW_ORDER      8u   /* frames below 1 MB: 2^8 */

enum { ZONE_ANY, ZONE_LOW, ZONES };

/* All under lock, and so are the entries of frames that are not allocated. */
static struct {
	struct lock lock;
	struct frame *table;
	u64 n; /* frames in the table */
	struct frames_stats stats;
	u32 list[ZONES][FRAME_ORDERS]; /* first block, or NIL */
} mem = {.lock = LOCK_INIT(LOCK_FRAMES)};

struct frame *frame_of(mfn_t mfn) { return mfn.n < mem.n ? &mem.table[mfn.n] : NULL; }

static u32 *list_of(u64 n, unsigned order) { return &mem.list[n >> LOW_ORDER ? ZONE_ANY : ZONE_LOW][order]; }

static void list_add(u64 n, unsigned order)
{
	struct frame *f = &mem.table[n];
	u32 *first = list_of(n, order);

	f->state = FRAME_FREE_HEAD;
	f->order = order;
	f->next = *first;
	f->prev = NIL;
	if (f->next != NIL)
		mem.table[f->next].prev = (u32)n;
	*first = (u32)n;
}

static void list_del(u64 n, unsigned order)
{
	struct frame *f = &mem.table[n];

	*(f->prev == NIL ? list_of(n, order) : &mem.table[f->prev].next) = f->next;
	if (f->next != NIL)
		mem.table[f->next].prev = f->prev;
	f->state = FRAME_FREE_BODY;
}

/* An allocated block's state is its owner's, who may be making a table of it. */
static bool is_free_block(u64 n, unsigned order)
{
	return n < mem.n && atomic_load_relaxed(&mem.table[n].state) == FRAME_FREE_HEAD && mem.table[n].order == order;
}

/* Entries as the words they are stored by: at boot this marks all of memory, and is most of the boot's work. */
static void fill(u64 n, unsigned order, struct frame f)
{
	union {
		struct frame f;
		u64 word[2];
	} entry = {f}, *to = (void *)&mem.table[n], *end = to + BIT(order);
	u64 first = entry.word[0], second = entry.word[1];

#pragma GCC unroll 8
	for (; to != end; to++) {
		to->word[0] = first;
		to->word[1] = second;
	}
}

/* Puts a block on its list, joined with its buddy as long as that is free too. */
static void put(u64 n, unsigned order)
{
	fill(n, order, (struct frame){.owner = OWNER_FREE, .state = FRAME_FREE_BODY});
	mem.stats.free += BIT(order);
	for (u64 buddy; order < TOP; order++, n = MIN(n, buddy)) {
		buddy = n ^ BIT(order);
		if (!is_free_block(buddy, order) || list_of(buddy, order) != list_of(n, order))
			break;
		list_del(buddy, order);
	}
	list_add(n, order);
}

/* Takes the smallest sufficient block and gives back what is too much of it. Returns NIL if there is none. */
static u32 take(unsigned order, u16 owner, bool low)
{
	struct frame used = {.gfn = FRAME_NO_GFN, .owner = owner, .state = FRAME_USED, .order = FRAME_BODY};

	for (unsigned zone = low ? ZONE_LOW : ZONE_ANY; zone < ZONES; zone++) {
		for (unsigned o = order; o <= TOP; o++) {
			u32 n = mem.list[zone][o];
			if (n == NIL)
				continue;
			list_del(n, o);
			while (o-- > order)
				list_add(n + BIT(o), o);
			fill(n, order, used);
			mem.table[n].order = order;
			mem.stats.free -= BIT(order);
			return n;
		}
	}
	return NIL;
}

/* Boot. */

void frames_init(struct frame *table, u64 n)
{
	ASSERT(n < NIL);
	mem.table = table;
	mem.n = n;
	mem.stats = (struct frames_stats){0};
	memset(mem.list, 0xff, sizeof(mem.list));
}

void frames_add(mfn_t first, u64 count)
{
	u64 end = first.n + count;

	ASSERT(end <= mem.n);
	lock_take(&mem.lock);
	mem.stats.total += count;
	for (u64 n = first.n, order; n < end; n += BIT(order)) {
		unsigned aligned = n ? MIN(bit_low(n), TOP) : LOW_ORDER; /* only frame 0 could reach past 1 MB */
		order = MIN(aligned, bit_high(end - n));
		put(n, order);
	}
	lock_drop(&mem.lock);
}

/* Allocation. */

int frames_alloc(unsigned order, u16 owner, unsigned flags, mfn_t *out)
{
	ASSERT(order <= TOP && owner > OWNER_FREE);
	if (port_fail_alloc())
		return -ENOMEM;
	lock_take(&mem.lock);
	u32 n = take(order, owner, flags & FRAMES_LOW);
	lock_drop(&mem.lock);
	if (n == NIL)
		return -ENOMEM;
	*out = MFN(n);
	if (flags & FRAMES_ZERO)
		memset(port_virt(mfn_to_hpa(*out)), 0, PAGE_SIZE << order);
	return 0;
}

/* The first frame of the allocation that [n, n + 2^order) is part of, or NIL. */
static u64 allocation_of(u64 n, unsigned order)
{
	for (unsigned o = order; o <= TOP; o++) {
		u64 head = ROUND_DOWN(n, BIT(o));
		const struct frame *f = &mem.table[head];
		if (f->state != FRAME_USED && f->state != FRAME_TABLE)
			return NIL;
		if (f->order != FRAME_BODY)
			return f->order >= o ? head : NIL;
	}
	return NIL;
}

/* Makes [n, n + 2^order) of the allocation at head one of its own, and of what remains the largest that fit. */
static void split_allocation(u64 head, u64 n, unsigned order)
{
	for (unsigned o = mem.table[head].order; o > order;) {
		u64 half = head + BIT(--o);
		mem.table[n < half ? half : head].order = o;
		if (n >= half)
			head = half;
	}
}

int frames_free(mfn_t mfn, unsigned order, u16 owner)
{
	u64 n = mfn.n, head = NIL;

	lock_take(&mem.lock);
	if (order <= TOP && IS_ALIGNED(n, BIT(order)) && n < mem.n && BIT(order) <= mem.n - n &&
	    mem.table[n].owner == owner)
		head = allocation_of(n, order);
	if (head != NIL) {
		split_allocation(head, n, order);
		put(n, order);
	}
	lock_drop(&mem.lock);

	if (head != NIL)
		return 0;
	log("frames: owner %u may not free frame %#lx, order %u\n", owner, n, order);
	return -EINVAL;
}

/* Reads others' entries without the lock: a stale order only skips frames that were not the owner's at the time. */
u64 frames_free_all(u16 owner)
{
	u64 freed = 0;

	for (u64 n = 0, step; n < mem.n; n += step) {
		struct frame f = mem.table[n];
		step = f.order <= TOP ? BIT(f.order) : 1;
		if (f.owner == owner && f.order <= TOP && !frames_free(MFN(n), f.order, owner))
			freed += step;
	}
	return freed;
}

void frames_for_each(u16 owner, void (*fn)(void *ctx, mfn_t mfn, const struct frame *f), void *ctx)
{
	for (u64 n = 0; n < mem.n;) {
		lock_take(&mem.lock);
		for (u64 end = MIN(n + LOCKED_AT_ONCE, mem.n); n < end; n++)
			if (mem.table[n].owner == owner)
				fn(ctx, MFN(n), &mem.table[n]);
		lock_drop(&mem.lock);
	}
}

void frames_set_gfn(mfn_t mfn, u64 n, gfn_t gfn)
{
	for (u64 i = 0; i < n; i++)
		mem.table[mfn.n + i].gfn = gfn.n == FRAME_NO_GFN ? FRAME_NO_GFN : gfn.n + i;
}

void frames_stats(struct frames_stats *out)
{
	lock_take(&mem.lock);
	*out = mem.stats;
	lock_drop(&mem.lock);
}
