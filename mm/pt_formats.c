/* SPDX-License-Identifier: MIT */
/*
 * What entries look like: x86 long mode (Intel SDM vol. 3, 4.5; AMD APM vol. 2, 5.3 and 15.25) and EPT (Intel SDM
 * vol. 3, 29.3). Permissions are decided in leaves only: entries that point to tables allow everything, and have their
 * accessed bit set so that no CPU has to.
 */
#include "lib/assert.h"
#include "mm/pt.h"

enum { LONG_P = 0x1, LONG_W = 0x2, LONG_U = 0x4, LONG_A = 0x20, LONG_D = 0x40, LONG_G = 0x100 };
#define LONG_NX BIT(63)

enum { EPT_R = 0x1, EPT_W = 0x2, EPT_X = 0x4, EPT_IPAT = 0x40, EPT_A = 0x100, EPT_D = 0x200 };

STATIC_ASSERT(!(PT_TYPE & (PT_ADDR | LONG_NX | BITS(11, 0))), "the type is in bits that no format uses");
STATIC_ASSERT(!(PT_TYPE & BITS(63, 57)), "nor will: protection keys, EPT's shadow-stack, sub-page and #VE bits");
STATIC_ASSERT((EPT_R | EPT_W << 8 | EPT_X << 16) == (PT_R | PT_W << 8 | PT_X << 16),
	      "EPT's permissions are taken as they are");
STATIC_ASSERT((LONG_P | LONG_W << 8) == (PT_R | PT_W << 8), "and so are long mode's first two");
STATIC_ASSERT((LONG_A | LONG_D) == (PT_A | PT_D) && (EPT_A | EPT_D) >> 3 == (PT_A | PT_D), "ad_shift");

static u64 if_set(unsigned flags, unsigned flag, u64 bit) { return flags & flag ? bit : 0; }

u64 pt_encode(const struct pt *pt, struct pt_entry e, unsigned level)
{
	const struct pt_format *fmt = pt->fmt;
	u64 raw = (u64)e.type << PT_TYPE_SHIFT;

	if (!pt_present(e))
		return raw;
	if (level > 1 && pt->exec_small)
		e.flags &= (u8)~PT_X;
	raw |= e.pa | (e.flags & (PT_R | PT_W)) | (if_set(e.flags, PT_X, fmt->exec) ^ fmt->exec_off) |
	       (u64)(e.flags & (PT_A | PT_D)) << fmt->ad_shift | (u64)fmt->cache_bits[e.cache] << 3 |
	       if_set(e.flags, PT_USER, fmt->user) | if_set(e.flags, PT_GLOBAL, fmt->global) |
	       if_set(e.flags, PT_IPAT, fmt->ipat) | (level > 1 ? PT_LARGE : 0);
	return pt->nx ? raw : raw & ~LONG_NX;
}

/* Large pages and 4 KB pages keep the PAT bit at different places; it is never used: PAT entry 1 is WC, 3 is UC. */
const struct pt_format pt_format_long = {
	.name = "long",
	.present = LONG_P,
	.table = LONG_P | LONG_W | LONG_U | LONG_A,
	.accessed = LONG_A,
	.dirty = LONG_D,
	.exec = LONG_NX,
	.exec_off = LONG_NX,
	.user = LONG_U,
	.global = LONG_G,
	.cache = {PT_WB, PT_WC, PT_UC, PT_UC, PT_WB, PT_WC, PT_UC, PT_UC}, /* by PWT, PCD, and A */
	.cache_bits = {[PT_WB] = 0, [PT_WC] = 1, [PT_UC] = 3},
};

const struct pt_format pt_format_ept = {
	.name = "ept",
	.present = PT_RWX,
	.table = PT_RWX | EPT_A,
	.accessed = EPT_A,
	.dirty = EPT_D,
	.exec = EPT_X,
	.ipat = EPT_IPAT,
	.ad_shift = 3,
	.cache = {PT_UC, PT_WC, PT_UC, PT_UC, PT_UC, PT_UC, PT_WB, PT_UC},
	.cache_bits = {[PT_WB] = 6, [PT_WC] = 1, [PT_UC] = 0},
};
