/* SPDX-License-Identifier: MIT */
/* What the capability MSRs of VMX make of the controls, bit by bit; and what is told when something is missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "tests/host/vmx_caps.h"

static u64 msr[VMX_CAPS];
static struct vmx_caps c;

static int setup(void **state)
{
	memcpy(msr, good_caps, sizeof(msr));
	return 0;
}

/* The high half of an MSR says what may be 1. */
static void forbid(unsigned cap, u64 bits) { msr[cap] &= ~(bits << 32); }

static void plan_ok(void)
{
	const char *missing = vmx_plan(msr, &c);

	if (missing)
		fail_msg("lacks %s", missing);
}

static void plan_lacks(const char *what)
{
	const char *missing = vmx_plan(msr, &c);

	assert_non_null(missing);
	if (!strstr(missing, what))
		fail_msg("lacks %s, not %s", missing, what);
}

static void everything(void **state)
{
	char text[200];

	plan_ok();
	assert_int_equal(c.revision, 0x12);
	assert_int_equal(c.pin, PIN_DEFAULT1 | PIN_INTR | PIN_NMI | PIN_VIRTUAL_NMI | PIN_TIMER | PIN_POSTED);
	assert_int_equal(c.proc & PROC_CR3, 0);
	assert_int_equal(c.proc & PROC_CR8, 0);
	assert_true(c.proc & PROC_TPR_SHADOW);
	assert_int_equal(c.proc & (PROC_INTR_WINDOW | PROC_NMI_WINDOW), 0);
	assert_int_equal(c.proc2, PROC2_EPT | PROC2_RDTSCP | PROC2_VPID | PROC2_WBINVD | PROC2_ANY_MODE |
					  PROC2_INVPCID | PROC2_APIC);
	assert_true(c.exit & EXIT_HOST64);
	assert_false(c.entry & ENTRY_LONG);
	assert_int_equal(c.max_order, ORDER_1G);
	assert_true(c.ept_ad && c.ept_single && c.vpid_single);
	assert_int_equal(c.timer_shift, 5);
	assert_int_equal(c.cr0_must, CR0_NE);
	vmx_describe(&c, text, sizeof(text));
	assert_null(strstr(text, " no"));
}

/* Each is needed: without it there is a line that names it. */
static void needed(void **state)
{
	static const struct {
		unsigned cap;
		u64 bits;
		const char *what;
	} t[] = {
		{CAP_TRUE_PIN, PIN_INTR, "interrupts"},
		{CAP_TRUE_PIN, PIN_NMI, "NMIs"},
		{CAP_TRUE_PIN, PIN_VIRTUAL_NMI, "NMIs"},
		{CAP_TRUE_PROC, PROC_IO_MAPS, "bitmaps"},
		{CAP_TRUE_PROC, PROC_MSR_MAPS, "bitmaps"},
		{CAP_TRUE_PROC, PROC_TSC_OFFSET, "TSC offset"},
		{CAP_TRUE_PROC, PROC_HLT, "HLT"},
		{CAP_TRUE_PROC, PROC_SECONDARY, "EPT"},
		{CAP_PROC2, PROC2_EPT, "EPT"},
		{CAP_TRUE_EXIT, EXIT_HOST64, "64-bit"},
		{CAP_TRUE_ENTRY, ENTRY_LONG, "64-bit"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		setup(state);
		forbid(t[i].cap, t[i].bits);
		plan_lacks(t[i].what);
	}
}

static void structures(void **state)
{
	msr[CAP_BASIC] = BASIC_VALUE & ~(15ul << 50); /* uncached */
	plan_lacks("write-back");
	msr[CAP_BASIC] = BASIC_VALUE | BIT(48); /* below 4 GB only */
	plan_lacks("anywhere");
}

static void ept(void **state)
{
	static const struct {
		u64 without;
		const char *what; /* NULL: nothing is missing */
		u8 order;
	} t[] = {
		{BIT(14), "write-back", 0}, {BIT(6), "four levels", 0},
		{BIT(20), "INVEPT", 0},     {BIT(25) | BIT(26), "INVEPT", 0},
		{0, NULL, ORDER_1G},        {BIT(17), NULL, ORDER_2M},
		{BIT(16), NULL, ORDER_4K},  {BIT(16) | BIT(17), NULL, ORDER_4K},
		{BIT(25), NULL, ORDER_1G},  {BIT(26), NULL, ORDER_1G},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		msr[CAP_EPT_VPID] = EPT_VPID_VALUE & ~t[i].without;
		if (t[i].what) {
			plan_lacks(t[i].what);
			continue;
		}
		plan_ok();
		assert_int_equal(c.max_order, t[i].order);
		assert_int_equal(c.ept_single, !(t[i].without & BIT(25)));
	}
}

/* Not used without a way to flush them. */
static void vpid(void **state)
{
	static const u64 useless[] = {BIT(32), BIT(41) | BIT(42)};

	for (unsigned i = 0; i < ARRAY_SIZE(useless); i++) {
		msr[CAP_EPT_VPID] = EPT_VPID_VALUE & ~useless[i];
		plan_ok();
		assert_false(c.proc2 & PROC2_VPID);
	}
	msr[CAP_EPT_VPID] = EPT_VPID_VALUE & ~BIT(41);
	plan_ok();
	assert_true((c.proc2 & PROC2_VPID) && !c.vpid_single);
	forbid(CAP_PROC2, PROC2_VPID);
	plan_ok();
	assert_false(c.proc2 & PROC2_VPID);
}

/* Real mode and no paging are then impossible; and a read-only page table cannot be walked with A/D. */
static void no_unrestricted_guest(void **state)
{
	forbid(CAP_PROC2, PROC2_ANY_MODE);
	plan_ok();
	assert_int_equal(c.cr0_must, CR0_PE | CR0_NE | CR0_PG);
	assert_false(c.ept_ad);
}

/* CPUs before "true" controls: CR3 exits cannot be switched off. */
static void no_true_controls(void **state)
{
	msr[CAP_BASIC] &= ~BIT(55);
	memset(&msr[CAP_TRUE_PIN], 0, 4 * sizeof(u64));
	plan_ok();
	assert_int_equal(c.proc & PROC_CR3, PROC_CR3);
	assert_int_equal(c.exit & EXIT_DEFAULT1, EXIT_DEFAULT1);
}

static void no_tpr_shadow(void **state)
{
	forbid(CAP_TRUE_PROC, PROC_TPR_SHADOW);
	plan_ok();
	assert_int_equal(c.proc & PROC_CR8, PROC_CR8);
	forbid(CAP_TRUE_PROC, PROC_CR8);
	plan_lacks("CR8");
}

/* What could be loaded at entries only, or exits only, is loaded at neither. */
static void loads(void **state)
{
	forbid(CAP_TRUE_EXIT, EXIT_LOAD_EFER);
	forbid(CAP_TRUE_ENTRY, ENTRY_LOAD_PAT);
	plan_ok();
	assert_int_equal(c.entry & (ENTRY_LOAD_EFER | ENTRY_LOAD_PAT), 0);
	assert_int_equal(c.exit & (EXIT_LOAD_EFER | EXIT_LOAD_PAT), 0);
}

/* The local APIC is the hardware's with all that belongs to it, or not at all. */
static void apic(void **state)
{
	static const struct {
		unsigned cap;
		u64 bits;
	} needs[] = {
		{CAP_TRUE_PROC, PROC_TPR_SHADOW}, {CAP_PROC2, PROC2_APIC_ACCESS}, {CAP_PROC2, PROC2_APIC_REGS},
		{CAP_PROC2, PROC2_DELIVER},       {CAP_PROC2, PROC2_ANY_MODE},
	};
	char text[200];

	for (unsigned i = 0; i < ARRAY_SIZE(needs); i++) {
		setup(state);
		forbid(needs[i].cap, needs[i].bits);
		plan_ok();
		assert_int_equal(c.proc2 & PROC2_APIC, 0);
		vmx_describe(&c, text, sizeof(text));
		assert_non_null(strstr(text, " apic no"));
	}
}

/* Only where the hardware delivers what it takes, and an exit acknowledges the interrupt that tells it. */
static void posted_interrupts(void **state)
{
	static const struct {
		unsigned cap;
		u64 bits;
	} needs[] = {{CAP_TRUE_PIN, PIN_POSTED}, {CAP_PROC2, PROC2_DELIVER}, {CAP_TRUE_EXIT, EXIT_ACK}};

	for (unsigned i = 0; i < ARRAY_SIZE(needs); i++) {
		setup(state);
		forbid(needs[i].cap, needs[i].bits);
		plan_ok();
		assert_false(c.pin & PIN_POSTED);
	}
}

static void optional(void **state)
{
	char text[200];

	forbid(CAP_TRUE_PIN, PIN_TIMER);
	forbid(CAP_PROC2, PROC2_RDTSCP | PROC2_INVPCID | PROC2_WBINVD);
	msr[CAP_EPT_VPID] &= ~BIT(21);
	plan_ok();
	assert_false(c.pin & PIN_TIMER);
	assert_int_equal(c.proc2, PROC2_EPT | PROC2_VPID | PROC2_ANY_MODE | PROC2_APIC);
	assert_false(c.ept_ad);
	vmx_describe(&c, text, sizeof(text));
	assert_non_null(strstr(text, "preemption-timer no"));
	assert_non_null(strstr(text, "ept-ad no"));
}

#define T(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(everything),       T(needed),        T(structures), T(ept),      T(vpid), T(no_unrestricted_guest),
		T(no_true_controls), T(no_tpr_shadow), T(loads),      T(optional), T(apic), T(posted_interrupts)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
