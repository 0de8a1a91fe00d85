/* SPDX-License-Identifier: Apache-2.0 */
#include "core/x86/mptable.h"

#include <errno.h>

#include "core/gmem.h"
#include "core/wire.h"
#include "core/x86/layout.h"

enum {
    MP_SPEC_REV = 4, /* 1.4 */

    /* Table 4-3 */
    MP_PROCESSOR = 0,
    MP_BUS = 1,
    MP_IOAPIC = 2,
    MP_IO_INTERRUPT = 3,
    MP_LOCAL_INTERRUPT = 4,

    MP_CPU_ENABLED = 1 << 0,
    MP_CPU_BOOTS = 1 << 1,
    MP_CPU_SIGNATURE = 0x600,          /* family 6; an OS asks CPUID */
    MP_CPU_FEATURES = 1 << 0 | 1 << 9, /* FPU, APIC */
    MP_APIC_VERSION = 0x14,            /* integrated */
    MP_IOAPIC_VERSION = 0x11,          /* 82093AA */
    MP_IOAPIC_ID = 0,                  /* as in the MADT */
    MP_IOAPIC_ENABLED = 1 << 0,

    /* Table 4-10 */
    MP_INT = 0,
    MP_NMI = 1,
    MP_EXTINT = 3,
    MP_OF_THE_BUS = 0, /* polarity and trigger */
    MP_ALL_APICS = 0xff,

    MP_PCI_BUS = 0, /* Linux takes the number for that of the bus */
    MP_ISA_BUS = 1,
    MP_PCI_SLOTS = 32,
};

/* 4.1: the floating pointer. */
struct mp_pointer {
    char signature[4];
    le32 table;
    uint8_t len; /* in paragraphs */
    uint8_t spec_rev;
    uint8_t checksum;
    uint8_t features[5]; /* 0: a table follows, no IMCR */
};

/* 4.2 */
struct mp_header {
    char signature[4];
    le16 len;
    uint8_t spec_rev;
    uint8_t checksum;
    char oem_id[8];
    char product_id[12];
    le32 oem_table;
    le16 oem_table_len;
    le16 nr_entries;
    le32 lapic;
    le16 extended_len;
    uint8_t extended_checksum;
    uint8_t reserved;
};

_Static_assert(sizeof(struct mp_pointer) == 16, "MP 1.4, 4.1");
_Static_assert(sizeof(struct mp_header) == 44, "MP 1.4, 4.2");

/* The entries while they are written. */
struct entries {
    struct wr w;
    uint16_t nr;
};

static uint8_t checksum(const void *data, size_t len)
{
    const uint8_t *p = data;
    uint8_t sum = 0;

    while (len--)
        sum = (uint8_t)(sum + *p++);
    return (uint8_t)-sum;
}

static void begin(struct entries *e, uint8_t type)
{
    wr_u8(&e->w, type);
    e->nr++;
}

static void processor(struct entries *e, uint32_t apic_id, bool boots)
{
    begin(e, MP_PROCESSOR);
    wr_u8(&e->w, (uint8_t)apic_id);
    wr_u8(&e->w, MP_APIC_VERSION);
    wr_u8(&e->w, MP_CPU_ENABLED | (boots ? MP_CPU_BOOTS : 0));
    wr_le32(&e->w, MP_CPU_SIGNATURE);
    wr_le32(&e->w, MP_CPU_FEATURES);
    wr_le64(&e->w, 0);
}

static void bus(struct entries *e, uint8_t id, const char *name)
{
    begin(e, MP_BUS);
    wr_u8(&e->w, id);
    wr_bytes(&e->w, name, 6);
}

static void ioapic(struct entries *e)
{
    begin(e, MP_IOAPIC);
    wr_u8(&e->w, MP_IOAPIC_ID);
    wr_u8(&e->w, MP_IOAPIC_VERSION);
    wr_u8(&e->w, MP_IOAPIC_ENABLED);
    wr_le32(&e->w, X86_IOAPIC_GPA);
}

static void interrupt(struct entries *e, uint8_t entry, uint8_t type, uint8_t from_bus,
                      uint8_t from_irq, uint8_t to_apic, uint8_t to_pin)
{
    begin(e, entry);
    wr_u8(&e->w, type);
    wr_le16(&e->w, MP_OF_THE_BUS);
    wr_u8(&e->w, from_bus);
    wr_u8(&e->w, from_irq);
    wr_u8(&e->w, to_apic);
    wr_u8(&e->w, to_pin);
}

static void interrupts(struct entries *e)
{
    static const uint8_t isa[] = {X86_IRQ_COM1, X86_IRQ_RTC};

    for (unsigned i = 0; i < ARRAY_LEN(isa); i++)
        interrupt(e, MP_IO_INTERRUPT, MP_INT, MP_ISA_BUS, isa[i], MP_IOAPIC_ID, isa[i]);
    /* 4.3.4: of PCI, the slot and the pin (0: INTA) are the number. */
    for (unsigned slot = 0; slot < MP_PCI_SLOTS; slot++)
        interrupt(e, MP_IO_INTERRUPT, MP_INT, MP_PCI_BUS, (uint8_t)(slot << 2), MP_IOAPIC_ID,
                  (uint8_t)(X86_IRQ_PCI_FIRST + slot % X86_IRQ_PCI_NR));
    interrupt(e, MP_LOCAL_INTERRUPT, MP_EXTINT, MP_ISA_BUS, 0, MP_ALL_APICS, 0);
    interrupt(e, MP_LOCAL_INTERRUPT, MP_NMI, MP_ISA_BUS, 0, MP_ALL_APICS, 1);
}

int mptable_build(const uint32_t *apic_ids, unsigned nr_cpus, uint8_t *buf, size_t cap,
                  struct err *err)
{
    struct mp_header h = {
        .signature = "PCMP",
        .spec_rev = MP_SPEC_REV,
        .oem_id = "CHRYSA  ",
        .product_id = "CHRYSALIS   ",
        .lapic = le32_make((uint32_t)X86_LAPIC_GPA),
    };
    struct entries e = {
        .w = {.p = buf, .left = cap}
    };
    size_t len;

    wr_bytes(&e.w, &h, sizeof(h));
    for (unsigned i = 0; i < nr_cpus; i++)
        if (apic_ids[i] < MPTABLE_APIC_IDS)
            processor(&e, apic_ids[i], i == 0);
    bus(&e, MP_PCI_BUS, "PCI   ");
    bus(&e, MP_ISA_BUS, "ISA   ");
    ioapic(&e);
    interrupts(&e);
    if (e.w.bad)
        return err_set(err, -E2BIG, "cpus.boot: the MP table of %u does not fit", nr_cpus);
    len = cap - e.w.left;
    h.len = le16_make((uint16_t)len);
    h.nr_entries = le16_make(e.nr);
    memcpy(buf, &h, sizeof(h));
    buf[offsetof(struct mp_header, checksum)] = checksum(buf, len);
    return (int)len;
}

int mptable_write(struct gmem *gm, const uint32_t *apic_ids, unsigned nr_cpus, struct err *err)
{
    struct mp_pointer pointer = {
        .signature = "_MP_",
        .table = le32_make((uint32_t)X86_MPTABLE_GPA),
        .len = sizeof(pointer) / 16,
        .spec_rev = MP_SPEC_REV,
    };
    uint8_t table[X86_MPTABLE_SIZE];
    int len = mptable_build(apic_ids, nr_cpus, table, sizeof(table), err);
    int rc;

    if (len < 0)
        return len;
    pointer.checksum = checksum(&pointer, sizeof(pointer));
    rc = gmem_copy_out(gm, X86_MPTABLE_GPA, table, (size_t)len);
    if (rc == 0)
        rc = gmem_copy_out(gm, X86_MP_POINTER_GPA, &pointer, sizeof(pointer));
    return rc < 0 ? err_set(err, -EINVAL, "memory: no RAM for the MP table") : 0;
}
