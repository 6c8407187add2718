/* SPDX-License-Identifier: MIT */
/*
 * Ticket spinlocks. The order in which locks may nest is the order of enum lock_rank, and nowhere else: a pCPU that
 * holds a lock may take only locks of a higher rank. Debug builds check that at each lock_take, and who frees what at
 * each drop.
 */
#pragma once

#include "lib/types.h"

enum lock_rank {
	LOCK_NONE,
	LOCK_P2M,     /* p2m/: one guest's P2M, its slots and counts: one writer */
	LOCK_DEVICES, /* devices/: one guest's device models except local APICs */
	LOCK_TIMERS,  /* sched/timer: one pCPU's timer queue */
	LOCK_RUNQ,    /* sched/: one pCPU's run queue */
	LOCK_HOSTMAP, /* mm/hostmap: the hypervisor's own table */
	LOCK_FRAMES,  /* mm/frames: free lists and frame states */
	LOCK_OUTPUT,  /* guest/: whose line is open on the console */
	LOCK_CONSOLE, /* drivers/console: sinks and ring; the last, so that anyone may log */
	LOCK_RANKS,
};

struct lock {
	u32 next, owner; /* tickets: next to hand out, now served */
	u8 rank;         /* enum lock_rank */
	u16 holder;      /* pCPU + 1 while held, for checks and dumps */
};

#define LOCK_INIT(r) ((struct lock){.rank = (r)})

/* Both disable nothing: a lock that an interrupt handler takes is taken with lock_take_irq everywhere. */
void lock_take(struct lock *l);
void lock_drop(struct lock *l);
/* Returns the interrupt state to hand to lock_drop_irq. */
u64 lock_take_irq(struct lock *l);
void lock_drop_irq(struct lock *l, u64 irq);
bool lock_held(const struct lock *l); /* by this pCPU */
