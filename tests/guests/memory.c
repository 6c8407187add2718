/* SPDX-License-Identifier: MIT */
/* RAM is all there, empty and ours; what is not RAM behaves as on a PC. */
#include "tests/guests/guest.h"

#define PAGE        4096ull
#define HOLE        0xd0000000ull /* between the end of low RAM and the IOAPIC: nothing is there */
#define OPTION_ROMS 0xc0000ull
#define ROM         0xe0000ull

static u64 ram_end_below(u64 limit)
{
	u64 end = 0;
	for (unsigned i = 0; i < rams; i++)
		if (ram[i].start < limit && ram[i].start + ram[i].len > end)
			end = ram[i].start + ram[i].len;
	return end;
}

/* All memory that the loader tells of, the legacy hole counted as Cleave's map does. */
static void size(void)
{
	u64 low = ram_end_below(4ull << 30), high = ram_end_below(~0ull), want = option_number("memory", 0);
	u64 total = low + (high > 4ull << 30 ? high - (4ull << 30) : 0);

	if (!want || bare())
		return;
	check("memory-size", total == want, "found=%lu wanted=%lu", total, want);
	for (unsigned i = 0; i < rams; i++)
		if (ram[i].start < 0x100000 && ram[i].start + ram[i].len > 0xa0000)
			failed("memory-hole", "RAM at 0x%lx reaches into the video hole", ram[i].start);
}

static bool in_use(u64 page)
{
	for (unsigned i = 0; i < useds; i++)
		if (page + PAGE > used[i].start && page < used[i].start + used[i].len)
			return true;
	return false;
}

static u64 first_nonzero(const u64 *p)
{
	u64 any = 0;
	for (unsigned i = 0; i < 512; i += 8)
		any |= p[i] | p[i + 1] | p[i + 2] | p[i + 3] | p[i + 4] | p[i + 5] | p[i + 6] | p[i + 7];
	for (unsigned i = 0; any && i < 512; i++)
		if (p[i])
			return (u64)&p[i];
	return 0;
}

/* Nothing of an earlier owner is left: every page that the loader has not filled is zero. */
static void zeroed(void)
{
	u64 pages = 0;

	if (bare())
		return;
	for (unsigned i = 0; i < rams; i++)
		for (u64 p = (ram[i].start + PAGE - 1) & ~(PAGE - 1); p + PAGE <= ram[i].start + ram[i].len;
		     p += PAGE) {
			if (in_use(p))
				continue;
			u64 bad = first_nonzero((const u64 *)p);
			if (bad) {
				failed("memory-zeroed", "at=0x%lx value=0x%lx", bad, *(u64 *)bad);
				return;
			}
			pages++;
		}
	ok("memory-zeroed", "pages=%lu", pages);
}

/* A different value in each of many pages: no two guest pages are one machine page. */
static void distinct(void)
{
	u64 written = 0, wrong = 0;

	for (int pass = 0; pass < 2; pass++)
		for (unsigned i = 0; i < rams; i++)
			for (u64 p = ram[i].start < 0x100000 ? ~0ull : ram[i].start + 1024 * PAGE;
			     p < ram[i].start + ram[i].len - PAGE; p += 37 * PAGE) {
				if (in_use(p))
					continue;
				volatile u64 *at = (u64 *)(p & ~(PAGE - 1)) + 511;
				if (pass == 0)
					*at = p * 0x9e3779b97f4a7c15ull, written++;
				else
					wrong += *at != p * 0x9e3779b97f4a7c15ull, *at = 0;
			}
	check("memory-distinct", !wrong, "wrong=%lu of %lu", wrong, written);
}

/* Fills what is free with a pattern, for a successor to find if it can. */
static void fill(void)
{
	for (unsigned i = 0; i < rams; i++)
		for (u64 p = (ram[i].start + PAGE - 1) & ~(PAGE - 1); p + PAGE <= ram[i].start + ram[i].len; p += PAGE)
			if (p && !in_use(p))
				memset((void *)p, 0x5a, PAGE);
	ok("memory-fill");
}

static void hole(void)
{
	volatile u8 *p = (u8 *)HOLE;
	bool ones = p[1] == 0xff && *(volatile u16 *)(p + 2) == 0xffff && *(volatile u32 *)(p + 8) == 0xffffffff &&
		    *(volatile u64 *)(p + 16) == ~0ull && *(volatile u32 *)(p + 0xffe) == 0xffffffff;

	if (bare())
		return;
	check("hole-reads-ones", ones, "byte=0x%x long=0x%x", p[1], *(volatile u32 *)(p + 8));
	p[1] = 0x55;
	*(volatile u64 *)(p + 16) = 0x1122334455667788;
	check("hole-ignores-writes", p[1] == 0xff && *(volatile u64 *)(p + 16) == ~0ull, "byte=0x%x", p[1]);
}

static void rom(void)
{
	unsigned changed = 0;
	u64 found = 0;

	if (bare())
		return;
	for (u64 at = OPTION_ROMS; at < ROM; at += 512)
		found |= *(volatile u64 *)at;
	check("option-roms-are-none", !found, "bits=0x%lx", found);
	for (u64 at = ROM; at < 0x100000; at += 0x1000) {
		volatile u32 *p = (u32 *)at;
		u32 before = *p;
		*p = ~before;
		asm volatile("lock incl %0" : "+m"(*(u32 *)at) : : "memory");
		changed += *p != before;
	}
	check("rom-ignores-writes", !changed, "pages=%u", changed);
}

static u8 sum(const u8 *p, u64 n)
{
	u8 s = 0;
	for (; n; n--)
		s = (u8)(s + *p++);
	return s;
}

struct sdt {
	char sig[4];
	u32 len;
	u8 rev, checksum;
	char oem[6], table[8];
	u32 oem_rev, creator, creator_rev;
} __attribute__((packed));

/* An RSDP where a BIOS has it, and every table under its XSDT with a right checksum. */
static void acpi(void)
{
	const u8 *p;
	unsigned tables = 0;
	char seen[5] = "";

	if (bare())
		return;
	for (p = (const u8 *)ROM; p < (const u8 *)0x100000; p += 16)
		if (!memcmp(p, "RSD PTR ", 8) && !sum(p, 20))
			break;
	if (p >= (const u8 *)0x100000) {
		failed("acpi-rsdp", "none between 0xe0000 and 0xfffff");
		return;
	}
	check("acpi-rsdp", p[15] >= 2 && !sum(p, 36), "revision=%u", p[15]);
	const struct sdt *xsdt = *(const struct sdt **)(p + 24);
	bool good = !memcmp(xsdt->sig, "XSDT", 4) && !sum((const u8 *)xsdt, xsdt->len);
	for (u64 i = 0; good && i < (xsdt->len - sizeof(*xsdt)) / 8; i++, tables++) {
		const struct sdt *t = *(const struct sdt **)((const u8 *)(xsdt + 1) + 8 * i);
		memcpy(seen, t->sig, 4);
		good = !sum((const u8 *)t, t->len);
	}
	check("acpi-tables", good && tables >= 2, "tables=%u last=%s", tables, seen);
}

/* The first module, if there is one, holds what the test that starts us has put there: `module=FIRSTWORD`. */
static void modules_there(void)
{
	const char *want = option("module");
	size_t n = 0;

	while (want && want[n] && want[n] != ' ')
		n++;
	if (n)
		check("module", modules && module[0].len >= n && !memcmp((void *)module[0].start, want, n),
		      "modules=%u", modules);
}

const struct test memory_tests[] = {
	{"memory-size", size, true},
	{"memory-zeroed", zeroed, true},
	{"memory-distinct", distinct, true},
	{"hole", hole, true},
	{"rom-write", rom, true},
	{"acpi", acpi, true},
	{"module", modules_there, true},
	{"memory-fill", fill, false},
	{NULL, NULL, false},
};
