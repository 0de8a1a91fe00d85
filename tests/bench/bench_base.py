# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks stand on: a working directory, contents for guests, clocks, tables."""

import contextlib
import mmap
import os
import pathlib
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lane"))

from lane_base import BUILD, MIB, need_kvm, need_tool, program, wait_until  # noqa: E402
from lane_host import GuestMemory  # noqa: E402
from bench_linux import Skip, linux_memory  # noqa: E402

GUEST_MIB = 1024
DIRTY_AT_MIB = 64
DIRTY_MIB = 64
FILL_AT_MIB = DIRTY_AT_MIB
DATA_PERCENT = 58
RUN = 65536


class Bench:
    """Stands in for a LaneTest where the harness of the lanes wants one."""

    def __init__(self, name):
        try:
            need_kvm()
            for needed in ("chvmm",):
                program(needed)
            need_tool("qemu-system-x86_64")
        except unittest.SkipTest as reason:
            print(f"{name}: cannot run here: {reason}", file=sys.stderr)
            sys.exit(77)
        base = BUILD / "bench"
        base.mkdir(parents=True, exist_ok=True)
        self._stack = contextlib.ExitStack()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=name + ".", dir=base))
        self.short = pathlib.Path(tempfile.mkdtemp(prefix="bench."))
        for made in (self.dir, self.short):
            self._stack.callback(shutil.rmtree, made, ignore_errors=True)
        self._runs = 0

    def addCleanup(self, function, *args, **kwargs):  # pylint: disable=invalid-name
        self._stack.callback(function, *args, **kwargs)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stack.close()

    @contextlib.contextmanager
    def run(self):
        """What is registered inside is cleaned up at its end."""
        outer, self._stack = self._stack, contextlib.ExitStack()
        try:
            yield
        finally:
            self._stack.close()
            self._stack = outer

    def unique(self, name):
        self._runs += 1
        return f"{name}{self._runs}"

    def fifo(self, name):
        path = self.dir / self.unique(name)
        os.mkfifo(path)
        return path


class Clock:
    """A fifo_clock process (tests/bench/fifo_clock.c)."""

    def __init__(self, bench, *args):
        self.process = subprocess.Popen([str(BUILD / "tests/bench/fifo_clock"), *map(str, args)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.away = []
        bench.addCleanup(self.stop)
        self.real_time = self.process.stdout.readline() == "rt 1\n"

    def first(self):
        """Waits.  Return: the words after "first"."""
        line = self.process.stdout.readline().split()
        if not line or line[0] != "first":
            raise RuntimeError("the guest said nothing: " + " ".join(self.process.args))
        return [int(word) for word in line[1:]]

    def stop(self):
        """Return: seconds at which heartbeats came, by time.monotonic()."""
        if self.process.stdin.closed:
            return []
        self.process.stdin.close()
        rows = [line.split() for line in self.process.stdout]
        self.process.stdout.close()
        self.process.wait()
        self.away = [(int(row[1]) / 1e9, int(row[2]) / 1e9) for row in rows if row[0] == "away"]
        return [int(row[0]) / 1e9 for row in rows if row[0] != "away"]


def _without_ms(begin, end, away):
    """Length of a gap without the time in which a processor was away (fifo_clock)."""
    left, at = 0.0, begin
    for gone, back in sorted(away):
        if back <= at or gone >= end:
            continue
        left += max(gone - at, 0.0)
        at = min(back, end)
    return (left + end - at) * 1e3


def longest_gap_ms(beats, since, until, away=()):
    """
    Of those between two moments; a gap that began before or ended after them counts.  @away: the
    time in which a processor was away is none of ours.
    """
    gaps = sorted(((b - a, a, b) for a, b in zip(beats, beats[1:]) if b > since and a < until),
                  reverse=True)
    longest = 0.0 if gaps else float("inf")
    for length, begin, end in gaps:
        if length * 1e3 <= longest:
            break
        longest = max(longest, _without_ms(begin, end, away))
    return longest


def beyond_mib(pid, ram_mib):
    """Resident memory of a process except its largest mappings, which are the guest's RAM."""
    total = size = 0
    try:
        with open(f"/proc/{pid}/smaps", encoding="ascii") as maps:
            for line in maps:
                if line.startswith("Size:"):
                    size = int(line.split()[1]) // 1024
                elif line.startswith("Rss:") and size < min(ram_mib, 3072) // 2:
                    total += int(line.split()[1])
    except OSError:
        return 0.0
    return total / 1024


# ---- contents


def contents():
    """
    For the guest's memory from FILL_AT_MIB on: that of a Linux system, DATA_PERCENT of it not zero
    (bench_linux.py); where there is no Debian kernel to be had, made up.
    """
    try:
        path = linux_memory(BUILD, GUEST_MIB, DATA_PERCENT)
    except Skip as reason:
        print(f"the contents of memory are made up, for there is no Linux to take them from: {reason}")
        return made_up()
    with open(path, "rb") as memory:
        memory.seek(FILL_AT_MIB * MIB)
        image = memory.read()
    zero = bytes(4096)
    data = sum(image[i:i + 4096] != zero for i in range(0, len(image), 4096)) * 100
    print(f"memory: of a Linux system, {data * 4096 / len(image):.0f} % of its pages not zero")
    return image


def made_up(seed=1):
    """
    DATA_PERCENT of GUEST_MIB are not zero, among them the area that the guest dirties; of each six
    such runs of 64 KiB five are text, one is random.
    """
    source = random.Random(seed)
    words = [source.randbytes(source.randrange(2, 9)).hex().encode() for _ in range(4000)]
    text = b" ".join(source.choices(words, k=120000))
    total = (GUEST_MIB - FILL_AT_MIB) * MIB // RUN
    data = (GUEST_MIB * DATA_PERCENT // 100 - DIRTY_MIB) * MIB // RUN
    dirtied = DIRTY_MIB * MIB // RUN
    kinds = [True] * data + [False] * (total - dirtied - data)
    source.shuffle(kinds)
    kinds = [True] * dirtied + kinds
    image = bytearray(total * RUN)
    for i, is_data in enumerate(kinds):
        if not is_data:
            continue
        if i % 6 == 5:
            run = source.randbytes(RUN)
        else:
            at = source.randrange(len(text) - RUN)
            run = text[at:at + RUN]
        image[i * RUN:(i + 1) * RUN] = run
    return bytes(image)


def fill(pid, image, at_mib=FILL_AT_MIB, ram_mib=GUEST_MIB):
    """Writes into the memory of a guest, zero pages left untouched as a guest leaves them."""
    memory = GuestMemory(pid, ram_mib * MIB)
    zero = bytes(RUN)
    try:
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as out:
            for at in range(0, len(image), RUN):
                run = image[at:at + RUN]
                if run != zero:
                    os.pwrite(out.fileno(), run, memory.base + at_mib * MIB + at)
    finally:
        memory.close()


# ---- results


def percentile(ascending, percent):
    """By nearest rank: the smallest of the values that so many percent of them do not exceed."""
    return ascending[max(0, -(-len(ascending) * percent // 100) - 1)]


def row(name, values, unit, bound=None):
    values = sorted(values)
    text = (f"  {name:<44} {values[0]:9.2f} {statistics.median(values):9.2f} "
            f"{values[-1]:9.2f} {unit}")
    if bound is not None:
        text += f"  (bound {bound}: {'met' if statistics.median(values) <= bound else 'MISSED'})"
    print(text, flush=True)


def head(title, runs):
    print(f"\n{title}, {runs} runs each, in turns\n  {'':<44} {'min':>9} {'median':>9} {'max':>9}")


def ratio(name, ours, theirs):
    ours, theirs = statistics.median(ours), statistics.median(theirs)
    print(f"  {name:<44} {ours / theirs:9.2f} (ratio of medians, chvmm / peer)", flush=True)


def take_precedence():
    """For this process and its children, all peers alike, over what else the machine does."""
    try:
        os.setsid()
    except PermissionError:
        pass  # leads a group already
    try:
        with open("/proc/self/autogroup", "w", encoding="ascii") as group:
            group.write("-20")
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    except OSError:
        print("without precedence over other programs: not root")


class Warmth:
    """
    Memory that the machine has at hand for whoever asks next.  A virtual machine whose balloon reports
    free pages gives memory back two seconds after it was freed, and getting it again costs about a
    second a GiB, which is no doing of the program that is measured.  So a process holds as much as
    is needed and ends just before it is.
    """

    def __init__(self, mib):
        self._ready, ready = os.pipe()
        self._pid = os.fork()
        if self._pid:
            os.close(ready)
            return
        memory = mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, mib * MIB, 4096):
            memory[at] = 1
        os.write(ready, b"1")
        signal.pause()
        os._exit(0)

    def let_go(self):
        """Waits until the memory is there, and frees it."""
        os.read(self._ready, 1)
        os.close(self._ready)
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def machine(precedence=True):
    """
    Prints one line about this machine, without its name.  precedence: taken, which what waits for the
    disk must not: threads of the kernel, which write, would come after all that is busy.
    """
    if precedence:
        take_precedence()
    cpu = "unknown processor"
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    load = os.getloadavg()[0]
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}: {os.cpu_count()} x {cpu}, "
          f"{memory:.0f} GiB, Linux {platform.release().split('-')[0]}, load {load:.1f}")
    if load > os.cpu_count() / 2:
        print("the machine was busy with other things: look at the minima and at the ratios")


__all__ = [name for name in dir() if not name.startswith("_")]
_ = wait_until
