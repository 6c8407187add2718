/* SPDX-License-Identifier: MIT */
/*
 * From the loader into C. There are two ways in, and they meet as soon as both are in long mode:
 *
 *     entry_32      multiboot 1 and 2: 32-bit, paging off     entry_efi64   multiboot 2 on UEFI, boot services running
 *       identity map of the low 4 GB, long mode                 its lower half is the firmware's map
 *                            \                                       /
 *                              meet_64: DIRECT_MAP = the lower half again; the image's own map
 *                                                    |
 *                                  boot_main(magic, info, load base) on boot_stack
 *
 * The loader may have put the image at any multiple of 2 MB below 4 GB. Until the jump to the high half everything is
 * therefore addressed by where it is: by distance from ebp (actual less linked address) in 32-bit code, by rip in 64-bit
 * code. All loaders clear the bss, so tables are only filled where they are not zero.
 */
#define MULTIBOOT1_HEADER 0x1badb002
#define MULTIBOOT1_LOADER 0x2badb002
#define MULTIBOOT1_FLAGS  0x00010003 /* modules on pages, memory map, addresses below */
#define MULTIBOOT2_HEADER 0xe85250d6
#define MULTIBOOT2_LOADER 0x36d76289

#define PHYS(x) ((x)-0xffffffff80000000) /* address at which x is linked to be loaded */

#define PTE_TABLE 0x003 /* present, writable */
#define PTE_LARGE 0x083
#define LARGE     0x200000
#define SLOTS     512

#define CR0_PG        (1 << 31)
#define CR4_PAE       (1 << 5)
#define CR4_LA57_BIT  12
#define MSR_EFER      0xc0000080
#define EFER_LME      (1 << 8)
#define CPUID_LM_BIT  29
#define SEL_CODE      0x08
#define SEL_DATA      0x10

#define STACK_SIZE 16384

	.section .multiboot, "a"
	.balign 8
multiboot1:
	.long MULTIBOOT1_HEADER, MULTIBOOT1_FLAGS, -(MULTIBOOT1_HEADER + MULTIBOOT1_FLAGS)
	.long PHYS(multiboot1), PHYS(image_start), PHYS(data_end), PHYS(image_end), PHYS(entry_32)

	/*
	 * A tag: type, flags (1: the loader may ignore it), size, contents; at multiples of 8. None asks for a framebuffer:
	 * GRUB would leave text mode for it on a BIOS, and UEFI has one anyhow.
	 */
	.balign 8
multiboot2:
	.long MULTIBOOT2_HEADER, 0, multiboot2_end - multiboot2
	.long -(MULTIBOOT2_HEADER + (multiboot2_end - multiboot2))
	.word 6, 1 /* modules on page boundaries */
	.long 8
	.word 7, 1 /* leave EFI boot services running */
	.long 8
	.word 9, 1 /* entry for that: amd64 */
	.long 12, PHYS(entry_efi64)
	.balign 8
	.word 10, 1 /* relocatable: from, below, alignment, as low as possible */
	.long 24, LARGE, 0xffffffff, LARGE, 1
	.word 0, 0
	.long 8
multiboot2_end:

/* Fills a table at ebx with so many entries: eax, and from each to the next that much more. In both modes. */
	.macro fill count, step
	mov $\count, %ecx
0:	mov %eax, (%ebx)
	add $\step, %eax
	add $8, %ebx
	dec %ecx
	jnz 0b
	.endm

	.section .text.entry, "ax"
	.code32
	.globl entry_32
entry_32:
	cli
	cld
	mov %eax, %edi
	mov %ebx, %esi
	xor %ebp, %ebp
	mov $PHYS(no_loader), %edx
	cmp $MULTIBOOT1_LOADER, %eax
	je 1f
	cmp $MULTIBOOT2_LOADER, %eax
	jne die_32
1:	/* There is no stack yet: the first word of the loader's block lends itself for one push. */
	mov (%ebx), %ecx
	lea 4(%ebx), %esp
	call 2f
2:	pop %ebp
	mov %ecx, (%ebx)
	sub $PHYS(2b), %ebp
	lea PHYS(boot_stack) + STACK_SIZE(%ebp), %esp

	mov $PHYS(bad_base), %edx
	test $(LARGE - 1), %ebp
	jnz die_32
	mov $0x80000000, %eax
	cpuid
	mov $PHYS(no_long_mode), %edx
	cmp $0x80000001, %eax
	jb die_32
	mov $0x80000001, %eax
	cpuid
	bt $CPUID_LM_BIT, %edx
	mov $PHYS(no_long_mode), %edx
	jnc die_32

	mov $PTE_LARGE, %eax
	lea PHYS(boot_pd)(%ebp), %ebx
	fill (4*SLOTS), LARGE
	lea PHYS(boot_pd) + PTE_TABLE(%ebp), %eax
	lea PHYS(boot_pdpt)(%ebp), %ebx
	fill 4, 4096
	lea PHYS(boot_pdpt) + PTE_TABLE(%ebp), %eax
	lea PHYS(boot_pml4)(%ebp), %ebx
	mov %eax, (%ebx)

	mov %ebx, %cr3
	mov %cr4, %eax
	or $CR4_PAE, %eax
	mov %eax, %cr4
	mov $MSR_EFER, %ecx
	rdmsr
	or $EFER_LME, %eax
	wrmsr
	mov %cr0, %eax
	or $CR0_PG, %eax
	mov %eax, %cr0

	lea PHYS(boot_gdt)(%ebp), %eax
	mov %eax, PHYS(boot_gdtr) + 2(%ebp)
	lgdt PHYS(boot_gdtr)(%ebp)
	mov $SEL_DATA, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	lea PHYS(meet_64)(%ebp), %eax
	push $SEL_CODE
	push %eax
	lret

die_32:
	lea (%edx, %ebp), %esi
/*
 * Shows the text at esi on COM1 and on VGA's text screen, and stops. The 64-bit entry comes here too: every instruction
 * means the same in both modes.
 */
die:
	mov $0xb8000, %edi
1:	lodsb
	mov %al, %bl
	test %al, %al
	jz 4f
	mov $0x0f, %ah
	stosw
	mov $0x3fd, %edx
	mov $100000, %ecx
2:	in %dx, %al
	test $0x20, %al
	jnz 3f
	sub $1, %ecx
	jnz 2b
3:	mov $0x3f8, %edx
	mov %bl, %al
	out %al, %dx
	jmp 1b
4:	hlt
	jmp 4b

	.code64
/*
 * The firmware's interrupts need far more stack than boot_stack has, so they stay off except inside efi_call, which runs
 * on the stack that we were given.
 */
entry_efi64:
	cli
	cld
	mov %rsp, efi_stack(%rip)
	lea no_loader(%rip), %rsi
	cmp $MULTIBOOT2_LOADER, %eax
	jne die
	mov %cr4, %rcx
	lea five_levels(%rip), %rsi
	bt $CR4_LA57_BIT, %rcx
	jc die
	lea bad_base(%rip), %rsi
	lea image_start(%rip), %rcx
	test $(LARGE - 1), %ecx
	jnz die

	mov %eax, %r8d
	mov %rbx, %r9
	mov %cr3, %rsi
	and $~0xfff, %rsi
	lea boot_pml4(%rip), %rdi
	mov $(SLOTS / 2), %ecx
	rep movsq
	mov %r8d, %edi
	mov %r9, %rsi

/* edi: magic, rsi: the loader's block; boot_pml4 has its lower half. */
meet_64:
	lea boot_pml4(%rip), %rbx
	mov $(SLOTS / 4), %ecx
1:	mov -8(%rbx, %rcx, 8), %rax
	mov %rax, SLOTS / 2 * 8 - 8(%rbx, %rcx, 8)
	dec %ecx
	jnz 1b

	lea image_start(%rip), %r12
	lea PTE_LARGE(%r12), %eax
	lea boot_image_pd + 8(%rip), %ebx
	fill image_large_pages, LARGE
	lea boot_pml4(%rip), %rbx
	lea boot_image_pd + PTE_TABLE(%rip), %rax
	mov %rax, boot_image_pdpt + 510 * 8(%rip)
	lea boot_image_pdpt + PTE_TABLE(%rip), %rax
	mov %rax, 511 * 8(%rbx)
	mov %rbx, %cr3
	mov $1f, %rax
	jmp *%rax
1:
	mov $boot_stack + STACK_SIZE, %rsp
	mov %r12, %rdx
	xor %ebp, %ebp
	call boot_main /* which does not return */

/* u64 efi_call(const void *fn, a, b, c, d, e): from the System V convention to Microsoft's, on the firmware's stack. */
	.globl efi_call
efi_call:
	push %rbp
	mov %rsp, %rbp
	mov efi_stack(%rip), %rsp
	and $-16, %rsp
	sub $48, %rsp
	mov %r9, 32(%rsp)
	mov %r8, %r9
	mov %rcx, %r8
	mov %rsi, %rcx
	sti
	call *%rdi
	cli
	mov %rbp, %rsp
	pop %rbp
	ret

	.section .rodata
no_loader:
	.asciz "Cleave: no multiboot loader started this image\r\n"
bad_base:
	.asciz "Cleave: not loaded at a multiple of 2 MB\r\n"
no_long_mode:
	.asciz "Cleave: this CPU has no 64-bit mode\r\n"
five_levels:
	.asciz "Cleave: the firmware runs with 5-level paging, which is not supported\r\n"

	.data
	.balign 8
boot_gdt:
	.quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
boot_gdtr:
	.word boot_gdtr - boot_gdt - 1
	.long 0

	.local boot_image_pdpt, boot_image_pd, boot_stack, efi_stack
	.comm boot_pml4, 4096, 4096
	.comm boot_pdpt, 4096, 4096
	.comm boot_pd, 4 * 4096, 4096
	.comm boot_image_pdpt, 4096, 4096
	.comm boot_image_pd, 4096, 4096
	.comm boot_stack, STACK_SIZE, 16
	.comm efi_stack, 8, 8
	.section .note.GNU-stack, "", @progbits
