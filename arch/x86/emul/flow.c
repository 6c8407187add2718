/* SPDX-License-Identifier: MIT */
/* Handlers of what moves rip and rsp, and of system registers. */
#include "arch/x86/emul/ops.h"
#include "lib/string.h"

static unsigned stack_size(const struct ex *e)
{
	if (e->in->mode == MODE_64)
		return 8;
	if (e->ops->stack_size)
		return e->ops->stack_size(e->ctx);
	return e->in->mode == MODE_32 ? 4 : 2;
}

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
	u64 mask = FL_ARITH | FL_TF | FL_DF | FL_NT, v;
	unsigned cpl = e->ops->cpl(e->ctx);
	enum emul_result res;

	if (vm86_denied(e))
		return emul_raise(e, VEC_GP);
	res = pop(e, &v, 1);
	if (e->in->opsize > 2)
		mask |= FL_AC | FL_ID;
	if (cpl <= iopl(e))
		mask |= FL_IF;
	if (cpl == 0)
		mask |= FL_IOPL;
	e->r.rflags = (e->r.rflags & ~mask) | (v & mask);
	return res;
}

/* Nested levels, which copy frame pointers, are not known. */
enum emul_result x_enter(struct ex *e)
{
	u64 frame = e->r.r[R_BP], v;
	enum emul_result res;

	if (e->in->imm2 & 31)
		return EMUL_UNKNOWN;
	res = emul_read(e, SEG_SS, stack_at(e, -(u64)e->in->opsize - e->in->imm), &v, e->in->opsize, EMUL_RMW);
	if (res == EMUL_OK)
		res = push(e, &frame, 1);
	reg_set(e, R_BP, e->r.r[R_SP], e->in->opsize);
	set_sp(e, stack_at(e, -e->in->imm));
	return res;
}

enum emul_result x_leave(struct ex *e)
{
	u64 frame;
	enum emul_result res;

	set_sp(e, e->r.r[R_BP]);
	res = pop(e, &frame, 1);
	reg_set(e, R_BP, frame, e->in->opsize);
	return res;
}

static void jump(struct ex *e, u64 to) { e->r.rip = to & mask_of(e->in->opsize); }

enum emul_result x_jmp(struct ex *e)
{
	jump(e, e->dst);
	return EMUL_OK;
}

enum emul_result x_jcc(struct ex *e)
{
	if (alu_cond(e->in->opcode, e->r.rflags))
		jump(e, e->dst);
	return EMUL_OK;
}

/* LOOPNE, LOOPE, LOOP and JCXZ, in the order of their opcodes. */
enum emul_result x_loop(struct ex *e)
{
	unsigned which = e->in->opcode & 3;
	u64 left = reg_get(e, R_CX, e->in->adsize) - (which != 3);
	bool zf = e->r.rflags & FL_ZF;

	left &= mask_of(e->in->adsize);
	if (which == 3 ? left == 0 : left != 0 && (which == 2 || zf == (which == 1)))
		jump(e, e->dst);
	if (which != 3)
		reg_set(e, R_CX, left, e->in->adsize);
	return EMUL_OK;
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

/* A far pointer, from the instruction or from memory. */
static enum emul_result far_pointer(struct ex *e, u64 *off, u16 *sel)
{
	unsigned size = e->in->opsize;
	u8 v[10];
	enum emul_result res;

	*off = e->in->imm;
	*sel = (u16)e->in->imm2;
	if (!e->in->has_mem)
		return EMUL_OK;
	res = e->ops->read(e->ctx, (enum seg)e->in->seg, e->ea, v, size + 2, EMUL_READ, e->fault);
	*off = 0;
	if (res == EMUL_OK) {
		memcpy(off, v, size);
		memcpy(sel, v + size, 2);
	}
	return res;
}

static enum emul_result load_cs(struct ex *e, u64 off, u16 sel)
{
	jump(e, off);
	return e->ops->load_seg(e->ctx, SEG_CS, sel, e->fault);
}

enum emul_result x_jmpf(struct ex *e)
{
	u64 off;
	u16 sel;
	enum emul_result res = far_pointer(e, &off, &sel);

	return res == EMUL_OK ? load_cs(e, off, sel) : res;
}

/* The stack is known to take both words before CS changes. */
enum emul_result x_callf(struct ex *e)
{
	u64 off, back[2] = {e->ops->get_sel(e->ctx, SEG_CS), e->r.rip};
	u16 sel;
	enum emul_result res = far_pointer(e, &off, &sel);

	if (res == EMUL_OK)
		res = probe_stack(e, 2);
	if (res == EMUL_OK)
		res = load_cs(e, off, sel);
	return res == EMUL_OK ? push(e, back, 2) : res;
}

static bool real_mode(const struct ex *e) { return e->in->mode == MODE_REAL && !(e->r.rflags & FL_VM); }

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
	return load_cs(e, v[0], (u16)v[1]);
}

enum emul_result x_iret(struct ex *e)
{
	u64 v[3], mask = e->in->opsize == 2 ? 0x7fd5 : 0x257fd5;
	enum emul_result res;

	if (!real_mode(e))
		return x_system(e);
	res = pop(e, v, 3);
	if (res != EMUL_OK)
		return res;
	e->r.rflags = (e->r.rflags & ~mask) | (v[2] & mask);
	return load_cs(e, v[0], (u16)v[1]);
}

/* LES, LDS, LSS, LFS, LGS: the opcode's low bits name the segment, in their own way for the first two. */
enum emul_result x_lds(struct ex *e)
{
	unsigned seg = e->in->map ? e->in->opcode & 7 : e->in->opcode & 1 ? SEG_DS : SEG_ES;
	u16 sel;
	enum emul_result res = far_pointer(e, &e->dst, &sel);

	return res == EMUL_OK ? e->ops->load_seg(e->ctx, (enum seg)seg, sel, e->fault) : res;
}

/* SLDT and STR, LLDT and LTR: the lowest bit of ModRM.reg tells. */
static enum seg system_segment(const struct ex *e) { return e->in->modrm & 8 ? SEG_TR : SEG_LDTR; }

enum emul_result x_sldt(struct ex *e)
{
	e->dst = e->ops->get_sel(e->ctx, system_segment(e));
	return EMUL_OK;
}

enum emul_result x_lldt(struct ex *e) { return e->ops->load_seg(e->ctx, system_segment(e), (u16)e->dst, e->fault); }

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

enum emul_result x_rdmsr(struct ex *e)
{
	u64 v = 0;
	enum emul_result res = e->ops->read_msr(e->ctx, (u32)e->r.r[R_CX], &v, e->fault);

	reg_set(e, R_AX, v, 4);
	reg_set(e, R_DX, v >> 32, 4);
	return res;
}

enum emul_result x_wrmsr(struct ex *e)
{
	u64 v = e->r.r[R_DX] << 32 | (u32)e->r.r[R_AX];

	return e->ops->write_msr(e->ctx, (u32)e->r.r[R_CX], v, e->fault);
}

/* CMC, CLC, STC, CLI, STI, CLD, STD. */
enum emul_result x_flag(struct ex *e)
{
	static const u64 flags[8] = {FL_CF, FL_CF, FL_IF, FL_IF, FL_DF, FL_DF};
	u8 opcode = e->in->opcode;
	u64 flag = flags[opcode & 7];

	if (opcode == 0xf5) {
		e->r.rflags ^= FL_CF;
		return EMUL_OK;
	}
	if (flag == FL_IF && e->ops->cpl(e->ctx) > iopl(e))
		return emul_raise(e, VEC_GP);
	e->r.rflags = opcode & 1 ? e->r.rflags | flag : e->r.rflags & ~flag;
	return EMUL_OK;
}

/* The operation works on the caller's registers; see emul.h. */
enum emul_result x_system(struct ex *e)
{
	struct gregs before = *e->orig;
	enum emul_result res = e->ops->system(e->ctx, e->in, e->fault);
	u64 next = e->r.rip;

	if (res != EMUL_OK) {
		*e->orig = before;
		return res;
	}
	e->r = *e->orig;
	if (!(e->row->flags & F_FLOW))
		e->r.rip = next;
	return EMUL_OK;
}

enum emul_result x_into(struct ex *e) { return e->r.rflags & FL_OF ? x_system(e) : EMUL_OK; }
