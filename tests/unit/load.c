/* SPDX-License-Identifier: MIT */
/* Kernels of each format, made by hand: what arrives in guest memory, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guest/load.h"
#include "lib/errno.h"
#include "mm/frames.h"
#include "tests/host/host.h"

static struct p2m p2m;
static struct memmap map;
static struct start_state start;
static struct load_error error;
static u8 file[64 * KB]; /* the kernel */
static struct blob kernel = {"vmlinuz", file, 0};
static struct blob module[64];
static struct load_input in;

static void add(gpa_t first, gpa_t end, enum p2m_type type)
{
	if (end <= first)
		return;
	assert_int_equal(p2m_add_slot(&p2m, gpa_to_gfn(first), (end - first) / PAGE_SIZE, type), 0);
	assert_int_equal(p2m_populate(&p2m, gpa_to_gfn(first)), 0);
}

static void machine(u64 memory)
{
	host_machine(ROUND_UP(memory, 2 * MB) + 64 * MB);
	assert_int_equal(p2m_init(&p2m, &pt_format_long, OWNER_GUEST, ORDER_1G, 40), 0);
	memmap_build(&map, memory);
	add(0, 0xa0000, P2M_RAM);
	add(GUEST_ROM_BASE, GUEST_ROM_BASE + GUEST_ROM_SIZE, P2M_RO);
	add(MB, map.low_end, P2M_RAM);
	memset(file, 0, sizeof(file));
	in = (struct load_input){.p2m = &p2m, .map = &map, .kernel = &kernel, .module = module, .cmdline = "a=b c"};
}

static int set_up(void **state)
{
	machine(64 * MB);
	return 0;
}

static int tear_down(void **state)
{
	p2m_free(&p2m);
	host_machine_free();
	return 0;
}

static void put(u64 at, u64 v, size_t bytes) { memcpy(file + at, &v, bytes); }
static void put32(u64 at, u64 v) { put(at, v, 4); }

static u64 get(gpa_t at, size_t bytes)
{
	u64 v = 0;
	assert_int_equal(p2m_read(&p2m, at, &v, bytes), 0);
	return v;
}
static u32 get32(gpa_t at) { return (u32)get(at, 4); }

static void assert_text(gpa_t at, const char *want)
{
	char text[256];
	assert_int_equal(p2m_read(&p2m, at, text, strlen(want) + 1), 0);
	assert_string_equal(text, want);
}

static void load_ok(void)
{
	int err = load_kernel(&in, &start, &error);
	assert_string_equal(error.text, "");
	assert_int_equal(err, 0);
}

static void load_error(int err, const char *want)
{
	assert_int_equal(load_kernel(&in, &start, &error), err);
	assert_string_equal(error.text, want);
}

static void give_module(const char *name, const void *data, u64 size)
{
	module[in.modules++] = (struct blob){name, data, size};
}

/* Linux */

enum { CODE = 1024, CODE_SIZE = 4096, PREF = 16 * MB, ALIGN = 2 * MB, INIT_SIZE = 8 * MB };

static void make_linux(void)
{
	file[0x1f1] = 1;
	put32(0x1f4, CODE_SIZE / 16);
	put(0x1fe, 0xaa55, 2);
	put(0x200, 0x6aeb, 2);
	memcpy(file + 0x202, "HdrS", 4);
	put(0x206, 0x20f, 2);
	put32(0x22c, 0x7fffffff);
	put32(0x230, ALIGN);
	file[0x234] = 1;
	put(0x236, 1, 2);
	put32(0x238, 2047);
	put(0x258, PREF, 8);
	put32(0x260, INIT_SIZE);
	put32(0x268, 0x12345678); /* of a later protocol: handed on as it is */
	memset(file + CODE, 0xc0, CODE_SIZE);
	kernel.size = CODE + CODE_SIZE;
}

static void linux_start(void **state)
{
	make_linux();
	in.rsdp = 0xe0000;
	load_ok();
	gpa_t zp = start.rsi;
	assert_true(start.long_mode);
	assert_int_equal(start.rip, PREF + 0x200);
	assert_int_equal(get(PREF, 8), 0xc0c0c0c0c0c0c0c0);
	assert_int_equal(get(PREF + CODE_SIZE - 1, 2), 0xc0);
	assert_in_range(zp, 0x10000, 0x9f000 - 1);
	assert_int_equal(get(zp + 0x1ef, 1), 0);
	assert_int_equal(get32(zp + 0x202), 0x53726448);
	assert_int_equal(get(zp + 0x210, 1), 0xff);
	assert_int_equal(get32(zp + 0x214), PREF);
	assert_int_equal(get32(zp + 0x218), 0);
	assert_int_equal(get32(zp + 0x268), 0x12345678);
	assert_int_equal(get(zp + 0x26c, 8), 0);
	assert_text(get32(zp + 0x228), "a=b c");
	assert_int_equal(get(zp + 0x70, 8), 0xe0000);
	assert_int_equal(get(zp + 0x1e8, 1), map.n);
	for (unsigned i = 0; i < map.n; i++) {
		assert_int_equal(get(zp + 0x2d0 + 20 * i, 8), map.e[i].start);
		assert_int_equal(get(zp + 0x2d8 + 20 * i, 8), map.e[i].len);
		assert_int_equal(get32(zp + 0x2e0 + 20 * i), map.e[i].type);
	}
}

static void linux_tables(void **state)
{
	make_linux();
	load_ok();
	for (gpa_t va = 0; va < 4 * GB; va += 2 * MB) {
		u64 pml4e = get(start.cr3 + (va >> 39) * 8, 8);
		u64 pdpte = get((pml4e & PAGE_MASK) + (va >> 30) * 8, 8);
		u64 pde = get((pdpte & PAGE_MASK) + (va >> 21 & 511) * 8, 8);
		assert_int_equal(pml4e & pdpte & 3, 3);
		assert_int_equal(pde & ~0x60ull, va | 0x83);
	}
	assert_true(start.cr3 + 7 * PAGE_SIZE <= 0x9f000);
	assert_int_equal(start.gdt_limit, 31);
	assert_int_equal(get(start.gdt + 0x10, 8), 0x00af9b000000ffff);
	assert_int_equal(get(start.gdt + 0x18, 8), 0x00cf93000000ffff);
}

static void linux_initrd(void **state)
{
	make_linux();
	give_module("a.img", "abcde", 5);
	give_module("b.img", "fghi", 4);
	load_ok();
	u32 at = get32(start.rsi + 0x218);
	assert_int_equal(get32(start.rsi + 0x21c), 12);
	assert_int_equal(at, MB);
	assert_int_equal(get(at, 8), 0x6564636261); /* abcde and padding */
	assert_int_equal(get(at + 8, 4), 0x69686766);

	static char big[20 * MB];
	module[1] = (struct blob){"b.img", big, sizeof(big)}; /* too large for the room below the kernel */
	load_ok();
	assert_int_equal(get32(start.rsi + 0x218), PREF + INIT_SIZE);
	put32(0x22c, PREF + INIT_SIZE + 20 * MB + 7); /* initrd_addr_max: exactly */
	load_ok();
	put32(0x22c, PREF + INIT_SIZE + 20 * MB + 6);
	assert_int_equal(load_kernel(&in, &start, &error), -ENOSPC);
	module[1].size = 60 * MB;
	load_error(-ENOSPC, "vmlinuz: no room for a.img: it needs 61441 KB, more than is free from 0x1800000 on; "
			    "the guest has 64 MB: raise its 'memory ='");
	module[1].size = ~0ull - 3; /* wraps */
	assert_int_equal(load_kernel(&in, &start, &error), -ENOSPC);
}

static void linux_refused(void **state)
{
	make_linux();
	kernel.size = 0;
	load_error(-EINVAL, "vmlinuz: is no kernel that can be started: neither bzImage nor multiboot nor PVH");
	kernel.size = CODE + CODE_SIZE - 1;
	load_error(-EINVAL, "vmlinuz: is cut short: it has 5119 bytes, its header says 5120");
	kernel.size = 700;
	load_error(-EINVAL, "vmlinuz: is cut short: it has 700 bytes, its header says 5120");
	kernel.size = 600;
	load_error(-EINVAL,
		   "vmlinuz: is cut short or damaged: it has 600 bytes, its headers point to 8 bytes at 0x258");
	kernel.size = 500;
	load_error(-EINVAL, "vmlinuz: is no kernel that can be started: neither bzImage nor multiboot nor PVH");
	make_linux();
	put32(0x1f4, 0xffffffff);
	load_error(-EINVAL, "vmlinuz: is cut short: it has 5120 bytes, its header says 68719477744");
	make_linux();
	put(0x206, 0x20b, 2);
	load_error(-EINVAL,
		   "vmlinuz: has no 64-bit entry point (boot protocol 2.11): a 64-bit Linux 3.8 or later is needed");
	make_linux();
	put(0x236, 0, 2);
	assert_int_equal(load_kernel(&in, &start, &error), -EINVAL);
	make_linux();
	put32(0x238, 4);
	load_error(-EINVAL, "vmlinuz: takes a command line of at most 4 bytes; this one has 5");
}

static void linux_room(void **state)
{
	make_linux();
	put32(0x260, 64 * MB);
	load_error(-ENOSPC, "vmlinuz: no room for the kernel: it needs 65537 KB, more than is free from 0x1000000 on; "
			    "the guest has 64 MB: raise its 'memory ='");
	make_linux();
	put32(0x260, 48 * MB); /* exactly */
	load_ok();
	static const u64 bad[] = {PREF + PAGE_SIZE, 0xa0000, 4 * GB, ~0ull - 5, ~0ull};
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		put(0x258, bad[i], 8);
		assert_int_equal(load_kernel(&in, &start, &error), -ENOSPC);
	}
}

/* ELF */

enum { EHDR32 = 52, PHDR32 = 32, EHDR64 = 64, PHDR64 = 56, TEXT = 0x1000 };

static void make_elf32(unsigned phdrs)
{
	memcpy(file,
	       "\x7f"
	       "ELF\1\1\1",
	       7);
	put(16, 2, 2);
	put(18, 3, 2);
	put32(28, EHDR32);
	put(42, PHDR32, 2);
	put(44, phdrs, 2);
}

static void phdr32(unsigned i, u32 type, u32 offset, u32 vaddr, u32 paddr, u32 filesz, u32 memsz)
{
	const u32 p[] = {type, offset, vaddr, paddr, filesz, memsz, 7, 4};
	memcpy(file + EHDR32 + i * PHDR32, p, sizeof(p));
}

static void make_elf64(unsigned phdrs)
{
	memcpy(file,
	       "\x7f"
	       "ELF\2\1\1",
	       7);
	put(16, 2, 2);
	put(18, 62, 2);
	put(32, EHDR64, 8);
	put(54, PHDR64, 2);
	put(56, phdrs, 2);
}

static void phdr64(unsigned i, u32 type, u64 offset, u64 vaddr, u64 paddr, u64 filesz, u64 memsz)
{
	const u64 p[] = {type | 7ull << 32, offset, vaddr, paddr, filesz, memsz, 4};
	memcpy(file + EHDR64 + i * PHDR64, p, sizeof(p));
}

/* Multiboot 1 */

static void mb1_header(u64 at, u32 flags)
{
	put32(at, 0x1badb002);
	put32(at + 4, flags);
	put32(at + 8, 0u - 0x1badb002 - flags);
}

/* Two segments at 1 MB and 3 MB, the entry in the second, linked high. */
static void make_mb1(void)
{
	make_elf32(2);
	phdr32(0, 1, TEXT, 0xc0100000, MB, 0x100, 0x2000);
	phdr32(1, 1, TEXT + 0x100, 0xc0300000, 3 * MB, 0x10, 0x10);
	put32(24, 0xc0300004);
	mb1_header(TEXT, 3);
	memset(file + TEXT + 12, 0x90, 0x104);
	kernel.size = TEXT + 0x110;
}

static void multiboot1_start(void **state)
{
	make_mb1();
	give_module("one", "11", 2);
	give_module("two", "", 0);
	load_ok();
	gpa_t info = start.rbx;
	assert_false(start.long_mode);
	assert_int_equal(start.rip, 3 * MB + 4);
	assert_int_equal(start.rax, 0x2badb002);
	assert_int_equal(get32(MB), 0x1badb002);
	assert_int_equal(get32(3 * MB + 12), 0x90909090);
	assert_in_range(info, 0x10000, 0x9f000);
	assert_int_equal(get32(info), 0x4d);
	assert_int_equal(get32(info + 4), 639);
	assert_int_equal(get32(info + 8), 63 * 1024);
	assert_text(get32(info + 16), "a=b c");
	assert_int_equal(get32(info + 20), 2);
	gpa_t mods = get32(info + 24);
	assert_int_equal(get32(mods), MB + 0x2000); /* pages of their own, behind the kernel */
	assert_int_equal(get32(mods + 4), MB + 0x2002);
	assert_int_equal(get(get32(mods), 3), 0x3131);
	assert_text(get32(mods + 8), "one");
	assert_int_equal(get32(mods + 16), MB + 0x3000);
	assert_int_equal(get32(mods + 20), MB + 0x3000);
	assert_text(get32(mods + 24), "two");
	assert_int_equal(get32(info + 44), 24 * map.n);
	for (unsigned i = 0; i < map.n; i++) {
		gpa_t e = get32(info + 48) + 24 * i;
		assert_int_equal(get32(e), 20);
		assert_int_equal(get(e + 4, 8), map.e[i].start);
		assert_int_equal(get(e + 12, 8), map.e[i].len);
		assert_int_equal(get32(e + 20), map.e[i].type);
	}
}

static void multiboot1_addresses(void **state)
{
	u32 header = 2 * MB + 0x80;
	mb1_header(0x80, 1 << 16);
	const u32 addr[] = {header, 2 * MB + 0x40, 0, 0, header + 0x20};
	memcpy(file + 0x8c, addr, sizeof(addr));
	kernel.size = 0x1000;
	file[0xfff] = 7;
	load_ok();
	assert_int_equal(start.rip, header + 0x20);
	assert_int_equal(get32(header), 0x1badb002);
	assert_int_equal(get(2 * MB + 0x40 + 0xfbf, 1), 7);
	put32(0x80 + 20, 2 * MB + 0x100); /* load_end */
	put32(0x80 + 24, 2 * MB + 0x10000);
	load_ok();
	assert_int_equal(get(2 * MB + 0x40 + 0xfbe, 1), 0);
	put32(0x80 + 20, 2 * MB + 0x1001);
	static const char sense[] = "vmlinuz: is cut short, or the addresses in its multiboot header make no sense";
	load_error(-EINVAL, sense);
	put32(0x80 + 20, 2 * MB);
	load_error(-EINVAL, sense);
	put32(0x80 + 20, 0);
	put32(0x80 + 24, 2 * MB);
	assert_int_equal(load_kernel(&in, &start, &error), -ENOSPC);
	put32(0x80 + 16, header + 4);
	load_error(-EINVAL, sense);
	put32(0x80 + 16, MB);
	load_error(-EINVAL, sense);
}

static void multiboot1_refused(void **state)
{
	make_mb1();
	mb1_header(TEXT, 4);
	load_error(-EINVAL, "vmlinuz: wants what guests do not have: multiboot flags 0x4 (4: a screen)");
	mb1_header(TEXT, 0x1003);
	load_error(-EINVAL, "vmlinuz: wants what guests do not have: multiboot flags 0x1000 (4: a screen)");
	mb1_header(TEXT, 0);
	put32(24, 0x1000);
	load_error(-EINVAL, "vmlinuz: is damaged: its entry point lies in none of its segments below 4 GB");
	put32(TEXT + 8, 1);
	assert_int_equal(load_kernel(&in, &start, &error), -EINVAL); /* checksum: no multiboot */
	make_mb1();
	memset(file, 0, 4);
	load_error(-EINVAL, "vmlinuz: is no ELF file, and its multiboot header has no addresses instead");
}

/* Multiboot 2 */

static u64 mb2_at;

static void mb2_tag(u32 type, u32 flags, const u32 *data, u32 words)
{
	put32(mb2_at, type | flags << 16);
	put32(mb2_at + 4, 8 + words * 4);
	for (u32 i = 0; i < words; i++)
		put32(mb2_at + 8 + 4 * i, data[i]);
	mb2_at = ROUND_UP(mb2_at + 8 + words * 4, 8);
}

static void mb2_end(void)
{
	mb2_tag(0, 0, NULL, 0);
	u32 len = (u32)mb2_at - TEXT;
	put32(TEXT, 0xe85250d6);
	put32(TEXT + 4, 0);
	put32(TEXT + 8, len);
	put32(TEXT + 12, 0u - 0xe85250d6 - len);
}

/* A 64-bit ELF at 1 MB with its header at the start of the text, still without tags. */
static void make_mb2(void)
{
	memset(file, 0, sizeof(file));
	make_elf64(1);
	phdr64(0, 1, TEXT, 0xffffffff80100000, MB, 0x1000, 0x3000);
	put(24, 0xffffffff80100800, 8);
	kernel.size = TEXT + 0x1000;
	mb2_at = TEXT + 16;
}

static gpa_t find_tag(u32 type, unsigned nth)
{
	gpa_t at = start.rbx + 8, end = start.rbx + get32(start.rbx);
	for (; at < end; at += ROUND_UP(get32(at + 4), 8))
		if (get32(at) == type && !nth--)
			return at;
	return 0;
}

static void multiboot2_start(void **state)
{
	make_mb2();
	mb2_tag(1, 0, (u32[]){1, 3, 6, 15, 21}, 5);
	mb2_tag(6, 0, NULL, 0);
	mb2_tag(7, 1, NULL, 0);
	mb2_tag(10, 0, (u32[]){0x800000, 0x1ffffff, 0x200000, 2}, 4); /* could be moved */
	mb2_tag(99, 1, NULL, 0);
	mb2_end();
	u8 rsdp[36];
	for (unsigned i = 0; i < sizeof(rsdp); i++)
		rsdp[i] = (u8)i;
	assert_int_equal(p2m_write_rom(&p2m, 0xe0000, rsdp, sizeof(rsdp)), 0);
	in.rsdp = 0xe0000;
	give_module("one", "11", 2);
	give_module("seven77", "", 0);
	load_ok();
	assert_int_equal(start.rip, MB + 0x800);
	assert_int_equal(start.rax, 0x36d76289);
	assert_int_equal(start.rbx % 8, 0);
	assert_int_equal(get32(MB), 0xe85250d6);
	assert_text(find_tag(1, 0) + 8, "a=b c");
	gpa_t m = find_tag(3, 0);
	assert_int_equal(get32(m + 4), 20);
	assert_int_equal(get32(m + 8), MB + 0x3000);
	assert_int_equal(get32(m + 12), MB + 0x3002);
	assert_text(m + 16, "one");
	m = find_tag(3, 1);
	assert_int_equal(get32(m + 8), MB + 0x4000);
	assert_text(m + 16, "seven77");
	assert_int_equal(get32(find_tag(4, 0) + 8), 639);
	assert_int_equal(get32(find_tag(4, 0) + 12), 63 * 1024);
	gpa_t mmap = find_tag(6, 0);
	assert_int_equal(get32(mmap + 4), 16 + 24 * map.n);
	assert_int_equal(get32(mmap + 8), 24);
	for (unsigned i = 0; i < map.n; i++) {
		assert_int_equal(get(mmap + 16 + 24 * i, 8), map.e[i].start);
		assert_int_equal(get(mmap + 24 + 24 * i, 8), map.e[i].len);
		assert_int_equal(get(mmap + 32 + 24 * i, 8), map.e[i].type);
	}
	assert_int_equal(get32(find_tag(14, 0) + 4), 28);
	assert_int_equal(get32(find_tag(15, 0) + 4), 44);
	assert_int_equal(get32(find_tag(15, 0) + 8 + 32), 0x23222120);
	gpa_t end = find_tag(0, 0);
	assert_int_equal(get32(end + 4), 8);
	assert_int_equal(end + 8, start.rbx + get32(start.rbx));
	assert_int_equal(get32(find_tag(21, 0) + 8), MB);
}

static void multiboot2_addresses(void **state)
{
	make_mb2();
	memset(file, 0, TEXT); /* no ELF */
	mb2_tag(2, 0, (u32[]){4 * MB, 4 * MB, 4 * MB + 0x200, 4 * MB + 0x400}, 4);
	mb2_tag(3, 0, (u32[]){4 * MB + 0x180}, 1);
	mb2_end();
	load_ok();
	assert_int_equal(start.rip, 4 * MB + 0x180);
	assert_int_equal(get32(4 * MB), 0xe85250d6);
	make_mb2();
	mb2_tag(2, 0, (u32[]){4 * MB, 4 * MB, 4 * MB + 0x200, 4 * MB + 0x400}, 4);
	mb2_end();
	load_error(-EINVAL, "vmlinuz: is damaged: its entry point lies in none of its segments below 4 GB");
}

static void multiboot2_refused(void **state)
{
	make_mb2();
	mb2_tag(99, 0, NULL, 0);
	mb2_end();
	load_error(-EINVAL, "vmlinuz: wants what guests do not have: multiboot 2 header tag 99 (5: a screen)");
	make_mb2();
	mb2_tag(5, 0, (u32[]){80, 25, 0}, 3);
	mb2_end();
	load_error(-EINVAL, "vmlinuz: wants what guests do not have: multiboot 2 header tag 5 (5: a screen)");
	make_mb2();
	mb2_tag(1, 1, (u32[]){77}, 1);
	mb2_tag(5, 1, (u32[]){80, 25, 0}, 3);
	mb2_end();
	load_ok();
	put32(TEXT + 20, 4);
	load_error(-EINVAL, "vmlinuz: is damaged: a multiboot 2 header tag has 4 bytes");
	put32(TEXT + 20, 0xfffffff8);
	load_error(-EINVAL, "vmlinuz: is damaged: a multiboot 2 header tag has 4294967288 bytes");
}

/* PVH */

static void make_pvh(void)
{
	memset(file, 0, sizeof(file));
	make_elf64(2);
	phdr64(0, 1, TEXT, 0xffffffff81000000, 16 * MB, 0x200, 0x100000);
	phdr64(1, 4, TEXT + 0x100, 0, 0, 0x40, 0x40);
	put(24, 16 * MB, 8);
	/* A foreign note of 5 + 3 bytes name and 1 + 3 bytes contents, then ours. */
	const u32 notes[] = {5, 1, 18, 0x41414141, 0, 0, 4, 8, 18, 0x6e6558, 0x1000180, 0};
	memcpy(file + TEXT + 0x100, notes, sizeof(notes));
	kernel.size = TEXT + 0x200;
}

static void pvh_start(void **state)
{
	make_pvh();
	in.rsdp = 0xe0000;
	give_module("initrd", "abc", 3);
	load_ok();
	gpa_t info = start.rbx;
	assert_false(start.long_mode);
	assert_int_equal(start.rip, 0x1000180);
	assert_int_equal(get32(info), 0x336ec578);
	assert_int_equal(get32(info + 4), 1);
	assert_int_equal(get32(info + 8), 0);
	assert_int_equal(get32(info + 12), 1);
	gpa_t mods = get(info + 16, 8);
	assert_int_equal(get(mods, 8), MB);
	assert_int_equal(get(mods + 8, 8), 3);
	assert_int_equal(get(get(mods, 8), 4), 0x636261);
	assert_text(get(info + 24, 8), "a=b c");
	assert_int_equal(get(info + 32, 8), 0xe0000);
	assert_int_equal(get32(info + 48), map.n);
	for (unsigned i = 0; i < map.n; i++) {
		gpa_t e = get(info + 40, 8) + 24 * i;
		assert_int_equal(get(e, 8), map.e[i].start);
		assert_int_equal(get(e + 8, 8), map.e[i].len);
		assert_int_equal(get(e + 16, 8), map.e[i].type);
	}
}

static void pvh_refused(void **state)
{
	make_pvh();
	put32(TEXT + 0x100 + 8 * 4, 17); /* another note */
	load_error(-EINVAL, "vmlinuz: is an ELF file without a multiboot header or PVH note: not a kernel for this");
	make_pvh();
	put32(TEXT + 0x100 + 11 * 4, 1);
	load_error(-EINVAL, "vmlinuz: is damaged: its entry point lies in none of its segments below 4 GB");
	make_pvh();
	put32(TEXT + 0x104, 0xfffffff0); /* the foreign note's length */
	assert_int_equal(load_kernel(&in, &start, &error), -EINVAL);
}

/* What an ELF file can lie about, whatever starts it. */
static void elf_lies(void **state)
{
	make_pvh();
	kernel.size--;
	load_error(-EINVAL, "vmlinuz: is cut short: it has 4607 bytes, its headers say 512 at 0x1000");
	kernel.size = 80;
	load_error(-EINVAL, "vmlinuz: is cut short or damaged: it has 80 bytes, its headers point to 8 bytes at 0x50");
	kernel.size = 30;
	assert_int_equal(load_kernel(&in, &start, &error), -EINVAL);
	make_pvh();
	put(18, 183, 2);
	load_error(-EINVAL, "vmlinuz: is an ELF file for another machine than x86, or damaged");
	make_pvh();
	put(54, 8, 2); /* overlapping headers: read as they are */
	assert_int_equal(load_kernel(&in, &start, &error), -EINVAL);
	make_pvh();
	put(32, ~0ull - 20, 8); /* phoff */
	assert_int_equal(load_kernel(&in, &start, &error), -EINVAL);
	make_pvh();
	phdr64(0, 1, TEXT, 0, 16 * MB, 0x200, 0x1ff);
	load_error(-EINVAL, "vmlinuz: is damaged: its segment at 0x1000000 makes no sense");
	phdr64(0, 1, TEXT, 0, ~0ull - 5, 0x200, 0x200);
	load_error(-EINVAL, "vmlinuz: is damaged: its segment at 0xfffffffffffffffa makes no sense");
	phdr64(0, 1, TEXT, 0, 16 * MB, 0x200, ~0ull - 16 * MB);
	assert_int_equal(load_kernel(&in, &start, &error), -ENOSPC);
	phdr64(0, 1, ~0ull - 5, 0, 16 * MB, 0x200, 0x200);
	assert_int_equal(load_kernel(&in, &start, &error), -EINVAL);
	phdr64(0, 1, TEXT, 0, 0x9f000, 0x200, 0x1000);
	load_error(-ENOSPC, "vmlinuz: no room for the kernel: it needs 5 KB, more than is free from 0x9f000 on; "
			    "the guest has 64 MB: raise its 'memory ='");
	phdr64(0, 1, TEXT, 0, 64 * MB - 0x100, 0x200, 0x200);
	assert_int_equal(load_kernel(&in, &start, &error), -ENOSPC);
	phdr64(0, 2, TEXT, 0, 16 * MB, 0x200, 0x200);
	load_error(-EINVAL, "vmlinuz: is damaged: its entry point lies in none of its segments below 4 GB");
}

static void overlapping_segments(void **state)
{
	make_pvh();
	make_elf64(3);
	phdr64(2, 1, TEXT, 0, 16 * MB + 0xfffff, 0x10, 0x10);
	load_error(-ENOSPC, "vmlinuz: no room for the kernel: it needs 1 KB, more than is free from 0x10fffff on; "
			    "the guest has 64 MB: raise its 'memory ='");
	phdr64(2, 1, TEXT, 0, 16 * MB + 0x100000, 0x10, 0x10);
	load_ok();
}

static void modules_do_not_fit(void **state)
{
	make_pvh();
	static const char big[1];
	give_module("huge.img", big, 64 * MB);
	load_error(-ENOSPC, "vmlinuz: no room for huge.img: it needs 65537 KB, more than is free from 0x1100000 on; "
			    "the guest has 64 MB: raise its 'memory ='");
}

/* Memory */

static void maps(void **state)
{
	static const struct {
		u64 memory, low_end, high_end;
		unsigned n;
	} want[] = {
		{MB, MB, 4 * GB, 3},
		{2 * MB, 2 * MB, 4 * GB, 4},
		{512 * MB, 512 * MB, 4 * GB, 4},
		{3 * GB, 3 * GB, 4 * GB, 4},
		{4 * GB, 3 * GB, 5 * GB, 5},
		{5 * GB, 3 * GB, 6 * GB, 5},
		{3 * GB + 4096, 3 * GB, 4 * GB + 4096, 5},
	};
	for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
		struct memmap m;
		memmap_build(&m, want[i].memory);
		assert_int_equal(m.low_end, want[i].low_end);
		assert_int_equal(m.high_end, want[i].high_end);
		assert_int_equal(m.n, want[i].n);
		u64 ram = 0;
		for (unsigned k = 0; k < m.n; k++) {
			assert_true(!k || m.e[k].start >= m.e[k - 1].start + m.e[k - 1].len);
			ram += m.e[k].type == E820_RAM ? m.e[k].len : 0;
		}
		assert_int_equal(ram, want[i].memory - (MB - 0x9fc00));
		assert_int_equal(m.e[0].len, 0x9fc00);
		assert_int_equal(m.e[2].start, GUEST_ACPI_BASE);
	}
}

/* The host's memory ends while a guest with populate = demand is loaded: an error, and nothing else. */
static void no_memory_behind(void **state)
{
	static struct p2m nothing;
	assert_int_equal(p2m_init(&nothing, &pt_format_long, OWNER_GUEST + 1, ORDER_1G, 40), 0);
	make_linux();
	in.p2m = &nothing;
	load_error(-EFAULT,
		   "vmlinuz: guest memory at 0x1000000 cannot be written: the host may have run out of memory");
	p2m_free(&nothing);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(linux_start),
		T(linux_tables),
		T(linux_initrd),
		T(linux_refused),
		T(linux_room),
		T(multiboot1_start),
		T(multiboot1_addresses),
		T(multiboot1_refused),
		T(multiboot2_start),
		T(multiboot2_addresses),
		T(multiboot2_refused),
		T(pvh_start),
		T(pvh_refused),
		T(elf_lies),
		T(overlapping_segments),
		T(modules_do_not_fit),
		T(maps),
		T(no_memory_behind),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
