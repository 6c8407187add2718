/* SPDX-License-Identifier: MIT */
/* 16550 serial ports of the machine: output as console sinks, input by interrupt into a ring that the run loop reads.
 */
#pragma once

#include "drivers/console.h"

/*
 * Probes (by loopback) and sets up port: 115200 8N1, FIFOs on. The first port opened is the one for
 * input. false: nothing there, a port that lies, or too many. True at once for a port that is open already.
 */
bool serial_open(u16 port);
/* The ISA IRQ of the input port (4 or 3), or -1. Enables the receive interrupt. */
int serial_input_irq(void);
/* Interrupt handler: moves received bytes to the ring. */
void serial_interrupt(void);
/* The next received byte, or -1. One reader (any pCPU, one at a time). */
int serial_getc(void);
