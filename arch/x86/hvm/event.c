/* SPDX-License-Identifier: MIT */
/*
 * What reaches a vCPU from outside its instruction stream, and in which order (AMD APM vol. 2, 8.5; Intel SDM vol. 3,
 * 6.9): INIT and SIPI, then what an exit interrupted or caused, then NMI, then interrupts.
 *
 * One event goes in with an entry. What has to wait for the guest (IF, a shadow, a running NMI handler) asks for a
 * window, that is, an exit at the first moment at which it can be taken. Where the hardware delivers from the local
 * APIC by itself, it only has to be entered.
 */
#include "arch/x86/hvm/exit.h"

#include "lib/bits.h"

static bool contributory(u8 vec) { return vec == 0 || (vec >= 10 && vec <= 13); }

/* Whether vec, raised while old was being delivered, makes a double fault. */
static bool doubles(u8 old, u8 vec)
{
	return (contributory(old) && contributory(vec)) || (old == VEC_PF && (vec == VEC_PF || contributory(vec)));
}

/*
 * A handler of #DB may access the debug registers, whatever raised it (SDM vol. 3, 17.2.4). That of a fault returns
 * with RF, so that no breakpoint at the instruction hits again.
 *
 * An NMI or interrupt during whose delivery the exception came is taken after the exception's handler. The interrupt is
 * acknowledged and in service, so nobody else remembers it.
 */
void vcpu_exception(struct vcpu *v, u8 vector, bool has_error, u32 error)
{
	struct vm_event *e = &v->event;

	if (e->valid && e->type == EVENT_EXCEPTION) {
		if (e->vector == VEC_DF) {
			vm_end(v->vm, END_RESET, "triple fault");
			return;
		}
		if (doubles(e->vector, vector)) {
			vector = VEC_DF;
			has_error = true;
			error = 0;
		}
	} else if (e->valid && e->type == EVENT_NMI) {
		v->nmi_pending = true;
		v->nmi_blocked = false;
	} else if (e->valid && e->type == EVENT_INTR) {
		v->intr_again = e->vector + 1u;
	}
	if (vector == VEC_DB)
		hvm->set(v, REG_DR7, hvm->get(v, REG_DR7) & ~(u64)DR7_GD);
	else
		v->regs.rflags |= RFLAGS_RF;
	*e = (struct vm_event){.valid = true, .type = EVENT_EXCEPTION, .vector = vector, .error = error};
	e->has_error = has_error && (hvm->get(v, REG_CR0) & CR0_PE);
}

static void start_at_sipi(struct vcpu *v, u8 page)
{
	v->wait_sipi = false;
	hvm->set_seg(v, SEG_CS, (struct segment){(u64)page << 12, 0xffff, (u16)(page << 8), 0x9b});
	v->regs.rip = 0;
}

static void take_apic_events(struct vcpu *v)
{
	u8 page;

	atomic_store(&v->stuck, false); /* before the events go, see all_stuck */

	u32 ev = lapic_take_events(&v->lapic, &page);

	if (ev & LAPIC_EV_INIT) {
		if (v->index == 0) { /* would start at the firmware, of which there is none */
			vm_end(v->vm, END_RESET, "INIT of the first processor");
			return;
		}
		vcpu_reset(v);
		lapic_reset(&v->lapic, true);
		v->wait_sipi = true;
	}
	if ((ev & LAPIC_EV_SIPI) && v->wait_sipi)
		start_at_sipi(v, page);
	if ((ev & LAPIC_EV_NMI) && !v->wait_sipi)
		v->nmi_pending = true;
}

static void send(struct vcpu *v, u8 type, u8 vector)
{
	v->event = (struct vm_event){.valid = true, .type = type, .vector = vector};
	v->halted = false;
}

bool vcpu_deliver(struct vcpu *v)
{
	if (atomic_load(&v->lapic.events))
		take_apic_events(v);
	if (v->wait_sipi || atomic_load_relaxed(&v->vm->ending))
		return false;

	int vec = v->intr_again ? v->intr_again - 1 : platform_pending(&v->vm->platform, v->index);

	if (v->event.valid) {
		v->halted = false;
	} else if (v->nmi_pending || vec >= 0) {
		bool shadow = hvm->get(v, REG_INT_SHADOW), can_intr = (v->regs.rflags & RFLAGS_IF) && !shadow;

		if (v->nmi_pending && !v->nmi_blocked && !shadow) {
			v->nmi_pending = false;
			v->nmi_blocked = true;
			send(v, EVENT_NMI, 2);
		} else if (vec >= 0 && can_intr) {
			if (!v->intr_again)
				vec = platform_ack(&v->vm->platform, v->index);
			v->intr_again = 0;
			if (vec >= 0)
				send(v, EVENT_INTR, (u8)vec);
			vec = platform_pending(&v->vm->platform, v->index);
		}
	}
	if (v->halted && !((v->regs.rflags & RFLAGS_IF) && lapic_delivers(&v->lapic)))
		return false;
	v->halted = false;
	atomic_store(&v->stuck, false);
	hvm->window(v, vec >= 0, v->nmi_pending);
	return true;
}

bool vcpu_run_once(struct vcpu *v)
{
	if (atomic_load(&v->vm->ending) || !vcpu_deliver(v))
		return false;
	hvm->run(v);
	return exit_dispatch(v, &v->exit) != OUT_STOP;
}
