/* SPDX-License-Identifier: MIT */
/* A vCPU's state as a whole: reset, the end of its machine, and the report that tells why. */
#include "arch/x86/hvm/vcpu.h"

#include "arch/x86/hvm/exit.h"
#include "lib/bits.h"
#include "lib/print.h"
#include "lib/string.h"

const struct hvm_ops *hvm;
struct hvm_host hvm_host;

enum { LDTR_RESET = 0x82, TR_RESET = 0x8b, DATA_REAL = 0x93, CODE_REAL = 0x9b };

void vcpu_reset(struct vcpu *v)
{
	/* From REG_CR0 to REG_PAT; there is no shadow. */
	static const u64 regs[] = {CR0_CD | CR0_NW | CR0_ET, 0, 0, 0, 0, 0xffff0ff0, 0x400, 0x0007040600070406, 0};
	u64 none = 0;
	u32 id[4];

	for (unsigned i = 0; i < ARRAY_SIZE(v->dr); i++)
		hvm_host.dr(v, i, &none, true);
	hvm->set(v, REG_INT_SHADOW, true); /* a single step that waits ends with it */
	for (unsigned i = 0; i < ARRAY_SIZE(regs); i++)
		hvm->set(v, i, regs[i]);
	for (unsigned s = 0; s < SEGS_ALL; s++) {
		struct segment seg = {.limit = 0xffff, .attr = DATA_REAL};

		if (s == SEG_CS)
			seg = (struct segment){0xffff0000, 0xffff, 0xf000, CODE_REAL};
		else if (s == SEG_LDTR || s == SEG_TR)
			seg.attr = s == SEG_LDTR ? LDTR_RESET : TR_RESET;
		hvm->set_seg(v, s, seg);
	}
	guest_cpuid(v, 1, 0, id);
	v->regs = (struct gregs){.rip = 0xfff0, .rflags = RFLAGS_FIXED};
	v->regs.r[R_DX] = id[0];
	v->exit.mode = MODE_REAL;
	v->exit.cpl = 0;
	v->code.gva = 1;
	v->event.valid = v->halted = v->stuck = v->nmi_pending = v->nmi_blocked = false;
	v->intr_again = 0;
	hvm->flush(v);
}

void vcpu_kick(struct vcpu *v)
{
	if (!atomic_load(&v->dead))
		sched_wake(&v->sched);
}

/* Whoever ends the vm may still be in here when its vCPUs have left; the last of them waits for the 2. */
void vm_end(struct vm *vm, enum end_reason why, const char *fmt, ...)
{
	u32 none = 0;
	va_list ap;

	if (!atomic_cas(&vm->ending, &none, 1))
		return;
	vm->end_reason = (u8)why;
	va_start(ap, fmt);
	vformat(vm->end_detail, sizeof(vm->end_detail), fmt, ap);
	va_end(ap);
	for (unsigned i = 0; i < vm->vcpus; i++)
		if (vm->vcpu[i])
			vcpu_kick(vm->vcpu[i]);
	atomic_store(&vm->ending, 2);
}

enum outcome vcpu_crash(struct vcpu *v, const char *fmt, ...)
{
	char why[sizeof(v->vm->end_detail)];
	va_list ap;

	if (atomic_load(&v->vm->ending))
		return OUT_STOP;
	vcpu_dump(v);
	va_start(ap, fmt);
	vformat(why, sizeof(why), fmt, ap);
	va_end(ap);
	vm_end(v->vm, END_CRASH, "%s", why);
	return OUT_STOP;
}

/* In the order of EXIT_*. */
static const char *const exit_names[] = {"other",  "intr",  "window", "cpuid",     "hlt",       "io",
					 "rdmsr",  "wrmsr", "cr",     "npf",       "mmio",      "exception",
					 "xsetbv", "invd",  "rdpmc",  "vendor-op", "hypercall", "apic",
					 "eoi",    "soft",  "triple", "error"};
_Static_assert(ARRAY_SIZE(exit_names) == EXIT_KINDS, "each kind has a name");

void vm_report_exits(struct vm *vm)
{
	u64 total = 0;
	char text[200] = "";
	size_t len = 0;

	for (unsigned k = 0; k < EXIT_KINDS; k++) {
		u64 n = 0;

		for (unsigned i = 0; i < vm->vcpus; i++)
			n += vm->vcpu[i] ? vm->vcpu[i]->exits[k] : 0;
		total += n;
		if (n && len < sizeof(text))
			len += format(text + len, sizeof(text) - len, " %s=%lu", exit_names[k], n);
	}
	log("@exits guest=%s total=%lu%s\n", vm->name, total, text);
	if (hvm->report)
		hvm->report(vm);
}

static void dump_regs(struct vcpu *v)
{
	static const char *const names[GREGS] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
						 "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15"};
	const u64 *r = v->regs.r;

	for (unsigned i = 0; i < GREGS; i += 4)
		log("  %s %016lx  %s %016lx  %s %016lx  %s %016lx\n", names[i], r[i], names[i + 1], r[i + 1],
		    names[i + 2], r[i + 2], names[i + 3], r[i + 3]);
	log("  rip %016lx  rflags %lx  cr0 %lx  cr2 %lx  cr3 %lx  cr4 %lx  cr8 %x  efer %lx\n", v->regs.rip,
	    v->regs.rflags, hvm->get(v, REG_CR0), hvm->get(v, REG_CR2), hvm->get(v, REG_CR3), hvm->get(v, REG_CR4),
	    lapic_get_cr8(&v->lapic), hvm->get(v, REG_EFER));
}

static void dump_segs(struct vcpu *v)
{
	static const char *const names[SEGS_ALL] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr", "gdtr", "idtr"};

	for (unsigned s = 0; s < SEGS_ALL; s++) {
		struct segment seg = hvm->get_seg(v, s);

		log("  %-4s %04x base %016lx limit %08x attr %03x\n", names[s], seg.sel, seg.base, seg.limit, seg.attr);
	}
}

static void dump_code(struct vcpu *v)
{
	u8 b[INSN_MAX];
	char text[3 * INSN_MAX + 1] = " not readable";
	unsigned n = 0;

	guest_fetch(v, b, &n);
	for (unsigned i = 0; i < n; i++)
		format(text + 3 * i, sizeof(text) - 3 * i, " %02x", b[i]);
	log("  code:%s\n", text);
}

void vcpu_dump(struct vcpu *v)
{
	const struct vm_exit *x = &v->exit;

	log("guest %s, vCPU %u: last exit %s (code %lx info %lx %lx), gpa %lx%s%s\n", v->vm->name, v->index,
	    exit_names[x->kind], x->code, x->info1, x->info2, x->gpa, v->halted ? ", halted" : "",
	    v->wait_sipi ? ", waits for SIPI" : "");
	dump_regs(v);
	dump_segs(v);
	dump_code(v);
}
