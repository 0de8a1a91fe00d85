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

static void do_create(struct vmm *vmm, struct api_request *req)
{
    static const char what[] = "The VM could not be created";
    struct vm_config cfg = {0};
    struct err err = {0};
    size_t len;
    const char *body = api_request_body(req, &len);
    int rc = vm_config_from_text(body, len, &cfg, &err);

    if (rc < 0) {
        api_reply_error(req, api_status(rc), rc, what, &err);
        return;
    }
    rc = vmm_create(vmm, &cfg, &err);
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

/*
 * Start a job that takes a configuration in the request's body.  The starter
 * replies through the callback, also if it starts nothing.
 */
static void start_job(struct vmm *vmm, struct api_request *req, enum action_kind kind,
                      enum vm_action action, const char *what)
{
    union {
        struct snapshot_config snapshot;
        struct restore_config restore;
        struct send_migration_config send;
        struct receive_migration_config receive;
    } cfg = {0};
    struct err err = {0};
    size_t len;
    const char *body = api_request_body(req, &len);
    int rc = action_config_from_text(kind, body, len, &cfg, &err);

    if (rc >= 0)
        rc = vmm_check(vmm, action, &err);
    if (rc < 0) {
        action_config_release(kind, &cfg);
        api_reply_error(req, api_status(rc), rc, what, &err);
        return;
    }
    if (kind == ACTION_SNAPSHOT)
        rc = vmm_start_snapshot(vmm, &cfg.snapshot, reply_when_done, req, &err);
    else if (kind == ACTION_RESTORE)
        rc = vmm_start_restore(vmm, &cfg.restore, reply_when_done, req, &err);
    else if (kind == ACTION_SEND_MIGRATION)
        rc = vmm_start_send(vmm, &cfg.send, reply_when_done, req, &err);
    else
        rc = vmm_start_receive(vmm, &cfg.receive, reply_when_done, req, &err);
    action_config_release(kind, &cfg);
    if (rc < 0)
        api_reply_error(req, 500, rc, what, &err);
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
    {"vm.create",             API_PUT, API_BODY,      on_create},
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
    {"vm.restore",            API_PUT, API_BODY,      on_restore},
    {"vm.send-migration",     API_PUT, API_BODY,      on_send_migration},
    {"vm.receive-migration",  API_PUT, API_BODY,      on_receive_migration},
    {"vm.migration-progress", API_GET, 0,             on_progress},
    {"vm.migration-wait",     API_GET, 0,             on_wait},
    {"vm.migration-cancel",   API_PUT, 0,             on_cancel},
  /* clang-format on */
};

static void enter_sandbox(void *arg)
{
    (void)arg;
    log_thread_name("api");
    sandbox_enter(THREAD_API);
}

int vmm_api_start(struct vmm *vmm, const char *path, int fd, struct vmm_api **ret_api,
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
    rc = api_server_start(&cfg, &api->server, err);
    if (rc < 0) {
        free(api);
        return err_prefix(err, rc, "--api-socket");
    }
    *ret_api = api;
    return 0;
}

void vmm_api_stop(struct vmm_api *api)
{
    if (!api)
        return;
    api_server_stop(api->server);
    free(api);
}
