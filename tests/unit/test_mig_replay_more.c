/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transcripts of migrations whose pages are compressed, and whose memory is
 * handed over: each engine against the recorded other end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fakes/golden.h"
#include "tests/unit/mig_transcript.h"

static const struct {
    const char *name; /* under tests/golden/migration/ */
    struct transcript_with with;
} rows[] = {
    {"v1-zstd",   {.compression = MIG_COMPRESSION_ZSTD}},
    {"v1-memory", {.local = true}                      },
};

/* --- Bytes of a lane, whatever the library made of the pages -------------- */

/* Append. */
static void put(struct transcript_bytes *b, const void *data, size_t len)
{
    b->p = realloc(b->p, b->len + len + 1);
    assert_non_null(b->p);
    if (len)
        memcpy(b->p + b->len, data, len);
    b->len += len;
}

/* How many bytes a frame's data runs are. */
static size_t pages_len(const uint8_t *runs, unsigned nr)
{
    size_t len = 0;

    for (unsigned i = 0; i < nr; i++) {
        struct mig_run_wire run;

        memcpy(&run, runs + i * sizeof(run), sizeof(run));
        if (le32_get(run.kind) == MIG_RUN_DATA)
            len += (size_t)le32_get(run.nr) << PAGE_SHIFT_4K;
    }
    return len;
}

/* A PAGES message with its payload unpacked; returns its codec. */
static unsigned put_pages(struct transcript_bytes *out, const uint8_t *msg, size_t len)
{
    struct mig_pages_hdr ph;
    struct mig_packer *packer;
    const void *data;
    size_t head, want;

    memcpy(&ph, msg + TRANSCRIPT_HDR, sizeof(ph));
    head = TRANSCRIPT_HDR + sizeof(ph) + le32_get(ph.nr_runs) * sizeof(struct mig_run_wire);
    want = pages_len(msg + TRANSCRIPT_HDR + sizeof(ph), le32_get(ph.nr_runs));
    assert_int_equal(len, head + le32_get(ph.payload_len));
    if (le32_get(ph.codec) == MIG_CODEC_RAW) {
        put(out, msg, len);
        return MIG_CODEC_RAW;
    }
    assert_true(len - head < want);
    assert_int_equal(mig_packer_new(&packer), 0);
    memcpy(mig_packer_input(packer), msg + head, len - head);
    assert_int_equal(mig_packer_unpack(packer, len - head, want, &data, NULL), 0);
    /* Both lengths are the library's business. */
    ph.payload_len = le32_make(0);
    put(out, &ph, sizeof(ph));
    put(out, msg + TRANSCRIPT_HDR + sizeof(ph), head - TRANSCRIPT_HDR - sizeof(ph));
    put(out, data, want);
    mig_packer_free(packer);
    return le32_get(ph.codec);
}

/* The lane with every frame unpacked; *ret_packed: how many were packed. */
static struct transcript_bytes unpacked(const struct transcript_bytes *lane, unsigned *ret_packed)
{
    struct transcript_bytes out = {0};

    *ret_packed = 0;
    for (size_t at = 0; at < lane->len;) {
        struct mig_msg_hdr hdr;
        size_t len;

        assert_true(lane->len - at >= TRANSCRIPT_HDR);
        memcpy(&hdr, lane->p + at, TRANSCRIPT_HDR);
        len = TRANSCRIPT_HDR + le32_get(hdr.len);
        assert_true(len <= lane->len - at);
        if (le16_get(hdr.type) != MIG_MSG_PAGES)
            put(&out, lane->p + at, len);
        else
            *ret_packed += put_pages(&out, lane->p + at, len) == MIG_CODEC_ZSTD;
        at += len;
    }
    return out;
}

static void assert_equal(const struct transcript_bytes *a, const struct transcript_bytes *b)
{
    assert_int_equal(a->len, b->len);
    assert_memory_equal(a->p, b->p, a->len);
}

/* Equal lanes; the pages may have been packed by another version of zstd. */
static void assert_lanes_equal(const struct transcript_bytes *a, const struct transcript_bytes *b,
                               bool is_packed)
{
    unsigned packed_a, packed_b;
    struct transcript_bytes x = unpacked(a, &packed_a), y = unpacked(b, &packed_b);

    assert_int_equal(packed_a > 0, is_packed);
    assert_int_equal(packed_b > 0, is_packed);
    assert_equal(&x, &y);
    free(x.p);
    free(y.p);
}

/* --- The tests ------------------------------------------------------------ */

/* Write what is not there, if asked to. */
static void record_lane(const char *name, const struct transcript_bytes *lane)
{
    const char *mode = getenv("CHRYSALIS_GOLDEN");
    char path[128];

    (void)snprintf(path, sizeof(path), "migration/%s/lane0-to-destination.bin", name);
    if (mode && !strcmp(mode, "write"))
        golden_check(path, lane->p, lane->len);
}

static void test_the_engines_write_the_golden_transcripts(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct transcript made, t = {0};
        char path[128];

        transcript_record(&rows[i].with, &made);
        (void)snprintf(path, sizeof(path), "migration/%s/control-to-destination.bin", rows[i].name);
        golden_check(path, made.to_dest.p, made.to_dest.len);
        (void)snprintf(path, sizeof(path), "migration/%s/control-to-source.bin", rows[i].name);
        golden_check(path, made.to_source.p, made.to_source.len);
        record_lane(rows[i].name, &made.lane);
        transcript_read(&t, rows[i].name);
        assert_lanes_equal(&made.lane, &t.lane, rows[i].with.compression == MIG_COMPRESSION_ZSTD);
        transcript_release(&made);
        transcript_release(&t);
    }
}

static void test_a_destination_takes_a_recorded_guest(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct transcript t = {0}, got;
        struct fake_guest whole, to;

        transcript_read(&t, rows[i].name);
        fake_guest_start(&whole, &transcript_guest);
        assert_int_equal(transcript_run_dest(&t, &rows[i].with, &to, &got), 0);
        assert_true(fake_guest_equal(&whole, &to));
        transcript_normalise(&got);
        assert_equal(&got.to_source, &t.to_source);
        transcript_release(&got);
        transcript_release(&t);
        fake_guest_release(&whole);
        fake_guest_release(&to);
    }
}

static void test_a_source_hands_over_to_a_recorded_destination(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct transcript t = {0}, got;
        enum mig_result result;
        struct fake_guest from;

        transcript_read(&t, rows[i].name);
        assert_int_equal(transcript_run_source(&t, &rows[i].with, &from, &result, &got), 0);
        assert_int_equal(result, MIG_RESULT_COMPLETED);
        transcript_normalise(&got);
        assert_equal(&got.to_dest, &t.to_dest);
        assert_lanes_equal(&got.lane, &t.lane, rows[i].with.compression == MIG_COMPRESSION_ZSTD);
        transcript_release(&got);
        transcript_release(&t);
        fake_guest_release(&from);
    }
}

/* Every byte of a lane but its secret, changed: of one that hands memory over, and one that packs. */
static void test_a_changed_byte_on_a_lane_never_does_harm(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct transcript t = {0}, got;
        struct fake_guest to;
        unsigned refused = 0;

        transcript_read(&t, rows[i].name);
        for (size_t at = TRANSCRIPT_HDR + MIG_SECRET_SIZE; at < t.lane.len;
             at += at < 400 || at > t.lane.len - 150 ? 1 : 97) {
            t.lane.p[at] ^= 0x81;
            refused += transcript_run_dest(&t, &rows[i].with, &to, &got) < 0;
            t.lane.p[at] ^= 0x81;
            transcript_release(&got);
            fake_guest_release(&to);
        }
        assert_true(refused > 50);
        transcript_release(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_engines_write_the_golden_transcripts),
        cmocka_unit_test(test_a_destination_takes_a_recorded_guest),
        cmocka_unit_test(test_a_source_hands_over_to_a_recorded_destination),
        cmocka_unit_test(test_a_changed_byte_on_a_lane_never_does_harm),
    };

    return cmocka_run_group_tests_name("mig_replay_more", tests, NULL, NULL);
}
