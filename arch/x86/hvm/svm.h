/* SPDX-License-Identifier: MIT */
/* The VMCB (AMD APM vol. 2, appendix B) and the entry into a guest. Only svm.c uses this. */
#ifndef ARCH_X86_HVM_SVM_H
#define ARCH_X86_HVM_SVM_H

#include "arch/x86/emul/emul.h"
#include "lib/bits.h"
#include "lib/types.h"

struct vmcb_seg {
	u16 sel, attr;
	u32 limit;
	u64 base;
};

/* Order in the save area: that of enum seg up to GS, then these. */
enum { VMCB_GDTR = 6, VMCB_LDTR, VMCB_IDTR, VMCB_TR, VMCB_SEGS };

struct vmcb {
	u32 intercept_cr; /* reads 15:0, writes 31:16 */
	u32 intercept_dr, intercept_exceptions;
	u32 intercept1, intercept2, intercept3;
	u8 reserved018[0x03c - 0x018];
	u16 pause_threshold, pause_count;
	u64 iopm, msrpm, tsc_offset;
	u32 asid;
	u8 tlb_control, reserved05d[3];
	u64 vintr;
	u64 int_shadow;
	u64 exit_code, exit_info1, exit_info2, exit_int_info;
	u64 np_enable;
	u8 reserved098[0x0a8 - 0x098];
	u64 event_inject, n_cr3, lbr_virt;
	u64 clean;
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
	u64 s_cet, ssp, isst;
	u64 rax, star, lstar, cstar, sfmask, kernel_gs_base;
	u64 sysenter_cs, sysenter_esp, sysenter_eip;
	u64 cr2;
	u8 reserved648[0x668 - 0x648];
	u64 pat;
	u8 reserved670[0x1000 - 0x670];
};
_Static_assert(offsetof(struct vmcb, iopm) == 0x40, "VMCB layout");
_Static_assert(offsetof(struct vmcb, exit_code) == 0x70, "VMCB layout");
_Static_assert(offsetof(struct vmcb, event_inject) == 0xa8, "VMCB layout");
_Static_assert(offsetof(struct vmcb, next_rip) == 0xc8, "VMCB layout");
_Static_assert(offsetof(struct vmcb, cpl) == 0x4cb, "VMCB layout");
_Static_assert(offsetof(struct vmcb, cr4) == 0x548, "VMCB layout");
_Static_assert(offsetof(struct vmcb, rip) == 0x578, "VMCB layout");
_Static_assert(offsetof(struct vmcb, rsp) == 0x5d8, "VMCB layout");
_Static_assert(offsetof(struct vmcb, rax) == 0x5f8, "VMCB layout");
_Static_assert(offsetof(struct vmcb, cr2) == 0x640, "VMCB layout");
_Static_assert(offsetof(struct vmcb, pat) == 0x668, "VMCB layout");
_Static_assert(sizeof(struct vmcb) == PAGE_SIZE, "VMCB layout");

/* Intercepts of the words 1 and 2; exit codes are 0x60 + bit and 0x80 + bit. */
enum {
	I1_INTR,
	I1_NMI,
	I1_SMI,
	I1_INIT,
	I1_VINTR,
	I1_RDPMC = 15,
	I1_CPUID = 18,
	I1_RSM,
	I1_IRET,
	I1_INVD = 22,
	I1_PAUSE,
	I1_HLT,
	I1_INVLPGA = 26,
	I1_IOIO,
	I1_MSR,
	I1_TASK,
	I1_SHUTDOWN = 31,
};
enum { I2_VMRUN, I2_VMMCALL, I2_VMLOAD, I2_VMSAVE, I2_STGI, I2_CLGI, I2_SKINIT, I2_WBINVD = 9 };
enum { I2_MONITOR = 10, I2_MWAIT, I2_XSETBV = 13, I2_RDPRU };

#define SVM_EXIT_CR      0x00 /* 0x00-0x1f */
#define SVM_EXIT_EXC     0x40 /* 0x40-0x5f */
#define SVM_EXIT_1(bit)  (0x60 + (bit))
#define SVM_EXIT_2(bit)  (0x80 + (bit))
#define SVM_EXIT_NPF     0x400
#define SVM_EXIT_INVALID 0xffffffffu /* compared with the low half: not all implementations extend the sign */

#define CR8_WRITE        BIT(16 + 8)
#define VINTR_TPR        0xfu
#define VINTR_IRQ        BIT(8)
#define VINTR_PRIO       BITS(19, 16)
#define VINTR_IGNORE_TPR BIT(20)
#define VINTR_MASKING    BIT(24) /* the guest's IF and CR8 are not the host's */
#define SHADOW           BIT(0)
#define TLB_FLUSH_ALL    1
#define EVENT_ERROR      BIT(11)
#define EVENT_VALID      BIT(31)
#define IO_IN            BIT(0)
#define IO_STRING        BIT(2)
#define IO_REP           BIT(3)
#define IO_SIZE(info)    ((info) >> 4 & 7)
#define NPF_WRITE        BIT(1)
#define NPF_RESERVED     BIT(3)
#define NPF_FETCH        BIT(4)
#define NPF_WALK         BIT(33)
#define VM_CR_LOCK       BIT(3)
#define VM_CR_SVMDIS     BIT(4)

/*
 * Enters the guest whose VMCB is at physical address vmcb, with regs; returns at its exit. To be called with GIF
 * clear; between entry and return FS, GS, TR, LDTR and the SYSCALL and SYSENTER MSRs are exchanged with those of the
 * VMCB at host. RAX, RSP, RIP and RFLAGS go by the VMCB.
 */
void svm_enter(hpa_t vmcb, struct gregs *regs, hpa_t host);

#endif
