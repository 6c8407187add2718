/* SPDX-License-Identifier: MIT */
/* guests.conf: every key, every default, every error with its place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guest/config.h"
#include "lib/errno.h"

static struct config c;

static int parse(const char *text) { return config_parse(text, strlen(text), &c); }

static void assert_slice(struct slice s, const char *want)
{
	assert_int_equal(s.len, strlen(want));
	assert_memory_equal(s.s, want, s.len);
}

static void assert_error(unsigned i, const char *want)
{
	char text[256];
	config_error_text(&c, i, "F", text, sizeof(text));
	assert_string_equal(text, want);
}

/* Parses a guest with this line, in line 4, added to what it needs; it must be good. */
static const struct guest_config *guest_with(const char *line)
{
	static char text[8192];
	snprintf(text, sizeof(text), "[guest g]\nkernel = k\nmemory = 64M\n%s\n", line);
	assert_int_equal(parse(text), 0);
	assert_int_equal(c.errors, 0);
	assert_int_equal(c.guests, 1);
	return &c.guest[0];
}

/* The same with a bad line: one error at that column of it, whose text begins so. */
static void guest_error(const char *line, unsigned column, const char *want)
{
	static char text[8192];
	snprintf(text, sizeof(text), "[guest g]\nkernel = k\nmemory = 64M\n%s\n", line);
	assert_int_equal(parse(text), -EINVAL);
	assert_int_equal(c.errors, 1);
	assert_int_equal(c.error[0].line, 4);
	assert_int_equal(c.error[0].column, column);
	assert_true(c.guest[0].bad);
	assert_string_equal(c.error[0].text, want);
}

/* A good guest, and a [host] line that is in line 5. */
static void host_error(const char *line, unsigned column, const char *want)
{
	static char text[8192];
	snprintf(text, sizeof(text), "[guest g]\nkernel = k\nmemory = 64M\n[host]\n%s\n", line);
	assert_int_equal(parse(text), 0);
	assert_int_equal(c.errors, 1);
	assert_int_equal(c.error[0].line, 5);
	assert_int_equal(c.error[0].column, column);
	assert_false(c.guest[0].bad);
	assert_string_equal(c.error[0].text, want);
}

static const struct host_config *host_with(const char *line)
{
	static char text[8192];
	snprintf(text, sizeof(text), "[host]\n%s\n[guest g]\nkernel = k\nmemory = 64M\n", line);
	assert_int_equal(parse(text), 0);
	assert_int_equal(c.errors, 0);
	return &c.host;
}

static void defaults(void **state)
{
	const struct guest_config *g = guest_with("");
	assert_slice(g->name, "g");
	assert_slice(g->kernel, "k");
	assert_slice(g->cmdline, "");
	assert_int_equal(g->initrds, 0);
	assert_int_equal(g->memory, 64 * MB);
	assert_int_equal(g->vcpus, 1);
	assert_int_equal(g->cpus, ~0ull);
	assert_int_equal(g->weight, 256);
	assert_int_equal(g->cap, 0);
	assert_int_equal(g->paging, PAGING_AUTO);
	assert_int_equal(g->max_order, ORDER_1G);
	assert_false(g->demand);
	assert_false(g->restart);
	assert_false(g->bad);
	assert_int_equal(g->line, 1);
	assert_int_equal(c.host.consoles, 0);
	assert_int_equal(c.host.when_idle, IDLE_POWEROFF);
	assert_int_equal(c.host.max_order, ORDER_1G);
	assert_true(c.host.mmio_cache);
}

static void guest_keys(void **state)
{
	assert_slice(guest_with("cmdline = console=ttyS0 a#b x = y  # why")->cmdline, "console=ttyS0 a#b x = y");
	assert_slice(guest_with("cmdline =")->cmdline, "");
	assert_slice(guest_with("initrd = a b/c.img")->initrd[0], "a b/c.img");
	const struct guest_config *g = guest_with("initrd = a\ninitrd=b\nINITRD = c");
	assert_int_equal(g->initrds, 3);
	assert_slice(g->initrd[2], "c");
	assert_int_equal(guest_with("vcpus = 64")->vcpus, 64);
	assert_int_equal(guest_with("vcpus = 0x10")->vcpus, 16);
	assert_int_equal(guest_with("cpus = 0-1,3")->cpus, 0xb);
	assert_int_equal(guest_with("cpus = 0-63")->cpus, ~0ull);
	assert_int_equal(guest_with("cpus = 63 5, 5-6")->cpus, 1ull << 63 | 0x60);
	assert_int_equal(guest_with("weight = 65536")->weight, 65536);
	assert_int_equal(guest_with("cap = 50")->cap, 50);
	assert_int_equal(guest_with("cap = 100%")->cap, 100);
	assert_int_equal(guest_with("cap = 0")->cap, 0);
	assert_int_equal(guest_with("paging = shadow")->paging, PAGING_SHADOW);
	assert_int_equal(guest_with("paging = Nested")->paging, PAGING_NESTED);
	assert_int_equal(guest_with("max-page = 4k")->max_order, ORDER_4K);
	assert_int_equal(guest_with("max-page = 2M")->max_order, ORDER_2M);
	assert_true(guest_with("populate = demand")->demand);
	assert_false(guest_with("populate = boot")->demand);
	assert_true(guest_with("on-crash = restart")->restart);
	assert_false(guest_with("on-crash = stop")->restart);
}

static u64 memory(const char *size)
{
	char text[128];
	snprintf(text, sizeof(text), "[guest g]\nkernel=k\nmemory=%s", size);
	int err = parse(text);
	assert_int_equal(err ? 1 : 0, c.errors);
	return err ? 0 : c.guest[0].memory;
}

static void sizes(void **state)
{
	assert_int_equal(memory("1M"), MB);
	assert_int_equal(memory("512m"), 512 * MB);
	assert_int_equal(memory("3G"), 3 * GB);
	assert_int_equal(memory("64T"), 1ull << 46);
	assert_int_equal(memory("1048576"), MB);
	assert_int_equal(memory("1028K"), 1028 * KB);
	assert_int_equal(memory("65T"), 0);
	assert_int_equal(memory("512"), 0);
	assert_int_equal(memory("1048577"), 0);
	assert_int_equal(memory("1023K"), 0);
	assert_int_equal(memory("-1M"), 0);
	assert_int_equal(memory("1 M"), 0);
	assert_int_equal(memory("M"), 0);
	assert_int_equal(memory("512MB"), 0);
	assert_int_equal(memory("18446744073709551617M"), 0);
	assert_int_equal(memory("18014398509481985K"), 0); /* 2^64 + 1 KB */
}

static void host_keys(void **state)
{
	const struct host_config *h = host_with("console = com1, 0x2f8 screen");
	assert_int_equal(h->consoles, 3);
	assert_int_equal(h->console[0], 0x3f8);
	assert_int_equal(h->console[1], 0x2f8);
	assert_int_equal(h->console[2], CONSOLE_SCREEN);
	assert_int_equal(host_with("console = com3 com4")->console[1], 0x2e8);
	parse("[host]\nmax-page=2M\n[guest g]\nkernel=k\nmemory=1G\n[host]\nmmio-cache=off"); /* goes on */
	assert_int_equal(c.errors, 0);
	assert_int_equal(c.host.max_order, ORDER_2M);
	assert_false(c.host.mmio_cache);
	assert_int_equal(host_with("when-idle = wait")->when_idle, IDLE_WAIT);
	assert_int_equal(host_with("when-idle = reboot")->when_idle, IDLE_REBOOT);
	assert_false(host_with("mmio-cache = off")->mmio_cache);
	assert_false(host_with("merge = off")->merge);
	assert_false(host_with("collapse = off")->collapse);
	assert_true(host_with("collapse = off")->merge);
	assert_int_equal(host_with("max-page = 2M")->max_order, ORDER_2M);
	assert_int_equal(c.guest[0].max_order, ORDER_2M);
	parse("[guest g]\nkernel=k\nmemory=1G\nmax-page=1G\n[host]\nmax-page=4K");
	assert_int_equal(c.guest[0].max_order, ORDER_4K);
	parse("[guest g]\nkernel=k\nmemory=1G\nmax-page=4K\n[host]\nmax-page=2M");
	assert_int_equal(c.guest[0].max_order, ORDER_4K);
}

static void layout(void **state)
{
	static const char text[] =
		"\xef\xbb\xbf# c\r\n[ guest\tweb-1_.x ] # c\r\n\tkernel=k # c\r\n"
		"   memory   =   64M   \r\n#[guest no]\r\n\r\n[GUEST b]\r\nkernel = l\r\nMemory = 1G";
	assert_int_equal(parse(text), 0);
	assert_int_equal(c.errors, 0);
	assert_int_equal(c.guests, 2);
	assert_slice(c.guest[0].name, "web-1_.x");
	assert_slice(c.guest[0].kernel, "k");
	assert_int_equal(c.guest[0].memory, 64 * MB);
	assert_int_equal(c.guest[0].line, 2);
	assert_int_equal(c.guest[1].line, 7);
	assert_int_equal(parse("[guest host]\nkernel=k\nmemory=1G\r"), 0);
	assert_int_equal(c.errors, 0);
	assert_slice(c.guest[0].name, "host");
}

#define PATHS "a path below the config's folder, without \\, and no part empty or beginning with ."
#define SIZES "a size from 1M to 64T such as 512M, in whole 4K pages (bytes without K, M, G or T)"

static void guest_errors(void **state)
{
	guest_error("kernel = l", 1, "a second 'kernel' in this section");
	guest_error("  memory = 1G", 3, "a second 'memory' in this section");
	guest_error("initrd =", 9, "'initrd' wants " PATHS ", 16 at most; not ''");
	guest_error("initrd = # none", 9, "'initrd' wants " PATHS ", 16 at most; not ''");
	guest_error("initrd = a/../b", 10, "'initrd' wants " PATHS ", 16 at most; not 'a/../b'");
	guest_error("initrd = /b", 10, "'initrd' wants " PATHS ", 16 at most; not '/b'");
	guest_error("initrd = b/", 10, "'initrd' wants " PATHS ", 16 at most; not 'b/'");
	guest_error("initrd = ./b", 10, "'initrd' wants " PATHS ", 16 at most; not './b'");
	guest_error("initrd = a\\b", 10, "'initrd' wants " PATHS ", 16 at most; not 'a\\b'");
	guest_error("vcpus = 0", 9, "'vcpus' wants a number from 1 to 64; not '0'");
	guest_error("vcpus = 65", 9, "'vcpus' wants a number from 1 to 64; not '65'");
	guest_error("vcpus = 2x", 9, "'vcpus' wants a number from 1 to 64; not '2x'");
	guest_error("vcpus = 2K", 9, "'vcpus' wants a number from 1 to 64; not '2K'");
	guest_error("cpus = 0-1,64", 8, "'cpus' wants CPU numbers from 0 to 63 such as 0-1,3; not '0-1,64'");
	guest_error("cpus = 3-2", 8, "'cpus' wants CPU numbers from 0 to 63 such as 0-1,3; not '3-2'");
	guest_error("cpus = 1-", 8, "'cpus' wants CPU numbers from 0 to 63 such as 0-1,3; not '1-'");
	guest_error("cpus = ,", 8, "'cpus' wants CPU numbers from 0 to 63 such as 0-1,3; not ','");
	assert_int_equal(c.guest[0].cpus, ~0ull); /* a wrong value leaves the default */
	guest_error("weight = 65537", 10, "'weight' wants a number from 1 to 65536; not '65537'");
	guest_error("weight = 0", 10, "'weight' wants a number from 1 to 65536; not '0'");
	guest_error("cap = 101", 7, "'cap' wants a percentage from 1 to 100, or 0 for none; not '101'");
	guest_error("cap = 5%%", 7, "'cap' wants a percentage from 1 to 100, or 0 for none; not '5%%'");
	guest_error("paging = ept", 10, "'paging' wants auto, nested or shadow; not 'ept'");
	guest_error("max-page = 3M", 12, "'max-page' wants 4K, 2M or 1G; not '3M'");
	guest_error("populate = or", 12, "'populate' wants boot or demand; not 'or'");
	guest_error("populate = on", 12, "'populate' wants boot or demand; not 'on'");
	guest_error("on-crash = reboot", 12, "'on-crash' wants stop or restart; not 'reboot'");
	guest_error("memroy = 3", 1, "unknown key 'memroy': did you mean 'memory' in [guest NAME]?");
	guest_error("max_page = 4K", 1, "unknown key 'max_page': did you mean 'max-page' in [guest NAME]?");
	guest_error("vcpu = 3", 1, "unknown key 'vcpu': did you mean 'vcpus' in [guest NAME]?");
	guest_error("mmio-cache = on", 1, "unknown key 'mmio-cache': did you mean 'mmio-cache' in [host]?");
	guest_error("zzz = 1", 1, "unknown key 'zzz': did you mean 'kernel' in [guest NAME]?");
	guest_error("kernel", 1, "neither 'key = value' nor a [section]");
	guest_error(" = 3", 2, "unknown key '': did you mean 'kernel' in [guest NAME]?");
	assert_int_equal(parse("[guest g]\nkernel=k\nmemory=512"), -EINVAL);
	assert_error(0, "F:3:8: 'memory' wants " SIZES "; not '512'");
}

static void host_errors(void **state)
{
	static const char consoles[] = "com1 to com4, a port such as 0x3f8, screen, or a list of different ones";
	char text[256];
	snprintf(text, sizeof(text), "'console' wants %s; not 'com1, com5'", consoles);
	host_error("console = com1, com5", 11, text);
	snprintf(text, sizeof(text), "'console' wants %s; not 'com1 0x3f8'", consoles);
	host_error("console = com1 0x3f8", 11, text);
	snprintf(text, sizeof(text), "'console' wants %s; not '0x10000'", consoles);
	host_error("console = 0x10000", 11, text);
	snprintf(text, sizeof(text), "'console' wants %s; not 'com1 com2 com3 com4 screen 0x400'", consoles);
	host_error("console = com1 com2 com3 com4 screen 0x400", 11, text);
	host_error("when-idle = halt", 13, "'when-idle' wants poweroff, reboot or wait; not 'halt'");
	host_error("mmio-cache = 1", 14, "'mmio-cache' wants off or on; not '1'");
	host_error("memory = 1G", 1, "unknown key 'memory': did you mean 'memory' in [guest NAME]?");
	host_error("consoel = com1", 1, "unknown key 'consoel': did you mean 'console' in [host]?");
}

static void section_errors(void **state)
{
	assert_int_equal(parse("kernel = k\n[guest a]\nkernel=k\nmemory=1G"), 0);
	assert_error(0, "F:1:1: put this under [host] or [guest NAME]");
	parse("[hots]\nanything\n");
	assert_int_equal(c.errors, 1);
	assert_error(0, "F:1:2: unknown section [hots]: did you mean [host]?");
	parse("[web]");
	assert_error(0, "F:1:2: unknown section [web]: did you mean [guest NAME]?");
	parse("[gest web]");
	assert_error(0, "F:1:2: unknown section [gest web]: did you mean [guest NAME]?");
	parse("[guest a");
	assert_error(0, "F:1:1: a section is [host] or [guest NAME], and nothing behind it");
	parse("[guest a] b");
	assert_error(0, "F:1:1: a section is [host] or [guest NAME], and nothing behind it");
	parse("[");
	assert_int_equal(c.errors, 1);
	parse("[]");
	assert_int_equal(c.errors, 1);
	static const char *const bad_names[] = {"[guest]", "[guest a b]", "[guest a/b]", "[guest \xc3\xa4]",
						"[guest abcdefghijklmnopqrstuvwxyz-12345]"};
	for (unsigned i = 0; i < sizeof(bad_names) / sizeof(*bad_names); i++) {
		assert_int_equal(parse(bad_names[i]), -EINVAL);
		assert_int_equal(c.errors, 1);
		assert_int_equal(c.guests, 0);
		assert_int_equal(c.error[0].column, i ? 8 : 7);
		assert_string_equal(c.error[0].text, "a guest is [guest NAME]: 1 to 31 letters, digits, - _ and .; "
						     "at most 32 guests");
	}
}

static void missing(void **state)
{
	assert_int_equal(parse("[guest a]\nmemory=1G\n[guest b]\nkernel=k\n[guest c]\nkernel=k\nmemory=1G"), 0);
	assert_int_equal(c.errors, 2);
	assert_error(0, "F:1:1: this guest has no 'kernel': add it");
	assert_error(1, "F:3:1: this guest has no 'memory': add it");
	assert_true(c.guest[0].bad && c.guest[1].bad && !c.guest[2].bad);
	/* A wrong kernel is not missing as well. */
	parse("[guest a]\nkernel=/\nmemory=1G");
	assert_int_equal(c.errors, 1);
	assert_int_equal(parse(""), -EINVAL);
	assert_error(0, "F:1:1: no guest: add a section [guest NAME] with 'kernel' and 'memory'");
	assert_int_equal(parse("[host]\n"), -EINVAL);
	assert_int_equal(c.errors, 1);
}

static void one_name_twice(void **state)
{
	assert_int_equal(parse("[guest web]\nkernel=k\nmemory=1G\n\n[guest WEB]\nkernel=l\nmemory=2G\n"), 0);
	assert_int_equal(c.errors, 1);
	assert_error(0, "F:5:8: a second guest 'WEB', the first is in line 1");
	assert_int_equal(c.guests, 2);
	assert_false(c.guest[0].bad);
	assert_true(c.guest[1].bad);
}

static void limits(void **state)
{
	char *text = calloc(1, 1 << 16), *t = text;
	for (unsigned i = 0; i < CONFIG_MAX_GUESTS + 2; i++)
		t += sprintf(t, "[guest g%u]\nkernel=k\nmemory=1G\n", i);
	assert_int_equal(parse(text), 0);
	assert_int_equal(c.guests, CONFIG_MAX_GUESTS);
	assert_int_equal(c.errors, 2);
	assert_error(0, "F:97:8: a guest is [guest NAME]: 1 to 31 letters, digits, - _ and .; at most 32 guests");

	t = text + sprintf(text, "[guest g]\nkernel=k\nmemory=1G\n");
	for (unsigned i = 0; i < CONFIG_MAX_MODULES; i++)
		t += sprintf(t, "initrd = i%u\n", i);
	assert_int_equal(parse(text), 0);
	assert_int_equal(c.guest[0].initrds, CONFIG_MAX_MODULES);
	sprintf(t, "initrd = x\n");
	assert_int_equal(parse(text), -EINVAL);
	assert_int_equal(c.errors, 1);

	t = text + sprintf(text, "cmdline = ");
	memset(t, 'x', CONFIG_CMDLINE_MAX);
	t[CONFIG_CMDLINE_MAX] = 0;
	assert_int_equal(guest_with(text)->cmdline.len, CONFIG_CMDLINE_MAX);
	t[CONFIG_CMDLINE_MAX] = 'x';
	t[CONFIG_CMDLINE_MAX + 1] = 0;
	guest_error(text, 11, "'cmdline' wants at most 2047 bytes; not 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'");

	t = text + sprintf(text, "initrd = ");
	memset(t, 'x', 255);
	t[255] = 0;
	assert_int_equal(guest_with(text)->initrd[0].len, 255);
	t[255] = 'x';
	t[256] = 0;
	guest_error(text, 10, "'initrd' wants " PATHS ", 16 at most; not 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'");
	free(text);
}

static void many_errors(void **state)
{
	char text[4096], *t = text + sprintf(text, "[guest g]\nkernel=k\nmemory=1G\n");
	for (unsigned i = 0; i < 100; i++)
		t += sprintf(t, "zzz%u=1\n", i);
	assert_int_equal(parse(text), -EINVAL);
	assert_int_equal(c.errors, 100);
	assert_error(CONFIG_MAX_ERRORS - 1, "F:35:1: unknown key 'zzz31': did you mean 'kernel' in [guest NAME]?");
}

static void garbage(void **state)
{
	static const char elf[] = "\x7f"
				  "ELF\2\1\1\0\0";
	assert_int_equal(config_parse(elf, sizeof(elf), &c), -EINVAL);
	assert_int_equal(c.errors, 1);
	assert_error(0, "F:1:1: not a text file: it has a byte 0x7f here");
	static const char nul[] = "[host]\nmax-page = \0002M\n";
	assert_int_equal(config_parse(nul, sizeof(nul) - 1, &c), -EINVAL);
	assert_error(0, "F:2:12: not a text file: it has a byte 0x00 here");
	parse("[host]\rmax-page = 2M\n");
	assert_error(0, "F:1:7: not a text file: it has a byte 0x0d here");
	parse("\xff\xfe[\1");
	assert_int_equal(c.errors, 1);
}

static void too_large(void **state)
{
	size_t len = 10 << 20;
	char *text = malloc(len);
	memset(text, '=', len);
	assert_int_equal(config_parse(text, len, &c), -EINVAL);
	assert_error(0, "F:1:1: the file has 10485760 bytes; a config has at most 1048576");
	/* The largest that is read at all, in the shapes that could be slow. */
	assert_int_equal(config_parse(text, CONFIG_MAX_TEXT, &c), -EINVAL);
	static const char *const shapes[] = {"a=\n", "\n", "[x]\n", "[guest a]\n", "#", "[", "initrd=x\n", ","};
	for (unsigned s = 0; s < sizeof(shapes) / sizeof(*shapes); s++) {
		size_t n = strlen(shapes[s]), at = (size_t)sprintf(text, "[guest g]\n%s", s == 7 ? "cpus =" : "");
		for (; at < CONFIG_MAX_TEXT; at++)
			text[at] = shapes[s][at % n];
		config_parse(text, CONFIG_MAX_TEXT, &c);
		assert_true(c.errors);
	}
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),       cmocka_unit_test(guest_keys),     cmocka_unit_test(sizes),
		cmocka_unit_test(host_keys),      cmocka_unit_test(layout),         cmocka_unit_test(guest_errors),
		cmocka_unit_test(host_errors),    cmocka_unit_test(section_errors), cmocka_unit_test(missing),
		cmocka_unit_test(one_name_twice), cmocka_unit_test(limits),         cmocka_unit_test(many_errors),
		cmocka_unit_test(garbage),        cmocka_unit_test(too_large),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
