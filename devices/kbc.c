/* SPDX-License-Identifier: MIT */
/*
 * As much of an 8042 as a PC without keyboard needs: it answers its self-test and resets the machine. The A20 gate
 * is always open.
 */
#include "devices/chips.h"

enum { COMMAND_PORT = 0x64, CMD_RESET = 0xfe };
enum { STATUS_FULL = 0x01, STATUS_TESTED = 0x14 /* self-test passed, not locked */ };

/* What other commands have to say: command byte, self-test, port tests (no keyboard, no mouse), output port. */
static const struct {
	u8 command, answer;
} answers[] = {{0x20, 0x00}, {0xaa, 0x55}, {0xab, 0x01}, {0xa9, 0x01}, {0xd0, 0x03}};

static void command(struct platform *p, u8 val)
{
	if (val == CMD_RESET)
		p->ops->power(p->ctx, POWER_RESET, "8042");
	for (unsigned i = 0; i < ARRAY_SIZE(answers); i++) {
		if (answers[i].command == val) {
			p->kbc_out = answers[i].answer;
			p->kbc_full = true;
		}
	}
}

void kbc_io(void *platform, struct bus_op *op)
{
	struct platform *p = platform;

	if (op->addr == COMMAND_PORT && op->write) {
		command(p, (u8)op->val);
	} else if (op->addr == COMMAND_PORT) {
		op->val = STATUS_TESTED | (p->kbc_full ? STATUS_FULL : 0);
	} else if (!op->write) {
		op->val = p->kbc_out;
		p->kbc_full = false;
	}
}
