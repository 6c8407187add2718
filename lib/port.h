/* SPDX-License-Identifier: MIT */
/*
 * The port: all that pure code (lib, mm, p2m, sched, emul, devices, parsers, the exit dispatcher) asks of the machine.
 * The hypervisor implements it in arch/x86/cpu/port.c and, what is called most, inline in port_inline.h beside that;
 * the host tests in tests/host/port.c.
 */
#pragma once

#include "lib/types.h"

/*
 * The address at which the hypervisor reaches host-physical pa: the direct map. pa must be RAM that the map covers. The
 * map is linear: port_virt(0) + pa is the same.
 */
void *port_virt(hpa_t pa);
/* The inverse, for addresses inside the direct map only. */
hpa_t port_phys(const void *va);

/* Nanoseconds since boot; monotonic, the same on all pCPUs. */
u64 port_now(void);

/* Index of this pCPU, 0 .. MAX_PCPUS - 1. Stable only while the caller cannot migrate (always true: pCPU stacks). */
unsigned port_cpu(void);
void port_relax(void);

/* Disables interrupts on this pCPU and returns the state that port_irq_restore needs. */
u64 port_irq_save(void);
void port_irq_restore(u64 state);

/*
 * Makes every pCPU in the mask but this one leave guest mode, and what it does with interrupts off; returns once all
 * have. That each forgets translations made from root when it enters again is the caller's to see to, by a generation.
 */
void port_flush_root(hpa_t root, u64 pcpu_mask);
/* Makes every pCPU forget the hypervisor's own translations of [va, va + len). */
void port_flush_host(u64 va, u64 len);

/* Whether this allocation is to fail: only tests ever say so. */
bool port_fail_alloc(void);

/* Writes one finished message to console and ring. */
void port_log(const char *text, size_t len);

/* Prints message, registers and a back trace with symbols, stops all pCPUs. */
void panic(const char *fmt, ...) NORETURN PRINTF(1, 2);
