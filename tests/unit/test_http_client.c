/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "tools/chctl/http_client.h"

/* A server that reads one request and answers with a text in pieces of @step bytes. */
struct server {
    int fd;
    const char *answer;
    size_t len, step;
    char request[4096];
    size_t request_len;
};

static void *serve(void *arg)
{
    struct server *srv = arg;
    ssize_t n = recv(srv->fd, srv->request, sizeof(srv->request) - 1, 0);

    srv->request_len = n > 0 ? (size_t)n : 0;
    for (size_t off = 0; off < srv->len; off += srv->step) {
        size_t left = srv->len - off;

        if (send(srv->fd, srv->answer + off, left < srv->step ? left : srv->step, MSG_NOSIGNAL) < 0)
            break;
    }
    (void)shutdown(srv->fd, SHUT_WR);
    return NULL;
}

static int call(struct server *srv, const struct http_request *req, struct http_response *ret_res,
                struct err *err)
{
    pthread_t thread;
    int pair[2], rc;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    srv->fd = pair[1];
    assert_int_equal(pthread_create(&thread, NULL, serve, srv), 0);
    rc = http_client_call(pair[0], req, ret_res, err);
    (void)close(pair[0]);
    assert_int_equal(pthread_join(thread, NULL), 0);
    (void)close(pair[1]);
    return rc;
}

static void test_answers_are_read_in_any_pieces(void **state)
{
    /* clang-format off */
    static const struct {
        const char *answer;
        unsigned status;
        const char *body;
    } rows[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, "{}"},
        {"HTTP/1.1 204 No Content\r\n\r\n", 204, ""},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 X\r\ncontent-length:3\r\nA: b\r\n\r\nabc", 500,
         "abc"},
        {"HTTP/1.0 404 Not Found\r\nServer: x\r\nCONTENT-LENGTH: \t 1\r\n\r\nx more", 404, "x"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""},
    };
    /* clang-format on */
    const struct http_request req = {.method = "GET", .path = "/a"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        for (size_t step = 1; step < 100; step += 7) {
            struct server srv = {
                .answer = rows[i].answer, .len = strlen(rows[i].answer), .step = step};
            struct http_response res = {0};
            struct err err = {0};

            if (call(&srv, &req, &res, &err))
                fail_msg("%s: %s", rows[i].answer, err.msg);
            assert_int_equal(res.status, rows[i].status);
            assert_string_equal(res.body, rows[i].body);
            http_response_release(&res);
        }
    }
}

static void test_what_is_no_answer_is_refused(void **state)
{
    static const struct {
        const char *answer;
        int rc;
    } rows[] = {
        {"",                                                                      -ECONNRESET},
        {"HTTP/1.1 200 OK\r\n",                                                   -ECONNRESET},
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",                       -ECONNRESET},
        {"\r\n\r\n",                                                              -EBADMSG   },
        {"HTTP/1.1\r\n\r\n",                                                      -EBADMSG   },
        {"HTTP/2 200 OK, this is new\r\n\r\n",                                    -EBADMSG   },
        {"HTTP/1.1 2x0 OK\r\n\r\n",                                               -EBADMSG   },
        {"HTTP/1.1 200 OK\r\n\r\nuntil the end",                                  -EBADMSG   },
        {"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",                            -EBADMSG   },
        {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",                         -EBADMSG   },
        {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999999\r\n\r\n", -E2BIG     },
    };
    static char endless[HTTP_HEAD_MAX + 100], interim[40 * 30];
    const struct http_request req = {.method = "GET", .path = "/a"};
    struct server srv = {.answer = endless, .len = sizeof(endless), .step = 4096};
    struct http_response res = {0};
    struct err err = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct server one = {.answer = rows[i].answer, .len = strlen(rows[i].answer), .step = 9};
        struct err why = {0};

        if (call(&one, &req, &res, &why) != rows[i].rc || res.body || !why.msg[0])
            fail_msg("%s: %s", rows[i].answer, why.msg);
    }
    memset(endless, 'a', sizeof(endless));
    memcpy(endless, "HTTP/1.1 200 OK\r\n", 17);
    assert_int_equal(call(&srv, &req, &res, &err), -E2BIG);
    for (size_t i = 0; i < 40; i++)
        memcpy(interim + i * 25, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    srv = (struct server){.answer = interim, .len = 40 * 25, .step = 4096};
    assert_int_equal(call(&srv, &req, &res, NULL), -E2BIG);
}

static void test_the_request_is_as_ch_remote_sends_it(void **state)
{
    static const char answer[] = "HTTP/1.1 204 No Content\r\n\r\n";
    struct server srv = {.answer = answer, .len = sizeof(answer) - 1, .step = 99};
    struct http_request req = {.method = "PUT", .path = "/api/v1/vm.pause"};
    struct http_response res = {0};

    (void)state;
    assert_int_equal(call(&srv, &req, &res, NULL), 0);
    assert_string_equal(srv.request, "PUT /api/v1/vm.pause HTTP/1.1\r\nHost: localhost\r\n"
                                     "Accept: */*\r\n\r\n");
    http_response_release(&res);
}

static void test_a_server_that_is_not_there_is_named(void **state)
{
    struct err err = {0};
    char longer[300];
    int fd = -1;

    (void)state;
    assert_int_equal(http_client_connect("/nowhere/api.sock", &fd, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "/nowhere/api.sock"));
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = 0;
    assert_int_equal(http_client_connect(longer, &fd, NULL), -ENAMETOOLONG);
    assert_int_equal(fd, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_read_in_any_pieces),
        cmocka_unit_test(test_what_is_no_answer_is_refused),
        cmocka_unit_test(test_the_request_is_as_ch_remote_sends_it),
        cmocka_unit_test(test_a_server_that_is_not_there_is_named),
    };

    return cmocka_run_group_tests_name("http_client", tests, NULL, NULL);
}
