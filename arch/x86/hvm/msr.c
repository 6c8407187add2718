/* SPDX-License-Identifier: MIT */
/*
 * The guest's MSRs. Known ones have a case, or a row in the table of harmless constants; what a guest may not know of
 * according to its CPUID, and what nobody knows, is #GP, as on a machine without it.
 */
#include "arch/x86/hvm/exit.h"
#include "devices/clock.h"
#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/port.h"
#include "lib/print.h"

#define MSR_MTRR_CAP      0xfe
#define MSR_SYSENTER_CS   0x174
#define MSR_SYSENTER_ESP  0x175
#define MSR_SYSENTER_EIP  0x176
#define MSR_MISC_ENABLE   0x1a0
#define MSR_MTRR_VAR      0x200
#define MSR_MTRR_FIX64K   0x250
#define MSR_MTRR_FIX16K   0x258
#define MSR_MTRR_FIX4K    0x268
#define MSR_MTRR_DEF_TYPE 0x2ff

#define MTRR_CAP_VALUE    0x508 /* 8 variable ranges, fixed ranges, write combining */
#define MTRR_DEF_VALID    0xcff
#define MTRR_VAR_VALID    BIT(11)
#define MISC_ENABLE_FIXED (BIT(0) | BIT(11) | BIT(12)) /* fast strings; no BTS, no PEBS */
#define MISC_ENABLE_KEPT  (BIT(0) | BIT(3) | BIT(16) | BIT(18) | BIT(22) | BIT(34))
#define EFER_FFXSR        BIT(14)
#define UNKNOWN_LOGGED    8

#define MSR_ROW_IGNORE 1 /* writes are accepted and forgotten; without: #GP */

/* Constants that kernels read without asking CPUID, or on all processors of a vendor. */
static const struct constant {
	u32 msr, flags;
	u64 val;
} constants[] = {
	{0x17, 0, 0},                       /* PLATFORM_ID */
	{0x2a, MSR_ROW_IGNORE, 0},          /* EBL_CR_POWERON */
	{0x34, 0, 0},                       /* SMI_COUNT */
	{0x3a, 0, 1},                       /* FEATURE_CONTROL: locked, no VMX */
	{0x79, MSR_ROW_IGNORE, 0},          /* microcode update trigger */
	{0x8b, MSR_ROW_IGNORE, 1ull << 32}, /* microcode revision (Intel: upper half) */
	{0xce, 0, 0},                       /* PLATFORM_INFO */
	{MSR_MTRR_CAP, 0, MTRR_CAP_VALUE},
	{0x179, 0, 0},                                /* MCG_CAP: no banks */
	{0x17a, MSR_ROW_IGNORE, 0},                   /* MCG_STATUS */
	{0x198, 0, 0},                                /* PERF_STATUS */
	{0x199, MSR_ROW_IGNORE, 0},                   /* PERF_CTL */
	{0x1d9, MSR_ROW_IGNORE, 0},                   /* DEBUGCTL: no branch records, no block step */
	{0xc0010010, MSR_ROW_IGNORE, 0},              /* SYSCFG */
	{0xc0010015, MSR_ROW_IGNORE, BIT(24)},        /* HWCR: the TSC counts at a fixed rate */
	{0xc001001a, MSR_ROW_IGNORE, 0},              /* TOP_MEM */
	{0xc001001d, MSR_ROW_IGNORE, 0},              /* TOP_MEM2 */
	{0xc001001f, MSR_ROW_IGNORE, 0},              /* NB_CFG */
	{0xc0010055, MSR_ROW_IGNORE, 0},              /* INT_PENDING */
	{0xc0010058, MSR_ROW_IGNORE, 0},              /* MMIO_CONF_BASE */
	{0xc0010061, 0, 0},                           /* PSTATE_LIMIT */
	{0xc0010062, MSR_ROW_IGNORE, 0},              /* PSTATE_CTL */
	{0xc0010063, 0, 0},                           /* PSTATE_STATUS */
	{0xc0010112, MSR_ROW_IGNORE, 0},              /* SMM address */
	{0xc0010113, MSR_ROW_IGNORE, 0},              /* SMM mask */
	{MSR_VM_CR, MSR_ROW_IGNORE, BIT(4) | BIT(3)}, /* SVM is off and locked */
	{0xc0011020, MSR_ROW_IGNORE, 0},              /* LS_CFG */
	{0xc0011021, MSR_ROW_IGNORE, 0},              /* IC_CFG */
	{0xc0011022, MSR_ROW_IGNORE, 0},              /* DC_CFG */
	{0xc0011023, MSR_ROW_IGNORE, 0},              /* BU_CFG */
	{0xc0011029, MSR_ROW_IGNORE, BIT(1)},         /* DE_CFG: LFENCE serialises */
	{0xc001102a, MSR_ROW_IGNORE, 0},              /* BU_CFG2 */
};

static const struct constant *find_constant(u32 msr)
{
	for (unsigned i = 0; i < ARRAY_SIZE(constants); i++)
		if (constants[i].msr == msr)
			return &constants[i];
	return NULL;
}

/* MSRs that are the vCPU's state in the backend. */
static int state_reg(u32 msr)
{
	switch (msr) {
	case MSR_SYSENTER_CS:
		return REG_SYSENTER_CS;
	case MSR_SYSENTER_ESP:
		return REG_SYSENTER_ESP;
	case MSR_SYSENTER_EIP:
		return REG_SYSENTER_EIP;
	case MSR_PAT:
		return REG_PAT;
	case MSR_EFER:
		return REG_EFER;
	case MSR_STAR:
		return REG_STAR;
	case MSR_LSTAR:
		return REG_LSTAR;
	case MSR_CSTAR:
		return REG_CSTAR;
	case MSR_SFMASK:
		return REG_SFMASK;
	case MSR_KERNEL_GS_BASE:
		return REG_KERNEL_GS_BASE;
	case MSR_TSC_AUX:
		return REG_TSC_AUX;
	default:
		return -ENOENT;
	}
}

/* Where an MTRR is kept: variable pairs, 11 fixed ones, the default. NULL: not an MTRR. */
static u64 *mtrr(struct vcpu *v, u32 msr)
{
	if (msr >= MSR_MTRR_VAR && msr < MSR_MTRR_VAR + ARRAY_SIZE(v->mtrr_var))
		return &v->mtrr_var[msr - MSR_MTRR_VAR];
	if (msr == MSR_MTRR_FIX64K)
		return &v->mtrr_fix[0];
	if (msr >= MSR_MTRR_FIX16K && msr < MSR_MTRR_FIX16K + 2)
		return &v->mtrr_fix[1 + msr - MSR_MTRR_FIX16K];
	if (msr >= MSR_MTRR_FIX4K && msr < MSR_MTRR_FIX4K + 8)
		return &v->mtrr_fix[3 + msr - MSR_MTRR_FIX4K];
	return msr == MSR_MTRR_DEF_TYPE ? &v->mtrr_def_type : NULL;
}

static bool is_apic_msr(u32 msr)
{
	return msr == MSR_APIC_BASE || msr == MSR_TSC_DEADLINE || (msr >= MSR_X2APIC && msr < MSR_X2APIC + 0x100);
}

/*
 * The local APIC knows the vm's clock in ns only, whose kHz are rounded; so it is told a deadline by its distance from
 * now, which keeps the error in proportion to that and not to the uptime.
 */
static u64 tsc_to_clock(struct vcpu *v, u64 tsc)
{
	const struct guest_clock *c = &v->vm->clock;

	return scale_down(port_now() - c->start_ns, c->tsc_khz, 1000000) + (tsc - hvm->get(v, REG_TSC));
}

static int write_deadline(struct vcpu *v, u64 val)
{
	u64 now = hvm->get(v, REG_TSC);

	v->tsc_deadline = val;
	if (val) /* one in the past fires at once; 0 would mean none */
		val = tsc_to_clock(v, MAX(val, now));
	return lapic_wrmsr(&v->lapic, MSR_TSC_DEADLINE, val);
}

static bool canonical(u64 a) { return (u64)((s64)(a << 16) >> 16) == a; }

static int unknown(struct vcpu *v, u32 msr, const char *how)
{
	if (atomic_add(&v->vm->unknown_msrs, 1u) <= UNKNOWN_LOGGED)
		log("guest %s: %s of unknown MSR %x at rip %lx: #GP\n", v->vm->name, how, msr, v->regs.rip);
	return -EINVAL;
}

static int read_base(struct vcpu *v, enum seg s, u64 *val)
{
	struct segment seg;

	hvm->get_seg(v, s, &seg);
	*val = seg.base;
	return 0;
}

int guest_rdmsr(struct vcpu *v, u32 msr, u64 *val)
{
	const struct constant *c;
	int r = state_reg(msr);
	u64 *m = mtrr(v, msr);

	if (r >= 0) {
		*val = hvm->get(v, (enum vreg)r);
		return 0;
	}
	if (m) {
		*val = *m;
		return 0;
	}
	if (is_apic_msr(msr)) {
		r = lapic_rdmsr(&v->lapic, msr, val);
		if (r == 0 && msr == MSR_TSC_DEADLINE && *val)
			*val = v->tsc_deadline;
		return r;
	}
	switch (msr) {
	case MSR_TSC:
		*val = hvm->get(v, REG_TSC);
		return 0;
	case MSR_FS_BASE:
		return read_base(v, SEG_FS, val);
	case MSR_GS_BASE:
		return read_base(v, SEG_GS, val);
	case MSR_MISC_ENABLE:
		*val = v->misc_enable | MISC_ENABLE_FIXED;
		return 0;
	}
	c = find_constant(msr);
	if (!c)
		return unknown(v, msr, "read");
	*val = c->val;
	return 0;
}

/* Memory types: 0, 1, 4, 5, 6, and 7 (UC-) only in the PAT. */
static bool types_valid(u64 val, bool pat)
{
	for (unsigned i = 0; i < 8; i++, val >>= 8) {
		u8 t = (u8)val;

		if (t > (pat ? 7 : 6) || t == 2 || t == 3)
			return false;
	}
	return true;
}

static int write_efer(struct vcpu *v, u64 val)
{
	u64 old = hvm->get(v, REG_EFER);
	u32 r[4];

	guest_cpuid(v, 0x80000001, 0, r);
	if (val & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NX | EFER_FFXSR))
		return -EINVAL;
	if ((val & EFER_FFXSR) && !(r[3] & BIT(25)))
		return -EINVAL;
	if (((val ^ old) & EFER_LME) && (hvm->get(v, REG_CR0) & CR0_PG))
		return -EINVAL;
	hvm->set(v, REG_EFER, (val & ~EFER_LMA) | (old & EFER_LMA));
	hvm->flush(v);
	return 0;
}

static int write_mtrr(struct vcpu *v, u32 msr, u64 *m, u64 val)
{
	u64 beyond = ~BITS(guest_phys_bits(v) - 1, 0);

	if (msr == MSR_MTRR_DEF_TYPE) {
		if ((val & ~(u64)MTRR_DEF_VALID) || !types_valid(val & 0xff, false))
			return -EINVAL;
	} else if (msr >= MSR_MTRR_FIX64K) {
		if (!types_valid(val, false))
			return -EINVAL;
	} else if (msr & 1) {
		if (val & (beyond | BITS(10, 0)))
			return -EINVAL;
	} else if ((val & (beyond | BITS(11, 8))) || !types_valid(val & 0xff, false)) {
		return -EINVAL;
	}
	*m = val;
	return 0;
}

static int write_base(struct vcpu *v, enum seg s, u64 val)
{
	struct segment seg;

	if (!canonical(val))
		return -EINVAL;
	hvm->get_seg(v, s, &seg);
	seg.base = val;
	hvm->set_seg(v, s, &seg);
	return 0;
}

static int write_state(struct vcpu *v, enum vreg r, u64 val)
{
	if (r == REG_EFER)
		return write_efer(v, val);
	if (r == REG_PAT && !types_valid(val, true))
		return -EINVAL;
	if ((r == REG_LSTAR || r == REG_CSTAR || r == REG_KERNEL_GS_BASE || r == REG_SYSENTER_ESP ||
	     r == REG_SYSENTER_EIP) &&
	    !canonical(val))
		return -EINVAL;
	if ((r == REG_SFMASK || r == REG_TSC_AUX) && val >> 32)
		return -EINVAL;
	hvm->set(v, r, val);
	return 0;
}

int guest_wrmsr(struct vcpu *v, u32 msr, u64 val)
{
	const struct constant *c;
	int r = state_reg(msr);
	u64 *m = mtrr(v, msr);

	if (r >= 0)
		return write_state(v, (enum vreg)r, val);
	if (m)
		return write_mtrr(v, msr, m, val);
	if (is_apic_msr(msr))
		return msr == MSR_TSC_DEADLINE ? write_deadline(v, val) : lapic_wrmsr(&v->lapic, msr, val);
	switch (msr) {
	case MSR_TSC:
		hvm->set(v, REG_TSC_OFFSET, hvm->get(v, REG_TSC_OFFSET) + val - hvm->get(v, REG_TSC));
		return 0;
	case MSR_FS_BASE:
		return write_base(v, SEG_FS, val);
	case MSR_GS_BASE:
		return write_base(v, SEG_GS, val);
	case MSR_MISC_ENABLE:
		v->misc_enable = val & MISC_ENABLE_KEPT;
		return 0;
	}
	c = find_constant(msr);
	if (!c)
		return unknown(v, msr, "write");
	return c->flags & MSR_ROW_IGNORE ? 0 : -EINVAL;
}
