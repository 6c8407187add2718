/* SPDX-License-Identifier: MIT */
/* The frame around the loaders of the formats: which one it is, and the room in the guest's RAM. */
#include "guest/load_impl.h"

#include "lib/errno.h"
#include "lib/print.h"
#include "lib/string.h"

void load_fail(struct loader *l, int rc, const char *fmt, ...)
{
	if (l->rc)
		return;
	l->rc = rc;
	size_t n = format(l->err->text, sizeof(l->err->text), "%s: ", l->in->kernel->name);
	n = MIN(n, sizeof(l->err->text));
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

void load_read(struct loader *l, u64 offset, void *dst, u64 len)
{
	if (load_peek(l, offset, dst, len))
		return;
	memset(dst, 0, len);
	load_fail(l, -EINVAL, "is cut short or damaged: it has %lu bytes, its headers point to %lu bytes at %#lx",
		  l->in->kernel->size, len, offset);
}

static bool taken(const struct loader *l, gpa_t start, u64 len)
{
	for (const struct range *r = l->range; r < l->range + l->used; r++)
		if (start < r->end && r->start < start + len)
			return true;
	return false;
}

static bool is_ram(const struct loader *l, gpa_t start, u64 len)
{
	const struct memmap *map = l->in->map;
	for (const struct e820 *e = map->e; e < map->e + map->n; e++)
		if (e->type == E820_RAM && start >= e->start && len <= e->len && start - e->start <= e->len - len)
			return true;
	return false;
}

/* The best place begins (or ends) at a limit, or where RAM or what is in the way ends: each of these is tried. */
gpa_t load_find(const struct loader *l, u64 len, u64 align, gpa_t lo, gpa_t hi, enum load_from from)
{
	const struct memmap *map = l->in->map;
	bool up = from == LOAD_LOWEST;
	gpa_t best = ~0ul;
	for (unsigned i = 0; i <= map->n + l->used; i++) {
		struct range edge = {hi, lo};
		if (i < map->n)
			edge = (struct range){map->e[i].start + map->e[i].len, map->e[i].start};
		else if (i < map->n + l->used)
			edge = l->range[i - map->n];
		gpa_t at = up ? ROUND_UP(edge.end, align) : ROUND_DOWN(edge.start - len, align);
		bool better = best == ~0ul || (up ? at < best : at > best);
		if (better && at >= lo && at < hi && len <= hi - at && is_ram(l, at, len) && !taken(l, at, len))
			best = at;
	}
	return best;
}

static u64 ram_mb(const struct loader *l) { return (l->in->map->low_end + l->in->map->high_end - LIMIT_4G) / MB; }

void load_take(struct loader *l, const char *what, gpa_t start, u64 len)
{
	if (!is_ram(l, start, len))
		load_fail(l, -ENOSPC,
			  "no room for %s: it needs %lu KB at %#lx, the guest has %lu MB; raise its 'memory ='", what,
			  len / KB + 1, start, ram_mb(l));
	else if (taken(l, start, len))
		load_fail(l, -EINVAL, "%s (%lu bytes at %#lx) overlaps another part", what, len, start);
	else if (l->used == LOAD_RANGES)
		load_fail(l, -EINVAL, "has too many parts");
	else if (!l->rc)
		l->range[l->used++] = (struct range){start, start + len};
}

gpa_t load_place(struct loader *l, const char *what, u64 len, gpa_t lo, gpa_t hi, enum load_from from)
{
	gpa_t at = load_find(l, MAX(len, 1ul), PAGE_SIZE, lo, hi, from);
	if (at == ~0ul)
		load_fail(
			l, -ENOSPC,
			"no room for %s: it needs %lu KB beside the kernel, the guest has %lu MB; raise its 'memory ='",
			what, len / KB + 1, ram_mb(l));
	else
		load_take(l, what, at, MAX(len, 1ul));
	return at;
}

void load_write(struct loader *l, gpa_t at, const void *data, u64 len)
{
	if (!l->rc && len && p2m_write(l->in->p2m, at, data, len))
		load_fail(l, -EFAULT, "guest memory at %#lx cannot be written: the host may have run out of memory",
			  at);
}

void load_append(struct loader *l, gpa_t *at, const void *data, u64 len)
{
	load_write(l, *at, data, len);
	*at += len;
}

gpa_t load_string(struct loader *l, gpa_t *at, const char *s)
{
	gpa_t where = *at;
	load_append(l, at, s, strlen(s) + 1);
	return where;
}

void load_modules(struct loader *l, enum load_from from)
{
	if (l->in->modules > LOAD_MODULES)
		load_fail(l, -EINVAL, "has %u modules; at most %u can be loaded", l->in->modules, LOAD_MODULES);
	for (unsigned i = 0; !l->rc && i < l->in->modules; i++) {
		const struct blob *m = &l->in->module[i];
		l->module[i] = load_place(l, m->name, m->size, MB, LIMIT_4G, from);
		load_write(l, l->module[i], m->data, m->size);
	}
}

gpa_t load_info_place(struct loader *l)
{
	u64 size = PAGE_SIZE + strlen(l->in->cmdline);
	for (unsigned i = 0; i < l->in->modules; i++)
		size += 64 + strlen(l->in->module[i].name);
	return load_place(l, "the boot information", size, LOW_MEMORY, LIMIT_4G, LOAD_LOWEST);
}

struct range image_span(const struct image *img)
{
	struct range span = {~0ul, 0};
	for (const struct segment *s = img->seg; s < img->seg + img->n; s++) {
		span.start = MIN(span.start, s->paddr);
		span.end = MAX(span.end, s->paddr + s->memsz);
	}
	return span;
}

void image_load(struct loader *l, const struct image *img, u64 shift, u64 entry)
{
	if (entry >= LIMIT_4G || entry + shift >= LIMIT_4G)
		load_fail(l, -EINVAL, "is damaged: its entry point lies in none of its segments below 4 GB");
	if (!img->n)
		load_fail(l, -EINVAL, "is damaged: it has nothing to load");
	for (const struct segment *s = img->seg; !l->rc && s < img->seg + img->n; s++) {
		load_take(l, "the kernel", s->paddr + shift, s->memsz);
		load_write(l, s->paddr + shift, (const char *)l->in->kernel->data + s->offset, s->filesz);
	}
	l->out->rip = entry + shift;
}

int load_kernel(const struct load_input *in, struct start_state *out, struct load_error *err)
{
	struct loader l = {.in = in, .out = out, .err = err};
	*out = (struct start_state){.cs = 0x10, .ds = 0x18};
	err->text[0] = 0;
	if (!in->kernel->size)
		load_fail(&l, -EINVAL, "is empty");
	else if (!load_linux(&l) && !load_multiboot2(&l) && !load_multiboot1(&l) && !load_pvh(&l))
		load_fail(&l, -EINVAL,
			  "is no kernel that can be started: neither bzImage nor multiboot 1 or 2 nor PVH");
	return l.rc;
}
