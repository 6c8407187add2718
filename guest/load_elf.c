/* SPDX-License-Identifier: MIT */
/* ELF32 and ELF64 program headers, read as struct image (System V ABI, chapter 5; Xen's PVH note). */
#include "guest/load_impl.h"

#include "lib/errno.h"
#include "lib/string.h"

enum { EM_386 = 3, EM_X86_64 = 62, PT_LOAD = 1, PT_NOTE = 4, NOTE_PHYS32_ENTRY = 18 };

#define NOTES_MAX (64 * KB) /* bytes of notes to look through */
#define PHDRS_MAX 64

struct ident {
	u8 magic[4], class, data, version, pad[9];
	u16 type, machine;
	u32 version2;
};

struct phdr {
	u32 type;
	u64 align;
	struct segment s;
};

struct ehdr {
	struct ident id;
	u64 entry, phoff;
	u16 phentsize, phnum;
};

struct ehdr32 {
	struct ident id;
	u32 entry, phoff, shoff, flags;
	u16 ehsize, phentsize, phnum;
};

struct ehdr64 {
	struct ident id;
	u64 entry, phoff, shoff;
	u32 flags;
	u16 ehsize, phentsize, phnum;
};

struct phdr32 {
	u32 type, offset, vaddr, paddr, filesz, memsz, flags, align;
};

struct phdr64 {
	u32 type, flags;
	u64 offset, vaddr, paddr, filesz, memsz, align;
};

bool elf_is(const struct loader *l)
{
	u8 magic[4];
	return load_peek(l, 0, magic, 4) && !memcmp(magic,
						    "\x7f"
						    "ELF",
						    4);
}

static bool read_ehdr(struct loader *l, struct ehdr *h)
{
	struct ehdr32 h32;
	struct ehdr64 h64;
	if (!elf_is(l))
		load_fail(l, -EINVAL, "is no ELF file, and its multiboot header has no addresses instead");
	if (!load_read(l, 0, &h->id, sizeof(h->id)))
		return false;
	bool wide = h->id.class == 2;
	if (!load_read(l, 0, wide ? (void *)&h64 : &h32, wide ? sizeof(h64) : sizeof(h32)))
		return false;
	*h = wide ? (struct ehdr){h64.id, h64.entry, h64.phoff, h64.phentsize, h64.phnum}
		  : (struct ehdr){h32.id, h32.entry, h32.phoff, h32.phentsize, h32.phnum};
	if (h->id.data != 1 || (h->id.machine != EM_386 && h->id.machine != EM_X86_64))
		load_fail(l, -EINVAL, "is an ELF file for another machine than x86");
	else if ((!wide && h->id.class != 1) || h->phnum > PHDRS_MAX ||
		 h->phentsize < (wide ? sizeof(struct phdr64) : sizeof(struct phdr32)))
		load_fail(l, -EINVAL, "is a damaged ELF file");
	return !l->rc;
}

static bool read_phdr(struct loader *l, const struct ehdr *h, unsigned i, struct phdr *p)
{
	struct phdr32 p32;
	struct phdr64 p64;
	u64 at = h->phoff + (u64)i * h->phentsize;
	bool wide = h->id.class == 2;
	if (at < h->phoff)
		load_fail(l, -EINVAL, "is a damaged ELF file");
	if (!load_read(l, at, wide ? (void *)&p64 : &p32, wide ? sizeof(p64) : sizeof(p32)))
		return false;
	if (wide)
		*p = (struct phdr){p64.type, p64.align, {p64.offset, p64.vaddr, p64.paddr, p64.filesz, p64.memsz}};
	else
		*p = (struct phdr){p32.type, p32.align, {p32.offset, p32.vaddr, p32.paddr, p32.filesz, p32.memsz}};
	return true;
}

/* Looks for Xen's note in one segment of notes; each is three words, name and contents, padded to 4 (or 8) bytes. */
static void read_notes(const struct loader *l, const struct phdr *p, struct image *img)
{
	struct {
		u32 namesz, descsz, type;
		char name[4];
	} note;
	u64 align = p->align == 8 ? 8 : 4, end = p->s.offset + MIN(p->s.filesz, NOTES_MAX);
	for (u64 at = p->s.offset; at < end && load_peek(l, at, &note, sizeof(note));) {
		u64 desc = at + ROUND_UP(12 + (u64)note.namesz, align);
		if (note.type == NOTE_PHYS32_ENTRY && note.namesz == 4 && !memcmp(note.name, "Xen", 4))
			load_peek(l, desc, &img->pvh_entry, MIN(note.descsz, 8u));
		at = desc + ROUND_UP((u64)note.descsz, align);
	}
}

/* The entry point is a virtual address; kernels that mean a physical one are understood as well. ~0: it is neither. */
static void find_entry(struct image *img, u64 entry)
{
	for (const struct segment *s = img->seg; s < img->seg + img->n; s++)
		if (entry - s->vaddr < s->memsz) {
			img->entry = entry - s->vaddr + s->paddr;
			return;
		}
	img->entry = entry;
	for (const struct segment *s = img->seg; s < img->seg + img->n; s++)
		if (entry - s->paddr < s->memsz)
			return;
	img->entry = ~0ul;
}

void elf_read(struct loader *l, struct image *img)
{
	struct ehdr h;
	struct phdr p;
	u64 size = l->in->kernel->size;
	*img = (struct image){0};
	if (!read_ehdr(l, &h))
		return;
	for (unsigned i = 0; i < h.phnum && read_phdr(l, &h, i, &p); i++) {
		if (p.type != PT_NOTE && (p.type != PT_LOAD || !p.s.memsz))
			continue;
		if (p.s.offset > size || p.s.filesz > size - p.s.offset)
			load_fail(l, -EINVAL, "is cut short: it has %lu bytes, its headers say %lu at %#lx", size,
				  p.s.filesz, p.s.offset);
		else if (p.type == PT_NOTE)
			read_notes(l, &p, img);
		else if (p.s.filesz > p.s.memsz || p.s.paddr + p.s.memsz < p.s.paddr || img->n == LOAD_SEGMENTS)
			load_fail(l, -EINVAL, "is damaged: its segment %u makes no sense", i);
		else
			img->seg[img->n++] = p.s;
	}
	find_entry(img, h.entry);
}
