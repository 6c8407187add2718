/* SPDX-License-Identifier: MIT */
/*
 * Multiboot 1 (specification 0.6.96) and 2 (2.0): 32-bit entry, boot information in EBX. Both find a header near the
 * start of the file, take the kernel as ELF or by addresses in the header, put modules in pages of their own behind
 * it, and differ in how they say the same things.
 */
#include "guest/load_impl.h"

#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/string.h"

#define LOADER_NAME "Cleave"

/* What both call the address fields: the kernel as one piece of the file. */
struct addresses {
	u32 header, load, load_end, bss_end;
};

static void image_from_addresses(struct loader *l, const struct addresses *a, u64 header_offset, struct image *img)
{
	u64 size = l->in->kernel->size, before = (u64)a->header - a->load, offset = header_offset - before;
	u64 filesz = a->load_end ? (u64)a->load_end - a->load : size - offset;
	u64 memsz = a->bss_end ? (u64)a->bss_end - a->load : filesz;
	if (a->header < a->load || before > header_offset || (a->load_end && a->load_end < a->load) ||
	    (a->bss_end && a->bss_end < a->load))
		load_fail(l, -EINVAL, "is damaged: the addresses in its multiboot header make no sense");
	else if (filesz > size - offset)
		load_fail(l, -EINVAL, "is cut short: it has %lu bytes, its multiboot header says %lu", size,
			  offset + filesz);
	*img = (struct image){.n = 1, .seg[0] = {offset, a->load, a->load, filesz, MAX(filesz, memsz)}};
}

static void check_entry(struct loader *l, u64 entry)
{
	if (entry >= LIMIT_4G)
		load_fail(l, -EINVAL, "is damaged: its entry point lies in none of its segments below 4 GB");
}

static u32 lower_kb(const struct loader *l) { return (u32)(l->in->map->e[0].len / KB); }
static u32 upper_kb(const struct loader *l) { return (u32)((l->in->map->low_end - MB) / KB); }

static u64 names_size(const struct loader *l)
{
	u64 size = strlen(l->in->cmdline) + 1 + sizeof(LOADER_NAME);
	for (unsigned i = 0; i < l->in->modules; i++)
		size += strlen(l->in->module[i].name) + 1;
	return size;
}

/* Multiboot 1 */

#define MB1_MAGIC  0x1badb002u
#define MB1_SEARCH 8192
#define MB1_EAX    0x2badb002u

enum { MB1_VIDEO = 1u << 2, MB1_KNOWN = 3, MB1_REQUIRED = 0xffff, MB1_ADDRESSES = 1u << 16 };
enum { MBI_MEMORY = 1, MBI_CMDLINE = 1 << 2, MBI_MODULES = 1 << 3, MBI_MMAP = 1 << 6, MBI_LOADER = 1 << 9 };

struct mb1_header {
	u32 magic, flags, checksum;
	struct addresses addr;
	u32 entry;
};

struct mb1_info {
	u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods, syms[4];
	u32 mmap_len, mmap, drives_len, drives, config_table, loader_name, apm;
};

struct mb1_module {
	u32 start, end, name, reserved;
};

struct PACKED mb1_memory {
	u32 size; /* of the rest */
	u64 start, len;
	u32 type;
};

static bool find_mb1(const struct loader *l, struct mb1_header *h, u64 *offset)
{
	for (*offset = 0; *offset < MB1_SEARCH && load_peek(l, *offset, h, 12); *offset += 4)
		if (h->magic == MB1_MAGIC && h->magic + h->flags + h->checksum == 0)
			return true;
	return false;
}

static void write_mb1_info(struct loader *l)
{
	const struct load_input *in = l->in;
	struct mb1_info info = {
		.flags = MBI_MEMORY | MBI_CMDLINE | MBI_MODULES | MBI_MMAP | MBI_LOADER,
		.mem_lower = lower_kb(l),
		.mem_upper = upper_kb(l),
		.mods_count = in->modules,
		.mmap_len = in->map->n * (u32)sizeof(struct mb1_memory),
	};
	u64 mods_len = sizeof(struct mb1_module) * in->modules;
	u64 size = sizeof(info) + info.mmap_len + mods_len + names_size(l);
	gpa_t start = load_place(l, "the boot information", size, PAGE_SIZE, LOW_MEMORY, LIMIT_4G, LOAD_LOWEST);
	gpa_t mods = start + sizeof(info), mmap = mods + mods_len, at = mmap;

	info.mods = (u32)mods;
	info.mmap = (u32)mmap;
	for (const struct e820 *e = in->map->e; e < in->map->e + in->map->n; e++)
		load_append(l, &at, &(struct mb1_memory){20, e->start, e->len, e->type}, sizeof(struct mb1_memory));
	for (unsigned i = 0; i < in->modules; i++) {
		struct mb1_module m = {(u32)l->module[i], (u32)(l->module[i] + in->module[i].size), (u32)at, 0};
		load_append(l, &mods, &m, sizeof(m));
		load_string(l, &at, in->module[i].name);
	}
	info.cmdline = (u32)load_string(l, &at, in->cmdline);
	info.loader_name = (u32)load_string(l, &at, LOADER_NAME);
	load_write(l, start, &info, sizeof(info));
	l->out->rax = MB1_EAX;
	l->out->rbx = start;
}

bool load_multiboot1(struct loader *l)
{
	struct mb1_header h = {0};
	struct image img = {.n = 0};
	u64 offset;
	if (!find_mb1(l, &h, &offset))
		return false;
	if (h.flags & MB1_VIDEO)
		load_fail(l, -EINVAL, "wants a video mode (bit 2 of its multiboot flags); guests have no screen");
	else if (h.flags & MB1_REQUIRED & ~MB1_KNOWN)
		load_fail(l, -EINVAL, "wants what is unknown here: bits %#x of its multiboot flags",
			  h.flags & MB1_REQUIRED & ~MB1_KNOWN);
	if (h.flags & MB1_ADDRESSES) {
		if (load_read(l, offset, &h, sizeof(h)))
			image_from_addresses(l, &h.addr, offset, &img);
		img.entry = h.entry;
	} else {
		elf_read(l, &img);
	}
	check_entry(l, img.entry);
	image_load(l, &img, 0);
	load_modules(l, LOAD_LOWEST);
	if (!l->rc)
		write_mb1_info(l);
	l->out->rip = img.entry;
	return true;
}

/* Multiboot 2 */

#define MB2_MAGIC    0xe85250d6u
#define MB2_SEARCH   32768
#define MB2_EAX      0x36d76289u
#define MB2_OPTIONAL 1u /* flag of a header tag */

enum mb2_tag {
	TAG_END,
	TAG_REQUEST,
	TAG_ADDRESSES,
	TAG_ENTRY,
	TAG_CONSOLE,
	TAG_FRAMEBUFFER,
	TAG_MODULE_ALIGN,
	TAG_EFI_SERVICES,
	TAG_EFI32_ENTRY,
	TAG_EFI64_ENTRY,
	TAG_RELOCATABLE,
};

enum mb2_info {
	INFO_END,
	INFO_CMDLINE,
	INFO_LOADER,
	INFO_MODULE,
	INFO_MEMORY,
	INFO_MMAP = 6,
	INFO_RSDP1 = 14,
	INFO_RSDP2,
	INFO_BASE = 21,
	INFO_KNOWN, /* all below are known to the specification, though a loader need not have them */
};

struct mb2_header {
	u32 magic, arch, len, checksum;
};

struct mb2_tag_head {
	u16 type, flags;
	u32 size;
};

struct relocation {
	u32 min, max, align, preference; /* preference: 2 highest, else lowest */
};

struct mb2_kernel {
	struct image img;
	bool has_entry, has_addresses, relocatable;
	u32 entry;
	struct addresses addr;
	struct relocation rel;
};

static bool find_mb2(const struct loader *l, struct mb2_header *h, u64 *offset)
{
	for (*offset = 0; *offset < MB2_SEARCH && load_peek(l, *offset, h, sizeof(*h)); *offset += 8)
		if (h->magic == MB2_MAGIC && !h->arch && h->magic + h->arch + h->len + h->checksum == 0)
			return true;
	return false;
}

static void check_requests(struct loader *l, u64 at, u64 end)
{
	u32 type;
	for (; at + 4 <= end && load_read(l, at, &type, 4); at += 4)
		if (type >= INFO_KNOWN)
			load_fail(l, -EINVAL, "wants boot information of type %u, which is unknown here", type);
}

/* One header tag at offset. What the kernel insists on and cannot have is an error. */
static void read_tag(struct loader *l, u64 at, const struct mb2_tag_head *tag, struct mb2_kernel *k)
{
	bool optional = tag->flags & MB2_OPTIONAL;
	u64 body = at + sizeof(*tag);
	switch (tag->type) {
	case TAG_REQUEST:
		if (!optional)
			check_requests(l, body, at + tag->size);
		break;
	case TAG_ADDRESSES:
		k->has_addresses = load_read(l, body, &k->addr, sizeof(k->addr));
		break;
	case TAG_ENTRY:
		k->has_entry = load_read(l, body, &k->entry, sizeof(k->entry));
		break;
	case TAG_RELOCATABLE:
		k->relocatable = load_read(l, body, &k->rel, sizeof(k->rel));
		break;
	case TAG_MODULE_ALIGN:
	case TAG_EFI_SERVICES:
	case TAG_EFI32_ENTRY:
	case TAG_EFI64_ENTRY:
		break; /* done anyway, or only for EFI */
	default:
		if (!optional)
			load_fail(l, -EINVAL, "wants %s (multiboot 2 header tag %u), which guests do not have",
				  tag->type == TAG_FRAMEBUFFER || tag->type == TAG_CONSOLE ? "a screen" : "a feature",
				  tag->type);
	}
}

static void read_tags(struct loader *l, u64 start, u64 len, struct mb2_kernel *k)
{
	struct mb2_tag_head tag;
	u64 at = start + sizeof(struct mb2_header), end = start + len;
	while (!l->rc && at < end && load_read(l, at, &tag, sizeof(tag)) && tag.type != TAG_END) {
		if (tag.size < sizeof(tag) || tag.size > end - at)
			load_fail(l, -EINVAL, "is damaged: a multiboot 2 header tag has %u bytes", tag.size);
		else
			read_tag(l, at, &tag, k);
		at += ROUND_UP((u64)tag.size, 8);
	}
}

/* How far a relocatable kernel has to be moved: not at all if it fits where it was linked. */
static u64 relocate(struct loader *l, const struct mb2_kernel *k)
{
	struct range span = image_span(&k->img);
	u64 len = span.end - span.start, align = k->rel.align;
	if (l->rc || !k->relocatable || load_find(l, len, 1, span.start, span.end, LOAD_LOWEST) == span.start)
		return 0;
	if (!align || align & (align - 1)) {
		load_fail(l, -EINVAL, "is damaged: it wants an alignment of %lu bytes", align);
		return 0;
	}
	gpa_t at = load_find(l, len, align, MAX((u64)k->rel.min, MB), k->rel.max + 1ul,
			     k->rel.preference == 2 ? LOAD_HIGHEST : LOAD_LOWEST);
	return at == ~0ul ? 0 : at - span.start;
}

static void put_tag(struct loader *l, gpa_t *at, u32 type, const void *data, u64 len)
{
	load_append(l, at, (u32[]){type, (u32)len + 8}, 8);
	load_append(l, at, data, len);
	*at = ROUND_UP(*at, 8);
}

static void put_module(struct loader *l, gpa_t *at, unsigned i)
{
	const struct blob *m = &l->in->module[i];
	u32 head[] = {INFO_MODULE, (u32)(17 + strlen(m->name)), (u32)l->module[i], (u32)(l->module[i] + m->size)};
	load_append(l, at, head, sizeof(head));
	load_string(l, at, m->name);
	*at = ROUND_UP(*at, 8);
}

static void put_mmap(struct loader *l, gpa_t *at)
{
	const struct memmap *map = l->in->map;
	load_append(l, at, (u32[]){INFO_MMAP, 16 + 24 * map->n, 24, 0}, 16);
	for (const struct e820 *e = map->e; e < map->e + map->n; e++) {
		load_append(l, at, (u64[]){e->start, e->len}, 16);
		load_append(l, at, (u32[]){e->type, 0}, 8);
	}
}

/* Version 1 of an RSDP is the start of version 2 with a checksum of its own: both tags copy ours. */
static void put_rsdp(struct loader *l, gpa_t *at)
{
	u8 rsdp[36];
	if (l->rc || !l->in->rsdp || p2m_read(l->in->p2m, l->in->rsdp, rsdp, sizeof(rsdp)))
		return;
	put_tag(l, at, INFO_RSDP1, rsdp, 20);
	put_tag(l, at, INFO_RSDP2, rsdp, sizeof(rsdp));
}

static void write_mb2_info(struct loader *l, const u32 *base)
{
	const struct load_input *in = l->in;
	u64 size = 256 + 24 * E820_MAX + 24ul * in->modules + names_size(l);
	gpa_t start = load_place(l, "the boot information", size, PAGE_SIZE, LOW_MEMORY, LIMIT_4G, LOAD_LOWEST);
	gpa_t at = start + 8;

	put_tag(l, &at, INFO_CMDLINE, in->cmdline, strlen(in->cmdline) + 1);
	put_tag(l, &at, INFO_LOADER, LOADER_NAME, sizeof(LOADER_NAME));
	for (unsigned i = 0; i < in->modules; i++)
		put_module(l, &at, i);
	put_tag(l, &at, INFO_MEMORY, (u32[]){lower_kb(l), upper_kb(l)}, 8);
	put_mmap(l, &at);
	put_rsdp(l, &at);
	if (base)
		put_tag(l, &at, INFO_BASE, base, 4);
	put_tag(l, &at, INFO_END, NULL, 0);
	load_write(l, start, (u32[]){(u32)(at - start), 0}, 8);
	l->out->rax = MB2_EAX;
	l->out->rbx = start;
}

bool load_multiboot2(struct loader *l)
{
	struct mb2_header h;
	struct mb2_kernel k = {.relocatable = false};
	u64 offset;
	if (!find_mb2(l, &h, &offset))
		return false;
	read_tags(l, offset, h.len, &k);
	if (k.has_addresses)
		image_from_addresses(l, &k.addr, offset, &k.img);
	else
		elf_read(l, &k.img);
	if (k.has_entry)
		k.img.entry = k.entry;
	else if (k.has_addresses)
		load_fail(l, -EINVAL, "is damaged: its multiboot 2 header has addresses but no entry");
	check_entry(l, k.img.entry);
	u64 shift = relocate(l, &k);
	u32 base = (u32)(image_span(&k.img).start + shift);
	image_load(l, &k.img, shift);
	load_modules(l, LOAD_LOWEST);
	if (!l->rc)
		write_mb2_info(l, k.relocatable ? &base : NULL);
	l->out->rip = k.img.entry + shift;
	return true;
}
