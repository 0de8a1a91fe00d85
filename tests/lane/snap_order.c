/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest stands still until its last pages are copied, not until they are compressed: what was
 * written while it stood still is compressed when it runs again, on the real /dev/kvm.
 *
 *     snap_order <test guest>
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zstd.h>

#include "core/config/vm_config.h"
#include "core/gmem.h"
#include "core/vm.h"
#include "devices/board.h"
#include "snapshot/snap_capture.h"
#include "tests/fakes/fake_hooks.h"
#include "tests/lane/lane_guest.h"

enum {
    PATIENCE_MS = 60000,
    CHANCE_MS = 500, /* that who compresses too early has to be seen */
    MARKS = 64,
};

/* The guest writes to 2 MiB from here on, page after page, as fast as it goes. */
static const char guest_does[] = "do=dirty:16:2:0:seq";
static const uint64_t busy_gpa = MIB(16), mark_gpa = MIB(40);

static const char *guest_path;
static struct vm *vm;

/* What is seen of a capture; written by any thread. */
static struct {
    enum snap_mode mode;
    atomic_bool marked;     /* MARKS pages were written while the guest stood still */
    atomic_uint marks;      /* of them, compressed */
    atomic_uint too_early;  /* compressed while it stood still */
    atomic_bool ran_beside; /* it was seen to run while the first of them had to wait */
} seen;

/* ---- the guest ----------------------------------------------------------------- */

static uint64_t sweeps(void)
{
    const volatile uint64_t *word =
        (const volatile void *)(gmem_region(vm_gmem(vm), 0)->hva + busy_gpa);

    return *word;
}

/* Whether the guest writes on, within a time that is long for it. */
static bool runs_on(void)
{
    uint64_t before = sweeps();

    for (unsigned ms = 0; ms < PATIENCE_MS && sweeps() == before; ms++)
        (void)usleep(1000);
    return sweeps() != before;
}

static void option(struct vm_config *cfg, enum vm_option opt, const char *value)
{
    struct err err = {0};

    if (vm_config_from_option(cfg, opt, value, &err))
        fail_msg("%s: %s", value, err.msg);
}

static void start(struct vm_config *cfg)
{
    struct err err = {0};

    option(cfg, VM_OPT_KERNEL, guest_path);
    option(cfg, VM_OPT_CMDLINE, guest_does);
    option(cfg, VM_OPT_MEMORY, "size=64M");
    option(cfg, VM_OPT_CPUS, "boot=1");
    option(cfg, VM_OPT_SERIAL, "null");
    option(cfg, VM_OPT_CONSOLE, "null");
    if (vm_config_complete(cfg, &err) ||
        vm_new(cfg, NULL, NULL, &board_ops, &fake_hooks, &vm, &err) || vm_boot(vm, &err))
        fail_msg("%s", err.msg);
    assert_true(runs_on());
}

/* ---- the kernel's side ------------------------------------------------------------ */

static void mark_page(uint8_t page[PAGE_SIZE_4K], unsigned i)
{
    (void)snprintf((char *)page, PAGE_SIZE_4K, "written while the guest stands still: %u", i);
}

static bool is_mark(const uint8_t *page)
{
    static const char text[] = "written while the guest stands still: ";

    return memcmp(page, text, sizeof(text) - 1) == 0;
}

/* As a device may that is saved. */
static void write_marks(void)
{
    for (unsigned i = 0; i < MARKS; i++) {
        uint8_t page[PAGE_SIZE_4K] = {0};

        mark_page(page, i);
        if (gmem_copy_out(vm_gmem(vm), mark_gpa + i * PAGE_SIZE_4K, page, sizeof(page)) < 0)
            abort();
    }
    atomic_store(&seen.marked, true);
}

/* Just before the guest runs again: who compresses now does so while it stands still. */
static void give_a_chance(void)
{
    for (unsigned ms = 0; ms < CHANCE_MS && !atomic_load(&seen.too_early); ms++)
        (void)usleep(1000);
}

int __real_ioctl(int fd, unsigned long request, void *arg);
int __wrap_ioctl(int fd, unsigned long request, void *arg);

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
    if (vm && vm_state(vm) == VM_PAUSED) {
        if (request == KVM_GET_VCPU_EVENTS) /* the processor is saved */
            write_marks();
        if (request == KVM_KVMCLOCK_CTRL) /* it is about to run */
            give_a_chance();
    }
    return __real_ioctl(fd, request, arg);
}

/* ---- compression --------------------------------------------------------------------- */

size_t __real_ZSTD_compress2(ZSTD_CCtx *cctx, void *dst, size_t max, const void *src, size_t len);
size_t __wrap_ZSTD_compress2(ZSTD_CCtx *cctx, void *dst, size_t max, const void *src, size_t len);

/* Slow as can be: the first page that was marked waits until the guest is seen to run. */
size_t __wrap_ZSTD_compress2(ZSTD_CCtx *cctx, void *dst, size_t max, const void *src, size_t len)
{
    bool stands = vm_state(vm) == VM_PAUSED;
    unsigned marks = 0;

    for (size_t off = 0; off + PAGE_SIZE_4K <= len; off += PAGE_SIZE_4K)
        marks += is_mark((const uint8_t *)src + off);
    /* Of a moment, no page is read while it lasts; rounds may have some on their way from before. */
    if (stands && (marks || seen.mode == SNAP_MODE_MOMENT))
        atomic_fetch_add(&seen.too_early, 1);
    else if (marks && atomic_load(&seen.marks) == 0)
        atomic_store(&seen.ran_beside, runs_on());
    atomic_fetch_add(&seen.marks, marks);
    return __real_ZSTD_compress2(cctx, dst, max, src, len);
}

/* ---- tests ------------------------------------------------------------------------------ */

static void remove_tree(const char *dir)
{
    pid_t pid = fork();

    if (pid == 0) {
        (void)execlp("rm", "rm", "-rf", dir, NULL);
        _exit(1);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void check(enum snap_mode mode)
{
    char dir[] = "/tmp/snap_order.XXXXXX", url[64];
    struct snap_track *track = NULL;
    struct snap_progress progress = {0};
    struct snap_result result;
    struct vm_config config = {0};
    struct store *store = NULL;
    struct err err = {0};
    struct snap_capture_cfg cfg = {.url = url, .mode = mode, .track = &track};
    int rc;

    memset(&seen, 0, sizeof(seen));
    seen.mode = mode;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(url, sizeof(url), "store:%s/store#one", dir);
    start(&config);
    rc = snap_capture(vm, &cfg, &progress, &result, &store, &err);
    snap_capture_end(store);
    vm_free(vm);
    vm = NULL;
    vm_config_release(&config);
    remove_tree(dir);
    if (rc == -ENOTSUP || rc == -EPERM || rc == -ENOSYS) {
        print_message("skipped: %s\n", err.msg);
        skip();
    }
    if (rc < 0)
        fail_msg("%s", err.msg);
    assert_true(atomic_load(&seen.marked));
    assert_int_equal(atomic_load(&seen.too_early), 0);
    assert_int_equal(atomic_load(&seen.marks), MARKS);
    assert_true(atomic_load(&seen.ran_beside));
}

static void test_memory_of_a_moment_is_compressed_when_the_guest_runs_again(void **state)
{
    (void)state;
    check(SNAP_MODE_MOMENT);
}

static void test_the_last_pages_of_rounds_are_compressed_when_the_guest_runs_again(void **state)
{
    (void)state;
    check(SNAP_MODE_ROUNDS);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_of_a_moment_is_compressed_when_the_guest_runs_again),
        cmocka_unit_test(test_the_last_pages_of_rounds_are_compressed_when_the_guest_runs_again),
    };

    guest_path = lane_guest(argc, argv);
    if (!guest_path)
        return LANE_SKIPPED;
    return cmocka_run_group_tests_name("snap_order", tests, NULL, NULL);
}
