/* SPDX-License-Identifier: MIT */
#include "devices/bus.h"

#include "lib/assert.h"
#include "lib/string.h"

static bool sorts_before(const struct bus_region *r, u8 space, u64 start)
{
	return r->space != space ? r->space < space : r->start < start;
}

static bool contains(const struct bus_region *r, u8 space, u64 addr)
{
	return r->space == space && addr - r->start < r->len;
}

static bool holds(const struct bus_region *r, const struct bus_op *op)
{
	return contains(r, op->space, op->addr) && r->len - (op->addr - r->start) >= op->size;
}

/* Ports sort first, so a hint is the number of port regions that end at or below the first port of its page. */
static void set_hints(struct bus *b)
{
	unsigned i = 0;

	for (unsigned page = 0; page < ARRAY_SIZE(b->port_hint); page++) {
		while (i < b->n && b->region[i].space == BUS_PIO && b->region[i].start + b->region[i].len <= page * 256)
			i++;
		b->port_hint[page] = (u8)i;
	}
}

void bus_add(struct bus *b, struct bus_region r)
{
	unsigned i = 0;

	ASSERT(b->n < BUS_REGIONS);
	while (i < b->n && sorts_before(&b->region[i], r.space, r.start))
		i++;
	ASSERT(i == 0 || !contains(&b->region[i - 1], r.space, r.start));
	ASSERT(i == b->n || !contains(&r, b->region[i].space, b->region[i].start));
	memmove(&b->region[i + 1], &b->region[i], (b->n - i) * sizeof(r));
	b->region[i] = r;
	b->n++;
	set_hints(b);
}

int bus_find(const struct bus *b, enum bus_space space, u64 addr)
{
	unsigned i = b->port_hint[space == BUS_PIO ? (addr >> 8) & 0xff : 0xff];

	for (; i < b->n; i++) {
		const struct bus_region *r = &b->region[i];

		if (contains(r, space, addr))
			return (int)i;
		if (r->space > space || (r->space == space && r->start > addr))
			break;
	}
	return -1;
}

/* r: who answers, or NULL. */
static bool perform(const struct bus_region *r, struct bus_op *op)
{
	u64 mask = ~0ul >> (64 - op->size * 8);

	op->val = op->write ? op->val & mask : mask;
	if (r)
		r->fn(r->dev, op);
	op->val &= mask;
	return r != NULL;
}

static const struct bus_region *owner(const struct bus *b, const struct bus_op *op)
{
	int i = bus_find(b, op->space, op->addr);

	return i < 0 ? NULL : &b->region[i];
}

/* Each piece goes to the owner of its first byte: width is 1, or one region holds op. */
static bool in_pieces(const struct bus *b, struct bus_op *op, unsigned width)
{
	bool answered = false;
	u64 val = 0;

	for (unsigned i = 0; i < op->size; i += width) {
		struct bus_op piece = *op;

		piece.size = (u8)width;
		piece.addr += i;
		piece.val >>= i * 8;
		answered |= perform(owner(b, &piece), &piece);
		val |= piece.val << (i * 8);
	}
	op->val = val;
	return answered;
}

static bool access_region(const struct bus *b, const struct bus_region *r, struct bus_op *op)
{
	return op->size <= r->width ? perform(r, op) : in_pieces(b, op, r->width);
}

bool bus_access(struct bus *b, struct bus_op *op)
{
	const struct bus_region *r = owner(b, op);

	return r && holds(r, op) ? access_region(b, r, op) : in_pieces(b, op, 1);
}

bool bus_access_at(struct bus *b, unsigned index, struct bus_op *op)
{
	if (index < b->n && holds(&b->region[index], op))
		return access_region(b, &b->region[index], op);
	return bus_access(b, op);
}
