/* SPDX-License-Identifier: MIT */
/* Between emulate.c, which knows instructions and memory, and soft.c, which knows descriptors and interrupts. */
#pragma once

#include "arch/x86/hvm/vcpu.h"

/* Types of segments. DOWN: data that expands down, or code that conforms. WRITE: data is writable, code is readable. */
enum { SEG_TYPE_ACCESSED = 1, SEG_TYPE_WRITE = 2, SEG_TYPE_DOWN = 4, SEG_TYPE_CODE = 8 };

/* --- In emulate.c. */

/* Notes an exception in v->fault; error: 0 for a vector without an error code. EMUL_FAULT. */
enum emul_result fault(struct vcpu *v, u8 vector, u32 error);
/* An access of the CPU's own, to a descriptor or the like: the supervisor's, whatever the CPL. la is linear. */
enum emul_result table_access(struct vcpu *v, u64 la, void *buf, unsigned size, enum emul_access a);
/* An access of the instruction's, by segment and offset. */
enum emul_result segment_access(void *vcpu, enum seg s, u64 off, void *buf, unsigned size, enum emul_access a);

/* --- In soft.c. All return what an operation of the emulator does. */

/* Loads a segment register, LDTR or TR, with the checks of the mode; into CS as far transfers at the same level do. */
enum emul_result load_segment(void *vcpu, enum seg s, u16 sel);
/*
 * Delivers an interrupt or exception, or by EVENT_SOFT does INT n, INT3 or INTO; *r counts only if it returns EMUL_OK.
 * rip in *r is where the handler returns to.
 */
enum emul_result soft_deliver(struct vcpu *v, struct gregs *r, struct vm_event e);
