/* SPDX-License-Identifier: MIT */
/* Guests that end badly, on purpose: what is tested is that nobody else notices, and that the end is told. */
#include "tests/guests/guest.h"

#define NOTHING 0xd0000000ull

struct table_pointer {
	u16 limit;
	u64 base;
} __attribute__((packed));

static void no_idt(void)
{
	struct table_pointer none = {0, 0};
	asm volatile("lidt %0" : : "m"(none));
}

static void jump(u64 to) { asm volatile("jmp *%0" : : "r"(to)); }

static void triple(void)
{
	no_idt();
	asm volatile("ud2");
}

static void unbacked(void) { jump(NOTHING); }
static void mmiojump(void) { jump(LAPIC); }
static void ioapicjump(void) { jump(IOAPIC); }

/* Writes all over ROM, and through a stack in it. */
static void rom(void)
{
	u32 before = *(volatile u32 *)0xf0000;
	u64 sp;

	for (u64 at = 0xe0000; at < 0x100000; at += 4)
		*(volatile u32 *)at = 0xdeadbeef;
	asm volatile("movq %%rsp, %0; movq %1, %%rsp; pushq %1; popq %%rax; movq %0, %%rsp"
		     : "=&r"(sp)
		     : "r"(0xf0008ull)
		     : "rax", "memory");
	check("rom-unchanged", *(volatile u32 *)0xf0000 == before, "value=0x%x", *(volatile u32 *)0xf0000);
}

/* Page tables where no memory is. */
static void badcr3(void)
{
	no_idt();
	asm volatile("movq %0, %%cr3; movl 0x1000, %%eax" : : "r"(NOTHING) : "eax");
}

/* An instruction on device memory that no emulator of devices knows. */
static void mmioinsn(void) { asm volatile("fxsave (%0)" : : "r"(LAPIC) : "memory"); }

static void reset(void)
{
	outb(0xcf9, 2);
	outb(0xcf9, 6);
}

static void reset8042(void) { outb(0x64, 0xfe); }

static void hang(void)
{
	print("@tiny hanging\n");
	cli();
	for (;;)
		asm volatile("");
}

static void halt(void)
{
	cli();
	for (;;)
		asm volatile("hlt");
}

/* Writes random rubbish to every port but those that end the guest, and to device memory. */
static void rubbish(void)
{
	u32 seed = 12345;

	for (u32 p = 0; p < 0x10000; p++) {
		seed = seed * 1664525 + 1013904223;
		if (p == 0x64 || p == 0x92 || p == 0xcf9 || (p >= 0x600 && p < 0x630) || (p >= 0x3f8 && p < 0x400))
			continue;
		outb((u16)p, (u8)(seed >> 24));
	}
	for (u64 at = 0; at < 0x1000; at += 16) {
		seed = seed * 1664525 + 1013904223;
		if (at != 0x300) /* an INIT to ourselves would be the end */
			lapic_write((u32)at, seed);
		mmio_write(IOAPIC + at, seed);
	}
	lapic_init();
	pic_init(0xffff);
	ok("rubbish");
}

/*
 * Into long mode with a 16-bit TSS, as no processor may be: from legacy protected mode, where the TSS is allowed.
 * Intel's processors do not run that, AMD's do not mind.
 */
static void badtss(void)
{
	static u8 tss[64];
	static u64 gdt[] = {0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff, 0x000081000000003f};
	struct table_pointer gdtr = {sizeof(gdt) - 1, (u64)gdt};

	gdt[4] |= (u64)tss << 16;
	cli();
	asm volatile("lgdt %0; pushq $0x08; pushq $1f; lretq\n"
		     ".code32\n"
		     "1: movl %%cr0, %%eax; andl $0x7fffffff, %%eax; movl %%eax, %%cr0\n"
		     "movw $0x20, %%ax; ltr %%ax\n"
		     "movl %%cr0, %%eax; orl $0x80000000, %%eax; movl %%eax, %%cr0\n"
		     "ljmp $0x18, $2f\n"
		     ".code64\n"
		     "2: movw $0x10, %%ax; movw %%ax, %%ss"
		     :
		     : "m"(gdtr)
		     : "rax", "memory");
	print("@tiny long mode with a 16-bit TSS\n");
}

const struct test bad_tests[] = {
	{"triple", triple, false},         {"unbacked", unbacked, false}, {"mmiojump", mmiojump, false},
	{"ioapicjump", ioapicjump, false}, {"rom", rom, false},           {"badcr3", badcr3, false},
	{"badtss", badtss, false},         {"mmioinsn", mmioinsn, false}, {"reset", reset, false},
	{"reset8042", reset8042, false},   {"hang", hang, false},         {"halt", halt, false},
	{"rubbish", rubbish, false},       {NULL, NULL, false},
};
