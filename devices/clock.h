/* SPDX-License-Identifier: MIT */
/*
 * Guest clocks. A device keeps its times in ticks of its own clock since port_now's zero, never as a sum of rounded
 * intervals, so that nothing drifts: tick t happens at the first nanosecond at which ns_to_ticks says t.
 */
#ifndef DEVICES_CLOCK_H
#define DEVICES_CLOCK_H

#include "lib/types.h"

#define NS_PER_SEC 1000000000u

enum { PIT_HZ = 1193182, PM_HZ = 3579545, RTC_HZ = 32768 };

/* A timer that a guest makes periodic fires at most this often; what it would have told in between is one interrupt. */
#define GUEST_PERIOD_MIN_NS 20000u

/* (x * mul + round) / div without overflow of the product; round < div. The result must fit; a saturated one is ~0. */
static inline u64 scale(u64 x, u32 mul, u32 div, u32 round)
{
	u64 whole, sum;

	if (__builtin_mul_overflow(x / div, (u64)mul, &whole) ||
	    __builtin_add_overflow(whole, (x % div * mul + round) / div, &sum))
		return ~0ul;
	return sum;
}

static inline u64 ns_to_ticks(u64 ns, u32 hz) { return scale(ns, hz, NS_PER_SEC, 0); }
static inline u64 ticks_to_ns(u64 ticks, u32 hz) { return scale(ticks, NS_PER_SEC, hz, hz - 1); }

#endif
