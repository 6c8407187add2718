/* SPDX-License-Identifier: MIT */
/*
 * The image's own symbol table: tools/symbols.py makes it from a first link and it is linked in with the second. The
 * weak definitions in entry.S stand in for it in the first.
 */
#include "arch/x86/cpu/symbols.h"

#include "arch/x86/cpu/traps.h"
#include "mm/hostmap.h"

const struct symbol *symbol_search(const struct symbol *table, u32 count, u64 offset)
{
	u32 low = 0, high = count; /* the answer's index + 1 is in [low, high] */

	while (low < high) {
		u32 mid = low + (high - low) / 2;

		if (table[mid].offset <= offset)
			low = mid + 1;
		else
			high = mid;
	}
	return low ? &table[low - 1] : NULL;
}

const char *symbol_find(u64 addr, u64 *offset)
{
	const struct symbol *s = symbol_search(kallsyms, kallsyms_count, addr - IMAGE_BASE);

	/* The table's last entry only ends the one before it. */
	if (!s || s == &kallsyms[kallsyms_count - 1]) {
		*offset = addr;
		return "?";
	}
	*offset = addr - IMAGE_BASE - s->offset;
	return &kallsyms_names[s->name];
}
