/* SPDX-License-Identifier: MIT */
/* Guest writes to control registers, with the checks of AMD APM vol. 2, 3.1 and Intel SDM vol. 3, 2.5. */
#include "arch/x86/hvm/exit.h"
#include "lib/bits.h"
#include "lib/errno.h"

#define CR0_VALID (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)

/*
 * PAE paging has the top of its tables in registers, which writes to CR0, CR3 and CR4 load and check (Intel SDM vol. 3,
 * 4.4.1). Where no RAM is, all ones are read, which is refused.
 */
static int load_pdptes(struct vcpu *v, u64 cr0, u64 cr3, u64 cr4, u64 efer)
{
	u64 e[4], reserved = BITS(2, 1) | BITS(8, 5) | ~BITS(guest_phys_bits(v) - 1, 0);

	if (hvm_host.amd || !(cr0 & CR0_PG) || !(cr4 & CR4_PAE) || (efer & EFER_LMA))
		return 0;
	if (p2m_read(&v->vm->p2m, cr3 & BITS(31, 5), e, sizeof(e)))
		return -EINVAL;
	for (unsigned i = 0; i < ARRAY_SIZE(e); i++)
		if ((e[i] & BIT(0)) && (e[i] & reserved))
			return -EINVAL;
	for (unsigned i = 0; i < ARRAY_SIZE(e); i++)
		hvm->set(v, REG_PDPTE + i, e[i]);
	return 0;
}

static int set_cr0(struct vcpu *v, u64 val)
{
	u64 old = hvm->get(v, REG_CR0), cr4 = hvm->get(v, REG_CR4), efer = hvm->get(v, REG_EFER);

	val |= CR0_ET;
	if ((val & ~CR0_VALID) || ((val & CR0_PG) && !(val & CR0_PE)) || ((val & CR0_NW) && !(val & CR0_CD)))
		return -EINVAL;
	if ((val ^ old) & CR0_PG) {
		if (val & CR0_PG) {
			if ((efer & EFER_LME) && (!(cr4 & CR4_PAE) || (hvm->get_seg(v, SEG_CS).attr & SEG_ATTR_L)))
				return -EINVAL;
			efer |= efer & EFER_LME ? EFER_LMA : 0;
		} else {
			if (v->exit.mode == MODE_64 || (cr4 & CR4_PCIDE))
				return -EINVAL;
			efer &= ~EFER_LMA;
		}
	}
	if (load_pdptes(v, val, hvm->get(v, REG_CR3), cr4, efer))
		return -EINVAL;
	if ((val ^ old) & CR0_PG)
		hvm->set(v, REG_EFER, efer);
	hvm->set(v, REG_CR0, val);
	hvm->flush(v);
	return 0;
}

static int set_cr3(struct vcpu *v, u64 val)
{
	u64 cr4 = hvm->get(v, REG_CR4), efer = hvm->get(v, REG_EFER);
	bool lma = efer & EFER_LMA;

	if (lma && (cr4 & CR4_PCIDE))
		val &= ~BIT(63); /* "keep the TLB": allowed, never necessary */
	if (lma && (val >> guest_phys_bits(v)))
		return -EINVAL;
	if (load_pdptes(v, hvm->get(v, REG_CR0), val, cr4, efer))
		return -EINVAL;
	hvm->set(v, REG_CR3, lma ? val : (u32)val);
	hvm->flush(v);
	return 0;
}

static int set_cr4(struct vcpu *v, u64 val)
{
	u64 old = hvm->get(v, REG_CR4), cr3 = hvm->get(v, REG_CR3), efer = hvm->get(v, REG_EFER);
	bool lma = efer & EFER_LMA;

	if ((val & ~CR4_VALID) || (val & hvm_host.cr4_refused))
		return -EINVAL;
	if (lma && !(val & CR4_PAE))
		return -EINVAL;
	if ((val & ~old & CR4_PCIDE) && (!lma || (cr3 & BITS(11, 0))))
		return -EINVAL;
	if ((val & CR4_OSXSAVE) && !hvm_host.xcr0_mask)
		return -EINVAL;
	if (load_pdptes(v, hvm->get(v, REG_CR0), cr3, val, efer))
		return -EINVAL;
	hvm->set(v, REG_CR4, val);
	hvm->flush(v);
	return 0;
}

int guest_write_cr(struct vcpu *v, unsigned n, u64 val)
{
	switch (n) {
	case 0:
		return set_cr0(v, val);
	case 2:
		hvm->set(v, REG_CR2, val);
		return 0;
	case 3:
		return set_cr3(v, val);
	case 4:
		return set_cr4(v, val);
	case 8:
		if (val > 15)
			return -EINVAL;
		lapic_set_cr8(&v->lapic, (u8)val);
		return 0;
	default:
		return -EINVAL;
	}
}

enum { XCR0_X87 = BIT(0), XCR0_SSE = BIT(1), XCR0_AVX = BIT(2), XCR0_AVX512 = BITS(7, 5) };

int guest_xsetbv(struct vcpu *v, u32 n, u64 val)
{
	if (n != 0 || (val & ~hvm_host.xcr0_mask) || !(val & XCR0_X87))
		return -EINVAL;
	if ((val & XCR0_AVX) && !(val & XCR0_SSE))
		return -EINVAL;
	if ((val & XCR0_AVX512) && ((val & XCR0_AVX512) != XCR0_AVX512 || !(val & XCR0_AVX)))
		return -EINVAL;
	hvm_host.xsetbv(0, val);
	return 0;
}
