/* SPDX-License-Identifier: MIT */
/*
 * The exit dispatcher: one switch that acts on the neutral exit record, whoever filled it. Pure; it reaches the
 * hardware's guest state through hvm_ops, so that host tests drive it with a fake backend.
 */
#pragma once

#include "arch/x86/cpu/cpu.h"
#include "arch/x86/cpu/features.h"
#include "arch/x86/hvm/vcpu.h"
#include "mm/gwalk.h"

/* What a guest may set in CR4. VME, PVI, TSD, DE below PSE; PCE between PGE and OSFXSR. */
#define CR4_VALID                                                                                               \
	(BITS(3, 0) | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | BIT(8) | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP | \
	 CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP)

/* What there is of the machine for guests beyond cpu_features. Set once at boot, before the first guest. */
struct hvm_host {
	void (*cpuid)(u32 leaf, u32 sub, u32 regs[4]);
	void (*xsetbv)(u32 n, u64 val);
	void (*xmm)(unsigned n, void *val, bool write); /* an XMM register of the vCPU that is loaded here */
	void (*dr)(struct vcpu *v, unsigned n, u64 *val, bool write); /* DR0-3, wherever they are */
	void (*machine_check)(void);                                  /* #MC came while a guest ran: tells of it */
	u8 max_order;                                                 /* the largest page of nested paging: 0, 9, 18 */
	u64 cr4_refused;            /* what this CPU does not let a guest set in CR4 */
	bool no_ad;                 /* nested page tables get no accessed and dirty bits */
	bool exec_small;            /* nested paging is to have no large pages with code, see pt.exec_small */
	bool no_rdtscp, no_invpcid; /* the CPU has the instruction, but not in guests */
};
extern struct hvm_host hvm_host;

enum outcome exit_dispatch(struct vcpu *v, const struct vm_exit *x);

/* What the guest's CPUID says for leaf and subleaf: host's values filtered. regs[4] = eax, ebx, ecx, edx. */
void guest_cpuid(struct vcpu *v, u32 leaf, u32 sub, u32 regs[4]);
/* The guest's MAXPHYADDR. */
unsigned guest_phys_bits(const struct vcpu *v);
/* Guest MSRs: 0, or -EINVAL for #GP. */
int guest_rdmsr(struct vcpu *v, u32 msr, u64 *val);
int guest_wrmsr(struct vcpu *v, u32 msr, u64 val);
/* Writes to CR0, CR3, CR4, CR8, XCR0 with the checks of the manual: 0 or -EINVAL for #GP. */
int guest_write_cr(struct vcpu *v, unsigned n, u64 val);
int guest_xsetbv(struct vcpu *v, u32 n, u64 val);

/*
 * Emulates the instruction at rip (bytes from the exit or fetched). Used for MMIO, string I/O and what has no length;
 * and for states that the hardware cannot run, where it first delivers v->event, if there is one, and nothing else.
 */
enum outcome emulate(struct vcpu *v);
/* A hypercall, and what CPUID says of hypercalls. */
void hypercall(struct vcpu *v, struct gregs *regs);
void hypercall_cpuid(u32 regs[4]);
/* CPUID, RDMSR and WRMSR, with these registers of the vCPU: 0 or -EINVAL for #GP. */
void do_cpuid(struct vcpu *v, struct gregs *regs);
int do_rdmsr(struct vcpu *v, struct gregs *regs);
int do_wrmsr(struct vcpu *v, const struct gregs *regs);
static inline void set_pair(struct gregs *regs, u64 val) /* EDX:EAX */
{
	regs->r[R_AX] = (u32)val;
	regs->r[R_DX] = val >> 32;
}
/* HLT was done. */
enum outcome do_hlt(struct vcpu *v);
/* An instruction of that length was done for the guest: moves rip on, ends shadows, raises a single step's #DB. */
void insn_done(struct vcpu *v, unsigned len);
/* The part of that which is not about rip and flags. shadow: it begins one. step: TF was set before it. */
void insn_end(struct vcpu *v, bool shadow, bool step);
/* An access on the guest's bus; an MMIO access may also be the local APIC's. */
void guest_bus(struct vcpu *v, struct bus_op *op);

static inline enum gcpu_mode mode_of(u64 cr0, u64 rflags, u64 efer, u16 cs_attr)
{
	if (!(cr0 & CR0_PE) || (rflags & RFLAGS_VM))
		return MODE_REAL;
	if ((cs_attr & SEG_ATTR_L) && (efer & EFER_LMA))
		return MODE_64;
	return cs_attr & SEG_ATTR_DB ? MODE_32 : MODE_16;
}

/*
 * Translates the guest's la for the access (PF_WRITE, PF_FETCH; the rest is added), with the mode and privilege of the
 * last exit. 0; -EFAULT with the #PF in v->fault; -EIO if its tables are not in RAM.
 */
int guest_translate(struct vcpu *v, gva_t la, u32 access, gpa_t *gpa);
/*
 * Fetches bytes at rip up to INSN_MAX: bytes[*n] and on, *n being how many are there (0 at first). 0; or why there are
 * no more: as guest_translate, or -ENOENT if no RAM is there.
 */
int guest_fetch(struct vcpu *v, u8 *bytes, unsigned *n);
