/* SPDX-License-Identifier: MIT */
/* Handlers of what moves rip and rsp, and of system registers. */
#include "arch/x86/emul/ops.h"

/* Bytes of the stack pointer that count. */
static unsigned stack_size(const struct ex *e) { return e->in->mode == MODE_64 ? 8 : e->ops->stack_size(e->ctx); }

static void set_sp(struct ex *e, u64 sp) { reg_set(e, R_SP, sp, stack_size(e)); }
static u64 stack_at(const struct ex *e, u64 delta) { return (e->r.r[R_SP] + delta) & mask_of(stack_size(e)); }

/* Finds out whether n pushes will be possible. */
static void probe_stack(struct ex *e, unsigned n)
{
	for (u64 i = 1; i <= n; i++)
		emul_read(e, SEG_SS, stack_at(e, -i * e->in->opsize), e->in->opsize, EMUL_RMW);
}

static void push(struct ex *e, u64 v)
{
	set_sp(e, stack_at(e, -(u64)e->in->opsize));
	emul_write(e, SEG_SS, stack_at(e, 0), v, e->in->opsize);
}

static u64 pop(struct ex *e)
{
	u64 v = emul_read(e, SEG_SS, stack_at(e, 0), e->in->opsize, EMUL_READ);

	set_sp(e, stack_at(e, e->in->opsize));
	return v;
}

void x_push(struct ex *e) { push(e, e->dst); }

/* POP to memory addresses it with the stack pointer after the pop. */
void x_pop(struct ex *e)
{
	if (e->in->has_mem && e->in->base == R_SP)
		e->ea = (e->ea + e->in->opsize) & mask_of(e->in->adsize);
	e->dst = pop(e);
}

void x_pusha(struct ex *e)
{
	probe_stack(e, 8);
	for (unsigned i = 0; i < 8; i++)
		push(e, e->orig->r[i]);
}

void x_popa(struct ex *e)
{
	for (unsigned i = 8; i-- > 0;) {
		u64 v = pop(e);

		if (i != R_SP)
			reg_set(e, i, v, e->in->opsize);
	}
}

static unsigned iopl(const struct ex *e) { return (unsigned)(e->r.rflags & RFLAGS_IOPL) >> 12; }
static bool vm86_denied(const struct ex *e) { return e->r.rflags & RFLAGS_VM && iopl(e) < 3; }

void x_pushf(struct ex *e)
{
	if (vm86_denied(e))
		TRY(e, raise, VEC_GP);
	push(e, e->r.rflags & ~(u64)(RFLAGS_RF | RFLAGS_VM));
}

void x_popf(struct ex *e)
{
	u64 mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT | (e->in->opsize > 2 ? RFLAGS_AC | RFLAGS_ID : 0);
	unsigned cpl = e->ops->cpl(e->ctx);

	if (vm86_denied(e))
		TRY(e, raise, VEC_GP);
	set_flags(e, mask | (cpl <= iopl(e) ? RFLAGS_IF : 0) | (cpl == 0 ? RFLAGS_IOPL : 0), pop(e));
}

/* A nested procedure also gets the frame pointers of those around it, and its own. */
void x_enter(struct ex *e)
{
	unsigned size = e->in->opsize, level = e->in->imm >> 16 & 31;
	u64 outer = e->r.r[R_BP], locals = e->in->imm & 0xffff, frame;

	push(e, outer);
	frame = e->r.r[R_SP];
	for (unsigned i = 1; i < level; i++)
		push(e, emul_read(e, SEG_SS, (outer - i * size) & mask_of(stack_size(e)), size, EMUL_READ));
	if (level)
		push(e, frame);
	emul_read(e, SEG_SS, stack_at(e, -locals), size, EMUL_RMW);
	reg_set(e, R_BP, frame, stack_size(e));
	set_sp(e, stack_at(e, -locals));
}

void x_leave(struct ex *e)
{
	set_sp(e, e->r.r[R_BP]);
	reg_set(e, R_BP, pop(e), e->in->opsize);
}

static void jump(struct ex *e, u64 to) { e->r.rip = to & mask_of(e->in->opsize); }

static void jump_if(struct ex *e, bool taken)
{
	if (taken)
		jump(e, e->dst);
}

void x_jmp(struct ex *e) { jump(e, e->dst); }
void x_jcc(struct ex *e) { jump_if(e, alu_cond(e->in->opcode, e->r.rflags)); }
void x_jcxz(struct ex *e) { jump_if(e, reg_get(e, R_CX, e->in->adsize) == 0); }

/* LOOPNE, LOOPE and LOOP, in the order of their opcodes. */
void x_loop(struct ex *e)
{
	unsigned which = e->in->opcode & 3, zf = e->r.rflags & RFLAGS_ZF ? 1 : 0;

	reg_set(e, R_CX, e->r.r[R_CX] - 1, e->in->adsize);
	jump_if(e, reg_get(e, R_CX, e->in->adsize) && (which == 2 || which == zf));
}

void x_call(struct ex *e)
{
	push(e, e->r.rip);
	jump(e, e->dst);
}

void x_ret(struct ex *e)
{
	jump(e, pop(e));
	set_sp(e, stack_at(e, e->in->imm));
}

static void load_cs(struct ex *e, u64 off, u64 sel)
{
	jump(e, off);
	TRY(e, load_seg, SEG_CS, (u16)sel);
}

/* In the value of a far pointer the selector is above the offset. Pointers with 64-bit offsets are not known. */
static u64 selector(const struct ex *e, u64 far) { return far >> (8 * e->in->opsize); }

void x_jmpf(struct ex *e) { load_cs(e, e->dst, selector(e, e->dst)); }

/* The stack is known to take both words before CS changes. */
void x_callf(struct ex *e)
{
	u64 cs = e->ops->get_sel(e->ctx, SEG_CS), rip = e->r.rip;

	probe_stack(e, 2);
	load_cs(e, e->dst, selector(e, e->dst));
	push(e, cs);
	push(e, rip);
}

/* Returns to another privilege level are not known. */
void x_retf(struct ex *e)
{
	u64 rip = pop(e), cs = pop(e);

	if (e->in->mode != MODE_REAL && (cs & 3) != e->ops->cpl(e->ctx))
		give_up(e, EMUL_UNKNOWN);
	set_sp(e, stack_at(e, e->in->imm));
	load_cs(e, rip, cs);
}

/* To the same privilege level; others, to other tasks and in virtual-8086 and 64-bit mode are not known. */
void x_iret(struct ex *e)
{
	bool real = e->in->mode == MODE_REAL;
	u64 mask = e->in->opsize == 2 ? 0x7fd5 : 0x257fd5;
	unsigned cpl = e->ops->cpl(e->ctx);

	if (e->in->mode == MODE_64 || e->r.rflags & (RFLAGS_VM | (real ? 0 : RFLAGS_NT)))
		give_up(e, EMUL_UNKNOWN);

	u64 rip = pop(e), cs = pop(e), rflags = pop(e);

	if (!real && ((cs & 3) != cpl || rflags & RFLAGS_VM))
		give_up(e, EMUL_UNKNOWN);
	set_flags(e, mask & ~((cpl > iopl(e) ? RFLAGS_IF : 0ul) | (cpl ? RFLAGS_IOPL : 0)), rflags);
	load_cs(e, rip, cs);
}

void x_into(struct ex *e)
{
	if (e->r.rflags & RFLAGS_OF)
		x_system(e);
}

/* LES, LDS, LSS, LFS, LGS: the opcode's low bits name the segment, in their own way for the first two. */
void x_lds(struct ex *e)
{
	enum seg seg = e->in->map ? e->in->opcode & 7 : e->in->opcode & 1 ? SEG_DS : SEG_ES;

	e->dst = e->src;
	TRY(e, load_seg, seg, (u16)selector(e, e->src));
}

void x_smsw(struct ex *e) { TRY(e, cr, 0, &e->dst, false); }

/* Clears clear and then sets set in CR0. */
static void change_cr0(struct ex *e, u64 clear, u64 set)
{
	u64 cr0 = 0;

	TRY(e, cr, 0, &cr0, false);
	cr0 = (cr0 & ~clear) | set;
	TRY(e, cr, 0, &cr0, true);
}

/* LMSW reaches PE, MP, EM and TS, and cannot clear PE. */
void x_lmsw(struct ex *e) { change_cr0(e, 0xe, e->dst & 0xf); }
void x_clts(struct ex *e) { change_cr0(e, 8, 0); }

/* CLC, STC, CLI, STI, CLD, STD. */
void x_flag(struct ex *e)
{
	static const u64 flags[4] = {RFLAGS_CF, RFLAGS_IF, RFLAGS_DF};
	u64 flag = flags[e->in->opcode >> 1 & 3];

	if (flag == RFLAGS_IF && e->ops->cpl(e->ctx) > iopl(e))
		TRY(e, raise, VEC_GP);
	set_flags(e, flag, e->in->opcode & 1 ? flag : 0);
}

void x_system(struct ex *e) { TRY(e, system, e->in, &e->r); }
