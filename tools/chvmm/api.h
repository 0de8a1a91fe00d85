/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The REST API: from a request to the control thread and back.  docs/api.md.
 */
#ifndef TOOLS_CHVMM_API_H
#define TOOLS_CHVMM_API_H

#include "tools/chvmm/vmm.h"

struct vmm_api;

/**
 * vmm_api_open() - listen.
 * @path: of the socket; NULL: @fd.
 * @fd:   a listening socket; -1: @path.
 *
 * Return: 0 and *@ret_api, owned, to be given to vmm_api_stop(); as api_server_open().
 * Threads: control.
 */
CHECKED int vmm_api_open(struct vmm *vmm, const char *path, int fd, struct vmm_api **ret_api,
                         struct err *err);

/**
 * vmm_api_start() - answer from now on.
 *
 * Return: 0; as api_server_start().
 * Threads: control; once.
 */
CHECKED int vmm_api_start(struct vmm_api *api, struct err *err);

/**
 * vmm_api_stop() - answer what is left and end.
 * @api: taken; NULL is allowed.
 *
 * Threads: control, after its loop.
 */
void vmm_api_stop(struct vmm_api *api);

#endif
