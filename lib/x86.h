/* SPDX-License-Identifier: MIT */
/* Names of the architecture that the guest's side and the machine's side share (Intel SDM vol. 3, 2.3 to 2.5, 6.3.1).
 */
#pragma once

#include "lib/bits.h"

/* Exceptions. */
enum { VEC_DE, VEC_DB, VEC_NMI, VEC_BP, VEC_OF, VEC_BR, VEC_UD, VEC_DF = 8 };
enum { VEC_NP = 11, VEC_SS, VEC_GP, VEC_PF, VEC_AC = 17, VEC_MC };

enum { RFLAGS_CF = BIT(0), RFLAGS_FIXED = BIT(1), RFLAGS_PF = BIT(2), RFLAGS_AF = BIT(4), RFLAGS_ZF = BIT(6) };
enum { RFLAGS_SF = BIT(7), RFLAGS_TF = BIT(8), RFLAGS_IF = BIT(9), RFLAGS_DF = BIT(10), RFLAGS_OF = BIT(11) };
enum { RFLAGS_IOPL = BITS(13, 12), RFLAGS_NT = BIT(14), RFLAGS_RF = BIT(16), RFLAGS_VM = BIT(17), RFLAGS_AC = BIT(18) };
enum { RFLAGS_ID = BIT(21) };

#define CR0_PG BIT(31) /* more than an int: an enumerator would be unsigned, and its complement cut short */
enum { CR0_PE = BIT(0), CR0_MP = BIT(1), CR0_EM = BIT(2), CR0_TS = BIT(3), CR0_ET = BIT(4), CR0_NE = BIT(5) };
enum { CR0_WP = BIT(16), CR0_AM = BIT(18), CR0_NW = BIT(29), CR0_CD = BIT(30) };
enum { CR4_TSD = BIT(2), CR4_DE = BIT(3), CR4_PSE = BIT(4), CR4_PAE = BIT(5), CR4_MCE = BIT(6), CR4_PGE = BIT(7) };
enum { CR4_OSFXSR = BIT(9), CR4_OSXMMEXCPT = BIT(10), CR4_UMIP = BIT(11), CR4_LA57 = BIT(12), CR4_VMXE = BIT(13) };
enum { CR4_FSGSBASE = BIT(16), CR4_PCIDE = BIT(17), CR4_OSXSAVE = BIT(18), CR4_SMEP = BIT(20), CR4_SMAP = BIT(21) };
enum { DR6_BS = BIT(14), DR7_GD = BIT(13) };
enum { EFER_SCE = BIT(0), EFER_LME = BIT(8), EFER_LMA = BIT(10), EFER_NX = BIT(11), EFER_SVME = BIT(12) };

#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
enum { MSR_TSC = 0x10, MSR_PAT = 0x277, MSR_X2APIC = 0x800 };
enum { MSR_MCG_CAP = 0x179, MSR_MCG_STATUS, MSR_MC0_STATUS = 0x401 };
enum { MSR_EFER = 0xc0000080u, MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SFMASK };
enum { MSR_FS_BASE = 0xc0000100u, MSR_GS_BASE, MSR_KERNEL_GS_BASE, MSR_TSC_AUX };
enum { MSR_VM_CR = 0xc0010114u, MSR_VM_HSAVE_PA = 0xc0010117u };
