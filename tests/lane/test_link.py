# SPDX-License-Identifier: Apache-2.0
"""A link between two hosts that is slow, that stops for a moment, and that dies and comes back."""

import subprocess
import time

import lane_base
from lane_base import MIB, Jitter, LaneTest, need_tool, wait_until
from lane_move import Move, free_port
from lane_net import Network, ip
from lane_tls import Authority
from lane_vmm import Background, Vmm, vm_args

LINK_MBIT = 200
LINK_BYTES = LINK_MBIT * 1000000 // 8
SLOW_MBIT = 16  # slow enough that a move is still going on when the link dies
DATA_MIB = 12
DEAD_S = 10  # docs/migration-protocol.md 7: by then a dead peer is noticed


class LinkTest(LaneTest):
    def setUp(self):
        super().setUp()
        need_tool("tc")
        self.network = Network(self)
        self.tls = str(Authority(self.dir / "ca").tls_dir(
            self.dir / "tls", names=tuple(f"IP:{self.network.address(i)}" for i in range(2))))

    def limit(self, mbit):
        """Both ways, where they leave the hosts."""
        for host in self.network.hosts:
            done = subprocess.run(
                ["tc", "-n", host.ns, "qdisc", "replace", "dev", "up0", "root", "tbf", "rate",
                 f"{mbit}mbit", "burst", "64kb", "latency", "100ms"],
                capture_output=True, text=True, check=False)
            if done.returncode:
                self.skipTest(f"tc: {done.stderr.strip()}")

    def cable(self, state):
        """Pulled out of the switch, or in again."""
        ip("link", "set", "port0", state, ns=self.network.switch)

    def start(self):
        vmm = Vmm(self, "source", vm_args(memory="64M"), netns=self.network.hosts[0].ns)
        vmm.boot()
        vmm.guest.do(f"fill 16 {DATA_MIB} sparse 3", timeout_s=60)
        vmm.guest.do("dirty 32 1 4 seq")
        vmm.guest.do("heartbeat 1000 deadline")
        return vmm

    def move(self, source, name, **options):
        port = free_port()
        return Move(source, name, f"tcp:{self.network.address(1)}:{port}",
                    listen_url=f"tcp:0.0.0.0:{port}", netns=self.network.hosts[1].ns,
                    tls_dir=self.tls, receive={"tls_dir": self.tls}, **options)

    def is_whole(self, vmm):
        vmm.line.wait_beats(50)
        vmm.guest.do("dirty check")
        vmm.guest.do("verify", timeout_s=60)

    def wait_sent(self, source, share):
        """Until a part of the first round is through."""
        def look():
            source.line.pump(0.01)
            progress = source.get("vm.migration-progress")
            return progress["phase"] == "rounds" and \
                progress["wire_bytes"] > share * DATA_MIB * MIB
        wait_until(look, 60, "a move that is going on")

    def test_a_slow_link_is_used_and_does_not_lengthen_the_blackout(self):
        self.limit(LINK_MBIT)
        source = self.start()
        jitter = Jitter()
        self.addCleanup(jitter.stop)
        begin = time.monotonic()
        source.line.run(1)
        calm = source.line.longest_gap_s(begin)
        migration = self.move(source, "destination", connections=2, compression="Off")
        end = Background(source.get, "vm.migration-wait")
        migration.finish(60)
        answer = end.result()
        # A round is over when all of it is there, so that no buffer is counted as sent; what the
        # blackout sends is not in the rounds' time, and thus not in their bytes.
        rounds = answer["rounds"]
        sent = sum(r["data_pages"] for r in rounds) * 4096
        rate = sent / sum(r["took_ns"] for r in rounds) * 1e9
        blackout = answer["phases_ns"]["blackout"] / 1e9
        noise = calm + jitter.worst_s(begin)
        print(f"\n{sent / 1e6:.1f} MB at {rate / 1e6:.1f} MB/s over "
              f"{LINK_BYTES / 1e6:.0f} MB/s, blackout {blackout * 1000:.1f} ms")
        self.assertGreater(sent, DATA_MIB * MIB)
        # A machine with other things to do is slower than the link, never faster.
        self.assertLess(rate, LINK_BYTES * 1.05)
        self.assertLess(blackout, 0.3 + 2 * noise)  # downtime_ms
        self.is_whole(migration.destination)

    def test_compression_pays_on_a_slow_link(self):
        """By itself: nobody asked for it."""
        self.limit(LINK_MBIT)
        source = self.start()
        migration = self.move(source, "destination")
        end = Background(source.get, "vm.migration-wait")
        migration.finish(60)
        answer = end.result()
        self.assertGreater(answer["zstd_pages"], 0)
        self.assertGreater(answer["codec_bytes"]["zstd"], 0)
        self.assertLess(answer["wire_bytes"], answer["data_pages"] * 4096)
        self.is_whole(migration.destination)

    def test_a_link_that_stops_for_a_moment(self):
        self.limit(SLOW_MBIT)
        source = self.start()
        migration = self.move(source, "destination", connections=2, compression="Off")
        self.wait_sent(source, 0.1)
        self.cable("down")
        source.line.run(2)
        self.assertEqual(source.state(), "Running")
        self.cable("up")
        self.limit(LINK_MBIT)
        migration.finish(90)
        self.is_whole(migration.destination)

    def test_a_link_that_dies_and_comes_back(self):
        self.limit(SLOW_MBIT)
        source = self.start()
        migration = self.move(source, "first", connections=2, compression="Off")
        self.wait_sent(source, 0.1)
        jitter = Jitter()
        self.addCleanup(jitter.stop)
        self.cable("down")
        dead = time.monotonic()
        migration.fail(DEAD_S + 20)
        noticed = time.monotonic() - dead
        print(f"\na dead link was noticed after {noticed:.1f} s")
        self.assertLess(noticed, DEAD_S + jitter.worst_s(dead))
        self.assertEqual(source.state(), "Running")
        self.is_whole(source)
        # The destination notices by itself, and has no VM.
        migration.receiving.wait(DEAD_S + 20)
        self.assertIsNone(migration.destination.state())
        self.cable("up")
        self.limit(LINK_MBIT)
        for host in self.network.hosts:  # an address that was in vain asked for is not asked for at once
            ip("neigh", "flush", "dev", "up0", ns=host.ns)
        migration = self.move(source, "second", connections=2)
        migration.finish(60)
        self.is_whole(migration.destination)


if __name__ == "__main__":
    lane_base.main()
