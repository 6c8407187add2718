/* SPDX-License-Identifier: MIT */
/*
 * The guest's ACPI tables (ACPI specification 5.0, chapter 5): what the fixed hardware of devices/platform.h looks
 * like to an operating system.
 *
 *     RSDP --> RSDT, XSDT --> FADT --> FACS, DSDT
 *                         --> MADT
 *
 * They are arrays of bytes here, filled at the offsets that the specification lists. They lie in ROM. That does for the
 * FACS too: only S3 and AML with the global lock write to it, and there is neither.
 */
#include "devices/platform.h"
#include "guest/load.h"
#include "lib/assert.h"
#include "lib/errno.h"
#include "lib/string.h"

enum { HEADER = 36, RSDP_V1 = 20, RSDP = 36, FACS = 64, FADT = 268 }; /* bytes */
enum { MADT_CPUS = HEADER + 46, MADT_CPU = 8 };

/* Fills the ROM from its start. An error sticks. */
struct rom {
	struct p2m *p2m;
	gpa_t at;
	int rc;
};

static gpa_t put(struct rom *r, const void *data, u64 len)
{
	gpa_t where = r->at;
	if (!r->rc)
		r->rc = len > GUEST_ROM_BASE + GUEST_ROM_SIZE - where ? -ENOSPC
								      : p2m_write_rom(r->p2m, where, data, len);
	r->at = ROUND_UP(where + len, 64); /* the FACS needs 64, the RSDP 16 */
	return where;
}

/* Little-endian. */
static void set(u8 *table, u64 at, u64 bytes, u64 value) { memcpy(table + at, &value, bytes); }

static void set_checksum(u8 *table, u64 at, u64 len)
{
	u8 sum = 0;
	for (u64 i = 0; i < len; i++)
		sum += table[i];
	table[at] -= sum;
}

/* The table is there from HEADER on. */
static gpa_t put_table(struct rom *r, const char *sig, u8 revision, u8 *table, u64 len)
{
	memset(table, 0, HEADER);
	memcpy(table, sig, 4);
	set(table, 4, 4, len);
	table[8] = revision;
	memcpy(table + 10, "CLEAVECLEAVEPC\1\0\0\0CLVE\1", 23); /* maker, table, its revision; tool, its revision */
	set_checksum(table, 9, len);
	return put(r, table, len);
}

/* A generic address structure for a port, but for the upper half of its address; access: 1 byte, 2 word, 3 dword. */
#define GAS(port, width, access) (1ul | (width) << 8 | (access) << 24 | (u64)(port) << 32)

static gpa_t put_fadt(struct rom *r, gpa_t facs, gpa_t dsdt)
{
	u8 fadt[FADT] = {0};
	set(fadt, 36, 4, facs); /* X_FACS would be a second one */
	set(fadt, 40, 4, dsdt);
	set(fadt, 46, 2, SCI_IRQ);
	set(fadt, 56, 4, PM_EVT_PORT);
	set(fadt, 64, 4, PM_CNT_PORT);
	set(fadt, 76, 4, PM_TMR_PORT);
	set(fadt, 88, 4, 4 | 2 << 8 | 4 << 24);          /* their lengths */
	set(fadt, 96, 4, 101 | 1001 << 16);              /* latencies of C2 and C3: so long that there is neither */
	set(fadt, 108, 1, 0x32);                         /* the RTC's register for the century */
	set(fadt, 109, 2, 1 | 4);                        /* legacy devices; no VGA; no 8042, as ours can only reset */
	set(fadt, 112, 4, 1 | 4 | 0x70 | 0x100 | 0x400); /* WBINVD, C1, no buttons nor RTC wake, 32-bit timer, reset */
	set(fadt, 116, 8, GAS(RESET_PORT, 8, 1));
	set(fadt, 128, 1, 6); /* the value that resets */
	set(fadt, 140, 8, dsdt);
	set(fadt, 148, 8, GAS(PM_EVT_PORT, 32, 2));
	set(fadt, 172, 8, GAS(PM_CNT_PORT, 16, 2));
	set(fadt, 208, 8, GAS(PM_TMR_PORT, 32, 3));
	return put_table(r, "FACP", 5, fadt, FADT);
}

static gpa_t put_madt(struct rom *r, unsigned vcpus)
{
	u8 madt[MADT_CPUS + MADT_CPU * MAX_VCPUS] = {0};
	set(madt, 36, 4, LAPIC_DEFAULT_BASE);
	set(madt, 40, 4, 1); /* there are 8259s as well */
	set(madt, 44, 8, 1 | 12 << 8 | IOAPIC_BASE << 32);
	set(madt, 56, 8, 2 | 10 << 8 | 2ul << 32); /* IRQ 0 arrives at pin 2 of the I/O APIC */
	set(madt, 66, 8, 2 | 10 << 8 | SCI_IRQ << 24 | (u64)SCI_IRQ << 32);
	set(madt, 74, 2, 13);                                  /* it is active high and level */
	set(madt, 76, 6, 4 | 6 << 8 | 0xff << 16 | 1ul << 40); /* NMIs: LINT1 of every CPU */
	for (u64 i = 0; i < vcpus; i++)
		set(madt, MADT_CPUS + i * MADT_CPU, 8, MADT_CPU << 8 | i << 16 | i << 24 | 1ul << 32);
	return put_table(r, "APIC", 3, madt, MADT_CPUS + vcpus * MADT_CPU);
}

int tables_write(struct p2m *p2m, unsigned vcpus, const struct blob *dsdt, gpa_t *rsdp)
{
	struct rom rom = {.p2m = p2m, .at = GUEST_ACPI_BASE};
	u8 r[RSDP] = "RSD PTR \0CLEAVE\2", facs[FACS] = "FACS", root[HEADER + 16];

	ASSERT(vcpus && vcpus <= MAX_VCPUS);
	*rsdp = put(&rom, r, RSDP); /* its place; the contents come last */
	set(facs, 4, 4, FACS);
	facs[32] = 2; /* version */
	gpa_t facs_at = put(&rom, facs, FACS), dsdt_at = put(&rom, dsdt->data, dsdt->size);
	u64 fadt = put_fadt(&rom, facs_at, dsdt_at), madt = put_madt(&rom, vcpus);
	set(root, HEADER, 8, fadt | madt << 32);
	set(r, 16, 4, put_table(&rom, "RSDT", 1, root, HEADER + 8));
	set(r, 20, 4, RSDP);
	set(root, HEADER, 8, fadt);
	set(root, HEADER + 8, 8, madt);
	set(r, 24, 8, put_table(&rom, "XSDT", 1, root, HEADER + 16));
	set_checksum(r, 8, RSDP_V1);
	set_checksum(r, 32, RSDP);
	return rom.rc ? rom.rc : p2m_write_rom(p2m, *rsdp, r, RSDP);
}
