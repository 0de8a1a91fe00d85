/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several at once: the collector beside writers and readers, and everything beside
 * everything with kills.
 *
 * CHRYSALIS_TEST_ROUNDS says how many rounds of the latter (60 unless told), and
 * CHRYSALIS_TEST_SEED which.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>

#include "store/store_backend.h"
#include "tests/unit/store_fixture.h"

enum {
    PAGES = 700,
    ROUNDS = 60,
    ACTORS_MAX = 4,
    BASES = 3,
    SNAPSHOTS_MAX = 48, /* all are read every few rounds: more would make that the test */
    PATIENCE_S = 60,
};

static struct store *open_store(const struct fixture *fx)
{
    struct err err = {0};
    struct store *st;

    assert_ok(store_open(fx->path, STORE_CREATE, &st, &err), &err);
    return st;
}

/* ---- the collector beside a writer ---- */

struct collection {
    struct store *st;
    struct store_gc_result res;
    int rc;
};

static void *collect(void *arg)
{
    struct collection *c = arg;

    c->rc = store_gc(c->st, STORE_GC_WAIT, NULL, NULL, &c->res, NULL);
    return NULL;
}

/* Until the collector has marked and waits for the writers. */
static void wait_for_gate(const struct fixture *fx)
{
    char path[2 * FIXTURE_PATH_MAX];
    time_t end = time(NULL) + PATIENCE_S;
    int fd;

    (void)snprintf(path, sizeof(path), "%s/lock", fx->path);
    fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    for (;;) {
        struct flock fl = {
            .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = STORE_LOCK_GATE, .l_len = 1};

        assert_int_equal(fcntl(fd, F_OFD_GETLK, &fl), 0);
        if (fl.l_type != F_UNLCK)
            break;
        assert_true(time(NULL) < end);
        (void)usleep(1000);
    }
    (void)close(fd);
}

static void test_what_a_writer_takes_up_while_the_collector_marks_is_kept(void **state)
{
    struct image gone = image_make(PAGES, 1), kept = image_make(PAGES, 2), taken;
    const struct store_publish what = {.config = "{}"};
    char id[STORE_DIGEST_HEX + 1];
    struct collection c = {0};
    struct store_writer *w;
    struct fixture fx;
    struct err err = {0};
    struct store *st;
    pthread_t thread;

    (void)state;
    /* Of the pack of "gone" a few pages are alive: it is to be rewritten. */
    memcpy(kept.p, gone.p, 40 * PAGE_SIZE_4K);
    taken = image_copy(&kept);
    memcpy(taken.p + 300 * PAGE_SIZE_4K, gone.p + 300 * PAGE_SIZE_4K, 100 * PAGE_SIZE_4K);
    fixture_make(&fx);
    st = open_store(&fx);
    assert_ok(image_put(st, &gone, NULL, "gone", NULL, &err), &err);
    assert_ok(image_put(st, &kept, NULL, "kept", NULL, &err), &err);
    assert_ok(store_remove(st, "gone", &err), &err);

    assert_ok(image_begin(st, &taken, "kept", "taken", false, &w, &err), &err);
    c.st = st;
    assert_int_equal(pthread_create(&thread, NULL, collect, &c), 0);
    wait_for_gate(&fx);
    /* It has marked these pages dead. */
    assert_ok(store_writer_pages(w, 0, 0, PAGES, taken.p, &err), &err);
    assert_ok(store_writer_publish(w, &what, id, &err), &err);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(c.rc, 0);
    assert_int_equal(c.res.packs_rewritten, 1);
    assert_true(c.res.pages_dropped > 0);
    assert_int_equal(image_compare(st, "taken", &taken, &err), 0);
    assert_int_equal(image_compare(st, "kept", &kept, &err), 0);
    assert_int_equal(store_problems(st, true), 0);
    store_close(st);
    image_free(&gone);
    image_free(&kept);
    image_free(&taken);
    fixture_remove(&fx);
}

static void test_a_collector_that_may_not_wait_leaves_nothing(void **state)
{
    struct image gone = image_make(PAGES, 1), kept = image_make(PAGES, 2);
    struct store_gc_result res;
    struct store_stats stats;
    struct store_writer *w;
    struct fixture fx;
    struct err err = {0}, busy = {0};
    struct store *st;

    (void)state;
    memcpy(kept.p, gone.p, 40 * PAGE_SIZE_4K);
    fixture_make(&fx);
    st = open_store(&fx);
    assert_ok(image_put(st, &gone, NULL, "gone", NULL, &err), &err);
    assert_ok(image_put(st, &kept, NULL, "kept", NULL, &err), &err);
    assert_ok(store_remove(st, "gone", &err), &err);
    assert_ok(image_begin(st, &kept, NULL, NULL, true, &w, &err), &err);
    assert_int_equal(store_gc(st, 0, NULL, NULL, &res, &busy), -EBUSY);
    assert_non_null(strstr(busy.msg, "being written"));
    assert_ok(store_stats(st, &stats, &err), &err);
    assert_int_equal(stats.bytes_others, 0); /* the copies that it made are gone */
    store_writer_abort(w);
    assert_ok(store_gc(st, 0, NULL, NULL, &res, &err), &err);
    assert_int_equal(res.packs_rewritten, 1);
    assert_int_equal(image_compare(st, "kept", &kept, &err), 0);
    store_close(st);
    image_free(&gone);
    image_free(&kept);
    fixture_remove(&fx);
}

/* ---- everything beside everything ---- */

static uint64_t next_random(uint64_t *seed)
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15U;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

/* What the memory of a snapshot called "n<seed>" is: one of a few bases, somewhat changed. */
static struct image image_of(uint64_t seed)
{
    struct image img = image_make(PAGES, 100 + seed % BASES);

    for (uint64_t i = 0; i < 20; i++)
        image_touch(&img, (seed * 31 + i * 7) % PAGES, seed % 50);
    return img;
}

static int act_write(struct store *st, uint64_t seed)
{
    struct image img = image_of(seed);
    char name[32], parent[STORE_DIGEST_HEX + 1];
    bool based;
    int rc;

    (void)snprintf(name, sizeof(name), "n%llu", (unsigned long long)seed);
    based = seed % 2 && store_newest(st, NULL, parent, NULL) == 0;
    rc = image_put(st, &img, based ? parent : NULL, name, NULL, NULL);
    image_free(&img);
    /* The parent may have been removed, the name be taken. */
    return rc == -ENOENT || rc == -EEXIST ? 0 : rc;
}

/* Others may have removed it already. */
static int remove_one(struct store *st, const char *id)
{
    int rc = store_remove(st, id, NULL);

    return rc == -ENOENT || rc == -EBUSY ? 0 : rc;
}

/* The newest goes, which others may be about to build upon; and any, while there are too many. */
static int act_remove(struct store *st, uint64_t seed)
{
    char newest[STORE_DIGEST_HEX + 1], (*ids)[STORE_DIGEST_HEX + 1] = NULL;
    size_t nr = 0;
    int rc = store_newest(st, "test-vm", newest, NULL);

    if (rc == -ENOENT)
        return 0;
    if (rc == 0)
        rc = remove_one(st, newest);
    if (rc == 0)
        rc = store_list_ids(st, &ids, &nr, NULL);
    for (; rc == 0 && nr > SNAPSHOTS_MAX; nr--) {
        size_t i = next_random(&seed) % nr;

        rc = remove_one(st, ids[i]);
        memmove(ids[i], ids[nr - 1], sizeof(ids[i]));
    }
    free(ids);
    return rc;
}

/* The newest snapshot is what its name says. */
static int act_read(struct store *st)
{
    char id[STORE_DIGEST_HEX + 1], name[STORE_NAME_MAX + 1];
    struct store_snapshot *snap;
    struct image img;
    int rc = store_newest(st, NULL, id, NULL);

    if (rc == 0)
        rc = store_snapshot_open(st, id, &snap, NULL);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    (void)snprintf(name, sizeof(name), "%s", store_snapshot_info(snap)->name);
    img = image_of(strtoull(name + 1, NULL, 10));
    rc = image_compare(st, id, &img, NULL);
    image_free(&img);
    store_snapshot_close(snap);
    return rc == 0 ? 0 : -EBADMSG;
}

static int act_collect(struct store *st)
{
    struct store_gc_result res;
    int rc = store_gc(st, 0, NULL, NULL, &res, NULL);

    return rc == -EBUSY ? 0 : rc;
}

/* One process of a round; its exit status. */
static int act(const char *path, uint64_t seed)
{
    struct store *st;
    int rc = store_open(path, 0, &st, NULL);

    if (rc < 0)
        return 1;
    switch (seed % 7) {
    case 0:
    case 1:
    case 2:
        rc = act_write(st, seed / 7 % 100000);
        break;
    case 3:
        rc = act_remove(st, seed);
        break;
    case 4:
        rc = act_read(st);
        break;
    default:
        rc = act_collect(st);
        break;
    }
    store_close(st);
    return rc == 0 ? 0 : 2;
}

static int check_one(void *arg, const struct store_info *info)
{
    struct image img = image_of(strtoull(info->name + 1, NULL, 10));
    struct store *st;
    int rc;

    rc = store_open(arg, 0, &st, NULL);
    if (rc == 0) {
        rc = image_compare(st, info->id, &img, NULL);
        store_close(st);
    }
    image_free(&img);
    return rc == 0 ? 0 : -EBADMSG;
}

static int check_text(void *arg, int nr, char **values, char **names)
{
    (void)names;
    *(bool *)arg = nr == 1 && strcmp(values[0], "ok") == 0;
    return 0;
}

static void check_all(struct fixture *fx, uint64_t round)
{
    char path[2 * FIXTURE_PATH_MAX];
    struct store *st = open_store(fx);
    struct err err = {0};
    bool sound = false;
    sqlite3 *db;
    int rc = store_list(st, check_one, fx->path, &err);

    if (rc < 0)
        print_error("round %llu: %d %s\n", (unsigned long long)round, rc, err.msg);
    assert_int_equal(rc, 0);
    assert_int_equal(store_problems(st, true), 0);
    store_close(st);
    (void)snprintf(path, sizeof(path), "%s/store.db", fx->path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA integrity_check", check_text, &sound, NULL),
                     SQLITE_OK);
    assert_true(sound);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* Start some processes, kill some of them after a while, wait for all. */
static unsigned run_round(const char *path, uint64_t *seed)
{
    unsigned nr = 2 + (unsigned)(next_random(seed) % (ACTORS_MAX - 1)), killed = 0;
    pid_t pids[ACTORS_MAX];

    for (unsigned i = 0; i < nr; i++) {
        uint64_t s = next_random(seed);

        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0)
            _exit(act(path, s));
    }
    for (unsigned i = 0; i < nr; i++) {
        uint64_t r = next_random(seed);
        int status;

        if (r % 3 == 0) {
            (void)usleep((useconds_t)(r / 3 % 30000));
            (void)kill(pids[i], SIGKILL);
        }
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        killed += WIFSIGNALED(status);
        if (!WIFSIGNALED(status))
            assert_int_equal(WEXITSTATUS(status), 0);
    }
    return killed;
}

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 10) : otherwise;
}

static void test_random_interleavings_with_kills_lose_nothing(void **state)
{
    uint64_t rounds = from_environment("CHRYSALIS_TEST_ROUNDS", ROUNDS);
    uint64_t seed = from_environment("CHRYSALIS_TEST_SEED", 1), first = seed;
    struct store_gc_result gc;
    struct store_stats stats;
    unsigned killed = 0;
    struct fixture fx;
    struct err err = {0};
    struct store *st;

    (void)state;
    fixture_make(&fx);
    store_close(open_store(&fx));
    for (uint64_t round = 0; round < rounds; round++) {
        killed += run_round(fx.path, &seed);
        if (round % 5 == 4 || round + 1 == rounds)
            check_all(&fx, round);
    }
    print_message("%llu rounds from seed %llu, %u processes killed\n", (unsigned long long)rounds,
                  (unsigned long long)first, killed);
    assert_true(killed > 0);
    st = open_store(&fx);
    assert_ok(store_gc(st, 0, NULL, NULL, &gc, &err), &err);
    assert_ok(store_stats(st, &stats, &err), &err);
    assert_int_equal(stats.bytes_others, 0);
    store_close(st);
    check_all(&fx, rounds);
    fixture_remove(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_writer_takes_up_while_the_collector_marks_is_kept),
        cmocka_unit_test(test_a_collector_that_may_not_wait_leaves_nothing),
        cmocka_unit_test(test_random_interleavings_with_kills_lose_nothing),
    };

    return cmocka_run_group_tests_name("store_beside", tests, NULL, NULL);
}
