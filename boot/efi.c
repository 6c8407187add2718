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
	u64 tables;
	const struct efi_table *table;
};

struct efi_guid {
	u64 lo, hi;
};

struct efi_table {
	struct efi_guid guid;
	u64 address;
};

struct efi_boot_services {
	u8 header[24];
	const void *tpl[2], *pages[2], *get_memory_map, *pool[2], *events[6], *protocols[9], *images[4];
	const void *exit_boot_services, *misc[3], *controllers[2], *open_protocol[3], *handles[2], *locate_protocol;
};
_Static_assert(offsetof(struct efi_boot_services, get_memory_map) == 56, "UEFI 2.10, 4.4.1");
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

enum { GOP_RGB, GOP_BGR, GOP_MASKS };

static const struct efi_guid acpi1_guid = {0x11d32d88eb9d2d30, 0x4dc13f279000169a};
static const struct efi_guid acpi2_guid = {0x11d3e4f18868e871, 0x81883cc7800022bc};
static const struct efi_guid gop_guid = {0x4a3823dc9042a9de, 0x6a5180d0de7afb96};

/* The early page tables of boot/entry.S. */
extern u64 boot_pml4[512], boot_pdpt[512], boot_pd[4][512];

static const struct efi_system_table *system_table(const struct bootinfo *b)
{
	return (const struct efi_system_table *)b->efi_system_table;
}

static void find_rsdp(struct bootinfo *b)
{
	const struct efi_system_table *st = system_table(b);
	hpa_t old = 0;

	for (u64 i = 0; i < st->tables; i++) {
		if (!memcmp(&st->table[i].guid, &acpi2_guid, sizeof(acpi2_guid)))
			b->acpi.rsdp = st->table[i].address;
		else if (!memcmp(&st->table[i].guid, &acpi1_guid, sizeof(acpi1_guid)))
			old = st->table[i].address;
	}
	if (!b->acpi.rsdp)
		b->acpi.rsdp = old;
}

static void set_field(u32 mask, u8 *pos, u8 *size)
{
	*pos = mask ? (u8)bit_low(mask) : 0;
	*size = mask ? (u8)(bit_high(mask) - *pos + 1) : 0;
}

static void find_screen(struct bootinfo *b)
{
	const struct gop *gop = NULL;
	struct framebuffer *fb = &b->fb;

	if (efi_call(system_table(b)->boot->locate_protocol, (u64)&gop_guid, 0, (u64)&gop, 0, 0) || !gop || !gop->mode)
		return;

	const struct gop_info *info = gop->mode->info;
	bool bgr = info->format == GOP_BGR, masks = info->format == GOP_MASKS;

	if (!bgr && !masks && info->format != GOP_RGB)
		return;
	*fb = (struct framebuffer){
		.base = gop->mode->base,
		.pitch = info->pixels_per_line * 4,
		.width = info->width,
		.height = info->height,
		.bpp = 32,
	};
	set_field(masks ? info->red : bgr ? 0xff0000 : 0xff, &fb->red_pos, &fb->red_size);
	set_field(masks ? info->green : 0xff00, &fb->green_pos, &fb->green_size);
	set_field(masks ? info->blue : bgr ? 0xff : 0xff0000, &fb->blue_pos, &fb->blue_size);
}

void efi_survey(struct bootinfo *b)
{
	find_rsdp(b);
	if (!b->fb.base)
		find_screen(b);
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
	const struct efi_boot_services *boot = system_table(b)->boot;
	u64 size, key, entry_size;
	u32 version;
	u64 status = 1;

	/* Signalling the end lets drivers allocate, so that the map is stale once or twice. */
	for (unsigned tries = 0; tries < 8 && status; tries++) {
		size = sizeof(map);
		status = efi_call(boot->get_memory_map, (u64)&size, (u64)map, (u64)&key, (u64)&entry_size,
				  (u64)&version);
		if (status) {
			log("efi     GetMemoryMap failed: %#lx; the map has %lu bytes, our buffer %lu\n", status, size,
			    sizeof(map));
			return -EIO;
		}
		status = efi_call(boot->exit_boot_services, b->efi_image_handle, key, 0, 0, 0);
	}
	if (status) {
		log("efi     ExitBootServices failed: %#lx\n", status);
		return -EIO;
	}
	b->efi_boot_services = false;
	leave_firmware_map();
	return bootinfo_efi_map(b, map, size, entry_size) == -EINVAL ? -EIO : 0;
}
