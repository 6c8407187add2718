/* SPDX-License-Identifier: MIT */
/*
 * ELF32 and ELF64 program headers, read as struct image (System V ABI, chapter 5; Xen's PVH note). Both classes have
 * the fields used here in the same order, as words of 4 or 8 bytes: so one reader does.
 */
#include "guest/load_impl.h"
#include "lib/errno.h"
#include "lib/string.h"

enum { EM_386 = 3, EM_X86_64 = 62, PT_LOAD = 1, PT_NOTE = 4, NOTE_PHYS32_ENTRY = 18 };
enum { PHDRS_MAX = 64, NOTES_MAX = 65536 }; /* bytes of notes to look through */

bool elf_is(const struct loader *l)
{
	static const char magic[4] = {0x7f, 'E', 'L', 'F'};
	char start[4];
	return load_peek(l, 0, start, sizeof(start)) && !memcmp(start, magic, sizeof(magic));
}

static u64 read_word(struct loader *l, u64 at, u64 width)
{
	u64 v = 0;
	load_read(l, at, &v, width);
	return v;
}

/* Looks for Xen's note in a segment of notes; each is three words, name and contents, padded to 4 (or 8) bytes. */
static void read_notes(const struct loader *l, const struct segment *s, u64 align, struct image *img)
{
	u32 note[4]; /* name's size, contents' size, type, start of the name */
	u64 end = s->offset + MIN(s->filesz, (u64)NOTES_MAX);
	for (u64 at = s->offset; at < end && load_peek(l, at, note, sizeof(note));) {
		u64 contents = at + ROUND_UP(12 + (u64)note[0], align);
		if (note[2] == NOTE_PHYS32_ENTRY && note[0] == 4 && !memcmp(&note[3], "Xen", 4))
			load_peek(l, contents, &img->pvh_entry, MIN(note[1], 8u));
		at = contents + ROUND_UP((u64)note[1], align);
	}
}

static void read_segment(struct loader *l, u64 at, u64 width, struct image *img)
{
	struct segment s;
	u64 size = l->in->kernel->size, type = read_word(l, at, 4);
	s.offset = read_word(l, at + width, width);
	s.vaddr = read_word(l, at + 2 * width, width);
	s.paddr = read_word(l, at + 3 * width, width);
	s.filesz = read_word(l, at + 4 * width, width);
	s.memsz = read_word(l, at + 5 * width, width);
	u64 align = read_word(l, at + (width == 8 ? 48 : 28), width);

	if (type != PT_NOTE && (type != PT_LOAD || !s.memsz))
		return;
	if (s.offset > size || s.filesz > size - s.offset)
		load_fail(l, -EINVAL, "is cut short: it has %lu bytes, its headers say %lu at %#lx", size, s.filesz,
			  s.offset);
	else if (type == PT_NOTE)
		read_notes(l, &s, align == 8 ? 8 : 4, img);
	else if (s.filesz > s.memsz || s.paddr + s.memsz < s.paddr || img->n == LOAD_SEGMENTS)
		load_fail(l, -EINVAL, "is damaged: its segment at %#lx makes no sense", s.paddr);
	else
		img->seg[img->n++] = s;
}

/* The entry point is a virtual address; kernels that mean a physical one are understood as well. */
static u64 find_entry(const struct image *img, u64 entry)
{
	for (const struct segment *s = img->seg; s < img->seg + img->n; s++)
		if (entry - s->vaddr < s->memsz)
			return entry - s->vaddr + s->paddr;
	for (const struct segment *s = img->seg; s < img->seg + img->n; s++)
		if (entry - s->paddr < s->memsz)
			return entry;
	return ~0ul;
}

void elf_read(struct loader *l, struct image *img)
{
	*img = (struct image){0};
	if (!elf_is(l))
		load_fail(l, -EINVAL, "is no ELF file, and its multiboot header has no addresses instead");
	u64 width = read_word(l, 4, 1) == 2 ? 8 : 4, machine = read_word(l, 18, 2);
	u64 table = read_word(l, 24 + width, width), count = read_word(l, width == 8 ? 56 : 44, 2);
	u64 each = read_word(l, width == 8 ? 54 : 42, 2);
	if (machine != EM_386 && machine != EM_X86_64)
		load_fail(l, -EINVAL, "is an ELF file for another machine than x86");
	else if (count > PHDRS_MAX || each < 7 * width || table > l->in->kernel->size)
		load_fail(l, -EINVAL, "is a damaged ELF file");
	for (u64 i = 0; !l->rc && i < count; i++)
		read_segment(l, table + i * each, width, img);
	img->entry = find_entry(img, read_word(l, 24, width));
}
