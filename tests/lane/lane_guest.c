/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lane/lane_guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/vcpu.h"

const char *lane_guest(int argc, char **argv)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (fd < 0 || argc < 2) {
        (void)printf("skipped: /dev/kvm: %s\n", argc < 2 ? "no guest was given" : strerror(errno));
        return NULL;
    }
    (void)close(fd);
    vcpu_init_signals();
    return argv[1];
}
