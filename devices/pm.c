/* SPDX-License-Identifier: MIT */
/* ACPI fixed hardware: power button, soft off, and the PM timer (ACPI 6.4, 4.8.3). There is no SMI, so SCI_EN is set.
 */
#include "devices/chips.h"
#include "devices/clock.h"
#include "lib/port.h"

/* Registers by their offset; the third is CNT. */
enum { STS = 0, EN = 2 };

#define STS_WRITABLE 0x8d31u /* cleared by writing 1 */
#define EN_WRITABLE  0x0721u
#define PWRBTN       0x0100u
#define CNT_SCI_EN   0x0001u
#define CNT_WRITABLE 0x1c02u
#define CNT_SLP_EN   0x2000u

static void update(struct platform *p) { platform_irq(p, SCI_IRQ, p->pm.sts & p->pm.en); }

void pm_power_button(struct platform *p)
{
	p->pm.sts |= PWRBTN;
	update(p);
}

static void write_control(struct platform *p, u16 val)
{
	p->pm.cnt = val & CNT_WRITABLE;
	if ((val & CNT_SLP_EN) && (val >> 10 & 7) == S5_TYPE)
		p->ops->power(p->ctx, POWER_OFF, "ACPI S5");
}

/* Registers have 16 bits and are written by bytes: byte masks the one in val that is. */
static void write_byte(struct platform *p, unsigned reg, u16 byte, u16 val)
{
	struct pm *pm = &p->pm;

	if (reg == STS)
		pm->sts &= ~(val & byte & STS_WRITABLE);
	else if (reg == EN)
		pm->en = ((pm->en & ~byte) | val) & EN_WRITABLE;
	else
		write_control(p, (pm->cnt & ~byte) | val);
	update(p);
}

void pm_io(void *platform, struct bus_op *op)
{
	struct platform *p = platform;
	unsigned reg = op->addr & 6, shift = (op->addr & 1) * 8;
	u16 val = reg == STS ? p->pm.sts : reg == EN ? p->pm.en : p->pm.cnt | CNT_SCI_EN;

	if (op->write)
		write_byte(p, reg, (u16)(0xff << shift), (u16)(op->val << shift));
	else
		op->val = val >> shift;
}

void pm_timer_io(void *platform, struct bus_op *op)
{
	if (!op->write)
		op->val = (u32)ns_to_ticks(port_now(), PM_HZ) >> (op->addr & 3) * 8;
}
