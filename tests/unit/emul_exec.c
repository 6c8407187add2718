/* SPDX-License-Identifier: MIT */
/*
 * Execution: what a comparison with Unicorn cannot see. The order, size and number of accesses, faults in the middle,
 * privileges, ports, system registers, and what Unicorn does not know.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86/emul/emul.h"
#include "lib/errno.h"

#define MEM   0x3000u
#define CF    1u
#define ZF    0x40u
#define IF    0x200u
#define DF    0x400u
#define OF    0x800u
#define IOPL3 0x3000u
#define RF    0x10000u

/* The world: flat memory, a log of what was done ("r4@100 " read, "m" read with intent to write, "w", "x", "i", "o").
 */
static struct {
	u8 mem[MEM];
	char log[1 << 16];
	size_t log_len;
	u64 fault_at;  /* accesses to this offset fault ... */
	char fault_on; /* ... if of this kind */
	u16 sel[SEGS];
	enum emul_result load_seg, system;
	u64 cr[16];
	u8 xmm[16][16];
	unsigned cpl, races, stack_size; /* stack_size 0: as the code */
	bool system_changes;
	enum gcpu_mode mode;
} w;
static struct gregs r;
static struct {
	u8 vector;
	u64 cr2;
} fault;

static void note(char kind, u64 size, u64 off)
{
	if (w.log_len < sizeof(w.log) - 64)
		w.log_len += (size_t)sprintf(w.log + w.log_len, "%c%llu@%llx ", kind, (long long)size, (long long)off);
}

static enum emul_result t_raise(void *ctx, u8 vector)
{
	fault.vector = vector;
	return EMUL_FAULT;
}

static enum emul_result access_memory(char kind, u64 off, unsigned size)
{
	note(kind, size, off);
	if ((w.fault_at == off && w.fault_on == kind) || off + size > MEM) {
		fault.cr2 = off;
		return t_raise(NULL, 14);
	}
	return EMUL_OK;
}

static enum emul_result t_access(void *ctx, enum seg s, u64 off, void *buf, unsigned size, enum emul_access a)
{
	enum emul_result res = access_memory("rwm"[a], off, size);

	if (res == EMUL_OK)
		memcpy(a == EMUL_WRITE ? w.mem + off : buf, a == EMUL_WRITE ? buf : w.mem + off, size);
	return res;
}

static enum emul_result t_cmpxchg(void *ctx, enum seg s, u64 off, void *old, const void *new, unsigned size, bool *done)
{
	enum emul_result res = access_memory('x', off, size);

	if (res != EMUL_OK)
		return res;
	if (w.races) {
		w.races--;
		w.mem[off]++; /* another CPU */
	}
	*done = !memcmp(w.mem + off, old, size);
	if (*done)
		memcpy(w.mem + off, new, size);
	else
		memcpy(old, w.mem + off, size);
	return EMUL_OK;
}

static enum emul_result t_io(void *ctx, u16 port, unsigned size, u32 *val, bool write)
{
	note(write ? 'o' : 'i', size, port);
	if (write)
		note('=', 0, *val);
	else
		*val = 0x44332211;
	return EMUL_OK;
}

static enum emul_result t_cr(void *ctx, unsigned n, u64 *val, bool write)
{
	*(write ? &w.cr[n] : val) = write ? *val : w.cr[n];
	return EMUL_OK;
}

static u16 t_get_sel(void *ctx, enum seg s) { return w.sel[s]; }

static enum emul_result t_load_seg(void *ctx, enum seg s, u16 sel)
{
	note('s', s, sel);
	if (w.load_seg == EMUL_OK)
		w.sel[s] = sel;
	return w.load_seg;
}

static unsigned t_cpl(void *ctx) { return w.cpl; }
static unsigned t_stack_size(void *ctx) { return w.stack_size ? w.stack_size : w.mode == MODE_32 ? 4 : 2; }

static enum emul_result t_system(void *ctx, const struct insn *in, struct gregs *regs)
{
	note('S', in->len, in->opcode);
	if (w.system_changes) {
		regs->r[R_AX] = 0x1234;
		if (in->opcode == 0xcd)
			regs->rip += 0x5000;
	}
	return w.system;
}

static void t_xmm(void *ctx, unsigned n, void *val, bool write)
{
	memcpy(write ? w.xmm[n] : val, write ? val : w.xmm[n], 16);
}

static struct emul_ops ops;

static int setup(void **state)
{
	memset(&w, 0, sizeof(w));
	memset(&r, 0, sizeof(r));
	memset(&fault, 0xee, sizeof(fault));
	ops = (struct emul_ops){
		.raise = t_raise,
		.access = t_access,
		.cmpxchg = t_cmpxchg,
		.io = t_io,
		.cr = t_cr,
		.get_sel = t_get_sel,
		.load_seg = t_load_seg,
		.cpl = t_cpl,
		.stack_size = t_stack_size,
		.system = t_system,
		.xmm = t_xmm,
	};
	r.rip = 0x100;
	r.r[R_SP] = 0x800;
	r.rflags = 2;
	return 0;
}

static enum emul_result exec_bytes(enum gcpu_mode mode, const u8 *b, size_t n)
{
	struct insn in;

	assert_int_equal(insn_decode(b, n, mode, &in), 0);
	w.log_len = 0;
	w.log[0] = 0;
	w.mode = mode;
	return insn_exec(&in, &r, &ops, NULL);
}

#define EXEC(mode, ...) exec_bytes(mode, (u8[]){__VA_ARGS__}, sizeof((u8[]){__VA_ARGS__}))

/* Expects a fault that changes no register. */
#define FAULTS(vec, mode, ...)                                         \
	do {                                                           \
		struct gregs was = r;                                  \
		assert_int_equal(EXEC(mode, __VA_ARGS__), EMUL_FAULT); \
		assert_int_equal(fault.vector, vec);                   \
		assert_memory_equal(&was, &r, sizeof(r));              \
	} while (0)

static u64 mem(u64 off, unsigned size)
{
	u64 v = 0;

	memcpy(&v, w.mem + off, size);
	return v;
}

static void set_mem(u64 off, u64 v, unsigned size) { memcpy(w.mem + off, &v, size); }

static void one_access_of_full_size(void **state)
{
	r.r[R_BX] = 0x200;
	r.r[R_AX] = 0x1122334455667788;
	assert_int_equal(EXEC(MODE_64, 0x48, 0x89, 0x03), EMUL_OK);
	assert_string_equal(w.log, "w8@200 ");
	assert_int_equal(r.rip, 0x103);
	assert_int_equal(EXEC(MODE_64, 0x0f, 0xb6, 0x03), EMUL_OK); /* movzx eax, byte [rbx] */
	assert_string_equal(w.log, "r1@200 ");
	assert_int_equal(r.r[R_AX], 0x88);
	assert_int_equal(EXEC(MODE_64, 0x01, 0x03), EMUL_OK); /* add [rbx], eax */
	assert_string_equal(w.log, "m4@200 w4@200 ");
	assert_int_equal(EXEC(MODE_64, 0x39, 0x03), EMUL_OK); /* cmp [rbx], eax: no intent to write */
	assert_string_equal(w.log, "r4@200 ");
	assert_int_equal(EXEC(MODE_64, 0x0f, 0xc7, 0x0b), EMUL_OK); /* cmpxchg8b */
	assert_string_equal(w.log, "x8@200 ");
	assert_int_equal(EXEC(MODE_64, 0x0f, 0x1f, 0x03), EMUL_OK); /* nop [rbx] */
	assert_int_equal(EXEC(MODE_64, 0x8d, 0x03), EMUL_OK);       /* lea eax, [rbx] */
	assert_string_equal(w.log, "");
	r.r[R_SI] = 0x210;
	r.r[R_DI] = 0x220;
	assert_int_equal(EXEC(MODE_64, 0xa5), EMUL_OK); /* movsd */
	assert_string_equal(w.log, "r4@210 w4@220 ");
}

static void faults_change_nothing(void **state)
{
	r.r[R_BX] = 0x200;
	r.r[R_AX] = 0xffffffff;
	w.fault_at = 0x200;
	w.fault_on = 'm';
	FAULTS(14, MODE_64, 0x01, 0x03); /* add [rbx], eax: not even the flags */
	assert_int_equal(fault.cr2, 0x200);
	w.fault_on = 'w';
	FAULTS(14, MODE_64, 0x01, 0x03);
	w.fault_on = 'x';
	FAULTS(14, MODE_64, 0x87, 0x03);       /* xchg [rbx], eax */
	FAULTS(14, MODE_64, 0x0f, 0xb1, 0x03); /* cmpxchg [rbx], eax */
	w.fault_on = 'r';
	FAULTS(14, MODE_64, 0xff, 0x33); /* push [rbx] */
	w.fault_on = 'w';
	FAULTS(14, MODE_64, 0x8f, 0x03); /* pop [rbx] */
	w.fault_at = 0x7f8;
	FAULTS(14, MODE_64, 0x50);             /* push rax */
	FAULTS(14, MODE_64, 0xe8, 0, 0, 0, 0); /* call */
	assert_int_equal(mem(0x7f8, 8), 0);
}

static void several_pushes_are_probed_first(void **state)
{
	w.fault_at = 0x7f4;
	w.fault_on = 'm';
	r.r[R_AX] = r.r[R_CX] = r.r[R_DX] = ~0u;
	FAULTS(14, MODE_32, 0x60);               /* pusha */
	FAULTS(14, MODE_REAL, 0xc8, 0x0a, 0, 0); /* enter 10, 0 probes where the stack will end */
	assert_int_equal(mem(0x7f8, 8), 0);
	w.fault_at = 0x7ee;
	FAULTS(14, MODE_64, 0xc8, 0x0a, 0, 0); /* where 64 bits of stack pointer count */
	w.fault_at = 0x7fe;
	FAULTS(14, MODE_REAL, 0x9a, 0, 1, 0, 2); /* call 200:100 */
	assert_int_equal(w.sel[SEG_CS], 0);
	assert_null(strchr(w.log, 's'));
}

/* The frame pointers of the procedures around, the new frame's, then the locals. */
static void nested_enter(void **state)
{
	r.r[R_BP] = 0x900;
	set_mem(0x8fc, 0x11112222, 4);
	set_mem(0x8f8, 0x33334444, 4);
	assert_int_equal(EXEC(MODE_32, 0xc8, 0x10, 0, 0x43), EMUL_OK); /* levels count modulo 32 */
	assert_int_equal(r.r[R_BP], 0x7fc);
	assert_int_equal(r.r[R_SP], 0x7e0);
	assert_int_equal(mem(0x7fc, 4), 0x900);
	assert_int_equal(mem(0x7f8, 4), 0x11112222);
	assert_int_equal(mem(0x7f4, 4), 0x33334444);
	assert_int_equal(mem(0x7f0, 4), 0x7fc);
	r.r[R_BP] = 0x900;
	w.fault_at = 0x8fc;
	w.fault_on = 'r';
	FAULTS(14, MODE_32, 0xc8, 0x10, 0, 3);
}

/* The stack may be narrower or wider than the code. */
static void stacks_of_other_sizes(void **state)
{
	w.stack_size = 2;
	r.r[R_SP] = 0x10800;
	assert_int_equal(EXEC(MODE_32, 0x50), EMUL_OK); /* push eax */
	assert_string_equal(w.log, "w4@7fc ");
	assert_int_equal(r.r[R_SP], 0x107fc);
	w.stack_size = 4;
	r.r[R_SP] = 0x800;
	assert_int_equal(EXEC(MODE_REAL, 0x50), EMUL_OK);
	r.r[R_SP] = 2;
	w.stack_size = 2;
	assert_int_equal(EXEC(MODE_REAL, 0x58), EMUL_OK);
	assert_int_equal(r.r[R_SP], 4);
}

static void bounds(void **state)
{
	r.r[R_BX] = 0x200;
	set_mem(0x200, 0x0005fffe, 4); /* -2 to 5 */
	for (unsigned i = 0; i < 8; i++) {
		r.r[R_AX] = 0xfffe + i;
		assert_int_equal(EXEC(MODE_REAL, 0x62, 0x07), EMUL_OK);
	}
	assert_string_equal(w.log, "r4@200 ");
	r.r[R_AX] = 6;
	struct gregs was = r;
	assert_int_equal(EXEC(MODE_REAL, 0x62, 0x07), EMUL_FAULT);
	assert_int_equal(fault.vector, 5);
	assert_memory_equal(&was, &r, sizeof(r));
	r.r[R_AX] = 0xfffd;
	assert_int_equal(EXEC(MODE_REAL, 0x62, 0x07), EMUL_FAULT);
}

static void pop_addresses_after_the_pop(void **state)
{
	set_mem(0x800, 0xabcd, 8);
	assert_int_equal(EXEC(MODE_64, 0x8f, 0x44, 0x24, 0x10), EMUL_OK); /* pop [rsp+16] */
	assert_int_equal(mem(0x818, 8), 0xabcd);
	assert_int_equal(r.r[R_SP], 0x808);
	assert_int_equal(EXEC(MODE_64, 0x54), EMUL_OK); /* push rsp: the old one */
	assert_int_equal(mem(0x800, 8), 0x808);
	assert_int_equal(EXEC(MODE_64, 0x5c), EMUL_OK); /* pop rsp: the popped one */
	assert_int_equal(r.r[R_SP], 0x808);
}

static void rep_keeps_what_is_done(void **state)
{
	struct gregs was;

	r.r[R_CX] = 5;
	r.r[R_SI] = 0x400;
	r.r[R_DI] = 0x500;
	set_mem(0x400, 0x0807060504030201, 8);
	w.fault_at = 0x503;
	w.fault_on = 'w';
	assert_int_equal(EXEC(MODE_64, 0xf3, 0xa4), EMUL_FAULT);
	assert_int_equal(r.r[R_CX], 2);
	assert_int_equal(r.r[R_SI], 0x403);
	assert_int_equal(r.r[R_DI], 0x503);
	assert_int_equal(r.rip, 0x100);
	was = r;
	FAULTS(14, MODE_64, 0xf3, 0xa4); /* and at the first one nothing is */
	w.fault_on = 0;
	assert_int_equal(EXEC(MODE_64, 0xf3, 0xa4), EMUL_OK);
	assert_int_equal(mem(0x500, 8), 0x0504030201);
	assert_int_equal(r.rip, 0x102);
	assert_int_equal(was.r[R_CX], 2);
	assert_int_equal(EXEC(MODE_64, 0xf3, 0xa4), EMUL_OK); /* nothing left */
	assert_string_equal(w.log, "");
	assert_int_equal(r.rip, 0x104);
}

static void rep_comes_in_batches(void **state)
{
	unsigned rounds = 0;
	enum emul_result res;

	r.r[R_CX] = 0x12300002800; /* only ECX counts with 32-bit addresses */
	r.r[R_AX] = 0x5a;
	r.r[R_DI] = 0x100;
	do
		res = EXEC(MODE_64, 0x67, 0xf3, 0xaa);
	while (++rounds < 10 && res == EMUL_AGAIN && r.rip == 0x100);
	assert_int_equal(res, EMUL_OK);
	assert_true(rounds >= 3);
	assert_int_equal(r.r[R_CX], 0);
	assert_int_equal(r.r[R_DI], 0x2900);
	assert_int_equal(w.mem[0x28ff], 0x5a);
	assert_int_equal(w.mem[0x2900], 0);
}

static void scans_stop(void **state)
{
	memcpy(w.mem + 0x400, "hello", 6);
	r.r[R_DI] = 0x400;
	r.r[R_CX] = ~0ull;
	assert_int_equal(EXEC(MODE_64, 0xf2, 0xae), EMUL_OK); /* repne scasb: strlen */
	assert_int_equal(~r.r[R_CX] - 1, 5);
	assert_true(r.rflags & ZF);
	memcpy(w.mem + 0x500, "help!", 6);
	r.r[R_SI] = 0x400;
	r.r[R_DI] = 0x500;
	r.r[R_CX] = 5;
	assert_int_equal(EXEC(MODE_64, 0xf3, 0xa6), EMUL_OK); /* repe cmpsb */
	assert_int_equal(r.r[R_CX], 1);
	assert_false(r.rflags & ZF);
	r.rflags |= DF;
	r.r[R_SI] = 0x406;
	assert_int_equal(EXEC(MODE_64, 0x66, 0xad), EMUL_OK); /* lodsw, downwards */
	assert_int_equal(r.r[R_SI], 0x404);
}

static void ports(void **state)
{
	r.r[R_DX] = 0x12345;
	r.r[R_AX] = 0xffffffffaabbccdd;
	assert_int_equal(EXEC(MODE_64, 0xef), EMUL_OK);
	assert_string_equal(w.log, "o4@2345 =0@aabbccdd ");
	assert_int_equal(EXEC(MODE_64, 0xe6, 0x80), EMUL_OK);
	assert_string_equal(w.log, "o1@80 =0@dd ");
	assert_int_equal(EXEC(MODE_64, 0xe4, 0xfe), EMUL_OK);
	assert_string_equal(w.log, "i1@fe ");
	assert_int_equal(r.r[R_AX], 0xffffffffaabbcc11);
	assert_int_equal(EXEC(MODE_64, 0xed), EMUL_OK);
	assert_int_equal(r.r[R_AX], 0x44332211);
	r.r[R_DI] = 0x400;
	r.r[R_CX] = 2;
	assert_int_equal(EXEC(MODE_REAL, 0xf3, 0x6d), EMUL_OK); /* rep insw: memory is asked before the port */
	assert_string_equal(w.log, "m2@400 i2@2345 w2@400 m2@402 i2@2345 w2@402 ");
	assert_int_equal(mem(0x400, 4), 0x22112211);
	w.fault_at = 0x404;
	w.fault_on = 'm';
	FAULTS(14, MODE_REAL, 0x6d);
	assert_string_equal(w.log, "m2@404 ");
	r.r[R_SI] = 0x400;
	assert_int_equal(EXEC(MODE_REAL, 0x6e), EMUL_OK);
	assert_string_equal(w.log, "r1@400 o1@2345 =0@11 ");
}

static void division_never_traps_us(void **state)
{
	static const struct {
		u8 b[3], n;
		u64 ax, dx, by;
	} bad[] = {
		{{0xf6, 0xf3}, 2, 1, 0, 0},                      /* div bl by 0 */
		{{0xf6, 0xf3}, 2, 0x100, 0, 1},                  /* quotient of 9 bits */
		{{0xf6, 0xfb}, 2, 0x80, 0, 1},                   /* idiv bl: 128 */
		{{0xf6, 0xfb}, 2, 0x8000, 0, 0xff},              /* -32768 / -1 */
		{{0x66, 0xf7, 0xfb}, 3, 0x8000, 0xffff, 0xffff}, /* -32768 / -1 */
		{{0xf7, 0xfb}, 2, 0x80000000, 0xffffffff, 0xffffffff},
		{{0xf7, 0xfb}, 2, 0, 0x80000000, 0xffffffff}, /* the largest dividend */
		{{0xf7, 0xfb}, 2, 0, 0, 0},
		{{0xf7, 0xf3}, 2, 5, 7, 7}, /* div ebx */
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		r.r[R_AX] = bad[i].ax;
		r.r[R_DX] = bad[i].dx;
		r.r[R_BX] = bad[i].by;
		struct gregs was = r;
		assert_int_equal(exec_bytes(MODE_64, bad[i].b, bad[i].n), EMUL_FAULT);
		assert_int_equal(fault.vector, 0);
		assert_memory_equal(&was, &r, sizeof(r));
	}
	r.r[R_AX] = 5;
	r.r[R_DX] = 6;
	r.r[R_BX] = 7;
	assert_int_equal(EXEC(MODE_64, 0xf7, 0xf3), EMUL_OK);
	assert_int_equal(r.r[R_AX], ((6ul << 32) + 5) / 7);
	assert_int_equal(r.r[R_DX], ((6ul << 32) + 5) % 7);
	assert_int_equal(EXEC(MODE_64, 0x48, 0xf7, 0xf3), EMUL_UNKNOWN); /* of 128 bits */
	r.r[R_AX] = 0xff80;                                              /* -128 / 1 just fits */
	r.r[R_BX] = 1;
	assert_int_equal(EXEC(MODE_64, 0xf6, 0xfb), EMUL_OK);
	assert_int_equal(r.r[R_AX], 0x80);
}

static void locked_is_atomic(void **state)
{
	r.r[R_BX] = 0x200;
	r.r[R_CX] = 10;
	set_mem(0x200, 5, 4);
	w.races = 2;
	assert_int_equal(EXEC(MODE_64, 0xf0, 0x0f, 0xc1, 0x0b), EMUL_OK); /* lock xadd [rbx], ecx */
	assert_string_equal(w.log, "m4@200 x4@200 x4@200 x4@200 ");
	assert_int_equal(mem(0x200, 4), 17);
	assert_int_equal(r.r[R_CX], 7);
	w.races = 1000;
	struct gregs was = r;
	assert_int_equal(EXEC(MODE_64, 0xf0, 0xff, 0x03), EMUL_RETRY); /* lock inc: somebody else always wins */
	assert_memory_equal(&was, &r, sizeof(r));
	w.races = 0;
	set_mem(0x200, 1, 4);
	assert_int_equal(EXEC(MODE_64, 0xf0, 0xf7, 0x1b), EMUL_OK); /* lock neg */
	assert_int_equal(mem(0x200, 4), 0xffffffff);
	assert_int_equal(r.rflags & (CF | ZF | 0x80), CF | 0x80);
	assert_int_equal(EXEC(MODE_64, 0x87, 0x0b), EMUL_OK); /* xchg locks by itself */
	assert_string_equal(w.log, "m4@200 x4@200 ");
	assert_int_equal(r.r[R_CX], 0xffffffff);
	assert_int_equal(mem(0x200, 4), 7);
}

static void compare_and_exchange(void **state)
{
	r.r[R_BX] = 0x1111111122222222;
	r.r[R_CX] = 0x3333333344444444;
	r.r[R_AX] = 0xaaaaaaaabbbbbbbb;
	r.r[R_DX] = 0xccccccccdddddddd;
	r.r[R_DI] = 0x200;
	set_mem(0x200, 5, 8);
	set_mem(0x208, 6, 8);
	assert_int_equal(EXEC(MODE_64, 0xf0, 0x0f, 0xc7, 0x0f), EMUL_OK); /* differs: loads, and clears upper halves */
	assert_int_equal(r.r[R_AX], 5);
	assert_int_equal(r.r[R_DX], 0);
	assert_false(r.rflags & ZF);
	assert_int_equal(EXEC(MODE_64, 0xf0, 0x0f, 0xc7, 0x0f), EMUL_OK);
	assert_true(r.rflags & ZF);
	assert_int_equal(mem(0x200, 8), 0x4444444422222222);
	r.r[R_AX] = 0x4444444422222222;
	r.r[R_DX] = 6;
	assert_int_equal(EXEC(MODE_64, 0x48, 0x0f, 0xc7, 0x0f), EMUL_OK);
	assert_string_equal(w.log, "x16@200 ");
	assert_int_equal(mem(0x200, 8), 0x1111111122222222);
	assert_int_equal(mem(0x208, 8), 0x3333333344444444);
	r.r[R_DI] = 0x208;
	FAULTS(13, MODE_64, 0x48, 0x0f, 0xc7, 0x0f);                /* unaligned */
	assert_int_equal(EXEC(MODE_64, 0x0f, 0xb1, 0x1f), EMUL_OK); /* cmpxchg [rdi], ebx */
	assert_string_equal(w.log, "m4@208 x4@208 ");
	assert_int_equal(r.r[R_AX], 0x44444444);
	/* A register destination is written in either case, which clears its upper half. */
	r.r[R_DX] = ~0ull;
	assert_int_equal(EXEC(MODE_64, 0x0f, 0xb1, 0xda), EMUL_OK);
	assert_int_equal(r.r[R_DX], 0xffffffff);
}

static void bits_far_away(void **state)
{
	r.r[R_BX] = 0x200;
	r.r[R_AX] = -1ull;
	assert_int_equal(EXEC(MODE_64, 0x0f, 0xab, 0x03), EMUL_OK); /* bts [rbx], eax */
	assert_string_equal(w.log, "m4@1fc w4@1fc ");
	assert_int_equal(mem(0x1fc, 4), 0x80000000);
	r.r[R_AX] = 1 << 12;
	assert_int_equal(EXEC(MODE_64, 0xf0, 0x48, 0x0f, 0xab, 0x03), EMUL_OK);
	assert_string_equal(w.log, "m8@400 x8@400 ");
	assert_int_equal(EXEC(MODE_64, 0x0f, 0xba, 0x23, 0x41), EMUL_OK); /* bt [rbx], 65: an immediate wraps */
	assert_string_equal(w.log, "r4@200 ");
}

static void what_unicorn_lacks(void **state)
{
	r.r[R_AX] = 0;
	r.r[R_CX] = ~0ull;
	assert_int_equal(EXEC(MODE_64, 0x0f, 0xbc, 0xc8), EMUL_OK); /* bsf ecx, eax of nothing */
	assert_int_equal(r.r[R_CX], ~0ull);
	assert_true(r.rflags & ZF);
	assert_int_equal(EXEC(MODE_32, 0xf7, 0xc9, 0, 0, 0, 0x80), EMUL_OK); /* the second encoding of test */
	assert_true(r.rflags & 0x80);
	r.r[R_SP] = 0x800;
	assert_int_equal(EXEC(MODE_64, 0xc2, 0x00, 0x90), EMUL_OK); /* ret 9000h counts unsigned */
	assert_int_equal(r.r[R_SP], 0x9808);
}

static void xmm_moves(void **state)
{
	r.r[R_BX] = 0x200;
	memset(w.xmm[1], 0x5a, 16);
	assert_int_equal(EXEC(MODE_64, 0x66, 0x0f, 0xe7, 0x0b), EMUL_OK); /* movntdq */
	assert_string_equal(w.log, "w16@200 ");
	assert_int_equal(mem(0x208, 8), 0x5a5a5a5a5a5a5a5a);
	r.r[R_BX] = 0x208;
	FAULTS(13, MODE_64, 0x0f, 0x29, 0x0b);                      /* movaps, not aligned */
	assert_int_equal(EXEC(MODE_64, 0x0f, 0x11, 0x0b), EMUL_OK); /* movups */
	assert_string_equal(w.log, "w16@208 ");
	assert_int_equal(EXEC(MODE_64, 0xf3, 0x0f, 0x7e, 0x0b), EMUL_OK); /* movq xmm1, [rbx] clears the upper half */
	assert_string_equal(w.log, "r8@208 ");
	assert_memory_equal(w.xmm[1], "ZZZZZZZZ\0\0\0\0\0\0\0\0", 16);
	r.r[R_AX] = ~0ull;
	assert_int_equal(EXEC(MODE_64, 0x66, 0x0f, 0x7e, 0xc8), EMUL_OK); /* movd eax, xmm1 */
	assert_int_equal(r.r[R_AX], 0x5a5a5a5a);
}

static void privileges(void **state)
{
	w.cpl = 3;
	FAULTS(13, MODE_64, 0xf4);             /* hlt */
	FAULTS(13, MODE_64, 0x0f, 0x22, 0xd8); /* mov cr3, rax */
	FAULTS(13, MODE_64, 0x0f, 0x32);       /* rdmsr */
	FAULTS(13, MODE_64, 0x0f, 0x01, 0x38); /* invlpg */
	FAULTS(13, MODE_64, 0xfa);             /* cli */
	assert_string_equal(w.log, "");
	r.rflags = 2 | IF;
	set_mem(0x800, 2 | CF | IOPL3, 8);
	assert_int_equal(EXEC(MODE_64, 0x9d), EMUL_OK); /* popf: neither IOPL nor IF */
	assert_int_equal(r.rflags, 2 | CF | IF);
	r.rflags = 2 | IOPL3;
	assert_int_equal(EXEC(MODE_64, 0xfb), EMUL_OK); /* sti with IOPL 3 */
	assert_int_equal(r.rflags, 2 | IOPL3 | IF);
	r.rflags = 2 | 0x20000;
	FAULTS(13, MODE_REAL, 0x9c); /* pushf in virtual-8086 mode */
	FAULTS(13, MODE_REAL, 0x9d);
	w.cpl = 0;
	r.rflags = 2 | RF;
	r.r[R_SP] = 0x800;
	set_mem(0x800, 0x3ffffd, 8);
	assert_int_equal(EXEC(MODE_64, 0x9d), EMUL_OK); /* popf at CPL 0: not RF, VM, VIF, VIP; reserved bits stay */
	assert_int_equal(r.rflags, 0x247fd7);
}

static void system_registers(void **state)
{
	w.cr[0] = 0x80000019;
	r.r[R_AX] = 0xfffe;
	assert_int_equal(EXEC(MODE_REAL, 0x0f, 0x01, 0xf0), EMUL_OK); /* lmsw ax cannot clear PE */
	assert_int_equal(w.cr[0], 0x8000001f);
	assert_int_equal(EXEC(MODE_64, 0x0f, 0x06), EMUL_OK); /* clts */
	assert_int_equal(w.cr[0], 0x80000017);
	r.r[R_BX] = 0x200;
	assert_int_equal(EXEC(MODE_64, 0x0f, 0x01, 0x23), EMUL_OK); /* smsw [rbx] */
	assert_string_equal(w.log, "w2@200 ");
	assert_int_equal(mem(0x200, 4), 0x17);
	w.cr[8] = 5;
	assert_int_equal(EXEC(MODE_64, 0x44, 0x0f, 0x20, 0xc0), EMUL_OK); /* mov rax, cr8 */
	assert_int_equal(r.r[R_AX], 5);
	r.r[R_AX] = 0x1ffffffff;
	assert_int_equal(EXEC(MODE_64, 0x0f, 0x22, 0xd8), EMUL_OK); /* mov cr3, rax */
	assert_int_equal(w.cr[3], 0x1ffffffff);
	r.r[R_AX] = 0x48;
	assert_int_equal(EXEC(MODE_32, 0x8e, 0xd0), EMUL_OK); /* mov ss, ax */
	assert_int_equal(w.sel[SEG_SS], 0x48);
}

static void system_operation(void **state)
{
	struct gregs was;

	w.system_changes = true;
	assert_int_equal(EXEC(MODE_64, 0x0f, 0xa2), EMUL_OK); /* cpuid */
	assert_string_equal(w.log, "S2@a2 ");
	assert_int_equal(r.r[R_AX], 0x1234);
	assert_int_equal(r.rip, 0x102);
	assert_int_equal(EXEC(MODE_REAL, 0xcd, 0x10), EMUL_OK); /* int 10h goes elsewhere */
	assert_int_equal(r.rip, 0x5104);
	r.rip = 0x100;
	assert_int_equal(EXEC(MODE_32, 0xce), EMUL_OK); /* into, not taken */
	assert_string_equal(w.log, "");
	r.rflags |= OF;
	assert_int_equal(EXEC(MODE_32, 0xce), EMUL_OK);
	assert_string_equal(w.log, "S1@ce ");
	r.r[R_AX] = 7;
	was = r;
	w.system = EMUL_UNKNOWN;
	assert_int_equal(EXEC(MODE_64, 0xf4), EMUL_UNKNOWN); /* changes are taken back */
	assert_memory_equal(&was, &r, sizeof(r));
}

/* IRET in protected mode stays at its level; flags by privilege. */
static void iret_in_protected_mode(void **state)
{
	set_mem(0x800, 0x12345678, 4);
	set_mem(0x804, 0x8, 4);
	set_mem(0x808, 0x257ed7, 4);
	assert_int_equal(EXEC(MODE_32, 0xcf), EMUL_OK);
	assert_int_equal(r.rip, 0x12345678);
	assert_int_equal(w.sel[SEG_CS], 8);
	assert_int_equal(r.rflags, 0x257ed7);
	assert_int_equal(r.r[R_SP], 0x80c);
	r.r[R_SP] = 0x800;
	assert_int_equal(EXEC(MODE_32, 0xcf), EMUL_UNKNOWN); /* NT: to another task */
	r.rflags = 2 | IOPL3 / 3;
	w.cpl = 3;
	set_mem(0x804, 0xb, 4);
	assert_int_equal(EXEC(MODE_32, 0xcf), EMUL_OK);
	assert_int_equal(r.rflags, 0x254cd7 | IOPL3 / 3); /* neither IOPL nor IF */
	r.r[R_SP] = 0x800;
	r.rflags = 2;
	w.cpl = 0;
	assert_int_equal(EXEC(MODE_32, 0xcf), EMUL_UNKNOWN); /* to CPL 3 */
	assert_int_equal(EXEC(MODE_64, 0xcf), EMUL_UNKNOWN);
}

static void far_transfers(void **state)
{
	set_mem(0x800, 0x20001111, 4);
	set_mem(0x804, 0x7fff, 2);
	assert_int_equal(EXEC(MODE_REAL, 0xcf), EMUL_OK); /* iret */
	assert_int_equal(r.rip, 0x1111);
	assert_int_equal(w.sel[SEG_CS], 0x2000);
	assert_int_equal(r.rflags, 0x7fd7);
	assert_int_equal(r.r[R_SP], 0x806);
	assert_int_equal(EXEC(MODE_REAL, 0x9a, 0x34, 0x12, 0x00, 0xf0), EMUL_OK); /* call f000:1234 */
	assert_int_equal(r.rip, 0x1234);
	assert_int_equal(mem(0x802, 4), 0x20001116);
	assert_int_equal(EXEC(MODE_REAL, 0xca, 0x02, 0x00), EMUL_OK); /* retf 2 */
	assert_int_equal(r.rip, 0x1116);
	assert_int_equal(r.r[R_SP], 0x808);
	set_mem(0x300, 0x00085678, 4);
	r.r[R_BX] = 0x300;
	assert_int_equal(EXEC(MODE_REAL, 0xff, 0x2f), EMUL_OK); /* jmp far [bx]: one access */
	assert_string_equal(w.log, "r4@300 s1@8 ");
	assert_int_equal(EXEC(MODE_REAL, 0xc4, 0x37), EMUL_OK); /* les si, [bx] */
	assert_int_equal(r.r[R_SI], 0x5678);
	assert_int_equal(w.sel[SEG_ES], 8);
	assert_int_equal(EXEC(MODE_REAL, 0x0f, 0xb5, 0x37), EMUL_OK); /* lgs si, [bx] */
	assert_int_equal(w.sel[SEG_GS], 8);
	w.fault_at = 0x300;
	w.fault_on = 'r';
	FAULTS(14, MODE_REAL, 0xff, 0x2f);
	w.load_seg = EMUL_UNKNOWN;
	w.fault_on = 0;
	struct gregs was = r;
	assert_int_equal(EXEC(MODE_REAL, 0x9a, 0, 0, 0, 0), EMUL_UNKNOWN);
	assert_null(strchr(w.log, 'w'));
	assert_int_equal(EXEC(MODE_REAL, 0xc5, 0x37), EMUL_UNKNOWN);
	assert_memory_equal(&was, &r, sizeof(r));
	w.load_seg = EMUL_OK;
	set_mem(r.r[R_SP] + 4, 0x1b, 4);
	assert_int_equal(EXEC(MODE_32, 0xcb), EMUL_UNKNOWN); /* retf to CPL 3 */
}

static void rip_wraps_with_the_mode(void **state)
{
	r.rip = 0xffff;
	assert_int_equal(EXEC(MODE_REAL, 0xeb, 0x10), EMUL_OK);
	assert_int_equal(r.rip, 0x11);
	r.rip = 0xffffffff;
	assert_int_equal(EXEC(MODE_32, 0x90), EMUL_OK);
	assert_int_equal(r.rip, 0);
	r.rip = 0xffffffff;
	assert_int_equal(EXEC(MODE_64, 0x90), EMUL_OK);
	assert_int_equal(r.rip, 0x100000000);
}

static void what_did_not_decode(void **state)
{
	struct insn in;

	assert_int_equal(insn_decode((u8[]){0x0f, 0x77}, 2, MODE_64, &in), -ENOSYS);
	assert_int_equal(insn_exec(&in, &r, &ops, NULL), EMUL_UNKNOWN);
	assert_int_equal(r.rip, 0x100);
}

#define TEST(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_access_of_full_size),
		TEST(faults_change_nothing),
		TEST(several_pushes_are_probed_first),
		TEST(nested_enter),
		TEST(stacks_of_other_sizes),
		TEST(bounds),
		TEST(pop_addresses_after_the_pop),
		TEST(rep_keeps_what_is_done),
		TEST(rep_comes_in_batches),
		TEST(scans_stop),
		TEST(ports),
		TEST(division_never_traps_us),
		TEST(locked_is_atomic),
		TEST(compare_and_exchange),
		TEST(bits_far_away),
		TEST(what_unicorn_lacks),
		TEST(xmm_moves),
		TEST(privileges),
		TEST(system_registers),
		TEST(system_operation),
		TEST(iret_in_protected_mode),
		TEST(far_transfers),
		TEST(rip_wraps_with_the_mode),
		TEST(what_did_not_decode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
