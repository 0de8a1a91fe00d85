# SPDX-License-Identifier: Apache-2.0
"""
Never two, never silently none: the link is cut, either end killed, and the move cancelled at either
end, at the border of every message, with memory that is copied and with memory that is handed over;
and a person resolves what neither end could decide.  docs/migration-protocol.md 5, 6.
"""

import fcntl
import json
import os
import re
import struct
import subprocess

import lane_base
from lane_base import MIB, LaneTest, wait_until
from lane_move import free_port, how_ended
from lane_proxy import TO_DESTINATION, TO_SOURCE, Border, Proxy
from lane_tls import Authority
from lane_vmm import ApiError, Background, Vmm

F_OFD_GETLK = 36
F_OFD_SETLK = 37
DISK_SIZE = 8 * MIB
RSS_SLACK_KIB = 8 << 10
RECORDS_MAX = 200
RECORDS_LEAST = 12  # two flights of a handshake, and messages that are sent by themselves
KEPT = 10  # migrations that an end remembers

# Every border of a migration with one lane; in the order of time.
BORDERS = [Border("HELLO", "before", direction=TO_DESTINATION),
           Border("HELLO", direction=TO_DESTINATION), Border("HELLO", direction=TO_SOURCE),
           Border("CONFIG"), Border("READY"), Border("LANE"), Border("PAGES"), Border("ROUND_END"),
           Border("ROUND_DONE"), Border("STOP"), Border("STATE"), Border("LOADED", "before"),
           Border("LOADED"), Border("COMMIT", "before"), Border("COMMIT"), Border("RUNNING",
                                                                                 "before"),
           Border("RUNNING")]
# The same where memory is handed over.
LOCAL_BORDERS = [Border("MEMORY") if b.name == "PAGES" else b for b in BORDERS]


def rss_kib(vmm):
    """Memory that is resident, but of files."""
    with open(f"/proc/{vmm.pid}/status", encoding="ascii") as status:
        return sum(map(int, re.findall(r"Rss(?:Anon|Shmem):\s+(\d+)", status.read())))


def is_locked(path):
    """Whether some process holds a lock on the file."""
    with open(path, "rb+") as disk:
        query = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(disk.fileno(), F_OFD_GETLK, query)
        return struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK


class CommitTest(LaneTest):
    """Processes of one test: proxies, sources and destinations, and what must hold of them."""

    memory = "size=64M"
    borders = BORDERS
    send, take = {}, {}  # beyond the URL, at the source and at the destination
    tls = False

    def url(self):
        """Where a destination listens."""
        return f"tcp:127.0.0.1:{free_port()}"

    def start(self, name="source"):
        self.disk = self.make_disk("disk.img", DISK_SIZE)
        source = Vmm(self, name, ["--kernel", str(lane_base.GUEST_ELF), "--cpus", "boot=1",
                                  "--memory", self.memory, "--disk", f"path={self.disk}",
                                  "-v"])  # for tracked()
        source.boot()
        source.guest.do("fill 16 1 sparse 3", timeout_s=60)
        # Cold memory that still is the guest's own, so that there is something to give back.
        source.guest.do("dirty 32 2 4 seq")
        return source

    def destination(self, source, name, **options):
        vmm = Vmm(self, name, line=source.line, **options)
        vmm.serial = source.serial
        vmm.url = self.url()
        return vmm

    def receive(self, destination):
        """At the address of the attempts before.  Return: the request that waits."""
        nr = destination.event_names().count("migration-receive-ready")
        waiting = Background(destination.put, "vm.receive-migration",
                             {"receiver_url": destination.url, **self.take}, timeout_s=120)
        wait_until(lambda: destination.event_names().count("migration-receive-ready") > nr, 20,
                   "a destination that listens")
        return waiting

    def attempt(self, source, destination, at=None, act=None, edits=None):
        waiting = self.receive(destination)
        proxy = Proxy(destination.url, at, act, edits, self.tls)
        self.addCleanup(proxy.close)
        source.put("vm.send-migration", {"destination_url": proxy.url(), **self.send})
        return proxy, waiting

    def goes_on(self, vmm):
        """It runs, with its locks, and its guest is whole."""
        self.assertEqual(vmm.state(), "Running")
        self.assertTrue(is_locked(self.disk))
        vmm.guest.do("dirty check", timeout_s=60)
        vmm.guest.do("verify", timeout_s=60)

    @staticmethod
    def tracked(vmm):
        """How often KVM's dirty log was turned on, and whether it is now."""
        told = re.findall(r"dirty log of zone (\S+): (on|off)", vmm.log())
        return told.count((told[0][0], "on")) if told else 0, "on" in dict(told).values()

    def succeeds(self, source, destination):
        """An attempt that nothing hinders: at once."""
        proxy, waiting = self.attempt(source, destination)
        waiting.result(60)
        self.assertEqual(source.wait_exit(), 0)
        self.assertNotIn("another file", destination.log())  # storage that both see is known to be
        wait_until(destination.attach_now, 10, "the line of the destination")
        self.goes_on(destination)
        destination.put("vmm.shutdown")
        destination.wait_exit()
        return proxy


class CutTest(CommitTest):
    def test_the_link_is_cut_at_every_message(self):
        """One source, one destination: the failures leave both as they were."""
        source = self.start()
        destination = self.destination(source, "destination")
        idle_kib = rss_kib(destination)
        source_kib = rss_kib(source)
        tried = []
        # What is decided by a statement has tests of its own.
        for border in self.borders:
            if border.name == "RUNNING" or str(border) == "behind COMMIT 1":
                continue  # it is the destination's: ResolveTest
            proxy, waiting = self.attempt(source, destination, border)
            result = how_ended(source, 60)
            if str(border) in ("behind LOADED 1", "before COMMIT 1"):
                # COMMIT goes into a wire that is being cut.
                self.assertIn(result, ("failed", "undecided"), str(border))
            else:
                self.assertEqual(result, "failed", str(border))
            self.assertTrue(proxy.acted.is_set(), str(border))
            if border is BORDERS[0]:
                # Nobody said HELLO: it goes on listening.
                self.assertFalse(waiting.is_done())
                destination.put("vm.migration-cancel")
            waiting.wait(60)
            self.assertIsNone(destination.state())
            if result == "undecided":
                said = destination.put("vm.migration-resolve")
                self.assertEqual(said["outcome"], "never")
                source.put("vm.migration-resolve", {"statement": said["statement"]})
            self.goes_on(source)
            attempts, is_on = self.tracked(source)
            self.assertFalse(is_on, str(border))
            tried.append(source.get("vm.migration-progress"))
        # As often as an attempt came to READY, where pages are looked for at all.
        copied = sum("migration" in progress and not progress["memory_handed_over"]
                     for progress in tried)
        self.assertEqual(attempts, copied)
        self.assertEqual(copied > 0, "local" not in self.send)
        self.remember(source, destination, tried)
        self.assertLess(rss_kib(destination), idle_kib + RSS_SLACK_KIB)
        self.assertLess(rss_kib(source), source_kib + RSS_SLACK_KIB)
        self.succeeds(source, destination)

    def remember(self, source, destination, tried):
        """The last ten, with their phases, whatever became of them."""
        self.assertGreater(len(tried), KEPT)
        kept = source.get("vm.migration-progress")["history"]
        self.assertEqual(len(kept), KEPT)
        for was, now in zip(tried[-KEPT:], kept):
            for progress in (was, now):
                del progress["phases_ns"]["total"]  # a person may have resolved it since
            self.assertEqual([now[key] for key in ("migration", "phases_ns", "rounds")],
                             [was[key] for key in ("migration", "phases_ns", "rounds")])
        there = destination.get("vm.migration-progress")["history"]
        self.assertEqual([m["migration"] for m in there], [m["migration"] for m in kept])
        self.assertTrue(all(m["phases_ns"]["total"] for m in there))

    def test_either_end_is_killed_at_every_message(self):
        source = self.start()
        for nr, border in enumerate(self.borders):
            for victim in ("destination", "source"):
                source = self.kill_at(source, border, victim, f"{nr}{victim[0]}")
        source.put("vmm.shutdown")

    def kill_at(self, source, border, victim, name):
        """Return: a source for the next one."""
        destination = self.destination(source, f"to{name}")
        ends = {"destination": destination, "source": source}

        def act(proxy):
            ends[victim].kill()
            # What it sent last is lost with it.
            proxy.lose(TO_DESTINATION if victim == "source" else TO_SOURCE)
            if border.when == "before":
                proxy.cut()

        proxy, waiting = self.attempt(source, destination, border, act)
        wait_until(proxy.acted.is_set, 60, str(border))
        wait_until(lambda: not ends[victim].is_running(), 20, "a dead process")
        if victim == "source":
            if border is BORDERS[0]:
                destination.put("vm.migration-cancel")  # it has seen no HELLO, and goes on listening
            # The guest is the destination's if COMMIT came; otherwise it died with its host.
            waiting.wait(60)
            taken = border.name in ("COMMIT", "RUNNING") and str(border) != "before COMMIT 1"
            self.assertEqual(destination.state(), "Running" if taken else None, str(border))
            self.assertEqual(is_locked(self.disk), taken)
            destination.close()
            return self.start(f"from{name}")
        result = how_ended(source, 60)
        if border.name == "RUNNING":
            # It had been taken, and died there.
            self.assertIn(result, ("gone", "undecided") if border.when == "behind" else
                          ("undecided",), str(border))
            source.close()
            self.assertFalse(is_locked(self.disk))
            return self.start(f"from{name}")
        if border.name == "COMMIT":
            self.assertEqual(result, "undecided", str(border))
        elif str(border) == "behind LOADED 1":
            # COMMIT is written into a connection that breaks, or is broken already.
            self.assertIn(result, ("undecided", "failed"))
        else:
            self.assertEqual(result, "failed", str(border))
        if result == "undecided":
            self.is_lost(source)
        self.goes_on(source)
        return source

    def is_lost(self, source):
        """The destination died behind COMMIT: nobody runs, and that is not silent."""
        self.assertEqual(source.state(), "Paused")
        self.assertFalse(is_locked(self.disk))
        self.assertTrue(source.refused("vm.resume").names("undecided"))
        migration = source.get("vm.migration-progress")["migration"]
        source.put("vm.migration-resolve", {"lost": migration})


    def test_either_end_cancels_at_every_message(self):
        source = self.start()
        destination = self.destination(source, "to0")
        for nr, border in enumerate(self.borders):
            if str(border) == "behind RUNNING 1":
                continue  # it is over
            for who in ("source", "destination"):
                has_it = self.cancel_at(source, destination, border, who)
                if has_it is destination:
                    source = destination
                    destination = self.destination(source, f"to{nr}{who[0]}")
        self.succeeds(source, destination)

    def cancel_at(self, source, destination, border, who):
        """
        Cancelled if that was answered so, and then the guest stays here; or refused.  Return: who
        has it.
        """
        answers = []

        def act(_):
            vmm = source if who == "source" else destination
            answers.append(vmm.call("PUT", "vm.migration-cancel"))

        proxy, waiting = self.attempt(source, destination, border, act)
        result = how_ended(source, 60)
        wait_until(lambda: answers, 20, "the answer of who cancels")
        what = f"{border}: {who}: {answers}: {result}"
        self.assertTrue(proxy.acted.is_set(), what)
        if answers[0][0] == 204:
            self.assertEqual(result, "cancelled" if who == "source" else "failed", what)
            waiting.wait(60)
            self.assertIsNone(destination.state(), what)
            self.assertNotIn("it was copied", source.log())
            self.goes_on(source)
            return source
        self.assertIn(border.name, ("LOADED", "COMMIT", "RUNNING"), what)
        self.assertEqual(result, "gone", what)
        waiting.result(60)
        self.assertEqual(source.wait_exit(), 0)
        wait_until(destination.attach_now, 10, "the line of the destination")
        self.goes_on(destination)
        return destination


class LocalCutTest(CutTest):
    """Both ends have the same memory."""

    memory = "size=64M,shared=on"
    borders = LOCAL_BORDERS
    send = {"local": True}

    def url(self):
        return f"unix:{self.short}/move"


class TlsCutTest(CommitTest):
    """What passes is hidden, so that the ends alone say who has the guest."""

    tls = True

    def setUp(self):
        super().setUp()
        tls = Authority(self.dir / "ca").tls_dir(self.dir / "tls")
        self.send = self.take = {"tls_dir": str(tls)}
        self.send = {**self.send, "connections": 1}

    @staticmethod
    def end_waiting(destination, waiting):
        """One to which nobody has said HELLO goes on listening."""
        wait_until(lambda: waiting.is_done() or
                   destination.get("vm.migration-progress")["phase"] == "connect", 60, "an end")
        if not waiting.is_done():
            destination.call("PUT", "vm.migration-cancel")
        waiting.wait(60)

    def test_the_link_is_cut_at_every_record(self):
        """Before the first of the control channel and behind each, until a move is over first."""
        source, results = self.start(), []
        destination = self.destination(source, "to0")
        for nr in range(RECORDS_MAX):
            at = Border(nr=nr) if nr else Border(when="before")
            proxy, waiting = self.attempt(source, destination, at)
            result = how_ended(source, 60)
            results.append(result)
            self.end_waiting(destination, waiting)
            said = result == "undecided" and destination.put("vm.migration-resolve")
            if said:
                self.assertEqual(source.state(), "Paused")
                self.assertEqual(said["outcome"] == "taken", destination.state() == "Running")
                source.put("vm.migration-resolve", {"statement": said["statement"]})
            if result == "gone" or said and said["outcome"] == "taken":
                self.assertEqual(source.wait_exit(), 0)
                wait_until(destination.attach_now, 10, "the line of the destination")
                source, destination = destination, self.destination(source, f"to{nr}")
            self.assertIsNone(destination.state())
            self.goes_on(source)
            if not proxy.acted.is_set():
                break
        print(f"\n{len(results)} moves: {', '.join(results)}")
        self.assertEqual(results[-1], "gone")  # what nothing hindered
        self.assertGreater(results.count("failed"), RECORDS_LEAST)
        self.succeeds(source, destination)


class ResolveTest(CommitTest):
    def undecided(self, border):
        source = self.start()
        destination = self.destination(source, "destination")
        _, waiting = self.attempt(source, destination, border)
        self.assertEqual(how_ended(source, 60), "undecided")
        waiting.wait(60)
        self.assertEqual(source.state(), "Paused")
        return source, destination

    def chctl(self, vmm, *words):
        done = subprocess.run([lane_base.program("chctl"), "--api-socket", str(vmm.api_path),
                               *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=60)
        return done.returncode, done.stdout, done.stderr

    def statement(self, destination, outcome):
        code, out, err = self.chctl(destination, "migration-resolve")
        self.assertEqual(code, 0, err)
        found = re.search(r'"statement":\s*"(.*?)"', out)
        self.assertTrue(found, out)
        self.assertTrue(found.group(1).startswith(outcome + ":"), out)
        return found.group(1)

    def is_refused(self, vmm, *words, why):
        code, _, err = self.chctl(vmm, "migration-resolve", *words)
        self.assertEqual(code, 1, err)
        self.assertIn(why, err)

    def test_the_answer_to_commit_is_lost(self):
        """COMMIT arrives, RUNNING does not: the destination runs."""
        source, destination = self.undecided(Border("RUNNING", "before"))
        self.assertEqual(destination.state(), "Running")
        for action in ("vm.resume", "vm.boot", "vm.reboot", "vm.shutdown", "vm.delete"):
            self.assertTrue(source.refused(action).names("undecided"), action)
        self.assertTrue(source.refused("vm.send-migration", {"destination_url": "tcp:127.0.0.1:1"})
                        .names("undecided"))
        said = self.statement(destination, "taken")
        migration = source.get("vm.migration-progress")["migration"]
        self.assertEqual(destination.get("vm.migration-progress")["migration"], migration)
        self.assertIn(migration, said)
        # What a tired person may do.
        self.is_refused(source, why="run migration-resolve at the destination")
        self.is_refused(source, "statement=" + said.replace("taken", "never"),
                        why="has not said that")
        self.is_refused(source, "statement=" + said[:-1], why="is not one")
        self.is_refused(source, "statement=" + said.replace(migration, "0" * 16),
                        why="is of migration 0000000000000000")
        self.is_refused(source, "lost=" + "0" * 16, why="is not the migration")
        self.is_refused(destination, "statement=" + said, why="no migration away from here")
        # The guest writes to its disk, so that even "lost" cannot make two of it.
        wait_until(destination.attach_now, 10, "the line of the destination")
        destination.guest.do("blk 0 run 0 64")
        destination.line.run(0.3)
        self.is_refused(source, "lost=" + migration, why="was written after this VM let go of it")
        self.assertEqual(source.state(), "Paused")
        code, out, err = self.chctl(source, "migration-resolve", "statement=" + said)
        self.assertEqual(code, 0, err)
        self.assertIn('"taken"', out)
        self.assertEqual(source.wait_exit(), 0)
        destination.guest.do("blk 0 stop")
        destination.guest.do("blk 0 check", timeout_s=60)
        self.goes_on(destination)

    def test_commit_is_lost(self):
        """COMMIT goes into a dead wire: the destination never starts."""
        source, destination = self.undecided(Border("COMMIT", "before"))
        self.assertIsNone(destination.state())
        said = self.statement(destination, "never")
        # It remembers, whatever it does next.
        waiting = self.receive(destination)
        self.is_refused(destination, why="is not over")
        destination.put("vm.migration-cancel")
        waiting.wait(20)
        self.assertEqual(self.statement(destination, "never"), said)
        code, out, err = self.chctl(source, "migration-resolve", "statement=" + said)
        self.assertEqual(code, 0, err)
        self.assertIn('"Running"', out)
        self.goes_on(source)
        self.is_refused(source, "statement=" + said, why="no migration away from here")
        self.assertIn("migration-resolved", source.event_names())
        self.succeeds(source, destination)

    def test_nothing_to_resolve(self):
        source = self.start()
        self.is_refused(source, why="no migration has ended in this process")
        self.is_refused(source, "lost=" + "0" * 16, why="no migration away from here")
        code, _, err = self.chctl(source, "migration-resolve", "statement=a,lost=b")
        self.assertEqual(code, 2, err)
        self.assertIn("only one of them", err)


TAP = "lane-tap"


def with_all_features(config):
    """CONFIG of a processor with every bit in CPUID.1:ECX: more than KVM offers on any host."""
    edited, nr = re.subn(rb"(?<=cecx\x1a)....(?=cedx.{1,5}eflags.eindex.hfunction\x01)",
                         b"\xff" * 4, config, flags=re.DOTALL)
    assert nr == 1, "CPUID.1 in CONFIG"
    return edited


class RefusalTest(CommitTest):
    def url(self):
        """The destination has a network of its own."""
        return f"unix:{self.short}/move"

    def refused(self, source, destination, **options):
        _, waiting = self.attempt(source, destination, **options)
        self.assertEqual(how_ended(source, 60), "failed")
        waiting.wait(60)
        self.assertEqual(source.get("vm.migration-progress")["wire_bytes"], 0)
        self.assertIsNone(destination.state())

    def test_every_reason_before_the_first_page(self):
        """
        The destination's host has other files where the source has its disks, an interface that
        is no tap, too little memory and another processor.
        """
        lane_base.need_root()
        unshare, ip = lane_base.need_tool("unshare"), lane_base.need_tool("ip")
        here, there = self.dir / "disks", self.dir / "there"
        disks = []
        for name in ("short", "gone", "locked", "good"):
            for place in (here, there):
                place.mkdir(exist_ok=True)
                (place / name).write_bytes(bytes(MIB))
            disks += ["--disk", f"path={here / name}"]
        (there / "gone").unlink()
        (there / "short").write_bytes(bytes(MIB // 2))
        self.disk = here / "good"
        source = Vmm(self, "source", ["--kernel", str(lane_base.GUEST_ELF), "--cpus", "boot=1",
                                      "--memory", "size=64M", "--net", f"tap={TAP}", *disks],
                     prefix=[unshare, "--net"])
        source.boot()
        source.guest.do("fill 16 1 mix 3", timeout_s=60)
        source.guest.do("dirty 32 2 4 seq")
        (self.dir / "meminfo").write_text("MemTotal: 40960 kB\nSwapTotal: 4096 kB\n")
        destination = self.destination(source, "destination", prefix=[
            unshare, "--mount", "--net", "sh", "-ec",
            f'mount -t sysfs sysfs /sys; mount --bind {there} {here}; mount --bind {self.dir}/meminfo /proc/meminfo; '
            f'{ip} link add {TAP} type bridge; exec "$@"', "sh"])
        with open(there / "locked", "rb+") as locked:
            fcntl.fcntl(locked.fileno(), F_OFD_SETLK,
                        struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, MIB, 0))
            self.refused(source, destination, edits={"CONFIG": with_all_features})
        for reason in (r"refused: memory: the VM has 64 MiB, this host 44 MiB with swap",
                       rf"refused: net _net\d+: interface {TAP} is not a tap",
                       r"refused: .*this host lacks \w+",
                       r"refused: disk _disk0: .*short has 524288 bytes, 1048576 at the source",
                       r"refused: disk _disk1: .*gone: No such file or directory",
                       r"refused: disk _disk2: .*locked is locked by another process than the "):
            self.assertRegex(source.log(), reason)
        self.assertNotIn("refused: disk _disk3", source.log())
        self.assertRegex(destination.log(), r"disk _disk3: .*good is another file than the source's")
        self.goes_on(source)

    def test_every_device_that_another_build_lacks(self):
        """One that it does not know, and one whose state is newer than it can read."""
        def of_a_later_build(body):
            facts = json.loads(body)
            facts["sections"][0]["version"] = 9999
            facts["sections"].append({"id": "_later0", "version": 1})
            newer.append(facts["sections"][0]["id"])
            return json.dumps(facts).encode()

        newer = []
        source = self.start()
        destination = self.destination(source, "destination")
        self.refused(source, destination, edits={"FACTS": of_a_later_build})
        for reason in (rf"refused: state of {newer[0]}: version 9999 comes, \d+ to \d+ can be read",
                       r"refused: state of _later0: there is no such device here"):
            self.assertRegex(source.log(), reason)
        self.goes_on(source)
        # It is not the machine that is refused.
        self.succeeds(source, destination)


class FailureStrategyTest(CommitTest):
    """failure_strategy=exit: who gets no VM ends, unless its source may have to ask it."""

    take = {"failure_strategy": "Exit"}

    def ends(self, source, name, reason, at=None, act=None, edits=None):
        destination = self.destination(source, name)
        _, waiting = self.attempt(source, destination, at, act and (lambda _: act(destination)),
                                  edits)
        how_ended(source, 60)
        with self.assertRaises(ApiError) as answer:
            waiting.result(60)
        self.assertEqual(answer.exception.status, 500)
        self.assertTrue(answer.exception.names(reason), answer.exception)
        self.assertEqual(destination.wait_exit(), 1)
        self.assertRegex(destination.log(),
                         rf"failure_strategy=exit: this process ends without a VM: .*{reason}")
        told = [e for e in destination.events() if e["event"] == "migration-receive-failed"]
        self.assertEqual(len(told), 1)
        self.assertIn(reason, told[0]["properties"]["error"])
        self.goes_on(source)

    def stays(self, source, name, at, outcome):
        """Return: the destination, and what it says of the migration."""
        destination = self.destination(source, name)
        _, waiting = self.attempt(source, destination, at)
        result = how_ended(source, 60)
        waiting.wait(60)
        self.assertEqual(destination.state(), "Running" if outcome == "taken" else None)
        said = destination.put("vm.migration-resolve")
        self.assertEqual(said["outcome"], outcome)
        if result == "undecided":
            source.put("vm.migration-resolve", {"statement": said["statement"]})
        return destination, said

    def test_a_process_without_a_vm_ends(self):
        source = self.start()
        self.ends(source, "refuses", "this host lacks", edits={"CONFIG": with_all_features})
        self.ends(source, "cut", "peer", Border("ROUND_END"))
        self.ends(source, "given-up", "the peer gave up: cancelled", Border("ROUND_END"),
                  lambda _: source.put("vm.migration-cancel"))
        self.ends(source, "cancelled", "cancelled", Border("ROUND_END"),
                  lambda destination: destination.put("vm.migration-cancel"))
        destination = self.destination(source, "told-to-end")
        waiting = self.receive(destination)
        destination.put("vmm.shutdown")
        self.assertEqual(destination.wait_exit(), 0)  # that was asked for, too
        waiting.wait(20)
        # Nothing of it is in the way of the next one, which gets its VM.
        self.succeeds(source, self.destination(source, "last"))

    def test_one_that_its_source_may_ask_stays(self):
        source = self.start()
        self.stays(source, "loaded", Border("LOADED"), "never")
        self.goes_on(source)
        destination, said = self.stays(source, "commit-lost", Border("COMMIT", "before"), "never")
        self.goes_on(source)
        # Also for what comes to the same process later.
        _, waiting = self.attempt(source, destination, Border("ROUND_END"))
        self.assertEqual(how_ended(source, 60), "failed")
        waiting.wait(60)
        self.assertEqual(
            destination.put("vm.migration-resolve", {"migration": said["statement"].split(":")[1]}),
            said)
        self.assertEqual(destination.log().count("failure_strategy=exit: this process stays"), 2)
        self.goes_on(source)
        destination, _ = self.stays(source, "taken", Border("RUNNING", "before"), "taken")
        self.assertEqual(source.wait_exit(), 0)
        wait_until(destination.attach_now, 10, "the line of the destination")
        self.goes_on(destination)


if __name__ == "__main__":
    lane_base.main()
