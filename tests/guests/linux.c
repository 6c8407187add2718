/* SPDX-License-Identifier: MIT */
/*
 * test=linux: starts a Linux kernel that is our first module, with the second as its initrd, by the 64-bit boot
 * protocol (Linux Documentation/x86/boot.rst), and prints the TSC at that moment. So the same program starts the same
 * kernel on the bare machine and under a hypervisor, and what lies between is counted from the same point. The kernel's
 * command line is what follows ` -- ` in ours.
 */
#include "tests/guests/guest.h"

static u8 params[4096] __attribute__((aligned(4096)));

static u32 get32(const u8 *p) { return *(const u32 *)p; }
static u64 get64(const u8 *p) { return *(const u64 *)p; }

static void move_up_or_down(u64 to, u64 from, u64 n)
{
	if (to <= from || to >= from + n) {
		memcpy((void *)to, (const void *)from, n);
		return;
	}
	to += n - 1;
	from += n - 1;
	asm volatile("std; rep movsb; cld" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

/* A place for n bytes at the end of the RAM below 2 GB, where no kernel unpacks itself. */
static u64 high_place(u64 n)
{
	u64 best = 0;
	for (unsigned i = 0; i < rams; i++)
		if (ram[i].start < 1ull << 31) {
			u64 end = ram[i].start + ram[i].len;
			if (end > 1ull << 31)
				end = 1ull << 31;
			if (end > best)
				best = end;
		}
	return (best - n - 0x100000) & ~0xfffull;
}

static void fill_e820(void)
{
	u8 *e = params + 0x2d0;
	for (unsigned i = 0; i < rams; i++, e += 20) {
		*(u64 *)e = ram[i].start;
		*(u64 *)(e + 8) = ram[i].len;
		*(u32 *)(e + 16) = 1;
	}
	params[0x1e8] = (u8)rams;
}

static void start_linux(void)
{
	const char *line = option("--");
	const u8 *image = (const u8 *)module[0].start;

	if (modules < 2 || get32(image + 0x202) != 0x53726448) {
		failed("linux", "a bzImage and an initrd are wanted as modules, there are %u", modules);
		return;
	}
	line = line ? line : "";
	while (*line == ' ')
		line++;
	u64 setup = (image[0x1f1] ? image[0x1f1] : 4) * 512ull + 512;
	memcpy(params + 0x1f1, image + 0x1f1, 0x11ull + image[0x201]);
	u64 initrd = high_place(module[1].len), kernel = get64(image + 0x258);
	move_up_or_down(initrd, module[1].start, module[1].len);
	*(u32 *)(params + 0x218) = (u32)initrd;
	*(u32 *)(params + 0x21c) = (u32)module[1].len;
	*(u32 *)(params + 0x228) = (u32)(u64)line;
	params[0x210] = 0xff;
	*(u64 *)(params + 0x70) = rsdp;
	fill_e820();
	move_up_or_down(kernel, (u64)image + setup, module[0].len - setup);
	while (!(inb(0x3fd) & 0x40))
		relax();
	print("@linux tsc=%lu\n", rdtsc());
	cli();
	asm volatile("jmp *%0" : : "r"(kernel + 0x200), "S"(params) : "memory");
}

const struct test linux_tests[] = {{"linux", start_linux, false}, {NULL, NULL, false}};
