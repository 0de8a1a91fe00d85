/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers and errors, for people and for scripts.
 */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "core/json_get.h"
#include "tools/chctl/chctl.h"

/* Text of the VM: it must not command the terminal. */
static void put_text(FILE *out, const char *text)
{
    for (; *text; text++)
        (void)fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, out);
}

static void put_head(void)
{
    const char *no_color = getenv("NO_COLOR");
    bool colour = isatty(STDERR_FILENO) && !(no_color && *no_color);

    (void)fprintf(stderr, "%sError:%s chctl exited with the following chain of errors:\n",
                  colour ? "\033[31m" : "", colour ? "\033[0m" : "");
}

static void put_cause(unsigned i, const char *text)
{
    (void)fprintf(stderr, "  %u: ", i);
    put_text(stderr, text);
    (void)fputc('\n', stderr);
}

int chctl_complain(int exit_code, const struct err *err)
{
    put_head();
    put_cause(0, err->msg[0] ? err->msg : strerror(-err->code));
    return exit_code;
}

/* The chain in an error's body; false if it is none. */
static bool put_chain(const struct http_response *res, unsigned first)
{
    struct json_object *chain = NULL;
    unsigned n = 0;

    if (json_parse(res->body, res->body_len, &chain, NULL))
        return false;
    for (size_t i = 0;
         json_object_is_type(chain, json_type_array) && i < json_object_array_length(chain); i++) {
        struct json_object *cause = json_object_array_get_idx(chain, i);

        if (json_object_is_type(cause, json_type_string))
            put_cause(first + n++, json_object_get_string(cause));
    }
    json_object_put(chain);
    return n;
}

int chctl_report(const struct http_response *res)
{
    char status[64];

    if (res->status >= 200 && res->status < 300) {
        if (res->body_len) {
            (void)fwrite(res->body, 1, res->body_len, stdout);
            (void)fputc('\n', stdout);
        }
        return fflush(stdout) ? CHCTL_FAILED : CHCTL_OK;
    }
    put_head();
    (void)snprintf(status, sizeof(status), "The VMM answered with status %u", res->status);
    put_cause(0, status);
    if (!put_chain(res, 1) && res->body_len)
        put_cause(1, res->body);
    return CHCTL_FAILED;
}
