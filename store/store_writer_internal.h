/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer's parts: store_writer.c keeps the pages of each region,
 * store_pipeline.c turns contents into segments, store_publish.c ends it.
 */
#ifndef STORE_STORE_WRITER_INTERNAL_H
#define STORE_STORE_WRITER_INTERNAL_H

#include <stdatomic.h>

#include "store/store_reader_internal.h"
#include "store/store_record.h"
#include "store/store_seen.h"
#include "store/store_writer.h"

enum {
    WRITER_LOCK_POLL_NS = 10000000,
    WRITER_STRIPES = 64,
    WRITER_PACKS_MAX = 4096,
    WRITER_CHUNK_PAGES = STORE_CHUNK_PAGES,
    WRITER_OUT_SEGMENTS = 32, /* written at once, at most */
    WRITER_OUT_LEN = 256 * 1024,
};

#define WRITER_PACK_TARGET GIB(1)

enum writer_leaf_state {
    LEAF_UNTOLD, /* nobody has said anything about it */
    LEAF_KEPT,   /* as in the parent, not loaded */
    LEAF_ZERO,   /* all zero */
    LEAF_LOADED,
};

/* The pages of 2 MiB while the snapshot is being written. */
struct writer_leaf {
    struct store_node node;                 /* what is known; the parent's at first */
    uint64_t seq[STORE_NODE_ENTRIES];       /* of the copy that decided the page */
    uint64_t told[STORE_NODE_ENTRIES / 64]; /* pages that were given, zeroed or kept */
};

struct writer_region {
    uint64_t gpa;
    uint64_t pages;
    int parent; /* the same region in the parent, or -1 */
    uint64_t nr_leaves;
    uint8_t *state;            /* enum writer_leaf_state, per leaf */
    uint64_t *seq;             /* per leaf: when it was kept or zeroed as a whole */
    struct writer_leaf **leaf; /* NULL unless LEAF_LOADED */
};

/* A pack being written. */
struct writer_pack {
    uint64_t id;
    struct store_file *file;
    uint64_t end;    /* bytes handed out */
    uint32_t nr_ids; /* segment ids handed out */
};

/* Pages on their way from a caller to a worker. */
struct writer_chunk {
    struct writer_chunk *next;
    unsigned nr;
    struct {
        unsigned region;
        uint64_t seq; /* order in which copies were made */
        uint64_t page;
    } at[WRITER_CHUNK_PAGES];
    uint8_t data[WRITER_CHUNK_PAGES * PAGE_SIZE_4K];
};

/* Where a segment is going to be. */
struct writer_place {
    struct writer_pack *pack;
    uint64_t segment; /* its id */
};

/* What a thread needs to process a chunk; the segment that it is filling with single pages. */
struct writer_bench {
    bool busy; /* under the queue's lock */
    struct store_codec_ctx *codec;
    struct writer_place open; /* pack NULL: none is open */
    unsigned nr;
    struct store_digest digests[STORE_SEGMENT_SLOTS];
    uint8_t raw[STORE_SEGMENT_RAW_MAX];
    /* Finished segments, to be written together: many small writes cost the kernel twice as much. */
    struct writer_pack *out_pack;
    unsigned nr_out;
    size_t out_len;
    struct store_extent out_at[WRITER_OUT_SEGMENTS]; /* off: not known yet */
    uint8_t out[WRITER_OUT_LEN];
};

struct store_writer {
    struct store *st;        /* borrowed */
    struct store_lock *lock; /* shared with other writers, keeps the collector out */
    struct store_snapshot *parent;
    char parent_id[STORE_DIGEST_HEX + 1];
    char name[STORE_NAME_MAX + 1];
    char vm[STORE_NAME_MAX + 1];
    char *tags;
    unsigned nr_regions;
    struct writer_region regions[STORE_REGIONS_MAX];
    pthread_mutex_t stripes[WRITER_STRIPES]; /* leaves, by number */

    pthread_mutex_t ix_lock;
    struct store_index *ix;
    bool ix_has_pages;
    unsigned looks; /* chunks that the present view of the index has served; 0: there is none */
    struct store_seen *seen;    /* pages of this writer */
    struct store_seen *objects; /* nodes and pieces of this writer */

    pthread_mutex_t pack_lock; /* leaf */
    unsigned nr_packs;
    struct writer_pack *packs[WRITER_PACKS_MAX];
    size_t nr_extents, cap_extents;
    struct store_extent *extents; /* every segment written */

    pthread_mutex_t queue_lock;
    pthread_cond_t work;   /* a chunk was queued, or it is time to stop */
    pthread_cond_t relief; /* a chunk or a bench is free */
    struct writer_chunk *free, *head, **tail;
    unsigned nr_chunks, nr_free;
    unsigned nr_benches;
    struct writer_bench **benches;
    unsigned nr_threads;
    pthread_t threads[STORE_THREADS_MAX];
    bool stop;
    struct err failure; /* the first one; code 0 while there is none */
    atomic_bool failed;
    atomic_bool cancelled;

    atomic_uint_fast64_t seq;
    atomic_uint_fast64_t zero, same, known, fresh, stored;
};

/* ---- store_writer.c ---- */

/* What to do about a page whose digest is known. */
enum writer_verdict {
    PAGE_DONE,  /* nothing: equal to what is there, or overtaken */
    PAGE_STORE, /* it needs a place */
};

/**
 * writer_leaf_offer() - compare a page with what is there.
 *
 * Return: enum writer_verdict; or an errno of loading the parent's leaf.
 * Threads: any.
 */
CHECKED int writer_leaf_offer(struct store_writer *w, const struct writer_chunk *c, unsigned i,
                              const struct store_digest *d, struct err *err);

/**
 * writer_leaf_apply() - note the digest and place of a page unless it was overtaken.
 *
 * Threads: any.
 */
void writer_leaf_apply(struct store_writer *w, const struct writer_chunk *c, unsigned i,
                       const struct store_digest *d, uint64_t loc);

/**
 * writer_leaf_of() - a leaf as it stands, for publishing.
 *
 * Threads: the last one in the writer.
 */
struct writer_leaf *writer_leaf_of(struct store_writer *w, unsigned region, uint64_t i);

/**
 * writer_free() - free everything; stops threads, removes packs if @keep_packs is false.
 *
 * Threads: the last user.
 */
void writer_free(struct store_writer *w, bool keep_packs);

/* ---- store_pipeline.c ---- */

/**
 * writer_pipeline_start() - allocate chunks and benches, start threads.
 *
 * Return: 0; -ENOMEM or -EAGAIN.
 * Threads: the one that begins.
 */
CHECKED int writer_pipeline_start(struct store_writer *w, unsigned threads, struct err *err);

/**
 * writer_pipeline_stop() - finish what is queued, end the threads, write open segments.
 *
 * Return: 0; or the writer's failure.
 * Threads: the one that publishes.
 */
CHECKED int writer_pipeline_stop(struct store_writer *w, struct err *err);

/**
 * writer_pipeline_write() - give to the packs what is finished and not there yet.
 *
 * Return: 0; or the kernel's errno.
 * Threads: the one that publishes, after writer_pipeline_stop().
 */
CHECKED int writer_pipeline_write(struct store_writer *w, struct err *err);

/**
 * writer_pipeline_drain() - wait until everything that was queued is processed.
 *
 * Threads: one, while no other gives pages.
 */
void writer_pipeline_drain(struct store_writer *w);

/**
 * writer_pipeline_free() - end the threads, drop what is queued, free.
 *
 * Threads: the last user.
 */
void writer_pipeline_free(struct store_writer *w);

/**
 * writer_check() - whether the writer may go on.
 *
 * Return: 0, or the failure.
 * Threads: any.
 */
CHECKED int writer_check(struct store_writer *w, struct err *err);

/**
 * writer_look_end() - let go of the view of the index that chunks are looked up in.
 *
 * Threads: the last user.
 */
void writer_look_end(struct store_writer *w);

/* A node or a piece of state that is to be stored. */
struct writer_object {
    enum store_segment_kind kind;
    const uint8_t *raw;
    size_t len; /* at most STORE_SEGMENT_RAW_MAX */
};

/**
 * writer_put_object() - store a node or a piece of state, unless it is known.
 *
 * Return: 1 and *@ret_segment if it was written; 0 if the store has it; or an errno.
 * Threads: the one that publishes.
 */
CHECKED int writer_put_object(struct store_writer *w, const struct writer_object *obj,
                              struct store_digest *ret_digest, uint64_t *ret_segment,
                              struct err *err);

#endif
