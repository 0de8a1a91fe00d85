# SPDX-License-Identifier: Apache-2.0
"""
A source that somebody else could have written (peer_source.py) gives chvmm a guest: what
docs/migration-protocol.md says is enough.  The guest comes from chvmm to peer_receiver.py before.
"""

import fcntl
import json
import os
import random
import struct
import sys

import lane_base
from lane_base import MIB, LaneTest, wait_until
from lane_move import free_port
from lane_tls import Authority
from lane_vmm import Background, Vmm, vm_args
from peer_receiver import Receiver
from peer_source import Source
from peer_wire import (COMMIT, DATA, FACTS, LAST, LOADED, OPTIONAL, PAGE, PAGES, ROUND_DONE,
                       ROUND_END, RUNNING, STATE, STOP, GaveUp, ProtocolError, Refused)

sys.path.insert(0, str(lane_base.SOURCE / "tests" / "format"))
import read_state  # pylint: disable=wrong-import-position

RAM = 64 * MIB
FILLED = 16 * MIB
DISK = 8 * MIB
F_ADD_SEALS, F_SEAL_SHRINK = 1033, 2


def facts(receiver, disks=()):
    """3.16, of the state that is to come."""
    sections = read_state.read_state(bytes(receiver.state))
    devices = [s for s in sections if s["type"] not in ("machine", "x86-vcpu")]
    return {"boot": "of another host", "disks": list(disks),
            "sections": [{"id": s["id"], "version": s["version"]} for s in devices]}


def disk_facts(name, path):
    stat = os.stat(path)
    return {"id": name, "size": stat.st_size, "device": stat.st_dev, "inode": stat.st_ino}


class SourceTest(LaneTest):
    def take_guest(self, size=f"{RAM // MIB}M", **args):
        """A guest that was at work.  Return: the Vmm that it was in, the Receiver that has it."""
        vmm = Vmm(self, "first", vm_args(memory=size, **args))
        guest = vmm.boot()
        guest.do(f"fill {FILLED // MIB} 2 mix 3", timeout_s=60)
        guest.do("cmos 0x41 0x66")
        self.digest = guest.do("digest", timeout_s=60)["digest"]
        guest.do("heartbeat 5000 deadline")
        vmm.line.wait_beats(20)
        self.config = vmm.info()["config"]
        receiver = Receiver(f"unix:{self.short}/peer", RUNNING)
        received = Background(receiver.run)
        vmm.put("vm.send-migration", {"destination_url": f"unix:{self.short}/peer"})
        received.result(60)
        self.assertEqual(vmm.wait_exit(), 0)
        return vmm, receiver

    def listen(self, first, url, name="second", **options):
        """Return: a Vmm that waits there, its answer when it has ended."""
        vmm = Vmm(self, name, line=first.line)
        vmm.serial = first.serial
        receiving = Background(vmm.call, "PUT", "vm.receive-migration",
                               {"receiver_url": url, **options})
        wait_until(lambda: "migration-receive-ready" in vmm.event_names(), 10, "one that listens")
        return vmm, receiving

    def source(self, url, receiver, **more):
        return Source(url, receiver.regions, receiver.config, bytes(receiver.state), **more)

    def tcp(self):
        return f"tcp:127.0.0.1:{free_port()}"

    def check(self, vmm):
        """The guest goes on: it has its memory, its clock and its devices."""
        vmm.attach()
        vmm.line.wait_beats(100)
        vmm.guest.do("heartbeat off")
        self.assertEqual(vmm.guest.do("digest", timeout_s=60)["digest"], self.digest)
        vmm.guest.do("verify", timeout_s=60)
        self.assertEqual(vmm.guest.do("cmos 0x41").text, "0x66")


class MovesTest(SourceTest):
    def moves(self, url, listen=None, guest=None, rounds=(), **more):
        first, receiver = guest or self.take_guest()
        vmm, receiving = self.listen(first, url, **(listen or {}))
        source = self.source(url, receiver, **more)
        times = source.run(rounds(source) if rounds else ())
        self.assertEqual(receiving.result(20), (204, None))
        self.assertTrue(all(times), times)
        progress = vmm.get("vm.migration-progress")
        self.assertEqual((progress["result"], progress["lanes"]),
                         ("completed", source.lanes_wanted))
        # Chapter 6.1: both ends call it by one name, and can say how it went.
        self.assertEqual(progress["migration"], source.migration())
        self.assertEqual(vmm.put("vm.migration-resolve")["statement"], source.statement("taken"))
        self.check(vmm)
        return source, progress

    def test_tcp(self):
        first, receiver = self.take_guest()
        # 3.2: what the machine is made of.
        config, model = read_state.read_state(receiver.config)
        self.assertEqual((config["id"], model["id"]), ("config", "cpu-model"))
        self.assertEqual(json.loads(bytes.fromhex(config["fields"]["json"])), self.config)
        self.moves(self.tcp(), guest=(first, receiver), facts=json.dumps(facts(receiver)).encode())

    def old_pages(self, source, seed):
        """Of every region, in an order of its own: what a page might have been before."""
        dice = random.Random(seed)
        pages = list(source.all_pages())
        dice.shuffle(pages)
        return [(region, page, content if dice.random() < 0.5 else dice.randbytes(PAGE))
                for region, page, content in pages]

    def test_older_versions_of_pages_on_three_lanes(self):
        def rounds(source):
            for seed in range(2):
                yield self.old_pages(source, seed)
            yield source.all_pages()
        source, progress = self.moves(self.tcp(), rounds=rounds, lanes=3)
        # These, the first harvest after the stop, the last.
        self.assertEqual((source.round, progress["lanes"]), (5, 3))

    def test_a_page_that_never_came_is_zero(self):
        def rounds(source):
            yield [page for page in source.all_pages() if any(page[2])]
        _, progress = self.moves(f"unix:{self.short}/move", rounds=rounds, lanes=2)
        self.assertEqual(progress["zero_pages"], 0)

    def commits(self, source, vmm, receiving):
        source.commit()
        source.close()
        self.assertEqual(receiving.result(20), (204, None))
        self.check(vmm)

    def test_all_in_one_round_that_is_the_last(self):
        """3.7, 3.9, 3.10: a guest that stands still; its sections in another order."""
        first, receiver = self.take_guest()
        vmm, receiving = self.listen(first, f"unix:{self.short}/move")
        source = self.source(f"unix:{self.short}/move", receiver, lanes=2)
        source.greet()
        source.describe()
        source.lanes = [source.open_lane(1), source.open_lane(0)]
        source.control.send(STOP)
        sections = read_state.raw_sections(source.state)
        source.control.send(STATE, struct.pack("<II", LAST, 0) + b"".join(reversed(sections)))
        source.send_round(source.all_pages(), last=True)
        source.control.expect(LOADED)
        self.commits(source, vmm, receiving)

    def test_rounds_that_wait_for_nothing(self):
        """3.8: what comes over the lanes is in order by itself."""
        first, receiver = self.take_guest()
        vmm, receiving = self.listen(first, f"unix:{self.short}/move")
        source = self.source(f"unix:{self.short}/move", receiver, lanes=2)
        source.greet()
        source.describe()
        source.open_lanes()
        source.control.send(999, b"of a later version", OPTIONAL)
        for number in range(3):
            for lane in source.lanes:
                lane.send(ROUND_END, struct.pack("<IIQQ", number, 0, 0, 0))
        for number in range(3):
            self.assertEqual(source.control.expect(ROUND_DONE), struct.pack("<II", number, 0))
        source.round = 3
        source.send_round(source.all_pages())
        source.stop()
        self.commits(source, vmm, receiving)

    def test_tls(self):
        tls = Authority(self.dir / "ca").tls_dir(self.dir / "tls")
        _, progress = self.moves(self.tcp(), {"tls_dir": str(tls)}, tls_dir=tls, lanes=3)
        self.assertTrue(progress["encrypted"])

    def test_compressed(self):
        lane_base.need_tool("zstd")
        source, progress = self.moves(self.tcp(), capabilities=("zstd", "unheard-of"), lanes=2)
        self.assertEqual(source.agreed, {"zstd"})
        self.assertGreater(source.zstd_frames, 0)
        self.assertGreater(progress["zstd_pages"], 0)

    def test_memory_is_handed_over(self):
        first, receiver = self.take_guest(size=f"{RAM // MIB}M,shared=on")
        for region in receiver.regions:
            region.fd = os.memfd_create("guest", os.MFD_ALLOW_SEALING)
            self.addCleanup(os.close, region.fd)
            os.pwrite(region.fd, region.memory[:], 0)
            fcntl.fcntl(region.fd, F_ADD_SEALS, F_SEAL_SHRINK)
        source, progress = self.moves(f"unix:{self.short}/move", guest=(first, receiver),
                                      capabilities=("memory-fds",))
        self.assertEqual(source.agreed, {"memory-fds"})
        self.assertTrue(progress["memory_handed_over"])

    def test_a_disk(self):
        disk = self.make_disk("disk.img", DISK, os.urandom(DISK))
        first, receiver = self.take_guest(disk=f"path={disk}")
        known = facts(receiver, [disk_facts("_disk0", disk)])
        self.moves(self.tcp(), guest=(first, receiver), facts=json.dumps(known).encode())


class FailsTest(SourceTest):
    """Chapter 6: a destination that is left alone has no guest, and says why."""

    def setUp(self):
        super().setUp()
        self.first, self.receiver = self.take_guest()
        self.nr = 0

    def fails(self, act, why, heard=None, reason=None, listen=None, url=None, **more):
        """act: what the source does.  why: the destination's.  heard, reason: the source's."""
        self.nr += 1
        url = url or f"unix:{self.short}/u{self.nr}"
        vmm, receiving = self.listen(self.first, url, f"second-{self.nr}", **(listen or {}))
        source = self.source(url, self.receiver, **more)
        try:
            if heard:
                with self.assertRaises(heard) as caught:
                    act(source)
                self.assertIn(why if reason is None else reason, str(caught.exception))
            else:
                act(source)
        finally:
            source.close()
        status, chain = receiving.result(20)
        self.assertEqual(status, 500, why)
        self.assertIn(why, chain[-1])
        self.assertEqual(vmm.call("GET", "vm.info")[0], 404)
        if source.secret:
            self.assertEqual(vmm.put("vm.migration-resolve")["statement"],
                             source.statement("never"))
        vmm.close()

    @staticmethod
    def begin(source):
        source.greet()
        source.describe()
        source.open_lanes()

    def up_to_loaded(self, source):
        self.begin(source)
        source.send_round(source.all_pages())
        source.stop()

    def test_a_source_that_gives_up_or_dies(self):
        def aborts_in_rounds(source):
            self.begin(source)
            source.send_round(source.all_pages())
            source.abort("enough of it")

        def aborts_when_loaded(source):
            self.up_to_loaded(source)
            source.abort("enough of it")

        def commits_by_half(source):
            self.up_to_loaded(source)
            source.control.sock.sendall(struct.pack("<HHI", COMMIT, 0, 0)[:7])

        self.fails(aborts_in_rounds, "the peer gave up: enough of it")
        self.fails(aborts_when_loaded, "the peer gave up: enough of it")
        self.fails(self.begin, "the peer closed the connection")
        self.fails(self.up_to_loaded, "the peer closed the connection")
        self.fails(commits_by_half, "the peer closed the connection")

    def test_commit_counts_once_it_is_out(self):
        """Chapter 6: a link that breaks behind it takes nothing back."""
        vmm, receiving = self.listen(self.first, f"unix:{self.short}/move")
        source = self.source(f"unix:{self.short}/move", self.receiver)
        self.up_to_loaded(source)
        source.control.send(COMMIT)
        source.close()
        self.assertEqual(receiving.result(20), (204, None))
        self.check(vmm)

    def test_a_lane_with_a_wrong_secret_holds_nobody_up(self):
        vmm, receiving = self.listen(self.first, f"unix:{self.short}/move")
        source = self.source(f"unix:{self.short}/move", self.receiver, lanes=2)
        source.greet()
        source.describe()
        self.assertTrue(source.open_lane(0, os.urandom(32)).ended())
        source.open_lanes()
        source.send_round(source.all_pages())
        source.stop()
        source.commit()
        source.close()
        self.assertEqual(receiving.result(20), (204, None))
        self.assertIn("without the secret of this migration", vmm.log())
        self.check(vmm)

    def test_what_is_refused_before_the_machine(self):
        greet = Source.greet
        self.fails(greet, "versions 2 to 9, 1 to 1 here", Refused, versions=(2, 9))
        self.fails(greet, "versions 0 to 0, 1 to 1 here", Refused, versions=(0, 0))

        def requires(source):
            source.greet(capability_flags=1)
        self.fails(requires, "requires 'unheard-of'", Refused, capabilities=("unheard-of",))

    def test_a_machine_that_cannot_be_built_is_refused_and_a_broken_message_ends_it(self):
        def describe(source):
            source.greet()
            source.describe()

        def with_facts(members):
            return {"facts": json.dumps({**facts(self.receiver), **members}).encode()}
        unknown = [{"id": "_foo8", "version": 1}, {"id": "_foo9", "version": 1}]
        # All the reasons, of which the destination's own answer has the first.
        self.fails(describe, "_foo8", Refused, reason="_foo9", **with_facts({"sections": unknown}))
        self.fails(describe, "size: is missing", GaveUp, **with_facts({"disks": [{"id": "a"}]}))
        self.fails(describe, "JSON", GaveUp, facts=b"words")
        regions = self.receiver.regions
        self.receiver.regions = regions * 2
        self.fails(describe, "region 1: not in order", GaveUp)
        self.receiver.regions = []
        self.fails(describe, "CONFIG.nr_regions", GaveUp)
        self.receiver.regions = regions
        self.receiver.config = self.receiver.config[:-1]
        self.fails(describe, "cut short", Refused)

    def test_messages_out_of_order(self):
        def sends(*messages):
            def act(source):
                self.begin(source)
                for kind, body in messages:
                    source.control.send(kind, body)
                source.control.receive()
            return act
        def goes_on_without_lanes(source):
            source.greet()
            source.describe()
            source.control.send(FACTS, b"{}")
            source.control.receive()
        self.fails(goes_on_without_lanes, "0 of 2 lanes had come when the source went on", GaveUp,
                   lanes=2)
        last = struct.pack("<II", LAST, 0)
        self.fails(sends((STATE, last)), "STATE in state 'rounds'", GaveUp)
        self.fails(sends((COMMIT, b"")), "COMMIT in state 'rounds'", GaveUp)
        self.fails(sends((STOP, b""), (COMMIT, b"")), "COMMIT in state 'stopped'", GaveUp)
        self.fails(sends((STOP, b""), (STATE, bytes(8))), "STATE: empty", GaveUp)
        self.fails(sends((999, b"")), "message type 999 is not known here", GaveUp)

    def test_state_that_does_not_load(self):
        whole = read_state.raw_sections(bytes(self.receiver.state))
        stranger = whole[-1].replace(b"__rng", b"__rnq")
        for why, sections in (("state has no section for __rng", whole[:-1]),
                              ("state has two sections for machine", [*whole, whole[0]]),
                              ("state has a section for __rnq", [*whole, stranger]),
                              ("cut short", [*whole[:-1], whole[-1][:-1]])):
            self.receiver.state = b"".join(sections)
            self.fails(self.up_to_loaded, why, GaveUp)

    def test_lanes_that_lie(self):
        def sends(*bodies):
            def act(source):
                self.begin(source)
                for lane, (kind, body) in enumerate(bodies):
                    source.lanes[lane].send(kind, body)
                source.control.receive()
            return act

        def pages(first, region, nr, kind, codec=0, payload=b""):
            return PAGES, struct.pack("<IIIIQIIII", 1, codec, len(payload), 0, first, region, nr,
                                      kind, 0) + payload

        def end(number, flags, data=0):
            return ROUND_END, struct.pack("<IIQQ", number, flags, data, 0)
        for why, *bodies in (
                ("outside region 0", pages(RAM // PAGE, 0, 1, 0)),
                ("region 1", pages(0, 1, 1, 0)),
                ("unknown kind 2", pages(0, 0, 1, 2)),
                ("payload_len", pages(0, 0, 1, DATA, payload=bytes(PAGE - 1))),
                ("zstd was not agreed on", pages(0, 0, 1, DATA, 1, b"\x28\xb5\x2f\xfd")),
                ("1, 0 was due", end(1, 0)),
                ("7 + 0 pages were announced, 0 + 0 came", end(0, 0, 7)),
                ("the last round of one lane", end(0, 0), end(0, LAST))):
            self.fails(sends(*bodies), why, GaveUp, lanes=len(bodies))

        def two_of_one_index(source):
            source.greet()
            source.describe()
            source.lanes = [source.open_lane(0), source.open_lane(0)]
            source.control.receive()
        self.fails(two_of_one_index, "LANE.index", GaveUp, lanes=2)

    def test_who_lacks_tls_is_told(self):
        authority = Authority(self.dir / "ca")
        tls = authority.tls_dir(self.dir / "tls")
        self.refused_but_waits(None, {"tls_dir": str(tls)}, Refused)
        self.refused_but_waits(tls, {}, Refused)
        # A certificate of somebody else is no answer, in words or at all.
        other = Authority(self.dir / "ca2", "Other CA").tls_dir(self.dir / "tls2")
        (other / "ca-cert.pem").write_bytes((tls / "ca-cert.pem").read_bytes())
        self.refused_but_waits(other, {"tls_dir": str(tls)}, (OSError, ProtocolError))

    def refused_but_waits(self, tls_dir, listen, heard):
        self.nr += 1
        url = self.tcp()
        vmm, receiving = self.listen(self.first, url, f"second-{self.nr}", **listen)
        with self.assertRaises(heard):
            source = self.source(url, self.receiver, tls_dir=tls_dir)
            try:
                source.greet()
            finally:
                source.close()
        self.assertFalse(receiving.is_done())
        vmm.put("vm.migration-cancel")
        self.assertEqual(receiving.result(20)[0], 500)
        vmm.close()


if __name__ == "__main__":
    lane_base.main()
