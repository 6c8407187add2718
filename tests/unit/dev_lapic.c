/* SPDX-License-Identifier: MIT */
/* Local APICs: registers in both modes, priorities, messages, and the timer in its three modes. */
#include "tests/unit/pc.h"

#include "lib/errno.h"

#define VEC_A 0x51
#define VEC_B 0x92

#define X2 (LAPIC_DEFAULT_BASE | LAPIC_BASE_ENABLE | LAPIC_BASE_X2APIC)

static u64 rdmsr(struct pc *pc, unsigned vcpu, u32 msr)
{
	u64 val = 0xdead;

	assert_int_equal(lapic_rdmsr(&pc->lapic[vcpu], msr, &val), 0);
	return val;
}

static void wrmsr(struct pc *pc, unsigned vcpu, u32 msr, u64 val)
{
	assert_int_equal(lapic_wrmsr(&pc->lapic[vcpu], msr, val), 0);
}

static bool faults(struct pc *pc, u32 msr, u64 val) { return lapic_wrmsr(&pc->lapic[0], msr, val) == -EINVAL; }

static bool read_faults(struct pc *pc, u32 msr)
{
	u64 val;

	return lapic_rdmsr(&pc->lapic[0], msr, &val) == -EINVAL;
}

static void to_x2apic(struct pc *pc)
{
	wrmsr(pc, 0, MSR_APIC_BASE, X2 | LAPIC_BASE_BSP);
	wrmsr(pc, 1, MSR_APIC_BASE, X2);
}

static void power_up_state(void **state)
{
	struct pc *pc = pc_new();

	assert_int_equal(rdmsr(pc, 0, MSR_APIC_BASE), LAPIC_DEFAULT_BASE | LAPIC_BASE_ENABLE | LAPIC_BASE_BSP);
	assert_int_equal(rdmsr(pc, 1, MSR_APIC_BASE), LAPIC_DEFAULT_BASE | LAPIC_BASE_ENABLE);
	assert_int_equal(apic_read(pc, 1, 0x20), 1u << 24);
	assert_int_equal(apic_read(pc, 0, 0x30), LAPIC_VERSION);
	assert_int_equal(apic_read(pc, 0, APIC_SVR), 0xff);
	assert_int_equal(apic_read(pc, 0, 0xe0), 0xffffffff);
	assert_int_equal(apic_read(pc, 0, APIC_LVTT), 0x10000);
	assert_int_equal(apic_read(pc, 1, APIC_LVT0), 0x10000);
	assert_true(lapic_accepts_pic(&pc->lapic[0])); /* the virtual wire that firmware leaves */
	assert_false(lapic_accepts_pic(&pc->lapic[1]));
	assert_true(lapic_page(&pc->lapic[0]) == LAPIC_DEFAULT_BASE);
	lapic_post(&pc->lapic[0], VEC_A, false); /* software-disabled: refused */
	assert_int_equal(platform_pending(&pc->p, 0), -1);
	pc_free(pc);
}

static void delivers_by_priority(void **state)
{
	struct pc *pc = pc_new();

	apic_enable(pc);
	lapic_post(&pc->lapic[0], VEC_A, false);
	lapic_post(&pc->lapic[0], VEC_A, false);
	assert_int_equal(pc->kicks[0], 1); /* the second says nothing new */
	assert_int_equal(take(pc, 0), VEC_A);
	assert_int_equal(apic_read(pc, 0, APIC_PPR), VEC_A & 0xf0);
	lapic_post(&pc->lapic[0], VEC_A + 1, false); /* same class: waits */
	assert_int_equal(platform_pending(&pc->p, 0), -1);
	lapic_post(&pc->lapic[0], VEC_B, false);
	assert_int_equal(take(pc, 0), VEC_B);
	assert_int_equal(apic_read(pc, 0, 0x100 + 0x40), 1u << (VEC_B & 31)); /* ISR, vectors 0x80-0x9f */
	assert_int_equal(apic_read(pc, 0, 0x200 + 0x20), 1u << ((VEC_A + 1) & 31));
	apic_write(pc, 0, APIC_EOI, 0);
	assert_int_equal(platform_pending(&pc->p, 0), -1);
	apic_write(pc, 0, APIC_EOI, 0);
	assert_int_equal(serve(pc, 0), VEC_A + 1);
	assert_int_equal(apic_read(pc, 0, APIC_PPR), 0);
	apic_write(pc, 0, APIC_EOI, 0); /* with nothing in service */
	pc_free(pc);
}

static void tpr_and_cr8_hold_back(void **state)
{
	struct pc *pc = pc_new();

	apic_enable(pc);
	lapic_post(&pc->lapic[0], VEC_A, false);
	lapic_set_cr8(&pc->lapic[0], 5);
	assert_int_equal(apic_read(pc, 0, APIC_TPR), 0x50);
	assert_int_equal(platform_pending(&pc->p, 0), -1);
	apic_write(pc, 0, APIC_TPR, 0x4f);
	assert_int_equal(lapic_get_cr8(&pc->lapic[0]), 4);
	assert_int_equal(apic_read(pc, 0, APIC_PPR), 0x4f);
	assert_int_equal(serve(pc, 0), VEC_A);
	pc_free(pc);
}

static void software_disable_masks(void **state)
{
	struct pc *pc = pc_new();

	apic_enable(pc);
	apic_write(pc, 0, APIC_LVTT, VEC_A);
	apic_write(pc, 0, APIC_INITIAL, 100000);
	apic_write(pc, 0, APIC_SVR, 0xff);
	assert_int_equal(apic_read(pc, 0, APIC_LVTT), 0x10000 | VEC_A);
	apic_write(pc, 0, APIC_LVTT, VEC_A); /* cannot be unmasked */
	assert_int_equal(apic_read(pc, 0, APIC_LVTT), 0x10000 | VEC_A);
	pc_pass(pc, MS);
	apic_write(pc, 0, APIC_SVR, 0x1ff);
	assert_int_equal(platform_pending(&pc->p, 0), -1);
	pc_free(pc);
}

/* A message or a register that does not exist leads nowhere. */
static void errors_are_ignored(void **state)
{
	struct pc *pc = pc_new();

	apic_enable(pc);
	apic_write(pc, 0, APIC_LVTERR, 0xfe);
	apic_write(pc, 0, APIC_ICR, 1 << 18 | 3); /* vector 3 */
	assert_int_equal(apic_read(pc, 0, 0x40), 0);
	assert_int_equal(apic_read(pc, 0, 0xff0), 0);
	apic_write(pc, 0, 0xff0, 1);
	apic_write(pc, 0, APIC_ESR, 0);
	assert_int_equal(apic_read(pc, 0, APIC_ESR), 0);
	assert_int_equal(serve(pc, 0), -1);
	pc_free(pc);
}

static void odd_sizes_are_harmless(void **state)
{
	struct pc *pc = pc_new();
	struct bus_op op = {.space = BUS_MMIO, .size = 1, .addr = LAPIC_DEFAULT_BASE + 0x32};

	lapic_mmio(&pc->lapic[0], &op);
	assert_int_equal(op.val & 0xff, 0x05);
	op.addr = LAPIC_DEFAULT_BASE + 0x34;
	lapic_mmio(&pc->lapic[0], &op);
	assert_int_equal(op.val, 0);
	op = (struct bus_op){
		.space = BUS_MMIO, .size = 2, .write = true, .addr = LAPIC_DEFAULT_BASE + 0xf0, .val = 0x1ff};
	lapic_mmio(&pc->lapic[0], &op);
	assert_int_equal(apic_read(pc, 0, APIC_SVR), 0xff);
	op.addr = LAPIC_DEFAULT_BASE + 0xfff;
	op.size = 8;
	lapic_mmio(&pc->lapic[0], &op);
	pc_free(pc);
}

static void base_has_legal_ways_only(void **state)
{
	struct pc *pc = pc_new();
	u64 on = LAPIC_DEFAULT_BASE | LAPIC_BASE_BSP | LAPIC_BASE_ENABLE;

	assert_true(read_faults(pc, 0x802)); /* not in x2APIC mode */
	assert_true(faults(pc, 0x80b, 0));
	assert_true(faults(pc, MSR_APIC_BASE, on | 1));
	assert_true(faults(pc, MSR_APIC_BASE, on | 1ull << 52));
	assert_true(faults(pc, MSR_APIC_BASE, LAPIC_DEFAULT_BASE | LAPIC_BASE_X2APIC));
	wrmsr(pc, 0, MSR_APIC_BASE, LAPIC_DEFAULT_BASE | LAPIC_BASE_BSP);
	assert_true(lapic_page(&pc->lapic[0]) == ~0ull);
	assert_true(lapic_accepts_pic(&pc->lapic[0]));
	assert_true(faults(pc, MSR_APIC_BASE, on | LAPIC_BASE_X2APIC)); /* off to x2APIC */
	wrmsr(pc, 0, MSR_APIC_BASE, on);
	wrmsr(pc, 0, MSR_APIC_BASE, on | LAPIC_BASE_X2APIC);
	assert_true(lapic_page(&pc->lapic[0]) == ~0ull);
	assert_true(faults(pc, MSR_APIC_BASE, on)); /* x2APIC back to xAPIC */
	wrmsr(pc, 0, MSR_APIC_BASE, on | LAPIC_BASE_X2APIC);
	wrmsr(pc, 0, MSR_APIC_BASE, LAPIC_DEFAULT_BASE);
	assert_true(read_faults(pc, 0x802));
	wrmsr(pc, 0, MSR_APIC_BASE, 0xd0000000ull | LAPIC_BASE_ENABLE);
	assert_true(lapic_page(&pc->lapic[0]) == 0xd0000000);
	pc_free(pc);
}

static void x2apic_registers(void **state)
{
	struct pc *pc = pc_new();

	to_x2apic(pc);
	assert_int_equal(rdmsr(pc, 1, 0x802), 1);
	assert_int_equal(rdmsr(pc, 1, 0x80d), 2); /* cluster 0, second of it */
	assert_int_equal(rdmsr(pc, 0, 0x803), LAPIC_VERSION);
	wrmsr(pc, 0, 0x80f, 0x1ff);
	wrmsr(pc, 0, 0x808, 0x20);
	assert_int_equal(rdmsr(pc, 0, 0x80a), 0x20);
	assert_int_equal(lapic_get_cr8(&pc->lapic[0]), 2);
	wrmsr(pc, 0, 0x828, 0);
	wrmsr(pc, 0, 0x80b, 0);
	/* absent, read-only, write-only, or a reserved bit */
	static const u32 not_there[] = {0x800, 0x804, 0x809, 0x80c, 0x80e, 0x82f, 0x831, 0x83a, 0x840, 0x8ff};
	static const u32 read_only[] = {0x802, 0x803, 0x80a, 0x80d, 0x810, 0x818, 0x820, 0x839};

	for (unsigned i = 0; i < ARRAY_SIZE(not_there); i++)
		assert_true(read_faults(pc, not_there[i]) && faults(pc, not_there[i], 0));
	for (unsigned i = 0; i < ARRAY_SIZE(read_only); i++)
		assert_true(!read_faults(pc, read_only[i]) && faults(pc, read_only[i], 0));
	assert_true(read_faults(pc, 0x80b) && read_faults(pc, 0x83f));
	assert_true(faults(pc, 0x80b, 1) && faults(pc, 0x828, 1) && faults(pc, 0x808, 0x100));
	assert_true(faults(pc, 0x80f, 1ull << 32) && faults(pc, 0x83f, 0x100) && faults(pc, 0x830, 1 << 20));
	pc_free(pc);
}

static void ipi(struct pc *pc, u32 dest, u32 lo)
{
	apic_write(pc, 0, APIC_ICR_HI, dest << 24);
	apic_write(pc, 0, APIC_ICR, lo);
}

/* Both vectors, as 100 * of vCPU 0 + of vCPU 1, with 0 for none. */
static int arrived(struct pc *pc)
{
	int v0 = serve(pc, 0), v1 = serve(pc, 1);

	return (v0 < 0 ? 0 : 100) + (v1 < 0 ? 0 : 1);
}

static void ipis_find_their_targets(void **state)
{
	struct pc *pc = pc_new();

	apic_enable(pc);
	ipi(pc, 1, VEC_A);
	assert_int_equal(apic_read(pc, 0, APIC_ICR), VEC_A);
	assert_int_equal(arrived(pc), 1);
	ipi(pc, 0, VEC_A);
	assert_int_equal(arrived(pc), 100);
	ipi(pc, 0xff, VEC_A); /* broadcast */
	assert_int_equal(arrived(pc), 101);
	ipi(pc, 7, VEC_A); /* nobody */
	assert_int_equal(arrived(pc), 0);
	ipi(pc, 1, 1 << 18 | VEC_A); /* self */
	assert_int_equal(arrived(pc), 100);
	ipi(pc, 0, 2 << 18 | VEC_A); /* all */
	assert_int_equal(arrived(pc), 101);
	ipi(pc, 0, 3 << 18 | VEC_A); /* all but self */
	assert_int_equal(arrived(pc), 1);
	/* flat logical */
	apic_write(pc, 0, 0xd0, 0x01000000);
	apic_write(pc, 1, 0xd0, 0x02000000);
	ipi(pc, 2, 0x800 | VEC_A);
	assert_int_equal(arrived(pc), 1);
	ipi(pc, 0xff, 0x800 | VEC_A);
	assert_int_equal(arrived(pc), 101);
	ipi(pc, 4, 0x800 | VEC_A);
	assert_int_equal(arrived(pc), 0);
	/* clusters: vCPU 0 is the first of cluster 1, vCPU 1 the second of cluster 2 */
	for (unsigned i = 0; i < 2; i++) {
		apic_write(pc, i, 0xe0, 0x0fffffff);
		apic_write(pc, i, 0xd0, i ? 0x22000000 : 0x11000000);
	}
	ipi(pc, 0x13, 0x800 | VEC_A);
	assert_int_equal(arrived(pc), 100);
	ipi(pc, 0x22, 0x800 | VEC_A);
	assert_int_equal(arrived(pc), 1);
	ipi(pc, 0xf3, 0x800 | VEC_A);
	assert_int_equal(arrived(pc), 101);
	ipi(pc, 0x21, 0x800 | VEC_A);
	assert_int_equal(arrived(pc), 0);
	pc_free(pc);
}

static void x2apic_ipis(void **state)
{
	struct pc *pc = pc_new();

	to_x2apic(pc);
	wrmsr(pc, 0, 0x80f, 0x1ff);
	wrmsr(pc, 1, 0x80f, 0x1ff);
	wrmsr(pc, 0, 0x830, 1ull << 32 | VEC_A);
	assert_int_equal(rdmsr(pc, 0, 0x830), 1ull << 32 | VEC_A);
	assert_int_equal(take(pc, 1), VEC_A);
	wrmsr(pc, 1, 0x80b, 0);
	wrmsr(pc, 0, 0x830, 0xffffffffull << 32 | VEC_A);
	assert_int_equal(take(pc, 0), VEC_A);
	assert_int_equal(take(pc, 1), VEC_A);
	wrmsr(pc, 0, 0x80b, 0);
	wrmsr(pc, 1, 0x80b, 0);
	wrmsr(pc, 0, 0x830, 0x0003ull << 32 | 0x800 | VEC_A); /* cluster 0, both */
	assert_int_equal(take(pc, 0), VEC_A);
	assert_int_equal(take(pc, 1), VEC_A);
	wrmsr(pc, 0, 0x80b, 0);
	wrmsr(pc, 1, 0x80b, 0);
	wrmsr(pc, 0, 0x830, 0x10003ull << 32 | 0x800 | VEC_A); /* cluster 1: nobody */
	assert_int_equal(take(pc, 0), -1);
	wrmsr(pc, 0, 0x83f, VEC_B);
	assert_int_equal(take(pc, 0), VEC_B);
	assert_int_equal(take(pc, 1), -1);
	pc_free(pc);
}

static void lowest_priority_goes_to_one(void **state)
{
	struct pc *pc = pc_new();

	apic_enable(pc);
	apic_write(pc, 0, APIC_TPR, 0x20);
	ipi(pc, 0xff, 0x100 | VEC_A);
	assert_int_equal(arrived(pc), 1);
	apic_write(pc, 1, APIC_TPR, 0x30);
	ipi(pc, 0, 2 << 18 | 0x100 | VEC_A);
	assert_int_equal(arrived(pc), 100);
	apic_write(pc, 0, APIC_SVR, 0xff); /* disabled ones don't count */
	ipi(pc, 0xff, 0x100 | VEC_A);
	assert_int_equal(arrived(pc), 1);
	pc_free(pc);
}

static void starts_other_cpus(void **state)
{
	struct pc *pc = pc_new();
	u8 sipi = 0;

	apic_write(pc, 0, APIC_SVR, 0x1ff); /* the target need not be enabled */
	ipi(pc, 1, 0xc500);                 /* INIT, level, assert */
	assert_int_equal(pc->kicks[1], 1);
	ipi(pc, 1, 0x8500); /* deassert: nothing */
	assert_int_equal(pc->kicks[1], 1);
	assert_int_equal(lapic_take_events(&pc->lapic[1], &sipi), LAPIC_EV_INIT);
	assert_int_equal(lapic_take_events(&pc->lapic[1], &sipi), 0);
	ipi(pc, 1, 0x600 | 0x9a);
	assert_int_equal(lapic_take_events(&pc->lapic[1], &sipi), LAPIC_EV_SIPI);
	assert_int_equal(sipi, 0x9a);
	ipi(pc, 1, 0x600 | 0x9b);
	ipi(pc, 1, 0x500); /* undoes the SIPI before it */
	assert_int_equal(lapic_take_events(&pc->lapic[1], &sipi), LAPIC_EV_INIT);
	ipi(pc, 1, 0x500);
	ipi(pc, 1, 0x600 | 0x9c); /* both before the target looked */
	lapic_reset(&pc->lapic[1], true);
	assert_int_equal(lapic_take_events(&pc->lapic[1], &sipi), LAPIC_EV_INIT | LAPIC_EV_SIPI);
	assert_int_equal(sipi, 0x9c);
	ipi(pc, 0, 3 << 18 | 0x400);
	assert_int_equal(lapic_take_events(&pc->lapic[1], &sipi), LAPIC_EV_NMI);
	assert_int_equal(lapic_take_events(&pc->lapic[0], &sipi), 0);
	pc_free(pc);
}

static void init_keeps_base_and_mode(void **state)
{
	struct pc *pc = pc_new();

	to_x2apic(pc);
	wrmsr(pc, 1, 0x80f, 0x1ff);
	wrmsr(pc, 1, 0x832, 0x20000 | VEC_A);
	wrmsr(pc, 1, 0x838, 100000);
	lapic_post(&pc->lapic[1], VEC_A, false);
	lapic_reset(&pc->lapic[1], true);
	assert_int_equal(rdmsr(pc, 1, MSR_APIC_BASE), X2);
	assert_int_equal(rdmsr(pc, 1, 0x80d), 2);
	assert_int_equal(rdmsr(pc, 1, 0x80f), 0xff);
	assert_int_equal(platform_pending(&pc->p, 1), -1);
	assert_true(pc->q.next == TIMER_NEVER);
	pc_free(pc);
}

/* A count that is over before it is armed for: its interrupt was lost, and a Linux without a TSC slept for ever. */
static void no_count_is_too_short(void **state)
{
	struct pc *pc = pc_new();

	apic_enable(pc);
	apic_write(pc, 0, APIC_LVTT, VEC_A);
	apic_write(pc, 0, APIC_DIVIDE, 0xb);
	for (u32 count = 1; count < 8; count++) {
		host_set_now_step(3);
		apic_write(pc, 0, APIC_INITIAL, count);
		host_set_now(port_now());
		pc_pass(pc, 10);
		assert_int_equal(serve(pc, 0), VEC_A);
	}
	for (unsigned late = 0; late < 40; late++) { /* the rate or the entry changes just as it ends */
		apic_write(pc, 0, APIC_INITIAL, 40);
		host_set_now(port_now() + late);
		host_set_now_step(3);
		apic_write(pc, 0, late & 1 ? APIC_DIVIDE : APIC_LVTT, late & 1 ? 0xb : VEC_A);
		host_set_now(port_now());
		pc_pass(pc, 50);
		assert_int_equal(serve(pc, 0), VEC_A);
		assert_int_equal(serve(pc, 0), -1);
	}
	pc_free(pc);
}

static void one_shot_timer(void **state)
{
	struct pc *pc = pc_new();

	apic_enable(pc);
	apic_write(pc, 0, APIC_LVTT, VEC_A);
	apic_write(pc, 0, APIC_DIVIDE, 0xb); /* by 1 */
	apic_write(pc, 0, APIC_INITIAL, 1000000);
	pc_pass(pc, 400000);
	assert_int_equal(apic_read(pc, 0, APIC_CURRENT), 600000);
	pc_pass(pc, 599999);
	assert_int_equal(serve(pc, 0), -1);
	pc_pass(pc, 1);
	assert_int_equal(serve(pc, 0), VEC_A);
	assert_int_equal(apic_read(pc, 0, APIC_CURRENT), 0);
	pc_pass(pc, 10 * MS);
	assert_int_equal(serve(pc, 0), -1);
	apic_write(pc, 0, APIC_DIVIDE, 3); /* by 16 */
	apic_write(pc, 0, APIC_INITIAL, 1000);
	pc_pass(pc, 8000);
	assert_int_equal(apic_read(pc, 0, APIC_CURRENT), 500);
	apic_write(pc, 0, APIC_DIVIDE, 0); /* by 2, from here on */
	assert_int_equal(apic_read(pc, 0, APIC_CURRENT), 500);
	pc_pass(pc, 999);
	assert_int_equal(serve(pc, 0), -1);
	pc_pass(pc, 1);
	assert_int_equal(serve(pc, 0), VEC_A);
	apic_write(pc, 0, APIC_INITIAL, 1000);
	apic_write(pc, 0, APIC_INITIAL, 0); /* stops */
	assert_true(pc->q.next == TIMER_NEVER);
	pc_free(pc);
}

static void periodic_timer_keeps_phase(void **state)
{
	struct pc *pc = pc_new();

	apic_enable(pc);
	apic_write(pc, 0, APIC_DIVIDE, 0xb);
	apic_write(pc, 0, APIC_LVTT, 0x20000 | VEC_A);
	apic_write(pc, 0, APIC_INITIAL, 1000003);
	for (unsigned i = 0; i < 50; i++) {
		pc_pass(pc, 1000002);
		assert_int_equal(serve(pc, 0), -1);
		pc_pass(pc, 1);
		assert_int_equal(serve(pc, 0), VEC_A);
	}
	/* what a long sleep missed is one interrupt, and the phase is as before */
	pc_sleep(pc, 1000003ull * 1000 + 500000);
	assert_int_equal(serve(pc, 0), VEC_A);
	assert_int_equal(serve(pc, 0), -1);
	assert_int_equal(apic_read(pc, 0, APIC_CURRENT), 500003);
	assert_int_equal(pc->q.next, port_now() + 500003);
	/* masked it costs nothing, and counts on */
	apic_write(pc, 0, APIC_LVTT, 0x30000 | VEC_A);
	assert_true(pc->q.next == TIMER_NEVER);
	pc_pass(pc, 500004);
	assert_int_equal(apic_read(pc, 0, APIC_CURRENT), 1000002);
	apic_write(pc, 0, APIC_LVTT, 0x20000 | VEC_A);
	assert_int_equal(pc->q.next, port_now() + 1000002);
	pc_free(pc);
}

static void fast_periodic_timer_is_slowed(void **state)
{
	struct pc *pc = pc_new();

	apic_enable(pc);
	apic_write(pc, 0, APIC_DIVIDE, 0xb);
	apic_write(pc, 0, APIC_LVTT, 0x20000 | VEC_A);
	for (u32 count = 1; count <= 4096; count *= 8) {
		apic_write(pc, 0, APIC_INITIAL, count);
		for (unsigned i = 0; i < 10; i++) {
			assert_true(pc->q.next - port_now() >= GUEST_PERIOD_MIN_NS);
			assert_true(pc->q.next - port_now() <= GUEST_PERIOD_MIN_NS + count);
			pc_sleep(pc, pc->q.next - port_now());
		}
	}
	pc_free(pc);
}

static void tsc_deadline_timer(void **state)
{
	struct pc *pc = pc_new();

	apic_enable(pc);
	wrmsr(pc, 0, MSR_TSC_DEADLINE, 1000); /* not in this mode: ignored */
	assert_int_equal(rdmsr(pc, 0, MSR_TSC_DEADLINE), 0);
	apic_write(pc, 0, APIC_LVTT, 0x40000 | VEC_A);
	apic_write(pc, 0, APIC_INITIAL, 1000); /* ignored in this one */
	assert_int_equal(apic_read(pc, 0, APIC_INITIAL), 0);
	wrmsr(pc, 0, MSR_TSC_DEADLINE, 2500001); /* 1000000.4 ns after start_ns, which is now */
	assert_int_equal(rdmsr(pc, 0, MSR_TSC_DEADLINE), 2500001);
	pc_pass(pc, 1000000);
	assert_int_equal(serve(pc, 0), -1);
	pc_pass(pc, 1);
	assert_int_equal(serve(pc, 0), VEC_A);
	assert_int_equal(rdmsr(pc, 0, MSR_TSC_DEADLINE), 0);
	wrmsr(pc, 0, MSR_TSC_DEADLINE, 5); /* in the past: at once */
	assert_int_equal(serve(pc, 0), VEC_A);
	wrmsr(pc, 0, MSR_TSC_DEADLINE, ~0ull); /* never, and no overflow */
	assert_true(pc->q.next > 1ull << 60);
	wrmsr(pc, 0, MSR_TSC_DEADLINE, 0);
	assert_true(pc->q.next == TIMER_NEVER);
	/* passes while masked: gone */
	wrmsr(pc, 0, MSR_TSC_DEADLINE, 5000000);
	apic_write(pc, 0, APIC_LVTT, 0x50000 | VEC_A);
	pc_pass(pc, 5 * MS);
	assert_int_equal(rdmsr(pc, 0, MSR_TSC_DEADLINE), 0);
	apic_write(pc, 0, APIC_LVTT, 0x40000 | VEC_A);
	assert_int_equal(serve(pc, 0), -1);
	/* leaving the mode disarms */
	wrmsr(pc, 0, MSR_TSC_DEADLINE, 1ull << 40);
	apic_write(pc, 0, APIC_LVTT, VEC_A);
	assert_true(pc->q.next == TIMER_NEVER);
	pc_free(pc);
}

/* What became due just before the guest touches the timer is not lost because the host's timer has yet to run. */
static void what_is_due_stays_due(void **state)
{
	struct pc *pc = pc_new();

	apic_enable(pc);
	apic_write(pc, 0, APIC_DIVIDE, 0xb);
	apic_write(pc, 0, APIC_LVTT, VEC_A);
	apic_write(pc, 0, APIC_INITIAL, 1000);
	host_set_now(port_now() + 1000);
	apic_write(pc, 0, APIC_LVTT, 0x10000 | VEC_A);
	assert_int_equal(serve(pc, 0), VEC_A);
	apic_write(pc, 0, APIC_LVTT, VEC_A);
	apic_write(pc, 0, APIC_INITIAL, 1000);
	host_set_now(port_now() + 1000);
	apic_write(pc, 0, APIC_DIVIDE, 3);
	assert_int_equal(serve(pc, 0), VEC_A);
	apic_write(pc, 0, APIC_LVTT, 0x40000 | VEC_A);
	wrmsr(pc, 0, MSR_TSC_DEADLINE, (port_now() - 1000) * 5 / 2 + 100);
	host_set_now(port_now() + 1000);
	apic_write(pc, 0, APIC_SVR, 0xff);
	assert_int_equal(serve(pc, 0), VEC_A);
	pc_pass(pc, MS);
	assert_int_equal(serve(pc, 0), -1);
	pc_free(pc);
}

/* Linux measures the APIC timer against the PM timer and the PIT before it trusts it. */
static void timer_agrees_with_the_pm_timer(void **state)
{
	struct pc *pc = pc_new();
	u32 pm, apic;

	apic_enable(pc);
	apic_write(pc, 0, APIC_DIVIDE, 3);
	apic_write(pc, 0, APIC_LVTT, 0x10000 | VEC_A);
	apic_write(pc, 0, APIC_INITIAL, 0xffffffff);
	pm = in32(pc, PM_TMR_PORT);
	apic = apic_read(pc, 0, APIC_CURRENT);
	pc_pass(pc, 100 * MS);
	assert_in_range(in32(pc, PM_TMR_PORT) - pm, 357954, 357955);
	assert_int_equal(apic - apic_read(pc, 0, APIC_CURRENT), 100 * MS / 16);
	pc_free(pc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(power_up_state),
		cmocka_unit_test(delivers_by_priority),
		cmocka_unit_test(tpr_and_cr8_hold_back),
		cmocka_unit_test(software_disable_masks),
		cmocka_unit_test(errors_are_ignored),
		cmocka_unit_test(odd_sizes_are_harmless),
		cmocka_unit_test(base_has_legal_ways_only),
		cmocka_unit_test(x2apic_registers),
		cmocka_unit_test(ipis_find_their_targets),
		cmocka_unit_test(x2apic_ipis),
		cmocka_unit_test(lowest_priority_goes_to_one),
		cmocka_unit_test(starts_other_cpus),
		cmocka_unit_test(init_keeps_base_and_mode),
		cmocka_unit_test(no_count_is_too_short),
		cmocka_unit_test(one_shot_timer),
		cmocka_unit_test(periodic_timer_keeps_phase),
		cmocka_unit_test(fast_periodic_timer_is_slowed),
		cmocka_unit_test(tsc_deadline_timer),
		cmocka_unit_test(what_is_due_stays_due),
		cmocka_unit_test(timer_agrees_with_the_pm_timer),
	};

	int failed = cmocka_run_group_tests_name("emulated", tests, NULL, NULL);

	pc_virtual_apic = true;
	return failed + cmocka_run_group_tests_name("virtualised", tests, NULL, NULL);
}
