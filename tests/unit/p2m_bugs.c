/* SPDX-License-Identifier: MIT */
/*
 * Bugs that others shipped in what the P2M does, one test each. Those that concern a single set or the engine alone are
 * beside the other tests of these, in p2m.c and pt.c.
 */
#include "tests/host/p2m_fixture.h"

static int setup(void **state) { return setup_ram(state); }

/* All that a change without effect must leave as it was. */
static struct {
	u64 leaves[3], tables, splits, free;
	struct p2m_entry entry[PAGES];
	u64 gfn[PAGES];
} saved;

static void save(void)
{
	memset(&saved, 0, sizeof(saved));
	memcpy(saved.leaves, p2m.pt.leaves, sizeof(saved.leaves));
	saved.tables = p2m.pt.tables;
	saved.splits = p2m.pt.splits;
	saved.free = free_frames();
	for (u64 i = 0; i < PAGES; i++) {
		saved.entry[i] = entry(RAM + i);
		if (frame_of(saved.entry[i].mfn))
			saved.gfn[i] = frame_of(saved.entry[i].mfn)->gfn;
	}
}

static void assert_as_saved(void)
{
	assert_memory_equal(saved.leaves, p2m.pt.leaves, sizeof(saved.leaves));
	assert_int_equal(saved.tables, p2m.pt.tables);
	assert_int_equal(saved.splits, p2m.pt.splits);
	assert_int_equal(saved.free, free_frames());
	for (u64 i = 0; i < PAGES; i++) {
		struct p2m_entry now = entry(RAM + i), was = saved.entry[i];
		assert_true(mfn_eq(now.mfn, was.mfn) && now.type == was.type && now.order == was.order &&
			    now.flags == was.flags);
		assert_true(!frame_of(was.mfn) || frame_of(was.mfn)->gfn == saved.gfn[i]);
	}
	assert_clean();
}

static mfn_t spare, small;

static int set_over_all_sizes(void) { return p2m_set(&p2m, GFN(RAM), spare, 10, P2M_RAM); }
static int set_small(void) { return p2m_set(&p2m, GFN(RAM + 5), small, 0, P2M_RAM); }
static int overlay(void) { return p2m_set(&p2m, GFN(RAM + 8), MFN_NONE, 3, P2M_MMIO); }
static int removal(void) { return p2m_remove(&p2m, GFN(RAM + 1025), 0); }
static int balloon(void) { return p2m_balloon(&p2m, GFN(RAM + 1536), 0, NULL); }
static int track(void) { return p2m_protect(&p2m, GFN(RAM + 1537), 0, P2M_TRACKED); }
static int read_only(void) { return p2m_protect(&p2m, GFN(RAM + 1538), 0, P2M_RO); }
static int split_all(void) { return p2m_log_start(&p2m, P2M_LOG_EAGER); }

/*
 * Xen XSA-389: a change over several pages that failed midway left P2M, M2P, statistics and dirty state telling
 * different stories. Each operation runs out of memory at each allocation that it makes.
 */
static void xsa_389_running_out_of_memory_anywhere_changes_nothing(void **state)
{
	static int (*const operation[])(void) = {set_over_all_sizes, set_small, overlay, removal, balloon, track,
						 read_only};

	(void)state;
	spare = alloc(10, OWNER);
	small = alloc(0, OWNER);
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 700), MFN_NONE, 0, P2M_MMIO), 0); /* one of 2 MB is in pieces */
	for (unsigned i = 0; i < ARRAY_SIZE(operation); i++) {
		int err = -ENOMEM;
		for (u64 nth = 1; err; nth++) {
			save();
			host_fail_alloc(nth);
			err = operation[i]();
			host_fail_alloc(0);
			assert_true(!err || err == -ENOMEM);
			if (err)
				assert_as_saved();
			assert_true(nth < 10);
		}
		assert_clean();
	}
	frames_free_all(OTHER);
}

/* The same for what may leave some pages split, but nothing else: that a log starts. */
static void xsa_389_a_log_that_cannot_start_leaves_all_dirty(void **state)
{
	(void)state;
	for (u64 nth = 1; nth < 5; nth++) {
		host_fail_alloc(nth);
		int err = split_all();
		host_fail_alloc(0);
		assert_int_equal(err, nth < 4 ? -ENOMEM : err);
		assert_int_equal(p2m.log, err ? P2M_LOG_OFF : P2M_LOG_EAGER);
		for (u64 i = 0; err && i < PAGES; i++)
			assert_true((entry(RAM + i).flags & (PT_W | PT_D)) == (PT_W | PT_D));
		assert_clean();
	}
	p2m_log_stop(&p2m);
}

/*
 * Xen XSA-388: orders between those of pages, and gfns that are not aligned to the order, were taken by calls that a
 * guest can make. Whatever order they have, they do all of it or say what is wrong.
 */
static void xsa_388_every_order_is_done_or_refused(void **state)
{
	(void)state;
	for (unsigned order = 0; order < 70; order++) {
		bool page = order == ORDER_4K || order == ORDER_2M;
		save();
		if (!page) {
			assert_int_equal(p2m_balloon(&p2m, GFN(RAM), order, NULL), -EINVAL);
			assert_int_equal(p2m_reclaim(&p2m, GFN(RAM), order, NULL), -EINVAL);
		}
		if (order) {
			assert_int_equal(p2m_balloon(&p2m, GFN(RAM + 1), order, NULL), -EINVAL);
			assert_int_equal(p2m_reclaim(&p2m, GFN(RAM + 1), order, NULL), -EINVAL);
			assert_int_equal(p2m_protect(&p2m, GFN(RAM + 1), order, P2M_RO), -EINVAL);
			assert_int_equal(p2m_remove(&p2m, GFN(RAM + 1), order), -EINVAL);
			assert_int_equal(p2m_set(&p2m, GFN(RAM + 1), MFN_NONE, order, P2M_MMIO), -EINVAL);
		}
		assert_as_saved();
		if (order > 11)
			continue;
		assert_int_equal(p2m_set(&p2m, GFN(RAM), MFN_NONE, order, P2M_MMIO), 0);
		for (u64 i = 0; i < PAGES; i++)
			assert_int_equal(entry(RAM + i).type, i < BIT(order) ? P2M_MMIO : saved.entry[i].type);
		assert_int_equal(p2m_set(&p2m, GFN(RAM), saved.entry[0].mfn, order, P2M_RAM), 0);
		assert_int_equal(entry(RAM).order, 9);
	}
}

/*
 * Linux c22885050e65 and 404381c5839d: a write to a large page that was write-protected for the dirty log made no
 * progress, or the log missed it. However the log treats large pages, a write goes on after a fault and is told.
 */
static void a_write_under_any_log_makes_progress_and_is_told(void **state)
{
	(void)state;
	for (unsigned ad = 0; ad < 2; ad++) {
		for (unsigned how = P2M_LOG_KEEP; how <= P2M_LOG_EAGER; how++) {
			u64 map[PAGES / 64] = {0}, gfn = RAM + 600 + how;
			p2m.pt.ad = ad;
			assert_int_equal(p2m_log_start(&p2m, how), 0);
			for (unsigned i = 0; i < 3 && !(entry(gfn).flags & PT_W); i++)
				assert_int_equal(p2m_fault(&p2m, gpa(gfn), P2M_WRITE), P2M_RETRY);
			assert_true(entry(gfn).flags & PT_W);
			if (ad) { /* as the CPU does */
				struct pt_debt debt = PT_DEBT_NONE;
				pt_flags(&p2m.pt, gpa(gfn), PT_A | PT_D, 0, &debt);
			}
			assert_int_equal(p2m_log_harvest(&p2m, GFN(RAM), PAGES, map), 0);
			assert_true(bitmap_test(map, (unsigned)(gfn - RAM)));
			p2m_log_stop(&p2m);
		}
	}
	p2m.pt.ad = true;
}

/* A page that was written and then made read-only or write-tracked was missing in the log: here, once. */
static void a_dirty_page_stays_so_whatever_becomes_of_its_permissions(void **state)
{
	static const u8 types[] = {P2M_RO, P2M_TRACKED};
	u64 value = 7;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		u64 map = 0;
		assert_int_equal(p2m_log_start(&p2m, P2M_LOG_EAGER), 0);
		assert_int_equal(p2m_write(&p2m, gpa(RAM + 3), &value, 8), 0);
		assert_int_equal(p2m_protect(&p2m, GFN(RAM + 3), 0, types[i]), 0);
		assert_int_equal(p2m_log_harvest(&p2m, GFN(RAM), 64, &map), 0);
		assert_int_equal(map, BIT(3));
		map = 0;
		assert_int_equal(p2m_log_harvest(&p2m, GFN(RAM), 64, &map), 0);
		assert_int_equal(map, 0);
		p2m_log_stop(&p2m);
		assert_int_equal(p2m_protect(&p2m, GFN(RAM + 3), 0, P2M_RAM), 0);
	}
}

static void take_away(void) { assert_int_equal(p2m_balloon(&p2m, GFN(RAM + 3), 0, NULL), 0); }
static void make_rom(void) { assert_int_equal(p2m_protect(&p2m, GFN(RAM + 3), 0, P2M_RO), 0); }

static void exchange(void)
{
	take_away();
	(void)alloc(0, OTHER); /* or it would be the same frame again */
	assert_int_equal(p2m_reclaim(&p2m, GFN(RAM + 3), 0, NULL), 0);
}

/*
 * Linux 4f510c8bb1dd: the fast page-fault handler looked at an entry, and made it writable after it had been changed to
 * something else. Between a fault's look and its repair the page goes, becomes another, or read-only for good.
 */
static void a_fault_repairs_only_what_is_there_now(void **state)
{
	static void (*const change[])(void) = {take_away, exchange, make_rom};
	static const u8 type[] = {P2M_BALLOONED, P2M_RAM, P2M_RO};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(change); i++) {
		assert_int_equal(p2m_protect(&p2m, GFN(RAM + 3), 0, P2M_TRACKED), 0);
		interfere(change[i], 0);
		assert_int_equal(p2m_fault(&p2m, gpa(RAM + 3), P2M_WRITE), P2M_RETRY);
		assert_null(meanwhile);
		host_on_irq = NULL;
		assert_int_equal(entry(RAM + 3).type, type[i]);
		assert_int_equal(entry(RAM + 3).flags & PT_W, type[i] == P2M_RAM ? PT_W : 0);
		assert_clean();
		if (type[i] == P2M_BALLOONED)
			assert_int_equal(p2m_reclaim(&p2m, GFN(RAM + 3), 0, NULL), 0);
		else
			assert_int_equal(p2m_protect(&p2m, GFN(RAM + 3), 0, P2M_RAM), 0);
	}
}

static void log_on(void) { assert_int_equal(p2m_log_start(&p2m, P2M_LOG_LAZY), 0); }
static void log_off(void) { p2m_log_stop(&p2m); }

static void log_anew(void)
{
	log_off();
	assert_int_equal(p2m_log_start(&p2m, P2M_LOG_KEEP), 0);
}

/*
 * Xen XSA-397: turning dirty logging on and off raced with faults and with what they change. At each lookup of a write
 * by the hypervisor the log begins, ends or begins anew: the write arrives, and the next one is told by the log.
 */
static void xsa_397_the_log_may_change_at_any_time(void **state)
{
	static void (*const change[])(void) = {log_on, log_off, log_anew};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(change); i++) {
		for (unsigned after = 0; after < 6; after++) {
			u64 value = after, map = 0, got = 0;
			if (i)
				log_on();
			interfere(change[i], after);
			assert_int_equal(p2m_write(&p2m, gpa(RAM + 3), &value, 8), 0);
			if (meanwhile) /* nothing was left to come in between */
				change[i]();
			meanwhile = NULL;
			host_on_irq = NULL;
			assert_int_equal(p2m_read(&p2m, gpa(RAM + 3), &got, 8), 0);
			assert_int_equal(got, value);
			assert_int_equal(p2m_write(&p2m, gpa(RAM + 4), &value, 8), 0);
			if (p2m.log)
				assert_int_equal(p2m_log_harvest(&p2m, GFN(RAM), 64, &map), 0);
			assert_int_equal((map & BIT(4)) != 0, p2m.log != P2M_LOG_OFF);
			p2m_log_stop(&p2m);
			assert_clean();
		}
	}
}

/*
 * Xen XSA-410 and XSA-97: a guest was destroyed in one long step that nobody could interrupt, or with its log still on.
 * It ends in small steps, with a log, a collapse and pages given back, and others work on in between.
 */
static void xsa_410_a_teardown_is_in_steps_and_complete(void **state)
{
	static struct p2m other;
	unsigned steps = 1;

	assert_int_equal(p2m_init(&other, *state, OTHER, ORDER_2M, 40), 0);
	assert_int_equal(p2m_add_slot(&other, GFN(0), 512, P2M_RAM), 0);
	for (u64 gfn = RAM; gfn < RAM + PAGES; gfn += 2)
		assert_int_equal(p2m_balloon(&p2m, GFN(gfn), 0, NULL), 0);
	for (u64 gfn = RAM; gfn < RAM + PAGES; gfn += 4)
		assert_int_equal(p2m_reclaim(&p2m, GFN(gfn), 0, NULL), 0);
	assert_int_equal(p2m_log_start(&p2m, P2M_LOG_EAGER), 0);
	u64 before = free_frames();
	for (; p2m_free_step(&p2m); steps++) {
		assert_true(free_frames() >= before);
		assert_int_equal(p2m_fault(&other, gpa(steps % 512), P2M_WRITE), P2M_TO_MMIO);
		before = free_frames();
	}
	assert_true(steps > 1);
	assert_int_equal(p2m_populate(&other, GFN(0)), 0);
	assert_int_equal(p2m_audit(&other), 0);
	p2m_free(&other);
	assert_int_equal(frames_audit(), 0);
	assert_int_equal(setup(state), 0);
}

/*
 * A reclaim without memory was undone by a change that "takes no table and cannot fail", but the table had been merged
 * away: an assertion of the hypervisor that a guest could bring about. Now the page comes at first touch.
 */
static void a_reclaim_that_cannot_be_undone_is_one(void **state)
{
	const u64 gfn = RAM + PAGES + 3;

	(void)state;
	assert_int_equal(p2m_add_slot(&p2m, GFN(RAM + PAGES), 512, P2M_RAM), 0);
	assert_int_equal(p2m_populate_on_demand(&p2m, GFN(RAM + PAGES)), 0);
	assert_int_equal(p2m_balloon(&p2m, GFN(gfn), 0, NULL), 0);
	assert_int_equal(entry(gfn).order, 0);
	host_fail_alloc(1);
	assert_int_equal(p2m_reclaim(&p2m, GFN(gfn), 0, NULL), 0);
	assert_int_equal(entry(gfn).type, P2M_DEMAND);
	assert_int_equal(p2m_fault(&p2m, gpa(gfn), P2M_READ), P2M_NOMEM);
	host_fail_alloc(0);
	assert_int_equal(p2m_fault(&p2m, gpa(gfn), P2M_READ), P2M_RETRY);
	assert_int_equal(entry(gfn).type, P2M_RAM);
}

static void touch(void) { assert_int_equal(p2m_fault(&p2m, gpa(RAM + 3), P2M_WRITE), P2M_RETRY); }

static void reclaim_too(void)
{
	int err = p2m_reclaim(&p2m, GFN(RAM + 3), 0, NULL);

	assert_true(!err || err == -ENOENT);
}

/*
 * Xen XSA-379: by racing calls a frame became mapped at two places, or a place had two frames. While a page is
 * reclaimed another vCPU touches it, or reclaims it too: it has one frame in the end, and none is lost.
 */
static void xsa_379_racing_reclaims_bring_one_frame(void **state)
{
	static void (*const other[])(void) = {touch, reclaim_too};

	(void)state;
	assert_int_equal(p2m_balloon(&p2m, GFN(RAM + 4), 0, NULL), 0); /* so that the table stays */
	for (unsigned i = 0; i < ARRAY_SIZE(other); i++) {
		for (unsigned after = 0; after < 4; after++) {
			u64 before = free_frames();
			take_away();
			interfere(other[i], after);
			assert_int_equal(p2m_reclaim(&p2m, GFN(RAM + 3), 0, NULL), 0);
			meanwhile = NULL;
			host_on_irq = NULL;
			assert_int_equal(entry(RAM + 3).type, P2M_RAM);
			assert_int_equal(free_frames(), before);
			assert_clean();
		}
	}
}

/*
 * Xen XSA-507: memory reclaim took frames that were not the guest's plain RAM. Neither a balloon nor a collapse touches
 * what is shared, a device's, read-only, tracked, broken or an overlay, nor 2 MB that has one such page.
 */
static void xsa_507_special_frames_are_left_alone(void **state)
{
	static const u8 types[] = {P2M_RO, P2M_TRACKED, P2M_DIRECT, P2M_SHARED, P2M_BROKEN, P2M_MMIO, P2M_APIC};
	mfn_t host = alloc(0, OWNER_HOST), own = alloc(0, OWNER);

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		unsigned t = types[i];
		bool owned = P2M_MASK(t) & P2M_OWNED;
		mfn_t mfn = owned ? own : t == P2M_SHARED ? host : t == P2M_DIRECT ? MFN(BIT(25)) : MFN_NONE;
		mfn_t old = entry(RAM + 9).mfn;
		assert_int_equal(p2m_set(&p2m, GFN(RAM + 9), mfn, 0, t), 0);
		for (u64 now = 0; now < 30000000000ul; now += 10000000)
			p2m_work(&p2m, now);
		assert_int_equal(p2m.collapses, 0);
		assert_true(mfn_eq(entry(RAM + 9).mfn, mfn));
		assert_int_equal(entry(RAM + 9).type, t);
		if (t != P2M_TRACKED) { /* that is the guest's RAM, as the guest sees it */
			assert_int_equal(p2m_balloon(&p2m, GFN(RAM + 9), 0, NULL), -EPERM);
			assert_int_equal(p2m_balloon(&p2m, GFN(RAM), 9, NULL), -EPERM);
		}
		assert_int_equal(p2m_reclaim(&p2m, GFN(RAM + 9), 0, NULL), -ENOENT);
		assert_clean();
		assert_int_equal(p2m_set(&p2m, GFN(RAM + 9), old, 0, P2M_RAM), 0);
	}
	assert_int_equal(frames_free(host, 0, OWNER_HOST), 0);
}

static void overlay_and_end_of_memory(void)
{
	assert_int_equal(p2m_set(&p2m, GFN(RAM + 100), MFN_NONE, 0, P2M_MMIO), 0);
	host_fail_alloc(1);
}

/* A reclaim that has to be undone gave back all of its range, also what had become something else meanwhile. */
static void only_what_came_back_is_given_back_again(void **state)
{
	(void)state;
	assert_int_equal(p2m_balloon(&p2m, GFN(RAM), 9, NULL), 0);
	interfere(overlay_and_end_of_memory, 0);
	(void)p2m_reclaim(&p2m, GFN(RAM), 9, NULL);
	assert_null(meanwhile);
	assert_int_equal(entry(RAM + 100).type, P2M_MMIO);
	assert_clean();
}

static bool executable(u64 gfn) { return pt_lookup(&p2m.pt, gpa(gfn)).flags & PT_X; }

/*
 * CVE-2018-12207, XSA-304: a guest changed the size of a page that code was fetched from, and the machine stopped.
 * Where the CPU has that erratum no large page is executable; code splits its page, once, and keeps it small.
 */
static void xsa_304_code_is_in_small_pages(void **state)
{
	gfn_t code = GFN(RAM + 600), data = GFN(RAM + 1536);

	p2m_free(&p2m);
	assert_int_equal(p2m_init(&p2m, *state, OWNER, ORDER_1G, 40), 0);
	p2m.pt.exec_small = true;
	assert_int_equal(p2m_add_slot(&p2m, GFN(RAM), PAGES, P2M_RAM), 0);
	assert_int_equal(p2m_populate(&p2m, GFN(RAM)), 0);
	assert_int_equal(entry(code.n).order, ORDER_2M);
	assert_false(executable(code.n));
	for (u64 nth = 1; nth; nth++) { /* no table for the split: the page stays as it is */
		host_fail_alloc(nth);
		enum p2m_verdict v = p2m_fault(&p2m, gpa(code.n), P2M_EXEC);
		host_fail_alloc(0);
		assert_clean();
		if (v == P2M_RETRY)
			break;
		assert_int_equal(v, P2M_NOMEM);
		assert_int_equal(entry(code.n).order, ORDER_2M);
	}
	for (u64 i = RAM + 512; i < RAM + 1024; i++) {
		assert_int_equal(entry(i).order, 0);
		assert_true(executable(i));
	}
	assert_int_equal(p2m.splits[P2M_CODE], 1);
	for (u64 now = 0; now < 30000000000ul; now += 10000000)
		p2m_work(&p2m, now);
	assert_int_equal(entry(code.n).order, 0);
	assert_int_equal(entry(data.n).order, ORDER_2M);

	/* Small pages that are put together lose their X, and the next fetch there is as the first. */
	assert_int_equal(p2m_protect(&p2m, data, 0, P2M_RO), 0);
	assert_int_equal(entry(data.n + 1).order, 0);
	assert_int_equal(p2m_fault(&p2m, gpa(data.n + 1), P2M_EXEC), P2M_RETRY);
	assert_true(executable(data.n + 1));
	assert_clean();
	assert_int_equal(p2m_protect(&p2m, data, 0, P2M_RAM), 0);
	assert_int_equal(entry(data.n).order, ORDER_2M);
	assert_false(executable(data.n));
	assert_int_equal(p2m_fault(&p2m, gpa(data.n), P2M_EXEC), P2M_RETRY);
	assert_int_equal(entry(data.n).order, 0);
	assert_int_equal(p2m_fault(&p2m, 0xb8000, P2M_EXEC), P2M_DENY);
	assert_clean();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(xsa_389_running_out_of_memory_anywhere_changes_nothing),
		T(xsa_389_a_log_that_cannot_start_leaves_all_dirty),
		T(xsa_388_every_order_is_done_or_refused),
		T(a_write_under_any_log_makes_progress_and_is_told),
		T(a_dirty_page_stays_so_whatever_becomes_of_its_permissions),
		T(a_fault_repairs_only_what_is_there_now),
		T(xsa_397_the_log_may_change_at_any_time),
		T(xsa_410_a_teardown_is_in_steps_and_complete),
		T(xsa_379_racing_reclaims_bring_one_frame),
		T(a_reclaim_that_cannot_be_undone_is_one),
		T(only_what_came_back_is_given_back_again),
		T(xsa_507_special_frames_are_left_alone),
		T(xsa_304_code_is_in_small_pages),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
