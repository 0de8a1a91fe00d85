/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source: the kernel's Documentation/userspace-api/landlock.rst.
 */
#include "tools/chvmm/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "core/log.h"

/* Rights, in the order in which the kernel learned them; headers may be older than the kernel. */
enum {
    FS_EXECUTE = 1 << 0,
    FS_WRITE_FILE = 1 << 1,
    FS_READ_FILE = 1 << 2,
    FS_READ_DIR = 1 << 3,
    FS_REMOVE_DIR = 1 << 4,
    FS_REMOVE_FILE = 1 << 5,
    FS_MAKE_CHAR = 1 << 6,
    FS_MAKE_DIR = 1 << 7,
    FS_MAKE_REG = 1 << 8,
    FS_MAKE_SOCK = 1 << 9,
    FS_MAKE_FIFO = 1 << 10,
    FS_MAKE_BLOCK = 1 << 11,
    FS_MAKE_SYM = 1 << 12,
    FS_ABI_1 = (1 << 13) - 1,
    FS_REFER = 1 << 13,     /* ABI 2 */
    FS_TRUNCATE = 1 << 14,  /* ABI 3 */
    FS_IOCTL_DEV = 1 << 15, /* ABI 5 */

    ACCESS_READ = FS_READ_FILE | FS_READ_DIR,
    ACCESS_WRITE = FS_WRITE_FILE | FS_TRUNCATE | FS_REMOVE_DIR | FS_REMOVE_FILE | FS_MAKE_DIR |
                   FS_MAKE_REG | FS_MAKE_SOCK | FS_MAKE_FIFO | FS_MAKE_SYM | FS_REFER,
    ACCESS_DEVICE = FS_READ_FILE | FS_WRITE_FILE | FS_IOCTL_DEV,
    /* What a rule for something that is no directory may hold. */
    ACCESS_FILE = FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV,
};

/* Rules being made. */
struct landlock {
    int fd;
    uint64_t handled; /* rights that this kernel knows */
    struct err *err;
    int rc; /* of the first failure */
};

static uint64_t rights_of_kernel(long abi)
{
    uint64_t rights = FS_ABI_1;

    if (abi >= 2)
        rights |= FS_REFER;
    if (abi >= 3)
        rights |= FS_TRUNCATE;
    if (abi >= 5)
        rights |= FS_IOCTL_DEV;
    return rights;
}

/* Return: 0; -ENOENT where there is no such path; the kernel's errno. */
static int add_path(struct landlock *l, const char *path, uint64_t access)
{
    auto_close int fd = open(path, O_PATH | O_CLOEXEC);
    struct landlock_path_beneath_attr attr = {.parent_fd = fd};
    struct stat st;

    if (l->rc < 0)
        return l->rc;
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISDIR(st.st_mode))
        access &= ACCESS_FILE;
    if (S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode))
        access |= FS_IOCTL_DEV; /* sizes, discards */
    attr.allowed_access = access & l->handled;
    if (syscall(SYS_landlock_add_rule, l->fd, LANDLOCK_RULE_PATH_BENEATH, &attr, 0) < 0)
        l->rc = err_set(l->err, -errno, "--landlock: %s: %s", path, strerror(errno));
    return l->rc;
}

/* A path of the configuration: if it cannot be opened, who needs it will say so. */
static void allow(struct landlock *l, const char *path, uint64_t access)
{
    if (path && add_path(l, path, access) < 0 && l->rc == 0)
        log_debug("landlock: %s: not there", path);
}

static void allow_dir_of(struct landlock *l, const char *path, uint64_t access)
{
    const char *slash = strrchr(path, '/');
    auto_free char *dir = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");

    if (dir)
        allow(l, dir, access);
    else
        l->rc = err_set(l->err, -ENOMEM, "--landlock: out of memory");
}

static void allow_console(struct landlock *l, const struct console_config *con)
{
    if (con->mode == CONSOLE_FILE && access(con->file, F_OK) == 0)
        allow(l, con->file, FS_READ_FILE | FS_WRITE_FILE);
    else if (con->mode == CONSOLE_FILE)
        allow_dir_of(l, con->file, FS_READ_FILE | FS_WRITE_FILE | FS_MAKE_REG);
    if (con->mode == CONSOLE_SOCKET)
        allow_dir_of(l, con->socket, FS_MAKE_SOCK | FS_REMOVE_FILE);
    if (con->mode == CONSOLE_PTY) {
        allow(l, "/dev/ptmx", ACCESS_DEVICE);
        allow(l, "/dev/pts", ACCESS_DEVICE);
    }
}

static void allow_devices(struct landlock *l, const struct vm_config *cfg)
{
    allow(l, "/dev/kvm", ACCESS_DEVICE);
    allow(l, "/dev/userfaultfd", ACCESS_DEVICE);
    allow(l, "/dev/urandom", FS_READ_FILE);
    if (cfg->nr_nets)
        allow(l, "/dev/net/tun", ACCESS_DEVICE);
}

/*
 * What is present of our memory is looked up in /proc/self/pagemap.  The rule is that of a directory
 * which exists only as long as somebody holds it: this descriptor stays open.
 */
static void allow_proc_self(struct landlock *l)
{
    static int held = -1;

    if (held < 0)
        held = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
    allow(l, "/proc/self", ACCESS_READ);
}

static void allow_config(struct landlock *l, const struct vm_config *cfg)
{
    allow(l, cfg->payload.kernel, FS_READ_FILE);
    allow(l, cfg->payload.initramfs, FS_READ_FILE);
    for (unsigned i = 0; i < cfg->nr_disks; i++)
        allow(l, cfg->disks[i].path,
              FS_READ_FILE | (cfg->disks[i].readonly ? 0 : FS_WRITE_FILE | FS_TRUNCATE));
    for (unsigned i = 0; i < cfg->memory.nr_zones; i++)
        allow(l, cfg->memory.zones[i].file,
              ACCESS_READ | FS_WRITE_FILE | FS_TRUNCATE | FS_MAKE_REG | FS_REMOVE_FILE);
    allow(l, cfg->rng.src, FS_READ_FILE);
    allow_console(l, &cfg->serial);
    allow_console(l, &cfg->console);
    allow_console(l, &cfg->debug_console);
}

static void allow_rules(struct landlock *l, const struct vm_config *cfg)
{
    for (unsigned i = 0; i < cfg->nr_landlock_rules && l->rc == 0; i++) {
        const struct landlock_rule_config *rule = &cfg->landlock_rules[i];
        uint64_t access = (strchr(rule->access, 'r') ? (uint64_t)ACCESS_READ : 0) |
                          (strchr(rule->access, 'w') ? (uint64_t)ACCESS_WRITE : 0);
        int rc = add_path(l, rule->path, access);

        if (rc < 0 && l->rc == 0)
            l->rc = err_set(l->err, rc, "landlock_rules[%u].path: %s: %s", i, rule->path,
                            strerror(-rc));
    }
}

int landlock_enter(const struct vm_config *cfg, const char *socket_path, struct err *err)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    auto_close int fd = -1;
    struct landlock l = {.err = err};
    struct landlock_ruleset_attr attr;

    if (abi < 1)
        return err_set(err, -ENOTSUP, "--landlock: this kernel has no Landlock, or it is off: %s",
                       strerror(errno));
    l.handled = rights_of_kernel(abi);
    attr = (struct landlock_ruleset_attr){.handled_access_fs = l.handled};
    fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
    if (fd < 0)
        return err_set(err, -errno, "--landlock: %s", strerror(errno));
    l.fd = fd;
    allow_devices(&l, cfg);
    allow_proc_self(&l);
    allow_config(&l, cfg);
    allow_rules(&l, cfg);
    if (socket_path)
        allow_dir_of(&l, socket_path, FS_REMOVE_FILE);
    if (l.rc < 0)
        return l.rc;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        syscall(SYS_landlock_restrict_self, fd, 0) < 0)
        return err_set(err, -errno, "--landlock: %s", strerror(errno));
    return 0;
}
