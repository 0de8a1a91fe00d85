/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chvmm/options.h"

#include <errno.h>
#include <string.h>

#include "core/config/option_grammar.h"

/* ---- the table ------------------------------------------------------------- */

enum option_action {
    DO_VM,      /* one value for the configuration: vm_opt */
    DO_VM_MANY, /* one or more values for the configuration: vm_opt */
    DO_API_SOCKET,
    DO_EVENT_MONITOR,
    DO_END_WITH,
    DO_RESTORE,
    DO_SECCOMP,
    DO_LOG_FILE,
    DO_NO_SHUTDOWN,
    DO_LANDLOCK,
    DO_VERBOSE,
    DO_VERSION,
    DO_HELP,
    DO_REFUSE, /* Cloud Hypervisor's, not ours yet */
};

struct option_row {
    const char *name;
    char letter; /* 0: none */
    enum option_action action;
    enum vm_option vm_opt;
    const char *value; /* NULL: takes none */
    const char *help;  /* may have several lines */
    const char *group; /* of this and the rows that follow */
};

/* clang-format off */
static const struct option_row option_rows[] = {
    {"kernel", 0, DO_VM, VM_OPT_KERNEL, "<file>",
     "Kernel to boot: a bzImage, or an ELF file with a PVH entry", "What to boot"},
    {"initramfs", 0, DO_VM, VM_OPT_INITRAMFS, "<file>",
     "Initial RAM file system for the kernel", NULL},
    {"cmdline", 0, DO_VM, VM_OPT_CMDLINE, "<text>",
     "Command line for the kernel, for example \"console=ttyS0 root=/dev/vda1\"", NULL},
    {"restore", 0, DO_RESTORE, 0, "<restore>",
     "Bring back a snapshot instead of booting:\n"
     "  source_url=store:<dir>#<name> | file://<dir>\n"
     "  [,resume=on|off] [,clone=on|off] [,prefault=on|off]\n"
     "  [,memory_restore_mode=auto|copy|ondemand|mapped] [,accept_tsc=on|off]\n"
     "  [,net_fds=[<id>@[<fd>,<fd>...],...]] [,changed_disks=on|off]\n"
     "  [,set=[<part>.<member>=<value>,...]]\n"
     "The VM stays paused unless resume=on; clone=on makes another VM of it;\n"
     "accept_tsc=on runs it although its clock (TSC) was of another rate and cannot be scaled;\n"
     "net_fds names open taps for networks that were made with fd=;\n"
     "changed_disks=on takes disks that were written since; set is what shall be different,\n"
     "for example disks._disk0.path=/new.img, net._net0.tap=tap7, memory.shared=on", NULL},
    {"cpus", 0, DO_VM, VM_OPT_CPUS, "<cpus>",
     "Virtual processors (default 1):\n"
     "  boot=<n> [,max=<n>] [,max_phys_bits=<bits>] [,nested=on|off] [,features=[amx]]\n"
     "  [,topology=<threads per core>:<cores per die>:<dies per package>:<packages>]",
     "The machine"},
    {"memory", 0, DO_VM, VM_OPT_MEMORY, "<memory>",
     "Guest memory (default 512M):\n"
     "  size=<bytes, or with K M G T> [,shared=on|off] [,mergeable=on|off] [,thp=on|off]\n"
     "  [,hugepages=on|off] [,hugepage_size=<size>] [,prefault=on|off] [,reserve=on|off]", NULL},
    {"memory-zone", 0, DO_VM_MANY, VM_OPT_MEMORY_ZONE, "<zone>...",
     "Guest memory in parts of different kinds, with --memory size=0:\n"
     "  id=<name>,size=<size> [,file=<file or directory>] [,shared=on|off] [,mergeable=on|off]\n"
     "  [,hugepages=on|off] [,hugepage_size=<size>] [,prefault=on|off] [,reserve=on|off]", NULL},
    {"platform", 0, DO_VM, VM_OPT_PLATFORM, "<platform>",
     "What the machine says about itself (SMBIOS):\n"
     "  [system_uuid=<uuid>] [,system_manufacturer=<s>] [,system_product_name=<s>]\n"
     "  [,system_version=<s>] [,system_serial_number=<s>] [,system_sku_number=<s>]\n"
     "  [,system_family=<s>] [,chassis_asset_tag=<s>] [,oem_strings=[<s>,<s>...]]", NULL},
    {"disk", 0, DO_VM_MANY, VM_OPT_DISK, "<disk>...",
     "Disks, from raw image files or block devices:\n"
     "  path=<file> [,readonly=on|off] [,direct=on|off] [,id=<name>] [,serial=<at most 20>]\n"
     "  [,num_queues=<n>] [,queue_size=<n>] [,sparse=on|off] [,image_type=raw]\n"
     "  [,lock_granularity=byte-range|full] [,pci_device_id=<1..31>]", "Devices"},
    {"net", 0, DO_VM_MANY, VM_OPT_NET, "<net>...",
     "Network interfaces, each on a tap of the host:\n"
     "  [tap=<name>] [,ip=<address> ,mask=<mask>] [,mac=<mac>] [,host_mac=<mac>] [,mtu=<n>]\n"
     "  [,num_queues=<2 for each pair>] [,queue_size=<n>] [,id=<name>] [,fd=[<n>,<n>...]]\n"
     "  [,offload_tso=on|off] [,offload_ufo=on|off] [,offload_csum=on|off]\n"
     "  [,pci_device_id=<1..31>]", NULL},
    {"rng", 0, DO_VM, VM_OPT_RNG, "<rng>",
     "Source of the guest's random numbers:\n"
     "  [src=<file>] (default /dev/urandom) [,pci_device_id=<1..31>]", NULL},
    {"serial", 0, DO_VM, VM_OPT_SERIAL, "<mode>",
     "The serial port (default null): off | null | tty | pty | file=<file> | socket=<path>", NULL},
    {"console", 0, DO_VM, VM_OPT_CONSOLE, "<mode>",
     "The virtio console (default tty): off | null | tty | pty | file=<file>\n"
     "  [,pci_device_id=<1..31>]", NULL},
    {"debug-console", 0, DO_VM, VM_OPT_DEBUG_CONSOLE, "<mode>",
     "The debug port (default off): off | null | tty | pty | file=<file> [,iobase=0xe9]", NULL},
    {"api-socket", 0, DO_API_SOCKET, 0, "<socket>",
     "Serve the HTTP API on a UNIX socket: <path> | path=<path> | fd=<listening socket>",
     "The process"},
    {"event-monitor", 0, DO_EVENT_MONITOR, 0, "<target>",
     "Write what happens as JSON: path=<file> | fd=<n>", NULL},
    {"end-with", 0, DO_END_WITH, 0, "fd=<n>",
     "End when the other side of this pipe is closed, unless the VM has run, was saved or moved\n"
     "by then; a byte written to it has the VM run on", NULL},
    {"seccomp", 0, DO_SECCOMP, 0, "<mode>",
     "Filter of system calls (default true): true | false | log | errno", NULL},
    {"landlock", 0, DO_LANDLOCK, 0, NULL,
     "Let the VM's process open only the files of its configuration", NULL},
    {"landlock-rules", 0, DO_VM_MANY, VM_OPT_LANDLOCK_RULES, "<rule>...",
     "More paths for --landlock, such as a store for snapshots or the certificates of a move:\n"
     "  path=<file or directory>,access=r|w|rw", NULL},
    {"no-shutdown", 0, DO_NO_SHUTDOWN, 0, NULL,
     "Stay, and keep the API, after the guest powered itself off", NULL},
    {"log-file", 0, DO_LOG_FILE, 0, "<file>", "Log there instead of standard error", NULL},
    {"verbose", 'v', DO_VERBOSE, 0, NULL, "Log more; twice: for debugging", NULL},
    {"version", 'V', DO_VERSION, 0, NULL, "Print the version", NULL},
    {"help", 'h', DO_HELP, 0, NULL, "Print this", NULL},

    {.name = "balloon",             .action = DO_REFUSE},
    {.name = "dbus-object-path",    .action = DO_REFUSE},
    {.name = "dbus-service-name",   .action = DO_REFUSE},
    {.name = "dbus-system-bus",     .action = DO_REFUSE},
    {.name = "device",              .action = DO_REFUSE},
    {.name = "firmware",            .action = DO_REFUSE},
    {.name = "fs",                  .action = DO_REFUSE},
    {.name = "fw-cfg-config",       .action = DO_REFUSE},
    {.name = "gdb",                 .action = DO_REFUSE},
    {.name = "generic-vhost-user",  .action = DO_REFUSE},
    {.name = "host-data",           .action = DO_REFUSE},
    {.name = "igvm",                .action = DO_REFUSE},
    {.name = "ivshmem",             .action = DO_REFUSE},
    {.name = "log-format",          .action = DO_REFUSE},
    {.name = "numa",                .action = DO_REFUSE},
    {.name = "pci-segment",         .action = DO_REFUSE},
    {.name = "pmem",                .action = DO_REFUSE},
    {.name = "pvmemcontrol",        .action = DO_REFUSE},
    {.name = "pvpanic",             .action = DO_REFUSE},
    {.name = "rate-limit-group",    .action = DO_REFUSE},
    {.name = "rtc",                 .action = DO_REFUSE},
    {.name = "tpm",                 .action = DO_REFUSE},
    {.name = "user-device",         .action = DO_REFUSE},
    {.name = "vdpa",                .action = DO_REFUSE},
    {.name = "vsock",               .action = DO_REFUSE},
    {.name = "watchdog",            .action = DO_REFUSE},
};
/* clang-format on */

/* ---- help ------------------------------------------------------------------ */

static void help_row(FILE *out, const struct option_row *row)
{
    const char *line = row->help;

    if (row->group)
        (void)fprintf(out, "\n%s:\n", row->group);
    if (row->letter)
        (void)fprintf(out, "  -%c, ", row->letter);
    else
        (void)fprintf(out, "  ");
    (void)fprintf(out, "--%s%s%s\n", row->name, row->value ? " " : "",
                  row->value ? row->value : "");
    while (*line) {
        int n = (int)strcspn(line, "\n");

        (void)fprintf(out, "          %.*s\n", n, line);
        line += n + (line[n] == '\n');
    }
}

static void print_help(FILE *out)
{
    (void)fputs("chvmm - run one virtual machine under KVM\n"
                "\n"
                "Usage: chvmm --kernel <file> [option...]\n"
                "       chvmm --restore source_url=<url> [option...]\n"
                "       chvmm --api-socket <path> [option...]     wait for chctl\n"
                "\n"
                "Boot a kernel with a disk, its console on this terminal:\n"
                "  chvmm --kernel vmlinuz --cmdline \"console=ttyS0 root=/dev/vda\" \\\n"
                "        --disk path=disk.img --cpus boot=2 --memory size=1G \\\n"
                "        --serial tty --console off --api-socket /run/vm1.sock\n"
                "Then from elsewhere:\n"
                "  chctl --api-socket /run/vm1.sock info\n",
                out);
    for (size_t i = 0; i < ARRAY_LEN(option_rows); i++)
        if (option_rows[i].help)
            help_row(out, &option_rows[i]);
    (void)fputs(
        "\nValues are key=value pairs with commas between them; \"...\" around a value and\n"
        "[...] around a list keep commas in them.  See chvmm(1).\n",
        out);
}

/* ---- values ---------------------------------------------------------------- */

static int option_target_pair(const char *option, const struct option_set *set, char **path,
                              int *fd, struct err *err)
{
    char *value = set->nr == 1 ? set->pairs[0].value : NULL;
    uint64_t v = 0;

    if (!value)
        return err_set(err, -EINVAL, "%s: must be path=<path> or fd=<number>", option);
    if (!strcmp(set->pairs[0].key, "path")) {
        if (vm_config_set_string(path, option_text(value)))
            return err_set(err, -ENOMEM, "out of memory");
        return 0;
    }
    if (strcmp(set->pairs[0].key, "fd") != 0)
        return err_set(err, -EINVAL, "%s: unknown key '%.48s'", option, set->pairs[0].key);
    if (option_u64(value, 0, INT32_MAX, &v))
        return err_set(err, -EINVAL, "%s fd: '%.48s' is not a file descriptor", option, value);
    *fd = (int)v;
    return 0;
}

/* "path=<path>", "fd=<n>", and where @bare is set "<path>". */
static int option_target(const char *option, const char *value, bool bare, char **path, int *fd,
                         struct err *err)
{
    struct option_set set = {0};
    int rc;

    if (*path || *fd >= 0)
        return err_set(err, -EINVAL, "%s: is there twice", option);
    if (bare && !strchr(value, '=')) {
        rc = vm_config_set_string(path, value);
        return rc ? err_set(err, rc, "out of memory") : 0;
    }
    rc = option_set_parse(value, &set, err);
    if (rc)
        return err_prefix(err, rc, "%s", option);
    rc = option_target_pair(option, &set, path, fd, err);
    option_set_release(&set);
    return rc;
}

static int option_end_with(const char *value, struct chvmm_options *opts, struct err *err)
{
    uint64_t fd = 0;

    if (opts->end_with_fd >= 0)
        return err_set(err, -EINVAL, "--end-with: is there twice");
    if (strncmp(value, "fd=", 3) != 0 || option_u64(value + 3, 0, INT32_MAX, &fd))
        return err_set(err, -EINVAL, "--end-with: must be fd=<number>");
    opts->end_with_fd = (int)fd;
    return 0;
}

static int option_seccomp(const char *value, enum chvmm_seccomp *ret_mode, struct err *err)
{
    static const char *const names[] = {
        [CHVMM_SECCOMP_KILL] = "true",
        [CHVMM_SECCOMP_OFF] = "false",
        [CHVMM_SECCOMP_LOG] = "log",
        [CHVMM_SECCOMP_ERRNO] = "errno",
    };

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(names[i], value) != 0)
            continue;
        *ret_mode = (enum chvmm_seccomp)i;
        return 0;
    }
    return err_set(err, -EINVAL, "--seccomp: must be one of true, false, log, errno");
}

static int option_restore(const char *value, struct chvmm_options *opts, struct err *err)
{
    if (opts->has_restore)
        return err_set(err, -EINVAL, "--restore: is there twice");
    opts->has_restore = true;
    return action_config_from_option(ACTION_RESTORE, "--restore", value, &opts->restore, err);
}

static int option_log_file(const char *value, struct chvmm_options *opts, struct err *err)
{
    if (opts->log_file)
        return err_set(err, -EINVAL, "--log-file: is there twice");
    if (vm_config_set_string(&opts->log_file, value))
        return err_set(err, -ENOMEM, "out of memory");
    return 0;
}

/* ---- the walk -------------------------------------------------------------- */

struct option_walk {
    struct chvmm_options *opts;
    FILE *out;
    const struct option_row *many; /* values without an option in front belong to it */
    uint64_t seen;                 /* bit n: options of one value that were there, by vm_option */
    bool vm_option_given;
    struct err *err;
};

/* Return: 0 go on; 1 printed, done; negative: refused. */
static int option_apply(struct option_walk *walk, const struct option_row *row, const char *value)
{
    struct chvmm_options *opts = walk->opts;

    switch (row->action) {
    case DO_VM:
        if (walk->seen & 1ull << row->vm_opt)
            return err_set(walk->err, -EINVAL, "--%s: is there twice", row->name);
        walk->seen |= 1ull << row->vm_opt;
        walk->vm_option_given = true;
        return vm_config_from_option(&opts->config, row->vm_opt, value, walk->err);
    case DO_VM_MANY:
        walk->vm_option_given = true;
        return vm_config_from_option(&opts->config, row->vm_opt, value, walk->err);
    case DO_API_SOCKET:
        return option_target("--api-socket", value, true, &opts->api_socket_path,
                             &opts->api_socket_fd, walk->err);
    case DO_EVENT_MONITOR:
        return option_target("--event-monitor", value, false, &opts->event_monitor_path,
                             &opts->event_monitor_fd, walk->err);
    case DO_END_WITH:
        return option_end_with(value, opts, walk->err);
    case DO_RESTORE:
        return option_restore(value, opts, walk->err);
    case DO_SECCOMP:
        return option_seccomp(value, &opts->seccomp, walk->err);
    case DO_LOG_FILE:
        return option_log_file(value, opts, walk->err);
    case DO_LANDLOCK:
        walk->vm_option_given = true;
        opts->config.landlock_enable = true;
        return 0;
    case DO_NO_SHUTDOWN:
        opts->no_shutdown = true;
        return 0;
    case DO_VERBOSE:
        if (opts->log_level < LOG_DEBUG)
            opts->log_level++;
        return 0;
    case DO_VERSION:
        (void)fprintf(walk->out, "chvmm %s\n", CHRYSALIS_VERSION);
        return 1;
    case DO_HELP:
        print_help(walk->out);
        return 1;
    case DO_REFUSE:
        break;
    }
    return err_set(walk->err, -ENOTSUP, "--%s: not supported yet by this version", row->name);
}

static const struct option_row *option_find_row(const char *name, size_t len)
{
    for (size_t i = 0; i < ARRAY_LEN(option_rows); i++)
        if (strlen(option_rows[i].name) == len && !memcmp(option_rows[i].name, name, len))
            return &option_rows[i];
    return NULL;
}

/* -v, -V, -h, also several in one word. */
static int option_letters(struct option_walk *walk, const char *letters)
{
    int rc = 0;

    for (; *letters && !rc; letters++) {
        const struct option_row *row = NULL;

        for (size_t i = 0; i < ARRAY_LEN(option_rows) && !row; i++)
            if (option_rows[i].letter == *letters)
                row = &option_rows[i];
        if (!row)
            return err_set(walk->err, -EINVAL, "-%c: unknown option (see --help)", *letters);
        rc = option_apply(walk, row, "");
    }
    return rc;
}

/* "--name", "--name value" or "--name=value"; @next is the following word or NULL. */
static int option_long(struct option_walk *walk, const char *word, const char *next, bool *ret_used)
{
    size_t len = strcspn(word, "=");
    const struct option_row *row = option_find_row(word, len);
    const char *value = word[len] ? word + len + 1 : NULL;

    *ret_used = false;
    walk->many = NULL;
    if (!row)
        return err_set(walk->err, -EINVAL, "--%.*s: unknown option (see --help)",
                       len > 48 ? 48 : (int)len, word);
    if (!row->value && row->action != DO_REFUSE && value)
        return err_set(walk->err, -EINVAL, "--%s: takes no value", row->name);
    if (row->value && !value) {
        if (!next)
            return err_set(walk->err, -EINVAL, "--%s: needs a value, %s", row->name, row->value);
        value = next;
        *ret_used = true;
    }
    if (row->action == DO_VM_MANY)
        walk->many = row;
    return option_apply(walk, row, value ? value : "");
}

static int option_word(struct option_walk *walk, const char *word, const char *next, bool *ret_used)
{
    *ret_used = false;
    if (!strncmp(word, "--", 2) && word[2])
        return option_long(walk, word + 2, next, ret_used);
    if (word[0] == '-' && word[1] && word[1] != '-') {
        walk->many = NULL;
        return option_letters(walk, word + 1);
    }
    if (!walk->many)
        return err_set(walk->err, -EINVAL, "'%.64s': no option takes this (see --help)", word);
    return option_apply(walk, walk->many, word);
}

static int option_check(struct option_walk *walk)
{
    struct chvmm_options *opts = walk->opts;

    if (walk->vm_option_given && opts->has_restore)
        return err_set(walk->err, -EINVAL,
                       "--restore: not possible with options of a new VM, such as --kernel");
    if (!walk->vm_option_given && !opts->has_restore && !opts->api_socket_path &&
        opts->api_socket_fd < 0)
        return err_set(walk->err, -EINVAL,
                       "nothing to do: give --kernel, --restore or --api-socket (see --help)");
    if (!walk->vm_option_given)
        return 0;
    if (!opts->config.payload.kernel)
        return err_set(walk->err, -EINVAL, "--kernel: is missing: there is nothing to boot");
    opts->has_vm = true;
    return vm_config_complete(&opts->config, walk->err);
}

int chvmm_options_parse(int argc, char *const argv[], FILE *out, struct chvmm_options *ret_opts,
                        struct err *err)
{
    struct chvmm_options opts = {
        .api_socket_fd = -1,
        .event_monitor_fd = -1,
        .end_with_fd = -1,
        .log_level = LOG_WARN,
    };
    struct option_walk walk = {.opts = &opts, .out = out, .err = err};
    bool used = false;
    int rc = 0;

    for (int i = 1; i < argc && !rc; i += used ? 2 : 1)
        rc = option_word(&walk, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &used);
    if (!rc)
        rc = option_check(&walk);
    if (rc) {
        chvmm_options_release(&opts);
        return rc;
    }
    *ret_opts = opts;
    return 0;
}

void chvmm_options_release(struct chvmm_options *opts)
{
    vm_config_release(&opts->config);
    action_config_release(ACTION_RESTORE, &opts->restore);
    free(opts->api_socket_path);
    free(opts->event_monitor_path);
    free(opts->log_file);
    *opts = (struct chvmm_options){.api_socket_fd = -1, .event_monitor_fd = -1, .end_with_fd = -1};
}
