/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "migration/mig_statement.h"

static const uint8_t secret[MIG_SECRET_SIZE] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                                11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                                22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
static const uint8_t other[MIG_SECRET_SIZE] = {1};

/* The worked example of docs/migration-protocol.md 6.1. */
static const char taken[] = "taken:7d8b03eec6128610:92e1831661815a28fc3d27c91e73dbd2";
static const char never[] = "never:7d8b03eec6128610:4fa52fcf7dcd738d78f816d071578f2d";

static void test_statements_are_those_of_the_document(void **state)
{
    char text[MIG_STATEMENT_SIZE], id[MIG_ID_SIZE];

    (void)state;
    mig_statement_make(secret, MIG_OUTCOME_TAKEN, text);
    assert_string_equal(text, taken);
    mig_statement_make(secret, MIG_OUTCOME_NEVER, text);
    assert_string_equal(text, never);
    mig_id(secret, id);
    assert_memory_equal(id, taken + 6, MIG_ID_SIZE - 1);
}

static void test_a_statement_is_believed_by_its_own_migration_only(void **state)
{
    enum mig_outcome outcome = MIG_OUTCOME_NEVER;
    struct err err = {0};

    (void)state;
    assert_int_equal(mig_statement_check(taken, secret, &outcome, &err), 0);
    assert_int_equal(outcome, MIG_OUTCOME_TAKEN);
    assert_int_equal(mig_statement_check(never, secret, &outcome, &err), 0);
    assert_int_equal(outcome, MIG_OUTCOME_NEVER);
    assert_int_equal(mig_statement_check(never, other, &outcome, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "it is of migration"));
}

static void test_a_statement_with_any_character_changed_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < strlen(taken); i++) {
        for (int c = 1; c < 256; c++) {
            enum mig_outcome outcome = MIG_OUTCOME_NEVER;
            struct err err = {0};
            char text[sizeof(taken)];

            memcpy(text, taken, sizeof(text));
            if (text[i] == (char)c)
                continue;
            text[i] = (char)c;
            assert_true(mig_statement_check(text, secret, &outcome, &err) < 0);
            assert_true(err.code < 0 && err.msg[0]);
            assert_int_equal(outcome, MIG_OUTCOME_NEVER);
        }
    }
}

static void test_what_is_no_statement_is_refused(void **state)
{
    char text[sizeof(taken)];
    enum mig_outcome outcome;
    struct err err = {0};

    (void)state;
    for (size_t n = 0; n < strlen(taken); n++) {
        memcpy(text, taken, n);
        text[n] = 0;
        assert_int_equal(mig_statement_check(text, secret, &outcome, &err), -EINVAL);
    }
    err = (struct err){0};
    /* One outcome with the code of the other. */
    memcpy(text, never, sizeof(text));
    memcpy(text, taken, 5);
    assert_int_equal(mig_statement_check(text, secret, &outcome, &err), -EACCES);
    assert_non_null(strstr(err.msg, "has not said that"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statements_are_those_of_the_document),
        cmocka_unit_test(test_a_statement_is_believed_by_its_own_migration_only),
        cmocka_unit_test(test_a_statement_with_any_character_changed_is_refused),
        cmocka_unit_test(test_what_is_no_statement_is_refused),
    };

    return cmocka_run_group_tests_name("mig_statement", tests, NULL, NULL);
}
