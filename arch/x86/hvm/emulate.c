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
#include "arch/x86/hvm/soft.h"
#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/string.h"

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

enum emul_result fault(struct vcpu *v, u8 vector, u32 error)
{
	v->fault.vector = vector;
	v->fault.error = error;
	return EMUL_FAULT;
}

int guest_translate(struct vcpu *v, gva_t la, u32 access, gpa_t *gpa)
{
	static const struct gwalk_ops ops = {table_read, table_set_bits};
	struct gwalk_mode m = {.cr0 = hvm->get(v, REG_CR0),
			       .cr3 = hvm->get(v, REG_CR3),
			       .cr4 = hvm->get(v, REG_CR4),
			       .efer = hvm->get(v, REG_EFER),
			       .rflags = v->regs.rflags,
			       .phys_bits = (u8)guest_phys_bits(v),
			       .gb_pages = cpu_has(FEAT_GB_PAGES)};
	struct gwalk_result r;
	int err = gwalk(&m, la, access | (v->exit.cpl == 3 ? PF_USER : 0), &ops, v, &r);

	*gpa = r.gpa;
	if (err == -EFAULT) {
		fault(v, VEC_PF, r.error);
		v->fault.cr2 = la;
	}
	return err;
}

/*
 * The access that faulted has just been translated by the CPU, with the guest's permissions for its kind: its linear
 * address is not known, but with one operand and the same place in the page it is that.
 */
static bool is_faulting_access(const struct vm_exit *x, u64 la, u32 access)
{
	return x->one_operand && x->kind == EXIT_NPF && ((la ^ x->gpa) & ~PAGE_MASK) == 0 &&
	       x->access == (access & PF_WRITE ? P2M_WRITE : P2M_READ);
}

static enum emul_result translate(struct vcpu *v, u64 la, u32 access, gpa_t *gpa)
{
	if (is_faulting_access(&v->exit, la, access)) {
		*gpa = v->exit.gpa;
		return EMUL_OK;
	}

	int err = guest_translate(v, la, access, gpa);

	if (err == -EIO) {
		vcpu_crash(v, "page tables for %lx are not in RAM", la);
		return EMUL_RETRY;
	}
	return err ? EMUL_FAULT : EMUL_OK;
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
static enum emul_result linear(struct vcpu *v, enum seg s, u64 off, unsigned size, bool write, u64 *la)
{
	bool ok;

	if (v->exit.mode == MODE_64) {
		u64 cr4 = hvm->get(v, REG_CR4);

		if (s == SEG_FS || s == SEG_GS)
			off += hvm->get_seg(v, s).base;
		*la = off;
		ok = canonical(off, cr4) && canonical(off + size - 1, cr4);
	} else {
		struct segment seg = hvm->get_seg(v, s);
		bool code = seg.attr & SEG_TYPE_CODE;

		off = (u32)off;
		*la = (u32)(seg.base + off);
		ok = in_limit(&seg, off, size);
		if (v->exit.mode != MODE_REAL &&
		    (!(seg.attr & SEG_ATTR_P) || (write && code) || ((write || code) && !(seg.attr & SEG_TYPE_WRITE))))
			ok = false;
	}
	return ok ? EMUL_OK : fault(v, s == SEG_SS ? VEC_SS : VEC_GP, 0);
}

/* --- Guest-physical accesses. */

void guest_bus(struct vcpu *v, struct bus_op *op)
{
	struct platform *p = &v->vm->platform;

	if (op->space == BUS_MMIO && (op->addr & PAGE_MASK) == lapic_page(&v->lapic)) {
		lapic_mmio(&v->lapic, op);
		return;
	}
	lock_take(&p->lock);
	bus_access(&p->bus, op);
	lock_drop(&p->lock);
}

/* A device sees accesses of 1, 2, 4 or 8 bytes. */
static void mmio(struct vcpu *v, gpa_t gpa, u8 *buf, unsigned size, bool write)
{
	for (unsigned step; size; gpa += step, buf += step, size -= step) {
		struct bus_op op = {.space = BUS_MMIO, .write = write, .addr = gpa};

		step = MIN(1u << bit_high(size), 8u);
		op.size = (u8)step;
		if (write)
			memcpy(&op.val, buf, step);
		guest_bus(v, &op);
		if (!write)
			memcpy(buf, &op.val, step);
	}
}

/*
 * The page that faulted is not looked up again: p2m_fault has just said that it is the bus's, or ROM that is written.
 * Others that are not accessible as RAM are a device, ROM that is written, or memory that should be there and is not.
 */
static enum emul_result phys_access(struct vcpu *v, gpa_t gpa, void *buf, unsigned size, bool write)
{
	const struct vm_exit *x = &v->exit;
	struct p2m *p = &v->vm->p2m;

	if (x->kind == EXIT_NPF && ((gpa ^ x->gpa) & PAGE_MASK) == 0 && write == (x->access == P2M_WRITE)) {
		mmio(v, gpa, buf, size, write);
		return EMUL_OK;
	}
	if ((write ? p2m_write(p, gpa, buf, size) : p2m_read(p, gpa, buf, size)) == 0)
		return EMUL_OK;
	switch (p2m_get(p, gpa_to_gfn(gpa)).type) {
	case P2M_NONE:
	case P2M_MMIO:
	case P2M_APIC:
	case P2M_BALLOONED:
		mmio(v, gpa, buf, size, write);
		return EMUL_OK;
	case P2M_RO:
		return EMUL_OK;
	case P2M_RAM: /* by now */
		return EMUL_RETRY;
	default:
		vcpu_crash(v, "no memory for the page at %lx", gpa);
		return EMUL_RETRY;
	}
}

static enum emul_result linear_access(struct vcpu *v, u64 la, void *buf, unsigned size, enum emul_access a)
{
	unsigned first = (unsigned)MIN((u64)size, PAGE_SIZE - (la & ~PAGE_MASK));
	u32 need = a == EMUL_READ ? 0 : PF_WRITE;
	gpa_t gpa[2];
	enum emul_result res = translate(v, la, need, &gpa[0]);

	if (res == EMUL_OK && first < size)
		res = translate(v, v->exit.mode == MODE_64 || la >> 32 ? la + first : (u32)(la + first), need, &gpa[1]);
	if (res == EMUL_OK)
		res = phys_access(v, gpa[0], buf, first, a == EMUL_WRITE);
	if (res == EMUL_OK && first < size)
		res = phys_access(v, gpa[1], (u8 *)buf + first, size - first, a == EMUL_WRITE);
	return res;
}

enum emul_result table_access(struct vcpu *v, u64 la, void *buf, unsigned size, enum emul_access a)
{
	u8 cpl = v->exit.cpl;
	u64 rflags = v->regs.rflags;
	enum emul_result res;

	v->exit.one_operand = false;
	v->exit.cpl = 0;
	v->regs.rflags &= ~(u64)RFLAGS_AC;
	res = linear_access(v, hvm->get(v, REG_EFER) & EFER_LMA ? la : (u32)la, buf, size, a);
	v->exit.cpl = cpl;
	v->regs.rflags = rflags;
	return res;
}

enum emul_result segment_access(void *v, enum seg s, u64 off, void *buf, unsigned size, enum emul_access a)
{
	u64 la;
	enum emul_result res = linear(v, s, off, size, a != EMUL_READ, &la);

	return res == EMUL_OK ? linear_access(v, la, buf, size, a) : res;
}

static enum emul_result op_cmpxchg(void *ctx, enum seg s, u64 off, void *old, const void *new, unsigned size,
				   bool *done)
{
	struct vcpu *v = ctx;
	u8 now[16];
	gpa_t gpa;
	u64 la;
	enum emul_result res = linear(v, s, off, size, true, &la);

	if (res == EMUL_OK)
		res = translate(v, la, PF_WRITE, &gpa);
	if (res != EMUL_OK)
		return res;
	if (p2m_cmpxchg(&v->vm->p2m, gpa, old, new, size, done) == 0)
		return EMUL_OK;
	/* A device, or a misaligned operand, which hardware locks the bus for: not atomic here. */
	res = segment_access(v, s, off, now, size, EMUL_RMW);
	if (res != EMUL_OK)
		return res;
	*done = memcmp(now, old, size) == 0;
	memcpy(old, now, size);
	return *done ? segment_access(v, s, off, (void *)new, size, EMUL_WRITE) : EMUL_OK;
}

/* --- Ports. */

/* The CPU has checked the port that exited, by IOPL and the TSS's bitmap; any other is allowed by IOPL alone. */
static enum emul_result op_io(void *ctx, u16 port, unsigned size, u32 *val, bool write)
{
	struct bus_op op = {.space = BUS_PIO, .size = (u8)size, .write = write, .addr = port, .val = *val};
	struct vcpu *v = ctx;
	const struct vm_exit *x = &v->exit;

	if (x->cpl > (v->regs.rflags & RFLAGS_IOPL) >> 12 && !(x->kind == EXIT_IO && x->io.port == port))
		return fault(v, VEC_GP, 0);
	guest_bus(v, &op);
	*val = (u32)op.val;
	return EMUL_OK;
}

/* --- Registers. */

/* The decoder lets only CR0, 2, 3, 4 and 8 pass. */
static enum emul_result op_cr(void *ctx, unsigned n, u64 *val, bool write)
{
	static const u8 reg[] = {REG_CR0, VREGS, REG_CR2, REG_CR3, REG_CR4};
	struct vcpu *v = ctx;

	if (write)
		return guest_write_cr(v, n, *val) ? fault(v, VEC_GP, 0) : EMUL_OK;
	*val = n == 8 ? lapic_get_cr8(&v->lapic) : hvm->get(v, reg[n]);
	return EMUL_OK;
}

static enum emul_result op_raise(void *v, u8 vector) { return fault(v, vector, 0); }
static u16 op_get_sel(void *v, enum seg s) { return hvm->get_seg(v, s).sel; }

static unsigned op_cpl(void *v) { return ((struct vcpu *)v)->exit.cpl; }
static unsigned op_stack_size(void *v) { return hvm->get_seg(v, SEG_SS).attr & SEG_ATTR_DB ? 4 : 2; }

/* --- Instructions for the whole vCPU. */

/* Map and opcode. */
enum { INSN_POP_SS = 0x17, INSN_MOV_TO_SEG = 0x8e, INSN_INT3 = 0xcc, INSN_INT, INSN_INTO, INSN_IRET, INSN_HLT = 0xf4 };
enum { INSN_STI = 0xfb, INSN_TABLES = 0x101, INSN_INVD = 0x108, INSN_WBINVD, INSN_GET_DR = 0x121, INSN_SET_DR = 0x123 };
enum { INSN_WRMSR = 0x130, INSN_RDTSC, INSN_RDMSR, INSN_RDPMC, INSN_CPUID = 0x1a2 };

static unsigned opcode_of(const struct insn *in) { return in->map << 8u | in->opcode; }

/* SGDT, SIDT, LGDT, LIDT, INVLPG: 0, 1, 2, 3, 7. */
static enum emul_result tables(struct vcpu *v, const struct insn *in)
{
	unsigned n = in->modrm >> 3 & 7;
	enum seg s = n & 1 ? SEG_IDTR : SEG_GDTR;
	struct segment t = hvm->get_seg(v, s);
	struct {
		u16 limit;
		u64 base;
	} PACKED image = {(u16)t.limit, t.base};
	bool wide = in->mode == MODE_64;
	enum emul_result res;

	if (n == 7) {
		hvm->flush(v);
		return EMUL_OK;
	}
	image.base = n < 2 ? image.base : 0;
	res = segment_access(v, (enum seg)in->seg, insn_ea(in, &v->regs), &image, wide ? 10 : 6,
			     n < 2 ? EMUL_WRITE : EMUL_READ);
	if (res != EMUL_OK || n < 2)
		return res;
	if (wide && !canonical(image.base, hvm->get(v, REG_CR4)))
		return fault(v, VEC_GP, 0);
	t.limit = image.limit;
	t.base = wide || in->opsize == 4 ? image.base : image.base & 0xffffff;
	hvm->set_seg(v, s, t);
	return EMUL_OK;
}

/* DR4 and DR5 are the old names of DR6 and DR7. What is reserved in these cannot be changed. */
static enum emul_result debug_register(struct vcpu *v, const struct insn *in, struct gregs *regs)
{
	static const u64 can_be_set[] = {0xe00f, 0xffff23ff}, always_set[] = {0xffff0ff0, 0x400};
	unsigned n = in->modrm >> 3 & 7, i = n & 1;
	u64 *r = &regs->r[(in->modrm & 7) | (in->rex & 1) << 3], val = in->opsize == 8 ? *r : (u32)*r;
	bool write = opcode_of(in) == INSN_SET_DR;

	if ((n & 6) == 4 && hvm->get(v, REG_CR4) & CR4_DE)
		return fault(v, VEC_UD, 0);
	if (n < 4)
		hvm_host.dr(v, n, &val, write);
	else if (!write)
		val = hvm->get(v, REG_DR6 + i);
	else if (val >> 32)
		return fault(v, VEC_GP, 0);
	else
		hvm->set(v, REG_DR6 + i, (val & can_be_set[i]) | always_set[i]);
	if (!write)
		*r = val;
	return EMUL_OK;
}

static enum emul_result op_system(void *ctx, const struct insn *in, struct gregs *regs)
{
	struct vcpu *v = ctx;
	unsigned op = opcode_of(in);
	u8 vector = op == INSN_INT3 ? VEC_BP : op == INSN_INTO ? VEC_OF : (u8)in->imm;
	int err = 0;

	switch (op) {
	case INSN_INT3:
	case INSN_INT:
	case INSN_INTO:
		return soft_deliver(v, regs, (struct vm_event){.type = EVENT_SOFT, .vector = vector});
	case INSN_TABLES:
		return tables(v, in);
	case INSN_GET_DR:
	case INSN_SET_DR:
		return debug_register(v, in, regs);
	case INSN_CPUID:
		do_cpuid(v, regs);
		break;
	case INSN_RDTSC:
		if (v->exit.cpl && hvm->get(v, REG_CR4) & CR4_TSD)
			return fault(v, VEC_GP, 0);
		set_pair(regs, hvm->get(v, REG_TSC));
		break;
	case INSN_RDPMC: /* CPUID offers no counters */
		return fault(v, VEC_GP, 0);
	case INSN_WRMSR:
		err = do_wrmsr(v, regs);
		break;
	case INSN_RDMSR:
		err = do_rdmsr(v, regs);
		break;
	case INSN_HLT:
		v->halted = true;
		break;
	case INSN_INVD:
	case INSN_WBINVD:
		break;
	default:
		return EMUL_UNKNOWN;
	}
	return err ? fault(v, VEC_GP, 0) : EMUL_OK;
}

static void op_xmm(void *v, unsigned n, void *val, bool write) { hvm_host.xmm(n, val, write); }

/* In the order of struct emul_ops; each has a type of its own. */
static const struct emul_ops emu_ops = {op_raise,     segment_access, op_cmpxchg,    op_io,     op_cr, op_get_sel,
					load_segment, op_cpl,         op_stack_size, op_system, op_xmm};

/* --- The instruction. */

int guest_fetch(struct vcpu *v, u8 *bytes, unsigned *n)
{
	bool wide = v->exit.mode == MODE_64;
	struct segment cs = {.limit = ~0u};
	unsigned end = INSN_MAX;

	if (!wide)
		cs = hvm->get_seg(v, SEG_CS);
	if (!wide && v->regs.rip + INSN_MAX > cs.limit + 1ul)
		end = v->regs.rip > cs.limit ? 0 : (unsigned)(cs.limit + 1ul - v->regs.rip);
	for (unsigned step; *n < end; *n += step) {
		gva_t la = cs.base + v->regs.rip + *n;
		gpa_t gpa;

		if (!wide)
			la = (u32)la;
		step = (unsigned)MIN((u64)(end - *n), PAGE_SIZE - (la & ~PAGE_MASK));

		int err = guest_translate(v, la, PF_FETCH, &gpa);

		if (err)
			return err;
		if (p2m_read(&v->vm->p2m, gpa, bytes + *n, step))
			return -ENOENT;
		if (v->exit.cpl == 0)
			v->code = (struct code_page){hvm->get(v, REG_CR3), la & PAGE_MASK, gpa & PAGE_MASK};
	}
	if (end == INSN_MAX)
		return 0;
	fault(v, VEC_GP, 0);
	return -EFAULT;
}

/* Code that has just left protected mode keeps its default sizes until its segment is loaded with others. */
static enum gcpu_mode decode_mode(struct vcpu *v)
{
	bool real = v->exit.mode == MODE_REAL && !(v->regs.rflags & RFLAGS_VM);

	return real && hvm->get_seg(v, SEG_CS).attr & SEG_ATTR_DB ? MODE_32 : v->exit.mode;
}

/*
 * Decodes the instruction at rip. One that ends before a page that cannot be read needs nothing of that page. 0, or
 * what insn_decode says, or guest_fetch.
 */
static int fetch_and_decode(struct vcpu *v, struct insn *in)
{
	const struct vm_exit *x = &v->exit;
	enum gcpu_mode mode = decode_mode(v);
	u8 bytes[INSN_MAX];
	unsigned n = 0;
	int fetched, err = -EAGAIN;

	if (x->nbytes && x->kind != EXIT_SOFT)
		err = insn_decode(x->bytes, x->nbytes, mode, in);
	if (err == -EAGAIN) {
		fetched = guest_fetch(v, bytes, &n);
		err = insn_decode(bytes, n, mode, in);
		err = err == -EAGAIN && fetched ? fetched : err;
	}
	in->mode = x->mode;
	return err;
}

static void raise(struct vcpu *v)
{
	const u64 with_error = BIT(VEC_NP) | BIT(VEC_SS) | BIT(VEC_GP) | BIT(VEC_PF);
	u8 vector = v->fault.vector;

	if (vector == VEC_PF)
		hvm->set(v, REG_CR2, v->fault.cr2);
	vcpu_exception(v, vector, with_error & BIT(vector), v->fault.error);
}

/* Delivers v->event, which the hardware cannot. It stays if that fails, for raise to see what was under way. */
static enum emul_result deliver(struct vcpu *v)
{
	struct gregs r = v->regs;
	enum emul_result res = soft_deliver(v, &r, v->event);

	if (res != EMUL_OK)
		return res;
	v->regs = r;
	v->event.valid = false;
	hvm->set(v, REG_INT_SHADOW, 0);
	return EMUL_OK;
}

/* After an instruction begun with the flags was. A handler begins without TF, so no single step ends there. */
static void retire(struct vcpu *v, const struct insn *in, u64 was)
{
	unsigned op = opcode_of(in);
	bool sti = op == INSN_STI && !(was & RFLAGS_IF);
	bool ss = op == INSN_POP_SS || (op == INSN_MOV_TO_SEG && (in->modrm >> 3 & 7) == SEG_SS);
	bool in_handler = op >= INSN_INT3 && op <= INSN_INTO && !(v->regs.rflags & RFLAGS_TF);

	if (op == INSN_IRET)
		v->nmi_blocked = false;
	insn_end(v, sti || ss, was & RFLAGS_TF && !ss && !in_handler);
}

static enum emul_result execute(struct vcpu *v)
{
	u64 rflags = v->regs.rflags;
	struct insn in;
	int err = fetch_and_decode(v, &in);

	if (err == -EAGAIN || err == -EINVAL) /* too long; no instruction */
		return fault(v, err == -EAGAIN ? VEC_GP : VEC_UD, 0);
	if (err == -EIO)
		vcpu_crash(v, "page tables of the code at %lx are not in RAM", v->regs.rip);
	if (err == -ENOENT)
		vcpu_crash(v, "executes from where no RAM is, at %lx", v->regs.rip);
	if (err)
		return err == -EFAULT ? EMUL_FAULT : err == -ENOSYS ? EMUL_UNKNOWN : EMUL_RETRY;
	v->exit.one_operand =
		in.has_mem && !(in.map == 0 && (in.opcode == 0xff || in.opcode == 0x8f)); /* PUSH, CALL, POP */

	enum emul_result res = insn_exec(&in, &v->regs, &emu_ops, v);

	if (res == EMUL_OK)
		retire(v, &in, rflags);
	else if (res == EMUL_AGAIN)
		insn_end(v, false, rflags & RFLAGS_TF);
	return res;
}

enum outcome emulate(struct vcpu *v)
{
	bool event = v->exit.kind == EXIT_SOFT && v->event.valid;
	enum emul_result res = event ? deliver(v) : execute(v);

	if (res == EMUL_UNKNOWN && event)
		return vcpu_crash(v, "vector %x cannot be delivered in this state, at %lx", (u8)v->event.vector,
				  v->regs.rip);
	if (res == EMUL_UNKNOWN)
		return vcpu_crash(v, "an instruction that is not emulated at %lx", v->regs.rip);
	if (res == EMUL_FAULT)
		raise(v);
	return atomic_load_relaxed(&v->vm->ending) ? OUT_STOP : v->halted ? do_hlt(v) : OUT_RESUME;
}
