/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest whose first instructions write a byte to the serial port, where somebody outside can see
 * when that was; then it sleeps.
 */
    .section .note.Xen, "a", @note
    .long 4, 4, 18                      /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long first_byte

    .text
    .code32
    .globl first_byte
first_byte:
    movl $0x3f8, %edx
    movb $0x40, %al
    outb %al, %dx
    cli
1:  hlt
    jmp 1b
