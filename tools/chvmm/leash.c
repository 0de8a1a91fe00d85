/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chvmm/leash.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/log.h"
#include "tools/chvmm/options.h"
#include "tools/chvmm/vmm.h"

/* It stays where it is: others may have the same pipe, and are to see it too. */
static bool has_word(int fd)
{
    int len = 0;

    return ioctl(fd, FIONREAD, &len) == 0 && len > 0;
}

static void run_on(struct vmm *vmm)
{
    struct err err = {0};

    if (vmm_resume(vmm, &err) >= 0)
        return;
    log_error("who started this wants the VM to run on: %s", err.msg);
    loop_set_events(vmm->leash, 0); /* their end is still told */
}

static void on_event(void *arg, uint32_t events)
{
    struct vmm *vmm = arg;

    if (events & EPOLLIN && has_word(vmm->leash_fd)) {
        run_on(vmm);
        return;
    }
    log_info("who started this has ended, and the VM was never used: ending");
    leash_drop(vmm);
    vmm_quit(vmm, vmm->busy == VMM_RESTORE ? CHVMM_EXIT_FAILED : CHVMM_EXIT_OK);
}

int leash_take(struct vmm *vmm, int fd, struct err *err)
{
    int rc = loop_add_fd(vmm->loop, fd, EPOLLIN, on_event, vmm, &vmm->leash);

    vmm->leash_fd = fd;
    return rc < 0 ? err_set(err, rc, "--end-with: fd %d: %s", fd, strerror(-rc)) : 0;
}

void leash_drop(struct vmm *vmm)
{
    if (!vmm->leash)
        return;
    loop_remove(steal_ptr(vmm->leash));
    (void)close(vmm->leash_fd);
}
