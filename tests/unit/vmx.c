/* SPDX-License-Identifier: MIT */
/*
 * The VMX backend over VMCSs that are arrays: what it reads and writes for an exit, how it tells what went wrong, and
 * which events it injects again. The CPU is as strict as a real one: no access without a current VMCS, no VMRESUME of
 * one that is not launched, no entry with a state that the manual's rules forbid. What a guest does is a function of
 * the test.
 */
#include "arch/x86/cpu/cpu.h"
#include "arch/x86/cpu/features.h"
#include "arch/x86/cpu/pcpu.h"
#include "devices/chips.h"
#include "devices/lapic_regs.h"
#include "tests/host/fake_vm.h"
#include "tests/host/vmx_caps.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* --- The CPU. */

enum { VMCSS = 2, HOST_PAT = 0x70106, FAKE_IDT = 0x1d7000 };

static u64 caps_msr[VMX_CAPS], feature_control, reg_cr4, refused_field, reg_cr2, reg_dr6, loaded_msr[5];
static unsigned vmwrites, nmis, invepts, invvpids, clears, entries;
static bool in_vmx;
static u8 acknowledged;
static struct pcpu self;

/* In the order in which the CPU has seen them, so a test has the first vCPU's before it has run. */
static struct fake_vmcs {
	hpa_t at;
	bool clear, launched; /* neither: nobody knows what its memory holds */
	u64 field[0x7000];
} seen_vmcs[VMCSS], *loaded;
#define VMCS ((loaded ? loaded : &seen_vmcs[0])->field)

static struct fake_vmcs *vmcs_at(hpa_t pa)
{
	unsigned i = 0;

	while (i < VMCSS && seen_vmcs[i].at && seen_vmcs[i].at != pa)
		i++;
	assert_in_range(i, 0, VMCSS - 1);
	seen_vmcs[i].at = pa;
	return &seen_vmcs[i];
}

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
	return msr == MSR_EFER ? EFER_LME | EFER_LMA : msr == MSR_PAT ? HOST_PAT : 0;
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
static bool vmxon(hpa_t pa)
{
	bool was = in_vmx;

	assert_true(reg_cr4 & CR4_VMXE);
	in_vmx = true;
	return !was;
}

static bool vmptrld(hpa_t pa)
{
	loaded = vmcs_at(pa);
	return *(u32 *)port_virt(pa) == (u32)caps_msr[CAP_BASIC];
}

static bool vmclear(hpa_t pa)
{
	struct fake_vmcs *s = vmcs_at(pa);

	clears++;
	s->clear = true;
	s->launched = false;
	loaded = loaded == s ? NULL : loaded;
	return true;
}

static u64 vmread(u64 field)
{
	assert_non_null(loaded);
	return VMCS[field];
}

static bool vmwrite(u64 field, u64 val)
{
	assert_non_null(loaded);
	vmwrites++;
	if (field == refused_field) {
		VMCS[0x4400] = 12;
		return false;
	}
	VMCS[field] = val;
	return true;
}
static void invept(u64 eptp, bool single) { invepts++; }
static void invvpid(u64 vpid, bool single) { invvpids++; }
static void take_nmi(void) { nmis++; }
void traps_interrupt(u8 vector) { acknowledged = vector; }
static u64 idt_base(void) { return FAKE_IDT; }

#include "arch/x86/hvm/vmx.c"
#include "arch/x86/hvm/vmx_cpu.c"
#include "arch/x86/hvm/vmx_state.c"

const char vmx_exit[1];
u32 time_tsc_khz(void) { return FAKE_TSC; }
void vcpu_load(struct pcpu *p, struct vcpu *v) { p->loaded = v; }

/* An entry: what the CPU does until the exit. */
static void (*guest_runs)(struct gregs *r);
static bool entry_fails;

static void exits(u64 reason, u64 info)
{
	VMCS[RO_REASON] = reason;
	VMCS[RO_INFO] = info;
	VMCS[RO_LENGTH] = 2;
	VMCS[RO_VECTORING] = 0;
}

/*
 * The rules of SDM 27.3.1 for what the CPU has; what is not in its VMCS is in the lists. Those that vmx_check leaves
 * out, because only we can break them, are here.
 */
static bool state_allowed(void)
{
	struct vmx *s = vmx_of(self.loaded);
	u64 field[FIELDS];
	char why[128];

	for (unsigned i = 0; i < FIELDS; i++)
		field[i] = bitmap_test(s->absent, i) ? s->f[i] : VMCS[vmx_encodings[i]];

	u64 cr0 = field[F_CR0], cr4 = field[F_CR4], pending = field[F_PENDING], shadow = field[F_SHADOW];

	if ((vmx_caps.cr0_must & ~cr0) || (vmx_caps.cr4_must & ~cr4) || (cr4 & ~vmx_caps.cr4_may))
		return false;
	if ((cr0 >> 32) || ((cr0 & CR0_PG) && !(cr0 & CR0_PE)) || (pending & ~0x1500ful))
		return false;
	if ((shadow & ~(u64)(BLOCK_STI | BLOCK_SS | BLOCK_NMI)) || (shadow & 3) == (BLOCK_STI | BLOCK_SS))
		return false;
	return (field[F_RFLAGS] & RFLAGS_FIXED) && vmx_check(&vmx_caps, field, why, sizeof(why));
}

bool vmx_enter(struct gregs *r, u64 *frame, bool launched)
{
	assert_non_null(loaded);
	if (entry_fails)
		return true;
	if (!(launched ? loaded->launched : loaded->clear)) {
		VMCS[RO_ERROR] = launched ? 5 : 4;
		return true;
	}
	entries++;
	if (!state_allowed())
		exits(REASON_FAILED_ENTRY | 33, 0);
	else if (guest_runs)
		guest_runs(r);
	if (VMCS[RO_REASON] & REASON_FAILED_ENTRY)
		return false;
	loaded->launched = true;
	loaded->clear = false;
	VMCS[0x4016] &= ~EVENT_VALID; /* VM exits clear it */
	return false;
}

/* --- The machine. */

static struct fake_vm *f;
static struct vcpu *v;

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
	memset(seen_vmcs, 0, sizeof(seen_vmcs));
	loaded = NULL;
	memset(loaded_msr, 0, sizeof(loaded_msr));
	feature_control = FEATURE_LOCKED | FEATURE_VMX;
	reg_cr4 = reg_cr2 = reg_dr6 = 0;
	refused_field = ~0ul;
	vmwrites = nmis = invepts = invvpids = clears = entries = 0;
	in_vmx = false;
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
	in_vmx = true;
	assert_int_equal(vmx_ops.cpu_on(), -ENODEV);
	assert_non_null(strstr(host_log(), "in use already"));
}

static void no_ept(void **state)
{
	caps_msr[CAP_PROC2] &= ~((u64)PROC2_EPT << 32);
	assert_int_equal(vmx_ops.cpu_on(), -ENODEV);
	assert_non_null(strstr(host_log(), "lacks EPT"));
}

static void cpuid_exit(struct gregs *r)
{
	exits(10, 0);
	VMCS[0x681e] = FAKE_CODE;
}

/* --- What the VMCS says for good. */

static void constants(void **state)
{
	reg_cr4 = CR4_SMEP;
	machine();
	assert_int_equal(hvm_host.cr4_refused, ~0x3727fful);
	assert_false(hvm_host.no_ad);
	guest_runs = cpuid_exit;
	for (v = &f->vcpu[0]; v <= &f->vcpu[1]; v++) {
		const struct {
			u64 encoding, val;
		} want[] = {
			{0x2000, port_phys(io_map)},
			{0x2002, port_phys(io_map) + PAGE_SIZE},
			{0x2004, port_phys(msr_map)},
			{0x2012, port_phys(v->lapic.page)},
			{0x201a, mfn_to_hpa(f->vm.p2m.pt.root) | 0x5e}, /* A/D, four levels, write-back */
			{0x2800, ~0ul},
			{0x2802, 0},                                       /* DEBUGCTL */
			{0x4004, BIT(VEC_DB) | BIT(VEC_AC) | BIT(VEC_MC)}, /* CVE-2015-5307, CVE-2015-8104 */
			{0x4006, 0},
			{0x4008, 0},
			{0x400a, 0},
			{0x400e, 0},
			{0x4010, 0},
			{0x4014, 0},
			{0x482e, (FAKE_TSC * 10ul) >> 5},
			{0x6000, ~(u64)(CR0_MP | CR0_EM | CR0_TS | CR0_WP | CR0_AM)},
			{0x6002, ~0x3707bful}, /* MCE and VMXE are the machine's */
			{0x6800, CR0_ET | CR0_NE},
			{0x6804, CR4_VMXE | CR4_MCE},
			{0x0c00, 0x10},
			{0x0c02, 0x08},
			{0x0c04, 0x10},
			{0x0c06, 0x10},
			{0x0c08, 0},
			{0x0c0a, 0},
			{0x0c0c, 0x18},
			{0x2c00, HOST_PAT},
			{0x2c02, EFER_LME | EFER_LMA},
			{0x4c00, 0},
			{0x6c00, CR0_PE | CR0_PG | CR0_NE},
			{0x6c02, hostmap_root()},
			{0x6c04, CR4_VMXE | CR4_SMEP},
			{0x6c06, 0},
			{0x6c08, (u64)&self},
			{0x6c0a, (u64)&self.tss},
			{0x6c0c, (u64)self.gdt},
			{0x6c0e, FAKE_IDT},
			{0x6c14, (u64)&vmx_of(v)->frame[1]},
			{0x6c16, (u64)vmx_exit},
		};

		vmx_run(v);
		for (unsigned i = 0; i < ARRAY_SIZE(want); i++)
			if (VMCS[want[i].encoding] != want[i].val)
				fail_msg("%lx is %lx, not %lx", want[i].encoding, VMCS[want[i].encoding], want[i].val);
	}
	assert_int_not_equal(seen_vmcs[0].field[0], 0);
	assert_int_not_equal(seen_vmcs[1].field[0], 0);
	assert_int_not_equal(seen_vmcs[0].field[0], seen_vmcs[1].field[0]); /* VPIDs */
}

static bool in_map(const u8 *map, unsigned bit) { return map[bit / 8] & BIT(bit % 8); }

/* The MSRs that a guest has without exits are these, and no port. */
static void open_to_guests(void **state)
{
	static const struct {
		u32 msr;
		bool writes;
	} open[] = {{0x10, false},      {0x174, true},      {0x175, true},      {0x176, true},
		    {0xc0000081, true}, {0xc0000082, true}, {0xc0000083, true}, {0xc0000084, true},
		    {0xc0000100, true}, {0xc0000101, true}, {0xc0000102, true}, {0xc0000103, true}};

	memset(cpu_features.has, 0xff, sizeof(cpu_features.has));
	machine();
	for (unsigned i = 0; i < 2 * 0x2000; i++) {
		u32 msr = i < 0x2000 ? i : 0xc0000000 + i - 0x2000;
		unsigned n = 0;

		while (n < ARRAY_SIZE(open) && open[n].msr != msr)
			n++;
		if (in_map(msr_map, i) != (n == ARRAY_SIZE(open)) ||
		    in_map(msr_map + 0x800, i) != (n == ARRAY_SIZE(open) || !open[n].writes))
			fail_msg("MSR %x", msr);
	}
	for (unsigned port = 0; port < 0x10000; port++)
		assert_true(in_map(io_map, port));
	memset(cpu_features.has, 0, sizeof(cpu_features.has));
}

/* --- Exits. */

static u64 exit_reason, exit_rip;

/* A process in 32-bit code, in long mode, is interrupted in the delivery of a page fault. */
static void process_exits(struct gregs *r)
{
	exits(exit_reason, 0x1000);
	VMCS[RO_VECTORING] = EVENT_VALID | EVENT_EXCEPTION << 8 | VEC_PF;
	VMCS[0x4816] = 0xc0fb; /* CS */
	VMCS[0x4818] = 0xc0f3; /* SS */
	VMCS[0x681e] = exit_rip;
}

static void each_reason(void **state)
{
	static const struct {
		u8 reason, kind;
		bool length, info, exact, event;
	} t[] = {
		{1, EXIT_INTERRUPT, 0, 0, 0, 0},  {2, EXIT_TRIPLE, 0, 0, 0, 0},     {3, EXIT_INTERRUPT, 0, 0, 0, 0},
		{7, EXIT_WINDOW, 0, 0, 0, 0},     {8, EXIT_WINDOW, 0, 0, 0, 0},     {9, EXIT_OTHER, 0, 1, 0, 1},
		{10, EXIT_CPUID, 1, 0, 0, 0},     {11, EXIT_VENDOR_OP, 0, 0, 0, 0}, {12, EXIT_HLT, 1, 0, 0, 0},
		{13, EXIT_INVD, 1, 0, 0, 0},      {15, EXIT_RDPMC, 0, 0, 0, 0},     {18, EXIT_HYPERCALL, 1, 0, 1, 0},
		{19, EXIT_VENDOR_OP, 0, 0, 0, 0}, {27, EXIT_VENDOR_OP, 0, 0, 0, 0}, {28, EXIT_CR, 0, 1, 1, 0},
		{30, EXIT_IO, 1, 1, 0, 0},        {31, EXIT_MSR_READ, 1, 0, 0, 0},  {32, EXIT_MSR_WRITE, 1, 0, 0, 0},
		{36, EXIT_VENDOR_OP, 0, 0, 0, 0}, {39, EXIT_VENDOR_OP, 0, 0, 0, 0}, {43, EXIT_WINDOW, 0, 0, 0, 0},
		{44, EXIT_NPF, 0, 1, 1, 1},       {45, EXIT_EOI, 0, 1, 0, 0},       {48, EXIT_NPF, 0, 1, 1, 1},
		{50, EXIT_VENDOR_OP, 0, 0, 0, 0}, {52, EXIT_INTERRUPT, 0, 0, 0, 0}, {53, EXIT_VENDOR_OP, 0, 0, 0, 0},
		{54, EXIT_INVD, 1, 0, 0, 0},      {55, EXIT_XSETBV, 1, 0, 1, 0},    {56, EXIT_APIC, 0, 1, 0, 0},
		{70, EXIT_OTHER, 0, 0, 0, 0},
	};

	machine();
	guest_runs = process_exits;
	exit_rip = 0x123456;
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		const struct vm_exit *x = &v->exit;

		long_mode();
		v->event.valid = false;
		exit_reason = t[i].reason;
		vmx_run(v);
		assert_int_equal(x->kind, t[i].kind);
		assert_int_equal(x->code, t[i].reason);
		assert_int_equal(x->insn_len, t[i].length ? 2 : 0);
		assert_int_equal(x->info1, t[i].info ? 0x1000 : 0);
		assert_int_equal(v->event.valid, t[i].event);
		if (t[i].exact) {
			assert_int_equal(x->mode, MODE_32);
			assert_int_equal(x->cpl, 3);
		}
	}
}

/* An instruction at the very end of 32-bit code is followed by the one at 0. */
static void mode_where_rip_wraps(void **state)
{
	machine();
	long_mode();
	guest_runs = process_exits;
	exit_reason = 10;
	exit_rip = 0xfffffffe;
	vmx_run(v);
	assert_int_equal(v->exit.mode, MODE_32);
	exit_rip = 0xfffe;
	vmx_run(v);
	assert_int_equal(v->exit.mode, MODE_32);
	exit_rip = 0xfffffffffffffffe;
	vmx_run(v);
	assert_int_equal(v->exit.mode, MODE_64);
}

static u64 info;

static void io_exits(struct gregs *r)
{
	process_exits(r);
	VMCS[RO_REASON] = 30;
	VMCS[RO_INFO] = info;
}

static void port_accesses(void **state)
{
	static const struct {
		u64 info;
		u16 port;
		u8 size;
		bool in, string;
	} t[] = {{0x600000, 0x60, 1, 0, 0},   {0xcf80003, 0xcf8, 4, 0, 0}, {0x3f8000a, 0x3f8, 3, 1, 0},
		 {0x1f00019, 0x1f0, 2, 1, 1}, {0x1f00030, 0x1f0, 1, 0, 1}, {0xffff0044, 0xffff, 5, 0, 0}};

	machine();
	guest_runs = io_exits;
	exit_rip = 0x123456;
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		long_mode();
		info = t[i].info;
		vmx_run(v);
		assert_int_equal(v->exit.io.port, t[i].port);
		assert_int_equal(v->exit.io.size, t[i].size);
		assert_int_equal(v->exit.io.in, t[i].in);
		assert_int_equal(v->exit.io.string, t[i].string);
		assert_int_equal(v->exit.mode, t[i].string ? MODE_32 : MODE_64); /* strings are emulated */
	}
}

static void npf_exits(struct gregs *r)
{
	exits(48, info);
	VMCS[RO_GPA] = 0x9000;
	VMCS[RO_GVA] = 0x7000;
}

static void nested_faults(void **state)
{
	static const struct {
		u64 info;
		u8 access;
		bool walk;
		gva_t gva;
	} t[] = {{0x181, P2M_READ, false, 0x7000}, {0x182, P2M_WRITE, false, 0x7000}, {0x184, P2M_EXEC, false, 0x7000},
		 {0x81, P2M_READ, true, 0x7000},   {0x82, P2M_WRITE, true, 0x7000},   {0x83, P2M_WRITE, true, 0x7000},
		 {0x01, P2M_READ, false, 0}};

	machine();
	long_mode();
	guest_runs = npf_exits;
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		info = t[i].info;
		vmx_run(v);
		assert_int_equal(v->exit.gpa, 0x9000);
		assert_int_equal(v->exit.gva, t[i].gva);
		assert_int_equal(v->exit.access, t[i].access);
		assert_int_equal(v->exit.walk, t[i].walk);
	}
}

/* What came after the queues were looked at would else wait for the guest's next exit. */
static void kicked(void **state)
{
	machine();
	long_mode();
	self.kicked = 1;
	vmx_run(v);
	assert_int_equal(entries, 0);
	assert_int_equal(v->exit.kind, EXIT_INTERRUPT);
	assert_int_equal(invepts, 0);
}

/* --- What it costs. */

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
	VMCS[RO_ERROR] = 7;
	vmx_run(v);
	assert_int_equal(v->exit.kind, EXIT_ERROR);
	assert_string_equal(v->exit.why, "entry with invalid control fields");
}

static void misconfigured(struct gregs *r)
{
	exits(49, 0);
	VMCS[RO_GPA] = 0x123000;
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

static void machine_check(struct gregs *r) { exits(REASON_FAILED_ENTRY | 41, 0); }

static void machine_check_at_entry(void **state)
{
	machine();
	long_mode();
	guest_runs = machine_check;
	fake_machine_checks = 0;
	assert_false(vcpu_run_once(v));
	assert_non_null(strstr(f->vm.end_detail, "machine check at the entry"));
	assert_int_equal(fake_machine_checks, 1);
}

static void unhandled(struct gregs *r) { exits(exit_reason, 0); }

static void task_switch(void **state)
{
	machine();
	long_mode();
	guest_runs = unhandled;
	exit_reason = 9;
	assert_false(vcpu_run_once(v));
	assert_string_equal(f->vm.end_detail, "an exit that is not handled: a task switch by hardware (code 9)");
	f->vm.ending = 0;
	exit_reason = 70;
	assert_false(vcpu_run_once(v));
	assert_string_equal(f->vm.end_detail, "an exit that is not handled: no reason (code 46)");
}

/* --- Events. */

static u64 injected, injected_error;

static void violation(struct gregs *r)
{
	injected = VMCS[0x4016];
	injected_error = VMCS[0x4018];
	exits(48, BIT(1) | BIT(7) | BIT(8));
	VMCS[RO_GPA] = FAKE_MMIO + 8;
	VMCS[RO_GVA] = 0x7008;
	if (injected & EVENT_VALID)
		VMCS[RO_VECTORING] = injected;
	VMCS[RO_VECTORING_ERROR] = injected_error;
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
	injected = VMCS[0x4016];
	if (injected & EVENT_VALID)
		VMCS[0x4824] |= BLOCK_NMI;
	exits(10, 0);
}

static void iret(struct gregs *r)
{
	assert_true(VMCS[0x4824] & BLOCK_NMI);
	VMCS[0x4824] &= ~(u64)BLOCK_NMI;
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
	assert_true(VMCS[0x4002] & PROC_NMI_WINDOW);
	guest_runs = iret;
	assert_true(vcpu_run_once(v));
	assert_int_equal(v->exit.kind, EXIT_WINDOW);
	assert_false(v->nmi_blocked);
	guest_runs = nmi_then_iret;
	assert_true(vcpu_run_once(v));
	assert_true(injected & EVENT_VALID);
	assert_false(VMCS[0x4002] & PROC_NMI_WINDOW);
}

static void violation_of_nmi(struct gregs *r)
{
	violation(r);
	VMCS[0x4824] |= BLOCK_NMI;
}

/* An NMI whose delivery an exit interrupts is injected again: with NMIs open, as the entry wants it. */
static void nmi_interrupted(void **state)
{
	machine();
	long_mode();
	v->event = (struct vm_event){.vector = 2, .type = EVENT_NMI, .valid = 1};
	v->nmi_blocked = true;
	guest_runs = violation_of_nmi;
	for (unsigned i = 0; i < 3; i++) {
		vmx_run(v);
		assert_int_equal(v->exit.kind, EXIT_NPF);
		assert_int_equal(injected, EVENT_VALID | EVENT_NMI << 8 | 2);
		assert_true(v->event.valid && v->nmi_blocked);
	}
}

/* The CPU that looks at the shadow of STI for interrupts only. */
static void shadow_of_sti(struct gregs *r)
{
	if ((VMCS[0x4002] & PROC_NMI_WINDOW) && !(VMCS[0x4824] & (BLOCK_SS | BLOCK_NMI))) {
		exits(8, 0);
		return;
	}
	exits(VMCS[0x4016] & EVENT_VALID ? 10 : 7, 0);
	assert_true((VMCS[0x4016] & EVENT_VALID) || (VMCS[0x4002] & PROC_INTR_WINDOW));
	VMCS[0x4824] &= ~(u64)BLOCK_STI;
}

/* KVM, vmx_enable_nmi_window: an NMI window that is open in the shadow, where none is injected, exits for ever. */
static void nmi_in_a_shadow_of_sti(void **state)
{
	machine();
	long_mode();
	v->regs.rflags |= RFLAGS_IF;
	VMCS[0x6820] = v->regs.rflags;
	vmx_set(v, REG_INT_SHADOW, 1);
	v->nmi_pending = true;
	guest_runs = shadow_of_sti;
	for (unsigned i = 0; i < 2; i++)
		assert_true(vcpu_run_once(v));
	assert_false(v->nmi_pending);
}

static void iret_faults(struct gregs *r)
{
	assert_true(VMCS[0x4824] & BLOCK_NMI);
	VMCS[0x4824] &= ~(u64)BLOCK_NMI;
	info = 0x184 | BIT(12);
	npf_exits(r);
}

/* An IRET that faults has let NMIs in before its exit; it is run again, so they must wait again. */
static void nmis_wait_for_an_iret_that_faulted(void **state)
{
	machine();
	long_mode();
	v->nmi_blocked = true;
	guest_runs = iret_faults;
	for (unsigned i = 0; i < 2; i++) {
		vmx_run(v);
		assert_int_equal(v->exit.kind, EXIT_NPF);
		assert_true(v->nmi_blocked);
	}
}

static void sti_shadow_exit(struct gregs *r)
{
	exits(10, 0);
	VMCS[0x4824] = VMCS[0x6820] & RFLAGS_IF ? BLOCK_STI : BLOCK_SS;
}

/* A single step that waits for the end of a shadow (XSA-308): the state is what the CPU enters, with and
 * without IF. */
static void steps_wait_for_shadows(void **state)
{
	static const u64 flags[] = {0, RFLAGS_IF, RFLAGS_TF, RFLAGS_IF | RFLAGS_TF};

	machine();
	long_mode();
	for (unsigned i = 0; i < ARRAY_SIZE(flags); i++)
		for (unsigned on = 0; on < 2; on++) {
			guest_runs = cpuid_exit;
			v->regs.rflags = VMCS[0x6820] = RFLAGS_FIXED | flags[i];
			vmx_set(v, REG_INT_SHADOW, on);
			vmx_run(v);
			assert_int_equal(v->exit.kind, EXIT_CPUID);
			assert_int_equal(VMCS[0x6822], on && (flags[i] & RFLAGS_TF) ? PENDING_BS : 0);
			v->regs.rflags = VMCS[0x6820];
			guest_runs = sti_shadow_exit;
			vmx_set(v, REG_INT_SHADOW, 0);
			vmx_run(v);
			assert_true(vmx_get(v, REG_INT_SHADOW));
			vmx_set(v, REG_INT_SHADOW, 0);
		}
}

/* An exit between a MOV to CR8 and its single step: INIT forgets that, or it would come with the SIPI. */
static void step_after_cr8(struct gregs *r)
{
	exits(43, 0);
	VMCS[0x6820] = RFLAGS_FIXED | RFLAGS_TF;
	VMCS[0x6822] = PENDING_BS;
}

static void init_forgets_a_single_step(void **state)
{
	machine();
	long_mode();
	guest_runs = step_after_cr8;
	vmx_run(v);
	vcpu_reset(v);
	guest_runs = cpuid_exit;
	vmx_run(v);
	assert_int_equal(v->exit.kind, EXIT_CPUID);
	assert_int_equal(VMCS[0x6822], 0);
	assert_int_equal(VMCS[0x4824], 0);
}

static void nmi_of_the_host(struct gregs *r)
{
	exits(0, 0);
	VMCS[RO_EVENT] = EVENT_VALID | EVENT_NMI << 8 | 2;
}

static void debug_exception(struct gregs *r)
{
	exits(0, BIT(14) | 1);
	VMCS[RO_EVENT] = EVENT_VALID | EVENT_EXCEPTION << 8 | VEC_DB;
}

static void int1(struct gregs *r)
{
	exits(0, 0);
	VMCS[RO_EVENT] = EVENT_VALID | 5 << 8 | VEC_DB;
	VMCS[RO_LENGTH] = 1;
	VMCS[0x681e] = FAKE_CODE;
	VMCS[0x4824] = BLOCK_SS;
}

/* INT1 is a trap: its handler returns behind it. DR6 is not changed, and it ends a shadow and its single step. */
static void int1_is_stepped_over(void **state)
{
	machine();
	long_mode();
	vmx_set(v, REG_DR6, 0xffff0ff2);
	v->regs.rflags = VMCS[0x6820] = RFLAGS_FIXED | RFLAGS_TF;
	guest_runs = int1;
	assert_true(vcpu_run_once(v));
	assert_true(v->event.valid && v->event.vector == VEC_DB && !v->event.has_error);
	assert_int_equal(v->regs.rip, FAKE_CODE + 1);
	assert_int_equal(reg_dr6, 0xffff0ff2);
	guest_runs = cpuid_exit;
	vmx_run(v);
	assert_int_equal(v->exit.kind, EXIT_CPUID);
	assert_int_equal(VMCS[0x4824], 0);
	assert_int_equal(VMCS[0x6822], 0);
}

/* A breakpoint of a shadow's instruction, with a single step that waits for it. */
static void step_meets_breakpoint(struct gregs *r)
{
	debug_exception(r);
	VMCS[0x4824] = BLOCK_SS;
	VMCS[0x6820] = RFLAGS_FIXED | RFLAGS_TF;
	VMCS[0x6822] = 0;
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
	guest_runs = step_meets_breakpoint;
	vmx_run(v);
	guest_runs = cpuid_exit;
	vmx_run(v);
	assert_int_equal(v->exit.kind, EXIT_CPUID);
}

/* --- Older CPUs. */

static void no_real_mode(void **state)
{
	caps_msr[CAP_PROC2] &= ~((u64)PROC2_ANY_MODE << 32);
	struct p2m_entry map;
	u64 reads;

	machine();
	assert_true(hvm_host.no_ad); /* the identity map is read-only */
	map = p2m_get(&f->vm.p2m, gpa_to_gfn(IDENTITY_GPA));
	assert_int_equal(map.type, P2M_RO);
	for (u32 i = 0; i < 1024; i++) /* the CPU finds nothing to set in it: accessed and dirty it is */
		assert_int_equal(((u32 *)port_virt(mfn_to_hpa(map.mfn)))[i], i << 22 | 0xe7);
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
	assert_int_equal(VMCS[0x6802], IDENTITY_GPA);
	assert_true(VMCS[0x6800] & CR0_PG);
	assert_int_equal(VMCS[0x6804] & CR4_PAGING, CR4_PSE);
	assert_true(VMCS[0x4002] & PROC_CR3);
	assert_int_equal(vmx_get(v, REG_CR3), 0x5000);
	assert_int_equal(vmx_get(v, REG_CR0), CR0_PE | CR0_ET);
	assert_int_equal(vmx_get(v, REG_CR4), 0);
	reads = vmx_of(v)->reads;
	vmx_run(v); /* checked once, for that reads all */
	assert_in_range(vmx_of(v)->reads - reads, 1, 9);
	vmx_set(v, REG_EFER, EFER_LME); /* soon, but not yet */
	vmx_run(v);
	assert_int_equal(v->exit.kind, EXIT_CPUID);
	assert_int_equal(vmx_get(v, REG_EFER), EFER_LME);
	long_mode();
	vmx_run(v);
	assert_int_equal(VMCS[0x6802], FAKE_TABLES);
	assert_false(VMCS[0x4002] & PROC_CR3);
}

/* The first CPUs cannot do without these exits. */
static void cr3_exits_forced(void **state)
{
	caps_msr[CAP_TRUE_PROC] |= PROC_CR3;
	machine();
	long_mode();
	guest_runs = cpuid_exit;
	vmx_run(v);
	assert_int_equal(VMCS[0x4002] & PROC_CR3, PROC_CR3);
}

/* A segment that is not present is unusable, in both directions. */
static void null_segments(void **state)
{
	machine();
	long_mode();
	guest_runs = cpuid_exit;
	vmx_set_seg(v, SEG_FS, (struct segment){.base = 0x1234});
	vmx_run(v);
	assert_true(VMCS[0x481c] & AR_UNUSABLE);
	VMCS[0x481a] = AR_UNUSABLE | 0xc093; /* DS: the rest is undefined */
	assert_false(vmx_get_seg(v, SEG_DS).attr & SEG_ATTR_P);
	assert_true(vmx_get_seg(v, SEG_ES).attr & SEG_ATTR_P);
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
	assert_int_equal(VMCS[0x4010], 2);
	assert_int_equal(VMCS[0x4014], 2);
	assert_int_equal(VMCS[0x200a], port_phys(s->guest_list));
	assert_int_equal(s->guest_list[0].msr, MSR_EFER);
	assert_int_equal(s->guest_list[0].value, EFER_LME | EFER_LMA | EFER_NX);
	assert_int_equal(s->host_list[0].value, EFER_LME | EFER_LMA);
	assert_int_equal(s->guest_list[1].msr, MSR_PAT);
	assert_int_equal(s->guest_list[1].value, 0x1122);
	assert_int_equal(VMCS[0x2806], 0);
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
	vmx_set(v, REG_CR2, 0x1111);
	assert_int_equal(reg_cr2, 0x1111);
	reg_dr6 = 0xffff4ff0;
	loaded_msr[1] = 0x2222; /* LSTAR */
	vmx_run(w);
	assert_int_equal(reg_cr2, 0);
	assert_int_equal(reg_dr6, 0xffff0ff0);
	assert_int_equal(loaded_msr[1], 0);
	assert_int_equal(vmx_get(v, REG_CR2), 0x1111);
	assert_int_equal(vmx_get(v, REG_DR6), 0xffff4ff0);
	vmx_run(v);
	assert_int_equal(reg_cr2, 0x1111);
	assert_int_equal(reg_dr6, 0xffff4ff0);
	assert_int_equal(loaded_msr[1], 0x2222);
	assert_int_equal(invepts, 2);
	clears = 0;
	vmx_ops.vcpu_leave(v);
	vmx_ops.vcpu_leave(w);
	assert_int_equal(clears, 2);
	assert_null(loaded);
}

/* The next guest's VMCS may lie where the last one's was: it is the CPU's only once it is told so again. */
static void memory_of_a_vmcs_is_used_again(void **state)
{
	const void *first;

	machine();
	first = vmx_of(v);
	guest_runs = cpuid_exit;
	vmx_run(v);
	vmx_ops.vcpu_leave(v);
	vmx_ops.vcpu_free(v);
	self.loaded = NULL;
	assert_int_equal(vmx_ops.vcpu_init(v), 0);
	assert_ptr_equal(vmx_of(v), first);
	vcpu_reset(v);
	vmx_run(v);
	assert_int_equal(v->exit.kind, EXIT_CPUID);
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
	assert_int_equal(VMCS[0x401c], 5);
	assert_int_equal(VMCS[0x2012], port_phys(v->lapic.page));
	lapic_set_cr8(&v->lapic, 3); /* above it: the CPU would refuse it */
	vmx_run(v);
	assert_int_equal(VMCS[0x401c], 0);
}

/* --- The local APIC where the hardware has it. */

static u64 status_seen;

/* What the CPU does with it at the entry: it delivers 0x55, and the guest ends its service. */
static void serves(struct gregs *r)
{
	status_seen = VMCS[0x810];
	VMCS[0x810] = 0;
	*lapic_word(&v->lapic, REG_IRR, 0x55) &= ~BIT(0x55 % 32);
	cpuid_exit(r);
}

static void post(u8 vector, bool level)
{
	v->lapic.enabled = true;
	assert_true(lapic_post(&v->lapic, vector, level));
}

/* What is posted reaches the hardware's registers with the next entry, once; what is level-triggered is told
 * back. */
static void hardware_delivers(void **state)
{
	machine();
	long_mode();
	guest_runs = cpuid_exit;
	vcpu_run_once(v);
	assert_true(v->lapic.delivers);
	assert_int_equal(VMCS[0x401c], 0);
	assert_int_equal(VMCS[0x2014], mfn_to_hpa(p2m_get(&f->vm.p2m, gpa_to_gfn(LAPIC_DEFAULT_BASE)).mfn));
	assert_int_equal(p2m_get(&f->vm.p2m, gpa_to_gfn(LAPIC_DEFAULT_BASE)).type, P2M_APIC);
	assert_int_equal(VMCS[0x401e] & PROC2_APIC, PROC2_APIC);
	post(0x55, false);
	post(0x41, true);
	guest_runs = serves;
	v->regs.rflags &= ~(u64)RFLAGS_IF; /* the hardware waits for IF by itself: no window */
	vcpu_run_once(v);
	assert_int_equal(status_seen, 0x55);
	assert_int_equal(VMCS[0x4002] & PROC_INTR_WINDOW, 0);
	assert_int_equal(VMCS[0x4016] & EVENT_VALID, 0);
	assert_int_equal(VMCS[0x201e], BIT(0x41 - 64));
	VMCS[0x810] = 0x41; /* as the hardware left it */
	guest_runs = cpuid_exit;
	vcpu_run_once(v);
	assert_int_equal(VMCS[0x810], 0x41);
	post(0x30, false);
	vcpu_run_once(v);
	assert_int_equal(VMCS[0x810], 0x41); /* 0x41 is still the highest */
	assert_true(*lapic_word(&v->lapic, REG_IRR, 0x30) & BIT(0x30 % 32));
}

static void hlt_exit(struct gregs *r)
{
	exits(12, 0);
	VMCS[0x681e] = FAKE_CODE;
}

/* A halted vCPU runs on for what the hardware would deliver to it, and for nothing else. */
static void hardware_wakes(void **state)
{
	machine();
	long_mode();
	guest_runs = hlt_exit;
	v->regs.rflags = VMCS[0x6820] = RFLAGS_FIXED | RFLAGS_IF;
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

/* Where the guest has moved its local APIC away, or uses MSRs, its old place is a page of memory to the hardware. */
static void hardware_page(void **state)
{
	machine();
	long_mode();
	guest_runs = cpuid_exit;
	vcpu_run_once(v);
	invepts = 0;
	lapic_wrmsr(&v->lapic, MSR_APIC_BASE, 0xfed00000 | LAPIC_BASE_ENABLE | LAPIC_BASE_BSP);
	vcpu_run_once(v);
	assert_int_equal(VMCS[0x401e] & PROC2_APIC, PROC2_DELIVER);
	lapic_wrmsr(&v->lapic, MSR_APIC_BASE, LAPIC_DEFAULT_BASE | LAPIC_BASE_ENABLE | LAPIC_BASE_BSP);
	vcpu_run_once(v);
	assert_int_equal(VMCS[0x401e] & PROC2_APIC, PROC2_APIC);
	lapic_wrmsr(&v->lapic, MSR_APIC_BASE, LAPIC_DEFAULT_BASE | LAPIC_BASE_ENABLE | LAPIC_BASE_X2APIC);
	vcpu_run_once(v);
	assert_int_equal(VMCS[0x401e] & PROC2_APIC, PROC2_DELIVER);
	assert_int_equal(invepts, 3);
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

static unsigned kicks;
static void count_kick(void *ctx, unsigned vcpu) { kicks++; }

/* IOAPIC pin 3 rises on another pCPU. */
static void level_inside(struct gregs *r)
{
	f->vm.platform.ioapic.redir[3] = 0x71 | BIT(15);
	v->lapic.enabled = true;
	ioapic_line(&f->vm.platform, 3, true);
	assert_true(f->vm.platform.ioapic.redir[3] & BIT(14));
	cpuid_exit(r);
}

/* The hardware would take it and end its service before it knows that somebody waits for the EOI. */
static void level_is_not_posted(void **state)
{
	struct platform_ops ops = *f->vm.platform.ops;

	ops.notify = notify;
	ops.kick = count_kick;
	f->vm.platform.ops = &ops;
	notified = kicks = 0;
	machine();
	long_mode();
	guest_runs = level_inside;
	vcpu_run_once(v);
	assert_int_equal(notified, 0);
	assert_int_equal(kicks, 1);
	assert_int_equal(v->lapic.posted[1], 0);
	guest_runs = cpuid_exit;
	vcpu_run_once(v);
	assert_int_equal(VMCS[0x810], 0x71);
	assert_true(VMCS[0x201e] & BIT(0x71 - 64));
	post(0x71, true); /* one on its way is not told again */
	post(0x71, true);
	assert_int_equal(kicks, 2);
	lapic_reset(&v->lapic, true);
	post(0x72, false);
	assert_int_equal(platform_pending(&f->vm.platform, 0), -1);
	assert_int_equal(v->lapic.rvi, 0x72);
}

/* Bit 12 of an APIC access says that it is a write; of an EPT violation, that an IRET has opened NMIs. */
static void apic_write_is_no_iret(void **state)
{
	machine();
	long_mode();
	guest_runs = apic_exits;
	apic_reason = 44;
	apic_info = 0x30 | 1 << 12;
	VMCS[0x4824] = 0;
	vmx_run(v);
	guest_runs = cpuid_exit;
	v->event = (struct vm_event){.valid = true, .type = EVENT_NMI, .vector = 2};
	v->nmi_blocked = true;
	vmx_run(v);
	assert_int_equal(VMCS[0x4824] & BLOCK_NMI, 0);
}

static void posted_interrupts(void **state)
{
	struct platform_ops ops = *f->vm.platform.ops;

	ops.notify = notify;
	f->vm.platform.ops = &ops;
	notified = 0;
	machine();
	long_mode();
	assert_int_equal(VMCS[0x2016], 0);
	guest_runs = posted_inside;
	vcpu_run_once(v);
	assert_int_equal(VMCS[0x2016], port_phys(&v->lapic.posted));
	assert_int_equal(VMCS[0x2016] % 64, 0);
	assert_int_equal(VMCS[0x0002], VEC_POSTED);
	assert_true(VMCS[0x4000] & PIN_POSTED);
	assert_false(v->lapic.inside);
	guest_runs = cpuid_exit;
	vcpu_run_once(v); /* this hardware did not take them, for the guest had left: software does */
	assert_int_equal(VMCS[0x810], 0x56);
	post(0x57, false);
	assert_int_equal(notified, 2);
}

static void interrupt_exit(struct gregs *r)
{
	exits(1, 0);
	VMCS[RO_EVENT] = EVENT_VALID | 0xf1;
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
		T(constants),
		T(open_to_guests),
		T(each_reason),
		T(mode_where_rip_wraps),
		T(port_accesses),
		T(nested_faults),
		T(kicked),
		T(cpuid_is_cheap),
		T(refused),
		T(state_refused),
		T(controls_refused),
		T(misconfiguration),
		T(machine_check_at_entry),
		T(task_switch),
		T(interrupted_delivery),
		T(nmis_are_blocked),
		T(nmi_interrupted),
		T(nmi_in_a_shadow_of_sti),
		T(nmis_wait_for_an_iret_that_faulted),
		T(steps_wait_for_shadows),
		T(init_forgets_a_single_step),
		T(exceptions),
		T(int1_is_stepped_over),
		T(no_real_mode),
		T(cr3_exits_forced),
		T(null_segments),
		T(lists),
		T(two_vcpus),
		T(memory_of_a_vmcs_is_used_again),
		T(flushes),
		T(threshold),
		T(hardware_delivers),
		T(hardware_wakes),
		T(hardware_page),
		T(hardware_exits),
		T(level_is_not_posted),
		T(apic_write_is_no_iret),
		T(posted_interrupts),
		T(interrupts_of_the_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
