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
	pushq %rax
	pushq %rbx
	pushq %rcx
	pushq %rdx
	pushq %rsi
	pushq %rdi
	pushq %rbp
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %r11
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	cld
	movq %rsp, %rdi		/* 22 words were pushed on an aligned stack: it is aligned again */
	call trap_dispatch
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rbp
	popq %rdi
	popq %rsi
	popq %rdx
	popq %rcx
	popq %rbx
	popq %rax
	addq $16, %rsp
	iretq

	/* An empty symbol table, for the first link (symbols.c). A compiler would take a weak constant at its word. */
	.section .rodata
	.balign 4
	.weak kallsyms_count, kallsyms, kallsyms_names
kallsyms_count:
	.long 0
kallsyms:
kallsyms_names:

	.section .note.GNU-stack, "", @progbits
