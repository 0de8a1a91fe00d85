/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AML, written at run time: the byte code of ACPI's DSDT.
 *
 * AML is prefix code: an operator is followed by its operands.  So the calls
 * stand in the order in which ASL's words stand, and everything between
 * aml_x_begin() and its aml_end() is inside:
 *
 *     aml_device_begin(a, "PWRB");              Device (PWRB) {
 *     aml_name_eisa_id(a, "_HID", "PNP0C0C");       Name (_HID, EISAID ("PNP0C0C"))
 *     aml_end(a);                               }
 *
 *     aml_if_begin(a);                          If (
 *     aml_op(a, AML_AND);                           And (
 *     aml_local(a, 0);                                  Local0,
 *     aml_int(a, 8);                                    8,
 *     aml_null(a);                                      )) {
 *     aml_notify(a, "\\_SB_.PWRB", 0x80);           Notify (\_SB.PWRB, 0x80)
 *     aml_end(a);                               }
 *
 * Names and counts come from this program, never from outside.  The writer
 * latches the first failure; aml_finish() tells of it.
 *
 * Spec: ACPI 6.5, chapter 20 (AML), 6.4 (resource descriptors).
 * Threads: any, one at a time on one writer.
 */
#ifndef CORE_X86_AML_H
#define CORE_X86_AML_H

#include "core/err.h"

enum {
    AML_DEPTH_MAX = 12,
};

/* An open package, block or resource template. */
struct aml_frame {
    size_t at;      /* where its length goes */
    bool resources; /* a buffer of resource descriptors */
};

/* A writer into memory of the caller. */
struct aml {
    uint8_t *data; /* borrowed */
    size_t len;
    size_t cap;
    int failed; /* negative errno of the first failure */
    unsigned depth;
    struct aml_frame frames[AML_DEPTH_MAX];
};

/* Operators; those above 0xff are two bytes. */
enum aml_opcode {
    AML_STORE = 0x70,
    AML_AND = 0x7b,
    AML_NOTIFY = 0x86,
    AML_LEQUAL = 0x93,
    AML_RETURN = 0xa4,
};

enum aml_space {
    AML_SYSTEM_MEMORY = 0,
    AML_SYSTEM_IO = 1,
};

/* Field flags: access width, lock rule, what happens to bits not written. */
enum {
    AML_FIELD_BYTE = 1,
    AML_FIELD_LOCK = 1 << 4,
    AML_FIELD_WRITE_AS_ZEROS = 2 << 5,
};

/* Interrupt flags. */
enum {
    AML_IRQ_EDGE_HIGH = 1 << 1,
};

/**
 * aml_init() - start writing.
 * @data, @cap: memory of the caller, borrowed until aml_finish().
 *
 * Threads: any.
 */
void aml_init(struct aml *a, uint8_t *data, size_t cap);

/**
 * aml_finish() - is everything written and closed?
 *
 * Return: 0; -E2BIG if the memory was too small; -EINVAL for a name that is
 * none, or a block that is still open: a mistake in the calls.
 * Threads: any.
 */
CHECKED int aml_finish(const struct aml *a, struct err *err);

/* --- Blocks -------------------------------------------------------------- */

/**
 * aml_device_begin() - Device (path) {.
 * aml_method_begin() - Method (path, nr_args, Serialized or not) {.
 * aml_if_begin() - If (; the condition follows, then the body.
 * aml_package_begin() - Package (nr) {; the elements follow.
 * aml_field_begin() - Field (region, flags) {; aml_field_unit() follow.
 * aml_resources_begin() - ResourceTemplate () {; aml_res_*() follow.
 * aml_end() - }.
 *
 * Threads: any, one at a time on one writer.
 */
void aml_device_begin(struct aml *a, const char *path);
void aml_method_begin(struct aml *a, const char *path, unsigned nr_args, bool serialized);
void aml_if_begin(struct aml *a);
void aml_package_begin(struct aml *a, unsigned nr);
void aml_field_begin(struct aml *a, const char *region, unsigned flags);
void aml_resources_begin(struct aml *a);
void aml_end(struct aml *a);

/* --- Objects and values -------------------------------------------------- */

/**
 * aml_name() - Name (path, ; the value follows.
 * aml_name_int() - Name (path, val).
 * aml_name_string() - Name (path, "s").
 * aml_name_eisa_id() - Name (path, EISAID ("id")).
 * aml_region() - OperationRegion (path, space, base, len).
 * aml_field_unit() - a field of @bits bits; NULL: skip them.
 * aml_op() - an operator; its operands follow.
 * aml_path() - a reference to an object, or a call of a method.
 * aml_notify() - Notify (path, val).
 * aml_int() - an integer in its shortest form.
 * aml_buffer() - Buffer () {bytes}.
 * aml_uuid() - ToUUID ("e5c937d0-3553-4d7a-9117-ea4d19c3434d").
 * aml_local() - Local0 to Local7.
 * aml_arg() - Arg0 to Arg6.
 * aml_null() - no name: a target that is not wanted.
 *
 * Threads: any, one at a time on one writer.
 */
void aml_name(struct aml *a, const char *path);
void aml_name_int(struct aml *a, const char *path, uint64_t val);
void aml_name_string(struct aml *a, const char *path, const char *s);
void aml_name_eisa_id(struct aml *a, const char *path, const char *id);
void aml_region(struct aml *a, const char *path, enum aml_space space, uint64_t base, uint64_t len);
void aml_field_unit(struct aml *a, const char *name, unsigned bits);
void aml_op(struct aml *a, enum aml_opcode op);
void aml_path(struct aml *a, const char *path);
void aml_notify(struct aml *a, const char *path, uint64_t val);
void aml_int(struct aml *a, uint64_t val);
void aml_buffer(struct aml *a, const void *bytes, size_t len);
void aml_uuid(struct aml *a, const char *uuid);
void aml_local(struct aml *a, unsigned n);
void aml_arg(struct aml *a, unsigned n);
void aml_null(struct aml *a);

/* --- Resource descriptors ------------------------------------------------ */

/**
 * aml_res_io() - IO (Decode16, base, base, 1, len).
 * aml_res_memory32() - Memory32Fixed (ReadWrite, base, len).
 * aml_res_irq() - Interrupt (ResourceConsumer, flags) {gsi}.
 * aml_res_bus() - WordBusNumber (ResourceProducer) of first to last.
 * aml_res_io_window() - WordIO (ResourceProducer) of first to last.
 * aml_res_memory_window() - DWordMemory (ResourceProducer) of [base, base + len).
 * aml_res_memory64_window() - QWordMemory (ResourceProducer).
 *
 * Threads: any, one at a time on one writer.
 */
void aml_res_io(struct aml *a, uint16_t base, uint8_t len);
void aml_res_memory32(struct aml *a, uint32_t base, uint32_t len);
void aml_res_irq(struct aml *a, unsigned flags, uint32_t gsi);
void aml_res_bus(struct aml *a, uint16_t first, uint16_t last);
void aml_res_io_window(struct aml *a, uint16_t first, uint16_t last);
void aml_res_memory_window(struct aml *a, uint32_t base, uint32_t len);
void aml_res_memory64_window(struct aml *a, uint64_t base, uint64_t len);

#endif
