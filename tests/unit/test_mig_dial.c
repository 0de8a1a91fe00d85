/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "core/loop.h"
#include "migration/mig_dial.h"

static const struct mig_wait patient = {.cancel_fd = -1, .wake_fd = -1, .idle_ms = 20000};

/* --- URLs ---------------------------------------------------------------- */

static void test_urls(void **state)
{
    static const struct {
        const char *text;
        const char *host, *port, *path; /* NULL: refused */
    } rows[] = {
        {"tcp:127.0.0.1:4444",     "127.0.0.1",        "4444",  NULL      },
        {"tcp:host.example.org:1", "host.example.org", "1",     NULL      },
        {"tcp:[::1]:65535",        "::1",              "65535", NULL      },
        {"tcp:[fe80::1%eth0]:80",  "fe80::1%eth0",     "80",    NULL      },
        {"tcp:localhost:0",        "localhost",        "0",     NULL      },
        {"unix:/run/x",            NULL,               NULL,    "/run/x"  },
        {"unix:relative",          NULL,               NULL,    "relative"},
        {"tcp:127.0.0.1",          NULL,               NULL,    NULL      },
        {"tcp:127.0.0.1:",         NULL,               NULL,    NULL      },
        {"tcp:127.0.0.1:65536",    NULL,               NULL,    NULL      },
        {"tcp:127.0.0.1:99999999", NULL,               NULL,    NULL      },
        {"tcp:127.0.0.1:-1",       NULL,               NULL,    NULL      },
        {"tcp:127.0.0.1:80x",      NULL,               NULL,    NULL      },
        {"tcp:127.0.0.1: 80",      NULL,               NULL,    NULL      },
        {"tcp::80",                NULL,               NULL,    NULL      },
        {"tcp:::1:80",             NULL,               NULL,    NULL      },
        {"tcp:[::1:80",            NULL,               NULL,    NULL      },
        {"tcp:[]:80",              NULL,               NULL,    NULL      },
        {"tcp:[[::1]]:80",         NULL,               NULL,    NULL      },
        {"tcp:[127.0.0.1]:80",     NULL,               NULL,    NULL      },
        {"tcp:[host]:80",          NULL,               NULL,    NULL      },
        {"tcp://127.0.0.1:80",     NULL,               NULL,    NULL      },
        {"unix:",                  NULL,               NULL,    NULL      },
        {"http://x",               NULL,               NULL,    NULL      },
        {"",                       NULL,               NULL,    NULL      },
    };
    char longer[400];
    struct mig_url url;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct err err = {0};
        int rc = mig_url_parse(rows[i].text, &url, &err);

        if (!rows[i].host && !rows[i].path) {
            assert_int_equal(rc, -EINVAL);
            assert_true(err.msg[0]);
            continue;
        }
        if (rc < 0)
            fail_msg("%s: %s", rows[i].text, err.msg);
        assert_int_equal(url.is_unix, rows[i].path != NULL);
        assert_string_equal(url.is_unix ? url.path : url.host,
                            url.is_unix ? rows[i].path : rows[i].host);
        if (!url.is_unix)
            assert_string_equal(url.port, rows[i].port);
    }
    memset(longer, 'a', sizeof(longer));
    memcpy(longer, "unix:/", 6);
    longer[5 + 107] = 0;
    assert_int_equal(mig_url_parse(longer, &url, NULL), 0);
    longer[5 + 107] = 'a';
    longer[5 + 108] = 0;
    assert_int_equal(mig_url_parse(longer, &url, NULL), -EINVAL);
    longer[5 + 108] = 'a';
    longer[399] = 0;
    assert_int_equal(mig_url_parse(longer, &url, NULL), -EINVAL);
}

static void test_a_url_is_said_as_it_is_given(void **state)
{
    static const char *const texts[] = {"tcp:127.0.0.1:4444", "tcp:[::1]:44",
                                        "tcp:[fe80::1%eth0]:80", "tcp:host.example.org:1",
                                        "unix:/run/x"};
    struct mig_dial dial = {0};
    struct mig_listener *ls, *second;
    struct mig_channel *ch;
    struct err err = {0};
    char want[80];

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(texts); i++) {
        assert_int_equal(mig_url_parse(texts[i], &dial.url, NULL), 0);
        assert_string_equal(mig_url_text(&dial.url).s, texts[i]);
    }
    /* The port is the one that was chosen; messages have it, and brackets where they belong. */
    assert_int_equal(mig_url_parse("tcp:127.0.0.1:0", &dial.url, NULL), 0);
    assert_int_equal(mig_listen(&dial, &ls, NULL), 0);
    assert_int_equal(mig_url_parse(mig_listener_url(ls).s, &dial.url, NULL), 0);
    assert_int_equal(strtoul(dial.url.port, NULL, 10), mig_listener_port(ls));
    assert_int_equal(mig_listen(&dial, &second, &err), -EADDRINUSE);
    (void)snprintf(want, sizeof(want), "%s: Address already in use", mig_listener_url(ls).s);
    assert_string_equal(err.msg, want);
    mig_listener_close(ls);
    assert_int_equal(mig_url_parse("tcp:[::1]:44", &dial.url, NULL), 0);
    err = (struct err){0};
    assert_true(mig_connect(&dial, &patient, &ch, &err) < 0);
    assert_int_equal(strncmp(err.msg, "connect to tcp:[::1]:44: ", 25), 0);
}

static void test_plain_tcp_stays_on_this_host(void **state)
{
    struct mig_dial dial = {0};
    struct mig_channel *ch;
    struct mig_listener *ls;
    struct err err = {0};

    (void)state;
    assert_int_equal(mig_url_parse("tcp:192.0.2.1:4444", &dial.url, NULL), 0);
    assert_int_equal(mig_connect(&dial, &patient, &ch, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "insecure=on"));
    assert_int_equal(mig_url_parse("tcp:0.0.0.0:0", &dial.url, NULL), 0);
    assert_int_equal(mig_listen(&dial, &ls, NULL), -EINVAL);
    dial.insecure = true;
    assert_int_equal(mig_listen(&dial, &ls, NULL), 0);
    mig_listener_close(ls);
    assert_int_equal(mig_url_parse("tcp:127.5.5.5:0", &dial.url, NULL), 0);
    dial.insecure = false;
    assert_int_equal(mig_listen(&dial, &ls, NULL), 0);
    mig_listener_close(ls);
}

/* --- Names ---------------------------------------------------------------- */

/* What the resolver says next of "twohosts"; "" ends an answer. */
static const char *const *answers;

int __real_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **ret_list);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **ret_list);

int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **ret_list)
{
    struct addrinfo **end = ret_list;

    if (strcmp(host, "twohosts") != 0)
        return __real_getaddrinfo(host, port, hints, ret_list);
    if (!answers || !*answers)
        return EAI_NONAME;
    for (; **answers; answers++) {
        assert_int_equal(__real_getaddrinfo(*answers, port, hints, end), 0);
        while (*end)
            end = &(*end)->ai_next;
    }
    answers++;
    return 0;
}

static void test_a_name_is_one_peer(void **state)
{
    static const char *const twice[] = {"127.0.0.2", "127.0.0.1", "", "127.0.0.3", "", NULL};
    const struct mig_wait soon = {
        .cancel_fd = -1, .wake_fd = -1, .deadline_ns = loop_now_ns() + (uint64_t)20 * 1000000000};
    struct mig_dial here = {0}, there = {0};
    struct mig_channel *first = NULL, *second = NULL;
    struct mig_listener *ls, *other;

    (void)state;
    assert_int_equal(mig_url_parse("tcp:127.0.0.1:0", &here.url, NULL), 0);
    assert_int_equal(mig_listen(&here, &ls, NULL), 0);
    there.url = here.url;
    (void)snprintf(there.url.port, sizeof(there.url.port), "%u", mig_listener_port(ls) & 0xffff);
    /* Another host of that name, which must not get a lane. */
    (void)snprintf(here.url.host, sizeof(here.url.host), "127.0.0.3");
    memcpy(here.url.port, there.url.port, sizeof(here.url.port));
    assert_int_equal(mig_listen(&here, &other, NULL), 0);
    (void)snprintf(there.url.host, sizeof(there.url.host), "twohosts");
    answers = twice;
    assert_int_equal(mig_connect(&there, &patient, &first, NULL), 0);
    assert_int_equal(mig_connect(&there, &patient, &second, NULL), 0);
    mig_channel_close(first);
    mig_channel_close(second);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(mig_accept(ls, &soon, &first, NULL), 0);
        mig_channel_close(first);
    }
    mig_listener_close(other);
    mig_listener_close(ls);
}

static void test_what_cannot_be_connected_to_is_known_before(void **state)
{
    static const char *const near_and_far[] = {"192.0.2.1", "127.0.0.1", "", NULL},
                             *const far[] = {"192.0.2.1", "2001:db8::1", "", NULL};
    static const struct {
        const char *url;
        const char *const *answers;
        bool tls, insecure;
        int rc;
        const char *msg;
    } rows[] = {
        {"unix:/m",             NULL,         false, false, 0,              ""                                             },
        {"unix:/m",             NULL,         true,  false, -EINVAL,        "tls_dir goes with tcp: only, not with unix:/m"},
        {"tcp:127.9.9.9:1",     NULL,         false, false, 0,              ""                                             },
        {"tcp:[::1]:1",         NULL,         false, false, 0,              ""                                             },
        {"tcp:127.0.0.1:0",     NULL,         false, false, -EINVAL,        "tcp:127.0.0.1:0: port 0 is none"              },
        {"tcp:192.0.2.1:1",     NULL,         false, false, -EINVAL,
         "tcp:192.0.2.1:1 is not on this host and there is no tls_dir; insecure=on"                                        },
        {"tcp:192.0.2.1:1",     NULL,         false, true,  0,              ""                                             },
        {"tcp:192.0.2.1:1",     NULL,         true,  false, 0,              ""                                             },
        {"tcp:[2001:db8::1]:1", NULL,         false, false, -EINVAL,        "tcp:[2001:db8::1]:1 is not on"                },
        {"tcp:twohosts:1",      near_and_far, false, false, 0,              ""                                             },
        {"tcp:twohosts:1",      far,          false, false, -EINVAL,        "tcp:twohosts:1 is not on this host"           },
        {"tcp:twohosts:1",      far,          true,  false, 0,              ""                                             },
        {"tcp:twohosts:1",      NULL,         true,  false, -EADDRNOTAVAIL, "twohosts: "                                   },
    };
    int some_tls;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct mig_dial dial = {.insecure = rows[i].insecure};
        struct err err = {0};
        int rc;

        if (rows[i].tls)
            dial.tls = (struct mig_tls *)(void *)&some_tls; /* only whether there is one */
        answers = rows[i].answers;
        assert_int_equal(mig_url_parse(rows[i].url, &dial.url, NULL), 0);
        rc = mig_dial_check(&dial, &err);
        if (rc != rows[i].rc || err.code != rc ||
            strncmp(err.msg, rows[i].msg, strlen(rows[i].msg)) != 0)
            fail_msg("row %u, %s: %d '%s'", i, rows[i].url, rc, err.msg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_a_url_is_said_as_it_is_given),
        cmocka_unit_test(test_plain_tcp_stays_on_this_host),
        cmocka_unit_test(test_a_name_is_one_peer),
        cmocka_unit_test(test_what_cannot_be_connected_to_is_known_before),
    };

    return cmocka_run_group_tests_name("mig_dial", tests, NULL, NULL);
}
