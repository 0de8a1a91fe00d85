/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a source tells of itself beyond its configuration, so that a
 * destination can refuse before the first page: the disks as they are there,
 * and the versions of the state that will come.
 *
 * JSON; docs/migration-protocol.md 3.16.
 */
#ifndef TOOLS_CHVMM_FACTS_H
#define TOOLS_CHVMM_FACTS_H

#include "core/config/vm_config.h"
#include "core/vm.h"

enum {
    FACTS_DISKS_MAX = 256,
    FACTS_SECTIONS_MAX = 512,
    FACTS_ID_MAX = 64,    /* bytes of an id */
    FACTS_BOOT_SIZE = 37, /* a UUID as text, with the final 0 */
};

struct fact_disk {
    char id[FACTS_ID_MAX + 1];
    uint64_t size;   /* bytes */
    uint64_t device; /* st_dev */
    uint64_t inode;
};

struct fact_section {
    char id[FACTS_ID_MAX + 1];
    uint32_t version;
};

struct facts {
    char boot[FACTS_BOOT_SIZE]; /* of the source's kernel; empty: not known */
    unsigned nr_disks;
    unsigned nr_sections;
    struct fact_disk disks[FACTS_DISKS_MAX];
    struct fact_section sections[FACTS_SECTIONS_MAX];
};

/* Called once for each reason against taking the guest in. */
typedef void facts_refuse_fn(void *arg, const char *reason);

/**
 * facts_make() - the facts of a machine.
 *
 * Return: 0, *@ret_text, owned, and its length; -ENOMEM.
 * Threads: any, while the machine is not taken apart.
 */
CHECKED int facts_make(struct vm *vm, char **ret_text, size_t *ret_len, struct err *err);

/**
 * facts_parse() - read what a source sent.
 * @text:      @len bytes, any content.
 * @ret_facts: heap, owned; free().  Members that are not known are skipped.
 *
 * Return: 0; -EINVAL or -E2BIG with the member in @err; -ENOMEM.
 * Threads: any.
 */
CHECKED int facts_parse(const char *text, size_t len, struct facts **ret_facts, struct err *err);

/**
 * facts_check_host() - everything outside of the machine that this host lacks for it.
 * @facts: NULL: the source has told none.
 *
 * Disks: there, can be opened, as large as at the source, and not locked by
 * anybody but the source; taps; memory.
 *
 * Return: how many reasons there are.
 * Threads: any.
 */
unsigned facts_check_host(const struct facts *facts, const struct vm_config *cfg,
                          facts_refuse_fn *refuse, void *arg);

/**
 * facts_check_size() - whether this host has so much memory available now.
 *
 * Return: 0; -ENOMEM with both figures in @err.
 * Threads: any.
 */
CHECKED int facts_check_size(uint64_t bytes, struct err *err);

/**
 * facts_check_state() - whether the state that will come can be read here.
 * @vm: built.
 *
 * Return: how many reasons there are.
 * Threads: control, or who the VM is lent to.
 */
unsigned facts_check_state(const struct facts *facts, struct vm *vm, facts_refuse_fn *refuse,
                           void *arg);

#endif
