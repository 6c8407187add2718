/* SPDX-License-Identifier: MIT */
/*
 * Guest tables as the CPU walks them (Intel SDM vol. 3, 4.3 to 4.7; AMD APM vol. 2, 5.2 to 5.6):
 *
 *     levels  5, 4  (long mode)       3 (PAE)              2 (32-bit)
 *     entry   8 bytes, 9-bit index    8 bytes, 9 bits      4 bytes, 10 bits
 *     large   level 3: 1 GB if the CPU has it, level 2: 2 MB, or with CR4.PSE 4 MB and 40 address bits (PSE-36)
 *
 * Accessed and dirty bits are set only when the access is allowed, by compare-and-swap against the very values that
 * were walked; if one has changed, the walk starts again, a bounded number of times.
 */
#include "mm/gwalk.h"

#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/x86.h"

enum { E_P = 0x1, E_W = 0x2, E_U = 0x4, E_A = 0x20, E_D = 0x40, E_PS = 0x80 };
#define E_NX   BIT(63)
#define E_ADDR BITS(51, 12)

#define TRIES 16

struct walk {
	const struct gwalk_mode *m;
	const struct gwalk_ops *ops;
	void *ctx;
	unsigned levels, size; /* size: bytes of an entry */
	gpa_t at[6];           /* where the entry of each level was found */
	u64 entry[6];
	unsigned leaf; /* level of the last one */
};

static unsigned levels_of(const struct gwalk_mode *m)
{
	if (m->efer & EFER_LMA)
		return m->cr4 & CR4_LA57 ? 5 : 4;
	return m->cr4 & CR4_PAE ? 3 : 2;
}

/* The address bits below an entry's own at this level. */
static unsigned shift_of(const struct walk *w, unsigned level) { return 12 + (w->levels == 2 ? 10 : 9) * (level - 1); }

/* PAE's top level is four registers in effect: no permissions, no accessed bit. */
static bool is_pdpte(const struct walk *w, unsigned level) { return w->levels == 3 && level == 3; }

static bool is_leaf(const struct walk *w, u64 e, unsigned level)
{
	if (level == 1)
		return true;
	if (!(e & E_PS))
		return false;
	return level == 2 ? w->levels > 2 || (w->m->cr4 & CR4_PSE) : level == 3 && w->levels > 3 && w->m->gb_pages;
}

static u64 reserved_bits(const struct walk *w, u64 e, unsigned level)
{
	unsigned width = w->m->phys_bits;
	bool leaf = is_leaf(w, e, level);

	if (w->levels == 2) {
		/* PSE-36: bits 20:13 are address bits 39:32, as far as the CPU has them. */
		unsigned limit = width < 32 ? 32 : width > 40 ? 40 : width;
		return leaf && level == 2 ? BITS(21, limit - 19) : 0;
	}
	u64 bits = width < 52 ? BITS(51, width) : 0;
	if (is_pdpte(w, level))
		return bits | BITS(63, 52) | BITS(8, 5) | BITS(2, 1);
	if (!(w->m->efer & EFER_NX))
		bits |= E_NX;
	if (w->levels == 3)
		bits |= BITS(62, 52);
	if (leaf && level > 1)
		bits |= BITS(shift_of(w, level) - 1, 13);
	return leaf ? bits : bits | E_PS;
}

static int fault(const struct walk *w, u32 access, u32 why, struct gwalk_result *r)
{
	bool nx = (w->m->cr4 & CR4_PAE) && (w->m->efer & EFER_NX);

	/* Bit 4 exists only where fetches can fault in ways of their own. */
	r->error = why | (access & (PF_WRITE | PF_USER)) | (nx || (w->m->cr4 & CR4_SMEP) ? access & PF_FETCH : 0);
	return -EFAULT;
}

static bool read_entry(struct walk *w, gpa_t table, gva_t va, unsigned level)
{
	u64 index = va >> shift_of(w, level) & (w->levels == 2 ? 1023 : 511);

	w->at[level] = table + index * w->size;
	if (is_pdpte(w, level) && w->m->pdpte_valid) {
		w->entry[level] = w->m->pdpte[index];
		return true;
	}
	return w->ops->read(w->ctx, w->at[level], &w->entry[level], w->size);
}

/* Reads the entries from the root to the leaf. */
static int descend(struct walk *w, gva_t va, u32 access, struct gwalk_result *r)
{
	gpa_t table = w->m->cr3 & (w->levels == 2 ? BITS(31, 12) : w->levels == 3 ? BITS(31, 5) : E_ADDR);

	for (unsigned level = w->levels;; level--) {
		if (!read_entry(w, table, va, level))
			return -EIO;
		u64 e = w->entry[level];
		if (!(e & E_P))
			return fault(w, access, 0, r);
		if (e & reserved_bits(w, e, level))
			return fault(w, access, PF_PRESENT | PF_RSVD, r);
		if (is_leaf(w, e, level)) {
			w->leaf = level;
			return 0;
		}
		table = e & E_ADDR;
	}
}

static void combine(const struct walk *w, struct gwalk_result *r)
{
	r->writable = r->user = r->exec = true;
	for (unsigned level = w->levels; level >= w->leaf; level--) {
		if (is_pdpte(w, level))
			continue;
		r->writable &= !!(w->entry[level] & E_W);
		r->user &= !!(w->entry[level] & E_U);
		r->exec &= !(w->entry[level] & E_NX);
	}
}

static bool allowed(const struct gwalk_mode *m, u32 access, const struct gwalk_result *r)
{
	bool fetch = access & PF_FETCH, write = access & PF_WRITE;

	if (fetch && !r->exec)
		return false;
	if (access & PF_USER)
		return r->user && (!write || r->writable);
	if (r->user && fetch && (m->cr4 & CR4_SMEP))
		return false;
	if (r->user && !fetch && (m->cr4 & CR4_SMAP) && !(m->rflags & RFLAGS_AC))
		return false;
	return !write || r->writable || !(m->cr0 & CR0_WP);
}

/* False: an entry has changed since it was walked. */
static bool set_accessed_dirty(struct walk *w, u32 access)
{
	for (unsigned level = w->levels; level >= w->leaf; level--) {
		u64 e = w->entry[level], bits = E_A | (level == w->leaf && (access & PF_WRITE) ? E_D : 0);
		if (is_pdpte(w, level) || (e & bits) == bits)
			continue;
		if (!w->ops->set_bits(w->ctx, w->at[level], e, bits, w->size))
			return false;
	}
	return true;
}

/* The address is never cut to fewer bits than the entry has (XSA-173). */
static gpa_t leaf_gpa(const struct walk *w, gva_t va)
{
	u64 e = w->entry[w->leaf], mask = BIT(shift_of(w, w->leaf)) - 1;
	u64 high = w->levels == 2 && w->leaf == 2 ? (e & BITS(20, 13)) << 19 : 0;

	return high | (e & E_ADDR & ~mask) | (va & mask);
}

static int walk_once(struct walk *w, gva_t va, u32 access, struct gwalk_result *r)
{
	int err = descend(w, va, access, r);

	if (err)
		return err;
	combine(w, r);
	if (!allowed(w->m, access, r))
		return fault(w, access, PF_PRESENT, r);
	if (!set_accessed_dirty(w, access))
		return -EAGAIN;
	r->gpa = leaf_gpa(w, va);
	r->order = shift_of(w, w->leaf) - PAGE_SHIFT;
	return 0;
}

int gwalk(const struct gwalk_mode *m, gva_t va, u32 access, const struct gwalk_ops *ops, void *ctx,
	  struct gwalk_result *result)
{
	struct walk w = {.m = m, .ops = ops, .ctx = ctx, .levels = levels_of(m)};
	int err = -EAGAIN;

	w.size = w.levels == 2 ? 4 : 8;
	if (w.levels < 4)
		va &= BITS(31, 0);
	*result = (struct gwalk_result){.gpa = va, .writable = true, .user = true, .exec = true};
	if (!(m->cr0 & CR0_PG))
		return 0;
	for (unsigned i = 0; i < TRIES && err == -EAGAIN; i++)
		err = walk_once(&w, va, access, result);
	return err == -EAGAIN ? -EIO : err;
}
