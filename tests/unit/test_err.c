/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "core/err.h"

static void test_first_failure_wins(void **state)
{
    struct err err = {0};

    (void)state;
    assert_int_equal(err_set(&err, -EINVAL, "cpus.boot: %d", 0), -EINVAL);
    assert_int_equal(err_set(&err, -EIO, "later"), -EIO);
    assert_int_equal(err.code, -EINVAL);
    assert_string_equal(err.msg, "cpus.boot: 0");
}

static void test_no_err_is_allowed(void **state)
{
    (void)state;
    assert_int_equal(err_set(NULL, -EINVAL, "x"), -EINVAL);
    assert_int_equal(err_prefix(NULL, -EINVAL, "x"), -EINVAL);
}

static void test_prefix_goes_in_front(void **state)
{
    struct err err = {0};

    (void)state;
    (void)err_set(&err, -EIO, "short read");
    assert_int_equal(err_prefix(&err, -EIO, "disk %s", "_disk0"), -EIO);
    assert_string_equal(err.msg, "disk _disk0: short read");
}

static void test_long_messages_are_cut(void **state)
{
    struct err err = {0};
    char big[1000];

    (void)state;
    memset(big, 'a', sizeof(big) - 1);
    big[sizeof(big) - 1] = 0;
    (void)err_set(&err, -EIO, "%s", big);
    assert_int_equal(strlen(err.msg), ERR_MSG_SIZE - 1);
    (void)err_prefix(&err, -EIO, "%s", big);
    assert_int_equal(strlen(err.msg), ERR_MSG_SIZE - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_failure_wins),
        cmocka_unit_test(test_no_err_is_allowed),
        cmocka_unit_test(test_prefix_goes_in_front),
        cmocka_unit_test(test_long_messages_are_cut),
    };

    return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
