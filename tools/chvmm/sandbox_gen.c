/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Build-time program: turns the allow-lists into BPF, one array a role, as C.
 */
#include <errno.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "tools/chvmm/sandbox_rules.h"

static int add_rules(scmp_filter_ctx ctx, unsigned role)
{
    int rc = 0;

    for (size_t i = 0; i < sandbox_nr_rules && rc >= 0; i++) {
        int nr = seccomp_syscall_resolve_name(sandbox_rules[i].syscall);

        if (nr == __NR_SCMP_ERROR) {
            (void)fprintf(stderr, "sandbox_gen: no system call %s\n", sandbox_rules[i].syscall);
            return -EINVAL;
        }
        /* A negative number: this architecture has no such call. */
        if (nr >= 0 && sandbox_rules[i].roles & role)
            rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 0);
    }
    for (size_t i = 0; i < sandbox_nr_ioctls && rc >= 0; i++) {
        if (sandbox_ioctls[i].roles & role)
            rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
                                  SCMP_A1_32(SCMP_CMP_EQ, sandbox_ioctls[i].request, 0));
    }
    return rc;
}

static int print_program(FILE *out, const char *name, int fd)
{
    struct sock_filter ins;
    unsigned n = 0;

    if (lseek(fd, 0, SEEK_SET) < 0)
        return -errno;
    (void)fprintf(out, "static const struct sock_filter sandbox_%s[] = {\n", name);
    while (read(fd, &ins, sizeof(ins)) == (ssize_t)sizeof(ins)) {
        (void)fprintf(out, "    {%#x, %u, %u, %#x},\n", ins.code, ins.jt, ins.jf, ins.k);
        n++;
    }
    (void)fprintf(out, "};\n\n");
    return n ? 0 : -EIO;
}

static int generate(FILE *out, const char *name, unsigned role)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    auto_close int fd = memfd_create("bpf", MFD_CLOEXEC);
    int rc = ctx && fd >= 0 ? 0 : -ENOMEM;

    if (rc >= 0)
        rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* binary search */
    if (rc >= 0)
        rc = add_rules(ctx, role);
    if (rc >= 0)
        rc = seccomp_export_bpf(ctx, fd);
    if (rc >= 0)
        rc = print_program(out, name, fd);
    if (rc < 0)
        (void)fprintf(stderr, "sandbox_gen: %s: %d\n", name, rc);
    seccomp_release(ctx);
    return rc;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        unsigned role;
    } roles[] = {
        {"control", SANDBOX_CONTROL},
        {"vcpu",    SANDBOX_VCPU   },
        {"io",      SANDBOX_IO     },
        {"worker",  SANDBOX_WORKER },
        {"api",     SANDBOX_API    },
    };
    FILE *out = argc == 2 ? fopen(argv[1], "we") : NULL;
    int rc = out ? 0 : 2;

    if (out)
        (void)fprintf(out, "/* Generated from sandbox_rules.c. */\n\n");
    for (size_t i = 0; i < ARRAY_LEN(roles) && rc == 0; i++)
        rc = generate(out, roles[i].name, roles[i].role) < 0 ? 1 : 0;
    if (out && fclose(out) != 0)
        rc = 1;
    return rc;
}
