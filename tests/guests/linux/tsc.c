/* SPDX-License-Identifier: MIT */
/* A Linux program without libc: prints the TSC, as the first thing that init does (see tools/bench.py). */

static long syscall3(long n, long a, long b, long c)
{
	long r;
	asm volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return r;
}

void _start(void);

__attribute__((force_align_arg_pointer)) void _start(void)
{
	char text[40] = "@init tsc=", digit[20];
	unsigned lo, hi;
	int at = 10, n = 0;

	asm volatile("rdtsc" : "=a"(lo), "=d"(hi));
	unsigned long v = (unsigned long)hi << 32 | lo;
	do
		digit[n++] = (char)('0' + v % 10);
	while (v /= 10);
	while (n)
		text[at++] = digit[--n];
	text[at++] = '\n';
	syscall3(1, 1, (long)text, at);
	syscall3(60, 0, 0, 0);
}
