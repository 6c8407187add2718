/* SPDX-License-Identifier: MIT */
/* The capability MSRs of a CPU that has all of VMX that Cleave looks for, and no more that must be. */
#pragma once

#include "arch/x86/cpu/cpu.h"
#include "arch/x86/hvm/vmx.h"

#define ALL_ALLOWED    0xffffffff00000000ul
#define PIN_DEFAULT1   0x16ul
#define PROC_DEFAULT1  0x0401e172ul /* among them the exits for CR3 */
#define PROC_TRUE1     0x04006172ul
#define EXIT_DEFAULT1  0x36dfful
#define ENTRY_DEFAULT1 0x11fful

/* Write-back structures of 4 KB, true controls, revision 0x12. */
#define BASIC_VALUE (0x12ul | 4096ul << 32 | 6ul << 50 | 1ul << 55)
/* EPT: 4 levels, write-back, 2 MB, 1 GB, INVEPT of both kinds, A/D; INVVPID of all kinds. */
#define EPT_VPID_VALUE \
	(BIT(6) | BIT(14) | BIT(16) | BIT(17) | BIT(20) | BIT(21) | BIT(25) | BIT(26) | BIT(32) | BITS(43, 40))

static const u64 good_caps[VMX_CAPS] = {
	[CAP_BASIC] = BASIC_VALUE,
	[CAP_PIN] = ALL_ALLOWED | PIN_DEFAULT1,
	[CAP_PROC] = ALL_ALLOWED | PROC_DEFAULT1,
	[CAP_EXIT] = ALL_ALLOWED | EXIT_DEFAULT1,
	[CAP_ENTRY] = ALL_ALLOWED | ENTRY_DEFAULT1,
	[CAP_MISC] = 5,
	[CAP_CR0_FIXED0] = CR0_PE | CR0_NE | CR0_PG,
	[CAP_CR0_FIXED1] = 0xffffffff,
	[CAP_CR4_FIXED0] = CR4_VMXE,
	[CAP_CR4_FIXED1] = 0x3727ff,
	[CAP_PROC2] = ALL_ALLOWED,
	[CAP_EPT_VPID] = EPT_VPID_VALUE,
	[CAP_TRUE_PIN] = ALL_ALLOWED | PIN_DEFAULT1,
	[CAP_TRUE_PROC] = ALL_ALLOWED | PROC_TRUE1,
	[CAP_TRUE_EXIT] = ALL_ALLOWED | 0x36dfb,
	[CAP_TRUE_ENTRY] = ALL_ALLOWED | 0x11fb,
};
