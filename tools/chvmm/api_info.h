/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vm.info and vm.counters say.
 */
#ifndef TOOLS_CHVMM_API_INFO_H
#define TOOLS_CHVMM_API_INFO_H

#include "tools/chvmm/vmm.h"

/**
 * api_info_vm() - {config, state, memory_actual_size, device_tree}.
 *
 * Return: owned; NULL when out of memory.
 * Threads: control.
 */
struct json_object *api_info_vm(struct vmm *vmm);

/**
 * api_info_counters() - {device: {counter: number}}.
 *
 * Return: owned; NULL when out of memory.
 * Threads: control.
 */
struct json_object *api_info_counters(struct vmm *vmm);

#endif
