/* SPDX-License-Identifier: MIT */
/* What the backends share: the part of a vCPU's state that stays in the CPU's registers across exits. */
#ifndef ARCH_X86_HVM_HVM_H
#define ARCH_X86_HVM_HVM_H

#include "arch/x86/cpu/pcpu.h"
#include "arch/x86/hvm/vcpu.h"

/*
 * Makes v the vCPU whose FPU, XCR0, DR0-3 and TSC_AUX are in this pCPU's registers. The hypervisor uses none of them,
 * so they move only when another vCPU runs.
 */
void vcpu_load(struct pcpu *p, struct vcpu *v);

#endif
