/* SPDX-License-Identifier: MIT */
/*
 * Linux bzImage by the 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst, zero-page.rst).
 *
 *     low memory    identity page tables, GDT, zero page with the setup header and E820, command line
 *     pref_address  the protected-mode part and the room it says it needs (init_size); entered at + 0x200
 *     high          initrd: the parts one after another, each padded to 4 bytes
 *
 * Low memory stays RAM in E820: the kernel copies what it needs before it uses it.
 */
#include "guest/load_impl.h"
#include "lib/errno.h"
#include "lib/string.h"

/* Of the setup header, in the file and in the zero page; and of the zero page alone. */
enum { SETUP_START = 0x1f1, SETUP_END = 0x290, ZP_RSDP = 0x70, ZP_E820_COUNT = 0x1e8, ZP_E820 = 0x2d0 };
enum { ENTRY_64 = 0x200, E820_SIZE = 20, LOADER_UNKNOWN = 0xff, XLF_KERNEL_64 = 1 };

struct PACKED setup_header {
	u8 setup_sects;
	u16 root_flags;
	u32 syssize; /* of the protected-mode part, in 16 bytes */
	u16 ram_size, vid_mode, root_dev, boot_flag;
	u8 jump, header_end; /* the header ends at 0x202 + header_end */
	u32 magic;
	u16 version;
	u32 realmode_switch;
	u16 start_sys_seg, kernel_version;
	u8 type_of_loader, loadflags;
	u16 setup_move_size;
	u32 code32_start, ramdisk_image, ramdisk_size, bootsect_kludge;
	u16 heap_end_ptr;
	u8 ext_loader_ver, ext_loader_type;
	u32 cmd_line_ptr, initrd_addr_max, kernel_alignment;
	u8 relocatable, min_alignment;
	u16 xloadflags;
	u32 cmdline_size, hardware_subarch;
	u64 hardware_subarch_data;
	u32 payload_offset, payload_length;
	u64 setup_data, pref_address;
	u32 init_size, handover_offset;
};
_Static_assert(SETUP_START + sizeof(struct setup_header) == 0x268, "the header of boot protocol 2.12");
_Static_assert(offsetof(struct e820, type) == 16, "struct e820 begins as the zero page wants it");

/* Identity over 4 GB in 2 MB pages, and a GDT. */
static void write_tables(struct loader *l)
{
	enum { TABLE = 0x63, LARGE = 0xe3 }; /* present, writable, accessed, dirty; large */
	static const u64 gdt[] = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff}; /* 0x10 code, 0x18 data */
	gpa_t pml4 = load_place(l, "page tables", 7 * PAGE_SIZE, LOW_MEMORY, MB, LOAD_LOWEST);
	gpa_t pdpt = pml4 + PAGE_SIZE, pd = pdpt + PAGE_SIZE;
	u64 entry[64];

	load_write(l, pml4, &(u64){pdpt | TABLE}, sizeof(u64));
	for (u64 i = 0; i < 4; i++)
		load_write(l, pdpt + 8 * i, &(u64){(pd + i * PAGE_SIZE) | TABLE}, sizeof(u64));
	for (u64 n = 0; n < 2048; n += ARRAY_SIZE(entry)) {
		for (u64 i = 0; i < ARRAY_SIZE(entry); i++)
			entry[i] = (n + i) * 2 * MB | LARGE;
		load_write(l, pd + n * 8, entry, sizeof(entry));
	}
	l->out->cr3 = pml4;
	l->out->gdt = pd + 4 * PAGE_SIZE;
	l->out->gdt_limit = sizeof(gdt) - 1;
	load_write(l, l->out->gdt, gdt, sizeof(gdt));
}

static void check_header(struct loader *l, const struct setup_header *h, u64 code, u64 code_size)
{
	u64 size = l->in->kernel->size, cmdline = strlen(l->in->cmdline);
	if (h->version < 0x20c || !(h->xloadflags & XLF_KERNEL_64))
		load_fail(l, -EINVAL,
			  "has no 64-bit entry point (boot protocol %u.%u): a 64-bit Linux 3.8 or later is needed",
			  h->version >> 8, h->version & 0xff);
	else if (code > size || code_size > size - code)
		load_fail(l, -EINVAL, "is cut short: it has %lu bytes, its header says %lu", size, code + code_size);
	else if (!h->kernel_alignment || h->kernel_alignment & (h->kernel_alignment - 1) || code_size <= ENTRY_64 ||
		 0x202u + h->header_end < SETUP_START + sizeof(*h))
		load_fail(l, -EINVAL, "is damaged: its setup header makes no sense");
	else if (cmdline > h->cmdline_size)
		load_fail(l, -EINVAL, "takes a command line of at most %u bytes; this one has %lu", h->cmdline_size,
			  cmdline);
}

/* A relocatable kernel may go higher than it prefers, but not lower: it would move itself up there. */
static gpa_t place_kernel(struct loader *l, const struct setup_header *h, u64 need)
{
	gpa_t at = ~0ul;
	if (h->relocatable && h->pref_address < LIMIT_4G)
		at = load_find(l, need, h->kernel_alignment, h->pref_address, LIMIT_4G, LOAD_LOWEST);
	if (at == ~0ul)
		at = h->pref_address;
	load_take(l, "the kernel", at, need);
	return at;
}

static void load_initrd(struct loader *l, struct setup_header *h)
{
	const struct blob *part = l->in->module, *end = part + l->in->modules;
	u64 size = 0, limit = MIN(h->initrd_addr_max + 1ul, LIMIT_4G);
	for (const struct blob *b = part; b < end; b++)
		size = ROUND_UP(size, 4) + MIN(b->size, LIMIT_4G); /* so that no sum wraps: 4 GB never fit */
	if (!size)
		return;
	gpa_t start = load_place(l, part->name, size, MB, limit, LOAD_HIGHEST), at = start;
	for (const struct blob *b = part; b < end; b++) {
		at = ROUND_UP(at, 4);
		load_append(l, &at, b->data, b->size);
	}
	h->ramdisk_image = (u32)start;
	h->ramdisk_size = (u32)size;
}

static void write_zero_page(struct loader *l, struct setup_header *h)
{
	const struct memmap *map = l->in->map;
	u8 header[SETUP_END - SETUP_START];
	u64 len = MIN(0x202ul + h->header_end, (u64)SETUP_END) - SETUP_START;
	u64 size = PAGE_SIZE + strlen(l->in->cmdline) + 1;
	gpa_t zp = load_place(l, "the zero page", size, LOW_MEMORY, MB, LOAD_LOWEST), cmdline = zp + PAGE_SIZE;

	h->cmd_line_ptr = (u32)cmdline;
	load_string(l, &cmdline, l->in->cmdline);
	load_read(l, SETUP_START, header, len);
	memcpy(header, h, sizeof(*h));
	load_write(l, zp + SETUP_START, header, len);
	load_write(l, zp + ZP_RSDP, &l->in->rsdp, sizeof(u64));
	load_write(l, zp + ZP_E820_COUNT, &map->n, 1);
	for (u64 i = 0; i < map->n; i++)
		load_write(l, zp + ZP_E820 + i * E820_SIZE, &map->e[i], E820_SIZE);
	l->out->rsi = zp;
}

bool load_linux(struct loader *l)
{
	struct setup_header h;
	if (!load_peek(l, SETUP_START, &h, sizeof(h)) || h.boot_flag != 0xaa55 || memcmp(&h.magic, "HdrS", 4))
		return false;
	u64 code = 512 * (1ul + (h.setup_sects ? h.setup_sects : 4)), code_size = h.syssize * 16ul;
	check_header(l, &h, code, code_size);
	if (l->rc)
		return true;
	gpa_t start = place_kernel(l, &h, MAX((u64)h.init_size, code_size));
	load_write(l, start, (const char *)l->in->kernel->data + code, code_size);
	load_initrd(l, &h);
	write_tables(l);
	h.type_of_loader = LOADER_UNKNOWN;
	h.code32_start = (u32)start;
	h.setup_data = 0;
	write_zero_page(l, &h);
	l->out->long_mode = true;
	l->out->rip = start + ENTRY_64;
	return true;
}
