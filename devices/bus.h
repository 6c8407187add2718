/* SPDX-License-Identifier: MIT */
/*
 * A guest's bus: which device answers a port or an MMIO address. Regions are registered while the guest is built and
 * never change afterwards, so that look-ups need no lock. A device's own state is under its guest's device lock
 * (LOCK_DEVICES), which the caller of bus_access holds; local APICs are the exception (see devices/lapic.h).
 */
#pragma once

#include "lib/types.h"

enum bus_space { BUS_PIO, BUS_MMIO };

struct bus_op {
	u8 space; /* enum bus_space */
	u8 size;  /* 1, 2, 4 or 8 bytes */
	bool write;
	u64 addr; /* port or guest-physical address */
	u64 val;  /* written, or to be filled; zero-extended */
};

/*
 * A device answers an access that lies wholly within one of its regions. val is zero-extended on a write and all ones
 * on a read, so that a device may leave alone what it does not know; what it fills beyond size is cut off.
 */
typedef void bus_fn(void *dev, struct bus_op *op);

struct bus_region {
	u8 space; /* enum bus_space */
	u8 width; /* the widest access it takes, 1, 2, 4 or 8: wider ones come in pieces, lowest address first */
	u64 start, len;
	bus_fn *fn;
	void *dev;
};

#define BUS_REGIONS 48

/* All zero it is empty. */
struct bus {
	unsigned n;
	struct bus_region region[BUS_REGIONS]; /* sorted by space and start; the index is the P2M's device index */
	u8 port_hint[256];                     /* for port >> 8: first region that may contain it */
};

/*
 * Adds r, for which there must be room, and which must not overlap others. Only before the guest's first instruction;
 * moves the indices of regions that sort behind the new one.
 */
void bus_add(struct bus *b, struct bus_region r);
/* The index of the region that contains addr, or -1. */
int bus_find(const struct bus *b, enum bus_space space, u64 addr);
/*
 * Performs the access. One that straddles regions, or region and hole, is split into bytes that each go to where they
 * belong (never a wide access to a neighbour). What nobody answers reads as all ones, and is not written. Returns
 * whether some region answered.
 */
bool bus_access(struct bus *b, struct bus_op *op);
/* The same for a region that is already known (the MMIO fast path); falls back to bus_access if op does not lie within.
 */
bool bus_access_at(struct bus *b, unsigned index, struct bus_op *op);
