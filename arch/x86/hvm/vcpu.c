/* SPDX-License-Identifier: MIT */
/* A vCPU's state as a whole: reset, the end of its machine, and the report that tells why. */
#include "arch/x86/hvm/vcpu.h"

#include "arch/x86/hvm/exit.h"
#include "lib/bits.h"
#include "lib/print.h"
#include "lib/string.h"

const struct hvm_ops *hvm;
struct hvm_host hvm_host;

#define CODE_REAL  0x9b
#define DATA_REAL  0x93
#define LDTR_RESET 0x82
#define TR_RESET   0x8b

void vcpu_reset(struct vcpu *v)
{
	static const struct {
		u8 reg;
		u64 val;
	} init[] = {
		{REG_CR0, CR0_CD | CR0_NW | CR0_ET},
		{REG_CR2, 0},
		{REG_CR3, 0},
		{REG_CR4, 0},
		{REG_EFER, 0},
		{REG_DR6, 0xffff0ff0},
		{REG_DR7, 0x400},
		{REG_PAT, 0x0007040600070406ull},
		{REG_GDTR_BASE, 0},
		{REG_GDTR_LIMIT, 0xffff},
		{REG_IDTR_BASE, 0},
		{REG_IDTR_LIMIT, 0xffff},
		{REG_INT_SHADOW, 0},
	};
	u32 id[4];

	for (unsigned i = 0; i < ARRAY_SIZE(init); i++)
		hvm->set(v, init[i].reg, init[i].val);
	for (unsigned s = 0; s < SEGS; s++) {
		struct segment seg = {.limit = 0xffff, .attr = DATA_REAL};

		if (s == SEG_CS)
			seg = (struct segment){0xffff0000, 0xffff, 0xf000, CODE_REAL};
		else if (s >= SEG_LDTR)
			seg.attr = s == SEG_LDTR ? LDTR_RESET : TR_RESET;
		hvm->set_seg(v, s, &seg);
	}
	guest_cpuid(v, 1, 0, id);
	v->regs = (struct gregs){.rip = 0xfff0, .rflags = RFLAGS_FIXED};
	v->regs.r[R_DX] = id[0];
	v->event.valid = false;
	v->halted = v->stuck = v->nmi_pending = v->nmi_blocked = v->code.valid = false;
	hvm->flush(v);
}

void vcpu_kick(struct vcpu *v)
{
	if (!atomic_load(&v->dead))
		sched_wake(&v->sched);
}

/* Whoever ends the vm may still be in here when its vCPUs have left; the last of them waits for the 2. */
static void end(struct vm *vm, enum end_reason why, const char *fmt, va_list ap)
{
	u32 none = 0;

	if (!atomic_cas(&vm->ending, &none, 1))
		return;
	vm->end_reason = (u8)why;
	vformat(vm->end_detail, sizeof(vm->end_detail), fmt, ap);
	for (unsigned i = 0; i < vm->vcpus; i++)
		if (vm->vcpu[i])
			vcpu_kick(vm->vcpu[i]);
	atomic_store(&vm->ending, 2);
}

void vm_end(struct vm *vm, enum end_reason why, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	end(vm, why, fmt, ap);
	va_end(ap);
}

void vcpu_crash(struct vcpu *v, const char *fmt, ...)
{
	va_list ap;

	if (atomic_load(&v->vm->ending))
		return;
	vcpu_dump(v);
	va_start(ap, fmt);
	end(v->vm, END_CRASH, fmt, ap);
	va_end(ap);
}

static const char *const exit_names[EXIT_KINDS] = {
	[EXIT_INTERRUPT] = "intr",
	[EXIT_WINDOW] = "window",
	[EXIT_NMI_WINDOW] = "nmi-window",
	[EXIT_CPUID] = "cpuid",
	[EXIT_HLT] = "hlt",
	[EXIT_IO] = "io",
	[EXIT_MSR_READ] = "rdmsr",
	[EXIT_MSR_WRITE] = "wrmsr",
	[EXIT_CR] = "cr",
	[EXIT_NPF] = "npf",
	[EXIT_MMIO] = "mmio",
	[EXIT_EXCEPTION] = "exception",
	[EXIT_XSETBV] = "xsetbv",
	[EXIT_HYPERCALL] = "hypercall",
	[EXIT_INVD] = "invd",
	[EXIT_WBINVD] = "wbinvd",
	[EXIT_RDPMC] = "rdpmc",
	[EXIT_PAUSE] = "pause",
	[EXIT_TRIPLE] = "triple",
	[EXIT_VENDOR_OP] = "vendor-op",
	[EXIT_TASK] = "task",
	[EXIT_ERROR] = "error",
	[EXIT_OTHER] = "other",
};

void vm_report_exits(struct vm *vm)
{
	u64 total = 0, kind[EXIT_KINDS] = {0};
	char line[240];
	size_t len;

	for (unsigned i = 0; i < vm->vcpus; i++) {
		struct vcpu *v = vm->vcpu[i];

		for (unsigned k = 0; v && k < EXIT_KINDS; k++) {
			kind[k] += v->exits[k];
			total += v->exits[k];
		}
	}
	len = format(line, sizeof(line), "@exits guest=%s total=%lu", vm->name, total);
	for (unsigned k = 0; k < EXIT_KINDS && len < sizeof(line); k++)
		if (kind[k])
			len += format(line + len, sizeof(line) - len, " %s=%lu", exit_names[k], kind[k]);
	log("%s\n", line);
}

#define x ((x))

static void dump_regs(struct vcpu *v)
{
	static const char *const names[GREGS] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
						 "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15"};

	for (unsigned i = 0; i < GREGS; i += 4)
		log("  %s %016lx  %s %016lx  %s %016lx  %s %016lx\n", names[i], v->regs.r[i], names[i + 1],
		    v->regs.r[i + 1], names[i + 2], v->regs.r[i + 2], names[i + 3], v->regs.r[i + 3]);
	log("  rip %016lx  rflags %lx  cr0 %lx  cr2 %lx  cr3 %lx  cr4 %lx  cr8 %x  efer %lx\n", v->regs.rip,
	    v->regs.rflags, hvm->get(v, REG_CR0), hvm->get(v, REG_CR2), hvm->get(v, REG_CR3), hvm->get(v, REG_CR4),
	    lapic_get_cr8(&v->lapic), hvm->get(v, REG_EFER));
}

static void dump_segs(struct vcpu *v)
{
	static const char *const names[SEGS] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};

	for (unsigned s = 0; s < SEGS; s++) {
		struct segment seg;

		hvm->get_seg(v, s, &seg);
		log("  %-4s %04x base %016lx limit %08x attr %03x\n", names[s], seg.sel, seg.base, seg.limit, seg.attr);
	}
	log("  gdt  base %016lx limit %04lx  idt base %016lx limit %04lx\n", hvm->get(v, REG_GDTR_BASE),
	    hvm->get(v, REG_GDTR_LIMIT), hvm->get(v, REG_IDTR_BASE), hvm->get(v, REG_IDTR_LIMIT));
}

/* Reads by the guest's own tables; false if that is not possible. Sets accessed bits, which no guest minds. */
static bool peek(struct vcpu *v, gva_t la, void *buf, size_t size)
{
	u32 error;
	gpa_t gpa;

	if ((la & ~PAGE_MASK) + size > PAGE_SIZE || guest_translate(v, la, 0, &gpa, &error) < 0)
		return false;
	return p2m_read(&v->vm->p2m, gpa, buf, size) == 0;
}

static void dump_code(struct vcpu *v)
{
	u8 b[INSN_MAX];
	char text[3 * INSN_MAX + 1] = "";
	unsigned n = 0;
	u32 error;
	gva_t va;
	int err = guest_fetch(v, b, &n, &va, &error);

	if (!n) {
		log("  code: not readable (error %d)\n", -err);
		return;
	}
	for (unsigned i = 0; i < n; i++)
		format(text + 3 * i, sizeof(text) - 3 * i, " %02x", b[i]);
	log("  code:%s\n", text);
}

static void dump_stack(struct vcpu *v)
{
	struct segment ss;
	u64 w[4], frame[2], bp = v->regs.r[R_BP];
	unsigned size = vcpu_mode(v) == MODE_64 ? 8 : vcpu_mode(v) == MODE_32 ? 4 : 2;

	hvm->get_seg(v, SEG_SS, &ss);
	for (unsigned i = 0; i < 16; i += 4) {
		memset(w, 0, sizeof(w));
		for (unsigned j = 0; j < 4; j++)
			if (!peek(v, ss.base + v->regs.r[R_SP] + (i + j) * size, &w[j], size))
				return;
		log("  stack: %0*lx %0*lx %0*lx %0*lx\n", size * 2, w[0], size * 2, w[1], size * 2, w[2], size * 2,
		    w[3]);
	}
	for (unsigned i = 0; size == 8 && i < 16 && peek(v, bp, frame, sizeof(frame)); i++) {
		log("  called from %016lx\n", frame[1]);
		if (frame[0] <= bp)
			break;
		bp = frame[0];
	}
}

void vcpu_dump(struct vcpu *v)
{
	const struct vm_exit *x = &v->exit;

	log("guest %s, vCPU %u: last exit %s (code %lx info %lx %lx), gpa %lx%s%s\n", v->vm->name, v->index,
	    x->kind < EXIT_KINDS ? exit_names[x->kind] : "?", x->code, x->info1, x->info2, x->gpa,
	    v->halted ? ", halted" : "", v->wait_sipi ? ", waits for SIPI" : "");
	dump_regs(v);
	dump_segs(v);
	dump_code(v);
	dump_stack(v);
	hvm->dump(v);
}
