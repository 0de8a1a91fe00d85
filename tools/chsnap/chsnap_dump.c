/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chsnap dump: memory as one file, raw or as an ELF core file.
 *
 * A core file has the notes of core_notes.h and one PT_LOAD for each region, whose virtual
 * addresses are the physical ones.
 */
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/store_reader.h"
#include "tools/chsnap/chsnap.h"
#include "tools/chsnap/core_notes.h"

enum {
    DUMP_PAGES = 512,  /* read at once */
    DUMP_ALIGN = 4096, /* of what memory begins at */
    /* Said of it: none. By it crash tells a dump of QEMU's form from one of netdump's. */
    DUMP_NO_ALIGN = 0,
};

struct dump {
    struct chsnap *c;
    struct store_snapshot *snap;
    struct chsnap_file out;
    bool sparse;  /* it is a file that can have holes */
    uint64_t pos; /* bytes written or skipped */
    uint64_t done, total;
    struct chsnap_progress progress;
};

/* ---- output ---- */

static int put(struct dump *d, const void *data, size_t len)
{
    const uint8_t *p = data;

    while (len) {
        ssize_t n = d->sparse ? pwrite(d->out.fd, p, len, (off_t)d->pos) : write(d->out.fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return chsnap_error(d->c, "%s: %s", d->out.path ? d->out.path : "output",
                                n < 0 ? strerror(errno) : "takes no more");
        p += n;
        len -= (size_t)n;
        d->pos += (uint64_t)n;
    }
    return CHSNAP_OK;
}

static int put_zeroes(struct dump *d, uint64_t len)
{
    static const uint8_t zeroes[65536];
    int rc = CHSNAP_OK;

    if (d->sparse) {
        d->pos += len;
        return CHSNAP_OK;
    }
    for (; len && rc == CHSNAP_OK; len -= len < sizeof(zeroes) ? len : sizeof(zeroes))
        rc = put(d, zeroes, len < sizeof(zeroes) ? (size_t)len : sizeof(zeroes));
    return rc;
}

static void step(struct dump *d, uint64_t pages)
{
    d->done += pages * PAGE_SIZE_4K;
    chsnap_progress_step(&d->progress, d->done, d->total);
}

/* A run of pages that are not zero. */
static int put_run(struct dump *d, unsigned region, const struct store_run *run, uint8_t *buf)
{
    struct err err = {0};
    int rc = CHSNAP_OK;

    for (uint64_t at = 0; at < run->nr && rc == CHSNAP_OK; at += DUMP_PAGES) {
        uint64_t n = run->nr - at < DUMP_PAGES ? run->nr - at : DUMP_PAGES;

        if (store_snapshot_read(d->snap, region, run->first + at, n, buf, &err) < 0)
            return chsnap_error(d->c, "%s", err.msg);
        rc = put(d, buf, n * PAGE_SIZE_4K);
        step(d, n);
    }
    return rc;
}

static int put_region(struct dump *d, unsigned region)
{
    uint64_t pages = store_snapshot_info(d->snap)->rec->regions[region].pages;
    auto_free uint8_t *buf = malloc(DUMP_PAGES * PAGE_SIZE_4K);
    int rc = buf ? CHSNAP_OK : chsnap_error(d->c, "out of memory");
    uint64_t page = 0;

    while (page < pages && rc == CHSNAP_OK) {
        struct store_run run = {0};
        struct err err = {0};

        if (store_snapshot_next(d->snap, region, page, &run, &err) < 0)
            return chsnap_error(d->c, "%s", err.msg);
        if (!run.nr)
            run.first = pages;
        rc = put_zeroes(d, (run.first - page) * PAGE_SIZE_4K);
        step(d, run.first - page);
        if (rc == CHSNAP_OK)
            rc = put_run(d, region, &run, buf);
        page = run.first + run.nr;
    }
    return rc;
}

/* ---- the two forms ---- */

static int dump_raw(struct dump *d)
{
    const struct store_record *rec = store_snapshot_info(d->snap)->rec;
    int rc = CHSNAP_OK;

    for (unsigned i = 0; i < rec->nr_regions && rc == CHSNAP_OK; i++) {
        rc = put_zeroes(d, rec->regions[i].gpa - d->pos);
        if (rc == CHSNAP_OK)
            rc = put_region(d, i);
    }
    return rc;
}

static void elf_header(Elf64_Ehdr *e, unsigned nr_phdrs)
{
    *e = (Elf64_Ehdr){
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_CORE,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_phoff = sizeof(Elf64_Ehdr),
        .e_ehsize = sizeof(Elf64_Ehdr),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = (Elf64_Half)nr_phdrs,
    };
}

static int dump_elf_with(struct dump *d, const uint8_t *notes, size_t notes_len)
{
    const struct store_record *rec = store_snapshot_info(d->snap)->rec;
    Elf64_Phdr phdrs[1 + STORE_REGIONS_MAX] = {0};
    uint64_t notes_at = sizeof(Elf64_Ehdr) + (1 + rec->nr_regions) * sizeof(phdrs[0]);
    uint64_t at = (notes_at + notes_len + DUMP_ALIGN - 1) / DUMP_ALIGN * DUMP_ALIGN;
    uint64_t first = at;
    Elf64_Ehdr e;
    int rc;

    elf_header(&e, 1 + rec->nr_regions);
    phdrs[0] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = notes_at, .p_filesz = notes_len};
    for (unsigned i = 0; i < rec->nr_regions; i++) {
        uint64_t len = rec->regions[i].pages * PAGE_SIZE_4K;

        phdrs[1 + i] = (Elf64_Phdr){.p_type = PT_LOAD,
                                    .p_flags = PF_R | PF_W | PF_X,
                                    .p_offset = at,
                                    .p_vaddr = rec->regions[i].gpa,
                                    .p_paddr = rec->regions[i].gpa,
                                    .p_filesz = len,
                                    .p_memsz = len,
                                    .p_align = DUMP_NO_ALIGN};
        at += len;
    }
    rc = put(d, &e, sizeof(e));
    if (rc == CHSNAP_OK)
        rc = put(d, phdrs, (1 + rec->nr_regions) * sizeof(phdrs[0]));
    if (rc == CHSNAP_OK)
        rc = put(d, notes, notes_len);
    if (rc == CHSNAP_OK)
        rc = put_zeroes(d, first - d->pos);
    for (unsigned i = 0; i < rec->nr_regions && rc == CHSNAP_OK; i++)
        rc = put_region(d, i);
    return rc;
}

static int dump_elf(struct dump *d)
{
    auto_free uint8_t *state = NULL;
    auto_free uint8_t *notes = NULL;
    size_t len = 0, notes_len = 0;
    struct err err = {0};
    unsigned cpus;

    if (store_snapshot_state(d->snap, &state, &len, &err) < 0 ||
        core_notes_make(state, len, &notes, &notes_len, &cpus, &err) < 0)
        return chsnap_error(d->c, "%s", err.msg);
    return dump_elf_with(d, notes, notes_len);
}

/* ---- the command ---- */

static int dump_to(struct dump *d, const char *path, bool elf)
{
    const struct store_record *rec = store_snapshot_info(d->snap)->rec;
    int rc;

    chsnap_stop_state(d->c, path ? "nothing was made" : "the dump is cut off");
    rc = chsnap_file_open(d->c, &d->out, path);
    if (rc != CHSNAP_OK)
        return rc;
    d->sparse = path != NULL;
    for (unsigned i = 0; i < rec->nr_regions; i++)
        d->total += rec->regions[i].pages * PAGE_SIZE_4K;
    chsnap_progress_start(d->c, &d->progress, "dumping");
    rc = elf ? dump_elf(d) : dump_raw(d);
    chsnap_progress_clear(&d->progress);
    if (rc == CHSNAP_OK && d->sparse && ftruncate(d->out.fd, (off_t)d->pos) < 0)
        rc = chsnap_error(d->c, "%s: %m", path);
    return chsnap_file_close(d->c, &d->out, rc);
}

static int dump_run(struct chsnap *c, int argc, char **argv)
{
    static const struct option longs[] = {
        {"elf",        no_argument, NULL, 'e'},
        {"raw",        no_argument, NULL, 'r'},
        {"output",            required_argument, NULL, 'o'},
        {0},
    };
    struct dump d = {.c = c};
    const char *path = NULL, *ref = NULL;
    struct err err = {0};
    int opt, rc, form = 0;
    char **args;

    while ((opt = chsnap_getopt(c, argc, argv, "ero:", longs)) != -1) {
        if (opt == 'o')
            path = optarg;
        else if (opt != 'e' && opt != 'r')
            return chsnap_option_end(opt);
        else if (form && form != opt)
            return chsnap_usage_error(c, "--elf or --raw?");
        else
            form = opt;
    }
    args = argv + optind;
    if (!form)
        return chsnap_usage_error(c, "which form? give --elf or --raw");
    if (!path && isatty(STDOUT_FILENO))
        return chsnap_usage_error(c, "dump writes bytes: give --output, or redirect");
    rc = chsnap_open(c, STORE_RDONLY, &args);
    if (rc == CHSNAP_OK)
        rc = chsnap_one_snapshot(c, args, &ref);
    if (rc != CHSNAP_OK)
        return rc;
    if (store_snapshot_open(c->st, ref, &d.snap, &err) < 0)
        return chsnap_error(c, "%s", err.msg);
    rc = dump_to(&d, path, form == 'e');
    store_snapshot_close(d.snap);
    return rc;
}

const struct chsnap_command chsnap_dump = {
    .name = "dump",
    .summary = "write the memory of a snapshot to a file",
    .usage = "--elf|--raw [-o FILE] [STORE] SNAPSHOT",
    .help = "  -e, --elf            a core file: gdb opens it, and crash with the guest's kernel.\n"
            "                       Each vCPU is a thread with its registers; addresses are\n"
            "                       physical\n"
            "  -r, --raw            memory only; each byte is where its physical address says\n"
            "  -o, --output FILE    to this new file, with holes for zeroes; else to standard\n"
            "                       output\n"
            "\n"
            "Example:\n"
            "  chsnap dump --elf -o core /var/lib/snapshots warm && gdb vmlinux core\n",
    .run = dump_run,
};
