# SPDX-License-Identifier: Apache-2.0
"""
A second source of migrations, written from docs/migration-protocol.md alone: it sends memory and
state that peer_receiver.py took in.  Each step is a function of its own, so that a test can break
off between any two.  Compressed pages need the program zstd.
"""

import contextlib
import hashlib
import hmac
import socket
import struct
import subprocess

from peer_tls import TlsSocket, client_context
from peer_wire import (ABORT, COMMIT, CONFIG, DATA, FACTS, HELLO, LANE, LAST, LOADED, MEMORY,
                       OPTIONAL, PAGE, PAGES, RAW, READY, ROUND_DONE, ROUND_END, RUNNING,
                       SECRET_SIZE, STATE, STOP, TO_SOURCE, ZERO, ZSTD, Channel, need)

RUNS_MAX = 256
FRAME_PAGES = (512 << 10) // PAGE
# No divisor of anything: sections are cut anywhere.
STATE_PART = 4099
ZEROES = bytes(PAGE)


def zstd(data):
    return subprocess.run(["zstd", "-cq"], input=data, capture_output=True, check=True).stdout


class Frame:
    """3.6: what one PAGES holds."""

    def __init__(self):
        self.runs = []  # [first, region, pages, kind]
        self.data = []

    def is_full(self):
        return len(self.data) == FRAME_PAGES or len(self.runs) == RUNS_MAX

    def add(self, region, page, content):
        kind = ZERO if content == ZEROES else DATA
        if kind == DATA:
            self.data.append(content)
        if self.runs:
            first, last_region, pages, last_kind = self.runs[-1]
            if (region, kind) == (last_region, last_kind) and page == first + pages:
                self.runs[-1][2] += 1
                return
        self.runs.append([page, region, 1, kind])

    def pages(self, kind):
        return sum(run[2] for run in self.runs if run[3] == kind)

    def body(self, compressed):
        codec, payload = RAW, b"".join(self.data)
        if compressed and payload:
            small = zstd(payload)
            if len(small) < len(payload):
                codec, payload = ZSTD, small
        return struct.pack("<IIII", len(self.runs), codec, len(payload), 0) + \
            b"".join(struct.pack("<QIIII", *run, 0) for run in self.runs) + payload


class Source:
    """
    url: "unix:<path>" or "tcp:127.0.0.1:<port>".  regions, config, state: a Receiver's.  run() does
    all of it.
    """

    def __init__(self, url, regions=(), config=b"", state=b"", lanes=1, capabilities=(),
                 versions=(1, 1), facts=None, tls_dir=None):
        self.url = url
        self.tls = tls_dir and client_context(tls_dir)
        self.regions, self.config, self.state = regions, config, state
        self.lanes_wanted = lanes
        self.capabilities = capabilities
        self.versions = versions
        self.facts = facts
        self.control = None
        self.lanes = []
        self.secret = None
        self.agreed = set()
        self.round = self.zstd_frames = 0

    # ---- chapter 1: the connections

    def _connect(self):
        if self.url.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.connect(self.url[5:])
            return sock
        host, _, port = self.url[4:].rpartition(":")
        sock = socket.create_connection((host, int(port)), 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return TlsSocket(sock, self.tls, host) if self.tls else sock

    def open_lane(self, index, secret=None):
        lane = Channel(self._connect(), {})
        lane.send(LANE, (secret or self.secret) + struct.pack("<II", index, 0))
        return lane

    def close(self):
        for channel in [*self.lanes, *([self.control] if self.control else [])]:
            channel.sock.close()

    # ---- chapter 4: the order

    def run(self, rounds=()):
        """rounds: for each before the stop, its pages: (region, page, content)."""
        try:
            self.greet()
            self.describe()
            self.open_lanes()
            for pages in rounds or [() if "memory-fds" in self.agreed else self.all_pages()]:
                self.send_round(pages)
            self.stop()
            return self.commit()
        finally:
            self.close()

    def greet(self, capability_flags=0):
        self.control = Channel(self._connect(), TO_SOURCE, ticks=True)
        names = b"".join(bytes([capability_flags, len(name)]) + name.encode()
                         for name in self.capabilities)
        self.control.send(HELLO, struct.pack("<8sHHIIHH", b"CHRYSMIG", *self.versions, PAGE,
                                             self.lanes_wanted, len(self.capabilities), 0) + names)
        body = self.control.expect(HELLO)
        magic, oldest, newest, page, _, nr, _ = struct.unpack_from("<8sHHIIHH", body)
        need(magic == b"CHRYSMIG" and page == PAGE, "HELLO: magic, page size")
        need(oldest == newest == 1, f"HELLO: versions {oldest} to {newest}")
        at = 24
        for _ in range(nr):
            length = body[at + 1]
            self.agreed.add(bytes(body[at + 2:at + 2 + length]).decode("ascii"))
            at += 2 + length
        need(at == len(body), "HELLO: more than its capabilities")
        need(self.agreed <= set(self.capabilities), f"HELLO: {self.agreed} was not all offered")

    def describe(self):
        if self.facts is not None:
            self.control.send(FACTS, self.facts, OPTIONAL)
        config = (struct.pack("<II", len(self.regions), len(self.config)) +
                  b"".join(struct.pack("<QQ32s", r.gpa, r.length, r.name.encode())
                           for r in self.regions) + self.config)
        # One that has given up over the facts has said so, which comes next, and may have gone.
        with contextlib.suppress(BrokenPipeError):
            self.control.send(CONFIG, config)
        body = self.control.expect(READY)
        self.secret = bytes(body[:SECRET_SIZE])
        taken, _ = struct.unpack_from("<II", body, SECRET_SIZE)
        need(1 <= taken <= 128, f"READY: {taken} lanes")
        self.lanes_wanted = min(self.lanes_wanted, taken)

    def open_lanes(self):
        for i in range(self.lanes_wanted):
            self.lanes.append(self.open_lane(i))
        if "memory-fds" in self.agreed:
            head = struct.pack("<HHI", MEMORY, 0, 8 * len(self.regions))
            socket.send_fds(self.lanes[0].sock, [head + bytes(8 * len(self.regions))],
                            [r.fd for r in self.regions])

    def all_pages(self):
        for index, region in enumerate(self.regions):
            for page in range(region.length // PAGE):
                yield index, page, region.memory[page * PAGE:(page + 1) * PAGE]

    def send_round(self, pages, last=False):
        counts = [[0, 0] for _ in self.lanes]
        # A page goes over another lane in the next round.
        turn = self.round
        frame = Frame()
        for page in pages:
            frame.add(*page)
            if frame.is_full():
                self._send_frame(frame, turn, counts)
                frame, turn = Frame(), turn + 1
        if frame.runs:
            self._send_frame(frame, turn, counts)
        for lane, count in zip(self.lanes, counts):
            lane.send(ROUND_END, struct.pack("<IIQQ", self.round, LAST if last else 0, *count))
        if not last:
            done, _ = struct.unpack("<II", self.control.expect(ROUND_DONE))
            need(done == self.round, f"ROUND_DONE: {done} where {self.round} was due")
        self.round += 1

    def _send_frame(self, frame, turn, counts):
        self.control.tick()
        body = frame.body("zstd" in self.agreed)
        self.zstd_frames += body[4] == ZSTD
        at = turn % len(self.lanes)
        self.lanes[at].send(PAGES, body)
        counts[at][0] += frame.pages(DATA)
        counts[at][1] += frame.pages(ZERO)

    def stop(self, pages=()):
        """From STOP to LOADED.  pages: what was written since the last round."""
        self.control.send(STOP)
        self.send_round(pages)
        for at in range(0, len(self.state), STATE_PART):
            self.control.send(STATE, struct.pack("<II", 0, 0) + self.state[at:at + STATE_PART])
        self.send_round((), last=True)
        self.control.send(STATE, struct.pack("<II", LAST, 0))
        self.control.expect(LOADED)

    def commit(self):
        """Return: the four times of RUNNING, in nanoseconds."""
        self.control.send(COMMIT)
        return struct.unpack("<4Q", self.control.expect(RUNNING))

    def abort(self, reason):
        self.control.send(ABORT, reason.encode())

    # ---- chapter 6.1: what may be said of it

    def _code(self, text):
        return hmac.new(self.secret, b"chrysalis migration " + text, hashlib.sha256).hexdigest()

    def migration(self):
        return self._code(b"id")[:16]

    def statement(self, outcome):
        return f"{outcome}:{self.migration()}:{self._code(b'outcome ' + outcome.encode())[:32]}"
