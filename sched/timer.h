/* SPDX-License-Identifier: MIT */
/*
 * Timers: one queue a pCPU, ordered by deadline. Callbacks run from timers_run in the run loop of the pCPU that owns
 * the queue, never in interrupt context, with no lock held, and may set or cancel any timer.
 *
 * A callback may still run once after timer_set from another pCPU has moved its deadline. One that shares state with
 * others therefore takes the lock of that state and asks it what is due, rather than trusting that it was called.
 */
#pragma once

#include "lib/list.h"
#include "lib/lock.h"

#define TIMER_NEVER (~0ul)

struct timerq {
	struct lock lock;
	struct list head; /* ascending by when */
	unsigned cpu;     /* the pCPU that runs it */
	u64 next;         /* head's deadline or TIMER_NEVER; readable without the lock */
	struct timer *running;
};

/* All fields under q->lock, but q, fn and arg, which never change. */
struct timer {
	struct list link;
	struct timerq *q;
	u64 when; /* ns, port_now's clock; TIMER_NEVER when not armed */
	void (*fn)(void *arg);
	void *arg;
};

void timerq_init(struct timerq *q, unsigned cpu);
void timer_init(struct timer *t, struct timerq *q, void (*fn)(void *), void *arg);
/*
 * Arms or rearms for the absolute time when; TIMER_NEVER disarms without waiting for a callback that runs already.
 * Kicks the owning pCPU if it is another one and this deadline is now its first.
 */
void timer_set(struct timer *t, u64 when);
/* Disarms; on another pCPU's queue also waits for a running callback to end, so not with a lock that this one takes. */
void timer_cancel(struct timer *t);
/* Runs what is due at now, earliest first; returns the next deadline. Only on the owning pCPU. */
u64 timers_run(struct timerq *q, u64 now);
