/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a kernel: the loaders must refuse or load, and a start state must be one that can be entered. The first
 * byte says how much memory the guest has and how many modules, the second which file: 0 to 3 a good kernel, in which
 * the rest are changes (offset and value, 4 bytes each), else the rest itself.
 */
#include <stdlib.h>
#include <string.h>

#include "guest/load.h"
#include "lib/assert.h"
#include "lib/errno.h"
#include "mm/frames.h"
#include "tests/host/host.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool in_ram(const struct memmap *map, gpa_t at)
{
	for (unsigned i = 0; i < map->n; i++)
		if (map->e[i].type == E820_RAM && at - map->e[i].start < map->e[i].len)
			return true;
	return false;
}

static void add(struct p2m *p, gpa_t first, gpa_t end, enum p2m_type type)
{
	if (end <= first)
		return;
	ASSERT(!p2m_add_slot(p, gpa_to_gfn(first), (end - first) / PAGE_SIZE, type));
	if (type == P2M_RAM)
		ASSERT(!p2m_populate_on_demand(p, gpa_to_gfn(first)));
	else
		ASSERT(!p2m_populate(p, gpa_to_gfn(first)));
}

static void check_start(const struct start_state *s, const struct memmap *map)
{
	if (s->long_mode) {
		ASSERT(in_ram(map, s->rip) && in_ram(map, s->rsi) && in_ram(map, s->cr3) && in_ram(map, s->gdt));
		ASSERT(s->cr3 % PAGE_SIZE == 0 && s->gdt_limit == 31);
	} else {
		ASSERT(s->rip >> 32 == 0 && in_ram(map, s->rbx) && s->rbx % 8 == 0);
	}
}

enum { FILE_SIZE = 0x2000, TEXT = 0x1000 };

static void put(u8 *file, u64 at, u64 v, size_t bytes) { memcpy(file + at, &v, bytes); }

static void make_linux(u8 *file)
{
	file[0x1f1] = 1;
	put(file, 0x1f4, (FILE_SIZE - 1024) / 16, 4);
	put(file, 0x1fe, 0xaa55, 2);
	put(file, 0x200, 0x6aeb, 2);
	memcpy(file + 0x202, "HdrS", 4);
	put(file, 0x206, 0x20f, 2);
	put(file, 0x22c, 0x7fffffff, 4);
	put(file, 0x230, 2 * MB, 4);
	put(file, 0x234, 0x10001, 4);
	put(file, 0x238, 255, 4);
	put(file, 0x258, 16 * MB, 8);
	put(file, 0x260, 8 * MB, 4);
}

/* 0: with a PVH note; 1 and 2: with a multiboot header at the start of its text. */
static void make_elf(u8 *file, unsigned multiboot)
{
	const u64 phdr[2][7] = {{1 | 7ul << 32, TEXT, 0xffffffff80100000, MB, 0xf00, 0x3000, 4096},
				{4, TEXT + 0x100, 0, 0, 0x40, 0x40, 4}};
	const u32 note[] = {4, 8, 18, 0x6e6558, 0x100180, 0};
	const u32 mb1[] = {0x1badb002, 3, 0u - 0x1badb005};
	const u32 mb2[] = {0xe85250d6, 0, 64, 0u - 0xe85250d6 - 64, 1, 12, 6, 0, 10, 24, MB, 32 * MB, 4096, 2, 0, 8};
	memcpy(file, "\x7f\x45\x4c\x46\2\1\1", 7);
	put(file, 16, 2 | 62 << 16, 4);
	put(file, 24, 0xffffffff80100800, 8);
	put(file, 32, 64, 8);
	put(file, 54, 56 | 2 << 16, 4);
	memcpy(file + 64, phdr, sizeof(phdr));
	memcpy(file + TEXT + 0x100, note, sizeof(note));
	memcpy(file + TEXT, multiboot == 1 ? mb1 : mb2, !multiboot ? 0 : multiboot == 1 ? sizeof(mb1) : sizeof(mb2));
}

/* The file for an input, in a block of exactly its size so that reading beyond it is seen. */
static u8 *make_file(const uint8_t *data, size_t size, size_t *len)
{
	unsigned kind = data[1] & 7;
	*len = kind > 3 ? size - 2 : FILE_SIZE;
	u8 *file = calloc(1, *len ? *len : 1);
	if (kind > 3)
		memcpy(file, data + 2, *len);
	else if (kind == 3)
		make_linux(file);
	else
		make_elf(file, kind);
	/* Most offsets are those of headers. */
	for (size_t i = 2, n = (data[1] >> 3) & 7; kind <= 3 && n-- && i + 4 <= size; i += 4) {
		unsigned at = data[i] | (data[i + 1] & 3) << 8;
		put(file, (data[i + 1] & 4 ? TEXT : 0) + at, data[i + 2] | data[i + 3] << 8, data[i + 1] & 8 ? 2 : 1);
	}
	if (kind <= 3 && data[1] & 64 && size > 2)
		*len = (size_t)data[2] << 5;
	return realloc(file, *len ? *len : 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct p2m p2m;
	static const struct blob modules[] = {{"one", "1", 1}, {"two", "22", 2}, {"none", "", 0}};
	struct memmap map;
	struct start_state start;
	struct load_error error;
	size_t len;
	if (size < 2)
		return 0;

	u8 *file = make_file(data, size, &len);
	memmap_build(&map, (1 + (data[0] >> 2)) * MB);
	host_machine(80 * MB);
	ASSERT(!p2m_init(&p2m, &pt_format_long, OWNER_GUEST, ORDER_2M, 40));
	add(&p2m, 0, 0xa0000, P2M_RAM);
	add(&p2m, GUEST_ROM_BASE, GUEST_ROM_BASE + GUEST_ROM_SIZE, P2M_RO);
	add(&p2m, MB, map.low_end, P2M_RAM);

	struct blob kernel = {"kernel", file, len};
	struct load_input in = {.p2m = &p2m,
				.map = &map,
				.kernel = &kernel,
				.module = modules,
				.modules = data[0] & 3,
				.cmdline = "a=b",
				.rsdp = GUEST_ACPI_BASE};
	int err = load_kernel(&in, &start, &error);
	ASSERT(err == 0 || err == -EINVAL || err == -ENOSPC);
	ASSERT(!err == !error.text[0] && memchr(error.text, 0, sizeof(error.text)));
	if (!err)
		check_start(&start, &map);
	p2m_free(&p2m);
	free(file);
	return 0;
}
