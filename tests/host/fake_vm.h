/* SPDX-License-Identifier: MIT */
/*
 * A guest for tests of the exit dispatcher: real P2M, devices, emulator and dispatcher over a backend that is arrays.
 *
 * Guest-physical: RAM 0-640K, ROM 0xe0000-0xfffff, RAM 1M-8M, a device of 4 KB at FAKE_MMIO that remembers accesses,
 * ports FAKE_PORT.. that do the same. The vCPUs are in 64-bit mode with identity tables of 2 MB pages over the first
 * 4 GB; fake_map changes single pages.
 */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "arch/x86/hvm/exit.h"
#include "lib/errno.h"
#include "lib/port.h"
#include "lib/print.h"
#include "mm/frames.h"
#include "mm/heap.h"
#include "tests/host/host.h"

#define FAKE_VCPUS  2
#define FAKE_MMIO   0xd0000000ul
#define FAKE_PORT   0x540u
#define FAKE_TABLES 0x200000ul /* the guest's page tables */
#define FAKE_CODE   0x100000ul
#define FAKE_RAM    0x300000ul
#define FAKE_TSC    1000000u /* kHz: a tick a ns */

#define PTE_P   BIT(0)
#define PTE_W   BIT(1)
#define PTE_U   BIT(2)
#define PTE_PS  BIT(7)
#define PTE_PWU (PTE_P | PTE_W | PTE_U)

struct fake_vcpu {
	u64 reg[VREGS];
	struct segment seg[SEGS_ALL];
	bool want_intr, want_nmi;
	unsigned flushes, entries;
	struct vm_event injected; /* at the last entry */
};

struct fake_vm {
	struct vm vm;
	struct vcpu *list[FAKE_VCPUS];
	struct vcpu vcpu[FAKE_VCPUS];
	struct fake_vcpu hw[FAKE_VCPUS];
	struct runq runq;
	struct timerq timers;
	u64 next_table;
	struct bus_op op[64]; /* accesses to the device and the ports, oldest first */
	unsigned ops;
	u64 answer; /* what they read as */
	/* What hvm->run does beyond remembering the event; NULL: an exit for an interrupt. */
	void (*on_run)(struct vcpu *v);
};

static inline struct fake_vcpu *fake_hw(struct vcpu *v) { return v->arch; }
static inline struct fake_vm *fake_of(struct vcpu *v) { return container_of(v->vm, struct fake_vm, vm); }

static inline u64 fake_get(struct vcpu *v, enum vreg r)
{
	if (r == REG_TSC)
		return port_now() + fake_hw(v)->reg[REG_TSC_OFFSET];
	return fake_hw(v)->reg[r];
}

static inline void fake_set(struct vcpu *v, enum vreg r, u64 val) { fake_hw(v)->reg[r] = val; }
static inline struct segment fake_get_seg(struct vcpu *v, enum seg s) { return fake_hw(v)->seg[s]; }
static inline void fake_set_seg(struct vcpu *v, enum seg s, struct segment val) { fake_hw(v)->seg[s] = val; }
static inline void fake_flush(struct vcpu *v) { fake_hw(v)->flushes++; }

static inline void fake_window(struct vcpu *v, bool intr, bool nmi)
{
	fake_hw(v)->want_intr = intr;
	fake_hw(v)->want_nmi = nmi;
}

static inline void fake_run(struct vcpu *v)
{
	fake_hw(v)->entries++;
	fake_hw(v)->injected = v->event;
	v->event.valid = false;
	v->exit.kind = EXIT_INTERRUPT;
	if (fake_of(v)->on_run)
		fake_of(v)->on_run(v);
}

static u64 fake_xcr0;
static u8 fake_xmms[16][16];
static inline void fake_xsetbv(u32 n, u64 val) { fake_xcr0 = val; }

static inline void fake_xmm(unsigned n, void *val, bool write)
{
	if (write)
		memcpy(fake_xmms[n], val, 16);
	else
		memcpy(val, fake_xmms[n], 16);
}

static inline void fake_dr(struct vcpu *v, unsigned n, u64 *val, bool write)
{
	memcpy(write ? &v->dr[n] : val, write ? val : &v->dr[n], sizeof(*val));
}

static unsigned fake_machine_checks;
static inline void fake_machine_check(void) { fake_machine_checks++; }

static const struct hvm_ops fake_ops = {.run = fake_run,
					.get = fake_get,
					.set = fake_set,
					.get_seg = fake_get_seg,
					.set_seg = fake_set_seg,
					.window = fake_window,
					.flush = fake_flush};

/* A CPU that has every feature bit, and XSAVE components as Skylake-X has them. */
static inline void fake_cpuid(u32 leaf, u32 sub, u32 r[4])
{
	memset(r, 0xff, 16);
	if (leaf == 0 || leaf == 0x80000000) {
		r[0] = leaf ? 0x80000021 : 0x20;
		memcpy(&r[1], "GenuineIntel", 12);
	} else if (leaf == 0xd && sub >= 2) {
		static const u16 size[] = {0, 0, 256, 64, 64, 64, 512, 1024},
				 at[] = {0, 0, 576, 960, 1024, 1088, 1152, 1664};

		memset(r, 0, 16);
		r[0] = sub < 8 ? size[sub] : 0;
		r[1] = sub < 8 ? at[sub] : 0;
	}
}

static inline void fake_device(void *dev, struct bus_op *op)
{
	struct fake_vm *f = dev;

	if (!op->write)
		op->val = f->answer;
	if (f->ops < 64)
		f->op[f->ops++] = *op;
}

static inline void fake_out(void *ctx, u8 c) {}
static inline void fake_kick(void *ctx, unsigned vcpu) { vcpu_kick(((struct vm *)ctx)->vcpu[vcpu]); }
static inline void fake_power(void *ctx, enum power_event ev, const char *how)
{
	vm_end(ctx, ev == POWER_OFF ? END_POWEROFF : END_RESET, "%s", how);
}

static const struct platform_ops fake_platform = {fake_out, fake_power, fake_kick, NULL};

static inline void fake_poke(struct fake_vm *f, gpa_t gpa, const void *data, size_t n)
{
	if (p2m_write(&f->vm.p2m, gpa, data, n))
		panic("fake_poke %lx", gpa);
}

static inline u64 fake_peek(struct fake_vm *f, gpa_t gpa, size_t n)
{
	u64 v = 0;

	if (p2m_read(&f->vm.p2m, gpa, &v, n))
		panic("fake_peek %lx", gpa);
	return v;
}

/* Makes va's 4 KB page that page-table entry, in the first vCPU's tables, which all use. */
static inline void fake_map(struct fake_vm *f, gva_t va, u64 pte)
{
	gpa_t table = FAKE_TABLES, at;

	for (unsigned shift = 39; shift > 12; shift -= 9) {
		at = table + (va >> shift & 511) * 8;
		u64 e = fake_peek(f, at, 8);

		if (!(e & PTE_P) || (e & PTE_PS)) { /* a table of what the large page was */
			u64 new = f->next_table;

			f->next_table += PAGE_SIZE;
			for (u64 i = 0; i < 512; i++) {
				u64 sub = e & PTE_PS ? (e & ~PTE_PS) + (i << (shift - 9)) : 0;

				fake_poke(f, new + i * 8, &sub, 8);
			}
			e = new | PTE_PWU;
			fake_poke(f, at, &e, 8);
		}
		table = e & PT_ADDR;
	}
	fake_poke(f, table + (va >> 12 & 511) * 8, &pte, 8);
}

static inline void fake_tables(struct fake_vm *f)
{
	u64 e = (FAKE_TABLES + 0x1000) | PTE_PWU;

	fake_poke(f, FAKE_TABLES, &e, 8);
	for (u64 g = 0; g < 4; g++) {
		e = (FAKE_TABLES + 0x2000 + g * 0x1000) | PTE_PWU;
		fake_poke(f, FAKE_TABLES + 0x1000 + g * 8, &e, 8);
		for (u64 i = 0; i < 512; i++) {
			e = (g << 30 | i << 21) | PTE_PWU | PTE_PS;
			fake_poke(f, FAKE_TABLES + 0x2000 + g * 0x1000 + i * 8, &e, 8);
		}
	}
	f->next_table = FAKE_TABLES + 0x6000;
}

/* The mode and privilege that the vCPU's registers mean. */
static inline void fake_mode(struct vcpu *v, struct vm_exit *x)
{
	const struct fake_vcpu *h = fake_hw(v);

	x->mode = (u8)mode_of(h->reg[REG_CR0], v->regs.rflags, h->reg[REG_EFER], h->seg[SEG_CS].attr);
	x->cpl = h->reg[REG_CR0] & CR0_PE ? SEG_ATTR_DPL(h->seg[SEG_SS].attr) : 0;
	if (v->regs.rflags & RFLAGS_VM)
		x->cpl = 3;
}

/* cpl 0 or 3. */
static inline void fake_long_mode(struct vcpu *v, unsigned cpl)
{
	struct fake_vcpu *h = fake_hw(v);

	for (unsigned s = 0; s < SEGS_USER; s++)
		h->seg[s] = (struct segment){0, 0xffffffff, (u16)(0x10 | cpl), (u16)(0xc93 | cpl << 5)};
	h->seg[SEG_CS] = (struct segment){0, 0xffffffff, (u16)(8 | cpl), (u16)(0xa9b | cpl << 5)};
	h->reg[REG_CR0] = CR0_PE | CR0_PG | CR0_ET | CR0_WP;
	h->reg[REG_CR4] = CR4_PAE;
	h->reg[REG_CR3] = FAKE_TABLES;
	h->reg[REG_EFER] = EFER_LME | EFER_LMA | EFER_NX | EFER_SCE;
	v->regs.rip = FAKE_CODE;
	v->regs.rflags = 2;
	fake_mode(v, &v->exit);
	v->regs.r[R_SP] = FAKE_RAM + 0x8000;
}

static inline void fake_feature(unsigned f, bool has)
{
	u32 *reg = &cpu_features.has[f / 32], bit = 1u << f % 32;

	*reg = has ? *reg | bit : *reg & ~bit;
}

static inline struct fake_vm *fake_new(unsigned vcpus)
{
	struct fake_vm *f = aligned_alloc(PAGE_SIZE, sizeof(*f));
	struct p2m *p = &f->vm.p2m;
	struct lapic *lapic[FAKE_VCPUS];
	struct timerq *q[FAKE_VCPUS];
	struct bus_region mmio = {BUS_MMIO, 8, FAKE_MMIO, PAGE_SIZE, fake_device, f};
	struct bus_region port = {BUS_PIO, 4, FAKE_PORT, 16, fake_device, f};

	memset(f, 0, sizeof(*f));
	host_machine(32 * MB);
	host_log_clear();
	hvm = &fake_ops;
	hvm_host = (struct hvm_host){.cpuid = fake_cpuid,
				     .xsetbv = fake_xsetbv,
				     .xmm = fake_xmm,
				     .dr = fake_dr,
				     .machine_check = fake_machine_check};
	cpu_features = (struct cpu_features){.xcr0_mask = BITS(2, 0) | BITS(7, 5), .xsave_size = 2688, .phys_bits = 40};
	fake_feature(FEAT_GB_PAGES, true);
	f->vm.name = "fake";
	f->vm.clock.tsc_khz = FAKE_TSC;
	if (p2m_init(p, &pt_format_long, OWNER_GUEST, ORDER_2M, 40) || p2m_add_slot(p, GFN(0), 0xa0, P2M_RAM) ||
	    p2m_add_slot(p, GFN(0xe0), 0x20, P2M_RO) || p2m_add_slot(p, GFN(0x100), 0x700, P2M_RAM) ||
	    p2m_populate(p, GFN(0)) || p2m_populate(p, GFN(0xe0)) || p2m_populate(p, GFN(0x100)))
		panic("fake memory");
	fake_tables(f);
	runq_init(&f->runq, 0);
	timerq_init(&f->timers, 0);
	f->vm.vcpu = f->list;
	f->vm.vcpus = f->vm.live = vcpus;
	for (unsigned i = 0; i < vcpus; i++) {
		struct vcpu *v = &f->vcpu[i];

		f->list[i] = v;
		v->vm = &f->vm;
		v->index = i;
		v->arch = &f->hw[i];
		sched_ent_init(&v->sched, &f->runq, 256);
		lapic[i] = &v->lapic;
		q[i] = &f->timers;
	}
	platform_init(&f->vm.platform, &fake_platform, &f->vm, lapic, vcpus, q, &f->vm.clock, 1795264496);
	bus_add(&f->vm.platform.bus, mmio);
	bus_add(&f->vm.platform.bus, port);
	for (unsigned i = 0; i < vcpus; i++) {
		vcpu_reset(&f->vcpu[i]);
		fake_long_mode(&f->vcpu[i], 0);
	}
	return f;
}

static inline void fake_free(struct fake_vm *f)
{
	platform_free(&f->vm.platform);
	p2m_free(&f->vm.p2m);
	host_machine_free();
	free(f);
}

/* Puts code at rip. */
static inline void fake_code(struct fake_vm *f, const char *bytes, size_t n)
{
	f->vcpu[0].regs.rip = FAKE_CODE;
	fake_poke(f, FAKE_CODE, bytes, n);
}
#define CODE(f, s) fake_code(f, s, sizeof(s) - 1)

static inline enum outcome fake_exit(struct fake_vm *f, struct vm_exit x)
{
	fake_mode(&f->vcpu[0], &x);
	f->vcpu[0].exit = x;
	return exit_dispatch(&f->vcpu[0], &f->vcpu[0].exit);
}

static inline enum outcome fake_npf(struct fake_vm *f, gpa_t gpa, u8 access)
{
	return fake_exit(f, (struct vm_exit){.kind = EXIT_NPF, .gpa = gpa, .access = access});
}
