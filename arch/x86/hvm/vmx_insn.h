/* SPDX-License-Identifier: MIT */
/* The instructions of VMX (Intel SDM vol. 3, chapter 31) and of its exits; tests have others in their place. */
#ifndef ARCH_X86_HVM_VMX_INSN_H
#define ARCH_X86_HVM_VMX_INSN_H

#include "lib/types.h"

/* Those that can fail return whether they did not. */
#define VMX_ON_ADDRESS(name)                                                           \
	static inline bool name(hpa_t pa)                                              \
	{                                                                              \
		bool failed;                                                           \
		__asm__ volatile(#name " %1" : "=@ccbe"(failed) : "m"(pa) : "memory"); \
		return !failed;                                                        \
	}
/* clang-format off */
VMX_ON_ADDRESS(vmxon)
VMX_ON_ADDRESS(vmclear)
VMX_ON_ADDRESS(vmptrld)
/* clang-format on */

static inline u64 vmread(u64 encoding)
{
	u64 val;

	__asm__ volatile("vmread %1, %0" : "=r"(val) : "r"(encoding));
	return val;
}

static inline bool vmwrite(u64 encoding, u64 val)
{
	bool failed;

	__asm__ volatile("vmwrite %2, %1" : "=@ccbe"(failed) : "r"(encoding), "rm"(val));
	return !failed;
}

static inline void invept(u64 eptp, bool single)
{
	u64 what[2] = {eptp, 0}, kind = single ? 1 : 2;

	__asm__ volatile("invept %0, %1" ::"m"(what), "r"(kind) : "memory");
}

static inline void invvpid(u64 vpid, bool single)
{
	u64 what[2] = {vpid, 0}, kind = single ? 1 : 2;

	__asm__ volatile("invvpid %0, %1" ::"m"(what), "r"(kind) : "memory");
}

/* Has the handler run for an NMI that ended a guest; its IRET lets NMIs in again. */
static inline void take_nmi(void) { __asm__ volatile("int $2" ::: "memory"); }

static inline u64 idt_base(void)
{
	struct PACKED {
		u16 limit;
		u64 base;
	} idtr;

	__asm__ volatile("sidt %0" : "=m"(idtr));
	return idtr.base;
}

#endif
