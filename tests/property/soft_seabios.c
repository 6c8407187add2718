/* SPDX-License-Identifier: MIT */
/*
 * A whole PC firmware, SeaBIOS as QEMU has it, interpreted from its first instruction in real mode to its last word:
 * that there is nothing to boot from. Some five million instructions of 16- and 32-bit code as compilers and people
 * write it, with timer interrupts in between. Where SeaBIOS is not installed there is nothing to run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/host/fake_vm.h"

#define SEABIOS    "/usr/share/seabios/bios-256k.bin"
#define SIZE       0x40000u
#define DEBUG_PORT 0x402u
#define LIMIT      20000000u
#define STEP_NS    100000u /* that pass in 16 instructions: the firmware waits for keys */

static char said[64 * 1024];
static size_t length;

/* SeaBIOS asks whether the port is there, and then talks. */
static void debug_port(void *dev, struct bus_op *op)
{
	op->val = op->write ? op->val : 0xe9;
	if (op->write && length < sizeof(said) - 1)
		said[length++] = (char)op->val;
}

static bool has_said(const char *text)
{
	size_t n = strlen(text);

	return length >= n && strstr(said + (length > 200 ? length - 200 : 0), text);
}

static void refuse(struct vcpu *v)
{
	v->event = fake_hw(v)->injected;
	v->exit = (struct vm_exit){.kind = EXIT_SOFT};
	fake_mode(v, &v->exit);
}

static void out(struct vcpu *v, u16 port, u8 val)
{
	struct bus_op op = {.space = BUS_PIO, .size = 1, .write = true, .addr = port, .val = val};

	guest_bus(v, &op);
}

/* This PC has no register to make memory below 1 MB writable, so it is. */
static void load(struct fake_vm *f, const u8 *image)
{
	struct p2m *p = &f->vm.p2m;

	if (p2m_add_slot(p, GFN(0xc0), 0x20, P2M_RAM) || p2m_populate(p, GFN(0xc0)))
		panic("no memory for the firmware");
	for (u64 gfn = 0xe0; gfn < 0x100; gfn++)
		if (p2m_set(p, GFN(gfn), p2m_get(p, GFN(gfn)).mfn, 0, P2M_RAM))
			panic("gfn %lx stays read-only", gfn);
	fake_poke(f, 0x100000 - SIZE, image, SIZE);
}

static void runs_to_its_end(void **state)
{
	static const struct bus_region debug = {BUS_PIO, 1, DEBUG_PORT, 1, debug_port, NULL};
	static u8 image[SIZE];
	FILE *file = fopen(SEABIOS, "rb");
	struct fake_vm *f;
	struct vcpu *v;
	u64 now = 0;

	if (!file)
		skip();
	assert_int_equal(fread(image, 1, SIZE, file), SIZE);
	fclose(file);
	f = fake_new(1);
	v = &f->vcpu[0];
	f->on_run = refuse;
	bus_add(&f->vm.platform.bus, debug);
	load(f, image);
	vcpu_reset(v);
	fake_hw(v)->seg[SEG_CS].base = 0xf0000;
	out(v, 0x70, 0x31); /* CMOS: 7 MB above the first */
	out(v, 0x71, 0x1c);
	for (unsigned i = 0; i < LIMIT && !f->vm.ending && !has_said("No bootable device"); i++) {
		if (i % 16 == 0) {
			host_set_now(now += STEP_NS);
			timers_run(&f->timers, now);
		}
		vcpu_run_once(v);
	}
	if (!has_said("No bootable device"))
		print_message("%s\n%s\n%s", said, f->vm.end_detail, host_log());
	assert_true(has_said("No bootable device"));
	fake_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(runs_to_its_end)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
