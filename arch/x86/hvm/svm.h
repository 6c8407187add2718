/* SPDX-License-Identifier: MIT */
/* The VMCB (AMD APM vol. 2, appendix B) and the entry into a guest. Only svm.c uses this. */
#pragma once

#include "arch/x86/hvm/vcpu.h"
#include "lib/bits.h"

struct vmcb_seg {
	u16 sel, attr;
	u32 limit;
	u64 base;
};

/* Order in the save area: that of enum seg up to GS, then these. */
enum { VMCB_GDTR = 6, VMCB_LDTR, VMCB_IDTR, VMCB_TR, VMCB_SEGS };

struct vmcb {
	u32 intercept_cr; /* reads 15:0, writes 31:16 */
	u32 intercept_dr, intercept_exceptions, intercept1, intercept2, intercept3;
	u8 reserved018[0x040 - 0x018];
	u64 iopm, msrpm, tsc_offset;
	u32 asid;
	u8 tlb_control, reserved05d[3];
	u64 vintr, int_shadow, exit_code, exit_info1, exit_info2;
	struct vm_event exit_int_info;
	u64 np_enable;
	u8 reserved098[0x0a8 - 0x098];
	struct vm_event event_inject;
	u64 n_cr3;
	u8 reserved0b8[0x0c8 - 0x0b8];
	u64 next_rip;
	u8 insn_bytes_n, insn_bytes[15];
	u8 reserved0e0[0x400 - 0x0e0];

	struct vmcb_seg seg[VMCB_SEGS];
	u8 reserved4a0[0x4cb - 0x4a0];
	u8 cpl;
	u32 reserved4cc;
	u64 efer;
	u8 reserved4d8[0x548 - 0x4d8];
	u64 cr4, cr3, cr0, dr7, dr6, rflags, rip;
	u8 reserved580[0x5d8 - 0x580];
	u64 rsp;
	u8 reserved5e0[0x5f8 - 0x5e0];
	u64 rax;
	u8 reserved600[0x640 - 0x600];
	u64 cr2;
	u8 reserved648[0x668 - 0x648];
	u64 pat;
	u8 reserved670[0x1000 - 0x670];
};
_Static_assert(offsetof(struct vmcb, exit_code) == 0x70 && offsetof(struct vmcb, next_rip) == 0xc8, "control area");
_Static_assert(offsetof(struct vmcb, cpl) == 0x4cb && offsetof(struct vmcb, rip) == 0x578, "save area");
_Static_assert(offsetof(struct vmcb, rax) == 0x5f8 && offsetof(struct vmcb, pat) == 0x668, "save area");
_Static_assert(sizeof(struct vmcb) == PAGE_SIZE, "a VMCB is a frame");

/* Exit codes. Those from 0x60 have an intercept each: bit code - 0x60 of word 1, from 0x80 bit code - 0x80 of word 2.
 */
enum { SVM_CR = 0, SVM_CR_END = 0x20, SVM_EXCEPTION = 0x40, SVM_EXCEPTION_END = 0x60 };
enum { SVM_INTR = 0x60, SVM_NMI, SVM_SMI, SVM_INIT, SVM_VINTR, SVM_RDPMC = 0x6f, SVM_CPUID = 0x72, SVM_RSM, SVM_IRET };
enum { SVM_INVD = 0x76, SVM_HLT = 0x78, SVM_INVLPGA = 0x7a, SVM_IOIO, SVM_MSR, SVM_SHUTDOWN = 0x7f };
enum { SVM_VMRUN = 0x80, SVM_VMMCALL, SVM_VMLOAD, SVM_VMSAVE, SVM_STGI, SVM_CLGI, SVM_SKINIT, SVM_MONITOR = 0x8a };
enum { SVM_MWAIT = 0x8b, SVM_XSETBV = 0x8d, SVM_RDPRU, SVM_CODES, SVM_NPF = 0x400 };
#define SVM_EXIT_INVALID 0xffffffffu /* compared with the low half: not all implementations extend the sign */

#define CR8_WRITE     BIT(16 + 8)
#define IO_SIZE(info) ((info) >> 4 & 7)
#define NPF_WALK      BIT(33)

/* MASKING: the guest's IF and CR8 are not the host's. */
enum { VINTR_TPR = 0xf, VINTR_IRQ = BIT(8), VINTR_PRIO = BITS(19, 16), VINTR_IGNORE_TPR = BIT(20) };
enum { VINTR_MASKING = BIT(24), SHADOW = BIT(0), TLB_FLUSH_ALL = 1, IO_IN = BIT(0), IO_STRING = BIT(2) };
enum { NPF_WRITE = BIT(1), NPF_FETCH = BIT(4), VM_CR_LOCK = BIT(3), VM_CR_SVMDIS = BIT(4) };

/*
 * Enters the guest whose VMCB is at physical address vmcb, with regs; returns at its exit. To be called with GIF
 * clear; between entry and return FS, GS, TR, LDTR and the SYSCALL and SYSENTER MSRs are exchanged with those of the
 * VMCB at host. RAX, RSP, RIP and RFLAGS go by the VMCB.
 */
void svm_enter(hpa_t vmcb, struct gregs *regs, hpa_t host);
