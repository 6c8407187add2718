/* SPDX-License-Identifier: MIT */
/*
 * The guest's ACPI tables (ACPI specification 5.0, chapter 5): what the fixed hardware of devices/platform.h looks
 * like to an operating system.
 *
 *     RSDP --> RSDT, XSDT --> FADT --> FACS, DSDT
 *                         --> MADT
 *
 * They lie in ROM. That does for the FACS too: only S3 and AML with the global lock write to it, and there is neither.
 */
#include "devices/platform.h"
#include "guest/load.h"
#include "lib/errno.h"
#include "lib/string.h"

struct PACKED header {
	char sig[4];
	u32 len;
	u8 revision, checksum;
	char oem[6], oem_table[8];
	u32 oem_revision;
	char creator[4];
	u32 creator_revision;
};

struct PACKED rsdp {
	char sig[8];
	u8 checksum; /* of the first 20 bytes */
	char oem[6];
	u8 revision;
	u32 rsdt, len;
	u64 xsdt;
	u8 checksum_all, reserved[3];
};

struct PACKED root {
	struct header h;
	u64 table[2]; /* XSDT; the RSDT has the same as u32 */
};

struct PACKED gas { /* generic address structure */
	u8 space, width, offset, access;
	u64 addr;
};

struct PACKED fadt {
	struct header h;
	u32 facs, dsdt;
	u8 reserved, profile;
	u16 sci_irq;
	u32 smi_cmd;
	u8 acpi_enable, acpi_disable, s4bios, pstate;
	u32 pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
	u8 pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_len, gpe1_len, gpe1_base, cst;
	u16 c2_latency, c3_latency, flush_size, flush_stride;
	u8 duty_offset, duty_width, day_alarm, month_alarm, century;
	u16 boot_arch;
	u8 reserved2;
	u32 flags;
	struct gas reset;
	u8 reset_value;
	u16 arm_boot;
	u8 minor;
	u64 x_facs, x_dsdt;
	struct gas x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_tmr, x_gpe[2], x_sleep[2];
};
_Static_assert(sizeof(struct fadt) == 268, "FADT revision 5");

struct PACKED madt {
	struct header h;
	u32 lapic_base, flags;
	struct PACKED {
		u8 type, len, id, reserved;
		u32 addr, gsi;
	} ioapic;
	struct PACKED {
		u8 type, len, bus, irq;
		u32 gsi;
		u16 flags;
	} timer, sci;
	struct PACKED {
		u8 type, len, cpu;
		u16 flags;
		u8 lint;
	} nmi;
	struct PACKED madt_lapic {
		u8 type, len, cpu, id;
		u32 flags;
	} lapic[MAX_VCPUS];
};

enum { MADT_LAPIC, MADT_IOAPIC, MADT_OVERRIDE, MADT_NMI = 4, ACTIVE_HIGH_LEVEL = 13, ALL_CPUS = 0xff };
enum { GAS_IO = 1, BYTE = 1, WORD, DWORD };
enum { BOOT_LEGACY_DEVICES = 1, BOOT_NO_VGA = 4 }; /* no 8042 bit: there is one that can only reset */
enum { FADT_WBINVD = 1, FADT_C1 = 4, FADT_NO_BUTTONS = 0x30, FADT_NO_RTC_WAKE = 0x40, FADT_TMR_32BIT = 0x100 };
enum { FADT_RESET = 0x400, RESET_VALUE = 6, CENTURY = 0x32, NO_C2 = 101, NO_C3 = 1001 };

/* Fills the ROM from its start. An error sticks. */
struct rom {
	struct p2m *p2m;
	gpa_t at;
	int rc;
};

static gpa_t put(struct rom *r, const void *data, u64 len)
{
	gpa_t where = r->at;
	if (!r->rc && len > GUEST_ROM_BASE + GUEST_ROM_SIZE - where)
		r->rc = -ENOSPC;
	if (!r->rc)
		r->rc = p2m_write_rom(r->p2m, where, data, len);
	if (!r->rc)
		r->at = ROUND_UP(where + len, 64); /* the FACS needs 64, the RSDP 16 */
	return where;
}

static u8 checksum(const void *data, size_t len)
{
	u8 sum = 0;
	for (size_t i = 0; i < len; i++)
		sum -= ((const u8 *)data)[i];
	return sum;
}

static gpa_t put_table(struct rom *r, const char *sig, u8 revision, struct header *h, u64 len)
{
	*h = (struct header){{0}, (u32)len, revision, 0, "CLEAVE", "CLEAVEPC", 1, "CLVE", 1};
	memcpy(h->sig, sig, 4);
	h->checksum = checksum(h, len);
	return put(r, h, len);
}

static struct gas io_port(u16 port, u8 width, u8 access) { return (struct gas){GAS_IO, width, 0, access, port}; }

static gpa_t put_fadt(struct rom *r, gpa_t facs, gpa_t dsdt)
{
	struct fadt f = {
		.facs = (u32)facs, /* x_facs would be a second one */
		.dsdt = (u32)dsdt,
		.x_dsdt = dsdt,
		.sci_irq = SCI_IRQ,
		.pm1a_evt = PM_EVT_PORT,
		.pm1a_cnt = PM_CNT_PORT,
		.pm_tmr = PM_TMR_PORT,
		.pm1_evt_len = 4,
		.pm1_cnt_len = 2,
		.pm_tmr_len = 4,
		.c2_latency = NO_C2,
		.c3_latency = NO_C3,
		.century = CENTURY,
		.boot_arch = BOOT_LEGACY_DEVICES | BOOT_NO_VGA,
		.flags = FADT_WBINVD | FADT_C1 | FADT_NO_BUTTONS | FADT_NO_RTC_WAKE | FADT_TMR_32BIT | FADT_RESET,
		.reset = io_port(RESET_PORT, 8, BYTE),
		.reset_value = RESET_VALUE,
		.x_pm1a_evt = io_port(PM_EVT_PORT, 32, WORD),
		.x_pm1a_cnt = io_port(PM_CNT_PORT, 16, WORD),
		.x_pm_tmr = io_port(PM_TMR_PORT, 32, DWORD),
	};
	return put_table(r, "FACP", 5, &f.h, sizeof(f));
}

static gpa_t put_madt(struct rom *r, unsigned vcpus)
{
	struct madt m = {
		.lapic_base = LAPIC_DEFAULT_BASE,
		.flags = 1, /* there are 8259s as well */
		.ioapic = {MADT_IOAPIC, sizeof(m.ioapic), 0, 0, IOAPIC_BASE, 0},
		.timer = {MADT_OVERRIDE, sizeof(m.timer), 0, 0, 2, 0},
		.sci = {MADT_OVERRIDE, sizeof(m.sci), 0, SCI_IRQ, SCI_IRQ, ACTIVE_HIGH_LEVEL},
		.nmi = {MADT_NMI, sizeof(m.nmi), ALL_CPUS, 0, 1},
	};
	for (unsigned i = 0; i < vcpus; i++)
		m.lapic[i] = (struct madt_lapic){MADT_LAPIC, sizeof(m.lapic[i]), (u8)i, (u8)i, 1};
	return put_table(r, "APIC", 3, &m.h, offsetof(struct madt, lapic) + vcpus * sizeof(m.lapic[0]));
}

int tables_write(struct p2m *p2m, unsigned vcpus, const struct blob *dsdt, gpa_t *rsdp)
{
	struct rom rom = {.p2m = p2m, .at = GUEST_ROM_BASE};
	struct rsdp r = {.sig = "RSD PTR ", .oem = "CLEAVE", .revision = 2, .len = sizeof(r)};
	struct root root;
	u32 facs[16] = {[1] = sizeof(facs), [8] = 2}; /* length, version */

	if (!vcpus || vcpus > MAX_VCPUS)
		return -ENOSPC;
	*rsdp = put(&rom, &r, sizeof(r)); /* its place; the contents come last */
	memcpy(facs, "FACS", 4);
	gpa_t facs_at = put(&rom, facs, sizeof(facs)), dsdt_at = put(&rom, dsdt->data, dsdt->size);
	u64 table[2] = {put_fadt(&rom, facs_at, dsdt_at), put_madt(&rom, vcpus)};
	memcpy(root.table, table, sizeof(table));
	r.xsdt = put_table(&rom, "XSDT", 1, &root.h, sizeof(root));
	memcpy(root.table, (u32[]){(u32)table[0], (u32)table[1]}, 8);
	r.rsdt = (u32)put_table(&rom, "RSDT", 1, &root.h, sizeof(root) - 8);
	r.checksum = checksum(&r, 20);
	r.checksum_all = checksum(&r, sizeof(r));
	return rom.rc ? rom.rc : p2m_write_rom(p2m, *rsdp, &r, sizeof(r));
}
