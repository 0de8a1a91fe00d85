# SPDX-License-Identifier: Apache-2.0
"""A move between two hosts, hindered at the border of every message.

It passes through the relay of the native lane (tests/lane/lane_proxy.py), on this machine, which knows
the messages: there the link is cut, or either end killed.  The guest is that of the native lane too
(tests/guest): it boots at once, counts in memory and on the disk that both hosts see, and is asked
over its serial line.  docs/migration-protocol.md 5, 6.
"""

import json
import pathlib
import sys
import time

from channel import PATIENCE, ChannelError
from guest import need
from host import RELAY_HERE, CommandFailed
from packages import Skip
from vmm import TLS_DIR, ChVmm, Spec

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lane"))

from lane_proxy import TO_DESTINATION, TO_SOURCE, Border, Proxy  # noqa: E402

KERNEL = "/run/guest.elf"
SERIAL = "/run/guest.sock"
GUEST_JOBS = "do=fill:16:1:sparse:3 do=dirty:32:2:1:seq do=blk:0:run:0:64"
MESSAGES_MAX = 200
RECORDS_DECISIVE = 4  # LOADED, COMMIT, RUNNING and a farewell, or a keepalive
ENDED_S = 60.0
OPTIONS = "connections=1,downtime_ms=2000"  # few rounds
# Around what decides whose the guest is; "behind" leaves open what the other end says to it.
DECISION = (Border("LOADED"), Border("COMMIT"), Border("RUNNING", "before"))
DECISION_ALL = [Border(name, when) for name in ("LOADED", "COMMIT", "RUNNING")
                for when in ("before", "behind")]


class SmallVmm(ChVmm):
    """A VMM with the test guest."""

    def _prepare(self):
        pass

    def _guest_options(self):
        return ["--kernel", KERNEL, "--cmdline", GUEST_JOBS, "--cpus", f"boot={self.spec.cpus}",
                "--memory", f"size={self.spec.memory_mib}M", "--serial", f"socket={SERIAL}",
                "--console", "off", "--disk", f"path={self.spec.disk},direct=on,id=disk0"]

    def ask(self, *commands, timeout=20.0):
        """The guest's answers, without their "ok"."""
        stream = self.host.connect(f"unix:{SERIAL}", timeout)
        lines = _lines(stream, time.monotonic() + timeout * PATIENCE)
        token = f"ok {time.monotonic_ns()}"
        try:
            # What an earlier question is still answered comes before this.
            stream.write(f"echo {token[3:]}\n".encode())
            while next(lines) != token:
                pass
            return [self._ask_one(stream, lines, command) for command in commands]
        finally:
            stream.kill()

    @staticmethod
    def _ask_one(stream, lines, command):
        stream.write(command.encode() + b"\n")
        answer = next(line for line in lines if line.startswith(("ok", "err", "panic")))
        need(answer.startswith("ok"), f"guest: {command}: {answer}")
        return answer[2:].strip()

    def taken(self):
        """Whether the last that its log says of a VM that came to it is that it started it."""
        said = self.host.run("grep -o -E '(taken|never): this process' "
                             f"/run/{self.name}.log | tail -1", check=False)
        return said.startswith("taken")


def _lines(stream, deadline):
    text = ""
    while True:
        while "\n" in text:
            line, _, text = text.partition("\n")
            yield line.strip()
        data = stream.read(deadline - time.monotonic())
        if data is None:
            raise ChannelError(f"the serial line ended with {stream.status}")
        text += data.decode(errors="replace")


class Attempt:
    """One move through a relay: what passed, and how the source says that it ended."""

    def __init__(self, proxy, result):
        self.is_hindered = proxy.acted.is_set()
        self.passed = [name for _, name in proxy.seen]
        self.result = result  # "gone" where its process has ended

    def __str__(self):
        last = self.passed[-1] if self.passed else "nothing"
        return f"{len(self.passed)} messages, last {last}: the source: {self.result}"

    def has(self, name):
        return name in self.passed

    def need_result(self):
        """What the source may say when only so much passed."""
        if self.has("RUNNING"):
            allowed = ("gone", "undecided")
        elif self.has("COMMIT"):
            allowed = ("undecided",)
        elif self.has("LOADED"):
            allowed = ("failed", "undecided")  # COMMIT is written into what breaks
        else:
            allowed = ("failed",)
        need(self.result in allowed, f"{self}, not {' or '.join(allowed)}")


class Pair:
    """The guest's VMM, and on the other host the one it is to move to."""

    def __init__(self, run, tls=False):
        if run.vmm_class is not ChVmm:
            raise Skip("only chvmm is told how a move ended")
        elf = run.images.build / "tests" / "guest" / "guest.elf"
        if not elf.exists():
            raise Skip(f"{elf} is not built")
        self.run = run
        for host in run.hosts:
            host.put(KERNEL, elf.read_bytes())
        self.tls = None
        if tls:
            self.speak_tls()
        self.made = 0
        self.target = None
        self.boot(run.hosts[0])

    def speak_tls(self):
        """From now on; what passes is hidden then, and counted in records."""
        self.run.install_certificates()
        self.tls = TLS_DIR

    def new_vmm(self, host):
        self.made += 1
        return SmallVmm(host, f"small{self.made}", Spec(kernel="", memory_mib=48))

    def boot(self, host):
        """The guest died: another one."""
        self.source = self.new_vmm(host)
        self.source.start()
        self.source.wait_api()
        self.count = 0
        self.goes_on()

    def goes_on(self):
        """The guest counts on from where it was, and all of its memory and disk is as it made it."""
        before, *_ = self.source.ask("dirty stat", "verify", "dirty check", "blk 0 stop",
                                     "blk 0 check", "blk 0 run 0 64", timeout=30.0)
        before = _count(before)
        need(before >= self.count, f"the guest had counted to {self.count}, now to {before}")
        deadline = time.monotonic() + 10.0 * PATIENCE
        while (now := _count(self.source.ask("dirty stat")[0])) <= before:
            need(time.monotonic() < deadline, f"the guest stopped counting at {now}")
        self.count = now

    def attempt(self, at=None, act=None):
        """A move; returns when both ends are done with it, or dead."""
        if not self.target:
            there = self.run.hosts[1 - self.run.hosts.index(self.source.host)]
            self.target = self.new_vmm(there)
        self.target.receive(self.tls, addr="0.0.0.0")
        proxy = Proxy(f"tcp:127.0.0.1:{self.target.host.relay_port}", at, act, tls=bool(self.tls))
        try:
            where = proxy.url().replace("tcp:127.0.0.1", RELAY_HERE)
            self.source.begin_send(self.target, self.tls, OPTIONS, where)
            result = self._how_ended()
            self._wait_target()
        finally:
            proxy.close()
        return Attempt(proxy, result)

    def _how_ended(self):
        deadline = time.monotonic() + ENDED_S * PATIENCE
        while True:
            try:
                now = self.source.progress()
                # One that is completed ends its process.
                if now["phase"] == "done" and now["result"] != "completed":
                    return now["result"]
            except CommandFailed:
                if self.source.exited() is not None:
                    return "gone"
            need(time.monotonic() < deadline, "the source sees no end of it")
            time.sleep(0.05)

    def _wait_target(self):
        deadline = time.monotonic() + ENDED_S * PATIENCE
        while self.target.received() is None:
            need(time.monotonic() < deadline, "the destination sees no end of it")
            if self._listens_in_vain():
                self.target.ctl("migration-cancel")
            time.sleep(0.05)

    def _listens_in_vain(self):
        """The source is done, and nobody has said HELLO: it goes on listening."""
        try:
            return self.target.exited() is None and self.target.progress()["phase"] == "connect"
        except CommandFailed:
            return False

    def resolve(self):
        """As a person would: what the destination says is told to the source.  The outcome."""
        need(not self.source.runs(), "an undecided source runs")
        said = json.loads(self.target.ctl("migration-resolve"))
        need((said["outcome"] == "taken") == self.target.runs(), f"the destination says {said}")
        self.source.ctl("migration-resolve", f"statement={said['statement']}")
        return said["outcome"]

    def arrived(self):
        """The guest is the destination's, and the source ends."""
        need(self.source.wait_exit(20.0) == 0, f"the source: {self.source.output()}")
        self.source, self.target = self.target, None

    def only_one(self):
        """The guest runs where it is said to be, there alone, and goes on."""
        other = self.target and self.target.runs()
        need(self.source.runs() and not other, f"exactly one is to run: the destination: {other}")
        self.goes_on()

    def move(self):
        """An attempt that nothing hinders."""
        done = self.attempt()
        need(done.result == "gone" and self.target.received() == 0, f"unhindered: {done}")
        self.arrived()
        self.only_one()
        return done


def _count(text):
    return int(dict(word.split("=") for word in text.split())["count"])


def cut_at(pair, at):
    """The link is cut there; nobody dies, so one runs; the next attempt succeeds.  The first Attempt."""
    tried = pair.attempt(at)
    if not tried.is_hindered:
        need(tried.result == "gone", f"never at {at}: {tried}")
        pair.arrived()
        pair.only_one()
        return tried
    tried.need_result()
    outcome = pair.resolve() if tried.result == "undecided" else None
    need(outcome != "taken" or tried.has("COMMIT"), f"taken without COMMIT: {tried}")
    need(outcome != "never" or at.name != "RUNNING", f"never, and it said RUNNING: {tried}")
    if outcome == "taken" or tried.result == "gone":
        pair.arrived()
    pair.only_one()
    pair.run.step(f"cut {at}: {tried}{f', resolved: {outcome}' if outcome else ''}")
    pair.move()
    return tried


def cut_record_at(pair, at):
    """As cut_at(), of what is hidden: only how it ends says who has the guest."""
    tried = pair.attempt(at)
    outcome = pair.resolve() if tried.result == "undecided" else None
    need(tried.is_hindered or tried.result == "gone", f"never at {at}: {tried}")
    if outcome == "taken" or tried.result == "gone":
        pair.arrived()
    pair.only_one()
    if tried.is_hindered:
        pair.run.step(f"cut {at}: {tried}{f', resolved: {outcome}' if outcome else ''}")
        pair.move()
    return tried


def _attempt_with_death(pair, at, who):
    """One where an end is killed there.  What it sent last is lost with it."""
    def act(proxy):
        victim = pair.source if who == "source" else pair.target
        victim.host.run(f"kill -9 {victim.pid}", check=False)
        victim.wait_exit(10.0)
        proxy.lose(TO_DESTINATION if who == "source" else TO_SOURCE)
        if at.when == "before":
            proxy.cut()

    tried = pair.attempt(at, act)
    if not tried.is_hindered:
        need(tried.result == "gone", f"never at {at}: {tried}")
        pair.arrived()
        pair.only_one()
    return tried


def kill_source_at(pair, at):
    """It dies there: the destination has the guest if COMMIT came, otherwise nobody, for good."""
    tried = _attempt_with_death(pair, at, "source")
    if not tried.is_hindered:
        return tried
    runs = pair.target.runs()
    need(runs == tried.has("COMMIT"), f"the destination {'runs' if runs else 'is idle'}: {tried}")
    if tried.has("READY"):
        said = json.loads(pair.target.ctl("migration-resolve"))
        need(said["outcome"] == ("taken" if runs else "never"), f"it says {said}: {tried}")
    pair.run.step(f"source killed {at}: {tried}; the destination "
                  f"{'runs the guest' if runs else 'never will'}")
    if runs:
        pair.source, pair.target = pair.target, None
        pair.only_one()
    else:
        pair.boot(pair.source.host)
    return tried


def kill_target_at(pair, at):
    """It dies there: the guest goes on at the source, unless it was taken and died with it."""
    tried = _attempt_with_death(pair, at, "destination")
    if not tried.is_hindered:
        return tried
    tried.need_result()
    taken = pair.target.taken()
    ran = tried.has("RUNNING") or at.name == "RUNNING"
    need(taken or not ran, f"it ran the guest, and its log does not say so: {tried}")
    need(not taken or tried.has("COMMIT"), f"taken without COMMIT: {tried}")
    if tried.result == "undecided":
        need(not pair.source.runs(), f"an undecided source runs: {tried}")
    if tried.result == "undecided" and not taken:
        pair.source.ctl("migration-resolve", f"lost={pair.source.progress()['migration']}")
    pair.run.step(f"destination killed {at}: {tried}{', it had taken the guest' if taken else ''}")
    pair.target = None
    if taken:
        pair.source.kill()
        pair.boot(pair.source.host)
    else:
        pair.only_one()
    return tried


def at_decision(run):
    """Cut and killed where it is decided whose the guest is; then cut at some records of TLS."""
    pair = Pair(run)
    for at in DECISION:
        cut_at(pair, at)
    for at in DECISION:
        kill_target_at(pair, at)
        kill_source_at(pair, at)
    pair.speak_tls()
    last = len(pair.move().passed)
    for nr in (3, last // 2, *range(last - RECORDS_DECISIVE, last)):
        cut_record_at(pair, Border(nr=nr))
    pair.move()


def at_records(run):
    """Before the first TLS record of the control channel and behind each, until a move is over first."""
    pair = Pair(run, tls=True)
    run.step(f"unhindered: {len(pair.move().passed)} records")
    results = [cut_record_at(pair, Border(when="before")).result]
    while (tried := cut_record_at(pair, Border(nr=len(results)))).is_hindered:
        results.append(tried.result)
        need(len(results) < MESSAGES_MAX, "a move without end")
    run.step(f"at all of {len(results) - 1} records: {', '.join(results)}")
    pair.move()


def everywhere(run, *hindrances):
    """Before the first message and behind each, until a move is over first; then at the decision."""
    pair = Pair(run)
    run.step(f"unhindered: {' '.join(pair.move().passed)}")
    for hinder in hindrances:
        hinder(pair, Border(when="before"))
        nr = 1
        while hinder(pair, Border(nr=nr)).is_hindered:
            nr += 1
            need(nr < MESSAGES_MAX, "a move without end")
        run.step(f"at all of {nr - 1} messages")
        for at in DECISION_ALL:
            hinder(pair, at)
    pair.move()
