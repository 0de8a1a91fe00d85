/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "core/vm_life.h"

enum {
    NR_STATES = VM_SHUTDOWN + 1,
};

/* Every action in every state, as the API's document has it. */
static const struct {
    enum vm_action action;
    const char *word; /* of the message */
    int rc[NR_STATES];
} rows[] = {
  /* clang-format off */
    /*                                          none     created  running  paused   shut down */
    {VM_ACTION_CREATE,            "created",    {0,       -EEXIST, -EEXIST, -EEXIST, -EEXIST}},
    {VM_ACTION_DELETE,            "deleted",    {0,       0,       0,       0,       0}},
    {VM_ACTION_BOOT,              "booted",     {-ENOENT, 0,       -EPERM,  0,       0}},
    {VM_ACTION_PAUSE,             "paused",     {-ENOENT, -EPERM,  0,       -EPERM,  -EPERM}},
    {VM_ACTION_RESUME,            "resumed",    {-ENOENT, -EPERM,  -EPERM,  0,       -EPERM}},
    {VM_ACTION_SHUTDOWN,          "shut down",  {-ENOENT, -EPERM,  0,       0,       -EPERM}},
    {VM_ACTION_REBOOT,            "rebooted",   {-ENOENT, -EPERM,  0,       0,       -EPERM}},
    {VM_ACTION_POWER_BUTTON,      "power",      {-ENOENT, -EPERM,  0,       -EPERM,  -EPERM}},
    {VM_ACTION_NMI,               "NMI",        {-ENOENT, -EPERM,  0,       -EPERM,  -EPERM}},
    {VM_ACTION_SNAPSHOT,          "snapshot",   {-ENOENT, -EPERM,  0,       0,       -EPERM}},
    {VM_ACTION_RESTORE,           "restored",   {0,       -EEXIST, -EEXIST, -EEXIST, -EEXIST}},
    {VM_ACTION_SEND_MIGRATION,    "migrated",   {-ENOENT, -EPERM,  0,       0,       -EPERM}},
    {VM_ACTION_RECEIVE_MIGRATION, "received",   {0,       -EEXIST, -EEXIST, -EEXIST, -EEXIST}},
  /* clang-format on */
};

static void test_every_action_in_every_state(void **state)
{
    (void)state;
    assert_int_equal(ARRAY_LEN(rows), VM_ACTION_NR);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(rows[i].action, i);
        for (enum vm_state s = VM_NONE; s <= VM_SHUTDOWN; s++) {
            struct err err = {0};
            int rc = vm_life_check(s, rows[i].action, &err);

            if (rc != rows[i].rc[s])
                fail_msg("%s in %s: %d, not %d", rows[i].word, vm_state_name(s), rc, rows[i].rc[s]);
            assert_int_equal(err.code, rc);
            if (!rc)
                continue;
            assert_non_null(strstr(err.msg, rows[i].word));
            if (s != VM_NONE)
                assert_non_null(strstr(err.msg, vm_state_name(s)));
        }
    }
}

static void test_states_are_called_as_in_the_api(void **state)
{
    (void)state;
    assert_string_equal(vm_state_name(VM_CREATED), "Created");
    assert_string_equal(vm_state_name(VM_RUNNING), "Running");
    assert_string_equal(vm_state_name(VM_PAUSED), "Paused");
    assert_string_equal(vm_state_name(VM_SHUTDOWN), "Shutdown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_action_in_every_state),
        cmocka_unit_test(test_states_are_called_as_in_the_api),
    };

    return cmocka_run_group_tests_name("vm_life", tests, NULL, NULL);
}
