/* SPDX-License-Identifier: Apache-2.0 */
#include "core/x86/image.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "core/gmem.h"

enum {
    IMAGE_CHUNK = 16 << 20, /* bytes pinned and read at a time */
};

int x86_image_init(struct x86_image *img, int fd, const char *what, struct err *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_set(err, -errno, "%s: %s", what, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(err, -EINVAL, "%s: not a regular file", what);
    if (st.st_size <= 0)
        return err_set(err, -EINVAL, "%s: the file is empty", what);
    *img = (struct x86_image){.fd = fd, .size = (uint64_t)st.st_size, .what = what};
    return 0;
}

static bool image_has(const struct x86_image *img, uint64_t off, uint64_t len)
{
    return off <= img->size && len <= img->size - off;
}

int x86_image_read(const struct x86_image *img, uint64_t off, void *dst, size_t len,
                   const char *field, struct err *err)
{
    size_t done = 0;

    if (!image_has(img, off, len)) {
        return err_set(err, -EBADMSG,
                       "%s.%s: %zu bytes at %#" PRIx64 " reach past the end of the file (%" PRIu64
                       " bytes)",
                       img->what, field, len, off, img->size);
    }
    while (done < len) {
        ssize_t n = pread(img->fd, (char *)dst + done, len - done, (off_t)(off + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, -errno, "%s.%s: %s", img->what, field, strerror(errno));
        if (n == 0)
            return err_set(err, -EBADMSG, "%s: the file shrank while it was read", img->what);
        done += (size_t)n;
    }
    return 0;
}

/* Read at most IMAGE_CHUNK bytes; returns how many came. */
static int64_t image_load_some(const struct x86_image *img, uint64_t off, uint64_t len,
                               struct gmem *gm, uint64_t gpa, struct err *err)
{
    uint64_t want = len < IMAGE_CHUNK ? len : IMAGE_CHUNK;
    struct iovec iov[GMEM_REGIONS_MAX];
    ssize_t got;
    int nr;
    int rc;

    nr = gmem_pin_write(gm, gpa, want, iov, ARRAY_LEN(iov));
    if (nr < 0) {
        return err_set(err, -EINVAL,
                       "%s: %" PRIu64 " bytes at guest address %#" PRIx64 " are not in RAM",
                       img->what, want, gpa);
    }
    do {
        got = preadv(img->fd, iov, nr, (off_t)off);
    } while (got < 0 && errno == EINTR);
    rc = got < 0 ? -errno : 0;
    gmem_unpin_write(gm, gpa, want);
    if (rc < 0)
        return err_set(err, rc, "%s: %s", img->what, strerror(-rc));
    if (got == 0)
        return err_set(err, -EBADMSG, "%s: the file shrank while it was read", img->what);
    return got;
}

int x86_image_load(const struct x86_image *img, uint64_t off, uint64_t len, struct gmem *gm,
                   uint64_t gpa, struct err *err)
{
    uint64_t done = 0;

    if (!image_has(img, off, len)) {
        return err_set(err, -EBADMSG,
                       "%s: %" PRIu64 " bytes at %#" PRIx64
                       " reach past the end of the file (%" PRIu64 " bytes)",
                       img->what, len, off, img->size);
    }
    while (done < len) {
        int64_t n = image_load_some(img, off + done, len - done, gm, gpa + done, err);

        if (n < 0)
            return (int)n;
        done += (uint64_t)n;
    }
    return 0;
}
