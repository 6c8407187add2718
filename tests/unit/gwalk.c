/* SPDX-License-Identifier: MIT */
#include "mm/gwalk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/errno.h"

#define CR0_PG   BIT(31)
#define CR0_WP   BIT(16)
#define CR4_PSE  BIT(4)
#define CR4_PAE  BIT(5)
#define CR4_LA57 BIT(12)
#define CR4_SMEP BIT(20)
#define CR4_SMAP BIT(21)
#define LMA      BIT(10)
#define NXE      BIT(11)
#define AC       BIT(18)
#define NX       BIT(63)

/* A small guest: tables at 1000, 2000 ... in 64 KB of memory. */
static u8 memory[65536];
static unsigned changes; /* how often set_bits is to find the entry changed */
static struct gwalk_mode mode;
static struct gwalk_result r;

static bool read_memory(void *ctx, gpa_t gpa, u64 *val, unsigned size)
{
	(void)ctx;
	assert_true(IS_ALIGNED(gpa, size));
	if (gpa >= sizeof(memory))
		return false;
	*val = 0;
	memcpy(val, memory + gpa, size);
	return true;
}

static bool set_bits(void *ctx, gpa_t gpa, u64 old, u64 bits, unsigned size)
{
	u64 now;

	if (changes && changes--)
		return false;
	assert_true(read_memory(ctx, gpa, &now, size));
	assert_int_equal(now, old);
	now |= bits;
	memcpy(memory + gpa, &now, size);
	return true;
}

static const struct gwalk_ops ops = {.read = read_memory, .set_bits = set_bits};

static void put8(unsigned at, u64 v) { memcpy(memory + at, &v, 8); }
static void put4(unsigned at, u32 v) { memcpy(memory + at, &v, 4); }

static u64 get8(unsigned at)
{
	u64 v;

	memcpy(&v, memory + at, 8);
	return v;
}

static u32 get4(unsigned at)
{
	u32 v;

	memcpy(&v, memory + at, 4);
	return v;
}

static int walk(u64 va, u32 access) { return gwalk(&mode, va, access, &ops, NULL, &r); }

static void assert_ok(u64 va, u32 access, u64 gpa, unsigned order)
{
	assert_int_equal(walk(va, access), 0);
	assert_int_equal(r.gpa, gpa);
	assert_int_equal(r.order, order);
}

static void assert_fault(u64 va, u32 access, u32 error)
{
	assert_int_equal(walk(va, access), -EFAULT);
	assert_int_equal(r.error, error);
}

static int setup(void **state)
{
	(void)state;
	memset(memory, 0, sizeof(memory));
	changes = 0;
	mode = (struct gwalk_mode){.cr0 = CR0_PG | CR0_WP, .cr3 = 0x1000, .phys_bits = 40, .gb_pages = true};
	return 0;
}

/* va 0x8080604abc: indices 1, 2, 3, 4 and offset abc; a 4 KB page at 0x123456000, with these bits at every level. */
#define VA4 0x8080604abcull
static void four_levels(u64 bits)
{
	mode.cr4 |= CR4_PAE;
	mode.efer |= LMA | NXE;
	put8(0x1000 + 1 * 8, 0x2000 | bits);
	put8(0x2000 + 2 * 8, 0x3000 | bits);
	put8(0x3000 + 3 * 8, 0x4000 | bits);
	put8(0x4000 + 4 * 8, 0x123456000 | bits);
}

static void without_paging_addresses_stay(void **state)
{
	(void)state;
	mode.cr0 = 0;
	assert_ok(0x12345678, PF_WRITE | PF_FETCH, 0x12345678, 0);
	assert_true(r.writable && r.user && r.exec);
}

static void four_levels_translate(void **state)
{
	(void)state;
	four_levels(7);
	assert_ok(VA4, PF_USER, 0x123456abc, 0);
	assert_true(r.writable && r.user && r.exec);
	for (unsigned i = 1; i <= 4; i++)
		assert_int_equal(get8(i * 0x1000 + i * 8) & 0x60, 0x20);
	assert_ok(VA4, PF_USER | PF_WRITE, 0x123456abc, 0);
	assert_int_equal(get8(0x4020) & 0x60, 0x60);
	assert_int_equal(get8(0x3018) & 0x60, 0x20); /* D only in the leaf */
	mode.cr3 = 0x1018;                           /* PWT and PCD are not part of the address */
	assert_ok(VA4, 0, 0x123456abc, 0);
}

static void large_pages_translate(void **state)
{
	(void)state;
	four_levels(7);
	put8(0x3018, 0xc0000000 | 0x87);
	assert_ok(VA4, PF_WRITE, 0xc0004abc, 9);
	assert_int_equal(get8(0x3018) & 0x60, 0x60);
	put8(0x2010, 0x7c0000000 | 0x87);
	assert_ok(VA4, PF_WRITE, 0x7c0604abc, 18);
}

static void five_levels_translate(void **state)
{
	(void)state;
	four_levels(7);
	mode.cr4 |= CR4_LA57;
	mode.cr3 = 0x5000;
	put8(0x5000 + 6 * 8, 0x1007);
	assert_ok(6 * BIT(48) + VA4, PF_USER, 0x123456abc, 0);
	put8(0x5000 + 6 * 8, 0x1087);
	assert_fault(6 * BIT(48) + VA4, 0, PF_PRESENT | PF_RSVD);
}

static void each_missing_level_faults_with_the_access(void **state)
{
	(void)state;
	for (unsigned i = 1; i <= 4; i++) {
		four_levels(7);
		put8(i * 0x1000 + i * 8, 0xffffffffffffff06); /* not present: nothing else matters */
		assert_fault(VA4, 0, 0);
		assert_fault(VA4, PF_USER | PF_WRITE, PF_USER | PF_WRITE);
		assert_fault(VA4, PF_USER | PF_FETCH, PF_USER | PF_FETCH);
		assert_int_equal(get8(0x1008) & 0x20, 0); /* nothing was accessed */
	}
}

static void permissions_of_all_levels_combine(void **state)
{
	(void)state;
	for (unsigned i = 1; i <= 4; i++) {
		unsigned at = i * 0x1000 + i * 8;
		four_levels(7);
		put8(at, get8(at) & ~4ull); /* supervisor */
		assert_fault(VA4, PF_USER, PF_PRESENT | PF_USER);
		assert_int_equal(walk(VA4, PF_WRITE), 0);
		assert_false(r.user);
		four_levels(7);
		put8(at, get8(at) & ~2ull); /* read-only */
		assert_fault(VA4, PF_USER | PF_WRITE, PF_PRESENT | PF_USER | PF_WRITE);
		assert_fault(VA4, PF_WRITE, PF_PRESENT | PF_WRITE);
		assert_int_equal(get8(0x4020) & 0x60, 0);
		mode.cr0 &= ~CR0_WP;
		assert_fault(VA4, PF_USER | PF_WRITE, PF_PRESENT | PF_USER | PF_WRITE);
		assert_int_equal(walk(VA4, PF_WRITE), 0);
		assert_false(r.writable);
		assert_int_equal(get8(0x4020) & 0x60, 0x60);
		mode.cr0 |= CR0_WP;
		four_levels(7);
		put8(at, get8(at) | NX);
		assert_fault(VA4, PF_FETCH, PF_PRESENT | PF_FETCH);
		assert_int_equal(walk(VA4, PF_WRITE), 0);
		assert_false(r.exec);
	}
}

static void smep_and_smap_guard_user_pages(void **state)
{
	(void)state;
	four_levels(7);
	mode.cr4 |= CR4_SMEP;
	assert_fault(VA4, PF_FETCH, PF_PRESENT | PF_FETCH);
	assert_int_equal(walk(VA4, PF_FETCH | PF_USER), 0);
	assert_int_equal(walk(VA4, 0), 0);
	mode.cr4 = CR4_PAE | CR4_SMAP;
	assert_fault(VA4, 0, PF_PRESENT);
	assert_fault(VA4, PF_WRITE, PF_PRESENT | PF_WRITE);
	assert_int_equal(walk(VA4, PF_FETCH), 0);
	assert_int_equal(walk(VA4, PF_USER | PF_WRITE), 0);
	mode.rflags = AC;
	assert_int_equal(walk(VA4, PF_WRITE), 0);
	mode.rflags = 0;
	mode.cr0 &= ~CR0_WP; /* does not lift SMAP */
	assert_fault(VA4, PF_WRITE, PF_PRESENT | PF_WRITE);
	four_levels(3);
	assert_int_equal(walk(VA4, PF_WRITE), 0); /* a supervisor page */
}

static void the_fetch_bit_exists_only_with_nx_or_smep(void **state)
{
	(void)state;
	four_levels(7);
	put8(0x4020, 0);
	mode.efer = LMA;
	assert_fault(VA4, PF_FETCH, 0);
	mode.cr4 |= CR4_SMEP;
	assert_fault(VA4, PF_FETCH, PF_FETCH);
	mode.cr4 = 0;
	mode.efer = NXE; /* without PAE there is no NX */
	assert_fault(VA4, PF_FETCH, 0);
}

/*
 * Xen XSA-176: the PS bit was accepted in L4 and, without 1 GB pages, in L3 entries, so that a guest got superpages
 * over memory that was not its own. Where PS is reserved it faults; where it is ignored it is.
 */
static void xsa_176_ps_where_it_is_reserved(void **state)
{
	(void)state;
	four_levels(7);
	put8(0x1008, 0x2087);
	assert_fault(VA4, PF_WRITE, PF_PRESENT | PF_WRITE | PF_RSVD);
	four_levels(7);
	put8(0x2010, 0x40000087);
	mode.gb_pages = false;
	assert_fault(VA4, PF_USER, PF_PRESENT | PF_USER | PF_RSVD);
	four_levels(7);
	put8(0x4020, 0x123456087); /* level 1: PAT */
	assert_ok(VA4, 0, 0x123456abc, 0);
}

/*
 * Xen XSA-173: guest frame numbers were kept in 32 bits, so that an address above 2^44 came out as another one. All
 * bits up to the guest's width are kept, and all above it fault.
 */
static void xsa_173_addresses_are_not_cut(void **state)
{
	(void)state;
	mode.phys_bits = 52;
	four_levels(7);
	put8(0x4020, 0x000f9234567cd007);
	assert_ok(VA4, 0, 0x000f9234567cdabc, 0);
	put8(0x3018, 0x000f923456600087);
	assert_ok(VA4, 0, 0x000f923456604abc, 9);
	put8(0x3018, 0x000f923456600007); /* a table there: no RAM, but not another table either */
	assert_int_equal(walk(VA4, 0), -EIO);
	for (unsigned width = 36; width < 52; width += 5) {
		mode.phys_bits = width;
		four_levels(7);
		put8(0x4020, BIT(width - 1) | 7);
		assert_ok(VA4, 0, BIT(width - 1) | 0xabc, 0);
		for (unsigned bit = width; bit < 52; bit++) {
			for (unsigned i = 1; i <= 4; i++) {
				four_levels(7);
				put8(i * 0x1000 + i * 8, get8(i * 0x1000 + i * 8) | BIT(bit));
				assert_fault(VA4, 0, PF_PRESENT | PF_RSVD);
			}
		}
	}
}

static void other_reserved_bits_fault(void **state)
{
	(void)state;
	four_levels(7);
	mode.efer = LMA;
	put8(0x4020, 0x123456007 | NX); /* NX without NXE */
	assert_fault(VA4, 0, PF_PRESENT | PF_RSVD);
	for (unsigned bit = 13; bit < 30; bit++) {
		four_levels(7);
		put8(0x2010, 0x40000087 | BIT(bit)); /* misaligned 1 GB */
		assert_fault(VA4, 0, PF_PRESENT | PF_RSVD);
		four_levels(7);
		put8(0x3018, 0x40000087 | BIT(bit)); /* misaligned 2 MB; bit 21 and up are address */
		if (bit < 21)
			assert_fault(VA4, 0, PF_PRESENT | PF_RSVD);
		else
			assert_int_equal(walk(VA4, 0), 0);
	}
	four_levels(7 | BITS(62, 52)); /* ignored in long mode */
	put8(0x3018, 0x40001087 | BIT(9));
	assert_ok(VA4, 0, 0x40004abc, 9); /* bit 12 is PAT */
}

/* va 0x80604abc: directory pointer 2, indices 3, 4. */
#define VA3 0x80604abcull
static void pae(void)
{
	mode.cr4 |= CR4_PAE;
	mode.efer = NXE;
	mode.cr3 = 0x1020;
	put8(0x1020 + 2 * 8, 0x3001);
	put8(0x3000 + 3 * 8, 0x4007);
	put8(0x4000 + 4 * 8, 0x923456007);
}

static void pae_translates(void **state)
{
	(void)state;
	pae();
	assert_ok(VA3, PF_USER | PF_WRITE, 0x923456abc, 0);
	assert_true(r.writable && r.user && r.exec);
	assert_int_equal(get8(0x1030), 0x3001); /* no accessed bit in a directory pointer */
	assert_int_equal(get8(0x4020) & 0x60, 0x60);
	assert_ok(VA3 | BITS(63, 32), 0, 0x923456abc, 0); /* 32-bit addresses */
	put8(0x3018, 0x4000e0000087 & BITS(39, 0));
	put8(0x3018, 0x8000200087 | NX);
	assert_ok(VA3, PF_WRITE, 0x8000204abc, 9);
	assert_fault(VA3, PF_FETCH, PF_PRESENT | PF_FETCH);
	mode.pdpte_valid = true; /* the loaded ones, not memory */
	assert_fault(VA3, 0, 0);
	mode.pdpte[2] = 0x3001;
	assert_ok(VA3, 0, 0x8000204abc, 9);
}

static void pae_reserves_more(void **state)
{
	const unsigned pdpte[] = {1, 2, 5, 6, 7, 8, 40, 51, 52, 62, 63}, entry[] = {40, 51, 52, 62};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(pdpte); i++) {
		pae();
		put8(0x1030, 0x3001 | BIT(pdpte[i]));
		assert_fault(VA3, PF_USER, PF_PRESENT | PF_USER | PF_RSVD);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(entry); i++) {
		pae();
		put8(0x4020, get8(0x4020) | BIT(entry[i]));
		assert_fault(VA3, 0, PF_PRESENT | PF_RSVD);
		pae();
		put8(0x3018, get8(0x3018) | BIT(entry[i]));
		assert_fault(VA3, 0, PF_PRESENT | PF_RSVD);
	}
	pae();
	put8(0x3018, 0x200087 | BIT(13));
	assert_fault(VA3, 0, PF_PRESENT | PF_RSVD);
}

/* va 0x00c04abc: indices 3, 4. */
#define VA2 0x00c04abcull
static void two_levels_translate(void **state)
{
	(void)state;
	put4(0x1000 + 3 * 4, 0x2007);
	put4(0x2000 + 4 * 4, 0xfedcb007);
	put4(0x2000 + 5 * 4, 0xffffffff);
	assert_ok(VA2, PF_USER | PF_WRITE, 0xfedcbabc, 0);
	assert_int_equal(get4(0x100c), 0x2027);
	assert_int_equal(get4(0x2010), 0xfedcb067);
	assert_int_equal(get4(0x2014), 0xffffffff); /* its neighbour */
	assert_ok(0xffffffff00000000 | VA2, 0, 0xfedcbabc, 0);
	put4(0x2010, 0xfedcb001);
	assert_fault(VA2, PF_USER, PF_PRESENT | PF_USER);
	assert_fault(VA2, PF_WRITE | PF_FETCH, PF_PRESENT | PF_WRITE);
}

static void four_mb_pages_have_40_address_bits(void **state)
{
	(void)state;
	put4(0x100c, 0x2087); /* without CR4.PSE the bit is ignored */
	put4(0x2010, 0x5007);
	assert_ok(VA2, 0, 0x5abc, 0);
	mode.cr4 = CR4_PSE;
	put4(0x100c, 0x80400087);
	assert_ok(VA2, PF_WRITE, 0x80404abc, 10);
	assert_int_equal(get4(0x100c), 0x804000e7);
	put4(0x100c, 0x80400087 | 0xab << 13);
	assert_ok(VA2, 0, 0xab80404abc, 10);
	put4(0x100c, 0x80400087 | BIT(21));
	assert_fault(VA2, 0, PF_PRESENT | PF_RSVD);
	mode.phys_bits = 36;
	put4(0x100c, 0x80400087 | 0xf << 13);
	assert_ok(VA2, 0, 0xf80404abc, 10);
	put4(0x100c, 0x80400087 | 0x10 << 13);
	assert_fault(VA2, 0, PF_PRESENT | PF_RSVD);
	mode.phys_bits = 32;
	put4(0x100c, 0x80400087 | 1 << 13);
	assert_fault(VA2, 0, PF_PRESENT | PF_RSVD);
}

static void a_changed_entry_is_walked_again_but_not_for_ever(void **state)
{
	(void)state;
	four_levels(7);
	changes = 3;
	assert_ok(VA4, PF_WRITE, 0x123456abc, 0);
	assert_int_equal(changes, 0);
	four_levels(7);
	changes = ~0u;
	assert_int_equal(walk(VA4, PF_WRITE), -EIO);
	four_levels(7 | 0x60); /* nothing to set, nothing to lose */
	assert_ok(VA4, PF_WRITE, 0x123456abc, 0);
}

static void a_table_outside_memory_is_told(void **state)
{
	(void)state;
	four_levels(7);
	mode.cr3 = 0x100000;
	assert_int_equal(walk(VA4, 0), -EIO);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, setup)
	const struct CMUnitTest tests[] = {
		T(without_paging_addresses_stay),
		T(four_levels_translate),
		T(large_pages_translate),
		T(five_levels_translate),
		T(each_missing_level_faults_with_the_access),
		T(permissions_of_all_levels_combine),
		T(smep_and_smap_guard_user_pages),
		T(the_fetch_bit_exists_only_with_nx_or_smep),
		T(xsa_176_ps_where_it_is_reserved),
		T(xsa_173_addresses_are_not_cut),
		T(other_reserved_bits_fault),
		T(pae_translates),
		T(pae_reserves_more),
		T(two_levels_translate),
		T(four_mb_pages_have_40_address_bits),
		T(a_changed_entry_is_walked_again_but_not_for_ever),
		T(a_table_outside_memory_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
