/* SPDX-License-Identifier: MIT */
/*
 * The SVM backend (AMD APM vol. 2, chapter 15). It translates between struct vcpu and the VMCB, and holds no policy.
 *
 * Interrupts: a guest runs with V_INTR_MASKING, and the hypervisor enters with IF = 1 and GIF = 0. So a physical
 * interrupt ends the guest whatever the guest's IF is, stays pending until STGI, and is then taken through our IDT.
 *
 * Translations: each pCPU hands out ASIDs in order. To forget a vCPU's translations is to give it the next one; when
 * they run out, the whole TLB is flushed and a new generation begins.
 *
 * CR0, CR3, CR4 and DR accesses are not intercepted: nested paging keeps them harmless, and state of features that
 * CPUID hides is not reachable or not worth an exit. EFER is: the hardware needs SVME there.
 */
#include "arch/x86/hvm/svm.h"

#include "arch/x86/cpu/features.h"
#include "arch/x86/cpu/pcpu.h"
#include "arch/x86/hvm/exit.h"
#include "lib/errno.h"
#include "lib/port.h"
#include "lib/print.h"
#include "lib/string.h"
#include "mm/heap.h"
#include "sched/kick.h"

#define IOPM_SIZE  (3 * PAGE_SIZE)
#define MSRPM_SIZE (2 * PAGE_SIZE)

/* What each exit is to the dispatcher. From 0x60, what has a kind is intercepted. */
static const u8 kinds[SVM_CODES] = {
	[SVM_INTR] = EXIT_INTERRUPT,    [SVM_NMI] = EXIT_INTERRUPT,     [SVM_INIT] = EXIT_INTERRUPT,
	[SVM_VINTR] = EXIT_WINDOW,      [SVM_IRET] = EXIT_WINDOW,       [SVM_RDPMC] = EXIT_RDPMC,
	[SVM_CPUID] = EXIT_CPUID,       [SVM_INVD] = EXIT_INVD,         [SVM_HLT] = EXIT_HLT,
	[SVM_IOIO] = EXIT_IO,           [SVM_MSR] = EXIT_MSR_READ,      [SVM_SHUTDOWN] = EXIT_TRIPLE,
	[SVM_VMMCALL] = EXIT_HYPERCALL, [SVM_XSETBV] = EXIT_XSETBV,     [SVM_RSM] = EXIT_VENDOR_OP,
	[SVM_INVLPGA] = EXIT_VENDOR_OP, [SVM_VMRUN] = EXIT_VENDOR_OP,   [SVM_VMLOAD] = EXIT_VENDOR_OP,
	[SVM_VMSAVE] = EXIT_VENDOR_OP,  [SVM_STGI] = EXIT_VENDOR_OP,    [SVM_CLGI] = EXIT_VENDOR_OP,
	[SVM_SKINIT] = EXIT_VENDOR_OP,  [SVM_MONITOR] = EXIT_VENDOR_OP, [SVM_MWAIT] = EXIT_VENDOR_OP,
	[SVM_RDPRU] = EXIT_VENDOR_OP,
};

struct svm {
	struct vmcb vmcb;
	u64 asid_gen; /* of its pCPU when its ASID was given; 0: needs a new one */
	u64 iret_rip;
	bool iret_seen; /* an NMI handler is at its IRET, iret_rip: NMIs are open once that has been left */
};

/* Each is its pCPU's own. */
static struct svm_cpu {
	struct vmcb *host; /* and behind it the state save area */
	u64 asid_gen;
	u32 asid;
} cpus[MAX_PCPUS];

/* All guests' alike; written once at boot. Of intercepts, VINTR and IRET are set only when wanted. */
static u8 *iopm, *msrpm;
static u32 intercepts[2];

static struct svm *svm_of(const struct vcpu *v) { return v->arch; }
static struct vmcb *vmcb_of(const struct vcpu *v) { return v->arch; }
static void clgi(void) { __asm__ volatile("clgi" ::: "memory"); }
static void stgi(void) { __asm__ volatile("stgi" ::: "memory"); }

/* --- Turning it on. */

/* Opens an MSR for READS, WRITES or both. Of its two bits in the map a set one exits. */
enum { READS = 1, WRITES = 2 };
static void msrpm_open(u32 msr, unsigned access)
{
	u32 block = msr >= 0xc0010000 ? 2 : msr >= 0xc0000000 ? 1 : 0;
	u32 bit = (block * 0x2000 + (msr & 0x1fff)) * 2;

	msrpm[bit / 8] &= (u8) ~(access << bit % 8);
}

static int maps_init(void)
{
	static const u32 open[] = {MSR_STAR,    MSR_LSTAR,   MSR_CSTAR,          MSR_SFMASK,
				   MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE, 0x174 /* SYSENTER */,
				   0x175,       0x176};

	iopm = heap_alloc(IOPM_SIZE);
	msrpm = heap_alloc(MSRPM_SIZE);
	if (!iopm || !msrpm)
		return -ENOMEM;
	for (unsigned code = SVM_INTR; code < SVM_CODES; code++)
		if (kinds[code] && code != SVM_VINTR && code != SVM_IRET)
			intercepts[(code - SVM_INTR) / 32] |= 1u << code % 32;
	memset(iopm, 0xff, IOPM_SIZE);
	memset(msrpm, 0xff, MSRPM_SIZE);
	for (unsigned i = 0; i < ARRAY_SIZE(open); i++)
		msrpm_open(open[i], READS | WRITES);
	if (cpu_has(FEAT_RDTSCP))
		msrpm_open(MSR_TSC_AUX, READS | WRITES);
	msrpm_open(MSR_TSC, READS);
	return 0;
}

static int svm_cpu_on(void)
{
	struct svm_cpu *c = &cpus[port_cpu()];
	u64 vm_cr = rdmsr(MSR_VM_CR);

	if ((vm_cr & VM_CR_SVMDIS) && !(vm_cr & VM_CR_LOCK))
		wrmsr(MSR_VM_CR, vm_cr & ~VM_CR_SVMDIS);
	if (rdmsr(MSR_VM_CR) & VM_CR_SVMDIS) {
		log("hvm: SVM is switched off by the firmware: enable SVM (AMD-V) in the firmware's set-up\n");
		return -ENODEV;
	}
	if (!msrpm && maps_init() < 0)
		return -ENOMEM;
	c->host = heap_alloc(2 * PAGE_SIZE);
	if (!c->host)
		return -ENOMEM;
	c->asid_gen = 1;
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
	wrmsr(MSR_VM_HSAVE_PA, port_phys(c->host) + PAGE_SIZE);
	__asm__ volatile("vmsave %0" ::"a"(port_phys(c->host)) : "memory");
	return 0;
}

static int svm_vcpu_init(struct vcpu *v)
{
	struct vmcb *b = heap_alloc(sizeof(struct svm));

	if (!b)
		return -ENOMEM;
	v->arch = b;
	b->intercept1 = intercepts[0];
	b->intercept2 = intercepts[1];
	b->intercept_exceptions = BIT(VEC_DB) | BIT(VEC_AC) | BIT(VEC_MC);
	b->iopm = port_phys(iopm);
	b->msrpm = port_phys(msrpm);
	b->np_enable = 1;
	b->n_cr3 = mfn_to_hpa(v->vm->p2m.pt.root);
	b->efer = EFER_SVME;
	return 0;
}

static void svm_vcpu_free(struct vcpu *v) { heap_free(v->arch, sizeof(struct svm)); }

/* --- Guest state. */

/* In the order of enum vreg. */
#define AT(field) offsetof(struct vmcb, field)
static const u16 places[VREGS] = {AT(cr0), AT(cr2), AT(cr3), AT(cr4),        AT(efer),
				  AT(dr6), AT(dr7), AT(pat), AT(int_shadow), AT(tsc_offset)};

static u64 *field(struct vcpu *v, enum vreg r) { return (u64 *)((char *)v->arch + places[r]); }

static u64 svm_get(struct vcpu *v, enum vreg r)
{
	if (r == REG_TSC)
		return rdtsc() + vmcb_of(v)->tsc_offset;
	if (r == REG_INT_SHADOW)
		return vmcb_of(v)->int_shadow & SHADOW;
	return *field(v, r) & ~(u64)(r == REG_EFER ? EFER_SVME : 0);
}

static void svm_set(struct vcpu *v, enum vreg r, u64 val) { *field(v, r) = val | (r == REG_EFER ? EFER_SVME : 0); }

static struct vmcb_seg *segment(struct vcpu *v, enum seg s)
{
	static const u8 at[SEGS_ALL] = {0, 1, 2, 3, 4, 5, VMCB_LDTR, VMCB_TR, VMCB_GDTR, VMCB_IDTR};

	return &vmcb_of(v)->seg[at[s]];
}

/* The CPL has a field of its own; for everyone else it is the DPL of SS. */
static struct segment svm_get_seg(struct vcpu *v, enum seg s)
{
	struct vmcb_seg *in = segment(v, s);
	u16 attr = s == SEG_SS ? (u16)((in->attr & ~0x60) | vmcb_of(v)->cpl << 5) : in->attr;

	return (struct segment){in->base, in->limit, in->sel, attr};
}

static void svm_set_seg(struct vcpu *v, enum seg s, struct segment val)
{
	*segment(v, s) = (struct vmcb_seg){val.sel, val.attr, val.limit, val.base};
	if (s == SEG_SS)
		vmcb_of(v)->cpl = SEG_ATTR_DPL(val.attr);
}

static void svm_flush(struct vcpu *v) { svm_of(v)->asid_gen = 0; }

/*
 * A virtual interrupt that is intercepted is the window: it is pending, above any priority, and exits when it could be
 * taken. An NMI handler's end is seen by intercepting IRET, and the window is then the first moment with IF set, which
 * an interrupted context mostly has.
 */
static void svm_window(struct vcpu *v, bool intr, bool nmi)
{
	struct svm *s = svm_of(v);
	struct vmcb *b = &s->vmcb;

	if (nmi && v->nmi_blocked)
		nmi = s->iret_seen && !(v->regs.rflags & RFLAGS_IF);
	b->vintr = VINTR_MASKING;
	b->intercept1 = intercepts[0];
	if (intr || nmi) {
		b->vintr |= VINTR_IRQ | VINTR_PRIO | VINTR_IGNORE_TPR;
		b->intercept1 |= (u32)BIT(SVM_VINTR % 32);
	}
	if (v->nmi_blocked && !s->iret_seen)
		b->intercept1 |= (u32)BIT(SVM_IRET % 32);
}

/* --- Entry and exit. */

/*
 * With GIF clear: a flush that begins later finds this pCPU in p2m.pcpus and ends the guest by its interrupt before it
 * is waited for.
 */
static void choose_asid(struct vcpu *v, struct svm_cpu *c)
{
	struct svm *s = svm_of(v);
	struct vmcb *b = &s->vmcb;
	u64 gen = atomic_load(&v->vm->p2m.gen);

	b->tlb_control = 0;
	if (s->asid_gen == c->asid_gen && v->flush_gen == gen)
		return;
	v->flush_gen = gen;
	if (++c->asid >= cpu_features.svm_asids) {
		c->asid = 1;
		c->asid_gen++;
		b->tlb_control = TLB_FLUSH_ALL;
	}
	b->asid = c->asid;
	s->asid_gen = c->asid_gen;
}

/*
 * CR8 writes exit only while an interrupt may wait for a lower priority; while V_IRQ is pending, because some
 * implementations cannot take them.
 */
static void before_entry(struct vcpu *v)
{
	struct vmcb *b = vmcb_of(v);
	b->rax = v->regs.r[R_AX];
	b->rsp = v->regs.r[R_SP];
	b->rip = v->regs.rip;
	b->rflags = v->regs.rflags;
	b->vintr |= lapic_get_cr8(&v->lapic);
	b->intercept_cr = v->lapic.rvi || (b->vintr & VINTR_IRQ) ? (u32)CR8_WRITE : 0;
	b->event_inject = v->event;
}

static u8 kind_of(u64 code)
{
	if (code == SVM_NPF)
		return EXIT_NPF;
	if ((u32)code == SVM_EXIT_INVALID)
		return EXIT_ERROR;
	if (code < SVM_CR_END)
		return EXIT_CR;
	if (code >= SVM_EXCEPTION && code < SVM_EXCEPTION_END)
		return EXIT_EXCEPTION;
	return code < SVM_CODES ? kinds[code] : EXIT_OTHER;
}

static void fill_npf(const struct vmcb *b, struct vm_exit *x)
{
	x->gpa = b->exit_info2;
	x->walk = b->exit_info1 & NPF_WALK;
	x->access = b->exit_info1 & NPF_FETCH ? P2M_EXEC : b->exit_info1 & NPF_WRITE ? P2M_WRITE : P2M_READ;
	if (cpu_has(FEAT_DECODE_ASSISTS)) {
		x->nbytes = MIN(b->insn_bytes_n, (u8)INSN_MAX);
		memcpy(x->bytes, b->insn_bytes, INSN_MAX);
	}
}

static void fill_io(const struct vmcb *b, struct vm_exit *x)
{
	u64 info = b->exit_info1;

	x->io.port = (u16)(info >> 16);
	x->io.size = (u8)IO_SIZE(info);
	x->io.in = info & IO_IN;
	x->io.string = info & IO_STRING;
	x->insn_len = (u8)(b->exit_info2 - b->rip);
}

static void fill_exit(const struct vmcb *b, struct vm_exit *x)
{
	x->kind = kind_of(b->exit_code);
	x->code = b->exit_code;
	x->info1 = b->exit_info1;
	x->info2 = b->exit_info2;
	x->insn_len = 0;
	if (cpu_has(FEAT_NRIP_SAVE) && b->next_rip - b->rip <= INSN_MAX)
		x->insn_len = (u8)(b->next_rip - b->rip);
	x->nbytes = 0;
	x->mode = mode_of(b->cr0, b->rflags, b->efer, b->seg[SEG_CS].attr);
	x->cpl = b->cpl;
	if (x->kind == EXIT_NPF) {
		fill_npf(b, x);
	} else if (x->kind == EXIT_IO) {
		fill_io(b, x);
	} else if (x->kind == EXIT_MSR_READ && b->exit_info1) {
		x->kind = EXIT_MSR_WRITE;
	} else if (x->kind == EXIT_EXCEPTION) {
		x->vector = (u8)(b->exit_code - SVM_EXCEPTION);
		x->has_error = x->vector == VEC_AC || x->vector == VEC_PF;
		x->error = (u32)b->exit_info1;
		x->gva = b->exit_info2;
	}
}

static void after_exit(struct vcpu *v)
{
	struct svm *s = svm_of(v);
	struct vmcb *b = &s->vmcb;
	struct vm_event *e = &v->event;

	v->regs.r[R_AX] = b->rax;
	v->regs.r[R_SP] = b->rsp;
	v->regs.rip = b->rip;
	v->regs.rflags = b->rflags;
	if ((b->vintr & VINTR_TPR) != lapic_get_cr8(&v->lapic))
		lapic_set_cr8(&v->lapic, b->vintr & VINTR_TPR);
	/* What the exit interrupted is injected again; but INT n, INT3, INTO are run again, for rip is still there. */
	*e = b->exit_int_info;
	if (e->type == EVENT_SOFT || (e->type == EVENT_EXCEPTION && (e->vector == 3 || e->vector == 4)))
		e->valid = false;
	fill_exit(b, &v->exit);
	if (b->exit_code == SVM_IRET) {
		s->iret_seen = true;
		s->iret_rip = b->rip;
	} else if (s->iret_seen && b->rip != s->iret_rip) {
		s->iret_seen = v->nmi_blocked = false;
	}
}

static void svm_run(struct vcpu *v)
{
	struct pcpu *p = this_pcpu();
	struct svm_cpu *c = &cpus[p->id];

	if (p->loaded != v)
		vcpu_load(p, v);
	before_entry(v);
	clgi();
	if (atomic_load_relaxed(&p->kicked)) {
		stgi();
		v->exit.kind = EXIT_INTERRUPT;
		return;
	}
	choose_asid(v, c);
	svm_enter(port_phys(v->arch), &v->regs, port_phys(c->host));
	stgi();
	after_exit(v);
}

const struct hvm_ops svm_ops = {
	.paging = "npt",
	.format = &pt_format_long,
	.cpu_on = svm_cpu_on,
	.vcpu_init = svm_vcpu_init,
	.vcpu_free = svm_vcpu_free,
	.run = svm_run,
	.get = svm_get,
	.set = svm_set,
	.get_seg = svm_get_seg,
	.set_seg = svm_set_seg,
	.window = svm_window,
	.flush = svm_flush,
};
