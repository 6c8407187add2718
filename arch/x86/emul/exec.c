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
#include "lib/string.h"

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

static unsigned opcode_reg(const struct insn *in) { return (in->opcode & 7) | (in->rex & 1u) << 3; }

enum emul_result operand_load(struct ex *e, enum kind k, u64 *v, enum emul_access a)
{
	const struct insn *in = e->in;
	unsigned size = emul_operand_size(in, k);

	*v = 0;
	switch (k) {
	case K_NONE:
	case K_MP:
		return EMUL_OK;
	case K_MA:
		*v = e->ea;
		return EMUL_OK;
	case K_C:
		return e->ops->read_cr(e->ctx, reg_of_modrm(in), v, e->fault);
	case K_D:
		return e->ops->read_dr(e->ctx, reg_of_modrm(in), v, e->fault);
	case K_S:
		*v = e->ops->get_sel(e->ctx, (enum seg)(in->modrm >> 3 & 7));
		return EMUL_OK;
	case K_SO:
		*v = e->ops->get_sel(e->ctx, (enum seg)(in->opcode >> 3 & 7));
		return EMUL_OK;
	case K_G:
		*v = reg_get(e, reg_of_modrm(in), size);
		return EMUL_OK;
	case K_Z:
		*v = reg_get(e, opcode_reg(in), size);
		return EMUL_OK;
	case K_A:
		*v = reg_get(e, R_AX, size);
		return EMUL_OK;
	case K_CL:
		*v = reg_get(e, R_CX, 1);
		return EMUL_OK;
	case K_DX:
		*v = reg_get(e, R_DX, 2);
		return EMUL_OK;
	case K_1:
		*v = 1;
		return EMUL_OK;
	case K_J8:
	case K_JZ:
		*v = e->r.rip + in->imm;
		return EMUL_OK;
	default:
		break;
	}
	if (k >= K_IB)
		*v = in->imm & mask_of(size);
	else if (in->has_mem)
		return emul_read(e, (enum seg)in->seg, e->ea, v, size, a);
	else
		*v = reg_get(e, rm_of_modrm(in), size);
	return EMUL_OK;
}

enum emul_result operand_store(struct ex *e, enum kind k, u64 v)
{
	const struct insn *in = e->in;
	unsigned size = emul_operand_size(in, k);

	switch (k) {
	case K_C:
		return e->ops->write_cr(e->ctx, reg_of_modrm(in), v, e->fault);
	case K_D:
		return e->ops->write_dr(e->ctx, reg_of_modrm(in), v, e->fault);
	case K_S:
		return e->ops->load_seg(e->ctx, (enum seg)(in->modrm >> 3 & 7), (u16)v, e->fault);
	case K_SO:
		return e->ops->load_seg(e->ctx, (enum seg)(in->opcode >> 3 & 7), (u16)v, e->fault);
	case K_G:
		reg_set(e, reg_of_modrm(in), v, size);
		return EMUL_OK;
	case K_Z:
		reg_set(e, opcode_reg(in), v, size);
		return EMUL_OK;
	case K_A:
		reg_set(e, R_AX, v, size);
		return EMUL_OK;
	default:
		if (in->has_mem)
			return emul_write(e, (enum seg)in->seg, e->ea, v, size);
		reg_set(e, rm_of_modrm(in), v, size);
		return EMUL_OK;
	}
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
