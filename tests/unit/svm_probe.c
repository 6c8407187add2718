/* SPDX-License-Identifier: MIT */
/* The SVM backend on a CPU whose firmware has switched SVM off (VM_CR.SVMDIS; AMD APM vol. 2, 15.30.1). No emulator
 * here has that bit. */
#include "arch/x86/cpu/cpu.h"

static u64 vm_cr;

static u64 fake_rdmsr(u32 msr) { return msr == MSR_VM_CR ? vm_cr : 0; }

static void fake_wrmsr(u32 msr, u64 val)
{
	if (msr == MSR_VM_CR)
		vm_cr = val;
}

#define rdmsr(msr)      fake_rdmsr(msr)
#define wrmsr(msr, val) fake_wrmsr(msr, val)

#include "arch/x86/hvm/svm.c"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "tests/host/host.h"

/* What the rest of the file needs, and these tests do not reach. */
void svm_enter(hpa_t vmcb, struct gregs *regs, hpa_t host) {}
void vcpu_load(struct pcpu *p, struct vcpu *v) {}

static void locked_off(void **state)
{
	host_log_clear();
	vm_cr = VM_CR_SVMDIS | VM_CR_LOCK;
	assert_int_equal(svm_ops.cpu_on(), -ENODEV);
	assert_int_equal(vm_cr, VM_CR_SVMDIS | VM_CR_LOCK);
	assert_non_null(strstr(host_log(), "switched off by the firmware"));
	assert_non_null(strstr(host_log(), "enable SVM"));
}

/* Off but not locked: switched on without a word. With no memory it goes no further than that. */
static void unlocked(void **state)
{
	host_log_clear();
	vm_cr = VM_CR_SVMDIS;
	host_fail_alloc(1);
	assert_int_equal(svm_ops.cpu_on(), -ENOMEM);
	assert_int_equal(vm_cr, 0);
	assert_string_equal(host_log(), "");
	host_fail_alloc(0);
}

static int machine(void **state)
{
	host_machine(4 * MB);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(locked_off), cmocka_unit_test(unlocked)};

	return cmocka_run_group_tests(tests, machine, NULL);
}
