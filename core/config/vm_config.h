/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration of a virtual machine.
 *
 * One struct for the command line, the API, a snapshot and a migration.  All
 * zero is a valid start and means "default" everywhere; vm_config_complete()
 * then puts the real values in place (ids, MACs, numbers), so that whoever
 * builds the machine never meets a default.  A switch whose default is on is
 * kept as its opposite (no_thp).
 *
 * Names in JSON and on the command line are Cloud Hypervisor's.  What Cloud
 * Hypervisor has and this version has not is known to the parsers, which refuse
 * it with a sentence unless it asks for nothing ("iommu": false).
 *
 * Everything pointed to is owned by the struct and freed by
 * vm_config_release().  Strings that are not given are NULL.
 *
 * Threads: any, one at a time for one struct.
 */
#ifndef CORE_CONFIG_VM_CONFIG_H
#define CORE_CONFIG_VM_CONFIG_H

#include "core/err.h"

struct json_object;

enum vm_config_limits {
    VM_CONFIG_VCPUS_MAX = 8192,
    VM_CONFIG_ZONES_MAX = 32,
    VM_CONFIG_DISKS_MAX = 256,
    VM_CONFIG_NETS_MAX = 256,
    VM_CONFIG_NET_FDS_MAX = 128,
    VM_CONFIG_OEM_STRINGS_MAX = 64,
    VM_CONFIG_LANDLOCK_RULES_MAX = 256,
    VM_CONFIG_ID_MAX = 63,       /* bytes of an id */
    VM_CONFIG_STRING_MAX = 4096, /* bytes of any other string: paths, the kernel's command line */
    VM_CONFIG_SERIAL_MAX = 20,   /* bytes of a disk's serial number */
    VM_CONFIG_QUEUE_SIZE_MAX = 32768,
    VM_CONFIG_PHYS_BITS_MAX = 52,
};

/* Ids of the devices that a machine has at most one of. */
#define VM_ID_SERIAL        "__serial"
#define VM_ID_CONSOLE       "__console"
#define VM_ID_DEBUG_CONSOLE "__debug_console"
#define VM_ID_RNG           "__rng"
#define VM_ID_IOAPIC        "__ioapic"

/* All zero: no topology given.  The product is cpus.max_vcpus. */
struct cpu_topology_config {
    uint16_t threads_per_core; /* 1 or 2 */
    uint16_t cores_per_die;
    uint16_t dies_per_package;
    uint16_t packages;
};

struct cpus_config {
    uint32_t boot_vcpus;    /* default 1 */
    uint32_t max_vcpus;     /* default boot_vcpus */
    uint32_t max_phys_bits; /* default 46; the machine takes the smaller of it and the host's */
    struct cpu_topology_config topology;
    bool no_nested; /* nested=off: hide VMX and SVM */
    bool amx;       /* features=[amx] */
};

struct memory_zone_config {
    char *id;
    uint64_t size; /* bytes */
    char *file;    /* file or directory to map; NULL: memory */
    bool shared;
    bool hugepages;
    uint64_t hugepage_size; /* bytes; 0: the host's default */
    bool prefault;
    bool reserve;
    bool mergeable;
};

struct memory_config {
    uint64_t size; /* bytes; default 512 MiB, or 0 with zones */
    bool mergeable;
    bool shared;
    bool hugepages;
    uint64_t hugepage_size; /* bytes; 0: the host's default */
    bool prefault;
    bool reserve;
    bool no_thp; /* thp=off; also for zones */
    struct memory_zone_config *zones;
    unsigned nr_zones;
};

struct payload_config {
    char *kernel;
    char *initramfs;
    char *cmdline;
};

enum disk_lock_granularity {
    DISK_LOCK_BYTE_RANGE,
    DISK_LOCK_FULL,
};

struct disk_config {
    char *id; /* default _disk<n> */
    char *path;
    bool readonly;
    bool direct;
    bool no_sparse;      /* sparse=off: offer neither discard nor write zeroes */
    uint16_t num_queues; /* default 1 */
    uint16_t queue_size; /* default 128 */
    char *serial;
    uint16_t pci_segment;
    uint8_t pci_device_id; /* 0: the next free one */
    enum disk_lock_granularity lock_granularity;
    bool disable_io_uring; /* use the thread pool */
};

enum {
    MAC_LEN = 6,
};

struct net_config {
    char *id;     /* default _net<n> */
    char *tap;    /* name of the interface; NULL: the kernel chooses, or fds */
    char *ip;     /* of the host's end, as text; NULL: left alone */
    char *mask;   /* as text; NULL: left alone */
    bool has_mac; /* default: a random one */
    bool has_host_mac;
    uint8_t mac[MAC_LEN]; /* of the guest's end */
    uint8_t host_mac[MAC_LEN];
    uint16_t mtu;        /* 0: left alone; else >= 1280 */
    uint16_t num_queues; /* receive and transmit together; default 2, or 2 for each fd */
    uint16_t queue_size; /* default 256 */
    int *fds;            /* tap file descriptors, one for each pair; -1: still to be handed over */
    unsigned nr_fds;
    bool no_offload_tso;
    bool no_offload_ufo;
    bool no_offload_csum;
    uint16_t pci_segment;
    uint8_t pci_device_id; /* 0: the next free one */
};

struct rng_config {
    char *src; /* default /dev/urandom */
    uint16_t pci_segment;
    uint8_t pci_device_id; /* 0: the next free one */
};

enum console_mode {
    CONSOLE_DEFAULT, /* never after vm_config_complete() */
    CONSOLE_OFF,     /* no device */
    CONSOLE_NULL,    /* a device whose output goes nowhere */
    CONSOLE_TTY,
    CONSOLE_PTY,
    CONSOLE_FILE,
    CONSOLE_SOCKET,
};

/* The 16550 (default null), virtio-console (default tty), the debug console (default off). */
struct console_config {
    enum console_mode mode;
    char *file;            /* CONSOLE_FILE; set on the way out for CONSOLE_PTY */
    char *socket;          /* CONSOLE_SOCKET: serial only */
    uint16_t iobase;       /* debug console only; default 0xe9 */
    uint16_t pci_segment;  /* virtio-console only */
    uint8_t pci_device_id; /* virtio-console only; 0: the next free one */
};

/* SMBIOS strings; NULL: the built-in ones. */
struct platform_config {
    char *system_manufacturer;
    char *system_product_name;
    char *system_version;
    char *system_serial_number;
    char *system_uuid; /* lower-case canonical text */
    char *system_sku_number;
    char *system_family;
    char *chassis_asset_tag;
    char **oem_strings;
    unsigned nr_oem_strings;
};

/* A path that stays open to a process under Landlock, besides those of the configuration. */
struct landlock_rule_config {
    char *path;   /* of a file, or of a directory with all below it */
    char *access; /* "r", "w" or "rw" */
};

struct vm_config {
    struct cpus_config cpus;
    struct memory_config memory;
    struct payload_config payload;
    struct disk_config *disks;
    unsigned nr_disks;
    struct net_config *nets;
    unsigned nr_nets;
    struct rng_config rng;
    struct console_config serial;
    struct console_config console;
    struct console_config debug_console;
    struct platform_config platform;
    bool landlock_enable;
    struct landlock_rule_config *landlock_rules;
    unsigned nr_landlock_rules;
};

/**
 * vm_config_release() - free what the struct owns and make it all zero.
 * @cfg: may be half filled; file descriptors in it stay open.
 *
 * Threads: any.
 */
void vm_config_release(struct vm_config *cfg);

/**
 * vm_config_close_fds() - close the file descriptors of networks, for who owns them.
 *
 * They become -1.
 * Threads: any.
 */
void vm_config_close_fds(struct vm_config *cfg);

/**
 * vm_config_copy() - a deep copy.
 * @src: borrowed; the copy names the same file descriptors.
 *
 * Return: 0 and *@ret_dst, owned, to be given to vm_config_release(); -ENOMEM.
 * Threads: any.
 */
CHECKED int vm_config_copy(const struct vm_config *src, struct vm_config *ret_dst);

/**
 * vm_config_set_string() - replace a string in a configuration.
 * @field: member of a config struct; what it held is freed.
 * @value: copied; NULL unsets.
 *
 * Return: 0; -ENOMEM (then *@field is unchanged).
 * Threads: any.
 */
CHECKED int vm_config_set_string(char **field, const char *value);

/**
 * vm_config_complete() - check everything and put defaults, ids and MACs in place.
 * @cfg: from any source; completing a complete one changes nothing.
 *
 * Looks only at the configuration itself, never at the host.
 *
 * Return: 0; -EINVAL with @err naming the option ("disks[1].queue_size: 3 is
 * not a power of two"); -ENOTSUP for what this version cannot do; -EEXIST for
 * an id, a path or a PCI slot that is there twice; -ENOMEM.  On failure @cfg may be partly
 * completed and is good only for vm_config_release().
 * Threads: any.
 */
CHECKED int vm_config_complete(struct vm_config *cfg, struct err *err);

/**
 * vm_config_from_json() - read a configuration (Cloud Hypervisor's VmConfig).
 * @obj: borrowed; from json_parse(); any content.
 *
 * Reads only: vm_config_complete() is the caller's next step.  File descriptors
 * of networks are counted, not believed: each becomes -1.
 *
 * Return: 0 and *@ret_cfg, owned; -EINVAL for an unknown key, a wrong type or a
 * value out of range, -ENOTSUP for what Cloud Hypervisor has and this version
 * has not, each with @err naming the key; -E2BIG over a limit; -ENOMEM.
 * Threads: any.
 */
CHECKED int vm_config_from_json(struct json_object *obj, struct vm_config *ret_cfg,
                                struct err *err);

/**
 * vm_config_to_json() - write a configuration.
 *
 * vm_config_from_json() reads it back to the same, file descriptors excepted.
 *
 * Return: 0 and *@ret_obj, owned, to be given to json_object_put(); -ENOMEM.
 * Threads: any.
 */
CHECKED int vm_config_to_json(const struct vm_config *cfg, struct json_object **ret_obj);

/**
 * vm_config_from_text() - vm_config_from_json() and vm_config_complete() of a text.
 * @text: @len bytes, any content; no more than JSON_TEXT_MAX are read.
 *
 * Return: as those two; -EINVAL if it is not JSON.
 * Threads: any.
 */
CHECKED int vm_config_from_text(const char *text, size_t len, struct vm_config *ret_cfg,
                                struct err *err);

/**
 * vm_config_to_text() - vm_config_to_json() as compact text.
 *
 * Equal configurations give equal bytes.
 *
 * Return: 0 and *@ret_text, owned, NUL-terminated, and *@ret_len without the
 * NUL; -ENOMEM.
 * Threads: any.
 */
CHECKED int vm_config_to_text(const struct vm_config *cfg, char **ret_text, size_t *ret_len);

/* The options of the command line that fill a vm_config. */
enum vm_option {
    VM_OPT_CPUS,
    VM_OPT_MEMORY,
    VM_OPT_MEMORY_ZONE,
    VM_OPT_KERNEL,
    VM_OPT_INITRAMFS,
    VM_OPT_CMDLINE,
    VM_OPT_DISK,
    VM_OPT_NET,
    VM_OPT_RNG,
    VM_OPT_SERIAL,
    VM_OPT_CONSOLE,
    VM_OPT_DEBUG_CONSOLE,
    VM_OPT_PLATFORM,
    VM_OPT_LANDLOCK_RULES,
};

/**
 * vm_config_from_option() - add the value of one command line option.
 * @cfg:   filled so far; disks, networks and zones are appended.
 * @value: "key=value,..." as in docs/man/chvmm.1.
 *
 * Return: 0; -EINVAL, -ENOTSUP, -E2BIG, -ENOMEM with @err naming option and key
 * ("--disk readonly: ...").  On failure @cfg is good only for vm_config_release().
 * Threads: any.
 */
CHECKED int vm_config_from_option(struct vm_config *cfg, enum vm_option opt, const char *value,
                                  struct err *err);

/**
 * vm_config_option_json() - the JSON of one option's value, for the API's add-disk and add-net.
 *
 * Return: as vm_config_from_option(), and *@ret_obj, owned: the object that
 * describes the one device.
 * Threads: any.
 */
CHECKED int vm_config_option_json(enum vm_option opt, const char *value,
                                  struct json_object **ret_obj, struct err *err);

#endif
