# SPDX-License-Identifier: Apache-2.0
"""The peer of the benchmarks: QEMU with the test guest, over QMP."""

import socket
import subprocess
import time

from bench_base import BUILD, GUEST_MIB, need_tool
from bench_qmp import Qmp

# What its manual leaves out for quick starts; its firmware is emulated instruction by instruction here.
MACHINE = "microvm,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=on"
CPU = "qemu64,-pni,+x2apic,+tsc-deadline"


class NoEnd(Exception):
    """A migration that does not come to its end."""


class Qemu:
    def __init__(self, bench, fifo, cmdline="", args=(), mib=GUEST_MIB, populated=False):
        qmp = bench.short / bench.unique("qmp")
        name = bench.unique("qemu")
        ram = f"memory-backend-ram,id=ram,size={mib}M,prealloc={'on' if populated else 'off'}"
        command = [need_tool("qemu-system-x86_64"), "-name", "bench,debug-threads=on",
                   "-M", MACHINE, "-accel", "kvm", "-cpu", CPU, "-m", str(mib), "-smp", "1",
                   "-nodefaults", "-no-user-config", "-display", "none", "-chardev", f"file,id=s,path={fifo}", "-serial",
                   "chardev:s", "-qmp", f"unix:{qmp},server=on,wait=off", "-kernel",
                   str(BUILD / "tests/guest/guest.elf"), "-append", cmdline, "-object", ram,
                   "-machine", "memory-backend=ram", *map(str, args)]
        self.log = open(bench.dir / f"{name}.log", "wb")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log)
        bench.addCleanup(self.close)
        self.sock = self._connect(qmp)
        self.monitor = Qmp(self.sock)

    @property
    def pid(self):
        return self.process.pid

    def _connect(self, path):
        for _ in range(1000):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.connect(str(path))
                return sock
            except OSError:
                sock.close()
                if self.process.poll() is not None:
                    break
                time.sleep(0.01)
        raise RuntimeError("QEMU does not answer")

    def __call__(self, command, **arguments):
        return self.monitor(command, **arguments)

    def migrate(self, uri, timeout_s=60):
        """Return: what query-migrate says at the end."""
        self("migrate", uri=uri)
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            status = self("query-migrate")
            if status.get("status") == "completed":
                return status
            if status.get("status") in ("failed", "cancelled"):
                raise RuntimeError(f"QEMU's migration {status}")
            time.sleep(0.002)
        raise NoEnd(f"does not end within {timeout_s} s: the guest writes as fast as QEMU sends")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.sock.close()
        self.log.close()
