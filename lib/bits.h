/* SPDX-License-Identifier: MIT */
/* Bit arithmetic, and the atomic accesses that shared data is read and written with. */
#pragma once

#include "lib/types.h"

#define BIT(n)       (1ul << (n))
#define BITS(hi, lo) ((~0ul >> (63 - (hi))) & (~0ul << (lo)))

/* Position of the highest or lowest set bit. x must not be 0. */
static inline unsigned bit_high(u64 x) { return 63 - (unsigned)__builtin_clzll(x); }
static inline unsigned bit_low(u64 x) { return (unsigned)__builtin_ctzll(x); }

static inline void bitmap_set(u64 *map, unsigned n) { map[n / 64] |= BIT(n % 64); }
static inline void bitmap_clear(u64 *map, unsigned n) { map[n / 64] &= ~BIT(n % 64); }
static inline bool bitmap_test(const u64 *map, unsigned n) { return map[n / 64] & BIT(n % 64); }

/* a * b / c with a 128-bit product, rounded down or up; all ones if that does not fit 64 bits or c is 0. */
static inline u64 mul_div(u64 a, u64 b, u64 c, bool up)
{
	unsigned __int128 product = (unsigned __int128)a * b;
	u64 quotient, rest;

	if (product >> 64 >= c)
		return ~0ul;
	/* The compiler would call a library for a 128-bit division. The quotient fits: the test above says so. */
	__asm__("divq %4" : "=a"(quotient), "=d"(rest) : "a"((u64)product), "d"((u64)(product >> 64)), "rm"(c) : "cc");
	return quotient + (up && rest && quotient != ~0ul);
}

#define atomic_load(p)             __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define atomic_store(p, v)         __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define atomic_load_relaxed(p)     __atomic_load_n((p), __ATOMIC_RELAXED)
#define atomic_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define atomic_swap(p, v)          __atomic_exchange_n((p), (v), __ATOMIC_ACQ_REL)
#define atomic_add(p, v)           __atomic_add_fetch((p), (v), __ATOMIC_ACQ_REL) /* returns the new value */
#define atomic_or(p, v)            __atomic_fetch_or((p), (v), __ATOMIC_ACQ_REL)  /* returns the old value */
#define atomic_and(p, v)           __atomic_fetch_and((p), (v), __ATOMIC_ACQ_REL) /* returns the old value */
/* Stores v if *p is *expected; otherwise *expected becomes what was there. */
#define atomic_cas(p, expected, v) \
	__atomic_compare_exchange_n((p), (expected), (v), false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)
