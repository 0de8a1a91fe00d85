# SPDX-License-Identifier: Apache-2.0
"""Taps as file descriptors: on the command line, with a request, for a restore and a move."""

import os
import subprocess

import lane_base
from lane_base import GUEST_ELF, MIB, LaneTest, program
from lane_move import free_port
from lane_net import Network, open_tap, ping
from lane_vmm import Background, Vmm, request_with_fds, vm_args

CONFIG = {"payload": {"kernel": str(GUEST_ELF)}, "memory": {"size": 128 * MIB},
          "serial": {"mode": "Socket", "socket": "serial.sock"}, "console": {"mode": "Off"},
          "net": [{"id": "wire", "fds": [77], "mac": "12:34:56:78:90:ab"}]}


class HandoverTest(LaneTest):
    def setUp(self):
        super().setUp()
        self.network = Network(self)
        self.tap = self.open_tap(0)

    def open_tap(self, number):
        host = self.network.hosts[number]
        fd = open_tap(host.ns, host.tap)
        self.addCleanup(os.close, fd)
        return fd

    def put(self, vmm, name, body, fds, status=204):
        got, answer = request_with_fds(vmm.api_path, name, body, fds)
        self.assertEqual(got, status, answer)
        return answer

    def create(self, name="vm"):
        vmm = Vmm(self, name)
        self.put(vmm, "vm.create", CONFIG, [self.tap])
        vmm.put("vm.boot")
        vmm.boot()
        vmm.guest.do(f"net 0 up {self.network.guest_address}")
        return vmm

    def assert_reached(self):
        self.assertEqual(ping(self.network.switch, self.network.guest_address, timeout_s=10), 5)

    def chctl(self, vmm, *args):
        return subprocess.run([program("chctl"), "--api-socket", str(vmm.api_path), *args],
                              capture_output=True, text=True, pass_fds=[self.tap], check=False,
                              timeout=60)

    def test_on_the_command_line(self):
        vmm = Vmm(self, "vm", vm_args(net=f"fd={self.tap},mac=12:34:56:78:90:ab"),
                  pass_fds=[self.tap])
        vmm.boot()
        vmm.guest.do(f"net 0 up {self.network.guest_address}")
        self.assert_reached()
        # They stay for the next boot.
        vmm.put("vm.shutdown")
        vmm.put("vm.boot")
        vmm.line.detach_all()
        vmm.boot()
        vmm.guest.do(f"net 0 up {self.network.guest_address}")
        self.assert_reached()

    def test_with_a_request(self):
        vmm = Vmm(self, "vm")
        for fds in ([], [self.tap, self.tap]):
            answer = self.put(vmm, "vm.create", CONFIG, fds, status=400) if fds else \
                vmm.refused("vm.create", CONFIG).chain
            self.assertIn(f"fds: {len(fds)} file descriptors came with the request, 1 are wanted",
                          answer)
        vmm.close()
        self.create("vm2")
        self.assert_reached()

    def test_a_restore_gets_its_own(self):
        vmm = self.create()
        (self.dir / "snap").mkdir()
        url = f"file://{self.dir}/snap"
        vmm.put("vm.snapshot", {"destination_url": url})
        vmm.put("vmm.shutdown")
        vmm.wait_exit()
        restored = Vmm(self, "restored", line=vmm.line)
        for body, word in (({}, "network wire was made with file descriptors and needs 1 here"),
                           ({"net_fds": [{"id": "other", "num_fds": 1}]}, "no such network")):
            if body:
                answer = self.put(restored, "vm.restore", {"source_url": url, **body}, [self.tap],
                                  status=500)
            else:
                answer = restored.refused("vm.restore", {"source_url": url}).chain
            self.assertIn(word, "".join(answer))
            self.assertIsNone(restored.state())
        done = self.chctl(restored, "restore",
                          f"source_url={url},resume=on,net_fds=[wire@[{self.tap}]]")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assert_reached()
        restored.put("vmm.shutdown")
        restored.wait_exit()
        Vmm(self, "again", ["--restore",
                            f"source_url={url},resume=on,net_fds=[wire@[{self.tap}]]"],
            pass_fds=[self.tap]).wait_state("Running")
        self.assert_reached()

    def test_a_move_gets_its_own(self):
        vmm = self.create()
        destination = Vmm(self, "destination", line=vmm.line)
        url = f"tcp:127.0.0.1:{free_port()}"
        tap = self.open_tap(1)
        receiving = Background(request_with_fds, destination.api_path, "vm.receive-migration",
                               {"receiver_url": url, "net_fds": [{"id": "wire", "num_fds": 1}]},
                               [tap])
        destination.wait_event("migration-receive-ready")
        vmm.put("vm.send-migration", {"destination_url": url})
        self.assertEqual(receiving.result(), (204, None))
        self.assertEqual(vmm.wait_exit(), 0)
        self.assert_reached()


if __name__ == "__main__":
    lane_base.main()
