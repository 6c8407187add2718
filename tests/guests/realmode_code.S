/* SPDX-License-Identifier: MIT */
/*
 * From 64-bit mode to real mode and back. What runs in between is copied to RM_BASE, a page below 1 MB, where another
 * processor can start too; it leaves its results there, from rm_results on.
 *
 *     rm_enter -> rm_32 (paging off) -> rm_16 (16-bit segments) -> rm_real -> rm_up (32 bits; PAE and two-level paging
 *     each for a moment) -> rm_back
 */
#define RM_BASE  0xa000
#define AT(s)    (s - rm_start)           /* in the page */
#define ABS(s)   (RM_BASE + s - rm_start) /* from 0 */
#define APIC     0xfee00000

	.text
	.code64
	.globl rm_enter
rm_enter:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	pushfq
	cli
	movq %rsp, rm_rsp
	movq %cr3, %rax
	movq %rax, rm_cr3
	sidt rm_idt64
	sgdt rm_gdt64
	lgdt ABS(rm_gdt_pointer)
	pushq $0x18
	pushq $ABS(rm_32)
	lretq
rm_back:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl %eax, %fs
	movl %eax, %gs
	lgdt rm_gdt64
	lidt rm_idt64
	movq rm_rsp, %rsp
	popfq
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret

	.data
	.balign 8
	.globl rm_start, rm_end, rm_results, rm_far_word
rm_rsp:	.quad 0
rm_cr3:	.quad 0
rm_idt64: .skip 10
rm_gdt64: .skip 10
rm_far_word: .long 0

/* A processor that starts here by SIPI has CS at RM_BASE, and interrupts off. */
	.balign 32
rm_start:
	.code16
	cli
	xor %ax, %ax
	mov %ax, %ss
	mov $(RM_BASE + 0x2000), %sp
	mov %cs, %ax
	mov %ax, %ds
	mov $0x100, %bx
	int $0x60
	mov %cs, AT(rm_ap_cs)
1:	hlt
	jmp 1b

	.code32
rm_32:	movl %cr0, %eax
	andl $0x7fffffff, %eax
	movl %eax, %cr0
	movl $0xc0000080, %ecx
	rdmsr
	andl $~0x100, %eax
	wrmsr
	ljmp $0x20, $AT(rm_16)

	.code16
rm_16:	mov $0x28, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov $0x10, %ax /* limits of 4 GB that stay */
	mov %ax, %fs
	mov %ax, %gs
	mov %cr0, %eax
	and $0xfe, %al
	mov %eax, %cr0
	ljmp $(RM_BASE >> 4), $AT(rm_real)

rm_real:
	lidtl %cs:AT(rm_ivt)
	mov %cs, %ax
	mov %ax, %ds
	xor %ax, %ax
	mov %ax, %es
	mov %ax, %ss
	movl $(RM_BASE + 0x1800), %esp
	/* The vector table. */
	mov $AT(rm_handlers), %si
	mov $5, %cx
1:	lodsw
	mov %ax, %di
	movsw
	mov %cs, %es:(%di)
	loop 1b
	/* A call by INT and a carry that comes back in the flags on the stack. */
	clc
	mov $1, %bx
	int $0x60
	adc $0x10, %bx
	mov %bx, AT(rm_carry)
	/* Faults whose handlers step over what faulted: #DE, #BR, #GP for what is beyond 64 KB. */
	xor %cx, %cx
	mov $7, %ax
	div %cl
	mov $99, %ax
	bound %ax, AT(rm_bounds)
	movl $0x10000, %ebx
	movb (%ebx), %al
	/* FS and GS reach everything. */
	movl $rm_far_word, %edi
	movl $0x600dcafe, %fs:(%edi)
	movl %gs:(%edi), %eax
	movl %eax, AT(rm_far)
	/* Strings: copied, reversed, searched. */
	push %ds
	pop %es
	cld
	mov $AT(rm_text), %si
	mov $AT(rm_copy), %di
	mov $8, %cx
	rep movsb
	std
	mov $AT(rm_text) + 7, %si
	mov $AT(rm_copy) + 8, %di
	mov $8, %cx
1:	lodsb
	cld
	stosb
	std
	loop 1b
	cld
	mov $AT(rm_copy), %di
	mov $'m', %al
	mov $16, %cx
	repne scasb
	mov %cx, AT(rm_left)
	/* Decimal arithmetic, tables, frames. */
	mov $0x79, %al
	add $0x35, %al
	daa
	mov $0, %ah
	adc $0, %ah
	mov %ax, AT(rm_daa)
	mov $97, %al
	aam
	mov %ax, AT(rm_aam)
	mov $AT(rm_text), %bx
	mov $4, %al
	xlat
	mov %al, AT(rm_xlat)
	mov %sp, %bx
	pusha
	enter $0x20, $3
	leave
	popa
	sub %sp, %bx
	mov %bx, AT(rm_sp)
	push %ds
	lds AT(rm_pointer), %si
	mov %ds, %dx
	pop %ds
	add %dx, %si
	mov %si, AT(rm_lds)
	xor %eax, %eax
	cpuid
	movl %ebx, AT(rm_cpuid)
	/* The local APIC's timer ends a HLT. */
	movl $(APIC + 0x320), %edi
	movl $0x61, %fs:(%edi)
	movl $(APIC + 0x380), %edi
	movl $1000, %fs:(%edi)
1:	sti
	hlt
	cli
	cmpw $0, AT(rm_irqs)
	je 1b
	movl $(APIC + 0x320), %edi
	movl $0x10061, %fs:(%edi)
	/* Up again, FS with an RPL that nothing looks at until it is loaded again. */
	mov $0x9003, %ax
	mov %ax, %fs
	lgdtl AT(rm_gdt_pointer)
	smsw %ax
	or $1, %al
	lmsw %ax
	ljmpl $0x18, $ABS(rm_up)

	.code32
rm_up:	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %ss
	movl %eax, %es
	/* Both map the 4 MB at 2 GB to where rm_far_word is; PAE is on already. */
	movl $rm_far_word + 0x80000000, %edi
	movl $ABS(rm_pdpt), %eax
	movl %eax, %cr3
	call rm_paging
	movl (%edi), %eax
	movl %eax, ABS(rm_pae)
	call rm_paging
	movl %cr4, %ebx
	movl %ebx, %eax
	andl $~0x20, %eax
	orl $0x10, %eax
	movl %eax, %cr4
	movl $(RM_BASE + 0x2000), %eax
	movl %eax, %cr3
	call rm_paging
	addl $1, (%edi)
	call rm_paging
	movl %ebx, %cr4
	movl rm_cr3, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x100, %eax
	wrmsr
	call rm_paging
	ljmp $0x08, $rm_back
rm_paging: /* on or off */
	movl %cr0, %eax
	xorl $0x80000000, %eax
	movl %eax, %cr0
	ret

	.code16
h_int:	add %bx, %cs:AT(rm_calls)
	push %bp
	mov %sp, %bp
	orb $1, 6(%bp) /* CF */
	pop %bp
	iret
h_de:	push %bp
	mov %sp, %bp
	addw $2, 2(%bp)
	pop %bp
	incw %cs:AT(rm_de)
	iret
h_br:	push %bp
	mov %sp, %bp
	addw $4, 2(%bp)
	pop %bp
	incw %cs:AT(rm_br)
	iret
h_gp:	push %bp
	mov %sp, %bp
	addw $3, 2(%bp)
	pop %bp
	incw %cs:AT(rm_gp)
	iret
h_irq:	incw %cs:AT(rm_irqs)
	pushl %edi
	movl $(APIC + 0xb0), %edi
	movl $0, %fs:(%edi)
	popl %edi
	iret

	.balign 8
rm_gdt:	.quad 0
	.quad 0x00af9b000000ffff               /* 08: 64-bit code */
	.quad 0x00cf93000000ffff               /* 10: data */
	.quad 0x00cf9b000000ffff               /* 18: 32-bit code */
	.quad 0x00009b000000ffff | RM_BASE << 16 /* 20: 16-bit code, here */
	.quad 0x000093000000ffff               /* 28: 16-bit data */
rm_gdt_pointer: .short 6 * 8 - 1
	.quad ABS(rm_gdt)
	.balign 32
rm_pdpt: .quad pd + 1, 0, pd + 1, 0
rm_ivt:	.short 0x3ff
	.long 0
/* Where in the table, and what. */
rm_handlers:
	.short 0 * 4, AT(h_de), 5 * 4, AT(h_br), 13 * 4, AT(h_gp), 0x60 * 4, AT(h_int), 0x61 * 4, AT(h_irq)
rm_bounds: .short -5, 5
rm_pointer: .short 0x1234, 0x4321
rm_text: .ascii "realmode"
	.balign 4
/* In the order of struct results. */
rm_results:
rm_far:	.long 0
rm_cpuid: .long 0
rm_pae:	.long 0
rm_calls: .short 0
rm_carry: .short 0
rm_de:	.short 0
rm_br:	.short 0
rm_gp:	.short 0
rm_irqs: .short 0
rm_left: .short 0
rm_daa:	.short 0
rm_aam:	.short 0
rm_sp:	.short 0
rm_lds:	.short 0
rm_ap_cs: .short 0
rm_copy: .skip 16
rm_xlat: .byte 0
rm_end:

	.section .note.GNU-stack, "", @progbits
