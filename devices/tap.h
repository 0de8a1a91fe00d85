/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tap interface of the host: one descriptor for each pair of queues.
 *
 * Frames go through the descriptors with a virtio network header of 12 bytes,
 * little-endian, in front.
 */
#ifndef DEVICES_TAP_H
#define DEVICES_TAP_H

#include "core/err.h"

enum {
    TAP_PAIRS_MAX = 127,
    TAP_NAME_MAX = 15, /* bytes of an interface's name */
    TAP_MAC_LEN = 6,
    TAP_VNET_HDR_LEN = 12,
};

struct tap;

struct tap_params {
    const char *name; /* existing or to be created, may hold "%d"; NULL: "vmtap%d" */
    unsigned nr_pairs;
    const char *ip;          /* of the host's end, IPv4 or IPv6, as text; NULL: left alone */
    const char *mask;        /* as text; NULL: left alone */
    const uint8_t *host_mac; /* TAP_MAC_LEN bytes; NULL: left alone */
    unsigned mtu;            /* 0: left alone */
    const int *fds; /* nr_pairs open descriptors instead of a name; NULL: none; taken on success */
};

/**
 * tap_open() - open or create an interface, set it up and switch it on.
 * @p: borrowed for the call.
 *
 * Descriptors that were passed in are only given the header's length; the
 * interface behind them is left as it is, but for what @p says.
 *
 * Return: 0 and *@ret_tap, owned, to be given to tap_close(); -EINVAL for bad
 * parameters or a descriptor that is no tap; the kernel's errno.
 * Threads: control.
 */
CHECKED int tap_open(const struct tap_params *p, struct tap **ret_tap, struct err *err);

/**
 * tap_close() - close the descriptors; an interface of ours disappears.
 * @t: taken; NULL is allowed.
 *
 * Threads: control.
 */
void tap_close(struct tap *t);

/**
 * tap_name() - the interface's name.
 *
 * Return: borrowed.
 * Threads: any.
 */
const char *tap_name(const struct tap *t);

/**
 * tap_nr_pairs() - how many descriptors there are.
 *
 * Return: the number.
 * Threads: any.
 */
unsigned tap_nr_pairs(const struct tap *t);

/**
 * tap_fd() - the descriptor of a pair of queues; non-blocking.
 *
 * Return: borrowed.
 * Threads: any.
 */
int tap_fd(const struct tap *t, unsigned pair);

/**
 * tap_offloads() - which TUN_F_* the kernel takes.
 *
 * Return: the flags.
 * Threads: any.
 */
unsigned tap_offloads(const struct tap *t);

/**
 * tap_set_offloads() - what frames from the host may look like.
 * @flags: TUN_F_*, among tap_offloads().
 *
 * Return: 0; the kernel's errno.
 * Threads: one at a time.
 */
CHECKED int tap_set_offloads(struct tap *t, unsigned flags);

/**
 * tap_set_pairs() - have the kernel spread frames over the first @nr descriptors only.
 *
 * Does nothing on an interface with one.
 *
 * Return: 0; the kernel's errno.
 * Threads: one at a time.
 */
CHECKED int tap_set_pairs(struct tap *t, unsigned nr);

#endif
