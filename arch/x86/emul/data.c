/* SPDX-License-Identifier: MIT */
/* Handlers of what computes and moves: operands in, operands and flags out. */
#include "arch/x86/emul/ops.h"
#include "lib/string.h"

static bool cond(const struct ex *e) { return alu_cond(e->in->opcode, e->r.rflags); }

enum emul_result x_mov(struct ex *e) { return result(e, e->src); }
enum emul_result x_movsx(struct ex *e) { return result(e, (u64)sext(e->src, emul_operand_size(e->in, e->row->b))); }
enum emul_result x_bswap(struct ex *e) { return result(e, __builtin_bswap64(e->src) >> (64 - 8 * e->in->opsize)); }
enum emul_result x_cmov(struct ex *e) { return result(e, cond(e) ? e->src : e->dst); }
enum emul_result x_set(struct ex *e) { return result(e, cond(e)); }
enum emul_result x_nop(struct ex *e) { return EMUL_OK; }

enum emul_result x_alu(struct ex *e) { return result(e, alu(e->op, e->dst, e->src, e->in->opsize, &e->r.rflags)); }

/* SHLD and SHRD have the count as their third operand, and shift the second in. */
enum emul_result x_shift(struct ex *e)
{
	u64 count = e->row->c ? e->aux : e->src;

	return result(e, alu_shift(e->op, e->dst, e->src, (unsigned)count, e->in->opsize, &e->r.rflags));
}

enum emul_result x_bit(struct ex *e)
{
	u64 bit = 1ul << (e->src & (8u * e->in->opsize - 1)), old = e->dst;

	e->dst = e->op == OP_BTS ? old | bit : e->op == OP_BTR ? old & ~bit : old ^ bit;
	return set_flags(e, FL_CF, old & bit ? FL_CF : 0);
}

/* With nothing to find, BSF and BSR leave all of the destination as it was. */
enum emul_result x_scan(struct ex *e)
{
	set_flags(e, FL_ZF, e->src ? 0 : FL_ZF);
	if (!e->src)
		return EMUL_OK;
	e->src = (u64)(e->op == OP_BSF ? __builtin_ctzll(e->src) : 63 - __builtin_clzll(e->src));
	return operand_store(e, e->row->a, e->src);
}

/* The double-width result or dividend is AX for bytes, else DX:AX. */
static enum emul_result set_pair(struct ex *e, u64 hi, u64 lo)
{
	unsigned size = e->in->opsize;

	if (size == 1)
		return reg_set(e, R_AX, hi << 8 | lo, 2);
	reg_set(e, R_DX, hi, size);
	return reg_set(e, R_AX, lo, size);
}

enum emul_result x_mul(struct ex *e)
{
	unsigned size = e->in->opsize;
	u64 hi, lo = alu_mul(e->op == OP_IMUL, reg_get(e, R_AX, size), e->dst, size, &hi, &e->r.rflags);

	return set_pair(e, hi, lo);
}

enum emul_result x_imul2(struct ex *e)
{
	u64 hi, by = e->row->c ? e->aux : e->dst;

	return result(e, alu_mul(true, e->src, by, e->in->opsize, &hi, &e->r.rflags));
}

/* Of 128 bits by 64 is not known: C has no such division, and no device or page table needs it. */
enum emul_result x_div(struct ex *e)
{
	unsigned size = e->in->opsize;
	u64 hi = size == 1 ? reg_get(e, R_AX, 2) >> 8 : reg_get(e, R_DX, size), quot, rem;

	if (size == 8)
		return EMUL_UNKNOWN;
	if (!alu_div(e->op == OP_IDIV, hi, reg_get(e, R_AX, size), e->dst, size, &quot, &rem))
		return emul_raise(e, VEC_DE);
	return set_pair(e, rem, quot);
}

/* XCHG and XADD: the second operand, which is a register, gets the first one's old value. */
enum emul_result x_xchg(struct ex *e)
{
	u64 old = e->dst;

	e->dst = e->op == OP_XADD ? alu(OP_ADD, old, e->src, e->in->opsize, &e->r.rflags) : e->src;
	return operand_store(e, e->row->b, old);
}

/* The first operand is written in any case. */
enum emul_result x_cmpxchg(struct ex *e)
{
	unsigned size = e->in->opsize;
	u64 old = e->dst;

	e->dst = alu(OP_CMP, reg_get(e, R_AX, size), old, size, &e->r.rflags) ? old : e->src;
	return e->r.rflags & FL_ZF ? EMUL_OK : reg_set(e, R_AX, old, size);
}

/* CMPXCHG8B and CMPXCHG16B. */
enum emul_result x_cmpxchg2(struct ex *e)
{
	const struct insn *in = e->in;
	u64 *r = e->r.r, old[2] = {r[R_AX], r[R_DX]}, new[2] = {r[R_BX], r[R_CX]};
	bool done = false, small = in->opsize == 4;

	if (small) {
		old[0] = (u32)old[0] | old[1] << 32;
		new[0] = (u32) new[0] | new[1] << 32;
	} else if (e->ea & 15) {
		return emul_raise(e, VEC_GP);
	}

	enum emul_result res = e->ops->cmpxchg(e->ctx, (enum seg)in->seg, e->ea, old, new, in->msize, &done, e->fault);
	set_flags(e, FL_ZF, done ? FL_ZF : 0);
	if (done)
		return res;
	reg_set(e, R_AX, old[0], in->opsize);
	reg_set(e, R_DX, small ? old[0] >> 32 : old[1], in->opsize);
	return res;
}

/* CWD, CDQ, CQO. */
enum emul_result x_cwd(struct ex *e)
{
	return reg_set(e, R_DX, sext(e->r.r[R_AX], e->in->opsize) < 0 ? ~0ul : 0, e->in->opsize);
}

enum emul_result x_lahf(struct ex *e)
{
	return reg_set(e, R_AX, (e->r.r[R_AX] & 0xff) | ((e->r.rflags & 0xd5) | 2) << 8, 2);
}

enum emul_result x_sahf(struct ex *e) { return set_flags(e, 0xd5, e->r.r[R_AX] >> 8); }
enum emul_result x_cmc(struct ex *e) { return set_flags(e, FL_CF, ~e->r.rflags); }

/* DAA and DAS. */
enum emul_result x_daa(struct ex *e)
{
	u64 al = reg_get(e, R_AX, 1), fl = e->r.rflags;
	bool low = (al & 15) > 9 || fl & FL_AF, high = al > 0x99 || fl & FL_CF;
	bool borrow = e->op == OP_DAS && low && al < 6;
	u64 fix = (low ? 6u : 0) + (high ? 0x60u : 0);

	al = alu(OP_OR, (e->op == OP_DAA ? al + fix : al - fix) & 0xff, 0, 1, &e->r.rflags);
	set_flags(e, FL_AF | FL_CF, (low ? FL_AF : 0) | (high || borrow ? FL_CF : 0));
	return reg_set(e, R_AX, al, 1);
}

/* AAA and AAS. */
enum emul_result x_aaa(struct ex *e)
{
	u64 ax = e->r.r[R_AX];
	bool adjust = (ax & 15) > 9 || e->r.rflags & FL_AF;

	if (adjust)
		ax += e->op == OP_AAA ? 0x106ul : -0x106ul;
	set_flags(e, FL_AF | FL_CF, adjust ? FL_AF | FL_CF : 0);
	return reg_set(e, R_AX, ax & 0xff0f, 2);
}

enum emul_result x_aam(struct ex *e)
{
	u64 al = reg_get(e, R_AX, 1), base = e->dst;

	if (!base)
		return emul_raise(e, VEC_DE);
	return reg_set(e, R_AX, al / base << 8 | alu(OP_OR, al % base, 0, 1, &e->r.rflags), 2);
}

enum emul_result x_aad(struct ex *e)
{
	u64 ax = e->r.r[R_AX], al = (ax + (ax >> 8) * e->dst) & 0xff;

	return reg_set(e, R_AX, alu(OP_OR, al, 0, 1, &e->r.rflags), 2);
}

/* Memory has the lower bound, then the upper. */
enum emul_result x_bound(struct ex *e)
{
	unsigned size = e->in->opsize;
	s64 i = sext(e->dst, size);

	if (i < sext(e->src, size) || i > sext(e->src >> 8 * size, size))
		return emul_raise(e, VEC_BR);
	return EMUL_OK;
}

enum emul_result x_xlat(struct ex *e)
{
	u64 off = (e->r.r[R_BX] + (e->r.r[R_AX] & 0xff)) & mask_of(e->in->adsize), v;
	enum emul_result res = emul_read(e, (enum seg)e->in->seg, off, &v, 1, EMUL_READ);

	reg_set(e, R_AX, v, 1);
	return res;
}

/* The side of ModRM.rm of an xmm move: memory, a general or an xmm register. */
static enum emul_result movx_rm(struct ex *e, enum kind k, u8 v[16], unsigned size, bool write)
{
	enum seg s = (enum seg)e->in->seg;
	unsigned n = rm_of_modrm(e->in);

	if (e->in->has_mem && write)
		return e->ops->write(e->ctx, s, e->ea, v, size, e->fault);
	if (e->in->has_mem)
		return e->ops->read(e->ctx, s, e->ea, v, size, EMUL_READ, e->fault);
	if (k != K_E)
		e->ops->xmm(e->ctx, n, v, write);
	else
		memcpy(write ? (u8 *)&e->r.r[n] : v, write ? v : (u8 *)&e->r.r[n], write ? 8 : size);
	return EMUL_OK;
}

/* Moves between xmm registers, memory and general registers; what is narrower than the register clears the rest. */
enum emul_result x_movx(struct ex *e)
{
	bool load = e->row->a == K_V;
	enum kind k = load ? e->row->b : e->row->a;
	unsigned size = emul_operand_size(e->in, k), reg = reg_of_modrm(e->in);
	enum emul_result res = EMUL_OK;
	u8 v[16] = {0};

	if (load)
		res = movx_rm(e, k, v, size, false);
	else
		e->ops->xmm(e->ctx, reg, v, false);
	memset(v + size, 0, 16 - size);
	if (!load)
		return movx_rm(e, k, v, size, true);
	if (res == EMUL_OK)
		e->ops->xmm(e->ctx, reg, v, true);
	return res;
}
