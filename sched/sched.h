/* SPDX-License-Identifier: MIT */
/*
 * Which vCPU a pCPU runs next. Pure: it knows entities, weights and time, not guests.
 *
 *     BLOCKED --sched_wake--> READY --sched_pick--> RUNNING --sched_put--> READY or BLOCKED
 *
 * Each entity has a virtual time that advances while it runs, slower with more weight. The one furthest behind runs
 * next, for a slice of real time. The run loop may put and pick as often as it likes: within its slice an entity is
 * picked again, unless a wake-up has preempted it.
 */
#pragma once

#include "lib/list.h"
#include "lib/lock.h"

#define SCHED_SLICE_NS   10000000ul /* 10 ms */
#define SCHED_WEIGHT     256        /* the default; what vtime is measured at */
#define SCHED_WEIGHT_MAX 65536

enum sched_state { SCHED_BLOCKED, SCHED_READY, SCHED_RUNNING };

/* All under lock, but cpu, which never changes. */
struct runq {
	struct lock lock;
	struct list ready; /* by vtime, smallest first */
	struct sched_ent *current;
	struct sched_ent *last; /* ran last and is READY again: goes on until slice_end */
	u64 slice_end;          /* 0 when preempted */
	u64 min_vtime;          /* the smallest of the READY ones; never goes back */
	bool resched;           /* current should be put, and pick be asked again; readable without the lock */
	unsigned cpu;
};

struct sched_ent {
	struct list link;
	struct runq *rq;   /* the pCPU it belongs to; what follows is under rq->lock */
	u8 state;          /* enum sched_state */
	bool wake_pending; /* woken while running: it must not block */
	u32 weight;        /* 1..SCHED_WEIGHT_MAX */
	u64 vtime;         /* weighted run time, ns at weight 256; compared modulo 2^64 */
	u64 started;       /* when it was picked */
	u64 runtime;       /* ns it ran, in all */
};

void runq_init(struct runq *rq, unsigned cpu);
/* Starts BLOCKED. weight is cut to its limits. */
void sched_ent_init(struct sched_ent *e, struct runq *rq, u32 weight);
/*
 * Makes a blocked entity ready, keeps a running one from blocking, and kicks its pCPU if that is another one and must
 * look again. Any pCPU, but not from an interrupt handler. Says only "look": by the time the entity looks, what it was
 * woken for may be done.
 */
void sched_wake(struct sched_ent *e);
/*
 * The entity to run now, or NULL. Only on rq's own pCPU, with none running there. Also tells until when it may run
 * (TIMER_NEVER if alone).
 */
struct sched_ent *sched_pick(struct runq *rq, u64 now, u64 *until);
/* Ends the run of the current entity: blocks it unless a wake came in between, or requeues it. */
void sched_put(struct sched_ent *e, u64 now, bool block);
/* Takes an entity out for good. It must not be running. */
void sched_remove(struct sched_ent *e);
/* Whether the running entity should be put before its time. Cheap enough to ask before each entry into a guest. */
bool sched_resched(const struct runq *rq);
bool runq_empty(const struct runq *rq);
