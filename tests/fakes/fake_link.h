/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network of two hosts: socket pairs with a thread between them that
 * forwards bytes, counts and records them, delays them, and cuts them off at
 * any byte.
 */
#ifndef TESTS_FAKES_FAKE_LINK_H
#define TESTS_FAKES_FAKE_LINK_H

#include "migration/mig_dial.h"

enum {
    FAKE_LINK_CONNECTIONS = 16,
};

enum fake_dir {
    FAKE_TO_DEST,
    FAKE_TO_SOURCE,
};

struct fake_link;

struct fake_link_config {
    bool cut;          /* cut every connection ... */
    unsigned cut_conn; /* ... once this one (0: control) ... */
    enum fake_dir cut_dir;
    uint64_t cut_at;     /* ... has forwarded so many bytes in that direction */
    bool cut_at_record;  /* not in the middle of a TLS record, but where it ends */
    bool stall;          /* instead of cutting: forward nothing more, and keep it open */
    bool record;         /* keep what is forwarded */
    bool pass_fds;       /* forward descriptors too, message by message */
    unsigned delay_ms;   /* each way, for each piece */
    unsigned delay_seed; /* not 0: forward small pieces with random pauses */
    unsigned pause_ms; /* the longest of these, and most are far shorter; 0: 0.3 ms, and none is */
};

struct fake_link *fake_link_new(const struct fake_link_config *cfg);

/* The source shakes hands on each connection; @tls: borrowed, NULL: it does not. */
void fake_link_speak_tls(struct fake_link *link, struct mig_tls *tls);

/* Ends the thread and closes what is still open. */
void fake_link_free(struct fake_link *link);

/* mig_open_fn; arg is the struct fake_link. */
CHECKED int fake_link_connect(void *link, const struct mig_wait *wait, struct mig_channel **ret_ch,
                              struct err *err);
CHECKED int fake_link_accept(void *link, const struct mig_wait *wait, struct mig_channel **ret_ch,
                             struct err *err);

/* Readable where there is a connection to accept; borrowed. */
int fake_link_fd(const struct fake_link *link);

/* The destination takes no more connections; arg is the struct fake_link. */
void fake_link_stop_listening(void *link);

/* As though the byte had come at which it is cut, or stalls; arg is the struct fake_link. */
void fake_link_cut(void *link);

/* Bytes forwarded so far. */
uint64_t fake_link_bytes(struct fake_link *link, unsigned conn, enum fake_dir dir);

/* What was recorded: borrowed until fake_link_free(). */
const uint8_t *fake_link_record(struct fake_link *link, unsigned conn, enum fake_dir dir,
                                size_t *ret_len);

#endif
