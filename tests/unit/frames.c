/* SPDX-License-Identifier: MIT */
#include "mm/frames.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/port.h"
#include "tests/host/frames_audit.h"
#include "tests/host/host.h"

#define GUEST OWNER_GUEST

static struct frames_stats stats(void)
{
	struct frames_stats s;

	frames_stats(&s);
	return s;
}

static mfn_t alloc(unsigned order, u16 owner, unsigned flags)
{
	mfn_t mfn;

	assert_int_equal(frames_alloc(order, owner, flags, &mfn), 0);
	assert_true(IS_ALIGNED(mfn.n, BIT(order)));
	assert_int_equal(frame_of(mfn)->owner, owner);
	return mfn;
}

static char *bytes(mfn_t mfn) { return port_virt(mfn_to_hpa(mfn)); }

static bool is_zero(mfn_t mfn, unsigned order)
{
	const char *p = bytes(mfn);
	size_t n = PAGE_SIZE << order;

	return !p[0] && !memcmp(p, p + 1, n - 1);
}

static int setup(void **state)
{
	(void)state;
	host_machine(64 * MB);
	host_log_clear();
	return 0;
}

/* The machine is whole again: everything free, merged, and the audit finds nothing. */
static int teardown(void **state)
{
	(void)state;
	frames_free_all(GUEST);
	frames_free_all(GUEST + 1);
	assert_int_equal(frames_audit(), 0);
	assert_int_equal(stats().free, stats().total);
	assert_int_equal(frames_largest(), 13);
	host_machine_free();
	return 0;
}

static void all_memory_can_be_allocated_and_comes_back(void **state)
{
	struct frames_stats s = stats();
	mfn_t mfn;
	u64 n = 0;

	(void)state;
	assert_int_equal(s.total, 64 * MB / PAGE_SIZE - host_first_free());
	while (!frames_alloc(0, GUEST, 0, &mfn))
		n++;
	assert_int_equal(n, s.total);
	assert_int_equal(frames_largest(), -1);
	assert_int_equal(frames_audit(), 0);
	assert_int_equal(frames_free_all(GUEST), n);
}

static void small_allocations_leave_large_blocks_alone(void **state)
{
	(void)state;
	mfn_t hole = alloc(9, GUEST, 0);
	struct frames_audit before = frames_audit_all();

	for (int i = 0; i < 256; i++)
		alloc(0, GUEST, 0);
	struct frames_audit after = frames_audit_all();
	for (unsigned order = 9; order < FRAME_ORDERS; order++)
		assert_int_equal(after.blocks[1][order], before.blocks[1][order]);
	assert_int_equal(frames_free(hole, 9, GUEST), 0);
}

static void low_memory_is_kept_for_those_who_ask(void **state)
{
	mfn_t mfn;

	(void)state;
	for (u64 i = 0; i < (64 * MB - MB) / PAGE_SIZE; i++)
		assert_true(alloc(0, GUEST, 0).n >= LOW_FRAMES);
	assert_true(alloc(0, GUEST, 0).n < LOW_FRAMES); /* better than none */
	for (u64 i = host_first_free() + 1; i < LOW_FRAMES; i++)
		assert_true(alloc(0, GUEST, FRAMES_LOW).n < LOW_FRAMES);
	assert_int_equal(frames_alloc(0, GUEST, FRAMES_LOW, &mfn), -ENOMEM);
}

static void wrong_frees_are_caught_and_change_nothing(void **state)
{
	mfn_t a = alloc(3, GUEST, 0), b = alloc(0, GUEST, 0), c = alloc(0, GUEST, 0);
	struct frames_stats before = stats(), after;

	(void)state;
	assert_int_equal(frames_free(a, 4, GUEST), -EINVAL);               /* larger than it is */
	assert_int_equal(frames_free(a, 3, GUEST + 1), -EINVAL);           /* another's */
	assert_int_equal(frames_free(a, 3, OWNER_FREE), -EINVAL);          /* nobody's */
	assert_int_equal(frames_free(MFN(a.n + 1), 1, GUEST), -EINVAL);    /* misaligned */
	assert_int_equal(frames_free(MFN(1ull << 40), 0, GUEST), -EINVAL); /* beyond memory */
	assert_int_equal(frames_free(MFN(~0ull), 0, GUEST), -EINVAL);
	assert_int_equal(frames_free(a, FRAME_ORDERS, GUEST), -EINVAL);
	assert_int_equal(frames_free(MFN(0), 0, OWNER_NONE), -EINVAL); /* the frame table's own memory */
	assert_int_equal(frames_free(MFN(ROUND_DOWN(b.n, 2)), 1, GUEST),
			 -EINVAL); /* two allocations, or one and a hole */
	after = stats();
	assert_memory_equal(&before, &after, sizeof(before));
	assert_int_equal(frames_audit(), 0);

	assert_int_equal(frames_free(b, 0, GUEST), 0);
	assert_int_equal(frames_free(b, 0, GUEST), -EINVAL); /* twice */
	assert_int_equal(frames_free(a, 3, GUEST), 0);
	assert_int_equal(frames_free(a, 3, GUEST), -EINVAL);
	assert_int_equal(frames_free(MFN(a.n + 4), 2, GUEST), -EINVAL);
	assert_int_equal(frames_free(c, 0, GUEST), 0);
	assert_non_null(strstr(host_log(), "may not free"));
}

static void a_part_of_an_allocation_can_be_freed(void **state)
{
	mfn_t a = alloc(9, GUEST, 0);
	u64 free = stats().free;

	(void)state;
	assert_int_equal(frames_free(MFN(a.n + 37), 0, GUEST), 0);
	assert_int_equal(stats().free, free + 1);
	assert_int_equal(frames_audit(), 0);
	assert_int_equal(frames_free(a, 9, GUEST), -EINVAL);
	assert_int_equal(frames_free(MFN(a.n + 256), 8, GUEST), 0);
	assert_int_equal(frames_free(MFN(a.n + 36), 0, GUEST), 0);
	assert_int_equal(frames_free(MFN(a.n + 38), 1, GUEST), 0);
	assert_int_equal(frames_free(MFN(a.n + 128), 7, GUEST), 0);
	assert_int_equal(frames_audit(), 0);
	assert_int_equal(frames_free_all(GUEST), 124);
}

static void what_one_owner_wrote_no_other_can_read(void **state)
{
	(void)state;
	for (unsigned order = 0; order <= 11; order++) {
		mfn_t secret = alloc(order, GUEST, FRAMES_ZERO);
		memset(bytes(secret), 0x5a, PAGE_SIZE << order);
		assert_int_equal(frames_free(secret, order, GUEST), 0);
		mfn_t next = alloc(order, GUEST + 1, FRAMES_ZERO);
		assert_true(is_zero(next, order));
		assert_int_equal(frames_free(next, order, GUEST + 1), 0);
	}
}

static void scrub_all(void)
{
	for (unsigned i = 0; frames_scrub(); i++)
		assert_true(i < 10000);
}

static void dirty_all(void)
{
	mfn_t mfn;

	while (!frames_alloc(0, GUEST, 0, &mfn))
		memset(bytes(mfn), 0x5a, PAGE_SIZE);
	frames_free_all(GUEST);
}

static void idle_processors_clean_what_is_free(void **state)
{
	mfn_t mfn;

	(void)state;
	mfn_t kept = alloc(0, GUEST + 1, 0);
	memset(bytes(kept), 0x33, PAGE_SIZE);
	dirty_all();
	assert_int_equal(frames_alloc(9, GUEST, FRAMES_CLEAN, &mfn), -ENOMEM);
	scrub_all();
	mfn = alloc(13, GUEST, FRAMES_CLEAN);
	assert_true(is_zero(mfn, 13));
	assert_int_equal(bytes(kept)[99], 0x33);
	/* One frame that comes back makes its 2 MB dirty, and no more. */
	memset(bytes(mfn), 0x77, PAGE_SIZE);
	assert_int_equal(frames_free(mfn, 13, GUEST), 0);
	assert_int_equal(frames_alloc(13, GUEST, FRAMES_CLEAN, &mfn), -ENOMEM);
	assert_int_equal(frames_alloc(12, GUEST, FRAMES_CLEAN, &mfn), 0);
	assert_true(is_zero(mfn, 12));
	frames_free_all(GUEST);
	scrub_all();
	assert_true(is_zero(alloc(13, GUEST, FRAMES_CLEAN), 13));
	assert_false(frames_scrub());
	frames_free_all(GUEST);
	frames_free_all(GUEST + 1);
	frames_free_all(OWNER_HOST); /* the scrubber's map */
}

/* Freed between two steps into a place that the scrubber has passed already: it comes again. */
static void what_is_freed_behind_the_scrubber_is_cleaned_too(void **state)
{
	(void)state;
	for (unsigned steps = 0; steps < 200; steps += 7) {
		host_machine(64 * MB);
		dirty_all();
		mfn_t a = alloc(9, GUEST, 0), b = alloc(0, GUEST, 0);
		memset(bytes(a), 0x11, 2 * MB);
		memset(bytes(b), 0x22, PAGE_SIZE);
		for (unsigned i = 0; i < steps; i++)
			frames_scrub();
		assert_int_equal(frames_free(MFN(a.n + steps), 0, GUEST), 0);
		frames_scrub();
		assert_int_equal(frames_free(b, 0, GUEST), 0);
		frames_free_all(GUEST);
		scrub_all();
		for (mfn_t mfn; !frames_alloc(0, GUEST, FRAMES_CLEAN, &mfn);)
			assert_true(is_zero(mfn, 0));
		frames_free_all(GUEST);
	}
	frames_free_all(OWNER_HOST);
}

static void a_block_is_known_by_any_frame_of_it(void **state)
{
	mfn_t a = alloc(5, GUEST, 0);
	struct frames_block b = frames_block(MFN(a.n + 17));

	(void)state;
	assert_true(mfn_eq(b.first, a) && b.owner == GUEST && b.order == 5 && !b.table);
	assert_true(frames_are(a, 32, GUEST));
	assert_false(frames_are(a, 32, GUEST + 1));
	assert_false(frames_are(a, 64, GUEST));
	assert_int_equal(frames_free(MFN(a.n + 16), 3, GUEST), 0);
	assert_int_equal(frames_block(MFN(a.n + 17)).owner, OWNER_FREE);
	assert_int_equal(frames_block(MFN(a.n + 25)).order, 3);
	assert_false(frames_are(a, 32, GUEST));
	assert_true(frames_are(MFN(a.n + 24), 8, GUEST));
	frame_of(a)->state = FRAME_TABLE;
	assert_false(frames_are(a, 16, GUEST));
	assert_int_equal(frames_block(MFN(0)).owner, OWNER_NONE);
	assert_true(frames_are(MFN(0), 1, OWNER_NONE));
	assert_true(frames_are(MFN(BIT(30)), 5, OWNER_NONE)); /* beyond memory */
	assert_false(frames_are(MFN(BIT(30)), 5, GUEST));
	frame_of(a)->state = FRAME_USED;
}

static void frames_added_in_any_pieces_are_all_there(void **state)
{
	static struct frame table[10000];
	const struct {
		u64 first, count;
	} pieces[] = {{3, 1}, {5, 250}, {255, 2}, {300, 4000}, {4500, 3333}, {290, 10}, {9990, 10}};

	(void)state;
	memset(table, 0, sizeof(table));
	frames_init(table, 10000);
	for (unsigned i = 0; i < ARRAY_SIZE(pieces); i++) {
		frames_add(MFN(pieces[i].first), pieces[i].count);
		assert_int_equal(frames_audit(), 0);
	}
	/* Where there is no RAM one need not look frame by frame. */
	assert_int_equal(frames_block(MFN(9000)).order, 9);
	assert_int_equal(frames_block(MFN(9000)).owner, OWNER_NONE);
	assert_true(mfn_eq(frames_block(MFN(9000)).first, MFN(ROUND_DOWN(9000, 512))));
	assert_int_equal(frames_block(MFN(4)).order, 0);
	assert_int_equal(frames_block(MFN(9989)).order, 0);
	u64 expected = 1 + 250 + 2 + 4000 + 3333 + 10 + 10, n = 0;
	assert_int_equal(stats().total, expected);
	for (mfn_t mfn; !frames_alloc(0, GUEST, 0, &mfn); n++)
		assert_true(mfn.n >= 3 && mfn.n < 10000);
	assert_int_equal(n, expected);
	host_machine(64 * MB);
}

static void no_block_reaches_over_a_zone(void **state)
{
	static struct frame table[16384];

	(void)state;
	memset(table, 0, sizeof(table));
	frames_init(table, 16384);
	frames_add(MFN(0), 16384);
	assert_int_equal(frames_audit(), 0);
	mfn_t low = alloc(0, GUEST, FRAMES_LOW);
	assert_int_equal(frames_free(low, 0, GUEST), 0);
	assert_int_equal(frames_audit(), 0);
	assert_int_equal(frames_largest(), 13);
	assert_int_equal(frames_blocks(8), 2); /* below 1 MB, and the next */
	host_machine(64 * MB);
}

static void an_injected_failure_is_one_question_an_allocation(void **state)
{
	mfn_t mfn;

	(void)state;
	host_fail_alloc(3);
	assert_int_equal(frames_alloc(9, GUEST, 0, &mfn), 0);
	assert_int_equal(frames_alloc(9, GUEST, FRAMES_ZERO, &mfn), 0);
	assert_int_equal(frames_alloc(9, GUEST, 0, &mfn), -ENOMEM);
	host_fail_alloc(0);
}

static void the_m2p_is_set_and_cleared_in_runs(void **state)
{
	mfn_t a = alloc(4, GUEST, 0);

	(void)state;
	assert_true(frame_of(a)->gfn == FRAME_NO_GFN);
	frames_set_gfn(a, 16, GFN(0x1234));
	assert_int_equal(frame_of(MFN(a.n + 15))->gfn, 0x1243);
	frames_set_gfn(MFN(a.n + 1), 2, GFN(FRAME_NO_GFN));
	assert_true(frame_of(MFN(a.n + 1))->gfn == FRAME_NO_GFN);
	assert_true(frame_of(MFN(a.n + 2))->gfn == FRAME_NO_GFN);
	assert_int_equal(frame_of(a)->gfn, 0x1234);
	assert_null(frame_of(MFN(64 * MB / PAGE_SIZE)));
}

/* Each corruption must be seen; each is undone, so that teardown finds a whole machine. */
static void the_audit_of_these_tests_sees_corruption(void **state)
{
	mfn_t a = alloc(2, GUEST, 0);
	struct frame *used = frame_of(a), *free = used, saved;

	(void)state;
	while (free->state != FRAME_FREE || free->order < 2)
		free++;
	struct frame *victims[] = {used, used, used + 1, used + 1, free, free, free, free + 1, free + 1};
	for (unsigned i = 0; i < ARRAY_SIZE(victims); i++) {
		struct frame *f = victims[i];
		saved = *f;
		switch (i) {
		case 0:
			f->owner = OWNER_FREE;
			break;
		case 1:
			f->order = 1;
			break;
		case 2:
			f->owner = GUEST + 1;
			break;
		case 3:
			f->state = FRAME_FREE;
			break;
		case 4:
			f->prev = (u32)a.n;
			break;
		case 5:
			f->order--;
			break;
		case 6:
			f->next = (u32)a.n;
			break;
		case 7:
			f->state = FRAME_USED;
			f->order = 0;
			break;
		default:
			f->state = FRAME_FREE;
		}
		assert_true(frames_audit() > 0);
		*f = saved;
		assert_int_equal(frames_audit(), 0);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(all_memory_can_be_allocated_and_comes_back),
		T(small_allocations_leave_large_blocks_alone),
		T(low_memory_is_kept_for_those_who_ask),
		T(wrong_frees_are_caught_and_change_nothing),
		T(a_part_of_an_allocation_can_be_freed),
		T(what_one_owner_wrote_no_other_can_read),

		T(idle_processors_clean_what_is_free),
		T(what_is_freed_behind_the_scrubber_is_cleaned_too),
		T(a_block_is_known_by_any_frame_of_it),
		T(frames_added_in_any_pieces_are_all_there),
		T(no_block_reaches_over_a_zone),
		T(an_injected_failure_is_one_question_an_allocation),
		T(the_m2p_is_set_and_cleared_in_runs),
		T(the_audit_of_these_tests_sees_corruption),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
