/* SPDX-License-Identifier: MIT */
/*
 * Headers for three loaders (built with -DMULTIBOOT1, -DMULTIBOOT2 or -DPVH) and one entry: 32-bit protected mode,
 * paging off; eax and ebx as the loader left them. Makes an identity map and goes to 64-bit mode.
 */
#define PAGES_2M 0x83 /* present, writable, large */

#ifdef MULTIBOOT1
	.section .header, "a"
	.balign 4
	.long 0x1badb002, 3, -(0x1badb002 + 3) /* modules on page boundaries, memory information */
#endif

#ifdef MULTIBOOT2
	.section .header, "a"
	.balign 8
header:
	.long 0xe85250d6, 0, header_end - header, -(0xe85250d6 + header_end - header)
	.short 1, 0 /* information request: memory map, modules */
	.long 16, 6, 3
	.short 6, 0 /* modules on page boundaries */
	.long 8
	.short 0, 0
	.long 8
header_end:
#endif

#ifdef PVH
	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 4, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long start
#endif

	.text
	.code32
	.globl start
start:
	cli
	cld
	movl $stack_top, %esp
	movl %eax, %ebp
	movl %ebx, %esi
	/* The low 4 GB in 2 MB pages. */
	movl $pml4, %edi
	movl $pdpt + 3, (%edi)
	movl $0, %ecx
1:	movl %ecx, %eax
	shll $12, %eax
	addl $pd + 3, %eax
	movl %eax, pdpt(, %ecx, 8)
	incl %ecx
	cmpl $4, %ecx
	jb 1b
	movl $0, %ecx
2:	movl %ecx, %eax
	shll $21, %eax
	orl $PAGES_2M, %eax
	movl %eax, pd(, %ecx, 8)
	incl %ecx
	cmpl $2048, %ecx
	jb 2b
	/* From there to 512 GB in 1 GB pages, where the CPU has them. */
	movl $0x80000001, %eax
	cpuid
	testl $1 << 26, %edx
	jz 4f
	movl $4, %ecx
3:	movl %ecx, %eax
	shll $30, %eax
	orl $PAGES_2M, %eax
	movl %eax, pdpt(, %ecx, 8)
	movl %ecx, %eax
	shrl $2, %eax
	movl %eax, pdpt + 4(, %ecx, 8)
	incl %ecx
	cmpl $512, %ecx
	jb 3b
4:	call enable_long_mode
	ljmp $0x08, $start64

/* Also the application processors' way; keeps ebp and esi. Returns in 32-bit compatibility mode, GDT loaded. */
enable_long_mode:
	movl $pml4, %eax
	movl %eax, %cr3
	movl %cr4, %eax
	orl $0x620, %eax /* PAE, OSFXSR, OSXMMEXCPT */
	movl %eax, %cr4
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x900, %eax /* LME, NXE */
	wrmsr
	movl %cr0, %eax
	andl $~4, %eax
	orl $0x80010022, %eax /* PG, WP, NE, MP */
	movl %eax, %cr0
	lgdt gdt_pointer
	ret

	.code64
start64:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl %eax, %fs
	movl %eax, %gs
	movl %ebp, %edi
	movl %esi, %esi
	xorl %ebp, %ebp
	call guest_main
1:	hlt
	jmp 1b

/*
 * Application processors: copied to a page below 1 MB (its number is the SIPI vector). Real mode; finds its GDT by
 * address, since this code's own is not where it was linked.
 */
	.code16
	.globl ap_trampoline, ap_trampoline_end
ap_trampoline:
	cli
	cld
	lgdtl %cs:(ap_gdt_pointer - ap_trampoline)
	movl %cr0, %eax
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $0x18, $ap_start32
	.balign 4
ap_gdt_pointer:
	.short gdt_end - gdt - 1
	.long gdt
ap_trampoline_end:

	.code32
ap_start32:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl ap_stack, %esp
	call enable_long_mode
	ljmp $0x08, $ap_start64
	.code64
ap_start64:
	xorl %ebp, %ebp
	call ap_main
1:	hlt
	jmp 1b

	.data
	.balign 8
	.globl gdt
gdt:	.quad 0
	.quad 0x00af9b000000ffff /* 08: 64-bit code */
	.quad 0x00cf93000000ffff /* 10: data */
	.quad 0x00cf9b000000ffff /* 18: 32-bit code */
	.globl gdt_tss
gdt_tss: .quad 0, 0             /* 20: TSS */
gdt_end:
gdt_pointer:
	.short gdt_end - gdt - 1
	.long gdt
	.globl ap_stack
ap_stack: .quad 0

	.bss
	.balign 4096
	.globl pml4, pdpt, pd
pml4:	.skip 4096
pdpt:	.skip 4096
pd:	.skip 4 * 4096
	.skip 16384
stack_top:

	.section .note.GNU-stack, "", @progbits
