/* SPDX-License-Identifier: MIT */
/* What the loader tells: memory, modules, command line; and which memory its own things occupy. */
#include "tests/guests/guest.h"

struct range ram[MAX_RANGES], used[MAX_RANGES], module[MAX_RANGES];
unsigned rams, useds, modules;
const char *loader = "none";
u64 rsdp;

static const char *cmdline = "";
extern char image_start[], image_end[];

static void add(struct range *list, unsigned *n, u64 start, u64 len)
{
	if (len && *n < MAX_RANGES)
		list[(*n)++] = (struct range){start, len};
}

static void use(u64 start, u64 len) { add(used, &useds, start, len); }

static void set_cmdline(u64 at)
{
	if (!at)
		return;
	cmdline = (const char *)at;
	use(at, strlen(cmdline) + 1);
}

struct mb1_info {
	u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4], mmap_length, mmap_addr;
	u32 drives_length, drives_addr, config_table, loader_name;
};
struct mb1_mmap {
	u32 size;
	u64 start, len;
	u32 type;
} __attribute__((packed));
struct mb1_module {
	u32 start, end, string, reserved;
};

static void parse_mb1(const struct mb1_info *i)
{
	loader = "multiboot1";
	use((u64)i, 128);
	if (i->flags & 1 << 2)
		set_cmdline(i->cmdline);
	if (i->flags & 1 << 9 && i->loader_name)
		use(i->loader_name, strlen((const char *)(u64)i->loader_name) + 1);
	if (i->flags & 1 << 3) {
		const struct mb1_module *m = (const void *)(u64)i->mods_addr;
		use(i->mods_addr, i->mods_count * sizeof(*m));
		for (u32 n = 0; n < i->mods_count; n++) {
			add(module, &modules, m[n].start, m[n].end - m[n].start);
			use(m[n].start, m[n].end - m[n].start);
			if (m[n].string)
				use(m[n].string, strlen((const char *)(u64)m[n].string) + 1);
		}
	}
	if (!(i->flags & 1 << 6))
		return;
	use(i->mmap_addr, i->mmap_length);
	for (u64 p = i->mmap_addr; p < (u64)i->mmap_addr + i->mmap_length;) {
		const struct mb1_mmap *m = (const void *)p;
		if (m->type == 1)
			add(ram, &rams, m->start, m->len);
		p += m->size + 4;
	}
}

struct mb2_tag {
	u32 type, size;
};

static void parse_mb2_mmap(const struct mb2_tag *t)
{
	u32 entry = ((const u32 *)t)[2];
	for (u64 p = (u64)t + 16; entry && p + entry <= (u64)t + t->size; p += entry) {
		const u64 *r = (const void *)p;
		if ((u32)r[2] == 1)
			add(ram, &rams, r[0], r[1]);
	}
}

static void parse_mb2(const u32 *info)
{
	loader = "multiboot2";
	use((u64)info, info[0]);
	for (u64 p = (u64)info + 8; p < (u64)info + info[0];) {
		const struct mb2_tag *t = (const void *)p;
		const u32 *w = (const void *)(t + 1);
		if (t->type == 0)
			break;
		if (t->type == 1)
			cmdline = (const char *)w;
		if (t->type == 3) {
			add(module, &modules, w[0], w[1] - w[0]);
			use(w[0], w[1] - w[0]);
		}
		if (t->type == 6)
			parse_mb2_mmap(t);
		if (t->type == 14 || t->type == 15)
			rsdp = (u64)w;
		p += (t->size + 7) & ~7u;
	}
}

struct pvh_info {
	u32 magic, version, flags, modules;
	u64 modlist, cmdline, rsdp, memmap;
	u32 memmap_entries, reserved;
};
struct pvh_module {
	u64 start, size, cmdline, reserved;
};
struct pvh_memmap {
	u64 start, size;
	u32 type, reserved;
};

static void parse_pvh(const struct pvh_info *i)
{
	loader = "pvh";
	rsdp = i->rsdp;
	use((u64)i, sizeof(*i));
	set_cmdline(i->cmdline);
	const struct pvh_module *m = (const void *)i->modlist;
	use(i->modlist, i->modules * sizeof(*m));
	for (u32 n = 0; n < i->modules; n++) {
		add(module, &modules, m[n].start, m[n].size);
		use(m[n].start, m[n].size);
		if (m[n].cmdline)
			use(m[n].cmdline, strlen((const char *)m[n].cmdline) + 1);
	}
	if (i->version < 1)
		return;
	const struct pvh_memmap *e = (const void *)i->memmap;
	use(i->memmap, i->memmap_entries * sizeof(*e));
	for (u32 n = 0; n < i->memmap_entries; n++)
		if (e[n].type == 1)
			add(ram, &rams, e[n].start, e[n].size);
}

void boot_parse(u32 magic, u64 info)
{
	if (magic == 0x2badb002)
		parse_mb1((const void *)info);
	else if (magic == 0x36d76289)
		parse_mb2((const void *)info);
	else if (*(const u32 *)info == 0x336ec578)
		parse_pvh((const void *)info);
	use((u64)image_start, (u64)(image_end - image_start));
}

const char *option(const char *key)
{
	size_t n = strlen(key);
	for (const char *p = cmdline; *p;) {
		if (!memcmp(p, key, n) && (p[n] == '=' || p[n] == ' ' || !p[n]))
			return p + n + (p[n] == '=');
		while (*p && *p != ' ')
			p++;
		while (*p == ' ')
			p++;
	}
	return NULL;
}

u64 option_number(const char *key, u64 otherwise)
{
	const char *p = option(key);
	u64 v = 0;

	if (!p || *p < '0' || *p > '9')
		return otherwise;
	for (; *p >= '0' && *p <= '9'; p++)
		v = v * 10 + (u64)(*p - '0');
	return v << (*p == 'K' ? 10 : *p == 'M' ? 20 : *p == 'G' ? 30 : 0);
}

bool bare(void) { return option("bare") != NULL; }
