# SPDX-License-Identifier: Apache-2.0
"""
There and back, over and over, on every kind of link in turn: of two moves the guest is paused, and all
of its RAM (by digest) and every field of its state are compared with what they were; in a third it runs,
and says itself what became of its memory and its disk.  LANE_SOAK_MOVES of them.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import lane_base
from lane_base import MIB, LaneTest, program
from lane_move import Move, free_port
from lane_tls import Authority
from lane_vmm import Vmm, vm_args

MOVES = int(os.environ.get("LANE_SOAK_MOVES", "300"))  # 200 of them compared
STORE_MOVES = 120  # a new store after so many: not between two that are compared
PAGE = 4096

# URL, TLS, and what is asked of the source.
KINDS = (("tcp", False, {"connections": 1}), ("unix", False, {"local": True}),
         ("tcp", True, {"connections": 1}), ("unix", False, {"connections": 4}),
         ("tcp", False, {"connections": 4, "compression": "Zstd"}), ("tcp", True, {"connections": 4}),
         ("unix", False, {"connections": 1, "compression": "Zstd"}),
         ("tcp", True, {"connections": 4, "compression": "Zstd"}),
         ("tcp", False, {"connections": 4, "bandwidth": 400000000}))


class SoakTest(LaneTest):
    def start(self):
        self.tls = str(Authority(self.dir / "ca").tls_dir(self.dir / "tls"))
        self.moves = self.compared = 0
        self.leaving = None
        ram = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.stores = pathlib.Path(tempfile.mkdtemp(prefix="lane-soak.", dir=ram))
        self.addCleanup(shutil.rmtree, self.stores, ignore_errors=True)
        disk = self.make_disk("disk.img", 8 * MIB)
        vmm = Vmm(self, "source", vm_args(memory="64M,shared=on", cpus=2, disk=f"path={disk}"))
        guest = vmm.boot()
        guest.do("fill 16 1 sparse 3", timeout_s=60)
        guest.do("dirty 32 2 20 seq")
        guest.do("blk 0 run 0 2048")
        guest.do("heartbeat 1000 deadline")
        clock = guest.do("info").number("kvmclock")
        # Pausing writes the time into the guest's clock.
        self.may_differ = {clock // PAGE * PAGE} if clock else set()
        return vmm

    def move(self, vmm):
        """Return: where the VM is now."""
        scheme, tls, options = KINDS[self.moves % len(KINDS)]
        self.moves += 1
        name = f"m{self.moves}"
        url = f"tcp:127.0.0.1:{free_port()}" if scheme == "tcp" else f"unix:{self.short}/{name}"
        if tls:
            options = {**options, "tls_dir": self.tls}
        move = Move(vmm, name, url, receive={"tls_dir": self.tls} if tls else None, **options)
        move.finish(60)
        self.see_off()
        self.leaving = vmm
        return move.destination

    def see_off(self):
        """The process that the VM has left ends; by the next move it has."""
        if self.leaving:
            self.assertEqual(self.leaving.wait_exit(), 0)
            self.leaving.stderr.close()
            if self.moves > 2:
                shutil.rmtree(self.leaving.dir)
        self.leaving = None

    def snapshot(self, vmm, name):
        store = self.stores / str(self.moves // STORE_MOVES)
        vmm.put("vm.snapshot", {"destination_url": f"store:{store}#{name}"})
        return store, name

    def compare(self, before, after):
        done = subprocess.run([program("chsnap"), "diff", "--json", "--runs", str(before[0]), before[1],
                               after[1]],
                              capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        diff = json.loads(done.stdout)
        for part in ("state", "config", "disks"):
            self.assertEqual(diff[part], [], part)
        memory = diff["memory"]
        pages = {run["gpa"] + i * PAGE for run in memory["runs"] for i in range(run["pages"])}
        self.assertEqual(len(pages), sum(memory[change] for change in
                                         ("changed", "filled", "cleared", "added", "removed")))
        self.assertLessEqual(pages, self.may_differ)
        self.compared += 1

    def cycle(self, vmm):
        """Two moves that are compared, one of a running guest.  Return: where the VM is then."""
        vmm.put("vm.pause")
        before = self.snapshot(vmm, f"a{self.moves}")
        for _ in range(2):
            vmm = self.move(vmm)
            self.assertEqual(vmm.state(), "Paused")
            after = self.snapshot(vmm, f"b{self.moves}")
            self.compare(before, after)
            before = after
        vmm.put("vm.resume")
        vmm = self.move(vmm)
        vmm.line.wait_beats(2)
        vmm.guest.do("dirty check", timeout_s=60)
        return vmm

    def test_there_and_back_and_nothing_is_lost(self):
        begin = time.monotonic()
        vmm = self.start()
        while self.moves < MOVES:
            try:
                vmm = self.cycle(vmm)
            except Exception as error:
                kind = KINDS[(self.moves - 1) % len(KINDS)]
                raise AssertionError(f"move {self.moves}, {kind}: {error}") from error
            if self.moves % STORE_MOVES == 0:
                shutil.rmtree(self.stores / str(self.moves // STORE_MOVES - 1), ignore_errors=True)
        self.see_off()
        guest = vmm.guest
        guest.do("heartbeat off")
        guest.do("dirty stop")
        guest.do("dirty check")
        guest.do("verify", timeout_s=60)
        guest.do("blk 0 stop")
        guest.do("blk 0 check", timeout_s=60)
        print(f"\n{self.moves} moves in {time.monotonic() - begin:.1f} s, {self.compared} of them "
              "with all RAM and all state compared, 0 wrong")
        self.assertGreaterEqual(self.compared, MOVES * 2 // 3)


if __name__ == "__main__":
    lane_base.main()
