/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/board.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/random.h>

#include "core/bus.h"
#include "core/gmem.h"
#include "core/x86/cpu_model.h"
#include "core/x86/layout.h"
#include "devices/acpi_pm_timer.h"
#include "devices/acpi_shutdown.h"
#include "devices/board_internal.h"
#include "devices/cmos.h"
#include "devices/debug_port.h"
#include "devices/debugcon.h"
#include "devices/ged.h"
#include "devices/i8042.h"
#include "devices/ioapic.h"
#include "devices/serial.h"
#include "devices/vmgenid.h"

/* --- Interrupts ------------------------------------------------------------- */

static void board_irq_set(void *arg, unsigned pin, bool level)
{
    const struct board *b = arg;

    ioapic_set_line(b->ioapic, pin, level);
}

static void board_eoi(void *arg, uint8_t vector)
{
    const struct board *b = arg;

    ioapic_eoi(b->ioapic, vector);
}

/* KVM reports the end of a level-triggered interrupt only for messages that it knows. */
static void on_route(void *arg, unsigned pin, const struct ioapic_route *route)
{
    struct board *b = arg;
    struct kvm_ioapic_route new = {0};

    if (!route->masked)
        new = (struct kvm_ioapic_route){.addr = route->addr, .data = route->data};
    if (b->routes[pin].addr == new.addr && b->routes[pin].data == new.data)
        return;
    b->routes[pin] = new;
    /* A message that KVM does not accept is one that no local APIC would. */
    if (kvm_route_ioapic(vm_kvm(b->vm), b->routes) < 0)
        b->routes[pin] = (struct kvm_ioapic_route){0};
}

/* --- Addresses ---------------------------------------------------------------- */

/* Bytes of RAM below and above the hole under 4 GiB. */
static void board_ram(const struct board *b, uint64_t *ret_below, uint64_t *ret_above)
{
    struct gmem *gm = vm_gmem(b->vm);

    *ret_below = *ret_above = 0;
    for (unsigned i = 0; i < gmem_nr_regions(gm); i++) {
        const struct gmem_region *r = gmem_region(gm, i);

        if (r->gpa < X86_RAM64_GPA)
            *ret_below = r->gpa + r->len;
        else
            *ret_above = r->gpa + r->len - X86_RAM64_GPA;
    }
}

struct pci_window board_mmio64(const struct board *b)
{
    uint64_t below, above, base, end;

    board_ram(b, &below, &above);
    base = x86_mmio64_gpa(X86_RAM64_GPA + above);
    end = x86_mmio64_end(b->phys_bits);
    return (struct pci_window){base, end > base ? end - base : 0};
}

/* --- Building ----------------------------------------------------------------- */

/* A device with one window. */
struct place {
    struct bus *bus;
    uint64_t base;
    uint64_t len;
};

static int add(struct board *b, const struct device_ops *ops, const char *id, const void *cfg,
               struct place at, struct device **ret_dev)
{
    struct err *err = b->err;
    int rc = vm_add_device(b->vm, ops, id, cfg, ret_dev, err);

    return rc < 0 || !at.len ? rc : bus_add(at.bus, at.base, at.len, *ret_dev, 0, err);
}

static int add_interrupts(struct board *b, struct bus *mmio)
{
    const struct ioapic_config ioapic = {.route = on_route, .arg = b};
    const struct ged_config ged = {.irq = X86_IRQ_GED};
    const struct place ged_at = {mmio, x86_platform_gpa(b->phys_bits) + X86_PLATFORM_GED_OFF,
                                 X86_PLATFORM_GED_SIZE};
    int rc = add(b, &ioapic_ops, VM_ID_IOAPIC, &ioapic,
                 (struct place){mmio, X86_IOAPIC_GPA, X86_IOAPIC_SIZE}, &b->ioapic);

    return rc < 0 ? rc : add(b, &ged_ops, "__ged", &ged, ged_at, &b->ged);
}

static int add_ports(struct board *b, struct bus *pio)
{
    struct cmos_config cmos = {0};
    const struct {
        const struct device_ops *ops;
        const char *id;
        const void *cfg;
        uint16_t port;
        uint16_t len;
    } ports[] = {
  /* clang-format off */
        {&i8042_ops,         "__i8042",         NULL,  X86_PORT_I8042,         X86_PORT_I8042_LEN},
        {&cmos_ops,          "__cmos",          &cmos, X86_PORT_CMOS,          X86_PORT_CMOS_LEN},
        {&debug_port_ops,    "__debug_port",    NULL,  X86_PORT_DEBUG,         X86_PORT_DEBUG_LEN},
        {&acpi_shutdown_ops, "__acpi_shutdown", NULL,  X86_PORT_ACPI_SHUTDOWN, X86_PORT_ACPI_SHUTDOWN_LEN},
        {&acpi_pm_timer_ops, "__acpi_pm_timer", NULL,  X86_PORT_ACPI_PM_TIMER, X86_PORT_ACPI_PM_TIMER_LEN},
  /* clang-format on */
    };
    int rc = 0;

    board_ram(b, &cmos.ram_below_4g, &cmos.ram_above_4g);
    for (size_t i = 0; rc >= 0 && i < ARRAY_LEN(ports); i++) {
        struct device *dev;

        rc = add(b, ports[i].ops, ports[i].id, ports[i].cfg,
                 (struct place){pio, ports[i].port, ports[i].len}, &dev);
    }
    return rc;
}

/* The generation id of a first start is random; a restored VM has its own in its state. */
static int add_genid(struct board *b)
{
    struct vmgenid_config genid = {.gpa = X86_GENID_GPA};

    if (getrandom(genid.id, sizeof(genid.id), 0) != (ssize_t)sizeof(genid.id))
        return err_set(b->err, -errno, "VM generation id: %s", strerror(errno));
    return add(b, &vmgenid_ops, "__vmgenid", &genid, (struct place){0}, &b->genid);
}

static int build(struct board *b)
{
    const struct dev_env *env = vm_env(b->vm);
    int rc = add_interrupts(b, env->mmio);

    if (rc >= 0)
        rc = add_ports(b, env->pio);
    if (rc >= 0)
        rc = add_genid(b);
    if (rc >= 0)
        rc = board_add_consoles(b);
    if (rc >= 0)
        rc = board_add_pci(b);
    return rc;
}

static void board_destroy(void *arg)
{
    struct board *b = arg;

    pci_bus_free(b->pci);
    char_backend_close(&b->serial);
    char_backend_close(&b->console);
    char_backend_close(&b->debug_console);
    free(b->disks);
    free(b->nets);
    free(b);
}

static int board_build(struct vm *vm, const struct vm_config *cfg, void **ret_board,
                       struct err *err)
{
    static const struct char_backend closed = {.out_fd = -1, .in_fd = -1, .listen_fd = -1};
    struct board *b = calloc(1, sizeof(*b));
    int rc;

    if (!b)
        return err_set(err, -ENOMEM, "board: out of memory");
    *b = (struct board){
        .vm = vm,
        .cfg = cfg,
        .phys_bits = cpu_model_phys_bits(vm_cpu_model(vm)),
        .serial = closed,
        .console = closed,
        .debug_console = closed,
        .err = err,
    };
    /* Also on failure: the devices that are there use it until the machine frees them. */
    *ret_board = b;
    rc = build(b);
    b->err = NULL;
    return rc;
}

/* --- Running ------------------------------------------------------------------ */

static void board_power_button(void *arg)
{
    const struct board *b = arg;

    ged_raise(b->ged, X86_GED_POWER_BUTTON);
}

static int board_set_identity(void *arg, const uint8_t genid[16], struct err *err)
{
    struct board *b = arg;
    int rc = board_write_smbios(b, err);

    if (rc < 0)
        return rc;
    board_set_macs(b);
    vmgenid_set(b->genid, genid);
    ged_raise(b->ged, X86_GED_GENID);
    return 0;
}

const char *board_pty_path(void *board, const char *id)
{
    const struct board *b = board;

    if (strcmp(id, VM_ID_SERIAL) == 0)
        return b->serial.pty;
    if (strcmp(id, VM_ID_CONSOLE) == 0)
        return b->console.pty;
    return b->debug_console.pty;
}

static void put(struct json_object *obj, const char *key, struct json_object *value)
{
    (void)json_object_object_add(obj, key, value);
}

/* DeviceNode of the API: id, resources, parent, children, pci_bdf. */
static struct json_object *board_device_tree(void *arg)
{
    struct board *b = arg;
    struct json_object *tree = json_object_new_object();

    for (unsigned i = 0; i < vm_nr_devices(b->vm); i++) {
        struct device *dev = vm_device(b->vm, i);
        struct json_object *node = json_object_new_object();
        char bdf[16];

        put(node, "id", json_object_new_string(dev->id));
        put(node, "resources", json_object_new_array());
        put(node, "children", json_object_new_array());
        if (board_bdf(b, dev, bdf, sizeof(bdf)))
            put(node, "pci_bdf", json_object_new_string(bdf));
        put(tree, dev->id, node);
    }
    return tree;
}

const struct vm_board_ops board_ops = {
    .build = board_build,
    .destroy = board_destroy,
    .irq_set = board_irq_set,
    .eoi = board_eoi,
    .write_tables = board_write_tables,
    .acquire = board_acquire,
    .release = board_release,
    .sync = board_sync,
    .announce = board_announce,
    .power_button = board_power_button,
    .set_identity = board_set_identity,
    .device_tree = board_device_tree,
};
