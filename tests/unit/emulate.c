/* SPDX-License-Identifier: MIT */
/* The emulator's world: segments, guest page tables, RAM, ROM and devices; and writes to control registers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/host/fake_vm.h"

#define AX regs.r[R_AX]
#define BX regs.r[R_BX]
#define DI regs.r[R_DI]
#define SI regs.r[R_SI]
#define CX regs.r[R_CX]

#define VA 0x40000000ul /* a page that tests map as they like */

static struct fake_vm *f;
static struct vcpu *v;

static int setup(void **state)
{
	f = fake_new(1);
	v = &f->vcpu[0];
	return 0;
}

static int teardown(void **state)
{
	fake_free(f);
	return 0;
}

static void expect_fault(u8 vector, u32 error)
{
	assert_true(v->event.valid);
	assert_int_equal(v->event.vector, vector);
	assert_int_equal(v->event.error, error);
	assert_int_equal(v->regs.rip, FAKE_CODE);
	assert_int_equal(f->vm.ending, 0);
}

static void mmio_sizes(void **state)
{
	f->answer = 0x8877665544332211ul;
	v->BX = FAKE_MMIO + 8;
	CODE(f, "\x8a\x03"); /* mov al, [rbx] */
	v->AX = ~0ul;
	assert_int_equal(fake_npf(f, FAKE_MMIO + 8, P2M_READ), OUT_RESUME);
	assert_int_equal(v->AX, 0xffffffffffffff11ul);
	assert_int_equal(v->regs.rip, FAKE_CODE + 2);
	CODE(f, "\x8b\x03");
	fake_npf(f, FAKE_MMIO + 8, P2M_READ);
	assert_int_equal(v->AX, 0x44332211);
	CODE(f, "\x48\x8b\x03");
	fake_npf(f, FAKE_MMIO + 8, P2M_READ);
	assert_int_equal(v->AX, 0x8877665544332211ul);
	CODE(f, "\x66\x89\x43\x02"); /* mov [rbx + 2], ax */
	fake_npf(f, FAKE_MMIO + 10, P2M_WRITE);
	assert_int_equal(f->ops, 4);
	assert_int_equal(f->op[0].size, 1);
	assert_int_equal(f->op[2].size, 8);
	assert_int_equal(f->op[3].size, 2);
	assert_int_equal(f->op[3].addr, FAKE_MMIO + 10);
	assert_int_equal(f->op[3].val, 0x2211);
	assert_int_equal(v->exits[EXIT_MMIO], 4);
	assert_int_equal(v->exits[EXIT_NPF], 0);
}

static void mmio_read_modify_write(void **state)
{
	f->answer = 0xf0;
	v->BX = FAKE_MMIO;
	CODE(f, "\x83\x0b\x05"); /* or dword [rbx], 5 */
	fake_npf(f, FAKE_MMIO, P2M_READ);
	assert_int_equal(f->ops, 2);
	assert_int_equal(f->op[1].val, 0xf5);
	CODE(f, "\xf0\x83\x0b\x0a"); /* lock or */
	fake_npf(f, FAKE_MMIO, P2M_WRITE);
	assert_int_equal(f->op[f->ops - 1].val, 0xfa);
	assert_true(f->op[f->ops - 1].write);
}

static void mmio_xmm(void **state)
{
	v->BX = FAKE_MMIO;
	memcpy(fake_xmms[1], "0123456789abcdef", 16);
	CODE(f, "\x0f\x11\x0b"); /* movups [rbx], xmm1 */
	fake_npf(f, FAKE_MMIO, P2M_WRITE);
	assert_int_equal(f->ops, 2);
	assert_int_equal(f->op[1].size, 8);
	assert_int_equal(f->op[1].addr, FAKE_MMIO + 8);
	assert_memory_equal(&f->op[1].val, "89abcdef", 8);
	f->answer = 0x4142434445464748ul;
	CODE(f, "\x0f\x10\x13");
	fake_npf(f, FAKE_MMIO, P2M_READ);
	assert_memory_equal(fake_xmms[2], "HGFEDCBAHGFEDCBA", 16);
}

static void local_apic_page(void **state)
{
	v->BX = LAPIC_DEFAULT_BASE + 0x30;
	CODE(f, "\x8b\x03");
	fake_npf(f, LAPIC_DEFAULT_BASE + 0x30, P2M_READ);
	assert_int_equal(v->AX, LAPIC_VERSION);
	assert_int_equal(guest_wrmsr(v, MSR_APIC_BASE,
				     LAPIC_DEFAULT_BASE | LAPIC_BASE_ENABLE | LAPIC_BASE_X2APIC | LAPIC_BASE_BSP),
			 0);
	CODE(f, "\x8b\x03"); /* gone in x2APIC mode */
	fake_npf(f, LAPIC_DEFAULT_BASE + 0x30, P2M_READ);
	assert_int_equal(v->AX, 0xffffffff);
}

static void movs_between_ram_and_device(void **state)
{
	v->SI = FAKE_RAM;
	v->DI = FAKE_MMIO;
	v->CX = 3;
	fake_poke(f, FAKE_RAM, "abcdefghijkl", 12);
	CODE(f, "\xf3\xa5"); /* rep movsd */
	fake_npf(f, FAKE_MMIO, P2M_WRITE);
	assert_int_equal(f->ops, 3);
	assert_memory_equal(&f->op[2].val, "ijkl", 4);
	assert_int_equal(v->CX, 0);
	/* Both at the same place of their pages: the address that faulted is that of the device, not of the RAM. */
	assert_int_equal(f->op[0].addr, FAKE_MMIO);
}

/*
 * A selector read from a device: its descriptor is fetched with the rights of the supervisor, whoever loads it, and is
 * not what the device has at the same place of its page.
 */
static void segment_from_device(void **state)
{
	u64 d = 0x00cff2000000ffff; /* data for CPL 3 */

	fake_long_mode(v, 3);
	fake_hw(v)->seg[SEG_GDTR] = (struct segment){.base = VA, .limit = 0x1f};
	fake_map(f, VA, FAKE_RAM | PTE_P | PTE_W);
	fake_poke(f, FAKE_RAM + 0x18, &d, 8);
	f->answer = 0x1b;
	v->BX = FAKE_MMIO + 0x18;
	CODE(f, "\x8e\x1b"); /* mov ds, [rbx] */
	fake_npf(f, FAKE_MMIO + 0x18, P2M_READ);
	assert_false(v->event.valid);
	assert_int_equal(f->ops, 1);
	assert_int_equal(fake_hw(v)->seg[SEG_DS].sel, 0x1b);
	assert_int_equal(fake_peek(f, FAKE_RAM + 0x1d, 1), 0xf3);
	f->answer = 0x1a; /* a stack segment of another level */
	CODE(f, "\x8e\x13");
	fake_npf(f, FAKE_MMIO + 0x18, P2M_READ);
	expect_fault(VEC_GP, 0x18);
}

static void push_from_device(void **state)
{
	v->BX = FAKE_MMIO + 0xff8;
	v->regs.r[R_SP] = FAKE_RAM + 0x2000; /* pushes to the same offset in its page */
	f->answer = 0x1234;
	CODE(f, "\xff\x33"); /* push qword [rbx] */
	fake_npf(f, FAKE_MMIO + 0xff8, P2M_READ);
	assert_int_equal(f->ops, 1);
	assert_int_equal(fake_peek(f, FAKE_RAM + 0x1ff8, 8), 0x1234);
}

/* Xen XSA-112: an access over the end of a device reached memory behind its buffer. */
static void straddles_ram_and_device(void **state)
{
	fake_map(f, VA, (FAKE_RAM) | PTE_PWU);
	fake_map(f, VA + 0x1000, FAKE_MMIO | PTE_PWU);
	v->BX = VA + 0xffd;
	v->AX = 0x8877665544332211ul;
	CODE(f, "\x48\x89\x03");
	fake_npf(f, FAKE_MMIO, P2M_WRITE);
	assert_int_equal(fake_peek(f, FAKE_RAM + 0xffd, 3), 0x332211);
	assert_int_equal(f->ops, 2); /* five bytes: four and one */
	assert_int_equal(f->op[0].size, 4);
	assert_int_equal(f->op[0].addr, FAKE_MMIO);
	assert_int_equal(f->op[0].val, 0x77665544);
	assert_int_equal(f->op[1].size, 1);
	assert_int_equal(f->op[1].val, 0x88);
}

static void faults_leave_nothing_half_written(void **state)
{
	fake_map(f, VA, FAKE_RAM | PTE_PWU);
	fake_map(f, VA + 0x1000, 0);
	fake_poke(f, FAKE_RAM + 0xffc, "....", 4);
	v->BX = VA + 0xffc;
	CODE(f, "\x48\x89\x03");
	fake_npf(f, FAKE_MMIO + 4, P2M_WRITE);
	expect_fault(VEC_PF, PF_WRITE);
	assert_int_equal(fake_hw(v)->reg[REG_CR2], VA + 0x1000);
	assert_int_equal(fake_peek(f, FAKE_RAM + 0xffc, 4), 0x2e2e2e2e);
}

static void page_faults_as_hardware(void **state)
{
	static const struct {
		u64 pte;
		const char *code;
		unsigned cpl;
		u32 error;
	} t[] = {
		{0, "\x8b\x03\x90", 0, 0},
		{0, "\x89\x03\x90", 3, PF_WRITE | PF_USER},
		{FAKE_MMIO | PTE_P, "\x8b\x03\x90", 3, PF_PRESENT | PF_USER},
		{FAKE_MMIO | PTE_P, "\x89\x03\x90", 0, PF_PRESENT | PF_WRITE},
		{FAKE_MMIO | PTE_PWU | BIT(51), "\x8b\x03\x90", 0, PF_PRESENT | PF_RSVD},
		{FAKE_MMIO | PTE_P, "\x83\x0b\x05", 0, PF_PRESENT | PF_WRITE}, /* read to be written */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		fake_map(f, VA, t[i].pte);
		fake_long_mode(v, t[i].cpl);
		v->event.valid = false;
		v->BX = VA + 0x123;
		fake_code(f, t[i].code, 3);
		fake_npf(f, 0xe1000000, P2M_WRITE);
		expect_fault(VEC_PF, t[i].error);
		assert_int_equal(fake_hw(v)->reg[REG_CR2], VA + 0x123);
		assert_int_equal(f->ops, 0);
	}
}

static void rom_writes_vanish(void **state)
{
	p2m_write_rom(&f->vm.p2m, 0xe0000, "RSD ", 4);
	v->BX = 0xe0000;
	CODE(f, "\x89\x03");
	assert_int_equal(fake_npf(f, 0xe0000, P2M_WRITE), OUT_RESUME);
	assert_int_equal(v->regs.rip, FAKE_CODE + 2);
	assert_int_equal(fake_peek(f, 0xe0000, 4), 0x20445352);
	CODE(f, "\x83\x03\x01"); /* add dword [rbx], 1 */
	assert_int_equal(fake_npf(f, 0xe0000, P2M_WRITE), OUT_RESUME);
	assert_int_equal(fake_peek(f, 0xe0000, 4), 0x20445352);
}

static void nobody_answers_ones(void **state)
{
	v->BX = 0xd8000000;
	CODE(f, "\x8b\x03");
	fake_npf(f, 0xd8000000, P2M_READ);
	assert_int_equal(v->AX, 0xffffffff);
}

static void canonical_and_stack_faults(void **state)
{
	v->BX = 0x0000800000000000ul;
	CODE(f, "\x8b\x03");
	fake_npf(f, FAKE_MMIO, P2M_READ);
	expect_fault(VEC_GP, 0);
	v->event.valid = false;
	v->regs.r[R_BP] = 0xffff7ffffffffffful;
	CODE(f, "\x8b\x45\x00"); /* by SS */
	fake_npf(f, FAKE_MMIO, P2M_READ);
	expect_fault(VEC_SS, 0);
	v->event.valid = false;
	fake_hw(v)->seg[SEG_GS].base = FAKE_MMIO;
	v->BX = 0x20;
	CODE(f, "\x65\x8b\x03");
	fake_npf(f, FAKE_MMIO + 0x20, P2M_READ);
	assert_int_equal(f->op[0].addr, FAKE_MMIO + 0x20);
}

static void protected_mode_segments(void **state)
{
	static const struct {
		u16 attr;
		u32 limit;
		u64 off;
		bool write, ok;
	} t[] = {
		{0xc93, 0xffffffff, 0x10, true, true},
		{0x493, 0x0fff, 0x0ffc, false, true},
		{0x493, 0x0fff, 0x0ffd, false, false},
		{0x493, 0x0fff, 0xfffffffc, false, false},
		{0xc91, 0xffffffff, 0x10, false, true},
		{0xc91, 0xffffffff, 0x10, true, false}, /* read-only */
		{0xc9b, 0xffffffff, 0x10, false, true},
		{0xc9b, 0xffffffff, 0x10, true, false},  /* code */
		{0xc99, 0xffffffff, 0x10, false, false}, /* execute-only */
		{0xc13, 0xffffffff, 0x10, false, false}, /* not present */
		{0x497, 0x0fff, 0x1000, true, true},     /* expands down */
		{0x497, 0x0fff, 0x0ffc, true, false},
		{0x097, 0x0fff, 0xfffd, true, false}, /* 16-bit, over its end */
	};

	fake_hw(v)->reg[REG_CR0] = CR0_PE | CR0_ET;
	fake_hw(v)->reg[REG_EFER] = 0;
	fake_hw(v)->seg[SEG_CS].attr = 0xc9b;
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		fake_hw(v)->seg[SEG_DS] = (struct segment){FAKE_MMIO - 0x1000, t[i].limit, 0x18, t[i].attr};
		v->event.valid = false;
		v->BX = t[i].off;
		if (t[i].write)
			CODE(f, "\x89\x03");
		else
			CODE(f, "\x8b\x03");
		assert_int_equal(fake_npf(f, 0xe1000000, P2M_WRITE), OUT_RESUME);
		assert_int_equal(v->event.valid, !t[i].ok);
		if (!t[i].ok)
			expect_fault(VEC_GP, 0);
	}
}

static void real_mode(void **state)
{
	vcpu_reset(v);
	for (unsigned s = 0; s < SEGS_USER; s++)
		fake_hw(v)->seg[s] = (struct segment){s == SEG_CS ? 0x10000 : 0xb0000, 0xffff, 0xb000, 0x93};
	fake_poke(f, 0x10010, "\x89\x07", 2); /* mov [bx], ax */
	v->regs.rip = 0x10;
	v->BX = 0x1234;
	v->AX = 0x5678;
	assert_int_equal(fake_npf(f, 0xb1234, P2M_WRITE), OUT_RESUME);
	assert_int_equal(v->regs.rip, 0x12);
	v->BX = 0xffff;
	v->regs.rip = 0x10;
	fake_npf(f, 0xb1234, P2M_WRITE);
	assert_int_equal(v->event.vector, VEC_GP);
	assert_false(v->event.has_error);
}

static void bytes_from_the_cpu(void **state)
{
	struct vm_exit x = {.kind = EXIT_NPF, .gpa = FAKE_MMIO, .access = P2M_READ, .nbytes = 2};

	CODE(f, "\xcc\xcc");
	memcpy(x.bytes, "\x8b\x03", 2);
	v->BX = FAKE_MMIO;
	assert_int_equal(fake_exit(f, x), OUT_RESUME);
	assert_int_equal(f->ops, 1);
	v->regs.rip = FAKE_CODE;
	CODE(f, "\x8b\x84\x24\x00\x00\x00\x00"); /* too few were delivered: fetched */
	memcpy(x.bytes, "\x8b\x84", 2);
	v->regs.r[R_SP] = FAKE_MMIO;
	fake_exit(f, x);
	assert_int_equal(f->ops, 2);
}

static void fetch_faults(void **state)
{
	fake_map(f, VA, 0);
	v->regs.rip = VA;
	assert_int_equal(fake_npf(f, FAKE_MMIO, P2M_READ), OUT_RESUME);
	assert_int_equal(v->event.vector, VEC_PF);
	assert_int_equal(fake_hw(v)->reg[REG_CR2], VA);
	v->event.valid = false;
	/* An instruction that ends before a page which is not there does not need that page. */
	fake_map(f, VA, FAKE_RAM | PTE_PWU);
	fake_map(f, VA + 0x1000, 0);
	fake_poke(f, FAKE_RAM + 0xffe, "\x8b\x03", 2);
	v->regs.rip = VA + 0xffe;
	v->BX = FAKE_MMIO;
	assert_int_equal(fake_npf(f, FAKE_MMIO, P2M_READ), OUT_RESUME);
	assert_false(v->event.valid);
	assert_int_equal(v->regs.rip, VA + 0x1000);
	fake_poke(f, FAKE_RAM + 0xffe, "\x8b\x80", 2);
	v->regs.rip = VA + 0xffe;
	fake_npf(f, FAKE_MMIO, P2M_READ);
	assert_int_equal(v->event.vector, VEC_PF);
	assert_int_equal(fake_hw(v)->reg[REG_CR2], VA + 0x1000);
}

static void undefined_and_unknown(void **state)
{
	CODE(f, "\x0f\x0b"); /* ud2 */
	fake_npf(f, FAKE_MMIO, P2M_READ);
	assert_int_equal(v->event.vector, VEC_UD);
	v->event.valid = false;
	CODE(f, "\x0f\x01\xf8"); /* swapgs: not one that accesses memory */
	assert_int_equal(fake_npf(f, FAKE_MMIO, P2M_READ), OUT_STOP);
	assert_int_equal(f->vm.end_reason, END_CRASH);
	assert_non_null(strstr(host_log(), "code: 0f 01 f8"));
}

static void code_without_ram(void **state)
{
	fake_map(f, VA, 0xd8000000 | PTE_PWU);
	v->regs.rip = VA;
	assert_int_equal(fake_npf(f, FAKE_MMIO, P2M_READ), OUT_STOP);
	assert_int_equal(f->vm.end_reason, END_CRASH);
}

static void page_tables_without_ram(void **state)
{
	fake_hw(v)->reg[REG_CR3] = 0xd8000000;
	assert_int_equal(fake_npf(f, FAKE_MMIO, P2M_READ), OUT_STOP);
	assert_int_equal(f->vm.end_reason, END_CRASH);
}

static void cr8_by_emulation(void **state)
{
	v->AX = 0xb;
	CODE(f, "\x44\x0f\x22\xc0"); /* mov cr8, rax */
	assert_int_equal(fake_exit(f, (struct vm_exit){.kind = EXIT_CR}), OUT_RESUME);
	assert_int_equal(lapic_get_cr8(&v->lapic), 0xb);
	v->AX = 0x10;
	CODE(f, "\x44\x0f\x22\xc0");
	fake_exit(f, (struct vm_exit){.kind = EXIT_CR});
	expect_fault(VEC_GP, 0);
	v->event.valid = false;
	fake_long_mode(v, 3);
	v->AX = 1;
	CODE(f, "\x44\x0f\x22\xc0");
	fake_exit(f, (struct vm_exit){.kind = EXIT_CR});
	expect_fault(VEC_GP, 0);
}

static void control_registers(void **state)
{
	u64 *r = fake_hw(v)->reg;

	assert_int_equal(guest_write_cr(v, 0, CR0_PG), -EINVAL);
	assert_int_equal(guest_write_cr(v, 0, r[REG_CR0] | CR0_NW), -EINVAL);
	assert_int_equal(guest_write_cr(v, 0, r[REG_CR0] | BIT(32)), -EINVAL);
	assert_int_equal(guest_write_cr(v, 0, r[REG_CR0] & ~CR0_PG), -EINVAL); /* in 64-bit mode */
	assert_int_equal(guest_write_cr(v, 0, r[REG_CR0] | CR0_TS), 0);
	assert_int_equal(guest_write_cr(v, 3, BIT(40)), -EINVAL);
	assert_int_equal(guest_write_cr(v, 3, 0x5000), 0);
	assert_int_equal(guest_write_cr(v, 4, 0), -EINVAL); /* PAE is needed */
	assert_int_equal(guest_write_cr(v, 4, CR4_PAE | CR4_VMXE), -EINVAL);
	assert_int_equal(guest_write_cr(v, 4, CR4_PAE | CR4_LA57), -EINVAL);
	assert_int_equal(guest_write_cr(v, 4, CR4_PAE | CR4_PCIDE | CR4_OSXSAVE), 0);
	assert_int_equal(guest_write_cr(v, 3, BIT(63) | 0x5003), 0);
	assert_int_equal(r[REG_CR3], 0x5003);
	assert_int_equal(guest_write_cr(v, 4, CR4_PAE), 0);
	assert_int_equal(guest_write_cr(v, 4, CR4_PAE | CR4_PCIDE), -EINVAL); /* with a PCID in CR3 */
	assert_int_equal(guest_write_cr(v, 1, 0), -EINVAL);
	assert_true(f->hw[0].flushes > 3);
	/* Into long mode and out of it. */
	r[REG_CR0] = CR0_PE | CR0_ET;
	r[REG_EFER] = EFER_LME;
	fake_hw(v)->seg[SEG_CS].attr = 0xc9b;
	r[REG_CR4] = 0;
	assert_int_equal(guest_write_cr(v, 0, CR0_PE | CR0_PG), -EINVAL);
	r[REG_CR4] = CR4_PAE;
	assert_int_equal(guest_write_cr(v, 0, CR0_PE | CR0_PG), 0);
	assert_int_equal(r[REG_EFER], EFER_LME | EFER_LMA);
	fake_mode(v, &v->exit);
	assert_int_equal(guest_write_cr(v, 0, CR0_PE), 0);
	assert_int_equal(r[REG_EFER], EFER_LME);
}

/* PAE paging's top entries are loaded and checked with CR0, CR3 and CR4, on Intel's processors. */
static void pae_tables_are_checked(void **state)
{
	u64 *r = fake_hw(v)->reg, e[4] = {0x5001, 0x6019, 0, 0xe00 | 0x7001};

	r[REG_CR0] = CR0_PE | CR0_ET;
	r[REG_CR4] = CR4_PAE;
	r[REG_EFER] = 0;
	fake_hw(v)->seg[SEG_CS].attr = 0xc9b;
	fake_mode(v, &v->exit);
	fake_poke(f, FAKE_RAM + 0x20, e, sizeof(e));
	assert_int_equal(guest_write_cr(v, 3, FAKE_RAM + 0x20), 0); /* not yet */
	assert_int_equal(r[REG_PDPTE], 0);
	assert_int_equal(guest_write_cr(v, 0, CR0_PE | CR0_PG), 0);
	assert_memory_equal(&r[REG_PDPTE], e, sizeof(e));
	static const u64 bad[] = {0x5003, 0x5005, 0x5021, 0x5101, BIT(40) | 1, BIT(63) | 1};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		fake_poke(f, FAKE_RAM + 0x38, &bad[i], 8);
		assert_int_equal(guest_write_cr(v, 3, FAKE_RAM + 0x20), -EINVAL);
		assert_int_equal(guest_write_cr(v, 4, CR4_PAE | CR4_PGE), -EINVAL);
		assert_int_equal(guest_write_cr(v, 0, CR0_PE | CR0_PG | CR0_WP), -EINVAL);
	}
	assert_memory_equal(&r[REG_PDPTE], e, sizeof(e));
	assert_int_equal(r[REG_CR0], CR0_PE | CR0_PG | CR0_ET);
	assert_int_equal(guest_write_cr(v, 3, FAKE_MMIO), -EINVAL);
	fake_feature(FEAT_SVM, true); /* checked when they are walked */
	assert_int_equal(guest_write_cr(v, 3, FAKE_RAM + 0x20), 0);
}

/* Memory that was given back reads ones and loses what is written, by whatever instruction: the guest goes on. */
static void memory_that_was_given_back_is_like_none(void **state)
{
	static const struct {
		const char *code;
		unsigned len, access;
		u64 offset;
	} t[] = {
		{"\x8b\x03", 2, P2M_READ, 0},          /* mov eax, [rbx] */
		{"\x83\x0b\x05", 3, P2M_WRITE, 0},     /* or dword [rbx], 5 */
		{"\xf0\x83\x0b\x05", 4, P2M_WRITE, 0}, /* lock or */
		{"\xf3\xa4", 2, P2M_READ, 0},          /* rep movsb, from one such page into another */
		{"\x8b\x03", 2, P2M_READ, 4094},       /* over two of them */
	};
	const u64 page = 0x305;

	f->answer = ~0ul;
	for (u64 gfn = page; gfn <= page + 1; gfn++)
		assert_int_equal(p2m_balloon(&f->vm.p2m, GFN(gfn), 0, NULL), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		v->BX = v->SI = (page << PAGE_SHIFT) + t[i].offset;
		v->DI = (page + 1) << PAGE_SHIFT;
		v->CX = 4;
		fake_code(f, t[i].code, t[i].len);
		assert_int_equal(fake_npf(f, v->BX, t[i].access), OUT_RESUME);
		assert_int_equal(f->vm.ending, 0);
		assert_false(v->event.valid);
		assert_int_equal(v->regs.rip, FAKE_CODE + t[i].len);
	}
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(mmio_sizes),
		T(mmio_read_modify_write),
		T(mmio_xmm),
		T(local_apic_page),
		T(movs_between_ram_and_device),
		T(memory_that_was_given_back_is_like_none),
		T(segment_from_device),
		T(push_from_device),
		T(straddles_ram_and_device),
		T(faults_leave_nothing_half_written),
		T(page_faults_as_hardware),
		T(rom_writes_vanish),
		T(nobody_answers_ones),
		T(canonical_and_stack_faults),
		T(protected_mode_segments),
		T(real_mode),
		T(bytes_from_the_cpu),
		T(fetch_faults),
		T(undefined_and_unknown),
		T(code_without_ram),
		T(page_tables_without_ram),
		T(cr8_by_emulation),
		T(control_registers),
		T(pae_tables_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
