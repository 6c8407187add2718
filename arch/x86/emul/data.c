/* SPDX-License-Identifier: MIT */
/* Handlers of what computes and moves: operands in, operands and flags out. */
#include "arch/x86/emul/ops.h"
#include "lib/string.h"

enum emul_result x_alu(struct ex *e)
{
	e->dst = alu(e->row->op, e->dst, e->src, e->in->opsize, &e->r.rflags);
	return EMUL_OK;
}

/* SHLD and SHRD have the count as their third operand, and shift the second in. */
enum emul_result x_shift(struct ex *e)
{
	u64 count = e->src;
	enum emul_result res = EMUL_OK;

	if (e->row->c)
		res = operand_load(e, e->row->c, &count, EMUL_READ);
	e->dst = alu_shift(e->row->op, e->dst, e->src, (unsigned)count, e->in->opsize, &e->r.rflags);
	return res;
}

enum emul_result x_bit(struct ex *e)
{
	u64 bit = 1ul << (e->src & (8u * e->in->opsize - 1));

	e->r.rflags = (e->r.rflags & ~(u64)FL_CF) | (e->dst & bit ? FL_CF : 0);
	if (e->row->op == OP_BTS)
		e->dst |= bit;
	else if (e->row->op == OP_BTR)
		e->dst &= ~bit;
	else if (e->row->op == OP_BTC)
		e->dst ^= bit;
	return EMUL_OK;
}

/* With nothing to find, BSF and BSR leave all of the destination as it was. */
enum emul_result x_scan(struct ex *e)
{
	bool count = e->row->op == OP_POPCNT;
	u64 v = e->src, res;

	e->r.rflags &= ~(u64)(count ? FL_ARITH : FL_ZF);
	if (v == 0)
		e->r.rflags |= FL_ZF;
	if (v == 0 && !count)
		return EMUL_OK;
	if (count)
		for (res = 0; v; v &= v - 1)
			res++;
	else
		res = (u64)(e->row->op == OP_BSF ? __builtin_ctzll(v) : 63 - __builtin_clzll(v));
	reg_set(e, reg_of_modrm(e->in), res, e->in->opsize);
	return EMUL_OK;
}

/* The double-width result or dividend is AX for bytes, else DX:AX. */
static void set_pair(struct ex *e, u64 hi, u64 lo)
{
	unsigned size = e->in->opsize;

	if (size == 1) {
		reg_set(e, R_AX, hi << 8 | lo, 2);
	} else {
		reg_set(e, R_AX, lo, size);
		reg_set(e, R_DX, hi, size);
	}
}

enum emul_result x_mul(struct ex *e)
{
	unsigned size = e->in->opsize;
	u64 hi, lo;

	lo = alu_mul(e->row->op == OP_IMUL, reg_get(e, R_AX, size), e->dst, size, &hi, &e->r.rflags);
	set_pair(e, hi, lo);
	return EMUL_OK;
}

enum emul_result x_imul2(struct ex *e)
{
	u64 hi, by = e->dst;

	if (e->row->op == OP_IMUL3)
		operand_load(e, e->row->c, &by, EMUL_READ);
	e->dst = alu_mul(true, e->src, by, e->in->opsize, &hi, &e->r.rflags);
	return EMUL_OK;
}

enum emul_result x_div(struct ex *e)
{
	unsigned size = e->in->opsize;
	u64 hi = size == 1 ? reg_get(e, R_AX, 2) >> 8 : reg_get(e, R_DX, size);
	u64 quot, rem;

	if (!alu_div(e->row->op == OP_IDIV, hi, reg_get(e, R_AX, size), e->dst, size, &quot, &rem))
		return emul_raise(e, VEC_DE);
	set_pair(e, rem, quot);
	return EMUL_OK;
}

enum emul_result x_decimal(struct ex *e)
{
	u64 al = reg_get(e, R_AX, 1), by = 0;
	bool low = (al & 15) > 9 || e->r.rflags & FL_AF, high = al > 0x99 || e->r.rflags & FL_CF;
	bool das = e->row->op == OP_DAS;

	by = (low ? 6 : 0) + (high ? 0x60 : 0);
	e->r.rflags &= ~(u64)(FL_CF | FL_AF);
	e->r.rflags |= (high || (das && low && al < 6) ? FL_CF : 0) | (low ? FL_AF : 0);
	al = (das ? al - by : al + by) & 0xff;
	alu_szp(al, 1, &e->r.rflags);
	reg_set(e, R_AX, al, 1);
	return EMUL_OK;
}

enum emul_result x_aam(struct ex *e)
{
	u64 al = reg_get(e, R_AX, 1), base = e->in->imm;

	if (!base)
		return emul_raise(e, VEC_DE);
	reg_set(e, R_AX, al / base << 8 | al % base, 2);
	alu_szp(al % base, 1, &e->r.rflags);
	return EMUL_OK;
}

enum emul_result x_aad(struct ex *e)
{
	u64 ax = reg_get(e, R_AX, 2), al = (ax + (ax >> 8) * e->in->imm) & 0xff;

	reg_set(e, R_AX, al, 2);
	alu_szp(al, 1, &e->r.rflags);
	return EMUL_OK;
}

enum emul_result x_mov(struct ex *e)
{
	e->dst = e->src;
	return EMUL_OK;
}

enum emul_result x_movsx(struct ex *e)
{
	e->dst = (u64)sext(e->src, emul_operand_size(e->in, e->row->b));
	return EMUL_OK;
}

/* BSWAP and MOVBE. */
enum emul_result x_swap(struct ex *e)
{
	e->dst = __builtin_bswap64(e->src) >> (64 - 8 * e->in->opsize);
	return EMUL_OK;
}

enum emul_result x_xchg(struct ex *e)
{
	u64 old = e->dst;

	e->dst = e->src;
	return operand_store(e, e->row->b, old); /* a register */
}

enum emul_result x_xadd(struct ex *e)
{
	u64 old = e->dst;

	e->dst = alu(OP_ADD, old, e->src, e->in->opsize, &e->r.rflags);
	return operand_store(e, e->row->b, old); /* a register */
}

enum emul_result x_cmpxchg(struct ex *e)
{
	const struct insn *in = e->in;
	u64 want = reg_get(e, R_AX, in->opsize), old = want, new = reg_get(e, reg_of_modrm(in), in->opsize);
	bool done;

	if (in->has_mem) {
		enum emul_result res =
			e->ops->cmpxchg(e->ctx, (enum seg)in->seg, e->ea, &old, &new, in->opsize, &done, e->fault);
		if (res != EMUL_OK)
			return res;
	} else {
		old = reg_get(e, rm_of_modrm(in), in->opsize);
		done = old == want;
		reg_set(e, rm_of_modrm(in), done ? new : old, in->opsize); /* written, and so extended, in any case */
	}
	alu(OP_CMP, want, old, in->opsize, &e->r.rflags);
	if (!done)
		reg_set(e, R_AX, old, in->opsize);
	return EMUL_OK;
}

/* CMPXCHG8B and CMPXCHG16B. */
enum emul_result x_cmpxchg2(struct ex *e)
{
	const struct insn *in = e->in;
	unsigned half = in->msize / 2;
	u8 old[16], new[16];
	u64 *r = e->r.r;
	bool done = false;
	enum emul_result res;

	if (half == 8 && e->ea & 15)
		return emul_raise(e, VEC_GP);
	memcpy(old, &r[R_AX], half);
	memcpy(old + half, &r[R_DX], half);
	memcpy(new, &r[R_BX], half);
	memcpy(new + half, &r[R_CX], half);
	res = e->ops->cmpxchg(e->ctx, (enum seg)in->seg, e->ea, old, new, in->msize, &done, e->fault);
	if (res != EMUL_OK)
		return res;
	e->r.rflags = (e->r.rflags & ~(u64)FL_ZF) | (done ? FL_ZF : 0);
	if (!done) {
		r[R_AX] = r[R_DX] = 0;
		memcpy(&r[R_AX], old, half);
		memcpy(&r[R_DX], old + half, half);
	}
	return EMUL_OK;
}

enum emul_result x_cmov(struct ex *e)
{
	if (alu_cond(e->in->opcode, e->r.rflags))
		e->dst = e->src;
	return EMUL_OK;
}

enum emul_result x_set(struct ex *e)
{
	e->dst = alu_cond(e->in->opcode, e->r.rflags);
	return EMUL_OK;
}

/* CWD, CDQ, CQO. */
enum emul_result x_cwd(struct ex *e)
{
	reg_set(e, R_DX, sext(e->r.r[R_AX], e->in->opsize) < 0 ? ~0ul : 0, e->in->opsize);
	return EMUL_OK;
}

enum emul_result x_lahf(struct ex *e)
{
	e->r.r[R_AX] = (e->r.r[R_AX] & ~0xff00ul) | ((e->r.rflags & 0xd5) | 2) << 8;
	return EMUL_OK;
}

enum emul_result x_sahf(struct ex *e)
{
	e->r.rflags = (e->r.rflags & ~0xd5ul) | (e->r.r[R_AX] >> 8 & 0xd5);
	return EMUL_OK;
}

enum emul_result x_xlat(struct ex *e)
{
	u64 off = (e->r.r[R_BX] + (e->r.r[R_AX] & 0xff)) & mask_of(e->in->adsize), v;
	enum emul_result res = emul_read(e, (enum seg)e->in->seg, off, &v, 1, EMUL_READ);

	reg_set(e, R_AX, v, 1);
	return res;
}

/* Moves between xmm registers, memory and general registers; what is narrower than the register clears the rest. */
enum emul_result x_movx(struct ex *e)
{
	const struct insn *in = e->in;
	bool load = e->row->a == K_V;
	enum kind rm = load ? e->row->b : e->row->a;
	unsigned size = emul_operand_size(in, rm);
	u8 v[16] = {0};
	enum emul_result res = EMUL_OK;

	if (!load)
		res = e->ops->get_xmm(e->ctx, reg_of_modrm(in), v);
	else if (in->has_mem)
		res = e->ops->read(e->ctx, (enum seg)in->seg, e->ea, v, size, EMUL_READ, e->fault);
	else if (rm == K_E)
		memcpy(v, &e->r.r[rm_of_modrm(in)], size);
	else
		res = e->ops->get_xmm(e->ctx, rm_of_modrm(in), v);
	if (res != EMUL_OK)
		return res;
	memset(v + size, 0, 16 - size);
	if (load)
		return e->ops->set_xmm(e->ctx, reg_of_modrm(in), v);
	if (in->has_mem)
		return e->ops->write(e->ctx, (enum seg)in->seg, e->ea, v, size, e->fault);
	if (rm != K_E)
		return e->ops->set_xmm(e->ctx, rm_of_modrm(in), v);
	e->r.r[rm_of_modrm(in)] = 0;
	memcpy(&e->r.r[rm_of_modrm(in)], v, size);
	return EMUL_OK;
}

enum emul_result x_nop(struct ex *e)
{
	(void)e;
	return EMUL_OK;
}
