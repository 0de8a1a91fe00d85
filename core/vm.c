/* SPDX-License-Identifier: Apache-2.0 */
#include "core/vm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/bus.h"
#include "core/config/vm_config.h"
#include "core/gmem.h"
#include "core/log.h"
#include "core/vm_internal.h"
#include "core/x86/cpu_model.h"

/* --- Time ---------------------------------------------------------------- */

uint64_t vm_time_ns(const struct vm *vm)
{
    uint64_t t = atomic_load(&vm->time_ns);

    return atomic_load(&vm->time_runs) ? loop_now_ns() - t : t;
}

void vm_time_start(struct vm *vm)
{
    if (atomic_load(&vm->time_runs))
        return;
    atomic_store(&vm->time_ns, loop_now_ns() - atomic_load(&vm->time_ns));
    atomic_store(&vm->time_runs, true);
}

void vm_time_stop(struct vm *vm)
{
    uint64_t now = vm_time_ns(vm);

    atomic_store(&vm->time_runs, false);
    atomic_store(&vm->time_ns, now);
}

/* --- What devices ask of the machine --------------------------------------- */

static uint64_t env_now_ns(void *arg)
{
    return vm_time_ns(arg);
}

static int64_t env_wall_ns(void *arg)
{
    struct timespec ts = {0};

    (void)arg;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void env_irq_set(void *arg, unsigned pin, bool level)
{
    struct vm *vm = arg;

    vm->board_ops->irq_set(vm->board, pin, level);
}

static void env_msi_send(void *arg, uint64_t addr, uint32_t data)
{
    struct vm *vm = arg;

    kvm_signal_msi(vm->kvm, addr, data);
}

static void env_guest_error(void *arg, const struct device *dev, const char *fmt, va_list ap)
    PRINTF(3, 0);

static void env_guest_error(void *arg, const struct device *dev, const char *fmt, va_list ap)
{
    char what[160];

    (void)arg;
    /* The first of each power of two, so that a guest cannot fill a disk. */
    if (!log_enabled(LOG_DEBUG) || dev->guest_errors & (dev->guest_errors - 1))
        return;
    (void)vsnprintf(what, sizeof(what), fmt, ap);
    log_debug("%s: guest error %llu: %s", dev->id, (unsigned long long)dev->guest_errors, what);
}

static void env_request(void *arg, enum machine_request what)
{
    struct vm *vm = arg;

    /* The vCPU that asked goes no further. */
    atomic_store(&vm->park, true);
    vm->hooks.request(vm->hooks.arg, what);
}

static int env_ioeventfd(void *arg, int fd, uint64_t gpa, unsigned len, bool on)
{
    struct vm *vm = arg;

    /*
     * KVM's memory first: it waits for a grace period, which another change of its buses that is
     * under way makes a slow one, 8 ms and more on a busy machine.
     */
    if (vm->ground && vm_ground_end(vm->ground, NULL) < 0)
        return -EIO; /* vm_settle() says why */
    return kvm_ioeventfd(vm->kvm, fd, gpa, len, on);
}

static void env_event(void *arg, const char *source, const char *event, const char *id)
{
    struct vm *vm = arg;

    vm->hooks.event(vm->hooks.arg, source, event, id);
}

static const struct dev_env_ops env_ops = {
    .now_ns = env_now_ns,
    .wall_ns = env_wall_ns,
    .irq_set = env_irq_set,
    .msi_send = env_msi_send,
    .guest_error = env_guest_error,
    .request = env_request,
    .ioeventfd = env_ioeventfd,
    .event = env_event,
};

/* --- What vCPUs ask of the machine ------------------------------------------ */

static void on_eoi(void *arg, uint8_t vector)
{
    struct vm *vm = arg;

    vm->board_ops->eoi(vm->board, vector);
}

static void on_stopped(void *arg, unsigned index, enum vcpu_stop why, const char *what)
{
    struct vm *vm = arg;

    atomic_store(&vm->park, true);
    vm->hooks.stopped(vm->hooks.arg, index, why, what);
}

static bool should_park(void *arg)
{
    const struct vm *vm = arg;

    return atomic_load_explicit(&vm->park, memory_order_relaxed);
}

static void vcpu_thread_start(void *arg, unsigned index)
{
    struct vm *vm = arg;

    (void)index;
    vm->hooks.thread_start(vm->hooks.arg, THREAD_VCPU);
}

/* --- Building ---------------------------------------------------------------- */

static void *io_main(void *arg)
{
    struct vm *vm = arg;
    int rc;

    log_thread_name("io");
    vm->hooks.thread_start(vm->hooks.arg, THREAD_IO);
    rc = loop_run(vm->io_loop);
    if (rc < 0)
        log_error("I/O loop: %s", strerror(-rc));
    return NULL;
}

static int build_buses(struct vm *vm, struct err *err)
{
    int rc = bus_new(0x10000, &vm->pio);

    if (rc >= 0)
        rc = bus_new(0, &vm->mmio);
    if (rc >= 0)
        rc = loop_new(&vm->io_loop);
    if (rc < 0)
        return err_set(err, rc, "buses and I/O loop: %s", strerror(-rc));
    bus_set_ram(vm->mmio, vm->gm);
    vm->env = (struct dev_env){
        .ops = &env_ops,
        .arg = vm,
        .gm = vm->gm,
        .loop = vm->io_loop,
        .pio = vm->pio,
        .mmio = vm->mmio,
    };
    return 0;
}

static int start_io_thread(struct vm *vm, struct err *err)
{
    int rc = -pthread_create(&vm->io_thread, NULL, io_main, vm);

    if (rc < 0)
        return err_set(err, rc, "I/O thread: %s", strerror(-rc));
    vm->io_started = true;
    return 0;
}

static int build_vcpus(struct vm *vm, struct err *err)
{
    const struct cpu_topology_config *t = &vm->cfg->cpus.topology;
    const struct cpu_topology topology = {t->threads_per_core, t->cores_per_die,
                                          t->dies_per_package, t->packages};
    struct vcpu_params params = {
        .kvm = vm->kvm,
        .pio = vm->pio,
        .mmio = vm->mmio,
        .hooks = {.eoi = on_eoi,
                  .stopped = on_stopped,
                  .should_park = should_park,
                  .thread_start = vcpu_thread_start,
                  .arg = vm},
    };
    unsigned n = vm->cfg->cpus.boot_vcpus;

    if (n > kvm_max_vcpus(vm->kvm))
        return err_set(err, -EINVAL, "cpus.boot: %u is more than this host's KVM can run (%u)", n,
                       kvm_max_vcpus(vm->kvm));
    vm->vcpus = calloc(n, sizeof(struct vcpu *));
    vm->tsc = calloc(n, sizeof(*vm->tsc));
    if (!vm->vcpus || !vm->tsc)
        return err_set(err, -ENOMEM, "cpus.boot: out of memory for %u vCPUs", n);
    for (; vm->nr_vcpus < n; vm->nr_vcpus++) {
        int rc;

        params.index = vm->nr_vcpus;
        params.apic_id = cpu_topology_apic_id(&topology, vm->nr_vcpus);
        rc = vcpu_new(&params, &vm->vcpus[vm->nr_vcpus], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int vm_settle(struct vm *vm, struct err *err)
{
    int rc = vm->ground ? vm_ground_end(vm->ground, err) : 0;

    vm_ground_free(steal_ptr(vm->ground));
    return rc;
}

static int build(struct vm *vm, const struct vm_origin *from, struct err *err)
{
    int rc = vm_ground_take(&vm->ground, vm->cfg, &vm->kvm, &vm->gm, err);

    if (rc >= 0)
        rc = dirty_new(vm->gm, &kvm_dirty_log_ops, vm->kvm, &vm->dirty);
    if (rc >= 0)
        rc = build_buses(vm, err);
    if (rc >= 0)
        rc = build_vcpus(vm, err);
    if (rc >= 0)
        rc = vm_set_up_cpus(vm, from, err);
    if (rc >= 0)
        rc = vm->board_ops->build(vm, vm->cfg, &vm->board, err);
    if (rc >= 0)
        rc = start_io_thread(vm, err);
    return rc;
}

int vm_new(const struct vm_config *cfg, const struct vm_origin *from, struct vm_ground *ground,
           const struct vm_board_ops *board, const struct vm_hooks *hooks, struct vm **ret_vm,
           struct err *err)
{
    struct vm *vm = calloc(1, sizeof(*vm));
    int rc;

    if (!vm) {
        vm_ground_free(ground);
        return -ENOMEM;
    }
    vm->cfg = cfg;
    vm->ground = ground;
    vm->board_ops = board;
    vm->hooks = *hooks;
    vm->state = VM_CREATED;
    rc = build(vm, from, err);
    if (rc < 0) {
        vm_free(vm);
        return rc;
    }
    *ret_vm = vm;
    return 0;
}

void vm_free(struct vm *vm)
{
    if (!vm)
        return;
    vm_ground_free(steal_ptr(vm->ground));
    for (unsigned i = 0; i < vm->nr_vcpus; i++)
        vcpu_free(vm->vcpus[i]);
    if (vm->state == VM_RUNNING && vm_quiesce_devices(vm, NULL) < 0)
        log_warn("some device's I/O did not end; it is abandoned");
    if (vm->io_started) {
        loop_stop(vm->io_loop);
        (void)pthread_join(vm->io_thread, NULL);
    }
    vm_release(vm);
    while (vm->nr_devices)
        device_free(vm->devices[--vm->nr_devices]);
    if (vm->board)
        vm->board_ops->destroy(vm->board);
    vm_free_cpus(vm);
    free(vm->vcpus);
    free(vm->tsc);
    dirty_free(vm->dirty);
    loop_free(vm->io_loop);
    bus_free(vm->pio);
    bus_free(vm->mmio);
    kvm_close(vm->kvm);
    gmem_free(vm->gm);
    free(vm);
}

int vm_add_device(struct vm *vm, const struct device_ops *ops, const char *id, const void *cfg,
                  struct device **ret_dev, struct err *err)
{
    int rc;

    if (vm->nr_devices == VM_DEVICES_MAX)
        return err_set(err, -E2BIG, "%s: more than %d devices", id, VM_DEVICES_MAX);
    for (unsigned i = 0; i < vm->nr_devices; i++)
        if (strcmp(vm->devices[i]->id, id) == 0)
            return err_set(err, -EEXIST, "%s: there is a device with this id already", id);
    rc = device_new(ops, &vm->env, id, cfg, &vm->devices[vm->nr_devices], err);
    if (rc < 0)
        return rc;
    *ret_dev = vm->devices[vm->nr_devices++];
    return 0;
}

/* --- Accessors ----------------------------------------------------------------- */

enum vm_state vm_state(const struct vm *vm)
{
    return atomic_load(&vm->state);
}

void vm_stay_paused(struct vm *vm)
{
    vm->was_running = false;
}

bool vm_was_running(const struct vm *vm)
{
    return vm->was_running;
}

struct gmem *vm_gmem(struct vm *vm)
{
    return vm->gm;
}

struct dirty *vm_dirty(struct vm *vm)
{
    return vm->dirty;
}

struct kvm *vm_kvm(struct vm *vm)
{
    return vm->kvm;
}

void *vm_board(struct vm *vm)
{
    return vm->board;
}

const struct vm_config *vm_config(const struct vm *vm)
{
    return vm->cfg;
}

const struct cpu_model *vm_cpu_model(const struct vm *vm)
{
    return vm->model;
}

const struct dev_env *vm_env(struct vm *vm)
{
    return &vm->env;
}

unsigned vm_nr_devices(const struct vm *vm)
{
    return vm->nr_devices;
}

struct device *vm_device(struct vm *vm, unsigned i)
{
    return vm->devices[i];
}

int vm_sync_disks(struct vm *vm, struct err *err)
{
    return vm->board_ops->sync(vm->board, err);
}

void vm_announce(struct vm *vm)
{
    vm->board_ops->announce(vm->board);
}

int vm_set_identity(struct vm *vm, const uint8_t genid[16], struct err *err)
{
    if (vm->state != VM_PAUSED)
        return err_set(err, -EPERM, "the VM's identity cannot be changed while it is %s",
                       vm_state_name(vm->state));
    return vm->board_ops->set_identity(vm->board, genid, err);
}
