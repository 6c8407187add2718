/* SPDX-License-Identifier: MIT */
/* The rules of SDM 27.3.1: states that hardware runs pass; each rule broken is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86/hvm/exit.h"
#include "tests/host/vmx_caps.h"

static struct vmx_caps c;
static u64 f[FIELDS];
static char why[128];

static void segment(unsigned s, u64 sel, u64 base, u64 limit, u64 ar)
{
	f[F_SEL + s] = sel;
	f[F_BASE + s] = base;
	f[F_LIMIT + s] = limit;
	f[F_AR + s] = ar;
}

static void common(void)
{
	u64 msr[VMX_CAPS];

	memcpy(msr, good_caps, sizeof(msr));
	assert_null(vmx_plan(msr, &c));
	cpu_features.phys_bits = 40;
	memset(f, 0, sizeof(f));
	f[F_CR0] = CR0_ET | CR0_NE;
	f[F_CR4] = CR4_VMXE;
	f[F_DR7] = 0x400;
	f[F_PAT] = 0x0007040600070406;
	f[F_RFLAGS] = RFLAGS_FIXED;
	f[F_LINK] = ~0ul;
	segment(SEG_TR, 0, 0, 0xffff, 0x8b);
	segment(SEG_LDTR, 0, 0, 0xffff, 0x82);
	segment(SEG_GDTR, 0, 0, 0xffff, 0);
	segment(SEG_IDTR, 0, 0, 0xffff, 0);
}

static int real_mode(void **state)
{
	common();
	for (unsigned s = 0; s < SEGS_USER; s++)
		segment(s, 0x1000, 0x10000, 0xffff, 0x93);
	segment(SEG_CS, 0xf000, 0xffff0000, 0xffff, 0x9b);
	f[F_RIP] = 0xfff0;
	return 0;
}

static int long_mode(void **state)
{
	common();
	f[F_CR0] |= CR0_PE | CR0_PG;
	f[F_CR4] |= CR4_PAE;
	f[F_CR3] = 0x1000;
	f[F_EFER] = EFER_LME | EFER_LMA | EFER_SCE | EFER_NX;
	f[F_ENTRY] = ENTRY_LONG;
	for (unsigned s = 0; s < SEGS_USER; s++)
		segment(s, 0x18, 0, 0xffffffff, 0xc093);
	segment(SEG_CS, 0x10, 0, 0xffffffff, 0xa09b);
	segment(SEG_FS, 0, 0xffff800000000000, 0, AR_UNUSABLE);
	f[F_RIP] = 0xffffffff81000000;
	return 0;
}

static int vm86(void **state)
{
	long_mode(state);
	f[F_CR4] &= ~(u64)CR4_PAE;
	f[F_EFER] = 0;
	f[F_ENTRY] = 0;
	f[F_RFLAGS] |= RFLAGS_VM;
	f[F_RIP] = 0x100;
	for (unsigned s = 0; s < SEGS_USER; s++)
		segment(s, 0x2000, 0x20000, 0xffff, 0xf3);
	return 0;
}

static void passes(void)
{
	if (!vmx_check(&c, f, why, sizeof(why)))
		fail_msg("%s", why);
}

static void good(void **state)
{
	real_mode(NULL);
	passes();
	segment(SEG_CS, 0x1000, 0x10000, 0xffff, 0x93); /* data as code, as after leaving protected mode */
	passes();
	vm86(NULL);
	passes();
	long_mode(NULL);
	passes();
	segment(SEG_SS, 0, 0, 0, AR_UNUSABLE);
	segment(SEG_LDTR, 0, 0, 0, AR_UNUSABLE);
	passes();
	f[F_RIP] = BIT(47); /* not canonical: #GP comes at the fetch */
	passes();
	f[F_EVENT] = EVENT_VALID | 0x30;
	f[F_RFLAGS] |= RFLAGS_IF;
	passes();
	f[F_EVENT] = EVENT_VALID | EVENT_NMI << 8 | 2;
	passes();
}

struct rule {
	unsigned field;
	u64 val;
	const char *text;
};

static void each_breaks(int (*mode)(void **), const struct rule *r, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		mode(NULL);
		f[r[i].field] = r[i].val;
		if (vmx_check(&c, f, why, sizeof(why)))
			fail_msg("passes, but: %s", r[i].text);
		if (!strstr(why, r[i].text))
			fail_msg("%s, not: %s", why, r[i].text);
	}
}

static void rules_of_long_mode(void **state)
{
	static const struct rule r[] = {
		{F_CR0, CR0_NE | CR0_PE, "long mode without CR0.PG"},
		{F_CR4, CR4_VMXE, "long mode without CR0.PG and CR4.PAE"},
		{F_CR3, BIT(40), "guest CR3 10000000000 has reserved bits"},
		{F_DR7, BIT(32) | 0x400, "guest DR7 100000400 has reserved bits"},
		{F_SYSENTER_IP, BIT(47), "guest SYSENTER_EIP 800000000000 is not canonical"},
		{F_EFER, EFER_LME | EFER_LMA | BIT(1), "guest EFER 502 has reserved bits"},
		{F_EFER, EFER_LME, "EFER does not agree"},
		{F_EFER, EFER_LMA, "EFER does not agree"},
		{F_ENTRY, 0, "EFER does not agree"},
		{F_AR + SEG_CS, 0xa091, "CS.type 1 is not accessed code"},
		{F_AR + SEG_CS, 0xa098, "CS.type 8 is not accessed code"},
		{F_AR + SEG_CS, 0xa0fb, "CS.DPL 3 does not suit"},
		{F_AR + SEG_CS, 0xe09b, "CS.L and CS.D"},
		{F_AR + SEG_CS, 0xa01b, "CS.attributes"},
		{F_AR + SEG_CS, 0xa08b, "CS.attributes"},
		{F_AR + SEG_CS, 0x209b, "CS.limit ffffffff does not suit CS.G"},
		{F_AR + SEG_CS, AR_UNUSABLE, "CS is unusable"},
		{F_LIMIT + SEG_DS, 0x1234, "DS.limit 1234 does not suit DS.G"},
		{F_BASE + SEG_CS, BIT(32), "CS.base"},
		{F_BASE + SEG_GS, BIT(47), "GS.base 800000000000"},
		{F_AR + SEG_SS, 0xc091, "SS.type 1"},
		{F_AR + SEG_DS, 0xc092, "DS.type 2 is not accessed"},
		{F_AR + SEG_ES, 0xc099, "ES.type 9"},
		{F_AR + SEG_TR, AR_UNUSABLE, "TR is unusable"},
		{F_AR + SEG_TR, 0x89, "TR.type 9 is not a busy TSS"},
		{F_AR + SEG_TR, 0x83, "TR.type 3 is not a busy TSS"},
		{F_SEL + SEG_TR, 4, "guest TR.selector 4 has reserved bits"},
		{F_AR + SEG_LDTR, 0x83, "LDTR.type 3 is not an LDT"},
		{F_BASE + SEG_GDTR, BIT(50), "GDTR.base"},
		{F_LIMIT + SEG_IDTR, 0x10000, "guest IDTR.limit 10000 has reserved bits"},
		{F_RIP, BIT(48), "RIP is not an address"},
		{F_RIP, BITS(63, 49), "RIP is not an address"},
		{F_RFLAGS, BIT(15) | RFLAGS_FIXED, "guest RFLAGS 8002 has reserved bits"},
		{F_SHADOW, BLOCK_STI, "STI without RFLAGS.IF"},
		{F_EVENT, EVENT_VALID | 0x20, "an interrupt that the guest does not take now"},
	};

	each_breaks(long_mode, r, ARRAY_SIZE(r));
}

static void rules_of_real_mode(void **state)
{
	static const struct rule r[] = {
		{F_CR4, CR4_VMXE | CR4_PCIDE, "CR4.PCIDE outside long mode"},
		{F_AR + SEG_SS, 0xf3, "CS.DPL 0 does not suit CS.type b and SS.DPL 3"},
		{F_RIP, BIT(32), "RIP is not an address"},
		{F_ENTRY, ENTRY_LONG, "long mode without"},
		{F_BASE + SEG_SS, BIT(40), "SS.base"},
	};

	each_breaks(real_mode, r, ARRAY_SIZE(r));
}

static void rules_of_vm86(void **state)
{
	static const struct rule r[] = {
		{F_BASE + SEG_FS, 0x12340, "FS.base 12340 is not 2000 * 16"},
		{F_LIMIT + SEG_DS, 0xfffff, "limit fffff"},
		{F_AR + SEG_SS, 0x93, "attributes 93"},
	};

	each_breaks(vm86, r, ARRAY_SIZE(r));
	real_mode(NULL);
	for (unsigned s = 0; s < SEGS_USER; s++)
		segment(s, 0x2000, 0x20000, 0xffff, 0xf3);
	f[F_RFLAGS] |= RFLAGS_VM;
	assert_false(vmx_check(&c, f, why, sizeof(why)));
	assert_non_null(strstr(why, "RFLAGS.VM in long mode or real mode"));
}

/* Without unrestricted guest privilege must be told alike everywhere. */
static void rules_of_older_cpus(void **state)
{
	long_mode(NULL);
	c.proc2 &= ~(u32)PROC2_ANY_MODE;
	passes();
	f[F_SEL + SEG_SS] = 0x1b;
	assert_false(vmx_check(&c, f, why, sizeof(why)));
	assert_non_null(strstr(why, "SS.RPL is not CS.RPL"));
	f[F_SEL + SEG_SS] = 0x18;
	f[F_SEL + SEG_DS] = 0x1b;
	assert_false(vmx_check(&c, f, why, sizeof(why)));
	assert_non_null(strstr(why, "DS.DPL 0 is below its RPL 3"));
	f[F_SEL + SEG_DS] = 0x18;
	segment(SEG_CS, 0x10, 0, 0xffffffff, 0xa093);
	assert_false(vmx_check(&c, f, why, sizeof(why)));
	assert_non_null(strstr(why, "CS.type 3 is not accessed code"));
}

static void shadows(void **state)
{
	long_mode(NULL);
	f[F_RFLAGS] |= RFLAGS_IF | RFLAGS_TF;
	f[F_SHADOW] = BLOCK_STI;
	assert_false(vmx_check(&c, f, why, sizeof(why)));
	assert_non_null(strstr(why, "single step"));
	f[F_PENDING] = PENDING_BS;
	passes();
	f[F_EVENT] = EVENT_VALID | EVENT_NMI << 8 | 2;
	passes();
	f[F_SHADOW] |= BLOCK_NMI;
	assert_false(vmx_check(&c, f, why, sizeof(why)));
	assert_non_null(strstr(why, "an NMI"));
}

static void pae(void **state)
{
	long_mode(NULL);
	f[F_EFER] = f[F_ENTRY] = 0;
	segment(SEG_CS, 0x10, 0, 0xffffffff, 0xc09b);
	f[F_RIP] = 0x1000;
	f[F_PDPTE2] = 0x2001;
	passes();
	f[F_PDPTE2] = 0x2003;
	assert_false(vmx_check(&c, f, why, sizeof(why)));
	assert_non_null(strstr(why, "guest PDPTE2 2003 has reserved bits"));
}

static void words(void **state)
{
	char name[40];

	vmx_field_name(F_BASE + SEG_FS, name, sizeof(name));
	assert_string_equal(name, "guest FS.base");
	vmx_field_name(F_SEL + SEG_TR, name, sizeof(name));
	assert_string_equal(name, "guest TR.selector");
	vmx_field_name(F_LIMIT + SEG_IDTR, name, sizeof(name));
	assert_string_equal(name, "guest IDTR.limit");
	vmx_field_name(F_EPTP, name, sizeof(name));
	assert_string_equal(name, "EPT pointer");
	assert_string_equal(vmx_error_text(7), "entry with invalid control fields");
	assert_string_equal(vmx_error_text(14), "an error that is not ours");
	assert_string_equal(vmx_error_text(~0ul), "an error that is not ours");
	assert_non_null(strstr(vmx_failure_text(BIT(31) | 33), "guest state"));
	assert_non_null(strstr(vmx_failure_text(BIT(31) | 34), "MSR"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good),
		cmocka_unit_test(rules_of_long_mode),
		cmocka_unit_test(rules_of_real_mode),
		cmocka_unit_test(rules_of_vm86),
		cmocka_unit_test(rules_of_older_cpus),
		cmocka_unit_test(shadows),
		cmocka_unit_test(pae),
		cmocka_unit_test(words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
