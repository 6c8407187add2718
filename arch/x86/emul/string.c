/* SPDX-License-Identifier: MIT */
/* Handlers of string instructions and of ports. */
#include "arch/x86/emul/ops.h"

/* Iterations of a REP instruction before the caller may look at interrupts. */
#define REP_BATCH 4096u

static u64 port_io(struct ex *e, u64 port, u64 val, bool write)
{
	u32 v = (u32)val;

	TRY(e, io, (u16)port, e->in->opsize, &v, write);
	return v;
}

void x_in(struct ex *e) { e->dst = port_io(e, e->src, 0, false); }
void x_out(struct ex *e) { port_io(e, e->dst, e->src, true); }

static bool compares(const struct ex *e) { return e->op == OP_CMPS || e->op == OP_SCAS; }

/*
 * One iteration: all of it, or nothing. First what may fail, the store as the last of it; INS knows that memory takes
 * the value before it asks the port.
 */
static void iterate(struct ex *e)
{
	unsigned size = e->in->opsize, adsize = e->in->adsize;
	u64 si = reg_get(e, R_SI, adsize), di = reg_get(e, R_DI, adsize),
	    step = e->r.rflags & RFLAGS_DF ? -(u64)size : size;
	bool from_si = e->op <= OP_CMPS, to_di = e->op >= OP_MOVS, ins = e->op == OP_INS;
	u64 a = from_si ? emul_read(e, (enum seg)e->in->seg, si, size, EMUL_READ) : reg_get(e, R_AX, size), b = 0;

	if (compares(e) || ins)
		b = emul_read(e, SEG_ES, di, size, ins ? EMUL_RMW : EMUL_READ);
	if (ins || e->op == OP_OUTS)
		a = port_io(e, e->r.r[R_DX], a, !ins);
	if (to_di && !compares(e))
		emul_write(e, SEG_ES, di, a, size);
	if (e->res != EMUL_OK)
		return;
	if (e->op == OP_LODS)
		reg_set(e, R_AX, a, size);
	if (compares(e))
		alu(OP_CMP, a, b, size, &e->r.rflags);
	if (from_si)
		reg_set(e, R_SI, si + step, adsize);
	if (to_di)
		reg_set(e, R_DI, di + step, adsize);
	if (e->in->rep)
		reg_set(e, R_CX, e->r.r[R_CX] - 1, adsize);
}

/* Whether a repetition is over: nothing is left, or REPE has met a difference, REPNE a match. */
static bool over(const struct ex *e)
{
	return !reg_get(e, R_CX, e->in->adsize) || (compares(e) && !(e->r.rflags & RFLAGS_ZF) == (e->in->rep == 0xf3));
}

/* What is done stays done: the registers are those of the completed iterations whatever ends the batch. */
void x_string(struct ex *e)
{
	unsigned batch = e->r.rflags & RFLAGS_TF ? 1 : REP_BATCH; /* a single step is one iteration */
	bool done = e->in->rep && !reg_get(e, R_CX, e->in->adsize);

	for (; batch && !done && e->res == EMUL_OK; batch--) {
		iterate(e);
		done = !e->in->rep || (e->res == EMUL_OK && over(e));
	}
	if (done)
		return;
	e->r.rip = e->orig->rip;
	e->r.rflags |= e->orig->rflags & RFLAGS_RF;
	*e->orig = e->r;
	give_up(e, EMUL_AGAIN);
}
