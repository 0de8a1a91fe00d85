/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of the migration protocol: docs/migration-protocol.md.
 *
 * A connection carries messages: a header of 8 bytes, then the body.  Bodies
 * come from a peer that may be hostile: every decoder checks lengths and
 * limits, and writes to its result only what it has checked.
 *
 * Threads: any.
 */
#ifndef MIGRATION_MIG_WIRE_H
#define MIGRATION_MIG_WIRE_H

#include "core/gmem.h"
#include "core/wire.h"

enum {
    MIG_VERSION_MIN = 1, /* oldest protocol spoken */
    MIG_VERSION = 1,     /* newest */

    MIG_LANES_MAX = 128,
    MIG_CAPS_MAX = 16,
    MIG_CAP_NAME_MAX = 31,             /* bytes */
    MIG_SECRET_SIZE = 32,              /* bytes */
    MIG_REASONS_MAX = 32,              /* of one REFUSE */
    MIG_REASON_MAX = ERR_MSG_SIZE - 1, /* bytes of one reason */
    MIG_SMALL_MAX = 16 << 10,          /* bytes of any body but those below */
    MIG_CONFIG_MAX = 16 << 20,         /* bytes of the configuration in CONFIG */
    MIG_STATE_CHUNK_MAX = 1 << 20,     /* bytes of one STATE */
    MIG_STATE_MAX = 256 << 20,         /* bytes of all of them */
    MIG_RUNS_MAX = 256,                /* runs of one PAGES */
    MIG_PAYLOAD_MAX = 1 << 20,         /* bytes of page data in one PAGES */
};

/* Message types.  Numbers are never reused. */
enum mig_msg {
    MIG_MSG_HELLO = 1,
    MIG_MSG_CONFIG = 2,
    MIG_MSG_READY = 3,
    MIG_MSG_REFUSE = 4,
    MIG_MSG_LANE = 5,
    MIG_MSG_PAGES = 6,
    MIG_MSG_ROUND_END = 7,
    MIG_MSG_ROUND_DONE = 8,
    MIG_MSG_STOP = 9,
    MIG_MSG_STATE = 10,
    MIG_MSG_LOADED = 11,
    MIG_MSG_COMMIT = 12,
    MIG_MSG_RUNNING = 13,
    MIG_MSG_ABORT = 14,
    MIG_MSG_KEEPALIVE = 15,
    MIG_MSG_FACTS = 16,
    MIG_MSG_MEMORY = 17,
    MIG_NR_MSGS
};

enum mig_msg_flags {
    MIG_MSG_OPTIONAL = 1 << 0, /* who does not know the type skips the message */
};

struct mig_msg_hdr {
    le16 type;
    le16 flags;
    le32 len; /* bytes of the body */
};
_Static_assert(sizeof(struct mig_msg_hdr) == 8, "docs/migration-protocol.md 2");

/* HELLO, followed by nr_caps times { u8 flags, u8 len, name }. */
struct mig_hello_hdr {
    uint8_t magic[8];
    le16 version_min;
    le16 version_max;
    le32 page_size;
    le32 lanes;
    le16 nr_caps;
    le16 reserved;
};
_Static_assert(sizeof(struct mig_hello_hdr) == 24, "docs/migration-protocol.md 3.1");

enum mig_cap_flags {
    MIG_CAP_REQUIRED = 1 << 0,
};

/* CONFIG, followed by nr_regions of struct mig_region_wire and the configuration. */
struct mig_config_hdr {
    le32 nr_regions;
    le32 config_len;
};
_Static_assert(sizeof(struct mig_config_hdr) == 8, "docs/migration-protocol.md 3.2");

struct mig_region_wire {
    le64 gpa;
    le64 len;
    char id[32]; /* NUL-padded, at least one NUL */
};
_Static_assert(sizeof(struct mig_region_wire) == 48, "docs/migration-protocol.md 3.2");

struct mig_ready_wire {
    uint8_t secret[MIG_SECRET_SIZE];
    le32 lanes;
    le32 reserved;
};
_Static_assert(sizeof(struct mig_ready_wire) == 40, "docs/migration-protocol.md 3.3");

struct mig_lane_wire {
    uint8_t secret[MIG_SECRET_SIZE];
    le32 index;
    le32 reserved;
};
_Static_assert(sizeof(struct mig_lane_wire) == 40, "docs/migration-protocol.md 3.5");

/* MEMORY: one for each region, in their order; the descriptors come with the message. */
struct mig_memory_wire {
    le64 offset; /* of the region in its file, bytes */
};
_Static_assert(sizeof(struct mig_memory_wire) == 8, "docs/migration-protocol.md 3.16");

enum mig_codec {
    MIG_CODEC_RAW = 0,
    MIG_CODEC_ZSTD = 1, /* one zstd frame; with the feature of that name only */
};

enum mig_run_kind {
    MIG_RUN_ZERO = 0, /* the pages are zero; no data */
    MIG_RUN_DATA = 1, /* the pages follow in the payload */
};

/* PAGES, followed by nr_runs of struct mig_run_wire and the payload. */
struct mig_pages_hdr {
    le32 nr_runs;
    le32 codec;
    le32 payload_len;
    le32 reserved;
};
_Static_assert(sizeof(struct mig_pages_hdr) == 16, "docs/migration-protocol.md 3.6");

struct mig_run_wire {
    le64 first; /* page of the region */
    le32 region;
    le32 nr; /* pages */
    le32 kind;
    le32 reserved;
};
_Static_assert(sizeof(struct mig_run_wire) == 24, "docs/migration-protocol.md 3.6");

enum mig_round_flags {
    MIG_ROUND_LAST = 1 << 0, /* no round follows on this lane */
};

struct mig_round_end_wire {
    le32 round;
    le32 flags;
    le64 data_pages; /* of this lane in this round */
    le64 zero_pages;
};
_Static_assert(sizeof(struct mig_round_end_wire) == 24, "docs/migration-protocol.md 3.7");

struct mig_round_done_wire {
    le32 round;
    le32 reserved;
};
_Static_assert(sizeof(struct mig_round_done_wire) == 8, "docs/migration-protocol.md 3.8");

enum mig_state_flags {
    MIG_STATE_LAST = 1 << 0,
};

/* STATE, followed by bytes of state. */
struct mig_state_hdr {
    le32 flags;
    le32 reserved;
};
_Static_assert(sizeof(struct mig_state_hdr) == 8, "docs/migration-protocol.md 3.10");

/* What the destination did while the guest stood still; in RUNNING. */
struct mig_times_wire {
    le64 pages_ns;   /* from STOP until the last page was in place */
    le64 load_ns;    /* load the state */
    le64 acquire_ns; /* take locks and taps */
    le64 start_ns;   /* start */
};
_Static_assert(sizeof(struct mig_times_wire) == 32, "docs/migration-protocol.md 3.13");

/* --- Decoded ------------------------------------------------------------- */

struct mig_cap {
    bool required;
    char name[MIG_CAP_NAME_MAX + 1];
};

struct mig_hello {
    uint16_t version_min;
    uint16_t version_max;
    uint32_t page_size;
    uint32_t lanes;
    unsigned nr_caps;
    struct mig_cap caps[MIG_CAPS_MAX];
};

/* Capabilities that we know, as a set; HELLO has their names. */
enum mig_feature {
    MIG_FEATURE_ZSTD = 1 << 0,   /* "zstd": PAGES may be compressed */
    MIG_FEATURE_MEMORY = 1 << 1, /* "memory-fds": memory is handed over, not copied */
};

/* Where the guest's memory is: equal on both ends. */
struct mig_layout {
    unsigned nr;
    struct {
        uint64_t gpa; /* bytes */
        uint64_t len; /* bytes */
        char id[sizeof(((struct mig_region_wire *)0)->id)];
    } regions[GMEM_REGIONS_MAX];
};

struct mig_config {
    struct mig_layout layout;
    const uint8_t *data; /* borrowed from the body */
    size_t len;
};

/* Reasons for which a destination refuses. */
struct mig_refusal {
    unsigned nr;
    char reasons[MIG_REASONS_MAX][MIG_REASON_MAX + 1];
};

struct mig_run {
    uint64_t first; /* page of the region */
    uint32_t region;
    uint32_t nr;
    enum mig_run_kind kind;
};

struct mig_pages {
    enum mig_codec codec;
    uint32_t payload_len;
    uint32_t data_len; /* bytes of the data runs; payload_len where the codec is raw */
    unsigned nr_runs;
    struct mig_run runs[MIG_RUNS_MAX];
};

struct mig_round_end {
    uint32_t round;
    bool last;
    uint64_t data_pages;
    uint64_t zero_pages;
};

struct mig_times {
    uint64_t pages_ns;
    uint64_t load_ns;
    uint64_t acquire_ns;
    uint64_t start_ns;
};

/**
 * mig_refuse() - add a reason; those past MIG_REASONS_MAX are dropped.
 * @why: NULL is allowed.
 *
 * Return: -ENOTSUP, so that `return mig_refuse(...)` reads.
 * Threads: any, one at a time.
 */
int mig_refuse(struct mig_refusal *why, const char *fmt, ...) PRINTF(2, 3);

/**
 * mig_msg_name() - a message's name, as in the documentation.
 *
 * Return: static; "?" for a type that there is not.
 * Threads: any.
 */
const char *mig_msg_name(unsigned type);

/**
 * mig_msg_is_known() - whether there is such a type of message in this version.
 * @type: any number.
 *
 * Threads: any.
 */
bool mig_msg_is_known(unsigned type);

/**
 * mig_hdr_is_skipped() - whether nothing is done about a message: KEEPALIVE, and what is
 * optional and not known.
 *
 * Threads: any.
 */
bool mig_hdr_is_skipped(const struct mig_msg_hdr *hdr);

/**
 * mig_hdr_make() - a message's header.
 *
 * Threads: any.
 */
struct mig_msg_hdr mig_hdr_make(enum mig_msg type, size_t len);

/**
 * mig_hdr_check() - check a message's length against its type.
 * @type: any number; one that there is not has the limit MIG_SMALL_MAX.
 *
 * Return: 0; -E2BIG; -EBADMSG where the length is too small for the type.
 * Threads: any.
 */
CHECKED int mig_hdr_check(unsigned type, uint32_t len, struct err *err);

/**
 * mig_layout_of() - the layout of a guest memory.
 *
 * Return: 0; -E2BIG if the name of a region is too long to travel.
 * Threads: any.
 */
CHECKED int mig_layout_of(const struct gmem *gm, struct mig_layout *ret_layout, struct err *err);

/**
 * mig_layout_compare() - say in words how two layouts differ.
 * @there: the source's.  @here: the destination's.
 *
 * Return: 0 if they are equal; -ENOTSUP with reasons in @why.
 * Threads: any.
 */
CHECKED int mig_layout_compare(const struct mig_layout *there, const struct mig_layout *here,
                               struct mig_refusal *why);

/**
 * mig_features_name() - name features in a HELLO, none of them required.
 * @features: bits of enum mig_feature.
 *
 * Threads: any.
 */
void mig_features_name(unsigned features, struct mig_hello *h);

/**
 * mig_features_of() - the features that a HELLO names.
 * @ret_unknown: name of one that is required and not known here; NULL: there is none.
 *
 * Return: bits of enum mig_feature.
 * Threads: any.
 */
unsigned mig_features_of(const struct mig_hello *h, const char **ret_unknown);

/* Encoders: append to w, which latches an overflow. */
void mig_hello_put(const struct mig_hello *h, struct wr *w);
void mig_layout_put(const struct mig_layout *l, size_t config_len, struct wr *w);
void mig_refusal_put(const struct mig_refusal *why, struct wr *w);
void mig_run_put(const struct mig_run *run, struct wr *w);
void mig_round_end_put(const struct mig_round_end *e, struct wr *w);
void mig_times_put(const struct mig_times *t, struct wr *w);

/*
 * Decoders of bodies: 0; -EBADMSG for bytes that break the format; -E2BIG for
 * a count over its limit; -ENOTSUP for a codec that we do not have.  Each
 * names the message and the field.  Threads: any.
 */
CHECKED int mig_hello_get(const void *body, size_t len, struct mig_hello *ret, struct err *err);
CHECKED int mig_config_get(const void *body, size_t len, struct mig_config *ret, struct err *err);
CHECKED int mig_ready_get(const void *body, size_t len, struct mig_ready_wire *ret,
                          struct err *err);
CHECKED int mig_refusal_get(const void *body, size_t len, struct mig_refusal *ret, struct err *err);
CHECKED int mig_lane_get(const void *body, size_t len, struct mig_lane_wire *ret, struct err *err);
CHECKED int mig_round_end_get(const void *body, size_t len, struct mig_round_end *ret,
                              struct err *err);
CHECKED int mig_round_done_get(const void *body, size_t len, uint32_t *ret_round, struct err *err);
CHECKED int mig_state_get(const void *body, size_t len, bool *ret_last, struct err *err);
CHECKED int mig_times_get(const void *body, size_t len, struct mig_times *ret, struct err *err);

/**
 * mig_pages_peek() - how many bytes of a PAGES body come before the payload.
 * @hdr: first bytes of the body.
 * @len: bytes of the whole body, as the message's header says.
 * @ret_runs_len: bytes of the runs.
 *
 * Return: 0; as the decoders.
 * Threads: any.
 */
CHECKED int mig_pages_peek(const struct mig_pages_hdr *hdr, uint32_t len, size_t *ret_runs_len,
                           struct err *err);

/**
 * mig_pages_get() - decode the runs of a PAGES body.
 * @hdr:  checked by mig_pages_peek().
 * @runs: its runs.
 * @layout: what the runs must lie in.
 *
 * Return: 0; as the decoders.
 * Threads: any.
 */
CHECKED int mig_pages_get(const struct mig_pages_hdr *hdr, const struct mig_run_wire *runs,
                          const struct mig_layout *layout, struct mig_pages *ret, struct err *err);

#endif
