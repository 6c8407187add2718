/* SPDX-License-Identifier: MIT */
/*
 * The input is physical memory from 0; the loader's copy of the RSDP comes first. Checksums would stop nearly all
 * inputs, so each table's is made right when it is mapped whole.
 */
#include <stdlib.h>
#include <string.h>

#include "drivers/acpi.h"
#include "lib/port.h"

static const uint8_t *ram;
static size_t ram_size;
static void *pieces[1 << 12];
static unsigned n_pieces;

static uint8_t fix(uint8_t *p, u64 len, u64 at)
{
	uint8_t sum = 0;

	p[at] = 0;
	for (u64 i = 0; i < len; i++)
		sum = (uint8_t)(sum + p[i]);
	return p[at] = (uint8_t)-sum;
}

static const void *map(hpa_t pa, u64 len)
{
	if (pa > ram_size || len > ram_size - pa || n_pieces == 1 << 12)
		return NULL;
	uint8_t *p = pieces[n_pieces++] = malloc(len);

	memcpy(p, ram + pa, len);
	if (len >= 36)
		fix(p, len, 9);
	return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct acpi_source b = {0};
	struct acpi a;

	if (size < 36)
		return 0;
	memcpy(b.copy, data, 36);
	memcpy(b.copy, "RSD PTR ", 8);
	fix(b.copy, 20, 8);
	if (b.copy[20] & 1)
		memcpy(b.copy + 20, (u32[]){36}, 4);
	fix(b.copy, 36, 32);
	ram = data;
	ram_size = size;
	acpi_read(&b, map, &a);
	if (a.cpus > ACPI_MAX_CPUS || a.ioapics > ACPI_MAX_IOAPICS || a.s5[0] > 7 || a.s5[1] > 7)
		abort();
	while (n_pieces)
		free(pieces[--n_pieces]);
	return 0;
}
