/* SPDX-License-Identifier: MIT */
/*
 * A 16550A at COM1. What is sent is out at once, so the transmitter is always empty and a guest that polls it never
 * waits; the interrupt that says so still comes, as drivers rely on it.
 */
#include "devices/chips.h"

#define UART_IRQ 4

/* Registers; the first two are the divisor while LCR_DLAB is set. IIR is read where FCR is written. */
enum { REG_DATA, REG_IER, REG_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

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
	if ((u->reg[REG_IER] & IER_LSR) && u->lsr_errors)
		return IIR_LSR;
	if ((u->reg[REG_IER] & IER_RX) && u->rx_count)
		return IIR_RX;
	if ((u->reg[REG_IER] & IER_THRE) && u->thre_pending)
		return IIR_THRE;
	return (u->reg[REG_IER] & IER_MSR) && u->msr_delta ? IIR_MSR : IIR_NONE;
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
static u8 modem_lines(const struct uart *u)
{
	u8 mcr = u->reg[REG_MCR];

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
	return c | (u->reg[REG_FCR] & FCR_ENABLE ? IIR_FIFO : 0);
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
	switch (reg) {
	case REG_DATA:
		return read_data(u);
	case REG_FCR:
		return read_iir(u);
	case REG_LSR:
		return read_lsr(u);
	case REG_MSR:
		return read_msr(u);
	default:
		return u->reg[reg];
	}
}

static void write_data(struct platform *p, u8 val)
{
	struct uart *u = &p->uart;

	if (!(u->reg[REG_MCR] & MCR_LOOP))
		p->ops->console_out(p->ctx, val);
	else if (!receive(u, val))
		u->lsr_errors |= LSR_OVERRUN;
	u->thre_pending = true;
}

/* Enabling the transmitter's interrupt while it is empty raises it, again each time: drivers test for that. */
static void write_ier(struct uart *u, u8 val)
{
	if (val & ~u->reg[REG_IER] & IER_THRE)
		u->thre_pending = true;
	u->reg[REG_IER] = val & 0xf;
}

static void write_fcr(struct uart *u, u8 val)
{
	if ((val ^ u->reg[REG_FCR]) & FCR_ENABLE || val & FCR_CLEAR_RX)
		u->rx_count = 0;
	u->reg[REG_FCR] = val & FCR_ENABLE;
}

static void write_mcr(struct uart *u, u8 val)
{
	u8 before = modem_lines(u);

	u->reg[REG_MCR] = val & 0x1f;
	u->msr_delta |= (before ^ modem_lines(u)) >> 4;
}

static void write_register(struct platform *p, unsigned reg, u8 val)
{
	switch (reg) {
	case REG_DATA:
		write_data(p, val);
		break;
	case REG_IER:
		write_ier(&p->uart, val);
		break;
	case REG_FCR:
		write_fcr(&p->uart, val);
		break;
	case REG_MCR:
		write_mcr(&p->uart, val);
		break;
	default:
		p->uart.reg[reg] = val; /* of LSR and MSR nothing is read from here */
	}
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
