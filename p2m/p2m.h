/* SPDX-License-Identifier: MIT */
/*
 * A guest's physical memory: gfn to mfn in superpages that split when they must.
 *
 *   slots         what guest-physical ranges exist, and of what type; few, sorted, fixed while the guest runs
 *   page table    one table in the format of the hardware (NPT, EPT) that also is the P2M: entries carry the type
 *   M2P           struct frame: owner and gfn of every frame, at 4 KB
 *   counts        per slot and possible large frame: how many 4 KB frames inside forbid a large mapping
 *
 * One writer at a time (p2m->lock); any number of lock-free walkers.
 */
#ifndef P2M_P2M_H
#define P2M_P2M_H

#include "lib/lock.h"
#include "mm/pt.h"

enum p2m_type {
	P2M_NONE, /* nothing there */
	P2M_RAM,
	P2M_RO,        /* ROM: reads and fetches; writes are MMIO exits and ignored */
	P2M_MMIO,      /* emulated: no frame, always exits */
	P2M_DIRECT,    /* a real device's memory */
	P2M_DEMAND,    /* RAM to be, populated at first touch */
	P2M_BALLOONED, /* given back by the guest */
	P2M_SHARED,    /* copy on write */
	P2M_BROKEN,    /* hardware error */
	P2M_TYPES,
};

#define P2M_MASK(t) (1u << (t))
#define P2M_OWNED   (P2M_MASK(P2M_RAM) | P2M_MASK(P2M_RO))                    /* the frame is the guest's own */
#define P2M_BACKED  (P2M_OWNED | P2M_MASK(P2M_DIRECT) | P2M_MASK(P2M_SHARED)) /* have an mfn */

struct p2m_entry {
	mfn_t mfn; /* of this gfn, MFN_NONE if it has none */
	u8 order;  /* of the entry that covers it */
	u8 type;   /* enum p2m_type */
};

enum { P2M_READ = 1, P2M_WRITE = 2, P2M_EXEC = 4 }; /* access bits */
enum p2m_verdict { P2M_RETRY, P2M_TO_MMIO, P2M_DENY, P2M_NOMEM };

struct p2m_slot {
	gfn_t first;
	u64 frames;
	u8 type; /* P2M_RAM or P2M_RO */
	/*
	 * For each 2 MB and 1 GB frame that overlaps the slot: how many of its 4 KB frames forbid one mapping for all
	 * of it, because they lie outside the slot or are overlaid (mapped, or known to be absent, as another type than
	 * the slot's). Under the lock; read without it only as a hint.
	 */
	u32 *forbid_2m, *forbid_1g;
};

#define P2M_SLOTS 16

struct p2m {
	struct lock lock;
	struct pt pt;
	u16 owner;    /* OWNER_GUEST + n */
	u8 max_order; /* cap from config and CPU */
	u8 width;     /* guest-physical address bits */
	u64 pcpus;    /* pCPUs that a flush asks: who ran a vCPU or walked the table. Atomic; bits are only ever set */
	unsigned nslots;
	struct p2m_slot slot[P2M_SLOTS]; /* sorted */
	/* Statistics beside those of pt. */
	u64 splits[P2M_TYPES]; /* by the type that was set */
	u64 faults[4];         /* by verdict; atomic */
};

/* fmt: &pt_format_long or &pt_format_ept. max_order: 0, 9 or 18. Returns 0 or -ENOMEM. */
int p2m_init(struct p2m *p, const struct pt_format *fmt, u16 owner, unsigned max_order, unsigned width);
/* Frees all tables and all frames that the guest owns. No vCPU may run. */
void p2m_free(struct p2m *p);

/* Adds guest RAM or ROM [first, first + frames). -EINVAL (range, width), -EEXIST (overlap), -ENOSPC, -ENOMEM. */
int p2m_add_slot(struct p2m *p, gfn_t first, u64 frames, enum p2m_type type);
/* Allocates zeroed frames for the whole slot that contains first, largest orders first: 1 GB, 2 MB, 4 KB as alignment,
 * cap, counts and free lists allow. -ENOMEM leaves what was populated; p2m_free or a repeat is fine. */
int p2m_populate(struct p2m *p, gfn_t first);
/* Marks the slot P2M_DEMAND instead: frames come at first touch. */
int p2m_populate_on_demand(struct p2m *p, gfn_t first);

/*
 * Sets [gfn, gfn + 2^order) to mfn (MFN_NONE for types without one). Splits what is larger, replaces what is smaller;
 * frames of the guest's own that lose their mapping are NOT freed (the caller has them), except by p2m_remove. All or
 * nothing: on an error P2M, M2P, counts and statistics are as before. -EINVAL: alignment, width, order, type, mfn
 * beyond memory; -EPERM: the frame is another owner's; -EEXIST: the frame is mapped at another gfn; -ENOMEM.
 */
int p2m_set(struct p2m *p, gfn_t gfn, mfn_t mfn, unsigned order, enum p2m_type type);
/* Removes a range and frees the guest's own frames in it, after the flush. */
int p2m_remove(struct p2m *p, gfn_t gfn, unsigned order);
/* Without a lock. */
struct p2m_entry p2m_get(const struct p2m *p, gfn_t gfn);

/*
 * A nested page fault at gpa. P2M_RETRY: populated or already allowed, run again. P2M_TO_MMIO: emulate it on the bus.
 * P2M_DENY: the guest may not do this (a fetch from MMIO or from nothing). P2M_NOMEM: no frame left.
 */
enum p2m_verdict p2m_fault(struct p2m *p, gpa_t gpa, unsigned access);

/*
 * The checked accessors to guest memory: copy between a buffer and guest-physical memory, populating on demand. Return
 * 0 or -EFAULT if any byte has no RAM there (for writes: no writable RAM); nothing is copied then. May span pages.
 */
int p2m_read(struct p2m *p, gpa_t gpa, void *buf, size_t len);
int p2m_write(struct p2m *p, gpa_t gpa, const void *buf, size_t len);
/* Writes to RO memory too: for loaders of ROM. */
int p2m_write_rom(struct p2m *p, gpa_t gpa, const void *buf, size_t len);
/* Atomic compare-exchange of 1, 2, 4, 8 or 16 aligned bytes: 0 with *old = what was there and *done, or
 * -EFAULT/-EINVAL. */
int p2m_cmpxchg(struct p2m *p, gpa_t gpa, void *old, const void *new, unsigned size, bool *done);

/* Checks everything against everything; logs each error in words, returns their number. Takes the lock. */
u64 p2m_audit(struct p2m *p);

#endif
