/* SPDX-License-Identifier: Apache-2.0 */
#include "core/x86/acpi.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/gmem.h"
#include "core/wire.h"
#include "core/x86/acpi_internal.h"

enum {
    ACPI_ALIGN = 16,
    ACPI_XSDT_ENTRIES_MAX = 8,
    ACPI_LAPIC_IDS = 255, /* ids below it have a local APIC entry, the rest x2APIC entries */
    MADT_LAPIC = 0,
    MADT_IOAPIC = 1,
    MADT_OVERRIDE = 2,
    MADT_X2APIC = 9,
    MADT_ENABLED = 1 << 0,
    MADT_ONLINE_CAPABLE = 1 << 1,
    SRAT_CPU = 0,
    SRAT_MEMORY = 1,
    SRAT_X2APIC = 2,
    SRAT_ENABLED = 1 << 0,
    SRAT_HOTPLUG = 1 << 1,
    FADT_NO_VGA = 1 << 2,
    FADT_8042 = 1 << 1,
    FADT_NO_CMOS_RTC = 1 << 5,
    FADT_PWR_BUTTON = 1 << 4, /* no fixed power button: a device has it */
    FADT_SLP_BUTTON = 1 << 5,
    FADT_TMR_VAL_EXT = 1 << 8,
    FADT_RESET_REG_SUP = 1 << 10,
    FADT_HW_REDUCED = 1 << 20,
    GAS_IO = 1,
    GAS_BYTE = 1,
    GAS_DWORD = 3,
    DISTANCE_LOCAL = 10,
};

static const char oem_name[6] = {'C', 'H', 'R', 'Y', 'S', 'A'};
static const char oem_table_name[8] = {'C', 'H', 'R', 'Y', 'S', 'A', 'L', 'S'};
static const char creator_name[4] = {'C', 'H', 'R', 'Y'};
static const char hypervisor_name[8] = {'C', 'H', 'R', 'Y', 'S', 'A', 'L', 'S'};

/* ACPI 6.5, 5.2.5.3 */
struct acpi_rsdp {
    char signature[8];
    uint8_t checksum; /* of the first 20 bytes */
    char oem_id[6];
    uint8_t revision;
    le32 rsdt;
    le32 length;
    le64 xsdt;
    uint8_t checksum_all;
    uint8_t reserved[3];
};

/* ACPI 6.5, 5.2.6 */
struct acpi_header {
    char signature[4];
    le32 length;
    uint8_t revision;
    uint8_t checksum;
    char oem_id[6];
    char oem_table_id[8];
    le32 oem_revision;
    char creator_id[4];
    le32 creator_revision;
};

/* ACPI 6.5, 5.2.3.2 */
struct acpi_gas {
    uint8_t space;
    uint8_t bits;
    uint8_t offset;
    uint8_t access;
    le64 address;
};

/* ACPI 6.5, 5.2.9, revision 6: what a hardware-reduced machine fills in has a name. */
struct acpi_fadt {
    struct acpi_header h;
    le32 facs;
    le32 dsdt;
    uint8_t pm_before_timer[76 - 44]; /* fixed hardware that there is not */
    le32 pm_timer;
    uint8_t gpe[91 - 80];
    uint8_t pm_timer_len;
    uint8_t gpe_len[109 - 92];
    le16 boot_arch;
    uint8_t reserved;
    le32 flags;
    struct acpi_gas reset_reg;
    uint8_t reset_value;
    le16 arm_boot_arch;
    uint8_t minor;
    le64 x_facs;
    le64 x_dsdt;
    uint8_t x_pm_before_timer[208 - 148];
    struct acpi_gas x_pm_timer;
    uint8_t x_gpe[244 - 220];
    struct acpi_gas sleep_control;
    struct acpi_gas sleep_status;
    char hypervisor[8];
};

_Static_assert(sizeof(struct acpi_rsdp) == 36, "ACPI 6.5, 5.2.5.3");
_Static_assert(sizeof(struct acpi_header) == 36, "ACPI 6.5, 5.2.6");
_Static_assert(sizeof(struct acpi_fadt) == 276, "ACPI 6.5, 5.2.9");
_Static_assert(offsetof(struct acpi_fadt, pm_timer) == 76, "ACPI 6.5, 5.2.9");
_Static_assert(offsetof(struct acpi_fadt, boot_arch) == 109, "ACPI 6.5, 5.2.9");
_Static_assert(offsetof(struct acpi_fadt, reset_reg) == 116, "ACPI 6.5, 5.2.9");
_Static_assert(offsetof(struct acpi_fadt, x_dsdt) == 140, "ACPI 6.5, 5.2.9");
_Static_assert(offsetof(struct acpi_fadt, x_pm_timer) == 208, "ACPI 6.5, 5.2.9");
_Static_assert(offsetof(struct acpi_fadt, hypervisor) == 268, "ACPI 6.5, 5.2.9");

/* The tables while they are made. */
struct build {
    const struct acpi_config *cfg;
    uint8_t *data;
    size_t cap;
    size_t table; /* offset of the table being written */
    struct wr w;
    uint64_t gpa;
    uint64_t xsdt[ACPI_XSDT_ENTRIES_MAX];
    unsigned nr_xsdt;
};

/* --- Tables in general --------------------------------------------------- */

static size_t build_len(const struct build *b)
{
    return b->cap - b->w.left;
}

static uint8_t checksum(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + p[i]);
    return (uint8_t)-sum;
}

static void table_begin(struct build *b, const char *signature, uint8_t revision)
{
    struct acpi_header h = {
        .revision = revision,
        .oem_revision = le32_make(1),
        .creator_revision = le32_make(1),
    };

    while (build_len(b) % ACPI_ALIGN != 0 && !b->w.bad)
        wr_u8(&b->w, 0);
    memcpy(h.signature, signature, sizeof(h.signature));
    memcpy(h.oem_id, oem_name, sizeof(h.oem_id));
    memcpy(h.oem_table_id, oem_table_name, sizeof(h.oem_table_id));
    memcpy(h.creator_id, creator_name, sizeof(h.creator_id));
    b->table = build_len(b);
    wr_bytes(&b->w, &h, sizeof(h));
}

static void table_seal(uint8_t *table, size_t len)
{
    le32 length = le32_make((uint32_t)len);

    memcpy(table + offsetof(struct acpi_header, length), &length, sizeof(length));
    table[offsetof(struct acpi_header, checksum)] = 0;
    table[offsetof(struct acpi_header, checksum)] = checksum(table, len);
}

/* Returns where the table is in guest memory. */
static uint64_t table_end(struct build *b)
{
    if (!b->w.bad)
        table_seal(b->data + b->table, build_len(b) - b->table);
    return b->gpa + b->table;
}

static void table_list(struct build *b, uint64_t gpa)
{
    b->xsdt[b->nr_xsdt++] = gpa;
}

static struct acpi_gas gas_io(uint64_t port, unsigned bytes)
{
    return (struct acpi_gas){
        .space = GAS_IO,
        .bits = (uint8_t)(bytes * 8),
        .access = bytes == 4 ? GAS_DWORD : GAS_BYTE,
        .address = le64_make(port),
    };
}

/* --- The tables ---------------------------------------------------------- */

static int dsdt_write(struct build *b, uint64_t *ret_gpa, struct err *err)
{
    struct aml a;
    int rc;

    table_begin(b, "DSDT", 6);
    aml_init(&a, b->w.p, b->w.bad ? 0 : b->w.left);
    acpi_dsdt_write(&a, b->cfg);
    rc = aml_finish(&a, err);
    if (rc < 0)
        return err_prefix(err, rc, "acpi.dsdt");
    b->w.p += a.len;
    b->w.left -= a.len;
    *ret_gpa = table_end(b);
    return 0;
}

static void fadt_write(struct build *b, uint64_t dsdt_gpa)
{
    const struct acpi_config *cfg = b->cfg;
    unsigned arch = FADT_NO_VGA;
    struct acpi_fadt f = {
        .pm_timer = le32_make(X86_PORT_ACPI_PM_TIMER),
        .pm_timer_len = X86_PORT_ACPI_PM_TIMER_LEN,
        .flags = le32_make(FADT_HW_REDUCED | FADT_RESET_REG_SUP | FADT_TMR_VAL_EXT |
                           FADT_PWR_BUTTON | FADT_SLP_BUTTON),
        .reset_reg = gas_io(X86_PORT_ACPI_SHUTDOWN, 1),
        .reset_value = X86_ACPI_RESET_VALUE,
        .minor = 3,
        .x_dsdt = le64_make(dsdt_gpa),
        .x_pm_timer = gas_io(X86_PORT_ACPI_PM_TIMER, X86_PORT_ACPI_PM_TIMER_LEN),
        .sleep_control = gas_io(X86_PORT_ACPI_SHUTDOWN, 1),
        .sleep_status = gas_io(X86_PORT_ACPI_SHUTDOWN, 1),
    };

    if (!cfg->rtc)
        arch |= FADT_NO_CMOS_RTC;
    if (cfg->i8042)
        arch |= FADT_8042;
    f.boot_arch = le16_make((uint16_t)arch);
    memcpy(f.hypervisor, hypervisor_name, sizeof(f.hypervisor));
    table_begin(b, "FACP", 6);
    wr_bytes(&b->w, (const uint8_t *)&f + sizeof(f.h), sizeof(f) - sizeof(f.h));
    table_list(b, table_end(b));
}

/*
 * ACPI 6.5, 5.2.12.12: "Logical processors with APIC ID values less than 255
 * [...] must use the Processor Local APIC structure".
 */
static void madt_cpu(struct wr *w, const struct acpi_cpu *cpu, uint32_t uid)
{
    uint32_t flags = cpu->enabled ? MADT_ENABLED : MADT_ONLINE_CAPABLE;

    if (cpu->apic_id < ACPI_LAPIC_IDS && uid < ACPI_LAPIC_IDS) {
        wr_u8(w, MADT_LAPIC);
        wr_u8(w, 8);
        wr_u8(w, (uint8_t)uid);
        wr_u8(w, (uint8_t)cpu->apic_id);
        wr_le32(w, flags);
        return;
    }
    wr_u8(w, MADT_X2APIC);
    wr_u8(w, 16);
    wr_le16(w, 0);
    wr_le32(w, cpu->apic_id);
    wr_le32(w, flags);
    wr_le32(w, uid);
}

static void madt_write(struct build *b)
{
    struct wr *w = &b->w;

    table_begin(b, "APIC", 5);
    wr_le32(w, X86_LAPIC_GPA);
    wr_le32(w, 0); /* no 8259 */
    for (unsigned i = 0; i < b->cfg->nr_cpus; i++)
        madt_cpu(w, &b->cfg->cpus[i], i);
    wr_u8(w, MADT_IOAPIC);
    wr_u8(w, 12);
    wr_u8(w, 0); /* id */
    wr_u8(w, 0);
    wr_le32(w, X86_IOAPIC_GPA);
    wr_le32(w, 0); /* first global interrupt */
    wr_u8(w, MADT_OVERRIDE);
    wr_u8(w, 10);
    wr_u8(w, 0); /* ISA */
    wr_u8(w, X86_IRQ_COM1);
    wr_le32(w, X86_IRQ_COM1);
    wr_le16(w, 0); /* polarity and trigger of the bus */
    table_list(b, table_end(b));
}

static void mcfg_write(struct build *b)
{
    struct wr *w = &b->w;

    table_begin(b, "MCFG", 1);
    wr_le64(w, 0);
    for (unsigned i = 0; i < b->cfg->nr_segments; i++) {
        uint16_t segment = b->cfg->segments[i].segment;

        wr_le64(w, X86_ECAM_GPA + segment * X86_ECAM_SEGMENT_SIZE);
        wr_le16(w, segment);
        wr_u8(w, 0); /* first bus */
        wr_u8(w, 0); /* last bus */
        wr_le32(w, 0);
    }
    table_list(b, table_end(b));
}

static void srat_cpu(struct wr *w, const struct acpi_cpu *cpu)
{
    if (cpu->apic_id < ACPI_LAPIC_IDS) {
        wr_u8(w, SRAT_CPU);
        wr_u8(w, 16);
        wr_u8(w, (uint8_t)cpu->node);
        wr_u8(w, (uint8_t)cpu->apic_id);
        wr_le32(w, SRAT_ENABLED);
        wr_u8(w, 0); /* SAPIC EID */
        for (unsigned i = 1; i < 4; i++)
            wr_u8(w, (uint8_t)(cpu->node >> (8 * i)));
        wr_le32(w, 0);
        return;
    }
    wr_u8(w, SRAT_X2APIC);
    wr_u8(w, 24);
    wr_le16(w, 0);
    wr_le32(w, cpu->node);
    wr_le32(w, cpu->apic_id);
    wr_le32(w, SRAT_ENABLED);
    wr_le64(w, 0);
}

static void srat_write(struct build *b)
{
    struct wr *w = &b->w;

    table_begin(b, "SRAT", 3);
    wr_le32(w, 1);
    wr_le64(w, 0);
    for (unsigned i = 0; i < b->cfg->nr_cpus; i++)
        srat_cpu(w, &b->cfg->cpus[i]);
    for (unsigned i = 0; i < b->cfg->nr_memory; i++) {
        const struct acpi_memory *m = &b->cfg->memory[i];

        wr_u8(w, SRAT_MEMORY);
        wr_u8(w, 40);
        wr_le32(w, m->node);
        wr_le16(w, 0);
        wr_le64(w, m->gpa);
        wr_le64(w, m->len);
        wr_le32(w, 0);
        wr_le32(w, SRAT_ENABLED | (m->hotplug ? SRAT_HOTPLUG : 0));
        wr_le64(w, 0);
    }
    table_list(b, table_end(b));
}

static void slit_write(struct build *b)
{
    table_begin(b, "SLIT", 1);
    wr_le64(&b->w, b->cfg->nr_nodes);
    wr_bytes(&b->w, b->cfg->distances, (size_t)b->cfg->nr_nodes * b->cfg->nr_nodes);
    table_list(b, table_end(b));
}

static uint64_t xsdt_write(struct build *b)
{
    table_begin(b, "XSDT", 1);
    for (unsigned i = 0; i < b->nr_xsdt; i++)
        wr_le64(&b->w, b->xsdt[i]);
    return table_end(b);
}

static void rsdp_write(struct build *b, uint64_t xsdt_gpa)
{
    struct acpi_rsdp r = {
        .signature = {'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '},
        .revision = 2,
        .length = le32_make(sizeof(r)),
        .xsdt = le64_make(xsdt_gpa),
    };

    memcpy(r.oem_id, oem_name, sizeof(r.oem_id));
    r.checksum = checksum((const uint8_t *)&r, offsetof(struct acpi_rsdp, length));
    r.checksum_all = checksum((const uint8_t *)&r, sizeof(r));
    memcpy(b->data, &r, sizeof(r));
}

/* --- Entry --------------------------------------------------------------- */

static int nodes_check(const struct acpi_config *cfg, struct err *err)
{
    unsigned n = cfg->nr_nodes;

    if (n > ACPI_NODES_MAX)
        return err_set(err, -E2BIG, "numa: %u nodes, at most %d", n, ACPI_NODES_MAX);
    for (unsigned i = 0; n > 0 && i < cfg->nr_cpus; i++) {
        if (cfg->cpus[i].node >= n)
            return err_set(err, -EINVAL, "numa: vCPU %u is in node %u of %u", i, cfg->cpus[i].node,
                           n);
    }
    for (unsigned i = 0; n > 0 && i < cfg->nr_memory; i++) {
        if (cfg->memory[i].node >= n)
            return err_set(err, -EINVAL, "numa: memory %u is in node %u of %u", i,
                           cfg->memory[i].node, n);
    }
    for (unsigned i = 0; cfg->distances && i < n * n; i++) {
        if (cfg->distances[i] < DISTANCE_LOCAL)
            return err_set(err, -EINVAL, "numa.distances: %u from node %u to %u, below %d",
                           cfg->distances[i], i / n, i % n, DISTANCE_LOCAL);
    }
    return 0;
}

static int config_check(const struct acpi_config *cfg, struct err *err)
{
    if (cfg->nr_cpus == 0 || cfg->nr_cpus > ACPI_CPUS_MAX)
        return err_set(err, -EINVAL, "cpus.max: %u, not 1 to %d", cfg->nr_cpus, ACPI_CPUS_MAX);
    if (cfg->nr_segments > X86_PCI_SEGMENTS_MAX)
        return err_set(err, -EINVAL, "platform.num_pci_segments: %u, at most %d", cfg->nr_segments,
                       X86_PCI_SEGMENTS_MAX);
    for (unsigned i = 0; i < cfg->nr_segments; i++) {
        const struct acpi_pci_segment *s = &cfg->segments[i];

        if (s->segment >= X86_PCI_SEGMENTS_MAX)
            return err_set(err, -EINVAL, "pci_segment: %u, at most %d", s->segment,
                           X86_PCI_SEGMENTS_MAX - 1);
        if (s->mmio32.gpa > UINT32_MAX || s->mmio32.len > UINT32_MAX - s->mmio32.gpa)
            return err_set(err, -EINVAL, "pci_segment %u: 32-bit window at %#" PRIx64, s->segment,
                           s->mmio32.gpa);
        if (s->mmio64.len > UINT64_MAX - s->mmio64.gpa)
            return err_set(err, -EINVAL, "pci_segment %u: 64-bit window at %#" PRIx64, s->segment,
                           s->mmio64.gpa);
    }
    return nodes_check(cfg, err);
}

int acpi_build(const struct acpi_config *cfg, uint64_t gpa, size_t cap,
               struct acpi_tables *ret_tables, struct err *err)
{
    auto_free uint8_t *data = NULL;
    struct build b = {.cfg = cfg, .gpa = gpa, .cap = cap};
    struct acpi_rsdp rsdp = {.revision = 0};
    uint64_t dsdt_gpa = 0;
    uint64_t xsdt_gpa;
    int rc;

    rc = config_check(cfg, err);
    if (rc < 0)
        return rc;
    data = calloc(1, cap);
    if (!data)
        return -ENOMEM;
    b.data = data;
    b.w = (struct wr){.p = data, .left = cap};
    wr_bytes(&b.w, &rsdp, sizeof(rsdp)); /* its place */
    rc = dsdt_write(&b, &dsdt_gpa, err);
    if (rc < 0)
        return rc;
    fadt_write(&b, dsdt_gpa);
    madt_write(&b);
    if (cfg->nr_segments > 0)
        mcfg_write(&b);
    if (cfg->nr_nodes > 0)
        srat_write(&b);
    if (cfg->nr_nodes > 0 && cfg->distances)
        slit_write(&b);
    xsdt_gpa = xsdt_write(&b);
    if (b.w.bad)
        return err_set(err, -E2BIG, "acpi: the tables of %u vCPUs do not fit in %zu bytes",
                       cfg->nr_cpus, cap);
    rsdp_write(&b, xsdt_gpa);
    *ret_tables = (struct acpi_tables){.data = data, .len = build_len(&b), .gpa = gpa};
    data = NULL;
    return 0;
}

void acpi_tables_release(struct acpi_tables *tables)
{
    free(tables->data);
    *tables = (struct acpi_tables){0};
}

int acpi_write(struct gmem *gm, const struct acpi_config *cfg, uint64_t *ret_rsdp_gpa,
               struct err *err)
{
    struct acpi_tables tables = {.data = NULL};
    int rc;

    rc = acpi_build(cfg, X86_ACPI_GPA, X86_ACPI_SIZE, &tables, err);
    if (rc < 0)
        return rc;
    rc = gmem_copy_out(gm, tables.gpa, tables.data, tables.len);
    acpi_tables_release(&tables);
    if (rc < 0)
        return err_set(err, -EINVAL, "memory: no RAM for the ACPI tables");
    *ret_rsdp_gpa = X86_ACPI_GPA;
    return 0;
}
