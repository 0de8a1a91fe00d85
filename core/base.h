/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compiler vocabulary shared by every folder.  Includes only libc.
 */
#ifndef CORE_BASE_H
#define CORE_BASE_H

#include <stddef.h>
#include <stdint.h>

#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#define CHECKED          __attribute__((warn_unused_result))
#define PRINTF(fmt, arg) __attribute__((format(printf, fmt, arg)))

#if defined(__clang__)
#define TSA(x) __attribute__((x))
#else
#define TSA(x)
#endif

#ifdef NDEBUG
#error "assertions are always compiled in"
#endif

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)

/* The unit of guest memory everywhere: dirty bits, page runs, store pages. */
#define PAGE_SHIFT_4K 12
#define PAGE_SIZE_4K  ((size_t)1 << PAGE_SHIFT_4K)

#define ARRAY_LEN(a)              \
    (sizeof(a) / sizeof((a)[0]) + \
     0 * sizeof(char[__builtin_types_compatible_p(__typeof__(a), __typeof__(&(a)[0])) ? -1 : 1]))

#define container_of(ptr, type, member)                           \
    ({                                                            \
        __typeof__(((type *)0)->member) *mptr_ = (ptr);           \
        (type *)(void *)((char *)mptr_ - offsetof(type, member)); \
    })

/* Locals only: released on every exit from the scope, in reverse order. */
#define auto_free  __attribute__((cleanup(auto_free_impl)))
#define auto_close __attribute__((cleanup(auto_close_impl)))

static inline void auto_free_impl(void *pp)
{
    free(*(void **)pp);
}

static inline void auto_close_impl(const int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
}

/* Move a value out of an auto_* local: returns it, leaves the local empty. */
#define steal_ptr(p)               \
    ({                             \
        __typeof__(p) *pp_ = &(p); \
        __typeof__(p) v_ = *pp_;   \
        *pp_ = NULL;               \
        v_;                        \
    })

static inline int steal_fd(int *fd)
{
    int v = *fd;

    *fd = -1;
    return v;
}

/**
 * array_grow() - room for one more element in an array that doubles.
 * @array: of @nr elements of @size bytes, with room for *@cap; NULL: none yet.
 *
 * Return: the array, which may have moved, and *@cap; NULL if there is no memory,
 * then @array is as it was.
 * Threads: any.
 */
CHECKED static inline void *array_grow(void *array, size_t nr, size_t *cap, size_t size)
{
    size_t more = *cap ? 2 * *cap : 64;
    void *p;

    if (nr < *cap)
        return array;
    p = reallocarray(array, more, size);
    if (p)
        *cap = more;
    return p;
}

#endif
