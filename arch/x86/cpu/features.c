/* SPDX-License-Identifier: MIT */
#include "arch/x86/cpu/features.h"

#include "arch/x86/cpu/cpu.h"
#include "lib/print.h"
#include "lib/string.h"

#define XCR0_AVX    7ul    /* x87, SSE, AVX */
#define XCR0_AVX512 0xe0ul /* all three or none (SDM 1, 13.3) */
#define XSAVE_AREA  576u   /* legacy region and header */
#define EXTENDED    0x80000000u

enum { EAX, EBX, ECX, EDX };

struct cpu_features cpu_features;

/* Where CPUID tells each feature (SDM 2A CPUID, APM 3 appendix E). */
static const struct {
	const char *name;
	u32 leaf;
	u8 reg, bit;
} sources[FEATURES] = {
	[FEAT_NX] = {"nx", 0x80000001, EDX, 20},
	[FEAT_GB_PAGES] = {"1g-pages", 0x80000001, EDX, 26},
	[FEAT_SMEP] = {"smep", 7, EBX, 7},
	[FEAT_SMAP] = {"smap", 7, EBX, 20},
	[FEAT_UMIP] = {"umip", 7, ECX, 2},
	[FEAT_X2APIC] = {"x2apic", 1, ECX, 21},
	[FEAT_TSC_DEADLINE] = {"tsc-deadline", 1, ECX, 24},
	[FEAT_INVARIANT_TSC] = {"invariant-tsc", 0x80000007, EDX, 8},
	[FEAT_RDTSCP] = {"rdtscp", 0x80000001, EDX, 27},
	[FEAT_XSAVE] = {"xsave", 1, ECX, 26},
	[FEAT_FSGSBASE] = {"fsgsbase", 7, EBX, 0},
	[FEAT_PAT] = {"pat", 1, EDX, 16},
	[FEAT_HYPERVISOR] = {"hypervisor", 1, ECX, 31},
	[FEAT_SVM] = {"svm", 0x80000001, ECX, 2},
	[FEAT_NPT] = {"npt", 0x8000000a, EDX, 0},
	[FEAT_NRIP_SAVE] = {"nrip-save", 0x8000000a, EDX, 3},
	[FEAT_DECODE_ASSISTS] = {"decode-assists", 0x8000000a, EDX, 7},
	[FEAT_FLUSH_BY_ASID] = {"flush-by-asid", 0x8000000a, EDX, 6},
	[FEAT_VMX] = {"vmx", 1, ECX, 5},
};

/* Leaves beyond the CPU's last would repeat another one's data: they are all zero here. */
static struct cpuid_regs leaf(u32 n, u32 sub)
{
	u32 max = n >= EXTENDED ? cpu_features.max_ext_leaf : cpu_features.max_leaf;

	return n <= max ? cpuid(n, sub) : (struct cpuid_regs){0};
}

static u32 reg_of(struct cpuid_regs r, unsigned reg)
{
	const u32 regs[] = {r.a, r.b, r.c, r.d};

	return regs[reg];
}

static void probe_names(struct cpu_features *f, struct cpuid_regs zero)
{
	const u32 id[] = {zero.b, zero.d, zero.c};
	const char *brand = f->brand;

	memcpy(f->vendor_id, id, sizeof(id));
	if (memcmp(f->vendor_id, "GenuineIntel", 12) == 0)
		f->vendor = VENDOR_INTEL;
	else if (memcmp(f->vendor_id, "AuthenticAMD", 12) == 0 || memcmp(f->vendor_id, "HygonGenuine", 12) == 0)
		f->vendor = VENDOR_AMD;
	for (u32 i = 0; i < 3; i++) {
		struct cpuid_regs r = leaf(EXTENDED + 2 + i, 0);

		memcpy(&f->brand[i * 16UL], &r, sizeof(r));
	}
	while (*brand == ' ')
		brand++;
	memmove(f->brand, brand, strlen(brand) + 1);
}

static void probe_model(struct cpu_features *f)
{
	u32 a = leaf(1, 0).a;

	f->stepping = a & 15;
	f->model = a >> 4 & 15;
	f->family = a >> 8 & 15;
	if (f->family == 15 || f->family == 6)
		f->model |= a >> 12 & 0xf0;
	if (f->family == 15)
		f->family += a >> 20 & 0xff;
}

static void probe_xsave(struct cpu_features *f)
{
	struct cpuid_regs r = leaf(0xd, 0);

	f->xsave_size = 512;
	if (!cpu_has(FEAT_XSAVE))
		return;
	f->xcr0_mask = r.a & XCR0_AVX;
	if (f->xcr0_mask == XCR0_AVX && (r.a & XCR0_AVX512) == XCR0_AVX512)
		f->xcr0_mask |= XCR0_AVX512;
	f->xsave_size = XSAVE_AREA;
	/* Not CPUID's own sums, which count components that nobody gets, and which emulators get wrong. */
	for (u32 i = 2; i < 8; i++)
		if (f->xcr0_mask & BIT(i)) {
			r = leaf(0xd, i);
			f->xsave_size = MAX(f->xsave_size, r.a + r.b);
		}
	if (f->xsave_size > PAGE_SIZE) {
		f->xcr0_mask &= 3;
		f->xsave_size = XSAVE_AREA;
	}
}

void features_probe(void)
{
	struct cpu_features *f = &cpu_features;
	struct cpuid_regs zero = cpuid(0, 0), ext = cpuid(EXTENDED, 0), r;

	*f = (struct cpu_features){.max_leaf = zero.a};
	if ((ext.a & 0xffff0000u) == EXTENDED)
		f->max_ext_leaf = ext.a;
	probe_names(f, zero);
	probe_model(f);
	for (unsigned i = 0; i < FEATURES; i++)
		if (reg_of(leaf(sources[i].leaf, 0), sources[i].reg) & BIT(sources[i].bit))
			f->has |= BIT(i);
	if (!cpu_has(FEAT_SVM)) /* leaf 0x8000000a is not defined then */
		f->has &= ~(BIT(FEAT_NPT) | BIT(FEAT_NRIP_SAVE) | BIT(FEAT_DECODE_ASSISTS) | BIT(FEAT_FLUSH_BY_ASID));
	r = leaf(EXTENDED + 8, 0);
	f->phys_bits = (u8)(r.a ? MIN(r.a & 0xff, 52u) : 36);
	f->virt_bits = (u8)(r.a ? r.a >> 8 : 48);
	if (cpu_has(FEAT_SVM)) {
		r = leaf(0x8000000a, 0);
		f->svm_revision = r.a & 0xff;
		f->svm_asids = r.b;
	}
	probe_xsave(f);
}

void features_report(void)
{
	const struct cpu_features *f = &cpu_features;
	char line[128];
	size_t len = 0;

	log("cpu: %s %s (family %u, model %u, stepping %u), %u physical bits\n", f->vendor_id, f->brand, f->family,
	    f->model, f->stepping, f->phys_bits);
	for (unsigned i = 0; i < FEATURES; i++) {
		len += format(&line[len], sizeof(line) - len, " %s %s", sources[i].name, cpu_has(i) ? "yes" : "no");
		if (i % 6 == 5 || i == FEATURES - 1) {
			log("cpu:%s\n", line);
			len = 0;
		}
	}
}
