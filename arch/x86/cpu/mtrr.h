/* SPDX-License-Identifier: MIT */
/*
 * The memory types that the firmware has given to physical addresses (Intel SDM vol. 3, 12.11). EPT does not look at
 * them: it takes the type of its entry. So only memory that is write-back by them may ever be a guest's RAM.
 */
#pragma once

#include "lib/bits.h"
#include "lib/types.h"

enum { MTRR_WB = 6, MTRR_FIXED_ON = BIT(10), MTRR_ON = BIT(11) };
#define MTRR_PAIRS_MAX  32
#define MTRR_PAIR_VALID BIT(11)

struct mtrrs {
	u64 def;       /* MTRRdefType */
	u64 fixed[11]; /* 8 of 64 KB; 16 of 16 KB; 64 of 4 KB: the first megabyte */
	unsigned pairs;
	u64 pair[MTRR_PAIRS_MAX][2]; /* base, mask */
};

static inline u8 mtrr_fixed_type(const struct mtrrs *m, hpa_t pa)
{
	u64 i = pa < 0x80000 ? pa >> 16 : pa < 0xc0000 ? 8 + ((pa - 0x80000) >> 14) : 24 + ((pa - 0xc0000) >> 12);

	return (u8)(m->fixed[i / 8] >> 8 * (i % 8));
}

/* Whether pa is write-back. Switched off means that nobody has said anything: then it is taken for that. */
static inline bool mtrr_is_wb(const struct mtrrs *m, hpa_t pa)
{
	bool found = false;

	if (!(m->def & MTRR_ON))
		return true;
	if (pa < 1 * MB && (m->def & MTRR_FIXED_ON))
		return mtrr_fixed_type(m, pa) == MTRR_WB;
	for (unsigned i = 0; i < m->pairs; i++) {
		u64 base = m->pair[i][0], mask = m->pair[i][1];

		if (!(mask & MTRR_PAIR_VALID) || ((pa ^ base) & mask & PAGE_MASK))
			continue;
		if ((u8)base != MTRR_WB) /* where they overlap, write-back is the weakest */
			return false;
		found = true;
	}
	return found || (u8)m->def == MTRR_WB;
}

/* Where the answer may change next: at limit, which is above pa, or before. */
static inline hpa_t mtrr_step(const struct mtrrs *m, hpa_t pa, hpa_t limit)
{
	hpa_t end = pa < 1 * MB ? ROUND_DOWN(pa, PAGE_SIZE) + PAGE_SIZE : limit;

	for (unsigned i = 0; i < m->pairs; i++) {
		u64 mask = m->pair[i][1] & PAGE_MASK;

		if ((m->pair[i][1] & MTRR_PAIR_VALID) && mask)
			end = MIN(end, ROUND_DOWN(pa, BIT(bit_low(mask))) + BIT(bit_low(mask)));
	}
	return MIN(end, limit);
}

/* Where the answer does change, or limit. */
static inline hpa_t mtrr_end(const struct mtrrs *m, hpa_t pa, hpa_t limit)
{
	bool wb = mtrr_is_wb(m, pa);

	do
		pa = mtrr_step(m, pa, limit);
	while (pa < limit && mtrr_is_wb(m, pa) == wb);
	return pa;
}

/* This CPU's. */
void mtrr_read(struct mtrrs *m);
