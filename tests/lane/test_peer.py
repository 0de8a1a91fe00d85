# SPDX-License-Identifier: Apache-2.0
"""
chvmm moves a guest to a receiver that somebody else could have written (peer_receiver.py): what
docs/migration-protocol.md says is enough.
"""

import re
import struct
import sys

import lane_base
from lane_base import MIB, LaneTest, wait_until
from lane_host import GuestMemory, differing_pages
from lane_move import free_port
from lane_vmm import Background, Vmm
from peer_receiver import ABORT, DATA, PAGE, RUNNING, ZSTD, Receiver, words_digest

sys.path.insert(0, str(lane_base.SOURCE / "tests" / "format"))
import read_store  # pylint: disable=wrong-import-position

RAM = 64 * MIB
FILLED = 16 * MIB
DIRTIED = 32 * MIB
DIRTY_MIB = 8
RUN_PAGES = (64 << 10) // PAGE  # what lies together travels in runs of so many at least
MUL = 0x100000001b3


def ram_digest(receiver, guest):
    """What the guest's "digest" command computes: 8 words a page of all RAM but its image."""
    image = [int(n, 16) for n in re.search(r"image=0x(\w+)-0x(\w+)", guest.do("info").text).groups()]
    ranges = [[int(word, 16) for word in line.split()[-2:]] for line in guest.do("map").lines
              if "ram 0x" in line]
    digest, pages = 0, 0
    for first, length in ranges:
        at, end = (first + PAGE - 1) // PAGE * PAGE, (first + length) // PAGE * PAGE
        while at < end:
            if image[0] <= at < image[1]:
                at = image[1]
                continue
            words = struct.unpack("<512Q", receiver.read(at, PAGE))
            for eighth in range(8):
                digest = (digest ^ words[64 * eighth + at // PAGE % 64]) * MUL & (1 << 64) - 1
            at += PAGE
            pages += 1
    return digest, pages


class PeerTest(LaneTest):
    def start(self):
        source = Vmm(self, "source", ["--kernel", str(lane_base.GUEST_ELF), "--cpus", "boot=1",
                                      "--memory", f"size={RAM // MIB}M"])
        source.boot()
        source.guest.do(f"fill {FILLED // MIB} 2 mix 3", timeout_s=60)
        return source

    def send(self, source, url, answer, capabilities=(), **options):
        """A whole migration.  Return: the receiver."""
        receiver = Receiver(url, answer, capabilities=capabilities)
        received = Background(receiver.run)
        nr = source.event_names().count("migration-failed")
        source.put("vm.send-migration", {"destination_url": url, **options})
        received.result(120)
        if answer == ABORT:
            wait_until(lambda: source.event_names().count("migration-failed") > nr, 20,
                       "a guest that was given back")
        else:
            self.assertEqual(source.wait_exit(), 0)
        self.assertEqual(len(receiver.regions), 1)
        self.assertEqual(receiver.regions[0].length, RAM)
        self.assertTrue(receiver.config and receiver.state)
        print(f"\n{url}: {receiver.data_pages} pages and {receiver.zero_pages} zero pages in "
              f"{receiver.rounds} rounds on {receiver.lanes} lanes, "
              f"{len(receiver.state)} bytes of state")
        return receiver

    def check_all_pages(self, source, receiver):
        memory = GuestMemory(source.pid, RAM)
        self.assertEqual(differing_pages(memory.page_digests(), receiver.page_digests()), [])
        memory.close()
        self.assertEqual(source.state(), "Paused")

    def test_every_page_of_a_paused_guest_arrives(self):
        source = self.start()
        guest = source.guest
        before = guest.do("digest")
        source.put("vm.pause")
        receiver = self.send(source, f"unix:{self.short}/peer", ABORT)
        self.check_all_pages(source, receiver)
        source.put("vm.resume")
        # The guest's own opinion of its memory, from before.
        digest, pages = ram_digest(receiver, guest)
        self.assertEqual((pages, digest), (before.number("pages"), int(before["digest"], 16)))
        guest.do("verify", timeout_s=60)

    def dirtied_runs(self, receiver):
        """Of the area that "dirty" writes, from end to end.  Return: for each round their pages."""
        first, end = DIRTIED // PAGE, (DIRTIED + DIRTY_MIB * MIB) // PAGE
        rounds = {}
        for number, _, page, pages, kind in receiver.runs:
            if first < page + pages and page < end:
                self.assertEqual(kind, DATA)
                rounds.setdefault(number, []).append(pages)
        return rounds

    def test_pages_that_lie_together_travel_together(self):
        """Whatever the number of lanes, and in rounds that send only what was written meanwhile."""
        source = self.start()
        source.guest.do(f"dirty {DIRTIED // MIB} {DIRTY_MIB} 0 seq")
        for lanes in (1, 4):
            # Each round takes longer than the guest needs to write all of it once.
            receiver = self.send(source, f"unix:{self.short}/peer{lanes}", ABORT, connections=lanes,
                                 compression="Off", bandwidth=20 << 20, downtime_ms=1,
                                 timeout_s=4, timeout_strategy="Ignore")
            self.assertEqual(receiver.lanes, lanes)
            whole = {number: pages for number, pages in self.dirtied_runs(receiver).items()
                     if sum(pages) >= DIRTY_MIB * MIB // PAGE}
            print({number: (len(pages), min(pages)) for number, pages in whole.items()})
            self.assertGreaterEqual(len(whole.keys() - {0}), 1)
            for pages in whole.values():
                # Borders of the area, and those between two lanes, may leave a short one.
                self.assertLessEqual(len(pages), sum(pages) // RUN_PAGES)

    def test_the_state_is_what_a_snapshot_has(self):
        """As bytes: one format, whoever reads it."""
        source = self.start()
        source.put("vm.pause")
        source.put("vm.snapshot", {"destination_url": f"store:{self.dir}/store#s"})
        receiver = self.send(source, f"unix:{self.short}/peer", ABORT)
        store = read_store.Store(self.dir / "store")
        (_, _, _, record), = store.snapshots()
        # A snapshot has the configuration before it, which a migration sends by itself.
        state = store.state(record)
        head = len(state) - len(receiver.state)
        self.assertEqual(state[head:], bytes(receiver.state))
        self.assertIn(receiver.config, state[:head])

    def test_every_compressed_page_arrives(self):
        lane_base.need_tool("zstd")
        source = self.start()
        source.put("vm.pause")
        receiver = self.send(source, f"unix:{self.short}/peer", ABORT, ("zstd",),
                             compression="Zstd", connections=2)
        self.assertIn(ZSTD, receiver.codecs)
        self.check_all_pages(source, receiver)

    def test_a_busy_guest_arrives_as_it_was_at_one_moment(self):
        source = self.start()
        guest = source.guest
        guest.do(f"dirty {DIRTIED // MIB} {DIRTY_MIB} 40 seq")
        receiver = self.send(source, f"tcp:127.0.0.1:{free_port()}", ABORT, connections=3)
        self.assertEqual(receiver.lanes, 3)
        self.assertIn("a second receiver gives the guest back",
                      source.get("vm.migration-progress")["error"])
        # The guest goes on, and digests what does not change.
        self.assertEqual(source.state(), "Running")
        own = guest.do(f"digest {FILLED:#x} {MIB:#x}", timeout_s=60)
        self.assertEqual(words_digest(receiver.read(FILLED, MIB)), int(own["digest"], 16))
        # What changes bears the number of its sweep: the latest up to some page, then the one before.
        sweeps = [struct.unpack("<Q", receiver.read(DIRTIED + at, 8))[0]
                  for at in range(0, DIRTY_MIB * MIB, PAGE)]
        borders = [i for i in range(1, len(sweeps)) if sweeps[i] != sweeps[i - 1]]
        self.assertLessEqual(len(borders), 1, sweeps[:20])
        for i in borders:
            self.assertEqual(sweeps[i], sweeps[i - 1] - 1)
        guest.do("dirty stop")
        guest.do("dirty check")

    def test_a_receiver_that_keeps_the_guest(self):
        source = self.start()
        source.guest.do("heartbeat 1000 deadline")
        self.send(source, f"unix:{self.short}/peer", RUNNING)


if __name__ == "__main__":
    lane_base.main()
