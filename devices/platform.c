/* SPDX-License-Identifier: MIT */
#include "devices/platform.h"

#include "devices/chips.h"
#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/string.h"

#define ISA_IRQS    16
#define CASCADE_IRQ 2 /* not a line on a PC */
#define TIMER_PIN   2 /* the IOAPIC pin of IRQ 0 */

static int attach_all(struct platform *p, struct timerq *q, u64 epoch)
{
	int err = pic_attach(p);

	if (!err)
		err = ioapic_attach(p);
	if (!err)
		err = pit_attach(p, q);
	if (!err)
		err = rtc_attach(p, q, epoch);
	if (!err)
		err = uart_attach(p);
	if (!err)
		err = pm_attach(p);
	if (!err)
		err = pci_attach(p);
	return err ? err : kbc_attach(p);
}

int platform_init(struct platform *p, const struct platform_ops *ops, void *ctx, struct lapic **lapics, unsigned vcpus,
		  struct timerq **lapic_q, const struct guest_clock *clock, u64 epoch)
{
	if (vcpus == 0 || vcpus > MAX_VCPUS)
		return -EINVAL;
	memset(p, 0, sizeof(*p));
	p->lock = (struct lock)LOCK_INIT(LOCK_DEVICES);
	p->ops = ops;
	p->ctx = ctx;
	p->vcpus = vcpus;
	bus_init(&p->bus);
	for (unsigned i = 0; i < vcpus; i++) {
		p->lapic[i] = lapics[i];
		lapic_init(lapics[i], p, i, lapic_q[i], clock);
	}
	return attach_all(p, lapic_q[0], epoch);
}

void platform_free(struct platform *p)
{
	timer_cancel(&p->pit.timer);
	timer_cancel(&p->rtc.timer);
	for (unsigned i = 0; i < p->vcpus; i++)
		lapic_free(p->lapic[i]);
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

void platform_eoi(struct platform *p, u8 vector)
{
	lock_take(&p->lock);
	ioapic_eoi(p, vector);
	lock_drop(&p->lock);
}

bool platform_input(struct platform *p, u8 c)
{
	bool taken;

	lock_take(&p->lock);
	taken = uart_input(p, c);
	lock_drop(&p->lock);
	return taken;
}

void platform_power_button(struct platform *p)
{
	lock_take(&p->lock);
	pm_power_button(p);
	lock_drop(&p->lock);
}
