/* SPDX-License-Identifier: MIT */
/* The local APIC's timer, between lapic.c and lapic_timer.c. By the owner of the APIC. */
#ifndef DEVICES_LAPIC_REGS_H
#define DEVICES_LAPIC_REGS_H

#include "devices/lapic.h"

#define LVT_MASKED       0x10000u
#define LAPIC_SVR_ENABLE 0x100u

void lapic_timer_set_lvt(struct lapic *l, u32 lvt);
void lapic_timer_set_initial(struct lapic *l, u32 count);
void lapic_timer_set_divide(struct lapic *l, u32 divide);
void lapic_timer_set_deadline(struct lapic *l, u64 tsc);
u64 lapic_timer_deadline(const struct lapic *l);
u32 lapic_timer_count(const struct lapic *l);
void lapic_timer_fired(void *lapic);

#endif
