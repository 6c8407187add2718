/* SPDX-License-Identifier: MIT */
/* The arithmetic of clocks, apart from the clocks: pure. */
#pragma once

#include "lib/bits.h"
#include "lib/types.h"

/* Nanoseconds are ticks * mul / 2^32: the mul of a clock of hz, which is at least 1 MHz. */
static inline u64 clock_mul(u64 hz) { return mul_div(NS_PER_SECOND, 1ul << 32, hz, false); }
static inline u64 clock_ns(u64 ticks, u64 mul) { return (u64)((unsigned __int128)ticks * mul >> 32); }
/* The first tick at which clock_ns is at least ns. */
static inline u64 clock_ticks(u64 ns, u64 mul) { return mul_div(ns, 1ul << 32, mul, true); }

/* One reading of all clocks at the same moment, each counting up without wrap; or sums of such readings. */
struct reading {
	u64 ref, tsc, apic;
};

/* A wrapping counter's total after it went from the low bits of total (those in mask) on to now. */
static inline u64 unwrap(u64 total, u64 now, u64 mask) { return total + ((now - total) & mask); }

/* Whether a frequency that somebody claims is near enough to the measured one to be its true value. */
static inline bool claim_holds(u64 measured, u64 claimed)
{
	return (claimed > measured ? claimed - measured : measured - claimed) <= measured / 500;
}

/* The CMOS clock's registers, status B being the last; false if they hold no date of 2000 to 2099. */
enum { CMOS_STATUS_A = 10, CMOS_STATUS_B, CMOS_REGS };
bool cmos_decode(const u8 reg[CMOS_REGS], u64 *seconds);
