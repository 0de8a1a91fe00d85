/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk images and the configuration that names them, for the tests of snapshot/.
 */
#ifndef TESTS_UNIT_SNAP_FIXTURE_H
#define TESTS_UNIT_SNAP_FIXTURE_H

#include "snapshot/snap_sets.h"
#include "tests/unit/store_fixture.h"

/* A machine with disks "rw" and "ro" of 64 KiB, serial port on a file, one network. */
struct snap_fixture {
    struct fixture f; /* its directory has the images */
    char rw[FIXTURE_PATH_MAX + 16], ro[FIXTURE_PATH_MAX + 16];
    struct vm_config cfg;
    struct snap_problems why;
};

int snap_fixture_setup(void **state);
int snap_fixture_teardown(void **state);

/* A path in the directory; one buffer for each of eight calls. */
const char *snap_fixture_path(const struct snap_fixture *s, const char *name);

/* Fails the test unless there is exactly one problem, which says this. */
void snap_fixture_one_problem(struct snap_fixture *s, const char *text);

#endif
