/* SPDX-License-Identifier: MIT */
/* Time: ns from the TSC, and one one-shot hardware timer a pCPU. port_now is implemented here. */
#pragma once

#include "drivers/acpi.h"

/*
 * Boot processor, after apic_init_this: measures TSC and APIC timer against PM timer or PIT (3 ms busy), sets the
 * timer's handler, and says on the console what it used. port_now counts from here; it is 0 before.
 */
void time_init(const struct acpi *a);
/* Every pCPU, after apic_init_this and time_init: its APIC timer, not armed. */
void time_init_this(void);
u32 time_tsc_khz(void);
/* The first reading of this pCPU's TSC at which port_now is at least ns. */
u64 time_ns_to_tsc(u64 ns);
/*
 * This pCPU's timer interrupts at the absolute ns or earlier (long waits come in steps), never lost; TIMER_NEVER: no
 * more. Cheap when the deadline does not change. Interrupts may be on or off.
 */
void time_arm(u64 deadline);
/* Seconds since 1970 from the CMOS clock; a constant date plus uptime where that holds nonsense. */
u64 time_wall(void);
