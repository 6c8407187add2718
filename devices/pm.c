/* SPDX-License-Identifier: MIT */
/* ACPI fixed hardware: power button, soft off, and the PM timer (ACPI 6.4, 4.8.3). There is no SMI, so SCI_EN is set.
 */
#include "devices/chips.h"
#include "devices/clock.h"
#include "lib/port.h"

#define PM_PORTS (PM_TMR_PORT + 4 - PM_EVT_PORT)

#define STS_WRITABLE 0x8d31u /* cleared by writing 1 */
#define EN_WRITABLE  0x0721u
#define PWRBTN       0x0100u
#define CNT_SCI_EN   0x0001u
#define CNT_WRITABLE 0x1c02u
#define CNT_SLP_EN   0x2000u

static u32 pm_timer(void) { return (u32)ns_to_ticks(port_now(), PM_HZ); }

static void update(struct platform *p) { platform_irq(p, SCI_IRQ, p->pm.sts & p->pm.en); }

void pm_power_button(struct platform *p)
{
	p->pm.sts |= PWRBTN;
	update(p);
}

static u8 read_byte(const struct pm *pm, unsigned offset)
{
	unsigned shift = (offset & 1) * 8;

	switch (offset & ~1u) {
	case 0:
		return (u8)(pm->sts >> shift);
	case 2:
		return (u8)(pm->en >> shift);
	case PM_CNT_PORT - PM_EVT_PORT:
		return (u8)((pm->cnt | CNT_SCI_EN) >> shift);
	}
	return offset < PM_TMR_PORT - PM_EVT_PORT ? 0xff : (u8)(pm_timer() >> (offset & 3) * 8);
}

static void write_byte(struct platform *p, unsigned offset, u8 byte)
{
	struct pm *pm = &p->pm;
	unsigned shift = (offset & 1) * 8;
	u32 val = (u32)byte << shift, keep = 0xff00u >> shift;

	switch (offset & ~1u) {
	case 0:
		pm->sts &= ~(val & STS_WRITABLE);
		break;
	case 2:
		pm->en = (pm->en & keep) | (val & EN_WRITABLE);
		break;
	case PM_CNT_PORT - PM_EVT_PORT:
		pm->cnt = (pm->cnt & keep) | (val & CNT_WRITABLE);
		if ((val & CNT_SLP_EN) && (val >> 10 & 7) == S5_TYPE)
			p->ops->power(p->ctx, POWER_OFF, "ACPI S5");
		break;
	}
	update(p);
}

static void pm_io(void *dev, struct bus_op *op)
{
	struct platform *p = dev;
	unsigned offset = (unsigned)(op->addr - PM_EVT_PORT);

	if (op->addr == PM_TMR_PORT && op->size == 4 && !op->write)
		op->val = pm_timer();
	else if (op->size != 1)
		bus_split(pm_io, dev, op);
	else if (op->write)
		write_byte(p, offset, (u8)op->val);
	else
		op->val = read_byte(&p->pm, offset);
}

int pm_attach(struct platform *p) { return bus_add(&p->bus, BUS_PIO, PM_EVT_PORT, PM_PORTS, "acpi-pm", pm_io, p); }
