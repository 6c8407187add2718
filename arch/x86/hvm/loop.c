/* SPDX-License-Identifier: MIT */
/*
 * The run loop of a pCPU: pick, run until the vCPU waits, its slice ends or something else wants the pCPU, put back.
 *
 * No wake-up is lost: p->kicked is cleared before the queues are looked at, and looked at with interrupts off before
 * the guest is entered or the pCPU halts; and an entity that was woken since it was picked is not blocked.
 */
#include "arch/x86/cpu/pcpu.h"
#include "arch/x86/cpu/time.h"
#include "arch/x86/hvm/vcpu.h"
#include "lib/bits.h"
#include "lib/port.h"

/* How often background work is looked for on a pCPU that is busy, and how often it gets a step if there is some. */
#define WORK_LOOK_NS 100000000ul
#define WORK_STEP_NS 1000000ul

void (*hvm_poll)(void);
u64 (*hvm_work)(bool idle);

/* The vCPU's last moment here. Whoever is last ends the vm, and touches neither of them afterwards. */
static void leave(struct pcpu *p, struct vcpu *v)
{
	struct vm *vm = v->vm;

	sched_remove(&v->sched);
	atomic_store(&v->dead, true);
	if (p->loaded == v)
		p->loaded = NULL;
	if (hvm->vcpu_leave)
		hvm->vcpu_leave(v);
	atomic_store(&p->running, NULL);
	if (atomic_add(&vm->live, -1u) > 0)
		return;
	while (atomic_load(&vm->ending) != 2)
		port_relax();
	if (vm->ended)
		vm->ended(vm);
}

static void run(struct pcpu *p, struct vcpu *v, u64 until)
{
	bool go;

	p2m_enter(&v->vm->p2m);
	atomic_store(&p->running, v);
	do {
		time_arm(MIN(MIN(until, p->work_due), atomic_load_relaxed(&p->timers.next)));
		go = vcpu_run_once(v);
	} while (go && !sched_resched(&p->runq) && !atomic_load_relaxed(&p->kicked));
	p2m_leave(&v->vm->p2m);
	sched_put(&v->sched, port_now(), !go);
	if (atomic_load(&v->vm->ending) && !v->dead)
		leave(p, v);
	else
		atomic_store(&p->running, NULL);
}

/* A step for those that wait on a pCPU which has a vCPU to run. */
static void work_aside(struct pcpu *p)
{
	u64 now = port_now();

	if (now < p->work_due)
		return;
	u64 due = hvm_work ? hvm_work(false) : TIMER_NEVER;
	p->work_due = MIN(MAX(due, now + WORK_STEP_NS), now + WORK_LOOK_NS);
}

void hvm_loop(void)
{
	struct pcpu *p = this_pcpu();

	for (;;) {
		u64 until;

		(void)atomic_swap(&p->kicked, 0);
		if (hvm_poll && p->id == 0)
			hvm_poll();

		u64 next = timers_run(&p->timers, port_now());
		struct sched_ent *e = sched_pick(&p->runq, port_now(), &until);

		if (e) {
			run(p, container_of(e, struct vcpu, sched), until);
			work_aside(p);
			continue;
		}
		u64 due = hvm_work ? hvm_work(true) : TIMER_NEVER;
		if (due > port_now())
			cpu_idle(MIN(next, due));
	}
}
