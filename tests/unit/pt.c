/* SPDX-License-Identifier: MIT */
/* link: -Wl,--wrap=pt_encode */
#include "mm/pt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/errno.h"
#include "lib/port.h"
#include "mm/frames.h"
#include "tests/host/frames_audit.h"
#include "tests/host/host.h"

#define OWNER OWNER_GUEST

static struct pt pt;
static struct pt_debt debt;
static bool allow_large;
static void (*on_watch)(void);

static void flush(struct pt *p, const struct pt_debt *d)
{
	(void)d;
	port_flush_root(mfn_to_hpa(p->root), 1);
}

static bool may_large(const struct pt *p, u64 va, unsigned order)
{
	(void)p;
	(void)va;
	(void)order;
	return allow_large;
}

static void watch(struct pt *p)
{
	(void)p;
	if (on_watch)
		on_watch();
}

static const struct pt_ops ops = {.flush = flush, .may_large = may_large, .watch = watch};

static u64 free_frames(void)
{
	struct frames_stats s;

	frames_stats(&s);
	return s.free;
}

static const struct pt_entry ram = {.pa = 0, .flags = PT_RWX | PT_USER, .type = 1};

static struct pt_entry at(struct pt_entry e, hpa_t pa)
{
	e.pa = pa;
	return e;
}

static void map(u64 va, u64 len, struct pt_entry e)
{
	assert_int_equal(pt_map(&pt, va, len, e, &debt), 0);
	pt_settle(&pt, &debt);
}

/* What is mapped at its own address gets these permissions. */
static int protect(u64 va, u64 len, unsigned prot)
{
	return pt_map(&pt, va, len, (struct pt_entry){.pa = va, .flags = prot | PT_USER, .type = 1}, &debt);
}

static void assert_maps(u64 va, hpa_t pa, unsigned order)
{
	struct pt_entry e = pt_lookup(&pt, va);

	assert_true(pt_present(e));
	assert_int_equal(e.pa, pa);
	assert_int_equal(e.order, order);
}

/* The raw entry that covers va, at the lowest level. */
static u64 *raw_at(u64 va)
{
	u64 *table = port_virt(mfn_to_hpa(pt.root));

	for (unsigned level = PT_LEVELS;; level--) {
		u64 *slot = &table[pt_index(va, level)];
		if (!pt_is_table(pt.fmt, *slot, level))
			return slot;
		table = port_virt(*slot & PT_ADDR);
	}
}

static int setup_format(const struct pt_format *fmt)
{
	host_machine(16 * MB);
	allow_large = true;
	on_watch = NULL;
	debt = PT_DEBT_NONE;
	return pt_init(&pt, fmt, &ops, OWNER, ORDER_1G);
}

static int setup_long(void **state)
{
	(void)state;
	return setup_format(&pt_format_long);
}

static int setup_ept(void **state)
{
	(void)state;
	return setup_format(&pt_format_ept);
}

/* Unmapping everything and merging leaves the root alone; nothing has leaked. */
static int teardown(void **state)
{
	struct frames_stats s;

	(void)state;
	host_fail_alloc(0);
	on_watch = NULL;
	assert_int_equal(pt_map(&pt, 0, BIT(48), (struct pt_entry){0}, &debt), 0);
	pt_settle(&pt, &debt);
	assert_int_equal(pt.tables, 1);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pt.leaves[i], 0);
	frames_stats(&s);
	assert_int_equal(s.free + 1, s.total);
	assert_int_equal(frames_free_all(OWNER), 1);
	assert_int_equal(frames_audit(), 0);
	return 0;
}

static void entries_are_what_the_manuals_say(void **state)
{
	struct pt_entry e = {.pa = 0x123456000, .flags = PT_RWX | PT_USER | PT_A | PT_D, .type = 1};
	const struct pt p_long = {.fmt = &pt_format_long, .nx = true}, p_ept = {.fmt = &pt_format_ept, .nx = true};
	const struct pt old_long = {.fmt = &pt_format_long, .nx = false};

	(void)state;
	/* Long mode, 4 KB: P, W, U, A, D, and the type at bit 52. */
	assert_true(pt_encode(&p_long, e, 1) == 0x0010000123456067ull);
	/* The hypervisor's own: supervisor, global, NX, uncached. */
	e = (struct pt_entry){.pa = 0xfee00000, .flags = PT_R | PT_W | PT_GLOBAL, .cache = PT_UC};
	assert_true(pt_encode(&p_long, e, 1) == 0x80000000fee0011bull);
	assert_true(pt_encode(&old_long, e, 2) == 0x00000000fee0019bull);
	e.cache = PT_WC;
	assert_true(pt_encode(&old_long, e, 1) == 0x00000000fee0010bull);
	/* EPT, 2 MB: RWX, write-back, IPAT, large, A, D. */
	e = (struct pt_entry){.pa = 0x40000000, .flags = PT_RWX | PT_IPAT | PT_A | PT_D, .type = 1};
	assert_true(pt_encode(&p_ept, e, 2) == 0x00100000400003f7ull);
	e = (struct pt_entry){.pa = 0xfee00000, .flags = PT_R | PT_W, .cache = PT_UC, .type = 4};
	assert_true(pt_encode(&p_ept, e, 1) == 0x00400000fee00003ull);
	/* Not present: only the type. */
	e = (struct pt_entry){.type = 5};
	assert_true(pt_encode(&p_ept, e, 1) == 0x0050000000000000ull);
	assert_true(pt_encode(&p_long, e, 3) == 0x0050000000000000ull);
	/* Entries that point to tables allow everything and are accessed. */
	assert_int_equal(pt_format_long.table, 0x27);
	assert_int_equal(pt_format_ept.table, 0x107);
}

static void encoding_loses_nothing(void **state)
{
	const struct pt_format *formats[] = {&pt_format_long, &pt_format_ept};

	(void)state;
	for (unsigned f = 0; f < 2; f++) {
		const struct pt p = {.fmt = formats[f], .nx = true};
		for (unsigned flags = 0; flags < 256; flags++) {
			for (unsigned type = 0; type < 16; type++) {
				u8 kept = f ? PT_RWX | PT_A | PT_D | PT_IPAT : 0xff & ~PT_IPAT;
				struct pt_entry e = {.pa = 0xffffffff80000000ull & PT_ADDR, .cache = flags % 3};
				e.flags = flags & kept;
				e.type = type;
				if (!f && pt_present(e))
					e.flags |= PT_R;
				if (!pt_present(e))
					e.flags = 0, e.pa = 0, e.cache = 0;
				for (unsigned level = 1; level <= 3; level++) {
					e.order = pt_order(level);
					u64 raw = pt_encode(&p, e, level);
					struct pt_entry back = pt_decode(formats[f], raw, level, 0);
					assert_memory_equal(&e, &back, offsetof(struct pt_entry, order) + 1);
					assert_int_equal(pt_encode(&p, back, level), raw);
				}
			}
		}
	}
}

static void a_range_gets_the_largest_leaves_that_fit(void **state)
{
	u64 first = GB - 2 * MB - 8 * KB, len = 2 * MB + 8 * KB + GB + 2 * MB + 4 * KB;

	(void)state;
	map(first, len, at(ram, 4 * GB + first));
	assert_int_equal(pt.leaves[0], 3);
	assert_int_equal(pt.leaves[1], 2);
	assert_int_equal(pt.leaves[2], 1);
	assert_maps(first, 4 * GB + first, 0);
	assert_maps(GB - 4 * KB, 5 * GB - 4 * KB, 9);
	assert_maps(GB + 5 * MB, 5 * GB + 5 * MB, 18);
	assert_maps(2 * GB + MB, 6 * GB + MB, 9);
	assert_maps(2 * GB + 2 * MB, 6 * GB + 2 * MB, 0);
	assert_false(pt_present(pt_lookup(&pt, first - 1)));
	assert_false(pt_present(pt_lookup(&pt, first + len)));
	assert_int_equal(host_flushes, 0); /* nothing was there before */
}

static void alignment_cap_and_owner_limit_the_leaves(void **state)
{
	(void)state;
	map(0, 4 * MB, at(ram, 4 * KB)); /* both ends must be aligned alike */
	assert_int_equal(pt.leaves[0], 1024);
	map(GB, GB, at(ram, 2 * MB));
	assert_int_equal(pt.leaves[1], 512);
	pt.max_order = 9;
	map(2 * GB, GB, at(ram, 0));
	assert_int_equal(pt.leaves[1], 1024);
	allow_large = false;
	map(0, 2 * MB, at(ram, 0));
	assert_int_equal(pt.leaves[0], 1024);
	allow_large = true;
	pt.max_order = 0;
	map(0, 2 * MB, at(ram, 0));
	assert_int_equal(pt.leaves[0], 1024);
	assert_int_equal(pt.leaves[2], 0);
}

static void what_is_not_present_keeps_its_type_at_any_size(void **state)
{
	(void)state;
	map(0, 3 * GB, (struct pt_entry){.type = 5});
	assert_int_equal(pt_lookup(&pt, 5 * MB).type, 5);
	assert_int_equal(pt_lookup(&pt, 5 * MB).order, 18);
	map(GB + 4 * MB, 4 * KB, at(ram, 0x7000));
	assert_maps(GB + 4 * MB, 0x7000, 0);
	assert_int_equal(pt_lookup(&pt, GB + 4 * MB + 4 * KB).type, 5);
	assert_int_equal(pt_lookup(&pt, GB + 2 * MB).order, 9);
	assert_int_equal(pt_lookup(&pt, GB - 1).order, 18);
	assert_int_equal(pt.splits, 0); /* of present leaves */
	assert_int_equal(host_flushes, 0);
}

static void a_split_keeps_all_that_the_leaf_said_and_touches_one_branch(void **state)
{
	struct pt_entry e = at(ram, 8 * GB);

	(void)state;
	e.flags |= PT_A | PT_D;
	e.flags &= ~PT_X;
	map(0, 2 * GB, e);
	assert_int_equal(pt_split(&pt, 5 * MB, 0, &debt), 0);
	assert_true(debt.flush);
	pt_settle(&pt, &debt);
	assert_int_equal(pt.splits, 2);
	assert_int_equal(pt.leaves[2], 1);
	assert_int_equal(pt.leaves[1], 511);
	assert_int_equal(pt.leaves[0], 512);
	for (u64 va = 4 * MB; va < 6 * MB; va += 4 * KB) {
		struct pt_entry got = pt_lookup(&pt, va);
		assert_maps(va, 8 * GB + va, 0);
		assert_int_equal(got.flags & (PT_RWX | PT_A | PT_D), PT_R | PT_W | PT_A | PT_D);
		assert_int_equal(got.type, 1);
	}
	assert_maps(2 * MB, 8 * GB + 2 * MB, 9);
	assert_maps(GB, 9 * GB, 18);
	assert_int_equal(pt_split(&pt, 5 * MB, 0, &debt), 0); /* already */
	assert_false(debt.flush);
}

/*
 * Xen XSA-246 and XSA-247: when no frame was left for a table, splitting a superpage while populating on demand was
 * tried again for ever, and a frame could be freed that was still mapped. Here nothing has changed, and it can be
 * repeated.
 */
static void xsa_246_a_split_without_memory_changes_nothing(void **state)
{
	(void)state;
	map(0, GB, at(ram, 0));
	u64 free = free_frames();
	for (u64 nth = 1; nth <= 2; nth++) {
		host_fail_alloc(nth);
		assert_int_equal(pt_split(&pt, 0, 0, &debt), -ENOMEM);
		assert_int_equal(pt_map(&pt, 4 * KB, 4 * KB, at(ram, GB), &debt), -ENOMEM);
		assert_int_equal(pt_map(&pt, 4 * KB, 4 * KB, (struct pt_entry){0}, &debt), -ENOMEM);
		assert_int_equal(protect(4 * KB, 4 * KB, PT_R), -ENOMEM);
		assert_int_equal(free_frames(), free);
		assert_false(debt.flush);
		assert_maps(4 * KB, 4 * KB, 18);
	}
	host_fail_alloc(0);
	assert_int_equal(pt_map(&pt, 4 * KB, 4 * KB, at(ram, GB), &debt), 0);
	assert_maps(4 * KB, GB, 0);
}

/*
 * Xen 093e295b3c: splitting 1 GB down to 4 KB needs two tables; when the second could not be had, the first leaked, or
 * its entries stayed half-made.
 */
static void xen_093e295b3c_a_recursive_split_leaks_no_table(void **state)
{
	(void)state;
	map(0, GB, at(ram, 0));
	u64 tables = pt.tables, free = free_frames();
	host_fail_alloc(2);
	assert_int_equal(pt_split(&pt, 0, 0, &debt), -ENOMEM);
	host_fail_alloc(0);
	assert_int_equal(pt.tables, tables);
	assert_int_equal(free_frames(), free);
	assert_int_equal(pt.leaves[2], 1);
	assert_int_equal(pt_split(&pt, 0, 0, &debt), 0);
	assert_int_equal(pt.tables, tables + 2);
}

static u64 old_root_entry;

static void table_is_still_there(hpa_t root, u64 mask)
{
	const u64 *table = port_virt(old_root_entry & PT_ADDR);

	(void)root;
	(void)mask;
	assert_int_equal(frame_of(hpa_to_mfn(old_root_entry & PT_ADDR))->state, FRAME_TABLE);
	for (unsigned i = 0; i < 512; i++)
		assert_int_equal(pt_decode(pt.fmt, table[i], 1, 0).pa, i * PAGE_SIZE);
}

/*
 * Xen XSA-480: a page-table page was freed, and could be reused, while other CPUs still had it in their
 * paging-structure caches. Until the flush has been acknowledged, a replaced table keeps its frame and its contents.
 */
static void xsa_480_a_table_is_freed_after_the_flush(void **state)
{
	(void)state;
	map(0, GB, at(ram, 0));
	map(0, 4 * KB, at(ram, GB));
	map(0, 4 * KB, at(ram, 0));
	u64 *slot = raw_at(0) - pt_index(0, 1), *level2 = raw_at(2 * MB) - 1;
	assert_ptr_equal(port_virt(*level2 & PT_ADDR), slot);
	old_root_entry = *level2;

	u64 free = free_frames(), flushes = host_flushes;
	assert_int_equal(pt_map(&pt, 0, 2 * MB, at(ram, 0), &debt), 0);
	assert_int_equal(free_frames(), free);
	host_on_flush = table_is_still_there;
	pt_settle(&pt, &debt);
	host_on_flush = NULL;
	assert_int_equal(host_flushes, flushes + 1);
	assert_int_equal(free_frames(), free + 1);
	assert_maps(0, 0, 9);
}

static u64 checks;

static void page_is_old_or_new(void)
{
	checks++;
	for (u64 va = 0; va < 4 * MB; va += 4 * KB) {
		struct pt_entry e = pt_lookup(&pt, va);
		assert_true(pt_present(e));
		assert_true(e.pa == va || (va == 8 * KB && e.pa == GB));
	}
}

/*
 * Xen XSA-328: live EPT entries were rewritten in a way that a walker in between could see a torn or empty entry. A
 * walker that runs at any moment of a split finds every page mapped, to the old place or the new.
 */
static void xsa_328_a_walker_never_sees_a_hole(void **state)
{
	(void)state;
	map(0, GB, at(ram, 0));
	on_watch = page_is_old_or_new;
	checks = 0;
	map(8 * KB, 4 * KB, at(ram, GB));
	assert_int_equal(checks, 3); /* one store for each table, and one for the page */
	map(8 * KB, 4 * KB, at(ram, 8 * KB));
	assert_maps(8 * KB, 8 * KB, 0);
	assert_int_equal(pt.merges, 0);
	pt_merge(&pt, 8 * KB, &debt);
	pt_settle(&pt, &debt);
	assert_int_equal(checks, 6);
	assert_maps(8 * KB, 8 * KB, 18);
}

/*
 * KVM, spte.h: a page that is read-only already may still be writable in another CPU's TLB, because whoever took the
 * permission away has not flushed yet. Who needs it read-only now must flush too.
 */
static void taking_a_permission_away_twice_flushes_twice(void **state)
{
	(void)state;
	map(0, 2 * MB, at(ram, 0));
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(protect(0, 2 * MB, PT_R | PT_X), 0);
		assert_true(debt.flush);
		assert_true(debt.first == 0 && debt.last == 2 * MB - 1);
		debt = PT_DEBT_NONE; /* not flushed yet */
	}
	assert_int_equal(pt_flags(&pt, 0, PT_W, 0, &debt).flags & PT_W, 0);
	assert_false(debt.flush); /* giving one needs none */
	for (unsigned i = 0; i < 2; i++) {
		(void)pt_flags(&pt, 0, 0, PT_W, &debt);
		assert_true(debt.flush);
		assert_true(debt.first == 0 && debt.last == 2 * MB - 1);
		debt = PT_DEBT_NONE;
	}
}

static void protecting_a_part_splits_and_keeps_the_rest(void **state)
{
	(void)state;
	map(0, 2 * MB, at(ram, 0));
	assert_int_equal(protect(4 * KB, 8 * KB, PT_R), 0);
	assert_int_equal(pt_lookup(&pt, 0).flags & PT_RWX, PT_RWX);
	assert_int_equal(pt_lookup(&pt, 4 * KB).flags & PT_RWX, PT_R);
	assert_int_equal(pt_lookup(&pt, 8 * KB).flags & PT_RWX, PT_R);
	assert_int_equal(pt_lookup(&pt, 12 * KB).flags & PT_RWX, PT_RWX);
	assert_int_equal(pt_lookup(&pt, 8 * KB).type, 1);
	assert_maps(8 * KB, 8 * KB, 0);
}

/* A CPU may set them in the old table until the flush, when it is too late to look. */
static void a_leaf_in_a_tables_place_says_accessed_and_dirty(void **state)
{
	u64 ad = pt.fmt->accessed | pt.fmt->dirty;

	(void)state;
	for (unsigned way = 0; way < 2; way++) {
		map(0, 2 * MB, at(ram, 0));
		*raw_at(0) &= ~ad;
		assert_int_equal(pt_split(&pt, 0, 0, &debt), 0);
		if (way)
			pt_merge(&pt, 0, &debt);
		else
			assert_int_equal(protect(0, 2 * MB, PT_R), 0);
		assert_int_equal(pt_lookup(&pt, 0).order, 9);
		assert_int_equal(*raw_at(0) & ad, ad);
		pt_settle(&pt, &debt);
	}
}

/* What a CPU has noted in an entry survives changes of permissions, mapping the same page again, and merges. */
static void accessed_and_dirty_survive(void **state)
{
	u64 ad = pt.fmt->accessed | pt.fmt->dirty;

	(void)state;
	map(0, 2 * MB, at(ram, 0));
	*raw_at(0) |= ad;
	assert_int_equal(protect(4 * KB, 4 * KB, PT_R), 0);
	for (u64 va = 0; va < 2 * MB; va += 4 * KB)
		assert_int_equal(*raw_at(va) & ad, ad);
	map(8 * KB, 4 * KB, at(ram, 8 * KB));
	assert_int_equal(*raw_at(8 * KB) & ad, ad);
	map(8 * KB, 4 * KB, at(ram, GB)); /* another page: nobody has touched that */
	assert_int_equal(*raw_at(8 * KB) & ad, 0);
	map(0, 2 * MB, at(ram, 0));
	*raw_at(0) &= ~ad;
	assert_int_equal(pt_split(&pt, 0, 0, &debt), 0);
	*raw_at(400 * KB) |= ad;
	pt_merge(&pt, 0, &debt);
	assert_maps(0, 0, 9);
	assert_int_equal(*raw_at(0) & ad, ad);
	/* Read-only now, but written before. */
	*raw_at(0) &= ~ad;
	assert_int_equal(pt_split(&pt, 0, 0, &debt), 0);
	*raw_at(4 * KB) |= ad;
	assert_int_equal(protect(0, 2 * MB, PT_R), 0);
	pt_merge(&pt, 0, &debt);
	assert_maps(0, 0, 9);
	assert_int_equal(*raw_at(0) & ad, ad);
	pt_settle(&pt, &debt);
}

static u64 *raced;

/*
 * The linker's --wrap: the engine encodes an entry between its reading of the old one and its writing, which is the
 * time for a CPU's write.
 */
u64 __real_pt_encode(const struct pt *p, struct pt_entry e, unsigned level);
u64 __wrap_pt_encode(const struct pt *p, struct pt_entry e, unsigned level);

u64 __wrap_pt_encode(const struct pt *p, struct pt_entry e, unsigned level)
{
	if (raced)
		*raced |= p->fmt->accessed | p->fmt->dirty;
	raced = NULL;
	return __real_pt_encode(p, e, level);
}

/* Linux 4f510c8bb1dd: a dirty bit that a CPU set while the entry was being changed was lost. */
static void a_dirty_bit_set_meanwhile_is_not_lost(void **state)
{
	struct pt_entry ro = at(ram, 0);

	(void)state;
	ro.flags &= ~PT_W;
	map(0, 4 * KB, at(ram, 0));
	raced = raw_at(0);
	assert_int_equal(protect(0, 4 * KB, PT_R), 0);
	assert_int_equal(pt_lookup(&pt, 0).flags & (PT_RWX | PT_A | PT_D), PT_R | PT_A | PT_D);
	assert_int_equal(pt_map(&pt, 0, 4 * KB, (struct pt_entry){0}, &debt), 0);
	map(0, 4 * KB, at(ram, 0));
	raced = raw_at(0);
	map(0, 4 * KB, ro); /* the same page */
	assert_int_equal(pt_lookup(&pt, 0).flags & (PT_RWX | PT_A | PT_D), PT_R | PT_X | PT_A | PT_D);
	assert_null(raced);
}

static void siblings_that_agree_merge_up_to_the_cap(void **state)
{
	(void)state;
	for (u64 va = 0; va < GB; va += 2 * MB)
		map(va, 2 * MB, at(ram, 4 * GB + va));
	pt_merge(&pt, 0, &debt);
	assert_maps(GB - 1, 5 * GB - 4 * KB, 18);
	assert_int_equal(pt.merges, 1);
	pt_settle(&pt, &debt);

	assert_int_equal(pt_split(&pt, 0, 0, &debt), 0);
	pt.max_order = 9;
	pt_merge(&pt, 0, &debt);
	assert_maps(0, 4 * GB, 9);
	pt.max_order = 18;
	pt_merge(&pt, 0, &debt);
	assert_maps(0, 4 * GB, 18);
	assert_int_equal(pt.leaves[2], 1);
	assert_int_equal(pt.leaves[1], 0);
	assert_int_equal(pt.leaves[0], 0);
}

static void siblings_that_differ_do_not_merge(void **state)
{
	struct pt_entry other = at(ram, 100 * KB);

	(void)state;
	allow_large = false;
	map(0, 2 * MB, at(ram, 0));
	pt_merge(&pt, 0, &debt);
	assert_maps(0, 0, 0); /* the owner forbids it */
	allow_large = true;
	other.type = 2;
	map(100 * KB, 4 * KB, other);
	pt_merge(&pt, 0, &debt);
	assert_maps(0, 0, 0); /* another type */
	map(100 * KB, 4 * KB, at(ram, 200 * KB));
	pt_merge(&pt, 0, &debt);
	assert_maps(0, 0, 0); /* another frame */
	map(100 * KB, 4 * KB, (struct pt_entry){0});
	pt_merge(&pt, 0, &debt);
	assert_maps(0, 0, 0); /* a hole */
	map(0, 2 * MB, at(ram, 4 * KB));
	pt_merge(&pt, 0, &debt);
	assert_maps(0, 4 * KB, 0); /* contiguous, but misaligned */
	pt_settle(&pt, &debt);
}

static void empty_tables_go(void **state)
{
	(void)state;
	map(0, 4 * KB, at(ram, 0));
	map(BIT(40), 4 * KB, at(ram, 0));
	assert_int_equal(pt.tables, 7);
	assert_int_equal(pt_map(&pt, 0, 4 * KB, (struct pt_entry){0}, &debt), 0);
	pt_merge(&pt, 0, &debt);
	pt_settle(&pt, &debt);
	assert_int_equal(pt.tables, 4);
	assert_maps(BIT(40), 0, 0);
	map(0, GB, (struct pt_entry){.type = 3});
	map(0, 4 * KB, at(ram, 0));
	map(0, 4 * KB, (struct pt_entry){.type = 3});
	pt_merge(&pt, 0, &debt);
	pt_settle(&pt, &debt);
	assert_int_equal(pt_lookup(&pt, 0).order, 18);
	assert_int_equal(pt.merges, 0); /* of present leaves */
}

static void unmapping_what_is_empty_needs_no_table(void **state)
{
	(void)state;
	host_fail_alloc(1);
	assert_int_equal(pt_map(&pt, 4 * KB, BIT(40), (struct pt_entry){0}, &debt), 0);
	assert_int_equal(pt.tables, 1);
}

static void the_upper_half_ends_at_the_top(void **state)
{
	(void)state;
	map(0ull - 2 * GB, 2 * GB, at(ram, 0));
	assert_maps(~0ull, 2 * GB - 4 * KB, 18);
	assert_int_equal(pt.leaves[2], 2);
	assert_int_equal(pt_map(&pt, 0ull - 4 * KB, 4 * KB, (struct pt_entry){0}, &debt), 0);
	assert_false(pt_present(pt_lookup(&pt, ~0ull)));
	pt_settle(&pt, &debt);
}

int main(void)
{
#define T(f) \
	{#f " (long)", f, setup_long, teardown, NULL}, { #f " (ept)", f, setup_ept, teardown, NULL }
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entries_are_what_the_manuals_say),
		cmocka_unit_test(encoding_loses_nothing),
		T(a_range_gets_the_largest_leaves_that_fit),
		T(alignment_cap_and_owner_limit_the_leaves),
		T(what_is_not_present_keeps_its_type_at_any_size),
		T(a_split_keeps_all_that_the_leaf_said_and_touches_one_branch),
		T(xsa_246_a_split_without_memory_changes_nothing),
		T(xen_093e295b3c_a_recursive_split_leaks_no_table),
		T(xsa_480_a_table_is_freed_after_the_flush),
		T(xsa_328_a_walker_never_sees_a_hole),
		T(taking_a_permission_away_twice_flushes_twice),
		T(protecting_a_part_splits_and_keeps_the_rest),
		T(accessed_and_dirty_survive),
		T(a_leaf_in_a_tables_place_says_accessed_and_dirty),
		T(a_dirty_bit_set_meanwhile_is_not_lost),
		T(siblings_that_agree_merge_up_to_the_cap),
		T(siblings_that_differ_do_not_merge),
		T(empty_tables_go),
		T(unmapping_what_is_empty_needs_no_table),
		T(the_upper_half_ends_at_the_top),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
