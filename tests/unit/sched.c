/* SPDX-License-Identifier: MIT */
/* Run queues: states, slices, preemption by wake-ups, and that none is lost. */
#include "sched/sched.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sched/timer.h"
#include "tests/host/host.h"

#define MS 1000000ull

static struct runq rq;
static struct sched_ent a, b;
static u64 now, until;

static int setup(void **state)
{
	host_set_cpu(0);
	host_kicks = host_kick_mask = 0;
	now = 0;
	host_set_now(0);
	runq_init(&rq, 0);
	sched_ent_init(&a, &rq, 256);
	sched_ent_init(&b, &rq, 256);
	return 0;
}

static void pass(u64 ns)
{
	now += ns;
	host_set_now(now);
}

static void starts_blocked(void **state)
{
	assert_null(sched_pick(&rq, now, &until));
	assert_true(until == TIMER_NEVER);
	assert_true(runq_empty(&rq));
	sched_wake(&a);
	assert_int_equal(a.state, SCHED_READY);
	assert_false(runq_empty(&rq));
	assert_ptr_equal(sched_pick(&rq, now, &until), &a);
	assert_int_equal(a.state, SCHED_RUNNING);
	assert_true(until == TIMER_NEVER); /* alone */
	pass(3 * MS);
	sched_put(&a, now, true);
	assert_int_equal(a.state, SCHED_BLOCKED);
	assert_int_equal(a.runtime, 3 * MS);
	assert_null(sched_pick(&rq, now, &until));
}

static void shares_by_slices(void **state)
{
	sched_wake(&a);
	sched_wake(&b);
	assert_ptr_equal(sched_pick(&rq, now, &until), &a);
	assert_int_equal(until, SCHED_SLICE_NS);
	pass(4 * MS);
	sched_put(&a, now, false);
	assert_ptr_equal(sched_pick(&rq, now, &until), &a); /* goes on within its slice */
	assert_int_equal(until, SCHED_SLICE_NS);
	pass(6 * MS);
	sched_put(&a, now, false);
	assert_ptr_equal(sched_pick(&rq, now, &until), &b);
	assert_int_equal(until, now + SCHED_SLICE_NS);
	pass(5 * MS);
	sched_put(&b, now, true);
	assert_ptr_equal(sched_pick(&rq, now, &until), &a);
	assert_true(until == TIMER_NEVER);
}

static void wake_while_running_is_kept(void **state)
{
	sched_wake(&a);
	sched_pick(&rq, now, &until);
	sched_wake(&a);
	sched_put(&a, now, true); /* saw nothing to do before the wake, and wants to block */
	assert_int_equal(a.state, SCHED_READY);
	assert_ptr_equal(sched_pick(&rq, now, &until), &a);
	sched_put(&a, now, true); /* it has looked since */
	assert_int_equal(a.state, SCHED_BLOCKED);
	sched_wake(&a);
	sched_wake(&a); /* twice is once */
	assert_ptr_equal(sched_pick(&rq, now, &until), &a);
	sched_put(&a, now, true);
	assert_null(sched_pick(&rq, now, &until));
}

static void sleeper_preempts(void **state)
{
	sched_wake(&a);
	sched_pick(&rq, now, &until);
	pass(5 * MS);
	assert_false(sched_resched(&rq));
	sched_wake(&b);
	assert_true(sched_resched(&rq));
	sched_put(&a, now, false);
	assert_ptr_equal(sched_pick(&rq, now, &until), &b);
	assert_false(sched_resched(&rq));
	assert_int_equal(until, now + SCHED_SLICE_NS);
}

/* One that is ahead does not preempt, but the running one, which was alone, gets an end to its run. */
static void one_ahead_waits(void **state)
{
	sched_wake(&b);
	sched_pick(&rq, now, &until);
	pass(8 * MS);
	sched_put(&b, now, true);
	sched_wake(&a);
	sched_pick(&rq, now, &until);
	pass(1 * MS);
	sched_wake(&b);
	assert_true(sched_resched(&rq)); /* only for the new limit */
	sched_put(&a, now, false);
	assert_ptr_equal(sched_pick(&rq, now, &until), &a);
	assert_int_equal(until, 18 * MS);
}

static void sleep_saves_at_most_a_slice(void **state)
{
	sched_wake(&a);
	sched_pick(&rq, now, &until);
	pass(10000 * MS);
	sched_put(&a, now, false);
	sched_pick(&rq, now, &until);
	sched_wake(&b); /* slept for 10 s */
	sched_put(&a, now, false);
	assert_ptr_equal(sched_pick(&rq, now, &until), &b);
	pass(SCHED_SLICE_NS + MS);
	sched_put(&b, now, false);
	assert_ptr_equal(sched_pick(&rq, now, &until), &a);
}

static void kicks_only_other_cpus_that_must_look(void **state)
{
	host_set_cpu(1);
	sched_wake(&a); /* idle */
	assert_int_equal(host_kicks, 1);
	assert_int_equal(host_kick_mask, 1);
	sched_wake(&a); /* ready already */
	assert_int_equal(host_kicks, 1);
	sched_pick(&rq, now, &until);
	sched_wake(&a); /* running: there is something to look at */
	assert_int_equal(host_kicks, 2);
	host_set_cpu(0);
	sched_wake(&a);
	sched_wake(&b);
	assert_int_equal(host_kicks, 2);
}

static void removes(void **state)
{
	sched_wake(&a);
	sched_wake(&b);
	sched_pick(&rq, now, &until);
	sched_put(&a, now, false);
	sched_remove(&a); /* also as the one that would go on */
	assert_ptr_equal(sched_pick(&rq, now, &until), &b);
	sched_put(&b, now, true);
	sched_remove(&b);
	sched_remove(&b);
	assert_null(sched_pick(&rq, now, &until));
}

static void weights_are_cut(void **state)
{
	sched_ent_init(&a, &rq, 0);
	assert_int_equal(a.weight, 1);
	sched_ent_init(&a, &rq, ~0u);
	assert_int_equal(a.weight, SCHED_WEIGHT_MAX);
}

/* vtime is compared modulo 2^64, so that even one of weight 1 that runs for years does not upset the order. */
static void vtime_wraps(void **state)
{
	rq.min_vtime = ~0ull - MS;
	sched_ent_init(&a, &rq, 256);
	sched_ent_init(&b, &rq, 256);
	sched_wake(&a);
	sched_wake(&b);
	assert_ptr_equal(sched_pick(&rq, now, &until), &a);
	pass(SCHED_SLICE_NS);
	sched_put(&a, now, false);
	assert_true(a.vtime < b.vtime);
	assert_ptr_equal(sched_pick(&rq, now, &until), &b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(starts_blocked, setup),
		cmocka_unit_test_setup(shares_by_slices, setup),
		cmocka_unit_test_setup(wake_while_running_is_kept, setup),
		cmocka_unit_test_setup(sleeper_preempts, setup),
		cmocka_unit_test_setup(one_ahead_waits, setup),
		cmocka_unit_test_setup(sleep_saves_at_most_a_slice, setup),
		cmocka_unit_test_setup(kicks_only_other_cpus_that_must_look, setup),
		cmocka_unit_test_setup(removes, setup),
		cmocka_unit_test_setup(weights_are_cut, setup),
		cmocka_unit_test_setup(vtime_wraps, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
