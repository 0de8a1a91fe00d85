/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>

#include "snapshot/snap_uffd.h"

enum {
    PAGES = 1024,
    TURNS = 200,
    LONG_S = 20,
};

static uint8_t *new_pages(void)
{
    void *p = mmap(NULL, PAGES * PAGE_SIZE_4K, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                   -1, 0);

    assert_ptr_not_equal(p, MAP_FAILED);
    return p;
}

static int open_or_skip(void)
{
    struct err err = {0};
    int fd = snap_uffd_open(0, &err);

    if (fd == -EPERM || fd == -ENOSYS) {
        print_message("skipped: %s\n", err.msg);
        skip();
    }
    assert_true(fd >= 0);
    return fd;
}

static void *touch_all(void *arg)
{
    volatile uint8_t *p = arg;

    for (unsigned i = 0; i < PAGES; i++)
        p[i * PAGE_SIZE_4K] = 1;
    return NULL;
}

/* A thread that touches the memory ends; one that waits for ever fails the test. */
static void assert_ends(pthread_t thread)
{
    struct timespec until;

    assert_int_equal(clock_gettime(CLOCK_REALTIME, &until), 0);
    until.tv_sec += LONG_S;
    assert_int_equal(pthread_timedjoin_np(thread, NULL, &until), 0);
}

/* Puts a page of zeroes where somebody waits, until told to stop. */
struct server {
    int fd;
    atomic_bool quit;
    atomic_uint served;
};

static void *serve(void *arg)
{
    struct server *s = arg;
    struct pollfd waits = {.fd = s->fd, .events = POLLIN};
    struct uffd_msg msg;

    while (!atomic_load(&s->quit)) {
        if (poll(&waits, 1, 1) != 1 || read(s->fd, &msg, sizeof(msg)) != (ssize_t)sizeof(msg))
            continue;
        assert_int_equal(
            snap_uffd_zero(s->fd, (void *)(uintptr_t)(msg.arg.pagefault.address & ~UINT64_C(4095)),
                           PAGE_SIZE_4K),
            0);
        atomic_fetch_add(&s->served, 1);
    }
    return NULL;
}

/*
 * Memory is let go of while a thread touches one page after the other: it may wait for a page
 * anew at any moment of that.
 */
static void test_who_waits_goes_on_when_memory_is_let_go_of(void **state)
{
    int fd = open_or_skip();

    (void)state;
    for (unsigned turn = 0; turn < TURNS; turn++) {
        struct server s = {.fd = fd};
        uint8_t *p = new_pages();
        pthread_t server, toucher;

        assert_int_equal(snap_uffd_register(fd, p, PAGES * PAGE_SIZE_4K, NULL), 0);
        assert_int_equal(pthread_create(&server, NULL, serve, &s), 0);
        assert_int_equal(pthread_create(&toucher, NULL, touch_all, p), 0);
        while (atomic_load(&s.served) < 10 + turn % 30)
            ;
        assert_int_equal(snap_uffd_unregister(fd, p, PAGES * PAGE_SIZE_4K), 0);
        atomic_store(&s.quit, true);
        assert_int_equal(pthread_join(server, NULL), 0);
        assert_ends(toucher);
        assert_int_equal(munmap(p, PAGES * PAGE_SIZE_4K), 0);
    }
    (void)close(fd);
}

static void test_what_was_never_registered_cannot_be_let_go_of(void **state)
{
    int fd = open_or_skip();

    (void)state;
    assert_true(snap_uffd_unregister(fd, (void *)(uintptr_t)1, PAGE_SIZE_4K) < 0);
    (void)close(fd);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_waits_goes_on_when_memory_is_let_go_of),
        cmocka_unit_test(test_what_was_never_registered_cannot_be_let_go_of),
    };

    return cmocka_run_group_tests_name("snap_uffd", tests, NULL, NULL);
}
