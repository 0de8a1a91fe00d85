/* SPDX-License-Identifier: Apache-2.0 */
/* State tables to bytes and back.  Format: docs/state-format.md. */
#include "core/state.h"

#include <stdarg.h>

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/dcbor.h"
#include "core/log.h"
#include "core/utf8.h"

_Static_assert((int)STATE_NAME_MAX == (int)DCBOR_NAME_MAX,
               "docs/state-format.md 2: names are map keys");

/* --- Paths ---------------------------------------------------------------- */

/* Where in an object we are; lives on the stack, printed only on failure. */
struct path {
    const struct path *up;
    const char *name; /* NULL: an index */
    uint64_t index;
};

static size_t path_print(const struct path *path, char *buf, size_t cap)
{
    size_t n = path->up ? path_print(path->up, buf, cap) : 0;
    int m;

    if (path->name)
        m = snprintf(buf + n, cap - n, "%s%s", path->up ? "." : "", path->name);
    else
        m = snprintf(buf + n, cap - n, "[%llu]", (unsigned long long)path->index);
    if (m < 0)
        return n;
    return n + (size_t)m < cap ? n + (size_t)m : cap - 1;
}

static int fail(const struct path *path, struct err *err, int code, const char *fmt, ...)
    PRINTF(4, 5);

static int fail(const struct path *path, struct err *err, int code, const char *fmt, ...)
{
    char where[ERR_MSG_SIZE], what[ERR_MSG_SIZE];
    va_list ap;

    if (!err)
        return code;
    (void)path_print(path, where, sizeof(where));
    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    return err_set(err, code, "%s: %s", where, what);
}

/* --- Members -------------------------------------------------------------- */

static const uint8_t *member(const void *obj, size_t offset)
{
    return (const uint8_t *)obj + offset;
}

static uint8_t *member_mut(void *obj, size_t offset)
{
    return (uint8_t *)obj + offset;
}

static uint32_t get_count(const struct state_field *f, const void *obj)
{
    uint32_t n;

    memcpy(&n, member(obj, f->count_offset), sizeof(n));
    return n;
}

static void set_count(const struct state_field *f, void *obj, uint32_t n)
{
    memcpy(member_mut(obj, f->count_offset), &n, sizeof(n));
}

static uint8_t *get_blob(const struct state_field *f, const void *obj)
{
    uint8_t *p;

    memcpy(&p, member(obj, f->offset), sizeof(p));
    return p;
}

static void set_blob(const struct state_field *f, void *obj, uint8_t *p)
{
    memcpy(member_mut(obj, f->offset), &p, sizeof(p));
}

/* Objects behind a STRUCT or LIST row, used or not. */
static size_t nr_elems(const struct state_field *f)
{
    if (f->kind == STATE_KIND_STRUCT)
        return f->elem_size / f->sub->size;
    return f->kind == STATE_KIND_LIST ? f->count : 0;
}

static size_t elem_offset(const struct state_field *f, size_t i)
{
    return f->offset + i * (f->kind == STATE_KIND_STRUCT ? f->sub->size : f->elem_size);
}

/* --- Saving --------------------------------------------------------------- */

/* Rows in the order of their keys (RFC 8949 4.2.1), those of one map only; returns how many. */
static size_t sort_rows(const struct state_desc *desc, bool optional, uint8_t *order)
{
    size_t n = 0;

    assert(desc->nr_fields <= STATE_FIELDS_MAX);
    for (size_t i = 0; i < desc->nr_fields; i++) {
        size_t k;

        if (desc->fields[i].optional != optional)
            continue;
        for (k = n; k > 0; k--) {
            if (dcbor_name_cmp(desc->fields[order[k - 1]].name, desc->fields[i].name) <= 0)
                break;
            order[k] = order[k - 1];
        }
        order[k] = (uint8_t)i;
        n++;
    }
    return n;
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "an integer's low bytes come first");

static void put_key(struct dcbor_out *out, const char *key)
{
    dcbor_put_string(out, DCBOR_TEXT, key, strlen(key));
}

static void put_int(struct dcbor_out *out, enum state_kind kind, const uint8_t *src, size_t size)
{
    uint64_t v = 0;

    if (kind == STATE_KIND_BOOL) {
        dcbor_put(out, DCBOR_BOOL, *src);
        return;
    }
    memcpy(&v, src, size);
    if (kind == STATE_KIND_I64 && v > INT64_MAX)
        dcbor_put(out, DCBOR_NINT, ~v);
    else
        dcbor_put(out, DCBOR_UINT, v);
}

static int save_object(struct dcbor_out *out, const struct state_desc *desc, const char *id,
                       const void *obj, const struct path *path, struct err *err);

static int save_elems(struct dcbor_out *out, const struct state_field *f, const void *obj,
                      const struct path *path, struct err *err)
{
    bool array = f->kind == STATE_KIND_LIST || nr_elems(f) != 1;
    size_t n = f->kind == STATE_KIND_LIST ? get_count(f, obj) : nr_elems(f);
    int rc = 0;

    if (n > nr_elems(f))
        return fail(path, err, -EINVAL, "%zu entries, room for %zu", n, nr_elems(f));
    if (!array)
        return save_object(out, f->sub, NULL, member(obj, f->offset), path, err);
    dcbor_put(out, DCBOR_ARRAY, n);
    for (size_t i = 0; i < n && !rc; i++) {
        const struct path here = {.up = path, .index = i};

        rc = save_object(out, f->sub, NULL, member(obj, elem_offset(f, i)), &here, err);
    }
    return rc;
}

static int save_text(struct dcbor_out *out, const struct state_field *f, const void *obj,
                     const struct path *path, struct err *err)
{
    const char *s = (const char *)member(obj, f->offset);
    size_t n = strnlen(s, f->count);

    if (n == f->count || !utf8_ok(s, n))
        return fail(path, err, -EINVAL, "not a terminated UTF-8 string");
    dcbor_put_string(out, DCBOR_TEXT, s, n);
    return 0;
}

static int save_blob(struct dcbor_out *out, const struct state_field *f, const void *obj,
                     const struct path *path, struct err *err)
{
    const uint8_t *data = get_blob(f, obj);
    uint32_t n = get_count(f, obj);

    if (n > f->max || (n && !data))
        return fail(path, err, -EINVAL, "%u bytes, at most %u", n, f->max);
    dcbor_put_string(out, DCBOR_BYTES, data, n);
    return 0;
}

static int save_field(struct dcbor_out *out, const struct state_field *f, const void *obj,
                      const struct path *path, struct err *err)
{
    switch (f->kind) {
    case STATE_KIND_STRUCT:
    case STATE_KIND_LIST:
        return save_elems(out, f, obj, path, err);
    case STATE_KIND_STR:
        return save_text(out, f, obj, path, err);
    case STATE_KIND_BLOB:
        return save_blob(out, f, obj, path, err);
    case STATE_KIND_BYTES:
        dcbor_put_string(out, DCBOR_BYTES, member(obj, f->offset), f->count);
        return 0;
    case STATE_KIND_U8:
    case STATE_KIND_U16:
    case STATE_KIND_U32:
    case STATE_KIND_U64:
    case STATE_KIND_I64:
    case STATE_KIND_BOOL:
        break;
    }
    if (f->count != 1)
        dcbor_put(out, DCBOR_ARRAY, f->count);
    for (uint32_t i = 0; i < f->count; i++)
        put_int(out, f->kind, member(obj, f->offset + i * f->elem_size), f->elem_size);
    return 0;
}

static int save_fields(struct dcbor_out *out, const struct state_desc *desc, bool optional,
                       const void *obj, const struct path *path, struct err *err)
{
    uint8_t order[STATE_FIELDS_MAX];
    size_t n = sort_rows(desc, optional, order);
    int rc = 0;

    if (optional && !n)
        return 0;
    put_key(out, optional ? "opt" : "fields");
    dcbor_put(out, DCBOR_MAP, n);
    for (size_t i = 0; i < n && !rc; i++) {
        const struct state_field *f = &desc->fields[order[i]];
        const struct path here = {.up = path, .name = f->name};

        put_key(out, f->name);
        rc = save_field(out, f, obj, &here, err);
    }
    return rc;
}

static bool has_optional(const struct state_desc *desc)
{
    for (size_t i = 0; i < desc->nr_fields; i++)
        if (desc->fields[i].optional)
            return true;
    return false;
}

/* With an @id the object is a section; keys as in docs/state-format.md 2. */
static int save_object(struct dcbor_out *out, const struct state_desc *desc, const char *id,
                       const void *obj, const struct path *path, struct err *err)
{
    int rc;

    dcbor_put(out, DCBOR_MAP, (id ? 4u : 2u) + has_optional(desc));
    if (id) {
        put_key(out, "id");
        put_key(out, id);
    }
    rc = save_fields(out, desc, true, obj, path, err);
    if (rc < 0)
        return rc;
    if (id) {
        put_key(out, "type");
        put_key(out, desc->name);
    }
    rc = save_fields(out, desc, false, obj, path, err);
    if (rc < 0)
        return rc;
    put_key(out, "version");
    dcbor_put(out, DCBOR_UINT, desc->version);
    return 0;
}

static bool id_ok(const char *id, size_t len)
{
    if (!len || len > STATE_NAME_MAX || !utf8_ok(id, len))
        return false;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)id[i] < 0x20 || id[i] == 0x7f)
            return false;
    return true;
}

int state_save(const struct state_desc *desc, const char *id, const void *obj,
               struct state_buf *buf, struct err *err)
{
    const struct path path = {.name = id};
    struct dcbor_out out = {
        .data = buf->data,
        .len = buf->len,
        .cap = buf->cap,
        .max = buf->len + STATE_SECTION_MAX,
    };
    int rc;

    if (!id_ok(id, strlen(id)))
        return err_set(err, -EINVAL, "%s: not an id", id);
    rc = save_object(&out, desc, id, obj, &path, err);
    buf->data = out.data;
    buf->cap = out.cap;
    if (rc < 0)
        return rc;
    if (out.rc == -E2BIG)
        return fail(&path, err, out.rc, "state is over %d bytes", STATE_SECTION_MAX);
    if (out.rc < 0)
        return fail(&path, err, out.rc, "out of memory");
    buf->len = out.len;
    return 0;
}

void state_buf_release(struct state_buf *buf)
{
    free(buf->data);
    *buf = (struct state_buf){0};
}

int state_buf_append(struct state_buf *buf, const uint8_t *data, size_t len, struct err *err)
{
    if (len > buf->cap - buf->len) {
        size_t cap = 2 * buf->cap > buf->len + len ? 2 * buf->cap : buf->len + len;
        uint8_t *p = realloc(buf->data, cap);

        if (!p)
            return err_set(err, -ENOMEM, "no memory for %zu bytes of state", cap);
        buf->data = p;
        buf->cap = cap;
    }
    if (len)
        memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    return 0;
}

/* --- Parts of an object --------------------------------------------------- */

enum {
    /* A section, its fields; for each level a list, an object, its fields; an array. */
    STATE_CBOR_DEPTH = 2 + 3 * STATE_DEPTH_MAX + 1,
};

/* Where the parts of an object lie. */
struct parts {
    struct dcbor_in fields; /* p is NULL where there are none */
    struct dcbor_in opt;    /* likewise */
    uint16_t version;
    char id[STATE_NAME_MAX + 1];   /* sections only */
    char type[STATE_NAME_MAX + 1]; /* sections only */
};

/* A loader: where we read, and whom we tell. */
struct load {
    struct dcbor_in in;
    bool staging; /* what take_object() passes over is read next, and checked then */
    struct err *err;
};

static int load_fail(const struct load *l, const struct path *path)
{
    return fail(path, l->err, -EBADMSG, "%s", l->in.why);
}

static int take_map(struct load *l, const struct path *path, struct dcbor_in *ret_at)
{
    struct dcbor_in at = l->in;
    struct dcbor_item item;

    if (dcbor_expect(&l->in, DCBOR_MAP, &item) < 0)
        return load_fail(l, path);
    l->in = at;
    if ((l->staging ? dcbor_pass(&l->in) : dcbor_skip(&l->in, STATE_CBOR_DEPTH)) < 0)
        return load_fail(l, path);
    at.left -= l->in.left;
    *ret_at = at;
    return 0;
}

static int take_version(struct load *l, const struct path *path, uint16_t *ret_version)
{
    struct dcbor_item item;

    if (dcbor_expect(&l->in, DCBOR_UINT, &item) < 0)
        return load_fail(l, path);
    if (!item.val || item.val > UINT16_MAX)
        return fail(path, l->err, -EBADMSG, "not from 1 to 65535");
    *ret_version = (uint16_t)item.val;
    return 0;
}

static int take_name(struct load *l, const struct path *path, bool (*ok)(const char *, size_t),
                     char *ret_name)
{
    struct dcbor_item item;

    if (dcbor_expect(&l->in, DCBOR_TEXT, &item) < 0)
        return load_fail(l, path);
    if (!ok((const char *)item.data, item.val))
        return fail(path, l->err, -EBADMSG, "not a name");
    memcpy(ret_name, item.data, item.val);
    ret_name[item.val] = 0;
    return 0;
}

static int take_part(struct load *l, const struct path *path, bool section, struct parts *parts)
{
    if (section && !strcmp(path->name, "id"))
        return take_name(l, path, id_ok, parts->id);
    if (section && !strcmp(path->name, "type"))
        return take_name(l, path, dcbor_name_ok, parts->type);
    if (!strcmp(path->name, "opt"))
        return take_map(l, path, &parts->opt);
    if (!strcmp(path->name, "fields"))
        return take_map(l, path, &parts->fields);
    if (!strcmp(path->name, "version"))
        return take_version(l, path, &parts->version);
    return fail(path, l->err, -EBADMSG, "an object has no such key");
}

/* Take a whole object and say where its parts are; not staging, check the encoding of all of it. */
static int take_object(struct load *l, const struct path *up, bool section, struct parts *ret_parts)
{
    struct path path = *up;
    struct dcbor_map map;
    int rc;

    *ret_parts = (struct parts){0};
    if (dcbor_map_begin(&l->in, &map) < 0)
        return load_fail(l, &path);
    while ((rc = dcbor_map_next(&l->in, &map)) > 0) {
        const struct path here = {.up = &path, .name = map.key};

        rc = take_part(l, &here, section, ret_parts);
        if (rc < 0)
            return rc;
        if (section && ret_parts->id[0])
            path.name = ret_parts->id;
    }
    if (rc < 0)
        return load_fail(l, &path);
    if (section && !ret_parts->id[0])
        return fail(&path, l->err, -EBADMSG, "no id");
    if (section && !ret_parts->type[0])
        return fail(&path, l->err, -EBADMSG, "no type");
    if (!ret_parts->fields.p)
        return fail(&path, l->err, -EBADMSG, "no fields");
    if (!ret_parts->version)
        return fail(&path, l->err, -EBADMSG, "no version");
    return 0;
}

int state_section_next(const uint8_t **data, size_t *len, struct state_section *ret_section,
                       struct err *err)
{
    const struct path path = {.name = "section"};
    struct load l = {
        .in = {.p = *data, .left = *len},
          .err = err
    };
    struct parts parts;
    int rc;

    if (!*len)
        return 0;
    rc = take_object(&l, &path, true, &parts);
    if (rc < 0)
        return rc;
    if (*len - l.in.left > STATE_SECTION_MAX)
        return err_set(err, -E2BIG, "%s: state is over %d bytes", parts.id, STATE_SECTION_MAX);
    *ret_section = (struct state_section){
        .version = parts.version,
        .data = *data,
        .len = *len - l.in.left,
    };
    memcpy(ret_section->id, parts.id, sizeof(parts.id));
    memcpy(ret_section->type, parts.type, sizeof(parts.type));
    *data = l.in.p;
    *len = l.in.left;
    return 1;
}

/* --- Loading -------------------------------------------------------------- */

static int load_object(struct load *l, const struct state_desc *desc, void *obj, const void *live,
                       const struct path *path);

static int load_int(struct load *l, const struct state_field *f, uint8_t *dst,
                    const struct path *path)
{
    /* clang-format off */
    static const uint64_t max[] = {
        [STATE_KIND_U8] = UINT8_MAX,   [STATE_KIND_U16] = UINT16_MAX, [STATE_KIND_U32] = UINT32_MAX,
        [STATE_KIND_U64] = UINT64_MAX, [STATE_KIND_I64] = INT64_MAX,  [STATE_KIND_BOOL] = 1,
    };
    /* clang-format on */
    struct dcbor_item item;
    uint64_t v;

    if (dcbor_next(&l->in, &item) < 0)
        return load_fail(l, path);
    if (f->kind == STATE_KIND_BOOL) {
        if (item.type != DCBOR_BOOL)
            return fail(path, l->err, -EBADMSG, "not false or true");
    } else if (item.type != DCBOR_UINT && (item.type != DCBOR_NINT || f->kind != STATE_KIND_I64)) {
        return fail(path, l->err, -EBADMSG, "not an integer of this kind");
    }
    if (item.val > max[f->kind])
        return fail(path, l->err, -EBADMSG, "%llu is over %llu", (unsigned long long)item.val,
                    (unsigned long long)max[f->kind]);
    v = item.type == DCBOR_NINT ? ~item.val : item.val;
    memcpy(dst, &v, f->elem_size);
    return 0;
}

static int load_ints(struct load *l, const struct state_field *f, void *obj,
                     const struct path *path)
{
    struct dcbor_item item;

    if (f->count == 1)
        return load_int(l, f, member_mut(obj, f->offset), path);
    if (dcbor_expect(&l->in, DCBOR_ARRAY, &item) < 0)
        return load_fail(l, path);
    if (item.val != f->count)
        return fail(path, l->err, -EBADMSG, "%llu elements, want %u", (unsigned long long)item.val,
                    f->count);
    for (uint32_t i = 0; i < f->count; i++) {
        const struct path here = {.up = path, .index = i};
        int rc = load_int(l, f, member_mut(obj, f->offset + i * f->elem_size), &here);

        if (rc < 0)
            return rc;
    }
    return 0;
}

static int load_elems(struct load *l, const struct state_field *f, void *obj, const void *live,
                      const struct path *path)
{
    bool list = f->kind == STATE_KIND_LIST;
    struct dcbor_item item;

    if (!list && nr_elems(f) == 1)
        return load_object(l, f->sub, member_mut(obj, f->offset), member(live, f->offset), path);
    if (dcbor_expect(&l->in, DCBOR_ARRAY, &item) < 0)
        return load_fail(l, path);
    if (item.val > nr_elems(f) || (!list && item.val != nr_elems(f)))
        return fail(path, l->err, -EBADMSG, "%llu entries, want %s%zu",
                    (unsigned long long)item.val, list ? "at most " : "", nr_elems(f));
    for (size_t i = 0; i < item.val; i++) {
        const struct path here = {.up = path, .index = i};
        int rc = load_object(l, f->sub, member_mut(obj, elem_offset(f, i)),
                             member(live, elem_offset(f, i)), &here);

        if (rc < 0)
            return rc;
    }
    if (list)
        set_count(f, obj, (uint32_t)item.val);
    return 0;
}

static int load_string(struct load *l, const struct state_field *f, void *obj,
                       const struct path *path)
{
    bool text = f->kind == STATE_KIND_STR;
    struct dcbor_item item;

    if (dcbor_expect(&l->in, text ? DCBOR_TEXT : DCBOR_BYTES, &item) < 0)
        return load_fail(l, path);
    if (text && item.val >= f->count)
        return fail(path, l->err, -EBADMSG, "%llu bytes, want at most %u",
                    (unsigned long long)item.val, f->count - 1);
    if (!text && item.val != f->count)
        return fail(path, l->err, -EBADMSG, "%llu bytes, want %u", (unsigned long long)item.val,
                    f->count);
    memcpy(member_mut(obj, f->offset), item.data, item.val);
    return 0;
}

static int load_blob(struct load *l, const struct state_field *f, void *obj,
                     const struct path *path)
{
    struct dcbor_item item;
    uint8_t *copy;

    if (dcbor_expect(&l->in, DCBOR_BYTES, &item) < 0)
        return load_fail(l, path);
    if (item.val > f->max)
        return fail(path, l->err, -EBADMSG, "%llu bytes, want at most %u",
                    (unsigned long long)item.val, f->max);
    if (!item.val)
        return 0;
    copy = malloc(item.val);
    if (!copy)
        return fail(path, l->err, -ENOMEM, "out of memory");
    memcpy(copy, item.data, item.val);
    set_blob(f, obj, copy);
    set_count(f, obj, (uint32_t)item.val);
    return 0;
}

static int load_field(struct load *l, const struct state_field *f, void *obj, const void *live,
                      const struct path *path)
{
    switch (f->kind) {
    case STATE_KIND_STRUCT:
    case STATE_KIND_LIST:
        return load_elems(l, f, obj, live, path);
    case STATE_KIND_STR:
    case STATE_KIND_BYTES:
        return load_string(l, f, obj, path);
    case STATE_KIND_BLOB:
        return load_blob(l, f, obj, path);
    case STATE_KIND_U8:
    case STATE_KIND_U16:
    case STATE_KIND_U32:
    case STATE_KIND_U64:
    case STATE_KIND_I64:
    case STATE_KIND_BOOL:
        break;
    }
    return load_ints(l, f, obj, path);
}

/* The row of a key, or nr_fields. */
static size_t find_row(const struct state_desc *desc, bool optional, const char *key)
{
    size_t i;

    for (i = 0; i < desc->nr_fields; i++)
        if (desc->fields[i].optional == optional && !strcmp(desc->fields[i].name, key))
            break;
    return i;
}

/* An optional field that this build does not know: kept out, with a note. */
static int skip_unknown(struct load *l, const struct path *path)
{
    char where[ERR_MSG_SIZE];

    (void)path_print(path, where, sizeof(where));
    log_debug("state: %s: ignoring an optional field that is not known", where);
    return dcbor_skip(&l->in, STATE_CBOR_DEPTH) < 0 ? load_fail(l, path) : 0;
}

/* What is being filled. */
struct target {
    const struct state_desc *desc;
    void *obj;
    const void *live;
    uint16_t version; /* that the bytes say */
    bool seen[STATE_FIELDS_MAX];
};

static int load_entry(struct load *l, struct target *t, bool optional, const struct path *path)
{
    size_t i = find_row(t->desc, optional, path->name);

    if (i == t->desc->nr_fields && optional)
        return skip_unknown(l, path);
    if (i == t->desc->nr_fields)
        return fail(path, l->err, -ENOTSUP, "a field that this build does not know");
    if (t->desc->fields[i].since > t->version)
        return fail(path, l->err, -EBADMSG, "version %u does not have it", t->version);
    t->seen[i] = true;
    return load_field(l, &t->desc->fields[i], t->obj, t->live, path);
}

static int load_fields(struct load *l, struct target *t, bool optional, const struct path *path)
{
    struct dcbor_map map;
    int rc;

    if (dcbor_map_begin(&l->in, &map) < 0)
        return load_fail(l, path);
    if (optional && !map.left)
        return fail(path, l->err, -EBADMSG, "an empty opt");
    while ((rc = dcbor_map_next(&l->in, &map)) > 0) {
        const struct path here = {.up = path, .name = map.key};

        rc = load_entry(l, t, optional, &here);
        if (rc < 0)
            return rc;
    }
    return rc < 0 ? load_fail(l, path) : 0;
}

static int check_object(const struct load *l, const struct target *t, const struct path *path)
{
    char where[ERR_MSG_SIZE];
    struct err err = {0};
    int rc = t->desc->check ? t->desc->check(t->obj, t->live, &err) : 0;

    if (rc >= 0)
        return 0;
    (void)path_print(path, where, sizeof(where));
    return err_set(l->err, rc, "%s.%s", where, err.msg);
}

/* The object is cleared; its parts have been taken. */
static int load_parts(struct load *l, struct target *t, const struct parts *parts,
                      const struct path *path)
{
    const struct state_desc *desc = t->desc;
    int rc;

    if (parts->version > desc->version || parts->version < desc->version_min)
        return fail(path, l->err, -ENOTSUP, "%s version %u, this build reads %u to %u", desc->name,
                    parts->version, desc->version_min, desc->version);
    l->in = parts->fields;
    rc = load_fields(l, t, false, path);
    if (rc >= 0 && parts->opt.p) {
        l->in = parts->opt;
        rc = load_fields(l, t, true, path);
    }
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < desc->nr_fields; i++) {
        const struct path here = {.up = path, .name = desc->fields[i].name};

        if (!t->seen[i] && !desc->fields[i].optional && desc->fields[i].since <= parts->version)
            return fail(&here, l->err, -EBADMSG, "missing");
    }
    if (desc->defaults && parts->version < desc->version)
        desc->defaults(t->obj, parts->version);
    return check_object(l, t, path);
}

static int load_object(struct load *l, const struct state_desc *desc, void *obj, const void *live,
                       const struct path *path)
{
    struct target t = {.desc = desc, .obj = obj, .live = live};
    struct dcbor_in after;
    struct parts parts;
    int rc;

    rc = take_object(l, path, false, &parts);
    if (rc < 0)
        return rc;
    after = l->in;
    t.version = parts.version;
    rc = load_parts(l, &t, &parts, path);
    l->in = after;
    return rc;
}

/* Zero the members that travel; blobs are forgotten, not freed. */
static void clear_object(const struct state_desc *desc, void *obj)
{
    for (size_t i = 0; i < desc->nr_fields; i++) {
        const struct state_field *f = &desc->fields[i];

        for (size_t k = 0; k < nr_elems(f); k++)
            clear_object(f->sub, member_mut(obj, elem_offset(f, k)));
        if (f->kind == STATE_KIND_LIST || f->kind == STATE_KIND_BLOB)
            set_count(f, obj, 0);
        if (f->kind == STATE_KIND_BLOB)
            set_blob(f, obj, NULL);
        else if (!nr_elems(f))
            memset(member_mut(obj, f->offset), 0, f->count * f->elem_size);
    }
}

int state_stage(const struct state_section *sec, const struct state_desc *desc, const void *live,
                void **ret_scratch, struct err *err)
{
    const struct path path = {.name = sec->id};
    struct load l = {
        .in = {.p = sec->data, .left = sec->len},
          .staging = true, .err = err
    };
    struct target t = {.desc = desc, .live = live};
    struct parts parts;
    int rc;

    rc = take_object(&l, &path, true, &parts);
    if (rc < 0)
        return rc;
    if (strcmp(parts.type, desc->name) != 0)
        return fail(&path, err, -ENOTSUP, "state of a %s, want that of a %s", parts.type,
                    desc->name);
    t.version = parts.version;
    t.obj = malloc(desc->size);
    if (!t.obj)
        return fail(&path, err, -ENOMEM, "out of memory");
    memcpy(t.obj, live, desc->size);
    clear_object(desc, t.obj);
    rc = load_parts(&l, &t, &parts, &path);
    if (rc < 0) {
        state_discard(desc, t.obj);
        return rc;
    }
    *ret_scratch = t.obj;
    return 0;
}

/* --- Staged objects ------------------------------------------------------- */

static void move_object(const struct state_desc *desc, void *scratch, void *live)
{
    for (size_t i = 0; i < desc->nr_fields; i++) {
        const struct state_field *f = &desc->fields[i];

        for (size_t k = 0; k < nr_elems(f); k++)
            move_object(f->sub, member_mut(scratch, elem_offset(f, k)),
                        member_mut(live, elem_offset(f, k)));
        if (f->kind == STATE_KIND_LIST || f->kind == STATE_KIND_BLOB)
            set_count(f, live, get_count(f, scratch));
        if (f->kind == STATE_KIND_BLOB) {
            free(get_blob(f, live));
            set_blob(f, live, get_blob(f, scratch));
            set_blob(f, scratch, NULL);
        } else if (!nr_elems(f)) {
            memcpy(member_mut(live, f->offset), member(scratch, f->offset),
                   f->count * f->elem_size);
        }
    }
}

void state_commit(const struct state_desc *desc, void *scratch, void *live)
{
    move_object(desc, scratch, live);
    free(scratch);
}

void state_release(const struct state_desc *desc, void *obj)
{
    for (size_t i = 0; i < desc->nr_fields; i++) {
        const struct state_field *f = &desc->fields[i];

        for (size_t k = 0; k < nr_elems(f); k++)
            state_release(f->sub, member_mut(obj, elem_offset(f, k)));
        if (f->kind != STATE_KIND_BLOB)
            continue;
        free(get_blob(f, obj));
        set_blob(f, obj, NULL);
        set_count(f, obj, 0);
    }
}

void state_discard(const struct state_desc *desc, void *scratch)
{
    if (!scratch)
        return;
    state_release(desc, scratch);
    free(scratch);
}
