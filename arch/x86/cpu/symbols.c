/* SPDX-License-Identifier: MIT */
/*
 * The image's own symbol table: tools/symbols.py makes it from a first link and it is linked in with the second. The
 * first does without.
 */
#include "arch/x86/cpu/traps.h"
#include "mm/hostmap.h"

struct symbol {
	u32 offset; /* of the address, from IMAGE_BASE */
	u32 name;   /* index into kallsyms_names */
};

#define FROM_SECOND_LINK extern __attribute__((weak))
FROM_SECOND_LINK const u32 kallsyms_count;
FROM_SECOND_LINK const struct symbol kallsyms[]; /* ascending; the last is text_end and only ends the one before it */
FROM_SECOND_LINK const char kallsyms_names[];

const char *symbol_find(u64 addr, u64 *offset)
{
	u64 at = addr - IMAGE_BASE;

	for (u32 i = 0; i + 1 < kallsyms_count; i++)
		if (at >= kallsyms[i].offset && at < kallsyms[i + 1].offset) {
			*offset = at - kallsyms[i].offset;
			return &kallsyms_names[kallsyms[i].name];
		}
	*offset = addr;
	return "?";
}
