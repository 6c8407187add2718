/* SPDX-License-Identifier: MIT */
/* The screen's font, a PSF file that the build unpacks from the system's console fonts. */
	.section .rodata
	.globl font_start
	.balign 8
font_start:
	.incbin "build/font.psf"
	.section .note.GNU-stack, "", @progbits
