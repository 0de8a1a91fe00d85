/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chvmm/progress.h"

#include "migration/mig_progress.h"
#include "migration/mig_wire.h"
#include "tools/chvmm/json_put.h"
#include "tools/chvmm/migrate.h"

static struct json_object *phases_json(const struct mig_phases *t)
{
    struct json_object *o = json_object_new_object();
    const struct {
        const char *key;
        uint64_t ns;
    } rows[] = {
        {"connect",  t->connect },
        {"prepare",  t->prepare },
        {"rounds",   t->rounds  },
        {"pause",    t->pause   },
        {"harvest",  t->harvest },
        {"save",     t->save    },
        {"send",     t->send    },
        {"release",  t->release },
        {"commit",   t->commit  },
        {"pages",    t->pages   },
        {"load",     t->load    },
        {"acquire",  t->acquire },
        {"start",    t->start   },
        {"blackout", t->blackout},
        {"total",    t->total   },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        json_put_u64(o, rows[i].key, rows[i].ns);
    return o;
}

/* An estimate; 0 where there is no saying. */
static uint64_t estimate(uint64_t ns)
{
    return ns == UINT64_MAX ? 0 : ns;
}

/* What only a source knows of a round, and what it decided. */
static void put_verdict(struct json_object *o, const struct mig_round_log *log)
{
    json_put_u64(o, "remaining_pages", log->remaining);
    json_put_u64(o, "hot_pages", log->hot);
    json_put_u64(o, "rate_bytes_per_s", log->rate);
    json_put_u64(o, "dirty_bytes_per_s", log->dirty_rate);
    json_put_u64(o, "round_trip_ns", log->trip_ns);
    json_put_u64(o, "expected_fixed_ns", log->fixed_ns);
    json_put_u64(o, "expected_blackout_ns", estimate(log->verdict.estimate_ns));
    json_put_u64(o, "throttle_percent", log->verdict.throttle);
    json_put_text(o, "decision",
                  log->verdict.decision == MIG_DECIDE_ROUND  ? "round"
                  : log->verdict.decision == MIG_DECIDE_STOP ? "stop"
                                                             : "give up");
    json_put_text(o, "why", log->verdict.why);
}

static struct json_object *rounds_json(struct mig_progress *p, bool is_source)
{
    struct json_object *rounds = json_object_new_array();
    struct mig_round_log log[MIG_LOG_ROUNDS];
    unsigned n = mig_progress_rounds(p, log);

    for (unsigned i = 0; i < n; i++) {
        struct json_object *o = json_object_new_object();

        json_put_u64(o, "round", log[i].round);
        json_put_u64(o, "at_ns", log[i].at_ns);
        json_put_u64(o, "took_ns", log[i].took_ns);
        json_put_u64(o, "data_pages", log[i].data_pages);
        json_put_u64(o, "zero_pages", log[i].zero_pages);
        if (is_source)
            put_verdict(o, &log[i]);
        (void)json_object_array_add(rounds, o);
    }
    return rounds;
}

static struct json_object *codecs_json(const struct mig_status *s)
{
    struct json_object *o = json_object_new_object();

    json_put_u64(o, "raw", s->wire_bytes > s->zstd_bytes ? s->wire_bytes - s->zstd_bytes : 0);
    json_put_u64(o, "zstd", s->zstd_bytes);
    return o;
}

static struct json_object *lanes_json(struct mig_progress *p)
{
    struct json_object *lanes = json_object_new_array();
    uint64_t bytes[MIG_LANES_MAX];
    unsigned n = mig_progress_lane_bytes(p, bytes);

    for (unsigned i = 0; i < n; i++)
        (void)json_object_array_add(lanes, json_object_new_uint64(bytes[i]));
    return lanes;
}

/* @url: where a destination waits; NULL at a source. */
static struct json_object *one_json(struct mig_progress *p, const char *url)
{
    bool is_source = !url;
    struct json_object *o = json_object_new_object();
    struct mig_status s;

    mig_progress_read(p, &s);
    json_put_text(o, "phase", mig_phase_name(s.phase));
    json_put_text(o, "role", is_source ? "source" : "destination");
    json_put_text(o, "result", mig_result_name(s.result));
    if (url)
        json_put_text(o, "receiver_url", url);
    if (s.id[0])
        json_put_text(o, "migration", s.id);
    (void)json_object_object_add(o, "encrypted", json_object_new_boolean(s.encrypted));
    (void)json_object_object_add(o, "memory_handed_over", json_object_new_boolean(s.handed));
    json_put_u64(o, "lanes", s.lanes);
    json_put_u64(o, "round", s.round);
    json_put_u64(o, "total_bytes", s.total_bytes);
    json_put_u64(o, "round_bytes", s.round_bytes);
    json_put_u64(o, "remaining_bytes", s.remaining);
    json_put_u64(o, "data_pages", s.data_pages);
    json_put_u64(o, "zero_pages", s.zero_pages);
    json_put_u64(o, "zstd_pages", s.zstd_pages);
    json_put_u64(o, "wire_bytes", s.wire_bytes);
    (void)json_object_object_add(o, "codec_bytes", codecs_json(&s));
    (void)json_object_object_add(o, "lane_bytes", lanes_json(p));
    json_put_u64(o, "lanes_cpu_ns", s.cpu_ns);
    json_put_u64(o, "wire_bytes_per_s", s.wire_rate);
    json_put_u64(o, "rate_bytes_per_s", s.rate);
    json_put_u64(o, "dirty_bytes_per_s", s.dirty_rate);
    json_put_u64(o, "throttle_percent", s.throttle);
    json_put_u64(o, "expected_blackout_ns", estimate(s.blackout_ns));
    json_put_u64(o, "time_left_ns", s.time_left_ns);
    json_put_u64(o, "elapsed_ns", s.elapsed_ns);
    json_put_u64(o, "stopped_at_ns", s.stopped_ns);
    (void)json_object_object_add(o, "phases_ns", phases_json(&s.took));
    (void)json_object_object_add(o, "rounds", rounds_json(p, is_source));
    if (s.err.msg[0])
        json_put_text(o, "error", s.err.msg);
    return o;
}

struct json_object *vmm_progress_json(struct vmm *vmm)
{
    const char *url = NULL;
    struct mig_progress *p = vmm_progress(vmm, &url);
    struct json_object *o = p ? one_json(p, url) : json_object_new_object();

    if (!p)
        json_put_text(o, "phase", mig_phase_name(MIG_PHASE_IDLE));
    if (vmm->past_migrations)
        (void)json_object_object_add(o, "history", json_object_get(vmm->past_migrations));
    return o;
}

void vmm_progress_keep(struct vmm *vmm)
{
    const char *url = NULL;
    struct mig_progress *p = vmm_progress(vmm, &url);

    if (!p)
        return;
    if (!vmm->past_migrations)
        vmm->past_migrations = json_object_new_array();
    if (json_object_array_length(vmm->past_migrations) == PROGRESS_KEPT)
        (void)json_object_array_del_idx(vmm->past_migrations, 0, 1);
    (void)json_object_array_add(vmm->past_migrations, one_json(p, url));
}

void vmm_progress_forget(struct vmm *vmm)
{
    (void)json_object_put(vmm->past_migrations);
    vmm->past_migrations = NULL;
}
