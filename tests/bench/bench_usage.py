# SPDX-License-Identifier: Apache-2.0
"""What a process used while something went on: processor time without its guest's, memory, answers."""

import http.client
import os
import pathlib
import re
import threading
import time

from bench_base import beyond_mib

VCPU = re.compile(r"vcpu\d+|CPU \d+/KVM")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
SAMPLE_S = 0.01


def _guest_s(pid):
    """Processor time of the threads that run the guest; None where they are gone."""
    total, seen = 0, False
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
        try:
            if VCPU.match((task / "comm").read_text()):
                total += int((task / "schedstat").read_text().split()[0])
                seen = True
        except OSError:
            continue
    return total / 1e9 if seen else None


def _all_s(pid):
    """Of all threads, those included that have ended; of a process that nobody has waited for yet too."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(stat[11]) + int(stat[12])) * TICK_S


class Usage:
    """
    Of some processes, from now until stop().  memory: look at how much they occupy besides the
    guest's RAM as well, which keeps them from mapping memory for a moment each time.
    """

    def __init__(self, pids, ram_mib=0, memory=False):
        self.pids = pids
        self.ram_mib = ram_mib
        self.memory = memory
        self.first = {pid: (_all_s(pid), _guest_s(pid) or 0) for pid in pids}
        self.guest = {pid: self.first[pid][1] for pid in pids}
        self.most_mib = {pid: 0.0 for pid in pids}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _look(self):
        for pid in self.pids:
            guest = _guest_s(pid)
            if guest is not None:
                self.guest[pid] = guest
            if self.memory:
                self.most_mib[pid] = max(self.most_mib[pid], beyond_mib(pid, self.ram_mib))

    def _watch(self):
        while not self._over.wait(SAMPLE_S):
            self._look()

    def stop(self):
        """Return: seconds of processor time, the guest's threads excepted."""
        self._over.set()
        self._thread.join()
        self._look()
        return sum(_all_s(pid) - self.first[pid][0] - (self.guest[pid] - self.first[pid][1])
                   for pid in self.pids)


class Answers:
    """How long a VMM takes to answer, asked every few milliseconds until stop()."""

    def __init__(self, ask, every_s=0.005):
        self.ms = []
        self._ask = ask
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._over.wait(self._every_s):
            began = time.monotonic()
            try:
                self._ask()
            except (OSError, http.client.HTTPException):
                return  # its process has ended
            self.ms.append((time.monotonic() - began) * 1e3)

    def stop(self):
        """Return: milliseconds, ascending."""
        self._over.set()
        self._thread.join()
        return sorted(self.ms)
