/* SPDX-License-Identifier: MIT */
/* Reading the ACPI tables (ACPI 6.5, chapter 5). They are firmware's, and firmware errs: nothing is believed unchecked.
 */
#include "drivers/acpi.h"

#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/print.h"
#include "lib/string.h"

#define TABLE_MAX  (16 * MB)
#define TABLES_MAX 512 /* entries of the RSDT or XSDT that are looked at */

struct rsdp {
	char signature[8];
	u8 checksum;
	char oem[6];
	u8 revision;
	u32 rsdt;
	u32 length; /* from here on with revision 2 only */
	u64 xsdt;
	u8 checksum2, reserved[3];
} PACKED;

#define RSDP1_SIZE offsetof(struct rsdp, length)

struct header {
	char signature[4];
	u32 length;
	u8 revision, checksum;
	char oem[6], oem_table[8];
	u32 oem_revision, creator, creator_revision;
} PACKED;

#define GAS_MEMORY 0
#define GAS_IO     1

static bool sum_is_zero(const void *p, u64 len)
{
	u8 sum = 0;

	for (u64 i = 0; i < len; i++)
		sum = (u8)(sum + ((const u8 *)p)[i]);
	return !sum;
}

/* The whole table at pa, checked; NULL with a log line if it is damaged. */
static const struct header *table_at(hpa_t pa, acpi_map_fn map)
{
	const struct header *h = map(pa, sizeof(*h));
	u32 len = h ? h->length : 0;

	h = len >= sizeof(*h) && len <= TABLE_MAX ? map(pa, len) : NULL;
	if (h && sum_is_zero(h, len))
		return h;
	log("acpi    the table at %#lx is damaged and not used: %s\n", (unsigned long)pa,
	    h ? "wrong checksum" : "impossible length");
	return NULL;
}

static bool signed_as(const struct header *h, const char *signature) { return !memcmp(h->signature, signature, 4); }

/* Makes a revision 2 structure of what was read: xsdt is 0 where there is none. */
static bool accept_rsdp(struct rsdp *r)
{
	if (memcmp(r->signature, "RSD PTR ", 8) || !sum_is_zero(r, RSDP1_SIZE))
		return false;
	if (r->revision < 2 || r->length != sizeof(*r) || !sum_is_zero(r, sizeof(*r)))
		r->xsdt = 0;
	return true;
}

static bool rsdp_at(hpa_t pa, acpi_map_fn map, struct rsdp *out)
{
	const void *p = map(pa, sizeof(*out));

	if (p)
		memcpy(out, p, sizeof(*out));
	return p && accept_rsdp(out);
}

static bool scan_for_rsdp(hpa_t start, hpa_t end, acpi_map_fn map, struct rsdp *out)
{
	for (hpa_t pa = start; pa < end; pa += 16) {
		const char *p = map(pa, 8);

		if (p && !memcmp(p, "RSD PTR ", 8) && rsdp_at(pa, map, out))
			return true;
	}
	return false;
}

/* The loader's copy, the address we were given, or where a BIOS keeps it: the EBDA and the read-only area (5.2.5.1). */
static bool find_rsdp(const struct acpi_source *from, acpi_map_fn map, struct rsdp *out)
{
	memcpy(out, from->copy, sizeof(*out));
	if (from->have_copy && accept_rsdp(out))
		return true;
	if (from->rsdp && rsdp_at(from->rsdp, map, out))
		return true;
	if (!from->search)
		return false;

	const u8 *p = map(0x40e, 2);
	hpa_t ebda = p ? (hpa_t)(p[0] | p[1] << 8) << 4 : 0;

	return (ebda >= 0x80000 && ebda < 0xa0000 && scan_for_rsdp(ebda, ebda + KB, map, out)) ||
	       scan_for_rsdp(0xe0000, 0x100000, map, out);
}

/* The RSDT or XSDT: a header and then addresses of tables. */
struct root {
	const struct header *h;
	unsigned entry_size;
};

static bool find_root(const struct acpi_source *from, acpi_map_fn map, struct root *out)
{
	struct rsdp r;

	if (!find_rsdp(from, map, &r))
		return false;
	out->entry_size = 8;
	out->h = r.xsdt ? table_at(r.xsdt, map) : NULL;
	if (out->h && signed_as(out->h, "XSDT"))
		return true;
	out->entry_size = 4;
	out->h = table_at(r.rsdt, map);
	return out->h && signed_as(out->h, "RSDT");
}

/* Address of the nth table with the signature, or 0. */
static hpa_t find_table(const struct root *root, const char *signature, unsigned nth, acpi_map_fn map)
{
	unsigned n = MIN((root->h->length - (unsigned)sizeof(*root->h)) / root->entry_size, TABLES_MAX);

	for (unsigned i = 0; i < n; i++) {
		hpa_t pa = 0;

		memcpy(&pa, (const u8 *)(root->h + 1) + (u64)i * root->entry_size, root->entry_size);

		const struct header *h = pa ? map(pa, sizeof(*h)) : NULL;

		if (h && signed_as(h, signature) && !nth--)
			return pa;
	}
	return 0;
}

static const struct header *get_table(const struct root *root, const char *signature, acpi_map_fn map)
{
	hpa_t pa = find_table(root, signature, 0, map);

	return pa ? table_at(pa, map) : NULL;
}

/* A field at the offset that its table has in the specification; 0 beyond the end: older editions are shorter. */
static u64 field(const struct header *h, u64 offset, unsigned size)
{
	u64 v = 0;

	if (offset + size <= h->length)
		memcpy(&v, (const u8 *)h + offset, size);
	return v;
}

static struct acpi_gas gas(const struct header *h, u64 offset)
{
	return (struct acpi_gas){.space = (u8)field(h, offset, 1),
				 .width = (u8)field(h, offset + 1, 1),
				 .offset = (u8)field(h, offset + 2, 1),
				 .access = (u8)field(h, offset + 3, 1),
				 .addr = field(h, offset + 4, 8)};
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
		out->cpus_dropped++;
	else
		out->apic_id[out->cpus++] = apic_id;
}

static void add_ioapic(struct acpi *out, const struct header *h, u64 at)
{
	if (out->ioapics == ACPI_MAX_IOAPICS)
		return;
	out->ioapic[out->ioapics].id = (u32)field(h, at + 2, 1);
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

static void read_madt_entry(const struct header *h, u64 at, struct acpi *out)
{
	enum { LAPIC = 0, IOAPIC = 1, OVERRIDE = 2, LAPIC_ADDRESS = 5, X2APIC = 9 };
	static const u8 least[] = {[LAPIC] = 8, [IOAPIC] = 12, [OVERRIDE] = 10, [LAPIC_ADDRESS] = 12, [X2APIC] = 16};
	u64 type = field(h, at, 1);

	if (type >= sizeof(least) || field(h, at + 1, 1) < least[type])
		return;
	switch (type) {
	case LAPIC:
		add_cpu(out, (u32)field(h, at + 3, 1), (u32)field(h, at + 4, 4));
		break;
	case X2APIC:
		add_cpu(out, (u32)field(h, at + 4, 4), (u32)field(h, at + 8, 4));
		break;
	case IOAPIC:
		add_ioapic(out, h, at);
		break;
	case OVERRIDE:
		override_isa(out, h, at);
		break;
	case LAPIC_ADDRESS:
		out->lapic_base = field(h, at + 4, 8);
		break;
	}
}

/* 5.2.12 */
static void read_madt(const struct header *h, struct acpi *out)
{
	const u64 entries = 44, legacy_pic = 1;

	out->cpus = 0;
	out->lapic_base = field(h, 36, 4);
	out->legacy_pic = field(h, 40, 4) & legacy_pic;
	for (u64 at = entries, len; at + 2 <= h->length; at += len) {
		len = field(h, at + 1, 1);
		if (len < 2 || len > h->length - at) {
			log("acpi    table APIC ends in a damaged entry\n");
			break;
		}
		read_madt_entry(h, at, out);
	}
	if (!out->cpus)
		out->cpus = 1;
}

/* A register block: its extended address, in tables that are long enough to have one, else its port. */
static struct acpi_gas block(const struct header *h, u64 extended, u64 port)
{
	struct acpi_gas g = gas(h, extended);

	return g.addr ? g : (struct acpi_gas){.space = GAS_IO, .addr = field(h, port, 4)};
}

/* 5.2.9. Returns the address of the DSDT. */
static hpa_t read_fadt(const struct header *h, struct acpi *out)
{
	const u64 flags = field(h, 112, 4), timer_32 = BIT(8), has_reset = BIT(10);
	struct acpi_gas timer = block(h, 208, 76);

	out->smi_cmd = (u32)field(h, 48, 4);
	out->acpi_enable = (u8)field(h, 52, 1);
	out->pm1a_cnt = block(h, 172, 64);
	out->pm1b_cnt = block(h, 184, 68);
	out->reset = gas(h, 116);
	out->reset_value = (u8)field(h, 128, 1);
	out->have_reset = flags & has_reset && out->reset.addr;
	if (timer.space == GAS_IO && timer.addr <= 0xffff)
		out->pm_timer = (u16)timer.addr;
	out->pm_timer_32 = flags & timer_32;
	return field(h, 140, 8) ? field(h, 140, 8) : field(h, 40, 4);
}

/* An AML integer (20.2.3), of which the low byte is wanted. Returns what follows it, or NULL if it is something else.
 */
static const u8 *aml_integer(const u8 *p, const u8 *end, u8 *val)
{
	enum { ZERO = 0x00, ONE = 0x01, BYTE = 0x0a, WORD = 0x0b, DWORD = 0x0c, ONES = 0xff };

	if (p >= end)
		return NULL;
	u8 op = *p++;
	unsigned len = op == BYTE ? 1 : op == WORD ? 2 : op == DWORD ? 4 : 0;

	if ((!len && op != ZERO && op != ONE && op != ONES) || len > (u64)(end - p))
		return NULL;
	*val = len ? *p : op;
	return p + len;
}

/* Name (_S5_, Package () {a, b, ...}), by its bytes: what else would spell it so is not in any firmware. */
static bool read_s5(const u8 *p, const u8 *end, struct acpi *out)
{
	enum { PACKAGE = 0x12 };
	unsigned skip;

	if (end - p < 4 || *p++ != PACKAGE)
		return false;
	skip = 1 + (*p >> 6) + 1; /* the package's length takes 1 to 4 bytes, then comes the count */
	if (skip >= (u64)(end - p))
		return false;
	p = aml_integer(p + skip, end, &out->s5_a);
	if (!p)
		return false;
	if (!aml_integer(p, end, &out->s5_b))
		out->s5_b = 0;
	out->s5_a &= 7;
	out->s5_b &= 7;
	return true;
}

static bool scan_for_s5(const struct header *h, struct acpi *out)
{
	enum { NAME = 0x08 };
	const u8 *start = (const u8 *)(h + 1), *end = (const u8 *)h + h->length;

	for (const u8 *p = start + 1; p < end && end - p >= 4; p++) {
		if (*p != '_' || memcmp(p, "_S5_", 4))
			continue;
		bool named = p[-1] == NAME || (p[-1] == '\\' && p - start >= 2 && p[-2] == NAME);

		if (named && read_s5(p + 4, end, out))
			return true;
	}
	return false;
}

static void find_s5(const struct root *root, hpa_t dsdt, acpi_map_fn map, struct acpi *out)
{
	const struct header *h = dsdt ? table_at(dsdt, map) : NULL;

	out->have_s5 = h && scan_for_s5(h, out);
	for (unsigned i = 0; !out->have_s5 && i < TABLES_MAX; i++) {
		hpa_t pa = find_table(root, "SSDT", i, map);

		if (!pa)
			break;
		h = table_at(pa, map);
		out->have_s5 = h && scan_for_s5(h, out);
	}
}

static void read_small_tables(const struct root *root, acpi_map_fn map, struct acpi *out)
{
	const struct header *spcr = get_table(root, "SPCR", map), *hpet = get_table(root, "HPET", map);

	if (spcr) {
		out->spcr_type = (u8)field(spcr, 36, 1);
		out->spcr_port = gas(spcr, 40);
		out->spcr = out->spcr_port.addr;
	}
	if (hpet && gas(hpet, 40).space == GAS_MEMORY)
		out->hpet = gas(hpet, 40).addr;
	out->dmar = find_table(root, "DMAR", 0, map);
	out->ivrs = find_table(root, "IVRS", 0, map);
	out->mcfg = find_table(root, "MCFG", 0, map);
}

int acpi_read(const struct acpi_source *from, acpi_map_fn map, struct acpi *out)
{
	struct root root;

	memset(out, 0, sizeof(*out));
	out->cpus = 1;
	out->lapic_base = 0xfee00000;
	out->legacy_pic = true;
	for (unsigned i = 0; i < ARRAY_SIZE(out->isa); i++)
		out->isa[i].gsi = i;
	if (!find_root(from, map, &root))
		return -ENOENT;
	out->present = true;

	const struct header *madt = get_table(&root, "APIC", map), *fadt = get_table(&root, "FACP", map);

	if (madt)
		read_madt(madt, out);
	if (fadt)
		find_s5(&root, read_fadt(fadt, out), map, out);
	read_small_tables(&root, map, out);
	return 0;
}
