/* SPDX-License-Identifier: MIT */
/* Instructions that C has no words for. */
#ifndef ARCH_X86_CPU_CPU_H
#define ARCH_X86_CPU_CPU_H

#include "lib/bits.h"
#include "lib/types.h"

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
CPU_REG(dr0)
CPU_REG(dr1)
CPU_REG(dr2)
CPU_REG(dr3)
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

#define CR0_PG BIT(31) /* more than an int: an enumerator would be unsigned, and its complement cut short */
enum { RFLAGS_IF = BIT(9), CR0_PE = BIT(0), CR0_MP = BIT(1), CR0_EM = BIT(2), CR0_TS = BIT(3), CR0_ET = BIT(4) };
enum { CR0_NE = BIT(5), CR0_WP = BIT(16), CR0_AM = BIT(18), CR0_NW = BIT(29), CR0_CD = BIT(30) };
enum { CR4_TSD = BIT(2), CR4_DE = BIT(3) };
enum { CR4_PSE = BIT(4), CR4_PAE = BIT(5), CR4_MCE = BIT(6), CR4_PGE = BIT(7), CR4_OSFXSR = BIT(9) };
enum { CR4_OSXMMEXCPT = BIT(10), CR4_UMIP = BIT(11), CR4_LA57 = BIT(12), CR4_VMXE = BIT(13), CR4_FSGSBASE = BIT(16) };
enum { CR4_PCIDE = BIT(17), CR4_OSXSAVE = BIT(18), CR4_SMEP = BIT(20), CR4_SMAP = BIT(21) };
enum { EFER_SCE = BIT(0), EFER_LME = BIT(8), EFER_LMA = BIT(10), EFER_NX = BIT(11), EFER_SVME = BIT(12) };

#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
enum { MSR_TSC = 0x10, MSR_MCG_CAP = 0x179, MSR_PAT = 0x277, MSR_MC0_STATUS = 0x401, MSR_X2APIC = 0x800 };
enum { MSR_EFER = 0xc0000080u, MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SFMASK };
enum { MSR_FS_BASE = 0xc0000100u, MSR_GS_BASE, MSR_KERNEL_GS_BASE, MSR_TSC_AUX };
enum { MSR_VM_CR = 0xc0010114u, MSR_VM_HSAVE_PA = 0xc0010117u };

#endif
