/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source: PCI Local Bus Specification 3.0, chapter 6.
 *
 * Deviations: no I/O BARs, no expansion ROM, no INTx (the interrupt pin reads
 * 0), BIST and cache line size read 0.
 */
#include "devices/pci.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/wire.h"
#include "devices/pci_bus.h"

/* --- Registers ----------------------------------------------------------- */

enum {
    PCI_REG_VENDOR = 0x00,
    PCI_REG_DEVICE = 0x02,
    PCI_REG_COMMAND = 0x04,
    PCI_REG_STATUS = 0x06,
    PCI_REG_REVISION = 0x08,
    PCI_REG_PROG_IF = 0x09,
    PCI_REG_SUBCLASS = 0x0a,
    PCI_REG_CLASS = 0x0b,
    PCI_REG_BAR0 = 0x10,
    PCI_REG_BAR_END = 0x28,
    PCI_REG_SUBSYSTEM_VENDOR = 0x2c,
    PCI_REG_SUBSYSTEM = 0x2e,
    PCI_REG_CAP_POINTER = 0x34,
    PCI_REG_INTERRUPT_LINE = 0x3c,
    PCI_FIRST_CAP = 0x40,

    PCI_STATUS_CAPS = 1 << 4,
    PCI_BAR_64BIT = 1 << 2,
    PCI_BAR_FLAGS = 0xf,

    PCI_COMMAND_WRITABLE = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE,
    PCI_COMMAND_RESET = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER,
};

/* --- Life cycle ---------------------------------------------------------- */

static void put16(struct pci_func *f, unsigned off, uint16_t val)
{
    le16 v = le16_make(val);

    memcpy(f->image + off, &v, sizeof(v));
}

void pci_func_init(struct pci_func *f, struct device *dev, const struct pci_func_ops *ops,
                   const struct pci_identity *id)
{
    memset(f, 0, sizeof(*f));
    f->dev = dev;
    f->ops = ops;
    f->end_of_caps = PCI_FIRST_CAP;
    for (unsigned i = 0; i < PCI_BARS; i++)
        f->bars[i].want = f->bars[i].mapped = PCI_UNMAPPED;
    put16(f, PCI_REG_VENDOR, id->vendor);
    put16(f, PCI_REG_DEVICE, id->device);
    put16(f, PCI_REG_SUBSYSTEM_VENDOR, id->subsystem_vendor);
    put16(f, PCI_REG_SUBSYSTEM, id->subsystem);
    f->image[PCI_REG_REVISION] = id->revision;
    f->image[PCI_REG_PROG_IF] = id->prog_if;
    f->image[PCI_REG_SUBCLASS] = id->subclass;
    f->image[PCI_REG_CLASS] = id->class_code;
}

void pci_func_release(struct pci_func *f)
{
    pci_bus_detach(f);
    free(f->doorbells);
    f->doorbells = NULL;
    f->nr_doorbells = 0;
}

void pci_func_add_bar(struct pci_func *f, unsigned index, uint64_t size, bool is_64bit,
                      unsigned win)
{
    struct pci_bar *bar = &f->bars[index];

    assert(index + is_64bit < PCI_BARS);
    assert(size >= PAGE_SIZE_4K);
    assert(!(size & (size - 1)));
    bar->size = size;
    bar->is_64bit = is_64bit;
    bar->win = win;
}

int pci_func_add_cap(struct pci_func *f, uint8_t id, const void *body, unsigned len)
{
    uint8_t off = f->end_of_caps;

    if (len > PCI_CONFIG_SIZE - 2u - off)
        return -ENOSPC;
    f->image[off] = id;
    memcpy(f->image + off + 2, body, len);
    f->image[f->last_cap ? f->last_cap + 1 : PCI_REG_CAP_POINTER] = off;
    put16(f, PCI_REG_STATUS, PCI_STATUS_CAPS);
    f->last_cap = off;
    /* PCI 3.0, 6.7: "the bottom two bits [of the pointer] are reserved" */
    f->end_of_caps = (uint8_t)((off + 2 + len + 3) & ~3u);
    return off;
}

int pci_func_add_doorbell(struct pci_func *f, unsigned bar, uint64_t off, int fd)
{
    struct pci_doorbell *grown;

    if (f->nr_doorbells == PCI_DOORBELLS_MAX)
        return -E2BIG;
    grown = reallocarray(f->doorbells, f->nr_doorbells + 1, sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    f->doorbells = grown;
    f->doorbells[f->nr_doorbells++] = (struct pci_doorbell){.bar = bar, .off = off, .fd = fd};
    return 0;
}

/* Put an address into the register or registers of a BAR. */
static void bar_set(struct pci_func *f, unsigned i, uint64_t addr)
{
    f->bar_regs[i] = (uint32_t)addr | (f->bars[i].is_64bit ? PCI_BAR_64BIT : 0);
    if (f->bars[i].is_64bit)
        f->bar_regs[i + 1] = (uint32_t)(addr >> 32);
}

void pci_func_reset(struct pci_func *f)
{
    f->command = PCI_COMMAND_RESET;
    f->interrupt_line = 0;
    for (unsigned i = 0; i < PCI_BARS; i++)
        if (f->bars[i].size)
            bar_set(f, i, f->bars[i].initial);
    pci_func_resume(f);
}

void pci_func_resume(struct pci_func *f)
{
    if (f->bus)
        pci_bus_remap(f);
}

/* --- Guest access -------------------------------------------------------- */

static uint32_t get_dword(const struct pci_func *f, unsigned off)
{
    le32 v;

    memcpy(&v, f->image + off, sizeof(v));
    if (off == PCI_REG_COMMAND)
        return le32_get(v) | f->command;
    if (off == PCI_REG_INTERRUPT_LINE)
        return le32_get(v) | f->interrupt_line;
    if (off >= PCI_REG_BAR0 && off < PCI_REG_BAR_END)
        return f->bar_regs[(off - PCI_REG_BAR0) / 4];
    return le32_get(v);
}

static uint32_t size_mask(unsigned size)
{
    return size == 4 ? UINT32_MAX : (UINT32_C(1) << (8 * size)) - 1;
}

uint32_t pci_func_read(struct pci_func *f, unsigned off, unsigned size)
{
    uint32_t val;

    /* PCI Express 3.0, 7.9.1: no extended capabilities: the first header is all zero. */
    if (off >= PCI_CONFIG_SIZE)
        return 0;
    val = get_dword(f, off & ~3u) >> (8 * (off & 3)) & size_mask(size);
    if (off >= PCI_FIRST_CAP && f->ops->cap_read)
        f->ops->cap_read(f, off, size, &val);
    return val & size_mask(size);
}

static void write_command(struct pci_func *f, uint16_t val)
{
    uint16_t old = f->command;

    f->command = val & PCI_COMMAND_WRITABLE;
    if ((old ^ f->command) & PCI_COMMAND_MEMORY)
        pci_func_resume(f);
    if (old != f->command && f->ops->command_changed)
        f->ops->command_changed(f);
}

static void write_bar(struct pci_func *f, unsigned i, uint32_t val)
{
    const struct pci_bar *bar = &f->bars[i];

    if (bar->size) {
        f->bar_regs[i] = (val & (uint32_t) ~(bar->size - 1)) | (bar->is_64bit ? PCI_BAR_64BIT : 0);
    } else if (i && f->bars[i - 1].size && f->bars[i - 1].is_64bit) {
        f->bar_regs[i] = val & (uint32_t)(~(f->bars[i - 1].size - 1) >> 32);
    } else {
        return;
    }
    pci_func_resume(f);
}

void pci_func_write(struct pci_func *f, unsigned off, unsigned size, uint32_t val)
{
    unsigned shift = 8 * (off & 3), dword = off & ~3u;
    uint32_t merged;

    if (off >= PCI_CONFIG_SIZE)
        return;
    if (off >= PCI_FIRST_CAP) {
        if (f->ops->cap_write)
            f->ops->cap_write(f, off, size, val & size_mask(size));
        return;
    }
    merged = get_dword(f, dword) & ~(size_mask(size) << shift);
    merged |= (val & size_mask(size)) << shift;
    if (dword == PCI_REG_COMMAND)
        write_command(f, (uint16_t)merged);
    else if (dword == PCI_REG_INTERRUPT_LINE)
        f->interrupt_line = (uint8_t)merged;
    else if (dword >= PCI_REG_BAR0 && dword < PCI_REG_BAR_END)
        write_bar(f, (dword - PCI_REG_BAR0) / 4, merged);
}

/* --- State --------------------------------------------------------------- */

static const struct state_field pci_func_fields[] = {
    /* clang-format off */
    STATE(struct pci_func, 1, U16, command),
    STATE(struct pci_func, 1, U8,  interrupt_line),
    STATE(struct pci_func, 1, U32, bar_regs),
    /* clang-format on */
};

/* What a register of a BAR reads after all ones were written to it. */
static uint32_t bar_writable(const struct pci_func *f, unsigned i)
{
    if (f->bars[i].size)
        return (uint32_t) ~(f->bars[i].size - 1);
    if (i && f->bars[i - 1].size && f->bars[i - 1].is_64bit)
        return (uint32_t)(~(f->bars[i - 1].size - 1) >> 32);
    return 0;
}

static int pci_func_check(const void *scratch, const void *live, struct err *err)
{
    const struct pci_func *f = scratch, *l = live;

    if (f->command & ~(unsigned)PCI_COMMAND_WRITABLE)
        return err_set(err, -EBADMSG, "command: %#x", f->command);
    for (unsigned i = 0; i < PCI_BARS; i++) {
        uint32_t flags = l->bars[i].size && l->bars[i].is_64bit ? PCI_BAR_64BIT : 0;

        if ((f->bar_regs[i] & ~bar_writable(l, i)) != flags)
            return err_set(err, -EBADMSG, "bar_regs[%u]: %#x is not one of this BAR", i,
                           f->bar_regs[i]);
    }
    return 0;
}

const struct state_desc pci_func_state = {
    .name = "pci",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct pci_func),
    .fields = pci_func_fields,
    .nr_fields = ARRAY_LEN(pci_func_fields),
    .check = pci_func_check,
};
