/* SPDX-License-Identifier: MIT */
/*
 * The world of the instruction emulator: a guest's segments, page tables, memory, devices and registers.
 *
 *     segment:offset --linear--> la --gwalk--> gpa --p2m--> RAM, or a device on the bus
 *
 * An access that crosses a page is translated in both pages before any of it is done, so that a fault leaves nothing
 * half written. What is neither RAM nor ROM is the bus's; writes to ROM vanish.
 *
 * The bytes at rip may be others than those that exited, for another vCPU can write them meanwhile. So nothing here
 * relies on what the exit was: all permissions are checked again.
 */
#include "arch/x86/hvm/exit.h"
#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/string.h"

#define SEG_TYPE_CODE  0x8
#define SEG_TYPE_DOWN  0x4 /* data: expands down */
#define SEG_TYPE_WRITE 0x2 /* data: writable; code: readable */
#define ATTR_REAL_DATA 0x93
#define ATTR_REAL_CODE 0x9b

struct emu {
	struct vcpu *v;
	enum gcpu_mode mode;
	bool real;        /* real or virtual-8086 mode */
	bool one_operand; /* the instruction accesses no other memory than that of its ModRM byte */
};

unsigned vcpu_cpl(struct vcpu *v)
{
	struct segment ss;

	if (v->regs.rflags & RFLAGS_VM)
		return 3;
	if (!(hvm->get(v, REG_CR0) & CR0_PE))
		return 0;
	hvm->get_seg(v, SEG_SS, &ss);
	return SEG_ATTR_DPL(ss.attr);
}

enum gcpu_mode vcpu_mode(struct vcpu *v)
{
	struct segment cs;

	hvm->get_seg(v, SEG_CS, &cs);
	return mode_of(hvm->get(v, REG_CR0), v->regs.rflags, hvm->get(v, REG_EFER), cs.attr);
}

/* --- Translation. */

static bool table_read(void *ctx, gpa_t gpa, u64 *val, unsigned size)
{
	struct vcpu *v = ctx;

	*val = 0;
	return p2m_read(&v->vm->p2m, gpa, val, size) == 0;
}

static bool table_set_bits(void *ctx, gpa_t gpa, u64 old, u64 bits, unsigned size)
{
	struct vcpu *v = ctx;
	u64 new = old | bits;
	bool done;

	return p2m_cmpxchg(&v->vm->p2m, gpa, &old, &new, size, &done) == 0 && done;
}

int guest_translate(struct vcpu *v, gva_t la, u32 access, gpa_t *gpa, u32 *error)
{
	static const struct gwalk_ops ops = {table_read, table_set_bits};
	struct gwalk_mode m = {.cr0 = hvm->get(v, REG_CR0),
			       .cr3 = hvm->get(v, REG_CR3),
			       .cr4 = hvm->get(v, REG_CR4),
			       .efer = hvm->get(v, REG_EFER),
			       .rflags = v->regs.rflags,
			       .phys_bits = (u8)guest_phys_bits(v),
			       .gb_pages = true};
	struct gwalk_result r;
	int err = gwalk(&m, la, access | (vcpu_cpl(v) == 3 ? PF_USER : 0), &ops, v, &r);

	*gpa = r.gpa;
	*error = r.error;
	return err;
}

static enum emul_result fault(struct emul_fault *f, u8 vector, u32 error)
{
	*f = (struct emul_fault){.vector = vector, .has_error = true, .error = error};
	return EMUL_FAULT;
}

/*
 * The access that faulted has just been translated by the CPU, with the guest's permissions for its kind: its linear
 * address is not known, but with one operand and the same place in the page it is that.
 */
static bool is_faulting_access(const struct emu *e, u64 la, u32 access)
{
	const struct vm_exit *x = &e->v->exit;

	return e->one_operand && x->kind == EXIT_NPF && ((la ^ x->gpa) & ~PAGE_MASK) == 0 &&
	       x->access == (access & PF_WRITE ? P2M_WRITE : P2M_READ);
}

static enum emul_result translate(struct emu *e, u64 la, u32 access, gpa_t *gpa, struct emul_fault *f)
{
	u32 error;
	int err;

	if (is_faulting_access(e, la, access)) {
		*gpa = e->v->exit.gpa;
		return EMUL_OK;
	}
	err = guest_translate(e->v, la, access, gpa, &error);
	if (err == -EFAULT) {
		fault(f, VEC_PF, error);
		f->cr2 = la;
		return EMUL_FAULT;
	}
	if (err) {
		vcpu_crash(e->v, "page tables for %lx are not in RAM", la);
		return EMUL_RETRY;
	}
	return EMUL_OK;
}

/* Whether [off, off + size) lies within the segment's limit. */
static bool in_limit(const struct segment *seg, u64 off, unsigned size)
{
	u64 last = off + size - 1;
	bool down = (seg->attr & SEG_ATTR_S) && (seg->attr & (SEG_TYPE_CODE | SEG_TYPE_DOWN)) == SEG_TYPE_DOWN;

	if (down)
		return off > seg->limit && last <= (seg->attr & SEG_ATTR_DB ? 0xffffffffu : 0xffffu);
	return last <= seg->limit;
}

static bool canonical(u64 a, u64 cr4)
{
	unsigned unused = cr4 & CR4_LA57 ? 7 : 16;

	return (u64)((s64)(a << unused) >> unused) == a;
}

/* Segment and offset to linear address; #SS or #GP where the segment does not allow it. */
static enum emul_result linear(struct emu *e, enum seg s, u64 off, unsigned size, bool write, u64 *la,
			       struct emul_fault *f)
{
	u8 vector = s == SEG_SS ? VEC_SS : VEC_GP;
	struct segment seg;

	if (e->mode == MODE_64) {
		u64 cr4 = hvm->get(e->v, REG_CR4);

		if (s == SEG_FS || s == SEG_GS) {
			hvm->get_seg(e->v, s, &seg);
			off += seg.base;
		}
		*la = off;
		return canonical(off, cr4) && canonical(off + size - 1, cr4) ? EMUL_OK : fault(f, vector, 0);
	}
	hvm->get_seg(e->v, s, &seg);
	if (!e->real) {
		bool code = seg.attr & SEG_TYPE_CODE;

		if (!(seg.attr & SEG_ATTR_P) ||
		    (write ? code || !(seg.attr & SEG_TYPE_WRITE) : code && !(seg.attr & SEG_TYPE_WRITE)))
			return fault(f, vector, 0);
	}
	off = (u32)off;
	if (!in_limit(&seg, off, size))
		return fault(f, vector, 0);
	*la = (u32)(seg.base + off);
	return EMUL_OK;
}

/* --- Guest-physical accesses. */

static void mmio(struct vcpu *v, struct bus_op *op)
{
	struct platform *p = &v->vm->platform;

	if ((op->addr & PAGE_MASK) == lapic_page(&v->lapic)) {
		lapic_mmio(&v->lapic, op);
		return;
	}
	lock_take(&p->lock);
	bus_access(&p->bus, op);
	lock_drop(&p->lock);
}

/* A device sees accesses of 1, 2, 4 or 8 bytes. */
static void mmio_bytes(struct vcpu *v, gpa_t gpa, u8 *buf, unsigned size, bool write)
{
	for (unsigned step; size; gpa += step, buf += step, size -= step) {
		struct bus_op op = {.space = BUS_MMIO, .write = write, .addr = gpa};

		step = MIN(1u << bit_high(size), 8u);
		op.size = (u8)step;
		if (write)
			memcpy(&op.val, buf, step);
		mmio(v, &op);
		if (!write)
			memcpy(buf, &op.val, step);
	}
}

/* What is not accessible as RAM: a device, ROM that is written, or memory that should be there and is not. */
static enum emul_result not_ram(struct emu *e, gpa_t gpa, void *buf, unsigned size, bool write)
{
	switch (p2m_get(&e->v->vm->p2m, gpa_to_gfn(gpa)).type) {
	case P2M_NONE:
	case P2M_MMIO:
		mmio_bytes(e->v, gpa, buf, size, write);
		return EMUL_OK;
	case P2M_RO:
		return EMUL_OK;
	case P2M_RAM: /* by now */
		return EMUL_RETRY;
	default:
		vcpu_crash(e->v, "no memory for the page at %lx", gpa);
		return EMUL_RETRY;
	}
}

/* The page that faulted is not looked up again: p2m_fault has just said that it is the bus's, or ROM that is written.
 */
static enum emul_result phys_access(struct emu *e, gpa_t gpa, void *buf, unsigned size, bool write)
{
	const struct vm_exit *x = &e->v->exit;
	struct p2m *p = &e->v->vm->p2m;

	if (x->kind == EXIT_NPF && ((gpa ^ x->gpa) & PAGE_MASK) == 0 && write == (x->access == P2M_WRITE)) {
		mmio_bytes(e->v, gpa, buf, size, write);
		return EMUL_OK;
	}
	if ((write ? p2m_write(p, gpa, buf, size) : p2m_read(p, gpa, buf, size)) == 0)
		return EMUL_OK;
	return not_ram(e, gpa, buf, size, write);
}

static enum emul_result access(struct emu *e, enum seg s, u64 off, void *buf, unsigned size, enum emul_access a,
			       struct emul_fault *f)
{
	u32 need = a == EMUL_READ ? 0 : PF_WRITE;
	unsigned first;
	gpa_t gpa[2];
	u64 la;
	enum emul_result res = linear(e, s, off, size, need, &la, f);

	if (res != EMUL_OK)
		return res;
	first = (unsigned)MIN((u64)size, PAGE_SIZE - (la & ~PAGE_MASK));
	res = translate(e, la, need, &gpa[0], f);
	if (res == EMUL_OK && first < size)
		res = translate(e, e->mode == MODE_64 ? la + first : (u32)(la + first), need, &gpa[1], f);
	if (res == EMUL_OK)
		res = phys_access(e, gpa[0], buf, first, a == EMUL_WRITE);
	if (res == EMUL_OK && first < size)
		res = phys_access(e, gpa[1], (u8 *)buf + first, size - first, a == EMUL_WRITE);
	return res;
}

static enum emul_result op_read(void *ctx, enum seg s, u64 off, void *buf, unsigned size, enum emul_access a,
				struct emul_fault *f)
{
	return access(ctx, s, off, buf, size, a, f);
}

static enum emul_result op_write(void *ctx, enum seg s, u64 off, const void *buf, unsigned size, struct emul_fault *f)
{
	u8 copy[16];

	memcpy(copy, buf, size);
	return access(ctx, s, off, copy, size, EMUL_WRITE, f);
}

static enum emul_result op_cmpxchg(void *ctx, enum seg s, u64 off, void *old, const void *new, unsigned size,
				   bool *done, struct emul_fault *f)
{
	struct emu *e = ctx;
	u8 now[16];
	gpa_t gpa;
	u64 la;
	enum emul_result res = linear(e, s, off, size, true, &la, f);

	if (res == EMUL_OK)
		res = translate(e, la, PF_WRITE, &gpa, f);
	if (res != EMUL_OK)
		return res;
	if (p2m_cmpxchg(&e->v->vm->p2m, gpa, old, new, size, done) == 0)
		return EMUL_OK;
	/* A device, or a misaligned operand, which hardware locks the bus for: not atomic here. */
	res = access(e, s, off, now, size, EMUL_RMW, f);
	if (res != EMUL_OK)
		return res;
	*done = memcmp(now, old, size) == 0;
	memcpy(old, now, size);
	return *done ? op_write(ctx, s, off, new, size, f) : EMUL_OK;
}

/* --- Ports. */

void guest_io(struct vcpu *v, u16 port, unsigned size, bool write, u32 *val)
{
	struct platform *p = &v->vm->platform;
	struct bus_op op = {.space = BUS_PIO, .size = (u8)size, .write = write, .addr = port, .val = *val};

	lock_take(&p->lock);
	bus_access(&p->bus, &op);
	lock_drop(&p->lock);
	*val = (u32)op.val;
}

/* The CPU has checked the port that exited, by IOPL and the TSS's bitmap; any other is allowed by IOPL alone. */
static bool may_io(struct vcpu *v, u16 port)
{
	return vcpu_cpl(v) <= (v->regs.rflags & RFLAGS_IOPL) >> 12 ||
	       (v->exit.kind == EXIT_IO && v->exit.io.port == port);
}

static enum emul_result op_in(void *ctx, u16 port, unsigned size, u32 *val, struct emul_fault *f)
{
	struct emu *e = ctx;

	if (!may_io(e->v, port))
		return fault(f, VEC_GP, 0);
	*val = 0;
	guest_io(e->v, port, size, false, val);
	return EMUL_OK;
}

static enum emul_result op_out(void *ctx, u16 port, unsigned size, u32 val, struct emul_fault *f)
{
	struct emu *e = ctx;

	if (!may_io(e->v, port))
		return fault(f, VEC_GP, 0);
	guest_io(e->v, port, size, true, &val);
	return EMUL_OK;
}

/* --- Registers. */

static enum emul_result op_read_cr(void *ctx, unsigned n, u64 *val, struct emul_fault *f)
{
	static const s8 reg[] = {REG_CR0, -1, REG_CR2, REG_CR3, REG_CR4};
	struct emu *e = ctx;

	if (n == 8)
		*val = lapic_get_cr8(&e->v->lapic);
	else if (n < ARRAY_SIZE(reg) && reg[n] >= 0)
		*val = hvm->get(e->v, (enum vreg)reg[n]);
	else
		return fault(f, VEC_UD, 0);
	return EMUL_OK;
}

static enum emul_result gp_if(int err, struct emul_fault *f) { return err ? fault(f, VEC_GP, 0) : EMUL_OK; }

static enum emul_result op_write_cr(void *ctx, unsigned n, u64 val, struct emul_fault *f)
{
	return gp_if(guest_write_cr(((struct emu *)ctx)->v, n, val), f);
}

static u16 op_get_sel(void *ctx, enum seg s)
{
	struct segment seg;

	hvm->get_seg(((struct emu *)ctx)->v, s, &seg);
	return seg.sel;
}

/* Real-mode loads only: no hardware that runs guests in protected mode natively exits on others. */
static enum emul_result op_load_seg(void *ctx, enum seg s, u16 sel, struct emul_fault *f)
{
	struct emu *e = ctx;
	struct segment seg;

	if (!e->real || s >= SEGS_USER)
		return EMUL_UNKNOWN;
	hvm->get_seg(e->v, s, &seg);
	seg.sel = sel;
	seg.base = (u64)sel << 4;
	hvm->set_seg(e->v, s, &seg);
	return EMUL_OK;
}

static unsigned op_cpl(void *ctx) { return vcpu_cpl(((struct emu *)ctx)->v); }

#define INSN_2B     0x100
#define INSN_HLT    0xf4
#define INSN_INVD   (INSN_2B | 0x08)
#define INSN_WBINVD (INSN_2B | 0x09)
#define INSN_CPUID  (INSN_2B | 0xa2)

/* Instructions for the whole vCPU that an exit may name without their length. The others never exit. */
static enum emul_result op_system(void *ctx, const struct insn *in, struct gregs *regs, struct emul_fault *f)
{
	struct vcpu *v = ((struct emu *)ctx)->v;
	u64 *r = regs->r;
	u32 out[4];

	switch (in->map << 8 | in->opcode) {
	case INSN_CPUID:
		guest_cpuid(v, (u32)r[R_AX], (u32)r[R_CX], out);
		r[R_AX] = out[0];
		r[R_BX] = out[1];
		r[R_CX] = out[2];
		r[R_DX] = out[3];
		return EMUL_OK;
	case INSN_HLT:
		v->halted = true;
		return EMUL_OK;
	case INSN_INVD:
	case INSN_WBINVD:
		return EMUL_OK;
	default:
		return EMUL_UNKNOWN;
	}
}

static void op_xmm(void *ctx, unsigned n, void *val, bool write) { hvm->xmm(((struct emu *)ctx)->v, n, val, write); }

static const struct emul_ops emu_ops = {
	.read = op_read,
	.write = op_write,
	.cmpxchg = op_cmpxchg,
	.in = op_in,
	.out = op_out,
	.read_cr = op_read_cr,
	.write_cr = op_write_cr,
	.get_sel = op_get_sel,
	.load_seg = op_load_seg,
	.cpl = op_cpl,
	.system = op_system,
	.xmm = op_xmm,
};

/* --- The instruction. */

int guest_fetch(struct vcpu *v, u8 *bytes, unsigned *n, gva_t *fault_va, u32 *error)
{
	bool wide = vcpu_mode(v) == MODE_64;
	struct segment cs;
	int err = 0;

	hvm->get_seg(v, SEG_CS, &cs);
	for (unsigned step; *n < INSN_MAX && !err; *n += err ? 0 : step) {
		gva_t la = wide ? v->regs.rip + *n : (u32)(cs.base + v->regs.rip + *n);
		gpa_t gpa;

		*fault_va = la;
		step = (unsigned)MIN((u64)(INSN_MAX - *n), PAGE_SIZE - (la & ~PAGE_MASK));
		err = guest_translate(v, la, PF_FETCH, &gpa, error);
		if (!err && p2m_read(&v->vm->p2m, gpa, bytes + *n, step))
			err = -ENOENT;
	}
	return err;
}

/*
 * Decodes the instruction at rip. One that ends before a page that cannot be read needs nothing of that page. 0, or
 * what insn_decode says, or guest_fetch.
 */
static int fetch_and_decode(struct vcpu *v, struct insn *in, gva_t *va, u32 *error)
{
	u8 bytes[INSN_MAX];
	unsigned n = 0;
	int fetched = 0, err;

	if (v->exit.nbytes) {
		n = MIN(v->exit.nbytes, (u8)INSN_MAX);
		memcpy(bytes, v->exit.bytes, n);
		err = insn_decode(bytes, n, v->exit.mode, in);
		if (err != -EAGAIN)
			return err;
	}
	n = 0;
	fetched = guest_fetch(v, bytes, &n, va, error);
	err = n ? insn_decode(bytes, n, v->exit.mode, in) : -EAGAIN;
	return err == -EAGAIN && fetched ? fetched : err;
}

static enum outcome unknown(struct vcpu *v, const char *what)
{
	vcpu_crash(v, "%s at %lx", what, v->regs.rip);
	return OUT_STOP;
}

static enum outcome cannot_decode(struct vcpu *v, int err, gva_t va, u32 error)
{
	switch (err) {
	case -EFAULT:
		hvm->set(v, REG_CR2, va);
		vcpu_exception(v, VEC_PF, true, error);
		return OUT_RESUME;
	case -EINVAL:
		vcpu_exception(v, VEC_UD, false, 0);
		return OUT_RESUME;
	case -EAGAIN:
		vcpu_exception(v, VEC_GP, true, 0);
		return OUT_RESUME;
	case -EIO:
		return unknown(v, "page tables of the code are not in RAM");
	case -ENOENT:
		return unknown(v, "executes from where no RAM is");
	default:
		return unknown(v, "an instruction that the emulator does not know");
	}
}

enum outcome emulate(struct vcpu *v)
{
	struct emu e = {.v = v, .mode = v->exit.mode, .real = v->exit.mode == MODE_REAL};
	struct emul_fault f;
	struct insn in;
	gva_t va = 0;
	u32 error = 0;
	int err = fetch_and_decode(v, &in, &va, &error);

	if (err)
		return cannot_decode(v, err, va, error);
	e.one_operand = in.has_mem && !(in.map == 0 && (in.opcode == 0xff || in.opcode == 0x8f)); /* PUSH, CALL, POP */
	switch (insn_exec(&in, &v->regs, &emu_ops, &e, &f)) {
	case EMUL_OK:
		insn_done(v, 0);
		break;
	case EMUL_FAULT:
		if (f.vector == VEC_PF)
			hvm->set(v, REG_CR2, f.cr2);
		vcpu_exception(v, f.vector, f.has_error, f.error);
		break;
	case EMUL_AGAIN:
	case EMUL_RETRY:
		break;
	case EMUL_UNKNOWN:
		return unknown(v, "an instruction that is not emulated");
	}
	return atomic_load_relaxed(&v->vm->ending) ? OUT_STOP : v->halted ? OUT_BLOCK : OUT_RESUME;
}
