/* SPDX-License-Identifier: MIT */
/* The interrupt table: exceptions go to the fixup that a test has set, interrupts are counted and ended. */
#include "tests/guests/guest.h"

volatile u64 irq_count[256];
volatile u64 fixup, fault_error;
bool (*trap_hook)(struct trap *t);
volatile u32 fault_vector = NO_FAULT;

extern char trap_entries[];

struct gate {
	u16 low, selector, flags, middle;
	u32 high, zero;
};
static struct gate idt[256];

static const char *const names[] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "",
				    "#TS", "#NP", "#SS", "#GP", "#PF", "",    "#MF", "#AC", "#MC", "#XM"};

void trap_dispatch(struct trap *t);

void trap_dispatch(struct trap *t)
{
	u64 cr2;

	if (trap_hook && trap_hook(t))
		return;
	if (t->vector == 2) {
		__atomic_add_fetch(&irq_count[2], 1, __ATOMIC_RELAXED);
		return;
	}
	if (t->vector >= 0x20) {
		__atomic_add_fetch(&irq_count[t->vector], 1, __ATOMIC_RELAXED);
		if (t->vector < VEC_PIC + 16) {
			if (t->vector >= VEC_PIC + 8)
				outb(0xa0, 0x20);
			outb(0x20, 0x20);
		} else if (t->vector != VEC_SPURIOUS) {
			lapic_write(0xb0, 0);
		}
		return;
	}
	if (fixup) {
		fault_vector = (u32)t->vector;
		fault_error = t->error;
		t->rip = fixup;
		fixup = 0;
		return;
	}
	asm volatile("movq %%cr2, %0" : "=r"(cr2));
	print("\n@trap vector=%lu (%s) error=0x%lx rip=0x%lx cr2=0x%lx rsp=0x%lx\n", t->vector,
	      t->vector < ARRAY_LEN(names) ? names[t->vector] : "", t->error, t->rip, cr2, t->rsp);
	failed("no-unexpected-trap", "vector %lu at 0x%lx", t->vector, t->rip);
	power_off();
}

void traps_load(void)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) pointer = {sizeof(idt) - 1, (u64)idt};

	for (u64 v = 0; v < 256; v++) {
		u64 at = (u64)trap_entries + 16 * v;
		idt[v] = (struct gate){(u16)at, 0x08, 0x8e00, (u16)(at >> 16), (u32)(at >> 32), 0};
	}
	asm volatile("lidt %0" : : "m"(pointer));
}

u32 rdmsr_try(u32 n, u64 *v)
{
	u32 a = 0, d = 0;
	TRY("rdmsr", : "+a"(a), "+d"(d) : "c"(n) : "memory");
	*v = (u64)d << 32 | a;
	return fault_vector;
}

u32 wrmsr_try(u32 n, u64 v)
{
	TRY("wrmsr", : : "c"(n), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
	return fault_vector;
}
