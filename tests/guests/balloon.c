/* SPDX-License-Identifier: MIT */
/* Hypercalls (docs/hypercalls.md): memory is given back and taken again, torn to pieces and mended. */
#include "tests/guests/guest.h"

#define PAGE      4096ull
#define LARGE     (2ull << 20)
#define NOTHING   0xd0000000ull
#define ORDERS_2M 9

enum { BALLOON = 1, RECLAIM, FRAMES, DEBUG };
enum { REPORT, AUDIT, MAP };
enum { EPERM = 1, ENOENT = 2, EAGAIN = 11, EEXIST = 17, EINVAL = 22, ENOSYS = 38 };

static bool intel;

static long call(u64 number, u64 b, u64 c, u64 d)
{
	u64 a = number;

	if (intel)
		asm volatile("vmcall" : "+a"(a) : "b"(b), "c"(c), "d"(d) : "memory");
	else
		asm volatile("vmmcall" : "+a"(a) : "b"(b), "c"(c), "d"(d) : "memory");
	return (long)a;
}

/* Whether the hypervisor's leaves offer all calls that are used here. */
static bool find(void)
{
	struct cpuid top = cpuid(0x40000000, 0), calls = cpuid(0x40000001, 0);

	intel = cpuid(0, 0).b == 0x756e6547; /* "Genu" */
	return !bare() && top.b == 0x61656c43 && top.a >= 0x40000001 && calls.a >= 1 && (calls.b & 0x1e) == 0x1e;
}

/* Lines on the console are rationed. */
static long debug(u64 what, u64 from)
{
	long result;

	while ((result = call(DEBUG, what, from, 0)) == -EAGAIN)
		relax();
	return result;
}

static void show(void)
{
	debug(REPORT, 0);
	for (u64 gfn = 0; (gfn = (u64)debug(MAP, gfn));)
		continue;
}

static bool in_use(u64 start, u64 len)
{
	for (unsigned i = 0; i < useds; i++)
		if (start + len > used[i].start && start < used[i].start + used[i].len)
			return true;
	return false;
}

/* 2 MB of RAM, aligned, that nothing of ours is in; 0: none. */
static u64 free_2m(void)
{
	for (unsigned i = 0; i < rams; i++)
		for (u64 p = (ram[i].start + LARGE - 1) & ~(LARGE - 1); p + LARGE <= ram[i].start + ram[i].len;
		     p += LARGE)
			if (!in_use(p, LARGE))
				return p;
	return 0;
}

static void out_and_back(const char *name, u64 at, u64 order)
{
	volatile u64 *p = (u64 *)at;
	u64 gfn = at / PAGE, last = (PAGE << order) / 8 - 1;

	p[0] = p[last] = 0x1122334455667788;
	long out = call(BALLOON, gfn, order, 1), again = call(BALLOON, gfn, order, 1);
	u64 absent = p[0] & p[last];
	p[0] = 1;
	long back = call(RECLAIM, gfn, order, 1), twice = call(RECLAIM, gfn, order, 1);
	check(name, out == 1 && again == -EEXIST && !~absent && back == 1 && twice == -ENOENT && !p[0] && !p[last],
	      "out=%lu again=%lu read=0x%lx back=%lu twice=%lu then=0x%lx", (u64)out, (u64)again, absent, (u64)back,
	      (u64)twice, p[0] | p[last]);
}

/* Much is done in several calls, each of which says how far it has come. */
static void batch(u64 at)
{
	u64 gfn = at / PAGE, limit = cpuid(0x40000001, 0).c, all = limit + limit / 2;

	long first = call(BALLOON, gfn, 0, all), rest = call(BALLOON, gfn + limit, 0, all - limit);
	long over = call(RECLAIM, gfn + all - 1, 0, 2); /* the second one was not given back */
	long back = call(RECLAIM, gfn, 0, all), last = call(RECLAIM, gfn + limit, 0, all - limit - 1);
	check("balloon-batch",
	      first == (long)limit && rest == (long)(all - limit) && over == 1 && back == (long)limit &&
		      last == (long)(all - limit - 1) && call(BALLOON, gfn, 0, 0) == 0,
	      "limit=%lu: %lu %lu %lu %lu %lu", limit, (u64)first, (u64)rest, (u64)over, (u64)back, (u64)last);
}

static void errors(u64 at)
{
	const struct {
		u64 number, b, c, d;
		long result;
	} t[] = {
		{0, 0, 0, 0, -ENOSYS},
		{5, 0, 0, 1, -ENOSYS},
		{~0ull, 0, 0, 1, -ENOSYS},
		{BALLOON, at / PAGE + 1, 9, 1, -EINVAL},
		{RECLAIM, at / PAGE + 1, 9, 1, -EINVAL},
		{BALLOON, at / PAGE, 1, 1, -EINVAL},
		{BALLOON, at / PAGE, 18, 1, -EINVAL},
		{BALLOON, at / PAGE, ~0ull, 1, -EINVAL},
		{BALLOON, ~0ull, 0, 1, -EINVAL},
		{BALLOON, 1ull << 52, 0, 1, -EINVAL},
		{RECLAIM, ~0ull << 9, 9, ~0ull, -EINVAL},
		{BALLOON, LAPIC / PAGE, 0, 1, -EPERM},
		{BALLOON, NOTHING / PAGE, 0, 1, -EPERM},
		{BALLOON, NOTHING / PAGE, 9, 1, -EPERM},
		{BALLOON, 0xf0, 0, 1, -EPERM}, /* ROM */
		{BALLOON, 0, 9, 1, -EPERM},    /* RAM, hole, ROM and RAM */
		{RECLAIM, at / PAGE, 0, 1, -ENOENT},
		{RECLAIM, LAPIC / PAGE, 0, 1, -EPERM},
		{RECLAIM, 0, 9, 1, -EPERM},
		{FRAMES, 1, 0, 0, -EINVAL},
		{FRAMES, ~0ull, 0, 0, -EINVAL},
		{DEBUG, 3, 0, 0, -EINVAL},
		{DEBUG, MAP, 1ull << 52, 0, -EINVAL},
	};

	for (unsigned i = 0; i < ARRAY_LEN(t); i++) {
		long got = call(t[i].number, t[i].b, t[i].c, t[i].d);
		if (got == t[i].result)
			continue;
		failed("hypercall-errors", "call %u: -%lu, not -%lu", i, (u64)-got, (u64)-t[i].result);
		return;
	}
	ok("hypercall-errors");
}

static void balloon(void)
{
	u64 at = free_2m();

	if (bare())
		return;
	check("hypercall-leaf", find() && at, "none, or no memory to try it with");
	if (!at)
		return;
	out_and_back("balloon-4k", at + 5 * PAGE, 0);
	out_and_back("balloon-2m", at, ORDERS_2M);
	batch(at);
	errors(at);
	check("hypercall-audit", debug(AUDIT, 0) == 0, "errors");
}

/* Every second page goes out, or comes back, in another frame. Returns how many. */
static u64 every_second(u64 number)
{
	u64 done = 0;

	for (unsigned i = 0; i < rams; i++)
		for (u64 p = (ram[i].start | PAGE) & ~(PAGE - 1); p + PAGE <= ram[i].start + ram[i].len; p += 2 * PAGE)
			if (!in_use(p, PAGE))
				done += call(number, p / PAGE, 0, 1) == 1;
	return done;
}

static u64 permille(void)
{
	u64 all = (u64)call(FRAMES, 0, 0, 0);

	return all ? (u64)call(FRAMES, 9, 0, 0) * 1000 / all : 0;
}

/* Leaves the guest's memory in pieces, for who comes next. */
static void shred(void)
{
	if (!find())
		return;
	u64 out = every_second(BALLOON), least = permille();
	debug(REPORT, 0);
	u64 back = every_second(RECLAIM);
	debug(REPORT, 0);
	check("shred", out && out == back && least < 20, "out=%lu back=%lu permille=%lu", out, back, least);
}

#define STAMP(p) ((p)*0x9e3779b97f4a7c15ull)

static u64 stamps(bool write)
{
	u64 wrong = 0;

	for (unsigned i = 0; i < rams; i++)
		for (u64 p = ram[i].start & ~(PAGE - 1); p + PAGE <= ram[i].start + ram[i].len; p += PAGE) {
			volatile u64 *at = (u64 *)(p + 8);
			if (!p || in_use(p, PAGE))
				continue;
			if (write)
				*at = STAMP(p);
			wrong += *at != STAMP(p);
		}
	return wrong;
}

/* Memory in pieces becomes whole again by itself, while we write to it, and nothing is lost. */
static void fragment(void)
{
	if (!find())
		return;
	u64 before = permille(), until = rdtsc() + tsc_khz * 100000, n = 0;
	show();
	u64 out = every_second(BALLOON), least = permille();
	show();
	u64 back = every_second(RECLAIM), at = free_2m();
	show();
	u64 wrong = stamps(true);
	for (; permille() < 990 && rdtsc() < until; n++)
		*(volatile u64 *)(at + n % 512 * PAGE + 16) = STAMP(n); /* now and then where a page is being moved */
	show();
	wrong += stamps(false);
	for (u64 i = n > 512 ? n - 512 : 0; i < n; i++)
		wrong += *(volatile u64 *)(at + i % 512 * PAGE + 16) != STAMP(i);
	check("fragment", out && out == back && least < 20 && permille() >= 990 && !wrong,
	      "out=%lu back=%lu permille=%lu,%lu,%lu wrong=%lu", out, back, before, least, permille(), wrong);
	check("fragment-audit", debug(AUDIT, 0) == 0, "errors");
}

const struct test balloon_tests[] = {
	{"balloon", balloon, true},
	{"fragment", fragment, false},
	{"shred", shred, false},
	{NULL, NULL, false},
};
