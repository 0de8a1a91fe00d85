/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/mig_statement.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

enum {
    ID_BYTES = 8,
    CODE_BYTES = 16,
    NAME_LEN = 5, /* of every outcome */
    ID_AT = NAME_LEN + 1,
    CODE_AT = ID_AT + 2 * ID_BYTES + 1,
    TEXT_LEN = CODE_AT + 2 * CODE_BYTES,
};
_Static_assert(TEXT_LEN < (int)MIG_STATEMENT_SIZE, "a statement does not fit");
_Static_assert(2 * ID_BYTES + 1 == (int)MIG_ID_SIZE, "an id does not fit");

static const char *const names[] = {
    [MIG_OUTCOME_TAKEN] = "taken",
    [MIG_OUTCOME_NEVER] = "never",
};

const char *mig_outcome_name(enum mig_outcome outcome)
{
    return names[outcome];
}

/* The first bytes of HMAC-SHA-256 of a word, in hexadecimal digits. */
static void digits(const uint8_t *secret, const char *word, unsigned nr_bytes, char *ret_text)
{
    uint8_t mac[EVP_MAX_MD_SIZE] = {0};

    /* The sandbox lets nobody read the system's configuration of the library. */
    (void)OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    if (!HMAC(EVP_sha256(), secret, MIG_SECRET_SIZE, (const uint8_t *)word, strlen(word), mac,
              NULL))
        abort(); /* out of memory in a library that cannot say so otherwise */
    for (unsigned i = 0; i < nr_bytes; i++)
        (void)snprintf(ret_text + (size_t)2 * i, 3, "%02x", mac[i]);
}

void mig_id(const uint8_t *secret, char ret_id[MIG_ID_SIZE])
{
    digits(secret, "chrysalis migration id", ID_BYTES, ret_id);
}

void mig_statement_make(const uint8_t *secret, enum mig_outcome outcome,
                        char ret_text[MIG_STATEMENT_SIZE])
{
    char id[MIG_ID_SIZE], word[64], code[2 * CODE_BYTES + 1];

    mig_id(secret, id);
    (void)snprintf(word, sizeof(word), "chrysalis migration outcome %s", names[outcome]);
    digits(secret, word, CODE_BYTES, code);
    (void)snprintf(ret_text, MIG_STATEMENT_SIZE, "%s:%s:%s", names[outcome], id, code);
}

static bool is_statement(const char *text)
{
    if (strlen(text) != TEXT_LEN || text[ID_AT - 1] != ':' || text[CODE_AT - 1] != ':')
        return false;
    return strspn(text + ID_AT, "0123456789abcdef") == (size_t)2 * ID_BYTES &&
           strspn(text + CODE_AT, "0123456789abcdef") == (size_t)2 * CODE_BYTES;
}

int mig_statement_check(const char *text, const uint8_t *secret, enum mig_outcome *ret_outcome,
                        struct err *err)
{
    char id[MIG_ID_SIZE], mine[MIG_STATEMENT_SIZE];
    unsigned outcome;

    if (!is_statement(text)) {
        return err_set(err, -EINVAL,
                       "statement: '%.*s' is not one: taken or never, 16 digits, 32 digits",
                       MIG_STATEMENT_SIZE, text);
    }
    mig_id(secret, id);
    if (memcmp(text + ID_AT, id, (size_t)2 * ID_BYTES) != 0)
        return err_set(err, -EINVAL, "statement: it is of migration %.16s, this one is %s",
                       text + ID_AT, id);
    for (outcome = 0; outcome < ARRAY_LEN(names); outcome++)
        if (memcmp(text, names[outcome], NAME_LEN) == 0)
            break;
    if (outcome == ARRAY_LEN(names))
        return err_set(err, -EINVAL, "statement: '%.5s' is neither taken nor never", text);
    mig_statement_make(secret, (enum mig_outcome)outcome, mine);
    if (CRYPTO_memcmp(text, mine, TEXT_LEN) != 0)
        return err_set(err, -EACCES, "statement: the destination of migration %s has not said that",
                       id);
    *ret_outcome = (enum mig_outcome)outcome;
    return 0;
}
