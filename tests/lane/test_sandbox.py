# SPDX-License-Identifier: Apache-2.0
"""What a VM's process may do: capabilities, system calls, paths."""

import json
import os
import pathlib
import subprocess
import unittest

import lane_base
from lane_base import GUEST_ELF, MIB, LaneTest, program, wait_until
from lane_vmm import Vmm, vm_args

CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER = 0, 1, 2, 3
CAP_NET_BIND_SERVICE, CAP_NET_ADMIN = 10, 12
KEPT = sum(1 << cap for cap in (CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER,
                                CAP_NET_BIND_SERVICE, CAP_NET_ADMIN))
PLAIN_THREADS = ("vcpu", "io", "api")


def threads(pid):
    """Name and status of every thread."""
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        status = dict(line.split(":\t", 1) for line in
                      (task / "status").read_text().splitlines() if ":\t" in line)
        found.append((status["Name"], status))
    return found


class CapabilityTest(LaneTest):
    def look(self, *args, seccomp="2"):
        vmm = Vmm(self, f"vm{seccomp}", [*args, *vm_args(cpus=2)])
        vmm.boot()
        names = []
        for name, status in threads(vmm.pid):
            names.append(name)
            plain = name.startswith(PLAIN_THREADS)
            for kind in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
                left = int(status[kind], 16)
                self.assertEqual(left & ~(0 if plain else KEPT), 0, f"{name}: {kind} {left:#x}")
            self.assertEqual(status["NoNewPrivs"], "1", name)
            self.assertEqual(status["Seccomp"], seccomp, name)
        for wanted in PLAIN_THREADS:
            self.assertTrue(any(n.startswith(wanted) for n in names), names)

    def test_no_thread_keeps_what_it_does_not_need(self):
        self.look()

    def test_nor_without_a_filter(self):
        self.look("--seccomp", "false", seccomp="0")


def has_landlock():
    try:
        return "landlock" in pathlib.Path("/sys/kernel/security/lsm").read_text()
    except OSError:
        return True  # not to be seen: chvmm will say


class LandlockTest(LaneTest):
    def setUp(self):
        super().setUp()
        if not has_landlock():
            raise unittest.SkipTest("this kernel runs without Landlock")
        self.disk = self.make_disk("disk.img", 16 * MIB)
        for name in ("listed", "other"):
            (self.dir / name).mkdir()

    def start(self, name="vm", **kwargs):
        vmm = Vmm(self, name, vm_args(disk=f"path={self.disk}", **kwargs) + [
            "--landlock", "--landlock-rules", f"path={self.dir}/listed,access=rw"])
        vmm.boot()
        return vmm

    def snapshot(self, vmm, where):
        path = self.dir / where / "snap"
        path.mkdir()
        return vmm.call("PUT", "vm.snapshot", {"destination_url": f"file://{path}"}), \
            f"file://{path}"

    def test_what_is_not_named_stays_closed(self):
        vmm = self.start()
        vmm.guest.do("blk 0 write 0 64 3")
        vmm.guest.do("blk 0 flush")
        vmm.guest.do("rng 16")
        (status, answer), _ = self.snapshot(vmm, "other")
        self.assertEqual(status, 500)
        self.assertIn("Permission denied", json.dumps(answer))
        self.assertEqual(vmm.state(), "Running")
        (status, answer), url = self.snapshot(vmm, "listed")
        self.assertEqual((status, answer), (204, None))
        # Nor is it after a boot or a reboot, which open everything that is needed again.
        vmm.put("vm.reboot")
        vmm.guest.wait_ready()
        vmm.put("vm.shutdown")
        vmm.line.detach_all()
        vmm.put("vm.boot")
        vmm.boot()
        vmm.guest.do("blk 0 verify 0 64 3")
        vmm.put("vmm.shutdown")
        self.assertEqual(vmm.wait_exit(), 0)
        self.assertFalse(os.path.exists(vmm.api_path))
        restored = Vmm(self, "restored", ["--restore", f"source_url={url},resume=on"])
        restored.wait_state("Running")
        restored.attach()
        restored.guest.do("blk 0 verify 0 64 3")
        self.assertTrue(restored.info()["config"]["landlock_enable"])
        (self.dir / "listed/snap2").mkdir()
        (status, _), _ = self.snapshot(restored, "other/..")
        self.assertEqual(status, 500)

    def test_consoles_and_zones(self):
        zones = self.dir / "zones"
        zones.mkdir()
        log = self.dir / "console.txt"
        vmm = Vmm(self, "vm", ["--kernel", str(GUEST_ELF), "--memory", "size=0", "--memory-zone",
                               f"id=a,size=128M,shared=on,file={zones}", "--console",
                               f"file={log}", "--landlock"], serial="pty")
        vmm.boot()
        vmm.guest.do("console write seen")
        wait_until(lambda: b"seen" in log.read_bytes(), 10, "the word in the console's file")

    def test_a_rule_for_nothing(self):
        done = subprocess.run([program("chvmm"), "--kernel", str(GUEST_ELF), "--landlock",
                               "--console", "off", "--landlock-rules",
                               "path=/nowhere/at/all,access=r"],
                              capture_output=True, text=True, check=False, timeout=20)
        self.assertEqual(done.returncode, 1)
        self.assertIn("landlock_rules[0].path: /nowhere/at/all: No such file", done.stderr)


if __name__ == "__main__":
    lane_base.main()
