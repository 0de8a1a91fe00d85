/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chvmm/sandbox.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "core/log.h"
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

void sandbox_enter(enum thread_role role)
{
    struct sock_filter code[SANDBOX_PROGRAM_MAX];
    struct sock_fprog prog = {.filter = code};

    _Static_assert(ARRAY_LEN(sandbox_control) <= SANDBOX_PROGRAM_MAX, "grow SANDBOX_PROGRAM_MAX");
    if (sandbox_mode == SANDBOX_OFF)
        return;
    prog.len = (unsigned short)programs[role].len;
    memcpy(code, programs[role].code, programs[role].len * sizeof(code[0]));
    for (size_t i = 0; i < prog.len; i++)
        if (code[i].code == (BPF_RET | BPF_K) && code[i].k == SECCOMP_RET_KILL_PROCESS)
            code[i].k = verdict();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0) {
        log_error("seccomp: %s: start with --seccomp false to run without a sandbox",
                  strerror(errno));
        _exit(1);
    }
}
