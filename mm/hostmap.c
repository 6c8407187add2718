/* SPDX-License-Identifier: MIT */
/*
 * IO_MAP and STACKS are handed out from the bottom up and never reused: what they hold lives as long as the hypervisor.
 */
#include "mm/hostmap.h"

#include "lib/errno.h"
#include "lib/lock.h"
#include "lib/port.h"
#include "mm/frames.h"
#include "mm/heap.h"
#include "mm/pt.h"

#define IO_END     (IO_MAP + 512 * GB)
#define LARGE      (PAGE_SIZE << ORDER_2M)
#define PHYS_LIMIT BIT(52)

static struct lock lock = LOCK_INIT(LOCK_HOSTMAP);
static struct pt pt;             /* changed under lock */
static u64 io_next, stacks_next; /* atomic */

static void flush(struct pt *p, const struct pt_debt *debt)
{
	(void)p;
	port_flush_host(debt->first, debt->last - debt->first + 1);
}

static const struct pt_ops ops = {.flush = flush};

int hostmap_init(unsigned max_order, bool nx)
{
	int err = pt_init(&pt, &pt_format_long, &ops, OWNER_HOST, max_order);

	pt.nx = nx;
	io_next = IO_MAP;
	stacks_next = STACKS;
	return err;
}

/* Needs lock. */
static bool is_empty(u64 va, u64 len)
{
	for (u64 step; len; va += step, len -= step) {
		struct pt_entry e = pt_lookup(&pt, va);
		u64 span = PAGE_SIZE << e.order;
		if (pt_present(e))
			return false;
		step = MIN(len, span - (va & (span - 1)));
	}
	return true;
}

int hostmap_map(u64 va, hpa_t pa, u64 len, enum host_prot prot, enum host_cache cache)
{
	static const u8 flags[] = {[HOST_R] = PT_R, [HOST_RW] = PT_R | PT_W | PT_D, [HOST_RX] = PT_R | PT_X};
	static const u8 caches[] = {[HOST_WB] = PT_WB, [HOST_UC] = PT_UC, [HOST_WC] = PT_WC};
	struct pt_entry e = {.pa = pa, .flags = flags[prot] | PT_A | PT_GLOBAL, .cache = caches[cache]};
	struct pt_debt debt = PT_DEBT_NONE;
	int err = -EEXIST;

	lock_take(&lock);
	if (is_empty(va, len))
		err = pt_map(&pt, va, len, e, &debt);
	lock_drop(&lock);
	pt_settle(&pt, &debt);
	return err;
}

/* A large device (a framebuffer) gets an address that lets it be mapped in 2 MB pages. */
void *hostmap_io(hpa_t pa, u64 len, enum host_cache cache)
{
	if (!len || pa >= PHYS_LIMIT || len > PHYS_LIMIT - pa)
		return NULL;
	hpa_t first = ROUND_DOWN(pa, PAGE_SIZE);
	u64 size = ROUND_UP(pa + len, PAGE_SIZE) - first;
	u64 room = size < LARGE ? size : ROUND_UP(size + LARGE, LARGE) + LARGE;
	u64 va = atomic_add(&io_next, room) - room;

	if (size >= LARGE)
		va = ROUND_UP(va, LARGE) + (first & (LARGE - 1));
	if (va + size > IO_END || hostmap_map(va, first, size, HOST_RW, cache))
		return NULL;
	return (void *)(va + (pa - first)); // NOLINT(performance-no-int-to-ptr)
}

void *hostmap_stack(u64 size)
{
	u64 va = atomic_add(&stacks_next, size + PAGE_SIZE) - size;
	void *memory = heap_alloc(size);

	if (!memory || hostmap_map(va, port_phys(memory), size, HOST_RW, HOST_WB)) {
		heap_free(memory, size);
		return NULL;
	}
	return (void *)(va + size); // NOLINT(performance-no-int-to-ptr)
}

hpa_t hostmap_root(void) { return mfn_to_hpa(pt.root); }

bool hostmap_is_guard(u64 va)
{
	return va >= STACKS && va < atomic_load(&stacks_next) && !pt_present(pt_lookup(&pt, va));
}
