/* SPDX-License-Identifier: MIT */
/*
 * What the loaders of the formats share: reading the kernel file, finding room in the guest's RAM, and writing there.
 *
 * Errors stick. The first one is kept in rc and told; everything after it does nothing, so that a loader reads as the
 * list of its steps and looks at rc only where it would go on with values it does not have.
 */
#pragma once

#include "guest/config.h"
#include "guest/load.h"

#define LOAD_SEGMENTS 24
#define LOAD_RANGES   (LOAD_SEGMENTS + CONFIG_MAX_MODULES + 4) /* no loader takes more */
#define LOW_MEMORY    0x10000ul /* where boot information may begin: below are BIOS data and AP start pages */
#define LIMIT_4G      0x100000000ul

struct loader {
	const struct load_input *in;
	struct start_state *out;
	struct load_error *err;
	int rc;
	unsigned used;
	struct range {
		gpa_t start, end;
	} range[LOAD_RANGES];             /* of guest memory that are taken */
	gpa_t module[CONFIG_MAX_MODULES]; /* where load_modules put them */
};

/* Keeps the first error: its code and, after the kernel's name, its words. */
void load_fail(struct loader *l, int rc, const char *fmt, ...) PRINTF(3, 4);

/* Copies from the kernel file; returns whether that much is there. */
bool load_peek(const struct loader *l, u64 offset, void *dst, u64 len);
/* A number of so many bytes in the kernel file. A file that ends before is an error, and the number 0. */
u64 load_word(struct loader *l, u64 offset, u64 width);

/* Takes a range: an error if it is no RAM below hi or something was put there before. */
void load_take(struct loader *l, const char *what, gpa_t start, u64 len, gpa_t hi);
/* Takes the lowest free pages in [lo, hi) and returns where they are. */
gpa_t load_place(struct loader *l, const char *what, u64 len, gpa_t lo, gpa_t hi);
void load_write(struct loader *l, gpa_t at, const void *data, u64 len);
/* Writes a number of so many bytes. */
void load_put(struct loader *l, gpa_t at, u64 v, u64 width);
/* Writes, moves *at behind it, and returns where it is. */
gpa_t load_append(struct loader *l, gpa_t *at, const void *data, u64 len);
/* The same with a string and its zero byte. */
gpa_t load_string(struct loader *l, gpa_t *at, const char *s);
#define NO_ENTRY ~0ul /* the file gives none that makes sense */

/* A kernel as pieces of its file: what ELF program headers or multiboot's address fields say. */
struct image {
	unsigned n;
	struct segment {
		u64 offset, paddr, filesz, memsz;
	} seg[LOAD_SEGMENTS];
	u64 entry;     /* physical */
	u64 pvh_entry; /* from the PVH note; 0: none */
};

/* Reads the headers. Segments are checked against the file, not yet against memory. */
void elf_read(struct loader *l, struct image *img);
/*
 * Puts the segments at their physical addresses, each module into pages of its own below 4 GB, and the 32-bit entry
 * point into the start state. Memory beyond the file's part is zero already. Returns where there is room for boot
 * information, of which EBX tells the kernel: 3 KB, the command line, and 64 bytes and the name for each module.
 */
gpa_t image_load(struct loader *l, const struct image *img, u64 entry);

/* Each returns false if the file is of another format; otherwise l->rc says how it went. */
bool load_linux(struct loader *l);
bool load_multiboot1(struct loader *l);
bool load_multiboot2(struct loader *l);
bool load_pvh(struct loader *l);
