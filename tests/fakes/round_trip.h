/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checks on a device's state that hold for every device: save, load into a
 * fresh one, save again gives equal bytes; what is refused changes nothing.
 */
#ifndef TESTS_FAKES_ROUND_TRIP_H
#define TESTS_FAKES_ROUND_TRIP_H

#include "core/device.h"
#include "core/state.h"

/**
 * round_trip_save() - the state of a device.
 *
 * Return: its bytes, owned, to be given to state_buf_release(); fails the test otherwise.
 * Threads: the test, the device is quiet.
 */
struct state_buf round_trip_save(struct device *dev);

/**
 * round_trip_load() - stage and commit a section.
 * @err: may be NULL.
 *
 * Return: 0, or what state_stage() said, and then @dev is unchanged.
 * Threads: the test, the device is quiet.
 */
CHECKED int round_trip_load(struct device *dev, const struct state_buf *buf, struct err *err);

/**
 * round_trip_check() - the state of @from, loaded into @to, is that of @to.
 * @to: as fresh, of the same configuration.
 *
 * Threads: the test, both are quiet.
 */
void round_trip_check(struct device *from, struct device *to);

/**
 * round_trip_cuts() - every truncation of the state is refused and changes nothing.
 *
 * Threads: the test, the device is quiet.
 */
void round_trip_cuts(struct device *dev);

#endif
