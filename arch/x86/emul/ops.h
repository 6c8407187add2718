/* SPDX-License-Identifier: MIT */
/*
 * Shared by the emulator's own files only: the operations, the rows of the decode table, and the state of one
 * execution.
 *
 *     decode.c   bytes -> row of emul_rows -> struct insn
 *     exec.c     operands: load, lock, store, commit; insn_exec
 *     data.c     moves, arithmetic, bits: handlers that see values
 *     flow.c     stack, branches, far transfers, system registers
 *     string.c   string instructions and ports
 *     alu.c      results and flags, nothing else
 */
#pragma once

#include "arch/x86/emul/emul.h"
#include "lib/x86.h"

/* What happens to the first operand: read, written, or the handler does all of it. L: in memory it may be LOCKed. */
enum access { A_NONE, A_R = 1, A_W = 2, A_RW = 3, A_L = 4, A_RWL = 7 };

/*
 * Every operation: its name, its handler x_..., the access to its first operand. Order matters within ADD..CMP and
 * ROL..SAR (as encoded; odd ones shift right), and LODS..INS (those to CMPS use SI, those from MOVS use DI).
 */
/* clang-format off */
#define EMUL_OPS(X) \
	X(ADD, alu, RWL) X(OR, alu, RWL) X(ADC, alu, RWL) X(SBB, alu, RWL) X(AND, alu, RWL) X(SUB, alu, RWL) \
	X(XOR, alu, RWL) X(CMP, alu, R) X(TEST, alu, R) X(INC, alu, RWL) X(DEC, alu, RWL) X(NOT, alu, RWL) X(NEG, alu, RWL) \
	X(ROL, shift, RW) X(ROR, shift, RW) X(RCL, shift, RW) X(RCR, shift, RW) X(SHL, shift, RW) X(SHR, shift, RW) \
	X(SAL, shift, RW) X(SAR, shift, RW) X(SHLD, shift, RW) X(SHRD, shift, RW) \
	X(BT, bit, R) X(BTS, bit, RWL) X(BTR, bit, RWL) X(BTC, bit, RWL) X(BSF, scan, R) X(BSR, scan, R) \
	X(MUL, mul, R) X(IMUL, mul, R) X(IMUL2, imul2, RW) X(DIV, div, R) X(IDIV, div, R) \
	X(MOV, mov, W) X(MOVSX, movsx, W) X(BSWAP, bswap, W) X(CMOV, cmov, RW) X(SET, set, W) X(CWD, cwd, NONE) \
	X(LAHF, lahf, NONE) X(SAHF, sahf, NONE) X(DAA, daa, NONE) X(DAS, daa, NONE) X(AAA, aaa, NONE) \
	X(AAS, aaa, NONE) X(AAM, aam, R) X(AAD, aad, R) X(BOUND, bound, R) X(XCHG, xchg, RWL) X(XADD, xchg, RWL) X(CMPXCHG, cmpxchg, RWL) \
	X(CMPXCHG2, cmpxchg2, L) X(XLAT, xlat, NONE) X(MOVX, movx, NONE) X(NOP, nop, NONE) X(CMC, cmc, NONE) \
	X(FLAG, flag, NONE) X(PUSH, push, R) X(POP, pop, W) X(PUSHA, pusha, NONE) X(POPA, popa, NONE) \
	X(PUSHF, pushf, NONE) X(POPF, popf, NONE) X(ENTER, enter, NONE) X(LEAVE, leave, NONE) X(JMP, jmp, R) X(JCC, jcc, R) \
	X(LOOP, loop, R) X(JCXZ, jcxz, R) X(CALL, call, R) X(RET, ret, NONE) X(JMPF, jmpf, R) X(CALLF, callf, R) \
	X(RETF, retf, NONE) X(LDS, lds, W) X(IN, in, W) X(OUT, out, R) X(LODS, string, NONE) X(OUTS, string, NONE) \
	X(MOVS, string, NONE) X(CMPS, string, NONE) X(STOS, string, NONE) X(SCAS, string, NONE) X(INS, string, NONE) \
	X(INTO, into, NONE) X(IRET, iret, NONE) X(SMSW, smsw, W) X(LMSW, lmsw, R) X(CLTS, clts, NONE) X(SYSTEM, system, NONE)
/* clang-format on */

/* OP_UNKNOWN is valid somewhere, but not known here (-ENOSYS), OP_UD is not (-EINVAL). */
#define X(name, handler, access) OP_##name,
enum op { OP_UNKNOWN, OP_UD, EMUL_OPS(X) OPS };
#undef X

/*
 * Operand kinds; sizes are the operand size where not said. Those to RM_LAST come from ModRM.rm:
 *     E   r/m; with 8, 16 or 32 bits: EB, EW, ED; ES: register, or 16 bits of memory; R: register whatever ModRM.mod
 * says M   memory only; MA: its address is what matters; MP: offset, then a 16-bit selector; M2: twice the operand size
 *     W   xmm register or 16 bytes of memory; WQ: 8 bytes; WP: 16, but 4 with F3 and 8 with F2
 * and those to MODRM_LAST from ModRM.reg:
 *     G   general, S segment, C control, D debug, V xmm register; SYS: LDTR if even, else TR
 * The others:
 *     Z   register in the opcode's low bits; A accumulator, AH its lower half; CL; DX
 *     SO  segment register that the opcode's bits 5:3 name
 *     O   memory at an absolute offset
 *     1   the number 1; IB, IZ: sign-extended immediate of 8 bits, of operand size but at most 32 bits
 *     IBU, IW  zero-extended immediate of 8, 16 bits; IE: 16 and 8 bits (ENTER); IV: of operand size
 *     J8, JZ   branch target, relative to the next instruction
 *     AP  far pointer: offset, then a 16-bit selector
 */
enum kind { K_NONE, K_E, K_EB, K_EW, K_ED, K_ES, K_EA, K_R, K_M, K_MA, K_MP, K_M2, K_W, K_WQ, K_WP, K_RM_LAST = K_WP };
enum { K_G = K_RM_LAST + 1, K_S, K_C, K_SYS, K_D, K_V, K_MODRM_LAST = K_V, K_Z, K_A, K_AH, K_CL, K_DX, K_SO, K_O };
enum { K_1 = K_O + 1, K_IB, K_IBU, K_IW, K_IE, K_IZ, K_IV, K_J8, K_JZ, K_AP, KINDS };

/*
 * Flags of a row. Operand size:
 *     BYTE, DQ  1; 8 with REX.W, else 4
 *     W         1 if the opcode is even
 *     D64, F64  in 64-bit mode 8, unless 66; 8, and vendors differ on what 66 does
 *     NATIVE    8 in 64-bit mode, else 4
 *     MAX4      4 at most
 * Which row:
 *     GROUP     the row of group op that ModRM.reg selects
 *     REG       ModRM.reg is added to op
 *     PN, P6, P3  only without mandatory prefix, with 66, with F3; none of them: with any prefix
 * Conditions:
 *     NO64, ONLY64  #UD in 64-bit mode; another instruction elsewhere
 *     NOW       vendors differ on what REX.W does
 *     REGEXT    the register form is another instruction, not known here; with NO64, 64-bit mode's too
 *     PRIV      #GP unless CPL is 0
 *     PROT      #UD in real and virtual-8086 mode
 *     ALIGN     #GP unless memory is aligned to its size, except with F3
 */
enum { F_BYTE = 1, F_DQ = 2, F_W = 4, F_D64 = 8, F_F64 = 0x10, F_NATIVE = 0x20, F_MAX4 = 0x40 };
enum { F_GROUP = 0x80, F_REG = 0x100, F_PN = 0x200, F_P6 = 0x400, F_P3 = 0x800, F_PFX = F_PN | F_P6 | F_P3 };
enum { F_NO64 = 0x1000, F_ONLY64 = 0x2000, F_NOW = 0x4000, F_REGEXT = 0x8000, F_PRIV = 0x10000, F_ALIGN = 0x20000 };
enum { F_PROT = 0x40000 };

/* A row of the decode table. */
struct opcode {
	u8 op;      /* enum op; with F_GROUP the number of a group */
	u8 a, b, c; /* enum kind; a is the destination */
	u32 flags;
};

extern const struct opcode emul_rows[];

struct ex;
struct operation {
	void (*exec)(struct ex *e);
	enum access access;
};

extern const struct operation emul_operations[OPS];

/* Bytes of an operand of this kind; 0 where it has no bytes to access. */
unsigned emul_operand_size(const struct insn *in, unsigned k);

/*
 * One execution. Handlers work on the copy of the registers, which insn_exec commits if all went well. Errors stick:
 * once res is not EMUL_OK no operation is done any more and no value counts, so a handler is the list of its steps.
 */
struct ex {
	enum emul_result res;
	const struct insn *in;
	const struct opcode *row;
	enum op op;
	const struct emul_ops *ops;
	void *ctx;
	struct gregs *orig; /* the caller's registers, rip on the instruction */
	struct gregs r;     /* the copy, rip past the instruction */
	u64 ea;             /* offset of the memory operand */
	u64 dst, src, aux;  /* values of the three operands, zero-extended */
};

#define X(name, handler, access) void x_##handler(struct ex *e);
EMUL_OPS(X)
#undef X

/* Does an operation, or notes a result, unless one before has failed. */
#define TRY(e, op, ...) ((void)((e)->res == EMUL_OK && ((e)->res = (e)->ops->op((e)->ctx, __VA_ARGS__))))
static inline void give_up(struct ex *e, enum emul_result res) { e->res = e->res == EMUL_OK ? res : e->res; }

enum { RFLAGS_ARITH = RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF };

static inline void set_flags(struct ex *e, u64 mask, u64 v) { e->r.rflags = (e->r.rflags & ~mask) | (v & mask); }

static inline u64 mask_of(unsigned size) { return ~0ul >> (64 - 8 * size); }
static inline s64 sext(u64 v, unsigned size) { return (s64)(v << (64 - 8 * size)) >> (64 - 8 * size); }

/* Reads or writes a register; byte registers 4..7 are AH..BH unless rex. 32-bit writes clear the upper half. */
u64 reg_get(const struct ex *e, unsigned n, unsigned size);
void reg_set(struct ex *e, unsigned n, u64 v, unsigned size);
unsigned reg_of_modrm(const struct insn *in); /* ModRM.reg with its REX bit */
unsigned rm_of_modrm(const struct insn *in);  /* ModRM.rm with its REX bit */

/* Memory of 1..8 bytes as a number. */
u64 emul_read(struct ex *e, enum seg s, u64 off, unsigned size, enum emul_access a);
void emul_write(struct ex *e, enum seg s, u64 off, u64 v, unsigned size);

u64 operand_load(struct ex *e, unsigned k, enum emul_access a);
void operand_store(struct ex *e, unsigned k, u64 v);

/* Arithmetic. Operands are zero-extended from size bytes, results too; *fl is rflags, of which only what the
 * instruction defines (and sometimes what processors commonly leave in what it does not) changes. */
u64 alu(enum op op, u64 a, u64 b, unsigned size, u64 *fl);
u64 alu_shift(enum op op, u64 a, u64 b, unsigned count, unsigned size, u64 *fl); /* b: SHLD and SHRD shift it in */
u64 alu_mul(bool sign, u64 a, u64 b, unsigned size, u64 *hi, u64 *fl);
/* hi:lo / d; false where the result is not defined (#DE). */
bool alu_div(bool sign, u64 hi, u64 lo, u64 d, unsigned size, u64 *quot, u64 *rem); /* size 4 at most */
bool alu_cond(unsigned cc, u64 fl);
