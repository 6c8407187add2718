/* SPDX-License-Identifier: MIT */
/* Switching the machine off and resetting it: ACPI 6.5, 4.8.3 and 7.4; then what PCs have besides. */
#include "arch/x86/cpu/cpu.h"
#include "drivers/acpi.h"

#define SCI_EN        BIT(0)
#define SLP_TYP_SHIFT 10
#define SLP_TYP_MASK  (7u << SLP_TYP_SHIFT)
#define SLP_EN        BIT(13)

#define SPACE_IO 1

#define KBD_STATUS 0x64
#define KBD_FULL   0x02
#define KBD_RESET  0xfe
#define CF9        0xcf9

#define PATIENCE 1000000 /* polls, of about a microsecond each */

static void wait_a_little(void)
{
	for (unsigned i = 0; i < PATIENCE / 10; i++)
		inb(KBD_STATUS);
}

/* Firmware in legacy mode ignores the PM1 registers until ACPI is switched on. */
static void enable_acpi(const struct acpi *a)
{
	u16 pm1a = (u16)a->pm1a_cnt.addr;

	if (inw(pm1a) & SCI_EN || !a->smi_cmd || !a->acpi_enable)
		return;
	outb((u16)a->smi_cmd, a->acpi_enable);
	for (unsigned i = 0; i < PATIENCE && !(inw(pm1a) & SCI_EN); i++)
		cpu_pause();
}

static void set_sleep(const struct acpi_gas *reg, u8 type, u16 enable)
{
	u16 port = (u16)reg->addr;

	if (reg->space == SPACE_IO && port)
		outw(port, (u16)((inw(port) & ~(SLP_TYP_MASK | SLP_EN)) | (u16)type << SLP_TYP_SHIFT | enable));
}

void acpi_power_off(const struct acpi *a)
{
	if (!a->have_s5 || a->pm1a_cnt.space != SPACE_IO || !a->pm1a_cnt.addr)
		return;
	enable_acpi(a);
	/* Both types first: the second register's write may be what switches off. */
	set_sleep(&a->pm1a_cnt, a->s5_a, 0);
	set_sleep(&a->pm1b_cnt, a->s5_b, 0);
	set_sleep(&a->pm1a_cnt, a->s5_a, SLP_EN);
	set_sleep(&a->pm1b_cnt, a->s5_b, SLP_EN);
	wait_a_little();
}

void acpi_reset(const struct acpi *a)
{
	static const struct {
		u16 limit;
		u64 base;
	} PACKED no_idt = {0, 0};

	cpu_cli();
	if (a->have_reset && a->reset.space == SPACE_IO) {
		outb((u16)a->reset.addr, a->reset_value);
		wait_a_little();
	}
	outb(CF9, 0x02);
	outb(CF9, 0x06);
	wait_a_little();
	for (unsigned i = 0; i < PATIENCE && inb(KBD_STATUS) & KBD_FULL; i++)
		cpu_pause();
	outb(KBD_STATUS, KBD_RESET);
	wait_a_little();
	/* With no IDT a breakpoint is a triple fault, and that is a reset. */
	asm_volatile("lidt %0; int3" ::"m"(no_idt));
	for (;;)
		asm_volatile("hlt");
}
