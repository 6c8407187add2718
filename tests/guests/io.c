/* SPDX-License-Identifier: MIT */
/* Ports and device memory: every size, every form of access, and the registers that tell who answers. */
#include "tests/guests/guest.h"

#define COM1    0x3f8
#define NOBODY  0x5670 /* no device has this port */
#define SCRATCH 0x380  /* the APIC timer's initial count: a plain register while the timer is masked */

static void ports(void)
{
	check("port-nobody", inb(NOBODY) == 0xff && inw(NOBODY) == 0xffff && inl(NOBODY) == 0xffffffff,
	      "byte=0x%x long=0x%x", inb(NOBODY), inl(NOBODY));
	outb(NOBODY, 1);
	outw(NOBODY, 2);
	outl(NOBODY, 3);
	u64 rax = 0x1122334455667788;
	asm volatile("inb %%dx, %%al" : "+a"(rax) : "d"(NOBODY));
	bool byte = rax == 0x11223344556677ff;
	asm volatile("inw %%dx, %%ax" : "+a"(rax) : "d"(NOBODY));
	bool word = rax == 0x112233445566ffff;
	asm volatile("inl %%dx, %%eax" : "+a"(rax) : "d"(NOBODY));
	check("port-widths", byte && word && rax == 0xffffffff, "rax=0x%lx", rax);
	outb(0x21, 0xa5);
	asm volatile("inb $0x21, %%al" : "=a"(rax));
	check("port-immediate", (u8)rax == 0xa5, "al=0x%x", (u8)rax);
	outb(0x21, 0xff);
	outb(0x80, 0);
}

static void string_io(void)
{
	static u8 buf[64];
	static const char text[] = "@note string output\n";
	const void *src = text;
	void *dst = buf + 8;
	u64 n = sizeof(text) - 1;

	asm volatile("rep outsb" : "+S"(src), "+c"(n) : "d"(COM1) : "memory");
	check("string-out", src == text + sizeof(text) - 1 && !n, "rcx=%lu", n);
	outb(0x21, 0x5a);
	n = 16;
	asm volatile("rep insb" : "+D"(dst), "+c"(n) : "d"(0x21) : "memory");
	check("string-in", !n && dst == buf + 24 && buf[7] == 0 && buf[8] == 0x5a && buf[23] == 0x5a && buf[24] == 0,
	      "rcx=%lu first=0x%x", n, buf[8]);
	dst = buf + 40;
	n = 4;
	asm volatile("std; rep insb; cld" : "+D"(dst), "+c"(n) : "d"(0x21) : "memory");
	check("string-in-down", dst == buf + 36 && buf[41] == 0 && buf[40] == 0x5a && buf[37] == 0x5a && buf[36] == 0,
	      "buf40=0x%x", buf[40]);
	dst = buf + 48;
	n = 0;
	asm volatile("rep insb" : "+D"(dst), "+c"(n) : "d"(0x21) : "memory");
	bool none = dst == buf + 48 && buf[48] == 0;
	asm volatile("insl" : "+D"(dst) : "d"(NOBODY) : "memory");
	check("string-single", none && dst == buf + 52 && buf[48] == 0xff && buf[51] == 0xff && buf[52] == 0,
	      "buf48=0x%x", buf[48]);
	outb(0x21, 0xff);
	/* A buffer that cannot be written: the fault is the guest's, with nothing lost. */
	u64 bad = 0x8000000ff0, left = 4;
	TRY("rep insb", : "+D"(bad), "+c"(left) : "d"(0x21) : "memory");
	check("string-in-fault", fault_vector == 14 && left == 4 && bad == 0x8000000ff0, "vector=%u left=%lu",
	      fault_vector, left);
}

static void port_sweep(void)
{
	volatile u32 all = 0;

	if (bare())
		return; /* QEMU 7.2 aborts on some of these */
	for (u32 p = 0; p < 0x10000; p++)
		all ^= inb((u16)p);
	for (u32 p = 0; p < 0x10000; p++)
		all ^= inw((u16)p);
	for (u32 p = 0; p < 0x10000; p++)
		all ^= inl((u16)p);
	pic_init(0xffff);
	ok("port-sweep");
}

static void mmio_forms(void)
{
	volatile u32 *p = (u32 *)(LAPIC + SCRATCH);
	unsigned wrong = 0;
	u32 a;

	lapic_write(0x320, 1 << 16);
#define FORM(name, insn, before, after, ...)                                                     \
	do {                                                                                     \
		*p = (before);                                                                   \
		asm volatile(insn __VA_ARGS__);                                                  \
		if (*p != (after)) {                                                             \
			print("@note form=%s value=0x%x wanted=0x%x\n", name, *p, (u32)(after)); \
			wrong++;                                                                 \
		}                                                                                \
	} while (0)
	FORM("mov-imm", "movl $0x12345678, %0", 0, 0x12345678, : "=m"(*p));
	FORM("mov-r9", "movl %1, %%r9d; movl %%r9d, %0", 0, 77, : "=m"(*p) : "r"(77) : "r9");
	FORM("mov-sib", "movl %%ecx, -4(%0, %1, 4)", 0, 5,
	     :
	     : "r"(LAPIC), "r"((u64)SCRATCH / 4 + 1), "c"(5)
	     : "memory");
	FORM("mov-disp-r12", "movq %0, %%r12; movl $9, 0x380(%%r12)", 0, 9, : : "r"(LAPIC) : "r12", "memory");
	FORM("moffs", "movabsl %%eax, 0xfee00380", 0, 0xabcd, : : "a"(0xabcd) : "memory");
	FORM("add", "addl $7, %0", 10, 17, : "+m"(*p));
	FORM("or", "orl $0xf0, %0", 0x0f, 0xff, : "+m"(*p));
	FORM("and-r", "andl %1, %0", 0xff, 0x0f, : "+m"(*p) : "r"(0x0f));
	FORM("xor", "xorl $0xff, %0", 0x0f, 0xf0, : "+m"(*p));
	FORM("sub", "subl $1, %0", 10, 9, : "+m"(*p));
	FORM("inc", "incl %0", 10, 11, : "+m"(*p));
	FORM("not", "notl %0", 0, 0xffffffff, : "+m"(*p));
	FORM("bts", "btsl $4, %0", 0, 16, : "+m"(*p));
	a = 3;
	FORM("xchg", "xchgl %1, %0", 4, 3, : "+m"(*p), "+r"(a));
	wrong += a != 4;
	a = 6;
	FORM("cmpxchg", "lock cmpxchgl %2, %0", 6, 8, : "+m"(*p), "+a"(a) : "r"(8));
	u64 src = (u64)p, dst = (u64)&a;
	*p = 0x87654321;
	asm volatile("movsl" : "+S"(src), "+D"(dst) : : "memory");
	wrong += a != 0x87654321;
	dst = (u64)p;
	FORM("stos", "stosl", 0, 0x55aa, : "+D"(dst) : "a"(0x55aa) : "memory");
	*p = 0x8001;
	u64 wide = 0;
	bool zero;
	asm volatile("testl $0x8000, %1; setnz %0" : "=r"(zero) : "m"(*p));
	wrong += !zero;
	asm volatile("cmpl $0x8001, %1; sete %0" : "=r"(zero) : "m"(*p));
	wrong += !zero;
	asm volatile("movslq %1, %0" : "=r"(wide) : "m"(*p));
	wrong += wide != 0x8001;
	asm volatile("movl (%1), %k0" : "=r"(wide) : "r"(p));
	wrong += wide != 0x8001;
	*p = 0;
	check("mmio-forms", !wrong, "wrong=%u", wrong);
}

static void ioapic_registers(void)
{
	u32 version = ioapic_read(1), low;

	ioapic_write(0x10, 1 << 16 | 0x99);
	ioapic_write(0x11, 0x03000000);
	low = ioapic_read(0x10);
	check("ioapic", (version >> 16 & 0xff) == 23 && low == (1 << 16 | 0x99) && ioapic_read(0x11) == 0x03000000,
	      "version=0x%x low=0x%x high=0x%x", version, low, ioapic_read(0x11));
}

static void uart(void)
{
	outb(COM1 + 7, 0x3c);
	check("uart-scratch", inb(COM1 + 7) == 0x3c, "value=0x%x", inb(COM1 + 7));
	while (!(inb(COM1 + 5) & 0x40))
		relax();
	outb(COM1 + 4, 0x1a); /* loop back */
	u8 msr = inb(COM1 + 6) & 0xf0;
	outb(COM1, 'x');
	for (unsigned i = 0; i < 1000 && !(inb(COM1 + 5) & 1); i++)
		delay_us(100);
	u8 got = inb(COM1 + 5) & 1 ? inb(COM1) : 0;
	outb(COM1 + 4, 0x0b);
	check("uart-loopback", msr == 0x90 && got == 'x', "msr=0x%x got=0x%x", msr, got);
}

static u32 pci_read(u32 device, u32 reg)
{
	outl(0xcf8, 1u << 31 | device << 11 | reg);
	return inl(0xcfc);
}

static void pci(void)
{
	check("pci-host-bridge", (u16)pci_read(0, 0) != 0xffff && pci_read(0, 8) >> 16 == 0x0600, "id=0x%x class=0x%x",
	      pci_read(0, 0), pci_read(0, 8) >> 16);
	check("pci-empty-slot", pci_read(31, 0) == 0xffffffff, "id=0x%x", pci_read(31, 0));
}

static u8 cmos(u8 reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static unsigned rtc_value(u8 reg)
{
	u8 v = cmos(reg);
	return cmos(0x0b) & 4 ? v : (v >> 4) * 10u + (v & 15);
}

static void rtc(void)
{
	unsigned s = rtc_value(0), m = rtc_value(2), h = rtc_value(4), day = rtc_value(7), month = rtc_value(8),
		 year = rtc_value(9), century = rtc_value(0x32);

	check("rtc-sane",
	      s < 60 && m < 60 && h < 24 && day >= 1 && day <= 31 && month >= 1 && month <= 12 && year < 100,
	      "%u:%u:%u %u.%u.%u", h, m, s, day, month, year);
	check("rtc-century", century == 20 || century == 0, "century=%u", century);
	check("rtc-valid", cmos(0x0d) & 0x80, "d=0x%x", cmos(0x0d));
}

static void pm_registers(void)
{
	check("pm1-control", inw(0x604) != 0xffff || bare(), "value=0x%x", inw(0x604));
	check("8042-present-for-reset", bare() || inb(0x64) == 0xff || !(inb(0x64) & 2), "status=0x%x", inb(0x64));
}

const struct test io_tests[] = {
	{"ports", ports, true},
	{"string-io", string_io, true},
	{"mmio-forms", mmio_forms, true},
	{"ioapic", ioapic_registers, true},
	{"uart", uart, true},
	{"pci", pci, true},
	{"rtc", rtc, true},
	{"pm", pm_registers, true},
	{"port-sweep", port_sweep, true},
	{NULL, NULL, false},
};
