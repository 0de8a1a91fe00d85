/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that writes a byte to the serial port again and again, with a hundred instructions between
 * two: wherever it was frozen, somebody outside sees its first instructions within a tenth of a
 * millisecond, also where each is emulated.
 */
    .section .note.Xen, "a", @note
    .long 4, 4, 18                      /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long byte_loop

    .text
    .code32
    .globl byte_loop
byte_loop:
    movl $0x3f8, %edx
    movb $0x7e, %al                     /* a heartbeat, to who reads */
1:  outb %al, %dx
    movl $100, %ecx
2:  loop 2b
    jmp 1b
