/* SPDX-License-Identifier: MIT */
/*
 * Building a guest is a list of steps, each of which may fail with a reason; what was built so far is then taken down
 * by the same function that ends a guest. Images are read again at each start, so that a restart is a fresh machine.
 */
#include "guest/guest.h"

#include "arch/x86/cpu/cpu.h"
#include "arch/x86/cpu/features.h"
#include "arch/x86/cpu/pcpu.h"
#include "arch/x86/hvm/exit.h"
#include "drivers/console.h"
#include "lib/assert.h"
#include "lib/errno.h"
#include "lib/port.h"
#include "lib/print.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/heap.h"
#include "sched/kick.h"

/* A guest that ended this often in a row, each time that soon after its start, is not started again. */
#define QUICK_ENDS_MAX  5
#define QUICK_END_NS    5000000000ul
#define SCRUBS          16u       /* of 64 KB, in a step */
#define CLEAR_NS_PER_MB 4000000ul /* how long a restart waits for zeroed memory */
#define LINE_MAX        240
#define LINE_FLUSH_NS   100000000ul

enum guest_state { GUEST_OFF, GUEST_RUNNING, GUEST_ENDED, GUEST_CLEARING };

struct guest {
	struct vm vm;
	const struct guest_config *config;
	char name[CONFIG_NAME_MAX + 1];
	char tag[CONFIG_NAME_MAX + 4]; /* "[name] " */
	char cmdline[CONFIG_CMDLINE_MAX + 1];
	struct load_error error;      /* why it could not be started */
	u32 state;                    /* enum guest_state; atomic: set ENDED on any pCPU, else by the boot pCPU */
	u32 working;                  /* a pCPU is in its p2m_work; atomic */
	u64 told;                     /* collapses when it was told that there is no more to do; under .working */
	bool again;                   /* CLEARING: starts again afterwards */
	u64 ended;                    /* ns */
	u64 started;                  /* ns */
	unsigned quick_ends;          /* in a row */
	char line[LINE_MAX];          /* output not yet shown; under output_lock */
	unsigned line_len, line_seen; /* line_seen: when the timer last looked */
	struct timer line_timer;      /* shows an unfinished line, such as a prompt */
};

static struct guest *guests[CONFIG_MAX_GUESTS];
static unsigned guest_count;
static unsigned pcpu_load[MAX_PCPUS]; /* vCPUs placed on each */
static const struct host_config *host_config;
static guest_file_fn find_file;
static u32 guest_tsc_khz;
static u64 wall_at_boot;

static struct lock output_lock = LOCK_INIT(LOCK_OUTPUT);

extern const u8 dsdt_start[], dsdt_end[];

/* Keeps in words why g could not be started: err. */
#define fail(g, err, ...) ((void)format((g)->error.text, sizeof((g)->error.text), __VA_ARGS__), (err))

/* --- Output: one guest has the console as it is; of several each line is marked with its guest's name. */

static void show_line(struct guest *g)
{
	console_write(g->tag, g->line, g->line_len);
	g->line_len = g->line_seen = 0;
}

static void show_rest(struct guest *g)
{
	lock_take(&output_lock);
	show_line(g);
	lock_drop(&output_lock);
}

/* Only a line that has rested since the last look, for one in the making would be torn when its vCPU has to wait. */
static void show_unfinished(void *arg)
{
	struct guest *g = arg;

	lock_take(&output_lock);
	bool rests = g->line_len == g->line_seen;
	g->line_seen = g->line_len;
	if (rests)
		show_line(g);
	lock_drop(&output_lock);
	if (!rests)
		timer_set(&g->line_timer, port_now() + LINE_FLUSH_NS);
}

static void guest_output(void *ctx, u8 c)
{
	struct guest *g = ctx;

	if (guest_count == 1) {
		console_write("", (const char *)&c, 1);
		return;
	}
	lock_take(&output_lock);
	if (c != '\r')
		g->line[g->line_len++] = (char)c;
	bool done = c == '\n' || g->line_len == sizeof(g->line);
	if (done)
		show_line(g);
	lock_drop(&output_lock);
	if (!done && g->line_len == 1)
		timer_set(&g->line_timer, port_now() + LINE_FLUSH_NS);
}

/* --- Start. */

/* The largest part first: so the small ones do not break the gigabytes that it could use. */
static int add_memory(struct guest *g, struct memmap *map)
{
	const struct {
		gpa_t start, end;
		enum p2m_type type;
	} part[] = {
		{4 * GB, map->high_end, P2M_RAM},
		{0x100000, map->low_end, P2M_RAM},
		{0, MIN(map->low_end, 0xa0000ul), P2M_RAM},
		{GUEST_ROM_BASE, GUEST_ROM_BASE + GUEST_ROM_SIZE, P2M_RO},
	};
	struct p2m *p2m = &g->vm.p2m;
	int err = 0;

	for (size_t i = 0; i < ARRAY_SIZE(part) && !err; i++) {
		if (part[i].end <= part[i].start)
			continue;
		gfn_t first = gpa_to_gfn(part[i].start);
		err = p2m_add_slot(p2m, first, (part[i].end - part[i].start) >> PAGE_SHIFT, part[i].type);
		if (!err && g->config->demand && part[i].type == P2M_RAM)
			err = p2m_populate_on_demand(p2m, first);
		else if (!err)
			err = p2m_populate(p2m, first);
	}
	return err;
}

static int build_memory(struct guest *g, struct memmap *map)
{
	const struct guest_config *c = g->config;
	unsigned width = MIN(cpu_features.phys_bits, 48), largest = hvm_host.max_order;
	struct frames_stats free;
	int err;

	frames_stats(&free);
	if (!c->demand && free.free < c->memory / PAGE_SIZE)
		return fail(g, -ENOMEM, "memory = %luM, but only %luM are free: lower memory =, or start fewer guests",
			    c->memory / MB, free.free * PAGE_SIZE / MB);
	memmap_build(map, c->memory);
	if (map->high_end > 1ul << width)
		return fail(g, -EINVAL, "memory = is more than this CPU's %u address bits reach", width);
	err = p2m_init(&g->vm.p2m, hvm->format, (u16)(OWNER_GUEST + g->vm.id), MIN(c->max_order, largest), width);
	g->told = 0;
	g->vm.p2m.machine = cpu_features.phys_bits;
	g->vm.p2m.pt.ad = !hvm_host.no_ad;
	g->vm.p2m.pt.exec_small = hvm_host.exec_small;
	g->vm.p2m.work.merge = g->vm.p2m.pt.merge = host_config->merge;
	g->vm.p2m.work.collapse = host_config->collapse;
	if (!err)
		err = add_memory(g, map);
	if (err)
		return fail(g, err, "memory = %luM: the machine's memory ran out: lower memory =", c->memory / MB);
	return 0;
}

/* The allowed pCPU with the fewest vCPUs so far, or -ENODEV. */
static int place_vcpu(u64 allowed)
{
	int best = -ENODEV;

	for (int i = 0; i < MAX_PCPUS; i++)
		if (allowed >> i & 1 && pcpus[i].online && (best < 0 || pcpu_load[i] < pcpu_load[best]))
			best = i;
	return best;
}

static void power(void *ctx, enum power_event ev, const char *how)
{
	struct guest *g = ctx;

	vm_end(&g->vm, ev == POWER_OFF ? END_POWEROFF : END_RESET, "%s", how);
}

static void kick_vcpu(void *ctx, unsigned vcpu)
{
	struct guest *g = ctx;

	vcpu_kick(g->vm.vcpu[vcpu]);
}

static void notify_vcpu(void *ctx, unsigned vcpu)
{
	struct guest *g = ctx;

	vcpu_notify(g->vm.vcpu[vcpu]);
}

static const struct platform_ops platform_ops = {
	.console_out = guest_output, .power = power, .kick = kick_vcpu, .notify = notify_vcpu};

static int build_vcpus(struct guest *g)
{
	const struct guest_config *c = g->config;
	struct vm *vm = &g->vm;
	struct lapic *lapic[MAX_VCPUS];
	struct timerq *queue[MAX_VCPUS];

	ASSERT(c->vcpus); /* the config allows no less than one */
	vm->vcpu = heap_alloc(c->vcpus * sizeof(*vm->vcpu));
	if (!vm->vcpu)
		return fail(g, -ENOMEM, "no memory for %u vCPUs", c->vcpus);
	for (unsigned i = 0; i < c->vcpus; i++) {
		int cpu = place_vcpu(c->cpus);

		if (cpu < 0)
			return fail(g, cpu, "cpus = names no pCPU of this machine, which has 0-%u", pcpu_count - 1);
		int err = vcpu_create(vm, i, (unsigned)cpu, c->weight, &vm->vcpu[i]);
		if (err)
			return fail(g, err, "no memory for vCPU %u", i);
		pcpu_load[cpu]++;
		vm->vcpus = i + 1;
		lapic[i] = &vm->vcpu[i]->lapic;
		queue[i] = &pcpus[cpu].timers;
	}
	timer_init(&g->line_timer, queue[0], show_unfinished, g);
	platform_init(&vm->platform, &platform_ops, g, lapic, vm->vcpus, queue, &vm->clock,
		      wall_at_boot + port_now() / NS_PER_SECOND);
	return 0;
}

static int find_blob(struct guest *g, const char *key, struct slice name, struct blob *out)
{
	if (!find_file(name.s, name.len, out))
		return 0;
	return fail(g, -ENOENT, "%s = %.*s: no such file: put it beside guests.conf and into the boot menu's modules",
		    key, (int)name.len, name.s);
}

static int load_images(struct guest *g, const struct memmap *map, struct start_state *start)
{
	const struct guest_config *c = g->config;
	struct blob kernel, module[CONFIG_MAX_MODULES];
	struct blob dsdt = {"DSDT", dsdt_start, (u64)dsdt_end - (u64)dsdt_start};
	struct load_input in = {&g->vm.p2m, map, &kernel, module, c->initrds, g->cmdline, 0};
	int err = find_blob(g, "kernel", c->kernel, &kernel);

	for (unsigned i = 0; i < c->initrds && !err; i++)
		err = find_blob(g, "initrd", c->initrd[i], &module[i]);
	if (err)
		return err;
	err = tables_write(&g->vm.p2m, c->vcpus, &dsdt, &in.rsdp);
	if (err)
		return fail(g, err, "its ACPI tables could not be written (error %d)", -err);
	return load_kernel(&in, start, &g->error);
}

static void set_flat(struct vcpu *v, enum seg s, u16 sel, u16 attr)
{
	hvm->set_seg(v, s, (struct segment){.limit = 0xffffffff, .sel = sel, .attr = attr});
}

/* Puts the first vCPU where the loaded kernel expects it. */
static void enter_kernel(struct vcpu *v, const struct start_state *s)
{
	u64 *r = v->regs.r;

	vcpu_reset(v);
	set_flat(v, SEG_CS, 0x10, s->long_mode ? 0xa9b : 0xc9b);
	for (unsigned seg = SEG_ES; seg < SEGS_USER; seg++)
		if (seg != SEG_CS)
			set_flat(v, seg, 0x18, 0xc93);
	hvm->set_seg(v, SEG_GDTR, (struct segment){.base = s->gdt, .limit = s->gdt_limit});
	if (s->long_mode) {
		hvm->set(v, REG_CR3, s->cr3);
		hvm->set(v, REG_CR4, CR4_PAE);
		hvm->set(v, REG_EFER, EFER_LME | EFER_LMA);
		hvm->set(v, REG_CR0, CR0_PG | CR0_PE | CR0_ET | CR0_NE);
	} else
		hvm->set(v, REG_CR0, CR0_PE | CR0_ET);
	v->regs = (struct gregs){.rip = s->rip, .rflags = 2};
	r[R_AX] = s->rax;
	r[R_BX] = s->rbx;
	r[R_SI] = s->rsi;
}

static void vm_ended(struct vm *vm)
{
	atomic_store(&container_of(vm, struct guest, vm)->state, GUEST_ENDED);
	port_kick(0);
}

/* Takes down whatever of the guest has been built, but for its memory. */
static void take_down(struct guest *g)
{
	struct vm *vm = &g->vm;

	while (atomic_load(&g->working))
		port_relax();
	if (vm->platform.ops) {
		platform_free(&vm->platform);
		timer_cancel(&g->line_timer);
	}
	for (unsigned i = 0; i < vm->vcpus; i++) {
		pcpu_load[vm->vcpu[i]->pcpu]--;
		vcpu_destroy(vm->vcpu[i]);
	}
	heap_free(vm->vcpu, g->config->vcpus * sizeof(*vm->vcpu));
}

static int guest_start(struct guest *g, unsigned id)
{
	const struct guest_config *c = g->config;
	struct start_state start = {0};
	struct memmap map;
	int err;

	memset(&g->vm, 0, sizeof(g->vm));
	g->vm.name = g->name;
	g->vm.id = id;
	g->vm.clock = (struct guest_clock){.start_ns = port_now(), .tsc_khz = guest_tsc_khz};
	g->vm.ended = vm_ended;
	if (!hvm)
		return fail(g, -ENODEV, "this machine offers no virtualisation: see the line with 'hvm' above");
	if (c->paging == PAGING_SHADOW)
		return fail(g, -ENOSYS, "paging = shadow is not in this version: use paging = auto");
	if (c->cap)
		log("guest %s: cap = is not in this version: it runs without a limit\n", g->name);
	err = build_memory(g, &map);
	if (!err)
		err = build_vcpus(g);
	if (!err)
		err = load_images(g, &map, &start);
	if (err)
		return err;
	enter_kernel(g->vm.vcpu[0], &start);
	g->started = port_now();
	g->line_len = g->line_seen = 0;
	g->vm.live = g->vm.vcpus;
	log("@start guest=%s paging=%s vcpus=%u memory=%luM\n", g->name, hvm->paging, g->vm.vcpus, c->memory / MB);
	p2m_report(&g->vm.p2m, g->name);
	atomic_store(&g->state, GUEST_RUNNING);
	sched_wake(&g->vm.vcpu[0]->sched);
	return 0;
}

static bool try_start(struct guest *g, unsigned id)
{
	if (!guest_start(g, id))
		return true;
	log("guest %s: %s\n@end guest=%s reason=config detail=start\n", g->name, g->error.text, g->name);
	take_down(g);
	if (g->vm.p2m.owner)
		p2m_free(&g->vm.p2m);
	atomic_store(&g->state, GUEST_OFF);
	return false;
}

static struct guest *guest_new(const struct guest_config *c)
{
	struct guest *g = heap_alloc(sizeof(*g));

	if (!g)
		return NULL;
	g->config = c;
	memcpy(g->name, c->name.s, c->name.len); /* the config holds only what fits */
	format(g->tag, sizeof(g->tag), "[%s] ", g->name);
	memcpy(g->cmdline, c->cmdline.s, c->cmdline.len);
	return g;
}

unsigned guests_start(const struct config *config, guest_file_fn file, u32 tsc_khz, u64 wall_seconds)
{
	unsigned started = 0;

	host_config = &config->host;
	find_file = file;
	guest_tsc_khz = tsc_khz;
	wall_at_boot = wall_seconds;
	for (const struct guest_config *c = config->guest; c < config->guest + config->guests; c++) {
		struct guest *g = c->bad ? NULL : guest_new(c);

		if (g)
			guests[guest_count++] = g;
		else if (!c->bad)
			log("guest %.*s: no memory for its description\n", (int)c->name.len, c->name.s);
	}
	for (unsigned i = 0; i < guest_count; i++)
		started += try_start(guests[i], i);
	return started;
}

/* --- End. */

/* A reset restarts, as on any PC; a crash if on-crash says so. Neither goes on for ever at once. */
static bool wants_restart(struct guest *g)
{
	u8 why = g->vm.end_reason;

	if (why != END_RESET && (why != END_CRASH || !g->config->restart))
		return false;
	g->quick_ends = port_now() - g->started < QUICK_END_NS ? g->quick_ends + 1 : 1;
	if (g->quick_ends < QUICK_ENDS_MAX)
		return true;
	log("guest %s: ended %u times in a row soon after its start: not started again\n", g->name, g->quick_ends);
	return false;
}

static void guest_finish(struct guest *g)
{
	static const char *const reason[] = {"poweroff", "reset", "crash", "killed"};

	show_rest(g);
	log("@end guest=%s reason=%s detail=%s\n", g->name, reason[g->vm.end_reason], g->vm.end_detail);
	vm_report_exits(&g->vm);
	p2m_report(&g->vm.p2m, g->name);
#ifndef NDEBUG
	log("@audit guest=%s errors=%lu\n", g->name, p2m_audit(&g->vm.p2m));
#endif
	g->again = wants_restart(g);
	g->ended = port_now();
	take_down(g);
	atomic_store(&g->state, GUEST_CLEARING);
}

void guests_poll(void)
{
	for (unsigned i = 0; i < guest_count; i++)
		if (atomic_load(&guests[i]->state) == GUEST_ENDED)
			guest_finish(guests[i]);
}

/*
 * A step of what is left to do for a guest that has ended. Before it starts again, memory is zeroed, so that this need
 * not be done in one go.
 */
static void clear_step(struct guest *g, unsigned id, u64 now)
{
	struct frames_stats s;

	if (p2m_free_step(&g->vm.p2m))
		return;
	frames_stats(&s);
	if (g->again && s.dirty && now - g->ended < g->config->memory / MB * CLEAR_NS_PER_MB) {
		for (unsigned i = 0; i < SCRUBS && frames_scrub(); i++)
			continue;
		return;
	}
	atomic_store(&g->state, GUEST_OFF);
	if (g->again)
		try_start(g, id);
}

/* Memory that was in pieces has become whole again, as far as it can. */
static void tell_whole(struct guest *g)
{
	struct p2m *p2m = &g->vm.p2m;

	if (p2m->work.next != TIMER_NEVER || g->told == p2m->collapses)
		return;
	g->told = p2m->collapses;
	p2m_report(p2m, g->name);
}

/* The guest's end waits until .working is clear, and nobody sets it for long once the state has changed. */
static u64 work_for(struct guest *g, unsigned id, u64 now)
{
	u64 next = TIMER_NEVER;

	if (atomic_load(&g->state) == GUEST_CLEARING && port_cpu() == 0) {
		clear_step(g, id, now);
		return now; /* if that was the last step, the run loop's poll must see it */
	}
	if (atomic_load(&g->state) != GUEST_RUNNING || atomic_swap(&g->working, 1))
		return TIMER_NEVER;
	if (atomic_load(&g->state) == GUEST_RUNNING) {
		next = p2m_work(&g->vm.p2m, now);
		tell_whole(g);
	}
	atomic_store(&g->working, 0);
	return next;
}

u64 guests_work(bool idle)
{
	u64 now = port_now(), next = TIMER_NEVER;

	for (unsigned i = 0; i < guest_count; i++)
		next = MIN(next, work_for(guests[i], i, now));
	return next > now && idle && frames_scrub() ? now : next;
}

bool guests_idle(void)
{
	for (unsigned i = 0; i < guest_count; i++)
		if (atomic_load(&guests[i]->state) != GUEST_OFF)
			return false;
	return true;
}

void guests_input(u8 c)
{
	for (unsigned i = 0; i < guest_count; i++) {
		if (atomic_load(&guests[i]->state) != GUEST_RUNNING)
			continue;
		platform_input(&guests[i]->vm.platform, c);
		return;
	}
}
