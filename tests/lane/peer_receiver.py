# SPDX-License-Identifier: Apache-2.0
"""
A second receiver of migrations, written from docs/migration-protocol.md alone: it takes a guest's
memory and state in over a UNIX socket or TCP on loopback, checks every rule of the document that a
sender can break, and gives the guest back with ABORT, or says RUNNING and keeps it.  Compressed
pages need the program zstd.
"""

import hashlib
import mmap
import os
import pathlib
import selectors
import socket
import struct
import sys
import threading

from peer_wire import (ABORT, COMMIT, CONFIG, DATA, HELLO, KEEPALIVE, KEEPALIVE_S, LANE, LAST,
                       LOADED, PAGE, PAGES, PAYLOAD_MAX, RAW, READY, ROUND_DONE, ROUND_END, RUNNING,
                       SECRET_SIZE, STATE, STOP, TO_DESTINATION, ZERO, ZSTD, Channel, ProtocolError,
                       need)

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "format"))
import zstd_frame  # noqa: E402


def unzstd(frame, length):
    try:
        return zstd_frame.unpack(frame, length)
    except ValueError as e:
        raise ProtocolError(f"PAGES: {e}") from e


class Region:
    def __init__(self, gpa, length, name):
        self.gpa, self.length, self.name = gpa, length, name
        # Zero until something is written, and not there until then.
        self.memory = mmap.mmap(-1, length)
        self.written = bytearray(length // PAGE)


class Receiver:
    """
    url: "unix:<path>" or "tcp:127.0.0.1:<port>".  answer: ABORT gives the guest back, RUNNING keeps
    it.  run() does all of it; afterwards regions has the memory, state the state, rounds how many.
    """

    def __init__(self, url, answer=ABORT, lanes=4, capabilities=()):
        self.answer = answer
        self.lanes_most = lanes
        self.known = set(capabilities)
        self.agreed = set()
        if url.startswith("unix:"):
            self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.listener.bind(url[5:])
            self.listener.listen()
        else:
            host, _, port = url[4:].rpartition(":")
            self.listener = socket.create_server((host, int(port)))
        self.listener.settimeout(60)
        self.secret = os.urandom(SECRET_SIZE)
        self.regions, self.config, self.state = [], b"", b""
        self.rounds = self.data_pages = self.zero_pages = 0
        self.codecs = set()
        self.runs = []  # (round, region, first page, pages, kind) as they came
        self._ended = threading.Event()

    # ---- chapter 4: the order

    def run(self):
        control = Channel(self.listener.accept()[0], TO_DESTINATION)
        threading.Thread(target=self._keep_alive, args=(control,), daemon=True).start()
        channels = [control]
        try:
            self._greet(control)
            self._describe(control)
            channels += self._take_lanes()
            self._take_memory(control, channels[1:])
            control.send(LOADED)
            control.expect(COMMIT)
            if self.answer == ABORT:
                control.send(ABORT, b"a second receiver gives the guest back")
            else:
                control.send(RUNNING, struct.pack("<4Q", 0, 0, 0, 0))
            control.sock.shutdown(socket.SHUT_WR)
            while control.sock.recv(4096):
                pass
        finally:
            self._ended.set()
            self.listener.close()
            for channel in channels:
                channel.sock.close()

    def _keep_alive(self, control):
        while not self._ended.wait(KEEPALIVE_S):
            try:
                control.send(KEEPALIVE)
            except OSError:
                return

    # ---- chapter 3: the bodies

    def _greet(self, control):
        body = control.expect(HELLO)
        magic, oldest, newest, page, lanes, nr, _ = struct.unpack_from("<8sHHIIHH", body)
        need(magic == b"CHRYSMIG", "HELLO: magic")
        need(oldest <= 1 <= newest, f"HELLO: versions {oldest} to {newest}")
        need(page == PAGE and 1 <= lanes <= 128 and nr <= 16, "HELLO: page size, lanes, capabilities")
        at, common = 24, []
        for _ in range(nr):
            flags, length = body[at], body[at + 1]
            name = bytes(body[at + 2:at + 2 + length])
            at += 2 + length
            need(1 <= length <= 31 and len(name) == length, "HELLO: name of a capability")
            need(name.decode("ascii") in self.known or not flags & 1,
                 f"HELLO: {name.decode('ascii')} is required, and not known here")
            if name.decode("ascii") in self.known:
                self.agreed.add(name.decode("ascii"))
                common.append(bytes([0, length]) + name)
        need(at == len(body), "HELLO: more than its capabilities")
        self.lanes = min(lanes, self.lanes_most)
        control.send(HELLO, struct.pack("<8sHHIIHH", b"CHRYSMIG", 1, 1, PAGE, self.lanes,
                                        len(common), 0) + b"".join(common))

    def _describe(self, control):
        body = control.expect(CONFIG)
        nr, length = struct.unpack_from("<II", body)
        need(1 <= nr <= 64 and len(body) == 8 + 48 * nr + length, "CONFIG: its lengths")
        end = 0
        for i in range(nr):
            gpa, size, name = struct.unpack_from("<QQ32s", body, 8 + 48 * i)
            need(size and not (gpa | size) % PAGE and gpa >= end, f"CONFIG: region {i}")
            need(b"\0" in name, f"CONFIG: name of region {i}")
            end = gpa + size
            self.regions.append(Region(gpa, size, name.split(b"\0")[0].decode("ascii")))
        self.config = bytes(body[8 + 48 * nr:])
        control.send(READY, self.secret + struct.pack("<II", self.lanes, 0))

    def _take_lanes(self):
        lanes = {}
        while len(lanes) < self.lanes:
            channel = Channel(self.listener.accept()[0], TO_DESTINATION)
            kind, _, _ = channel.head()
            need(kind == LANE, f"message type {kind} is the first on a lane")
            secret, index, _ = struct.unpack("<32sII", channel.read(40))
            need(secret == self.secret, "LANE: the secret")
            need(index < self.lanes and index not in lanes, f"LANE: index {index}")
            lanes[index] = channel
        return [lanes[i] for i in range(self.lanes)]

    def _take_memory(self, control, lanes):
        """
        Control channel and lanes together: until all lanes have had LAST and all the state is
        there.  A lane that has finished a round is not read until all of them have.
        """
        with selectors.DefaultSelector() as ready:
            ready.register(control.sock, selectors.EVENT_READ)
            for i, lane in enumerate(lanes):
                ready.register(lane.sock, selectors.EVENT_READ, i)
            counts = [[0, 0] for _ in lanes]
            finished, stopped, state_done, last = set(), False, False, False
            while not (last and state_done):
                events = ready.select(60)
                need(events, "nothing came for a minute")
                for key, _ in events:
                    if key.data is None:
                        message = control.receive_one()
                        if message:
                            stopped, state_done = self._on_control(*message, stopped, state_done)
                        continue
                    ended = self._on_lane(lanes[key.data], counts[key.data])
                    if ended is None:
                        continue
                    finished.add(key.data)
                    ready.unregister(key.fileobj)
                    need(ended == last or len(finished) == 1, "LAST: on some lanes only")
                    last = ended
                if len(finished) == len(lanes):
                    self.rounds += 1
                    if last:
                        continue
                    control.send(ROUND_DONE, struct.pack("<II", self.rounds - 1, 0))
                    for i in finished:
                        ready.register(lanes[i].sock, selectors.EVENT_READ, i)
                        counts[i] = [0, 0]
                    finished = set()

    def _on_control(self, kind, body, stopped, state_done):
        if kind == STOP:
            need(not stopped, "STOP: twice")
            return True, False
        need(kind == STATE and stopped and not state_done, f"message type {kind} before its time")
        flags, _ = struct.unpack_from("<II", body)
        need(len(body) > 8 or flags & LAST, "STATE: empty, and not the last")
        self.state += bytes(body[8:])
        return True, bool(flags & LAST)

    def _on_lane(self, lane, count):
        """One message.  Return: None, or at the end of a round whether it was the last."""
        kind, _, length = lane.head()
        if kind == PAGES:
            self._pages(lane, length, count)
            return None
        need(kind == ROUND_END, f"message type {kind} on a lane")
        number, flags, data, zero = struct.unpack("<IIQQ", lane.read(length))
        need(number == self.rounds, f"ROUND_END: round {number}, {self.rounds} was due")
        need([data, zero] == count, f"ROUND_END: {data} + {zero} pages, {count} came")
        self.data_pages += data
        self.zero_pages += zero
        return bool(flags & LAST)

    def _pages(self, lane, length, count):
        nr, codec, payload, _ = struct.unpack("<IIII", lane.read(16))
        need(1 <= nr <= 256 and length == 16 + 24 * nr + payload, "PAGES: its lengths")
        need(codec == RAW or (codec == ZSTD and "zstd" in self.agreed),
             f"PAGES: codec {codec} was not agreed upon")
        self.codecs.add(codec)
        runs = [struct.unpack_from("<QIIII", head) for head in
                [lane.read(24) for _ in range(nr)]]
        for first, index, pages, kind, _ in runs:
            need(index < len(self.regions), f"PAGES: region {index}")
            need(pages and (first + pages) * PAGE <= self.regions[index].length,
                 "PAGES: outside of its region")
            need(kind in (ZERO, DATA), f"PAGES: kind {kind}")
            self.runs.append((self.rounds, index, first, pages, kind))
        data_length = sum(run[2] * PAGE for run in runs if run[3] == DATA)
        need(data_length <= PAYLOAD_MAX, "PAGES: more than 1 MiB")
        need(payload == data_length if codec == RAW else 0 < payload < data_length,
             "PAGES: the payload is not that of its runs")
        data = lane.read(payload)
        self._put_in_place(runs, data if codec == RAW else unzstd(bytes(data), data_length), count)

    def _put_in_place(self, runs, data, count):
        at = 0
        for first, index, pages, kind, _ in runs:
            region = self.regions[index]
            if kind == DATA:
                region.memory[first * PAGE:(first + pages) * PAGE] = \
                    bytes(data[at:at + pages * PAGE])
                region.written[first:first + pages] = b"\1" * pages
                at += pages * PAGE
                count[0] += pages
                continue
            count[1] += pages
            for page in range(first, first + pages):
                if region.written[page]:
                    region.memory[page * PAGE:(page + 1) * PAGE] = bytes(PAGE)

    # ---- what came

    def read(self, gpa, length):
        for region in self.regions:
            if region.gpa <= gpa and gpa + length <= region.gpa + region.length:
                return region.memory[gpa - region.gpa:gpa - region.gpa + length]
        raise ValueError(f"no memory at {gpa:#x}")

    def page_digests(self):
        """One digest for each page of the first region."""
        memory = self.regions[0].memory
        return [hashlib.blake2b(memory[at:at + PAGE], digest_size=8).digest()
                for at in range(0, len(memory), PAGE)]


def words_digest(data):
    """The digest of the test guest: tests/guest/README.md."""
    digest = len(data)
    for (word,) in struct.iter_unpack("<Q", data):
        digest = (digest ^ word) * 0x100000001b3 & 0xFFFFFFFFFFFFFFFF
    return digest
