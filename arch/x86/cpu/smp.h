/* SPDX-License-Identifier: MIT */
/* Bringing up the other pCPUs, kicks and shootdowns. port_kick, port_flush_root, port_flush_host are implemented here.
 */
#pragma once

#include "drivers/acpi.h"

/*
 * Starts every enabled processor of the MADT by INIT-SIPI through a trampoline below 1 MB (taken with FRAMES_LOW), one
 * at a time; one that does not answer, or whose prepare() fails, is told on the console and left out. Each runs
 * cpu_init_this, prepare(), and when it counts as online entry(), and never returns. Returns the number of pCPUs
 * online.
 */
unsigned smp_start(const struct acpi *a, int (*prepare)(void), NORETURN void (*entry)(void));
/* Makes all other pCPUs stop for ever, interrupts off: for panic and power-off. Stops this one if it comes second. */
void smp_stop_others(void);
/* Never returns if another pCPU called smp_stop_others: for the NMI handler. */
void smp_stop_if_asked(void);
