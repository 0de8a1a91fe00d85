# SPDX-License-Identifier: Apache-2.0
"""Restores on demand and from an image: what a VM can do while its memory is still coming."""

import os
import pathlib
import random
import re
import subprocess
import time

import lane_base
from lane_base import MIB, LaneTest, program
from lane_host import GuestMemory, differing_pages, page_digests_of
from lane_move import Move, free_port
from lane_vmm import Vmm, vm_args

RAM = 512 * MIB  # takes a while to come back
SMALL = 128 * MIB


class RestoreTest(LaneTest):
    def url(self, name="s", store="store"):
        return f"store:{self.dir}/{store}#{name}"

    def noise(self, vmm, ram):
        """Memory that takes its time to come back: bytes that do not compress."""
        memory = GuestMemory(vmm.pid, ram)
        source = random.Random(7)
        try:
            with open(f"/proc/{vmm.pid}/mem", "r+b", buffering=0) as out:
                for at in range(64 * MIB, ram, 8 * MIB):
                    os.pwrite(out.fileno(), source.randbytes(7 * MIB), memory.base + at)
        finally:
            memory.close()

    def frozen(self, ram=SMALL, options=None, cpus=1):
        """A VM in the store.  Return: the guest's digest of all its RAM, if that is small; ours."""
        vmm = Vmm(self, "vm", vm_args(cpus=cpus, memory=options or f"{ram >> 20}M"))
        vmm.boot()
        vmm.guest.do("fill 16 4 sparse 3", timeout_s=120)
        vmm.guest.do("cmos 0x40 0x77")
        self.noise(vmm, ram)
        digest = None
        if ram == SMALL:
            digest = vmm.guest.do("digest", timeout_s=120)["digest"]
        vmm.put("vm.pause")
        pages = self.pages(vmm, ram)
        vmm.put("vm.snapshot", {"destination_url": self.url()}, timeout_s=120)
        vmm.kill()
        return digest, pages

    def pages(self, vmm, ram):
        return page_digests_of(vmm.pid, ram)

    def restore(self, name, mode="ondemand", options=",resume=on", state="Running"):
        mode = f",memory_restore_mode={mode}" if mode else ""
        vmm = Vmm(self, name, ["--restore", f"source_url={self.url()}{mode}{options}"])
        vmm.wait_state(state)
        return vmm

    def took(self, vmm):
        return vmm.log().split("memory_restore_mode ", 1)[1].split()[0].rstrip(":")

    def check(self, vmm, digest, attach=True):
        if attach:
            vmm.attach()
        if digest:
            self.assertEqual(vmm.guest.do("digest", timeout_s=120)["digest"], digest)
        vmm.guest.do("verify", timeout_s=120)
        self.assertEqual(vmm.guest.do("cmos 0x40").text, "0x77")

    def check_pages(self, vmm, pages, ram, but=2):
        """All but those that may differ: the generation id's, kvmclock's, and what the guest uses."""
        vmm.wait_event("memory-whole")
        self.assertLessEqual(len(differing_pages(pages, self.pages(vmm, ram))), but)

    def check_while_filling(self, vmm, before):
        """What happened in between did so before the memory was whole."""
        names = vmm.event_names()
        self.assertIn(before, names)
        if "memory-whole" in names:
            self.assertLess(names.index(before), names.index("memory-whole"))


class LazyTest(RestoreTest):
    def test_every_byte_comes_back(self):
        digest, pages = self.frozen()
        vmm = self.restore("first")
        self.assertEqual(self.took(vmm), "ondemand")
        self.check(vmm, digest)
        vmm.wait_event("memory-whole")
        vmm.close()
        # And every page of a VM that stays paused, as seen from outside.
        vmm = self.restore("second", options="", state="Paused")
        self.check_pages(vmm, pages, SMALL)

    def test_shared_memory_comes_back(self):
        digest, _ = self.frozen(options=f"{SMALL >> 20}M,shared=on")
        vmm = self.restore("back")
        self.assertEqual(self.took(vmm), "ondemand")
        self.check(vmm, digest)

    def brought(self, vmm):
        """Pages brought by faults, by the order of an earlier run, in the background."""
        vmm.wait_event("memory-whole")
        line = re.search(r"brought (\d+) pages, (\d+) came by .*, (\d+) in the background", vmm.log())
        return [int(number) for number in line.groups()]

    def test_the_order_of_touch_is_kept_and_followed(self):
        # Who brings a page is a race between processors and threads: unit.snap_lazy holds them
        # apart and counts those that come by the order.
        digest, _ = self.frozen()
        first = self.restore("first")
        self.check(first, digest)
        kept = list((self.dir / "store" / "cache").glob("*.touch"))
        self.assertEqual(len(kept), 1)
        second = self.restore("second")
        for vmm in (first, second):
            self.assertGreater(sum(self.brought(vmm)), 0)
        self.check(second, digest)
        # An order that was tampered with changes nothing but the order.
        kept[0].write_bytes(kept[0].read_bytes()[:-1] + b"x")
        self.check(self.restore("third"), digest)

    def test_a_wrong_size_in_the_cache_costs_time_only(self):
        self.frozen()
        sizes = self.dir / "store" / "cache" / "sizes"
        self.restore("first").close()
        noted = bytearray(sizes.read_bytes())
        slot = next(at for at in range(0, len(noted), 16) if any(noted[at:at + 16]))
        self.assertEqual(int.from_bytes(noted[slot + 8:slot + 16], "little"), SMALL)
        for name, size in (("less", SMALL // 2), ("more", 16 * SMALL), ("odd", SMALL + 1)):
            with self.subTest(size=name):
                noted[slot + 8:slot + 16] = size.to_bytes(8, "little")
                sizes.write_bytes(noted)
                vmm = self.restore(name)
                self.check(vmm, None)
                vmm.close()
                # And the next one begins with the right one.
                now = sizes.read_bytes()[slot + 8:slot + 16]
                self.assertEqual(int.from_bytes(now, "little"), SMALL)

    def test_paused_is_said_only_once_the_vm_takes_what_paused_ones_do(self):
        self.frozen(RAM)
        vmm = Vmm(self, "back", ["--restore", f"source_url={self.url()},"
                                              "memory_restore_mode=copy"])
        seen, end = set(), time.monotonic() + 30
        while (state := vmm.state()) != "Paused":
            seen.add(state)
            self.assertLess(time.monotonic(), end, seen)
        self.assertLessEqual(seen, {None, "Created"})
        vmm.put("vm.resume")
        self.assertIn("restored", vmm.event_names())
        self.check(vmm, None)

    def test_a_snapshot_while_memory_comes_is_whole(self):
        for shared in ("off", "on"):
            with self.subTest(shared=shared):
                store = self.dir / "store"
                if store.exists():
                    subprocess.run(["rm", "-r", str(store)], check=True)
                for known in ("vm", "filling", "again"):
                    if (self.dir / known).exists():
                        (self.dir / known).rename(self.dir / f"{known}.{shared}")
                _, pages = self.frozen(RAM, options=f"{RAM >> 20}M,shared={shared}")
                vmm = self.restore("filling", options="", state="Paused")
                other = self.url("t", f"other.{shared}")
                vmm.put("vm.snapshot", {"destination_url": other}, timeout_s=120)
                self.check_while_filling(vmm, "snapshotting")
                vmm.kill()
                vmm = Vmm(self, "again", ["--restore", f"source_url={other},"
                                          "memory_restore_mode=copy"])
                vmm.wait_state("Paused")
                self.assertLessEqual(len(differing_pages(pages, self.pages(vmm, RAM))), 2)
                vmm.put("vm.resume")
                self.check(vmm, None)
                vmm.kill()

    def test_clones_while_memory_comes_are_whole(self):
        """Of what it comes from, and of the VM itself; what they write is their own."""
        self.frozen(RAM)
        vmm = self.restore("filling")
        beside = Vmm(self, "beside", ["--restore", f"source_url={self.url()},clone=on,resume=on,"
                                      "memory_restore_mode=ondemand"])
        beside.wait_state("Running")
        other = self.url("t", "other")
        vmm.put("vm.snapshot", {"destination_url": other}, timeout_s=120)
        self.check_while_filling(vmm, "snapshotting")
        clone = Vmm(self, "clone", ["--restore", f"source_url={other},clone=on,resume=on,"
                                    "memory_restore_mode=ondemand"])
        clone.wait_state("Running")
        vmms = (vmm, beside, clone)
        for v in vmms:
            self.check(v, None)
            v.guest.do(f"fill 40 4 sparse {v.pid}")
        self.assertEqual(len({v.guest.do("genid")["id"] for v in vmms}), len(vmms))
        for v in vmms:
            v.guest.do("verify", timeout_s=120)

    def test_a_move_while_memory_comes_is_whole(self):
        _, pages = self.frozen(RAM, options=f"{RAM >> 20}M,shared=on")
        vmm = self.restore("filling")
        move = Move(vmm, "there", f"tcp:127.0.0.1:{free_port()}")
        move.finish(120)
        self.check_while_filling(vmm, "migration-started")
        there = move.destination
        there.put("vm.pause")
        # The guest has run: it wrote to its stack and its own variables.
        self.assertLessEqual(len(differing_pages(pages, self.pages(there, RAM))), 20)
        there.put("vm.resume")
        self.check(there, None, attach=False)

    def test_pause_reset_and_end_while_memory_comes(self):
        _, pages = self.frozen(RAM, cpus=2)
        vmm = self.restore("filling")
        vmm.put("vm.pause")
        self.check_while_filling(vmm, "paused")
        self.check_pages(vmm, pages, RAM, 20)
        vmm.put("vm.resume")
        self.check(vmm, None)
        vmm.close()
        for action in ("vm.shutdown", "vm.delete", "vm.reboot", "vmm.shutdown"):
            vmm = self.restore(f"for.{action}")
            vmm.put(action)
            if action == "vm.reboot":
                vmm.attach()
                vmm.guest.wait_ready()
            elif action == "vmm.shutdown":
                self.assertEqual(vmm.wait_exit(), 0)
            else:
                self.assertNotIn("error", vmm.log())
            vmm.close()

    def test_a_store_that_goes_bad_stops_the_vm(self):
        self.frozen(RAM)
        vmm = self.restore("filling")
        for pack in (self.dir / "store" / "packs").iterdir():
            os.truncate(pack, 8192)
        self.assertEqual(vmm.wait_exit(), 1)
        self.assertIn("memory of the VM is lost", vmm.log())
        lost = [e for e in vmm.events() if e["event"] == "memory-lost"]
        self.assertEqual(len(lost), 1, vmm.event_names())
        self.assertIn("region", lost[0]["properties"]["reason"])
        self.assertNotIn("memory-whole", vmm.event_names())

    def test_a_store_that_is_removed_stops_the_vm_or_was_not_needed(self):
        _, pages = self.frozen(RAM)
        vmm = self.restore("filling", options="", state="Paused")
        subprocess.run(["rm", "-r", str(self.dir / "store")], check=True)
        # What is open stays readable: either all of it comes, or the VM is stopped for a reason.
        if vmm.wait_event("memory-whole", "memory-lost") == "memory-whole":
            self.check_pages(vmm, pages, RAM)
        else:
            self.assertEqual(vmm.wait_exit(), 1)

    def test_once_whole_the_store_is_let_go(self):
        digest, _ = self.frozen()
        vmm = self.restore("back")
        vmm.wait_event("memory-whole")
        chsnap = subprocess.run([program("chsnap"), "rm", str(self.dir / "store"), "s"],
                                capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(chsnap.returncode, 0, chsnap.stderr)
        subprocess.run(["rm", "-r", str(self.dir / "store")], check=True)
        store = f"{self.dir}/store"
        held = [os.readlink(f"/proc/{vmm.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{vmm.pid}/fd")]
        self.assertEqual([path for path in held if path.startswith(store)], [])
        self.check(vmm, digest)

    def test_memory_that_is_to_be_there_at_once_is_copied(self):
        digest, _ = self.frozen()
        options = ",resume=on,set=[memory.prefault=on]"
        copied = self.restore("copied", mode=None, options=options)
        self.assertEqual(self.took(copied), "copy")
        self.check(copied, digest)
        for mode in ("ondemand", "mapped"):
            both = Vmm(self, f"both-{mode}", ["--restore", f"source_url={self.url()},"
                                              f"memory_restore_mode={mode}{options}"],
                       wait_api=False)
            self.assertEqual(both.wait_exit(), 1)
            self.assertIn(f"memory_restore_mode {mode}: the machine has prefault=on", both.log())

    def test_huge_pages_are_copied(self):
        pages = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
        try:
            with open(pages, "r+", encoding="ascii") as file:
                before = file.read().strip()
                file.seek(0)
                file.write(str(int(before) + 2 * SMALL // (2 * MIB)))
        except OSError as error:
            self.skipTest(f"huge pages: {error.strerror}")
        self.addCleanup(lambda: open(pages, "w", encoding="ascii").write(before))
        digest, _ = self.frozen(options=f"{SMALL >> 20}M,hugepages=on,hugepage_size=2M")
        vmm = self.restore("back", mode=None)
        self.assertEqual(self.took(vmm), "copy")
        self.assertIn("huge pages", vmm.log())
        status = pathlib.Path(f"/proc/{vmm.pid}/status").read_text(encoding="ascii")
        self.assertGreaterEqual(int(re.search(r"HugetlbPages:\s+(\d+) kB", status)[1]) << 10, SMALL // 2)
        self.check(vmm, digest)
        vmm.close()
        refused = Vmm(self, "refused", ["--restore", f"source_url={self.url()},"
                                        "memory_restore_mode=ondemand"], wait_api=False)
        self.assertEqual(refused.wait_exit(), 1)
        self.assertIn("huge pages", refused.log())


class MappedTest(RestoreTest):
    def test_one_image_serves_many(self):
        digest, _ = self.frozen()
        first = self.restore("first", "mapped", ",resume=on,clone=on")
        self.assertEqual(self.took(first), "mapped")
        images = list((self.dir / "store" / "cache").glob("*.ram"))
        self.assertEqual(len(images), 1)
        self.assertEqual(images[0].stat().st_mode & 0o777, 0o600)
        # Now that it is there it is taken without being asked for.
        second = self.restore("second", None, ",resume=on,clone=on")
        self.assertEqual(self.took(second), "mapped")
        for vmm in (first, second):
            vmm.attach()
            vmm.guest.do("verify", timeout_s=120)
            # The generation id is one page of the digest: write elsewhere, look at what was there.
            vmm.guest.do(f"fill 40 8 sparse {vmm.pid}")
        for vmm in (second, first):
            vmm.guest.do("verify", timeout_s=120)
        # What they wrote is not in the image.
        third = self.restore("third", "mapped")
        self.check(third, digest)

    def test_an_image_that_is_not_ours_is_not_used(self):
        digest, _ = self.frozen()
        self.restore("first", "mapped").close()
        image = next((self.dir / "store" / "cache").glob("*.ram"))
        image.chmod(0o622)
        vmm = self.restore("second", None)
        self.assertEqual(self.took(vmm), "ondemand")
        self.check(vmm, digest)
        vmm.close()
        # Asked for, it is made anew.
        self.check(self.restore("third", "mapped"), digest)

    def test_shared_memory_is_not_mapped(self):
        self.frozen(options=f"{SMALL >> 20}M,shared=on")
        refused = Vmm(self, "refused", ["--restore", f"source_url={self.url()},"
                                        "memory_restore_mode=mapped"], wait_api=False)
        self.assertEqual(refused.wait_exit(), 1)
        self.assertIn("cannot be mapped", refused.log())


if __name__ == "__main__":
    lane_base.main()
