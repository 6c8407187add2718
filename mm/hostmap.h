/* SPDX-License-Identifier: MIT */
/*
 * The hypervisor's own address space (upper half; W^X, NX everywhere else):
 *
 *     DIRECT_MAP   all RAM, RW NX, the largest pages the CPU has: port_virt
 *     FRAME_TABLE  (part of the direct map's RAM)
 *     IO_MAP       device memory and firmware tables on demand
 *     STACKS       one per pCPU and IST, each with an unmapped guard page below
 *     IMAGE        text RX, rodata R, data and bss RW
 */
#pragma once

#include "lib/types.h"

#define DIRECT_MAP 0xffff800000000000ul /* 64 TB */
#define IO_MAP     0xffffc00000000000ul /* 512 GB */
#define STACKS     0xffffd00000000000ul
#define IMAGE_BASE 0xffffffff80000000ul

enum host_prot { HOST_R, HOST_RW, HOST_RX };
enum host_cache { HOST_WB, HOST_UC, HOST_WC };

/*
 * Builds the host table with the page-table engine. max_order: largest page of the CPU; nx: whether it has NX. Needs
 * frames. Nothing is mapped yet. Returns 0 or -ENOMEM.
 */
int hostmap_init(unsigned max_order, bool nx);
/* Maps [va, va + len) to pa. All multiples of 4 KB. Returns 0, -ENOMEM, -EEXIST. Takes LOCK_HOSTMAP. */
int hostmap_map(u64 va, hpa_t pa, u64 len, enum host_prot prot, enum host_cache cache);
/* Maps device memory or a firmware table into IO_MAP and returns its address (any alignment of pa), or NULL. */
void *hostmap_io(hpa_t pa, u64 len, enum host_cache cache);
/* size bytes of stack (multiple of 4 KB) with a guard page below; returns its top, or NULL. */
void *hostmap_stack(u64 size);
/* CR3 of the table. */
hpa_t hostmap_root(void);
/* Whether va lies in a guard page (for the trap handler's report). */
bool hostmap_is_guard(u64 va);
