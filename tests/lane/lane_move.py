# SPDX-License-Identifier: Apache-2.0
"""Moving a VM between two processes."""

import socket
import time

from lane_base import wait_until
from lane_vmm import ApiError, Background, Vmm


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
        self.started = time.monotonic()
        wait_until(self._send_once(url, send), 10, "a destination that listens")

    def _send_once(self, url, send):
        def attempt():
            try:
                self.source.put("vm.send-migration", {"destination_url": url, **send})
                return True
            except ApiError as error:
                # Only "nobody listens yet" is worth another attempt.
                if any("refused" in part or "No such file" in part for part in error.chain):
                    return False
                raise
        return attempt

    def attach(self):
        """Joins the destination's serial line once it is there, which is before the blackout."""
        self.destination.attach(timeout_s=30)

    def finish(self, timeout_s=60):
        """Waits for success.  Return: seconds."""
        if self.source.serial == "socket":
            self.attach()
        # Something has to take the heartbeats while we wait.
        end = time.monotonic() + timeout_s
        while True:
            self.source.line.pump(0.02)
            names = self.source.event_names()
            if "migration-finished" in names:
                break
            if "migration-failed" in names:
                raise AssertionError(f"the migration failed:\n{self.source.log()[-2000:]}\n"
                                     f"{self.destination.log()[-2000:]}")
            if time.monotonic() > end:
                raise AssertionError(f"no end after {timeout_s} s: {names}")
        seconds = time.monotonic() - self.started
        self.receiving.result(20)
        return seconds

    def fail(self, timeout_s=60):
        """Waits for failure.  The source must go on."""
        self.source.wait_event("migration-failed", timeout_s=timeout_s)


def move(source, name, url, **options):
    """A whole migration.  Return: the destination."""
    migration = Move(source, name, url, **options)
    migration.finish()
    return migration.destination
