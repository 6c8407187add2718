/* SPDX-License-Identifier: MIT */
/* What the devices of a platform offer it and each other: all with platform.lock held, but what sets them up. */
#pragma once

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
bus_fn pic_io, elcr_io, ioapic_mmio, pit_io, port61_io, rtc_io, uart_io, pm_io, pm_timer_io, pci_io, kbc_io;
