/* SPDX-License-Identifier: MIT */
/* Handlers of string instructions and of ports. */
#include "arch/x86/emul/ops.h"

/* Iterations of a REP instruction before the caller may look at interrupts. */
#define REP_BATCH 4096u

enum emul_result x_in(struct ex *e)
{
	u32 v = 0;
	enum emul_result res = e->ops->in(e->ctx, (u16)e->src, e->in->opsize, &v, e->fault);

	e->dst = v;
	return res;
}

enum emul_result x_out(struct ex *e) { return e->ops->out(e->ctx, (u16)e->dst, e->in->opsize, (u32)e->src, e->fault); }

static u16 port(const struct ex *e) { return (u16)e->r.r[R_DX]; }

/* INS: memory is known to take the value before the port is asked for it. */
static enum emul_result ins(struct ex *e, u64 di)
{
	unsigned size = e->in->opsize;
	u32 in = 0;
	u64 v;
	enum emul_result res = emul_read(e, SEG_ES, di, &v, size, EMUL_RMW);

	if (res == EMUL_OK)
		res = e->ops->in(e->ctx, port(e), size, &in, e->fault);
	return res == EMUL_OK ? emul_write(e, SEG_ES, di, in, size) : res;
}

static bool compares(const struct ex *e) { return e->op == OP_CMPS || e->op == OP_SCAS; }

/* One iteration: all of it, or nothing. */
static enum emul_result iterate(struct ex *e)
{
	unsigned size = e->in->opsize, adsize = e->in->adsize;
	u64 si = reg_get(e, R_SI, adsize), di = reg_get(e, R_DI, adsize),
	    step = e->r.rflags & FL_DF ? -(u64)size : size;
	bool from_si = e->op <= OP_CMPS, to_di = e->op >= OP_MOVS;
	u64 a = reg_get(e, R_AX, size), b = 0;
	enum emul_result res = EMUL_OK;

	if (from_si)
		res = emul_read(e, (enum seg)e->in->seg, si, &a, size, EMUL_READ);
	if (res == EMUL_OK && compares(e))
		res = emul_read(e, SEG_ES, di, &b, size, EMUL_READ);
	if (res != EMUL_OK)
		return res;
	if (e->op == OP_LODS)
		reg_set(e, R_AX, a, size);
	else if (e->op == OP_INS)
		res = ins(e, di);
	else if (e->op == OP_OUTS)
		res = e->ops->out(e->ctx, port(e), size, (u32)a, e->fault);
	else if (compares(e))
		alu(OP_CMP, a, b, size, &e->r.rflags);
	else
		res = emul_write(e, SEG_ES, di, a, size);
	if (res == EMUL_OK && from_si)
		reg_set(e, R_SI, si + step, adsize);
	if (res == EMUL_OK && to_di)
		reg_set(e, R_DI, di + step, adsize);
	return res;
}

/* Whether CMPS or SCAS ends its repetition: REPE at the first difference, REPNE at the first match. */
static bool found(const struct ex *e) { return compares(e) && !(e->r.rflags & FL_ZF) == (e->in->rep == 0xf3); }

/* What is done stays done: the registers are those of the completed iterations whatever ends the batch. */
enum emul_result x_string(struct ex *e)
{
	unsigned adsize = e->in->adsize;
	enum emul_result res = EMUL_OK;
	unsigned batch = e->r.rflags & FL_TF ? 1 : REP_BATCH; /* a single step is one iteration */
	u64 left = 0;

	if (!e->in->rep)
		return iterate(e);
	for (unsigned i = 0; i < batch; i++) {
		left = reg_get(e, R_CX, adsize);
		if (!left)
			return EMUL_OK;
		res = iterate(e);
		if (res != EMUL_OK)
			break;
		reg_set(e, R_CX, left - 1, adsize);
		if (left == 1 || found(e))
			return EMUL_OK;
	}
	e->r.rip = e->orig->rip;
	e->r.rflags |= e->orig->rflags & FL_RF;
	*e->orig = e->r;
	return res == EMUL_OK ? EMUL_AGAIN : res;
}
