/* SPDX-License-Identifier: Apache-2.0 */
/* The table of all that can be where a socket is to be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/socket_name.h"

#define NO_SOCKET "is there and is not a socket"
#define SERVED    "somebody serves this socket"

struct fix {
    char dir[32];
    char path[64], target[64];
    int fd; /* serves @target */
};

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/socket-name-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->path, sizeof(f->path), "%s/path", f->dir);
    (void)snprintf(f->target, sizeof(f->target), "%s/target", f->dir);
    f->fd = -1;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;

    if (f->fd >= 0)
        assert_int_equal(close(f->fd), 0);
    (void)unlink(f->path);
    (void)unlink(f->target);
    /* Looking leaves nothing behind. */
    assert_int_equal(rmdir(f->dir), 0);
    free(f);
    return 0;
}

static void bind_socket(struct fix *f, int type, const char *path)
{
    struct sockaddr_un sa;

    f->fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    assert_true(f->fd >= 0);
    assert_int_equal(socket_name_address(path, &sa, NULL), 0);
    assert_int_equal(bind(f->fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
}

static void serve(struct fix *f, const char *path)
{
    bind_socket(f, SOCK_STREAM, path);
    assert_int_equal(listen(f->fd, 1), 0);
}

static void leave_over(struct fix *f, int type, const char *path)
{
    bind_socket(f, type, path);
    assert_int_equal(close(f->fd), 0);
    f->fd = -1;
}

static void assert_is(int rc, const struct err *err, const struct fix *f, int code,
                      const char *text)
{
    char msg[ERR_MSG_SIZE] = "";

    if (code < 0)
        (void)snprintf(msg, sizeof(msg), "%s: %s", f->path, text);
    assert_int_equal(rc, code);
    assert_string_equal(err->msg, msg);
}

/* Whether a socket may be there, and whether one may be made. */
static void assert_answers(const struct fix *f, int check, int may_take, const char *text)
{
    struct err err = {0};

    assert_is(socket_name_check(f->path, &err), &err, f, check, text);
    err = (struct err){0};
    assert_is(socket_name_may_take(f->path, &err), &err, f, may_take, text);
    assert_int_equal(socket_name_check(f->path, NULL), check);
    assert_int_equal(socket_name_may_take(f->path, NULL), may_take);
}

/* What is there, and what to say of it; a link to it is neither a socket nor nothing. */
static void assert_file(const struct fix *f)
{
    assert_answers(f, -EEXIST, -EEXIST, NO_SOCKET);
    assert_int_equal(rename(f->path, f->target), 0);
    assert_int_equal(symlink(f->target, f->path), 0);
    assert_answers(f, -EEXIST, -EEXIST, NO_SOCKET);
}

static void test_nothing_is_there(void **state)
{
    struct fix *f = *state;

    assert_answers(f, 0, 0, "");
    assert_int_equal(symlink(f->target, f->path), 0);
    assert_answers(f, -EEXIST, -EEXIST, NO_SOCKET);
}

static void test_a_socket_that_is_served_is_not_to_be_taken(void **state)
{
    struct fix *f = *state;

    serve(f, f->path);
    assert_answers(f, 0, -EADDRINUSE, SERVED);
}

/* By now those who asked above would have filled its queue. */
static void test_a_full_queue_is_served_too(void **state)
{
    struct fix *f = *state;

    serve(f, f->path);
    for (int i = 0; i < 8; i++)
        assert_answers(f, 0, -EADDRINUSE, SERVED);
}

static void test_who_only_checks_is_not_noticed(void **state)
{
    struct fix *f = *state;

    serve(f, f->path);
    assert_int_equal(fcntl(f->fd, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(socket_name_check(f->path, NULL), 0);
    assert_int_equal(accept(f->fd, NULL, NULL), -1);
    assert_int_equal(errno, EAGAIN);
}

static void test_a_socket_that_is_left_over_may_be_taken(void **state)
{
    struct fix *f = *state;

    leave_over(f, SOCK_STREAM, f->path);
    assert_answers(f, 0, 0, "");
}

static void test_other_sockets_are_served_while_somebody_has_them(void **state)
{
    struct fix *f = *state;

    bind_socket(f, SOCK_DGRAM, f->path);
    assert_answers(f, 0, -EADDRINUSE, SERVED);
    assert_int_equal(close(f->fd), 0);
    f->fd = -1;
    assert_answers(f, 0, 0, "");
    assert_int_equal(unlink(f->path), 0);
    bind_socket(f, SOCK_SEQPACKET, f->path);
    assert_int_equal(listen(f->fd, 1), 0);
    assert_answers(f, 0, -EADDRINUSE, SERVED);
}

static void test_a_link_is_no_socket_wherever_it_leads(void **state)
{
    struct fix *f = *state;

    leave_over(f, SOCK_STREAM, f->target);
    assert_int_equal(symlink(f->target, f->path), 0);
    assert_answers(f, -EEXIST, -EEXIST, NO_SOCKET);
    assert_int_equal(unlink(f->target), 0);
    serve(f, f->target);
    assert_answers(f, -EEXIST, -EEXIST, NO_SOCKET);
}

static void test_a_file_is_no_socket(void **state)
{
    struct fix *f = *state;

    assert_int_equal(mknod(f->path, S_IFREG | 0600, 0), 0);
    assert_file(f);
}

/* Nobody waits for its other end either. */
static void test_a_fifo_is_no_socket(void **state)
{
    struct fix *f = *state;

    assert_int_equal(mkfifo(f->path, 0600), 0);
    assert_file(f);
}

static void test_a_directory_is_no_socket(void **state)
{
    struct fix *f = *state;

    assert_int_equal(mkdir(f->path, 0700), 0);
    assert_answers(f, -EEXIST, -EEXIST, NO_SOCKET);
    assert_int_equal(rmdir(f->path), 0);
}

static void test_what_cannot_be_looked_at_is_an_error(void **state)
{
    struct fix *f = *state;
    struct sockaddr_un sa;
    struct err err = {0};
    char path[512];

    assert_int_equal(mknod(f->target, S_IFREG | 0600, 0), 0);
    (void)snprintf(f->path, sizeof(f->path), "%s/x", f->target);
    assert_answers(f, -ENOTDIR, -ENOTDIR, "Not a directory");

    (void)memset(path, 'a', sizeof(path));
    path[sizeof(sa.sun_path) - 1] = 0;
    assert_int_equal(socket_name_check(path, NULL), 0);
    assert_int_equal(socket_name_may_take(path, NULL), 0);
    path[sizeof(sa.sun_path) - 1] = 'a';
    path[sizeof(path) - 1] = 0;
    assert_int_equal(socket_name_address(path, &sa, NULL), -ENAMETOOLONG);
    assert_int_equal(socket_name_check(path, NULL), -ENAMETOOLONG);
    assert_int_equal(socket_name_may_take(path, &err), -ENAMETOOLONG);
    assert_non_null(strstr(err.msg, "aaa: File name too long"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_nothing_is_there),
        T(test_a_socket_that_is_served_is_not_to_be_taken),
        T(test_a_full_queue_is_served_too),
        T(test_who_only_checks_is_not_noticed),
        T(test_a_socket_that_is_left_over_may_be_taken),
        T(test_other_sockets_are_served_while_somebody_has_them),
        T(test_a_link_is_no_socket_wherever_it_leads),
        T(test_a_file_is_no_socket),
        T(test_a_fifo_is_no_socket),
        T(test_a_directory_is_no_socket),
        T(test_what_cannot_be_looked_at_is_an_error),
    };

    return cmocka_run_group_tests_name("socket_name", tests, NULL, NULL);
}
