/* SPDX-License-Identifier: MIT */
/*
 * What entries look like: x86 long mode (Intel SDM vol. 3, 4.5; AMD APM vol. 2, 5.3 and 15.25) and EPT (Intel SDM
 * vol. 3, 29.3). Permissions are decided in leaves only: entries that point to tables allow everything, and have their
 * accessed bit set so that no CPU has to.
 */
#include "lib/assert.h"
#include "mm/pt.h"

/*
 * The software type, in bits that both formats ignore in every kind of entry. In a present entry it says what the page
 * is to its owner; the permissions follow from it, never the other way round. In a not-present entry it is all there
 * is: an entry is empty if and only if it is zero. (An entry that is to fault by a reserved bit is a leaf to the
 * engine.)
 */
#define TYPE_SHIFT 52
#define TYPE_MASK  BITS(55, 52)

enum { LONG_P = 0x1, LONG_W = 0x2, LONG_U = 0x4, LONG_PWT = 0x8, LONG_PCD = 0x10 };
enum { LONG_A = 0x20, LONG_D = 0x40, LONG_G = 0x100 };
#define LONG_NX    BIT(63)
#define LONG_TABLE (LONG_P | LONG_W | LONG_U | LONG_A)

enum { EPT_R = 0x1, EPT_W = 0x2, EPT_X = 0x4, EPT_IPAT = 0x40, EPT_A = 0x100, EPT_D = 0x200 };
#define EPT_CACHE_SHIFT 3
#define EPT_CACHE_MASK  BITS(5, 3)

STATIC_ASSERT(!(TYPE_MASK & (PT_ADDR | LONG_NX | BITS(11, 0))), "the type is in bits that no format uses");
STATIC_ASSERT(!(TYPE_MASK & BITS(63, 57)), "nor will: protection keys, EPT's shadow-stack, sub-page and #VE bits");
STATIC_ASSERT((EPT_R | EPT_W << 8 | EPT_X << 16) == (PT_R | PT_W << 8 | PT_X << 16),
	      "EPT's permissions are taken as they are");

static u64 if_set(unsigned flags, unsigned flag, u64 bit) { return flags & flag ? bit : 0; }

/* Large pages and 4 KB pages keep the PAT bit at different places; it is never used: PAT entry 1 is WC, 3 is UC. */
static u64 long_encode(const struct pt *pt, struct pt_entry e, unsigned level)
{
	static const u64 cache[] = {[PT_WB] = 0, [PT_WC] = LONG_PWT, [PT_UC] = LONG_PWT | LONG_PCD};
	u64 raw = (u64)e.type << TYPE_SHIFT;

	if (!pt_present(e))
		return raw;
	raw |= e.pa | LONG_P | cache[e.cache] | if_set(e.flags, PT_W, LONG_W) | if_set(e.flags, PT_USER, LONG_U) |
	       if_set(e.flags, PT_GLOBAL, LONG_G) | if_set(e.flags, PT_A, LONG_A) | if_set(e.flags, PT_D, LONG_D);
	if (!(e.flags & PT_X) && pt->nx)
		raw |= LONG_NX;
	return level > 1 ? raw | PT_LARGE : raw;
}

static struct pt_entry long_decode(u64 raw, unsigned level)
{
	struct pt_entry e = {.type = (raw & TYPE_MASK) >> TYPE_SHIFT, .order = pt_order(level)};

	if (!(raw & LONG_P))
		return e;
	e.pa = raw & PT_ADDR;
	e.cache = raw & LONG_PCD ? PT_UC : raw & LONG_PWT ? PT_WC : PT_WB;
	e.flags = PT_R | if_set(raw, LONG_W, PT_W) | if_set(raw, LONG_U, PT_USER) | if_set(raw, LONG_G, PT_GLOBAL) |
		  if_set(raw, LONG_A, PT_A) | if_set(raw, LONG_D, PT_D) | (raw & LONG_NX ? 0 : PT_X);
	return e;
}

static u64 ept_encode(const struct pt *pt, struct pt_entry e, unsigned level)
{
	static const u64 cache[] = {[PT_WB] = 6, [PT_WC] = 1, [PT_UC] = 0};
	u64 raw = (u64)e.type << TYPE_SHIFT;

	(void)pt;
	if (!pt_present(e))
		return raw;
	raw |= e.pa | (e.flags & PT_RWX) | cache[e.cache] << EPT_CACHE_SHIFT | if_set(e.flags, PT_IPAT, EPT_IPAT) |
	       if_set(e.flags, PT_A, EPT_A) | if_set(e.flags, PT_D, EPT_D);
	return level > 1 ? raw | PT_LARGE : raw;
}

static struct pt_entry ept_decode(u64 raw, unsigned level)
{
	struct pt_entry e = {.type = (raw & TYPE_MASK) >> TYPE_SHIFT, .order = pt_order(level)};
	u64 cache = (raw & EPT_CACHE_MASK) >> EPT_CACHE_SHIFT;

	if (!(raw & PT_RWX))
		return e;
	e.pa = raw & PT_ADDR;
	e.cache = cache == 6 ? PT_WB : cache == 1 ? PT_WC : PT_UC;
	e.flags = (raw & PT_RWX) | if_set(raw, EPT_IPAT, PT_IPAT) | if_set(raw, EPT_A, PT_A) | if_set(raw, EPT_D, PT_D);
	return e;
}

/* Bits of present entries, of entries that point to tables, accessed, dirty; the functions. */
const struct pt_format pt_format_long = {"long", LONG_P, LONG_TABLE, LONG_A, LONG_D, long_encode, long_decode};
const struct pt_format pt_format_ept = {"ept", PT_RWX, PT_RWX | EPT_A, EPT_A, EPT_D, ept_encode, ept_decode};
