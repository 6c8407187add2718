/* SPDX-License-Identifier: MIT */
/*
 * The checks that a CPU makes of a guest's state before it enters the guest (Intel SDM vol. 3, 27.3.1), with words for
 * each, and what it says when it refuses something. The CPU itself says little more than "no". What no guest can bring
 * about, because we alone set it, is not checked again.
 */
#include "arch/x86/hvm/exit.h"
#include "arch/x86/hvm/vmx.h"
#include "lib/print.h"

#define CODE_ACCESSED(type) (((type)&9) == 9)

enum { AR_TYPE = 0xf, AR_S = 0x10, AR_P = 0x80, AR_L = 0x2000, AR_DB = 0x4000, AR_G = 0x8000, AR_VM86 = 0xf3 };
enum { TYPE_LDT = 2, TYPE_DATA = 3, TYPE_DATA_DOWN = 7, TYPE_TSS16 = 3, TYPE_TSS = 11, TYPE_CONFORMING = 13 };
enum { SEL_RPL = 3, SEL_TI = 4, EVENT_NONE = 8 };

static const char *const segments[] = {"ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR", "GDTR", "IDTR"};

struct check {
	const u64 *f;
	char *why;
	size_t size;
	bool any_mode, wide; /* unrestricted guest; IA-32e mode */
};

/* Notes the rule that is broken. */
static PRINTF(2, 3) bool broken(struct check *k, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vformat(k->why, k->size, fmt, ap);
	va_end(ap);
	return false;
}

static bool broken_field(struct check *k, unsigned field, const char *what)
{
	char name[40];

	vmx_field_name(field, name, sizeof(name));
	return broken(k, "%s %lx %s", name, k->f[field], what);
}

static bool canonical(u64 a) { return (u64)((s64)(a << 16) >> 16) == a; }
static u64 beyond_memory(void) { return ~BITS(cpu_features.phys_bits - 1u, 0); }

struct rule {
	u64 broken;
	const char *text;
};

static bool check_rules(struct check *k, const struct rule *r, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (r[i].broken)
			return broken(k, "%s", r[i].text);
	return true;
}

/* Rules about one field alone. */
static bool check_fields(struct check *k)
{
	static const u8 addresses[] = {F_SYSENTER_SP,   F_SYSENTER_IP,     F_BASE + SEG_FS,  F_BASE + SEG_GS,
				       F_BASE + SEG_TR, F_BASE + SEG_GDTR, F_BASE + SEG_IDTR};
	const struct {
		u8 field;
		u64 reserved;
	} zero[] = {
		{F_CR3, beyond_memory()},
		{F_DR7, ~BITS(31, 0)},
		{F_EFER, ~(u64)(EFER_SCE | EFER_LME | EFER_LMA | EFER_NX)},
		{F_RFLAGS, BITS(63, 22) | BIT(15) | BIT(5) | BIT(3)},
		{F_BASE + SEG_CS, ~BITS(31, 0)},
		{F_LIMIT + SEG_GDTR, ~BITS(15, 0)},
		{F_LIMIT + SEG_IDTR, ~BITS(15, 0)},
		{F_SEL + SEG_TR, SEL_TI},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(addresses); i++)
		if (!canonical(k->f[addresses[i]]))
			return broken_field(k, addresses[i], "is not canonical");
	for (unsigned i = 0; i < ARRAY_SIZE(zero); i++)
		if (k->f[zero[i].field] & zero[i].reserved)
			return broken_field(k, zero[i].field, "has reserved bits");
	return true;
}

/* 27.3.1.1 */
static bool check_registers(struct check *k)
{
	u64 cr0 = k->f[F_CR0], cr4 = k->f[F_CR4], efer = k->f[F_EFER];
	bool pg = cr0 & CR0_PG, lma = efer & EFER_LMA, lme = efer & EFER_LME;
	const struct rule rules[] = {
		{k->wide && (!pg || !(cr4 & CR4_PAE)), "long mode without CR0.PG and CR4.PAE"},
		{!k->wide && (cr4 & CR4_PCIDE), "CR4.PCIDE outside long mode"},
		{lma != k->wide || (pg && lma != lme), "EFER does not agree with CR0.PG and long mode"},
	};

	return check_rules(k, rules, ARRAY_SIZE(rules));
}

static bool usable(const struct check *k, unsigned s) { return !(k->f[F_AR + s] & AR_UNUSABLE); }
static unsigned type_of(const struct check *k, unsigned s) { return k->f[F_AR + s] & AR_TYPE; }
static unsigned dpl_of(const struct check *k, unsigned s) { return SEG_ATTR_DPL(k->f[F_AR + s]); }
static unsigned rpl_of(const struct check *k, unsigned s) { return k->f[F_SEL + s] & SEL_RPL; }

/* 27.3.1.2, virtual-8086 mode */
static bool check_vm86(struct check *k)
{
	for (unsigned s = 0; s < SEGS_USER; s++) {
		const u64 *f = k->f + s;

		if (f[F_BASE] != f[F_SEL] << 4 || f[F_LIMIT] != 0xffff || f[F_AR] != AR_VM86)
			return broken(k, "RFLAGS.VM, but %s.base %lx is not %lx * 16, or limit %lx, attributes %lx",
				      segments[s], f[F_BASE], f[F_SEL], f[F_LIMIT], f[F_AR]);
	}
	return true;
}

static bool check_type(struct check *k, unsigned s)
{
	unsigned type = type_of(k, s), ss = dpl_of(k, SEG_SS), dpl = dpl_of(k, s);

	if (s == SEG_CS) {
		if (!CODE_ACCESSED(type) && !(k->any_mode && type == TYPE_DATA))
			return broken(k, "CS.type %x is not accessed code", type);
		if (type == TYPE_DATA ? dpl != 0 : type >= TYPE_CONFORMING ? dpl > ss : dpl != ss)
			return broken(k, "CS.DPL %u does not suit CS.type %x and SS.DPL %u", dpl, type, ss);
	} else if (s == SEG_SS) {
		if (type != TYPE_DATA && type != TYPE_DATA_DOWN)
			return broken(k, "SS.type %x is not accessed writable data", type);
	} else {
		if (!(type & 1) || ((type & 8) && !(type & 2)))
			return broken(k, "%s.type %x is not accessed, or code that cannot be read", segments[s], type);
		if (!k->any_mode && type < 12 && dpl < rpl_of(k, s))
			return broken(k, "%s.DPL %u is below its RPL %u", segments[s], dpl, rpl_of(k, s));
	}
	return true;
}

/* Attributes that all kinds of segments share. */
static bool check_attributes(struct check *k, unsigned s, bool system)
{
	u64 ar = k->f[F_AR + s], limit = k->f[F_LIMIT + s];

	if (!(ar & AR_S) != system || !(ar & AR_P))
		return broken(k, "%s.attributes %lx are not those of a present %s segment", segments[s], ar,
			      system ? "system" : "code or data");
	if (ar & AR_G ? (limit & 0xfff) != 0xfff : limit >> 20)
		return broken(k, "%s.limit %lx does not suit %s.G", segments[s], limit, segments[s]);
	return true;
}

static bool check_segment(struct check *k, unsigned s)
{
	if (!usable(k, s))
		return s != SEG_CS || broken(k, "CS is unusable");
	if (s < SEG_FS && k->f[F_BASE + s] >> 32)
		return broken_field(k, F_BASE + s, "is above 4 GB");
	return check_type(k, s) && check_attributes(k, s, false);
}

/* The stack's privilege is the CPU's. */
static bool check_privilege(struct check *k)
{
	unsigned dpl = dpl_of(k, SEG_SS), rpl = rpl_of(k, SEG_SS);
	u64 cs = k->f[F_AR + SEG_CS];
	bool real = !(k->f[F_CR0] & CR0_PE) || (cs & AR_TYPE) == TYPE_DATA;
	const struct rule rules[] = {
		{!k->any_mode && rpl != rpl_of(k, SEG_CS), "SS.RPL is not CS.RPL"},
		{!k->any_mode && dpl != rpl, "SS.DPL is not SS.RPL"},
		{dpl && real, "SS.DPL is not 0 in real mode"},
		{k->wide && (cs & AR_L) && (cs & AR_DB), "CS.L and CS.D in long mode"},
	};

	return check_rules(k, rules, ARRAY_SIZE(rules));
}

/* TR and LDTR. */
static bool check_system(struct check *k, unsigned s)
{
	unsigned type = type_of(k, s);

	if (!usable(k, s))
		return s == SEG_LDTR || broken(k, "TR is unusable");
	if (s == SEG_LDTR ? type != TYPE_LDT : type != TYPE_TSS && (k->wide || type != TYPE_TSS16))
		return broken(k, "%s.type %x is not %s", segments[s], type, s == SEG_LDTR ? "an LDT" : "a busy TSS");
	return check_attributes(k, s, true);
}

/* 27.3.1.2 */
static bool check_segments(struct check *k)
{
	bool vm86 = k->f[F_RFLAGS] & RFLAGS_VM;

	if (vm86 && !check_vm86(k))
		return false;
	for (unsigned s = 0; s < SEGS_USER && !vm86; s++)
		if (!check_segment(k, s))
			return false;
	return (vm86 || check_privilege(k)) && check_system(k, SEG_TR) && check_system(k, SEG_LDTR);
}

/* 27.3.1.4 and 27.3.1.5 */
static bool check_flow(struct check *k)
{
	u64 rip = k->f[F_RIP], flags = k->f[F_RFLAGS], shadow = k->f[F_SHADOW], event = k->f[F_EVENT];
	bool wide = k->wide && (k->f[F_AR + SEG_CS] & AR_L), step = k->f[F_PENDING] & PENDING_BS;
	bool real = !(k->f[F_CR0] & CR0_PE), open = flags & RFLAGS_IF, sti = shadow & BLOCK_STI;
	bool blocked = shadow & (BLOCK_STI | BLOCK_SS);
	unsigned type = event & EVENT_VALID ? event >> 8 & 7 : EVENT_NONE;
	const struct rule rules[] = {
		{wide ? rip >> 48 && rip >> 48 != 0xffff : rip >> 32, "RIP is not an address in this mode"},
		{(flags & RFLAGS_VM) && (k->wide || real), "RFLAGS.VM in long mode or real mode"},
		{sti && !open, "blocked by STI without RFLAGS.IF"},
		{type == EVENT_INTR && (blocked || !open), "an interrupt that the guest does not take now"},
		{type == EVENT_NMI && (shadow & (BLOCK_SS | BLOCK_NMI)), "an NMI that the guest does not take now"},
		{blocked && step != !!(flags & RFLAGS_TF), "a pending single step does not agree with RFLAGS.TF"},
	};

	return check_rules(k, rules, ARRAY_SIZE(rules));
}

/* 27.3.1.6 */
static bool check_pdptes(struct check *k)
{
	if (k->wide || !(k->f[F_CR0] & CR0_PG) || !(k->f[F_CR4] & CR4_PAE))
		return true;
	for (unsigned i = 0; i < 4; i++) {
		u64 e = k->f[F_PDPTE0 + i];

		if ((e & 1) && (e & (BITS(8, 5) | BITS(2, 1) | beyond_memory())))
			return broken_field(k, F_PDPTE0 + i, "has reserved bits");
	}
	return true;
}

bool vmx_check(const struct vmx_caps *c, const u64 f[FIELDS], char *why, size_t size)
{
	struct check k = {f, why, size, c->proc2 & PROC2_ANY_MODE, f[F_ENTRY] & ENTRY_LONG};

	return check_fields(&k) && check_registers(&k) && check_segments(&k) && check_flow(&k) && check_pdptes(&k);
}

/* --- In words. */

#define TEXT(name, code, text) [F_##name] = (text),
static const char *const names[FIELDS] = {VMCS_FIELDS(TEXT)};

void vmx_field_name(unsigned field, char *text, size_t size)
{
	static const struct {
		u8 first;
		const char *part;
	} parts[] = {{F_BASE, "base"}, {F_LIMIT, "limit"}, {F_AR, "attributes"}, {F_SEL, "selector"}};
	unsigned i = 0;

	if (field >= F_SEGS) {
		format(text, size, "%s", field < FIELDS ? names[field] : "no field");
		return;
	}
	while (field < parts[i].first)
		i++;
	format(text, size, "guest %s.%s", segments[field - parts[i].first], parts[i].part);
}

const char *vmx_error_text(u64 error)
{
	static const char *const text[] = {
		[2] = "VMCLEAR with an invalid address",
		[3] = "VMCLEAR with the VMXON pointer",
		[4] = "VMLAUNCH with a VMCS that is not clear",
		[5] = "VMRESUME with a VMCS that is not launched",
		[7] = "entry with invalid control fields",
		[8] = "entry with invalid host-state fields",
		[9] = "VMPTRLD with an invalid address",
		[10] = "VMPTRLD with the VMXON pointer",
		[11] = "VMPTRLD with a wrong VMCS revision",
		[12] = "no such VMCS field on this CPU",
		[13] = "the field is read-only",
		[26] = "entry with events blocked by MOV SS",
		[28] = "invalid operand to INVEPT or INVVPID",
	};

	return error < ARRAY_SIZE(text) && text[error] ? text[error] : "an error that is not ours";
}

const char *vmx_failure_text(u64 reason)
{
	static const char *const text[] = {"invalid guest state, by a rule that is not known here",
					   "an MSR of the entry's load list is refused"};
	u64 i = (reason & 0xffff) - 33;

	return i < ARRAY_SIZE(text) ? text[i] : "machine check at the entry";
}
