/* SPDX-License-Identifier: MIT */
/* PVH: 32-bit entry with hvm_start_info in EBX (Xen's docs/misc/pvh.pandoc, public/arch-x86/hvm/start_info.h). */
#include "guest/load_impl.h"
#include "lib/errno.h"

#define PVH_MAGIC 0x336ec578ul

static void write_info(struct loader *l)
{
	const struct load_input *in = l->in;
	u64 info[7] = {PVH_MAGIC | 1ul << 32, (u64)in->modules << 32}; /* magic, version; flags, modules */
	gpa_t start = load_info_place(l), at = start + sizeof(info);
	info[2] = at;
	for (unsigned i = 0; i < in->modules; i++)
		load_append(l, &at, (u64[4]){l->module[i], in->module[i].size}, 32);
	info[4] = in->rsdp;
	info[5] = at;
	info[6] = in->map->n;
	for (const struct e820 *e = in->map->e; e < in->map->e + in->map->n; e++)
		load_append(l, &at, (u64[3]){e->start, e->len, e->type}, 24);
	info[3] = load_string(l, &at, in->cmdline);
	load_write(l, start, info, sizeof(info));
	l->out->rbx = start;
}

bool load_pvh(struct loader *l)
{
	struct image img;
	if (!elf_is(l))
		return false;
	elf_read(l, &img);
	if (!img.pvh_entry)
		load_fail(l, -EINVAL, "is an ELF file without a multiboot header or PVH note: not a kernel for this");
	image_load(l, &img, 0, img.pvh_entry);
	load_modules(l, LOAD_HIGHEST);
	if (!l->rc)
		write_info(l);
	return true;
}
