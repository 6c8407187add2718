/* SPDX-License-Identifier: MIT */
/* The input is the loader's memory, with the information block at 0; its first byte's low bit picks the protocol. */
#include <stdlib.h>
#include <string.h>

#include "boot/bootinfo.h"

static const uint8_t *ram;
static size_t ram_size;

/* Each read is a copy of its own, so that the sanitizer sees any access beyond what was asked for. */
static void *pieces[1 << 16];
static unsigned n_pieces;

static const void *read_ram(hpa_t pa, u64 len)
{
	if (pa > ram_size || len > ram_size - pa || n_pieces == 1 << 16)
		return NULL;
	pieces[n_pieces] = malloc(len);
	return memcpy(pieces[n_pieces++], ram + pa, len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct bootinfo b;
	char val[32];

	if (size < 1)
		return 0;
	ram = data + 1;
	ram_size = size - 1;
	bootinfo_parse(data[0] & 1 ? MULTIBOOT1_MAGIC : MULTIBOOT2_MAGIC, 0, read_ram, &b);
	b.image_start = 0x200000;
	b.image_end = 0x280000;
	bootinfo_claim(&b);
	for (unsigned i = 0; i < b.ranges; i++) {
		const struct mem_range *r = &b.range[i];

		if (!r->len || r->start % PAGE_SIZE || r->len % PAGE_SIZE || r->kind > MEM_RESERVED)
			abort();
		if (i && r->start < r[-1].start + r[-1].len)
			abort();
	}
	bootinfo_option(&b, "console", val, sizeof(val));
	bootinfo_module(&b, "vmlinuz", 7);
	while (n_pieces)
		free(pieces[--n_pieces]);
	return 0;
}
