/* SPDX-License-Identifier: MIT */
/* Objects of the hypervisor itself, zeroed. */
#pragma once

#include "lib/types.h"

/* Returns zeroed memory aligned to a page, or NULL. Takes LOCK_FRAMES. */
void *heap_alloc(size_t size) __attribute__((malloc));
/* size must be the one it was allocated with; p may be NULL. */
void heap_free(void *p, size_t size);
