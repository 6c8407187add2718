/* SPDX-License-Identifier: MIT */
/*
 * Where another processor starts: real mode, at the beginning of a page below 1 MB to which smp.c has copied this. It
 * goes straight to long mode (paging and protection in one store) on a table that maps this page at its own address and
 * the upper half as the hypervisor has it, and calls the C code there. The arguments lie behind the code: struct
 * tramp_args in smp.c.
 */
	.section .rodata
	.balign 16
	.globl trampoline, trampoline_args, trampoline_end
	.code16
trampoline:
	movw %cs, %ax
	movw %ax, %ds
	movl tramp_cr3 - trampoline, %eax
	movl %eax, %cr3
	movl $0x20, %eax		/* PAE */
	movl %eax, %cr4
	movl $0xc0000080, %ecx		/* EFER */
	movl tramp_efer - trampoline, %eax
	xorl %edx, %edx
	wrmsr
	lgdtl tramp_gdtr - trampoline
	movl $0x80010033, %eax		/* PG, WP, NE, ET, MP, PE */
	movl %eax, %cr0
	ljmpl *(tramp_far - trampoline)

	.code64
trampoline_64:
	movq tramp_stack(%rip), %rsp
	movq tramp_pcpu(%rip), %rdi
	xorl %ebp, %ebp
	pushq $0			/* where back traces end */
	jmp *tramp_entry(%rip)

	.balign 8
trampoline_args:
tramp_gdt:	.quad 0, 0x00af9b000000ffff
tramp_stack:	.quad 0
tramp_pcpu:	.quad 0
tramp_entry:	.quad 0
tramp_cr3:	.long 0
tramp_efer:	.long 0
tramp_far:	.long trampoline_64 - trampoline	/* smp.c adds the page's address */
		.word 0x08
tramp_gdtr:	.word 15
		.long tramp_gdt - trampoline	/* here too */
trampoline_end:

	.section .note.GNU-stack, "", @progbits
