# SPDX-License-Identifier: Apache-2.0
"""A guest that writes anything anywhere: it may stop itself, never its VMM, its host or its disk's file."""

import os
import re
import time

import lane_base
from lane_base import MIB, LaneTest
from lane_vmm import Vmm, vm_args

KINDS = ("pio", "mmio", "pci", "rings", "all")
SECONDS_EACH = float(os.environ.get("LANE_HOSTILE_S", "4"))
LOG_MAX = 256 << 10
GROWTH_MAX_KIB = 32 << 10


class HostileTest(LaneTest):
    def start(self):
        self.disk = self.make_disk("disk.img", 32 * MIB)
        self.read_only = self.make_disk("ro.img", 8 * MIB, b"\x5a" * MIB)
        self.before = self.read_only.read_bytes()
        self.vmm = Vmm(self, "vm", vm_args(
            memory="128M", cpus=2, disk=[f"path={self.disk}", f"path={self.read_only},readonly=on"],
            console=f"file={self.dir}/console.txt",
            debug_console=f"file={self.dir}/debug.txt") + ["--no-shutdown"])
        self.vmm.boot()

    def memory_kib(self):
        """Resident beyond the guest's own memory."""
        total = in_guest = 0
        with open(f"/proc/{self.vmm.pid}/smaps", encoding="ascii") as lines:
            for line in lines:
                area = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
                if area:
                    in_guest = int(area.group(2), 16) - int(area.group(1), 16) >= 100 * MIB
                elif line.startswith("Rss:") and not in_guest:
                    total += int(line.split()[1])
        return total

    def scribble(self, kind, seed):
        """Return: how many accesses the guest says it made; None if it can say nothing any more."""
        self.vmm.guest.send(f"scribble {kind} {seed} 1000")
        end = time.monotonic() + 3
        while time.monotonic() < end:
            self.vmm.line.pump(0.1)
            said = re.search(rb"ok scribbled=(\d+)\r?\n", self.vmm.line.buffer)
            if said:
                return int(said.group(1))
            if b"panic" in self.vmm.line.buffer or b"ready" in self.vmm.line.buffer:
                return None
        return None

    def works_again(self):
        """The VMM answers; after a reset the machine is as new."""
        vmm = self.vmm
        self.assertTrue(vmm.is_running(), vmm.log()[-2000:])
        vmm.get("vm.counters")
        state = vmm.state()
        self.assertIn(state, ("Running", "Shutdown", "Paused"))
        vmm.line.run(0.05)
        vmm.line.buffer = b""
        if state == "Shutdown":
            vmm.line.detach_all()
            vmm.put("vm.boot")
            vmm.boot()
        else:
            vmm.put("vm.reboot")
            vmm.guest.wait_ready()
        guest = vmm.guest
        guest.do("blk 0 write 100 64 7")
        guest.do("blk 0 verify 100 64 7")
        guest.do("blk 1 read 0 64")
        guest.do("rng 16")
        guest.do("pci")
        guest.do("console write alive")
        self.assertEqual(self.read_only.read_bytes(), self.before)
        self.assertEqual(os.path.getsize(self.disk), 32 * MIB)

    def test_any_value_at_any_register(self):
        self.start()
        self.works_again()
        before, accesses, silent = self.memory_kib(), 0, 0
        seed = int(os.environ.get("LANE_HOSTILE_SEED", "1"))
        for kind in KINDS:
            end = time.monotonic() + SECONDS_EACH
            while time.monotonic() < end:
                made = self.scribble(kind, seed)
                accesses += made or 0
                silent += made is None
                try:
                    self.works_again()
                except Exception as error:
                    raise AssertionError(f"scribble {kind} {seed}: {error}") from error
                seed += 1
        print(f"\n{seed} times, {accesses} accesses, {silent} times the guest hit itself, "
              f"resident {before} KiB before, {self.memory_kib()} KiB after")
        self.assertGreater(accesses, 1000)
        self.assertLess(self.memory_kib(), before + GROWTH_MAX_KIB)
        self.assertLess(len(self.vmm.log()), LOG_MAX)
        self.vmm.put("vmm.shutdown")
        self.assertEqual(self.vmm.wait_exit(), 0)


if __name__ == "__main__":
    lane_base.main()
