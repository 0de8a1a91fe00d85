/* SPDX-License-Identifier: Apache-2.0 */
#include "core/x86/aml.h"

#include <errno.h>
#include <string.h>

#include "core/wire.h"

enum {
    AML_NAME_SEG = 4,
    AML_SEGS_MAX = 8,
    OP_ZERO = 0x00,
    OP_ONE = 0x01,
    OP_NAME = 0x08,
    OP_BYTE = 0x0a,
    OP_WORD = 0x0b,
    OP_DWORD = 0x0c,
    OP_STRING = 0x0d,
    OP_QWORD = 0x0e,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_METHOD = 0x14,
    OP_DUAL_NAME = 0x2e,
    OP_MULTI_NAME = 0x2f,
    OP_EXT = 0x5b,
    OP_LOCAL0 = 0x60,
    OP_ARG0 = 0x68,
    OP_IF = 0xa0,
    EXT_REGION = 0x80,
    EXT_FIELD = 0x81,
    EXT_DEVICE = 0x82,
};

/* ACPI 6.5, 6.4: resource descriptor types and flags. */
enum {
    RES_IO = 0x47,
    RES_END_TAG = 0x79,
    RES_MEMORY32_FIXED = 0x86,
    RES_DWORD = 0x87,
    RES_WORD = 0x88,
    RES_INTERRUPT = 0x89,
    RES_QWORD = 0x8a,
    RES_TYPE_MEMORY = 0,
    RES_TYPE_IO = 1,
    RES_TYPE_BUS = 2,
    RES_CONSUMER = 1 << 0,
    RES_MIN_FIXED = 1 << 2,
    RES_MAX_FIXED = 1 << 3,
    RES_WINDOW = RES_MIN_FIXED | RES_MAX_FIXED,
    RES_MEMORY_RW = 1 << 0,
    RES_MEMORY_CACHEABLE = 1 << 1,
    RES_IO_ENTIRE_RANGE = 3,
};

/* --- Bytes --------------------------------------------------------------- */

static void put(struct aml *a, const void *src, size_t len)
{
    if (a->failed)
        return;
    if (len > a->cap - a->len) {
        a->failed = -E2BIG;
        return;
    }
    memcpy(a->data + a->len, src, len);
    a->len += len;
}

static void put8(struct aml *a, unsigned v)
{
    uint8_t b = (uint8_t)v;

    put(a, &b, sizeof(b));
}

static void put16(struct aml *a, uint16_t v)
{
    le16 b = le16_make(v);

    put(a, &b, sizeof(b));
}

static void put32(struct aml *a, uint32_t v)
{
    le32 b = le32_make(v);

    put(a, &b, sizeof(b));
}

static void put64(struct aml *a, uint64_t v)
{
    le64 b = le64_make(v);

    put(a, &b, sizeof(b));
}

/* Make room in the middle and fill it. */
static void insert(struct aml *a, size_t at, const void *src, size_t len)
{
    size_t old = a->len;

    put(a, src, len);
    if (a->failed)
        return;
    memmove(a->data + at + len, a->data + at, old - at);
    memcpy(a->data + at, src, len);
}

/* NOLINTNEXTLINE(readability-non-const-parameter): kept in *a and written. */
void aml_init(struct aml *a, uint8_t *data, size_t cap)
{
    *a = (struct aml){.data = data, .cap = cap};
}

int aml_finish(const struct aml *a, struct err *err)
{
    if (a->failed)
        return err_set(err, a->failed, "aml: %s",
                       a->failed == -E2BIG ? "the table has no room left" : "bad name");
    if (a->depth != 0)
        return err_set(err, -EINVAL, "aml: %u blocks are still open", a->depth);
    return 0;
}

/* --- Names --------------------------------------------------------------- */

static bool name_char_ok(char c, bool first)
{
    return (c >= 'A' && c <= 'Z') || c == '_' || (!first && c >= '0' && c <= '9');
}

/* One segment of a path, padded with '_'; returns what follows it. */
static const char *name_seg(struct aml *a, const char *s, char seg[AML_NAME_SEG])
{
    size_t n = 0;

    memset(seg, '_', AML_NAME_SEG);
    while (s[n] != 0 && s[n] != '.') {
        if (n == AML_NAME_SEG || !name_char_ok(s[n], n == 0)) {
            a->failed = a->failed ? a->failed : -EINVAL;
            return "";
        }
        seg[n] = s[n];
        n++;
    }
    if (n == 0)
        a->failed = a->failed ? a->failed : -EINVAL;
    return s[n] == '.' ? s + n + 1 : "";
}

/* ACPI 6.5, 20.2.2: NameString := <RootChar NamePath> | <PrefixPath NamePath> */
static void name_string(struct aml *a, const char *path)
{
    char segs[AML_SEGS_MAX][AML_NAME_SEG];
    unsigned nr = 0;

    while (*path == '\\' || *path == '^')
        put8(a, (unsigned)*path++);
    while (*path != 0 && nr < AML_SEGS_MAX)
        path = name_seg(a, path, segs[nr++]);
    if (*path != 0)
        a->failed = a->failed ? a->failed : -EINVAL;
    if (nr == 0)
        put8(a, OP_ZERO);
    if (nr == 2)
        put8(a, OP_DUAL_NAME);
    if (nr > 2) {
        put8(a, OP_MULTI_NAME);
        put8(a, nr);
    }
    put(a, segs, (size_t)nr * AML_NAME_SEG);
}

/* --- Blocks -------------------------------------------------------------- */

/* ACPI 6.5, 20.2.4: one to four bytes, low nibble or six bits first. */
static size_t pkg_length_encode(uint8_t out[4], size_t value, size_t bytes)
{
    if (bytes == 1) {
        out[0] = (uint8_t)value;
        return 1;
    }
    out[0] = (uint8_t)((bytes - 1) << 6 | (value & 0xf));
    for (size_t i = 1; i < bytes; i++)
        out[i] = (uint8_t)(value >> (4 + 8 * (i - 1)));
    return bytes;
}

static size_t pkg_length_bytes(size_t value)
{
    if (value < 1 << 6)
        return 1;
    if (value < 1 << 12)
        return 2;
    return value < 1 << 20 ? 3 : 4;
}

static void frame_push(struct aml *a, bool resources)
{
    if (a->depth == AML_DEPTH_MAX) {
        a->failed = a->failed ? a->failed : -EINVAL;
        return;
    }
    a->frames[a->depth++] = (struct aml_frame){.at = a->len, .resources = resources};
}

/* The size of a resource template's bytes, as the integer that begins its buffer. */
static void resources_close(struct aml *a, size_t at)
{
    uint8_t op[3];
    size_t len;

    put8(a, RES_END_TAG);
    put8(a, 0); /* checksum 0: not checked */
    len = a->len - at;
    if (len <= UINT8_MAX) {
        op[0] = OP_BYTE;
        op[1] = (uint8_t)len;
        insert(a, at, op, 2);
        return;
    }
    op[0] = OP_WORD;
    op[1] = (uint8_t)len;
    op[2] = (uint8_t)(len >> 8);
    insert(a, at, op, 3);
}

void aml_end(struct aml *a)
{
    struct aml_frame f;
    uint8_t enc[4];
    size_t bytes;
    size_t len;

    if (a->depth == 0) {
        a->failed = a->failed ? a->failed : -EINVAL;
        return;
    }
    f = a->frames[--a->depth];
    if (f.resources)
        resources_close(a, f.at);
    if (a->failed)
        return;
    /* The length counts its own bytes. */
    len = a->len - f.at;
    bytes = pkg_length_bytes(len + 1);
    if (bytes > 1)
        bytes = pkg_length_bytes(len + bytes);
    insert(a, f.at, enc, pkg_length_encode(enc, len + bytes, bytes));
}

void aml_device_begin(struct aml *a, const char *path)
{
    put8(a, OP_EXT);
    put8(a, EXT_DEVICE);
    frame_push(a, false);
    name_string(a, path);
}

void aml_method_begin(struct aml *a, const char *path, unsigned nr_args, bool serialized)
{
    put8(a, OP_METHOD);
    frame_push(a, false);
    name_string(a, path);
    put8(a, (nr_args & 7) | (serialized ? 1 << 3 : 0));
}

void aml_if_begin(struct aml *a)
{
    put8(a, OP_IF);
    frame_push(a, false);
}

void aml_package_begin(struct aml *a, unsigned nr)
{
    put8(a, OP_PACKAGE);
    frame_push(a, false);
    if (nr > UINT8_MAX)
        a->failed = a->failed ? a->failed : -EINVAL;
    put8(a, nr);
}

void aml_field_begin(struct aml *a, const char *region, unsigned flags)
{
    put8(a, OP_EXT);
    put8(a, EXT_FIELD);
    frame_push(a, false);
    name_string(a, region);
    put8(a, flags);
}

void aml_resources_begin(struct aml *a)
{
    put8(a, OP_BUFFER);
    frame_push(a, true);
}

/* --- Objects and values -------------------------------------------------- */

void aml_name(struct aml *a, const char *path)
{
    put8(a, OP_NAME);
    name_string(a, path);
}

void aml_name_int(struct aml *a, const char *path, uint64_t val)
{
    aml_name(a, path);
    aml_int(a, val);
}

static void put_string(struct aml *a, const char *s)
{
    put8(a, OP_STRING);
    put(a, s, strlen(s) + 1);
}

void aml_name_string(struct aml *a, const char *path, const char *s)
{
    aml_name(a, path);
    put_string(a, s);
}

static unsigned hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    if (c >= 'a' && c <= 'f')
        return (unsigned)(c - 'a' + 10);
    return (unsigned)(c - 'A' + 10) & 0xf;
}

/* ACPI 6.5, 19.3.4: three letters of five bits, four hex digits, big-endian. */
static void put_eisa_id(struct aml *a, const char *id)
{
    unsigned v = 0;

    if (strlen(id) != 7) {
        a->failed = a->failed ? a->failed : -EINVAL;
        return;
    }
    for (unsigned i = 0; i < 3; i++)
        v = v << 5 | ((unsigned)(id[i] - 0x40) & 0x1f);
    for (unsigned i = 3; i < 7; i++)
        v = v << 4 | hex_digit(id[i]);
    put8(a, OP_DWORD);
    put8(a, v >> 24);
    put8(a, v >> 16 & 0xff);
    put8(a, v >> 8 & 0xff);
    put8(a, v & 0xff);
}

void aml_name_eisa_id(struct aml *a, const char *path, const char *id)
{
    aml_name(a, path);
    put_eisa_id(a, id);
}

void aml_region(struct aml *a, const char *path, enum aml_space space, uint64_t base, uint64_t len)
{
    put8(a, OP_EXT);
    put8(a, EXT_REGION);
    name_string(a, path);
    put8(a, space);
    aml_int(a, base);
    aml_int(a, len);
}

void aml_field_unit(struct aml *a, const char *name, unsigned bits)
{
    uint8_t enc[4];

    if (name)
        name_string(a, name);
    else
        put8(a, 0);
    put(a, enc, pkg_length_encode(enc, bits, pkg_length_bytes(bits)));
}

void aml_op(struct aml *a, enum aml_opcode op)
{
    if (op > UINT8_MAX)
        put8(a, op >> 8);
    put8(a, op & 0xff);
}

void aml_path(struct aml *a, const char *path)
{
    name_string(a, path);
}

void aml_notify(struct aml *a, const char *path, uint64_t val)
{
    aml_op(a, AML_NOTIFY);
    name_string(a, path);
    aml_int(a, val);
}

void aml_int(struct aml *a, uint64_t val)
{
    if (val <= 1) {
        put8(a, val ? OP_ONE : OP_ZERO);
    } else if (val <= UINT8_MAX) {
        put8(a, OP_BYTE);
        put8(a, (unsigned)val);
    } else if (val <= UINT16_MAX) {
        put8(a, OP_WORD);
        put16(a, (uint16_t)val);
    } else if (val <= UINT32_MAX) {
        put8(a, OP_DWORD);
        put32(a, (uint32_t)val);
    } else {
        put8(a, OP_QWORD);
        put64(a, val);
    }
}

void aml_buffer(struct aml *a, const void *bytes, size_t len)
{
    put8(a, OP_BUFFER);
    frame_push(a, false);
    aml_int(a, len);
    put(a, bytes, len);
    aml_end(a);
}

/* ACPI 6.5, 19.6.142: the first three groups are little-endian. */
void aml_uuid(struct aml *a, const char *uuid)
{
    static const uint8_t pos[16] = {6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34};
    uint8_t bytes[16];

    if (strlen(uuid) != 36) {
        a->failed = a->failed ? a->failed : -EINVAL;
        return;
    }
    for (unsigned i = 0; i < ARRAY_LEN(bytes); i++)
        bytes[i] = (uint8_t)(hex_digit(uuid[pos[i]]) << 4 | hex_digit(uuid[pos[i] + 1]));
    aml_buffer(a, bytes, sizeof(bytes));
}

void aml_local(struct aml *a, unsigned n)
{
    put8(a, OP_LOCAL0 + (n & 7));
}

void aml_arg(struct aml *a, unsigned n)
{
    put8(a, OP_ARG0 + (n & 7));
}

void aml_null(struct aml *a)
{
    put8(a, OP_ZERO);
}

/* --- Resource descriptors ------------------------------------------------ */

void aml_res_io(struct aml *a, uint16_t base, uint8_t len)
{
    put8(a, RES_IO);
    put8(a, 1); /* decodes 16 bits */
    put16(a, base);
    put16(a, base);
    put8(a, 1);
    put8(a, len);
}

void aml_res_memory32(struct aml *a, uint32_t base, uint32_t len)
{
    put8(a, RES_MEMORY32_FIXED);
    put16(a, 9);
    put8(a, RES_MEMORY_RW);
    put32(a, base);
    put32(a, len);
}

void aml_res_irq(struct aml *a, unsigned flags, uint32_t gsi)
{
    put8(a, RES_INTERRUPT);
    put16(a, 6);
    put8(a, flags | RES_CONSUMER);
    put8(a, 1);
    put32(a, gsi);
}

static void res_word(struct aml *a, unsigned type, unsigned flags, uint16_t first, uint16_t last)
{
    put8(a, RES_WORD);
    put16(a, 13);
    put8(a, type);
    put8(a, RES_WINDOW);
    put8(a, flags);
    put16(a, 0);
    put16(a, first);
    put16(a, last);
    put16(a, 0);
    put16(a, (uint16_t)(last - first + 1));
}

void aml_res_bus(struct aml *a, uint16_t first, uint16_t last)
{
    res_word(a, RES_TYPE_BUS, 0, first, last);
}

void aml_res_io_window(struct aml *a, uint16_t first, uint16_t last)
{
    res_word(a, RES_TYPE_IO, RES_IO_ENTIRE_RANGE, first, last);
}

void aml_res_memory_window(struct aml *a, uint32_t base, uint32_t len)
{
    put8(a, RES_DWORD);
    put16(a, 23);
    put8(a, RES_TYPE_MEMORY);
    put8(a, RES_WINDOW);
    put8(a, RES_MEMORY_RW);
    put32(a, 0);
    put32(a, base);
    put32(a, base + (len - 1));
    put32(a, 0);
    put32(a, len);
}

void aml_res_memory64_window(struct aml *a, uint64_t base, uint64_t len)
{
    put8(a, RES_QWORD);
    put16(a, 43);
    put8(a, RES_TYPE_MEMORY);
    put8(a, RES_WINDOW);
    put8(a, RES_MEMORY_RW | RES_MEMORY_CACHEABLE);
    put64(a, 0);
    put64(a, base);
    put64(a, base + (len - 1));
    put64(a, 0);
    put64(a, len);
}
