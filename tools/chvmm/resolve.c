/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/chvmm/resolve.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "core/log.h"

/* --- At the destination -------------------------------------------------- */

struct resolve_memory {
    unsigned nr; /* ever */
    struct {
        uint8_t secret[MIG_SECRET_SIZE];
        enum mig_outcome outcome;
        bool may_be_asked;
    } of[RESOLVE_REMEMBERED];
};

void resolve_remember(struct vmm *vmm, const uint8_t *secret, enum mig_outcome outcome,
                      bool may_be_asked)
{
    struct resolve_memory *mem = vmm->resolve;
    char id[MIG_ID_SIZE];
    unsigned i;

    mig_id(secret, id);
    if (outcome == MIG_OUTCOME_NEVER) /* the other was said before the VM started */
        log_warn("migration %s: never: this process has not started the VM", id);
    if (!mem)
        mem = vmm->resolve = calloc(1, sizeof(*mem));
    if (!mem) {
        log_error("migration %s: out of memory: migration-resolve will not know of it", id);
        return;
    }
    i = mem->nr++ % RESOLVE_REMEMBERED;
    memcpy(mem->of[i].secret, secret, sizeof(mem->of[i].secret));
    mem->of[i].outcome = outcome;
    mem->of[i].may_be_asked = may_be_asked;
}

bool resolve_may_be_asked(const struct vmm *vmm)
{
    for (unsigned i = 0; vmm->resolve && i < RESOLVE_REMEMBERED; i++)
        if (vmm->resolve->of[i].may_be_asked)
            return true;
    return false;
}

int resolve_state(const struct vmm *vmm, const char *id, enum mig_outcome *ret_outcome,
                  char ret_text[MIG_STATEMENT_SIZE], struct err *err)
{
    const struct resolve_memory *mem = vmm->resolve;
    unsigned nr = mem ? mem->nr : 0;

    for (unsigned back = 1; back <= nr && back <= RESOLVE_REMEMBERED; back++) {
        unsigned i = (nr - back) % RESOLVE_REMEMBERED;
        char mine[MIG_ID_SIZE];

        mig_id(mem->of[i].secret, mine);
        if (id && strcmp(id, mine) != 0)
            continue;
        *ret_outcome = mem->of[i].outcome;
        mig_statement_make(mem->of[i].secret, mem->of[i].outcome, ret_text);
        return 0;
    }
    if (id)
        return err_set(err, -ENOENT, "migration: %.64s has not come to this process", id);
    return err_set(err, -ENOENT, "no migration has ended in this process, and none is undecided");
}

void resolve_forget(struct vmm *vmm)
{
    if (vmm->resolve)
        explicit_bzero(vmm->resolve, sizeof(*vmm->resolve));
    free(vmm->resolve);
    vmm->resolve = NULL;
}

/* --- Disks ---------------------------------------------------------------- */

struct stamp {
    const struct disk_config *disk; /* borrowed from the configuration */
    bool known;
    struct stat st;
};

struct disk_stamps {
    unsigned nr;
    struct stamp of[];
};

struct disk_stamps *disk_stamps_take(const struct vm_config *cfg)
{
    struct disk_stamps *s = calloc(1, sizeof(*s) + cfg->nr_disks * sizeof(s->of[0]));

    for (unsigned i = 0; s && i < cfg->nr_disks; i++) {
        struct stamp *d = &s->of[s->nr];

        if (cfg->disks[i].readonly)
            continue;
        d->disk = &cfg->disks[i];
        d->known = stat(d->disk->path, &d->st) == 0 && S_ISREG(d->st.st_mode);
        s->nr++;
    }
    return s;
}

int disk_stamps_check(const struct disk_stamps *stamps, struct err *err)
{
    if (!stamps)
        return err_set(err, -ENOMEM, "nobody has noted how the disks looked when they were let go");
    for (unsigned i = 0; i < stamps->nr; i++) {
        const struct stamp *d = &stamps->of[i];
        struct stat now;

        if (!d->known)
            continue;
        if (stat(d->disk->path, &now) < 0)
            return err_set(err, -errno, "disk %s: %s: %s", d->disk->id, d->disk->path,
                           strerror(errno));
        if (now.st_ino != d->st.st_ino || now.st_dev != d->st.st_dev ||
            now.st_size != d->st.st_size || now.st_mtim.tv_sec != d->st.st_mtim.tv_sec ||
            now.st_mtim.tv_nsec != d->st.st_mtim.tv_nsec) {
            return err_set(err, -EBUSY,
                           "disk %s (%s) was written after this VM let go of it: the VM has run "
                           "elsewhere and cannot go on here",
                           d->disk->id, d->disk->path);
        }
    }
    return 0;
}

void disk_stamps_free(struct disk_stamps *stamps)
{
    free(stamps);
}
