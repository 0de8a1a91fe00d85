/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/mig_dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "core/loop.h"
#include "core/socket_name.h"

enum {
    BACKLOG = 130,  /* every lane and the control channel at once */
    ALERT_MS = 100, /* for the peer to read why it was refused */
    RETRY_MS = 10,  /* a UNIX listener whose backlog is full */
};

struct mig_listener {
    int fd; /* owned */
    struct mig_dial dial;
};

/* --- URLs ---------------------------------------------------------------- */

static int parse_port(const char *text, struct mig_url *url, struct err *err)
{
    unsigned port = 0;
    size_t n = 0;

    for (; text[n] >= '0' && text[n] <= '9' && n < 5; n++)
        port = port * 10 + (unsigned)(text[n] - '0');
    if (n == 0 || text[n] || port > 65535)
        return err_set(err, -EINVAL, "'%s' is no port number", text);
    (void)snprintf(url->port, sizeof(url->port), "%u", port);
    return 0;
}

/* An IPv6 address, with a zone or without (RFC 4007, section 11). */
static bool is_ipv6(const char *host)
{
    char address[INET6_ADDRSTRLEN] = "";
    size_t len = strcspn(host, "%");
    struct in6_addr in6;

    if (len >= sizeof(address))
        return false;
    memcpy(address, host, len);
    return inet_pton(AF_INET6, address, &in6) == 1;
}

static int parse_tcp(const char *text, struct mig_url *url, struct err *err)
{
    const char *colon = strrchr(text, ':');
    bool brackets = text[0] == '[';
    size_t len;

    if (text[0] == '/' || !colon)
        return err_set(err, -EINVAL, "'tcp:%s': the form is tcp:host:port", text);
    len = (size_t)(colon - text);
    if (brackets) {
        if (len < 3 || text[len - 1] != ']')
            return err_set(err, -EINVAL, "'tcp:%s': the form is tcp:[address]:port", text);
        text++;
        len -= 2;
    } else if (memchr(text, ':', len)) {
        return err_set(err, -EINVAL, "'tcp:%s': an IPv6 address goes in brackets", text);
    }
    if (len == 0 || len >= sizeof(url->host))
        return err_set(err, -EINVAL, "'tcp:%s': no host, or one too long", text);
    memcpy(url->host, text, len);
    if (strpbrk(url->host, "[]"))
        return err_set(err, -EINVAL, "'%s': no brackets in a host's name", url->host);
    if (brackets && !is_ipv6(url->host))
        return err_set(err, -EINVAL, "'%s': only an IPv6 address goes in brackets", url->host);
    return parse_port(colon + 1, url, err);
}

int mig_url_parse(const char *text, struct mig_url *ret_url, struct err *err)
{
    struct mig_url url = {0};
    int rc;

    if (strlen(text) >= MIG_URL_MAX)
        return err_set(err, -EINVAL, "the URL is longer than %d bytes", MIG_URL_MAX - 1);
    if (strncmp(text, "unix:", 5) == 0) {
        url.is_unix = true;
        if (!text[5] || strlen(text + 5) >= sizeof(url.path))
            return err_set(err, -EINVAL, "'%s': a path of 1 to %zu bytes goes after unix:", text,
                           sizeof(url.path) - 1);
        memcpy(url.path, text + 5, strlen(text + 5));
    } else if (strncmp(text, "tcp:", 4) == 0) {
        rc = parse_tcp(text + 4, &url, err);
        if (rc < 0)
            return rc;
    } else {
        return err_set(err, -EINVAL, "'%s' is neither unix:/path nor tcp:host:port", text);
    }
    *ret_url = url;
    return 0;
}

struct mig_url_text mig_url_text(const struct mig_url *url)
{
    struct mig_url_text t;
    bool brackets = strchr(url->host, ':') != NULL;

    if (url->is_unix)
        (void)snprintf(t.s, sizeof(t.s), "unix:%s", url->path);
    else
        (void)snprintf(t.s, sizeof(t.s), brackets ? "tcp:[%s]:%s" : "tcp:%s:%s", url->host,
                       url->port);
    return t;
}

/* --- Addresses ----------------------------------------------------------- */

static bool is_loopback(const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in in;

        memcpy(&in, sa, sizeof(in));
        return ntohl(in.sin_addr.s_addr) >> 24 == 127;
    }
    if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;

        memcpy(&in6, sa, sizeof(in6));
        return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
    }
    return false;
}

static int check_secure(const struct mig_dial *dial, const struct sockaddr *sa, struct err *err)
{
    if (dial->tls || dial->insecure || is_loopback(sa))
        return 0;
    return err_set(
        err, -EINVAL,
        "%s is not on this host and there is no tls_dir; insecure=on sends guest memory in "
        "the clear",
        mig_url_text(&dial->url).s);
}

/* A path is no name that a certificate could bear, and its mode says who may connect. */
static int check_tls(const struct mig_dial *dial, struct err *err)
{
    if (dial->tls && dial->url.is_unix)
        return err_set(err, -EINVAL, "tls_dir goes with tcp: only, not with unix:%s",
                       dial->url.path);
    return 0;
}

static int resolve(const struct mig_url *url, bool passive, struct addrinfo **ret_ai,
                   struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0)};
    int rc = getaddrinfo(url->host, url->port, &hints, ret_ai);

    if (rc != 0)
        return err_set(err, -EADDRNOTAVAIL, "%s: %s", url->host, gai_strerror(rc));
    return 0;
}

static int check_tcp(const struct mig_dial *dial, struct err *err)
{
    struct addrinfo *list, *ai;
    struct err why = {0};
    int rc;

    if (strcmp(dial->url.port, "0") == 0)
        return err_set(err, -EINVAL, "%s: port 0 is none to connect to",
                       mig_url_text(&dial->url).s);
    rc = resolve(&dial->url, false, &list, err);
    if (rc < 0)
        return rc;
    rc = -EADDRNOTAVAIL;
    for (ai = list; ai && rc < 0; ai = ai->ai_next)
        rc = check_secure(dial, ai->ai_addr, &why);
    freeaddrinfo(list);
    return rc < 0 ? err_set(err, rc, "%s", why.msg) : 0;
}

int mig_dial_check(const struct mig_dial *dial, struct err *err)
{
    int rc = check_tls(dial, err);

    return rc < 0 || dial->url.is_unix ? rc : check_tcp(dial, err);
}

static struct sockaddr_un unix_address(const struct mig_url *url)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};

    memcpy(sun.sun_path, url->path, sizeof(sun.sun_path));
    return sun;
}

/* --- Connecting ---------------------------------------------------------- */

/*
 * The channel on a connected socket, with TLS where asked for; fd is taken.
 * wait->deadline_ns was for the connection: the handshake has wait->idle_ms.
 */
static int finish_open(const struct mig_dial *dial, int fd, const struct mig_wait *wait,
                       struct mig_channel **ret_ch, struct err *err)
{
    struct mig_wait shake = *wait;
    struct mig_channel *ch;
    int rc;

    shake.deadline_ns = 0;
    rc = mig_channel_from_fd(fd, &ch);
    if (rc < 0)
        return err_set(err, rc, "socket: %s", strerror(-rc));
    if (dial->tls) {
        rc = mig_channel_start_tls(ch, dial->tls, dial->url.host, &shake, err);
        if (rc < 0) {
            if (rc == -EACCES)
                mig_channel_linger(ch, ALERT_MS);
            mig_channel_close(ch);
            return rc;
        }
    }
    *ret_ch = ch;
    return 0;
}

/* Sleep a moment; -ECANCELED, -ETIMEDOUT as any wait. */
static int pause_for_retry(const struct mig_wait *wait, uint64_t since)
{
    struct mig_wait w = *wait;
    uint64_t soon = loop_now_ns() + (uint64_t)RETRY_MS * 1000000;
    int rc;

    if (!w.deadline_ns || soon < w.deadline_ns)
        w.deadline_ns = soon;
    rc = mig_channel_wait_fd(-1, 0, &w, since);
    if (rc == -ETIMEDOUT && (!wait->deadline_ns || loop_now_ns() < wait->deadline_ns) &&
        (!wait->idle_ms || loop_now_ns() < since + (uint64_t)wait->idle_ms * 1000000))
        return 0;
    return rc;
}

/* Connect a non-blocking socket. */
static int connect_fd(int fd, const struct sockaddr *sa, socklen_t len, const struct mig_wait *wait)
{
    uint64_t since = loop_now_ns();
    socklen_t size = sizeof(int);
    int rc, code = 0;

    for (;;) {
        if (connect(fd, sa, len) == 0)
            return 0;
        if (errno == EINPROGRESS)
            break;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
        rc = pause_for_retry(wait, since);
        if (rc < 0)
            return rc;
    }
    rc = mig_channel_wait_fd(fd, POLLOUT, wait, since);
    if (rc < 0)
        return rc;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) < 0)
        return -errno;
    return -code;
}

static int connect_one(const struct mig_dial *dial, const struct sockaddr *sa, socklen_t len,
                       const struct mig_wait *wait, int *ret_fd, struct err *err)
{
    auto_close int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int rc;

    if (fd < 0)
        return err_set(err, -errno, "socket: %s", strerror(errno));
    rc = connect_fd(fd, sa, len, wait);
    if (rc < 0)
        return err_set(err, rc, "connect to %s: %s", mig_url_text(&dial->url).s, strerror(-rc));
    *ret_fd = steal_fd(&fd);
    return 0;
}

/*
 * All connections of a migration go to one process: a name may have addresses of several hosts,
 * and in another order when it is asked for again.
 */
static int connect_tcp(struct mig_dial *dial, const struct mig_wait *wait, int *ret_fd,
                       struct err *err)
{
    struct addrinfo *list, *ai;
    int rc;

    if (dial->peer_len)
        return connect_one(dial, (const struct sockaddr *)&dial->peer, dial->peer_len, wait, ret_fd,
                           err);
    rc = resolve(&dial->url, false, &list, err);
    if (rc < 0)
        return rc;
    rc = -EADDRNOTAVAIL;
    for (ai = list; ai; ai = ai->ai_next) {
        struct err why = {0};

        rc = check_secure(dial, ai->ai_addr, &why);
        if (rc >= 0)
            rc = connect_one(dial, ai->ai_addr, ai->ai_addrlen, wait, ret_fd, &why);
        if (rc >= 0) {
            memcpy(&dial->peer, ai->ai_addr, ai->ai_addrlen);
            dial->peer_len = ai->ai_addrlen;
        } else if (!ai->ai_next || rc == -ECANCELED) {
            (void)err_set(err, rc, "%s", why.msg);
        }
        if (rc >= 0 || rc == -ECANCELED)
            break;
    }
    freeaddrinfo(list);
    return rc;
}

int mig_connect(struct mig_dial *dial, const struct mig_wait *wait, struct mig_channel **ret_ch,
                struct err *err)
{
    struct sockaddr_un sun = unix_address(&dial->url);
    int rc, fd = -1;

    rc = check_tls(dial, err);
    if (rc < 0)
        return rc;
    if (dial->url.is_unix)
        rc = connect_one(dial, (const struct sockaddr *)&sun, sizeof(sun), wait, &fd, err);
    else
        rc = connect_tcp(dial, wait, &fd, err);
    if (rc < 0)
        return rc;
    return finish_open(dial, fd, wait, ret_ch, err);
}

/* --- Listening ----------------------------------------------------------- */

static int bind_unix(const struct mig_dial *dial, int *ret_fd, struct err *err)
{
    struct sockaddr_un sun = unix_address(&dial->url);
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int rc;

    if (fd < 0)
        return err_set(err, -errno, "socket: %s", strerror(errno));
    /* unix(7), Linux: the mode set before bind() is the mode of the file. */
    rc = fchmod(fd, 0600);
    if (rc == 0)
        rc = bind(fd, (const struct sockaddr *)&sun, sizeof(sun));
    if (rc < 0 && errno == EADDRINUSE) {
        /* That of a process that was killed? */
        rc = socket_name_may_take(dial->url.path, err);
        if (rc < 0)
            return rc;
        (void)unlink(dial->url.path);
        rc = bind(fd, (const struct sockaddr *)&sun, sizeof(sun));
    }
    if (rc < 0)
        return err_set(err, -errno, "%s: %s", dial->url.path, strerror(errno));
    *ret_fd = steal_fd(&fd);
    return 0;
}

static int bind_tcp(const struct mig_dial *dial, int *ret_fd, struct err *err)
{
    struct addrinfo *ai;
    int rc, one = 1, fd;

    rc = resolve(&dial->url, true, &ai, err);
    if (rc < 0)
        return rc;
    rc = check_secure(dial, ai->ai_addr, err);
    fd = rc < 0 ? -1 : socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (rc >= 0 && (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
                    bind(fd, ai->ai_addr, ai->ai_addrlen) < 0)) {
        rc = err_set(err, -errno, "%s: %s", mig_url_text(&dial->url).s, strerror(errno));
        if (fd >= 0)
            (void)close(fd);
    }
    freeaddrinfo(ai);
    if (rc >= 0)
        *ret_fd = fd;
    return rc;
}

int mig_listen(const struct mig_dial *dial, struct mig_listener **ret_ls, struct err *err)
{
    struct mig_listener *ls;
    int rc, fd = -1;

    rc = check_tls(dial, err);
    if (rc >= 0)
        rc = dial->url.is_unix ? bind_unix(dial, &fd, err) : bind_tcp(dial, &fd, err);
    if (rc < 0)
        return rc;
    ls = calloc(1, sizeof(*ls));
    if (!ls || listen(fd, BACKLOG) < 0) {
        rc = ls ? -errno : -ENOMEM;
        (void)close(fd);
        free(ls);
        return err_set(err, rc, "listen: %s", strerror(-rc));
    }
    ls->fd = fd;
    ls->dial = *dial;
    *ret_ls = ls;
    return 0;
}

unsigned mig_listener_port(const struct mig_listener *ls)
{
    struct sockaddr_storage ss = {0};
    socklen_t len = sizeof(ss);
    struct sockaddr_in in;

    if (getsockname(ls->fd, (struct sockaddr *)&ss, &len) < 0 || ss.ss_family == AF_UNIX)
        return 0;
    memcpy(&in, &ss, sizeof(in)); /* the port is in the same place in IPv6 */
    return ntohs(in.sin_port);
}

struct mig_url_text mig_listener_url(const struct mig_listener *ls)
{
    struct mig_url url = ls->dial.url;

    if (!url.is_unix)
        (void)snprintf(url.port, sizeof(url.port), "%u", mig_listener_port(ls) & 0xffff);
    return mig_url_text(&url);
}

void mig_listener_close(struct mig_listener *ls)
{
    if (!ls)
        return;
    if (ls->dial.url.is_unix)
        (void)unlink(ls->dial.url.path);
    (void)close(ls->fd);
    free(ls);
}

int mig_listener_fd(const struct mig_listener *ls)
{
    return ls->fd;
}

int mig_accept(struct mig_listener *ls, const struct mig_wait *wait, struct mig_channel **ret_ch,
               struct err *err)
{
    struct mig_wait w = *wait;
    int rc, fd;

    w.idle_ms = 0;
    for (;;) {
        fd = accept4(ls->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            rc = mig_channel_from_fd(fd, ret_ch);
            return rc < 0 ? err_set(err, rc, "socket: %s", strerror(-rc)) : 0;
        }
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            return err_set(err, -errno, "accept: %s", strerror(errno));
        rc = mig_channel_wait_fd(ls->fd, POLLIN, &w, 0);
        if (rc == -ETIMEDOUT)
            return err_set(err, rc, "nobody connected in time");
        if (rc < 0)
            return err_set(err, rc, "%s", rc == -ECANCELED ? "cancelled" : strerror(-rc));
    }
}

int mig_open_by_connect(void *dial, const struct mig_wait *wait, struct mig_channel **ret_ch,
                        struct err *err)
{
    return mig_connect(dial, wait, ret_ch, err);
}

int mig_open_by_accept(void *listener, const struct mig_wait *wait, struct mig_channel **ret_ch,
                       struct err *err)
{
    return mig_accept(listener, wait, ret_ch, err);
}
