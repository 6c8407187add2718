/* SPDX-License-Identifier: MIT */
/* link: -lunicorn */
/*
 * Execution against Unicorn: random instructions on random registers and memory, one at a time, in real mode, 32-bit
 * and 64-bit mode. Registers, defined flags, selectors, xmm registers and all of memory must agree afterwards.
 *
 *     10000 ........ 2ffff   data: all segments but CS begin here and there in it
 *     30000 ........ 3ffff   code: each instruction at an address of its own
 *
 * An instruction that faults in the emulator, because it reaches outside, is not compared.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unicorn/unicorn.h>

#include <cmocka.h>

#include "arch/x86/emul/ops.h"
#include "lib/errno.h"

#define ROUNDS   10000
#define SLOT     32u
#define SLOTS    2000
#define DATA     0x10000u
#define CODE     0x30000u
#define TOP      0x40000u
#define MAX_FAIL 15

static u64 seed = 0x5eed;

static u32 rnd(void)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (u32)(seed >> 33);
}

static u32 below(u32 n) { return rnd() % n; }
static u64 rnd64(void) { return (u64)rnd() << 40 ^ (u64)rnd() << 20 ^ rnd(); }

/* Unicorn's own leaks are not ours. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libunicorn"; }

/* The emulator's side. */
struct world {
	enum gcpu_mode mode;
	u8 mem[TOP];
	u16 sel[SEGS];
	u8 xmm[16][16];
	bool outside; /* it reached for what Unicorn does not have */
	u8 vector;    /* of the last exception */
};

static u64 seg_base(const struct world *w, enum seg s)
{
	if (w->mode == MODE_REAL)
		return w->sel[s] * 16u;
	if (w->mode == MODE_64 && s >= SEG_FS)
		return s == SEG_FS ? 0x1000 : 0x2000;
	return 0;
}

static u8 *at(struct world *w, enum seg s, u64 off, unsigned size, u32 end)
{
	u64 lin = seg_base(w, s) + off;

	if ((w->mode == MODE_REAL && off + size > 0x10000) || lin < DATA || lin >= end || lin + size > end) {
		w->outside = true;
		return NULL;
	}
	return w->mem + lin;
}

static enum emul_result w_raise(void *ctx, u8 vector)
{
	((struct world *)ctx)->vector = vector;
	return EMUL_FAULT;
}

static enum emul_result w_access(void *ctx, enum seg s, u64 off, void *buf, unsigned size, enum emul_access a)
{
	u8 *p = at(ctx, s, off, size, a == EMUL_READ ? TOP : CODE);

	if (p)
		memcpy(a == EMUL_WRITE ? p : buf, a == EMUL_WRITE ? buf : p, size);
	return p ? EMUL_OK : EMUL_FAULT;
}

static enum emul_result w_cmpxchg(void *ctx, enum seg s, u64 off, void *old, const void *new, unsigned size, bool *done)
{
	u8 *p = at(ctx, s, off, size, CODE);

	if (!p)
		return EMUL_FAULT;
	*done = !memcmp(p, old, size);
	if (*done)
		memcpy(p, new, size);
	else
		memcpy(old, p, size);
	return EMUL_OK;
}

static u16 w_get_sel(void *ctx, enum seg s) { return ((struct world *)ctx)->sel[s]; }

static enum emul_result w_load_seg(void *ctx, enum seg s, u16 sel)
{
	((struct world *)ctx)->sel[s] = sel;
	return EMUL_OK;
}

static unsigned w_cpl(void *ctx) { return 0; }
static unsigned w_stack_size(void *ctx) { return ((struct world *)ctx)->mode == MODE_REAL ? 2 : 4; }

static void w_xmm(void *ctx, unsigned n, void *val, bool write)
{
	u8 *xmm = ((struct world *)ctx)->xmm[n];

	memcpy(write ? xmm : val, write ? val : xmm, 16);
}

static const struct emul_ops ops = {
	.raise = w_raise,
	.access = w_access,
	.cmpxchg = w_cmpxchg,
	.get_sel = w_get_sel,
	.load_seg = w_load_seg,
	.cpl = w_cpl,
	.stack_size = w_stack_size,
	.xmm = w_xmm,
};

/* Unicorn's side. */
static const int gpr32[GREGS] = {UC_X86_REG_EAX, UC_X86_REG_ECX, UC_X86_REG_EDX, UC_X86_REG_EBX,
				 UC_X86_REG_ESP, UC_X86_REG_EBP, UC_X86_REG_ESI, UC_X86_REG_EDI};
static const int gpr64[GREGS] = {UC_X86_REG_RAX, UC_X86_REG_RCX, UC_X86_REG_RDX, UC_X86_REG_RBX,
				 UC_X86_REG_RSP, UC_X86_REG_RBP, UC_X86_REG_RSI, UC_X86_REG_RDI,
				 UC_X86_REG_R8,  UC_X86_REG_R9,  UC_X86_REG_R10, UC_X86_REG_R11,
				 UC_X86_REG_R12, UC_X86_REG_R13, UC_X86_REG_R14, UC_X86_REG_R15};
static const int seg_regs[SEGS_USER] = {UC_X86_REG_ES, UC_X86_REG_CS, UC_X86_REG_SS,
					UC_X86_REG_DS, UC_X86_REG_FS, UC_X86_REG_GS};

static unsigned gprs(enum gcpu_mode mode) { return mode == MODE_64 ? 16 : 8; }

static uc_engine *open_unicorn(struct world *w)
{
	static const uc_mode modes[] = {[MODE_REAL] = UC_MODE_16, [MODE_32] = UC_MODE_32, [MODE_64] = UC_MODE_64};
	uc_engine *uc;

	assert_int_equal(uc_open(UC_ARCH_X86, modes[w->mode], &uc), UC_ERR_OK);
	assert_int_equal(uc_ctl_set_cpu_model(uc, UC_CPU_X86_HASWELL), UC_ERR_OK);
	if (w->mode == MODE_32) {
		u64 cr4 = 0x200; /* OSFXSR */

		uc_reg_write(uc, UC_X86_REG_CR4, &cr4);
	}
	assert_int_equal(uc_mem_map(uc, DATA, TOP - DATA, UC_PROT_ALL), UC_ERR_OK);
	for (u32 i = DATA; i < CODE; i++)
		w->mem[i] = (u8)rnd();
	uc_mem_write(uc, DATA, w->mem + DATA, TOP - DATA);
	if (w->mode == MODE_64) {
		u64 fs = seg_base(w, SEG_FS), gs = seg_base(w, SEG_GS);

		uc_reg_write(uc, UC_X86_REG_FS_BASE, &fs);
		uc_reg_write(uc, UC_X86_REG_GS_BASE, &gs);
	}
	return uc;
}

static void set_state(uc_engine *uc, struct world *w, const struct gregs *r)
{
	static const u16 sels[SEGS_USER] = {0x1100, CODE / 16, 0x1200, 0x1000, 0x1300, 0x1400};
	const int *ids = w->mode == MODE_64 ? gpr64 : gpr32;

	for (unsigned i = 0; i < gprs(w->mode); i++)
		uc_reg_write(uc, ids[i], &r->r[i]);
	uc_reg_write(uc, UC_X86_REG_EFLAGS, &r->rflags);
	for (unsigned i = 0; w->mode == MODE_REAL && i < SEGS_USER; i++) {
		w->sel[i] = sels[i];
		uc_reg_write(uc, seg_regs[i], &sels[i]);
	}
	for (int i = 0; i < (int)gprs(w->mode); i++)
		uc_reg_write(uc, UC_X86_REG_XMM0 + i, w->xmm[i]);
}

/* Instructions and registers that have something to do with each other. */
static void make_bytes(u8 *b, enum gcpu_mode mode)
{
	static const u8 prefixes[] = {0x66, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
	static const u8 old[] = {0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x62, 0xc8, 0xc9, 0xd4, 0xd5, 0xd7};
	unsigned n = 0;

	for (unsigned i = 0; i < INSN_MAX; i++)
		b[i] = (u8)rnd();
	for (u32 k = below(2) * below(4); k; k--)
		b[n++] = prefixes[below(sizeof(prefixes))];
	if (mode == MODE_64 && below(2))
		b[n++] = 0x40 | (u8)below(16);
	if (!below(3))
		b[n++] = 0x0f;
	if (mode != MODE_64 && !below(8)) /* what only old code uses */
		b[n] = old[below(sizeof(old))];
	else if (!below(30)) {
		b[n++] = 0x0f;
		b[n++] = 0x38;
		b[n] = 0xf0 | (u8)below(2);
	}
}

static u64 make_value(void)
{
	static const u64 edges[] = {0,      1,          2,          0x7f,  0x80,       0xff,      0x7fff,
				    0x8000, 0x7fffffff, 0x80000000, ~0ull, ~0ull >> 1, 1ull << 63};

	switch (below(4)) {
	case 0:
		return edges[below(ARRAY_SIZE(edges))];
	case 1:
		return rnd64();
	case 2:
		return below(64);
	default:
		return DATA + 0x4000 + below(0x8000);
	}
}

static void make_regs(const struct insn *in, enum gcpu_mode mode, struct gregs *r)
{
	enum op op = in->op;
	u64 keep = mode == MODE_64 ? ~0ull : 0xffffffff, ea;

	for (unsigned i = 0; i < GREGS; i++)
		r->r[i] = i < gprs(mode) ? make_value() & keep : 0;
	r->r[R_SP] = mode == MODE_REAL ? below(0xff00) + 0x40 : DATA + 0x8000 + below(0x8000);
	r->rflags = 2 | RFLAGS_IF | (rnd() & (RFLAGS_ARITH | (below(4) ? 0 : RFLAGS_DF)));
	if (op >= OP_LODS && op <= OP_INS) {
		r->r[R_SI] = (mode == MODE_REAL ? 0x4000 : DATA + 0x4000) + below(0x4000);
		r->r[R_DI] = (mode == MODE_REAL ? 0x4000 : DATA + 0x4000) + below(0x4000);
		r->r[R_CX] = below(12);
	}
	if (in->has_mem && in->base < GREGS) {
		ea = insn_ea(in, r);
		r->r[in->base] += (mode == MODE_REAL ? 0x3000 : DATA + 0x6000) + below(0x6000) - ea;
		r->r[in->base] &= keep;
	}
}

/*
 * Prefixes that Unicorn takes in its own way, against the manuals and Zydis: a REX that another prefix follows, and in
 * 64-bit mode a DS-like override after FS or GS, both of which are ignored by hardware; F2 and F3, of which the last
 * counts; 66 with F2 or F3 as the mandatory prefix, where 66 does not count.
 */
static bool odd_prefixes(const struct insn *in, const u8 *b)
{
	bool fs = false, rex = false;
	u8 rep = 0;

	for (unsigned i = 0; i < in->len; i++) {
		bool prefix = b[i] && strchr("\x66\x67\xf0\xf2\xf3\x26\x2e\x36\x3e\x64\x65", b[i]);

		if ((b[i] & 0xfe) == 0xf2) {
			if (rep && rep != b[i])
				return true;
			rep = b[i];
		}
		if (in->mode != MODE_64 && !prefix)
			break;
		if (rex && (prefix || (b[i] & 0xf0) == 0x40))
			return true;
		rex = in->mode == MODE_64 && (b[i] & 0xf0) == 0x40;
		if (!prefix && !rex)
			break;
		if (in->mode == MODE_64 && fs && strchr("\x26\x2e\x36\x3e", b[i]))
			return true;
		fs |= (b[i] & 0xfe) == 0x64;
	}
	return in->osz && in->rep && in->op == OP_MOVX;
}

/* What is not compared. */
static bool excluded(const struct insn *in, enum gcpu_mode mode)
{
	const struct opcode *row = &emul_rows[in->row];

	if (in->op == OP_TEST && in->has_modrm && in->map == 0 && in->opcode >= 0xf6 && (in->modrm >> 3 & 7) == 1)
		return true; /* Unicorn does not know the second encoding of TEST */
	if (in->op == OP_MOV && (in->opcode & 0xfe) == 0xc6 && in->rex & 4)
		return true; /* Unicorn takes REX.R for a part of the opcode */
	if (in->op == OP_NEG && in->lock)
		return true; /* Unicorn has the flags wrong */
	if (in->op == OP_MOVX && mode == MODE_REAL)
		return true; /* Unicorn has no SSE there */
	if (in->op == OP_NOP)
		return true; /* Unicorn does not know all hints */
	if ((in->op == OP_RET || in->op == OP_RETF) && in->imm >= 0x8000)
		return true; /* Unicorn takes the count as signed */
	if ((in->op == OP_LAHF || in->op == OP_SAHF) && in->rex)
		return true; /* Unicorn takes AH for SPL */
	if ((in->op == OP_SHLD || in->op == OP_SHRD) && in->opsize == 2 && (row->c == K_CL || (in->imm & 31) > 16))
		return true; /* undefined */

	if (row->flags & F_PRIV || in->op >= OP_INTO)
		return true;
	if (in->op == OP_IN || in->op == OP_OUT || in->op == OP_INS || in->op == OP_OUTS)
		return true; /* Unicorn has no ports without hooks; the unit tests have them */
	if (mode != MODE_REAL &&
	    (row->a == K_S || row->a == K_SO || in->op == OP_LDS || in->op == OP_JMPF || in->op == OP_CALLF ||
	     in->op == OP_RETF || row->b == K_S || row->a == K_SYS || row->b == K_SYS))
		return true; /* there are no descriptors */
	return false;
}

static u64 undefined_flags(const struct insn *in, const struct gregs *r)
{
	const struct opcode *row = &emul_rows[in->row];
	bool cl = row->c == K_CL || row->b == K_CL;
	u64 count = (cl ? r->r[R_CX] : in->imm) & (in->opsize == 8 ? 63 : 31);
	u64 shift = (count == 0 ? 0 : RFLAGS_AF) | (count <= 1 ? 0 : RFLAGS_OF) |
		    (count >= in->opsize * 8u ? RFLAGS_CF : 0);

	switch ((enum op)in->op) {
	case OP_AND:
	case OP_OR:
	case OP_XOR:
	case OP_TEST:
		return RFLAGS_AF;
	case OP_ROL:
	case OP_ROR:
	case OP_RCL:
	case OP_RCR:
		return count == 1 ? 0 : RFLAGS_OF;
	case OP_SHL:
	case OP_SHR:
	case OP_SAL:
	case OP_SAR:
	case OP_SHLD:
	case OP_SHRD:
		return shift;
	case OP_BT:
	case OP_BTS:
	case OP_BTR:
	case OP_BTC:
		return RFLAGS_OF | RFLAGS_SF | RFLAGS_AF | RFLAGS_PF;
	case OP_BSF:
	case OP_BSR:
		return RFLAGS_ARITH & ~RFLAGS_ZF;
	case OP_MUL:
	case OP_IMUL:
	case OP_IMUL2:
		return RFLAGS_SF | RFLAGS_ZF | RFLAGS_AF | RFLAGS_PF;
	case OP_DIV:
	case OP_IDIV:
		return RFLAGS_ARITH;
	default:
		return 0;
	}
}

static void report(const struct insn *in, const u8 *b, const char *what, u64 mine, u64 theirs,
		   const struct gregs *before)
{
	fprintf(stderr, "mode %u, %s: mine %llx, unicorn %llx:", in->mode, what, (long long)mine, (long long)theirs);
	for (unsigned i = 0; i < in->len; i++)
		fprintf(stderr, " %02x", b[i]);
	fprintf(stderr, "\n ");
	for (unsigned i = 0; i < gprs((enum gcpu_mode)in->mode); i++)
		fprintf(stderr, " %llx", (long long)before->r[i]);
	fprintf(stderr, " fl %llx\n", (long long)before->rflags);
}

/* In real mode Unicorn sometimes adds the base of CS, old or new, after a branch, or takes off what was not there. */
static bool with_base(const struct world *w, u64 diff)
{
	return diff == CODE || diff == -(u64)CODE || diff == w->sel[SEG_CS] * 16u;
}

static bool compare(uc_engine *uc, struct world *w, const struct insn *in, const u8 *b, const struct gregs *before,
		    const struct gregs *after)
{
	const int *ids = w->mode == MODE_64 ? gpr64 : gpr32;
	static u8 theirs[CODE - DATA];
	u64 v, mask = RFLAGS_ARITH | RFLAGS_DF | RFLAGS_IF;

	for (unsigned i = 0; i < gprs(w->mode); i++) {
		v = 0;
		uc_reg_read(uc, ids[i], &v);
		if (v != after->r[i]) {
			report(in, b, "register", after->r[i], v, before);
			return false;
		}
	}
	v = 0;
	uc_reg_read(uc, w->mode == MODE_64 ? UC_X86_REG_RIP : UC_X86_REG_EIP, &v);
	if (v != after->rip && (w->mode != MODE_REAL || !with_base(w, v - after->rip))) {
		report(in, b, "rip", after->rip, v, before);
		return false;
	}
	v = 0;
	uc_reg_read(uc, UC_X86_REG_EFLAGS, &v);
	mask &= ~undefined_flags(in, before);
	if ((v ^ after->rflags) & mask) {
		report(in, b, "flags", after->rflags & mask, v & mask, before);
		return false;
	}
	for (unsigned i = 0; w->mode == MODE_REAL && i < SEGS_USER; i++) {
		u16 sel = 0;

		uc_reg_read(uc, seg_regs[i], &sel);
		if (sel != w->sel[i]) {
			report(in, b, "selector", w->sel[i], sel, before);
			return false;
		}
	}
	for (int i = 0; i < (int)gprs(w->mode); i++) {
		u8 xmm[16];

		uc_reg_read(uc, UC_X86_REG_XMM0 + i, xmm);
		if (memcmp(xmm, w->xmm[i], 16)) {
			report(in, b, "xmm", (u64)i, 0, before);
			return false;
		}
	}
	uc_mem_read(uc, DATA, theirs, sizeof(theirs));
	for (u32 i = 0; i < sizeof(theirs) && memcmp(theirs, w->mem + DATA, sizeof(theirs)); i++)
		if (theirs[i] != w->mem[DATA + i]) {
			report(in, b, "memory", w->mem[DATA + i], theirs[i], before);
			return false;
		}
	return true;
}

/* Runs one instruction on both sides; false if they differ. */
static bool run_one(uc_engine *uc, struct world *w, u32 code, unsigned *compared)
{
	struct gregs before = {0}, after;
	struct insn in;
	u8 b[INSN_MAX];
	u64 base = w->mode == MODE_REAL ? CODE : 0;
	enum emul_result res;
	uc_err err;
	static u8 saved[CODE - DATA];

	make_bytes(b, w->mode);
	if (insn_decode(b, INSN_MAX, w->mode, &in) || odd_prefixes(&in, b) || excluded(&in, w->mode))
		return true;
	make_regs(&in, w->mode, &before);
	before.rip = code - base;
	for (int i = 0; i < 16; i++)
		for (int j = 0; j < 16; j++)
			w->xmm[i][j] = (u8)rnd();
	set_state(uc, w, &before);
	memcpy(w->mem + code, b, in.len);
	memset(w->mem + code + in.len, 0xf4, SLOT - in.len); /* Unicorn translates what follows */
	uc_mem_write(uc, code, w->mem + code, SLOT);
	memcpy(saved, w->mem + DATA, sizeof(saved));
	after = before;
	w->outside = false;
	do
		res = insn_exec(&in, &after, &ops, w);
	while (res == EMUL_AGAIN);
	if (res != EMUL_OK) {
		bool divide = res == EMUL_FAULT && !w->outside && w->vector == VEC_DE;

		memcpy(w->mem + DATA, saved, sizeof(saved));
		if (!divide)
			return true;
	}
	uc_ctl_remove_cache(uc, code, code + SLOT);
	err = uc_emu_start(uc, code, code + in.len, 0, in.rep && in.op >= OP_LODS ? 0 : 1);
	++*compared;
	if (res != EMUL_OK) {
		u64 rip = 0; /* Unicorn at times swallows the exception, but not the instruction */

		uc_reg_read(uc, w->mode == MODE_64 ? UC_X86_REG_RIP : UC_X86_REG_EIP, &rip);
		if (err == UC_ERR_OK && rip != before.rip)
			report(&in, b, "no divide error", before.rip, rip, &before);
		return err != UC_ERR_OK || rip == before.rip;
	}
	if (err != UC_ERR_OK && err != UC_ERR_FETCH_UNMAPPED && err != UC_ERR_FETCH_PROT) {
		report(&in, b, uc_strerror(err), 0, 0, &before);
		memcpy(w->mem + DATA, saved, sizeof(saved));
		return false;
	}
	return compare(uc, w, &in, b, &before, &after);
}

static void agree(enum gcpu_mode mode)
{
	static struct world w;
	unsigned failures = 0, compared = 0;
	uc_engine *uc;

	w.mode = mode;
	uc = open_unicorn(&w);
	for (unsigned i = 0; i < ROUNDS && failures < MAX_FAIL; i++) {
		u32 code = CODE + 64 + (i % SLOTS) * SLOT;

		/* A fresh one now and then, because code that Unicorn has seen it may remember. */
		if (i % SLOTS == 0 && i) {
			uc_close(uc);
			uc = open_unicorn(&w);
		}
		if (!run_one(uc, &w, code, &compared)) {
			failures++;
			uc_mem_write(uc, DATA, w.mem + DATA, CODE - DATA);
		}
	}
	uc_close(uc);
	print_message("mode %d: %u compared\n", mode, compared);
	assert_int_equal(failures, 0);
	assert_true(compared > ROUNDS / 10);
}

static void real_mode(void **state)
{
	(void)state;
	agree(MODE_REAL);
}

static void protected_mode(void **state)
{
	(void)state;
	agree(MODE_32);
}

static void long_mode(void **state)
{
	(void)state;
	agree(MODE_64);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(real_mode),
		cmocka_unit_test(protected_mode),
		cmocka_unit_test(long_mode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
