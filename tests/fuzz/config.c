/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as guests.conf: what comes out must keep the promises of guest/config.h. If the first byte is odd, each
 * further byte stands for a word of the language, so that a random sequence gets deep as well.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/config.h"
#include "lib/assert.h"
#include "lib/errno.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_slice(struct slice s, const char *text, size_t size, size_t max)
{
	ASSERT(s.len <= max);
	ASSERT(!s.len || (s.s >= text && s.s + s.len <= text + size));
}

static void check_guest(const struct guest_config *g, const char *text, size_t size)
{
	check_slice(g->name, text, size, CONFIG_NAME_MAX);
	check_slice(g->kernel, text, size, 255);
	check_slice(g->cmdline, text, size, CONFIG_CMDLINE_MAX);
	ASSERT(g->name.len && g->initrds <= CONFIG_MAX_MODULES);
	for (unsigned i = 0; i < g->initrds; i++) {
		check_slice(g->initrd[i], text, size, 255);
		ASSERT(g->initrd[i].len && g->initrd[i].s[0] != '/');
	}
	ASSERT(g->vcpus >= 1 && g->vcpus <= 64 && g->weight >= 1 && g->weight <= 65536 && g->cap <= 100 && g->cpus);
	ASSERT(g->paging <= PAGING_SHADOW && g->max_order <= ORDER_1G && g->max_order % ORDER_2M == 0);
	ASSERT(g->bad || (g->kernel.len && g->memory >= MB && g->memory % PAGE_SIZE == 0));
}

static const char *const words[] = {
	"\n",
	"\n",
	"\n",
	" = ",
	" = ",
	"=",
	"\n[host]\n",
	"\n[guest a]\n",
	"\n[guest ",
	"]\n",
	"[",
	" ",
	",",
	"#",
	"\r\n",
	"\t",
	"kernel",
	"initrd",
	"cmdline",
	"memory",
	"vcpus",
	"cpus",
	"weight",
	"cap",
	"paging",
	"max-page",
	"populate",
	"on-crash",
	"console",
	"when-idle",
	"mmio-cache",
	"kernle",
	"1",
	"0-3,5",
	"64M",
	"1G",
	"2M",
	"4K",
	"0x3f8",
	"com1",
	"screen",
	"on",
	"off",
	"auto",
	"shadow",
	"demand",
	"restart",
	"poweroff",
	"a/b",
	"../c",
	"\\",
	"\xef\xbb\xbf",
	"99999999999999999999",
	"%",
	"-",
	"xyz",
	"\nkernel = k\n",
	"\nmemory = 64M\n",
	"\ninitrd = i\n",
	"\0",
	"\xff",
	"T",
	"hots",
	"\nvcpus = 2\n",
};

/* Returns the text for an input, in a block of exactly its size so that reading beyond it is seen. */
static char *make_text(const uint8_t *data, size_t size, size_t *len)
{
	bool spelled = size && data[0] & 1;
	char *text = malloc(spelled ? size * 24 : size + 1);
	*len = 0;
	for (size_t i = 1; i < size; i++) {
		const char *w = words[data[i] % ARRAY_SIZE(words)];
		if (spelled)
			*len += (size_t)snprintf(text + *len, 24, "%s", w);
		else
			text[(*len)++] = (char)data[i];
	}
	return realloc(text, *len ? *len : 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct config c;
	char line[256];
	char *text = make_text(data, size, &size);
	bool startable = false;

	int err = config_parse(text, size, &c);
	ASSERT(c.guests <= CONFIG_MAX_GUESTS && c.host.consoles <= CONFIG_CONSOLES && c.host.max_order <= ORDER_1G);
	for (unsigned i = 0; i < c.guests; i++) {
		check_guest(&c.guest[i], text, size);
		startable |= !c.guest[i].bad;
		ASSERT(!c.guest[i].bad || c.errors);
	}
	ASSERT(err == (startable ? 0 : -EINVAL) && (startable || c.errors));
	for (unsigned i = 0; i < c.errors && i < CONFIG_MAX_ERRORS; i++) {
		ASSERT(c.error[i].text[0] && memchr(c.error[i].text, 0, sizeof(c.error[i].text)));
		ASSERT(config_error_text(&c, i, "guests.conf", line, sizeof(line)) > 0);
	}
	free(text);
	return 0;
}
