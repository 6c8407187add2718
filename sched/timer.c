/* SPDX-License-Identifier: MIT */
#include "sched/timer.h"

#include "lib/bits.h"
#include "lib/port.h"
#include "sched/kick.h"

static struct timer *first(struct timerq *q) { return list_first(&q->head, struct timer, link); }

static void update_next(struct timerq *q)
{
	atomic_store(&q->next, list_empty(&q->head) ? TIMER_NEVER : first(q)->when);
}

/* With q->lock held. */
static void unlink(struct timerq *q, struct timer *t)
{
	list_remove(&t->link);
	t->when = TIMER_NEVER;
	update_next(q);
}

void timerq_init(struct timerq *q, unsigned cpu)
{
	*q = (struct timerq){.lock = LOCK_INIT(LOCK_TIMERS), .cpu = cpu, .next = TIMER_NEVER};
	list_init(&q->head);
}

void timer_init(struct timer *t, struct timerq *q, void (*fn)(void *), void *arg)
{
	*t = (struct timer){.q = q, .when = TIMER_NEVER, .fn = fn, .arg = arg};
	list_init(&t->link);
}

void timer_set(struct timer *t, u64 when)
{
	struct timerq *q = t->q;
	struct timer *pos;
	bool is_first;

	lock_take(&q->lock);
	list_remove(&t->link);
	t->when = when;
	list_for_each (pos, &q->head, link)
		if (pos->when > when)
			break;
	if (when != TIMER_NEVER)
		list_insert(&pos->link, &t->link);
	update_next(q);
	is_first = q->head.next == &t->link;
	lock_drop(&q->lock);
	if (is_first && q->cpu != port_cpu())
		port_kick(q->cpu);
}

void timer_cancel(struct timer *t)
{
	struct timerq *q = t->q;
	bool busy;

	do { /* again, for the callback may have rearmed it */
		lock_take(&q->lock);
		unlink(q, t);
		busy = q->running == t && q->cpu != port_cpu();
		lock_drop(&q->lock);
		port_relax();
	} while (busy);
}

u64 timers_run(struct timerq *q, u64 now)
{
	u64 next = atomic_load(&q->next);

	if (next > now)
		return next;
	lock_take(&q->lock);
	while (!list_empty(&q->head) && first(q)->when <= now) {
		struct timer *t = first(q);

		unlink(q, t);
		q->running = t;
		lock_drop(&q->lock);
		t->fn(t->arg);
		lock_take(&q->lock);
		q->running = NULL; /* t may be gone by now */
	}
	next = q->next;
	lock_drop(&q->lock);
	return next;
}
