/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>

#include <stdio.h>
#include <string.h>

#include "tools/chsnap/chsnap.h"

enum {
    OPT_COLOR = 0x1000, /* beyond any letter and any subcommand's own */
};

static const char common_help[] =
    "\nOptions of every command:\n"
    "  -s, --store STORE    the store; also from the environment variable CHSNAP_STORE.\n"
    "                       A directory, or a URL: store:/path#snapshot, file:///directory\n"
    "  -j, --json           print JSON\n"
    "      --color WHEN     always, never, or auto (on a terminal, unless NO_COLOR is set)\n"
    "  -h, --help           this text\n";

static const struct option common_options[] = {
    {"store", required_argument, NULL, 's'      },
    {"json",  no_argument,       NULL, 'j'      },
    {"color", required_argument, NULL, OPT_COLOR},
    {"help",  no_argument,       NULL, 'h'      },
};

void chsnap_print_help(const struct chsnap *c)
{
    (void)printf("Usage: chsnap %s %s\n\n%s%s", c->command->name, c->command->usage,
                 c->command->help, common_help);
}

int chsnap_usage_error(const struct chsnap *c, const char *fmt, ...)
{
    char text[2 * ERR_MSG_SIZE];
    va_list ap;

    (void)fprintf(stderr, "chsnap%s%s: ", c->command ? " " : "",
                  c->command ? c->command->name : "");
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    chsnap_put_text(stderr, text);
    (void)fprintf(stderr, "\nTry \"chsnap%s%s --help\".\n", c->command ? " " : "",
                  c->command ? c->command->name : "");
    return CHSNAP_USAGE;
}

bool chsnap_take_color(struct chsnap *c, const char *when)
{
    if (strcmp(when, "auto") == 0)
        return true;
    if (strcmp(when, "always") != 0 && strcmp(when, "never") != 0) {
        (void)chsnap_usage_error(c, "--color: \"%s\" is none of always, never, auto", when);
        return false;
    }
    c->colour = c->colour_err = strcmp(when, "always") == 0;
    return true;
}

static int common_option(struct chsnap *c, int opt)
{
    switch (opt) {
    case 's':
        c->store_text = optarg;
        c->store_from_env = false;
        return 0;
    case 'j':
        c->json = true;
        return 0;
    case OPT_COLOR:
        return chsnap_take_color(c, optarg) ? 0 : '?';
    case 'h':
        chsnap_print_help(c);
        return 'h';
    default:
        (void)fprintf(stderr, "Try \"chsnap %s --help\".\n", c->command->name);
        return '?';
    }
}

int chsnap_getopt(struct chsnap *c, int argc, char **argv, const char *shorts,
                  const struct option *longs)
{
    struct option all[CHSNAP_OPTIONS_MAX + ARRAY_LEN(common_options) + 1] = {0};
    char letters[2 * CHSNAP_OPTIONS_MAX];
    size_t n = 0;
    int opt, rc;

    (void)snprintf(letters, sizeof(letters), "s:jh%s", shorts);
    for (; n < CHSNAP_OPTIONS_MAX && longs[n].name; n++)
        all[n] = longs[n];
    memcpy(all + n, common_options, sizeof(common_options));
    for (;;) {
        /* Parsed before the program has a second thread. */
        opt = getopt_long(argc, argv, letters, all, NULL); /* NOLINT(concurrency-mt-unsafe) */
        if (opt != 's' && opt != 'j' && opt != 'h' && opt != OPT_COLOR && opt != '?')
            return opt;
        rc = common_option(c, opt);
        if (rc)
            return rc;
    }
}

int chsnap_option_end(int opt)
{
    return opt == 'h' ? CHSNAP_OK : CHSNAP_USAGE;
}

/* Names may have colons, but no slashes. */
static bool is_written_out(const char *text)
{
    return strchr(text, '/') || strncmp(text, "store:", 6) == 0 || strncmp(text, "file:", 5) == 0;
}

int chsnap_take_store(struct chsnap *c, char ***args)
{
    const char *text = c->store_text;
    struct err err = {0};

    /* A store in the environment gives way to one that is written out. */
    if (**args && (!text || (c->store_from_env && is_written_out(**args)))) {
        text = **args;
        ++*args;
    }
    if (!text)
        return chsnap_usage_error(c, "no store: name one, use --store or set CHSNAP_STORE");
    if (store_url_parse(text, &c->url, &err) < 0)
        return chsnap_usage_error(c, "%s", err.msg);
    return CHSNAP_OK;
}

int chsnap_open(struct chsnap *c, unsigned flags, char ***args)
{
    struct err err = {0};
    int rc = chsnap_take_store(c, args);

    if (rc != CHSNAP_OK)
        return rc;
    if (store_open(c->url.path, flags, &c->st, &err) < 0)
        return chsnap_error(c, "%s", err.msg);
    return CHSNAP_OK;
}

int chsnap_only_store(const struct chsnap *c, char **args)
{
    if (*args)
        return chsnap_usage_error(c, "\"%s\": %s takes only a store", *args, c->command->name);
    if (c->url.snapshot[0])
        return chsnap_usage_error(c, "#%s: %s takes only a store", c->url.snapshot,
                                  c->command->name);
    return CHSNAP_OK;
}

int chsnap_one_snapshot(struct chsnap *c, char **args, const char **ret_ref)
{
    const char *ref = c->url.snapshot[0] ? c->url.snapshot : *args;

    if (!ref)
        return chsnap_usage_error(c, "no snapshot: give a name, the beginning of an id, or a tag");
    if (c->url.snapshot[0] ? args[0] != NULL : args[1] != NULL)
        return chsnap_usage_error(c, "more than one snapshot");
    *ret_ref = ref;
    return CHSNAP_OK;
}
