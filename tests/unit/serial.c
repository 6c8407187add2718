/* SPDX-License-Identifier: MIT */
/* The serial driver on ports that are plain memory: what it does with one that answers, sticks, or floods it. */
#include "arch/x86/cpu/cpu.h"

static u8 regs[8];

static u8 *fake_reg(u16 port)
{
	static u8 nothing;

	nothing = 0xff;
	return port >> 3 == 0x3f8 >> 3 ? &regs[port & 7] : &nothing;
}

#define inb(port)       (*fake_reg(port))
#define outb(port, val) (*fake_reg(port) = (val))

#include "drivers/serial.c"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void say(const char *s) { console_write("", s, strlen(s)); }

static void absent_ports(void **state)
{
	assert_false(serial_open(0x2f8));
	assert_false(serial_open(0x3f8)); /* no status bit ever: the echo does not come */
	assert_int_equal(serial_input_irq(), -1);
	assert_int_equal(serial_getc(), -1);
}

/* Memory passes the probe: what is written to the data register in loopback is read there again. */
static void opens_once(void **state)
{
	regs[LSR] = LSR_RECEIVED | LSR_ROOM | LSR_IDLE;
	assert_true(serial_open(0x3f8));
	assert_true(serial_open(0x3f8));
	assert_int_equal(uart_count, 1);
	assert_int_equal(regs[LCR], LCR_8N1);
	assert_int_equal(regs[MCR], MCR_NORMAL);
	assert_int_equal(serial_input_irq(), 4);
	assert_int_equal(regs[IER], IER_RECEIVE);
	say("x");
	assert_int_equal(regs[DATA], 'x');
}

/* A FIFO takes 16 bytes for each time that it is seen empty. */
static void fills_the_fifo(void **state)
{
	struct uart *u = &uarts[0];

	u->depth = 16;
	u->room = 0;
	say("0123456789abcde");
	assert_int_equal(u->room, 1);
	regs[LSR] = 0; /* full, as far as one can see; but one more fits */
	say("f");
	assert_int_equal(regs[DATA], 'f');
	assert_false(u->stuck);
	regs[LSR] = LSR_ROOM;
	say("\n");
	assert_int_equal(u->room, 14); /* CR LF */
}

static void stuck_port_loses_output_and_recovers(void **state)
{
	struct uart *u = &uarts[0];

	u->room = 0;
	regs[LSR] = 0;
	regs[DATA] = 0;
	for (unsigned i = 0; i < 1000; i++)
		say("lost\n"); /* one long wait in all */
	assert_true(u->stuck);
	assert_int_equal(regs[DATA], 0);
	console_drain();
	regs[LSR] = LSR_ROOM;
	say("b");
	assert_int_equal(regs[DATA], 'b');
	assert_false(u->stuck);
}

static void input_ring(void **state)
{
	regs[DATA] = 'k';
	regs[LSR] = LSR_RECEIVED; /* a port that says for ever that it has more */
	serial_interrupt();
	serial_interrupt();
	for (unsigned i = 0; i < sizeof(input); i++)
		assert_int_equal(serial_getc(), 'k');
	assert_int_equal(serial_getc(), -1);
	regs[LSR] = 0;
	serial_interrupt();
	assert_int_equal(serial_getc(), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(absent_ports),   cmocka_unit_test(opens_once),
		cmocka_unit_test(fills_the_fifo), cmocka_unit_test(stuck_port_loses_output_and_recovers),
		cmocka_unit_test(input_ring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
