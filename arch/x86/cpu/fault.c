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

extern const char data_start[], image_end[];

void (*panic_vcpu_hook)(struct vcpu *);

static u32 reports; /* begun; only by the one pCPU that was not stopped */

static const char trap_names[][4] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "9",   "#TS",
				     "#NP", "#SS", "#GP", "#PF", "15",  "#MF", "#AC", "#MC", "#XM", "#VE", "#CP"};

static bool within(u64 va, u64 start, u64 end) { return va >= start && va < end && end - va >= 16; }

/* Whether a frame (two words) at va lies on a stack that this pCPU may be on. */
static bool on_stack(u64 va)
{
	const struct pcpu *p = this_pcpu();
	bool found = within(va, (u64)data_start, (u64)image_end); /* the boot stacks */

	for (unsigned i = 0; i < PCPU_STACKS; i++)
		found = found || within(va, (u64)p->stack[i] - STACK_SIZE, (u64)p->stack[i]);
	return found;
}

/* Logs the calls that led to rip; reads only memory of known stacks, and a bounded number of frames. */
static void backtrace(u64 rip, u64 rbp)
{
	for (unsigned n = 0; n < 24; n++) {
		const u64 *frame = (const u64 *)rbp; /* the caller's rbp, and the address to return to */
		u64 offset;
		const char *name = symbol_find(rip, &offset);

		log("  #%-2u %016lx %s+0x%lx\n", n, rip, name, offset);
		if (!IS_ALIGNED(rbp, 8) || !on_stack(rbp) || !frame[1])
			return;
		rbp = frame[0];
		rip = frame[1];
	}
}

/* Does not return on any but the first pCPU to come here, nor from within a report. */
static void report_begin(void)
{
	cpu_cli();
	smp_stop_others();
	console_break_lock();
	if (reports++ == 0)
		return;
	if (reports == 2)
		log("*** another fault while reporting: stopped\n");
	cpu_stop();
}

static NORETURN void report_end(u64 rip, u64 rbp)
{
	struct vcpu *v = this_pcpu()->running;

	log("cr0 %016lx cr2 %016lx cr3 %016lx cr4 %016lx\n", read_cr0(), read_cr2(), read_cr3(), read_cr4());
	backtrace(rip, rbp);
	if (v && panic_vcpu_hook)
		panic_vcpu_hook(v);
	log("*** Cleave has stopped; the machine must be reset\n");
	console_drain();
	cpu_stop();
}

static void log_registers(const struct trap_frame *f)
{
	/* As struct trap_frame has them. */
	static const char names[][4] = {"r15", "r14", "r13", "r12", "r11", "r10", "r9",  "r8", "rbp", "rdi", "rsi",
					"rdx", "rcx", "rbx", "rax", "vec", "err", "rip", "cs", "rfl", "rsp", "ss"};
	const u64 *value = &f->r15;

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		log("%3s %016lx%c", names[i], value[i], i % 4 == 3 || i == ARRAY_SIZE(names) - 1 ? '\n' : ' ');
}

/* SDM vol. 3, 16.3.2; while MCG_STATUS says that one is in progress, another shuts the machine down. */
void machine_check_report(void)
{
	for (u32 bank = 0; bank < (rdmsr(MSR_MCG_CAP) & 0xff); bank++) {
		u64 status = rdmsr(MSR_MC0_STATUS + 4 * bank);

		if (!(status >> 63))
			continue;
		log("machine check bank %u: status %016lx\n", bank, status);
		wrmsr(MSR_MC0_STATUS + 4 * bank, 0);
	}
	wrmsr(MSR_MCG_STATUS, 0);
}

/* What an address that faulted says about the cause. */
static const char *address_hint(const struct trap_frame *f, u64 cr2)
{
	if (hostmap_is_guard(cr2) || (f->vector == VEC_DF && hostmap_is_guard(f->rsp - 8)))
		return " (stack overflow)";
	return f->vector == VEC_PF && cr2 < PAGE_SIZE ? " (NULL pointer)" : "";
}

void fault_report(const struct trap_frame *f)
{
	u64 cr2 = read_cr2();

	report_begin();
	log("\n*** %s in the hypervisor, pCPU %u, error 0x%lx, address %016lx%s\n",
	    f->vector < ARRAY_SIZE(trap_names) ? trap_names[f->vector] : "exception", port_cpu(), f->error, cr2,
	    address_hint(f, cr2));
	if (f->vector == VEC_MC)
		machine_check_report();
	log_registers(f);
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
	report_end((u64)__builtin_return_address(0), *(const u64 *)__builtin_frame_address(0));
}
