/* SPDX-License-Identifier: MIT */
/*
 * The VMX backend over a VMCS that is an array: what it reads and writes for an exit, how it tells what went wrong, and
 * which events it injects again. An entry is a function of the test, which plays the CPU.
 */
#include "arch/x86/cpu/cpu.h"
#include "arch/x86/cpu/features.h"
#include "arch/x86/cpu/pcpu.h"
#include "devices/lapic_regs.h"
#include "tests/host/fake_vm.h"
#include "tests/host/vmx_caps.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* --- The CPU. */

static u64 caps_msr[VMX_CAPS], feature_control, reg_cr4, vmcs[0x7000], refused_field, reg_cr2, reg_dr6, loaded_msr[5];
static unsigned vmwrites, nmis, invepts, invvpids, clears;
static bool vmxon_works;
static u8 acknowledged;
static struct pcpu self;

static u64 fake_rdmsr(u32 msr)
{
	if (msr - MSR_STAR < 4)
		return loaded_msr[msr - MSR_STAR];
	if (msr == MSR_KERNEL_GS_BASE)
		return loaded_msr[4];
	if (msr == 0x3a)
		return feature_control;
	if (msr - MSR_VMX_CAPS < VMX_CAPS)
		return caps_msr[msr - MSR_VMX_CAPS];
	return msr == MSR_EFER ? EFER_LME | EFER_LMA : 0;
}

static void fake_wrmsr(u32 msr, u64 val)
{
	if (msr - MSR_STAR < 4)
		loaded_msr[msr - MSR_STAR] = val;
	if (msr == MSR_KERNEL_GS_BASE)
		loaded_msr[4] = val;
	if (msr == 0x3a && !(feature_control & 1))
		feature_control = val;
}

#define rdmsr(msr)      fake_rdmsr(msr)
#define wrmsr(msr, val) fake_wrmsr(msr, val)
#define read_cr0()      (CR0_PE | CR0_PG | CR0_NE)
#define read_cr2()      reg_cr2
#define write_cr2(val)  (reg_cr2 = (val))
#define read_cr4()      reg_cr4
#define write_cr4(val)  (reg_cr4 = (val))
#define read_dr6()      reg_dr6
#define write_dr6(val)  (reg_dr6 = (val))
#define cpu_cli()       ((void)0)
#define cpu_sti()       ((void)0)
#define this_pcpu()     (&self)

#define ARCH_X86_HVM_VMX_INSN_H
static bool vmxon(hpa_t pa) { return vmxon_works; }
static bool vmptrld(hpa_t pa) { return true; }
static bool vmclear(hpa_t pa)
{
	clears++;
	return true;
}
static u64 vmread(u64 field) { return vmcs[field]; }
static bool vmwrite(u64 field, u64 val)
{
	vmwrites++;
	if (field == refused_field) {
		vmcs[0x4400] = 12;
		return false;
	}
	vmcs[field] = val;
	return true;
}
static void invept(u64 eptp, bool single) { invepts++; }
static void invvpid(u64 vpid, bool single) { invvpids++; }
static void take_nmi(void) { nmis++; }
void traps_interrupt(u8 vector) { acknowledged = vector; }
static u64 idt_base(void) { return 0; }

#include "arch/x86/hvm/vmx.c"
#include "arch/x86/hvm/vmx_cpu.c"
#include "arch/x86/hvm/vmx_state.c"

struct cpu_features cpu_features;
const char vmx_exit[1];
u32 time_tsc_khz(void) { return FAKE_TSC; }
void vcpu_load(struct pcpu *p, struct vcpu *v) { p->loaded = v; }

/* An entry: what the CPU does until the exit. */
static void (*guest_runs)(struct gregs *r);
static bool entry_fails;

bool vmx_enter(struct gregs *r, u64 *frame, bool launched)
{
	if (entry_fails)
		return true;
	if (guest_runs)
		guest_runs(r);
	vmcs[0x4016] &= ~EVENT_VALID; /* VM exits clear it */
	return false;
}

/* --- The machine. */

static struct fake_vm *f;
static struct vcpu *v;

static void exits(u64 reason, u64 info)
{
	vmcs[RO_REASON] = reason;
	vmcs[RO_INFO] = info;
	vmcs[RO_LENGTH] = 2;
	vmcs[RO_VECTORING] = 0;
}

static void long_mode(void)
{
	struct segment cs = {0, 0xffffffff, 0x10, 0xa9b};

	vmx_set(v, REG_CR3, FAKE_TABLES);
	vmx_set(v, REG_CR4, CR4_PAE);
	vmx_set(v, REG_EFER, EFER_LME | EFER_LMA);
	vmx_set(v, REG_CR0, CR0_PG | CR0_PE | CR0_ET | CR0_NE);
	for (unsigned s = 0; s < SEGS_USER; s++)
		vmx_set_seg(v, s, (struct segment){0, 0xffffffff, 0x18, 0xc93});
	vmx_set_seg(v, SEG_CS, cs);
	v->regs.rip = FAKE_CODE;
}

static int setup(void **state)
{
	memcpy(caps_msr, good_caps, sizeof(caps_msr));
	memset(vmcs, 0, sizeof(vmcs));
	memset(loaded_msr, 0, sizeof(loaded_msr));
	feature_control = FEATURE_LOCKED | FEATURE_VMX;
	reg_cr4 = reg_cr2 = reg_dr6 = 0;
	refused_field = ~0ul;
	vmwrites = nmis = invepts = invvpids = clears = 0;
	vmxon_works = true;
	entry_fails = false;
	guest_runs = NULL;
	self = (struct pcpu){0};
	io_map = msr_map = NULL;
	current[0] = NULL;
	f = fake_new(2);
	return 0;
}

/* On a CPU with these capabilities, a vCPU that waits at its first instruction. */
static void machine(void)
{
	hvm = &vmx_ops;
	assert_int_equal(vmx_ops.cpu_on(), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(vmx_ops.vcpu_init(&f->vcpu[i]), 0);
		vcpu_reset(&f->vcpu[i]);
	}
	v = &f->vcpu[0];
}

static int teardown(void **state)
{
	if (hvm == &vmx_ops)
		for (unsigned i = 0; i < 2; i++)
			vmx_ops.vcpu_free(&f->vcpu[i]);
	fake_free(f);
	return 0;
}

/* --- Turning it on. */

static void locked_off(void **state)
{
	feature_control = FEATURE_LOCKED;
	assert_int_equal(vmx_ops.cpu_on(), -ENODEV);
	assert_non_null(strstr(host_log(), "switched off and locked by the firmware"));
	assert_non_null(strstr(host_log(), "enable VT-x"));
	feature_control = FEATURE_LOCKED | 2; /* only inside SMX */
	assert_int_equal(vmx_ops.cpu_on(), -ENODEV);
}

static void unlocked(void **state)
{
	feature_control = 0;
	assert_int_equal(vmx_ops.cpu_on(), 0);
	assert_int_equal(feature_control, FEATURE_LOCKED | FEATURE_VMX);
	assert_true(reg_cr4 & CR4_VMXE);
}

static void in_use(void **state)
{
	reg_cr4 = CR4_VMXE;
	assert_int_equal(vmx_ops.cpu_on(), -ENODEV);
	assert_non_null(strstr(host_log(), "in use already"));
	host_log_clear();
	reg_cr4 = 0;
	vmxon_works = false;
	assert_int_equal(vmx_ops.cpu_on(), -ENODEV);
	assert_non_null(strstr(host_log(), "in use already"));
}

static void no_ept(void **state)
{
	caps_msr[CAP_PROC2] &= ~((u64)PROC2_EPT << 32);
	assert_int_equal(vmx_ops.cpu_on(), -ENODEV);
	assert_non_null(strstr(host_log(), "lacks EPT"));
}

/* --- What it costs. */

static void cpuid_exit(struct gregs *r)
{
	exits(10, 0);
	vmcs[0x681e] = FAKE_CODE;
}

/* At most 6 VMREADs and 3 VMWRITEs. */
static void cpuid_is_cheap(void **state)
{
	struct vmx *s;
	u64 reads, writes;

	machine();
	s = vmx_of(v);
	long_mode();
	guest_runs = cpuid_exit;
	vmx_run(v);
	exit_dispatch(v, &v->exit);
	for (unsigned i = 0; i < 3; i++) {
		reads = s->reads;
		writes = s->writes;
		v->regs.r[R_AX] = 0;
		assert_true(vcpu_run_once(v));
		assert_int_equal(v->exit.kind, EXIT_CPUID);
		assert_int_equal(v->regs.rip, FAKE_CODE + 2);
		assert_in_range(s->reads - reads, 1, 6);
		assert_in_range(s->writes - writes, 1, 3);
	}
	assert_int_equal(invepts, 1);
	vmx_report(&f->vm);
	assert_non_null(strstr(host_log(), "@vmcs guest=fake reads="));
}

/* --- What fails. */

static void refused(void **state)
{
	machine();
	long_mode();
	refused_field = 0x6802;
	vmx_run(v);
	assert_int_equal(v->exit.kind, EXIT_ERROR);
	assert_string_equal(v->exit.why, "guest CR3 = 200000 is refused: no such VMCS field on this CPU");
	assert_int_equal(exit_dispatch(v, &v->exit), OUT_STOP);
	assert_non_null(strstr(f->vm.end_detail, "guest CR3"));
	assert_int_equal(f->vm.end_reason, END_CRASH);
}

static void entry_refused(struct gregs *r) { exits(REASON_FAILED_ENTRY | 33, 0); }

static void state_refused(void **state)
{
	machine();
	long_mode();
	vmx_set_seg(v, SEG_CS, (struct segment){0, 0xffffffff, 0x10, 0xa91});
	guest_runs = entry_refused;
	vmx_run(v);
	assert_int_equal(v->exit.kind, EXIT_ERROR);
	assert_string_equal(v->exit.why, "CS.type 1 is not accessed code");
	exit_dispatch(v, &v->exit);
	assert_non_null(strstr(f->vm.end_detail, "CS.type 1 is not accessed code"));
	vmx_set_seg(v, SEG_CS, (struct segment){0, 0xffffffff, 0x10, 0xa9b});
	vmx_run(v);
	assert_non_null(strstr(v->exit.why, "by a rule that is not known here"));
}

static void controls_refused(void **state)
{
	machine();
	long_mode();
	entry_fails = true;
	vmcs[RO_ERROR] = 7;
	vmx_run(v);
	assert_int_equal(v->exit.kind, EXIT_ERROR);
	assert_string_equal(v->exit.why, "entry with invalid control fields");
}

static void misconfigured(struct gregs *r)
{
	exits(49, 0);
	vmcs[RO_GPA] = 0x123000;
}

static void misconfiguration(void **state)
{
	machine();
	long_mode();
	guest_runs = misconfigured;
	vmx_run(v);
	assert_int_equal(v->exit.kind, EXIT_ERROR);
	assert_non_null(strstr(v->exit.why, "EPT misconfiguration at 123000"));
}

/* --- Events. */

static u64 injected, injected_error;

static void violation(struct gregs *r)
{
	injected = vmcs[0x4016];
	injected_error = vmcs[0x4018];
	exits(48, BIT(1) | BIT(7) | BIT(8));
	vmcs[RO_GPA] = FAKE_MMIO + 8;
	vmcs[RO_GVA] = 0x7008;
	if (injected & EVENT_VALID)
		vmcs[RO_VECTORING] = injected;
	vmcs[RO_VECTORING_ERROR] = injected_error;
}

/* An exit while an event is delivered: it is injected again, with all it had; a software interrupt is run again. */
static void interrupted_delivery(void **state)
{
	machine();
	long_mode();
	guest_runs = violation;
	v->event = (struct vm_event){.vector = VEC_PF, .type = EVENT_EXCEPTION, .has_error = 1, .error = 6, .valid = 1};
	for (unsigned i = 0; i < 2; i++) {
		vmx_run(v);
		assert_int_equal(injected, EVENT_VALID | BIT(11) | EVENT_EXCEPTION << 8 | VEC_PF);
		assert_int_equal(injected_error, 6);
		assert_int_equal(v->exit.kind, EXIT_NPF);
		assert_int_equal(v->exit.access, P2M_WRITE);
		assert_int_equal(v->exit.gpa, FAKE_MMIO + 8);
		assert_int_equal(v->exit.gva, 0x7008);
		assert_false(v->exit.walk);
		assert_true(v->event.valid && v->event.vector == VEC_PF && v->event.error == 6);
	}
	v->event.valid = false;
	vmx_run(v);
	assert_false(injected & EVENT_VALID);
	assert_false(v->event.valid);
	v->event = (struct vm_event){.vector = 0x80, .type = EVENT_SOFT, .valid = 1};
	vmx_run(v);
	assert_false(v->event.valid);
}

static void nmi_then_iret(struct gregs *r)
{
	injected = vmcs[0x4016];
	if (injected & EVENT_VALID)
		vmcs[0x4824] |= BLOCK_NMI;
	exits(10, 0);
}

static void iret(struct gregs *r)
{
	assert_true(vmcs[0x4824] & BLOCK_NMI);
	vmcs[0x4824] &= ~(u64)BLOCK_NMI;
	exits(8, 0);
}

/* NMIs are blocked from the injection to the IRET; a second one waits for the window. */
static void nmis_are_blocked(void **state)
{
	machine();
	long_mode();
	v->nmi_pending = true;
	guest_runs = nmi_then_iret;
	assert_true(vcpu_run_once(v));
	assert_int_equal(injected, EVENT_VALID | EVENT_NMI << 8 | 2);
	assert_true(v->nmi_blocked);
	v->nmi_pending = true;
	assert_true(vcpu_run_once(v));
	assert_false(injected & EVENT_VALID);
	assert_true(vmcs[0x4002] & PROC_NMI_WINDOW);
	guest_runs = iret;
	assert_true(vcpu_run_once(v));
	assert_int_equal(v->exit.kind, EXIT_WINDOW);
	assert_false(v->nmi_blocked);
	guest_runs = nmi_then_iret;
	assert_true(vcpu_run_once(v));
	assert_true(injected & EVENT_VALID);
	assert_false(vmcs[0x4002] & PROC_NMI_WINDOW);
}

/* An NMI whose delivery an exit interrupts is injected again: with NMIs open, as the entry wants it. */
static void nmi_interrupted(void **state)
{
	machine();
	long_mode();
	v->event = (struct vm_event){.vector = 2, .type = EVENT_NMI, .valid = 1};
	v->nmi_blocked = true;
	vmcs[0x4824] = 0;
	guest_runs = violation;
	for (unsigned i = 0; i < 3; i++) {
		vmx_run(v);
		vmcs[0x4824] |= BLOCK_NMI;
		assert_int_equal(injected, EVENT_VALID | EVENT_NMI << 8 | 2);
		assert_true(v->event.valid && v->nmi_blocked);
	}
}

static void nmi_of_the_host(struct gregs *r)
{
	exits(0, 0);
	vmcs[RO_EVENT] = EVENT_VALID | EVENT_NMI << 8 | 2;
}

static void debug_exception(struct gregs *r)
{
	exits(0, BIT(14) | 1);
	vmcs[RO_EVENT] = EVENT_VALID | EVENT_EXCEPTION << 8 | VEC_DB;
}

static void exceptions(void **state)
{
	machine();
	long_mode();
	guest_runs = nmi_of_the_host;
	vmx_run(v);
	assert_int_equal(v->exit.kind, EXIT_INTERRUPT);
	assert_int_equal(nmis, 1);
	guest_runs = debug_exception;
	reg_dr6 = 0xffff0ff2;
	vmx_run(v);
	assert_int_equal(v->exit.kind, EXIT_EXCEPTION);
	assert_int_equal(v->exit.vector, VEC_DB);
	assert_int_equal(reg_dr6, 0xffff4ff1);
}

/* --- Older CPUs. */

static void no_real_mode(void **state)
{
	caps_msr[CAP_PROC2] &= ~((u64)PROC2_ANY_MODE << 32);
	machine();
	assert_int_equal(p2m_get(&f->vm.p2m, gpa_to_gfn(IDENTITY_GPA)).type, P2M_RO);
	vmwrites = 0;
	vmx_run(v);
	assert_int_equal(v->exit.kind, EXIT_SOFT);
	assert_int_equal(v->exit.mode, MODE_REAL);
	assert_int_equal(vmwrites, 0);
	/* Protected mode without paging: on the identity map, with the guest's own values before its eyes. */
	vmx_set(v, REG_CR3, 0x5000);
	vmx_set(v, REG_CR0, CR0_PE | CR0_ET);
	guest_runs = cpuid_exit;
	vmx_run(v);
	assert_int_equal(v->exit.kind, EXIT_CPUID);
	assert_int_equal(vmcs[0x6802], IDENTITY_GPA);
	assert_true(vmcs[0x6800] & CR0_PG);
	assert_int_equal(vmcs[0x6804] & CR4_PAGING, CR4_PSE);
	assert_true(vmcs[0x4002] & PROC_CR3);
	assert_int_equal(vmx_get(v, REG_CR3), 0x5000);
	assert_int_equal(vmx_get(v, REG_CR0), CR0_PE | CR0_ET);
	assert_int_equal(vmx_get(v, REG_CR4), 0);
	long_mode();
	vmx_run(v);
	assert_int_equal(vmcs[0x6802], FAKE_TABLES);
	assert_false(vmcs[0x4002] & PROC_CR3);
}

/* Without fields for EFER and PAT they are in the lists that entry and exit load. */
static void lists(void **state)
{
	struct vmx *s;

	caps_msr[CAP_TRUE_ENTRY] &= ~((u64)(ENTRY_LOAD_EFER | ENTRY_LOAD_PAT) << 32);
	machine();
	s = vmx_of(v);
	long_mode();
	vmx_set(v, REG_EFER, EFER_LME | EFER_LMA | EFER_NX);
	vmx_set(v, REG_PAT, 0x1122);
	guest_runs = cpuid_exit;
	vmx_run(v);
	assert_int_equal(vmcs[0x4010], 2);
	assert_int_equal(vmcs[0x4014], 2);
	assert_int_equal(vmcs[0x200a], port_phys(s->guest_list));
	assert_int_equal(s->guest_list[0].msr, MSR_EFER);
	assert_int_equal(s->guest_list[0].value, EFER_LME | EFER_LMA | EFER_NX);
	assert_int_equal(s->host_list[0].value, EFER_LME | EFER_LMA);
	assert_int_equal(s->guest_list[1].msr, MSR_PAT);
	assert_int_equal(s->guest_list[1].value, 0x1122);
	assert_int_equal(vmcs[0x2806], 0);
}

/* --- More. */

/* What is not in the VMCS goes with its vCPU; and a VMCS is cleared before it is somebody else's memory. */
static void two_vcpus(void **state)
{
	struct vcpu *w;

	machine();
	w = &f->vcpu[1];
	long_mode();
	v = w;
	long_mode();
	v = &f->vcpu[0];
	guest_runs = cpuid_exit;
	vmx_run(v);
	reg_cr2 = 0x1111;
	loaded_msr[1] = 0x2222; /* LSTAR */
	vmx_run(w);
	assert_int_equal(reg_cr2, 0);
	assert_int_equal(loaded_msr[1], 0);
	assert_int_equal(vmx_get(v, REG_CR2), 0x1111);
	vmx_run(v);
	assert_int_equal(reg_cr2, 0x1111);
	assert_int_equal(loaded_msr[1], 0x2222);
	assert_int_equal(invepts, 2);
	clears = 0;
	vmx_ops.vcpu_leave(v);
	vmx_ops.vcpu_leave(w);
	assert_int_equal(clears, 2);
}

static void flushes(void **state)
{
	machine();
	long_mode();
	guest_runs = cpuid_exit;
	vmx_run(v);
	assert_int_equal(invepts, 1);
	vmx_flush(v);
	vmx_run(v);
	assert_int_equal(invvpids, 1);
	vmx_run(v);
	assert_int_equal(invvpids, 1);
	f->vm.p2m.gen++;
	vmx_run(v);
	assert_int_equal(invepts, 2);
}

/* The guest's CR8 is the local APIC's; it exits when it lets the waiting interrupt through, and not before. */
static void threshold(void **state)
{
	caps_msr[CAP_PROC2] &= ~((u64)PROC2_DELIVER << 32);
	machine();
	long_mode();
	guest_runs = cpuid_exit;
	lapic_set_cr8(&v->lapic, 7);
	v->lapic.rvi = 0x55;
	vmx_run(v);
	assert_int_equal(vmcs[0x401c], 5);
	assert_int_equal(vmcs[0x2012], port_phys(v->lapic.page));
	lapic_set_cr8(&v->lapic, 3); /* above it: the CPU would refuse it */
	vmx_run(v);
	assert_int_equal(vmcs[0x401c], 0);
}

/* --- The local APIC where the hardware has it. */

static u64 status_seen;

/* What the CPU does with it at the entry: it delivers 0x55, and the guest ends its service. */
static void serves(struct gregs *r)
{
	status_seen = vmcs[0x810];
	vmcs[0x810] = 0;
	*lapic_word(&v->lapic, REG_IRR, 0x55) &= ~BIT(0x55 % 32);
	cpuid_exit(r);
}

static void post(u8 vector, bool level)
{
	v->lapic.enabled = true;
	assert_true(lapic_post(&v->lapic, vector, level));
}

/* What is posted reaches the hardware's registers with the next entry, once; what is level-triggered is told back. */
static void hardware_delivers(void **state)
{
	machine();
	long_mode();
	guest_runs = cpuid_exit;
	vcpu_run_once(v);
	assert_true(v->lapic.delivers);
	assert_int_equal(vmcs[0x401c], 0);
	assert_int_equal(vmcs[0x2014], mfn_to_hpa(p2m_get(&f->vm.p2m, gpa_to_gfn(LAPIC_DEFAULT_BASE)).mfn));
	assert_int_equal(p2m_get(&f->vm.p2m, gpa_to_gfn(LAPIC_DEFAULT_BASE)).type, P2M_APIC);
	assert_int_equal(vmcs[0x401e] & PROC2_APIC, PROC2_APIC);
	post(0x55, false);
	post(0x41, true);
	guest_runs = serves;
	v->regs.rflags &= ~(u64)RFLAGS_IF; /* the hardware waits for IF by itself: no window */
	vcpu_run_once(v);
	assert_int_equal(status_seen, 0x55);
	assert_int_equal(vmcs[0x4002] & PROC_INTR_WINDOW, 0);
	assert_int_equal(vmcs[0x4016] & EVENT_VALID, 0);
	assert_int_equal(vmcs[0x201e], BIT(0x41 - 64));
	vmcs[0x810] = 0x41; /* as the hardware left it */
	guest_runs = cpuid_exit;
	vcpu_run_once(v);
	assert_int_equal(vmcs[0x810], 0x41);
	post(0x30, false);
	vcpu_run_once(v);
	assert_int_equal(vmcs[0x810], 0x41); /* 0x41 is still the highest */
	assert_true(*lapic_word(&v->lapic, REG_IRR, 0x30) & BIT(0x30 % 32));
}

static void hlt_exit(struct gregs *r)
{
	exits(12, 0);
	vmcs[0x681e] = FAKE_CODE;
}

/* A halted vCPU runs on for what the hardware would deliver to it, and for nothing else. */
static void hardware_wakes(void **state)
{
	machine();
	long_mode();
	guest_runs = hlt_exit;
	v->regs.rflags = vmcs[0x6820] = RFLAGS_FIXED | RFLAGS_IF;
	vcpu_run_once(v);
	assert_false(vcpu_deliver(v));
	lapic_set_cr8(&v->lapic, 6);
	post(0x55, false);
	assert_false(vcpu_deliver(v));
	assert_true(v->halted);
	lapic_set_cr8(&v->lapic, 4);
	v->regs.rflags = RFLAGS_FIXED;
	assert_false(vcpu_deliver(v));
	v->regs.rflags = RFLAGS_FIXED | RFLAGS_IF;
	assert_true(vcpu_deliver(v));
	assert_false(v->halted || v->event.valid);
}

/* Where the guest has moved its local APIC away, or uses MSRs, what it does at the old place is software's. */
static void hardware_page(void **state)
{
	machine();
	long_mode();
	guest_runs = cpuid_exit;
	lapic_wrmsr(&v->lapic, MSR_APIC_BASE, 0xfed00000 | LAPIC_BASE_ENABLE | LAPIC_BASE_BSP);
	vcpu_run_once(v);
	assert_int_equal(vmcs[0x401e] & PROC2_APIC, PROC2_APIC_ACCESS | PROC2_DELIVER);
	lapic_wrmsr(&v->lapic, MSR_APIC_BASE, LAPIC_DEFAULT_BASE | LAPIC_BASE_ENABLE | LAPIC_BASE_BSP);
	vcpu_run_once(v);
	assert_int_equal(vmcs[0x401e] & PROC2_APIC, PROC2_APIC);
	lapic_wrmsr(&v->lapic, MSR_APIC_BASE, LAPIC_DEFAULT_BASE | LAPIC_BASE_ENABLE | LAPIC_BASE_X2APIC);
	vcpu_run_once(v);
	assert_int_equal(vmcs[0x401e] & PROC2_APIC, PROC2_APIC_ACCESS | PROC2_DELIVER);
}

static u64 apic_reason, apic_info;
static void apic_exits(struct gregs *r) { exits(apic_reason, apic_info); }

static void hardware_exits(void **state)
{
	static const struct {
		u64 type;
		u8 access;
		bool walk;
	} kinds[] = {{0, P2M_READ, false}, {1, P2M_WRITE, false}, {2, P2M_EXEC, false}, {15, P2M_READ, true}};

	machine();
	long_mode();
	guest_runs = apic_exits;
	apic_reason = 44;
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
		apic_info = 0x390 | kinds[i].type << 12;
		vmx_run(v);
		assert_int_equal(v->exit.kind, EXIT_NPF);
		assert_int_equal(v->exit.gpa, LAPIC_DEFAULT_BASE + 0x390);
		assert_int_equal(v->exit.access, kinds[i].access);
		assert_int_equal(v->exit.walk, kinds[i].walk);
	}
	apic_reason = 56;
	apic_info = REG_LDR * 16;
	lapic_put(&v->lapic, REG_LDR, 0x12345678);
	assert_true(vcpu_run_once(v));
	assert_int_equal(lapic_get(&v->lapic, REG_LDR), 0x12000000);
	apic_reason = 45;
	apic_info = 0x41;
	f->vm.platform.ioapic.redir[3] = 0x41 | BIT(15) | BIT(14); /* level, remote IRR */
	assert_true(vcpu_run_once(v));
	assert_false(f->vm.platform.ioapic.redir[3] & BIT(14));
	assert_int_equal(v->exits[EXIT_APIC] + v->exits[EXIT_EOI], 2);
}

static unsigned notified;
static void notify(void *ctx, unsigned vcpu) { notified++; }

/* Another pCPU posts while the guest runs; what it has posted already it does not post again. */
static void posted_inside(struct gregs *r)
{
	post(0x55, false);
	post(0x55, false);
	assert_int_equal(notified, 1);
	post(0x56, false);
	assert_int_equal(notified, 2);
	cpuid_exit(r);
}

static void posted_interrupts(void **state)
{
	struct platform_ops ops = *f->vm.platform.ops;

	ops.notify = notify;
	f->vm.platform.ops = &ops;
	notified = 0;
	machine();
	long_mode();
	assert_int_equal(vmcs[0x2016], 0);
	guest_runs = posted_inside;
	vcpu_run_once(v);
	assert_int_equal(vmcs[0x2016], port_phys(&v->lapic.posted));
	assert_int_equal(vmcs[0x2016] % 64, 0);
	assert_int_equal(vmcs[0x0002], VEC_POSTED);
	assert_true(vmcs[0x4000] & PIN_POSTED);
	assert_false(v->lapic.inside);
	guest_runs = cpuid_exit;
	vcpu_run_once(v); /* this hardware did not take them, for the guest had left: software does */
	assert_int_equal(vmcs[0x810], 0x56);
	post(0x57, false);
	assert_int_equal(notified, 2);
}

static void interrupt_exit(struct gregs *r)
{
	exits(1, 0);
	vmcs[RO_EVENT] = EVENT_VALID | 0xf1;
}

/* An exit that acknowledges an interrupt has it handled; one that does not leaves it to the IDT. */
static void interrupts_of_the_host(void **state)
{
	machine();
	long_mode();
	guest_runs = interrupt_exit;
	acknowledged = 0;
	vmx_run(v);
	assert_int_equal(acknowledged, 0xf1);
	vmx_caps.exit &= ~(u32)EXIT_ACK;
	acknowledged = 0;
	vmx_run(v);
	assert_int_equal(acknowledged, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(locked_off),
		T(unlocked),
		T(in_use),
		T(no_ept),
		T(cpuid_is_cheap),
		T(refused),
		T(state_refused),
		T(controls_refused),
		T(misconfiguration),
		T(interrupted_delivery),
		T(nmis_are_blocked),
		T(nmi_interrupted),
		T(exceptions),
		T(no_real_mode),
		T(lists),
		T(two_vcpus),
		T(flushes),
		T(threshold),
		T(hardware_delivers),
		T(hardware_wakes),
		T(hardware_page),
		T(hardware_exits),
		T(posted_interrupts),
		T(interrupts_of_the_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
