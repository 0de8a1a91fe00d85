/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <json-c/json_object.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "core/api/api_server.h"

enum {
    RESPONSE_MAX = 64 << 10,
    WAIT_MS = 5000,
};

/* ---- memory that is not there ---------------------------------------------- */

static atomic_bool no_strdup;

char *__real_strdup(const char *s);
char *__wrap_strdup(const char *s);

char *__wrap_strdup(const char *s)
{
    return atomic_load(&no_strdup) ? NULL : __real_strdup(s);
}

/* ---- the routes under test ------------------------------------------------- */

struct fixture {
    struct api_server *srv;
    char dir[32], path[64];
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct api_request *kept; /* by fn_keep */
    size_t body_len;
    unsigned body_sum;
    unsigned nr_fds;
    struct stat fd_stat[API_FDS_MAX];
};

static void fn_ping(void *arg, struct api_request *req)
{
    struct json_object *obj = json_object_new_object();

    (void)arg;
    (void)json_object_object_add(obj, "path", json_object_new_string(api_request_path(req)));
    api_reply_json(req, obj);
}

static void fn_done(void *arg, struct api_request *req)
{
    struct fixture *fix = arg;
    const char *body = api_request_body(req, &fix->body_len);

    fix->body_sum = 0;
    for (size_t i = 0; i < fix->body_len; i++)
        fix->body_sum = fix->body_sum * 31 + (unsigned char)body[i];
    assert_int_equal(body[fix->body_len], 0);
    api_reply_done(req);
}

static void fn_fail(void *arg, struct api_request *req)
{
    struct err err = {.code = -EEXIST, .msg = "disks[0].id: 'a' is there twice"};

    (void)arg;
    api_reply_error(req, 0, -EEXIST, "The VM could not be created", &err);
}

static void fn_keep(void *arg, struct api_request *req)
{
    struct fixture *fix = arg;

    (void)pthread_mutex_lock(&fix->lock);
    assert_null(fix->kept);
    fix->kept = req;
    (void)pthread_cond_signal(&fix->changed);
    (void)pthread_mutex_unlock(&fix->lock);
}

static void fn_fds(void *arg, struct api_request *req)
{
    struct fixture *fix = arg;
    int fds[API_FDS_MAX];

    fix->nr_fds = api_request_take_fds(req, fds);
    assert_int_equal(api_request_take_fds(req, fds + fix->nr_fds), 0);
    for (unsigned i = 0; i < fix->nr_fds; i++) {
        assert_int_equal(fstat(fds[i], &fix->fd_stat[i]), 0);
        (void)close(fds[i]);
    }
    (void)api_request_body(req, &fix->body_len);
    api_reply_done(req);
}

static const struct api_route routes[] = {
    {"vmm.ping",   API_GET, 0,                 fn_ping},
    {"vm.info",    API_GET, 0,                 fn_ping},
    {"vm.create",  API_PUT, API_BODY,          fn_done},
    {"vm.pause",   API_PUT, 0,                 fn_done},
    {"vm.fail",    API_PUT, API_BODY_OPTIONAL, fn_fail},
    {"vm.keep",    API_PUT, API_BODY_OPTIONAL, fn_keep},
    {"vm.add-net", API_PUT, API_BODY,          fn_fds },
};

static struct api_request *take_kept(struct fixture *fix)
{
    struct timespec until;
    struct api_request *req;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    (void)pthread_mutex_lock(&fix->lock);
    while (!fix->kept)
        assert_int_equal(pthread_cond_timedwait(&fix->changed, &fix->lock, &until), 0);
    req = steal_ptr(fix->kept);
    (void)pthread_mutex_unlock(&fix->lock);
    return req;
}

static struct api_server_config config_of(struct fixture *fix)
{
    return (struct api_server_config){
        .socket_path = fix->path,
        .socket_fd = -1,
        .routes = routes,
        .nr_routes = ARRAY_LEN(routes),
        .request_timeout_ms = 500,
        .arg = fix,
    };
}

static int serve(const struct api_server_config *config, struct api_server **ret_srv,
                 struct err *err)
{
    int rc = api_server_open(config, ret_srv, err);

    return rc < 0 ? rc : api_server_start(*ret_srv, err);
}

static int setup(void **state)
{
    struct fixture *fix = calloc(1, sizeof(*fix));
    struct api_server_config config;
    struct err err = {0};

    if (!fix)
        return -1;
    (void)snprintf(fix->dir, sizeof(fix->dir), "/tmp/test_api.XXXXXX");
    if (!mkdtemp(fix->dir))
        return -1;
    (void)snprintf(fix->path, sizeof(fix->path), "%s/api.sock", fix->dir);
    (void)pthread_mutex_init(&fix->lock, NULL);
    (void)pthread_cond_init(&fix->changed, NULL);
    config = config_of(fix);
    *state = fix;
    return serve(&config, &fix->srv, &err);
}

static int teardown(void **state)
{
    struct fixture *fix = *state;

    api_server_stop(fix->srv);
    if (rmdir(fix->dir))
        return -1; /* something was left there */
    (void)pthread_mutex_destroy(&fix->lock);
    (void)pthread_cond_destroy(&fix->changed);
    free(fix);
    return 0;
}

/* ---- a client -------------------------------------------------------------- */

struct response {
    unsigned status;
    const char *body;
    char text[RESPONSE_MAX];
};

static int client_open(const struct fixture *fix)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", fix->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

static void client_send(int fd, const char *text, size_t len)
{
    while (len) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

        assert_true(n > 0);
        text += n;
        len -= (size_t)n;
    }
}

static void client_send_fds(int fd, const char *text, size_t len, const int *fds, unsigned nr)
{
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(253 * sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = len};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = CMSG_SPACE(nr * sizeof(int)),
    };
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(nr * sizeof(int));
    memcpy(CMSG_DATA(cmsg), fds, nr * sizeof(int));
    assert_int_equal(sendmsg(fd, &msg, MSG_NOSIGNAL), len);
}

static bool client_is_readable(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, ms) == 1;
}

/* Read bytes until one response is whole; status 0 if the server closed before. */
static void client_receive(int fd, struct response *res)
{
    const char *head, *length;
    size_t n = 0, want = SIZE_MAX;

    memset(res, 0, sizeof(*res));
    while (n < want && n < sizeof(res->text) - 1) {
        ssize_t got;

        assert_true(client_is_readable(fd, WAIT_MS));
        got = recv(fd, res->text + n, 1, 0);
        if (got <= 0)
            return;
        n++;
        head = want == SIZE_MAX ? strstr(res->text, "\r\n\r\n") : NULL;
        if (!head)
            continue;
        length = strstr(res->text, "Content-Length: ");
        want = (size_t)(head + 4 - res->text) + (length ? strtoul(length + 16, NULL, 10) : 0);
        res->body = head + 4;
    }
    res->status = (unsigned)strtoul(res->text + 9, NULL, 10);
}

static void client_ask(int fd, const char *method, const char *path, const char *body,
                       struct response *res)
{
    char head[256];
    int n =
        snprintf(head, sizeof(head), "%s /api/v1/%s HTTP/1.1\r\nHost: localhost\r\n", method, path);

    if (body)
        n += snprintf(head + n, sizeof(head) - (size_t)n, "Content-Length: %zu\r\n", strlen(body));
    n += snprintf(head + n, sizeof(head) - (size_t)n, "\r\n");
    client_send(fd, head, (size_t)n);
    if (body)
        client_send(fd, body, strlen(body));
    client_receive(fd, res);
}

/* ---- tests ----------------------------------------------------------------- */

static void test_requests_are_routed_and_answered(void **state)
{
    /* clang-format off */
    static const struct {
        const char *method, *path, *body;
        unsigned status;
        const char *want;
    } rows[] = {
        {"GET", "vmm.ping", NULL, 200, "{\"path\":\"vmm.ping\"}"},
        {"PUT", "vm.pause", NULL, 204, ""},
        {"PUT", "vm.create", "{}", 204, ""},
        {"PUT", "vm.fail", NULL, 409,
         "[\"Error from API\",\"The VM could not be created\",\"disks[0].id: 'a' is there "
         "twice\"]"},
        {"GET", "vm.nothing", NULL, 404,
         "[\"Error from API\",\"vm.nothing: There is no such endpoint\"]"},
        {"PUT", "vm.resize", "{}", 404,
         "[\"Error from API\",\"vm.resize: Not supported yet by this version\"]"},
        {"PUT", "vm.nothing", "{}", 404, "[\"Error from API\",\"vm.nothing: There is no such"},
        {"GET", "", NULL, 404, "[\"Error from API\""},
        {"PUT", "vmm.ping", NULL, 400, "[\"Error from API\",\"vmm.ping: The method must be GET\"]"},
        {"GET", "vm.pause", NULL, 400, "[\"Error from API\",\"vm.pause: The method must be PUT\"]"},
        {"POST", "vm.pause", NULL, 400, "[\"Error from API\""},
        {"DELETE", "vm.info", NULL, 400, "[\"Error from API\""},
        {"PUT", "vm.pause", "{}", 400, "[\"Error from API\",\"vm.pause: A body is not expected\"]"},
        {"PUT", "vm.create", NULL, 400, "[\"Error from API\",\"vm.create: A body is missing\"]"},
        {"PUT", "vm.create", "", 400, "[\"Error from API\",\"vm.create: A body is missing\"]"},
    };
    /* clang-format on */
    static struct response res;
    struct fixture *fix = *state;
    int fd = client_open(fix);

    /* All on one connection. */
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        client_ask(fd, rows[i].method, rows[i].path, rows[i].body, &res);
        if (res.status != rows[i].status || strncmp(res.body, rows[i].want, strlen(rows[i].want)))
            fail_msg("%s %s: %u '%s'", rows[i].method, rows[i].path, res.status, res.text);
        assert_int_equal(!!strstr(res.text, "Content-Type: application/json"), !!*rows[i].want);
    }
    (void)close(fd);
}

static void test_what_is_not_below_the_base_is_not_found(void **state)
{
    static struct response res;
    int fd = client_open(*state);
    static const char text[] = "GET /vmm.ping HTTP/1.1\r\nHost: a\r\n\r\n";

    client_send(fd, text, sizeof(text) - 1);
    client_receive(fd, &res);
    assert_int_equal(res.status, 404);
    (void)close(fd);
}

static void test_long_work_blocks_nobody(void **state)
{
    static struct response res;
    struct fixture *fix = *state;
    static const char text[] = "PUT /api/v1/vm.keep HTTP/1.1\r\nHost: a\r\n\r\n";
    int slow = client_open(fix), fd = client_open(fix);
    struct api_request *req;

    client_send(slow, text, sizeof(text) - 1);
    req = take_kept(fix);
    for (int i = 0; i < 3; i++) {
        client_ask(fd, "GET", "vm.info", NULL, &res);
        assert_int_equal(res.status, 200);
    }
    assert_false(client_is_readable(slow, 0));
    /* Longer than a client may take to send a request. */
    (void)usleep(1600 * 1000);
    assert_string_equal(api_request_path(req), "vm.keep");
    api_reply(req, 200, "[1]", 3);
    client_receive(slow, &res);
    assert_int_equal(res.status, 200);
    assert_string_equal(res.body, "[1]");
    client_ask(slow, "GET", "vm.info", NULL, &res);
    assert_int_equal(res.status, 200);
    (void)close(slow);
    (void)close(fd);
}

static void test_a_client_that_left_is_forgotten(void **state)
{
    static struct response res;
    struct fixture *fix = *state;
    static const char text[] = "PUT /api/v1/vm.keep HTTP/1.1\r\nHost: a\r\n\r\n";
    int fd = client_open(fix);
    struct api_request *req;

    client_send(fd, text, sizeof(text) - 1);
    req = take_kept(fix);
    (void)close(fd);
    fd = client_open(fix);
    client_ask(fd, "GET", "vm.info", NULL, &res);
    assert_int_equal(res.status, 200);
    api_reply_done(req);
    client_ask(fd, "GET", "vm.info", NULL, &res);
    assert_int_equal(res.status, 200);
    (void)close(fd);
}

static void test_a_request_sent_and_left_is_done(void **state)
{
    struct fixture *fix = *state;
    static const char text[] = "PUT /api/v1/vm.keep HTTP/1.1\r\nHost: a\r\n\r\n";
    int fd = client_open(fix);

    client_send(fd, text, sizeof(text) - 1);
    (void)close(fd);
    api_reply_done(take_kept(fix));
}

/* As above, where the server hears of the bytes and of the hang-up at once. */
static void test_a_last_request_sent_and_left_is_done(void **state)
{
    static struct response res;
    struct fixture *fix = *state;
    static const char text[] = "PUT /api/v1/vm.keep HTTP/1.1\r\nHost: a\r\n\r\n";

    for (int i = 0; i < 20; i++) {
        int fd = client_open(fix);

        client_ask(fd, "GET", "vm.info", NULL, &res);
        assert_int_equal(res.status, 200);
        client_send(fd, text, sizeof(text) - 1);
        (void)close(fd);
        api_reply_done(take_kept(fix));
    }
}

static void test_bodies_up_to_the_limit_are_taken(void **state)
{
    static char body[API_BODY_MAX + 1];
    static struct response res;
    struct fixture *fix = *state;
    int fd = client_open(fix);
    unsigned sum = 0;

    for (size_t i = 0; i < API_BODY_MAX; i++) {
        body[i] = (char)('a' + i % 23);
        sum = sum * 31 + (unsigned char)body[i];
    }
    client_ask(fd, "PUT", "vm.create", body, &res);
    assert_int_equal(res.status, 204);
    assert_int_equal(fix->body_len, API_BODY_MAX);
    assert_int_equal(fix->body_sum, sum);
    (void)close(fd);
}

static void test_larger_bodies_are_refused(void **state)
{
    static const char text[] = "PUT /api/v1/vm.create HTTP/1.1\r\nHost: a\r\n"
                               "Content-Length: 4194305\r\n\r\n";
    static struct response res;
    int fd = client_open(*state);

    client_send(fd, text, sizeof(text) - 1);
    client_receive(fd, &res);
    assert_int_equal(res.status, 413);
    (void)close(fd);
}

static void test_an_endless_chunked_body_ends(void **state)
{
    static char chunk[6 + 65536 + 3];
    int fd = client_open(*state);
    static const char text[] = "PUT /api/v1/vm.create HTTP/1.1\r\nHost: a\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n";
    ssize_t n = 1;

    memcpy(chunk, "10000\r\n", 7);
    memset(chunk + 7, 'x', 65536);
    client_send(fd, text, sizeof(text) - 1);
    for (int i = 0; i < 200 && n > 0; i++) {
        n = send(fd, chunk, 7 + 65536, MSG_NOSIGNAL);
        if (n > 0)
            n = send(fd, "\r\n", 2, MSG_NOSIGNAL);
    }
    assert_true(n <= 0);
    (void)close(fd);
}

static void test_forms_of_http(void **state)
{
    /* clang-format off */
    static const struct {
        const char *why, *text;
        unsigned status;
    } rows[] = {
        {"chunked",
         "PUT /api/v1/vm.create HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
         "2\r\n{}\r\n0\r\n\r\n", 204},
        {"expectation",
         "PUT /api/v1/vm.create HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
         "Content-Length: 2\r\n\r\n", 100},
        {"HTTP/1.0", "GET /api/v1/vmm.ping HTTP/1.0\r\n\r\n", 200},
        {"blank line in front", "\r\nGET /api/v1/vmm.ping HTTP/1.1\r\nHost: a\r\n\r\n", 200},
        {"no host", "GET /api/v1/vmm.ping HTTP/1.1\r\n\r\n", 400},
        {"negative length",
         "PUT /api/v1/vm.create HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", 400},
        {"no number", "PUT /api/v1/vm.create HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
         400},
        {"huge length",
         "PUT /api/v1/vm.create HTTP/1.1\r\nHost: a\r\n"
         "Content-Length: 99999999999999999999999\r\n\r\n", 413},
    };
    /* clang-format on */
    static struct response res;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int fd = client_open(*state);

        client_send(fd, rows[i].text, strlen(rows[i].text));
        client_receive(fd, &res);
        if (res.status != rows[i].status)
            fail_msg("%s: %s", rows[i].why, res.text);
        (void)close(fd);
    }
}

static void test_pipelined_requests_are_answered_in_order(void **state)
{
    static const char text[] =
        "GET /api/v1/vmm.ping HTTP/1.1\r\nHost: a\r\n\r\n"
        "PUT /api/v1/vm.create HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1"
        "GET /api/v1/vm.info HTTP/1.1\r\nHost: a\r\n\r\n";
    static const unsigned want[] = {200, 204, 200};
    static struct response res;
    int fd = client_open(*state);

    client_send(fd, text, sizeof(text) - 1);
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        client_receive(fd, &res);
        assert_int_equal(res.status, want[i]);
    }
    (void)close(fd);
}

static void test_file_descriptors_arrive_wherever_they_are_sent(void **state)
{
    static char body[300 << 10];
    static const char rest[] = "Content-Length: 307200\r\n\r\n";
    static const char head[] = "PUT /api/v1/vm.add-net HTTP/1.1\r\nHost: a\r\n";
    static struct response res;
    struct fixture *fix = *state;
    int fd = client_open(fix), fds[3];
    struct stat st;

    for (unsigned i = 0; i < ARRAY_LEN(fds); i++) {
        int pipes[2];

        assert_int_equal(pipe(pipes), 0);
        fds[i] = pipes[0];
        (void)close(pipes[1]);
    }
    memset(body, ' ', sizeof(body));
    /* 0: with the first bytes; 1: the rest of the head; 2: in the body; 3: with the last byte. */
    for (unsigned round = 0; round < 8; round++) {
        unsigned where = round % 4, nr = round < 4 ? 1 : 3;

        if (where == 0)
            client_send_fds(fd, head, sizeof(head) - 1, fds, nr);
        else
            client_send(fd, head, sizeof(head) - 1);
        if (where == 1)
            client_send_fds(fd, rest, sizeof(rest) - 1, fds, nr);
        else
            client_send(fd, rest, sizeof(rest) - 1);
        client_send(fd, body, 1000);
        if (where == 2)
            client_send_fds(fd, body, 1, fds, nr);
        else
            client_send(fd, body, 1);
        client_send(fd, body, sizeof(body) - 1002);
        if (where == 3)
            client_send_fds(fd, body, 1, fds, nr);
        else
            client_send(fd, body, 1);
        client_receive(fd, &res);
        assert_int_equal(res.status, 204);
        assert_int_equal(fix->nr_fds, nr);
        assert_int_equal(fix->body_len, sizeof(body));
        for (unsigned i = 0; i < nr; i++) {
            assert_int_equal(fstat(fds[i], &st), 0);
            assert_int_equal(st.st_ino, fix->fd_stat[i].st_ino);
        }
    }
    for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
        (void)close(fds[i]);
    (void)close(fd);
}

static void test_file_descriptors_nobody_wants_are_closed(void **state)
{
    static const char ping[] = "GET /api/v1/vmm.ping HTTP/1.1\r\nHost: a\r\n\r\n";
    static const char net[] =
        "PUT /api/v1/vm.add-net HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1";
    static struct response res;
    int fd = client_open(*state), pipes[2], many[API_FDS_MAX + 1];
    char byte;

    assert_int_equal(pipe(pipes), 0);
    client_send_fds(fd, ping, sizeof(ping) - 1, &pipes[1], 1);
    client_receive(fd, &res);
    assert_int_equal(res.status, 200);
    for (unsigned i = 0; i < ARRAY_LEN(many); i++)
        many[i] = pipes[1];
    client_send_fds(fd, net, sizeof(net) - 1, many, ARRAY_LEN(many));
    client_receive(fd, &res);
    assert_int_equal(res.status, 400);
    assert_non_null(strstr(res.body, "Too many file descriptors"));
    /* The other end is closed once the server has closed all it got. */
    (void)close(pipes[1]);
    assert_true(client_is_readable(pipes[0], WAIT_MS));
    assert_int_equal(read(pipes[0], &byte, 1), 0);
    (void)close(pipes[0]);
    (void)close(fd);
}

static void test_hostile_clients_harm_nobody(void **state)
{
    static struct response res;
    struct fixture *fix = *state;
    static char garbage[4096];
    int fds[API_CONNECTIONS_MAX + 20];

    for (unsigned i = 0; i < sizeof(garbage); i++)
        garbage[i] = (char)(i * 7919 >> 3);
    /* Connections that say nothing, half a request, or nonsense: more than there may be. */
    for (unsigned i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = client_open(fix);
        if (i % 3 == 1)
            (void)send(fds[i], "PUT /api/v1/vm.cre", 18, MSG_NOSIGNAL);
        else if (i % 3 == 2)
            (void)send(fds[i], garbage, sizeof(garbage), MSG_NOSIGNAL);
    }
    for (int i = 0; i < 3; i++) {
        int fd = client_open(fix);

        client_ask(fd, "GET", "vmm.ping", NULL, &res);
        assert_int_equal(res.status, 200);
        (void)close(fd);
    }
    for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
        (void)close(fds[i]);
}

static void test_a_request_that_never_ends_is_dropped(void **state)
{
    struct fixture *fix = *state;
    int idle = client_open(fix), slow = client_open(fix);
    char byte;

    client_send(slow, "PUT /api/v1/vm.cre", 18);
    /* Bytes that come now and then do not keep it alive. */
    for (int i = 0; i < 30 && !client_is_readable(slow, 100); i++)
        (void)send(slow, "a", 1, MSG_NOSIGNAL);
    assert_true(client_is_readable(slow, 0));
    assert_true(recv(slow, &byte, 1, 0) <= 0);
    /* One that asked nothing may stay. */
    assert_false(client_is_readable(idle, 0));
    (void)close(slow);
    (void)close(idle);
}

/* Long before the time that a request may take. */
static void test_the_end_of_a_client_is_seen_at_once(void **state)
{
    static const char *const texts[] = {
        "G",
        "GET /api/v1/vmm.ping HTTP/1.1\r\nHost: x\r\n\r\n",
        "PUT /api/v1/vm.create HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{}",
    };
    struct fixture *fix = *state;
    struct api_server_config config = config_of(fix);
    struct err err = {0};

    api_server_stop(steal_ptr(fix->srv));
    config.request_timeout_ms = 10 * WAIT_MS;
    assert_int_equal(serve(&config, &fix->srv, &err), 0);
    for (unsigned i = 0; i < 10 * ARRAY_LEN(texts); i++) {
        const char *text = texts[i % ARRAY_LEN(texts)];
        int fd = client_open(fix);
        char buf[256];

        client_send(fd, text, strlen(text));
        assert_int_equal(shutdown(fd, SHUT_WR), 0);
        do
            assert_true(client_is_readable(fd, WAIT_MS));
        while (recv(fd, buf, sizeof(buf), 0) > 0);
        (void)close(fd);
    }
}

static void test_a_client_that_reads_nothing_is_no_burden(void **state)
{
    static const char text[] = "GET /api/v1/vmm.ping HTTP/1.1\r\nHost: a\r\n\r\n";
    static struct response res;
    struct fixture *fix = *state;
    int deaf = client_open(fix), fd = client_open(fix);

    for (int i = 0; i < 100000; i++)
        if (send(deaf, text, sizeof(text) - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            break;
    client_ask(fd, "GET", "vmm.ping", NULL, &res);
    assert_int_equal(res.status, 200);
    (void)close(deaf);
    (void)close(fd);
}

static void *stop_server(void *arg)
{
    api_server_stop(arg);
    return NULL;
}

static void stop_while_one_waits(struct fixture *fix, bool has_memory, const char *want)
{
    static const char text[] = "PUT /api/v1/vm.keep HTTP/1.1\r\nHost: a\r\n\r\n";
    static struct response res;
    int fd = client_open(fix);
    struct api_request *req;
    pthread_t thread;

    client_send(fd, text, sizeof(text) - 1);
    req = take_kept(fix);
    atomic_store(&no_strdup, !has_memory);
    assert_int_equal(pthread_create(&thread, NULL, stop_server, steal_ptr(fix->srv)), 0);
    client_receive(fd, &res);
    assert_int_equal(res.status, 503);
    assert_string_equal(res.body, want);
    assert_int_equal(pthread_join(thread, NULL), 0);
    atomic_store(&no_strdup, false);
    /* Its owner does not know, and need not. */
    api_reply(req, 200, "1", 1);
    (void)close(fd);
}

static void test_a_stop_answers_what_waits(void **state)
{
    stop_while_one_waits(*state, true, "[\"Error from API\",\"The VMM is shutting down\"]");
}

static void test_a_stop_without_memory_answers_by_its_status(void **state)
{
    stop_while_one_waits(*state, false, "");
}

static void test_an_answer_just_before_the_stop_leaves(void **state)
{
    static const char text[] = "PUT /api/v1/vm.keep HTTP/1.1\r\nHost: a\r\n\r\n";
    static struct response res;
    struct fixture *fix = *state;
    int fd = client_open(fix);

    client_send(fd, text, sizeof(text) - 1);
    api_reply(take_kept(fix), 200, "[2]", 3);
    api_server_stop(steal_ptr(fix->srv));
    client_receive(fd, &res);
    assert_int_equal(res.status, 200);
    assert_string_equal(res.body, "[2]");
    (void)close(fd);
}

static void test_a_path_has_one_server(void **state)
{
    struct fixture *fix = *state;
    struct api_server_config config = config_of(fix);
    struct api_server *other = NULL;
    struct err err = {0};
    struct stat st;

    assert_int_equal(stat(fix->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(serve(&config, &other, &err), -EADDRINUSE);
    assert_non_null(strstr(err.msg, "another process serves it"));
    assert_null(other);
}

/* Who got its socket as a descriptor has no lock. */
static void test_what_another_serves_is_left_alone(void **state)
{
    struct fixture *fix = *state;
    struct api_server_config config = config_of(fix);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct err err = {0};

    api_server_stop(steal_ptr(fix->srv));
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", fix->path);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(serve(&config, &fix->srv, &err), -EADDRINUSE);
    assert_non_null(strstr(err.msg, "somebody serves this socket"));
    assert_null(fix->srv);
    assert_int_equal(close(client_open(fix)), 0); /* it is still reached */
    assert_int_equal(unlink(fix->path), 0);
    (void)close(fd);
}

static void test_who_comes_before_the_start_is_answered_after_it(void **state)
{
    static struct response res;
    struct fixture *fix = *state;
    struct api_server_config config = config_of(fix);
    struct err err = {0};
    int fd;

    api_server_stop(steal_ptr(fix->srv));
    assert_int_equal(api_server_open(&config, &fix->srv, &err), 0);
    fd = client_open(fix);
    assert_false(client_is_readable(fd, 50));
    assert_int_equal(api_server_start(fix->srv, &err), 0);
    client_ask(fd, "GET", "vmm.ping", NULL, &res);
    assert_int_equal(res.status, 200);
    (void)close(fd);
    /* One that never starts leaves nothing behind. */
    api_server_stop(steal_ptr(fix->srv));
    assert_int_equal(api_server_open(&config, &fix->srv, &err), 0);
    fd = client_open(fix);
    api_server_stop(steal_ptr(fix->srv));
    (void)close(fd);
}

static void test_what_a_dead_server_left_is_replaced(void **state)
{
    struct fixture *fix = *state;
    struct api_server_config config = config_of(fix);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct err err = {0};
    struct stat st;
    FILE *f;

    api_server_stop(steal_ptr(fix->srv));
    assert_int_not_equal(stat(fix->path, &st), 0);
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", fix->path);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    (void)close(fd);
    assert_int_equal(serve(&config, &fix->srv, &err), 0);
    api_server_stop(steal_ptr(fix->srv));

    f = fopen(fix->path, "w");
    assert_non_null(f);
    (void)fclose(f);
    assert_int_equal(serve(&config, &fix->srv, &err), -EEXIST);
    assert_null(fix->srv);
    assert_int_equal(unlink(fix->path), 0); /* still there */
}

static void test_a_listening_socket_can_be_handed_over(void **state)
{
    static struct response res;
    struct fixture *fix = *state;
    struct api_server_config config = config_of(fix);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), client;
    struct err err = {0};

    api_server_stop(steal_ptr(fix->srv));
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", fix->path);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(fd, 4), 0);
    config.socket_path = NULL;
    config.socket_fd = fd;
    assert_int_equal(serve(&config, &fix->srv, &err), 0);
    client = client_open(fix);
    client_ask(client, "GET", "vmm.ping", NULL, &res);
    assert_int_equal(res.status, 200);
    (void)close(client);
    api_server_stop(steal_ptr(fix->srv));
    assert_int_equal(unlink(fix->path), 0); /* not ours: it stayed */

    config.socket_fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(serve(&config, &fix->srv, &err), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_requests_are_routed_and_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_below_the_base_is_not_found, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_long_work_blocks_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_client_that_left_is_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_request_sent_and_left_is_done, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_last_request_sent_and_left_is_done, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bodies_up_to_the_limit_are_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_larger_bodies_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_endless_chunked_body_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forms_of_http, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pipelined_requests_are_answered_in_order, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_file_descriptors_arrive_wherever_they_are_sent, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_file_descriptors_nobody_wants_are_closed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_hostile_clients_harm_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_request_that_never_ends_is_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_end_of_a_client_is_seen_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_client_that_reads_nothing_is_no_burden, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_stop_answers_what_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_stop_without_memory_answers_by_its_status, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_an_answer_just_before_the_stop_leaves, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_path_has_one_server, setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_comes_before_the_start_is_answered_after_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_what_another_serves_is_left_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_a_dead_server_left_is_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_listening_socket_can_be_handed_over, setup,
                                        teardown),
    };

    return cmocka_run_group_tests_name("api_server", tests, NULL, NULL);
}
