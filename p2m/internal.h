/* SPDX-License-Identifier: MIT */
/* What the files of p2m/ share. */
#pragma once

#include "lib/port.h"
#include "mm/frames.h"
#include "p2m/p2m.h"

/*
 * A walk without the lock, and use of the frame that it finds, lie between these. Interrupts are off and the pCPU is
 * among those that a flush asks, so nothing that the walk can meet is freed before its end. The mask is set before the
 * table is read, and the writer reads it after it has changed the table: either the writer sees the bit, or the walker
 * sees the change. Where the guest's vCPU runs the bit is set already.
 */
struct p2m_walk {
	u64 irq;
	bool entered; /* the bit is this walk's */
};

static inline struct p2m_walk p2m_walk_begin(const struct p2m *p)
{
	struct p2m_walk w = {.irq = port_irq_save()};

	w.entered = !(atomic_load(&p->pcpus) & BIT(port_cpu()));
	if (w.entered)
		p2m_enter((struct p2m *)p);
	return w;
}

static inline void p2m_walk_end(const struct p2m *p, struct p2m_walk w)
{
	if (w.entered)
		p2m_leave((struct p2m *)p);
	port_irq_restore(w.irq);
}

static inline struct p2m_cache *p2m_cache_of(const struct p2m *p, gfn_t gfn)
{
	return (struct p2m_cache *)&p->cache[port_cpu()][gfn.n % P2M_CACHED];
}

#define P2M_FLAGS (PT_W | PT_A | PT_D)

/* The page of gfn in this pCPU's cache, looked up if need be. Inside a walk. */
struct p2m_cache *p2m_look_up(const struct p2m *p, gfn_t gfn);
/* The lookup itself: inside a walk, or with the lock. */
struct p2m_entry p2m_entry_at(const struct p2m *p, gfn_t gfn);
/* Frames from gfn to the end of the entry e that covers it. */
static inline u64 p2m_rest(struct p2m_entry e, gfn_t gfn) { return BIT(e.order) - (gfn.n & (BIT(e.order) - 1)); }

/* The first slot that overlaps [gfn, gfn + n), or NULL. Slots do not change while the guest runs. */
const struct p2m_slot *p2m_slot_at(const struct p2m *p, gfn_t gfn, u64 n);
/* The count for the large frame of this order (9 or 18) that contains gfn, in a slot that it overlaps. */
static inline u32 *p2m_forbid(const struct p2m_slot *s, gfn_t gfn, unsigned order)
{
	return &(order == ORDER_2M ? s->forbid_2m : s->forbid_1g)[(gfn.n >> order) - (s->first.n >> order)];
}
/* How many frames of the large frame at gfn (aligned) are not in the slot. */
u32 p2m_outside(const struct p2m_slot *s, gfn_t gfn, unsigned order);
/* Whether a page of this type is an overlay in the slot. Absent and not yet populated pages are not. */
static inline bool p2m_overlays(const struct p2m_slot *s, unsigned type)
{
	return type != s->type && type != P2M_NONE && type != P2M_DEMAND;
}
/* Whether one mapping of this order may be at gfn, as far as the slots go. Needs the lock, or is a hint. */
bool p2m_may_large(const struct p2m *p, gfn_t gfn, unsigned order);

/* Whose frames a page of this type may have. */
static inline u16 p2m_frame_owner(const struct p2m *p, unsigned type)
{
	return P2M_MASK(type) & P2M_OWNED ? p->owner : type == P2M_SHARED ? OWNER_HOST : OWNER_NONE;
}
/* The page-table entry that a page of this type has. */
struct pt_entry p2m_leaf(enum p2m_type type, mfn_t mfn);

/* FREE: the guest's own frames that lose their mapping are freed by the debt's settlement. FROZEN: RAM lacks W. */
enum { P2M_FREE = 1, P2M_FROZEN = 2 };
/* p2m_set for a range of any length, inside the width. Needs the lock. */
int p2m_change(struct p2m *p, gfn_t gfn, u64 n, mfn_t mfn, enum p2m_type type, unsigned how, struct pt_debt *debt);
/* Makes [gfn, gfn + n), inside the width, a type without frames, and frees the guest's own that are there; if all of it
 * has one of these types, or else -EAGAIN, *other: a type that is not one of them. Takes the lock. debt: added to;
 * NULL: settled. */
int p2m_change_if(struct p2m *p, gfn_t gfn, u64 n, u32 types, u8 *other, enum p2m_type type, struct pt_debt *debt);

/* Populates the largest block around gfn, of at most *max; *max falls to what memory still has. 0 if there is nothing
 * to populate (any more), or -ENOMEM. */
int p2m_populate_at(struct p2m *p, gfn_t gfn, unsigned *max);
/* The same for a first touch, which someone waits for. */
int p2m_touch(struct p2m *p, gfn_t gfn);
/* RAM at gfn is about to be written: makes it writable and dirty, whatever kept it from that. 0 or -ENOMEM. */
int p2m_make_writable(struct p2m *p, gfn_t gfn);
/* Makes the page at gfn one of 4 KB, and counts why. Needs the lock. 0 or -ENOMEM. */
int p2m_split(struct p2m *p, gfn_t gfn, enum p2m_reason why, struct pt_debt *debt);
/* Code is fetched at gfn from a page that lacks X: gives it X, in 4 KB pages that stay so. 0 or -ENOMEM. */
int p2m_make_executable(struct p2m *p, gfn_t gfn);
/* Calls off a collapse that overlaps [gfn, gfn + n): its pages are writable again. Needs the lock. */
void p2m_call_off(struct p2m *p, gfn_t gfn, u64 n);
