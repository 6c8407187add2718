/* SPDX-License-Identifier: MIT */
#include "devices/bus.h"

#include "lib/errno.h"
#include "lib/string.h"

#define PORTS 0x10000ul

void bus_init(struct bus *b) { memset(b, 0, sizeof(*b)); }

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

int bus_add(struct bus *b, enum bus_space space, u64 start, u64 len, const char *name, bus_fn fn, void *dev)
{
	unsigned i = 0;
	u64 last = start + len - 1;

	if (len == 0 || last < start || (space == BUS_PIO && last >= PORTS))
		return -EINVAL;
	if (b->n == BUS_REGIONS)
		return -ENOSPC;
	while (i < b->n && sorts_before(&b->region[i], space, start))
		i++;
	if (i > 0 && contains(&b->region[i - 1], space, start))
		return -EEXIST;
	if (i < b->n && b->region[i].space == space && b->region[i].start <= last)
		return -EEXIST;
	memmove(&b->region[i + 1], &b->region[i], (b->n - i) * sizeof(b->region[0]));
	b->region[i] = (struct bus_region){start, len, dev, fn, name, space};
	b->n++;
	set_hints(b);
	return 0;
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

static u64 size_mask(unsigned size) { return size >= 8 ? ~0ul : (1ul << (size * 8)) - 1; }

static bool perform(const struct bus_region *r, struct bus_op *op)
{
	u64 mask = size_mask(op->size);

	op->val = op->write ? op->val & mask : mask;
	r->fn(r->dev, op);
	op->val &= mask;
	return true;
}

void bus_split(bus_fn fn, void *dev, struct bus_op *op)
{
	u64 val = 0;

	for (unsigned i = 0; i < op->size; i++) {
		struct bus_op byte = *op;

		byte.size = 1;
		byte.addr = op->addr + i;
		byte.val = op->write ? (op->val >> (i * 8)) & 0xff : 0xff;
		fn(dev, &byte);
		val |= (byte.val & 0xff) << (i * 8);
	}
	op->val = val;
}

struct scatter {
	const struct bus *bus;
	bool answered;
};

static void scatter_byte(void *ctx, struct bus_op *op)
{
	struct scatter *s = ctx;
	int i = bus_find(s->bus, op->space, op->addr);

	if (i >= 0)
		s->answered |= perform(&s->bus->region[i], op);
}

bool bus_access(struct bus *b, struct bus_op *op)
{
	struct scatter s = {b, false};
	int i = bus_find(b, op->space, op->addr);

	if (i >= 0 && holds(&b->region[i], op))
		return perform(&b->region[i], op);
	bus_split(scatter_byte, &s, op);
	return s.answered;
}

bool bus_access_at(struct bus *b, unsigned index, struct bus_op *op)
{
	if (index < b->n && holds(&b->region[index], op))
		return perform(&b->region[index], op);
	return bus_access(b, op);
}
