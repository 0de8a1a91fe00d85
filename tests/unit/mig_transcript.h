/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transcripts of a migration with one lane: made by both engines, and each
 * engine against the recorded other end.
 */
#ifndef TESTS_UNIT_MIG_TRANSCRIPT_H
#define TESTS_UNIT_MIG_TRANSCRIPT_H

#include "tests/fakes/fake_link.h"
#include "tests/fakes/fake_pair.h"

enum {
    TRANSCRIPT_HDR = sizeof(struct mig_msg_hdr),
    TRANSCRIPT_LANE = TRANSCRIPT_HDR + sizeof(struct mig_lane_wire), /* the whole message */
};

/* Waits for longer than any test's peer is silent. */
extern const struct mig_wait transcript_patient;

/* The guest of the transcripts; the same with memory that can be handed over. */
extern const struct fake_guest_config transcript_guest;

struct transcript_bytes {
    uint8_t *p; /* owned */
    size_t len;
};

/* Control there and back, the lane there. */
struct transcript {
    struct transcript_bytes to_dest, to_source, lane;
};

/* What a migration has besides; all zero: nothing. */
struct transcript_with {
    const char *facts; /* the source tells them */
    enum mig_compression compression;
    bool local; /* memory is handed over */
};

/* Free the bytes. */
void transcript_release(struct transcript *t);

/* Read the three files of tests/golden/migration/<name>/. */
void transcript_read(struct transcript *t, const char *name);

/* Replace what differs from run to run: the secret and the times. */
void transcript_normalise(struct transcript *t);

/* Offset of the first message of a type; b->len if there is none. */
size_t transcript_find(const struct transcript_bytes *b, enum mig_msg type);

/* Both engines, and what they said; normalised. */
void transcript_record(const struct transcript_with *with, struct transcript *ret_t);

/*
 * The destination's engine against a recorded source.
 * @to: to be released; what the engine built.
 * @ret_got: what the engine said, in to_source.
 *
 * Return: what mig_dest_run() returned.
 */
int transcript_run_dest(const struct transcript *t, const struct transcript_with *with,
                        struct fake_guest *to, struct transcript *ret_got);

/*
 * The source's engine against a recorded destination.
 * @from: to be released; the guest that was moved, or not.
 * @ret_got: what the engine said, in to_dest and lane.
 *
 * Return: what mig_source_run() returned.
 */
int transcript_run_source(const struct transcript *t, const struct transcript_with *with,
                          struct fake_guest *from, enum mig_result *ret_result,
                          struct transcript *ret_got);

#endif
