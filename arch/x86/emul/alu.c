/* SPDX-License-Identifier: MIT */
/* Results and flags of arithmetic: numbers in, numbers out. */
#include "arch/x86/emul/ops.h"

static void flag(u64 *fl, u64 mask, bool set) { *fl = set ? *fl | mask : *fl & ~mask; }
static bool top_bit(u64 v, unsigned size) { return v >> (8 * size - 1) & 1; }

static void alu_szp(u64 res, unsigned size, u64 *fl)
{
	flag(fl, RFLAGS_ZF, res == 0);
	flag(fl, RFLAGS_SF, top_bit(res, size));
	flag(fl, RFLAGS_PF, !__builtin_parity((unsigned)res & 0xff));
}

/* CF, OF and AF all follow from the carries (or borrows) out of each bit. */
static u64 carry_flags(u64 res, u64 carries, unsigned size, u64 *fl)
{
	flag(fl, RFLAGS_CF, top_bit(carries, size));
	flag(fl, RFLAGS_OF, top_bit(carries ^ carries << 1, size));
	flag(fl, RFLAGS_AF, carries & 8);
	alu_szp(res, size, fl);
	return res;
}

static u64 add(u64 a, u64 b, u64 carry, unsigned size, u64 *fl)
{
	u64 res = (a + b + carry) & mask_of(size);

	return carry_flags(res, (a & b) | ((a | b) & ~res), size, fl);
}

static u64 sub(u64 a, u64 b, u64 borrow, unsigned size, u64 *fl)
{
	u64 res = (a - b - borrow) & mask_of(size);

	return carry_flags(res, (~a & b) | ((~a | b) & res), size, fl);
}

u64 alu(enum op op, u64 a, u64 b, unsigned size, u64 *fl)
{
	u64 carry = *fl & RFLAGS_CF, res;

	switch (op) {
	case OP_ADD:
	case OP_ADC:
		return add(a, b, op == OP_ADC ? carry : 0, size, fl);
	case OP_SUB:
	case OP_CMP:
	case OP_SBB:
		return sub(a, b, op == OP_SBB ? carry : 0, size, fl);
	case OP_NEG:
		return sub(0, a, 0, size, fl);
	case OP_INC:
	case OP_DEC:
		res = op == OP_INC ? add(a, 1, 0, size, fl) : sub(a, 1, 0, size, fl);
		flag(fl, RFLAGS_CF, carry);
		return res;
	case OP_NOT:
		return ~a & mask_of(size);
	default:
		res = op == OP_OR ? a | b : op == OP_XOR ? a ^ b : a & b;
		return carry_flags(res, 0, size, fl);
	}
}

/* One bit a step: each of the nine operations differs only in which way it goes and which bit comes in. */
u64 alu_shift(enum op op, u64 a, u64 b, unsigned count, unsigned size, u64 *fl)
{
	bool left = !((op - OP_ROL) & 1);
	unsigned high = 8 * size - 1;
	bool in, out, old_top = false;

	count &= size == 8 ? 63 : 31;
	if (!count)
		return a;
	for (; count; count--) {
		old_top = top_bit(a, size);
		out = left ? old_top : a & 1;
		if (op == OP_ROL || op == OP_ROR)
			in = out;
		else if (op == OP_RCL || op == OP_RCR)
			in = *fl & RFLAGS_CF;
		else if (op == OP_SHLD || op == OP_SHRD)
			in = left ? top_bit(b, size) : b & 1;
		else
			in = op == OP_SAR && old_top;
		a = left ? (a << 1 | in) & mask_of(size) : a >> 1 | (u64)in << high;
		b = left ? b << 1 : b >> 1;
		flag(fl, RFLAGS_CF, out);
	}
	flag(fl, RFLAGS_OF, old_top != top_bit(a, size));
	if (op >= OP_SHL)
		alu_szp(a, size, fl);
	return a;
}

u64 alu_mul(bool sign, u64 a, u64 b, unsigned size, u64 *hi, u64 *fl)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	if (sign)
		product = (unsigned __int128)((__int128)sext(a, size) * sext(b, size));

	u64 lo = (u64)product & mask_of(size);

	*hi = (u64)(product >> (8 * size)) & mask_of(size);
	flag(fl, RFLAGS_CF | RFLAGS_OF, *hi != (sign && top_bit(lo, size) ? mask_of(size) : 0));
	return lo;
}

bool alu_div(bool sign, u64 hi, u64 lo, u64 d, unsigned size, u64 *quot, u64 *rem)
{
	u64 n = hi << (8 * size) | lo;
	s64 sn = sext(n, 2 * size), sd = sext(d, size);

	if (d == 0 || (sign && n == 1ul << 63 && sd == -1)) /* what C leaves undefined */
		return false;
	*quot = sign ? (u64)(sn / sd) : n / d;
	*rem = (sign ? (u64)(sn % sd) : n % d) & mask_of(size);
	if (*quot != (sign ? (u64)sext(*quot, size) : *quot & mask_of(size)))
		return false;
	*quot &= mask_of(size);
	return true;
}

bool alu_cond(unsigned cc, u64 fl)
{
	bool sf_ne_of = !(fl & RFLAGS_SF) != !(fl & RFLAGS_OF);
	bool holds[8] = {
		fl & RFLAGS_OF, fl & RFLAGS_CF, fl & RFLAGS_ZF, fl & (RFLAGS_CF | RFLAGS_ZF),
		fl & RFLAGS_SF, fl & RFLAGS_PF, sf_ne_of,       sf_ne_of || fl & RFLAGS_ZF,
	};

	return holds[cc >> 1 & 7] != (cc & 1);
}
