/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE /* memfd_create */
#include "tests/host/p2m_fixture.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static int setup(void **state) { return setup_empty(state); }

static void assert_entry(u64 gfn, mfn_t mfn, unsigned order, enum p2m_type type)
{
	struct p2m_entry e = p2m_get(&p2m, GFN(gfn));

	assert_int_equal(e.type, type);
	assert_true(mfn_eq(e.mfn, mfn));
	assert_int_equal(e.order, order);
}

static void assert_type(u64 gfn, enum p2m_type type) { assert_int_equal(p2m_get(&p2m, GFN(gfn)).type, type); }

static void add_slot(u64 first, u64 frames, enum p2m_type type)
{
	assert_int_equal(p2m_add_slot(&p2m, GFN(first), frames, type), 0);
}

/* A populated slot of RAM. */
static void add_ram(u64 first, u64 frames)
{
	add_slot(first, frames, P2M_RAM);
	assert_int_equal(p2m_populate(&p2m, GFN(first)), 0);
}

/* Slots and populating. */

static void a_slot_is_checked(void **state)
{
	(void)state;
	add_slot(0x100, 0x100, P2M_RAM);
	assert_int_equal(p2m_add_slot(&p2m, GFN(0x1ff), 2, P2M_RAM), -EEXIST);
	assert_int_equal(p2m_add_slot(&p2m, GFN(0), 0x101, P2M_RO), -EEXIST);
	assert_int_equal(p2m_add_slot(&p2m, GFN(0x1000), 0, P2M_RAM), -EINVAL);
	assert_int_equal(p2m_add_slot(&p2m, GFN(0x1000), 1, P2M_MMIO), -EINVAL);
	assert_int_equal(p2m_add_slot(&p2m, GFN(BIT(28) - 1), 2, P2M_RAM), -EINVAL); /* width 40 */
	assert_int_equal(p2m_add_slot(&p2m, GFN(2), ~0ull, P2M_RAM), -EINVAL);
	assert_int_equal(p2m_add_slot(&p2m, GFN(~0ull), 1, P2M_RAM), -EINVAL);
	add_slot(BIT(28) - 1, 1, P2M_RAM);
	for (unsigned i = 2; i < P2M_SLOTS; i++)
		add_slot(i << 12, 1, P2M_RAM);
	assert_int_equal(p2m_add_slot(&p2m, GFN(0x80000), 1, P2M_RAM), -ENOSPC);
	host_fail_alloc(1);
	p2m.nslots--;
	assert_int_equal(p2m_add_slot(&p2m, GFN(0x80000), BIT(26), P2M_RAM), -ENOMEM);
	p2m.nslots++;
	assert_int_equal(p2m_populate(&p2m, GFN(0x50)), -EINVAL);
	assert_int_equal(p2m_populate_on_demand(&p2m, GFN(0x50)), -EINVAL);
}

static void a_pc_with_its_hole_below_1_mb_still_gets_large_pages(void **state)
{
	(void)state;
	add_ram(0, 0xa0);
	add_slot(0xf0, 0x10, P2M_RO);
	assert_int_equal(p2m_populate(&p2m, GFN(0xf0)), 0);
	add_ram(0x100, 0x2000 - 0x100 + 3);
	assert_int_equal(p2m.pt.leaves[0], 0xa0 + 0x10 + 0x100 + 3);
	assert_int_equal(p2m.pt.leaves[1], 15);
	assert_type(0xf5, P2M_RO);
	assert_type(0xa0, P2M_NONE);
	assert_int_equal(p2m_get(&p2m, GFN(0x200)).order, 9);
	assert_int_equal(p2m_get(&p2m, GFN(0x2002)).order, 0);
}

/* Makes all of [pa, pa + len) the same 2 MB, so that zeroing it does not ask for that much memory. */
static void alias(hpa_t pa, u64 len)
{
	int fd = memfd_create("alias", 0);

	assert_int_equal(ftruncate(fd, 2 * MB), 0);
	for (u64 at = 0; at < len; at += 2 * MB)
		assert_true(mmap(port_virt(pa + at), 2 * MB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) !=
			    MAP_FAILED);
	close(fd);
}

static void a_gigabyte_is_one_page_where_all_allow_it(void **state)
{
	(void)state;
	p2m_free(&p2m);
	host_machine(3 * GB);
	assert_int_equal(p2m_init(&p2m, p2m.pt.fmt, OWNER, ORDER_1G, 40), 0);
	alias(GB, 2 * GB);
	add_ram(BIT(18) - 512, 512 + BIT(18) + 512);
	assert_int_equal(p2m.pt.leaves[2], 1);
	assert_int_equal(p2m.pt.leaves[1], 2);
	assert_int_equal(p2m.pt.leaves[0], 0);
	assert_int_equal(p2m.pt.tables, 4);
	struct p2m_entry e = p2m_get(&p2m, GFN(BIT(18) + 12345));
	assert_int_equal(e.order, 18);
	assert_int_equal(frame_of(e.mfn)->gfn, BIT(18) + 12345);
	/* One page of it changes: one branch is split. */
	assert_int_equal(p2m_set(&p2m, GFN(BIT(18) + 5), MFN_NONE, 0, P2M_MMIO), 0);
	assert_int_equal(p2m.pt.leaves[2], 0);
	assert_int_equal(p2m.pt.leaves[1], 2 + 511);
	assert_int_equal(p2m.pt.leaves[0], 511);
	assert_int_equal(p2m.splits[P2M_OVERLAY], 2);
	assert_clean();
	p2m_free(&p2m);
	host_machine(64 * MB);
	assert_int_equal(p2m_init(&p2m, p2m.pt.fmt, OWNER, ORDER_1G, 40), 0);
}

/* The last gigabyte in one piece is not broken for the 2 MB before it. */
static void gigabytes_come_first(void **state)
{
	mfn_t whole, table[8], taken;

	(void)state;
	p2m_free(&p2m);
	host_machine(2 * GB);
	alias(GB, GB);
	whole = alloc(ORDER_1G, OTHER);
	for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
		table[i] = alloc(0, OTHER);
	for (int order = ORDER_1G; order >= 0; order--)
		while (!frames_alloc((unsigned)order, OTHER, 0, &taken))
			continue;
	for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
		assert_int_equal(frames_free(table[i], 0, OTHER), 0);
	assert_int_equal(frames_free(whole, ORDER_1G, OTHER), 0);
	assert_int_equal(p2m_init(&p2m, p2m.pt.fmt, OWNER, ORDER_1G, 40), 0);
	add_slot(BIT(18) - 512, 512 + BIT(18), P2M_RAM);
	assert_int_equal(p2m_populate(&p2m, GFN(BIT(18) - 512)), -ENOMEM);
	assert_int_equal(p2m.pt.leaves[2], 1);
	assert_clean();
	p2m_free(&p2m);
	host_machine(64 * MB);
	assert_int_equal(p2m_init(&p2m, p2m.pt.fmt, OWNER, ORDER_1G, 40), 0);
}

static void populating_falls_back_when_large_blocks_are_gone(void **state)
{
	(void)state;
	/* All 2 MB blocks but three are taken. */
	mfn_t keep[3], mfn;
	for (unsigned i = 0; i < 3; i++)
		keep[i] = alloc(9, OTHER);
	while (!frames_alloc(9, OTHER, 0, &mfn))
		continue;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(frames_free(MFN(keep[i].n + (i == 2 ? 256 : 0)), i == 2 ? 8 : 9, OTHER), 0);
	add_ram(RAM, 2 * 512 + 200);
	assert_int_equal(p2m.pt.leaves[1], 2);
	assert_int_equal(p2m.pt.leaves[0], 200);
	assert_clean();
}

static void populating_stops_when_memory_ends_and_can_be_repeated(void **state)
{
	(void)state;
	add_slot(RAM, 0x800, P2M_RAM);
	for (u64 nth = 1; nth < 12; nth++) {
		host_fail_alloc(nth);
		int err = p2m_populate(&p2m, GFN(RAM));
		assert_true(err == -ENOMEM || nth > 3);
		host_fail_alloc(0);
		assert_clean();
		if (nth % 3 == 0)
			assert_int_equal(p2m_remove(&p2m, GFN(RAM), 9), 0);
	}
	assert_int_equal(p2m_populate(&p2m, GFN(RAM)), 0);
	assert_type(RAM + 0x7ff, P2M_RAM);
}

static void new_memory_is_zero(void **state)
{
	char page[4096], zero[4096] = {0};
	mfn_t mfn;

	(void)state;
	while (!frames_alloc(9, OTHER, 0, &mfn))
		memset(port_virt(mfn_to_hpa(mfn)), 0x55, 2 * MB);
	frames_free_all(OTHER);
	add_ram(RAM, 1024);
	for (u64 i = 0; i < 1024; i++) {
		assert_int_equal(p2m_read(&p2m, gfn_to_gpa(GFN(RAM + i)), page, 4096), 0);
		assert_memory_equal(page, zero, 4096);
	}
}

static void on_demand_memory_comes_at_first_touch(void **state)
{
	u32 value = 0;

	(void)state;
	add_slot(RAM, 2048 + 10, P2M_RAM);
	u64 free = memory().free;
	assert_int_equal(p2m_populate_on_demand(&p2m, GFN(RAM)), 0);
	assert_int_equal(p2m_populate_on_demand(&p2m, GFN(RAM)), -EEXIST);
	assert_true(free - memory().free < 8);
	assert_entry(RAM + 512, MFN_NONE, 9, P2M_DEMAND);
	assert_int_equal(p2m_fault(&p2m, gfn_to_gpa(GFN(RAM + 600)), P2M_WRITE), P2M_RETRY);
	assert_int_equal(p2m_get(&p2m, GFN(RAM + 1023)).order, 9);
	assert_type(RAM + 1023, P2M_RAM);
	assert_type(RAM + 1024, P2M_DEMAND);
	assert_int_equal(p2m_read(&p2m, gfn_to_gpa(GFN(RAM + 2049)) - 2, &value, 4), 0);
	assert_type(RAM + 2048, P2M_RAM);
	assert_type(RAM + 2049, P2M_RAM);
	assert_type(RAM + 2050, P2M_DEMAND);
	host_fail_alloc(1);
	assert_int_equal(p2m_fault(&p2m, gfn_to_gpa(GFN(RAM + 2051)), P2M_READ), P2M_NOMEM);
	assert_int_equal(p2m_read(&p2m, gfn_to_gpa(GFN(RAM + 2051)), &value, 4), -EFAULT);
	host_fail_alloc(0);
	assert_int_equal(p2m_fault(&p2m, gfn_to_gpa(GFN(RAM + 2051)), P2M_EXEC), P2M_RETRY);
	assert_int_equal(p2m_set(&p2m, GFN(5), MFN_NONE, 0, P2M_DEMAND), -EINVAL); /* in no slot */
}

/* Setting. */

static void an_overlay_splits_and_its_end_merges(void **state)
{
	(void)state;
	add_ram(RAM, 1024);
	struct p2m_entry old = p2m_get(&p2m, GFN(RAM + 7));
	assert_int_equal(old.order, 9);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 7), MFN_NONE, 0, P2M_MMIO), 0);
	assert_entry(RAM + 7, MFN_NONE, 0, P2M_MMIO);
	assert_entry(RAM + 8, MFN(old.mfn.n + 1), 0, P2M_RAM);
	assert_int_equal(p2m_get(&p2m, GFN(RAM + 512)).order, 9);
	assert_true(frame_of(old.mfn)->gfn == FRAME_NO_GFN);
	assert_int_equal(*p2m_forbid(&p2m.slot[0], GFN(RAM), ORDER_2M), 1);
	assert_int_equal(p2m.splits[P2M_OVERLAY], 1);
	assert_clean();
	/* A large mapping is made only at zero, but the set itself is not refused. */
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 7), old.mfn, 0, P2M_RAM), 0);
	assert_int_equal(*p2m_forbid(&p2m.slot[0], GFN(RAM), ORDER_2M), 0);
	assert_entry(RAM + 7, old.mfn, 9, P2M_RAM);
	assert_int_equal(p2m.pt.merges, 1);
}

/* KVM's rule, and the first of the counts: an unaligned slot forbids the large pages that it cuts. */
static void a_cut_large_frame_is_never_mapped_as_one(void **state)
{
	mfn_t big = alloc(9, OWNER);

	(void)state;
	add_slot(RAM + 3, 1024, P2M_RAM);
	assert_int_equal(*p2m_forbid(&p2m.slot[0], GFN(RAM + 3), ORDER_2M), 3);
	assert_int_equal(*p2m_forbid(&p2m.slot[0], GFN(RAM + 512), ORDER_2M), 0);
	assert_int_equal(*p2m_forbid(&p2m.slot[0], GFN(RAM + 1024), ORDER_2M), 509);
	assert_int_equal(*p2m_forbid(&p2m.slot[0], GFN(RAM + 512), ORDER_1G), BIT(18) - 1024);
	assert_int_equal(p2m_set(&p2m, GFN(RAM), big, 9, P2M_RAM), 0);
	assert_entry(RAM, big, 0, P2M_RAM);
	assert_entry(RAM + 511, MFN(big.n + 511), 0, P2M_RAM);
	assert_clean();
	assert_int_equal(p2m_remove(&p2m, GFN(RAM), 9), 0);
}

static void any_order_can_be_set(void **state)
{
	mfn_t a = alloc(3, OWNER), b = alloc(11, OWNER);

	(void)state;
	add_slot(RAM, 4096, P2M_RAM);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 8), a, 3, P2M_RAM), 0);
	assert_entry(RAM + 15, MFN(a.n + 7), 0, P2M_RAM);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 2048), b, 11, P2M_RAM), 0);
	assert_entry(RAM + 4095, MFN(b.n + 2047), 9, P2M_RAM);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 2048), MFN_NONE, 11, P2M_BALLOONED), 0);
	assert_entry(RAM + 4095, MFN_NONE, 9, P2M_BALLOONED);
	assert_int_equal(p2m.pt.leaves[0], 8);
}

/*
 * Xen XSA-388: hypercalls for populate-on-demand and decrease-reservation took orders above 0 with gfns that were not
 * aligned to them, and orders between the page sizes were mishandled. All of these are refused, or do what they say.
 */
static void xsa_388_misaligned_arguments_are_refused(void **state)
{
	mfn_t mfn = alloc(9, OWNER);

	(void)state;
	add_slot(RAM, 1024, P2M_RAM);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 1), mfn, 9, P2M_RAM), -EINVAL);
	assert_int_equal(p2m_set(&p2m, GFN(RAM), MFN(mfn.n + 1), 1, P2M_RAM), -EINVAL);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 2), MFN_NONE, 2, P2M_BALLOONED), -EINVAL);
	assert_int_equal(p2m_set(&p2m, GFN(0), mfn, 19, P2M_RAM), -EINVAL);
	assert_int_equal(p2m_set(&p2m, GFN(0), mfn, 64, P2M_RAM), -EINVAL);
	assert_int_equal(p2m_set(&p2m, GFN(BIT(28)), mfn, 0, P2M_RAM), -EINVAL);
	assert_int_equal(p2m_set(&p2m, GFN(~0ull), mfn, 0, P2M_RAM), -EINVAL);
	assert_int_equal(p2m_set(&p2m, GFN(RAM), mfn, 0, P2M_TYPES), -EINVAL);
	assert_int_equal(p2m_set(&p2m, GFN(RAM), mfn, 0, P2M_MMIO), -EINVAL);
	assert_int_equal(p2m_set(&p2m, GFN(RAM), MFN_NONE, 0, P2M_RAM), -EINVAL);
	assert_int_equal(p2m_set(&p2m, GFN(RAM), MFN(BIT(30)), 0, P2M_RAM), -EINVAL); /* beyond memory */
	assert_int_equal(p2m_remove(&p2m, GFN(RAM + 1), 1), -EINVAL);
	assert_int_equal(p2m.pt.tables, 1);
	assert_int_equal(p2m_frames(&p2m, 0), 0);
	assert_int_equal(frames_free(mfn, 9, OWNER), 0);
}

/*
 * Xen XSA-379: racing grant-table calls could leave a page mapped at two gfns. Every frame has one gfn in the M2P, and
 * whoever comes second is refused.
 */
static void xsa_379_a_frame_is_at_one_gfn(void **state)
{
	mfn_t mfn = alloc(9, OWNER), theirs = alloc(0, OTHER), host = alloc(0, OWNER_HOST);

	(void)state;
	add_slot(RAM, 1024, P2M_RAM);
	assert_int_equal(p2m_set(&p2m, GFN(RAM), mfn, 9, P2M_RAM), 0);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 600), MFN(mfn.n + 5), 0, P2M_RAM), -EEXIST);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 512), mfn, 9, P2M_RAM), -EEXIST);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 600), theirs, 0, P2M_RAM), -EPERM);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 600), host, 0, P2M_RAM), -EPERM);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 600), theirs, 0, P2M_DIRECT), -EPERM);
	p2m.machine = 39; /* beyond it an address is a reserved bit, and would fault for ever */
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 600), MFN(BIT(27)), 0, P2M_DIRECT), -EINVAL);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 600), MFN(BIT(52 - 12)), 0, P2M_DIRECT), -EINVAL);
	p2m.machine = 52;
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 600), p2m.pt.root, 0, P2M_RAM), -EPERM); /* its own table */
	assert_int_equal(p2m_set(&p2m, GFN(RAM), mfn, 9, P2M_RAM), 0);                    /* again is no second gfn */
	assert_entry(RAM, mfn, 9, P2M_RAM);
	assert_type(RAM + 600, P2M_NONE);
	assert_clean();
	/* While a removed frame waits for the flush, it is nobody's to map. */
	assert_int_equal(p2m_remove(&p2m, GFN(RAM), 9), 0);
	assert_int_equal(p2m_set(&p2m, GFN(RAM), mfn, 9, P2M_RAM), -EPERM);
	assert_int_equal(frames_free(host, 0, OWNER_HOST), 0);
}

static int try_to_map;
static mfn_t leaving;

static void map_while_flushing(hpa_t root, u64 mask)
{
	(void)root;
	(void)mask;
	try_to_map = p2m_set(&p2m, GFN(RAM + 700), leaving, 0, P2M_RAM);
}

static void a_frame_on_its_way_out_cannot_be_mapped(void **state)
{
	(void)state;
	add_ram(RAM, 512);
	add_slot(RAM + 512, 512, P2M_RAM);
	leaving = p2m_get(&p2m, GFN(RAM + 44)).mfn;
	host_on_flush = map_while_flushing;
	assert_int_equal(p2m_remove(&p2m, GFN(RAM), 9), 0);
	host_on_flush = NULL;
	assert_int_equal(try_to_map, -EEXIST);
	assert_int_equal(frames_block(leaving).owner, OWNER_FREE);
}

/*
 * Xen XSA-389: a change over several pages that failed midway left the P2M, the M2P and the statistics telling
 * different stories. Here all or nothing has happened.
 */
static void xsa_389_a_failed_set_changes_nothing(void **state)
{
	(void)state;
	add_ram(RAM, 1024);
	mfn_t spare = alloc(0, OWNER);
	struct p2m_entry old = p2m_get(&p2m, GFN(RAM + 5));
	struct p2m before = p2m;
	u64 free = memory().free;

	host_fail_alloc(1);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 5), spare, 0, P2M_RAM), -ENOMEM);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 5), MFN_NONE, 0, P2M_MMIO), -ENOMEM);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 5), old.mfn, 0, P2M_RO), -ENOMEM);
	assert_int_equal(p2m_remove(&p2m, GFN(RAM + 4), 2), -ENOMEM);
	host_fail_alloc(0);
	/* A range of which a later frame is wrong. */
	mfn_t pair = alloc(1, OWNER);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 9), MFN(pair.n + 1), 0, P2M_RAM), 0);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 20), pair, 1, P2M_RAM), -EEXIST);
	assert_true(frame_of(pair)->gfn == FRAME_NO_GFN);
	assert_int_equal(frame_of(MFN(pair.n + 1))->gfn, RAM + 9);
	assert_clean();
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 9), MFN(old.mfn.n + 4), 0, P2M_RAM), 0);

	assert_int_equal(p2m.splits[P2M_OVERLAY], before.splits[P2M_OVERLAY] + 1);
	assert_memory_equal(p2m.pt.leaves, before.pt.leaves, sizeof(before.pt.leaves));
	assert_int_equal(p2m.pt.tables, before.pt.tables);
	assert_entry(RAM + 5, old.mfn, 9, P2M_RAM);
	assert_int_equal(frame_of(old.mfn)->gfn, RAM + 5);
	assert_true(frame_of(spare)->gfn == FRAME_NO_GFN);
	assert_int_equal(memory().free, free - 2);
}

/* Xen XSA-246, at the P2M: no retry loop, no frame freed while mapped. */
static void xsa_246_a_split_without_memory_fails_and_can_be_repeated(void **state)
{
	mfn_t mfn;

	(void)state;
	add_ram(RAM, 512);
	struct p2m_entry old = p2m_get(&p2m, GFN(RAM));
	while (!frames_alloc(0, OTHER, 0, &mfn))
		continue;
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(p2m_remove(&p2m, GFN(RAM), 0), -ENOMEM);
		assert_entry(RAM, old.mfn, 9, P2M_RAM);
		assert_int_equal(frames_block(old.mfn).owner, OWNER);
		assert_clean();
	}
	frames_free_all(OTHER);
	assert_int_equal(p2m_remove(&p2m, GFN(RAM), 0), 0);
	assert_int_equal(frames_block(old.mfn).owner, OWNER_FREE);
}

static u64 flushed_root, flushed_mask, owner_at_flush;
static mfn_t watched;

static void see_flush(hpa_t root, u64 mask)
{
	flushed_root = root;
	flushed_mask = mask;
	owner_at_flush = frames_block(watched).owner;
}

/* Xen XSA-480, for frames: what a guest gives back is reused only after every CPU has forgotten it. */
static void frames_are_freed_after_the_flush(void **state)
{
	(void)state;
	add_ram(RAM, 512);
	p2m.pcpus |= 0xf0;
	watched = p2m_get(&p2m, GFN(RAM + 3)).mfn;
	host_on_flush = see_flush;
	assert_int_equal(p2m_remove(&p2m, GFN(RAM), 9), 0);
	host_on_flush = NULL;
	assert_int_equal(owner_at_flush, OWNER);
	assert_int_equal(frames_block(watched).owner, OWNER_FREE);
	assert_int_equal(flushed_root, mfn_to_hpa(p2m.pt.root));
	assert_int_equal(flushed_mask, 0xf0); /* not this pCPU, which has looked the page up, but is done */
}

static void removing_and_replacing_differ_in_who_has_the_frame(void **state)
{
	(void)state;
	add_ram(RAM, 512);
	struct p2m_entry e = p2m_get(&p2m, GFN(RAM));
	u64 free = memory().free;

	assert_int_equal(p2m_set(&p2m, GFN(RAM), MFN_NONE, 9, P2M_BALLOONED), 0);
	assert_int_equal(frames_block(e.mfn).owner, OWNER);
	assert_int_equal(memory().free, free);
	assert_int_equal(p2m_set(&p2m, GFN(RAM), e.mfn, 9, P2M_RAM), 0);
	/* Part of an allocation. */
	assert_int_equal(p2m_remove(&p2m, GFN(RAM + 8), 3), 0);
	assert_type(RAM + 8, P2M_NONE);
	assert_int_equal(memory().free, free + 8 - 1); /* one went into a table */
	assert_clean();
	/* 2 MB made of small allocations. */
	assert_int_equal(p2m_remove(&p2m, GFN(RAM), 9), 0);
	assert_int_equal(memory().free, free + 512 + 1 + 1);
	assert_int_equal(p2m.pt.leaves[0] + p2m.pt.leaves[1], 0);
}

/* Permissions that were taken away are flushed; those that were given are not. */
static void write_protection_is_flushed(void **state)
{
	(void)state;
	add_ram(RAM, 512);
	struct p2m_entry e = p2m_get(&p2m, GFN(RAM));
	u64 flushes = host_flushes;

	assert_int_equal(p2m_set(&p2m, GFN(RAM), e.mfn, 0, P2M_RO), 0);
	assert_int_equal(host_flushes, flushes + 1);
	assert_int_equal(p2m_set(&p2m, GFN(RAM), e.mfn, 0, P2M_RO), 0);
	assert_int_equal(host_flushes, flushes + 2);
	assert_int_equal(p2m.splits[P2M_PERMISSION], 1);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 512), MFN_NONE, 0, P2M_MMIO), 0);
	assert_int_equal(host_flushes, flushes + 2);
}

/*
 * Linux c126d94f2c90: a write to a page inside a large mapping that may not be written made no progress, or dirtied
 * more than it should. The write-protected page leaves the large mapping, its siblings stay writable, and the write
 * gets a verdict.
 */
static void a_write_to_read_only_memory_makes_progress(void **state)
{
	(void)state;
	add_ram(RAM, 512);
	struct p2m_entry e = p2m_get(&p2m, GFN(RAM + 1));
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 1), e.mfn, 0, P2M_RO), 0);
	assert_int_equal(p2m_fault(&p2m, gfn_to_gpa(GFN(RAM + 1)), P2M_WRITE), P2M_TO_MMIO);
	assert_int_equal(p2m_fault(&p2m, gfn_to_gpa(GFN(RAM + 1)), P2M_READ), P2M_RETRY);
	assert_int_equal(p2m_fault(&p2m, gfn_to_gpa(GFN(RAM + 2)), P2M_WRITE), P2M_RETRY);
	assert_int_equal(pt_lookup(&p2m.pt, gfn_to_gpa(GFN(RAM + 1))).flags & PT_W, 0);
	assert_int_equal(pt_lookup(&p2m.pt, gfn_to_gpa(GFN(RAM + 2))).flags & PT_W, PT_W);
}

static void faults_get_their_verdict(void **state)
{
	const struct {
		enum p2m_type type;
		enum p2m_verdict read, write, exec;
	} expect[] = {
		{P2M_NONE, P2M_TO_MMIO, P2M_TO_MMIO, P2M_DENY}, {P2M_RAM, P2M_RETRY, P2M_RETRY, P2M_RETRY},
		{P2M_RO, P2M_RETRY, P2M_TO_MMIO, P2M_RETRY},    {P2M_MMIO, P2M_TO_MMIO, P2M_TO_MMIO, P2M_DENY},
		{P2M_DIRECT, P2M_RETRY, P2M_RETRY, P2M_DENY},   {P2M_BALLOONED, P2M_TO_MMIO, P2M_TO_MMIO, P2M_DENY},
		{P2M_SHARED, P2M_RETRY, P2M_DENY, P2M_RETRY},   {P2M_BROKEN, P2M_DENY, P2M_DENY, P2M_DENY},
		{P2M_APIC, P2M_TO_MMIO, P2M_TO_MMIO, P2M_DENY},
	};
	mfn_t own = alloc(0, OWNER), host = alloc(0, OWNER_HOST);

	(void)state;
	add_slot(RAM, 512, P2M_RAM);
	for (unsigned i = 0; i < ARRAY_SIZE(expect); i++) {
		unsigned t = expect[i].type;
		mfn_t mfn = P2M_MASK(t) & P2M_OWNED    ? own
			    : t == P2M_SHARED          ? host
			    : P2M_MASK(t) & P2M_BACKED ? MFN(BIT(28))
						       : MFN_NONE;
		gpa_t gpa = gfn_to_gpa(GFN(RAM + 9)) + 123;
		assert_int_equal(p2m_set(&p2m, GFN(RAM + 9), mfn, 0, t), 0);
		assert_int_equal(p2m_fault(&p2m, gpa, P2M_READ), expect[i].read);
		assert_int_equal(p2m_fault(&p2m, gpa, P2M_WRITE), expect[i].write);
		assert_int_equal(p2m_fault(&p2m, gpa, P2M_EXEC), expect[i].exec);
		assert_clean();
	}
	assert_int_equal(p2m_fault(&p2m, 0xb8000, P2M_WRITE), P2M_TO_MMIO); /* no slot */
	assert_int_equal(p2m_fault(&p2m, BIT(40), P2M_READ), P2M_TO_MMIO);  /* beyond the width */
	assert_int_equal(p2m_fault(&p2m, ~0ull, P2M_EXEC), P2M_DENY);
	assert_int_equal(p2m.faults[P2M_RETRY], 3 + 2 + 2 + 2);
	assert_int_equal(p2m.faults[P2M_DENY], 1 + 1 + 1 + 1 + 1 + 3 + 1 + 1);
	assert_int_equal(p2m.faults[P2M_NOMEM], 0);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 9), MFN_NONE, 0, P2M_NONE), 0);
	assert_int_equal(frames_free(host, 0, OWNER_HOST), 0);
}

/* Access. */

static void memory_is_read_and_written_across_pages(void **state)
{
	char out[3 * 4096], in[3 * 4096];

	(void)state;
	add_ram(RAM, 520);
	for (unsigned i = 0; i < sizeof(out); i++)
		out[i] = (char)(i * 7);
	gpa_t gpa = gfn_to_gpa(GFN(RAM + 511)) - 5;
	assert_int_equal(p2m_write(&p2m, gpa, out, sizeof(out)), 0);
	assert_int_equal(p2m_read(&p2m, gpa, in, sizeof(in)), 0);
	assert_memory_equal(in, out, sizeof(in));
	mfn_t mfn = p2m_get(&p2m, GFN(RAM + 512)).mfn;
	assert_memory_equal(port_virt(mfn_to_hpa(mfn)), out + 4096 + 5, 4096);
	assert_int_equal(p2m_read(&p2m, gpa, in, 0), 0);
}

/*
 * Xen XSA-112: an access that straddled two regions was handled as if all of it belonged to the first. Memory access is
 * all in RAM or refused as a whole, and then nothing has been copied.
 */
static void xsa_112_an_access_that_leaves_ram_is_refused_as_a_whole(void **state)
{
	char buf[32] = "0123456789abcdef0123456789abcde", zero[32] = {0};

	(void)state;
	add_ram(RAM, 10);
	add_slot(RAM + 10, 1, P2M_RO);
	assert_int_equal(p2m_populate(&p2m, GFN(RAM + 10)), 0);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 5), MFN_NONE, 0, P2M_MMIO), 0);
	gpa_t device = gfn_to_gpa(GFN(RAM + 5)), rom = gfn_to_gpa(GFN(RAM + 10)), end = gfn_to_gpa(GFN(RAM + 11));

	assert_int_equal(p2m_write(&p2m, device - 16, buf, 32), -EFAULT);
	assert_int_equal(p2m_write(&p2m, device + 4096 - 16, buf, 32), -EFAULT);
	assert_int_equal(p2m_write(&p2m, rom - 16, buf, 32), -EFAULT);
	assert_int_equal(p2m_write(&p2m, device, buf, 1), -EFAULT);
	assert_int_equal(p2m_read(&p2m, device - 16, buf, 32), -EFAULT);
	assert_int_equal(p2m_read(&p2m, end - 16, buf, 32), -EFAULT);
	assert_int_equal(p2m_read(&p2m, ~0ull - 15, buf, 32), -EFAULT); /* wraps */
	assert_int_equal(p2m_read(&p2m, BIT(40) - 16, buf, 32), -EFAULT);
	assert_string_equal(buf, "0123456789abcdef0123456789abcde");
	assert_int_equal(p2m_read(&p2m, device - 16, buf, 16), 0);
	assert_memory_equal(buf, zero, 16);
	assert_int_equal(p2m_read(&p2m, rom - 16, buf, 32), 0);
	assert_memory_equal(buf, zero, 32);
	assert_int_equal(p2m_write_rom(&p2m, rom - 2, "abcd", 4), 0);
	assert_int_equal(p2m_read(&p2m, rom - 2, buf, 4), 0);
	assert_memory_equal(buf, "abcd", 4);
}

static void cmpxchg_works_in_all_sizes(void **state)
{
	u64 old[2], new[2] = {0x1111111111111111, 0x2222222222222222}, zero[2] = {0};
	u8 got[16];
	bool done;

	(void)state;
	add_ram(RAM, 1);
	gpa_t gpa = gfn_to_gpa(GFN(RAM)) + 64;
	for (unsigned size = 1; size <= 16; size *= 2) {
		assert_int_equal(p2m_write(&p2m, gpa, zero, 16), 0);
		memset(old, 0, sizeof(old));
		assert_int_equal(p2m_cmpxchg(&p2m, gpa, old, new, size, &done), 0);
		assert_true(done);
		assert_int_equal(p2m_read(&p2m, gpa, got, 16), 0);
		assert_memory_equal(got, new, size);
		assert_memory_equal(got + size, zero, 16 - size);
		memset(old, 0, sizeof(old));
		assert_int_equal(p2m_cmpxchg(&p2m, gpa, old, zero, size, &done), 0);
		assert_false(done);
		assert_memory_equal(old, new, size);
	}
	assert_int_equal(p2m_cmpxchg(&p2m, gpa + 1, old, new, 2, &done), -EINVAL);
	assert_int_equal(p2m_cmpxchg(&p2m, gpa + 8, old, new, 16, &done), -EINVAL);
	assert_int_equal(p2m_cmpxchg(&p2m, gpa, old, new, 3, &done), -EINVAL);
	assert_int_equal(p2m_cmpxchg(&p2m, gpa, old, new, 32, &done), -EINVAL);
	assert_int_equal(p2m_cmpxchg(&p2m, gpa, old, new, 0, &done), -EINVAL);
	assert_int_equal(p2m_cmpxchg(&p2m, 0, old, new, 4, &done), -EFAULT);
}

/* Audit. */

static u64 *raw_at(u64 gfn)
{
	u64 *table = port_virt(mfn_to_hpa(p2m.pt.root));

	for (unsigned level = PT_LEVELS;; level--) {
		u64 *slot = &table[pt_index(gfn << PAGE_SHIFT, level)];
		if (!pt_is_table(p2m.pt.fmt, *slot, level))
			return slot;
		table = port_virt(*slot & PT_ADDR);
	}
}

static void must_see_u64(u64 *where, u64 value, const char *what)
{
	u64 saved = *where;

	*where = value;
	host_log_clear();
	assert_true(p2m_audit(&p2m) > 0);
	if (!strstr(host_log(), what))
		fail_msg("audit said \"%s\", not \"%s\"", host_log(), what);
	*where = saved;
	assert_clean();
}

static void must_see_frame(struct frame *where, struct frame value, const char *what)
{
	struct frame saved = *where;

	*where = value;
	host_log_clear();
	assert_true(p2m_audit(&p2m) > 0);
	if (!strstr(host_log(), what))
		fail_msg("audit said \"%s\", not \"%s\"", host_log(), what);
	*where = saved;
	assert_clean();
}

static void the_audit_sees_every_kind_of_corruption(void **state)
{
	mfn_t stray = alloc(0, OWNER), theirs = alloc(9, OTHER);

	(void)state;
	add_ram(RAM, 1024 + 4);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 1026), MFN_NONE, 0, P2M_MMIO), 0);
	u64 *small = raw_at(RAM + 1025), *large = raw_at(RAM), *mmio = raw_at(RAM + 1026);
	mfn_t mfn = p2m_get(&p2m, GFN(RAM + 1025)).mfn, table = hpa_to_mfn(port_phys(small));
	u64 *pde = large + 2;

	must_see_u64(small, 0, "used entries is wrong");
	must_see_u64(small, *small ^ BITS(53, 52), "not what its type and frame make it");
	must_see_u64(small, *small | BITS(55, 53), "no such type");
	must_see_u64(small, *small & ~7ull, "no such type");
	must_see_u64(small, *small ^ BIT(1), "not what its type");
	must_see_u64(small, (*small & ~PT_ADDR) | mfn_to_hpa(stray), "the M2P says that the frame is elsewhere");
	must_see_u64(small, small[-1], "the M2P says that the frame is elsewhere");
	must_see_u64(small, (*small & ~PT_ADDR) | mfn_to_hpa(theirs), "a frame of another owner");
	must_see_u64(small, (*small & ~PT_ADDR) | mfn_to_hpa(table), "mapped to a table, a free frame");
	must_see_u64(small, (*small & ~PT_ADDR) | BIT(45), "beyond memory");
	must_see_u64(large, *large + PAGE_SIZE, "misaligned");
	must_see_u64(large, large[1], "the M2P says that the frame is elsewhere");
	must_see_u64(mmio, *mmio | BIT(20), "not what its type");
	must_see_u64(pde, *pde ^ PAGE_SIZE, "a table that is none");
	must_see_u64(pde, *pde ^ BIT(1), "no such type");
	must_see_u64(large, *pde, "belongs elsewhere");
	must_see_u64((u64 *)port_virt(mfn_to_hpa(p2m.pt.root)) + 5, 0x00400000000000ull << 8,
		     "beyond the guest's width");
	must_see_u64((u64 *)port_virt(mfn_to_hpa(p2m.pt.root)) + 1, *large, "a leaf above level 3");
	must_see_u64(&p2m.pt.leaves[0], 7, "entries by size");
	must_see_u64(&p2m.pt.tables, 7, "statistics of tables");

	struct frame f = *frame_of(mfn);
	f.gfn++;
	must_see_frame(frame_of(mfn), f, "elsewhere");
	f = *frame_of(mfn);
	f.owner = OTHER;
	must_see_frame(frame_of(mfn), f, "another owner");
	f = *frame_of(stray);
	f.gfn = RAM + 3;
	must_see_frame(frame_of(stray), f, "the P2M does not");
	f.gfn = 0;
	f.state = FRAME_TABLE;
	must_see_frame(frame_of(stray), f, "not in the tree");
	f = *frame_of(table);
	f.state = FRAME_USED;
	must_see_frame(frame_of(table), f, "a table that is none");
	f = *frame_of(table);
	f.count++;
	must_see_frame(frame_of(table), f, "used entries is wrong");

	u32 *count = p2m_forbid(&p2m.slot[0], GFN(RAM + 1025), ORDER_2M);
	++*count;
	assert_int_equal(p2m_audit(&p2m), 1);
	--*count;
	*p2m_forbid(&p2m.slot[0], GFN(RAM), ORDER_2M) = 1;
	assert_true(p2m_audit(&p2m) > 0);
	assert_non_null(strstr(host_log(), "where the count forbids it"));
	*p2m_forbid(&p2m.slot[0], GFN(RAM), ORDER_2M) = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_slot_is_checked),
		T(a_pc_with_its_hole_below_1_mb_still_gets_large_pages),
		T(a_gigabyte_is_one_page_where_all_allow_it),
		T(gigabytes_come_first),
		T(populating_falls_back_when_large_blocks_are_gone),
		T(populating_stops_when_memory_ends_and_can_be_repeated),
		T(new_memory_is_zero),
		T(on_demand_memory_comes_at_first_touch),
		T(an_overlay_splits_and_its_end_merges),
		T(a_cut_large_frame_is_never_mapped_as_one),
		T(any_order_can_be_set),
		T(xsa_388_misaligned_arguments_are_refused),
		T(xsa_379_a_frame_is_at_one_gfn),
		T(a_frame_on_its_way_out_cannot_be_mapped),
		T(xsa_389_a_failed_set_changes_nothing),
		T(xsa_246_a_split_without_memory_fails_and_can_be_repeated),
		T(frames_are_freed_after_the_flush),
		T(removing_and_replacing_differ_in_who_has_the_frame),
		T(write_protection_is_flushed),
		T(a_write_to_read_only_memory_makes_progress),
		T(faults_get_their_verdict),
		T(memory_is_read_and_written_across_pages),
		T(xsa_112_an_access_that_leaves_ram_is_refused_as_a_whole),
		T(cmpxchg_works_in_all_sizes),
		T(the_audit_sees_every_kind_of_corruption),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
