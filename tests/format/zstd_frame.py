# SPDX-License-Identifier: Apache-2.0
"""
One Zstandard frame, as the second readers take it: RFC 8878, 3.1.1.  Needs the program zstd, which
by itself also takes several frames, one behind the other, and frames to be skipped.
"""
import subprocess


def need(condition, what):
    if not condition:
        raise ValueError(what)


def length(data):
    """Where the frame ends that is at the beginning."""
    need(len(data) > 4 and data[:4] == b"\x28\xb5\x2f\xfd", "no Zstandard frame")
    descriptor = data[4]
    single_segment = descriptor >> 5 & 1
    # Window descriptor, dictionary id, content size.
    at = 5 + (not single_segment) + (0, 1, 2, 4)[descriptor & 3] + \
        (single_segment, 2, 4, 8)[descriptor >> 6]
    last = False
    while not last:
        need(at + 3 <= len(data), "the frame is cut")
        head = int.from_bytes(data[at:at + 3], "little")
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        at += 3 + (1 if kind == 1 else size)
    return at + (4 if descriptor & 4 else 0)


def unpack(data, wanted):
    """The wanted bytes that it holds.  Raises ValueError if it is anything else."""
    need(length(data) == len(data), "the payload is not one frame")
    run = subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=False)
    need(run.returncode == 0 and len(run.stdout) == wanted, "the frame does not hold what it should")
    return run.stdout
