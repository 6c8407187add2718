/* SPDX-License-Identifier: MIT */
/*
 * Linux bzImage by the 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst, zero-page.rst).
 *
 *     low memory    zero page with the setup header and E820, command line, identity page tables, GDT
 *     pref_address  the protected-mode part and the room it says it needs (init_size); entered at + 0x200
 *     anywhere      initrd: the parts one after another, each padded to 4 bytes
 *
 * Low memory stays RAM in E820: the kernel copies what it needs before it uses it. It is not moved from the address it
 * prefers: it is the first to be loaded, and would move itself up there from anywhere lower.
 */
#include "guest/load_impl.h"
#include "lib/errno.h"
#include "lib/string.h"

/* The setup header's fields are at the same offsets in the file and in the zero page. */
enum { SETUP_SECTS = 0x1f1, SYSSIZE = 0x1f4, HEADER_LEN = 0x201, MAGIC = 0x202, VERSION = 0x206, LOADER = 0x210 };
enum { CODE32_START = 0x214, INITRD = 0x218, INITRD_SIZE = 0x21c, CMDLINE = 0x228, INITRD_MAX = 0x22c };
enum { XLOADFLAGS = 0x236, CMDLINE_MAX = 0x238, SETUP_DATA = 0x250, PREF_ADDRESS = 0x258, INIT_SIZE = 0x260 };
enum { SETUP_END = 0x290, ZP_RSDP = 0x70, ZP_E820_COUNT = 0x1e8, ZP_E820 = 0x2d0 };
enum { ENTRY_64 = 0x200, E820_SIZE = 20, LOADER_UNKNOWN = 0xff, XLF_KERNEL_64 = 1 };

/* Identity over 4 GB in 2 MB pages, and a GDT. */
static void write_tables(struct loader *l)
{
	enum { TABLE = 0x63, LARGE = 0xe3 }; /* present, writable, accessed, dirty; large */
	static const u64 gdt[] = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff}; /* 0x10 code, 0x18 data */
	gpa_t pml4 = load_place(l, "page tables", 7 * PAGE_SIZE, LOW_MEMORY, MB);
	gpa_t pdpt = pml4 + PAGE_SIZE, pd = pdpt + PAGE_SIZE;

	load_put(l, pml4, pdpt | TABLE, 8);
	for (u64 i = 0; i < 4; i++)
		load_put(l, pdpt + 8 * i, (pd + i * PAGE_SIZE) | TABLE, 8);
	for (u64 i = 0; i < 2048; i++)
		load_put(l, pd + 8 * i, i * 2 * MB | LARGE, 8);
	l->out->cr3 = pml4;
	l->out->gdt = pd + 4 * PAGE_SIZE;
	l->out->gdt_limit = sizeof(gdt) - 1;
	load_write(l, l->out->gdt, gdt, sizeof(gdt));
}

static void load_code(struct loader *l)
{
	u64 size = l->in->kernel->size, sectors = load_word(l, SETUP_SECTS, 1);
	u64 code = 512 * (1 + (sectors ? sectors : 4)), code_size = 16 * load_word(l, SYSSIZE, 4);
	u64 version = load_word(l, VERSION, 2), start = load_word(l, PREF_ADDRESS, 8);
	if (version < 0x20c || !(load_word(l, XLOADFLAGS, 2) & XLF_KERNEL_64))
		load_fail(l, -EINVAL,
			  "has no 64-bit entry point (boot protocol %lu.%lu): a 64-bit Linux 3.8 or later is needed",
			  version >> 8, version & 0xff);
	if (code_size <= ENTRY_64 || code + code_size > size)
		load_fail(l, -EINVAL, "is cut short: it has %lu bytes, its header says %lu", size, code + code_size);
	load_take(l, "the kernel", start, MAX(load_word(l, INIT_SIZE, 4), code_size), LIMIT_4G);
	load_write(l, start, (const char *)l->in->kernel->data + code, code_size);
	l->out->long_mode = true;
	l->out->rip = start + ENTRY_64;
}

static void load_initrd(struct loader *l, gpa_t zp)
{
	const struct blob *part = l->in->module, *end = part + l->in->modules;
	u64 size = 0;
	for (const struct blob *b = part; b < end; b++)
		size = ROUND_UP(size, 4) + MIN(b->size, LIMIT_4G); /* so that no sum wraps: 4 GB never fit */
	if (!size)
		return;
	gpa_t start = load_place(l, part->name, size, MB, load_word(l, INITRD_MAX, 4) + 1), at = start;
	for (const struct blob *b = part; b < end; b++) {
		at = ROUND_UP(at, 4);
		load_append(l, &at, b->data, b->size);
	}
	load_put(l, zp + INITRD, start, 4);
	load_put(l, zp + INITRD_SIZE, size, 4);
}

static gpa_t write_zero_page(struct loader *l)
{
	const struct memmap *map = l->in->map;
	const char *file = l->in->kernel->data;
	u64 length = strlen(l->in->cmdline), most = load_word(l, CMDLINE_MAX, 4);
	gpa_t zp = load_place(l, "the zero page", PAGE_SIZE + length + 1, LOW_MEMORY, MB), cmdline = zp + PAGE_SIZE;
	if (length > most)
		load_fail(l, -EINVAL, "takes a command line of at most %lu bytes; this one has %lu", most, length);
	u64 header_end = MIN(MAGIC + load_word(l, HEADER_LEN, 1), (u64)SETUP_END);
	load_write(l, zp + SETUP_SECTS, file + SETUP_SECTS, header_end - SETUP_SECTS);
	load_put(l, zp + LOADER, LOADER_UNKNOWN, 1);
	load_put(l, zp + CODE32_START, l->out->rip - ENTRY_64, 4);
	load_put(l, zp + CMDLINE, load_string(l, &cmdline, l->in->cmdline), 4);
	load_put(l, zp + SETUP_DATA, 0, 8);
	load_put(l, zp + ZP_RSDP, l->in->rsdp, 8);
	load_put(l, zp + ZP_E820_COUNT, map->n, 1);
	for (u64 i = 0; i < map->n; i++)
		load_write(l, zp + ZP_E820 + i * E820_SIZE, &map->e[i], E820_SIZE);
	return zp;
}

bool load_linux(struct loader *l)
{
	char magic[4];
	if (!load_peek(l, MAGIC, magic, sizeof(magic)) || memcmp(magic, "HdrS", sizeof(magic)))
		return false;
	load_code(l);
	l->out->rsi = write_zero_page(l);
	load_initrd(l, l->out->rsi);
	write_tables(l);
	return true;
}
