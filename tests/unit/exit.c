/* SPDX-License-Identifier: MIT */
/* The exit dispatcher and event delivery, over a backend that is arrays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/host/fake_vm.h"

#define AX regs.r[R_AX]
#define CX regs.r[R_CX]
#define DX regs.r[R_DX]
#define DI regs.r[R_DI]
#define SI regs.r[R_SI]

static struct fake_vm *f;
static struct vcpu *v;

static int setup(void **state)
{
	f = fake_new(2);
	f->vcpu[1].wait_sipi = true;
	v = &f->vcpu[0];
	return 0;
}

static int teardown(void **state)
{
	fake_free(f);
	return 0;
}

static void expect_exception(u8 vector)
{
	assert_true(v->event.valid);
	assert_int_equal(v->event.type, EVENT_EXCEPTION);
	assert_int_equal(v->event.vector, vector);
}

static void expect_crash(const char *why)
{
	assert_int_equal(f->vm.ending, 2);
	assert_int_equal(f->vm.end_reason, END_CRASH);
	assert_non_null(strstr(f->vm.end_detail, why));
}

/* --- Ports. */

static struct vm_exit io(unsigned size, bool in)
{
	struct vm_exit x = {.kind = EXIT_IO, .insn_len = 1};

	x.io.port = FAKE_PORT + 4;
	x.io.size = (u8)size;
	x.io.in = in;
	return x;
}

static void port_reads_merge(void **state)
{
	static const struct {
		unsigned size;
		u64 want;
	} t[] = {{1, 0x11223344556677aaul}, {2, 0x112233445566ccaaul}, {4, 0xeeddccaaul}};

	f->answer = 0xeeddccaa;
	for (unsigned i = 0; i < 3; i++) {
		v->AX = 0x1122334455667788ul;
		v->regs.rip = FAKE_CODE;
		assert_int_equal(fake_exit(f, io(t[i].size, true)), OUT_RESUME);
		assert_int_equal(v->AX, t[i].want);
		assert_int_equal(v->regs.rip, FAKE_CODE + 1);
		assert_int_equal(f->op[i].size, t[i].size);
	}
}

static void port_writes_cut(void **state)
{
	v->AX = 0x1122334455667788ul;
	fake_exit(f, io(1, false));
	fake_exit(f, io(2, false));
	fake_exit(f, io(4, false));
	assert_int_equal(f->op[0].val, 0x88);
	assert_int_equal(f->op[1].val, 0x7788);
	assert_int_equal(f->op[2].val, 0x55667788);
	assert_int_equal(f->op[2].addr, FAKE_PORT + 4);
	assert_true(f->op[2].write);
}

static void every_port_is_harmless(void **state)
{
	for (unsigned port = 0; port < 0x10000; port++)
		for (unsigned size = 1; size <= 4 && !f->vm.ending; size *= 2)
			for (unsigned in = 0; in < 2; in++) {
				struct vm_exit x = io(size, in);

				if (!in && (port == RESET_PORT || port + 3 >= PM_CNT_PORT - 1))
					continue; /* these may rightly end the guest */
				x.io.port = (u16)port;
				v->AX = 0x5a5a5a5a;
				assert_int_equal(fake_exit(f, x), OUT_RESUME);
			}
	v->AX = 0;
	struct vm_exit x = io(4, true);
	x.io.port = 0x9999;
	fake_exit(f, x);
	assert_int_equal(v->AX, 0xffffffff);
}

static struct vm_exit string_io(unsigned size, bool in)
{
	struct vm_exit x = io(size, in);

	x.io.string = true;
	x.insn_len = 2;
	return x;
}

static void string_output(void **state)
{
	CODE(f, "\xf3\x6e"); /* rep outsb */
	fake_poke(f, FAKE_RAM, "hello", 5);
	v->SI = FAKE_RAM;
	v->CX = 5;
	v->DX = FAKE_PORT;
	assert_int_equal(fake_exit(f, string_io(1, false)), OUT_RESUME);
	assert_int_equal(f->ops, 5);
	assert_int_equal(f->op[4].val, 'o');
	assert_int_equal(v->CX, 0);
	assert_int_equal(v->SI, FAKE_RAM + 5);
	assert_int_equal(v->regs.rip, FAKE_CODE + 2);
}

static void string_input_in_batches(void **state)
{
	unsigned rounds = 0;

	CODE(f, "\xf3\x66\x6d"); /* rep insw */
	v->DI = FAKE_RAM;
	v->CX = 10000;
	v->DX = FAKE_PORT;
	f->answer = 0xbeef;
	for (; v->regs.rip == FAKE_CODE && rounds < 100; rounds++)
		assert_int_equal(fake_exit(f, string_io(2, true)), OUT_RESUME);
	assert_true(rounds > 1); /* bounded: the host is not held up by one instruction */
	assert_int_equal(v->CX, 0);
	assert_int_equal(v->DI, FAKE_RAM + 20000);
	assert_int_equal(fake_peek(f, FAKE_RAM + 19998, 2), 0xbeef);
	assert_int_equal(fake_peek(f, FAKE_RAM + 20000, 2), 0);
}

/* Another vCPU may replace the bytes between exit and fetch: OUTSB at CPL 3 must not become a way to any port. */
static void bytes_replaced_do_not_widen_rights(void **state)
{
	fake_long_mode(v, 3);
	CODE(f, "\xee"); /* out dx, al */
	v->DX = 0x70;
	assert_int_equal(fake_exit(f, string_io(1, false)), OUT_RESUME);
	expect_exception(VEC_GP);
	assert_int_equal(v->regs.rip, FAKE_CODE);
}

/* --- Instructions whose length the CPU does not tell. */

static enum outcome plain(u8 kind) { return fake_exit(f, (struct vm_exit){.kind = kind}); }

static void lengths_count_prefixes(void **state)
{
	CODE(f, "\x66\xf2\x48\x0f\xa2");
	assert_int_equal(plain(EXIT_CPUID), OUT_RESUME);
	assert_int_equal(v->regs.rip, FAKE_CODE + 5);
	CODE(f, "\x0f\xa2"); /* the same place, now shorter: no remembered length */
	plain(EXIT_CPUID);
	assert_int_equal(v->regs.rip, FAKE_CODE + 2);
}

static void changed_bytes_run_again(void **state)
{
	CODE(f, "\x90\x90");
	v->AX = 0x40000000;
	assert_int_equal(plain(EXIT_CPUID), OUT_RESUME);
	assert_int_equal(v->regs.rip, FAKE_CODE);
	assert_int_equal(v->AX, 0x40000000);
	assert_false(v->event.valid);
}

static void instruction_across_pages(void **state)
{
	fake_map(f, 0x40000000, (FAKE_RAM + 0x5000) | PTE_P);
	fake_map(f, 0x40001000, (FAKE_RAM + 0x1000) | PTE_P);
	fake_poke(f, FAKE_RAM + 0x5fff, "\x0f", 1);
	fake_poke(f, FAKE_RAM + 0x1000, "\xa2", 1);
	v->regs.rip = 0x40000fff;
	plain(EXIT_CPUID);
	assert_int_equal(v->regs.rip, 0x40001001);
}

/*
 * A translation kept from the last exit must not outlive a process: its successor with the same CR3 would have skipped
 * as many bytes as the first one had prefixes.
 */
static void no_stale_translation_for_processes(void **state)
{
	fake_long_mode(v, 3);
	fake_map(f, 0x40000000, FAKE_RAM | PTE_P | PTE_U);
	fake_poke(f, FAKE_RAM, "\x66\x66\x66\x66\x66\x66\x0f\xa2", 8);
	v->regs.rip = 0x40000000;
	plain(EXIT_CPUID);
	assert_int_equal(v->regs.rip, 0x40000008);
	fake_map(f, 0x40000000, (FAKE_RAM + 0x1000) | PTE_P | PTE_U);
	fake_poke(f, FAKE_RAM + 0x1000, "\x0f\xa2", 2);
	v->regs.rip = 0x40000000;
	plain(EXIT_CPUID);
	assert_int_equal(v->regs.rip, 0x40000002);
}

static void kernel_page_moves(void **state)
{
	for (u64 page = 0; page < 3; page++) { /* the translation is kept, but what is found there decides */
		fake_map(f, 0x40000000, (FAKE_RAM + page * 0x1000) | PTE_P);
		fake_poke(f, FAKE_RAM + page * 0x1000, "\x0f\xa2", 2);
		if (page)
			fake_poke(f, FAKE_RAM + (page - 1) * 0x1000, "\xcc\xcc", 2);
		v->regs.rip = 0x40000000;
		plain(EXIT_CPUID);
		assert_int_equal(v->regs.rip, 0x40000002);
	}
}

static void rip_wraps_by_mode(void **state)
{
	struct vm_exit x = {.kind = EXIT_CPUID, .insn_len = 2};

	v->regs.rip = 0xfffffffe;
	fake_exit(f, x);
	assert_int_equal(v->regs.rip, 0x100000000ul);
	fake_hw(v)->seg[SEG_CS].attr = 0xc9b;
	v->regs.rip = 0xfffffffe;
	fake_exit(f, x);
	assert_int_equal(v->regs.rip, 0);
}

static void single_step_traps_after(void **state)
{
	CODE(f, "\x0f\xa2");
	v->regs.rflags |= RFLAGS_TF;
	fake_hw(v)->reg[REG_INT_SHADOW] = 1;
	fake_hw(v)->reg[REG_DR7] = 0x2400;
	plain(EXIT_CPUID);
	expect_exception(VEC_DB);
	assert_false(v->regs.rflags & RFLAGS_RF); /* a trap */
	assert_true(fake_hw(v)->reg[REG_DR6] & BIT(14));
	assert_int_equal(fake_hw(v)->reg[REG_DR7], 0x400); /* its handler may look at these */
	assert_int_equal(fake_hw(v)->reg[REG_INT_SHADOW], 0);
}

static void msr_exits(void **state)
{
	CODE(f, "\x0f\x30");
	v->CX = MSR_PAT;
	v->AX = 0xffffffff00000406ul;
	v->DX = 0xffffffff00000106ul;
	plain(EXIT_MSR_WRITE);
	assert_int_equal(fake_hw(v)->reg[REG_PAT], 0x10600000406ul);
	CODE(f, "\x0f\x32");
	v->AX = v->DX = ~0ul;
	plain(EXIT_MSR_READ);
	assert_int_equal(v->AX, 0x406);
	assert_int_equal(v->DX, 0x106);
	CODE(f, "\x0f\x32");
	v->CX = 0x12345;
	plain(EXIT_MSR_READ);
	expect_exception(VEC_GP);
	assert_int_equal(v->regs.rip, FAKE_CODE);
	assert_int_equal(v->AX, 0x406);
	assert_int_equal(v->regs.rflags, RFLAGS_FIXED | RFLAGS_RF); /* its handler is to return with that */
}

static void refused_instructions(void **state)
{
	plain(EXIT_VENDOR_OP);
	expect_exception(VEC_UD);
	assert_false(v->event.has_error);
	v->event.valid = false;
	plain(EXIT_RDPMC);
	expect_exception(VEC_GP);
	assert_true(v->event.has_error);
	CODE(f, "\x0f\x08");
	v->event.valid = false;
	plain(EXIT_INVD);
	assert_int_equal(v->regs.rip, FAKE_CODE + 2);
	assert_false(v->event.valid);
}

static bool xsetbv_faults(u32 n, u64 val)
{
	CODE(f, "\x0f\x01\xd1");
	v->CX = n;
	v->AX = (u32)val;
	v->DX = val >> 32;
	v->event.valid = false;
	plain(EXIT_XSETBV);
	return v->event.valid;
}

static void xcr0(void **state)
{
	assert_false(xsetbv_faults(0, 7));
	assert_int_equal(fake_xcr0, 7);
	assert_false(xsetbv_faults(0, 0xe7));
	assert_true(xsetbv_faults(0, 6));     /* without x87 */
	assert_true(xsetbv_faults(0, 5));     /* AVX without SSE */
	assert_true(xsetbv_faults(0, 0x27));  /* a part of AVX-512 */
	assert_true(xsetbv_faults(0, 0x207)); /* PKRU is not offered */
	assert_true(xsetbv_faults(0, 1ul << 63 | 1));
	assert_true(xsetbv_faults(1, 1));
	fake_long_mode(v, 3);
	assert_true(xsetbv_faults(0, 7));
	assert_int_equal(fake_xcr0, 0xe7);
}

/* --- Faults on memory. */

static void unbacked_execution_stops(void **state)
{
	assert_int_equal(fake_npf(f, 0xc0000000, P2M_EXEC), OUT_STOP);
	expect_crash("executes from where no memory is");
	assert_non_null(strstr(host_log(), "rip"));
}

static void page_tables_on_a_device_stop(void **state)
{
	assert_int_equal(
		fake_exit(f, (struct vm_exit){.kind = EXIT_NPF, .gpa = FAKE_MMIO, .access = P2M_WRITE, .walk = true}),
		OUT_STOP);
	expect_crash("page tables");
}

/* The access is then that of the event's delivery: to emulate the instruction at rip would be wrong. */
static void delivery_through_a_device_stops(void **state)
{
	vcpu_exception(v, VEC_PF, true, 0);
	assert_int_equal(fake_npf(f, FAKE_MMIO, P2M_WRITE), OUT_STOP);
	expect_crash("delivered through a device");
}

static void other_ends(void **state)
{
	static const struct {
		u8 kind;
		const char *why;
	} t[] = {{EXIT_ERROR, "refuses"}, {EXIT_OTHER, "not handled"}};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		f->vm.ending = 0;
		assert_int_equal(plain(t[i].kind), OUT_STOP);
		expect_crash(t[i].why);
	}
	f->vm.ending = 0;
	assert_int_equal(plain(EXIT_TRIPLE), OUT_STOP);
	assert_int_equal(f->vm.end_reason, END_RESET);
	f->vm.ending = 0;
	fake_machine_checks = 0;
	fake_exit(f, (struct vm_exit){.kind = EXIT_EXCEPTION, .vector = VEC_MC});
	expect_crash("machine check");
	assert_int_equal(fake_machine_checks, 1); /* the host's error banks, which nobody else would tell */
}

static void an_end_is_final(void **state)
{
	vm_end(&f->vm, END_POWEROFF, "first %d", 1);
	vm_end(&f->vm, END_CRASH, "second");
	vcpu_crash(v, "third");
	assert_int_equal(f->vm.end_reason, END_POWEROFF);
	assert_string_equal(f->vm.end_detail, "first 1");
	assert_false(vcpu_run_once(v));
	assert_int_equal(f->hw[0].entries, 0);
	assert_false(runq_empty(&f->runq)); /* woken, to leave */
}

/* --- Events. */

static void post(u8 vector)
{
	struct bus_op svr = {
		.space = BUS_MMIO, .size = 4, .write = true, .addr = LAPIC_DEFAULT_BASE + 0xf0, .val = 0x1ff};

	lapic_mmio(&v->lapic, &svr);
	lapic_post(&v->lapic, vector, false);
}

static void interrupts_wait_for_if(void **state)
{
	post(0x55);
	assert_true(vcpu_run_once(v));
	assert_false(f->hw[0].injected.valid);
	assert_true(f->hw[0].want_intr);
	v->regs.rflags |= RFLAGS_IF;
	f->hw[0].reg[REG_INT_SHADOW] = 1;
	vcpu_run_once(v);
	assert_false(f->hw[0].injected.valid);
	assert_true(f->hw[0].want_intr);
	f->hw[0].reg[REG_INT_SHADOW] = 0;
	vcpu_run_once(v);
	assert_true(f->hw[0].injected.valid);
	assert_int_equal(f->hw[0].injected.vector, 0x55);
	assert_false(f->hw[0].want_intr);
	vcpu_run_once(v);
	assert_false(f->hw[0].injected.valid); /* once */
}

static void interrupts_respect_tpr(void **state)
{
	v->regs.rflags |= RFLAGS_IF;
	lapic_set_cr8(&v->lapic, 5);
	post(0x55);
	vcpu_run_once(v);
	assert_false(f->hw[0].injected.valid);
	assert_false(f->hw[0].want_intr); /* a window would not help */
	assert_int_equal(guest_write_cr(v, 8, 4), 0);
	vcpu_run_once(v);
	assert_true(f->hw[0].injected.valid);
}

static void a_pending_exception_goes_first(void **state)
{
	v->regs.rflags |= RFLAGS_IF;
	post(0x55);
	vcpu_exception(v, VEC_GP, true, 0x18);
	vcpu_run_once(v);
	assert_int_equal(f->hw[0].injected.vector, VEC_GP);
	assert_int_equal(f->hw[0].injected.error, 0x18);
	assert_true(f->hw[0].want_intr);
	vcpu_run_once(v);
	assert_int_equal(f->hw[0].injected.vector, 0x55);
}

/*
 * The interrupt's vector is in service, so the local APIC will not bring it again: Cleave lost it. An interrupt of
 * higher priority does not come before it.
 */
static void interrupt_again_after_an_exception_on_its_way(void **state)
{
	v->regs.rflags |= RFLAGS_IF;
	post(0x55);
	vcpu_run_once(v);
	assert_int_equal(f->hw[0].injected.vector, 0x55);
	v->event = f->hw[0].injected; /* not delivered: its push raised #AC */
	fake_exit(f, (struct vm_exit){.kind = EXIT_EXCEPTION, .vector = VEC_AC, .has_error = true});
	post(0x95);
	v->regs.rflags &= ~(u64)RFLAGS_IF; /* as the handler's gate does */
	vcpu_run_once(v);
	assert_int_equal(f->hw[0].injected.vector, VEC_AC);
	assert_true(f->hw[0].want_intr);
	vcpu_run_once(v);
	assert_false(f->hw[0].injected.valid);
	v->regs.rflags |= RFLAGS_IF;
	vcpu_run_once(v);
	assert_int_equal(f->hw[0].injected.vector, 0x55);
	assert_int_equal(f->hw[0].injected.type, EVENT_INTR);
	vcpu_run_once(v);
	assert_int_equal(f->hw[0].injected.vector, 0x95);
	vcpu_run_once(v);
	assert_false(f->hw[0].injected.valid); /* once */
}

static void nmi_blocks_nmi(void **state)
{
	atomic_or(&v->lapic.events, LAPIC_EV_NMI);
	vcpu_run_once(v);
	assert_int_equal(f->hw[0].injected.type, EVENT_NMI);
	atomic_or(&v->lapic.events, LAPIC_EV_NMI);
	vcpu_run_once(v);
	assert_false(f->hw[0].injected.valid);
	assert_true(f->hw[0].want_nmi);
	v->nmi_blocked = false; /* the backend saw the handler's IRET */
	vcpu_run_once(v);
	assert_int_equal(f->hw[0].injected.type, EVENT_NMI);
}

static void init_and_sipi(void **state)
{
	struct vcpu *ap = &f->vcpu[1];

	assert_false(vcpu_run_once(ap));
	ap->lapic.sipi_vector = 0x9a;
	atomic_or(&ap->lapic.events, LAPIC_EV_INIT | LAPIC_EV_SIPI);
	assert_true(vcpu_run_once(ap));
	assert_int_equal(f->hw[1].seg[SEG_CS].base, 0x9a000);
	assert_int_equal(f->hw[1].seg[SEG_CS].sel, 0x9a00);
	assert_int_equal(ap->regs.rip, 0);
	assert_int_equal(f->hw[1].reg[REG_CR0], 0x60000010);
	atomic_or(&ap->lapic.events, LAPIC_EV_SIPI); /* the second one that systems send */
	ap->regs.rip = 0x1234;
	assert_true(vcpu_run_once(ap));
	assert_int_equal(ap->regs.rip, 0x1234);
	ap->dr[0] = ap->dr[3] = 0x1234;
	atomic_or(&ap->lapic.events, LAPIC_EV_INIT);
	assert_false(vcpu_run_once(ap));
	assert_int_equal(ap->dr[0] | ap->dr[3], 0);
	atomic_or(&v->lapic.events, LAPIC_EV_INIT);
	assert_false(vcpu_run_once(v));
	assert_int_equal(f->vm.end_reason, END_RESET);
}

static void double_and_triple_faults(void **state)
{
	static const struct {
		u8 first, second, result;
	} t[] = {{VEC_GP, VEC_GP, VEC_DF}, {VEC_PF, VEC_PF, VEC_DF}, {VEC_PF, VEC_GP, VEC_DF}, {VEC_GP, VEC_PF, VEC_PF},
		 {VEC_DB, VEC_GP, VEC_GP}, {VEC_UD, VEC_PF, VEC_PF}, {VEC_GP, VEC_DB, VEC_DB}, {0, 11, VEC_DF}};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		v->event.valid = false;
		vcpu_exception(v, t[i].first, true, 1);
		vcpu_exception(v, t[i].second, true, 2);
		expect_exception(t[i].result);
		if (t[i].result == VEC_DF)
			assert_int_equal(v->event.error, 0);
	}
	vcpu_exception(v, VEC_GP, true, 0);
	assert_int_equal(f->vm.end_reason, END_RESET);
	assert_string_equal(f->vm.end_detail, "triple fault");
}

/* In 16-bit code the last instruction of a segment is followed by the first; in unreal mode rip may be larger. */
static void rip_wraps_as_the_mode_says(void **state)
{
	static const struct {
		u64 rip, next;
	} t[] = {{0xffff, 0}, {0x1234, 0x1235}, {0x12345, 0x12346}, {0xffffffff, 0}};

	fake_hw(v)->reg[REG_CR0] = CR0_ET;
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		v->regs.rip = t[i].rip;
		fake_exit(f, io(1, true));
		assert_int_equal(v->regs.rip, t[i].next);
	}
}

static void real_mode_has_no_error_codes(void **state)
{
	fake_hw(v)->reg[REG_CR0] = CR0_ET;
	vcpu_exception(v, VEC_GP, true, 0);
	assert_false(v->event.has_error);
}

/* CVE-2015-8104: an endless series of #DB or #AC kept the CPU inside the guest for ever. */
static void intercepted_exceptions_are_passed_on(void **state)
{
	fake_exit(f, (struct vm_exit){.kind = EXIT_EXCEPTION, .vector = VEC_AC, .has_error = true});
	expect_exception(VEC_AC);
	assert_true(v->event.has_error);
	v->event.valid = false;
	fake_exit(f, (struct vm_exit){.kind = EXIT_EXCEPTION, .vector = VEC_DB});
	expect_exception(VEC_DB);
	assert_false(v->event.has_error);
}

/* --- HLT. */

static void hlt_waits_for_an_interrupt(void **state)
{
	CODE(f, "\xf4");
	v->regs.rflags |= RFLAGS_IF;
	assert_int_equal(plain(EXIT_HLT), OUT_BLOCK);
	assert_int_equal(v->regs.rip, FAKE_CODE + 1);
	assert_false(vcpu_run_once(v));
	post(0x55);
	assert_true(vcpu_run_once(v));
	assert_int_equal(f->hw[0].injected.vector, 0x55);
	assert_false(v->halted);
	assert_false(f->vm.ending);
}

/* sti; hlt with the interrupt there already: the next round must not wait. */
static void hlt_with_an_interrupt_pending(void **state)
{
	CODE(f, "\xf4");
	post(0x55);
	v->regs.rflags |= RFLAGS_IF;
	f->hw[0].reg[REG_INT_SHADOW] = 1;
	assert_int_equal(plain(EXIT_HLT), OUT_BLOCK);
	assert_true(vcpu_run_once(v));
	assert_true(f->hw[0].injected.valid);
}

static void hlt_with_interrupts_off_is_the_end(void **state)
{
	CODE(f, "\xf4");
	assert_int_equal(plain(EXIT_HLT), OUT_STOP); /* the other vCPU waits for a SIPI */
	expect_crash("halted with interrupts off");
}

static void one_of_two_may_halt(void **state)
{
	struct vcpu *w = &f->vcpu[1];

	w->wait_sipi = false;
	CODE(f, "\xf4");
	assert_int_equal(plain(EXIT_HLT), OUT_BLOCK);
	assert_false(f->vm.ending);
	assert_false(vcpu_run_once(v));
	atomic_or(&v->lapic.events, LAPIC_EV_NMI); /* the other one sends an NMI and halts too: not the end */
	w->exit = (struct vm_exit){.kind = EXIT_HLT, .mode = MODE_64};
	w->regs.rip = FAKE_CODE;
	assert_int_equal(exit_dispatch(w, &w->exit), OUT_BLOCK);
	assert_false(f->vm.ending);
	assert_true(vcpu_run_once(v)); /* into its NMI handler */
	assert_false(v->stuck);
	v->regs.rip = FAKE_CODE;
	assert_int_equal(plain(EXIT_HLT), OUT_STOP);
	expect_crash("halted");
}

static void report_line(void **state)
{
	CODE(f, "\x0f\xa2");
	plain(EXIT_CPUID);
	fake_exit(f, io(1, true));
	plain(EXIT_INTERRUPT);
	host_log_clear();
	vm_report_exits(&f->vm);
	assert_string_equal(host_log(), "@exits guest=fake total=3 intr=1 cpuid=1 io=1\n");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(port_reads_merge),
		T(port_writes_cut),
		T(every_port_is_harmless),
		T(string_output),
		T(string_input_in_batches),
		T(bytes_replaced_do_not_widen_rights),
		T(lengths_count_prefixes),
		T(changed_bytes_run_again),
		T(instruction_across_pages),
		T(no_stale_translation_for_processes),
		T(kernel_page_moves),
		T(rip_wraps_by_mode),
		T(single_step_traps_after),
		T(msr_exits),
		T(refused_instructions),
		T(xcr0),
		T(unbacked_execution_stops),
		T(page_tables_on_a_device_stop),
		T(delivery_through_a_device_stops),
		T(other_ends),
		T(an_end_is_final),
		T(interrupts_wait_for_if),
		T(interrupts_respect_tpr),
		T(a_pending_exception_goes_first),
		T(interrupt_again_after_an_exception_on_its_way),
		T(nmi_blocks_nmi),
		T(init_and_sipi),
		T(double_and_triple_faults),
		T(rip_wraps_as_the_mode_says),
		T(real_mode_has_no_error_codes),
		T(intercepted_exceptions_are_passed_on),
		T(hlt_waits_for_an_interrupt),
		T(hlt_with_an_interrupt_pending),
		T(hlt_with_interrupts_off_is_the_end),
		T(one_of_two_may_halt),
		T(report_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
