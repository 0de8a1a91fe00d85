/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of a whole machine as sections: "machine", one per vCPU, one per device.
 *
 * Loading stages every section first, so that a state that does not fit this
 * machine is refused with nothing changed.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "core/config/vm_config.h"
#include "core/vm_internal.h"
#include "core/x86/cpu_model.h"
#include "core/x86/vcpu_state.h"

/* --- The machine's own section ------------------------------------------------ */

struct machine_state {
    uint64_t time_ns;     /* guest time (struct dev_env) */
    uint64_t kvmclock_ns; /* at the pause */
    uint64_t wall_ns;     /* host's wall clock at the same moment */
    uint64_t host_tsc;    /* host's TSC at the same moment */
    uint32_t vcpus;
    bool running; /* it was running when it was stopped for this */
};

static const struct state_field machine_fields[] = {
    /* clang-format off */
    /*                           since  kind   member */
    STATE(struct machine_state,  1,     U64,   time_ns),
    STATE(struct machine_state,  1,     U64,   kvmclock_ns),
    STATE(struct machine_state,  1,     U64,   wall_ns),
    STATE(struct machine_state,  1,     U64,   host_tsc),
    STATE(struct machine_state,  1,     U32,   vcpus),
    STATE(struct machine_state,  1,     BOOL,  running),
    /* clang-format on */
};

static int machine_check(const void *scratch, const void *live, struct err *err)
{
    const struct machine_state *s = scratch, *l = live;

    if (s->vcpus != l->vcpus)
        return err_set(err, -EBADMSG, "machine.vcpus: %u, but the configuration says %u", s->vcpus,
                       l->vcpus);
    return 0;
}

static const struct state_desc machine_desc = {
    .name = "machine",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct machine_state),
    .fields = machine_fields,
    .nr_fields = ARRAY_LEN(machine_fields),
    .check = machine_check,
};

static const char machine_id[] = "machine";

enum {
    MSR_TSC = 0x10,
};

/* --- Saving ------------------------------------------------------------------- */

static void vcpu_id(unsigned i, char id[STATE_NAME_MAX + 1])
{
    (void)snprintf(id, STATE_NAME_MAX + 1, "vcpu%u", i);
}

/*
 * The TSC of the moment of the pause, whenever the state is taken, and also where it was loaded and
 * never ran: what KVM holds then is on its way from this host's clock to that of vm->clock.
 */
static void note_tsc(const struct vm *vm, unsigned i, struct x86_vcpu_state *s)
{
    s->host_tsc = vm->clock.host_tsc;
    if (s->tsc_offset_valid)
        s->tsc_offset = vm->tsc[i] - vm->clock.host_tsc;
    for (unsigned k = 0; k < s->nr_msrs; k++)
        if (s->msrs[k].index == MSR_TSC)
            s->msrs[k].value = vm->tsc[i];
}

/* Sections either gather in a buffer, or each is handed on at once. */
struct saving {
    struct state_buf *buf;
    const struct state_sink *sink; /* NULL: they gather */
};

static int save_section(const struct saving *to, const struct state_desc *desc, const char *id,
                        const void *obj, struct err *err)
{
    int rc = state_save(desc, id, obj, to->buf, err);

    if (rc >= 0 && to->sink) {
        rc = to->sink->put(to->sink->arg, to->buf->data, to->buf->len, err);
        to->buf->len = 0;
    }
    return rc;
}

static int save_vcpus(struct vm *vm, const struct saving *to, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < vm->nr_vcpus; i++) {
        struct x86_vcpu_state *s = calloc(1, sizeof(*s));
        char id[STATE_NAME_MAX + 1];

        if (!s)
            return err_set(err, -ENOMEM, "vCPU state: out of memory");
        vcpu_id(i, id);
        rc = kvm_vcpu_save(vcpu_kvm(vm->vcpus[i]), s, err);
        if (rc >= 0) {
            note_tsc(vm, i, s);
            rc = save_section(to, &x86_vcpu_state_desc, id, s, err);
        }
        state_release(&x86_vcpu_state_desc, s);
        free(s);
    }
    return rc;
}

static int save_device(struct device *dev, const struct saving *to, struct err *err)
{
    int rc;

    if (!dev->ops->state)
        return 0;
    device_lock(dev);
    rc = save_section(to, dev->ops->state, dev->id, dev, err);
    device_unlock(dev);
    return rc;
}

static int save_all(struct vm *vm, const struct saving *to, struct err *err)
{
    const struct machine_state m = {
        .time_ns = vm_time_ns(vm),
        .kvmclock_ns = vm->clock.clock_ns,
        .wall_ns = vm->clock.realtime_ns,
        .host_tsc = vm->clock.host_tsc,
        .vcpus = vm->nr_vcpus,
        .running = vm->was_running,
    };
    int rc;

    if (vm->state != VM_PAUSED)
        return err_set(err, -EPERM, "the VM's state cannot be saved while it is %s",
                       vm_state_name(vm->state));
    rc = save_section(to, &machine_desc, machine_id, &m, err);
    if (rc >= 0)
        rc = save_vcpus(vm, to, err);
    for (unsigned i = 0; rc >= 0 && i < vm->nr_devices; i++)
        rc = save_device(vm->devices[i], to, err);
    return rc;
}

int vm_save(struct vm *vm, struct state_buf *buf, struct err *err)
{
    size_t before = buf->len;
    int rc = save_all(vm, &(struct saving){buf, NULL}, err);

    if (rc < 0)
        buf->len = before;
    return rc;
}

int vm_save_to(struct vm *vm, const struct state_sink *sink, struct err *err)
{
    struct state_buf buf = {0};
    int rc = save_all(vm, &(struct saving){&buf, sink}, err);

    state_buf_release(&buf);
    return rc;
}

/* --- Loading ------------------------------------------------------------------ */

/* A staged object and where it goes. */
struct target {
    char id[STATE_NAME_MAX + 1];
    const struct state_desc *desc;
    void *live;
    void *scratch; /* NULL: no section yet */
};

struct vm_loader {
    struct vm *vm; /* borrowed */
    struct target *targets;
    unsigned nr;
    struct machine_state machine;
    struct x86_vcpu_state *vcpus;
    unsigned nr_vcpus;
};

static void add_target(struct vm_loader *l, const char *id, const struct state_desc *desc,
                       void *live)
{
    struct target *t = &l->targets[l->nr++];

    (void)snprintf(t->id, sizeof(t->id), "%s", id);
    t->desc = desc;
    t->live = live;
}

static int expect(struct vm_loader *l, struct err *err)
{
    const struct vm *vm = l->vm;

    l->targets = calloc(1 + vm->nr_vcpus + vm->nr_devices, sizeof(*l->targets));
    l->vcpus = calloc(vm->nr_vcpus, sizeof(*l->vcpus));
    if (!l->targets || !l->vcpus)
        return err_set(err, -ENOMEM, "machine state: out of memory");
    l->nr_vcpus = vm->nr_vcpus;
    l->machine.vcpus = vm->nr_vcpus;
    add_target(l, machine_id, &machine_desc, &l->machine);
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        char id[STATE_NAME_MAX + 1];

        /* The loader compares: a state of another processor does not fit. */
        l->vcpus[i].apic_id = cpu_model_apic_id(vm->model, i);
        vcpu_id(i, id);
        add_target(l, id, &x86_vcpu_state_desc, &l->vcpus[i]);
    }
    for (unsigned i = 0; i < vm->nr_devices; i++)
        if (vm->devices[i]->ops->state)
            add_target(l, vm->devices[i]->id, vm->devices[i]->ops->state, vm->devices[i]);
    return 0;
}

int vm_loader_new(struct vm *vm, struct vm_loader **ret_loader, struct err *err)
{
    struct vm_loader *l;
    int rc;

    if (vm->state != VM_CREATED)
        return err_set(err, -EPERM, "state cannot be loaded into a VM that is %s",
                       vm_state_name(vm->state));
    rc = vm_settle(vm, err);
    if (rc < 0)
        return rc;
    l = calloc(1, sizeof(*l));
    if (!l)
        return err_set(err, -ENOMEM, "machine state: out of memory");
    l->vm = vm;
    rc = expect(l, err);
    if (rc < 0) {
        vm_loader_free(l);
        return rc;
    }
    *ret_loader = l;
    return 0;
}

void vm_loader_free(struct vm_loader *l)
{
    if (!l)
        return;
    for (unsigned i = 0; i < l->nr; i++)
        state_discard(l->targets[i].desc, l->targets[i].scratch);
    for (unsigned i = 0; l->vcpus && i < l->nr_vcpus; i++)
        state_release(&x86_vcpu_state_desc, &l->vcpus[i]);
    free(l->vcpus);
    free(l->targets);
    free(l);
}

static struct target *find_target(struct vm_loader *l, const char *id)
{
    for (unsigned i = 0; i < l->nr; i++)
        if (strcmp(l->targets[i].id, id) == 0)
            return &l->targets[i];
    return NULL;
}

static int stage_section(struct vm_loader *l, const struct state_section *sec, struct err *err)
{
    struct target *t = find_target(l, sec->id);

    if (!t)
        return err_set(err, -ENOTSUP, "state has a section for %s, which this machine has not",
                       sec->id);
    if (t->scratch)
        return err_set(err, -EBADMSG, "state has two sections for %s", sec->id);
    return state_stage(sec, t->desc, t->live, &t->scratch, err);
}

int vm_loader_stage(struct vm_loader *l, const uint8_t *data, size_t len, bool last,
                    size_t *ret_used, struct err *err)
{
    size_t left = len;

    for (;;) {
        struct state_section sec;
        struct err why = {0};
        int rc;

        *ret_used = len - left;
        rc = state_section_next(&data, &left, &sec, &why);
        if (rc == 0 || (rc < 0 && !last))
            return 0; /* the rest of a section may be on its way */
        rc = rc < 0 ? err_set(err, rc, "%s", why.msg) : stage_section(l, &sec, err);
        if (rc < 0)
            return rc;
    }
}

static int check_complete(const struct vm_loader *l, struct err *err)
{
    for (unsigned i = 0; i < l->nr; i++)
        if (!l->targets[i].scratch)
            return err_set(err, -EBADMSG, "state has no section for %s", l->targets[i].id);
    return 0;
}

static void commit_all(struct vm_loader *l)
{
    for (unsigned i = 0; i < l->nr; i++) {
        state_commit(l->targets[i].desc, l->targets[i].scratch, l->targets[i].live);
        l->targets[i].scratch = NULL;
    }
}

/* What is not in a device. */
static int load_machine(struct vm_loader *l, struct err *err)
{
    struct vm *vm = l->vm;
    int rc = 0;

    atomic_store(&vm->time_ns, l->machine.time_ns);
    vm->clock = (struct kvm_clock_sample){
        .clock_ns = l->machine.kvmclock_ns,
        .realtime_ns = l->machine.wall_ns,
        .host_tsc = l->machine.host_tsc,
    };
    vm->was_running = l->machine.running;
    vm->loaded = true;
    for (unsigned i = 0; rc >= 0 && i < vm->nr_vcpus; i++) {
        const struct x86_vcpu_state *s = &l->vcpus[i];
        const struct x86_msr *tsc = x86_vcpu_msr(s, MSR_TSC);

        vm->tsc[i] =
            s->tsc_offset_valid ? s->tsc_offset + l->machine.host_tsc : (tsc ? tsc->value : 0);
        rc = kvm_vcpu_load(vcpu_kvm(vm->vcpus[i]), s, err);
    }
    return rc;
}

int vm_loader_apply(struct vm_loader *l, struct err *err)
{
    int rc = check_complete(l, err);

    if (rc < 0)
        return rc;
    commit_all(l);
    rc = load_machine(l, err);
    if (rc >= 0)
        atomic_store(&l->vm->state, VM_PAUSED);
    return rc;
}

int vm_load(struct vm *vm, const uint8_t *data, size_t len, struct err *err)
{
    struct vm_loader *l = NULL;
    size_t used;
    int rc = vm_loader_new(vm, &l, err);

    if (rc >= 0)
        rc = vm_loader_stage(l, data, len, true, &used, err);
    if (rc >= 0)
        rc = vm_loader_apply(l, err);
    vm_loader_free(l);
    return rc;
}

/* --- Description ---------------------------------------------------------------- */

enum {
    DESCRIPTION_CONFIG_MAX = 1 << 20, /* bytes of the configuration as JSON */
};

struct config_state {
    uint8_t *json; /* vm_config_to_text() */
    uint32_t json_len;
};

static const struct state_field config_fields[] = {
    /* clang-format off */
    /*                              since  member  length    most */
    STATE_BLOB(struct config_state, 1,     json,   json_len, DESCRIPTION_CONFIG_MAX),
    /* clang-format on */
};

static const struct state_desc config_desc = {
    .name = "config",
    .version = 1,
    .version_min = 1,
    .size = sizeof(struct config_state),
    .fields = config_fields,
    .nr_fields = ARRAY_LEN(config_fields),
};

int vm_describe(struct vm *vm, struct state_buf *buf, struct err *err)
{
    size_t before = buf->len, len = 0;
    char *text = NULL;
    int rc = vm_config_to_text(vm->cfg, &text, &len);

    if (rc >= 0) {
        const struct config_state c = {.json = (uint8_t *)text, .json_len = (uint32_t)len};

        rc = state_save(&config_desc, "config", &c, buf, err);
    }
    if (rc >= 0)
        rc = state_save(&cpu_model_state, "cpu-model", vm->model, buf, err);
    if (rc < 0)
        buf->len = before;
    free(text);
    return rc;
}

/* Take the next section, which must be of @desc, into @obj. */
static int take_section(const uint8_t **data, size_t *len, const struct state_desc *desc, void *obj,
                        struct err *err)
{
    struct state_section sec;
    void *scratch = NULL;
    int rc = state_section_next(data, len, &sec, err);

    if (rc == 0)
        return err_set(err, -EBADMSG, "description has no section %s", desc->name);
    if (rc > 0)
        rc = state_stage(&sec, desc, obj, &scratch, err);
    if (rc >= 0)
        state_commit(desc, scratch, obj);
    return rc;
}

int vm_parse_description(const uint8_t **data, size_t *len, struct vm_config *ret_cfg,
                         struct cpu_model **ret_model, struct err *err)
{
    struct cpu_model *model = calloc(1, sizeof(*model));
    struct config_state c = {0};
    int rc = model ? 0 : -ENOMEM;

    if (rc >= 0)
        rc = take_section(data, len, &config_desc, &c, err);
    if (rc >= 0)
        rc = take_section(data, len, &cpu_model_state, model, err);
    if (rc >= 0)
        rc = vm_config_from_text((const char *)c.json, c.json_len, ret_cfg, err);
    state_release(&config_desc, &c);
    if (rc < 0) {
        free(model);
        return rc;
    }
    *ret_model = model;
    return 0;
}
