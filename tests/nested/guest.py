# SPDX-License-Identifier: Apache-2.0
"""The guest as seen over its own network: commands, loads, and what must hold of them."""

import re
import struct
import subprocess
import time
import zlib

from channel import PATIENCE, ChannelError
from host import CommandFailed
from images import copy_sparse

PORT = 9000
LOADS = ("memory", "disk", "clock", "vector", "tcp")
CLONE_LOADS = ("memory", "disk", "clock", "vector")  # the TCP connection is the original's
# What goes on in a load that is alive.
COUNTERS = (("memory", "hashes"), ("memory", "walks"), ("disk", "acked"), ("vector", "rounds"),
            ("tcp", "messages"))
PEER_PORT = 7777
GENERATION_ID_GPA = 0xef000  # docs/platform.md
RECORD_RING = 512
RECORD_LEN = 4096
BOOT_TIMEOUT = 30.0
# Lines of the guest kernel's log that mean nothing here: facts about the processor, and wonder at
# how slow it is.
HARMLESS = (
    "hrtimer: interrupt took", "hogged CPU for", "interrupt took too long", "read-back delay",
    "mitigation", "Spectre", "Speculative", "SRSO", "Retbleed", "Transient", "MDS", "RETBleed",
    "tsc: Fast TSC calibration failed", "platform regulatory", "Unable to set",
)
# What makes a line of any level a warning.
ALARMING = ("WARNING:", "BUG:", "Call Trace", "stall", "blocked for more", "I/O error", "unstable")
GAP = re.compile(r"Long readout interval, .* cs_nsec: (\d+) wd_nsec: (\d+)")
GAP_SLACK_NS = 50_000_000


def _is_honest_gap(line):
    """The kernel did not run for a while, and both of its clocks say so."""
    found = GAP.search(line)
    return bool(found) and abs(int(found[1]) - int(found[2])) <= GAP_SLACK_NS


def bad_lines(text, harmless=()):
    """Lines of a kernel's raw log at level warning or worse, and anything like a trace."""
    bad = []
    for line in text.splitlines():
        level = int(line[1:line.index(">")]) & 7 if line.startswith("<") else 6
        alarming = any(w in line for w in ALARMING)
        known = any(h in line for h in (*HARMLESS, *harmless)) or _is_honest_gap(line)
        if (level <= 4 or alarming) and not known:
            bad.append(line)
    return bad


class Violation(Exception):
    """Something that must hold does not."""


def need(condition, text):
    if not condition:
        raise Violation(text)


def pairs(line):
    """The key=value words of a load's status line."""
    out = {}
    for word in line.split():
        key, _, value = word.partition("=")
        out[key] = int(value) if value.isdigit() else value
    return out


class Guest:
    """Talks to a guest by TCP from @observer, a host that stays while the guest moves."""

    def __init__(self, observer, addr="10.9.0.10", turns=1):
        """@turns: how many guests take turns on the host's one processor."""
        self.observer = observer
        self.addr = addr
        self.turns = turns
        self.channel = None

    def connect(self, timeout=30.0):
        self.channel = self.observer.tunnel(f"tcp:{self.addr}:{PORT}", timeout * self.turns)

    def run(self, command, timeout=20.0, check=True):
        status, out = self.channel.run(command, timeout * self.turns)
        text = out.decode(errors="replace")
        if check and status:
            raise CommandFailed(f"guest: {command}: status {status}: {text.strip()}")
        return text

    # Loads ---------------------------------------------------------------------------------------

    def start_loads(self, slower=1, still_mib=24, churn_mib=8):
        """Memory, disk, clock and a TCP connection to the observer; all run until the guest ends.
        Each rests @slower times as long as usual after each step.
        """
        self.observer.run("killall load_tcp 2>/dev/null; while pidof load_tcp >/dev/null; do "
                          f"usleep 10000; done; rm -f /run/peer; load_tcp serve {PEER_PORT} /run/peer >/dev/null 2>&1 "
                          "</dev/null & until [ -f /run/peer ]; do usleep 10000; done")
        start = [f"load_memory {still_mib} {churn_mib} /run/load/memory",
                 "load_disk /root/records /run/load/disk",
                 "load_clock /run/load/clock",
                 "load_vector /run/load/vector",
                 f"load_tcp keep {self.observer.addr} {PEER_PORT} /run/load/tcp"]
        for command in start:
            name = command.rpartition("/")[2]
            self.run(f"LOAD_SLOWER={slower} {command} >/run/load/{name}.out 2>&1 </dev/null & "
                     f"until [ -f /run/load/{name} ]; do usleep 10000; done")

    def loads(self, names=LOADS):
        """{load: its status line as a dict}; a load that ended is a violation."""
        words = " ".join(names)
        text = self.run(f"cd /run/load; for n in {words}; do cat $n; done; for n in {words}; do "
                        "pidof load_$n >/dev/null || echo load_$n: $(cat $n $n.out); done"
                        ).splitlines()
        need(len(text) == len(names), f"a load ended: {text[len(names):]}")
        return dict(zip(names, map(pairs, text)))

    def new_clock_window(self):
        self.run("kill -USR1 $(pidof load_clock); usleep 100000")

    def check_loads(self, before=None, timeout=20.0, names=LOADS):
        """Every load is without error and, given @before, has gone on since."""
        deadline = time.monotonic() + timeout * self.turns * PATIENCE
        while True:
            now = self.loads(names)
            for name, status in now.items():
                need(not status.get("errors"), f"load {name}: {status}")
            need(now["memory"]["hash"] == now["memory"]["expected"], f"memory: {now['memory']}")
            need(now["clock"]["backwards"] == 0, f"the clock went back: {now['clock']}")
            need("tcp" not in now or now["tcp"]["broken"] == "no",
                 f"the TCP connection broke: {now.get('tcp')}")
            if not before or all(now[n][k] > before[n][k] for n, k in COUNTERS if n in now):
                return now
            need(time.monotonic() < deadline,
                 f"a load stands still for {timeout:.0f} s: {before} -> {now}")
            time.sleep(0.2)

    def check_peer(self):
        """The other end of the guest's TCP connection, in the observer."""
        peer = pairs(self.observer.run("cat /run/peer"))
        need(peer["broken"] == "no" and not peer["errors"], f"the peer's connection: {peer}")
        return peer

    def wall_offset_ms(self, width=200.0, tries=8):
        """How far the guest's wall clock is ahead of this machine's: (least, most), no further
        apart than @width unless @tries readings do not come to that.

        The guest reads its clock between our asking and its answer's arrival, so that every
        reading bounds the offset on both sides; all of them hold.
        """
        least, most = float("-inf"), float("inf")
        while most - least > width and tries:
            asked = time.time_ns()
            read = int(self.run("show_clock"))
            came = time.time_ns()
            least, most = max(least, (read - came) / 1e6), min(most, (read - asked) / 1e6)
            tries -= 1
        need(least <= most + 1.0, f"the wall clock jumps: it is {least:.0f} to {most:.0f} ms ahead")
        return least, most

    def identity(self):
        """What no two clones may share, as seen from inside."""
        out = pairs(self.run("show_random"))
        out["address"] = self.run("ip -4 addr show dev eth0 | sed -n 's/.*inet \\([^ ]*\\).*/\\1/p'").strip()
        out["MAC inside"] = self.run("cat /sys/class/net/eth0/address").strip()
        out["generation id"] = self.run(f"dd if=/dev/mem bs=16 skip={GENERATION_ID_GPA // 16} "
                                        "count=1 2>/dev/null | xxd -p").strip()
        return out

    # What the guest thinks -----------------------------------------------------------------------

    def warnings(self, harmless=()):
        return bad_lines(self.run("dmesg -r"), harmless)

    def power_off(self):
        """Asks the guest to end; the connection dies with it."""
        try:
            self.channel.run("poweroff", 5.0)
        except ChannelError:
            pass


# The disk, when the guest has gone ---------------------------------------------------------------

def _e2fsck(image, *options):
    return subprocess.run(["e2fsck", *options, str(image)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False, text=True,
                          env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})


def check_filesystem(image):
    """e2fsck finds the file system clean and finds nothing to mend when forced."""
    done = _e2fsck(image, "-f", "-n")
    need(done.returncode == 0, f"e2fsck {image}: status {done.returncode}: {done.stdout}")


def check_crashed_disk(image, acked):
    """After a power cut: with its journal replayed, in a copy, it is as good as after an orderly end."""
    copy = image.with_suffix(".crashed")
    copy_sparse(image, copy)
    done = _e2fsck(copy, "-p")
    need(done.returncode in (0, 1), f"e2fsck -p {image}: {done.returncode}: {done.stdout}")
    check_filesystem(copy)
    check_records(copy, acked)
    copy.unlink()


def check_records(image, acked):
    """Every record that the guest was told is durable is in the file."""
    target = image.with_suffix(".records")
    subprocess.run(["debugfs", "-R", f"dump /root/records {target}", str(image)], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})
    data = target.read_bytes()
    target.unlink()
    for number in range(max(1, acked - RECORD_RING + 1), acked + 1):
        at = number % RECORD_RING * RECORD_LEN
        block = data[at:at + RECORD_LEN]
        need(len(block) == RECORD_LEN, f"record {number} of {acked} is missing")
        found, crc = struct.unpack_from("<QI", block)
        need(found >= number and found % RECORD_RING == number % RECORD_RING,
             f"record {number} of {acked}: the block holds {found}")
        need(zlib.crc32(block[12:]) == crc, f"record {number} of {acked} is damaged")

