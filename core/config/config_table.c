/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of the configuration.  Names and kinds: Cloud Hypervisor's
 * VmConfig and the options of its command line.
 */
#include "core/config/config_internal.h"

/* clang-format off */

/* The offset of a member; does not compile unless the member has that type. */
#define AT(s, m, t)                                                                       \
    (offsetof(struct s, m) +                                                              \
     0 * sizeof(char[__builtin_types_compatible_p(__typeof__(((struct s *)0)->m), t) ? 1 : -1]))
/* For enums and structs: their size is what the kind relies on. */
#define AT_SIZED(s, m, n) \
    (offsetof(struct s, m) + 0 * sizeof(char[sizeof(((struct s *)0)->m) == (n) ? 1 : -1]))
#define NR(s, m) AT(s, m, unsigned)

#define BOOL(j, o, s, m)     {.json = j, .opt = o, .kind = CONFIG_BOOL, .off = AT(s, m, bool)}
#define BOOL_SET(j, o, s, m) \
    {.json = j, .opt = o, .kind = CONFIG_BOOL, .off = AT(s, m, bool), .flags = CONFIG_EMIT_SET}
#define NOT(j, o, s, m)      {.json = j, .opt = o, .kind = CONFIG_NOT, .off = AT(s, m, bool)}
#define NUMBER(k, t, j, o, s, m, lo, hi) \
    {.json = j, .opt = o, .kind = k, .off = AT(s, m, t), .min = lo, .max = hi}
#define U8(...)  NUMBER(CONFIG_U8, uint8_t, __VA_ARGS__)
#define U16(...) NUMBER(CONFIG_U16, uint16_t, __VA_ARGS__)
#define U32(...) NUMBER(CONFIG_U32, uint32_t, __VA_ARGS__)
#define U16_ZERO(j, o, s, m, lo, hi)                                         \
    {.json = j, .opt = o, .kind = CONFIG_U16, .flags = CONFIG_EMIT_ZERO,     \
     .off = AT(s, m, uint16_t), .min = lo, .max = hi}
#define SIZE(j, o, s, m) \
    {.json = j, .opt = o, .kind = CONFIG_SIZE, .off = AT(s, m, uint64_t), .max = INT64_MAX}
#define SIZE_ZERO(j, o, s, m)                                                \
    {.json = j, .opt = o, .kind = CONFIG_SIZE, .flags = CONFIG_EMIT_ZERO,    \
     .off = AT(s, m, uint64_t), .max = INT64_MAX}
#define TEXT(j, o, s, m, hi) \
    {.json = j, .opt = o, .kind = CONFIG_STRING, .off = AT(s, m, char *), .max = hi}
#define TEXT_ALIAS(j, o, s, m, hi)                                           \
    {.json = j, .opt = o, .kind = CONFIG_STRING, .flags = CONFIG_ALIAS,      \
     .off = AT(s, m, char *), .max = hi}
#define STRING(j, o, s, m) TEXT(j, o, s, m, VM_CONFIG_STRING_MAX)
#define ID(s)              TEXT("id", "id", s, id, VM_CONFIG_ID_MAX)
#define NAME(j, o, s, m, names)                       \
    {.json = j, .opt = o, .kind = CONFIG_NAME, .off = AT_SIZED(s, m, sizeof(int)), .aux = names}
#define FLAG(o, s, m, v) \
    {.opt = o, .kind = CONFIG_FLAG, .off = AT_SIZED(s, m, sizeof(int)), .min = v}
#define OBJECT(j, o, s, m, n, table)                                         \
    {.json = j, .opt = o, .kind = CONFIG_OBJECT, .off = AT_SIZED(s, m, sizeof(struct n)), \
     .aux = &(table)}
#define OBJECTS(j, s, m, n, nr, hi, table)                                   \
    {.json = j, .kind = CONFIG_OBJECTS, .off = AT(s, m, struct n *), .off_nr = NR(s, nr), \
     .max = hi, .aux = &(table)}
#define REFUSED(j, o, h)         {.json = j, .opt = o, .kind = CONFIG_REFUSED, .harmless = h}
#define REFUSED_NOTE(j, o, h, n) \
    {.json = j, .opt = o, .kind = CONFIG_REFUSED, .harmless = h, .note = n}
#define TABLE(s, rows) {.size = sizeof(struct s), .fields = rows, .nr_fields = ARRAY_LEN(rows)}

/* A device's place on the PCI bus. */
#define PCI_PLACE(s)                                                         \
    U16_ZERO("pci_segment", "pci_segment", s, pci_segment, 0, UINT16_MAX),   \
    U8("pci_device_id", "pci_device_id", s, pci_device_id, 1, 31)
#define NO_RATE_LIMIT                            \
    REFUSED("rate_limiter_config", NULL, NULL),  \
    REFUSED(NULL, "bw_size", "0"),               \
    REFUSED(NULL, "bw_one_time_burst", "0"),     \
    REFUSED(NULL, "bw_refill_time", "0"),        \
    REFUSED(NULL, "ops_size", "0"),              \
    REFUSED(NULL, "ops_one_time_burst", "0"),    \
    REFUSED(NULL, "ops_refill_time", "0")
#define NO_IOMMU REFUSED("iommu", "iommu", "false")

/* ---- processors ------------------------------------------------------------ */

static const struct config_field topology_fields[] = {
    U16("threads_per_core",  NULL, cpu_topology_config, threads_per_core,  1, UINT16_MAX),
    U16("cores_per_die",     NULL, cpu_topology_config, cores_per_die,     1, UINT16_MAX),
    U16("dies_per_package",  NULL, cpu_topology_config, dies_per_package,  1, UINT16_MAX),
    U16("packages",          NULL, cpu_topology_config, packages,          1, UINT16_MAX),
};
static const struct config_table topology_table = TABLE(cpu_topology_config, topology_fields);

static const struct config_field features_fields[] = {
    BOOL("amx", "amx", cpus_config, amx),
};
static const struct config_table features_table = TABLE(cpus_config, features_fields);

static const struct config_field cpus_fields[] = {
    U32("boot_vcpus",    "boot",          cpus_config, boot_vcpus,    1, VM_CONFIG_VCPUS_MAX),
    U32("max_vcpus",     "max",           cpus_config, max_vcpus,     1, VM_CONFIG_VCPUS_MAX),
    OBJECT("topology",   "topology",      cpus_config, topology, cpu_topology_config,
           topology_table),
    U32("max_phys_bits", "max_phys_bits", cpus_config, max_phys_bits, 32, VM_CONFIG_PHYS_BITS_MAX),
    NOT("nested",        "nested",        cpus_config, no_nested),
    {.json = "features", .opt = "features", .kind = CONFIG_FLAGS, .aux = &features_table},
    REFUSED("kvm_hyperv",      "kvm_hyperv",      "false"),
    REFUSED("affinity",        "affinity",        NULL),
    REFUSED("core_scheduling", "core_scheduling", "Off"),
    REFUSED("profile",         "profile",         "host"),
};
const struct config_table cpus_config_table = TABLE(cpus_config, cpus_fields);

/* ---- memory ---------------------------------------------------------------- */

static const struct config_field zone_fields[] = {
    ID(memory_zone_config),
    SIZE_ZERO("size",     "size",          memory_zone_config, size),
    STRING("file",        "file",          memory_zone_config, file),
    BOOL("shared",        "shared",        memory_zone_config, shared),
    BOOL("hugepages",     "hugepages",     memory_zone_config, hugepages),
    SIZE("hugepage_size", "hugepage_size", memory_zone_config, hugepage_size),
    BOOL("prefault",      "prefault",      memory_zone_config, prefault),
    BOOL("reserve",       "reserve",       memory_zone_config, reserve),
    BOOL("mergeable",     "mergeable",     memory_zone_config, mergeable),
    REFUSED("host_numa_node",  "host_numa_node",  NULL),
    REFUSED("hotplug_size",    "hotplug_size",    "0"),
    REFUSED("hotplugged_size", "hotplugged_size", "0"),
};
const struct config_table memory_zone_config_table = TABLE(memory_zone_config, zone_fields);

static const struct config_field memory_fields[] = {
    SIZE_ZERO("size",     "size",          memory_config, size),
    BOOL("mergeable",     "mergeable",     memory_config, mergeable),
    BOOL("shared",        "shared",        memory_config, shared),
    BOOL("hugepages",     "hugepages",     memory_config, hugepages),
    SIZE("hugepage_size", "hugepage_size", memory_config, hugepage_size),
    BOOL("prefault",      "prefault",      memory_config, prefault),
    BOOL("reserve",       "reserve",       memory_config, reserve),
    NOT("thp",            "thp",           memory_config, no_thp),
    OBJECTS("zones", memory_config, zones, memory_zone_config, nr_zones, VM_CONFIG_ZONES_MAX,
            memory_zone_config_table),
    REFUSED("hotplug_method",  "hotplug_method",  "Acpi"),
    REFUSED("hotplug_size",    "hotplug_size",    "0"),
    REFUSED("hotplugged_size", "hotplugged_size", "0"),
};
const struct config_table memory_config_table = TABLE(memory_config, memory_fields);

/* ---- what to boot ---------------------------------------------------------- */

static const struct config_field payload_fields[] = {
    STRING("kernel",    NULL, payload_config, kernel),
    STRING("initramfs", NULL, payload_config, initramfs),
    STRING("cmdline",   NULL, payload_config, cmdline),
    REFUSED_NOTE("firmware", NULL, NULL, "a bzImage or a PVH ELF can be booted as the kernel"),
    REFUSED("igvm",            NULL, NULL),
    REFUSED("host_data",       NULL, NULL),
    REFUSED("fw_cfg_config",   NULL, NULL),
};
static const struct config_table payload_config_table = TABLE(payload_config, payload_fields);

/* ---- disks ----------------------------------------------------------------- */

static const struct config_name lock_names[] = {
    {"ByteRange", "byte-range", DISK_LOCK_BYTE_RANGE},
    {"Full",      "full",       DISK_LOCK_FULL},
    {0},
};

static const struct config_field disk_fields[] = {
    ID(disk_config),
    STRING("path",     "path",       disk_config, path),
    BOOL("readonly",   "readonly",   disk_config, readonly),
    BOOL("direct",     "direct",     disk_config, direct),
    NOT("sparse",      "sparse",     disk_config, no_sparse),
    U16("num_queues",  "num_queues", disk_config, num_queues, 1, UINT16_MAX),
    U16("queue_size",  "queue_size", disk_config, queue_size, 1, UINT16_MAX),
    TEXT("serial",     "serial",     disk_config, serial, VM_CONFIG_SERIAL_MAX),
    NAME("lock_granularity", "lock_granularity", disk_config, lock_granularity, lock_names),
    PCI_PLACE(disk_config),
    BOOL_SET("disable_io_uring", "_disable_io_uring", disk_config, disable_io_uring),
    REFUSED_NOTE("image_type", "image_type", "Raw", "only raw images"),
    REFUSED("backing_files",    "backing_files",    "false"),
    REFUSED("vhost_user",       "vhost_user",       "false"),
    REFUSED("vhost_socket",     "socket",           NULL),
    REFUSED("rate_limit_group", "rate_limit_group", NULL),
    REFUSED("queue_affinity",   "queue_affinity",   NULL),
    REFUSED("disable_aio",      "_disable_aio",     "false"),
    NO_IOMMU,
    NO_RATE_LIMIT,
};
const struct config_table disk_config_table = TABLE(disk_config, disk_fields);

/* ---- networks -------------------------------------------------------------- */

static const struct config_field net_fields[] = {
    ID(net_config),
    TEXT("tap",         "tap",          net_config, tap, 15), /* IFNAMSIZ - 1 */
    STRING("ip",        "ip",           net_config, ip),
    STRING("mask",      "mask",         net_config, mask),
    {.json = "mac", .opt = "mac", .kind = CONFIG_MAC, .off = AT_SIZED(net_config, mac, MAC_LEN),
     .off_nr = AT(net_config, has_mac, bool)},
    {.json = "host_mac", .opt = "host_mac", .kind = CONFIG_MAC,
     .off = AT_SIZED(net_config, host_mac, MAC_LEN), .off_nr = AT(net_config, has_host_mac, bool)},
    U16("mtu",          "mtu",          net_config, mtu,        1, UINT16_MAX),
    U16("num_queues",   "num_queues",   net_config, num_queues, 1, UINT16_MAX),
    U16("queue_size",   "queue_size",   net_config, queue_size, 1, UINT16_MAX),
    {.json = "fds", .opt = "fd", .kind = CONFIG_FDS, .off = AT(net_config, fds, int *),
     .off_nr = NR(net_config, nr_fds), .max = VM_CONFIG_NET_FDS_MAX},
    NOT("offload_tso",  "offload_tso",  net_config, no_offload_tso),
    NOT("offload_ufo",  "offload_ufo",  net_config, no_offload_ufo),
    NOT("offload_csum", "offload_csum", net_config, no_offload_csum),
    PCI_PLACE(net_config),
    REFUSED("vhost_user",   "vhost_user", "false"),
    REFUSED("vhost_socket", "socket",     NULL),
    REFUSED("vhost_mode",   "vhost_mode", "Client"),
    NO_IOMMU,
    NO_RATE_LIMIT,
};
const struct config_table net_config_table = TABLE(net_config, net_fields);

/* ---- random numbers -------------------------------------------------------- */

static const struct config_field rng_fields[] = {
    STRING("src", "src", rng_config, src),
    PCI_PLACE(rng_config),
    REFUSED("id", "id", VM_ID_RNG),
    NO_IOMMU,
};
const struct config_table rng_config_table = TABLE(rng_config, rng_fields);

/* ---- serial port and consoles ---------------------------------------------- */

static const struct config_name mode_names[] = {
    {"Off",    NULL, CONSOLE_OFF},
    {"Null",   NULL, CONSOLE_NULL},
    {"Tty",    NULL, CONSOLE_TTY},
    {"Pty",    NULL, CONSOLE_PTY},
    {"File",   NULL, CONSOLE_FILE},
    {"Socket", NULL, CONSOLE_SOCKET},
    {0},
};

#define MODE_FIELDS                                          \
    NAME("mode", NULL, console_config, mode, mode_names),    \
    FLAG("off",  console_config, mode, CONSOLE_OFF),         \
    FLAG("null", console_config, mode, CONSOLE_NULL),        \
    FLAG("tty",  console_config, mode, CONSOLE_TTY),         \
    FLAG("pty",  console_config, mode, CONSOLE_PTY),         \
    STRING("file", "file", console_config, file)

static const struct config_field serial_fields[] = {
    MODE_FIELDS,
    STRING("socket", "socket", console_config, socket),
};
const struct config_table serial_config_table = TABLE(console_config, serial_fields);

static const struct config_field console_fields[] = {
    MODE_FIELDS,
    PCI_PLACE(console_config),
    REFUSED("socket", "socket", NULL),
    REFUSED("id",     "id",     VM_ID_CONSOLE),
    NO_IOMMU,
};
const struct config_table console_config_table = TABLE(console_config, console_fields);

static const struct config_field debug_console_fields[] = {
    MODE_FIELDS,
    U16("iobase", "iobase", console_config, iobase, 1, UINT16_MAX),
};
const struct config_table debug_console_config_table = TABLE(console_config, debug_console_fields);

/* ---- platform -------------------------------------------------------------- */

static const struct config_field platform_fields[] = {
    STRING("system_manufacturer",   "system_manufacturer",  platform_config, system_manufacturer),
    STRING("system_product_name",   "system_product_name",  platform_config, system_product_name),
    STRING("system_version",        "system_version",       platform_config, system_version),
    STRING("system_serial_number",  "system_serial_number", platform_config, system_serial_number),
    TEXT_ALIAS("serial_number",     "serial_number",        platform_config, system_serial_number,
               VM_CONFIG_STRING_MAX),
    {.json = "system_uuid", .opt = "system_uuid", .kind = CONFIG_UUID,
     .off = AT(platform_config, system_uuid, char *)},
    {.json = "uuid", .opt = "uuid", .kind = CONFIG_UUID, .flags = CONFIG_ALIAS,
     .off = AT(platform_config, system_uuid, char *)},
    STRING("system_sku_number",     "system_sku_number",    platform_config, system_sku_number),
    STRING("system_family",         "system_family",        platform_config, system_family),
    STRING("chassis_asset_tag",     "chassis_asset_tag",    platform_config, chassis_asset_tag),
    {.json = "oem_strings", .opt = "oem_strings", .kind = CONFIG_STRINGS,
     .off = AT(platform_config, oem_strings, char **),
     .off_nr = NR(platform_config, nr_oem_strings), .max = VM_CONFIG_OEM_STRINGS_MAX},
    REFUSED("num_pci_segments",         "num_pci_segments",    "1"),
    REFUSED("iommu_segments",           "iommu_segments",      NULL),
    REFUSED("iommu_address_width_bits", "iommu_address_width", "64"),
    REFUSED("iommufd",                  "iommufd",             "false"),
    REFUSED("iommufd_fd",               "iommufd_fd",          NULL),
    REFUSED("vfio_p2p_dma",             "vfio_p2p_dma",        "true"),
    REFUSED("tdx",                      "tdx",                 "false"),
    REFUSED("sev_snp",                  "sev_snp",             "false"),
};
const struct config_table platform_config_table = TABLE(platform_config, platform_fields);

/* ---- Landlock -------------------------------------------------------------- */

static const struct config_field landlock_fields[] = {
    STRING("path",       "path",   landlock_rule_config, path),
    TEXT("access",       "access", landlock_rule_config, access, 2),
};
const struct config_table landlock_rule_config_table = TABLE(landlock_rule_config,
                                                             landlock_fields);

/* ---- the whole ------------------------------------------------------------- */

static const struct config_field vm_fields[] = {
    OBJECT("cpus",          NULL, vm_config, cpus,          cpus_config,     cpus_config_table),
    OBJECT("memory",        NULL, vm_config, memory,        memory_config,   memory_config_table),
    OBJECT("payload",       NULL, vm_config, payload,       payload_config,  payload_config_table),
    OBJECTS("disks", vm_config, disks, disk_config, nr_disks, VM_CONFIG_DISKS_MAX,
            disk_config_table),
    OBJECTS("net",   vm_config, nets,  net_config,  nr_nets,  VM_CONFIG_NETS_MAX,
            net_config_table),
    OBJECT("rng",           NULL, vm_config, rng,           rng_config,      rng_config_table),
    OBJECT("serial",        NULL, vm_config, serial,        console_config,  serial_config_table),
    OBJECT("console",       NULL, vm_config, console,       console_config,  console_config_table),
    OBJECT("debug_console", NULL, vm_config, debug_console, console_config,
           debug_console_config_table),
    OBJECT("platform",      NULL, vm_config, platform,      platform_config,
           platform_config_table),
    REFUSED("rate_limit_groups",  NULL, NULL),
    REFUSED("balloon",            NULL, NULL),
    REFUSED("fs",                 NULL, NULL),
    REFUSED("generic_vhost_user", NULL, NULL),
    REFUSED("pmem",               NULL, NULL),
    REFUSED("devices",            NULL, NULL),
    REFUSED("user_devices",       NULL, NULL),
    REFUSED("vdpa",               NULL, NULL),
    REFUSED("vsock",              NULL, NULL),
    REFUSED("numa",               NULL, NULL),
    REFUSED("iommu",              NULL, "false"),
    REFUSED("watchdog",           NULL, "false"),
    REFUSED("rtc",                NULL, NULL),
    REFUSED("pvpanic",            NULL, "false"),
    REFUSED("pvmemcontrol",       NULL, NULL),
    REFUSED("ivshmem",            NULL, NULL),
    REFUSED("tpm",                NULL, NULL),
    REFUSED("gdb",                NULL, "false"),
    REFUSED("pci_segments",       NULL, NULL),
    BOOL_SET("landlock_enable",   NULL, vm_config, landlock_enable),
    OBJECTS("landlock_rules", vm_config, landlock_rules, landlock_rule_config, nr_landlock_rules,
            VM_CONFIG_LANDLOCK_RULES_MAX, landlock_rule_config_table),
};
const struct config_table vm_config_table = TABLE(vm_config, vm_fields);

/* clang-format on */
