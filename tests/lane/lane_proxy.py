# SPDX-License-Identifier: Apache-2.0
"""
A link between source and destination that knows the messages of docs/migration-protocol.md: it
counts them, and does something at the border of any of them.  Where a connection speaks TLS it knows the
records.
"""

import os
import socket
import struct
import threading

NAMES = ("?", "HELLO", "CONFIG", "READY", "REFUSE", "LANE", "PAGES", "ROUND_END", "ROUND_DONE",
         "STOP", "STATE", "LOADED", "COMMIT", "RUNNING", "ABORT", "KEEPALIVE", "FACTS", "MEMORY")
FDS_MAX = 64  # of MEMORY
RECORD = "RECORD"
TO_DESTINATION, TO_SOURCE = "to destination", "to source"


class Border:
    """
    Before or behind the nr-th (from 1) message of a name, on the control channel or lane 0.  Without
    a name: the nr-th of all, whichever connection it takes, keepalives left out.  With TLS: the nr-th record
    of the control channel.
    """

    def __init__(self, name=None, when="behind", nr=1, direction=None):
        self.name, self.when, self.nr, self.direction = name, when, nr, direction

    def __str__(self):
        where = f" {self.direction}" if self.direction else ""
        return f"{self.when} {self.name or 'message'} {self.nr}{where}"


class Proxy:
    """
    Listens at an address of its own and forwards to target, a tcp: or unix: URL.  at: a Border; there act(proxy) is called, once,
    with the message before it forwarded and nothing behind it; the default cuts all connections.
    Behind a message, what anybody sends meanwhile waits until act() has returned.
    edits: by the name of a message what makes another body of its body.  tls: the connections speak it.
    """

    def __init__(self, target, at=None, act=None, edits=None, tls=False):
        self.target = target
        self.at = at
        self.act = act or Proxy.cut
        self.edits = edits or {}
        self._tls = tls
        self.seen = []  # (direction, name) of whole messages, keepalives left out
        self.acted = threading.Event()
        self._counts = {}
        self._lock = threading.Lock()
        self._went_on = threading.Condition(self._lock)
        self._is_acting = False
        self._lost = set()  # directions
        self._socks = []
        self._is_cut = False
        self._is_unix = target.startswith("unix:")
        if self._is_unix:
            path = target[5:] + ".proxy"
            if os.path.exists(path):
                os.unlink(path)
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self._listener.listen()
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = []
        self._spawn(self._accept)

    def url(self):
        if self._is_unix:
            return self.target + ".proxy"
        return f"tcp:127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self):
        """Both ends see their connections break; nothing that is under way arrives."""
        with self._lock:
            self._is_cut = True
            for sock in self._socks:
                # RST: no byte that was not forwarded will be.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts; close() would not
        except OSError:
            pass
        self._listener.close()

    def lose(self, direction):
        """What comes from now on, or waits for act() to return, is not forwarded: that end is dead."""
        with self._lock:
            self._lost.add(direction)

    def close(self):
        self.cut()
        for thread in self._threads:
            thread.join(10)
        for sock in self._socks:
            sock.close()

    def _spawn(self, function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _connect(self):
        if not self._is_unix:
            host, _, port = self.target[4:].rpartition(":")
            return socket.create_connection((host, int(port)))
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.target[5:])
        return sock

    def _accept(self):
        number = 0
        while True:
            try:
                source, _ = self._listener.accept()
            except OSError:
                return
            try:
                destination = self._connect()
            except OSError:
                source.close()
                return
            if not self._is_unix:
                for sock in (source, destination):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if self._is_cut:
                    source.close()
                    destination.close()
                    return
                self._socks += [source, destination]
            self._spawn(self._forward, number, TO_DESTINATION, source, destination)
            self._spawn(self._forward, number, TO_SOURCE, destination, source)
            number += 1

    def _is_here(self, name, direction):
        """The message that is about to pass is the one."""
        at = self.at
        if at is None or self.acted.is_set():
            return False
        if at.name is None:
            return at.nr == sum(self._counts.values()) + 1
        if at.name != name:
            return False
        return at.nr == self._counts.get((name, direction), 0) + 1 and \
            at.direction in (None, direction)

    def _pass(self, direction, name, message, fds, target):
        if name in (None, "KEEPALIVE"):
            target.sendall(message)
            return
        with self._lock:
            self._went_on.wait_for(lambda: not self._is_acting)
            here = self._is_here(name, direction)
            self._counts[(name, direction)] = self._counts.get((name, direction), 0) + 1
            if here:
                self.acted.set()
                self._is_acting = self.at.when == "behind"
        if here and self.at.when == "before":
            self.act(self)
        try:
            with self._lock:
                if self._is_cut or direction in self._lost:
                    raise OSError("cut")
                self.seen.append((direction, name))
            self._send(target, message, fds)
            if here and self.at.when == "behind":
                self.act(self)
        finally:
            if here:
                self._go_on()

    def _go_on(self):
        with self._lock:
            self._is_acting = False
            self._went_on.notify_all()

    def _forward(self, number, direction, source, target):
        try:
            while True:
                if self._tls:
                    name = None if number else RECORD
                    self._pass(direction, name, self._read_record(source), [], target)
                    continue
                head, fds = self._read_head(source)
                try:
                    kind, flags, length = struct.unpack("<HHI", head)
                    name = NAMES[kind] if kind < len(NAMES) else "?"
                    body = self._read(source, length)
                    if name in self.edits:
                        body = self.edits[name](body)
                        head = struct.pack("<HHI", kind, flags, len(body))
                    self._pass(direction, name, head + body, fds, target)
                finally:
                    for fd in fds:
                        os.close(fd)
        except OSError:
            pass
        try:
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _read_record(self, sock):
        """RFC 8446, 5.1: the length is in network order."""
        head = self._read(sock, 5)
        return head + self._read(sock, int.from_bytes(head[3:], "big"))

    def _read_head(self, sock):
        """Return: the head of a message, and the descriptors that came with its first byte."""
        if not self._is_unix:
            return self._read(sock, 8), []
        first, fds, _, _ = socket.recv_fds(sock, 1, FDS_MAX)
        if not first:
            raise OSError("end")
        return first + self._read(sock, 7), fds

    @staticmethod
    def _send(sock, message, fds):
        if fds:
            sent = socket.send_fds(sock, [message], fds)
            message = message[sent:]
        sock.sendall(message)

    @staticmethod
    def _read(sock, length):
        data = bytearray()
        while len(data) < length:
            part = sock.recv(length - len(data))
            if not part:
                raise OSError("end")
            data += part
        return bytes(data)
