/* SPDX-License-Identifier: MIT */
/*
 * Guest clocks. A device keeps its times in ticks of its own clock since port_now's zero, never as a sum of rounded
 * intervals, so that nothing drifts: tick t happens at the first nanosecond at which ns_to_ticks says t.
 */
#pragma once

#include "lib/bits.h"

enum { PIT_HZ = 1193182, PM_HZ = 3579545, RTC_HZ = 32768 };

/* A timer that a guest makes periodic fires at most this often; what it would have told in between is one interrupt. */
#define GUEST_PERIOD_MIN_NS 20000u

static inline u64 ns_to_ticks(u64 ns, u32 hz) { return mul_div(ns, hz, NS_PER_SECOND, false); }
static inline u64 ticks_to_ns(u64 ticks, u32 hz) { return mul_div(ticks, NS_PER_SECOND, hz, true); }
