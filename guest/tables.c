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
	struct gas x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_tmr, x_gpe0, x_gpe1, sleep_cnt,
		sleep_sts;
};
_Static_assert(sizeof(struct fadt) == 268, "FADT revision 5");

struct PACKED facs {
	char sig[4];
	u32 len, hw_signature, waking, lock, flags;
	u64 x_waking;
	u8 version, reserved[31];
};
_Static_assert(sizeof(struct facs) == 64, "FACS");

struct PACKED madt {
	struct header h;
	u32 lapic_base, flags;
	struct PACKED {
		u8 type, len, id, reserved;
		u32 addr, gsi;
	} ioapic;
	struct PACKED madt_override {
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

enum { MADT_LAPIC, MADT_IOAPIC, MADT_OVERRIDE, MADT_NMI = 4 };
enum { ACTIVE_HIGH = 1, LEVEL = 3 << 2 };
enum { GAS_IO = 1, BYTE = 1, WORD, DWORD };
enum { BOOT_LEGACY_DEVICES = 1, BOOT_NO_VGA = 4 }; /* no 8042 bit: there is one that can only reset */
enum {
	FADT_WBINVD = 1 << 0,
	FADT_C1 = 1 << 2,
	FADT_NO_POWER_BUTTON = 1 << 4, /* as fixed hardware */
	FADT_NO_SLEEP_BUTTON = 1 << 5,
	FADT_NO_RTC_WAKE = 1 << 6,
	FADT_TMR_32BIT = 1 << 8,
	FADT_RESET = 1 << 10,
};
enum { RESET_VALUE = 6, CENTURY = 0x32, NO_C2 = 101, NO_C3 = 1001 };

/* Fills the ROM from its start. An error sticks. */
struct rom {
	struct p2m *p2m;
	gpa_t at;
	int rc;
};

static gpa_t put(struct rom *r, const void *data, u64 len)
{
	gpa_t where = r->at;
	if (r->rc)
		return where;
	if (len > GUEST_ROM_BASE + GUEST_ROM_SIZE - where)
		r->rc = -ENOSPC;
	else
		r->rc = p2m_write_rom(r->p2m, where, data, len);
	r->at = ROUND_UP(where + len, 64); /* the FACS needs 64, the RSDP 16 */
	return where;
}

static u8 checksum(const void *data, size_t len)
{
	u8 sum = 0;
	for (size_t i = 0; i < len; i++)
		sum += ((const u8 *)data)[i];
	return (u8)-sum;
}

static gpa_t put_table(struct rom *r, const char *sig, u8 revision, struct header *h, u32 len)
{
	*h = (struct header){.len = len,
			     .revision = revision,
			     .oem = "CLEAVE",
			     .oem_table = "CLEAVEPC",
			     .oem_revision = 1,
			     .creator = "CLVE",
			     .creator_revision = 1};
	memcpy(h->sig, sig, 4);
	h->checksum = checksum(h, len);
	return put(r, h, len);
}

static struct gas io_port(u16 port, u8 bytes, u8 access)
{
	return (struct gas){.space = GAS_IO, .width = (u8)(bytes * 8), .access = access, .addr = port};
}

static gpa_t put_fadt(struct rom *r, gpa_t facs, gpa_t dsdt)
{
	struct fadt f = {
		.facs = (u32)facs,
		.dsdt = (u32)dsdt,
		.x_facs = facs,
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
		.flags = FADT_WBINVD | FADT_C1 | FADT_NO_POWER_BUTTON | FADT_NO_SLEEP_BUTTON | FADT_NO_RTC_WAKE |
			 FADT_TMR_32BIT | FADT_RESET,
		.reset = io_port(RESET_PORT, 1, BYTE),
		.reset_value = RESET_VALUE,
		.x_pm1a_evt = io_port(PM_EVT_PORT, 4, WORD),
		.x_pm1a_cnt = io_port(PM_CNT_PORT, 2, WORD),
		.x_pm_tmr = io_port(PM_TMR_PORT, 4, DWORD),
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
		.sci = {MADT_OVERRIDE, sizeof(m.sci), 0, SCI_IRQ, SCI_IRQ, ACTIVE_HIGH | LEVEL},
		.nmi = {MADT_NMI, sizeof(m.nmi), 0xff, 0, 1},
	};
	for (unsigned i = 0; i < vcpus; i++)
		m.lapic[i] = (struct madt_lapic){MADT_LAPIC, sizeof(m.lapic[i]), (u8)i, (u8)i, 1};
	return put_table(r, "APIC", 3, &m.h, (u32)(offsetof(struct madt, lapic) + vcpus * sizeof(m.lapic[0])));
}

int tables_write(struct p2m *p2m, unsigned vcpus, const struct blob *dsdt, gpa_t *rsdp)
{
	struct rom rom = {.p2m = p2m, .at = GUEST_ROM_BASE};
	struct rsdp root = {.sig = "RSD PTR ", .oem = "CLEAVE", .revision = 2, .len = sizeof(root)};
	struct facs facs = {.sig = "FACS", .len = sizeof(facs), .version = 2};
	struct PACKED {
		struct header h;
		u32 table[2];
	} rsdt = {.table = {0}};
	struct PACKED {
		struct header h;
		u64 table[2];
	} xsdt = {.table = {0}};

	if (!vcpus || vcpus > MAX_VCPUS)
		return -ENOSPC;
	*rsdp = put(&rom, &root, sizeof(root)); /* its place; the contents come last */
	gpa_t facs_at = put(&rom, &facs, sizeof(facs));
	gpa_t dsdt_at = put(&rom, dsdt->data, dsdt->size);
	xsdt.table[0] = put_fadt(&rom, facs_at, dsdt_at);
	xsdt.table[1] = put_madt(&rom, vcpus);
	for (unsigned i = 0; i < 2; i++)
		rsdt.table[i] = (u32)xsdt.table[i];
	root.rsdt = (u32)put_table(&rom, "RSDT", 1, &rsdt.h, sizeof(rsdt));
	root.xsdt = put_table(&rom, "XSDT", 1, &xsdt.h, sizeof(xsdt));
	root.checksum = checksum(&root, 20);
	root.checksum_all = checksum(&root, sizeof(root));
	return rom.rc ? rom.rc : p2m_write_rom(p2m, *rsdp, &root, sizeof(root));
}
