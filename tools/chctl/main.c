/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "core/std_fds.h"
#include "tools/chctl/chctl.h"

struct command_line {
    const char *socket_path; /* NULL: not given */
    bool help;
    bool version;
    int command; /* index of the first word that is no option; argc: none */
};

static int parse_options(int argc, char *const argv[], struct command_line *line, struct err *err)
{
    static const char option[] = "--api-socket";
    int i = 1;

    for (; i < argc && argv[i][0] == '-'; i++) {
        if (!strcmp(argv[i], option) && i + 1 < argc)
            line->socket_path = argv[++i];
        else if (!strncmp(argv[i], option, sizeof(option) - 1) &&
                 argv[i][sizeof(option) - 1] == '=')
            line->socket_path = argv[i] + sizeof(option);
        else if (!strcmp(argv[i], "-h") || !strcmp(argv[i], "--help"))
            line->help = true;
        else if (!strcmp(argv[i], "-V") || !strcmp(argv[i], "--version"))
            line->version = true;
        else
            return err_set(err, -EINVAL, "%.64s: %s (see --help)", argv[i],
                           strcmp(argv[i], option) ? "unknown option" : "needs a path");
    }
    line->command = i;
    return 0;
}

static bool wants_help(int argc, char *const argv[])
{
    for (int i = 0; i < argc; i++)
        if (!strcmp(argv[i], "-h") || !strcmp(argv[i], "--help"))
            return true;
    return false;
}

static int print_help(const char *name)
{
    struct err err = {0};

    if (!chctl_print_help(stdout, name))
        return CHCTL_OK;
    (void)err_set(&err, -EINVAL, "%.64s: unknown command (see --help)", name);
    return chctl_complain(CHCTL_USAGE, &err);
}

static int run(int argc, char *const argv[], const char *socket_path)
{
    struct chctl_call call = {0};
    struct http_response res = {0};
    struct err err = {0};
    int code;

    if (chctl_call_parse(argc, argv, &call, &err))
        return chctl_complain(CHCTL_USAGE, &err);
    if (!socket_path || !*socket_path) {
        (void)err_set(&err, -EINVAL, "--api-socket: is missing (see --help)");
        code = chctl_complain(CHCTL_USAGE, &err);
    } else if (call.follow) {
        code = chctl_follow(&call, socket_path);
    } else if (chctl_call_send(&call, socket_path, &res, &err)) {
        code = chctl_complain(CHCTL_FAILED, &err);
    } else {
        code = chctl_report(&res);
        if (code == CHCTL_OK && call.plot)
            code = chctl_plot(call.plot, &res);
    }
    http_response_release(&res);
    chctl_call_release(&call);
    return code;
}

int main(int argc, char *argv[])
{
    struct command_line line = {0};
    struct err err = {0};
    char *const *words;
    int nr;

    if (std_fds_fill() < 0)
        return CHCTL_FAILED;
    if (parse_options(argc, argv, &line, &err))
        return chctl_complain(CHCTL_USAGE, &err);
    words = argv + line.command;
    nr = argc - line.command;
    if (line.version) {
        (void)printf("chctl %s\n", CHRYSALIS_VERSION);
        return CHCTL_OK;
    }
    if (line.help)
        return print_help(nr ? words[0] : NULL);
    if (!nr)
        return chctl_print_help(stderr, NULL) ? CHCTL_FAILED : CHCTL_USAGE;
    if (!strcmp(words[0], "help"))
        return print_help(nr > 1 ? words[1] : NULL);
    if (wants_help(nr - 1, words + 1))
        return print_help(words[0]);
    return run(nr, words, line.socket_path ? line.socket_path : getenv("CHCTL_API_SOCKET"));
}
