/* SPDX-License-Identifier: MIT */
/*
 * The page-table engine: the one walker of tables that Cleave owns, for the hypervisor's own map, NPT and EPT alike.
 *
 * Who excludes whom: the owner of a table changes it under its own lock, one writer at a time. The CPUs' walkers and
 * pt_lookup run at any time without a lock. That works by four rules:
 *
 *   1. An entry changes by one atomic store; a table is filled completely and then published by one such store. So a
 *      walker sees each page old or new, and never a hole.
 *   2. Changes are compare-and-swaps, so an accessed or dirty bit that a CPU sets meanwhile is never lost.
 *   3. What an operation takes out of use (tables, and frames that the owner adds) goes to the debt, contents intact.
 *      pt_settle flushes first and frees then. A software walker has interrupts off and its pCPU among those that the
 *      flush waits for, so it has finished too.
 *   4. Operations first rehearse: they count the tables they need and reserve them. After that they cannot fail, so out
 *      of memory leaves every page as it was.
 */
#pragma once

#include "lib/bits.h"
#include "lib/port.h"

/* None of R, W, X: not present. Long mode cannot do without R. */
enum { PT_R = 0x01, PT_W = 0x02, PT_X = 0x04, PT_A = 0x20, PT_D = 0x40 };
/* Long mode: also for CPL 3, as NPT leaves must be; survives CR3 loads. EPT: the guest's PAT does not count. */
enum { PT_USER = 0x08, PT_GLOBAL = 0x10, PT_IPAT = 0x80 };
#define PT_RWX (PT_R | PT_W | PT_X)

enum pt_cache { PT_WB, PT_WC, PT_UC };

/* One mapping, in no format's terms. */
struct pt_entry {
	hpa_t pa; /* of the 4 KB page asked for; 0 if not present */
	u8 flags; /* PT_R ... */
	u8 cache; /* enum pt_cache */
	u8 type;  /* 0 .. 15, the owner's; kept in present and not-present entries. 0, not present: empty */
	u8 order; /* pt_lookup: of the entry that covers the page. Ignored by pt_map */
};

static inline bool pt_present(struct pt_entry e) { return e.flags & PT_RWX; }

struct pt;

/*
 * A format is data. Common to all: 512 entries, four levels, address in 51:12, leaf bit 7 at level > 1, R and W or what
 * comes to that in bits 0 and 1, what tells the caching in 5:3.
 */
struct pt_format {
	const char *name;
	u64 present;            /* an entry with none of these bits is not present */
	u64 table;              /* an entry that points to a table: an address, and exactly these bits */
	u64 accessed, dirty;    /* in leaves; set by the CPU at any time */
	u64 exec, exec_off;     /* the bit that tells X, and its value if there is none */
	u64 user, global, ipat; /* these flags' bits, or 0 */
	u8 ad_shift;            /* from PT_A and PT_D to accessed and dirty */
	u8 cache[8];            /* enum pt_cache, by bits 5:3 */
	u8 cache_bits[3];       /* the inverse */
};
extern const struct pt_format pt_format_long; /* x86 long mode: host tables, NPT */
extern const struct pt_format pt_format_ept;

/* What an operation leaves to do: a flush, then frames to free. Starts as PT_DEBT_NONE. */
struct pt_debt {
	bool flush;
	u64 first, last; /* virtual addresses, inclusive, that the flush must cover; valid if flush */
	u64 frames;      /* list of frames to free, linked through frame->gfn; PT_DEBT_END: none */
};
/* The gfn of a frame on such a list has bit 63 set, so that it looks like no mapping that anybody asked for. */
#define PT_LISTED    BIT(63)
#define PT_DEBT_END  (PT_LISTED | BIT(62))
#define PT_DEBT_NONE ((struct pt_debt){.frames = PT_DEBT_END})

/* What the owner brings. Any may be NULL except flush. */
struct pt_ops {
	/* Makes every CPU that could forget translations in the debt's range, and tables; returns once all have. */
	void (*flush)(struct pt *pt, const struct pt_debt *debt);
	/* Whether one present leaf of this order (9 or 18) may be at va. */
	bool (*may_large)(const struct pt *pt, u64 va, unsigned order);
	/* Called after each store into a published table: tests look at the table there as another CPU would. */
	void (*watch)(struct pt *pt);
};

struct pt {
	const struct pt_format *fmt;
	const struct pt_ops *ops;
	mfn_t root;
	u64 spare;     /* reserved table frames, linked as a debt is */
	u64 tables;    /* in use, the root included */
	u64 leaves[3]; /* present leaves of 4 KB, 2 MB, 1 GB */
	u64 splits;    /* present leaves split, ever */
	u64 merges;    /* tables replaced by one present leaf, ever */
	u16 owner;     /* of table frames */
	u8 max_order;
	bool nx;    /* long mode: the CPU has NX. Without it everything is executable */
	bool ad;    /* CPUs set accessed and dirty bits. Without it the bits are the owner's */
	bool merge; /* whether tables whose entries agree are replaced by one entry */
	/*
	 * X is for 4 KB leaves only: some of Intel's processors stop the machine where code is fetched from a page
	 * whose size has just changed (CVE-2018-12207). Splitting such a large leaf gives none its X back; that is the
	 * owner's.
	 */
	bool exec_small;
};

/* max_order: 0, 9 or 18. Returns 0 or -ENOMEM. */
int pt_init(struct pt *pt, const struct pt_format *fmt, const struct pt_ops *ops, u16 owner, unsigned max_order);

/*
 * The operations. va, len: multiples of 4 KB. Need the owner's lock. 0, or -ENOMEM with nothing changed.
 *
 * pt_map: [va, va + len) to e.pa onwards, with the largest leaves that alignment, cap and may_large allow; splits what
 *   is larger, replaces what is smaller. If e is not present its type fills the range, 0 unmaps it. An entry that
 * denies something owes a flush even where nothing changes: who took the permission away may not have flushed yet.
 * pt_split: makes va's entry one of at most this order.
 */
int pt_map(struct pt *pt, u64 va, u64 len, struct pt_entry e, struct pt_debt *debt) MUST_CHECK;
int pt_split(struct pt *pt, u64 va, unsigned order, struct pt_debt *debt) MUST_CHECK;
/*
 * Sets and clears R, W, X, A, D of the present leaf that covers va. Returns it as it was before. Clearing owes a flush;
 * A alone does not: a CPU that remembers the page sets it again when it has forgotten it. Needs the owner's lock.
 */
struct pt_entry pt_flags(struct pt *pt, u64 va, unsigned set, unsigned clear, struct pt_debt *debt);
/* Replaces each table on the way to va whose 512 entries agree by one entry, and frees empty ones. */
void pt_merge(struct pt *pt, u64 va, struct pt_debt *debt);

/* Adds [mfn, mfn + 2^order), of the table's owner, to what is freed after the flush. Its M2P entries are lost. */
void pt_debt_frames(struct pt_debt *debt, mfn_t mfn, unsigned order);
/* Flushes if anything is owed, then frees. Best without the owner's lock. */
void pt_settle(struct pt *pt, struct pt_debt *debt);

/* For audits: the tag that a table's frame carries in its gfn, and where a level's entries cut the address. */
u64 pt_tag(u64 va, unsigned level);
static inline unsigned pt_order(unsigned level) { return 9 * (level - 1); }
static inline u64 pt_span(unsigned level) { return PAGE_SIZE << pt_order(level); }
static inline unsigned pt_index(u64 va, unsigned level) { return (va >> (PAGE_SHIFT + pt_order(level))) & 511; }

#define PT_LEVELS 4u
#define PT_LARGE  BIT(7)
#define PT_ADDR   BITS(51, 12)
/*
 * The software type, in bits that both formats ignore in every kind of entry. In a present entry it says what the page
 * is to its owner; the permissions follow from it, never the other way round. In a not-present entry it is all there
 * is: an entry is empty if and only if it is zero. (An entry that is to fault by a reserved bit is a leaf to the
 * engine.)
 */
#define PT_TYPE_SHIFT 52
#define PT_TYPE       BITS(55, 52)

static inline bool pt_is_table(const struct pt_format *fmt, u64 raw, unsigned level)
{
	return level > 1 && !((raw ^ fmt->table) & ~PT_ADDR);
}

/* Where the entry is that covers va, its level, and what it says: loaded once, for the next load may find a table. */
FORCE_INLINE u64 *pt_find(const struct pt *pt, u64 va, unsigned *level, u64 *raw)
{
	u64 table = mfn_to_hpa(pt->root), bits = pt->fmt->table, *slot = NULL;

#pragma GCC unroll 4
	for (unsigned l = PT_LEVELS; l; l--) {
		slot = (u64 *)port_virt(table) + pt_index(va, l);
		*raw = atomic_load(slot);
		*level = l;
		table = *raw ^ bits;
		if (table & ~PT_ADDR)
			break;
	}
	return slot;
}

u64 pt_encode(const struct pt *pt, struct pt_entry e, unsigned level);
/* What an entry says of va. */
FORCE_INLINE struct pt_entry pt_decode(const struct pt_format *fmt, u64 raw, unsigned level, u64 va)
{
	struct pt_entry e = {.type = (raw & PT_TYPE) >> PT_TYPE_SHIFT, .order = pt_order(level)};

	if (!(raw & fmt->present))
		return e;
	e.pa = (raw & PT_ADDR) | (va & (pt_span(level) - PAGE_SIZE));
	e.cache = fmt->cache[raw >> 3 & 7];
	e.flags = (raw & (PT_R | PT_W)) | ((raw >> fmt->ad_shift) & (PT_A | PT_D)) |
		  ((raw & fmt->exec) != fmt->exec_off ? PT_X : 0) | (raw & fmt->user ? PT_USER : 0) |
		  (raw & fmt->global ? PT_GLOBAL : 0) | (raw & fmt->ipat ? PT_IPAT : 0);
	return e;
}

/* What va is mapped to. Lock-free; see rule 3. */
FORCE_INLINE struct pt_entry pt_lookup(const struct pt *pt, u64 va)
{
	unsigned level;
	u64 raw;

	(void)pt_find(pt, va, &level, &raw);
	return level == 1 ? pt_decode(pt->fmt, raw, 1, va) : pt_decode(pt->fmt, raw, level, va); /* 1 folds away */
}
