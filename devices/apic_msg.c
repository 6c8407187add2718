/* SPDX-License-Identifier: MIT */
/* How interrupt messages find local APICs. Runs on the sender's pCPU and touches of a receiver only what is atomic. */
#include "devices/lapic_regs.h"
#include "devices/platform.h"
#include "lib/bits.h"

static void kick(struct lapic *l) { l->platform->ops->kick(l->platform->ctx, l->vcpu); }

/*
 * TMR before the request: whoever sees the request sees its kind. Nobody is kicked for one that is on its way already;
 * where the vCPU is inside, its hardware takes what is posted without an exit. See tests/model/posted.pml.
 */
bool lapic_post(struct lapic *l, u8 vector, bool level)
{
	const struct platform_ops *ops = l->platform->ops;
	u32 *tmr = lapic_word(l, REG_TMR, vector), bit = 1u << vector % 32;
	u64 *set = level ? l->level : l->posted;

	if (!(atomic_load_relaxed(&l->base) & LAPIC_BASE_ENABLE) || !atomic_load_relaxed(&l->enabled) || vector < 16)
		return false;
	if (level)
		atomic_or(tmr, bit);
	else if (atomic_load(tmr) & bit)
		atomic_and(tmr, ~bit);
	if (atomic_or(&set[vector / 64], BIT(vector % 64)) & BIT(vector % 64))
		return true;
	if (level)
		atomic_store(&l->is_level, true);
	(atomic_load(&l->inside) && !level ? ops->notify : ops->kick)(l->platform->ctx, l->vcpu);
	return true;
}

static void post_event(struct lapic *l, u32 event)
{
	atomic_or(&l->events, event);
	kick(l);
}

u32 lapic_take_events(struct lapic *l, u8 *sipi)
{
	u32 events = atomic_load(&l->events) ? atomic_swap(&l->events, 0) : 0;

	*sipi = atomic_load(&l->sipi_vector);
	return events;
}

/* Returns whether l took it. SMIs have no handler here; 8259 interrupts come by the virtual wire, not by message. */
static bool deliver(struct lapic *l, const struct apic_msg *m)
{
	switch (m->delivery) {
	case APIC_FIXED:
	case APIC_LOWEST:
		return lapic_post(l, m->vector, m->level);
	case APIC_NMI:
		post_event(l, LAPIC_EV_NMI);
		return true;
	case APIC_INIT: /* undoes a SIPI that came before it */
		atomic_and(&l->events, ~(u32)LAPIC_EV_SIPI);
		post_event(l, LAPIC_EV_INIT);
		return true;
	case APIC_STARTUP:
		atomic_store(&l->sipi_vector, m->vector);
		post_event(l, LAPIC_EV_SIPI);
		return true;
	default:
		return false;
	}
}

/* SDM vol. 3, 11.6.2.2 and 11.12.10: x2APIC clusters of 16; xAPIC flat model, or clusters of 4. */
static bool matches_logical(const struct lapic *l, u32 dest)
{
	u32 ldr = lapic_get(l, REG_LDR);

	if (dest == APIC_BROADCAST)
		return true;
	if (atomic_load_relaxed(&l->base) & LAPIC_BASE_X2APIC)
		return dest >> 16 == ldr >> 16 && (dest & ldr & 0xffff);
	ldr >>= 24;
	if (dest > 0xff)
		return false;
	if (lapic_get(l, REG_DFR) >> 28 == 0xf)
		return dest & ldr;
	return (dest >> 4 == ldr >> 4 || dest >> 4 == 0xf) && (dest & ldr & 0xf);
}

static bool matches(const struct lapic *l, const struct lapic *src, const struct apic_msg *m)
{
	switch (m->shorthand) {
	case APIC_SELF:
		return l == src;
	case APIC_ALL:
		return true;
	case APIC_OTHERS:
		return l != src;
	}
	return m->logical ? matches_logical(l, m->dest) : m->dest == l->vcpu || m->dest == APIC_BROADCAST;
}

/* Among those a lowest-priority message names, the one whose task priority is lowest takes it. */
bool lapic_send(struct platform *p, const struct lapic *src, const struct apic_msg *m)
{
	struct lapic *best = NULL;
	bool taken = false;

	if (m->shorthand == APIC_DEST && !m->logical && m->dest < p->vcpus)
		return deliver(p->lapic[m->dest], m);
	for (unsigned i = 0; i < p->vcpus; i++) {
		struct lapic *l = p->lapic[i];

		if (!matches(l, src, m))
			continue;
		if (m->delivery != APIC_LOWEST)
			taken |= deliver(l, m);
		else if (atomic_load_relaxed(&l->enabled) &&
			 (!best || lapic_get(l, REG_TPR) < lapic_get(best, REG_TPR)))
			best = l;
	}
	return best ? deliver(best, m) : taken;
}
