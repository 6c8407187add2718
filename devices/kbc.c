/* SPDX-License-Identifier: MIT */
/*
 * As much of an 8042 as a PC without keyboard needs: it answers its self-test and resets the machine. The A20 gate,
 * here and in port 92, is always open.
 */
#include "devices/chips.h"

#define DATA_PORT    0x60
#define COMMAND_PORT 0x64
#define PORT92       0x92

enum {
	CMD_READ_BYTE = 0x20,
	CMD_WRITE_BYTE = 0x60,
	CMD_SELF_TEST = 0xaa,
	CMD_TEST_PORT = 0xab,
	CMD_READ_OUTPUT = 0xd0,
	CMD_WRITE_OUTPUT = 0xd1,
	CMD_RESET = 0xfe,
};

#define STATUS_FULL   0x01
#define STATUS_TESTED 0x14 /* self-test passed, not locked */
#define OUTPUT_RUN    0x01 /* low resets the CPU */
#define OUTPUT_A20    0x02
#define CLOCK_LOW     0x01 /* the port test's answer without a keyboard */
#define PORT92_RESET  0x01
#define PORT92_A20    0x02

static void reset(struct platform *p, const char *how) { p->ops->power(p->ctx, POWER_RESET, how); }

static void answer(struct kbc *k, u8 val)
{
	k->out = val;
	k->full = true;
}

static void command(struct platform *p, u8 val)
{
	struct kbc *k = &p->kbc;

	k->data_after = val;
	switch (val) {
	case CMD_READ_BYTE:
		answer(k, k->command);
		break;
	case CMD_SELF_TEST:
		answer(k, 0x55);
		break;
	case CMD_TEST_PORT:
		answer(k, CLOCK_LOW);
		break;
	case CMD_READ_OUTPUT:
		answer(k, OUTPUT_RUN | OUTPUT_A20);
		break;
	case CMD_RESET:
		reset(p, "8042");
		break;
	}
}

static void write_data(struct platform *p, u8 val)
{
	if (p->kbc.data_after == CMD_WRITE_BYTE)
		p->kbc.command = val;
	else if (p->kbc.data_after == CMD_WRITE_OUTPUT && !(val & OUTPUT_RUN))
		reset(p, "8042");
	p->kbc.data_after = 0;
}

static void kbc_io(void *dev, struct bus_op *op)
{
	struct platform *p = dev;

	if (op->write && op->addr == COMMAND_PORT) {
		command(p, (u8)op->val);
	} else if (op->write) {
		write_data(p, (u8)op->val);
	} else if (op->addr == COMMAND_PORT) {
		op->val = STATUS_TESTED | (p->kbc.full ? STATUS_FULL : 0);
	} else {
		op->val = p->kbc.out;
		p->kbc.full = false;
	}
}

static void port92_io(void *dev, struct bus_op *op)
{
	if (!op->write)
		op->val = PORT92_A20;
	else if (op->val & PORT92_RESET)
		reset(dev, "port 92");
}

int kbc_attach(struct platform *p)
{
	int err = bus_add(&p->bus, BUS_PIO, DATA_PORT, 1, "kbc", kbc_io, p);

	if (!err)
		err = bus_add(&p->bus, BUS_PIO, COMMAND_PORT, 1, "kbc", kbc_io, p);
	return err ? err : bus_add(&p->bus, BUS_PIO, PORT92, 1, "port92", port92_io, p);
}
