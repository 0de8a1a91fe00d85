# SPDX-License-Identifier: Apache-2.0
"""Looks at the memory of a guest of this host from outside."""

import hashlib
import os
import re

from lane_base import BUILD

GUEST_IMAGE_GPA = 2 << 20
PAGE = 4096


class GuestMemory:
    """
    The RAM of a VM in another process, found by the test guest's image at 2 MiB; or, for another
    guest, by the bytes that it has at an address.
    """

    def __init__(self, pid, ram_len, head=None, gpa=GUEST_IMAGE_GPA):
        self.pid = pid
        self.low_len = min(ram_len, 3 << 30)
        self.mem = open(f"/proc/{pid}/mem", "rb", buffering=0)
        if head is None:
            head = (BUILD / "tests" / "guest" / "guest.bin").read_bytes()[:4096]
        self.base = self._find(head, gpa)

    def _find(self, head, gpa):
        with open(f"/proc/{self.pid}/maps", encoding="ascii") as maps:
            for line in maps:
                match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
                start, end = (int(match.group(i), 16) for i in (1, 2)) if match else (0, 0)
                if end - start < self.low_len:
                    continue
                # Neighbouring mappings may have been merged: RAM starts at a page of this one.
                for base in {start, end - self.low_len}:
                    if self.read_at(base + gpa, len(head)) == head:
                        return base
        raise AssertionError(f"no test guest in the memory of process {self.pid}")

    def read_at(self, address, length):
        try:
            return os.pread(self.mem.fileno(), length, address)
        except OSError:
            return b""

    def read(self, gpa, length):
        return self.read_at(self.base + gpa, length)

    def page_digests(self):
        """One digest for each page below 3 GiB."""
        digests = []
        for gpa in range(0, self.low_len, 1 << 20):
            block = self.read(gpa, 1 << 20)
            digests += [hashlib.blake2b(block[i:i + PAGE], digest_size=8).digest()
                        for i in range(0, len(block), PAGE)]
        return digests

    def close(self):
        self.mem.close()


def page_digests_of(pid, ram_len):
    """GuestMemory.page_digests() of a VM of the test guest."""
    memory = GuestMemory(pid, ram_len)
    try:
        return memory.page_digests()
    finally:
        memory.close()


def differing_pages(before, after):
    """Addresses of pages that differ, and of those that only one side has."""
    pages = [i * PAGE for i, (a, b) in enumerate(zip(before, after)) if a != b]
    return pages + [i * PAGE for i in range(min(len(before), len(after)),
                                            max(len(before), len(after)))]
