/* SPDX-License-Identifier: MIT */
/* Switching the machine off and resetting it: ACPI 6.5, 4.8.3 and 7.4; then what PCs have besides. */
#include "arch/x86/cpu/cpu.h"
#include "drivers/acpi.h"

enum { SCI_EN = 1, SLP_TYP_SHIFT = 10, SLP_TYP_MASK = 7 << SLP_TYP_SHIFT, SLP_EN = 1 << 13 };
enum { KBD_STATUS = 0x64, KBD_RESET = 0xfe, CF9 = 0xcf9 };

#define PATIENCE 1000000 /* polls, of about a microsecond each */

static void wait_a_little(void)
{
	for (unsigned i = 0; i < PATIENCE / 10; i++)
		inb(KBD_STATUS);
}

/* Firmware in legacy mode ignores the PM1 registers until ACPI is switched on. */
static void enable_acpi(const struct acpi *a)
{
	if (inw(a->pm1_cnt[0]) & SCI_EN || !a->smi_cmd || !a->acpi_enable)
		return;
	outb(a->smi_cmd, a->acpi_enable);
	for (unsigned i = 0; i < PATIENCE && !(inw(a->pm1_cnt[0]) & SCI_EN); i++)
		cpu_pause();
}

static void set_sleep(const struct acpi *a, u16 enable)
{
	for (unsigned i = 0; i < ARRAY_SIZE(a->pm1_cnt); i++) {
		u16 port = a->pm1_cnt[i];

		if (port)
			outw(port, (u16)((inw(port) & ~(SLP_TYP_MASK | SLP_EN)) | a->s5[i] << SLP_TYP_SHIFT | enable));
	}
}

void acpi_power_off(const struct acpi *a)
{
	if (!a->have_s5 || !a->pm1_cnt[0])
		return;
	enable_acpi(a);
	set_sleep(a, 0); /* both types first: the second register's write may be what switches off */
	set_sleep(a, SLP_EN);
	wait_a_little();
}

void acpi_reset(const struct acpi *a)
{
	const struct {
		u16 port;
		u8 val;
	} way[] = {{a->reset_port, a->reset_value}, {CF9, 0x02}, {CF9, 0x06}, {KBD_STATUS, KBD_RESET}};
	static const u8 no_idt[10]; /* limit and base */

	cpu_cli();
	for (unsigned i = a->reset_port ? 0 : 1; i < ARRAY_SIZE(way); i++) {
		outb(way[i].port, way[i].val);
		wait_a_little();
	}
	/* With no IDT a breakpoint is a triple fault, and that is a reset. */
	asm_volatile("lidt %0; int3" ::"m"(no_idt));
	cpu_stop();
}
