/* SPDX-License-Identifier: MIT */
/*
 * guests.conf: text in, struct config out. Pure, and built for the host as well, where `./cleave config FILE` uses it.
 *
 * Strings are slices of the text, which must outlive the config. A mistake in [host] or outside any section is an error
 * of the file; one in a [guest] section spoils that guest only (guest.bad), and the others still start.
 */
#pragma once

#include "lib/types.h"

#define CONFIG_MAX_GUESTS  32
#define CONFIG_MAX_MODULES 16
#define CONFIG_MAX_ERRORS  32
#define CONFIG_MAX_TEXT    (1u << 20) /* bytes; a larger file is an error, not a job */
#define CONFIG_NAME_MAX    31
#define CONFIG_CMDLINE_MAX 2047

struct slice {
	const char *s;
	u32 len;
};

enum when_idle { IDLE_POWEROFF, IDLE_REBOOT, IDLE_WAIT };
enum paging_choice { PAGING_AUTO, PAGING_NESTED, PAGING_SHADOW };

#define CONFIG_CONSOLES 5
#define CONSOLE_SCREEN  0

struct host_config {
	u16 console[CONFIG_CONSOLES]; /* in the order given: CONSOLE_SCREEN, or a serial port's I/O port */
	unsigned consoles;            /* 0: automatic */
	u8 when_idle;                 /* enum when_idle; default IDLE_POWEROFF */
	u8 max_order;                 /* ORDER_*; default ORDER_1G */
	bool mmio_cache;              /* default true */
	bool merge, collapse;         /* small pages become large again: in place, by copy. Default true */
};

struct guest_config {
	struct slice name; /* letters, digits, - _ . ; at most CONFIG_NAME_MAX */
	struct slice kernel, cmdline;
	struct slice initrd[CONFIG_MAX_MODULES]; /* Linux: the initrd parts in order; multiboot, PVH: modules */
	unsigned initrds;
	u64 memory;   /* bytes, multiple of 4 KB; at least 1 MB */
	u32 vcpus;    /* 1..64, default 1 */
	u64 cpus;     /* mask of pCPUs; default all ones */
	u32 weight;   /* 1..65536, default 256 */
	u32 cap;      /* percent of one pCPU per vCPU, 0: none */
	u8 paging;    /* enum paging_choice */
	u8 max_order; /* default: the host's */
	bool demand;  /* populate = demand */
	bool restart; /* on-crash = restart; default stop */
	bool bad;     /* has an error: must not be started */
	u32 line;     /* of its section header */
};

struct parse_error {
	u32 line, column; /* from 1 */
	char text[160];   /* what is wrong and the remedy, without place; names the key probably meant */
};

struct config {
	struct host_config host;
	struct guest_config guest[CONFIG_MAX_GUESTS];
	unsigned guests;
	struct parse_error error[CONFIG_MAX_ERRORS];
	unsigned errors; /* all found, even those beyond CONFIG_MAX_ERRORS */
};

/*
 * Parses. Returns 0 if at least one guest can be started (there may still be errors to tell), -EINVAL if the file as a
 * whole is useless (no startable guest, binary garbage, too large).
 */
int config_parse(const char *text, size_t len, struct config *out);
/* "FILE:line:column: text" for error i < CONFIG_MAX_ERRORS; as much as fits. */
size_t config_error_text(const struct config *c, unsigned i, const char *file, char *buf, size_t size);
