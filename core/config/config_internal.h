/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration as data: one table for each object.
 *
 * A row says where a value is kept, its name in JSON and on the command line,
 * and its kind.  Reading, writing, copying and freeing walk these tables, so a
 * new option is a new row (and its check in vm_config_complete()).
 */
#ifndef CORE_CONFIG_CONFIG_INTERNAL_H
#define CORE_CONFIG_CONFIG_INTERNAL_H

#include "core/config/vm_config.h"

enum config_kind {
    CONFIG_BOOL,
    CONFIG_NOT,     /* a bool that keeps the opposite */
    CONFIG_U8,      /* min..max */
    CONFIG_U16,     /* min..max */
    CONFIG_U32,     /* min..max */
    CONFIG_SIZE,    /* uint64_t, bytes; suffixes on the command line */
    CONFIG_STRING,  /* char *, at most max bytes */
    CONFIG_STRINGS, /* char **, count at off_nr, at most max of them */
    CONFIG_UUID,    /* char *, canonical text */
    CONFIG_NAME,    /* enum; aux is config_name[] */
    CONFIG_FLAG,    /* command line only: the bare word sets the enum at off to min */
    CONFIG_MAC,     /* uint8_t[MAC_LEN], bool at off_nr */
    CONFIG_FDS,     /* int *, count at off_nr, at most max of them */
    CONFIG_OBJECT,  /* struct; aux is its table; "a:b:c" on the command line */
    CONFIG_FLAGS,   /* aux: a table of bools of this same struct; [a,b] on the command line */
    CONFIG_OBJECTS, /* struct *, count at off_nr, at most max of them; aux is the table of one */
    CONFIG_REFUSED, /* known, not supported yet; harmless: the value that asks for nothing */
};

enum config_field_flags {
    CONFIG_EMIT_ZERO = 1 << 0, /* write to JSON even where it is 0 */
    CONFIG_ALIAS = 1 << 1,     /* another name for the field before it: never written */
    CONFIG_EMIT_SET = 1 << 2,  /* a switch or a name that is written only where it is not 0 */
};

struct config_name {
    const char *json; /* NULL ends the array */
    const char *opt;
    int value;
};

struct config_field {
    const char *json; /* NULL: not in JSON */
    const char *opt;  /* NULL: not on the command line */
    enum config_kind kind;
    unsigned flags;
    size_t off;
    size_t off_nr;
    uint64_t min, max;
    const void *aux;
    const char *harmless;
    const char *note; /* for a refused one: what to do instead */
};

struct config_table {
    size_t size; /* of the struct */
    const struct config_field *fields;
    unsigned nr_fields;
};

extern const struct config_table vm_config_table;
extern const struct config_table cpus_config_table;
extern const struct config_table memory_config_table;
extern const struct config_table memory_zone_config_table;
extern const struct config_table disk_config_table;
extern const struct config_table net_config_table;
extern const struct config_table rng_config_table;
extern const struct config_table serial_config_table;
extern const struct config_table console_config_table;
extern const struct config_table debug_console_config_table;
extern const struct config_table platform_config_table;
extern const struct config_table landlock_rule_config_table;

/* A member of a struct by its row: the struct is what a table with that row describes. */
static inline void *config_member(void *obj, size_t off)
{
    return (char *)obj + off;
}

static inline const void *config_member_const(const void *obj, size_t off)
{
    return (const char *)obj + off;
}

/**
 * config_store_u64() - keep a number that was checked against the row's range.
 *
 * Threads: any.
 */
void config_store_u64(const struct config_field *field, void *obj, uint64_t v);

/**
 * config_load_u64() - the number a row of kind U8, U16, U32 or SIZE keeps.
 *
 * Threads: any.
 */
uint64_t config_load_u64(const struct config_field *field, const void *obj);

/**
 * config_store_text() - keep a string, UUID or MAC, from either source.
 * @what: path of the value in messages.
 * @text: any bytes.
 *
 * Return: 0; -EINVAL, -E2BIG or -ENOMEM with @err naming @what.
 * Threads: any.
 */
CHECKED int config_store_text(const struct config_field *field, void *obj, const char *what,
                              const char *text, struct err *err);

/**
 * config_append_string() - add a string to a row of kind STRINGS.
 *
 * Return: 0; -EINVAL, -E2BIG or -ENOMEM with @err naming @what.
 * Threads: any.
 */
CHECKED int config_append_string(const struct config_field *field, void *obj, const char *what,
                                 const char *text, struct err *err);

/**
 * config_append_fd() - add a file descriptor to a row of kind FDS.
 *
 * Return: 0; -E2BIG or -ENOMEM with @err naming @what.
 * Threads: any.
 */
CHECKED int config_append_fd(const struct config_field *field, void *obj, const char *what, int fd,
                             struct err *err);

/**
 * config_append_object() - add a zeroed struct to a row of kind OBJECTS.
 *
 * Return: 0 and *@ret_obj, borrowed; -E2BIG or -ENOMEM with @err naming @what.
 * Threads: any.
 */
CHECKED int config_append_object(const struct config_field *field, void *obj, const char *what,
                                 void **ret_obj, struct err *err);

/**
 * config_refuse() - the sentence for what Cloud Hypervisor has and this version has not.
 *
 * Return: -ENOTSUP, and @err names @what.
 * Threads: any.
 */
int config_refuse(const struct config_field *field, const char *what, struct err *err);

/**
 * config_release_object() - free what a struct owns by its table; zero it.
 *
 * Threads: any.
 */
void config_release_object(const struct config_table *table, void *obj);

/**
 * config_object_from_json() - read a struct by its table.
 * @val: borrowed; any content.
 * @dst: zeroed; on failure good only for config_release_object().
 *
 * Return: as vm_config_from_json().
 * Threads: any.
 */
CHECKED int config_object_from_json(const struct config_table *table, struct json_object *val,
                                    void *dst, struct err *err);

/**
 * config_object_from_option() - read a struct by its table from "key=value,...".
 * @dst:    zeroed, or filled by such a value before; on failure good only for
 *          config_release_object().
 * @option: name in messages.
 *
 * Return: as vm_config_from_option().
 * Threads: any.
 */
CHECKED int config_object_from_option(const struct config_table *table, void *dst,
                                      const char *option, const char *value, struct err *err);

/**
 * config_object_to_json() - write a struct by its table.
 *
 * Return: 0 and *@ret_obj, owned; -ENOMEM.
 * Threads: any.
 */
CHECKED int config_object_to_json(const struct config_table *table, const void *src,
                                  struct json_object **ret_obj);

/**
 * config_format_mac() - "12:34:56:78:90:ab".
 * @text: at least 18 bytes.
 *
 * Threads: any.
 */
void config_format_mac(const uint8_t mac[MAC_LEN], char *text);

#endif
