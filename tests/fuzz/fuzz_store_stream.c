/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams of snapshots.  The checks of header and frames are made right first, as somebody
 * hostile would.  What is refused is explained and leaves no snapshot; what is accepted
 * verifies, and comes out again as a stream that is the same snapshot.
 */
#include <assert.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "store/store_pack.h"
#include "store/store_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[64]; /* of the one store of the process */

static int remove_entry(const char *name, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(name);
}

static void remove_store(void)
{
    (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static struct store *fuzz_store(void)
{
    static struct store *st;

    if (st)
        return st;
    (void)snprintf(path, sizeof(path), "%s/fuzz-stream-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(path) || store_open(path, STORE_CREATE, &st, NULL) < 0)
        abort();
    (void)atexit(remove_store);
    return st;
}

struct bytes {
    uint8_t *p;
    size_t len, at;
};

static ssize_t source(void *arg, void *data, size_t len, struct err *err)
{
    struct bytes *b = arg;
    size_t n = b->len - b->at < len ? b->len - b->at : len;

    (void)err;
    memcpy(data, b->p + b->at, n);
    b->at += n;
    return (ssize_t)n;
}

static int sink(void *arg, const void *data, size_t len, struct err *err)
{
    struct bytes *b = arg;

    (void)err;
    b->p = realloc(b->p, b->len + len);
    assert(b->p);
    memcpy(b->p + b->len, data, len);
    b->len += len;
    return 0;
}

static void put_check(const void *a, size_t a_len, const void *b, size_t b_len, uint8_t *check)
{
    struct store_digest d;

    store_hash2(a, a_len, b, b_len, &d);
    memcpy(check, d.b, STORE_STREAM_CHECK_LEN);
}

static void make_checks_right(struct bytes *b)
{
    size_t at = STORE_STREAM_HDR_LEN;

    if (b->len < at)
        return;
    put_check(b->p, offsetof(struct store_stream_wire, check), "", 0,
              b->p + offsetof(struct store_stream_wire, check));
    while (b->len - at >= STORE_FRAME_HDR_LEN) {
        struct store_frame_wire w;
        size_t len;

        memcpy(&w, b->p + at, sizeof(w));
        len = le32_get(w.len);
        if (len > b->len - at - sizeof(w))
            break;
        put_check(&w, offsetof(struct store_frame_wire, check), b->p + at + sizeof(w), len,
                  b->p + at + offsetof(struct store_frame_wire, check));
        at += sizeof(w) + len;
    }
}

static void check_accepted(struct store *st, const char *id)
{
    static const struct store_stream_cfg cfg = {.name = ""};
    const struct store_verify_cfg verify = {.data = true};
    struct store_verify_result res;
    struct store_stream_result sent, again;
    struct store_gc_result gc;
    struct store_snapshot *snap;
    struct bytes out = {0};

    assert(store_verify(st, &verify, &res, NULL) == 0 && res.problems == 0);
    assert(store_snapshot_open(st, id, &snap, NULL) == 0);
    assert(store_export(snap, sink, &out, &cfg, &sent, NULL) == 0);
    store_snapshot_close(snap);
    assert(store_remove(st, id, NULL) == 0);
    assert(store_import(st, source, &out, &cfg, &again, NULL) == 1);
    assert(strcmp(again.id, id) == 0);
    assert(store_remove(st, id, NULL) == 0);
    assert(store_gc(st, 0, NULL, NULL, &gc, NULL) == 0);
    free(out.p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct store_stream_cfg cfg;
    struct store *st = fuzz_store();
    struct bytes b = {.p = malloc(size + 1), .len = size};
    struct store_stream_result res;
    struct store_stats stats;
    struct err err = {0};
    int rc;

    assert(b.p);
    if (size)
        memcpy(b.p, data, size);
    make_checks_right(&b);
    rc = store_import(st, source, &b, &cfg, &res, &err);
    free(b.p);
    if (rc > 0)
        check_accepted(st, res.id);
    else if (rc < 0)
        assert(err.msg[0]);
    assert(store_stats(st, &stats, NULL) == 0 && stats.snapshots == 0);
    return 0;
}
