/* SPDX-License-Identifier: MIT */
/* Handlers of what computes and moves: operands in, operands and flags out. */
#include "arch/x86/emul/ops.h"
#include "lib/bits.h"
#include "lib/string.h"

static bool cond(const struct ex *e) { return alu_cond(e->in->opcode, e->r.rflags); }

void x_mov(struct ex *e) { e->dst = e->src; }
void x_movsx(struct ex *e) { e->dst = (u64)sext(e->src, emul_operand_size(e->in, e->row->b)); }
void x_bswap(struct ex *e) { e->dst = __builtin_bswap64(e->src) >> (64 - 8 * e->in->opsize); }
void x_cmov(struct ex *e) { e->dst = cond(e) ? e->src : e->dst; }
void x_set(struct ex *e) { e->dst = cond(e); }
void x_nop(struct ex *e) {}
void x_alu(struct ex *e) { e->dst = alu(e->op, e->dst, e->src, e->in->opsize, &e->r.rflags); }

/* SHLD and SHRD have the count as their third operand, and shift the second in. */
void x_shift(struct ex *e)
{
	u64 count = e->row->c ? e->aux : e->src;

	e->dst = alu_shift(e->op, e->dst, e->src, (unsigned)count, e->in->opsize, &e->r.rflags);
}

void x_bit(struct ex *e)
{
	u64 bit = 1ul << (e->src & (8u * e->in->opsize - 1)), old = e->dst;

	e->dst = e->op == OP_BTS ? old | bit : e->op == OP_BTR ? old & ~bit : old ^ bit;
	set_flags(e, RFLAGS_CF, old & bit ? RFLAGS_CF : 0);
}

/* With nothing to find, BSF and BSR leave all of the destination as it was. */
void x_scan(struct ex *e)
{
	set_flags(e, RFLAGS_ZF, e->src ? 0 : RFLAGS_ZF);
	if (e->src)
		operand_store(e, e->row->a, e->op == OP_BSF ? bit_low(e->src) : bit_high(e->src));
}

/* The double-width result or dividend is AX for bytes, else DX:AX. */
static void set_pair(struct ex *e, u64 hi, u64 lo)
{
	unsigned size = e->in->opsize;

	reg_set(e, R_AX, size == 1 ? hi << 8 | lo : lo, MAX(size, 2u));
	if (size > 1)
		reg_set(e, R_DX, hi, size);
}

void x_mul(struct ex *e)
{
	unsigned size = e->in->opsize;
	u64 hi, lo = alu_mul(e->op == OP_IMUL, reg_get(e, R_AX, size), e->dst, size, &hi, &e->r.rflags);

	set_pair(e, hi, lo);
}

void x_imul2(struct ex *e)
{
	u64 hi, by = e->row->c ? e->aux : e->dst;

	e->dst = alu_mul(true, e->src, by, e->in->opsize, &hi, &e->r.rflags);
}

/* Of 128 bits by 64 is not known: C has no such division, and no device or page table needs it. */
void x_div(struct ex *e)
{
	unsigned size = e->in->opsize;
	u64 hi = size == 1 ? reg_get(e, R_AX, 2) >> 8 : reg_get(e, R_DX, size), quot, rem;

	if (size == 8)
		give_up(e, EMUL_UNKNOWN);
	else if (!alu_div(e->op == OP_IDIV, hi, reg_get(e, R_AX, size), e->dst, size, &quot, &rem))
		TRY(e, raise, VEC_DE);
	else
		set_pair(e, rem, quot);
}

/* XCHG and XADD: the second operand, which is a register, gets the first one's old value. */
void x_xchg(struct ex *e)
{
	u64 old = e->dst;

	e->dst = e->op == OP_XADD ? alu(OP_ADD, old, e->src, e->in->opsize, &e->r.rflags) : e->src;
	operand_store(e, e->row->b, old);
}

/* The first operand is written in any case. */
void x_cmpxchg(struct ex *e)
{
	unsigned size = e->in->opsize;
	u64 old = e->dst;

	e->dst = alu(OP_CMP, reg_get(e, R_AX, size), old, size, &e->r.rflags) ? old : e->src;
	if (!(e->r.rflags & RFLAGS_ZF))
		reg_set(e, R_AX, old, size);
}

/* CMPXCHG8B and CMPXCHG16B. */
void x_cmpxchg2(struct ex *e)
{
	const struct insn *in = e->in;
	u64 *r = e->r.r, old[2] = {r[R_AX], r[R_DX]}, new[2] = {r[R_BX], r[R_CX]};
	bool done = false, small = in->opsize == 4;

	if (small) {
		old[0] = (u32)old[0] | old[1] << 32;
		new[0] = (u32) new[0] | new[1] << 32;
	} else if (e->ea & 15) {
		TRY(e, raise, VEC_GP);
	}
	TRY(e, cmpxchg, (enum seg)in->seg, e->ea, old, new, in->msize, &done);
	set_flags(e, RFLAGS_ZF, done ? RFLAGS_ZF : 0);
	if (done)
		return;
	reg_set(e, R_AX, old[0], in->opsize);
	reg_set(e, R_DX, small ? old[0] >> 32 : old[1], in->opsize);
}

/* CWD, CDQ, CQO. */
void x_cwd(struct ex *e) { reg_set(e, R_DX, sext(e->r.r[R_AX], e->in->opsize) < 0 ? ~0ul : 0, e->in->opsize); }

void x_lahf(struct ex *e) { reg_set(e, R_AX, (e->r.r[R_AX] & 0xff) | ((e->r.rflags & 0xd5) | 2) << 8, 2); }

void x_sahf(struct ex *e) { set_flags(e, 0xd5, e->r.r[R_AX] >> 8); }
void x_cmc(struct ex *e) { set_flags(e, RFLAGS_CF, ~e->r.rflags); }

/* DAA and DAS. */
void x_daa(struct ex *e)
{
	u64 al = reg_get(e, R_AX, 1), fl = e->r.rflags;
	bool low = (al & 15) > 9 || fl & RFLAGS_AF, high = al > 0x99 || fl & RFLAGS_CF;
	bool borrow = e->op == OP_DAS && low && al < 6;
	u64 fix = (low ? 6u : 0) + (high ? 0x60u : 0);

	al = alu(OP_OR, (e->op == OP_DAA ? al + fix : al - fix) & 0xff, 0, 1, &e->r.rflags);
	set_flags(e, RFLAGS_AF | RFLAGS_CF, (low ? RFLAGS_AF : 0) | (high || borrow ? RFLAGS_CF : 0));
	reg_set(e, R_AX, al, 1);
}

/* AAA and AAS. */
void x_aaa(struct ex *e)
{
	u64 ax = e->r.r[R_AX];
	bool adjust = (ax & 15) > 9 || e->r.rflags & RFLAGS_AF;

	if (adjust)
		ax += e->op == OP_AAA ? 0x106ul : -0x106ul;
	set_flags(e, RFLAGS_AF | RFLAGS_CF, adjust ? RFLAGS_AF | RFLAGS_CF : 0);
	reg_set(e, R_AX, ax & 0xff0f, 2);
}

void x_aam(struct ex *e)
{
	u64 al = reg_get(e, R_AX, 1), base = e->dst;

	if (base)
		reg_set(e, R_AX, al / base << 8 | alu(OP_OR, al % base, 0, 1, &e->r.rflags), 2);
	else
		TRY(e, raise, VEC_DE);
}

void x_aad(struct ex *e)
{
	u64 ax = e->r.r[R_AX], al = (ax + (ax >> 8) * e->dst) & 0xff;

	reg_set(e, R_AX, alu(OP_OR, al, 0, 1, &e->r.rflags), 2);
}

/* Memory has the lower bound, then the upper. */
void x_bound(struct ex *e)
{
	unsigned size = e->in->opsize;
	s64 i = sext(e->dst, size);

	if (i < sext(e->src, size) || i > sext(e->src >> 8 * size, size))
		TRY(e, raise, VEC_BR);
}

void x_xlat(struct ex *e)
{
	u64 off = (e->r.r[R_BX] + (e->r.r[R_AX] & 0xff)) & mask_of(e->in->adsize);

	reg_set(e, R_AX, emul_read(e, (enum seg)e->in->seg, off, 1, EMUL_READ), 1);
}

/* One side of an xmm move: memory, a general or an xmm register. */
static void movx_side(struct ex *e, unsigned k, u8 v[16], unsigned size, bool write)
{
	unsigned n = k == K_V ? reg_of_modrm(e->in) : rm_of_modrm(e->in);
	u8 *r = (u8 *)&e->r.r[n];

	if (k != K_V && e->in->has_mem)
		TRY(e, access, (enum seg)e->in->seg, e->ea, v, size, write ? EMUL_WRITE : EMUL_READ);
	else if (k == K_E)
		memcpy(write ? r : v, write ? v : r, write ? 8 : size);
	else if (e->res == EMUL_OK)
		e->ops->xmm(e->ctx, n, v, write);
}

/* Moves between xmm registers, memory and general registers; what is narrower than the register clears the rest. */
void x_movx(struct ex *e)
{
	unsigned size = emul_operand_size(e->in, e->row->a == K_V ? e->row->b : e->row->a);
	u8 v[16] = {0};

	movx_side(e, e->row->b, v, size, false);
	memset(v + size, 0, 16 - size);
	movx_side(e, e->row->a, v, size, true);
}
