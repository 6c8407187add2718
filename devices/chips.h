/* SPDX-License-Identifier: MIT */
/*
 * What the devices of a platform offer each other. All with platform.lock held, but the attach functions, which
 * register a device's regions and return what bus_add does.
 */
#ifndef DEVICES_CHIPS_H
#define DEVICES_CHIPS_H

#include "devices/platform.h"

int pic_attach(struct platform *p);
void pic_line(struct platform *p, unsigned irq, bool level);
int pic_peek(const struct platform *p); /* the vector that pic_ack would return, or -1 */
u8 pic_ack(struct platform *p);         /* INTA */

int ioapic_attach(struct platform *p);
void ioapic_line(struct platform *p, unsigned pin, bool level);
void ioapic_eoi(struct platform *p, u8 vector);

int pit_attach(struct platform *p, struct timerq *q);
int rtc_attach(struct platform *p, struct timerq *q, u64 epoch);
int uart_attach(struct platform *p);
bool uart_input(struct platform *p, u8 c);
int pm_attach(struct platform *p);
void pm_power_button(struct platform *p);
int pci_attach(struct platform *p);
int kbc_attach(struct platform *p);

#endif
