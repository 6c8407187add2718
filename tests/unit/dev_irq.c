/* SPDX-License-Identifier: MIT */
/* Interrupt lines: the 8259s with all their modes, the IOAPIC, and both ways a timer tick takes while Linux boots. */
#include "tests/unit/pc.h"

static void pulse(struct pc *pc, unsigned irq)
{
	irq_line(pc, irq, true);
	irq_line(pc, irq, false);
}

static struct pc *pc_with_pic(void)
{
	struct pc *pc = pc_new();

	pic_start(pc);
	out8(pc, 0x21, 0);
	out8(pc, 0xa1, 0);
	return pc;
}

static void pic_delivers_by_priority(void **state)
{
	struct pc *pc = pc_with_pic();

	pulse(pc, 5);
	assert_int_equal(pc->kicks[0], 1);
	assert_int_equal(pc->kicks[1], 0); /* its LINT0 is masked */
	assert_int_equal(platform_pending(&pc->p, 1), -1);
	pulse(pc, 1);
	assert_int_equal(take(pc, 0), 0x31);
	assert_int_equal(platform_pending(&pc->p, 0), -1); /* 5 waits for 1 */
	pulse(pc, 0);
	assert_int_equal(take(pc, 0), 0x30);
	out8(pc, 0x20, 0x20);
	assert_int_equal(platform_pending(&pc->p, 0), -1);
	out8(pc, 0x20, 0x20);
	assert_int_equal(take(pc, 0), 0x35);
	out8(pc, 0x20, 0x0b); /* read ISR */
	assert_int_equal(in8(pc, 0x20), 1 << 5);
	out8(pc, 0x20, 0x0a); /* read IRR */
	assert_int_equal(in8(pc, 0x20), 0);
	out8(pc, 0x20, 0x65); /* specific */
	pulse(pc, 7);
	assert_int_equal(take(pc, 0), 0x37);
	pc_free(pc);
}

static void pic_cascades(void **state)
{
	struct pc *pc = pc_with_pic();

	pulse(pc, 14);
	pulse(pc, 8);
	assert_int_equal(take(pc, 0), 0x38);
	out8(pc, 0xa0, 0x20);
	assert_int_equal(platform_pending(&pc->p, 0), -1); /* IR2 of the master still is in service */
	out8(pc, 0x20, 0x62);
	assert_int_equal(take(pc, 0), 0x3e);
	out8(pc, 0xa0, 0x66);
	out8(pc, 0x20, 0x62);
	assert_int_equal(take(pc, 0), -1);
	pulse(pc, 2); /* not a line of a PC */
	assert_int_equal(take(pc, 0), -1);
	pc_free(pc);
}

static void pic_masks(void **state)
{
	struct pc *pc = pc_with_pic();

	out8(pc, 0x21, 1 << 3);
	assert_int_equal(in8(pc, 0x21), 1 << 3);
	pulse(pc, 3);
	assert_int_equal(take(pc, 0), -1);
	out8(pc, 0x21, 0); /* it waited */
	assert_int_equal(take(pc, 0), 0x33);
	pc_free(pc);
}

static void pic_edge_and_level(void **state)
{
	struct pc *pc = pc_with_pic();

	irq_line(pc, 3, true);
	assert_int_equal(take(pc, 0), 0x33);
	out8(pc, 0x20, 0x20);
	irq_line(pc, 3, true); /* still high: no new edge */
	assert_int_equal(take(pc, 0), -1);
	assert_int_equal(in8(pc, 0x4d1), 1 << 1); /* the SCI, as firmware sets it */
	out8(pc, 0x4d0, 0xff);
	assert_int_equal(in8(pc, 0x4d0), 0xf8); /* the rest are edges on any PC */
	assert_int_equal(take(pc, 0), 0x33);
	out8(pc, 0x20, 0x20);
	assert_int_equal(take(pc, 0), 0x33); /* again, until the line falls */
	irq_line(pc, 3, false);
	out8(pc, 0x20, 0x20);
	assert_int_equal(take(pc, 0), -1);
	pc_free(pc);
}

static void pic_spurious(void **state)
{
	struct pc *pc = pc_with_pic();

	out8(pc, 0x4d0, 0xf8);
	out8(pc, 0x4d1, 0xde);
	irq_line(pc, 3, true);
	assert_int_equal(platform_pending(&pc->p, 0), 0x33);
	irq_line(pc, 3, false); /* gone before the CPU asks */
	assert_int_equal(platform_ack(&pc->p, 0), 0x37);
	out8(pc, 0x20, 0x0b);
	assert_int_equal(in8(pc, 0x20), 0); /* IR7 is not in service */
	pc_free(pc);
}

static void pic_auto_eoi(void **state)
{
	struct pc *pc = pc_with_pic();

	out8(pc, 0x20, 0x11);
	out8(pc, 0x21, 0x30);
	out8(pc, 0x21, 0x04);
	out8(pc, 0x21, 0x03); /* automatic EOI */
	pulse(pc, 1);
	pulse(pc, 3);
	assert_int_equal(take(pc, 0), 0x31);
	assert_int_equal(take(pc, 0), 0x33);
	pc_free(pc);
}

static void pic_does_not_rotate(void **state)
{
	struct pc *pc = pc_with_pic();

	out8(pc, 0x20, 0xc2); /* 2 is lowest, says FreeBSD; nothing is ended */
	pulse(pc, 4);
	assert_int_equal(take(pc, 0), 0x34);
	pulse(pc, 4);
	out8(pc, 0x20, 0xa0); /* a rotating end is one */
	pulse(pc, 1);
	assert_int_equal(take(pc, 0), 0x31);
	out8(pc, 0x20, 0xe1);
	assert_int_equal(take(pc, 0), 0x34);
	pc_free(pc);
}

static void pic_special_mask(void **state)
{
	struct pc *pc = pc_with_pic();

	pulse(pc, 1);
	assert_int_equal(take(pc, 0), 0x31);
	pulse(pc, 6);
	out8(pc, 0x21, 1 << 1);
	assert_int_equal(take(pc, 0), -1);
	out8(pc, 0x20, 0x68); /* special mask: what is masked does not block */
	assert_int_equal(take(pc, 0), 0x36);
	out8(pc, 0x20, 0x48);
	assert_int_equal(take(pc, 0), -1);
	pc_free(pc);
}

static void pic_needs_an_open_wire(void **state)
{
	struct pc *pc = pc_with_pic();

	apic_enable(pc);
	apic_write(pc, 0, APIC_LVT0, 0x10700);
	pulse(pc, 3);
	assert_int_equal(pc->kicks[0], 0);
	assert_int_equal(platform_pending(&pc->p, 0), -1);
	apic_write(pc, 0, APIC_LVT0, 0x400); /* NMI */
	assert_int_equal(platform_pending(&pc->p, 0), -1);
	apic_write(pc, 0, APIC_LVT0, 0x700);
	lapic_post(&pc->lapic[0], 0x55, false);
	assert_int_equal(serve(pc, 0), 0x55); /* the local APIC goes first */
	assert_int_equal(take(pc, 0), 0x33);
	pc_free(pc);
}

static struct pc *pc_with_ioapic(void)
{
	struct pc *pc = pc_new();

	apic_enable(pc);
	return pc;
}

static void route(struct pc *pc, unsigned pin, u32 lo, u8 dest)
{
	ioapic_write(pc, 0x11 + 2 * pin, (u32)dest << 24);
	ioapic_write(pc, 0x10 + 2 * pin, lo);
}

static void ioapic_registers(void **state)
{
	struct pc *pc = pc_with_ioapic();

	assert_int_equal(ioapic_read(pc, 1), 0x00170011);
	ioapic_write(pc, 0, 0xffffffff);
	assert_int_equal(ioapic_read(pc, 0), 0x0f000000);
	assert_int_equal(ioapic_read(pc, 0x10), 0x10000);
	route(pc, 5, 0xffffffff, 0xff);
	assert_int_equal(ioapic_read(pc, 0x1a), 0x1afff); /* but status and remote IRR */
	assert_int_equal(ioapic_read(pc, 0x1b), 0xff000000);
	assert_int_equal(ioapic_read(pc, 0x40), 0); /* beyond the last pin */
	ioapic_write(pc, 0x40, 0x10000);
	ioapic_write(pc, 0xff, 0x10000);
	assert_int_equal(pc_access(pc, BUS_MMIO, IOAPIC_BASE + 0x20, 4, false, 0), 0xffffffff);
	pc_free(pc);
}

static void ioapic_edges(void **state)
{
	struct pc *pc = pc_with_ioapic();

	route(pc, 4, 0x41, 1);
	irq_line(pc, 4, true);
	assert_int_equal(serve(pc, 1), 0x41);
	irq_line(pc, 4, true);
	assert_int_equal(serve(pc, 1), -1);
	pulse(pc, 4);
	assert_int_equal(serve(pc, 1), -1); /* was high, only fell */
	pulse(pc, 4);
	assert_int_equal(serve(pc, 1), 0x41);
	route(pc, 4, 0x10041, 1);
	pulse(pc, 4); /* an edge while masked is lost */
	route(pc, 4, 0x41, 1);
	assert_int_equal(serve(pc, 1), -1);
	route(pc, 4, 0x41, 0xff); /* everyone */
	pulse(pc, 4);
	assert_int_equal(serve(pc, 0), 0x41);
	assert_int_equal(serve(pc, 1), 0x41);
	apic_write(pc, 1, 0xd0, 0x02000000);
	route(pc, 4, 0x841, 2); /* logical */
	pulse(pc, 4);
	assert_int_equal(serve(pc, 0), -1);
	assert_int_equal(serve(pc, 1), 0x41);
	pulse(pc, 24); /* no such pin */
	pulse(pc, 1000);
	pc_free(pc);
}

static void ioapic_levels(void **state)
{
	struct pc *pc = pc_with_ioapic();

	route(pc, 9, 0x8000 | 0x61, 0);
	irq_line(pc, 9, true);
	assert_int_equal(ioapic_read(pc, 0x22), 0xc061); /* remote IRR */
	assert_int_equal(take(pc, 0), 0x61);
	assert_int_equal(apic_read(pc, 0, 0x180 + 0x30), 1u << 1); /* TMR */
	irq_line(pc, 9, false);
	irq_line(pc, 9, true); /* not before the EOI */
	assert_int_equal(apic_read(pc, 0, 0x200 + 0x30), 0);
	apic_write(pc, 0, APIC_EOI, 0);
	assert_int_equal(take(pc, 0), 0x61); /* still high: again */
	irq_line(pc, 9, false);
	apic_write(pc, 0, APIC_EOI, 0);
	assert_int_equal(take(pc, 0), -1);
	assert_int_equal(ioapic_read(pc, 0x22), 0x8061);
	/* high while masked comes when unmasked */
	route(pc, 9, 0x18061, 0);
	irq_line(pc, 9, true);
	assert_int_equal(take(pc, 0), -1);
	route(pc, 9, 0x8061, 0);
	assert_int_equal(take(pc, 0), 0x61);
	/* drivers clear remote IRR by making it an edge for a moment */
	ioapic_write(pc, 0x22, 0x10061);
	assert_int_equal(ioapic_read(pc, 0x22), 0x10061);
	ioapic_write(pc, 0x22, 0x8061);
	assert_int_equal(ioapic_read(pc, 0x22), 0xc061);
	irq_line(pc, 9, false);
	apic_write(pc, 0, APIC_EOI, 0);
	assert_int_equal(serve(pc, 0), 0x61);
	assert_int_equal(ioapic_read(pc, 0x22), 0x8061);
	/* a later edge with that vector is not taken for a level */
	route(pc, 9, 0x61, 0);
	pulse(pc, 9);
	assert_int_equal(take(pc, 0), 0x61);
	assert_int_equal(apic_read(pc, 0, 0x180 + 0x30), 0);
	pc_free(pc);
}

/* Nobody took it: the pin must not wait for an EOI that never comes. */
static void ioapic_level_without_taker(void **state)
{
	struct pc *pc = pc_with_ioapic();

	route(pc, 9, 0x8061, 5);
	irq_line(pc, 9, true);
	assert_int_equal(ioapic_read(pc, 0x22), 0x8061);
	route(pc, 9, 0x8061, 1);
	assert_int_equal(serve(pc, 1), 0x61);
	pc_free(pc);
}

static void ioapic_sends_nmi(void **state)
{
	struct pc *pc = pc_with_ioapic();
	u8 sipi;

	route(pc, 10, 0x8400, 1); /* level means nothing to an NMI */
	pulse(pc, 10);
	assert_int_equal(lapic_take_events(&pc->lapic[1], &sipi), LAPIC_EV_NMI);
	pulse(pc, 10);
	assert_int_equal(lapic_take_events(&pc->lapic[1], &sipi), LAPIC_EV_NMI);
	route(pc, 10, 0x700, 1); /* ExtINT and SMI go nowhere */
	pulse(pc, 10);
	route(pc, 10, 0x200, 1);
	pulse(pc, 10);
	assert_int_equal(lapic_take_events(&pc->lapic[1], &sipi), 0);
	pc_free(pc);
}

static void start_ticks(struct pc *pc)
{
	out8(pc, 0x43, 0x34); /* channel 0, both bytes, mode 2 */
	out8(pc, 0x40, 4773 & 0xff);
	out8(pc, 0x40, 4773 >> 8); /* HZ = 250 */
}

static unsigned ticks_in_ten_jiffies(struct pc *pc, int vector)
{
	unsigned n = 0;

	for (unsigned i = 0; i < 1000; i++) {
		pc_pass(pc, 40000);
		int v = take(pc, 0);

		if (v < 0)
			continue;
		assert_int_equal(v, vector);
		n++;
		apic_write(pc, 0, APIC_EOI, 0);
	}
	return n;
}

/* Linux's check_timer: first through IOAPIC pin 2 ... */
static void tick_through_the_ioapic(void **state)
{
	struct pc *pc = pc_with_ioapic();

	pic_start(pc);
	apic_write(pc, 0, APIC_LVT0, 0x10700);
	start_ticks(pc);
	route(pc, 2, 0x30, 0);
	assert_in_range(ticks_in_ten_jiffies(pc, 0x30), 9, 10);
	assert_int_equal(pc->kicks[1], 0);
	pc_free(pc);
}

/* ... and where that fails, or without an IOAPIC, by the virtual wire through the 8259. */
static void tick_through_the_virtual_wire(void **state)
{
	struct pc *pc = pc_with_ioapic();

	pic_start(pc);
	out8(pc, 0x20, 0x11);
	out8(pc, 0x21, 0x30);
	out8(pc, 0x21, 0x04);
	out8(pc, 0x21, 0x03); /* automatic EOI */
	out8(pc, 0x21, 0xfe);
	apic_write(pc, 0, APIC_LVT0, 0x700);
	start_ticks(pc);
	assert_in_range(ticks_in_ten_jiffies(pc, 0x30), 9, 10);
	pc_free(pc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pic_delivers_by_priority),
		cmocka_unit_test(pic_cascades),
		cmocka_unit_test(pic_masks),
		cmocka_unit_test(pic_edge_and_level),
		cmocka_unit_test(pic_spurious),
		cmocka_unit_test(pic_auto_eoi),
		cmocka_unit_test(pic_does_not_rotate),
		cmocka_unit_test(pic_special_mask),
		cmocka_unit_test(pic_needs_an_open_wire),
		cmocka_unit_test(ioapic_registers),
		cmocka_unit_test(ioapic_edges),
		cmocka_unit_test(ioapic_levels),
		cmocka_unit_test(ioapic_level_without_taker),
		cmocka_unit_test(ioapic_sends_nmi),
		cmocka_unit_test(tick_through_the_ioapic),
		cmocka_unit_test(tick_through_the_virtual_wire),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
