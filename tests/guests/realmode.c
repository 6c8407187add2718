/* SPDX-License-Identifier: MIT */
/* Real mode: the guest's first processor goes there and comes back, a second one starts there. */
#include "tests/guests/guest.h"

#define RM_BASE 0xa000ull

extern char rm_start[], rm_end[], rm_results[];
extern volatile u32 rm_far_word;
void rm_enter(void);

/* As the code leaves it. */
struct results {
	u32 far, cpuid, pae;
	u16 calls, carry, de, br, gp, irqs, left, daa, aam, sp, lds, ap_cs;
	char copy[16], xlat;
};

static void realmode(void)
{
	volatile struct results *r = (void *)(RM_BASE + (u64)(rm_results - rm_start));
	u32 *directory = (void *)(RM_BASE + 0x2000);
	char copy[16];

	memset(directory, 0, 4096);
	for (u32 i = 0; i < 16; i++) /* 4 MB pages, at 0 and at 2 GB */
		directory[i] = directory[512 + i] = i << 22 | 0x83;
	memcpy((void *)RM_BASE, rm_start, (size_t)(rm_end - rm_start));
	rm_enter();
	ok("realmode-and-back");
	check("realmode-int", r->calls == 1 && r->carry == 0x12, "calls=%u carry=0x%x", r->calls, r->carry);
	/* QEMU's emulation does not look at segment limits. */
	check("realmode-faults", r->de == 1 && r->br == 1 && r->gp <= 1, "de=%u br=%u gp=%u", r->de, r->br, r->gp);
	check("realmode-limits", r->far == 0x600dcafe, "read=0x%x", r->far);
	memcpy(copy, (const void *)r->copy, sizeof(copy));
	check("realmode-strings", !memcmp(copy, "realmodeedomlaer", 16) && r->left == 11, "left=%u", r->left);
	check("realmode-arithmetic",
	      r->daa == 0x114 && r->aam == 0x907 && r->xlat == 'm' && r->sp == 0 && r->lds == 0x5555,
	      "daa=0x%x aam=0x%x xlat=%c sp=%u lds=0x%x", r->daa, r->aam, r->xlat, r->sp, r->lds);
	check("realmode-cpuid", r->cpuid == cpuid(0, 0).b, "ebx=0x%x", r->cpuid);
	check("realmode-interrupt", r->irqs == 1, "interrupts=%u", r->irqs);
	check("realmode-pae", r->pae == r->far, "read=0x%x", r->pae);
	check("realmode-2-level", rm_far_word == r->far + 1, "word=0x%x", rm_far_word);
	if (option_number("vcpus", 1) < 2)
		return;
	lapic_write(0x310, 1 << 24);
	lapic_write(0x300, 0x4500);
	delay_us(1000);
	lapic_write(0x300, 0x4600 | RM_BASE >> 12);
	for (unsigned i = 0; i < 1000 && !r->ap_cs; i++)
		delay_us(1000);
	check("realmode-second-cpu", r->ap_cs == RM_BASE >> 4 && r->calls == 0x101, "cs=0x%x calls=0x%x", r->ap_cs,
	      r->calls);
}

const struct test realmode_tests[] = {{"realmode", realmode, true}, {NULL, NULL, false}};
