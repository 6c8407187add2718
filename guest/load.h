/* SPDX-License-Identifier: MIT */
/*
 * Putting a kernel and what belongs to it into a guest's fresh memory: Linux bzImage (64-bit boot protocol), multiboot
 * 1 and 2 ELF, PVH ELF. Files are untrusted: every offset and size in them is checked.
 */
#pragma once

#include "lib/types.h"
#include "p2m/p2m.h"

struct blob {
	const char *name;
	const void *data;
	u64 size;
};

/* The guest's memory as E820 tells it. Also the source for slots. */
enum { E820_RAM = 1, E820_RESERVED = 2 };
struct e820 {
	gpa_t start;
	u64 len;
	u32 type, reserved; /* 0: boot information has the same layout */
};
#define E820_MAX 8
struct memmap {
	struct e820 e[E820_MAX];
	unsigned n;
	u64 low_end;  /* end of RAM below 4 GB */
	u64 high_end; /* end of RAM above 4 GB, or 4 GB if none */
};

/*
 * Read-only memory: where a PC has option ROMs nothing is found, without an exit for each look; then ACPI tables, in
 * the part that is searched for them.
 */
#define GUEST_ROM_BASE  0xc0000ul
#define GUEST_ROM_SIZE  0x40000ul
#define GUEST_ACPI_BASE 0xe0000ul
#define GUEST_MMIO_BASE 0xc0000000ul /* RAM below ends here at most; the rest continues at 4 GB */

/*
 * The map of a PC with that many bytes of RAM: [0, 9fc00), hole to 1 MB, RAM up to GUEST_MMIO_BASE, RAM from 4 GB.
 * memory is the total; the 384 KB of the legacy hole are not made up for.
 */
void memmap_build(struct memmap *m, u64 memory);

/*
 * How the first vCPU starts; what is not here is 0. Segments are flat, CS is 0x10 and the others 0x18; 32-bit:
 * protected mode, paging off; 64-bit: long mode with cr3.
 */
struct start_state {
	bool long_mode;
	u64 rip, rax, rbx, rsi;
	u64 cr3;   /* long mode: tables that the loader made in guest memory, identity over at least 4 GB */
	gpa_t gdt; /* a GDT that the loader made (Linux's boot protocol), or none */
	u16 gdt_limit;
};

struct load_input {
	struct p2m *p2m;
	const struct memmap *map;
	const struct blob *kernel;
	const struct blob *module; /* initrd parts or multiboot modules */
	unsigned modules;
	const char *cmdline; /* terminated */
	gpa_t rsdp;
};

/* What went wrong, for people: names the file and the remedy. */
struct load_error {
	char text[224];
};

/*
 * Recognises the format and loads into memory that is all zero still. Returns 0, -EINVAL (not a kernel we know, or
 * damaged), -ENOSPC (does not fit) or -EFAULT (guest memory cannot be written).
 */
int load_kernel(const struct load_input *in, struct start_state *out, struct load_error *err);

/*
 * Writes RSDP, XSDT, FADT, FACS, MADT, DSDT (dsdt: AML from iasl) into the ROM area. Sets *rsdp. 0 or -ENOSPC, -EFAULT.
 */
int tables_write(struct p2m *p2m, unsigned vcpus, const struct blob *dsdt, gpa_t *rsdp);
