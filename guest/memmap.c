/* SPDX-License-Identifier: MIT */
/* The guest's memory map. The reserved kilobyte below 640 KB is RAM to the P2M: where a PC's firmware has its EBDA. */
#include "guest/load.h"

#define BASE_END 0x9fc00ul
#define HOLE     0xa0000ul

void memmap_build(struct memmap *m, u64 memory)
{
	memory = MAX(memory, MB);
	*m = (struct memmap){.low_end = MIN(memory, GUEST_MMIO_BASE), .high_end = 4 * GB};
	m->e[m->n++] = (struct e820){0, BASE_END, E820_RAM};
	m->e[m->n++] = (struct e820){BASE_END, HOLE - BASE_END, E820_RESERVED};
	m->e[m->n++] = (struct e820){GUEST_ROM_BASE, GUEST_ROM_SIZE, E820_RESERVED};
	if (m->low_end > MB)
		m->e[m->n++] = (struct e820){MB, m->low_end - MB, E820_RAM};
	if (memory <= GUEST_MMIO_BASE)
		return;
	m->high_end += memory - GUEST_MMIO_BASE;
	m->e[m->n++] = (struct e820){4 * GB, m->high_end - 4 * GB, E820_RAM};
}
