/* SPDX-License-Identifier: MIT */
/*
 * Linux bzImage by the 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst, zero-page.rst).
 *
 *     low memory    zero page with the setup header and E820, command line, GDT, identity page tables
 *     pref_address  the protected-mode part and the room it says it needs (init_size); entered at + 0x200
 *     high          initrd: the parts one after another, each padded to 4 bytes
 *
 * Low memory stays RAM in E820: the kernel copies what it needs before it uses it.
 */
#include "guest/load_impl.h"

#include "lib/errno.h"
#include "lib/string.h"

#define SETUP_OFFSET   0x1f1 /* of the header, in the file and in the zero page */
#define SETUP_END      0x290 /* what follows in the zero page is no header any more */
#define ZP_RSDP        0x070
#define ZP_E820_COUNT  0x1e8
#define ZP_E820        0x2d0
#define E820_SIZE      20
#define ENTRY_64       0x200
#define LOADER_UNKNOWN 0xff
#define XLF_KERNEL_64  1

struct PACKED setup_header {
	u8 setup_sects;
	u16 root_flags;
	u32 syssize; /* of the protected-mode part, in 16 bytes */
	u16 ram_size, vid_mode, root_dev, boot_flag;
	u8 jump, header_end; /* the header ends at 0x202 + header_end */
	u32 magic;
	u16 version;
	u32 realmode_swtch;
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
_Static_assert(SETUP_OFFSET + sizeof(struct setup_header) == 0x268, "the header of boot protocol 2.12");
_Static_assert(sizeof(struct e820) >= E820_SIZE && offsetof(struct e820, type) == 16, "is written as E820 has it");

/* Identity over 4 GB in 2 MB pages, a GDT, in one piece of low memory. */
#define TABLES_SIZE (7 * PAGE_SIZE)
enum { PTE_TABLE = 0x63, PTE_LARGE = 0xe3 }; /* present, writable, accessed, dirty; large */

static void write_tables(struct loader *l)
{
	static const u64 gdt[] = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff}; /* 0x10 code, 0x18 data */
	gpa_t at = load_place(l, "page tables", TABLES_SIZE, PAGE_SIZE, LOW_MEMORY, MB, LOAD_LOWEST);
	gpa_t pml4 = at, pdpt = at + PAGE_SIZE, pd = at + 2 * PAGE_SIZE;
	u64 entry[64];

	load_write(l, pml4, &(u64){pdpt | PTE_TABLE}, sizeof(u64));
	for (unsigned i = 0; i < 4; i++)
		load_write(l, pdpt + 8 * i, &(u64){(pd + i * PAGE_SIZE) | PTE_TABLE}, sizeof(u64));
	for (u64 n = 0; n < 2048; n += ARRAY_SIZE(entry)) {
		for (unsigned i = 0; i < ARRAY_SIZE(entry); i++)
			entry[i] = (n + i) * 2 * MB | PTE_LARGE;
		load_write(l, pd + n * 8, entry, sizeof(entry));
	}
	l->out->cr3 = pml4;
	l->out->gdt = pd + 4 * PAGE_SIZE;
	l->out->gdt_limit = sizeof(gdt) - 1;
	load_write(l, l->out->gdt, gdt, sizeof(gdt));
}

static void check_header(struct loader *l, const struct setup_header *h, u64 code, u64 code_size)
{
	u64 size = l->in->kernel->size;
	if (h->version < 0x20c || !(h->xloadflags & XLF_KERNEL_64))
		load_fail(l, -EINVAL,
			  "has no 64-bit entry point (boot protocol %u.%u): a 64-bit Linux 3.8 or later is needed",
			  h->version >> 8, h->version & 0xff);
	else if (code > size || code_size > size - code)
		load_fail(l, -EINVAL, "is cut short: it has %lu bytes, its header says %lu", size, code + code_size);
	else if (!h->kernel_alignment || h->kernel_alignment & (h->kernel_alignment - 1) || code_size <= ENTRY_64 ||
		 0x202u + h->header_end < SETUP_OFFSET + sizeof(*h))
		load_fail(l, -EINVAL, "is damaged: its setup header makes no sense");
	else if (strlen(l->in->cmdline) > h->cmdline_size)
		load_fail(l, -EINVAL, "takes a command line of at most %u bytes; this one has %zu", h->cmdline_size,
			  strlen(l->in->cmdline));
}

/*
 * Where the kernel goes. Below pref_address makes no sense even for a relocatable one: it would move itself up there.
 */
static gpa_t place_kernel(struct loader *l, const struct setup_header *h, u64 code_size)
{
	u64 need = MAX((u64)h->init_size, code_size);
	gpa_t at = h->pref_address;
	if (h->relocatable && at < LIMIT_4G) {
		gpa_t fits = load_find(l, need, h->kernel_alignment, at, LIMIT_4G, LOAD_LOWEST);
		at = fits == ~0ul ? at : fits;
	}
	load_take(l, "the kernel", at, need);
	return at;
}

static void load_initrd(struct loader *l, struct setup_header *h)
{
	const struct blob *part = l->in->module;
	u64 size = 0;
	for (unsigned i = 0; i < l->in->modules; i++)
		size = ROUND_UP(size, 4) + MIN(part[i].size, LIMIT_4G); /* so that no sum wraps: 4 GB never fit */
	if (!size)
		return;
	gpa_t hi = MIN(h->initrd_addr_max + 1ul, LIMIT_4G);
	gpa_t start = load_place(l, "the initrd", size, PAGE_SIZE, MB, hi, LOAD_HIGHEST), at = start;
	for (unsigned i = 0; i < l->in->modules; i++) {
		load_append(l, &at, part[i].data, part[i].size);
		at = ROUND_UP(at, 4);
	}
	h->ramdisk_image = (u32)start;
	h->ramdisk_size = (u32)size;
}

static void write_zero_page(struct loader *l, const struct setup_header *h)
{
	const struct memmap *map = l->in->map;
	u8 header[SETUP_END - SETUP_OFFSET], count = (u8)map->n;
	u64 len = MIN((u64)0x202 + h->header_end, (u64)SETUP_END) - SETUP_OFFSET;
	gpa_t zp = load_place(l, "the zero page", PAGE_SIZE, PAGE_SIZE, LOW_MEMORY, MB, LOAD_LOWEST);

	if (!load_read(l, SETUP_OFFSET, header, len))
		return;
	memcpy(header, h, sizeof(*h));
	load_write(l, zp + SETUP_OFFSET, header, len);
	load_write(l, zp + ZP_RSDP, &l->in->rsdp, sizeof(u64));
	load_write(l, zp + ZP_E820_COUNT, &count, 1);
	for (unsigned i = 0; i < map->n; i++)
		load_write(l, zp + ZP_E820 + (gpa_t)i * E820_SIZE, &map->e[i], E820_SIZE);
	l->out->rsi = zp;
}

bool load_linux(struct loader *l)
{
	struct setup_header h;
	if (!load_peek(l, SETUP_OFFSET, &h, sizeof(h)) || h.boot_flag != 0xaa55 || memcmp(&h.magic, "HdrS", 4))
		return false;
	u64 code = 512 * (1ul + (h.setup_sects ? h.setup_sects : 4)), code_size = h.syssize * 16ul;
	check_header(l, &h, code, code_size);
	if (l->rc)
		return true;
	gpa_t start = place_kernel(l, &h, code_size);
	load_write(l, start, (const char *)l->in->kernel->data + code, code_size);
	load_initrd(l, &h);
	write_tables(l);

	gpa_t cmdline = load_place(l, "the command line", strlen(l->in->cmdline) + 1, 16, LOW_MEMORY, MB, LOAD_LOWEST);
	h.cmd_line_ptr = (u32)cmdline;
	load_string(l, &cmdline, l->in->cmdline);
	h.type_of_loader = LOADER_UNKNOWN;
	h.code32_start = (u32)start;
	h.setup_data = 0;
	write_zero_page(l, &h);
	l->out->long_mode = true;
	l->out->rip = start + ENTRY_64;
	return true;
}
