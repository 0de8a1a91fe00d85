# SPDX-License-Identifier: Apache-2.0
"""
What is asked of a VM while it moves, or of a destination, at any moment: it is done, or refused in
words, and exactly one VM goes on, with its memory.

$LANE_ANYTIME_ROUNDS is how often each is tried, $LANE_ANYTIME_SEED of which moments.
"""

import os
import random
import socket
import time

import lane_base
from lane_base import MIB, LaneTest, wait_until
from lane_host import differing_pages, page_digests_of
from lane_move import Move, free_port, how_ended
from lane_tls import Authority
from lane_vmm import Background, Vmm, vm_args

RAM = 48 * MIB
ROUNDS = int(os.environ.get("LANE_ANYTIME_ROUNDS", "6"))
SEED = int(os.environ.get("LANE_ANYTIME_SEED", "11"))

# What a VM that is lent to its move refuses, and with what.
REFUSED = [("vm.snapshot", {"destination_url": "store:/nowhere#s"}), ("vm.pause", None),
           ("vm.resume", None), ("vm.power-button", None), ("vm.reboot", None),
           ("vm.shutdown", None), ("vm.delete", None), ("vm.nmi", None),
           ("vm.send-migration", {"destination_url": "tcp:127.0.0.1:1"}),
           ("vm.receive-migration", {"receiver_url": "tcp:127.0.0.1:0"})]
# There are none of these yet, at any time.
UNKNOWN = [("vm.resize", {"desired_vcpus": 2}), ("vm.add-disk", {"path": "/dev/null"}),
           ("vm.remove-device", {"id": "disk0"})]


class AnytimeTest(LaneTest):
    def setUp(self):
        super().setUp()
        self.random = random.Random(SEED)
        self.count = 0

    def start(self, options=f"{RAM >> 20}M", **more):
        vmm = Vmm(self, "source", vm_args(memory=options, cpus=2, **more))
        vmm.boot()
        vmm.guest.do("fill 16 12 mix 3", timeout_s=120)
        vmm.guest.do("cmos 0x40 0x77")
        return vmm

    def check(self, vmm):
        self.assertEqual(vmm.state(), "Running")
        vmm.guest.do("verify", timeout_s=120)
        self.assertEqual(vmm.guest.do("cmos 0x40").text, "0x77")

    def pages(self, vmm):
        return page_digests_of(vmm.pid, RAM)

    def tls(self):
        if not (self.dir / "tls").exists():
            Authority(self.dir / "ca").tls_dir(self.dir / "tls")
        return str(self.dir / "tls")

    def move(self, source, url=None, receive=None, **send):
        self.count += 1
        url = url or f"tcp:127.0.0.1:{free_port()}"
        return Move(source, f"to{self.count}", url, receive=receive, **send)

    def wait_over(self, move):
        """Return: who has the VM now."""
        wait_until(lambda: move.is_over() or not move.source.is_running(), 60, "the end of a move")
        if "migration-finished" in move.source.event_names():
            move.receiving.result(20)
            self.assertEqual(move.source.wait_exit(), 0)
            return move.destination
        move.receiving.wait(20)
        self.assertIsNotNone(move.receiving.error)
        wait_until(lambda: move.destination.state() is None, 20, "a destination without a VM")
        move.destination.put("vmm.shutdown")
        return move.source

    def cancel_at_random(self, vmm, longest_s, **options):
        """Moves that are cancelled, or were too quick for that.  Return: who has the VM now."""
        cancelled = 0
        for _ in range(ROUNDS):
            move = self.move(vmm, **options)
            time.sleep(self.random.random() * longest_s)
            who = self.random.choice((move.source, move.destination))
            try:
                status, answer = who.call("PUT", "vm.migration-cancel")
                self.assertIn(status, (204, 404, 500), answer)
            except AssertionError:
                self.assertIsNotNone(move.source.wait_exit())  # it has moved and ended
            new = self.wait_over(move)
            cancelled += new is vmm
            vmm = new
        return vmm, cancelled


class CancelTest(AnytimeTest):
    def fast(self):
        tls = self.tls()
        return {"receive": {"tls_dir": tls}, "tls_dir": tls, "connections": 8,
                "compression": "Zstd"}

    def test_a_paused_vm_with_everything(self):
        vmm = self.start()
        vmm.put("vm.pause")
        before = self.pages(vmm)
        vmm, _ = self.cancel_at_random(vmm, 0.1, **self.fast())
        self.assertEqual(vmm.state(), "Paused")
        self.assertLessEqual(len(differing_pages(before, self.pages(vmm))), 2)
        vmm = self.wait_over(self.move(vmm, **self.fast()))
        self.assertEqual(vmm.state(), "Paused")
        self.assertLessEqual(len(differing_pages(before, self.pages(vmm))), 2)
        vmm.put("vm.resume")
        vmm.attach()
        self.check(vmm)

    def test_a_vm_that_is_still_filling_with_everything(self):
        vmm = self.start()
        vmm.put("vm.pause")
        before = self.pages(vmm)
        url = f"store:{self.dir}/store#s"
        vmm.put("vm.snapshot", {"destination_url": url}, timeout_s=120)
        vmm.kill()
        for paused in (True, False):
            with self.subTest(paused=paused):
                options = "" if paused else ",resume=on"
                vmm = Vmm(self, f"filling{paused}", ["--restore", f"source_url={url},"
                                                     f"memory_restore_mode=ondemand{options}"])
                vmm.wait_state("Paused" if paused else "Running")
                vmm, _ = self.cancel_at_random(vmm, 0.1, **self.fast())
                vmm = self.wait_over(self.move(vmm, **self.fast()))
                if paused:
                    self.assertLessEqual(len(differing_pages(before, self.pages(vmm))), 2)
                    vmm.put("vm.resume")
                vmm.attach()
                self.check(vmm)
                vmm.kill()

    def test_memory_that_is_handed_over(self):
        vmm = self.start(options=f"{RAM >> 20}M,shared=on")
        vmm.guest.do("dirty 32 8 0 seq")
        url = f"unix:{self.short}/move"
        vmm, _ = self.cancel_at_random(vmm, 0.03, url=url, local=True)
        vmm = self.wait_over(self.move(vmm, url=url, local=True))
        vmm.attach()
        vmm.guest.do("dirty stop")
        vmm.guest.do("dirty check", timeout_s=60)
        self.check(vmm)


class KillTest(AnytimeTest):
    def test_a_destination_that_is_killed_and_a_fresh_one(self):
        tls = self.tls()
        everything = {"receive": {"tls_dir": tls}, "tls_dir": tls, "connections": 8,
                      "compression": "Zstd"}
        vmm = self.start()
        for i in range(ROUNDS):
            move = self.move(vmm, **everything)
            time.sleep(self.random.random() * 0.1)
            move.destination.kill()
            end = how_ended(vmm, 90)
            move.receiving.wait(20)
            if end == "gone":  # it had been taken, and died there
                (self.dir / "source").rename(self.dir / f"source{i}")
                vmm = self.start()
                continue
            if end == "undecided":
                self.assertEqual(vmm.state(), "Paused")
                lost = vmm.get("vm.migration-progress")["migration"]
                vmm.put("vm.migration-resolve", {"lost": lost})
            else:
                self.assertEqual(end, "failed")
            self.check(vmm)
        vmm = self.wait_over(self.move(vmm, **everything))
        vmm.attach()
        self.check(vmm)


class AskTest(AnytimeTest):
    def refuses(self, vmm, why):
        for name, body in REFUSED:
            error = vmm.refused(name, body)
            self.assertTrue(error.names(why), f"{name}: {error}")
        for name, body in UNKNOWN:
            vmm.refused(name, body)
        self.assertTrue(vmm.info())

    def test_of_a_vm_that_moves(self):
        """A move that takes its time; then moves of all speeds, at any moment of which one is asked."""
        vmm = self.start()
        slow = self.move(vmm, bandwidth=65536, compression="Off")
        wait_until(lambda: slow.destination.state() == "Created", 20, "a machine that is built")
        self.refuses(vmm, "it is being migrated away")
        self.refuses(slow.destination, "it is being received")
        vmm.put("vm.migration-cancel")
        self.assertIs(self.wait_over(slow), vmm)
        self.check(vmm)
        asked = REFUSED + UNKNOWN
        for _ in range(ROUNDS):
            move = self.move(vmm)
            name, body = self.random.choice(asked)
            time.sleep(self.random.random() * 0.15)
            try:
                status, answer = vmm.call("PUT", name, body)
                self.assertGreaterEqual(status, 400, f"{name}: {answer}")
            except AssertionError:
                self.assertEqual(vmm.wait_exit(), 0)  # it has moved and ended
            vmm = self.wait_over(move)
            self.assertIs(vmm, move.destination)
            vmm.attach()
            self.check(vmm)

    def test_of_a_vm_whose_snapshot_is_taken(self):
        """One after the other; never both."""
        vmm = self.start(options="128M")
        vmm.guest.do("fill 32 64 mix 5", timeout_s=120)
        url = f"store:{self.dir}/store#s"
        taking = Background(vmm.put, "vm.snapshot", {"destination_url": url}, timeout_s=120)
        wait_until(lambda: vmm.get("vm.snapshot-progress")["phase"] in ("copy", "stopped"), 20,
                   "a snapshot under way")
        error = vmm.refused("vm.send-migration", {"destination_url": "tcp:127.0.0.1:1"})
        self.assertTrue(error.names("a snapshot is being taken"), error)
        taking.result(120)
        vmm = self.wait_over(self.move(vmm))
        vmm.attach()
        self.check(vmm)


class ReceiveTest(AnytimeTest):
    def test_twice_in_vain_and_again(self):
        vmm = Vmm(self, "destination")
        nowhere = {"receiver_url": "tcp:127.0.0.1:0", "tls_dir": str(self.dir / "nowhere")}
        self.assertTrue(vmm.refused("vm.receive-migration", nowhere).names("ca-cert.pem"))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            url = f"tcp:127.0.0.1:{taken.getsockname()[1]}"
            error = vmm.refused("vm.receive-migration", {"receiver_url": url})
            self.assertTrue(error.names(f"{url}: Address already in use"), error)
        for i in range(3):
            waiting = Background(vmm.put, "vm.receive-migration",
                                 {"receiver_url": "tcp:127.0.0.1:0"})
            wait_until(lambda n=i: vmm.event_names().count("migration-receive-ready") == n + 1, 10,
                       "a destination that listens")
            error = vmm.refused("vm.receive-migration", {"receiver_url": "tcp:127.0.0.1:0"})
            self.assertTrue(error.names("it is being received"), error)
            vmm.put("vm.migration-cancel")
            waiting.wait(20)
            self.assertTrue(waiting.error.names("cancelled"), waiting.error)
        self.assertEqual(vmm.refused("vm.migration-cancel").status, 404)

    def test_strangers_and_another_source(self):
        """They come while a VM moves here, over TLS, and neither slow nor stop it."""
        tls = self.tls()
        receive = {"tls_dir": tls}
        vmm = self.start()
        second = Vmm(self, "second", vm_args(memory="32M"))
        port = free_port()
        strangers = []
        self.addCleanup(lambda: [s.close() for s in strangers])
        move = self.move(vmm, url=f"tcp:127.0.0.1:{port}", receive=receive, tls_dir=tls,
                         bandwidth=4 << 20, connections=8, compression="Off")
        strangers += [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        second.put("vm.send-migration", {"destination_url": f"tcp:127.0.0.1:{port}",
                                         "tls_dir": tls})
        second.wait_event("migration-failed")
        self.assertIn("another VM is moving to this destination already", second.log())
        self.assertIn("another VM is moving to this destination already", move.destination.log())
        second.put("vm.send-migration", {"destination_url": f"tcp:127.0.0.1:{port}"})
        wait_until(lambda: second.event_names().count("migration-failed") == 2, 20, "a refusal")
        self.assertIn("this destination speaks TLS, and the source has no tls_dir", second.log())
        self.assertEqual(second.state(), "Running")
        vmm.put("vm.migration-switchover")
        vmm = self.wait_over(move)
        self.assertIs(vmm, move.destination)
        vmm.attach()
        self.check(vmm)


if __name__ == "__main__":
    lane_base.main()
