/* SPDX-License-Identifier: MIT */
/*
 * The port of the builds that are made for speed, with as many instructions as the hypervisor's own
 * (arch/x86/cpu/port_inline.h) has: what is inline there is inline here.
 */
#pragma once

#include "lib/port.h"

#define PORT_INLINE extern inline __attribute__((gnu_inline, always_inline))

extern char *host_arena;
extern __thread unsigned host_cpu;

PORT_INLINE void *port_virt(hpa_t pa) { return host_arena + pa; }
PORT_INLINE hpa_t port_phys(const void *va) { return (hpa_t)((const char *)va - host_arena); }
PORT_INLINE unsigned port_cpu(void) { return host_cpu; }

PORT_INLINE u64 port_irq_save(void)
{
	u64 flags;

	__asm__ volatile("pushfq; pop %0; nop" : "=r"(flags)::"memory");
	return flags;
}

PORT_INLINE void port_irq_restore(u64 state)
{
	if (state & 0x200)
		__asm__ volatile("nop" ::: "memory");
}
