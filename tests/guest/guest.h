/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GUEST_H
#define GUEST_H

/*
 * The project's own guest: a freestanding program that obeys line commands on COM1.  README.md
 * describes the commands.  One processor runs the commands and the background jobs; interrupts only
 * set flags, collect serial input and send heartbeats.
 */

#include <stddef.h>
#include <stdint.h>

#include <stdbool.h>

#include "guest_abi.h"

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define PAGE_SIZE    4096u
#define MIB          (1ull << 20)
#define BULK         __attribute__((section(".bulk")))

enum vector {
    VECTOR_TIMER = 0x20,
    VECTOR_SERIAL = 0x24,
    VECTOR_GED = 0x25,
    VECTOR_WAKE = 0x30,
    VECTOR_MSI = 0x40, /* and up, one for each virtio device */
    VECTOR_SPURIOUS = 0xff,
};

struct range {
    uint64_t start;
    uint64_t len; /* bytes */
};

struct boot_info {
    int kind; /* BOOT_x */
    uint64_t rsdp_gpa;
    struct range initrd;
    struct range ram[32];
    unsigned nr_ram;
    uint64_t ram_bytes;
    char cmdline[1024];
};

struct frame {
    uint64_t r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

struct command {
    const char *name;
    const char *usage;
    void (*run)(unsigned argc, char **argv);
};

extern struct boot_info boot;
extern char image_start[], image_end[], bss_end[], file_end[];

/* guest_main.c: everything that is said goes out in whole lines.  %s %c %u %x %0 (16 hex digits). */
void out(const char *fmt, ...);
void beat_out(const char *text, unsigned len); /* from the timer interrupt */
void serial_interrupt(void);
void serial_restart(void); /* whatever its registers hold */
bool parse_u64(const char *text, uint64_t *ret_value);
bool arg_u64(unsigned argc, char **argv, unsigned i, const char *name, uint64_t *ret_value);
bool same_text(const char *a, const char *b);
void parse_boot(int kind, uint64_t info);

/* guest_cpu.c */
extern volatile uint32_t nr_interrupts[256];
void cpu_init(void);
void interrupt(struct frame *frame);
void idle(bool (*pending)(void)); /* halts once unless pending() */
bool wait_for(bool (*done)(void *), void *arg, uint64_t timeout_us);
void ioapic_route(unsigned gsi, unsigned vector);
bool rdmsr_safe(uint32_t msr, uint64_t *ret_value);
bool wrmsr_safe(uint32_t msr, uint64_t value);
bool cpu_has_1gib_pages(void);
uint32_t lapic_id(void);
bool lapic_is_x2(void);
void heartbeat_poll(void);
void lapic_init(void);
void lapic_send(uint32_t apic_id, uint32_t command);
void load_idt(void);
extern const struct command cpu_commands[];

/* guest_smp.c */
void smp_init(void);
void ap_main(unsigned number);
void ap_wake(void);
extern const struct command smp_commands[];

/* guest_clock.c */
void clock_init(void);
uint64_t clock_tsc_khz(void);
uint64_t us_to_tsc(uint64_t us);
uint64_t tsc_to_us(uint64_t ticks);
uint64_t kvmclock_ns(void);  /* 0 without kvmclock */
uint64_t kvmclock_gpa(void); /* of what KVM writes; 0 without kvmclock */
extern const struct command clock_commands[];

/* guest_acpi.c */
void acpi_init(void);
const uint8_t *acpi_table(const char signature[4]);
unsigned acpi_cpus(uint32_t *ids, unsigned max);
uint64_t acpi_ecam(void); /* 0 without MCFG */
uint64_t acpi_ioapic(void);
uint16_t acpi_pm_timer(void);
void ged_interrupt(void);
void ged_poll(void);
bool ged_pending(void);
uint64_t ged_address(void); /* of its registers; 0 without one */
void __attribute__((noreturn)) halt_forever(void);
extern const struct command acpi_commands[];

/* guest_mem.c */
void mem_init(void);
void *mem_map(uint64_t gpa, uint64_t len); /* NULL when out of page tables */
bool mem_is_free_ram(uint64_t start, uint64_t len);
void mem_forget(uint64_t start, uint64_t len); /* its contents are no longer those of a fill */
bool dirty_step(void);
uint64_t digest_words(const void *data, uint64_t len);
uint64_t sweep_words(volatile uint64_t *first, uint64_t nr_pages);
extern const struct command mem_commands[];

/* guest_pci.c */
struct pci_dev {
    uint8_t slot;
    uint16_t vendor, device;
};
uint32_t pci_read(unsigned slot, unsigned reg); /* 32 bits at reg & ~3, mechanism 1 */
void pci_write(unsigned slot, unsigned reg, uint32_t value);
uint64_t pci_bar(unsigned slot, unsigned bar);
unsigned pci_find_cap(unsigned slot, unsigned id, unsigned after);
extern const struct command pci_commands[];

/* Text and bytes. */
void *memcpy(void *dst, const void *src, size_t len);
void *memset(void *dst, int byte, size_t len);
int memcmp(const void *a, const void *b, size_t len);
size_t strlen(const char *text);

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint16_t inw(uint16_t port)
{
    uint16_t value;

    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t value;

    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
    return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr"
                     :
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
}

static inline void cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "0"(leaf), "2"(sub));
}

static inline void irq_off(void)
{
    __asm__ volatile("cli" : : : "memory");
}

static inline void irq_on(void)
{
    __asm__ volatile("sti" : : : "memory");
}

/* One instruction each, however long: what an emulating KVM does fast. */
static inline void copy_words(void *dst, const void *src, uint64_t nr_words)
{
    __asm__ volatile("rep movsq" : "+D"(dst), "+S"(src), "+c"(nr_words) : : "memory");
}

static inline void set_words(void *dst, uint64_t value, uint64_t nr_words)
{
    __asm__ volatile("rep stosq" : "+D"(dst), "+c"(nr_words) : "a"(value) : "memory");
}

static inline bool same_words(const void *a, const void *b, uint64_t nr_words)
{
    bool same;

    if (nr_words == 0)
        return true;
    __asm__ volatile("repe cmpsq" : "+D"(a), "+S"(b), "+c"(nr_words), "=@ccz"(same) : : "memory");
    return same;
}

static inline bool all_words(const void *data, uint64_t value, uint64_t nr_words)
{
    bool same;

    if (nr_words == 0)
        return true;
    __asm__ volatile("repe scasq"
                     : "+D"(data), "+c"(nr_words), "=@ccz"(same)
                     : "a"(value)
                     : "memory");
    return same;
}

static inline void *at(uint64_t gpa)
{
    return (void *)(uintptr_t)gpa;
}

static inline uint64_t gpa_of(const volatile void *pointer)
{
    return (uint64_t)(uintptr_t)pointer;
}

#endif
