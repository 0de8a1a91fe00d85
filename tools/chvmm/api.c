/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chvmm/api.h"

#include <errno.h>
#include <json-c/json.h>

#include "core/api/api_server.h"
#include "core/config/action_config.h"
#include "core/log.h"
#include "tools/chvmm/api_info.h"
#include "tools/chvmm/job.h"
#include "tools/chvmm/migrate.h"
#include "tools/chvmm/progress.h"
#include "tools/chvmm/sandbox.h"
#include "tools/chvmm/snapshot.h"

struct vmm_api {
    struct vmm *vmm;
    struct api_server *server;
};

/* A request on its way to the control thread. */
struct call {
    struct vmm *vmm;
    struct api_request *req;
    void (*fn)(struct vmm *vmm, struct api_request *req);
};

static void run_call(void *arg)
{
    struct call *c = arg;

    c->fn(c->vmm, c->req);
    free(c);
}

static void send_to_control(struct vmm_api *api, struct api_request *req,
                            void (*fn)(struct vmm *, struct api_request *))
{
    struct call *c = malloc(sizeof(*c));

    if (c) {
        *c = (struct call){.vmm = api->vmm, .req = req, .fn = fn};
        if (loop_post(api->vmm->loop, run_call, c) >= 0)
            return;
        free(c);
    }
    api_reply_error(req, 500, -ENOMEM, "The request could not be handled", NULL);
}

/* --- Simple actions ------------------------------------------------------------- */

/* One call of the state machine: which action it is, what does it, what failed if it fails. */
static void do_action(struct vmm *vmm, struct api_request *req, enum vm_action action,
                      int (*fn)(struct vmm *, struct err *), const char *what)
{
    struct err err = {0};
    int rc = vmm_check(vmm, action, &err);

    if (rc < 0) {
        api_reply_error(req, api_status(rc), rc, what, &err);
        return;
    }
    rc = fn(vmm, &err);
    if (rc < 0)
        api_reply_error(req, 500, rc, what, &err);
    else
        api_reply_done(req);
}

#define ACTION(name_, action_, fn_, what_)                           \
    static void do_##name_(struct vmm *vmm, struct api_request *req) \
    {                                                                \
        do_action(vmm, req, action_, fn_, what_);                    \
    }                                                                \
    static void on_##name_(void *arg, struct api_request *req)       \
    {                                                                \
        send_to_control(arg, req, do_##name_);                       \
    }

ACTION(boot, VM_ACTION_BOOT, vmm_boot, "The VM could not boot")
ACTION(pause, VM_ACTION_PAUSE, vmm_pause, "The VM could not be paused")
ACTION(resume, VM_ACTION_RESUME, vmm_resume, "The VM could not resume")
ACTION(shutdown, VM_ACTION_SHUTDOWN, vmm_shutdown, "The VM could not shutdown")
ACTION(reboot, VM_ACTION_REBOOT, vmm_reboot, "The VM could not reboot")
ACTION(delete, VM_ACTION_DELETE, vmm_delete, "The VM could not be deleted")
ACTION(nmi, VM_ACTION_NMI, vmm_nmi, "The VM could not receive an NMI")
ACTION(power_button, VM_ACTION_POWER_BUTTON, vmm_power_button,
       "The VM could not receive a power button press")

/* --- Reading ---------------------------------------------------------------------- */

static void on_ping(void *arg, struct api_request *req)
{
    struct json_object *o = json_object_new_object();

    (void)arg;
    (void)json_object_object_add(o, "build_version", json_object_new_string(CHRYSALIS_VERSION));
    (void)json_object_object_add(o, "version", json_object_new_string(CHRYSALIS_VERSION));
    (void)json_object_object_add(o, "pid", json_object_new_int64(getpid()));
    (void)json_object_object_add(o, "features", json_object_new_array());
    api_reply_json(req, o);
}

static void reply_info(struct vmm *vmm, struct api_request *req,
                       struct json_object *(*make)(struct vmm *), const char *what)
{
    struct err err = {0};

    if (vmm_state(vmm) == VM_NONE)
        api_reply_error(req, 404, err_set(&err, -ENOENT, "VM is not created"), what, &err);
    else
        api_reply_json(req, make(vmm));
}

static void do_info(struct vmm *vmm, struct api_request *req)
{
    reply_info(vmm, req, api_info_vm, "The VM info is not available");
}

static void on_info(void *arg, struct api_request *req)
{
    send_to_control(arg, req, do_info);
}

static void do_counters(struct vmm *vmm, struct api_request *req)
{
    reply_info(vmm, req, api_info_counters, "The VM counters are not available");
}

static void on_counters(void *arg, struct api_request *req)
{
    send_to_control(arg, req, do_counters);
}

static void do_progress(struct vmm *vmm, struct api_request *req)
{
    api_reply_json(req, vmm_progress_json(vmm));
}

static void on_progress(void *arg, struct api_request *req)
{
    send_to_control(arg, req, do_progress);
}

static void reply_progress(struct vmm *vmm, void *arg)
{
    api_reply_json(arg, vmm_progress_json(vmm));
}

static void do_wait(struct vmm *vmm, struct api_request *req)
{
    struct err err = {0};
    int rc = vmm_await_migration(vmm, reply_progress, req, &err);

    if (rc < 0)
        api_reply_error(req, 500, rc, "The end of the migration cannot be waited for", &err);
}

static void on_wait(void *arg, struct api_request *req)
{
    send_to_control(arg, req, do_wait);
}

/* --- With a body -------------------------------------------------------------------- */

/* Where descriptors that came with a request belong. */
struct fd_slots {
    int *slots[API_FDS_MAX];
    unsigned nr;
    unsigned wanted; /* may be more than there is room for */
};

static void add_slots(struct fd_slots *s, int *fds, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        s->wanted++;
        if (s->nr < API_FDS_MAX)
            s->slots[s->nr++] = &fds[i];
    }
}

/* All of them and no other, in the order of the configuration. */
static int take_fds(struct api_request *req, const struct fd_slots *s, struct err *err)
{
    int fds[API_FDS_MAX];
    unsigned nr = api_request_take_fds(req, fds);

    if (nr == s->wanted) {
        for (unsigned i = 0; i < nr; i++)
            *s->slots[i] = fds[i];
        return 0;
    }
    for (unsigned i = 0; i < nr; i++)
        (void)close(fds[i]);
    return err_set(err, -EINVAL, "fds: %u file descriptors came with the request, %u are wanted",
                   nr, s->wanted);
}

static int take_vm_fds(struct api_request *req, struct vm_config *cfg, struct err *err)
{
    struct fd_slots s = {.nr = 0};

    for (unsigned i = 0; i < cfg->nr_nets; i++)
        add_slots(&s, cfg->nets[i].fds, cfg->nets[i].nr_fds);
    return take_fds(req, &s, err);
}

static int take_net_fds(struct api_request *req, struct net_fds_config *xs, unsigned nr,
                        struct err *err)
{
    struct fd_slots s = {.nr = 0};

    for (unsigned i = 0; i < nr; i++)
        add_slots(&s, xs[i].fds, xs[i].nr_fds);
    return take_fds(req, &s, err);
}

static void do_create(struct vmm *vmm, struct api_request *req)
{
    static const char what[] = "The VM could not be created";
    struct vm_config cfg = {0};
    struct err err = {0};
    size_t len;
    const char *body = api_request_body(req, &len);
    int rc = vm_config_from_text(body, len, &cfg, &err);

    if (rc >= 0)
        rc = take_vm_fds(req, &cfg, &err);
    if (rc < 0) {
        vm_config_release(&cfg);
        api_reply_error(req, api_status(rc), rc, what, &err);
        return;
    }
    rc = vmm_create(vmm, &cfg, &err);
    vm_config_close_fds(&cfg);
    vm_config_release(&cfg);
    if (rc < 0)
        api_reply_error(req, 500, rc, what, &err);
    else
        api_reply_done(req);
}

static void on_create(void *arg, struct api_request *req)
{
    send_to_control(arg, req, do_create);
}

/* Answer a request when its job is done. */
static void reply_when_done(void *arg, int rc, const struct err *err, const char *what)
{
    struct api_request *req = arg;

    if (rc < 0)
        api_reply_error(req, 500, rc, what, err);
    else
        api_reply_done(req);
}

/* What was wrong with the request itself; and not with what it met, as a path that is not there. */
static unsigned begin_status(int rc)
{
    return api_status(rc) == 400 ? 400 : 500;
}

/* Answer a request when its job has begun, or cannot begin. */
static void reply_when_begun(void *arg, int rc, const struct err *err, const char *what)
{
    struct api_request *req = arg;

    if (rc < 0)
        api_reply_error(req, begin_status(rc), rc, what, err);
    else
        api_reply_done(req);
}

union action_config {
    struct snapshot_config snapshot;
    struct restore_config restore;
    struct send_migration_config send;
    struct receive_migration_config receive;
};

/* Return: the networks' descriptors that the action takes, and *@ret_nr. */
static struct net_fds_config *net_fds_of(enum action_kind kind, union action_config *cfg,
                                         unsigned *ret_nr)
{
    *ret_nr = 0;
    if (kind == ACTION_RESTORE) {
        *ret_nr = cfg->restore.nr_net_fds;
        return cfg->restore.net_fds;
    }
    if (kind == ACTION_RECEIVE_MIGRATION) {
        *ret_nr = cfg->receive.nr_net_fds;
        return cfg->receive.net_fds;
    }
    return NULL;
}

static int start_kind(struct vmm *vmm, struct api_request *req, enum action_kind kind,
                      union action_config *cfg, struct err *err)
{
    if (kind == ACTION_SNAPSHOT)
        return vmm_start_snapshot(vmm, &cfg->snapshot, reply_when_done, req, err);
    if (kind == ACTION_RESTORE)
        return vmm_start_restore(vmm, &cfg->restore, reply_when_done, req, err);
    if (kind == ACTION_SEND_MIGRATION)
        return vmm_start_send(vmm, &cfg->send, reply_when_begun, req, err);
    return vmm_start_receive(vmm, &cfg->receive, reply_when_done, req, err);
}

/*
 * Start a job that takes a configuration in the request's body.  The starter
 * replies through the callback, also if it starts nothing.
 */
static void start_job(struct vmm *vmm, struct api_request *req, enum action_kind kind,
                      enum vm_action action, const char *what)
{
    union action_config cfg = {0};
    struct err err = {0};
    size_t len;
    const char *body = api_request_body(req, &len);
    int rc = action_config_from_text(kind, body, len, &cfg, &err);
    unsigned status, nr;
    struct net_fds_config *net_fds = net_fds_of(kind, &cfg, &nr);

    if (rc >= 0)
        rc = take_net_fds(req, net_fds, nr, &err);
    if (rc >= 0)
        rc = vmm_check(vmm, action, &err);
    status = api_status(rc);
    if (rc >= 0) {
        rc = start_kind(vmm, req, kind, &cfg, &err);
        status = begin_status(rc);
    }
    /* What the job has not taken is closed here. */
    net_fds = net_fds_of(kind, &cfg, &nr);
    for (unsigned i = 0; i < nr; i++) {
        for (unsigned j = 0; j < net_fds[i].nr_fds; j++) {
            if (net_fds[i].fds[j] >= 0)
                (void)close(net_fds[i].fds[j]);
        }
    }
    action_config_release(kind, &cfg);
    if (rc < 0)
        api_reply_error(req, status, rc, what, &err);
}

#define JOB(name_, kind_, action_, what_)                            \
    static void do_##name_(struct vmm *vmm, struct api_request *req) \
    {                                                                \
        start_job(vmm, req, kind_, action_, what_);                  \
    }                                                                \
    static void on_##name_(void *arg, struct api_request *req)       \
    {                                                                \
        send_to_control(arg, req, do_##name_);                       \
    }

JOB(snapshot, ACTION_SNAPSHOT, VM_ACTION_SNAPSHOT, "The VM could not be snapshotted")
JOB(restore, ACTION_RESTORE, VM_ACTION_RESTORE, "The VM could not be restored")
JOB(send_migration, ACTION_SEND_MIGRATION, VM_ACTION_SEND_MIGRATION, "The VM could not be migrated")
JOB(receive_migration, ACTION_RECEIVE_MIGRATION, VM_ACTION_RECEIVE_MIGRATION,
    "The VM could not be received")

/* --- The rest ------------------------------------------------------------------------ */

static void do_cancel(struct vmm *vmm, struct api_request *req)
{
    static const char what[] = "The migration could not be cancelled";
    struct err err = {0};
    int rc = job_cancel(vmm, &err);

    if (rc < 0)
        api_reply_error(req, api_status(rc), rc, what, &err);
    else
        api_reply_done(req);
}

static void on_cancel(void *arg, struct api_request *req)
{
    send_to_control(arg, req, do_cancel);
}

static void do_snapshot_progress(struct vmm *vmm, struct api_request *req)
{
    api_reply_json(req, vmm_snapshot_json(vmm));
}

static void on_snapshot_progress(void *arg, struct api_request *req)
{
    send_to_control(arg, req, do_snapshot_progress);
}

static void do_snapshot_cancel(struct vmm *vmm, struct api_request *req)
{
    struct err err = {0};
    int rc = vmm_cancel_snapshot(vmm, &err);

    if (rc < 0)
        api_reply_error(req, api_status(rc), rc, "The snapshot could not be cancelled", &err);
    else
        api_reply_done(req);
}

static void on_snapshot_cancel(void *arg, struct api_request *req)
{
    send_to_control(arg, req, do_snapshot_cancel);
}

static void do_resolve(struct vmm *vmm, struct api_request *req)
{
    static const char what[] = "The migration could not be resolved";
    struct resolve_config cfg = {0};
    struct json_object *answer = NULL;
    struct err err = {0};
    size_t len;
    const char *body = api_request_body(req, &len);
    int rc = 0;

    if (len)
        rc = action_config_from_text(ACTION_RESOLVE_MIGRATION, body, len, &cfg, &err);
    if (rc >= 0)
        rc = vmm_resolve(vmm, &cfg, &answer, &err);
    action_config_release(ACTION_RESOLVE_MIGRATION, &cfg);
    if (rc < 0)
        api_reply_error(req, api_status(rc), rc, what, &err);
    else
        api_reply_json(req, answer);
}

static void on_resolve(void *arg, struct api_request *req)
{
    send_to_control(arg, req, do_resolve);
}

static void do_switch_over(struct vmm *vmm, struct api_request *req)
{
    static const char what[] = "The migration could not be switched over";
    struct err err = {0};
    int rc = vmm_switch_over(vmm, &err);

    if (rc < 0)
        api_reply_error(req, api_status(rc), rc, what, &err);
    else
        api_reply_done(req);
}

static void on_switch_over(void *arg, struct api_request *req)
{
    send_to_control(arg, req, do_switch_over);
}

static void do_vmm_shutdown(struct vmm *vmm, struct api_request *req)
{
    api_reply(req, 200, NULL, 0);
    vmm_quit(vmm, 0);
}

static void on_vmm_shutdown(void *arg, struct api_request *req)
{
    send_to_control(arg, req, do_vmm_shutdown);
}

static const struct api_route routes[] = {
  /* clang-format off */
    {"vmm.ping",              API_GET, 0,             on_ping},
    {"vmm.shutdown",          API_PUT, 0,             on_vmm_shutdown},
    {"vm.create",             API_PUT, API_BODY, on_create},
    {"vm.delete",             API_PUT, 0,             on_delete},
    {"vm.boot",               API_PUT, 0,             on_boot},
    {"vm.info",               API_GET, 0,             on_info},
    {"vm.counters",           API_GET, 0,             on_counters},
    {"vm.pause",              API_PUT, 0,             on_pause},
    {"vm.resume",             API_PUT, 0,             on_resume},
    {"vm.shutdown",           API_PUT, 0,             on_shutdown},
    {"vm.reboot",             API_PUT, 0,             on_reboot},
    {"vm.power-button",       API_PUT, 0,             on_power_button},
    {"vm.nmi",                API_PUT, 0,             on_nmi},
    {"vm.snapshot",           API_PUT, API_BODY,      on_snapshot},
    {"vm.snapshot-progress",  API_GET, 0,             on_snapshot_progress},
    {"vm.snapshot-cancel",    API_PUT, 0,             on_snapshot_cancel},
    {"vm.restore",            API_PUT, API_BODY, on_restore},
    {"vm.send-migration",     API_PUT, API_BODY,      on_send_migration},
    {"vm.receive-migration",  API_PUT, API_BODY, on_receive_migration},
    {"vm.migration-progress", API_GET, 0,             on_progress},
    {"vm.migration-wait",     API_GET, 0,             on_wait},
    {"vm.migration-cancel",   API_PUT, 0,             on_cancel},
    {"vm.migration-resolve",  API_PUT, API_BODY_OPTIONAL, on_resolve},
    {"vm.migration-switchover", API_PUT, 0,           on_switch_over},
  /* clang-format on */
};

static void enter_sandbox(void *arg)
{
    (void)arg;
    log_thread_name("api");
    sandbox_enter(THREAD_API);
}

int vmm_api_open(struct vmm *vmm, const char *path, int fd, struct vmm_api **ret_api,
                 struct err *err)
{
    struct vmm_api *api = calloc(1, sizeof(*api));
    struct api_server_config cfg = {
        .socket_path = path,
        .socket_fd = fd,
        .routes = routes,
        .nr_routes = ARRAY_LEN(routes),
        .arg = api,
        .thread_start = enter_sandbox,
    };
    int rc;

    if (!api)
        return err_set(err, -ENOMEM, "API: out of memory");
    api->vmm = vmm;
    rc = api_server_open(&cfg, &api->server, err);
    if (rc < 0) {
        free(api);
        return err_prefix(err, rc, "--api-socket");
    }
    *ret_api = api;
    return 0;
}

int vmm_api_start(struct vmm_api *api, struct err *err)
{
    return api_server_start(api->server, err);
}

void vmm_api_stop(struct vmm_api *api)
{
    if (!api)
        return;
    api_server_stop(api->server);
    free(api);
}
