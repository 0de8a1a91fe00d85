/* SPDX-License-Identifier: Apache-2.0 */
#include "core/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>

#include "core/gmem.h"
#include "core/kvm_internal.h"
#include "core/log.h"
#include "core/x86/layout.h"

enum {
    KVM_API = 12,
    KVM_CPUID_MAX = 512,
    KVM_MSRS_MAX = 1024,
};

/* --- Life cycle ---------------------------------------------------------- */

static int open_dev(struct err *err)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (fd >= 0)
        return fd;
    if (errno == ENOENT) {
        return err_set(err, -ENOENT,
                       "/dev/kvm is not there: the host has no KVM, or its module "
                       "(kvm_intel, kvm_amd) is not loaded");
    }
    if (errno == EACCES) {
        return err_set(err, -EACCES,
                       "/dev/kvm: permission denied: run as root or join the "
                       "group kvm");
    }
    return err_set(err, -errno, "/dev/kvm: %s", strerror(errno));
}

static int require(const struct kvm *kvm, unsigned cap, const char *name, struct err *err)
{
    if (kvm_has(kvm, cap) > 0)
        return 0;
    return err_set(err, -ENOTSUP, "the kernel's KVM lacks %s", name);
}

static int check_caps(const struct kvm *kvm, struct err *err)
{
    static const struct {
        unsigned cap;
        const char *name;
    } needed[] = {
  /* clang-format off */
        {KVM_CAP_USER_MEMORY,          "KVM_CAP_USER_MEMORY"},
        {KVM_CAP_SPLIT_IRQCHIP,        "KVM_CAP_SPLIT_IRQCHIP"},
        {KVM_CAP_SIGNAL_MSI,           "KVM_CAP_SIGNAL_MSI"},
        {KVM_CAP_IMMEDIATE_EXIT,       "KVM_CAP_IMMEDIATE_EXIT"},
        {KVM_CAP_IOEVENTFD,            "KVM_CAP_IOEVENTFD"},
        {KVM_CAP_ADJUST_CLOCK,         "KVM_CAP_ADJUST_CLOCK"},
        {KVM_CAP_GET_MSR_FEATURES,     "KVM_CAP_GET_MSR_FEATURES"},
        {KVM_CAP_XSAVE,                "KVM_CAP_XSAVE"},
        {KVM_CAP_VCPU_EVENTS,          "KVM_CAP_VCPU_EVENTS"},
        {KVM_CAP_MP_STATE,             "KVM_CAP_MP_STATE"},
  /* clang-format on */
    };
    int rc = 0;

    for (size_t i = 0; i < ARRAY_LEN(needed) && rc >= 0; i++)
        rc = require(kvm, needed[i].cap, needed[i].name, err);
    return rc;
}

static int enable_cap(const struct kvm *kvm, uint32_t cap, uint64_t arg0)
{
    struct kvm_enable_cap c = {.cap = cap, .args = {arg0}};

    return ioctl(kvm->fd, KVM_ENABLE_CAP, &c) < 0 ? -errno : 0;
}

/* A capability that makes more events visible; without it they are saved as the kernel has them. */
static uint32_t enable_event(const struct kvm *kvm, uint32_t cap, uint32_t valid)
{
    return kvm_has(kvm, cap) > 0 && enable_cap(kvm, cap, 1) >= 0 ? valid : 0;
}

static void set_up_events(struct kvm *kvm)
{
    kvm->events_allowed = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
                          KVM_VCPUEVENT_VALID_SHADOW;
    if (kvm_has(kvm, KVM_CAP_X86_SMM) > 0)
        kvm->events_allowed |= KVM_VCPUEVENT_VALID_SMM;
    kvm->events_allowed |=
        enable_event(kvm, KVM_CAP_EXCEPTION_PAYLOAD, KVM_VCPUEVENT_VALID_PAYLOAD);
    kvm->events_allowed |=
        enable_event(kvm, KVM_CAP_X86_TRIPLE_FAULT_EVENT, KVM_VCPUEVENT_VALID_TRIPLE_FAULT);
}

static int set_up_vm(struct kvm *kvm, struct err *err)
{
    /* Intel hosts want 4 pages for a task state segment and an identity map where no RAM is. */
    uint64_t identity = X86_KVM_IDENTITY_GPA;
    int manual = kvm_has(kvm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
    const int want = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;
    int rc;

    if (ioctl(kvm->fd, KVM_SET_TSS_ADDR, (unsigned long)X86_KVM_TSS_GPA) < 0)
        return err_set(err, -errno, "KVM_SET_TSS_ADDR: %s", strerror(errno));
    if (ioctl(kvm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0)
        return err_set(err, -errno, "KVM_SET_IDENTITY_MAP_ADDR: %s", strerror(errno));
    rc = enable_cap(kvm, KVM_CAP_SPLIT_IRQCHIP, KVM_IOAPIC_PINS);
    if (rc < 0)
        return err_set(err, rc, "KVM_CAP_SPLIT_IRQCHIP: %s", strerror(-rc));
    /* More than 255 vCPUs need 32-bit APIC ids; without the capability they are refused later. */
    if (kvm_has(kvm, KVM_CAP_X2APIC_API) > 0 &&
        enable_cap(kvm, KVM_CAP_X2APIC_API,
                   KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK) < 0)
        return err_set(err, -errno, "KVM_CAP_X2APIC_API: %s", strerror(errno));
    set_up_events(kvm);
    kvm->dirty_manual = (manual & want) == want &&
                        enable_cap(kvm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, (uint64_t)want) >= 0;
    return 0;
}

static int read_cpuid(struct kvm *kvm, struct err *err)
{
    struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + KVM_CPUID_MAX * sizeof(struct kvm_cpuid_entry2));

    if (!c)
        return err_set(err, -ENOMEM, "CPUID: out of memory");
    kvm->supported = c;
    c->nent = KVM_CPUID_MAX;
    if (ioctl(kvm->dev_fd, KVM_GET_SUPPORTED_CPUID, c) < 0)
        return err_set(err, -errno, "KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
    return 0;
}

int kvm_open(struct kvm **ret_kvm, struct err *err)
{
    struct kvm *kvm = calloc(1, sizeof(*kvm));
    int rc;

    if (!kvm)
        return -ENOMEM;
    kvm->fd = -1;
    rc = kvm->dev_fd = open_dev(err);
    if (rc >= 0 && ioctl(kvm->dev_fd, KVM_GET_API_VERSION, 0) != KVM_API)
        rc = err_set(err, -ENOTSUP, "/dev/kvm speaks another API version than %d", KVM_API);
    if (rc >= 0) {
        /* Interrupted where a signal is pending. */
        do {
            rc = kvm->fd = ioctl(kvm->dev_fd, KVM_CREATE_VM, 0);
        } while (rc < 0 && errno == EINTR);
        if (rc < 0)
            rc = err_set(err, -errno, "KVM_CREATE_VM: %s", strerror(errno));
    }
    if (rc >= 0)
        rc = check_caps(kvm, err);
    if (rc >= 0)
        rc = set_up_vm(kvm, err);
    if (rc >= 0)
        rc = read_cpuid(kvm, err);
    if (rc >= 0) {
        rc = ioctl(kvm->dev_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
        if (rc < 0)
            rc = err_set(err, -errno, "KVM_GET_VCPU_MMAP_SIZE: %s", strerror(errno));
    }
    if (rc < 0) {
        kvm_close(kvm);
        return rc;
    }
    kvm->run_size = (size_t)rc;
    *ret_kvm = kvm;
    return 0;
}

void kvm_close(struct kvm *kvm)
{
    if (!kvm)
        return;
    if (kvm->fd >= 0)
        (void)close(kvm->fd);
    if (kvm->dev_fd >= 0)
        (void)close(kvm->dev_fd);
    free(kvm->supported);
    free(kvm);
}

int kvm_has(const struct kvm *kvm, unsigned cap)
{
    int rc = ioctl(kvm->fd, KVM_CHECK_EXTENSION, (unsigned long)cap);

    return rc < 0 ? 0 : rc;
}

unsigned kvm_max_vcpus(const struct kvm *kvm)
{
    int n = kvm_has(kvm, KVM_CAP_MAX_VCPUS);

    return n > 0 ? (unsigned)n : 4;
}

/* --- Memory -------------------------------------------------------------- */

static int set_slot(struct kvm *kvm, unsigned i, uint32_t flags)
{
    const struct gmem_region *r = gmem_region(kvm->gm, i);
    struct kvm_userspace_memory_region slot = {
        .slot = i,
        .flags = flags,
        .guest_phys_addr = r->gpa,
        .memory_size = r->len,
        .userspace_addr = (uint64_t)(uintptr_t)r->hva,
    };

    return ioctl(kvm->fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0 ? -errno : 0;
}

int kvm_map_memory(struct kvm *kvm, struct gmem *gm, struct err *err)
{
    kvm->gm = gm;
    for (unsigned i = 0; i < gmem_nr_regions(gm); i++) {
        int rc = set_slot(kvm, i, 0);

        if (rc < 0) {
            return err_set(err, rc, "KVM_SET_USER_MEMORY_REGION: zone %s at %#llx: %s",
                           gmem_region(gm, i)->id, (unsigned long long)gmem_region(gm, i)->gpa,
                           strerror(-rc));
        }
    }
    return 0;
}

static int log_set(void *arg, unsigned region, bool on)
{
    struct kvm *kvm = arg;
    int rc = set_slot(kvm, region, on ? KVM_MEM_LOG_DIRTY_PAGES : 0);

    if (rc >= 0)
        log_debug("dirty log of zone %s: %s", gmem_region(kvm->gm, region)->id, on ? "on" : "off");
    return rc;
}

static int log_get(void *arg, unsigned region, uint64_t *bits)
{
    const struct kvm *kvm = arg;
    struct kvm_dirty_log log = {.slot = region, .dirty_bitmap = bits};

    return ioctl(kvm->fd, KVM_GET_DIRTY_LOG, &log) < 0 ? -errno : 0;
}

static int log_clear(void *arg, unsigned region, uint64_t first, uint32_t nr, const uint64_t *bits)
{
    const struct kvm *kvm = arg;
    union {
        const uint64_t *in;
        void *out;
    } map = {.in = bits};
    struct kvm_clear_dirty_log log = {
        .slot = region, .num_pages = nr, .first_page = first, .dirty_bitmap = map.out};

    /* Without manual protection KVM_GET_DIRTY_LOG has protected the pages already. */
    if (!kvm->dirty_manual)
        return 0;
    return ioctl(kvm->fd, KVM_CLEAR_DIRTY_LOG, &log) < 0 ? -errno : 0;
}

const struct dirty_log_ops kvm_dirty_log_ops = {
    .set = log_set,
    .get = log_get,
    .clear = log_clear,
};

/* --- CPU ----------------------------------------------------------------- */

const struct kvm_cpuid2 *kvm_supported_cpuid(const struct kvm *kvm)
{
    return kvm->supported;
}

int kvm_msr_indices(struct kvm *kvm, struct kvm_msr_list **ret_list, struct err *err)
{
    struct kvm_msr_list *l = calloc(1, sizeof(*l) + KVM_MSRS_MAX * sizeof(uint32_t));

    if (!l)
        return -ENOMEM;
    l->nmsrs = KVM_MSRS_MAX;
    if (ioctl(kvm->dev_fd, KVM_GET_MSR_INDEX_LIST, l) < 0) {
        int rc = -errno;

        free(l);
        return err_set(err, rc, "KVM_GET_MSR_INDEX_LIST: %s", strerror(-rc));
    }
    *ret_list = l;
    return 0;
}

/* --- Interrupts and notifications ---------------------------------------- */

void kvm_signal_msi(struct kvm *kvm, uint64_t addr, uint32_t data)
{
    struct kvm_msi msi = {
        .address_lo = (uint32_t)addr, .address_hi = (uint32_t)(addr >> 32), .data = data};

    (void)ioctl(kvm->fd, KVM_SIGNAL_MSI, &msi);
}

int kvm_route_ioapic(struct kvm *kvm, const struct kvm_ioapic_route msis[KVM_IOAPIC_PINS])
{
    struct {
        struct kvm_irq_routing head;
        struct kvm_irq_routing_entry entries[KVM_IOAPIC_PINS];
    } table = {0};
    uint32_t n = 0;

    for (uint32_t pin = 0; pin < KVM_IOAPIC_PINS; pin++) {
        if (!msis[pin].addr)
            continue;
        table.entries[n++] = (struct kvm_irq_routing_entry){
            .gsi = pin,
            .type = KVM_IRQ_ROUTING_MSI,
            .u.msi = {.address_lo = (uint32_t)msis[pin].addr,
                      .address_hi = (uint32_t)(msis[pin].addr >> 32),
                      .data = msis[pin].data},
        };
    }
    table.head.nr = n;
    return ioctl(kvm->fd, KVM_SET_GSI_ROUTING, &table) < 0 ? -errno : 0;
}

int kvm_ioeventfd(struct kvm *kvm, int fd, uint64_t gpa, unsigned len, bool on)
{
    struct kvm_ioeventfd e = {
        .addr = gpa, .len = len, .fd = fd, .flags = on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN};

    return ioctl(kvm->fd, KVM_IOEVENTFD, &e) < 0 ? -errno : 0;
}

/* --- Clock --------------------------------------------------------------- */

int kvm_get_clock(struct kvm *kvm, struct kvm_clock_sample *ret_sample, struct err *err)
{
    struct kvm_clock_data d = {0};

    if (ioctl(kvm->fd, KVM_GET_CLOCK, &d) < 0)
        return err_set(err, -errno, "KVM_GET_CLOCK: %s", strerror(errno));
    *ret_sample = (struct kvm_clock_sample){
        .clock_ns = d.clock,
        .realtime_ns = d.flags & KVM_CLOCK_REALTIME ? d.realtime : 0,
        .host_tsc = d.flags & KVM_CLOCK_HOST_TSC ? d.host_tsc : 0,
    };
    return 0;
}

int kvm_set_clock(struct kvm *kvm, uint64_t clock_ns, struct err *err)
{
    struct kvm_clock_data d = {.clock = clock_ns};

    if (ioctl(kvm->fd, KVM_SET_CLOCK, &d) < 0)
        return err_set(err, -errno, "KVM_SET_CLOCK: %s", strerror(errno));
    return 0;
}
