/* SPDX-License-Identifier: MIT */
/* The machine's local APICs (xAPIC by MMIO or x2APIC by MSR, chosen once), IOAPICs and 8259s. */
#pragma once

#include "drivers/acpi.h"
#include "lib/bits.h"

/* Vectors of the hypervisor's own. */
enum { VEC_SERIAL = 0xe0, VEC_TIMER = 0xf0, VEC_KICK = 0xf1, VEC_FLUSH = 0xf2, VEC_POSTED = 0xf3, VEC_SPURIOUS = 0xff };

/* Boot processor: masks the 8259s, maps the APIC or switches to x2APIC, masks all IOAPIC inputs. Returns 0 or -ENODEV.
 */
int apic_init(const struct acpi *a);
void apic_init_this(void); /* every pCPU: enable, spurious vector, LVTs masked */
u32 apic_id(void);
void apic_eoi(void);
/* Sends a vector, or one of these; a start-up takes the page's number in its low bits. */
enum { IPI_NMI = 4 << 8, IPI_INIT = 5 << 8, IPI_STARTUP = 6 << 8 };
void apic_ipi(u32 apic_id, u32 command);
/* Routes an ISA IRQ to this pCPU as vector, unmasked. 0 or -ENOENT. */
int ioapic_route_isa(const struct acpi *a, unsigned irq, u8 vector);

/* Registers, by their xAPIC offset (SDM 3A table 11-1). */
enum { XAPIC_ID = 0x20, XAPIC_VERSION = 0x30, XAPIC_TPR = 0x80, XAPIC_EOI = 0xb0, XAPIC_SPURIOUS = 0xf0 };
enum { XAPIC_ICR = 0x300, XAPIC_LVT_TIMER = 0x320 };
enum { XAPIC_TIMER_INITIAL = 0x380, XAPIC_TIMER_CURRENT = 0x390, XAPIC_TIMER_DIVIDE = 0x3e0 };
#define XAPIC_LVT_MASKED BIT(16)
u32 apic_read(unsigned reg);
void apic_write(unsigned reg, u32 val);
