/* SPDX-License-Identifier: MIT */
/*
 * 16550 UARTs. Nothing here waits for ever: a port that takes no more (flow control, a cable that confuses it, hardware
 * that lies) costs one long wait and then loses its output until it takes some again.
 */
#include "drivers/serial.h"

#include "arch/x86/cpu/cpu.h"
#include "lib/bits.h"

enum { DATA = 0, IER = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5 };

/* FCR: enable both FIFOs and clear them. MCR: DTR, RTS and OUT2, which is the interrupt line's gate. */
enum { IER_RECEIVE = 0x01, IIR_FIFO = 0xc0, FCR_ENABLE = 0x07, FIFO_DEPTH = 16 };
enum { LCR_8N1 = 0x03, LCR_DIVISOR = 0x80, DIVISOR_115200 = 1, MCR_NORMAL = 0x0b, MCR_LOOP = 0x10 };
enum { LSR_RECEIVED = 0x01, LSR_ROOM = 0x20, LSR_IDLE = 0x40, LSR_NO_PORT = 0xff };

#define PATIENCE 1000000 /* polls, of about a microsecond each */

struct uart {
	struct console_sink sink;
	u16 port;
	unsigned depth, room; /* bytes that fit at once; that still fit without asking */
	bool stuck;
};

static struct uart uarts[4]; /* written at open, before the console can use it */
static unsigned uart_count;

/* One writer, the interrupt handler, and one reader: head and tail count bytes. */
static u8 input[1024];
static u32 input_head, input_tail;

static u8 reg_read(const struct uart *u, unsigned reg) { return inb((u16)(u->port + reg)); }
static void reg_write(const struct uart *u, unsigned reg, u8 val) { outb((u16)(u->port + reg), val); }

static bool wait_for(const struct uart *u, u8 lsr_bit, unsigned polls)
{
	for (; polls && !(reg_read(u, LSR) & lsr_bit); polls--)
		cpu_pause();
	return polls;
}

static void put(struct uart *u, char c)
{
	if (!u->room) {
		u->stuck = !wait_for(u, LSR_ROOM, u->stuck ? 1 : PATIENCE);
		if (u->stuck)
			return;
		u->room = u->depth;
	}
	u->room--;
	reg_write(u, DATA, (u8)c);
}

static void serial_write(struct console_sink *s, const char *text, size_t len)
{
	struct uart *u = container_of(s, struct uart, sink);

	for (size_t i = 0; i < len; i++) {
		if (text[i] == '\n')
			put(u, '\r');
		put(u, text[i]);
	}
}

static void serial_drain(struct console_sink *s)
{
	struct uart *u = container_of(s, struct uart, sink);

	if (!u->stuck)
		wait_for(u, LSR_IDLE, PATIENCE);
}

/* What the firmware is still sending goes out first; then a byte must come back in loopback. */
static bool set_up(const struct uart *u)
{
	const u8 echo = 0xae;

	if (reg_read(u, LSR) == LSR_NO_PORT)
		return false;
	wait_for(u, LSR_IDLE, PATIENCE);
	reg_write(u, LCR, LCR_DIVISOR);
	reg_write(u, DATA, DIVISOR_115200);
	reg_write(u, IER, 0);
	reg_write(u, LCR, LCR_8N1);
	reg_write(u, IER, 0);
	reg_write(u, FCR, FCR_ENABLE);
	reg_write(u, MCR, MCR_LOOP);
	reg_write(u, DATA, echo);
	bool ok = wait_for(u, LSR_RECEIVED, PATIENCE / 10) && reg_read(u, DATA) == echo;
	reg_write(u, MCR, MCR_NORMAL);
	return ok;
}

bool serial_open(u16 port)
{
	for (unsigned i = 0; i < uart_count; i++)
		if (uarts[i].port == port)
			return true;
	if (uart_count == ARRAY_SIZE(uarts))
		return false;
	struct uart *u = &uarts[uart_count];

	*u = (struct uart){.sink = {.write = serial_write, .drain = serial_drain}, .port = port};
	if (!set_up(u))
		return false;
	u->depth = (reg_read(u, IIR) & IIR_FIFO) == IIR_FIFO ? FIFO_DEPTH : 1;
	uart_count++;
	console_add_sink(&u->sink);
	return true;
}

int serial_input_irq(void)
{
	if (!uart_count)
		return -1;
	reg_write(&uarts[0], IER, IER_RECEIVE);
	return uarts[0].port & 0x100 ? 4 : 3; /* COM1 and COM3; COM2 and COM4 */
}

void serial_interrupt(void)
{
	const struct uart *u = &uarts[0];

	/* The line is edge-triggered: it stays dead unless all is read. No port holds more than the bound. */
	for (unsigned i = 0; i < sizeof(input) && reg_read(u, LSR) & LSR_RECEIVED; i++) {
		u8 c = reg_read(u, DATA);

		if (input_head - atomic_load(&input_tail) == sizeof(input))
			continue;
		input[input_head % sizeof(input)] = c;
		atomic_store(&input_head, input_head + 1);
	}
}

int serial_getc(void)
{
	if (input_tail == atomic_load(&input_head))
		return -1;
	u8 c = input[input_tail % sizeof(input)];

	atomic_store(&input_tail, input_tail + 1);
	return c;
}
