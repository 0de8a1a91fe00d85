/* SPDX-License-Identifier: Apache-2.0 */
/* A console's socket and the path that clients know. */
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
#include <sys/un.h>
#include <unistd.h>

#include "devices/char_backend.h"

struct fix {
    char dir[32];
    char path[64];
    struct console_config cfg;
    struct char_backend be;
};

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/char-backend-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->path, sizeof(f->path), "%s/serial", f->dir);
    f->cfg = (struct console_config){.mode = CONSOLE_SOCKET, .socket = f->path};
    f->be = (struct char_backend){.out_fd = -1, .in_fd = -1, .listen_fd = -1};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;

    char_backend_close(&f->be);
    (void)unlink(f->path);
    /* Nothing else is left. */
    assert_int_equal(rmdir(f->dir), 0);
    free(f);
    return 0;
}

static void write_file(const struct fix *f, const char *text)
{
    int fd = open(f->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(close(fd), 0);
}

static void assert_file(const struct fix *f, const char *text)
{
    char buf[64] = "";
    int fd = open(f->path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(read(fd, buf, sizeof(buf) - 1), strlen(text));
    assert_string_equal(buf, text);
    assert_int_equal(close(fd), 0);
}

/* 0, or why nobody can be reached there. */
static int try_connect(const struct fix *f)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc;

    assert_true(fd >= 0);
    memcpy(sa.sun_path, f->path, strlen(f->path));
    rc = connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ? errno : 0;
    assert_int_equal(close(fd), 0);
    return rc;
}

static int bind_there(const struct fix *f)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    memcpy(sa.sun_path, f->path, strlen(f->path));
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

static void open_it(struct fix *f)
{
    assert_int_equal(char_backend_open("serial", &f->cfg, &f->be, NULL), 0);
}

static void test_a_path_is_known_from_publishing_to_hiding(void **state)
{
    struct fix *f = *state;

    open_it(f);
    assert_int_equal(try_connect(f), ENOENT);
    assert_int_equal(char_backend_publish(&f->be, NULL), 0);
    assert_int_equal(char_backend_publish(&f->be, NULL), 0);
    assert_int_equal(try_connect(f), 0);
    char_backend_hide(&f->be);
    assert_int_equal(try_connect(f), ENOENT);
}

static void test_a_socket_that_is_left_over_is_replaced(void **state)
{
    struct fix *f = *state;

    assert_int_equal(close(bind_there(f)), 0);
    open_it(f);
    assert_int_equal(char_backend_publish(&f->be, NULL), 0);
    assert_int_equal(try_connect(f), 0);
}

static void test_a_socket_that_is_served_is_left_alone(void **state)
{
    struct fix *f = *state;
    int fd = bind_there(f);

    assert_int_equal(listen(fd, 1), 0);
    open_it(f);
    assert_int_equal(char_backend_publish(&f->be, NULL), -EADDRINUSE);
    assert_int_equal(try_connect(f), 0);
    assert_int_equal(close(fd), 0);
}

static void test_a_file_is_not_replaced(void **state)
{
    struct fix *f = *state;
    struct err err = {0};

    write_file(f, "precious");
    assert_int_equal(char_backend_open("serial", &f->cfg, &f->be, &err), -EEXIST);
    assert_non_null(strstr(err.msg, "serial: "));
    assert_non_null(strstr(err.msg, f->path));
    assert_non_null(strstr(err.msg, "is there and is not a socket"));
    assert_file(f, "precious");
}

static void test_a_file_that_came_meanwhile_is_not_replaced(void **state)
{
    struct fix *f = *state;
    struct err err = {0};

    open_it(f);
    write_file(f, "precious");
    assert_int_equal(char_backend_publish(&f->be, &err), -EEXIST);
    assert_non_null(strstr(err.msg, "is there and is not a socket"));
    char_backend_close(&f->be);
    assert_file(f, "precious");
}

/* Nor is one beside it, where the socket is until it is published. */
static void test_a_file_beside_it_is_not_replaced(void **state)
{
    struct fix *f = *state;
    char path[sizeof(f->path)];
    struct err err = {0};

    memcpy(path, f->path, sizeof(path));
    (void)snprintf(f->path, sizeof(f->path), "%.40s.%d", path, (int)getpid());
    write_file(f, "precious");
    f->cfg.socket = path;
    assert_int_equal(char_backend_open("serial", &f->cfg, &f->be, &err), -EEXIST);
    assert_non_null(strstr(err.msg, "is there and is not a socket"));
    assert_file(f, "precious");
    assert_int_equal(unlink(f->path), 0);
    memcpy(f->path, path, sizeof(path));
}

static void test_a_link_is_not_replaced(void **state)
{
    struct fix *f = *state;

    assert_int_equal(symlink("elsewhere", f->path), 0);
    assert_int_equal(char_backend_open("serial", &f->cfg, &f->be, NULL), -EEXIST);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_a_path_is_known_from_publishing_to_hiding),
        T(test_a_socket_that_is_left_over_is_replaced),
        T(test_a_socket_that_is_served_is_left_alone),
        T(test_a_file_is_not_replaced),
        T(test_a_file_that_came_meanwhile_is_not_replaced),
        T(test_a_file_beside_it_is_not_replaced),
        T(test_a_link_is_not_replaced),
    };

    return cmocka_run_group_tests_name("char_backend", tests, NULL, NULL);
}
