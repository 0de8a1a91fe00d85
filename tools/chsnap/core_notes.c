/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chsnap/core_notes.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "core/state.h"
#include "core/wire.h"

enum {
    NOTE_PRSTATUS = 1, /* NT_PRSTATUS */
    NOTE_QEMU = 0,
    NOTE_NAME_LEN = 8, /* "CORE", "QEMU", padded */
    NOTE_HDR_LEN = 12 + NOTE_NAME_LEN,

    PRSTATUS_LEN = 336,
    PRSTATUS_PID = 32,
    PRSTATUS_REGS = 112,

    QEMU_LEN = 440, /* struct QEMUCPUState, version 1 */
    QEMU_VERSION = 1,

    MSR_KERNEL_GS_BASE = 0xc0000102, /* AMD64 manual 2, 6.1.1: what SWAPGS exchanges */

    NOTES_PER_CPU = 2 * NOTE_HDR_LEN + PRSTATUS_LEN + QEMU_LEN,
};

/* The order in which NT_PRSTATUS has them; "" has no counterpart in a stopped processor. */
static const char *const prstatus_regs[] = {
    "r15",    "r14", "r13", "r12",     "rbp",     "rbx", "r11", "r10", "r9",
    "r8",     "rax", "rcx", "rdx",     "rsi",     "rdi", "",    "rip", "cs",
    "rflags", "rsp", "ss",  "fs_base", "gs_base", "ds",  "es",  "fs",  "gs",
};

static const char *const qemu_regs[] = {
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8",
    "r9",  "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags",
};

static const char *const qemu_segments[] = {"cs", "ds", "es", "fs", "gs", "ss", "ldt", "tr"};

/* A member of a part that is written as {"fields": {...}}; NULL if it is not there. */
static struct json_object *part(struct json_object *o, const char *name)
{
    struct json_object *fields = NULL, *v = NULL;

    if (!json_object_is_type(o, json_type_object) ||
        !json_object_object_get_ex(o, "fields", &fields) ||
        !json_object_is_type(fields, json_type_object) ||
        !json_object_object_get_ex(fields, name, &v))
        return NULL;
    return v;
}

static uint64_t number(struct json_object *o, const char *name)
{
    struct json_object *v = part(o, name);

    if (json_object_is_type(v, json_type_boolean))
        return (uint64_t)json_object_get_boolean(v);
    return json_object_is_type(v, json_type_int) ? json_object_get_uint64(v) : 0;
}

/* A register by name: general, the selector of a segment, or the base of one. */
static uint64_t reg(struct json_object *cpu, const char *name)
{
    struct json_object *sregs = part(cpu, "sregs");

    if (strcmp(name, "fs_base") == 0)
        return number(part(sregs, "fs"), "base");
    if (strcmp(name, "gs_base") == 0)
        return number(part(sregs, "gs"), "base");
    if (strlen(name) == 2 && name[1] == 's')
        return number(part(sregs, name), "selector");
    return name[0] ? number(part(cpu, "regs"), name) : 0;
}

/* 0 if it was not saved. */
static uint64_t msr(struct json_object *cpu, uint32_t index)
{
    struct json_object *list = part(cpu, "msrs");
    size_t nr = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;

    for (size_t i = 0; i < nr; i++) {
        struct json_object *m = json_object_array_get_idx(list, i);

        if (number(m, "index") == index)
            return number(m, "value");
    }
    return 0;
}

static void put_header(struct wr *w, const char *name, uint32_t desc_len, uint32_t type)
{
    char padded[NOTE_NAME_LEN] = {0};

    (void)snprintf(padded, sizeof(padded), "%s", name);
    wr_le32(w, (uint32_t)strlen(name) + 1);
    wr_le32(w, desc_len);
    wr_le32(w, type);
    wr_bytes(w, padded, sizeof(padded));
}

static void put_zeroes(struct wr *w, size_t nr)
{
    while (nr--)
        wr_u8(w, 0);
}

static void put_prstatus(struct wr *w, struct json_object *cpu, unsigned index)
{
    put_header(w, "CORE", PRSTATUS_LEN, NOTE_PRSTATUS);
    put_zeroes(w, PRSTATUS_PID);
    wr_le32(w, index + 1);
    put_zeroes(w, PRSTATUS_REGS - PRSTATUS_PID - sizeof(uint32_t));
    for (size_t i = 0; i < ARRAY_LEN(prstatus_regs); i++)
        wr_le64(w, reg(cpu, prstatus_regs[i]));
    put_zeroes(w, PRSTATUS_LEN - PRSTATUS_REGS - ARRAY_LEN(prstatus_regs) * sizeof(uint64_t));
}

/* The descriptor's second word, as the processor has it. */
static uint32_t segment_flags(struct json_object *s)
{
    return (uint32_t)(number(s, "type") << 8 | number(s, "s") << 12 | number(s, "dpl") << 13 |
                      number(s, "present") << 15 | number(s, "avl") << 20 | number(s, "l") << 21 |
                      number(s, "db") << 22 | number(s, "g") << 23);
}

static void put_segment(struct wr *w, struct json_object *s, bool table)
{
    wr_le32(w, table ? 0 : (uint32_t)number(s, "selector"));
    wr_le32(w, (uint32_t)number(s, "limit"));
    wr_le32(w, table ? 0 : segment_flags(s));
    wr_le32(w, 0);
    wr_le64(w, number(s, "base"));
}

static void put_qemu(struct wr *w, struct json_object *cpu)
{
    static const char *const control[] = {"cr0", "", "cr2", "cr3", "cr4"};
    struct json_object *sregs = part(cpu, "sregs");

    put_header(w, "QEMU", QEMU_LEN, NOTE_QEMU);
    wr_le32(w, QEMU_VERSION);
    wr_le32(w, QEMU_LEN);
    for (size_t i = 0; i < ARRAY_LEN(qemu_regs); i++)
        wr_le64(w, reg(cpu, qemu_regs[i]));
    for (size_t i = 0; i < ARRAY_LEN(qemu_segments); i++)
        put_segment(w, part(sregs, qemu_segments[i]), false);
    put_segment(w, part(sregs, "gdt"), true);
    put_segment(w, part(sregs, "idt"), true);
    for (size_t i = 0; i < ARRAY_LEN(control); i++)
        wr_le64(w, control[i][0] ? number(sregs, control[i]) : 0);
    wr_le64(w, msr(cpu, MSR_KERNEL_GS_BASE));
}

static bool is_cpu(struct json_object *section)
{
    struct json_object *type = NULL;

    return json_object_object_get_ex(section, "type", &type) &&
           strcmp(json_object_get_string(type), "x86-vcpu") == 0;
}

int core_notes_make(const uint8_t *state, size_t len, uint8_t **ret_notes, size_t *ret_len,
                    unsigned *ret_cpus, struct err *err)
{
    struct json_object *list = NULL;
    size_t nr, cpus = 0, at = 0;
    struct wr w = {0};
    int rc = state_to_json(state, len, &list, err);

    if (rc < 0)
        return rc;
    nr = json_object_array_length(list);
    for (size_t i = 0; i < nr; i++)
        cpus += is_cpu(json_object_array_get_idx(list, i));
    *ret_len = cpus * NOTES_PER_CPU;
    *ret_notes = cpus ? malloc(*ret_len) : NULL;
    if (!*ret_notes) {
        (void)json_object_put(list);
        return cpus ? err_set(err, -ENOMEM, "out of memory")
                    : err_set(err, -ENOENT, "device state: has no processor");
    }
    w = (struct wr){.p = *ret_notes, .left = *ret_len};
    for (size_t i = 0; i < nr; i++) {
        struct json_object *section = json_object_array_get_idx(list, i);

        if (!is_cpu(section))
            continue;
        put_prstatus(&w, section, (unsigned)at++);
        put_qemu(&w, section);
    }
    (void)json_object_put(list);
    *ret_cpus = (unsigned)cpus;
    return 0;
}
