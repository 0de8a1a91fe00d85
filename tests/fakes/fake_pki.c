/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fakes/fake_pki.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

struct fake_pki {
    EVP_PKEY *key;
    X509 *cert;
    long serial;
};

static void add_ext(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509_EXTENSION *ext;
    X509V3_CTX ctx;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(ext);
    assert_int_equal(X509_add_ext(cert, ext, -1), 1);
    X509_EXTENSION_free(ext);
}

static X509 *make_cert(const char *name, long serial, EVP_PKEY *key)
{
    X509 *cert = X509_new();
    X509_NAME *dn;

    assert_non_null(cert);
    assert_int_equal(X509_set_version(cert, X509_VERSION_3), 1);
    assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(cert), serial), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(cert), -3600));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(cert), 86400));
    dn = X509_get_subject_name(cert);
    assert_int_equal(X509_NAME_add_entry_by_txt(dn, "CN", MBSTRING_ASC, (const unsigned char *)name,
                                                -1, -1, 0),
                     1);
    assert_int_equal(X509_set_pubkey(cert, key), 1);
    return cert;
}

static EVP_PKEY *make_key(void)
{
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");

    assert_non_null(key);
    return key;
}

struct fake_pki *fake_pki_new(const char *name)
{
    struct fake_pki *pki = calloc(1, sizeof(*pki));

    assert_non_null(pki);
    pki->key = make_key();
    pki->cert = make_cert(name, 1, pki->key);
    pki->serial = 1;
    assert_int_equal(X509_set_issuer_name(pki->cert, X509_get_subject_name(pki->cert)), 1);
    add_ext(pki->cert, pki->cert, NID_basic_constraints, "critical,CA:TRUE");
    add_ext(pki->cert, pki->cert, NID_key_usage, "critical,keyCertSign");
    assert_true(X509_sign(pki->cert, pki->key, NULL) > 0);
    return pki;
}

void fake_pki_free(struct fake_pki *pki)
{
    X509_free(pki->cert);
    EVP_PKEY_free(pki->key);
    free(pki);
}

static FILE *create(const char *dir, const char *role, const char *what)
{
    char path[512];
    FILE *f;

    (void)snprintf(path, sizeof(path), "%s/%s-%s.pem", dir, role, what);
    f = fopen(path, "we");
    assert_non_null(f);
    return f;
}

static void write_cert(const char *dir, const char *role, X509 *cert)
{
    FILE *f = create(dir, role, "cert");

    assert_int_equal(PEM_write_X509(f, cert), 1);
    assert_int_equal(fclose(f), 0);
}

static void fake_pki_write_ca(struct fake_pki *pki, const char *dir)
{
    write_cert(dir, "ca", pki->cert);
}

void fake_pki_write_cert(struct fake_pki *pki, const char *dir, const char *role, const char *san)
{
    EVP_PKEY *key = make_key();
    X509 *cert;
    FILE *f;

    cert = make_cert(role, ++pki->serial, key);
    assert_int_equal(X509_set_issuer_name(cert, X509_get_subject_name(pki->cert)), 1);
    add_ext(cert, pki->cert, NID_subject_alt_name, san);
    add_ext(cert, pki->cert, NID_ext_key_usage,
            strcmp(role, "server") == 0 ? "serverAuth" : "clientAuth");
    assert_true(X509_sign(cert, pki->key, NULL) > 0);
    write_cert(dir, role, cert);
    f = create(dir, role, "key");
    assert_int_equal(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(f), 0);
    X509_free(cert);
    EVP_PKEY_free(key);
}

void fake_pki_write_dir(struct fake_pki *pki, const char *dir)
{
    fake_pki_write_ca(pki, dir);
    fake_pki_write_cert(pki, dir, "server", "IP:127.0.0.1,DNS:localhost");
    fake_pki_write_cert(pki, dir, "client", "DNS:source");
}

void fake_pki_make_dir(char *dir)
{
    struct fake_pki *pki = fake_pki_new("good CA");

    assert_non_null(mkdtemp(dir));
    fake_pki_write_dir(pki, dir);
    fake_pki_free(pki);
}

void fake_pki_remove_dir(const char *dir)
{
    static const char *const names[] = {"ca-cert", "server-cert", "server-key", "client-cert",
                                        "client-key"};
    char path[512];

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s.pem", dir, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(dir);
}
