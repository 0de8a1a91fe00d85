/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the programs of this lane need: /dev/kvm, and the test guest as their argument.
 */
#ifndef TESTS_LANE_LANE_GUEST_H
#define TESTS_LANE_LANE_GUEST_H

enum {
    LANE_SKIPPED = 77, /* exit code: SKIP_RETURN_CODE in CMakeLists.txt */
};

/* The guest's path; vCPUs can be made then.  NULL: it was said what is missing. */
const char *lane_guest(int argc, char **argv);

#endif
