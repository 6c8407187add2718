/* SPDX-License-Identifier: MIT */
/*
 * Decoding: prefixes, then a row of one table by opcode, then what the row's operand kinds ask for.
 *
 *     [prefixes] [REX] opcode ........ rows 000..0ff     a row may send on to a group of eight rows,
 *                      0f opcode ..... rows 100..1ff     chosen by ModRM.reg
 *
 * An empty row is an instruction that the emulator does not know. Rows on which the vendors disagree count as that too.
 */
#include "arch/x86/emul/ops.h"
#include "lib/bits.h"
#include "lib/errno.h"

/* clang-format off */
#define ROW(op, a, b, flags)     {OP_##op, K_##a, K_##b, K_NONE, flags}
#define ROW3(op, a, b, c, flags) {OP_##op, K_##a, K_##b, K_##c, flags}
#define ROW0(op, flags)          {OP_##op, K_NONE, K_NONE, K_NONE, flags}
#define GROUP(n)                 {n, K_NONE, K_NONE, K_NONE, F_GROUP}
#define AT(group, n)             [GROUP_BASE + 8 * (group) + (n)]
#define ATS(group, m, n)         [GROUP_BASE + 8 * (group) + (m) ... GROUP_BASE + 8 * (group) + (n)]

enum { G_8F, G_C6, G_F6, G_FE, G_FF, G_0F00, G_0F01, G_0FBA, G_0FC7, GROUPS, GROUP_BASE = 0x201, ROW_LOAD_MOVQ = 0x200 };

/* The six encodings of an arithmetic operation; PUSH and POP of a segment register. */
#define ALU(n, op) \
	[n ... (n) + 1] = ROW(op, E, G, F_W), [(n) + 2 ... (n) + 3] = ROW(op, G, E, F_W), \
	[(n) + 4 ... (n) + 5] = ROW(op, A, IZ, F_W)
#define SEGMENT(n, flags) [n] = ROW(PUSH, SO, NONE, flags), [(n) + 1] = ROW(POP, SO, NONE, flags)

const struct opcode emul_rows[GROUP_BASE + 8 * GROUPS] = {
	ALU(0x00, ADD), ALU(0x08, OR), ALU(0x10, ADC), ALU(0x18, SBB), ALU(0x20, AND), ALU(0x28, SUB), ALU(0x30, XOR),
	ALU(0x38, CMP), [0x80 ... 0x81] = ROW(ADD, E, IZ, F_W | F_REG), [0x83] = ROW(ADD, E, IB, F_REG),
	SEGMENT(0x06, F_NO64), [0x0e] = ROW(PUSH, SO, NONE, F_NO64), SEGMENT(0x16, F_NO64), SEGMENT(0x1e, F_NO64),
	[0x27] = ROW0(DAA, F_NO64), [0x2f] = ROW0(DAS, F_NO64), [0x37] = ROW0(AAA, F_NO64), [0x3f] = ROW0(AAS, F_NO64),
	[0x40 ... 0x47] = ROW(INC, Z, NONE, 0), [0x48 ... 0x4f] = ROW(DEC, Z, NONE, 0),
	[0x50 ... 0x57] = ROW(PUSH, Z, NONE, F_D64), [0x58 ... 0x5f] = ROW(POP, Z, NONE, F_D64),
	[0x60] = ROW0(PUSHA, F_NO64), [0x61] = ROW0(POPA, F_NO64),
	[0x62] = ROW(BOUND, G, M2, F_NO64 | F_REGEXT), [0x63] = ROW(MOVSX, G, ED, F_ONLY64),
	[0x68] = ROW(PUSH, IZ, NONE, F_D64), [0x69] = ROW3(IMUL2, G, E, IZ, 0),
	[0x6a] = ROW(PUSH, IB, NONE, F_D64), [0x6b] = ROW3(IMUL2, G, E, IB, 0),
	[0x6c ... 0x6d] = ROW0(INS, F_W | F_MAX4), [0x6e ... 0x6f] = ROW0(OUTS, F_W | F_MAX4),
	[0x70 ... 0x7f] = ROW(JCC, J8, NONE, F_F64), [0x84 ... 0x85] = ROW(TEST, E, G, F_W),
	[0x86 ... 0x87] = ROW(XCHG, E, G, F_W), [0x88 ... 0x89] = ROW(MOV, E, G, F_W), [0x8a ... 0x8b] = ROW(MOV, G, E, F_W),
	[0x8c] = ROW(MOV, ES, S, 0), [0x8d] = ROW(MOV, G, MA, 0), [0x8e] = ROW(MOV, S, EW, 0), [0x8f] = GROUP(G_8F),
	[0x90] = ROW0(NOP, 0), [0x91 ... 0x97] = ROW(XCHG, Z, A, 0), [0x98] = ROW(MOVSX, A, AH, 0), [0x99] = ROW0(CWD, 0),
	[0x9a] = ROW(CALLF, AP, NONE, F_NO64), [0x9c] = ROW0(PUSHF, F_D64), [0x9d] = ROW0(POPF, F_D64),
	[0x9e] = ROW0(SAHF, 0), [0x9f] = ROW0(LAHF, 0),
	[0xa0 ... 0xa1] = ROW(MOV, A, O, F_W), [0xa2 ... 0xa3] = ROW(MOV, O, A, F_W),
	[0xa4 ... 0xa5] = ROW0(MOVS, F_W), [0xa6 ... 0xa7] = ROW0(CMPS, F_W), [0xa8 ... 0xa9] = ROW(TEST, A, IZ, F_W),
	[0xaa ... 0xab] = ROW0(STOS, F_W), [0xac ... 0xad] = ROW0(LODS, F_W), [0xae ... 0xaf] = ROW0(SCAS, F_W),
	[0xb0 ... 0xb7] = ROW(MOV, Z, IV, F_BYTE), [0xb8 ... 0xbf] = ROW(MOV, Z, IV, 0),
	[0xc0 ... 0xc1] = ROW(ROL, E, IBU, F_W | F_REG), [0xc2] = ROW(RET, IW, NONE, F_F64), [0xc3] = ROW0(RET, F_F64),
	[0xc4 ... 0xc5] = ROW(LDS, G, MP, F_NO64 | F_REGEXT), [0xc6 ... 0xc7] = GROUP(G_C6),
	[0xc8] = ROW(ENTER, IE, NONE, F_D64), [0xc9] = ROW0(LEAVE, F_D64), [0xca] = ROW(RETF, IW, NONE, 0),
	[0xcb] = ROW0(RETF, 0), [0xcc] = ROW0(SYSTEM, 0), [0xcd] = ROW(SYSTEM, IBU, NONE, 0), [0xce] = ROW0(INTO, F_NO64),
	[0xcf] = ROW0(IRET, 0), [0xd4] = ROW(AAM, IBU, NONE, F_NO64), [0xd5] = ROW(AAD, IBU, NONE, F_NO64),
	[0xd0 ... 0xd1] = ROW(ROL, E, 1, F_W | F_REG), [0xd2 ... 0xd3] = ROW(ROL, E, CL, F_W | F_REG),
	[0xd7] = ROW0(XLAT, 0), [0xe0 ... 0xe2] = ROW(LOOP, J8, NONE, F_F64), [0xe3] = ROW(JCXZ, J8, NONE, F_F64),
	[0xe4 ... 0xe5] = ROW(IN, A, IBU, F_W | F_MAX4), [0xe6 ... 0xe7] = ROW(OUT, IBU, A, F_W | F_MAX4),
	[0xe8] = ROW(CALL, JZ, NONE, F_F64), [0xe9] = ROW(JMP, JZ, NONE, F_F64),
	[0xea] = ROW(JMPF, AP, NONE, F_NO64), [0xeb] = ROW(JMP, J8, NONE, F_F64),
	[0xec ... 0xed] = ROW(IN, A, DX, F_W | F_MAX4), [0xee ... 0xef] = ROW(OUT, DX, A, F_W | F_MAX4),
	[0xf4] = ROW0(SYSTEM, F_PRIV), [0xf5] = ROW0(CMC, 0), [0xf6 ... 0xf7] = GROUP(G_F6),
	[0xf8 ... 0xfd] = ROW0(FLAG, 0), [0xfe] = GROUP(G_FE), [0xff] = GROUP(G_FF),

	[0x100] = GROUP(G_0F00), [0x101] = GROUP(G_0F01), [0x106] = ROW0(CLTS, F_PRIV), [0x108 ... 0x109] = ROW0(SYSTEM, F_PRIV),
	[0x10b] = ROW0(UD, 0), [0x118] = ROW(NOP, EA, NONE, 0), [0x11f] = ROW(NOP, EA, NONE, 0),
	[0x110] = ROW(MOVX, V, WP, 0), [0x111] = ROW(MOVX, WP, V, 0),
	[0x120] = ROW(MOV, R, C, F_NATIVE | F_PRIV), [0x122] = ROW(MOV, C, R, F_NATIVE | F_PRIV),
	[0x121] = ROW(SYSTEM, R, D, F_NATIVE | F_PRIV), [0x123] = ROW(SYSTEM, R, D, F_NATIVE | F_PRIV),
	[0x128] = ROW(MOVX, V, W, F_ALIGN | F_PN | F_P6), [0x129] = ROW(MOVX, W, V, F_ALIGN | F_PN | F_P6),
	[0x12b] = ROW(MOVX, W, V, F_ALIGN | F_REGEXT | F_PN | F_P6),
	[0x130] = ROW0(SYSTEM, F_PRIV), [0x131] = ROW0(SYSTEM, 0), [0x132] = ROW0(SYSTEM, F_PRIV), [0x133] = ROW0(SYSTEM, 0),
	[0x140 ... 0x14f] = ROW(CMOV, G, E, 0), [0x16e] = ROW(MOVX, V, E, F_DQ | F_P6), [0x17e] = ROW(MOVX, E, V, F_DQ | F_P6),
	[0x16f] = ROW(MOVX, V, W, F_ALIGN | F_P6 | F_P3), [0x17f] = ROW(MOVX, W, V, F_ALIGN | F_P6 | F_P3),
	[0x180 ... 0x18f] = ROW(JCC, JZ, NONE, F_F64), [0x190 ... 0x19f] = ROW(SET, E, NONE, F_BYTE),
	SEGMENT(0x1a0, F_D64), [0x1a2] = ROW0(SYSTEM, 0), SEGMENT(0x1a8, F_D64),
	[0x1a3] = ROW(BT, E, G, 0), [0x1a4] = ROW3(SHLD, E, G, IBU, 0), [0x1a5] = ROW3(SHLD, E, G, CL, 0),
	[0x1ab] = ROW(BTS, E, G, 0), [0x1ac] = ROW3(SHRD, E, G, IBU, 0), [0x1ad] = ROW3(SHRD, E, G, CL, 0),
	[0x1af] = ROW(IMUL2, G, E, 0), [0x1b0 ... 0x1b1] = ROW(CMPXCHG, E, G, F_W), [0x1b2] = ROW(LDS, G, MP, F_NOW),
	[0x1b3] = ROW(BTR, E, G, 0), [0x1b4 ... 0x1b5] = ROW(LDS, G, MP, F_NOW),
	[0x1b6] = ROW(MOV, G, EB, 0), [0x1b7] = ROW(MOV, G, EW, 0), [0x1ba] = GROUP(G_0FBA), [0x1bb] = ROW(BTC, E, G, 0),
	[0x1bc] = ROW(BSF, G, E, F_PN | F_P6), [0x1bd] = ROW(BSR, G, E, F_PN | F_P6),
	[0x1be] = ROW(MOVSX, G, EB, 0), [0x1bf] = ROW(MOVSX, G, EW, 0), [0x1c0 ... 0x1c1] = ROW(XADD, E, G, F_W),
	[0x1c3] = ROW(MOV, M, G, F_DQ | F_PN), [0x1c7] = GROUP(G_0FC7), [0x1c8 ... 0x1cf] = ROW(BSWAP, Z, Z, 0),
	[0x1d6] = ROW(MOVX, WQ, V, F_P6), [0x1e7] = ROW(MOVX, W, V, F_ALIGN | F_REGEXT | F_P6),
	[ROW_LOAD_MOVQ] = ROW(MOVX, V, WQ, 0),

	AT(G_8F, 0) = ROW(POP, E, NONE, F_D64), AT(G_C6, 0) = ROW(MOV, E, IZ, F_W), ATS(G_C6, 1, 6) = ROW0(UD, 0),
	ATS(G_F6, 0, 1) = ROW(TEST, E, IZ, F_W), AT(G_F6, 2) = ROW(NOT, E, NONE, F_W), AT(G_F6, 3) = ROW(NEG, E, NONE, F_W),
	AT(G_F6, 4) = ROW(MUL, E, NONE, F_W), AT(G_F6, 5) = ROW(IMUL, E, NONE, F_W),
	AT(G_F6, 6) = ROW(DIV, E, NONE, F_W), AT(G_F6, 7) = ROW(IDIV, E, NONE, F_W),
	AT(G_FE, 0) = ROW(INC, E, NONE, F_W), AT(G_FE, 1) = ROW(DEC, E, NONE, F_W), ATS(G_FE, 2, 7) = ROW0(UD, 0),
	AT(G_FF, 0) = ROW(INC, E, NONE, 0), AT(G_FF, 1) = ROW(DEC, E, NONE, 0),
	AT(G_FF, 2) = ROW(CALL, E, NONE, F_F64), AT(G_FF, 3) = ROW(CALLF, MP, NONE, F_NOW),
	AT(G_FF, 4) = ROW(JMP, E, NONE, F_F64), AT(G_FF, 5) = ROW(JMPF, MP, NONE, F_NOW),
	AT(G_FF, 6) = ROW(PUSH, E, NONE, F_D64), AT(G_FF, 7) = ROW0(UD, 0),
	ATS(G_0F00, 0, 1) = ROW(MOV, ES, SYS, F_PROT), ATS(G_0F00, 2, 3) = ROW(MOV, SYS, EW, F_PROT | F_PRIV),
	ATS(G_0F01, 0, 1) = ROW(SYSTEM, MA, NONE, F_REGEXT), ATS(G_0F01, 2, 3) = ROW(SYSTEM, MA, NONE, F_REGEXT | F_PRIV),
	AT(G_0F01, 4) = ROW(SMSW, ES, NONE, 0), AT(G_0F01, 6) = ROW(LMSW, EW, NONE, F_PRIV),
	AT(G_0F01, 7) = ROW(SYSTEM, MA, NONE, F_REGEXT | F_PRIV),
	ATS(G_0FBA, 0, 3) = ROW0(UD, 0), AT(G_0FBA, 4) = ROW(BT, E, IBU, 0), AT(G_0FBA, 5) = ROW(BTS, E, IBU, 0),
	AT(G_0FBA, 6) = ROW(BTR, E, IBU, 0), AT(G_0FBA, 7) = ROW(BTC, E, IBU, 0),
	AT(G_0FC7, 1) = ROW(CMPXCHG2, M2, NONE, F_DQ | F_PN),
};
/* clang-format on */

/* An error sticks: all that is fetched after it is 0. */
struct cursor {
	const u8 *bytes;
	unsigned pos, end;
	int err;
};

static u64 fetch(struct cursor *c, unsigned size)
{
	u64 v = 0;

	if (!c->err && c->pos + size > c->end)
		c->err = c->pos + size > INSN_MAX ? -EINVAL : -EAGAIN;
	for (unsigned i = 0; i < size && !c->err; i++)
		v |= (u64)c->bytes[c->pos++] << (8 * i);
	return v;
}

static s64 fetch_signed(struct cursor *c, unsigned size) { return size ? sext(fetch(c, size), size) : 0; }

/* Takes one prefix into in; false if byte is none. A REX that another prefix follows has no effect. */
static bool take_prefix(struct insn *in, u8 byte)
{
	bool long_mode = in->mode == MODE_64, rex = long_mode && (byte & 0xf0) == 0x40;

	if (byte == 0x66)
		in->osz = true;
	else if (byte == 0x67)
		in->adsize = in->mode == MODE_32 ? 2 : 4;
	else if (byte == 0xf0)
		in->lock = true;
	else if (byte == 0xf2 || byte == 0xf3)
		in->rep = byte;
	else if ((byte & 0xe7) == 0x26)
		in->seg = long_mode ? in->seg : byte >> 3 & 3;
	else if ((byte & 0xfe) == 0x64)
		in->seg = byte & 7; /* SEG_FS or SEG_GS */
	else if (!rex)
		return false;
	in->rex = rex ? byte : 0;
	return true;
}

static void fetch_modrm(struct cursor *c, struct insn *in)
{
	if (!in->has_modrm)
		in->modrm = (u8)fetch(c, 1);
	in->has_modrm = true;
}

/* Prefixes and opcode, up to the row that is no group. */
static const struct opcode *fetch_opcode(struct cursor *c, struct insn *in)
{
	do
		in->opcode = (u8)fetch(c, 1);
	while (take_prefix(in, in->opcode));
	if (in->opcode == 0x0f) {
		in->map = 1;
		in->opcode = (u8)fetch(c, 1);
	}
	in->row = (u16)(in->map * 0x100u + in->opcode);
	if (in->row == 0x90 && in->rex & 1)
		in->row++; /* XCHG R8, RAX; without the REX bit it would be XCHG RAX, RAX, which is NOP */
	if (in->row == 0x17e && in->rep == 0xf3)
		in->row = ROW_LOAD_MOVQ;

	const struct opcode *row = &emul_rows[in->row];

	if (row->flags & (F_GROUP | F_REG))
		fetch_modrm(c, in);
	if (row->flags & F_GROUP)
		in->row = (u16)(GROUP_BASE + 8u * row->op + (in->modrm >> 3 & 7));
	row = &emul_rows[in->row];
	in->op = row->flags & F_REG ? row->op + (in->modrm >> 3 & 7) : row->op;
	return row;
}

static u8 operand_size(const struct insn *in, u32 flags)
{
	bool wide = in->rex & 8;
	u8 size = (in->mode >= MODE_32) != in->osz ? 4 : 2;

	if (flags & F_BYTE || (flags & F_W && !(in->opcode & 1)))
		return 1;
	if (flags & F_NATIVE)
		return in->mode == MODE_64 ? 8 : 4;
	if (flags & F_DQ)
		return wide ? 8 : 4;
	if (wide || (in->mode == MODE_64 && flags & (F_F64 | F_D64) && !in->osz))
		size = 8;
	return flags & F_MAX4 ? MIN(size, 4) : size;
}

unsigned emul_operand_size(const struct insn *in, unsigned k)
{
	static const u8 fixed[KINDS] = {
		[K_EB] = 1, [K_EW] = 2, [K_ED] = 4, [K_WQ] = 8, [K_W] = 16, [K_CL] = 1, [K_DX] = 2};

	if (fixed[k] || k == K_MA || k == K_EA)
		return fixed[k];
	if (k == K_ES && in->has_mem)
		return 2;
	if (k == K_WP)
		return in->rep == 0xf3 ? 4 : in->rep ? 8 : 16;
	if (k == K_MP || k == K_AP)
		return in->opsize + 2u;
	return k == K_M2 ? in->opsize * 2u : k == K_AH ? in->opsize / 2u : in->opsize;
}

/* The memory operand of 16-bit addressing. */
static void decode_mem16(struct cursor *c, struct insn *in)
{
	static const u8 bases[8] = {R_BX, R_BX, R_BP, R_BP, R_SI, R_DI, R_BP, R_BX};
	static const u8 indexes[8] = {R_SI, R_DI, R_SI, R_DI, EMUL_NOREG, EMUL_NOREG, EMUL_NOREG, EMUL_NOREG};
	unsigned mod = in->modrm >> 6, rm = in->modrm & 7;
	bool absolute = mod == 0 && rm == 6;

	in->base = absolute ? EMUL_NOREG : bases[rm];
	in->index = indexes[rm];
	in->disp = fetch_signed(c, absolute ? 2 : mod);
}

/* The memory operand of 32- and 64-bit addressing. */
static void decode_mem32(struct cursor *c, struct insn *in)
{
	unsigned mod = in->modrm >> 6, size = mod == 2 ? 4 : mod;
	bool has_sib = (in->modrm & 7) == R_SP;
	u8 sib = has_sib ? (u8)fetch(c, 1) : 0, index = (u8)((sib >> 3 & 7) | (in->rex & 2) << 2);

	in->base = has_sib ? sib & 7 : in->modrm & 7;
	if (has_sib && index != R_SP) {
		in->index = index;
		in->scale = sib >> 6;
	}
	if (mod == 0 && in->base == R_BP) {
		in->base = has_sib || in->mode != MODE_64 ? EMUL_NOREG : EMUL_RIP;
		size = 4;
	} else {
		in->base |= (in->rex & 1) << 3;
	}
	in->disp = fetch_signed(c, size);
}

/* The memory operand, if k is one. */
static void decode_mem(struct cursor *c, struct insn *in, unsigned k)
{
	bool absolute = k == K_O;

	if (!absolute && (k == K_NONE || k > K_RM_LAST || k == K_R || in->modrm >= 0xc0))
		return;
	in->has_mem = true;
	in->msize = (u8)emul_operand_size(in, k);
	if (absolute)
		in->disp = (s64)fetch(c, in->adsize);
	else if (in->adsize == 2)
		decode_mem16(c, in);
	else
		decode_mem32(c, in);
}

static void decode_imm(struct cursor *c, struct insn *in, unsigned k)
{
	static const u8 fixed[KINDS] = {[K_IB] = 1, [K_J8] = 1, [K_IBU] = 1, [K_IW] = 2, [K_IE] = 3};

	if (k == K_1)
		in->imm = 1;
	else if (k == K_IZ || k == K_JZ)
		in->imm = (u64)fetch_signed(c, MIN(in->opsize, 4));
	else if (k == K_IB || k == K_J8)
		in->imm = (u64)fetch_signed(c, 1);
	else if (fixed[k] || k == K_IV || k == K_AP)
		in->imm = fetch(c, fixed[k] ? fixed[k] : emul_operand_size(in, k));
}

/* What hardware answers with #UD although all bytes were there. */
static bool undefined(const struct insn *in, const struct opcode *row)
{
	unsigned reg = in->modrm >> 3 & 7;
	u8 k[2] = {row->a, row->b};

	if (in->lock && !(emul_operations[in->op].access & A_L && in->has_mem && row->a <= K_RM_LAST))
		return true;
	for (unsigned i = 0; i < 2; i++)
		if ((k[i] >= K_M && k[i] <= K_M2 && !in->has_mem) || (k[i] == K_S && reg > SEG_GS) ||
		    (k[i] == K_C && !(BIT(reg_of_modrm(in)) & 0x11d)) || (k[i] == K_D && reg_of_modrm(in) > 7))
			return true;
	return (row->a == K_S && reg == SEG_CS) || (row->flags & F_PROT && in->mode == MODE_REAL);
}

/* What the vendors disagree on, or what is another instruction, not known here. */
static bool unknown(const struct insn *in, const struct opcode *row)
{
	u32 flags = row->flags, prefix = in->rep == 0xf3 ? F_P3 : in->rep ? 0 : in->osz ? F_P6 : F_PN;
	bool scalar = in->rep && (row->a == K_WP || row->b == K_WP), wide = in->rex & 8;

	if ((flags & F_PFX && !(flags & prefix)) ||
	    ((flags & F_REGEXT || scalar) && in->has_modrm && in->modrm >= 0xc0))
		return true;
	if (in->opsize == 2 && (in->op == OP_BSWAP || (in->mode == MODE_64 && flags & (F_F64 | F_ONLY64))))
		return true;
	return (flags & F_NOW && wide) || (flags & F_ONLY64 && in->mode != MODE_64);
}

static int decode(struct cursor *c, struct insn *in)
{
	const struct opcode *row = fetch_opcode(c, in);
	u32 flags = row->flags;

	if (c->err)
		return c->err;
	if (in->op == OP_UNKNOWN)
		return -ENOSYS;
	if (in->op == OP_UD)
		return -EINVAL;
	if (flags & F_NO64 && in->mode == MODE_64)
		return flags & F_REGEXT ? -ENOSYS : -EINVAL;
	in->opsize = operand_size(in, flags);
	if ((row->a && row->a <= K_MODRM_LAST) || (row->b && row->b <= K_MODRM_LAST))
		fetch_modrm(c, in);
	if (!c->err && unknown(in, row))
		return -ENOSYS;
	decode_mem(c, in, row->a);
	decode_mem(c, in, row->b);
	decode_imm(c, in, row->a);
	decode_imm(c, in, row->b);
	decode_imm(c, in, row->c);
	return c->err ? c->err : undefined(in, row) ? -EINVAL : 0;
}

int insn_decode(const u8 *bytes, size_t n, enum gcpu_mode mode, struct insn *out)
{
	static const u8 adsizes[] = {[MODE_REAL] = 2, [MODE_16] = 2, [MODE_32] = 4, [MODE_64] = 8};
	struct cursor c = {.bytes = bytes, .end = (unsigned)MIN(n, (size_t)INSN_MAX)};

	*out = (struct insn){.mode = (u8)mode, .seg = EMUL_NOREG, .base = EMUL_NOREG, .index = EMUL_NOREG};
	out->adsize = adsizes[mode];

	int err = decode(&c, out);

	out->len = (u8)c.pos;
	if (out->seg == EMUL_NOREG)
		out->seg = out->base == R_BP || out->base == R_SP ? SEG_SS : SEG_DS;
	return err;
}

unsigned reg_of_modrm(const struct insn *in) { return (in->modrm >> 3 & 7) | (in->rex & 4u) << 1; }
unsigned rm_of_modrm(const struct insn *in) { return (in->modrm & 7) | (in->rex & 1u) << 3; }

u64 insn_ea(const struct insn *in, const struct gregs *r)
{
	u64 ea = (u64)in->disp;

	if (in->base == EMUL_RIP)
		ea += r->rip + in->len;
	else if (in->base != EMUL_NOREG)
		ea += r->r[in->base];
	if (in->index != EMUL_NOREG)
		ea += r->r[in->index] << in->scale;
	return ea & mask_of(in->adsize);
}
