/* SPDX-License-Identifier: MIT */
/*
 * Local APICs, IOAPICs, 8259s. The local APIC is never disabled: on some machines that cannot be undone. In x2APIC mode
 * a register is an MSR and the ICR is one store; in xAPIC mode it is 4 bytes of MMIO, and the ICR takes two stores,
 * which is why IPIs are sent with interrupts off.
 */
#include "arch/x86/cpu/apic.h"

#include "arch/x86/cpu/cpu.h"
#include "arch/x86/cpu/features.h"
#include "arch/x86/cpu/pcpu.h"
#include "lib/errno.h"
#include "lib/port.h"
#include "mm/hostmap.h"

#define ICR_SPINS 1000000u

enum { APIC_BASE_X2 = BIT(10), APIC_BASE_EN = BIT(11), SPURIOUS_EN = BIT(8) };
enum { ICR_PENDING = BIT(12), ICR_ASSERT = BIT(14) };
enum { IOAPIC_VERSION = 1, IOAPIC_ENTRY = 0x10 /* two registers an input */ };
enum { IOAPIC_LOW = BIT(13), IOAPIC_LEVEL = BIT(15), IOAPIC_MASKED = BIT(16) };
enum { PIC_MASTER_MASK = 0x21, PIC_SLAVE_MASK = 0xa1 };

/* Set by apic_init on the boot processor, read-only afterwards. */
static volatile u32 *xapic; /* NULL: x2APIC mode */
static volatile u32 *ioapics[ACPI_MAX_IOAPICS];

u32 apic_read(unsigned reg) { return xapic ? xapic[reg / 4] : (u32)rdmsr(MSR_X2APIC + reg / 16); }

void apic_write(unsigned reg, u32 val)
{
	if (xapic)
		xapic[reg / 4] = val;
	else
		wrmsr(MSR_X2APIC + reg / 16, val);
}

u32 apic_id(void) { return apic_read(XAPIC_ID) >> (xapic ? 24 : 0); }
void apic_eoi(void) { apic_write(XAPIC_EOI, 0); }

void apic_ipi(u32 id, u32 command)
{
	command |= ICR_ASSERT;
	if (!xapic) {
		cpu_fence();
		wrmsr(MSR_X2APIC + XAPIC_ICR / 16, (u64)id << 32 | command);
		return;
	}

	u64 irq = port_irq_save();

	for (u32 i = 0; i < ICR_SPINS && apic_read(XAPIC_ICR) & ICR_PENDING; i++)
		cpu_pause();
	apic_write(XAPIC_ICR + 0x10, id << 24);
	apic_write(XAPIC_ICR, command);
	port_irq_restore(irq);
}

/* An IOAPIC's register, to be read or written before the next one is asked for. */
static volatile u32 *ioapic_reg(unsigned n, u32 reg)
{
	ioapics[n][0] = reg;
	return &ioapics[n][4];
}

static u32 ioapic_inputs(unsigned n) { return (*ioapic_reg(n, IOAPIC_VERSION) >> 16 & 0xff) + 1; }

int ioapic_route_isa(const struct acpi *a, unsigned irq, u8 vector)
{
	if (irq >= ARRAY_SIZE(a->isa))
		return -ENOENT;

	u32 level = a->isa[irq].level ? IOAPIC_LEVEL : 0, low = a->isa[irq].low ? IOAPIC_LOW : 0;

	for (unsigned n = 0; n < a->ioapics; n++) {
		u32 input = a->isa[irq].gsi - a->ioapic[n].gsi_base;

		if (input >= ioapic_inputs(n))
			continue;
		*ioapic_reg(n, IOAPIC_ENTRY + 2 * input + 1) = apic_id() << 24;
		*ioapic_reg(n, IOAPIC_ENTRY + 2 * input) = level | low | vector;
		return 0;
	}
	return -ENOENT;
}

int apic_init(const struct acpi *a)
{
	if (!cpu_has(FEAT_X2APIC)) {
		xapic = hostmap_io(rdmsr(MSR_APIC_BASE) & BITS(51, 12), PAGE_SIZE, HOST_UC);
		if (!xapic)
			return -ENODEV;
	}
	outb(PIC_MASTER_MASK, 0xff);
	outb(PIC_SLAVE_MASK, 0xff);
	for (unsigned n = 0; n < a->ioapics; n++) {
		ioapics[n] = hostmap_io(a->ioapic[n].base, PAGE_SIZE, HOST_UC);
		if (!ioapics[n])
			return -ENODEV;
		for (u32 i = ioapic_inputs(n); i-- > 0;)
			*ioapic_reg(n, IOAPIC_ENTRY + 2 * i) = IOAPIC_MASKED;
	}
	return 0;
}

void apic_init_this(void)
{
	/* Timer, LINT0, LINT1, error, performance, thermal, CMCI: in the order in which CPUs came to have them. */
	static const u16 lvts[] = {XAPIC_LVT_TIMER, 0x350, 0x360, 0x370, 0x340, 0x330, 0x2f0};
	u64 base = rdmsr(MSR_APIC_BASE) | APIC_BASE_EN;

	/* xAPIC first: from disabled straight to x2APIC is no legal step (SDM 3A figure 11-27). */
	wrmsr(MSR_APIC_BASE, base);
	if (!xapic)
		wrmsr(MSR_APIC_BASE, base | APIC_BASE_X2);
	this_pcpu()->apic_id = apic_id();
	apic_write(XAPIC_SPURIOUS, SPURIOUS_EN | VEC_SPURIOUS);
	apic_write(XAPIC_TPR, 0);

	u32 last = apic_read(XAPIC_VERSION) >> 16 & 0xff; /* how many there are, less one */

	for (u32 i = 0; i < ARRAY_SIZE(lvts) && i <= last; i++)
		apic_write(lvts[i], XAPIC_LVT_MASKED);
}
