# SPDX-License-Identifier: Apache-2.0
"""Snapshots, to a directory and to a store, and what comes back from them."""

import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import random
import signal
import struct
import subprocess
import time
import unittest

import lane_base
from lane_base import BUILD, MIB, LaneTest, program
from lane_host import GuestMemory, differing_pages, page_digests_of
from lane_vmm import Background, Vmm, vm_args

RAM = 256 * MIB
SYS_CACHESTAT = 451


def unwritten_pages(path):
    """Pages of a file that its file system has still to write."""
    with open(path, "rb") as file:
        answer = ctypes.create_string_buffer(5 * 8)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(SYS_CACHESTAT, file.fileno(), struct.pack("<QQ", 0, 0), answer, 0):
            raise unittest.SkipTest("cachestat: " + os.strerror(ctypes.get_errno()))
    _, dirty, writeback, _, _ = struct.unpack("<5Q", answer.raw)
    return dirty + writeback


class SnapshotTest(LaneTest):
    def start(self, **kwargs):
        vmm = Vmm(self, "vm", vm_args(**kwargs))
        vmm.boot()
        return vmm

    def directory(self, name="snapshot"):
        path = self.dir / name
        path.mkdir()
        return path, f"file://{path}"

    def store(self, name):
        return f"store:{self.dir}/store#{name}"

    def restore(self, url, name="restored", options=""):
        vmm = Vmm(self, name, ["--restore", f"source_url={url}{options}"])
        vmm.wait_state("Running" if "resume=on" in options else "Paused")
        return vmm

    def pages(self, vmm):
        return page_digests_of(vmm.pid, RAM)

    def busy_guest(self, vmm):
        guest = vmm.guest
        guest.do("fill 100 2 mix 3", timeout_s=120)
        guest.do("fill 110 16 sparse 4")
        guest.do("cmos 0x40 0x77")
        guest.do("dirty 64 16 20 rand")
        guest.do("heartbeat 5000 deadline")
        vmm.line.run(0.5)

    def check_guest(self, vmm):
        """The guest goes on where it was."""
        guest = vmm.guest
        vmm.line.wait_beats(20)
        guest.do("heartbeat off")
        self.assertEqual(guest.do("dirty stat")["running"], "1")
        guest.do("dirty stop")
        guest.do("dirty check")
        guest.do("verify", timeout_s=120)
        self.assertEqual(guest.do("cmos 0x40").text, "0x77")
        guest.do("pci")
        guest.do("rng 16")

    def same_pages(self, before, after, guest_info, genid):
        """But the two that differ rightly: kvmclock, written by KVM, and the generation id."""
        other = {guest_info.number("kvmclock") & ~0xFFF, genid & ~0xFFF}
        self.assertEqual([p for p in differing_pages(before, after) if p not in other], [])

    def comes_back(self, url, restore_options="", cpus=1):
        disk = self.make_disk("disk.img", 32 * MIB)
        vmm = self.start(disk=f"path={disk}", cpus=cpus)
        self.busy_guest(vmm)
        vmm.guest.do("blk 0 run 0 8192")
        vmm.line.run(0.5)
        info, genid = vmm.guest.do("info"), vmm.guest.do("genid").number("addr")
        vmm.put("vm.pause")
        before = self.pages(vmm)
        config = vmm.info()["config"]
        vmm.put("vm.snapshot", {"destination_url": url})
        self.assertEqual(differing_pages(before, self.pages(vmm)), [])
        vmm.kill()

        restored = self.restore(url, options=restore_options)
        self.assertEqual(restored.state(), "Paused")
        self.assertEqual(restored.info()["config"]["disks"], config["disks"])
        restored.wait_event("memory-whole")
        self.same_pages(before, self.pages(restored), info, genid)
        restored.serial = "socket"
        restored.attach()
        restored.put("vm.resume")
        self.check_guest(restored)
        restored.guest.do("blk 0 stop")
        restored.guest.do("blk 0 check", timeout_s=60)
        return restored

    def test_a_directory_holds_a_running_vm(self):
        self.comes_back(self.directory()[1])

    def test_a_store_holds_a_running_vm(self):
        self.comes_back(self.store("one"))

    def test_a_path_by_itself_is_a_store(self):
        vmm = self.start()
        info, genid = vmm.guest.do("info"), vmm.guest.do("genid").number("addr")
        store = self.dir / "a#b"  # '#' has no meaning in it
        for text in ("one", "two"):
            vmm.guest.do(f"echo {text}")
            vmm.put("vm.pause")
            vmm.put("vm.snapshot", {"destination_url": str(store)})
            pages = self.pages(vmm)
            vmm.put("vm.resume")
        listing = subprocess.run([program("chsnap"), "list", "--json", "--store", str(store)], check=True,
                                 capture_output=True, text=True, timeout=60)
        self.assertEqual([s["name"] for s in json.loads(listing.stdout)], ["", ""])
        vmm.kill()
        restored = self.restore(str(store), options=",memory_restore_mode=copy")
        self.same_pages(pages, self.pages(restored), info, genid)  # of the newest

    def test_processors_come_back(self):
        vmm = self.start(cpus=3)
        guest = vmm.guest
        guest.do("smp start")
        guest.do("smp dirty 64 2")
        time.sleep(0.3)
        vmm.put("vm.pause")
        vmm.put("vm.snapshot", {"destination_url": self.store("smp")})
        vmm.kill()
        restored = self.restore(self.store("smp"), options=",resume=on")
        restored.attach()
        restored.line.run(0.5)
        restored.guest.do("smp stop", timeout_s=60)
        restored.guest.do("smp check")
        # Idle processors, too, wake up in the restored VM.
        restored.guest.do("smp count")
        restored.guest.do("smp stop")

    def test_the_original_goes_on(self):
        vmm = self.start()
        self.busy_guest(vmm)
        vmm.put("vm.pause")
        vmm.put("vm.snapshot", {"destination_url": self.store("s")})
        vmm.put("vm.resume")
        self.check_guest(vmm)

    def noise(self, vmm):
        """Memory that takes its time to be stored: bytes that do not compress."""
        memory = GuestMemory(vmm.pid, RAM)
        base = memory.base
        memory.close()
        with open(f"/proc/{vmm.pid}/mem", "r+b", buffering=0) as out:
            for at in range(136 * MIB, RAM, MIB):
                os.pwrite(out.fileno(), os.urandom(MIB), base + at)

    def test_a_running_vm_stands_still_for_a_moment_only(self):
        """Its heart beats while the memory goes to the store, by whatever way."""
        vmm = self.start()
        self.busy_guest(vmm)
        for mode in ("Rounds", "Moment"):
            self.noise(vmm)
            jitter = lane_base.Jitter()
            self.addCleanup(jitter.stop)
            begin, copying = time.monotonic(), []
            taking = Background(vmm.put, "vm.snapshot",
                                {"destination_url": self.store(mode), "mode": mode})
            while not taking.is_done():
                if vmm.get("vm.snapshot-progress")["phase"] == "copy":
                    copying.append(time.monotonic())
                vmm.line.pump(0.001)
            taking.result()
            vmm.line.run(0.5)
            progress = vmm.get("vm.snapshot-progress")
            beats = sum(copying[0] < beat < copying[-1] for beat in vmm.line.beats)
            pause, took = (progress[key] / 1e9 for key in ("pause_ns", "elapsed_ns"))
            print(f"\n{mode}: {beats} heartbeats in {copying[-1] - copying[0]:.3f} s of copying; "
                  f"{pause * 1000:.1f} ms of {took * 1000:.0f} ms paused, longest gap "
                  f"{vmm.line.longest_gap_s(begin) * 1000:.0f} ms")
            self.assertGreater(beats, 10)
            self.assertLess(pause, took / 4 + jitter.worst_s(begin))
            jitter.stop()
        self.assertEqual(vmm.state(), "Running")
        self.check_guest(vmm)

    def test_disks_are_durable_before_a_snapshot_is(self):
        """All of them, though the guest has flushed none."""
        disks = [self.make_disk(f"disk{i}.img", 8 * MIB) for i in range(2)]
        vmm = self.start(disk=[f"path={disk}" for disk in disks])
        for mode in ("Rounds", "Moment"):
            def write():
                for i in range(len(disks)):
                    vmm.guest.do(f"blk {i} write 0 64 9")
                return all(map(unwritten_pages, disks))  # the kernel may be quicker
            lane_base.wait_until(write, 20, "what is not written yet")
            vmm.put("vm.snapshot", {"destination_url": self.store(mode), "mode": mode})
            self.assertEqual([unwritten_pages(disk) for disk in disks], [0, 0])

    def logged_chain(self, mode):
        """Snapshots of which each looks at nothing but what was logged since the one before."""
        disk = self.make_disk("disk.img", 32 * MIB)
        vmm = self.start(disk=f"path={disk}")
        self.busy_guest(vmm)
        vmm.guest.do("blk 0 run 0 8192")
        for i in range(4):
            vmm.line.run(0.3)
            vmm.put("vm.snapshot", {"destination_url": self.store(f"{mode}-{i}"), "mode": mode,
                                    "track": True})
        vmm.line.run(0.3)
        info, genid = vmm.guest.do("info"), vmm.guest.do("genid").number("addr")
        vmm.put("vm.pause")
        before = self.pages(vmm)
        for name in ("last", "idle"):
            vmm.put("vm.snapshot", {"destination_url": self.store(f"{mode}-{name}"), "mode": mode,
                                    "track": True})
        # Nothing was written between the two: nothing but the pages of the state was looked at.
        self.assertLess(vmm.get("vm.snapshot-progress")["pages_done"], 64)
        vmm.kill()
        # All memory is to be looked at from outside: it has to be there.
        restored = self.restore(self.store(f"{mode}-last"), options=",memory_restore_mode=copy,changed_disks=on")
        self.same_pages(before, self.pages(restored), info, genid)
        restored.kill()
        running = self.restore(self.store(f"{mode}-3"), f"{mode}-running",
                               ",resume=on,changed_disks=on")
        running.serial = "socket"
        running.attach()
        self.check_guest(running)

    def test_what_was_logged_is_all_that_changed(self):
        self.logged_chain("Rounds")

    def test_what_was_logged_is_all_that_changed_at_a_moment(self):
        self.logged_chain("Moment")

    def test_the_store_lists_and_verifies(self):
        vmm = self.start()
        names = ("first", "second")
        for i, name in enumerate(names):
            vmm.guest.do(f"fill {100 + 8 * i} 4 sparse {i + 1}")
            vmm.put("vm.pause")
            vmm.put("vm.snapshot", {"destination_url": self.store(name)})
            vmm.put("vm.resume")

        def chsnap(*args):
            return subprocess.run([program("chsnap"), *args], capture_output=True, text=True,
                                  timeout=60, check=False)

        store = str(self.dir / "store")
        listing = chsnap("list", store)
        self.assertEqual(listing.returncode, 0, listing.stderr)
        for name in names:
            self.assertIn(name, listing.stdout)
        # What the VM says of the last one is what the store has: nodes and state are stored at the very end.
        first, last = json.loads(chsnap("list", "--json", store).stdout)
        self.assertEqual(last["parent"], first["id"])  # nobody named it
        self.assertLess(last["stored_bytes"], first["stored_bytes"])
        progress = vmm.get("vm.snapshot-progress")
        self.assertEqual((progress["id"], progress["bytes_stored"]), (last["id"], last["stored_bytes"]))
        verify = chsnap("verify", store)
        self.assertEqual(verify.returncode, 0, verify.stderr)

    def test_two_vms_share_a_store_at_the_same_time(self):
        vmms = [Vmm(self, f"vm{i}", vm_args()) for i in range(2)]
        for i, vmm in enumerate(vmms):
            vmm.boot()
            vmm.guest.do(f"fill 110 32 sparse {7 + i}", timeout_s=120)
            vmm.guest.do("dirty 64 16 20 rand")
        for turn in range(3):
            calls = [Background(vmm.put, "vm.snapshot",
                                {"destination_url": self.store(f"vm{i}-{turn}")})
                     for i, vmm in enumerate(vmms)]
            for call in calls:
                call.result()
        for vmm in vmms:
            vmm.kill()
        verify = subprocess.run([program("chsnap"), "verify", "--read-data",
                                 str(self.dir / "store")], capture_output=True, text=True,
                                timeout=60, check=False)
        self.assertEqual(verify.returncode, 0, verify.stderr)
        for i in range(2):
            back = self.restore(self.store(f"vm{i}-2"), f"back{i}", ",resume=on")
            back.attach()
            back.guest.do("dirty stop")
            back.guest.do("dirty check")
            back.guest.do("verify", timeout_s=120)

    def test_a_snapshot_can_be_watched_and_given_up(self):
        vmm = self.start()
        self.assertEqual(vmm.get("vm.snapshot-progress"), {"phase": "idle"})
        memory = GuestMemory(vmm.pid, RAM)
        base = memory.base
        memory.close()
        with open(f"/proc/{vmm.pid}/mem", "r+b", buffering=0) as out:
            for at in range(96 * MIB, RAM, MIB):
                os.pwrite(out.fileno(), os.urandom(MIB), base + at)
        self.busy_guest(vmm)
        store = self.dir / "store"
        with subprocess.Popen([program("chsnap"), "create", "--api-socket", str(vmm.api_path),
                               str(store), "never"], stderr=subprocess.PIPE,
                              text=True) as create:
            lane_base.wait_until(
                lambda: vmm.get("vm.snapshot-progress").get("pages_done", 0) > 1000, 30,
                "some pages to be stored")
            create.send_signal(signal.SIGINT)
            self.assertEqual(create.wait(30), -signal.SIGINT)
            self.assertEqual(create.stderr.read(), "chsnap: stopped by SIGINT: the VM goes on, "
                                                   "no snapshot was stored\n")
        progress = vmm.get("vm.snapshot-progress")
        self.assertEqual((progress["phase"], progress["result"]), ("done", "cancelled"))
        self.assertEqual(vmm.state(), "Running")
        self.assertFalse(store.exists())  # it was made for that snapshot
        self.assertTrue(vmm.refused("vm.snapshot-cancel", None).names("no snapshot"))
        # The next one is none the worse for it.
        vmm.put("vm.snapshot", {"destination_url": self.store("whole")})
        progress = vmm.get("vm.snapshot-progress")
        self.assertEqual(progress["result"], "completed")
        self.assertEqual(progress["pages_done"], RAM // 4096)
        self.check_guest(vmm)

    def has_open(self, vmm, path):
        """Whether chvmm has a file open."""
        for fd in pathlib.Path(f"/proc/{vmm.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(fd) == str(path):
                    return True
        return False

    def test_the_answer_does_not_wait_for_the_store_to_be_closed(self):
        hold = BUILD / "tests" / "lane" / "hold_close.so"
        if not hold.exists():
            self.skipTest("nothing holds a close up in this build")
        database = self.dir / "store" / "store.db"
        fifo = database.with_name("store.db.hold")
        vmm = Vmm(self, "vm", vm_args(), prefix=("env", f"LD_PRELOAD={hold}", f"HOLD_CLOSE={database}"))
        vmm.boot()
        vmm.put("vm.snapshot", {"destination_url": self.store("first")})
        lane_base.wait_until(lambda: not self.has_open(vmm, database), 30, "the store to be closed")
        os.mkfifo(fifo)
        vmm.put("vm.snapshot", {"destination_url": self.store("second")})
        self.assertTrue(self.has_open(vmm, database))
        # It is durable, and the VM is its own again.
        self.assertEqual(vmm.get("vm.snapshot-progress")["result"], "completed")
        listed = json.loads(subprocess.run([program("chsnap"), "list", "-j", self.dir / "store"], check=True,
                                           capture_output=True, timeout=60).stdout)
        self.assertEqual([s["name"] for s in listed], ["first", "second"])
        vmm.put("vm.pause")
        vmm.put("vm.resume")
        # The next one waits for the close, not for another request.
        third = Background(vmm.put, "vm.snapshot", {"destination_url": self.store("third")})
        lane_base.wait_until(lambda: vmm.get("vm.snapshot-progress")["result"] == "none", 30, "the third snapshot")
        self.assertTrue(self.has_open(vmm, database))
        self.addCleanup(os.close, os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))
        fifo.unlink()
        third.result(60)
        self.assertEqual(vmm.get("vm.snapshot-progress")["result"], "completed")
        lane_base.wait_until(lambda: not self.has_open(vmm, database), 30, "the store to be closed")

    def packs(self):
        return {p.name: p.stat().st_size for p in (self.dir / "store" / "packs").iterdir()}

    def test_at_any_moment_it_can_be_given_up(self):
        """Or was done: then it is there.  If not, the store is as it was."""
        vmm = self.start()
        self.busy_guest(vmm)
        self.noise(vmm)
        chance = random.Random(5)
        names, cancelled = ["first"], 0
        begin = time.monotonic()
        vmm.put("vm.snapshot", {"destination_url": self.store("first")})
        took = time.monotonic() - begin
        before = self.packs()
        for i in range(12):
            name, mode = f"s{i}", ("Rounds", "Moment")[i % 2]
            self.noise(vmm)
            taking = Background(vmm.call, "PUT", "vm.snapshot",
                                {"destination_url": self.store(name), "mode": mode, "track": i % 4 > 1})
            vmm.line.run(chance.random() * took)
            vmm.call("PUT", "vm.snapshot-cancel")
            if taking.result(60)[0] < 300:
                names.append(name)
                before = self.packs()
            else:
                cancelled += 1
                self.assertEqual(vmm.get("vm.snapshot-progress")["result"], "cancelled")
                self.assertEqual(self.packs(), before)
            self.assertEqual(vmm.state(), "Running")
        self.assertGreater(cancelled, 0)
        listing = subprocess.run([program("chsnap"), "list", "--json", self.dir / "store"], check=True,
                                 capture_output=True, text=True, timeout=60)
        self.assertEqual([s["name"] for s in json.loads(listing.stdout)], names)
        subprocess.run([program("chsnap"), "verify", "--read-data", self.dir / "store"], check=True,
                       stdout=subprocess.DEVNULL, timeout=60)
        self.check_guest(vmm)

    def locked_store(self):
        """A store with a snapshot, whose collector seems to be at work until the file is closed."""
        vmm = self.start()
        vmm.put("vm.snapshot", {"destination_url": self.store("parent"), "track": True})
        lock = open(self.dir / "store" / "lock", "r+b", buffering=0)
        self.addCleanup(lock.close)
        # F_OFD_SETLK; struct flock: type, whence, start, len, pid.
        fcntl.fcntl(lock, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
        request = Background(vmm.call, "PUT", "vm.snapshot",
                             {"destination_url": self.store("child")})
        lane_base.wait_until(lambda: vmm.get("vm.snapshot-progress")["phase"] == "open", 10,
                             "a snapshot that waits")
        time.sleep(0.1)
        self.assertFalse(request.is_done())
        return vmm, lock, request

    def test_a_parent_may_go_while_a_collection_is_waited_for(self):
        vmm, lock, request = self.locked_store()
        subprocess.run([program("chsnap"), "rm", str(self.dir / "store"), "parent"], check=True,
                       stdout=subprocess.DEVNULL, timeout=60)
        lock.close()
        self.assertEqual(request.result(60), (204, None))
        vmm.kill()
        restored = self.restore(self.store("child"), options=",resume=on")
        restored.attach()
        restored.guest.do("echo still")

    def test_a_wait_for_a_collection_can_be_given_up(self):
        vmm, _, request = self.locked_store()
        self.assertLess(vmm.get("vm.snapshot-progress")["elapsed_ns"], 60e9)
        vmm.put("vm.snapshot-cancel")
        status, chain = request.result(20)
        self.assertEqual((status, chain[-1]), (500, "cancelled"))
        self.assertEqual(vmm.state(), "Running")

    def test_a_directory_takes_one_snapshot_of_many_at_once(self):
        path, url = self.directory()
        vmms = []
        for name in ("one", "two", "three"):
            vmms.append(Vmm(self, name, vm_args()))
            vmms[-1].boot()
        requests = [Background(v.call, "PUT", "vm.snapshot", {"destination_url": url})
                    for v in vmms]
        answers = sorted(r.result(60)[0] for r in requests)
        self.assertEqual(answers, [204, 500, 500])
        listing = subprocess.run([program("chsnap"), "list", "--json", str(path)], check=True,
                                 capture_output=True, text=True, timeout=60)
        self.assertEqual(len(json.loads(listing.stdout)), 1)

    def test_a_store_that_can_only_be_read_brings_a_vm_back(self):
        vmm = self.start(memory="256M")
        vmm.guest.do("fill 100 8 mix 3", timeout_s=60)
        vmm.put("vm.pause")
        vmm.put("vm.snapshot", {"destination_url": self.store("warm")})
        store = self.dir / "store"
        lane_base.wait_until(lambda: not (store / "store.db-wal").exists(), 20,
                             "a store that is closed")
        vmm.kill()
        before = sorted(p.name for p in store.rglob("*"))
        for path in (store, store / "packs", store / "cache", store / "store.db"):
            path.chmod(0o500)
            self.addCleanup(path.chmod, 0o700)
        # Root without these is a user like any other.
        weak = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] * (os.geteuid() == 0)
        for mode in ("auto", "copy", "ondemand"):
            back = Vmm(self, f"back-{mode}", prefix=weak,
                       args=["--restore", f"source_url={self.store('warm')},resume=on,"
                                          f"memory_restore_mode={mode}"])
            back.wait_state("Running")
            back.attach()
            back.guest.do("verify", timeout_s=60)
            self.assertEqual(sorted(p.name for p in store.rglob("*")), before)
            back.kill()
        refused = subprocess.run([*weak, program("chsnap"), "tag", "-a", "x", store, "warm"],
                                 capture_output=True, text=True, check=False, timeout=60)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("cannot be written: the directory: Permission denied", refused.stderr)

    def test_clones_have_names_of_their_own(self):
        vmm = self.start()
        original = vmm.guest.do("genid")["id"]
        seen_uuids = {vmm.info()["config"].get("platform", {}).get("system_uuid")}
        vmm.put("vm.pause")
        vmm.put("vm.snapshot", {"destination_url": self.store("golden")})
        vmm.put("vm.resume")
        seen = {original}
        for i in range(3):
            clone = self.restore(self.store("golden"), f"clone{i}", ",clone=on,resume=on")
            clone.attach()
            genid = clone.guest.do("genid")["id"]
            self.assertNotIn(genid, seen)
            seen.add(genid)
            uuid = clone.info()["config"]["platform"]["system_uuid"]
            self.assertNotIn(uuid, seen_uuids)
            seen_uuids.add(uuid)
        # All four run at the same time.
        self.assertEqual(vmm.guest.do("echo still").text, "still")

    def test_what_cannot_be_done_is_refused(self):
        vmm = self.start()
        error = vmm.refused("vm.snapshot", {"destination_url": "file:///nonexistent/there"})
        self.assertTrue(error.names("/nonexistent/there"), error)
        # Nor is a store made for it, or left in a directory that was there.
        empty = self.dir / "empty"
        empty.mkdir()
        for place in (self.dir / "new", empty):
            error = vmm.refused("vm.snapshot", {"destination_url": f"store:{place}#no name"})
            self.assertTrue(error.names("no name"), error)
        self.assertFalse((self.dir / "new").exists())
        self.assertEqual(list(empty.iterdir()), [])
        vmm.put("vm.snapshot", {"destination_url": self.store("name")})
        error = vmm.refused("vm.snapshot", {"destination_url": self.store("name")})
        self.assertTrue(error.names("name"), error)
        vmm.guest.do("echo alive")
        for wrong in (self.store("unknown"), "file:///nonexistent", "store:/nonexistent#x"):
            failed = Vmm(self, f"wrong{abs(hash(wrong))}", ["--restore", f"source_url={wrong}"],
                         wait_api=False)
            self.assertEqual(failed.wait_exit(), 1)
            self.assertTrue(failed.log().strip())

    def test_a_damaged_snapshot_is_refused(self):
        vmm = self.start()
        vmm.guest.do("fill 100 4 sparse 9")
        path, url = self.directory()
        vmm.put("vm.pause")
        vmm.put("vm.snapshot", {"destination_url": url})
        vmm.kill()
        packs = sorted((p for p in path.rglob("*") if p.is_file() and p.suffix == ".pack"),
                       key=lambda p: p.stat().st_size)
        self.assertTrue(packs, [str(p) for p in path.rglob("*")])
        data = bytearray(packs[-1].read_bytes())
        middle = len(data) // 2
        for i in range(middle, middle + 4096):
            data[i] ^= 0x55
        packs[-1].write_bytes(data)
        damaged = Vmm(self, "damaged", ["--restore", f"source_url={url},resume=on"],
                      wait_api=False)
        self.assertEqual(damaged.wait_exit(), 1)
        self.assertIn("segment", damaged.log())


if __name__ == "__main__":
    lane_base.main()
