/* SPDX-License-Identifier: MIT */
/*
 * The two 8259A interrupt controllers, and the registers that choose edge or level for each input. Priorities are
 * fixed: a rotating end of interrupt only ends it, as no PC system shares its CPU by rotation. There is no poll mode.
 */
#include "devices/chips.h"
#include "lib/bits.h"

#define CASCADE 2

enum { ICW1 = 0x10, ICW1_ICW4 = 1, ICW4_AUTO_EOI = 2 };
enum { OCW2_EOI = 0x20, OCW2_NAMED = 0x40 };
enum { OCW3 = 0x08, OCW3_SET_SPECIAL = 0x40, OCW3_SPECIAL = 0x20, OCW3_SET_READ = 2, OCW3_ISR = 1 };

/* The inputs whose service keeps others of their priority and below waiting. */
static u8 busy(const struct pic_chip *c) { return c->special_mask ? c->isr & ~c->imr : c->isr; }

/* The input that the chip asks the CPU, or the other chip, to serve, or -1. */
static int requested(const struct pic_chip *c)
{
	u8 in_service = busy(c), wanted = (c->irr & ~c->imr) | in_service;
	unsigned n = wanted ? bit_low(wanted) : 0;

	return !wanted || in_service & 1 << n ? -1 : (int)n;
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

/* Whose request has gone by the acknowledge answers with its input 7, and is not in service then. */
static u8 spurious_or(const struct pic_chip *c, int n) { return c->base + (n < 0 ? 7 : (u8)n); }

int pic_peek(const struct platform *p)
{
	const struct pic_chip *c = p->pic.chip;
	int n = requested(&c[0]);

	if (n == CASCADE)
		return spurious_or(&c[1], requested(&c[1]));
	return n < 0 ? -1 : c[0].base + n;
}

static int take(struct pic_chip *c)
{
	int n = requested(c);

	if (n >= 0) {
		c->isr |= c->auto_eoi ? 0 : 1 << n;
		c->irr &= ~(1 << n & ~c->elcr);
	}
	return n;
}

u8 pic_ack(struct platform *p)
{
	struct pic_chip *c = p->pic.chip;
	int n = take(c);

	if (n == CASCADE)
		n = take(++c);
	update(p);
	return spurious_or(c, n);
}

static void write_even(struct pic_chip *c, u8 val)
{
	if (val & ICW1) {
		*c = (struct pic_chip){.irr = c->irr & c->elcr, .lines = c->lines, .elcr = c->elcr, .base = c->base};
		c->icw4 = val & ICW1_ICW4;
		c->icw = 2;
	} else if (val & OCW3) {
		if (val & OCW3_SET_SPECIAL)
			c->special_mask = val & OCW3_SPECIAL;
		if (val & OCW3_SET_READ)
			c->read_isr = val & OCW3_ISR;
	} else if (val & OCW2_EOI) {
		c->isr &= ~(val & OCW2_NAMED ? 1 << (val & 7) : busy(c) & -busy(c));
	}
}

/* The initialization word that is due, or the mask. */
static void write_odd(struct pic_chip *c, u8 val)
{
	if (c->icw == 0)
		c->imr = val;
	else if (c->icw == 2)
		c->base = val & 0xf8;
	else if (c->icw == 4)
		c->auto_eoi = val & ICW4_AUTO_EOI;
	if (c->icw)
		c->icw = c->icw < 3 + c->icw4 ? c->icw + 1 : 0;
}

void pic_io(void *platform, struct bus_op *op)
{
	struct platform *p = platform;
	struct pic_chip *c = &p->pic.chip[op->addr >> 7];
	bool odd = op->addr & 1;

	if (!op->write)
		op->val = odd ? c->imr : c->read_isr ? c->isr : c->irr;
	else if (odd)
		write_odd(c, (u8)op->val);
	else
		write_even(c, (u8)op->val);
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
	p->pic.chip[0] = (struct pic_chip){.base = 0x08, .imr = 0xff};
	p->pic.chip[1] = (struct pic_chip){.base = 0x70, .imr = 0xff, .elcr = 1 << (SCI_IRQ - 8)};
}
