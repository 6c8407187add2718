/* SPDX-License-Identifier: MIT */
/* The two 8259A interrupt controllers, and the registers that choose edge or level for each input. */
#include "devices/chips.h"
#include "lib/bits.h"

#define CASCADE 2

/* The inputs whose service keeps others of their priority and below waiting. */
static u8 busy(const struct pic_chip *c) { return c->special_mask ? c->isr & ~c->imr : c->isr; }

/* The highest-priority input in set, or -1. */
static int top(const struct pic_chip *c, u8 set)
{
	for (unsigned i = 1; i <= 8; i++)
		if (set & 1 << ((c->lowest + i) & 7))
			return (c->lowest + i) & 7;
	return -1;
}

/* The input that the chip asks the CPU, or the other chip, to serve, or -1. */
static int requested(const struct pic_chip *c)
{
	u8 in_service = busy(c);
	int n = top(c, (c->irr & ~c->imr) | in_service);

	return n < 0 || in_service & 1 << n ? -1 : n;
}

static void update(struct platform *p)
{
	struct pic_chip *c = p->pic.chip;
	bool was_out = p->pic.out;

	c[0].irr &= ~(1 << CASCADE);
	if (requested(&c[1]) >= 0)
		c[0].irr |= 1 << CASCADE;
	atomic_store(&p->pic.out, requested(&c[0]) >= 0);
	if (was_out || !p->pic.out)
		return;
	for (unsigned i = 0; i < p->vcpus; i++)
		if (lapic_accepts_pic(p->lapic[i]))
			p->ops->kick(p->ctx, i);
}

/* An edge stays requested though its line falls before the acknowledge: no PC software wants that spurious IR7. */
void pic_line(struct platform *p, unsigned irq, bool level)
{
	struct pic_chip *c = &p->pic.chip[irq >> 3];
	u8 bit = (u8)(1 << (irq & 7));

	if (level && ((c->elcr & bit) || !(c->lines & bit)))
		c->irr |= bit;
	else if (!level)
		c->irr &= ~(c->elcr & bit);
	c->lines = level ? c->lines | bit : c->lines & ~bit;
	update(p);
}

static void take(struct pic_chip *c, int n)
{
	if (!c->auto_eoi)
		c->isr |= 1 << n;
	else if (c->rotate_auto)
		c->lowest = (u8)n;
	c->irr &= ~(1 << n & ~c->elcr);
}

/* Whose request has gone by the acknowledge answers with its input 7, and is not in service then. */
static u8 spurious_or(const struct pic_chip *c, int n) { return c->base + (n < 0 ? 7 : (u8)n); }

int pic_peek(const struct platform *p)
{
	int n = requested(&p->pic.chip[0]);

	if (n == CASCADE)
		return spurious_or(&p->pic.chip[1], requested(&p->pic.chip[1]));
	return n < 0 ? -1 : p->pic.chip[0].base + n;
}

u8 pic_ack(struct platform *p)
{
	struct pic_chip *c = p->pic.chip;
	int n = requested(c), chip = n == CASCADE;

	if (n >= 0)
		take(&c[0], n);
	if (chip) {
		n = requested(&c[1]);
		if (n >= 0)
			take(&c[1], n);
	}
	update(p);
	return spurious_or(&c[chip], n);
}

static void write_icw1(struct pic_chip *c, u8 val)
{
	c->irr &= c->elcr;
	c->isr = c->imr = 0;
	c->lowest = 7;
	c->read_isr = c->poll = c->auto_eoi = c->rotate_auto = c->special_mask = false;
	c->single = val & 2;
	c->need_icw4 = val & 1;
	c->icw = 2;
}

/* End of interrupt and rotation: bit 7 rotates, bit 6 names the input, bit 5 ends its service. */
static void write_ocw2(struct pic_chip *c, u8 val)
{
	bool rotate = val & 0x80, named = val & 0x40, end = val & 0x20;
	int n = named ? val & 7 : top(c, busy(c));

	if (!named && !end) {
		c->rotate_auto = rotate;
		return;
	}
	if (n < 0)
		return;
	if (end)
		c->isr &= ~(1 << n);
	if (rotate)
		c->lowest = (u8)n;
}

static void write_ocw3(struct pic_chip *c, u8 val)
{
	if (val & 0x40)
		c->special_mask = val & 0x20;
	if (val & 2)
		c->read_isr = val & 1;
	c->poll = val & 4;
}

/* The odd port: the initialization word that is due, or the mask. */
static void write_odd(struct pic_chip *c, u8 val)
{
	switch (c->icw) {
	case 2:
		c->base = val & 0xf8;
		c->icw = !c->single ? 3 : c->need_icw4 ? 4 : 0;
		break;
	case 3:
		c->icw = c->need_icw4 ? 4 : 0;
		break;
	case 4:
		c->auto_eoi = val & 2;
		c->icw = 0;
		break;
	default:
		c->imr = val;
	}
}

static void write_chip(struct pic_chip *c, bool odd, u8 val)
{
	if (odd)
		write_odd(c, val);
	else if (val & 0x10)
		write_icw1(c, val);
	else if (val & 8)
		write_ocw3(c, val);
	else
		write_ocw2(c, val);
}

/* The read after a poll command is an acknowledge. */
static u8 read_chip(struct pic_chip *c, bool odd)
{
	int n = requested(c);

	if (!c->poll)
		return odd ? c->imr : c->read_isr ? c->isr : c->irr;
	c->poll = false;
	if (n < 0)
		return 0;
	take(c, n);
	return 0x80 | (u8)n;
}

void pic_io(void *platform, struct bus_op *op)
{
	struct platform *p = platform;
	struct pic_chip *c = &p->pic.chip[op->addr >> 7];

	if (op->write)
		write_chip(c, op->addr & 1, (u8)op->val);
	else
		op->val = read_chip(c, op->addr & 1);
	update(p);
}

/* IRQ 0, 1, 2, 8 and 13 are edges on every PC. */
void elcr_io(void *platform, struct bus_op *op)
{
	struct platform *p = platform;
	struct pic_chip *c = &p->pic.chip[op->addr & 1];

	if (!op->write) {
		op->val = c->elcr;
		return;
	}
	c->elcr = (u8)op->val & (op->addr & 1 ? 0xde : 0xf8);
	c->irr = (c->irr & ~c->elcr) | (c->lines & c->elcr);
	update(p);
}

/* As firmware leaves it: vectors of the real-mode BIOS, all masked, the SCI level-triggered. */
void pic_init(struct platform *p)
{
	p->pic.chip[0] = (struct pic_chip){.base = 0x08, .imr = 0xff, .lowest = 7};
	p->pic.chip[1] = (struct pic_chip){.base = 0x70, .imr = 0xff, .lowest = 7, .elcr = 1 << (SCI_IRQ - 8)};
}
