/* SPDX-License-Identifier: MIT */
/* What this CPU offers: probed once, reported at boot, asked everywhere else. */
#ifndef ARCH_X86_CPU_FEATURES_H
#define ARCH_X86_CPU_FEATURES_H

#include "lib/types.h"

enum cpu_vendor { VENDOR_OTHER, VENDOR_INTEL, VENDOR_AMD };

enum feature {
	FEAT_NX,
	FEAT_GB_PAGES,
	FEAT_SMEP,
	FEAT_SMAP,
	FEAT_UMIP,
	FEAT_X2APIC,
	FEAT_TSC_DEADLINE,
	FEAT_INVARIANT_TSC,
	FEAT_RDTSCP,
	FEAT_XSAVE,
	FEAT_FSGSBASE,
	FEAT_PAT,
	FEAT_HYPERVISOR,
	FEAT_SVM,
	FEAT_NPT,
	FEAT_NRIP_SAVE,
	FEAT_DECODE_ASSISTS,
	FEAT_FLUSH_BY_ASID,
	FEAT_VMX,
	FEATURES,
};

struct cpu_features {
	u8 vendor; /* enum cpu_vendor */
	char vendor_id[13], brand[49];
	u32 family, model, stepping;
	u32 max_leaf, max_ext_leaf;
	u8 phys_bits, virt_bits;
	u64 has; /* bit per enum feature */
	u32 svm_asids;
	u32 svm_revision;
	u64 xcr0_mask;  /* XCR0 bits the CPU has and guests may use: x87, SSE, AVX, AVX-512; 0 without XSAVE */
	u32 xsave_size; /* bytes an XSAVE of these takes, 512 .. 4096, 512 being FXSAVE */
};

extern struct cpu_features cpu_features;

void features_probe(void);
/* Logs vendor, brand and each feature with yes or no, a few a line. */
void features_report(void);
static inline bool cpu_has(enum feature f) { return cpu_features.has >> f & 1; }

#endif
