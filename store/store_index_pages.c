/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where pages are: a tree by digest, and beside it a list of fresh pages by
 * segment, which is read into memory whole and now and then sorted into the tree.
 */
#include <errno.h>
#include <string.h>

#include "store/store_index_internal.h"
#include "store/store_pack.h"

enum {
    FRESH_ENTRY_LEN = 1 + sizeof(struct store_digest), /* slot, digest */
    FRESH_MAX = 1 << 16,                               /* pages: 2 MiB to read, 6 MiB of memory */
    FRESH_LONG = FRESH_MAX / 2,                        /* worth sorting in when nobody waits */
    FILTER_MIN = 1 << 13,                              /* pages of a tree that is worth a filter */
    FILTER_MAX = 1 << 24, /* and read for one: seconds, at each doubling */
};

/* ---- the list ---- */

/* One row of the list: a segment and which of its slots hold which pages. */
static int fresh_take_row(struct store_index *ix, sqlite3_stmt *st, struct err *err)
{
    const uint8_t *p = sqlite3_column_blob(st, 1);
    int len = sqlite3_column_bytes(st, 1);
    uint64_t segment = 0;
    int rc = index_col_int(st, 0, STORE_SEGMENT_ID_MAX, &segment, err);

    if (rc < 0)
        return rc;
    if (sqlite3_column_type(st, 1) != SQLITE_BLOB || len == 0 || len % FRESH_ENTRY_LEN ||
        len > STORE_SEGMENT_SLOTS * FRESH_ENTRY_LEN)
        return err_set(err, -EBADMSG, "store.db: fresh.pages: impossible length");
    for (; len; len -= FRESH_ENTRY_LEN, p += FRESH_ENTRY_LEN) {
        struct store_digest d;

        memcpy(&d, p + 1, sizeof(d));
        if (p[0] >= STORE_SEGMENT_SLOTS || d.alg != STORE_ALG_SHA256)
            return err_set(err, -EBADMSG, "store.db: fresh.pages: impossible value");
        if (store_digest_map_find(&ix->fresh, &d))
            continue;
        if (store_digest_map_put(&ix->fresh, &d, store_loc_make(segment, p[0])) < 0)
            return store_no_memory(err);
    }
    return 0;
}

static int fresh_stamp(struct store_index *ix, uint64_t *ret_rows, uint64_t *ret_last,
                       struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_FRESH_STAMP, err);
    int rc = st ? index_step(ix, st, err) : index_errno(ix);

    if (rc <= 0)
        return rc;
    rc = index_col_int(st, 0, INT64_MAX, ret_rows, err);
    if (rc == 0)
        rc = index_col_int(st, 1, STORE_SEGMENT_ID_MAX, ret_last, err);
    (void)sqlite3_reset(st);
    return rc;
}

static int data_version(struct store_index *ix, uint64_t *ret_version, struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_DATA_VERSION, err);
    int rc = st ? index_step(ix, st, err) : index_errno(ix);

    if (rc <= 0)
        return rc;
    rc = index_col_int(st, 0, INT64_MAX, ret_version, err);
    (void)sqlite3_reset(st);
    return rc;
}

/* Have the list in memory as it is in the database; to look at it takes time for each of its rows. */
static int fresh_load(struct store_index *ix, struct err *err)
{
    uint64_t rows = 0, last = 0, version = 0;
    sqlite3_stmt *st;
    int rc;

    if (ix->fresh_known && ix->fresh_pinned)
        return 0;
    rc = data_version(ix, &version, err);
    if (rc < 0 || (ix->fresh_known && version == ix->fresh_version))
        return rc;
    rc = fresh_stamp(ix, &rows, &last, err);
    if (rc < 0)
        return rc;
    ix->fresh_version = version;
    if (ix->fresh_known && rows == ix->fresh_rows && last == ix->fresh_last)
        return 0;
    store_digest_map_release(&ix->fresh);
    ix->fresh_known = false;
    if (store_digest_map_reserve(&ix->fresh, rows < FRESH_MAX / STORE_SEGMENT_SLOTS
                                                 ? rows * STORE_SEGMENT_SLOTS
                                                 : FRESH_MAX) < 0)
        return store_no_memory(err);
    st = index_stmt(ix, ST_ALL_FRESH, err);
    rc = st ? 0 : index_errno(ix);
    while (rc >= 0 && (rc = index_step(ix, st, err)) > 0)
        rc = fresh_take_row(ix, st, err);
    (void)sqlite3_reset(st);
    if (rc < 0)
        return rc;
    ix->fresh_rows = rows;
    ix->fresh_last = last;
    ix->fresh_known = true;
    return 0;
}

int store_index_pin(struct store_index *ix, struct err *err)
{
    int rc;

    ix->fresh_pinned = false;
    rc = data_version(ix, &ix->pin_version, err);
    if (rc == 0)
        rc = fresh_load(ix, err);
    ix->fresh_pinned = rc == 0;
    return rc;
}

/* ---- questions ---- */

static int pages_in_tree(struct store_index *ix, uint64_t *ret_nr, struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_NR_PAGES, err);
    int rc = st ? index_step(ix, st, err) : index_errno(ix);

    if (rc == 0)
        return err_set(err, -EBADMSG, "store.db: store: has no row");
    if (rc < 0)
        return rc;
    rc = index_col_int(st, 0, INT64_MAX, ret_nr, err);
    (void)sqlite3_reset(st);
    return rc;
}

void store_index_use_filter(struct store_index *ix)
{
    uint8_t uuid[STORE_UUID_LEN];
    uint64_t last_pack, nr;

    store_filter_close(steal_ptr(ix->filter));
    if (ix->fresh_pinned && store_index_identity(ix, uuid, &last_pack, NULL) == 0 &&
        pages_in_tree(ix, &nr, NULL) == 0)
        ix->filter = store_filter_open(ix->be, uuid, nr);
}

static int page_in_tree(struct store_index *ix, const struct store_digest *d, uint64_t *ret_loc,
                        struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_PAGE, err);
    int rc;

    if (!st)
        return index_errno(ix);
    index_bind_key(st, 1, d);
    rc = index_step(ix, st, err);
    if (rc <= 0)
        return rc;
    rc = index_col_int(st, 0, INT64_MAX, ret_loc, err);
    (void)sqlite3_reset(st);
    return rc < 0 ? rc : 1;
}

int store_index_page(struct store_index *ix, const struct store_digest *d, uint64_t *ret_loc,
                     struct err *err)
{
    const uint64_t *loc;
    int rc =
        ix->filter && store_filter_lacks(ix->filter, d) ? 0 : page_in_tree(ix, d, ret_loc, err);

    if (rc != 0)
        return rc;
    rc = fresh_load(ix, err);
    if (rc < 0)
        return rc;
    loc = store_digest_map_find(&ix->fresh, d);
    if (loc)
        *ret_loc = *loc;
    return loc != NULL;
}

int store_index_nr_pages(struct store_index *ix, uint64_t *ret_nr, struct err *err)
{
    uint64_t nr = 0;
    int rc = pages_in_tree(ix, &nr, err);

    if (rc == 0)
        rc = fresh_load(ix, err);
    if (rc == 0)
        *ret_nr = nr + ix->fresh.nr;
    return rc;
}

static int each_in_tree(struct store_index *ix, store_page_row_fn *fn, void *arg, struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_ALL_PAGES, err);
    int rc = st ? 0 : index_errno(ix);

    while (rc >= 0 && (rc = index_step(ix, st, err)) > 0) {
        struct store_digest d;
        uint64_t loc = 0;

        rc = index_col_key(st, 0, &d, err);
        if (rc == 0)
            rc = index_col_int(st, 1, INT64_MAX, &loc, err);
        if (rc == 0)
            rc = fn(arg, &d, loc);
    }
    (void)sqlite3_reset(st);
    return rc;
}

int store_index_each_page(struct store_index *ix, store_page_row_fn *fn, void *arg, struct err *err)
{
    int rc = each_in_tree(ix, fn, arg, err);

    if (rc == 0)
        rc = fresh_load(ix, err);
    for (size_t i = 0; i < ix->fresh.cap && rc == 0; i++)
        if (ix->fresh.e[i].d.alg)
            rc = fn(arg, &ix->fresh.e[i].d, ix->fresh.e[i].value);
    return rc;
}

/* ---- changes ---- */

static int pages_set_nr(struct store_index *ix, uint64_t nr, struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_SET_NR_PAGES, err);

    if (!st)
        return index_errno(ix);
    index_bind_int(st, 1, nr);
    return index_run(ix, st, err);
}

static uint64_t page_prefix(const struct store_digest *d)
{
    uint64_t prefix = 0;

    for (unsigned i = 0; i < sizeof(prefix); i++)
        prefix = prefix << 8 | d->b[i];
    return prefix;
}

/* The first bytes of a digest decide but for one in 2^64; they are looked at without leaving p[]. */
static int page_compare(const void *a, const void *b)
{
    const struct store_page_at *x = a, *y = b;

    if (x->prefix != y->prefix)
        return x->prefix < y->prefix ? -1 : 1;
    return memcmp(x->d, y->d, sizeof(*x->d));
}

static int page_compare_loc(const void *a, const void *b)
{
    const struct store_page_at *x = a, *y = b;

    return x->loc < y->loc ? -1 : x->loc > y->loc;
}

/* The next rows of the tree: INDEX_ADD_PAGES, or one.  *@total grows by those that are new. */
static int pages_add_rows(struct store_index *ix, const struct store_page_at *p, size_t nr,
                          uint64_t *total, struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, nr == 1 ? ST_ADD_PAGE : ST_ADD_PAGES, err);
    int rc;

    if (!st)
        return index_errno(ix);
    for (size_t i = 0; i < nr; i++) {
        index_bind_key(st, (int)(2 * i) + 1, p[i].d);
        index_bind_int(st, (int)(2 * i) + 2, p[i].loc);
    }
    rc = index_run(ix, st, err);
    if (rc == 0)
        *total += (uint64_t)sqlite3_changes(ix->db);
    return rc;
}

/*
 * Into the tree, in its order: it is built, not shuffled.  32 rows a statement take half of the
 * time of as many statements.  @filter: of the tree; NULL if it gets none.
 */
static int pages_sort_in(struct store_index *ix, struct store_page_at *p, size_t nr,
                         struct store_filter_maker *filter, struct err *err)
{
    uint64_t total = 0;
    int rc = pages_in_tree(ix, &total, err);

    for (size_t i = 0; i < nr; i++)
        p[i].prefix = page_prefix(p[i].d);
    if (nr)
        qsort(p, nr, sizeof(*p), page_compare);
    for (size_t i = 0, n; i < nr && rc == 0; i += n) {
        n = nr - i < INDEX_ADD_PAGES ? 1 : INDEX_ADD_PAGES;
        rc = pages_add_rows(ix, p + i, n, &total, err);
    }
    for (size_t i = 0; filter && i < nr; i++)
        store_filter_put(filter, p[i].d);
    return rc < 0 ? rc : pages_set_nr(ix, total, err);
}

/* One row of the list: pages [@p, @p + @nr) lie in one segment. */
static int fresh_put_row(struct store_index *ix, const struct store_page_at *p, size_t nr,
                         struct err *err)
{
    uint8_t bytes[STORE_SEGMENT_SLOTS * FRESH_ENTRY_LEN];
    sqlite3_stmt *st = index_stmt(ix, ST_ADD_FRESH, err);

    if (!st)
        return index_errno(ix);
    for (size_t i = 0; i < nr; i++) {
        bytes[i * FRESH_ENTRY_LEN] = (uint8_t)store_loc_slot(p[i].loc);
        memcpy(bytes + i * FRESH_ENTRY_LEN + 1, p[i].d, sizeof(*p[i].d));
    }
    index_bind_int(st, 1, store_loc_segment(p->loc));
    (void)sqlite3_bind_blob(st, 2, bytes, (int)(nr * FRESH_ENTRY_LEN), SQLITE_STATIC);
    return index_run(ix, st, err);
}

static int pages_put_aside(struct store_index *ix, struct store_page_at *p, size_t nr,
                           struct err *err)
{
    size_t from = 0;
    int rc = 0;

    if (nr)
        qsort(p, nr, sizeof(*p), page_compare_loc);
    for (size_t i = 1; i <= nr && rc == 0; i++) {
        if (i < nr && store_loc_segment(p[i].loc) == store_loc_segment(p[from].loc))
            continue;
        rc = fresh_put_row(ix, p + from, i - from, err);
        from = i;
    }
    ix->fresh_known = false;
    return rc;
}

/* Leave out pages that another writer has published since this one looked for them. */
static int pages_drop_known(struct store_index *ix, struct store_page_at *p, size_t *nr,
                            struct err *err)
{
    uint64_t version = 0, loc;
    size_t kept = 0;
    int rc = data_version(ix, &version, err);

    if (rc < 0 || version == ix->pin_version)
        return rc;
    for (size_t i = 0; i < *nr; i++) {
        rc = store_index_page(ix, p[i].d, &loc, err);
        if (rc < 0)
            return rc;
        if (rc == 0)
            p[kept++] = p[i];
    }
    *nr = kept;
    return 0;
}

static int fold_into(struct store_index *ix, struct store_filter_maker *filter, struct err *err)
{
    auto_free struct store_page_at *p = NULL;
    sqlite3_stmt *st;
    size_t nr = 0;
    int rc;

    ix->fresh_pinned = false;
    rc = fresh_load(ix, err);
    if (rc < 0 || !ix->fresh.nr)
        return rc;
    p = calloc(ix->fresh.nr, sizeof(*p));
    if (!p)
        return store_no_memory(err);
    for (size_t i = 0; i < ix->fresh.cap; i++)
        if (ix->fresh.e[i].d.alg)
            p[nr++] = (struct store_page_at){.d = &ix->fresh.e[i].d, .loc = ix->fresh.e[i].value};
    rc = pages_sort_in(ix, p, nr, filter, err);
    if (rc < 0)
        return rc;
    st = index_stmt(ix, ST_DROP_FRESH, err);
    rc = st ? index_run(ix, st, err) : index_errno(ix);
    ix->fresh_known = false;
    return rc;
}

int store_index_fold(struct store_index *ix, struct err *err)
{
    return fold_into(ix, NULL, err);
}

int store_index_add_pages(struct store_index *ix, struct store_page_at *p, size_t nr,
                          struct err *err)
{
    uint64_t total = 0;
    int rc = pages_in_tree(ix, &total, err);

    ix->fresh_pinned = false;
    if (rc == 0)
        rc = fresh_load(ix, err);
    ix->fresh_pinned = true; /* nobody else can write now */
    if (rc == 0)
        rc = pages_drop_known(ix, p, &nr, err);
    if (rc < 0 || !nr)
        return rc;
    if (total && nr + ix->fresh.nr < FRESH_MAX)
        return pages_put_aside(ix, p, nr, err);
    rc = pages_sort_in(ix, p, nr, NULL, err);
    return rc < 0 ? rc : store_index_fold(ix, err);
}

int store_index_del_page(struct store_index *ix, const struct store_digest *d, struct err *err)
{
    sqlite3_stmt *st = index_stmt(ix, ST_DEL_PAGE, err);
    uint64_t total = 0;
    int rc;

    if (!st)
        return index_errno(ix);
    rc = ix->filter_forgotten ? 0 : store_filter_forget(ix->be, err);
    if (rc < 0)
        return rc;
    ix->filter_forgotten = true;
    index_bind_key(st, 1, d);
    rc = index_run(ix, st, err);
    if (rc < 0 || sqlite3_changes(ix->db) == 0)
        return rc;
    rc = pages_in_tree(ix, &total, err);
    return rc < 0 || !total ? rc : pages_set_nr(ix, total - 1, err);
}

int store_index_recount(struct store_index *ix, struct err *err)
{
    uint64_t nr = 0;
    int rc = index_scalar(ix, "SELECT count(*) FROM pages", &nr, err);

    return rc < 0 ? rc : pages_set_nr(ix, nr, err);
}

/* ---- what nobody waits for ---- */

static int fold_alone(struct store_index *ix, const uint8_t *uuid, struct err *err)
{
    struct store_filter_maker *filter = NULL;
    uint64_t nr = 0;
    int rc = store_index_begin(ix, err);

    if (rc == 0)
        rc = pages_in_tree(ix, &nr, err);
    if (rc == 0)
        rc = fresh_load(ix, err);
    if (rc == 0 && store_filter_extend(ix->be, uuid, nr, ix->fresh.nr, &filter) < 0)
        filter = NULL;
    if (rc == 0)
        rc = fold_into(ix, filter, err);
    if (rc == 0)
        rc = pages_in_tree(ix, &nr, err);
    if (rc == 0)
        rc = store_index_commit(ix, err);
    else
        store_index_rollback(ix);
    if (filter)
        (void)!store_filter_end(filter, rc == 0 ? (int64_t)nr : -1);
    return rc;
}

static int filter_take(void *arg, const struct store_digest *d, uint64_t loc)
{
    (void)loc;
    store_filter_put(arg, d);
    return 0;
}

/* A new filter of the tree as it is in one view. */
static int filter_build(struct store_index *ix, const uint8_t *uuid, uint64_t nr, struct err *err)
{
    struct store_filter_maker *filter;
    int rc = store_filter_make(ix->be, uuid, nr, &filter);

    if (rc < 0)
        return rc;
    rc = each_in_tree(ix, filter_take, filter, err);
    if (rc == 0)
        return store_filter_end(filter, (int64_t)nr);
    (void)!store_filter_end(filter, -1);
    return rc;
}

static int filter_settle(struct store_index *ix, const uint8_t *uuid, struct err *err)
{
    struct store_filter *there = NULL;
    uint64_t nr = 0;
    int rc = store_index_look_begin(ix, err);

    if (rc < 0)
        return rc;
    rc = pages_in_tree(ix, &nr, err);
    if (rc == 0 && nr >= FILTER_MIN && nr <= FILTER_MAX) {
        there = store_filter_open(ix->be, uuid, nr);
        rc = there ? 0 : filter_build(ix, uuid, nr, err);
    }
    store_filter_close(there);
    store_index_look_end(ix);
    return rc;
}

int store_index_settle(struct store_index *ix, struct err *err)
{
    uint8_t uuid[STORE_UUID_LEN];
    uint64_t rows = 0, last = 0;
    int rc = store_index_identity(ix, uuid, &last, err);

    if (rc == 0)
        rc = fresh_stamp(ix, &rows, &last, err);
    if (rc == 0 && rows >= FRESH_LONG / STORE_SEGMENT_SLOTS)
        rc = fold_alone(ix, uuid, err);
    if (rc == 0)
        rc = store_index_write_back(ix, err);
    return rc < 0 ? rc : filter_settle(ix, uuid, err);
}
