/* SPDX-License-Identifier: MIT */
/* The bus: who answers what, and that nobody sees an access that is not wholly its own. */
#include "devices/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

struct dev {
	unsigned calls, widest;
	u64 lowest, highest; /* bytes touched */
	u64 written;
	u8 fill;
};

static void dev_fn(void *ctx, struct bus_op *op)
{
	struct dev *d = ctx;

	d->lowest = d->calls == 0 || op->addr < d->lowest ? op->addr : d->lowest;
	d->highest = op->addr + op->size - 1 > d->highest ? op->addr + op->size - 1 : d->highest;
	d->widest = op->size > d->widest ? op->size : d->widest;
	d->calls++;
	if (op->write)
		d->written = op->val;
	else if (d->fill)
		op->val = d->fill * 0x0101010101010101ull;
}

static void add(struct bus *b, u8 space, u64 start, u64 len, struct dev *d)
{
	bus_add(b, (struct bus_region){space, 8, start, len, dev_fn, d});
}

static bool access_bus(struct bus *b, u8 space, u64 addr, u8 size, bool write, u64 *val)
{
	struct bus_op op = {.space = space, .size = size, .write = write, .addr = addr, .val = *val};
	bool answered = bus_access(b, &op);

	*val = op.val;
	return answered;
}

static void finds_every_port(void **state)
{
	static const struct {
		u64 start, len;
	} ranges[] = {{0, 1}, {0x20, 2}, {0xf8, 0x210}, {0x3f8, 8}, {0xcf8, 8}, {0x8000, 0x1000}, {0xffff, 1}};
	struct bus b;

	memset(&b, 0, sizeof(b));
	for (unsigned i = ARRAY_SIZE(ranges); i-- > 0;) /* the order of adding must not matter */
		add(&b, BUS_PIO, ranges[i].start, ranges[i].len, NULL);
	add(&b, BUS_MMIO, 0xfec00000, 0x1000, NULL);
	for (u64 port = 0; port < 0x10010; port++) {
		int want = -1;

		for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++)
			if (port >= ranges[i].start && port < ranges[i].start + ranges[i].len)
				want = (int)i;
		assert_int_equal(bus_find(&b, BUS_PIO, port), want);
	}
	assert_int_equal(bus_find(&b, BUS_MMIO, 0xfec00fff), 7);
	assert_int_equal(bus_find(&b, BUS_MMIO, 0xfec01000), -1);
	assert_int_equal(bus_find(&b, BUS_MMIO, 0x20), -1);
	assert_int_equal(bus_find(&b, BUS_MMIO, ~0ull), -1);
}

static void holes_read_ones(void **state)
{
	struct bus b;
	u64 val = 0x1234;

	memset(&b, 0, sizeof(b));
	assert_false(access_bus(&b, BUS_PIO, 0x80, 2, false, &val));
	assert_int_equal(val, 0xffff);
	assert_false(access_bus(&b, BUS_MMIO, 0xd0000000, 8, false, &val));
	assert_true(val == ~0ull);
	val = 7;
	assert_false(access_bus(&b, BUS_PIO, 0x80, 1, true, &val));
}

/*
 * XSA-112: an emulated access that crossed from one device into another was handed to the first one whole, which then
 * indexed its registers beyond its end.
 */
static void straddling_is_split(void **state)
{
	struct bus b;
	struct dev one = {.fill = 0x11}, two = {.fill = 0x22};
	u64 val = 0;

	memset(&b, 0, sizeof(b));
	add(&b, BUS_MMIO, 0x1000, 0x1000, &one);
	add(&b, BUS_MMIO, 0x2000, 0x1000, &two);
	assert_true(access_bus(&b, BUS_MMIO, 0x1ffd, 8, false, &val));
	assert_true(val == 0x2222222222111111ull);
	assert_int_equal(one.widest, 1);
	assert_int_equal(two.widest, 1);
	assert_int_equal(one.highest, 0x1fff);
	assert_int_equal(two.lowest, 0x2000);
	/* device and hole, either way round */
	assert_true(access_bus(&b, BUS_MMIO, 0x2ffe, 4, false, &val));
	assert_int_equal(val, 0xffff2222);
	assert_true(access_bus(&b, BUS_MMIO, 0xffe, 4, false, &val));
	assert_int_equal(val, 0x1111ffff);
	/* writes: each byte once, nothing beyond the ends */
	one = two = (struct dev){0};
	val = 0x44332211;
	assert_true(access_bus(&b, BUS_MMIO, 0x1fff, 4, true, &val));
	assert_int_equal(one.calls, 1);
	assert_int_equal(one.written, 0x11);
	assert_int_equal(two.calls, 3);
	assert_int_equal(two.highest, 0x2002);
	/* the fast path obeys the same rule */
	one = two = (struct dev){0};
	struct bus_op op = {.space = BUS_MMIO, .size = 4, .write = true, .addr = 0x1ffe};

	assert_true(bus_access_at(&b, 0, &op));
	assert_int_equal(one.highest, 0x1fff);
	assert_int_equal(two.calls, 2);
	/* and over the end of the port space */
	add(&b, BUS_PIO, 0xffff, 1, &one);
	assert_true(access_bus(&b, BUS_PIO, 0xffff, 4, false, &val));
	assert_int_equal(val, 0xffffffff);
}

static void fast_path_takes_any_index(void **state)
{
	struct bus b;
	struct dev one = {.fill = 0x11}, two = {.fill = 0x22};
	struct bus_op op = {.space = BUS_MMIO, .size = 4, .addr = 0x2000};

	memset(&b, 0, sizeof(b));
	add(&b, BUS_MMIO, 0x2000, 0x1000, &two);
	add(&b, BUS_MMIO, 0x1000, 0x1000, &one);
	assert_true(bus_access_at(&b, 1, &op));
	assert_int_equal(op.val, 0x22222222);
	assert_true(bus_access_at(&b, 0, &op)); /* stale */
	assert_int_equal(op.val, 0x22222222);
	assert_true(bus_access_at(&b, 1000, &op));
	assert_int_equal(op.val, 0x22222222);
	assert_int_equal(one.calls, 0);
}

static void values_have_their_size(void **state)
{
	struct bus b;
	struct dev d = {.fill = 0xab};
	u64 val = ~0ull;

	memset(&b, 0, sizeof(b));
	add(&b, BUS_PIO, 0x60, 8, &d);
	access_bus(&b, BUS_PIO, 0x60, 2, true, &val);
	assert_int_equal(d.written, 0xffff);
	access_bus(&b, BUS_PIO, 0x60, 2, false, &val);
	assert_int_equal(val, 0xabab);
	d.fill = 0; /* leaves the value alone */
	access_bus(&b, BUS_PIO, 0x60, 1, false, &val);
	assert_int_equal(val, 0xff);
}

static void narrow_devices_get_pieces(void **state)
{
	struct bus b;
	struct dev d = {.fill = 0xab};
	u64 val = 0;

	memset(&b, 0, sizeof(b));
	bus_add(&b, (struct bus_region){BUS_MMIO, 4, 0x1000, 0x10, dev_fn, &d});
	assert_true(access_bus(&b, BUS_MMIO, 0x1004, 8, false, &val));
	assert_true(val == 0xababababababababul);
	assert_int_equal(d.calls, 2);
	assert_int_equal(d.widest, 4);
	assert_true(access_bus(&b, BUS_MMIO, 0x1003, 4, false, &val));
	assert_int_equal(d.calls, 3);
	val = 0x4433221144332211;
	assert_true(access_bus(&b, BUS_MMIO, 0x1008, 8, true, &val));
	assert_int_equal(d.calls, 5);
	assert_int_equal(d.written, 0x44332211);
	assert_int_equal(d.highest, 0x100f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_every_port),       cmocka_unit_test(holes_read_ones),
		cmocka_unit_test(straddling_is_split),    cmocka_unit_test(fast_path_takes_any_index),
		cmocka_unit_test(values_have_their_size), cmocka_unit_test(narrow_devices_get_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
