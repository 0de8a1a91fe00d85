/* SPDX-License-Identifier: Apache-2.0 */
/* One line of what the kernel gives out as random: from getrandom() and from /dev/urandom. */
#include <fcntl.h>
#include <sys/random.h>

#include "tests/nested/agents/load_status.h"

enum {
    RANDOM_LEN = 32,
};

static void show(const char *name, const uint8_t bytes[RANDOM_LEN])
{
    printf("%s=", name);
    for (size_t i = 0; i < RANDOM_LEN; i++)
        printf("%02x", bytes[i]);
}

int main(void)
{
    uint8_t call[RANDOM_LEN];
    uint8_t device[RANDOM_LEN];
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);

    if (getrandom(call, sizeof(call), 0) != RANDOM_LEN) {
        perror("getrandom");
        return 1;
    }
    if (fd < 0 || read(fd, device, sizeof(device)) != RANDOM_LEN) {
        perror("/dev/urandom");
        return 1;
    }
    (void)close(fd);
    show("getrandom", call);
    show(" urandom", device);
    printf("\n");
    return 0;
}
