# SPDX-License-Identifier: Apache-2.0
"""virtio devices, compared with what the host sees at their other end."""

import os
import time

import lane_base
from lane_base import MIB, LaneTest, wait_until
from lane_guest import Line, digest, read_digest, sector
from lane_net import ETH_OURS, Network, frame_socket, ping
from lane_vmm import Vmm, vm_args

SECTOR = 512


def sectors(path, first, count):
    with open(path, "rb") as disk:
        disk.seek(first * SECTOR)
        return disk.read(count * SECTOR)


class BlockTest(LaneTest):
    def start(self, *disks, **kwargs):
        self.vmm = Vmm(self, "vm", vm_args(disk=disks, **kwargs))
        return self.vmm.boot()

    def test_both_sides_see_one_disk(self):
        head = os.urandom(MIB)
        disk = self.make_disk("disk.img", 64 * MIB, head)
        guest = self.start(f"path={disk}")
        self.assertEqual(guest.do("blk 0 info").number("sectors"), 64 * MIB // SECTOR)
        self.assertEqual(int(guest.do("blk 0 read 3 200")["digest"], 16),
                         read_digest(head[3 * SECTOR:203 * SECTOR]))
        guest.do("blk 0 write 70000 300 9")
        guest.do("blk 0 flush")
        self.assertEqual(sectors(disk, 70000, 300),
                         b"".join(sector(9, 70000 + i) for i in range(300)))
        guest.do("blk 0 verify 70000 300 9")
        info = guest.do("blk 0 info")
        self.assertGreater(info.number("irqs"), 0)
        counters = self.vmm.get("vm.counters")
        self.assertGreaterEqual(max(c.get("write_bytes", 0) for c in counters.values()),
                                300 * SECTOR)

    def test_direct(self):
        disk = self.make_disk("disk.img", 16 * MIB, os.urandom(MIB))
        guest = self.start(f"path={disk},direct=on")
        guest.do("blk 0 write 4096 256 3")
        guest.do("blk 0 write 5001 3 4")
        guest.do("blk 0 verify 4096 256 3")
        guest.do("blk 0 verify 5001 3 4")
        guest.do("blk 0 flush")
        self.assertEqual(sectors(disk, 5001, 3), b"".join(sector(4, 5001 + i) for i in range(3)))

    def test_zeroes_and_discards(self):
        disk = self.make_disk("disk.img", 16 * MIB)
        guest = self.start(f"path={disk}")
        guest.do("blk 0 write 0 2048 5")
        guest.do("blk 0 zero 100 50")
        guest.do("blk 0 verify 100 50 zero")
        guest.do("blk 0 verify 0 100 5")
        guest.do("blk 0 verify 150 1898 5")
        guest.do("blk 0 discard 1024 512")
        guest.do("blk 0 verify 0 100 5")
        guest.do("blk 0 verify 1536 512 5")
        self.assertEqual(sectors(disk, 100, 50), bytes(50 * SECTOR))

    def test_requests_beyond_the_end_fail(self):
        disk = self.make_disk("disk.img", MIB)
        guest = self.start(f"path={disk}")
        self.assertIn("status 1", guest.refuses("blk 0 read 2047 2"))
        self.assertIn("status 1", guest.refuses("blk 0 write 0xffffffffffffff 1 1"))
        guest.do("blk 0 read 2047 1")

    def test_readonly(self):
        content = os.urandom(MIB)
        disk = self.make_disk("disk.img", MIB, content)
        guest = self.start(f"path={disk},readonly=on")
        self.assertEqual(int(guest.do("blk 0 read 0 128")["digest"], 16),
                         read_digest(content[:128 * SECTOR]))
        self.assertIn("status 1", guest.refuses("blk 0 write 0 1 1"))
        self.assertEqual(disk.read_bytes(), content)

    def test_several_disks_and_their_names(self):
        disks = [self.make_disk(f"disk{i}.img", (i + 1) * MIB) for i in range(3)]
        guest = self.start(*[f"path={d},serial=serial-{i},num_queues=1"
                             for i, d in enumerate(disks)])
        for i in range(3):
            self.assertEqual(guest.do(f"blk {i} id")["id"], f"serial-{i}")
            self.assertEqual(guest.do(f"blk {i} info").number("sectors"), (i + 1) * 2048)
            guest.do(f"blk {i} write 0 16 {i + 1}")
        for i in range(3):
            guest.do(f"blk {i} verify 0 16 {i + 1}")

    def test_many_in_flight(self):
        disk = self.make_disk("disk.img", 32 * MIB)
        guest = self.start(f"path={disk}")
        guest.do("blk 0 run 2048 8192")
        time.sleep(2)
        answer = guest.do("blk 0 stop")
        self.assertGreater(answer.number("index") + answer.number("sweeps"), 0)
        guest.do("blk 0 check", timeout_s=60)

    def test_large_requests_move_memory(self):
        content = os.urandom(32 * MIB)
        disk = self.make_disk("disk.img", 128 * MIB, content)
        guest = self.start(f"path={disk}")
        guest.do(f"blk 0 load 0 {64 * MIB} {32 * MIB}")
        self.assertEqual(int(guest.do(f"digest {80 * MIB} 65536")["digest"], 16),
                         digest(content[16 * MIB:16 * MIB + 65536]))
        guest.do(f"blk 0 store 131072 {64 * MIB} {32 * MIB}")
        guest.do("blk 0 flush")
        self.assertEqual(sectors(disk, 131072, 32 * MIB // SECTOR), content)

    def test_reset_and_start_again(self):
        disk = self.make_disk("disk.img", 4 * MIB)
        guest = self.start(f"path={disk}")
        for i in range(5):
            guest.do(f"blk 0 write {16 * i} 16 {i + 1}")
            guest.do("blk 0 reset")
        for i in range(5):
            guest.do(f"blk 0 verify {16 * i} 16 {i + 1}")

    def test_a_disk_in_use_is_refused(self):
        disk = self.make_disk("disk.img", MIB)
        self.start(f"path={disk}")
        second = Vmm(self, "second", vm_args(disk=f"path={disk}"), wait_api=False)
        self.assertEqual(second.wait_exit(), 1)
        self.assertIn(str(disk), second.log())
        self.assertIn("in use", second.log())


class NetTest(LaneTest):
    def start(self, options="", **kwargs):
        self.network = Network(self, nr_hosts=1)
        host = self.network.hosts[0]
        self.vmm = Vmm(self, "vm", vm_args(
            net=f"tap={host.tap},mac=12:34:56:78:90:ab{options}", **kwargs), netns=host.ns)
        guest = self.vmm.boot()
        self.up = guest.do(f"net 0 up {self.network.guest_address}")
        return guest

    def test_ping_both_ways(self):
        guest = self.start()
        self.assertEqual(self.up["mac"], "12:34:56:78:90:ab")
        self.assertEqual(ping(self.network.switch, self.network.guest_address, 10), 10)
        guest.do(f"net 0 arp {self.network.switch_address}")
        stat = guest.do("net 0 stat")
        self.assertGreaterEqual(stat.number("pings"), 10)
        self.assertGreater(stat.number("irqs"), 0)
        self.assertEqual(stat.number("link"), 1)

    def test_frames_of_all_lengths_come_back(self):
        guest = self.start()
        sock = frame_socket(self.network.switch, "br0")
        me = sock.getsockname()[4]
        mac = bytes.fromhex("1234567890ab")
        for length in (60, 61, 64, 200, 513, 1000, 1499, 1514):
            frame = mac + me + ETH_OURS.to_bytes(2, "big") + os.urandom(length - 14)
            sock.send(frame)
            expected = me + mac + frame[12:]
            end = time.monotonic() + 5
            while sock.recv(2048) != expected:
                self.assertLess(time.monotonic(), end, f"no frame of {length} bytes came back")
        self.assertEqual(guest.do("net 0 stat").number("ours"), 8)
        sock.close()

    def test_many_frames_leave(self):
        guest = self.start()
        sock = frame_socket(self.network.switch, "br0")
        guest.do("net 0 send 200 300")
        seen = set()
        end = time.monotonic() + 5
        while len(seen) < 200 and time.monotonic() < end:
            frame = sock.recv(2048)
            if frame[12:14] == ETH_OURS.to_bytes(2, "big") and frame[6:12].hex() == "1234567890ab":
                seen.add(int.from_bytes(frame[14:16], "big"))
                self.assertEqual(len(frame), 300)
        self.assertEqual(seen, set(range(200)))
        sock.close()

    def test_down_and_up_again(self):
        guest = self.start()
        for _ in range(3):
            guest.do("net 0 down")
            guest.do(f"net 0 up {self.network.guest_address}")
            self.assertEqual(ping(self.network.switch, self.network.guest_address, 3), 3)

    def test_a_tap_that_is_made_by_the_vmm(self):
        network = Network(self, nr_hosts=1)
        host = network.hosts[0]
        vmm = Vmm(self, "vm", vm_args(net="tap=,ip=10.211.8.1,mask=255.255.255.0"), netns=host.ns)
        guest = vmm.boot()
        guest.do("net 0 up 10.211.8.2")
        self.assertEqual(ping(host.ns, "10.211.8.2", 5), 5)


class OtherTest(LaneTest):
    def test_random_bytes(self):
        guest = Vmm(self, "vm", vm_args()).boot()
        first, second = guest.do("rng 64"), guest.do("rng 64")
        self.assertEqual(first["len"], "64")
        self.assertNotEqual(first["bytes"], second["bytes"])
        self.assertGreater(len(set(bytes.fromhex(first["bytes"]))), 16)

    def test_random_bytes_from_a_chosen_source(self):
        guest = Vmm(self, "vm", vm_args(rng="src=/dev/zero")).boot()
        answer = guest.do("rng 32")
        self.assertEqual(bytes.fromhex(answer["bytes"]), bytes(32))

    def test_console_to_a_file(self):
        target = self.dir / "console"
        guest = Vmm(self, "vm", vm_args(console=f"file={target}")).boot()
        for i in range(10):
            guest.do(f"console write line{i}")
        wait_until(lambda: target.read_text() == "".join(f"line{i}\n" for i in range(10)), 5,
                   "ten lines in the file")

    def test_console_on_a_pty(self):
        vmm = Vmm(self, "vm", vm_args(console="pty"))
        guest = vmm.boot()
        guest.do("console echo")
        path = wait_until(lambda: vmm.info()["config"]["console"].get("file"), 5, "the pty's path")
        console = Line()
        self.addCleanup(console.close)
        console.attach_path(path)
        console.write(b"to and fro\n")
        console.expect(rb"to and fro\r?\n")
        guest.do("console write more")
        console.expect(rb"more\r?\n")

    def test_cmos_keeps_what_is_written(self):
        guest = Vmm(self, "vm", vm_args()).boot()
        guest.do("cmos 0x40 0x5a")
        guest.do("cmos 0x41 0xa5")
        self.assertEqual(guest.do("cmos 0x40").text, "0x5a")
        self.assertEqual(guest.do("cmos 0x41").text, "0xa5")

    def test_generation_id_is_there(self):
        vmm = Vmm(self, "vm", vm_args())
        guest = vmm.boot()
        answer = guest.do("genid")
        self.assertNotEqual(answer["id"], "0" * 32)


if __name__ == "__main__":
    lane_base.main()
