# SPDX-License-Identifier: Apache-2.0
"""Life cycle: power off, reboot in every way, triple fault, buttons, pause and resume."""

import time

import lane_base
from lane_base import MIB, LaneTest, wait_until
from lane_vmm import Vmm, vm_args


class PowerTest(LaneTest):
    def start(self, *args, **kwargs):
        self.vmm = Vmm(self, "vm", [*vm_args(**kwargs), *args])
        return self.vmm.boot()

    def ready_again(self):
        """After a reset the serial port may be a new one."""
        line = self.vmm.line

        def look():
            if not line.sources:
                self.vmm.attach()
            line.pump(0.1)
            return b"chrysalis-guest ready" in line.buffer

        wait_until(look, 20, "the guest after its reboot")
        self.vmm.guest.wait_ready()

    def test_power_off_ends_the_process(self):
        guest = self.start()
        guest.send("poweroff")
        self.assertEqual(self.vmm.wait_exit(), 0)
        self.assertIn("shutdown", self.vmm.event_names())

    def test_power_off_with_no_shutdown_keeps_the_api(self):
        guest = self.start("--no-shutdown")
        guest.send("poweroff")
        self.vmm.wait_state("Shutdown")
        self.assertTrue(self.vmm.is_running())
        self.vmm.put("vm.boot")
        self.ready_again()
        self.assertEqual(self.vmm.state(), "Running")

    def test_every_way_to_reboot(self):
        guest = self.start()
        for how in ("acpi", "i8042", "cmos", "triple"):
            guest.do("poke 0x4000000 0x1234")
            guest.send(f"reboot {how}")
            self.ready_again()
            self.assertEqual(self.vmm.state(), "Running", how)
            self.assertEqual(guest.do("echo back").text, "back")

    def test_a_guest_that_reboots_for_ever_is_not_reported_for_ever(self):
        guest = self.start()
        began = time.monotonic()
        for _ in range(90):
            guest.send("reboot triple")
            self.ready_again()
        allowed = 64 + (time.monotonic() - began) + 2
        names = self.vmm.event_names()
        self.assertGreaterEqual(names.count("rebooted"), 32)
        self.assertLessEqual(names.count("rebooted"), allowed)
        self.vmm.put("vm.reboot")  # what somebody asked for is always reported
        self.ready_again()
        self.assertEqual(self.vmm.event_names().count("rebooted"), names.count("rebooted") + 1)

    def test_reboot_with_processors_and_disk(self):
        disk = self.make_disk("disk.img", 4 * MIB)
        guest = self.start(cpus=2, disk=f"path={disk}")
        for i in range(3):
            guest.do("smp start")
            guest.do("smp count")
            guest.do(f"blk 0 write {i * 8} 8 {i + 1}")
            guest.send("reboot")
            self.ready_again()
        for i in range(3):
            guest.do(f"blk 0 verify {i * 8} 8 {i + 1}")

    def test_the_api_reboots_and_shuts_down(self):
        self.start()
        self.vmm.put("vm.reboot")
        self.ready_again()
        self.vmm.put("vm.shutdown")
        self.assertEqual(self.vmm.state(), "Shutdown")
        self.vmm.put("vm.boot")
        self.ready_again()
        self.vmm.put("vm.delete")
        self.assertIsNone(self.vmm.state())
        self.vmm.put("vmm.shutdown")
        self.assertEqual(self.vmm.wait_exit(), 0)

    def test_a_button_and_an_nmi_reach_the_guest(self):
        guest = self.start()
        guest.do("ged")
        self.vmm.put("vm.power-button")
        self.vmm.line.expect(rb"event ged=0x8\r?\n", 5)
        self.vmm.put("vm.nmi")
        wait_until(lambda: guest.do("irqs").number("nmi") == 1, 5, "the NMI")

    def test_a_halted_guest_can_be_shut_down(self):
        guest = self.start()
        guest.do("halt")
        time.sleep(0.2)
        self.assertEqual(self.vmm.state(), "Running")
        self.vmm.put("vm.pause")
        self.vmm.put("vm.resume")
        self.vmm.put("vm.shutdown")
        self.vmm.put("vmm.shutdown")
        self.assertEqual(self.vmm.wait_exit(), 0)

    def test_sigterm_ends_the_process(self):
        self.start()
        self.vmm.process.terminate()
        self.vmm.wait_exit()


class PauseTest(LaneTest):
    def test_nothing_moves_while_paused(self):
        vmm = Vmm(self, "vm", vm_args())
        guest = vmm.boot()
        guest.do("heartbeat 2000")
        guest.do("dirty 64 16 50 rand")
        vmm.line.run(0.5)
        vmm.put("vm.pause")
        self.assertEqual(vmm.state(), "Paused")
        vmm.line.run(0.1)
        came = len(vmm.line.beats)
        self.assertGreater(came, 50)
        vmm.line.run(1)
        self.assertEqual(len(vmm.line.beats), came)
        self.assertEqual(vmm.refused("vm.pause").status, 500)
        vmm.put("vm.resume")
        self.assertEqual(vmm.refused("vm.resume").status, 500)
        vmm.line.wait_beats(50)
        guest.do("dirty stop")
        guest.do("dirty check")
        guest.do("heartbeat off")
        names = vmm.event_names()
        for name in ("booted", "paused", "resumed"):
            self.assertIn(name, names)

    def test_clocks_across_a_pause(self):
        vmm = Vmm(self, "vm", vm_args())
        guest = vmm.boot()
        before = guest.do("clock")
        vmm.put("vm.pause")
        time.sleep(2)
        vmm.put("vm.resume")
        after = guest.do("clock")
        if guest.do("info").number("kvmclock"):
            passed_ns = after.number("kvmclock_ns") - before.number("kvmclock_ns")
            self.assertTrue(0 < passed_ns < 4e9, passed_ns)
        self.assertGreater(after.number("tsc"), before.number("tsc"))

    def test_often_under_load(self):
        disk = self.make_disk("disk.img", 32 * MIB)
        vmm = Vmm(self, "vm", vm_args(cpus=2, disk=f"path={disk}"))
        guest = vmm.boot()
        guest.do("smp start")
        guest.do("smp dirty 100 4")
        guest.do("blk 0 run 0 16384")
        guest.do("heartbeat 5000 periodic")
        for i in range(20):
            vmm.put("vm.pause")
            if i % 5 == 0:
                time.sleep(0.1)
            vmm.put("vm.resume")
            vmm.line.run(0.1)
        guest.do("heartbeat off")
        guest.do("blk 0 stop")
        guest.do("blk 0 check", timeout_s=60)
        guest.do("smp stop", timeout_s=60)
        guest.do("smp check")


if __name__ == "__main__":
    lane_base.main()
