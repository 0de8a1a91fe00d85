/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bringing a VM back from a store.
 *
 *     snap_open -> snap_describe -> (build the machine: vm_new) -> snap_load -> snap_close
 *                                     beside it: snap_look_ahead
 */
#ifndef SNAPSHOT_SNAP_RESTORE_H
#define SNAPSHOT_SNAP_RESTORE_H

#include "core/vm.h"
#include "snapshot/snap_lazy.h"
#include "snapshot/snap_progress.h"

struct gmem;
struct snap;
struct vm_config;

/**
 * snap_open() - open a snapshot.
 * @url: "store:/path#name" or "file:///dir"; without a name, the newest.
 *
 * Return: 0 and *@ret_snap, owned; -EINVAL, -ENOENT, -EBADMSG and others with @err.
 * Threads: any.
 */
CHECKED int snap_open(const char *url, struct snap **ret_snap, struct err *err);

/**
 * snap_close() - close it; the store is let go, once nothing is brought from it any more.
 * @snap: taken; NULL is allowed.
 *
 * Threads: the last user.
 */
void snap_close(struct snap *snap);

/**
 * snap_describe() - what is needed to build the machine.
 * @ret_cfg:   owned, to be given to vm_config_release().
 * @ret_model: owned; free().
 *
 * Return: 0; as vm_parse_description().
 * Threads: any.
 */
CHECKED int snap_describe(struct snap *snap, struct vm_config *ret_cfg,
                          struct cpu_model **ret_model, struct err *err);

/**
 * snap_disks() - what the machine's disks were, as JSON (snapshot/snap_disks.h).
 *
 * Return: borrowed from @snap.
 * Threads: any.
 */
const char *snap_disks(const struct snap *snap);

/* How memory comes into place. */
enum snap_memory_mode {
    SNAP_MEMORY_AUTO, /* mapped if there is an image, else on demand if that can be, else copied */
    SNAP_MEMORY_COPY, /* all of it, before anything runs */
    SNAP_MEMORY_LAZY, /* while the guest runs (snapshot/snap_lazy.h) */
    SNAP_MEMORY_MAPPED, /* mapped from an image, which is made if need be (snapshot/snap_image.h) */
};

struct snap_load_params {
    enum snap_memory_mode mode;
    /* SNAP_MEMORY_LAZY: as in struct snap_lazy_params. */
    void (*whole)(void *arg, const struct snap_lazy_figures *f);
    void (*lost)(void *arg, const struct err *err);
    void *arg; /* outlives the memory */
};

struct snap_loaded {
    enum snap_memory_mode mode; /* that was taken; never SNAP_MEMORY_AUTO */
    char why[200];              /* SNAP_MEMORY_AUTO: why nothing quicker was; else "" */
};

/**
 * snap_look_ahead() - read what was touched first at an earlier restore, for snap_load().
 * @mode:   as it will be given to snap_load().
 * @enough: asked between two reads; true ends it.
 *
 * Threads: a worker, while the machine is built.
 */
void snap_look_ahead(struct snap *snap, enum snap_memory_mode mode, bool (*enough)(void *arg),
                     void *arg);

/**
 * snap_memory_mode_name() - "auto", "copy", "ondemand", "mapped".
 *
 * Return: static.
 * Threads: any.
 */
const char *snap_memory_mode_name(enum snap_memory_mode mode);

/**
 * snap_load_memory() - contents for a machine's memory, or whoever brings them.
 * @gm: laid out as the snapshot's; nobody uses it.
 * @p:  begun.
 *
 * Every page is verified against its digest before it is delivered; an image
 * when it was expanded.
 *
 * Return: 0 and *@ret; -EINVAL for another layout; -EBADMSG or -ESTALE for a page
 * that is damaged or lost, named; -ENOTSUP, -EPERM and others where the mode that
 * was asked for cannot be had.
 * Threads: a worker.
 */
CHECKED int snap_load_memory(struct snap *snap, struct gmem *gm, const struct snap_load_params *how,
                             struct snap_progress *p, struct snap_loaded *ret, struct err *err);

/**
 * snap_load() - memory and state into a machine that was just built: VM_CREATED to VM_PAUSED.
 * @vm: built from snap_describe(); its memory is as its backing was.
 * @p:  zeroed.
 *
 * SNAP_MEMORY_LAZY keeps the snapshot open, also past snap_close(), until all is in place.
 *
 * Return: as snap_load_memory(); as vm_load().  On failure @vm is good only for vm_free().
 * Threads: a worker that the VM was lent to.
 */
CHECKED int snap_load(struct snap *snap, struct vm *vm, const struct snap_load_params *how,
                      struct snap_progress *p, struct snap_loaded *ret, struct err *err);

/**
 * snap_expand() - make the image that SNAP_MEMORY_MAPPED maps, if it is not there.
 * @p: zeroed.
 *
 * Return: 0; as snap_image_make().
 * Threads: a worker.
 */
CHECKED int snap_expand(struct snap *snap, struct snap_progress *p, struct err *err);

#endif
