#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The second reader of device state and chsnap say the same of the same bytes.

    test_read_state.py CHSNAP SOURCE_DIRECTORY

The state gets into a store by a stream that is written by stream_maker.py.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import read_state  # noqa: E402
from stream_maker import PIECE, stream  # noqa: E402

CHSNAP, SOURCE = sys.argv.pop(1), pathlib.Path(sys.argv.pop(1))
GOLDEN = sorted((SOURCE / "tests/golden/state").glob("*.cbor"))


def shown(state):
    """What chsnap makes of device state; None if it refuses it."""
    with tempfile.TemporaryDirectory() as temp:
        store = pathlib.Path(temp) / "store"
        subprocess.run([CHSNAP, "import", str(store)], input=stream(state), check=True, capture_output=True)
        run = subprocess.run([CHSNAP, "show", "--state", str(store), "state"], check=False, capture_output=True)
        return json.loads(run.stdout) if run.returncode == 0 else None


def read(state, whole=True):
    try:
        return read_state.read_state(state, whole)
    except read_state.Bad:
        return None


class Reader(unittest.TestCase):
    def test_golden_sections_are_what_chsnap_shows(self):
        self.assertGreater(len(GOLDEN), 10)
        machine = b"".join(f.read_bytes() for f in GOLDEN)
        sections = read(machine)
        self.assertEqual([f"{s['type']}-v{s['version']}" for s in sections if s["type"] != "thing"],
                         [f.stem for f in GOLDEN if f.stem != "example-v1"])
        self.assertEqual(sections, shown(machine))

    def test_state_of_several_pieces_is_read(self):
        machine = b"".join(f.read_bytes() for f in GOLDEN) * 6
        self.assertGreater(len(machine), PIECE)
        self.assertEqual(read(machine), shown(machine))

    def test_what_is_cut_is_refused(self):
        whole = (SOURCE / "tests/golden/state/example-v1.cbor").read_bytes()
        for n in range(1, len(whole)):
            self.assertIsNone(read(whole[:n]), f"the first {n} bytes")

    def test_both_refuse_the_same_and_read_the_same(self):
        whole = (SOURCE / "tests/golden/state/example-v1.cbor").read_bytes()
        refused = 0
        for at in range(0, len(whole), 7):
            for change in (0x01, 0x20, 0x80):
                bad = whole[:at] + bytes([whole[at] ^ change]) + whole[at + 1:]
                mine = read(bad, whole=False)
                self.assertEqual(mine, shown(bad), f"byte {at:#x} with {change:#x}")
                refused += mine is None
        self.assertGreater(refused, 50)

    def test_objects_inside_have_what_objects_have(self):
        whole = (SOURCE / "tests/golden/state/example-v1.cbor").read_bytes()
        for good, bad in ((b"\xa2\x66fields\xa3", b"\xa2\x66fieldr\xa3"),
                          (b"\x67version\x01\x66points", b"\x67version\x00\x66points")):
            self.assertIn(good, whole)
            self.assertIsNone(read(whole.replace(good, bad, 1)))


if __name__ == "__main__":
    unittest.main()
