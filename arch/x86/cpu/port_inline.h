/* SPDX-License-Identifier: MIT */
/*
 * What lib/port.h declares and is called most, inline. The Makefile puts this in front of every file of the image; the
 * host tests have functions instead.
 */
#pragma once

#include "lib/port.h"
#include "mm/hostmap.h"

#define PORT_INLINE extern inline __attribute__((gnu_inline, always_inline))

/* Sums, not dereferences: early mappings and hostmap both map RAM at DIRECT_MAP + pa. */
PORT_INLINE void *port_virt(hpa_t pa) { return (void *)(DIRECT_MAP + pa); } // NOLINT(performance-no-int-to-ptr)
PORT_INLINE hpa_t port_phys(const void *va) { return (hpa_t)va - DIRECT_MAP; }

PORT_INLINE unsigned port_cpu(void)
{
	unsigned id;

	__asm__("mov %%gs:8, %0" : "=r"(id));
	return id;
}

PORT_INLINE u64 port_irq_save(void)
{
	u64 flags;

	__asm__ volatile("pushfq; pop %0; cli" : "=r"(flags)::"memory");
	return flags;
}

PORT_INLINE void port_irq_restore(u64 state)
{
	if (state & 0x200) /* RFLAGS.IF */
		__asm__ volatile("sti" ::: "memory");
}
