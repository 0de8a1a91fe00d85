/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compressed page data: one zstd frame for the payload of one PAGES message.
 */
#ifndef MIGRATION_MIG_CODEC_H
#define MIGRATION_MIG_CODEC_H

#include <sys/uio.h>

#include "core/err.h"

enum mig_compression {
    MIG_COMPRESSION_OFF,
    MIG_COMPRESSION_AUTO, /* where it pays */
    MIG_COMPRESSION_ZSTD, /* wherever it makes a frame smaller */
};

/* What a lane has measured; picoseconds for a byte, 0 where not known. */
struct mig_codec_stats {
    uint64_t wire_ps; /* to send a byte, whatever is in it */
    uint64_t pack_ps; /* to compress a byte */
    uint64_t kept;    /* of 1000 bytes, how many are left by compressing */
    unsigned frames;  /* since compressing was tried last */
};

/**
 * mig_codec_try() - whether to compress the next frame.
 *
 * That is where it pays by what was measured; and now and then where it was
 * not measured lately and the link is so slow that it may.
 * Threads: any.  Reads nothing but its argument.
 */
bool mig_codec_try(const struct mig_codec_stats *s);

/**
 * mig_codec_sent() - note that a frame went out.
 * @bytes: all of it; a short one tells nothing of the link.
 * @ns:    how long that took.
 *
 * Threads: any.
 */
void mig_codec_sent(struct mig_codec_stats *s, uint64_t bytes, uint64_t ns);

/**
 * mig_codec_packed() - note that bytes were compressed.
 * @left: what they became.
 *
 * Threads: any.
 */
void mig_codec_packed(struct mig_codec_stats *s, uint64_t bytes, uint64_t left, uint64_t ns);

/* Compresses or decompresses for one lane, in buffers of its own. */
struct mig_packer;

/**
 * mig_packer_new() - no buffers yet: they come with the first use, 3 MiB at most.
 *
 * Return: 0 and *@ret_c, owned; -ENOMEM.
 * Threads: any.
 */
CHECKED int mig_packer_new(struct mig_packer **ret_c);

/**
 * mig_packer_free() - free.
 * @c: taken; NULL is allowed.
 *
 * Threads: the last user.
 */
void mig_packer_free(struct mig_packer *c);

/**
 * mig_packer_pack() - compress.
 * @iov, @nr: at most MIG_PAYLOAD_MAX bytes; guest memory, which may change meanwhile.
 * @ret_data: borrowed until the next call.
 *
 * Return: bytes of the result; 0 where they would not be fewer; -ENOMEM.
 * Threads: one.
 */
CHECKED int mig_packer_pack(struct mig_packer *c, const struct iovec *iov, unsigned nr,
                            const void **ret_data);

/**
 * mig_packer_input() - where to put what is to be decompressed.
 *
 * Return: room for MIG_PAYLOAD_MAX bytes, borrowed; NULL when out of memory.
 * Threads: one.
 */
void *mig_packer_input(struct mig_packer *c);

/**
 * mig_packer_unpack() - decompress what was put at mig_packer_input().
 * @len: bytes there, from the peer.
 * @want: bytes that it must become, at most MIG_PAYLOAD_MAX.
 * @ret_data: @want bytes, borrowed until the next call.
 *
 * Return: 0; -EBADMSG if it is anything but one frame of just so many bytes; -ENOMEM.
 * Threads: one.
 */
CHECKED int mig_packer_unpack(struct mig_packer *c, size_t len, size_t want, const void **ret_data,
                              struct err *err);

#endif
