/* SPDX-License-Identifier: MIT */
/* PCI configuration mechanism 1, a bus with nothing but its host bridge at 00:00.0, and the reset register CF9. */
#include "devices/chips.h"

#define ADDRESS_PORT 0xcf8
#define DATA_PORT    0xcfc

#define ADDRESS_ENABLE   0x80000000u
#define ADDRESS_WRITABLE 0x80fffffcu
#define RESET_CPU        4
#define RESET_SYSTEM     2

#define HOST_BRIDGE_ID    0x00081b36u /* Red Hat's generic host bridge: no driver looks for chip set registers on it */
#define HOST_BRIDGE_CLASS 0x06000000u

/* A dword of configuration space; all ones where there is no device. Nothing in it can be written. */
static u32 config_read(const struct pci_host *h)
{
	if (!(h->address & ADDRESS_ENABLE) || (h->address & 0xffff00))
		return ~0u;
	switch (h->address & 0xfc) {
	case 0x00:
		return HOST_BRIDGE_ID;
	case 0x08:
		return HOST_BRIDGE_CLASS;
	default:
		return 0;
	}
}

/* A reset is the rise of RESET_CPU; RESET_SYSTEM chooses how hard, which is all the same here. */
static void reset_io(struct platform *p, struct bus_op *op)
{
	u8 before = p->pci.reset;

	if (!op->write) {
		op->val = before;
		return;
	}
	p->pci.reset = op->val & (RESET_CPU | RESET_SYSTEM);
	if (p->pci.reset & ~before & RESET_CPU)
		p->ops->power(p->ctx, POWER_RESET, "port CF9");
}

/* The address register answers dwords only; bytes there are other registers, of which the PC uses CF9. */
void pci_io(void *platform, struct bus_op *op)
{
	struct platform *p = platform;

	if (op->addr >= DATA_PORT && !op->write)
		op->val = config_read(&p->pci) >> (op->addr & 3) * 8;
	else if (op->addr == RESET_PORT && op->size == 1)
		reset_io(p, op);
	else if (op->addr == ADDRESS_PORT && op->size == 4 && op->write)
		p->pci.address = op->val & ADDRESS_WRITABLE;
	else if (op->addr == ADDRESS_PORT && op->size == 4)
		op->val = p->pci.address;
}
