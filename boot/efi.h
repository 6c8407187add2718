/* SPDX-License-Identifier: MIT */
/* UEFI: used only between entry and ExitBootServices (UEFI 2.10, chapters 4 and 7). Runs on the firmware's identity
 * map. */
#pragma once

#include "boot/bootinfo.h"

/* If the loader gave no framebuffer, finds GOP's. Needs running boot services. */
void efi_find_screen(struct bootinfo *b);
/*
 * Gets the final memory map into b->range and exits boot services, trying again while the map changes. Then the
 * firmware's page tables are left behind: the early map is that of a 32-bit entry, the low 4 GB. 0 or -EIO. Interrupts
 * stay off.
 */
int efi_take_over(struct bootinfo *b);

/*
 * Calls a firmware function with up to five arguments, on the stack that the firmware gave us and with interrupts on;
 * returns its EFI_STATUS. Pointers into the image are fine, except to buffers that devices fill: those need physical
 * addresses. Not after efi_take_over.
 */
u64 efi_call(const void *fn, u64 a, u64 b, u64 c, u64 d, u64 e);
