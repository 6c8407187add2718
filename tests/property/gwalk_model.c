/* SPDX-License-Identifier: MIT */
/*
 * The walker of guest tables against a second one that was written from the manual's tables rather than from the first:
 * one case for each format of entry, no shared arithmetic. Random tables in 64 KB of memory, random modes and accesses.
 * Usage: gwalk_model [walks [seed]].
 */
#include "mm/gwalk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bits.h"
#include "lib/errno.h"

#define MEMORY 65536u

static u8 memory[MEMORY], expected_memory[MEMORY];
static u64 state;

static u64 next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

static u64 below(u64 n) { return next() % n; }

static bool read_memory(void *ctx, gpa_t gpa, u64 *val, unsigned size)
{
	(void)ctx;
	*val = 0;
	if (gpa >= MEMORY)
		return false;
	memcpy(val, memory + gpa, size);
	return true;
}

static bool set_bits(void *ctx, gpa_t gpa, u64 old, u64 bits, unsigned size)
{
	u64 v = old | bits;

	(void)ctx;
	memcpy(memory + gpa, &v, size);
	return true;
}

static const struct gwalk_ops ops = {.read = read_memory, .set_bits = set_bits};

/* The model's state of a walk. */
struct model {
	const struct gwalk_mode *m;
	u32 access;
	bool w, u, x;
	unsigned n; /* entries that get an accessed bit */
	struct {
		u64 at;
		unsigned size;
	} used[5];
	u32 error;
	u64 gpa;
	unsigned order;
};

enum step { GO_ON, LEAF, FAULT, NO_RAM };

static bool bit(u64 v, unsigned n) { return v >> n & 1; }

static bool any(u64 v, unsigned high, unsigned low)
{
	for (unsigned i = low; i <= high; i++) {
		if (bit(v, i))
			return true;
	}
	return false;
}

static u32 code(const struct model *k, u32 why)
{
	bool fetch_known = bit(k->m->cr4, 20) || (bit(k->m->cr4, 5) && bit(k->m->efer, 11));

	return why | (k->access & (PF_USER | PF_WRITE)) | (fetch_known ? k->access & PF_FETCH : 0);
}

static enum step fetch(struct model *k, u64 at, unsigned size, u64 *e)
{
	if (!read_memory(NULL, at, e, size))
		return NO_RAM;
	k->used[k->n].at = at;
	k->used[k->n++].size = size;
	if (bit(*e, 0))
		return GO_ON;
	k->error = code(k, 0);
	return FAULT;
}

static enum step reserved(struct model *k)
{
	k->error = code(k, PF_PRESENT | PF_RSVD);
	return FAULT;
}

static void grant(struct model *k, u64 e, bool has_nx)
{
	k->w = k->w && bit(e, 1);
	k->u = k->u && bit(e, 2);
	k->x = k->x && !(has_nx && bit(e, 63));
}

/* 8-byte entries of levels 5 to 1 in long mode (SDM tables 4-15 to 4-20) and of levels 2 and 1 with PAE (4-9 to 4-11).
 */
static enum step entry8(struct model *k, u64 e, unsigned level, bool pae, u64 va)
{
	unsigned width = k->m->phys_bits;

	grant(k, e, true);
	if (bit(e, 63) && !bit(k->m->efer, 11))
		return reserved(k);
	if (pae && any(e, 62, 52))
		return reserved(k);
	if (width < 52 && any(e, 51, width))
		return reserved(k);
	if (level >= 4 && bit(e, 7))
		return reserved(k);
	if (level == 3 && bit(e, 7)) {
		if (!k->m->gb_pages || any(e, 29, 13))
			return reserved(k);
		k->gpa = (e & 0x000fffffc0000000) | (va & 0x3fffffff);
		k->order = 18;
		return LEAF;
	}
	if (level == 2 && bit(e, 7)) {
		if (any(e, 20, 13))
			return reserved(k);
		k->gpa = (e & 0x000fffffffe00000) | (va & 0x1fffff);
		k->order = 9;
		return LEAF;
	}
	k->gpa = (e & 0x000ffffffffff000) | (level == 1 ? va & 0xfff : 0);
	k->order = 0;
	return level == 1 ? LEAF : GO_ON;
}

static enum step walk_long(struct model *k, u64 va, unsigned levels)
{
	static const unsigned shift[] = {0, 12, 21, 30, 39, 48};
	u64 table = k->m->cr3 & 0x000ffffffffff000, e;
	enum step s = GO_ON;

	for (unsigned level = levels; s == GO_ON; level--) {
		s = fetch(k, table + ((va >> shift[level]) % 512) * 8, 8, &e);
		if (s == GO_ON)
			s = entry8(k, e, level, false, va);
		table = k->gpa;
	}
	return s;
}

static enum step walk_pae(struct model *k, u64 va)
{
	u64 e = k->m->pdpte[va >> 30 & 3];
	enum step s = bit(e, 0) ? GO_ON : FAULT;

	k->error = code(k, 0);
	if (!k->m->pdpte_valid) {
		s = fetch(k, (k->m->cr3 & 0xffffffe0) + (va >> 30 & 3) * 8, 8, &e);
		k->n = 0;
	}
	if (s == GO_ON && (any(e, 2, 1) || any(e, 8, 5) || any(e, 63, 52) || any(e, 51, k->m->phys_bits)))
		s = reserved(k);
	u64 table = e & 0x000ffffffffff000;
	for (unsigned level = 2; s == GO_ON; level--) {
		s = fetch(k, table + (va >> (level == 2 ? 21 : 12) & 511) * 8, 8, &e);
		if (s == GO_ON)
			s = entry8(k, e, level, true, va);
		table = k->gpa;
	}
	return s;
}

static enum step walk_32(struct model *k, u64 va)
{
	u64 pde, pte;
	enum step s = fetch(k, (k->m->cr3 & 0xfffff000) + (va >> 22 & 1023) * 4, 4, &pde);

	if (s != GO_ON)
		return s;
	grant(k, pde, false);
	if (bit(pde, 7) && bit(k->m->cr4, 4)) {
		u64 high = pde >> 13 & 0xff;
		if (bit(pde, 21) || (k->m->phys_bits < 40 && high >> (k->m->phys_bits - 32)))
			return reserved(k);
		k->gpa = high << 32 | (pde & 0xffc00000) | (va & 0x3fffff);
		k->order = 10;
		return LEAF;
	}
	s = fetch(k, (pde & 0xfffff000) + (va >> 12 & 1023) * 4, 4, &pte);
	if (s != GO_ON)
		return s;
	grant(k, pte, false);
	k->gpa = (pte & 0xfffff000) | (va & 0xfff);
	k->order = 0;
	return LEAF;
}

static bool permitted(const struct model *k)
{
	bool user = k->access & PF_USER, write = k->access & PF_WRITE, fetches = k->access & PF_FETCH;

	if (fetches)
		return k->x && (user ? k->u : !k->u || !bit(k->m->cr4, 20)) &&
		       (!write || k->w || (!user && !bit(k->m->cr0, 16)));
	if (user)
		return k->u && (k->w || !write);
	if (k->u && bit(k->m->cr4, 21) && !bit(k->m->rflags, 18))
		return false;
	return k->w || !write || !bit(k->m->cr0, 16);
}

static int model_walk(struct model *k, u64 va)
{
	bool lma = bit(k->m->efer, 10), pae = bit(k->m->cr4, 5);
	enum step s;

	memcpy(expected_memory, memory, MEMORY);
	if (!lma)
		va &= 0xffffffff;
	k->gpa = va;
	if (!bit(k->m->cr0, 31))
		return 0;
	s = lma ? walk_long(k, va, bit(k->m->cr4, 12) ? 5 : 4) : pae ? walk_pae(k, va) : walk_32(k, va);
	if (s == NO_RAM)
		return -EIO;
	if (s == LEAF && !permitted(k)) {
		k->error = code(k, PF_PRESENT);
		s = FAULT;
	}
	if (s == FAULT)
		return -EFAULT;
	for (unsigned i = 0; i < k->n; i++) {
		u8 *e = expected_memory + k->used[i].at;
		*e |= 0x20 | (i == k->n - 1 && k->access & PF_WRITE ? 0x40 : 0);
	}
	return 0;
}

/* Entries that point to the sixteen tables, mostly with the bits that let a walk go on. */
static u64 random_entry(unsigned width)
{
	u64 e = below(MEMORY / 4096) << 12 | 7;

	if (!below(3))
		e ^= BIT(below(3));
	if (!below(4))
		e |= BIT(7);
	if (!below(4))
		e &= ~BITS(20, 12);
	if (!below(4))
		e |= BITS(39, 12) & next() & (width < 40 ? BITS(width - 1, 12) : ~0ull);
	if (!below(8))
		e |= BIT(below(64));
	return e;
}

static void random_mode(struct gwalk_mode *m)
{
	*m = (struct gwalk_mode){.cr0 = BIT(31), .phys_bits = 36 + below(17), .gb_pages = below(4)};
	if (!below(20))
		m->cr0 = 0;
	m->cr0 |= below(2) ? BIT(16) : 0;
	m->cr4 = next() & (BIT(4) | BIT(5) | BIT(12) | BIT(20) | BIT(21));
	m->efer = below(3) ? BIT(11) : 0;
	if (below(2)) {
		m->efer |= BIT(10);
		m->cr4 |= BIT(5);
	}
	m->rflags = below(2) ? BIT(18) : 0;
	m->cr3 = below(MEMORY / 4096) << 12 | (next() & 0x18);
	m->pdpte_valid = below(2);
	for (unsigned i = 0; i < 4; i++) {
		m->pdpte[i] = below(4) ? (random_entry(36) & ~0x1e6ull) | 1 : random_entry(m->phys_bits);
		if (below(2) && !(m->efer & BIT(10)) && (m->cr4 & BIT(5)))
			memcpy(memory + (m->cr3 & ~31ull) + i * 8, &m->pdpte[i], 8);
	}
}

/* 32-bit tables want 4-byte entries. */
static void fill_memory(bool small, unsigned width)
{
	for (unsigned at = 0; at < MEMORY; at += small ? 4 : 8) {
		u64 e = random_entry(small ? 32 : width);
		memcpy(memory + at, &e, small ? 4 : 8);
	}
}

int main(int argc, char **argv)
{
	u64 walks = argc > 1 ? strtoull(argv[1], NULL, 0) : 400000, results[3] = {0};
	u64 seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;

	state = seed * 0x9e3779b97f4a7c15ull | 1;
	for (u64 i = 0; i < walks; i++) {
		struct gwalk_mode m;
		struct gwalk_result r;
		if (i % 512 == 0)
			fill_memory(i / 512 % 4 == 0, 36 + below(17));
		random_mode(&m);
		struct model k = {.m = &m, .access = next() & (PF_WRITE | PF_USER | PF_FETCH), .w = 1, .u = 1, .x = 1};
		u64 va = next();
		int expected = model_walk(&k, va), err = gwalk(&m, va, k.access, &ops, NULL, &r);
		bool same = err == expected;
		if (same && err == -EFAULT)
			same = r.error == k.error;
		if (same && !err)
			same = r.gpa == k.gpa && r.order == k.order && r.writable == k.w && r.user == k.u &&
			       r.exec == k.x;
		if (!same || memcmp(memory, expected_memory, MEMORY) != 0) {
			fprintf(stderr,
				"walk %llu, seed %llu: va %llx cr0 %llx cr3 %llx cr4 %llx efer %llx access %x: "
				"%d %llx %x, model %d %llx %x\n",
				(unsigned long long)i, (unsigned long long)seed, (unsigned long long)va,
				(unsigned long long)m.cr0, (unsigned long long)m.cr3, (unsigned long long)m.cr4,
				(unsigned long long)m.efer, k.access, err, (unsigned long long)r.gpa, r.error, expected,
				(unsigned long long)k.gpa, k.error);
			abort();
		}
		results[err == 0 ? 0 : err == -EFAULT ? 1 : 2]++;
	}
	printf("gwalk_model: %llu translations, %llu faults, %llu tables outside memory\n",
	       (unsigned long long)results[0], (unsigned long long)results[1], (unsigned long long)results[2]);
	return 0;
}
