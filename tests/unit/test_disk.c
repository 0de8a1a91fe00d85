/* SPDX-License-Identifier: Apache-2.0 */
/* Every test runs with both engines, on buffered and on direct files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "devices/disk.h"

enum {
    SIZE = 4 << 20,
    DEPTH = 16,
};

struct variant {
    const char *name;
    enum disk_engine engine;
    bool direct;
};

static const struct variant variants[] = {
    {"io_uring",         DISK_ENGINE_URING, false},
    {"io_uring, direct", DISK_ENGINE_URING, true },
    {"threads",          DISK_ENGINE_POOL,  false},
    {"threads, direct",  DISK_ENGINE_POOL,  true },
};

struct fix {
    char path[64];
    int fd;          /* behind the disk's back */
    uint8_t *memory; /* 4 KiB aligned */
    struct disk *d;
};

static uint8_t pattern(uint64_t off, unsigned salt)
{
    return (uint8_t)(off * 31 + (off >> 9) * 7 + salt);
}

static int setup(void **state)
{
    struct fix *f = test_calloc(1, sizeof(*f));
    uint8_t *image = malloc(SIZE);

    assert_non_null(image);
    (void)snprintf(f->path, sizeof(f->path), "/var/tmp/chrysalis-disk-XXXXXX");
    f->fd = mkstemp(f->path);
    assert_true(f->fd >= 0);
    for (unsigned i = 0; i < SIZE; i++)
        image[i] = pattern(i, 0);
    assert_int_equal(pwrite(f->fd, image, SIZE, 0), SIZE);
    free(image);
    f->memory = aligned_alloc(4096, SIZE);
    assert_non_null(f->memory);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;

    disk_close(f->d);
    (void)unlink(f->path);
    (void)close(f->fd);
    free(f->memory);
    test_free(f);
    return 0;
}

static struct disk_params params(const struct fix *f, const struct variant *v)
{
    return (struct disk_params){
        .path = f->path,
        .fd = -1,
        .engine = v->engine,
        .direct = v->direct,
        .depth = DEPTH,
    };
}

/* False if this machine cannot do the variant. */
static bool open_variant(struct fix *f, const struct variant *v)
{
    struct disk_params p = params(f, v);
    struct err err = {0};
    int rc;

    disk_close(f->d);
    f->d = NULL;
    rc = disk_open(&p, &f->d, &err);
    if (rc < 0)
        print_message("%s: skipped: %s\n", v->name, err.msg);
    else
        assert_string_equal(disk_engine_name(f->d),
                            v->engine == DISK_ENGINE_URING ? "io_uring" : "threads");
    return rc >= 0;
}

static struct disk_io *wait_one(struct disk *d)
{
    struct disk_io *io;
    uint64_t n;

    disk_kick(d);
    while (!(io = disk_reap(d))) {
        struct pollfd pfd = {.fd = disk_event_fd(d), .events = POLLIN};

        assert_int_equal(poll(&pfd, 1, 10000), 1);
        assert_int_equal(read(disk_event_fd(d), &n, sizeof(n)), sizeof(n));
    }
    return io;
}

static int run(struct disk *d, struct disk_io *io)
{
    disk_submit(d, io);
    assert_ptr_equal(wait_one(d), io);
    return io->result;
}

/* One transfer in pieces of memory that begin at odd places. */
static int transfer(struct fix *f, enum disk_op op, uint64_t off, uint64_t len, unsigned skew)
{
    struct iovec iov[3] = {
        {f->memory + skew,               len / 4          },
        {f->memory + skew + len / 4,     len / 4          },
        {f->memory + skew + len / 4 * 2, len - len / 4 * 2},
    };
    struct disk_io io = {.op = op, .iov = iov, .nr_iov = 3, .off = off, .len = len};

    return run(f->d, &io);
}

static const struct {
    uint64_t off, len;
    unsigned skew;
} places[] = {
    {0,           4096,    0  },
    {4096,        16384,   0  },
    {SIZE - 4096, 4096,    0  },
    {8192,        8192,    1  }, /* memory is not aligned */
    {0,           1 << 20, 513}, /* several buffers full */
    {512,         512,     0  }, /* a sector of a larger block, perhaps */
    {512,         1536,    7  },
    {4096 - 512,  1024,    0  },
    {12288,       12288,   512},
    {SIZE - 512,  512,     3  },
};

static void test_reads(void **state)
{
    struct fix *f = *state;

    for (unsigned v = 0; v < ARRAY_LEN(variants); v++) {
        if (!open_variant(f, &variants[v]))
            continue;
        assert_int_equal(disk_geometry(f->d)->size, SIZE);
        for (unsigned i = 0; i < ARRAY_LEN(places); i++) {
            memset(f->memory, 0xee, SIZE);
            assert_int_equal(transfer(f, DISK_READ, places[i].off, places[i].len, places[i].skew),
                             0);
            for (uint64_t k = 0; k < places[i].len; k++)
                assert_int_equal(f->memory[places[i].skew + k], pattern(places[i].off + k, 0));
            assert_int_equal(f->memory[places[i].skew + places[i].len], 0xee);
        }
    }
}

static void test_writes(void **state)
{
    struct fix *f = *state;

    for (unsigned v = 0; v < ARRAY_LEN(variants); v++) {
        if (!open_variant(f, &variants[v]))
            continue;
        for (unsigned i = 0; i < ARRAY_LEN(places); i++) {
            uint64_t off = places[i].off, len = places[i].len;
            bool whole = !((off | len) & (disk_geometry(f->d)->block_size - 1));
            unsigned salt = v * 16 + i + 1;
            uint8_t *back = malloc(len);
            int rc;

            assert_non_null(back);
            for (uint64_t k = 0; k < len; k++)
                f->memory[places[i].skew + k] = pattern(off + k, salt);
            rc = transfer(f, DISK_WRITE, off, len, places[i].skew);
            assert_int_equal(rc, whole || !variants[v].direct ? 0 : -EINVAL);
            assert_int_equal(pread(f->fd, back, len, (off_t)off), len);
            for (uint64_t k = 0; !rc && k < len; k++)
                assert_int_equal(back[k], pattern(off + k, salt));
            free(back);
        }
    }
}

static void test_durable_flush_and_nothing(void **state)
{
    struct fix *f = *state;

    for (unsigned v = 0; v < ARRAY_LEN(variants); v++) {
        struct iovec iov = {f->memory, 4096};
        struct disk_io io = {
            .op = DISK_WRITE, .iov = &iov, .nr_iov = 1, .len = 4096, .durable = true};
        struct disk_io flush = {.op = DISK_FLUSH}, nothing = {.op = DISK_READ};

        if (!open_variant(f, &variants[v]))
            continue;
        assert_int_equal(run(f->d, &io), 0);
        assert_int_equal(run(f->d, &flush), 0);
        assert_int_equal(run(f->d, &nothing), 0);
    }
}

static void test_discard_and_zero(void **state)
{
    struct fix *f = *state;

    for (unsigned v = 0; v < ARRAY_LEN(variants); v++) {
        struct disk_io zero = {.op = DISK_ZERO, .off = 65536, .len = 65536};
        struct disk_io punch = {.op = DISK_ZERO, .unmap = true, .off = 1 << 20, .len = 65536};
        struct disk_io discard = {.op = DISK_DISCARD, .durable = true, .off = 0, .len = 4096};
        uint8_t b[2];

        if (!open_variant(f, &variants[v]))
            continue;
        if (!disk_geometry(f->d)->can_discard)
            skip();
        memset(f->memory, 0x77, SIZE);
        assert_int_equal(pwrite(f->fd, f->memory, SIZE, 0), SIZE);
        assert_int_equal(run(f->d, &zero), 0);
        assert_int_equal(run(f->d, &punch), 0);
        assert_int_equal(run(f->d, &discard), 0);
        assert_int_equal(pread(f->fd, b, 2, 65535), 2);
        assert_memory_equal(b, "\x77\0", 2);
        assert_int_equal(pread(f->fd, b, 2, 131071), 2);
        assert_memory_equal(b, "\0\x77", 2);
        assert_int_equal(pread(f->fd, b, 1, 1 << 20), 1);
        assert_int_equal(b[0], 0);
        assert_int_equal(lseek(f->fd, 0, SEEK_END), SIZE);
    }
}

static void test_many_at_a_time(void **state)
{
    struct fix *f = *state;

    for (unsigned v = 0; v < ARRAY_LEN(variants); v++) {
        struct iovec iov[DEPTH];
        struct disk_io io[DEPTH];

        if (!open_variant(f, &variants[v]))
            continue;
        for (unsigned round = 0; round < 8; round++) {
            /* Half of them with memory that direct files need buffers for: more than there are. */
            for (unsigned i = 0; i < DEPTH; i++) {
                iov[i] = (struct iovec){f->memory + i * 131072 + (i & 1), 65536};
                io[i] = (struct disk_io){
                    .op = DISK_READ, .iov = &iov[i], .nr_iov = 1, .off = i * 65536, .len = 65536};
                assert_int_equal(pwrite(f->fd, &(uint8_t){(uint8_t)(i + round)}, 1, i * 65536), 1);
                disk_submit(f->d, &io[i]);
            }
            for (unsigned i = 0; i < DEPTH; i++)
                assert_int_equal(wait_one(f->d)->result, 0);
            for (unsigned i = 0; i < DEPTH; i++)
                assert_int_equal(f->memory[i * 131072 + (i & 1)], i + round);
        }
        /* Closing waits for the rest. */
        for (unsigned i = 0; i < DEPTH; i++) {
            iov[i] = (struct iovec){f->memory + i * 131072 + (i & 1), 65536};
            io[i] = (struct disk_io){
                .op = DISK_WRITE, .iov = &iov[i], .nr_iov = 1, .off = i * 65536, .len = 65536};
            disk_submit(f->d, &io[i]);
        }
        disk_close(f->d);
        f->d = NULL;
        for (unsigned i = 0; i < DEPTH; i++)
            assert_int_equal(io[i].result, 0);
    }
}

static void test_a_file_cut_short_is_an_error(void **state)
{
    struct fix *f = *state;

    for (unsigned v = 0; v < ARRAY_LEN(variants); v++) {
        assert_int_equal(ftruncate(f->fd, SIZE), 0);
        if (!open_variant(f, &variants[v]))
            continue;
        assert_int_equal(ftruncate(f->fd, 65536), 0);
        assert_int_equal(transfer(f, DISK_READ, 65536 - 4096, 8192, 0), -EIO);
        assert_int_equal(transfer(f, DISK_READ, 65536 - 4096, 8192, 1), -EIO);
        assert_int_equal(transfer(f, DISK_READ, 65536 - 4096, 4096, 0), 0);
        assert_int_equal(disk_refresh(f->d, NULL), 0);
        assert_int_equal(disk_geometry(f->d)->size, 65536);
    }
}

static void test_read_only(void **state)
{
    struct fix *f = *state;

    for (unsigned v = 0; v < ARRAY_LEN(variants); v++) {
        struct disk_params p = params(f, &variants[v]);
        struct disk_io flush = {.op = DISK_FLUSH}, zero = {.op = DISK_ZERO, .len = 4096};

        disk_close(f->d);
        f->d = NULL;
        p.readonly = true;
        if (disk_open(&p, &f->d, NULL) < 0)
            continue;
        assert_false(disk_geometry(f->d)->can_discard);
        assert_int_equal(transfer(f, DISK_READ, 0, 4096, 0), 0);
        assert_int_equal(transfer(f, DISK_WRITE, 0, 4096, 0), -EROFS);
        assert_int_equal(run(f->d, &zero), -EROFS);
        assert_int_equal(run(f->d, &flush), 0);
    }
}

static void test_locks(void **state)
{
    const struct variant plain = {"threads", DISK_ENGINE_POOL, false};
    struct fix *f = *state;
    struct disk_params p = params(f, &plain);
    struct disk *other, *reader;
    struct err err = {0};

    assert_int_equal(disk_open(&p, &f->d, NULL), 0);
    assert_int_equal(disk_open(&p, &other, NULL), 0);
    p.readonly = true;
    assert_int_equal(disk_open(&p, &reader, NULL), 0);
    assert_int_equal(disk_lock(f->d, NULL), 0);
    assert_int_equal(disk_lock(f->d, NULL), 0);
    assert_int_equal(disk_lock(other, &err), -EAGAIN);
    assert_non_null(strstr(err.msg, "in use by another process"));
    assert_int_equal(disk_lock(reader, NULL), -EAGAIN);
    /* Handed over. */
    disk_unlock(f->d);
    assert_int_equal(disk_lock(other, NULL), 0);
    assert_int_equal(disk_lock(f->d, NULL), -EAGAIN);
    disk_close(other);
    /* Readers share. */
    p.readonly = true;
    assert_int_equal(disk_lock(reader, NULL), 0);
    assert_int_equal(disk_open(&p, &other, NULL), 0);
    assert_int_equal(disk_lock(other, NULL), 0);
    assert_int_equal(disk_lock(f->d, NULL), -EAGAIN);
    disk_close(other);
    disk_close(reader);
    assert_int_equal(disk_lock(f->d, NULL), 0);
}

static void test_lock_ranges(void **state)
{
    const struct variant plain = {"threads", DISK_ENGINE_POOL, false};
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = SIZE, .l_len = 1};
    struct fix *f = *state;
    struct disk_params p = params(f, &plain);

    /* Up to the size: what lies behind stays free. */
    assert_int_equal(disk_open(&p, &f->d, NULL), 0);
    assert_int_equal(disk_lock(f->d, NULL), 0);
    assert_int_equal(fcntl(f->fd, F_OFD_SETLK, &fl), 0);
    disk_close(f->d);
    p.lock_full = true;
    assert_int_equal(disk_open(&p, &f->d, NULL), 0);
    assert_int_equal(disk_lock(f->d, NULL), -EAGAIN);
    fl.l_type = F_UNLCK;
    assert_int_equal(fcntl(f->fd, F_OFD_SETLK, &fl), 0);
    assert_int_equal(disk_lock(f->d, NULL), 0);
}

static void test_what_is_no_disk_is_refused(void **state)
{
    struct fix *f = *state;
    struct disk_params p = params(f, &variants[2]);
    struct err err = {0};
    int fd;

    p.path = "/dev/null";
    assert_int_equal(disk_open(&p, &f->d, &err), -EINVAL);
    assert_string_equal(err.msg, "disk /dev/null: neither a file nor a block device");
    p.path = "/no/such/file";
    err = (struct err){0};
    assert_int_equal(disk_open(&p, &f->d, &err), -ENOENT);
    assert_string_equal(err.msg, "disk /no/such/file: open: No such file or directory");
    p.path = f->path;
    assert_int_equal(ftruncate(f->fd, 511), 0);
    assert_int_equal(disk_open(&p, &f->d, NULL), -EINVAL);
    /* A descriptor is taken on success only. */
    fd = dup(f->fd);
    p.fd = fd;
    assert_int_equal(disk_open(&p, &f->d, NULL), -EINVAL);
    assert_int_equal(ftruncate(f->fd, 1023), 0);
    assert_int_equal(disk_open(&p, &f->d, NULL), 0);
    assert_int_equal(disk_geometry(f->d)->size, 512);
    disk_close(f->d);
    f->d = NULL;
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

/* Whoever opens a FIFO to read waits for one who writes. */
static void test_a_fifo_is_refused_and_not_waited_for(void **state)
{
    struct fix *f = *state;
    struct disk_params p = params(f, &variants[2]);
    char path[80];
    int rc;

    (void)snprintf(path, sizeof(path), "%s.fifo", f->path);
    assert_int_equal(mkfifo(path, 0600), 0);
    p.path = path;
    p.readonly = true;
    (void)alarm(60);
    rc = disk_open(&p, &f->d, NULL);
    (void)alarm(0);
    (void)unlink(path);
    assert_int_equal(rc, -EINVAL);
    /* And requests on what is opened wait, as they must. */
    p.path = f->path;
    p.readonly = false;
    assert_int_equal(disk_open(&p, &f->d, NULL), 0);
    for (int fd = 3; fd < 64; fd++) {
        struct stat a, b;

        if (fstat(fd, &a) == 0 && fstat(f->fd, &b) == 0 && a.st_ino == b.st_ino)
            assert_false(fcntl(fd, F_GETFL) & O_NONBLOCK);
    }
}

static int sync_errno;

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

int __wrap_fdatasync(int fd)
{
    errno = sync_errno;
    return sync_errno ? -1 : __real_fdatasync(fd);
}

static void test_to_open_a_disk_is_not_to_change_it(void **state)
{
    const struct timespec old[] = {
        {.tv_nsec = UTIME_OMIT},
        { .tv_sec = 1000000000, .tv_nsec = 123456789}
    };
    struct fix *f = *state;
    struct disk_params p = params(f, &variants[0]);
    struct stat st;

    assert_int_equal(futimens(f->fd, old), 0);
    assert_int_equal(disk_open(&p, &f->d, NULL), 0);
    assert_true(disk_geometry(f->d)->can_discard);
    assert_int_equal(fstat(f->fd, &st), 0);
    assert_int_equal(st.st_mtim.tv_sec, old[1].tv_sec);
    assert_int_equal(st.st_mtim.tv_nsec, old[1].tv_nsec);
}

static void test_sync_says_what_failed(void **state)
{
    struct fix *f = *state;
    struct disk_params p = params(f, &variants[0]);
    struct err err = {0};
    char expect[128];

    assert_int_equal(disk_open(&p, &f->d, NULL), 0);
    assert_int_equal(disk_sync(f->d, NULL), 0);
    sync_errno = EIO;
    assert_int_equal(disk_sync(f->d, &err), -EIO);
    (void)snprintf(expect, sizeof(expect), "disk %s: sync: Input/output error", f->path);
    assert_string_equal(err.msg, expect);
    disk_close(f->d);
    p.readonly = true;
    assert_int_equal(disk_open(&p, &f->d, NULL), 0);
    assert_int_equal(disk_sync(f->d, NULL), 0); /* it has nothing to write */
    sync_errno = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_durable_flush_and_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_discard_and_zero, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_file_cut_short_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_to_open_a_disk_is_not_to_change_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sync_says_what_failed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_locks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lock_ranges, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_no_disk_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_fifo_is_refused_and_not_waited_for, setup, teardown),
    };

    return cmocka_run_group_tests_name("disk", tests, NULL, NULL);
}
