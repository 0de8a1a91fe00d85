/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS 1.3 on a channel's socket, by OpenSSL.
 *
 * One thread may read while another writes: the session is behind a mutex,
 * which is never held while waiting, as the socket does not block.  Records
 * are gathered and written to the socket many at a time.  OpenSSL copies what
 * it is given before it encrypts, so that guest memory that changes meanwhile
 * gives a mix of old and new bytes, but never a broken record.
 */
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "core/log.h"
#include "migration/mig_channel_internal.h"
#include "migration/mig_wire.h"

enum {
    OUT_SIZE = 128 * 1024,  /* bytes of records gathered before they are written */
    READ_SIZE = 128 * 1024, /* bytes of records read ahead */
    PATH_SIZE = 4096,
    NAME_SIZE = 256,
};

struct mig_tls {
    _Atomic unsigned refs; /* the owner's, and one of each stream */
    SSL_CTX *ctx;
    enum mig_tls_role role;

    /* At the client: the session of the last ticket, for the lanes, and to whom it was. */
    pthread_mutex_t lock; /* both */
    SSL_SESSION *session; /* owned; NULL: none yet */
    char session_host[NAME_SIZE];
};

struct tls_stream {
    struct mig_stream st;
    struct mig_tls *tls;  /* a reference */
    char host[NAME_SIZE]; /* the peer's, at the client */
    pthread_mutex_t lock; /* all below */
    SSL *ssl;
    BIO_METHOD *method;
    int out_errno;    /* what the socket said to the last write */
    uint8_t first[2]; /* bytes that the peer sent */
    unsigned nr_first;
    size_t out_at, out_len;
    uint8_t out[OUT_SIZE];
};

/* What the fastest comes first of: AES needs instructions for itself and for GHASH. */
static const char suites_with_aes[] =
    "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256";
static const char suites_without_aes[] =
    "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384";

/* --- Errors -------------------------------------------------------------- */

/* The first reason that OpenSSL noted in this thread, which is then forgotten. */
static const char *reason(void)
{
    unsigned long code = ERR_get_error();
    /* Since OpenSSL 3.0 it has no words for what the system said. */
    const char *text =
        ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code)) : ERR_reason_error_string(code);

    ERR_clear_error();
    return text ? text : "unknown reason";
}

/* RFC 8446, section 5.1: a record's first byte is its type, 20 to 23; 24 is that of RFC 6520. */
static bool is_record(const struct tls_stream *t)
{
    return t->nr_first == 0 || (t->first[0] >= 20 && t->first[0] <= 24);
}

static int handshake_failed(struct tls_stream *t, struct err *err)
{
    long verdict = SSL_get_verify_result(t->ssl);

    if (!is_record(t)) {
        ERR_clear_error();
        if (t->nr_first == sizeof(t->first) && t->first[0] == MIG_MSG_REFUSE && !t->first[1])
            return err_set(err, -EACCES,
                           "the destination speaks without TLS: tls_dir is given here only");
        return err_set(err, -EACCES, "the peer speaks no TLS");
    }
    if (verdict != X509_V_OK) {
        ERR_clear_error();
        return err_set(err, -EACCES, "the peer's certificate is refused: %s",
                       X509_verify_cert_error_string(verdict));
    }
    return err_set(err, -EACCES, "TLS handshake failed: %s", reason());
}

/* --- The socket under the session ---------------------------------------- */

/* Write what was gathered: 0, or -EAGAIN, or the kernel's errno. */
static int out_flush(struct tls_stream *t)
{
    while (t->out_at < t->out_len) {
        ssize_t n = send(t->st.fd, t->out + t->out_at, t->out_len - t->out_at, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return t->out_errno = -errno;
        t->out_at += (size_t)n;
    }
    t->out_at = t->out_len = 0;
    return 0;
}

static int sock_write(BIO *bio, const char *data, int len)
{
    struct tls_stream *t = BIO_get_data(bio);
    size_t room;
    int rc;

    BIO_clear_retry_flags(bio);
    if (t->out_len == OUT_SIZE) {
        rc = out_flush(t);
        if (rc == -EAGAIN)
            BIO_set_retry_write(bio);
        if (rc < 0)
            return -1;
    }
    room = OUT_SIZE - t->out_len;
    if ((size_t)len < room)
        room = (size_t)len;
    memcpy(t->out + t->out_len, data, room);
    t->out_len += room;
    return (int)room;
}

static int sock_read(BIO *bio, char *buf, int len)
{
    struct tls_stream *t = BIO_get_data(bio);
    ssize_t n = recv(t->st.fd, buf, (size_t)len, 0);

    BIO_clear_retry_flags(bio);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_read(bio);
    for (ssize_t i = 0; i < n && t->nr_first < sizeof(t->first); i++)
        t->first[t->nr_first++] = (uint8_t)buf[i];
    return (int)n;
}

static long sock_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
    (void)bio;
    (void)num;
    (void)ptr;
    /* The session flushes at its own points; ours is mig_stream_ops.flush. */
    return cmd == BIO_CTRL_FLUSH ? 1 : 0;
}

/* --- Resumption ---------------------------------------------------------- */

/*
 * OpenSSL: a ticket came.  A session that ends with its connection, or without a word, cannot be
 * resumed any more: what is kept is a copy.  Return: whether the session itself was kept.
 */
static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls_stream *t = SSL_get_app_data(ssl);
    struct mig_tls *tls = t->tls;
    SSL_SESSION *copy = SSL_SESSION_dup(session);

    (void)pthread_mutex_lock(&tls->lock);
    SSL_SESSION_free(tls->session);
    tls->session = copy;
    memcpy(tls->session_host, t->host, sizeof(t->host));
    (void)pthread_mutex_unlock(&tls->lock);
    return 0;
}

/* Have a connection go on with the session of an earlier one to the same host, if there is one. */
static void resume(struct tls_stream *t)
{
    SSL_SESSION *session = NULL;

    (void)pthread_mutex_lock(&t->tls->lock);
    if (t->tls->session && strcmp(t->tls->session_host, t->host) == 0)
        session = SSL_SESSION_dup(t->tls->session); /* each connection writes to its own */
    (void)pthread_mutex_unlock(&t->tls->lock);
    /* Without it the handshake takes longer: both ends sign. */
    if (session && SSL_set_session(t->ssl, session) != 1)
        ERR_clear_error();
    SSL_SESSION_free(session);
}

/*
 * A server gives a ticket only where mig_channel_offer_resumption() says so: a lane's client
 * does not read.  What a ticket needs is in it, under a key that ends with the context.
 */
static int set_resumption(SSL_CTX *ctx, enum mig_tls_role role)
{
    static const unsigned char migration[] = "migration";

    if (SSL_CTX_set_num_tickets(ctx, 0) != 1 ||
        SSL_CTX_set_session_id_context(ctx, migration, sizeof(migration) - 1) != 1)
        return -EINVAL;
    if (role == MIG_TLS_CLIENT) {
        (void)SSL_CTX_set_session_cache_mode(ctx,
                                             SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(ctx, keep_session);
    } else {
        (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    }
    return 0;
}

/* --- Certificates -------------------------------------------------------- */

static const char *const role_names[] = {
    [MIG_TLS_CLIENT] = "client",
    [MIG_TLS_SERVER] = "server",
};

/* Join dir and a file's name; -EINVAL if that is too long. */
static int file_in(char *path, const char *dir, const char *role, const char *what, struct err *err)
{
    int n = snprintf(path, PATH_SIZE, "%s/%s-%s.pem", dir, role, what);

    if (n < 0 || n >= PATH_SIZE)
        return err_set(err, -EINVAL, "tls_dir: path too long");
    return 0;
}

static int load_files(SSL_CTX *ctx, const char *dir, const char *role, struct err *err)
{
    char path[PATH_SIZE];
    int rc;

    rc = file_in(path, dir, "ca", "cert", err);
    if (rc < 0)
        return rc;
    if (SSL_CTX_load_verify_locations(ctx, path, NULL) != 1)
        return err_set(err, -EINVAL, "tls_dir: %s: %s", path, reason());
    rc = file_in(path, dir, role, "cert", err);
    if (rc < 0)
        return rc;
    if (SSL_CTX_use_certificate_chain_file(ctx, path) != 1)
        return err_set(err, -EINVAL, "tls_dir: %s: %s", path, reason());
    rc = file_in(path, dir, role, "key", err);
    if (rc < 0)
        return rc;
    if (SSL_CTX_use_PrivateKey_file(ctx, path, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(ctx) != 1)
        return err_set(err, -EINVAL, "tls_dir: %s: %s", path, reason());
    return 0;
}

static int configure(SSL_CTX *ctx, const char *dir, enum mig_tls_role role, struct err *err)
{
    if (SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) != 1)
        return err_set(err, -EINVAL, "TLS 1.3: %s", reason());
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_read_buffer_len(ctx, READ_SIZE);
    if (set_resumption(ctx, role) < 0)
        return err_set(err, -EINVAL, "TLS sessions: %s", reason());
    return load_files(ctx, dir, role_names[role], err);
}

static bool cpu_has_aes(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#else
    return true;
#endif
}

int mig_tls_order_suites(struct mig_tls *tls, bool aes, struct err *err)
{
    if (SSL_CTX_set_ciphersuites(tls->ctx, aes ? suites_with_aes : suites_without_aes) != 1)
        return err_set(err, -EINVAL, "TLS cipher suites: %s", reason());
    /* A destination that is fast follows the source; one that is slow at AES insists. */
    if (aes)
        (void)SSL_CTX_clear_options(tls->ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
    else
        (void)SSL_CTX_set_options(tls->ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
    return 0;
}

int mig_tls_new(const char *dir, enum mig_tls_role role, struct mig_tls **ret_tls, struct err *err)
{
    struct mig_tls *tls = calloc(1, sizeof(*tls));
    int rc;

    if (!tls)
        return -ENOMEM;
    atomic_init(&tls->refs, 1);
    (void)pthread_mutex_init(&tls->lock, NULL);
    tls->role = role;
    /* The system's openssl.cnf is not to weaken, or to be needed in a sandbox. */
    (void)OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    ERR_clear_error();
    tls->ctx = SSL_CTX_new(role == MIG_TLS_SERVER ? TLS_server_method() : TLS_client_method());
    rc = tls->ctx ? configure(tls->ctx, dir, role, err) : -ENOMEM;
    if (rc >= 0)
        rc = mig_tls_order_suites(tls, cpu_has_aes(), err);
    if (rc < 0) {
        mig_tls_free(tls);
        return rc;
    }
    *ret_tls = tls;
    return 0;
}

void mig_tls_free(struct mig_tls *tls)
{
    if (!tls || atomic_fetch_sub(&tls->refs, 1) != 1)
        return;
    SSL_SESSION_free(tls->session);
    (void)pthread_mutex_destroy(&tls->lock);
    SSL_CTX_free(tls->ctx);
    free(tls);
}

/* --- The stream ---------------------------------------------------------- */

static struct tls_stream *of(struct mig_stream *st)
{
    return container_of(st, struct tls_stream, st);
}

/* Translate the failure of a session call; the lock is held. */
static int explain_locked(struct tls_stream *t, int ret, int sys, short *ret_want, struct err *err)
{
    switch (SSL_get_error(t->ssl, ret)) {
    case SSL_ERROR_WANT_READ:
        *ret_want = POLLIN;
        return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
        *ret_want = POLLOUT;
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        ERR_clear_error();
        sys = sys ? sys : ECONNRESET;
        return err_set(err, -sys, "%s", strerror(sys));
    default:
        return err_set(err, -EBADMSG, "TLS: %s", reason());
    }
}

static int64_t tls_send(struct mig_stream *st, const struct iovec *iov, unsigned nr,
                        short *ret_want, struct err *err)
{
    struct tls_stream *t = of(st);
    int64_t rc;
    size_t n = 0;
    int ret;

    (void)nr;
    (void)pthread_mutex_lock(&t->lock);
    ERR_clear_error();
    t->out_errno = 0;
    ret = SSL_write_ex(t->ssl, iov->iov_base, iov->iov_len, &n);
    rc = ret == 1 ? (int64_t)n : explain_locked(t, ret, -t->out_errno, ret_want, err);
    (void)pthread_mutex_unlock(&t->lock);
    return rc == 0 ? err_set(err, -EPIPE, "the peer closed the TLS session") : rc;
}

static int tls_flush(struct mig_stream *st, short *ret_want, struct err *err)
{
    struct tls_stream *t = of(st);
    int rc;

    (void)pthread_mutex_lock(&t->lock);
    rc = out_flush(t);
    (void)pthread_mutex_unlock(&t->lock);
    *ret_want = POLLOUT;
    if (rc < 0 && rc != -EAGAIN)
        return err_set(err, rc, "%s", strerror(-rc));
    return rc;
}

static int64_t tls_recv(struct mig_stream *st, const struct iovec *iov, unsigned nr,
                        short *ret_want, struct err *err)
{
    struct tls_stream *t = of(st);
    int64_t rc;
    size_t n = 0;
    int ret;

    (void)nr;
    (void)pthread_mutex_lock(&t->lock);
    ERR_clear_error();
    errno = 0;
    ret = SSL_read_ex(t->ssl, iov->iov_base, iov->iov_len, &n);
    rc = ret == 1 ? (int64_t)n : explain_locked(t, ret, errno, ret_want, err);
    (void)pthread_mutex_unlock(&t->lock);
    return rc;
}

static void tls_finish(struct mig_stream *st)
{
    struct tls_stream *t = of(st);

    (void)pthread_mutex_lock(&t->lock);
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl);
    ERR_clear_error();
    (void)out_flush(t);
    (void)pthread_mutex_unlock(&t->lock);
}

static void tls_free(struct mig_stream *st)
{
    struct tls_stream *t = of(st);

    SSL_free(t->ssl);
    BIO_meth_free(t->method);
    (void)pthread_mutex_destroy(&t->lock);
    ERR_clear_error();
    mig_tls_free(t->tls);
    free(t);
}

static void tls_offer(struct mig_stream *st)
{
    struct tls_stream *t = of(st);

    (void)pthread_mutex_lock(&t->lock);
    /* Without a ticket further connections take longer, that is all. */
    if (SSL_new_session_ticket(t->ssl) != 1)
        ERR_clear_error();
    (void)pthread_mutex_unlock(&t->lock);
}

static const struct mig_stream_ops tls_ops = {
    .send = tls_send,
    .flush = tls_flush,
    .recv = tls_recv,
    .finish = tls_finish,
    .offer_resumption = tls_offer,
    .free = tls_free,
};

const char *mig_tls_stream_suite(const struct mig_stream *st)
{
    const struct tls_stream *t = (const struct tls_stream *)(const void *)st;

    return SSL_get_cipher_name(t->ssl);
}

bool mig_tls_stream_resumed(const struct mig_stream *st)
{
    const struct tls_stream *t = (const struct tls_stream *)(const void *)st;

    return SSL_session_reused(t->ssl) == 1;
}

/*
 * Ask for an address in the certificate.  An IPv6 zone (RFC 4007, section 11) names one of this
 * host's interfaces, and is nothing that the peer could know.
 */
static bool require_address(X509_VERIFY_PARAM *param, const char *host)
{
    char address[NAME_SIZE];

    (void)snprintf(address, sizeof(address), "%s", host);
    if (strchr(address, ':'))
        address[strcspn(address, "%")] = 0;
    return X509_VERIFY_PARAM_set1_ip_asc(param, address) == 1;
}

/* The peer's certificate must bear this name or address. */
static int require_name(struct tls_stream *t, const char *host)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(t->ssl);

    if (!host[0] || strlen(host) >= sizeof(t->host))
        return -EINVAL;
    (void)snprintf(t->host, sizeof(t->host), "%s", host);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (require_address(param, t->host))
        return 0;
    ERR_clear_error();
    if (X509_VERIFY_PARAM_set1_host(param, t->host, 0) != 1 ||
        SSL_set_tlsext_host_name(t->ssl, t->host) != 1)
        return -EINVAL;
    return 0;
}

static BIO_METHOD *socket_method(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "migration");

    if (m) {
        (void)BIO_meth_set_write(m, sock_write);
        (void)BIO_meth_set_read(m, sock_read);
        (void)BIO_meth_set_ctrl(m, sock_ctrl);
    }
    return m;
}

int mig_tls_stream_new(struct mig_tls *tls, int fd, const char *host,
                       struct mig_stream **ret_stream, struct err *err)
{
    struct tls_stream *t = calloc(1, sizeof(*t));
    BIO *bio = NULL;

    if (!t)
        return -ENOMEM;
    t->st = (struct mig_stream){.ops = &tls_ops, .fd = fd};
    (void)atomic_fetch_add(&tls->refs, 1);
    t->tls = tls;
    (void)pthread_mutex_init(&t->lock, NULL);
    t->ssl = SSL_new(tls->ctx);
    t->method = socket_method();
    if (t->ssl && t->method)
        bio = BIO_new(t->method);
    if (!bio) {
        tls_free(&t->st);
        return -ENOMEM;
    }
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
    (void)SSL_set_app_data(t->ssl, t);
    if (host && require_name(t, host) < 0) {
        tls_free(&t->st);
        return err_set(err, -EINVAL, "'%s' is no name that a certificate can bear", host);
    }
    if (tls->role == MIG_TLS_SERVER) {
        SSL_set_accept_state(t->ssl);
    } else {
        SSL_set_connect_state(t->ssl);
        resume(t);
    }
    *ret_stream = &t->st;
    return 0;
}

int mig_tls_stream_handshake(struct mig_stream *st, short *ret_want, struct err *err)
{
    struct tls_stream *t = of(st);
    int ret, why, rc;

    (void)pthread_mutex_lock(&t->lock);
    ERR_clear_error();
    errno = 0;
    ret = SSL_do_handshake(t->ssl);
    why = ret == 1 ? SSL_ERROR_NONE : SSL_get_error(t->ssl, ret);
    rc = out_flush(t); /* an alert too */
    if (rc == -EAGAIN || why == SSL_ERROR_WANT_WRITE) {
        *ret_want = POLLOUT;
        rc = -EAGAIN;
    } else if (why == SSL_ERROR_WANT_READ && rc >= 0) {
        *ret_want = POLLIN;
        rc = -EAGAIN;
    } else if (why == SSL_ERROR_SSL) {
        rc = handshake_failed(t, err);
    } else if (why != SSL_ERROR_NONE || rc < 0) {
        ERR_clear_error();
        rc = err_set(err, -ECONNRESET, "the peer closed the connection during the TLS handshake");
    } else {
        log_debug("migration: TLS with %s, %s", mig_tls_stream_suite(st),
                  mig_tls_stream_resumed(st) ? "resumed" : "by certificates");
    }
    (void)pthread_mutex_unlock(&t->lock);
    return rc;
}
