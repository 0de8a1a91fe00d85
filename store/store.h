/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store: snapshots of memory, deduplicated, compressed, verified.
 *
 * A store is a directory that any number of processes use at once.  It holds
 * snapshots; a snapshot is the RAM of a machine as regions of 4 KiB pages, a
 * blob of device state, and two JSON texts that the store does not look into.
 * It knows nothing of virtual machines.
 *
 *     store.h          open, list, remove, tag, collect, verify
 *     store_writer.h   put a snapshot in
 *     store_reader.h   get a snapshot out
 *     store_url.h      how people name a store and a snapshot
 *
 * Format and promises: docs/store-format.md.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "store/store_digest.h"

enum store_limits {
    STORE_FORMAT_VERSION = 1,
    STORE_REGIONS_MAX = 64,
    STORE_NAME_MAX = 64, /* characters of a name, of a tag, of a VM's identity */
    STORE_TAGS_MAX = 32,
    STORE_JSON_MAX = 1 << 20,    /* bytes of each JSON text */
    STORE_STATE_MAX = 256 << 20, /* bytes of device state */
    STORE_REF_MAX = 128,         /* characters of a reference to a snapshot */
    STORE_ID_SHORT = 12,         /* digits of an id shown to people */
};

enum store_open_flags {
    STORE_CREATE = 1 << 0, /* make it if it is not there */
    STORE_RDONLY = 1 << 1, /* for reading; works where nothing can be written */
};

struct store;

/* A region of RAM in a snapshot. */
struct store_region {
    uint64_t gpa;   /* bytes, 4 KiB aligned */
    uint64_t pages; /* 4 KiB each, at least 1 */
    struct store_digest root;
};

/* What a snapshot holds and what putting it in has added. */
struct store_counts {
    uint64_t pages_zero;   /* pages of zeroes */
    uint64_t pages_same;   /* equal to the parent's page at the same place */
    uint64_t pages_known;  /* found elsewhere in the store, or twice in this snapshot */
    uint64_t pages_new;    /* stored */
    uint64_t bytes_stored; /* appended to packs, everything included */
};

/* The part of a snapshot that never changes. */
struct store_record {
    uint8_t uuid[16]; /* random */
    uint64_t time_ns; /* since 1970, when it was published */
    char vm[STORE_NAME_MAX + 1];
    char parent[STORE_DIGEST_HEX + 1]; /* id, or "" */
    char *config;                      /* JSON: the machine; "" if none */
    char *disks;                       /* JSON: what its disks were; "" if none */
    unsigned nr_regions;
    struct store_region regions[STORE_REGIONS_MAX];
    struct store_digest ram; /* names all regions: addresses, sizes and contents */
    uint64_t state_len;      /* bytes of device state */
    struct store_digest state;
    unsigned nr_chunks; /* pieces of it */
    struct store_digest *chunks;
    struct store_counts counts;
};

/* A snapshot as the store lists it. */
struct store_info {
    char id[STORE_DIGEST_HEX + 1];
    uint64_t seq; /* order of publication */
    char name[STORE_NAME_MAX + 1];
    unsigned nr_tags;
    char tags[STORE_TAGS_MAX][STORE_NAME_MAX + 1];
    const struct store_record *rec; /* borrowed: only during the call */
};

struct store_stats {
    uint64_t snapshots;
    uint64_t packs;
    uint64_t segments;
    uint64_t pages;        /* unique, in the index */
    uint64_t objects;      /* nodes of manifests and pieces of state */
    uint64_t bytes_packs;  /* of published packs */
    uint64_t bytes_index;  /* of the database */
    uint64_t bytes_others; /* packs of writers at work or left by a crash */
    uint64_t ram_bytes;    /* of all snapshots, as if each were stored whole */
    uint8_t uuid[16];
    unsigned version;
};

/**
 * store_open() - open or make a store.
 * @path:  its directory.
 * @flags: enum store_open_flags.
 *
 * Return: 0 and *@ret_st, owned, for store_close(); -ENOENT; -EINVAL if it is no
 * store; -ENOTSUP for a later format, which @err names; -EBADMSG if it is damaged; -EROFS, -EACCES
 * where it cannot be written, unless for reading; or the kernel's errno.
 * Threads: any; the object may be used by several at once.
 */
CHECKED int store_open(const char *path, unsigned flags, struct store **ret_st, struct err *err);

/**
 * store_close() - close it.
 * @st: taken; NULL is allowed.  No writer and no snapshot of it may be open.
 *
 * Threads: the last user.
 */
void store_close(struct store *st);

/**
 * store_abandon() - close it, and take away what store_open() made of it.
 * @st: as store_close().
 *
 * For who could not do what the store was made for.  It stays where it was there before, where anything
 * was ever published in it, and while another writes to it; one who had it open for that is told
 * that it has been removed.
 * Threads: the last user.
 */
void store_abandon(struct store *st);

/* Gets each snapshot; a negative return ends the walk. */
typedef int store_list_fn(void *arg, const struct store_info *info);

/**
 * store_list() - every snapshot, in order of publication.
 *
 * Return: 0; what @fn returned; -EBADMSG if one is damaged: @err names the first, and all
 * others were given.
 * Threads: any.
 */
CHECKED int store_list(struct store *st, store_list_fn *fn, void *arg, struct err *err);

/**
 * store_list_ids() - the ids of all snapshots, in order of publication.
 * @ret_ids: @ret_nr of them, owned by the caller, for free(); NULL if there is none.
 *
 * For who opens them one by one, which a store_list_fn may not: then it turns out which are damaged.
 * Return: 0; -ENOMEM, -EBADMSG or the kernel's errno, and then nothing is to be freed.
 * Threads: any.
 */
CHECKED int store_list_ids(struct store *st, char (**ret_ids)[STORE_DIGEST_HEX + 1], size_t *ret_nr,
                           struct err *err);

/**
 * store_resolve() - find a snapshot by what people call it.
 * @ref:    an id; or a name; or at least 4 leading digits of an id; or a tag.
 * @ret_id: STORE_DIGEST_HEX + 1 bytes.
 *
 * Tried in that order.  A tag that several snapshots have means the newest.  An id, or its
 * digits, find a damaged snapshot too.
 * Return: 0; -ENOENT; -ENOTUNIQ for digits that several ids begin with; -EINVAL.
 * Threads: any.
 */
CHECKED int store_resolve(struct store *st, const char *ref, char *ret_id, struct err *err);

/**
 * store_newest() - the snapshot published last.
 * @vm:     of this VM; NULL for any.
 * @ret_id: STORE_DIGEST_HEX + 1 bytes.
 *
 * Return: 0; -ENOENT.
 * Threads: any.
 */
CHECKED int store_newest(struct store *st, const char *vm, char *ret_id, struct err *err);

/**
 * store_name_is_good() - whether a text may be a name, a tag or a VM's identity.
 *
 * Letters, digits and ._:@+=- ; at most STORE_NAME_MAX; not starting with '-'.
 * Return: true if so.
 * Threads: any.
 */
bool store_name_is_good(const char *name);

/**
 * store_remove() - take a snapshot out.
 * @ref: as store_resolve().
 *
 * Its space is free after store_gc().  A damaged one goes by its id.
 * Return: 0; as store_resolve(); -EBUSY while somebody has it open.
 * Threads: any.
 */
CHECKED int store_remove(struct store *st, const char *ref, struct err *err);

/**
 * store_remove_check() - whether store_remove() would take a snapshot out, as things are.
 * @ref: as store_resolve().
 *
 * Return: 0; as store_resolve(); -EBUSY while somebody has it open.
 * Threads: any.
 */
CHECKED int store_remove_check(struct store *st, const char *ref, struct err *err);

/* A change of labels; each part may be NULL. */
struct store_relabel {
    const char *name; /* the new name; "" removes it */
    const char *add;  /* a tag to add */
    const char *del;  /* a tag to remove */
};

/**
 * store_relabel() - change the name and the tags of a snapshot, all of it or nothing.
 * @ref:     as store_resolve().
 * @changes: @nr of them, one after the other.
 *
 * Return: 0; as store_resolve(); -EINVAL for a bad name; -EEXIST if another has
 * the name; -ENOENT if it does not have the tag; -E2BIG past STORE_TAGS_MAX.
 * Threads: any.
 */
CHECKED int store_relabel(struct store *st, const char *ref, const struct store_relabel *changes,
                          size_t nr, struct err *err);

/**
 * store_stats() - figures about the whole store.
 *
 * Return: 0; -EBADMSG or the kernel's errno.
 * Threads: any.
 */
CHECKED int store_stats(struct store *st, struct store_stats *ret_stats, struct err *err);

struct store_gc_result {
    uint64_t pages_dropped; /* index rows */
    uint64_t objects_dropped;
    uint64_t segments_dropped;
    uint64_t packs_removed;
    uint64_t packs_rewritten;
    uint64_t bytes_freed; /* of packs */
};

enum store_gc_flags {
    STORE_GC_WAIT = 1 << 0,    /* wait for writers to end instead of -EBUSY */
    STORE_GC_DRY_RUN = 1 << 1, /* find out, change nothing */
};

/* What a collection is at. */
enum store_gc_phase {
    STORE_GC_MARK,   /* bytes of memory of all snapshots */
    STORE_GC_COPY,   /* bytes of packs that are rewritten */
    STORE_GC_FORGET, /* bytes of memory that nothing needs */
};

typedef void store_gc_progress_fn(void *arg, enum store_gc_phase phase, uint64_t done,
                                  uint64_t total);

/**
 * store_gc() - free what no snapshot needs.
 * @flags: enum store_gc_flags.
 * @fn:    called for each piece of work, in this thread; NULL is allowed.
 * @arg:   for @fn.
 *
 * Packs without anything alive go; packs less than half alive are rewritten.
 * Readers go on throughout, writers while it marks and copies; for the sweep, which
 * is short, it waits for those at work, and new ones wait for it.  STORE_GC_DRY_RUN is for a
 * store that is opened for reading too; where nothing can be written it keeps nobody out, and
 * counts what a writer at work has not published yet among what is to go.
 * Return: 0; -EBUSY while somebody writes or collects; -EBADMSG if a manifest cannot be read
 * (then nothing is changed); or the kernel's errno.
 * Threads: any.
 */
CHECKED int store_gc(struct store *st, unsigned flags, store_gc_progress_fn *fn, void *arg,
                     struct store_gc_result *ret, struct err *err);

enum store_severity {
    STORE_NOTE,  /* harmless: space that store_gc() frees */
    STORE_WRONG, /* something is broken */
};

/* One finding of store_verify(). */
struct store_problem {
    enum store_severity severity;
    const char *what;     /* one phrase */
    const char *snapshot; /* id of the snapshot that suffers, or NULL */
    bool has_pages;       /* the next three are given */
    unsigned region;
    uint64_t first; /* page in the region */
    uint64_t nr;
};

struct store_verify_result {
    uint64_t snapshots;
    uint64_t snapshots_bad;
    uint64_t segments; /* looked at */
    uint64_t pages;    /* whose bytes were verified; 0 unless data was read */
    uint64_t bytes;    /* read from packs */
    uint64_t problems; /* of severity STORE_WRONG */
    /* With repair, what was done. */
    uint64_t pages_moved;      /* that have a row again, there or in a new place */
    uint64_t pages_dropped;    /* lost until their contents come again */
    uint64_t objects_dropped;  /* the same of nodes and pieces of state */
    uint64_t rows_mended;      /* of segments and packs, that led elsewhere */
    uint64_t segments_dropped; /* set aside: in no use, their bytes go with store_gc() */
};

typedef void store_problem_fn(void *arg, const struct store_problem *p);
typedef void store_progress_fn(void *arg, uint64_t done, uint64_t total);

/* How to verify; zeroed means: the structure only, in silence. */
struct store_verify_cfg {
    bool data;                   /* read every byte of every pack */
    bool repair;                 /* read every byte, then do about damage what can be done */
    store_problem_fn *problem;   /* may be NULL */
    store_progress_fn *progress; /* bytes of packs; may be NULL */
    void *arg;                   /* for both */
};

/**
 * store_verify() - look for damage, and repair it if asked to.
 *
 * What a repair does: store_repair.h.  It needs the store to itself: no writer, no
 * collector, no other verifier.  Labels, records and the database itself are not repaired.
 *
 * Return: 0 if it ran to its end, whatever it found (@ret_res->problems says);
 * a negative errno if it could not; -EBUSY, -EROFS for a repair.
 * Threads: any; beside readers and, without repair, writers.
 */
CHECKED int store_verify(struct store *st, const struct store_verify_cfg *cfg,
                         struct store_verify_result *ret_res, struct err *err);

#endif
