/* SPDX-License-Identifier: MIT */
/*
 * The VMCS (Intel SDM vol. 3, chapter 25 and appendix B), VMX capabilities (appendix A), and what the parts of the VMX
 * backend share. vmx_caps.c and vmx_check.c are pure.
 */
#pragma once

#include "arch/x86/hvm/vcpu.h"
#include "lib/bits.h"

/*
 * Fields that are written, or read more than once an exit, have a number here and a copy in struct vmx. Those of
 * segments come in groups, in the order of enum seg; the others are named below: number, encoding, name in messages.
 */
enum { F_SEL = 0, F_AR = F_SEL + SEGS, F_LIMIT = F_AR + SEGS, F_BASE = F_LIMIT + SEGS_ALL, F_SEGS = F_BASE + SEGS_ALL };

#define VMCS_FIELDS(X)                                       \
	X(CR0, 0x6800, "guest CR0")                          \
	X(CR3, 0x6802, "guest CR3")                          \
	X(CR4, 0x6804, "guest CR4")                          \
	X(DR7, 0x681a, "guest DR7")                          \
	X(RSP, 0x681c, "guest RSP")                          \
	X(RIP, 0x681e, "guest RIP")                          \
	X(RFLAGS, 0x6820, "guest RFLAGS")                    \
	X(SHADOW, 0x4824, "guest interruptibility")          \
	X(PENDING, 0x6822, "guest pending debug exceptions") \
	X(SYSENTER_CS, 0x482a, "guest SYSENTER_CS")          \
	X(SYSENTER_SP, 0x6824, "guest SYSENTER_ESP")         \
	X(SYSENTER_IP, 0x6826, "guest SYSENTER_EIP")         \
	X(PDPTE0, 0x280a, "guest PDPTE0")                    \
	X(PDPTE1, 0x280c, "guest PDPTE1")                    \
	X(PDPTE2, 0x280e, "guest PDPTE2")                    \
	X(PDPTE3, 0x2810, "guest PDPTE3")                    \
	X(EFER, 0x2806, "guest EFER")                        \
	X(PAT, 0x2804, "guest PAT")                          \
	X(DEBUGCTL, 0x2802, "guest DEBUGCTL")                \
	X(ACTIVITY, 0x4826, "guest activity state")          \
	X(LINK, 0x2800, "VMCS link pointer")                 \
	X(PIN, 0x4000, "pin-based controls")                 \
	X(PROC, 0x4002, "processor-based controls")          \
	X(PROC2, 0x401e, "secondary controls")               \
	X(EXIT, 0x400c, "exit controls")                     \
	X(ENTRY, 0x4012, "entry controls")                   \
	X(EXCEPTIONS, 0x4004, "exception bitmap")            \
	X(CR0_MASK, 0x6000, "CR0 mask")                      \
	X(CR4_MASK, 0x6002, "CR4 mask")                      \
	X(CR0_SHADOW, 0x6004, "CR0 read shadow")             \
	X(CR4_SHADOW, 0x6006, "CR4 read shadow")             \
	X(TSC_OFFSET, 0x2010, "TSC offset")                  \
	X(EVENT, 0x4016, "entry interruption information")   \
	X(EVENT_ERROR, 0x4018, "entry exception error code") \
	X(EVENT_LEN, 0x401a, "entry instruction length")     \
	X(TPR_THRESHOLD, 0x401c, "TPR threshold")            \
	X(APIC_ACCESS, 0x2014, "APIC-access address")        \
	X(INTR_STATUS, 0x0810, "guest interrupt status")     \
	X(EOI_EXIT0, 0x201c, "EOI-exit bitmap")              \
	X(EOI_EXIT1, 0x201e, "EOI-exit bitmap")              \
	X(EOI_EXIT2, 0x2020, "EOI-exit bitmap")              \
	X(EOI_EXIT3, 0x2022, "EOI-exit bitmap")              \
	X(POSTED, 0x2016, "posted-interrupt descriptor")     \
	X(POSTED_VECTOR, 0x0002, "notification vector")      \
	X(TIMER, 0x482e, "preemption timer")                 \
	X(VPID, 0x0000, "VPID")                              \
	X(EPTP, 0x201a, "EPT pointer")                       \
	X(IO_A, 0x2000, "I/O bitmap A")                      \
	X(IO_B, 0x2002, "I/O bitmap B")                      \
	X(MSR_MAP, 0x2004, "MSR bitmap")                     \
	X(VIRTUAL_APIC, 0x2012, "virtual-APIC address")      \
	X(EXIT_LIST, 0x2008, "exit MSR-load address")        \
	X(EXIT_COUNT, 0x4010, "exit MSR-load count")         \
	X(ENTRY_LIST, 0x200a, "entry MSR-load address")      \
	X(ENTRY_COUNT, 0x4014, "entry MSR-load count")       \
	X(PF_MASK, 0x4006, "page-fault mask")                \
	X(PF_MATCH, 0x4008, "page-fault match")              \
	X(CR3_TARGETS, 0x400a, "CR3-target count")           \
	X(STORE_COUNT, 0x400e, "exit MSR-store count")       \
	X(HOST_FS, 0x0c08, "host FS")                        \
	X(HOST_GS, 0x0c0a, "host GS")                        \
	X(HOST_FS_BASE, 0x6c06, "host FS base")              \
	X(HOST_SYSENTER_CS, 0x4c00, "host SYSENTER_CS")      \
	X(HOST_SYSENTER_SP, 0x6c10, "host SYSENTER_ESP")     \
	X(HOST_SYSENTER_IP, 0x6c12, "host SYSENTER_EIP")     \
	X(HOST_CS, 0x0c02, "host CS")                        \
	X(HOST_SS, 0x0c04, "host SS")                        \
	X(HOST_DS, 0x0c06, "host DS")                        \
	X(HOST_ES, 0x0c00, "host ES")                        \
	X(HOST_TR, 0x0c0c, "host TR")                        \
	X(HOST_PAT, 0x2c00, "host PAT")                      \
	X(HOST_EFER, 0x2c02, "host EFER")                    \
	X(HOST_CR0, 0x6c00, "host CR0")                      \
	X(HOST_CR3, 0x6c02, "host CR3")                      \
	X(HOST_CR4, 0x6c04, "host CR4")                      \
	X(HOST_GS_BASE, 0x6c08, "host GS base")              \
	X(HOST_TR_BASE, 0x6c0a, "host TR base")              \
	X(HOST_GDTR_BASE, 0x6c0c, "host GDTR base")          \
	X(HOST_IDTR_BASE, 0x6c0e, "host IDTR base")          \
	X(HOST_RSP, 0x6c14, "host RSP")                      \
	X(HOST_RIP, 0x6c16, "host RIP")

#define VMCS_NUMBER(name, code, text) F_##name,
enum { F_FIRST_NAMED = F_SEGS - 1, VMCS_FIELDS(VMCS_NUMBER) FIELDS };
/* What the guest changes by itself: the segments and the registers up to here. */
enum { F_VOLATILE = F_PDPTE3 + 1 };

/* Encodings of fields that are only read. */
enum { RO_GPA = 0x2400, RO_ERROR = 0x4400, RO_REASON = 0x4402, RO_EVENT = 0x4404, RO_EVENT_ERROR = 0x4406 };
enum { RO_VECTORING = 0x4408, RO_VECTORING_ERROR = 0x440a, RO_LENGTH = 0x440c, RO_INFO = 0x6400, RO_GVA = 0x640a };

/* Controls. */
enum { PIN_INTR = 0x1, PIN_NMI = 0x8, PIN_VIRTUAL_NMI = 0x20, PIN_TIMER = 0x40, PIN_POSTED = 0x80 };
enum { PROC_INTR_WINDOW = BIT(2), PROC_TSC_OFFSET = BIT(3), PROC_HLT = BIT(7), PROC_MWAIT = BIT(10) };
enum { PROC_RDPMC = BIT(11), PROC_CR3 = BIT(15) | BIT(16), PROC_CR8 = BIT(19) | BIT(20), PROC_TPR_SHADOW = BIT(21) };
enum { PROC_NMI_WINDOW = BIT(22), PROC_IO_MAPS = BIT(25), PROC_MSR_MAPS = BIT(28), PROC_MONITOR = BIT(29) };
#define PROC_SECONDARY BIT(31)
enum { PROC2_EPT = BIT(1), PROC2_RDTSCP = BIT(3), PROC2_VPID = BIT(5), PROC2_WBINVD = BIT(6), PROC2_ANY_MODE = BIT(7) };
enum { PROC2_INVPCID = BIT(12), PROC2_APIC_ACCESS = BIT(0), PROC2_APIC_REGS = BIT(8), PROC2_DELIVER = BIT(9) };
enum { PROC2_APIC = PROC2_APIC_ACCESS | PROC2_APIC_REGS | PROC2_DELIVER };
enum { EXIT_SAVE_DEBUG = BIT(2), EXIT_HOST64 = BIT(9), EXIT_ACK = BIT(15), EXIT_LOAD_PAT = BIT(19) };
enum { EXIT_LOAD_EFER = BIT(21) };
enum { ENTRY_LOAD_DEBUG = BIT(2), ENTRY_LONG = BIT(9), ENTRY_LOAD_PAT = BIT(14), ENTRY_LOAD_EFER = BIT(15) };

/* Interruptibility; pending debug exceptions; unusable segments; event information beside struct vm_event's bits. */
enum { BLOCK_STI = 1, BLOCK_SS = 2, BLOCK_NMI = 8, PENDING_BS = BIT(14), AR_UNUSABLE = BIT(16) };
enum { EVENT_INT1 = 5, EVENT_NMI_UNBLOCKED = BIT(12) };
#define EVENT_VALID BIT(31)

#define REASON_FAILED_ENTRY BIT(31)
enum { REASON_MACHINE_CHECK = 41 }; /* with that */

/* Capability MSRs from 0x480, in their order. */
enum { CAP_BASIC, CAP_PIN, CAP_PROC, CAP_EXIT, CAP_ENTRY, CAP_MISC, CAP_CR0_FIXED0, CAP_CR0_FIXED1, CAP_CR4_FIXED0 };
enum {
	CAP_CR4_FIXED1 = CAP_CR4_FIXED0 + 1,
	CAP_ENUM,
	CAP_PROC2,
	CAP_EPT_VPID,
	CAP_TRUE_PIN,
	CAP_TRUE_PROC,
	CAP_TRUE_EXIT
};
enum { CAP_TRUE_ENTRY = CAP_TRUE_EXIT + 1, VMX_CAPS };
#define MSR_VMX_CAPS 0x480u

/* What this CPU's VMX offers, and how it is used. A control that is set in one of the words is there. */
struct vmx_caps {
	u32 revision;
	u32 pin, proc, proc2, exit, entry;
	u64 cr0_must, cr4_must; /* bits that are 1 in VMX operation */
	u64 cr4_may;            /* bits that may be 1 */
	u8 max_order;           /* largest EPT page */
	bool ept_ad;            /* EPT entries get accessed and dirty bits */
	bool ept_single;        /* INVEPT of one table; else of all */
	bool vpid_single;       /* INVVPID of one VPID; else of all */
	u8 timer_shift;         /* the preemption timer counts TSC >> this */
};

/* From the capability MSRs as they were read (absent ones 0). NULL, or what is missing that Cleave needs, in words. */
const char *vmx_plan(const u64 msr[VMX_CAPS], struct vmx_caps *c);
/* One line: which features are there and which are not. */
void vmx_describe(const struct vmx_caps *c, char *text, size_t size);

/*
 * Whether the CPU would refuse to enter a guest with these fields (SDM vol. 3, 27.3.1), and by which rule: false with
 * the rule in words, or true.
 */
bool vmx_check(const struct vmx_caps *c, const u64 f[FIELDS], char *why, size_t size);
/* A field's name, an instruction error (SDM vol. 3, 31.4) and a failed entry's exit reason, in words. */
void vmx_field_name(unsigned field, char *text, size_t size);
const char *vmx_error_text(u64 error);
const char *vmx_failure_text(u64 reason);
