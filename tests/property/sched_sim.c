/* SPDX-License-Identifier: MIT */
/*
 * A simulated pCPU drives the run queue as the run loop would: hogs that always want to run, sleepers that run a little
 * and block, and wake-ups at any moment, also between an entity's last look for work and its block. Checked: time is
 * shared by weight within a bound, sleepers run soon, and no wake-up is lost.
 */
#include "sched/sched.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "sched/timer.h"
#include "tests/host/host.h"

#define MS      1000000ul
#define SEC     1000000000ul
#define ENTS    12
#define QUANTUM (1 * MS) /* the longest that the simulation runs without looking at kicks */

struct task {
	struct sched_ent ent;
	bool hog;
	u64 work;     /* ns that it still wants to run; hogs never end */
	u64 woken_at; /* when it went from nothing to do to something */
	u64 worst;    /* longest wait from there until it ran */
};

static struct runq rq;
static struct task tasks[ENTS];
static unsigned count;
static u64 now, seed;

static u64 rnd(u64 below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

static void move_to(u64 t)
{
	now = t;
	host_set_now(t);
}

static void give_work(struct task *t, u64 ns)
{
	if (!t->work)
		t->woken_at = now;
	t->work += ns;
	host_set_cpu((unsigned)rnd(2)); /* from here or from another pCPU */
	sched_wake(&t->ent);
	host_set_cpu(0);
}

static void wake_somebody(u64 most)
{
	struct task *t = &tasks[rnd(count)];

	if (!t->hog && rnd(4) == 0)
		give_work(t, 1 + rnd(most));
}

static void check_states(void)
{
	for (unsigned i = 0; i < count; i++)
		assert_false(tasks[i].work && tasks[i].ent.state == SCHED_BLOCKED);
}

/* One turn of the run loop. most: the longest work a sleeper gets. */
static void turn(u64 most)
{
	u64 until, ran;
	struct sched_ent *e = sched_pick(&rq, now, &until);
	struct task *t = e ? container_of(e, struct task, ent) : NULL;

	if (!t) {
		assert_true(runq_empty(&rq));
		move_to(now + 1 + rnd(QUANTUM));
		wake_somebody(most);
		return;
	}
	assert_true(until > now);
	if (t->woken_at) {
		t->worst = MAX(t->worst, now - t->woken_at);
		t->woken_at = 0;
	}
	ran = MIN(MIN(1 + rnd(QUANTUM), until - now), t->hog ? QUANTUM : MAX(t->work, 1ul));
	move_to(now + ran);
	if (!t->hog)
		t->work -= MIN(ran, t->work);
	bool block = !t->hog && !t->work; /* it looks here ... */

	wake_somebody(most);
	if (rnd(8) == 0 && !t->hog)
		give_work(t, 1 + rnd(most)); /* ... and this comes after it has looked */
	sched_put(e, now, block);
	check_states();
}

static void start(unsigned n, unsigned hogs)
{
	count = n;
	move_to(rnd(SEC));
	host_set_cpu(0);
	runq_init(&rq, 0);
	for (unsigned i = 0; i < n; i++) {
		tasks[i] = (struct task){.hog = i < hogs};
		sched_ent_init(&tasks[i].ent, &rq, 1u << rnd(13));
		if (tasks[i].hog)
			sched_wake(&tasks[i].ent);
	}
}

/* What one slice, and the quantum by which it may be overrun, is in weighted time for the lightest of the hogs. */
static u64 bound(unsigned hogs)
{
	u32 lightest = SCHED_WEIGHT_MAX;

	for (unsigned i = 0; i < hogs; i++)
		lightest = MIN(lightest, tasks[i].ent.weight);
	return (SCHED_SLICE_NS + QUANTUM) * SCHED_WEIGHT / lightest + SEC / 1000;
}

static void check_shares(unsigned hogs)
{
	u64 least = ~0ul, most = 0;

	for (unsigned i = 0; i < hogs; i++) {
		u64 share = tasks[i].ent.runtime * SCHED_WEIGHT / tasks[i].ent.weight;

		least = MIN(least, share);
		most = MAX(most, share);
	}
	assert_true(most - least <= bound(hogs));
}

static void hogs_share_by_weight(void **state)
{
	for (unsigned run = 0; run < 20; run++) {
		unsigned hogs = 2 + (unsigned)rnd(ENTS - 1);
		u64 begin, total = 0;

		start(hogs, hogs);
		begin = now;
		while (now - begin < 20 * SEC) {
			turn(1);
			check_shares(hogs);
		}
		for (unsigned i = 0; i < hogs; i++)
			total += tasks[i].ent.runtime;
		assert_int_equal(total, now - begin); /* work-conserving */
	}
}

static void shares_hold_beside_sleepers(void **state)
{
	for (unsigned run = 0; run < 20; run++) {
		unsigned hogs = 2 + (unsigned)rnd(4);
		u64 begin;

		start(ENTS, hogs);
		begin = now;
		while (now - begin < 10 * SEC) {
			turn(5 * MS);
			check_shares(hogs);
		}
	}
}

/* Sleepers of default weight that want little are served within moments, however many hogs there are. */
static void sleepers_run_soon(void **state)
{
	start(ENTS, 8);
	for (unsigned i = 0; i < ENTS; i++)
		tasks[i].ent.weight = SCHED_WEIGHT;
	for (u64 begin = now; now - begin < 60 * SEC;) {
		turn(MS / 20);
		for (unsigned i = 0; now - begin < SEC && i < ENTS; i++)
			tasks[i].worst = 0; /* all begin equal: in the first rounds a sleeper has not slept yet */
	}
	for (unsigned i = 8; i < ENTS; i++)
		assert_true(tasks[i].worst <= (ENTS - 8 + 1) * QUANTUM);
}

static void no_wake_up_is_lost(void **state)
{
	for (unsigned run = 0; run < 50; run++) {
		start(1 + (unsigned)rnd(ENTS), 0);
		for (unsigned i = 0; i < 3000; i++)
			turn(1 + rnd(3 * MS));
	}
}

/* No number of sleeps and wake-ups gets one more than its share. */
static void sleeping_does_not_cheat(void **state)
{
	u64 begin;

	start(2, 2);
	tasks[0].ent.weight = tasks[1].ent.weight = SCHED_WEIGHT;
	begin = now;
	while (now - begin < 20 * SEC) {
		u64 until;
		struct sched_ent *e = sched_pick(&rq, now, &until);
		bool cheat = e == &tasks[0].ent;

		move_to(now + MIN(until - now, cheat ? SCHED_SLICE_NS - MS : QUANTUM));
		sched_put(e, now, cheat); /* just before its slice ends it sleeps for a moment */
		if (cheat) {
			move_to(now + 1000);
			sched_wake(e);
		}
	}
	assert_true(tasks[0].ent.runtime <= (now - begin) / 2 + 2 * SCHED_SLICE_NS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hogs_share_by_weight),    cmocka_unit_test(shares_hold_beside_sleepers),
		cmocka_unit_test(sleepers_run_soon),       cmocka_unit_test(no_wake_up_is_lost),
		cmocka_unit_test(sleeping_does_not_cheat),
	};

	seed = 88172645463325252ul;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
