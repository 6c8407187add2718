/* SPDX-License-Identifier: MIT */
/*
 * The VMX backend (Intel SDM vol. 3, chapters 24 to 29). It translates between struct vcpu and the VMCS, and holds no
 * policy.
 *
 *     get, set ---> struct vmx: f[], a copy of each field --- dirty: VMWRITE before the entry --->  VMCS
 *                                                         <-- not valid: VMREAD when wanted ------
 *
 * So a field costs what its use costs: nothing is read that nobody asks for, nothing is written that has not changed.
 * It also means that a vCPU can be set up on any pCPU: the VMCS is touched by the one that runs it, alone.
 *
 * Interrupts: an external one ends the guest whatever the guest's IF is, stays pending, and is taken through our IDT
 * once interrupts are on again. The preemption timer bounds a stay in the guest where that fails.
 *
 * Registers: CR2, DR6, and the MSRs of SYSCALL are not in the VMCS. We do not use them, so they stay loaded with the
 * vCPU's values until another vCPU comes.
 *
 * Without "unrestricted guest" the hardware runs no real mode and nothing without paging. Real mode is EXIT_SOFT, and
 * so is what the checks at entry would refuse. Unpaged protected mode runs on an identity map in a page of guest memory
 * that no RAM is at, behind the guest's back: CR0, CR3 and CR4 are then ours, and what the guest sees are shadows.
 */
#include "arch/x86/hvm/vmx.h"

#include "arch/x86/cpu/features.h"
#include "arch/x86/cpu/pcpu.h"
#include "arch/x86/cpu/time.h"
#include "arch/x86/hvm/exit.h"
#include "lib/assert.h"
#include "lib/errno.h"
#include "lib/port.h"
#include "lib/print.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/heap.h"
#include "mm/hostmap.h"

#define MSR_FEATURE_CONTROL 0x3au
enum { FEATURE_LOCKED = 1, FEATURE_VMX = 4 };

#define IDENTITY_GPA  0xfedff000ul /* below the local APIC, where the guest's map has nothing */
#define IDENTITY_4M   0xe7u        /* present, writable, user, accessed, dirty, 4 MB */
#define EPTP_WB_4     0x1eul       /* tables in write-back memory, four levels */
#define EPTP_AD       BIT(6)
#define TIMER_MS      10u
#define NO_LINK       (~0ul)
#define SEL_HOST_CODE 0x08u
#define SEL_HOST_DATA 0x10u
#define SEL_HOST_TSS  0x18u

/* What the guest may change in CR0 without an exit. CD and NW are the machine's own: guests have no say in them. */
#define CR0_GUEST (CR0_MP | CR0_EM | CR0_TS | CR0_WP | CR0_AM)
/* Bits of CR4 that mean something to an identity map. */
#define CR4_PAGING (CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP | CR4_SMAP | CR4_PCIDE)

static const u32 switched[] = {MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SFMASK, MSR_KERNEL_GS_BASE};

struct msr_entry {
	u32 msr, reserved;
	u64 value;
};

struct vmx {
	u8 vmcs[PAGE_SIZE];
	u64 f[FIELDS];
	u64 valid[2], dirty[2]; /* of f: as in the VMCS, or newer; newer */
	u64 absent[2];          /* not in this CPU's VMCS */
	struct msr_entry guest_list[2] ALIGNED(16),
		host_list[2]; /* loaded at entry and exit where the VMCS has no field */
	unsigned listed;
	u64 frame[2];                            /* see vmx_entry.S */
	u64 cr2, dr6, msr[ARRAY_SIZE(switched)]; /* while not loaded */
	u64 cr3;                                 /* the guest's, while it runs on the identity map */
	u64 efer;                                /* the guest's */
	bool launched, fresh;                    /* fresh: has never run */
	bool stale;                              /* its translations are to be forgotten */
	bool check;                              /* its state was set by software since it was last entered */
	bool nmi_blocked;                        /* as the hardware has it */
	u64 reads, writes;                       /* VMREADs and VMWRITEs, for the report */
	char why[128];                           /* why an entry failed */
};
_Static_assert(FIELDS <= 128, "two words");

/* Each is its pCPU's own. */
static struct vmx_cpu {
	u8 *vmxon;
	struct vmx *current; /* whose VMCS is */
} cpus[MAX_PCPUS];

/* All guests' alike; written once at boot. */
static struct vmx_caps caps;
static u8 *io_map, *msr_map;
static u64 host_efer, host_pat;

extern const char vmx_exit[];
/* Enters the guest with regs, but RSP, RIP and RFLAGS; false at its exit, true if there was no entry. Interrupts off.
 */
bool vmx_enter(struct gregs *regs, u64 *frame, bool launched);

static struct vmx *vmx_of(const struct vcpu *v) { return v->arch; }

/* --- Instructions. Those that can fail return whether they did not. */

#define VMX_ON_ADDRESS(name)                                                           \
	static bool name(hpa_t pa)                                                     \
	{                                                                              \
		bool failed;                                                           \
		__asm__ volatile(#name " %1" : "=@ccbe"(failed) : "m"(pa) : "memory"); \
		return !failed;                                                        \
	}
/* clang-format off */
VMX_ON_ADDRESS(vmxon)
VMX_ON_ADDRESS(vmclear)
VMX_ON_ADDRESS(vmptrld)
/* clang-format on */

static u64 vmread(u64 encoding)
{
	u64 val;

	__asm__ volatile("vmread %1, %0" : "=r"(val) : "r"(encoding));
	return val;
}

static bool vmwrite(u64 encoding, u64 val)
{
	bool failed;

	__asm__ volatile("vmwrite %2, %1" : "=@ccbe"(failed) : "r"(encoding), "rm"(val));
	return !failed;
}

static void invept(u64 eptp)
{
	u64 what[2] = {eptp, 0}, kind = caps.ept_single ? 1 : 2;

	__asm__ volatile("invept %0, %1" ::"m"(what), "r"(kind) : "memory");
}

static void invvpid(u64 vpid)
{
	u64 what[2] = {vpid, 0}, kind = caps.vpid_single ? 1 : 2;

	__asm__ volatile("invvpid %0, %1" ::"m"(what), "r"(kind) : "memory");
}

/* --- Fields. */

#define SEGMENTS_8(at, first)                                                                         \
	[at] = (first), [(at) + 1] = (first) + 2, [(at) + 2] = (first) + 4, [(at) + 3] = (first) + 6, \
	[(at) + 4] = (first) + 8, [(at) + 5] = (first) + 10, [(at) + 6] = (first) + 12, [(at) + 7] = (first) + 14
#define SEGMENTS_10(at, first)     SEGMENTS_8(at, first), [(at) + 8] = (first) + 16, [(at) + 9] = (first) + 18
#define ENCODING(name, code, text) [F_##name] = (code),
static const u16 encodings[FIELDS] = {SEGMENTS_8(F_SEL, 0x800), SEGMENTS_8(F_AR, 0x4814), SEGMENTS_10(F_LIMIT, 0x4800),
				      SEGMENTS_10(F_BASE, 0x6806), VMCS_FIELDS(ENCODING)};

static void make_current(struct vmx *s)
{
	struct vmx_cpu *c = &cpus[port_cpu()];

	if (c->current == s)
		return;
	if (!vmptrld(port_phys(s->vmcs)))
		panic("vmx: VMPTRLD of %lx fails", port_phys(s->vmcs));
	c->current = s;
}

/* Of a field that is only read. */
static u64 peek(struct vmx *s, u64 encoding)
{
	make_current(s);
	s->reads++;
	return vmread(encoding);
}

static u64 get(struct vmx *s, unsigned field)
{
	if (!bitmap_test(s->valid, field)) {
		s->f[field] = peek(s, encodings[field]);
		bitmap_set(s->valid, field);
	}
	return s->f[field];
}

static void put(struct vmx *s, unsigned field, u64 val)
{
	if (bitmap_test(s->valid, field) && s->f[field] == val)
		return;
	s->f[field] = val;
	bitmap_set(s->valid, field);
	bitmap_set(s->dirty, field);
}

static void put_bits(struct vmx *s, unsigned field, u64 bits, bool on)
{
	u64 old = get(s, field);

	put(s, field, on ? old | bits : old & ~bits);
}

/* False with the reason in s->why if the CPU refuses one. */
static bool write_dirty(struct vmx *s)
{
	for (unsigned w = 0; w < 2; w++) {
		for (u64 left = s->dirty[w] & ~s->absent[w]; left; left &= left - 1) {
			unsigned field = w * 64 + bit_low(left);
			char name[40];

			s->writes++;
			if (vmwrite(encodings[field], s->f[field]))
				continue;
			vmx_field_name(field, name, sizeof(name));
			format(s->why, sizeof(s->why), "%s = %lx is refused: %s", name, s->f[field],
			       vmx_error_text(vmread(RO_ERROR)));
			return false;
		}
		s->dirty[w] = 0;
	}
	return true;
}

/* After an exit: what the guest may have changed. */
static void forget(struct vmx *s)
{
	_Static_assert(F_VOLATILE < 64, "all in the first word");
	s->valid[0] &= ~BITS(F_VOLATILE - 1, 0);
}

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

	const char *missing = vmx_plan(msr, &caps);

	vmx_describe(&caps, text, sizeof(text));
	log("hvm: VMX: %s\n", text);
	if (missing) {
		log("hvm: this CPU has VMX, but lacks %s\n", missing);
		return -ENODEV;
	}
	hvm_host.max_order = caps.max_order;
	hvm_host.cr4_refused = ~caps.cr4_may;
	hvm_host.no_ad = !caps.ept_ad;
	hvm_host.no_rdtscp = !(caps.proc2 & PROC2_RDTSCP);
	hvm_host.no_invpcid = !(caps.proc2 & PROC2_INVPCID);
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

static int vmx_cpu_on(void)
{
	struct vmx_cpu *c = &cpus[port_cpu()];
	int err = unlock();

	if (!err && !msr_map)
		err = probe();
	if (err)
		return err;
	if (read_cr4() & CR4_VMXE)
		goto in_use;
	c->vmxon = heap_alloc(PAGE_SIZE);
	if (!c->vmxon)
		return -ENOMEM;
	memcpy(c->vmxon, &caps.revision, sizeof(caps.revision));
	write_cr4(read_cr4() | CR4_VMXE);
	if (vmxon(port_phys(c->vmxon)))
		return 0;
in_use:
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
		{F_PIN, caps.pin},
		{F_PROC, caps.proc},
		{F_PROC2, caps.proc2},
		{F_EXIT, caps.exit},
		{F_ENTRY, caps.entry},
		{F_EXCEPTIONS, BIT(VEC_DB) | BIT(VEC_AC) | BIT(VEC_MC)},
		{F_CR0_MASK, ~(u64)CR0_GUEST},
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
		{caps.entry & ENTRY_LOAD_EFER, F_EFER, F_HOST_EFER, MSR_EFER, host_efer},
		{caps.entry & ENTRY_LOAD_PAT, F_PAT, F_HOST_PAT, MSR_PAT, host_pat},
		{caps.pin & PIN_TIMER, F_TIMER, F_TIMER, 0, 0},
		{caps.proc2 & PROC2_VPID, F_VPID, F_VPID, 0, 0},
		{caps.proc & PROC_TPR_SHADOW, F_TPR_THRESHOLD, F_VIRTUAL_APIC, 0, 0},
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

/* Maps all of the first 4 GB to itself. The vm's vCPUs share it. */
static int make_identity_map(struct vm *vm)
{
	mfn_t mfn;
	int err = frames_alloc(0, vm->p2m.owner, 0, &mfn);
	u32 *table;

	if (err)
		return err;
	table = port_virt(mfn_to_hpa(mfn));
	for (u32 i = 0; i < PAGE_SIZE / sizeof(*table); i++)
		table[i] = i << 22 | IDENTITY_4M;
	err = p2m_set(&vm->p2m, gpa_to_gfn(IDENTITY_GPA), mfn, 0, P2M_RO);
	if (err)
		(void)!frames_free(mfn, 0, vm->p2m.owner);
	return err;
}

static int vmx_vcpu_init(struct vcpu *v)
{
	struct vmx *s = heap_alloc(sizeof(*s));

	if (!s)
		return -ENOMEM;
	if (!(caps.proc2 & PROC2_ANY_MODE) && v->index == 0 && make_identity_map(v->vm)) {
		heap_free(s, sizeof(*s));
		return -ENOMEM;
	}
	v->arch = s;
	s->fresh = true;
	s->valid[0] = s->valid[1] = ~0ul;
	memcpy(s->vmcs, &caps.revision, sizeof(caps.revision));
	note_absent(s);
	put_constants(s);
	put(s, F_CR4_MASK, ~(CR4_VALID & caps.cr4_may) | CR4_MCE | (caps.proc2 & PROC2_ANY_MODE ? 0 : CR4_PAGING));
	put(s, F_EPTP, mfn_to_hpa(v->vm->p2m.pt.root) | EPTP_WB_4 | (caps.ept_ad ? EPTP_AD : 0));
	put(s, F_VPID, 1 + v->vm->id * MAX_VCPUS + v->index);
	put(s, F_VIRTUAL_APIC, port_phys(v->lapic.page));
	put(s, F_TIMER, ((u64)time_tsc_khz() * TIMER_MS) >> caps.timer_shift);
	s->dirty[0] = s->dirty[1] = ~0ul;
	s->dirty[FIELDS / 64] &= BITS(FIELDS % 64 - 1, 0);
	return 0;
}

static void vmx_vcpu_free(struct vcpu *v) { heap_free(v->arch, sizeof(struct vmx)); }

/* The CPU may write to a VMCS until it is cleared: before its memory is somebody else's. */
static void vmx_vcpu_leave(struct vcpu *v)
{
	struct vmx_cpu *c = &cpus[port_cpu()];

	vmclear(port_phys(vmx_of(v)->vmcs));
	if (c->current == vmx_of(v))
		c->current = NULL;
}

/* Once, on the pCPU where it is to run. */
static void first_load(struct vmx *s, struct pcpu *p)
{
	struct PACKED {
		u16 limit;
		u64 base;
	} idtr;

	__asm__ volatile("sidt %0" : "=m"(idtr));
	vmclear(port_phys(s->vmcs));
	put(s, F_HOST_CR0, read_cr0());
	put(s, F_HOST_CR3, hostmap_root());
	put(s, F_HOST_CR4, read_cr4());
	put(s, F_HOST_GS_BASE, (u64)p);
	put(s, F_HOST_TR_BASE, (u64)&p->tss);
	put(s, F_HOST_GDTR_BASE, (u64)p->gdt);
	put(s, F_HOST_IDTR_BASE, idtr.base);
}

static void load(struct pcpu *p, struct vcpu *v)
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
	vcpu_load(p, v);
}

/* --- Guest state. */

static bool is_loaded(const struct vcpu *v) { return this_pcpu()->loaded == v; }

/* What the guest sees of CR0 or CR4. */
static u64 seen(struct vmx *s, unsigned field, unsigned mask, unsigned shadow)
{
	return (get(s, field) & ~s->f[mask]) | (s->f[shadow] & s->f[mask]);
}

static bool on_identity_map(const struct vmx *s)
{
	return !(caps.proc2 & PROC2_ANY_MODE) && !(s->f[F_CR0_SHADOW] & CR0_PG);
}

/* CR0, CR3 and CR4 as the guest has set them, into the VMCS as they must be there. */
static void put_paging(struct vmx *s, u64 cr0, u64 cr3, u64 cr4)
{
	bool identity;

	put(s, F_CR0_SHADOW, cr0);
	put(s, F_CR4_SHADOW, cr4);
	identity = on_identity_map(s);
	s->cr3 = cr3;
	put(s, F_CR0, (cr0 & ~(u64)(CR0_CD | CR0_NW)) | caps.cr0_must);
	put(s, F_CR3, identity ? IDENTITY_GPA : cr3);
	put(s, F_CR4, (identity ? (cr4 & ~(u64)CR4_PAGING) | CR4_PSE : cr4) | caps.cr4_must | CR4_MCE);
	put_bits(s, F_PROC, PROC_CR3 & ~(u64)caps.proc, identity);
	s->check = true;
}

static u64 vmx_get(struct vcpu *v, enum vreg r)
{
	struct vmx *s = vmx_of(v);

	switch (r) {
	case REG_CR0:
		return seen(s, F_CR0, F_CR0_MASK, F_CR0_SHADOW);
	case REG_CR2:
		return is_loaded(v) ? read_cr2() : s->cr2;
	case REG_CR3:
		return on_identity_map(s) ? s->cr3 : get(s, F_CR3);
	case REG_CR4:
		return seen(s, F_CR4, F_CR4_MASK, F_CR4_SHADOW);
	case REG_EFER:
		return s->efer;
	case REG_DR6:
		return is_loaded(v) ? read_dr6() : s->dr6;
	case REG_DR7:
		return get(s, F_DR7);
	case REG_PAT:
		return s->f[F_PAT];
	case REG_INT_SHADOW:
		return (get(s, F_SHADOW) & (BLOCK_STI | BLOCK_SS)) != 0;
	case REG_TSC_OFFSET:
		return s->f[F_TSC_OFFSET];
	case REG_TSC:
		return rdtsc() + s->f[F_TSC_OFFSET];
	default:
		return get(s, F_PDPTE0 + (unsigned)r - REG_PDPTE);
	}
}

/* A single step that waits for the shadow's end is pending meanwhile: the CPU insists. */
static void put_shadow(struct vcpu *v, bool on)
{
	struct vmx *s = vmx_of(v);
	u64 kind = v->regs.rflags & RFLAGS_IF ? BLOCK_STI : BLOCK_SS; /* with interrupts off, it cannot be STI's */
	u64 old = get(s, F_SHADOW), new = (old & ~(u64)(BLOCK_STI | BLOCK_SS)) | (on ? kind : 0);

	if (new == old)
		return;
	put(s, F_SHADOW, new);
	put(s, F_PENDING, on && (v->regs.rflags & RFLAGS_TF) ? PENDING_BS : 0);
}

static void vmx_set(struct vcpu *v, enum vreg r, u64 val)
{
	struct vmx *s = vmx_of(v);

	switch (r) {
	case REG_CR0:
		put_paging(s, val, vmx_get(v, REG_CR3), vmx_get(v, REG_CR4));
		break;
	case REG_CR2:
		s->cr2 = val;
		if (is_loaded(v))
			write_cr2(val);
		break;
	case REG_CR3:
		put_paging(s, vmx_get(v, REG_CR0), val, vmx_get(v, REG_CR4));
		break;
	case REG_CR4:
		put_paging(s, vmx_get(v, REG_CR0), vmx_get(v, REG_CR3), val);
		break;
	case REG_EFER: /* the CPU is told of long mode only where it is on: LME with our paging would mean it */
		s->efer = val;
		put(s, F_EFER, val & EFER_LMA ? val : val & ~(u64)EFER_LME);
		put_bits(s, F_ENTRY, ENTRY_LONG, val & EFER_LMA);
		break;
	case REG_DR6:
		s->dr6 = val;
		if (is_loaded(v))
			write_dr6(val);
		break;
	case REG_DR7:
		put(s, F_DR7, val);
		break;
	case REG_PAT:
		put(s, F_PAT, val);
		break;
	case REG_INT_SHADOW:
		put_shadow(v, val);
		break;
	case REG_TSC_OFFSET:
		put(s, F_TSC_OFFSET, val);
		break;
	case REG_TSC: /* only read */
		break;
	default:
		put(s, F_PDPTE0 + (unsigned)r - REG_PDPTE, val);
	}
}

static struct segment vmx_get_seg(struct vcpu *v, enum seg seg)
{
	struct vmx *s = vmx_of(v);
	struct segment out = {.base = get(s, F_BASE + seg), .limit = (u32)get(s, F_LIMIT + seg)};

	if (seg < SEGS) {
		u64 ar = get(s, F_AR + seg);

		out.sel = (u16)get(s, F_SEL + seg);
		out.attr = (u16)((ar & 0xff) | (ar >> 4 & 0xf00));
		if (ar & AR_UNUSABLE)
			out.attr &= (u16)~SEG_ATTR_P;
	}
	return out;
}

static void vmx_set_seg(struct vcpu *v, enum seg seg, struct segment val)
{
	struct vmx *s = vmx_of(v);

	put(s, F_BASE + seg, val.base);
	put(s, F_LIMIT + seg, val.limit);
	s->check = true;
	if (seg < SEGS) {
		put(s, F_SEL + seg, val.sel);
		put(s, F_AR + seg,
		    (val.attr & 0xff) | (val.attr & 0xf00) << 4 | (val.attr & SEG_ATTR_P ? 0 : AR_UNUSABLE));
	}
}

static void vmx_flush(struct vcpu *v) { vmx_of(v)->stale = true; }

static void vmx_window(struct vcpu *v, bool intr, bool nmi)
{
	put_bits(vmx_of(v), F_PROC, PROC_INTR_WINDOW, intr);
	put_bits(vmx_of(v), F_PROC, PROC_NMI_WINDOW, nmi);
}

/* --- Entry. */

/*
 * With interrupts off: a flush that begins later finds this pCPU in p2m.pcpus and ends the guest by its interrupt
 * before it is waited for.
 */
static void flush_translations(struct vcpu *v)
{
	struct vmx *s = vmx_of(v);
	u64 gen = atomic_load(&v->vm->p2m.gen);

	if (s->fresh || v->flush_gen != gen) {
		v->flush_gen = gen;
		invept(s->f[F_EPTP]);
	} else if (s->stale && (caps.proc2 & PROC2_VPID)) { /* without VPIDs each entry flushes */
		invvpid(s->f[F_VPID]);
	}
	s->fresh = s->stale = false;
}

static void put_event(struct vcpu *v)
{
	struct vmx *s = vmx_of(v);
	struct vm_event e = v->event;
	bool blocked = v->nmi_blocked && !(e.valid && e.type == EVENT_NMI);

	if (e.valid) {
		put(s, F_EVENT, e.vector | (u64)e.type << 8 | (u64)e.has_error << 11 | EVENT_VALID);
		put(s, F_EVENT_ERROR, e.has_error ? e.error : 0);
	} else {
		put(s, F_EVENT, s->f[F_EVENT] & ~EVENT_VALID);
	}
	if (blocked != s->nmi_blocked)
		put_bits(s, F_SHADOW, BLOCK_NMI, blocked);
}

/*
 * TPR: the guest's CR8 is in the local APIC's page. It exits when it falls below the threshold, the class of the
 * interrupt that waits for that.
 */
static void before_entry(struct vcpu *v)
{
	struct vmx *s = vmx_of(v);
	u64 class = v->lapic.rvi >> 4;

	put(s, F_RSP, v->regs.r[R_SP]);
	put(s, F_RIP, v->regs.rip);
	put(s, F_RFLAGS, v->regs.rflags);
	put(s, F_TPR_THRESHOLD, class <= lapic_get_cr8(&v->lapic) ? class : 0);
	put_event(v);
	for (unsigned i = 0; i < s->listed; i++)
		s->guest_list[i].value = s->f[s->guest_list[i].msr == MSR_EFER ? F_EFER : F_PAT];
}

static void read_all(struct vmx *s)
{
	for (unsigned i = 0; i < F_VOLATILE; i++)
		get(s, i);
}

/* Whether the hardware can run the state that software has made. */
static bool enterable(struct vcpu *v)
{
	struct vmx *s = vmx_of(v);

	if ((caps.proc2 & PROC2_ANY_MODE) || !s->check)
		return true;
	if (!(s->f[F_CR0_SHADOW] & CR0_PE))
		return false;
	read_all(s);
	s->check = !vmx_check(&caps, s->f, s->why, sizeof(s->why));
	return !s->check;
}

static void entry_failed(struct vmx *s, u64 reason)
{
	read_all(s);
	if (!vmx_check(&caps, s->f, s->why, sizeof(s->why)))
		return;
	format(s->why, sizeof(s->why), "%s", vmx_failure_text(reason, peek(s, RO_INFO)));
}

/* --- Exit. */

static void exception_exit(struct vcpu *v, struct vm_exit *x)
{
	struct vmx *s = vmx_of(v);
	u64 info = peek(s, RO_EVENT);

	if ((info >> 8 & 7) == EVENT_NMI) {
		__asm__ volatile("int $2"); /* its handler's IRET lets NMIs in again */
		x->kind = EXIT_INTERRUPT;
		return;
	}
	x->vector = (u8)info;
	x->has_error = (info & BIT(11)) && (s->f[F_CR0_SHADOW] & CR0_PE);
	x->error = x->has_error ? (u32)peek(s, RO_EVENT_ERROR) : 0;
	if (x->vector != VEC_DB)
		return;

	/* The CPU has told what happened, but not the guest's registers. */
	u64 dr6 = peek(s, RO_INFO);

	write_dr6((read_dr6() & ~BITS(3, 0)) | (dr6 & (BITS(14, 13) | BITS(3, 0))));
	if (dr6 & BIT(13))
		put_bits(s, F_DR7, BIT(13), false);
	if ((get(s, F_SHADOW) & (BLOCK_STI | BLOCK_SS)) && (v->regs.rflags & RFLAGS_TF))
		put(s, F_PENDING, PENDING_BS);
}

static void npf_exit(struct vmx *s, struct vm_exit *x)
{
	u64 info = x->info1;

	x->gpa = peek(s, RO_GPA);
	x->gva = info & BIT(7) ? peek(s, RO_GVA) : 0;
	x->walk = (info & BIT(7)) && !(info & BIT(8));
	x->access = info & BIT(2) ? P2M_EXEC : info & BIT(1) ? P2M_WRITE : P2M_READ;
}

static void io_exit(struct vm_exit *x)
{
	x->io.port = (u16)(x->info1 >> 16);
	x->io.size = (u8)((x->info1 & 7) + 1);
	x->io.in = x->info1 & BIT(3);
	x->io.string = x->info1 & BIT(4);
}

/* What exits are to the dispatcher, and what of the VMCS it needs for that. */
enum { LENGTH = 0x20, INFO = 0x40, CPL = 0x80, EVENT = 0x100 };
static const u16 reasons[] = {
	[0] = EXIT_EXCEPTION | EVENT,
	[1] = EXIT_INTERRUPT,
	[2] = EXIT_TRIPLE,
	[3] = EXIT_INTERRUPT, /* INIT */
	[7] = EXIT_WINDOW,
	[8] = EXIT_WINDOW,               /* NMI window */
	[9] = EXIT_OTHER | INFO | EVENT, /* task switch */
	[10] = EXIT_CPUID | LENGTH,
	[11] = EXIT_VENDOR_OP, /* GETSEC */
	[12] = EXIT_HLT | LENGTH,
	[13] = EXIT_INVD | LENGTH,
	[15] = EXIT_RDPMC,
	[17] = EXIT_VENDOR_OP, /* RSM */
	[18] = EXIT_HYPERCALL | LENGTH,
	[19 ... 27] = EXIT_VENDOR_OP, /* VMCLEAR to VMXON */
	[28] = EXIT_CR | INFO | CPL,
	[30] = EXIT_IO | LENGTH | INFO | CPL,
	[31] = EXIT_MSR_READ | LENGTH,
	[32] = EXIT_MSR_WRITE | LENGTH,
	[36] = EXIT_VENDOR_OP,
	[39] = EXIT_VENDOR_OP, /* MWAIT, MONITOR */
	[43] = EXIT_WINDOW,    /* TPR below threshold */
	[48] = EXIT_NPF | INFO | CPL | EVENT,
	[49] = EXIT_ERROR | INFO | EVENT, /* EPT violation, misconfiguration */
	[50] = EXIT_VENDOR_OP,
	[52] = EXIT_INTERRUPT,
	[53] = EXIT_VENDOR_OP, /* INVEPT, preemption timer, INVVPID */
	[54] = EXIT_INVD | LENGTH,
	[55] = EXIT_XSETBV | LENGTH | CPL,
	[59] = EXIT_VENDOR_OP, /* WBINVD, VMFUNC */
	[63] = EXIT_VENDOR_OP,
	[64] = EXIT_VENDOR_OP, /* XSAVES, XRSTORS */
};
enum { REASON_MISCONFIG = 49 };

/* Code above 4 GB is 64-bit code. */
static u8 mode_now(struct vcpu *v)
{
	struct vmx *s = vmx_of(v);
	u64 ar;

	if (v->regs.rip >> 32)
		return MODE_64;
	ar = get(s, F_AR + SEG_CS);
	return (u8)mode_of(s->f[F_CR0_SHADOW], v->regs.rflags, s->efer, (u16)(ar >> 4 & 0xf00));
}

static u8 cpl_now(struct vcpu *v)
{
	struct vmx *s = vmx_of(v);

	if (!(s->f[F_CR0_SHADOW] & CR0_PE))
		return 0;
	return v->regs.rflags & RFLAGS_VM ? 3 : SEG_ATTR_DPL(get(s, F_AR + SEG_SS));
}

/*
 * What the exit interrupted is injected again; but INT n, INT3, INTO are run again, for rip is still there. An IRET
 * that faulted has opened NMIs already.
 */
static void take_event(struct vcpu *v, u64 info)
{
	struct vmx *s = vmx_of(v);
	u64 e = peek(s, RO_VECTORING);
	unsigned type = e >> 8 & 7;

	if (!(e & EVENT_VALID)) {
		if (info & EVENT_NMI_UNBLOCKED)
			put_bits(s, F_SHADOW, BLOCK_NMI, true);
		return;
	}
	if (type == EVENT_NMI)
		put_bits(s, F_SHADOW, BLOCK_NMI, false);
	if (type >= EVENT_SOFT)
		return;
	v->event = (struct vm_event){.vector = e & 0xff, .type = type, .valid = true};
	v->event.has_error = (e & BIT(11)) && (s->f[F_CR0_SHADOW] & CR0_PE);
	if (v->event.has_error)
		v->event.error = (u32)peek(s, RO_VECTORING_ERROR);
}

static void fill_exit(struct vcpu *v, u64 reason)
{
	struct vmx *s = vmx_of(v);
	struct vm_exit *x = &v->exit;
	unsigned what = reason < ARRAY_SIZE(reasons) ? reasons[reason] : EXIT_OTHER;

	x->kind = what & (LENGTH - 1);
	x->code = reason;
	x->info1 = what & INFO ? peek(s, RO_INFO) : 0;
	x->insn_len = what & LENGTH ? (u8)peek(s, RO_LENGTH) : 0;
	x->nbytes = 0;
	x->mode = mode_now(v);
	if (what & CPL)
		x->cpl = cpl_now(v);
	if (what & EVENT)
		take_event(v, x->kind == EXIT_NPF ? x->info1 : 0);
	if (x->kind == EXIT_NPF)
		npf_exit(s, x);
	else if (x->kind == EXIT_IO)
		io_exit(x);
	else if (x->kind == EXIT_EXCEPTION)
		exception_exit(v, x);
	else if (reason == REASON_MISCONFIG)
		format(s->why, sizeof(s->why), "EPT misconfiguration at %lx, a bug of Cleave's", peek(s, RO_GPA));
	x->why = s->why;
}

static void after_exit(struct vcpu *v, u64 reason)
{
	struct vmx *s = vmx_of(v);

	forget(s);
	s->launched = true;
	s->check = false;
	s->f[F_EVENT] &= ~EVENT_VALID;
	v->event.valid = false;
	v->regs.r[R_SP] = get(s, F_RSP);
	v->regs.rip = get(s, F_RIP);
	v->regs.rflags = get(s, F_RFLAGS);
	fill_exit(v, reason);
	if (v->nmi_blocked) {
		s->nmi_blocked = get(s, F_SHADOW) & BLOCK_NMI;
		v->nmi_blocked = s->nmi_blocked || (v->event.valid && v->event.type == EVENT_NMI);
	}
}

static void no_entry(struct vcpu *v, u8 kind, u64 code)
{
	struct vm_exit *x = &v->exit;

	*x = (struct vm_exit){.kind = kind, .code = code, .why = vmx_of(v)->why};
	x->mode = mode_now(v);
	x->cpl = cpl_now(v);
}

/* With interrupts off. Returns the exit's reason; the entry has failed if that has REASON_FAILED_ENTRY. */
static u64 enter(struct vcpu *v)
{
	struct vmx *s = vmx_of(v);

	if (vmx_enter(&v->regs, &s->frame[1], s->launched)) {
		u64 error = peek(s, RO_ERROR);

		format(s->why, sizeof(s->why), "%s", vmx_error_text(error));
		return REASON_FAILED_ENTRY | error << 16;
	}

	u64 reason = peek(s, RO_REASON);

	if (reason & REASON_FAILED_ENTRY)
		entry_failed(s, reason);
	return reason;
}

static void vmx_run(struct vcpu *v)
{
	struct pcpu *p = this_pcpu();
	struct vmx *s = vmx_of(v);
	u64 reason;

	if (p->loaded != v)
		load(p, v);
	before_entry(v);
	if (!enterable(v)) {
		no_entry(v, EXIT_SOFT, 0);
		return;
	}
	make_current(s);
	if (!write_dirty(s)) {
		no_entry(v, EXIT_ERROR, 0);
		return;
	}
	cpu_cli();
	if (atomic_load_relaxed(&p->kicked)) {
		cpu_sti();
		v->exit.kind = EXIT_INTERRUPT;
		return;
	}
	flush_translations(v);
	reason = enter(v);
	cpu_sti();
	if (reason & REASON_FAILED_ENTRY) {
		no_entry(v, EXIT_ERROR, reason);
	} else {
		after_exit(v, reason & 0xffff);
	}
}

static void vmx_report(struct vm *vm)
{
	u64 reads = 0, writes = 0;

	for (unsigned i = 0; i < vm->vcpus; i++) {
		reads += vmx_of(vm->vcpu[i])->reads;
		writes += vmx_of(vm->vcpu[i])->writes;
	}
	log("@vmcs guest=%s reads=%lu writes=%lu\n", vm->name, reads, writes);
}

const struct hvm_ops vmx_ops = {
	.paging = "ept",
	.format = &pt_format_ept,
	.cpu_on = vmx_cpu_on,
	.vcpu_init = vmx_vcpu_init,
	.vcpu_free = vmx_vcpu_free,
	.vcpu_leave = vmx_vcpu_leave,
	.run = vmx_run,
	.get = vmx_get,
	.set = vmx_set,
	.get_seg = vmx_get_seg,
	.set_seg = vmx_set_seg,
	.window = vmx_window,
	.flush = vmx_flush,
	.report = vmx_report,
};
