# SPDX-License-Identifier: Apache-2.0
"""The test guest in QEMU: proves guest and harness without chvmm."""

import subprocess

from lane_base import GUEST_ELF, need_tool
from lane_guest import Guest, Line


class Qemu:
    def __init__(self, test, name, accel="tcg", memory_mib=256, cpus=1, kernel=GUEST_ELF, args=(),
                 cmdline=""):
        directory = test.dir / name
        directory.mkdir()
        cpu = ["-cpu", "qemu64,+x2apic,+tsc-deadline"] if accel == "kvm" else []
        command = [need_tool("qemu-system-x86_64"), "-M", "q35", "-accel", accel, *cpu,
                   "-m", str(memory_mib), "-smp", str(cpus), "-nodefaults", "-display", "none",
                   "-serial", "stdio", "-no-reboot", "-kernel", str(kernel), "-append", cmdline,
                   *args]
        self.line = Line(directory / "serial.log")
        self.guest = Guest(self.line)
        with open(directory / "qemu.log", "wb") as log:
            self.process = subprocess.Popen(command, cwd=directory, stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=log, bufsize=0)
        self.line.attach_pipe(self.process.stdout, self.process.stdin)
        test.addCleanup(self.close)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.line.close()
