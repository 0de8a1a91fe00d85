/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/mig_transcript.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "tests/fakes/golden.h"

/* Never to be changed. */
const struct fake_guest_config transcript_guest = {
    .len = {8 * PAGE_SIZE_4K, 4 * PAGE_SIZE_4K},
      .data_percent = 50, .seed = 1
};
static const struct fake_guest_config transcript_shared_guest = {
    .len = {8 * PAGE_SIZE_4K, 4 * PAGE_SIZE_4K},
      .shared = true, .data_percent = 50, .seed = 1
};

const struct mig_wait transcript_patient = {.cancel_fd = -1, .wake_fd = -1, .idle_ms = 20000};

static const char *const names[] = {"control-to-destination.bin", "control-to-source.bin",
                                    "lane0-to-destination.bin"};

/* --- Messages in a row --------------------------------------------------- */

size_t transcript_find(const struct transcript_bytes *b, enum mig_msg type)
{
    size_t at = 0;

    while (b->len - at >= TRANSCRIPT_HDR) {
        struct mig_msg_hdr hdr;

        memcpy(&hdr, b->p + at, TRANSCRIPT_HDR);
        if (le16_get(hdr.type) == type)
            return at;
        if (le32_get(hdr.len) > b->len - at - TRANSCRIPT_HDR)
            break;
        at += TRANSCRIPT_HDR + le32_get(hdr.len);
    }
    return b->len;
}

void transcript_normalise(struct transcript *t)
{
    size_t ready = transcript_find(&t->to_source, MIG_MSG_READY);
    size_t running = transcript_find(&t->to_source, MIG_MSG_RUNNING);

    for (unsigned i = 0; i < MIG_SECRET_SIZE; i++) {
        if (ready < t->to_source.len)
            t->to_source.p[ready + TRANSCRIPT_HDR + i] = (uint8_t)i;
        if (t->lane.len >= TRANSCRIPT_LANE)
            t->lane.p[TRANSCRIPT_HDR + i] = (uint8_t)i;
    }
    if (running < t->to_source.len)
        memset(t->to_source.p + running + TRANSCRIPT_HDR, 0, sizeof(struct mig_times_wire));
}

static struct transcript_bytes copy_of(const uint8_t *p, size_t len)
{
    struct transcript_bytes b = {malloc(len + 1), len};

    assert_non_null(b.p);
    if (len)
        memcpy(b.p, p, len);
    return b;
}

static struct transcript_bytes recording(struct fake_link *link, unsigned conn, enum fake_dir dir)
{
    size_t len;
    const uint8_t *p = fake_link_record(link, conn, dir, &len);

    return copy_of(p, len);
}

void transcript_release(struct transcript *t)
{
    free(t->to_dest.p);
    free(t->to_source.p);
    free(t->lane.p);
}

void transcript_read(struct transcript *t, const char *name)
{
    struct transcript_bytes *all[] = {&t->to_dest, &t->to_source, &t->lane};

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        char path[128];

        (void)snprintf(path, sizeof(path), "migration/%s/%s", name, names[i]);
        all[i]->p = golden_read(path, &all[i]->len);
        if (!all[i]->p)
            fail_msg("no golden file %s", path);
    }
}

/* --- Both engines -------------------------------------------------------- */

static const struct fake_guest_config *guest_of(const struct transcript_with *with)
{
    return with->local ? &transcript_shared_guest : &transcript_guest;
}

static struct fake_link *link_of(const struct transcript_with *with, bool record)
{
    return fake_link_new(&(struct fake_link_config){.record = record, .pass_fds = with->local});
}

void transcript_record(const struct transcript_with *with, struct transcript *ret_t)
{
    struct fake_link *link = link_of(with, true);
    struct fake_pair p;

    fake_pair_init(&p, guest_of(with));
    p.from.quiet_save = true;
    p.from.facts = with->facts;
    p.sp.compression = with->compression;
    p.sp.local = with->local;
    p.sp.open = fake_link_connect;
    p.dp.open = fake_link_accept;
    p.sp.open_arg = p.dp.open_arg = link;
    p.dp.open_fd = fake_link_fd(link);
    fake_pair_run(&p);
    if (p.src_rc < 0)
        fail_msg("source: %s; destination: %s", p.src_err.msg, p.dst_err.msg);
    assert_int_equal(p.src_st.handed, with->local);
    *ret_t =
        (struct transcript){recording(link, 0, FAKE_TO_DEST), recording(link, 0, FAKE_TO_SOURCE),
                            recording(link, 1, FAKE_TO_DEST)};
    transcript_normalise(ret_t);
    fake_link_free(link);
    fake_pair_release(&p);
}

/* --- A recorded source --------------------------------------------------- */

/* Read what there is; false if the peer closed. */
static bool read_some(struct mig_channel *ch, struct transcript_bytes *b)
{
    int n;

    b->p = realloc(b->p, b->len + 4096);
    assert_non_null(b->p);
    n = mig_channel_read_some(ch, b->p + b->len, 4096, &transcript_patient, NULL);
    if (n <= 0)
        return false;
    b->len += (size_t)n;
    return true;
}

/* Read until the peer closes. */
static void read_all(struct mig_channel *ch, struct transcript_bytes *b)
{
    while (read_some(ch, b))
        continue;
}

/* Read until a message of the type is there whole; false if the peer closed before. */
static bool read_until(struct mig_channel *ch, struct transcript_bytes *b, enum mig_msg type,
                       size_t body)
{
    while (transcript_find(b, type) + TRANSCRIPT_HDR + body > b->len)
        if (!read_some(ch, b))
            return false;
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
    const struct fake_guest *memory; /* is handed over; NULL: none */
    struct transcript got;           /* what the other end wrote */
};

/* A message with descriptors of the guest's memory; returns how many bytes went with them. */
static size_t replay_memory(const struct replay *r, struct mig_channel *ch,
                            const struct transcript_bytes *lane, size_t at)
{
    int fds[FAKE_GUEST_REGIONS];
    struct mig_msg_hdr hdr;
    size_t len;

    if (!r->memory || lane->len - at < TRANSCRIPT_HDR)
        return 0;
    memcpy(&hdr, lane->p + at, TRANSCRIPT_HDR);
    len = TRANSCRIPT_HDR + le32_get(hdr.len) < lane->len - at ? TRANSCRIPT_HDR + le32_get(hdr.len)
                                                              : lane->len - at;
    for (unsigned i = 0; i < FAKE_GUEST_REGIONS; i++)
        fds[i] = gmem_region(r->memory->gm, i)->fd;
    (void)!mig_channel_send_fds(ch, lane->p + at, len, fds, FAKE_GUEST_REGIONS, &transcript_patient,
                                NULL);
    return len;
}

/* The pages, with the secret of this run; returns the lane, or NULL. */
static struct mig_channel *replay_lane(struct replay *r, size_t ready)
{
    struct transcript_bytes lane = copy_of(r->t->lane.p, r->t->lane.len);
    struct mig_channel *ch = NULL;
    size_t memory = transcript_find(&lane, MIG_MSG_MEMORY);

    if (lane.len >= TRANSCRIPT_LANE)
        memcpy(lane.p + TRANSCRIPT_HDR, r->got.to_source.p + ready + TRANSCRIPT_HDR,
               MIG_SECRET_SIZE);
    if (fake_link_connect(r->link, &transcript_patient, &ch, NULL) == 0) {
        (void)!mig_channel_write(ch, lane.p, memory, &transcript_patient, NULL);
        memory += replay_memory(r, ch, &lane, memory);
        (void)!mig_channel_write(ch, lane.p + memory, lane.len - memory, &transcript_patient, NULL);
        no_more(ch);
    }
    free(lane.p);
    return ch;
}

static void *source_main(void *arg)
{
    struct replay *r = arg;
    const struct transcript_bytes *b = &r->t->to_dest;
    size_t stop = transcript_find(b, MIG_MSG_STOP);
    struct mig_channel *ch, *lane = NULL;

    assert_int_equal(fake_link_connect(r->link, &transcript_patient, &ch, NULL), 0);
    (void)!mig_channel_write(ch, b->p, stop, &transcript_patient, NULL);
    if (stop < b->len &&
        read_until(ch, &r->got.to_source, MIG_MSG_READY, sizeof(struct mig_ready_wire))) {
        struct transcript_bytes *mine = &r->got.to_source;

        lane = replay_lane(r, transcript_find(mine, MIG_MSG_READY));
        (void)!mig_channel_write(ch, b->p + stop, b->len - stop, &transcript_patient, NULL);
    }
    no_more(ch);
    read_all(ch, &r->got.to_source);
    mig_channel_close(ch);
    mig_channel_close(lane);
    return NULL;
}

int transcript_run_dest(const struct transcript *t, const struct transcript_with *with,
                        struct fake_guest *to, struct transcript *ret_got)
{
    struct replay r = {.link = link_of(with, false), .t = t};
    struct fake_guest from;
    struct mig_dest_params dp = {.ops = &fake_dest_ops,
                                 .arg = to,
                                 .open = fake_link_accept,
                                 .open_arg = r.link,
                                 .open_fd = fake_link_fd(r.link),
                                 .attempts = 1,
                                 .accept_ms = 20000,
                                 .idle_ms = 3000,
                                 .hello_ms = 3000,
                                 .keepalive_ms = 1000000};
    struct err err = {0};
    struct mig_dest *dst;
    pthread_t thread;
    int rc;

    fake_guest_expect(to, guest_of(with));
    fake_guest_start(&from, guest_of(with));
    if (with->local)
        r.memory = &from;
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
    fake_guest_release(&from);
    *ret_got = r.got;
    return rc;
}

/* --- A recorded destination ---------------------------------------------- */

/* How many whole messages of a type there are. */
static unsigned count_msgs(const struct transcript_bytes *b, enum mig_msg type)
{
    struct transcript_bytes rest = *b;
    unsigned n = 0;

    for (;;) {
        size_t at = transcript_find(&rest, type);
        struct mig_msg_hdr hdr;

        if (rest.len - at < TRANSCRIPT_HDR)
            return n;
        memcpy(&hdr, rest.p + at, TRANSCRIPT_HDR);
        if (le32_get(hdr.len) > rest.len - at - TRANSCRIPT_HDR)
            return n;
        n++;
        at += TRANSCRIPT_HDR + le32_get(hdr.len);
        rest = (struct transcript_bytes){rest.p + at, rest.len - at};
    }
}

/* Read until there are so many messages of a type; false if the peer closed before. */
static bool await_msgs(struct mig_channel *ch, struct transcript_bytes *b, enum mig_msg type,
                       unsigned nr)
{
    while (count_msgs(b, type) < nr)
        if (!read_some(ch, b))
            return false;
    return true;
}

struct conversation {
    struct replay *r;
    struct mig_channel *ch, *lane;
    unsigned rounds;
};

/* LANE and MEMORY, with the descriptors of the guest's memory, and no others. */
static bool take_memory(struct conversation *c)
{
    struct transcript_bytes *b = &c->r->got.lane;
    const size_t len =
        TRANSCRIPT_LANE + TRANSCRIPT_HDR + FAKE_GUEST_REGIONS * sizeof(struct mig_memory_wire);
    int fds[MIG_FDS_MAX];

    b->p = malloc(len);
    assert_non_null(b->p);
    if (mig_channel_read(c->lane, b->p, TRANSCRIPT_LANE, &transcript_patient, NULL) < 0 ||
        mig_channel_recv_fds(c->lane, b->p + TRANSCRIPT_LANE, len - TRANSCRIPT_LANE, fds,
                             &transcript_patient, NULL) < 0)
        return false;
    b->len = len;
    for (unsigned i = 0; i < MIG_FDS_MAX; i++) {
        struct stat mine, theirs;

        assert_int_equal(fds[i] >= 0, i < FAKE_GUEST_REGIONS);
        if (fds[i] < 0)
            continue;
        assert_int_equal(fstat(fds[i], &theirs), 0);
        assert_int_equal(fstat(gmem_region(c->r->memory->gm, i)->fd, &mine), 0);
        assert_int_equal(mine.st_ino, theirs.st_ino);
        (void)close(fds[i]);
    }
    return true;
}

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
    if (!c->lane && (fake_link_accept(c->r->link, &transcript_patient, &c->lane, NULL) < 0 ||
                     (c->r->memory && !take_memory(c))))
        return false;
    return await_msgs(c->lane, &got->lane, MIG_MSG_ROUND_END, ++c->rounds) &&
           (type != MIG_MSG_LOADED || await_msgs(c->ch, &got->to_dest, MIG_MSG_STATE, 1));
}

static void *dest_main(void *arg)
{
    struct conversation c = {.r = arg};
    const struct transcript_bytes *b = &c.r->t->to_source;
    size_t at = 0;

    assert_int_equal(fake_link_accept(c.r->link, &transcript_patient, &c.ch, NULL), 0);
    while (b->len - at >= TRANSCRIPT_HDR) {
        struct mig_msg_hdr hdr;
        size_t len;

        memcpy(&hdr, b->p + at, TRANSCRIPT_HDR);
        len = TRANSCRIPT_HDR + le32_get(hdr.len);
        len = len < b->len - at ? len : b->len - at;
        if (!await_cause(&c, le16_get(hdr.type)) ||
            mig_channel_write(c.ch, b->p + at, len, &transcript_patient, NULL) < 0)
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

int transcript_run_source(const struct transcript *t, const struct transcript_with *with,
                          struct fake_guest *from, enum mig_result *ret_result,
                          struct transcript *ret_got)
{
    struct replay r = {.link = link_of(with, false), .t = t, .memory = with->local ? from : NULL};
    struct mig_source_params sp = {.ops = &fake_source_ops,
                                   .arg = from,
                                   .open = fake_link_connect,
                                   .open_arg = r.link,
                                   .limits = {.downtime_ns = 300000000},
                                   .compression = with->compression,
                                   .local = with->local,
                                   .idle_ms = 3000,
                                   .hello_ms = 3000,
                                   .keepalive_ms = 1000000};
    struct mig_channel *nobody;
    struct mig_source *src;
    struct mig_status st;
    struct err err = {0};
    pthread_t thread;
    int rc;

    fake_guest_start(from, guest_of(with));
    from->quiet_save = true;
    from->facts = with->facts;
    sp.gm = from->gm;
    sp.dirty = from->dirty;
    assert_int_equal(mig_source_new(&sp, &src, NULL), 0);
    assert_int_equal(pthread_create(&thread, NULL, dest_main, &r), 0);
    rc = mig_source_run(src, NULL, &err);
    /* Whoever still waits for a lane finds one that says nothing. */
    if (fake_link_connect(r.link, &transcript_patient, &nobody, NULL) == 0)
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
    assert_false(rc < 0 && atomic_load(&from->log_on));
    mig_source_free(src);
    fake_link_free(r.link);
    *ret_result = st.result;
    *ret_got = r.got;
    return rc;
}
