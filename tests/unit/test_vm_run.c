/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clocks of a machine that goes on: one without processors, whose KVM is this file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "core/kvm_internal.h"
#include "core/vm_internal.h"
#include "core/x86/cpu_model.h"

#define SECOND_NS UINT64_C(1000000000)

enum {
    CALLS_MAX = 8, /* more than a resume makes */
};

/* --- The host's clocks, which stand still, and the guest's ------------------- */

static const uint64_t host_ns = 1000 * SECOND_NS;
static uint64_t kvmclock_ns;
static unsigned calls_left; /* to KVM, before one fails; 0: none does */

int __wrap_clock_gettime(clockid_t id, struct timespec *ts);
int __wrap_ioctl(int fd, unsigned long request, struct kvm_clock_data *d);

int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
    (void)id;
    *ts = (struct timespec){.tv_sec = (time_t)(host_ns / SECOND_NS)};
    return 0;
}

int __wrap_ioctl(int fd, unsigned long request, struct kvm_clock_data *d)
{
    (void)fd;
    if (calls_left && !--calls_left) {
        errno = EIO;
        return -1;
    }
    if (request == KVM_SET_CLOCK)
        kvmclock_ns = d->clock;
    else if (request == KVM_GET_CLOCK)
        *d = (struct kvm_clock_data){.clock = kvmclock_ns};
    return 0;
}

/* --- The machine -------------------------------------------------------------- */

enum {
    PAUSED_S = 70, /* its time, and its kvmclock, at the pause */
    AWAY_S = 30,
};

struct machine {
    struct kvm kvm;
    struct cpu_model model;
    struct vm vm;
};

/* @loaded: it was paused on another host. */
static struct vm *machine_pause(struct machine *m, bool loaded)
{
    memset(m, 0, sizeof(*m));
    m->kvm.fd = -1;
    m->model.tsc_khz = 1000000;
    m->vm.kvm = &m->kvm;
    m->vm.model = &m->model;
    m->vm.acquired = true;
    m->vm.loaded = loaded;
    m->vm.clock = (struct kvm_clock_sample){.clock_ns = PAUSED_S * SECOND_NS,
                                            .realtime_ns = host_ns - AWAY_S * SECOND_NS};
    atomic_store(&m->vm.state, VM_PAUSED);
    atomic_store(&m->vm.time_ns, PAUSED_S * SECOND_NS);
    return &m->vm;
}

static void test_the_time_of_a_pause_passes_once(void **state)
{
    static struct machine m;

    (void)state;
    for (unsigned loaded = 0; loaded < 2; loaded++) {
        struct vm *vm = machine_pause(&m, loaded);

        assert_int_equal(vm_resume(vm, VM_CLOCK_ADVANCE, NULL), 0);
        assert_int_equal(vm_time_ns(vm), (PAUSED_S + AWAY_S) * SECOND_NS);
        vm = machine_pause(&m, loaded);
        assert_int_equal(vm_resume(vm, VM_CLOCK_CONTINUE, NULL), 0);
        assert_int_equal(vm_time_ns(vm), PAUSED_S * SECOND_NS);
    }
}

/* Whoever asked may ask again, as after a migration that came to nothing. */
static void test_a_resume_that_failed_does_not_count_the_pause(void **state)
{
    static struct machine m;
    unsigned nth = 1;
    int rc = -EIO;

    (void)state;
    for (; rc < 0 && nth < CALLS_MAX; nth++) {
        struct vm *vm = machine_pause(&m, true);

        calls_left = nth;
        rc = vm_resume(vm, VM_CLOCK_ADVANCE, NULL);
        calls_left = 0;
        if (rc >= 0)
            continue;
        assert_int_equal(rc, -EIO);
        assert_int_equal(vm_state(vm), VM_PAUSED);
        assert_int_equal(vm_time_ns(vm), PAUSED_S * SECOND_NS);
        assert_int_equal(vm_resume(vm, VM_CLOCK_ADVANCE, NULL), 0);
        assert_int_equal(vm_time_ns(vm), (PAUSED_S + AWAY_S) * SECOND_NS);
        assert_int_equal(kvmclock_ns, (PAUSED_S + AWAY_S) * SECOND_NS);
    }
    /* To set kvmclock and to read it back. */
    assert_int_equal(rc, 0);
    assert_true(nth > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_time_of_a_pause_passes_once),
        cmocka_unit_test(test_a_resume_that_failed_does_not_count_the_pause),
    };

    return cmocka_run_group_tests_name("vm_run", tests, NULL, NULL);
}
