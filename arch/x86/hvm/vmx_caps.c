/* SPDX-License-Identifier: MIT */
/* What the capability MSRs of VMX mean (Intel SDM vol. 3, appendix A): which controls there are, and which we set. */
#include "arch/x86/cpu/cpu.h"
#include "arch/x86/hvm/vmx.h"
#include "lib/print.h"

enum {
	EPT_4_LEVELS = BIT(6),
	EPT_WB = BIT(14),
	EPT_2M = BIT(16),
	EPT_1G = BIT(17),
	EPT_INVEPT = BIT(20),
	EPT_AD = BIT(21)
};
enum { EPT_SINGLE = BIT(25), EPT_ALL = BIT(26) };
#define VPID_INVVPID BIT(32)
#define VPID_SINGLE  BIT(41)
#define VPID_ALL     BIT(42)

#define BASIC_32BIT   BIT(48)
#define BASIC_TRUE    BIT(55)
#define BASIC_TYPE(b) ((b) >> 50 & 15)
enum { TYPE_WB = 6 };

/*
 * A word of controls: those that must be 1 (low half of the MSR), those that we cannot do without and those we would
 * like, as far as they may be 1 (high half). False: one that we cannot do without may not.
 */
static bool choose(u64 msr, u64 must, u64 want, u32 *out)
{
	u32 forced = (u32)msr, allowed = (u32)(msr >> 32);

	*out = forced | (u32)((must | want) & allowed);
	return !(must & ~(u64)*out);
}

/* What is loaded at entries only, or at exits only, is of no use. */
static void pair(u32 *entry, u32 at_entry, u32 *exit, u32 at_exit)
{
	if (*entry & at_entry && *exit & at_exit)
		return;
	*entry &= ~at_entry;
	*exit &= ~at_exit;
}

static const char *choose_secondary(u64 proc2, u64 ept, struct vmx_caps *c)
{
	u64 want = PROC2_RDTSCP | PROC2_WBINVD | PROC2_ANY_MODE | PROC2_INVPCID;

	if ((ept & VPID_INVVPID) && (ept & (VPID_SINGLE | VPID_ALL)))
		want |= PROC2_VPID;
	/* The local APIC is the hardware's as a whole or not at all, and where software runs the guest, not. */
	if ((c->proc & PROC_TPR_SHADOW) && !((PROC2_APIC | PROC2_ANY_MODE) & ~(proc2 >> 32)))
		want |= PROC2_APIC;
	if (!choose(proc2, PROC2_EPT, want, &c->proc2))
		return "EPT, and this version has no shadow pager";
	if (!(ept & EPT_WB))
		return "EPT tables in write-back memory";
	if (!(ept & EPT_4_LEVELS))
		return "EPT tables of four levels";
	if (!(ept & EPT_INVEPT) || !(ept & (EPT_SINGLE | EPT_ALL)))
		return "INVEPT";
	c->max_order = !(ept & EPT_2M) ? ORDER_4K : ept & EPT_1G ? ORDER_1G : ORDER_2M;
	c->ept_ad = (ept & EPT_AD) && (c->proc2 & PROC2_ANY_MODE); /* without, our identity map is read-only */
	c->ept_single = ept & EPT_SINGLE;
	c->vpid_single = ept & VPID_SINGLE;
	return NULL;
}

const char *vmx_plan(const u64 msr[VMX_CAPS], struct vmx_caps *c)
{
	bool exact = msr[CAP_BASIC] & BASIC_TRUE; /* also the controls that once had to be 1 are told truly */
	u64 pin = msr[exact ? CAP_TRUE_PIN : CAP_PIN], proc = msr[exact ? CAP_TRUE_PROC : CAP_PROC];
	u64 exit = msr[exact ? CAP_TRUE_EXIT : CAP_EXIT], entry = msr[exact ? CAP_TRUE_ENTRY : CAP_ENTRY];
	u64 tpr = proc >> 32 & PROC_TPR_SHADOW ? PROC_TPR_SHADOW : PROC_CR8;
	u64 traps = PROC_HLT | PROC_MWAIT | PROC_RDPMC | PROC_MONITOR;

	*c = (struct vmx_caps){.revision = msr[CAP_BASIC] & BITS(30, 0)};
	if (BASIC_TYPE(msr[CAP_BASIC]) != TYPE_WB || (msr[CAP_BASIC] & BASIC_32BIT))
		return "a VMCS in write-back memory, anywhere";
	if (!choose(pin, PIN_INTR | PIN_NMI | PIN_VIRTUAL_NMI, PIN_TIMER | PIN_POSTED, &c->pin))
		return "exits for interrupts, or virtual NMIs";
	if (!choose(proc, traps | tpr | PROC_TSC_OFFSET | PROC_IO_MAPS | PROC_MSR_MAPS, PROC_SECONDARY, &c->proc))
		return "I/O and MSR bitmaps, a TSC offset, or exits for HLT, MWAIT, RDPMC and CR8";
	if (!choose(exit, EXIT_SAVE_DEBUG | EXIT_HOST64, EXIT_ACK | EXIT_LOAD_PAT | EXIT_LOAD_EFER, &c->exit) ||
	    !choose(entry, ENTRY_LOAD_DEBUG, ENTRY_LOAD_PAT | ENTRY_LOAD_EFER, &c->entry) ||
	    !(entry >> 32 & ENTRY_LONG))
		return "64-bit guests and hosts";
	pair(&c->entry, ENTRY_LOAD_EFER, &c->exit, EXIT_LOAD_EFER);
	pair(&c->entry, ENTRY_LOAD_PAT, &c->exit, EXIT_LOAD_PAT);
	c->timer_shift = msr[CAP_MISC] & 31;
	c->cr0_must = msr[CAP_CR0_FIXED0];
	c->cr4_must = msr[CAP_CR4_FIXED0];
	c->cr4_may = msr[CAP_CR4_FIXED1];

	const char *missing = choose_secondary(c->proc & PROC_SECONDARY ? msr[CAP_PROC2] : 0, msr[CAP_EPT_VPID], c);

	if (!(c->proc2 & PROC2_DELIVER) || !(c->exit & EXIT_ACK))
		c->pin &= ~(u32)PIN_POSTED;
	if (c->proc2 & PROC2_ANY_MODE)
		c->cr0_must &= ~(u64)(CR0_PE | CR0_PG);
	return missing;
}

void vmx_describe(const struct vmx_caps *c, char *text, size_t size)
{
	const struct {
		const char *name;
		bool is;
	} feature[] = {
		{"ept-2m", c->max_order >= ORDER_2M},
		{"ept-1g", c->max_order == ORDER_1G},
		{"ept-ad", c->ept_ad},
		{"unrestricted", c->proc2 & PROC2_ANY_MODE},
		{"vpid", c->proc2 & PROC2_VPID},
		{"tpr-shadow", c->proc & PROC_TPR_SHADOW},
		{"apic", c->proc2 & PROC2_DELIVER},
		{"posted-interrupts", c->pin & PIN_POSTED},
		{"preemption-timer", c->pin & PIN_TIMER},
		{"efer-load", c->entry & ENTRY_LOAD_EFER},
		{"pat-load", c->entry & ENTRY_LOAD_PAT},
	};
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(feature) && n < size; i++)
		n += format(text + n, size - n, "%s%s %s", i ? ", " : "", feature[i].name,
			    feature[i].is ? "yes" : "no");
}
