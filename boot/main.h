/* SPDX-License-Identifier: MIT */
/* Where the entry points in assembly hand over to C. */
#ifndef BOOT_MAIN_H
#define BOOT_MAIN_H

#include "lib/types.h"

/*
 * magic: the loader's; info: its information block; load_base: where image_start lies. The direct map reaches 4 GB at
 * least (under UEFI all that the firmware maps); interrupts are off, or under UEFI still the firmware's.
 */
void boot_main(u32 magic, hpa_t info, hpa_t load_base) NORETURN;

#endif
