/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The board's serial port and debug consoles, and the back ends of all consoles.
 */
#include <unistd.h>

#include "core/bus.h"
#include "core/x86/layout.h"
#include "devices/board_internal.h"
#include "devices/debugcon.h"
#include "devices/serial.h"

static int add_serial(struct board *b)
{
    struct serial_config cfg = {.irq = X86_IRQ_COM1};
    struct device *dev = NULL;
    int rc;

    if (b->cfg->serial.mode == CONSOLE_OFF)
        return 0;
    rc = char_backend_open("serial", &b->cfg->serial, &b->serial, b->err);
    if (rc < 0)
        return rc;
    cfg.port = (struct char_port_config){b->serial.out_fd, b->serial.in_fd, b->serial.listen_fd};
    rc = vm_add_device(b->vm, &serial_ops, VM_ID_SERIAL, &cfg, &dev, b->err);
    if (rc < 0)
        return rc;
    char_backend_taken(&b->serial);
    return bus_add(vm_env(b->vm)->pio, X86_PORT_COM1, X86_PORT_COM1_LEN, dev, 0, b->err);
}

static int add_debugcon(struct board *b, const char *id, uint16_t port, int fd)
{
    const struct debugcon_config cfg = {.out_fd = fd};
    struct device *dev = NULL;
    int rc = vm_add_device(b->vm, &debugcon_ops, id, &cfg, &dev, b->err);

    return rc < 0 ? rc : bus_add(vm_env(b->vm)->pio, port, 1, dev, 0, b->err);
}

static int add_debug_console(struct board *b)
{
    const struct console_config *cfg = &b->cfg->debug_console;
    int rc;

    if (cfg->mode == CONSOLE_OFF)
        return 0;
    rc = char_backend_open("debug_console", cfg, &b->debug_console, b->err);
    if (rc < 0)
        return rc;
    rc = add_debugcon(b, VM_ID_DEBUG_CONSOLE, cfg->iobase, b->debug_console.out_fd);
    if (rc >= 0)
        char_backend_taken(&b->debug_console);
    return rc;
}

int board_add_consoles(struct board *b)
{
    int rc = add_serial(b);

    if (rc >= 0)
        rc = add_debug_console(b);
    /* Firmware's own debug port. */
    if (rc >= 0)
        rc = add_debugcon(b, "__fw_debug", X86_PORT_FW_DEBUG, -1);
    return rc;
}
