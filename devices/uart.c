/* SPDX-License-Identifier: MIT */
/*
 * A 16550A at COM1. What is sent is out at once, so the transmitter is always empty and a guest that polls it never
 * waits; the interrupt that says so still comes, as drivers rely on it. Lines never change nor fail, so there are no
 * interrupts of line and modem status.
 */
#include "devices/chips.h"

#define UART_IRQ 4

/* Registers; the first two are the divisor while LCR_DLAB is set. IIR is read where FCR is written. */
enum { REG_DATA, REG_IER, REG_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR };
enum { IER_RX = 1, IER_THRE = 2 };
enum { IIR_NONE = 1, IIR_THRE = 2, IIR_RX = 4, IIR_FIFO = 0xc0 };
enum { FCR_ENABLE = 1, FCR_CLEAR_RX = 2 };
enum { LCR_DLAB = 0x80, MCR_OUT2 = 8, MCR_LOOP = 0x10 };
/* EMPTY: holding and shift register. ONLINE: CTS, DSR and DCD. */
enum { LSR_READY = 1, LSR_EMPTY = 0x60, MSR_ONLINE = 0xb0 };

/* The pending interrupt of the highest priority. */
static u8 cause(const struct uart *u)
{
	if ((u->reg[REG_IER] & IER_RX) && u->rx_count)
		return IIR_RX;
	return (u->reg[REG_IER] & IER_THRE) && u->thre_pending ? IIR_THRE : IIR_NONE;
}

/* OUT2 gates the interrupt on a PC, and loopback disconnects OUT2. */
static void update(struct platform *p)
{
	struct uart *u = &p->uart;
	bool line = cause(u) != IIR_NONE && (u->reg[REG_MCR] & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;

	if (line != u->line)
		platform_irq(p, UART_IRQ, line);
	u->line = line;
}

/* In loopback RTS, DTR, OUT1 and OUT2 arrive as CTS, DSR, RI and DCD. */
static u8 modem_lines(u8 mcr)
{
	if (!(mcr & MCR_LOOP))
		return MSR_ONLINE;
	return (u8)((mcr & 2) << 3 | (mcr & 1) << 5 | (mcr & 4) << 4 | (mcr & 8) << 4);
}

static bool receive(struct uart *u, u8 c)
{
	if (u->rx_count == sizeof(u->rx))
		return false;
	u->rx[(u->rx_head + u->rx_count++) % sizeof(u->rx)] = c;
	return true;
}

bool platform_input(struct platform *p, u8 c)
{
	bool taken;

	lock_take(&p->lock);
	taken = receive(&p->uart, c);
	update(p);
	lock_drop(&p->lock);
	return taken;
}

static u8 read_data(struct uart *u)
{
	u8 c = u->rx[u->rx_head];

	if (!u->rx_count)
		return 0;
	u->rx_head = (u->rx_head + 1) % sizeof(u->rx);
	u->rx_count--;
	return c;
}

static u8 read_iir(struct uart *u)
{
	u8 c = cause(u);

	if (c == IIR_THRE)
		u->thre_pending = false;
	return c | (u->reg[REG_FCR] & FCR_ENABLE ? IIR_FIFO : 0);
}

static u8 read_register(struct uart *u, unsigned reg)
{
	switch (reg) {
	case REG_DATA:
		return read_data(u);
	case REG_FCR:
		return read_iir(u);
	case REG_LSR:
		return LSR_EMPTY | (u->rx_count ? LSR_READY : 0);
	case REG_MSR:
		return modem_lines(u->reg[REG_MCR]);
	default:
		return u->reg[reg];
	}
}

static void send(struct platform *p, u8 val)
{
	struct uart *u = &p->uart;

	if (u->reg[REG_MCR] & MCR_LOOP)
		receive(u, val);
	else
		p->ops->console_out(p->ctx, val);
	u->thre_pending = true;
}

static void write_register(struct platform *p, unsigned reg, u8 val)
{
	static const u8 writable[] = {0, 0x0f, FCR_ENABLE, 0xff, 0x1f, 0, 0, 0xff};
	struct uart *u = &p->uart;
	u8 changed = val ^ u->reg[reg];

	/* Enabling the transmitter's interrupt while it is empty raises it, again each time: drivers test for that. */
	if (reg == REG_DATA)
		send(p, val);
	else if (reg == REG_IER && (changed & val & IER_THRE))
		u->thre_pending = true;
	else if (reg == REG_FCR && (changed & FCR_ENABLE || val & FCR_CLEAR_RX))
		u->rx_count = 0;
	u->reg[reg] = val & writable[reg];
}

void uart_io(void *platform, struct bus_op *op)
{
	struct platform *p = platform;
	struct uart *u = &p->uart;
	unsigned reg = op->addr & 7;
	bool divisor = reg < 2 && (u->reg[REG_LCR] & LCR_DLAB);

	if (divisor && op->write)
		u->divisor[reg] = (u8)op->val;
	else if (divisor)
		op->val = u->divisor[reg];
	else if (op->write)
		write_register(p, reg, (u8)op->val);
	else
		op->val = read_register(u, reg);
	update(p);
}
