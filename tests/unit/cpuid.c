/* SPDX-License-Identifier: MIT */
/* The guest's CPUID over a host that has every bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/host/fake_vm.h"

enum { EAX, EBX, ECX, EDX };

static struct fake_vm *f;
static struct vcpu *v;
static u32 r[4];

static int setup(void **state)
{
	f = fake_new(2);
	v = &f->vcpu[0];
	return 0;
}

static int teardown(void **state)
{
	fake_free(f);
	return 0;
}

static void ask(u32 leaf, u32 sub) { guest_cpuid(v, leaf, sub, r); }

static void hidden_features(void **state)
{
	static const struct {
		u32 leaf, sub, reg, bit;
		const char *name;
	} t[] = {
		{1, 0, ECX, 3, "MONITOR"},
		{1, 0, ECX, 5, "VMX"},
		{1, 0, ECX, 15, "PDCM"},
		{1, 0, EDX, 21, "DS"},
		{1, 0, EDX, 22, "ACPI thermal"},
		{7, 0, EBX, 1, "TSC_ADJUST"},
		{7, 0, EBX, 2, "SGX"},
		{7, 0, EBX, 4, "HLE"},
		{7, 0, EBX, 11, "RTM"},
		{7, 0, EBX, 14, "MPX"},
		{7, 0, EBX, 25, "PT"},
		{7, 0, ECX, 3, "PKU"},
		{7, 0, ECX, 5, "WAITPKG"},
		{7, 0, ECX, 7, "CET_SS"},
		{7, 0, ECX, 16, "LA57"},
		{7, 0, EDX, 20, "CET_IBT"},
		{7, 0, EDX, 22, "AMX"},
		{7, 0, EDX, 24, "AMX"},
		{7, 0, EDX, 26, "IBRS"},
		{7, 0, EDX, 29, "ARCH_CAPABILITIES"},
		{7, 0, EDX, 31, "SSBD"},
		{0xd, 1, EAX, 3, "XSAVES"},
		{0x80000001, 0, ECX, 2, "SVM"},
		{0x80000001, 0, ECX, 12, "SKINIT"},
		{0x80000001, 0, EDX, 25, "FFXSR"},
		{0x80000001, 0, ECX, 15, "LWP"},
		{0x80000001, 0, ECX, 10, "IBS"},
		{0x80000001, 0, ECX, 22, "TOPO"},
		{0x80000001, 0, ECX, 29, "MWAITX"},
		{0x80000008, 0, EBX, 12, "IBPB"},
		{6, 0, ECX, 0, "APERFMPERF"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		ask(t[i].leaf, t[i].sub);
		if (r[t[i].reg] & BIT(t[i].bit))
			fail_msg("%s is shown", t[i].name);
	}
	for (u32 leaf = 0x8000000a; leaf < 0x80000019; leaf++) {
		ask(leaf, 0);
		assert_int_equal(r[EAX] | r[EBX] | r[ECX] | r[EDX], 0);
	}
	ask(0xa, 0);
	assert_int_equal(r[EAX] | r[EBX] | r[ECX] | r[EDX], 0);
	ask(0x8000001f, 0); /* SEV */
	assert_int_equal(r[EAX] | r[EBX] | r[ECX] | r[EDX], 0);
}

static void shown_features(void **state)
{
	ask(1, 0);
	assert_true(r[ECX] & BIT(31)); /* hypervisor */
	assert_true(r[ECX] & BIT(21)); /* x2APIC */
	assert_true(r[ECX] & BIT(24)); /* TSC deadline */
	assert_true(r[ECX] & BIT(28)); /* AVX */
	ask(7, 0);
	assert_true(r[EBX] & BIT(5));
	assert_true(r[EBX] & BIT(7)); /* SMEP */
	ask(0x80000001, 0);
	assert_true(r[EDX] & BIT(29));
	assert_true(r[EDX] & BIT(26));
	assert_true(r[EDX] & BIT(20));
}

static void follows_the_guest(void **state)
{
	ask(1, 0);
	assert_false(r[ECX] & BIT(27));
	assert_true(r[EDX] & BIT(9));
	fake_hw(v)->reg[REG_CR4] |= CR4_OSXSAVE;
	v->lapic.base &= ~(u64)LAPIC_BASE_ENABLE;
	ask(1, 0);
	assert_true(r[ECX] & BIT(27));
	assert_false(r[EDX] & BIT(9));
}

static void topology(void **state)
{
	static const struct {
		unsigned vcpus, shift;
	} t[] = {{1, 0}, {2, 1}, {3, 2}, {4, 2}, {64, 6}};

	fake_feature(FEAT_SVM, true);
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		f->vm.vcpus = t[i].vcpus;
		v->index = t[i].vcpus - 1;
		ask(1, 0);
		assert_int_equal(r[EBX] >> 24, v->index);
		assert_int_equal(r[EBX] >> 16 & 0xff, 1u << t[i].shift);
		assert_int_equal(!!(r[EDX] & BIT(28)), t[i].vcpus > 1);
		ask(0xb, 0);
		assert_int_equal(r[EAX], 0);
		assert_int_equal(r[EBX], 1);
		assert_int_equal(r[ECX], 0x100);
		assert_int_equal(r[EDX], v->index);
		ask(0xb, 1);
		assert_int_equal(r[EAX], t[i].shift);
		assert_int_equal(r[EBX], t[i].vcpus);
		assert_int_equal(r[ECX], 0x201);
		ask(0xb, 2);
		assert_int_equal(r[EAX] | r[EBX], 0);
		assert_int_equal(r[ECX], 2);
		ask(0x80000008, 0);
		assert_int_equal(r[ECX] & 0xff, t[i].vcpus - 1);
		assert_int_equal(r[ECX] >> 12, t[i].shift);
	}
	v->index = 0;
	f->vm.vcpus = 2;
}

static void xsave_sizes(void **state)
{
	ask(0xd, 0);
	assert_int_equal(r[EAX], 0xe7);
	assert_int_equal(r[EBX], ~0u); /* the hardware's, for the XCR0 that is loaded */
	assert_int_equal(r[ECX], 2688);
	assert_int_equal(r[EDX], 0);
	ask(0xd, 1);
	assert_int_equal(r[EAX], 7);
	assert_int_equal(r[ECX] | r[EDX], 0);
	ask(0xd, 2);
	assert_int_equal(r[EAX], 256);
	ask(0xd, 3); /* MPX, which is not offered */
	assert_int_equal(r[EAX] | r[EBX], 0);
	ask(0xd, 64);
	assert_int_equal(r[EAX] | r[EBX], 0);
	cpu_features.xcr0_mask = 0;
	ask(0xd, 0);
	assert_int_equal(r[EAX] | r[EBX] | r[ECX], 0);
	ask(1, 0);
	assert_false(r[ECX] & (BIT(26) | BIT(28)));
}

static void own_leaves(void **state)
{
	ask(0x40000000, 0);
	assert_int_equal(r[EAX], 0x40000010);
	assert_memory_equal(&r[EBX], "CleaveCleave", 12);
	ask(0x40000010, 0);
	assert_int_equal(r[EAX], FAKE_TSC);
	assert_int_equal(r[EBX], 1000000);
	ask(0x15, 0);
	assert_int_equal((u64)r[ECX] * r[EBX] / r[EAX], FAKE_TSC * 1000ul);
}

/*
 * Linux on Intel has the TSC's frequency as crystal kHz * EBX / EAX in 32 bits. That overflowed, and so it took the TSC
 * for a slow one and had itself interrupted all the time. The fraction is exact to a kHz or a millionth.
 */
static void tsc_leaf_fits_32_bits(void **state)
{
	static const u32 khz[] = {1000, 2704, 19999, 50000, 999999, 1000000, 1000001, 2394454, 3500000, 4294000};

	for (unsigned i = 0; i < ARRAY_SIZE(khz); i++) {
		f->vm.clock.tsc_khz = khz[i];
		ask(0x15, 0);
		assert_int_not_equal(r[EAX], 0);

		u32 crystal = r[ECX] / 1000, linux_khz = crystal * r[EBX] / r[EAX], off = khz[i] / 1000000 + 1;

		assert_in_range(linux_khz, khz[i] - off, khz[i] + off);
	}
}

static void addresses(void **state)
{
	ask(0x80000008, 0);
	assert_int_equal(r[EAX] & 0xff, 40);
	assert_int_equal(r[EAX] >> 8 & 0xff, 48);
	f->vm.p2m.width = 36;
	ask(0x80000008, 0);
	assert_int_equal(r[EAX] & 0xff, 36);
}

static void any_leaf_is_harmless(void **state)
{
	for (u64 base = 0; base < BIT(32); base += 0x8000000)
		for (u32 leaf = 0; leaf < 0x40; leaf++)
			for (u32 sub = 0; sub < 4; sub++)
				ask((u32)base + leaf, sub);
	ask(0x30000000, 0);
	assert_int_equal(r[EAX] | r[EBX] | r[ECX] | r[EDX], 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(hidden_features),      T(shown_features), T(follows_the_guest),     T(topology),
		T(xsave_sizes),          T(own_leaves),     T(tsc_leaf_fits_32_bits), T(addresses),
		T(any_leaf_is_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
