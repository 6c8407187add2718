/* SPDX-License-Identifier: MIT */
/* 16550 serial ports of the machine: output as console sinks, input by interrupt into a ring that the run loop reads.
 */
#ifndef DRIVERS_SERIAL_H
#define DRIVERS_SERIAL_H

#include "drivers/console.h"

/*
 * Probes (scratch register, loopback) and sets up port: 115200 8N1, FIFOs on. The first port opened is the one for
 * input. false: nothing there, a port that lies, or too many. True at once for a port that is open already.
 */
bool serial_open(u16 port);
/* As serial_open for an MMIO UART told by SPCR (registers 1 << shift apart); base is mapped by the caller. Its
 * clock is not known, so the speed stays as the firmware set it. */
bool serial_open_mmio(volatile void *base, unsigned shift);
/* Opens the first of COM1..COM4 that answers, at their legacy places. Its port, or 0. */
u16 serial_probe_legacy(void);
/* The ISA IRQ of the input port (4 or 3), or -1. Enables the receive interrupt. */
int serial_input_irq(void);
/* Interrupt handler: moves received bytes to the ring. */
void serial_interrupt(void);
/* The next received byte, or -1. One reader (any pCPU, one at a time). */
int serial_getc(void);
bool serial_has_input(void);

#endif
