/* SPDX-License-Identifier: MIT */
/*
 * config FILE: what is wrong with a guests.conf, or what it means. Errors go to stderr as FILE:LINE:COLUMN: text, and
 * the exit status is 1; otherwise the config is printed with every default filled in, in its own syntax.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "guest/config.h"

static const char *file;
static char *text;
static struct config config;

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", file, what);
	exit(1);
}

/* Reads one byte more than a config may have, so that the parser can say that it is too large. */
static size_t read_file(void)
{
	FILE *f = fopen(file, "rb");
	if (!f)
		fail(strerror(errno));
	text = malloc(CONFIG_MAX_TEXT + 1);
	if (!text)
		fail("out of memory");
	size_t len = fread(text, 1, CONFIG_MAX_TEXT + 1, f);
	if (ferror(f))
		fail(strerror(errno));
	fclose(f);
	return len;
}

static unsigned print_errors(void)
{
	char line[512];
	unsigned shown = config.errors < CONFIG_MAX_ERRORS ? config.errors : CONFIG_MAX_ERRORS;
	for (unsigned i = 0; i < shown; i++) {
		config_error_text(&config, i, file, line, sizeof(line));
		fprintf(stderr, "%s\n", line);
	}
	if (config.errors > shown)
		fprintf(stderr, "%s: %u more errors\n", file, config.errors - shown);
	return config.errors;
}

/* A path of the config must name a file beside it. Tells where the config says so. */
static unsigned check_file(struct slice path)
{
	const char *slash = strrchr(file, '/');
	char name[4096];
	struct stat st;
	if (!path.len)
		return 0;
	snprintf(name, sizeof(name), "%.*s%.*s", slash ? (int)(slash - file + 1) : 0, file, (int)path.len, path.s);
	const char *problem = stat(name, &st) ? strerror(errno) : S_ISREG(st.st_mode) ? NULL : "is not a file";
	if (!problem)
		return 0;
	unsigned line = 1;
	const char *begin = text;
	for (const char *s = text; s < path.s; s++)
		if (*s == '\n') {
			line++;
			begin = s + 1;
		}
	fprintf(stderr, "%s:%u:%d: %s: %s\n", file, line, (int)(path.s - begin) + 1, name, problem);
	return 1;
}

static unsigned check_files(void)
{
	unsigned missing = 0;
	for (const struct guest_config *g = config.guest; g < config.guest + config.guests; g++) {
		missing += check_file(g->kernel);
		for (unsigned i = 0; i < g->initrds; i++)
			missing += check_file(g->initrd[i]);
	}
	return missing;
}

static const char *page(unsigned order) { return order == ORDER_1G ? "1G" : order == ORDER_2M ? "2M" : "4K"; }

static void print_host(void)
{
	static const char *const idle[] = {"poweroff", "reboot", "wait"};
	const struct host_config *h = &config.host;
	printf("[host]\n");
	for (unsigned i = 0; i < h->consoles; i++) {
		printf(i ? ", " : "console    = ");
		if (h->console[i] == CONSOLE_SCREEN)
			printf("screen");
		else
			printf("0x%x", h->console[i]);
	}
	printf(h->consoles ? "\n" : "# console: what the firmware names, else com1, and the screen\n");
	printf("when-idle  = %s\nmax-page   = %s\nmmio-cache = %s\nmerge      = %s\ncollapse   = %s\n",
	       idle[h->when_idle], page(h->max_order), h->mmio_cache ? "on" : "off", h->merge ? "on" : "off",
	       h->collapse ? "on" : "off");
}

static void print_memory(u64 bytes)
{
	static const char units[] = "KMGT";
	unsigned i = 0;
	for (bytes /= KB; i < 3 && bytes % 1024 == 0; i++)
		bytes /= 1024;
	printf("memory   = %llu%c\n", (unsigned long long)bytes, units[i]);
}

static void print_cpus(u64 mask)
{
	const char *sep = "cpus     = ";
	for (unsigned i = 0; i < 64; i++) {
		unsigned first = i;
		if (!(mask >> i & 1))
			continue;
		while (i < 63 && mask >> (i + 1) & 1)
			i++;
		printf(first == i ? "%s%u" : "%s%u-%u", sep, first, i);
		sep = ",";
	}
	printf("\n");
}

static void print_guest(const struct guest_config *g)
{
	static const char *const paging[] = {"auto", "nested", "shadow"};
	printf("\n[guest %.*s]\nkernel   = %.*s\n", (int)g->name.len, g->name.s, (int)g->kernel.len, g->kernel.s);
	for (unsigned i = 0; i < g->initrds; i++)
		printf("initrd   = %.*s\n", (int)g->initrd[i].len, g->initrd[i].s);
	printf("cmdline  =%s%.*s\n", g->cmdline.len ? " " : "", (int)g->cmdline.len,
	       g->cmdline.len ? g->cmdline.s : "");
	print_memory(g->memory);
	printf("vcpus    = %u\n", g->vcpus);
	print_cpus(g->cpus);
	printf("weight   = %u\ncap      = %u\npaging   = %s\nmax-page = %s\npopulate = %s\non-crash = %s\n", g->weight,
	       g->cap, paging[g->paging], page(g->max_order), g->demand ? "demand" : "boot",
	       g->restart ? "restart" : "stop");
}

int main(int argc, char **argv)
{
	if (argc != 2 || argv[1][0] == '-') {
		fprintf(stderr,
			"usage: config FILE\nChecks a guests.conf: says what is wrong with it, or what it means.\n");
		return argc == 2 && !strcmp(argv[1], "--help") ? 0 : 2;
	}
	file = argv[1];
	size_t len = read_file();
	config_parse(text, len, &config);
	unsigned errors = print_errors() + check_files();
	if (!errors) {
		print_host();
		for (unsigned i = 0; i < config.guests; i++)
			print_guest(&config.guest[i]);
	}
	free(text);
	return errors ? 1 : 0;
}
