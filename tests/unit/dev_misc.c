/* SPDX-License-Identifier: MIT */
/* The rest of the PC: serial port, ACPI power management, PCI configuration, resets. */
#include "tests/unit/pc.h"

#define THR 0x3f8
#define IER 0x3f9
#define IIR 0x3fa
#define LCR 0x3fb
#define MCR 0x3fc
#define LSR 0x3fd
#define MSR 0x3fe
#define SCR 0x3ff

/* COM1 with its interrupt at the IOAPIC. */
static struct pc *pc_with_uart(void)
{
	struct pc *pc = pc_new();

	apic_enable(pc);
	ioapic_write(pc, 0x10 + 2 * 4, 0x44);
	return pc;
}

static void uart_is_found(void **state)
{
	struct pc *pc = pc_with_uart();

	/* as Linux's autoconfig looks */
	out8(pc, IER, 0);
	assert_int_equal(in8(pc, IER) & 0xf, 0);
	out8(pc, IER, 0xff);
	assert_int_equal(in8(pc, IER), 0xf);
	out8(pc, IER, 0);
	out8(pc, MCR, 0x1a); /* loopback, OUT2, RTS */
	assert_int_equal(in8(pc, MSR) & 0xf0, 0x90);
	out8(pc, MCR, 0);
	assert_int_equal(in8(pc, MSR) & 0xf0, 0xb0);
	out8(pc, LCR, 0xbf);
	out8(pc, IIR, 0);
	out8(pc, LCR, 0);
	out8(pc, IIR, 1);
	assert_int_equal(in8(pc, IIR) >> 6, 3); /* a 16550A */
	out8(pc, LCR, 0x80);
	assert_int_not_equal(in8(pc, IIR), 0); /* no EFR */
	out8(pc, LCR, 0);
	out8(pc, IIR, 0x21);
	assert_int_equal(in8(pc, IIR) >> 5, 6); /* no 16750 */
	out8(pc, SCR, 0x5a);
	assert_int_equal(in8(pc, SCR), 0x5a);
	pc_free(pc);
}

static void uart_sends(void **state)
{
	struct pc *pc = pc_with_uart();

	for (const char *s = "hello"; *s; s++) {
		assert_int_equal(in8(pc, LSR), 0x60);
		out8(pc, THR, (u8)*s);
	}
	out16(pc, 0x3f8, 'w' | 0x0500); /* a word is two bytes: THR, then IER */
	assert_int_equal(in8(pc, IER), 5);
	out8(pc, LCR, 0x83);
	out8(pc, THR, 12); /* the divisor */
	out8(pc, IER, 3);
	assert_int_equal(in16(pc, THR), 0x030c);
	out8(pc, LCR, 3);
	assert_int_equal(in8(pc, IER), 5);
	assert_int_equal(pc->out_len, 6);
	assert_memory_equal(pc->out, "hellow", 6);
	pc_free(pc);
}

static void uart_transmit_interrupt(void **state)
{
	struct pc *pc = pc_with_uart();

	out8(pc, IER, 2);
	assert_int_equal(serve(pc, 0), -1); /* OUT2 gates it */
	out8(pc, IER, 0);
	out8(pc, MCR, 8);
	out8(pc, IER, 2);
	assert_int_equal(serve(pc, 0), 0x44);
	assert_int_equal(in8(pc, IIR), 0x02);
	assert_int_equal(in8(pc, IIR), 0x01); /* reading it was the acknowledge */
	/* Linux's test for a bug of others: disabling and enabling raises it again */
	out8(pc, IER, 0);
	out8(pc, IER, 2);
	assert_int_equal(in8(pc, IIR), 0x02);
	assert_int_equal(serve(pc, 0), 0x44);
	out8(pc, IER, 2); /* was enabled: nothing */
	assert_int_equal(in8(pc, IIR), 0x01);
	for (unsigned i = 0; i < 16; i++)
		out8(pc, THR, 'x');
	assert_int_equal(serve(pc, 0), 0x44); /* one for the 16 */
	assert_int_equal(serve(pc, 0), -1);
	assert_int_equal(in8(pc, IIR), 0x02);
	out8(pc, THR, 'y');
	assert_int_equal(serve(pc, 0), 0x44);
	pc_free(pc);
}

static void uart_receives(void **state)
{
	struct pc *pc = pc_with_uart();
	unsigned n = 0;

	out8(pc, MCR, 8);
	out8(pc, IER, 5);
	assert_int_equal(in8(pc, THR), 0);
	assert_true(platform_input(&pc->p, 'a'));
	assert_true(platform_input(&pc->p, 'b'));
	assert_int_equal(serve(pc, 0), 0x44);
	assert_int_equal(serve(pc, 0), -1); /* an edge: one until it was low */
	assert_int_equal(in8(pc, IIR), 0x04);
	assert_int_equal(in8(pc, LSR), 0x61);
	assert_int_equal(in8(pc, THR), 'a');
	assert_int_equal(in8(pc, THR), 'b');
	assert_int_equal(in8(pc, LSR), 0x60);
	assert_int_equal(in8(pc, IIR), 0x01);
	while (platform_input(&pc->p, (u8)n))
		n++;
	assert_int_equal(n, 256);
	assert_int_equal(serve(pc, 0), 0x44);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(in8(pc, THR), i);
	platform_input(&pc->p, 'z');
	out8(pc, IIR, 3); /* clears what was received */
	assert_int_equal(in8(pc, LSR), 0x60);
	pc_free(pc);
}

static void uart_loops_back(void **state)
{
	struct pc *pc = pc_with_uart();

	in8(pc, MSR);
	out8(pc, MCR, 0x10);
	assert_int_equal(in8(pc, MSR), 0);
	out8(pc, MCR, 0x1f);
	assert_int_equal(in8(pc, MSR), 0xf0);
	out8(pc, THR, 'q');
	assert_int_equal(pc->out_len, 0);
	assert_int_equal(in8(pc, THR), 'q');
	for (unsigned i = 0; i < 257; i++)
		out8(pc, THR, 'r');
	assert_int_equal(in8(pc, LSR), 0x61);
	/* the interrupt */
	out8(pc, IER, 1);
	assert_int_equal(serve(pc, 0), -1); /* loopback disconnects the line */
	out8(pc, MCR, 0x08);
	assert_int_equal(serve(pc, 0), 0x44);
	pc_free(pc);
}

static void acpi_powers_off(void **state)
{
	struct pc *pc = pc_new();

	assert_int_equal(in16(pc, PM_CNT_PORT), 1); /* SCI_EN: ACPI mode from the start */
	out16(pc, PM_CNT_PORT, 0);
	assert_int_equal(in16(pc, PM_CNT_PORT), 1);
	out16(pc, PM_CNT_PORT, S5_TYPE << 10);
	assert_int_equal(in16(pc, PM_CNT_PORT), 1 | S5_TYPE << 10);
	out16(pc, PM_CNT_PORT, 1 << 13); /* S0 */
	assert_int_equal(pc->power_events, 0);
	out16(pc, PM_CNT_PORT, 1 << 13 | S5_TYPE << 10);
	assert_int_equal(pc->power_events, 1);
	assert_int_equal(pc->power, POWER_OFF);
	assert_string_equal(pc->how, "ACPI S5");
	out8(pc, PM_CNT_PORT + 1, 1 << 5 | S5_TYPE << 2); /* by its high byte */
	assert_int_equal(pc->power_events, 2);
	pc_free(pc);
}

static void acpi_events_are_enabled_in_vain(void **state)
{
	struct pc *pc = pc_new();

	out16(pc, PM_EVT_PORT + 2, 0xffff);
	assert_int_equal(in16(pc, PM_EVT_PORT + 2), 0x0721);
	out8(pc, PM_EVT_PORT + 3, 4); /* half a register */
	assert_int_equal(in16(pc, PM_EVT_PORT + 2), 0x0421);
	out16(pc, PM_EVT_PORT, 0xffff);
	assert_int_equal(in32(pc, PM_EVT_PORT), 0x04210000);
	assert_int_equal(in16(pc, PM_CNT_PORT + 2), 0xffff);
	pc_free(pc);
}

static void pci_has_a_host_bridge(void **state)
{
	struct pc *pc = pc_new();

	/* as Linux probes mechanism 1 */
	out8(pc, 0xcfb, 1);
	out32(pc, 0xcf8, 0x80000000);
	assert_int_equal(in32(pc, 0xcf8), 0x80000000);
	assert_int_equal(in32(pc, 0xcfc), 0x00081b36);
	assert_int_equal(in16(pc, 0xcfe), 0x0008);
	assert_int_equal(in8(pc, 0xcfc), 0x36);
	out32(pc, 0xcf8, 0x80000008);
	assert_int_equal(in16(pc, 0xcfe), 0x0600); /* class */
	out32(pc, 0xcf8, 0x8000003c);
	out8(pc, 0xcfc, 11);
	assert_int_equal(in32(pc, 0xcfc), 0); /* it has no interrupt */
	out32(pc, 0xcf8, 0x80000010);
	out32(pc, 0xcfc, 0xffffffff);
	assert_int_equal(in32(pc, 0xcfc), 0); /* no BARs */
	/* nothing else is there */
	static const u32 absent[] = {0x80000100, 0x80000800, 0x8000f800, 0x80010000, 0x80ff0000};

	for (unsigned i = 0; i < ARRAY_SIZE(absent); i++) {
		out32(pc, 0xcf8, absent[i]);
		assert_int_equal(in32(pc, 0xcfc), 0xffffffff);
	}
	out32(pc, 0xcf8, 0); /* disabled */
	assert_int_equal(in32(pc, 0xcfc), 0xffffffff);
	out16(pc, 0xcf8, 0xffff);
	assert_int_equal(in32(pc, 0xcf8), 0);
	assert_int_equal(in16(pc, 0xcf8), 0xffff);
	pc_free(pc);
}

static void resets(void **state)
{
	struct pc *pc = pc_new();

	out8(pc, RESET_PORT, 2);
	assert_int_equal(pc->power_events, 0);
	assert_int_equal(in8(pc, RESET_PORT), 0);
	out8(pc, RESET_PORT, 6);
	assert_int_equal(pc->power_events, 1);
	assert_int_equal(pc->power, POWER_RESET);
	assert_string_equal(pc->how, "port CF9");
	out8(pc, 0x64, 0xfe);
	assert_int_equal(pc->power_events, 2);
	assert_string_equal(pc->how, "8042");
	out8(pc, 0x64, 0xd1);
	out8(pc, 0x60, 0xdf); /* A20, which is open */
	assert_int_equal(pc->power_events, 2);
	out8(pc, 0x92, 3); /* nobody there: reads as an open A20 gate */
	assert_int_equal(in8(pc, 0x92), 0xff);
	assert_int_equal(pc->power_events, 2);
	pc_free(pc);
}

static void keyboard_controller_answers(void **state)
{
	struct pc *pc = pc_new();

	assert_int_equal(in8(pc, 0x64), 0x14); /* nothing to read, ready for a command */
	out8(pc, 0x64, 0xaa);
	assert_int_equal(in8(pc, 0x64), 0x15);
	assert_int_equal(in8(pc, 0x60), 0x55);
	assert_int_equal(in8(pc, 0x64), 0x14);
	out8(pc, 0x64, 0x60);
	out8(pc, 0x60, 0x47);
	out8(pc, 0x64, 0x20);
	assert_int_equal(in8(pc, 0x60), 0);
	out8(pc, 0x64, 0xab);
	assert_int_not_equal(in8(pc, 0x60), 0);
	out8(pc, 0x64, 0xd0);
	assert_int_equal(in8(pc, 0x60), 3);
	out8(pc, 0x60, 0xff); /* to a keyboard: nobody answers */
	assert_int_equal(in8(pc, 0x64), 0x14);
	pc_free(pc);
}

static void nobodys_ports_are_silent(void **state)
{
	struct pc *pc = pc_new();

	out8(pc, 0x80, 0x55);
	assert_int_equal(in8(pc, 0x80), 0xff);
	assert_int_equal(in16(pc, 0x2f8), 0xffff);
	assert_int_equal(in32(pc, 0xffff), 0xffffffff);
	assert_int_equal(in16(pc, 0x3ff), 0xff00); /* the scratch register, and a hole */
	pc_free(pc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(uart_is_found),
		cmocka_unit_test(uart_sends),
		cmocka_unit_test(uart_transmit_interrupt),
		cmocka_unit_test(uart_receives),
		cmocka_unit_test(uart_loops_back),
		cmocka_unit_test(acpi_powers_off),
		cmocka_unit_test(acpi_events_are_enabled_in_vain),
		cmocka_unit_test(pci_has_a_host_bridge),
		cmocka_unit_test(resets),
		cmocka_unit_test(keyboard_controller_answers),
		cmocka_unit_test(nobodys_ports_are_silent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
