# SPDX-License-Identifier: Apache-2.0
"""What every lane test stands on: a working directory, clean-up, skips, logs of a failure.

A test file holds unittest classes derived from LaneTest and ends with lane_base.main().  Exit code:
0 all passed, 1 something failed, 77 nothing could run here (the reasons are printed).
"""

import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("CHRYSALIS_BUILD", SOURCE / "build" / "release")).resolve()
GUEST_ELF = BUILD / "tests" / "guest" / "guest.elf"
GUEST_BZIMAGE = BUILD / "tests" / "guest" / "guest.bzImage"
LOG_TAIL_BYTES = 6000

MIB = 1 << 20


def program(name):
    """The path of chvmm, chctl or chsnap: $CHVMM etc., or the one that was just built."""
    path = pathlib.Path(os.environ.get(name.upper(), BUILD / name))
    if not os.access(path, os.X_OK):
        raise unittest.SkipTest(f"{path} is not built")
    return str(path)


def need_kvm():
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise unittest.SkipTest(f"/dev/kvm: {error.strerror}")


def need_root():
    if os.geteuid() != 0:
        raise unittest.SkipTest("needs root (network namespaces, taps)")


def need_tool(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise unittest.SkipTest(f"{name} is not installed")
    return path


def wait_until(condition, timeout_s, what):
    """Calls condition() until it gives something true, and gives that; fails after timeout_s."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.01)


class Jitter(threading.Thread):
    """How late this machine wakes a thread up that asked for a millisecond, sample by sample."""

    def __init__(self):
        super().__init__(daemon=True)
        self.late = []  # (time.monotonic(), seconds)
        self.ending = threading.Event()
        self.start()

    def run(self):
        before = time.monotonic()
        while not self.ending.is_set():
            time.sleep(0.001)
            now = time.monotonic()
            self.late.append((now, now - before - 0.001))
            before = now

    def worst_s(self, since):
        return max((late for when, late in self.late if when >= since), default=0.0)

    def stop(self):
        self.ending.set()
        self.join(5)


class LaneTest(unittest.TestCase):
    """self.dir is a directory of this test; on failure it is kept and its logs are shown."""

    needs_kvm = True

    def setUp(self):
        if self.needs_kvm:
            need_kvm()
        base = BUILD / "lane"
        base.mkdir(parents=True, exist_ok=True)
        # UNIX socket paths have at most 107 bytes: sockets live here.
        name = self.id().rsplit(".", 1)[-1]
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=name + ".", dir=base))
        self.short = pathlib.Path(tempfile.mkdtemp(prefix="lane."))
        self.addCleanup(shutil.rmtree, self.short, ignore_errors=True)

    def run(self, result=None):
        result = result or self.defaultTestResult()
        before = len(result.failures) + len(result.errors)
        self.dir = None
        super().run(result)
        # By now every process of the test is gone.
        if self.dir and len(result.failures) + len(result.errors) > before:
            self.show_logs()
        elif self.dir:
            shutil.rmtree(self.dir, ignore_errors=True)
        return result

    def show_logs(self):
        print(f"\n--- logs of {self.id()}, kept in {self.dir}", file=sys.stderr)
        for path in sorted(self.dir.rglob("*.log")):
            data = path.read_bytes()
            if data:
                print(f"--- {path.relative_to(self.dir)}", file=sys.stderr)
                print(data[-LOG_TAIL_BYTES:].decode(errors="replace"), file=sys.stderr)

    def make_disk(self, name, size, content=b""):
        path = self.dir / name
        with open(path, "wb") as disk:
            disk.write(content)
            disk.truncate(size)
        return path


def main():
    program_ = unittest.main(module="__main__", exit=False, verbosity=2)
    result = program_.result
    for test, reason in result.skipped:
        print(f"skipped: {test.id()}: {reason}")
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(77 if result.testsRun == len(result.skipped) else 0)
