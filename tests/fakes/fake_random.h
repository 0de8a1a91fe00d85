/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers of OpenSSL's that a seed replays: keys, nonces and tickets are the same each time,
 * and so are the lengths of all that is made of them.
 */
#ifndef TESTS_FAKES_FAKE_RANDOM_H
#define TESTS_FAKES_FAKE_RANDOM_H

/* From here on, for all threads: those of fake_time.h, which run one at a time. */
void fake_random_begin(unsigned seed);

/* OpenSSL's own again. */
void fake_random_end(void);

#endif
