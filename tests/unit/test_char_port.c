/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* The host's side of a character device, seen through the serial port and the debug console. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "devices/debugcon.h"
#include "devices/serial.h"
#include "tests/fakes/device_check.h"

enum {
    DATA = 0,
    FCR = 2,
    MCR = 4,
    LSR = 5,
};

/* --- Helpers -------------------------------------------------------------- */

static int setup(void **state)
{
    *state = fake_env_new();
    return 0;
}

static int teardown(void **state)
{
    fake_env_free(*state);
    return 0;
}

static struct device *serial_new(struct fake_env *fe, int out_fd, int in_fd, int listen_fd)
{
    const struct serial_config cfg = {
        .irq = 4,
        .port = {.out_fd = out_fd, .in_fd = in_fd, .listen_fd = listen_fd},
    };
    struct device *dev = device_check_new(&serial_ops, &fe->env, "__serial", &cfg);

    device_check_resume(dev);
    return dev;
}

static void guest_prints(struct device *dev, const char *text)
{
    for (; *text; text++)
        device_check_write(dev, 0, DATA, 1, (uint8_t)*text);
}

static uint64_t counter(struct device *dev, const char *name)
{
    struct device_counter c[8];
    unsigned n = dev->ops->counters(dev, c, ARRAY_LEN(c));

    for (unsigned i = 0; i < n; i++)
        if (!strcmp(c[i].name, name))
            return c[i].value;
    fail_msg("no counter %s", name);
    return 0;
}

/* Read what is there, without waiting. */
static size_t read_now(int fd, char *buf, size_t cap)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    size_t n = 0;

    while (n < cap && poll(&pfd, 1, 0) == 1 && pfd.revents & POLLIN) {
        ssize_t k = read(fd, buf + n, cap - n);

        if (k <= 0)
            break;
        n += (size_t)k;
    }
    return n;
}

static void assert_arrived(int fd, const char *text)
{
    char buf[256];
    size_t n = read_now(fd, buf, sizeof(buf) - 1);

    buf[n] = 0;
    assert_string_equal(buf, text);
}

static bool has_data(void *arg)
{
    struct device *dev = arg;

    return device_check_read(dev, 0, LSR, 1) & 1;
}

/* The guest reads its input byte by byte. */
static void assert_guest_reads(struct fake_env *fe, struct device *dev, const char *text)
{
    for (; *text; text++) {
        if (!fake_env_wait(fe, has_data, dev, 5000))
            fail_msg("no input before \"%s\"", text);
        assert_int_equal(device_check_read(dev, 0, DATA, 1), *text);
    }
}

/* --- Output --------------------------------------------------------------- */

static void test_output_arrives_at_once(void **state)
{
    struct fake_env *fe = *state;
    int fds[2];
    struct device *dev;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    dev = serial_new(fe, fds[1], -1, -1);
    guest_prints(dev, "hello\n");
    assert_arrived(fds[0], "hello\n");
    assert_int_equal(counter(dev, "out"), 6);
    device_free(dev);
    /* The handle was the device's: the pipe has no writer now. */
    assert_int_equal(read(fds[0], &(char){0}, 1), 0);
    (void)close(fds[0]);
}

static void test_output_without_a_handle_is_thrown_away(void **state)
{
    struct device *dev = serial_new(*state, -1, -1, -1);

    guest_prints(dev, "hello\n");
    assert_int_equal(counter(dev, "dropped"), 0);
    device_free(dev);
}

static bool all_came_out(void *arg)
{
    struct {
        int fd;
        size_t len;
        char buf[256 << 10];
    } *out = arg;

    out->len += read_now(out->fd, out->buf + out->len, sizeof(out->buf) - out->len);
    return out->len && out->buf[out->len - 1] == '!';
}

/* Nobody reads: the guest goes on, and what is lost is the middle. */
static void output_to_a_full_pipe(struct fake_env *fe, int flags)
{
    static struct {
        int fd;
        size_t len;
        char buf[256 << 10];
    } out;
    const size_t total = 200000;
    struct device *dev;
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC | flags), 0);
    out.fd = fds[0];
    out.len = 0;
    dev = serial_new(fe, fds[1], -1, -1);
    for (size_t i = 0; i < total; i++)
        device_check_write(dev, 0, DATA, 1, 'a' + i / 1000 % 26);
    device_check_write(dev, 0, DATA, 1, '!');
    assert_true(counter(dev, "dropped") > 0);
    assert_true(fake_env_wait(fe, all_came_out, &out, 10000));
    assert_int_equal(out.len + counter(dev, "dropped"), total + 1);
    assert_true(out.len > 64 << 10);
    assert_int_equal(out.buf[0], 'a');
    assert_int_equal(out.buf[out.len - 2], 'a' + 199 % 26);
    /* The loop does not spin on a pipe that is writable. */
    guest_prints(dev, "?");
    assert_arrived(fds[0], "?");
    device_free(dev);
    (void)close(fds[0]);
}

static void test_output_that_nobody_reads_does_not_stop_the_guest(void **state)
{
    output_to_a_full_pipe(*state, O_NONBLOCK);
}

static void test_handles_that_block_are_used_without_blocking(void **state)
{
    output_to_a_full_pipe(*state, 0);
}

static void test_reader_that_goes_away_does_not_kill(void **state)
{
    struct device *dev;
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    dev = serial_new(*state, fds[1], -1, -1);
    (void)close(fds[0]);
    guest_prints(dev, "hello"); /* SIGPIPE would end the test here */
    assert_int_equal(counter(dev, "dropped"), 5);
    device_free(dev);
}

static void test_full_disk_does_not_stop_the_guest(void **state)
{
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    struct device *dev;

    assert_true(fd >= 0);
    dev = serial_new(*state, fd, -1, -1);
    guest_prints(dev, "hello");
    assert_int_equal(counter(dev, "dropped"), 5);
    device_free(dev);
}

static void test_output_to_a_file(void **state)
{
    char path[] = "/tmp/char_port.XXXXXX";
    int fd = mkstemp(path);
    struct device *dev;
    char buf[8] = {0};

    assert_true(fd >= 0);
    dev = serial_new(*state, fcntl(fd, F_DUPFD_CLOEXEC, 0), -1, -1);
    guest_prints(dev, "hello");
    assert_int_equal(pread(fd, buf, sizeof(buf), 0), 5);
    assert_string_equal(buf, "hello");
    device_free(dev);
    (void)close(fd);
    (void)unlink(path);
}

static void fill_pipe(int fd)
{
    char junk[4096] = {0};
    int flags = fcntl(fd, F_GETFL);

    assert_int_equal(fcntl(fd, F_SETFL, flags | O_NONBLOCK), 0);
    while (write(fd, junk, sizeof(junk)) > 0)
        continue;
    while (write(fd, junk, 1) > 0)
        continue;
}

static void test_output_that_waits_is_state(void **state)
{
    struct fake_env *fe = *state;
    struct device *dev, *fresh;
    int from[2], to[2];

    assert_int_equal(pipe2(from, O_CLOEXEC), 0);
    assert_int_equal(pipe2(to, O_CLOEXEC), 0);
    fill_pipe(from[1]);
    dev = serial_new(fe, from[1], -1, -1);
    guest_prints(dev, "last words");
    device_check_pause(dev);
    fresh = serial_new(fe, to[1], -1, -1);
    device_check_pause(fresh);
    device_check_round_trip(dev, fresh);
    device_check_bad_state(dev, fresh);
    device_check_round_trip(dev, fresh);
    device_check_resume(fresh);
    assert_arrived(to[0], "last words");
    /* And goes on from there. */
    guest_prints(fresh, ", more");
    assert_arrived(to[0], ", more");
    device_free(dev);
    device_free(fresh);
    (void)close(from[0]);
    (void)close(to[0]);
}

static void test_loaded_output_can_grow(void **state)
{
    struct fake_env *fe = *state;
    struct device *dev, *fresh;
    char buf[64 << 10];
    int from[2], to[2];
    size_t n;

    assert_int_equal(pipe2(from, O_CLOEXEC), 0);
    assert_int_equal(pipe2(to, O_CLOEXEC), 0);
    fill_pipe(from[1]);
    fill_pipe(to[1]);
    dev = serial_new(fe, from[1], -1, -1);
    fresh = serial_new(fe, to[1], -1, -1);
    guest_prints(dev, "abc");
    device_check_round_trip(dev, fresh);
    for (unsigned i = 0; i < 10000; i++)
        guest_prints(fresh, "x");
    n = read_now(to[0], buf, sizeof(buf));
    assert_true(n > 0);
    device_check_resume(fresh);
    n = read_now(to[0], buf, sizeof(buf));
    assert_int_equal(n, 10003);
    assert_memory_equal(buf, "abcx", 4);
    device_free(dev);
    device_free(fresh);
    (void)close(from[0]);
    (void)close(to[0]);
}

/* --- Input ---------------------------------------------------------------- */

static void test_input_waits_until_there_is_room(void **state)
{
    static const char text[] = "the quick brown fox jumps over the lazy dog";
    struct fake_env *fe = *state;
    struct device *dev;
    int fds[2], left;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    dev = serial_new(fe, -1, fds[0], -1);
    assert_int_equal(write(fds[1], text, strlen(text)), strlen(text));
    fake_env_run_loop(fe, 20);
    assert_int_equal(counter(dev, "in"), 1); /* no FIFO: one byte */
    assert_int_equal(ioctl(fds[1], FIONREAD, &left), 0);
    assert_int_equal(left, strlen(text) - 1);
    assert_guest_reads(fe, dev, "the ");
    device_check_write(dev, 0, FCR, 1, 0x01);
    fake_env_run_loop(fe, 20);
    assert_int_equal(ioctl(fds[1], FIONREAD, &left), 0);
    assert_int_equal(counter(dev, "in"), strlen(text) - (size_t)left);
    assert_true(counter(dev, "in") >= 20);
    device_free(dev);
    (void)close(fds[1]);
}

static void test_input_raises_the_interrupt(void **state)
{
    struct fake_env *fe = *state;
    struct device *dev;
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    dev = serial_new(fe, -1, fds[0], -1);
    device_check_write(dev, 0, 1, 1, 0x01);
    assert_false(fe->irq_level[4]);
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_true(fake_env_wait(fe, has_data, dev, 5000));
    assert_true(fe->irq_level[4]);
    assert_int_equal(device_check_read(dev, 0, DATA, 1), 'x');
    assert_false(fe->irq_level[4]);
    device_free(dev);
    (void)close(fds[1]);
}

static void test_input_waits_during_loopback_and_pause(void **state)
{
    struct fake_env *fe = *state;
    struct device *dev;
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    dev = serial_new(fe, -1, fds[0], -1);
    device_check_write(dev, 0, MCR, 1, 0x10);
    assert_int_equal(write(fds[1], "ab", 2), 2);
    fake_env_run_loop(fe, 20);
    assert_int_equal(counter(dev, "in"), 0);
    device_check_write(dev, 0, MCR, 1, 0);
    assert_guest_reads(fe, dev, "a");
    device_check_pause(dev);
    fake_env_run_loop(fe, 20);
    assert_int_equal(counter(dev, "in"), 1);
    device_check_resume(dev);
    assert_guest_reads(fe, dev, "b");
    device_free(dev);
    (void)close(fds[1]);
}

static void test_fifo_gets_another_writer(void **state)
{
    struct fake_env *fe = *state;
    char dir[] = "/tmp/char_port.XXXXXX", path[64];
    struct device *dev;
    int in, out;

    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/fifo", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    in = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(in >= 0);
    dev = serial_new(fe, -1, in, -1);
    for (unsigned i = 0; i < 2; i++) {
        out = open(path, O_WRONLY | O_CLOEXEC);
        assert_true(out >= 0);
        assert_int_equal(write(out, "hi", 2), 2);
        assert_guest_reads(fe, dev, "hi");
        (void)close(out);
        fake_env_run_loop(fe, 20);
    }
    device_free(dev);
    (void)unlink(path);
    (void)rmdir(dir);
}

static void test_pty_loses_its_user_and_gets_another(void **state)
{
    struct fake_env *fe = *state;
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct device *dev;
    struct termios raw;
    char name[64];
    int user;

    assert_true(master >= 0);
    assert_int_equal(grantpt(master), 0);
    assert_int_equal(unlockpt(master), 0);
    assert_int_equal(ptsname_r(master, name, sizeof(name)), 0);
    dev = serial_new(fe, master, master, -1);
    for (unsigned i = 0; i < 2; i++) {
        user = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
        assert_true(user >= 0);
        assert_int_equal(tcgetattr(user, &raw), 0);
        cfmakeraw(&raw);
        assert_int_equal(tcsetattr(user, TCSANOW, &raw), 0);
        assert_int_equal(write(user, "hi", 2), 2);
        assert_guest_reads(fe, dev, "hi");
        guest_prints(dev, "hello");
        assert_arrived(user, "hello");
        (void)close(user);
        fake_env_run_loop(fe, 20);
    }
    device_free(dev);
}

static void test_handles_that_cannot_be_waited_for_give_no_input(void **state)
{
    struct fake_env *fe = *state;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct device *dev;

    assert_true(fd >= 0);
    dev = serial_new(fe, -1, fd, -1);
    fake_env_run_loop(fe, 20);
    assert_int_equal(counter(dev, "in"), 0);
    device_free(dev);
}

static void test_both_directions_on_one_handle(void **state)
{
    struct fake_env *fe = *state;
    struct device *dev;
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    dev = serial_new(fe, fds[0], fds[0], -1);
    guest_prints(dev, "login: ");
    assert_arrived(fds[1], "login: ");
    assert_int_equal(write(fds[1], "root\n", 5), 5);
    assert_guest_reads(fe, dev, "root\n");
    device_free(dev);
    assert_int_equal(read(fds[1], &(char){0}, 1), 0);
    (void)close(fds[1]);
}

enum {
    ECHO_BYTES = 8000,
};

static void *run_loop(void *arg)
{
    assert_int_equal(loop_run(arg), 0);
    return NULL;
}

/* The user at the other end: types as fast as it can, reads what comes back. */
static void *echo_user(void *arg)
{
    int fd = *(int *)arg;
    unsigned typed = 0, read_back = 0;

    while (read_back < ECHO_BYTES) {
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        uint8_t byte = (uint8_t)(typed * 7);

        if (typed < ECHO_BYTES)
            pfd.events |= POLLOUT;
        if (poll(&pfd, 1, 10000) != 1)
            break;
        if (pfd.revents & POLLOUT && send(fd, &byte, 1, MSG_DONTWAIT) == 1)
            typed++;
        if (!(pfd.revents & POLLIN))
            continue;
        if (recv(fd, &byte, 1, 0) != 1 || byte != (uint8_t)(read_back * 7))
            break;
        read_back++;
    }
    *(int *)arg = (int)read_back;
    return NULL;
}

/* A guest that echoes, a user that types, the loop, and pauses in between: each on its thread. */
static void test_nothing_is_lost_between_threads(void **state)
{
    struct fake_env *fe = *state;
    pthread_t loop_thread, user_thread;
    unsigned echoed = 0;
    struct device *dev;
    int fds[2], user;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    dev = serial_new(fe, fds[0], fds[0], -1);
    device_check_write(dev, 0, FCR, 1, 0x01);
    user = fds[1];
    assert_int_equal(pthread_create(&loop_thread, NULL, run_loop, fe->env.loop), 0);
    assert_int_equal(pthread_create(&user_thread, NULL, echo_user, &user), 0);
    for (uint64_t end_ns = loop_now_ns() + UINT64_C(60000000000); echoed < ECHO_BYTES;) {
        if (!has_data(dev)) {
            assert_true(loop_now_ns() < end_ns);
            continue;
        }
        device_check_write(dev, 0, DATA, 1, device_check_read(dev, 0, DATA, 1));
        if (++echoed % 400)
            continue;
        device_check_pause(dev);
        device_check_resume(dev);
    }
    assert_int_equal(pthread_join(user_thread, NULL), 0);
    assert_int_equal(user, ECHO_BYTES);
    assert_int_equal(counter(dev, "dropped"), 0);
    loop_stop(fe->env.loop);
    assert_int_equal(pthread_join(loop_thread, NULL), 0);
    device_free(dev);
    (void)close(fds[1]);
}

/* --- A listening socket --------------------------------------------------- */

struct listener {
    int fd;
    struct sockaddr_un addr;
    char dir[32];
};

static void listener_open(struct listener *l)
{
    *l = (struct listener){.dir = "/tmp/char_port.XXXXXX", .addr.sun_family = AF_UNIX};
    assert_non_null(mkdtemp(l->dir));
    (void)snprintf(l->addr.sun_path, sizeof(l->addr.sun_path), "%s/socket", l->dir);
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(l->fd >= 0);
    assert_int_equal(bind(l->fd, (const struct sockaddr *)&l->addr, sizeof(l->addr)), 0);
    assert_int_equal(listen(l->fd, 8), 0);
}

static int listener_connect(const struct listener *l)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&l->addr, sizeof(l->addr)), 0);
    return fd;
}

static void listener_remove(const struct listener *l)
{
    (void)unlink(l->addr.sun_path);
    (void)rmdir(l->dir);
}

static bool is_readable(void *arg)
{
    struct pollfd pfd = {.fd = *(int *)arg, .events = POLLIN};

    return poll(&pfd, 1, 0) == 1;
}

static void test_clients_are_served_one_after_the_other(void **state)
{
    struct fake_env *fe = *state;
    struct listener l;
    struct device *dev;
    int first, second;

    listener_open(&l);
    dev = serial_new(fe, -1, -1, l.fd);
    guest_prints(dev, "before anybody came;");
    first = listener_connect(&l);
    second = listener_connect(&l);
    assert_true(fake_env_wait(fe, is_readable, &first, 5000));
    assert_arrived(first, "before anybody came;");
    assert_int_equal(write(second, "2", 1), 1);
    assert_int_equal(write(first, "1", 1), 1);
    assert_guest_reads(fe, dev, "1");
    guest_prints(dev, "for the first");
    assert_arrived(first, "for the first");
    (void)close(first);
    assert_guest_reads(fe, dev, "2");
    guest_prints(dev, "for the second");
    assert_arrived(second, "for the second");
    (void)close(second);
    fake_env_run_loop(fe, 20);
    guest_prints(dev, "for nobody yet");
    first = listener_connect(&l);
    assert_true(fake_env_wait(fe, is_readable, &first, 5000));
    assert_arrived(first, "for nobody yet");
    (void)close(first);
    device_free(dev);
    listener_remove(&l);
}

/* The guest does not read, so that only writing can tell that the client has gone. */
static void test_client_that_goes_unseen_leaves_its_output_to_the_next(void **state)
{
    struct fake_env *fe = *state;
    struct listener l;
    struct device *dev;
    int fd;

    listener_open(&l);
    dev = serial_new(fe, -1, -1, l.fd);
    fd = listener_connect(&l);
    assert_int_equal(write(fd, "xyz", 3), 3);
    assert_true(fake_env_wait(fe, has_data, dev, 5000));
    (void)close(fd);
    guest_prints(dev, "who is there?");
    fd = listener_connect(&l);
    assert_true(fake_env_wait(fe, is_readable, &fd, 5000));
    assert_arrived(fd, "who is there?");
    assert_int_equal(counter(dev, "dropped"), 0);
    (void)close(fd);
    device_free(dev);
    listener_remove(&l);
}

/* --- Handles -------------------------------------------------------------- */

static void refuse(struct fake_env *fe, struct char_port_config port, const char *msg)
{
    const struct serial_config cfg = {.irq = 4, .port = port};
    struct device *dev;
    struct err err = {0};

    assert_int_equal(device_new(&serial_ops, &fe->env, "s", &cfg, &dev, &err), -EINVAL);
    assert_string_equal(err.msg, msg);
}

static void test_bad_handles_are_refused_and_not_taken(void **state)
{
    struct fake_env *fe = *state;
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    refuse(fe, (struct char_port_config){fds[0], -1, -1}, "s: out_fd is not open for writing");
    refuse(fe, (struct char_port_config){-1, fds[1], -1}, "s: in_fd is not open for reading");
    refuse(fe, (struct char_port_config){fds[1], -1, fds[0]}, "s: listen_fd and another handle");
    refuse(fe, (struct char_port_config){-1, 1 << 20, -1}, "s: in_fd 1048576 is not open");
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_int_equal(close(fds[0]), 0);
    assert_int_equal(close(fds[1]), 0);
}

/* --- The debug console ---------------------------------------------------- */

static const struct device_row debugcon_rows[] = {
    {"it is there",                  'r', 0, 0, 1, 0xe9,   0},
    {"a byte",                       'w', 0, 0, 1, 'o',    0},
    {"only the low byte is printed", 'w', 0, 0, 2, 0x416b, 0},
};

static void test_debugcon_prints(void **state)
{
    struct fake_env *fe = *state;
    struct debugcon_config cfg;
    struct device *dev;
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    cfg.out_fd = fds[1];
    dev = device_check_new(&debugcon_ops, &fe->env, "__debug_console", &cfg);
    device_check_resume(dev);
    device_check_rows(dev, debugcon_rows, ARRAY_LEN(debugcon_rows));
    assert_arrived(fds[0], "ok");
    assert_int_equal(counter(dev, "bytes"), 2);
    device_check_pause(dev);
    debugcon_ops.reset(dev);
    device_free(dev);
    (void)close(fds[0]);
}

static void test_debugcon_keeps_what_waits(void **state)
{
    struct fake_env *fe = *state;
    struct debugcon_config cfg;
    struct device *dev, *fresh;
    int from[2], to[2];

    assert_int_equal(pipe2(from, O_CLOEXEC), 0);
    assert_int_equal(pipe2(to, O_CLOEXEC), 0);
    fill_pipe(from[1]);
    cfg.out_fd = from[1];
    dev = device_check_new(&debugcon_ops, &fe->env, "__debug_console", &cfg);
    cfg.out_fd = to[1];
    fresh = device_check_new(&debugcon_ops, &fe->env, "__debug_console", &cfg);
    guest_prints(dev, "bye");
    device_check_bad_state(dev, fresh);
    device_check_round_trip(dev, fresh);
    device_check_resume(fresh);
    assert_arrived(to[0], "bye");
    device_free(dev);
    device_free(fresh);
    (void)close(from[0]);
    (void)close(to[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_output_arrives_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_output_without_a_handle_is_thrown_away, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_output_that_nobody_reads_does_not_stop_the_guest,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_handles_that_block_are_used_without_blocking, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_reader_that_goes_away_does_not_kill, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_disk_does_not_stop_the_guest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_output_to_a_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_output_that_waits_is_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_loaded_output_can_grow, setup, teardown),
        cmocka_unit_test_setup_teardown(test_input_waits_until_there_is_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_input_raises_the_interrupt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_input_waits_during_loopback_and_pause, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_fifo_gets_another_writer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pty_loses_its_user_and_gets_another, setup, teardown),
        cmocka_unit_test_setup_teardown(test_handles_that_cannot_be_waited_for_give_no_input, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_both_directions_on_one_handle, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_is_lost_between_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clients_are_served_one_after_the_other, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_client_that_goes_unseen_leaves_its_output_to_the_next,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_handles_are_refused_and_not_taken, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_debugcon_prints, setup, teardown),
        cmocka_unit_test_setup_teardown(test_debugcon_keeps_what_waits, setup, teardown),
    };

    return cmocka_run_group_tests_name("char_port", tests, NULL, NULL);
}
