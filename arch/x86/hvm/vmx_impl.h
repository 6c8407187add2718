/* SPDX-License-Identifier: MIT */
/* What vmx.c (entry and exit), vmx_state.c (the VMCS and guest state) and vmx_cpu.c (setting up) share. */
#pragma once

#include "arch/x86/cpu/pcpu.h"
#include "arch/x86/hvm/exit.h"
#include "arch/x86/hvm/vmx.h"
#include "arch/x86/hvm/vmx_insn.h"

#define IDENTITY_GPA 0xfedff000ul /* below the local APIC, where the guest's map has nothing */

/* Bits of CR4 that mean something to an identity map. */
#define CR4_PAGING (CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP | CR4_SMAP | CR4_PCIDE)

/* MSRs that are not in the VMCS and that guests have without exits. */
enum { SWITCHED_MSRS = 5 };

struct msr_entry {
	u32 msr, reserved;
	u64 value;
};

struct vmx {
	u8 vmcs[PAGE_SIZE];
	u64 f[FIELDS];
	u64 valid[2], dirty[2]; /* of f: as in the VMCS, or newer; newer */
	u64 absent[2];          /* not in this CPU's VMCS */
	/* Loaded at entry and exit, where the VMCS has no field for it; listed of each. */
	struct msr_entry guest_list[2] ALIGNED(16), host_list[2];
	unsigned listed;
	u64 frame[2];                     /* see vmx_entry.S */
	u64 cr2, dr6, msr[SWITCHED_MSRS]; /* while not loaded */
	u64 cr3;                          /* the guest's, while it runs on the identity map */
	u64 efer;                         /* the guest's */
	bool launched, fresh;             /* fresh: has never run */
	bool stale;                       /* its translations are to be forgotten */
	bool check;                       /* its state was set by software, and not checked since */
	bool nmi_blocked;                 /* as the hardware has it */
	u64 reads, writes;                /* VMREADs and VMWRITEs, for the report */
	char why[128];                    /* why an entry failed */
};
_Static_assert(FIELDS <= 128, "two words");

/* What this machine's VMX can do; all pCPUs alike; written once at boot. */
extern struct vmx_caps vmx_caps;

static inline struct vmx *vmx_of(const struct vcpu *v) { return v->arch; }
static inline bool vmx_any_mode(void) { return vmx_caps.proc2 & PROC2_ANY_MODE; }

/* --- vmx_state.c: all on the vCPU's own pCPU, but what only sets a vCPU that has not run yet. */

void vmx_make_current(struct vmx *s);
/* The VMCS is nobody's any more: the CPU may write to it until then. */
void vmx_clear(struct vmx *s);
extern const u16 vmx_encodings[FIELDS];
/* A VMREAD of a field that has no copy. */
u64 vmx_peek(struct vmx *s, u64 encoding);
/* Puts what has changed into the current VMCS. False with the reason in s->why if the CPU refuses a field. */
bool vmx_write_dirty(struct vmx *s);

static inline u64 get(struct vmx *s, unsigned field)
{
	if (!bitmap_test(s->valid, field)) {
		s->f[field] = vmx_peek(s, vmx_encodings[field]);
		bitmap_set(s->valid, field);
	}
	return s->f[field];
}

static inline void put(struct vmx *s, unsigned field, u64 val)
{
	if (bitmap_test(s->valid, field) && s->f[field] == val)
		return;
	s->f[field] = val;
	bitmap_set(s->valid, field);
	bitmap_set(s->dirty, field);
}

static inline void put_bits(struct vmx *s, unsigned field, u64 bits, bool on)
{
	u64 old = get(s, field);

	put(s, field, on ? old | bits : old & ~bits);
}

/* Operations of struct hvm_ops. */
u64 vmx_get(struct vcpu *v, enum vreg r);
void vmx_set(struct vcpu *v, enum vreg r, u64 val);
struct segment vmx_get_seg(struct vcpu *v, enum seg seg);
void vmx_set_seg(struct vcpu *v, enum seg seg, struct segment val);

/* --- vmx_cpu.c */

int vmx_cpu_on(void);
int vmx_vcpu_init(struct vcpu *v);
void vmx_vcpu_free(struct vcpu *v);
/* Makes v the vCPU whose registers are in this pCPU's. */
void vmx_load(struct pcpu *p, struct vcpu *v);

/* --- vmx_entry.S */

/*
 * Enters the guest with regs, but RSP, RIP and RFLAGS; false at its exit, true if there was no entry. Interrupts off.
 */
bool vmx_enter(struct gregs *regs, u64 *frame, bool launched);
extern const char vmx_exit[];
