/* SPDX-License-Identifier: MIT */
/*
 * Any sequence of accesses, of any size, to any port, MMIO address or APIC register, with interrupts taken and time
 * passing in between. Whatever the guest does, no sanitizer complains, and what devices promise each other holds.
 */
#include <stdlib.h>
#include <string.h>

#include "devices/clock.h"
#include "devices/lapic_regs.h"
#include "devices/platform.h"
#include "lib/assert.h"
#include "lib/bits.h"
#include "tests/host/host.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define VCPUS 3

static struct platform p;
static struct lapic lapics[VCPUS];
static struct timerq q;
static struct guest_clock clock = {.start_ns = 12345, .tsc_khz = 2100000};
static u64 kicks;

static const uint8_t *input;
static size_t left;

static u64 take(unsigned bytes)
{
	u64 val = 0;

	for (unsigned i = 0; i < bytes; i++) {
		val = val << 8 | (left ? *input++ : 0);
		left -= left > 0;
	}
	return val;
}

static void console_out(void *ctx, u8 c) {}
static void power(void *ctx, enum power_event ev, const char *how) {}

static void kick(void *ctx, unsigned vcpu)
{
	ASSERT(vcpu < VCPUS);
	kicks++;
}

static const struct platform_ops ops = {.console_out = console_out, .power = power, .kick = kick};

/* Registers that do something, so that random input gets deep. */
static const u16 ports[] = {0x20,  0x21,  0xa0,  0xa1,  0x40,  0x41,  0x42,  0x43,  0x61,  0x70,  0x71,  0x3f8, 0x3f9,
			    0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x4d0, 0x4d1, 0x600, 0x602, 0x604, 0x608, 0xcf8,
			    0xcf9, 0xcfc, 0x60,  0x64,  0x92,  0x80,  0x3f7, 0x5ff, 0x60b, 0xcff, 0xffff};
static const u16 apic_regs[] = {0x20,  0x80,  0xb0,  0xb0,  0xb0,  0xb0,  0xd0,  0xe0,  0xf0,  0x280, 0x300, 0x310,
				0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x390, 0x3e0, 0x3f0, 0x90};

static void access_bus(u8 space, u64 addr, unsigned size, bool write, u64 val)
{
	struct bus_op op = {.space = space, .size = (u8)size, .write = write, .addr = addr, .val = val};

	lock_take(&p.lock);
	if (space == BUS_MMIO && val & 1)
		bus_access_at(&p.bus, (unsigned)(val >> 1) & 63, &op);
	else
		bus_access(&p.bus, &op);
	lock_drop(&p.lock);
	ASSERT(write || size == 8 || op.val >> size * 8 == 0);
}

static void access_port(unsigned what)
{
	u64 addr = what & 0x20 ? take(2) : ports[take(1) % ARRAY_SIZE(ports)];

	if (addr == 0xcf8 && what & 0x40)
		access_bus(BUS_PIO, addr, 4, true, 0x80000000 | take(1));
	else
		access_bus(BUS_PIO, addr, 1u << (what & 3), what & 0x10, take(1 + (what & 3)));
}

static void access_mmio(unsigned what)
{
	u64 addr = IOAPIC_BASE + (what & 0x20 ? take(2) : what & 0x40 ? 0x10 : 0);

	if (addr == IOAPIC_BASE) /* select something that exists, mostly */
		access_bus(BUS_MMIO, addr, 4, true, take(1) & 0x3f);
	else
		access_bus(BUS_MMIO, addr, 1u << (what & 3), what & 0x10, take(4));
}

static void access_apic(unsigned what)
{
	struct lapic *l = &lapics[take(1) % VCPUS];
	u32 reg = (u32)(what & 0x20 ? take(2) & 0xfff : apic_regs[take(1) % ARRAY_SIZE(apic_regs)]);
	u64 val = take(what & 0x40 ? 4 : 2);
	struct bus_op op = {.space = BUS_MMIO,
			    .size = (u8)(1u << (what & 3)),
			    .write = what & 0x10,
			    .addr = 0xfee00000 + reg,
			    .val = val};

	if (lapic_page(l) != ~0ul)
		lapic_mmio(l, &op);
	else if (what & 0x10)
		lapic_wrmsr(l, 0x800 + reg / 16, reg == 0x300 ? val << 32 | take(4) : val);
	else
		lapic_rdmsr(l, 0x800 + reg / 16, &val);
}

static void access_msr(unsigned what)
{
	struct lapic *l = &lapics[take(1) % VCPUS];
	u64 val = what & 0x10 ? take(8) : 0xfee00000 | (take(1) & 0xd) << 8;

	lapic_wrmsr(l, what & 0x20 ? MSR_TSC_DEADLINE : MSR_APIC_BASE, val);
	lapic_rdmsr(l, (u32)take(2), &val);
	if (what & 1)
		lapic_set_cr8(l, (u8)val);
}

static void check_vcpu(unsigned i)
{
	struct lapic *l = &lapics[i];
	int vector = platform_pending(&p, i), served;
	u8 sipi;

	if (lapic_pending(l) >= 0) {
		served = platform_ack(&p, i);
		ASSERT(served == vector && vector >= 16);
		ASSERT(!(*lapic_word(l, REG_IRR, (u8)vector) >> vector % 32 & 1));
		ASSERT(*lapic_word(l, REG_ISR, (u8)vector) >> vector % 32 & 1);
	} else if (vector >= 0) {
		ASSERT(lapic_accepts_pic(l) && p.pic.out);
		served = platform_ack(&p, i);
		ASSERT(served == vector);
	}
	ASSERT(lapic_get_cr8(l) < 16);
	ASSERT(!(*lapic_reg(l, REG_IRR) & 0xffff));
	if (lapic_take_events(l, &sipi) & LAPIC_EV_INIT)
		lapic_reset(l, true);
}

/* A guest cannot make the host's timers fire faster than the floor: each fires at most once in that time. */
static void pass(unsigned what)
{
	u64 ns = what & 0x10 ? take(3) : what & 0x20 ? take(7) : take(1) * 100;
	u64 end = MIN(port_now() + ns, 1ul << 60), limit = (MIN(ns, 1000000ul) / GUEST_PERIOD_MIN_NS + 2) * (VCPUS + 2);

	for (u64 rounds = 0; ns < 1000000 && timers_run(&q, port_now()) <= end; rounds++) {
		ASSERT(rounds <= limit);
		host_set_now(q.next);
	}
	host_set_now(end);
	ASSERT(timers_run(&q, end) > end);
}

static void check_platform(void)
{
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		ASSERT(!(p.ioapic.redir[pin] & BIT(14)) || (p.ioapic.redir[pin] & BIT(15)));
	ASSERT(p.uart.rx_count <= sizeof(p.uart.rx) && p.uart.rx_head < sizeof(p.uart.rx));
	ASSERT(p.rtc.index < 128);
	for (unsigned n = 0; n < 3; n++)
		ASSERT(p.pit.ch[n].reload >= 1 && p.pit.ch[n].reload <= 65536 && p.pit.ch[n].mode <= 5);
	for (unsigned i = 0; i < VCPUS; i++)
		check_vcpu(i);
}

static void step(void)
{
	unsigned what = (unsigned)take(1);

	switch (take(1) % 12) {
	case 0 ... 3:
		access_port(what);
		break;
	case 4 ... 5:
		access_mmio(what);
		break;
	case 6 ... 8:
		access_apic(what);
		break;
	case 9:
		access_msr(what);
		break;
	case 10:
		pass(what);
		break;
	case 11:
		lock_take(&p.lock);
		platform_irq(&p, what & 31, what & 0x80);
		lock_drop(&p.lock);
		platform_input(&p, (u8)what);
		break;
	}
	check_platform();
}

/* As a booted system has it: APICs on, some lines routed by edge and some by level. */
static void boot(void)
{
	for (unsigned i = 0; i < VCPUS; i++) {
		struct bus_op svr = {.space = BUS_MMIO, .size = 4, .write = true, .addr = 0xfee000f0, .val = 0x1ff};

		lapic_mmio(&lapics[i], &svr);
	}
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		access_bus(BUS_MMIO, IOAPIC_BASE, 4, true, 0x10 + 2 * pin);
		access_bus(BUS_MMIO, IOAPIC_BASE + 0x10, 4, true, (pin & 1) << 15 | (0x20 + 8 * pin));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lapic *apic[VCPUS] = {&lapics[0], &lapics[1], &lapics[2]};
	struct timerq *queues[VCPUS] = {&q, &q, &q};

	input = data;
	left = size;
	host_set_now(take(2));
	timerq_init(&q, 0);
	platform_init(&p, &ops, NULL, apic, VCPUS, queues, &clock, take(5));
	if (size & 1)
		boot();
	while (left)
		step();
	platform_free(&p);
	return 0;
}
