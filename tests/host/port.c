/* SPDX-License-Identifier: MIT */
/* lib/port.h and sched/kick.h for user space: an arena instead of RAM, a settable clock, counters instead of IPIs. */
#include "tests/host/host.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/x86/cpu/features.h"
#include "lib/port.h"
#include "lib/print.h"
#include "mm/frames.h"
#include "sched/kick.h"

u64 host_flushes, host_kicks, host_kick_mask;
void (*host_on_flush)(hpa_t root, u64 mask);
void (*host_on_irq)(bool off);
void (*host_on_relax)(void);
bool host_log_echo, host_expect_panic;
jmp_buf host_panic_jmp;

struct cpu_features cpu_features; /* all zero but for what a test sets */

char *host_arena;
__thread unsigned host_cpu;
static u64 arena_bytes, first_free, now_ns, now_step, fail_at;
static char logged[1 << 16];
static size_t logged_len;

void host_machine(u64 bytes)
{
	host_machine_free();
	host_arena = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (host_arena == MAP_FAILED)
		abort();
	arena_bytes = bytes;
	u64 frames = bytes / PAGE_SIZE;
	first_free = (frames * sizeof(struct frame) + PAGE_SIZE - 1) / PAGE_SIZE;
	frames_init((struct frame *)host_arena, frames);
	frames_add(MFN(first_free), frames - first_free);
	fail_at = 0;
	now_ns = 0;
	host_flushes = host_kicks = host_kick_mask = 0;
}

void host_machine_free(void)
{
	if (host_arena)
		munmap(host_arena, arena_bytes);
	host_arena = NULL;
}

u64 host_first_free(void) { return first_free; }
void host_fail_alloc(u64 nth) { fail_at = nth; }

bool port_fail_alloc(void)
{
	if (!fail_at)
		return false;
	if (fail_at == 1)
		return true;
	fail_at--;
	return false;
}

void host_set_now(u64 ns)
{
	now_ns = ns;
	now_step = 0;
}

void host_set_now_step(u64 ns) { now_step = ns; }
void host_set_cpu(unsigned cpu) { host_cpu = cpu; }

void *port_virt(hpa_t pa)
{
	if (pa >= arena_bytes)
		panic("port_virt(%#llx) is beyond the arena", (unsigned long long)pa);
	return host_arena + pa;
}

hpa_t port_phys(const void *va) { return (hpa_t)((const char *)va - host_arena); }
u64 port_now(void) { return now_step ? __atomic_add_fetch(&now_ns, now_step, __ATOMIC_RELAXED) : now_ns; }
unsigned port_cpu(void) { return host_cpu; }

void port_relax(void)
{
	if (host_on_relax)
		host_on_relax();
	sched_yield();
}

u64 port_irq_save(void)
{
	if (host_on_irq)
		host_on_irq(true);
	return 0;
}

void port_irq_restore(u64 state)
{
	(void)state;
	if (host_on_irq)
		host_on_irq(false);
}

void port_flush_root(hpa_t root, u64 pcpu_mask)
{
	__atomic_add_fetch(&host_flushes, 1, __ATOMIC_RELAXED);
	if (host_on_flush)
		host_on_flush(root, pcpu_mask);
}

void port_flush_host(u64 va, u64 len)
{
	(void)va;
	(void)len;
	__atomic_add_fetch(&host_flushes, 1, __ATOMIC_RELAXED);
}

void port_kick(unsigned pcpu)
{
	host_kicks++;
	host_kick_mask |= 1ul << pcpu;
}

void port_log(const char *text, size_t len)
{
	if (host_log_echo)
		fwrite(text, 1, len, stderr);
	if (len > sizeof(logged) - 1 - logged_len)
		len = sizeof(logged) - 1 - logged_len;
	memcpy(logged + logged_len, text, len);
	logged_len += len;
	logged[logged_len] = 0;
}

const char *host_log(void) { return logged; }

void host_log_clear(void)
{
	logged_len = 0;
	logged[0] = 0;
}

void panic(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (host_expect_panic) {
		host_expect_panic = false;
		longjmp(host_panic_jmp, 1);
	}
	fprintf(stderr, "panic: %s\n", text);
	abort();
}
