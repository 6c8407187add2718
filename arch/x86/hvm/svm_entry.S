/* SPDX-License-Identifier: MIT */
/* svm_enter(vmcb, regs, host): see svm.h. GS is the guest's from VMLOAD to the second VMLOAD: nothing may use it. */

/* Applies the macro to each of the guest's registers but RAX and RSP, with its index in struct gregs; RSI is last. */
	.macro for_each_reg do
	.irp reg, "rcx, 1", "rdx, 2", "rbx, 3", "rbp, 5", "rdi, 7", "r8, 8", "r9, 9", "r10, 10", "r11, 11", "r12, 12", "r13, 13", "r14, 14", "r15, 15", "rsi, 6"
	\do \reg
	.endr
	.endm

	.macro load reg, index
	mov 8*\index(%rsi), %\reg
	.endm

	.macro store reg, index
	mov %\reg, 8*\index(%rax)
	.endm

	.text
	.global svm_enter
	.type svm_enter, @function
svm_enter:
	.irp reg, rbp, rbx, r12, r13, r14, r15, rdx, rsi
	push %\reg
	.endr
	mov %rdi, %rax
	for_each_reg load
	vmload %rax
	vmrun %rax
	vmsave %rax			/* RAX is the VMCB's address again */
	pop %rax			/* regs */
	for_each_reg store
	pop %rax			/* host */
	vmload %rax
	.irp reg, r15, r14, r13, r12, rbx, rbp
	pop %\reg
	.endr
	ret
	.size svm_enter, . - svm_enter

	.section .note.GNU-stack, "", @progbits
