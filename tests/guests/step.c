/* SPDX-License-Identifier: MIT */
/*
 * Single steps over what exits, behind the shadows of STI and MOV SS: which traps come, where, and with which flags.
 * The traces are those of a bare CPU (Intel SDM vol. 3, 6.8.3, 17.3.1.4): a hypervisor that loses a step, doubles it,
 * or forgets what waits for a shadow's end makes others.
 */
#include "tests/guests/guest.h"

#define RFLAGS_TF (1u << 8)
#define RFLAGS_RF (1u << 16)
#define DR6_INIT  0xffff0ff0ull
#define DR6_BS    (1ull << 14)

static char trace[64];
static unsigned traced;
volatile u64 step_first, step_last; /* set in assembly */

static u64 dr6(void)
{
	u64 v;

	asm volatile("movq %%dr6, %0" : "=r"(v));
	return v;
}

static void set_dr6(u64 v) { asm volatile("movq %0, %%dr6" : : "r"(v)); }
static void set_dr7(u64 v) { asm volatile("movq %0, %%dr7" : : "r"(v)); }

static void add(char c)
{
	if (traced < sizeof(trace) - 1)
		trace[traced++] = c;
	trace[traced] = 0;
}

/* S: a single step, B: another #DB, G: #GP; the offset of rip; r: with RF. #GP's handler goes on behind its
 * instruction. */
static bool note(struct trap *t)
{
	u64 status = dr6();

	if (t->vector != 1 && t->vector != 6 && t->vector != 13)
		return false;
	if (traced)
		add(' ');
	add(t->vector == 13 ? 'G' : t->vector == 6 ? 'U' : status & DR6_BS ? 'S' : 'B');
	add((char)('0' + (t->rip - step_first) / 10));
	add((char)('0' + (t->rip - step_first) % 10));
	if (t->rflags & RFLAGS_RF)
		add('r');
	set_dr6(DR6_INIT);
	if (t->vector != 1)
		t->rip = step_last;
	if (t->rip >= step_last || traced > 48)
		t->rflags &= ~(u64)RFLAGS_TF;
	return true;
}

/* What QEMU's TCG does in its own way, bare too: STI's shadow holds steps back, and INT1 is no instruction. */
static bool sti_holds, no_int1;

static void judge(const char *name, const char *want)
{
	if (sti_holds && !memcmp(want, "S01 ", 4) && !memcmp(name, "step-sti", 8))
		want += 4;
	check(name, !strcmp(trace, want), "%s", trace);
}

/*
 * The instructions with TF set before them. They have the IOAPIC in RSI, SS in DI, and in ECX an MSR that there is none
 * of.
 */
#define TRACE(insns)                                                                                                   \
	do {                                                                                                           \
		u64 a, c, d, s = IOAPIC;                                                                               \
		traced = 0;                                                                                            \
		trace[0] = 0;                                                                                          \
		set_dr6(DR6_INIT);                                                                                     \
		trap_hook = note;                                                                                      \
		asm volatile("movq $76f, step_first; movq $77f, step_last; movw %%ss, %%di; movl $0x12345678, %%ecx\n" \
			     "pushfq; orq $0x100, (%%rsp); popfq\n76: " insns "; nop\n77: nop"                         \
			     : "=a"(a), "=c"(c), "=d"(d), "+S"(s)                                                      \
			     :                                                                                         \
			     : "rbx", "rdi", "memory");                                                                \
		trap_hook = NULL;                                                                                      \
		cli();                                                                                                 \
	} while (0)
#define STEPS(name, want, insns)           \
	do {                               \
		TRACE(insns);              \
		judge("step-" name, want); \
	} while (0)
#define STI "sti; "
#define SS  "movw %%di, %%ss; "

static void int1s(void)
{
	STEPS("int1", "B01 S02", ".byte 0xf1");
	STEPS("sti-int1", "S01 B02 S03", STI ".byte 0xf1");
	STEPS("ss-int1", "B03 S04", SS ".byte 0xf1");
}

static void faults(void)
{
	STEPS("gp", "G00r", "rdmsr");
	STEPS("sti-gp", "S01 G01r", STI "rdmsr");
	STEPS("ss-gp", "G02r", SS "rdmsr");
}

static void steps(void)
{
	u64 val;

	TRACE(STI "nop");
	sti_holds = trace[2] == '2';
	TRACE(".byte 0xf1");
	no_int1 = trace[0] == 'U';
	STEPS("nop", "S01 S02", "nop");
	STEPS("cpuid", "S02 S03", "cpuid");
	STEPS("in", "S02 S03", "inb $0x21, %%al");
	STEPS("mmio", "S02 S03", "movl (%%rsi), %%eax");
	STEPS("cr8", "S02 S06 S07", "xorl %%ecx, %%ecx; movq %%rcx, %%cr8");
	STEPS("outs", "S05 S10 S10 S10 S12 S13", "movl $3, %%ecx; movl $0x80, %%edx; rep outsb");
	STEPS("sti-nop", "S01 S02 S03", STI "nop");
	STEPS("sti-cpuid", "S01 S03 S04", STI "cpuid");
	STEPS("sti-in", "S01 S03 S04", STI "inb $0x21, %%al");
	STEPS("sti-mmio", "S01 S03 S04", STI "movl (%%rsi), %%eax");
	STEPS("ss-nop", "S03 S04", SS "nop");
	STEPS("ss-cpuid", "S04 S05", SS "cpuid");
	STEPS("ss-in", "S04 S05", SS "inb $0x21, %%al");
	STEPS("ss-mmio", "S04 S05", SS "movl (%%rsi), %%eax");
	if (!no_int1)
		int1s();
	if (rdmsr_try(0x12345678, &val) == 13) /* QEMU has every MSR */
		faults();
}

/* DR7.GD: #DB's handler may look at the debug registers, whatever raised it. */
static unsigned nested;
static volatile bool in_handler;

static bool look(struct trap *t)
{
	u64 dr7;

	if (t->vector != 1)
		return false;
	nested += in_handler;
	in_handler = true;
	asm volatile("movq %%dr7, %0" : "=r"(dr7));
	set_dr7(0x400);
	in_handler = false;
	t->rflags &= ~(u64)RFLAGS_TF;
	return true;
}

static void guarded(void)
{
	trap_hook = look;
	nested = 0;
	set_dr7(0x2400);
	asm volatile("pushfq; orq $0x100, (%%rsp); popfq; cpuid" : : : "rax", "rbx", "rcx", "rdx", "memory");
	trap_hook = NULL;
	set_dr7(0x400);
	check("step-guarded", !nested, "nested=%u", nested);
}

const struct test step_tests[] = {{"steps", steps, false}, {"guarded", guarded, false}, {NULL, NULL, false}};
