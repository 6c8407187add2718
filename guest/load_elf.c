/* SPDX-License-Identifier: MIT */
/*
 * ELF32 and ELF64 program headers, read as struct image (System V ABI, chapter 5). Both classes have the fields used
 * here in the same order, as words of 4 or 8 bytes: so one reader does.
 *
 * And ELF kernels that say by a note how they start, PVH: 32-bit entry with hvm_start_info in EBX (Xen's
 * docs/misc/pvh.pandoc, public/arch-x86/hvm/start_info.h).
 */
#include "guest/load_impl.h"
#include "lib/errno.h"
#include "lib/string.h"

enum { EM_386 = 3, EM_X86_64 = 62, PT_LOAD = 1, PT_NOTE = 4, NOTE_PHYS32_ENTRY = 18 };
enum { PHDRS_MAX = 64, NOTES_MAX = 65536 }; /* bytes of notes to look through */

static bool elf_is(const struct loader *l)
{
	char start[4];
	return load_peek(l, 0, start, sizeof(start)) && !memcmp(start, "\177ELF", sizeof(start));
}

/* Looks for Xen's note in a segment of notes; each is three words, name and contents, padded to 4. */
static void read_notes(const struct loader *l, const struct segment *s, struct image *img)
{
	u32 note[4]; /* name's size, contents' size, type, start of the name */
	u64 end = s->offset + MIN(s->filesz, (u64)NOTES_MAX);
	for (u64 at = s->offset; at < end && load_peek(l, at, note, sizeof(note));) {
		u64 contents = at + 12 + ROUND_UP((u64)note[0], 4);
		if (note[2] == NOTE_PHYS32_ENTRY && note[0] == 4 && !memcmp(&note[3], "Xen", 4))
			load_peek(l, contents, &img->pvh_entry, MIN(note[1], 8u));
		at = contents + ROUND_UP((u64)note[1], 4);
	}
}

static void read_segment(struct loader *l, u64 at, u64 width, u64 entry, struct image *img)
{
	u64 size = l->in->kernel->size, word[6];
	for (u64 i = 0; i < ARRAY_SIZE(word); i++)
		word[i] = load_word(l, at + i * width, width);
	u32 type = (u32)word[0]; /* ELF64 has the flags above */
	struct segment s = {.offset = word[1], .paddr = word[3], .filesz = word[4], .memsz = word[5]};
	if (type != PT_NOTE && (type != PT_LOAD || !s.memsz))
		return;
	if (s.offset > size || s.filesz > size - s.offset)
		load_fail(l, -EINVAL, "is cut short: it has %lu bytes, its headers say %lu at %#lx", size, s.filesz,
			  s.offset);
	else if (type == PT_NOTE)
		read_notes(l, &s, img);
	else if (s.filesz > s.memsz || s.paddr + s.memsz < s.paddr || img->n == LOAD_SEGMENTS)
		load_fail(l, -EINVAL, "is damaged: its segment at %#lx makes no sense", s.paddr);
	else
		img->seg[img->n++] = s;
	/* The entry point is a virtual address (word 2); kernels that mean a physical one are understood as well. */
	if (type == PT_LOAD && entry - word[2] < s.memsz)
		img->entry = entry - word[2] + s.paddr;
	else if (type == PT_LOAD && img->entry == NO_ENTRY && entry - s.paddr < s.memsz)
		img->entry = entry;
}

void elf_read(struct loader *l, struct image *img)
{
	*img = (struct image){.entry = NO_ENTRY};
	if (!elf_is(l))
		load_fail(l, -EINVAL, "is no ELF file, and its multiboot header has no addresses instead");
	u64 width = load_word(l, 4, 1) == 2 ? 8 : 4, machine = load_word(l, 18, 2), entry = load_word(l, 24, width);
	u64 table = load_word(l, 24 + width, width), count = load_word(l, width == 8 ? 56 : 44, 2);
	u64 each = load_word(l, width == 8 ? 54 : 42, 2);
	if ((machine != EM_386 && machine != EM_X86_64) || count > PHDRS_MAX || table > l->in->kernel->size)
		load_fail(l, -EINVAL, "is an ELF file for another machine than x86, or damaged");
	for (u64 i = 0; !l->rc && i < count; i++)
		read_segment(l, table + i * each, width, entry, img);
}

#define PVH_MAGIC 0x336ec578ul

static void write_info(struct loader *l, gpa_t start)
{
	const struct load_input *in = l->in;
	u64 info[7] = {PVH_MAGIC | 1ul << 32, (u64)in->modules << 32}; /* magic, version; flags, modules */
	gpa_t at = start + sizeof(info);
	info[2] = at;
	for (unsigned i = 0; i < in->modules; i++)
		load_append(l, &at, (u64[4]){l->module[i], in->module[i].size}, 32);
	info[4] = in->rsdp;
	info[5] = load_append(l, &at, in->map->e, in->map->n * sizeof(in->map->e[0]));
	info[6] = in->map->n;
	info[3] = load_string(l, &at, in->cmdline);
	load_write(l, start, info, sizeof(info));
}

bool load_pvh(struct loader *l)
{
	struct image img;
	if (!elf_is(l))
		return false;
	elf_read(l, &img);
	if (!img.pvh_entry)
		load_fail(l, -EINVAL, "is an ELF file without a multiboot header or PVH note: not a kernel for this");
	write_info(l, image_load(l, &img, img.pvh_entry));
	return true;
}
