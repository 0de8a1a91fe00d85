/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source: PCI Local Bus Specification 3.0, 6.8.2 and 6.8.3.
 */
#include "devices/msix.h"

#include <errno.h>
#include <string.h>

enum {
    MSIX_ENTRY_MASKED = 1 << 0,
    MSIX_CTRL_SIZE_MASK = 0x7ff, /* number of vectors - 1 */
};

void msix_init(struct msix *m, unsigned nr)
{
    m->nr = nr;
    msix_reset(m);
}

void msix_reset(struct msix *m)
{
    m->enabled = false;
    m->mask_all = false;
    memset(m->entries, 0, sizeof(m->entries));
    memset(m->pending, 0, sizeof(m->pending));
    /* PCI 3.0, 6.8.2.9: "this bit's state after reset is 1 (entry is masked)" */
    for (unsigned i = 0; i < m->nr; i++)
        m->entries[i].ctrl = MSIX_ENTRY_MASKED;
}

/* --- Delivery ------------------------------------------------------------ */

static bool is_masked(const struct msix *m, unsigned vector)
{
    return m->mask_all || m->entries[vector].ctrl & MSIX_ENTRY_MASKED;
}

static void deliver(struct msix *m, struct device *dev, unsigned vector)
{
    const struct msix_entry *e = &m->entries[vector];

    m->pending[vector / 64] &= ~(UINT64_C(1) << (vector % 64));
    dev->env->ops->msi_send(dev->env->arg, (uint64_t)e->addr_hi << 32 | e->addr_lo, e->data);
}

static void deliver_pending(struct msix *m, struct device *dev, unsigned vector)
{
    if (m->enabled && !is_masked(m, vector) && m->pending[vector / 64] >> (vector % 64) & 1)
        deliver(m, dev, vector);
}

void msix_notify(struct msix *m, struct device *dev, unsigned vector)
{
    if (!m->enabled || vector >= m->nr)
        return;
    if (is_masked(m, vector))
        m->pending[vector / 64] |= UINT64_C(1) << (vector % 64);
    else
        deliver(m, dev, vector);
}

/* --- Guest access -------------------------------------------------------- */

uint16_t msix_control_read(const struct msix *m)
{
    return (uint16_t)((m->nr - 1) | (m->mask_all ? MSIX_CTRL_MASK_ALL : 0) |
                      (m->enabled ? MSIX_CTRL_ENABLE : 0));
}

void msix_control_write(struct msix *m, struct device *dev, uint16_t val)
{
    m->enabled = val & MSIX_CTRL_ENABLE;
    m->mask_all = val & MSIX_CTRL_MASK_ALL;
    for (unsigned i = 0; i < m->nr; i++)
        deliver_pending(m, dev, i);
}

static bool is_bad_access(struct device *dev, const char *what, uint64_t off, unsigned size)
{
    /* PCI 3.0, 6.8.2: "software must use aligned full DWORD or aligned full QWORD transactions" */
    if ((size == 4 || size == 8) && !(off & (size - 1)))
        return false;
    device_guest_error(dev, "msix: %u bytes at %#llx of the %s", size, (unsigned long long)off,
                       what);
    return true;
}

static uint32_t *entry_word(struct msix_entry *e, uint64_t off)
{
    switch (off % MSIX_ENTRY_SIZE / 4) {
    case 0:
        return &e->addr_lo;
    case 1:
        return &e->addr_hi;
    case 2:
        return &e->data;
    default:
        return &e->ctrl;
    }
}

static uint32_t table_word(const struct msix *m, uint64_t off)
{
    struct msix_entry e;

    if (off / MSIX_ENTRY_SIZE >= m->nr)
        return 0;
    e = m->entries[off / MSIX_ENTRY_SIZE];
    return *entry_word(&e, off);
}

uint64_t msix_table_read(const struct msix *m, struct device *dev, uint64_t off, unsigned size)
{
    if (is_bad_access(dev, "table", off, size))
        return UINT64_MAX;
    if (size == 4)
        return table_word(m, off);
    return table_word(m, off) | (uint64_t)table_word(m, off + 4) << 32;
}

void msix_table_write(struct msix *m, struct device *dev, uint64_t off, unsigned size, uint64_t val)
{
    uint64_t vector = off / MSIX_ENTRY_SIZE;

    if (is_bad_access(dev, "table", off, size) || vector >= m->nr)
        return;
    for (unsigned i = 0; i < size; i += 4) {
        uint32_t *word = entry_word(&m->entries[vector], off + i);

        *word = (uint32_t)(val >> (8 * i));
    }
    m->entries[vector].addr_lo &= ~UINT32_C(3);
    m->entries[vector].ctrl &= MSIX_ENTRY_MASKED;
    deliver_pending(m, dev, (unsigned)vector);
}

static uint64_t pba_word(const struct msix *m, uint64_t off)
{
    return off / 8 < MSIX_PBA_WORDS ? m->pending[off / 8] : 0;
}

uint64_t msix_pba_read(const struct msix *m, struct device *dev, uint64_t off, unsigned size)
{
    if (is_bad_access(dev, "pending bits", off, size))
        return UINT64_MAX;
    return size == 8 ? pba_word(m, off) : (uint32_t)(pba_word(m, off) >> (8 * (off & 4)));
}

/* --- State --------------------------------------------------------------- */

static const struct state_field msix_entry_fields[] = {
    /* clang-format off */
    STATE(struct msix_entry, 1, U32, addr_lo),
    STATE(struct msix_entry, 1, U32, addr_hi),
    STATE(struct msix_entry, 1, U32, data),
    STATE(struct msix_entry, 1, U32, ctrl),
    /* clang-format on */
};

static const struct state_desc msix_entry_state = {
    .name = "msix_entry",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct msix_entry),
    .fields = msix_entry_fields,
    .nr_fields = ARRAY_LEN(msix_entry_fields),
};

static const struct state_field msix_fields[] = {
    /* clang-format off */
    STATE(struct msix,      1, BOOL, enabled),
    STATE(struct msix,      1, BOOL, mask_all),
    STATE_LIST(struct msix, 1, &msix_entry_state, entries, nr),
    STATE(struct msix,      1, U64,  pending),
    /* clang-format on */
};

static int msix_check(const void *scratch, const void *live, struct err *err)
{
    const struct msix *m = scratch;
    uint32_t nr = ((const struct msix *)live)->nr;

    if (m->nr != nr)
        return err_set(err, -ENOTSUP, "entries: %u vectors, this device has %u", m->nr, nr);
    for (unsigned i = 0; i < m->nr; i++) {
        if (m->entries[i].addr_lo & 3 || m->entries[i].ctrl & ~(uint32_t)MSIX_ENTRY_MASKED)
            return err_set(err, -EBADMSG, "entries[%u]: reserved bits are set", i);
    }
    for (unsigned i = 0; i < MSIX_VECTORS_MAX; i++) {
        bool pending = m->pending[i / 64] >> (i % 64) & 1;

        if (pending && i >= m->nr)
            return err_set(err, -EBADMSG, "pending: vector %u does not exist", i);
        if (pending && m->enabled && !is_masked(m, i))
            return err_set(err, -EBADMSG, "pending: vector %u is not masked", i);
    }
    return 0;
}

const struct state_desc msix_state = {
    .name = "msix",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct msix),
    .fields = msix_fields,
    .nr_fields = ARRAY_LEN(msix_fields),
    .check = msix_check,
};
