/* SPDX-License-Identifier: MIT */
/*
 * The instruction emulator: decode is pure (bytes in, instruction out), execute reaches the world through operations.
 *
 *     bytes --insn_decode--> struct insn --insn_exec(gregs, ops)--> registers changed, memory and ports accessed
 *
 * insn_exec either completes (registers updated, rip advanced) or leaves every register as it was, so that the caller
 * may inject the fault, or run it again. A REP string instruction completes a bounded batch, leaves rip on itself and
 * returns EMUL_AGAIN while iterations are left.
 */
#pragma once

#include "lib/types.h"

enum greg { R_AX, R_CX, R_DX, R_BX, R_SP, R_BP, R_SI, R_DI, R_8, R_9, R_10, R_11, R_12, R_13, R_14, R_15, GREGS };

struct gregs {
	u64 r[GREGS];
	u64 rip;
	u64 rflags;
};

/* Segment registers in the order of their instruction encoding. */
enum seg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEGS_USER, SEG_LDTR = SEGS_USER, SEG_TR, SEGS };

/* Execution mode: selects default operand and address size. */
enum gcpu_mode { MODE_REAL, MODE_16, MODE_32, MODE_64 };

#define INSN_MAX 15

/*
 * The decoded instruction:
 *     len             1..15
 *     opsize, adsize  operand size, 1, 2, 4 or 8 bytes; address size, 2, 4 or 8
 *     mode            enum gcpu_mode it was decoded for
 *     map, opcode     opcode map (0: one byte, 1: 0F), and the opcode in it
 *     rex, rep        0 or 0x40..0x4f; 0, 0xf2 or 0xf3
 *     seg             segment of the memory operand, overrides applied: enum seg
 *     base, index     its registers; EMUL_NOREG: none; base EMUL_RIP: relative to the next instruction
 *     scale, disp     its index is shifted by 0..3; its displacement
 *     msize           bytes that it has; 0: none, or only its address matters
 *     imm             sign- or zero-extended; of a far pointer the selector, of ENTER the level is above the rest
 *     row, op         in the decoder's table; enum op
 */
struct insn {
	u8 len, opsize, adsize, mode;
	u8 map, opcode, modrm;
	u8 rex, rep, seg;
	bool lock, has_modrm, has_mem, osz;
	u8 base, index, scale, msize;
	s64 disp;
	u64 imm;
	u16 row;
	u8 op;
};

#define EMUL_NOREG 0xff
#define EMUL_RIP   0xfe

/* Returns 0; -EAGAIN when more bytes are needed than n (n < 15); -EINVAL for an encoding that is #UD or longer than 15;
 * -ENOSYS for a valid encoding that the emulator does not know. */
int insn_decode(const u8 *bytes, size_t n, enum gcpu_mode mode, struct insn *out);

/* The linear-or-segmented memory operand's offset within its segment (registers only, before the segment base). */
u64 insn_ea(const struct insn *in, const struct gregs *r);

/*
 * EMUL_OK: done, rip advanced. EMUL_AGAIN: REP batch done, rip unchanged, more to do. EMUL_FAULT: an operation has
 * noted an exception for the guest. EMUL_RETRY: an operation asked to resume the guest without a change. EMUL_UNKNOWN:
 * not an instruction that the emulator executes; nothing changed.
 */
enum emul_result { EMUL_OK, EMUL_AGAIN, EMUL_FAULT, EMUL_RETRY, EMUL_UNKNOWN };

enum emul_access { EMUL_READ, EMUL_WRITE, EMUL_RMW /* read with intent to write: checks write permission */ };

/*
 * What an operation returns: EMUL_OK, EMUL_FAULT with the exception noted, EMUL_RETRY or EMUL_UNKNOWN (stops the
 * guest). Memory operations take a segment and the offset in it; they add the base, check limits and canonical form
 * (#GP, #SS), and translate. size is 1..16 for plain accesses.
 */
struct emul_ops {
	/* Notes an exception, with error code 0 where the vector has one: EMUL_FAULT. */
	enum emul_result (*raise)(void *ctx, u8 vector);
	enum emul_result (*access)(void *ctx, enum seg s, u64 off, void *buf, unsigned size, enum emul_access a);
	/* Atomic compare-and-exchange for LOCKed and CMPXCHG forms; *done says whether old matched, old gets what was
	 * there. */
	enum emul_result (*cmpxchg)(void *ctx, enum seg s, u64 off, void *old, const void *new, unsigned size,
				    bool *done);
	enum emul_result (*io)(void *ctx, u16 port, unsigned size, u32 *val, bool write);
	/* Control registers, and loading of segment registers with all checks of the mode. */
	enum emul_result (*cr)(void *ctx, unsigned n, u64 *val, bool write);
	u16 (*get_sel)(void *ctx, enum seg s);
	enum emul_result (*load_seg)(void *ctx, enum seg s, u16 sel);
	unsigned (*cpl)(void *ctx);
	unsigned (*stack_size)(void *ctx); /* bytes of the stack pointer that count outside 64-bit mode: 2, 4 */
	/*
	 * What concerns the whole vCPU, told apart by insn: CPUID, HLT, RDTSC, RDPMC, RDMSR, WRMSR, INVD, WBINVD,
	 * INVLPG, SGDT, SIDT, LGDT, LIDT, MOV from and to debug registers, INT3, INT n, and INTO if it is taken; or
	 * EMUL_UNKNOWN. It works on a copy of the registers, with rip on the next instruction, that counts only if it
	 * returns EMUL_OK.
	 */
	enum emul_result (*system)(void *ctx, const struct insn *in, struct gregs *r);
	/* Reads or writes an xmm register, for moves to and from MMIO. */
	void (*xmm)(void *ctx, unsigned n, void *val, bool write);
};

/*
 * Executes in on r (which holds rip of the instruction itself). A REP batch is at most 4096 iterations and may be
 * fewer; if one of them does not return EMUL_OK, r has the state of those completed before, as hardware leaves it.
 *
 * The emulator itself raises #GP(0) where a privileged instruction meets CPL > 0, where IOPL forbids CLI, STI, or
 * PUSHF and POPF in virtual-8086 mode, #DE and #BR. Port permissions, CR4.TSD and the like are for the operations, and
 * so is what is found only when the next instruction is fetched: a branch target beyond the limit or not canonical. The
 * caller deals with single steps (TF), and with the interrupt shadow: STI (opcode FB) that has set IF; load_seg of SS.
 */
enum emul_result insn_exec(const struct insn *in, struct gregs *r, const struct emul_ops *ops, void *ctx);
