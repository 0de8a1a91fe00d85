# SPDX-License-Identifier: Apache-2.0
"""Boot protocols, what the guest is told at boot, the machine it finds."""

import os
import time

import lane_base
from lane_base import GUEST_BZIMAGE, GUEST_ELF, MIB, LaneTest
from lane_guest import digest
from lane_vmm import Vmm, vm_args

PM_TIMER_HZ = 3579545


class BootTest(LaneTest):
    def start(self, **kwargs):
        return Vmm(self, "vm", vm_args(**kwargs)).boot()

    def boots(self, kernel, boot):
        initramfs = self.dir / "initramfs"
        initramfs.write_bytes(os.urandom(70001))
        guest = self.start(kernel=kernel, initramfs=initramfs, cmdline="console=x one=\"a b\" end")
        self.assertEqual(guest.boot, boot)
        self.assertEqual(guest.do("cmdline").text, "console=x one=\"a b\" end")
        answer = guest.do("initrd")
        self.assertEqual(answer.number("len"), 70001)
        self.assertEqual(answer.number("addr") % 4096, 0)
        self.assertEqual(int(answer["digest"], 16), digest(initramfs.read_bytes()))

    def test_pvh(self):
        self.boots(GUEST_ELF, "pvh")

    def test_bzimage(self):
        self.boots(GUEST_BZIMAGE, "linux64")

    def test_memory_map_leaves_the_hole_below_4_gib(self):
        guest = self.start(memory="4G")
        ranges = [(int(a, 0), int(b, 0)) for _, a, b in
                  (line.split() for line in guest.do("map").lines)]
        self.assertEqual(ranges[-1], (4 << 30, 1 << 30))
        self.assertTrue(all(start + size <= 3 << 30 or start >= 4 << 30
                            for start, size in ranges), ranges)
        guest.do("fill 4100 8 sparse 1")
        guest.do("fill 3000 8 sparse 2")
        guest.do("verify")

    def test_shared_memory_and_zones(self):
        for name, options in (("shared", ["--memory", "size=128M,shared=on"]),
                              ("zones", ["--memory", "size=0", "--memory-zone",
                                         "id=a,size=128M", "id=b,size=64M,shared=on"])):
            vmm = Vmm(self, name, ["--kernel", str(GUEST_ELF), "--cpus", "boot=1", *options])
            guest = vmm.boot()
            total = (128 if name == "shared" else 192) * MIB
            self.assertTrue(total - MIB < guest.ram <= total, guest.ram)
            guest.do("fill 100 8 sparse 1")
            guest.do("verify")

    def test_acpi_tables_and_pci_are_sound(self):
        guest = self.start(cpus=2)
        names = {line.split()[0] for line in guest.do("acpi").lines}
        self.assertLessEqual({"FACP", "APIC", "MCFG", "DSDT"}, names)
        answer = guest.do("pci")
        self.assertNotEqual(answer["ecam"], "0x0")
        self.assertTrue(any("8086:d57" in line for line in answer.lines), answer.lines)
        self.assertEqual(guest.do("info").number("cpus"), 2)

    def test_nothing_answers_where_nothing_is(self):
        guest = self.start()
        self.assertEqual(guest.do("in 0x300 1").text, "0xff")
        self.assertEqual(guest.do("in 0x300 4").text, "0xffffffff")
        self.assertEqual(guest.do("peek 0xd0000000 1").text, "0xffffffffffffffff")
        guest.do("out 0x300 0x12 1")
        guest.do("poke 0xd0000000 1")
        guest.do("echo still here")

    def test_clocks_agree(self):
        guest = self.start()
        first = guest.do("clock")
        wall = time.time()
        time.sleep(1)
        second = guest.do("clock")

        def passed(key):
            return second.number(key) - first.number(key)

        tsc_s = passed("tsc_us") / 1e6
        self.assertAlmostEqual(tsc_s, 1, delta=0.3)
        if guest.do("info").number("kvmclock"):
            self.assertAlmostEqual(passed("kvmclock_ns") / 1e9, tsc_s, delta=0.01)
            self.assertAlmostEqual(
                first.number("wall_s") + first.number("kvmclock_ns") / 1e9, wall, delta=3)
        self.assertAlmostEqual((passed("pm") & 0xFFFFFFFF) / PM_TIMER_HZ, tsc_s, delta=0.02)
        cmos = time.strptime(first["cmos"], "%Y-%m-%dT%H:%M:%S")
        self.assertAlmostEqual(time.mktime(cmos) - time.mktime(time.gmtime(wall)), 0, delta=3)

    def test_timer_interrupts_keep_time(self):
        guest = self.start()
        for mode in ("deadline", "periodic"):
            guest.do(f"heartbeat 5000 {mode}")
            begin = len(guest.line.beats)
            guest.line.run(2)
            came = len(guest.line.beats) - begin
            guest.do("heartbeat off")
            self.assertTrue(200 < came < 440, f"{mode}: {came} of 400")

    def test_all_processors_start(self):
        guest = self.start(cpus=4)
        self.assertEqual(guest.do("smp start").number("online"), 4)
        guest.do("smp dirty 64 1")
        time.sleep(1)
        guest.do("smp stop", timeout_s=60)
        guest.do("smp check")
        for line in guest.do("smp stat").lines[1:]:
            words = line.split()
            self.assertGreater(int(words[words.index("count") + 1]), 0, line)

    def test_faults_are_the_guests_own(self):
        guest = self.start()
        guest.refuses("rdmsr 0x12345678")
        guest.refuses("wrmsr 0x12345678 1")
        guest.do("rdmsr 0x1b")

    def test_the_api_boots_what_the_command_line_boots(self):
        vmm = Vmm(self, "vm")
        vmm.put("vm.create", {
            "payload": {"kernel": str(GUEST_ELF), "cmdline": "by=api"},
            "memory": {"size": 128 * MIB}, "cpus": {"boot_vcpus": 2, "max_vcpus": 2},
            "serial": {"mode": "Socket", "socket": "serial.sock"}, "console": {"mode": "Off"}})
        self.assertEqual(vmm.state(), "Created")
        vmm.put("vm.boot")
        guest = vmm.boot()
        self.assertEqual(guest.do("cmdline").text, "by=api")
        self.assertEqual(vmm.state(), "Running")
        info = vmm.info()
        self.assertEqual(info["config"]["cpus"]["boot_vcpus"], 2)
        self.assertEqual(info["memory_actual_size"], 128 * MIB)

    def test_serial_on_a_pty(self):
        vmm = Vmm(self, "vm", vm_args(), serial="pty")
        vmm.attach()
        # What was said before somebody opened the pty may be lost; answers may not.
        vmm.line.run(0.5)
        self.assertEqual(vmm.guest.do("echo hello").text, "hello")


if __name__ == "__main__":
    lane_base.main()
