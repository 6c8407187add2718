/* SPDX-License-Identifier: MIT */
/* The frame around the loaders of the formats: which one it is, and the room in the guest's RAM. */
#include "guest/load_impl.h"

#include "lib/assert.h"
#include "lib/errno.h"
#include "lib/print.h"
#include "lib/string.h"

/* The reserved kilobyte below 640 KB, where a PC's firmware has its EBDA, is RAM to the P2M. */
#define BASE_END 0x9fc00ul
#define HOLE     0xa0000ul

static void add(struct memmap *m, gpa_t start, gpa_t end, u32 type)
{
	if (start < end)
		m->e[m->n++] = (struct e820){start, end - start, type, 0};
}

void memmap_build(struct memmap *m, u64 memory)
{
	u64 low = MIN(MAX(memory, MB), GUEST_MMIO_BASE);
	*m = (struct memmap){.low_end = low, .high_end = 4 * GB + MAX(memory, low) - low};
	add(m, 0, BASE_END, E820_RAM);
	add(m, BASE_END, HOLE, E820_RESERVED);
	add(m, GUEST_ACPI_BASE, MB, E820_RESERVED);
	add(m, MB, m->low_end, E820_RAM);
	add(m, 4 * GB, m->high_end, E820_RAM);
}

void load_fail(struct loader *l, int rc, const char *fmt, ...)
{
	if (l->rc)
		return;
	l->rc = rc;
	size_t n = MIN(format(l->err->text, sizeof(l->err->text), "%s: ", l->in->kernel->name), sizeof(l->err->text));
	va_list ap;
	va_start(ap, fmt);
	vformat(l->err->text + n, sizeof(l->err->text) - n, fmt, ap);
	va_end(ap);
}

bool load_peek(const struct loader *l, u64 offset, void *dst, u64 len)
{
	const struct blob *k = l->in->kernel;
	if (l->rc || offset > k->size || len > k->size - offset)
		return false;
	memcpy(dst, (const char *)k->data + offset, len);
	return true;
}

u64 load_word(struct loader *l, u64 offset, u64 width)
{
	u64 v = 0;
	if (!load_peek(l, offset, &v, width))
		load_fail(l, -EINVAL,
			  "is cut short or damaged: it has %lu bytes, its headers point to %lu bytes at %#lx",
			  l->in->kernel->size, width, offset);
	return v;
}

/* Whether this is RAM below hi and nothing was put there; if not, next is where to look next, or ~0. */
static bool is_free(const struct loader *l, gpa_t at, u64 len, gpa_t hi, gpa_t *next)
{
	const struct memmap *map = l->in->map;
	for (const struct range *r = l->range; r < l->range + l->used; r++) {
		*next = r->end;
		if (at < r->end && r->start < at + len)
			return false;
	}
	for (const struct e820 *e = map->e; e < map->e + map->n; e++) {
		gpa_t end = MIN(e->start + e->len, hi);
		*next = MAX(at, e->start);
		if (e->type == E820_RAM && *next < end && len <= end - *next)
			return *next == at;
	}
	*next = ~0ul;
	return false;
}

void load_take(struct loader *l, const char *what, gpa_t start, u64 len, gpa_t hi)
{
	const struct memmap *map = l->in->map;
	gpa_t next;
	ASSERT(l->used < LOAD_RANGES);
	if (!is_free(l, start, len, hi, &next))
		load_fail(l, -ENOSPC,
			  "no room for %s: it needs %lu KB, more than is free from %#lx on; "
			  "the guest has %lu MB: raise its 'memory ='",
			  what, len / KB + 1, start, (map->low_end + map->high_end - LIMIT_4G) / MB);
	else if (!l->rc)
		l->range[l->used++] = (struct range){start, start + len};
}

gpa_t load_place(struct loader *l, const char *what, u64 len, gpa_t lo, gpa_t hi)
{
	gpa_t at = lo, next;
	len = MAX(len, 1ul);
	while (!is_free(l, at, len, hi, &next) && next != ~0ul)
		at = ROUND_UP(next, PAGE_SIZE);
	load_take(l, what, at, len, hi);
	return at;
}

void load_write(struct loader *l, gpa_t at, const void *data, u64 len)
{
	if (!l->rc && len && p2m_write(l->in->p2m, at, data, len))
		load_fail(l, -EFAULT, "guest memory at %#lx cannot be written: the host may have run out of memory",
			  at);
}

void load_put(struct loader *l, gpa_t at, u64 v, u64 width) { load_write(l, at, &v, width); }

gpa_t load_append(struct loader *l, gpa_t *at, const void *data, u64 len)
{
	gpa_t where = *at;
	load_write(l, where, data, len);
	*at += len;
	return where;
}

gpa_t load_string(struct loader *l, gpa_t *at, const char *s) { return load_append(l, at, s, strlen(s) + 1); }

static void load_modules(struct loader *l)
{
	/* The boot information: the memory map and what is fixed fit into a page. */
	u64 info = PAGE_SIZE + strlen(l->in->cmdline);
	for (unsigned i = 0; i < l->in->modules; i++) {
		const struct blob *m = &l->in->module[i];
		l->module[i] = load_place(l, m->name, m->size, MB, LIMIT_4G);
		load_write(l, l->module[i], m->data, m->size);
		info += 64 + strlen(m->name);
	}
	l->out->rbx = load_place(l, "the boot information", info, LOW_MEMORY, LIMIT_4G);
}

gpa_t image_load(struct loader *l, const struct image *img, u64 entry)
{
	if (!img->n || entry >= LIMIT_4G)
		load_fail(l, -EINVAL, "is damaged: its entry point lies in none of its segments below 4 GB");
	for (const struct segment *s = img->seg; !l->rc && s < img->seg + img->n; s++) {
		load_take(l, "the kernel", s->paddr, s->memsz, LIMIT_4G);
		load_write(l, s->paddr, (const char *)l->in->kernel->data + s->offset, s->filesz);
	}
	l->out->rip = entry;
	load_modules(l);
	return l->out->rbx;
}

int load_kernel(const struct load_input *in, struct start_state *out, struct load_error *err)
{
	struct loader l = {.in = in, .out = out, .err = err};
	ASSERT(in->modules <= CONFIG_MAX_MODULES);
	*out = (struct start_state){.rip = 0};
	err->text[0] = 0;
	if (!load_linux(&l) && !load_multiboot2(&l) && !load_multiboot1(&l) && !load_pvh(&l))
		load_fail(&l, -EINVAL, "is no kernel that can be started: neither bzImage nor multiboot nor PVH");
	return l.rc;
}
