/* SPDX-License-Identifier: Apache-2.0 */
/* Are state tables what their readers and writers rely on? */
#include <errno.h>
#include <string.h>

#include "core/dcbor.h"
#include "core/state.h"

static int bad_row(const struct state_desc *desc, const struct state_field *f, struct err *err,
                   const char *what)
{
    return err_set(err, -EINVAL, "%s.%s: %s", desc->name, f->name ? f->name : "?", what);
}

static int desc_check(const struct state_desc *desc, unsigned depth, struct err *err);

static size_t int_size(enum state_kind kind)
{
    switch (kind) {
    case STATE_KIND_U8:
    case STATE_KIND_BYTES:
    case STATE_KIND_STR:
    case STATE_KIND_BLOB:
        return 1;
    case STATE_KIND_U16:
        return 2;
    case STATE_KIND_U32:
        return 4;
    case STATE_KIND_U64:
    case STATE_KIND_I64:
        return 8;
    case STATE_KIND_BOOL:
        return sizeof(bool);
    case STATE_KIND_STRUCT:
    case STATE_KIND_LIST:
        break;
    }
    return 0;
}

static int size_check(const struct state_desc *desc, const struct state_field *f, struct err *err)
{
    size_t size = f->kind == STATE_KIND_BLOB ? sizeof(uint8_t *) : f->count * f->elem_size;
    bool counted = f->kind == STATE_KIND_LIST || f->kind == STATE_KIND_BLOB;

    if (!f->count || !f->elem_size)
        return bad_row(desc, f, err, "has no size");
    if (f->offset > desc->size || size > desc->size - f->offset)
        return bad_row(desc, f, err, "lies outside of the struct");
    if (counted && f->count_offset > desc->size - sizeof(uint32_t))
        return bad_row(desc, f, err, "its count lies outside of the struct");
    if (int_size(f->kind) && f->elem_size != int_size(f->kind))
        return bad_row(desc, f, err, "the size of an element is not that of its kind");
    return 0;
}

static int sub_check(const struct state_desc *desc, const struct state_field *f, unsigned depth,
                     struct err *err)
{
    int rc;

    if (int_size(f->kind))
        return f->sub ? bad_row(desc, f, err, "has a table and no use for it") : 0;
    if (!f->sub)
        return bad_row(desc, f, err, "has no table");
    if (!depth)
        return bad_row(desc, f, err, "nested too deep");
    rc = desc_check(f->sub, depth - 1, err);
    if (rc < 0)
        return rc;
    if (f->kind == STATE_KIND_LIST && f->elem_size != f->sub->size)
        return bad_row(desc, f, err, "an entry is not as large as its table says");
    if (f->kind == STATE_KIND_STRUCT && f->elem_size % f->sub->size)
        return bad_row(desc, f, err, "is not a whole number of what its table describes");
    return 0;
}

static int row_check(const struct state_desc *desc, size_t i, unsigned depth, struct err *err)
{
    const struct state_field *f = &desc->fields[i];
    int rc;

    if (!f->name || !dcbor_name_ok(f->name, strlen(f->name)))
        return bad_row(desc, f, err, "not a name");
    for (size_t k = 0; k < i; k++)
        if (!strcmp(desc->fields[k].name, f->name))
            return bad_row(desc, f, err, "declared twice");
    if (!f->since || f->since > desc->version)
        return bad_row(desc, f, err, "since is not one of the table's versions");
    rc = size_check(desc, f, err);
    return rc < 0 ? rc : sub_check(desc, f, depth, err);
}

static int desc_check(const struct state_desc *desc, unsigned depth, struct err *err)
{
    if (!desc->name || !dcbor_name_ok(desc->name, strlen(desc->name)))
        return err_set(err, -EINVAL, "%s: not a name", desc->name ? desc->name : "?");
    if (!desc->version_min || desc->version_min > desc->version)
        return err_set(err, -EINVAL, "%s: version_min %u, version %u", desc->name,
                       desc->version_min, desc->version);
    if (!desc->size)
        return err_set(err, -EINVAL, "%s: describes nothing", desc->name);
    if (desc->nr_fields > STATE_FIELDS_MAX)
        return err_set(err, -EINVAL, "%s: %zu rows, at most %d", desc->name, desc->nr_fields,
                       STATE_FIELDS_MAX);
    for (size_t i = 0; i < desc->nr_fields; i++) {
        int rc = row_check(desc, i, depth, err);

        if (rc < 0)
            return rc;
    }
    return 0;
}

int state_desc_check(const struct state_desc *desc, struct err *err)
{
    return desc_check(desc, STATE_DEPTH_MAX, err);
}
