# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor: one connection of the QEMU Machine Protocol."""

import json


class Qmp:
    def __init__(self, sock):
        """@sock is connected."""
        self.sock = sock
        self.lines = sock.makefile("r", encoding="utf-8")
        self.lines.readline()
        self("qmp_capabilities")

    def __call__(self, command, **arguments):
        """Return: what the command returns; events are passed over."""
        self.sock.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            answer = json.loads(self.lines.readline())
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
