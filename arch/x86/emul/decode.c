/* SPDX-License-Identifier: MIT */
/*
 * Decoding: prefixes, then a row of one table by opcode, then what the row's operand kinds ask for.
 *
 *     [prefixes] [REX] opcode ........ rows 000..0ff
 *                      0f opcode ..... rows 100..1ff     a row may send on to a group of eight rows,
 *                      0f 38 f0, f1 .. group MOVBE       chosen by ModRM.reg or by mandatory prefix
 *
 * An empty row is an instruction that the emulator does not know. Rows on which the vendors disagree count as that too.
 */
#include "arch/x86/emul/ops.h"
#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/print.h"

/* clang-format off */
#define ROW(op, a, b, flags)     {OP_##op, K_##a, K_##b, K_NONE, flags}
#define ROW3(op, a, b, c, flags) {OP_##op, K_##a, K_##b, K_##c, flags}
#define ROW0(op, flags)          {OP_##op, K_NONE, K_NONE, K_NONE, flags}
#define GROUP(n)                 {n, K_NONE, K_NONE, K_NONE, F_GROUP}
#define PFX(n)                   {n, K_NONE, K_NONE, K_NONE, F_PFX}
#define AT(group, n)             [GROUP_BASE + 8 * (group) + (n)]
#define ATS(group, m, n)         [GROUP_BASE + 8 * (group) + (m) ... GROUP_BASE + 8 * (group) + (n)]

enum {
	G_80, G_83, G_8F, G_SHIFT, G_C6, G_F6, G_FE, G_FF, G_0F00, G_0F01, G_0FBA, G_0FC7,
	P_MOVBE0, P_MOVBE1, P_0F10, P_0F11, P_0F28, P_0F29, P_0F2B, P_0F6E, P_0F7E, P_0F6F, P_0F7F,
	P_0FB8, P_0FBC, P_0FBD, P_0FC3, P_0FC7, P_0FD6, P_0FE7, GROUPS,
	GROUP_BASE = 0x200,
};

/* The six encodings of an arithmetic operation, and the eight rows of an immediate group. */
#define ALU(n, op, lock) \
	[n ... (n) + 1] = ROW(op, E, G, F_W | (lock)), [(n) + 2 ... (n) + 3] = ROW(op, G, E, F_W), \
	[(n) + 4 ... (n) + 5] = ROW(op, A, IZ, F_W)
#define ALU_GROUP(g, imm) \
	AT(g, 0) = ROW(ADD, E, imm, F_W | F_LOCKS), AT(g, 1) = ROW(OR, E, imm, F_W | F_LOCKS), \
	AT(g, 2) = ROW(ADC, E, imm, F_W | F_LOCKS), AT(g, 3) = ROW(SBB, E, imm, F_W | F_LOCKS), \
	AT(g, 4) = ROW(AND, E, imm, F_W | F_LOCKS), AT(g, 5) = ROW(SUB, E, imm, F_W | F_LOCKS), \
	AT(g, 6) = ROW(XOR, E, imm, F_W | F_LOCKS), AT(g, 7) = ROW(CMP, E, imm, F_W)

const struct opcode emul_rows[GROUP_BASE + 8 * GROUPS] = {
	ALU(0x00, ADD, F_LOCKS), ALU(0x08, OR, F_LOCKS), ALU(0x10, ADC, F_LOCKS), ALU(0x18, SBB, F_LOCKS),
	ALU(0x20, AND, F_LOCKS), ALU(0x28, SUB, F_LOCKS), ALU(0x30, XOR, F_LOCKS), ALU(0x38, CMP, 0),
	[0x06] = ROW(PUSH, SO, NONE, F_NO64), [0x07] = ROW(POP, SO, NONE, F_NO64), [0x0e] = ROW(PUSH, SO, NONE, F_NO64),
	[0x16] = ROW(PUSH, SO, NONE, F_NO64), [0x17] = ROW(POP, SO, NONE, F_NO64),
	[0x1e] = ROW(PUSH, SO, NONE, F_NO64), [0x1f] = ROW(POP, SO, NONE, F_NO64),
	[0x27] = ROW0(DAA, F_NO64), [0x2f] = ROW0(DAS, F_NO64),
	[0x40 ... 0x47] = ROW(INC, Z, NONE, 0), [0x48 ... 0x4f] = ROW(DEC, Z, NONE, 0),
	[0x50 ... 0x57] = ROW(PUSH, Z, NONE, F_D64), [0x58 ... 0x5f] = ROW(POP, Z, NONE, F_D64),
	[0x60] = ROW0(PUSHA, F_NO64), [0x61] = ROW0(POPA, F_NO64), [0x63] = ROW(MOVSX, G, ED, F_ONLY64),
	[0x68] = ROW(PUSH, IZ, NONE, F_D64), [0x69] = ROW3(IMUL3, G, E, IZ, 0),
	[0x6a] = ROW(PUSH, IB, NONE, F_D64), [0x6b] = ROW3(IMUL3, G, E, IB, 0),
	[0x6c ... 0x6d] = ROW0(INS, F_W | F_MAX4), [0x6e ... 0x6f] = ROW0(OUTS, F_W | F_MAX4),
	[0x70 ... 0x7f] = ROW(JCC, J8, NONE, F_F64), [0x80 ... 0x81] = GROUP(G_80), [0x83] = GROUP(G_83),
	[0x84 ... 0x85] = ROW(TEST, E, G, F_W), [0x86 ... 0x87] = ROW(XCHG, E, G, F_W | F_LOCKS),
	[0x88 ... 0x89] = ROW(MOV, E, G, F_W), [0x8a ... 0x8b] = ROW(MOV, G, E, F_W),
	[0x8c] = ROW(MOV, ES, S, 0), [0x8d] = ROW(LEA, G, MA, 0), [0x8e] = ROW(MOV, S, EW, 0), [0x8f] = GROUP(G_8F),
	[0x90] = ROW0(NOP, 0), [0x91 ... 0x97] = ROW(XCHG, Z, A, 0), [0x98] = ROW(MOVSX, A, AH, 0), [0x99] = ROW0(CWD, 0),
	[0x9a] = ROW(CALLF, AP, NONE, F_NO64), [0x9c] = ROW0(PUSHF, F_D64), [0x9d] = ROW0(POPF, F_D64),
	[0x9e] = ROW0(SAHF, 0), [0x9f] = ROW0(LAHF, 0),
	[0xa0 ... 0xa1] = ROW(MOV, A, O, F_W), [0xa2 ... 0xa3] = ROW(MOV, O, A, F_W),
	[0xa4 ... 0xa5] = ROW0(MOVS, F_W), [0xa6 ... 0xa7] = ROW0(CMPS, F_W), [0xa8 ... 0xa9] = ROW(TEST, A, IZ, F_W),
	[0xaa ... 0xab] = ROW0(STOS, F_W), [0xac ... 0xad] = ROW0(LODS, F_W), [0xae ... 0xaf] = ROW0(SCAS, F_W),
	[0xb0 ... 0xb7] = ROW(MOV, Z, IV, F_BYTE), [0xb8 ... 0xbf] = ROW(MOV, Z, IV, 0),
	[0xc0 ... 0xc1] = GROUP(G_SHIFT), [0xc2] = ROW(RET, IW, NONE, F_F64), [0xc3] = ROW0(RET, F_F64),
	[0xc4 ... 0xc5] = ROW(LDS, G, MP, F_NO64 | F_REGEXT), [0xc6 ... 0xc7] = GROUP(G_C6),
	[0xc8] = ROW(ENTER, IW, IBU, F_D64), [0xc9] = ROW0(LEAVE, F_D64),
	[0xca] = ROW(RETF, IW, NONE, 0), [0xcb] = ROW0(RETF, 0), [0xcc] = ROW0(INT3, F_FLOW),
	[0xcd] = ROW(INT, IBU, NONE, F_FLOW), [0xce] = ROW0(INTO, F_NO64 | F_FLOW), [0xcf] = ROW0(IRET, F_FLOW),
	[0xd0 ... 0xd3] = GROUP(G_SHIFT), [0xd4] = ROW(AAM, IBU, NONE, F_NO64), [0xd5] = ROW(AAD, IBU, NONE, F_NO64),
	[0xd7] = ROW0(XLAT, 0), [0xe0 ... 0xe3] = ROW(LOOP, J8, NONE, F_F64),
	[0xe4 ... 0xe5] = ROW(IN, A, IBU, F_W | F_MAX4), [0xe6 ... 0xe7] = ROW(OUT, IBU, A, F_W | F_MAX4),
	[0xe8] = ROW(CALL, JZ, NONE, F_F64), [0xe9] = ROW(JMP, JZ, NONE, F_F64),
	[0xea] = ROW(JMPF, AP, NONE, F_NO64), [0xeb] = ROW(JMP, J8, NONE, F_F64),
	[0xec ... 0xed] = ROW(IN, A, DX, F_W | F_MAX4), [0xee ... 0xef] = ROW(OUT, DX, A, F_W | F_MAX4),
	[0xf1] = ROW0(INT1, F_FLOW), [0xf4] = ROW0(HLT, F_PRIV), [0xf5] = ROW0(FLAG, 0), [0xf6 ... 0xf7] = GROUP(G_F6),
	[0xf8 ... 0xfd] = ROW0(FLAG, 0), [0xfe] = GROUP(G_FE), [0xff] = GROUP(G_FF),

	[0x100] = GROUP(G_0F00), [0x101] = GROUP(G_0F01), [0x106] = ROW0(CLTS, F_PRIV),
	[0x108] = ROW0(INVD, F_PRIV), [0x109] = ROW0(WBINVD, F_PRIV), [0x10b] = ROW0(UD, 0),
	[0x110] = PFX(P_0F10), [0x111] = PFX(P_0F11), [0x118] = ROW(NOP, EA, NONE, 0), [0x11f] = ROW(NOP, EA, NONE, 0),
	[0x120] = ROW(MOV, R, C, F_NATIVE | F_PRIV), [0x121] = ROW(MOV, R, D, F_NATIVE | F_PRIV),
	[0x122] = ROW(MOV, C, R, F_NATIVE | F_PRIV), [0x123] = ROW(MOV, D, R, F_NATIVE | F_PRIV),
	[0x128] = PFX(P_0F28), [0x129] = PFX(P_0F29), [0x12b] = PFX(P_0F2B),
	[0x130] = ROW0(WRMSR, F_PRIV), [0x131] = ROW0(RDTSC, 0), [0x132] = ROW0(RDMSR, F_PRIV), [0x133] = ROW0(RDPMC, 0),
	[0x140 ... 0x14f] = ROW(CMOV, G, E, 0),
	[0x16e] = PFX(P_0F6E), [0x17e] = PFX(P_0F7E), [0x16f] = PFX(P_0F6F), [0x17f] = PFX(P_0F7F),
	[0x180 ... 0x18f] = ROW(JCC, JZ, NONE, F_F64), [0x190 ... 0x19f] = ROW(SET, E, NONE, F_BYTE),
	[0x1a0] = ROW(PUSH, SO, NONE, F_D64), [0x1a1] = ROW(POP, SO, NONE, F_D64), [0x1a2] = ROW0(CPUID, 0),
	[0x1a3] = ROW(BT, E, G, 0), [0x1a4] = ROW3(SHLD, E, G, IBU, 0), [0x1a5] = ROW3(SHLD, E, G, CL, 0),
	[0x1a8] = ROW(PUSH, SO, NONE, F_D64), [0x1a9] = ROW(POP, SO, NONE, F_D64),
	[0x1ab] = ROW(BTS, E, G, F_LOCKS), [0x1ac] = ROW3(SHRD, E, G, IBU, 0), [0x1ad] = ROW3(SHRD, E, G, CL, 0),
	[0x1af] = ROW(IMUL2, G, E, 0), [0x1b0 ... 0x1b1] = ROW(CMPXCHG, E, G, F_W | F_LOCKS),
	[0x1b2] = ROW(LDS, G, MP, F_NOW), [0x1b3] = ROW(BTR, E, G, F_LOCKS), [0x1b4 ... 0x1b5] = ROW(LDS, G, MP, F_NOW),
	[0x1b6] = ROW(MOV, G, EB, 0), [0x1b7] = ROW(MOV, G, EW, 0), [0x1b8] = PFX(P_0FB8), [0x1ba] = GROUP(G_0FBA),
	[0x1bb] = ROW(BTC, E, G, F_LOCKS), [0x1bc] = PFX(P_0FBC), [0x1bd] = PFX(P_0FBD),
	[0x1be] = ROW(MOVSX, G, EB, 0), [0x1bf] = ROW(MOVSX, G, EW, 0), [0x1c0 ... 0x1c1] = ROW(XADD, E, G, F_W | F_LOCKS),
	[0x1c3] = PFX(P_0FC3), [0x1c7] = PFX(P_0FC7), [0x1c8 ... 0x1cf] = ROW(BSWAP, Z, Z, 0),
	[0x1d6] = PFX(P_0FD6), [0x1e7] = PFX(P_0FE7),

	ALU_GROUP(G_80, IZ), ALU_GROUP(G_83, IB), AT(G_8F, 0) = ROW(POP, E, NONE, F_D64),
	AT(G_SHIFT, 0) = ROW(ROL, E, SH, F_W), AT(G_SHIFT, 1) = ROW(ROR, E, SH, F_W), AT(G_SHIFT, 2) = ROW(RCL, E, SH, F_W),
	AT(G_SHIFT, 3) = ROW(RCR, E, SH, F_W), AT(G_SHIFT, 4) = ROW(SHL, E, SH, F_W), AT(G_SHIFT, 5) = ROW(SHR, E, SH, F_W),
	AT(G_SHIFT, 6) = ROW(SHL, E, SH, F_W), AT(G_SHIFT, 7) = ROW(SAR, E, SH, F_W),
	AT(G_C6, 0) = ROW(MOV, E, IZ, F_W), ATS(G_C6, 1, 6) = ROW0(UD, 0),
	ATS(G_F6, 0, 1) = ROW(TEST, E, IZ, F_W),
	AT(G_F6, 2) = ROW(NOT, E, NONE, F_W | F_LOCKS), AT(G_F6, 3) = ROW(NEG, E, NONE, F_W | F_LOCKS),
	AT(G_F6, 4) = ROW(MUL, E, NONE, F_W), AT(G_F6, 5) = ROW(IMUL, E, NONE, F_W),
	AT(G_F6, 6) = ROW(DIV, E, NONE, F_W), AT(G_F6, 7) = ROW(IDIV, E, NONE, F_W),
	AT(G_FE, 0) = ROW(INC, E, NONE, F_W | F_LOCKS), AT(G_FE, 1) = ROW(DEC, E, NONE, F_W | F_LOCKS),
	ATS(G_FE, 2, 7) = ROW0(UD, 0),
	AT(G_FF, 0) = ROW(INC, E, NONE, F_LOCKS), AT(G_FF, 1) = ROW(DEC, E, NONE, F_LOCKS),
	AT(G_FF, 2) = ROW(CALL, E, NONE, F_F64), AT(G_FF, 3) = ROW(CALLF, MP, NONE, F_NOW),
	AT(G_FF, 4) = ROW(JMP, E, NONE, F_F64), AT(G_FF, 5) = ROW(JMPF, MP, NONE, F_NOW),
	AT(G_FF, 6) = ROW(PUSH, E, NONE, F_D64), AT(G_FF, 7) = ROW0(UD, 0),
	ATS(G_0F00, 0, 1) = ROW(SLDT, ES, NONE, F_NOREAL), ATS(G_0F00, 2, 3) = ROW(LLDT, EW, NONE, F_NOREAL | F_PRIV),
	AT(G_0F01, 0) = ROW(SGDT, MA, NONE, F_REGEXT), AT(G_0F01, 1) = ROW(SIDT, MA, NONE, F_REGEXT),
	AT(G_0F01, 2) = ROW(LGDT, MA, NONE, F_REGEXT | F_PRIV), AT(G_0F01, 3) = ROW(LIDT, MA, NONE, F_REGEXT | F_PRIV),
	AT(G_0F01, 4) = ROW(SMSW, ES, NONE, 0), AT(G_0F01, 6) = ROW(LMSW, EW, NONE, F_PRIV),
	AT(G_0F01, 7) = ROW(INVLPG, MA, NONE, F_REGEXT | F_PRIV),
	ATS(G_0FBA, 0, 3) = ROW0(UD, 0), AT(G_0FBA, 4) = ROW(BT, E, IBU, 0), AT(G_0FBA, 5) = ROW(BTS, E, IBU, F_LOCKS),
	AT(G_0FBA, 6) = ROW(BTR, E, IBU, F_LOCKS), AT(G_0FBA, 7) = ROW(BTC, E, IBU, F_LOCKS),
	AT(P_0FC7, 0) = GROUP(G_0FC7), AT(G_0FC7, 1) = ROW(CMPXCHG2, M2, NONE, F_LOCKS | F_DQ),
	ATS(P_MOVBE0, 0, 1) = ROW(MOVBE, G, M, 0), ATS(P_MOVBE1, 0, 1) = ROW(MOVBE, M, G, 0),
	AT(P_0FB8, 2) = ROW(POPCNT, G, E, 0), AT(P_0FC3, 0) = ROW(MOV, M, G, F_DQ),
	ATS(P_0FBC, 0, 1) = ROW(BSF, G, E, 0), ATS(P_0FBD, 0, 1) = ROW(BSR, G, E, 0),
	/* xmm moves: of registers and memory, of 16, 8 and 4 bytes. */
	ATS(P_0F10, 0, 1) = ROW(MOVX, V, W, 0), ATS(P_0F11, 0, 1) = ROW(MOVX, W, V, 0),
	AT(P_0F10, 2) = ROW(MOVX, V, WD, F_REGEXT), AT(P_0F11, 2) = ROW(MOVX, WD, V, F_REGEXT),
	AT(P_0F10, 3) = ROW(MOVX, V, WQ, F_REGEXT), AT(P_0F11, 3) = ROW(MOVX, WQ, V, F_REGEXT),
	ATS(P_0F28, 0, 1) = ROW(MOVX, V, W, F_ALIGN), ATS(P_0F29, 0, 1) = ROW(MOVX, W, V, F_ALIGN),
	ATS(P_0F2B, 0, 1) = ROW(MOVX, W, V, F_ALIGN | F_REGEXT), AT(P_0FE7, 1) = ROW(MOVX, W, V, F_ALIGN | F_REGEXT),
	AT(P_0F6F, 1) = ROW(MOVX, V, W, F_ALIGN), AT(P_0F7F, 1) = ROW(MOVX, W, V, F_ALIGN),
	AT(P_0F6F, 2) = ROW(MOVX, V, W, 0), AT(P_0F7F, 2) = ROW(MOVX, W, V, 0),
	AT(P_0F6E, 1) = ROW(MOVX, V, E, F_DQ), AT(P_0F7E, 1) = ROW(MOVX, E, V, F_DQ),
	AT(P_0F7E, 2) = ROW(MOVX, V, WQ, 0), AT(P_0FD6, 1) = ROW(MOVX, WQ, V, 0),
};
/* clang-format on */

struct cursor {
	const u8 *bytes;
	unsigned pos, end;
};

static int fetch(struct cursor *c, unsigned size, u64 *v)
{
	if (c->pos + size > INSN_MAX)
		return -EINVAL;
	if (c->pos + size > c->end)
		return -EAGAIN;
	*v = 0;
	for (unsigned i = 0; i < size; i++)
		*v |= (u64)c->bytes[c->pos++] << (8 * i);
	return 0;
}

static int fetch_signed(struct cursor *c, unsigned size, u64 *v)
{
	int err = fetch(c, size, v);

	if (!err)
		*v = (u64)sext(*v, size);
	return err;
}

/* The segment that a prefix byte names, or EMUL_NOREG. */
static u8 segment_prefix(u8 byte)
{
	if ((byte & 0xe7) == 0x26)
		return byte >> 3 & 3;
	return byte == 0x64 ? SEG_FS : byte == 0x65 ? SEG_GS : EMUL_NOREG;
}

/* Takes one prefix into in; false if byte is none. A REX that another prefix follows has no effect. */
static bool take_prefix(struct insn *in, u8 byte)
{
	bool long_mode = in->mode == MODE_64;

	if (long_mode && (byte & 0xf0) == 0x40) {
		in->rex = byte;
		return true;
	}
	if (byte == 0x66)
		in->osz = true;
	else if (byte == 0x67)
		in->adsize = in->mode == MODE_32 ? 2 : 4;
	else if (byte == 0xf0)
		in->lock = true;
	else if (byte == 0xf2 || byte == 0xf3)
		in->rep = byte;
	else if (segment_prefix(byte) == EMUL_NOREG)
		return false;
	else if (!long_mode || segment_prefix(byte) >= SEG_FS)
		in->seg = segment_prefix(byte);
	in->rex = 0;
	return true;
}

static int fetch_modrm(struct cursor *c, struct insn *in)
{
	u64 byte;
	int err = in->has_modrm ? 0 : fetch(c, 1, &byte);

	if (!err && !in->has_modrm) {
		in->modrm = (u8)byte;
		in->has_modrm = true;
	}
	return err;
}

/* Which of the rows none, 66, F3, F2. */
static u16 mandatory_prefix(const struct insn *in) { return in->rep ? (in->rep == 0xf3 ? 2 : 3) : in->osz; }

/* Prefixes and opcode, up to the row that is no group. */
static int fetch_opcode(struct cursor *c, struct insn *in)
{
	const struct opcode *row;
	u64 byte;
	int err;

	do {
		err = fetch(c, 1, &byte);
		if (err)
			return err;
	} while (take_prefix(in, (u8)byte));
	for (; !err && in->map < 2 && byte == (in->map ? 0x38 : 0x0f); in->map++)
		err = fetch(c, 1, &byte);
	if (err)
		return err;
	in->opcode = (u8)byte;
	if (in->map == 2 && (byte & 0xfe) != 0xf0)
		return -ENOSYS;
	if (in->map == 2)
		in->op = (u16)(GROUP_BASE + 8 * (P_MOVBE0 + (byte & 1)) + mandatory_prefix(in));
	else
		in->op = (u16)(in->map * 0x100u + byte);
	if (in->op == 0x90 && in->rex & 1)
		in->op++; /* XCHG R8, RAX; without the REX bit it would be XCHG RAX, RAX, which is NOP */

	for (row = &emul_rows[in->op]; !err && row->flags & (F_GROUP | F_PFX); row = &emul_rows[in->op]) {
		in->op = GROUP_BASE + 8 * row->op;
		if (row->flags & F_PFX) {
			in->op += mandatory_prefix(in);
		} else {
			err = fetch_modrm(c, in);
			in->op += in->modrm >> 3 & 7;
		}
	}
	return err;
}

static u8 operand_size(const struct insn *in, const struct opcode *row)
{
	u8 size = in->mode >= MODE_32 ? 4 : 2;

	if (row->flags & F_BYTE || (row->flags & F_W && !(in->opcode & 1)))
		return 1;
	if (row->flags & F_NATIVE)
		return in->mode == MODE_64 ? 8 : 4;
	if (row->flags & F_DQ)
		return in->rex & 8 ? 8 : 4;
	if (in->mode == MODE_64 && (in->rex & 8 || row->flags & (F_F64 | F_D64)))
		size = 8;
	if (in->osz && !(in->rex & 8))
		size = size == 2 ? 4 : 2;
	return row->flags & F_MAX4 && size > 4 ? 4 : size;
}

unsigned emul_operand_size(const struct insn *in, enum kind k)
{
	static const u8 fixed[] = {
		[K_EB] = 1, [K_EW] = 2, [K_ED] = 4, [K_WD] = 4, [K_WQ] = 8, [K_W] = 16, [K_CL] = 1, [K_DX] = 2};

	if (k < ARRAY_SIZE(fixed) && fixed[k])
		return fixed[k];
	switch (k) {
	case K_NONE:
	case K_MA:
	case K_EA:
		return 0;
	case K_ES:
		return in->has_mem ? 2 : in->opsize;
	case K_MP:
		return in->opsize + 2u;
	case K_M2:
		return 2u * in->opsize;
	case K_AH:
		return in->opsize / 2u;
	default:
		return in->opsize;
	}
}

/* The memory operand of 16-bit addressing. */
static int decode_mem16(struct cursor *c, struct insn *in)
{
	static const u8 bases[8] = {R_BX, R_BX, R_BP, R_BP, R_SI, R_DI, R_BP, R_BX};
	static const u8 indexes[4] = {R_SI, R_DI, R_SI, R_DI};
	unsigned mod = in->modrm >> 6, rm = in->modrm & 7;

	if (mod == 0 && rm == 6)
		return fetch_signed(c, 2, (u64 *)&in->disp);
	in->base = bases[rm];
	in->index = rm < 4 ? indexes[rm] : EMUL_NOREG;
	return mod ? fetch_signed(c, mod, (u64 *)&in->disp) : 0;
}

/* The memory operand of 32- and 64-bit addressing. */
static int decode_mem32(struct cursor *c, struct insn *in)
{
	unsigned mod = in->modrm >> 6, size = mod == 2 ? 4 : mod;
	u64 sib;
	int err;

	in->base = in->modrm & 7;
	if (in->base == R_SP) {
		err = fetch(c, 1, &sib);
		if (err)
			return err;
		in->sib = (u8)sib;
		in->base = sib & 7;
		in->index = (u8)((sib >> 3 & 7) | (in->rex & 2u) << 2);
		in->scale = (u8)(sib >> 6);
		if (in->index == R_SP) {
			in->index = EMUL_NOREG;
			in->scale = 0;
		}
	}
	if (mod == 0 && in->base == R_BP) {
		in->base = (in->modrm & 7) == R_SP || in->mode != MODE_64 ? EMUL_NOREG : EMUL_RIP;
		size = 4;
	} else {
		in->base |= (in->rex & 1u) << 3;
	}
	return size ? fetch_signed(c, size, (u64 *)&in->disp) : 0;
}

/* The memory operand, if k is one. */
static int decode_mem(struct cursor *c, struct insn *in, enum kind k)
{
	int err = 0;

	if (k == K_O) {
		in->has_mem = true;
		err = fetch(c, in->adsize, (u64 *)&in->disp);
	} else if (k > K_NONE && k <= K_RM_LAST && k != K_R && in->modrm < 0xc0) {
		in->has_mem = true;
		err = in->adsize == 2 ? decode_mem16(c, in) : decode_mem32(c, in);
	} else {
		return 0;
	}
	in->msize = (u8)emul_operand_size(in, k);
	return err;
}

static int decode_imm(struct cursor *c, struct insn *in, enum kind k, u64 *imm)
{
	int err;

	switch (k) {
	case K_IB:
	case K_J8:
		return fetch_signed(c, 1, imm);
	case K_IBU:
		return fetch(c, 1, imm);
	case K_SH:
		*imm = 1;
		return in->opcode < 0xd0 ? fetch(c, 1, imm) : 0;
	case K_IW:
		return fetch(c, 2, imm);
	case K_IZ:
	case K_JZ:
		return fetch_signed(c, in->opsize < 4 ? in->opsize : 4, imm);
	case K_IV:
		return fetch(c, in->opsize, imm);
	case K_AP:
		err = fetch(c, in->opsize, imm);
		return err ? err : fetch(c, 2, &in->imm2);
	default:
		return 0;
	}
}

/* What hardware answers with #UD although all bytes were there. */
static bool undefined(const struct insn *in, const struct opcode *row)
{
	unsigned reg = reg_of_modrm(in);

	if (in->lock && !(row->flags & F_LOCKS && in->has_mem))
		return true;
	for (unsigned i = 0; i < 2; i++) {
		u8 k = i ? row->b : row->a;

		if (((k >= K_M && k <= K_M2) && !in->has_mem) || (k == K_S && ((reg & 7) > SEG_GS)) ||
		    (k == K_C && !(BIT(reg) & 0x11d)) || (k == K_D && reg > 7))
			return true;
	}
	return row->a == K_S && (reg & 7) == SEG_CS;
}

/* What the vendors disagree on, or what is another instruction, not known here. */
static bool unknown(const struct insn *in, const struct opcode *row)
{
	if (row->flags & F_REGEXT && in->has_modrm && in->modrm >= 0xc0)
		return true;
	if (in->mode != MODE_64)
		return row->flags & F_ONLY64;
	return (row->flags & F_NOW && in->rex & 8) || (row->flags & F_F64 && in->opsize == 2) ||
	       (row->flags & F_ONLY64 && in->opsize == 2);
}

static int decode(struct cursor *c, struct insn *in)
{
	const struct opcode *row;
	int err = fetch_opcode(c, in);

	if (err)
		return err;
	row = &emul_rows[in->op];
	if (row->op == OP_UNKNOWN)
		return -ENOSYS;
	if (row->op == OP_UD || (row->flags & F_NOREAL && in->mode == MODE_REAL))
		return -EINVAL;
	if (row->flags & F_NO64 && in->mode == MODE_64)
		return row->flags & F_REGEXT ? -ENOSYS : -EINVAL;
	in->opsize = operand_size(in, row);
	if (in->has_modrm || (row->a && row->a <= K_MODRM_LAST) || (row->b && row->b <= K_MODRM_LAST))
		err = fetch_modrm(c, in);
	if (err)
		return err;
	if (unknown(in, row) || (row->op == OP_BSWAP && in->opsize == 2))
		return -ENOSYS;
	err = decode_mem(c, in, row->a);
	if (!err)
		err = decode_mem(c, in, row->b);
	if (!err)
		err = decode_imm(c, in, row->a, &in->imm);
	if (!err)
		err = decode_imm(c, in, row->b, row->a == K_IW ? &in->imm2 : &in->imm);
	if (!err)
		err = decode_imm(c, in, row->c, &in->imm);
	return err ? err : undefined(in, row) ? -EINVAL : 0;
}

int insn_decode(const u8 *bytes, size_t n, enum gcpu_mode mode, struct insn *out)
{
	struct cursor c = {.bytes = bytes, .end = (unsigned)MIN(n, (size_t)INSN_MAX)};
	int err;

	*out = (struct insn){
		.mode = (u8)mode,
		.adsize = mode == MODE_64   ? 8
			  : mode == MODE_32 ? 4
					    : 2,
		.seg = EMUL_NOREG,
		.base = EMUL_NOREG,
		.index = EMUL_NOREG,
	};
	err = decode(&c, out);
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

static const char *kind_name(const struct insn *in, u8 k)
{
	static const char *const names[] = {[K_S] = " seg", [K_SO] = " seg", [K_C] = " cr",   [K_D] = " dr",
					    [K_V] = " xmm", [K_W] = " xmm",  [K_WQ] = " xmm", [K_WD] = " xmm"};

	if (k == K_NONE)
		return "";
	if (k == K_O || (k <= K_RM_LAST && in->has_mem))
		return " mem";
	if (k >= K_IB)
		return " imm";
	return k < ARRAY_SIZE(names) && names[k] ? names[k] : " reg";
}

void insn_describe(const struct insn *in, char *buf, size_t size)
{
	static const char *const names[OPS] = {"unknown", "undefined",
#define X(name, handler, access) #name,
					       EMUL_OPS(X)
#undef X
	};
	const struct opcode *row = &emul_rows[in->op];
	bool known = !(row->flags & (F_GROUP | F_PFX));

	format(buf, size, "%s%s%s%s%s (map %u opcode %02x modrm %02x, operand %u, address %u)", in->lock ? "LOCK " : "",
	       known ? names[row->op] : names[0], known ? kind_name(in, row->a) : "",
	       known ? kind_name(in, row->b) : "", known ? kind_name(in, row->c) : "", in->map, in->opcode, in->modrm,
	       in->opsize, in->adsize);
}
