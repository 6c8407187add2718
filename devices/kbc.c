/* SPDX-License-Identifier: MIT */
/*
 * As much of an 8042 as a PC without keyboard needs: it answers its self-test and resets the machine. The A20 gate,
 * here and in port 92, is always open.
 */
#include "devices/chips.h"

#define COMMAND_PORT 0x64

#define CMD_WRITE_OUTPUT 0xd1 /* with the next byte at the data port */
#define CMD_RESET        0xfe
#define STATUS_FULL      0x01
#define STATUS_TESTED    0x14 /* self-test passed, not locked */
#define OUTPUT_RUN       0x01 /* low resets the CPU */
#define PORT92_RESET     0x01
#define PORT92_A20       0x02

/* What other commands have to say: command byte, self-test, port tests (no keyboard, no mouse), output port. */
static const struct {
	u8 command, answer;
} answers[] = {{0x20, 0x00}, {0xaa, 0x55}, {0xab, 0x01}, {0xa9, 0x01}, {0xd0, 0x03}};

static void reset(struct platform *p, const char *how) { p->ops->power(p->ctx, POWER_RESET, how); }

static void command(struct platform *p, u8 val)
{
	p->kbc.command = val;
	if (val == CMD_RESET)
		reset(p, "8042");
	for (unsigned i = 0; i < ARRAY_SIZE(answers); i++) {
		if (answers[i].command == val) {
			p->kbc.out = answers[i].answer;
			p->kbc.full = true;
		}
	}
}

static void write_data(struct platform *p, u8 val)
{
	if (p->kbc.command == CMD_WRITE_OUTPUT && !(val & OUTPUT_RUN))
		reset(p, "8042");
	p->kbc.command = 0;
}

void kbc_io(void *platform, struct bus_op *op)
{
	struct platform *p = platform;

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

void port92_io(void *platform, struct bus_op *op)
{
	if (!op->write)
		op->val = PORT92_A20;
	else if (op->val & PORT92_RESET)
		reset(platform, "port 92");
}
