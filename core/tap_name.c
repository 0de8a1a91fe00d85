/* SPDX-License-Identifier: Apache-2.0 */
#include "core/tap_name.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum tap_name_is tap_name_look(const char *name)
{
    char path[80], state = '0';
    auto_close int fd = -1;

    if (strchr(name, '/'))
        return TAP_NAME_FREE;
    (void)snprintf(path, sizeof(path), "/sys/class/net/%.16s", name);
    if (access(path, F_OK) < 0)
        return TAP_NAME_FREE;
    (void)snprintf(path, sizeof(path), "/sys/class/net/%.16s/tun_flags", name);
    if (access(path, F_OK) < 0)
        return TAP_NAME_OTHER;
    /* A tap has a carrier while a process has it. */
    (void)snprintf(path, sizeof(path), "/sys/class/net/%.16s/carrier", name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && read(fd, &state, 1) == 1 && state == '1' ? TAP_NAME_BUSY : TAP_NAME_FREE;
}
