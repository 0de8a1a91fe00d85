# SPDX-License-Identifier: Apache-2.0
"""Network namespaces with taps, and raw frames in them.

Two "hosts" a and b stand in namespaces of their own, each with a bridge that joins its tap with a
cable to a third namespace, the switch, from which the tests look at the guest.
"""

import ctypes
import contextlib
import fcntl
import os
import select
import socket
import struct
import subprocess
import threading
import time

from lane_base import need_root, need_tool

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
ETH_P_RARP = 0x8035
SO_TIMESTAMPNS = 35
ETH_OURS = 0x88B5
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x1000, 0x4000
_libc = ctypes.CDLL(None, use_errno=True)


def ip(*args, ns=None):
    command = ["ip", *(["-n", ns] if ns else []), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def inside(ns):
    """This thread is in the namespace; sockets made here stay in it."""
    home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{ns}", os.O_RDONLY)
    try:
        if _libc.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {ns}")
        yield
    finally:
        if _libc.setns(home, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns back")
        os.close(there)
        os.close(home)


def frame_socket(ns, interface):
    """A packet socket on an interface of a namespace."""
    with inside(ns):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.bind((interface, ETH_P_ALL))
    sock.settimeout(5)
    return sock


class Capture(threading.Thread):
    """Frames that a host's interface sends or receives; frames: (seconds of the wall clock, bytes)."""

    def __init__(self, ns, interface):
        super().__init__(daemon=True)
        self.frames = []
        self.stopping = threading.Event()
        self.sock = frame_socket(ns, interface)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.sock.settimeout(0.1)

    def run(self):
        while not self.stopping.is_set():
            try:
                data, extra, _, _ = self.sock.recvmsg(2048, 64)
            except TimeoutError:
                continue
            for level, kind, value in extra:
                if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                    seconds, ns = struct.unpack("qq", value)
                    self.frames.append((seconds + ns / 1e9, data))

    def stop(self):
        self.stopping.set()
        self.join(10)
        self.sock.close()


def open_tap(ns, interface):
    """A descriptor of a tap of a namespace, as a manager of VMs would hand it over."""
    with inside(ns):
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", interface.encode(), flags))
    return fd


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


class Pinger(threading.Thread):
    """Sends ICMP echo requests at an interval; replies: number -> (sent, received), seconds."""

    def __init__(self, ns, address, interval_s=0.01):
        super().__init__(daemon=True)
        self.address = address
        self.interval_s = interval_s
        self.sent = {}
        self.replies = {}
        self.stopping = threading.Event()
        with inside(ns):
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.sock.setblocking(False)

    def run(self):
        number = 0
        due = time.monotonic()
        while not self.stopping.is_set():
            now = time.monotonic()
            if now >= due:
                self._send(number, now)
                number += 1
                due = max(due + self.interval_s, now)
            self._receive(min(self.interval_s, max(0.0, due - time.monotonic())))
        self._receive(0.5)

    def _send(self, number, now):
        body = struct.pack("!BBHHH", 8, 0, 0, 0x4C41, number & 0xFFFF) + b"lane" * 8
        body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        self.sent[number] = now
        try:
            self.sock.sendto(body, (self.address, 0))
        except OSError:
            pass  # no route or no neighbour now: counts as lost

    def _receive(self, timeout_s):
        end = time.monotonic() + timeout_s
        while True:
            left = end - time.monotonic()
            ready, _, _ = select.select([self.sock], [], [], max(0.0, left))
            if not ready:
                return
            packet, peer = self.sock.recvfrom(2048)
            kind, _, _, ident, number = struct.unpack("!BBHHH", packet[20:28])
            if kind == 0 and ident == 0x4C41 and peer[0] == self.address:
                self.replies.setdefault(number, (self.sent.get(number), time.monotonic()))

    def stop(self):
        self.stopping.set()
        self.join(10)
        self.sock.close()

    def longest_gap_s(self):
        """Between two replies, by the time of their arrival."""
        times = sorted(received for _, received in self.replies.values())
        return max((b - a for a, b in zip(times, times[1:])), default=None)


def ping(ns, address, count=5, timeout_s=5):
    """Return: how many of count pings were answered."""
    pinger = Pinger(ns, address, interval_s=0.05)
    pinger.start()
    end = time.monotonic() + timeout_s
    while len(pinger.replies) < count and time.monotonic() < end:
        time.sleep(0.02)
    pinger.stop()
    return min(count, len(pinger.replies))


class Host:
    """A namespace with a bridge br0 and a tap tap0 on it."""

    def __init__(self, ns):
        self.ns = ns
        self.tap = "tap0"


class Network:
    """Hosts joined by a switch.  switch: the namespace with address .1; hosts have .11, .12, ..."""

    PREFIX = "10.211.7"

    def __init__(self, test, nr_hosts=2):
        need_root()
        need_tool("ip")
        tag = f"lane{os.getpid()}"
        self.switch = f"{tag}s"
        self._add(test, self.switch)
        ip("link", "add", "br0", "type", "bridge", ns=self.switch)
        ip("address", "add", f"{self.PREFIX}.1/24", "dev", "br0", ns=self.switch)
        ip("link", "set", "br0", "up", ns=self.switch)
        self.hosts = [self._add_host(test, f"{tag}{i}", i) for i in range(nr_hosts)]
        # A new bridge takes a moment before it forwards.
        for i in range(nr_hosts):
            if not ping(self.switch, self.address(i), 1, timeout_s=20):
                raise AssertionError(f"no way to {self.address(i)}")

    def _add(self, test, ns):
        ip("netns", "add", ns)
        test.addCleanup(subprocess.run, ["ip", "netns", "del", ns], check=False)
        ip("link", "set", "lo", "up", ns=ns)

    def _add_host(self, test, ns, number):
        self._add(test, ns)
        ip("link", "add", "br0", "type", "bridge", ns=ns)
        ip("link", "add", "up0", "type", "veth", "peer", "name", f"port{number}",
           "netns", self.switch, ns=ns)
        ip("tuntap", "add", "dev", "tap0", "mode", "tap", "vnet_hdr", ns=ns)
        for link in ("up0", "tap0"):
            ip("link", "set", link, "master", "br0", ns=ns)
            ip("link", "set", link, "up", ns=ns)
        ip("address", "add", f"{self.PREFIX}.{11 + number}/24", "dev", "br0", ns=ns)
        ip("link", "set", "br0", "up", ns=ns)
        ip("link", "set", f"port{number}", "master", "br0", ns=self.switch)
        ip("link", "set", f"port{number}", "up", ns=self.switch)
        return Host(ns)

    def address(self, number):
        """Of host `number` (0, 1, ...)."""
        return f"{self.PREFIX}.{11 + number}"

    @property
    def guest_address(self):
        return f"{self.PREFIX}.100"

    @property
    def switch_address(self):
        return f"{self.PREFIX}.1"
