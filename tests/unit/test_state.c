/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <json_object.h>
#include <stdio.h>
#include <string.h>

#include "core/state.h"
#include "tests/fakes/fake_thing.h"
#include "tests/fakes/golden.h"

/* Take the only section off the bytes, stage and commit it. */
static int load(const struct state_desc *desc, const uint8_t *data, size_t len, void *live,
                struct err *err)
{
    struct state_section sec;
    void *scratch;
    int rc = state_section_next(&data, &len, &sec, err);

    if (rc < 0)
        return rc;
    if (rc != 1 || len)
        return err_set(err, -EBADMSG, "not one section");
    rc = state_stage(&sec, desc, live, &scratch, err);
    if (rc < 0)
        return rc;
    state_commit(desc, scratch, live);
    return 0;
}

static struct state_buf save(const struct state_desc *desc, const char *id, const void *obj)
{
    struct state_buf buf = {0};
    struct err err = {0};

    if (state_save(desc, id, obj, &buf, &err) < 0)
        fail_msg("save: %s", err.msg);
    return buf;
}

static void assert_saves_as(const struct state_desc *desc, const char *id, const void *obj,
                            const uint8_t *data, size_t len)
{
    struct state_buf buf = save(desc, id, obj);

    assert_int_equal(buf.len, len);
    assert_memory_equal(buf.data, data, len);
    state_buf_release(&buf);
}

/* --- The bytes ------------------------------------------------------------ */

static void test_bytes_are_those_of_the_document(void **state)
{
    struct thing t;
    struct state_buf buf;

    (void)state;
    thing_fill(&t);
    buf = save(&thing_state, "_thing0", &t);
    golden_check("state/example-v1.cbor", buf.data, buf.len);
    state_buf_release(&buf);
    state_release(&thing_state, &t);
}

/* Lines "offset | bytes | meaning" of the only dump in the document. */
static void test_dump_in_the_document_is_the_golden_file(void **state)
{
    FILE *f = fopen(CHRYSALIS_SOURCE_DIR "/docs/state-format.md", "re");
    uint8_t bytes[1024];
    char line[512];
    size_t n = 0;

    (void)state;
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        unsigned at, byte;
        int used = 0;
        const char *p;

        if (sscanf(line, "%3x |%n", &at, &used) != 1 || used != 5)
            continue;
        assert_int_equal(at, n);
        for (p = line + used; sscanf(p, " %2x%n", &byte, &used) == 1; p += used) {
            assert_true(n < sizeof(bytes));
            bytes[n++] = (uint8_t)byte;
        }
        assert_int_equal(*(p + strspn(p, " ")), '|');
    }
    assert_int_equal(fclose(f), 0);
    golden_check("state/example-v1.cbor", bytes, n);
}

struct tiny {
    uint8_t b;
    uint64_t aa[2];
    bool extra;
};

static const struct state_field tiny_fields[] = {
    /* clang-format off */
    STATE_OPT(struct tiny, 1, BOOL, extra),
    STATE(struct tiny,     1, U64,  aa),
    STATE(struct tiny,     1, U8,   b),
    /* clang-format on */
};

static const struct state_desc tiny_state = {
    .name = "tiny",
    .version = 3,
    .version_min = 3,
    .size = sizeof(struct tiny),
    .fields = tiny_fields,
    .nr_fields = ARRAY_LEN(tiny_fields),
};

/* clang-format off */
static const uint8_t tiny_bytes[] = {
    0xa5,                                                /* map(5) */
    0x62, 'i', 'd', 0x61, 'x',                           /* "id": "x" */
    0x63, 'o', 'p', 't', 0xa1,                           /* "opt": map(1) */
    0x65, 'e', 'x', 't', 'r', 'a', 0xf5,                 /* "extra": true */
    0x64, 't', 'y', 'p', 'e', 0x64, 't', 'i', 'n', 'y',  /* "type": "tiny" */
    0x66, 'f', 'i', 'e', 'l', 'd', 's', 0xa2,            /* "fields": map(2) */
    0x61, 'b', 0x18, 0xff,                               /* "b": 255 */
    0x62, 'a', 'a', 0x82, 0x17, 0x1a, 0, 1, 0, 0,        /* "aa": [23, 65536] */
    0x67, 'v', 'e', 'r', 's', 'i', 'o', 'n', 0x03,       /* "version": 3 */
};
/* clang-format on */

static void test_bytes_of_a_tiny_object(void **state)
{
    const struct tiny t = {
        .b = 255, .aa = {23, 65536},
             .extra = true
    };
    struct tiny back = {0};

    (void)state;
    assert_saves_as(&tiny_state, "x", &t, tiny_bytes, sizeof(tiny_bytes));
    assert_int_equal(load(&tiny_state, tiny_bytes, sizeof(tiny_bytes), &back, NULL), 0);
    assert_true(back.b == 255 && back.aa[0] == 23 && back.aa[1] == 65536 && back.extra);
}

static void test_load_gives_back_what_was_saved(void **state)
{
    struct thing t, back = {0};
    struct state_buf buf;
    int mark;

    (void)state;
    thing_fill(&t);
    buf = save(&thing_state, "_thing0", &t);
    back.private_ptr = &mark;
    back.points[1].private_ptr = &mark;
    back.points[3].x = 99;
    back.log = malloc(1); /* must be freed by the commit */
    back.log_len = 1;
    assert_int_equal(load(&thing_state, buf.data, buf.len, &back, NULL), 0);
    assert_saves_as(&thing_state, "_thing0", &back, buf.data, buf.len);
    assert_ptr_equal(back.private_ptr, &mark);
    assert_ptr_equal(back.points[1].private_ptr, &mark);
    assert_int_equal(back.points[3].x, 0);
    assert_string_equal(back.name, "caf\xc3\xa9");
    assert_true(back.bias == -500 && back.corners[1].y == INT64_MIN);
    assert_memory_equal(back.points[1].note, "abc", 3);
    state_buf_release(&buf);
    state_release(&thing_state, &t);
    state_release(&thing_state, &back);
    assert_null(back.log);
}

static void test_sections_follow_each_other(void **state)
{
    static const char *const ids[] = {"a", "_disk0", "__serial"};
    const struct tiny t = {.b = 1};
    struct state_buf buf = {0};
    struct state_section sec;
    const uint8_t *p;
    size_t left;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ids); i++)
        assert_int_equal(state_save(&tiny_state, ids[i], &t, &buf, NULL), 0);
    p = buf.data;
    left = buf.len;
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        assert_int_equal(state_section_next(&p, &left, &sec, NULL), 1);
        assert_string_equal(sec.id, ids[i]);
        assert_string_equal(sec.type, "tiny");
        assert_int_equal(sec.version, 3);
    }
    assert_int_equal(state_section_next(&p, &left, &sec, NULL), 0);
    state_buf_release(&buf);
}

/* --- Refusals ------------------------------------------------------------- */

struct fix {
    struct thing live;
    struct thing before;
    struct state_buf buf;
};

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof(*f));
    struct thing t;

    assert_non_null(f);
    thing_fill(&t);
    f->buf = save(&thing_state, "_thing0", &t);
    state_release(&thing_state, &t);
    f->live.log = malloc(2);
    f->live.log_len = 2;
    f->live.base = 42;
    f->before = f->live;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;

    state_release(&thing_state, &f->live);
    state_buf_release(&f->buf);
    free(f);
    return 0;
}

static void test_every_truncation_is_refused(void **state)
{
    struct fix *f = *state;
    struct state_section sec;
    const uint8_t *p = f->buf.data;
    size_t left = f->buf.len;
    void *scratch;

    for (size_t cut = 1; cut < f->buf.len; cut++) {
        struct err err = {0};

        assert_int_equal(load(&thing_state, f->buf.data, cut, &f->live, &err), -EBADMSG);
        assert_int_equal(err.code, -EBADMSG);
        assert_memory_equal(&f->live, &f->before, sizeof(f->live));
    }
    /* state_stage() does not rely on its caller having looked. */
    assert_int_equal(state_section_next(&p, &left, &sec, NULL), 1);
    for (sec.len = 0; sec.len < f->buf.len; sec.len++)
        assert_int_equal(state_stage(&sec, &thing_state, &f->live, &scratch, NULL), -EBADMSG);
}

/* Refused with nothing touched, or accepted and saved as the very same bytes. */
static bool accepted_whole(struct fix *f)
{
    struct err err = {0};
    const uint8_t *p = f->buf.data;
    size_t left = f->buf.len;
    struct state_section sec;
    struct thing back = {0};

    if (load(&thing_state, f->buf.data, f->buf.len, &back, &err) < 0) {
        assert_true(err.code < 0);
        assert_true(err.msg[0]);
        assert_int_equal(load(&thing_state, f->buf.data, f->buf.len, &f->live, NULL), err.code);
        assert_memory_equal(&f->live, &f->before, sizeof(f->live));
        return false;
    }
    assert_int_equal(state_section_next(&p, &left, &sec, NULL), 1);
    assert_saves_as(&thing_state, sec.id, &back, f->buf.data, f->buf.len);
    state_release(&thing_state, &back);
    return true;
}

static void test_every_changed_byte_is_refused_or_kept(void **state)
{
    struct fix *f = *state;
    unsigned accepted = 0, refused = 0;

    for (size_t i = 0; i < f->buf.len; i++) {
        for (unsigned x = 1; x < 256; x++) {
            f->buf.data[i] ^= (uint8_t)x;
            if (accepted_whole(f))
                accepted++;
            else
                refused++;
            f->buf.data[i] ^= (uint8_t)x;
        }
    }
    /* Values may change; keys, types, lengths and heads may not. */
    assert_true(accepted > 1000);
    assert_true(refused > accepted);
}

/* A hand-made section: what stands for "aa" in tiny_bytes, and what the loader says. */
static const struct {
    const char *why;
    const char *bytes;
    size_t len;
    int rc;
    const char *msg;
} tiny_rows[] = {
/* clang-format off */
#define ROW(why, bytes, rc, msg) {why, bytes, sizeof(bytes) - 1, rc, msg}
    ROW("the good case", "\xa2\x61" "b\x01\x62" "aa\x82\x02\x03", 0, ""),
    ROW("doubled key", "\xa3\x61" "b\x01\x61" "b\x01\x62" "aa\x82\x02\x03", -EBADMSG,
        "x.fields: keys that are out of order or doubled"),
    ROW("keys in the wrong order", "\xa2\x62" "aa\x82\x02\x03\x61" "b\x01", -EBADMSG,
        "x.fields: keys that are out of order or doubled"),
    ROW("a head longer than needed", "\xa2\x61" "b\x18\x01\x62" "aa\x82\x02\x03", -EBADMSG,
        "x.fields: not the shortest encoding"),
    ROW("a key's head longer than needed", "\xa2\x78\x01" "b\x01\x62" "aa\x82\x02\x03", -EBADMSG,
        "x.fields: not the shortest encoding"),
    ROW("an array of unknown length", "\xa2\x61" "b\x01\x62" "aa\x9f\x02\x03\xff", -EBADMSG,
        "x.fields: an item that the format does not have"),
    ROW("a map of unknown length", "\xbf\x61" "b\x01\xff", -EBADMSG,
        "x.fields: an item that the format does not have"),
    ROW("a string in pieces", "\xa1\x7f\x61" "b\xff\x01", -EBADMSG,
        "x.fields: an item that the format does not have"),
    ROW("a tag", "\xa2\x61" "b\xc1\x01\x62" "aa\x82\x02\x03", -EBADMSG,
        "x.fields: an item that the format does not have"),
    ROW("null", "\xa2\x61" "b\xf6\x62" "aa\x82\x02\x03", -EBADMSG,
        "x.fields: an item that the format does not have"),
    ROW("a float", "\xa2\x61" "b\xf9\x3c\x00\x62" "aa\x82\x02\x03", -EBADMSG,
        "x.fields: an item that the format does not have"),
    ROW("a two-byte simple value", "\xa2\x61" "b\xf8\x15\x62" "aa\x82\x02\x03", -EBADMSG,
        "x.fields: an item that the format does not have"),
    ROW("a reserved head", "\xa2\x61" "b\x1c\x62" "aa\x82\x02\x03", -EBADMSG,
        "x.fields: an item that the format does not have"),
    ROW("a key that is no text", "\xa1\x01\x01", -EBADMSG, "x.fields: not a text string"),
    ROW("a key that is no name", "\xa1\x62" "a b\x01", -EBADMSG,
        "x.fields: a key that is not a name"),
    ROW("an empty key", "\xa1\x60\x01", -EBADMSG, "x.fields: a key that is not a name"),
    ROW("fields that are no map", "\x01", -EBADMSG, "x.fields: not a map"),
    ROW("a field is missing", "\xa1\x61" "b\x01", -EBADMSG, "x.aa: missing"),
    ROW("no fields at all", "\xa0", -EBADMSG, "x.aa: missing"),
    ROW("a required field that is not known", "\xa3\x61" "b\x01\x62" "aa\x82\x02\x03\x62" "zz\x00",
        -ENOTSUP, "x.zz: a field that this build does not know"),
    ROW("an optional field among the required",
        "\xa3\x61" "b\x01\x62" "aa\x82\x02\x03\x65" "extra\xf5",
        -ENOTSUP, "x.extra: a field that this build does not know"),
    ROW("a value past its kind", "\xa2\x61" "b\x19\x01\x00\x62" "aa\x82\x02\x03", -EBADMSG,
        "x.b: 256 is over 255"),
    ROW("below zero", "\xa2\x61" "b\x20\x62" "aa\x82\x02\x03", -EBADMSG,
        "x.b: not an integer of this kind"),
    ROW("below -2^63", "\xa2\x61" "b\x3b\x80\x00\x00\x00\x00\x00\x00\x00\x62" "aa\x82\x02\x03",
        -EBADMSG, "x.fields: an integer below -2^63"),
    ROW("a bool for an integer", "\xa2\x61" "b\xf5\x62" "aa\x82\x02\x03", -EBADMSG,
        "x.b: not an integer of this kind"),
    ROW("too few elements", "\xa2\x61" "b\x01\x62" "aa\x81\x02", -EBADMSG,
        "x.aa: 1 elements, want 2"),
    ROW("too many elements", "\xa2\x61" "b\x01\x62" "aa\x83\x02\x03\x04", -EBADMSG,
        "x.aa: 3 elements, want 2"),
    ROW("an element of the wrong kind", "\xa2\x61" "b\x01\x62" "aa\x82\x02\x41\x00", -EBADMSG,
        "x.aa[1]: not an integer of this kind"),
    ROW("one value for an array", "\xa2\x61" "b\x01\x62" "aa\x02", -EBADMSG, "x.aa: not an array"),
    ROW("an array past the end", "\xa2\x61" "b\x01\x62" "aa\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        -EBADMSG, "x.fields: cut short"),
    ROW("a map past the end", "\xbb\xff\xff\xff\xff\xff\xff\xff\xff", -EBADMSG,
        "x.fields: cut short"),
    ROW("a string past the end", "\xa2\x61" "b\x5b\xff\xff\xff\xff\xff\xff\xff\xff", -EBADMSG,
        "x.fields: cut short"),
#undef ROW
    /* clang-format on */
};

static size_t tiny_section(uint8_t *dst, const char *fields, size_t len)
{
    static const char head[] = "\xa4\x62id\x61x\x64type\x64tiny\x66"
                               "fields";
    static const char tail[] = "\x67version\x03";

    memcpy(dst, head, sizeof(head) - 1);
    memcpy(dst + sizeof(head) - 1, fields, len);
    memcpy(dst + sizeof(head) - 1 + len, tail, sizeof(tail) - 1);
    return sizeof(head) + len + sizeof(tail) - 2;
}

static void test_bad_fields_are_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(tiny_rows); i++) {
        struct tiny t = {
            .b = 5, .aa = {6, 7}
        };
        const struct tiny before = t;
        struct err err = {0};
        uint8_t buf[256];
        size_t n = tiny_section(buf, tiny_rows[i].bytes, tiny_rows[i].len);
        int rc = load(&tiny_state, buf, n, &t, &err);

        print_message("row %zu: %s: %s\n", i, tiny_rows[i].why, err.msg);
        assert_int_equal(rc, tiny_rows[i].rc);
        assert_string_equal(err.msg, tiny_rows[i].msg);
        if (rc < 0)
            assert_memory_equal(&t, &before, sizeof(t));
    }
}

static const struct {
    const char *why;
    const char *bytes;
    size_t len;
    int rc;
    const char *msg;
} section_rows[] = {
/* clang-format off */
#define ROW(why, bytes, rc, msg) {why, bytes, sizeof(bytes) - 1, rc, msg}
#define ID     "\x62id\x61x"
#define TYPE   "\x64type\x64tiny"
#define FIELDS "\x66" "fields\xa2\x61" "b\x01\x62" "aa\x82\x02\x03"
#define VER    "\x67version"
    ROW("the good case", "\xa4" ID TYPE FIELDS VER "\x03", 0, ""),
    ROW("not a map", "\x83\x01\x02\x03", -EBADMSG, "section: not a map"),
    ROW("no id", "\xa3" TYPE FIELDS VER "\x03", -EBADMSG, "section: no id"),
    ROW("no type", "\xa3" ID FIELDS VER "\x03", -EBADMSG, "x: no type"),
    ROW("no fields", "\xa3" ID TYPE VER "\x03", -EBADMSG, "x: no fields"),
    ROW("no version", "\xa3" ID TYPE FIELDS, -EBADMSG, "x: no version"),
    ROW("version 0", "\xa4" ID TYPE FIELDS VER "\x00", -EBADMSG, "x.version: not from 1 to 65535"),
    ROW("version 65536", "\xa4" ID TYPE FIELDS VER "\x1a\x00\x01\x00\x00", -EBADMSG,
        "x.version: not from 1 to 65535"),
    ROW("older than what we read", "\xa4" ID TYPE FIELDS VER "\x02", -ENOTSUP,
        "x: tiny version 2, this build reads 3 to 3"),
    ROW("newer than what we read", "\xa4" ID TYPE FIELDS VER "\x04", -ENOTSUP,
        "x: tiny version 4, this build reads 3 to 3"),
    ROW("another key", "\xa5" ID TYPE FIELDS "\x66" "foobar\x00" VER "\x03", -EBADMSG,
        "x.foobar: an object has no such key"),
    ROW("another type", "\xa4" ID "\x64type\x64tall" FIELDS VER "\x03", -ENOTSUP,
        "x: state of a tall, want that of a tiny"),
    ROW("an empty opt", "\xa5" ID "\x63opt\xa0" TYPE FIELDS VER "\x03", -EBADMSG,
        "x: an empty opt"),
    ROW("an optional field", "\xa5" ID "\x63opt\xa1\x65" "extra\xf5" TYPE FIELDS VER "\x03", 0, ""),
    ROW("a bad optional field", "\xa5" ID "\x63opt\xa1\x65" "extra\x01" TYPE FIELDS VER "\x03",
        -EBADMSG, "x.extra: not false or true"),
    ROW("an optional field that is not known",
        "\xa5" ID "\x63opt\xa1\x65" "other\xa1\x61" "z\x81\x20" TYPE FIELDS VER "\x03", 0, ""),
    ROW("a required field among the optional", "\xa5" ID "\x63opt\xa1\x61" "b\x01" TYPE
        "\x66" "fields\xa1\x62" "aa\x82\x02\x03" VER "\x03", -EBADMSG, "x.b: missing"),
    ROW("an empty id", "\xa4\x62id\x60" TYPE FIELDS VER "\x03", -EBADMSG, "section.id: not a name"),
    ROW("an id with a line feed", "\xa4\x62id\x61\n" TYPE FIELDS VER "\x03", -EBADMSG,
        "section.id: not a name"),
    ROW("an id of 64 bytes", "\xa4\x62id\x78\x40"
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
        TYPE FIELDS VER "\x03", -EBADMSG, "section.id: not a name"),
    ROW("an id that is not UTF-8", "\xa4\x62id\x61\xff" TYPE FIELDS VER "\x03", -EBADMSG,
        "section.id: text that is not UTF-8"),
#undef VER
#undef FIELDS
#undef TYPE
#undef ID
#undef ROW
    /* clang-format on */
};

static void test_bad_sections_are_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(section_rows); i++) {
        struct tiny t = {.b = 5, .extra = true};
        const struct tiny before = t;
        struct err err = {0};
        int rc = load(&tiny_state, (const uint8_t *)section_rows[i].bytes, section_rows[i].len, &t,
                      &err);

        print_message("row %zu: %s: %s\n", i, section_rows[i].why, err.msg);
        assert_int_equal(rc, section_rows[i].rc);
        assert_string_equal(err.msg, section_rows[i].msg);
        if (rc < 0)
            assert_memory_equal(&t, &before, sizeof(t));
        else
            assert_int_equal(t.b, 1);
    }
}

static void test_nesting_is_bounded(void **state)
{
    uint8_t buf[4096 + 64];
    char deep[4096 + 8];
    struct tiny t = {0};
    struct err err = {0};
    size_t n;

    (void)state;
    memset(deep, 0x81, sizeof(deep));
    memcpy(deep, "\xa1\x61z", 3);
    deep[sizeof(deep) - 1] = 0;
    n = tiny_section(buf, deep, sizeof(deep));
    assert_int_equal(load(&tiny_state, buf, n, &t, &err), -EBADMSG);
    assert_string_equal(err.msg, "x.fields: nested too deep");
}

static void expect(struct fix *f, int rc, const char *msg)
{
    struct err err = {0};

    assert_int_equal(load(&thing_state, f->buf.data, f->buf.len, &f->live, &err), rc);
    assert_string_equal(err.msg, msg);
    assert_memory_equal(&f->live, &f->before, sizeof(f->live));
}

static void resave(struct fix *f, const struct thing *t)
{
    state_buf_release(&f->buf);
    f->buf = save(&thing_state, "_thing0", t);
}

static void test_checks_name_the_place(void **state)
{
    struct fix *f = *state;
    struct thing t = {.mode = 10};

    resave(f, &t);
    expect(f, -EBADMSG, "_thing0.mode: 10 is past 9");
    t = (struct thing){.nr_points = 3, .points[2].x = 1001};
    resave(f, &t);
    expect(f, -EBADMSG, "_thing0.points[2].x: 1001 is past 1000");
    t = (struct thing){.corners[1].x = 1001};
    resave(f, &t);
    expect(f, -EBADMSG, "_thing0.corners[1].x: 1001 is past 1000");
    t = (struct thing){.port = 1};
    resave(f, &t);
    f->live.port = 2;
    f->before.port = 2;
    expect(f, -EINVAL, "_thing0.port: 1, this one has 2");
}

/* The same table with more room and with less. */
#define ROOM_DEFINE(T, points_, text_, log_, pairs_)                    \
    struct T {                                                          \
        struct thing_point points[points_];                             \
        uint32_t nr_points;                                             \
        struct thing_point pairs[pairs_];                               \
        char text[text_];                                               \
        uint8_t bytes[text_];                                           \
        uint8_t *log;                                                   \
        uint32_t log_len;                                               \
    };                                                                  \
    static const struct state_field T##_fields[] = {                    \
        STATE_LIST(struct T, 1, &thing_point_state, points, nr_points), \
        STATE_STRUCT(struct T, 1, &thing_point_state, pairs),           \
        STATE(struct T, 1, STR, text),                                  \
        STATE(struct T, 1, BYTES, bytes),                               \
        STATE_BLOB(struct T, 1, log, log_len, log_),                    \
    };                                                                  \
    static const struct state_desc T##_state = {                        \
        .name = "room",                                                 \
        .version = 1,                                                   \
        .version_min = 1,                                               \
        .size = sizeof(struct T),                                       \
        .fields = T##_fields,                                           \
        .nr_fields = ARRAY_LEN(T##_fields),                             \
    }

/* clang-format off */
ROOM_DEFINE(wide,   8, 8, 8, 3);
ROOM_DEFINE(narrow, 4, 8, 8, 3);
ROOM_DEFINE(short_text, 8, 7, 8, 3);
ROOM_DEFINE(short_log, 8, 8, 7, 3);
ROOM_DEFINE(fewer_pairs, 8, 8, 8, 2);
ROOM_DEFINE(one_pair, 8, 8, 8, 1);
/* clang-format on */

static void refuse_wide(const struct state_buf *buf, const struct state_desc *desc, const char *msg)
{
    struct err err = {0};
    uint8_t *live = calloc(1, desc->size);

    assert_non_null(live);
    assert_int_equal(load(desc, buf->data, buf->len, live, &err), -EBADMSG);
    assert_string_equal(err.msg, msg);
    for (size_t i = 0; i < desc->size; i++)
        assert_int_equal(live[i], 0);
    free(live);
}

static void test_lengths_are_bounded_by_the_table(void **state)
{
    struct wide w = {.nr_points = 5, .text = "abc", .log_len = 8};
    struct wide back = {0};
    struct state_buf buf;

    (void)state;
    w.log = calloc(1, 8);
    buf = save(&wide_state, "r", &w);
    refuse_wide(&buf, &narrow_state, "r.points: 5 entries, want at most 4");
    refuse_wide(&buf, &short_text_state, "r.bytes: 8 bytes, want 7");
    refuse_wide(&buf, &short_log_state, "r.log: 8 bytes, want at most 7");
    refuse_wide(&buf, &fewer_pairs_state, "r.pairs: 3 entries, want 2");
    refuse_wide(&buf, &one_pair_state, "r.pairs: not a map");
    assert_int_equal(load(&wide_state, buf.data, buf.len, &back, NULL), 0);
    assert_int_equal(back.nr_points, 5);
    state_buf_release(&buf);

    (void)snprintf(w.text, sizeof(w.text), "1234567");
    buf = save(&wide_state, "r", &w);
    refuse_wide(&buf, &short_text_state, "r.text: 7 bytes, want at most 6");
    state_buf_release(&buf);
    state_release(&wide_state, &w);
    state_release(&wide_state, &back);
}

/* --- Saving --------------------------------------------------------------- */

static void refuse_save(const struct state_desc *desc, const char *id, const void *obj, int rc,
                        const char *msg)
{
    const struct tiny t = {0};
    struct state_buf buf = save(&tiny_state, "before", &t);
    uint8_t *copy = malloc(buf.len);
    size_t len = buf.len;
    struct err err = {0};

    assert_non_null(copy);
    memcpy(copy, buf.data, len);
    assert_int_equal(state_save(desc, id, obj, &buf, &err), rc);
    assert_string_equal(err.msg, msg);
    assert_int_equal(buf.len, len);
    assert_memory_equal(buf.data, copy, len);
    free(copy);
    state_buf_release(&buf);
}

static void test_objects_that_break_their_table_are_not_saved(void **state)
{
    struct wide w = {.nr_points = 9};
    const char long_id[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    (void)state;
    refuse_save(&wide_state, "r", &w, -EINVAL, "r.points: 9 entries, room for 8");
    w = (struct wide){.log_len = 9};
    refuse_save(&wide_state, "r", &w, -EINVAL, "r.log: 9 bytes, at most 8");
    w = (struct wide){.log_len = 1};
    refuse_save(&wide_state, "r", &w, -EINVAL, "r.log: 1 bytes, at most 8");
    w = (struct wide){0};
    memset(w.text, 'a', sizeof(w.text));
    refuse_save(&wide_state, "r", &w, -EINVAL, "r.text: not a terminated UTF-8 string");
    w = (struct wide){.text = "\xc3"};
    refuse_save(&wide_state, "r", &w, -EINVAL, "r.text: not a terminated UTF-8 string");
    w = (struct wide){0};
    refuse_save(&wide_state, "", &w, -EINVAL, ": not an id");
    refuse_save(&wide_state, "a\tb", &w, -EINVAL, "a\tb: not an id");
    assert_int_equal(state_save(&wide_state, long_id, &w, &(struct state_buf){0}, NULL), -EINVAL);
}

struct bulk {
    uint8_t *data;
    uint32_t len;
};

static const struct state_field bulk_fields[] = {
    STATE_BLOB(struct bulk, 1, data, len, UINT32_MAX),
};

static const struct state_desc bulk_state = {
    .name = "bulk",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct bulk),
    .fields = bulk_fields,
    .nr_fields = ARRAY_LEN(bulk_fields),
};

static void test_sections_have_a_largest_size(void **state)
{
    /* {"id": "b", "type": "bulk", "fields": {"data": h'...'}, "version": 1} */
    const uint32_t overhead = 43;
    struct bulk b = {.data = calloc(1, STATE_SECTION_MAX), .len = STATE_SECTION_MAX - overhead};
    struct bulk back = {0};
    struct state_section sec;
    struct state_buf buf;
    struct err err = {0};
    const uint8_t *p;
    size_t left;

    (void)state;
    assert_non_null(b.data);
    buf = save(&bulk_state, "b", &b);
    assert_int_equal(buf.len, STATE_SECTION_MAX);
    assert_int_equal(load(&bulk_state, buf.data, buf.len, &back, NULL), 0);
    assert_int_equal(back.len, b.len);
    state_buf_release(&buf);
    b.len++;
    refuse_save(&bulk_state, "b", &b, -E2BIG, "b: state is over 16777216 bytes");

    /* One byte more in the id, made by hand: "b" becomes "bb". */
    b.len--;
    buf = save(&bulk_state, "b", &b);
    buf.data = realloc(buf.data, buf.len + 1);
    assert_non_null(buf.data);
    memmove(buf.data + 6, buf.data + 5, buf.len - 5);
    buf.data[4] = 0x62;
    p = buf.data;
    left = buf.len + 1;
    assert_int_equal(state_section_next(&p, &left, &sec, &err), -E2BIG);
    assert_string_equal(err.msg, "bb: state is over 16777216 bytes");
    state_buf_release(&buf);
    state_release(&bulk_state, &b);
    state_release(&bulk_state, &back);
}

/* --- Versions ------------------------------------------------------------- */

struct clock_v1 {
    uint32_t ticks;
};

struct clock_v2 {
    uint32_t ticks;
    uint32_t rate; /* 1000 before it was a field */
    uint32_t drift;
};

static const struct state_field clock_v1_fields[] = {STATE(struct clock_v1, 1, U32, ticks)};

static const struct state_field clock_v2_fields[] = {
    STATE(struct clock_v2, 1, U32, ticks),
    STATE(struct clock_v2, 2, U32, rate),
    STATE_OPT(struct clock_v2, 2, U32, drift),
};

static void clock_defaults(void *obj, uint16_t version)
{
    assert_int_equal(version, 1);
    ((struct clock_v2 *)obj)->rate = 1000;
}

static const struct state_desc clock_v1_state = {
    .name = "clock",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct clock_v1),
    .fields = clock_v1_fields,
    .nr_fields = ARRAY_LEN(clock_v1_fields),
};

static const struct state_desc clock_v2_state = {
    .name = "clock",
    .version = 2,
    .version_min = 1,
    .size = sizeof(struct clock_v2),
    .fields = clock_v2_fields,
    .nr_fields = ARRAY_LEN(clock_v2_fields),
    .defaults = clock_defaults,
};

static void test_older_versions_get_defaults(void **state)
{
    const struct clock_v1 old = {.ticks = 77};
    struct clock_v2 now = {.ticks = 1, .rate = 2, .drift = 3};
    struct state_buf buf = save(&clock_v1_state, "c", &old);
    struct err err = {0};

    (void)state;
    assert_int_equal(load(&clock_v2_state, buf.data, buf.len, &now, NULL), 0);
    assert_true(now.ticks == 77 && now.rate == 1000 && now.drift == 0);
    state_buf_release(&buf);

    now = (struct clock_v2){.ticks = 1, .rate = 2, .drift = 3};
    buf = save(&clock_v2_state, "c", &now);
    now = (struct clock_v2){0};
    assert_int_equal(load(&clock_v2_state, buf.data, buf.len, &now, NULL), 0);
    assert_true(now.ticks == 1 && now.rate == 2 && now.drift == 3);

    /* A version 1 with a field of version 2. */
    assert_int_equal(buf.data[buf.len - 1], 2);
    buf.data[buf.len - 1] = 1;
    assert_int_equal(load(&clock_v2_state, buf.data, buf.len, &now, &err), -EBADMSG);
    assert_string_equal(err.msg, "c.rate: version 1 does not have it");
    state_buf_release(&buf);
}

static void test_nested_objects_have_their_own_version(void **state)
{
    struct outer_old {
        struct clock_v1 clock;
    } old = {.clock.ticks = 5};
    struct outer_new {
        struct clock_v2 clock;
    } now = {.clock.rate = 9};
    const struct state_field old_fields[] = {
        STATE_STRUCT(struct outer_old, 1, &clock_v1_state, clock)};
    const struct state_field new_fields[] = {
        STATE_STRUCT(struct outer_new, 1, &clock_v2_state, clock)};
    const struct state_desc old_state = {
        .name = "outer",
        .version = 1,
        .version_min = 1,
        .size = sizeof(old),
        .fields = old_fields,
        .nr_fields = 1,
    };
    struct state_desc new_state = old_state;
    struct state_buf buf = save(&old_state, "o", &old);
    struct err err = {0};

    (void)state;
    new_state.size = sizeof(now);
    new_state.fields = new_fields;
    assert_int_equal(load(&new_state, buf.data, buf.len, &now, NULL), 0);
    assert_true(now.clock.ticks == 5 && now.clock.rate == 1000);
    state_buf_release(&buf);
    buf = save(&new_state, "o", &now);
    assert_int_equal(load(&old_state, buf.data, buf.len, &old, &err), -ENOTSUP);
    assert_string_equal(err.msg, "o.clock: clock version 2, this build reads 1 to 1");
    state_buf_release(&buf);
}

/* --- Tables --------------------------------------------------------------- */

static void refuse_table(struct state_desc desc, const char *msg)
{
    struct err err = {0};

    assert_int_equal(state_desc_check(&desc, &err), -EINVAL);
    assert_string_equal(err.msg, msg);
}

static void refuse_row(struct state_field row, const char *msg)
{
    struct state_desc desc = tiny_state;

    desc.fields = &row;
    desc.nr_fields = 1;
    refuse_table(desc, msg);
}

static void test_mistakes_in_tables_are_found(void **state)
{
    const struct state_field good = STATE(struct tiny, 1, U8, b);
    struct state_field row[2] = {good, good};
    struct state_desc desc = tiny_state;

    (void)state;
    assert_int_equal(state_desc_check(&tiny_state, NULL), 0);
    assert_int_equal(state_desc_check(&thing_state, NULL), 0);
    assert_int_equal(state_desc_check(&wide_state, NULL), 0);
    desc.fields = row;
    desc.nr_fields = 2;
    refuse_table(desc, "tiny.b: declared twice");
    desc.nr_fields = STATE_FIELDS_MAX + 1;
    refuse_table(desc, "tiny: 97 rows, at most 96");
    desc.name = "a b";
    refuse_table(desc, "a b: not a name");
    desc.name = "tiny";
    desc.version_min = 4;
    refuse_table(desc, "tiny: version_min 4, version 3");
    row[0].name = "ü";
    refuse_row(row[0], "tiny.ü: not a name");
    row[0] = good;
    row[0].since = 4;
    refuse_row(row[0], "tiny.b: since is not one of the table's versions");
    row[0] = good;
    row[0].offset = sizeof(struct tiny);
    refuse_row(row[0], "tiny.b: lies outside of the struct");
    row[0] = good;
    row[0].elem_size = 2;
    refuse_row(row[0], "tiny.b: the size of an element is not that of its kind");
    row[0] = good;
    row[0].sub = &tiny_state;
    refuse_row(row[0], "tiny.b: has a table and no use for it");
    row[0] = (struct state_field)STATE_STRUCT(struct tiny, 1, NULL, b);
    refuse_row(row[0], "tiny.b: has no table");
    row[0].sub = &clock_v1_state;
    refuse_row(row[0], "tiny.b: is not a whole number of what its table describes");
}

/* --- JSON ----------------------------------------------------------------- */

static void test_json_shows_every_field(void **state)
{
    struct json_object *json;
    struct state_buf buf;
    struct thing t;

    (void)state;
    thing_fill(&t);
    buf = save(&thing_state, "_thing0", &t);
    assert_int_equal(state_save(&tiny_state, "x", &(struct tiny){.b = 1}, &buf, NULL), 0);
    assert_int_equal(state_to_json(buf.data, buf.len, &json, NULL), 0);
    assert_string_equal(
        json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN),
        "[{\"id\":\"_thing0\",\"type\":\"thing\",\"fields\":{"
        "\"on\":true,\"log\":\"68656c6c6f\",\"ram\":[0,23,255],"
        "\"base\":18446744073709551615,\"bias\":-500,\"mode\":7,\"name\":\"café\",\"port\":1016,"
        "\"regs\":[24,4294967296],\"uuid\":\"deadbeef\",\"flags\":305419896,"
        "\"origin\":{\"fields\":{\"x\":1,\"y\":-1,\"note\":\"\"},\"version\":1},"
        "\"points\":[{\"fields\":{\"x\":10,\"y\":0,\"note\":\"\"},\"version\":1},"
        "{\"fields\":{\"x\":20,\"y\":9223372036854775807,\"note\":\"616263\"},\"version\":1}],"
        "\"corners\":[{\"fields\":{\"x\":2,\"y\":3,\"note\":\"\"},\"version\":1},"
        "{\"fields\":{\"x\":4,\"y\":-9223372036854775808,\"note\":\"\"},\"version\":1}]},"
        "\"version\":1},"
        "{\"id\":\"x\",\"opt\":{\"extra\":false},\"type\":\"tiny\","
        "\"fields\":{\"b\":1,\"aa\":[0,0]},\"version\":3}]");
    (void)json_object_put(json);
    for (size_t cut = 1; cut < buf.len; cut++) {
        struct err err = {0};
        int rc = state_to_json(buf.data, cut, &json, &err);

        if (rc == 0)
            (void)json_object_put(json); /* the cut lay between the two sections */
        else
            assert_true(rc == -EBADMSG && err.msg[0]);
    }
    state_buf_release(&buf);
    state_release(&thing_state, &t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_are_those_of_the_document),
        cmocka_unit_test(test_dump_in_the_document_is_the_golden_file),
        cmocka_unit_test(test_bytes_of_a_tiny_object),
        cmocka_unit_test(test_load_gives_back_what_was_saved),
        cmocka_unit_test(test_sections_follow_each_other),
        cmocka_unit_test_setup_teardown(test_every_truncation_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_changed_byte_is_refused_or_kept, setup,
                                        teardown),
        cmocka_unit_test(test_bad_fields_are_refused_by_name),
        cmocka_unit_test(test_bad_sections_are_refused_by_name),
        cmocka_unit_test(test_nesting_is_bounded),
        cmocka_unit_test_setup_teardown(test_checks_name_the_place, setup, teardown),
        cmocka_unit_test(test_lengths_are_bounded_by_the_table),
        cmocka_unit_test(test_objects_that_break_their_table_are_not_saved),
        cmocka_unit_test(test_sections_have_a_largest_size),
        cmocka_unit_test(test_older_versions_get_defaults),
        cmocka_unit_test(test_nested_objects_have_their_own_version),
        cmocka_unit_test(test_mistakes_in_tables_are_found),
        cmocka_unit_test(test_json_shows_every_field),
    };

    return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
