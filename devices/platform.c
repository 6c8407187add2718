/* SPDX-License-Identifier: MIT */
#include "devices/chips.h"

#include "lib/assert.h"
#include "lib/bits.h"

/* The cascade is not a line on a PC; its pin of the IOAPIC is that of IRQ 0. */
enum { ISA_IRQS = 16, CASCADE_IRQ = 2, TIMER_PIN = 2 };

static const struct bus_region regions[] = {
	{BUS_PIO, 1, 0x20, 2, pic_io, NULL},
	{BUS_PIO, 1, 0x40, 4, pit_io, NULL},
	{BUS_PIO, 1, 0x60, 1, kbc_io, NULL},
	{BUS_PIO, 1, 0x61, 1, port61_io, NULL},
	{BUS_PIO, 1, 0x64, 1, kbc_io, NULL},
	{BUS_PIO, 1, 0x70, 2, rtc_io, NULL},
	{BUS_PIO, 1, 0xa0, 2, pic_io, NULL},
	{BUS_PIO, 1, 0x3f8, 8, uart_io, NULL},
	{BUS_PIO, 1, 0x4d0, 2, elcr_io, NULL},
	{BUS_PIO, 1, PM_EVT_PORT, PM_CNT_PORT + 2 - PM_EVT_PORT, pm_io, NULL},
	{BUS_PIO, 4, PM_TMR_PORT, 4, pm_timer_io, NULL},
	{BUS_PIO, 4, 0xcf8, 8, pci_io, NULL},
	{BUS_MMIO, 4, IOAPIC_BASE, PAGE_SIZE, ioapic_mmio, NULL},
};

void platform_init(struct platform *p, const struct platform_ops *ops, void *ctx, struct lapic **lapics, unsigned vcpus,
		   struct timerq **lapic_q, const struct guest_clock *clock, u64 epoch)
{
	ASSERT(vcpus > 0 && vcpus <= MAX_VCPUS);
	*p = (struct platform){.lock = LOCK_INIT(LOCK_DEVICES), .ops = ops, .ctx = ctx, .vcpus = vcpus};
	for (unsigned i = 0; i < vcpus; i++) {
		p->lapic[i] = lapics[i];
		lapic_init(lapics[i], p, i, lapic_q[i], clock);
	}
	pic_init(p);
	ioapic_init(p);
	pit_init(p, lapic_q[0]);
	rtc_init(p, lapic_q[0], epoch);
	for (unsigned i = 0; i < ARRAY_SIZE(regions); i++) {
		struct bus_region r = regions[i];

		r.dev = p;
		bus_add(&p->bus, r);
	}
}

void platform_free(struct platform *p)
{
	timer_cancel(&p->pit.timer);
	timer_cancel(&p->rtc.timer);
	for (unsigned i = 0; i < p->vcpus; i++)
		timer_cancel(&p->lapic[i]->timer);
}

int platform_pending(struct platform *p, unsigned vcpu)
{
	int vector = lapic_pending(p->lapic[vcpu]);

	if (vector >= 0 || !atomic_load(&p->pic.out) || !lapic_accepts_pic(p->lapic[vcpu]))
		return vector;
	lock_take(&p->lock);
	vector = pic_peek(p);
	lock_drop(&p->lock);
	return vector;
}

int platform_ack(struct platform *p, unsigned vcpu)
{
	int vector = lapic_pending(p->lapic[vcpu]);

	if (vector >= 0) {
		lapic_ack(p->lapic[vcpu], (u8)vector);
		return vector;
	}
	lock_take(&p->lock);
	vector = pic_ack(p);
	lock_drop(&p->lock);
	return vector;
}

void platform_irq(struct platform *p, unsigned irq, bool level)
{
	if (irq == CASCADE_IRQ || irq >= IOAPIC_PINS)
		return;
	if (irq < ISA_IRQS)
		pic_line(p, irq, level);
	ioapic_line(p, irq == 0 ? TIMER_PIN : irq, level);
}
