/* SPDX-License-Identifier: MIT */
/* ACPI tables as firmware writes them, and as broken firmware does. */
#include "drivers/acpi.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/host/host.h"

#define RAM  (2u << 20)
#define RSDP 0xf5a00
#define RSDT 0x100000
#define XSDT 0x101000

static u8 *ram;
static hpa_t next; /* where the next table goes */
static struct acpi_source boot;
static struct acpi a;

static const void *map(hpa_t pa, u64 len) { return pa < RAM && len <= RAM - pa ? ram + pa : NULL; }

static void put32(hpa_t pa, u32 v) { memcpy(ram + pa, &v, 4); }
static void put64(hpa_t pa, u64 v) { memcpy(ram + pa, &v, 8); }
static u32 get32(hpa_t pa)
{
	u32 v;

	memcpy(&v, ram + pa, 4);
	return v;
}

static void fix_sum(hpa_t at, u32 len, hpa_t where)
{
	u8 sum = 0;

	ram[where] = 0;
	for (u32 i = 0; i < len; i++)
		sum = (u8)(sum + ram[at + i]);
	ram[where] = (u8)-sum;
}

static void finish(hpa_t pa) { fix_sum(pa, get32(pa + 4), pa + 9); }

static void header(hpa_t pa, const char *signature, u32 len)
{
	memcpy(ram + pa, signature, 4);
	put32(pa + 4, len);
}

/* Adds a table with this body to RSDT and XSDT; returns its address. */
static hpa_t table(const char *signature, const void *body, u32 len)
{
	hpa_t pa = next;

	next += (36 + len + 15) & ~15u;
	header(pa, signature, 36 + len);
	memcpy(ram + pa + 36, body, len);
	finish(pa);
	put32(RSDT + get32(RSDT + 4), (u32)pa);
	put32(RSDT + 4, get32(RSDT + 4) + 4);
	finish(RSDT);
	put64(XSDT + get32(XSDT + 4), pa);
	put32(XSDT + 4, get32(XSDT + 4) + 8);
	finish(XSDT);
	return pa;
}

static void rsdp(hpa_t pa, u8 revision)
{
	memcpy(ram + pa, "RSD PTR ", 8);
	ram[pa + 15] = revision;
	put32(pa + 16, RSDT);
	fix_sum(pa, 20, pa + 8);
	if (revision < 2)
		return;
	put32(pa + 20, 36);
	put64(pa + 24, XSDT);
	fix_sum(pa, 36, pa + 32);
}

static int setup(void **state)
{
	free(ram);
	ram = calloc(1, RAM);
	boot = (struct acpi_source){.search = true};
	next = 0x110000;
	header(RSDT, "RSDT", 36);
	finish(RSDT);
	header(XSDT, "XSDT", 36);
	finish(XSDT);
	rsdp(RSDP, 0);
	host_log_clear();
	return 0;
}

static bool read_all(void)
{
	acpi_read(&boot, map, &a);
	return a.present;
}

static void check_plain_pc(void)
{
	assert_int_equal(a.cpus, 0);
	for (unsigned i = 0; i < 16; i++)
		assert_true(a.isa[i].gsi == i && !a.isa[i].level && !a.isa[i].low);
	assert_false(a.have_s5 || a.reset_port || a.spcr_port || a.pm_timer || a.ioapics);
}

/* --- finding them */

static void no_tables(void **state)
{
	ram[RSDP] = 'X';
	assert_false(read_all());
	check_plain_pc();
}

static void rsdp_in_rom(void **state)
{
	assert_true(read_all());
	check_plain_pc();
	boot.search = false; /* UEFI: the loader says where it is */
	assert_false(read_all());
}

static void rsdp_with_wrong_checksum_is_passed_over(void **state)
{
	ram[RSDP + 9] ^= 1;
	rsdp(0xfff00, 0);
	assert_true(read_all());
	ram[0xfff09] ^= 1;
	assert_false(read_all());
}

static void rsdp_copy_of_the_loader(void **state)
{
	memcpy(boot.copy, ram + RSDP, 20);
	ram[RSDP] = 'X';
	assert_true(read_all());
	boot.copy[12] ^= 1;
	assert_false(read_all());
}

/* An SPCR that names this port, to see whether the table is found. */
#define SEEN 0x3f8
static const u8 spcr[44] = {0, 0, 0, 0, 1, 8, 0, 1, 0xf8, 0x03};

static void xsdt_before_rsdt(void **state)
{
	rsdp(RSDP, 2);
	table("SPCR", spcr, sizeof(spcr));
	put32(RSDT + 4, 36);
	finish(RSDT);
	assert_true(read_all());
	assert_int_equal(a.spcr_port, SEEN);
	/* A bad XSDT, then a bad second checksum: the RSDT serves. */
	ram[XSDT + 20] ^= 1;
	assert_true(read_all());
	assert_int_equal(a.spcr_port, 0);
	assert_non_null(strstr(host_log(), "table XSDT at 0x101000 is damaged"));
	ram[XSDT + 20] ^= 1;
	ram[RSDP + 33] ^= 1;
	assert_true(read_all());
	assert_int_equal(a.spcr_port, 0);
}

static void root_that_lies(void **state)
{
	table("SPCR", spcr, sizeof(spcr));
	put32(RSDT + 4, 35);
	assert_false(read_all());
	put32(RSDT + 4, 0xfffffff0);
	assert_false(read_all());
	put32(RSDT + 4, 38); /* no whole entry */
	finish(RSDT);
	assert_true(read_all());
	assert_int_equal(a.spcr_port, 0);
	memcpy(ram + RSDT, "RDST", 4);
	finish(RSDT);
	assert_false(read_all());
}

static void addresses_of_nothing(void **state)
{
	hpa_t pa = table("SPCR", spcr, sizeof(spcr));

	put32(RSDT + 36, 0xfffffff0);
	put32(RSDT + 40, 0);
	put32(RSDT + 44, (u32)pa);
	put32(RSDT + 4, 48);
	finish(RSDT);
	assert_true(read_all());
	assert_int_equal(a.spcr_port, SEEN);
}

/* --- MADT */

static const u8 madt[] = {
	0,   0,  0xe0, 0xfe, 1,  0,    0,    0, /* local APIC address, PC-AT compatible */
	0,   8,  0,    0,    1,  0,    0,    0, /* processors: enabled */
	0,   8,  1,    2,    0,  0,    0,    0, /* not enabled */
	0,   8,  2,    4,    3,  0,    0,    0, /* enabled */
	9,   16, 0,    0,    4,  0,    0,    0,    1,    0, 0, 0, 2, 0,  0, 0, /* x2APIC: the same again */
	9,   16, 0,    0,    0,  1,    0,    0,    1,    0, 0, 0, 3, 0,  0, 0, /* 256 */
	9,   16, 0,    0,    1,  1,    0,    0,    2,    0, 0, 0, 4, 0,  0, 0, /* only online capable */
	1,   12, 9,    0,    0,  0,    0xc0, 0xfe, 0,    0, 0, 0,              /* IOAPIC */
	1,   12, 10,   0,    0,  0x10, 0xc0, 0xfe, 24,   0, 0, 0, 2, 10, 0, 0, 2, 0, 0, 0, 0, 0, /* IRQ 0 is GSI 2 */
	2,   10, 0,    9,    9,  0,    0,    0,    0x0d, 0, /* IRQ 9: high, level */
	2,   10, 0,    10,   20, 0,    0,    0,    0x0f, 0, /* IRQ 10: low, level */
	2,   10, 0,    99,   20, 0,    0,    0,    0,    0, /* no ISA interrupt */
	2,   10, 1,    5,    20, 0,    0,    0,    0,    0, /* another bus */
	4,   6,  0xff, 0,    0,  1,                         /* NMI: of no interest */
	200, 3,  0,                                         /* from a later edition */
};

static void processors_and_ioapics(void **state)
{
	table("APIC", madt, sizeof(madt));
	assert_true(read_all());
	assert_int_equal(a.cpus, 3);
	assert_int_equal(a.apic_id[0], 0);
	assert_int_equal(a.apic_id[1], 4);
	assert_int_equal(a.apic_id[2], 256);
	assert_int_equal(a.ioapics, 2);
	assert_true(a.ioapic[1].base == 0xfec01000 && a.ioapic[1].gsi_base == 24);
	assert_int_equal(a.isa[0].gsi, 2);
	assert_true(a.isa[9].gsi == 9 && a.isa[9].level && !a.isa[9].low);
	assert_true(a.isa[10].gsi == 20 && a.isa[10].level && a.isa[10].low);
	assert_int_equal(a.isa[5].gsi, 5);
}

static void madt_damage(void **state)
{
	u8 m[8 + 8 + 4 + 8] = {0, 0, 0xe0, 0xfe, 0, 0, 0, 0, 0, 8, 0, 7, 1, 0, 0, 0, 3, 4};
	hpa_t pa = table("APIC", m, sizeof(m));

	assert_true(read_all()); /* a processor, then an entry of length 0 */
	assert_int_equal(a.cpus, 1);
	assert_int_equal(a.apic_id[0], 7);
	assert_non_null(strstr(host_log(), "damaged entry"));
	ram[pa + 36 + 8 + 8 + 1] = 200; /* one that reaches beyond the table */
	finish(pa);
	assert_true(read_all());
	assert_int_equal(a.cpus, 1);
	ram[pa + 9] ^= 1;
	assert_true(read_all());
	check_plain_pc();
}

static void more_processors_than_we_use(void **state)
{
	static u8 m[8 + 100 * 8 + 12 * 12];

	for (unsigned i = 0; i < 100; i++)
		memcpy(m + 8 + i * 8, (u8[]){0, 8, (u8)i, (u8)i, 1, 0, 0, 0}, 8);
	for (unsigned i = 0; i < 12; i++)
		memcpy(m + 808 + i * 12, (u8[]){1, 12, (u8)i, 0, 0, 0, 0xc0, 0xfe, (u8)(i * 8), 0, 0, 0}, 12);
	table("APIC", m, sizeof(m));
	assert_true(read_all());
	assert_int_equal(a.cpus, ACPI_MAX_CPUS);
	assert_non_null(strstr(host_log(), "APIC id 99 is one too many"));
	assert_int_equal(a.ioapics, ACPI_MAX_IOAPICS);
}

/* --- FADT and \_S5 */

static hpa_t dsdt_with(const void *aml, u32 len)
{
	hpa_t pa = next;

	next += (36 + len + 15) & ~15u;
	header(pa, "DSDT", 36 + len);
	memcpy(ram + pa + 36, aml, len);
	finish(pa);
	return pa;
}

static hpa_t fadt(u32 len, hpa_t dsdt)
{
	static u8 f[276 - 36];

	memset(f, 0, sizeof(f));
	hpa_t pa = table("FACP", f, len - 36);

	put32(pa + 40, (u32)dsdt);
	put32(pa + 48, 0xb2);
	ram[pa + 52] = 0xf1;
	put32(pa + 64, 0x604);
	put32(pa + 76, 0x608);
	put32(pa + 112, 1 << 8 | 1 << 10);
	if (len >= 129) {
		memcpy(ram + pa + 116, (u8[]){1, 8, 0, 1, 0xf9, 0x0c}, 6);
		ram[pa + 128] = 6;
	}
	finish(pa);
	return pa;
}

static const u8 aml_s5[] = {0x10, 0x20, '\\', 0, 0x08, '_', 'S', '5', '_', 0x12, 6, 4, 0x0a, 5, 0x01, 0, 0, 0};

static void fadt_revision_1(void **state)
{
	fadt(116, dsdt_with(aml_s5, sizeof(aml_s5)));
	assert_true(read_all());
	assert_true(a.pm1_cnt[0] == 0x604 && !a.pm1_cnt[1]);
	assert_true(a.pm_timer == 0x608 && a.pm_timer_32);
	assert_true(a.smi_cmd == 0xb2 && a.acpi_enable == 0xf1);
	assert_false(a.reset_port); /* the flag is set, but the table ends before the register */
	assert_true(a.have_s5 && a.s5[0] == 5 && a.s5[1] == 1);
}

static void fadt_extended_fields(void **state)
{
	hpa_t dsdt = dsdt_with(aml_s5, sizeof(aml_s5)), pa = fadt(244, 0);

	put64(pa + 140, dsdt);
	memcpy(ram + pa + 172, (u8[]){1, 16, 0, 2, 0x04, 0x08}, 6);
	memcpy(ram + pa + 208, (u8[]){0, 32, 0, 3, 0x08, 0x00, 0, 0xfe}, 8); /* the timer in memory: of no use to us */
	finish(pa);
	assert_true(read_all());
	assert_int_equal(a.pm1_cnt[0], 0x804);
	assert_int_equal(a.pm_timer, 0);
	assert_true(a.reset_port == 0xcf9 && a.reset_value == 6);
	assert_true(a.have_s5);
}

/* What it has is used; what it would have is absent, not read from behind it. */
static void fadt_cut_short(void **state)
{
	hpa_t pa = fadt(244, dsdt_with(aml_s5, sizeof(aml_s5)));

	put32(pa + 4, 110);
	finish(pa);
	assert_true(read_all());
	assert_true(a.have_s5 && a.pm1_cnt[0] == 0x604 && a.pm_timer == 0x608);
	assert_false(a.pm_timer_32 || a.reset_port);
}

static void try_s5(const u8 *aml, u32 len, bool found, u8 s5_a, u8 s5_b)
{
	setup(NULL);
	fadt(116, dsdt_with(aml, len));
	assert_true(read_all());
	assert_int_equal(a.have_s5, found);
	if (found)
		assert_true(a.s5[0] == s5_a && a.s5[1] == s5_b);
}
#define TRY_S5(found, s5_a, s5_b, ...) try_s5((const u8[]){__VA_ARGS__}, sizeof((u8[]){__VA_ARGS__}), found, s5_a, s5_b)
#define S5                             '_', 'S', '5', '_'

static void s5_in_all_its_spellings(void **state)
{
	TRY_S5(true, 0, 0, 8, S5, 0x12, 6, 4, 0, 0, 0, 0);
	TRY_S5(true, 7, 7, 8, '\\', S5, 0x12, 7, 4, 0x0a, 7, 0x0a, 7, 0, 0);
	TRY_S5(true, 5, 6, 8, S5, 0x12, 0x4b, 0, 4, 0x0a, 5, 0x0a, 6, 0, 0);
	TRY_S5(true, 7, 1, 8, S5, 0x12, 4, 2, 0xff, 1);
	TRY_S5(false, 0, 0, 8, S5, 0x12, 6);
	TRY_S5(false, 0, 0, 8, S5, 0x12, 6, 4);
	TRY_S5(false, 0, 0, 8, S5, 0x12, 6, 4, 0x0a);
	TRY_S5(false, 0, 0, 8, S5, 0x12, 0xc6, 0, 0);
	TRY_S5(false, 0, 0, 8, S5);
	TRY_S5(false, 0, 0, 8, S5, 0x11, 6, 4, 0, 0, 0, 0);
	/* The name used before it is defined. */
	TRY_S5(true, 3, 0, 0x70, S5, 0x60, 8, S5, 0x12, 6, 4, 0x0a, 3, 0, 0, 0);
}

static void s5_in_an_ssdt(void **state)
{
	fadt(116, dsdt_with("nothing", 7));
	table("SSDT", "nothing either", 14);
	table("SSDT", aml_s5, sizeof(aml_s5));
	assert_true(read_all());
	assert_true(a.have_s5 && a.s5[0] == 5);
}

/* --- the small ones */

static void spcr_table(void **state)
{
	table("SPCR", spcr, sizeof(spcr));
	assert_true(read_all());
	assert_int_equal(a.spcr_port, SEEN);
}

static void spcr_table_cut_short(void **state)
{
	table("SPCR", "\0\0\0\0\1\10\0\1", 8);
	assert_true(read_all());
	assert_false(a.spcr_port);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(no_tables, setup),
		cmocka_unit_test_setup(rsdp_in_rom, setup),
		cmocka_unit_test_setup(rsdp_with_wrong_checksum_is_passed_over, setup),
		cmocka_unit_test_setup(rsdp_copy_of_the_loader, setup),
		cmocka_unit_test_setup(xsdt_before_rsdt, setup),
		cmocka_unit_test_setup(root_that_lies, setup),
		cmocka_unit_test_setup(addresses_of_nothing, setup),
		cmocka_unit_test_setup(processors_and_ioapics, setup),
		cmocka_unit_test_setup(madt_damage, setup),
		cmocka_unit_test_setup(more_processors_than_we_use, setup),
		cmocka_unit_test_setup(fadt_revision_1, setup),
		cmocka_unit_test_setup(fadt_extended_fields, setup),
		cmocka_unit_test_setup(fadt_cut_short, setup),
		cmocka_unit_test_setup(s5_in_all_its_spellings, setup),
		cmocka_unit_test_setup(s5_in_an_ssdt, setup),
		cmocka_unit_test_setup(spcr_table, setup),
		cmocka_unit_test_setup(spcr_table_cut_short, setup),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	free(ram);
	return failed;
}
