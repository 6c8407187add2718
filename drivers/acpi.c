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

struct madt {
	struct header h;
	u32 lapic, flags;
} PACKED;

#define MADT_LEGACY_PIC  1u
#define MADT_CPU_ENABLED 1u

enum { MADT_LAPIC = 0, MADT_IOAPIC = 1, MADT_OVERRIDE = 2, MADT_LAPIC_ADDRESS = 5, MADT_X2APIC = 9 };

struct madt_entry {
	u8 type, length;
	union {
		struct {
			u8 acpi_id, apic_id;
			u32 flags;
		} PACKED lapic;
		struct {
			u16 reserved;
			u32 apic_id, flags;
		} PACKED x2apic;
		struct {
			u8 id, reserved;
			u32 address, gsi_base;
		} PACKED ioapic;
		struct {
			u8 bus, irq;
			u32 gsi;
			u16 flags;
		} PACKED override;
		struct {
			u16 reserved;
			u64 address;
		} PACKED lapic_address;
	};
} PACKED;

struct fadt {
	struct header h;
	u32 facs, dsdt;
	u8 reserved, profile;
	u16 sci;
	u32 smi_cmd;
	u8 acpi_enable, acpi_disable, s4bios, pstate;
	u32 pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_timer, gpe0, gpe1;
	u8 pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_timer_len, skip[20];
	u32 flags;
	/* Revision 1 ends here. */
	struct acpi_gas reset;
	u8 reset_value, skip2[3];
	u64 x_facs, x_dsdt;
	struct acpi_gas x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_timer;
} PACKED;
_Static_assert(offsetof(struct fadt, reset) == 116 && offsetof(struct fadt, x_pm_timer) == 208, "the FADT's layout");

#define FADT1_SIZE    offsetof(struct fadt, reset)
#define FADT_TIMER_32 BIT(8)
#define FADT_RESET    BIT(10)
#define GAS_IO        1

struct spcr {
	struct header h;
	u8 type, reserved[3];
	struct acpi_gas port;
} PACKED;

struct hpet {
	struct header h;
	u32 id;
	struct acpi_gas base;
} PACKED;

static bool sum_is_zero(const void *p, u64 len)
{
	u8 sum = 0;

	for (u64 i = 0; i < len; i++)
		sum = (u8)(sum + ((const u8 *)p)[i]);
	return !sum;
}

/* The whole table at pa, checked; NULL if there is none, with a log line if it is damaged. */
static const struct header *table_at(hpa_t pa, acpi_map_fn map)
{
	const struct header *h = pa ? map(pa, sizeof(*h)) : NULL;
	u32 len = h ? h->length : 0;
	char name[5] = "?";

	if (h)
		for (unsigned i = 0; i < 4; i++)
			name[i] = h->signature[i] >= ' ' && h->signature[i] <= '~' ? h->signature[i] : '?';
	h = len >= sizeof(*h) && len <= TABLE_MAX ? map(pa, len) : NULL;
	if (h && sum_is_zero(h, len))
		return h;
	log("acpi    table %s at %#lx is damaged and not used (%u bytes, %s)\n", name, (unsigned long)pa, len,
	    h ? "wrong checksum" : "out of bounds");
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
	u64 size = sizeof(*out);
	const void *p = map(pa, size);

	if (!p) {
		size = RSDP1_SIZE;
		p = map(pa, size);
	}
	memset(out, 0, sizeof(*out));
	if (p)
		memcpy(out, p, size);
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
static bool find_rsdp(const struct bootinfo *b, acpi_map_fn map, struct rsdp *out)
{
	memcpy(out, b->rsdp_copy, sizeof(*out));
	if (b->have_rsdp_copy && accept_rsdp(out))
		return true;
	if (b->rsdp && rsdp_at(b->rsdp, map, out))
		return true;
	if (b->firmware != FIRMWARE_BIOS)
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

static bool find_root(const struct bootinfo *b, acpi_map_fn map, struct root *out)
{
	struct rsdp r;

	if (!find_rsdp(b, map, &r))
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

/* A table of at least min bytes, or NULL. */
static const void *get_table(const struct root *root, const char *signature, u64 min, acpi_map_fn map)
{
	hpa_t pa = find_table(root, signature, 0, map);
	const struct header *h = pa ? table_at(pa, map) : NULL;

	if (h && h->length < min) {
		log("acpi    table %s is too short (%u bytes) and not used\n", signature, h->length);
		return NULL;
	}
	return h;
}

static void add_cpu(struct acpi *out, u32 apic_id, u32 flags)
{
	if (!(flags & MADT_CPU_ENABLED))
		return;
	for (unsigned i = 0; i < out->cpus; i++)
		if (out->apic_id[i] == apic_id) /* often listed twice, as local APIC and x2APIC */
			return;
	if (out->cpus == ACPI_MAX_CPUS)
		out->cpus_dropped++;
	else
		out->apic_id[out->cpus++] = apic_id;
}

static void add_ioapic(struct acpi *out, const struct madt_entry *e)
{
	if (out->ioapics == ACPI_MAX_IOAPICS)
		return;
	out->ioapic[out->ioapics].id = e->ioapic.id;
	out->ioapic[out->ioapics].gsi_base = e->ioapic.gsi_base;
	out->ioapic[out->ioapics++].base = e->ioapic.address;
}

static void override_isa(struct acpi *out, const struct madt_entry *e)
{
	enum { POLARITY = 3, LOW = 3, TRIGGER = 3 << 2, LEVEL = 3 << 2 };

	if (e->override.bus || e->override.irq >= ARRAY_SIZE(out->isa))
		return;
	out->isa[e->override.irq].gsi = e->override.gsi;
	out->isa[e->override.irq].low = (e->override.flags & POLARITY) == LOW;
	out->isa[e->override.irq].level = (e->override.flags & TRIGGER) == LEVEL;
}

static void read_madt_entry(const struct madt_entry *e, struct acpi *out)
{
	static const u8 least[] = {[MADT_LAPIC] = 8,
				   [MADT_IOAPIC] = 12,
				   [MADT_OVERRIDE] = 10,
				   [MADT_LAPIC_ADDRESS] = 12,
				   [MADT_X2APIC] = 16};

	if (e->type >= sizeof(least) || e->length < least[e->type])
		return;
	switch (e->type) {
	case MADT_LAPIC:
		add_cpu(out, e->lapic.apic_id, e->lapic.flags);
		break;
	case MADT_X2APIC:
		add_cpu(out, e->x2apic.apic_id, e->x2apic.flags);
		break;
	case MADT_IOAPIC:
		add_ioapic(out, e);
		break;
	case MADT_OVERRIDE:
		override_isa(out, e);
		break;
	case MADT_LAPIC_ADDRESS:
		out->lapic_base = e->lapic_address.address;
		break;
	}
}

static void read_madt(const struct madt *m, struct acpi *out)
{
	out->cpus = 0;
	out->lapic_base = m->lapic;
	out->legacy_pic = m->flags & MADT_LEGACY_PIC;
	for (u64 at = sizeof(*m); at + 2 <= m->h.length;) {
		const struct madt_entry *e = (const void *)((const u8 *)m + at);

		if (e->length < 2 || e->length > m->h.length - at) {
			log("acpi    table APIC ends in a damaged entry\n");
			break;
		}
		read_madt_entry(e, out);
		at += e->length;
	}
	if (!out->cpus)
		out->cpus = 1;
}

/* A register block: the extended address where the table is long enough to have it, else the legacy port. */
static struct acpi_gas block(struct acpi_gas extended, u32 port)
{
	return extended.addr ? extended : (struct acpi_gas){.space = GAS_IO, .addr = port};
}

/* Returns the address of the DSDT. */
static hpa_t read_fadt(const struct header *h, struct acpi *out)
{
	struct fadt f = {0};

	memcpy(&f, h, MIN(h->length, sizeof(f)));
	out->pm1a_cnt = block(f.x_pm1a_cnt, f.pm1a_cnt);
	out->pm1b_cnt = block(f.x_pm1b_cnt, f.pm1b_cnt);
	out->smi_cmd = f.smi_cmd;
	out->acpi_enable = f.acpi_enable;
	out->reset = f.reset;
	out->reset_value = f.reset_value;
	out->have_reset = f.flags & FADT_RESET && f.reset.addr;

	struct acpi_gas timer = block(f.x_pm_timer, f.pm_timer);

	if (timer.space == GAS_IO && timer.addr <= 0xffff)
		out->pm_timer = (u16)timer.addr;
	out->pm_timer_32 = f.flags & FADT_TIMER_32;
	return f.x_dsdt ? f.x_dsdt : f.dsdt;
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
	const struct spcr *s = get_table(root, "SPCR", sizeof(*s), map);
	const struct hpet *h = get_table(root, "HPET", sizeof(*h), map);

	if (s && s->port.addr) {
		out->spcr = true;
		out->spcr_port = s->port;
		out->spcr_type = s->type;
	}
	if (h && !h->base.space)
		out->hpet = h->base.addr;
	out->dmar = find_table(root, "DMAR", 0, map);
	out->ivrs = find_table(root, "IVRS", 0, map);
	out->mcfg = find_table(root, "MCFG", 0, map);
}

int acpi_read(const struct bootinfo *b, acpi_map_fn map, struct acpi *out)
{
	struct root root;

	memset(out, 0, sizeof(*out));
	out->cpus = 1;
	out->lapic_base = 0xfee00000;
	out->legacy_pic = true;
	for (unsigned i = 0; i < ARRAY_SIZE(out->isa); i++)
		out->isa[i].gsi = i;
	if (!find_root(b, map, &root))
		return -ENOENT;
	out->present = true;

	const struct madt *madt = get_table(&root, "APIC", sizeof(*madt), map);
	const struct header *fadt = get_table(&root, "FACP", FADT1_SIZE, map);

	if (madt)
		read_madt(madt, out);
	if (fadt)
		find_s5(&root, read_fadt(fadt, out), map, out);
	read_small_tables(&root, map, out);
	return 0;
}
