/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tools/chvmm/options.h"

enum {
    ARGS_MAX = 40,
    LINE_MAX_LEN = 512,
};

/* Split a line at '|' and parse it; what was printed goes to @ret_out, if wanted. */
static int parse(const char *line, struct chvmm_options *opts, char **ret_out, struct err *err)
{
    char words[LINE_MAX_LEN], *argv[ARGS_MAX] = {words}, *out = NULL;
    size_t out_len = 0;
    FILE *f = open_memstream(&out, &out_len);
    int argc = 0, rc;

    assert_non_null(f);
    (void)snprintf(words, sizeof(words), "%s", line);
    for (char *word = words; word; argc++) {
        assert_true(argc < ARGS_MAX);
        argv[argc] = word;
        word = strchr(word, '|');
        if (word)
            *word++ = 0;
    }
    rc = chvmm_options_parse(argc, argv, f, opts, err);
    (void)fclose(f);
    if (ret_out)
        *ret_out = out;
    else
        free(out);
    return rc;
}

static void test_a_whole_command_line(void **state)
{
    struct chvmm_options opts = {0};
    struct err err = {0};

    (void)state;
    if (parse("chvmm|--kernel|/k|--disk|path=/a|path=/b,readonly=on|--net|tap=|--cpus|boot=4|"
              "--disk=path=/c|--memory|size=1024M|--rng|src=/dev/random|-vv|--no-shutdown|"
              "--api-socket|/s|--event-monitor|path=/e|--log-file|/l|--seccomp|log",
              &opts, NULL, &err))
        fail_msg("%s", err.msg);
    assert_true(opts.has_vm && !opts.has_restore && opts.no_shutdown);
    assert_int_equal(opts.config.nr_disks, 3);
    assert_string_equal(opts.config.disks[1].path, "/b");
    assert_true(opts.config.disks[1].readonly);
    assert_string_equal(opts.config.disks[2].id, "_disk2");
    assert_int_equal(opts.config.memory.size, GIB(1));
    assert_int_equal(opts.config.cpus.max_vcpus, 4);
    assert_int_equal(opts.log_level, LOG_DEBUG);
    assert_int_equal(opts.seccomp, CHVMM_SECCOMP_LOG);
    assert_string_equal(opts.api_socket_path, "/s");
    assert_string_equal(opts.event_monitor_path, "/e");
    assert_string_equal(opts.log_file, "/l");
    chvmm_options_release(&opts);
}

static void test_ways_to_start_without_a_kernel(void **state)
{
    struct chvmm_options opts = {0};
    struct err err = {0};

    (void)state;
    assert_int_equal(parse("chvmm|--api-socket|fd=5", &opts, NULL, &err), 0);
    assert_false(opts.has_vm);
    assert_int_equal(opts.api_socket_fd, 5);
    assert_null(opts.api_socket_path);
    assert_int_equal(opts.end_with_fd, -1);
    chvmm_options_release(&opts);
    assert_int_equal(parse("chvmm|--api-socket|/s|--end-with|fd=3", &opts, NULL, &err), 0);
    assert_int_equal(opts.end_with_fd, 3);
    chvmm_options_release(&opts);
    assert_int_equal(parse("chvmm|--restore|source_url=store:/s#a,resume=on", &opts, NULL, &err),
                     0);
    assert_true(opts.has_restore && opts.restore.resume && !opts.has_vm);
    assert_string_equal(opts.restore.source_url, "store:/s#a");
    chvmm_options_release(&opts);
}

static void test_wrong_lines_are_refused_by_name(void **state)
{
    /* clang-format off */
    static const struct {
        const char *line;
        int rc;
        const char *msg;
    } rows[] = {
        {"chvmm", -EINVAL, "nothing to do"},
        {"chvmm|-v", -EINVAL, "nothing to do"},
        {"chvmm|--cpus|boot=2", -EINVAL, "--kernel: is missing"},
        {"chvmm|--kernel", -EINVAL, "--kernel: needs a value, <file>"},
        {"chvmm|--kernel|/a|--kernel|/b", -EINVAL, "--kernel: is there twice"},
        {"chvmm|--kernel|/a|/b", -EINVAL, "'/b': no option takes this"},
        {"chvmm|/b", -EINVAL, "'/b': no option takes this"},
        {"chvmm|--disk|path=/a|--no-shutdown|path=/b", -EINVAL, "'path=/b': no option"},
        {"chvmm|--", -EINVAL, "'--': no option takes this"},
        {"chvmm|--kernal|/a", -EINVAL, "--kernal: unknown option"},
        {"chvmm|--kern|/a", -EINVAL, "--kern: unknown option"},
        {"chvmm|-x", -EINVAL, "-x: unknown option"},
        {"chvmm|--end-with|3", -EINVAL, "--end-with: must be fd=<number>"},
        {"chvmm|--end-with|fd=", -EINVAL, "--end-with: must be fd=<number>"},
        {"chvmm|--end-with|fd=3|--end-with|fd=4", -EINVAL, "--end-with: is there twice"},
        {"chvmm|--no-shutdown=1", -EINVAL, "--no-shutdown: takes no value"},
        {"chvmm|--kernel|/k|--disk|path=/a,queue_size=3", -EINVAL,
         "disks[0].queue_size: 3 is not a power of two"},
        {"chvmm|--kernel|/k|--cpus|boot=2|--cpus|max=4", -EINVAL, "--cpus: is there twice"},
        {"chvmm|--kernel|/k|--vsock|cid=3,socket=/a", -ENOTSUP, "--vsock: not supported yet"},
        {"chvmm|--firmware=/f", -ENOTSUP, "--firmware: not supported yet"},
        {"chvmm|--watchdog", -ENOTSUP, "--watchdog: not supported yet"},
        {"chvmm|--kernel|/k|--restore|source_url=file:///a", -EINVAL, "--restore: not possible"},
        {"chvmm|--restore|resume=on", -EINVAL, "--restore: source_url: is missing"},
        {"chvmm|--seccomp|maybe", -EINVAL, "--seccomp: must be one of"},
        {"chvmm|--api-socket|file=/a", -EINVAL, "--api-socket: unknown key 'file'"},
        {"chvmm|--api-socket|fd=x", -EINVAL, "--api-socket fd: 'x' is not"},
        {"chvmm|--api-socket|/a|--api-socket|/b", -EINVAL, "--api-socket: is there twice"},
        {"chvmm|--event-monitor|/a", -EINVAL, "--event-monitor: must be path="},
    };
    /* clang-format on */

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct chvmm_options opts = {0};
        struct err err = {0};
        int rc = parse(rows[i].line, &opts, NULL, &err);

        if (rc != rows[i].rc || strncmp(err.msg, rows[i].msg, strlen(rows[i].msg)) != 0)
            fail_msg("%s: %d '%s', not '%s'", rows[i].line, rc, err.msg, rows[i].msg);
    }
}

static void test_help_and_version_are_printed(void **state)
{
    struct chvmm_options opts = {0};
    char *out = NULL;

    (void)state;
    assert_int_equal(parse("chvmm|--help", &opts, &out, NULL), 1);
    assert_non_null(strstr(out, "--memory-zone <zone>..."));
    assert_non_null(strstr(out, "  -v, --verbose"));
    assert_null(strstr(out, "--balloon"));
    for (char *line = out; *line; line = strchr(line, '\n') + 1)
        assert_true(strcspn(line, "\n") <= 100);
    free(out);
    assert_int_equal(parse("chvmm|-V", &opts, &out, NULL), 1);
    assert_string_equal(out, "chvmm " CHRYSALIS_VERSION "\n");
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_whole_command_line),
        cmocka_unit_test(test_ways_to_start_without_a_kernel),
        cmocka_unit_test(test_wrong_lines_are_refused_by_name),
        cmocka_unit_test(test_help_and_version_are_printed),
    };

    return cmocka_run_group_tests_name("chvmm_options", tests, NULL, NULL);
}
