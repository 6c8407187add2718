/* SPDX-License-Identifier: MIT */
#include "sched/sched.h"

#include "lib/assert.h"
#include "lib/bits.h"
#include "lib/port.h"
#include "sched/kick.h"
#include "sched/timer.h"

static bool before(u64 a, u64 b) { return (s64)(a - b) < 0; }

/* Rounds up, so that no run is for free. ran stays far below 2^56 ns, which is two years. */
static u64 weighted(const struct sched_ent *e, u64 ran) { return (ran * SCHED_WEIGHT + e->weight - 1) / e->weight; }

static u64 ran_since(const struct sched_ent *e, u64 now) { return now > e->started ? now - e->started : 0; }

static struct sched_ent *first(const struct runq *rq) { return list_first(&rq->ready, struct sched_ent, link); }

static void enqueue(struct runq *rq, struct sched_ent *e)
{
	struct sched_ent *pos;

	list_for_each (pos, &rq->ready, link)
		if (before(e->vtime, pos->vtime))
			break;
	list_insert(&pos->link, &e->link);
	e->state = SCHED_READY;
}

void runq_init(struct runq *rq, unsigned cpu)
{
	*rq = (struct runq){.lock = LOCK_INIT(LOCK_RUNQ), .cpu = cpu};
	list_init(&rq->ready);
}

void sched_ent_init(struct sched_ent *e, struct runq *rq, u32 weight)
{
	*e = (struct sched_ent){.rq = rq, .state = SCHED_BLOCKED};
	e->weight = weight == 0 ? 1 : MIN(weight, (u32)SCHED_WEIGHT_MAX);
	list_init(&e->link);
	lock_take(&rq->lock);
	e->vtime = rq->min_vtime;
	lock_drop(&rq->lock);
}

/*
 * Queues a woken entity: at most one slice behind the others, so that it runs soon, and sleep saves up no more than
 * that. Returns whether the pCPU must look: it idles, runs one without a time limit, or one that is further ahead.
 */
static bool make_ready(struct runq *rq, struct sched_ent *e, u64 now)
{
	struct sched_ent *cur = rq->current;
	bool alone = list_empty(&rq->ready);
	bool preempt;

	if (before(e->vtime, rq->min_vtime - SCHED_SLICE_NS))
		e->vtime = rq->min_vtime - SCHED_SLICE_NS;
	enqueue(rq, e);
	preempt = cur && before(e->vtime, cur->vtime + weighted(cur, ran_since(cur, now)));
	if (preempt)
		rq->slice_end = 0;
	if (preempt || alone)
		atomic_store(&rq->resched, true);
	return preempt || alone;
}

void sched_wake(struct sched_ent *e)
{
	struct runq *rq = e->rq;
	u64 now = port_now();
	bool look = false;

	lock_take(&rq->lock);
	if (e->state == SCHED_BLOCKED)
		look = make_ready(rq, e, now);
	else if (e->state == SCHED_RUNNING)
		look = e->wake_pending = true;
	lock_drop(&rq->lock);
	if (look && rq->cpu != port_cpu())
		port_kick(rq->cpu);
}

struct sched_ent *sched_pick(struct runq *rq, u64 now, u64 *until)
{
	struct sched_ent *e = NULL;

	*until = TIMER_NEVER;
	lock_take(&rq->lock);
	ASSERT(!rq->current);
	atomic_store(&rq->resched, false);
	if (list_empty(&rq->ready))
		goto out;
	if (before(rq->min_vtime, first(rq)->vtime))
		rq->min_vtime = first(rq)->vtime;
	e = now < rq->slice_end ? rq->last : NULL;
	if (!e) {
		e = first(rq);
		rq->slice_end = now + SCHED_SLICE_NS;
	}
	list_remove(&e->link);
	e->state = SCHED_RUNNING;
	e->wake_pending = false; /* it looks for events after this, so an earlier wake is served */
	e->started = now;
	rq->current = e;
	if (!list_empty(&rq->ready))
		*until = rq->slice_end;
out:
	rq->last = NULL;
	lock_drop(&rq->lock);
	return e;
}

void sched_put(struct sched_ent *e, u64 now, bool block)
{
	struct runq *rq = e->rq;
	u64 ran = ran_since(e, now);

	lock_take(&rq->lock);
	ASSERT(rq->current == e && e->state == SCHED_RUNNING);
	rq->current = NULL;
	e->runtime += ran;
	e->vtime += weighted(e, ran);
	if (block && !e->wake_pending) {
		e->state = SCHED_BLOCKED;
	} else {
		enqueue(rq, e);
		rq->last = e;
	}
	lock_drop(&rq->lock);
}

void sched_remove(struct sched_ent *e)
{
	struct runq *rq = e->rq;

	lock_take(&rq->lock);
	ASSERT(e->state != SCHED_RUNNING);
	list_remove(&e->link);
	e->state = SCHED_BLOCKED;
	if (rq->last == e)
		rq->last = NULL;
	lock_drop(&rq->lock);
}

bool sched_resched(const struct runq *rq) { return atomic_load(&rq->resched); }

bool runq_empty(const struct runq *rq) { return atomic_load(&rq->ready.next) == &rq->ready; }
