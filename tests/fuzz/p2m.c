/* SPDX-License-Identifier: MIT */
/*
 * Bytes become operations on a P2M, in whichever format and with whichever cap the first byte says. Whatever they are,
 * the audit is clean afterwards and nothing has leaked.
 */
#include "p2m/p2m.h"

#include <stdlib.h>
#include <string.h>

#include "lib/bits.h"
#include "mm/frames.h"
#include "tests/host/frames_audit.h"
#include "tests/host/host.h"

#define OWNER  (OWNER_GUEST + 1)
#define MEMORY (6 * MB)

struct input {
	const u8 *data;
	size_t size;
};

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static u64 take(struct input *in, unsigned bytes)
{
	u64 v = 0;

	for (; bytes && in->size; bytes--, in->data++, in->size--)
		v = v << 8 | *in->data;
	return v;
}

/* Small numbers near the slots mostly, but anything may come. */
static u64 take_gfn(struct input *in, unsigned order)
{
	u64 v = take(in, 2);

	if (v < 0xc000)
		v &= 0x1fff;
	else if (v < 0xf000)
		v = BIT(18) - 1024 + (v & 0x7ff);
	else
		v = take(in, 8);
	return v & 1 && v & 2 ? v : ROUND_DOWN(v, BIT(order));
}

static void add_slots(struct p2m *p, struct input *in)
{
	int err = p2m_add_slot(p, GFN(0), 0xa0, P2M_RAM) | p2m_add_slot(p, GFN(0xf0), 0x10, P2M_RO) |
		  p2m_add_slot(p, GFN(0x100), 0x800 + take(in, 1), P2M_RAM) |
		  p2m_add_slot(p, GFN(BIT(18) - 300 - take(in, 1)), 1000, P2M_RAM);
	if (err)
		abort();
}

static void set(struct p2m *p, struct input *in, unsigned order)
{
	unsigned type = take(in, 1) % (P2M_TYPES + 1);
	u64 gfn = take_gfn(in, order), source = take(in, 1);
	mfn_t mfn = MFN_NONE;

	if (type < P2M_TYPES && P2M_MASK(type) & P2M_BACKED) {
		mfn = MFN(ROUND_DOWN(take(in, 2), BIT(order))); /* any frame, also tables and nobody's */
		if (source & 1)
			mfn = MFN(BIT(24) + gfn);
		else if (source & 2 && frames_alloc(order % FRAME_ORDERS, OWNER, 0, &mfn))
			return;
	}
	(void)p2m_set(p, GFN(gfn), mfn, order, type);
}

static void touch(struct p2m *p, struct input *in)
{
	u8 buf[256] = {0}, old[16] = {0};
	gpa_t gpa = gfn_to_gpa(GFN(take_gfn(in, 0))) + take(in, 2) % 4200;
	bool done;

	(void)p2m_fault(p, gpa, (unsigned)take(in, 1) & 7);
	(void)p2m_write(p, gpa, buf, take(in, 1));
	(void)p2m_read(p, gpa, buf, take(in, 1));
	(void)p2m_cmpxchg(p, gpa, old, buf, (unsigned)take(in, 1), &done);
}

static void one_operation(struct p2m *p, struct input *in)
{
	static const u8 orders[] = {0, 0, 0, 1, 5, 9, 9, 10, 18, 19, 64, 255};
	unsigned what = take(in, 1), order = orders[(what >> 4) % ARRAY_SIZE(orders)];

	host_fail_alloc(what & 8 ? 1 + take(in, 1) % 6 : 0);
	switch (what & 7) {
	case 0:
		(void)p2m_remove(p, GFN(take_gfn(in, order & 31)), order);
		break;
	case 1:
		(void)p2m_populate(p, GFN(take_gfn(in, 0)));
		break;
	case 2:
		(void)p2m_populate_on_demand(p, GFN(take_gfn(in, 0)));
		break;
	case 3:
		touch(p, in);
		break;
	default:
		set(p, in, order > 18 ? 0 : order);
	}
	host_fail_alloc(0);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct input in = {data, size};
	struct p2m p;

	host_machine(MEMORY);
	host_log_clear();
	u8 how = (u8)take(&in, 1);
	unsigned order = how % 3 * 9;
	if (p2m_init(&p, how & 4 ? &pt_format_ept : &pt_format_long, OWNER, order, 36))
		abort();
	add_slots(&p, &in);
	for (unsigned n = 0; in.size && n < 60; n++)
		one_operation(&p, &in);
	if (p2m_audit(&p))
		abort();
	p2m_free(&p);
	for (u64 n = 0; n < MEMORY / PAGE_SIZE; n++) {
		if (frames_block(MFN(n)).owner == OWNER)
			abort();
	}
	if (frames_audit())
		abort();
	return 0;
}
