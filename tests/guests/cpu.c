/* SPDX-License-Identifier: MIT */
/* CPUID, model-specific registers, exceptions, and state that must survive exits. */
#include "tests/guests/guest.h"

#define EFER           0xc0000080
#define PAT            0x277
#define LSTAR          0xc0000082
#define KERNEL_GS_BASE 0xc0000102

static void cpuid_says(void)
{
	struct cpuid one = cpuid(1, 0), hv = cpuid(0x40000000, 0), ext = cpuid(0x80000001, 0);
	char name[13] = "";

	memcpy(name, &hv.b, 4);
	memcpy(name + 4, &hv.c, 4);
	memcpy(name + 8, &hv.d, 4);
	check("cpuid-apic-id", one.b >> 24 == lapic_read(0x20) >> 24, "cpuid=%u apic=%u", one.b >> 24,
	      lapic_read(0x20) >> 24);
	if (bare())
		return;
	check("cpuid-hypervisor", one.c >> 31 && !memcmp(name, "CleaveCleave", 12) && hv.a >= 0x40000010,
	      "bit=%u name=%s max=0x%x", one.c >> 31, name, hv.a);
	check("cpuid-hides", !(one.c & (1 << 5 | 1 << 3)) && !(ext.c & 1 << 2) && !(cpuid(7, 0).c & 1 << 16),
	      "1.ecx=0x%x 80000001.ecx=0x%x", one.c, ext.c);
	check("cpuid-timing", cpuid(0x40000010, 0).a && cpuid(0x40000010, 0).b, "no frequencies");
}

/* OSXSAVE follows CR4. */
static void cpuid_osxsave(void)
{
	u64 cr4;

	if (!(cpuid(1, 0).c & 1 << 26))
		return;
	asm volatile("movq %%cr4, %0" : "=r"(cr4));
	asm volatile("movq %0, %%cr4" : : "r"(cr4 | 1 << 18));
	bool on = cpuid(1, 0).c & 1 << 27;
	u32 a = 0, d = 0;
	TRY("xgetbv", : "+a"(a), "+d"(d) : "c"(0) : "memory");
	u32 get = fault_vector;
	TRY("xsetbv", : : "a"(a | 2), "d"(d), "c"(0) : "memory");
	u32 set = fault_vector;
	TRY("xsetbv", : : "a"(0), "d"(0), "c"(0) : "memory");
	u32 bad = fault_vector;
	asm volatile("movq %0, %%cr4" : : "r"(cr4));
	bool off = !(cpuid(1, 0).c & 1 << 27);
	check("cpuid-osxsave", on && off, "on=%d off=%d", on, off);
	check("xcr0", get == NO_FAULT && set == NO_FAULT && bad == 13, "get=%u set=%u bad=%u", get, set, bad);
}

static void cpuid_sweep(void)
{
	static const u32 base[] = {0, 0x40000000, 0x80000000, 0xc0000000, 0xfffffff0};
	volatile u32 all = 0;

	for (size_t b = 0; b < ARRAY_LEN(base); b++)
		for (u32 leaf = 0; leaf < (b == 4 ? 16 : 64); leaf++)
			for (u32 sub = 0; sub < 8; sub++) {
				struct cpuid r = cpuid(base[b] + leaf, sub);
				all ^= r.a ^ r.b ^ r.c ^ r.d;
			}
	ok("cpuid-sweep");
}

static void msr_unknown(void)
{
	u64 v;

	if (bare())
		return;
	check("msr-unknown-read", rdmsr_try(0x12345678, &v) == 13, "vector=%u", fault_vector);
	check("msr-unknown-write", wrmsr_try(0x12345678, 1) == 13, "vector=%u", fault_vector);
}

static void msr_efer(void)
{
	u64 efer = rdmsr(EFER);

	check("efer-long-mode", (efer & 0x500) == 0x500, "efer=0x%lx", efer);
	wrmsr(EFER, efer ^ 1);
	bool flipped = (rdmsr(EFER) ^ efer) == 1;
	wrmsr(EFER, efer);
	check("efer-sce", flipped && rdmsr(EFER) == efer, "efer=0x%lx", rdmsr(EFER));
	if (bare())
		return;
	check("efer-no-svme", wrmsr_try(EFER, efer | 1 << 12) == 13, "vector=%u", fault_vector);
	check("efer-reserved", wrmsr_try(EFER, efer | 1ull << 40) == 13, "vector=%u", fault_vector);
	check("efer-lme-while-paging", wrmsr_try(EFER, efer & ~0x100ull) == 13, "vector=%u", fault_vector);
}

static void msr_values(void)
{
	static const u32 msrs[] = {0xc0000081,     LSTAR, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101,
				   KERNEL_GS_BASE, 0x174, 0x175,      0x176,      PAT};
	u32 wrong = 0;
	u64 base = rdmsr(0x1b), v;

	for (size_t i = 0; i < ARRAY_LEN(msrs); i++) {
		u64 old = rdmsr(msrs[i]), put = msrs[i] == PAT ? 0x0007040600070401 : 0x4567;
		wrmsr(msrs[i], put);
		cpuid(0, 0);
		if (rdmsr(msrs[i]) != put)
			wrong = msrs[i];
		wrmsr(msrs[i], old);
	}
	check("msr-keep-values", !wrong, "msr=0x%x", wrong);
	check("msr-apic-base", (base & 0xffffff900) == 0xfee00900, "value=0x%lx", base);
	if (bare())
		return;
	check("msr-pat-bad-type", wrmsr_try(PAT, 0x0007040600070402) == 13, "vector=%u", fault_vector);
	check("msr-mtrr-cap", rdmsr_try(0xfe, &v) == NO_FAULT || !(cpuid(1, 0).d & 1 << 12), "vector=%u", fault_vector);
}

static void msr_tsc(void)
{
	u64 before = rdtsc(), jump = 1ull << 50;

	if (bare())
		return; /* QEMU keeps its own TSC */
	wrmsr(0x10, jump);
	u64 there = rdtsc();
	wrmsr(0x10, before + (rdtsc() - jump));
	u64 back = rdtsc();
	check("msr-tsc-write", there >= jump && there - jump < 1ull << 40 && back >= before && back < jump,
	      "there=0x%lx back=0x%lx", there, back);
}

/* Reads every register where registers are: a value or #GP, and nothing else happens. */
static void msr_sweep(void)
{
	static const u32 range[][2] = {{0, 0x2000},
				       {0x40000000, 0x40000100},
				       {0x4b564d00, 0x4b564d10},
				       {0xc0000000, 0xc0002000},
				       {0xc0010000, 0xc0012000}};
	u32 values = 0, faults = 0, odd = 0;
	u64 v;

	for (size_t r = 0; r < ARRAY_LEN(range); r++)
		for (u32 n = range[r][0]; n < range[r][1]; n++) {
			u32 vector = rdmsr_try(n, &v);
			values += vector == NO_FAULT;
			faults += vector == 13;
			odd += vector != NO_FAULT && vector != 13;
		}
	print("@note msr-values=%u faults=%u\n", values, faults);
	check("msr-sweep", !odd, "other-faults=%u", odd);
}

static void exceptions(void)
{
	u64 cr2;
	u32 zero = 0, a = 1;

	TRY("ud2", : : : "memory");
	check("exception-ud", fault_vector == 6, "vector=%u", fault_vector);
	TRY("divl %1", : "+a"(a) : "r"(zero) : "edx", "memory");
	check("exception-de", fault_vector == 0, "vector=%u", fault_vector);
	TRY("movl %0, (%1)", : : "r"(1), "r"(0x8000001234ull) : "memory");
	asm volatile("movq %%cr2, %0" : "=r"(cr2));
	check("exception-pf", fault_vector == 14 && fault_error == 2 && cr2 == 0x8000001234ull,
	      "vector=%u error=0x%lx cr2=0x%lx", fault_vector, fault_error, cr2);
	TRY("movl (%0), %%eax", : : "r"(0x8000000000000000ull) : "eax", "memory");
	check("exception-gp", fault_vector == 13, "vector=%u", fault_vector);
	if (bare())
		return;
	TRY("vmrun %%rax", : : "a"(0) : "memory");
	check("no-vmrun", fault_vector == 6 || fault_vector == 13, "vector=%u", fault_vector);
	TRY("stgi", : : : "memory");
	check("no-stgi", fault_vector == 6, "vector=%u", fault_vector);
	TRY("vmmcall", : : "a"(0x7fffffff) : "memory");
	check("vmmcall", fault_vector == NO_FAULT || fault_vector == 6, "vector=%u", fault_vector);
	TRY("monitor", : : "a"(&cr2), "c"(0), "d"(0) : "memory");
	check("no-monitor", fault_vector == 6, "vector=%u", fault_vector);
	TRY("wbinvd", : : : "memory");
	check("wbinvd", fault_vector == NO_FAULT, "vector=%u", fault_vector);
}

/* Registers that the hypervisor might forget: SSE, debug, CR8, general ones, over some exits. */
static void state_survives(void)
{
	u64 in[2] = {0x0123456789abcdef, 0xfedcba9876543210}, out[2], dr0, dr3, cr8;
	u64 r8 = 8, r15 = 15;

	asm volatile("movups %0, %%xmm0; movups %0, %%xmm15" : : "m"(in));
	asm volatile("movq %0, %%dr0; movq %1, %%dr3; movq %2, %%cr8" : : "r"(0x1111ul), "r"(0x3333ul), "r"(5ul));
	cpuid(0, 0);
	inb(0x21);
	lapic_read(0x20);
	asm volatile("movq %2, %%r8; movq %3, %%r15; xorl %%eax, %%eax; cpuid; movq %%r8, %0; movq %%r15, %1"
		     : "=m"(r8), "=m"(r15)
		     : "i"(0x8888), "i"(0x1515)
		     : "rax", "rbx", "rcx", "rdx", "r8", "r15");
	asm volatile("movups %%xmm15, %0" : "=m"(out));
	asm volatile("movq %%dr0, %0; movq %%dr3, %1; movq %%cr8, %2" : "=r"(dr0), "=r"(dr3), "=r"(cr8));
	u32 tpr = lapic_read(0x80);
	asm volatile("movq %0, %%cr8; movq %0, %%dr0; movq %0, %%dr3" : : "r"(0ul));
	check("state-sse", !memcmp(in, out, 16), "xmm15=0x%lx", out[0]);
	check("state-debug", dr0 == 0x1111 && dr3 == 0x3333, "dr0=0x%lx dr3=0x%lx", dr0, dr3);
	check("state-registers", r8 == 0x8888 && r15 == 0x1515, "r8=0x%lx r15=0x%lx", r8, r15);
	check("state-cr8", cr8 == 5 && tpr >> 4 == 5 && lapic_read(0x80) == 0, "cr8=%lu tpr=0x%x", cr8, tpr);
}

const struct test cpu_tests[] = {
	{"cpuid", cpuid_says, true},
	{"osxsave", cpuid_osxsave, true},
	{"cpuid-sweep", cpuid_sweep, true},
	{"msr-unknown", msr_unknown, true},
	{"efer", msr_efer, true},
	{"msr", msr_values, true},
	{"tsc", msr_tsc, true},
	{"exceptions", exceptions, true},
	{"state", state_survives, true},
	{"msr-sweep", msr_sweep, true},
	{NULL, NULL, false},
};
