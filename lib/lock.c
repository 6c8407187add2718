/* SPDX-License-Identifier: MIT */
#include "lib/lock.h"

#include "lib/assert.h"
#include "lib/bits.h"

#ifdef NDEBUG
static inline void check_take(const struct lock *l) { (void)l; }
static inline void note_take(const struct lock *l) { (void)l; }
static inline void note_drop(const struct lock *l) { (void)l; }
#else
/*
 * Ranks that this pCPU holds, one bit each. A new lock must outrank them all, so the set is also the order of taking.
 * Only the pCPU itself writes its word; an interrupt handler that takes locks leaves it as it found it.
 */
static u64 held_ranks[64];

static void check_take(const struct lock *l)
{
	u64 held = held_ranks[port_cpu()];

	if (held >> l->rank)
		panic("lock of rank %u taken while ranks %#lx are held", l->rank, held);
}

static void note_take(const struct lock *l) { held_ranks[port_cpu()] |= BIT(l->rank); }

static void note_drop(const struct lock *l)
{
	if (!lock_held(l))
		panic("lock of rank %u dropped by pCPU %u, held by %d", l->rank, port_cpu(), l->holder - 1);
	held_ranks[port_cpu()] &= ~BIT(l->rank);
}
#endif

void lock_take(struct lock *l)
{
	check_take(l);

	u32 ticket = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED);

	while (atomic_load(&l->owner) != ticket)
		port_relax();
	atomic_store_relaxed(&l->holder, (u16)(port_cpu() + 1));
	note_take(l);
}

void lock_drop(struct lock *l)
{
	note_drop(l);
	atomic_store_relaxed(&l->holder, 0);
	atomic_store(&l->owner, l->owner + 1);
}

u64 lock_take_irq(struct lock *l)
{
	u64 irq = port_irq_save();

	lock_take(l);
	return irq;
}

void lock_drop_irq(struct lock *l, u64 irq)
{
	lock_drop(l);
	port_irq_restore(irq);
}

bool lock_held(const struct lock *l) { return atomic_load_relaxed(&l->holder) == port_cpu() + 1; }
