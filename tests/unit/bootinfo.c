/* SPDX-License-Identifier: MIT */
/* What loaders say, well-formed and not: maps that overlap or lie, strings without an end, tags of impossible size. */
#include "boot/bootinfo.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static u8 ram[1 << 20];
static struct bootinfo b;
static u32 at;

static const void *read_ram(hpa_t pa, u64 len) { return pa < sizeof(ram) && len <= sizeof(ram) - pa ? ram + pa : NULL; }

static void put32(hpa_t pa, u32 v) { memcpy(ram + pa, &v, 4); }
static void put64(hpa_t pa, u64 v) { memcpy(ram + pa, &v, 8); }

static int reset(void **state)
{
	memset(ram, 0, sizeof(ram));
	memset(&b, 0, sizeof(b));
	at = 0x1000;
	return 0;
}

static void check_range(unsigned i, hpa_t start, hpa_t end, u32 kind)
{
	assert_true(i < b.ranges);
	assert_int_equal(b.range[i].start, start);
	assert_int_equal(b.range[i].start + b.range[i].len, end);
	assert_int_equal(b.range[i].kind, kind);
}

enum { NOTHING = 99 };

static u32 kind_at(hpa_t pa)
{
	for (unsigned i = 0; i < b.ranges; i++)
		if (pa >= b.range[i].start && pa - b.range[i].start < b.range[i].len)
			return b.range[i].kind;
	return NOTHING;
}

static void check_order(void)
{
	for (unsigned i = 0; i < b.ranges; i++) {
		assert_true(b.range[i].len > 0);
		assert_true(b.range[i].start % PAGE_SIZE == 0 && b.range[i].len % PAGE_SIZE == 0);
		if (i)
			assert_true(b.range[i - 1].start + b.range[i - 1].len <= b.range[i].start);
	}
}

/* --- ranges */

static void ram_shrinks_and_others_grow(void **state)
{
	bootinfo_add(&b, 0x1001, 0x3000, MEM_RAM);
	check_range(0, 0x2000, 0x4000, MEM_RAM);
	bootinfo_add(&b, 0x8001, 1, MEM_RESERVED);
	check_range(1, 0x8000, 0x9000, MEM_RESERVED);
	bootinfo_add(&b, 0x20001, 0xfff, MEM_RAM);
	bootinfo_add(&b, 0x30000, 0, MEM_RAM);
	assert_int_equal(b.ranges, 2);
}

static void overlap_does_not_depend_on_order(void **state)
{
	static const struct mem_range in[] = {
		{0x100000, 0x900000, MEM_RAM},      {0x200000, 0x100000, MEM_RESERVED},
		{0x280000, 0x100000, MEM_RESERVED}, {0x0f0000, 0x020000, MEM_LOADER},
		{0x900000, 0x200000, MEM_RESERVED}, {0x250000, 0x001000, MEM_RAM},
	};
	struct bootinfo first;
	unsigned order[] = {0, 1, 2, 3, 4, 5};

	for (unsigned round = 0; round < 720; round++) {
		memset(&b, 0, sizeof(b));
		for (unsigned i = 0; i < 6; i++)
			bootinfo_add(&b, in[order[i]].start, in[order[i]].len, in[order[i]].kind);
		check_order();
		if (!round)
			first = b;
		assert_int_equal(b.ranges, first.ranges);
		assert_memory_equal(b.range, first.range, b.ranges * sizeof(b.range[0]));
		/* The next permutation. */
		int k = 4;
		while (k >= 0 && order[k] > order[k + 1])
			k--;
		if (k < 0)
			break;
		int l = 5;
		while (order[l] < order[k])
			l--;
		unsigned t = order[k];
		order[k] = order[l];
		order[l] = t;
		for (int i = k + 1, j = 5; i < j; i++, j--) {
			t = order[i];
			order[i] = order[j];
			order[j] = t;
		}
	}
	assert_int_equal(b.ranges, 5);
	check_range(0, 0x0f0000, 0x110000, MEM_LOADER);
	check_range(1, 0x110000, 0x200000, MEM_RAM);
	check_range(2, 0x200000, 0x380000, MEM_RESERVED);
	check_range(3, 0x380000, 0x900000, MEM_RAM);
	check_range(4, 0x900000, 0xb00000, MEM_RESERVED);
}

static void ranges_that_wrap_are_cut(void **state)
{
	bootinfo_add(&b, 0x1000, ~0ull, MEM_RAM);
	check_range(0, 0x1000, 1ull << 52, MEM_RAM);
	bootinfo_add(&b, ~0xfffull, 0x1000, MEM_RESERVED);
	bootinfo_add(&b, 0xfffffffff0000000ull, 0x20000000, MEM_RESERVED);
	assert_int_equal(b.ranges, 1);
}

/* With no room for one more range the highest are lost; nothing reserved may become RAM. */
static void full_table_loses_the_highest(void **state)
{
	for (unsigned i = 0; i < BOOT_RANGES; i++)
		bootinfo_add(&b, i * 0x10000ull, 0x8000, MEM_RAM);
	assert_int_equal(b.dropped, 0);
	assert_int_equal(kind_at((BOOT_RANGES - 1) * 0x10000ull), MEM_RAM);
	bootinfo_add(&b, 0x12000, 0x1000, MEM_RESERVED);
	assert_int_equal(b.dropped, 2);
	check_order();
	assert_int_equal(kind_at(0x11000), MEM_RAM);
	assert_int_equal(kind_at(0x12000), MEM_RESERVED);
	assert_int_equal(kind_at(0x21000), MEM_RAM);
	assert_int_equal(kind_at((BOOT_RANGES - 1) * 0x10000ull), NOTHING);
	/* Reserved over a gap and over RAM behind it: no more ranges than before. */
	bootinfo_add(&b, 0x28000, 0x10000, MEM_RESERVED);
	assert_int_equal(b.dropped, 2);
	assert_int_equal(kind_at(0x28000), MEM_RESERVED);
	assert_int_equal(kind_at(0x37000), MEM_RESERVED);
	check_order();
}

static void claim_leaves_what_is_reserved(void **state)
{
	bootinfo_add(&b, 0x100000, 0x400000, MEM_RAM);
	bootinfo_add(&b, 0x300000, 0x1000, MEM_RESERVED);
	b.image_start = 0x200000;
	b.image_end = 0x280000;
	b.modules = 2;
	b.module[0].start = 0x2ff000;
	b.module[0].len = 0x2800;
	b.module[1].start = 0x4ff800;
	b.module[1].len = 0x10000;
	bootinfo_claim(&b);
	assert_int_equal(kind_at(0x1ff000), MEM_RAM);
	assert_int_equal(kind_at(0x200000), MEM_IMAGE);
	assert_int_equal(kind_at(0x27f000), MEM_IMAGE);
	assert_int_equal(kind_at(0x280000), MEM_RAM);
	assert_int_equal(kind_at(0x2ff000), MEM_LOADER);
	assert_int_equal(kind_at(0x300000), MEM_RESERVED);
	assert_int_equal(kind_at(0x301000), MEM_LOADER);
	assert_int_equal(kind_at(0x302000), MEM_RAM);
	assert_int_equal(kind_at(0x4ff000), MEM_LOADER);
	assert_int_equal(kind_at(0x500000), MEM_LOADER);
	assert_int_equal(kind_at(0x510000), NOTHING);
	check_order();
}

/* --- multiboot 1 */

#define MB1 0x9000

static void mb1_map(hpa_t where, u32 size, u64 start, u64 len, u32 type)
{
	put32(where, size);
	put64(where + 4, start);
	put64(where + 12, len);
	put32(where + 20, type);
}

static void mb1_base(void)
{
	put32(MB1, 1 << 6);
	put32(MB1 + 44, 72);
	put32(MB1 + 48, 0xa000);
	mb1_map(0xa000, 20, 0, 0x9fc00, 1);
	mb1_map(0xa018, 20, 0x100000, 0x700000, 1);
	mb1_map(0xa030, 20, 0x7e0000, 0x20000, 3);
}

static void mb1_full(void **state)
{
	char val[16];

	mb1_base();
	put32(MB1, 1 << 2 | 1 << 3 | 1 << 6);
	put32(MB1 + 16, 0xb000);
	strcpy((char *)ram + 0xb000, "build/cleave console=com2  debug console=com1");
	put32(MB1 + 20, 2);
	put32(MB1 + 24, 0xc000);
	put32(0xc000, 0x400000);
	put32(0xc004, 0x401234);
	put32(0xc008, 0xd000);
	strcpy((char *)ram + 0xd000, "dir/guests.conf x y");
	put32(0xc010, 0x500000);
	put32(0xc014, 0x4fffff);
	assert_null(bootinfo_parse(MULTIBOOT1_MAGIC, MB1, read_ram, &b));
	assert_string_equal(b.protocol, "multiboot1");
	assert_int_equal(b.modules, 1);
	assert_int_equal(b.dropped, 1);
	assert_string_equal(b.module[0].name, "dir/guests.conf");
	assert_int_equal(b.module[0].start, 0x400000);
	assert_int_equal(b.module[0].len, 0x1234);
	check_range(0, 0, 0x1000, MEM_RESERVED);
	check_range(1, 0x1000, 0x80000, MEM_RAM);
	check_range(2, 0x80000, 0x100000, MEM_RESERVED);
	check_range(3, 0x100000, 0x7e0000, MEM_RAM);
	check_range(4, 0x7e0000, 0x800000, MEM_RESERVED);
	assert_true(bootinfo_option(&b, "console", val, sizeof(val)));
	assert_string_equal(val, "com1");
	assert_false(bootinfo_option(&b, "debug", val, sizeof(val)));
	assert_false(bootinfo_option(&b, "consol", val, sizeof(val)));
	assert_false(bootinfo_option(&b, "com1", val, sizeof(val)));
	assert_true(bootinfo_option(&b, "console", val, 3));
	assert_string_equal(val, "co");
}

/* The extended BIOS data area is often missing from the map. */
static void mb1_ebda_is_kept(void **state)
{
	mb1_base();
	assert_null(bootinfo_parse(MULTIBOOT1_MAGIC, MB1, read_ram, &b));
	assert_int_equal(kind_at(0x7f000), MEM_RAM);
	assert_int_equal(kind_at(0x80000), MEM_RESERVED);
	assert_int_equal(kind_at(0x9f000), MEM_RESERVED);
}

static void mb1_damage_is_refused(void **state)
{
	assert_non_null(bootinfo_parse(MULTIBOOT1_MAGIC, sizeof(ram) - 10, read_ram, &b));
	assert_string_equal(bootinfo_parse(MULTIBOOT1_MAGIC, MB1, read_ram, &b), "the loader gave no memory map");
	mb1_base();
	put32(0xa000, 4);
	assert_non_null(bootinfo_parse(MULTIBOOT1_MAGIC, MB1, read_ram, &b));
	mb1_base();
	put32(MB1 + 48, 0xfffffff0);
	assert_non_null(bootinfo_parse(MULTIBOOT1_MAGIC, MB1, read_ram, &b));
	mb1_base();
	put32(MB1 + 44, 0xffffffff); /* behind its entries there is nothing more */
	assert_null(bootinfo_parse(MULTIBOOT1_MAGIC, MB1, read_ram, &b));
	check_range(4, 0x7e0000, 0x800000, MEM_RESERVED);
	assert_string_equal(bootinfo_parse(0x12345678, MB1, read_ram, &b), "not started by a multiboot loader");
}

static void mb1_module_count_may_lie(void **state)
{
	mb1_base();
	put32(MB1, 1 << 3 | 1 << 6);
	put32(MB1 + 20, 0xffffffff);
	put32(MB1 + 24, sizeof(ram) - 32);
	put32(sizeof(ram) - 32, 0x400000);
	put32(sizeof(ram) - 32 + 4, 0x400001);
	put32(sizeof(ram) - 32 + 8, sizeof(ram) - 3);
	memset(ram + sizeof(ram) - 3, 'x', 3);
	assert_null(bootinfo_parse(MULTIBOOT1_MAGIC, MB1, read_ram, &b));
	assert_int_equal(b.modules, 1);
	assert_int_equal(b.dropped, 0xfffffffe);
	assert_string_equal(b.module[0].name, "xxx");
}

/* An empty file was dropped as impossible, and then told as one that is not there. */
static void mb1_module_may_be_empty(void **state)
{
	mb1_base();
	put32(MB1, 1 << 3 | 1 << 6);
	put32(MB1 + 20, 2);
	put32(MB1 + 24, 0xc000);
	put32(0xc000, 0x400000);
	put32(0xc004, 0x400000);
	put32(0xc008, 0xd000);
	strcpy((char *)ram + 0xd000, "empty");
	put32(0xc018, 0xd010);
	strcpy((char *)ram + 0xd010, "empty too");
	assert_null(bootinfo_parse(MULTIBOOT1_MAGIC, MB1, read_ram, &b));
	assert_int_equal(b.modules, 2);
	assert_int_equal(b.dropped, 0);
	assert_int_equal(bootinfo_module(&b, "empty", 5)->len, 0);
}

/* --- multiboot 2 */

static void tag(u32 type, const void *body, u32 len)
{
	put32(at, type);
	put32(at + 4, len + 8);
	memcpy(ram + at + 8, body, len);
	at += (len + 8 + 7) & ~7u;
}

static void mb2_begin(void) { at = 0x1008; }

static const char *mb2_parse(void)
{
	tag(0, "", 0);
	put32(0x1000, at - 0x1000);
	return bootinfo_parse(MULTIBOOT2_MAGIC, 0x1000, read_ram, &b);
}

static void mb2_map_tag(void)
{
	struct {
		u32 entry, version;
		struct {
			u64 start, len;
			u32 type, zero;
		} e[2];
	} PACKED map = {24, 0, {{0x100000, 0x700000, 1, 0}, {0, 0xa0000, 1, 0}}};

	tag(6, &map, sizeof(map));
}

static void mb2_full(void **state)
{
	u8 module[8 + 20] = "\0\0\x30\0\x10\0\x30\0vmlinuz\0";
	u8 fb[30] = {0};

	mb2_begin();
	tag(1, "console=screen", 15);
	tag(3, module, sizeof(module));
	mb2_map_tag();
	fb[3] = 0xe0;
	memcpy(fb + 20, (u8[]){16, 1, 0, 0, 11, 5, 5, 6, 0, 5}, 10);
	tag(8, fb, sizeof(fb));
	tag(14, "RSD PTR oldoldoldold", 20);
	tag(15, "RSD PTR newnewnewnewnewnewnewnewnewn", 36);
	tag(14, "RSD PTR oldoldoldold", 20);
	tag(77, "unknown", 7);
	assert_null(mb2_parse());
	assert_string_equal(b.protocol, "multiboot2");
	assert_string_equal(b.cmdline, "console=screen");
	assert_int_equal(b.firmware, FIRMWARE_BIOS);
	assert_int_equal(b.modules, 1);
	assert_string_equal(b.module[0].name, "vmlinuz");
	assert_int_equal(b.module[0].len, 0x10);
	assert_true(b.fb.base == 0xe0000000 && b.fb.bpp == 16 && !b.fb.text);
	assert_memory_equal(b.acpi.copy, "RSD PTR newnew", 14);
	check_range(1, 0x1000, 0x80000, MEM_RAM);
	check_range(3, 0x100000, 0x800000, MEM_RAM);
}

static void mb2_uefi_has_no_map_yet(void **state)
{
	u64 table = 0x7f000018, handle = 0x7e000098;

	mb2_begin();
	tag(12, &table, 8);
	tag(20, &handle, 8);
	tag(18, "", 0);
	assert_null(mb2_parse());
	assert_int_equal(b.firmware, FIRMWARE_UEFI);
	assert_true(b.efi_boot_services && b.efi_system_table == table && b.efi_image_handle == handle);
}

struct efi_entry {
	u32 type, pad;
	u64 start, virt, pages, attributes, more;
};

static void efi_map(void **state)
{
	static const struct efi_entry map[] = {
		{7, 0, 0x100000, 0, 0x100, 0xf, 0},
		{4, 0, 0x200000, 0, 0x100, 0xf, 0},
		{9, 0, 0x300000, 0, 0x10, 0xf, 0},
		{6, 0, 0x310000, 0, 0x10, 1ull << 63, 0},
		{2, 0, 0x320000, 0, 0x10, 0xf, 0},
		{7, 0, 0x330000, 0, 0x10, 1ull << 63 | 0xf, 0},
		{7, 0, 0, 0, 0xa0, 0xf, 0},
		{11, 0, 0xfec00000, 0, 1, 1, 0},
		{99, 0, 0x340000, 0, ~0ull >> 1, 0xf, 0},
	};

	bootinfo_add(&b, 0x50000000, 0x1000, MEM_RAM);
	bootinfo_efi_map(&b, map, sizeof(map), sizeof(map[0]));
	check_order();
	assert_int_equal(kind_at(0), MEM_RESERVED);
	assert_int_equal(kind_at(0x1000), MEM_RAM);
	assert_int_equal(kind_at(0x100000), MEM_RAM);
	assert_int_equal(kind_at(0x200000), MEM_RAM);
	assert_int_equal(kind_at(0x300000), MEM_RESERVED);
	assert_int_equal(kind_at(0x310000), MEM_RESERVED);
	assert_int_equal(kind_at(0x320000), MEM_RAM);
	assert_int_equal(kind_at(0x330000), MEM_RESERVED);
	assert_int_equal(kind_at(0x50000000), MEM_RESERVED);
	bootinfo_efi_map(&b, map, sizeof(map), 8);
	assert_int_equal(kind_at(0x100000), NOTHING);
	bootinfo_efi_map(&b, map, 20, sizeof(map[0]));
	assert_int_equal(kind_at(0x100000), NOTHING);
}

static void mb2_damage_is_refused(void **state)
{
	static const u32 sizes[] = {0, 8, 0x7fffffff, 0xffffffff};

	for (unsigned i = 0; i < 4; i++) {
		put32(0x1000, sizes[i]);
		assert_non_null(bootinfo_parse(MULTIBOOT2_MAGIC, 0x1000, read_ram, &b));
	}
	for (unsigned i = 0; i < 8; i++) {
		static const u32 types[] = {1, 3, 4, 6, 8, 12, 17, 20};

		reset(NULL);
		mb2_begin();
		mb2_map_tag();
		u32 bad = at;
		tag(types[i], "", 0);
		put32(bad + 4, i & 1 ? 0xfffffff0 : 7);
		assert_string_equal(mb2_parse(), "the multiboot2 information has a tag of impossible size");
	}
}

/* A command line that fills its tag without an end must not run into the next one. */
static void mb2_string_without_end(void **state)
{
	mb2_begin();
	tag(1, "aaaaaaaa", 8);
	mb2_map_tag();
	assert_null(mb2_parse());
	assert_string_equal(b.cmdline, "aaaaaaaa");
}

/* --- modules by name */

/* GRUB quotes an argument with blanks: the name was cut at the first of them. */
static void module_names_with_blanks(void **state)
{
	static const char *const line[][2] = {{"\"web site/vm \\\"linuz\\\\\" x", "web site/vm \"linuz\\"},
					      {"plain\"name rest", "plain\"name"},
					      {"\"open", "open"},
					      {"\"\\", "\\"},
					      {"", ""}};

	for (size_t i = 0; i < ARRAY_SIZE(line); i++) {
		mb1_base();
		put32(MB1, 1 << 3);
		put32(MB1 + 20, 1);
		put32(MB1 + 24, 0xc000);
		put32(0xc000, 0x400000);
		put32(0xc004, 0x401234);
		put32(0xc008, 0xd000);
		strcpy((char *)ram + 0xd000, line[i][0]);
		memset(&b, 0, sizeof(b));
		bootinfo_parse(MULTIBOOT1_MAGIC, MB1, read_ram, &b);
		assert_int_equal(b.modules, 1);
		assert_string_equal(b.module[0].name, line[i][1]);
	}
}

static void modules_by_name(void **state)
{
	b.modules = 4;
	strcpy(b.module[0].name, "/boot/web/vmlinuz");
	strcpy(b.module[1].name, "db/vmlinuz");
	strcpy(b.module[2].name, "xvmlinuz");
	strcpy(b.module[3].name, "vmlinuz");
	assert_ptr_equal(bootinfo_module(&b, "vmlinuz", 7), &b.module[3]);
	assert_ptr_equal(bootinfo_module(&b, "web/vmlinuz-more", 11), &b.module[0]);
	assert_ptr_equal(bootinfo_module(&b, "db/vmlinuz", 10), &b.module[1]);
	b.modules = 3;
	assert_ptr_equal(bootinfo_module(&b, "vmlinuz", 7), &b.module[0]);
	assert_null(bootinfo_module(&b, "linuz", 5));
	assert_null(bootinfo_module(&b, "a/db/vmlinuz", 12));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(ram_shrinks_and_others_grow, reset),
		cmocka_unit_test_setup(overlap_does_not_depend_on_order, reset),
		cmocka_unit_test_setup(ranges_that_wrap_are_cut, reset),
		cmocka_unit_test_setup(full_table_loses_the_highest, reset),
		cmocka_unit_test_setup(claim_leaves_what_is_reserved, reset),
		cmocka_unit_test_setup(mb1_full, reset),
		cmocka_unit_test_setup(mb1_ebda_is_kept, reset),
		cmocka_unit_test_setup(mb1_damage_is_refused, reset),
		cmocka_unit_test_setup(mb1_module_count_may_lie, reset),
		cmocka_unit_test_setup(mb1_module_may_be_empty, reset),
		cmocka_unit_test_setup(mb2_full, reset),
		cmocka_unit_test_setup(mb2_uefi_has_no_map_yet, reset),
		cmocka_unit_test_setup(efi_map, reset),
		cmocka_unit_test_setup(mb2_damage_is_refused, reset),
		cmocka_unit_test_setup(mb2_string_without_end, reset),
		cmocka_unit_test_setup(module_names_with_blanks, reset),
		cmocka_unit_test_setup(modules_by_name, reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
