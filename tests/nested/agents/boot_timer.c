/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a command and says how long it took until its output held a marker: from exec to a line of
 * the guest's serial port, without a process in between.  Then kills the command.
 */
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "tests/nested/agents/load_status.h"

enum {
    OUTPUT_MAX = 1 << 20,
    MARKER_ARG = 1,
    TIMEOUT_ARG = 2,
    COMMAND_ARG = 3,
};

/* Reads until @marker has come; the time of that, or -1 at the deadline or the end. */
static int64_t wait_marker(int fd, const char *marker, int64_t deadline_ns, char *out, size_t *len)
{
    for (;;) {
        int64_t left_ns = deadline_ns - load_now_ns(CLOCK_MONOTONIC);
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        ssize_t n;

        if (left_ns <= 0 || *len == OUTPUT_MAX)
            return -1;
        if (poll(&pfd, 1, (int)(left_ns / 1000000) + 1) <= 0)
            continue;
        n = read(fd, out + *len, OUTPUT_MAX - *len);
        if (n <= 0)
            return -1;
        *len += (size_t)n;
        out[*len] = '\0';
        if (memmem(out, *len, marker, strlen(marker)))
            return load_now_ns(CLOCK_MONOTONIC);
    }
}

int main(int argc, char **argv)
{
    static char out[OUTPUT_MAX + 1];
    size_t len = 0;
    int64_t start_ns;
    int64_t end_ns;
    int pipe_fds[2];
    pid_t pid;

    if (argc <= COMMAND_ARG) {
        fprintf(stderr, "usage: boot_timer MARKER TIMEOUT_MS COMMAND [ARGUMENT...]\n");
        return 2;
    }
    if (pipe(pipe_fds)) {
        perror("pipe");
        return 1;
    }
    start_ns = load_now_ns(CLOCK_MONOTONIC);
    pid = fork();
    if (pid == 0) {
        (void)dup2(pipe_fds[1], 1);
        (void)dup2(pipe_fds[1], 2);
        (void)close(pipe_fds[0]);
        (void)close(pipe_fds[1]);
        execv(argv[COMMAND_ARG], argv + COMMAND_ARG);
        _exit(127);
    }
    (void)close(pipe_fds[1]);
    end_ns = wait_marker(pipe_fds[0], argv[MARKER_ARG],
                         start_ns + strtol(argv[TIMEOUT_ARG], NULL, 10) * 1000000, out, &len);
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    if (end_ns < 0) {
        fprintf(stderr, "boot_timer: no '%s':\n%s\n", argv[MARKER_ARG], out);
        return 1;
    }
    printf("ms=%.1f\n", (double)(end_ns - start_ns) / 1e6);
    return 0;
}
