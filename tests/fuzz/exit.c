/* SPDX-License-Identifier: MIT */
/*
 * Random exits of a guest with random registers, modes, memory and page tables: whatever it does, the dispatcher comes
 * back, and at most the guest ends.
 */
#include "tests/host/fake_vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *p;
	size_t n;
};

static u64 take(struct input *in, unsigned bytes)
{
	u64 v = 0;

	for (unsigned i = 0; i < bytes && in->n; i++, in->p++, in->n--)
		v |= (u64)*in->p << (8 * i);
	return v;
}

/* Addresses that lead somewhere: RAM, ROM, the device, the local APIC, tables, or anything. */
static u64 address(struct input *in)
{
	static const u64 base[] = {FAKE_RAM,           FAKE_CODE,   FAKE_MMIO,  0xe0000,
				   LAPIC_DEFAULT_BASE, IOAPIC_BASE, FAKE_TABLES};
	unsigned pick = (unsigned)take(in, 1) & 15;

	if (pick < ARRAY_SIZE(base))
		return base[pick] + (take(in, 2) & 0x1fff);
	return pick & 1 ? (u64)(s64)(s32)take(in, 4) : take(in, 8);
}

static void change_state(struct vcpu *v, struct input *in)
{
	struct fake_vcpu *h = fake_hw(v);
	unsigned what = (unsigned)take(in, 1);
	struct segment *s = &h->seg[what % SEGS_ALL];

	switch (what >> 4) {
	case 0:
		fake_long_mode(v, what & 1 ? 3 : 0);
		break;
	case 1:
		h->reg[REG_CR0] = take(in, 4);
		break;
	case 2:
		h->reg[REG_CR4] = take(in, 3);
		break;
	case 3:
		h->reg[REG_EFER] = take(in, 2);
		break;
	case 4:
		h->reg[REG_CR3] = address(in);
		break;
	case 5:
		*s = (struct segment){address(in), (u32)take(in, 4), (u16)take(in, 2), (u16)(take(in, 2) & 0xfff)};
		break;
	case 6:
		v->regs.rflags = take(in, 3);
		break;
	case 7: /* real mode, or on the way from there */
		h->reg[REG_CR0] = what & 1;
		h->reg[REG_EFER] = 0;
		for (unsigned i = 0; i < SEGS_USER; i++)
			h->seg[i] = (struct segment){address(in) & 0xffff0, 0xffff, 0, 0x93};
		break;
	default:
		v->regs.r[what % GREGS] = address(in);
	}
}

static void change_memory(struct fake_vm *f, struct vcpu *v, struct input *in)
{
	u8 bytes[INSN_MAX];
	gpa_t at = take(in, 1) & 1 ? address(in) : FAKE_CODE;

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (u8)take(in, 1);
	p2m_write(&f->vm.p2m, at, bytes, sizeof(bytes));
	v->regs.rip = at;
}

static void leave_guest(struct vcpu *v, struct input *in)
{
	struct vm_exit x = {.kind = (u8)(take(in, 1) % EXIT_KINDS), .gpa = address(in)};
	u8 bits = (u8)take(in, 1);

	if (x.kind == EXIT_NPF && x.gpa >> 40)
		x.gpa &= BIT(40) - 1;
	x.access = (u8)(1u << bits % 3);
	x.walk = (bits & 0xe0) == 0xe0;
	x.vector = (u8)take(in, 1);
	x.error = (u32)take(in, 1);
	x.has_error = bits & 8;
	x.io.port = (u16)take(in, 2);
	x.io.size = (u8)(1u << (bits >> 2) % 3);
	x.io.in = bits & 0x10;
	x.io.string = bits & 0x20;
	x.insn_len = bits & 0x40 ? 2 : 0;
	fake_mode(v, &x);
	v->exit = x;
	exit_dispatch(v, &v->exit);
}

/* Hardware without unrestricted guest. */
static void enter(struct vcpu *v)
{
	if (fake_hw(v)->reg[REG_CR0] & CR0_PG)
		return;
	v->event = fake_hw(v)->injected;
	v->exit.kind = EXIT_SOFT;
	fake_mode(v, &v->exit);
}

static void begin_again(struct fake_vm *f)
{
	f->vm.ending = 0;
	f->ops = 0;
	for (unsigned i = 0; i < f->vm.vcpus; i++) {
		vcpu_reset(f->list[i]);
		fake_long_mode(f->list[i], 0);
		f->list[i]->wait_sipi = false;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fake_vm *f;
	static unsigned runs;
	struct input in = {data, size};
	u64 now = port_now();

	if (runs++ % 256 == 0) {
		if (f)
			fake_free(f);
		f = fake_new(2);
		f->on_run = enter;
		now = 0;
	}
	begin_again(f);
	fake_tables(f);
	host_log_clear();
	while (in.n) {
		unsigned op = (unsigned)take(&in, 1);
		struct vcpu *v = f->list[op >> 7];

		switch (op & 7) {
		case 0:
		case 1:
			change_state(v, &in);
			break;
		case 2:
			change_memory(f, v, &in);
			break;
		case 3:
			host_set_now(now += take(&in, 2) * 1000);
			timers_run(&f->timers, now);
			for (unsigned i = 0; i < 4; i++)
				vcpu_run_once(v);
			break;
		case 4:
			lapic_post(&v->lapic, (u8)take(&in, 1) | 0x10, op & 8);
			break;
		default:
			leave_guest(v, &in);
		}
		if (f->vm.ending && in.n > 0)
			begin_again(f);
	}
	if (p2m_audit(&f->vm.p2m))
		panic("audit");
	return 0;
}
