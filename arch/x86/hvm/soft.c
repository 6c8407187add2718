/* SPDX-License-Identifier: MIT */
/*
 * What the processor does by tables in the guest's memory, done by software, for states that the hardware cannot run.
 *
 *                  real mode                     protected mode
 *     selector     base = 16 * selector          GDT or LDT: descriptor -> base, limit, attributes
 *     vector       4 bytes at 4 * vector: CS:IP  IDT: gate -> CS:EIP, and whether IF is cleared
 *
 * A guest is in such a state for a few instructions on its way to protected mode, and in real mode. So what stays at
 * its privilege level is known here; call and task gates, other levels and 64-bit mode are not: EMUL_UNKNOWN.
 */
#include "arch/x86/hvm/soft.h"

#include "arch/x86/hvm/exit.h"
#include "lib/bits.h"

/* Descriptors: accessed, busy (TSS), limit in pages. Gates: present. */
enum { DESC_ACCESSED = BIT(40), DESC_BUSY = BIT(41), DESC_P = BIT(47), DESC_G = BIT(55) };
enum { TYPE_LDT = 2, TYPE_TSS16 = 1, TYPE_TSS32 = 9, TYPE_TASK_GATE = 5, TYPE_INTR16 = 6, TYPE_BIT_TRAP = 1 };
enum { TYPE_BIT_32 = 8, SEL_RPL = 3, SEL_TI = 4, ERROR_EXT = 1, ERROR_IDT = 2 };

/* --- Segments. */

static struct segment from_descriptor(u64 d, u16 sel)
{
	u32 limit = (u32)((d & 0xffff) | (d >> 32 & 0xf0000));

	return (struct segment){
		.base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000),
		.limit = d & DESC_G ? limit << 12 | 0xfff : limit,
		.sel = sel,
		.attr = (u16)((d >> 40 & 0xff) | (d >> 44 & 0xf00)),
	};
}

/* The descriptor that sel names, and its linear address. */
static enum emul_result find(struct vcpu *v, u16 sel, u64 *d, u64 *la)
{
	struct segment table = hvm->get_seg(v, sel & SEL_TI ? SEG_LDTR : SEG_GDTR);
	u32 offset = sel & ~7u;

	*d = 0;
	*la = table.base + offset;
	if (offset + 7 > table.limit || (sel & SEL_TI && !(table.attr & SEG_ATTR_P)))
		return fault(v, VEC_GP, sel & ~(u32)SEL_RPL);
	return table_access(v, *la, d, sizeof(*d), EMUL_READ);
}

/* Whether s may hold what has these attributes. */
static bool suits(enum seg s, u16 attr, unsigned rpl, unsigned cpl)
{
	unsigned dpl = SEG_ATTR_DPL(attr), type = attr & 0x1f;
	bool code = type & SEG_TYPE_CODE, conforming = code && (type & SEG_TYPE_DOWN);

	switch (s) {
	case SEG_LDTR:
		return type == TYPE_LDT;
	case SEG_TR:
		return type == TYPE_TSS16 || type == TYPE_TSS32;
	case SEG_CS:
		if (!code || (attr & SEG_ATTR_L && attr & SEG_ATTR_DB))
			return false;
		return conforming ? dpl <= cpl : dpl == cpl && rpl <= cpl;
	case SEG_SS:
		return type & SEG_ATTR_S && !code && type & SEG_TYPE_WRITE && rpl == cpl && dpl == cpl;
	default:
		return type & SEG_ATTR_S && (!code || type & SEG_TYPE_WRITE) && (conforming || dpl >= MAX(rpl, cpl));
	}
}

static enum emul_result load_null(struct vcpu *v, enum seg s, u16 sel)
{
	if (s == SEG_SS && v->exit.mode == MODE_64)
		return EMUL_UNKNOWN;
	if (s == SEG_CS || s == SEG_SS || s == SEG_TR)
		return fault(v, VEC_GP, 0);
	hvm->set_seg(v, s, (struct segment){.sel = sel});
	return EMUL_OK;
}

/*
 * The hidden limit stays in real mode: guests rely on limits beyond 64 KB ("unreal mode"). So do the attributes, but
 * what was not there, or not writable, is so now. A DPL below the selector's RPL would be refused by VMX in protected
 * mode, where the segment may stay.
 */
static enum emul_result load_real(struct vcpu *v, enum seg s, u16 sel)
{
	struct segment seg = hvm->get_seg(v, s);

	seg.sel = sel;
	seg.base = (u64)sel << 4;
	seg.attr |= SEG_ATTR_P | SEG_ATTR_S | SEG_TYPE_WRITE | SEG_TYPE_ACCESSED;
	if (s != SEG_CS && s != SEG_SS) /* whose DPL is the CPL */
		seg.attr |= (sel & SEL_RPL) << 5;
	hvm->set_seg(v, s, seg);
	return EMUL_OK;
}

enum emul_result load_segment(void *vcpu, enum seg s, u16 sel)
{
	struct vcpu *v = vcpu;
	u32 error = sel & ~(u32)SEL_RPL;
	bool system = s >= SEGS_USER, lma = hvm->get(v, REG_EFER) & EFER_LMA;
	u64 d, la, set = s == SEG_TR ? DESC_BUSY : s == SEG_LDTR ? 0 : DESC_ACCESSED;

	if (v->exit.mode == MODE_REAL)
		return load_real(v, s, sel);
	if (!error)
		return load_null(v, s, sel);
	if (system && lma) /* 16 bytes */
		return EMUL_UNKNOWN;
	if (system && sel & SEL_TI)
		return fault(v, VEC_GP, error);

	enum emul_result res = find(v, sel, &d, &la);

	if (res != EMUL_OK)
		return res;

	struct segment seg = from_descriptor(d | set, sel);

	if (s == SEG_CS && !(seg.attr & SEG_ATTR_S)) /* a gate or a TSS */
		return EMUL_UNKNOWN;
	if (!suits(s, from_descriptor(d, sel).attr, sel & SEL_RPL, v->exit.cpl))
		return fault(v, VEC_GP, error);
	if (!(d & DESC_P))
		return fault(v, s == SEG_SS ? VEC_SS : VEC_NP, error);
	if (set & ~d) {
		u8 type = (u8)((d | set) >> 40);

		res = table_access(v, la + 5, &type, 1, EMUL_WRITE);
	}
	if (s == SEG_CS)
		seg.sel = (u16)(error | v->exit.cpl);
	if (res == EMUL_OK)
		hvm->set_seg(v, s, seg);
	return res;
}

/* --- Interrupts. */

static enum emul_result push(struct vcpu *v, struct gregs *r, u64 *val, unsigned n, unsigned size)
{
	u64 mask = hvm->get_seg(v, SEG_SS).attr & SEG_ATTR_DB ? 0xffffffff : 0xffff;
	enum emul_result res = EMUL_OK;

	for (unsigned i = 0; i < n && res == EMUL_OK; i++) {
		r->r[R_SP] = (r->r[R_SP] & ~mask) | ((r->r[R_SP] - size) & mask);
		res = segment_access(v, SEG_SS, r->r[R_SP] & mask, &val[i], size, EMUL_WRITE);
	}
	return res;
}

static enum emul_result check_gate(struct vcpu *v, u64 gate, u32 error)
{
	unsigned type = gate >> 40 & 0x1f;

	if (type == TYPE_TASK_GATE)
		return EMUL_UNKNOWN;
	if ((type & ~(unsigned)(TYPE_BIT_32 | TYPE_BIT_TRAP)) != TYPE_INTR16)
		return fault(v, VEC_GP, error);
	return gate & DESC_P ? EMUL_OK : fault(v, VEC_NP, error);
}

/* A vector of real mode is laid out as the lower half of a 16-bit gate that clears IF. */
enum emul_result soft_deliver(struct vcpu *v, struct gregs *r, struct vm_event e)
{
	bool real = v->exit.mode == MODE_REAL, wide;
	unsigned bytes = real ? 4 : 8;
	struct segment idt = hvm->get_seg(v, SEG_IDTR);
	u64 frame[] = {r->rflags, hvm->get_seg(v, SEG_CS).sel, r->rip, e.error};
	u64 gate = 0, keep = real ? RFLAGS_NT : RFLAGS_AC;
	u32 error = real ? 0 : e.vector * 8u | ERROR_IDT | (e.type == EVENT_SOFT ? 0 : ERROR_EXT);

	if (v->exit.cpl || hvm->get(v, REG_EFER) & EFER_LMA)
		return EMUL_UNKNOWN;
	if (e.vector * bytes + bytes - 1 > idt.limit)
		return fault(v, VEC_GP, error);

	enum emul_result res = table_access(v, idt.base + e.vector * bytes, &gate, bytes, EMUL_READ);

	if (res == EMUL_OK && !real)
		res = check_gate(v, gate, error);
	wide = gate >> 40 & TYPE_BIT_32;
	if (res == EMUL_OK)
		res = push(v, r, frame, e.has_error && !real ? 4 : 3, wide ? 4 : 2);
	if (res != EMUL_OK)
		return res;
	r->rip = (gate & 0xffff) | (wide ? gate >> 32 & 0xffff0000 : 0);
	keep |= gate >> 40 & TYPE_BIT_TRAP ? RFLAGS_IF : 0;
	r->rflags &= ~(u64)(RFLAGS_TF | RFLAGS_IF | RFLAGS_RF | RFLAGS_NT | RFLAGS_AC) | keep;
	return load_segment(v, SEG_CS, (u16)(gate >> 16));
}
