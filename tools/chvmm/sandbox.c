/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chvmm/sandbox.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "core/log.h"
#include "core/thread_slice.h"
#include "sandbox_bpf.h"

enum {
    SANDBOX_PROGRAM_MAX = 1024,
};

static const struct {
    const struct sock_filter *code;
    size_t len;
} programs[THREAD_ROLE_NR] = {
    [THREAD_CONTROL] = {sandbox_control, ARRAY_LEN(sandbox_control)},
    [THREAD_VCPU] = {sandbox_vcpu,    ARRAY_LEN(sandbox_vcpu)   },
    [THREAD_IO] = {sandbox_io,      ARRAY_LEN(sandbox_io)     },
    [THREAD_WORKER] = {sandbox_worker,  ARRAY_LEN(sandbox_worker) },
    [THREAD_API] = {sandbox_api,     ARRAY_LEN(sandbox_api)    },
};

/*
 * Capabilities that a role may still need, where the process has them.  Files of other users, for a
 * process of root; taps; ports below 1024; SQLite keeps owner and mode of a store's database.
 */
enum {
    CAPS_FILES =
        1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH | 1 << CAP_CHOWN | 1 << CAP_FOWNER,
    CAPS_NET = 1 << CAP_NET_ADMIN | 1 << CAP_NET_BIND_SERVICE,
};

static const uint32_t kept_caps[THREAD_ROLE_NR] = {
    [THREAD_CONTROL] = CAPS_FILES | CAPS_NET,
    [THREAD_WORKER] = CAPS_FILES | CAPS_NET,
};

static enum sandbox_mode sandbox_mode = SANDBOX_KILL;

void sandbox_set_mode(enum sandbox_mode mode)
{
    sandbox_mode = mode;
}

static uint32_t verdict(void)
{
    if (sandbox_mode == SANDBOX_LOG)
        return SECCOMP_RET_LOG;
    if (sandbox_mode == SANDBOX_ERRNO)
        return SECCOMP_RET_ERRNO | EPERM;
    return SECCOMP_RET_KILL_PROCESS;
}

/* For ever: without the capability to raise them again, and without an exec that would. */
static int drop_caps(uint32_t keep)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];

    if (syscall(SYS_capget, &head, caps) < 0)
        return -errno;
    caps[0].permitted &= keep;
    caps[0].effective &= keep;
    caps[1].permitted = caps[1].effective = 0; /* those above 31: none is needed */
    caps[0].inheritable = caps[1].inheritable = 0;
    return syscall(SYS_capset, &head, caps) < 0 ? -errno : 0;
}

/* Whom others wait for, and who works for long. */
static void set_slice(enum thread_role role)
{
    if (role == THREAD_VCPU || role == THREAD_WORKER)
        thread_be_patient();
    else
        thread_be_prompt();
}

void sandbox_enter(enum thread_role role)
{
    struct sock_filter code[SANDBOX_PROGRAM_MAX];
    struct sock_fprog prog = {.filter = code};

    int rc = drop_caps(kept_caps[role]);

    set_slice(role);
    _Static_assert(ARRAY_LEN(sandbox_control) <= SANDBOX_PROGRAM_MAX, "grow SANDBOX_PROGRAM_MAX");
    if (rc < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        log_error("sandbox: cannot give up capabilities: %s", strerror(rc < 0 ? -rc : errno));
        _exit(1);
    }
    if (sandbox_mode == SANDBOX_OFF)
        return;
    prog.len = (unsigned short)programs[role].len;
    memcpy(code, programs[role].code, programs[role].len * sizeof(code[0]));
    for (size_t i = 0; i < prog.len; i++)
        if (code[i].code == (BPF_RET | BPF_K) && code[i].k == SECCOMP_RET_KILL_PROCESS)
            code[i].k = verdict();
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0) {
        log_error("seccomp: %s: start with --seccomp false to run without a filter",
                  strerror(errno));
        _exit(1);
    }
}
