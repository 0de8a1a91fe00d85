/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chsnap that is sent a signal in the middle: it ends by it, says what was stopped, and leaves
 * nothing half-done.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "store/store_stream.h"
#include "tests/unit/chsnap_fixture.h"

enum {
    PAGES = 4000,
    WAIT_MS = 60000, /* what nobody has to wait for on any machine */
    MOMENTS = 24,
#ifdef __SANITIZE_THREAD__ /* a watched program takes a second to begin, and another to verify */
    MOMENT_STEP = 6,
#else
    MOMENT_STEP = 1,
#endif
};

static struct fixture fx;
static struct image img;
static const int both[] = {SIGINT, SIGTERM};

/* ---- processes ---- */

static void sleep_us(long us)
{
    const struct timespec ts = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

    (void)nanosleep(&ts, NULL);
}

/* chsnap with these words, its standard error in dir/said. */
static pid_t start(const char *const *words, int in)
{
    char said[512];
    const char *argv[12] = {CHSNAP};
    auto_close int err = -1;
    pid_t pid;

    for (size_t i = 0; words[i]; i++) {
        assert_true(i + 2 < ARRAY_LEN(argv));
        argv[i + 1] = words[i];
    }
    (void)snprintf(said, sizeof(said), "%s/said", fx.dir);
    err = open(said, O_WRONLY | O_CREAT | O_TRUNC, 0600); /* the child may not come to it */
    assert_true(err >= 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int none = open("/dev/null", O_RDWR);

        if (dup2(in >= 0 ? in : none, 0) < 0 || dup2(none, 1) < 0 || dup2(err, 2) < 0)
            _exit(126);
        (void)close_range(3, ~0U, 0);
        (void)execv(CHSNAP, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    return pid;
}

/* How it ended, and what it said in @output. */
static int ended(pid_t pid)
{
    int status = 0, ms = 0;

    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (ms++ == WAIT_MS) {
            (void)kill(pid, SIGKILL);
            fail_msg("it goes on after a signal");
        }
        sleep_us(1000);
    }
    assert_int_equal(run("cat %s/said", fx.dir), 0);
    return status;
}

static void assert_ended_by(pid_t pid, int sig, const char *state)
{
    int status = ended(pid);
    char line[512];

    if (!WIFSIGNALED(status))
        print_error("status 0x%x: %s\n", (unsigned)status, output);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), sig);
    (void)snprintf(line, sizeof(line), "chsnap: stopped by SIG%s: %s", sigabbrev_np(sig), state);
    assert_says(line);
    assert_ptr_equal(strchr(output, '\n'), output + strlen(output) - 1); /* one line */
}

/* Blocked where only one can be: in a system call, for as long as it takes to see that. */
static void wait_blocked(pid_t pid)
{
    char path[64], state = 0;
    int still = 0;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    for (int ms = 0; ms < WAIT_MS && still < 50; ms++) {
        FILE *f = fopen(path, "r");

        if (f && fscanf(f, "%*d %*s %c", &state) != 1)
            state = 0;
        if (f)
            (void)fclose(f);
        still = state == 'S' ? still + 1 : 0;
        sleep_us(1000);
    }
    assert_int_equal(still, 50);
}

/* ---- stores ---- */

static int setup(void **state)
{
    (void)state;
    snapshots_make(&fx, &img, PAGES);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    snapshots_remove(&fx, &img);
    return 0;
}

/* Every snapshot is whole, and a collection finds the rest. */
static void assert_store(const char *path, unsigned snapshots)
{
    char said[64];

    assert_int_equal(run(CHSNAP " verify -r %s 2>&1", path), 0);
    (void)snprintf(said, sizeof(said), "%u snapshots", snapshots);
    assert_says(said);
    assert_int_equal(run(CHSNAP " gc %s 2>&1", path), 0);
    assert_int_equal(run(CHSNAP " stats -j %s 2>&1", path), 0);
    assert_says("\"unpublished_bytes\": 0");
    assert_int_equal(run(CHSNAP " verify -r %s 2>&1", path), 0);
}

/* Files of a directory but the store and what a process said. */
static unsigned nr_files(void)
{
    DIR *dir = opendir(fx.dir);
    const struct dirent *e;
    unsigned nr = 0;

    assert_non_null(dir);
    while ((e = readdir(dir))) /* NOLINT(concurrency-mt-unsafe): own stream */
        nr += strcmp(e->d_name, "store") != 0 && strcmp(e->d_name, "said") != 0 &&
              strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    (void)closedir(dir);
    return nr;
}

/* ---- tests ---- */

static void test_an_import_that_is_stopped_leaves_what_came_before(void **state)
{
    char stream[512], other[512];
    const char *const words[] = {"import", other, NULL};
    struct stat st;

    (void)state;
    (void)snprintf(stream, sizeof(stream), "%s/stream", fx.dir);
    (void)snprintf(other, sizeof(other), "%s/other", fx.dir);
    assert_int_equal(run(CHSNAP " export -o %s %s a b 2>&1", stream, fx.path), 0);
    assert_int_equal(stat(stream, &st), 0);
    for (unsigned i = 0; i < 8; i++) {
        off_t len = st.st_size * (2 * i + 1) / 16;
        int pipe_fds[2], left = 1;
        char command[700];
        pid_t pid;
        FILE *f;

        assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
        pid = start(words, pipe_fds[0]);
        /* A part of it, and then nothing more. */
        (void)snprintf(command, sizeof(command), "head -c %lld %s >/dev/fd/%d; exec sleep 0",
                       (long long)len, stream, pipe_fds[1]);
        assert_int_equal(fcntl(pipe_fds[1], F_SETFD, 0), 0);
        f = popen(command, "r"); /* NOLINT(cert-env33-c): a test's own words */
        assert_non_null(f);
        (void)pclose(f);
        for (int ms = 0; ms < WAIT_MS && left; ms++) {
            assert_int_equal(ioctl(pipe_fds[0], FIONREAD, &left), 0);
            sleep_us(1000);
        }
        wait_blocked(pid);
        assert_int_equal(kill(pid, both[i % 2]), 0);
        assert_ended_by(pid, both[i % 2], "snapshots that came before are whole");
        (void)close(pipe_fds[0]);
        (void)close(pipe_fds[1]);
        assert_int_equal(run(CHSNAP " list -q %s | wc -l", other), 0);
        assert_store(other, (unsigned)strtoul(output, NULL, 10));
    }
    assert_int_equal(run(CHSNAP " import -i %s %s 2>&1", stream, other), 0);
    assert_store(other, 2);
}

/* Lock a byte of a store's lock file for itself, as its collector does; closed to unlock. */
static int lock_byte(const char *store, off_t byte)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    char path[512];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/lock", store);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &fl), 0);
    return fd;
}

static void test_a_wait_for_others_is_stopped(void **state)
{
    char other[512];
    const char *const gc[] = {"gc", fx.path, NULL};
    const char *const copy[] = {"copy", fx.path, other, NULL};
    const char *const repair[] = {"verify", "--repair", fx.path, NULL};

    (void)state;
    (void)snprintf(other, sizeof(other), "%s/other", fx.dir);
    assert_int_equal(run(CHSNAP " copy %s %s a 2>&1", fx.path, other), 0);
    for (unsigned i = 0; i < ARRAY_LEN(both); i++) {
        int here = lock_byte(fx.path, 0), there = lock_byte(other, 0);
        pid_t pid = start(gc, -1);

        wait_blocked(pid);
        (void)kill(pid, both[i]);
        assert_ended_by(pid, both[i],
                        "every snapshot is as it was; the next gc frees what is left");
        pid = start(copy, -1);
        wait_blocked(pid);
        (void)kill(pid, both[i]);
        assert_ended_by(pid, both[i], "snapshots that came before are whole");
        (void)close(here);
        (void)close(there);
        pid = start(repair, -1);
        (void)kill(pid, both[i]);
        (void)ended(pid); /* whenever it came */
        assert_store(fx.path, 2);
        assert_store(other, 1);
    }
}

/* What is opened next would get their numbers, and what is said be written there. */
static void test_no_file_of_a_store_takes_the_place_of_standard_error(void **state)
{
    int here = lock_byte(fx.path, 0);
    pid_t pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)close_range(0, ~0U, 0);
        (void)execl(CHSNAP, CHSNAP, "gc", fx.path, (char *)NULL);
        _exit(127);
    }
    wait_blocked(pid);
    for (int fd = 0; fd < 3; fd++) {
        char link[64], target[512] = "";

        (void)snprintf(link, sizeof(link), "/proc/%d/fd/%d", pid, fd);
        assert_true(readlink(link, target, sizeof(target) - 1) > 0);
        assert_string_equal(target, "/dev/null");
    }
    (void)kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    (void)close(here);
    /* And what cannot be written is still told by the exit status. */
    assert_int_equal(run(CHSNAP " list %s >&- 2>/dev/null", fx.path), 1);
}

static void test_a_removal_that_is_stopped_tells_how_far_it_is(void **state)
{
    const char *const prune[] = {"prune", "--keep-tag", "none", fx.path, NULL};
    const char *const rm[] = {"rm", fx.path, "b", "a", NULL};
    char path[512];
    sqlite3 *db = NULL;
    pid_t pid;

    (void)state;
    (void)snprintf(path, sizeof(path), "%s/store.db", fx.path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    for (unsigned i = 0; i < 2; i++) {
        pid = start(i ? rm : prune, -1);
        wait_blocked(pid);
        (void)kill(pid, SIGTERM);
        assert_ended_by(pid, SIGTERM, "at least 0 of 2 snapshots were removed");
    }
    (void)sqlite3_close(db);
    assert_store(fx.path, 2);
}

/* chsnap with one of its outputs to where nobody reads, or nobody does yet. */
static pid_t start_into(int out, int which, char *const *argv)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        int none = open("/dev/null", O_RDWR | O_CLOEXEC);

        if (dup2(none, 1) < 0 || dup2(none, 2) < 0 || dup2(out, which) < 0)
            _exit(126);
        (void)execv(CHSNAP, argv);
        _exit(127);
    }
    return pid;
}

static void put_many(unsigned nr)
{
    struct err err = {0};
    struct store *st = fixture_open(&fx);
    struct image small = image_make(4, 9);

    for (unsigned i = 0; i < nr; i++)
        assert_ok(image_put_alone(st, &small, NULL, NULL, NULL, &err), &err);
    store_close(st);
    image_free(&small);
}

/* More JSON than a pipe holds, and a signal while its reader is late: it is whole; if none comes, soon over. */
static void test_json_is_whole_or_its_reader_is_gone(void **state)
{
    char prune_word[] = "prune", json[] = "-j", tag[] = "--keep-tag", none[] = "none",
         self[] = CHSNAP;
    char *const argv[] = {self, prune_word, json, tag, none, fx.path, NULL};

    (void)state;
    for (unsigned late = 0; late < 2; late++) {
        int fds[2], status;
        size_t len = 0;
        pid_t pid;

        put_many(40);
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        assert_int_equal(fcntl(fds[0], F_SETPIPE_SZ, 4096), 4096);
        pid = start_into(fds[1], STDOUT_FILENO, argv);
        (void)close(fds[1]);
        for (int ms = 0, there = 0; ms < WAIT_MS && there < 4096; ms++) {
            assert_int_equal(ioctl(fds[0], FIONREAD, &there), 0);
            sleep_us(1000);
        }
        wait_blocked(pid);
        assert_int_equal(kill(pid, SIGTERM), 0);
        sleep_us(50000);
        if (late) /* it ends without having been read */
            assert_int_equal(waitpid(pid, &status, 0), pid);
        for (ssize_t n = 1; n > 0; len += n > 0 ? (size_t)n : 0)
            n = read(fds[0], output + len, sizeof(output) - 1 - len);
        output[len] = 0;
        if (!late)
            assert_int_equal(waitpid(pid, &status, 0), pid);
        (void)close(fds[0]);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGTERM);
        assert_true(late ? len == 4096 : len > 4096);
        if (!late)
            assert_string_equal(output + len - 3, "\n}\n");
    }
}

/* Who writes to nobody ends by that, and what is half-done goes all the same. */
static void test_an_output_that_nobody_reads_leaves_nothing(void **state)
{
    char self[] = CHSNAP, word[] = "export", o[] = "-o", a[] = "a", b[] = "b", out[512];
    char *const argv[] = {self, word, o, out, fx.path, a, b, NULL};
    int fds[2], status = 0;
    pid_t pid;

    (void)state;
    (void)snprintf(out, sizeof(out), "%s/out", fx.dir);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    (void)close(fds[0]);
    pid = start_into(fds[1], STDERR_FILENO, argv);
    (void)close(fds[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (access(out, F_OK) == 0) { /* it was quicker, and is whole */
        assert_int_equal(run(CHSNAP " import -i %s %s/other 2>&1", out, fx.dir), 0);
        assert_int_equal(nr_files(), 2);
        return;
    }
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
    assert_int_equal(nr_files(), 0);
}

/* Stopped where the file has been begun; whether it is, or was too quick. */
static bool stop_with_file(const char *const *words, const char *path, int sig)
{
    pid_t pid = start(words, -1);
    siginfo_t info = {0};
    int status;

    while (nr_files() == 0 && info.si_pid == 0)
        assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
    assert_int_equal(kill(pid, SIGSTOP), 0);
    (void)kill(pid, sig);
    (void)kill(pid, SIGCONT);
    status = ended(pid);
    if (access(path, F_OK) == 0) {
        assert_int_equal(nr_files(), 1);
        assert_int_equal(unlink(path), 0);
        return false;
    }
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), sig);
    assert_says("out was not made\n");
    assert_int_equal(nr_files(), 0);
    return true;
}

static void test_an_output_that_is_stopped_is_not_there(void **state)
{
    char out[512];
    const char *const dump[] = {"dump", "--raw", "-o", out, fx.path, "a", NULL};
    const char *const export[] = {"export", "-o", out, fx.path, "a", "b", NULL};
    unsigned stopped = 0;

    (void)state;
    (void)snprintf(out, sizeof(out), "%s/out", fx.dir);
    for (unsigned i = 0; i < 8; i++)
        stopped += stop_with_file(i & 1 ? dump : export, out, both[i / 2 % 2]);
    assert_true(stopped > 0);
    /* Nor is one that fails, and nothing that is there is written over. */
    assert_int_equal(run(CHSNAP " export -o %s %s a none 2>&1", out, fx.path), 1);
    assert_int_equal(nr_files(), 0);
    assert_int_equal(run("echo mine >%s; " CHSNAP " dump --raw -o %s %s a 2>&1", out, out, fx.path),
                     1);
    assert_says("out: File exists");
    assert_int_equal(run("cat %s", out), 0);
    assert_string_equal(output, "mine\n");
}

static void test_a_collection_is_stopped_at_any_time(void **state)
{
    struct fixture copy;
    const char *const words[] = {"gc", copy.path, NULL};

    (void)state;
    assert_int_equal(run(CHSNAP " rm %s a", fx.path), 0);
    for (unsigned i = 0; i < MOMENTS; i += MOMENT_STEP) {
        pid_t pid;

        fixture_make(&copy);
        tree_copy(fx.path, copy.path);
        pid = start(words, -1);
        sleep_us(500 * i);
        (void)kill(pid, both[i / MOMENT_STEP % 2]);
        (void)ended(pid);
        assert_store(copy.path, 1);
        fixture_remove(&copy);
    }
}

#define stop_test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        stop_test(test_an_import_that_is_stopped_leaves_what_came_before),
        stop_test(test_a_wait_for_others_is_stopped),
        stop_test(test_no_file_of_a_store_takes_the_place_of_standard_error),
        stop_test(test_a_removal_that_is_stopped_tells_how_far_it_is),
        stop_test(test_json_is_whole_or_its_reader_is_gone),
        stop_test(test_an_output_that_nobody_reads_leaves_nothing),
        stop_test(test_an_output_that_is_stopped_is_not_there),
        stop_test(test_a_collection_is_stopped_at_any_time),
    };

    return cmocka_run_group_tests_name("chsnap stop", tests, NULL, NULL);
}
