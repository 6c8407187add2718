/* SPDX-License-Identifier: MIT */
/*
 * vmx_enter(regs, frame, launched) and vmx_exit, where the CPU arrives at an exit: see vmx.c. The VMCS has HOST_RSP =
 * frame, whose word holds our stack pointer; the word below it is free for one push.
 */
	.text
	.global vmx_enter, vmx_exit
	.type vmx_enter, @function
	.type vmx_exit, @function

/* Applies the macro to each of the guest's registers but RSP and RDI, with its index in struct gregs. */
	.macro for_each_reg do
	.irp reg, "rax, 0", "rcx, 1", "rdx, 2", "rbx, 3", "rbp, 5", "rsi, 6", "r8, 8", "r9, 9", "r10, 10", "r11, 11", "r12, 12", "r13, 13", "r14, 14", "r15, 15"
	\do \reg
	.endr
	.endm

	.macro load reg, index
	mov 8*\index(%rdi), %\reg
	.endm

	.macro store reg, index
	mov %\reg, 8*\index(%rdi)
	.endm

	.macro restore
	.irp reg, rdi, r15, r14, r13, r12, rbx, rbp
	pop %\reg
	.endr
	.endm

vmx_enter:
	.irp reg, rbp, rbx, r12, r13, r14, r15, rdi
	push %\reg
	.endr
	mov %rsp, (%rsi)
	test %edx, %edx			/* the loads below keep the flags */
	for_each_reg load
	mov 8*7(%rdi), %rdi
	jnz 1f
	vmlaunch
	jmp 2f
1:	vmresume
2:	restore				/* not entered: our stack is still ours */
	mov $1, %eax
	ret
	.size vmx_enter, . - vmx_enter

vmx_exit:
	push %rdi
	mov 8(%rsp), %rdi		/* our stack pointer */
	mov (%rdi), %rdi		/* regs */
	for_each_reg store
	pop %rax
	mov %rax, 8*7(%rdi)
	mov (%rsp), %rsp
	restore
	xor %eax, %eax
	ret
	.size vmx_exit, . - vmx_exit

	.section .note.GNU-stack, "", @progbits
