/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is meant by a name or an id, and what a damaged snapshot may stand in the way of.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "store/store_internal.h"
#include "store/store_stream.h"
#include "tests/unit/store_fixture.h"

static struct fixture fx;
static struct store *st;

static int setup(void **state)
{
    (void)state;
    fixture_make(&fx);
    st = fixture_open(&fx);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_close(st);
    st = NULL;
    fixture_remove(&fx);
    return 0;
}

/* A name may be 64 digits, but not stand in for the snapshot that has them as its id. */
static void test_no_name_stands_in_for_an_id(void **state)
{
    struct image img = image_make(10, 6);
    char a[STORE_DIGEST_HEX + 1], b[STORE_DIGEST_HEX + 1], id[STORE_DIGEST_HEX + 1];
    const struct store_relabel posing = {.name = a};
    struct err err = {0};

    (void)state;
    assert_ok(image_put(st, &img, NULL, "one", a, &err), &err);
    assert_ok(image_put(st, &img, NULL, "two", b, &err), &err);
    assert_ok(store_relabel(st, "two", &posing, 1, &err), &err);
    assert_ok(store_resolve(st, a, id, &err), &err);
    assert_string_equal(id, a);
    assert_ok(store_remove(st, a, &err), &err);
    assert_ok(store_resolve(st, b, id, &err), &err);
    assert_int_equal(store_resolve(st, "one", id, NULL), -ENOENT);
    image_free(&img);
}

struct listed {
    unsigned nr;
    char last[STORE_DIGEST_HEX + 1];
};

static int listed_take(void *arg, const struct store_info *info)
{
    struct listed *l = arg;

    l->nr++;
    memcpy(l->last, info->id, sizeof(l->last));
    return 0;
}

/* One damaged row must not hide the others, nor stay for ever. */
static void test_a_damaged_snapshot_hides_no_other_and_can_be_removed(void **state)
{
    struct image img = image_make(10, 6);
    char a[STORE_DIGEST_HEX + 1], b[STORE_DIGEST_HEX + 1], id[STORE_DIGEST_HEX + 1];
    struct store_gc_result gc;
    struct listed l = {0};
    struct err err = {0};

    (void)state;
    assert_ok(image_put(st, &img, NULL, "one", a, &err), &err);
    assert_ok(image_put(st, &img, NULL, "two", b, &err), &err);
    assert_int_equal(
        index_change(fx.path, "UPDATE snapshots SET tags = 'forged' WHERE name = 'one'"), 1);
    assert_int_equal(store_list(st, listed_take, &l, &err), -EBADMSG);
    assert_non_null(strstr(err.msg, "name or tags"));
    assert_int_equal(l.nr, 1);
    assert_string_equal(l.last, b);
    assert_int_equal(store_gc(st, 0, NULL, NULL, &gc, NULL), -EBADMSG);
    /* Its name is not to be trusted; its id is. */
    assert_int_equal(store_remove(st, "one", NULL), -EBADMSG);
    assert_int_equal(store_remove(st, "forged", NULL), -EBADMSG);
    a[12] = 0;
    assert_ok(store_resolve(st, a, id, &err), &err);
    assert_ok(store_remove(st, a, &err), &err);
    assert_ok(store_gc(st, 0, NULL, NULL, &gc, &err), &err);
    assert_int_equal(store_problems(st, true), 0);
    assert_int_equal(image_compare(st, "two", &img, &err), 0);
    image_free(&img);
}

/* ---- somebody else at the same time ---- */

static struct image small;
static unsigned scans_left; /* before they do: reads of the table of snapshots to its end */
static bool is_late;        /* they do just before a snapshot is locked */

/* "latest" moves on: at every moment a snapshot has that tag. */
static void move_on(void)
{
    const struct store_relabel tag = {.add = "latest"};
    struct store *other = fixture_open(&fx);
    struct err err = {0};

    assert_ok(image_put_alone(other, &small, NULL, "new", NULL, &err), &err);
    assert_ok(store_relabel(other, "new", &tag, 1, &err), &err);
    assert_ok(store_remove(other, "old", &err), &err);
    store_close(other);
}

int __real_sqlite3_step(sqlite3_stmt *s);
int __wrap_sqlite3_step(sqlite3_stmt *s);

int __wrap_sqlite3_step(sqlite3_stmt *s)
{
    int rc = __real_sqlite3_step(s);

    if (scans_left && rc == SQLITE_DONE && strstr(sqlite3_sql(s), "FROM snapshots") &&
        --scans_left == 0)
        move_on();
    return rc;
}

static int (*real_lock)(struct store_backend *be, uint64_t what, enum store_lock_mode mode,
                        bool wait, struct store_lock **ret, struct err *err);

static int late_lock(struct store_backend *be, uint64_t what, enum store_lock_mode mode, bool wait,
                     struct store_lock **ret, struct err *err)
{
    if (is_late && what >= STORE_LOCK_SNAPSHOTS) {
        is_late = false;
        move_on();
    }
    return real_lock(be, what, mode, wait, ret, err);
}

/* "old" is "latest"; what our store locks, it locks late. */
static void have_company(void)
{
    static struct store_backend_ops late;
    const struct store_relabel tag = {.add = "latest"};
    struct err err = {0};

    small = image_make(10, 6);
    assert_ok(image_put_alone(st, &small, NULL, "old", NULL, &err), &err);
    assert_ok(store_relabel(st, "old", &tag, 1, &err), &err);
    late = *st->be->ops;
    real_lock = late.lock;
    late.lock = late_lock;
    st->be->ops = &late;
}

static void test_what_is_found_is_looked_for_in_one_state(void **state)
{
    for (unsigned scans = 1; scans <= 3; scans++) {
        char id[STORE_DIGEST_HEX + 1];
        struct err err = {0};

        (void)teardown(state);
        assert_int_equal(setup(state), 0);
        have_company();
        scans_left = scans;
        assert_ok(store_resolve(st, "latest", id, &err), &err);
        assert_int_equal(scans_left, 0);
        assert_int_equal(store_resolve(st, id, id, NULL), -ENOENT); /* it was that one */
        image_free(&small);
    }
}

static void test_a_tag_that_moves_on_is_opened_where_it_went(void **state)
{
    struct store_snapshot *snap = NULL;
    struct err err = {0};

    (void)state;
    have_company();
    is_late = true;
    assert_ok(store_snapshot_open(st, "latest", &snap, &err), &err);
    assert_false(is_late);
    assert_string_equal(store_snapshot_info(snap)->name, "new");
    assert_int_equal(store_remove_check(st, "new", NULL), -EBUSY);
    store_snapshot_close(snap);
    assert_ok(store_remove_check(st, "new", &err), &err);
    image_free(&small);
}

static void test_only_one_of_two_removes(void **state)
{
    struct err err = {0};

    (void)state;
    have_company();
    is_late = true;
    assert_int_equal(store_remove(st, "old", &err), -ENOENT);
    assert_string_equal(err.msg, "no snapshot \"old\"");
    image_free(&small);
}

/* ---- a snapshot that goes and comes back between look-up and lock ---- */

/* What another process does before the lock is had; the back end is the store's own but for that. */
static struct {
    struct store_backend_ops ops;
    const struct store_backend_ops *real;
    struct store *other;
    struct bytes stream;
    unsigned left; /* how often yet */
} meanwhile;

static void export_snapshot(const char *ref)
{
    const struct store_stream_cfg cfg = {0};
    struct store_stream_result res;
    struct store_snapshot *snap;
    struct err err = {0};

    assert_ok(store_snapshot_open(st, ref, &snap, &err), &err);
    assert_ok(store_export(snap, bytes_sink, &meanwhile.stream, &cfg, &res, &err), &err);
    store_snapshot_close(snap);
}

static void bring_again(void)
{
    const struct store_stream_cfg cfg = {0};
    struct store_stream_result res;
    struct err err = {0};

    meanwhile.stream.at = 0;
    assert_ok(store_remove(meanwhile.other, "goes", &err), &err);
    assert_int_equal(
        store_import(meanwhile.other, bytes_source, &meanwhile.stream, &cfg, &res, &err), 1);
}

static int lock_after_that(struct store_backend *be, uint64_t what, enum store_lock_mode mode,
                           bool wait, struct store_lock **ret, struct err *err)
{
    if (what >= STORE_LOCK_SNAPSHOTS && meanwhile.left) {
        meanwhile.left--;
        bring_again();
    }
    return meanwhile.real->lock(be, what, mode, wait, ret, err);
}

static void begin_meanwhile(unsigned times)
{
    meanwhile.other = fixture_open(&fx);
    meanwhile.real = st->be->ops;
    meanwhile.ops = *st->be->ops;
    meanwhile.ops.lock = lock_after_that;
    meanwhile.left = times;
    st->be->ops = &meanwhile.ops;
}

static void end_meanwhile(void)
{
    st->be->ops = meanwhile.real;
    store_close(meanwhile.other);
    free(meanwhile.stream.p);
    (void)memset(&meanwhile, 0, sizeof(meanwhile));
}

/* It has another number, and its lock is another's: who reads it would keep nobody from removing it. */
static void test_what_came_back_is_locked_as_what_it_is_now(void **state)
{
    struct image img = image_make(10, 6);
    struct store_snapshot *snap;
    struct err err = {0};
    uint64_t seq;

    (void)state;
    assert_ok(image_put(st, &img, NULL, "goes", NULL, &err), &err);
    export_snapshot("goes");
    assert_ok(image_put(st, &img, NULL, "stays", NULL, &err), &err);
    assert_ok(store_snapshot_open(st, "goes", &snap, &err), &err);
    seq = store_snapshot_info(snap)->seq;
    store_snapshot_close(snap);

    begin_meanwhile(2);
    assert_ok(store_snapshot_open(st, "goes", &snap, &err), &err);
    assert_int_equal(meanwhile.left, 0);
    assert_true(store_snapshot_info(snap)->seq > seq + 1);
    assert_int_equal(store_remove(meanwhile.other, "goes", NULL), -EBUSY);
    store_snapshot_close(snap);
    assert_ok(store_remove(meanwhile.other, "goes", &err), &err);
    end_meanwhile();
    image_free(&img);
}

/* An id means one snapshot, and that is gone. */
static void test_what_came_back_is_not_what_an_id_meant(void **state)
{
    struct image img = image_make(10, 6);
    char id[STORE_DIGEST_HEX + 1];
    struct store_snapshot *snap;
    struct err err = {0};

    (void)state;
    assert_ok(image_put(st, &img, NULL, "goes", id, &err), &err);
    export_snapshot("goes");
    assert_ok(image_put(st, &img, NULL, "stays", NULL, &err), &err);
    begin_meanwhile(1);
    assert_int_equal(store_snapshot_open(st, id, &snap, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "was removed meanwhile"));
    err = (struct err){0};
    assert_ok(store_snapshot_open(st, id, &snap, &err), &err);
    store_snapshot_close(snap);
    /* Nor is it waited for without an end. */
    meanwhile.left = UINT_MAX;
    assert_int_equal(store_snapshot_open(st, "goes", &snap, NULL), -ENOENT);
    meanwhile.left = 0;
    end_meanwhile();
    image_free(&img);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_name_stands_in_for_an_id, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_snapshot_hides_no_other_and_can_be_removed,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_found_is_looked_for_in_one_state, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_tag_that_moves_on_is_opened_where_it_went, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_only_one_of_two_removes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_came_back_is_locked_as_what_it_is_now, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_what_came_back_is_not_what_an_id_meant, setup,
                                        teardown),
    };

    return cmocka_run_group_tests_name("store_names", tests, NULL, NULL);
}
