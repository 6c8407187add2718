/* SPDX-License-Identifier: MIT */
/*
 * Runs a libFuzzer harness without libFuzzer: over the files named on the command line, or over a fixed pseudo-random
 * sequence (REPLAY_RUNS inputs, default 2000), so that every test run exercises every harness the same way.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t state = 88172645463325252ul;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

static int replay_file(const char *path)
{
	static uint8_t data[1 << 20];
	FILE *f = fopen(path, "rb");

	if (!f) {
		perror(path);
		return 1;
	}
	size_t n = fread(data, 1, sizeof(data), f);
	fclose(f);
	LLVMFuzzerTestOneInput(data, n);
	return 0;
}

int main(int argc, char **argv)
{
	static uint8_t data[4096];
	const char *env = getenv("REPLAY_RUNS");
	long runs = env ? atol(env) : 2000;
	int bad = 0;

	for (int i = 1; i < argc; i++)
		bad |= replay_file(argv[i]);
	for (long r = 0; argc == 1 && r < runs; r++) {
		size_t n = next() % sizeof(data);
		for (size_t i = 0; i < n; i++)
			data[i] = (uint8_t)next();
		LLVMFuzzerTestOneInput(data, n);
	}
	return bad;
}
