/* SPDX-License-Identifier: MIT */
/* ACPI tables as a guest finds them: by scanning for the RSDP and following addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "devices/platform.h"
#include "guest/load.h"
#include "lib/errno.h"
#include "mm/frames.h"
#include "tests/host/host.h"

static struct p2m p2m;
static u8 rom[GUEST_ROM_SIZE];
static u8 aml[600] = "DSDT";

static int set_up(void **state)
{
	host_machine(32 * MB);
	assert_int_equal(p2m_init(&p2m, &pt_format_long, OWNER_GUEST, ORDER_1G, 40), 0);
	gfn_t first = gpa_to_gfn(GUEST_ROM_BASE);
	assert_int_equal(p2m_add_slot(&p2m, first, GUEST_ROM_SIZE / PAGE_SIZE, P2M_RO), 0);
	assert_int_equal(p2m_populate(&p2m, first), 0);
	return 0;
}

static int tear_down(void **state)
{
	p2m_free(&p2m);
	host_machine_free();
	return 0;
}

static int write_tables(unsigned vcpus, u64 dsdt_size, gpa_t *rsdp)
{
	struct blob dsdt = {"dsdt", aml, dsdt_size};
	int err = tables_write(&p2m, vcpus, &dsdt, rsdp);
	assert_int_equal(p2m_read(&p2m, GUEST_ROM_BASE, rom, sizeof(rom)), 0);
	return err;
}

static u64 get(const u8 *p, size_t bytes)
{
	u64 v = 0;
	memcpy(&v, p, bytes);
	return v;
}

static u8 sum(const u8 *p, u64 len)
{
	u8 s = 0;
	while (len--)
		s += *p++;
	return s;
}

static const u8 *at(gpa_t a)
{
	assert_in_range(a, GUEST_ACPI_BASE, GUEST_ROM_BASE + GUEST_ROM_SIZE - 64);
	return rom + (a - GUEST_ROM_BASE);
}

static const u8 *table(gpa_t a, const char *sig, u8 revision)
{
	const u8 *t = at(a);
	assert_memory_equal(t, sig, 4);
	assert_int_equal(t[8], revision);
	assert_in_range(get(t + 4, 4), 36, rom + sizeof(rom) - t);
	assert_int_equal(sum(t, get(t + 4, 4)), 0);
	assert_memory_equal(t + 10, "CLEAVECLEAVEPC", 14);
	return t;
}

static void roots(void **state)
{
	gpa_t rsdp;
	assert_int_equal(write_tables(1, sizeof(aml), &rsdp), 0);
	const u8 *r = rom;
	while (memcmp(r, "RSD PTR ", 8))
		r += 16;
	assert_ptr_equal(r, at(rsdp));
	assert_int_equal(r[15], 2);
	assert_int_equal(get(r + 20, 4), 36);
	assert_int_equal(sum(r, 20), 0);
	assert_int_equal(sum(r, 36), 0);
	const u8 *rsdt = table(get(r + 16, 4), "RSDT", 1), *xsdt = table(get(r + 24, 8), "XSDT", 1);
	assert_int_equal(get(rsdt + 4, 4), 36 + 8);
	assert_int_equal(get(xsdt + 4, 4), 36 + 16);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(get(rsdt + 36 + 4 * i, 4), get(xsdt + 36 + 8 * i, 8));
}

static gpa_t entry(gpa_t rsdp, unsigned i) { return get(at(get(at(rsdp) + 24, 8)) + 36 + 8 * i, 8); }

static void gas(const u8 *g, u8 width, u8 access, u16 port)
{
	const u8 want[12] = {1, width, 0, access, (u8)port, (u8)(port >> 8)};
	assert_memory_equal(g, want, 12);
}

static void fadt(void **state)
{
	static const u8 none[12];
	gpa_t rsdp;
	assert_int_equal(write_tables(1, sizeof(aml), &rsdp), 0);
	const u8 *f = table(entry(rsdp, 0), "FACP", 5);
	assert_int_equal(get(f + 4, 4), 268);
	assert_int_equal(get(f + 132, 8), 0); /* given twice, Linux finds two */
	assert_int_equal(get(f + 40, 4), get(f + 140, 8));
	assert_memory_equal(at(get(f + 140, 8)), aml, sizeof(aml));
	const u8 *facs = at(get(f + 36, 4));
	assert_memory_equal(facs, "FACS", 4);
	assert_int_equal(get(facs + 4, 4), 64);
	assert_int_equal(get(f + 36, 4) % 64, 0);
	assert_int_equal(facs[32], 2);
	assert_int_equal(get(f + 46, 2), SCI_IRQ);
	assert_int_equal(get(f + 48, 4), 0); /* no SMI_CMD: always in ACPI mode */
	assert_int_equal(get(f + 56, 4), PM_EVT_PORT);
	assert_int_equal(get(f + 64, 4), PM_CNT_PORT);
	assert_int_equal(get(f + 76, 4), PM_TMR_PORT);
	assert_int_equal(get(f + 88, 4), 0x04000204); /* lengths: event, control, PM2, timer */
	assert_int_equal(f[108], 0x32);
	assert_int_equal(get(f + 109, 2), 5); /* legacy devices, no VGA, no 8042 */
	assert_int_equal(get(f + 112, 4), 0x575);
	gas(f + 116, 8, 1, RESET_PORT);
	assert_int_equal(f[128], 6);
	gas(f + 148, 32, 2, PM_EVT_PORT);
	assert_memory_equal(f + 160, none, 12);
	gas(f + 172, 16, 2, PM_CNT_PORT);
	gas(f + 208, 32, 3, PM_TMR_PORT);
	assert_memory_equal(f + 220, none, 12); /* no GPEs */
}

static void madt(void **state)
{
	gpa_t rsdp;
	assert_int_equal(write_tables(MAX_VCPUS, sizeof(aml), &rsdp), 0);
	const u8 *m = table(entry(rsdp, 1), "APIC", 3), *end = m + get(m + 4, 4);
	unsigned lapics = 0, overrides = 0, ioapics = 0, nmis = 0;
	assert_int_equal(get(m + 36, 4), LAPIC_DEFAULT_BASE);
	assert_int_equal(get(m + 40, 4), 1);
	for (const u8 *e = m + 44; e < end; e += e[1]) {
		static const u8 irq0[] = {2, 10, 0, 0, 2, 0, 0, 0, 0, 0}, sci[] = {2, 10, 0, 9, 9, 0, 0, 0, 13, 0};
		static const u8 nmi[] = {4, 6, 0xff, 0, 0, 1};
		assert_in_range(e[1], 6, end - e);
		if (e[0] == 0) {
			const u8 want[] = {0, 8, (u8)lapics, (u8)lapics, 1, 0, 0, 0};
			assert_memory_equal(e, want, 8);
			lapics++;
		} else if (e[0] == 1) {
			assert_int_equal(get(e + 4, 4), IOAPIC_BASE);
			assert_int_equal(get(e + 8, 4), 0);
			ioapics++;
		} else if (e[0] == 2) {
			assert_memory_equal(e, overrides++ ? sci : irq0, 10);
		} else {
			assert_memory_equal(e, nmi, 6);
			nmis++;
		}
	}
	assert_int_equal(lapics, MAX_VCPUS);
	assert_int_equal(overrides, 2);
	assert_int_equal(ioapics, 1);
	assert_int_equal(nmis, 1);
}

static void refused(void **state)
{
	static u8 large[GUEST_ROM_BASE + GUEST_ROM_SIZE - GUEST_ACPI_BASE];
	struct blob dsdt = {"dsdt", large, sizeof(large)};
	gpa_t rsdp;
	assert_int_equal(tables_write(&p2m, 1, &dsdt, &rsdp), -ENOSPC);
	dsdt.size -= 128; /* it fits, but nothing behind it */
	assert_int_equal(tables_write(&p2m, 1, &dsdt, &rsdp), -ENOSPC);
}

static void no_rom(void **state)
{
	static struct p2m nothing;
	struct blob dsdt = {"dsdt", aml, sizeof(aml)};
	gpa_t rsdp;
	assert_int_equal(p2m_init(&nothing, &pt_format_long, OWNER_GUEST + 1, ORDER_1G, 40), 0);
	assert_int_equal(tables_write(&nothing, 1, &dsdt, &rsdp), -EFAULT);
	p2m_free(&nothing);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {T(roots), T(fadt), T(madt), T(refused), T(no_rom)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
