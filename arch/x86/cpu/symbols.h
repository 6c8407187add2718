/* SPDX-License-Identifier: MIT */
/* The table behind symbol_find. */
#ifndef ARCH_X86_CPU_SYMBOLS_H
#define ARCH_X86_CPU_SYMBOLS_H

#include "lib/types.h"

struct symbol {
	u32 offset; /* of the address, from IMAGE_BASE */
	u32 name;   /* index into kallsyms_names */
};

extern const u32 kallsyms_count;
extern const struct symbol kallsyms[]; /* ascending; the last is text_end */
extern const char kallsyms_names[];

/* Pure: the last of count ascending entries with an offset not above the given one, or NULL. */
const struct symbol *symbol_search(const struct symbol *table, u32 count, u64 offset);

#endif
