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
#ifndef ARCH_X86_EMUL_OPS_H
#define ARCH_X86_EMUL_OPS_H

#include "arch/x86/emul/emul.h"

/* What happens to the first operand: read, written, or the handler does all of it itself. */
enum access { A_NONE, A_R = 1, A_W = 2, A_RW = 3 };

/* Every operation: its name, its handler x_..., the access to its first operand. */
/* clang-format off */
#define EMUL_OPS(X) \
	X(ADD, alu, A_RW) X(OR, alu, A_RW) X(ADC, alu, A_RW) X(SBB, alu, A_RW) X(AND, alu, A_RW) X(SUB, alu, A_RW) \
	X(XOR, alu, A_RW) X(CMP, alu, A_R) X(TEST, alu, A_R) X(INC, alu, A_RW) X(DEC, alu, A_RW) X(NEG, alu, A_RW) \
	X(NOT, alu, A_RW) X(ROL, shift, A_RW) X(ROR, shift, A_RW) X(RCL, shift, A_RW) X(RCR, shift, A_RW) \
	X(SHL, shift, A_RW) X(SHR, shift, A_RW) X(SAR, shift, A_RW) X(SHLD, shift, A_RW) X(SHRD, shift, A_RW) \
	X(BT, bit, A_R) X(BTS, bit, A_RW) X(BTR, bit, A_RW) X(BTC, bit, A_RW) \
	X(BSF, scan, A_R) X(BSR, scan, A_R) X(POPCNT, scan, A_R) \
	X(MUL, mul, A_R) X(IMUL, mul, A_R) X(IMUL2, imul2, A_RW) X(IMUL3, imul2, A_W) X(DIV, div, A_R) X(IDIV, div, A_R) \
	X(DAA, decimal, A_NONE) X(DAS, decimal, A_NONE) X(AAM, aam, A_NONE) X(AAD, aad, A_NONE) \
	X(MOV, mov, A_W) X(LEA, mov, A_W) X(MOVSX, movsx, A_W) X(MOVBE, swap, A_W) X(BSWAP, swap, A_W) \
	X(CMOV, cmov, A_RW) X(SET, set, A_W) X(CWD, cwd, A_NONE) X(LAHF, lahf, A_NONE) X(SAHF, sahf, A_NONE) \
	X(XCHG, xchg, A_RW) X(XADD, xadd, A_RW) X(CMPXCHG, cmpxchg, A_NONE) X(CMPXCHG2, cmpxchg2, A_NONE) \
	X(XLAT, xlat, A_NONE) X(MOVX, movx, A_NONE) X(NOP, nop, A_NONE) X(FLAG, flag, A_NONE) \
	X(PUSH, push, A_R) X(POP, pop, A_W) X(PUSHA, pusha, A_NONE) X(POPA, popa, A_NONE) \
	X(PUSHF, pushf, A_NONE) X(POPF, popf, A_NONE) X(ENTER, enter, A_NONE) X(LEAVE, leave, A_NONE) \
	X(JMP, jmp, A_R) X(JCC, jcc, A_R) X(LOOP, loop, A_R) X(CALL, call, A_R) X(RET, ret, A_NONE) \
	X(JMPF, jmpf, A_NONE) X(CALLF, callf, A_NONE) X(RETF, retf, A_NONE) X(IRET, iret, A_NONE) X(LDS, lds, A_W) \
	X(SLDT, sldt, A_W) X(LLDT, lldt, A_R) X(SMSW, smsw, A_W) X(LMSW, lmsw, A_R) X(CLTS, clts, A_NONE) \
	X(RDMSR, rdmsr, A_NONE) X(WRMSR, wrmsr, A_NONE) X(IN, in, A_W) X(OUT, out, A_R) \
	X(MOVS, string, A_NONE) X(CMPS, string, A_NONE) X(STOS, string, A_NONE) X(LODS, string, A_NONE) \
	X(SCAS, string, A_NONE) X(INS, string, A_NONE) X(OUTS, string, A_NONE) \
	X(CPUID, system, A_NONE) X(HLT, system, A_NONE) X(RDTSC, system, A_NONE) X(RDPMC, system, A_NONE) \
	X(INVD, system, A_NONE) X(WBINVD, system, A_NONE) X(INVLPG, system, A_NONE) \
	X(SGDT, system, A_NONE) X(SIDT, system, A_NONE) X(LGDT, system, A_NONE) X(LIDT, system, A_NONE) \
	X(INT1, system, A_NONE) X(INT3, system, A_NONE) X(INT, system, A_NONE) X(INTO, into, A_NONE)
/* clang-format on */

enum op {
	OP_UNKNOWN, /* valid somewhere, but not known here: -ENOSYS */
	OP_UD,      /* #UD: -EINVAL */
#define X(name, handler, access) OP_##name,
	EMUL_OPS(X)
#undef X
		OPS,
};

/* Operand kinds. Sizes are the operand size where not said. The first group comes from ModRM.rm. */
enum kind {
	K_NONE,
	K_E,  /* r/m */
	K_EB, /* r/m, 8 bits */
	K_EW, /* r/m, 16 bits */
	K_ED, /* r/m, 32 bits */
	K_ES, /* register, or 16 bits of memory */
	K_M,  /* memory only */
	K_MA, /* memory only: the address is what matters */
	K_MP, /* memory only: offset, then a 16-bit selector */
	K_M2, /* memory only: twice the operand size */
	K_R,  /* register whatever ModRM.mod says */
	K_EA, /* r/m that is not accessed */
	K_W,  /* xmm register or 16 bytes of memory */
	K_WQ, /* xmm register or 8 bytes of memory */
	K_WD, /* xmm register or 4 bytes of memory */
	K_RM_LAST = K_WD,
	K_G, /* ModRM.reg */
	K_S, /* segment register in ModRM.reg */
	K_C, /* control register in ModRM.reg */
	K_D, /* debug register in ModRM.reg */
	K_V, /* xmm register in ModRM.reg */
	K_MODRM_LAST = K_V,
	K_Z,   /* register in the opcode's low bits */
	K_A,   /* accumulator */
	K_AH,  /* its lower half */
	K_SH,  /* shift count: an immediate, 1 or CL, as the opcode says */
	K_CL,  /* shift count of SHLD and SHRD */
	K_DX,  /* port */
	K_SO,  /* the segment register that the opcode's bits 5:3 name */
	K_O,   /* memory at an absolute offset */
	K_IB,  /* 8-bit immediate, sign-extended */
	K_IBU, /* 8-bit immediate, zero-extended */
	K_IW,  /* 16-bit immediate, zero-extended */
	K_IZ,  /* immediate of operand size but at most 32 bits, sign-extended */
	K_IV,  /* immediate of operand size */
	K_J8,  /* 8-bit displacement from the next instruction */
	K_JZ,  /* the same of operand size but at most 32 bits */
	K_AP,  /* far pointer */
};

enum {
	F_BYTE = 1 << 0,   /* operand size 1 */
	F_W = 1 << 1,      /* operand size 1 if the opcode is even */
	F_D64 = 1 << 2,    /* 64-bit mode: operand size 8 unless 66 */
	F_F64 = 1 << 3,    /* 64-bit mode: operand size 8; vendors differ on what 66 does */
	F_NATIVE = 1 << 4, /* operand size 8 in 64-bit mode, else 4 */
	F_DQ = 1 << 5,     /* operand size 8 with REX.W, else 4 */
	F_MAX4 = 1 << 6,   /* operand size 4 at most */
	F_NO64 = 1 << 7,   /* #UD in 64-bit mode */
	F_ONLY64 = 1 << 8, /* another instruction elsewhere */
	F_NOREAL = 1 << 9, /* #UD in real mode */
	F_NOW = 1 << 10,   /* vendors differ on what REX.W does */
	F_REGEXT =
		1 << 11, /* the register form is another instruction, not known here; with F_NO64, 64-bit mode's too */
	F_LOCKS = 1 << 12, /* LOCK allowed if the first operand is memory */
	F_GROUP = 1 << 13, /* ModRM.reg selects the row of group op */
	F_PFX = 1 << 14,   /* none, 66, F3, F2 selects the row of group op */
	F_PRIV = 1 << 15,  /* #GP unless CPL is 0 */
	F_FLOW = 1 << 16,  /* ops->system sets rip itself */
	F_ALIGN = 1 << 17, /* #GP unless memory is aligned to its size */
};

/* A row of the decode table. */
struct opcode {
	u8 op;      /* enum op; with F_GROUP or F_PFX the number of a group */
	u8 a, b, c; /* enum kind; a is the destination */
	u32 flags;
};

extern const struct opcode emul_rows[];

/* Bytes of an operand of this kind; 0 where it has no bytes to access. */
unsigned emul_operand_size(const struct insn *in, enum kind k);

/* One execution. Handlers work on the copy of the registers, which insn_exec commits if all went well. */
struct ex {
	const struct insn *in;
	const struct opcode *row;
	const struct emul_ops *ops;
	void *ctx;
	struct emul_fault *fault;
	struct gregs *orig; /* the caller's registers, rip on the instruction */
	struct gregs r;     /* the copy, rip past the instruction */
	u64 ea;             /* offset of the memory operand */
	u64 dst, src;       /* values of the first two operands, zero-extended */
};

#define X(name, handler, access) enum emul_result x_##handler(struct ex *e);
EMUL_OPS(X)
#undef X

enum { FL_CF = 1, FL_PF = 4, FL_AF = 0x10, FL_ZF = 0x40, FL_SF = 0x80, FL_TF = 0x100, FL_IF = 0x200, FL_DF = 0x400 };
enum { FL_OF = 0x800, FL_IOPL = 0x3000, FL_NT = 0x4000, FL_RF = 0x10000, FL_VM = 0x20000, FL_AC = 0x40000 };
enum { FL_ID = 0x200000, FL_ARITH = FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF };

enum { VEC_DE = 0, VEC_GP = 13 };

static inline u64 mask_of(unsigned size) { return ~0ul >> (64 - 8 * size); }
static inline s64 sext(u64 v, unsigned size) { return (s64)(v << (64 - 8 * size)) >> (64 - 8 * size); }

/* Reads or writes a register; byte registers 4..7 are AH..BH unless rex. 32-bit writes clear the upper half. */
u64 reg_get(const struct ex *e, unsigned n, unsigned size);
void reg_set(struct ex *e, unsigned n, u64 v, unsigned size);
unsigned reg_of_modrm(const struct insn *in); /* ModRM.reg with its REX bit */
unsigned rm_of_modrm(const struct insn *in);  /* ModRM.rm with its REX bit */

/* Memory of 1..8 bytes as a number. */
enum emul_result emul_read(struct ex *e, enum seg s, u64 off, u64 *v, unsigned size, enum emul_access a);
enum emul_result emul_write(struct ex *e, enum seg s, u64 off, u64 v, unsigned size);

enum emul_result operand_load(struct ex *e, enum kind k, u64 *v, enum emul_access a);
enum emul_result operand_store(struct ex *e, enum kind k, u64 v);
enum emul_result emul_raise(struct ex *e, u8 vector); /* with error code 0 where the vector has one */

/* Arithmetic. Operands are zero-extended from size bytes, results too; *fl is rflags, of which only what the
 * instruction defines (and sometimes what processors commonly leave in what it does not) changes. */
u64 alu(enum op op, u64 a, u64 b, unsigned size, u64 *fl);
u64 alu_shift(enum op op, u64 a, u64 b, unsigned count, unsigned size, u64 *fl); /* b: SHLD and SHRD shift it in */
u64 alu_mul(bool sign, u64 a, u64 b, unsigned size, u64 *hi, u64 *fl);
/* hi:lo / d; false where the result is not defined (#DE). */
bool alu_div(bool sign, u64 hi, u64 lo, u64 d, unsigned size, u64 *quot, u64 *rem);
void alu_szp(u64 res, unsigned size, u64 *fl); /* sets SF, ZF and PF */
bool alu_cond(unsigned cc, u64 fl);

#endif
