/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events for whoever watches a VM: Cloud Hypervisor's --event-monitor.
 *
 * One pretty-printed JSON object an event, with an empty line behind it:
 * timestamp (since the monitor was opened), source, event, properties.
 * A reader that is slow loses whole events; it never holds up the VM.
 *
 * Spec: docs/api.md, Events.
 */
#ifndef CORE_EVENT_MONITOR_H
#define CORE_EVENT_MONITOR_H

#include "core/err.h"

struct event_monitor;

struct event_property {
    const char *key, *value; /* any text without NUL */
};

enum {
    EVENT_BYTES_MAX = 2048,  /* of one event: a pipe takes that whole or not at all */
    EVENT_GUEST_BURST = 256, /* events that a guest may cause at once... */
    EVENT_GUEST_PER_S = 16,  /* ...and again each second */
};

/**
 * event_monitor_open() - start the clock and open the target.
 * @path: file, FIFO or terminal to append to; NULL: @fd.
 * @fd:   open descriptor, taken, also on failure; -1: @path.
 *
 * Return: 0 and *@ret_em, owned, to be given to event_monitor_close(); -EBADF for
 * a descriptor that is only for reading; -ENOMEM; the kernel's errno, named.
 * Threads: any.
 */
CHECKED int event_monitor_open(const char *path, int fd, struct event_monitor **ret_em,
                               struct err *err);

/**
 * event_monitor_close() - close and free.
 * @em: taken; NULL is allowed.
 *
 * Threads: the last user.
 */
void event_monitor_close(struct event_monitor *em);

/**
 * event_monitor_emit() - report an event.
 * @em:     NULL is allowed: nobody watches.
 * @source: "vmm", "vm", "virtio-device", ...
 * @event:  "booted", ...
 * @props:  @nr_props of them; properties that make it longer than
 *          EVENT_BYTES_MAX are left out.
 *
 * Threads: any; one write(2) that does not block.
 */
void event_monitor_emit(struct event_monitor *em, const char *source, const char *event,
                        const struct event_property *props, unsigned nr_props);

/**
 * event_monitor_emit_id() - report an event of something that has an id.
 * @id: NULL: without properties.
 *
 * Threads: as event_monitor_emit().
 */
void event_monitor_emit_id(struct event_monitor *em, const char *source, const char *event,
                           const char *id);

/**
 * event_monitor_emit_guest() - as event_monitor_emit_id(), of what a guest can cause at will.
 *
 * After EVENT_GUEST_BURST of them only EVENT_GUEST_PER_S a second are written,
 * so that a guest cannot fill a disk; the others count as dropped.
 *
 * Threads: as event_monitor_emit().
 */
void event_monitor_emit_guest(struct event_monitor *em, const char *source, const char *event,
                              const char *id);

/**
 * event_monitor_dropped() - how many events were lost: nobody read, or the guest caused too many.
 *
 * Threads: any.
 */
uint64_t event_monitor_dropped(struct event_monitor *em);

#endif
