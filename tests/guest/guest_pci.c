/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI configuration space of bus 0, by mechanism 1 and by ECAM.
 */
#include "guest.h"

enum {
    PCI_ADDRESS = 0xcf8,
    PCI_DATA = 0xcfc,
    PCI_STATUS_CAPS = 1 << 20, /* in the 32 bits at 0x04 */
    NR_SLOTS = 32,
};

uint32_t pci_read(unsigned slot, unsigned reg)
{
    outl(PCI_ADDRESS, 1u << 31 | slot << 11 | (reg & 0xfc));
    return inl(PCI_DATA);
}

void pci_write(unsigned slot, unsigned reg, uint32_t value)
{
    outl(PCI_ADDRESS, 1u << 31 | slot << 11 | (reg & 0xfc));
    outl(PCI_DATA, value);
}

uint64_t pci_bar(unsigned slot, unsigned bar)
{
    uint32_t low = pci_read(slot, 0x10 + 4 * bar);

    if (low & 1)
        return low & ~3u;
    if ((low & 6) == 4)
        return (low & ~15u) | (uint64_t)pci_read(slot, 0x14 + 4 * bar) << 32;
    return low & ~15u;
}

unsigned pci_find_cap(unsigned slot, unsigned id, unsigned after)
{
    unsigned cap = after ? pci_read(slot, after) >> 8 & 0xfc : pci_read(slot, 0x34) & 0xfc;

    if (!(pci_read(slot, 4) & PCI_STATUS_CAPS))
        return 0;
    for (unsigned i = 0; i < 48 && cap != 0; i++) {
        uint32_t head = pci_read(slot, cap);

        if ((head & 0xff) == id)
            return cap;
        cap = head >> 8 & 0xfc;
    }
    return 0;
}

static void cmd_pci(unsigned argc, char **argv)
{
    uint64_t ecam = acpi_ecam(), nr = 0, differ = 0;

    (void)argc;
    (void)argv;
    for (unsigned slot = 0; slot < NR_SLOTS; slot++) {
        uint32_t id = pci_read(slot, 0);

        if (ecam) {
            const volatile uint32_t *config = at(ecam + ((uint64_t)slot << 15));

            for (unsigned reg = 0; reg < 0x40; reg += 4)
                differ += config[reg / 4] != pci_read(slot, reg);
        }
        if ((id & 0xffff) == 0xffff)
            continue;
        nr++;
        out("| 00:%b.0 %x:%x class 0x%x bar0 0x%x\n", (uint64_t)slot, (uint64_t)(id & 0xffff),
            (uint64_t)(id >> 16), (uint64_t)(pci_read(slot, 8) >> 8), pci_bar(slot, 0));
    }
    out("%s devices=%u ecam=0x%x differ=%u\n", differ ? "err pci:" : "ok", nr, ecam, differ);
}

static void cmd_pcird(unsigned argc, char **argv)
{
    uint64_t slot, reg;

    if (!arg_u64(argc, argv, 1, "slot", &slot) || !arg_u64(argc, argv, 2, "reg", &reg))
        return;
    out("ok 0x%x\n", (uint64_t)pci_read((unsigned)slot & 31, (unsigned)reg & 0xfc));
}

static void cmd_pciwr(unsigned argc, char **argv)
{
    uint64_t slot, reg, value;

    if (!arg_u64(argc, argv, 1, "slot", &slot) || !arg_u64(argc, argv, 2, "reg", &reg) ||
        !arg_u64(argc, argv, 3, "value", &value))
        return;
    pci_write((unsigned)slot & 31, (unsigned)reg & 0xfc, (uint32_t)value);
    out("ok\n");
}

const struct command pci_commands[] = {
    {"pci",   "",               cmd_pci  },
    {"pcird", "slot reg",       cmd_pcird},
    {"pciwr", "slot reg value", cmd_pciwr},
    {NULL,    NULL,             NULL     },
};
