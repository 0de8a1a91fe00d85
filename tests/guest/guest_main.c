/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boot information, the serial line, the command loop.
 */
#include <stdarg.h>

#include "guest.h"
#include "guest_virtio.h"

enum {
    COM1 = 0x3f8,
    UART_DATA = COM1 + 0,
    UART_IER = COM1 + 1,
    UART_FCR = COM1 + 2,
    UART_LCR = COM1 + 3,
    UART_MCR = COM1 + 4,
    UART_LSR = COM1 + 5,
    LSR_DATA_READY = 1 << 0,
    LSR_THR_EMPTY = 1 << 5,
    UART_FIFO_LEN = 16,
    COM1_GSI = 4,
};

struct boot_info boot;

static char out_line[1024] BULK;
static unsigned out_len;
static char in_ring[1024] BULK;
static volatile unsigned in_head, in_tail; /* head: next to read; tail: next to write */
static char in_line[1024] BULK;
static unsigned in_len;

void *memcpy(void *dst, const void *src, size_t len)
{
    void *ret = dst;

    __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(len) : : "memory");
    return ret;
}

void *memset(void *dst, int byte, size_t len)
{
    void *ret = dst;

    __asm__ volatile("rep stosb" : "+D"(dst), "+c"(len) : "a"(byte) : "memory");
    return ret;
}

int memcmp(const void *a, const void *b, size_t len)
{
    bool same;

    if (len == 0)
        return 0;
    __asm__ volatile("repe cmpsb" : "+D"(a), "+S"(b), "+c"(len), "=@ccz"(same) : : "memory");
    return same ? 0 : 1;
}

size_t strlen(const char *text)
{
    size_t left = SIZE_MAX;

    __asm__ volatile("repne scasb" : "+D"(text), "+c"(left) : "a"(0) : "memory");
    return SIZE_MAX - left - 1;
}

bool same_text(const char *a, const char *b)
{
    size_t len = strlen(a);

    return len == strlen(b) && memcmp(a, b, len) == 0;
}

/* ---- Serial line ---- */

static void serial_init(void)
{
    outb(UART_IER, 0);
    outb(UART_LCR, 0x80);
    outb(UART_DATA, 1); /* 115200 baud */
    outb(UART_IER, 0);
    outb(UART_LCR, 0x03);
    outb(UART_FCR, 0x07);
    outb(UART_MCR, 0x0b);
}

void serial_restart(void)
{
    serial_init();
    outb(UART_IER, 1);
}

static void serial_wait_empty(void)
{
    for (unsigned i = 0; i < 100000 && !(inb(UART_LSR) & LSR_THR_EMPTY); i++)
        ;
}

static void serial_send(const char *text, unsigned len)
{
    while (len > 0) {
        uint64_t part = len < UART_FIFO_LEN ? len : UART_FIFO_LEN;

        len -= (unsigned)part;
        serial_wait_empty();
        __asm__ volatile("rep outsb" : "+S"(text), "+c"(part) : "d"(UART_DATA) : "memory");
    }
}

void beat_out(const char *text, unsigned len)
{
    serial_send(text, len);
}

void serial_interrupt(void)
{
    while (inb(UART_LSR) & LSR_DATA_READY) {
        char byte = (char)inb(UART_DATA);
        unsigned next = (in_tail + 1) % sizeof(in_ring);

        if (next != in_head) {
            in_ring[in_tail] = byte;
            in_tail = next;
        }
    }
}

static void out_char(char c)
{
    out_line[out_len++] = c;
    if (c == '\n' || out_len == sizeof(out_line)) {
        serial_send(out_line, out_len);
        out_len = 0;
    }
}

static void out_number(uint64_t value, unsigned base, unsigned min_digits)
{
    char digits[24];
    unsigned n = 0;

    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0 || n < min_digits);
    while (n > 0)
        out_char(digits[--n]);
}

void out(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    for (; *fmt; fmt++) {
        if (*fmt != '%') {
            out_char(*fmt);
            continue;
        }
        switch (*++fmt) {
        case 's':
            for (const char *s = va_arg(ap, const char *); *s; s++)
                out_char(*s);
            break;
        case 'c':
            out_char((char)va_arg(ap, int));
            break;
        case 'u':
            out_number(va_arg(ap, uint64_t), 10, 1);
            break;
        case 'x':
            out_number(va_arg(ap, uint64_t), 16, 1);
            break;
        case 'b': /* a byte, two digits */
            out_number(va_arg(ap, uint64_t) & 0xff, 16, 2);
            break;
        case '0':
            out_number(va_arg(ap, uint64_t), 16, 16);
            break;
        default:
            out_char(*fmt);
        }
    }
    va_end(ap);
}

/* ---- Arguments ---- */

bool parse_u64(const char *text, uint64_t *ret_value)
{
    unsigned base = 10;
    uint64_t value = 0;

    if (text[0] == '0' && text[1] == 'x') {
        base = 16;
        text += 2;
    }
    if (!*text)
        return false;
    for (; *text; text++) {
        unsigned digit;

        if (*text >= '0' && *text <= '9')
            digit = (unsigned)(*text - '0');
        else if (*text >= 'a' && *text <= 'f')
            digit = (unsigned)(*text - 'a') + 10;
        else
            return false;
        if (digit >= base)
            return false;
        value = value * base + digit;
    }
    *ret_value = value;
    return true;
}

bool arg_u64(unsigned argc, char **argv, unsigned i, const char *name, uint64_t *ret_value)
{
    if (i < argc && parse_u64(argv[i], ret_value))
        return true;
    out("err %s: a number is wanted for %s\n", argv[0], name);
    return false;
}

/* ---- Boot information ---- */

static void add_ram(uint64_t start, uint64_t len)
{
    if (boot.nr_ram == ARRAY_LEN(boot.ram) || len == 0)
        return;
    boot.ram[boot.nr_ram++] = (struct range){start, len};
    boot.ram_bytes += len;
}

static void copy_cmdline(uint64_t gpa)
{
    const char *text = at(gpa);
    size_t len;

    if (gpa == 0)
        return;
    len = strlen(text);
    if (len >= sizeof(boot.cmdline))
        len = sizeof(boot.cmdline) - 1;
    memcpy(boot.cmdline, text, len);
}

struct pvh_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist_gpa, cmdline_gpa, rsdp_gpa;
    uint64_t memmap_gpa; /* from version 1 */
    uint32_t nr_memmap, reserved;
};

struct pvh_memmap {
    uint64_t addr, len;
    uint32_t type, reserved;
};

static void parse_pvh(const struct pvh_info *info)
{
    const struct pvh_memmap *map = at(info->memmap_gpa);

    boot.rsdp_gpa = info->rsdp_gpa;
    copy_cmdline(info->cmdline_gpa);
    if (info->nr_modules > 0) {
        const uint64_t *module = at(info->modlist_gpa);

        boot.initrd = (struct range){module[0], module[1]};
    }
    for (uint32_t i = 0; info->version >= 1 && i < info->nr_memmap; i++) {
        if (map[i].type == 1)
            add_ram(map[i].addr, map[i].len);
    }
}

/* Linux boot protocol 2.15, the fields of struct boot_params that matter here. */
enum {
    BP_RSDP = 0x070,
    BP_EXT_RAMDISK_IMAGE = 0x0c0,
    BP_EXT_RAMDISK_SIZE = 0x0c4,
    BP_EXT_CMD_LINE = 0x0c8,
    BP_NR_E820 = 0x1e8,
    BP_RAMDISK_IMAGE = 0x218,
    BP_RAMDISK_SIZE = 0x21c,
    BP_CMD_LINE = 0x228,
    BP_E820 = 0x2d0,
};

static uint64_t load(const uint8_t *from, unsigned len)
{
    uint64_t value = 0;

    memcpy(&value, from, len);
    return value;
}

static void parse_linux(const uint8_t *params)
{
    boot.rsdp_gpa = load(params + BP_RSDP, 8);
    boot.initrd.start = load(params + BP_RAMDISK_IMAGE, 4) | load(params + BP_EXT_RAMDISK_IMAGE, 4)
                                                                 << 32;
    boot.initrd.len = load(params + BP_RAMDISK_SIZE, 4) | load(params + BP_EXT_RAMDISK_SIZE, 4)
                                                              << 32;
    copy_cmdline(load(params + BP_CMD_LINE, 4) | load(params + BP_EXT_CMD_LINE, 4) << 32);
    for (unsigned i = 0; i < params[BP_NR_E820]; i++) {
        const uint8_t *entry = params + BP_E820 + 20 * i;

        if (load(entry + 16, 4) == 1)
            add_ram(load(entry, 8), load(entry + 8, 8));
    }
}

void parse_boot(int kind, uint64_t info)
{
    boot.kind = kind;
    if (kind == BOOT_PVH)
        parse_pvh(at(info));
    else
        parse_linux(at(info));
}

/* ---- Commands ---- */

static const char *boot_kind(void)
{
    return boot.kind == BOOT_PVH ? "pvh" : boot.kind == BOOT_LINUX32 ? "linux32" : "linux64";
}

static void cmd_info(unsigned argc, char **argv)
{
    uint32_t ids[MAX_CPUS];

    (void)argc;
    (void)argv;
    out("ok boot=%s ram=%u cpus=%u tsc_khz=%u lapic=%s kvmclock=0x%x rsdp=0x%x image=0x%x-0x%x\n",
        boot_kind(), boot.ram_bytes, (uint64_t)acpi_cpus(ids, MAX_CPUS), clock_tsc_khz(),
        lapic_is_x2() ? "x2apic" : "xapic", kvmclock_gpa(), boot.rsdp_gpa, gpa_of(image_start),
        gpa_of(image_end));
}

static void cmd_map(unsigned argc, char **argv)
{
    (void)argc;
    (void)argv;
    for (unsigned i = 0; i < boot.nr_ram; i++)
        out("| ram 0x%x 0x%x\n", boot.ram[i].start, boot.ram[i].len);
    out("ok ranges=%u\n", (uint64_t)boot.nr_ram);
}

static void cmd_cmdline(unsigned argc, char **argv)
{
    (void)argc;
    (void)argv;
    out("ok %s\n", boot.cmdline);
}

static void cmd_initrd(unsigned argc, char **argv)
{
    uint64_t digest = 0;

    (void)argc;
    (void)argv;
    if (boot.initrd.len > 0)
        digest = digest_words(at(boot.initrd.start), boot.initrd.len);
    out("ok addr=0x%x len=%u digest=%0\n", boot.initrd.start, boot.initrd.len, digest);
}

static void cmd_echo(unsigned argc, char **argv)
{
    out("ok");
    for (unsigned i = 1; i < argc; i++)
        out(" %s", argv[i]);
    out("\n");
}

static void cmd_help(unsigned argc, char **argv);

static const struct command main_commands[] = {
    {"help",    "",       cmd_help   },
    {"echo",    "[word]", cmd_echo   },
    {"info",    "",       cmd_info   },
    {"map",     "",       cmd_map    },
    {"cmdline", "",       cmd_cmdline},
    {"initrd",  "",       cmd_initrd },
    {NULL,      NULL,     NULL       },
};

static const struct command *const command_lists[] = {
    main_commands, cpu_commands, smp_commands, clock_commands, acpi_commands,     mem_commands,
    pci_commands,  blk_commands, net_commands, misc_commands,  scribble_commands,
};

static void cmd_help(unsigned argc, char **argv)
{
    (void)argc;
    (void)argv;
    for (unsigned i = 0; i < ARRAY_LEN(command_lists); i++) {
        for (const struct command *c = command_lists[i]; c->name; c++)
            out("| %s %s\n", c->name, c->usage);
    }
    out("ok\n");
}

static void run_line(char *line)
{
    char *argv[16];
    unsigned argc = 0;

    for (char *p = line; *p && argc < ARRAY_LEN(argv);) {
        while (*p == ' ')
            p++;
        if (!*p)
            break;
        argv[argc++] = p;
        while (*p && *p != ' ')
            p++;
        if (*p)
            *p++ = 0;
    }
    if (argc == 0)
        return;
    for (unsigned i = 0; i < ARRAY_LEN(command_lists); i++) {
        for (const struct command *c = command_lists[i]; c->name; c++) {
            if (same_text(c->name, argv[0])) {
                c->run(argc, argv);
                return;
            }
        }
    }
    out("err unknown command %s\n", argv[0]);
}

static void read_lines(void)
{
    while (in_head != in_tail) {
        char c = in_ring[in_head];

        in_head = (in_head + 1) % sizeof(in_ring);
        if (c == '\n' || c == '\r') {
            in_line[in_len] = 0;
            in_len = 0;
            run_line(in_line);
        } else if (in_len < sizeof(in_line) - 1) {
            in_line[in_len++] = c;
        }
    }
}

/* Every word do=command:argument:... of the kernel command line is a command. */
static void run_cmdline(void)
{
    const char *p = boot.cmdline;

    while (*p) {
        unsigned len = 0;
        bool wanted = p[0] == 'd' && p[1] == 'o' && p[2] == '=';

        for (p += wanted ? 3 : 0; *p && *p != ' '; p++) {
            if (wanted && len < sizeof(in_line) - 1)
                in_line[len++] = *p == ':' ? ' ' : *p;
        }
        in_line[len] = 0;
        run_line(in_line);
        while (*p == ' ')
            p++;
    }
}

static bool pending(void)
{
    return in_head != in_tail || ged_pending() || virtio_pending();
}

void __attribute__((noreturn)) guest_main(int kind, uint64_t info);

void __attribute__((noreturn)) guest_main(int kind, uint64_t info)
{
    serial_init();
    parse_boot(kind, info);
    out("chrysalis-guest ready 1 boot=%s ram=%u\n", boot_kind(), boot.ram_bytes);
    outb(0x80, 0x41);
    cpu_init();
    acpi_init();
    clock_init();
    mem_init();
    ioapic_route(COM1_GSI, VECTOR_SERIAL);
    outb(UART_IER, 1);
    serial_interrupt();
    irq_on();
    run_cmdline();
    for (;;) {
        bool busy = false;

        read_lines();
        heartbeat_poll();
        ged_poll();
        busy |= dirty_step();
        busy |= virtio_step();
        if (!busy)
            idle(pending);
    }
}
