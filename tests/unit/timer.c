/* SPDX-License-Identifier: MIT */
/* Timer queues: order, rearming, cancelling, kicks. */
#include "sched/timer.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/port.h"
#include "tests/host/host.h"
/* link: -lpthread */

static struct timerq q;
static char order[64];
static unsigned ran;

static void note(void *arg) { order[ran++] = *(const char *)arg; }

static int setup(void **state)
{
	host_set_cpu(0);
	host_kicks = host_kick_mask = 0;
	timerq_init(&q, 0);
	ran = 0;
	return 0;
}

static void runs_in_order(void **state)
{
	struct timer a, b, c, d;

	timer_init(&a, &q, note, "a");
	timer_init(&b, &q, note, "b");
	timer_init(&c, &q, note, "c");
	timer_init(&d, &q, note, "d");
	assert_true(timers_run(&q, 100) == TIMER_NEVER);
	timer_set(&b, 20);
	timer_set(&a, 10);
	timer_set(&c, 20); /* after b, which came first */
	timer_set(&d, 30);
	assert_int_equal(q.next, 10);
	assert_int_equal(timers_run(&q, 9), 10);
	assert_int_equal(ran, 0);
	assert_int_equal(timers_run(&q, 20), 30);
	assert_memory_equal(order, "abc", 3);
	timer_set(&a, 40);
	timer_set(&a, 25); /* rearmed: once, at the new time */
	assert_true(timers_run(&q, 100) == TIMER_NEVER);
	assert_memory_equal(order, "abcad", 5);
	assert_int_equal(ran, 5);
	assert_int_equal(host_kicks, 0);
}

static void cancels(void **state)
{
	struct timer a, b;

	timer_init(&a, &q, note, "a");
	timer_init(&b, &q, note, "b");
	timer_cancel(&a); /* never armed */
	timer_set(&a, 10);
	timer_set(&b, 20);
	timer_cancel(&a);
	assert_int_equal(q.next, 20);
	timer_cancel(&a);
	timer_set(&b, TIMER_NEVER);
	assert_true(q.next == TIMER_NEVER);
	assert_true(timers_run(&q, 100) == TIMER_NEVER);
	assert_int_equal(ran, 0);
}

static struct timer self, other;

static void rearm(void *arg)
{
	note(arg);
	if (ran < 3)
		timer_set(&self, self.q->next == 50 ? 60 : 50);
	timer_cancel(&self); /* on the own pCPU, within the callback: does not wait for itself */
	if (ran < 3)
		timer_set(&self, 10 * ran);
	timer_cancel(&other);
}

static void callbacks_may_do_anything(void **state)
{
	timer_init(&self, &q, rearm, "s");
	timer_init(&other, &q, note, "o");
	timer_set(&self, 5);
	timer_set(&other, 6);
	assert_true(timers_run(&q, 100) == TIMER_NEVER);
	assert_int_equal(ran, 3);
	assert_memory_equal(order, "sss", 3);
}

static void kicks_the_owner_for_a_new_first(void **state)
{
	struct timer a, b;

	timer_init(&a, &q, note, "a");
	timer_init(&b, &q, note, "b");
	host_set_cpu(3);
	timer_set(&a, 100);
	assert_int_equal(host_kicks, 1);
	assert_int_equal(host_kick_mask, 1);
	timer_set(&b, 200);
	assert_int_equal(host_kicks, 1);
	timer_set(&b, 50);
	assert_int_equal(host_kicks, 2);
	timer_cancel(&b);
	timer_set(&a, TIMER_NEVER);
	assert_int_equal(host_kicks, 2);
}

static bool in_callback, may_end, ended;

static void slow(void *arg)
{
	atomic_store(&in_callback, true);
	while (!atomic_load(&may_end))
		port_relax();
	timer_set(&self, 5); /* even rearming does not survive the cancel */
	atomic_store(&ended, true);
}

static void *run_queue(void *arg)
{
	host_set_cpu(0);
	timers_run(&q, 1);
	return NULL;
}

static void *let_end(void *arg)
{
	for (int i = 0; i < 100; i++)
		port_relax();
	atomic_store(&may_end, true);
	return NULL;
}

static void cancel_waits_for_a_running_callback(void **state)
{
	pthread_t runner, ender;

	timer_init(&self, &q, slow, NULL);
	timer_set(&self, 1);
	pthread_create(&runner, NULL, run_queue, NULL);
	while (!atomic_load(&in_callback))
		port_relax();
	host_set_cpu(1);
	pthread_create(&ender, NULL, let_end, NULL);
	timer_cancel(&self);
	assert_true(ended);
	pthread_join(runner, NULL);
	pthread_join(ender, NULL);
	assert_true(q.next == TIMER_NEVER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(runs_in_order, setup),
		cmocka_unit_test_setup(cancels, setup),
		cmocka_unit_test_setup(callbacks_may_do_anything, setup),
		cmocka_unit_test_setup(kicks_the_owner_for_a_new_first, setup),
		cmocka_unit_test_setup(cancel_waits_for_a_running_callback, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
