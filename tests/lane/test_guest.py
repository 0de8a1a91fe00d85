# SPDX-License-Identifier: Apache-2.0
"""The test guest itself, in QEMU without KVM: what the other lane tests rely on."""

import os
import socket
import time

import lane_base
import lane_guest
from lane_base import GUEST_BZIMAGE, MIB, LaneTest
from lane_guest import digest, read_digest, sector
from lane_qemu import Qemu


class GuestTest(LaneTest):
    needs_kvm = False

    def start(self, **kwargs):
        qemu = Qemu(self, "qemu", **kwargs)
        qemu.guest.wait_ready()
        return qemu.guest

    def test_boot_information_arrives_by_both_protocols(self):
        initramfs = self.dir / "initramfs"
        initramfs.write_bytes(os.urandom(12345))
        for number, (kernel, boot) in enumerate([(lane_base.GUEST_ELF, "pvh"),
                                                 (GUEST_BZIMAGE, "linux32")]):
            qemu = Qemu(self, f"qemu{number}", kernel=kernel, cmdline="one two=3",
                        args=["-initrd", initramfs])
            qemu.guest.wait_ready()
            self.assertEqual(qemu.guest.boot, boot)
            self.assertEqual(qemu.guest.do("cmdline").text.split()[-2:], ["one", "two=3"])
            answer = qemu.guest.do("initrd")
            self.assertEqual(answer.number("len"), 12345)
            self.assertEqual(int(answer["digest"], 16), digest(initramfs.read_bytes()))

    def test_commands_on_the_kernel_command_line_run(self):
        guest = self.start(cmdline="quiet do=echo:first:word do=nonsense do=heartbeat:2000 last")
        self.assertEqual(guest.answer().text, "first word")
        with self.assertRaisesRegex(lane_guest.GuestError, "nonsense"):
            guest.answer()
        guest.answer()
        guest.line.run(0.2)
        self.assertGreater(len(guest.line.beats), 10)

    def test_memory_commands_notice_a_changed_word(self):
        guest = self.start()
        guest.do("fill 16 8 mix 5")
        guest.do("fill 32 8 sparse 6")
        guest.do("verify")
        guest.do("dirty 64 8 50 seq")
        time.sleep(0.5)
        guest.do("dirty stop")
        guest.do("dirty check")
        before = guest.do("digest")["digest"]
        self.assertEqual(guest.do("digest")["digest"], before)
        guest.do("poke 0x2000000 0x1234")
        self.assertIn("wrong=1", guest.refuses("verify"))
        guest.do("poke 0x4001000 0x7777")
        self.assertIn("wrong=1", guest.refuses("dirty check"))
        self.assertNotEqual(guest.do("digest")["digest"], before)

    def test_every_dirty_pattern_checks_itself(self):
        guest = self.start()
        for pattern in ("seq", "rand", "full"):
            guest.do(f"dirty 64 4 40 {pattern}")
            time.sleep(0.3)
            self.assertGreater(guest.do("dirty stop").number("count"), 100)
            guest.do("dirty check")

    def test_heartbeats_come_and_stay_out_of_the_answers(self):
        guest = self.start()
        for mode in ("deadline", "periodic", "loop"):
            guest.do(f"heartbeat 2000 {mode}")
            begin = len(guest.line.beats)
            guest.line.run(0.5)
            for _ in range(20):
                self.assertEqual(guest.do("echo a b").text, "a b")
            self.assertGreater(len(guest.line.beats) - begin, 50)
            guest.do("heartbeat off")

    def test_processors_dirty_their_own_pages(self):
        guest = self.start(cpus=3)
        self.assertEqual(guest.do("smp start").number("online"), 3)
        guest.do("smp dirty 64 2")
        time.sleep(0.3)
        guest.do("smp stop")
        guest.do("smp check")
        guest.do("poke 0x4000000 0")
        self.assertIn("wrong=1", guest.refuses("smp check"))

    def test_disk_contents_agree_with_the_host(self):
        head = os.urandom(MIB)
        disk = self.make_disk("disk.img", 16 * MIB, head)
        guest = self.start(args=[
            "-drive", f"file={disk},format=raw,if=none,id=d", "-device",
            "virtio-blk-pci,drive=d,disable-legacy=on,serial=one"])
        self.assertEqual(guest.do("blk 0 id")["id"], "one")
        self.assertEqual(int(guest.do("blk 0 read 3 200")["digest"], 16),
                         read_digest(head[3 * 512:203 * 512]))
        guest.do("blk 0 write 5000 77 9")
        guest.do("blk 0 flush")
        guest.do("blk 0 verify 5000 77 9")
        self.assertIn("wrong=1", guest.refuses("blk 0 verify 5000 78 9"))
        with open(disk, "rb") as image:
            image.seek(5000 * 512)
            self.assertEqual(image.read(77 * 512),
                             b"".join(sector(9, 5000 + i) for i in range(77)))
        guest.do(f"blk 0 load 0 {16 * MIB} {MIB}")
        answer = guest.do(f"digest {16 * MIB} {MIB}")
        self.assertEqual(int(answer["digest"], 16), digest(head))
        guest.do("blk 0 run 8192 4096")
        time.sleep(0.3)
        guest.do("blk 0 stop")
        guest.do("blk 0 check")

    def test_console_and_frames_come_back(self):
        port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        port.bind(("127.0.0.1", 0))
        port.settimeout(5)
        self.addCleanup(port.close)
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        probe.bind(("127.0.0.1", 0))
        there = probe.getsockname()[1]
        probe.close()
        console = self.short / "console"
        guest = self.start(args=[
            "-netdev", f"socket,id=n,udp=127.0.0.1:{port.getsockname()[1]},"
            f"localaddr=127.0.0.1:{there}",
            "-device", "virtio-net-pci,netdev=n,disable-legacy=on,mac=52:54:00:00:00:01,romfile=",
            "-chardev", f"socket,id=c,path={console},server=on,wait=off", "-device",
            "virtio-serial-pci,disable-legacy=on", "-device", "virtconsole,chardev=c"])
        self.assertEqual(guest.do("net 0 up 10.0.0.2")["mac"], "52:54:00:00:00:01")
        frame = bytes.fromhex("525400000001 020000000009 88b5") + os.urandom(100)
        port.sendto(frame, ("127.0.0.1", there))
        self.assertEqual(port.recv(2048),
                         frame[6:12] + frame[:6] + frame[12:])
        guest.do("console echo")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(5)
            peer.connect(str(console))
            peer.sendall(b"ping\n")
            self.assertEqual(peer.recv(100), b"ping\n")


if __name__ == "__main__":
    lane_base.main()
