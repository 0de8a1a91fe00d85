# SPDX-License-Identifier: Apache-2.0
"""Moving a VM between two processes."""

import socket
import time

from lane_base import wait_until
from lane_vmm import Background, Vmm


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Move:
    """
    A migration under way.  The destination is a new Vmm whose line is the source's, so that
    heartbeats and answers go on in one Line.
    """

    def __init__(self, source, name, url, listen_url=None, netns=None, receive=None, **send):
        self.source = source
        self.destination = Vmm(source.test, name, netns=netns, line=source.line)
        self.destination.serial = source.serial
        self.receiving = Background(
            self.destination.put, "vm.receive-migration",
            {"receiver_url": listen_url or url, **(receive or {})}, timeout_s=120)
        wait_until(self._is_ready, 10, "a destination that listens")
        self.failures = self._nr_failures()
        self.started = time.monotonic()
        self.source.put("vm.send-migration", {"destination_url": url, **send})

    def _is_ready(self):
        if self.receiving.is_done():
            self.receiving.result()
        return "migration-receive-ready" in self.destination.event_names()

    def _nr_failures(self):
        return self.source.event_names().count("migration-failed")

    def finish(self, timeout_s=60):
        """Waits for success.  Return: seconds."""
        attached = self.source.serial != "socket"
        # Something has to take the heartbeats while we wait.
        end = time.monotonic() + timeout_s
        while True:
            # The destination's line is there once its machine is built, before the blackout.
            attached = attached or self.destination.attach_now()
            self.source.line.pump(0.002)
            names = self.source.event_names()
            if "migration-finished" in names:
                break
            if names.count("migration-failed") > self.failures:
                raise AssertionError(f"the migration failed:\n{self.source.log()[-2000:]}\n"
                                     f"{self.destination.log()[-2000:]}")
            if time.monotonic() > end:
                raise AssertionError(f"no end after {timeout_s} s: {names}")
        seconds = time.monotonic() - self.started
        self.receiving.result(20)
        return seconds

    def is_over(self):
        return self._nr_failures() > self.failures or \
            "migration-finished" in self.source.event_names()

    def fail(self, timeout_s=60):
        """Waits for failure.  The source must go on."""
        wait_until(lambda: self._nr_failures() > self.failures, timeout_s, "a failed migration")


def how_ended(source, timeout_s):
    """What the source of a migration says at its end; "gone" if its process has ended."""
    def look():
        if not source.is_running():
            return "gone"
        try:
            progress = source.get("vm.migration-progress")
        except AssertionError:
            return None
        # One that was completed ends its process.
        return progress["phase"] == "done" and progress["result"] != "completed" and \
            progress["result"]
    return wait_until(look, timeout_s, "the end of the migration")


def move(source, name, url, **options):
    """A whole migration.  Return: the destination."""
    migration = Move(source, name, url, **options)
    migration.finish()
    return migration.destination
