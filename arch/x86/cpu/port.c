/* SPDX-License-Identifier: MIT */
/*
 * The port's small parts, but those that are inline: port_inline.h. Time is in time.c, kicks and flushes in smp.c,
 * panic in fault.c, port_log in the console.
 */
#include "lib/port.h"

#include "arch/x86/cpu/cpu.h"
#include "arch/x86/cpu/pcpu.h"

_Static_assert(offsetof(struct pcpu, id) == 8, "port_cpu reads it there");

void port_relax(void) { cpu_pause(); }
bool port_fail_alloc(void) { return false; }
