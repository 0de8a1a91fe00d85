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
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "core/loop.h"
#include "tests/fakes/fake_link.h"
#include "tests/fakes/fake_pair.h"
#include "tests/fakes/golden.h"

/* The guest of the transcripts: never to be changed. */
static const struct fake_guest_config recorded = {
    .len = {8 * PAGE_SIZE_4K, 4 * PAGE_SIZE_4K},
      .data_percent = 50, .seed = 1
};

static const struct mig_wait patient = {.cancel_fd = -1, .wake_fd = -1, .idle_ms = 20000};

enum {
    HDR = sizeof(struct mig_msg_hdr),
    LANE_MSG = HDR + sizeof(struct mig_lane_wire),
};

struct bytes {
    uint8_t *p; /* owned */
    size_t len;
};

/* Control there and back, the lane there. */
struct transcript {
    struct bytes to_dest, to_source, lane;
};

static const char *const names[] = {"migration/v1/control-to-destination.bin",
                                    "migration/v1/control-to-source.bin",
                                    "migration/v1/lane0-to-destination.bin"};

/* --- Messages in a row --------------------------------------------------- */

/* Offset of the first message of a type; b->len if there is none. */
static size_t find_msg(const struct bytes *b, enum mig_msg type)
{
    size_t at = 0;

    while (b->len - at >= HDR) {
        struct mig_msg_hdr hdr;

        memcpy(&hdr, b->p + at, HDR);
        if (le16_get(hdr.type) == type)
            return at;
        if (le32_get(hdr.len) > b->len - at - HDR)
            break;
        at += HDR + le32_get(hdr.len);
    }
    return b->len;
}

/* Replace what differs from run to run: the secret and the times. */
static void normalise(struct transcript *t)
{
    size_t ready = find_msg(&t->to_source, MIG_MSG_READY);
    size_t running = find_msg(&t->to_source, MIG_MSG_RUNNING);

    for (unsigned i = 0; i < MIG_SECRET_SIZE; i++) {
        if (ready < t->to_source.len)
            t->to_source.p[ready + HDR + i] = (uint8_t)i;
        if (t->lane.len >= LANE_MSG)
            t->lane.p[HDR + i] = (uint8_t)i;
    }
    if (running < t->to_source.len)
        memset(t->to_source.p + running + HDR, 0, sizeof(struct mig_times_wire));
}

static struct bytes copy_of(const uint8_t *p, size_t len)
{
    struct bytes b = {malloc(len + 1), len};

    assert_non_null(b.p);
    if (len)
        memcpy(b.p, p, len);
    return b;
}

static struct bytes recording(struct fake_link *link, unsigned conn, enum fake_dir dir)
{
    size_t len;
    const uint8_t *p = fake_link_record(link, conn, dir, &len);

    return copy_of(p, len);
}

static void transcript_release(struct transcript *t)
{
    free(t->to_dest.p);
    free(t->to_source.p);
    free(t->lane.p);
}

/* Of a source that tells facts: the lane and the way back are as above. */
static const char facts_name[] = "migration/v1-facts/control-to-destination.bin";
static const char facts_text[] = "{\"boot\":\"fake\",\"disks\":[]}";
static const char *facts_told; /* by run_source(); NULL: none */

static void read_golden(struct transcript *t)
{
    struct bytes *all[] = {&t->to_dest, &t->to_source, &t->lane};

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        all[i]->p = golden_read(names[i], &all[i]->len);
        if (!all[i]->p)
            fail_msg("no golden file %s", names[i]);
    }
}

/* --- What the engines write ---------------------------------------------- */

static void test_the_engines_write_the_golden_transcripts(void **state)
{
    struct fake_link *link = fake_link_new(&(struct fake_link_config){.record = true});
    struct transcript t;
    struct fake_pair p;

    (void)state;
    fake_pair_init(&p, &recorded);
    p.from.quiet_save = true;
    p.sp.open = fake_link_connect;
    p.dp.open = fake_link_accept;
    p.sp.open_arg = p.dp.open_arg = link;
    fake_pair_run(&p);
    assert_int_equal(p.src_rc, 0);
    t = (struct transcript){recording(link, 0, FAKE_TO_DEST), recording(link, 0, FAKE_TO_SOURCE),
                            recording(link, 1, FAKE_TO_DEST)};
    normalise(&t);
    golden_check(names[0], t.to_dest.p, t.to_dest.len);
    golden_check(names[1], t.to_source.p, t.to_source.len);
    golden_check(names[2], t.lane.p, t.lane.len);
    transcript_release(&t);
    fake_link_free(link);
    fake_pair_release(&p);
}

/* --- A recorded source --------------------------------------------------- */

/* Read until the peer closes. */
static void read_all(struct mig_channel *ch, struct bytes *b)
{
    for (;;) {
        int n;

        b->p = realloc(b->p, b->len + 4096);
        assert_non_null(b->p);
        n = mig_channel_read_some(ch, b->p + b->len, 4096, &patient, NULL);
        if (n <= 0)
            return;
        b->len += (size_t)n;
    }
}

/* Read until a message of the type is there whole; false if the peer closed before. */
static bool read_until(struct mig_channel *ch, struct bytes *b, enum mig_msg type, size_t body)
{
    while (find_msg(b, type) + HDR + body > b->len) {
        int n;

        b->p = realloc(b->p, b->len + 4096);
        assert_non_null(b->p);
        n = mig_channel_read_some(ch, b->p + b->len, 4096, &patient, NULL);
        if (n <= 0)
            return false;
        b->len += (size_t)n;
    }
    return true;
}

/* Nothing more will be written; reading goes on. */
static void no_more(struct mig_channel *ch)
{
    (void)shutdown(mig_channel_fd(ch), SHUT_WR);
}

struct replay {
    struct fake_link *link;
    const struct transcript *t;
    struct transcript got; /* what the other end wrote */
};

/* The pages, with the secret of this run; returns the lane, or NULL. */
static struct mig_channel *replay_lane(struct replay *r, size_t ready)
{
    struct bytes lane = copy_of(r->t->lane.p, r->t->lane.len);
    struct mig_channel *ch = NULL;

    if (lane.len >= LANE_MSG)
        memcpy(lane.p + HDR, r->got.to_source.p + ready + HDR, MIG_SECRET_SIZE);
    if (fake_link_connect(r->link, &patient, &ch, NULL) == 0) {
        (void)!mig_channel_write(ch, lane.p, lane.len, &patient, NULL);
        no_more(ch);
    }
    free(lane.p);
    return ch;
}

static void *source_main(void *arg)
{
    struct replay *r = arg;
    const struct bytes *b = &r->t->to_dest;
    size_t stop = find_msg(b, MIG_MSG_STOP);
    struct mig_channel *ch, *lane = NULL;

    assert_int_equal(fake_link_connect(r->link, &patient, &ch, NULL), 0);
    (void)!mig_channel_write(ch, b->p, stop, &patient, NULL);
    if (stop < b->len &&
        read_until(ch, &r->got.to_source, MIG_MSG_READY, sizeof(struct mig_ready_wire))) {
        struct bytes *mine = &r->got.to_source;

        lane = replay_lane(r, find_msg(mine, MIG_MSG_READY));
        (void)!mig_channel_write(ch, b->p + stop, b->len - stop, &patient, NULL);
    }
    no_more(ch);
    read_all(ch, &r->got.to_source);
    mig_channel_close(ch);
    mig_channel_close(lane);
    return NULL;
}

/* The destination's engine against a recorded source; what it wrote is in ret_got. */
static int run_dest(const struct transcript *t, struct fake_guest *to, struct transcript *ret_got)
{
    struct replay r = {.link = fake_link_new(&(struct fake_link_config){0}), .t = t};
    struct mig_dest_params dp = {.ops = &fake_dest_ops,
                                 .arg = to,
                                 .open = fake_link_accept,
                                 .open_arg = r.link,
                                 .attempts = 1,
                                 .accept_ms = 20000,
                                 .idle_ms = 3000,
                                 .hello_ms = 3000,
                                 .keepalive_ms = 1000000};
    struct err err = {0};
    struct mig_dest *dst;
    pthread_t thread;
    int rc;

    fake_guest_expect(to, &recorded);
    assert_int_equal(mig_dest_new(&dp, &dst, NULL), 0);
    assert_int_equal(pthread_create(&thread, NULL, source_main, &r), 0);
    rc = mig_dest_run(dst, &err);
    fake_link_stop_listening(r.link);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(rc == 0, atomic_load(&to->running));
    if (rc < 0)
        assert_true(err.code < 0 && err.msg[0]);
    mig_dest_free(dst);
    fake_link_free(r.link);
    *ret_got = r.got;
    return rc;
}

static void test_the_destination_takes_a_recorded_guest(void **state)
{
    struct transcript t = {0}, got;
    struct fake_guest from, to;

    (void)state;
    read_golden(&t);
    fake_guest_start(&from, &recorded);
    assert_int_equal(run_dest(&t, &to, &got), 0);
    assert_true(fake_guest_equal(&from, &to));
    normalise(&got);
    assert_int_equal(got.to_source.len, t.to_source.len);
    assert_memory_equal(got.to_source.p, t.to_source.p, t.to_source.len);
    transcript_release(&got);
    transcript_release(&t);
    fake_guest_release(&from);
    fake_guest_release(&to);
}

/* --- A recorded destination ---------------------------------------------- */

/* How many whole messages of a type there are. */
static unsigned count_msgs(const struct bytes *b, enum mig_msg type)
{
    struct bytes rest = *b;
    unsigned n = 0;

    for (;;) {
        size_t at = find_msg(&rest, type);
        struct mig_msg_hdr hdr;

        if (rest.len - at < HDR)
            return n;
        memcpy(&hdr, rest.p + at, HDR);
        if (le32_get(hdr.len) > rest.len - at - HDR)
            return n;
        n++;
        at += HDR + le32_get(hdr.len);
        rest = (struct bytes){rest.p + at, rest.len - at};
    }
}

/* Read until there are so many messages of a type; false if the peer closed before. */
static bool await_msgs(struct mig_channel *ch, struct bytes *b, enum mig_msg type, unsigned nr)
{
    while (count_msgs(b, type) < nr) {
        int n;

        b->p = realloc(b->p, b->len + 4096);
        assert_non_null(b->p);
        n = mig_channel_read_some(ch, b->p + b->len, 4096, &patient, NULL);
        if (n <= 0)
            return false;
        b->len += (size_t)n;
    }
    return true;
}

struct conversation {
    struct replay *r;
    struct mig_channel *ch, *lane;
    unsigned rounds;
};

/* What the destination had before it sent a message of this type. */
static bool await_cause(struct conversation *c, unsigned type)
{
    struct transcript *got = &c->r->got;

    if (type == MIG_MSG_HELLO)
        return await_msgs(c->ch, &got->to_dest, MIG_MSG_HELLO, 1);
    if (type == MIG_MSG_READY)
        return await_msgs(c->ch, &got->to_dest, MIG_MSG_CONFIG, 1);
    if (type == MIG_MSG_RUNNING)
        return await_msgs(c->ch, &got->to_dest, MIG_MSG_COMMIT, 1);
    if (type != MIG_MSG_ROUND_DONE && type != MIG_MSG_LOADED)
        return true;
    if (!c->lane && fake_link_accept(c->r->link, &patient, &c->lane, NULL) < 0)
        return false;
    return await_msgs(c->lane, &got->lane, MIG_MSG_ROUND_END, ++c->rounds) &&
           (type != MIG_MSG_LOADED || await_msgs(c->ch, &got->to_dest, MIG_MSG_STATE, 1));
}

static void *dest_main(void *arg)
{
    struct conversation c = {.r = arg};
    const struct bytes *b = &c.r->t->to_source;
    size_t at = 0;

    assert_int_equal(fake_link_accept(c.r->link, &patient, &c.ch, NULL), 0);
    while (b->len - at >= HDR) {
        struct mig_msg_hdr hdr;
        size_t len;

        memcpy(&hdr, b->p + at, HDR);
        len = HDR + le32_get(hdr.len);
        len = len < b->len - at ? len : b->len - at;
        if (!await_cause(&c, le16_get(hdr.type)) ||
            mig_channel_write(c.ch, b->p + at, len, &patient, NULL) < 0)
            break;
        at += len;
    }
    no_more(c.ch);
    if (c.lane)
        read_all(c.lane, &c.r->got.lane);
    read_all(c.ch, &c.r->got.to_dest);
    mig_channel_close(c.lane);
    mig_channel_close(c.ch);
    return NULL;
}

/* The source's engine against a recorded destination. */
static int run_source(const struct transcript *t, struct fake_guest *from,
                      enum mig_result *ret_result, struct transcript *ret_got)
{
    struct replay r = {.link = fake_link_new(&(struct fake_link_config){0}), .t = t};
    struct mig_source_params sp = {.ops = &fake_source_ops,
                                   .arg = from,
                                   .open = fake_link_connect,
                                   .open_arg = r.link,
                                   .limits = {.downtime_ns = 300000000},
                                   .idle_ms = 3000,
                                   .hello_ms = 3000,
                                   .keepalive_ms = 1000000};
    struct mig_channel *nobody;
    struct mig_source *src;
    struct mig_status st;
    struct err err = {0};
    pthread_t thread;
    int rc;

    fake_guest_start(from, &recorded);
    from->quiet_save = true;
    from->facts = facts_told;
    sp.gm = from->gm;
    sp.dirty = from->dirty;
    assert_int_equal(mig_source_new(&sp, &src, NULL), 0);
    assert_int_equal(pthread_create(&thread, NULL, dest_main, &r), 0);
    rc = mig_source_run(src, NULL, &err);
    /* Whoever still waits for a lane finds one that says nothing. */
    if (fake_link_connect(r.link, &patient, &nobody, NULL) == 0)
        mig_channel_close(nobody);
    assert_int_equal(pthread_join(thread, NULL), 0);
    mig_progress_read(mig_source_progress(src), &st);
    assert_int_equal(st.guest_here, atomic_load(&from->running));
    if (rc < 0)
        assert_true(err.code < 0 && err.msg[0]);
    if (rc < 0 && st.result != MIG_RESULT_UNDECIDED)
        assert_true(atomic_load(&from->running) && atomic_load(&from->holds_locks));
    else
        assert_false(atomic_load(&from->running));
    assert_false(atomic_load(&from->log_on));
    mig_source_free(src);
    fake_link_free(r.link);
    *ret_result = st.result;
    *ret_got = r.got;
    return rc;
}

static void test_the_source_hands_over_to_a_recorded_destination(void **state)
{
    struct transcript t = {0}, got;
    enum mig_result result;
    struct fake_guest from;

    (void)state;
    read_golden(&t);
    assert_int_equal(run_source(&t, &from, &result, &got), 0);
    normalise(&got);
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
    read_golden(t);
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
    read_golden(&t);
    facts_told = facts_text;
    assert_int_equal(run_source(&t, &from, &result, &got), 0);
    facts_told = NULL;
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
    assert_int_equal(run_dest(&t, &to, &got), 0);
    assert_string_equal(to.facts_heard, facts_text);
    normalise(&got);
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
    read_golden(&t);
    for (size_t i = 0; i < t.to_dest.len; i++)
        for (unsigned k = 0; k < ARRAY_LEN(changes); k++) {
            t.to_dest.p[i] ^= changes[k];
            refused += run_dest(&t, &to, &got) < 0;
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
    read_golden(&t);
    for (size_t i = HDR + MIG_SECRET_SIZE; i < t.lane.len;
         i += i < 300 || i > t.lane.len - 150 ? 1 : 997) {
        t.lane.p[i] ^= 0x81;
        (void)run_dest(&t, &to, &got);
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
    read_golden(&t);
    for (size_t i = 0; i < t.to_source.len; i++)
        for (unsigned k = 0; k < ARRAY_LEN(changes); k++) {
            t.to_source.p[i] ^= changes[k];
            (void)run_source(&t, &from, &result, &got);
            t.to_source.p[i] ^= changes[k];
            /* Before the answer to COMMIT there is nothing undecided. */
            if (i < find_msg(&t.to_source, MIG_MSG_LOADED))
                assert_int_not_equal(result, MIG_RESULT_UNDECIDED);
            transcript_release(&got);
            fake_guest_release(&from);
        }
    transcript_release(&t);
}

/* --- Hostile messages ---------------------------------------------------- */

/* Replace a message of the control stream by another one. */
static void replace(struct bytes *b, enum mig_msg at, unsigned type, unsigned flags,
                    const void *body, uint32_t body_len, uint32_t said_len)
{
    size_t off = find_msg(b, at), len = 0;
    struct mig_msg_hdr hdr;
    uint8_t *p;

    if (off < b->len) {
        memcpy(&hdr, b->p + off, HDR);
        len = HDR + le32_get(hdr.len);
    }
    hdr = (struct mig_msg_hdr){le16_make((uint16_t)type), le16_make((uint16_t)flags),
                               le32_make(said_len)};
    p = malloc(b->len - len + HDR + body_len);
    assert_non_null(p);
    memcpy(p, b->p, off);
    memcpy(p + off, &hdr, HDR);
    if (body_len)
        memcpy(p + off + HDR, body, body_len);
    memcpy(p + off + HDR + body_len, b->p + off + len, b->len - off - len);
    free(b->p);
    b->p = p;
    b->len = b->len - len + HDR + body_len;
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
            read_golden(&t);
            replace(&t.to_dest, due[i], type, 0, junk, sizeof(junk), sizeof(junk));
            rc = run_dest(&t, &to, &got);
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

        read_golden(&t);
        replace(&t.to_dest, due[i], due[i], 0, NULL, 0, UINT32_MAX);
        assert_int_equal(run_dest(&t, &to, &got), -E2BIG);
        transcript_release(&got);
        transcript_release(&t);
        fake_guest_release(&to);
    }
}

/* Put a message in front of another one. */
static void insert(struct bytes *b, enum mig_msg before, unsigned type, unsigned flags)
{
    struct mig_msg_hdr hdr = {le16_make((uint16_t)type), le16_make((uint16_t)flags), le32_make(3)};
    size_t off = find_msg(b, before);
    uint8_t *p = malloc(b->len + HDR + 3);

    assert_non_null(p);
    memcpy(p, b->p, off);
    memcpy(p + off, &hdr, HDR);
    memcpy(p + off + HDR, "abc", 3);
    memcpy(p + off + HDR + 3, b->p + off, b->len - off);
    free(b->p);
    b->p = p;
    b->len += HDR + 3;
}

static void test_unknown_messages_are_skipped_if_they_are_optional(void **state)
{
    (void)state;
    for (unsigned flags = 0; flags < 2; flags++) {
        struct transcript t = {0}, got;
        struct fake_guest to;

        read_golden(&t);
        insert(&t.to_dest, MIG_MSG_CONFIG, 999, flags);
        insert(&t.to_dest, MIG_MSG_COMMIT, 999, flags);
        assert_int_equal(run_dest(&t, &to, &got), flags & MIG_MSG_OPTIONAL ? 0 : -ENOTSUP);
        transcript_release(&got);
        transcript_release(&t);
        fake_guest_release(&to);
    }
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

        read_golden(&t);
        hello_with(&t, rows[i].min, rows[i].max, rows[i].cap, rows[i].required);
        assert_int_equal(run_dest(&t, &to, &got), rows[i].rc);
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

    assert_int_equal(fake_link_connect(link, &patient, &ch, NULL), 0);
    (void)!mig_channel_write(ch, data, len, &patient, NULL);
    mig_channel_close(ch);
}

static void *stranger_main(void *arg)
{
    struct fake_link *link = arg;
    uint8_t lane[LANE_MSG] = {0};
    struct mig_msg_hdr hdr = mig_hdr_make(MIG_MSG_LANE, sizeof(struct mig_lane_wire));

    memcpy(lane, &hdr, sizeof(hdr));
    knock(link, "GET / HTTP/1.1\r\n\r\n", 18);
    knock(link, "", 0);
    knock(link, lane, sizeof(lane));
    return NULL;
}

/* While the destination builds, lanes with a wrong secret come first. */
static void knock_in_build(void *arg, enum fake_op op)
{
    if (op == FAKE_OP_BUILD)
        (void)stranger_main(arg);
}

static void test_strangers_do_not_stop_a_destination(void **state)
{
    struct fake_link *link = fake_link_new(&(struct fake_link_config){0});
    struct fake_pair p;

    (void)state;
    fake_pair_init(&p, &recorded);
    p.sp.open = fake_link_connect;
    p.dp.open = fake_link_accept;
    p.sp.open_arg = p.dp.open_arg = link;
    p.dp.attempts = 0;
    p.to.on_op = knock_in_build;
    p.to.on_op_arg = link;
    (void)stranger_main(link); /* before the source */
    fake_pair_run(&p);
    if (p.src_rc < 0)
        fail_msg("source: %s; destination: %s", p.src_err.msg, p.dst_err.msg);
    assert_int_equal(p.dst_st.nr_refused, 6);
    fake_link_free(link);
    fake_pair_release(&p);
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
        cmocka_unit_test(test_versions_and_capabilities_are_negotiated),
        cmocka_unit_test(test_strangers_do_not_stop_a_destination),
    };

    return cmocka_run_group_tests_name("mig_replay", tests, NULL, NULL);
}
