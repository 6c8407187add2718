/* SPDX-License-Identifier: MIT */
/*
 * The end: what is told when the hypervisor itself fails, by an exception or by panic(). The first pCPU that gets here
 * reports; it stops the others first, so that nothing moves and no lock matters. A fault inside the report cuts it
 * short, a second one ends it: this never recurses for ever.
 */
#include "arch/x86/cpu/cpu.h"
#include "arch/x86/cpu/pcpu.h"
#include "arch/x86/cpu/smp.h"
#include "arch/x86/cpu/traps.h"
#include "drivers/console.h"
#include "lib/port.h"
#include "lib/print.h"
#include "mm/hostmap.h"

enum { TRAP_DF = 8, TRAP_PF = 14, TRAP_MC = 18, TRACE_MAX = 24, CODE_BYTES = 16 };

extern const char text_start[], text_end[], data_start[], image_end[];

void (*panic_vcpu_hook)(struct vcpu *);

static u32 reporter; /* pCPU + 1 that reports; atomic */
static u32 faults_inside;

static const char *const trap_names[] = {"divide error",
					 "debug exception",
					 "NMI",
					 "breakpoint",
					 "overflow",
					 "bound range",
					 "invalid opcode",
					 "no FPU",
					 "double fault",
					 "(9)",
					 "invalid TSS",
					 "segment not present",
					 "stack segment fault",
					 "general protection fault",
					 "page fault",
					 "(15)",
					 "FPU error",
					 "alignment check",
					 "machine check",
					 "SIMD error",
					 "virtualization exception",
					 "control protection"};

static const char *trap_name(u64 vector)
{
	return vector < ARRAY_SIZE(trap_names) ? trap_names[vector] : "unknown exception";
}

static bool within(u64 va, u64 start, u64 end) { return va >= start && va < end && end - va >= 16; }

/* Whether a frame (two words) at va lies on a stack that this pCPU may be on. */
static bool on_stack(u64 va)
{
	const struct pcpu *p = this_pcpu();
	bool found = within(va, (u64)data_start, (u64)image_end) || /* the boot stacks */
		     within(va, (u64)p->stack_top - STACK_SIZE, (u64)p->stack_top);

	for (unsigned i = 0; i < ARRAY_SIZE(p->ist_top); i++)
		found = found || within(va, (u64)p->ist_top[i] - IST_STACK_SIZE, (u64)p->ist_top[i]);
	return found;
}

static void trace_line(unsigned n, u64 rip)
{
	u64 offset;
	const char *name = symbol_find(rip, &offset);

	log("  #%-2u %016lx %s+0x%lx\n", n, rip, name, offset);
}

void backtrace(u64 rip, u64 rbp)
{
	trace_line(0, rip);
	for (unsigned n = 1; n < TRACE_MAX && IS_ALIGNED(rbp, 8) && on_stack(rbp); n++) {
		const u64 *frame = (const u64 *)rbp; /* the caller's rbp, and the address to return to */

		if (!frame[1])
			break;
		trace_line(n, frame[1]);
		if (frame[0] <= rbp && on_stack(frame[0])) /* stacks grow down: a step back is a loop */
			break;
		rbp = frame[0];
	}
}

static void report_begin(void)
{
	u32 me = port_cpu() + 1, other = 0;

	cpu_cli();
	if (!atomic_cas(&reporter, &other, me)) {
		if (other == me && !faults_inside++)
			log("*** another fault while reporting: stopped\n");
		smp_stop_this();
	}
	smp_stop_others();
	console_break_lock();
}

static NORETURN void report_end(u64 rip, u64 rbp)
{
	struct vcpu *v = this_pcpu()->running;

	backtrace(rip, rbp);
	if (v && panic_vcpu_hook)
		panic_vcpu_hook(v);
	log("*** Cleave has stopped; the machine must be reset\n");
	console_drain();
	cpu_stop();
}

static void log_control_registers(void)
{
	log("cr0 %016lx cr2 %016lx cr3 %016lx cr4 %016lx\n", read_cr0(), read_cr2(), read_cr3(), read_cr4());
}

static void log_registers(const struct trap_frame *f)
{
	/* As struct trap_frame has them. */
	static const char names[][4] = {"r15", "r14", "r13", "r12", "r11", "r10", "r9",  "r8", "rbp", "rdi", "rsi",
					"rdx", "rcx", "rbx", "rax", "vec", "err", "rip", "cs", "rfl", "rsp", "ss"};
	const u64 *value = &f->r15;

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		log("%3s %016lx%c", names[i], value[i], i % 4 == 3 || i == ARRAY_SIZE(names) - 1 ? '\n' : ' ');
	log_control_registers();
}

static void log_code(u64 rip)
{
	char text[CODE_BYTES * 3 + 1] = "";
	const u8 *code = (const u8 *)rip;

	if (rip < (u64)text_start || rip >= (u64)text_end - CODE_BYTES)
		return;
	for (unsigned i = 0; i < CODE_BYTES; i++)
		format(&text[i * 3UL], sizeof(text) - i * 3UL, " %02x", code[i]);
	log("code%s\n", text);
}

/* The error banks that hold something (SDM 3B 16.3.2). */
static void log_machine_check(void)
{
	u64 cap = 0, status;

	rdmsr_safe(MSR_MCG_CAP, &cap);
	for (u32 bank = 0; bank < (cap & 0xff); bank++)
		if (rdmsr_safe(MSR_MC0_STATUS + 4 * bank, &status) == 0 && status >> 63)
			log("machine check bank %u: status %016lx\n", bank, status);
}

/* What an address that faulted says about the cause. */
static const char *address_hint(const struct trap_frame *f, u64 cr2)
{
	if (hostmap_is_guard(cr2) || (f->vector == TRAP_DF && hostmap_is_guard(f->rsp - 8)))
		return " (stack overflow)";
	return f->vector == TRAP_PF && cr2 < PAGE_SIZE ? " (NULL pointer)" : "";
}

void fault_report(const struct trap_frame *f)
{
	u64 cr2 = read_cr2(), offset;
	const char *name = symbol_find(f->rip, &offset);

	report_begin();
	log("\n*** %s in the hypervisor, pCPU %u, at %s+0x%lx, error 0x%lx%s\n", trap_name(f->vector), port_cpu(), name,
	    offset, f->error, address_hint(f, cr2));
	if (f->vector == TRAP_PF)
		log("%s %016lx\n", f->error & BIT(4) ? "executing" : f->error & BIT(1) ? "writing" : "reading", cr2);
	if (f->vector == TRAP_MC)
		log_machine_check();
	log_registers(f);
	log_code(f->rip);
	report_end(f->rip, f->bp);
}

void panic(const char *fmt, ...)
{
	va_list ap;

	report_begin();
	log("\n*** panic on pCPU %u: ", port_cpu());
	va_start(ap, fmt);
	vlog(fmt, ap);
	va_end(ap);
	log("\n");
	log_control_registers();
	report_end((u64)__builtin_return_address(0), *(const u64 *)__builtin_frame_address(0));
}
