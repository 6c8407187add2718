/* SPDX-License-Identifier: MIT */
/* Small objects for the hypervisor itself, zeroed. Sizes over a page are whole frames. */
#ifndef MM_HEAP_H
#define MM_HEAP_H

#include "lib/types.h"

/* Starts empty; before the first use, and whenever the frame allocator starts over. */
void heap_init(void);
/* Returns zeroed memory aligned to at least 16 bytes (a page for sizes of a page and more), or NULL. Takes LOCK_HEAP.
 */
void *heap_alloc(size_t size) __attribute__((malloc));
/* size must be the one it was allocated with; p may be NULL. */
void heap_free(void *p, size_t size);

#endif
