#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The second reader and chsnap say the same of the same bytes.

    test_read_store.py CHSNAP SOURCE_DIRECTORY
"""
import contextlib
import hashlib
import io
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import read_store  # noqa: E402

CHSNAP, SOURCE = sys.argv.pop(1), pathlib.Path(sys.argv.pop(1))
GOLDEN = SOURCE / "tests/golden/store"
STRIDE = 149  # of the bytes that are changed


def golden_region(snapshot):
    """The 600 pages that tests/unit/test_store_golden.c puts at 1 MiB."""
    pages = []
    for i in range(600):
        if 8 <= i < 590:
            pages.append(bytes(4096))
        elif snapshot == 1 and i == 5:
            pages.append(b"\x55" * 4096)
        else:
            pages.append(bytes(((at >> 6) * (i + 1) + at % 7) & 255 for at in range(4096)))
    return hashlib.sha256(b"".join(pages)).hexdigest()


def read(*args):
    """Exit status and output of the second reader."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        status = read_store.main([str(a) for a in args])
    return status, out.getvalue()


def chsnap(*args, **kwargs):
    return subprocess.run([CHSNAP, *map(str, args)], check=True, capture_output=True, **kwargs).stdout


class Reader(unittest.TestCase):
    def setUp(self):
        self.temp = tempfile.TemporaryDirectory()
        self.dir = pathlib.Path(self.temp.name)

    def tearDown(self):
        self.temp.cleanup()

    def test_the_golden_stores_are_what_was_put_in(self):
        for name, second in (("v1", "2c531db7"), ("v1-reserve", "a4ec6d7b")):
            with self.subTest(name):
                status, text = read(GOLDEN / name)
                self.assertEqual(status, 0)
                for snapshot in (0, 1):
                    self.assertIn(f"region 0x100000 600 pages sha256={golden_region(snapshot)}",
                                  text)
                self.assertIn(f"snapshot {second}", text)
                self.assertIn("name=second tags=blue,green vm=golden-vm", text)
                self.assertIn(f"state={hashlib.sha256(b'golden state').hexdigest()}", text)

    def test_the_contents_of_a_reserve_mean_nothing(self):
        store = self.dir / "store"
        shutil.copytree(GOLDEN / "v1-reserve", store)
        good = read(store)
        (store / "reserve").write_bytes(b"anything")
        self.assertEqual(read(store), good)
        (store / "reserve").unlink()
        self.assertEqual(read(store), good)

    def test_the_golden_stream_is_the_same_snapshot(self):
        status, text = read("--stream", GOLDEN / "stream-v1.bin")
        self.assertEqual(status, 0)
        self.assertEqual(text, "\n".join(read(GOLDEN / "v1")[1].splitlines()[3:]) + "\n")

    def test_what_is_written_today_is_read(self):
        store, copy = self.dir / "store", self.dir / "copy"
        shutil.copytree(GOLDEN / "v1", store)
        stream = chsnap("export", store, "second", "first")
        chsnap("import", copy, input=stream)
        status, text = read(copy)
        self.assertEqual(status, 0)
        self.assertEqual(sorted(text.splitlines()), sorted(read(GOLDEN / "v1")[1].splitlines()))
        raw = chsnap("dump", "--raw", copy, "second")
        self.assertEqual(hashlib.sha256(raw[1 << 20:]).hexdigest(), golden_region(1))
        (self.dir / "stream").write_bytes(chsnap("export", copy, "first"))
        self.assertEqual(read("--stream", self.dir / "stream")[0], 0)

    def test_changed_bytes_are_refused_or_mean_nothing(self):
        store = self.dir / "store"
        shutil.copytree(GOLDEN / "v1", store)
        good = read(store)
        refused = 0
        for pack in sorted((store / "packs").iterdir()):
            whole = pack.read_bytes()
            for at in range(0, len(whole), STRIDE):
                pack.write_bytes(whole[:at] + bytes([whole[at] ^ 0x21]) + whole[at + 1:])
                result = read(store)
                self.assertTrue(result[0] == 1 or result == good, f"{pack.name} at {at}")
                refused += result[0]
            pack.write_bytes(whole)
        self.assertGreater(refused, 30)
        stream = (GOLDEN / "stream-v1.bin").read_bytes()
        for at in range(0, len(stream), STRIDE):
            (self.dir / "bad").write_bytes(stream[:at] + bytes([stream[at] ^ 0x21]) + stream[at + 1:])
            self.assertEqual(read("--stream", self.dir / "bad")[0], 1, f"stream at {at}")


if __name__ == "__main__":
    unittest.main()
