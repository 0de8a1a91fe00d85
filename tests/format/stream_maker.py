# SPDX-License-Identifier: Apache-2.0
"""Streams for chsnap import, written from docs/store-format.md alone: snapshots without memory."""
import hashlib
import struct

PIECE = 65536


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def record(state):
    """Section 5."""
    pieces = [sha256(state[i:i + PIECE]) for i in range(0, len(state), PIECE)]
    return (b"CSNP" + bytes((1, 1, 0, 0)) + bytes(16) + struct.pack("<Q", 1) + 4 * struct.pack("<I", 0) +
            struct.pack("<I", 0) + struct.pack("<Q", len(state)) + sha256(state) + b"".join(pieces) + bytes(40))


def frame(kind, payload):
    head = bytes((kind, 0, 0, 0)) + struct.pack("<I", len(payload))
    return head + sha256(head, payload)[:16] + payload


def segment(piece, compressed=None):
    """A piece of device state, not compressed unless it is given so: section 3."""
    payload = piece if compressed is None else compressed
    codec = 0 if compressed is None else 1
    head = b"CSEG" + bytes((1, 3, codec, 1)) + struct.pack("<QIIB7x", 0, len(piece), len(payload), 1)
    return head + sha256(head, sha256(piece)) + payload


def stream(state, segments=None):
    """One snapshot, named "state": section 14."""
    head = b"CHRYSTRM" + struct.pack("<HH4x", 1, 32)
    frames = [frame(1, record(state)), frame(2, struct.pack("<I5sI", 5, b"state", 0))]
    if segments is None:
        segments = [segment(state[i:i + PIECE]) for i in range(0, len(state), PIECE)]
    frames += [frame(3, s) for s in segments]
    frames.append(frame(6, struct.pack("<Q", len(frames))))
    return head + sha256(head)[:16] + b"".join(frames)
