/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ACPI tables the guest needs, the ways to stop and restart, port and memory access.
 *
 * There is no AML interpreter: the few facts that only AML holds are found by their names.
 */
#include "guest.h"

enum {
    FADT_DSDT = 40,
    FADT_PM_TIMER = 76,
    FADT_X_DSDT = 140,
    FADT_RESET_REG = 116,
    FADT_RESET_VALUE = 128,
    FADT_SLEEP_CONTROL = 244,
    GAS_MEMORY = 0,
    GAS_PORT = 1,
    S5_SLEEP = 5 << 2 | 1 << 5, /* SLP_TYP 5, SLP_EN */
    GED_POWER_BUTTON = 1 << 3,
    MAX_TABLES = 32,
};

static const uint8_t *tables[MAX_TABLES];
static unsigned nr_tables;
static bool has_acpi;
static uint64_t ioapic_gpa = 0xfec00000;
static const uint64_t nothing_gpa = 0xd8000000; /* below the devices of all machines */
static volatile uint32_t ged_events, nr_power_buttons;
static uint64_t ged_gpa;

static uint64_t load(const uint8_t *from, unsigned len)
{
    uint64_t value = 0;

    memcpy(&value, from, len);
    return value;
}

static const uint8_t *find_rsdp(uint64_t start, uint64_t end)
{
    for (uint64_t gpa = start; gpa < end; gpa += 16) {
        if (load(at(gpa), 8) == 0x2052545020445352) /* "RSD PTR " */
            return at(gpa);
    }
    return NULL;
}

static void add_tables(const uint8_t *root, unsigned width)
{
    uint64_t len = load(root + 4, 4);

    for (uint64_t off = 36; off + width <= len && nr_tables < MAX_TABLES; off += width)
        tables[nr_tables++] = at(load(root + off, width));
}

const uint8_t *acpi_table(const char signature[4])
{
    for (unsigned i = 0; i < nr_tables; i++) {
        if (memcmp(tables[i], signature, 4) == 0)
            return tables[i];
    }
    return NULL;
}

static const uint8_t *dsdt(void)
{
    const uint8_t *fadt = acpi_table("FACP");
    uint64_t gpa = 0;

    if (fadt && load(fadt + 4, 4) >= FADT_X_DSDT + 8)
        gpa = load(fadt + FADT_X_DSDT, 8);
    if (fadt && gpa == 0)
        gpa = load(fadt + FADT_DSDT, 4);
    return gpa ? at(gpa) : NULL;
}

void acpi_init(void)
{
    const uint8_t *rsdp = boot.rsdp_gpa ? at(boot.rsdp_gpa) : NULL;
    const uint8_t *madt;

    if (!rsdp)
        rsdp = find_rsdp(0xa0000, 0xa0010);
    if (!rsdp)
        rsdp = find_rsdp(0xf0000, 0x100000);
    if (!rsdp)
        return;
    has_acpi = true;
    boot.rsdp_gpa = gpa_of(rsdp);
    if (rsdp[15] >= 2 && load(rsdp + 24, 8) != 0)
        add_tables(at(load(rsdp + 24, 8)), 8);
    else
        add_tables(at(load(rsdp + 16, 4)), 4);
    madt = acpi_table("APIC");
    for (uint64_t off = 44; madt && off + 8 <= load(madt + 4, 4) && madt[off + 1] > 0;
         off += madt[off + 1]) {
        if (madt[off] == 1)
            ioapic_gpa = load(madt + off + 4, 4);
    }
}

unsigned acpi_cpus(uint32_t *ids, unsigned max)
{
    const uint8_t *madt = acpi_table("APIC");
    unsigned nr = 0;

    for (uint64_t off = 44; madt && off + 2 <= load(madt + 4, 4) && madt[off + 1] > 0 && nr < max;
         off += madt[off + 1]) {
        if (madt[off] == 0 && load(madt + off + 4, 4) & 1)
            ids[nr++] = madt[off + 3];
        else if (madt[off] == 9 && load(madt + off + 8, 4) & 1)
            ids[nr++] = (uint32_t)load(madt + off + 4, 4);
    }
    if (nr == 0)
        ids[nr++] = lapic_id();
    return nr;
}

uint64_t acpi_ecam(void)
{
    const uint8_t *mcfg = acpi_table("MCFG");

    return mcfg ? load(mcfg + 44, 8) : 0;
}

uint64_t acpi_ioapic(void)
{
    return ioapic_gpa;
}

uint16_t acpi_pm_timer(void)
{
    const uint8_t *fadt = acpi_table("FACP");
    uint16_t port = fadt ? (uint16_t)load(fadt + FADT_PM_TIMER, 4) : 0;

    return port ? port : 0x608;
}

/* ---- AML by name ---- */

/* The first @len bytes equal to @needle in [start, end), or NULL. */
static const uint8_t *find_bytes(const uint8_t *start, const uint8_t *end, const char *needle,
                                 unsigned len)
{
    while (start + len <= end) {
        uint64_t left = (uint64_t)(end - start);
        bool found;

        __asm__ volatile("repne scasb"
                         : "+D"(start), "+c"(left), "=@ccz"(found)
                         : "a"(needle[0])
                         : "memory");
        if (!found || start - 1 + len > end)
            return NULL;
        if (memcmp(start - 1, needle, len) == 0)
            return start - 1;
    }
    return NULL;
}

static bool aml_integer(const uint8_t **p, uint64_t *ret_value)
{
    static const uint8_t widths[] = {1, 2, 4, 0, 8}; /* of prefixes 0x0a to 0x0e */
    uint8_t op = *(*p)++;

    if (op <= 1) {
        *ret_value = op;
        return true;
    }
    if (op < 0x0a || op > 0x0e || op == 0x0d)
        return false;
    *ret_value = load(*p, widths[op - 0x0a]);
    *p += widths[op - 0x0a];
    return true;
}

/* The two integers of Name (ADDR, Package (2)) near the VM_Gen_Counter device: low, high. */
static uint64_t find_generation_id(void)
{
    const uint8_t *aml = dsdt(), *end, *id, *name;
    uint64_t low, high;

    if (!aml)
        return 0;
    end = aml + load(aml + 4, 4);
    id = find_bytes(aml, end, "VM_Gen_Counter", 14);
    if (!id)
        return 0;
    for (name = id - 256 < aml ? aml : id - 256; name; name++) {
        const uint8_t *p;

        name = find_bytes(name, end, "ADDR", 4);
        if (!name)
            return 0;
        if (name[4] != 0x12) /* PackageOp */
            continue;
        p = name + 5;
        p += 1 + (*p >> 6); /* PkgLength */
        if (*p++ == 2 && aml_integer(&p, &low) && aml_integer(&p, &high))
            return high << 32 | low;
    }
    return 0;
}

/* The address of OperationRegion (GDST, SystemMemory, address, 1): the generic event device. */
static uint64_t find_ged(void)
{
    const uint8_t *aml = dsdt(), *name;
    uint64_t gpa;

    if (!aml)
        return 0;
    name = find_bytes(aml, aml + load(aml + 4, 4), "GDST", 4);
    if (!name || name[4] != 0)
        return 0;
    name += 5;
    return aml_integer(&name, &gpa) ? gpa : 0;
}

/* The number in the extended interrupt descriptor that follows the name of the device. */
static bool find_ged_gsi(uint32_t *ret_gsi)
{
    const uint8_t *aml = dsdt(), *end, *hid, *crs;

    if (!aml)
        return false;
    end = aml + load(aml + 4, 4);
    hid = find_bytes(aml, end, "ACPI0013", 8);
    crs = hid ? find_bytes(hid, end, "\x89\x06\x00", 3) : NULL;
    if (!crs)
        return false;
    *ret_gsi = (uint32_t)load(crs + 5, 4);
    return true;
}

/* ---- Generic event device ---- */

void ged_interrupt(void)
{
    if (ged_gpa)
        ged_events |= *(volatile uint8_t *)at(ged_gpa);
}

uint64_t ged_address(void)
{
    return find_ged();
}

bool ged_pending(void)
{
    return ged_events != 0;
}

void ged_poll(void)
{
    uint32_t events;

    if (ged_events == 0)
        return;
    irq_off();
    events = ged_events;
    ged_events = 0;
    irq_on();
    if (events & GED_POWER_BUTTON)
        nr_power_buttons++;
    out("event ged=0x%x\n", (uint64_t)events);
}

static void cmd_ged(unsigned argc, char **argv)
{
    uint64_t gpa = find_ged();
    uint32_t gsi = 0;

    (void)argc;
    (void)argv;
    if (gpa == 0 || !find_ged_gsi(&gsi) || !mem_map(gpa, 1)) {
        out("err ged: not found\n");
        return;
    }
    ged_gpa = gpa;
    ioapic_route(gsi, VECTOR_GED);
    out("ok addr=0x%x gsi=%u\n", gpa, (uint64_t)gsi);
}

/* ---- Stop and restart ---- */

void __attribute__((noreturn)) halt_forever(void)
{
    for (;;)
        __asm__ volatile("cli; hlt" : : : "memory");
}

static bool gas_write(const uint8_t *gas, uint8_t value)
{
    uint64_t addr = load(gas + 4, 8);

    if (addr == 0)
        return false;
    if (gas[0] == GAS_PORT) {
        outb((uint16_t)addr, value);
        return true;
    }
    if (gas[0] == GAS_MEMORY && mem_map(addr, 1)) {
        *(volatile uint8_t *)at(addr) = value;
        return true;
    }
    return false;
}

static void cmd_poweroff(unsigned argc, char **argv)
{
    const uint8_t *fadt = acpi_table("FACP");

    (void)argc;
    (void)argv;
    out("ok\n");
    if (fadt && load(fadt + 4, 4) >= FADT_SLEEP_CONTROL + 12)
        gas_write(fadt + FADT_SLEEP_CONTROL, S5_SLEEP);
    outb(0x600, S5_SLEEP);
    outw(0x604, 0x2000); /* PM1a control of other machines, S5 as type 0 */
    out("event poweroff-failed\n");
}

static void __attribute__((noreturn)) triple_fault(void)
{
    static const uint16_t no_idt[5];

    __asm__ volatile("lidt %0\n\tmovb $0, (%1)" : : "m"(no_idt), "r"(1ull << 46) : "memory");
    halt_forever();
}

static void cmd_reboot(unsigned argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "acpi";
    const uint8_t *fadt = acpi_table("FACP");

    out("ok\n");
    if (same_text(how, "i8042")) {
        outb(0x64, 0xfe);
    } else if (same_text(how, "cmos")) {
        outb(0x70, 0x8f);
        outb(0x71, 0);
    } else if (same_text(how, "cf9")) {
        outb(0xcf9, 0x06);
    } else if (same_text(how, "triple")) {
        triple_fault();
    } else {
        if (fadt && load(fadt + 4, 4) > FADT_RESET_VALUE)
            gas_write(fadt + FADT_RESET_REG, fadt[FADT_RESET_VALUE]);
        outb(0x600, 1);
    }
    out("event reboot-failed\n");
}

/* An access to what is no memory is KVM's to decode, and this instruction it does not know. */
static void cmd_unemulated(unsigned argc, char **argv)
{
    const void *nothing = mem_map(nothing_gpa, 4);
    uint32_t sum = 0;

    (void)argc;
    (void)argv;
    if (!nothing) {
        out("err no page tables\n");
        return;
    }
    out("ok\n");
    __asm__ volatile("crc32l (%1), %0" : "+r"(sum) : "r"(nothing) : "memory");
    out("event unemulated-done\n");
}

static void cmd_halt(unsigned argc, char **argv)
{
    (void)argc;
    (void)argv;
    out("ok\n");
    halt_forever();
}

/* ---- Tables, generation id, ports, memory ---- */

static void cmd_acpi(unsigned argc, char **argv)
{
    uint64_t bad = 0;

    (void)argc;
    (void)argv;
    for (unsigned i = 0; i <= nr_tables; i++) {
        const uint8_t *table = i < nr_tables ? tables[i] : dsdt();
        uint64_t len;
        uint8_t sum = 0;

        if (!table)
            continue;
        len = load(table + 4, 4);
        for (uint64_t off = 0; off < len; off++)
            sum = (uint8_t)(sum + table[off]);
        bad += sum != 0;
        out("| %c%c%c%c 0x%x len %u sum %u\n", table[0], table[1], table[2], table[3],
            gpa_of(table), len, (uint64_t)sum);
    }
    out("%s tables=%u rsdp=0x%x bad=%u\n",
        has_acpi && bad == 0 ? "ok" : "err acpi:", (uint64_t)nr_tables, boot.rsdp_gpa, bad);
}

static void cmd_genid(unsigned argc, char **argv)
{
    uint64_t gpa = 0;

    if (argc > 1) {
        if (!arg_u64(argc, argv, 1, "address", &gpa))
            return;
    } else {
        gpa = find_generation_id();
    }
    if (gpa == 0 || !mem_map(gpa, 16)) {
        out("err genid: no VM_Gen_Counter device\n");
        return;
    }
    out("ok addr=0x%x id=", gpa);
    for (unsigned i = 0; i < 16; i++)
        out("%b", (uint64_t)((const volatile uint8_t *)at(gpa))[i]);
    out("\n");
}

static void cmd_in(unsigned argc, char **argv)
{
    uint64_t port, width = 1;

    if (!arg_u64(argc, argv, 1, "port", &port) ||
        (argc > 2 && !arg_u64(argc, argv, 2, "width", &width)))
        return;
    out("ok 0x%x\n", width == 1   ? (uint64_t)inb((uint16_t)port)
                     : width == 2 ? (uint64_t)inw((uint16_t)port)
                                  : (uint64_t)inl((uint16_t)port));
}

static void cmd_out(unsigned argc, char **argv)
{
    uint64_t port, value, width = 1;

    if (!arg_u64(argc, argv, 1, "port", &port) || !arg_u64(argc, argv, 2, "value", &value) ||
        (argc > 3 && !arg_u64(argc, argv, 3, "width", &width)))
        return;
    if (width == 1)
        outb((uint16_t)port, (uint8_t)value);
    else if (width == 2)
        outw((uint16_t)port, (uint16_t)value);
    else
        outl((uint16_t)port, (uint32_t)value);
    out("ok\n");
}

static void cmd_peek(unsigned argc, char **argv)
{
    uint64_t gpa, nr = 1;

    if (!arg_u64(argc, argv, 1, "address", &gpa) ||
        (argc > 2 && !arg_u64(argc, argv, 2, "words", &nr)))
        return;
    if (nr > 64 || !mem_map(gpa, 8 * nr)) {
        out("err peek: cannot reach it\n");
        return;
    }
    out("ok");
    for (uint64_t i = 0; i < nr; i++)
        out(" 0x%x", *(volatile uint64_t *)at(gpa + 8 * i));
    out("\n");
}

static void cmd_poke(unsigned argc, char **argv)
{
    uint64_t gpa, value, width = 8;

    if (!arg_u64(argc, argv, 1, "address", &gpa) || !arg_u64(argc, argv, 2, "value", &value) ||
        (argc > 3 && !arg_u64(argc, argv, 3, "width", &width)))
        return;
    if (!mem_map(gpa, 8)) {
        out("err poke: cannot reach it\n");
        return;
    }
    if (width == 1)
        *(volatile uint8_t *)at(gpa) = (uint8_t)value;
    else if (width == 2)
        *(volatile uint16_t *)at(gpa) = (uint16_t)value;
    else if (width == 4)
        *(volatile uint32_t *)at(gpa) = (uint32_t)value;
    else
        *(volatile uint64_t *)at(gpa) = value;
    out("ok\n");
}

const struct command acpi_commands[] = {
    {"acpi",       "",                             cmd_acpi      },
    {"genid",      "[address]",                    cmd_genid     },
    {"ged",        "",                             cmd_ged       },
    {"poweroff",   "",                             cmd_poweroff  },
    {"reboot",     "[acpi|i8042|cmos|cf9|triple]", cmd_reboot    },
    {"unemulated", "",                             cmd_unemulated},
    {"halt",       "",                             cmd_halt      },
    {"in",         "port [width]",                 cmd_in        },
    {"out",        "port value [width]",           cmd_out       },
    {"peek",       "address [words]",              cmd_peek      },
    {"poke",       "address value [width]",        cmd_poke      },
    {NULL,         NULL,                           NULL          },
};
