/* SPDX-License-Identifier: MIT */
/*
 * Multiboot 1 (specification 0.6.96) and 2 (2.0): 32-bit entry, boot information in EBX. Both find a header near the
 * start of the file, take the kernel as ELF or by addresses in the header, put modules in pages of their own behind
 * it, and differ in how they say the same things.
 */
#include "guest/load_impl.h"
#include "lib/errno.h"
#include "lib/string.h"

/* What both call the address fields: the kernel as one piece of the file. Sums that wrap do not fit anywhere. */
static void image_from_addresses(struct loader *l, u64 at, u64 header_offset, struct image *img)
{
	u64 header = load_word(l, at, 4), load = load_word(l, at + 4, 4), size = l->in->kernel->size;
	u64 load_end = load_word(l, at + 8, 4), bss_end = load_word(l, at + 12, 4);
	u64 offset = header_offset - (header - load), filesz = load_end ? load_end - load : size - offset;
	u64 memsz = bss_end ? bss_end - load : filesz;
	if (header - load > header_offset || filesz > size - offset)
		load_fail(l, -EINVAL, "is cut short, or the addresses in its multiboot header make no sense");
	*img = (struct image){.n = 1, .entry = NO_ENTRY, .seg[0] = {offset, load, filesz, MAX(filesz, memsz)}};
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
enum { MB1_UNKNOWN = 0xfffc, MB1_ADDRESSES = 0x10000 }; /* flags of the header: wants more than we have */
enum { MBI_FLAGS = 0x4d, MBI_WORDS = 29 };              /* memory, command line, modules, memory map */

static void write_mb1_info(struct loader *l, gpa_t start)
{
	const struct load_input *in = l->in;
	u32 info[MBI_WORDS] = {MBI_FLAGS, lower_kb(l), upper_kb(l)};
	gpa_t at = start + sizeof(info), mods = at + 24ul * in->map->n;
	info[11] = 24 * in->map->n; /* mmap_length, mmap_addr */
	info[12] = (u32)at;
	for (const struct e820 *e = in->map->e; e < in->map->e + in->map->n; e++) {
		load_append(l, &at, &(u32){20}, 4); /* the size of the rest */
		load_append(l, &at, e, 20);
	}
	info[5] = in->modules; /* mods_count, mods_addr */
	info[6] = (u32)mods;
	at += 16ul * in->modules;
	for (unsigned i = 0; i < in->modules; i++) {
		u64 begin = l->module[i];
		load_append(l, &mods, (u32[]){(u32)begin, (u32)(begin + in->module[i].size), (u32)at, 0}, 16);
		load_string(l, &at, in->module[i].name);
	}
	info[4] = (u32)load_string(l, &at, in->cmdline);
	load_write(l, start, info, sizeof(info));
	l->out->rax = MB1_EAX;
}

bool load_multiboot1(struct loader *l)
{
	struct image img;
	u32 h[3]; /* magic, flags, checksum */
	u64 at;
	if (!find_header(l, MB1_MAGIC, 4, MB1_SEARCH, h, 3, &at))
		return false;
	if (h[1] & MB1_UNKNOWN)
		load_fail(l, -EINVAL, "wants what guests do not have: multiboot flags %#x (4: a screen)",
			  h[1] & MB1_UNKNOWN);
	if (h[1] & MB1_ADDRESSES) {
		image_from_addresses(l, at + 12, at, &img);
		img.entry = load_word(l, at + 28, 4);
	} else {
		elf_read(l, &img);
	}
	write_mb1_info(l, image_load(l, &img, img.entry));
	return true;
}

/* Multiboot 2 */

#define MB2_MAGIC 0xe85250d6u
enum { MB2_SEARCH = 32768, MB2_EAX = 0x36d76289, MB2_OPTIONAL = 1 }; /* flag of a header tag */
enum { TAG_END, TAG_ADDRESSES = 2, TAG_ENTRY, TAG_CONSOLE, TAG_SCREEN, TAG_RELOCATABLE = 10 };
enum { INFO_END, INFO_CMDLINE, INFO_MODULE = 3, INFO_MEMORY };
enum { INFO_MMAP = 6, INFO_RSDP1 = 14, INFO_RSDP2, INFO_BASE = 21 };

/*
 * The header's tags, into the image as far as they say what it is. Those for modules, EFI and relocation are done
 * anyway or do not matter, and a kernel sees by itself which information is there; what else it insists on is an error.
 */
static void read_tags(struct loader *l, u64 header, u64 end, struct image *img, u64 *entry)
{
	u64 size = 16;
	for (u64 at = header + size; !l->rc && at < end; at += ROUND_UP(size, 8)) {
		u64 type = load_word(l, at, 2);
		bool optional = load_word(l, at + 2, 2) & MB2_OPTIONAL;
		size = load_word(l, at + 4, 4);
		if (type == TAG_END)
			return;
		if (size < 8 || size > end - at)
			load_fail(l, -EINVAL, "is damaged: a multiboot 2 header tag has %lu bytes", size);
		else if (type == TAG_ADDRESSES)
			image_from_addresses(l, at + 8, header, img);
		else if (type == TAG_ENTRY)
			*entry = load_word(l, at + 8, 4);
		else if (!optional && (type == TAG_CONSOLE || type == TAG_SCREEN || type > TAG_RELOCATABLE))
			load_fail(l, -EINVAL, "wants what guests do not have: multiboot 2 header tag %lu (5: a screen)",
				  type);
	}
}

/* An information tag: its data in two parts. */
static void put_tag(struct loader *l, gpa_t *at, u32 type, const void *data, u64 len, const void *more, u64 more_len)
{
	load_append(l, at, (u32[]){type, (u32)(8 + len + more_len)}, 8);
	load_append(l, at, data, len);
	load_append(l, at, more, more_len);
	*at = ROUND_UP(*at, 8);
}

static void write_mb2_info(struct loader *l, gpa_t start, u32 base)
{
	const struct load_input *in = l->in;
	gpa_t at = start + 8;
	u8 rsdp[36];
	put_tag(l, &at, INFO_CMDLINE, in->cmdline, strlen(in->cmdline) + 1, NULL, 0);
	for (unsigned i = 0; i < in->modules; i++) {
		u32 where[] = {(u32)l->module[i], (u32)(l->module[i] + in->module[i].size)};
		put_tag(l, &at, INFO_MODULE, where, 8, in->module[i].name, strlen(in->module[i].name) + 1);
	}
	put_tag(l, &at, INFO_MEMORY, (u32[]){lower_kb(l), upper_kb(l)}, 8, NULL, 0);
	put_tag(l, &at, INFO_MMAP, (u32[]){sizeof(struct e820), 0}, 8, in->map->e, in->map->n * sizeof(struct e820));
	/* Version 1 of an RSDP is the start of version 2 with a checksum of its own: both tags copy ours. */
	if (!p2m_read(in->p2m, in->rsdp, rsdp, sizeof(rsdp))) {
		put_tag(l, &at, INFO_RSDP1, rsdp, 20, NULL, 0);
		put_tag(l, &at, INFO_RSDP2, rsdp, sizeof(rsdp), NULL, 0);
	}
	put_tag(l, &at, INFO_BASE, &base, 4, NULL, 0);
	put_tag(l, &at, INFO_END, NULL, 0, NULL, 0);
	load_put(l, start, at - start, 8);
	l->out->rax = MB2_EAX;
}

bool load_multiboot2(struct loader *l)
{
	struct image img = {.n = 0};
	u32 h[4]; /* magic, architecture (0: i386), length, checksum */
	u64 at, entry = NO_ENTRY;
	if (!find_header(l, MB2_MAGIC, 8, MB2_SEARCH, h, 4, &at) || h[1])
		return false;
	read_tags(l, at, at + h[2], &img, &entry);
	if (!img.n)
		elf_read(l, &img);
	gpa_t info = image_load(l, &img, entry == NO_ENTRY ? img.entry : entry);
	write_mb2_info(l, info, (u32)img.seg[0].paddr);
	return true;
}
