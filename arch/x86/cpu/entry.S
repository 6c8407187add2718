/* SPDX-License-Identifier: MIT */
/*
 * Where exceptions and interrupts arrive: 256 stubs of 16 bytes, so that vector v's is trap_stubs + 16 * v. Each makes
 * the stack look alike (an error code, the vector) and all share one path, which builds struct trap_frame. There is no
 * user mode, so GS is always right.
 */
	.text
	.balign 16
	.globl trap_stubs
trap_stubs:
	.set vector, 0
	.rept 256
	.balign 16
	/* 8, 10 to 14, 17, 21, 29 and 30 push an error code themselves. */
	.if vector >= 32 || !((0x60227d00 >> (vector & 31)) & 1)
	pushq $0
	.endif
	pushq $vector
	jmp trap_common
	.set vector, vector + 1
	.endr
	.balign 16

trap_common:
	.irp reg, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
	pushq %\reg
	.endr
	cld
	movq %rsp, %rdi		/* 22 words were pushed on an aligned stack: it is aligned again */
	call trap_dispatch
	.irp reg, r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax
	popq %\reg
	.endr
	addq $16, %rsp
	iretq

	.section .note.GNU-stack, "", @progbits
