/* SPDX-License-Identifier: MIT */
/* PCI configuration mechanism 1, a bus with nothing but its host bridge at 00:00.0, and the reset register CF9. */
#include "devices/chips.h"

enum { ADDRESS_PORT = 0xcf8, DATA_PORT = 0xcfc, RESET_CPU = 4 };

#define ADDRESS_ENABLE   0x80000000u
#define ADDRESS_WRITABLE 0x80fffffcu

#define HOST_BRIDGE_ID    0x00081b36u /* Red Hat's generic host bridge: no driver looks for chip set registers on it */
#define HOST_BRIDGE_CLASS 0x06000000u

/* A dword of configuration space; all ones where there is no device. Nothing in it can be written. */
static u32 config_read(u32 address)
{
	if (!(address & ADDRESS_ENABLE) || (address & 0xffff00))
		return ~0u;
	return (address & 0xfc) == 0 ? HOST_BRIDGE_ID : (address & 0xfc) == 8 ? HOST_BRIDGE_CLASS : 0;
}

/* CF9 chooses how hard to reset, which is all the same here. It reads as 0: what was written before did not reset. */
static void reset_io(struct platform *p, struct bus_op *op)
{
	if (!op->write)
		op->val = 0;
	else if (op->val & RESET_CPU)
		p->ops->power(p->ctx, POWER_RESET, "port CF9");
}

/* The address register answers dwords only; bytes there are other registers, of which the PC uses CF9. */
void pci_io(void *platform, struct bus_op *op)
{
	struct platform *p = platform;

	if (op->addr >= DATA_PORT && !op->write)
		op->val = config_read(p->pci_address) >> (op->addr & 3) * 8;
	else if (op->addr == RESET_PORT && op->size == 1)
		reset_io(p, op);
	else if (op->addr == ADDRESS_PORT && op->size == 4 && op->write)
		p->pci_address = op->val & ADDRESS_WRITABLE;
	else if (op->addr == ADDRESS_PORT && op->size == 4)
		op->val = p->pci_address;
}
