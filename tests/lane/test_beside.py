# SPDX-License-Identifier: Apache-2.0
"""A store that many use at once: who reads, who frees, who copies; by real programs and VMs.

Who is at work is stopped (SIGSTOP, or a pipe that nobody reads) while the others go about theirs, so that nothing
depends on who is quicker.
"""

import contextlib
import fcntl
import json
import os
import random
import signal
import sqlite3
import struct
import subprocess

import lane_base
from lane_base import MIB, LaneTest, program, wait_until
from lane_host import GuestMemory, differing_pages, page_digests_of
from lane_vmm import Background, Vmm, vm_args

RAM = 256 * MIB
STEP = 8 * MIB
FLOCK = "hhqqi4x"
WRITERS, SWEEP, SNAPSHOTS = 0, 1, 65536  # bytes of the store's lock


class BesideTest(LaneTest):
    def setUp(self):
        super().setUp()
        self.store = self.dir / "store"

    def url(self, name, store="store"):
        return f"store:{self.dir}/{store}#{name}"

    def chsnap(self, *args, code=0):
        result = subprocess.run([program("chsnap"), *map(str, args)], capture_output=True, text=True, timeout=120,
                                check=False)
        self.assertEqual(result.returncode, code, f"{args}: {result.stdout}{result.stderr}")
        return result.stdout if code == 0 else result.stderr

    def noise(self, vmm, seed, first=64 * MIB, end=RAM):
        """Bytes that do not compress, all but the last MiB of each eight."""
        memory = GuestMemory(vmm.pid, RAM)
        source = random.Random(seed)
        try:
            with open(f"/proc/{vmm.pid}/mem", "r+b", buffering=0) as out:
                for at in range(first, end, STEP):
                    os.pwrite(out.fileno(), source.randbytes(7 * MIB), memory.base + at)
        finally:
            memory.close()

    def pages(self, vmm):
        return page_digests_of(vmm.pid, RAM)

    def filled(self):
        """Snapshots "dead" and "live" of a VM; most of the pack that both need is dead once the first has gone."""
        vmm = Vmm(self, "vm", vm_args(memory=f"{RAM >> 20}M"))
        vmm.boot()
        vmm.guest.do("fill 16 4 sparse 3", timeout_s=60)
        vmm.put("vm.pause")
        self.noise(vmm, 1)
        vmm.put("vm.snapshot", {"destination_url": self.url("dead")}, timeout_s=120)
        self.noise(vmm, 2, first=RAM // 2)
        vmm.put("vm.snapshot", {"destination_url": self.url("live")}, timeout_s=120)
        pages = self.pages(vmm)
        vmm.kill()
        return pages

    def packs(self):
        return {p.name for p in (self.store / "packs").iterdir()}

    def collect(self, *options):
        """The snapshot "dead" goes, and its pack with it: what else is in there moves."""
        before = self.packs()
        self.chsnap("rm", self.store, "dead")
        self.chsnap("gc", *options, self.store)
        self.assertTrue(before - self.packs(), "nothing was rewritten")

    def seq(self, name):
        with contextlib.closing(sqlite3.connect(f"file:{self.store}/store.db?mode=ro", uri=True)) as db:
            return db.execute("SELECT seq FROM snapshots WHERE name = ?", (name,)).fetchone()[0]

    def is_locked(self, byte):
        """Whether somebody works with the store: docs/store-format.md, 8."""
        with open(self.store / "lock", "rb") as lock:
            answer = fcntl.fcntl(lock.fileno(), fcntl.F_OFD_GETLK,
                                 struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
        return struct.unpack(FLOCK, answer)[0] != fcntl.F_UNLCK

    def stop(self, process, byte):
        """Stops a process as soon as it has a lock; continues it if the test ends before that does."""
        while not self.is_locked(byte):
            self.assertIsNone(process.poll(), "it ended without a lock")
        process.send_signal(signal.SIGSTOP)
        self.addCleanup(process.send_signal, signal.SIGCONT)

    def is_in_use(self):
        """Nobody removes it, by whatever way."""
        self.assertIn("is in use", self.chsnap("rm", self.store, "live", code=1))
        self.assertIn("is in use", self.chsnap("prune", "--keep-tag", "none", self.store, code=1))
        left = json.loads(self.chsnap("list", "-j", self.store))
        self.assertEqual([s["name"] for s in left], ["live"])

    def check(self, vmm, pages):
        """But what the guest has written since, to its stack and variables."""
        self.assertLessEqual(len(differing_pages(pages, self.pages(vmm))), 20)
        vmm.attach()
        vmm.guest.do("verify", timeout_s=60)

    def goes(self):
        """It has been let go: it can be removed, and its packs with it."""
        self.chsnap("rm", self.store, "live")
        self.chsnap("gc", self.store)
        self.assertEqual(self.packs(), set())


class ReaderTest(BesideTest):
    """The pack that is read is rewritten meanwhile, and its file is gone before the reader goes on."""

    def restored(self, mode, is_over):
        """A VM that was stopped, and went on, while its memory was read."""
        pages = self.filled()
        for attempt in range(10):
            vmm = Vmm(self, f"back{attempt}", ["--restore", f"source_url={self.url('live')},memory_restore_mode={mode},"
                                               "resume=on"], wait_api=False)
            self.stop(vmm.process, SNAPSHOTS + self.seq("live"))
            if not is_over(vmm.log()):
                break
            vmm.process.send_signal(signal.SIGCONT)
            vmm.close()
        self.collect()
        self.is_in_use()
        vmm.process.send_signal(signal.SIGCONT)
        vmm.wait_state("Running")
        return vmm, pages

    def test_memory_on_demand(self):
        vmm, pages = self.restored("ondemand", lambda log: "memory is whole" in log)
        vmm.wait_event("memory-whole")
        self.check(vmm, pages)
        self.goes()

    def test_memory_that_is_copied(self):
        vmm, pages = self.restored("copy", lambda log: "memory_restore_mode" in log)
        self.check(vmm, pages)
        self.goes()

    def test_an_export(self):
        self.filled()
        stream = self.dir / "stream"
        with subprocess.Popen([program("chsnap"), "export", self.store, "live"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL) as export:
            # It has begun, and waits for whoever reads the pipe.
            head = export.stdout.read(64)
            self.collect()
            self.is_in_use()
            stream.write_bytes(head + export.stdout.read())
        self.assertEqual(export.returncode, 0)
        other = self.dir / "other"
        self.chsnap("import", "-i", stream, other)
        self.chsnap("verify", "--read-data", other)
        self.goes()

    def test_a_copy_from_it(self):
        self.filled()
        other = self.dir / "other"
        with subprocess.Popen([program("chsnap"), "copy", self.store, other, "live"], stdout=subprocess.DEVNULL) as copy:
            self.stop(copy, SNAPSHOTS + self.seq("live"))
            self.collect()
            self.is_in_use()
            copy.send_signal(signal.SIGCONT)
        self.assertEqual(copy.returncode, 0)
        self.chsnap("verify", "--read-data", other)
        self.goes()

    def test_a_verifier_is_waited_for(self):
        self.filled()
        with subprocess.Popen([program("chsnap"), "verify", "--read-data", self.store], stdout=subprocess.DEVNULL) as verify:
            self.stop(verify, WRITERS)
            self.chsnap("rm", self.store, "dead")
            before = self.packs()
            error = self.chsnap("gc", "--no-wait", self.store, code=1)
            self.assertIn("a snapshot is being written, or the store is being verified", error)
            waiting = Background(self.chsnap, "gc", self.store)
            wait_until(lambda: self.is_locked(SWEEP), 60, "the collector waits")
            self.assertFalse(waiting.is_done())
            self.assertLessEqual(before, self.packs())
            verify.send_signal(signal.SIGCONT)
        self.assertEqual(verify.returncode, 0)
        waiting.result()
        self.chsnap("verify", "--read-data", self.store)
        self.goes()


class WriterTest(BesideTest):
    def tries(self, *args):
        """What another may have removed, or reads, or brings at the same time."""
        done = subprocess.run([program("chsnap"), *args], timeout=120, check=False, capture_output=True, text=True)
        self.assertIn(done.returncode, (0, 1), done.stderr)
        if done.returncode:
            self.assertRegex(done.stderr, r"is in use|no snapshot|another snapshot has the name|is there already")

    def test_copies_both_ways_while_both_are_written_and_collected(self):
        stores = [self.dir / "store", self.dir / "other"]
        vmms = []
        for i, store in enumerate(stores):
            vmm = Vmm(self, f"vm{i}", vm_args(memory="128M"))
            vmm.boot()
            vmm.guest.do(f"fill 32 4 mix {i + 3}", timeout_s=60)
            vmm.guest.do("dirty 64 16 20 rand")
            self.chsnap("create", "--api-socket", vmm.api_path, store, f"vm{i}.0")
            vmms.append(vmm)

        def write(i):
            for n in range(1, 5):
                self.chsnap("create", "--api-socket", vmms[i].api_path, stores[i], f"vm{i}.{n}")
                self.tries("rm", stores[i], f"vm{i}.{n - 1}")

        def copy(source, target):
            for _ in range(4):
                names = [s["name"] for s in json.loads(self.chsnap("list", "-j", source)) if s["name"]]
                for name in names:
                    self.tries("copy", source, target, name)

        def collect(store):
            for _ in range(4):
                self.chsnap("gc", store)

        work = [Background(write, i) for i in range(2)]
        work += [Background(copy, *pair) for pair in (stores, stores[::-1], stores)]
        work += [Background(collect, store) for store in stores]
        for w in work:
            w.result(120)
        for store in stores:
            self.chsnap("verify", "--read-data", store)
        self.chsnap("copy", *stores)
        self.chsnap("copy", *stores[::-1])
        names = [{s["id"]: s["name"] for s in json.loads(self.chsnap("list", "-j", store))}
                 for store in stores]
        self.assertEqual(names[0].keys(), names[1].keys())
        # Of the earlier ones as many are left as were copied before they were removed.
        for last in ("vm0.4", "vm1.4"):
            self.assertIn(last, names[0].values())
        for store in stores:
            self.chsnap("gc", store)
            self.chsnap("verify", "--read-data", store)


if __name__ == "__main__":
    lane_base.main()
