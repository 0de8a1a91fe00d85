/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "store/store_internal.h"
#include "store/store_record.h"

enum {
    STORE_PREFIX_MIN = 4, /* digits of an id that may stand for it */
};

/* ---- a full disk ---- */

bool store_make_room(struct store_backend *be, int rc)
{
    if (rc != -ENOSPC && rc != -EDQUOT)
        return false;
    be->ops->reserve_free(be);
    return true;
}

/* ---- life cycle ---- */

/* On a full disk SQLite cannot even read: it makes files for what goes on between processes. */
static int open_index(struct store *st, unsigned flags, struct err *err)
{
    struct err full = {0};
    int rc = store_index_open(st->be, flags, &st->ix, &full);

    if (store_make_room(st->be, rc)) {
        full = (struct err){0};
        rc = store_index_open(st->be, flags, &st->ix, &full);
    }
    /* No room for a log, and so nobody else has one: as where nothing can be written. */
    if (st->readonly && (rc == -ENOSPC || rc == -EDQUOT)) {
        st->be->readonly = true;
        return store_index_open(st->be, flags, &st->ix, err);
    }
    return rc < 0 ? err_set(err, rc, "%s", full.msg) : 0;
}

int store_open(const char *path, unsigned flags, struct store **ret_st, struct err *err)
{
    struct store *st = calloc(1, sizeof(*st));
    unsigned dir_flags = (flags & STORE_CREATE ? STORE_DIR_CREATE : 0U) |
                         (flags & STORE_RDONLY ? STORE_DIR_RDONLY : 0U);
    uint64_t last_pack;
    int rc;

    if (!st)
        return store_no_memory(err);
    (void)pthread_mutex_init(&st->ix_lock, NULL);
    st->readonly = flags & STORE_RDONLY;
    rc = store_dir_open(path, dir_flags, &st->be, err);
    if (rc == 0)
        rc = open_index(st, flags & STORE_CREATE ? STORE_INDEX_CREATE : 0, err);
    if (rc == 0)
        rc = store_index_identity(st->ix, st->uuid, &last_pack, err);
    if (rc == 0 && store_fetch_new(st->be, st->ix, &st->ix_lock, &st->fetch) < 0)
        rc = store_no_memory(err);
    if (rc < 0) {
        store_abandon(st);
        return err_prefix(err, rc, "store %s", path);
    }
    *ret_st = st;
    return 0;
}

/* No snapshot was ever published: a pack would have been, too. */
static bool is_untouched(struct store *st)
{
    uint8_t uuid[STORE_UUID_LEN];
    uint64_t last_pack, nr;
    struct stat index;

    if (!st->ix) /* not even its tables were made, unless by another process */
        return stat(st->be->index_path, &index) == 0 && index.st_size == 0;
    return store_index_identity(st->ix, uuid, &last_pack, NULL) == 0 && last_pack == 0 &&
           store_index_count(st->ix, STORE_TABLE_SNAPSHOTS, &nr, NULL) == 0 && nr == 0;
}

void store_abandon(struct store *st)
{
    const enum store_lock_mode alone = STORE_LOCK_EXCLUSIVE;
    struct store_lock *collector = NULL, *writers = NULL;
    struct store_backend *be = st ? st->be : NULL;

    if (be && be->made &&
        be->ops->lock(be, STORE_LOCK_COLLECTOR, alone, false, &collector, NULL) == 0 &&
        be->ops->lock(be, STORE_LOCK_WRITERS, alone, false, &writers, NULL) == 0 &&
        is_untouched(st)) {
        store_index_close(st->ix);
        st->ix = NULL;
        be->ops->unmake(be);
    }
    if (be) {
        be->ops->unlock(be, writers);
        be->ops->unlock(be, collector);
    }
    store_close(st);
}

/*
 * What could wait until who published had an answer.  If it fails, or another is at it, the next to publish
 * does it.
 */
static void settle(struct store *st)
{
    struct store_lock *lock = NULL;
    struct store_backend *be = st->be;

    if (!atomic_load(&st->unsettled) ||
        be->ops->lock(be, STORE_LOCK_SETTLER, STORE_LOCK_EXCLUSIVE, false, &lock, NULL) < 0)
        return;
    (void)!store_index_settle(st->ix, NULL);
    be->ops->unlock(be, lock);
}

void store_close(struct store *st)
{
    if (!st)
        return;
    settle(st);
    store_fetch_free(st->fetch);
    store_index_close(st->ix);
    if (st->be)
        st->be->ops->free(st->be);
    (void)pthread_mutex_destroy(&st->ix_lock);
    free(st);
}

int store_write_check(const struct store *st, struct err *err)
{
    if (st->readonly)
        return err_set(err, -EROFS, "the store was opened for reading only");
    return 0;
}

int store_lock_as_writer(struct store *st, bool wait, struct store_lock **ret, struct err *err)
{
    struct store_backend *be = st->be;
    struct store_lock *gate = NULL;
    int rc = be->ops->lock(be, STORE_LOCK_GATE, STORE_LOCK_SHARED, wait, &gate, err);

    if (rc == 0)
        rc = be->ops->lock(be, STORE_LOCK_WRITERS, STORE_LOCK_SHARED, wait, ret, err);
    be->ops->unlock(be, gate);
    return rc;
}

/* ---- names ---- */

bool store_name_is_good(const char *name)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                               "0123456789._:@+=-";
    size_t n = strspn(name, good);

    return n > 0 && n <= STORE_NAME_MAX && !name[n] && name[0] != '-';
}

/* Split "a,b,c"; false if it is not what store_tags_join() makes. */
static bool labels_split(const char *tags, struct store_info *info)
{
    info->nr_tags = 0;
    while (*tags) {
        size_t n = strcspn(tags, ",");
        char *tag;

        if (n == 0 || n > STORE_NAME_MAX || info->nr_tags >= STORE_TAGS_MAX)
            return false;
        tag = info->tags[info->nr_tags];
        memcpy(tag, tags, n);
        tag[n] = 0;
        if (!store_name_is_good(tag))
            return false;
        info->nr_tags++;
        tags += n;
        if (*tags && !*++tags)
            return false;
    }
    return true;
}

void store_tags_join(const struct store_info *info, char *out, size_t cap)
{
    size_t len = 0;

    out[0] = 0;
    for (unsigned i = 0; i < info->nr_tags; i++)
        len += (size_t)snprintf(out + len, cap - len, "%s%s", i ? "," : "", info->tags[i]);
}

/* ---- rows ---- */

static int row_check(const struct store_snap_row *row, struct err *err)
{
    struct store_digest d;
    int rc;

    store_hash(row->record, row->record_len, &d);
    if (!store_digest_equal(&d, &row->id))
        return err_set(err, -EBADMSG, "record: does not match the id");
    rc = store_index_labels_digest(row, &d, err);
    if (rc == 0 && !store_digest_equal(&d, &row->labels))
        rc = err_set(err, -EBADMSG, "name or tags: do not match their digest");
    return rc;
}

int store_row_read(const struct store_snap_row *row, struct store_found *ret, struct err *err)
{
    struct store_info *info = &ret->info;
    int rc;

    memset(ret, 0, sizeof(*ret));
    info->seq = row->seq;
    store_digest_hex(&row->id, info->id);
    rc = row_check(row, err);
    if (rc == 0 &&
        ((row->name && !store_name_is_good(row->name)) || !labels_split(row->tags, info)))
        rc = err_set(err, -EBADMSG, "name or tags: not allowed");
    if (rc == 0)
        rc = store_record_decode(row->record, row->record_len, &ret->rec, err);
    if (rc < 0)
        return rc;
    if (row->name)
        memcpy(info->name, row->name, strlen(row->name) + 1);
    info->rec = ret->rec;
    return 0;
}

int store_row_decode(const struct store_snap_row *row, struct store_found *ret, struct err *err)
{
    int rc = store_row_read(row, ret, err);

    return rc < 0 ? err_prefix(err, rc, "snapshot %.*s", STORE_ID_SHORT, ret->info.id) : 0;
}

void store_found_release(struct store_found *found)
{
    store_record_free(found->rec);
    found->rec = NULL;
    found->info.rec = NULL;
}

struct list_walk {
    store_list_fn *fn;
    void *arg;
    int damaged; /* 0; or the errno of the first that cannot be read */
    struct err *err;
};

/* One that is damaged hides no other: it is told in the end. */
static int list_row(void *arg, const struct store_snap_row *row)
{
    struct list_walk *w = arg;
    struct store_found found = {0};
    int rc = store_row_decode(row, &found, w->damaged ? NULL : w->err);

    if (rc < 0) {
        w->damaged = w->damaged ? w->damaged : rc;
        return rc == -ENOMEM ? rc : 0;
    }
    rc = w->fn(w->arg, &found.info);
    store_found_release(&found);
    return rc;
}

int store_list(struct store *st, store_list_fn *fn, void *arg, struct err *err)
{
    struct list_walk w = {.fn = fn, .arg = arg, .err = err};
    int rc;

    (void)pthread_mutex_lock(&st->ix_lock);
    rc = store_index_each_snapshot(st->ix, list_row, &w, err);
    (void)pthread_mutex_unlock(&st->ix_lock);
    return rc < 0 ? rc : w.damaged;
}

struct id_list {
    size_t nr, cap;
    char (*ids)[STORE_DIGEST_HEX + 1];
    struct err *err;
};

static int list_take_id(void *arg, const struct store_snap_row *row)
{
    struct id_list *l = arg;
    void *p = array_grow(l->ids, l->nr, &l->cap, sizeof(l->ids[0]));

    if (!p)
        return store_no_memory(l->err);
    l->ids = p;
    store_digest_hex(&row->id, l->ids[l->nr++]);
    return 0;
}

int store_list_ids(struct store *st, char (**ret_ids)[STORE_DIGEST_HEX + 1], size_t *ret_nr,
                   struct err *err)
{
    struct id_list l = {.err = err};
    int rc;

    (void)pthread_mutex_lock(&st->ix_lock);
    rc = store_index_each_snapshot(st->ix, list_take_id, &l, err);
    (void)pthread_mutex_unlock(&st->ix_lock);
    if (rc < 0) {
        free(l.ids);
        return rc;
    }
    *ret_ids = l.ids;
    *ret_nr = l.nr;
    return 0;
}

/* ---- finding one ---- */

enum find_rank {
    FIND_NOTHING,
    FIND_TAG,
    FIND_PREFIX,
    FIND_NAME,
    FIND_ID, /* all of it: no name may stand in for the id of another */
};

struct find_walk {
    struct store_index *ix;
    const char *ref;
    enum find_rank rank;           /* how good the best match is */
    unsigned nr_prefixes;          /* ids that begin with the digits */
    uint64_t seq;                  /* of the best match */
    char id[STORE_DIGEST_HEX + 1]; /* the same */
};

static bool tags_have(const char *tags, const char *tag)
{
    size_t n = strlen(tag);

    for (const char *p = tags; p; p = strchr(p, ',')) {
        p += *p == ',';
        if (strncmp(p, tag, n) == 0 && (p[n] == ',' || !p[n]))
            return true;
    }
    return false;
}

static enum find_rank find_rank_of(struct find_walk *w, const struct store_snap_row *row,
                                   const char *hex)
{
    size_t n = strlen(w->ref);

    if (strcmp(hex, w->ref) == 0)
        return FIND_ID;
    if (row->name && strcmp(row->name, w->ref) == 0)
        return FIND_NAME;
    if (n >= STORE_PREFIX_MIN && n <= STORE_DIGEST_HEX && strncmp(hex, w->ref, n) == 0) {
        w->nr_prefixes++;
        return FIND_PREFIX;
    }
    return tags_have(row->tags, w->ref) ? FIND_TAG : FIND_NOTHING;
}

static int find_row(void *arg, const struct store_snap_row *row)
{
    struct find_walk *w = arg;
    char hex[STORE_DIGEST_HEX + 1];
    enum find_rank rank;

    store_digest_hex(&row->id, hex);
    rank = find_rank_of(w, row, hex);
    /* Rows come in order of publication: of two that match equally the newer wins. */
    if (rank != FIND_NOTHING && rank >= w->rank) {
        w->rank = rank;
        w->seq = row->seq;
        memcpy(w->id, hex, sizeof(w->id));
    }
    return 0;
}

struct take_walk {
    uint64_t seq;
    struct store_found *found;
    bool done;
    struct err *err;
};

static int take_row(void *arg, const struct store_snap_row *row)
{
    struct take_walk *w = arg;
    int rc;

    if (row->seq != w->seq)
        return 0;
    rc = store_row_decode(row, w->found, w->err);
    w->done = rc == 0;
    return rc;
}

/* The row that is meant, whatever is in it. */
static int find_meant(struct find_walk *w, struct err *err)
{
    int rc = store_index_each_snapshot(w->ix, find_row, w, err);

    if (rc < 0)
        return rc;
    if (w->rank == FIND_NOTHING)
        return err_set(err, -ENOENT, "no snapshot \"%s\"", w->ref);
    if (w->rank == FIND_PREFIX && w->nr_prefixes > 1)
        return err_set(err, -ENOTUNIQ, "%u snapshots have an id that begins with \"%s\"",
                       w->nr_prefixes, w->ref);
    return 0;
}

/* Looks twice: within one view of the index, or what was found first may be gone. */
static int find_locked(struct store *st, const char *ref, struct store_found *ret, struct err *err)
{
    struct find_walk w = {.ix = st->ix, .ref = ref};
    struct take_walk t = {.found = ret, .err = err};
    int rc = find_meant(&w, err);

    if (rc < 0)
        return rc;
    t.seq = w.seq;
    rc = store_index_each_snapshot(st->ix, take_row, &t, err);
    if (rc == 0 && !t.done)
        rc = err_set(err, -ENOENT, "no snapshot \"%s\"", ref);
    return rc;
}

static int find_check_ref(const char *ref, struct err *err)
{
    if (ref[0] && strlen(ref) <= STORE_REF_MAX)
        return 0;
    return err_set(err, -EINVAL, "snapshot: \"%.*s\" cannot be a name or an id", STORE_NAME_MAX,
                   ref);
}

int store_find(struct store *st, const char *ref, struct store_found *ret, struct err *err)
{
    int rc = find_check_ref(ref, err);

    if (rc < 0)
        return rc;
    (void)pthread_mutex_lock(&st->ix_lock);
    rc = store_index_look_begin(st->ix, err);
    if (rc == 0) {
        rc = find_locked(st, ref, ret, err);
        store_index_look_end(st->ix);
    }
    (void)pthread_mutex_unlock(&st->ix_lock);
    return rc;
}

/* Names and tags are believed only if they match their digest; an id is what it is. */
static int resolve_locked(struct store *st, const char *ref, struct find_walk *ret, struct err *err)
{
    struct store_found found = {0};
    int rc;

    *ret = (struct find_walk){.ix = st->ix, .ref = ref};
    rc = find_meant(ret, err);
    if (rc < 0 || ret->rank == FIND_ID || ret->rank == FIND_PREFIX)
        return rc;
    rc = find_locked(st, ref, &found, err);
    store_found_release(&found);
    return rc;
}

static int resolve(struct store *st, const char *ref, struct find_walk *ret, struct err *err)
{
    int rc = find_check_ref(ref, err);

    if (rc < 0)
        return rc;
    (void)pthread_mutex_lock(&st->ix_lock);
    rc = store_index_look_begin(st->ix, err);
    if (rc == 0) {
        rc = resolve_locked(st, ref, ret, err);
        store_index_look_end(st->ix);
    }
    (void)pthread_mutex_unlock(&st->ix_lock);
    return rc;
}

int store_resolve(struct store *st, const char *ref, char *ret_id, struct err *err)
{
    struct find_walk w;
    int rc = resolve(st, ref, &w, err);

    if (rc == 0)
        memcpy(ret_id, w.id, sizeof(w.id));
    return rc;
}

struct newest_walk {
    const char *vm;
    char id[STORE_DIGEST_HEX + 1];
    bool found;
};

static int newest_row(void *arg, const struct store_info *info)
{
    struct newest_walk *w = arg;

    if (w->vm && strcmp(w->vm, info->rec->vm) != 0)
        return 0;
    memcpy(w->id, info->id, sizeof(info->id));
    w->found = true;
    return 0;
}

int store_newest(struct store *st, const char *vm, char *ret_id, struct err *err)
{
    struct newest_walk w = {.vm = vm};
    int rc = store_list(st, newest_row, &w, err);

    if (rc == 0 && !w.found)
        rc = err_set(err, -ENOENT, vm ? "no snapshot of VM \"%s\"" : "the store is empty", vm);
    if (rc == 0)
        memcpy(ret_id, w.id, sizeof(w.id));
    return rc;
}

/* ---- changes ---- */

static int remove_row(struct store *st, uint64_t seq, struct err *err)
{
    int rc = store_index_begin(st->ix, err);

    if (rc == 0)
        rc = store_index_del_snapshot(st->ix, seq, err);
    if (rc == 0)
        rc = store_index_commit(st->ix, err);
    else
        store_index_rollback(st->ix);
    return rc;
}

static int remove_is_busy(const char *ref, struct err *err)
{
    return err_set(err, -EBUSY, "snapshot \"%s\" is in use", ref);
}

int store_remove_check(struct store *st, const char *ref, struct err *err)
{
    struct find_walk w;
    int rc = resolve(st, ref, &w, err);

    if (rc == 0)
        rc = st->be->ops->is_locked(st->be, STORE_LOCK_SNAPSHOTS + w.seq, err);
    return rc > 0 ? remove_is_busy(ref, err) : rc;
}

int store_remove(struct store *st, const char *ref, struct err *err)
{
    struct store_lock *lock = NULL;
    struct err full = {0};
    struct find_walk w = {0};
    uint64_t seq;
    int rc = store_write_check(st, err);

    if (rc == 0)
        rc = resolve(st, ref, &w, err);
    if (rc < 0)
        return rc;
    seq = w.seq;
    rc = st->be->ops->lock(st->be, STORE_LOCK_SNAPSHOTS + seq, STORE_LOCK_EXCLUSIVE, false, &lock,
                           err);
    if (rc == -EAGAIN)
        return remove_is_busy(ref, err);
    if (rc < 0)
        return rc;
    (void)pthread_mutex_lock(&st->ix_lock);
    rc = remove_row(st, seq, &full);
    if (store_make_room(st->be, rc))
        rc = remove_row(st, seq, err);
    else if (rc == -ENOENT) /* somebody was quicker */
        rc = err_set(err, rc, "no snapshot \"%s\"", ref);
    else if (rc < 0)
        rc = err_set(err, rc, "%s", full.msg);
    (void)pthread_mutex_unlock(&st->ix_lock);
    st->be->ops->unlock(st->be, lock);
    return rc;
}

static int relabel_tags(struct store_info *info, const struct store_relabel *change,
                        struct err *err)
{
    if (change->del) {
        unsigned i = 0;

        while (i < info->nr_tags && strcmp(info->tags[i], change->del) != 0)
            i++;
        if (i == info->nr_tags)
            return err_set(err, -ENOENT, "it has no tag \"%s\"", change->del);
        info->nr_tags--;
        memmove(info->tags[i], info->tags[i + 1], (info->nr_tags - i) * sizeof(info->tags[0]));
    }
    if (!change->add)
        return 0;
    if (!store_name_is_good(change->add))
        return err_set(err, -EINVAL, "\"%.64s\" cannot be a tag", change->add);
    for (unsigned i = 0; i < info->nr_tags; i++)
        if (strcmp(info->tags[i], change->add) == 0)
            return 0;
    if (info->nr_tags == STORE_TAGS_MAX)
        return err_set(err, -E2BIG, "it has %u tags already", info->nr_tags);
    memcpy(info->tags[info->nr_tags++], change->add, strlen(change->add) + 1);
    return 0;
}

/* The name that is left in the end; NULL if it stays as it is. */
static const char *relabel_name(const struct store_relabel *changes, size_t nr)
{
    while (nr && !changes[nr - 1].name)
        nr--;
    return nr ? changes[nr - 1].name : NULL;
}

static int relabel_locked(struct store *st, const char *ref, const struct store_relabel *changes,
                          size_t nr, struct err *err)
{
    char tags[STORE_TAGS_MAX * (STORE_NAME_MAX + 1) + 1];
    struct store_snap_row row = {.name = relabel_name(changes, nr)};
    struct store_found found = {0};
    int rc = find_locked(st, ref, &found, err);

    if (rc < 0)
        return rc;
    for (size_t i = 0; i < nr && rc == 0; i++)
        rc = relabel_tags(&found.info, &changes[i], err);
    store_tags_join(&found.info, tags, sizeof(tags));
    row.seq = found.info.seq;
    row.name = row.name ? row.name : found.info.name;
    row.name = row.name[0] ? row.name : NULL;
    row.tags = tags;
    row.id.alg = STORE_ALG_SHA256;
    for (size_t i = 0; i < STORE_DIGEST_LEN; i++) {
        char two[3] = {found.info.id[2 * i], found.info.id[2 * i + 1], 0};

        row.id.b[i] = (uint8_t)strtoul(two, NULL, 16);
    }
    if (rc == 0)
        rc = store_index_set_labels(st->ix, &row, err);
    store_found_release(&found);
    return rc;
}

int store_relabel(struct store *st, const char *ref, const struct store_relabel *changes, size_t nr,
                  struct err *err)
{
    const char *name = relabel_name(changes, nr);
    struct err first = {0};
    int rc = store_write_check(st, err);

    if (rc < 0)
        return rc;
    if (name && name[0] && !store_name_is_good(name))
        return err_set(err, -EINVAL, "\"%.64s\" cannot be a name", name);
    (void)pthread_mutex_lock(&st->ix_lock);
    rc = store_index_begin(st->ix, &first);
    if (rc == 0)
        rc = relabel_locked(st, ref, changes, nr, &first);
    if (rc == 0)
        rc = store_index_commit(st->ix, &first);
    else
        store_index_rollback(st->ix);
    (void)pthread_mutex_unlock(&st->ix_lock);
    if (rc == -EEXIST)
        return err_set(err, rc, "another snapshot has the name \"%s\"", name);
    return rc < 0 ? err_set(err, rc, "%s", first.msg) : 0;
}

/* ---- figures ---- */

static int stats_pack(void *arg, uint64_t id, uint64_t len)
{
    struct store_stats *s = arg;

    (void)id;
    s->bytes_packs += len;
    return 0;
}

static int stats_file(void *arg, uint64_t id, uint64_t len)
{
    struct store_stats *s = arg;

    (void)id;
    s->bytes_others += len;
    return 0;
}

static int stats_snapshot(void *arg, const struct store_info *info)
{
    struct store_stats *s = arg;

    for (unsigned i = 0; i < info->rec->nr_regions; i++)
        s->ram_bytes += info->rec->regions[i].pages * PAGE_SIZE_4K;
    return 0;
}

static int stats_counts(struct store *st, struct store_stats *s, struct err *err)
{
    struct {
        enum store_table table;
        uint64_t *ret;
    } counts[] = {
        {STORE_TABLE_SNAPSHOTS, &s->snapshots},
        {STORE_TABLE_PACKS,     &s->packs    },
        {STORE_TABLE_SEGMENTS,  &s->segments },
        {STORE_TABLE_PAGES,     &s->pages    },
        {STORE_TABLE_OBJECTS,   &s->objects  },
    };
    int rc = 0;

    for (size_t i = 0; i < ARRAY_LEN(counts) && rc == 0; i++)
        rc = store_index_count(st->ix, counts[i].table, counts[i].ret, err);
    if (rc == 0)
        rc = store_index_bytes(st->ix, &s->bytes_index, err);
    if (rc == 0)
        rc = store_index_each_pack(st->ix, stats_pack, s, err);
    return rc;
}

int store_stats(struct store *st, struct store_stats *ret_stats, struct err *err)
{
    struct store_stats s = {.version = STORE_FORMAT_VERSION};
    int rc;

    memcpy(s.uuid, st->uuid, sizeof(s.uuid));
    (void)pthread_mutex_lock(&st->ix_lock);
    rc = stats_counts(st, &s, err);
    (void)pthread_mutex_unlock(&st->ix_lock);
    if (rc == 0)
        rc = store_list(st, stats_snapshot, &s, err);
    if (rc == 0)
        rc = st->be->ops->pack_list(st->be, stats_file, &s, err);
    if (rc < 0)
        return rc;
    s.bytes_others -= s.bytes_others > s.bytes_packs ? s.bytes_packs : s.bytes_others;
    *ret_stats = s;
    return 0;
}
