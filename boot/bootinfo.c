/* SPDX-License-Identifier: MIT */
/* The loader's information block: Multiboot Specification 0.6.96 (version 1), and 2.0. */
#include "boot/bootinfo.h"

#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/string.h"

#define PHYS_LIMIT (1ul << 52) /* no x86 CPU has more address bits */

struct mb1_info {
	u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
	u32 mmap_length, mmap_addr, drives[2], config, loader, apm, vbe[4];
	u64 fb_addr;
	u32 fb_pitch, fb_width, fb_height;
	u8 fb_bpp, fb_type, fb_color[6];
} PACKED;

#define MB1_MEMORY  BIT(0)
#define MB1_CMDLINE BIT(2)
#define MB1_MODULES BIT(3)
#define MB1_MMAP    BIT(6)
#define MB1_LOADER  BIT(9)
#define MB1_FB      BIT(12)

struct mb1_module {
	u32 start, end, string, reserved;
} PACKED;

struct mb1_mmap {
	u32 size; /* of what follows */
	u64 addr, len;
	u32 type;
} PACKED;

#define MB1_MMAP_MAX (64 * KB)

/* Tags of multiboot 2. Each begins with type and size, and the next one at the next multiple of 8. */
struct mb2_tag {
	u32 type, size;
} PACKED;

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

struct mb2_module {
	struct mb2_tag tag;
	u32 start, end;
	char string[];
} PACKED;

struct mb2_memory {
	struct mb2_tag tag;
	u32 lower, upper;
} PACKED;

struct mb2_table { /* memory map and UEFI memory map */
	struct mb2_tag tag;
	u32 entry_size, version;
	u8 entries[];
} PACKED;

struct mb2_mmap {
	u64 addr, len;
	u32 type;
} PACKED;

struct mb2_fb {
	struct mb2_tag tag;
	u64 addr;
	u32 pitch, width, height;
	u8 bpp, type;
	u16 reserved;
} PACKED; /* RGB: 6 bytes of colour fields follow */

struct mb2_u64 {
	struct mb2_tag tag;
	u64 val;
} PACKED;

struct efi_memory {
	u32 type, pad;
	u64 start, virt, pages, attributes;
} PACKED;

/* How little of a range is ours to use: where two overlap, the higher wins. */
static const u8 rank[MEM_KINDS] = {
	[MEM_RAM] = 0, [MEM_LOADER] = 1, [MEM_ACPI] = 2, [MEM_NVS] = 3, [MEM_RESERVED] = 4, [MEM_BAD] = 5,
};

static hpa_t range_end(const struct mem_range *r) { return r->start + r->len; }

static int insert(struct bootinfo *b, unsigned i, hpa_t start, hpa_t end, u32 kind)
{
	if (b->ranges == BOOT_RANGES) {
		b->dropped++;
		return -ENOSPC;
	}
	memmove(&b->range[i + 1], &b->range[i], (b->ranges - i) * sizeof(b->range[0]));
	b->range[i] = (struct mem_range){start, end - start, kind};
	b->ranges++;
	return 0;
}

/* Makes addr a boundary between ranges. With no room for one more, what lies above addr is lost. */
static int split(struct bootinfo *b, hpa_t addr)
{
	for (unsigned i = 0; i < b->ranges; i++) {
		struct mem_range *r = &b->range[i];
		hpa_t end = range_end(r);

		if (addr > r->start && addr < end) {
			r->len = addr - r->start;
			return insert(b, i + 1, addr, end, r->kind);
		}
	}
	return 0;
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
static int overlay(struct bootinfo *b, hpa_t start, hpa_t end, u32 kind, bool gaps)
{
	int err = split(b, start);
	int err2 = split(b, end);
	hpa_t pos = start;
	unsigned i = 0;

	if (!err)
		err = err2;
	for (; i < b->ranges && pos < end; i++) {
		struct mem_range *r = &b->range[i];

		if (range_end(r) <= pos)
			continue;
		if (r->start > pos && gaps) {
			hpa_t stop = MIN(r->start, end);

			err2 = insert(b, i, pos, stop, kind);
			if (err2)
				break;
			pos = stop;
		} else {
			if (r->start < end && rank[kind] > rank[r->kind])
				r->kind = kind;
			pos = range_end(r);
		}
	}
	if (gaps && pos < end && !err2)
		err2 = insert(b, i, pos, end, kind);
	merge(b);
	return err ? err : err2;
}

static int add_range(struct bootinfo *b, hpa_t start, u64 len, u32 kind, bool gaps)
{
	hpa_t end = len > PHYS_LIMIT || start > PHYS_LIMIT - len ? PHYS_LIMIT : start + len;

	if (!len || start >= PHYS_LIMIT)
		return 0;
	if (kind == MEM_RAM) {
		start = ROUND_UP(start, PAGE_SIZE);
		end = ROUND_DOWN(end, PAGE_SIZE);
	} else {
		start = ROUND_DOWN(start, PAGE_SIZE);
		end = ROUND_UP(end, PAGE_SIZE);
	}
	return start < end ? overlay(b, start, end, kind, gaps) : 0;
}

int bootinfo_add(struct bootinfo *b, hpa_t start, u64 len, enum mem_kind kind)
{
	return add_range(b, start, len, kind, true);
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

static void add_e820(struct bootinfo *b, hpa_t start, u64 len, u32 type)
{
	static const u8 kinds[] = {MEM_RESERVED, MEM_RAM, MEM_RESERVED, MEM_ACPI, MEM_NVS, MEM_BAD};

	bootinfo_add(b, start, len, type < ARRAY_SIZE(kinds) ? kinds[type] : MEM_RESERVED);
}

static void add_basic(struct bootinfo *b, u32 lower_kb, u32 upper_kb)
{
	if (b->ranges)
		return;
	bootinfo_add(b, 0, lower_kb * KB, MEM_RAM);
	bootinfo_add(b, MB, upper_kb * KB, MEM_RAM);
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

/* Copies a string that may have no end before len. */
static void copy_text(char *dst, size_t size, const char *src, size_t len)
{
	len = strnlen(src, MIN(len, size - 1));
	memcpy(dst, src, len);
	dst[len] = 0;
}

static void copy_loader_string(char *dst, size_t size, hpa_t pa, boot_read_fn read)
{
	size_t n = 0;

	for (; n < size - 1; n++) {
		const char *c = read(pa + n, 1);

		if (!c || !*c)
			break;
		dst[n] = *c;
	}
	dst[n] = 0;
}

/* The module's name is set by the caller, to the whole of its command line. */
static struct boot_module *add_module(struct bootinfo *b, u32 start, u32 end)
{
	if (end < start || b->modules == BOOT_MODULES) {
		b->dropped++;
		return NULL;
	}
	struct boot_module *m = &b->module[b->modules++];

	m->start = start;
	m->len = end - start;
	return m;
}

static void cut_at_blank(char *s)
{
	while (*s && *s != ' ' && *s != '\t')
		s++;
	*s = 0;
}

static void set_framebuffer(struct bootinfo *b, u64 addr, u32 pitch, u32 width, u32 height, u8 bpp, u8 type,
			    const u8 *color)
{
	enum { INDEXED, RGB, EGA_TEXT };
	bool rgb = type == RGB && color && bpp >= 15 && bpp <= 32;

	if (!rgb && type != EGA_TEXT)
		return;
	b->fb = (struct framebuffer){
		.base = addr, .pitch = pitch, .width = width, .height = height, .bpp = rgb ? bpp : 0, .text = !rgb};
	if (rgb) {
		b->fb.red_pos = color[0];
		b->fb.red_size = color[1];
		b->fb.green_pos = color[2];
		b->fb.green_size = color[3];
		b->fb.blue_pos = color[4];
		b->fb.blue_size = color[5];
	}
}

static void mb1_modules(const struct mb1_info *mb, boot_read_fn read, struct bootinfo *b)
{
	u32 count = MIN(mb->mods_count, (u32)BOOT_MODULES);

	b->dropped += mb->mods_count - count;
	for (u32 i = 0; i < count; i++) {
		const struct mb1_module *m = read(mb->mods_addr + (u64)i * sizeof(*m), sizeof(*m));
		struct boot_module *out = m ? add_module(b, m->start, m->end) : NULL;

		if (!out)
			continue;
		if (m->string)
			copy_loader_string(out->name, sizeof(out->name), m->string, read);
		cut_at_blank(out->name);
	}
}

static int mb1_mmap(const struct mb1_info *mb, boot_read_fn read, struct bootinfo *b, const char **why)
{
	for (u64 at = 0; at + sizeof(struct mb1_mmap) <= mb->mmap_length;) {
		const struct mb1_mmap *e = at < MB1_MMAP_MAX ? read(mb->mmap_addr + at, sizeof(*e)) : NULL;

		if (!e || e->size < sizeof(*e) - sizeof(e->size)) {
			*why = "the multiboot memory map is damaged";
			return -EINVAL;
		}
		add_e820(b, e->addr, e->len, e->type);
		at += sizeof(e->size) + e->size;
	}
	return 0;
}

static int parse_mb1(hpa_t info, boot_read_fn read, struct bootinfo *b, const char **why)
{
	/* A block of the first specification ends before the framebuffer. */
	const struct mb1_info *mb = read(info, offsetof(struct mb1_info, fb_addr));
	int err;

	if (!mb) {
		*why = "the multiboot information is not in memory";
		return -EINVAL;
	}
	b->protocol = "multiboot1";
	if (mb->flags & MB1_CMDLINE)
		copy_loader_string(b->cmdline, sizeof(b->cmdline), mb->cmdline, read);
	if (mb->flags & MB1_LOADER)
		copy_loader_string(b->loader, sizeof(b->loader), mb->loader, read);
	if (mb->flags & MB1_MODULES)
		mb1_modules(mb, read, b);
	if (mb->flags & MB1_MMAP) {
		err = mb1_mmap(mb, read, b, why);
		if (err)
			return err;
	}
	if (mb->flags & MB1_MEMORY)
		add_basic(b, mb->mem_lower, mb->mem_upper);
	mb = mb->flags & MB1_FB ? read(info, sizeof(*mb)) : NULL;
	if (mb)
		set_framebuffer(b, mb->fb_addr, mb->fb_pitch, mb->fb_width, mb->fb_height, mb->fb_bpp, mb->fb_type,
				mb->fb_color);
	return 0;
}

static void mb2_mmap(const struct mb2_table *t, struct bootinfo *b)
{
	u32 step = t->entry_size;

	if (step < sizeof(struct mb2_mmap))
		return;
	for (u64 at = sizeof(*t); at + step <= t->tag.size; at += step) {
		const struct mb2_mmap *e = (const void *)((const u8 *)t + at);

		add_e820(b, e->addr, e->len, e->type);
	}
}

static void mb2_module(const struct mb2_module *t, struct bootinfo *b)
{
	struct boot_module *m = add_module(b, t->start, t->end);

	if (!m)
		return;
	copy_text(m->name, sizeof(m->name), t->string, t->tag.size - sizeof(*t));
	cut_at_blank(m->name);
}

static void mb2_rsdp(const struct mb2_tag *t, struct bootinfo *b)
{
	u32 len = t->size - sizeof(*t);

	if (len < 20 || (b->have_rsdp_copy && t->type == TAG_ACPI_OLD))
		return;
	memset(b->rsdp_copy, 0, sizeof(b->rsdp_copy));
	memcpy(b->rsdp_copy, t + 1, MIN(len, sizeof(b->rsdp_copy)));
	b->have_rsdp_copy = true;
}

/* The fixed part of each type of tag; others have none. */
static const u8 mb2_min_size[] = {
	[TAG_MODULE] = sizeof(struct mb2_module),    [TAG_MEMORY] = sizeof(struct mb2_memory),
	[TAG_MMAP] = sizeof(struct mb2_table),       [TAG_FB] = sizeof(struct mb2_fb),
	[TAG_EFI64] = sizeof(struct mb2_u64),        [TAG_EFI_MAP] = sizeof(struct mb2_table),
	[TAG_EFI64_HANDLE] = sizeof(struct mb2_u64),
};

/* The tag's whole size is readable, and at least the fixed part of its type. */
static void mb2_tag(const struct mb2_tag *t, struct bootinfo *b)
{
	const struct mb2_fb *fb = (const void *)t;

	switch (t->type) {
	case TAG_CMDLINE:
		copy_text(b->cmdline, sizeof(b->cmdline), (const char *)(t + 1), t->size - sizeof(*t));
		break;
	case TAG_LOADER:
		copy_text(b->loader, sizeof(b->loader), (const char *)(t + 1), t->size - sizeof(*t));
		break;
	case TAG_MODULE:
		mb2_module((const void *)t, b);
		break;
	case TAG_MMAP:
		mb2_mmap((const void *)t, b);
		break;
	case TAG_FB:
		set_framebuffer(b, fb->addr, fb->pitch, fb->width, fb->height, fb->bpp, fb->type,
				t->size >= sizeof(*fb) + 6 ? (const u8 *)(fb + 1) : NULL);
		break;
	case TAG_ACPI_OLD:
	case TAG_ACPI_NEW:
		mb2_rsdp(t, b);
		break;
	case TAG_EFI64:
		b->firmware = FIRMWARE_UEFI;
		b->efi_system_table = ((const struct mb2_u64 *)t)->val;
		break;
	case TAG_EFI64_HANDLE:
		b->efi_image_handle = ((const struct mb2_u64 *)t)->val;
		break;
	case TAG_EFI_SERVICES:
		b->efi_boot_services = true;
		break;
	}
}

/* The first tag of the type, or with TAG_END any tag at or after *at; NULL at the end. Advances *at behind it. */
static const struct mb2_tag *mb2_next(const u8 *block, u32 size, u32 *at, u32 type, const char **why)
{
	while (*at + sizeof(struct mb2_tag) <= size) {
		const struct mb2_tag *t = (const void *)(block + *at);

		u32 least = t->type < ARRAY_SIZE(mb2_min_size) ? mb2_min_size[t->type] : 0;

		if (t->type == TAG_END)
			return NULL;
		if (t->size < sizeof(*t) || t->size < least || t->size > size - *at) {
			*why = "the multiboot2 information has a tag of impossible size";
			return NULL;
		}
		*at += ROUND_UP(t->size, 8);
		if (type == TAG_END || t->type == type)
			return t;
	}
	return NULL;
}

static int parse_mb2(hpa_t info, boot_read_fn read, struct bootinfo *b, const char **why)
{
	const struct mb2_tag *head = read(info, sizeof(*head)); /* not a tag, but as large: total size, reserved */
	u32 size = head ? head->type : 0, at = sizeof(*head);
	const u8 *block = size >= 16 && size <= MB2_MAX_SIZE ? read(info, size) : NULL;
	const struct mb2_tag *t;

	if (!block) {
		*why = "the multiboot2 information has an impossible size";
		return -EINVAL;
	}
	b->protocol = "multiboot2";
	*why = NULL;
	while ((t = mb2_next(block, size, &at, TAG_END, why)))
		mb2_tag(t, b);
	if (*why)
		return -EINVAL;
	/* Poorer sources of the memory map, for want of a better. */
	at = sizeof(*head);
	t = b->ranges ? NULL : mb2_next(block, size, &at, TAG_EFI_MAP, why);
	if (t)
		bootinfo_efi_map(b, (const struct mb2_table *)t + 1, t->size - sizeof(struct mb2_table),
				 ((const struct mb2_table *)t)->entry_size);
	at = sizeof(*head);
	t = mb2_next(block, size, &at, TAG_MEMORY, why);
	if (t)
		add_basic(b, ((const struct mb2_memory *)t)->lower, ((const struct mb2_memory *)t)->upper);
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
	if (err)
		return err;
	if (!out->ranges && !out->efi_boot_services) {
		*why = "the loader gave no memory map";
		return -EINVAL;
	}
	reserve_low(out);
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
	if (found)
		copy_text(val, size, found, flen);
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
