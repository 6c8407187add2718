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
	*img = (struct image){.n = 1, .entry = ~0ul, .seg[0] = {offset, a->load, a->load, filesz, MAX(filesz, memsz)}};
}

/* Looks for a header of so many words that begins with magic and, with its checksum, sums up to 0. */
static bool find_header(const struct loader *l, u32 magic, u64 step, u64 end, u32 *header, unsigned words, u64 *at)
{
	for (*at = 0; *at < end && load_peek(l, *at, header, words * sizeof(u32)); *at += step) {
		u32 sum = 0;
		for (unsigned i = 0; i < words; i++)
			sum += header[i];
		if (header[0] == magic && !sum)
			return true;
	}
	return false;
}

static u32 lower_kb(const struct loader *l) { return (u32)(l->in->map->e[0].len / KB); }
static u32 upper_kb(const struct loader *l) { return (u32)((l->in->map->low_end - MB) / KB); }

/* Multiboot 1 */

enum { MB1_MAGIC = 0x1badb002, MB1_SEARCH = 8192, MB1_EAX = 0x2badb002 };
enum { MB1_KNOWN = 3, MB1_VIDEO = 4, MB1_REQUIRED = 0xffff, MB1_ADDRESSES = 0x10000 }; /* flags of the header */
enum { MBI_FLAGS = 0x24d }; /* memory, command line, modules, memory map, loader's name */

struct mb1_info {
	u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods, syms[4], mmap_len, mmap;
	u32 drives_len, drives, config_table, loader_name, apm;
};

static void write_mb1_info(struct loader *l)
{
	const struct load_input *in = l->in;
	struct mb1_info info = {.flags = MBI_FLAGS, .mem_lower = lower_kb(l), .mem_upper = upper_kb(l)};
	gpa_t start = load_info_place(l), at = start + sizeof(info), mods = at + 24ul * in->map->n;
	info.mmap = (u32)at;
	info.mmap_len = 24 * in->map->n;
	for (const struct e820 *e = in->map->e; e < in->map->e + in->map->n; e++) {
		load_append(l, &at, &(u32){20}, 4); /* the size of the rest */
		load_append(l, &at, (u64[]){e->start, e->len}, 16);
		load_append(l, &at, &e->type, 4);
	}
	info.mods = (u32)mods;
	info.mods_count = in->modules;
	at += 16ul * in->modules;
	for (unsigned i = 0; i < in->modules; i++) {
		u64 begin = l->module[i];
		load_append(l, &mods, (u32[]){(u32)begin, (u32)(begin + in->module[i].size), (u32)at, 0}, 16);
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
	struct image img;
	struct addresses a;
	u32 h[3], entry; /* magic, flags, checksum */
	u64 at;
	if (!find_header(l, MB1_MAGIC, 4, MB1_SEARCH, h, 3, &at))
		return false;
	if (h[1] & MB1_VIDEO)
		load_fail(l, -EINVAL, "wants a video mode (bit 2 of its multiboot flags); guests have no screen");
	else if (h[1] & MB1_REQUIRED & ~MB1_KNOWN)
		load_fail(l, -EINVAL, "wants what is unknown here: bits %#x of its multiboot flags",
			  h[1] & MB1_REQUIRED & ~MB1_KNOWN);
	if (h[1] & MB1_ADDRESSES) {
		load_read(l, at + 12, &a, sizeof(a));
		load_read(l, at + 28, &entry, sizeof(entry));
		image_from_addresses(l, &a, at, &img);
		img.entry = entry;
	} else {
		elf_read(l, &img);
	}
	image_load(l, &img, 0, img.entry);
	load_modules(l, LOAD_LOWEST);
	if (!l->rc)
		write_mb1_info(l);
	return true;
}

/* Multiboot 2 */

#define MB2_MAGIC 0xe85250d6u
enum { MB2_SEARCH = 32768, MB2_EAX = 0x36d76289, MB2_OPTIONAL = 1 }; /* flag of a header tag */
enum { TAG_END, TAG_REQUEST, TAG_ADDRESSES, TAG_ENTRY, TAG_CONSOLE, TAG_SCREEN, TAG_RELOCATABLE = 10, TAGS };
enum { INFO_END, INFO_CMDLINE, INFO_LOADER, INFO_MODULE, INFO_MEMORY, INFO_MMAP = 6, INFO_RSDP1 = 14, INFO_RSDP2 };
enum { INFO_BASE = 21, INFO_KNOWN }; /* those below the specification has, though a loader need not */

struct mb2_tag {
	u16 type, flags;
	u32 size;
};

/* What the header's tags say. */
struct mb2_kernel {
	u32 seen; /* by type */
	struct addresses addresses;
	u32 entry;
	struct {
		u32 min, max, align, preference; /* preference: 2 highest, else lowest */
	} place;
};

static void check_requests(struct loader *l, u64 at, u64 end)
{
	u32 type = 0;
	for (; !l->rc && at + 4 <= end; at += 4) {
		load_read(l, at, &type, 4);
		if (type >= INFO_KNOWN)
			load_fail(l, -EINVAL, "wants boot information of type %u, which is unknown here", type);
	}
}

/* One header tag. Those for modules and EFI (6 to 9) are done anyway or do not matter; what the kernel insists on and
 * cannot have is an error. */
static void read_tag(struct loader *l, u64 at, const struct mb2_tag *tag, struct mb2_kernel *k)
{
	bool optional = tag->flags & MB2_OPTIONAL;
	u64 body = at + sizeof(*tag);
	if (tag->type < TAGS)
		k->seen |= 1u << tag->type;
	if (tag->type == TAG_REQUEST && !optional)
		check_requests(l, body, at + tag->size);
	else if (tag->type == TAG_ADDRESSES)
		load_read(l, body, &k->addresses, sizeof(k->addresses));
	else if (tag->type == TAG_ENTRY)
		load_read(l, body, &k->entry, sizeof(k->entry));
	else if (tag->type == TAG_RELOCATABLE)
		load_read(l, body, &k->place, sizeof(k->place));
	else if (!optional && (tag->type == TAG_CONSOLE || tag->type == TAG_SCREEN || tag->type >= TAGS))
		load_fail(l, -EINVAL, "wants %s (multiboot 2 header tag %u), which guests do not have",
			  tag->type < TAGS ? "a screen" : "a feature", tag->type);
}

static void read_tags(struct loader *l, u64 at, u64 end, struct mb2_kernel *k)
{
	struct mb2_tag tag = {TAG_REQUEST, 0, 0};
	for (; !l->rc && at < end; at += ROUND_UP((u64)tag.size, 8)) {
		load_read(l, at, &tag, sizeof(tag));
		if (tag.type == TAG_END)
			return;
		if (tag.size < sizeof(tag) || tag.size > end - at)
			load_fail(l, -EINVAL, "is damaged: a multiboot 2 header tag has %u bytes", tag.size);
		read_tag(l, at, &tag, k);
	}
}

/* How far a relocatable kernel has to be moved: not at all if it fits where it was linked. */
static u64 relocate(struct loader *l, const struct mb2_kernel *k, struct range span)
{
	u64 len = span.end - span.start, align = k->place.align;
	if (l->rc || load_find(l, len, 1, span.start, span.end, LOAD_LOWEST) == span.start)
		return 0;
	if (!align || align & (align - 1)) {
		load_fail(l, -EINVAL, "is damaged: it wants an alignment of %lu bytes", align);
		return 0;
	}
	gpa_t at = load_find(l, len, align, MAX((u64)k->place.min, MB), k->place.max + 1ul,
			     k->place.preference == 2 ? LOAD_HIGHEST : LOAD_LOWEST);
	return at == ~0ul ? 0 : at - span.start;
}

/* An information tag: its data in two parts. */
static void put_tag(struct loader *l, gpa_t *at, u32 type, const void *data, u64 len, const void *more, u64 more_len)
{
	load_append(l, at, (u32[]){type, (u32)(8 + len + more_len)}, 8);
	load_append(l, at, data, len);
	load_append(l, at, more, more_len);
	*at = ROUND_UP(*at, 8);
}

static void put_memory(struct loader *l, gpa_t *at)
{
	const struct memmap *map = l->in->map;
	u64 entry[E820_MAX][3];
	for (unsigned i = 0; i < map->n; i++)
		memcpy(entry[i], (u64[]){map->e[i].start, map->e[i].len, map->e[i].type}, sizeof(entry[i]));
	put_tag(l, at, INFO_MEMORY, (u32[]){lower_kb(l), upper_kb(l)}, 8, NULL, 0);
	put_tag(l, at, INFO_MMAP, (u32[]){sizeof(entry[0]), 0}, 8, entry, map->n * sizeof(entry[0]));
}

/* Version 1 of an RSDP is the start of version 2 with a checksum of its own: both tags copy ours. */
static void put_rsdp(struct loader *l, gpa_t *at)
{
	u8 rsdp[36];
	if (l->rc || !l->in->rsdp || p2m_read(l->in->p2m, l->in->rsdp, rsdp, sizeof(rsdp)))
		return;
	put_tag(l, at, INFO_RSDP1, rsdp, 20, NULL, 0);
	put_tag(l, at, INFO_RSDP2, rsdp, sizeof(rsdp), NULL, 0);
}

static void write_mb2_info(struct loader *l, const u32 *base)
{
	const struct load_input *in = l->in;
	gpa_t start = load_info_place(l), at = start + 8;
	put_tag(l, &at, INFO_CMDLINE, in->cmdline, strlen(in->cmdline) + 1, NULL, 0);
	put_tag(l, &at, INFO_LOADER, LOADER_NAME, sizeof(LOADER_NAME), NULL, 0);
	for (unsigned i = 0; i < in->modules; i++) {
		u32 where[] = {(u32)l->module[i], (u32)(l->module[i] + in->module[i].size)};
		put_tag(l, &at, INFO_MODULE, where, 8, in->module[i].name, strlen(in->module[i].name) + 1);
	}
	put_memory(l, &at);
	put_rsdp(l, &at);
	if (base)
		put_tag(l, &at, INFO_BASE, base, 4, NULL, 0);
	put_tag(l, &at, INFO_END, NULL, 0, NULL, 0);
	load_write(l, start, (u32[]){(u32)(at - start), 0}, 8);
	l->out->rax = MB2_EAX;
	l->out->rbx = start;
}

bool load_multiboot2(struct loader *l)
{
	struct mb2_kernel k = {.seen = 0};
	struct image img;
	u32 h[4]; /* magic, architecture (0: i386), length, checksum */
	u64 at;
	if (!find_header(l, MB2_MAGIC, 8, MB2_SEARCH, h, 4, &at) || h[1])
		return false;
	read_tags(l, at + sizeof(h), at + h[2], &k);
	if (k.seen & BIT(TAG_ADDRESSES))
		image_from_addresses(l, &k.addresses, at, &img);
	else
		elf_read(l, &img);
	if (k.seen & BIT(TAG_ENTRY))
		img.entry = k.entry;
	struct range span = image_span(&img);
	bool movable = k.seen & BIT(TAG_RELOCATABLE);
	u64 shift = movable ? relocate(l, &k, span) : 0;
	u32 base = (u32)(span.start + shift);
	image_load(l, &img, shift, img.entry);
	load_modules(l, LOAD_LOWEST);
	if (!l->rc)
		write_mb2_info(l, movable ? &base : NULL);
	return true;
}
