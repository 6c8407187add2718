/* SPDX-License-Identifier: MIT */
/* What the devices of a platform offer it and each other: all with platform.lock held, but what sets them up. */
#ifndef DEVICES_CHIPS_H
#define DEVICES_CHIPS_H

#include "devices/platform.h"

void pic_init(struct platform *p);
void pic_line(struct platform *p, unsigned irq, bool level);
int pic_peek(const struct platform *p); /* the vector that pic_ack would return, or -1 */
u8 pic_ack(struct platform *p);         /* INTA */

void ioapic_init(struct platform *p);
void ioapic_line(struct platform *p, unsigned pin, bool level);

void pit_init(struct platform *p, struct timerq *q);
void rtc_init(struct platform *p, struct timerq *q, u64 epoch);

/* Accesses; the platform is what the bus knows as their device. */
void pic_io(void *platform, struct bus_op *op);
void elcr_io(void *platform, struct bus_op *op);
void ioapic_mmio(void *platform, struct bus_op *op);
void pit_io(void *platform, struct bus_op *op);
void port61_io(void *platform, struct bus_op *op);
void rtc_io(void *platform, struct bus_op *op);
void uart_io(void *platform, struct bus_op *op);
void pm_io(void *platform, struct bus_op *op);
void pm_timer_io(void *platform, struct bus_op *op);
void pci_io(void *platform, struct bus_op *op);
void kbc_io(void *platform, struct bus_op *op);
void port92_io(void *platform, struct bus_op *op);

#endif
