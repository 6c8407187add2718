/* SPDX-License-Identifier: MIT */
/*
 * What the loaders of the formats share: reading the kernel file, finding room in the guest's RAM, and writing there.
 *
 * Errors stick. The first one is kept in rc and told; everything after it does nothing, so that a loader reads as the
 * list of its steps and looks at rc only where it would go on with values it does not have.
 */
#ifndef GUEST_LOAD_IMPL_H
#define GUEST_LOAD_IMPL_H

#include "guest/load.h"

#define LOAD_RANGES   64
#define LOAD_MODULES  32
#define LOAD_SEGMENTS 24
#define LOADER_NAME   "Cleave"
#define LOW_MEMORY    0x10000ul /* where boot information may begin: below are BIOS data and AP start pages */
#define LIMIT_4G      0x100000000ul

struct range {
	gpa_t start, end;
};

struct loader {
	const struct load_input *in;
	struct start_state *out;
	struct load_error *err;
	int rc;
	unsigned used;
	struct range range[LOAD_RANGES]; /* of guest memory that are taken */
	gpa_t module[LOAD_MODULES];      /* where load_modules put them */
};

/* Keeps the first error: its code and, after the kernel's name, its words. */
void load_fail(struct loader *l, int rc, const char *fmt, ...) PRINTF(3, 4);

/* Copies from the kernel file; returns whether that much is there. */
bool load_peek(const struct loader *l, u64 offset, void *dst, u64 len);
/* The same, and a file that ends before is an error: dst is zero then. */
void load_read(struct loader *l, u64 offset, void *dst, u64 len);

enum load_from { LOAD_LOWEST, LOAD_HIGHEST };
/* Finds len bytes of free RAM in [lo, hi), aligned, without taking them; ~0 if there are none. */
gpa_t load_find(const struct loader *l, u64 len, u64 align, gpa_t lo, gpa_t hi, enum load_from from);
/* Finds and takes whole pages; failing that, an error that says what there is no room for. */
gpa_t load_place(struct loader *l, const char *what, u64 len, gpa_t lo, gpa_t hi, enum load_from from);
/* Takes a given range: an error if it is no RAM or something was put there before. */
void load_take(struct loader *l, const char *what, gpa_t start, u64 len);
void load_write(struct loader *l, gpa_t at, const void *data, u64 len);
/* Writes and moves *at behind it. */
void load_append(struct loader *l, gpa_t *at, const void *data, u64 len);
/* The same with a string and its zero byte; returns where it is. */
gpa_t load_string(struct loader *l, gpa_t *at, const char *s);
/* Puts each module into pages of its own below 4 GB. */
void load_modules(struct loader *l, enum load_from from);
/* Room for a page of boot information, and the command line and 64 bytes and the name for each module on top. */
gpa_t load_info_place(struct loader *l);

/* A kernel as pieces of its file: what ELF program headers or multiboot's address fields say. */
struct image {
	unsigned n;
	struct segment {
		u64 offset, vaddr, paddr, filesz, memsz;
	} seg[LOAD_SEGMENTS];
	u64 entry;     /* physical; ~0: the file gives none that makes sense */
	u64 pvh_entry; /* from the PVH note; 0: none */
};

bool elf_is(const struct loader *l);
/* Reads the headers. Segments are checked against the file, not yet against memory. */
void elf_read(struct loader *l, struct image *img);
/* The addresses that the segments span. */
struct range image_span(const struct image *img);
/* Puts the segments at their physical addresses plus shift, and the 32-bit entry point into the start state. Memory
 * beyond the file's part is zero already. */
void image_load(struct loader *l, const struct image *img, u64 shift, u64 entry);

/* Each returns false if the file is of another format; otherwise l->rc says how it went. */
bool load_linux(struct loader *l);
bool load_multiboot1(struct loader *l);
bool load_multiboot2(struct loader *l);
bool load_pvh(struct loader *l);

#endif
