/* SPDX-License-Identifier: MIT */
/* Reading the ACPI tables (ACPI 6.5, chapter 5). They are firmware's, and firmware errs: nothing is believed unchecked.
 */
#include "drivers/acpi.h"

#include "lib/bits.h"
#include "lib/print.h"
#include "lib/string.h"

#define TABLE_MAX (16 * MB)

struct rsdp {
	char signature[8];
	u8 not_read[7], revision;
	u32 rsdt, length; /* length and what follows with revision 2 only */
	u64 xsdt;
	u8 checksum, reserved[3];
} PACKED;

#define RSDP1_SIZE offsetof(struct rsdp, length)

struct header {
	char signature[4];
	u32 length;
	u8 not_read[28];
} PACKED;

static bool sum_is_zero(const void *p, u64 len)
{
	u8 sum = 0;

	for (u64 i = 0; i < len; i++)
		sum = (u8)(sum + ((const u8 *)p)[i]);
	return !sum;
}

/* The table at pa, whole and checked; NULL if it is another, or with a log line if it is damaged. */
static const struct header *table_at(hpa_t pa, const char *signature, acpi_map_fn map)
{
	const struct header *h = map(pa, sizeof(*h));

	if (!h || memcmp(h->signature, signature, 4))
		return NULL;
	u32 len = h->length;

	h = len >= sizeof(*h) && len <= TABLE_MAX ? map(pa, len) : NULL;
	if (h && sum_is_zero(h, len))
		return h;
	log("acpi: the table %s at %#lx is damaged and not used\n", signature, pa);
	return NULL;
}

static bool is_rsdp(const struct rsdp *r)
{
	return r && !memcmp(r->signature, "RSD PTR ", 8) && sum_is_zero(r, RSDP1_SIZE);
}

/* The loader's copy, or where a BIOS keeps it (5.2.5.1). */
static const struct rsdp *find_rsdp(const struct acpi_source *from, acpi_map_fn map)
{
	const struct rsdp *r = (const void *)from->copy;

	for (hpa_t pa = 0xe0000; !is_rsdp(r); pa += 16) {
		if (!from->search || pa == 0x100000)
			return NULL;
		r = map(pa, sizeof(*r));
	}
	return r;
}

/* The XSDT or RSDT: a header and then addresses of tables; NULL without one. */
static const struct header *find_root(const struct acpi_source *from, acpi_map_fn map)
{
	const struct rsdp *r = find_rsdp(from, map);
	const struct header *root = NULL;

	if (r && r->revision >= 2 && r->length == sizeof(*r) && sum_is_zero(r, sizeof(*r)))
		root = table_at(r->xsdt, "XSDT", map);
	return r && !root ? table_at(r->rsdt, "RSDT", map) : root;
}

/* A field at the offset that its table has in the specification; 0 beyond the end: older editions are shorter. */
static u64 field(const struct header *h, u64 offset, unsigned size)
{
	u64 v = 0;

	if (offset + size <= h->length)
		memcpy(&v, (const u8 *)h + offset, size);
	return v;
}

/* The nth sound table with the signature, or NULL. */
static const struct header *find_table(const struct header *root, const char *signature, unsigned nth, acpi_map_fn map)
{
	unsigned size = root->signature[0] == 'X' ? 8 : 4;

	for (u64 at = sizeof(*root); at + size <= root->length; at += size) {
		const struct header *h = table_at(field(root, at, size), signature, map);

		if (h && !nth--)
			return h;
	}
	return NULL;
}

/* The port that the generic address structure (5.2.3.2) at offset names, or 0. */
static u16 gas_port(const struct header *h, u64 offset)
{
	u64 addr = field(h, offset + 4, 8);

	return field(h, offset, 1) == 1 && addr < 0x10000 ? (u16)addr : 0;
}

static void add_cpu(struct acpi *out, u32 apic_id, u32 flags)
{
	const u32 enabled = 1;

	if (!(flags & enabled))
		return;
	for (unsigned i = 0; i < out->cpus; i++)
		if (out->apic_id[i] == apic_id) /* often listed twice, as local APIC and x2APIC */
			return;
	if (out->cpus == ACPI_MAX_CPUS)
		log("acpi: the processor with APIC id %u is one too many and not used\n", apic_id);
	else
		out->apic_id[out->cpus++] = apic_id;
}

static void add_ioapic(struct acpi *out, const struct header *h, u64 at)
{
	if (out->ioapics == ACPI_MAX_IOAPICS)
		return;
	out->ioapic[out->ioapics].base = field(h, at + 4, 4);
	out->ioapic[out->ioapics++].gsi_base = (u32)field(h, at + 8, 4);
}

static void override_isa(struct acpi *out, const struct header *h, u64 at)
{
	enum { POLARITY = 3, LOW = 3, TRIGGER = 3 << 2, LEVEL = 3 << 2 };
	u64 bus = field(h, at + 2, 1), irq = field(h, at + 3, 1), flags = field(h, at + 8, 2);

	if (bus || irq >= ARRAY_SIZE(out->isa))
		return;
	out->isa[irq].gsi = (u32)field(h, at + 4, 4);
	out->isa[irq].low = (flags & POLARITY) == LOW;
	out->isa[irq].level = (flags & TRIGGER) == LEVEL;
}

/* 5.2.12 */
static void read_madt(const struct header *h, struct acpi *out)
{
	enum { ENTRIES = 44, LAPIC = 0, IOAPIC = 1, OVERRIDE = 2, X2APIC = 9 };

	for (u64 at = ENTRIES, len; at + 2 <= h->length; at += len) {
		u64 type = field(h, at, 1);

		len = field(h, at + 1, 1);
		if (len < 2 || len > h->length - at) {
			log("acpi: table APIC ends in a damaged entry\n");
			break;
		}
		if (type == LAPIC)
			add_cpu(out, (u32)field(h, at + 3, 1), (u32)field(h, at + 4, 4));
		else if (type == X2APIC)
			add_cpu(out, (u32)field(h, at + 4, 4), (u32)field(h, at + 8, 4));
		else if (type == IOAPIC)
			add_ioapic(out, h, at);
		else if (type == OVERRIDE)
			override_isa(out, h, at);
	}
}

/* A register block: its extended address, in tables that are long enough to have one, else its port. */
static u16 block(const struct header *h, u64 extended, u64 port)
{
	return field(h, extended + 4, 8) ? gas_port(h, extended) : (u16)field(h, port, 4);
}

/* 5.2.9. Returns the address of the DSDT. */
static hpa_t read_fadt(const struct header *h, struct acpi *out)
{
	const u64 flags = field(h, 112, 4), timer_32 = BIT(8), has_reset = BIT(10);

	out->smi_cmd = (u16)field(h, 48, 4);
	out->acpi_enable = (u8)field(h, 52, 1);
	out->pm1_cnt[0] = block(h, 172, 64);
	out->pm1_cnt[1] = block(h, 184, 68);
	out->reset_port = flags & has_reset ? gas_port(h, 116) : 0;
	out->reset_value = (u8)field(h, 128, 1);
	out->pm_timer = block(h, 208, 76);
	out->pm_timer_32 = flags & timer_32;
	return field(h, 140, 8) ? field(h, 140, 8) : field(h, 40, 4);
}

/*
 * Name (_S5_, Package () {a, b, ...}), by its bytes: what else would spell it so is not in any firmware. The package's
 * length takes 1 to 4 bytes, then comes the count; a and b are small, and so each a byte, with or without its prefix.
 */
static bool scan_for_s5(const struct header *h, struct acpi *out)
{
	enum { BYTE = 0x0a };
	const u8 *aml = (const u8 *)h;

	for (u64 at = sizeof(*h); at + 6 <= h->length; at++) {
		if (aml[at] != '_' || memcmp(aml + at, "_S5_\x12", 5))
			continue;
		at += 7 + (aml[at + 5] >> 6);
		for (unsigned i = 0; i < ARRAY_SIZE(out->s5); i++) {
			at += field(h, at, 1) == BYTE;
			out->s5[i] = field(h, at++, 1) & 7;
		}
		return at <= h->length;
	}
	return false;
}

void acpi_read(const struct acpi_source *from, acpi_map_fn map, struct acpi *out)
{
	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < ARRAY_SIZE(out->isa); i++)
		out->isa[i].gsi = i;

	const struct header *h, *root = find_root(from, map);

	out->present = root;
	if (!root)
		return;
	h = find_table(root, "APIC", 0, map);
	if (h)
		read_madt(h, out);
	h = find_table(root, "FACP", 0, map);
	if (h) {
		h = table_at(read_fadt(h, out), "DSDT", map);
		out->have_s5 = h && scan_for_s5(h, out);
	}
	for (unsigned i = 0; !out->have_s5 && (h = find_table(root, "SSDT", i, map)); i++)
		out->have_s5 = scan_for_s5(h, out);
	h = find_table(root, "SPCR", 0, map);
	out->spcr_port = h ? gas_port(h, 40) : 0;
}
