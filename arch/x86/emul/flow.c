/* SPDX-License-Identifier: MIT */
/* Handlers of what moves rip and rsp, and of system registers. */
#include "arch/x86/emul/ops.h"

/* Bytes of the stack pointer that count. */
static unsigned stack_size(const struct ex *e) { return e->in->mode == MODE_64 ? 8 : e->ops->stack_size(e->ctx); }

static void set_sp(struct ex *e, u64 sp) { reg_set(e, R_SP, sp, stack_size(e)); }
static u64 stack_at(const struct ex *e, u64 delta) { return (e->r.r[R_SP] + delta) & mask_of(stack_size(e)); }

/* Finds out whether n pushes will be possible. */
static enum emul_result probe_stack(struct ex *e, unsigned n)
{
	unsigned size = e->in->opsize;
	enum emul_result res = EMUL_OK;
	u64 v;

	for (unsigned i = 1; i <= n && res == EMUL_OK; i++)
		res = emul_read(e, SEG_SS, stack_at(e, -(u64)i * size), &v, size, EMUL_RMW);
	return res;
}

/* Pushes n values of the operand size; several are probed before the first is written. */
static enum emul_result push(struct ex *e, const u64 *v, unsigned n)
{
	unsigned size = e->in->opsize;
	enum emul_result res = n > 1 ? probe_stack(e, n) : EMUL_OK;

	for (unsigned i = 0; i < n && res == EMUL_OK; i++)
		res = emul_write(e, SEG_SS, stack_at(e, -(u64)(i + 1) * size), v[i], size);
	set_sp(e, stack_at(e, -(u64)n * size));
	return res;
}

static enum emul_result pop(struct ex *e, u64 *v, unsigned n)
{
	unsigned size = e->in->opsize;
	enum emul_result res = EMUL_OK;

	for (unsigned i = 0; i < n && res == EMUL_OK; i++)
		res = emul_read(e, SEG_SS, stack_at(e, (u64)i * size), &v[i], size, EMUL_READ);
	set_sp(e, stack_at(e, (u64)n * size));
	return res;
}

enum emul_result x_push(struct ex *e) { return push(e, &e->dst, 1); }

/* POP to memory addresses it with the stack pointer after the pop. */
enum emul_result x_pop(struct ex *e)
{
	if (e->in->has_mem && e->in->base == R_SP)
		e->ea = (e->ea + e->in->opsize) & mask_of(e->in->adsize);
	return pop(e, &e->dst, 1);
}

enum emul_result x_pusha(struct ex *e) { return push(e, e->r.r, 8); }

enum emul_result x_popa(struct ex *e)
{
	u64 v[8];
	enum emul_result res = pop(e, v, 8);

	for (unsigned i = 0; i < 8; i++)
		if (res == EMUL_OK && 7 - i != R_SP)
			reg_set(e, 7 - i, v[i], e->in->opsize);
	return res;
}

static unsigned iopl(const struct ex *e) { return (unsigned)(e->r.rflags & FL_IOPL) >> 12; }
static bool vm86_denied(const struct ex *e) { return e->r.rflags & FL_VM && iopl(e) < 3; }

enum emul_result x_pushf(struct ex *e)
{
	u64 v = e->r.rflags & ~(u64)(FL_RF | FL_VM);

	return vm86_denied(e) ? emul_raise(e, VEC_GP) : push(e, &v, 1);
}

enum emul_result x_popf(struct ex *e)
{
	u64 mask = FL_ARITH | FL_TF | FL_DF | FL_NT | (e->in->opsize > 2 ? FL_AC | FL_ID : 0), v;
	unsigned cpl = e->ops->cpl(e->ctx);

	if (vm86_denied(e))
		return emul_raise(e, VEC_GP);

	enum emul_result res = pop(e, &v, 1);

	set_flags(e, mask | (cpl <= iopl(e) ? FL_IF : 0) | (cpl == 0 ? FL_IOPL : 0), v);
	return res;
}

/* A nested procedure also gets the frame pointers of those around it, and its own. */
enum emul_result x_enter(struct ex *e)
{
	unsigned size = e->in->opsize, level = e->in->imm >> 16 & 31;
	u64 outer = e->r.r[R_BP], locals = e->in->imm & 0xffff, frame, v = outer;
	enum emul_result res = push(e, &v, 1);

	frame = e->r.r[R_SP];
	for (unsigned i = 1; i <= level && res == EMUL_OK; i++) {
		v = frame;
		if (i < level)
			res = emul_read(e, SEG_SS, (outer - i * size) & mask_of(stack_size(e)), &v, size, EMUL_READ);
		if (res == EMUL_OK)
			res = push(e, &v, 1);
	}
	if (res == EMUL_OK)
		res = emul_read(e, SEG_SS, stack_at(e, -locals), &v, size, EMUL_RMW);
	reg_set(e, R_BP, frame, stack_size(e));
	set_sp(e, stack_at(e, -locals));
	return res;
}

enum emul_result x_leave(struct ex *e)
{
	u64 frame;

	set_sp(e, e->r.r[R_BP]);

	enum emul_result res = pop(e, &frame, 1);

	reg_set(e, R_BP, frame, e->in->opsize);
	return res;
}

static enum emul_result jump(struct ex *e, u64 to)
{
	e->r.rip = to & mask_of(e->in->opsize);
	return EMUL_OK;
}

static enum emul_result jump_if(struct ex *e, bool taken) { return taken ? jump(e, e->dst) : EMUL_OK; }

enum emul_result x_jmp(struct ex *e) { return jump(e, e->dst); }
enum emul_result x_jcc(struct ex *e) { return jump_if(e, alu_cond(e->in->opcode, e->r.rflags)); }
enum emul_result x_jcxz(struct ex *e) { return jump_if(e, reg_get(e, R_CX, e->in->adsize) == 0); }

/* LOOPNE, LOOPE and LOOP, in the order of their opcodes. */
enum emul_result x_loop(struct ex *e)
{
	unsigned which = e->in->opcode & 3, zf = e->r.rflags & FL_ZF ? 1 : 0;

	reg_set(e, R_CX, e->r.r[R_CX] - 1, e->in->adsize);
	return jump_if(e, reg_get(e, R_CX, e->in->adsize) && (which == 2 || which == zf));
}

enum emul_result x_call(struct ex *e)
{
	u64 next = e->r.rip;

	jump(e, e->dst);
	return push(e, &next, 1);
}

enum emul_result x_ret(struct ex *e)
{
	u64 to;
	enum emul_result res = pop(e, &to, 1);

	set_sp(e, stack_at(e, e->in->imm));
	jump(e, to);
	return res;
}

static enum emul_result load_cs(struct ex *e, u64 off, u64 sel)
{
	jump(e, off);
	return e->ops->load_seg(e->ctx, SEG_CS, (u16)sel, e->fault);
}

/* In the value of a far pointer the selector is above the offset. Pointers with 64-bit offsets are not known. */
static u64 selector(const struct ex *e, u64 far) { return far >> (8 * e->in->opsize); }

enum emul_result x_jmpf(struct ex *e) { return load_cs(e, e->dst, selector(e, e->dst)); }

/* The stack is known to take both words before CS changes. */
enum emul_result x_callf(struct ex *e)
{
	u64 back[2] = {e->ops->get_sel(e->ctx, SEG_CS), e->r.rip};
	enum emul_result res = probe_stack(e, 2);

	if (res == EMUL_OK)
		res = load_cs(e, e->dst, selector(e, e->dst));
	return res == EMUL_OK ? push(e, back, 2) : res;
}

/* Returns to another privilege level are not known. */
enum emul_result x_retf(struct ex *e)
{
	u64 v[2];
	enum emul_result res = pop(e, v, 2);

	if (res != EMUL_OK)
		return res;
	if (e->in->mode != MODE_REAL && (v[1] & 3) != e->ops->cpl(e->ctx))
		return EMUL_UNKNOWN;
	set_sp(e, stack_at(e, e->in->imm));
	return load_cs(e, v[0], v[1]);
}

/* To the same privilege level; others, to other tasks and in virtual-8086 and 64-bit mode are not known. */
enum emul_result x_iret(struct ex *e)
{
	bool real = e->in->mode == MODE_REAL;
	u64 mask = e->in->opsize == 2 ? 0x7fd5 : 0x257fd5, v[3];
	unsigned cpl = e->ops->cpl(e->ctx);

	if (e->in->mode == MODE_64 || e->r.rflags & (FL_VM | (real ? 0 : FL_NT)))
		return EMUL_UNKNOWN;

	enum emul_result res = pop(e, v, 3);

	if (res != EMUL_OK)
		return res;
	if (!real && ((v[1] & 3) != cpl || v[2] & FL_VM))
		return EMUL_UNKNOWN;
	set_flags(e, mask & ~((cpl > iopl(e) ? FL_IF : 0ul) | (cpl ? FL_IOPL : 0)), v[2]);
	return load_cs(e, v[0], v[1]);
}

enum emul_result x_into(struct ex *e) { return e->r.rflags & FL_OF ? x_system(e) : EMUL_OK; }

/* LES, LDS, LSS, LFS, LGS: the opcode's low bits name the segment, in their own way for the first two. */
enum emul_result x_lds(struct ex *e)
{
	enum seg seg = e->in->map ? e->in->opcode & 7 : e->in->opcode & 1 ? SEG_DS : SEG_ES;

	e->dst = e->src;
	return e->ops->load_seg(e->ctx, seg, (u16)selector(e, e->src), e->fault);
}

enum emul_result x_smsw(struct ex *e) { return e->ops->read_cr(e->ctx, 0, &e->dst, e->fault); }

/* Clears clear and then sets set in CR0. */
static enum emul_result change_cr0(struct ex *e, u64 clear, u64 set)
{
	u64 cr0;
	enum emul_result res = e->ops->read_cr(e->ctx, 0, &cr0, e->fault);

	return res == EMUL_OK ? e->ops->write_cr(e->ctx, 0, (cr0 & ~clear) | set, e->fault) : res;
}

/* LMSW reaches PE, MP, EM and TS, and cannot clear PE. */
enum emul_result x_lmsw(struct ex *e) { return change_cr0(e, 0xe, e->dst & 0xf); }
enum emul_result x_clts(struct ex *e) { return change_cr0(e, 8, 0); }

/* CLC, STC, CLI, STI, CLD, STD. */
enum emul_result x_flag(struct ex *e)
{
	static const u64 flags[4] = {FL_CF, FL_IF, FL_DF};
	u64 flag = flags[e->in->opcode >> 1 & 3];

	if (flag == FL_IF && e->ops->cpl(e->ctx) > iopl(e))
		return emul_raise(e, VEC_GP);
	return set_flags(e, flag, e->in->opcode & 1 ? flag : 0);
}

enum emul_result x_system(struct ex *e) { return e->ops->system(e->ctx, e->in, &e->r, e->fault); }
