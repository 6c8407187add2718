/* SPDX-License-Identifier: MIT */
/*
 * What the boot loader told us, copied out of its memory and checked: one structure whatever the loader and the
 * firmware. Parsing is pure; nothing in the loader's block is trusted (sizes lie, strings lack their end, ranges wrap).
 */
#pragma once

#include "drivers/acpi.h"
#include "drivers/screen.h"
#include "lib/types.h"

/* From what is most to what is least ours to use: where ranges overlap, the higher wins. */
enum mem_kind {
	MEM_RAM,      /* free for Cleave */
	MEM_LOADER,   /* RAM that modules, the loader's data or tables of Cleave occupy */
	MEM_IMAGE,    /* RAM that Cleave itself occupies */
	MEM_RESERVED, /* the firmware's, ACPI's, damaged, or unknown */
};

struct mem_range {
	hpa_t start;
	u64 len;
	u32 kind;
};

struct boot_module {
	hpa_t start;
	u64 len;
	char name[256]; /* the module's command line, up to its first blank */
};

#define BOOT_RANGES  256
#define BOOT_MODULES 64

enum firmware { FIRMWARE_BIOS, FIRMWARE_UEFI };

struct bootinfo {
	const char *protocol; /* "multiboot1", "multiboot2" */
	u8 firmware;          /* enum firmware */
	char cmdline[1024];
	struct mem_range range[BOOT_RANGES]; /* sorted, disjoint; page-aligned for MEM_RAM (shrunk) */
	unsigned ranges;
	struct boot_module module[BOOT_MODULES];
	unsigned modules;
	struct framebuffer fb;
	struct acpi_source acpi;
	u64 efi_system_table, efi_image_handle; /* 0: none */
	bool efi_boot_services;                 /* still running */
	hpa_t image_start, image_end;           /* where Cleave itself lies */
	unsigned dropped;                       /* ranges or modules that did not fit: told on the console */
};

#define MULTIBOOT1_MAGIC 0x2badb002u
#define MULTIBOOT2_MAGIC 0x36d76289u

/* How the parser reads the loader's physical memory: a pointer to len readable bytes, or NULL. */
typedef const void *(*boot_read_fn)(hpa_t pa, u64 len);

/*
 * Parses what magic says lies at info. Returns NULL, or what is wrong with it (static text): then only fields parsed so
 * far are set. The memory map is absent under UEFI with boot services: efi_take_over fills it.
 */
const char *bootinfo_parse(u32 magic, hpa_t info, boot_read_fn read, struct bootinfo *out);
/*
 * Adds a range, whole pages: RAM shrinks to them, anything else grows. Where ranges overlap the less usable kind wins,
 * so that the order of calls does not matter. Keeps the array sorted and disjoint. When it is full the highest ranges
 * are lost, and b->dropped counts them.
 */
void bootinfo_add(struct bootinfo *b, hpa_t start, u64 len, enum mem_kind kind);
/* Replaces the ranges by those of a UEFI memory map (UEFI 2.10, 7.2.3); by none but the low ones if it is no map. */
void bootinfo_efi_map(struct bootinfo *b, const void *map, u64 size, u64 entry_size);
/* Marks what is in use: MEM_IMAGE, and the modules as MEM_LOADER. image_start and image_end must be set. */
void bootinfo_claim(struct bootinfo *b);
/* The value of the last key=value in the command line, cut to size; or false. */
bool bootinfo_option(const struct bootinfo *b, const char *key, char *val, size_t size);
/* The module of that name, or whose path ends in /name; or NULL. */
const struct boot_module *bootinfo_module(const struct bootinfo *b, const char *name, size_t len);
