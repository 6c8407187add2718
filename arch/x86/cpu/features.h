/* SPDX-License-Identifier: MIT */
/* What this CPU offers: probed once, reported at boot, asked everywhere else. */
#pragma once

#include "lib/types.h"

/* A feature is a bit of CPUID, 32 to a register (SDM 2A CPUID, APM 3 appendix E): of leaf 1 ECX, */
enum { FEAT_VMX = 5, FEAT_X2APIC = 21, FEAT_TSC_DEADLINE = 24, FEAT_XSAVE = 26, FEAT_HYPERVISOR = 31 };
enum { FEAT_SMEP = 32 + 7, FEAT_SMAP = 32 + 20 };                                 /* 7 EBX, */
enum { FEAT_UMIP = 64 + 2 };                                                      /* 7 ECX, */
enum { FEAT_SVM = 96 + 2 };                                                       /* 0x80000001 ECX, */
enum { FEAT_NX = 128 + 20, FEAT_GB_PAGES = 128 + 26, FEAT_RDTSCP = 128 + 27 };    /* 0x80000001 EDX, */
enum { FEAT_NPT = 160, FEAT_NRIP_SAVE = 160 + 3, FEAT_DECODE_ASSISTS = 160 + 7 }; /* 0x8000000a EDX, */
enum { FEAT_ARCH_CAPS = 192 + 29, FEATURE_REGS = 7 };                             /* 7 EDX */

struct cpu_features {
	char vendor_id[13], brand[49];
	u32 max_leaf, max_ext_leaf;
	u8 phys_bits;
	u32 has[FEATURE_REGS];
	u32 svm_asids;
	u64 xcr0_mask;  /* XCR0 bits the CPU has and guests may use: x87, SSE, AVX, AVX-512; 0 without XSAVE */
	u32 xsave_size; /* bytes an XSAVE of these takes in the standard format */
};

extern struct cpu_features cpu_features;

void features_probe(void);
/* Logs the CPU's name and which features it has. */
void features_report(void);
static inline bool cpu_has(unsigned f) { return cpu_features.has[f / 32] >> f % 32 & 1; }
