/* SPDX-License-Identifier: MIT */
/*
 * A guest's physical memory: gfn to mfn in superpages that split when they must.
 *
 *   slots         what guest-physical ranges exist, and of what type; few, sorted, fixed while the guest runs
 *   page table    one table in the format of the hardware (NPT, EPT) that also is the P2M: entries carry the type
 *   M2P           struct frame: owner and gfn of every frame, at 4 KB
 *   counts        per slot and possible large frame: how many 4 KB frames inside forbid a large mapping
 *   work          what the background does: merge in place, collapse by copy, sample the working set
 *
 * One writer at a time (p2m->lock); any number of lock-free walkers.
 */
#pragma once

#include "lib/lock.h"
#include "lib/port.h"
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
	P2M_TRACKED,   /* RAM whose next write is to be noticed: read-only until then */
	P2M_APIC,      /* MMIO that the CPU virtualises by itself where it finds this page; no memory to software */
	P2M_TYPES,
};

#define P2M_MASK(t) (1u << (t))
#define P2M_MEMORY  (P2M_MASK(P2M_RAM) | P2M_MASK(P2M_RO) | P2M_MASK(P2M_TRACKED))
#define P2M_OWNED   (P2M_MEMORY | P2M_MASK(P2M_APIC))                         /* the frame is the guest's own */
#define P2M_BACKED  (P2M_OWNED | P2M_MASK(P2M_DIRECT) | P2M_MASK(P2M_SHARED)) /* have an mfn */

struct p2m_entry {
	mfn_t mfn; /* of this gfn, MFN_NONE if it has none */
	u8 order;  /* of the entry that covers it */
	u8 type;   /* enum p2m_type */
	u8 flags;  /* PT_W, PT_A, PT_D: RAM may lack W for a while, see p2m_fault */
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
	 * the slot's). P2M_HAS_CODE beside it: code was fetched there, and large pages are not executable
	 * (pt.exec_small). Under the lock; read without it only as a hint.
	 */
	u32 *forbid_2m, *forbid_1g;
};

#define P2M_HAS_CODE BIT(31)
#define P2M_SLOTS    16

/* Why present large pages were split. */
enum p2m_reason { P2M_OVERLAY, P2M_BALLOON, P2M_PERMISSION, P2M_DIRTY, P2M_TRACK, P2M_CODE, P2M_REASONS };

/*
 * How the dirty log treats large pages. KEEP: as they are; a write dirties all of one. LAZY: the first write to one
 * splits it, so that only 4 KB are dirty. EAGER: all are split when the log starts.
 */
enum p2m_log { P2M_LOG_OFF, P2M_LOG_KEEP, P2M_LOG_LAZY, P2M_LOG_EAGER };

/* What a pCPU looked up lately, as a TLB remembers it. Each is its pCPU's own, not for interrupt handlers. */
#define P2M_CACHED 4
struct p2m_cache {
	u64 gen; /* the p2m's when the lookup began; another one, or 0: void */
	gfn_t gfn;
	struct p2m_entry e; /* has a frame; flags that were set since may be missing */
};

/* A 2 MB page in the making, see work.c. */
struct p2m_collapse {
	gfn_t gfn;
	mfn_t to;     /* the fresh block: the worker's until the switch */
	u64 copied;   /* frames */
	bool active;  /* the worker has not finished with it */
	bool running; /* the 4 KB pages are write-protected and being copied; else switched, or called off. Atomic */
};

/* Background work. Under .busy, but what other comments say. */
struct p2m_work {
	u32 busy;                    /* a pCPU is in p2m_work; atomic */
	bool merge, collapse;        /* whether it is wanted; set before the guest runs */
	bool changed;                /* something may be mergeable since the scan began; atomic */
	u8 haste;                    /* how often in a row a collapse was called off: then it copies more at once */
	bool failed;                 /* something could not be collapsed in this scan, or the last one */
	gfn_t at;                    /* where the scan goes on */
	u64 next;                    /* ns: it goes on at that time */
	gfn_t sample_at;             /* the same for the sample */
	u64 sample_next;             /* ns */
	u64 accessed;                /* frames in this sample so far */
	struct p2m_collapse current; /* under the p2m's lock */
};

struct p2m {
	struct lock lock;
	struct pt pt; /* pt.ad: whether CPUs set accessed and dirty bits; true unless the maker says otherwise */
	u16 owner;    /* OWNER_GUEST + n */
	u8 max_order; /* cap from config and CPU */
	u8 width;     /* guest-physical address bits */
	u8 machine;   /* the machine's: 52, unless the maker says less */
	u64 limit;    /* the same in frames */
	u8 log;       /* enum p2m_log; under the lock */
	u64 pcpus;    /* pCPUs that run a vCPU or walk the table now: whom a flush asks. Atomic */
	/*
	 * Bumped by each flush, before it asks. Whoever remembers translations (a vCPU's TLB tag, a p2m_cache) compares
	 * it with what it was when they were made, while its pCPU is in .pcpus, and forgets them if it differs. Starts
	 * at 1, so 0 is no generation. Atomic.
	 */
	u64 gen;
	unsigned nslots;
	struct p2m_slot slot[P2M_SLOTS]; /* sorted */
	struct p2m_work work;
	u64 freeing; /* where p2m_free_step goes on */
	/* Statistics beside those of pt. */
	u64 splits[P2M_REASONS];
	u64 faults[4]; /* by verdict; atomic */
	u64 collapses, cancelled;
	u64 working_set; /* frames that were accessed between the last two samples; 0: no sample yet */
	struct p2m_cache cache[64][P2M_CACHED];
};

/* fmt: &pt_format_long or &pt_format_ept. max_order: 0, 9 or 18. Returns 0 or -ENOMEM. */
int p2m_init(struct p2m *p, const struct pt_format *fmt, u16 owner, unsigned max_order, unsigned width);
/* Frees all tables and all frames that the guest owns. No vCPU may run, nor p2m_work. */
void p2m_free(struct p2m *p);
/* The same in bounded steps: whether there is more to do. */
bool p2m_free_step(struct p2m *p);

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
/* Without a lock; from this pCPU's cache if no flush has made that void. */
struct p2m_entry p2m_get(const struct p2m *p, gfn_t gfn);
/*
 * Gives the guest's memory at [gfn, gfn + 2^order), which one entry covers, another type of memory: P2M_RAM, P2M_RO or
 * P2M_TRACKED. -EINVAL; -EPERM: it is not the guest's memory, or more than one entry; -ENOMEM.
 */
int p2m_protect(struct p2m *p, gfn_t gfn, unsigned order, enum p2m_type type);

/*
 * Ballooning, at order 0 or 9: the guest gives RAM back, and gets it again, zeroed. All or nothing. -EINVAL: order,
 * alignment, width; -EPERM: not all of it is RAM of the guest; -EEXIST: some of it is given back already; -ENOENT: not
 * all of it was given back; -ENOMEM. A reclaim for which there is no memory, not even to undo it, succeeds: what is
 * missing comes at first touch. debt: what the operation owes is added to it, so that one pt_settle does for many;
 * NULL: it is settled.
 */
int p2m_balloon(struct p2m *p, gfn_t gfn, unsigned order, struct pt_debt *debt);
int p2m_reclaim(struct p2m *p, gfn_t gfn, unsigned order, struct pt_debt *debt);

/*
 * The dirty log. start: no RAM counts as dirty; what comes new is. harvest: sets the bit of each frame in [first, first
 * + frames) that was written since the start or the last harvest, and makes it clean again; 0, or -EINVAL if there is
 * no log. bitmap: frames bits, which the harvest only sets. A page that is larger than the range is reported and stays
 * dirty. Who copies memory harvests first. start: -EEXIST: it runs already; -ENOMEM: no tables for EAGER.
 */
int p2m_log_start(struct p2m *p, enum p2m_log how);
void p2m_log_stop(struct p2m *p);
int p2m_log_harvest(struct p2m *p, gfn_t first, u64 frames, u64 *bitmap);

/*
 * One bounded step of what makes small pages large again and samples the working set: at most a few hundred entries, or
 * 128 KB copied (up to 2 MB if the guest keeps writing there). Any pCPU, any time while the P2M lives; not from
 * interrupts. Returns when it wants to be called again: now or earlier if there is more to do, else ns, or ~0: not
 * before something changes.
 */
u64 p2m_work(struct p2m *p, u64 now);

/* Between these this pCPU may run the guest's vCPUs: flushes of its table ask the pCPU. */
static inline void p2m_enter(struct p2m *p) { atomic_or(&p->pcpus, BIT(port_cpu())); }
static inline void p2m_leave(struct p2m *p) { atomic_and(&p->pcpus, ~BIT(port_cpu())); }

/*
 * A nested page fault at gpa. P2M_RETRY: populated or allowed by now, run again. RAM that is only for the moment not
 * writable (dirty log, tracking, a page being collapsed) becomes so. P2M_TO_MMIO: emulate it on the bus.
 * P2M_DENY: the guest may not do this (a fetch from MMIO or from nothing). P2M_NOMEM: no frame left.
 */
enum p2m_verdict p2m_fault(struct p2m *p, gpa_t gpa, unsigned access);

/*
 * The checked accessors to guest memory: copy between a buffer and guest-physical memory, populating on demand. Return
 * 0 or -EFAULT if any byte has no RAM there (for writes: no writable RAM); nothing is copied then, unless the guest
 * gives a page back meanwhile. May span pages.
 */
int p2m_read(struct p2m *p, gpa_t gpa, void *buf, size_t len);
int p2m_write(struct p2m *p, gpa_t gpa, const void *buf, size_t len);
/* Writes to RO memory too: for loaders of ROM. */
int p2m_write_rom(struct p2m *p, gpa_t gpa, const void *buf, size_t len);
/* Atomic compare-exchange of 1, 2, 4, 8 or 16 aligned bytes: 0 with *old = what was there and *done, or
 * -EFAULT/-EINVAL. */
int p2m_cmpxchg(struct p2m *p, gpa_t gpa, void *old, const void *new, unsigned size, bool *done);

/* Frames that are mapped, be they RAM or not, by pages of this order (0, 9, 18) or larger. */
u64 p2m_frames(const struct p2m *p, unsigned order);
/* Report lines. @p2m: statistics. @map: one letter for each 2 MB from gfn on; returns where the next line begins, or
 * 0. */
void p2m_report(struct p2m *p, const char *name);
gfn_t p2m_report_map(const struct p2m *p, const char *name, gfn_t from);
/* Checks everything against everything; logs each error in words, returns their number. Takes the lock. */
u64 p2m_audit(struct p2m *p);
