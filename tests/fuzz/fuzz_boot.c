/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/fuzz_boot.h"

#include <string.h>
#include <sys/mman.h>

#include "core/gmem.h"

enum {
    RAM_BYTES = 8 << 20,
    RAM_PAGES = RAM_BYTES / 4096,
};

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* Guest memory and a file that serve every input. */
static struct gmem *machine(int *ret_fd)
{
    struct gmem_backing backing = {.fd = -1};
    static struct gmem *gm;
    static int fd = -1;

    if (!gm) {
        must(gmem_new(&gm) == 0);
        must(gmem_add_region(gm, 0, RAM_BYTES, "ram", &backing, NULL) >= 0);
        fd = memfd_create("kernel", MFD_CLOEXEC);
        must(fd >= 0);
    }
    *ret_fd = fd;
    return gm;
}

/* Every page that is not zero any more was marked; the rest is as it was. */
static void pages_check(struct gmem *gm)
{
    static uint64_t bits[(RAM_PAGES + 63) / 64];
    static const uint8_t zeroes[4096];
    const uint8_t *hva = gmem_region(gm, 0)->hva;

    memset(bits, 0, sizeof(bits));
    gmem_dirty_drain(gm, 0, bits);
    for (size_t i = 0; i < RAM_PAGES; i++) {
        if (bits[i / 64] >> (i % 64) & 1) {
            must(gmem_fill(gm, i * 4096, 0, 4096) == 0);
        } else {
            /* The whole of it now and then, its start always. */
            must(memcmp(hva + i * 4096, zeroes, i % 61 ? 64 : 4096) == 0);
        }
    }
    memset(bits, 0, sizeof(bits));
    gmem_dirty_drain(gm, 0, bits);
}

void fuzz_boot_try(fuzz_boot_loader load, const uint8_t *data, size_t len)
{
    struct x86_boot_in in = {.initramfs_fd = -1, .cmdline = "console=ttyS0"};
    struct x86_boot_entry entry = {.rip = 0};
    struct x86_boot boot;
    struct err err = {0};
    struct gmem *gm;
    int rc;

    gm = machine(&in.kernel_fd);
    must(ftruncate(in.kernel_fd, 0) == 0);
    must(pwrite(in.kernel_fd, data, len, 0) == (ssize_t)len);
    rc = x86_boot_prepare(gm, &in, &boot, &err);
    if (rc == 0)
        rc = load(&boot, &entry, &err);
    if (rc < 0)
        must(err.code == rc && err.msg[0]);
    else
        must(entry.rip >= 0x100000 && entry.rip < RAM_BYTES);
    pages_check(gm);
}
