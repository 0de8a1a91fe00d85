/* SPDX-License-Identifier: Apache-2.0 */
#include "core/vcpu.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/bus.h"
#include "core/kvm.h"
#include "core/log.h"

enum want {
    WANT_PARK,
    WANT_RUN,
    WANT_END,
};

struct vcpu {
    unsigned index;
    struct kvm_vcpu *kv;
    struct bus *pio;
    struct bus *mmio;
    struct vcpu_hooks hooks;
    pthread_t thread;

    pthread_mutex_t lock; /* all below; a leaf */
    pthread_cond_t changed;
    enum want want;
    bool parked;
    bool nmi; /* wanted; KVM is told by the thread, for it holds the vCPU while it runs */
    uint64_t nap_until_ns; /* CLOCK_MONOTONIC: the guest stays out until then; 0: it does not */
};

static int kick_signal(void)
{
    return SIGRTMIN;
}

static void on_kick(int sig)
{
    (void)sig; /* its only purpose is to interrupt KVM_RUN */
}

void vcpu_init_signals(void)
{
    struct sigaction sa = {.sa_handler = on_kick};

    (void)sigaction(kick_signal(), &sa, NULL);
}

/* --- Exits --------------------------------------------------------------- */

static void do_io(struct vcpu *v, struct kvm_run *run)
{
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    unsigned size = run->io.size;

    for (uint32_t i = 0; i < run->io.count; i++, data += size) {
        uint64_t val = 0;

        if (run->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&val, data, size);
            bus_write(v->pio, run->io.port, size, val);
        } else {
            val = bus_read(v->pio, run->io.port, size);
            memcpy(data, &val, size);
        }
    }
}

/* A guest may access 1 to 8 bytes; a device sees powers of two that do not exceed its access. */
static void do_mmio(struct vcpu *v, struct kvm_run *run)
{
    uint32_t done = 0, len = run->mmio.len < 8 ? run->mmio.len : 8;

    while (done < len) {
        uint64_t addr = run->mmio.phys_addr + done, val = 0;
        unsigned size = 8;

        while (size > len - done)
            size /= 2;
        if (run->mmio.is_write) {
            memcpy(&val, run->mmio.data + done, size);
            bus_write(v->mmio, addr, size, val);
        } else {
            val = bus_read(v->mmio, addr, size);
            memcpy(run->mmio.data + done, &val, size);
        }
        done += size;
    }
}

static void stop_for_error(struct vcpu *v, const char *fmt, ...) PRINTF(2, 3);
static void stop_for_error(struct vcpu *v, const char *fmt, ...)
{
    char what[160];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    v->hooks.stopped(v->hooks.arg, v->index, VCPU_STOP_ERROR, what);
}

static void internal_error(struct vcpu *v, const struct kvm_run *run)
{
    char bytes[3 * 15 + 1] = "";

    if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION &&
        run->emulation_failure.ndata >= 3 &&
        run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)
        for (unsigned i = 0; i < run->emulation_failure.insn_size && i < 15; i++)
            (void)snprintf(bytes + 3 * (size_t)i, 4, " %02x", run->emulation_failure.insn_bytes[i]);
    stop_for_error(v, "KVM internal error, suberror %u%s%s", run->internal.suberror,
                   bytes[0] ? ", instruction" : "", bytes);
}

/* Handle one exit; false if the vCPU shall park. */
static bool handle_exit(struct vcpu *v)
{
    struct kvm_run *run = kvm_vcpu_exit(v->kv);

    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        do_io(v, run);
        break;
    case KVM_EXIT_MMIO:
        do_mmio(v, run);
        break;
    case KVM_EXIT_IOAPIC_EOI:
        v->hooks.eoi(v->hooks.arg, run->eoi.vector);
        break;
    case KVM_EXIT_HLT:
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_TPR_ACCESS:
        break;
    case KVM_EXIT_SHUTDOWN:
        v->hooks.stopped(v->hooks.arg, v->index, VCPU_STOP_SHUTDOWN, "triple fault");
        return false;
    case KVM_EXIT_SYSTEM_EVENT:
        v->hooks.stopped(v->hooks.arg, v->index, VCPU_STOP_SHUTDOWN, "system event");
        return false;
    case KVM_EXIT_INTERNAL_ERROR:
        internal_error(v, run);
        return false;
    case KVM_EXIT_FAIL_ENTRY:
        stop_for_error(v, "guest entry failed, hardware reason %#llx",
                       (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
        return false;
    default:
        stop_for_error(v, "unexpected exit %u from KVM", run->exit_reason);
        return false;
    }
    return !v->hooks.should_park(v->hooks.arg);
}

/* --- The thread ---------------------------------------------------------- */

/* Complete the access that the last exit was about: KVM finishes it on entry and comes back. */
static void drain(struct vcpu *v)
{
    int rc;

    kvm_vcpu_set_immediate_exit(v->kv, true);
    do {
        rc = kvm_vcpu_run(v->kv);
        /* An access that spans pages exits once for each. */
        if (rc == 0)
            (void)handle_exit(v);
    } while (rc == 0);
}

static void take_nmi_locked(struct vcpu *v)
{
    v->nmi = v->nmi && kvm_vcpu_nmi(v->kv) < 0;
}

/* Stay out of the guest for a while; whoever wants something else ends it. */
static void nap_locked(struct vcpu *v)
{
    struct timespec ts = {(time_t)(v->nap_until_ns / 1000000000),
                          (long)(v->nap_until_ns % 1000000000)};

    while (v->want == WANT_RUN && v->nap_until_ns && !v->nmi)
        if (pthread_cond_timedwait(&v->changed, &v->lock, &ts) == ETIMEDOUT)
            v->nap_until_ns = 0;
}

/* KVM_RUN was interrupted: whether to go on. */
static bool goes_on(struct vcpu *v)
{
    bool on;

    (void)pthread_mutex_lock(&v->lock);
    nap_locked(v);
    on = v->want == WANT_RUN;
    if (on) {
        kvm_vcpu_set_immediate_exit(v->kv, false);
        take_nmi_locked(v);
    }
    (void)pthread_mutex_unlock(&v->lock);
    return on;
}

static void run_guest(struct vcpu *v)
{
    for (;;) {
        int rc = kvm_vcpu_run(v->kv);

        if (rc == -EINTR || rc == -EAGAIN) {
            if (goes_on(v))
                continue;
            return; /* immediate_exit is set: everything pending was completed */
        }
        if (rc < 0) {
            stop_for_error(v, "KVM_RUN: %s", strerror(-rc));
            return;
        }
        if (!handle_exit(v)) {
            drain(v);
            return;
        }
    }
}

static void *vcpu_main(void *arg)
{
    struct vcpu *v = arg;
    char name[16];

    (void)snprintf(name, sizeof(name), "vcpu%u", v->index);
    log_thread_name(name);
    v->hooks.thread_start(v->hooks.arg, v->index);
    (void)pthread_mutex_lock(&v->lock);
    while (v->want != WANT_END) {
        if (v->want == WANT_PARK) {
            take_nmi_locked(v);
            v->parked = true;
            (void)pthread_cond_broadcast(&v->changed);
            (void)pthread_cond_wait(&v->changed, &v->lock);
            continue;
        }
        v->parked = false;
        kvm_vcpu_set_immediate_exit(v->kv, false);
        (void)pthread_mutex_unlock(&v->lock);
        run_guest(v);
        (void)pthread_mutex_lock(&v->lock);
        if (v->want == WANT_RUN)
            v->want = WANT_PARK; /* it stopped by itself */
    }
    v->parked = true;
    (void)pthread_cond_broadcast(&v->changed);
    (void)pthread_mutex_unlock(&v->lock);
    return NULL;
}

/* --- Control ------------------------------------------------------------- */

static void set_want(struct vcpu *v, enum want want)
{
    (void)pthread_mutex_lock(&v->lock);
    v->want = want;
    if (want == WANT_RUN)
        v->parked = false;
    else if (!v->parked)
        kvm_vcpu_set_immediate_exit(v->kv, true);
    (void)pthread_cond_broadcast(&v->changed);
    (void)pthread_mutex_unlock(&v->lock);
    if (want != WANT_RUN)
        (void)pthread_kill(v->thread, kick_signal());
}

int vcpu_new(const struct vcpu_params *p, struct vcpu **ret_vcpu, struct err *err)
{
    struct vcpu *v = calloc(1, sizeof(*v));
    pthread_condattr_t attr;
    int rc;

    if (!v)
        return -ENOMEM;
    *v = (struct vcpu){.index = p->index, .pio = p->pio, .mmio = p->mmio, .hooks = p->hooks};
    (void)pthread_mutex_init(&v->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&v->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
    rc = kvm_vcpu_open(p->kvm, p->apic_id, &v->kv, err);
    if (rc >= 0) {
        rc = -pthread_create(&v->thread, NULL, vcpu_main, v);
        if (rc < 0)
            (void)err_set(err, rc, "vCPU %u: thread: %s", p->index, strerror(-rc));
    }
    if (rc < 0) {
        kvm_vcpu_close(v->kv);
        free(v);
        return rc;
    }
    *ret_vcpu = v;
    return 0;
}

void vcpu_free(struct vcpu *v)
{
    if (!v)
        return;
    set_want(v, WANT_END);
    (void)pthread_join(v->thread, NULL);
    kvm_vcpu_close(v->kv);
    (void)pthread_cond_destroy(&v->changed);
    (void)pthread_mutex_destroy(&v->lock);
    free(v);
}

void vcpu_resume(struct vcpu *v)
{
    set_want(v, WANT_RUN);
}

void vcpu_pause_begin(struct vcpu *v)
{
    set_want(v, WANT_PARK);
}

void vcpu_pause_wait(struct vcpu *v)
{
    (void)pthread_mutex_lock(&v->lock);
    while (!v->parked)
        (void)pthread_cond_wait(&v->changed, &v->lock);
    (void)pthread_mutex_unlock(&v->lock);
}

void vcpu_nmi(struct vcpu *v)
{
    (void)pthread_mutex_lock(&v->lock);
    v->nmi = true;
    if (!v->parked)
        kvm_vcpu_set_immediate_exit(v->kv, true);
    (void)pthread_mutex_unlock(&v->lock);
    (void)pthread_kill(v->thread, kick_signal());
}

void vcpu_nap(struct vcpu *v, uint64_t until_ns)
{
    bool running;

    (void)pthread_mutex_lock(&v->lock);
    running = v->want == WANT_RUN && !v->parked;
    v->nap_until_ns = running ? until_ns : 0;
    if (running && until_ns)
        kvm_vcpu_set_immediate_exit(v->kv, true);
    (void)pthread_cond_broadcast(&v->changed);
    (void)pthread_mutex_unlock(&v->lock);
    if (running && until_ns)
        (void)pthread_kill(v->thread, kick_signal());
}

struct kvm_vcpu *vcpu_kvm(struct vcpu *v)
{
    return v->kv;
}
