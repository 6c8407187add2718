/* SPDX-License-Identifier: MIT */
/* The VMCS with its copy, and guest state as the dispatcher sees it: see the picture in vmx.c. */
#include "arch/x86/cpu/pcpu.h"
#include "arch/x86/hvm/vmx_impl.h"
#include "lib/port.h"
#include "lib/print.h"

#define SEGMENTS_8(at, first)                                                                         \
	[at] = (first), [(at) + 1] = (first) + 2, [(at) + 2] = (first) + 4, [(at) + 3] = (first) + 6, \
	[(at) + 4] = (first) + 8, [(at) + 5] = (first) + 10, [(at) + 6] = (first) + 12, [(at) + 7] = (first) + 14
#define SEGMENTS_10(at, first)     SEGMENTS_8(at, first), [(at) + 8] = (first) + 16, [(at) + 9] = (first) + 18
#define ENCODING(name, code, text) [F_##name] = (code),
const u16 vmx_encodings[FIELDS] = {SEGMENTS_8(F_SEL, 0x800), SEGMENTS_8(F_AR, 0x4814), SEGMENTS_10(F_LIMIT, 0x4800),
				   SEGMENTS_10(F_BASE, 0x6806), VMCS_FIELDS(ENCODING)};

/* Whose VMCS each pCPU has; each is its pCPU's own. */
static struct vmx *current[MAX_PCPUS];

void vmx_make_current(struct vmx *s)
{
	struct vmx **c = &current[port_cpu()];

	if (*c == s)
		return;
	if (!vmptrld(port_phys(s->vmcs)))
		panic("vmx: VMPTRLD of %lx fails", port_phys(s->vmcs));
	*c = s;
}

void vmx_clear(struct vmx *s)
{
	vmclear(port_phys(s->vmcs));
	if (current[port_cpu()] == s)
		current[port_cpu()] = NULL;
}

u64 vmx_peek(struct vmx *s, u64 encoding)
{
	vmx_make_current(s);
	s->reads++;
	return vmread(encoding);
}

bool vmx_write_dirty(struct vmx *s)
{
	for (unsigned w = 0; w < 2; w++) {
		for (u64 left = s->dirty[w] & ~s->absent[w]; left; left &= left - 1) {
			unsigned field = w * 64 + bit_low(left);
			char name[40];

			s->writes++;
			if (vmwrite(vmx_encodings[field], s->f[field]))
				continue;
			vmx_field_name(field, name, sizeof(name));
			format(s->why, sizeof(s->why), "%s = %lx is refused: %s", name, s->f[field],
			       vmx_error_text(vmread(RO_ERROR)));
			return false;
		}
		s->dirty[w] = 0;
	}
	return true;
}

/* --- Guest state. */

static bool is_loaded(const struct vcpu *v) { return this_pcpu()->loaded == v; }

/* What the guest sees of CR0 or CR4. */
static u64 seen(struct vmx *s, unsigned field, unsigned mask, unsigned shadow)
{
	return (get(s, field) & ~s->f[mask]) | (s->f[shadow] & s->f[mask]);
}

static bool on_identity_map(const struct vmx *s) { return !vmx_any_mode() && !(s->f[F_CR0_SHADOW] & CR0_PG); }

/* CR0, CR3 and CR4 as the guest has set them, into the VMCS as they must be there. */
static void put_paging(struct vmx *s, u64 cr0, u64 cr3, u64 cr4)
{
	bool identity;

	put(s, F_CR0_SHADOW, cr0);
	put(s, F_CR4_SHADOW, cr4);
	identity = on_identity_map(s);
	s->cr3 = cr3;
	put(s, F_CR0, (cr0 & ~(u64)(CR0_CD | CR0_NW)) | vmx_caps.cr0_must);
	put(s, F_CR3, identity ? IDENTITY_GPA : cr3);
	put(s, F_CR4, (identity ? (cr4 & ~(u64)CR4_PAGING) | CR4_PSE : cr4) | vmx_caps.cr4_must | CR4_MCE);
	put_bits(s, F_PROC, PROC_CR3 & ~(u64)vmx_caps.proc, identity);
	s->check = true;
}

/* Those that are one field, and no more to it; 0: the others. */
static const u8 plain[VREGS] = {[REG_DR7] = F_DR7,          [REG_PAT] = F_PAT,         [REG_TSC_OFFSET] = F_TSC_OFFSET,
				[REG_TSC] = F_TSC_OFFSET,   [REG_PDPTE] = F_PDPTE0,    [REG_PDPTE + 1] = F_PDPTE1,
				[REG_PDPTE + 2] = F_PDPTE2, [REG_PDPTE + 3] = F_PDPTE3};

u64 vmx_get(struct vcpu *v, enum vreg r)
{
	struct vmx *s = vmx_of(v);

	switch (r) {
	case REG_CR0:
		return seen(s, F_CR0, F_CR0_MASK, F_CR0_SHADOW);
	case REG_CR2:
		return is_loaded(v) ? read_cr2() : s->cr2;
	case REG_CR3:
		return on_identity_map(s) ? s->cr3 : get(s, F_CR3);
	case REG_CR4:
		return seen(s, F_CR4, F_CR4_MASK, F_CR4_SHADOW);
	case REG_EFER:
		return s->efer;
	case REG_DR6:
		return is_loaded(v) ? read_dr6() : s->dr6;
	case REG_INT_SHADOW:
		return (get(s, F_SHADOW) & (BLOCK_STI | BLOCK_SS)) != 0;
	case REG_TSC:
		return rdtsc() + s->f[F_TSC_OFFSET];
	default:
		return get(s, plain[r]);
	}
}

/* A single step that waits for the shadow's end is pending meanwhile: the CPU insists. */
static void put_shadow(struct vcpu *v, bool on)
{
	struct vmx *s = vmx_of(v);
	u64 kind = v->regs.rflags & RFLAGS_IF ? BLOCK_STI : BLOCK_SS; /* alike to us; STI's is refused without IF */
	u64 old = get(s, F_SHADOW), new = (old & ~(u64)(BLOCK_STI | BLOCK_SS)) | (on ? kind : 0);

	if (new == old)
		return;
	put(s, F_SHADOW, new);
	put(s, F_PENDING, on && (v->regs.rflags & RFLAGS_TF) ? PENDING_BS : 0);
}

void vmx_set(struct vcpu *v, enum vreg r, u64 val)
{
	struct vmx *s = vmx_of(v);

	switch (r) {
	case REG_CR0:
		put_paging(s, val, vmx_get(v, REG_CR3), vmx_get(v, REG_CR4));
		break;
	case REG_CR2:
		s->cr2 = val;
		if (is_loaded(v))
			write_cr2(val);
		break;
	case REG_CR3:
		put_paging(s, vmx_get(v, REG_CR0), val, vmx_get(v, REG_CR4));
		break;
	case REG_CR4:
		put_paging(s, vmx_get(v, REG_CR0), vmx_get(v, REG_CR3), val);
		break;
	case REG_EFER: /* the CPU is told of long mode only where it is on: LME with our paging would mean it */
		s->efer = val;
		put(s, F_EFER, val & EFER_LMA ? val : val & ~(u64)EFER_LME);
		put_bits(s, F_ENTRY, ENTRY_LONG, val & EFER_LMA);
		break;
	case REG_DR6:
		s->dr6 = val;
		if (is_loaded(v))
			write_dr6(val);
		break;
	case REG_INT_SHADOW:
		put_shadow(v, val);
		break;
	default:
		put(s, plain[r], val);
	}
}

struct segment vmx_get_seg(struct vcpu *v, enum seg seg)
{
	struct vmx *s = vmx_of(v);
	struct segment out = {.base = get(s, F_BASE + seg), .limit = (u32)get(s, F_LIMIT + seg)};

	if (seg < SEGS) {
		u64 ar = get(s, F_AR + seg);

		out.sel = (u16)get(s, F_SEL + seg);
		out.attr = (u16)((ar & 0xff) | (ar >> 4 & 0xf00));
		if (ar & AR_UNUSABLE)
			out.attr &= (u16)~SEG_ATTR_P;
	}
	return out;
}

void vmx_set_seg(struct vcpu *v, enum seg seg, struct segment val)
{
	struct vmx *s = vmx_of(v);

	put(s, F_BASE + seg, val.base);
	put(s, F_LIMIT + seg, val.limit);
	s->check = true;
	if (seg < SEGS) {
		put(s, F_SEL + seg, val.sel);
		put(s, F_AR + seg,
		    (val.attr & 0xff) | (val.attr & 0xf00) << 4 | (val.attr & SEG_ATTR_P ? 0 : AR_UNUSABLE));
	}
}
