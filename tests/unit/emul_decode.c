/* SPDX-License-Identifier: MIT */
/* Decoding: encodings that are easy to get wrong, one line each. tests/property/emul_zydis.c has the bulk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86/emul/emul.h"
#include "lib/errno.h"

#define BYTES(...)   .b = {__VA_ARGS__}, .n = sizeof((u8[]){__VA_ARGS__})
#define MEM(s, b, i) .seg = SEG_##s, .base = b, .index = i, .mem = true
#define NONE         EMUL_NOREG

static const struct sample {
	enum gcpu_mode mode;
	u8 b[16];
	size_t n;
	int err;
	u8 opsize, adsize;
	bool mem;
	u8 seg, base, index, scale, msize;
	s64 disp;
	u64 imm;
} samples[] = {
	/* mov [bp+si-2], al: SS; mov [1234h], ax: DS, no base */
	{MODE_REAL, BYTES(0x88, 0x42, 0xfe), 0, 1, 2, MEM(SS, R_BP, R_SI), .msize = 1, .disp = -2},
	{MODE_REAL, BYTES(0xa3, 0x34, 0x12), 0, 2, 2, MEM(DS, NONE, NONE), .msize = 2, .disp = 0x1234},
	{MODE_REAL, BYTES(0x66, 0x67, 0x89, 0x04, 0x8d, 0, 0, 0, 1), 0, 4, 4, MEM(DS, NONE, R_CX), .scale = 2,
	 .msize = 4, .disp = 0x1000000},
	/* mov eax, [esp]: SS by its base; mov eax, [ebp*2+disp32]: DS, an index is no base */
	{MODE_32, BYTES(0x8b, 0x04, 0x24), 0, 4, 4, MEM(SS, R_SP, NONE), .msize = 4},
	{MODE_32, BYTES(0x8b, 0x04, 0x6d, 1, 0, 0, 0), 0, 4, 4, MEM(DS, NONE, R_BP), .scale = 1, .msize = 4, .disp = 1},
	/* rip-relative with an immediate behind; 67 makes it eip-relative */
	{MODE_64, BYTES(0xc7, 0x05, 0x10, 0, 0, 0, 0xff, 0xff, 0xff, 0xff), 0, 4, 8, MEM(DS, EMUL_RIP, NONE),
	 .msize = 4, .disp = 0x10, .imm = ~0ull},
	/* r12 as base needs a SIB, r13 a displacement, r12 as index is one */
	{MODE_64, BYTES(0x49, 0x8b, 0x04, 0x24), 0, 8, 8, MEM(DS, R_12, NONE), .msize = 8},
	{MODE_64, BYTES(0x49, 0x8b, 0x45, 0x00), 0, 8, 8, MEM(DS, R_13, NONE), .msize = 8},
	{MODE_64, BYTES(0x4a, 0x8b, 0x04, 0x20), 0, 8, 8, MEM(DS, R_AX, R_12), .msize = 8},
	/* a DS-like override is ignored in 64-bit mode, also after GS; a REX before another prefix too */
	{MODE_64, BYTES(0x65, 0x3e, 0x8b, 0x00), 0, 4, 8, MEM(GS, R_AX, NONE), .msize = 4},
	{MODE_64, BYTES(0x48, 0x66, 0x8b, 0x00), 0, 2, 8, MEM(DS, R_AX, NONE), .msize = 2},
	/* REX.W over 66; movabs; mov r64, imm64; moffs of address size */
	{MODE_64, BYTES(0x66, 0x48, 0x05, 0, 0, 0, 0x80), 0, 8, 8, .imm = 0xffffffff80000000},
	{MODE_64, BYTES(0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8), 0, 8, 8, .imm = 0x0807060504030201},
	{MODE_64, BYTES(0xa2, 1, 2, 3, 4, 5, 6, 7, 8), 0, 1, 8, MEM(DS, NONE, NONE), .msize = 1,
	 .disp = 0x0807060504030201},
	{MODE_64, BYTES(0x67, 0xa1, 1, 2, 3, 0xf4), 0, 4, 4, MEM(DS, NONE, NONE), .msize = 4, .disp = 0xf4030201},
	/* memory narrower or wider than the operand: movzx, movsxd, mov m, sreg, cmpxchg16b, far pointer, movnti, lea
	 */
	{MODE_64, BYTES(0x48, 0x0f, 0xb6, 0x00), 0, 8, 8, MEM(DS, R_AX, NONE), .msize = 1},
	{MODE_64, BYTES(0x48, 0x63, 0x00), 0, 8, 8, MEM(DS, R_AX, NONE), .msize = 4},
	{MODE_32, BYTES(0x8c, 0x18), 0, 4, 4, MEM(DS, R_AX, NONE), .msize = 2},
	{MODE_64, BYTES(0xf0, 0x48, 0x0f, 0xc7, 0x08), 0, 8, 8, MEM(DS, R_AX, NONE), .msize = 16},
	{MODE_32, BYTES(0xff, 0x28), 0, 4, 4, MEM(DS, R_AX, NONE), .msize = 6},
	{MODE_64, BYTES(0x48, 0x0f, 0xc3, 0x00), 0, 8, 8, MEM(DS, R_AX, NONE), .msize = 8},
	{MODE_64, BYTES(0x66, 0x0f, 0xe7, 0x00), 0, 2, 8, MEM(DS, R_AX, NONE), .msize = 16},
	{MODE_32, BYTES(0x8d, 0x00), 0, 4, 4, MEM(DS, R_AX, NONE)},
	/* ports are at most 32 bits wide; control registers are of the mode's width; stack operations default to 64
	   bits */
	{MODE_64, BYTES(0x48, 0xef), 0, 4, 8},
	{MODE_64, BYTES(0x66, 0x0f, 0x22, 0xd8), 0, 8, 8},
	{MODE_32, BYTES(0x0f, 0x22, 0x18), 0, 4, 4}, /* ModRM.mod does not matter */
	{MODE_64, BYTES(0x66, 0x50), 0, 2, 8},
	{MODE_64, BYTES(0x6a, 0xff), 0, 8, 8, .imm = ~0ull},
	{MODE_REAL, BYTES(0xea, 0, 0x7c, 0, 0xf0), 0, 2, 2, .imm = 0xf0007c00},
	{MODE_REAL, BYTES(0xc8, 0x10, 0, 0), 0, 2, 2, .imm = 0x10},
	{MODE_64, BYTES(0xe8, 0xfb, 0xff, 0xff, 0xff), 0, 8, 8, .imm = -5ull},
	/* #UD */
	{MODE_64, BYTES(0x0f, 0x0b), -EINVAL},
	{MODE_64, BYTES(0x06), -EINVAL},
	{MODE_32, BYTES(0xf0, 0x01, 0xc0), -EINVAL}, /* LOCK on a register */
	{MODE_32, BYTES(0xf0, 0x39, 0x00), -EINVAL}, /* LOCK CMP */
	{MODE_32, BYTES(0xf0, 0x8b, 0x00), -EINVAL}, /* LOCK MOV */
	{MODE_32, BYTES(0x8e, 0xc8), -EINVAL},       /* MOV CS */
	{MODE_32, BYTES(0x8e, 0xf0), -EINVAL},       /* segment register 6 */
	{MODE_64, BYTES(0x0f, 0x20, 0xc8), -EINVAL}, /* CR1 */
	{MODE_32, BYTES(0x8d, 0xc0), -EINVAL},       /* LEA of a register */
	{MODE_32, BYTES(0xff, 0xe8), -EINVAL},       /* far jump to a register */
	{MODE_32, BYTES(0x0f, 0xc7, 0xc8), -EINVAL}, /* CMPXCHG8B of a register */
	{MODE_32, BYTES(0xfe, 0xd0), -EINVAL},
	{MODE_32, BYTES(0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26),
	 -EINVAL},
	{MODE_32, BYTES(0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0xb8, 0, 0, 0, 0), 0, 4, 4},
	{MODE_32, BYTES(0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0x26, 0xb8, 0, 0, 0), -EINVAL},
	/* valid, and not known */
	{MODE_32, BYTES(0xd8, 0x00), -ENOSYS},                   /* x87 */
	{MODE_64, BYTES(0xc5, 0xf8, 0x28, 0x00), -ENOSYS},       /* VEX */
	{MODE_32, BYTES(0xc5, 0xf8, 0x28, 0x00), -ENOSYS},       /* VEX outside 64-bit mode, where LDS has memory */
	{MODE_64, BYTES(0xf3, 0x0f, 0xbc, 0xc0), -ENOSYS},       /* TZCNT or BSF, as the CPU likes */
	{MODE_64, BYTES(0x66, 0xe8, 0, 0, 0, 0), -ENOSYS},       /* the vendors disagree */
	{MODE_64, BYTES(0x48, 0x0f, 0xb2, 0x00), -ENOSYS},       /* the same */
	{MODE_64, BYTES(0x0f, 0x6f, 0x00), -ENOSYS},             /* MMX */
	{MODE_64, BYTES(0xf2, 0x0f, 0x38, 0xf1, 0xc0), -ENOSYS}, /* CRC32 */
	{MODE_64, BYTES(0x0f, 0x01, 0xc1), -ENOSYS},             /* VMCALL */
	{MODE_64, BYTES(0x66, 0x0f, 0xc8), -ENOSYS},             /* BSWAP of 16 bits */
};

static void decodes(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		const struct sample *s = &samples[i];
		struct insn in;
		int err = insn_decode(s->b, s->n, s->mode, &in);

		if (err != s->err)
			print_message("sample %zu: %d\n", i, err);
		assert_int_equal(err, s->err);
		if (err)
			continue;
		if (in.len != s->n || in.opsize != s->opsize || in.has_mem != s->mem)
			print_message("sample %zu: length %d\n", i, in.len);
		assert_int_equal(in.len, s->n);
		assert_int_equal(in.opsize, s->opsize);
		assert_int_equal(in.adsize, s->adsize);
		assert_int_equal(in.has_mem, s->mem);
		assert_int_equal(in.imm, s->imm);
		if (!s->mem)
			continue;
		assert_int_equal(in.seg, s->seg);
		assert_int_equal(in.base, s->base);
		assert_int_equal(in.index, s->index);
		assert_int_equal(in.scale, s->scale);
		assert_int_equal(in.msize, s->msize);
		assert_int_equal(in.disp, s->disp);
	}
}

static void asks_for_more(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++)
		for (size_t n = 0; !samples[i].err && n < samples[i].n; n++) {
			struct insn in;

			assert_int_equal(insn_decode(samples[i].b, n, samples[i].mode, &in), -EAGAIN);
		}
}

static u64 ea(enum gcpu_mode mode, const u8 *b, const struct gregs *r)
{
	struct insn in;

	assert_int_equal(insn_decode(b, INSN_MAX, mode, &in), 0);
	return insn_ea(&in, r);
}

static void addresses(void **state)
{
	struct gregs r = {.rip = 0x1000};

	r.r[R_BX] = 0xfffe;
	r.r[R_SI] = 3;
	assert_int_equal(ea(MODE_REAL, (u8[15]){0x8b, 0x00}, &r), 1); /* wraps in its segment */
	r.r[R_AX] = 0xfffffffffffffff0;
	r.r[R_CX] = 8;
	assert_int_equal(ea(MODE_64, (u8[15]){0x8b, 0x44, 0xc8, 0x10}, &r), 0x40);               /* rax + 8 rcx + 16 */
	assert_int_equal(ea(MODE_64, (u8[15]){0x67, 0x8b, 0x40, 0x00}, &r), 0xfffffff0);         /* eax */
	assert_int_equal(ea(MODE_64, (u8[15]){0x8b, 0x05, 0xfa, 0xff, 0xff, 0xff}, &r), 0x1000); /* rip + 6 - 6 */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decodes),
		cmocka_unit_test(asks_for_more),
		cmocka_unit_test(addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
