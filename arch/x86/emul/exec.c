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

const struct operation emul_operations[OPS] = {
#define X(name, handler, access) [OP_##name] = {x_##handler, A_##access},
	EMUL_OPS(X)
#undef X
};

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
	unsigned shift = high_byte(e, n, size) ? 8 : 0;
	u64 *r = &e->r.r[shift ? n - 4 : n];

	*r = (*r & ~(mask << shift)) | (v & mask_of(size)) << shift;
}

u64 emul_read(struct ex *e, enum seg s, u64 off, unsigned size, enum emul_access a)
{
	u64 v = 0;

	TRY(e, access, s, off, &v, size, a);
	return v;
}

void emul_write(struct ex *e, enum seg s, u64 off, u64 v, unsigned size)
{
	TRY(e, access, s, off, &v, size, EMUL_WRITE);
}

/* The number of the general register that the operand is, or -1. */
static int operand_reg(const struct insn *in, unsigned k)
{
	if (k > K_NONE && k <= K_RM_LAST)
		return in->has_mem ? -1 : (int)rm_of_modrm(in);
	if (k == K_G)
		return (int)reg_of_modrm(in);
	if (k == K_Z)
		return (in->opcode & 7) | (in->rex & 1) << 3;
	if (k == K_CL || k == K_DX)
		return k == K_CL ? R_CX : R_DX;
	return k == K_A || k == K_AH ? R_AX : -1;
}

/* The segment register that the operand is. */
static enum seg operand_seg(const struct insn *in, unsigned k)
{
	unsigned n = (k == K_SO ? in->opcode : in->modrm) >> 3;

	return k == K_SYS ? SEG_LDTR + (n & 1) : n & 7;
}

static bool is_seg(unsigned k) { return k == K_S || k == K_SO || k == K_SYS; }

u64 operand_load(struct ex *e, unsigned k, enum emul_access a)
{
	const struct insn *in = e->in;
	unsigned size = emul_operand_size(in, k);
	int reg = operand_reg(in, k);
	u64 v = 0;

	if (reg >= 0)
		return reg_get(e, (unsigned)reg, size);
	if (is_seg(k))
		return e->ops->get_sel(e->ctx, operand_seg(in, k));
	if (k == K_MA)
		return e->ea;
	if (k == K_J8 || k == K_JZ)
		return e->r.rip + in->imm;
	if (k >= K_1)
		return in->imm & mask_of(size);
	if (k == K_C)
		TRY(e, cr, reg_of_modrm(in), &v, false);
	else if (k != K_NONE)
		v = emul_read(e, (enum seg)in->seg, e->ea, size, a);
	return v;
}

void operand_store(struct ex *e, unsigned k, u64 v)
{
	const struct insn *in = e->in;
	unsigned size = emul_operand_size(in, k);
	int reg = operand_reg(in, k);

	if (reg >= 0)
		reg_set(e, (unsigned)reg, v, size);
	else if (k == K_C)
		TRY(e, cr, reg_of_modrm(in), &v, true);
	else if (is_seg(k))
		TRY(e, load_seg, operand_seg(in, k), (u16)v);
	else
		emul_write(e, (enum seg)in->seg, e->ea, v, size);
}

/* A bit offset in a register reaches beyond the operand that ModRM names, to either side. */
static void move_to_bit(struct ex *e)
{
	unsigned size = e->in->opsize;

	if (e->op >= OP_BT && e->op <= OP_BTC && e->row->b == K_G && e->in->has_mem)
		e->ea = (e->ea + (u64)(sext(e->src, size) >> 3 & -(s64)size)) & mask_of(e->in->adsize);
}

static void load_operands(struct ex *e, enum access access)
{
	if (access & A_RW)
		e->src = operand_load(e, e->row->b, EMUL_READ);
	e->aux = operand_load(e, e->row->c, EMUL_READ); /* never memory */
	move_to_bit(e);
	if (access & A_R)
		e->dst = operand_load(e, e->row->a, access & A_W ? EMUL_RMW : EMUL_READ);
}

/* The store of an atomic read-modify-write: EMUL_AGAIN, with the new value in *old, if memory is not *old any more. */
static void store_atomic(struct ex *e, u64 *old)
{
	bool done = false;

	TRY(e, cmpxchg, (enum seg)e->in->seg, e->ea, old, &e->dst, e->in->opsize, &done);
	if (!done)
		give_up(e, EMUL_AGAIN);
}

enum emul_result insn_exec(const struct insn *in, struct gregs *r, const struct emul_ops *ops, void *ctx)
{
	const struct opcode *row = &emul_rows[in->row];
	const struct operation *op = &emul_operations[in->op];
	struct ex e = {.in = in, .row = row, .op = in->op, .ops = ops, .ctx = ctx, .orig = r, .r = *r}, now;
	bool atomic = op->access == A_RWL && in->has_mem && (in->lock || in->op == OP_XCHG || in->op == OP_CMPXCHG);

	if (!op->exec)
		return EMUL_UNKNOWN;
	e.r.rip = (r->rip + in->len) & mask_of(in->mode == MODE_64 ? 8 : 4);
	e.r.rflags &= ~(u64)RFLAGS_RF;
	e.ea = insn_ea(in, r);
	if ((row->flags & F_PRIV && ops->cpl(ctx)) ||
	    /* segment bases are multiples of 16 wherever xmm moves are used */
	    (row->flags & F_ALIGN && in->has_mem && in->rep != 0xf3 && e.ea & (in->msize - 1u)))
		TRY(&e, raise, VEC_GP);
	load_operands(&e, op->access);

	u64 old = e.dst;

	for (unsigned i = 0; e.res == EMUL_OK && i < LOCK_TRIES; i++) {
		now = e;
		now.dst = old;
		op->exec(&now);
		if (op->access & A_W && atomic)
			store_atomic(&now, &old);
		else if (op->access & A_W)
			operand_store(&now, row->a, now.dst);
		if (now.res == EMUL_OK)
			*r = now.r;
		if (now.res != EMUL_AGAIN || !atomic)
			return now.res;
	}
	return e.res == EMUL_OK ? EMUL_RETRY : e.res;
}
