/* SPDX-License-Identifier: MIT */
/* PVH: 32-bit entry with hvm_start_info in EBX (Xen's docs/misc/pvh.pandoc, public/arch-x86/hvm/start_info.h). */
#include "guest/load_impl.h"

#include "lib/errno.h"
#include "lib/string.h"

#define PVH_MAGIC 0x336ec578u

struct start_info {
	u32 magic, version, flags, modules;
	u64 modlist, cmdline, rsdp, memmap;
	u32 memmap_entries, reserved;
};

struct pvh_module {
	u64 start, size, cmdline, reserved;
};

struct pvh_memory {
	u64 start, len;
	u32 type, reserved;
};

static void write_info(struct loader *l)
{
	const struct load_input *in = l->in;
	struct start_info info = {.magic = PVH_MAGIC, .version = 1, .modules = in->modules, .rsdp = in->rsdp};
	u64 size = sizeof(info) + sizeof(struct pvh_memory) * E820_MAX + sizeof(struct pvh_module) * in->modules;
	gpa_t at = load_place(l, "the boot information", size + strlen(in->cmdline) + 1, PAGE_SIZE, LOW_MEMORY,
			      LIMIT_4G, LOAD_LOWEST);
	l->out->rbx = at;
	at += sizeof(info);
	info.memmap = at;
	info.memmap_entries = in->map->n;
	for (const struct e820 *e = in->map->e; e < in->map->e + in->map->n; e++)
		load_append(l, &at, &(struct pvh_memory){e->start, e->len, e->type, 0}, sizeof(struct pvh_memory));
	info.modlist = in->modules ? at : 0;
	for (unsigned i = 0; i < in->modules; i++)
		load_append(l, &at, &(struct pvh_module){l->module[i], in->module[i].size, 0, 0},
			    sizeof(struct pvh_module));
	info.cmdline = load_string(l, &at, in->cmdline);
	load_write(l, l->out->rbx, &info, sizeof(info));
}

bool load_pvh(struct loader *l)
{
	struct image img;
	if (!elf_is(l))
		return false;
	elf_read(l, &img);
	if (!l->rc && !img.pvh_entry)
		load_fail(l, -EINVAL, "is an ELF file without a multiboot header or PVH note: not a kernel for this");
	if (img.pvh_entry >= LIMIT_4G)
		load_fail(l, -EINVAL, "is damaged: its PVH entry is above 4 GB");
	image_load(l, &img, 0);
	load_modules(l, LOAD_HIGHEST);
	if (!l->rc)
		write_info(l);
	l->out->rip = img.pvh_entry;
	return true;
}
