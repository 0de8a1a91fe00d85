/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates for tests: made on the spot, good for a day.  Of Ed25519, whose signatures have one
 * length, so that handshakes have too.
 */
#ifndef TESTS_FAKES_FAKE_PKI_H
#define TESTS_FAKES_FAKE_PKI_H

#include "core/base.h"

struct fake_pki;

/* A certificate authority. */
struct fake_pki *fake_pki_new(const char *name);

void fake_pki_free(struct fake_pki *pki);

/* Write <role>-cert.pem and <role>-key.pem; @san as in "IP:127.0.0.1,DNS:localhost". */
void fake_pki_write_cert(struct fake_pki *pki, const char *dir, const char *role, const char *san);

/* All five files of a tls_dir, for a destination on loopback. */
void fake_pki_write_dir(struct fake_pki *pki, const char *dir);

/* A new directory with these files; @dir: as for mkdtemp(3). */
void fake_pki_make_dir(char *dir);

/* Remove what the functions above may have written, and the directory. */
void fake_pki_remove_dir(const char *dir);

#endif
