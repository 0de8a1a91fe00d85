/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "snapshot/snap_eager.h"
#include "store/store_record.h"

enum {
    LOW_PAGES = 3 * SNAP_CHUNK_PAGES + 5,
    HIGH_PAGES = SNAP_CHUNK_PAGES,
    CHUNKS = 5, /* of both regions */
    PATIENCE_S = 60,
};

/* What chunks were dealt with, and by how many threads at once. */
struct seen {
    pthread_mutex_t lock;
    pthread_cond_t together;
    unsigned inside, most;
    unsigned wait_for; /* threads that are to be inside before any of them goes on */
    unsigned chunks;
    unsigned fail_at; /* the number of a chunk; 0: none */
    uint8_t times[2][LOW_PAGES];
};

static struct store_record *rec;
static struct snap_progress progress;
static struct seen seen;

/* --- Helpers ------------------------------------------------------------- */

static int setup(void **state)
{
    (void)state;
    rec = calloc(1, sizeof(*rec));
    assert_non_null(rec);
    rec->nr_regions = 2;
    rec->regions[0].pages = LOW_PAGES;
    rec->regions[1].pages = HIGH_PAGES;
    memset(&progress, 0, sizeof(progress));
    memset(&seen, 0, sizeof(seen));
    (void)pthread_mutex_init(&seen.lock, NULL);
    (void)pthread_cond_init(&seen.together, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(rec);
    return 0;
}

/* Waits for the others that are to be inside; once they have been, for nobody. */
static void meet_locked(void)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    if (++seen.inside > seen.most)
        seen.most = seen.inside;
    if (seen.most >= seen.wait_for)
        (void)pthread_cond_broadcast(&seen.together);
    while (seen.most < seen.wait_for)
        if (pthread_cond_timedwait(&seen.together, &seen.lock, &until) != 0)
            seen.wait_for = 0; /* nobody comes */
    seen.inside--;
}

static int deal(void *arg, const struct snap_chunk *chunk, struct err *err)
{
    int rc = 0;

    (void)arg;
    (void)pthread_mutex_lock(&seen.lock);
    meet_locked();
    for (uint64_t i = 0; i < chunk->nr; i++)
        seen.times[chunk->region][chunk->first + i]++;
    if (++seen.chunks == seen.fail_at)
        rc = err_set(err, -EBADMSG, "chunk %u is damaged", seen.chunks);
    (void)pthread_mutex_unlock(&seen.lock);
    return rc;
}

/* --- Tests --------------------------------------------------------------- */

static void test_every_page_is_dealt_with_once(void **state)
{
    (void)state;
    assert_int_equal(snap_for_chunks(rec, deal, NULL, &progress, NULL), 0);
    assert_int_equal(seen.chunks, CHUNKS);
    for (unsigned r = 0; r < 2; r++)
        for (uint64_t p = 0; p < rec->regions[r].pages; p++)
            assert_int_equal(seen.times[r][p], 1);
    assert_int_equal(atomic_load(&progress.pages_done), LOW_PAGES + HIGH_PAGES);
}

static void test_several_threads_work_at_once(void **state)
{
    (void)state;
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
        print_message("skipped: one processor\n");
        skip();
    }
    seen.wait_for = 2;
    assert_int_equal(snap_for_chunks(rec, deal, NULL, &progress, NULL), 0);
    assert_true(seen.most >= 2);
    assert_int_equal(seen.chunks, CHUNKS);
}

static void test_a_failure_is_told(void **state)
{
    struct err err = {0};

    (void)state;
    seen.fail_at = 1;
    assert_int_equal(snap_for_chunks(rec, deal, NULL, &progress, &err), -EBADMSG);
    assert_string_equal(err.msg, "chunk 1 is damaged");
}

static void test_who_has_given_up_deals_with_nothing(void **state)
{
    struct err err = {0};

    (void)state;
    snap_cancel(&progress);
    assert_int_equal(snap_for_chunks(rec, deal, NULL, &progress, &err), -ECANCELED);
    assert_int_equal(seen.chunks, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_page_is_dealt_with_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_several_threads_work_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failure_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_has_given_up_deals_with_nothing, setup, teardown),
    };

    return cmocka_run_group_tests_name("snap_eager", tests, NULL, NULL);
}
