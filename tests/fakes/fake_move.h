/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A move of a fake guest over a fake link, and the one after it.
 */
#ifndef TESTS_FAKES_FAKE_MOVE_H
#define TESTS_FAKES_FAKE_MOVE_H

#include "tests/fakes/fake_link.h"
#include "tests/fakes/fake_pair.h"

/* Both engines will connect over it; @link outlives the move. */
void fake_move_over(struct fake_pair *p, struct fake_link *link);

/* One move that succeeds; returns how many bytes went one way over the connection. */
uint64_t fake_move_bytes(struct fake_pair *p, unsigned conn, enum fake_dir dir);

/*
 * If the guest is still at the source, nothing is left of what failed: a second attempt, over a link
 * that does nothing to it, succeeds.  src_rc stays that of the first.
 */
void fake_move_again(struct fake_pair *p);

/* One move over such a link, fake_pair_check(), fake_move_again(). */
void fake_move_twice(struct fake_pair *p, const struct fake_link_config *cfg);

#endif
