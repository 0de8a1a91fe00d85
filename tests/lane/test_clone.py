# SPDX-License-Identifier: Apache-2.0
"""Restores that change the machine, and clones by the dozen."""

import json
import os
import signal
import subprocess
import uuid

import lane_base
from lane_base import MIB, LaneTest, program, wait_until
from lane_guest import Guest, Line
from lane_host import GuestMemory
from lane_vmm import Background, Vmm, vm_args


class CloneTest(LaneTest):
    def frozen(self, name="warm", **kwargs):
        vmm = Vmm(self, "vm", vm_args(memory="128M", **kwargs))
        vmm.boot()
        vmm.guest.do("fill 64 8 sparse 3")
        if "disk" in kwargs:
            vmm.guest.do("blk 0 write 0 64 9")
            vmm.guest.do("blk 0 flush")
        vmm.put("vm.pause")
        vmm.put("vm.snapshot", {"destination_url": f"store:{self.dir}/store#{name}"})
        return vmm

    def chsnap(self, *args, code=0):
        result = subprocess.run([program("chsnap"), *map(str, args)], capture_output=True,
                                text=True, timeout=120, check=False, cwd=self.short)
        self.assertEqual(result.returncode, code, result.stderr)
        return result.stdout if code == 0 else result.stderr

    def clones(self, *args):
        found = json.loads(self.chsnap("clone", "-j", "--dir", self.short / "c", *args,
                                       self.dir / "store", "warm"))
        for clone in found:
            self.addCleanup(self.end, clone["pid"])
        return found

    @staticmethod
    def end(pid):
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass

    def config(self, clone):
        text = subprocess.run([program("chctl"), "--api-socket", clone["api_socket"], "info"],
                              check=True, capture_output=True, timeout=30).stdout
        return json.loads(text)["config"]

    def guest(self, clone):
        """The guest of a clone, whose serial port is a socket where chsnap was started."""
        line = Line(self.dir / f"{clone['pid']}.log")
        self.addCleanup(line.close)
        line.attach_socket(self.short / self.config(clone)["serial"]["socket"])
        return Guest(line)

    def refused(self, *options):
        vmm = Vmm(self, f"refused{len(list(self.dir.iterdir()))}",
                  ["--restore", f"source_url=store:{self.dir}/store#warm" + "".join(options)],
                  wait_api=False)
        self.assertEqual(vmm.wait_exit(), 1)
        return vmm.log()

    def test_a_dozen_share_what_they_do_not_write(self):
        self.frozen().kill()
        clones = self.clones("-n", 12)
        self.assertEqual(len(list((self.dir / "store" / "cache").glob("*.ram"))), 1)
        ids = set()
        for clone in clones:
            guest = self.guest(clone)
            guest.do("verify", timeout_s=60)
            ids.add(guest.do("genid")["id"])
            ids.add(clone["uuid"])
            log = (self.short / "c" / os.path.basename(clone["api_socket"])).with_suffix(".log")
            self.assertNotIn("error", log.read_text())
        self.assertEqual(len(ids), 2 * len(clones))

    def test_numbers_take_their_places(self):
        disk = self.make_disk("disk.img", 8 * MIB)
        self.frozen(disk=f"path={disk}").kill()
        clones = self.clones(
            "-n", 3, "--first", 10, "--name", "web{n:03}",
            "--set", "disks._disk0.path=" + str(self.dir / "web{n}.img"),
            "--set", "serial.socket=" + str(self.short / "web{n}.serial"),
            "--set", "platform.uuid=00000000-0000-4000-8000-{n:012x}")
        guests = []
        for n, clone in enumerate(clones, 10):
            self.assertTrue(clone["api_socket"].endswith(f"/web{n:03}.sock"), clone)
            self.assertEqual(clone["uuid"], str(uuid.UUID(f"00000000-0000-4000-8000-{n:012x}")))
            config = self.config(clone)
            self.assertEqual(config["disks"][0]["path"], f"{self.dir}/web{n}.img")
            guests.append(self.guest(clone))
            guests[-1].do("blk 0 verify 0 64 9", timeout_s=60)
            guests[-1].do(f"blk 0 write 0 64 {n}")
        for n, guest in enumerate(guests, 10):
            guest.do(f"blk 0 verify 0 64 {n}", timeout_s=60)

    def test_what_two_clones_cannot_both_have_is_refused(self):
        self.frozen().kill()
        for option in ("net._net0.tap=tap0", "serial.socket=/tmp/s", "platform.uuid=1"):
            error = self.chsnap("clone", "-n", 2, "--dir", self.short / "c", "--set", option,
                                self.dir / "store", "warm", code=2)
            self.assertIn(f"--set {option}: would be the same for all", error)
        error = self.chsnap("clone", "-n", 2, "--dir", self.short / "c", "--name", "x",
                            self.dir / "store", "warm", code=2)
        self.assertIn("--name x", error)

    def test_a_disk_that_changed_is_refused(self):
        disk = self.make_disk("disk.img", 8 * MIB)
        vmm = self.frozen(disk=f"path={disk}")
        vmm.put("vm.resume")
        vmm.guest.do("blk 0 write 128 8 1")
        vmm.guest.do("blk 0 flush")
        vmm.kill()
        for clone in ("", ",clone=on"):
            log = self.refused(",resume=on", clone)
            self.assertIn("disk _disk0", log)
            self.assertIn("it was written after the snapshot", log)
        self.assertEqual(sorted(p.name for p in self.dir.glob("disk.img*")), ["disk.img"])
        back = Vmm(self, "back", ["--restore", f"source_url=store:{self.dir}/store#warm,"
                                  "changed_disks=on,resume=on"])
        back.wait_state("Running")
        back.attach()
        back.guest.do("verify", timeout_s=60)

    def test_a_disk_written_while_memory_is_read_has_changed(self):
        disk = self.make_disk("disk.img", 8 * MIB)
        vmm = Vmm(self, "vm", vm_args(memory="512M", disk=f"path={disk}"))
        vmm.boot()
        memory = GuestMemory(vmm.pid, 512 * MIB)
        with open(f"/proc/{vmm.pid}/mem", "r+b", buffering=0) as out:
            for at in range(64 * MIB, 512 * MIB, 8 * MIB):
                os.pwrite(out.fileno(), os.urandom(8 * MIB), memory.base + at)
        memory.close()
        vmm.guest.do("blk 0 run 0 2048")
        request = Background(vmm.put, "vm.snapshot",
                             {"destination_url": f"store:{self.dir}/store#warm",
                              "mode": "Moment"}, timeout_s=120)
        # The moment is over once the guest runs again; its memory is still being read.
        wait_until(lambda: request.is_done() or
                   vmm.get("vm.snapshot-progress")["phase"] in ("copy", "publish", "done"), 60,
                   "a guest that runs on")
        vmm.guest.do("blk 0 stop", timeout_s=60)
        request.result(120)
        vmm.kill()
        self.assertIn("it was written after the snapshot", self.refused(",resume=on"))

    def test_all_that_is_wrong_is_said_at_once(self):
        disk = self.make_disk("disk.img", 8 * MIB)
        self.frozen(disk=f"path={disk}").kill()
        os.truncate(disk, 4 * MIB)
        log = self.refused(",set=[cpus.boot_vcpus=9,disks.nobody.path=/x]")
        for text in ("cpus.boot_vcpus=9: cannot be changed", "no disks nobody",
                     "its size has changed"):
            self.assertIn(text, log)
            self.assertIn(text, log.rsplit("chain of errors", 1)[1])
        log = self.refused(",set=[serial.file=/nonexistent/log]")
        self.assertIn("serial.file: /nonexistent/log: No such file", log)
        self.assertIn("its size has changed", log)

    def test_a_restore_may_change_the_host_s_side(self):
        disk = self.make_disk("disk.img", 8 * MIB)
        self.frozen(disk=f"path={disk}").kill()
        moved = disk.with_name("moved.img")
        disk.rename(moved)
        back = Vmm(self, "back", [
            "--restore", f"source_url=store:{self.dir}/store#warm,resume=on,"
            f"set=[disks._disk0.path={moved},memory.shared=on,serial.socket=other.sock]"])
        back.wait_state("Running")
        config = back.info()["config"]
        self.assertTrue(config["memory"]["shared"])
        self.assertEqual(config["disks"][0]["path"], str(moved))
        (back.dir / "other.sock").rename(back.dir / "serial.sock")
        back.attach()
        back.guest.do("verify", timeout_s=60)
        back.guest.do("blk 0 verify 0 64 9", timeout_s=60)


if __name__ == "__main__":
    lane_base.main()
