/* SPDX-License-Identifier: MIT */
/*
 * A guest's machine (struct vm) and its processors (struct vcpu), and the seam to the vendor's hardware (struct
 * hvm_ops).
 *
 *     loop: sched_pick -> [vcpu_deliver -> hvm->run -> exit_dispatch]* -> sched_put
 *
 * A backend (svm, vmx) translates and holds no policy: it fills a neutral struct vm_exit; exit_dispatch decides.
 * A vcpu's fields belong to the pCPU that runs it; other pCPUs reach it through its local APIC and sched_wake only.
 */
#pragma once

#include "arch/x86/emul/emul.h"
#include "devices/platform.h"
#include "p2m/p2m.h"
#include "sched/sched.h"

struct pcpu;
struct vm;
struct vcpu;

/* Enter again; wait for an event; the vm has ended (vm_end was called). */
enum outcome { OUT_RESUME, OUT_BLOCK, OUT_STOP };

/*
 * Guest state beside the general registers, as far as the dispatcher needs it: what the guest sees (shadow values where
 * the backend needs them). The MSRs of SYSCALL and SYSENTER, TSC_AUX, and the bases of FS and GS are the guest's own: a
 * backend lets it have them without exits.
 * INT_SHADOW: whether the next instruction is in an STI or MOV SS shadow. TSC: what RDTSC would say now; only read.
 * PDPTE: four registers, the top of PAE's page tables; only Intel's processors have it there, so not for AMD's.
 */
enum vreg {
	REG_CR0,
	REG_CR2,
	REG_CR3,
	REG_CR4,
	REG_EFER,
	REG_DR6,
	REG_DR7,
	REG_PAT,
	REG_INT_SHADOW,
	REG_TSC_OFFSET,
	REG_TSC,
	REG_PDPTE,
	VREGS = REG_PDPTE + 4
};

/* Only base and limit of these count. */
#define SEG_GDTR ((enum seg)SEGS)
#define SEG_IDTR ((enum seg)(SEGS + 1))
#define SEGS_ALL (SEGS + 2)

/* Segment as in a descriptor's second dword, packed like the VMCB's attributes: type 0-3, S 4, DPL 5-6, P 7, AVL 8, L
 * 9, DB 10, G 11 */
struct segment {
	u64 base;
	u32 limit;
	u16 sel, attr;
};
enum { SEG_ATTR_S = 0x10, SEG_ATTR_P = 0x80, SEG_ATTR_L = 0x200, SEG_ATTR_DB = 0x400 };
#define SEG_ATTR_DPL(a) ((a) >> 5 & 3)

/*
 * INTERRUPT  of the host, or an NMI: already handled by the time the dispatcher sees it
 * WINDOW     the guest can take an interrupt, or soon an NMI, now (it was asked for)
 * CR         access to a control register: emulated
 * NPF        nested page fault, EPT violation
 * MMIO       EPT misconfiguration or reserved-bit fault: the MMIO fast path
 * APIC, EOI  the hardware has written a register of the local APIC (.info1: offset in its page), or ended service of a
 *            vector (.info1) whose end is to be told
 * EXCEPTION  an intercepted exception (vector in .vector)
 * INVD       WBINVD too
 * VENDOR_OP  VMRUN, VMXON, SKINIT, ...: #UD in the guest
 * HYPERCALL  VMMCALL, VMCALL
 * SOFT       the hardware cannot run the guest's state (real mode without unrestricted guest): nothing was entered, the
 *            next instruction is emulated; .mode and .cpl count
 * TRIPLE     shutdown
 * ERROR      the hardware refused the guest's state
 */
enum { EXIT_OTHER, EXIT_INTERRUPT, EXIT_WINDOW, EXIT_CPUID, EXIT_HLT, EXIT_IO, EXIT_MSR_READ, EXIT_MSR_WRITE, EXIT_CR };
enum { EXIT_NPF = EXIT_CR + 1, EXIT_MMIO, EXIT_EXCEPTION, EXIT_XSETBV, EXIT_INVD, EXIT_RDPMC, EXIT_VENDOR_OP };
enum { EXIT_HYPERCALL = EXIT_VENDOR_OP + 1, EXIT_APIC, EXIT_EOI, EXIT_SOFT, EXIT_TRIPLE, EXIT_ERROR, EXIT_KINDS };

struct vm_exit {
	u8 kind;      /* EXIT_* */
	u8 insn_len;  /* of the instruction that caused it; 0: not known, decode */
	u8 vector;    /* exceptions */
	u8 access;    /* EXIT_NPF: P2M_READ | P2M_WRITE | P2M_EXEC */
	u8 mode, cpl; /* of the vCPU: enum gcpu_mode, 0..3 */
	bool walk;    /* EXIT_NPF: on the guest's own page-table access */
	bool has_error;
	bool one_operand; /* set by emulate: the instruction accesses no other memory than that of its ModRM byte */
	u32 error;        /* exceptions */
	struct {
		u16 port;
		u8 size;
		bool in, string;
	} io;
	u64 code, info1, info2; /* raw, for reports */
	const char *why;        /* EXIT_ERROR, EXIT_OTHER: in words, or NULL */
	gpa_t gpa;
	gva_t gva;          /* EXIT_NPF, if known; #PF: the address */
	u8 bytes[INSN_MAX]; /* instruction bytes that the CPU delivered (decode assists), nbytes of them */
	u8 nbytes;
};

/* An event to inject at the next entry, as the hardware of both vendors has it. type: EVENT_* */
struct vm_event {
	u64 vector : 8, type : 3, has_error : 1, reserved : 19, valid : 1, error : 32;
};
enum { EVENT_INTR = 0, EVENT_NMI = 2, EVENT_EXCEPTION = 3, EVENT_SOFT = 4 };

/* Where a page of the guest's code is under that CR3; gva 1: none. */
struct code_page {
	u64 cr3, gva, gpa;
};

/* MTRRs: 8 variable pairs, 11 fixed ones, the default type. */
enum { MTRR_FIXED = 16, MTRR_DEFAULT = 27, MTRRS };

struct vcpu {
	u8 xsave[PAGE_SIZE]; /* FPU state while not loaded; first, to be aligned as the vCPU is: to a page */
	struct gregs regs;   /* valid outside ops->run: backends load and store them around it */
	struct vm *vm;
	unsigned index; /* in the vm */
	unsigned pcpu;  /* where it runs */
	struct sched_ent sched;
	struct lapic lapic;
	struct vm_event event; /* pending injection (or re-injection of what an exit interrupted) */
	struct {
		u8 vector;
		u32 error;
		u64 cr2; /* for #PF */
	} fault;         /* what emulation found last: counts while something says so by EMUL_FAULT or -EFAULT */
	bool halted;     /* in HLT: waits for an event */
	bool wait_sipi;  /* after INIT */
	bool nmi_pending, nmi_blocked;
	u16 intr_again; /* 1 + vector of an acknowledged interrupt whose delivery raised an exception; 0: none */
	u64 flush_gen;  /* p2m.gen when its translations were last forgotten; 0: never yet */
	u64 xcr0, tsc_aux, dr[4]; /* while not loaded */
	u64 tsc_deadline;         /* as the guest wrote it; the local APIC has it in terms of the vm's clock */
	struct vm_exit exit;      /* the last one: for dispatch and reports */
	u64 exits[EXIT_KINDS];
	u64 mtrr[MTRRS];       /* MSRs that only store, see msr.c */
	struct code_page code; /* the last page of kernel code that was fetched from: a hint, see exit.c */
	void *arch;            /* the backend's: VMCB, VMCS */
	bool stuck;            /* halted with interrupts off; read by other pCPUs */
	bool dead;             /* has left the run loop for good; atomic */
};

/* How a machine's run ended. */
enum end_reason { END_POWEROFF, END_RESET, END_CRASH, END_KILLED };

/* A guest's machine. Built by guest/, run by hvm. */
struct vm {
	const char *name;
	unsigned id;
	struct p2m p2m;
	struct platform platform;
	struct guest_clock clock;
	struct vcpu **vcpu;
	unsigned vcpus;
	u32 ending;       /* atomic: 0; 1 once somebody called vm_end; 2 when that call touches the vm no more */
	u32 live;         /* vCPUs that have not left the loop for good; atomic; set by whoever starts the vm */
	u32 unknown_msrs; /* accesses that got #GP for lack of knowledge; atomic */
	u64 printed;      /* ns: up to when the guest has used its share of the console, see hypercall.c; atomic */
	u8 end_reason;
	char end_detail[128];
	/* Called once, on some pCPU, after the last vCPU has stopped. Must not free the vm itself synchronously if it
	 * runs on it. */
	void (*ended)(struct vm *vm);
};

/* The vendor seam. All act on the current pCPU; get/set on a vcpu whose state is in memory or loaded here. */
struct hvm_ops {
	const char *paging; /* "npt" */
	const struct pt_format *format;
	int (*cpu_on)(void); /* per pCPU; 0, or -ENODEV with the reason logged (firmware lock, ...) */
	int (*vcpu_init)(struct vcpu *v);
	void (*vcpu_free)(struct vcpu *v);
	void (*vcpu_leave)(struct vcpu *v); /* NULL or: runs no more; on its pCPU */
	/* Enters the guest with v->event injected; fills v->exit. v->event is then what the exit interrupted, if
	 * anything. Called and returns with interrupts on. */
	void (*run)(struct vcpu *v);
	u64 (*get)(struct vcpu *v, enum vreg r);
	void (*set)(struct vcpu *v, enum vreg r, u64 val);
	struct segment (*get_seg)(struct vcpu *v, enum seg s);
	void (*set_seg)(struct vcpu *v, enum seg s, struct segment val);
	/* Whether to exit as soon as the guest can take an interrupt, an NMI. Called before each entry. */
	void (*window)(struct vcpu *v, bool intr, bool nmi);
	void (*flush)(struct vcpu *v); /* forget its translations before the next entry */
	void (*report)(struct vm *vm); /* NULL or: report lines at the vm's end */
};

extern const struct hvm_ops svm_ops, vmx_ops;
extern const struct hvm_ops *hvm; /* the one that was chosen at boot, or NULL */

/* Probes, chooses the backend and turns it on for the boot processor. 0, or -ENODEV with a line that says why and what
 * to do. */
int hvm_init(void);
int hvm_cpu_on(void); /* the other pCPUs */

/*
 * vCPU life. The vm's p2m and clock must be there; the local APIC is left to platform_init. 0 or -ENOMEM. The vCPU
 * starts blocked, in its reset state, all but the first waiting for a SIPI.
 */
int vcpu_create(struct vm *vm, unsigned index, unsigned pcpu, u32 weight, struct vcpu **out);
/* v may be NULL. It must have left the loop or never have started, and nothing may wake it any more (platform_free). */
void vcpu_destroy(struct vcpu *v);
/*
 * For backends: makes v the vCPU whose FPU, XCR0, DR0-3 and TSC_AUX are in this pCPU's registers. The hypervisor uses
 * none of them, so they move only when another vCPU runs.
 */
void vcpu_load(struct pcpu *p, struct vcpu *v);
/* Architectural state after INIT or power-up, without the local APIC, FPU and MTRRs (AMD APM vol. 2, 14.1.3). */
void vcpu_reset(struct vcpu *v);

/* The run loop of a pCPU. Never returns. */
void hvm_loop(void) __attribute__((noreturn));
/* One entry-and-exit round; returns whether the vCPU may go on at once. Otherwise it waits, or vm->ending is set. */
bool vcpu_run_once(struct vcpu *v);
/* Takes what has arrived and makes one of it the next entry's event. Returns false if the vCPU has to wait. */
bool vcpu_deliver(struct vcpu *v);

/*
 * Something happened to the vCPU (an interrupt was posted): wakes it if it waits, makes it look if it runs. Any pCPU,
 * also under platform.lock.
 */
void vcpu_kick(struct vcpu *v);
/* The vCPU's hardware takes what is posted, if it still is in the guest. Any pCPU, also under platform.lock. */
void vcpu_notify(struct vcpu *v);
/*
 * Housekeeping (console input, guests that ended): called by hvm_loop on the boot pCPU each time it looks at its
 * queues, so after each kick. May be NULL.
 */
extern void (*hvm_poll)(void);
/*
 * A bounded step of background work, on any pCPU; idle: nothing else is to do there. Returns when it wants to be called
 * again, ns; TIMER_NEVER: when something may have changed. May be NULL.
 */
extern u64 (*hvm_work)(bool idle);

/* Ends the machine: idempotent, any pCPU; vCPUs stop at their next exit (they are kicked). */
void vm_end(struct vm *vm, enum end_reason why, const char *fmt, ...) PRINTF(3, 4);
/* The same as a crash of this vCPU's making: dumps it first. Returns OUT_STOP. */
enum outcome vcpu_crash(struct vcpu *v, const char *fmt, ...) PRINTF(2, 3);
/* Queues an exception for the guest; a second one while one is pending becomes #DF or a triple fault as hardware does.
 */
void vcpu_exception(struct vcpu *v, u8 vector, bool has_error, u32 error);
/* Everything that helps to find out why a guest stopped: registers, segments, exit, code bytes.
 */
void vcpu_dump(struct vcpu *v);
/* Report line "@exits guest=... total=... cpuid=...". */
void vm_report_exits(struct vm *vm);
