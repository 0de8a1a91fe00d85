/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "core/std_fds.h"
#include "tools/chsnap/chsnap.h"

static const struct chsnap_command *const commands[] = {
    &chsnap_create, &chsnap_restore, &chsnap_clone, &chsnap_list, &chsnap_show,  &chsnap_diff,
    &chsnap_map,    &chsnap_dump,    &chsnap_tag,   &chsnap_rm,   &chsnap_prune, &chsnap_verify,
    &chsnap_export, &chsnap_import,  &chsnap_copy,  &chsnap_gc,   &chsnap_stats,
};

static void print_overview(void)
{
    (void)puts("Usage: chsnap [OPTION...] COMMAND [ARGUMENT...]\n"
               "\n"
               "Works with a store: a directory that holds snapshots of virtual machines,\n"
               "deduplicated, compressed and verified.  Every snapshot is complete.\n"
               "\n"
               "Commands:");
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        (void)printf("  %-10s %s\n", commands[i]->name, commands[i]->summary);
    (void)puts(
        "\n"
        "\"chsnap COMMAND --help\" tells more of each.\n"
        "\n"
        "Options:\n"
        "  -s, --store STORE    the store; also from CHSNAP_STORE; else the first argument.\n"
        "                       A directory, or a URL: store:/path#snapshot\n"
        "  -j, --json           print JSON\n"
        "      --color WHEN     always, never, or auto\n"
        "  -h, --help           this text\n"
        "  -V, --version        print the version\n"
        "\n"
        "Exit status: 0 done; 1 failed, or damage was found; 2 the command line is wrong.");
}

static const struct chsnap_command *command_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

/* Options in front of the command; -1 to go on, or the exit code. */
static int global_options(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {
        {"store",      required_argument, NULL, 's'},
        {"json",        no_argument, NULL, 'j'},
        {"color",            required_argument, NULL, 'c'},
        {"help",no_argument, NULL, 'h'},
        {"version",         no_argument, NULL, 'V'},
        {0     },
    };
    int opt;

    /* "+": stop at the command.  NOLINTNEXTLINE(concurrency-mt-unsafe) */
    while ((opt = getopt_long(argc, argv, "+s:jhV", longs, NULL)) != -1) {
        switch (opt) {
        case 's':
            c->store_text = optarg;
            c->store_from_env = false;
            break;
        case 'j':
            c->json = true;
            break;
        case 'c':
            if (!chsnap_take_color(c, optarg))
                return CHSNAP_USAGE;
            break;
        case 'h':
            print_overview();
            return CHSNAP_OK;
        case 'V':
            (void)puts("chsnap " CHRYSALIS_VERSION);
            return CHSNAP_OK;
        default:
            (void)fputs("Try \"chsnap --help\".\n", stderr);
            return CHSNAP_USAGE;
        }
    }
    return -1;
}

static int run(struct chsnap *c, int argc, char **argv)
{
    int rc = global_options(c, argc, argv);

    if (rc >= 0)
        return rc;
    argc -= optind;
    argv += optind;
    if (!argc)
        return chsnap_usage_error(c, "no command");
    if (strcmp(argv[0], "help") == 0) {
        c->command = argc > 1 ? command_find(argv[1]) : NULL;
        if (argc > 1 && !c->command)
            return chsnap_usage_error(c, "no such command: \"%s\"", argv[1]);
        if (argc > 2)
            return chsnap_usage_error(c, "\"%s\": help is of one command", argv[2]);
        if (c->command)
            chsnap_print_help(c);
        else
            print_overview();
        return CHSNAP_OK;
    }
    c->command = command_find(argv[0]);
    if (!c->command)
        return chsnap_usage_error(c, "no such command: \"%s\"", argv[0]);
    (void)snprintf(c->title, sizeof(c->title), "chsnap %s", c->command->name);
    argv[0] = c->title; /* what getopt calls us */
    optind = 0;         /* start again, behind the command */
    return c->command->run(c, argc, argv);
}

int main(int argc, char **argv)
{
    /* NOLINTBEGIN(concurrency-mt-unsafe): there is one thread */
    const char *no_color = getenv("NO_COLOR"), *store = getenv("CHSNAP_STORE");
    /* NOLINTEND(concurrency-mt-unsafe) */
    bool plain = no_color && no_color[0];
    struct chsnap c = {
        .store_text = store && store[0] ? store : NULL,
        .store_from_env = true,
        .colour = !plain && isatty(STDOUT_FILENO),
        .colour_err = !plain && isatty(STDERR_FILENO),
        .progress = isatty(STDERR_FILENO),
    };
    int rc = std_fds_fill();

    if (rc < 0)
        return CHSNAP_FAILED; /* and nothing to say it by */
    rc = run(&c, argc, argv);
    store_close(c.st);
    if (!chsnap_out_is_good() && rc == CHSNAP_OK)
        rc = chsnap_error(&c, "standard output: %m");
    return rc;
}
