/* SPDX-License-Identifier: MIT */
/* The I/O APIC (Intel 82093AA): turns interrupt lines into messages to local APICs. */
#include "devices/chips.h"
#include "lib/bits.h"

enum { WINDOW = 0x10 /* where the selected register is seen */, VERSION = 0x11 | (IOAPIC_PINS - 1) << 16 };
enum { REDIR_LOGICAL = 1 << 11, REDIR_REMOTE_IRR = 1 << 14, REDIR_LEVEL = 1 << 15, REDIR_MASKED = 1 << 16 };

#define REDIR_WRITABLE (BITS(63, 56) | 0x1affful)

static u8 delivery(u64 e) { return (e >> 8) & 7; }

/* Only fixed and lowest-priority interrupts are ended by an EOI; others are edges whatever the entry says. */
static bool is_level(u64 e) { return (e & REDIR_LEVEL) && delivery(e) <= APIC_LOWEST; }

static bool send(struct platform *p, u64 e)
{
	struct apic_msg m = {.vector = (u8)e, .delivery = delivery(e), .level = is_level(e)};

	m.logical = e & REDIR_LOGICAL;
	m.dest = (u32)(e >> 56);
	if (!m.logical && m.dest == 0xff)
		m.dest = APIC_BROADCAST;
	return lapic_send(p, NULL, &m);
}

/* A level-triggered input that is high is sent once, and again after its EOI. */
static void send_level(struct platform *p, unsigned pin)
{
	u64 *e = &p->ioapic.redir[pin];

	if (is_level(*e) && (p->ioapic.lines & BIT(pin)) && !(*e & (REDIR_MASKED | REDIR_REMOTE_IRR)) && send(p, *e))
		*e |= REDIR_REMOTE_IRR;
}

void ioapic_line(struct platform *p, unsigned pin, bool level)
{
	struct ioapic *io = &p->ioapic;
	u64 e = io->redir[pin];
	bool rises = level && !(io->lines & BIT(pin));

	io->lines = level ? io->lines | (u32)BIT(pin) : io->lines & ~(u32)BIT(pin);
	if (is_level(e))
		send_level(p, pin);
	else if (rises && !(e & REDIR_MASKED))
		send(p, e);
}

void platform_eoi(struct platform *p, u8 vector)
{
	lock_take(&p->lock);
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		u64 *e = &p->ioapic.redir[pin];

		if ((*e & REDIR_REMOTE_IRR) && (u8)*e == vector) {
			*e &= ~REDIR_REMOTE_IRR;
			send_level(p, pin);
		}
	}
	lock_drop(&p->lock);
}

static u32 read_register(const struct ioapic *io)
{
	unsigned n = io->select - 0x10u;

	if (n < 2 * IOAPIC_PINS)
		return (u32)(io->redir[n / 2] >> (n & 1) * 32);
	return io->select == 1 ? VERSION : io->select == 0 || io->select == 2 ? io->id : 0;
}

/* To make an entry edge-triggered clears its remote IRR: how drivers end interrupts of an APIC without EOI register. */
static void write_register(struct platform *p, u32 val)
{
	struct ioapic *io = &p->ioapic;
	unsigned n = io->select - 0x10u, half = (n & 1) * 32;

	if (io->select == 0)
		io->id = val & 0x0f000000;
	if (n >= 2 * IOAPIC_PINS)
		return;
	u64 *e = &io->redir[n / 2], writable = REDIR_WRITABLE & 0xfffffffful << half;

	*e = (*e & ~writable) | ((u64)val << half & writable);
	if (!is_level(*e))
		*e &= ~REDIR_REMOTE_IRR;
	send_level(p, n / 2);
}

void ioapic_mmio(void *platform, struct bus_op *op)
{
	struct platform *p = platform;
	struct ioapic *io = &p->ioapic;

	if (op->addr == IOAPIC_BASE && op->write)
		io->select = (u8)op->val;
	else if (op->addr == IOAPIC_BASE)
		op->val = io->select;
	else if (op->addr == IOAPIC_BASE + WINDOW && !op->write)
		op->val = read_register(io);
	else if (op->addr == IOAPIC_BASE + WINDOW && op->size == 4)
		write_register(p, (u32)op->val);
}

void ioapic_init(struct platform *p)
{
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		p->ioapic.redir[pin] = REDIR_MASKED;
}
