/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transcripts: each engine against the recorded other end, as it was recorded
 * and with every byte changed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/loop.h"
#include "tests/fakes/golden.h"
#include "tests/unit/mig_transcript.h"

/* Of a source that tells facts: the lane and the way back are those of v1. */
static const char facts_name[] = "migration/v1-facts/control-to-destination.bin";
static const struct transcript_with nothing, facts = {.facts = "{\"boot\":\"fake\",\"disks\":[]}"};

/* --- What the engines write ---------------------------------------------- */

static void test_the_engines_write_the_golden_transcripts(void **state)
{
    struct transcript t;

    (void)state;
    transcript_record(&nothing, &t);
    golden_check("migration/v1/control-to-destination.bin", t.to_dest.p, t.to_dest.len);
    golden_check("migration/v1/control-to-source.bin", t.to_source.p, t.to_source.len);
    golden_check("migration/v1/lane0-to-destination.bin", t.lane.p, t.lane.len);
    transcript_release(&t);
}

static void test_the_destination_takes_a_recorded_guest(void **state)
{
    struct transcript t = {0}, got;
    struct fake_guest from, to;

    (void)state;
    transcript_read(&t, "v1");
    fake_guest_start(&from, &transcript_guest);
    assert_int_equal(transcript_run_dest(&t, &nothing, &to, &got), 0);
    assert_true(fake_guest_equal(&from, &to));
    transcript_normalise(&got);
    assert_int_equal(got.to_source.len, t.to_source.len);
    assert_memory_equal(got.to_source.p, t.to_source.p, t.to_source.len);
    transcript_release(&got);
    transcript_release(&t);
    fake_guest_release(&from);
    fake_guest_release(&to);
}

static void test_the_source_hands_over_to_a_recorded_destination(void **state)
{
    struct transcript t = {0}, got;
    enum mig_result result;
    struct fake_guest from;

    (void)state;
    transcript_read(&t, "v1");
    assert_int_equal(transcript_run_source(&t, &nothing, &from, &result, &got), 0);
    transcript_normalise(&got);
    assert_int_equal(got.to_dest.len, t.to_dest.len);
    assert_memory_equal(got.to_dest.p, t.to_dest.p, t.to_dest.len);
    assert_int_equal(got.lane.len, t.lane.len);
    assert_memory_equal(got.lane.p, t.lane.p, t.lane.len);
    transcript_release(&got);
    transcript_release(&t);
    fake_guest_release(&from);
}

/* --- Facts ---------------------------------------------------------------- */

static void use_facts(struct transcript *t)
{
    transcript_read(t, "v1");
    free(t->to_dest.p);
    t->to_dest.p = golden_read(facts_name, &t->to_dest.len);
    if (!t->to_dest.p)
        fail_msg("no golden file %s", facts_name);
}

static void test_a_source_tells_facts_as_it_was_recorded(void **state)
{
    struct transcript t = {0}, got;
    enum mig_result result;
    struct fake_guest from;

    (void)state;
    transcript_read(&t, "v1");
    assert_int_equal(transcript_run_source(&t, &facts, &from, &result, &got), 0);
    golden_check(facts_name, got.to_dest.p, got.to_dest.len);
    transcript_release(&got);
    transcript_release(&t);
    fake_guest_release(&from);
}

static void test_a_destination_hears_recorded_facts(void **state)
{
    struct transcript t = {0}, got;
    struct fake_guest to;

    (void)state;
    use_facts(&t);
    assert_int_equal(transcript_run_dest(&t, &nothing, &to, &got), 0);
    assert_string_equal(to.facts_heard, facts.facts);
    transcript_normalise(&got);
    /* What it says to them is nothing. */
    assert_int_equal(got.to_source.len, t.to_source.len);
    assert_memory_equal(got.to_source.p, t.to_source.p, t.to_source.len);
    transcript_release(&got);
    transcript_release(&t);
    fake_guest_release(&to);
}

/* --- Every byte changed -------------------------------------------------- */

static const uint8_t changes[] = {0x01, 0x80, 0xff};

static void test_a_changed_byte_to_the_destination_never_does_harm(void **state)
{
    struct transcript t = {0}, got;
    struct fake_guest to;
    unsigned refused = 0;

    (void)state;
    transcript_read(&t, "v1");
    for (size_t i = 0; i < t.to_dest.len; i++)
        for (unsigned k = 0; k < ARRAY_LEN(changes); k++) {
            t.to_dest.p[i] ^= changes[k];
            refused += transcript_run_dest(&t, &nothing, &to, &got) < 0;
            t.to_dest.p[i] ^= changes[k];
            transcript_release(&got);
            fake_guest_release(&to);
        }
    /* Most bytes matter. */
    assert_true(refused > t.to_dest.len);
    transcript_release(&t);
}

static void test_a_changed_byte_on_a_lane_never_does_harm(void **state)
{
    struct transcript t = {0}, got;
    struct fake_guest to;

    (void)state;
    transcript_read(&t, "v1");
    for (size_t i = TRANSCRIPT_HDR + MIG_SECRET_SIZE; i < t.lane.len;
         i += i < 300 || i > t.lane.len - 150 ? 1 : 997) {
        t.lane.p[i] ^= 0x81;
        (void)transcript_run_dest(&t, &nothing, &to, &got);
        t.lane.p[i] ^= 0x81;
        transcript_release(&got);
        fake_guest_release(&to);
    }
    transcript_release(&t);
}

static void test_a_changed_byte_to_the_source_never_does_harm(void **state)
{
    struct transcript t = {0}, got;
    enum mig_result result;
    struct fake_guest from;

    (void)state;
    transcript_read(&t, "v1");
    for (size_t i = 0; i < t.to_source.len; i++)
        for (unsigned k = 0; k < ARRAY_LEN(changes); k++) {
            t.to_source.p[i] ^= changes[k];
            (void)transcript_run_source(&t, &nothing, &from, &result, &got);
            t.to_source.p[i] ^= changes[k];
            /* Before the answer to COMMIT there is nothing undecided. */
            if (i < transcript_find(&t.to_source, MIG_MSG_LOADED))
                assert_int_not_equal(result, MIG_RESULT_UNDECIDED);
            transcript_release(&got);
            fake_guest_release(&from);
        }
    transcript_release(&t);
}

/* --- Hostile messages ---------------------------------------------------- */

/* Replace a message of the control stream by another one. */
static void replace(struct transcript_bytes *b, enum mig_msg at, unsigned type, unsigned flags,
                    const void *body, uint32_t body_len, uint32_t said_len)
{
    size_t off = transcript_find(b, at), len = 0;
    struct mig_msg_hdr hdr;
    uint8_t *p;

    if (off < b->len) {
        memcpy(&hdr, b->p + off, TRANSCRIPT_HDR);
        len = TRANSCRIPT_HDR + le32_get(hdr.len);
    }
    hdr = (struct mig_msg_hdr){le16_make((uint16_t)type), le16_make((uint16_t)flags),
                               le32_make(said_len)};
    p = malloc(b->len - len + TRANSCRIPT_HDR + body_len);
    assert_non_null(p);
    memcpy(p, b->p, off);
    memcpy(p + off, &hdr, TRANSCRIPT_HDR);
    if (body_len)
        memcpy(p + off + TRANSCRIPT_HDR, body, body_len);
    memcpy(p + off + TRANSCRIPT_HDR + body_len, b->p + off + len, b->len - off - len);
    free(b->p);
    b->p = p;
    b->len = b->len - len + TRANSCRIPT_HDR + body_len;
}

static void test_messages_out_of_place_are_refused(void **state)
{
    static const enum mig_msg due[] = {MIG_MSG_HELLO, MIG_MSG_CONFIG, MIG_MSG_STOP, MIG_MSG_STATE,
                                       MIG_MSG_COMMIT};
    static const uint8_t junk[64];

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(due); i++)
        for (unsigned type = 0; type < MIG_NR_MSGS + 3; type++) {
            struct transcript t = {0}, got;
            struct fake_guest to;
            int rc;

            if (type == due[i] || type == MIG_MSG_KEEPALIVE ||
                (due[i] == MIG_MSG_CONFIG && type == MIG_MSG_FACTS))
                continue;
            transcript_read(&t, "v1");
            replace(&t.to_dest, due[i], type, 0, junk, sizeof(junk), sizeof(junk));
            rc = transcript_run_dest(&t, &nothing, &to, &got);
            assert_true(rc < 0);
            transcript_release(&got);
            transcript_release(&t);
            fake_guest_release(&to);
        }
}

static void test_lengths_beyond_the_limits_are_refused_at_once(void **state)
{
    static const enum mig_msg due[] = {MIG_MSG_HELLO, MIG_MSG_CONFIG, MIG_MSG_STOP, MIG_MSG_STATE,
                                       MIG_MSG_COMMIT};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(due); i++) {
        struct transcript t = {0}, got;
        struct fake_guest to;

        transcript_read(&t, "v1");
        replace(&t.to_dest, due[i], due[i], 0, NULL, 0, UINT32_MAX);
        assert_int_equal(transcript_run_dest(&t, &nothing, &to, &got), -E2BIG);
        transcript_release(&got);
        transcript_release(&t);
        fake_guest_release(&to);
    }
}

/* Put a message in front of another one. */
static void insert(struct transcript_bytes *b, enum mig_msg before, unsigned type, unsigned flags)
{
    struct mig_msg_hdr hdr = {le16_make((uint16_t)type), le16_make((uint16_t)flags), le32_make(3)};
    size_t off = transcript_find(b, before);
    uint8_t *p = malloc(b->len + TRANSCRIPT_HDR + 3);

    assert_non_null(p);
    memcpy(p, b->p, off);
    memcpy(p + off, &hdr, TRANSCRIPT_HDR);
    memcpy(p + off + TRANSCRIPT_HDR, "abc", 3);
    memcpy(p + off + TRANSCRIPT_HDR + 3, b->p + off, b->len - off);
    free(b->p);
    b->p = p;
    b->len += TRANSCRIPT_HDR + 3;
}

static void test_unknown_messages_are_skipped_if_they_are_optional(void **state)
{
    (void)state;
    for (unsigned flags = 0; flags < 2; flags++) {
        struct transcript t = {0}, got;
        struct fake_guest to;

        transcript_read(&t, "v1");
        insert(&t.to_dest, MIG_MSG_CONFIG, 999, flags);
        insert(&t.to_dest, MIG_MSG_COMMIT, 999, flags);
        assert_int_equal(transcript_run_dest(&t, &nothing, &to, &got),
                         flags & MIG_MSG_OPTIONAL ? 0 : -ENOTSUP);
        transcript_release(&got);
        transcript_release(&t);
        fake_guest_release(&to);
    }
}

/* Any number of them would keep the guest standing still. */
static void test_a_round_is_done_once(void **state)
{
    const struct mig_round_done_wire again = {.round = le32_make(1)};
    struct transcript t = {0}, got;
    enum mig_result result;
    struct fake_guest from;

    (void)state;
    transcript_read(&t, "v1");
    replace(&t.to_source, MIG_MSG_LOADED, MIG_MSG_ROUND_DONE, 0, &again, sizeof(again),
            sizeof(again));
    assert_int_equal(transcript_run_source(&t, &nothing, &from, &result, &got), -EPROTO);
    assert_int_equal(result, MIG_RESULT_FAILED);
    transcript_release(&got);
    transcript_release(&t);
    fake_guest_release(&from);
}

static void hello_with(struct transcript *t, uint16_t min, uint16_t max, const char *cap,
                       bool required)
{
    struct mig_hello h = {min, max, PAGE_SIZE_4K, 1, cap ? 1 : 0, {{0}}};
    uint8_t buf[256];
    struct wr w = {buf, sizeof(buf), false};
    uint32_t len;

    if (cap) {
        h.caps[0].required = required;
        (void)snprintf(h.caps[0].name, sizeof(h.caps[0].name), "%s", cap);
    }
    mig_hello_put(&h, &w);
    len = (uint32_t)(sizeof(buf) - w.left);
    replace(&t->to_dest, MIG_MSG_HELLO, MIG_MSG_HELLO, 0, buf, len, len);
}

static void test_versions_and_capabilities_are_negotiated(void **state)
{
    static const struct {
        uint16_t min, max;
        const char *cap;
        bool required;
        int rc;
        const char *text;
    } rows[] = {
        {1, 1,     NULL,         false, 0,        NULL                           },
        {1, 60000, NULL,         false, 0,        NULL                           },
        {1, 1,     "x-nonsense", false, 0,        NULL                           },
        {1, 1,     "x-nonsense", true,  -ENOTSUP, "requires 'x-nonsense'"        },
        {2, 9,     NULL,         false, -ENOTSUP, "speaks protocol versions 2 to"},
        {0, 0,     NULL,         false, -ENOTSUP, "speaks protocol versions 0 to"},
        {2, 1,     NULL,         false, -EBADMSG, NULL                           },
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct transcript t = {0}, got;
        struct fake_guest to;

        transcript_read(&t, "v1");
        hello_with(&t, rows[i].min, rows[i].max, rows[i].cap, rows[i].required);
        assert_int_equal(transcript_run_dest(&t, &nothing, &to, &got), rows[i].rc);
        if (rows[i].text)
            assert_non_null(
                memmem(got.to_source.p, got.to_source.len, rows[i].text, strlen(rows[i].text)));
        transcript_release(&got);
        transcript_release(&t);
        fake_guest_release(&to);
    }
}

/* --- Strangers ----------------------------------------------------------- */

static void knock(struct fake_link *link, const void *data, size_t len)
{
    struct mig_channel *ch;

    assert_int_equal(fake_link_connect(link, &transcript_patient, &ch, NULL), 0);
    (void)!mig_channel_write(ch, data, len, &transcript_patient, NULL);
    mig_channel_close(ch);
}

static void knock_thrice(struct fake_link *link)
{
    uint8_t lane[TRANSCRIPT_LANE] = {0};
    struct mig_msg_hdr hdr = mig_hdr_make(MIG_MSG_LANE, sizeof(struct mig_lane_wire));

    memcpy(lane, &hdr, sizeof(hdr));
    knock(link, "GET / HTTP/1.1\r\n\r\n", 18);
    knock(link, "", 0);
    knock(link, lane, sizeof(lane));
}

struct strangers {
    struct fake_pair *p;
    struct fake_link *link;
};

static void await_refused(struct fake_pair *p, unsigned nr)
{
    struct mig_status st;

    do {
        (void)sched_yield();
        mig_progress_read(mig_dest_progress(p->dst), &st);
    } while (st.nr_refused < nr);
}

/* While the destination builds, lanes with a wrong secret come first. */
static void knock_in_build(void *arg, enum fake_op op)
{
    struct strangers *s = arg;

    if (op != FAKE_OP_BUILD)
        return;
    await_refused(s->p, 3);
    knock_thrice(s->link);
    await_refused(s->p, 6);
}

static void test_strangers_do_not_stop_a_destination(void **state)
{
    struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
    struct fake_pair p;
    struct strangers s = {&p, link};

    (void)state;
    fake_pair_init(&p, &transcript_guest);
    p.sp.open = fake_link_connect;
    p.dp.open = fake_link_accept;
    p.sp.open_arg = p.dp.open_arg = link;
    p.dp.open_fd = fake_link_fd(link);
    p.dp.attempts = 0;
    p.to.on_op = knock_in_build;
    p.to.on_op_arg = &s;
    knock_thrice(link); /* before the source */
    fake_pair_run(&p);
    if (p.src_rc < 0)
        fail_msg("source: %s; destination: %s", p.src_err.msg, p.dst_err.msg);
    assert_int_equal(p.dst_st.nr_refused, 6);
    fake_link_free(link);
    fake_pair_release(&p);
}

/* --- The last word -------------------------------------------------------- */

/* A source that gives up with a word: its lane is gone before the word is there. */
static void *quitter_main(void *arg)
{
    static const struct timespec moment = {.tv_nsec = 50000000};
    static const char word[] = "the source's disk is full";
    struct mig_msg_hdr hdr = mig_hdr_make(MIG_MSG_LANE, sizeof(struct mig_lane_wire));
    uint8_t hello[TRANSCRIPT_HDR + sizeof(struct mig_hello_hdr)];
    uint8_t ready[TRANSCRIPT_HDR + sizeof(struct mig_ready_wire)];
    uint8_t first[TRANSCRIPT_LANE] = {0};
    struct mig_channel *ch, *lane;
    struct fake_link *link = arg;
    struct transcript t = {0};

    transcript_read(&t, "v1");
    assert_int_equal(fake_link_connect(link, &transcript_patient, &ch, NULL), 0);
    assert_int_equal(mig_channel_write(ch, t.to_dest.p, transcript_find(&t.to_dest, MIG_MSG_STOP),
                                       &transcript_patient, NULL),
                     0);
    assert_int_equal(mig_channel_read(ch, hello, sizeof(hello), &transcript_patient, NULL), 0);
    assert_int_equal(mig_channel_read(ch, ready, sizeof(ready), &transcript_patient, NULL), 0);
    memcpy(first, &hdr, sizeof(hdr));
    memcpy(first + TRANSCRIPT_HDR, ready + TRANSCRIPT_HDR, MIG_SECRET_SIZE);
    assert_int_equal(fake_link_connect(link, &transcript_patient, &lane, NULL), 0);
    assert_int_equal(mig_channel_write(lane, first, sizeof(first), &transcript_patient, NULL), 0);
    mig_channel_close(lane);
    (void)nanosleep(&moment, NULL);
    hdr = mig_hdr_make(MIG_MSG_ABORT, sizeof(word) - 1);
    (void)!mig_channel_write(ch, &hdr, sizeof(hdr), &transcript_patient, NULL);
    (void)!mig_channel_write(ch, word, sizeof(word) - 1, &transcript_patient, NULL);
    while (mig_channel_read(ch, hello, 1, &transcript_patient, NULL) == 0)
        continue;
    mig_channel_close(ch);
    transcript_release(&t);
    return NULL;
}

static void test_what_a_source_says_explains_more_than_that_its_lane_is_gone(void **state)
{
    struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
    struct fake_guest to;
    struct mig_dest_params dp = {.ops = &fake_dest_ops,
                                 .arg = &to,
                                 .open = fake_link_accept,
                                 .open_arg = link,
                                 .open_fd = fake_link_fd(link),
                                 .attempts = 1,
                                 .accept_ms = 20000,
                                 .idle_ms = 20000,
                                 .hello_ms = 20000,
                                 .keepalive_ms = 1000000};
    struct err err = {0};
    struct mig_dest *dst;
    pthread_t thread;

    (void)state;
    fake_guest_expect(&to, &transcript_guest);
    assert_int_equal(mig_dest_new(&dp, &dst, NULL), 0);
    assert_int_equal(pthread_create(&thread, NULL, quitter_main, link), 0);
    assert_int_equal(mig_dest_run(dst, &err), -ECONNABORTED);
    assert_string_equal(err.msg, "the peer gave up: the source's disk is full");
    fake_link_stop_listening(link);
    assert_int_equal(pthread_join(thread, NULL), 0);
    mig_dest_free(dst);
    fake_link_free(link);
    fake_guest_release(&to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_engines_write_the_golden_transcripts),
        cmocka_unit_test(test_the_destination_takes_a_recorded_guest),
        cmocka_unit_test(test_the_source_hands_over_to_a_recorded_destination),
        cmocka_unit_test(test_a_source_tells_facts_as_it_was_recorded),
        cmocka_unit_test(test_a_destination_hears_recorded_facts),
        cmocka_unit_test(test_a_changed_byte_to_the_destination_never_does_harm),
        cmocka_unit_test(test_a_changed_byte_on_a_lane_never_does_harm),
        cmocka_unit_test(test_a_changed_byte_to_the_source_never_does_harm),
        cmocka_unit_test(test_messages_out_of_place_are_refused),
        cmocka_unit_test(test_lengths_beyond_the_limits_are_refused_at_once),
        cmocka_unit_test(test_unknown_messages_are_skipped_if_they_are_optional),
        cmocka_unit_test(test_a_round_is_done_once),
        cmocka_unit_test(test_versions_and_capabilities_are_negotiated),
        cmocka_unit_test(test_strangers_do_not_stop_a_destination),
        cmocka_unit_test(test_what_a_source_says_explains_more_than_that_its_lane_is_gone),
    };

    return cmocka_run_group_tests_name("mig_replay", tests, NULL, NULL);
}
