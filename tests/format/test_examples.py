# SPDX-License-Identifier: Apache-2.0
"""The worked examples of the documents are the golden files, byte for byte."""
import hashlib
import hmac
import pathlib
import re
import struct
import sys
import unittest

SOURCE = pathlib.Path(sys.argv.pop(1))
GOLDEN = SOURCE / "tests" / "golden"
# "0010  01 00 ...   meaning" and "00000010: 0100 ...  meaning": the meaning is behind two spaces.
OF_PROTOCOL = re.compile(r" {4}([0-9a-f]{4})  ((?:[0-9a-f]{2} )*[0-9a-f]{2})(?: {2,}.*| \.\.\. .*)?")
OF_STORE = re.compile(r"([0-9a-f]{8}): +((?:[0-9a-f]{2,4} )*[0-9a-f]{2,4})(?: {2,}.*)?")


def section(name, begin, end=None):
    """What a document has between two headings."""
    text = (SOURCE / "docs" / name).read_text(encoding="utf-8")
    text = text[text.index(begin):]
    return text[:text.index(end)] if end else text


def dump(text, line):
    """Return: [(offset, bytes)] of its lines that are part of a dump."""
    found = [m for m in map(line.fullmatch, text.splitlines()) if m]
    return [(int(m[1], 16), bytes.fromhex(m[2].replace(" ", ""))) for m in found]


def filter_of(uuid, nr, log2_blocks=6):
    """A filter of the digests of the numbers below nr, made by the rules of the document."""
    blocks = [[0] * 7 for _ in range(1 << log2_blocks)]
    for number in range(nr):
        digest = hashlib.sha256(struct.pack("<Q", number)).digest()
        block = blocks[int.from_bytes(digest[:8], "big") >> (64 - log2_blocks)]
        bits = int.from_bytes(digest[8:16], "little")
        for g in (bits >> 9 * i for i in range(6)):
            block[g // 64 % 7] |= 1 << g % 64
    made = struct.pack("<8sHHI16sQ24x", b"CHRYFLTR", 1, 64, log2_blocks, uuid, nr)
    for number, words in enumerate(blocks, start=1):
        for word in words:
            number = (number ^ word) * 0x9e3779b97f4a7c15 % 2**64
            number ^= number >> 32
        made += struct.pack("<8Q", *words, number)
    return made


class ExamplesTest(unittest.TestCase):
    def compare(self, rows, golden, nr_lines):
        self.assertEqual(len(rows), nr_lines)
        for at, data in rows:
            self.assertEqual(data.hex(" "), golden[at:at + len(data)].hex(" "), f"at {at:#x}")

    def assert_whole(self, rows, golden):
        """No byte is left out."""
        self.assertEqual(b"".join(data for _, data in rows), golden)

    def test_a_migration(self):
        text = section("migration-protocol.md", "## 10. An example")
        _, to_destination, rest = re.split(r"^Control channel, to the \w+:$", text, flags=re.M)
        to_source, lane = rest.split("Lane 0, up to the first page:")
        golden = {name: (GOLDEN / "migration" / "v1" / f"{name}.bin").read_bytes() for name in
                  ("control-to-destination", "control-to-source", "lane0-to-destination")}
        for part, name in ((to_destination, "control-to-destination"),
                           (to_source, "control-to-source")):
            rows = dump(part, OF_PROTOCOL)
            self.compare(rows, golden[name], -(-len(golden[name]) // 16))
            self.assert_whole(rows, golden[name])
        rows, whole = dump(lane, OF_PROTOCOL), golden["lane0-to-destination"]
        self.compare(rows, whole, 14 + 6)
        at, data = rows[-1]
        self.assertEqual(at + len(data), len(whole))

    def test_statements(self):
        secret = bytes(range(32))
        text = section("migration-protocol.md", "### 6.1", "## 7.")

        def code(what):
            return hmac.new(secret, f"chrysalis migration {what}".encode(), hashlib.sha256).hexdigest()
        for outcome in ("taken", "never"):
            made = f"{outcome}:{code('id')[:16]}:{code('outcome ' + outcome)[:32]}"
            self.assertIn(f"    {made}\n", text)

    def test_a_store(self):
        text = section("store-format.md", "## 13.", "## 14.")
        pack = (GOLDEN / "store" / "v1" / "packs" / "00000002.pack").read_bytes()
        self.assertEqual(int(re.search(r"is (\d+) bytes long", text)[1]), len(pack))
        self.compare(dump(text, OF_STORE), pack, 12)
        hints = bytes.fromhex("".join(re.findall(r"^((?:[0-9a-f]{4} ){4}[0-9a-f]{2})    ", text, re.M)))
        self.assertEqual(len(hints), 27)
        self.assertIn(hints, (GOLDEN / "store" / "v1" / "store.db").read_bytes())

    def test_a_stream(self):
        text = section("store-format.md", "## 14.", "## 15.")
        stream = (GOLDEN / "store" / "stream-v1.bin").read_bytes()
        self.compare(dump(text, OF_STORE), stream, 3)

    def test_a_filter(self):
        text = section("store-format.md", "## 15.")
        golden = (GOLDEN / "store" / "filter-v1.bin").read_bytes()
        self.compare(dump(text, OF_STORE), golden, 8)
        self.assertEqual(filter_of(b"a store's number", 100), golden)


if __name__ == "__main__":
    unittest.main()
