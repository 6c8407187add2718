/* SPDX-License-Identifier: MIT */
/* The guests' DSDT: AML that the build compiles from dsdt.asl. */
	.section .rodata
	.globl dsdt_start, dsdt_end
	.balign 8
dsdt_start:
	.incbin "build/guest/dsdt.aml"
dsdt_end:
	.section .note.GNU-stack, "", @progbits
