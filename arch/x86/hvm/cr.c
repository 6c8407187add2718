/* SPDX-License-Identifier: MIT */
/* Guest writes to control registers, with the checks of AMD APM vol. 2, 3.1 and Intel SDM vol. 3, 2.5. */
#include "arch/x86/hvm/exit.h"
#include "lib/bits.h"
#include "lib/errno.h"

#define CR0_VALID (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)

/*
 * What follows works on a copy of the registers up to REG_EFER, by their numbers, which is the guest's once all of it
 * is allowed. Each returns whether it is.
 */
static bool set_cr0(struct vcpu *v, u64 *r, u64 val)
{
	bool on = val & CR0_PG, was_on = r[REG_CR0] & CR0_PG;

	if ((val & ~CR0_VALID) || (on && !(val & CR0_PE)) || ((val & CR0_NW) && !(val & CR0_CD)))
		return false;
	if (was_on && !on) {
		if (v->exit.mode == MODE_64 || (r[REG_CR4] & CR4_PCIDE))
			return false;
		r[REG_EFER] &= ~EFER_LMA;
	} else if (!was_on && on && (r[REG_EFER] & EFER_LME)) {
		if (!(r[REG_CR4] & CR4_PAE) || (hvm->get_seg(v, SEG_CS).attr & SEG_ATTR_L))
			return false;
		r[REG_EFER] |= EFER_LMA;
	}
	r[REG_CR0] = val | CR0_ET;
	return true;
}

static bool set_cr3(struct vcpu *v, u64 *r, u64 val)
{
	bool lma = r[REG_EFER] & EFER_LMA;

	if (lma && (r[REG_CR4] & CR4_PCIDE))
		val &= ~BIT(63); /* "keep the TLB": allowed, never necessary */
	r[REG_CR3] = lma ? val : (u32)val;
	return !lma || !(val >> guest_phys_bits(v));
}

static bool set_cr4(struct vcpu *v, u64 *r, u64 val)
{
	bool lma = r[REG_EFER] & EFER_LMA, pcid = val & ~r[REG_CR4] & CR4_PCIDE;

	r[REG_CR4] = val;
	return !(val & ~CR4_VALID) && !(val & hvm_host.cr4_refused) && (!lma || (val & CR4_PAE)) &&
	       (!pcid || (lma && !(r[REG_CR3] & BITS(11, 0)))) && (!(val & CR4_OSXSAVE) || cpu_features.xcr0_mask);
}

/*
 * PAE paging has the top of its tables in registers, which writes to CR0, CR3 and CR4 load and check (Intel SDM vol. 3,
 * 4.4.1). Where no RAM is, all ones are read, which is refused.
 */
static bool load_pdptes(struct vcpu *v, const u64 *r)
{
	u64 e[4], reserved = BITS(2, 1) | BITS(8, 5) | ~BITS(guest_phys_bits(v) - 1, 0);

	if (cpu_has(FEAT_SVM) || !(r[REG_CR0] & CR0_PG) || !(r[REG_CR4] & CR4_PAE) || (r[REG_EFER] & EFER_LMA))
		return true;
	if (p2m_read(&v->vm->p2m, r[REG_CR3] & BITS(31, 5), e, sizeof(e)))
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(e); i++)
		if ((e[i] & BIT(0)) && (e[i] & reserved))
			return false;
	for (unsigned i = 0; i < ARRAY_SIZE(e); i++)
		hvm->set(v, REG_PDPTE + i, e[i]);
	return true;
}

int guest_write_cr(struct vcpu *v, unsigned n, u64 val)
{
	static bool (*const set[])(struct vcpu * v, u64 * r, u64 val) = {[0] = set_cr0, [3] = set_cr3, [4] = set_cr4};
	u64 old[REG_EFER + 1], r[REG_EFER + 1];

	if (n == 2) {
		hvm->set(v, REG_CR2, val);
		return 0;
	}
	if (n == 8 && val <= 15) {
		lapic_set_cr8(&v->lapic, (u8)val);
		return 0;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(r); i++)
		old[i] = r[i] = hvm->get(v, i);
	if (n >= ARRAY_SIZE(set) || !set[n] || !set[n](v, r, val) || !load_pdptes(v, r))
		return -EINVAL;
	for (unsigned i = ARRAY_SIZE(r); i-- > 0;) /* EFER decides what CR0 means */
		if (r[i] != old[i])
			hvm->set(v, i, r[i]);
	hvm->flush(v);
	return 0;
}

enum { XCR0_X87 = BIT(0), XCR0_SSE = BIT(1), XCR0_AVX = BIT(2), XCR0_AVX512 = BITS(7, 5) };

int guest_xsetbv(struct vcpu *v, u32 n, u64 val)
{
	if (n != 0 || (val & ~cpu_features.xcr0_mask) || !(val & XCR0_X87))
		return -EINVAL;
	if ((val & XCR0_AVX) && !(val & XCR0_SSE))
		return -EINVAL;
	if ((val & XCR0_AVX512) && ((val & XCR0_AVX512) != XCR0_AVX512 || !(val & XCR0_AVX)))
		return -EINVAL;
	hvm_host.xsetbv(0, val);
	return 0;
}
