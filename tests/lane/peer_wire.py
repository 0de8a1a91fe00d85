# SPDX-License-Identifier: Apache-2.0
"""Messages of docs/migration-protocol.md, for the second receiver and the second source."""

import select
import struct
import threading
import time

PAGE = 4096
SECRET_SIZE = 32

# Chapter 2.
HELLO, CONFIG, READY, REFUSE, LANE, PAGES, ROUND_END, ROUND_DONE, STOP, STATE, LOADED, COMMIT, \
    RUNNING, ABORT, KEEPALIVE, FACTS, MEMORY = range(1, 18)
OPTIONAL = 1
UNKNOWN_MAX = 16384
TO_DESTINATION = {
    HELLO: (24, 16384), CONFIG: (8, 8 + 64 * 48 + (16 << 20)), LANE: (40, 40),
    PAGES: (16, 16 + 256 * 24 + (1 << 20)), ROUND_END: (24, 24), STOP: (0, 0),
    STATE: (8, 8 + (1 << 20)), COMMIT: (0, 0), ABORT: (0, 255), KEEPALIVE: (0, 0),
}
TO_SOURCE = {
    HELLO: (24, 16384), READY: (40, 40), REFUSE: (2, 16384), ROUND_DONE: (8, 8), LOADED: (0, 0),
    RUNNING: (32, 32), ABORT: (0, 255), KEEPALIVE: (0, 0),
}
ZERO, DATA = 0, 1
RAW, ZSTD = 0, 1
PAYLOAD_MAX = 1 << 20
LAST = 1
KEEPALIVE_S = 1
SILENCE_S = 60


class ProtocolError(Exception):
    """The peer broke the protocol, or gave up."""


class GaveUp(ProtocolError):
    """ABORT came."""


class Refused(ProtocolError):
    """REFUSE came: reasons."""

    def __init__(self, reasons):
        super().__init__("; ".join(reasons))
        self.reasons = reasons


def need(condition, what):
    if not condition:
        raise ProtocolError(what)


def reasons_of(body):
    """3.4."""
    nr, = struct.unpack_from("<H", body)
    at, reasons = 2, []
    for _ in range(nr):
        length, = struct.unpack_from("<H", body, at)
        need(length <= 255 and at + 2 + length <= len(body), "REFUSE: its lengths")
        reasons.append(bytes(body[at + 2:at + 2 + length]).decode())
        at += 2 + length
    need(nr <= 32 and at == len(body), "REFUSE: its lengths")
    return reasons


class Channel:
    """
    Messages over a socket.  lengths: of those that may come.  ticks: whether a sign of life goes
    out each second while this end waits or sends; of a control channel.
    """

    def __init__(self, sock, lengths, ticks=False):
        self.sock = sock
        self.sock.settimeout(SILENCE_S)
        self.lengths = lengths
        self.ticks = ticks
        self.ticked = time.monotonic()
        self.lock = threading.Lock()

    def tick(self):
        if self.ticks and time.monotonic() - self.ticked >= KEEPALIVE_S:
            self.send(KEEPALIVE)
            self.ticked = time.monotonic()

    def _wait(self):
        # What a TLS session has read already is behind no file descriptor.
        if getattr(self.sock, "pending", lambda: 0)():
            return
        end = time.monotonic() + SILENCE_S
        while not select.select([self.sock], [], [], KEEPALIVE_S)[0]:
            need(time.monotonic() < end, "nothing came for a minute")
            self.tick()

    def read(self, length):
        data = bytearray(length)
        view = memoryview(data)
        while view:
            self._wait()
            got = self.sock.recv_into(view)
            need(got, "the peer closed the connection")
            view = view[got:]
        return data

    def head(self):
        kind, flags, length = struct.unpack("<HHI", self.read(8))
        least, most = self.lengths.get(kind, (0, UNKNOWN_MAX))
        need(least <= length <= most, f"message type {kind}: {length} bytes")
        return kind, flags, length

    def receive_one(self):
        """One message.  Return: type, body; None for one that does not matter."""
        kind, flags, length = self.head()
        body = self.read(length)
        self.tick()
        if kind == KEEPALIVE:
            return None
        if kind == ABORT:
            raise GaveUp(f"the peer gave up: {body.decode('ascii')}")
        if kind == REFUSE and REFUSE in self.lengths:
            raise Refused(reasons_of(body))
        if kind not in self.lengths:
            need(flags & OPTIONAL, f"message type {kind} is not known here")
            return None
        return kind, body

    def receive(self):
        """The next message that matters.  Return: type, body."""
        message = None
        while not message:
            message = self.receive_one()
        return message

    def expect(self, wanted):
        kind, body = self.receive()
        need(kind == wanted, f"message type {kind} where {wanted} was due")
        return body

    def send(self, kind, body=b"", flags=0):
        with self.lock:
            self.sock.sendall(struct.pack("<HHI", kind, flags, len(body)) + body)

    def ended(self):
        """Whether the peer has closed it, whatever comes before."""
        try:
            while True:
                self._wait()
                if not self.sock.recv(4096):
                    return True
        except ConnectionError:
            return True
