/* SPDX-License-Identifier: MIT */
/*
 * The guest's MSRs. Known ones have a case, or a row in the table of harmless constants; what a guest may not know of
 * according to its CPUID, and what nobody knows, is #GP, as on a machine without it.
 */
#include "arch/x86/hvm/exit.h"
#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/port.h"
#include "lib/print.h"

#define MSR_MTRR_DEF_TYPE 0x2ff
#define MTRR_CAP_VALUE    0x508 /* 8 variable ranges, fixed ranges, write combining */
#define MTRR_DEF_VALID    0xcff
#define MISC_ENABLE_VALUE (BIT(0) | BIT(11) | BIT(12)) /* fast strings; no BTS, no PEBS */
#define UNKNOWN_LOGGED    8

/*
 * What is read from the backend; and constants that kernels read without asking CPUID, or on all processors of a
 * vendor, and that are read-only, ignore what is written, or are not there although kernels try them.
 */
enum row_kind { STATE, READ_ONLY, IGNORED, ABSENT };
static const struct row {
	u32 msr;
	u8 kind;
	u64 val; /* or enum vreg */
} rows[] = {
	{MSR_TSC, STATE, REG_TSC},
	{MSR_EFER, STATE, REG_EFER},
	{MSR_PAT, STATE, REG_PAT},
	{0x17, READ_ONLY, 0},                  /* PLATFORM_ID */
	{0x3a, READ_ONLY, 1},                  /* FEATURE_CONTROL: locked, no VMX */
	{0x8b, IGNORED, BIT(32)},              /* microcode revision (Intel: upper half) */
	{0xce, READ_ONLY, 0},                  /* PLATFORM_INFO */
	{0xfe, READ_ONLY, MTRR_CAP_VALUE},     /* MTRRCAP */
	{0x179, READ_ONLY, 0},                 /* MCG_CAP: no banks */
	{0x17a, IGNORED, 0},                   /* MCG_STATUS */
	{0x1a0, IGNORED, MISC_ENABLE_VALUE},   /* MISC_ENABLE */
	{0x1d9, IGNORED, 0},                   /* DEBUGCTL: no branch records, no block step */
	{0x34, ABSENT, 0},                     /* SMI_COUNT */
	{0x4e, ABSENT, 0},                     /* PPIN_CTL */
	{0x140, ABSENT, 0},                    /* MISC_FEATURES_ENABLES */
	{0x64e, ABSENT, 0},                    /* PPERF */
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

/* Where in vcpu.mtrr an MSR is; MTRRS if it is none. */
static unsigned mtrr_index(u32 msr)
{
	/* The first MSR, how many follow each other, where the first is. */
	static const u32 ranges[][3] = {
		{0x200, 16, 0}, {0x250, 1, 16}, {0x258, 2, 17}, {0x268, 8, 19}, {MSR_MTRR_DEF_TYPE, 1, MTRR_DEFAULT}};

	for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++)
		if (msr - ranges[i][0] < ranges[i][1])
			return ranges[i][2] + msr - ranges[i][0];
	return MTRRS;
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

	return mul_div(port_now() - c->start_ns, c->tsc_khz, 1000000, false) + (tsc - hvm->get(v, REG_TSC));
}

static int write_deadline(struct vcpu *v, u64 val)
{
	u64 now = hvm->get(v, REG_TSC);

	v->tsc_deadline = val;
	if (val) /* one in the past fires at once; 0 would mean none */
		val = tsc_to_clock(v, MAX(val, now));
	return lapic_wrmsr(&v->lapic, MSR_TSC_DEADLINE, val);
}

static int unknown(struct vcpu *v, u32 msr, const char *how)
{
	if (atomic_add(&v->vm->unknown_msrs, 1u) <= UNKNOWN_LOGGED)
		log("guest %s: %s of unknown MSR %x at rip %lx: #GP\n", v->vm->name, how, msr, v->regs.rip);
	return -EINVAL;
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
	if (is_apic_msr(msr)) /* first, being the frequent ones */
		return read_apic(v, msr, val);

	const struct row *row = find_row(msr);
	unsigned mtrr = mtrr_index(msr);

	if (row) {
		*val = row->kind == STATE ? hvm->get(v, (enum vreg)row->val) : row->val;
		return row->kind == ABSENT ? -EINVAL : 0;
	}
	if (mtrr == MTRRS)
		return unknown(v, msr, "read");
	*val = v->mtrr[mtrr];
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

	if (val & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NX))
		return -EINVAL;
	if (((val ^ old) & EFER_LME) && (hvm->get(v, REG_CR0) & CR0_PG))
		return -EINVAL;
	hvm->set(v, REG_EFER, (val & ~EFER_LMA) | (old & EFER_LMA));
	hvm->flush(v);
	return 0;
}

static int write_mtrr(struct vcpu *v, unsigned i, u64 val)
{
	u64 beyond = ~BITS(guest_phys_bits(v) - 1, 0), reserved = 0, types = val;

	if (i == MTRR_DEFAULT) {
		reserved = ~(u64)MTRR_DEF_VALID;
		types = val & 0xff;
	} else if (i < MTRR_FIXED) { /* base and mask in turn */
		reserved = beyond | (i & 1 ? BITS(10, 0) : BITS(11, 8));
		types = i & 1 ? 0 : val & 0xff;
	}
	if ((val & reserved) || !types_valid(types, false))
		return -EINVAL;
	v->mtrr[i] = val;
	return 0;
}

int guest_wrmsr(struct vcpu *v, u32 msr, u64 val)
{
	if (msr == MSR_APIC_BASE && val >> guest_phys_bits(v))
		return -EINVAL;
	if (is_apic_msr(msr))
		return msr == MSR_TSC_DEADLINE ? write_deadline(v, val) : lapic_wrmsr(&v->lapic, msr, val);

	const struct row *row = find_row(msr);
	unsigned mtrr = mtrr_index(msr);

	switch (msr) {
	case MSR_TSC:
		hvm->set(v, REG_TSC_OFFSET, hvm->get(v, REG_TSC_OFFSET) + val - hvm->get(v, REG_TSC));
		return 0;
	case MSR_EFER:
		return write_efer(v, val);
	case MSR_PAT:
		if (!types_valid(val, true))
			return -EINVAL;
		hvm->set(v, REG_PAT, val);
		return 0;
	}
	if (row)
		return row->kind == IGNORED ? 0 : -EINVAL;
	return mtrr < MTRRS ? write_mtrr(v, mtrr, val) : unknown(v, msr, "write");
}
