/* SPDX-License-Identifier: MIT */
/*
 * The memory types that the firmware has given to physical addresses (Intel SDM vol. 3, 12.11). EPT does not look at
 * them: it takes the type of its entry. So only memory that is write-back by them may ever be a guest's RAM.
 */
#ifndef ARCH_X86_CPU_MTRR_H
#define ARCH_X86_CPU_MTRR_H

#include "lib/bits.h"
#include "lib/types.h"

enum { MTRR_UC = 0, MTRR_WT = 4, MTRR_WB = 6 };
enum { MTRR_FIXED_ON = BIT(10), MTRR_ON = BIT(11) };
#define MTRR_VARIABLE_MAX 32
#define MTRR_PAIR_VALID   BIT(11)

struct mtrrs {
	u64 def;       /* MTRRdefType */
	u64 fixed[11]; /* 8 of 64 KB; 16 of 16 KB; 64 of 4 KB: the first megabyte */
	unsigned pairs;
	u64 pair[MTRR_VARIABLE_MAX][2]; /* base, mask */
};

static inline u8 mtrr_fixed_type(const struct mtrrs *m, hpa_t pa)
{
	u64 i = pa < 0x80000 ? pa >> 16 : pa < 0xc0000 ? 8 + ((pa - 0x80000) >> 14) : 24 + ((pa - 0xc0000) >> 12);

	return (u8)(m->fixed[i / 8] >> 8 * (i % 8));
}

/* The type at pa. Switched off means that nobody has said anything: then it is taken for write-back. */
static inline u8 mtrr_type(const struct mtrrs *m, hpa_t pa)
{
	u8 type = 0xff;

	if (!(m->def & MTRR_ON))
		return MTRR_WB;
	if (pa < 1 * MB && (m->def & MTRR_FIXED_ON))
		return mtrr_fixed_type(m, pa);
	for (unsigned i = 0; i < m->pairs; i++) {
		u64 base = m->pair[i][0], mask = m->pair[i][1];
		u8 this = (u8)base;

		if (!(mask & MTRR_PAIR_VALID) || ((pa ^ base) & mask & PAGE_MASK))
			continue;
		if (type == 0xff || type == this)
			type = this;
		else /* overlaps: UC wins over all, WT over WB; anything else is undefined */
			type = (type == MTRR_WT && this == MTRR_WB) || (type == MTRR_WB && this == MTRR_WT) ? MTRR_WT
													    : MTRR_UC;
	}
	return type == 0xff ? (u8)m->def : type;
}

/* Up to here no register changes the type. */
static inline hpa_t mtrr_step(const struct mtrrs *m, hpa_t pa)
{
	hpa_t end = pa < 1 * MB ? ROUND_DOWN(pa, PAGE_SIZE) + PAGE_SIZE : ~0ul;

	for (unsigned i = 0; i < m->pairs; i++) {
		u64 mask = m->pair[i][1];

		if ((mask & MTRR_PAIR_VALID) && (mask & PAGE_MASK)) {
			u64 step = BIT(bit_low(mask & PAGE_MASK));

			end = MIN(end, ROUND_DOWN(pa, step) + step);
		}
	}
	return end;
}

/* All that follows pa and has its type ends here, or at limit, which is above pa. */
static inline hpa_t mtrr_end(const struct mtrrs *m, hpa_t pa, hpa_t limit)
{
	u8 type = mtrr_type(m, pa);

	do
		pa = MIN(mtrr_step(m, pa), limit);
	while (pa < limit && mtrr_type(m, pa) == type);
	return pa;
}

/* This CPU's. */
void mtrr_read(struct mtrrs *m);

#endif
