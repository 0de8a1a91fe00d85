/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory that SQLite's processes share, store.db-shm, on a file system that writes everything
 * anew (btrfs): a page of a file that was written back needs room once more when it is changed.
 * A write() is refused where none is left; a store into mapped memory ends the process by SIGBUS,
 * and with it a VM that takes a snapshot.
 *
 * So before each transaction the pages are made writable in a way that can fail.  They stay so
 * until they are written back, which nobody asks for and the kernel does after seconds.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "store/store_index_internal.h"

enum {
    SHARED_LEN = 32768, /* of a piece of store.db-shm, as SQLite maps it: WALINDEX_PGSZ */
};

/* -ENOSPC if there is a page that cannot be written. */
static int shared_populate(struct store_index *ix, struct err *err)
{
    sqlite3_file *f = NULL;
    void volatile *piece = NULL;
    int i = 0;

    if (!ix->db ||
        sqlite3_file_control(ix->db, "main", SQLITE_FCNTL_FILE_POINTER, &f) != SQLITE_OK || !f ||
        !f->pMethods || f->pMethods->iVersion < 2)
        return 0;
    while (f->pMethods->xShmMap(f, i++, SHARED_LEN, 0, &piece) == SQLITE_OK && piece) {
        void *p;

        memcpy(&p, &piece, sizeof(p)); /* nothing is read or written here that others change */
        if (madvise(p, SHARED_LEN, MADV_POPULATE_WRITE) < 0 && errno == EFAULT)
            return err_set(err, -ENOSPC, "store.db-shm: there is no room to change it");
    }
    return 0;
}

int index_room(struct store_index *ix, struct err *err)
{
    const struct store_backend_ops *ops = ix->be->ops;

    ix->room = ops->index_room ? ops->index_room(ix->be, err) : 0;
    if (ix->room > 0)
        ix->room = shared_populate(ix, err);
    return ix->room;
}
