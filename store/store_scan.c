/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_scan.h"

#include <errno.h>
#include <string.h>

#include "store/store_map.h"
#include "store/store_pack.h"

struct scan_pack {
    uint64_t id;
    uint64_t len; /* of the file; 0: its header is bad */
};

struct store_scan {
    struct store *st;
    size_t nr_packs, cap_packs;
    struct scan_pack *packs;
    size_t nr, cap;
    struct store_extent *e;
    struct store_id_map at; /* segment: index in @e, and 1 */
    uint64_t pack;          /* that is being walked */
};

static int scan_take_segment(void *arg, const struct store_segment *seg, uint64_t off)
{
    struct store_scan *s = arg;
    void *p = array_grow(s->e, s->nr, &s->cap, sizeof(s->e[0]));

    if (!p || s->nr == UINT32_MAX - 1)
        return -ENOMEM;
    s->e = p;
    if (store_id_map_find(&s->at, seg->id))
        return 0; /* a copy that a collection left behind */
    s->e[s->nr++] = (struct store_extent){
        .id = seg->id, .pack = s->pack, .off = off, .len = STORE_SEGMENT_HDR_LEN + seg->stored_len};
    return store_id_map_or(&s->at, seg->id, (uint32_t)s->nr);
}

/* Walk one pack; what cannot be read is left out. */
static int scan_walk(struct store_scan *s, struct scan_pack *p)
{
    const struct store_backend_ops *ops = s->st->be->ops;
    uint8_t hdr[STORE_PACK_HDR_LEN];
    struct store_file *file = NULL;
    struct err why = {0};
    uint64_t len = 0, off = 0;
    int rc = ops->pack_open(s->st->be, p->id, &file, &why);

    if (rc < 0)
        return 0;
    rc = ops->read(file, hdr, sizeof(hdr), 0, &why);
    if (rc == 0)
        rc = store_pack_header_check(hdr, p->id, s->st->uuid, &why);
    if (rc == 0)
        rc = ops->size(file, &len, &why);
    s->pack = p->id;
    if (rc == 0) {
        p->len = len;
        rc = store_pack_scan(file, len, scan_take_segment, s, &off, &why);
    }
    ops->close(file);
    return rc == -ENOMEM ? rc : 0;
}

static int scan_take_pack(void *arg, uint64_t id, uint64_t len)
{
    struct store_scan *s = arg;
    void *p = array_grow(s->packs, s->nr_packs, &s->cap_packs, sizeof(s->packs[0]));

    (void)len;
    if (!p)
        return -ENOMEM;
    s->packs = p;
    s->packs[s->nr_packs++] = (struct scan_pack){.id = id};
    return 0;
}

int store_scan_new(struct store *st, struct store_scan **ret_scan, struct err *err)
{
    struct store_scan *s = calloc(1, sizeof(*s));
    int rc;

    if (!s)
        return store_no_memory(err);
    s->st = st;
    rc = st->be->ops->pack_list(st->be, scan_take_pack, s, err);
    for (size_t i = 0; i < s->nr_packs && rc == 0; i++)
        rc = scan_walk(s, &s->packs[i]);
    if (rc < 0) {
        store_scan_free(s);
        return rc == -ENOMEM ? store_no_memory(err) : rc;
    }
    *ret_scan = s;
    return 0;
}

void store_scan_free(struct store_scan *s)
{
    if (!s)
        return;
    store_id_map_release(&s->at);
    free(s->packs);
    free(s->e);
    free(s);
}

bool store_scan_find(const struct store_scan *s, uint64_t id, struct store_extent *ret)
{
    const uint32_t *i = store_id_map_find(&s->at, id);

    if (i)
        *ret = s->e[*i - 1];
    return i != NULL;
}

uint64_t store_scan_pack_len(const struct store_scan *s, uint64_t pack)
{
    for (size_t i = 0; i < s->nr_packs; i++)
        if (s->packs[i].id == pack)
            return s->packs[i].len;
    return 0;
}
