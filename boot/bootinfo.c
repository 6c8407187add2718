/* SPDX-License-Identifier: MIT */
/* The loader's information block: Multiboot Specification 0.6.96 (version 1), and 2.0. */
#include "boot/bootinfo.h"

#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/string.h"

#define PHYS_LIMIT (1ul << 52) /* no x86 CPU has more address bits */

#define MB1_INFO_SIZE 88 /* as far as it is read */
#define MB1_MEMORY    BIT(0)
#define MB1_CMDLINE   BIT(2)
#define MB1_MODULES   BIT(3)
#define MB1_MMAP      BIT(6)
#define MB1_LOADER    BIT(9)
#define MB1_MMAP_MAX  (64 * KB)

enum {
	TAG_END = 0,
	TAG_CMDLINE = 1,
	TAG_LOADER = 2,
	TAG_MODULE = 3,
	TAG_MEMORY = 4,
	TAG_MMAP = 6,
	TAG_FB = 8,
	TAG_EFI64 = 12,
	TAG_ACPI_OLD = 14,
	TAG_ACPI_NEW = 15,
	TAG_EFI_MAP = 17,
	TAG_EFI_SERVICES = 18,
	TAG_EFI64_HANDLE = 20,
};

#define MB2_MAX_SIZE MB /* of the whole block: a real one has a few KB, or some 100 KB with a kernel's symbols */

/*
 * A piece of the loader's memory, of which all that is read comes by field and text. What lies outside reads as 0, the
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

/* How little of a range is ours to use: where two overlap, the higher wins. */
static const u8 rank[MEM_KINDS] = {
	[MEM_RAM] = 0, [MEM_LOADER] = 1, [MEM_ACPI] = 2, [MEM_NVS] = 3, [MEM_RESERVED] = 4, [MEM_BAD] = 5,
};

static hpa_t range_end(const struct mem_range *r) { return r->start + r->len; }

static bool insert(struct bootinfo *b, unsigned i, hpa_t start, hpa_t end, u32 kind)
{
	if (b->ranges == BOOT_RANGES) {
		b->dropped++;
		return false;
	}
	memmove(&b->range[i + 1], &b->range[i], (b->ranges - i) * sizeof(b->range[0]));
	b->range[i] = (struct mem_range){start, end - start, kind};
	b->ranges++;
	return true;
}

/* Makes addr a boundary between ranges. With no room for one more, what lies above addr is lost. */
static void split(struct bootinfo *b, hpa_t addr)
{
	for (unsigned i = 0; i < b->ranges; i++) {
		struct mem_range *r = &b->range[i];
		hpa_t end = range_end(r);

		if (addr > r->start && addr < end) {
			r->len = addr - r->start;
			insert(b, i + 1, addr, end, r->kind);
			return;
		}
	}
}

static void fill_gaps(struct bootinfo *b, hpa_t start, hpa_t end, u32 kind)
{
	for (unsigned i = 0; i < b->ranges && start < end; i++) {
		const struct mem_range *r = &b->range[i];

		if (r->start > start && !insert(b, i, start, MIN(r->start, end), kind))
			return;
		start = MAX(start, range_end(r));
	}
	if (start < end)
		insert(b, b->ranges, start, end, kind);
}

static void merge(struct bootinfo *b)
{
	unsigned n = 0;

	for (unsigned i = 0; i < b->ranges; i++) {
		struct mem_range *last = n ? &b->range[n - 1] : NULL;

		if (last && last->kind == b->range[i].kind && range_end(last) == b->range[i].start)
			last->len += b->range[i].len;
		else
			b->range[n++] = b->range[i];
	}
	b->ranges = n;
}

/* Gives [start, end) the kind wherever it outranks what is there and, with gaps, where nothing is. */
static void overlay(struct bootinfo *b, hpa_t start, hpa_t end, u32 kind, bool gaps)
{
	split(b, start);
	split(b, end);
	/* These first: should there be no room to fill gaps, at least nothing reserved stays RAM. */
	for (unsigned i = 0; i < b->ranges; i++) {
		struct mem_range *r = &b->range[i];

		if (r->start >= start && r->start < end && rank[kind] > rank[r->kind])
			r->kind = kind;
	}
	if (gaps)
		fill_gaps(b, start, end, kind);
	merge(b);
}

static void add_range(struct bootinfo *b, hpa_t start, u64 len, u32 kind, bool gaps)
{
	hpa_t end = len > PHYS_LIMIT || start > PHYS_LIMIT - len ? PHYS_LIMIT : start + len;

	if (!len || start >= PHYS_LIMIT)
		return;
	if (kind == MEM_RAM) {
		start = ROUND_UP(start, PAGE_SIZE);
		end = ROUND_DOWN(end, PAGE_SIZE);
	} else {
		start = ROUND_DOWN(start, PAGE_SIZE);
		end = ROUND_UP(end, PAGE_SIZE);
	}
	if (start < end)
		overlay(b, start, end, kind, gaps);
}

int bootinfo_add(struct bootinfo *b, hpa_t start, u64 len, enum mem_kind kind)
{
	unsigned dropped = b->dropped;

	add_range(b, start, len, kind, true);
	return b->dropped == dropped ? 0 : -ENOSPC;
}

void bootinfo_claim(struct bootinfo *b)
{
	add_range(b, b->image_start, b->image_end - b->image_start, MEM_LOADER, false);
	for (unsigned i = 0; i < b->modules; i++)
		add_range(b, b->module[i].start, b->module[i].len, MEM_LOADER, false);
}

/* What no map need mention: real mode's vectors and the BIOS data area, and the hole for video and ROMs. */
static void reserve_low(struct bootinfo *b)
{
	bootinfo_add(b, 0, PAGE_SIZE, MEM_RESERVED);
	bootinfo_add(b, 0xa0000, 0x60000, MEM_RESERVED);
}

/* The extended BIOS data area is often missing from the map; firmware and ACPI code go on using it. */
static void reserve_ebda(struct bootinfo *b, boot_read_fn read)
{
	const u8 *p = read(0x40e, 2);
	hpa_t ebda = p ? (hpa_t)(p[0] | p[1] << 8) << 4 : 0;

	if (ebda >= 0x80000 && ebda < 0xa0000)
		bootinfo_add(b, ebda, 0xa0000 - ebda, MEM_RESERVED);
}

int bootinfo_efi_map(struct bootinfo *b, const void *map, u64 size, u64 entry_size)
{
	static const u8 kinds[] = {
		MEM_RESERVED, MEM_RAM, MEM_RAM, MEM_RAM,  MEM_RAM, MEM_RESERVED, /* loader, boot services */
		MEM_RESERVED, MEM_RAM, MEM_BAD, MEM_ACPI, MEM_NVS,
	};
	const u64 runtime = BIT(63);
	unsigned dropped = b->dropped;

	if (entry_size < sizeof(struct efi_memory) || entry_size > PAGE_SIZE || size < entry_size)
		return -EINVAL;
	b->ranges = 0;
	for (u64 at = 0; at + entry_size <= size; at += entry_size) {
		const struct efi_memory *e = (const void *)((const u8 *)map + at);
		u32 kind = e->type < ARRAY_SIZE(kinds) && !(e->attributes & runtime) ? kinds[e->type] : MEM_RESERVED;

		bootinfo_add(b, e->start, MIN(e->pages, PHYS_LIMIT / PAGE_SIZE) * PAGE_SIZE, kind);
	}
	reserve_low(b);
	return b->dropped == dropped ? 0 : -ENOSPC;
}

static u64 field(const struct window *w, u64 offset, unsigned size)
{
	const void *p = offset + size <= w->len ? w->read(w->at + offset, size) : NULL;
	u64 v = 0;

	if (p)
		memcpy(&v, p, size);
	return v;
}

/* Copies a string, cut to size. */
static void text(const struct window *w, u64 offset, char *dst, size_t size)
{
	size_t n = 0;

	while (n < size - 1 && (dst[n] = (char)field(w, offset + n, 1)))
		n++;
	dst[n] = 0;
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

static void add_module(struct bootinfo *b, u64 start, u64 end, const struct window *w, u64 name)
{
	if (end <= start || b->modules == BOOT_MODULES) {
		b->dropped++;
		return;
	}
	struct boot_module *m = &b->module[b->modules++];

	m->start = start;
	m->len = end - start;
	text(w, name, m->name, sizeof(m->name));
	cut_to_word(m->name);
}

/* A memory map's entry: address, length, type; the same in both versions. */
static void add_entry(struct bootinfo *b, const struct window *w, u64 at)
{
	static const u8 kinds[] = {MEM_RESERVED, MEM_RAM, MEM_RESERVED, MEM_ACPI, MEM_NVS, MEM_BAD};
	u64 type = field(w, at + 16, 4);

	bootinfo_add(b, field(w, at, 8), field(w, at + 8, 8), type < ARRAY_SIZE(kinds) ? kinds[type] : MEM_RESERVED);
}

/* KB below and above 1 MB, which every loader can tell: where no map is given. */
static void add_basic(struct bootinfo *b, const struct window *w, u64 at)
{
	if (b->ranges)
		return;
	bootinfo_add(b, 0, field(w, at, 4) * KB, MEM_RAM);
	bootinfo_add(b, MB, field(w, at + 4, 4) * KB, MEM_RAM);
}

static void mb1_modules(struct bootinfo *b, const struct window *w)
{
	u64 count = field(w, 20, 4), used = MIN(count, (u64)BOOT_MODULES);
	const struct window list = {w->read, field(w, 24, 4), used * 16};

	b->dropped += (unsigned)(count - used);
	for (u64 at = 0; at < list.len; at += 16) {
		u64 name = field(&list, at + 8, 4);
		const struct window string = {w->read, name, name ? sizeof(b->module[0].name) : 0};

		add_module(b, field(&list, at, 4), field(&list, at + 4, 4), &string, 0);
	}
}

static int mb1_mmap(struct bootinfo *b, const struct window *w, const char **why)
{
	const struct window map = {w->read, field(w, 48, 4), field(w, 44, 4)};
	const u64 least = 20; /* each entry begins with its size less these 4 bytes */

	for (u64 at = 0, size; at + 4 + least <= map.len; at += 4 + size) {
		size = field(&map, at, 4);
		if (size < least || at > MB1_MMAP_MAX) {
			*why = "the multiboot memory map is damaged";
			return -EINVAL;
		}
		add_entry(b, &map, at + 4);
	}
	return 0;
}

static int parse_mb1(hpa_t info, boot_read_fn read, struct bootinfo *b, const char **why)
{
	const struct window w = {read, info, MB1_INFO_SIZE};
	const struct window cmdline = {read, field(&w, 16, 4), sizeof(b->cmdline)};
	const struct window loader = {read, field(&w, 64, 4), sizeof(b->loader)};
	u64 flags = field(&w, 0, 4);
	int err = 0;

	b->protocol = "multiboot1";
	if (flags & MB1_CMDLINE)
		text(&cmdline, 0, b->cmdline, sizeof(b->cmdline));
	if (flags & MB1_LOADER)
		text(&loader, 0, b->loader, sizeof(b->loader));
	if (flags & MB1_MODULES)
		mb1_modules(b, &w);
	if (flags & MB1_MMAP)
		err = mb1_mmap(b, &w, why);
	if (flags & MB1_MEMORY && !err)
		add_basic(b, &w, 4);
	return err;
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
	b->fb = (struct framebuffer){
		.base = field(w, 8, 8),
		.pitch = (u32)field(w, 16, 4),
		.width = (u32)field(w, 20, 4),
		.height = (u32)field(w, 24, 4),
		.text = type == EGA_TEXT,
	};
	if (b->fb.text)
		return;
	b->fb.bpp = (u8)field(w, 28, 1);
	b->fb.red_pos = (u8)field(w, 32, 1);
	b->fb.red_size = (u8)field(w, 33, 1);
	b->fb.green_pos = (u8)field(w, 34, 1);
	b->fb.green_size = (u8)field(w, 35, 1);
	b->fb.blue_pos = (u8)field(w, 36, 1);
	b->fb.blue_size = (u8)field(w, 37, 1);
}

static void mb2_rsdp(struct bootinfo *b, const struct window *w, u64 type)
{
	if (b->acpi.have_copy && type == TAG_ACPI_OLD)
		return;
	for (unsigned i = 0; i < sizeof(b->acpi.copy); i++)
		b->acpi.copy[i] = (u8)field(w, 8 + i, 1);
	b->acpi.have_copy = true;
}

static void mb2_tag(struct bootinfo *b, const struct window *w, u64 type)
{
	switch (type) {
	case TAG_CMDLINE:
		text(w, 8, b->cmdline, sizeof(b->cmdline));
		break;
	case TAG_LOADER:
		text(w, 8, b->loader, sizeof(b->loader));
		break;
	case TAG_MODULE:
		add_module(b, field(w, 8, 4), field(w, 12, 4), w, 16);
		break;
	case TAG_MMAP:
		mb2_mmap(b, w);
		break;
	case TAG_FB:
		mb2_framebuffer(b, w);
		break;
	case TAG_ACPI_OLD:
	case TAG_ACPI_NEW:
		mb2_rsdp(b, w, type);
		break;
	case TAG_EFI64:
		b->firmware = FIRMWARE_UEFI;
		b->efi_system_table = field(w, 8, 8);
		break;
	case TAG_EFI64_HANDLE:
		b->efi_image_handle = field(w, 8, 8);
		break;
	case TAG_EFI_SERVICES:
		b->efi_boot_services = true;
		break;
	}
}

static int parse_mb2(hpa_t info, boot_read_fn read, struct bootinfo *b, const char **why)
{
	struct window block = {read, info, 8}, tag, basic = {0}, efi_map = {0};

	b->protocol = "multiboot2";
	block.len = field(&block, 0, 4);
	if (block.len < 16 || block.len > MB2_MAX_SIZE) {
		*why = "the multiboot2 information has an impossible size";
		return -EINVAL;
	}
	for (u64 at = 8, type; (type = field(&block, at, 4)) != TAG_END; at += ROUND_UP(tag.len, 8)) {
		tag = (struct window){read, info + at, field(&block, at + 4, 4)};
		if (tag.len < 8 || tag.len > block.len - at) {
			*why = "the multiboot2 information has a tag of impossible size";
			return -EINVAL;
		}
		if (type == TAG_MEMORY)
			basic = tag;
		else if (type == TAG_EFI_MAP)
			efi_map = tag;
		else
			mb2_tag(b, &tag, type);
	}
	/* The poorer sources of the memory map, for want of a better. */
	const void *p = efi_map.len > 16 && !b->ranges ? read(efi_map.at + 16, efi_map.len - 16) : NULL;

	if (p)
		bootinfo_efi_map(b, p, efi_map.len - 16, field(&efi_map, 8, 4));
	if (basic.len)
		add_basic(b, &basic, 8);
	return 0;
}

int bootinfo_parse(u32 magic, hpa_t info, boot_read_fn read, struct bootinfo *out, const char **why)
{
	int err = -EINVAL;

	memset(out, 0, sizeof(*out));
	*why = "not started by a multiboot loader";
	if (magic == MULTIBOOT1_MAGIC)
		err = parse_mb1(info, read, out, why);
	else if (magic == MULTIBOOT2_MAGIC)
		err = parse_mb2(info, read, out, why);
	out->efi_boot_services &= out->efi_system_table != 0;
	if (err)
		return err;
	if (!out->ranges && !out->efi_boot_services) {
		*why = "the loader gave no memory map";
		return -EINVAL;
	}
	reserve_low(out);
	out->acpi.search = out->firmware == FIRMWARE_BIOS;
	if (out->firmware == FIRMWARE_BIOS)
		reserve_ebda(out, read);
	return 0;
}

bool bootinfo_option(const struct bootinfo *b, const char *key, char *val, size_t size)
{
	size_t klen = strlen(key);
	const char *found = NULL, *s = b->cmdline;
	size_t flen = 0;

	while (*s) {
		size_t len = 0;

		while (s[len] && s[len] != ' ' && s[len] != '\t')
			len++;
		if (len >= klen && !memcmp(s, key, klen) && (len == klen || s[klen] == '=')) {
			found = s + MIN(len, klen + 1);
			flen = len - (size_t)(found - s);
		}
		s += s[len] ? len + 1 : len;
	}
	if (found) {
		flen = MIN(flen, size - 1);
		memcpy(val, found, flen);
		val[flen] = 0;
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
