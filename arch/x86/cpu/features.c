/* SPDX-License-Identifier: MIT */
#include "arch/x86/cpu/features.h"

#include "arch/x86/cpu/cpu.h"
#include "lib/print.h"
#include "lib/string.h"

#define XCR0_KNOWN 0xe7u /* x87, SSE, AVX, and the three of AVX-512: all that fits a page of XSAVE (SDM 1, 13.4) */
#define EXTENDED   0x80000000u

struct cpu_features cpu_features;

/* Leaves beyond the CPU's last would repeat another one's data: they are all zero here. */
static struct cpuid_regs leaf(u32 n)
{
	u32 max = n >= EXTENDED ? cpu_features.max_ext_leaf : cpu_features.max_leaf;

	return n <= max ? cpuid(n, 0) : (struct cpuid_regs){0};
}

void features_probe(void)
{
	struct cpu_features *f = &cpu_features;
	struct cpuid_regs zero = cpuid(0, 0), ext = cpuid(EXTENDED, 0);

	f->max_leaf = zero.a;
	f->max_ext_leaf = ext.a >= EXTENDED ? ext.a : 0;
	memcpy(f->vendor_id, (u32[]){zero.b, zero.d, zero.c}, 12);
	for (u32 i = 0; i < 3; i++) {
		struct cpuid_regs r = leaf(EXTENDED + 2 + i);

		memcpy(&f->brand[i * sizeof(r)], &r, sizeof(r));
	}

	struct cpuid_regs one = leaf(1), seven = leaf(7), ext1 = leaf(EXTENDED + 1), sizes = leaf(EXTENDED + 8);
	/* Without SVM its leaf is not defined. */
	struct cpuid_regs svm = ext1.c & BIT(FEAT_SVM % 32) ? leaf(EXTENDED + 10) : (struct cpuid_regs){0};
	const u32 has[FEATURE_REGS] = {one.c, seven.b, seven.c, ext1.c, ext1.d, svm.d, seven.d};

	memcpy(f->has, has, sizeof(has));
	f->phys_bits = (u8)(sizes.a ? MIN(sizes.a & 0xff, 52u) : 36);
	f->svm_asids = svm.b;
	f->xcr0_mask = cpu_has(FEAT_XSAVE) ? leaf(0xd).a & XCR0_KNOWN : 0;

	/* The highest component is the last; the first two are in the 576 bytes of legacy region and header. */
	u32 last = bit_high(f->xcr0_mask | 1);
	struct cpuid_regs at = last < 2 ? (struct cpuid_regs){0, 576, 0, 0} : cpuid(0xd, last);

	f->xsave_size = at.a + at.b;
	if (f->xsave_size > PAGE_SIZE) { /* more than a vCPU has room for: emulators get it wrong */
		f->xcr0_mask &= 3;
		f->xsave_size = 576;
	}
}

void features_report(void)
{
	static const char *const name[] = {"nx",    "1g-pages", "smep",      "smap",          "umip",
					   "xsave", "rdtscp",   "x2apic",    "tsc-deadline",  "vmx",
					   "svm",   "npt",      "nrip-save", "decode-assists"};
	static const u8 bit[] = {FEAT_NX,    FEAT_GB_PAGES, FEAT_SMEP,      FEAT_SMAP,          FEAT_UMIP,
				 FEAT_XSAVE, FEAT_RDTSCP,   FEAT_X2APIC,    FEAT_TSC_DEADLINE,  FEAT_VMX,
				 FEAT_SVM,   FEAT_NPT,      FEAT_NRIP_SAVE, FEAT_DECODE_ASSISTS};
	char text[240];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(bit); i++)
		n += format(text + n, sizeof(text) - n, "%s%s %s", i ? ", " : " ", name[i],
			    cpu_has(bit[i]) ? "yes" : "no");
	log("cpu: %s %s, %u physical bits\ncpu:%s\n", cpu_features.vendor_id, cpu_features.brand,
	    cpu_features.phys_bits, text);
}
