/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries of the test guest: PVH, Linux 32-bit, Linux 64-bit, and the start of further processors;
 * the interrupt stubs.  The first thing every entry does is to write 0x40 to the debug port.
 *
 * Nothing here or elsewhere in the guest executes iret, int3, SSE or anything else that KVM's
 * instruction emulator lacks: an interrupt returns by rebuilding RFLAGS and RSP by hand.
 */

#include "guest_abi.h"

#define CODE32 0x08
#define CODE64 0x10
#define DATA   0x18

    .section .head, "ax"
    .code32
    .globl image_head
image_head:
linux32_entry:                          /* esi: boot_params; flat segments, paging off */
    movb $0x40, %al
    outb %al, $0x80
    cli
    cld
    /* boot_params.scratch is the only memory we may use as a stack. */
    leal 0x1e8(%esi), %esp
    call 1f
1:  popl %ebp
    subl $(1b - image_head), %ebp
    movl %esi, %edx
    movl $image_start, %edi
    cmpl %edi, %ebp
    je 2f
    movl %ebp, %esi
    movl $image_file_len, %ecx
    shrl $2, %ecx
    rep movsl
2:  movl %edx, %esi
    movl $BOOT_LINUX32, %edi
    movl $enter_long, %eax
    jmp *%eax

    .org 0x200
    .code64
linux64_entry:                          /* rsi: boot_params; the loader's page tables */
    movb $0x40, %al
    outb %al, $0x80
    cli
    cld
    leaq linux32_entry(%rip), %rax
    movq %rsi, %rdx
    movq $image_start, %rdi
    cmpq %rdi, %rax
    je 3f
    movq %rax, %rsi
    movl $image_file_len, %ecx
    shrl $3, %ecx
    rep movsq
3:  movq %rdx, %rsi
    movl $BOOT_LINUX64, %edi
    movl $stack_end, %esp
    lgdt gdt_pointer
    movl $pml4, %eax
    movq %rax, %cr3
    pushq $CODE64
    pushq $enter_c
    lretq

    .code32
    .globl pvh_entry
pvh_entry:                              /* ebx: hvm_start_info; flat segments, paging off */
    movb $0x40, %al
    outb %al, $0x80
    cli
    cld
    movl %ebx, %esi
    movl $BOOT_PVH, %edi

enter_long:                             /* edi: how we were booted, esi: its information */
    lgdt gdt_pointer
    movl $stack_end, %esp
    call long_mode_on
    ljmp $CODE64, $enter_c

/* Switches on long mode with our page tables; clobbers eax, ecx, edx. */
long_mode_on:
    movl %cr4, %eax
    orl $0x20, %eax                     /* PAE */
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx              /* EFER */
    rdmsr
    orl $0x100, %eax                    /* LME */
    wrmsr
    movl $0x80010033, %eax              /* PG, WP, NE, ET, MP, PE */
    movl %eax, %cr0
    ret

    .code64
enter_c:
    call load_segments
    movl %edi, %ebx
    movl %esi, %ebp
    /* The loader of a bzImage does not clear what follows the file. */
    movl $bss_start, %edi
    movl $bss_end, %ecx
    subl %edi, %ecx
    shrl $3, %ecx
    xorl %eax, %eax
    rep stosq
    movl %ebx, %edi
    movl %ebp, %esi
    call guest_main
4:  cli
    hlt
    jmp 4b

load_segments:
    movl $DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    ret

/* Copied to AP_TRAMPOLINE, where a processor starts in real mode after its SIPI. */
    .code16
    .globl ap_trampoline, ap_trampoline_end
ap_trampoline:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl ap_gdt_pointer - ap_trampoline
    movl $0x11, %eax                    /* ET, PE */
    movl %eax, %cr0
    ljmpl $CODE32, $ap_entry32
    .balign 4
ap_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
ap_trampoline_end:

    .code32
ap_entry32:
    movl $DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $1, %edi
    lock xaddl %edi, ap_next            /* edi: our number, from 1 */
    cmpl $MAX_CPUS, %edi
    jae 6f
    movl %edi, %esp
    shll $AP_STACK_SHIFT, %esp
    addl $ap_stacks, %esp               /* number n owns slice n - 1, which ends here */
    call long_mode_on
    ljmp $CODE64, $5f
    .code64
5:  call load_segments
    call ap_main
6:  cli
    hlt
    jmp 6b

/*
 * Interrupts and exceptions.  Every stub leaves, upwards from RSP: vector, error code, RIP, CS,
 * RFLAGS, RSP, SS.
 */
    .globl isr_stubs
    .balign 16
isr_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
    nop
    .else
    pushq $0
    .endif
    pushq $vector
    jmp isr_common
    .set vector, vector + 1
    .endr

    .balign 16
isr_common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    cld
    movq %rsp, %rdi
    call interrupt
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rdx
    /*
     * Here: rcx, rax, vector, error, rip, cs, rflags, rsp, ss.  Put RIP and RFLAGS on the
     * interrupted stack; its top two slots are padding or the SS and RSP slots, already read.
     */
    movq 56(%rsp), %rax
    movq 32(%rsp), %rcx
    movq %rcx, -8(%rax)
    movq 48(%rsp), %rcx
    movq %rcx, -16(%rax)
    subq $16, %rax
    movq %rax, 16(%rsp)
    popq %rcx
    popq %rax
    movq (%rsp), %rsp
    popfq
    ret

    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18                      /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad pvh_entry

    .section .data
    .balign 16
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff            /* CODE32 */
    .quad 0x00af9b000000ffff            /* CODE64 */
    .quad 0x00cf93000000ffff            /* DATA */
gdt_end:
    .balign 8
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
    .balign 4
    .globl ap_next
ap_next:
    .long 1

/* The first 4 GiB, mapped one to one, cost no instruction; the rest is mapped by mem_map(). */
    .section .tables, "aw"
    .balign 4096
    .globl pml4, pdpt_low
pml4:
    .quad pdpt_low + 3
    .fill 511, 8, 0
pdpt_low:
    .quad pd_low + 3, pd_low + 0x1003, pd_low + 0x2003, pd_low + 0x3003
    .fill 508, 8, 0
pd_low:
    .set page, 0x83
    .rept 2048
    .quad page
    .set page, page + 0x200000
    .endr

    .section .bulk, "aw", @nobits
    .balign 4096
    .skip 0x8000
stack_end:
    .globl ap_stacks
ap_stacks:
    .skip (MAX_CPUS - 1) << AP_STACK_SHIFT

    .section .note.GNU-stack, "", @progbits
