/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program itself, run against an API server that notes what was asked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/api/api_server.h"

enum {
    TEXT_MAX = 16 << 10,
    ARGS_MAX = 16,
};

extern char **environ;

struct fixture {
    struct api_server *srv;
    char dir[32], path[64];
    char asked[TEXT_MAX]; /* "path body" */
    unsigned nr_fds;
    ino_t fd_ino;
    unsigned nr_asked;
};

struct output {
    int code;
    char out[TEXT_MAX], err[TEXT_MAX];
};

/* Orders what the server's thread notes and what the test reads between two runs of chctl. */
static _Atomic unsigned nr_noted;

static void note(struct fixture *fix, struct api_request *req)
{
    size_t len;
    const char *body = api_request_body(req, &len);
    int fds[API_FDS_MAX];
    struct stat st;

    (void)atomic_load(&nr_noted); /* pairs with the test's before posix_spawn() */
    (void)snprintf(fix->asked, sizeof(fix->asked), "%s%s%s", api_request_path(req), len ? " " : "",
                   body);
    fix->nr_fds = api_request_take_fds(req, fds);
    for (unsigned i = 0; i < fix->nr_fds; i++) {
        if (!fstat(fds[i], &st))
            fix->fd_ino = st.st_ino;
        (void)close(fds[i]);
    }
    fix->nr_asked++;
    nr_noted++; /* pairs with the test's read after waitpid() */
}

static void fn_done(void *arg, struct api_request *req)
{
    note(arg, req);
    api_reply_done(req);
}

static void fn_answer(void *arg, struct api_request *req)
{
    note(arg, req);
    api_reply(req, 200, "{\"a\":1}", 7);
}

static void fn_refuse(void *arg, struct api_request *req)
{
    struct err err = {.msg = "\033[31mthe VM is running"};

    note(arg, req);
    api_reply_error(req, 500, -EPERM, "The VM could not boot", &err);
}

/* One that has not begun at the first two questions, and fails once it was completed. */
static void fn_wait(void *arg, struct api_request *req)
{
    static const char *const answers[] = {
        "{\"phase\":\"idle\"}",
        "{\"phase\":\"idle\"}",
        "{\"phase\":\"done\",\"result\":\"completed\"}",
        "{\"phase\":\"done\",\"result\":\"failed\"}",
    };
    struct fixture *fix = arg;
    const char *text = answers[fix->nr_asked < 3 ? fix->nr_asked : 3];

    note(fix, req);
    api_reply(req, 200, text, strlen(text));
}

static const struct api_route routes[] = {
    {"vmm.ping",              API_GET, 0,        fn_answer},
    {"vm.pause",              API_PUT, 0,        fn_done  },
    {"vm.boot",               API_PUT, 0,        fn_refuse},
    {"vm.create",             API_PUT, API_BODY, fn_done  },
    {"vm.snapshot",           API_PUT, API_BODY, fn_done  },
    {"vm.restore",            API_PUT, API_BODY, fn_done  },
    {"vm.send-migration",     API_PUT, API_BODY, fn_done  },
    {"vm.receive-migration",  API_PUT, API_BODY, fn_done  },
    {"vm.add-net",            API_PUT, API_BODY, fn_done  },
    {"vm.add-disk",           API_PUT, API_BODY, fn_answer},
    {"vm.resize",             API_PUT, API_BODY, fn_done  },
    {"vm.resize-disk",        API_PUT, API_BODY, fn_done  },
    {"vm.remove-device",      API_PUT, API_BODY, fn_done  },
    {"vm.migration-progress", API_GET, 0,        fn_answer},
    {"vm.migration-wait",     API_GET, 0,        fn_wait  },
    {"vmm.shutdown",          API_PUT, 0,        fn_done  },
};

static int setup(void **state)
{
    struct fixture *fix = calloc(1, sizeof(*fix));
    struct api_server_config config = {.socket_fd = -1, .routes = routes, .arg = fix};

    if (!fix)
        return -1;
    (void)snprintf(fix->dir, sizeof(fix->dir), "/tmp/test_chctl.XXXXXX");
    if (!mkdtemp(fix->dir))
        return -1;
    (void)snprintf(fix->path, sizeof(fix->path), "%s/api.sock", fix->dir);
    config.nr_routes = ARRAY_LEN(routes);
    config.socket_path = fix->path;
    *state = fix;
    return api_server_open(&config, &fix->srv, NULL) < 0 ? -1 : api_server_start(fix->srv, NULL);
}

static int teardown(void **state)
{
    struct fixture *fix = *state;

    api_server_stop(fix->srv);
    (void)rmdir(fix->dir);
    free(fix);
    return 0;
}

/* What a child wrote into a file, from its beginning. */
static void read_back(int fd, char *text)
{
    ssize_t n = pread(fd, text, TEXT_MAX - 1, 0);

    assert_true(n >= 0);
    text[n] = 0;
    (void)close(fd);
}

static int temporary(void)
{
    int fd = memfd_create("test_chctl", MFD_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

/* Run chctl with the words of a line, split at '|'; @input becomes its standard input. */
static void run(const char *line, const char *input, struct output *o)
{
    char words[TEXT_MAX], *argv[ARGS_MAX + 1] = {(char *)(uintptr_t)CHCTL}, *rest = words;
    int in = temporary(), out = temporary(), err = temporary(), argc = 1, status = 0;
    posix_spawn_file_actions_t actions;
    pid_t pid;

    (void)snprintf(words, sizeof(words), "%s", line);
    while (*line && rest) {
        assert_true(argc < ARGS_MAX);
        argv[argc++] = strsep(&rest, "|");
    }
    assert_int_equal(pwrite(in, input, strlen(input), 0), strlen(input));
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&actions, in, 0), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&actions, out, 1), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&actions, err, 2), 0);
    nr_noted++; /* pairs with the start of note() */
    assert_int_equal(posix_spawn(&pid, CHCTL, &actions, NULL, argv, environ), 0);
    (void)posix_spawn_file_actions_destroy(&actions);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    (void)atomic_load(&nr_noted); /* pairs with the end of note() */
    assert_true(WIFEXITED(status));
    o->code = WEXITSTATUS(status);
    (void)close(in);
    read_back(out, o->out);
    read_back(err, o->err);
}

static void test_commands_become_requests(void **state)
{
    /* clang-format off */
    static const struct {
        const char *line, *input, *asked, *out;
    } rows[] = {
        {"ping", "", "vmm.ping", "{\"a\":1}\n"},
        {"pause", "", "vm.pause", ""},
        {"shutdown-vmm", "", "vmm.shutdown", ""},
        {"create", "{\"payload\":{}}", "vm.create {\"payload\":{}}", ""},
        {"create|-", "{}", "vm.create {}", ""},
        {"snapshot|store:/a#b", "",
         "vm.snapshot {\"destination_url\":\"store:/a#b\",\"mode\":\"Auto\",\"track\":false}", ""},
        {"restore|source_url=file:///a,resume=on", "",
         "vm.restore {\"source_url\":\"file:///a\",\"prefault\":false,\"resume\":true,",
         ""},
        {"send-migration|destination_url=tcp:h:1,downtime_ms=9,timeout_strategy=ignore", "",
         "vm.send-migration {\"destination_url\":\"tcp:h:1\",\"local\":false,"
         "\"preserve_source\":false,\"downtime_ms\":9,\"timeout_s\":3600,"
         "\"timeout_strategy\":\"Ignore\","
         "\"memory_mode\":\"Precopy\"}", ""},
        {"send-migration|destination_url=unix:/m,local=on", "",
         "vm.send-migration {\"destination_url\":\"unix:/m\",\"local\":true,", ""},
        {"receive-migration|receiver_url=tcp:h:1,tls_dir=/t", "",
         "vm.receive-migration {\"receiver_url\":\"tcp:h:1\",\"tls_dir\":\"/t\","
         "\"memory_mode\":\"Precopy\"}", ""},
        {"receive-migration|receiver_url=unix:/m,memory_size=1G", "",
         "vm.receive-migration {\"receiver_url\":\"unix:/m\",\"memory_size\":1073741824,"
         "\"memory_mode\":\"Precopy\"}", ""},
        {"receive-migration|receiver_url=unix:/m,failure_strategy=exit", "",
         "vm.receive-migration {\"receiver_url\":\"unix:/m\",\"failure_strategy\":\"Exit\","
         "\"memory_mode\":\"Precopy\"}", ""},
        {"resize|--cpus|4|--memory=2G", "",
         "vm.resize {\"desired_vcpus\":4,\"desired_ram\":2147483648}", ""},
        {"resize-disk|--disk|_disk0|--size|1G", "",
         "vm.resize-disk {\"id\":\"_disk0\",\"desired_size\":1073741824}", ""},
        {"remove-device|_disk0", "", "vm.remove-device {\"id\":\"_disk0\"}", ""},
    };
    /* clang-format on */
    static struct output o;
    struct fixture *fix = *state;
    char line[512];

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        (void)snprintf(line, sizeof(line), "--api-socket|%s|%s", fix->path, rows[i].line);
        run(line, rows[i].input, &o);
        if (o.code || strncmp(fix->asked, rows[i].asked, strlen(rows[i].asked)) ||
            strcmp(o.out, rows[i].out) || o.err[0])
            fail_msg("%s: %d, asked '%s', out '%s', err '%s'", rows[i].line, o.code, fix->asked,
                     o.out, o.err);
    }
}

static void test_a_device_is_what_the_command_line_says(void **state)
{
    static struct output o;
    struct fixture *fix = *state;
    char line[512];

    (void)snprintf(line, sizeof(line), "--api-socket=%s|add-disk|path=/d,readonly=on", fix->path);
    run(line, "", &o);
    assert_int_equal(o.code, 0);
    assert_string_equal(o.out, "{\"a\":1}\n");
    assert_int_equal(strncmp(fix->asked, "vm.add-disk {\"path\":\"/d\",\"readonly\":true,", 40), 0);
}

static void test_descriptors_are_handed_over(void **state)
{
    static struct output o;
    struct fixture *fix = *state;
    struct stat st;
    char line[512];
    int fd = memfd_create("test_chctl", 0);

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    (void)snprintf(line, sizeof(line), "--api-socket|%s|add-net|fd=[%d,%d]", fix->path, fd, fd);
    run(line, "", &o);
    assert_int_equal(o.code, 0);
    assert_int_equal(fix->nr_fds, 2);
    assert_int_equal(fix->fd_ino, st.st_ino);
    assert_non_null(strstr(fix->asked, "\"fds\":[-1,-1]"));
    (void)close(fd);
}

static void test_a_refusal_is_a_chain_on_standard_error(void **state)
{
    static struct output o;
    struct fixture *fix = *state;
    char line[256];

    (void)snprintf(line, sizeof(line), "--api-socket|%s|boot", fix->path);
    run(line, "", &o);
    assert_int_equal(o.code, 1);
    assert_string_equal(o.out, "");
    assert_string_equal(o.err, "Error: chctl exited with the following chain of errors:\n"
                               "  0: The VMM answered with status 500\n"
                               "  1: Error from API\n"
                               "  2: The VM could not boot\n"
                               "  3: ?[31mthe VM is running\n");
}

static void test_a_migration_is_followed_to_its_end(void **state)
{
    static struct output o;
    struct fixture *fix = *state;
    char line[256];

    (void)snprintf(line, sizeof(line), "--api-socket|%s|migration-progress|--follow", fix->path);
    run(line, "", &o);
    assert_int_equal(o.code, 0);
    assert_int_equal(fix->nr_asked, 3);
    assert_string_equal(o.out, "{\"phase\":\"done\",\"result\":\"completed\"}\n");
    assert_string_equal(o.err, ""); /* nothing was to be seen before the end */
    run(line, "", &o);
    assert_int_equal(o.code, 1);
    assert_string_equal(o.out, "{\"phase\":\"done\",\"result\":\"failed\"}\n");
}

static void test_a_migration_is_drawn(void **state)
{
    static struct output o;
    struct fixture *fix = *state;
    char line[256], svg[64], text[64] = "";
    FILE *f;

    (void)snprintf(svg, sizeof(svg), "%s/plot.svg", fix->dir);
    (void)snprintf(line, sizeof(line), "--api-socket|%s|migration-progress|--follow|--plot|%s",
                   fix->path, svg);
    run(line, "", &o);
    assert_int_equal(o.code, 0);
    assert_string_equal(o.out, "{\"phase\":\"done\",\"result\":\"completed\"}\n");
    f = fopen(svg, "re");
    assert_non_null(f);
    assert_non_null(fgets(text, sizeof(text), f));
    assert_memory_equal(text, "<svg ", 5);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(unlink(svg), 0);
    (void)snprintf(line, sizeof(line),
                   "--api-socket|%s|migration-progress|--follow|--plot=/nowhere/at/all", fix->path);
    run(line, "", &o);
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.err, "--plot: /nowhere/at/all: No such file or directory"));
}

static void test_a_plot_that_cannot_be_drawn_leaves_the_file_alone(void **state)
{
    static struct output o;
    struct fixture *fix = *state;
    char line[256], svg[64], text[64] = "";
    FILE *f;

    (void)snprintf(svg, sizeof(svg), "%s/plot.svg", fix->dir);
    f = fopen(svg, "we");
    assert_non_null(f);
    assert_true(fputs("of yesterday", f) >= 0);
    assert_int_equal(fclose(f), 0);
    (void)snprintf(line, sizeof(line), "--api-socket|%s|migration-progress|--plot|%s", fix->path,
                   svg);
    run(line, "", &o);
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.err, "there is no migration to draw"));
    f = fopen(svg, "re");
    assert_non_null(f);
    assert_non_null(fgets(text, sizeof(text), f));
    assert_string_equal(text, "of yesterday");
    assert_int_equal(fclose(f), 0);
    assert_int_equal(unlink(svg), 0);
}

static void test_wrong_lines_are_refused_before_anything_is_asked(void **state)
{
    /* clang-format off */
    static const struct {
        const char *line, *err;
    } rows[] = {
        {"", "Usage: chctl"},
        {"frob", "frob: unknown command"},
        {"--frob|ping", "--frob: unknown option"},
        {"--api-socket", "--api-socket: needs a path"},
        {"ping", "--api-socket: is missing"},
        {"ping|now", "ping: takes no argument, 'now' was given"},
        {"snapshot", "snapshot: needs <url>"},
        {"snapshot|a|b", "snapshot: 'b' is one argument too many"},
        {"create|/nowhere/at/all", "create: /nowhere/at/all: No such file"},
        {"create", "create: standard input is no JSON"},
        {"restore|resume=on", "restore: source_url: is missing"},
        {"send-migration|destination_url=a,connections=0",
         "send-migration connections: 0 is not in"},
        {"send-migration|unix:/m",
         "send-migration: 'unix:/m' needs its key: destination_url=unix:/m"},
        {"receive-migration|tcp:h:1,tls_dir=/t",
         "'tcp:h:1,tls_dir=/t' needs its key: receiver_url=tcp:h:1,tls_dir=/t"},
        {"restore|/srv/vms", "restore: '/srv/vms' needs its key: source_url=/srv/vms"},
        {"migration-resolve|never:12:34", "needs its key: statement=never:12:34"},
        {"send-migration|tls", "send-migration: unknown key 'tls'"},
        {"send-migration|destination_url=unix:/m,tls_dir=/t",
         "send-migration: tls_dir: not possible with a unix: destination_url"},
        {"send-migration|destination_url=tcp:h:1,local=on",
         "send-migration: local: possible with a unix: destination_url only"},
        {"add-disk|path=/a,vhost_user=on", "--disk vhost_user: not supported yet"},
        {"add-vsock|cid=3", "add-vsock: not supported yet by this version"},
        {"migration-progress|--plot", "migration-progress: --plot needs a file"},
        {"migration-progress|--plot=", "migration-progress: --plot needs a file"},
        {"migration-progress|now", "migration-progress: takes no argument, 'now' was given"},
        {"resize", "resize: needs [--cpus <n>]"},
        {"resize|--cpus", "resize: --cpus needs a value"},
        {"resize|--cpus|x", "resize: --cpus: 'x' is not a number"},
        {"resize|--cpus|1|--cpus|2", "resize: --cpus is there twice"},
        {"resize-zone|--id|a", "resize-zone: --size is missing"},
        {"help|frob", "frob: unknown command"},
    };
    /* clang-format on */
    static struct output o;

    (void)state;
    (void)unsetenv("CHCTL_API_SOCKET");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        run(rows[i].line, "", &o);
        if (o.code != 2 || !strstr(o.err, rows[i].err) || o.out[0])
            fail_msg("%s: %d '%s'", rows[i].line, o.code, o.err);
    }
}

static void test_help_and_version(void **state)
{
    static struct output o;

    (void)state;
    run("--help", "", &o);
    assert_int_equal(o.code, 0);
    assert_non_null(strstr(o.out, "  migration-progress   Print how far"));
    run("snapshot|--help", "", &o);
    assert_int_equal(o.code, 0);
    assert_int_equal(strncmp(o.out, "Usage: chctl --api-socket <path> snapshot <url>\n", 48), 0);
    run("-V", "", &o);
    assert_string_equal(o.out, "chctl " CHRYSALIS_VERSION "\n");
}

static void test_a_vmm_that_is_not_there_is_a_failure(void **state)
{
    static struct output o;

    (void)state;
    (void)setenv("CHCTL_API_SOCKET", "/nowhere/api.sock", 1);
    run("ping", "", &o);
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.err, "  0: cannot connect to /nowhere/api.sock: No such file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_commands_become_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_device_is_what_the_command_line_says, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_descriptors_are_handed_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_refusal_is_a_chain_on_standard_error, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_migration_is_followed_to_its_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_migration_is_drawn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_plot_that_cannot_be_drawn_leaves_the_file_alone,
                                        setup, teardown),
        cmocka_unit_test(test_wrong_lines_are_refused_before_anything_is_asked),
        cmocka_unit_test(test_help_and_version),
        cmocka_unit_test(test_a_vmm_that_is_not_there_is_a_failure),
    };

    return cmocka_run_group_tests_name("chctl", tests, NULL, NULL);
}
