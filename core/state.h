/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State tables: what of an object travels, said once, used to save, to load,
 * to print and to document.  Format: docs/state-format.md.
 *
 * A section is one object's state: a CBOR map (RFC 8949, core deterministic
 * encoding) with the object's id, the table's name and version, a map of
 * required fields and a map of optional ones.  Loading is in two steps, so
 * that a whole machine is checked before any part of it changes:
 * state_stage() parses and checks into a scratch copy, state_commit() copies
 * the fields of the scratch copy into the live object and cannot fail.
 */
#ifndef CORE_STATE_H
#define CORE_STATE_H

#include "core/err.h"

enum {
    STATE_FIELDS_MAX = 96,        /* rows of one table */
    STATE_NAME_MAX = 63,          /* bytes of a field, section or device name */
    STATE_DEPTH_MAX = 6,          /* nesting of STRUCT and LIST */
    STATE_SECTION_MAX = 16 << 20, /* bytes of one section */
    STATE_SECTIONS_MAX = 4096,    /* sections of one machine */
};

enum state_kind {
    STATE_KIND_U8,
    STATE_KIND_U16,
    STATE_KIND_U32,
    STATE_KIND_U64,
    STATE_KIND_I64,
    STATE_KIND_BOOL,
    STATE_KIND_BYTES,  /* uint8_t[N]: a byte string of exactly N */
    STATE_KIND_STR,    /* char[N]: a text string of at most N - 1 bytes */
    STATE_KIND_STRUCT, /* one embedded struct with its own table */
    STATE_KIND_LIST,   /* array of structs, the used length in a uint32_t member */
    STATE_KIND_BLOB,   /* uint8_t *, owned by the object (malloc), length in a uint32_t member */
};

struct state_desc;

struct state_field {
    const char *name; /* the member's name: the key on the wire, never reused */
    enum state_kind kind;
    uint16_t since;               /* first version of the table that has it */
    bool optional;                /* a reader that does not know it may skip it */
    uint32_t count;               /* elements of an array of integers, BYTES, STR, LIST; else 1 */
    uint32_t max;                 /* BLOB: most bytes accepted */
    size_t offset;                /* of the member */
    size_t elem_size;             /* of one element */
    size_t count_offset;          /* LIST, BLOB: of the uint32_t that counts */
    const struct state_desc *sub; /* STRUCT, LIST */
};

struct state_desc {
    const char *name;     /* e.g. "cmos" */
    uint16_t version;     /* written */
    uint16_t version_min; /* oldest still read */
    size_t size;          /* of the struct described */
    const struct state_field *fields;
    size_t nr_fields;
    /*
     * Give members that an older version did not have their value; called
     * after the rest was read.  @version is what the bytes said, below
     * version.  May be NULL: they are zero then.
     */
    void (*defaults)(void *obj, uint16_t version);
    /*
     * Refuse a decoded object that no sequence of guest accesses could have
     * produced.  Sees the scratch copy and, read-only, the live object that
     * it is meant for (its configuration may be compared); touches neither.
     * Its message starts with the member's name ("index: 200 is past 127");
     * where the object is comes in front of it.  May be NULL.
     */
    int (*check)(const void *scratch, const void *live, struct err *err);
};

/* clang-format off */
#define STATE_CTYPE_U8   uint8_t
#define STATE_CTYPE_U16  uint16_t
#define STATE_CTYPE_U32  uint32_t
#define STATE_CTYPE_U64  uint64_t
#define STATE_CTYPE_I64  int64_t
#define STATE_CTYPE_BOOL bool
#define STATE_CTYPE_BYTES uint8_t
#define STATE_CTYPE_STR  char

#define STATE_SAME_(T, m, ctype)                                                            \
    (0 * sizeof(char[__builtin_types_compatible_p(__typeof__(((T *)0)->m), ctype) ||        \
                     __builtin_types_compatible_p(__typeof__(((T *)0)->m),                  \
                         ctype[sizeof(((T *)0)->m) / sizeof(ctype)]) ? 1 : -1]))

#define STATE_ROW_(T, since_, kind_, m, opt_)                                               \
    {                                                                                       \
        .name = #m, .kind = STATE_KIND_##kind_, .since = (since_), .optional = (opt_),      \
        .count = sizeof(((T *)0)->m) / sizeof(STATE_CTYPE_##kind_),                         \
        .offset = offsetof(T, m) + STATE_SAME_(T, m, STATE_CTYPE_##kind_),                  \
        .elem_size = sizeof(STATE_CTYPE_##kind_),                                           \
    }

/* One row.  It compiles only if the member is a `kind`, or an array of them. */
#define STATE(T, since_, kind_, m)     STATE_ROW_(T, since_, kind_, m, false)
#define STATE_OPT(T, since_, kind_, m) STATE_ROW_(T, since_, kind_, m, true)

/* An embedded struct, or a fixed array of two or more, all of which travel. */
#define STATE_STRUCT(T, since_, desc_, m)                                                   \
    {                                                                                       \
        .name = #m, .kind = STATE_KIND_STRUCT, .since = (since_), .count = 1,               \
        .offset = offsetof(T, m), .elem_size = sizeof(((T *)0)->m), .sub = (desc_),         \
    }

/* An array of structs of which the first @nr_ (a uint32_t member) travel. */
#define STATE_LIST(T, since_, desc_, m, nr_)                                                \
    {                                                                                       \
        .name = #m, .kind = STATE_KIND_LIST, .since = (since_),                             \
        .count = sizeof(((T *)0)->m) / sizeof(((T *)0)->m[0]),                              \
        .offset = offsetof(T, m), .elem_size = sizeof(((T *)0)->m[0]),                      \
        .count_offset = offsetof(T, nr_) + STATE_SAME_(T, nr_, uint32_t), .sub = (desc_),   \
    }

/* Bytes on the heap, at most @max_, counted by @len_ (a uint32_t member). */
#define STATE_BLOB(T, since_, m, len_, max_)                                                \
    {                                                                                       \
        .name = #m, .kind = STATE_KIND_BLOB, .since = (since_), .count = 1, .max = (max_),  \
        .offset = offsetof(T, m) + STATE_SAME_(T, m, uint8_t *), .elem_size = 1,            \
        .count_offset = offsetof(T, len_) + STATE_SAME_(T, len_, uint32_t),                 \
    }
/* clang-format on */

/**
 * state_desc_check() - whether a table is sane: names, kinds, versions, sizes, depth.
 *
 * For the tests of whoever declares a table; state_save() asserts some of it.
 *
 * Return: 0; -EINVAL, with the row in @err.
 * Threads: any.
 */
CHECKED int state_desc_check(const struct state_desc *desc, struct err *err);

/* A growing buffer of encoded bytes; zero-initialised is empty. */
struct state_buf {
    uint8_t *data; /* owned; state_buf_release() */
    size_t len;
    size_t cap;
};

/**
 * state_buf_release() - free the bytes; @buf is empty afterwards.
 *
 * Threads: any, one at a time.
 */
void state_buf_release(struct state_buf *buf);

/**
 * state_buf_append() - add bytes to the end.
 * @data: copied.
 *
 * Return: 0; -ENOMEM, with @buf unchanged.
 * Threads: any, one at a time.
 */
CHECKED int state_buf_append(struct state_buf *buf, const uint8_t *data, size_t len,
                             struct err *err);

/**
 * state_save() - append obj's section to a buffer.
 * @desc: table; static.
 * @id:   the object's name in the machine, e.g. "_disk0"; at most STATE_NAME_MAX bytes.
 * @obj:  a struct of @desc->size bytes; only read.
 * @buf:  grows; unchanged on failure.
 *
 * Equal objects give equal bytes.
 *
 * Return: 0; -ENOMEM; -E2BIG past STATE_SECTION_MAX; -EINVAL for an obj that
 * breaks its own table (a count past its array).
 * Threads: whoever may read obj: the vCPUs are stopped and the device is quiet.
 */
CHECKED int state_save(const struct state_desc *desc, const char *id, const void *obj,
                       struct state_buf *buf, struct err *err);

/* Who takes sections as they come, each whole; borrowed for the call. */
struct state_sink {
    CHECKED int (*put)(void *arg, const uint8_t *data, size_t len, struct err *err);
    void *arg;
};

/* Where a section lies and what it says of itself; strings are copies. */
struct state_section {
    char id[STATE_NAME_MAX + 1];
    char type[STATE_NAME_MAX + 1];
    uint16_t version;
    const uint8_t *data; /* borrowed: the whole section */
    size_t len;
};

/**
 * state_section_next() - take the next section off a run of bytes.
 * @data, @len: hostile bytes; advanced past the section.
 *
 * Return: 1 and *@ret_section; 0 at the end of the bytes; -EBADMSG; -E2BIG.
 * Threads: any.
 */
CHECKED int state_section_next(const uint8_t **data, size_t *len, struct state_section *ret_section,
                               struct err *err);

/**
 * state_stage() - decode and check a section without touching the live object.
 * @sec:  from state_section_next().
 * @desc: must bear the section's type.
 * @live: the object that it will be committed to; only read.
 * @ret_scratch: a copy of @live with the fields replaced; owned by the caller,
 *               to be given to state_commit() or state_discard().
 *
 * Return: 0; -ENOTSUP for a type, version or required field that this build
 * does not know; -EBADMSG for bytes that break the format; -ENOMEM; or what
 * desc->check returned.  @err names the section's id and the field
 * ("_disk0.queues[2].size: missing").
 * Threads: any.
 */
CHECKED int state_stage(const struct state_section *sec, const struct state_desc *desc,
                        const void *live, void **ret_scratch, struct err *err);

/**
 * state_commit() - move the fields of a staged object into the live one and free it.
 * @scratch: taken.
 *
 * Members that the table does not name keep their value.  Blobs that the live
 * object held are freed.
 * Threads: the owner of @live, with the vCPUs stopped.
 */
void state_commit(const struct state_desc *desc, void *scratch, void *live);

/**
 * state_discard() - free a staged object that is not wanted.
 * @scratch: taken; NULL is allowed.
 *
 * Threads: any.
 */
void state_discard(const struct state_desc *desc, void *scratch);

/**
 * state_release() - free the blobs inside an object.
 *
 * Threads: the owner of @obj.
 */
void state_release(const struct state_desc *desc, void *obj);

struct json_object;

/**
 * state_to_json() - any run of sections as JSON, without their tables.
 * @data, @len: hostile bytes.
 * @ret_json:   an array of one object per section; byte strings as hex; owned.
 *
 * Return: 0; -EBADMSG; -ENOMEM.
 * Threads: any.
 */
CHECKED int state_to_json(const uint8_t *data, size_t len, struct json_object **ret_json,
                          struct err *err);

#endif
