/* SPDX-License-Identifier: Apache-2.0 */
#include "core/dcbor.h"

#include <cbor.h>
#include <errno.h>
#include <string.h>

#include "core/utf8.h"

enum {
    DCBOR_HEAD_MAX = 9, /* RFC 8949 3: an initial byte and at most 8 more */
};

/* --- Reading: one head by libcbor ----------------------------------------- */

struct dcbor_got {
    struct dcbor_item item;
    bool known;
};

static void got(void *arg, enum dcbor_type type, uint64_t val, const uint8_t *data)
{
    struct dcbor_got *g = arg;

    g->item = (struct dcbor_item){.type = type, .val = val, .data = data};
    g->known = true;
}

static void on_uint8(void *arg, uint8_t v)
{
    got(arg, DCBOR_UINT, v, NULL);
}

static void on_uint16(void *arg, uint16_t v)
{
    got(arg, DCBOR_UINT, v, NULL);
}

static void on_uint32(void *arg, uint32_t v)
{
    got(arg, DCBOR_UINT, v, NULL);
}

static void on_uint64(void *arg, uint64_t v)
{
    got(arg, DCBOR_UINT, v, NULL);
}

static void on_nint8(void *arg, uint8_t v)
{
    got(arg, DCBOR_NINT, v, NULL);
}

static void on_nint16(void *arg, uint16_t v)
{
    got(arg, DCBOR_NINT, v, NULL);
}

static void on_nint32(void *arg, uint32_t v)
{
    got(arg, DCBOR_NINT, v, NULL);
}

static void on_nint64(void *arg, uint64_t v)
{
    got(arg, DCBOR_NINT, v, NULL);
}

static void on_bytes(void *arg, cbor_data data, size_t len)
{
    got(arg, DCBOR_BYTES, len, data);
}

static void on_text(void *arg, cbor_data data, size_t len)
{
    got(arg, DCBOR_TEXT, len, data);
}

static void on_array(void *arg, size_t n)
{
    got(arg, DCBOR_ARRAY, n, NULL);
}

static void on_map(void *arg, size_t n)
{
    got(arg, DCBOR_MAP, n, NULL);
}

static void on_bool(void *arg, bool v)
{
    got(arg, DCBOR_BOOL, v, NULL);
}

/* What the format has no place for: the item stays unknown. */
static void on_nothing(void *arg)
{
    (void)arg;
}

static void on_tag(void *arg, uint64_t v)
{
    (void)arg;
    (void)v;
}

static void on_float(void *arg, float v)
{
    (void)arg;
    (void)v;
}

static void on_double(void *arg, double v)
{
    (void)arg;
    (void)v;
}

static const struct cbor_callbacks callbacks = {
    .uint8 = on_uint8,
    .uint16 = on_uint16,
    .uint32 = on_uint32,
    .uint64 = on_uint64,
    .negint8 = on_nint8,
    .negint16 = on_nint16,
    .negint32 = on_nint32,
    .negint64 = on_nint64,
    .byte_string_start = on_nothing,
    .byte_string = on_bytes,
    .string_start = on_nothing,
    .string = on_text,
    .indef_array_start = on_nothing,
    .array_start = on_array,
    .indef_map_start = on_nothing,
    .map_start = on_map,
    .tag = on_tag,
    .float2 = on_float,
    .float4 = on_float,
    .float8 = on_double,
    .undefined = on_nothing,
    .null = on_nothing,
    .boolean = on_bool,
    .indef_break = on_nothing,
};

static int bad(struct dcbor_in *in, const char *why)
{
    in->why = why;
    return -EBADMSG;
}

/* RFC 8949 4.2.1: "the shortest form of encoding" */
static size_t shortest_head(const struct dcbor_item *item)
{
    if (item->type == DCBOR_BOOL || item->val < 24)
        return 1;
    if (item->val <= UINT8_MAX)
        return 2;
    if (item->val <= UINT16_MAX)
        return 3;
    return item->val <= UINT32_MAX ? 5 : DCBOR_HEAD_MAX;
}

static int judge(struct dcbor_in *in, const struct dcbor_item *item, size_t read)
{
    size_t body = item->data ? (size_t)item->val : 0;

    if (read != shortest_head(item) + body)
        return bad(in, "not the shortest encoding");
    if (item->type == DCBOR_NINT && item->val > INT64_MAX)
        return bad(in, "an integer below -2^63");
    if (item->type == DCBOR_TEXT && !utf8_ok(item->data, body))
        return bad(in, "text that is not UTF-8");
    /* Each entry takes at least one byte: a count past the input is a lie. */
    if ((item->type == DCBOR_ARRAY && item->val > in->left) ||
        (item->type == DCBOR_MAP && item->val > in->left / 2))
        return bad(in, "cut short");
    return 0;
}

int dcbor_next(struct dcbor_in *in, struct dcbor_item *ret_item)
{
    struct dcbor_got g = {0};
    struct cbor_decoder_result r;
    int rc;

    /* libcbor calls an empty input an error; for us it is one that was cut. */
    if (!in->left)
        return bad(in, "cut short");
    r = cbor_stream_decode(in->p, in->left, &callbacks, &g);
    if (r.status == CBOR_DECODER_NEDATA)
        return bad(in, "cut short");
    if (r.status != CBOR_DECODER_FINISHED || !r.read || r.read > in->left || !g.known)
        return bad(in, "an item that the format does not have");
    in->p += r.read;
    in->left -= r.read;
    rc = judge(in, &g.item, r.read);
    if (rc < 0)
        return rc;
    *ret_item = g.item;
    return 0;
}

int dcbor_expect(struct dcbor_in *in, enum dcbor_type type, struct dcbor_item *ret_item)
{
    static const char *const names[] = {
        [DCBOR_UINT] = "not an unsigned integer", [DCBOR_NINT] = "not a negative integer",
        [DCBOR_BYTES] = "not a byte string",      [DCBOR_TEXT] = "not a text string",
        [DCBOR_ARRAY] = "not an array",           [DCBOR_MAP] = "not a map",
        [DCBOR_BOOL] = "not false or true",
    };
    struct dcbor_item item;
    int rc = dcbor_next(in, &item);

    if (rc < 0)
        return rc;
    if (item.type != type)
        return bad(in, names[type]);
    *ret_item = item;
    return 0;
}

int dcbor_map_begin(struct dcbor_in *in, struct dcbor_map *ret_map)
{
    struct dcbor_item item;
    int rc = dcbor_expect(in, DCBOR_MAP, &item);

    if (rc < 0)
        return rc;
    *ret_map = (struct dcbor_map){.left = item.val};
    return 0;
}

int dcbor_map_next(struct dcbor_in *in, struct dcbor_map *map)
{
    char key[DCBOR_NAME_MAX + 1];
    struct dcbor_item item;
    int rc;

    if (!map->left)
        return 0;
    map->left--;
    rc = dcbor_expect(in, DCBOR_TEXT, &item);
    if (rc < 0)
        return rc;
    if (!dcbor_name_ok((const char *)item.data, item.val))
        return bad(in, "a key that is not a name");
    memcpy(key, item.data, item.val);
    key[item.val] = 0;
    /* RFC 8949 4.2.1: "sorted in the bytewise lexicographic order" */
    if (map->key_len && dcbor_name_cmp(map->key, key) >= 0)
        return bad(in, "keys that are out of order or doubled");
    memcpy(map->key, key, sizeof(map->key));
    map->key_len = item.val;
    return 1;
}

static int skip_map(struct dcbor_in *in, uint64_t n, unsigned depth)
{
    struct dcbor_map map = {.left = n};
    int rc;

    while ((rc = dcbor_map_next(in, &map)) > 0) {
        rc = dcbor_skip(in, depth);
        if (rc < 0)
            return rc;
    }
    return rc;
}

int dcbor_skip(struct dcbor_in *in, unsigned depth)
{
    struct dcbor_item item;
    int rc = dcbor_next(in, &item);

    if (rc < 0 || (item.type != DCBOR_ARRAY && item.type != DCBOR_MAP))
        return rc;
    if (!depth)
        return bad(in, "nested too deep");
    if (item.type == DCBOR_MAP)
        return skip_map(in, item.val, depth - 1);
    for (uint64_t i = 0; i < item.val; i++) {
        rc = dcbor_skip(in, depth - 1);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* --- Strings -------------------------------------------------------------- */

bool dcbor_name_ok(const char *name, size_t len)
{
    if (!len || len > DCBOR_NAME_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if (name[i] <= 0x20 || name[i] >= 0x7f)
            return false;
    return true;
}

int dcbor_name_cmp(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b);

    /* The head of a key is its length, so that shorter keys come first. */
    if (la != lb)
        return la < lb ? -1 : 1;
    return memcmp(a, b, la);
}

/* --- Writing -------------------------------------------------------------- */

static bool reserve(struct dcbor_out *out, size_t n)
{
    size_t cap = out->cap ? out->cap : 256;
    uint8_t *data;

    if (out->rc)
        return false;
    if (out->len > out->max || n > out->max - out->len) {
        out->rc = -E2BIG;
        return false;
    }
    if (n <= out->cap - out->len)
        return true;
    while (cap - out->len < n)
        cap *= 2;
    data = realloc(out->data, cap);
    if (!data) {
        out->rc = -ENOMEM;
        return false;
    }
    out->data = data;
    out->cap = cap;
    return true;
}

static void append(struct dcbor_out *out, const void *data, size_t n)
{
    if (!n || !reserve(out, n))
        return;
    memcpy(out->data + out->len, data, n);
    out->len += n;
}

void dcbor_put(struct dcbor_out *out, enum dcbor_type type, uint64_t val)
{
    uint8_t head[DCBOR_HEAD_MAX];
    size_t n = 0;

    switch (type) {
    case DCBOR_UINT:
        n = cbor_encode_uint(val, head, sizeof(head));
        break;
    case DCBOR_NINT:
        n = cbor_encode_negint(val, head, sizeof(head));
        break;
    case DCBOR_BYTES:
        n = cbor_encode_bytestring_start(val, head, sizeof(head));
        break;
    case DCBOR_TEXT:
        n = cbor_encode_string_start(val, head, sizeof(head));
        break;
    case DCBOR_ARRAY:
        n = cbor_encode_array_start(val, head, sizeof(head));
        break;
    case DCBOR_MAP:
        n = cbor_encode_map_start(val, head, sizeof(head));
        break;
    case DCBOR_BOOL:
        n = cbor_encode_bool(val != 0, head, sizeof(head));
        break;
    }
    append(out, head, n);
}

void dcbor_put_string(struct dcbor_out *out, enum dcbor_type type, const void *data, size_t len)
{
    dcbor_put(out, type, len);
    append(out, data, len);
}
