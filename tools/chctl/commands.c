/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands of chctl: ch-remote's, and those for the progress of a migration.
 */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "core/config/action_config.h"
#include "core/config/option_grammar.h"
#include "core/config/vm_config.h"
#include "core/json_get.h"
#include "tools/chctl/chctl.h"

/* ---- the table ------------------------------------------------------------- */

typedef int command_fn(const struct chctl_command *command, int argc, char *const argv[],
                       struct chctl_call *call, struct err *err);

struct chctl_command {
    const char *name;
    const char *method;
    const char *path;
    command_fn *parse; /* NULL: not supported yet by this version */
    int arg;           /* of parse */
    const char *usage; /* what follows the name; "" for nothing */
    const char *summary;
    const char *help; /* more lines, may be "" */
    const char *group;
};

static command_fn parse_nothing, parse_create, parse_url, parse_action, parse_device, parse_id,
    parse_resize, parse_resize_part, parse_progress, parse_resolve;

/* clang-format off */
static const struct chctl_command commands[] = {
    {"ping", "GET", "vmm.ping", parse_nothing, 0, "",
     "Ask the VMM for its version", "", "Asking"},
    {"info", "GET", "vm.info", parse_nothing, 0, "",
     "Print configuration, state and devices of the VM", "", NULL},
    {"counters", "GET", "vm.counters", parse_nothing, 0, "",
     "Print the counters of the devices", "", NULL},

    {"create", "PUT", "vm.create", parse_create, 0, "[<file>|-]",
     "Create a VM from a JSON configuration",
     "The configuration is read from the file, or from standard input.\n", "Life of a VM"},
    {"boot", "PUT", "vm.boot", parse_nothing, 0, "", "Boot the VM that was created", "", NULL},
    {"pause", "PUT", "vm.pause", parse_nothing, 0, "", "Stop the VM where it is", "", NULL},
    {"resume", "PUT", "vm.resume", parse_nothing, 0, "", "Let a paused VM go on", "", NULL},
    {"power-button", "PUT", "vm.power-button", parse_nothing, 0, "",
     "Press the power button: the guest decides", "", NULL},
    {"reboot", "PUT", "vm.reboot", parse_nothing, 0, "", "Reset the VM", "", NULL},
    {"nmi", "PUT", "vm.nmi", parse_nothing, 0, "", "Send an NMI to the guest", "", NULL},
    {"shutdown", "PUT", "vm.shutdown", parse_nothing, 0, "",
     "Switch the VM off; the VMM stays", "", NULL},
    {"delete", "PUT", "vm.delete", parse_nothing, 0, "", "Forget the VM; the VMM stays", "", NULL},
    {"shutdown-vmm", "PUT", "vmm.shutdown", parse_nothing, 0, "",
     "Switch the VM off and end the VMM", "", NULL},

    {"snapshot", "PUT", "vm.snapshot", parse_url, 0, "<url>",
     "Save the VM",
     "<url> is store:<dir>#<name> for a store, or file:///<dir> for a directory of its own.\n"
     "A paused VM stays paused, a running one goes on.\n",
     "Snapshots"},
    {"snapshot-progress", "GET", "vm.snapshot-progress", parse_nothing, 0, "",
     "Print how far a snapshot is, or what came of the last", "", NULL},
    {"snapshot-cancel", "PUT", "vm.snapshot-cancel", parse_nothing, 0, "",
     "Give up a snapshot; the VM goes on, the store is as it was", "", NULL},
    {"restore", "PUT", "vm.restore", parse_action, ACTION_RESTORE,
     "source_url=<url>[,resume=on][,clone=on][,prefault=on]\n"
     "       [,memory_restore_mode=auto|copy|ondemand|mapped][,accept_tsc=on]\n"
     "       [,net_fds=[<id>@[<fd>,...],...]]",
     "Bring a saved VM back",
     "The VM stays paused unless resume=on.  clone=on makes another VM of it, with a UUID, MACs\n"
     "and disks of its own.  accept_tsc=on runs it although its TSC was of another rate and\n"
     "cannot be scaled here: its clock may be wrong.  net_fds hands over tap descriptors for the\n"
     "networks that were made with some.  set=[<part>.<member>=<value>,...] is what shall be\n"
     "different; changed_disks=on takes disks that were written since (chvmm(1)).\n", NULL},
    {"send-migration", "PUT", "vm.send-migration", parse_action, ACTION_SEND_MIGRATION,
     "destination_url=<url>[,tls_dir=<dir>][,downtime_ms=<ms>][,timeout_s=<s>]\n"
     "       [,timeout_strategy=cancel|ignore][,connections=<n>][,bandwidth=<bytes/s>]\n"
     "       [,compression=auto|off|zstd][,local=on][,preserve_source=on]\n"
     "       [,insecure=on][,memory_mode=precopy|postcopy]",
     "Move the running VM to another VMM",
     "<url> is tcp:<host>:<port> or unix:<path>, where the other VMM waits in receive-migration.\n"
     "tls_dir has ca-cert.pem, client-cert.pem and client-key.pem: mutual TLS.  Without it tcp:\n"
     "goes to this host only, unless insecure=on.\n"
     "downtime_ms (300) is how long the guest may stand still, timeout_s (3600) how long all may\n"
     "take until it is stopped, connecting too; then timeout_strategy=cancel gives up and ignore\n"
     "lets the guest stand still longer.\n"
     "connections are chosen from the processors unless said.  bandwidth, as 100M, caps all of them\n"
     "together; without it there is no limit.\n"
     "compression=auto compresses where the link is slower than that.  local=on, with unix:, hands\n"
     "shared memory over instead of copying it.\n"
     "See also: chctl help migration-progress\n",
     "Live migration"},
    {"receive-migration", "PUT", "vm.receive-migration", parse_action, ACTION_RECEIVE_MIGRATION,
     "receiver_url=<url>[,tls_dir=<dir>][,insecure=on][,accept_tsc=on]\n"
     "       [,memory_size=<size>][,memory_mode=precopy|postcopy]\n"
     "       [,failure_strategy=stay|exit][,net_fds=[<id>@[<fd>,...],...]]",
     "Wait for a VM that moves here",
     "Returns when the migration has ended.  With port 0 any free one is taken; the log, the event\n"
     "migration-receive-ready and migration-progress say which.\n"
     "tls_dir has ca-cert.pem, server-cert.pem and server-key.pem: mutual TLS.\n"
     "accept_tsc=on takes a VM whose TSC is of another rate and cannot be scaled here.\n"
     "memory_size (as 8G) has the VM's memory made ready before it comes, which makes the move\n"
     "shorter; what the VM does not need of it is given back.\n"
     "failure_strategy=exit ends a VMM that gets no VM, with exit code 1; stay (usual) lets it wait\n"
     "for the next command.  A VMM that its source may have to ask (migration-resolve) stays.\n", NULL},
    {"migration-progress", "GET", "vm.migration-progress", parse_progress, 0,
     "[--follow] [--plot <file>]",
     "Print how far a migration is",
     "--follow waits until it is over, shows the progress on standard error, then prints the last\n"
     "answer; the exit code is 0 if the migration was completed, 1 if not.  Both ends can be\n"
     "followed: a source gives its last answer before it ends.\n"
     "--plot draws that answer as SVG: pages sent and dirty over time, throttle, blackout.\n", NULL},
    {"migration-cancel", "PUT", "vm.migration-cancel", parse_nothing, 0, "",
     "Give up a migration; the VM goes on where it is", "", NULL},
    {"migration-resolve", "PUT", "vm.migration-resolve", parse_resolve, ACTION_RESOLVE_MIGRATION,
     "[statement=<statement>|lost=<migration>|migration=<migration>]",
     "Decide a migration whose source got no answer",
     "A source that has handed its VM over and hears nothing stays paused: the VM may run at the\n"
     "destination.  Two commands decide it:\n"
     "  1. at the destination: migration-resolve\n"
     "     prints a statement: \"taken:...\", it has started the VM, or \"never:...\", it never will.\n"
     "  2. at the source: migration-resolve statement=<statement>\n"
     "     ends the source, or lets its VM go on.  Only the statement of this very migration does.\n"
     "Where the destination's process is gone and its log does not end with \"taken\" for it:\n"
     "     at the source: migration-resolve lost=<migration>, as migration-progress names it,\n"
     "     lets the VM go on, unless a disk (a file) was written meanwhile.\n", NULL},
    {"migration-switchover", "PUT", "vm.migration-switchover", parse_nothing, 0, "",
     "Stop the VM at the source and finish the migration now",
     "After the round of copying that is going on, however long the VM will stand still.\n", NULL},

    {"add-disk", "PUT", "vm.add-disk", parse_device, VM_OPT_DISK, "path=<file>[,...]",
     "Add a disk", "The value is that of chvmm --disk.\n",
     "Changing a VM (for other VMMs: chvmm has none of these yet)"},
    {"add-net", "PUT", "vm.add-net", parse_device, VM_OPT_NET, "tap=<name>[,...]",
     "Add a network interface",
     "The value is that of chvmm --net; descriptors named by fd=[...] are handed over.\n", NULL},
    {"remove-device", "PUT", "vm.remove-device", parse_id, 0, "<id>",
     "Take a device away", "The guest must let go of it.\n", NULL},
    {"resize", "PUT", "vm.resize", parse_resize, 0,
     "[--cpus <n>] [--memory <size>] [--balloon <size>]",
     "Change the size of the VM", "", NULL},
    {"resize-disk", "PUT", "vm.resize-disk", parse_resize_part, 0, "--disk <id> --size <size>",
     "Tell the guest that a disk has another size", "", NULL},
    {"resize-zone", "PUT", "vm.resize-zone", parse_resize_part, 1, "--id <id> --size <size>",
     "Change the size of a memory zone", "", NULL},

    {.name = "add-device"}, {.name = "add-fs"}, {.name = "add-generic-vhost-user"},
    {.name = "add-pmem"}, {.name = "add-user-device"}, {.name = "add-vdpa"}, {.name = "add-vsock"},
    {.name = "coredump"},
};
/* clang-format on */

static const struct chctl_command *command_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (!strcmp(commands[i].name, name))
            return &commands[i];
    return NULL;
}

/* ---- help ------------------------------------------------------------------ */

static void help_all(FILE *out)
{
    (void)fputs("chctl - the remote control of a virtual machine\n"
                "\n"
                "Usage: chctl --api-socket <path> <command> [argument...]\n"
                "       chctl help <command>\n"
                "\n"
                "Look at a VM, save it, move it:\n"
                "  chctl --api-socket /run/vm1.sock info\n"
                "  chctl --api-socket /run/vm1.sock snapshot store:/var/lib/vms#monday\n"
                "  chctl --api-socket /run/vm1.sock send-migration destination_url=tcp:host2:4444\n"
                "  chctl --api-socket /run/vm1.sock migration-progress --follow\n",
                out);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        if (!commands[i].summary)
            continue;
        if (commands[i].group)
            (void)fprintf(out, "\n%s:\n", commands[i].group);
        (void)fprintf(out, "  %-20s %s\n", commands[i].name, commands[i].summary);
    }
    (void)fputs("\nOptions:\n"
                "  --api-socket <path>  the API socket of chvmm; or set CHCTL_API_SOCKET\n"
                "  -h, --help           print this, or after a command its help\n"
                "  -V, --version        print the version\n"
                "\n"
                "Answers go to standard output as JSON, errors to standard error as a chain.\n"
                "Exit code: 0 done, 1 the VM refused or is not there, 2 wrong command line.\n",
                out);
}

int chctl_print_help(FILE *out, const char *name)
{
    const struct chctl_command *command;

    if (!name) {
        help_all(out);
        return 0;
    }
    command = command_find(name);
    if (!command || !command->summary)
        return -ENOENT;
    (void)fprintf(out, "Usage: chctl --api-socket <path> %s%s%s\n\n%s.\n%s", command->name,
                  *command->usage ? " " : "", command->usage, command->summary, command->help);
    return 0;
}

/* ---- arguments ------------------------------------------------------------- */

/* @obj: taken, may be NULL where memory ran out. */
static int take_json(struct chctl_call *call, struct json_object *obj, struct err *err)
{
    size_t len = 0;
    int rc = obj ? json_print(obj, &call->body, &len) : -ENOMEM;

    json_object_put(obj);
    return rc ? err_set(err, rc, "out of memory") : 0;
}

static int need_one(const struct chctl_command *command, int argc, char *const argv[],
                    struct err *err)
{
    if (argc == 1)
        return 0;
    return argc ? err_set(err, -EINVAL, "%s: '%.64s' is one argument too many", command->name,
                          argv[1])
                : err_set(err, -EINVAL, "%s: needs %.160s", command->name, command->usage);
}

static int parse_nothing(const struct chctl_command *command, int argc, char *const argv[],
                         struct chctl_call *call, struct err *err)
{
    (void)call;
    if (argc)
        return err_set(err, -EINVAL, "%s: takes no argument, '%.64s' was given", command->name,
                       argv[0]);
    return 0;
}

static int read_file(FILE *f, const char *name, char **ret_text, struct err *err)
{
    auto_free char *text = malloc(JSON_TEXT_MAX + 1);
    size_t len;

    if (!text)
        return err_set(err, -ENOMEM, "out of memory");
    len = fread(text, 1, JSON_TEXT_MAX + 1, f);
    if (ferror(f))
        return err_set(err, -EIO, "create: cannot read %s", name);
    if (len > JSON_TEXT_MAX)
        return err_set(err, -E2BIG, "create: %s has more than %d bytes", name, JSON_TEXT_MAX);
    if (memchr(text, 0, len) || !len)
        return err_set(err, -EINVAL, "create: %s is no JSON", name);
    text[len] = 0;
    *ret_text = steal_ptr(text);
    return 0;
}

static int parse_create(const struct chctl_command *command, int argc, char *const argv[],
                        struct chctl_call *call, struct err *err)
{
    const char *name = argc ? argv[0] : "-";
    bool is_stdin = !strcmp(name, "-");
    FILE *f = stdin;
    int rc = argc ? need_one(command, argc, argv, err) : 0;

    if (rc)
        return rc;
    if (!is_stdin)
        f = fopen(name, "re");
    if (!f)
        return err_set(err, -errno, "create: %s: %s", name, strerror(errno));
    rc = read_file(f, is_stdin ? "standard input" : name, &call->body, err);
    if (!is_stdin)
        (void)fclose(f);
    return rc;
}

static int parse_url(const struct chctl_command *command, int argc, char *const argv[],
                     struct chctl_call *call, struct err *err)
{
    struct snapshot_config cfg = {0};
    struct json_object *obj = NULL;
    int rc = need_one(command, argc, argv, err);

    if (rc)
        return rc;
    cfg.destination_url = argv[0];
    rc = action_config_to_json(ACTION_SNAPSHOT, &cfg, &obj);
    return take_json(call, rc ? NULL : obj, err);
}

/* The descriptors of networks go with the request, in its order: JSON has only their number. */
static int take_net_fds(struct chctl_call *call, const struct net_fds_config *xs, unsigned nr,
                        struct err *err)
{
    unsigned n = 0;

    for (unsigned i = 0; i < nr; i++)
        n += xs[i].nr_fds;
    if (!n)
        return 0;
    call->fds = calloc(n, sizeof(*call->fds));
    if (!call->fds)
        return err_set(err, -ENOMEM, "out of memory");
    for (unsigned i = 0; i < nr; i++)
        for (unsigned j = 0; j < xs[i].nr_fds; j++)
            call->fds[call->nr_fds++] = xs[i].fds[j];
    return 0;
}

/* A value by itself, as earlier versions of ch-remote had it, is no unknown key. */
static int need_key(const struct chctl_command *command, const char *arg, struct err *err)
{
    static const char *const firsts[] = {
        [ACTION_RESTORE] = "source_url",
        [ACTION_SEND_MIGRATION] = "destination_url",
        [ACTION_RECEIVE_MIGRATION] = "receiver_url",
        [ACTION_RESOLVE_MIGRATION] = "statement",
    };
    char end = arg[strcspn(arg, "=,:/")];

    if (end != ':' && end != '/')
        return 0;
    return err_set(err, -EINVAL, "%s: '%.64s' needs its key: %s=%.64s", command->name, arg,
                   firsts[command->arg], arg);
}

static int parse_action(const struct chctl_command *command, int argc, char *const argv[],
                        struct chctl_call *call, struct err *err)
{
    union {
        struct restore_config restore;
        struct send_migration_config send;
        struct receive_migration_config receive;
        struct resolve_config resolve;
    } cfg;
    enum action_kind kind = (enum action_kind)command->arg;
    struct json_object *obj = NULL;
    int rc = need_one(command, argc, argv, err);

    if (!rc)
        rc = need_key(command, argv[0], err);
    if (!rc)
        rc = action_config_from_option(kind, command->name, argv[0], &cfg, err);
    if (rc)
        return rc;
    if (kind == ACTION_RESTORE)
        rc = take_net_fds(call, cfg.restore.net_fds, cfg.restore.nr_net_fds, err);
    else if (kind == ACTION_RECEIVE_MIGRATION)
        rc = take_net_fds(call, cfg.receive.net_fds, cfg.receive.nr_net_fds, err);
    if (!rc)
        rc = action_config_to_json(kind, &cfg, &obj);
    action_config_release(kind, &cfg);
    return take_json(call, rc ? NULL : obj, err);
}

static int parse_resolve(const struct chctl_command *command, int argc, char *const argv[],
                         struct chctl_call *call, struct err *err)
{
    return argc ? parse_action(command, argc, argv, call, err) : 0;
}

/* The descriptors of a network themselves: JSON has only their number. */
static int take_fds(struct chctl_call *call, const char *value, struct err *err)
{
    struct vm_config cfg = {0};
    int rc = vm_config_from_option(&cfg, VM_OPT_NET, value, err);

    if (!rc && cfg.nr_nets) {
        call->fds = steal_ptr(cfg.nets[0].fds);
        call->nr_fds = cfg.nets[0].nr_fds;
        cfg.nets[0].nr_fds = 0;
    }
    vm_config_release(&cfg);
    return rc;
}

static int parse_device(const struct chctl_command *command, int argc, char *const argv[],
                        struct chctl_call *call, struct err *err)
{
    enum vm_option opt = (enum vm_option)command->arg;
    struct json_object *obj = NULL;
    int rc = need_one(command, argc, argv, err);

    if (!rc)
        rc = vm_config_option_json(opt, argv[0], &obj, err);
    if (!rc)
        rc = take_json(call, obj, err);
    return !rc && opt == VM_OPT_NET ? take_fds(call, argv[0], err) : rc;
}

static int parse_id(const struct chctl_command *command, int argc, char *const argv[],
                    struct chctl_call *call, struct err *err)
{
    struct json_object *obj;
    int rc = need_one(command, argc, argv, err);

    if (rc)
        return rc;
    obj = json_object_new_object();
    (void)json_object_object_add(obj, "id", json_object_new_string(argv[0]));
    return take_json(call, obj, err);
}

/* An option of resize and its kin. */
struct value_option {
    const char *name, *key;
    bool is_size, is_text, needed;
};

static int put_value(const struct chctl_command *command, const struct value_option *opt,
                     const char *value, struct json_object *obj, struct err *err)
{
    uint64_t v = 0;
    int rc = 0;

    if (json_object_object_get(obj, opt->key))
        return err_set(err, -EINVAL, "%s: --%s is there twice", command->name, opt->name);
    if (opt->is_text) {
        (void)json_object_object_add(obj, opt->key, json_object_new_string(value));
        return 0;
    }
    rc = opt->is_size ? option_size(value, &v) : option_u64(value, 1, VM_CONFIG_VCPUS_MAX, &v);
    if (rc)
        return err_set(err, -EINVAL, "%s: --%s: '%.64s' is not a %s", command->name, opt->name,
                       value, opt->is_size ? "size (512M, 4G)" : "number of processors");
    (void)json_object_object_add(obj, opt->key, json_object_new_uint64(v));
    return 0;
}

struct value_walk {
    const struct chctl_command *command;
    const struct value_option *opts; /* ends with a NULL name */
    int argc, i;
    char *const *argv;
    struct json_object *obj;
};

/* "--name value" or "--name=value" at argv[i]. */
static int parse_value(struct value_walk *walk, struct err *err)
{
    const char *word = walk->argv[walk->i++];
    const char *name = walk->command->name;
    size_t len = strcspn(word, "=");
    const char *value = NULL;

    for (const struct value_option *opt = walk->opts; opt->name; opt++) {
        if (len < 3 || strncmp(word, "--", 2) != 0 || strlen(opt->name) != len - 2 ||
            strncmp(word + 2, opt->name, len - 2) != 0)
            continue;
        if (word[len])
            value = word + len + 1;
        else if (walk->i < walk->argc)
            value = walk->argv[walk->i++];
        if (!value)
            return err_set(err, -EINVAL, "%s: --%s needs a value", name, opt->name);
        return put_value(walk->command, opt, value, walk->obj, err);
    }
    return err_set(err, -EINVAL, "%s: unknown argument '%.64s'", name, word);
}

static int parse_values(struct value_walk *walk, struct chctl_call *call, struct err *err)
{
    int rc = 0;

    walk->obj = json_object_new_object();
    if (!walk->obj)
        return err_set(err, -ENOMEM, "out of memory");
    while (!rc && walk->i < walk->argc)
        rc = parse_value(walk, err);
    for (const struct value_option *opt = walk->opts; !rc && opt->name; opt++)
        if (opt->needed && !json_object_object_get(walk->obj, opt->key))
            rc = err_set(err, -EINVAL, "%s: --%s is missing", walk->command->name, opt->name);
    if (!rc && !json_object_object_length(walk->obj))
        rc = err_set(err, -EINVAL, "%s: needs %.160s", walk->command->name, walk->command->usage);
    if (rc) {
        json_object_put(walk->obj);
        return rc;
    }
    return take_json(call, walk->obj, err);
}

static int parse_resize(const struct chctl_command *command, int argc, char *const argv[],
                        struct chctl_call *call, struct err *err)
{
    static const struct value_option opts[] = {
        {.name = "cpus",        .key = "desired_vcpus"},
        {.name = "memory",                     .key = "desired_ram", .is_size = true},
        {.name = "balloon",.key = "desired_balloon", .is_size = true},
        {0                    },
    };
    struct value_walk walk = {.command = command, .opts = opts, .argc = argc, .argv = argv};

    return parse_values(&walk, call, err);
}

static int parse_resize_part(const struct chctl_command *command, int argc, char *const argv[],
                             struct chctl_call *call, struct err *err)
{
    static const struct value_option disk[] = {
        {.name = "disk",   .key = "id", .is_text = true, .needed = true},
        {.name = "size", .key = "desired_size", .is_size = true, .needed = true},
        {0               },
    };
    static const struct value_option zone[] = {
        {.name = "id",     .key = "id", .is_text = true, .needed = true},
        {.name = "size", .key = "desired_ram", .is_size = true, .needed = true},
        {0               },
    };
    struct value_walk walk = {
        .command = command,
        .opts = command->arg ? zone : disk,
        .argc = argc,
        .argv = argv,
    };

    return parse_values(&walk, call, err);
}

static int parse_progress(const struct chctl_command *command, int argc, char *const argv[],
                          struct chctl_call *call, struct err *err)
{
    static const char plot[] = "--plot";

    for (; argc; argc--, argv++) {
        if (!strcmp(argv[0], "--follow")) {
            call->follow = true;
        } else if (!strncmp(argv[0], "--plot=", sizeof(plot))) {
            call->plot = argv[0] + sizeof(plot);
        } else if (!strcmp(argv[0], plot) && argc > 1) {
            call->plot = argv[1];
            argc--;
            argv++;
        } else if (!strcmp(argv[0], plot)) {
            return err_set(err, -EINVAL, "%s: --plot needs a file", command->name);
        } else {
            break;
        }
    }
    if (call->plot && !*call->plot)
        return err_set(err, -EINVAL, "%s: --plot needs a file", command->name);
    return parse_nothing(command, argc, argv, call, err);
}

/* ---- the interface --------------------------------------------------------- */

int chctl_call_parse(int argc, char *const argv[], struct chctl_call *ret_call, struct err *err)
{
    struct chctl_call call = {.command = command_find(argv[0])};
    int rc;

    if (!call.command)
        return err_set(err, -EINVAL, "%.64s: unknown command (see --help)", argv[0]);
    if (!call.command->parse)
        return err_set(err, -ENOTSUP, "%s: not supported yet by this version", argv[0]);
    rc = call.command->parse(call.command, argc - 1, argv + 1, &call, err);
    if (rc) {
        chctl_call_release(&call);
        return rc;
    }
    *ret_call = call;
    return 0;
}

void chctl_call_release(struct chctl_call *call)
{
    free(call->body);
    free(call->fds);
    *call = (struct chctl_call){0};
}

int chctl_call_send(const struct chctl_call *call, const char *socket_path,
                    struct http_response *ret_res, struct err *err)
{
    char path[64];
    struct http_request req = {
        .method = call->command->method,
        .path = path,
        .body = call->body,
        .body_len = call->body ? strlen(call->body) : 0,
        .fds = call->fds,
        .nr_fds = call->nr_fds,
    };
    auto_close int fd = -1;
    int rc = http_client_connect(socket_path, &fd, err);

    if (rc)
        return rc;
    (void)snprintf(path, sizeof(path), "/api/v1/%s", call->command->path);
    return http_client_call(fd, &req, ret_res, err);
}
