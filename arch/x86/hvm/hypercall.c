/* SPDX-License-Identifier: MIT */
/*
 * What a guest may ask of Cleave: docs/hypercalls.md. Every call does a bounded piece of work and tells how much, so
 * that a guest which wants more calls again, and the pCPU takes interrupts and runs others in between.
 */
#include "arch/x86/hvm/exit.h"
#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/print.h"

/* Blocks that one call gives back or gets: of 4 KB, and of 2 MB, which may have to be zeroed. */
#define SMALL_MAX 64u
#define LARGE_MAX 2u

/* Console lines cost each this much of the time that passes; what has been saved is at most SAVED. */
#define LINE_NS  10000000ul
#define AUDIT_NS (20 * LINE_NS)
/* What an audit costs beside that: this many times the time that it took. */
#define AUDIT_COST 10
#define SAVED_NS   (100 * LINE_NS)

enum { CALL_BALLOON = 1, CALL_RECLAIM, CALL_FRAMES, CALL_DEBUG, CALLS };
enum { DEBUG_REPORT, DEBUG_AUDIT, DEBUG_MAP };

/* The number of blocks done; or what is wrong with the first one. */
static s64 each_block(struct p2m *p, int (*fn)(struct p2m *, gfn_t, unsigned, struct pt_debt *), u64 gfn, u64 order,
		      u64 n)
{
	struct pt_debt debt = PT_DEBT_NONE;
	u64 done = 0, most = order ? LARGE_MAX : SMALL_MAX;
	int err = 0;

	if (order != ORDER_4K && order != ORDER_2M)
		return -EINVAL;
	for (; done < MIN(n, most) && !err; done += !err, gfn += BIT(order))
		err = fn(p, GFN(gfn), (unsigned)order, &debt);
	pt_settle(&p->pt, &debt);
	return done ? (s64)done : err;
}

static s64 frames(const struct p2m *p, u64 order)
{
	if (order != ORDER_4K && order != ORDER_2M && order != ORDER_1G)
		return -EINVAL;
	return (s64)p2m_frames(p, (unsigned)order);
}

/* Whether the guest may have the console, for that much of its time. vCPUs that ask at once may both. */
static bool may_print(struct vm *vm, u64 ns)
{
	u64 now = port_now(), saved = now > SAVED_NS ? now - SAVED_NS : 0;
	u64 used = MAX(atomic_load_relaxed(&vm->printed), saved) + ns;

	if (used > now)
		return false;
	atomic_store_relaxed(&vm->printed, used);
	return true;
}

static s64 debug(struct vm *vm, u64 what, u64 gfn)
{
	if (what > DEBUG_MAP || gfn >= BIT(vm->p2m.width - PAGE_SHIFT))
		return -EINVAL;
	if (!may_print(vm, what == DEBUG_AUDIT ? AUDIT_NS : LINE_NS))
		return -EAGAIN;
	if (what == DEBUG_MAP)
		return (s64)p2m_report_map(&vm->p2m, vm->name, GFN(gfn)).n;
	if (what == DEBUG_REPORT) {
		p2m_report(&vm->p2m, vm->name);
		return 0;
	}
	u64 start = port_now(), errors = p2m_audit(&vm->p2m);
	atomic_add(&vm->printed, AUDIT_COST * (port_now() - start));
	log("@audit guest=%s errors=%lu\n", vm->name, errors);
	return (s64)errors;
}

/* Which calls there are, a bit each; how many blocks of each size one of them does. */
void hypercall_cpuid(u32 r[4])
{
	r[0] = 1; /* of the interface */
	r[1] = (u32)BITS(CALLS - 1, 1);
	r[2] = SMALL_MAX;
	r[3] = LARGE_MAX;
}

void hypercall(struct vcpu *v, struct gregs *regs)
{
	u64 *r = regs->r, mask = v->exit.mode == MODE_64 ? ~0ul : BITS(31, 0);
	u64 number = r[R_AX] & mask, b = r[R_BX] & mask, c = r[R_CX] & mask, d = r[R_DX] & mask;
	struct p2m *p = &v->vm->p2m;
	s64 result = -ENOSYS;

	if (number == CALL_BALLOON)
		result = each_block(p, p2m_balloon, b, c, d);
	else if (number == CALL_RECLAIM)
		result = each_block(p, p2m_reclaim, b, c, d);
	else if (number == CALL_FRAMES)
		result = frames(p, b);
	else if (number == CALL_DEBUG)
		result = debug(v->vm, b, c);
	r[R_AX] = (u64)result & mask;
}
