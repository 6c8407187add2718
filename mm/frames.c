/* SPDX-License-Identifier: MIT */
/*
 * The buddy allocator. A free block of 2^n frames is naturally aligned; its first frame is FRAME_FREE with the order
 * and the links of one of the lists below:
 *
 *     list[zone][order] -> block <-> block <-> ...
 *
 * The second zone keeps the scarce memory below 1 MB, where CPUs start, for those who ask for it. No block reaches over
 * the boundary. An allocation comes from the smallest block that suffices, so that small ones use up what is broken
 * already and the large blocks stay whole.
 *
 * Only the first frame of a free block is written when memory is freed. What says FRAME_FREE, or USED or TABLE without
 * FRAME_BODY, is therefore always the first of a block that exists: of every block that ends, that one frame is marked.
 *
 * Freed memory keeps its contents; an allocation that another owner could read asks for zeroes, and is cleared without
 * the lock. Idle pCPUs clear free memory ahead, in place:
 *
 *     clean:   1 1 1 0 1 0 0 0     a bit for each 2 MB: whatever is free there is zero. Freeing clears it
 *                    ^ at          the scrubber goes round, 64 KB a step; who gets memory from under it waits that long
 */
#include "mm/frames.h"

#include "lib/assert.h"
#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/lock.h"
#include "lib/port.h"
#include "lib/print.h"
#include "lib/string.h"

#define TOP       (FRAME_ORDERS - 1)
#define NIL       (~0u)
#define LOW_ORDER 8u /* frames below 1 MB: 2^8 */
#define CHUNK     ORDER_2M

#define SCRUB          16u  /* frames zeroed in a step */
#define SCRUB_LOOK     64u  /* blocks looked at in a step */
#define FREE_LOOK      512  /* the same, when all of an owner is freed */
#define LIST_LOOK      8u   /* free blocks looked at for a clean one */
#define LOCKED_AT_ONCE 512u /* frames that frames_for_each looks at before it lets others have the lock */

enum { ZONE_ANY, ZONE_LOW, ZONES };

/* All under lock, but scrubbing and zeroing, and so are the entries of frames that are not allocated. */
static struct {
	struct lock lock;
	struct frame *table;
	u64 n; /* frames in the table */
	struct frames_stats stats;
	u32 list[ZONES][FRAME_ORDERS]; /* first block, or NIL */
	u64 *clean;                    /* NULL until the first scrub */
	u64 dirty;                     /* how many of its bits are not set */
	u64 chunk, at;                 /* the scrubber's place: the chunk, and the next frame in it */
	u32 scrubbing;                 /* there is one scrubber at a time; atomic */
	u64 zeroing;                   /* the frame from which on it zeroes SCRUB frames now, or NIL; atomic */
} mem = {.lock = LOCK_INIT(LOCK_FRAMES)};

struct frame *frame_of(mfn_t mfn) { return mfn.n < mem.n ? &mem.table[mfn.n] : NULL; }

static u32 *list_of(u64 n, unsigned order) { return &mem.list[n >> LOW_ORDER ? ZONE_ANY : ZONE_LOW][order]; }

static void list_add(u64 n, unsigned order)
{
	struct frame *f = &mem.table[n];
	u32 *first = list_of(n, order);

	*f = (struct frame){.next = *first, .prev = NIL, .owner = OWNER_FREE, .state = FRAME_FREE, .order = order};
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
	f->state = FRAME_INSIDE;
	f->order = FRAME_BODY;
}

/* An allocated block's state is its owner's, who may be making a table of it. */
static bool is_free_block(u64 n, unsigned order)
{
	return n < mem.n && atomic_load_relaxed(&mem.table[n].state) == FRAME_FREE && mem.table[n].order == order;
}

/* The first frame of the block, free or allocated, that holds frame n; NIL if there is none. */
static u64 block_of(u64 n)
{
	for (unsigned order = 0; order <= TOP && n < mem.n; order++) {
		u64 first = ROUND_DOWN(n, BIT(order));
		const struct frame *f = &mem.table[first];
		unsigned state = atomic_load_relaxed(&f->state);
		if ((state == FRAME_FREE || state == FRAME_USED || state == FRAME_TABLE) && f->order <= TOP &&
		    f->order >= order)
			return first;
	}
	return NIL;
}

/* Whether there is no RAM in the 2 MB around frame n. */
static bool is_hole(u64 n)
{
	const struct frame *f = frame_of(MFN(ROUND_DOWN(n, BIT(CHUNK))));

	return f && f->state == FRAME_RESERVED && !f->count;
}

/* Where the block ends that frame n is in; or the hole, or the frame. */
static u64 block_end(u64 n)
{
	u64 first = block_of(n);

	if (first != NIL)
		return first + BIT(mem.table[first].order);
	return is_hole(n) ? ROUND_DOWN(n, BIT(CHUNK)) + BIT(CHUNK) : n + 1;
}

/* What is clean. */

static u64 chunks(void) { return (mem.n + BIT(CHUNK) - 1) >> CHUNK; }
static u64 last_chunk(u64 n, unsigned order) { return (n + BIT(order) - 1) >> CHUNK; }

static bool is_clean(u64 n, unsigned order)
{
	for (u64 c = n >> CHUNK; c <= last_chunk(n, order); c++)
		if (!mem.clean || !bitmap_test(mem.clean, c))
			return false;
	return true;
}

static void set_dirty(u64 n, unsigned order)
{
	u64 first = n >> CHUNK, last = last_chunk(n, order);

	if (first <= mem.chunk && mem.chunk <= last)
		mem.at = mem.chunk << CHUNK;
	for (u64 w = first / 64; mem.clean && w <= last / 64; w++) {
		u64 these = BITS(w == last / 64 ? last % 64 : 63, w == first / 64 ? first % 64 : 0);
		for (u64 were = mem.clean[w] & these; were; were &= were - 1)
			mem.dirty++;
		mem.clean[w] &= ~these;
	}
}

/* Blocks. */

/* The entries of a new allocation, as the words they are stored by: for a guest's memory this is most of the work. */
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
	mem.table[n].state = FRAME_INSIDE;
	mem.table[n].owner = OWNER_FREE;
	mem.table[n].order = FRAME_BODY;
	mem.stats.free += BIT(order);
	set_dirty(n, order);
	for (u64 buddy; order < TOP; order++, n = MIN(n, buddy)) {
		buddy = n ^ BIT(order);
		if (!is_free_block(buddy, order) || list_of(buddy, order) != list_of(n, order))
			break;
		list_del(buddy, order);
	}
	list_add(n, order);
}

/* Puts [n, end) on the lists. Only frame 0 could reach past 1 MB. */
static void put_range(u64 n, u64 end)
{
	for (unsigned order; n < end; n += BIT(order)) {
		unsigned aligned = n ? MIN(bit_low(n), TOP) : LOW_ORDER;
		order = MIN(aligned, bit_high(end - n));
		put(n, order);
	}
}

/* Of the list that begins with block n: the first whose beginning is clean, if one of the first few is; or else n. */
static u32 prefer_clean(u32 n, unsigned order)
{
	u32 block = n;

	for (unsigned i = 0; i < LIST_LOOK && block != NIL; i++, block = mem.table[block].next)
		if (is_clean(block, order))
			return block;
	return n;
}

/* Takes the smallest sufficient block and gives back what is too much of it. Returns NIL if there is none. */
static u32 take(unsigned order, u16 owner, unsigned flags)
{
	struct frame used = {.gfn = FRAME_NO_GFN, .owner = owner, .state = FRAME_USED, .order = FRAME_BODY};

	for (unsigned zone = flags & FRAMES_LOW ? ZONE_LOW : ZONE_ANY; zone < ZONES; zone++) {
		for (unsigned o = order; o <= TOP; o++) {
			u32 n = mem.list[zone][o];
			if (flags & (FRAMES_ZERO | FRAMES_CLEAN))
				n = prefer_clean(n, order);
			if (n == NIL || ((flags & FRAMES_CLEAN) && !is_clean(n, order)))
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
	mem.clean = NULL;
	mem.zeroing = NIL;
}

void frames_add(mfn_t first, u64 count)
{
	u64 end = first.n + count;

	ASSERT(end <= mem.n);
	lock_take(&mem.lock);
	mem.stats.total += count;
	for (u64 c = first.n >> CHUNK; c << CHUNK < end; c++)
		if (mem.table[c << CHUNK].state == FRAME_RESERVED)
			mem.table[c << CHUNK].count = 1; /* there is RAM in these 2 MB */
	put_range(first.n, end);
	lock_drop(&mem.lock);
}

/* Allocation. */

/* Whether the scrubber is in the block. Once it has left that, it does not come back: the block is not free any more.
 */
static bool being_scrubbed(u64 n, unsigned order)
{
	u64 at = atomic_load(&mem.zeroing);

	return at != NIL && at < n + BIT(order) && at + SCRUB > n;
}

int frames_alloc(unsigned order, u16 owner, unsigned flags, mfn_t *out)
{
	ASSERT(order <= TOP && owner > OWNER_FREE);
	if (port_fail_alloc())
		return -ENOMEM;
	lock_take(&mem.lock);
	u32 n = take(order, owner, flags);
	bool clean = n != NIL && is_clean(n, order);
	lock_drop(&mem.lock);
	if (n == NIL)
		return -ENOMEM;
	while (being_scrubbed(n, order))
		port_relax();
	*out = MFN(n);
	if ((flags & FRAMES_ZERO) && !clean)
		memset(port_virt(mfn_to_hpa(*out)), 0, PAGE_SIZE << order);
	return 0;
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
	if (order <= TOP && IS_ALIGNED(n, BIT(order)))
		head = block_of(n);
	bool ok = head != NIL && owner > OWNER_FREE && mem.table[head].owner == owner && mem.table[head].order >= order;
	if (ok) {
		split_allocation(head, n, order);
		put(n, order);
	}
	lock_drop(&mem.lock);

	if (ok)
		return 0;
	log("frames: owner %u may not free frame %#lx, order %u\n", owner, n, order);
	return -EINVAL;
}

/* What the owner had lies together more often than not, and goes back to the lists together. */
bool frames_free_step(u16 owner, u64 *at)
{
	const struct frame gone = {.owner = OWNER_FREE, .state = FRAME_INSIDE, .order = FRAME_BODY};
	struct frame *table = mem.table;
	u64 n = *at, end = mem.n;

	lock_take(&mem.lock);
	for (int looks = FREE_LOOK; looks > 0 && n < end; looks--) {
		u64 run = n;
		for (; n < end && table[n].owner == owner && looks > 0; looks--) {
			struct frame *f = &table[n];
			n += BIT(f->order);
			*f = gone;
		}
		if (n == run)
			n = block_end(n);
		else
			put_range(run, n);
	}
	lock_drop(&mem.lock);
	*at = n;
	return n < end;
}

/* Questions. */

struct frames_block frames_block(mfn_t mfn)
{
	struct frames_block b = {.first = mfn};

	lock_take(&mem.lock);
	u64 first = block_of(mfn.n);
	if (first != NIL) {
		const struct frame *f = &mem.table[first];
		bool table = atomic_load_relaxed(&f->state) == FRAME_TABLE;
		b = (struct frames_block){MFN(first), f->owner, f->order, table};
	} else if (is_hole(mfn.n)) {
		b = (struct frames_block){MFN(ROUND_DOWN(mfn.n, BIT(CHUNK))), .order = CHUNK};
	}
	lock_drop(&mem.lock);
	return b;
}

bool frames_are(mfn_t mfn, u64 n, u16 owner)
{
	for (u64 end = mfn.n + n; mfn.n < end && mfn.n < mem.n;) {
		struct frames_block b = frames_block(mfn);
		if (b.owner != owner || b.table)
			return false;
		mfn.n = b.first.n + BIT(b.order);
	}
	return owner == OWNER_NONE || mfn.n <= mem.n;
}

void frames_for_each(u16 owner, void (*fn)(void *ctx, mfn_t mfn, const struct frame *f), void *ctx)
{
	for (u64 n = 0; n < mem.n;) {
		lock_take(&mem.lock);
		u64 block = block_of(n);
		if (block != NIL && is_free_block(block, mem.table[block].order)) /* one that has grown over n */
			n = block_end(n);
		for (u64 end = MIN(n + LOCKED_AT_ONCE, mem.n); n < end;) {
			const struct frame *f = &mem.table[n];
			u64 step = is_free_block(n, f->order) ? BIT(f->order) : 1;
			if (step == 1 && f->owner == owner)
				fn(ctx, MFN(n), f);
			n += step;
		}
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
	out->dirty = mem.clean ? mem.dirty : chunks();
	lock_drop(&mem.lock);
}

/* Scrubbing. */

static bool start_scrubbing(void)
{
	u64 bytes = ROUND_UP(chunks(), 64) / 8;
	unsigned order = bytes <= PAGE_SIZE ? 0 : bit_high((bytes - 1) >> PAGE_SHIFT) + 1;
	mfn_t mfn;

	if (frames_alloc(order, OWNER_HOST, FRAMES_ZERO, &mfn))
		return false;
	lock_take(&mem.lock);
	mem.clean = port_virt(mfn_to_hpa(mfn));
	mem.dirty = chunks();
	mem.chunk = mem.at = 0;
	lock_drop(&mem.lock);
	return true;
}

/* The next free frames in the scrubber's chunk, *n of them, or NIL. At a chunk's end that is clean. Needs the lock. */
static u64 next_piece(u64 *n)
{
	for (unsigned i = 0; i < SCRUB_LOOK && mem.dirty; i++) {
		u64 end = MIN((mem.chunk + 1) << CHUNK, mem.n), at = mem.at;
		if (at == end || bitmap_test(mem.clean, mem.chunk)) {
			mem.dirty -= !bitmap_test(mem.clean, mem.chunk);
			bitmap_set(mem.clean, mem.chunk);
			mem.chunk = (mem.chunk + 1) % chunks();
			mem.at = mem.chunk << CHUNK;
			continue;
		}
		u64 block = block_of(at), after = block == NIL ? at + 1 : block + BIT(mem.table[block].order);
		bool free = block != NIL && mem.table[block].owner == OWNER_FREE;
		mem.at = MIN(end, free ? MIN(after, at + SCRUB) : after);
		*n = mem.at - at;
		if (free)
			return at;
	}
	return NIL;
}

/* What is zero already is only read: under another hypervisor a write would make it real. */
static void make_zero(u64 *at, u64 frames)
{
	u64 *end = at + frames * (PAGE_SIZE / sizeof(*at));

	while (at < end && !*at)
		at++;
	memset(at, 0, (size_t)(end - at) * sizeof(*at));
}

bool frames_scrub(void)
{
	u64 n;

	if (atomic_swap(&mem.scrubbing, 1))
		return false;
	bool more = mem.clean || start_scrubbing();
	if (more) {
		lock_take(&mem.lock);
		u64 first = next_piece(&n);
		atomic_store(&mem.zeroing, first);
		more = mem.dirty;
		lock_drop(&mem.lock);
		if (first != NIL)
			make_zero(port_virt(mfn_to_hpa(MFN(first))), n);
		atomic_store(&mem.zeroing, NIL);
	}
	atomic_store(&mem.scrubbing, 0);
	return more;
}
