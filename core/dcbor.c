/* SPDX-License-Identifier: Apache-2.0 */
#include "core/dcbor.h"

#include <errno.h>
#include <string.h>

#include "core/utf8.h"

enum {
    DCBOR_HEAD_MAX = 9, /* RFC 8949 3: an initial byte and at most 8 more */
    DCBOR_FALSE = 20,   /* RFC 8949 3.3: simple values */
    DCBOR_TRUE = 21,
};

/* RFC 8949 3.1: major types */
enum major {
    MAJOR_UINT,
    MAJOR_NINT,
    MAJOR_BYTES,
    MAJOR_TEXT,
    MAJOR_ARRAY,
    MAJOR_MAP,
    MAJOR_TAG,
    MAJOR_SIMPLE,
};

/* --- Heads ----------------------------------------------------------------- */

static int bad(struct dcbor_in *in, const char *why)
{
    in->why = why;
    return -EBADMSG;
}

/* RFC 8949 4.2.1: "the shortest form of encoding" */
static size_t shortest_head(uint64_t val)
{
    if (val < 24)
        return 1;
    if (val <= UINT8_MAX)
        return 2;
    if (val <= UINT16_MAX)
        return 3;
    return val <= UINT32_MAX ? 5 : DCBOR_HEAD_MAX;
}

/*
 * Take a head, its length unjudged; a string's bytes are there behind it.  Written out rather than
 * asked of a library: a state has ten thousand heads, and a machine that comes back waits for them.
 */
static int take_head(struct dcbor_in *in, struct dcbor_item *ret_item, size_t *ret_len)
{
    static const enum dcbor_type types[] = {
        [MAJOR_UINT] = DCBOR_UINT, [MAJOR_NINT] = DCBOR_NINT,   [MAJOR_BYTES] = DCBOR_BYTES,
        [MAJOR_TEXT] = DCBOR_TEXT, [MAJOR_ARRAY] = DCBOR_ARRAY, [MAJOR_MAP] = DCBOR_MAP,
    };
    enum major major;
    uint64_t val;
    size_t len = 1;

    if (!in->left)
        return bad(in, "cut short");
    major = in->p[0] >> 5;
    val = in->p[0] & 31;
    if (val > 27 || major == MAJOR_TAG ||
        (major == MAJOR_SIMPLE && val != DCBOR_FALSE && val != DCBOR_TRUE))
        return bad(in, "an item that the format does not have");
    if (val >= 24) {
        len = 1 + ((size_t)1 << (val - 24));
        if (in->left < len)
            return bad(in, "cut short");
        val = 0;
        for (size_t i = 1; i < len; i++)
            val = val << 8 | in->p[i];
    }
    *ret_item = major == MAJOR_SIMPLE
                    ? (struct dcbor_item){.type = DCBOR_BOOL, .val = val == DCBOR_TRUE}
                    : (struct dcbor_item){.type = types[major], .val = val};
    in->p += len;
    in->left -= len;
    *ret_len = len;
    if (major != MAJOR_BYTES && major != MAJOR_TEXT)
        return 0;
    if (val > in->left)
        return bad(in, "cut short");
    ret_item->data = in->p;
    in->p += val;
    in->left -= val;
    return 0;
}

static int judge(struct dcbor_in *in, const struct dcbor_item *item, size_t head_len)
{
    if (head_len != shortest_head(item->val))
        return bad(in, "not the shortest encoding");
    if (item->type == DCBOR_NINT && item->val > INT64_MAX)
        return bad(in, "an integer below -2^63");
    if (item->type == DCBOR_TEXT && !utf8_ok(item->data, item->val))
        return bad(in, "text that is not UTF-8");
    /* Each entry takes at least one byte: a count past the input is a lie. */
    if ((item->type == DCBOR_ARRAY && item->val > in->left) ||
        (item->type == DCBOR_MAP && item->val > in->left / 2))
        return bad(in, "cut short");
    return 0;
}

int dcbor_next(struct dcbor_in *in, struct dcbor_item *ret_item)
{
    struct dcbor_item item;
    size_t head_len;
    int rc = take_head(in, &item, &head_len);

    if (rc >= 0)
        rc = judge(in, &item, head_len);
    if (rc < 0)
        return rc;
    *ret_item = item;
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
    /* RFC 8949 4.2.1: "sorted in the bytewise lexicographic order" */
    if (map->key_len > item.val ||
        (map->key_len == item.val && memcmp(map->key, item.data, item.val) >= 0))
        return bad(in, "keys that are out of order or doubled");
    memcpy(map->key, item.data, item.val);
    map->key[item.val] = 0;
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

int dcbor_pass(struct dcbor_in *in)
{
    uint64_t items = 1;

    while (items) {
        struct dcbor_item item;
        size_t head_len;
        int rc = take_head(in, &item, &head_len);

        if (rc < 0)
            return rc;
        items--;
        if (item.type != DCBOR_ARRAY && item.type != DCBOR_MAP)
            continue;
        /* Twice what is left, at the most, is added to at most that: no overflow. */
        if (item.val > in->left)
            return bad(in, "cut short");
        items += item.type == DCBOR_MAP ? 2 * item.val : item.val;
        if (items > in->left)
            return bad(in, "cut short");
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
    static const uint8_t majors[] = {
        [DCBOR_UINT] = MAJOR_UINT,   [DCBOR_NINT] = MAJOR_NINT,   [DCBOR_BYTES] = MAJOR_BYTES,
        [DCBOR_TEXT] = MAJOR_TEXT,   [DCBOR_ARRAY] = MAJOR_ARRAY, [DCBOR_MAP] = MAJOR_MAP,
        [DCBOR_BOOL] = MAJOR_SIMPLE,
    };
    static const uint8_t infos[] = {[2] = 24, [3] = 25, [5] = 26, [DCBOR_HEAD_MAX] = 27};
    uint8_t head[DCBOR_HEAD_MAX];
    uint8_t info;
    size_t n;

    if (type == DCBOR_BOOL)
        val = val ? DCBOR_TRUE : DCBOR_FALSE;
    n = shortest_head(val);
    info = n == 1 ? (uint8_t)val : infos[n];
    head[0] = (uint8_t)(majors[type] << 5 | info);
    for (size_t i = 1; i < n; i++)
        head[i] = (uint8_t)(val >> 8 * (n - 1 - i));
    append(out, head, n);
}

void dcbor_put_string(struct dcbor_out *out, enum dcbor_type type, const void *data, size_t len)
{
    dcbor_put(out, type, len);
    append(out, data, len);
}
