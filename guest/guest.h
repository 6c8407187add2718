/* SPDX-License-Identifier: MIT */
/*
 * Guests: from a section of guests.conf to a running machine, and its end.
 *
 *     NEW --guest_start--> RUNNING --vm_end, last vCPU stopped--> ENDED --poll--> CLEARING --work--> restarted, or gone
 *
 * The list is made before any guest runs. Building and tearing down happens on the boot pCPU only, in guests_poll and,
 * for what takes long, in steps of guests_work; a guest's state is an atomic that its last vCPU sets to ENDED.
 */
#pragma once

#include "arch/x86/hvm/vcpu.h"
#include "guest/config.h"
#include "guest/load.h"

/* How files named in the config are found: data and size into out, or -ENOENT. */
typedef int (*guest_file_fn)(const char *name, size_t len, struct blob *out);

/*
 * Starts every good guest of the config; what is wrong with one is told on the console with an @end line, and the
 * others go on. Returns the number started. The config and the files must stay where they are: restarts read them
 * again.
 */
unsigned guests_start(const struct config *config, guest_file_fn file, u32 tsc_khz, u64 wall_seconds);

/* Housekeeping of the boot pCPU: tells the end of guests that have ended and begins to take them down. */
void guests_poll(void);
/*
 * A bounded step of work in the background: guests' memory is made large again, that of ended ones freed and zeroed,
 * any free memory zeroed if the pCPU is idle. Any pCPU. Returns when it wants to be called again, as hvm_work.
 */
u64 guests_work(bool idle);
/* No guest is running or will be restarted. */
bool guests_idle(void);
/* A byte typed on the console goes to the first running guest. */
void guests_input(u8 c);
