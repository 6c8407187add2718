/* SPDX-License-Identifier: MIT */
/*
 * ACPI fixed hardware: soft off and the PM timer (ACPI 6.4, 4.8.3). There is no SMI, so SCI_EN is set; and no event
 * that could raise an SCI, so the status register stays 0.
 */
#include "devices/chips.h"
#include "devices/clock.h"
#include "lib/port.h"

enum { CNT = PM_CNT_PORT - PM_EVT_PORT, CNT_SCI_EN = 1, CNT_HIGH_SLP_EN = 0x20 };

/* The registers have 16 bits and are accessed by bytes. */
void pm_io(void *platform, struct bus_op *op)
{
	static const u8 writable[] = {0, 0, 0x21, 0x07, 0x02, 0x1c, 0, 0};
	struct platform *p = platform;
	unsigned reg = op->addr - PM_EVT_PORT;

	if (!op->write)
		op->val = p->pm[reg] | (reg == CNT ? CNT_SCI_EN : 0);
	else
		p->pm[reg] = op->val & writable[reg];
	if (op->write && reg == CNT + 1 && (op->val & CNT_HIGH_SLP_EN) && (op->val >> 2 & 7) == S5_TYPE)
		p->ops->power(p->ctx, POWER_OFF, "ACPI S5");
}

void pm_timer_io(void *platform, struct bus_op *op)
{
	if (!op->write)
		op->val = (u32)ns_to_ticks(port_now(), PM_HZ) >> (op->addr & 3) * 8;
}
