/* SPDX-License-Identifier: MIT */
#include "arch/x86/cpu/mtrr.h"

#include "arch/x86/cpu/cpu.h"

enum { MSR_MTRR_CAP = 0xfe, MSR_MTRR_PAIRS = 0x200, MSR_MTRR_DEF = 0x2ff, CAP_PAIRS = 0xff, CAP_FIXED = 0x100 };

void mtrr_read(struct mtrrs *m)
{
	static const u16 fixed[11] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f};
	u64 cap = rdmsr(MSR_MTRR_CAP);

	m->def = rdmsr(MSR_MTRR_DEF);
	m->pairs = MIN((u32)cap & CAP_PAIRS, (u32)MTRR_PAIRS_MAX);
	for (u32 i = 0; i < m->pairs; i++) {
		m->pair[i][0] = rdmsr(MSR_MTRR_PAIRS + 2 * i);
		m->pair[i][1] = rdmsr(MSR_MTRR_PAIRS + 2 * i + 1);
	}
	for (u32 i = 0; i < ARRAY_SIZE(fixed); i++)
		m->fixed[i] = cap & CAP_FIXED ? rdmsr(fixed[i]) : 0;
}
