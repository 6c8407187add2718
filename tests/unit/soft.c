/* SPDX-License-Identifier: MIT */
/*
 * Guests in states that the hardware cannot run: whole programs, interpreted from the first instruction to the last,
 * and each kind of interrupt and segment load. The programs stand below as the assembler makes them; they run at 8000h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/host/fake_vm.h"

#define AT   0x8000u
#define DATA 0x20000u /* results; the stack is below */

/* Text between these is a program NAME, with NAME_end behind it. */
#define PROGRAM(name, text)                                                                     \
	__asm__(".pushsection .rodata\n.code16\n.globl " #name "\n" #name ":\n" text "\n" #name \
		"_end:\n.code64\n.popsection\n");                                               \
	extern const char name[], name##_end[]

/* What Linux puts in front of its other processors (arch/x86/realmode/rm/trampoline_64.S), and its verify_cpu. */
PROGRAM(trampoline, "cli\n"
		    "wbinvd\n"
		    "mov %cs, %ax\n"
		    "mov %ax, %ds\n"
		    "mov %ax, %es\n"
		    "mov %ax, %ss\n"
		    "movl $0xa5a5a5a5, t_status - trampoline\n"
		    "movl $(t_stack_end - trampoline), %esp\n"
		    "call t_verify\n"
		    "testl %eax, %eax\n"
		    "jnz t_fail\n"
		    "lidtl t_idt - trampoline\n"
		    "lgdtl t_gdt - trampoline\n"
		    "movw $0x18, %dx\n"
		    "movl $1, %eax\n"
		    "lmsw %ax\n"
		    "ljmpl *(t_start32 - trampoline)\n"
		    "t_fail: hlt\n"
		    "jmp t_fail\n"
		    /* verify_cpu: 0 in eax */
		    "t_verify: pushf\n"
		    "push $0\n"
		    "popf\n"
		    "pushfl\n"
		    "popl %eax\n"
		    "movl %eax, %ebx\n"
		    "xorl $0x200000, %eax\n"
		    "pushl %eax\n"
		    "popfl\n"
		    "pushfl\n"
		    "popl %eax\n"
		    "cmpl %eax, %ebx\n"
		    "jz t_no\n"
		    "movl $0, %eax\n"
		    "cpuid\n"
		    "cmpl $1, %eax\n"
		    "jb t_no\n"
		    "xor %di, %di\n"
		    "cmpl $0x68747541, %ebx\n"
		    "jnz 1f\n"
		    "mov $1, %di\n"
		    "1: movl $1, %eax\n"
		    "cpuid\n"
		    "andl $0x0700c169, %edx\n"
		    "xorl $0x0700c169, %edx\n"
		    "jnz t_no\n"
		    "movl $0x1a0, %ecx\n"
		    "rdmsr\n"
		    "btrl $2, %edx\n"
		    "jnc 2f\n"
		    "wrmsr\n"
		    "2: popf\n"
		    "xorl %eax, %eax\n"
		    "ret\n"
		    "t_no: popf\n"
		    "movl $1, %eax\n"
		    "ret\n"
		    ".code32\n"
		    "t_32: movl %edx, %ss\n"
		    "addl $0x8000, %esp\n"
		    "movl %edx, %ds\n"
		    "movl %edx, %es\n"
		    "movl %edx, %fs\n"
		    "movl %edx, %gs\n"
		    "movl 0x8000 + t_cr4 - trampoline, %eax\n"
		    "movl %eax, %cr4\n"
		    "movl $0x200000, %eax\n"
		    "movl %eax, %cr3\n"
		    "movl $0xc0000080, %ecx\n"
		    "rdmsr\n"
		    "orl $0x100, %eax\n"
		    "movl $0, %edx\n"
		    "wrmsr\n"
		    "movl $0x80010001, %eax\n"
		    "movl %eax, %cr0\n"
		    "ljmpl $0x10, $(0x8000 + t_64 - trampoline)\n"
		    ".code64\n"
		    "t_64: jmpq *0x8000 + t_start - trampoline\n"
		    "t_end: movq %rsp, 0x20000\n"
		    "hlt\n"
		    ".balign 8\n"
		    "t_start: .quad 0x8000 + t_end - trampoline\n"
		    "t_cr4: .long 0x20\n"
		    "t_status: .long 0\n"
		    "t_start32: .long 0x8000 + t_32 - trampoline\n"
		    ".word 8\n"
		    "t_idt: .word 0, 0, 0\n"
		    ".balign 16\n"
		    "t_gdt: .word 4 * 8 - 1\n"
		    ".long 0x8000 + t_gdt - trampoline\n"
		    ".word 0\n"
		    ".quad 0x00cf9b000000ffff, 0x00af9b000000ffff, 0x00cf93000000ffff\n"
		    ".skip 64\n"
		    "t_stack_end:");

/*
 * Real mode, an interrupt handler, "unreal" limits; to protected, paged, 64-bit mode; back to real mode, where the
 * handler still works.
 */
PROGRAM(round_trip, "mov %cs, %ax\n"
		    "mov %ax, %ds\n"
		    "xor %ax, %ax\n"
		    "mov %ax, %ss\n"
		    "mov $0x7000, %sp\n"
		    "mov %ax, %es\n"
		    "movw $(r_handler - round_trip), %es:0x100\n"
		    "mov %cs, %es:0x102\n"
		    "mov $1, %bx\n"
		    "sti\n"
		    "int $0x40\n"
		    "lgdtl r_gdt - round_trip\n"
		    /* A big limit in ES that stays. */
		    "cli\n"
		    "mov %cr0, %eax\n"
		    "or $1, %al\n"
		    "mov %eax, %cr0\n"
		    "mov $0x18, %ax\n"
		    "mov %ax, %es\n"
		    "mov %cr0, %eax\n"
		    "and $0xfe, %al\n"
		    "mov %eax, %cr0\n"
		    "xor %ax, %ax\n"
		    "mov %ax, %es\n"
		    "movl $0x300000, %edi\n"
		    "movl $0x12345678, %es:(%edi)\n"
		    /* To 64-bit mode. */
		    "mov %cr0, %eax\n"
		    "or $1, %al\n"
		    "mov %eax, %cr0\n"
		    "ljmpl $8, $(0x8000 + r_32 - round_trip)\n"
		    ".code32\n"
		    "r_32: mov $0x18, %eax\n"
		    "mov %eax, %ds\n"
		    "mov %eax, %ss\n"
		    "mov $0x7000, %esp\n"
		    "push %eax\n"
		    "pop %es\n"
		    "mov $0x20, %eax\n"
		    "mov %eax, %cr4\n"
		    "mov $0x200000, %eax\n"
		    "mov %eax, %cr3\n"
		    "mov $0xc0000080, %ecx\n"
		    "rdmsr\n"
		    "bts $8, %eax\n"
		    "wrmsr\n"
		    "mov %cr0, %eax\n"
		    "bts $31, %eax\n"
		    "mov %eax, %cr0\n"
		    "lcall $0x10, $(0x8000 + r_64 - round_trip)\n"
		    /* Compatibility mode; out of paging, to 16-bit code, to real mode. */
		    "mov %cr0, %eax\n"
		    "btr $31, %eax\n"
		    "mov %eax, %cr0\n"
		    "mov $0xc0000080, %ecx\n"
		    "rdmsr\n"
		    "btr $8, %eax\n"
		    "wrmsr\n"
		    "ljmp $0x20, $(r_16 - round_trip)\n"
		    ".code64\n"
		    "r_64: mov $0xfedcba9876543210, %r15\n"
		    "mov %r15, 0x20008\n"
		    "lretl\n"
		    ".code16\n"
		    "r_16: mov $0x28, %ax\n"
		    "mov %ax, %ds\n"
		    "mov %ax, %es\n"
		    "mov %ax, %ss\n"
		    "mov %cr0, %eax\n"
		    "and $0xfe, %al\n"
		    "mov %eax, %cr0\n"
		    "ljmp $0x800, $(r_real - round_trip)\n"
		    "r_real: mov $0x2000, %ax\n"
		    "mov %ax, %es\n"
		    "mov %cs, %ax\n"
		    "mov %ax, %ds\n"
		    "mov $0x700, %ax\n"
		    "mov %ax, %ss\n"
		    "mov $2, %bx\n"
		    "int $0x40\n"
		    /* Its own bytes copied, and found. */
		    "cld\n"
		    "mov $(r_text - round_trip), %si\n"
		    "mov $0x100, %di\n"
		    "mov $12, %cx\n"
		    "rep movsb\n"
		    "mov $0x100, %di\n"
		    "mov $'w', %al\n"
		    "mov $12, %cx\n"
		    "repne scasb\n"
		    "mov %di, %es:0x10\n"
		    "hlt\n"
		    "r_handler: add %bx, %cs:r_calls - round_trip\n"
		    "iret\n"
		    "r_calls: .word 0\n"
		    "r_text: .ascii \"hello, world\"\n"
		    ".balign 8\n"
		    "r_gdt: .word 6 * 8 - 1\n"
		    ".long 0x8000 + r_gdt - round_trip\n"
		    ".word 0\n"
		    ".quad 0x00cf9a000000ffff, 0x00af9b000000ffff, 0x00cf93000000ffff\n"
		    ".quad 0x00009a008000ffff, 0x000093000000ffff\n"
		    "r_calls_at: .long r_calls - round_trip");
extern const char r_calls_at[], r_gdt[];

static struct fake_vm *f;
static struct vcpu *v;

/* The hardware of these tests runs nothing. */
static void refuse(struct vcpu *w)
{
	w->event = fake_hw(w)->injected;
	/* What an earlier exit left does not count. */
	w->exit = (struct vm_exit){.kind = EXIT_SOFT, .nbytes = 2, .bytes = {0x0f, 0x0b}, .gpa = FAKE_RAM};
	fake_mode(w, &w->exit);
}

static int setup(void **state)
{
	f = fake_new(1);
	f->on_run = refuse;
	v = &f->vcpu[0];
	vcpu_reset(v);
	for (unsigned s = 0; s < SEGS_USER; s++)
		fake_hw(v)->seg[s] = (struct segment){s == SEG_CS ? AT : 0, 0xffff, s == SEG_CS ? AT >> 4 : 0, 0x93};
	v->regs.rip = 0;
	v->regs.r[R_SP] = 0x7000;
	return 0;
}

static int teardown(void **state)
{
	assert_int_equal(p2m_audit(&f->vm.p2m), 0);
	fake_free(f);
	return 0;
}

static void load(const char *from, const char *end) { fake_poke(f, AT, from, (size_t)(end - from)); }
#define LOAD(name) load(name, name##_end)
#define BYTES(s)   load(s, s + sizeof(s) - 1)

static void steps(unsigned n)
{
	while (n--)
		vcpu_run_once(v);
}

/* To the end of the program: HLT with interrupts off. */
static void run(void)
{
	for (unsigned i = 0; i < 100000 && !atomic_load(&f->vm.ending); i++)
		vcpu_run_once(v);
	if (!strstr(f->vm.end_detail, "halted"))
		print_message("%s\n%s", f->vm.end_detail, host_log());
	assert_string_equal(f->vm.end_detail, "halted with interrupts off");
}

static void linux_trampoline(void **state)
{
	LOAD(trampoline);
	run();
	assert_int_equal(v->exit.mode, MODE_64);
	assert_int_equal(fake_hw(v)->reg[REG_CR0], 0x80010011);
	assert_int_equal(fake_hw(v)->reg[REG_CR4], CR4_PAE);
	assert_int_equal(fake_hw(v)->reg[REG_EFER], EFER_LME | EFER_LMA);
	assert_int_equal(fake_peek(f, DATA, 8), AT + (u64)(trampoline_end - trampoline));
}

static void round_trip_of_all_modes(void **state)
{
	u64 gdt = AT + (u64)(r_gdt - round_trip), calls;

	LOAD(round_trip);
	run();
	assert_int_equal(v->exit.mode, MODE_REAL);
	assert_int_equal(fake_hw(v)->reg[REG_EFER], 0);
	assert_int_equal(fake_peek(f, 0x300000, 4), 0x12345678);
	assert_true(fake_peek(f, DATA + 8, 8) == 0xfedcba9876543210ul);
	calls = fake_peek(f, AT + (u64)(r_calls_at - round_trip), 4);
	assert_int_equal(fake_peek(f, AT + calls, 2), 3);
	assert_int_equal(fake_peek(f, DATA + 0x10, 2), 0x108);
	assert_int_equal(fake_peek(f, gdt + 8 + 5, 1), 0x9b); /* accessed */
}

/* --- Interrupts and exceptions. */

static void vector(unsigned n, u16 sel, u16 ip) { fake_poke(f, n * 4, (u16[]){ip, sel}, 4); }

static void expect_frame(u16 ip, u16 cs, u16 flags)
{
	assert_int_equal(v->regs.r[R_SP], 0x6ffa);
	assert_int_equal(fake_peek(f, 0x6ffa, 2), ip);
	assert_int_equal(fake_peek(f, 0x6ffc, 2), cs);
	assert_int_equal(fake_peek(f, 0x6ffe, 2), flags);
}

static void software_interrupts(void **state)
{
	static const struct {
		const char *code;
		u8 vector, len;
	} t[] = {{"\xcd\x21", 0x21, 2}, {"\xcc\x90", 3, 1}, {"\xce\x90", 4, 1}};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		vector(t[i].vector, 0x1234, 0x5678);
		fake_poke(f, AT, t[i].code, 2);
		fake_hw(v)->seg[SEG_CS].base = AT;
		fake_hw(v)->seg[SEG_CS].sel = AT >> 4;
		v->regs.rip = 0;
		v->regs.r[R_SP] = 0x7000;
		v->regs.rflags = 0x40b02; /* AC, OF, IF, TF */
		steps(1);
		assert_int_equal(v->regs.rip, 0x5678);
		assert_int_equal(fake_hw(v)->seg[SEG_CS].base, 0x12340);
		assert_int_equal(v->regs.rflags, 0x802);
		expect_frame(t[i].len, AT >> 4, 0xb02);
		assert_false(v->event.valid); /* a single step does not end in the handler */
	}
}

static void exceptions_by_vector_table(void **state)
{
	vector(0, 0x100, 0x10);
	BYTES("\xf6\xf1"); /* div cl by 0 */
	v->regs.rflags = 0x10202;
	steps(1);
	assert_true(v->event.valid);
	assert_int_equal(v->regs.rip, 0);
	steps(1);
	expect_frame(0, AT >> 4, 0x202);
	assert_int_equal(v->regs.rip, 0x10);
	assert_int_equal(v->regs.rflags, 2);
	assert_false(v->event.valid);
}

static void enable_apic(void)
{
	struct bus_op svr = {
		.space = BUS_MMIO, .size = 4, .write = true, .addr = LAPIC_DEFAULT_BASE + 0xf0, .val = 0x1ff};

	lapic_mmio(&v->lapic, &svr);
}

/* STI: the next instruction is still undisturbed; so is that behind a load of SS. */
/*
 * Segments loaded in real mode live on in protected mode. VMX refuses one whose DPL is below its RPL, so such a guest,
 * which a processor runs, was stopped or emulated for ever.
 */
static void segments_for_protected_mode(void **state)
{
	for (unsigned s = 0; s < SEGS_USER; s++) {
		if (s == SEG_CS)
			continue;
		fake_poke(f, AT, (u8[]){0x8e, (u8)(0xc0 | s << 3)}, 2); /* mov sreg, ax */
		v->regs.rip = 0;
		v->regs.r[R_AX] = 0x9003;
		steps(1);
		assert_int_equal(fake_hw(v)->seg[s].base, 0x90030);
		assert_int_equal(fake_hw(v)->seg[s].attr, s == SEG_SS ? 0x93 : 0xf3);
	}
}

static void interrupts_and_shadows(void **state)
{
	vector(0x55, 0x200, 0);
	BYTES("\xfb\x90\x90");
	enable_apic();
	lapic_post(&v->lapic, 0x55, false);
	steps(1);
	assert_int_equal(fake_hw(v)->reg[REG_INT_SHADOW], 1);
	steps(1);
	assert_int_equal(v->regs.rip, 2);
	steps(1);
	expect_frame(2, AT >> 4, 0x202);
	v->regs.r[R_SP] = 0x7000;
	v->regs.rip = 0;
	v->regs.rflags = 0x302; /* TF too */
	lapic_post(&v->lapic, 0x65, false);
	vector(0x65, AT >> 4, 0x100);
	vector(1, AT >> 4, 0x110);
	fake_hw(v)->seg[SEG_CS].base = AT;
	fake_hw(v)->reg[REG_INT_SHADOW] = 1;
	BYTES("\x8e\xd0\x90"); /* mov ss, ax */
	steps(1);
	assert_false(v->event.valid);
	steps(1); /* the nop, and its single step */
	assert_int_equal(v->regs.rip, 3);
	assert_int_equal(v->event.vector, VEC_DB);
	steps(1);
	assert_int_equal(v->regs.rip, 0x110);
	assert_int_equal(fake_hw(v)->reg[REG_DR6] & BIT(14), BIT(14));
}

static void halted_until_an_interrupt(void **state)
{
	vector(0x55, 0x200, 0);
	BYTES("\xfb\xf4\x90"); /* sti; hlt */
	enable_apic();
	steps(2);
	assert_true(v->halted);
	assert_false(vcpu_run_once(v));
	assert_false(f->vm.ending);
	lapic_post(&v->lapic, 0x55, false);
	steps(1);
	assert_false(v->halted);
	expect_frame(2, AT >> 4, 0x202);
}

static void nmi_until_iret(void **state)
{
	vector(2, AT >> 4, 0x100);
	fake_poke(f, AT + 0x100, "\xcf", 1);
	BYTES("\x90\x90");
	atomic_or(&v->lapic.events, LAPIC_EV_NMI);
	steps(1);
	assert_int_equal(v->regs.rip, 0x100);
	assert_true(v->nmi_blocked);
	steps(1);
	assert_false(v->nmi_blocked);
	assert_int_equal(v->regs.rip, 0);
}

static void iret_that_sets_tf_steps_after_the_next(void **state)
{
	fake_poke(f, 0x6ffa, (u16[]){1, AT >> 4, 0x102}, 6);
	v->regs.r[R_SP] = 0x6ffa;
	BYTES("\xcf\x90");
	steps(1);
	assert_int_equal(v->regs.rflags, 0x102);
	assert_false(v->event.valid);
	steps(1);
	assert_int_equal(v->event.vector, VEC_DB);
	assert_int_equal(v->regs.rip, 2);
}

static void into_not_taken_is_a_step(void **state)
{
	BYTES("\xce");
	v->regs.rflags = 0x102;
	steps(1);
	assert_int_equal(v->regs.rip, 1);
	assert_int_equal(v->event.vector, VEC_DB);
}

static void single_steps_of_rep(void **state)
{
	v->regs.r[R_CX] = 3;
	v->regs.rflags = 0x102;
	BYTES("\xf3\xaa");
	steps(1);
	assert_int_equal(v->regs.r[R_CX], 2);
	assert_int_equal(v->regs.rip, 0);
	assert_int_equal(v->event.vector, VEC_DB);
}

static void table_too_short(void **state)
{
	fake_hw(v)->seg[SEG_IDTR].limit = 0x30;
	BYTES("\xcd\x21");
	steps(1);
	assert_int_equal(v->event.vector, VEC_GP);
	assert_false(v->event.has_error);
	steps(1);
	assert_int_equal(v->event.vector, VEC_DF);
	fake_hw(v)->seg[SEG_IDTR].limit = 0; /* for the double fault too */
	steps(1);
	assert_int_equal(f->vm.end_reason, END_RESET);
	assert_string_equal(f->vm.end_detail, "triple fault");
}

/*
 * An interrupt's delivery that raises an exception: the vector is in service, and nobody would deliver it again. It
 * comes when the exception's handler returns. Cleave once lost it.
 */
static void interrupt_after_its_delivery_faulted(void **state)
{
	vector(0x55, 0x200, 0);
	vector(VEC_SS, AT >> 4, 0x100);
	BYTES("\x90\x90\x90");
	fake_poke(f, AT + 0x100, "\xbc\x00\x70\xfb\x90\x90", 6); /* mov sp, 7000h; sti */
	v->regs.rflags |= RFLAGS_IF;
	v->regs.r[R_SP] = 1;
	enable_apic();
	lapic_post(&v->lapic, 0x55, false);
	steps(1);
	assert_int_equal(v->event.vector, VEC_SS);
	v->regs.r[R_SP] = 0x6000; /* the handler's stack, which a task gate would have brought */
	steps(4);
	assert_int_equal(v->regs.rip, 0x105);
	assert_false(v->event.valid);
	steps(1);
	assert_int_equal(fake_hw(v)->seg[SEG_CS].base, 0x2000);
	expect_frame(0x105, AT >> 4, 0x202);
}

/* --- Protected mode. */

#define D(base, limit, attr)                                                              \
	((u64)(limit)&0xffff) | ((u64)(base)&0xffffff) << 16 | ((u64)(attr)&0xff) << 40 | \
		((u64)(limit) >> 16 & 15) << 48 | ((u64)(attr) >> 8 & 15) << 52 | ((u64)(base) >> 24) << 56

enum { GDT = 0x1000, LDT = 0x1800, IDT = 0x2000 };

/* Unpaged, flat, CPL 0, 32-bit code at AT. */
static void protect(void)
{
	static const u64 gdt[] = {0,
				  D(AT, 0xfffff, 0xc9b),
				  D(0, 0xfffff, 0xc92),
				  D(0x12345678, 0x9abcd, 0x490), /* 18: read-only */
				  D(0, 0xfffff, 0xc12),          /* 20: not present */
				  D(0, 0xfffff, 0xcf3),          /* 28: DPL 3 */
				  D(LDT, 15, 0x82),              /* 30: an LDT */
				  D(0x5000, 0x67, 0x89),         /* 38: a TSS */
				  D(0, 0xfffff, 0xc98),          /* 40: execute-only code */
				  D(0, 0xfffff, 0xc9e),          /* 48: conforming code */
				  D(0, 0xfffff, 0xe9b),          /* 50: code for 32 and 64 bits */
				  D(0x40, 8, 0x8c)};             /* 58: a call gate */
	static const u64 ldt[] = {0, D(0xabc000, 0xfff, 0x93)};
	struct fake_vcpu *h = fake_hw(v);

	fake_poke(f, GDT, gdt, sizeof(gdt));
	fake_poke(f, LDT, ldt, sizeof(ldt));
	h->reg[REG_CR0] |= CR0_PE;
	h->seg[SEG_GDTR] = (struct segment){.base = GDT, .limit = sizeof(gdt) - 1};
	h->seg[SEG_IDTR] = (struct segment){.base = IDT, .limit = 0x7ff};
	h->seg[SEG_LDTR] = (struct segment){.attr = 0};
	h->seg[SEG_CS] = (struct segment){AT, 0xffffffff, 8, 0xc9b};
	for (unsigned s = 0; s < SEGS_USER; s++)
		if (s != SEG_CS)
			h->seg[s] = (struct segment){0, 0xffffffff, 0x10, 0xc93};
	v->regs.rip = 0;
	v->event.valid = false;
}

static void data_segments(void **state)
{
	static const struct {
		u16 sel, code; /* mov sreg, eax */
		u8 fault;
	} t[] = {
		{0x10, 0xd88e, 0},      {0x18, 0xd88e, 0},      {0x20, 0xd88e, VEC_NP}, {0x28, 0xd88e, 0},
		{0x2b, 0xd88e, 0},      {0x13, 0xd88e, VEC_GP}, /* RPL above DPL */
		{0x30, 0xd88e, VEC_GP}, {0x40, 0xd88e, VEC_GP}, {0x48, 0xd88e, 0},      {0x60, 0xd88e, VEC_GP},
		{0, 0xd88e, 0},         {3, 0xd88e, 0},         {0x0c, 0xd88e, VEC_GP}, /* no LDT */
		{0x10, 0xd08e, 0},      {0, 0xd08e, VEC_GP},    {0x18, 0xd08e, VEC_GP}, {0x20, 0xd08e, VEC_SS},
		{0x28, 0xd08e, VEC_GP}, {0x08, 0xd08e, VEC_GP}, {0x11, 0xd08e, VEC_GP},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		enum seg s = t[i].code >> 11 & 7;

		protect();
		fake_poke(f, AT, &t[i].code, 2);
		v->regs.r[R_AX] = t[i].sel;
		steps(1);
		if (v->event.valid != !!t[i].fault)
			print_message("%u\n", i);
		assert_int_equal(v->event.valid, !!t[i].fault);
		if (t[i].fault) {
			assert_int_equal(v->event.vector, t[i].fault);
			assert_int_equal(v->event.error, t[i].sel & ~3);
			assert_int_equal(fake_hw(v)->seg[s].sel, 0x10);
		} else {
			assert_int_equal(fake_hw(v)->seg[s].sel, t[i].sel);
		}
	}
	protect();
	BYTES("\x8e\xd8");
	v->regs.r[R_AX] = 0x18;
	steps(1);
	assert_int_equal(fake_hw(v)->seg[SEG_DS].base, 0x12345678);
	assert_int_equal(fake_hw(v)->seg[SEG_DS].limit, 0x9abcd);
	assert_int_equal(fake_hw(v)->seg[SEG_DS].attr, 0x491);
	assert_int_equal(fake_peek(f, GDT + 0x18 + 5, 1), 0x91); /* accessed from now on */
}

static void local_tables_and_tasks(void **state)
{
	protect();
	BYTES("\x0f\x00\xd0\x8e\xd9\x0f\x00\xda\x0f\x00\xcb\x0f\x00\xda"); /* lldt ax; mov ds, cx; ltr dx; str bx; ltr
									    */
	v->regs.r[R_AX] = 0x30;
	v->regs.r[R_CX] = 0x0c;
	v->regs.r[R_DX] = 0x38;
	steps(4);
	assert_int_equal(fake_hw(v)->seg[SEG_LDTR].base, LDT);
	assert_int_equal(fake_hw(v)->seg[SEG_DS].base, 0xabc000);
	assert_int_equal(fake_hw(v)->seg[SEG_TR].attr, 0x8b);
	assert_int_equal(fake_peek(f, GDT + 0x38 + 5, 1), 0x8b); /* busy */
	assert_int_equal(v->regs.r[R_BX] & 0xffff, 0x38);
	steps(1);
	assert_int_equal(v->event.vector, VEC_GP); /* busy */
	assert_int_equal(v->event.error, 0x38);
}

static void far_transfers(void **state)
{
	static const struct {
		u16 sel;
		u8 fault;
	} t[] = {{8, 0}, {0x40, 0}, {0x48, 0}, {9, VEC_GP}, {0x10, VEC_GP}, {0, VEC_GP}, {0x50, VEC_GP}};
	u8 jump[] = {0xea, 0x78, 0x56, 0x34, 0x00, 0, 0};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		protect();
		jump[5] = (u8)t[i].sel;
		fake_poke(f, AT, jump, sizeof(jump));
		steps(1);
		assert_int_equal(v->event.valid, !!t[i].fault);
		assert_int_equal(v->regs.rip, t[i].fault ? 0 : 0x345678);
		if (t[i].fault)
			assert_int_equal(v->event.error, t[i].sel & ~3);
		else
			assert_int_equal(fake_hw(v)->seg[SEG_CS].sel, t[i].sel);
	}
	protect();
	jump[5] = 0x58;
	fake_poke(f, AT, jump, sizeof(jump));
	steps(1);
	assert_int_equal(f->vm.end_reason, END_CRASH);
	assert_non_null(strstr(f->vm.end_detail, "not emulated"));
}

static u64 gate(u16 sel, u32 offset, u8 type)
{
	return (offset & 0xffff) | (u64)sel << 16 | (u64)type << 40 | (u64)(offset >> 16) << 48;
}

static void set_gate(unsigned n, u64 g) { fake_poke(f, IDT + n * 8, &g, 8); }

static void interrupts_by_gates(void **state)
{
	protect();
	set_gate(0x21, gate(8, 0x123456, 0x8f)); /* a trap gate: IF stays */
	set_gate(VEC_GP, gate(8, 0x100, 0x8e));
	fake_poke(f, AT + 0x100, "\x83\xc4\x04\xcf", 4); /* add esp, 4; iret */
	BYTES("\xcd\x21");
	v->regs.rflags = 0x4302;
	steps(1);
	assert_int_equal(v->regs.rip, 0x123456);
	assert_int_equal(v->regs.rflags, 0x202);
	assert_int_equal(v->regs.r[R_SP], 0x6ff4);
	assert_int_equal(fake_peek(f, 0x6ff4, 4), 2);
	assert_int_equal(fake_peek(f, 0x6ff8, 4), 8);
	assert_int_equal(fake_peek(f, 0x6ffc, 4), 0x4302);
	/* A fault with an error code, and back. */
	protect();
	BYTES("\xcd\x22"); /* no gate */
	v->regs.rflags = 0x202;
	v->regs.r[R_SP] = 0x7000;
	steps(2);
	assert_int_equal(v->regs.rip, 0x100);
	assert_int_equal(v->regs.rflags, 2);
	assert_int_equal(fake_peek(f, 0x6ff0, 4), 0x22 * 8 + 2);
	assert_int_equal(fake_peek(f, 0x6ffc, 4), 0x10202); /* with RF */
	steps(2);
	assert_int_equal(v->regs.rip, 0);
	assert_int_equal(v->regs.rflags, 0x10202);
	assert_int_equal(v->regs.r[R_SP], 0x7000);
	/* Not present; of 16 bits; a task gate. */
	set_gate(0x22, gate(8, 0, 0x0e));
	steps(1);
	assert_int_equal(v->event.vector, VEC_NP);
	protect();
	set_gate(0x22, gate(8, 0xff001234, 0x86));
	steps(1);
	assert_int_equal(v->regs.rip, 0x1234);
	assert_int_equal(v->regs.r[R_SP], 0x6ffa);
	protect();
	set_gate(0x22, gate(0x38, 0, 0x85));
	steps(1);
	assert_int_equal(f->vm.end_reason, END_CRASH);
}

static void external_errors_say_so(void **state)
{
	protect();
	v->regs.rflags = 0x202;
	BYTES("\x90");
	enable_apic();
	lapic_post(&v->lapic, 0x55, false);
	steps(1);
	assert_int_equal(v->event.vector, VEC_GP);
	assert_int_equal(v->event.error, 0x55 * 8 + 3);
}

/* --- Other instructions. */

static void table_registers(void **state)
{
	protect();
	fake_poke(f, DATA, "\x34\x12\x78\x56\x34\xff", 6);
	v->regs.r[R_BX] = DATA;
	BYTES("\x0f\x01\x13\x66\x0f\x01\x1b\x0f\x01\x43\x10\x0f\x01\x0b"); /* lgdt; lidt of 24 bits; sgdt; sidt */
	steps(4);
	assert_int_equal(fake_hw(v)->seg[SEG_GDTR].base, 0xff345678);
	assert_int_equal(fake_hw(v)->seg[SEG_GDTR].limit, 0x1234);
	assert_int_equal(fake_hw(v)->seg[SEG_IDTR].base, 0x345678);
	assert_int_equal(fake_peek(f, DATA + 0x10, 6), 0xff3456781234);
	assert_int_equal(fake_peek(f, DATA, 6), 0x003456781234);
}

static void msrs(void **state)
{
	BYTES("\x0f\x32\x0f\x30\x0f\x30");
	v->regs.r[R_CX] = MSR_PAT;
	steps(1);
	assert_int_equal(v->regs.r[R_AX], 0x00070406);
	assert_int_equal(v->regs.r[R_DX], 0x00070406);
	v->regs.r[R_AX] = 0x01010101;
	steps(1);
	assert_int_equal(fake_hw(v)->reg[REG_PAT], 0x0007040601010101);
	v->regs.r[R_AX] = 2;
	steps(1);
	assert_int_equal(v->event.vector, VEC_GP);
	assert_int_equal(v->regs.rip, 4);
}

static void debug_registers(void **state)
{
	BYTES("\x0f\x23\xd0\x0f\x21\xd3\x0f\x23\xf0\x0f\x21\xe3\x0f\x23\xf8\x0f\x21\xe3");
	v->regs.r[R_AX] = 0xffffffff;
	steps(2); /* mov dr2, eax; mov ebx, dr2 */
	assert_int_equal(v->dr[2], 0xffffffff);
	assert_int_equal(v->regs.r[R_BX], 0xffffffff);
	steps(2); /* mov dr6, eax; mov ebx, dr4 */
	assert_int_equal(fake_hw(v)->reg[REG_DR6], 0xffffefff);
	assert_int_equal(v->regs.r[R_BX], 0xffffefff);
	steps(1); /* mov dr7, eax */
	assert_int_equal(fake_hw(v)->reg[REG_DR7], 0xffff27ff);
	fake_hw(v)->reg[REG_CR4] = CR4_DE;
	steps(1);
	assert_int_equal(v->event.vector, VEC_UD);
}

static void counters(void **state)
{
	BYTES("\x0f\x31\x0f\x33");
	host_set_now(0x123456789a);
	steps(1);
	assert_int_equal(v->regs.r[R_AX], 0x3456789a);
	assert_int_equal(v->regs.r[R_DX], 0x12);
	steps(1);
	assert_int_equal(v->event.vector, VEC_GP); /* no performance counters */
}

/* What is fetched lies within CS; one byte more is #GP, as if it had not been there. */
static void code_limit(void **state)
{
	fake_hw(v)->seg[SEG_CS].limit = 2;
	BYTES("\x90\x89\xc3\x90");
	steps(2);
	assert_int_equal(v->regs.rip, 3);
	assert_false(v->event.valid);
	steps(1);
	assert_int_equal(v->event.vector, VEC_GP);
	v->event.valid = false;
	v->regs.rip = 2;
	steps(1);
	assert_int_equal(v->event.vector, VEC_GP);
}

/* Out of protected mode in 32-bit code; the jump that follows is of 32-bit code too. */
static void leaving_protected_mode(void **state)
{
	protect();
	BYTES("\x0f\x22\xc0\x66\xea\x34\x12\x00\x20"); /* mov cr0, eax; ljmpw */
	v->regs.r[R_AX] = CR0_ET;
	fake_hw(v)->seg[SEG_DS] = (struct segment){.limit = 0};
	steps(2);
	assert_int_equal(v->exit.mode, MODE_REAL);
	assert_int_equal(v->regs.rip, 0x1234);
	assert_int_equal(fake_hw(v)->seg[SEG_CS].base, 0x20000);
	fake_poke(f, 0x21234, "\x8e\xdb", 2); /* mov ds, ebx: usable again */
	steps(1);
	assert_int_equal(fake_hw(v)->seg[SEG_DS].attr, 0x93);
}

/* 32-bit code on a 16-bit stack: between the far jump into protected mode and the load of SS. */
static void narrow_stack(void **state)
{
	protect();
	fake_hw(v)->seg[SEG_SS] = (struct segment){0, 0xffff, 0, 0x93};
	v->regs.r[R_SP] = 0xabcd7000;
	BYTES("\x50");
	steps(1);
	assert_int_equal(v->regs.r[R_SP], 0xabcd6ffc);
}

static void unknown_ones_are_told(void **state)
{
	BYTES("\xdb\xe3"); /* fninit */
	steps(1);
	assert_int_equal(f->vm.end_reason, END_CRASH);
	assert_non_null(strstr(f->vm.end_detail, "not emulated at 0"));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(linux_trampoline),
		T(round_trip_of_all_modes),
		T(software_interrupts),
		T(exceptions_by_vector_table),
		T(segments_for_protected_mode),
		T(interrupts_and_shadows),
		T(halted_until_an_interrupt),
		T(nmi_until_iret),
		T(iret_that_sets_tf_steps_after_the_next),
		T(into_not_taken_is_a_step),
		T(single_steps_of_rep),
		T(table_too_short),
		T(interrupt_after_its_delivery_faulted),
		T(data_segments),
		T(local_tables_and_tasks),
		T(far_transfers),
		T(interrupts_by_gates),
		T(external_errors_say_so),
		T(table_registers),
		T(msrs),
		T(debug_registers),
		T(counters),
		T(code_limit),
		T(leaving_protected_mode),
		T(narrow_stack),
		T(unknown_ones_are_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
