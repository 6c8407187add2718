/* SPDX-License-Identifier: MIT */
/* The port in user space, and the knobs that tests turn. */
#pragma once

#include "lib/types.h"

/* Gives the process a machine: an arena of bytes (multiple of 2 MB) that port_virt reaches as host-physical [0, bytes),
 * with a fresh frame table in it; all but the table's own frames are free. Again: starts over. */
void host_machine(u64 bytes);
void host_machine_free(void);
/* Where the frame allocator's memory begins: frames below are the table's own. */
u64 host_first_free(void);

/* Makes the nth frames_alloc from now (1 = next) and all later ones fail; 0: never. */
void host_fail_alloc(u64 nth);

void host_set_now(u64 ns);
/* How much time passes at each look at the clock; host_set_now stops it again. */
void host_set_now_step(u64 ns);
void host_set_cpu(unsigned cpu);

/* Counters of what the code under test asked of the port. */
extern u64 host_flushes, host_kicks;
extern u64 host_kick_mask;
/* Called at each port_flush_root / port_flush_host, if set. */
extern void (*host_on_flush)(hpa_t root, u64 mask);
/* Called, if set, where a pCPU switches interrupts off or back, and while it waits: for tests with threads. */
extern void (*host_on_irq)(bool off);
extern void (*host_on_relax)(void);

/* All that was logged since the last host_log_clear, as one string. */
const char *host_log(void);
void host_log_clear(void);
extern bool host_log_echo; /* also to stderr */

/* panic jumps here when a test has armed it (setjmp(host_panic_jmp) and host_expect_panic = true); aborts otherwise. */
#include <setjmp.h>
extern jmp_buf host_panic_jmp;
extern bool host_expect_panic;
