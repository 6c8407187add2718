/* SPDX-License-Identifier: MIT */
/* Ballooning, the dirty log, tracking, and the background that makes small pages large again. */
#include "tests/host/p2m_fixture.h"

#define ROM (RAM + PAGES)
#define SEC 1000000000ul

static u64 now;

static int setup(void **state)
{
	now = 0;
	return setup_ram(state) || p2m_add_slot(&p2m, GFN(ROM), 16, P2M_RO) || p2m_populate(&p2m, GFN(ROM));
}

/* What an idle pCPU does until nothing is left to do before that time; returns how many steps. */
static unsigned work_until(u64 end)
{
	unsigned steps = 0;

	for (u64 next; (next = p2m_work(&p2m, now)) <= end; steps++) {
		now = MAX(now, next);
		assert_true(steps < 100000);
		if (steps % 16 == 0)
			assert_clean();
	}
	return steps;
}

static void write_word(u64 gfn, u64 value) { assert_int_equal(p2m_write(&p2m, gpa(gfn), &value, 8), 0); }

static u64 read_word(u64 gfn)
{
	u64 value;

	assert_int_equal(p2m_read(&p2m, gpa(gfn), &value, 8), 0);
	return value;
}

/* Takes every second page of a range away and gives it back, from frames that lie elsewhere. */
static void fragment(u64 first, u64 n)
{
	for (u64 gfn = first; gfn < first + n; gfn += 2)
		assert_int_equal(p2m_balloon(&p2m, GFN(gfn), 0, NULL), 0);
	for (u64 gfn = first; gfn < first + n; gfn += 2) /* the last freed is the first allocated: all change places */
		assert_int_equal(p2m_reclaim(&p2m, GFN(gfn), 0, NULL), 0);
}

/* Ballooning. */

static void memory_is_given_back_and_comes_again_zeroed(void **state)
{
	u64 free = free_frames();

	(void)state;
	write_word(RAM + 5, 77);
	write_word(RAM + 6, 78);
	assert_int_equal(p2m_balloon(&p2m, GFN(RAM + 5), 0, NULL), 0);
	assert_int_equal(entry(RAM + 5).type, P2M_BALLOONED);
	assert_int_equal(free_frames(), free + 1 - 1); /* one page for one table */
	assert_int_equal(p2m.splits[P2M_BALLOON], 1);
	assert_int_equal(p2m_fault(&p2m, gpa(RAM + 5), P2M_READ), P2M_TO_MMIO);
	assert_int_equal(p2m_reclaim(&p2m, GFN(RAM + 5), 0, NULL), 0);
	assert_int_equal(read_word(RAM + 5), 0);
	assert_int_equal(read_word(RAM + 6), 78);
	assert_int_equal(p2m_balloon(&p2m, GFN(RAM + 512), 9, NULL), 0);
	assert_int_equal(p2m.splits[P2M_BALLOON], 1);
	assert_int_equal(p2m_reclaim(&p2m, GFN(RAM + 512), 9, NULL), 0);
	assert_int_equal(entry(RAM + 512).order, 9);
	assert_int_equal(entry(RAM).order, 9); /* the same frame came back, so it merged in place */
	assert_int_equal(free_frames(), free);
}

static void a_wrong_balloon_changes_nothing(void **state)
{
	(void)state;
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 600), MFN_NONE, 0, P2M_MMIO), 0);
	assert_int_equal(p2m_balloon(&p2m, GFN(RAM + 5), 0, NULL), 0);
	struct p2m before = p2m;
	u64 free = free_frames();
	const struct {
		u64 gfn;
		unsigned order;
		int balloon, reclaim;
	} wrong[] = {
		{RAM + 5, 0, -EEXIST, 0},          {RAM, 9, -EEXIST, -ENOENT},     {RAM + 600, 0, -EPERM, -ENOENT},
		{RAM + 512, 9, -EPERM, -ENOENT},   {ROM, 0, -EPERM, -EPERM},       {ROM + 16, 0, -EPERM, -EPERM},
		{RAM + 1, 9, -EINVAL, -EINVAL},    {RAM, 1, -EINVAL, -EINVAL},     {RAM, 18, -EINVAL, -EINVAL},
		{RAM, 64, -EINVAL, -EINVAL},       {BIT(28), 0, -EINVAL, -EINVAL}, {~0ul, 0, -EINVAL, -EINVAL},
		{~0ul - 511, 9, -EINVAL, -EINVAL}, {RAM - 512, 9, -EPERM, -EPERM}, {RAM + 7, 0, 0, -ENOENT},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		if (wrong[i].balloon)
			assert_int_equal(p2m_balloon(&p2m, GFN(wrong[i].gfn), wrong[i].order, NULL), wrong[i].balloon);
		if (wrong[i].reclaim)
			assert_int_equal(p2m_reclaim(&p2m, GFN(wrong[i].gfn), wrong[i].order, NULL), wrong[i].reclaim);
	}
	assert_memory_equal(before.pt.leaves, p2m.pt.leaves, sizeof(before.pt.leaves));
	assert_int_equal(free, free_frames());
}

static void a_reclaim_without_memory_leaves_it_ballooned(void **state)
{
	mfn_t mfn, keep[3];

	(void)state;
	assert_int_equal(p2m_balloon(&p2m, GFN(RAM), 9, NULL), 0);
	assert_int_equal(p2m_balloon(&p2m, GFN(RAM + 512 + 9), 0, NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(frames_alloc(0, OTHER, 0, &keep[i]), 0);
	while (!frames_alloc(0, OTHER, 0, &mfn))
		continue;
	assert_int_equal(p2m_reclaim(&p2m, GFN(RAM + 512 + 9), 0, NULL), -ENOMEM);
	/* Two 4 KB pages and a table could be had, the rest not. */
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(frames_free(keep[i], 0, OTHER), 0);
	assert_int_equal(p2m_reclaim(&p2m, GFN(RAM), 9, NULL), -ENOMEM);
	assert_int_equal(entry(RAM).type, P2M_BALLOONED);
	assert_int_equal(entry(RAM).order, 9);
	assert_int_equal(free_frames(), 3);
	assert_clean();
	/* Scattered frames serve as well as a block. */
	frames_free_all(OTHER);
	mfn_t all[3000], *end = all;
	while (end < all + 3000 && !frames_alloc(0, OTHER, 0, end))
		end++;
	for (mfn_t *m = all; m < end; m++)
		if (m->n % 2)
			assert_int_equal(frames_free(*m, 0, OTHER), 0);
	while (!frames_alloc(1, OTHER, 0, &mfn))
		continue;
	assert_int_equal(p2m_reclaim(&p2m, GFN(RAM), 9, NULL), 0);
	assert_int_equal(entry(RAM + 511).order, 0);
}

/* A page in a large one that cannot be split for want of a table is not given back. */
static void a_balloon_without_a_table_changes_nothing(void **state)
{
	(void)state;
	host_fail_alloc(1);
	assert_int_equal(p2m_balloon(&p2m, GFN(RAM + 5), 0, NULL), -ENOMEM);
	host_fail_alloc(0);
	assert_int_equal(entry(RAM + 5).order, 9);
}

/* The dirty log. */

static u64 log_bits[PAGES / 64];

static unsigned harvest(void)
{
	unsigned n = 0;

	memset(log_bits, 0, sizeof(log_bits));
	assert_int_equal(p2m_log_harvest(&p2m, GFN(RAM), PAGES, log_bits), 0);
	for (unsigned i = 0; i < PAGES / 64; i++)
		n += (unsigned)__builtin_popcountll(log_bits[i]);
	return n;
}

static bool logged(u64 gfn) { return log_bits[(gfn - RAM) / 64] >> (gfn - RAM) % 64 & 1; }

/* A CPU's write: by the entry if that allows it, else by a fault. */
static void cpu_writes(u64 gfn)
{
	struct pt_debt none = PT_DEBT_NONE;

	for (unsigned i = 0; !(entry(gfn).flags & PT_W); i++) {
		assert_int_equal(p2m_fault(&p2m, gpa(gfn), P2M_WRITE), P2M_RETRY);
		assert_true(i < 2);
	}
	if (p2m.pt.ad)
		pt_flags(&p2m.pt, gpa(gfn), PT_A | PT_D, 0, &none);
	assert_true(entry(gfn).flags & PT_D);
}

/*
 * Linux c126d94f2c90: with large pages and a dirty log, a write marked one 4 KB page of a page that stayed writable for
 * all of it. Here all that a write may have been to is told.
 */
static void all_of_a_large_page_is_dirty_if_it_stays_large(void **state)
{
	(void)state;
	for (unsigned ad = 0; ad < 2; ad++) {
		p2m.pt.ad = ad;
		assert_int_equal(p2m_log_start(&p2m, P2M_LOG_KEEP), 0);
		assert_int_equal(p2m_log_start(&p2m, P2M_LOG_KEEP), -EEXIST);
		assert_int_equal(harvest(), 0);
		cpu_writes(RAM + 700);
		assert_int_equal(entry(RAM + 700).order, 9);
		assert_clean();
		assert_int_equal(harvest(), 512);
		assert_true(logged(RAM + 512) && logged(RAM + 1023));
		assert_int_equal(harvest(), 0);
		assert_int_equal(!!(entry(RAM + 700).flags & PT_W), ad);
		write_word(RAM + 3, 1); /* the hypervisor's writes count too */
		assert_int_equal(harvest(), 512);
		/* Less than the page is asked for: it is told, and stays dirty. */
		write_word(RAM + 3, 2);
		u64 part = 0;
		assert_int_equal(p2m_log_harvest(&p2m, GFN(RAM), 2, &part), 0);
		assert_int_equal(part, 3);
		assert_int_equal(harvest(), 512);
		p2m_log_stop(&p2m);
		assert_true(entry(RAM).flags & PT_W);
		assert_int_equal(p2m_log_harvest(&p2m, GFN(RAM), 2, &part), -EINVAL);
	}
	p2m.pt.ad = true;
	assert_int_equal(p2m.splits[P2M_DIRTY], 0);
}

static void the_first_write_splits_if_the_log_is_lazy(void **state)
{
	(void)state;
	for (unsigned ad = 0; ad < 2; ad++) {
		p2m.pt.ad = ad;
		u64 splits = p2m.splits[P2M_DIRTY];
		assert_int_equal(p2m_log_start(&p2m, P2M_LOG_LAZY), 0);
		cpu_writes(RAM + 700);
		assert_int_equal(p2m.splits[P2M_DIRTY], splits + 1);
		assert_int_equal(entry(RAM + 700).order, 0);
		assert_int_equal(entry(RAM).order, 9);
		assert_int_equal(harvest(), 1);
		assert_true(logged(RAM + 700));
		write_word(RAM + 701, 5);
		cpu_writes(RAM + 700);
		assert_int_equal(harvest(), 2);
		work_until(now + 3 * SEC); /* is not merged while the log runs */
		assert_int_equal(entry(RAM + 700).order, 0);
		/* No memory for the split: too much is told, but the write goes on. */
		host_fail_alloc(1);
		cpu_writes(RAM + 3);
		host_fail_alloc(0);
		assert_int_equal(harvest(), 512);
		p2m_log_stop(&p2m);
		work_until(now + 3 * SEC);
		assert_int_equal(entry(RAM + 700).order, 9);
	}
	p2m.pt.ad = true;
}

static void all_is_split_at_once_if_the_log_is_eager(void **state)
{
	(void)state;
	host_fail_alloc(3);
	assert_int_equal(p2m_log_start(&p2m, P2M_LOG_EAGER), -ENOMEM);
	host_fail_alloc(0);
	assert_int_equal(p2m.log, P2M_LOG_OFF);
	assert_true(entry(RAM + PAGES - 1).flags & PT_D);
	assert_clean();
	assert_int_equal(p2m_log_start(&p2m, P2M_LOG_EAGER), 0);
	assert_int_equal(p2m.pt.leaves[1], 0);
	assert_int_equal(p2m.splits[P2M_DIRTY], PAGES / 512);
	cpu_writes(RAM + 7);
	assert_int_equal(harvest(), 1);
	p2m_log_stop(&p2m);
	work_until(now + 3 * SEC);
	assert_int_equal(p2m.pt.leaves[1], PAGES / 512);
	assert_int_equal(p2m_log_start(&p2m, P2M_LOG_OFF), -EINVAL);
	assert_int_equal(p2m_log_start(&p2m, P2M_LOG_EAGER + 1), -EINVAL);
}

/* Xen XSA-397: turning dirty tracking on raced with what else changes the P2M. What comes while it is on is dirty. */
static void what_comes_new_counts_as_dirty(void **state)
{
	(void)state;
	assert_int_equal(p2m_log_start(&p2m, P2M_LOG_LAZY), 0);
	assert_int_equal(p2m_balloon(&p2m, GFN(RAM), 9, NULL), 0);
	assert_int_equal(harvest(), 0);
	assert_int_equal(p2m_reclaim(&p2m, GFN(RAM), 9, NULL), 0);
	assert_int_equal(harvest(), 512);
	assert_int_equal(harvest(), 0);
	p2m_log_stop(&p2m);
}

/* Tracking and permissions. */

static void a_tracked_page_tells_of_its_next_write(void **state)
{
	(void)state;
	assert_int_equal(p2m_protect(&p2m, GFN(RAM + 9), 0, P2M_TRACKED), 0);
	assert_int_equal(p2m.splits[P2M_TRACK], 1);
	assert_int_equal(*p2m_forbid(&p2m.slot[0], GFN(RAM), ORDER_2M), 1);
	assert_int_equal(read_word(RAM + 9), 0);
	assert_int_equal(p2m_fault(&p2m, gpa(RAM + 9), P2M_READ), P2M_RETRY);
	assert_int_equal(entry(RAM + 9).type, P2M_TRACKED);
	assert_int_equal(entry(RAM + 9).flags & PT_W, 0);
	assert_int_equal(p2m_fault(&p2m, gpa(RAM + 9), P2M_WRITE), P2M_RETRY);
	assert_int_equal(entry(RAM + 9).type, P2M_RAM);
	assert_int_equal(entry(RAM + 9).order, 9); /* merged again */
	assert_int_equal(p2m_protect(&p2m, GFN(RAM), 9, P2M_TRACKED), 0);
	write_word(RAM + 8, 3); /* the hypervisor's write is one too */
	assert_int_equal(entry(RAM + 8).type, P2M_RAM);
	assert_int_equal(entry(RAM + 9).type, P2M_TRACKED);
}

static void only_the_guests_own_pages_change_permission(void **state)
{
	(void)state;
	assert_int_equal(p2m_protect(&p2m, GFN(RAM + 9), 0, P2M_RO), 0);
	assert_int_equal(p2m.splits[P2M_PERMISSION], 1);
	assert_int_equal(p2m_protect(&p2m, GFN(RAM + 9), 0, P2M_RAM), 0);
	assert_int_equal(p2m_protect(&p2m, GFN(RAM + 9), 0, P2M_MMIO), -EINVAL);
	assert_int_equal(p2m_protect(&p2m, GFN(RAM + 9), 9, P2M_RO), -EINVAL);
	assert_int_equal(p2m_protect(&p2m, GFN(5), 0, P2M_RO), -EPERM);
	assert_int_equal(p2m_protect(&p2m, GFN(ROM), 3, P2M_RO), -EPERM); /* not one entry */
	host_fail_alloc(1);
	assert_int_equal(p2m_protect(&p2m, GFN(RAM + 9), 0, P2M_RO), -ENOMEM);
}

/* Background work. */

static void fragments_become_large_again(void **state)
{
	(void)state;
	for (u64 gfn = RAM; gfn < RAM + PAGES; gfn++)
		write_word(gfn, gfn);
	fragment(RAM, PAGES);
	assert_int_equal(p2m.pt.leaves[1], 0);
	for (u64 gfn = RAM; gfn < RAM + PAGES; gfn += 2)
		write_word(gfn, gfn);
	u64 free = free_frames();
	unsigned steps = work_until(now + SEC);
	assert_true(steps < 200);
	assert_int_equal(p2m.pt.leaves[1], PAGES / 512);
	assert_int_equal(p2m.pt.leaves[0], 16); /* the ROM */
	assert_int_equal(p2m.collapses, PAGES / 512);
	assert_int_equal(free_frames(), free + PAGES / 512); /* the tables */
	for (u64 gfn = RAM; gfn < RAM + PAGES; gfn++)
		assert_int_equal(read_word(gfn), gfn);
	/* And then there is nothing to do but to sample. */
	assert_true(p2m_work(&p2m, now) >= now + SEC);
}

static void nothing_happens_where_it_is_not_wanted(void **state)
{
	(void)state;
	p2m.work.collapse = false;
	fragment(RAM, 512);
	work_until(now + 3 * SEC);
	assert_int_equal(entry(RAM).order, 0);
	p2m.work.merge = p2m.pt.merge = false;
	assert_int_equal(p2m_protect(&p2m, GFN(RAM + 600), 0, P2M_RO), 0);
	assert_int_equal(p2m_protect(&p2m, GFN(RAM + 600), 0, P2M_RAM), 0);
	work_until(now + 3 * SEC);
	assert_int_equal(entry(RAM + 600).order, 0);
	p2m.work.merge = p2m.pt.merge = true;
	p2m.work.collapse = true;
	assert_int_equal(p2m_protect(&p2m, GFN(RAM + 1600), 0, P2M_RO), 0); /* something changes */
	work_until(now + 3 * SEC);
	assert_int_equal(entry(RAM + 600).order, 9);
	assert_int_equal(entry(RAM).order, 9);
}

/* Steps until a collapse has copied some pages. */
static void start_collapse(void)
{
	while (!p2m.work.current.active || !p2m.work.current.copied) {
		now = MAX(now, p2m_work(&p2m, now));
		assert_true(now < 100 * SEC);
	}
	assert_true(p2m.work.current.running);
}

static void a_write_calls_the_collapse_off(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 5; how++) {
		fragment(RAM, 512);
		start_collapse();
		u64 free = free_frames(), cancelled = p2m.cancelled;
		assert_int_equal(entry(RAM + 3).flags & PT_W, 0);
		switch (how) {
		case 0:
			cpu_writes(RAM + 3);
			break;
		case 1:
			write_word(RAM + 400, 0x55);
			break;
		case 2:
			assert_int_equal(p2m_balloon(&p2m, GFN(RAM + 100), 0, NULL), 0);
			break;
		case 3:
			assert_int_equal(p2m_protect(&p2m, GFN(RAM + 511), 0, P2M_RO), 0);
			assert_int_equal(p2m_protect(&p2m, GFN(RAM + 511), 0, P2M_RAM), 0);
			break;
		default:
			assert_int_equal(p2m_log_start(&p2m, P2M_LOG_KEEP), 0);
			p2m_log_stop(&p2m);
		}
		assert_int_equal(p2m.cancelled, cancelled + 1);
		assert_true(entry(RAM + 4).flags & PT_W);
		assert_clean();
		p2m_work(&p2m, now);
		assert_int_equal(free_frames(), free + 512 + (how == 2)); /* the block is free again */
		assert_int_equal(entry(RAM).order, 0);
		if (how == 2)
			assert_int_equal(p2m_reclaim(&p2m, GFN(RAM + 100), 0, NULL), 0);
		work_until(now + 3 * SEC); /* another try */
		assert_int_equal(entry(RAM).order, 9);
		if (how == 1)
			assert_int_equal(read_word(RAM + 400), 0x55);
	}
	assert_int_equal(p2m.collapses, 5);
}

static void a_read_does_not_disturb_a_collapse(void **state)
{
	(void)state;
	fragment(RAM, 512);
	write_word(RAM + 77, 7);
	start_collapse();
	assert_int_equal(read_word(RAM + 77), 7);
	assert_int_equal(p2m_fault(&p2m, gpa(RAM + 77), P2M_READ), P2M_RETRY);
	assert_int_equal(p2m_fault(&p2m, gpa(RAM + 77), P2M_EXEC), P2M_RETRY);
	assert_int_equal(p2m_balloon(&p2m, GFN(RAM + 512), 9, NULL), 0); /* nor what happens beside it */
	work_until(now + SEC);
	assert_int_equal(p2m.cancelled, 0);
	assert_int_equal(entry(RAM).order, 9);
	assert_int_equal(read_word(RAM + 77), 7);
}

static u64 order_at_flush[8];
static unsigned flushes;

static void at_flush(hpa_t root, u64 mask)
{
	(void)root;
	(void)mask;
	if (flushes < 8)
		order_at_flush[flushes++] = entry(RAM).order | (u64)(entry(RAM).flags & PT_W) << 8;
}

/*
 * Write-protected and flushed before the first byte is copied; switched and flushed before a frame is freed, or one CPU
 * can write the new page while another still reads the old one.
 */
static void each_stage_of_a_collapse_is_flushed(void **state)
{
	(void)state;
	fragment(RAM, 512);
	p2m.work.sample_next = ~0ul; /* that flushes too */
	flushes = 0;
	host_on_flush = at_flush;
	start_collapse();
	assert_int_equal(flushes, 1);
	assert_int_equal(order_at_flush[0], 0); /* 4 KB, read-only */
	work_until(now + SEC);
	assert_int_equal(flushes, 2);
	assert_int_equal(order_at_flush[1], 9); /* 2 MB, read-only still */
	host_on_flush = NULL;
	assert_true(entry(RAM).flags & PT_W);
}

/* The end of a log gives all RAM its permission back: what is being copied would be written unnoticed. */
static void a_log_that_does_not_run_is_not_stopped(void **state)
{
	(void)state;
	fragment(RAM, 512);
	write_word(RAM + 3, 41);
	start_collapse();
	p2m_log_stop(&p2m);
	assert_int_equal(entry(RAM + 3).flags & PT_W, 0);
	write_word(RAM + 3, 42);
	work_until(now + 3 * SEC);
	assert_int_equal(entry(RAM).order, 9);
	assert_int_equal(read_word(RAM + 3), 42);
}

/* What others could need at once is not borrowed. */
static void the_last_memory_is_not_for_collapses(void **state)
{
	(void)state;
	fragment(RAM, 512);
	while (free_frames() >= 4 * 512)
		(void)alloc(9, OTHER);
	work_until(now + SEC / 2);
	assert_int_equal(entry(RAM).order, 0);
	assert_int_equal(p2m.cancelled, 0);
	frames_free_all(OTHER);
	work_until(now + 2 * SEC);
	assert_int_equal(entry(RAM).order, 9);
}

/* Two slots meet in the middle of 2 MB that are all RAM: they stay small, and no work is done for nothing. */
static void what_may_not_be_large_is_not_collapsed(void **state)
{
	u64 first = RAM + BIT(ORDER_1G);

	(void)state;
	for (unsigned half = 0; half < 2; half++) {
		assert_int_equal(p2m_add_slot(&p2m, GFN(first + half * 256), 256, P2M_RAM), 0);
		assert_int_equal(p2m_populate(&p2m, GFN(first + half * 256)), 0);
	}
	fragment(first, 512);
	work_until(now + 3 * SEC);
	assert_int_equal(p2m.collapses + p2m.cancelled, 0);
	assert_int_equal(entry(first).order, 0);
}

/* 512 pages of 2 MB that have come to agree. */
static void the_background_merges_gigabytes(void **state)
{
	struct p2m big;
	mfn_t mfn;

	host_machine(3 * GB);
	assert_int_equal(p2m_init(&big, *state, OWNER, ORDER_1G, 40), 0);
	big.work.collapse = big.pt.merge = false;
	assert_int_equal(frames_alloc(ORDER_1G, OWNER, 0, &mfn), 0);
	for (u64 i = 0; i < BIT(ORDER_1G); i += 512)
		assert_int_equal(p2m_set(&big, GFN(BIT(ORDER_1G) + i), MFN(mfn.n + i), ORDER_2M, P2M_RAM), 0);
	assert_int_equal(big.pt.leaves[1], 512);
	big.pt.merge = true;
	for (u64 next = 0; next < SEC;)
		next = p2m_work(&big, next);
	assert_int_equal(big.pt.leaves[2], 1);
	p2m_free(&big);
	setup(state);
}

static void without_memory_a_collapse_waits(void **state)
{
	mfn_t mfn;

	(void)state;
	fragment(RAM, 512);
	while (!frames_alloc(0, OTHER, 0, &mfn))
		continue;
	unsigned steps = work_until(now + SEC / 2);
	assert_true(steps < 50);
	assert_int_equal(entry(RAM).order, 0);
	frames_free_all(OTHER);
	work_until(now + 2 * SEC);
	assert_int_equal(entry(RAM).order, 9);
}

static void the_working_set_is_what_was_accessed(void **state)
{
	struct pt_debt none = PT_DEBT_NONE;
	u64 before;

	(void)state;
	work_until(now + SEC);
	assert_int_equal(p2m.working_set, 0); /* nobody ran */
	assert_int_equal(p2m_protect(&p2m, GFN(RAM + 5), 0, P2M_RO), 0);
	pt_flags(&p2m.pt, gpa(RAM + 7), PT_A, 0, &none);
	pt_flags(&p2m.pt, gpa(RAM + 600), PT_A, 0, &none);
	before = host_flushes;
	work_until(now + 11 * SEC);
	assert_int_equal(p2m.working_set, 512 + 1);
	assert_int_equal(host_flushes, before + 1); /* or what a CPU remembers would look unused */
	work_until(now + 11 * SEC);
	assert_int_equal(p2m.working_set, 0);
	p2m.pt.ad = false;
	u64 flushed = host_flushes;
	work_until(now + 30 * SEC);
	assert_int_equal(host_flushes, flushed);
}

/* Flushes. */

static u64 asked, gen_when_asked;

static void see_mask(hpa_t root, u64 mask)
{
	(void)root;
	asked = mask;
	gen_when_asked = p2m.gen;
}

/* Who comes after the generation has changed sees that, and need not be interrupted. */
static void a_flush_asks_only_those_who_are_there(void **state)
{
	u64 gen = p2m.gen;

	(void)state;
	host_on_flush = see_mask;
	host_set_cpu(5);
	p2m_enter(&p2m);
	assert_int_equal(entry(RAM + 1).type, P2M_RAM);
	write_word(RAM + 1, 1); /* a walk inside does not take the pCPU out */
	host_set_cpu(7);
	p2m_enter(&p2m);
	host_set_cpu(0);
	write_word(RAM + 1, 1);
	assert_int_equal(p2m_protect(&p2m, GFN(RAM), 0, P2M_RO), 0);
	assert_int_equal(asked, BIT(5) | BIT(7));
	assert_int_equal(gen_when_asked, gen + 1);
	host_set_cpu(7);
	p2m_leave(&p2m);
	assert_int_equal(p2m_protect(&p2m, GFN(RAM), 0, P2M_RAM), 0);
	assert_int_equal(asked, BIT(5));
	host_set_cpu(5);
	p2m_leave(&p2m);
	host_set_cpu(0);
	assert_int_equal(p2m_protect(&p2m, GFN(RAM), 0, P2M_RO), 0);
	assert_int_equal(asked, 0);
	assert_int_equal(p2m.gen, gen + 3);
}

/* The cache of lookups. */

static void a_cached_page_is_forgotten_when_it_changes(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2 * P2M_CACHED; i++)
		write_word(RAM + i, i);
	for (unsigned i = 0; i < 2 * P2M_CACHED; i++)
		assert_int_equal(read_word(RAM + i), i);
	mfn_t old = entry(RAM + 3).mfn, new;
	assert_int_equal(frames_alloc(0, OWNER, FRAMES_ZERO, &new), 0);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 3), new, 0, P2M_RAM), 0);
	assert_int_equal(read_word(RAM + 3), 0);
	assert_int_equal(frames_free(old, 0, OWNER), 0);
	assert_int_equal(p2m_protect(&p2m, GFN(RAM + 3), 0, P2M_RO), 0);
	u64 value = 1;
	assert_int_equal(p2m_write(&p2m, gpa(RAM + 3), &value, 8), -EFAULT);
	assert_int_equal(p2m_protect(&p2m, GFN(RAM + 3), 0, P2M_RAM), 0);
	assert_int_equal(p2m_write(&p2m, gpa(RAM + 3), &value, 8), 0);
	assert_int_equal(p2m_balloon(&p2m, GFN(RAM + 3), 0, NULL), 0);
	assert_int_equal(p2m_read(&p2m, gpa(RAM + 3), &value, 8), -EFAULT);
	assert_int_equal(p2m_reclaim(&p2m, GFN(RAM + 3), 0, NULL), 0);
	assert_int_equal(read_word(RAM + 3), 0);
}

/* Populating. */

static void a_clean_gigabyte_comes_with_one_touch(void **state)
{
	struct p2m big;

	(void)state;
	host_machine(3 * GB + 64 * MB);
	assert_int_equal(p2m_init(&big, *state, OWNER, ORDER_1G, 40), 0);
	assert_int_equal(p2m_add_slot(&big, GFN(0), BIT(18), P2M_RAM), 0);
	assert_int_equal(p2m_populate_on_demand(&big, GFN(0)), 0);
	assert_int_equal(p2m_fault(&big, 5, P2M_WRITE), P2M_RETRY);
	assert_int_equal(p2m_get(&big, GFN(0)).order, 9); /* or the guest would wait for the zeroing of a gigabyte */
	p2m_free(&big);
	while (frames_scrub())
		continue;
	assert_int_equal(p2m_init(&big, *state, OWNER, ORDER_1G, 40), 0);
	assert_int_equal(p2m_add_slot(&big, GFN(0), 2 * BIT(18), P2M_RAM), 0);
	assert_int_equal(p2m_populate_on_demand(&big, GFN(0)), 0);
	assert_int_equal(p2m_fault(&big, GB + 5, P2M_WRITE), P2M_RETRY);
	assert_int_equal(p2m_get(&big, GFN(BIT(18))).order, 18);
	assert_int_equal(p2m_get(&big, GFN(0)).type, P2M_DEMAND);
	assert_int_equal(p2m_audit(&big), 0);
	p2m_free(&big);
	frames_free_all(OWNER_HOST);
	setup(state);
}

static void a_guest_of_small_pages_still_gets_blocks_that_lie_together(void **state)
{
	(void)state;
	p2m_free(&p2m);
	assert_int_equal(p2m_init(&p2m, *state, OWNER, ORDER_4K, 40), 0);
	assert_int_equal(p2m_add_slot(&p2m, GFN(RAM + 3), PAGES, P2M_RAM), 0);
	assert_int_equal(p2m_populate(&p2m, GFN(RAM + 3)), 0);
	assert_int_equal(p2m.pt.leaves[0], PAGES);
	struct frames_block b = frames_block(entry(RAM + 1024).mfn);
	assert_int_equal(b.order, 10);
}

/* Xen XSA-97 and XSA-410: taking down a guest's memory in one go kept a pCPU for seconds. */
static void a_guest_is_freed_in_steps(void **state)
{
	unsigned steps = 1;

	(void)state;
	fragment(RAM, PAGES);
	start_collapse(); /* and its block is freed too */
	while (p2m_free_step(&p2m))
		steps++;
	assert_true(steps > 2);
	assert_false(p2m_free_step(&p2m)); /* once more does no harm */
	for (u64 n = 0; n < 64 * MB / PAGE_SIZE; n++)
		assert_int_not_equal(frames_block(MFN(n)).owner, OWNER);
	assert_int_equal(p2m_init(&p2m, *state, OWNER, ORDER_1G, 40), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(memory_is_given_back_and_comes_again_zeroed),
		T(a_wrong_balloon_changes_nothing),
		T(a_reclaim_without_memory_leaves_it_ballooned),
		T(a_balloon_without_a_table_changes_nothing),
		T(all_of_a_large_page_is_dirty_if_it_stays_large),
		T(the_first_write_splits_if_the_log_is_lazy),
		T(all_is_split_at_once_if_the_log_is_eager),
		T(what_comes_new_counts_as_dirty),
		T(a_tracked_page_tells_of_its_next_write),
		T(only_the_guests_own_pages_change_permission),
		T(fragments_become_large_again),
		T(nothing_happens_where_it_is_not_wanted),
		T(a_write_calls_the_collapse_off),
		T(a_read_does_not_disturb_a_collapse),
		T(each_stage_of_a_collapse_is_flushed),
		T(without_memory_a_collapse_waits),
		T(a_log_that_does_not_run_is_not_stopped),
		T(the_last_memory_is_not_for_collapses),
		T(what_may_not_be_large_is_not_collapsed),
		T(the_background_merges_gigabytes),
		T(the_working_set_is_what_was_accessed),
		T(a_flush_asks_only_those_who_are_there),
		T(a_cached_page_is_forgotten_when_it_changes),
		T(a_clean_gigabyte_comes_with_one_touch),
		T(a_guest_is_freed_in_steps),
		T(a_guest_of_small_pages_still_gets_blocks_that_lie_together),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
