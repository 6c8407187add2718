/* SPDX-License-Identifier: MIT */
/* Choosing the backend, making vCPUs, and the registers that stay loaded across exits. */
#include "arch/x86/cpu/apic.h"
#include "arch/x86/cpu/features.h"
#include "arch/x86/cpu/pcpu.h"
#include "arch/x86/cpu/time.h"
#include "arch/x86/cpu/traps.h"
#include "arch/x86/hvm/exit.h"
#include "lib/errno.h"
#include "lib/port.h"
#include "lib/print.h"
#include "lib/string.h"
#include "mm/heap.h"

#define CPUID_7_EBX_INVPCID (1u << 10)
#define CPUID_7_ECX_RDPID   (1u << 22)
#define CPUID_X1_EDX_RDTSCP (1u << 27)

#define XSAVE_MXCSR 24
#define MXCSR_RESET 0x1f80u
#define MTRR_DEF_WB 0xc06ull         /* on, fixed ranges on, write-back, as firmware leaves them */
#define MTRR_A0000  (MTRR_FIXED + 2) /* the one for the video memory, which is uncached */
#define MTRR_ALL_WB 0x0606060606060606ull

static void host_cpuid(u32 leaf, u32 sub, u32 regs[4])
{
	u32 max = leaf >> 31 ? cpu_features.max_ext_leaf : cpu_features.max_leaf;
	struct cpuid_regs r = {0, 0, 0, 0};

	if (leaf <= max)
		r = cpuid(leaf, sub);
	if (leaf == 7 && sub == 0) {
		r.b &= ~(hvm_host.no_invpcid ? CPUID_7_EBX_INVPCID : 0);
		r.c &= ~(hvm_host.no_rdtscp ? CPUID_7_ECX_RDPID : 0);
	} else if (leaf == 0x80000001) {
		r.d &= ~(hvm_host.no_rdtscp ? CPUID_X1_EDX_RDTSCP : 0);
	}
	memcpy(regs, &r, sizeof(r));
}

static void xmm(unsigned n, void *val, bool write)
{
	u8 area[512] ALIGNED(16);
	u8 *reg = area + 160 + 16 * n;

	__asm__ volatile("fxsave64 %0" : "=m"(area));
	if (!write) {
		memcpy(val, reg, 16);
		return;
	}
	memcpy(reg, val, 16);
	__asm__ volatile("fxrstor64 %0" ::"m"(area));
}

static void dr_save(struct vcpu *v)
{
	u64 *d = v->dr;

	__asm__ volatile("mov %%dr0, %0; mov %%dr1, %1; mov %%dr2, %2; mov %%dr3, %3"
			 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]));
}

static void dr_load(const struct vcpu *v)
{
	const u64 *d = v->dr;

	__asm__ volatile("mov %0, %%dr0; mov %1, %%dr1; mov %2, %%dr2; mov %3, %%dr3" ::"r"(d[0]), "r"(d[1]), "r"(d[2]),
			 "r"(d[3]));
}

static void guest_dr(struct vcpu *v, unsigned n, u64 *val, bool write)
{
	bool loaded = this_pcpu()->loaded == v;

	if (loaded)
		dr_save(v);
	if (write)
		v->dr[n] = *val;
	else
		*val = v->dr[n];
	if (loaded)
		dr_load(v);
}

/* The vendor's backend, or NULL with the reason on the console. */
static const struct hvm_ops *choose_backend(void)
{
	if (cpu_has(FEAT_VMX))
		return &vmx_ops;
	if (!cpu_has(FEAT_SVM))
		log("hvm: this CPU has no VMX or SVM, or firmware or an outer hypervisor hides it: enable it there\n");
	else if (!cpu_has(FEAT_NPT))
		log("hvm: this CPU has SVM without nested paging, and this version has no shadow pager\n");
	else
		return &svm_ops;
	return NULL;
}

int hvm_init(void)
{
	const struct hvm_ops *ops = choose_backend();

	hvm_host = (struct hvm_host){.cpuid = host_cpuid,
				     .xsetbv = xsetbv,
				     .xmm = xmm,
				     .dr = guest_dr,
				     .machine_check = machine_check_report,
				     .max_order = cpu_has(FEAT_GB_PAGES) ? ORDER_1G : ORDER_2M};
	int err = ops ? ops->cpu_on() : -ENODEV;

	if (err)
		return err;
	hvm = ops;
	panic_vcpu_hook = vcpu_dump;
	return 0;
}

int hvm_cpu_on(void) { return hvm ? hvm->cpu_on() : -ENODEV; }

/* --- vCPUs. */

/* The guest's TSC is 0 at the vm's start, by its own pCPU's counter. */
static u64 tsc_offset(const struct vcpu *v)
{
	u64 here = time_ns_to_tsc(v->vm->clock.start_ns) + this_pcpu()->tsc_offset;

	return pcpus[v->pcpu].tsc_offset - here;
}

int vcpu_create(struct vm *vm, unsigned index, unsigned pcpu, u32 weight, struct vcpu **out)
{
	struct vcpu *v = heap_alloc(sizeof(*v));
	u32 mxcsr = MXCSR_RESET;

	*out = NULL;
	if (!v)
		return -ENOMEM;
	v->vm = vm;
	v->index = index;
	v->pcpu = pcpu;
	v->xcr0 = 1;
	if (hvm->vcpu_init(v) < 0) {
		heap_free(v, sizeof(*v));
		return -ENOMEM;
	}
	memcpy(v->xsave + XSAVE_MXCSR, &mxcsr, sizeof(mxcsr));
	v->mtrr[MTRR_DEFAULT] = MTRR_DEF_WB;
	for (unsigned i = MTRR_FIXED; i < MTRR_DEFAULT; i++)
		v->mtrr[i] = i == MTRR_A0000 ? 0 : MTRR_ALL_WB;
	sched_ent_init(&v->sched, &pcpus[pcpu].runq, weight);
	hvm->set(v, REG_TSC_OFFSET, tsc_offset(v));
	vcpu_reset(v);
	v->wait_sipi = index != 0;
	*out = v;
	return 0;
}

void vcpu_destroy(struct vcpu *v)
{
	if (!v)
		return;
	/* A wake-up that came late has its pCPU look at it once more. Nothing wakes it any more now, so that ends. */
	if (v->pcpu == port_cpu())
		sched_remove(&v->sched);
	while (atomic_load(&v->sched.state) != SCHED_BLOCKED || atomic_load(&pcpus[v->pcpu].running) == v)
		port_relax();
	hvm->vcpu_free(v);
	heap_free(v, sizeof(*v));
}

void vcpu_notify(struct vcpu *v) { apic_ipi(pcpus[v->pcpu].apic_id, VEC_POSTED); }

/* --- Registers that the hypervisor does not use. */

static void fpu_save(struct vcpu *v)
{
	u64 mask = cpu_features.xcr0_mask;

	if (!mask) {
		__asm__ volatile("fxsave64 (%0)" ::"r"(v->xsave) : "memory");
		return;
	}
	v->xcr0 = xgetbv(0) & mask;
	xsetbv(0, mask);
	__asm__ volatile("xsave64 (%0)" ::"r"(v->xsave), "a"((u32)mask), "d"((u32)(mask >> 32)) : "memory");
}

static void fpu_load(struct vcpu *v)
{
	static const u32 something;
	u64 mask = cpu_features.xcr0_mask;

	/* AMD leaves the last x87 instruction's address and operand in place unless one is pending: another guest's. */
	__asm__ volatile("fnclex; emms; fildl %0" ::"m"(something));
	if (!mask) {
		__asm__ volatile("fxrstor64 (%0)" ::"r"(v->xsave) : "memory");
		return;
	}
	xsetbv(0, mask);
	__asm__ volatile("xrstor64 (%0)" ::"r"(v->xsave), "a"((u32)mask), "d"((u32)(mask >> 32)) : "memory");
	xsetbv(0, v->xcr0);
}

void vcpu_load(struct pcpu *p, struct vcpu *v)
{
	struct vcpu *old = p->loaded;

	if (old) {
		fpu_save(old);
		dr_save(old);
		if (cpu_has(FEAT_RDTSCP))
			old->tsc_aux = rdmsr(MSR_TSC_AUX);
	}
	fpu_load(v);
	dr_load(v);
	if (cpu_has(FEAT_RDTSCP))
		wrmsr(MSR_TSC_AUX, v->tsc_aux);
	p->loaded = v;
}
