# SPDX-License-Identifier: Apache-2.0
"""Looks at this host: what its KVM can run, and the memory of a guest from outside."""

import ctypes
import fcntl
import hashlib
import mmap
import os
import re
import struct

from lane_base import BUILD

KVM_CREATE_VM = 0xAE01
KVM_GET_VCPU_MMAP_SIZE = 0xAE04
KVM_CREATE_VCPU = 0xAE41
KVM_SET_TSS_ADDR = 0xAE47
KVM_RUN = 0xAE80
KVM_SET_USER_MEMORY_REGION = 0x4020AE46
KVM_GET_SREGS = 0x8138AE83
KVM_SET_SREGS = 0x4138AE84
KVM_SET_REGS = 0x4090AE82
KVM_EXIT_HLT = 5

GUEST_IMAGE_GPA = 2 << 20
PAGE = 4096


def _flat_segment(selector, kind):
    # struct kvm_segment: base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable, pad
    return struct.pack("<QIHBBBBBBBBBB", 0, 0xFFFFFFFF, selector, kind, 1, 0, 1, 1, 0, 1, 0, 0, 0)


def runs_iret():
    """
    Whether a guest can execute iret in protected mode here: a small guest tries.  False where KVM
    emulates every instruction; then stock kernels do not run directly on this host.
    """
    memory = mmap.mmap(-1, 16 * PAGE)
    # 0x1000: a GDT; 0x2000: pushf; push cs; push 0x2100; iret.  0x2100: hlt.
    memory[0x1000:0x1018] = struct.pack("<QQQ", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)
    memory[0x2000:0x2008] = bytes([0x9C, 0x0E, 0x68, 0x00, 0x21, 0x00, 0x00, 0xCF])
    memory[0x2100] = 0xF4
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fds = [os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)]
    try:
        fds.append(fcntl.ioctl(fds[0], KVM_CREATE_VM, 0))
        fcntl.ioctl(fds[1], KVM_SET_TSS_ADDR, 0x7FFBD000)
        fcntl.ioctl(fds[1], KVM_SET_USER_MEMORY_REGION,
                    struct.pack("<IIQQQ", 0, 0, 0, 16 * PAGE, address))
        fds.append(fcntl.ioctl(fds[1], KVM_CREATE_VCPU, 0))
        size = fcntl.ioctl(fds[0], KVM_GET_VCPU_MMAP_SIZE, 0)
        run = mmap.mmap(fds[2], size)
        sregs = bytearray(fcntl.ioctl(fds[2], KVM_GET_SREGS, bytes(312)))
        sregs[0:24] = _flat_segment(8, 0xB)
        for i in range(1, 6):  # ds es fs gs ss
            sregs[24 * i:24 * i + 24] = _flat_segment(16, 3)
        gdt = 24 * 8
        sregs[gdt:gdt + 16] = struct.pack("<QHHHH", 0x1000, 0x17, 0, 0, 0)
        cr0 = gdt + 32
        sregs[cr0:cr0 + 8] = struct.pack("<Q", 0x11)
        fcntl.ioctl(fds[2], KVM_SET_SREGS, bytes(sregs))
        regs = [0] * 18
        regs[6] = 0x4000  # rsp
        regs[16] = 0x2000  # rip
        regs[17] = 2
        fcntl.ioctl(fds[2], KVM_SET_REGS, struct.pack("<18Q", *regs))
        fcntl.ioctl(fds[2], KVM_RUN, 0)
        reason = struct.unpack_from("<I", run, 8)[0]
        run.close()
        return reason == KVM_EXIT_HLT
    finally:
        for fd in reversed(fds):
            os.close(fd)


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
