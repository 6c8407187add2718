/* SPDX-License-Identifier: MIT */
/*
 * The VMX backend (Intel SDM vol. 3, chapters 24 to 29). It translates between struct vcpu and the VMCS, and holds no
 * policy.
 *
 *     get, set ---> struct vmx: f[], a copy of each field --- dirty: VMWRITE before the entry --->  VMCS
 *                                                         <-- not valid: VMREAD when wanted ------
 *
 * So a field costs what its use costs: nothing is read that nobody asks for, nothing is written that has not changed.
 * It also means that a vCPU can be set up on any pCPU: the VMCS is touched by the one that runs it, alone.
 *
 * Interrupts: an external one ends the guest whatever the guest's IF is, and is acknowledged by that and handled at
 * once, or where the CPU cannot, taken through our IDT once interrupts are on again. The preemption timer bounds a stay
 * in the guest where that fails.
 *
 * Registers: CR2, DR6, and the MSRs of SYSCALL are not in the VMCS. We do not use them, so they stay loaded with the
 * vCPU's values until another vCPU comes.
 *
 * Without "unrestricted guest" the hardware runs no real mode and nothing without paging. Real mode is EXIT_SOFT, and
 * so is what the checks at entry would refuse. Unpaged protected mode runs on an identity map in a page of guest memory
 * that no RAM is at, behind the guest's back: CR0, CR3 and CR4 are then ours, and what the guest sees are shadows.
 */
#include "arch/x86/cpu/pcpu.h"
#include "arch/x86/cpu/traps.h"
#include "arch/x86/hvm/vmx_impl.h"
#include "lib/bits.h"
#include "lib/port.h"
#include "lib/print.h"

static void vmx_flush(struct vcpu *v) { vmx_of(v)->stale = true; }

/* An STI shadow need not close the NMI window (SDM vol. 3, 26.2), but it closes that for interrupts: IF is set there.
 */
static void vmx_window(struct vcpu *v, bool intr, bool nmi)
{
	struct vmx *s = vmx_of(v);
	bool sti = nmi && (get(s, F_SHADOW) & BLOCK_STI);

	put_bits(s, F_PROC, PROC_INTR_WINDOW, intr || sti);
	put_bits(s, F_PROC, PROC_NMI_WINDOW, nmi && !sti);
}

static void vmx_vcpu_leave(struct vcpu *v) { vmx_clear(vmx_of(v)); }

/* --- Entry. */

/*
 * With interrupts off: a flush that begins later finds this pCPU in p2m.pcpus and ends the guest by its interrupt
 * before it is waited for.
 */
static void flush_translations(struct vcpu *v)
{
	struct vmx *s = vmx_of(v);
	u64 gen = atomic_load(&v->vm->p2m.gen);

	if (v->flush_gen != gen) {
		v->flush_gen = gen;
		invept(s->f[F_EPTP], vmx_caps.ept_single);
	} else if (s->stale && (vmx_caps.proc2 & PROC2_VPID)) { /* without VPIDs each entry flushes */
		invvpid(s->f[F_VPID], vmx_caps.vpid_single);
	}
	s->fresh = s->stale = false;
}

/*
 * The local APIC where the hardware has it: software's changes to what is pending and in service, and whose EOI has to
 * be told. While the guest has its local APIC elsewhere, or uses MSRs, the page is nothing but a page.
 */
static void put_apic(struct vcpu *v)
{
	struct vmx *s = vmx_of(v);
	struct lapic *l = &v->lapic;
	bool at_home = lapic_page(l) == LAPIC_DEFAULT_BASE;

	if (at_home != !!(s->f[F_PROC2] & PROC2_APIC_ACCESS)) {
		put_bits(s, F_PROC2, PROC2_APIC_ACCESS | PROC2_APIC_REGS, at_home);
		v->flush_gen = 0; /* what the CPU remembers of the page is something else now */
	}
	if (!l->moved)
		return;
	l->moved = false;
	s->f[F_INTR_STATUS] = l->svi << 8 | l->rvi;
	bitmap_set(s->dirty, F_INTR_STATUS); /* whatever it was: the hardware changes it */
	for (unsigned i = 0; i < 4; i++)
		put(s, F_EOI_EXIT0 + i, lapic_level(l, i));
}

static void put_event(struct vcpu *v)
{
	struct vmx *s = vmx_of(v);
	struct vm_event e = v->event;
	bool blocked = v->nmi_blocked && !(e.valid && e.type == EVENT_NMI);

	if (e.valid) {
		put(s, F_EVENT, e.vector | (u64)e.type << 8 | (u64)e.has_error << 11 | EVENT_VALID);
		put(s, F_EVENT_ERROR, e.has_error ? e.error : 0);
	} else {
		put(s, F_EVENT, s->f[F_EVENT] & ~EVENT_VALID);
	}
	if (blocked != s->nmi_blocked)
		put_bits(s, F_SHADOW, BLOCK_NMI, blocked);
	s->nmi_blocked = blocked;
}

/*
 * TPR: the guest's CR8 is in the local APIC's page. Where the hardware does not deliver, it exits when that falls below
 * the threshold, the class of the interrupt that waits for it.
 */
static void before_entry(struct vcpu *v)
{
	struct vmx *s = vmx_of(v);
	struct lapic *l = &v->lapic;
	u64 class = l->rvi >> 4;

	put(s, F_RSP, v->regs.r[R_SP]);
	put(s, F_RIP, v->regs.rip);
	put(s, F_RFLAGS, v->regs.rflags);
	if (l->delivers)
		put_apic(v);
	else
		put(s, F_TPR_THRESHOLD, class <= lapic_get_cr8(l) ? class : 0);
	put_event(v);
	for (unsigned i = 0; i < s->listed; i++)
		s->guest_list[i].value = s->f[s->guest_list[i].msr == MSR_EFER ? F_EFER : F_PAT];
}

static void read_all(struct vmx *s)
{
	for (unsigned i = 0; i < F_VOLATILE; i++)
		get(s, i);
}

/*
 * Whether the hardware can run the state that software has made, or the emulator must. In long mode that is no
 * question: such a state comes about by no right way.
 */
static bool enterable(struct vcpu *v)
{
	struct vmx *s = vmx_of(v);

	if (vmx_any_mode() || !s->check || (s->efer & EFER_LMA))
		return true;
	if (!(s->f[F_CR0_SHADOW] & CR0_PE))
		return false;
	read_all(s);
	s->check = !vmx_check(&vmx_caps, s->f, s->why, sizeof(s->why));
	return !s->check;
}

static void entry_failed(struct vmx *s, u64 reason)
{
	if ((u16)reason == REASON_MACHINE_CHECK)
		hvm_host.machine_check();
	read_all(s);
	if (vmx_check(&vmx_caps, s->f, s->why, sizeof(s->why)))
		format(s->why, sizeof(s->why), "%s, qualification %lu", vmx_failure_text(reason), vmx_peek(s, RO_INFO));
}

/* --- Exit. */

static bool is_nmi(u64 info) { return (info >> 8 & 7) == EVENT_NMI; }

static void exception_exit(struct vcpu *v, struct vm_exit *x)
{
	struct vmx *s = vmx_of(v);
	u64 info = vmx_peek(s, RO_EVENT);

	if (is_nmi(info)) {
		x->kind = EXIT_INTERRUPT;
		return;
	}
	x->vector = (u8)info;
	x->has_error = (info & BIT(11)) && (s->f[F_CR0_SHADOW] & CR0_PE);
	x->error = x->has_error ? (u32)vmx_peek(s, RO_EVENT_ERROR) : 0;
	if (x->vector != VEC_DB)
		return;
	if ((info >> 8 & 7) == EVENT_INT1) { /* it is over, and DR6 says nothing of it */
		v->regs.rip += vmx_peek(s, RO_LENGTH);
		vmx_set(v, REG_INT_SHADOW, false);
		return;
	}

	/* The CPU has told what happened, but not the guest's registers. */
	u64 dr6 = vmx_peek(s, RO_INFO);

	write_dr6((read_dr6() & ~BITS(3, 0)) | (dr6 & (BITS(14, 13) | BITS(3, 0))));
	if ((get(s, F_SHADOW) & (BLOCK_STI | BLOCK_SS)) && (v->regs.rflags & RFLAGS_TF))
		put(s, F_PENDING, PENDING_BS);
}

static void npf_exit(struct vmx *s, struct vm_exit *x)
{
	u64 info = x->info1;

	x->gpa = vmx_peek(s, RO_GPA);
	x->gva = info & BIT(7) ? vmx_peek(s, RO_GVA) : 0;
	x->walk = (info & BIT(7)) && !(info & BIT(8));
	x->access = info & BIT(2) ? P2M_EXEC : info & BIT(1) ? P2M_WRITE : P2M_READ;
}

/* An access to the local APIC's page that the hardware leaves to us (SDM vol. 3, table 28-6). */
enum { APIC_WRITE = 1, APIC_FETCH = 2, APIC_PHYSICAL = 15 };
static void apic_exit(struct vm_exit *x)
{
	u64 type = x->info1 >> 12 & 15;

	x->gpa = LAPIC_DEFAULT_BASE | (x->info1 & BITS(11, 0));
	x->gva = 0;
	x->walk = type == APIC_PHYSICAL;
	x->access = type == APIC_FETCH ? P2M_EXEC : type == APIC_WRITE ? P2M_WRITE : P2M_READ;
}

static void io_exit(struct vm_exit *x)
{
	x->io.port = (u16)(x->info1 >> 16);
	x->io.size = (u8)((x->info1 & 7) + 1);
	x->io.in = x->info1 & BIT(3);
	x->io.string = x->info1 & BIT(4);
}

/*
 * What exits are to the dispatcher, and what of the VMCS it needs for that: the instruction's length, the exit's
 * qualification, the mode and privilege for sure, the event that was being delivered.
 */
enum { LENGTH = 0x20, INFO = 0x40, EXACT = 0x80, EVENT = 0x100 };
static const u16 reasons[] = {
	[0] = EXIT_EXCEPTION | EVENT, /* or an NMI */
	[1] = EXIT_INTERRUPT,
	[2] = EXIT_TRIPLE,
	[3] = EXIT_INTERRUPT,            /* INIT */
	[7] = EXIT_WINDOW,               /* for an interrupt */
	[8] = EXIT_WINDOW,               /* for an NMI */
	[9] = EXIT_OTHER | INFO | EVENT, /* task switch */
	[10] = EXIT_CPUID | LENGTH,
	[11] = EXIT_VENDOR_OP, /* GETSEC */
	[12] = EXIT_HLT | LENGTH,
	[13] = EXIT_INVD | LENGTH,
	[15] = EXIT_RDPMC,
	[18] = EXIT_HYPERCALL | LENGTH | EXACT,
	[19 ... 27] = EXIT_VENDOR_OP, /* VMCLEAR to VMXON */
	[28] = EXIT_CR | INFO | EXACT,
	[30] = EXIT_IO | LENGTH | INFO,
	[31] = EXIT_MSR_READ | LENGTH,
	[32] = EXIT_MSR_WRITE | LENGTH,
	[36] = EXIT_VENDOR_OP,                  /* MWAIT */
	[39] = EXIT_VENDOR_OP,                  /* MONITOR */
	[43] = EXIT_WINDOW,                     /* TPR below the threshold */
	[44] = EXIT_NPF | INFO | EXACT | EVENT, /* APIC access */
	[45] = EXIT_EOI | INFO,
	[48] = EXIT_NPF | INFO | EXACT | EVENT,
	[49] = EXIT_ERROR | INFO | EVENT, /* EPT misconfiguration */
	[50] = EXIT_VENDOR_OP,            /* INVEPT */
	[52] = EXIT_INTERRUPT,            /* preemption timer */
	[53] = EXIT_VENDOR_OP,            /* INVVPID */
	[54] = EXIT_INVD | LENGTH,        /* WBINVD */
	[55] = EXIT_XSETBV | LENGTH | EXACT,
	[56] = EXIT_APIC | INFO,
};
enum { REASON_INTERRUPT = 1, REASON_TASK = 9, REASON_APIC_ACCESS = 44, REASON_EPT = 48, REASON_MISCONFIG = 49 };

/*
 * Code above 4 GB is 64-bit code. And where an instruction is only counted as done, the mode matters only where rip may
 * wrap: not between 64 KB and the last of 4 GB.
 */
static u8 mode_now(struct vcpu *v, bool exact)
{
	struct vmx *s = vmx_of(v);
	u64 ar, high = v->regs.rip >> (exact ? 32 : 16);

	if (high && high != 0xffff && (s->efer & EFER_LMA))
		return MODE_64;
	ar = get(s, F_AR + SEG_CS);
	return (u8)mode_of(s->f[F_CR0_SHADOW], v->regs.rflags, s->efer, (u16)(ar >> 4 & 0xf00));
}

/* SDM vol. 3, 25.4.1: in every mode. */
static u8 cpl_now(struct vcpu *v) { return SEG_ATTR_DPL(get(vmx_of(v), F_AR + SEG_SS)); }

/*
 * What the exit interrupted is injected again; but INT n, INT3, INTO are run again, for rip is still there. An IRET
 * that faulted has opened NMIs already.
 */
static void take_event(struct vcpu *v, u64 info)
{
	struct vmx *s = vmx_of(v);
	u64 e = vmx_peek(s, RO_VECTORING);
	unsigned type = e >> 8 & 7;

	if (!(e & EVENT_VALID)) {
		if (info & EVENT_NMI_UNBLOCKED)
			put_bits(s, F_SHADOW, BLOCK_NMI, true);
		return;
	}
	if (type >= EVENT_SOFT)
		return;
	v->event = (struct vm_event){.vector = e & 0xff, .type = type, .valid = true};
	v->event.has_error = (e & BIT(11)) && (s->f[F_CR0_SHADOW] & CR0_PE);
	if (v->event.has_error)
		v->event.error = (u32)vmx_peek(s, RO_VECTORING_ERROR);
}

static void fill_exit(struct vcpu *v, u64 reason)
{
	struct vmx *s = vmx_of(v);
	struct vm_exit *x = &v->exit;
	unsigned what = reason < ARRAY_SIZE(reasons) ? reasons[reason] : EXIT_OTHER;

	x->kind = what & (LENGTH - 1);
	x->code = reason;
	x->info1 = what & INFO ? vmx_peek(s, RO_INFO) : 0;
	x->insn_len = what & LENGTH ? (u8)vmx_peek(s, RO_LENGTH) : 0;
	x->nbytes = 0;
	if (x->kind == EXIT_IO)
		io_exit(x);
	if (x->kind == EXIT_IO && x->io.string)
		what |= EXACT;
	x->mode = mode_now(v, what & EXACT);
	if (what & EXACT)
		x->cpl = cpl_now(v);
	if (what & EVENT)
		take_event(v, reason == REASON_EPT ? x->info1 : 0);
	if (reason == REASON_APIC_ACCESS)
		apic_exit(x);
	else if (x->kind == EXIT_NPF)
		npf_exit(s, x);
	else if (x->kind == EXIT_EXCEPTION)
		exception_exit(v, x);
	else if (reason == REASON_MISCONFIG)
		format(s->why, sizeof(s->why), "EPT misconfiguration at %lx, a bug of Cleave's", vmx_peek(s, RO_GPA));
	x->why = x->kind == EXIT_ERROR ? s->why : reason == REASON_TASK ? "a task switch by hardware" : NULL;
}

/* After an exit: what the guest may have changed. */
static void forget(struct vmx *s)
{
	_Static_assert(F_VOLATILE < 64, "all in the first word");
	s->valid[0] &= ~BITS(F_VOLATILE - 1, 0);
}

static void after_exit(struct vcpu *v, u64 reason)
{
	struct vmx *s = vmx_of(v);

	forget(s);
	s->launched = true;
	s->f[F_EVENT] &= ~EVENT_VALID;
	v->event.valid = false;
	v->regs.r[R_SP] = get(s, F_RSP);
	v->regs.rip = get(s, F_RIP);
	v->regs.rflags = get(s, F_RFLAGS);
	fill_exit(v, reason);
	if (v->nmi_blocked) {
		s->nmi_blocked = get(s, F_SHADOW) & BLOCK_NMI;
		v->nmi_blocked = s->nmi_blocked || (v->event.valid && v->event.type == EVENT_NMI);
	}
}

static void no_entry(struct vcpu *v, u8 kind, u64 code)
{
	struct vm_exit *x = &v->exit;

	*x = (struct vm_exit){.kind = kind, .code = code, .why = vmx_of(v)->why};
	x->mode = mode_now(v, true);
	x->cpl = cpl_now(v);
}

/* With interrupts off. Returns the exit's reason; the entry has failed if that has REASON_FAILED_ENTRY. */
static u64 enter(struct vcpu *v)
{
	struct vmx *s = vmx_of(v);

	if (vmx_enter(&v->regs, &s->frame[1], s->launched)) {
		u64 error = vmx_peek(s, RO_ERROR);

		format(s->why, sizeof(s->why), "%s", vmx_error_text(error));
		return REASON_FAILED_ENTRY | error << 16;
	}

	u64 reason = vmx_peek(s, RO_REASON);

	if (reason & REASON_FAILED_ENTRY)
		entry_failed(s, reason);
	else if (reason == 0 && is_nmi(vmx_peek(s, RO_EVENT)))
		take_nmi(); /* before an interrupt's IRET opens NMIs, for its handler's stack is one only */
	else if (reason == REASON_INTERRUPT && (vmx_caps.exit & EXIT_ACK))
		traps_interrupt((u8)vmx_peek(s, RO_EVENT));
	return reason;
}

static void vmx_run(struct vcpu *v)
{
	struct pcpu *p = this_pcpu();
	struct vmx *s = vmx_of(v);
	u64 reason;

	if (p->loaded != v)
		vmx_load(p, v);
	before_entry(v);
	if (!enterable(v)) {
		no_entry(v, EXIT_SOFT, 0);
		return;
	}
	vmx_make_current(s);
	if (!vmx_write_dirty(s)) {
		no_entry(v, EXIT_ERROR, 0);
		return;
	}
	cpu_cli();
	if (atomic_load_relaxed(&p->kicked)) {
		cpu_sti();
		v->exit.kind = EXIT_INTERRUPT;
		return;
	}
	flush_translations(v);
	atomic_store(&v->lapic.inside, vmx_caps.pin & PIN_POSTED);
	reason = enter(v);
	if (v->lapic.inside)
		(void)atomic_swap(&v->lapic.inside, false); /* seen by others before we look for what they post */
	cpu_sti();
	if (reason & REASON_FAILED_ENTRY) {
		no_entry(v, EXIT_ERROR, reason);
	} else {
		after_exit(v, reason & 0xffff);
	}
}

static void vmx_report(struct vm *vm)
{
	u64 reads = 0, writes = 0;

	for (unsigned i = 0; i < vm->vcpus; i++) {
		reads += vmx_of(vm->vcpu[i])->reads;
		writes += vmx_of(vm->vcpu[i])->writes;
	}
	log("@vmcs guest=%s reads=%lu writes=%lu\n", vm->name, reads, writes);
}

const struct hvm_ops vmx_ops = {
	.paging = "ept",
	.format = &pt_format_ept,
	.cpu_on = vmx_cpu_on,
	.vcpu_init = vmx_vcpu_init,
	.vcpu_free = vmx_vcpu_free,
	.vcpu_leave = vmx_vcpu_leave,
	.run = vmx_run,
	.get = vmx_get,
	.set = vmx_set,
	.get_seg = vmx_get_seg,
	.set_seg = vmx_set_seg,
	.window = vmx_window,
	.flush = vmx_flush,
	.report = vmx_report,
};
