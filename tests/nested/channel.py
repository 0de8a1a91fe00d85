# SPDX-License-Identifier: Apache-2.0
"""The driver's end of the command server (agents/command_server.c): commands and streams."""

import os
import queue
import socket
import struct
import threading
import time

EXEC, DATA, EOF, KILL, CONNECT, CLOSED, PING = range(1, 8)
PAYLOAD_MAX = 32 << 10
# Time-outs here are written for a machine that has nothing else to do; it may have.
PATIENCE = float(os.environ.get("NESTED_PATIENCE", "5"))


class ChannelError(Exception):
    """The other end is gone, or did not answer in time."""


class Stream:
    """One command's or connection's bytes."""

    def __init__(self, channel, number):
        self.channel = channel
        self.number = number
        self.events = queue.Queue()
        self.status = None

    def write(self, data):
        for at in range(0, len(data), PAYLOAD_MAX):
            self.channel.send(self.number, DATA, data[at:at + PAYLOAD_MAX])

    def end_input(self):
        self.channel.send(self.number, EOF, b"")

    def kill(self):
        self.channel.send(self.number, KILL, b"")

    def read(self, timeout):
        """The next bytes; None once it has ended, with self.status set."""
        if self.status is not None:
            return None
        try:
            kind, data = self.events.get(timeout=max(timeout, 0.001))
        except queue.Empty:
            raise ChannelError(f"nothing within {timeout:.1f} s") from None
        if kind == DATA:
            return data
        if kind == CLOSED:
            self.status = struct.unpack("<i", data)[0]
            return None
        raise ChannelError("the channel broke")

    def read_all(self, timeout):
        deadline = time.monotonic() + timeout
        out = bytearray()
        while (data := self.read(deadline - time.monotonic())) is not None:
            out += data
        return bytes(out)


class Channel:
    """Frames over any object with sendall() and recv(); usable from several threads."""

    def __init__(self, pipe):
        self.pipe = pipe
        self.streams = {0: Stream(self, 0)}
        self.next = 0
        self.lock = threading.Lock()
        self.broken = False
        threading.Thread(target=self._read_frames, daemon=True).start()

    def send(self, number, kind, data):
        with self.lock:
            try:
                self.pipe.sendall(struct.pack("<HHI", number, kind, len(data)) + data)
            except OSError as e:
                raise ChannelError(str(e)) from e

    def _read_frames(self):
        buf = bytearray()
        while True:
            try:
                data = self.pipe.recv(1 << 16)
            except (OSError, ChannelError):
                data = b""
            if not data:
                break
            buf += data
            while len(buf) >= 8:
                number, kind, length = struct.unpack_from("<HHI", buf)
                if len(buf) < 8 + length:
                    break
                stream = self.streams.get(number)
                if stream:
                    stream.events.put((kind, bytes(buf[8:8 + length])))
                if kind == CLOSED:
                    self.streams.pop(number, None)
                del buf[:8 + length]
        self.broken = True
        for stream in list(self.streams.values()):
            stream.events.put((None, b""))

    def _open(self, kind, text):
        with self.lock:
            self.next = self.next % 0xfff0 + 1
            stream = self.streams[self.next] = Stream(self, self.next)
        if self.broken:
            raise ChannelError("the channel broke")
        self.send(stream.number, kind, text.encode())
        return stream

    def spawn(self, command):
        return self._open(EXEC, command)

    def connect(self, where):
        return self._open(CONNECT, where)

    def ping(self, timeout):
        """Waits until the server answers; older answers are thrown away.  No patience here."""
        token = str(time.monotonic_ns()).encode()
        self.send(0, PING, token)
        deadline = time.monotonic() + timeout
        while True:
            try:
                kind, data = self.streams[0].events.get(
                    timeout=max(deadline - time.monotonic(), 0.001))
            except queue.Empty:
                raise ChannelError(f"no answer within {timeout:.1f} s") from None
            if kind is None:
                raise ChannelError("the channel broke")
            if data == token:
                return

    def run(self, command, timeout=30.0, data=b""):
        """(exit status, output) of a shell command; its process group is killed at the time-out."""
        stream = self.spawn(command)
        try:
            if data:
                stream.write(data)
            stream.end_input()
            out = stream.read_all(timeout * PATIENCE)
            return stream.status, out
        except ChannelError as e:
            if not self.broken:
                stream.kill()
            raise ChannelError(f"{command}: {e}") from e


class StreamPipe:
    """A stream through one channel as the pipe of another: the guest behind its host."""

    def __init__(self, stream):
        self.stream = stream

    def sendall(self, data):
        self.stream.write(data)

    def recv(self, _size):
        while True:
            try:
                return self.stream.read(3600.0) or b""
            except ChannelError:
                return b""


def connect_unix(path, timeout):
    deadline = time.monotonic() + timeout
    while True:
        pipe = socket.socket(socket.AF_UNIX)
        try:
            pipe.connect(str(path))
            return pipe
        except OSError:
            pipe.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
