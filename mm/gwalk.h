/* SPDX-License-Identifier: MIT */
/*
 * The walker of guest-owned page tables: 2-level with PSE, PAE, 4-level and 5-level. Nothing in those tables is
 * trusted.
 */
#pragma once

#include "lib/types.h"

/* The error code's bits, Intel SDM vol. 3, 4.7. */
enum { PF_PRESENT = 0x1, PF_WRITE = 0x2, PF_USER = 0x4, PF_RSVD = 0x8, PF_FETCH = 0x10 };

/* What decides the meaning of the guest's tables. */
struct gwalk_mode {
	u64 cr0, cr3, cr4, efer, rflags;
	u64 pdpte[4]; /* PAE only: the loaded PDPTEs, if pdpte_valid; else read from cr3 */
	bool pdpte_valid;
	u8 phys_bits;  /* the guest's MAXPHYADDR */
	bool gb_pages; /* the guest's CPUID has 1 GB pages */
};

struct gwalk_result {
	gpa_t gpa;
	u8 order; /* of the guest's page: 0, 9, 10 (4 MB), 18; with paging off 0 */
	/* What all levels grant together, before CR0.WP, SMEP and SMAP. With paging off: everything. */
	bool writable, user, exec;
	u32 error; /* for -EFAULT: the #PF error code */
};

struct gwalk_ops {
	/* Reads an 8- or 4-byte table entry at gpa; false if no RAM is there. */
	bool (*read)(void *ctx, gpa_t gpa, u64 *val, unsigned size);
	/* Atomically ORs into one that still is old; false if it has changed meanwhile: walk again. */
	bool (*set_bits)(void *ctx, gpa_t gpa, u64 old, u64 bits, unsigned size);
};

/*
 * Translates va for an access (PF_WRITE, PF_USER, PF_FETCH bits), setting accessed and dirty bits as hardware does.
 * Returns 0; -EFAULT with result->error for the #PF that the guest must get; -EIO if a table lies where no RAM is, or
 * changes faster than it can be walked.
 *
 * The caller has refused non-canonical addresses. For an implicit supervisor access (descriptor tables, TSS) it clears
 * RFLAGS.AC in the mode: AC does not lift SMAP for those (Intel SDM vol. 3, 4.6.1).
 */
int gwalk(const struct gwalk_mode *m, gva_t va, u32 access, const struct gwalk_ops *ops, void *ctx,
	  struct gwalk_result *result);
