/* SPDX-License-Identifier: MIT */
/* Instructions that C has no words for. */
#pragma once

#include "lib/types.h"
#include "lib/x86.h"

#define asm_volatile __asm__ volatile

#define CPU_PORT(suffix, type)                                            \
	static inline type in##suffix(u16 p)                              \
	{                                                                 \
		type v;                                                   \
		asm_volatile("in" #suffix " %1, %0" : "=a"(v) : "Nd"(p)); \
		return v;                                                 \
	}                                                                 \
	static inline void out##suffix(u16 p, type v) { asm_volatile("out" #suffix " %0, %1" ::"a"(v), "Nd"(p)); }
/* clang-format off */
CPU_PORT(b, u8)
CPU_PORT(w, u16)
CPU_PORT(l, u32)
/* clang-format on */

/* What is in EDX and EAX, and chosen by ECX. */
#define CPU_WIDE(read, write)                                                               \
	static inline u64 read(u32 n)                                                       \
	{                                                                                   \
		u32 lo, hi;                                                                 \
		asm_volatile(#read : "=a"(lo), "=d"(hi) : "c"(n));                          \
		return (u64)hi << 32 | lo;                                                  \
	}                                                                                   \
	static inline void write(u32 n, u64 v)                                              \
	{                                                                                   \
		asm_volatile(#write ::"c"(n), "a"((u32)v), "d"((u32)(v >> 32)) : "memory"); \
	}
/* clang-format off */
CPU_WIDE(rdmsr, wrmsr)
CPU_WIDE(xgetbv, xsetbv)
/* clang-format on */

struct cpuid_regs {
	u32 a, b, c, d;
};
static inline struct cpuid_regs cpuid(u32 leaf, u32 sub)
{
	struct cpuid_regs r;
	asm_volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(sub));
	return r;
}

static inline u64 rdtsc(void)
{
	u32 lo, hi;
	asm_volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (u64)hi << 32 | lo;
}

/* Not before all earlier instructions are done: for measuring. */
static inline u64 rdtsc_ordered(void)
{
	asm_volatile("lfence" ::: "memory");
	return rdtsc();
}

#define CPU_REG(name)                                          \
	static inline u64 read_##name(void)                    \
	{                                                      \
		u64 v;                                         \
		asm_volatile("mov %%" #name ", %0" : "=r"(v)); \
		return v;                                      \
	}                                                      \
	static inline void write_##name(u64 v) { asm_volatile("mov %0, %%" #name ::"r"(v) : "memory"); }
/* clang-format off */
CPU_REG(cr0)
CPU_REG(cr2)
CPU_REG(cr3)
CPU_REG(cr4)
CPU_REG(dr6)
/* clang-format on */

static inline void cpu_cli(void) { asm_volatile("cli" ::: "memory"); }
static inline void cpu_sti(void) { asm_volatile("sti" ::: "memory"); }
/* Enables interrupts and halts with no window in between. */
static inline void cpu_sti_hlt(void) { asm_volatile("sti; hlt" ::: "memory"); }
/* Stops this pCPU; only NMI, #MC and INIT reach it any more. */
static inline void NORETURN cpu_stop(void)
{
	for (;;)
		asm_volatile("cli; hlt" ::: "memory");
}
static inline void cpu_pause(void) { asm_volatile("pause" ::: "memory"); }
/* Orders earlier stores before a following x2APIC or TSC deadline MSR write, which is not serialising (SDM 3A 11.12.3).
 */
static inline void cpu_fence(void) { asm_volatile("mfence; lfence" ::: "memory"); }
