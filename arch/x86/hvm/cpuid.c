/* SPDX-License-Identifier: MIT */
/*
 * The guest's CPUID: the host's, through lists of what a guest may use. A bit that is not on a list is hidden, so that
 * a newer CPU brings no feature whose state is not switched or whose MSRs are not there. Also what differs from the
 * host: topology (each vCPU a core of its own in one package), local APIC, XSAVE sizes, the hypervisor's own leaves.
 */
#include "arch/x86/hvm/exit.h"
#include "lib/bits.h"
#include "lib/string.h"

enum { EAX, EBX, ECX, EDX };

#define HYPERVISOR_LEAF 0x40000000u
#define CALL_LEAF       0x40000001u
#define TIMING_LEAF     0x40000010u
#define APIC_TIMER_KHZ  (LAPIC_TIMER_HZ / 1000)

/* SSE3 PCLMUL | SSSE3 | FMA CX16 | PCID | SSE4.1 4.2 | MOVBE POPCNT | AES XSAVE | AVX F16C RDRAND */
#define F1_ECX \
	(BITS(1, 0) | BIT(9) | BITS(13, 12) | BIT(17) | BITS(20, 19) | BITS(23, 22) | BITS(26, 25) | BITS(30, 28))
#define F1_ECX_ALWAYS  (BIT(21) | BIT(24) | BIT(31)) /* x2APIC, TSC deadline, hypervisor */
#define F1_ECX_OSXSAVE BIT(27)
/* All but PSN, DS and ACPI (thermal), bits 18, 21, 22; and but APIC and HTT, which are set by what the guest has. */
#define F1_EDX_COMMON (BITS(8, 0) | BITS(17, 11))
#define F1_EDX        (F1_EDX_COMMON | BIT(19) | BITS(27, 23))
#define F1_EDX_APIC   BIT(9)
#define F1_EDX_HTT    BIT(28)
/* FSGSBASE BMI1 | AVX2 FDP SMEP BMI2 ERMS INVPCID | FCS | AVX512F DQ RDSEED ADX SMAP IFMA | CLFLUSHOPT CLWB | the rest
 */
#define F7_EBX (BIT(0) | BIT(3) | BITS(10, 5) | BIT(13) | BITS(21, 16) | BITS(24, 23) | BITS(31, 26))
/* VBMI UMIP | VBMI2 | GFNI VAES VPCLMUL VNNI BITALG | VPOPCNTDQ | RDPID */
#define F7_ECX (BITS(2, 1) | BIT(6) | BITS(12, 8) | BIT(14) | BIT(22))
/* 4VNNIW 4FMAPS FSRM | VP2INTERSECT | MD_CLEAR | SERIALIZE | AVX512-FP16 */
#define F7_EDX   (BITS(4, 2) | BIT(8) | BIT(10) | BIT(14) | BIT(23))
#define F7_1_EAX (BITS(5, 4) | BITS(12, 10)) /* AVX-VNNI BF16 | fast short REP */
#define F6_ARAT  BIT(2)
#define FD_1_EAX BITS(2, 0) /* XSAVEOPT XSAVEC XGETBV1; XSAVES has a state MSR */
/* LAHF | CR8 ABM SSE4A misaligned-SSE 3DNow-prefetch | XOP | FMA4 | TBM */
#define X1_ECX     (BIT(0) | BITS(8, 4) | BIT(11) | BIT(16) | BIT(21))
#define X1_ECX_CMP BIT(1)
/* NX | MMXEXT MMX FXSR | 1 GB pages, RDTSCP | LM 3DNow; FFXSR has an EFER bit */
#define X1_EDX        (F1_EDX_COMMON | BIT(20) | BITS(24, 22) | BITS(27, 26) | BITS(31, 29))
#define X7_EDX_TSC    BIT(8)
#define X8_EBX        (BIT(0) | BIT(2) | BIT(9)) /* CLZERO | XSAVEERPTR | WBNOINVD */
#define VIRT_BITS     48
#define MAX_BASIC     0xdu
#define MAX_BASIC_TSC 0x15u
#define MAX_EXT       0x8000001eu
#define ANY           (~0u)

static unsigned log2_up(unsigned n) { return n <= 1 ? 0 : bit_high(n - 1) + 1; }

unsigned guest_phys_bits(const struct vcpu *v) { return MIN(cpu_features.phys_bits, v->vm->p2m.width); }

static void leaf_features(struct vcpu *v, u32 r[4])
{
	r[EBX] |= MIN(1u << log2_up(v->vm->vcpus), 128u) << 16 | (v->index & 0xff) << 24;
	r[ECX] |= F1_ECX_ALWAYS;
	if (!cpu_features.xcr0_mask)
		r[ECX] &= ~(u32)(BIT(26) | BITS(29, 28) | BIT(12)); /* what needs XSAVE */
	if (hvm->get(v, REG_CR4) & CR4_OSXSAVE)
		r[ECX] |= F1_ECX_OSXSAVE;
	if (v->lapic.base & LAPIC_BASE_ENABLE)
		r[EDX] |= F1_EDX_APIC;
	if (v->vm->vcpus > 1)
		r[EDX] |= F1_EDX_HTT;
}

/* Intel's cache parameters: caches below level 3 are private, the others everybody's. */
static void leaf_cache(struct vcpu *v, u32 r[4])
{
	u32 shift = log2_up(v->vm->vcpus), sharing = (r[EAX] >> 5 & 7) >= 3 ? (1u << shift) - 1 : 0;

	if (r[EAX] & 0x1f)
		r[EAX] = (r[EAX] & BITS(13, 0)) | sharing << 14 | (MIN(1u << shift, 64u) - 1) << 26;
}

static void leaf_topology(struct vcpu *v, u32 sub, u32 r[4])
{
	r[ECX] = sub & 0xff;
	r[EDX] = v->index;
	if (sub == 0) { /* threads of a core */
		r[EBX] = 1;
		r[ECX] |= 1 << 8;
	} else if (sub == 1) { /* cores of the package */
		r[EAX] = log2_up(v->vm->vcpus);
		r[EBX] = v->vm->vcpus;
		r[ECX] |= 2 << 8;
	}
}

/* The sizes for the XCR0 of now are as the host's, for the guest's is loaded. */
static void leaf_xsave(u32 sub, u32 r[4])
{
	u64 all = cpu_features.xcr0_mask;

	if (sub == 0 && all) {
		r[EAX] = (u32)all;
		r[ECX] = cpu_features.xsave_size;
		r[EDX] = (u32)(all >> 32);
	} else if (sub == 1 && all) {
		r[EAX] &= FD_1_EAX;
		r[ECX] = r[EDX] = 0;
	} else if (sub < 2 || sub > 63 || !(all & BIT(sub))) {
		memset(r, 0, 4 * sizeof(u32));
	}
}

static void leaf_sizes(struct vcpu *v, u32 r[4])
{
	unsigned n = v->vm->vcpus;

	r[EAX] = guest_phys_bits(v) | MIN(r[EAX] >> 8 & 0xff, (u32)VIRT_BITS) << 8;
	r[ECX] = cpu_has(FEAT_SVM) ? (n - 1) | log2_up(n) << 12 : 0;
}

/* What is left of the host's leaves: those that say nothing which a guest may not know, */
static const u32 whole[] = {0x0,        0x2,        0x4,        0xd,        0x80000000, 0x80000002,
			    0x80000003, 0x80000004, 0x80000005, 0x80000006, 0x80000019, 0x8000001a};
/* and these; nothing of the others. */
static const struct {
	u32 leaf, sub, mask[4];
} masked[] = {
	{0x1, ANY, {~0u, 0xffff, F1_ECX, F1_EDX}},
	{0x7, 0, {~0u, F7_EBX, F7_ECX, F7_EDX}},
	{0x7, 1, {F7_1_EAX, 0, 0, 0}},
	{0x80000001, ANY, {~0u, ~0u, X1_ECX, X1_EDX}},
	{0x80000007, ANY, {0, 0, 0, X7_EDX_TSC}},
	{0x80000008, ANY, {~0u, X8_EBX, 0, 0}},
};

static void mask_host(u32 leaf, u32 sub, u32 r[4])
{
	static const u32 nothing[4];
	const u32 *mask = nothing;

	for (unsigned i = 0; i < ARRAY_SIZE(whole); i++)
		if (whole[i] == leaf)
			return;
	for (unsigned i = 0; i < ARRAY_SIZE(masked); i++)
		if (masked[i].leaf == leaf && (masked[i].sub == sub || masked[i].sub == ANY))
			mask = masked[i].mask;
	for (unsigned i = 0; i < 4; i++)
		r[i] &= mask[i];
}

/* num / den is nearest to n / d among the fractions with num of at most max: by continued fractions. */
static void fraction(u64 n, u64 d, u64 max, u32 *num, u32 *den)
{
	u64 p[2] = {0, 1}, q[2] = {1, 0};

	while (d) {
		u64 a = n / d, rest = n % d, p2 = a * p[1] + p[0], q2 = a * q[1] + q[0];

		if (p2 > max)
			break;
		n = d;
		d = rest;
		p[0] = p[1];
		p[1] = p2;
		q[0] = q[1];
		q[1] = q2;
	}
	*num = (u32)p[1];
	*den = (u32)q[1];
}

void guest_cpuid(struct vcpu *v, u32 leaf, u32 sub, u32 r[4])
{
	hvm_host.cpuid(leaf, sub, r);
	mask_host(leaf, sub, r);
	switch (leaf) {
	case 0:
		r[EAX] = cpu_has(FEAT_SVM) ? MIN(r[EAX], MAX_BASIC) : MAX_BASIC_TSC;
		break;
	case 1:
		leaf_features(v, r);
		break;
	case 4:
		leaf_cache(v, r);
		break;
	case 6:
		r[EAX] = F6_ARAT;
		break;
	case 7:
		r[EAX] = sub ? r[EAX] : MIN(r[EAX], 1u);
		break;
	case 0xb:
		leaf_topology(v, sub, r);
		break;
	case 0xd:
		leaf_xsave(sub, r);
		break;
	case 0x15: /* TSC = crystal * EBX / EAX with the local APIC timer's crystal. Linux: crystal kHz * EBX in 32 bits
		    */
		fraction(v->vm->clock.tsc_khz, APIC_TIMER_KHZ, ~0u / APIC_TIMER_KHZ, &r[EBX], &r[EAX]);
		r[ECX] = LAPIC_TIMER_HZ;
		break;
	case HYPERVISOR_LEAF:
		r[EAX] = TIMING_LEAF;
		memcpy(&r[EBX], "CleaveCleave", 12);
		break;
	case CALL_LEAF:
		hypercall_cpuid(r);
		break;
	case TIMING_LEAF:
		r[EAX] = v->vm->clock.tsc_khz;
		r[EBX] = APIC_TIMER_KHZ;
		break;
	case 0x80000000:
		r[EAX] = MIN(r[EAX], MAX_EXT);
		break;
	case 0x80000001:
		r[ECX] |= cpu_has(FEAT_SVM) && v->vm->vcpus > 1 ? X1_ECX_CMP : 0;
		r[EDX] |= cpu_has(FEAT_SVM) && (v->lapic.base & LAPIC_BASE_ENABLE) ? F1_EDX_APIC : 0;
		break;
	case 0x80000008:
		leaf_sizes(v, r);
		break;
	}
}
