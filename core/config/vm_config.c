/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one check of a configuration, which also puts the defaults in place.
 */
#include "core/config/vm_config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum {
    DEFAULT_PHYS_BITS = 46,
    DEFAULT_DISK_QUEUE_SIZE = 128,
    DEFAULT_NET_QUEUE_SIZE = 256,
    DEFAULT_IOBASE = 0xe9,
    CPU_THREADS_MAX = 2,
    MTU_MIN = 1280,
    QUEUE_SIZE_MIN = 4,
    PCI_SLOTS = 32,
    NAME_MAX_LEN = 32, /* of "disks[255]" and the like */
};

#define DEFAULT_MEMORY MIB(512)
#define DEFAULT_RNG    "/dev/urandom"

/* What is unique in the whole machine, gathered while it is checked. */
struct config_check {
    struct vm_config *cfg;
    const char *slot_owner[PCI_SLOTS]; /* borrowed: id of the device that asked for it */
    unsigned next_id;
    struct err *err;
};

static bool config_is_power_of_two(uint64_t v)
{
    return v && !(v & (v - 1));
}

/* ---- names --------------------------------------------------------------- */

static int config_check_id(const struct config_check *check, const char *what, const char *id)
{
    if (!strncmp(id, "__", 2))
        return err_set(check->err, -EINVAL, "%s.id: '%s': ids with __ in front are reserved", what,
                       id);
    for (const char *s = id; *s; s++) {
        if (*s <= ' ' || *s > '~' || *s == '/' || *s == '"')
            return err_set(check->err, -EINVAL, "%s.id: has a character that cannot be there",
                           what);
    }
    return *id ? 0 : err_set(check->err, -EINVAL, "%s.id: is empty", what);
}

/* ---- processors and memory ------------------------------------------------- */

static int config_check_cpus(struct config_check *check)
{
    struct cpus_config *cpus = &check->cfg->cpus;
    struct cpu_topology_config *topo = &cpus->topology;
    uint64_t product;

    if (!cpus->boot_vcpus)
        cpus->boot_vcpus = 1;
    if (!cpus->max_vcpus)
        cpus->max_vcpus = cpus->boot_vcpus;
    if (!cpus->max_phys_bits)
        cpus->max_phys_bits = DEFAULT_PHYS_BITS;
    if (cpus->max_vcpus < cpus->boot_vcpus)
        return err_set(check->err, -EINVAL, "cpus.max_vcpus: %u is less than boot_vcpus, %u",
                       cpus->max_vcpus, cpus->boot_vcpus);
    if (cpus->max_vcpus > cpus->boot_vcpus) {
        return err_set(check->err, -ENOTSUP,
                       "cpus.max_vcpus: %u for %u boot_vcpus: adding processors to a running VM is "
                       "not supported yet by this version",
                       cpus->max_vcpus, cpus->boot_vcpus);
    }
    if (!topo->threads_per_core && !topo->cores_per_die && !topo->dies_per_package &&
        !topo->packages)
        return 0;
    if (!topo->threads_per_core || topo->threads_per_core > CPU_THREADS_MAX)
        return err_set(check->err, -EINVAL, "cpus.topology.threads_per_core: %u is not 1 or 2",
                       topo->threads_per_core);
    product = (uint64_t)topo->threads_per_core * topo->cores_per_die;
    product *= (uint64_t)topo->dies_per_package * topo->packages;
    if (product != cpus->max_vcpus)
        return err_set(check->err, -EINVAL, "cpus.topology: %" PRIu64 " threads for %u max_vcpus",
                       product, cpus->max_vcpus);
    return 0;
}

/* What a zone and memory as a whole have in common. */
struct memory_kind {
    const char *what;
    uint64_t size, hugepage_size;
    bool hugepages, shared, mergeable;
};

static int config_check_memory_kind(const struct config_check *check, const struct memory_kind *mem)
{
    uint64_t unit = mem->hugepage_size ? mem->hugepage_size : PAGE_SIZE_4K;

    if (mem->hugepage_size && !mem->hugepages)
        return err_set(check->err, -EINVAL, "%s.hugepage_size: needs hugepages", mem->what);
    if (!config_is_power_of_two(unit) || unit < PAGE_SIZE_4K)
        return err_set(check->err, -EINVAL, "%s.hugepage_size: %" PRIu64 " is not a power of two",
                       mem->what, mem->hugepage_size);
    if (mem->size % unit)
        return err_set(check->err, -EINVAL, "%s.size: not a multiple of %" PRIu64, mem->what, unit);
    if (mem->shared && mem->mergeable)
        return err_set(check->err, -EINVAL, "%s.mergeable: not possible with shared", mem->what);
    return 0;
}

static int config_check_zone(const struct config_check *check, unsigned i, uint64_t *total)
{
    const struct memory_config *mem = &check->cfg->memory;
    const struct memory_zone_config *zone = &mem->zones[i];
    char what[NAME_MAX_LEN];
    int rc;
    struct memory_kind kind = {
        .what = what,
        .size = zone->size,
        .hugepage_size = zone->hugepage_size,
        .hugepages = zone->hugepages,
        .shared = zone->shared,
        .mergeable = zone->mergeable,
    };

    (void)snprintf(what, sizeof(what), "memory.zones[%u]", i);
    if (!zone->id || !*zone->id)
        return err_set(check->err, -EINVAL, "%s.id: is missing", what);
    rc = config_check_id(check, what, zone->id);
    if (rc)
        return rc;
    for (unsigned j = 0; j < i; j++)
        if (!strcmp(mem->zones[j].id, zone->id))
            return err_set(check->err, -EEXIST, "%s.id: '%s' is there twice", what, zone->id);
    if (!zone->size)
        return err_set(check->err, -EINVAL, "%s.size: is missing", what);
    if (__builtin_add_overflow(*total, zone->size, total))
        return err_set(check->err, -EINVAL, "%s.size: all zones together are too large", what);
    return config_check_memory_kind(check, &kind);
}

static int config_check_memory(struct config_check *check)
{
    struct memory_config *mem = &check->cfg->memory;
    uint64_t total = 0;
    int rc;

    if (mem->size && mem->nr_zones)
        return err_set(check->err, -EINVAL, "memory.size: must be 0 where there are zones");
    if (!mem->size && !mem->nr_zones)
        mem->size = DEFAULT_MEMORY;
    rc = config_check_memory_kind(check, &(struct memory_kind){
                                             .what = "memory",
                                             .size = mem->size,
                                             .hugepage_size = mem->hugepage_size,
                                             .hugepages = mem->hugepages,
                                             .shared = mem->shared,
                                             .mergeable = mem->mergeable,
                                         });
    for (unsigned i = 0; i < mem->nr_zones && !rc; i++)
        rc = config_check_zone(check, i, &total);
    if (rc)
        return rc;
    total += mem->size;
    if (total >> check->cfg->cpus.max_phys_bits)
        return err_set(check->err, -EINVAL, "memory.size: does not fit in %u address bits",
                       check->cfg->cpus.max_phys_bits);
    return 0;
}

/* ---- what every device has ------------------------------------------------- */

/* The id at place @i of all disks, then all networks; NULL at the end. */
static char **config_nth_id(struct vm_config *cfg, unsigned i)
{
    if (i < cfg->nr_disks)
        return &cfg->disks[i].id;
    i -= cfg->nr_disks;
    return i < cfg->nr_nets ? &cfg->nets[i].id : NULL;
}

static bool config_id_is_taken(struct vm_config *cfg, const char *id, char *const *except)
{
    char **other;

    for (unsigned i = 0; (other = config_nth_id(cfg, i)); i++)
        if (other != except && *other && !strcmp(*other, id))
            return true;
    return false;
}

/* One counter for the whole machine, as in Cloud Hypervisor: _disk0, _disk1, _net2. */
static int config_complete_id(struct config_check *check, char **id, const char *what,
                              const char *kind)
{
    char name[NAME_MAX_LEN];
    int rc;

    if (*id) {
        rc = config_check_id(check, what, *id);
        if (!rc && config_id_is_taken(check->cfg, *id, id))
            rc = err_set(check->err, -EEXIST, "%s.id: '%s' is there twice", what, *id);
        return rc;
    }
    do
        (void)snprintf(name, sizeof(name), "_%s%u", kind, check->next_id++);
    while (config_id_is_taken(check->cfg, name, NULL));
    return vm_config_set_string(id, name);
}

static int config_check_pci(struct config_check *check, const char *what, const char *id,
                            unsigned segment, unsigned slot)
{
    if (segment)
        return err_set(check->err, -ENOTSUP,
                       "%s.pci_segment: only 0 is supported yet by this version", what);
    if (!slot)
        return 0;
    if (check->slot_owner[slot])
        return err_set(check->err, -EEXIST, "%s.pci_device_id: %u is already that of %s", what,
                       slot, check->slot_owner[slot]);
    check->slot_owner[slot] = id;
    return 0;
}

static int config_check_queue_size(const struct config_check *check, const char *what, unsigned n)
{
    if (!config_is_power_of_two(n))
        return err_set(check->err, -EINVAL, "%s.queue_size: %u is not a power of two", what, n);
    if (n < QUEUE_SIZE_MIN || n > VM_CONFIG_QUEUE_SIZE_MAX)
        return err_set(check->err, -EINVAL, "%s.queue_size: %u is not in %u..%u", what, n,
                       QUEUE_SIZE_MIN, VM_CONFIG_QUEUE_SIZE_MAX);
    return 0;
}

/* ---- disks ----------------------------------------------------------------- */

static int config_check_disk(struct config_check *check, unsigned i)
{
    struct vm_config *cfg = check->cfg;
    struct disk_config *disk = &cfg->disks[i];
    char what[NAME_MAX_LEN];
    int rc;

    (void)snprintf(what, sizeof(what), "disks[%u]", i);
    if (!disk->num_queues)
        disk->num_queues = 1;
    if (!disk->queue_size)
        disk->queue_size = DEFAULT_DISK_QUEUE_SIZE;
    if (!disk->path || !*disk->path)
        return err_set(check->err, -EINVAL, "%s.path: is missing", what);
    for (unsigned j = 0; j < i; j++)
        if (!strcmp(cfg->disks[j].path, disk->path))
            return err_set(check->err, -EEXIST, "%s.path: %s is there twice", what, disk->path);
    if (disk->num_queues > cfg->cpus.boot_vcpus)
        return err_set(check->err, -EINVAL, "%s.num_queues: %u is more than there are vCPUs, %u",
                       what, disk->num_queues, cfg->cpus.boot_vcpus);
    rc = config_check_queue_size(check, what, disk->queue_size);
    if (!rc)
        rc = config_complete_id(check, &disk->id, what, "disk");
    if (!rc)
        rc = config_check_pci(check, what, disk->id, disk->pci_segment, disk->pci_device_id);
    return rc;
}

/* ---- networks -------------------------------------------------------------- */

static int config_check_mac(const struct config_check *check, const char *what, const char *key,
                            const uint8_t mac[MAC_LEN])
{
    static const uint8_t zero[MAC_LEN];

    if (mac[0] & 1)
        return err_set(check->err, -EINVAL, "%s.%s: is a multicast address", what, key);
    if (!memcmp(mac, zero, MAC_LEN))
        return err_set(check->err, -EINVAL, "%s.%s: is all zero", what, key);
    return 0;
}

static int config_complete_mac(const struct config_check *check, const char *what,
                               struct net_config *net)
{
    int rc = 0;

    if (net->has_mac)
        rc = config_check_mac(check, what, "mac", net->mac);
    if (!rc && net->has_host_mac)
        rc = config_check_mac(check, what, "host_mac", net->host_mac);
    if (rc || net->has_mac)
        return rc;
    if (getrandom(net->mac, MAC_LEN, 0) != MAC_LEN)
        return err_set(check->err, -EIO, "%s.mac: the kernel gave no random numbers", what);
    net->mac[0] = (uint8_t)((net->mac[0] & 0xfe) | 0x02); /* unicast, locally administered */
    net->has_mac = true;
    return 0;
}

static int config_check_addresses(const struct config_check *check, const char *what,
                                  const struct net_config *net)
{
    uint8_t addr[sizeof(struct in6_addr)];
    bool v4 = net->ip && inet_pton(AF_INET, net->ip, addr) == 1;
    bool v6 = net->ip && !v4 && inet_pton(AF_INET6, net->ip, addr) == 1;

    if (net->ip && !v4 && !v6)
        return err_set(check->err, -EINVAL, "%s.ip: '%.64s' is not an address", what, net->ip);
    if (net->mask && !net->ip)
        return err_set(check->err, -EINVAL, "%s.mask: needs ip", what);
    if (net->mask && inet_pton(v4 ? AF_INET : AF_INET6, net->mask, addr) != 1)
        return err_set(check->err, -EINVAL, "%s.mask: '%.64s' is not a mask for that address", what,
                       net->mask);
    if (net->mtu && net->mtu < MTU_MIN)
        return err_set(check->err, -EINVAL, "%s.mtu: %u is less than %u", what, net->mtu, MTU_MIN);
    return 0;
}

static int config_check_net_queues(const struct config_check *check, const char *what,
                                   struct net_config *net)
{
    unsigned vcpus = check->cfg->cpus.boot_vcpus;

    if (!net->num_queues)
        net->num_queues = (uint16_t)(net->nr_fds ? 2 * net->nr_fds : 2);
    if (!net->queue_size)
        net->queue_size = DEFAULT_NET_QUEUE_SIZE;
    if (net->num_queues % 2 || net->num_queues < 2)
        return err_set(check->err, -EINVAL, "%s.num_queues: %u is not a number of pairs", what,
                       net->num_queues);
    if (net->num_queues / 2u > vcpus)
        return err_set(check->err, -EINVAL, "%s.num_queues: %u pairs are more than vCPUs, %u", what,
                       net->num_queues / 2u, vcpus);
    if (net->nr_fds && 2 * net->nr_fds != net->num_queues)
        return err_set(check->err, -EINVAL, "%s.fds: %u for %u queues; each serves a pair", what,
                       net->nr_fds, net->num_queues);
    if (net->nr_fds && net->tap)
        return err_set(check->err, -EINVAL, "%s.tap: not possible with file descriptors", what);
    return config_check_queue_size(check, what, net->queue_size);
}

static int config_check_net(struct config_check *check, unsigned i)
{
    struct net_config *net = &check->cfg->nets[i];
    char what[NAME_MAX_LEN];
    int rc;

    (void)snprintf(what, sizeof(what), "net[%u]", i);
    rc = config_check_net_queues(check, what, net);
    if (!rc)
        rc = config_check_addresses(check, what, net);
    if (!rc)
        rc = config_complete_mac(check, what, net);
    if (!rc)
        rc = config_complete_id(check, &net->id, what, "net");
    if (!rc)
        rc = config_check_pci(check, what, net->id, net->pci_segment, net->pci_device_id);
    return rc;
}

/* ---- serial port and consoles ---------------------------------------------- */

static int config_check_console(const struct config_check *check, struct console_config *con,
                                const char *what, enum console_mode def)
{
    if (con->mode == CONSOLE_DEFAULT)
        con->mode = def;
    if (con->mode == CONSOLE_FILE && !con->file)
        return err_set(check->err, -EINVAL, "%s.file: is missing", what);
    if (con->mode == CONSOLE_SOCKET && con != &check->cfg->serial)
        return err_set(check->err, -ENOTSUP, "%s.mode: Socket is only for the serial port", what);
    if (con->mode == CONSOLE_SOCKET && !con->socket)
        return err_set(check->err, -EINVAL, "%s.socket: is missing", what);
    return 0;
}

static int config_check_consoles(struct config_check *check)
{
    struct vm_config *cfg = check->cfg;
    unsigned ttys;
    int rc;

    rc = config_check_console(check, &cfg->serial, "serial", CONSOLE_NULL);
    if (!rc)
        rc = config_check_console(check, &cfg->console, "console", CONSOLE_TTY);
    if (!rc)
        rc = config_check_console(check, &cfg->debug_console, "debug_console", CONSOLE_OFF);
    if (rc)
        return rc;
    if (!cfg->debug_console.iobase)
        cfg->debug_console.iobase = DEFAULT_IOBASE;
    ttys = (cfg->serial.mode == CONSOLE_TTY ? 1u : 0u) +
           (cfg->console.mode == CONSOLE_TTY ? 1u : 0u) +
           (cfg->debug_console.mode == CONSOLE_TTY ? 1u : 0u);
    if (ttys > 1) {
        return err_set(check->err, -EINVAL,
                       "console.mode: only one of serial, console and "
                       "debug_console can be Tty (console=off?)");
    }
    return config_check_pci(check, "console", VM_ID_CONSOLE, cfg->console.pci_segment,
                            cfg->console.pci_device_id);
}

/* ---- the whole ------------------------------------------------------------- */

static int config_check_rng(struct config_check *check)
{
    struct rng_config *rng = &check->cfg->rng;
    int rc = 0;

    if (!rng->src)
        rc = vm_config_set_string(&rng->src, DEFAULT_RNG);
    if (!rc && !*rng->src)
        rc = err_set(check->err, -EINVAL, "rng.src: is empty");
    if (!rc)
        rc = config_check_pci(check, "rng", VM_ID_RNG, rng->pci_segment, rng->pci_device_id);
    return rc;
}

static int config_check_payload(const struct config_check *check)
{
    const char *kernel = check->cfg->payload.kernel;

    if (!kernel || !*kernel)
        return err_set(check->err, -EINVAL, "payload.kernel: is missing: there is nothing to boot");
    return 0;
}

static int config_check_landlock(const struct config_check *check)
{
    const struct vm_config *cfg = check->cfg;

    for (unsigned i = 0; i < cfg->nr_landlock_rules; i++) {
        const struct landlock_rule_config *rule = &cfg->landlock_rules[i];

        if (!cfg->landlock_enable)
            return err_set(check->err, -EINVAL, "landlock_rules: need landlock_enable");
        if (!rule->path || !*rule->path)
            return err_set(check->err, -EINVAL, "landlock_rules[%u].path: is missing", i);
        if (!rule->access || (strcmp(rule->access, "r") != 0 && strcmp(rule->access, "w") != 0 &&
                              strcmp(rule->access, "rw") != 0))
            return err_set(check->err, -EINVAL, "landlock_rules[%u].access: must be r, w or rw", i);
    }
    return 0;
}

int vm_config_complete(struct vm_config *cfg, struct err *err)
{
    struct config_check check = {.cfg = cfg, .err = err};
    int rc = config_check_cpus(&check);

    if (!rc)
        rc = config_check_memory(&check);
    if (!rc)
        rc = config_check_payload(&check);
    for (unsigned i = 0; i < cfg->nr_disks && !rc; i++)
        rc = config_check_disk(&check, i);
    for (unsigned i = 0; i < cfg->nr_nets && !rc; i++)
        rc = config_check_net(&check, i);
    if (!rc)
        rc = config_check_rng(&check);
    if (!rc)
        rc = config_check_consoles(&check);
    if (!rc)
        rc = config_check_landlock(&check);
    if (rc == -ENOMEM)
        return err_set(err, rc, "out of memory");
    return rc;
}
