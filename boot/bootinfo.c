/* SPDX-License-Identifier: MIT */
/* The loader's information block: Multiboot Specification 0.6.96 (version 1), and 2.0. */
#include "boot/bootinfo.h"

#include "lib/bits.h"
#include "lib/print.h"
#include "lib/string.h"

#define PHYS_LIMIT (1ul << 52) /* no x86 CPU has more address bits */

/* Of multiboot 1: sizes (of the block as far as it is read, of a map), and flags. */
enum { MB1_INFO_SIZE = 88, MB1_MMAP_MAX = 65536 };
enum { MB1_CMDLINE = BIT(2), MB1_MODULES = BIT(3), MB1_MMAP = BIT(6) };

/* Tags of multiboot 2. */
enum { END = 0, CMDLINE = 1, MODULE = 3, MMAP = 6, FRAMEBUFFER = 8 };
enum { EFI64 = 12, ACPI_OLD = 14, ACPI_NEW = 15, EFI_SERVICES = 18, EFI64_HANDLE = 20 };

#define MB2_MAX_SIZE MB /* of the whole block: a real one has a few KB, or some 100 KB with a kernel's symbols */

/*
 * A piece of the loader's memory, of which all that is read comes by copy and field. What lies outside reads as 0, the
 * end of a string, so that a structure that is shorter than it should be is an empty one. Offsets are the
 * specification's.
 */
struct window {
	boot_read_fn read;
	hpa_t at;
	u64 len;
};

struct efi_memory {
	u32 type, pad;
	u64 start, virt, pages, attributes;
} PACKED;

/* Adds what lies above all ranges so far. With no room for one more it is lost, and so is not RAM. */
static void append(struct bootinfo *b, hpa_t start, hpa_t end, u32 kind)
{
	struct mem_range *last = b->ranges ? &b->range[b->ranges - 1] : NULL;

	if (start >= end)
		return;
	if (last && last->kind == kind && last->start + last->len == start)
		last->len += end - start;
	else if (b->ranges < BOOT_RANGES)
		b->range[b->ranges++] = (struct mem_range){start, end - start, kind};
	else
		b->dropped++;
}

void bootinfo_add(struct bootinfo *b, hpa_t start, u64 len, enum mem_kind kind)
{
	static struct mem_range old[BOOT_RANGES];
	unsigned n = b->ranges;

	start = MIN(start, PHYS_LIMIT);
	hpa_t end = start + MIN(len, PHYS_LIMIT - start);

	start = kind == MEM_RAM ? ROUND_UP(start, PAGE_SIZE) : ROUND_DOWN(start, PAGE_SIZE);
	end = kind == MEM_RAM ? ROUND_DOWN(end, PAGE_SIZE) : ROUND_UP(end, PAGE_SIZE);
	memcpy(old, b->range, sizeof(old));
	b->ranges = 0;
	/* The old ones are laid down again in their order, the new one between them and, where it weighs more, in them.
	 */
	for (unsigned i = 0; i < n; i++) {
		hpa_t from = old[i].start, to = from + old[i].len;

		append(b, start, MIN(end, from), kind);
		append(b, from, MIN(to, start), old[i].kind);
		append(b, MAX(from, start), MIN(to, end), MAX(kind, old[i].kind));
		append(b, MAX(from, MAX(start, end)), to, old[i].kind);
		start = MAX(start, to);
	}
	append(b, start, end, kind);
}

void bootinfo_claim(struct bootinfo *b)
{
	bootinfo_add(b, b->image_start, b->image_end - b->image_start, MEM_IMAGE);
	for (unsigned i = 0; i < b->modules; i++)
		bootinfo_add(b, b->module[i].start, b->module[i].len, MEM_LOADER);
}

/*
 * What no map need mention: real mode's vectors and the BIOS data area, and, up to 1 MB, the hole for video and ROMs
 * with the extended BIOS data area below it, which the firmware goes on using and which may begin at 512 KB.
 */
static void reserve_low(struct bootinfo *b)
{
	bootinfo_add(b, 0, PAGE_SIZE, MEM_RESERVED);
	bootinfo_add(b, 512 * KB, 512 * KB, MEM_RESERVED);
}

void bootinfo_efi_map(struct bootinfo *b, const void *map, u64 size, u64 entry_size)
{
	/* Code and data of the loader and of boot services, and what is free. */
	const u64 ram_types = BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(7), runtime = BIT(63);

	b->ranges = 0;
	for (u64 at = 0; entry_size >= sizeof(struct efi_memory) && at + entry_size <= size; at += entry_size) {
		const struct efi_memory *e = (const void *)((const u8 *)map + at);
		bool ram = e->type < 64 && ram_types & BIT(e->type) && !(e->attributes & runtime);

		bootinfo_add(b, e->start, MIN(e->pages, PHYS_LIMIT / PAGE_SIZE) * PAGE_SIZE,
			     ram ? MEM_RAM : MEM_RESERVED);
	}
	reserve_low(b);
}

static void copy(const struct window *w, u64 offset, void *dst, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		const u8 *p = offset + i < w->len ? w->read(w->at + offset + i, 1) : NULL;

		((u8 *)dst)[i] = p ? *p : 0;
	}
}

static u64 field(const struct window *w, u64 offset, unsigned size)
{
	u64 v = 0;

	copy(w, offset, &v, size);
	return v;
}

/* The first word. GRUB puts one that has blanks in quotes, and a \ before a quote or \ of the word's own. */
static void cut_to_word(char *s)
{
	bool quoted = *s == '"';
	char *to = s;

	for (const char *from = s + quoted; *from && (quoted ? *from != '"' : *from != ' ' && *from != '\t'); from++) {
		if (quoted && *from == '\\' && from[1])
			from++;
		*to++ = *from;
	}
	*to = 0;
}

/* An empty file is a module too, and its name will tell which; GRUB says of it that it lies from 0 to 0. */
static void add_module(struct bootinfo *b, u64 start, u64 end, const struct window *w, u64 name)
{
	struct boot_module *m = &b->module[b->modules];

	if (end < start || b->modules == BOOT_MODULES) {
		b->dropped++;
		return;
	}
	m->start = start;
	m->len = end - start;
	copy(w, name, m->name, sizeof(m->name) - 1);
	cut_to_word(m->name);
	if (m->len || m->name[0])
		b->modules++;
	else
		b->dropped++;
}

/* A memory map's entry: address, length, type; the same in both versions. */
static void add_entry(struct bootinfo *b, const struct window *w, u64 at)
{
	bool ram = field(w, at + 16, 4) == 1;

	bootinfo_add(b, field(w, at, 8), field(w, at + 8, 8), ram ? MEM_RAM : MEM_RESERVED);
}

static void mb1_modules(struct bootinfo *b, const struct window *w)
{
	u64 count = field(w, 20, 4);
	const struct window list = {w->read, field(w, 24, 4), MIN(count, (u64)BOOT_MODULES) * 16};

	b->dropped += (unsigned)(count - list.len / 16);
	for (u64 at = 0; at < list.len; at += 16) {
		u64 name = field(&list, at + 8, 4);
		const struct window string = {w->read, name, name ? sizeof(b->module[0].name) : 0};

		add_module(b, field(&list, at, 4), field(&list, at + 4, 4), &string, 0);
	}
}

/* Each entry begins with its size less these 4 bytes. One that is too small ends the map. */
static void mb1_mmap(struct bootinfo *b, const struct window *w)
{
	const struct window map = {w->read, field(w, 48, 4), MIN(field(w, 44, 4), (u64)MB1_MMAP_MAX)};

	for (u64 at = 0, size; (size = field(&map, at, 4)) >= 20; at += 4 + size)
		add_entry(b, &map, at + 4);
}

static void parse_mb1(hpa_t info, boot_read_fn read, struct bootinfo *b)
{
	const struct window w = {read, info, MB1_INFO_SIZE};
	const struct window cmdline = {read, field(&w, 16, 4), sizeof(b->cmdline)};
	u64 flags = field(&w, 0, 4);

	b->protocol = "multiboot1";
	if (flags & MB1_CMDLINE)
		copy(&cmdline, 0, b->cmdline, sizeof(b->cmdline) - 1);
	if (flags & MB1_MODULES)
		mb1_modules(b, &w);
	if (flags & MB1_MMAP)
		mb1_mmap(b, &w);
}

static void mb2_mmap(struct bootinfo *b, const struct window *w)
{
	u64 step = field(w, 8, 4);

	for (u64 at = 16; step >= 20 && at + step <= w->len; at += step)
		add_entry(b, w, at);
}

static void mb2_framebuffer(struct bootinfo *b, const struct window *w)
{
	enum { RGB = 1, EGA_TEXT = 2 };
	u64 type = field(w, 29, 1);

	if (type != RGB && type != EGA_TEXT)
		return;
	b->fb.base = field(w, 8, 8);
	b->fb.pitch = (u32)field(w, 16, 4);
	b->fb.width = (u32)field(w, 20, 4);
	b->fb.height = (u32)field(w, 24, 4);
	b->fb.bpp = (u8)field(w, 28, 1);
	b->fb.text = type == EGA_TEXT;
}

static void mb2_tag(struct bootinfo *b, const struct window *w, u64 type)
{
	if (type == CMDLINE)
		copy(w, 8, b->cmdline, sizeof(b->cmdline) - 1);
	else if (type == MODULE)
		add_module(b, field(w, 8, 4), field(w, 12, 4), w, 16);
	else if (type == MMAP)
		mb2_mmap(b, w);
	else if (type == FRAMEBUFFER)
		mb2_framebuffer(b, w);
	else if (type == ACPI_NEW || (type == ACPI_OLD && !b->acpi.copy[0]))
		copy(w, 8, b->acpi.copy, sizeof(b->acpi.copy));
	else if (type == EFI64)
		b->efi_system_table = field(w, 8, 8);
	else if (type == EFI64_HANDLE)
		b->efi_image_handle = field(w, 8, 8);
	else if (type == EFI_SERVICES)
		b->efi_boot_services = true;
}

static const char *parse_mb2(hpa_t info, boot_read_fn read, struct bootinfo *b)
{
	struct window block = {read, info, 8}, tag;

	b->protocol = "multiboot2";
	block.len = MIN(field(&block, 0, 4), MB2_MAX_SIZE);
	for (u64 at = 8, type; (type = field(&block, at, 4)) != END; at += ROUND_UP(tag.len, 8)) {
		tag = (struct window){read, info + at, field(&block, at + 4, 4)};
		if (tag.len < 8 || tag.len > block.len - at)
			return "the multiboot2 information has a tag of impossible size";
		mb2_tag(b, &tag, type);
	}
	return NULL;
}

const char *bootinfo_parse(u32 magic, hpa_t info, boot_read_fn read, struct bootinfo *out)
{
	const char *wrong = magic == MULTIBOOT1_MAGIC ? NULL : "not started by a multiboot loader";

	memset(out, 0, sizeof(*out));
	if (magic == MULTIBOOT1_MAGIC)
		parse_mb1(info, read, out);
	else if (magic == MULTIBOOT2_MAGIC)
		wrong = parse_mb2(info, read, out);
	out->efi_boot_services &= out->efi_system_table != 0;
	out->firmware = out->efi_system_table ? FIRMWARE_UEFI : FIRMWARE_BIOS;
	if (!wrong && !out->ranges && !out->efi_boot_services)
		wrong = "the loader gave no memory map";
	out->acpi.search = out->firmware == FIRMWARE_BIOS;
	reserve_low(out);
	return wrong;
}

bool bootinfo_option(const struct bootinfo *b, const char *key, char *val, size_t size)
{
	size_t klen = strlen(key), len;
	bool found = false;

	for (const char *s = b->cmdline; *s; s += len + (s[len] != 0)) {
		for (len = 0; s[len] && s[len] != ' ' && s[len] != '\t';)
			len++;
		if (len <= klen || memcmp(s, key, klen) || s[klen] != '=')
			continue;
		format(val, size, "%.*s", (int)(len - klen - 1), s + klen + 1);
		found = true;
	}
	return found;
}

const struct boot_module *bootinfo_module(const struct bootinfo *b, const char *name, size_t len)
{
	const struct boot_module *by_path = NULL;

	for (unsigned i = 0; i < b->modules; i++) {
		const struct boot_module *m = &b->module[i];
		size_t mlen = strlen(m->name);

		if (mlen < len || memcmp(m->name + mlen - len, name, len))
			continue;
		if (mlen == len)
			return m;
		if (m->name[mlen - len - 1] == '/' && !by_path)
			by_path = m;
	}
	return by_path;
}
