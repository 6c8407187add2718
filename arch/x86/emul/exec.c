/* SPDX-License-Identifier: MIT */
/*
 * Execution. A handler sees the values of its operands and a copy of the registers:
 *
 *     load src, load dst (with intent to write) -> handler -> store dst -> commit the copy
 *                     ^--------- LOCK: again if another CPU was faster <-'
 *
 * The store is the last thing that can fail, and the commit cannot, so an instruction happens whole or not at all.
 */
#include "arch/x86/emul/ops.h"

/* A LOCKed instruction is tried so often before the guest is asked to come again. */
#define LOCK_TRIES 64

static const struct {
	enum emul_result (*exec)(struct ex *e);
	enum access access;
} handlers[OPS] = {
#define X(name, handler, access) [OP_##name] = {x_##handler, access},
	EMUL_OPS(X)
#undef X
};

enum emul_result emul_raise(struct ex *e, u8 vector)
{
	*e->fault = (struct emul_fault){.vector = vector, .has_error = vector != VEC_DE};
	return EMUL_FAULT;
}

/* AH, CH, DH and BH live in the second byte of registers 0..3. */
static bool high_byte(const struct ex *e, unsigned n, unsigned size)
{
	return size == 1 && !e->in->rex && n >= 4 && n < 8;
}

u64 reg_get(const struct ex *e, unsigned n, unsigned size)
{
	if (high_byte(e, n, size))
		return e->r.r[n - 4] >> 8 & 0xff;
	return e->r.r[n] & mask_of(size);
}

void reg_set(struct ex *e, unsigned n, u64 v, unsigned size)
{
	u64 mask = size == 4 ? ~0ul : mask_of(size);
	unsigned shift = 0;

	if (high_byte(e, n, size)) {
		n -= 4;
		shift = 8;
	}
	e->r.r[n] = (e->r.r[n] & ~(mask << shift)) | (v & mask_of(size)) << shift;
}

enum emul_result emul_read(struct ex *e, enum seg s, u64 off, u64 *v, unsigned size, enum emul_access a)
{
	*v = 0;
	return e->ops->read(e->ctx, s, off, v, size, a, e->fault);
}

enum emul_result emul_write(struct ex *e, enum seg s, u64 off, u64 v, unsigned size)
{
	return e->ops->write(e->ctx, s, off, &v, size, e->fault);
}

/* The number of the general register that the operand is, or -1. */
static int operand_reg(const struct insn *in, enum kind k)
{
	switch (k) {
	case K_G:
		return (int)reg_of_modrm(in);
	case K_Z:
		return (in->opcode & 7) | (in->rex & 1) << 3;
	case K_A:
	case K_AH:
		return R_AX;
	case K_CL:
		return R_CX;
	case K_DX:
		return R_DX;
	case K_SH:
		return in->opcode >= 0xd2 ? R_CX : -1;
	default:
		return k > K_NONE && k <= K_RM_LAST && !in->has_mem ? (int)rm_of_modrm(in) : -1;
	}
}

static enum seg operand_seg(const struct insn *in, enum kind k)
{
	return (enum seg)((k == K_S ? in->modrm : in->opcode) >> 3 & 7);
}

enum emul_result operand_load(struct ex *e, enum kind k, u64 *v, enum emul_access a)
{
	const struct insn *in = e->in;
	unsigned size = emul_operand_size(in, k);
	int reg = operand_reg(in, k);

	*v = 0;
	if (reg >= 0)
		*v = reg_get(e, (unsigned)reg, size);
	else if (k == K_C)
		return e->ops->read_cr(e->ctx, reg_of_modrm(in), v, e->fault);
	else if (k == K_D)
		return e->ops->read_dr(e->ctx, reg_of_modrm(in), v, e->fault);
	else if (k == K_S || k == K_SO)
		*v = e->ops->get_sel(e->ctx, operand_seg(in, k));
	else if (k == K_MA)
		*v = e->ea;
	else if (k == K_J8 || k == K_JZ)
		*v = e->r.rip + in->imm;
	else if (k == K_SH || k >= K_IB)
		*v = in->imm & mask_of(size);
	else if (k != K_NONE && k != K_MP)
		return emul_read(e, (enum seg)in->seg, e->ea, v, size, a);
	return EMUL_OK;
}

enum emul_result operand_store(struct ex *e, enum kind k, u64 v)
{
	const struct insn *in = e->in;
	unsigned size = emul_operand_size(in, k);
	int reg = operand_reg(in, k);

	if (k == K_C)
		return e->ops->write_cr(e->ctx, reg_of_modrm(in), v, e->fault);
	if (k == K_D)
		return e->ops->write_dr(e->ctx, reg_of_modrm(in), v, e->fault);
	if (k == K_S || k == K_SO)
		return e->ops->load_seg(e->ctx, operand_seg(in, k), (u16)v, e->fault);
	if (reg < 0)
		return emul_write(e, (enum seg)in->seg, e->ea, v, size);
	reg_set(e, (unsigned)reg, v, size);
	return EMUL_OK;
}

/* A bit offset in a register reaches beyond the operand that ModRM names, to either side. */
static void move_to_bit(struct ex *e)
{
	unsigned size = e->in->opsize;

	if (e->row->op >= OP_BT && e->row->op <= OP_BTC && e->row->b == K_G && e->in->has_mem)
		e->ea = (e->ea + (u64)(sext(e->src, size) >> 3 & -(s64)size)) & mask_of(e->in->adsize);
}

static enum emul_result load_operands(struct ex *e, enum access access)
{
	enum emul_result res;

	if (access == A_NONE)
		return EMUL_OK;
	res = operand_load(e, e->row->b, &e->src, EMUL_READ);
	if (res != EMUL_OK || !(access & A_R))
		return res;
	move_to_bit(e);
	return operand_load(e, e->row->a, &e->dst, access == A_RW ? EMUL_RMW : EMUL_READ);
}

/* The store of an atomic read-modify-write: EMUL_AGAIN, with the new value in *old, if memory is not *old any more. */
static enum emul_result store_atomic(struct ex *e, u64 *old)
{
	bool done = false;
	enum emul_result res =
		e->ops->cmpxchg(e->ctx, (enum seg)e->in->seg, e->ea, old, &e->dst, e->in->opsize, &done, e->fault);

	return res == EMUL_OK && !done ? EMUL_AGAIN : res;
}

enum emul_result insn_exec(const struct insn *in, struct gregs *r, const struct emul_ops *ops, void *ctx,
			   struct emul_fault *fault)
{
	const struct opcode *row = &emul_rows[in->op];
	enum access access = handlers[row->op].access;
	struct ex e = {.in = in, .row = row, .ops = ops, .ctx = ctx, .fault = fault, .orig = r, .r = *r};
	bool atomic = access == A_RW && in->has_mem && (in->lock || row->op == OP_XCHG);
	enum emul_result res;
	u64 old;

	if (!handlers[row->op].exec)
		return EMUL_UNKNOWN;
	if (row->flags & F_PRIV && ops->cpl(ctx))
		return emul_raise(&e, VEC_GP);
	e.r.rip = (r->rip + in->len) & mask_of(in->mode == MODE_64 ? 8 : 4);
	e.r.rflags &= ~(u64)FL_RF;
	e.ea = insn_ea(in, r);
	if (row->flags & F_ALIGN && in->has_mem && e.ea & (in->msize - 1u))
		return emul_raise(&e, VEC_GP); /* segment bases are multiples of 16 wherever xmm moves are used */
	res = load_operands(&e, access);
	old = e.dst;
	for (unsigned i = 0; res == EMUL_OK || (res == EMUL_AGAIN && i < LOCK_TRIES); i++) {
		struct ex now = e;

		now.dst = old;
		res = handlers[row->op].exec(&now);
		if (res == EMUL_OK && access & A_W)
			res = atomic ? store_atomic(&now, &old) : operand_store(&now, row->a, now.dst);
		if (res == EMUL_OK)
			*r = now.r;
		if (res != EMUL_AGAIN || !atomic)
			return res;
	}
	return res == EMUL_AGAIN ? EMUL_RETRY : res;
}
