/* SPDX-License-Identifier: MIT */
/*
 * Size classes of powers of two from 16 bytes to 2 KB, each with a list of free objects that are cut from single
 * frames. Those frames stay in their class: what a restarted guest needs is what the one before gave back.
 */
#include "mm/heap.h"

#include "lib/assert.h"
#include "lib/bits.h"
#include "lib/lock.h"
#include "lib/port.h"
#include "lib/string.h"
#include "mm/frames.h"

#define MIN_SHIFT 4u
#define CLASSES   (PAGE_SHIFT - MIN_SHIFT)

struct free_object {
	struct free_object *next;
};

static struct lock lock = LOCK_INIT(LOCK_HEAP);
static struct free_object *free_list[CLASSES]; /* under lock */

void heap_init(void) { memset(free_list, 0, sizeof(free_list)); }

/* ceil(log2(size)), and at least the smallest class. */
static unsigned shift_of(size_t size) { return size <= BIT(MIN_SHIFT) ? MIN_SHIFT : bit_high(size - 1) + 1; }

/* Adds a frame's worth of objects to a class. Needs lock. */
static bool refill(unsigned shift)
{
	struct free_object **list = &free_list[shift - MIN_SHIFT];
	mfn_t mfn;

	if (frames_alloc(0, OWNER_HOST, 0, &mfn))
		return false;
	char *page = port_virt(mfn_to_hpa(mfn));
	for (size_t at = PAGE_SIZE; at; at -= BIT(shift)) {
		struct free_object *o = (void *)(page + at - BIT(shift));
		o->next = *list;
		*list = o;
	}
	return true;
}

void *heap_alloc(size_t size)
{
	unsigned shift = shift_of(size);
	struct free_object *o = NULL;
	mfn_t mfn;

	if (shift >= PAGE_SHIFT + FRAME_ORDERS)
		return NULL;
	if (shift >= PAGE_SHIFT) {
		bool failed = frames_alloc(shift - PAGE_SHIFT, OWNER_HOST, FRAMES_ZERO, &mfn);
		return failed ? NULL : port_virt(mfn_to_hpa(mfn));
	}
	struct free_object **list = &free_list[shift - MIN_SHIFT];
	lock_take(&lock);
	if (*list || refill(shift)) {
		o = *list;
		*list = o->next;
	}
	lock_drop(&lock);
	return o ? memset(o, 0, BIT(shift)) : NULL;
}

void heap_free(void *p, size_t size)
{
	unsigned shift = shift_of(size);

	if (!p)
		return;
	if (shift >= PAGE_SHIFT) {
		int err = frames_free(hpa_to_mfn(port_phys(p)), shift - PAGE_SHIFT, OWNER_HOST);
		ASSERT(!err);
		return;
	}
	struct free_object *o = p, **list = &free_list[shift - MIN_SHIFT];
	lock_take(&lock);
	o->next = *list;
	*list = o;
	lock_drop(&lock);
}
