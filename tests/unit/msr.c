/* SPDX-License-Identifier: MIT */
/* The guest's MSRs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/host/fake_vm.h"

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

static u64 rd(u32 msr)
{
	u64 val = 0xdeadbeef;

	assert_int_equal(guest_rdmsr(v, msr, &val), 0);
	return val;
}

static bool wr(u32 msr, u64 val) { return guest_wrmsr(v, msr, val) == 0; }

static void efer(void **state)
{
	fake_hw(v)->reg[REG_CR0] = CR0_PE;
	fake_hw(v)->reg[REG_EFER] = 0;
	assert_true(wr(MSR_EFER, EFER_LME | EFER_NX | EFER_SCE));
	assert_true(wr(MSR_EFER, EFER_LME | EFER_LMA)); /* LMA is not the guest's to set */
	assert_int_equal(rd(MSR_EFER), EFER_LME);
	assert_false(wr(MSR_EFER, EFER_SVME));
	assert_false(wr(MSR_EFER, BIT(1)));
	assert_false(wr(MSR_EFER, BIT(14)));
	assert_false(wr(MSR_EFER, BIT(40)));
	fake_hw(v)->reg[REG_CR0] |= CR0_PG;
	assert_false(wr(MSR_EFER, 0));
	assert_true(wr(MSR_EFER, EFER_LME | EFER_NX));
}

static void pat(void **state)
{
	assert_true(wr(MSR_PAT, 0x0007040600070406ul));
	assert_false(wr(MSR_PAT, 0x02));
	assert_false(wr(MSR_PAT, 0x0300));
	assert_false(wr(MSR_PAT, 0x08ul << 56));
	assert_int_equal(rd(MSR_PAT), 0x0007040600070406ul);
}

static void mtrrs(void **state)
{
	assert_int_equal(rd(0xfe), 0x508);
	assert_false(wr(0xfe, 0));
	assert_true(wr(0x2ff, 0xc06));
	assert_false(wr(0x2ff, 0xc07));
	assert_false(wr(0x2ff, 0x1c06));
	assert_true(wr(0x200, 0xd0000000ul | 1));
	assert_false(wr(0x200, BIT(41) | 1));
	assert_false(wr(0x200, 0x102));
	assert_true(wr(0x20f, 0xfff0000800ul));
	assert_false(wr(0x201, 0x801));
	assert_true(wr(0x250, 0x0606060606060606ul));
	assert_false(wr(0x26f, 0x0706060606060606ul));
	assert_int_equal(rd(0x20f), 0xfff0000800ul);
	assert_int_equal(rd(0x250), 0x0606060606060606ul);
	u64 val;
	assert_int_equal(guest_rdmsr(v, 0x251, &val), -EINVAL);
	assert_int_equal(guest_rdmsr(v, 0x210, &val), -EINVAL);
}

/* Addresses above the guest's width are #GP: the page would lie where no access can reach it. */
static void apic_base(void **state)
{
	u64 base = rd(MSR_APIC_BASE);

	assert_true(wr(MSR_APIC_BASE, base | BIT(39)));
	assert_false(wr(MSR_APIC_BASE, base | BIT(40)));
	assert_true(rd(MSR_APIC_BASE) == (base | BIT(39)));
}

static void tsc(void **state)
{
	host_set_now(5000);
	assert_int_equal(rd(MSR_TSC), 5000);
	assert_true(wr(MSR_TSC, 1000000));
	host_set_now(5500);
	assert_int_equal(rd(MSR_TSC), 1000500);
}

/* The deadline is in the guest's TSC; the timer must fire when that is reached, wherever the guest has moved it. */
static void tsc_deadline(void **state)
{
	host_set_now(1000000);
	fake_hw(v)->reg[REG_TSC_OFFSET] = 777000000;
	struct bus_op lvt = {
		.space = BUS_MMIO, .size = 4, .write = true, .addr = LAPIC_DEFAULT_BASE + 0xf0, .val = 0x1ff};
	lapic_mmio(&v->lapic, &lvt);
	lvt.addr = LAPIC_DEFAULT_BASE + 0x320;
	lvt.val = 0x40066;
	lapic_mmio(&v->lapic, &lvt);
	assert_true(wr(MSR_TSC_DEADLINE, 778500000));
	assert_int_equal(rd(MSR_TSC_DEADLINE), 778500000);
	host_set_now(1499999);
	timers_run(&f->timers, port_now());
	assert_int_equal(platform_pending(&f->vm.platform, 0), -1);
	host_set_now(1500000);
	timers_run(&f->timers, port_now());
	assert_int_equal(platform_pending(&f->vm.platform, 0), 0x66);
	assert_int_equal(rd(MSR_TSC_DEADLINE), 0);
	assert_int_equal(platform_ack(&f->vm.platform, 0), 0x66);
	lapic_mmio(&v->lapic, &(struct bus_op){.size = 4, .write = true, .addr = LAPIC_DEFAULT_BASE + 0xb0});
	assert_true(wr(MSR_TSC_DEADLINE, 5)); /* long past: at once */
	timers_run(&f->timers, port_now());
	assert_int_equal(platform_pending(&f->vm.platform, 0), 0x66);
}

static void constants(void **state)
{
	assert_int_equal(rd(0x179), 0);         /* no machine check banks */
	assert_int_equal(rd(0xc0010114), 0x18); /* SVM off and locked */
	assert_true(wr(0xc0010015, 0x1234));    /* HWCR: ignored */
	assert_int_equal(rd(0xc0010015), BIT(24));
	assert_false(wr(0x17, 0));
	assert_true(rd(0xc0011029) & 2);
	u64 val;
	static const u32 absent[] = {0x3b, 0x48, 0x49, 0x10a, 0x401, 0xda0, 0x480, 0xc0010117, 0xc1, 0x186, 0x38f};
	for (unsigned i = 0; i < ARRAY_SIZE(absent); i++)
		assert_int_equal(guest_rdmsr(v, absent[i], &val), -EINVAL);
}

static void unknown_ones_are_told_a_few_times(void **state)
{
	u64 val;

	for (u32 i = 0; i < 1000; i++)
		guest_rdmsr(v, 0x70000000 + i, &val);
	assert_int_equal(f->vm.unknown_msrs, 1000);
	assert_non_null(strstr(host_log(), "70000000"));
	assert_non_null(strstr(host_log(), "70000007"));
	assert_null(strstr(host_log(), "70000008"));
}

/* A guest that reads and writes every MSR is harmless. */
static void sweep(void **state)
{
	u64 val, seed = 88172645463325252ul;

	for (u64 msr = 0; msr < BIT(32); msr += msr % 0x40000000 < 0x12000 ? 1 : 0xfffff) {
		guest_rdmsr(v, (u32)msr, &val);
		seed = seed * 6364136223846793005ul + 1442695040888963407ul;
		guest_wrmsr(v, (u32)msr, seed >> (seed & 63));
		guest_wrmsr(v, (u32)msr, ~0ul);
		guest_wrmsr(v, (u32)msr, 0);
	}
	assert_int_equal(f->vm.ending, 0);
	assert_false(fake_hw(v)->reg[REG_EFER] & EFER_SVME);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(efer),  T(pat),          T(mtrrs),     T(apic_base),
		T(tsc),   T(tsc_deadline), T(constants), T(unknown_ones_are_told_a_few_times),
		T(sweep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
