/* SPDX-License-Identifier: MIT */
/* Turning VMX on, setting up a vCPU's VMCS, and loading what is not in it. */
#include "arch/x86/cpu/apic.h"
#include "arch/x86/cpu/features.h"
#include "arch/x86/cpu/pcpu.h"
#include "arch/x86/cpu/time.h"
#include "arch/x86/hvm/vmx_impl.h"
#include "lib/errno.h"
#include "lib/port.h"
#include "lib/print.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/heap.h"
#include "mm/hostmap.h"

#define MSR_FEATURE_CONTROL 0x3au
#define MSR_ARCH_CAPS       0x10au
#define PSCHANGE_MC_NO      BIT(6)
enum { FEATURE_LOCKED = 1, FEATURE_VMX = 4 };

#define IDENTITY_4M   0xe7u  /* present, writable, user, accessed, dirty, 4 MB */
#define EPTP_WB_4     0x1eul /* tables in write-back memory, four levels */
#define EPTP_AD       BIT(6)
#define TIMER_MS      10u
#define NO_LINK       (~0ul)
#define SEL_HOST_CODE 0x08u
#define SEL_HOST_DATA 0x10u
#define SEL_HOST_TSS  0x18u

/* What the guest may change in CR0 without an exit. CD and NW are the machine's own: guests have no say in them. */
#define CR0_GUEST (CR0_MP | CR0_EM | CR0_TS | CR0_WP | CR0_AM)

static const u32 switched[SWITCHED_MSRS] = {MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SFMASK, MSR_KERNEL_GS_BASE};

/* All guests' alike; written once at boot. */
struct vmx_caps vmx_caps;
static u8 *io_map, *msr_map;
static u64 host_efer, host_pat;

/* --- Turning it on. */

static void msr_map_open(u32 msr, bool writes)
{
	unsigned at = (msr >= 0xc0000000 ? 0x400 : 0) + (msr & 0x1fff) / 8;

	msr_map[at] &= (u8) ~(1u << msr % 8);
	if (writes)
		msr_map[0x800 + at] &= (u8) ~(1u << msr % 8);
}

static int maps_init(void)
{
	static const u32 open[] = {MSR_FS_BASE, MSR_GS_BASE, 0x174 /* SYSENTER */, 0x175, 0x176};

	io_map = heap_alloc(2 * PAGE_SIZE);
	msr_map = heap_alloc(PAGE_SIZE);
	if (!io_map || !msr_map)
		return -ENOMEM;
	memset(io_map, 0xff, 2 * PAGE_SIZE);
	memset(msr_map, 0xff, PAGE_SIZE);
	for (unsigned i = 0; i < ARRAY_SIZE(open); i++)
		msr_map_open(open[i], true);
	for (unsigned i = 0; i < ARRAY_SIZE(switched); i++)
		msr_map_open(switched[i], true);
	if (cpu_has(FEAT_RDTSCP))
		msr_map_open(MSR_TSC_AUX, true);
	msr_map_open(MSR_TSC, false);
	return 0;
}

/* What the CPU can do: told once, by the boot processor. */
static int probe(void)
{
	u64 msr[VMX_CAPS] = {0};
	char text[200];

	for (unsigned i = 0; i < VMX_CAPS; i++) {
		bool secondary = msr[CAP_PROC] >> 32 & PROC_SECONDARY, exact = msr[CAP_BASIC] & BIT(55);
		bool ept = msr[CAP_PROC2] >> 32 & (PROC2_EPT | PROC2_VPID);

		if ((i == CAP_PROC2 && !secondary) || (i == CAP_EPT_VPID && !ept) || (i >= CAP_TRUE_PIN && !exact))
			continue;
		msr[i] = rdmsr(MSR_VMX_CAPS + i);
	}

	const char *missing = vmx_plan(msr, &vmx_caps);

	vmx_describe(&vmx_caps, text, sizeof(text));
	log("hvm: VMX: %s\n", text);
	if (missing) {
		log("hvm: this CPU has VMX, but lacks %s; if a hypervisor is below Cleave, enable it there\n", missing);
		return -ENODEV;
	}
	hvm_host.max_order = vmx_caps.max_order;
	hvm_host.cr4_refused = ~vmx_caps.cr4_may;
	hvm_host.no_ad = !vmx_caps.ept_ad;
	hvm_host.exec_small = !(cpu_has(FEAT_ARCH_CAPS) && (rdmsr(MSR_ARCH_CAPS) & PSCHANGE_MC_NO));
	if (hvm_host.exec_small)
		log("hvm: code of guests is in pages of 4 KB: this CPU may stop where larger ones change (iTLB multihit)\n");
	hvm_host.no_rdtscp = !(vmx_caps.proc2 & PROC2_RDTSCP);
	hvm_host.no_invpcid = !(vmx_caps.proc2 & PROC2_INVPCID);
	host_efer = rdmsr(MSR_EFER);
	host_pat = rdmsr(MSR_PAT);
	return maps_init();
}

static int unlock(void)
{
	u64 control = rdmsr(MSR_FEATURE_CONTROL);

	if (!(control & FEATURE_LOCKED))
		wrmsr(MSR_FEATURE_CONTROL, control | FEATURE_LOCKED | FEATURE_VMX);
	if (rdmsr(MSR_FEATURE_CONTROL) & FEATURE_VMX)
		return 0;
	log("hvm: VMX is switched off and locked by the firmware: enable VT-x in the firmware's set-up\n");
	return -ENODEV;
}

int vmx_cpu_on(void)
{
	u8 *region;
	int err = unlock();

	if (!err && !msr_map)
		err = probe();
	if (err)
		return err;
	region = heap_alloc(PAGE_SIZE);
	if (!region)
		return -ENOMEM;
	memcpy(region, &vmx_caps.revision, sizeof(vmx_caps.revision));
	write_cr4(read_cr4() | CR4_VMXE);
	if (vmxon(port_phys(region)))
		return 0;
	log("hvm: VMX is in use already: switch off what runs below Cleave\n");
	return -ENODEV;
}

/* --- vCPUs. */

/* What the host and all guests alike have in the VMCS; the rest is vcpu_reset's. */
static void put_constants(struct vmx *s)
{
	const struct {
		u16 field;
		u64 val;
	} constants[] = {
		{F_PIN, vmx_caps.pin},
		{F_PROC, vmx_caps.proc},
		{F_PROC2, vmx_caps.proc2},
		{F_EXIT, vmx_caps.exit},
		{F_ENTRY, vmx_caps.entry},
		{F_EXCEPTIONS, BIT(VEC_DB) | BIT(VEC_AC) | BIT(VEC_MC)},
		{F_CR0_MASK, ~(u64)CR0_GUEST},
		{F_POSTED_VECTOR, VEC_POSTED},
		{F_IO_A, port_phys(io_map)},
		{F_IO_B, port_phys(io_map) + PAGE_SIZE},
		{F_MSR_MAP, port_phys(msr_map)},
		{F_LINK, NO_LINK},
		{F_EXIT_LIST, port_phys(s->host_list)},
		{F_ENTRY_LIST, port_phys(s->guest_list)},
		{F_EXIT_COUNT, s->listed},
		{F_ENTRY_COUNT, s->listed},
		{F_HOST_CS, SEL_HOST_CODE},
		{F_HOST_SS, SEL_HOST_DATA},
		{F_HOST_DS, SEL_HOST_DATA},
		{F_HOST_ES, SEL_HOST_DATA},
		{F_HOST_TR, SEL_HOST_TSS},
		{F_HOST_PAT, host_pat},
		{F_HOST_EFER, host_efer},
		{F_HOST_RSP, (u64)&s->frame[1]},
		{F_HOST_RIP, (u64)vmx_exit},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(constants); i++)
		put(s, constants[i].field, constants[i].val);
}

/* Fields that this CPU's VMCS does not have, and what is loaded from a list instead. */
static void note_absent(struct vmx *s)
{
	const struct {
		bool there;
		u16 field, host_field;
		u32 msr; /* 0: none */
		u64 host;
	} optional[] = {
		{vmx_caps.entry & ENTRY_LOAD_EFER, F_EFER, F_HOST_EFER, MSR_EFER, host_efer},
		{vmx_caps.entry & ENTRY_LOAD_PAT, F_PAT, F_HOST_PAT, MSR_PAT, host_pat},
		{vmx_caps.pin & PIN_TIMER, F_TIMER, F_TIMER, 0, 0},
		{vmx_caps.proc2 & PROC2_VPID, F_VPID, F_VPID, 0, 0},
		{vmx_caps.proc & PROC_TPR_SHADOW, F_TPR_THRESHOLD, F_VIRTUAL_APIC, 0, 0},
		{vmx_caps.proc2 & PROC2_APIC_ACCESS, F_APIC_ACCESS, F_APIC_ACCESS, 0, 0},
		{vmx_caps.proc2 & PROC2_DELIVER, F_INTR_STATUS, F_INTR_STATUS, 0, 0},
		{vmx_caps.pin & PIN_POSTED, F_POSTED, F_POSTED_VECTOR, 0, 0},
		{vmx_caps.proc2 & PROC2_DELIVER, F_EOI_EXIT0, F_EOI_EXIT1, 0, 0},
		{vmx_caps.proc2 & PROC2_DELIVER, F_EOI_EXIT2, F_EOI_EXIT3, 0, 0},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(optional); i++) {
		if (optional[i].there)
			continue;
		bitmap_set(s->absent, optional[i].field);
		bitmap_set(s->absent, optional[i].host_field);
		if (optional[i].msr) {
			s->guest_list[s->listed].msr = optional[i].msr;
			s->host_list[s->listed++] = (struct msr_entry){optional[i].msr, 0, optional[i].host};
		}
	}
}

/* A page of the vm's own, where its map has nothing. The vm's vCPUs share it. */
static int add_page(struct vm *vm, gpa_t gpa, enum p2m_type type, hpa_t *at)
{
	mfn_t mfn;
	int err = frames_alloc(0, vm->p2m.owner, FRAMES_ZERO, &mfn);

	if (err)
		return err;
	*at = mfn_to_hpa(mfn);
	err = p2m_set(&vm->p2m, gpa_to_gfn(gpa), mfn, 0, type);
	if (err)
		(void)!frames_free(mfn, 0, vm->p2m.owner);
	return err;
}

/* Maps all of the first 4 GB to itself. */
static void fill_identity_map(u32 *table)
{
	for (u32 i = 0; i < PAGE_SIZE / sizeof(*table); i++)
		table[i] = i << 22 | IDENTITY_4M;
}

static int add_pages(struct vm *vm)
{
	hpa_t at;
	int err = 0;

	if (!vmx_any_mode())
		err = add_page(vm, IDENTITY_GPA, P2M_RO, &at);
	if (!err && !vmx_any_mode())
		fill_identity_map(port_virt(at));
	if (!err && (vmx_caps.proc2 & PROC2_APIC_ACCESS))
		err = add_page(vm, LAPIC_DEFAULT_BASE, P2M_APIC, &at);
	return err;
}

int vmx_vcpu_init(struct vcpu *v)
{
	struct vmx *s = heap_alloc(sizeof(*s));

	if (!s)
		return -ENOMEM;
	if (v->index == 0 && add_pages(v->vm)) {
		heap_free(s, sizeof(*s));
		return -ENOMEM;
	}
	v->arch = s;
	s->fresh = true;
	s->valid[0] = s->valid[1] = ~0ul;
	memcpy(s->vmcs, &vmx_caps.revision, sizeof(vmx_caps.revision));
	note_absent(s);
	put_constants(s);
	put(s, F_CR4_MASK, ~(CR4_VALID & vmx_caps.cr4_may) | CR4_MCE | (vmx_any_mode() ? 0 : CR4_PAGING));
	put(s, F_EPTP, mfn_to_hpa(v->vm->p2m.pt.root) | EPTP_WB_4 | (vmx_caps.ept_ad ? EPTP_AD : 0));
	put(s, F_VPID, 1 + v->vm->id * MAX_VCPUS + v->index);
	put(s, F_VIRTUAL_APIC, port_phys(v->lapic.page));
	put(s, F_POSTED, port_phys(&v->lapic.posted));
	put(s, F_APIC_ACCESS, mfn_to_hpa(p2m_get(&v->vm->p2m, gpa_to_gfn(LAPIC_DEFAULT_BASE)).mfn));
	put(s, F_TIMER, ((u64)time_tsc_khz() * TIMER_MS) >> vmx_caps.timer_shift);
	s->dirty[0] = s->dirty[1] = ~0ul;
	s->dirty[FIELDS / 64] &= BITS(FIELDS % 64 - 1, 0);
	return 0;
}

void vmx_vcpu_free(struct vcpu *v) { heap_free(v->arch, sizeof(struct vmx)); }

/* Once, on the pCPU where it is to run. */
static void first_load(struct vmx *s, struct pcpu *p)
{
	vmx_clear(s);
	put(s, F_HOST_CR0, read_cr0());
	put(s, F_HOST_CR3, hostmap_root());
	put(s, F_HOST_CR4, read_cr4());
	put(s, F_HOST_GS_BASE, (u64)p);
	put(s, F_HOST_TR_BASE, (u64)&p->tss);
	put(s, F_HOST_GDTR_BASE, (u64)p->gdt);
	put(s, F_HOST_IDTR_BASE, idt_base());
}

void vmx_load(struct pcpu *p, struct vcpu *v)
{
	struct vmx *s = vmx_of(v), *old = p->loaded ? vmx_of(p->loaded) : NULL;

	if (old) {
		old->cr2 = read_cr2();
		old->dr6 = read_dr6();
	}
	for (unsigned i = 0; i < ARRAY_SIZE(switched); i++) {
		if (old)
			old->msr[i] = rdmsr(switched[i]);
		wrmsr(switched[i], s->msr[i]);
	}
	write_cr2(s->cr2);
	write_dr6(s->dr6);
	if (s->fresh)
		first_load(s, p);
	if (s->fresh && (vmx_caps.proc2 & PROC2_DELIVER))
		lapic_let_deliver(&v->lapic);
	vcpu_load(p, v);
}
