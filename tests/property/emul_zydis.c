/* SPDX-License-Identifier: MIT */
/* link: -lZydis */
/*
 * Decoding against Zydis. What the emulator accepts, Zydis must decode to the same length, operand size and memory
 * operand; what the emulator calls #UD, Zydis must reject. What the emulator does not know is not compared.
 */
#include <Zydis/Zydis.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86/emul/emul.h"
#include "lib/errno.h"

#define ROUNDS 400000

static u64 seed = 0x5eed;

static u32 rnd(void)
{
	seed = seed * 6364136223846793005ul + 1442695040888963407ul;
	return (u32)(seed >> 33);
}

static u32 below(u32 n) { return rnd() % n; }

/* Up to four prefixes, then an opcode of any map, then noise. */
static void make_bytes(u8 *b, size_t n, enum gcpu_mode mode)
{
	static const u8 prefixes[] = {0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
	size_t at = 0;

	for (size_t i = 0; i < n; i++)
		b[i] = (u8)rnd();
	for (u32 k = below(3) ? below(3) : below(13); k && at < n; k--)
		b[at++] = prefixes[below(sizeof(prefixes))];
	if (mode == MODE_64 && below(2) && at < n)
		b[at++] = 0x40 | (u8)below(16);
	if (below(2) && at < n)
		b[at++] = 0x0f;
	if (!below(20) && at + 1 < n) {
		b[at++] = 0x38;
		b[at] = 0xf0 | (u8)below(2);
	}
}

static void report(const u8 *b, enum gcpu_mode mode, const char *what, const struct insn *in,
		   const ZydisDecodedInstruction *z)
{
	fprintf(stderr, "mode %d, %s:", mode, what);
	for (int i = 0; i < 15; i++)
		fprintf(stderr, " %02x", b[i]);
	fprintf(stderr, "\n  map %u opcode %02x len %u operand %u address %u\n", in->map, in->opcode, in->len,
		in->opsize, in->adsize);
	if (z)
		fprintf(stderr, "  zydis: %s len %u operand %u address %u\n", ZydisMnemonicGetString(z->mnemonic),
			z->length, z->operand_width, z->address_width);
}

static u8 reg_number(ZydisRegister r)
{
	if (r == ZYDIS_REGISTER_NONE)
		return EMUL_NOREG;
	if (r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP)
		return EMUL_RIP;
	return (u8)ZydisRegisterGetId(r);
}

static const char *compare_memory(const struct insn *in, const ZydisDecodedOperand *op)
{
	u8 index = reg_number(op->mem.index);

	/* Zydis 4.0 takes SIB base 101 of mod 00 for R13D with 32-bit addresses and REX.B; the manuals (and Zydis with
	 * 64-bit addresses) say that there is no base. */
	if (op->mem.base == ZYDIS_REGISTER_R13D && in->modrm >> 6 == 0)
		return in->base == EMUL_NOREG ? NULL : "base";
	if (reg_number(op->mem.base) != in->base || index != in->index)
		return "base or index";
	if (index != EMUL_NOREG && op->mem.scale != 1u << in->scale)
		return "scale";
	if ((u64)op->mem.disp.value != (u64)in->disp &&
	    (in->has_modrm || ((u64)op->mem.disp.value ^ (u64)in->disp) << (64 - 8 * in->adsize)))
		return "displacement";
	if (op->mem.type == ZYDIS_MEMOP_TYPE_MEM && op->mem.segment - ZYDIS_REGISTER_ES != in->seg)
		return "segment";
	if (op->mem.type == ZYDIS_MEMOP_TYPE_MEM && in->msize && op->size != 8u * in->msize)
		return "memory size";
	return NULL;
}

/* Where Zydis has its own idea of the operand size, which no execution depends on. */
static bool own_width(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	for (unsigned i = 0; i < z->operand_count_visible; i++)
		if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(ops[i].reg.value) == ZYDIS_REGCLASS_XMM)
			return true;
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_INVLPG:
	case ZYDIS_MNEMONIC_MOVNTI:
	case ZYDIS_MNEMONIC_INSD:
	case ZYDIS_MNEMONIC_OUTSD:
	case ZYDIS_MNEMONIC_SGDT:
	case ZYDIS_MNEMONIC_SIDT:
	case ZYDIS_MNEMONIC_LGDT:
	case ZYDIS_MNEMONIC_LIDT:
		return true;
	default:
		return false;
	}
}

/* #UD by definition: Zydis names it. */
static bool is_ud(const ZydisDecodedInstruction *z)
{
	return z->mnemonic == ZYDIS_MNEMONIC_UD0 || z->mnemonic == ZYDIS_MNEMONIC_UD1 ||
	       z->mnemonic == ZYDIS_MNEMONIC_UD2;
}

static const char *compare(const struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	if (z->length != in->len)
		return "length";
	if (z->address_width != 8 * in->adsize)
		return "address size";
	if (!own_width(z, ops) && z->operand_width != 8 * in->opsize)
		return "operand size";
	for (unsigned i = 0; i < z->operand_count_visible; i++)
		if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY && (in->has_modrm || in->has_mem))
			return in->has_mem ? compare_memory(in, &ops[i]) : "memory operand not seen";
	return in->has_mem ? "memory operand that is none" : NULL;
}

static bool check_one(const ZydisDecoder *dec, const u8 *b, enum gcpu_mode mode)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	bool ok = ZYAN_SUCCESS(ZydisDecoderDecodeFull(dec, b, INSN_MAX, &z, ops));
	struct insn in, part;
	int err = insn_decode(b, INSN_MAX, mode, &in);
	const char *what = NULL;

	if (err == -EINVAL)
		what = ok && !is_ud(&z) ? "called undefined" : NULL;
	else if (err == 0)
		what = ok ? compare(&in, &z, ops) : "accepted";
	else if (err != -ENOSYS)
		what = "result";
	for (size_t n = 0; !err && !what && n < in.len; n++)
		if (insn_decode(b, n, mode, &part) != -EAGAIN)
			what = "cut short";
	if (what)
		report(b, mode, what, &in, ok ? &z : NULL);
	return !what;
}

static void agrees_with_zydis(void **state)
{
	static const ZydisMachineMode modes[] = {
		[MODE_REAL] = ZYDIS_MACHINE_MODE_REAL_16,
		[MODE_16] = ZYDIS_MACHINE_MODE_LEGACY_16,
		[MODE_32] = ZYDIS_MACHINE_MODE_LEGACY_32,
		[MODE_64] = ZYDIS_MACHINE_MODE_LONG_64,
	};
	unsigned failures = 0;

	(void)state;
	for (enum gcpu_mode mode = MODE_REAL; mode <= MODE_64; mode++) {
		ZydisDecoder dec;
		u8 b[INSN_MAX];

		ZydisDecoderInit(&dec, modes[mode],
				 mode == MODE_64   ? ZYDIS_STACK_WIDTH_64
				 : mode == MODE_32 ? ZYDIS_STACK_WIDTH_32
						   : ZYDIS_STACK_WIDTH_16);
		/* Without CET, 3E before an indirect branch is a segment override. */
		ZydisDecoderEnableMode(&dec, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
		for (unsigned i = 0; i < ROUNDS && failures < 20; i++) {
			make_bytes(b, sizeof(b), mode);
			failures += !check_one(&dec, b, mode);
		}
	}
	assert_int_equal(failures, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(agrees_with_zydis)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
