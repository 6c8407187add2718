/* SPDX-License-Identifier: MIT */
/*
 * A 16550A at COM1. What is sent is out at once, so the transmitter is always empty and a guest that polls it never
 * waits; the interrupt that says so still comes, as drivers rely on it.
 */
#include "devices/chips.h"

#define UART_PORT 0x3f8
#define UART_IRQ  4

/* Registers; the first two are the divisor while LCR_DLAB is set. */
enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

#define IER_RX   1
#define IER_THRE 2
#define IER_LSR  4
#define IER_MSR  8

#define IIR_MSR  0x00
#define IIR_NONE 0x01
#define IIR_THRE 0x02
#define IIR_RX   0x04
#define IIR_LSR  0x06
#define IIR_FIFO 0xc0

#define FCR_ENABLE   1
#define FCR_CLEAR_RX 2
#define LCR_DLAB     0x80
#define MCR_OUT2     8
#define MCR_LOOP     0x10
#define LSR_READY    1
#define LSR_OVERRUN  2
#define LSR_EMPTY    0x60 /* holding and shift register */
#define MSR_ONLINE   0xb0 /* CTS, DSR, DCD */

/* The pending interrupt of the highest priority. */
static u8 cause(const struct uart *u)
{
	if ((u->ier & IER_LSR) && u->lsr_errors)
		return IIR_LSR;
	if ((u->ier & IER_RX) && u->rx_count)
		return IIR_RX;
	if ((u->ier & IER_THRE) && u->thre_pending)
		return IIR_THRE;
	return (u->ier & IER_MSR) && u->msr_delta ? IIR_MSR : IIR_NONE;
}

/* OUT2 gates the interrupt on a PC, and loopback disconnects OUT2. */
static void update(struct platform *p)
{
	struct uart *u = &p->uart;
	bool line = cause(u) != IIR_NONE && (u->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;

	if (line != u->line)
		platform_irq(p, UART_IRQ, line);
	u->line = line;
}

/* In loopback RTS, DTR, OUT1 and OUT2 arrive as CTS, DSR, RI and DCD. */
static u8 modem_lines(const struct uart *u)
{
	u8 mcr = u->mcr;

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

bool uart_input(struct platform *p, u8 c)
{
	bool taken = receive(&p->uart, c);

	update(p);
	return taken;
}

static u8 read_data(struct uart *u)
{
	u8 c;

	if (!u->rx_count)
		return 0;
	c = u->rx[u->rx_head];
	u->rx_head = (u->rx_head + 1) % sizeof(u->rx);
	u->rx_count--;
	return c;
}

static u8 read_iir(struct uart *u)
{
	u8 c = cause(u);

	if (c == IIR_THRE)
		u->thre_pending = false;
	return c | (u->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static u8 read_lsr(struct uart *u)
{
	u8 lsr = LSR_EMPTY | u->lsr_errors | (u->rx_count ? LSR_READY : 0);

	u->lsr_errors = 0;
	return lsr;
}

static u8 read_msr(struct uart *u)
{
	u8 msr = modem_lines(u) | u->msr_delta;

	u->msr_delta = 0;
	return msr;
}

static u8 read_register(struct uart *u, unsigned reg)
{
	bool dlab = u->lcr & LCR_DLAB;

	switch (reg) {
	case REG_DATA:
		return dlab ? u->dll : read_data(u);
	case REG_IER:
		return dlab ? u->dlm : u->ier;
	case REG_IIR_FCR:
		return read_iir(u);
	case REG_LCR:
		return u->lcr;
	case REG_MCR:
		return u->mcr;
	case REG_LSR:
		return read_lsr(u);
	case REG_MSR:
		return read_msr(u);
	default:
		return u->scr;
	}
}

static void write_data(struct platform *p, u8 val)
{
	struct uart *u = &p->uart;

	if (!(u->mcr & MCR_LOOP))
		p->ops->console_out(p->ctx, val);
	else if (!receive(u, val))
		u->lsr_errors |= LSR_OVERRUN;
	u->thre_pending = true;
}

/* Enabling the transmitter's interrupt while it is empty raises it, again each time: drivers test for that. */
static void write_ier(struct uart *u, u8 val)
{
	if (val & ~u->ier & IER_THRE)
		u->thre_pending = true;
	u->ier = val & 0xf;
}

static void write_fcr(struct uart *u, u8 val)
{
	if ((val ^ u->fcr) & FCR_ENABLE || val & FCR_CLEAR_RX)
		u->rx_count = 0;
	u->fcr = val & FCR_ENABLE;
}

static void write_mcr(struct uart *u, u8 val)
{
	u8 before = modem_lines(u);

	u->mcr = val & 0x1f;
	u->msr_delta |= (before ^ modem_lines(u)) >> 4;
}

static void write_register(struct platform *p, unsigned reg, u8 val)
{
	struct uart *u = &p->uart;
	bool dlab = u->lcr & LCR_DLAB;

	switch (reg) {
	case REG_DATA:
		if (dlab)
			u->dll = val;
		else
			write_data(p, val);
		break;
	case REG_IER:
		if (dlab)
			u->dlm = val;
		else
			write_ier(u, val);
		break;
	case REG_IIR_FCR:
		write_fcr(u, val);
		break;
	case REG_LCR:
		u->lcr = val;
		break;
	case REG_MCR:
		write_mcr(u, val);
		break;
	case REG_SCR:
		u->scr = val;
		break;
	}
}

static void uart_io(void *dev, struct bus_op *op)
{
	struct platform *p = dev;

	if (op->size != 1) {
		bus_split(uart_io, dev, op);
		return;
	}
	if (op->write)
		write_register(p, op->addr & 7, (u8)op->val);
	else
		op->val = read_register(&p->uart, op->addr & 7);
	update(p);
}

int uart_attach(struct platform *p)
{
	p->uart.dll = 1; /* 115200 */
	return bus_add(&p->bus, BUS_PIO, UART_PORT, 8, "uart", uart_io, p);
}
