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
#include "lib/print.h"
#include "mm/hostmap.h"

#define APIC_BASE_X2   BIT(10)
#define APIC_BASE_EN   BIT(11)
#define SPURIOUS_EN    BIT(8)
#define ICR_NMI        (4u << 8)
#define ICR_INIT       (5u << 8)
#define ICR_STARTUP    (6u << 8)
#define ICR_PENDING    BIT(12)
#define ICR_ASSERT     BIT(14)
#define ICR_SPINS      1000000u
#define IOAPIC_VERSION 1u
#define IOAPIC_ENTRY   0x10u /* two registers an input */
#define IOAPIC_MASKED  BIT(16)
#define IOAPIC_LEVEL   BIT(15)
#define IOAPIC_LOW     BIT(13)

/* All set by apic_init and ioapic_init on the boot processor, read-only afterwards. */
static volatile u32 *xapic; /* NULL in x2APIC mode */
static bool x2, ready;
static struct {
	volatile u32 *regs;
	u32 gsi_base, inputs;
} ioapics[ACPI_MAX_IOAPICS];

u32 apic_read(unsigned reg) { return x2 ? (u32)rdmsr(MSR_X2APIC + reg / 16) : xapic[reg / 4]; }

void apic_write(unsigned reg, u32 val)
{
	if (x2)
		wrmsr(MSR_X2APIC + reg / 16, val);
	else
		xapic[reg / 4] = val;
}

u32 apic_id(void) { return x2 ? apic_read(XAPIC_ID) : apic_read(XAPIC_ID) >> 24; }
bool apic_x2(void) { return x2; }
void apic_eoi(void) { apic_write(XAPIC_EOI, 0); }
bool apic_in_service(u8 vector) { return ready && apic_read(XAPIC_ISR + vector / 32 * 16u) >> vector % 32 & 1; }

static void send(u32 id, u32 command)
{
	if (x2) {
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

void apic_ipi(u32 apic_id, u8 vector) { send(apic_id, (u32)ICR_ASSERT | vector); }
void apic_ipi_nmi(u32 apic_id) { send(apic_id, (u32)ICR_ASSERT | ICR_NMI); }
void apic_ipi_init(u32 apic_id) { send(apic_id, (u32)ICR_ASSERT | ICR_INIT); }
void apic_ipi_startup(u32 apic_id, u8 page) { send(apic_id, (u32)ICR_ASSERT | ICR_STARTUP | page); }

/* Moves the 8259s to vectors 0x20 to 0x2f, where a stray interrupt is no exception, and masks them. */
static void pic_mask(void)
{
	static const u8 words[][2] = {{0x11, 0x11}, {0x20, 0x28}, {4, 2}, {1, 1}}; /* ICW1 to ICW4 */

	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		outb(i ? 0x21 : 0x20, words[i][0]);
		outb(i ? 0xa1 : 0xa0, words[i][1]);
	}
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
}

static u32 ioapic_read(unsigned n, u32 reg)
{
	ioapics[n].regs[0] = reg;
	return ioapics[n].regs[4];
}

static void ioapic_write(unsigned n, u32 reg, u32 val)
{
	ioapics[n].regs[0] = reg;
	ioapics[n].regs[4] = val;
}

static int ioapic_init(unsigned n, hpa_t base, u32 gsi_base)
{
	ioapics[n].regs = hostmap_io(base, PAGE_SIZE, HOST_UC);
	if (!ioapics[n].regs)
		return -ENOMEM;
	ioapics[n].gsi_base = gsi_base;
	ioapics[n].inputs = (ioapic_read(n, IOAPIC_VERSION) >> 16 & 0xff) + 1;
	for (u32 i = 0; i < ioapics[n].inputs; i++)
		ioapic_write(n, IOAPIC_ENTRY + 2 * i, IOAPIC_MASKED);
	return 0;
}

int ioapic_route_isa(const struct acpi *a, unsigned irq, u8 vector)
{
	if (irq >= ARRAY_SIZE(a->isa))
		return -ENOENT;

	u32 gsi = a->isa[irq].gsi, low = vector;

	low |= a->isa[irq].level ? IOAPIC_LEVEL : 0;
	low |= a->isa[irq].low ? IOAPIC_LOW : 0;
	for (unsigned n = 0; n < ARRAY_SIZE(ioapics); n++) {
		u32 input = gsi - ioapics[n].gsi_base;

		if (!ioapics[n].regs || input >= ioapics[n].inputs)
			continue;
		ioapic_write(n, IOAPIC_ENTRY + 2 * input + 1, apic_id() << 24);
		ioapic_write(n, IOAPIC_ENTRY + 2 * input, low);
		return 0;
	}
	return -ENOENT;
}

int apic_init(const struct acpi *a)
{
	x2 = cpu_has(FEAT_X2APIC);
	if (!x2)
		xapic = hostmap_io(rdmsr(MSR_APIC_BASE) & BITS(51, 12), PAGE_SIZE, HOST_UC);
	if (!x2 && !xapic)
		return -ENODEV;
	pic_mask();
	for (unsigned i = 0; i < a->ioapics; i++)
		if (ioapic_init(i, a->ioapic[i].base, a->ioapic[i].gsi_base) < 0)
			return -ENODEV;
	return 0;
}

void apic_init_this(void)
{
	/* Timer, LINT0, LINT1, error, performance, thermal, CMCI: in the order in which CPUs came to have them. */
	static const u16 lvts[] = {XAPIC_LVT_TIMER, 0x350, 0x360, 0x370, 0x340, 0x330, 0x2f0};
	u64 base = rdmsr(MSR_APIC_BASE), want = base | APIC_BASE_EN;

	/* xAPIC first: from disabled straight to x2APIC is no legal step (SDM 3A figure 11-27). */
	if (base != want)
		wrmsr(MSR_APIC_BASE, want);
	if (x2)
		wrmsr(MSR_APIC_BASE, want | APIC_BASE_X2);
	ready = true;
	this_pcpu()->apic_id = apic_id();
	apic_write(XAPIC_SPURIOUS, SPURIOUS_EN | VEC_SPURIOUS);
	apic_write(XAPIC_TPR, 0);

	u32 last = apic_read(XAPIC_VERSION) >> 16 & 0xff; /* how many there are, less one */

	for (u32 i = 0; i < ARRAY_SIZE(lvts) && i <= last; i++)
		apic_write(lvts[i], XAPIC_LVT_MASKED);
}
