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

#define MSR_MTRR_VAR      0x200
#define MSR_MTRR_FIX64K   0x250
#define MSR_MTRR_FIX16K   0x258
#define MSR_MTRR_FIX4K    0x268
#define MSR_MTRR_DEF_TYPE 0x2ff

#define MTRR_CAP_VALUE    0x508 /* 8 variable ranges, fixed ranges, write combining */
#define MTRR_DEF_VALID    0xcff
#define MTRR_VAR_VALID    BIT(11)
#define MISC_ENABLE_VALUE (BIT(0) | BIT(11) | BIT(12)) /* fast strings; no BTS, no PEBS */
#define EFER_FFXSR        BIT(14)
#define UNKNOWN_LOGGED    8

/*
 * The simple ones: the vCPU's state in the backend; and constants that kernels read without asking CPUID, or on all
 * processors of a vendor, and that are read-only, ignore what is written, or are not there although kernels try them.
 */
enum row_kind { STATE, READ_ONLY, IGNORED, ABSENT };
static const struct row {
	u32 msr;
	u8 kind;
	u64 val; /* or enum vreg */
} rows[] = {
	{MSR_EFER, STATE, REG_EFER},
	{MSR_STAR, STATE, REG_STAR},
	{MSR_LSTAR, STATE, REG_LSTAR},
	{MSR_CSTAR, STATE, REG_CSTAR},
	{MSR_SFMASK, STATE, REG_SFMASK},
	{MSR_KERNEL_GS_BASE, STATE, REG_KERNEL_GS_BASE},
	{MSR_TSC_AUX, STATE, REG_TSC_AUX},
	{MSR_PAT, STATE, REG_PAT},
	{0x174, STATE, REG_SYSENTER_CS},
	{0x175, STATE, REG_SYSENTER_ESP},
	{0x176, STATE, REG_SYSENTER_EIP},
	{0x17, READ_ONLY, 0},                  /* PLATFORM_ID */
	{0x3a, READ_ONLY, 1},                  /* FEATURE_CONTROL: locked, no VMX */
	{0x8b, IGNORED, BIT(32)},              /* microcode revision (Intel: upper half) */
	{0xce, READ_ONLY, 0},                  /* PLATFORM_INFO */
	{0xfe, READ_ONLY, MTRR_CAP_VALUE},     /* MTRRCAP */
	{0x179, READ_ONLY, 0},                 /* MCG_CAP: no banks */
	{0x17a, IGNORED, 0},                   /* MCG_STATUS */
	{0x1a0, IGNORED, MISC_ENABLE_VALUE},   /* MISC_ENABLE */
	{0x1d9, IGNORED, 0},                   /* DEBUGCTL: no branch records, no block step */
	{0xc0010000, ABSENT, 0},               /* the first performance counter of AMD's */
	{0xc0010010, IGNORED, 0},              /* SYSCFG */
	{0xc0010015, IGNORED, BIT(24)},        /* HWCR: the TSC counts at a fixed rate */
	{0xc001001a, IGNORED, 0},              /* TOP_MEM */
	{0xc001001d, IGNORED, 0},              /* TOP_MEM2 */
	{0xc001001f, IGNORED, 0},              /* NB_CFG */
	{0xc0010055, IGNORED, 0},              /* INT_PENDING */
	{0xc0010058, IGNORED, 0},              /* MMIO_CONF_BASE */
	{MSR_VM_CR, IGNORED, BIT(4) | BIT(3)}, /* SVM is off and locked */
	{0xc0011029, IGNORED, BIT(1)},         /* DE_CFG: LFENCE serialises */
};

static const struct row *find_row(u32 msr)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].msr == msr)
			return &rows[i];
	return NULL;
}

/* Whether it is an MTRR, and where that is kept: variable pairs, 11 fixed ones, the default. */
static bool find_mtrr(struct vcpu *v, u32 msr, u64 **at)
{
	if (msr >= MSR_MTRR_VAR && msr < MSR_MTRR_VAR + ARRAY_SIZE(v->mtrr_var))
		*at = &v->mtrr_var[msr - MSR_MTRR_VAR];
	else if (msr == MSR_MTRR_FIX64K)
		*at = &v->mtrr_fix[0];
	else if (msr >= MSR_MTRR_FIX16K && msr < MSR_MTRR_FIX16K + 2)
		*at = &v->mtrr_fix[1 + msr - MSR_MTRR_FIX16K];
	else if (msr >= MSR_MTRR_FIX4K && msr < MSR_MTRR_FIX4K + 8)
		*at = &v->mtrr_fix[3 + msr - MSR_MTRR_FIX4K];
	else if (msr == MSR_MTRR_DEF_TYPE)
		*at = &v->mtrr_def_type;
	else
		return false;
	return true;
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

	return scale(port_now() - c->start_ns, c->tsc_khz, 1000000, 0) + (tsc - hvm->get(v, REG_TSC));
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

static int read_apic(struct vcpu *v, u32 msr, u64 *val)
{
	int err = lapic_rdmsr(&v->lapic, msr, val);

	if (!err && msr == MSR_TSC_DEADLINE && *val)
		*val = v->tsc_deadline;
	return err;
}

int guest_rdmsr(struct vcpu *v, u32 msr, u64 *val)
{
	const struct row *row;
	u64 *m;

	if (is_apic_msr(msr)) /* first, being the frequent ones */
		return read_apic(v, msr, val);
	row = find_row(msr);
	if (row) {
		*val = row->kind == STATE ? hvm->get(v, (enum vreg)row->val) : row->val;
		return row->kind == ABSENT ? -EINVAL : 0;
	}
	if (find_mtrr(v, msr, &m)) {
		*val = *m;
		return 0;
	}
	switch (msr) {
	case MSR_TSC:
		*val = hvm->get(v, REG_TSC);
		return 0;
	case MSR_FS_BASE:
		return read_base(v, SEG_FS, val);
	case MSR_GS_BASE:
		return read_base(v, SEG_GS, val);
	default:
		return unknown(v, msr, "read");
	}
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
	const struct row *row;
	u64 *m;

	if (is_apic_msr(msr))
		return msr == MSR_TSC_DEADLINE ? write_deadline(v, val) : lapic_wrmsr(&v->lapic, msr, val);
	row = find_row(msr);
	if (row && row->kind == STATE)
		return write_state(v, (enum vreg)row->val, val);
	if (row)
		return row->kind == IGNORED ? 0 : -EINVAL;
	if (find_mtrr(v, msr, &m))
		return write_mtrr(v, msr, m, val);
	switch (msr) {
	case MSR_TSC:
		hvm->set(v, REG_TSC_OFFSET, hvm->get(v, REG_TSC_OFFSET) + val - hvm->get(v, REG_TSC));
		return 0;
	case MSR_FS_BASE:
		return write_base(v, SEG_FS, val);
	case MSR_GS_BASE:
		return write_base(v, SEG_GS, val);
	default:
		return unknown(v, msr, "write");
	}
}
