/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_pack.h"

static const uint8_t pack_magic[8] = {'C', 'H', 'R', 'Y', 'P', 'A', 'C', 'K'};

void store_pack_header_make(uint64_t id, const uint8_t uuid[STORE_UUID_LEN], uint8_t *ret)
{
    struct store_pack_wire w = {
        .version = le16_make(STORE_PACK_VERSION),
        .hdr_len = le16_make(STORE_PACK_HDR_LEN),
        .id = le64_make(id),
    };
    struct store_digest d;

    memcpy(w.magic, pack_magic, sizeof(w.magic));
    memcpy(w.uuid, uuid, sizeof(w.uuid));
    store_hash(&w, offsetof(struct store_pack_wire, check), &d);
    memcpy(w.check, d.b, sizeof(w.check));
    memcpy(ret, &w, sizeof(w));
}

int store_pack_header_check(const uint8_t *bytes, uint64_t id, const uint8_t uuid[STORE_UUID_LEN],
                            struct err *err)
{
    uint8_t want[STORE_PACK_HDR_LEN];
    struct store_pack_wire w;

    memcpy(&w, bytes, sizeof(w));
    if (memcmp(w.magic, pack_magic, sizeof(w.magic)) != 0)
        return err_set(err, -EBADMSG, "pack.magic: not a pack");
    if (le16_get(w.version) != STORE_PACK_VERSION)
        return err_set(err, -ENOTSUP, "pack.version: %u, this program knows %u",
                       le16_get(w.version), STORE_PACK_VERSION);
    if (le64_get(w.id) != id)
        return err_set(err, -EBADMSG, "pack.id: is another pack's");
    if (memcmp(w.uuid, uuid, sizeof(w.uuid)) != 0)
        return err_set(err, -EBADMSG, "pack.uuid: is of another store");
    store_pack_header_make(id, uuid, want);
    if (memcmp(bytes, want, sizeof(want)) != 0)
        return err_set(err, -EBADMSG, "pack.check: header does not match its digest");
    return 0;
}

int store_pack_create(struct store_backend *be, uint64_t from, const uint8_t uuid[STORE_UUID_LEN],
                      struct store_file **ret_file, struct err *err)
{
    uint8_t hdr[STORE_PACK_HDR_LEN];
    struct store_file *file = NULL;
    int rc = -EEXIST;

    for (; rc == -EEXIST && from <= STORE_PACK_ID_MAX; from++) {
        struct err why = {0};

        rc = be->ops->pack_create(be, from, &file, &why);
        if (rc < 0 && rc != -EEXIST)
            return err_set(err, rc, "%s", why.msg);
    }
    if (rc < 0)
        return err_set(err, -E2BIG, "the store has used up its pack numbers");
    store_pack_header_make(file->id, uuid, hdr);
    rc = be->ops->write(file, hdr, sizeof(hdr), 0, err);
    if (rc < 0) {
        uint64_t id = file->id;

        be->ops->close(file);
        (void)be->ops->pack_remove(be, id, NULL);
        return rc;
    }
    *ret_file = file;
    return 0;
}

int store_pack_scan(struct store_file *f, uint64_t end, store_pack_scan_fn *cb, void *arg,
                    uint64_t *ret_off, struct err *why)
{
    uint64_t off = STORE_PACK_HDR_LEN;

    while (end > off) {
        uint8_t bytes[STORE_SEGMENT_HDR_LEN];
        struct store_segment seg;
        int rc;

        if (end - off < sizeof(bytes)) {
            (void)err_set(why, -EBADMSG, "segment.magic: cut off");
            break;
        }
        rc = f->be->ops->read(f, bytes, sizeof(bytes), off, why);
        if (rc < 0)
            return rc;
        if (store_segment_parse(bytes, &seg, why) < 0)
            break;
        if (seg.stored_len > end - off - sizeof(bytes)) {
            (void)err_set(why, -EBADMSG, "segment.stored_len: cut off");
            break;
        }
        rc = cb(arg, &seg, off);
        if (rc < 0)
            return rc;
        off += sizeof(bytes) + seg.stored_len;
    }
    *ret_off = off < end ? off : end;
    return 0;
}
