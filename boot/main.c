/* SPDX-License-Identifier: MIT */
/*
 * Bring-up, as one readable list: boot_main. Each step says on the console what it found; one that cannot go on panics
 * with what, where and what to do.
 */
#include "arch/x86/cpu/apic.h"
#include "arch/x86/cpu/cpu.h"
#include "arch/x86/cpu/features.h"
#include "arch/x86/cpu/mtrr.h"
#include "arch/x86/cpu/pcpu.h"
#include "arch/x86/cpu/smp.h"
#include "arch/x86/cpu/time.h"
#include "arch/x86/cpu/traps.h"
#include "boot/bootinfo.h"
#include "boot/efi.h"
#include "drivers/acpi.h"
#include "drivers/console.h"
#include "drivers/screen.h"
#include "drivers/serial.h"
#include "guest/guest.h"
#include "lib/errno.h"
#include "lib/port.h"
#include "lib/print.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/hostmap.h"

extern char image_start[], text_start[], text_end[], rodata_start[], rodata_end[], data_start[], image_end[];

#define CONFIG_NAME "guests.conf"

static struct bootinfo bootinfo;
static struct acpi acpi;
static struct config config;
static bool use_screen;
static int config_result; /* 0, -ENOENT without a file, or config_parse's */
static u64 entry_tsc, ram_total;
static hpa_t known_end; /* of what the frame table covers */

/* --- What the boot loader and the firmware say. */

/* The early tables reach 4 GB; what the firmware says may lie anywhere, or nowhere. */
static const void *read_physical(hpa_t pa, u64 len)
{
	return len <= 4 * GB && pa <= 4 * GB - len ? port_virt(pa) : NULL;
}

/* GS must hold the boot processor's area before the first lock, and so before the first message. */
static void early_pcpu(void)
{
	pcpus[0].self = &pcpus[0];
	wrmsr(MSR_GS_BASE, (u64)&pcpus[0]);
}

/* A file is a boot module: of that name, or with that name at the end of its path. */
static int find_module(const char *name, size_t len, struct blob *out)
{
	const struct boot_module *m = bootinfo_module(&bootinfo, name, len);

	if (!m)
		return -ENOENT;
	*out = (struct blob){.name = m->name, .data = port_virt(m->start), .size = m->len};
	return 0;
}

/* Early, for it names the consoles; what is wrong with it is told when they are there. */
static void read_config(void)
{
	struct blob file;

	config_result = find_module(CONFIG_NAME, sizeof(CONFIG_NAME) - 1, &file);
	if (!config_result)
		config_result = config_parse(file.data, file.size, &config);
}

static void open_serial(u16 port)
{
	if (!serial_open(port))
		log("console: no serial port answers at %#x\n", port);
}

static void open_screen(void)
{
	struct framebuffer *fb = &bootinfo.fb;

	if (!fb->base && bootinfo.firmware == FIRMWARE_BIOS)
		*fb = (struct framebuffer){.base = 0xb8000, .pitch = 160, .width = 80, .height = 25, .text = true};
	if (fb->base && !screen_open(fb, port_virt(fb->base)))
		log("console: a screen of %ux%u with %u bits a pixel cannot be used\n", fb->width, fb->height, fb->bpp);
}

/* The early tables reach 4 GB; later ones map it at the same place. */
static bool screen_in_early_reach(void)
{
	return bootinfo.fb.base < 4 * GB && bootinfo.fb.base + (u64)bootinfo.fb.pitch * bootinfo.fb.height <= 4 * GB;
}

/* Serial first, then the screen: as the command line says, as guests.conf says, as SPCR says, or what answers. */
static void open_consoles(void)
{
	static const u16 com[] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};
	char value[64] = "";

	use_screen = config.host.consoles == 0;
	acpi_read(&bootinfo.acpi, read_physical, &acpi);
	if (bootinfo_option(&bootinfo, "console", value, sizeof(value)) && !memcmp(value, "com", 3) &&
	    value[3] >= '1' && value[3] <= '4')
		open_serial(com[value[3] - '1']);
	else if (use_screen && !(acpi.spcr_port && serial_open(acpi.spcr_port)))
		for (unsigned i = 0; i < ARRAY_SIZE(com) && !serial_open(com[i]);)
			i++;
	for (unsigned i = 0; i < config.host.consoles; i++) {
		if (config.host.console[i] != CONSOLE_SCREEN)
			open_serial(config.host.console[i]);
		else
			use_screen = true;
	}
	if (use_screen && screen_in_early_reach())
		open_screen();
}

static void report_memory(void)
{
	static const char *const kind[] = {"free RAM", "loaded", "Cleave", "reserved"};

	for (unsigned i = 0; i < bootinfo.ranges; i++) {
		const struct mem_range *r = &bootinfo.range[i];

		log("memory: %012lx-%012lx %s\n", r->start, r->start + r->len - 1, kind[r->kind]);
		ram_total += r->kind == MEM_RESERVED ? 0 : r->len;
	}
	log("memory: %lu MB of RAM\n", ram_total / MB);
	if (bootinfo.dropped)
		log("memory: %u ranges or modules were too many and are not used\n", bootinfo.dropped);
}

static void read_boot_info(u32 magic, hpa_t info, hpa_t load_base)
{
	const char *wrong = bootinfo_parse(magic, info, read_physical, &bootinfo);

	bootinfo.image_start = load_base;
	bootinfo.image_end = load_base + (u64)image_end - (u64)image_start;
	if (bootinfo.efi_boot_services)
		efi_find_screen(&bootinfo);
	read_config();
	open_consoles();
	log("\nCleave %s: a Type-1 microhypervisor\n", CLEAVE_VERSION);
	if (wrong)
		panic("the boot loader's information is unusable: %s. Use GRUB's multiboot2 command", wrong);
	log("boot: %s, %s\n", bootinfo.firmware == FIRMWARE_UEFI ? "UEFI" : "BIOS", bootinfo.protocol);
	if (bootinfo.efi_boot_services && efi_take_over(&bootinfo))
		panic("the firmware does not let go of the machine (ExitBootServices): update it or boot in BIOS mode");
	bootinfo_claim(&bootinfo);
}

/* --- Memory. */

/* A place for the frame table: in the highest free RAM that the early tables reach. */
static hpa_t place_frame_table(u64 bytes)
{
	hpa_t best = 0;

	for (unsigned i = 0; i < bootinfo.ranges; i++) {
		const struct mem_range *r = &bootinfo.range[i];
		hpa_t end = MIN(r->start + r->len, 4 * GB);

		if (r->kind == MEM_RAM && r->start >= 1 * MB && end > r->start && end - r->start >= bytes)
			best = MAX(best, end - bytes);
	}
	return best;
}

static void init_frames(void)
{
	u64 frames = 0;
	hpa_t table = 0;

	for (unsigned i = 0; i < bootinfo.ranges; i++)
		if (bootinfo.range[i].kind != MEM_RESERVED)
			frames = MAX(frames, (bootinfo.range[i].start + bootinfo.range[i].len) / PAGE_SIZE);
	u64 wanted = frames;
	for (; frames && !table; frames = table ? frames : frames / 2)
		table = place_frame_table(ROUND_UP(frames * sizeof(struct frame), PAGE_SIZE));
	if (!table)
		panic("no free memory for the frame table: the machine has %lu MB of RAM", ram_total / MB);
	if (frames < wanted)
		log("memory: above %lu GB is not used: no room for its frame table\n", frames * PAGE_SIZE / GB);

	u64 bytes = ROUND_UP(frames * sizeof(struct frame), PAGE_SIZE);

	bootinfo_add(&bootinfo, table, bytes, MEM_LOADER);
	memset(port_virt(table), 0, bytes);
	frames_init(port_virt(table), frames);
	known_end = frames * PAGE_SIZE;
}

/*
 * Gives [start, end) to the allocator, but on Intel's CPUs only what the MTRRs say is write-back: EPT would make it so.
 * AMD's nested paging heeds them by itself, and they do not tell all there.
 */
static void add_write_back(hpa_t start, hpa_t end)
{
	static struct mtrrs mtrrs;
	u64 left_out = 0;

	if (cpu_has(FEAT_VMX) && !mtrrs.def)
		mtrr_read(&mtrrs);
	for (hpa_t at = start, next; at < end; at = next) {
		next = mtrr_end(&mtrrs, at, end);
		if (mtrr_is_wb(&mtrrs, at))
			frames_add(hpa_to_mfn(at), (next - at) / PAGE_SIZE);
		else
			left_out += next - at;
	}
	if (left_out)
		log("memory: %lu KB between %lx and %lx are not write-back by the MTRRs, and not used\n", left_out / KB,
		    start, end);
}

/* Gives the free RAM between two addresses to the allocator. */
static void add_frames(hpa_t from, hpa_t to)
{
	for (unsigned i = 0; i < bootinfo.ranges; i++) {
		const struct mem_range *r = &bootinfo.range[i];
		hpa_t start = MAX(r->start, from), end = MIN(r->start + r->len, to);

		if (r->kind == MEM_RAM && start < end)
			add_write_back(start, end);
	}
}

static void must_map(u64 va, hpa_t pa, u64 len, enum host_prot prot, enum host_cache cache)
{
	int err = hostmap_map(va, pa, len, prot, cache);

	if (err)
		panic("mapping %#lx to %#lx, %lu KB: error %d", va, pa, len / KB, -err);
}

static void map_image(void)
{
	const struct {
		char *start, *end;
		enum host_prot prot;
	} part[] = {
		{text_start, text_end, HOST_RX},
		{rodata_start, rodata_end, HOST_R},
		{data_start, image_end, HOST_RW},
	};

	for (size_t i = 0; i < ARRAY_SIZE(part); i++)
		must_map((u64)part[i].start, bootinfo.image_start + (u64)(part[i].start - image_start),
			 ROUND_UP((u64)(part[i].end - part[i].start), PAGE_SIZE), part[i].prot, HOST_WB);
}

/* RAM and what the loader put there, but not the image: its code must have no writable alias. */
static void map_ram(void)
{
	for (unsigned i = 0; i < bootinfo.ranges; i++) {
		const struct mem_range *r = &bootinfo.range[i];

		if (r->kind == MEM_RAM || r->kind == MEM_LOADER)
			must_map(DIRECT_MAP + r->start, r->start, r->len, HOST_RW, HOST_WB);
	}
}

static void map_screen(void)
{
	const struct framebuffer *fb = &bootinfo.fb;
	hpa_t start = ROUND_DOWN(fb->base, PAGE_SIZE);
	hpa_t end = ROUND_UP(fb->base + (u64)fb->pitch * fb->height, PAGE_SIZE);

	if (fb->base)
		must_map(DIRECT_MAP + start, start, end - start, HOST_RW, fb->text ? HOST_UC : HOST_WC);
}

static void init_memory(void)
{
	init_frames();
	add_frames(0, MIN(known_end, 4 * GB)); /* the tables that are made now must be in reach of the early ones */
	if (hostmap_init(cpu_has(FEAT_GB_PAGES) ? ORDER_1G : ORDER_2M, cpu_has(FEAT_NX)))
		panic("no memory for the hypervisor's own page table");
	map_image();
	map_ram();
	map_screen();
	cpu_init_this(&pcpus[0]); /* on to that table, with the NX that it needs */
	add_frames(4 * GB, known_end);
	if (use_screen && !screen_in_early_reach())
		open_screen();
}

/* --- Guests. */

static void report_config(void)
{
	char text[256];

	for (unsigned i = 0; i < MIN(config.errors, (unsigned)CONFIG_MAX_ERRORS); i++) {
		config_error_text(&config, i, CONFIG_NAME, text, sizeof(text));
		log("%s\n", text);
	}
	for (const struct guest_config *g = config.guest; g < config.guest + config.guests; g++)
		if (g->bad)
			log("@end guest=%.*s reason=config detail=" CONFIG_NAME ":%u\n", (int)g->name.len, g->name.s,
			    g->line);
}

static unsigned start_guests(void)
{
	if (config_result == -ENOENT)
		log("config: no module named %s: add 'module2 /cleave/%s %s' to the boot menu\n", CONFIG_NAME,
		    CONFIG_NAME, CONFIG_NAME);
	report_config();
	return config_result ? 0 : guests_start(&config, find_module, time_tsc_khz(), time_wall());
}

static void end_of_the_last_guest(void)
{
	if (config.host.when_idle == IDLE_WAIT) {
		hvm_poll = NULL;
		log("host: the last guest has ended; waiting, as when-idle says\n");
		return;
	}
	bool off = config.host.when_idle == IDLE_POWEROFF;

	log("host: the last guest has ended; %s\n", off ? "switching off" : "restarting the machine");
	smp_stop_others();
	console_drain();
	if (!off)
		acpi_reset(&acpi);
	acpi_power_off(&acpi);
	log("host: the machine cannot be switched off by software: do it by hand\n");
	hvm_poll = NULL;
}

static void poll(void)
{
	for (int c = serial_getc(); c >= 0; c = serial_getc())
		guests_input((u8)c);
	guests_poll();
	if (guests_idle())
		end_of_the_last_guest();
}

/* --- The list. */

static int prepare_pcpu(void) { return hvm ? hvm_cpu_on() : 0; }

static NORETURN void run_boot_pcpu(void)
{
	unsigned guests = start_guests();

	log("@ready guests=%u ticks=%lu\n", guests, rdtsc() - entry_tsc);
	hvm_work = guests_work;
	if (guests)
		hvm_poll = poll;
	else
		log("host: no guest could be started; the machine stays as it is, for the messages above to be read\n");
	hvm_loop();
}

/*
 * Called by the entry points in assembly. magic: the loader's; info: its information block; load_base: where
 * image_start lies. The direct map reaches 4 GB at least (under UEFI all that the firmware maps); interrupts are off,
 * or under UEFI still the firmware's.
 */
NORETURN void boot_main(u32 magic, hpa_t info, hpa_t load_base);

void boot_main(u32 magic, hpa_t info, hpa_t load_base)
{
	entry_tsc = rdtsc();
	early_pcpu();
	read_boot_info(magic, info, load_base);
	traps_init_boot();
	features_probe();
	report_memory();
	features_report();
	init_memory();
	if (traps_init_pcpu(&pcpus[0]))
		panic("no memory for the boot processor's stacks");
	traps_load_pcpu(&pcpus[0]);
	if (apic_init(&acpi))
		panic("this machine has no local APIC");
	apic_init_this();
	time_init(&acpi);
	time_init_this();
	if (serial_input_irq() >= 0) {
		traps_set_handler(VEC_SERIAL, serial_interrupt);
		ioapic_route_isa(&acpi, (unsigned)serial_input_irq(), VEC_SERIAL);
		serial_interrupt(); /* what came before the route makes no edge any more, and would block later ones */
	}
	cpu_sti();
	int no_hvm = hvm_init();
	unsigned online = smp_start(&acpi, prepare_pcpu, hvm_loop);

	log("@boot version=%s firmware=%s cpu=%s modes=%s pcpus=%u ram=%luM\n", CLEAVE_VERSION,
	    bootinfo.firmware == FIRMWARE_UEFI ? "uefi" : "bios", cpu_features.vendor_id, no_hvm ? "none" : hvm->paging,
	    online, ram_total / MB);

	/* From here on a stack with a guard page below it. */
	__asm__ volatile("mov %0, %%rsp; xor %%ebp, %%ebp; call *%1" ::"r"(pcpus[0].stack[STACK_MAIN]),
			 "r"(run_boot_pcpu)
			 : "memory");
	__builtin_unreachable();
}
