# SPDX-License-Identifier: Apache-2.0
"""Disks and stores on file systems that share blocks between files: btrfs and xfs."""

import contextlib
import ctypes
import errno
import fcntl
import filecmp
import json
import os
import pathlib
import signal
import sqlite3
import struct
import subprocess
import unittest

import lane_base
from lane_base import MIB, LaneTest, program, wait_until
from lane_guest import Guest, Line, sector
from lane_vmm import Vmm, vm_args

CLONE_NEWNS = 0x20000
MS_PRIVATE_ALL = 0x4000 | 0x40000  # MS_REC | MS_PRIVATE
FS_IOC_FIEMAP = 0xC020660B
FIEMAP_SYNC = 1
EXTENT_UNWRITTEN = 0x800
EXTENT_SHARED = 0x2000
NR_EXTENTS = 1024


def leave_mounts_of_others():
    """From here on what is mounted is only there for this process and its children, and ends with them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_PRIVATE_ALL, None):
        raise unittest.SkipTest("no mount namespace: " + os.strerror(ctypes.get_errno()))


def extents(path):
    """[(offset, offset on the device, length, whether another file has it too)] of what was written"""
    with open(path, "rb") as file:
        request = bytearray(struct.pack("<QQIIII", 0, 2 ** 64 - 1, FIEMAP_SYNC, 0, NR_EXTENTS, 0))
        request += bytes(56 * NR_EXTENTS)
        fcntl.ioctl(file.fileno(), FS_IOC_FIEMAP, request)
    found = []
    for i in range(struct.unpack_from("<I", request, 20)[0]):
        at, physical, length, _, _, flags = struct.unpack_from("<QQQQQI", request, 32 + 56 * i)
        if not flags & EXTENT_UNWRITTEN:
            found.append((at, physical, length, bool(flags & EXTENT_SHARED)))
    return found


def used(path):
    """Bytes of the file system."""
    fd = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            raise OSError(ctypes.get_errno(), "syncfs")
        stat = os.fstatvfs(fd)
        return (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    finally:
        os.close(fd)


class FileSystemTest:
    """On a file system of its own, which goes with the test.  kind, mkfs: of a subclass."""

    kind = None
    mkfs = ()
    fill_files = 0

    def setUp(self):
        super().setUp()
        lane_base.need_root()
        leave_mounts_of_others()

    def mounted(self, size, name="fs"):
        """Where a new file system is."""
        image = self.make_disk(f"{name}.fs", size)
        made = subprocess.run([lane_base.need_tool(f"mkfs.{self.kind}"), *self.mkfs, image],
                              capture_output=True, text=True, check=False)
        self.assertEqual(made.returncode, 0, made.stderr)
        there = self.dir / name
        there.mkdir()
        self.mount(image, there)
        return there

    def mount(self, image, there):
        """The loop device goes with the mount."""
        done = subprocess.run(["mount", "-t", self.kind, "-o", "loop", image, there],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.skipTest(f"no {self.kind} on a loop device: {done.stderr.strip()}")
        self.addCleanup(self.unmount, there)

    def unmount(self, there):
        if os.path.ismount(there):
            wait_until(lambda: subprocess.run(["umount", there], capture_output=True,
                                              check=False).returncode == 0, 20, f"umount {there}")

    def chsnap(self, *args, code=0, **kwargs):
        result = subprocess.run([program("chsnap"), *map(str, args)], capture_output=True,
                                timeout=120, check=False, cwd=self.short, **kwargs)
        self.assertEqual(result.returncode, code, result.stderr)
        return result.stdout if code == 0 else result.stderr.decode()

    # ---- clones

    def frozen(self, disk):
        vmm = Vmm(self, "vm", vm_args(memory="128M", disk=f"path={disk}"))
        vmm.boot()
        vmm.guest.do("fill 64 8 sparse 3")
        vmm.guest.do("blk 0 write 0 64 9")
        vmm.guest.do("blk 0 flush")
        self.chsnap("create", "--api-socket", vmm.api_path, self.dir / "store", "warm")
        vmm.kill()

    def clones(self, *args):
        """Their guests."""
        found = json.loads(self.chsnap("clone", "-j", "--dir", self.short / "c", *args,
                                       self.dir / "store", "warm"))
        for clone in found:
            self.addCleanup(self.end, clone["pid"])
        return [self.guest(clone) for clone in found]

    @staticmethod
    def end(pid):
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not pathlib.Path(f"/proc/{pid}").exists(), 20, "the end of a clone")

    def guest(self, clone):
        info = subprocess.run([program("chctl"), "--api-socket", clone["api_socket"], "info"],
                              check=True, capture_output=True, timeout=30).stdout
        line = Line(self.dir / f"{clone['pid']}.log")
        self.addCleanup(line.close)
        line.attach_socket(self.short / json.loads(info)["config"]["serial"]["socket"])
        return Guest(line)

    def disk_at(self, there):
        """48 MiB of data, 16 MiB of nothing and half a page."""
        path = there / "disk.img"
        with open(path, "wb") as disk:
            disk.write(os.urandom(48 * MIB))
            disk.truncate(64 * MIB + 512)
        return path

    def test_clones_share_their_disks_until_they_write(self):
        there = self.mounted(400 * MIB)
        disk = self.disk_at(there)
        self.frozen(disk)
        before = used(there)
        guests = self.clones("-n", 4)
        copies = sorted(there.glob("disk.img.*"))
        self.assertEqual(len(copies), 4)
        # By reference: the blocks are the same ones, and no room was taken.
        whole = extents(disk)
        self.assertTrue(all(shared for _, _, _, shared in whole), whole)
        for copy in copies:
            self.assertEqual(extents(copy), whole)
            self.assertTrue(filecmp.cmp(disk, copy, shallow=False))
        self.assertLess(used(there) - before, 8 * MIB)
        # Yet each is its own.
        for i, guest in enumerate(guests):
            guest.do("blk 0 verify 0 64 9", timeout_s=60)
            guest.do(f"blk 0 write 0 64 {20 + i}")
            guest.do("blk 0 flush")
        for i, guest in enumerate(guests):
            guest.do(f"blk 0 verify 0 64 {20 + i}")
        seeds = {9: sector(9, 0), **{20 + i: sector(20 + i, 0) for i in range(4)}}
        heads = sorted(path.read_bytes()[:512] for path in [disk, *copies])
        self.assertEqual(heads, sorted(seeds.values()))
        for copy in copies:
            shared = sum(length for _, _, length, is_shared in extents(copy) if is_shared)
            self.assertGreater(shared, 40 * MIB)
        self.assertLess(used(there) - before, 8 * MIB)

    def test_a_clone_on_another_file_system_copies_what_there_is(self):
        there = self.mounted(400 * MIB)
        disk = self.disk_at(there)
        self.frozen(disk)
        guest, = self.clones("--set", f"disks._disk0.path={self.dir}/other.img")
        other = self.dir / "other.img"
        self.assertTrue(filecmp.cmp(disk, other, shallow=False))
        self.assertFalse(any(shared for _, _, _, shared in extents(other)))
        self.assertLess(other.stat().st_blocks * 512, 52 * MIB)  # the hole is one there, too
        guest.do("blk 0 write 0 64 7")
        guest.do("blk 0 flush")
        self.assertEqual(disk.read_bytes()[:512], sector(9, 0))
        self.assertEqual(list(there.glob("disk.img.*")), [])

    def test_a_disk_is_known_again_when_it_was_mounted_anew(self):
        there = self.mounted(400 * MIB)
        disk = self.disk_at(there)
        self.frozen(disk)
        # btrfs gives out device numbers by the order of mounts.
        self.unmount(there)
        self.mounted(400 * MIB, "another")
        self.mount(self.dir / "fs.fs", there)
        back = Vmm(self, "back", ["--restore", f"source_url=store:{self.dir}/store#warm,resume=on"])
        back.wait_state("Running")
        back.attach()
        back.guest.do("blk 0 verify 0 64 9", timeout_s=60)

    def test_a_store_survives_kills_at_some_calls(self):
        crash = lane_base.BUILD / "tests" / "unit" / "test_store_crash"
        if not crash.exists():
            self.skipTest(f"{crash} is not built")
        there = self.mounted(400 * MIB)
        done = subprocess.run([crash, "*killed*"], capture_output=True, text=True, check=False,
                              timeout=300, env={**os.environ, "TMPDIR": str(there),
                                                "CHRYSALIS_TEST_STRIDE": "11"})
        self.assertEqual(done.returncode, 0, done.stdout[-4000:] + done.stderr[-4000:])
        self.assertIn("test_collector_killed_at_every_call", done.stderr + done.stdout)
        self.assertEqual(list(there.glob("chrysalis-test-*")), [])

    def stored_twice(self, there):
        """Return: a VM, and the store that has its snapshots a and b."""
        store = there / "store"
        vmm = Vmm(self, "vm", vm_args(memory="128M"))
        vmm.boot()
        for name in ("a", "b"):
            self.chsnap("create", "--api-socket", vmm.api_path, store, name)
        return vmm, store

    def test_a_full_disk_frees_itself_by_rm_and_gc(self):
        there = self.mounted(300 * MIB)
        vmm, store = self.stored_twice(there)
        vmm.guest.do("fill 32 64 random 5")
        # Somebody has the store open, so that the memory its users share is on the disk already.
        reader = sqlite3.connect(store / "store.db", isolation_level=None)
        self.addCleanup(reader.close)
        self.assertEqual(reader.execute("SELECT count(*) FROM snapshots").fetchone(), (2,))
        fill(there, self.fill_files)
        used(there)
        # The VM outlives what cannot be stored.
        self.chsnap("create", "--api-socket", vmm.api_path, store, "c", code=1)
        vmm.guest.do("fill 32 1 random 6")
        vmm.kill()
        self.chsnap("rm", store, "a")
        self.chsnap("gc", store)
        reader.close()
        for path in there.glob("filler*"):
            path.unlink()
        self.assertIn(b"1 snapshot", self.chsnap("verify", "--read-data", store))
        stream = self.chsnap("export", store, "b")
        self.chsnap("import", there / "other", input=stream)
        self.chsnap("verify", "--read-data", there / "other")



def fill(there, files):
    """To the last byte, and the last of so many files."""
    with contextlib.suppress(OSError), open(there / "filler", "wb", buffering=0) as filler:
        for step in (MIB, 4096):
            with contextlib.suppress(OSError):
                while filler.write(bytes(step)) == step:
                    pass
    with contextlib.suppress(OSError):
        for i in range(files):
            (there / f"filler{i}").touch()


def fill_metadata(there):
    """With files that are so short that they are part of their inodes; then no name can be made."""
    left = 0
    for i in range(200000):
        try:
            (there / f"filler{i}").write_bytes(bytes(2000))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            left += 1
            if left == 20:
                return
            used(there)


class BtrfsTest(FileSystemTest, LaneTest):
    kind = "btrfs"
    mkfs = ("-q",)
    # Without room for names nothing can be made there that could help, and the reserve is none.
    fill_files = 0

    def test_metadata_that_are_full_cost_nothing_that_is_there(self):
        there = self.mounted(120 * MIB)
        vmm, store = self.stored_twice(there)
        fill_metadata(there)
        vmm.guest.do("fill 32 16 random 5")
        said = self.chsnap("create", "--api-socket", vmm.api_path, store, "c", code=1)
        self.assertIn("No space left", said)
        vmm.guest.do("fill 32 1 random 6")
        vmm.kill()
        # They may have no room either, but then they say so, and have done nothing.
        for command in (("rm", store, "a"), ("gc", store)):
            done = subprocess.run([program("chsnap"), *command], capture_output=True, text=True,
                                  timeout=120, check=False)
            if done.returncode != 0:
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertRegex(done.stderr, "No space left|cannot be changed safely")
        # Who only reads needs none.
        self.assertIn(b"snapshot", self.chsnap("verify", "--read-data", store))
        stream = self.chsnap("export", store, "b")
        for path in there.glob("filler*"):
            path.unlink()
        left = json.loads(self.chsnap("list", "-j", store))
        self.assertIn("b", [s["name"] for s in left])
        self.chsnap("import", there / "other", input=stream)
        self.chsnap("rm", store, "b")
        self.chsnap("gc", store)
        self.chsnap("verify", "--read-data", store)


class XfsTest(FileSystemTest, LaneTest):
    kind = "xfs"
    mkfs = ("-q", "-m", "reflink=1")
    fill_files = 100000  # not even SQLite's log can be made then, for it takes a new inode


if __name__ == "__main__":
    lane_base.main()
