/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores and memory images for the tests of store/.
 */
#ifndef TESTS_UNIT_STORE_FIXTURE_H
#define TESTS_UNIT_STORE_FIXTURE_H

#include "store/store_reader.h"
#include "store/store_writer.h"

enum {
    FIXTURE_PATH_MAX = 256,
    FIXTURE_GPA = 0x100000,
};

/* Memory to be stored: one region. */
struct image {
    uint8_t *p;
    uint64_t pages;
};

/* A fresh directory with a store in it that does not exist yet. */
struct fixture {
    char dir[FIXTURE_PATH_MAX];
    char path[FIXTURE_PATH_MAX]; /* dir/store */
};

/* Fails the test, saying why, if something did not succeed. */
void assert_ok(int rc, const struct err *err);

void fixture_make(struct fixture *f);
void fixture_remove(struct fixture *f);

/* Open its store, made if there is none; fails the test where that cannot be. */
struct store *fixture_open(const struct fixture *f);

/* Change the index behind the store's back; how many rows that changed. */
int index_change(const char *store_path, const char *sql);

/* Remove a directory tree; copy one. */
void tree_remove(const char *path);
void tree_copy(const char *from, const char *to);

/* An image of zero pages, text, noise and repetitions; the same for the same seed. */
struct image image_make(uint64_t pages, uint64_t seed);
struct image image_copy(const struct image *img);
void image_free(struct image *img);

/* Pages that are all different, and nearly all zero: their numbers, from @from on. */
struct image image_numbered(uint64_t pages, uint64_t from);

/* Overwrite a page with noise. */
void image_touch(struct image *img, uint64_t page, uint64_t seed);

/* How many pages are not zero; how many different ones there are among them. */
uint64_t image_nonzero(const struct image *img);
uint64_t image_unique(const struct image *img);

/* Store an image; 0 or an errno. */
int image_put(struct store *st, const struct image *img, const char *parent, const char *name,
              char *ret_id, struct err *err);

/* As image_put(), all work in the calling thread. */
int image_put_alone(struct store *st, const struct image *img, const char *parent, const char *name,
                    char *ret_id, struct err *err);

/* Begin a snapshot of an image, with or without worker threads. */
int image_begin(struct store *st, const struct image *img, const char *parent, const char *name,
                bool alone, struct store_writer **ret_w, struct err *err);

/* 0 if the snapshot holds exactly the image; 1 if it holds another; or an errno. */
int image_compare(struct store *st, const char *ref, const struct image *img, struct err *err);

/* An exported snapshot. */
struct bytes {
    uint8_t *p; /* heap */
    size_t len, cap;
    size_t at; /* read so far */
};

/* What store_export() writes to and store_import() reads from, in pieces as a pipe gives them. */
int bytes_sink(void *arg, const void *data, size_t len, struct err *err);
ssize_t bytes_source(void *arg, void *data, size_t len, struct err *err);

/* Verify everything; the number of problems, or an errno. */
int store_problems(struct store *st, bool data);

#endif
