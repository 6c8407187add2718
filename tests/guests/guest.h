/* SPDX-License-Identifier: MIT */
/*
 * The tiny guest: a kernel that checks the machine it is on and says so on COM1, one line a check:
 *
 *     @check name=NAME ok [key=value ...]
 *     @check name=NAME failed WHY
 *     @guest passed=N failed=N
 *
 * One program, started by multiboot 1, multiboot 2 or PVH, single-threaded in 64-bit mode with memory mapped one to
 * one. Its command line says what to do: `test=NAME[,NAME...]` (default: every check), `memory=SIZE` and `vcpus=N` what
 * to find, `bare` that this is no guest of Cleave, so what only Cleave promises is not checked.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* --- What we were told at the start (boot.c). */
struct range {
	u64 start, len;
};
#define MAX_RANGES 32
extern struct range ram[MAX_RANGES], used[MAX_RANGES]; /* used: image, information block, modules */
extern struct range module[MAX_RANGES];
extern unsigned rams, useds, modules;
extern const char *loader; /* "multiboot1", "multiboot2", "pvh" */
extern u64 rsdp;           /* as the loader tells it, or 0 */
void boot_parse(u32 magic, u64 info);

/* The command line's value of key, terminated by a blank or the end; NULL if it is not there. */
const char *option(const char *key);
u64 option_number(const char *key, u64 otherwise); /* with K, M, G */
bool bare(void);
/* Whether name is one of the comma-separated names in list, which a blank ends. */
bool named(const char *list, const char *name);

/* --- Output and verdicts (main.c). */
void print(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* %s %c %d %u %x %lu %lx, 0 and width */
#define ok(name, ...)     verdict(name, 1, "" __VA_ARGS__)
#define failed(name, ...) verdict(name, 0, __VA_ARGS__)
void verdict(const char *name, bool good, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* ok if good, else failed with the text. */
#define check(name, good, ...)                     \
	do {                                       \
		if (good)                          \
			ok(name);                  \
		else                               \
			failed(name, __VA_ARGS__); \
	} while (0)
void power_off(void) __attribute__((noreturn));

/* --- Traps (trap.c). */
struct trap {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	u64 vector, error, rip, cs, rflags, rsp, ss;
};
extern volatile u64 irq_count[256];
extern volatile u64 fixup;        /* where to go on after the next exception, 0: die */
extern volatile u32 fault_vector; /* of the last one taken so; NO_FAULT before */
extern volatile u64 fault_error;
#define NO_FAULT 0xffffffffu
extern bool (*trap_hook)(struct trap *t); /* if set: sees each first; whether it has taken it */
void traps_load(void);
/* Runs an instruction that may fault; leaves its vector in fault_vector, or NO_FAULT. */
#define TRY(insn, ...)                                                                         \
	do {                                                                                   \
		fault_vector = NO_FAULT;                                                       \
		asm volatile("movq $77f, fixup\n\t" insn "\n77:\tmovq $0, fixup" __VA_ARGS__); \
	} while (0)

/* --- The machine. */
static inline u8 inb(u16 p)
{
	u8 v;
	asm volatile("inb %1, %0" : "=a"(v) : "Nd"(p));
	return v;
}
static inline u16 inw(u16 p)
{
	u16 v;
	asm volatile("inw %1, %0" : "=a"(v) : "Nd"(p));
	return v;
}
static inline u32 inl(u16 p)
{
	u32 v;
	asm volatile("inl %1, %0" : "=a"(v) : "Nd"(p));
	return v;
}
static inline void outb(u16 p, u8 v) { asm volatile("outb %0, %1" : : "a"(v), "Nd"(p)); }
static inline void outw(u16 p, u16 v) { asm volatile("outw %0, %1" : : "a"(v), "Nd"(p)); }
static inline void outl(u16 p, u32 v) { asm volatile("outl %0, %1" : : "a"(v), "Nd"(p)); }

static inline u64 rdtsc(void)
{
	u32 a, d;
	asm volatile("lfence; rdtsc" : "=a"(a), "=d"(d) : : "memory");
	return (u64)d << 32 | a;
}
static inline u64 rdmsr(u32 n)
{
	u32 a, d;
	asm volatile("rdmsr" : "=a"(a), "=d"(d) : "c"(n));
	return (u64)d << 32 | a;
}
static inline void wrmsr(u32 n, u64 v)
{
	asm volatile("wrmsr" : : "c"(n), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}
/* Returns the fault's vector or NO_FAULT. */
u32 rdmsr_try(u32 n, u64 *v);
u32 wrmsr_try(u32 n, u64 v);

struct cpuid {
	u32 a, b, c, d;
};
static inline struct cpuid cpuid(u32 leaf, u32 sub)
{
	struct cpuid r;
	asm volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(sub));
	return r;
}
static inline void relax(void) { asm volatile("pause"); }
static inline void sti(void) { asm volatile("sti" : : : "memory"); }
static inline void cli(void) { asm volatile("cli" : : : "memory"); }
static inline u32 mmio_read(u64 a) { return *(volatile u32 *)a; }
static inline void mmio_write(u64 a, u32 v) { *(volatile u32 *)a = v; }

#define LAPIC  0xfee00000ull
#define IOAPIC 0xfec00000ull
static inline u32 lapic_read(u32 reg) { return mmio_read(LAPIC + reg); }
static inline void lapic_write(u32 reg, u32 v) { mmio_write(LAPIC + reg, v); }
u32 ioapic_read(u32 reg);
void ioapic_write(u32 reg, u32 v);

/* Vectors: the 8259 pair at 0x20, everything through the local APIC from 0x30. */
#define VEC_PIC      0x20
#define VEC_TIMER    0x40
#define VEC_IOAPIC   0x41
#define VEC_IPI      0x42
#define VEC_SPURIOUS 0xff

extern u64 tsc_khz; /* from the hypervisor's leaf, or measured against the PIT */
void time_init(void);
void delay_us(u64 us);
/* Waits until *count >= want, halting; false after a generous time by the TSC. */
bool wait_count(volatile u64 *count, u64 want);
void pic_init(u16 mask); /* remaps; mask: bit set = off */
void lapic_init(void);

void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);

/* --- Tests. In `order` they run; those not `usual` only when named. */
struct test {
	const char *name;
	void (*run)(void);
	bool usual;
};
extern const struct test memory_tests[], cpu_tests[], timer_tests[], io_tests[], smp_tests[], balloon_tests[],
	bad_tests[], bench_tests[], linux_tests[], realmode_tests[], step_tests[];
