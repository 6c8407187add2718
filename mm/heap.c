/* SPDX-License-Identifier: MIT */
/*
 * Whole frames, whatever the size: the hypervisor has few objects for each guest and vCPU, and most hold pages that
 * hardware defines. What is smaller costs less than lists of small pieces would.
 */
#include "mm/heap.h"

#include "lib/assert.h"
#include "lib/bits.h"
#include "lib/port.h"
#include "mm/frames.h"

static unsigned order_of(size_t size) { return size <= PAGE_SIZE ? 0 : bit_high((size - 1) >> PAGE_SHIFT) + 1; }

void *heap_alloc(size_t size)
{
	unsigned order = order_of(size);
	mfn_t mfn;

	if (order >= FRAME_ORDERS || frames_alloc(order, OWNER_HOST, FRAMES_ZERO, &mfn))
		return NULL;
	return port_virt(mfn_to_hpa(mfn));
}

void heap_free(void *p, size_t size)
{
	if (!p)
		return;
	int err = frames_free(hpa_to_mfn(port_phys(p)), order_of(size), OWNER_HOST);
	ASSERT(!err);
}
