/* SPDX-License-Identifier: MIT */
/* Output, verdicts, the list of tests, and the end. */
#include "tests/guests/guest.h"

#include <stdarg.h>

#define COM1 0x3f8

static unsigned passed_checks, failed_checks;

static void put(char c)
{
	if (c == '\n')
		put('\r');
	for (unsigned i = 0; i < 1000000 && !(inb(COM1 + 5) & 0x20); i++)
		relax();
	outb(COM1, (u8)c);
}

static void put_number(u64 v, unsigned base, unsigned width, char pad)
{
	char text[24];
	unsigned n = 0;

	do
		text[n++] = "0123456789abcdef"[v % base];
	while (v /= base);
	for (; width > n; width--)
		put(pad);
	while (n)
		put(text[--n]);
}

static void vprint(const char *fmt, va_list ap)
{
	for (; *fmt; fmt++) {
		if (*fmt != '%') {
			put(*fmt);
			continue;
		}
		char pad = *++fmt == '0' ? '0' : ' ';
		unsigned width = 0, longs = 0;
		for (; *fmt >= '0' && *fmt <= '9'; fmt++)
			width = width * 10 + (unsigned)(*fmt - '0');
		for (; *fmt == 'l'; fmt++)
			longs++;
		if (*fmt == 's') {
			for (const char *s = va_arg(ap, const char *); *s; s++)
				put(*s);
		} else if (*fmt == 'c') {
			put((char)va_arg(ap, int));
		} else {
			u64 v = longs ? va_arg(ap, u64) : va_arg(ap, u32);
			put_number(v, *fmt == 'x' ? 16 : 10, width, pad);
		}
	}
}

void print(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
}

void verdict(const char *name, bool good, const char *fmt, ...)
{
	va_list ap;

	print("@check name=%s %s%s", name, good ? "ok" : "failed", *fmt ? " " : "");
	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
	print("\n");
	if (good)
		passed_checks++;
	else
		failed_checks++;
}

/* S5 with Cleave's sleep type, then with that of QEMU's PC and Bochs', then QEMU's exit device. */
void power_off(void)
{
	while (!(inb(COM1 + 5) & 0x40))
		relax();
	outw(0x604, 5 << 10 | 1 << 13);
	outw(0x604, 1 << 13);
	outw(0xb004, 1 << 13);
	outb(0xf4, failed_checks ? 1 : 0);
	cli();
	for (;;)
		asm volatile("hlt");
}

bool named(const char *list, const char *name)
{
	size_t n = strlen(name);
	while (*list && *list != ' ') {
		if (!memcmp(list, name, n) && (list[n] == ',' || list[n] == ' ' || !list[n]))
			return true;
		while (*list && *list != ' ' && *list++ != ',')
			;
	}
	return false;
}

void guest_main(u32 magic, u64 info);

void guest_main(u32 magic, u64 info)
{
	static const struct test *const groups[] = {memory_tests,   cpu_tests,   step_tests, io_tests,
						    realmode_tests, timer_tests, smp_tests,  balloon_tests,
						    bench_tests,    linux_tests, bad_tests};

	outb(COM1 + 1, 0);
	outb(COM1 + 3, 0x80);
	outb(COM1, 1);
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 3);
	outb(COM1 + 2, 7);
	traps_load();
	boot_parse(magic, info);
	const char *wanted = option("test");
	print("@tiny loader=%s test=", loader);
	for (const char *p = wanted ? wanted : "all"; *p && *p != ' '; p++)
		put(*p);
	print("\n");
	pic_init(0xffff);
	lapic_init();
	time_init();
	for (size_t g = 0; g < ARRAY_LEN(groups); g++)
		for (const struct test *t = groups[g]; t->name; t++)
			if (wanted && !named(wanted, "all") ? named(wanted, t->name) : t->usual)
				t->run();
	print("@guest passed=%u failed=%u\n", passed_checks, failed_checks);
	power_off();
}

void *memcpy(void *to, const void *from, size_t n)
{
	void *at = to;
	asm volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(n) : : "memory");
	return to;
}

void *memset(void *to, int c, size_t n)
{
	void *at = to;
	asm volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(c) : "memory");
	return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *x = a, *y = b;
	for (; n; n--, x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}

int strcmp(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a - *b;
}

size_t strlen(const char *s)
{
	size_t n = 0;
	while (s[n])
		n++;
	return n;
}
