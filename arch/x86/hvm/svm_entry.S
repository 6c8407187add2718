/* SPDX-License-Identifier: MIT */
/* svm_enter(vmcb, regs, host): see svm.h. GS is the guest's from VMLOAD to the second VMLOAD: nothing may use it. */

	.text
	.global svm_enter
	.type svm_enter, @function
svm_enter:
	push %rbp
	mov %rsp, %rbp
	push %rbx
	push %r12
	push %r13
	push %r14
	push %r15
	push %rdx
	push %rsi

	mov %rdi, %rax
	mov 8*1(%rsi), %rcx
	mov 8*2(%rsi), %rdx
	mov 8*3(%rsi), %rbx
	mov 8*5(%rsi), %rbp
	mov 8*7(%rsi), %rdi
	mov 8*8(%rsi), %r8
	mov 8*9(%rsi), %r9
	mov 8*10(%rsi), %r10
	mov 8*11(%rsi), %r11
	mov 8*12(%rsi), %r12
	mov 8*13(%rsi), %r13
	mov 8*14(%rsi), %r14
	mov 8*15(%rsi), %r15
	mov 8*6(%rsi), %rsi
	vmload %rax
	vmrun %rax
	vmsave %rax			/* RAX is the VMCB's address again */

	pop %rax
	mov %rcx, 8*1(%rax)
	mov %rdx, 8*2(%rax)
	mov %rbx, 8*3(%rax)
	mov %rbp, 8*5(%rax)
	mov %rsi, 8*6(%rax)
	mov %rdi, 8*7(%rax)
	mov %r8, 8*8(%rax)
	mov %r9, 8*9(%rax)
	mov %r10, 8*10(%rax)
	mov %r11, 8*11(%rax)
	mov %r12, 8*12(%rax)
	mov %r13, 8*13(%rax)
	mov %r14, 8*14(%rax)
	mov %r15, 8*15(%rax)
	pop %rax
	vmload %rax
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbx
	pop %rbp
	ret
	.size svm_enter, . - svm_enter

	.section .note.GNU-stack, "", @progbits
