/* SPDX-License-Identifier: MIT */
#include "boot/efi.h"

#include "arch/x86/cpu/cpu.h"
#include "lib/errno.h"
#include "lib/print.h"
#include "lib/string.h"

/* The tables of UEFI 2.10, chapter 4, as far as they are used. Pointers are physical; the firmware's map is identity.
 */
struct efi_system_table {
	u8 header[24];
	u64 vendor, revision, con_in[2], con_out[2], std_err[2], runtime;
	const struct efi_boot_services *boot;
};

struct efi_boot_services {
	u8 header[24];
	const void *tpl[2], *pages[2], *get_memory_map, *pool[2], *events[6], *protocols[9], *images[4];
	const void *exit_boot_services, *misc[3], *controllers[2], *open_protocol[3], *handles[2], *locate_protocol;
};
_Static_assert(offsetof(struct efi_boot_services, exit_boot_services) == 232, "UEFI 2.10, 4.4.1");
_Static_assert(offsetof(struct efi_boot_services, locate_protocol) == 320, "UEFI 2.10, 4.4.1");

struct gop_info {
	u32 version, width, height, format, red, green, blue, reserved, pixels_per_line;
};

struct gop_mode {
	u32 modes, mode;
	const struct gop_info *info;
	u64 info_size, base, size;
};

struct gop {
	const void *query_mode, *set_mode, *blt;
	const struct gop_mode *mode;
};

#define GOP_BLT_ONLY 3 /* a format without a framebuffer */

/* The early page tables of boot/entry.S. */
extern u64 boot_pml4[512], boot_pdpt[512], boot_pd[4][512];

static const struct efi_boot_services *services(const struct bootinfo *b)
{
	return ((const struct efi_system_table *)b->efi_system_table)->boot;
}

void efi_find_screen(struct bootinfo *b)
{
	static const u64 guid[] = {0x4a3823dc9042a9de, 0x6a5180d0de7afb96};
	const struct gop *gop = NULL;

	if (b->fb.base || efi_call(services(b)->locate_protocol, (u64)guid, 0, (u64)&gop, 0, 0) || !gop || !gop->mode)
		return;

	const struct gop_info *i = gop->mode->info;

	if (i->format < GOP_BLT_ONLY)
		b->fb = (struct framebuffer){gop->mode->base, i->pixels_per_line * 4, i->width, i->height, 32, false};
}

/*
 * The firmware's page tables lie in memory that is free from now on. Ours take their place, as after a 32-bit entry:
 * the low 4 GB, at 0 and at DIRECT_MAP.
 */
static void leave_firmware_map(void)
{
	u64 here = read_cr3() - (u64)boot_pml4; /* from addresses in the image to physical ones */
	const u64 table = 0x03, large = 0x83;

	for (u64 i = 0; i < 4 * 512; i++)
		boot_pd[i / 512][i % 512] = i * 2 * MB | large;
	for (u64 i = 0; i < 4; i++)
		boot_pdpt[i] = (here + (u64)boot_pd[i]) | table;
	memset(boot_pml4, 0, 511 * sizeof(boot_pml4[0]));
	boot_pml4[0] = boot_pml4[256] = (here + (u64)boot_pdpt) | table;
	write_cr3(read_cr3());
}

int efi_take_over(struct bootinfo *b)
{
	static u8 map[64 * KB] ALIGNED(8);
	const struct efi_boot_services *boot = services(b);
	u64 size, key, step, status = 1; /* step: bytes from entry to entry of the map */
	u32 version;

	/* Signalling the end lets drivers allocate, so that the map is stale once or twice. */
	for (unsigned tries = 0; tries < 8 && status; tries++) {
		size = sizeof(map);
		status = efi_call(boot->get_memory_map, (u64)&size, (u64)map, (u64)&key, (u64)&step, (u64)&version);
		if (!status)
			status = efi_call(boot->exit_boot_services, b->efi_image_handle, key, 0, 0, 0);
	}
	if (status) {
		log("efi: no end of boot services: status %#lx, map of %lu bytes\n", status, size);
		return -EIO;
	}
	b->efi_boot_services = false;
	leave_firmware_map();
	bootinfo_efi_map(b, map, size, step);
	return 0;
}
