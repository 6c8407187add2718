/* SPDX-License-Identifier: MIT */
#include "arch/x86/hvm/exit.h"

#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/string.h"

void insn_end(struct vcpu *v, bool shadow, bool step)
{
	hvm->set(v, REG_INT_SHADOW, shadow);
	if (step) {
		hvm->set(v, REG_DR6, hvm->get(v, REG_DR6) | DR6_BS);
		vcpu_exception(v, VEC_DB, false, 0);
	}
}

void insn_done(struct vcpu *v, unsigned len)
{
	u64 rip = v->regs.rip + len;

	if (v->exit.mode != MODE_64)
		rip = v->exit.mode == MODE_32 || v->regs.rip >> 16 ? (u32)rip : (u16)rip;
	v->regs.rip = rip;
	v->regs.rflags &= ~(u64)RFLAGS_RF;
	insn_end(v, false, v->regs.rflags & RFLAGS_TF);
}

/* --- The length of an instruction that exited, where the CPU does not tell. */

/* What each kind of exit that is one instruction looks like behind its prefixes. */
static const struct {
	u8 n, byte[3];
} opcodes[EXIT_KINDS] = {
	[EXIT_CPUID] = {2, {0x0f, 0xa2}},           [EXIT_HLT] = {1, {0xf4}},
	[EXIT_MSR_READ] = {2, {0x0f, 0x32}},        [EXIT_MSR_WRITE] = {2, {0x0f, 0x30}},
	[EXIT_XSETBV] = {3, {0x0f, 0x01, 0xd1}},    [EXIT_INVD] = {2, {0x0f, 0x08}},
	[EXIT_HYPERCALL] = {3, {0x0f, 0x01, 0xd9}}, /* VMMCALL; VMCALL comes with its length */
};

static bool is_prefix(u8 b, bool wide)
{
	static const u8 legacy[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3};

	return memchr(legacy, b, sizeof(legacy)) || (wide && (b & 0xf0) == 0x40);
}

/* The length, if the bytes are the instruction that exits so; else 0. */
static unsigned match(unsigned kind, const u8 *b, unsigned n, bool wide)
{
	unsigned i = 0, len;

	while (i < n && b[i] != opcodes[kind].byte[0] && is_prefix(b[i], wide))
		i++;
	len = i + opcodes[kind].n;
	return len <= n && memcmp(b + i, opcodes[kind].byte, opcodes[kind].n) == 0 ? len : 0;
}

/*
 * 0: the bytes are not that instruction any more; the guest runs again and the CPU sees what they are now.
 *
 * Walking the guest's tables is most of the work, so the translation of the last page is kept as a hint. It may be
 * stale, for the guest changes its tables unseen; so it counts only if the right instruction is found there, and only
 * for the kernel's own code. A process could leave one with other prefixes behind for the next user of its tables.
 */
static unsigned insn_length(struct vcpu *v, const struct vm_exit *x)
{
	bool wide = x->mode == MODE_64;
	u64 offset = v->regs.rip & ~PAGE_MASK;
	u8 b[INSN_MAX];
	unsigned n = 0;

	if (x->insn_len)
		return x->insn_len;
	if (wide && x->cpl == 0 && v->code.gva == v->regs.rip - offset && v->code.cr3 == hvm->get(v, REG_CR3) &&
	    offset <= PAGE_SIZE - sizeof(b) && p2m_read(&v->vm->p2m, v->code.gpa + offset, b, sizeof(b)) == 0) {
		unsigned len = match(x->kind, b, sizeof(b), wide);

		if (len)
			return len;
	}
	guest_fetch(v, b, &n);
	return match(x->kind, b, n, wide);
}

/* --- What the exits do. Those of one instruction know that insn_length is not 0 and leave rip to the dispatcher. */

void do_cpuid(struct vcpu *v, struct gregs *regs)
{
	u64 *r = regs->r;
	u32 out[4];

	guest_cpuid(v, (u32)r[R_AX], (u32)r[R_CX], out);
	r[R_AX] = out[0];
	r[R_BX] = out[1];
	r[R_CX] = out[2];
	r[R_DX] = out[3];
}

/* EDX:EAX */
static u64 pair(const struct gregs *regs) { return (u32)regs->r[R_AX] | regs->r[R_DX] << 32; }

int do_rdmsr(struct vcpu *v, struct gregs *regs)
{
	u64 val;
	int err = guest_rdmsr(v, (u32)regs->r[R_CX], &val);

	if (!err)
		set_pair(regs, val);
	return err;
}

int do_wrmsr(struct vcpu *v, const struct gregs *regs) { return guest_wrmsr(v, (u32)regs->r[R_CX], pair(regs)); }

/*
 * Whether no vCPU can ever run again: each waits with interrupts off, or for a SIPI, and nothing is on its way. Whoever
 * sets its flag last sees the others'; who is woken clears it before it takes what woke it.
 */
static bool all_stuck(struct vcpu *v)
{
	struct vm *vm = v->vm;

	(void)atomic_swap(&v->stuck, true);
	for (unsigned i = 0; i < vm->vcpus; i++) {
		struct vcpu *o = vm->vcpu[i];

		if (!atomic_load(&o->stuck) && !atomic_load(&o->wait_sipi))
			return false;
		if (atomic_load(&o->lapic.events) || atomic_load(&o->nmi_pending))
			return false;
	}
	return true;
}

/* A kernel that gave up ends in HLT with interrupts off on all its processors; so the guest ends and tells why. */
enum outcome do_hlt(struct vcpu *v)
{
	v->halted = true;
	if (!(v->regs.rflags & RFLAGS_IF) && !v->event.valid && all_stuck(v))
		return vcpu_crash(v, "halted with interrupts off");
	return OUT_BLOCK;
}

static enum outcome do_io(struct vcpu *v, const struct vm_exit *x)
{
	u64 *ax = &v->regs.r[R_AX];
	u64 mask = ~0ull >> (64 - 8 * x->io.size);
	struct bus_op op = {.space = BUS_PIO, .size = x->io.size, .write = !x->io.in, .addr = x->io.port};

	if (x->io.string || !x->insn_len)
		return emulate(v);
	if (op.write)
		op.val = *ax & mask;
	guest_bus(v, &op);
	if (x->io.in)
		*ax = x->io.size == 4 ? op.val : (*ax & ~mask) | op.val;
	insn_done(v, x->insn_len);
	return OUT_RESUME;
}

static enum outcome do_npf(struct vcpu *v, const struct vm_exit *x)
{
	enum p2m_verdict verdict = p2m_fault(&v->vm->p2m, x->gpa, x->access);

	v->exits[verdict == P2M_TO_MMIO ? EXIT_MMIO : EXIT_NPF]++;
	switch (verdict) {
	case P2M_RETRY:
		return OUT_RESUME;
	case P2M_TO_MMIO:
		if (x->walk)
			return vcpu_crash(v, "page tables are not in RAM, but at %lx", x->gpa);
		if (v->event.valid)
			return vcpu_crash(v, "an interrupt or exception is delivered through a device at %lx", x->gpa);
		return emulate(v);
	case P2M_DENY:
		return vcpu_crash(v, "executes from where no memory is, at %lx", x->gpa);
	default:
		return vcpu_crash(v, "no memory left for the page at %lx", x->gpa);
	}
}

/* Intercepted so that a guest cannot keep the CPU in an endless series of them (CVE-2015-5307, CVE-2015-8104). */
static enum outcome do_exception(struct vcpu *v, const struct vm_exit *x)
{
	if (x->vector == VEC_MC) {
		hvm_host.machine_check();
		return vcpu_crash(v, "machine check at %lx", v->regs.rip);
	}
	if (x->vector == VEC_PF)
		hvm->set(v, REG_CR2, x->gva);
	vcpu_exception(v, x->vector, x->has_error, x->error);
	return OUT_RESUME;
}

/* One instruction, done or refused with #GP. Each returns 0 or -EINVAL. */
static enum outcome do_insn(struct vcpu *v, const struct vm_exit *x)
{
	unsigned len = insn_length(v, x);
	int err = 0;

	if (!len)
		return OUT_RESUME;
	if (x->kind == EXIT_HYPERCALL && x->cpl) { /* kernels only: others see a CPU that has no such instruction */
		vcpu_exception(v, VEC_UD, false, 0);
		return OUT_RESUME;
	}
	switch (x->kind) {
	case EXIT_CPUID:
		do_cpuid(v, &v->regs);
		break;
	case EXIT_MSR_READ:
		err = do_rdmsr(v, &v->regs);
		break;
	case EXIT_MSR_WRITE:
		err = do_wrmsr(v, &v->regs);
		break;
	case EXIT_XSETBV:
		err = x->cpl ? -EINVAL : guest_xsetbv(v, (u32)v->regs.r[R_CX], pair(&v->regs));
		break;
	case EXIT_HYPERCALL:
		hypercall(v, &v->regs);
		break;
	default: /* HLT, INVD: over */
		break;
	}
	if (err)
		vcpu_exception(v, VEC_GP, true, 0);
	else
		insn_done(v, len);
	return x->kind == EXIT_HLT ? do_hlt(v) : OUT_RESUME;
}

enum outcome exit_dispatch(struct vcpu *v, const struct vm_exit *x)
{
	if (x->kind != EXIT_NPF)
		v->exits[x->kind]++;
	if (opcodes[x->kind].n)
		return do_insn(v, x);
	switch (x->kind) {
	case EXIT_INTERRUPT:
	case EXIT_WINDOW:
		return OUT_RESUME;
	case EXIT_IO:
		return do_io(v, x);
	case EXIT_CR:
	case EXIT_SOFT:
		return emulate(v);
	case EXIT_NPF:
		return do_npf(v, x);
	case EXIT_APIC:
		lapic_written(&v->lapic, x->info1);
		return OUT_RESUME;
	case EXIT_EOI:
		platform_eoi(&v->vm->platform, (u8)x->info1);
		return OUT_RESUME;
	case EXIT_EXCEPTION:
		return do_exception(v, x);
	case EXIT_RDPMC: /* CPUID offers no counters */
		vcpu_exception(v, VEC_GP, true, 0);
		return OUT_RESUME;
	case EXIT_VENDOR_OP:
		vcpu_exception(v, VEC_UD, false, 0);
		return OUT_RESUME;
	case EXIT_TRIPLE:
		vm_end(v->vm, END_RESET, "triple fault");
		return OUT_STOP;
	default:
		return vcpu_crash(v, "%s: %s (code %lx)",
				  x->kind == EXIT_ERROR ? "the processor refuses the vCPU's state"
							: "an exit that is not handled",
				  x->why ? x->why : "no reason", x->code);
	}
}
