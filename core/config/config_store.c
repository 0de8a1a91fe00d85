/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values in and out of the structs by their tables: keep, copy, free.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/config/config_internal.h"
#include "core/json_get.h"
#include "core/utf8.h"

/* ---- numbers --------------------------------------------------------------- */

void config_store_u64(const struct config_field *field, void *obj, uint64_t v)
{
    void *p = config_member(obj, field->off);

    if (field->kind == CONFIG_U8)
        *(uint8_t *)p = (uint8_t)v;
    else if (field->kind == CONFIG_U16)
        *(uint16_t *)p = (uint16_t)v;
    else if (field->kind == CONFIG_U32)
        *(uint32_t *)p = (uint32_t)v;
    else
        *(uint64_t *)p = v;
}

uint64_t config_load_u64(const struct config_field *field, const void *obj)
{
    const void *p = config_member_const(obj, field->off);

    if (field->kind == CONFIG_U8)
        return *(const uint8_t *)p;
    if (field->kind == CONFIG_U16)
        return *(const uint16_t *)p;
    if (field->kind == CONFIG_U32)
        return *(const uint32_t *)p;
    return *(const uint64_t *)p;
}

/* ---- text ------------------------------------------------------------------ */

static int config_hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool config_parse_mac(const char *text, uint8_t mac[MAC_LEN])
{
    if (strlen(text) != 3 * MAC_LEN - 1)
        return false;
    for (size_t i = 0; i < MAC_LEN; i++) {
        int hi = config_hex_digit(text[3 * i]);
        int lo = config_hex_digit(text[3 * i + 1]);

        if (hi < 0 || lo < 0 || (i < MAC_LEN - 1 && text[3 * i + 2] != ':'))
            return false;
        mac[i] = (uint8_t)(hi << 4 | lo);
    }
    return true;
}

void config_format_mac(const uint8_t mac[MAC_LEN], char *text)
{
    for (size_t i = 0; i < MAC_LEN; i++)
        (void)snprintf(text + 3 * i, 4, "%02x%s", mac[i], i < MAC_LEN - 1 ? ":" : "");
}

enum {
    UUID_TEXT_LEN = 36,
};

static bool config_parse_uuid(const char *text, char out[UUID_TEXT_LEN + 1])
{
    if (strlen(text) != UUID_TEXT_LEN)
        return false;
    for (int i = 0; i < UUID_TEXT_LEN; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;

        if (dash ? text[i] != '-' : config_hex_digit(text[i]) < 0)
            return false;
        out[i] = (char)(text[i] >= 'A' && text[i] <= 'F' ? text[i] - 'A' + 'a' : text[i]);
    }
    out[UUID_TEXT_LEN] = 0;
    return true;
}

static int config_check_text(const char *what, const char *text, size_t max, struct err *err)
{
    size_t len = strlen(text);

    if (len > max)
        return err_set(err, -E2BIG, "%s: longer than %zu bytes", what, max);
    if (!utf8_ok(text, len))
        return err_set(err, -EINVAL, "%s: not UTF-8", what);
    return 0;
}

int config_store_text(const struct config_field *field, void *obj, const char *what,
                      const char *text, struct err *err)
{
    char uuid[UUID_TEXT_LEN + 1];
    uint8_t mac[MAC_LEN];
    char **s;
    int rc;

    rc = config_check_text(what, text, field->max ? field->max : VM_CONFIG_STRING_MAX, err);
    if (rc)
        return rc;
    if (field->kind == CONFIG_MAC) {
        if (!config_parse_mac(text, mac))
            return err_set(err, -EINVAL, "%s: not a MAC address (12:34:56:78:90:ab)", what);
        memcpy(config_member(obj, field->off), mac, sizeof(mac));
        *(bool *)config_member(obj, field->off_nr) = true;
        return 0;
    }
    s = config_member(obj, field->off);
    if (*s)
        return err_set(err, -EINVAL, "%s: is there already, under another name", what);
    if (field->kind == CONFIG_UUID) {
        if (!config_parse_uuid(text, uuid))
            return err_set(err, -EINVAL, "%s: not a UUID", what);
        text = uuid;
    }
    *s = strdup(text);
    return *s ? 0 : err_set(err, -ENOMEM, "out of memory");
}

/* ---- arrays ---------------------------------------------------------------- */

/* Room for one more element of @size bytes, zeroed. */
static int config_grow(const struct config_field *field, void *obj, const char *what, size_t size,
                       void **ret_elem, struct err *err)
{
    unsigned *nr = config_member(obj, field->off_nr);
    void **xs = config_member(obj, field->off);
    void *grown;

    if (*nr >= field->max)
        return err_set(err, -E2BIG, "%s: more than %u", what, (unsigned)field->max);
    grown = reallocarray(*xs, (size_t)*nr + 1, size);
    if (!grown)
        return err_set(err, -ENOMEM, "out of memory");
    *xs = grown;
    *ret_elem = (char *)grown + *nr * size;
    memset(*ret_elem, 0, size);
    (*nr)++;
    return 0;
}

int config_append_string(const struct config_field *field, void *obj, const char *what,
                         const char *text, struct err *err)
{
    void *elem = NULL;
    char *copy;
    int rc = config_check_text(what, text, VM_CONFIG_STRING_MAX, err);

    if (rc)
        return rc;
    copy = strdup(text);
    if (!copy)
        return err_set(err, -ENOMEM, "out of memory");
    rc = config_grow(field, obj, what, sizeof(char *), &elem, err);
    if (rc) {
        free(copy);
        return rc;
    }
    *(char **)elem = copy;
    return 0;
}

int config_append_fd(const struct config_field *field, void *obj, const char *what, int fd,
                     struct err *err)
{
    void *elem = NULL;
    int rc = config_grow(field, obj, what, sizeof(int), &elem, err);

    if (!rc)
        *(int *)elem = fd;
    return rc;
}

int config_append_object(const struct config_field *field, void *obj, const char *what,
                         void **ret_obj, struct err *err)
{
    const struct config_table *table = field->aux;

    return config_grow(field, obj, what, table->size, ret_obj, err);
}

int config_refuse(const struct config_field *field, const char *what, struct err *err)
{
    return err_set(err, -ENOTSUP, "%s: not supported yet by this version%s%s", what,
                   field->note ? "; " : "", field->note ? field->note : "");
}

/* ---- release --------------------------------------------------------------- */

static void config_release_field(const struct config_field *field, void *obj)
{
    void **xs = config_member(obj, field->off);
    const struct config_table *table = field->aux;
    unsigned nr;

    if (field->kind == CONFIG_OBJECT) {
        config_release_object(table, xs);
        return;
    }
    if (field->kind == CONFIG_STRING || field->kind == CONFIG_UUID) {
        free(*xs);
        *xs = NULL; /* an alias comes by later */
        return;
    }
    if (field->kind != CONFIG_STRINGS && field->kind != CONFIG_OBJECTS && field->kind != CONFIG_FDS)
        return;
    nr = *(unsigned *)config_member(obj, field->off_nr);
    for (unsigned i = 0; i < nr; i++) {
        if (field->kind == CONFIG_STRINGS)
            free(((char **)*xs)[i]);
        else if (field->kind == CONFIG_OBJECTS)
            config_release_object(table, (char *)*xs + i * table->size);
    }
    free(*xs);
}

void config_release_object(const struct config_table *table, void *obj)
{
    for (unsigned i = 0; i < table->nr_fields; i++)
        config_release_field(&table->fields[i], obj);
    memset(obj, 0, table->size);
}

void vm_config_release(struct vm_config *cfg)
{
    config_release_object(&vm_config_table, cfg);
}

void vm_config_close_fds(struct vm_config *cfg)
{
    for (unsigned i = 0; i < cfg->nr_nets; i++) {
        struct net_config *net = &cfg->nets[i];

        for (unsigned j = 0; j < net->nr_fds; j++) {
            if (net->fds[j] >= 0)
                (void)close(net->fds[j]);
            net->fds[j] = -1;
        }
    }
}

/* ---- copy ------------------------------------------------------------------ */

static int config_copy_object(const struct config_table *table, const void *src, void *dst);

static int config_copy_string(const struct config_field *field, const void *src, void *dst)
{
    char *const *from = config_member_const(src, field->off);

    if (!*from || (field->flags & CONFIG_ALIAS))
        return 0;
    return vm_config_set_string(config_member(dst, field->off), *from);
}

static int config_copy_array(const struct config_field *field, const void *src, void *dst)
{
    unsigned nr = *(const unsigned *)config_member_const(src, field->off_nr);
    const void *const *from = config_member_const(src, field->off);
    const struct config_table *table = field->aux;
    void *obj = NULL;
    int rc = 0;

    for (unsigned i = 0; i < nr && !rc; i++) {
        if (field->kind == CONFIG_FDS) {
            rc = config_append_fd(field, dst, "", ((const int *)*from)[i], NULL);
        } else if (field->kind == CONFIG_STRINGS) {
            rc = config_append_string(field, dst, "", ((char *const *)*from)[i], NULL);
        } else {
            rc = config_append_object(field, dst, "", &obj, NULL);
            if (!rc)
                rc = config_copy_object(table, (const char *)*from + i * table->size, obj);
        }
    }
    return rc;
}

static int config_copy_field(const struct config_field *field, const void *src, void *dst)
{
    const void *from = config_member_const(src, field->off);
    void *to = config_member(dst, field->off);

    switch (field->kind) {
    case CONFIG_BOOL:
    case CONFIG_NOT:
        *(bool *)to = *(const bool *)from;
        return 0;
    case CONFIG_U8:
    case CONFIG_U16:
    case CONFIG_U32:
    case CONFIG_SIZE:
        config_store_u64(field, dst, config_load_u64(field, src));
        return 0;
    case CONFIG_STRING:
    case CONFIG_UUID:
        return config_copy_string(field, src, dst);
    case CONFIG_NAME:
        *(int *)to = *(const int *)from;
        return 0;
    case CONFIG_MAC:
        memcpy(to, from, MAC_LEN);
        *(bool *)config_member(dst, field->off_nr) =
            *(const bool *)config_member_const(src, field->off_nr);
        return 0;
    case CONFIG_STRINGS:
    case CONFIG_FDS:
    case CONFIG_OBJECTS:
        return config_copy_array(field, src, dst);
    case CONFIG_OBJECT:
        return config_copy_object(field->aux, from, to);
    case CONFIG_FLAGS:
        return config_copy_object(field->aux, src, dst);
    case CONFIG_FLAG:
    case CONFIG_REFUSED:
        return 0;
    }
    return -EINVAL;
}

static int config_copy_object(const struct config_table *table, const void *src, void *dst)
{
    int rc = 0;

    for (unsigned i = 0; i < table->nr_fields && !rc; i++)
        rc = config_copy_field(&table->fields[i], src, dst);
    return rc;
}

int vm_config_copy(const struct vm_config *src, struct vm_config *ret_dst)
{
    struct vm_config copy = {0};
    int rc = config_copy_object(&vm_config_table, src, &copy);

    if (rc) {
        vm_config_release(&copy);
        return rc;
    }
    *ret_dst = copy;
    return 0;
}

int vm_config_set_string(char **field, const char *value)
{
    char *copy = NULL;

    if (value) {
        copy = strdup(value);
        if (!copy)
            return -ENOMEM;
    }
    free(*field);
    *field = copy;
    return 0;
}
