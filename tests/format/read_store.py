#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second reader of stores and streams, written from docs/store-format.md alone.

    read_store.py STORE             verify everything, print each snapshot and the SHA-256 of each region
    read_store.py --stream FILE     the same of a stream

It shares no code with the first and knows no more than the document; section numbers are those there.
Needs only Python's library and the program zstd.
"""
import hashlib
import os
import pathlib
import shutil
import sqlite3
import struct
import sys
import tempfile

import zstd_frame

PAGE = 4096
SCHEMA = """
CREATE TABLE store(one INTEGER PRIMARY KEY CHECK(one = 1), uuid BLOB NOT NULL, last_pack INTEGER NOT NULL, nr_pages INTEGER NOT NULL) STRICT
CREATE TABLE packs(id INTEGER PRIMARY KEY, len INTEGER NOT NULL) STRICT
CREATE TABLE segments(id INTEGER PRIMARY KEY, pack INTEGER NOT NULL, off INTEGER NOT NULL, len INTEGER NOT NULL) STRICT
CREATE TABLE pages(digest BLOB PRIMARY KEY, loc INTEGER NOT NULL) STRICT, WITHOUT ROWID
CREATE TABLE fresh(segment INTEGER PRIMARY KEY, pages BLOB NOT NULL) STRICT
CREATE TABLE objects(digest BLOB PRIMARY KEY, segment INTEGER NOT NULL, hints BLOB NOT NULL) STRICT, WITHOUT ROWID
CREATE TABLE snapshots(seq INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, name TEXT UNIQUE, tags TEXT NOT NULL, labels BLOB NOT NULL, record BLOB NOT NULL) STRICT
""".strip().splitlines()


class Bad(Exception):
    """The bytes are not what the document allows."""


def need(condition, what):
    if not condition:
        raise Bad(what)


def sha256(*parts):
    h = hashlib.sha256()
    for part in parts:
        h.update(part)
    return h.digest()


def one_frame(payload, length):
    try:
        return zstd_frame.unpack(payload, length)
    except ValueError as e:
        raise Bad(f"segment: {e}") from e


def tagged(digest):
    return b"\x01" + digest


def untagged(key):
    need(len(key) == 33 and key[0] == 1, "a tagged digest is of another length or algorithm")
    return key[1:]


# --- Section 3: segments ---

SEGMENT_HEADER = 64
PAGES, NODE, STATE = 1, 2, 3


class Segment:
    """A header of 64 bytes, checked."""

    def __init__(self, header):
        need(len(header) == SEGMENT_HEADER, "a segment is cut off")
        (magic, version, self.kind, self.codec, alg, self.id, self.raw_len, self.stored_len, self.items,
         zero, self.digest) = struct.unpack("<4s4BQIIB7s32s", header)
        self.header = header
        need(magic == b"CSEG", "segment: magic")
        need(version == 1 and alg == 1, "segment: version or algorithm")
        need(self.kind in (PAGES, NODE, STATE) and self.codec in (0, 1), "segment: kind or codec")
        need(zero == bytes(7), "segment: zero")
        need(1 <= self.raw_len <= 65536, "segment: raw length")
        if self.kind == PAGES:
            need(1 <= self.items <= 16 and self.raw_len == self.items * PAGE, "segment: items")
        else:
            need(self.items == 1, "segment: items")
        if self.codec == 0:
            need(self.stored_len == self.raw_len, "segment: stored length")
        else:
            need(self.stored_len < self.raw_len, "segment: stored length")

    def unpack(self, payload):
        """Its items, verified."""
        need(len(payload) == self.stored_len, "segment: payload is cut off")
        raw = payload if self.codec == 0 else one_frame(payload, self.raw_len)
        size = self.raw_len // self.items
        items = [raw[i * size:(i + 1) * size] for i in range(self.items)]
        need(sha256(self.header[:32], *map(sha256, items)) == self.digest, "segment: digest")
        return items


# --- Section 4: manifests ---

def entries_of_level(pages, level):
    for _ in range(level):
        pages = (pages + 511) // 512
    return pages


def root_level(pages):
    level = 0
    while entries_of_level(pages, level) > 512:
        level += 1
    return level


def decode_node(raw, level, nr):
    """Digests of the entries, None where there is none."""
    need(len(raw) >= 80, "node: cut off")
    magic, version, got_level, alg, zero, got_nr, zero2 = struct.unpack("<4s4BH6s", raw[:16])
    need(magic == b"CNOD" and version == 1 and alg == 1, "node: magic, version or algorithm")
    need(zero == 0 and zero2 == bytes(6), "node: zero")
    need(got_level == level and got_nr == nr, "node: is not what its place demands")
    present = int.from_bytes(raw[16:80], "little")
    need(present >> nr == 0, "node: bits behind its entries")
    need(len(raw) == 80 + 32 * bin(present).count("1"), "node: length")
    out, at = [], 80
    for i in range(nr):
        if present >> i & 1:
            out.append(raw[at:at + 32])
            at += 32
        else:
            out.append(None)
    return out


def decode_hints(hints, leaf):
    """Loc by entry; an empty dictionary if they do not make sense."""
    places, locs = [i for i, d in enumerate(leaf) if d], {}
    if len(hints) % 9:
        return {}
    for loc, count in struct.iter_unpack("<QB", hints):
        if not count or (loc & 15) + count > 16 or count > len(places):
            return {}
        for k in range(count):
            locs[places.pop(0)] = loc + k
    return {} if places else locs


# --- Section 5: records ---

class Record:
    def __init__(self, raw):
        self.raw, self.at = raw, 0
        magic, version, alg, zero = struct.unpack("<4sBBH", self.take(8))
        need(magic == b"CSNP" and version == 1 and alg == 1 and zero == 0, "record: head")
        self.uuid = self.take(16)
        self.time_ns = self.number(8)
        self.vm, self.parent, self.config, self.disks = (self.text() for _ in range(4))
        self.regions, end = [], 0
        count = self.number(4)
        need(count <= 64, "record: regions")
        for _ in range(count):
            gpa, pages = self.number(8), self.number(8)
            need(pages and gpa >= end and gpa % PAGE == 0, "record: regions overlap or descend")
            end = gpa + pages * PAGE
            self.regions.append((gpa, pages, self.take(32)))
        self.state_len = self.number(8)
        need(self.state_len <= 256 << 20, "record: device state")
        self.state = self.take(32)
        self.pieces = [self.take(32) for _ in range((self.state_len + 65535) // 65536)]
        self.counts = [self.number(8) for _ in range(5)]
        need(self.at == len(raw), "record: something follows")

    def take(self, n):
        need(n <= len(self.raw) - self.at, "record: cut off")
        self.at += n
        return self.raw[self.at - n:self.at]

    def number(self, n):
        return int.from_bytes(self.take(n), "little")

    def text(self):
        text = self.take(self.number(4))
        need(b"\0" not in text, "record: NUL in a text")
        return text.decode()


# --- Sections 1, 2, 6, 10: a store ---

class Store:
    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.cache = {}
        # SQLite writes beside a database that it reads: read a copy.
        self.temp = tempfile.TemporaryDirectory()
        for name in ("store.db", "store.db-wal"):
            if (self.path / name).exists():
                shutil.copy(self.path / name, self.temp.name)
        self.db = sqlite3.connect(os.path.join(self.temp.name, "store.db"))
        need(self.one("PRAGMA application_id") == 0x43485253, "index: application_id")
        need(self.one("PRAGMA user_version") == 1, "index: version")
        schema = [row[0] for row in self.db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL "
                                                    "AND name NOT LIKE 'sqlite_%'")]
        need(sorted(schema) == sorted(SCHEMA), "index: other tables")
        need(self.one("PRAGMA integrity_check") == "ok", "index: SQLite finds damage")
        self.uuid, self.last_pack, self.nr_pages = self.db.execute(
            "SELECT uuid, last_pack, nr_pages FROM store").fetchone()
        self.pages = {untagged(d): loc for d, loc in self.db.execute("SELECT digest, loc FROM pages")}
        need(len(self.pages) == self.nr_pages, "index: nr_pages")
        for segment, runs in self.db.execute("SELECT segment, pages FROM fresh"):
            need(len(runs) % 34 == 0, "index: fresh")
            for slot, digest in struct.iter_unpack("<B33s", runs):
                self.pages.setdefault(untagged(digest), segment << 4 | slot)
        self.objects = {untagged(d): (segment, hints)
                        for d, segment, hints in self.db.execute("SELECT digest, segment, hints FROM objects")}
        for number, length in self.db.execute("SELECT id, len FROM packs"):
            self.check_pack(number, length)

    def one(self, sql):
        return self.db.execute(sql).fetchone()[0]

    def pack(self, number):
        return self.path / "packs" / f"{number:08x}.pack"

    def check_pack(self, number, length):
        need(number <= self.last_pack, "index: last_pack")
        with open(self.pack(number), "rb") as f:
            header = f.read(64)
            need(os.fstat(f.fileno()).st_size >= length, "pack: shorter than published")
        magic, version, size, zero, got, uuid, zero2, check = struct.unpack("<8sHHIQ16s8s16s", header)
        need(magic == b"CHRYPACK" and version == 1 and size == 64, "pack: head")
        need(zero == 0 and zero2 == bytes(8), "pack: zero")
        need(got == number and uuid == self.uuid, "pack: number or store")
        need(sha256(header[:48])[:16] == check, "pack: check")

    def segment(self, ident):
        """Kind and items of a segment."""
        if ident not in self.cache:
            row = self.db.execute("SELECT pack, off, len FROM segments WHERE id = ?", (ident,)).fetchone()
            need(row, "index: no such segment")
            with open(self.pack(row[0]), "rb") as f:
                f.seek(row[1])
                whole = f.read(row[2])
            seg = Segment(whole[:SEGMENT_HEADER])
            need(seg.id == ident and len(whole) == SEGMENT_HEADER + seg.stored_len, "segment: is another")
            self.cache[ident] = seg.kind, seg.unpack(whole[SEGMENT_HEADER:])
        return self.cache[ident]

    def object(self, digest, kind):
        need(digest in self.objects, "index: no such object")
        segment, hints = self.objects[digest]
        got, items = self.segment(segment)
        need(got == kind and sha256(items[0]) == digest, "object: is another")
        return items[0], hints

    def page(self, digest, hint):
        """By the hint if that is right, else by the index (section 4)."""
        for loc in (hint, self.pages.get(digest, 0)):
            if not loc:
                continue
            try:
                kind, items = self.segment(loc >> 4)
            except Bad:
                continue
            if kind == PAGES and (loc & 15) < len(items) and sha256(items[loc & 15]) == digest:
                return items[loc & 15]
        raise Bad("a page is lost")

    def region(self, pages, root):
        """Every page of a region, in order."""
        def walk(digest, level, i):
            nr = min(512, entries_of_level(pages, level) - i * 512)
            if digest is None:
                for _ in range(min(pages - (i << 9 * (level + 1)), 1 << 9 * (level + 1))):
                    yield bytes(PAGE)
                return
            raw, hints = self.object(digest, NODE)
            entries = decode_node(raw, level, nr)
            if level:
                for e, child in enumerate(entries):
                    yield from walk(child, level - 1, i * 512 + e)
                return
            places = decode_hints(hints, entries)
            for e, page in enumerate(entries):
                yield self.page(page, places.get(e, 0)) if page else bytes(PAGE)
        return walk(root, root_level(pages), 0)

    def snapshots(self):
        for seq, ident, name, tags, labels, raw in self.db.execute(
                "SELECT seq, id, name, tags, labels, record FROM snapshots ORDER BY seq"):
            need(sha256(raw) == untagged(ident), "snapshot: record does not match the id")
            n, t = (name or "").encode(), tags.encode()
            need(labels == tagged(sha256(struct.pack("<Q", seq), ident, struct.pack("<I", len(n)), n,
                                         struct.pack("<I", len(t)), t)), "snapshot: labels")
            yield untagged(ident).hex(), name, tags, Record(raw)

    def state(self, rec):
        state = b"".join(self.object(d, STATE)[0] for d in rec.pieces)
        need(len(state) == rec.state_len and sha256(state) == rec.state, "device state: digest")
        return state


# --- Section 14: streams ---

def manifest_root(pages, nr):
    """The root of a region of nr pages, of which pages has those that are not zero."""
    below = {i: sha256(p) for i, p in pages.items() if p != bytes(PAGE)}
    level = 0
    while True:
        count = entries_of_level(nr, level)
        nodes = {}
        for i in sorted({k // 512 for k in below} | ({0} if count <= 512 else set())):
            entries = [below.get(i * 512 + e) for e in range(min(512, count - i * 512))]
            present = sum(1 << e for e, d in enumerate(entries) if d)
            nodes[i] = sha256(b"CNOD" + struct.pack("<4BH6x", 1, level, 1, 0, len(entries)),
                              present.to_bytes(64, "little"), *(d for d in entries if d))
        if count <= 512:
            return nodes[0]
        below, level = nodes, level + 1


def read_stream(f):
    """Id, name, tags, record, state, and a dictionary of pages for each region."""
    header = f.read(32)
    need(header[:12] == b"CHRYSTRM" + struct.pack("<HH", 1, 32) and header[12:16] == bytes(4), "stream: head")
    need(sha256(header[:16])[:16] == header[16:], "stream: check")
    frames, rec, regions, labels, state = 0, None, [], None, b""
    while True:
        head = f.read(24)
        need(len(head) == 24 and head[1:4] == bytes(3), "frame: cut off, or zero")
        kind, length = head[0], int.from_bytes(head[4:8], "little")
        need(length <= 4 << 20, "frame: length")
        payload = f.read(length)
        need(len(payload) == length and sha256(head[:8], payload)[:16] == head[8:], "frame: check")
        need((kind == 1) == (frames == 0) and (kind == 2) == (frames == 1), "frame: order")
        if kind == 1:
            rec = Record(payload)
            regions = [{} for _ in rec.regions]
        elif kind == 2:
            n = int.from_bytes(payload[:4], "little")
            t = int.from_bytes(payload[4 + n:8 + n], "little")
            labels = payload[4:4 + n].decode(), payload[8 + n:].decode()
            need(len(payload) == 8 + n + t, "labels: length")
        elif kind == 3:
            seg = Segment(payload[:64])
            need(seg.kind == STATE, "state: kind")
            state += seg.unpack(payload[64:])[0]
        elif kind == 4:
            seg = Segment(payload[:64])
            need(seg.kind == PAGES, "pages: kind")
            places = struct.unpack(f"<{seg.items}Q", payload[64:64 + 8 * seg.items])
            for place, page in zip(places, seg.unpack(payload[64 + 8 * seg.items:])):
                need((place & (1 << 40) - 1) < rec.regions[place >> 40][1], "pages: place")
                regions[place >> 40][place & (1 << 40) - 1] = page
        elif kind == 5:
            for place, source in struct.iter_unpack("<QQ", payload):
                regions[place >> 40][place & (1 << 40) - 1] = regions[source >> 40][source & (1 << 40) - 1]
        else:
            need(kind == 6 and payload == struct.pack("<Q", frames), "end")
            break
        frames += 1
    need(len(state) == rec.state_len and sha256(state) == rec.state, "stream: state")
    for pages, (_, nr, root) in zip(regions, rec.regions):
        need(manifest_root(pages, nr) == root, "stream: memory is not what the record names")
    return sha256(rec.raw).hex(), *labels, rec, state, regions


def region_digest(pages):
    h = hashlib.sha256()
    for page in pages:
        h.update(page)
    return h.hexdigest()


def describe(ident, name, tags, rec, digests):
    print(f"snapshot {ident} name={name or '-'} tags={tags or '-'} vm={rec.vm or '-'} "
          f"state={rec.state.hex()}")
    for (gpa, pages, _), digest in zip(rec.regions, digests):
        print(f"  region {gpa:#x} {pages} pages sha256={digest}")


def main(args):
    try:
        if args[:1] == ["--stream"]:
            with open(args[1], "rb") as f:
                ident, name, tags, rec, _, regions = read_stream(f)
            describe(ident, name, tags, rec,
                     [region_digest(pages.get(i, bytes(PAGE)) for i in range(nr))
                      for pages, (_, nr, _) in zip(regions, rec.regions)])
            return 0
        store = Store(args[0])
        for ident, name, tags, rec in store.snapshots():
            store.state(rec)
            describe(ident, name, tags, rec,
                     [region_digest(store.region(pages, root)) for _, pages, root in rec.regions])
    except (Bad, sqlite3.DatabaseError) as e:
        print(f"read_store: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
