/* SPDX-License-Identifier: MIT */
/*
 * Any bytes in any mode, executed on any registers with operations that answer as the input says: no crash, no hang, no
 * access of a size that the interface does not allow, and no register changed unless the instruction completed.
 */
#include <stdlib.h>
#include <string.h>

#include "arch/x86/emul/emul.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

struct input {
	const u8 *p;
	size_t left;
	u8 mem[64];
	unsigned mode, accesses;
};

static void take(struct input *in, void *to, size_t n)
{
	size_t some = n < in->left ? n : in->left;

	memset(to, 0, n);
	memcpy(to, in->p, some);
	in->p += some;
	in->left -= some;
}

static void must(bool holds)
{
	if (!holds)
		abort();
}

/* Mostly EMUL_OK. */
static enum emul_result answer(struct input *in)
{
	u8 v;

	take(in, &v, 1);
	must(++in->accesses < 100000);
	return v == 0xff ? EMUL_FAULT : v == 0xfe ? EMUL_RETRY : v == 0xfd ? EMUL_UNKNOWN : EMUL_OK;
}

static enum emul_result f_raise(void *ctx, u8 vector)
{
	must(vector < 32);
	return EMUL_FAULT;
}

static enum emul_result f_access(void *ctx, enum seg s, u64 off, void *buf, unsigned size, enum emul_access a)
{
	struct input *in = ctx;

	must(s < SEGS_USER && size >= 1 && size <= 16 && a <= EMUL_RMW);
	for (unsigned i = 0; i < size; i++) {
		u8 *mem = &in->mem[(off + i) % sizeof(in->mem)], *v = (u8 *)buf + i;

		*(a == EMUL_WRITE ? mem : v) = a == EMUL_WRITE ? *v : *mem;
	}
	return answer(in);
}

static enum emul_result f_cmpxchg(void *ctx, enum seg s, u64 off, void *old, const void *new, unsigned size, bool *done)
{
	u8 match;

	take(ctx, &match, 1);
	*done = match & 1;
	return f_access(ctx, s, off, *done ? (void *)new : old, size, *done ? EMUL_WRITE : EMUL_RMW);
}

static enum emul_result f_io(void *ctx, u16 port, unsigned size, u32 *val, bool write)
{
	must(size == 1 || size == 2 || size == 4);
	if (!write)
		*val = port;
	return answer(ctx);
}

static enum emul_result f_cr(void *ctx, unsigned n, u64 *val, bool write)
{
	must(n < 16);
	if (!write)
		take(ctx, val, 8);
	return answer(ctx);
}

static u16 f_get_sel(void *ctx, enum seg s)
{
	u16 v;

	must(s < SEGS);
	take(ctx, &v, 2);
	return v;
}

static enum emul_result f_load_seg(void *ctx, enum seg s, u16 sel)
{
	must(s < SEGS);
	return answer(ctx);
}

static unsigned f_cpl(void *ctx)
{
	u8 v;

	take(ctx, &v, 1);
	return v & 3;
}

static unsigned f_stack_size(void *ctx) { return f_cpl(ctx) & 1 ? 2 : 4; }

static enum emul_result f_system(void *ctx, const struct insn *in, struct gregs *r)
{
	must(in->len > 0);
	take(ctx, r, sizeof(*r));
	return answer(ctx);
}

static void f_xmm(void *ctx, unsigned n, void *val, bool write)
{
	must(n < 16);
	if (!write)
		take(ctx, val, 16);
}

static const struct emul_ops ops = {
	.raise = f_raise,
	.access = f_access,
	.cmpxchg = f_cmpxchg,
	.io = f_io,
	.cr = f_cr,
	.get_sel = f_get_sel,
	.load_seg = f_load_seg,
	.cpl = f_cpl,
	.stack_size = f_stack_size,
	.system = f_system,
	.xmm = f_xmm,
};

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct input input = {.p = data, .left = size};
	u8 mode, n, *bytes;
	struct insn in;
	struct gregs r, before;
	enum emul_result res;
	int err;

	take(&input, &mode, 1);
	n = mode >> 2 & 15;
	mode &= 3;
	bytes = malloc(n ? n : 1); /* of the exact size, so that reading beyond is seen */
	take(&input, bytes, n);
	take(&input, &r, sizeof(r));
	take(&input, input.mem, sizeof(input.mem));
	err = insn_decode(bytes, n, (enum gcpu_mode)mode, &in);
	must(in.len <= n);
	if (err == 0) {
		must(in.len > 0);
		before = r;
		res = insn_exec(&in, &r, &ops, &input);
		if (res != EMUL_OK && res != EMUL_AGAIN && !in.rep)
			must(!memcmp(&r, &before, sizeof(r)));
	}
	free(bytes);
	return 0;
}
