/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fakes/fake_hooks.h"

#include <stdio.h>

static void on_request(void *arg, enum machine_request what)
{
    (void)arg;
    (void)what;
}

static void on_stopped(void *arg, unsigned vcpu, enum vcpu_stop why, const char *what)
{
    (void)arg;
    (void)why;
    (void)fprintf(stderr, "vCPU %u stopped: %s\n", vcpu, what);
}

static void on_event(void *arg, const char *source, const char *event, const char *id)
{
    (void)arg;
    (void)source;
    (void)event;
    (void)id;
}

static void on_thread_start(void *arg, enum thread_role role)
{
    (void)arg;
    (void)role;
}

const struct vm_hooks fake_hooks = {
    .request = on_request,
    .stopped = on_stopped,
    .event = on_event,
    .thread_start = on_thread_start,
};
