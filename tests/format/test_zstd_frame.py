#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is one Zstandard frame: chsnap, the second reader and the second receiver take nothing else.

    test_zstd_frame.py CHSNAP SOURCE_DIRECTORY
"""
import contextlib
import io
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

CHSNAP, SOURCE = sys.argv.pop(1), pathlib.Path(sys.argv.pop(1))
sys.path[:0] = [str(SOURCE / "tests/format"), str(SOURCE / "tests/lane")]
import peer_receiver  # noqa: E402
import read_store  # noqa: E402
from stream_maker import segment, stream  # noqa: E402

STATE = bytes(range(64)) * 160


def compressed(data, *options):
    return subprocess.run(["zstd", "-cq", *options], input=data, check=True, capture_output=True).stdout


def payloads():
    """What it is, the bytes, whether it is one frame that holds STATE."""
    whole, half = compressed(STATE), len(STATE) // 2
    skippable = struct.pack("<II", 0x184D2A50, 3) + b"abc"
    yield "one frame", whole, True
    yield "one frame without a checksum", compressed(STATE, "--no-check"), True
    yield "two frames", compressed(STATE[:half]) + compressed(STATE[half:]), False
    yield "a frame of nothing behind it", whole + compressed(b""), False
    yield "a frame of nothing before it", compressed(b"") + whole, False
    yield "a frame to be skipped behind it", whole + skippable, False
    yield "a frame to be skipped before it", skippable + whole, False
    yield "a byte behind it", whole + b"x", False
    yield "a frame that is cut", whole[:-1], False
    yield "less than it should be", compressed(STATE[:-1]), False
    yield "more than it should be", compressed(STATE + b"x"), False
    yield "nothing", b"", False


class OneFrame(unittest.TestCase):
    def test_the_second_receiver_takes_one_frame(self):
        for what, payload, good in payloads():
            with self.subTest(what):
                if good:
                    self.assertEqual(peer_receiver.unzstd(payload, len(STATE)), STATE)
                else:
                    with self.assertRaises(peer_receiver.ProtocolError):
                        peer_receiver.unzstd(payload, len(STATE))

    def test_both_readers_of_a_store_take_one_frame(self):
        for what, payload, good in payloads():
            with self.subTest(what), tempfile.TemporaryDirectory() as temp:
                path = pathlib.Path(temp) / "stream"
                path.write_bytes(stream(STATE, [segment(STATE, payload)]))
                run = subprocess.run([CHSNAP, "import", "-i", path, f"{temp}/store"], check=False,
                                     capture_output=True)
                self.assertEqual(run.returncode, 0 if good else 1, run.stderr)
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    self.assertEqual(read_store.main(["--stream", str(path)]), run.returncode)


if __name__ == "__main__":
    unittest.main()
