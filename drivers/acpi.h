/* SPDX-License-Identifier: MIT */
/* The machine's ACPI tables, as far as Cleave uses them; every length and checksum is checked (ACPI 6.5, chapter 5). */
#pragma once

#include "lib/types.h"

#define ACPI_MAX_CPUS    64
#define ACPI_MAX_IOAPICS 8

/* All that is read from the tables at boot, in one place. Ports are 0 where there is none. */
struct acpi {
	bool present;
	unsigned cpus; /* enabled processors, the boot processor included; 0: not told */
	u32 apic_id[ACPI_MAX_CPUS];
	unsigned ioapics;
	struct {
		u32 gsi_base;
		hpa_t base;
	} ioapic[ACPI_MAX_IOAPICS];
	struct {
		u32 gsi;
		bool level, low;
	} isa[16]; /* overrides applied */
	u16 pm_timer;
	bool pm_timer_32;
	bool have_s5;
	u8 s5[2]; /* SLP_TYP values of \_S5, for each of pm1_cnt */
	u16 pm1_cnt[2], smi_cmd, reset_port;
	u8 acpi_enable, reset_value;
	u16 spcr_port; /* of the console that is named */
};

/* What is known of the RSDP, the root of all tables. */
struct acpi_source {
	bool search; /* a BIOS machine: it may be where a BIOS keeps it */
	u8 copy[36]; /* the loader's; zeros behind a shorter one */
};

/* How tables are reached: maps len bytes at pa for reading, or NULL. */
typedef const void *(*acpi_map_fn)(hpa_t pa, u64 len);

/* Pure. Reads everything; without tables out is a plain PC. Damaged tables are skipped with a log line each. */
void acpi_read(const struct acpi_source *from, acpi_map_fn map, struct acpi *out);

/* Switches the machine off or resets it: ACPI, then what remains (CF9, 8042, triple fault). */
void acpi_power_off(const struct acpi *a); /* returns only if the machine cannot be switched off */
void acpi_reset(const struct acpi *a) __attribute__((noreturn));
