/* SPDX-License-Identifier: MIT */
/* The machine's ACPI tables, as far as Cleave uses them; every length and checksum is checked (ACPI 6.5, chapter 5). */
#ifndef DRIVERS_ACPI_H
#define DRIVERS_ACPI_H

#include "lib/types.h"

#define ACPI_MAX_CPUS    64
#define ACPI_MAX_IOAPICS 8

struct acpi_gas {
	u8 space, width, offset, access;
	u64 addr;
} __attribute__((packed));

/* All that is read from the tables at boot, in one place. */
struct acpi {
	bool present;
	unsigned cpus; /* enabled processors, the boot processor included */
	u32 apic_id[ACPI_MAX_CPUS];
	unsigned cpus_dropped; /* more than we can use */
	hpa_t lapic_base;
	unsigned ioapics;
	struct {
		u32 id, gsi_base;
		hpa_t base;
	} ioapic[ACPI_MAX_IOAPICS];
	struct {
		u32 gsi;
		bool level, low;
	} isa[16]; /* overrides applied */
	bool legacy_pic;
	u16 pm_timer; /* port, or 0 */
	bool pm_timer_32;
	hpa_t hpet; /* or 0 */
	struct acpi_gas pm1a_cnt, pm1b_cnt, reset;
	u8 reset_value;
	bool have_s5, have_reset;
	u8 s5_a, s5_b; /* SLP_TYP values of \_S5 */
	u32 smi_cmd;
	u8 acpi_enable;
	bool spcr; /* a console is named */
	struct acpi_gas spcr_port;
	u8 spcr_type;
	hpa_t dmar, ivrs, mcfg; /* addresses of tables for later users, or 0 */
};

/* What is known of the RSDP, the root of all tables. */
struct acpi_source {
	hpa_t rsdp;  /* its physical address, or 0 */
	bool search; /* a BIOS machine: it may be where a BIOS keeps it */
	bool have_copy;
	u8 copy[36]; /* the loader's; zeros behind a shorter one */
};

/* How tables are reached: maps len bytes at pa for reading, or NULL. */
typedef const void *(*acpi_map_fn)(hpa_t pa, u64 len);

/* Pure. Reads everything. Returns 0; -ENOENT without tables (out is then a plain PC with one CPU); damaged tables are
 * skipped with a log line each. */
int acpi_read(const struct acpi_source *from, acpi_map_fn map, struct acpi *out);

/* Switches the machine off or resets it: ACPI, then what remains (CF9, 8042, triple fault). */
void acpi_power_off(const struct acpi *a); /* returns only if the machine cannot be switched off */
void acpi_reset(const struct acpi *a) __attribute__((noreturn));

#endif
