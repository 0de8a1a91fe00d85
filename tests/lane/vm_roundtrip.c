/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole machine, saved and loaded into a second one on the real /dev/kvm: saved again there it has
 * the same bytes, at any moment of what its devices do, with one processor and with several.
 *
 *     vm_roundtrip <test guest>
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/config/vm_config.h"
#include "core/gmem.h"
#include "core/kvm.h"
#include "core/vm.h"
#include "core/x86/cpu_model.h"
#include "devices/board.h"
#include "tests/fakes/fake_hooks.h"
#include "tests/lane/lane_guest.h"

enum {
    TEXT_MAX = 64 << 10,
    ANSWER_MS = 60000,
    PAUSES = 3, /* of each activity */
    DISK_LEN = 16 << 20,
    HOSTILE_ROUNDS = 3,
};

static const char *guest_path;

struct fixture {
    char dir[32], disk[64], socket[64];
    struct vm_config cfg;
    struct vm *vm;
    int line; /* to the serial port */
    char text[TEXT_MAX];
    size_t text_len;
    char said[TEXT_MAX]; /* up to what was expected last */
    uint64_t kvmclock;   /* page that KVM writes by itself */
    unsigned nr_syncs, nr_sockets;
};

/* ---- the guest ------------------------------------------------------------- */

static void connect_line(struct fixture *fix)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", fix->socket);
    if (fix->line >= 0)
        (void)close(fix->line);
    fix->text_len = 0;
    fix->line = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fix->line >= 0);
    assert_int_equal(connect(fix->line, (struct sockaddr *)&addr, sizeof(addr)), 0);
}

static void send_line(struct fixture *fix, const char *text)
{
    size_t len = strlen(text);

    assert_int_equal(send(fix->line, text, len, MSG_NOSIGNAL), (ssize_t)len);
    assert_int_equal(send(fix->line, "\n", 1, MSG_NOSIGNAL), 1);
}

/* Reads until the guest has said @what; heartbeats are taken out. */
static void expect(struct fixture *fix, const char *what)
{
    while (!memmem(fix->text, fix->text_len, what, strlen(what))) {
        struct pollfd pfd = {.fd = fix->line, .events = POLLIN};
        char *at = fix->text + fix->text_len;
        ssize_t n;

        if (poll(&pfd, 1, ANSWER_MS) <= 0)
            fail_msg("the guest did not say '%s', but: %.*s", what, (int)fix->text_len, fix->text);
        if (fix->text_len > TEXT_MAX / 2) {
            memmove(fix->text, at - 1024, 1024);
            fix->text_len = 1024;
            at = fix->text + 1024;
        }
        n = read(fix->line, at, TEXT_MAX - fix->text_len);
        if (n <= 0)
            fail_msg("the serial line ended while the guest was to say '%s'", what);
        for (char *c = at; c < at + n; c++)
            if (*c != '~')
                fix->text[fix->text_len++] = *c;
    }
    (void)snprintf(fix->said, sizeof(fix->said), "%.*s", (int)fix->text_len, fix->text);
    fix->text[0] = '\n'; /* a line begins */
    fix->text_len = 1;
}

/* Everything said so far was understood, in this order. */
static void sync_line(struct fixture *fix)
{
    char text[32];

    (void)snprintf(text, sizeof(text), "echo sync%u.", ++fix->nr_syncs);
    send_line(fix, text);
    (void)snprintf(text, sizeof(text), "ok sync%u.", fix->nr_syncs);
    expect(fix, text);
}

static void command(struct fixture *fix, const char *text)
{
    send_line(fix, text);
    expect(fix, "\nok");
    sync_line(fix);
}

/* ---- machines -------------------------------------------------------------- */

static void option(struct fixture *fix, enum vm_option opt, const char *value)
{
    struct err err = {0};

    if (vm_config_from_option(&fix->cfg, opt, value, &err))
        fail_msg("%s: %s", value, err.msg);
}

static void start(struct fixture *fix, unsigned nr_vcpus)
{
    struct err err = {0};
    char text[128];
    int fd;

    (void)snprintf(fix->dir, sizeof(fix->dir), "/tmp/roundtrip.XXXXXX");
    assert_non_null(mkdtemp(fix->dir));
    (void)snprintf(fix->disk, sizeof(fix->disk), "%s/disk", fix->dir);
    (void)snprintf(fix->socket, sizeof(fix->socket), "%s/serial", fix->dir);
    fd = open(fix->disk, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, DISK_LEN), 0);
    (void)close(fd);
    option(fix, VM_OPT_KERNEL, guest_path);
    option(fix, VM_OPT_MEMORY, "size=64M");
    (void)snprintf(text, sizeof(text), "boot=%u", nr_vcpus);
    option(fix, VM_OPT_CPUS, text);
    (void)snprintf(text, sizeof(text), "path=%s", fix->disk);
    option(fix, VM_OPT_DISK, text);
    (void)snprintf(text, sizeof(text), "socket=%s", fix->socket);
    option(fix, VM_OPT_SERIAL, text);
    option(fix, VM_OPT_CONSOLE, "null");
    option(fix, VM_OPT_PLATFORM, "system_uuid=6b0a1b8e-0000-4000-8000-000000000001");
    if (unshare(CLONE_NEWNET) == 0)
        option(fix, VM_OPT_NET, "id=wire,mac=12:34:56:78:90:ab");
    fix->line = -1;
    if (vm_config_complete(&fix->cfg, &err) ||
        vm_new(&fix->cfg, NULL, NULL, &board_ops, &fake_hooks, &fix->vm, &err) ||
        vm_acquire(fix->vm, &err))
        fail_msg("%s", err.msg);
    connect_line(fix);
    if (vm_boot(fix->vm, &err))
        fail_msg("%s", err.msg);
    expect(fix, "chrysalis-guest ready");
    sync_line(fix);
    send_line(fix, "info");
    expect(fix, " rsdp=");
    assert_non_null(strstr(fix->said, "kvmclock=0x"));
    fix->kvmclock = strtoull(strstr(fix->said, "kvmclock=0x") + 9, NULL, 16) & ~UINT64_C(4095);
}

static void finish(struct fixture *fix)
{
    vm_free(fix->vm);
    if (fix->line >= 0)
        (void)close(fix->line);
    (void)unlink(fix->disk);
    (void)unlink(fix->socket);
    (void)rmdir(fix->dir);
    vm_config_release(&fix->cfg);
    free(fix);
}

/* What the saved machine is built from, as a restore and a move have it. */
struct described {
    struct vm_config cfg;
    struct cpu_model *model;
};

static void describe(struct vm *vm, struct described *ret_d)
{
    struct state_buf buf = {0};
    struct err err = {0};
    const uint8_t *data;
    size_t len;

    if (vm_describe(vm, &buf, &err))
        fail_msg("describing: %s", err.msg);
    data = buf.data;
    len = buf.len;
    if (vm_parse_description(&data, &len, &ret_d->cfg, &ret_d->model, &err))
        fail_msg("description: %s", err.msg);
    assert_int_equal(len, 0);
    state_buf_release(&buf);
}

/* A process has one machine, and so one socket of that name: each of ours gets its own. */
static void own_socket(struct fixture *fix, struct described *d)
{
    (void)snprintf(fix->socket, sizeof(fix->socket), "%s/serial%u", fix->dir, ++fix->nr_sockets);
    assert_int_equal(vm_config_set_string(&d->cfg.serial.socket, fix->socket), 0);
}

static void undescribe(struct described *d)
{
    vm_config_release(&d->cfg);
    free(d->model);
}

static void copy_memory(struct vm *to, struct vm *from)
{
    assert_int_equal(gmem_nr_regions(vm_gmem(to)), gmem_nr_regions(vm_gmem(from)));
    for (unsigned i = 0; i < gmem_nr_regions(vm_gmem(from)); i++)
        memcpy(gmem_region(vm_gmem(to), i)->hva, gmem_region(vm_gmem(from), i)->hva,
               gmem_region(vm_gmem(from), i)->len);
}

static void same_memory(struct vm *a, struct vm *b, uint64_t except, const char *when)
{
    for (unsigned i = 0; i < gmem_nr_regions(vm_gmem(a)); i++) {
        const struct gmem_region *r = gmem_region(vm_gmem(a), i);
        const uint8_t *other = gmem_region(vm_gmem(b), i)->hva;

        for (uint64_t off = 0; off < r->len; off += 4096)
            if (r->gpa + off != except && memcmp(r->hva + off, other + off, 4096) != 0)
                fail_msg("%s: loading changed the page at %#llx", when,
                         (unsigned long long)(r->gpa + off));
    }
}

static void save(struct vm *vm, struct state_buf *ret_buf, const char *when)
{
    struct err err = {0};

    if (vm_save(vm, ret_buf, &err))
        fail_msg("%s: saving: %s", when, err.msg);
}

/* ---- state that comes in pieces ---------------------------------------------- */

static int put_section(void *arg, const uint8_t *data, size_t len, struct err *err)
{
    return state_buf_append(arg, data, len, err);
}

/* Section by section is the same as all at once. */
static void check_sections(struct vm *vm, const struct state_buf *all, const char *when)
{
    struct state_buf parts = {0};
    struct err err = {0};

    if (vm_save_to(vm, &(struct state_sink){put_section, &parts}, &err))
        fail_msg("%s: saving: %s", when, err.msg);
    assert_int_equal(parts.len, all->len);
    assert_memory_equal(parts.data, all->data, all->len);
    state_buf_release(&parts);
}

/* As if a peer sent it in messages of so many bytes, which are no sections. */
static void load_pieces(struct vm *vm, const struct state_buf *state, size_t piece,
                        const char *when)
{
    struct vm_loader *loader = NULL;
    struct err err = {0};
    size_t at = 0, used;

    if (vm_loader_new(vm, &loader, &err))
        fail_msg("%s: %s", when, err.msg);
    for (size_t have = 0; have < state->len;) {
        have = state->len - have < piece ? state->len : have + piece;
        if (vm_loader_stage(loader, state->data + at, have - at, have == state->len, &used, &err))
            fail_msg("%s: staging: %s", when, err.msg);
        at += used;
        assert_int_equal(vm_state(vm), VM_CREATED);
    }
    assert_int_equal(at, state->len);
    if (vm_loader_apply(loader, &err))
        fail_msg("%s: applying: %s", when, err.msg);
    vm_loader_free(loader);
}

/* ---- the comparison -------------------------------------------------------- */

static void say_difference(const char *path, struct json_object *a, struct json_object *b)
{
    char name[256];

    if (json_object_equal(a, b))
        return;
    if (json_object_is_type(a, json_type_object) && json_object_is_type(b, json_type_object)) {
        json_object_object_foreach(a, key, value)
        {
            (void)snprintf(name, sizeof(name), "%s.%s", path, key);
            say_difference(name, value, json_object_object_get(b, key));
        }
    } else if (json_object_is_type(a, json_type_array) && json_object_is_type(b, json_type_array) &&
               json_object_array_length(a) == json_object_array_length(b)) {
        for (size_t i = 0; i < json_object_array_length(a); i++) {
            (void)snprintf(name, sizeof(name), "%s[%zu]", path, i);
            say_difference(name, json_object_array_get_idx(a, i), json_object_array_get_idx(b, i));
        }
    } else {
        const char *ta = json_object_to_json_string(a), *tb = json_object_to_json_string(b);
        size_t at = 0;

        while (ta[at] && ta[at] == tb[at])
            at++;
        (void)fprintf(stderr, "%s: from character %zu: %.40s\n    loaded: %.40s\n", path, at,
                      ta + at, tb + at);
    }
}

static void same_state(const struct state_buf *a, const struct state_buf *b, const char *when)
{
    struct json_object *ja = NULL, *jb = NULL;

    if (a->len == b->len && memcmp(a->data, b->data, a->len) == 0)
        return;
    assert_int_equal(state_to_json(a->data, a->len, &ja, NULL), 0);
    assert_int_equal(state_to_json(b->data, b->len, &jb, NULL), 0);
    say_difference("state", ja, jb);
    json_object_put(ja);
    json_object_put(jb);
    fail_msg("%s: saved again, the state differs", when);
}

/* The machine is paused at any moment; a second one that loads it is the same. */
static void round_trip(struct fixture *fix, const char *when)
{
    struct state_buf first = {0}, again = {0}, second = {0};
    struct described d = {0};
    struct vm_origin from;
    struct vm *vm = NULL;
    struct err err = {0};
    char never_served[64];

    if (vm_pause(fix->vm, &err))
        fail_msg("%s: pausing: %s", when, err.msg);
    describe(fix->vm, &d);
    from = (struct vm_origin){.model = d.model};
    save(fix->vm, &first, when);
    (void)snprintf(never_served, sizeof(never_served), "%s/never", fix->dir);
    assert_int_equal(vm_config_set_string(&d.cfg.serial.socket, never_served), 0);
    if (vm_new(&d.cfg, &from, NULL, &board_ops, &fake_hooks, &vm, &err))
        fail_msg("%s: building: %s", when, err.msg);
    copy_memory(vm, fix->vm);
    check_sections(fix->vm, &first, when);
    load_pieces(vm, &first, 997, when);
    save(vm, &second, when);
    same_state(&first, &second, when);
    same_memory(fix->vm, vm, fix->kvmclock, when);
    vm_free(vm);
    /* Nor has saving changed the first. */
    save(fix->vm, &again, when);
    same_state(&first, &again, when);
    undescribe(&d);
    state_buf_release(&first);
    state_buf_release(&second);
    state_buf_release(&again);
    if (vm_resume(fix->vm, VM_CLOCK_CONTINUE, &err))
        fail_msg("%s: resuming: %s", when, err.msg);
}

/* ---- tests ----------------------------------------------------------------- */

/* What the guest is told just before a pause, without waiting for its answer. */
struct activity {
    const char *name;
    const char *before; /* waited for; NULL: nothing */
    const char *lines;  /* not waited for; NULL: nothing */
    const char *after;  /* waited for; NULL: nothing */
    bool needs_net;
};

/* clang-format off */
static const struct activity activities[] = {
    {"idle", NULL, NULL, NULL, false},
    {"block requests in flight", "blk 0 run 0 4096", NULL, "blk 0 stop\nblk 0 check", false},
    {"one long block command", NULL, "blk 0 write 8192 2048 7", "blk 0 flush", false},
    {"a flush and a discard on the way", NULL,
     "blk 0 write 8192 512 9\nblk 0 flush\nblk 0 discard 8192 64\nblk 0 zero 9000 8", NULL, false},
    {"a device reset", NULL, "blk 0 reset\nblk 0 info\nblk 0 reset", NULL, false},
    {"frames being sent", NULL, "net 0 send 200 1000", NULL, true},
    {"serial output", NULL, "help\nhelp\nacpi", NULL, false},
    {"serial input", NULL, "echo a b c d e f g h i j k l m n\necho o p q r s t u v w x", NULL, false},
    {"random numbers and the console", NULL, "rng 256\nconsole write abcdefgh\nrng 64", NULL, false},
    {"heartbeats by deadline", "heartbeat 1000 deadline", NULL, "heartbeat off", false},
    {"a clock that is read", NULL, "clock\ncmos 0x40 0x55\nclock", NULL, false},
    {"PCI registers", NULL, "pcird 1 0x10\npcird 2 4\npci", NULL, false},
    {"dirtying", "dirty 16 16 0 seq", NULL, "dirty stop\ndirty check", false},
};
/* clang-format on */

static void commands(struct fixture *fix, const char *lines)
{
    char text[128];

    while (lines && *lines) {
        size_t len = strcspn(lines, "\n");

        (void)snprintf(text, sizeof(text), "%.*s", (int)len, lines);
        command(fix, text);
        lines += len + (lines[len] == '\n');
    }
}

static void all_moments(unsigned nr_vcpus)
{
    struct fixture *fix = calloc(1, sizeof(*fix));

    assert_non_null(fix);
    start(fix, nr_vcpus);
    if (fix->cfg.nr_nets)
        command(fix, "net 0 up 10.0.0.2");
    if (nr_vcpus > 1) {
        command(fix, "smp start");
        command(fix, "smp dirty 40 2");
    }
    for (size_t i = 0; i < ARRAY_LEN(activities); i++) {
        const struct activity *a = &activities[i];

        if (a->needs_net && !fix->cfg.nr_nets)
            continue;
        commands(fix, a->before);
        for (unsigned k = 0; k < PAUSES; k++) {
            if (a->lines)
                send_line(fix, a->lines);
            (void)usleep(k * 3000); /* another moment of it */
            round_trip(fix, a->name);
        }
        sync_line(fix);
        commands(fix, a->after);
    }
    if (nr_vcpus > 1) {
        command(fix, "smp stop");
        command(fix, "smp check");
    }
    finish(fix);
}

static void test_a_machine_is_the_same_at_any_moment(void **state)
{
    (void)state;
    all_moments(1);
}

static void test_so_it_is_with_several_processors(void **state)
{
    (void)state;
    all_moments(4);
}

/*
 * What a hostile guest leaves behind in any register can be saved and loaded, too; and after a reset
 * the machine is as new.
 */
static void test_so_it_is_when_the_guest_writes_anything_anywhere(void **state)
{
    static const char *const kinds[] = {"pio", "mmio", "pci", "rings", "all"};
    struct fixture *fix = calloc(1, sizeof(*fix));
    char text[64];

    (void)state;
    assert_non_null(fix);
    start(fix, 2);
    for (unsigned i = 0; i < ARRAY_LEN(kinds) * HOSTILE_ROUNDS; i++) {
        const char *kind = kinds[i % ARRAY_LEN(kinds)];
        struct err err = {0};

        (void)snprintf(text, sizeof(text), "scribble %s %u 200", kind, i + 1);
        send_line(fix, text);
        for (unsigned k = 0; k < PAUSES; k++) {
            (void)usleep(60000);
            round_trip(fix, text);
        }
        if (vm_reset(fix->vm, &err))
            fail_msg("%s: reset: %s", text, err.msg);
        expect(fix, "chrysalis-guest ready");
        sync_line(fix);
        command(fix, "blk 0 write 0 64 3");
        command(fix, "blk 0 verify 0 64 3");
        command(fix, "rng 16");
        command(fix, "pci");
    }
    finish(fix);
}

/* A state that was loaded and saved again, never run between, goes on from where it stopped. */
static void test_clocks_survive_a_machine_that_never_ran(void **state)
{
    struct fixture *fix = calloc(1, sizeof(*fix));
    struct state_buf first = {0}, second = {0};
    struct described d = {0}, d2 = {0};
    struct vm_origin from;
    struct vm *between = NULL, *last = NULL;
    struct err err = {0};

    (void)state;
    assert_non_null(fix);
    start(fix, 1);
    command(fix, "heartbeat 2000 deadline");
    assert_int_equal(vm_pause(fix->vm, &err), 0);
    describe(fix->vm, &d);
    describe(fix->vm, &d2);
    from = (struct vm_origin){.model = d.model};
    save(fix->vm, &first, "first");
    own_socket(fix, &d);
    assert_int_equal(vm_new(&d.cfg, &from, NULL, &board_ops, &fake_hooks, &between, &err), 0);
    copy_memory(between, fix->vm);
    vm_free(fix->vm);
    fix->vm = NULL;
    (void)usleep(1200000); /* time that the guest must not see */
    assert_int_equal(vm_load(between, first.data, first.len, &err), 0);
    save(between, &second, "second");
    own_socket(fix, &d2);
    assert_int_equal(vm_new(&d2.cfg, &from, NULL, &board_ops, &fake_hooks, &last, &err), 0);
    copy_memory(last, between);
    vm_free(between);
    assert_int_equal(vm_load(last, second.data, second.len, &err), 0);
    fix->vm = last;
    if (vm_resume(last, VM_CLOCK_CONTINUE, &err))
        fail_msg("%s", err.msg);
    connect_line(fix);
    sync_line(fix);
    command(fix, "heartbeat off");
    finish(fix);
    undescribe(&d);
    undescribe(&d2);
    state_buf_release(&first);
    state_buf_release(&second);
}

static void test_a_tsc_of_another_rate_has_to_be_accepted(void **state)
{
    struct fixture *fix = calloc(1, sizeof(*fix));
    struct state_buf first = {0};
    struct described d = {0};
    struct vm_origin from;
    struct vm *vm = NULL;
    struct err err = {0};

    (void)state;
    assert_non_null(fix);
    start(fix, 2);
    assert_int_equal(vm_pause(fix->vm, &err), 0);
    describe(fix->vm, &d);
    save(fix->vm, &first, "first");
    if (!d.model->tsc_khz)
        skip();
    own_socket(fix, &d);
    d.model->tsc_khz += d.model->tsc_khz / 10;
    from = (struct vm_origin){.model = d.model};
    if (kvm_has(vm_kvm(fix->vm), KVM_CAP_TSC_CONTROL) <= 0) {
        assert_int_equal(vm_new(&d.cfg, &from, NULL, &board_ops, &fake_hooks, &vm, &err), -ENOTSUP);
        assert_non_null(strstr(err.msg, "tsc: the guest's runs at"));
        assert_non_null(strstr(err.msg, "accept_tsc=on"));
        from.accept_tsc = true;
        err = (struct err){0};
    }
    if (vm_new(&d.cfg, &from, NULL, &board_ops, &fake_hooks, &vm, &err))
        fail_msg("%s", err.msg);
    copy_memory(vm, fix->vm);
    vm_free(fix->vm);
    fix->vm = vm;
    if (vm_load(vm, first.data, first.len, &err) || vm_resume(vm, VM_CLOCK_CONTINUE, &err))
        fail_msg("%s", err.msg);
    connect_line(fix);
    sync_line(fix);
    assert_int_equal(vm_cpu_model(vm)->tsc_khz, d.model->tsc_khz); /* for the next move */
    finish(fix);
    undescribe(&d);
    state_buf_release(&first);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_machine_is_the_same_at_any_moment),
        cmocka_unit_test(test_so_it_is_with_several_processors),
        cmocka_unit_test(test_so_it_is_when_the_guest_writes_anything_anywhere),
        cmocka_unit_test(test_clocks_survive_a_machine_that_never_ran),
        cmocka_unit_test(test_a_tsc_of_another_rate_has_to_be_accepted),
    };

    guest_path = lane_guest(argc, argv);
    if (!guest_path)
        return LANE_SKIPPED;
    return cmocka_run_group_tests_name("vm_roundtrip", tests, NULL, NULL);
}
