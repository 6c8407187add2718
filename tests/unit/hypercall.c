/* SPDX-License-Identifier: MIT */
/* Hypercalls, as docs/hypercalls.md has them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/host/fake_vm.h"

#define AX regs.r[R_AX]
#define BX regs.r[R_BX]
#define CX regs.r[R_CX]
#define DX regs.r[R_DX]

#define PAGE  0x305u /* RAM of the guest, and nothing in it */
#define BLOCK 0x400u

enum { BALLOON = 1, RECLAIM, FRAMES, DEBUG };
enum { REPORT, AUDIT, MAP };

static struct fake_vm *f;
static struct vcpu *v;
static const struct vm_exit vmmcall = {.kind = EXIT_HYPERCALL, .insn_len = 3};

static int setup(void **state)
{
	f = fake_new(1);
	v = &f->vcpu[0];
	host_set_now(1000000000);
	return 0;
}

static int teardown(void **state)
{
	assert_int_equal(p2m_audit(&f->vm.p2m), 0);
	fake_free(f);
	return 0;
}

static s64 call(u64 a, u64 b, u64 c, u64 d)
{
	v->regs.rip = FAKE_CODE;
	v->AX = a;
	v->BX = b;
	v->CX = c;
	v->DX = d;
	assert_int_equal(fake_exit(f, vmmcall), OUT_RESUME);
	assert_int_equal(v->regs.rip, FAKE_CODE + 3);
	assert_true(v->BX == b && v->CX == c && v->DX == d);
	return (s64)v->AX;
}

static unsigned type_of(u64 gfn) { return p2m_get(&f->vm.p2m, GFN(gfn)).type; }

static void cpuid_tells_of_them(void **state)
{
	u32 r[4];

	guest_cpuid(v, 0x40000000, 0, r);
	assert_true(r[0] >= 0x40000001);
	assert_memory_equal(&r[1], "CleaveCleave", 12);
	guest_cpuid(v, 0x40000001, 0, r);
	assert_int_equal(r[0], 1);
	assert_int_equal(r[1], BIT(BALLOON) | BIT(RECLAIM) | BIT(FRAMES) | BIT(DEBUG));
	assert_int_equal(r[2], 64);
	assert_int_equal(r[3], 2);
}

static void unknown_ones_are_told_so(void **state)
{
	assert_int_equal(call(0, 0, 0, 0), -ENOSYS);
	assert_int_equal(call(5, PAGE, 0, 1), -ENOSYS);
	assert_int_equal(call(~0ul, PAGE, 0, 1), -ENOSYS);
	assert_int_equal(call(BIT(32) + BALLOON, PAGE, 0, 1), -ENOSYS);
}

static void only_kernels_may(void **state)
{
	fake_long_mode(v, 3);
	v->AX = BALLOON;
	v->BX = PAGE;
	v->CX = 0;
	v->DX = 1;
	assert_int_equal(fake_exit(f, vmmcall), OUT_RESUME);
	assert_true(v->event.valid && v->event.vector == VEC_UD);
	assert_int_equal(v->AX, BALLOON);
	assert_int_equal(v->regs.rip, FAKE_CODE);
	assert_int_equal(type_of(PAGE), P2M_RAM);
}

/* Without next-RIP save the length comes from the bytes, prefixes and all; and not, if they are no longer that. */
static void the_length_comes_from_the_bytes_if_it_must(void **state)
{
	CODE(f, "\x2e\x0f\x01\xd9");
	v->AX = 0;
	assert_int_equal(fake_exit(f, (struct vm_exit){.kind = EXIT_HYPERCALL}), OUT_RESUME);
	assert_int_equal(v->regs.rip, FAKE_CODE + 4);
	assert_int_equal((s64)v->AX, -ENOSYS);
	CODE(f, "\x90\x90\x90\x90");
	v->AX = 0;
	assert_int_equal(fake_exit(f, (struct vm_exit){.kind = EXIT_HYPERCALL}), OUT_RESUME);
	assert_int_equal(v->regs.rip, FAKE_CODE);
	assert_int_equal(v->AX, 0);
}

static void registers_are_as_wide_as_the_mode(void **state)
{
	struct fake_vcpu *h = fake_hw(v);

	h->seg[SEG_CS].attr = 0xc9b;
	h->reg[REG_EFER] = 0;
	assert_int_equal(call(BIT(40) | BALLOON, BIT(40) | PAGE, BIT(40), BIT(40) | 1), 1);
	assert_int_equal(type_of(PAGE), P2M_BALLOONED);
	assert_int_equal(call(BALLOON, PAGE, 0, 1), (u32)-EEXIST);
}

static void memory_goes_out_and_comes_back(void **state)
{
	struct frames_stats before, out;

	fake_poke(f, PAGE << PAGE_SHIFT, "secret", 6);
	frames_stats(&before);
	assert_int_equal(call(BALLOON, PAGE, 0, 1), 1);
	frames_stats(&out);
	assert_int_equal(type_of(PAGE), P2M_BALLOONED);
	assert_true(out.free + 1 >= before.free); /* one frame back, at most one table for it */
	assert_int_equal(call(BALLOON, PAGE, 0, 1), -EEXIST);
	assert_int_equal(call(RECLAIM, PAGE, 0, 1), 1);
	assert_int_equal(fake_peek(f, PAGE << PAGE_SHIFT, 6), 0);
	assert_int_equal(call(RECLAIM, PAGE, 0, 1), -ENOENT);
	assert_int_equal(call(BALLOON, BLOCK, 9, 1), 1);
	assert_int_equal(call(BALLOON, BLOCK, 9, 1), -EEXIST);
	assert_int_equal(call(BALLOON, BLOCK + 3, 0, 1), -EEXIST);
	assert_int_equal(call(RECLAIM, BLOCK, 9, 1), 1);
	assert_int_equal(type_of(BLOCK + 511), P2M_RAM);
}

static void a_batch_is_bounded_and_goes_on(void **state)
{
	u64 flushes = host_flushes;
	struct frames_stats before, after;

	frames_stats(&before);
	assert_int_equal(call(BALLOON, BLOCK, 0, 512), 64);
	frames_stats(&after);
	assert_int_equal(after.free, before.free + 64 - 1); /* a table */
	assert_int_equal(host_flushes, flushes + 1);        /* one for all */
	assert_int_equal(type_of(BLOCK + 63), P2M_BALLOONED);
	assert_int_equal(type_of(BLOCK + 64), P2M_RAM);
	assert_int_equal(call(BALLOON, BLOCK + 64, 0, ~0ul), 64);
	assert_int_equal(call(RECLAIM, BLOCK + 120, 0, 64), 8); /* the rest was not given back */
	assert_int_equal(call(RECLAIM, BLOCK, 0, 0), 0);
	assert_int_equal(call(BALLOON, BLOCK + 512, 9, 64), 1); /* and then no RAM */
	assert_int_equal(call(BALLOON, 0xfffffffffffffe00, 9, 64), -EINVAL);
}

/* To get 2 MB is to have them zeroed: 64 of them are three slices of a scheduler's time. */
static void a_batch_of_large_blocks_is_shorter(void **state)
{
	assert_int_equal(call(BALLOON, BLOCK - 512, 9, 64), 2);
	assert_int_equal(call(BALLOON, BLOCK + 512, 9, 64), 1);
	assert_int_equal(call(RECLAIM, BLOCK - 512, 9, 64), 2);
	assert_int_equal(type_of(BLOCK), P2M_RAM);
	assert_int_equal(type_of(BLOCK + 512), P2M_BALLOONED);
}

static void wrong_arguments_change_nothing(void **state)
{
	struct p2m *p = &f->vm.p2m;
	u64 leaves[3], tables = p->pt.tables;

	memcpy(leaves, p->pt.leaves, sizeof(leaves));
	for (u64 n = BALLOON; n <= RECLAIM; n++) {
		assert_int_equal(call(n, PAGE, 1, 1), -EINVAL);
		assert_int_equal(call(n, 0, 18, 1), -EINVAL);
		assert_int_equal(call(n, 0, 64 + 9, 1), -EINVAL);
		assert_int_equal(call(n, BIT(32), BIT(32), 1), -EINVAL);
		assert_int_equal(call(n, PAGE, 9, 1), -EINVAL);
		assert_int_equal(call(n, BIT(28), 0, 1), -EINVAL); /* the width is 40 */
		assert_int_equal(call(n, ~0ul, 0, 1), -EINVAL);
	}
	assert_int_equal(call(BALLOON, FAKE_MMIO >> PAGE_SHIFT, 0, 1), -EPERM);
	assert_int_equal(call(BALLOON, 0xf0, 0, 1), -EPERM); /* ROM */
	assert_int_equal(call(BALLOON, 0, 9, 1), -EPERM);    /* RAM and a hole */
	assert_int_equal(call(RECLAIM, PAGE, 0, 1), -ENOENT);
	assert_int_equal(call(FRAMES, 3, 0, 0), -EINVAL);
	assert_int_equal(call(DEBUG, 3, 0, 0), -EINVAL);
	assert_int_equal(call(DEBUG, MAP, BIT(28), 0), -EINVAL);
	assert_memory_equal(leaves, p->pt.leaves, sizeof(leaves));
	assert_int_equal(p->pt.tables, tables);
}

static void no_memory_is_told_and_nothing_is_lost(void **state)
{
	assert_int_equal(call(BALLOON, BLOCK, 9, 1), 1);
	host_fail_alloc(1);
	assert_int_equal(call(RECLAIM, BLOCK, 9, 1), -ENOMEM);
	assert_int_equal(call(RECLAIM, BLOCK, 0, 1), -ENOMEM);
	assert_int_equal(call(BALLOON, BLOCK + 512, 0, 1), -ENOMEM); /* no table to split with */
	host_fail_alloc(0);
	assert_int_equal(type_of(BLOCK), P2M_BALLOONED);
	assert_int_equal(type_of(BLOCK + 512), P2M_RAM);
	assert_int_equal(call(RECLAIM, BLOCK, 9, 1), 1);
}

static void frames_are_counted(void **state)
{
	assert_int_equal(call(FRAMES, 0, 0, 0), 0xa0 + 0x20 + 0x700);
	assert_int_equal(call(FRAMES, 9, 0, 0), 3 * 512);
	assert_int_equal(call(FRAMES, 18, 0, 0), 0);
	call(BALLOON, BLOCK, 0, 1);
	assert_int_equal(call(FRAMES, 0, 0, 0), 0xa0 + 0x20 + 0x700 - 1);
	assert_int_equal(call(FRAMES, 9, 0, 0), 2 * 512);
}

static void a_guest_may_look_at_its_map(void **state)
{
	call(BALLOON, BLOCK, 9, 1);
	call(BALLOON, BLOCK + 512, 0, 64);
	host_log_clear();
	assert_int_equal(call(DEBUG, MAP, 0, 0), 0);
	assert_string_equal(host_log(), "@map guest=fake gfn=0x0 pages=7MB7\n");
	host_log_clear();
	assert_int_equal(call(DEBUG, MAP, 0x1000, 0), 0);
	assert_string_equal(host_log(), "");
	assert_int_equal(call(DEBUG, AUDIT, 0, 0), 0);
	assert_string_equal(host_log(), "@audit guest=fake errors=0\n");
	host_log_clear();
	assert_int_equal(call(DEBUG, REPORT, 0, 0), 0);
	assert_non_null(strstr(host_log(), "@p2m guest=fake 1g=0 2m=1 "));
}

/* A guest that asks all the time gets no more of the console than its share. */
static void lines_are_rationed(void **state)
{
	unsigned printed = 0;

	for (unsigned i = 0; i < 1000; i++)
		printed += call(DEBUG, REPORT, 0, 0) == 0;
	assert_int_equal(printed, 100); /* what a second saves */
	assert_int_equal(call(DEBUG, REPORT, 0, 0), -EAGAIN);
	host_set_now(1010000000);
	assert_int_equal(call(DEBUG, AUDIT, 0, 0), -EAGAIN);
	assert_int_equal(call(DEBUG, REPORT, 0, 0), 0);
	assert_int_equal(call(DEBUG, REPORT, 0, 0), -EAGAIN);
	host_set_now(1000000000000);
	printed = 0;
	for (unsigned i = 0; i < 1000; i++)
		printed += call(DEBUG, MAP, 0, 0) != -EAGAIN;
	assert_int_equal(printed, 100);
}

static void garbage_is_harmless(void **state)
{
	u64 s = 88172645463325252ul;

	for (unsigned i = 0; i < 30000; i++) {
		u64 r[4];
		for (unsigned n = 0; n < 4; n++) {
			s ^= s << 13;
			s ^= s >> 7;
			s ^= s << 17;
			r[n] = s >> (s >> 58);
		}
		if (s & 0x100)
			r[2] = s & 0x200 ? 0 : 9;
		if (s & 0x400)
			r[1] &= 0xfff;
		if (s & 0x800)
			r[0] &= 7;
		s64 got = call(r[0], r[1], r[2], r[3]);
		if (got < 0)
			assert_true(-got == EPERM || -got == ENOENT || -got == EAGAIN || -got == EEXIST ||
				    -got == EINVAL || -got == ENOSYS || -got == ENOMEM);
		if (i % 1000 == 0)
			assert_int_equal(p2m_audit(&f->vm.p2m), 0);
	}
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(cpuid_tells_of_them),
		T(unknown_ones_are_told_so),
		T(only_kernels_may),
		T(the_length_comes_from_the_bytes_if_it_must),
		T(registers_are_as_wide_as_the_mode),
		T(memory_goes_out_and_comes_back),
		T(a_batch_is_bounded_and_goes_on),
		T(a_batch_of_large_blocks_is_shorter),
		T(wrong_arguments_change_nothing),
		T(no_memory_is_told_and_nothing_is_lost),
		T(frames_are_counted),
		T(a_guest_may_look_at_its_map),
		T(lines_are_rationed),
		T(garbage_is_harmless),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
