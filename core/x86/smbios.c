/* SPDX-License-Identifier: Apache-2.0 */
#include "core/x86/smbios.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/gmem.h"
#include "core/wire.h"
#include "core/x86/layout.h"

enum {
    TYPE_BIOS = 0,
    TYPE_SYSTEM = 1,
    TYPE_CHASSIS = 3,
    TYPE_OEM_STRINGS = 11,
    TYPE_END = 127,
    HEADER_LEN = 4,
    BIOS_LEN = 0x18,
    SYSTEM_LEN = 0x1b,
    CHASSIS_LEN = 0x16,
    OEM_STRINGS_LEN = 5,
    BIOS_SEGMENT = 0xf000,
    BIOS_NO_CHARACTERISTICS = 1 << 3,
    BIOS_VIRTUAL_MACHINE = 1 << 4, /* extension byte 2 */
    NO_VERSION = 0xff,
    WAKE_UP_POWER_SWITCH = 6,
    CHASSIS_OTHER = 1,
    STATE_SAFE = 3,
    SECURITY_NONE = 3,
    VERSION_MAJOR = 3,
    VERSION_MINOR = 2,
};

/* DSP0134 5.2.2 */
struct smbios_entry {
    char anchor[5];
    uint8_t checksum;
    uint8_t length;
    uint8_t major;
    uint8_t minor;
    uint8_t docrev;
    uint8_t revision;
    uint8_t reserved;
    le32 max_size;
    le64 address;
};

_Static_assert(sizeof(struct smbios_entry) == 24, "DSP0134 5.2.2");

/* The strings of one structure: numbered from 1, 0 is none. */
struct strings {
    const char *list[SMBIOS_OEM_STRINGS_MAX];
    unsigned nr;
};

static uint8_t string_add(struct strings *s, const char *text, const char *fallback)
{
    if (!text)
        text = fallback;
    if (!text)
        return 0;
    s->list[s->nr++] = text;
    return (uint8_t)s->nr;
}

static void header(struct wr *w, uint8_t type, uint8_t len, uint16_t *handle)
{
    wr_u8(w, type);
    wr_u8(w, len);
    wr_le16(w, (*handle)++);
}

/* DSP0134 6.1.3: each ends with a zero, the set with another, an empty set with two. */
static void strings_write(struct wr *w, const struct strings *s)
{
    for (unsigned i = 0; i < s->nr; i++)
        wr_bytes(w, s->list[i], strlen(s->list[i]) + 1);
    if (s->nr == 0)
        wr_u8(w, 0);
    wr_u8(w, 0);
}

static void bios_write(struct wr *w, uint16_t *handle)
{
    struct strings s = {.nr = 0};

    header(w, TYPE_BIOS, BIOS_LEN, handle);
    wr_u8(w, string_add(&s, "Chrysalis", NULL));
    wr_u8(w, string_add(&s, "0", NULL));
    wr_le16(w, BIOS_SEGMENT);
    wr_u8(w, 0); /* release date */
    wr_u8(w, 0); /* size: 64 KiB */
    wr_le64(w, BIOS_NO_CHARACTERISTICS);
    wr_u8(w, 0);
    wr_u8(w, BIOS_VIRTUAL_MACHINE);
    for (unsigned i = 0; i < 4; i++)
        wr_u8(w, NO_VERSION); /* of BIOS and embedded controller */
    strings_write(w, &s);
}

static void system_write(struct wr *w, const struct smbios_config *cfg, uint16_t *handle)
{
    /* DSP0134 7.2.1: the first three groups are little-endian. */
    static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    struct strings s = {.nr = 0};

    header(w, TYPE_SYSTEM, SYSTEM_LEN, handle);
    wr_u8(w, string_add(&s, cfg->manufacturer, "Chrysalis"));
    wr_u8(w, string_add(&s, cfg->product_name, "chrysalis"));
    wr_u8(w, string_add(&s, cfg->version, NULL));
    wr_u8(w, string_add(&s, cfg->serial_number, NULL));
    for (unsigned i = 0; i < sizeof(order); i++)
        wr_u8(w, cfg->uuid[order[i]]);
    wr_u8(w, WAKE_UP_POWER_SWITCH);
    wr_u8(w, string_add(&s, cfg->sku_number, NULL));
    wr_u8(w, string_add(&s, cfg->family, NULL));
    strings_write(w, &s);
}

static void chassis_write(struct wr *w, const struct smbios_config *cfg, uint16_t *handle)
{
    struct strings s = {.nr = 0};

    header(w, TYPE_CHASSIS, CHASSIS_LEN, handle);
    wr_u8(w, string_add(&s, cfg->manufacturer, "Chrysalis"));
    wr_u8(w, CHASSIS_OTHER);
    wr_u8(w, 0); /* version */
    wr_u8(w, 0); /* serial number */
    wr_u8(w, string_add(&s, cfg->chassis_asset_tag, NULL));
    wr_u8(w, STATE_SAFE); /* boot-up */
    wr_u8(w, STATE_SAFE); /* power supply */
    wr_u8(w, STATE_SAFE); /* thermal */
    wr_u8(w, SECURITY_NONE);
    wr_le32(w, 0);
    wr_u8(w, 0); /* height */
    wr_u8(w, 0); /* power cords */
    wr_u8(w, 0); /* contained elements */
    wr_u8(w, 0); /* their length */
    wr_u8(w, 0); /* SKU number */
    strings_write(w, &s);
}

static void oem_strings_write(struct wr *w, const struct smbios_config *cfg, uint16_t *handle)
{
    struct strings s = {.nr = 0};

    header(w, TYPE_OEM_STRINGS, OEM_STRINGS_LEN, handle);
    for (unsigned i = 0; i < cfg->nr_oem_strings; i++)
        (void)string_add(&s, cfg->oem_strings[i], NULL);
    wr_u8(w, (uint8_t)s.nr);
    strings_write(w, &s);
}

/* DSP0134 6.1.3: a string of no bytes would end the set. */
static int config_check(const struct smbios_config *cfg, struct err *err)
{
    const struct {
        const char *name;
        const char *text;
    } texts[] = {
        {"system_manufacturer",  cfg->manufacturer     },
        {"system_product_name",  cfg->product_name     },
        {"system_version",       cfg->version          },
        {"system_serial_number", cfg->serial_number    },
        {"system_sku_number",    cfg->sku_number       },
        {"system_family",        cfg->family           },
        {"chassis_asset_tag",    cfg->chassis_asset_tag},
    };

    for (unsigned i = 0; i < ARRAY_LEN(texts); i++) {
        if (texts[i].text && !texts[i].text[0])
            return err_set(err, -EINVAL, "platform.%s: empty", texts[i].name);
    }
    if (cfg->nr_oem_strings > SMBIOS_OEM_STRINGS_MAX)
        return err_set(err, -E2BIG, "platform.oem_strings: %u, at most %d", cfg->nr_oem_strings,
                       SMBIOS_OEM_STRINGS_MAX);
    for (unsigned i = 0; i < cfg->nr_oem_strings; i++) {
        if (!cfg->oem_strings[i] || !cfg->oem_strings[i][0])
            return err_set(err, -EINVAL, "platform.oem_strings: number %u is empty", i + 1);
    }
    return 0;
}

int smbios_build(const struct smbios_config *cfg, uint64_t gpa, uint8_t *buf, size_t cap,
                 struct err *err)
{
    struct smbios_entry e = {
        .anchor = {'_', 'S', 'M', '3', '_'},
        .length = sizeof(e),
        .major = VERSION_MAJOR,
        .minor = VERSION_MINOR,
        .revision = 1,
        .address = le64_make(gpa + sizeof(e)),
    };
    struct wr w = {.p = buf, .left = cap};
    struct strings none = {.nr = 0};
    uint16_t handle = 0;
    uint8_t sum = 0;
    size_t len;
    int rc;

    rc = config_check(cfg, err);
    if (rc < 0)
        return rc;
    wr_bytes(&w, &e, sizeof(e));
    bios_write(&w, &handle);
    system_write(&w, cfg, &handle);
    chassis_write(&w, cfg, &handle);
    if (cfg->nr_oem_strings > 0)
        oem_strings_write(&w, cfg, &handle);
    header(&w, TYPE_END, HEADER_LEN, &handle);
    strings_write(&w, &none);
    if (w.bad)
        return err_set(err, -E2BIG, "platform: the SMBIOS strings do not fit in %zu bytes", cap);
    len = cap - w.left;
    e.max_size = le32_make((uint32_t)(len - sizeof(e)));
    for (size_t i = 0; i < sizeof(e); i++)
        sum = (uint8_t)(sum + ((const uint8_t *)&e)[i]);
    e.checksum = (uint8_t)-sum;
    memcpy(buf, &e, sizeof(e));
    return (int)len;
}

int smbios_write(struct gmem *gm, const struct smbios_config *cfg, struct err *err)
{
    auto_free uint8_t *buf = malloc(X86_SMBIOS_SIZE);
    int len;

    if (!buf)
        return -ENOMEM;
    len = smbios_build(cfg, X86_SMBIOS_GPA, buf, X86_SMBIOS_SIZE, err);
    if (len < 0)
        return len;
    if (gmem_copy_out(gm, X86_SMBIOS_GPA, buf, (size_t)len) < 0)
        return err_set(err, -EINVAL, "memory: no RAM for SMBIOS");
    return 0;
}
