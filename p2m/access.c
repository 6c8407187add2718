/* SPDX-License-Identifier: MIT */
/*
 * The one way to a guest's memory. Each page is looked up and copied inside one walk, so its frame cannot be freed in
 * between; no pointer into guest memory outlives the function that made it.
 */
#include "lib/errno.h"
#include "lib/string.h"
#include "p2m/internal.h"

#define READABLE (P2M_MEMORY | P2M_MASK(P2M_SHARED))
#define WRITABLE P2M_MASK(P2M_RAM)
#define LOADABLE (WRITABLE | P2M_MASK(P2M_RO))

/* Whether the page may be accessed as one of these types. A write is as a CPU's: RAM must be writable, and dirty. */
static bool is_allowed(struct p2m_entry e, u32 types)
{
	bool clean = e.type == P2M_RAM && types != READABLE && (~e.flags & (PT_W | PT_D));

	return (P2M_MASK(e.type) & types) && !clean;
}

/* What to do with a piece of guest memory that lies in one page. */
typedef void (*page_fn)(void *at, void *arg, size_t len);

/* Something keeps the page from being accessed as these types are: removes that, if it is not for good. */
static int prepare(struct p2m *p, gfn_t gfn, u32 types)
{
	switch (p2m_get(p, gfn).type) {
	case P2M_DEMAND:
		return p2m_touch(p, gfn);
	case P2M_RAM:
	case P2M_TRACKED:
		return types != READABLE ? p2m_make_writable(p, gfn) : 0; /* 0: somebody else has populated it */
	default:
		return -EFAULT;
	}
}

/* Runs fn, unless it is NULL, on guest memory [gpa, gpa + len) in one page, if that has one of the types. */
static int with_page(struct p2m *p, gpa_t gpa, size_t len, u32 types, page_fn fn, void *arg)
{
	for (;;) {
		struct p2m_walk w = p2m_walk_begin(p);
		struct p2m_cache *c = p2m_look_up(p, gpa_to_gfn(gpa));
		bool allowed = is_allowed(c->e, types);
		if (allowed && fn)
			fn(port_virt(mfn_to_hpa(c->e.mfn) + (gpa & ~PAGE_MASK)), arg, len);
		if (!allowed)
			c->gen = 0;
		p2m_walk_end(p, w);
		if (allowed)
			return 0;
		if (prepare(p, gpa_to_gfn(gpa), types))
			return -EFAULT;
	}
}

/* The same for a range of pages; arg is a buffer that advances with them. */
static int with_pages(struct p2m *p, gpa_t gpa, size_t len, u32 types, page_fn fn, char *buf)
{
	for (size_t step; len; gpa += step, buf += step, len -= step) {
		step = MIN(len, PAGE_SIZE - (gpa & ~PAGE_MASK));
		int err = with_page(p, gpa, step, types, fn, buf);
		if (err)
			return err;
	}
	return 0;
}

/* An access over several pages is checked as a whole first, so that one that fails has not happened in part. */
static int access(struct p2m *p, gpa_t gpa, size_t len, u32 types, page_fn fn, void *buf)
{
	if (len > PAGE_SIZE - (gpa & ~PAGE_MASK) && with_pages(p, gpa, len, types, NULL, buf))
		return -EFAULT;
	return with_pages(p, gpa, len, types, fn, buf);
}

static void copy_out(void *at, void *buf, size_t len) { memcpy(buf, at, len); }
static void copy_in(void *at, void *buf, size_t len) { memcpy(at, buf, len); }

int p2m_read(struct p2m *p, gpa_t gpa, void *buf, size_t len) { return access(p, gpa, len, READABLE, copy_out, buf); }

int p2m_write(struct p2m *p, gpa_t gpa, const void *buf, size_t len)
{
	return access(p, gpa, len, WRITABLE, copy_in, (void *)buf);
}

int p2m_write_rom(struct p2m *p, gpa_t gpa, const void *buf, size_t len)
{
	return access(p, gpa, len, LOADABLE, copy_in, (void *)buf);
}

struct cmpxchg {
	u64 old[2], new[2];
	bool done;
};

static bool cmpxchg16(void *at, u64 old[2], const u64 new[2])
{
	bool done;

	__asm__ volatile("lock cmpxchg16b %1"
			 : "=@ccz"(done), "+m"(*(unsigned __int128 *)at), "+a"(old[0]), "+d"(old[1])
			 : "b"(new[0]), "c"(new[1])
			 : "memory");
	return done;
}

static void cmpxchg(void *at, void *arg, size_t len)
{
	struct cmpxchg *c = arg;

	if (len == 1)
		c->done = atomic_cas((u8 *)at, (u8 *)c->old, (u8)c->new[0]);
	else if (len == 2)
		c->done = atomic_cas((u16 *)at, (u16 *)c->old, (u16)c->new[0]);
	else if (len == 4)
		c->done = atomic_cas((u32 *)at, (u32 *)c->old, (u32)c->new[0]);
	else if (len == 8)
		c->done = atomic_cas((u64 *)at, c->old, c->new[0]);
	else
		c->done = cmpxchg16(at, c->old, c->new);
}

int p2m_cmpxchg(struct p2m *p, gpa_t gpa, void *old, const void *new, unsigned size, bool *done)
{
	struct cmpxchg c = {.done = false};

	if (!size || size > 16 || (size & (size - 1)) || !IS_ALIGNED(gpa, size))
		return -EINVAL;
	memcpy(c.old, old, size);
	memcpy(c.new, new, size);
	int err = with_page(p, gpa, size, WRITABLE, cmpxchg, &c);
	memcpy(old, c.old, size);
	*done = c.done;
	return err;
}
