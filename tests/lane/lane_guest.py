# SPDX-License-Identifier: Apache-2.0
"""The test guest at the other end of a serial line (tests/guest/README.md).

A Line collects bytes from any number of sources with the time at which each came, so that one Line
sees the heartbeats of a guest across a move from one process to another.
"""

import os
import re
import select
import socket
import stat
import termios
import time
import tty

HEARTBEAT = b"~"
READY = rb"chrysalis-guest ready 1 boot=(\w+) ram=(\d+)\r?\n"
DIGEST_MUL = 0x100000001B3
MASK = (1 << 64) - 1


class GuestError(AssertionError):
    """The guest answered err, or panicked."""


class Line:
    """Bytes from the guest, heartbeats taken out; bytes to the guest through the newest source."""

    def __init__(self, log=None):
        self.sources = {}  # fd -> object that owns it
        self.writer = None
        self.buffer = b""
        self.beats = []  # time.monotonic() of each heartbeat
        self.log = open(log, "ab", buffering=0) if log else None

    # ---- sources

    def attach_socket(self, path):
        """Connects to the UNIX socket of --serial socket=.  Return: whether it could."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.connect(str(path))
        except OSError:
            sock.close()
            return False
        sock.setblocking(False)
        self._attach(sock.fileno(), sock)
        return True

    def attach_path(self, path):
        """Opens a pty, a FIFO (made if it is not there) or a file that is being written."""
        path = str(path)
        if not os.path.exists(path):
            os.mkfifo(path)
        mode = os.stat(path).st_mode
        flags = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        fd = os.open(path, flags | (os.O_RDONLY if stat.S_ISREG(mode) else os.O_RDWR))
        if stat.S_ISCHR(mode):
            tty.setraw(fd, termios.TCSANOW)
        self._attach(fd, os.fdopen(fd, "r+b" if not stat.S_ISREG(mode) else "rb", buffering=0))
        if not stat.S_ISCHR(mode):
            self.writer = None

    def attach_pipe(self, reader, writer):
        """A child's pipes, as of subprocess."""
        self._attach(reader.fileno(), reader)
        self.writer = writer.fileno()

    def _attach(self, fd, owner):
        self.sources[fd] = owner
        self.writer = fd

    def detach_all(self):
        for owner in self.sources.values():
            owner.close()
        self.sources = {}
        self.writer = None

    def close(self):
        self.detach_all()
        if self.log:
            self.log.close()
            self.log = None

    # ---- reading

    def pump(self, timeout_s):
        """Waits until something came, at most timeout_s.  Return: whether something did."""
        if not self.sources:
            time.sleep(timeout_s)
            return False
        ready, _, _ = select.select(list(self.sources), [], [], timeout_s)
        now = time.monotonic()
        any_data = False
        for fd in ready:
            try:
                data = os.read(fd, 65536)
            except BlockingIOError:
                continue
            except OSError:
                data = b""  # the other end of a pty is gone
            if not data:
                self._lost(fd)
                continue
            any_data = True
            if self.log:
                self.log.write(data)
            self.beats.extend([now] * data.count(HEARTBEAT))
            self.buffer += data.replace(HEARTBEAT, b"")
        return any_data

    def _lost(self, fd):
        if stat.S_ISREG(os.fstat(fd).st_mode):
            time.sleep(0.01)  # the end of a file that grows
            return
        self.sources.pop(fd).close()
        if self.writer == fd:
            self.writer = next(iter(self.sources), None)

    def run(self, duration_s):
        """Only listens."""
        end = time.monotonic() + duration_s
        while (left := end - time.monotonic()) > 0:
            self.pump(left)

    def expect(self, pattern, timeout_s=20):
        """Waits for a regular expression (bytes), uses up all to its end.  Return: the match."""
        end = time.monotonic() + timeout_s
        while True:
            match = re.search(pattern, self.buffer)
            if match:
                self.buffer = self.buffer[match.end():]
                return match
            panic = re.search(rb"panic [^\n]*", self.buffer)
            if panic:
                raise GuestError(panic.group(0).decode())
            if time.monotonic() > end:
                raise AssertionError(
                    f"not within {timeout_s} s: {pattern!r}; last came {self.buffer[-300:]!r}")
            self.pump(0.2)

    def write(self, data):
        end = time.monotonic() + 10
        while data:
            if self.writer is None:
                raise AssertionError("nothing to write to")
            try:
                data = data[os.write(self.writer, data):]
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
                self.pump(0.01)

    def wait_beats(self, count, timeout_s=10):
        """Waits for that many more heartbeats."""
        wanted = len(self.beats) + count
        end = time.monotonic() + timeout_s
        while len(self.beats) < wanted:
            if time.monotonic() > end:
                raise AssertionError(f"{len(self.beats) - wanted + count} heartbeats of {count} "
                                     f"in {timeout_s} s")
            self.pump(0.1)

    def longest_gap_s(self, since=None):
        """Between two heartbeats, by this host's clock."""
        beats = [t for t in self.beats if since is None or t >= since]
        return max((b - a for a, b in zip(beats, beats[1:])), default=None)


class Answer:
    """An ok line: words, key=value pairs, and the lines before it."""

    def __init__(self, lines, last):
        self.lines = lines
        self.text = last[3:]
        self.words = self.text.split()
        self.values = dict(w.split("=", 1) for w in self.words if "=" in w)

    def __getitem__(self, key):
        return self.values[key]

    def number(self, key):
        return int(self.values[key], 0)


class Guest:
    def __init__(self, line):
        self.line = line
        self.boot = None
        self.ram = None

    def wait_ready(self, timeout_s=30):
        match = self.line.expect(READY, timeout_s)
        self.boot = match.group(1).decode()
        self.ram = int(match.group(2))

    def send(self, command):
        self.line.write(command.encode() + b"\n")

    def answer(self, timeout_s=30):
        """The answer to the last command: an Answer, or GuestError for err."""
        lines = []
        while True:
            text = self.line.expect(rb"([^\n]*)\r?\n", timeout_s).group(1).decode().rstrip("\r")
            if text.startswith("| "):
                lines.append(text[2:])
            elif text == "ok" or text.startswith("ok "):
                return Answer(lines, text)
            elif text.startswith("err"):
                raise GuestError(text)

    def do(self, command, timeout_s=30):
        self.send(command)
        try:
            return self.answer(timeout_s)
        except AssertionError as error:
            raise type(error)(f"{command}: {error}") from None

    def refuses(self, command, timeout_s=30):
        """The guest's err line."""
        try:
            answer = self.do(command, timeout_s)
        except GuestError as error:
            return str(error)
        raise AssertionError(f"{command}: answered ok {answer.text}")


def digest(data):
    """The guest's digest of bytes."""
    value = len(data)
    data += bytes(-len(data) % 8)
    for i in range(0, len(data), 8):
        value = (value ^ int.from_bytes(data[i:i + 8], "little")) * DIGEST_MUL & MASK
    return value


def read_digest(data):
    """What `blk n read` answers for these sectors."""
    value = 0
    for i in range(0, len(data), 128 * 512):
        value = (value * 31 + digest(data[i:i + 128 * 512])) & MASK
    return value


def sector(seed, number):
    """The contents of a sector that the guest wrote."""
    word = (seed * 0x9E3779B97F4A7C15 & MASK) ^ (number * 0xFF51AFD7ED558CCD & MASK)
    return word.to_bytes(8, "little") * 64
