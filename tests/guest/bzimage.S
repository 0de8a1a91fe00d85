/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest as a bzImage, Linux boot protocol 2.15: boot sector with the setup header, one sector of
 * real-mode code for boot loaders that start there, then the bytes of the flat image.
 */

#define LINK_ADDRESS 0x200000
#define LOAD_ADDRESS 0x100000
#define PARAMS       0x1000             /* our boot_params, an offset in the setup's segment */

    .section .text
    .code16
    .org 0x1f1
    .byte 1                             /* setup_sects */
    .word 0                             /* root_flags */
    .long (payload_end - payload + 15) / 16 /* syssize */
    .word 0                             /* ram_size */
    .word 0xffff                        /* vid_mode */
    .word 0                             /* root_dev */
    .word 0xaa55                        /* boot_flag */
    .byte 0xeb, setup - 1f              /* jump; the byte 1f is at 0x202 */
1:  .ascii "HdrS"
    .word 0x020f                        /* version */
    .long 0                             /* realmode_swtch */
    .word 0                             /* start_sys_seg */
    .word 0                             /* kernel_version */
    .byte 0                             /* type_of_loader */
    .byte 1                             /* loadflags: LOADED_HIGH */
    .word 0                             /* setup_move_size */
code32_start:
    .long LOAD_ADDRESS
    .long 0                             /* ramdisk_image */
    .long 0                             /* ramdisk_size */
    .long 0                             /* bootsect_kludge */
    .word 0                             /* heap_end_ptr */
    .byte 0, 0                          /* ext_loader_ver, ext_loader_type */
    .long 0                             /* cmd_line_ptr */
    .long 0x7fffffff                    /* initrd_addr_max */
    .long 0x200000                      /* kernel_alignment */
    .byte 1                             /* relocatable_kernel: moves itself to LINK_ADDRESS */
    .byte 21                            /* min_alignment */
    .word 1                             /* xloadflags: XLF_KERNEL_64 */
    .long 1023                          /* cmdline_size */
    .long 0                             /* hardware_subarch */
    .quad 0                             /* hardware_subarch_data */
    .long payload - 0x400               /* payload_offset */
    .long payload_end - payload         /* payload_length */
    .quad 0                             /* setup_data */
    .quad LINK_ADDRESS                  /* pref_address */
    .long image_len + LINK_ADDRESS - LOAD_ADDRESS /* init_size */
    .long 0                             /* handover_offset */
    .long 0                             /* kernel_info_offset */

/* CS is DS + 0x20, so that labels count from DS; jump by them only relatively. */
setup:
    cli
    cld
    movw $PARAMS, %di
    xorl %eax, %eax
    movw $0x400, %cx
    rep stosl
    movw $0x1f1, %si                    /* the header */
    movw $(PARAMS + 0x1f1), %di
    movw $(setup - 0x1f1), %cx
    rep movsb
    movw $(PARAMS + 0x2d0), %di         /* the memory map */
    xorl %ebx, %ebx
2:  movl $0xe820, %eax
    movl $0x534d4150, %edx
    movl $20, %ecx
    int $0x15
    jc 3f
    cmpl $0x534d4150, %eax
    jne 3f
    incb PARAMS + 0x1e8
    addw $20, %di
    cmpb $64, PARAMS + 0x1e8
    je 3f
    testl %ebx, %ebx
    jnz 2b
3:  cli
    inb $0x92, %al                      /* A20 */
    orb $2, %al
    andb $0xfe, %al
    outb %al, $0x92
    xorl %eax, %eax
    movw %ds, %ax
    shll $4, %eax
    leal PARAMS(%eax), %esi
    addl %eax, setup_gdt_pointer + 2
    lgdtl setup_gdt_pointer
    movl code32_start, %ebp
    leal setup32(%eax), %ebx
    movl $0x11, %eax
    movl %eax, %cr0
    pushl $0x10
    pushl %ebx
    lretl
    .code32
setup32:
    movl $0x18, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    jmp *%ebp

    .balign 8
setup_gdt:
    .quad 0, 0
    .quad 0x00cf9b000000ffff            /* 0x10: code */
    .quad 0x00cf93000000ffff            /* 0x18: data */
setup_gdt_pointer:
    .word 0x1f
    .long setup_gdt

    .org 0x400
payload:
    .incbin GUEST_BIN
    .balign 16
payload_end:

    .section .note.GNU-stack, "", @progbits
