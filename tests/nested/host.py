# SPDX-License-Identifier: Apache-2.0
"""Emulated hosts: a PC with SVM under QEMU's TCG, which runs a stock Debian kernel with KVM."""

import ctypes
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time

from channel import DATA, PATIENCE, Channel, ChannelError, StreamPipe, connect_unix
from images import copy_sparse

HOST_RAM_MIB = 2048
BOOT_TIMEOUT = 30.0
PR_SET_PDEATHSIG = 1
# The network that a host shares with this machine alone, for a relay that runs here.
RELAY_NET = "192.168.9.0/24"
RELAY_HERE = "192.168.9.2"
RELAY_THERE = "192.168.9.15"
RELAY_NIC = "eth1"
MIGRATION_PORT = 4444


class CommandFailed(Exception):
    """A command in a host or guest ended with another status than 0."""


class Text:
    """Console output that arrives while we wait: kept in a file, searchable from a mark."""

    def __init__(self, stream, path):
        self.path = path
        self.data = ""
        self.arrived = threading.Condition()
        self.mark = 0
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream):
        with open(self.path, "ab", buffering=0) as log:
            while True:
                try:
                    data = stream.read(3600.0)
                except ChannelError:
                    data = None
                if not data:
                    return
                log.write(data)
                with self.arrived:
                    self.data += data.decode(errors="replace").replace("\r", "")
                    self.arrived.notify_all()

    def wait(self, what, timeout):
        """Waits for @what after the last text waited for; returns all up to its line's end."""
        deadline = time.monotonic() + timeout * PATIENCE
        with self.arrived:
            while (at := self.data.find(what, self.mark)) < 0:
                left = deadline - time.monotonic()
                if left <= 0 or not self.arrived.wait(left):
                    tail = self.data[-1500:]
                    raise ChannelError(f"no '{what}' on the serial port within {timeout:.0f} s; "
                                       f"it ends:\n{tail}")
            end = self.data.find("\n", at)
            end = len(self.data) if end < 0 else end
            seen, self.mark = self.data[self.mark:end], end
            return seen


def _free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def _die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Host:
    """One emulated host; @index gives it its address and MAC."""

    ram_mib = HOST_RAM_MIB
    relay_port = 0  # of this machine, at 127.0.0.1: leads to the host's MIGRATION_PORT

    def __init__(self, name, index, images, run_dir, disks, wire=None):
        self.name = name
        self.addr = f"10.9.0.{index + 1}"
        self.images = images
        self.run_dir = pathlib.Path(run_dir)
        self.console = self.run_dir / f"{name}.console"
        self.disks = disks
        self.wire = wire
        self.index = index
        self.qemu = None
        self.channel = None
        self.texts = {}

    def _argv(self):
        sock = self.run_dir / f"{self.name}.channel"
        argv = [
            *self.images.emulator.argv, "-name", f"nested-{self.name}", "-nodefaults", "-no-user-config", "-no-reboot",
            "-display", "none", "-monitor", "none", "-machine", "pc",
            "-accel", "tcg,thread=multi,tb-size=256", "-cpu", self.images.emulator.cpu, "-smp", "1",
            "-m", str(self.ram_mib), "-kernel", self.images.host_kernel.image,
            "-initrd", self.run_dir / "host.initrd",
            "-append", "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check kvm.halt_poll_ns=0",
            "-serial", f"file:{self.console}",
            "-chardev", f"socket,id=ch,path={sock},server=on,wait=off",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=ch",
        ]
        for serial, (path, flags) in self.disks.items():
            argv += ["-drive", f"file={path},format=raw,if=none,id={serial},{flags}",
                     "-device", f"virtio-blk-pci,drive={serial},serial={serial},share-rw=on"]
        if self.wire:
            path = self.wire
            server = "on" if self.index == 0 else "off"
            argv += ["-netdev", f"stream,id=wire,server={server},addr.type=unix,addr.path={path}",
                     "-device", "virtio-net-pci,netdev=wire,romfile=,"
                     f"mac=52:54:00:09:00:0{self.index + 1}"]
        if self.relay_port:
            argv += ["-netdev", f"user,id=relay,net={RELAY_NET},host={RELAY_HERE},"
                     f"hostfwd=tcp:127.0.0.1:{self.relay_port}-{RELAY_THERE}:{MIGRATION_PORT}",
                     "-device", "virtio-net-pci,netdev=relay,romfile="]
        return list(map(str, argv))

    def start(self):
        initrd = self.run_dir / "host.initrd"
        if not initrd.exists():
            with open(initrd, "wb") as out:
                for part in (self.images.host_initramfs(), self.images.programs(),
                             self.images.payload()):
                    out.write(part.read_bytes())
        with open(self.run_dir / f"{self.name}.qemu", "wb") as log:
            # The QEMU lives exactly as long as the driver's main thread, however that ends.
            self.qemu = subprocess.Popen(self._argv(), stdin=subprocess.DEVNULL, stdout=log,
                                         stderr=subprocess.STDOUT, preexec_fn=_die_with_parent)
        self.channel = Channel(connect_unix(self.run_dir / f"{self.name}.channel", 10.0))

    def wait_ready(self):
        """Waits for the command server, then for a /dev/kvm that can be opened."""
        try:
            self.channel.ping(BOOT_TIMEOUT * PATIENCE)
        except ChannelError as e:
            console = self.console.read_text(errors="replace") if self.console.exists() else ""
            raise ChannelError(f"host {self.name} did not come up: {e}\n{console[-2000:]}") from e
        self.run("test -c /dev/kvm || { dmesg | tail -5; false; }")
        self._set_clock()
        self.run(f"ip link add br0 type bridge ageing_time 0 && ip addr add {self.addr}/8 dev br0 && "
                 "ip link set br0 up && mkdir -p /scratch")
        if self.wire:
            self.run("ip link set eth0 up && brctl addif br0 eth0")
        if self.relay_port:
            self.run(f"ip addr add {RELAY_THERE}/24 dev {RELAY_NIC} && ip link set {RELAY_NIC} up")
        if "scratch" in self.disks:
            self.run("mount -t ext4 /dev/by-serial/scratch /scratch")

    def _set_clock(self):
        """Sets the host's clock at the turn of a second, good to some milliseconds."""
        time.sleep(1.0 - time.time() % 1.0)
        self.run(f"date -s @{round(time.time())} >/dev/null")

    def run(self, command, timeout=30.0, check=True, data=b""):
        """Output of a shell command; CommandFailed when its status is not 0."""
        status, out = self.channel.run(command, timeout, data)
        text = out.decode(errors="replace")
        if check and status:
            raise CommandFailed(f"{self.name}: {command}: status {status}: {text.strip()}")
        return text

    def put(self, path, data):
        self.run(f"cat >{shlex.quote(path)}", 60.0, data=data)

    def get(self, path):
        status, out = self.channel.run(f"cat {shlex.quote(path)}", 60.0)
        if status:
            raise CommandFailed(f"{self.name}: cannot read {path}: {out.decode(errors='replace')}")
        return out

    def follow(self, fifo):
        """The text that arrives in a FIFO of the host, for as long as the host lives."""
        if fifo not in self.texts:
            self.run(f"mkfifo {fifo}")
            self._follow(fifo, f"exec cat <>{fifo}")
        return self.texts[fifo]

    def follow_file(self, path):
        """The text of a regular file as it grows; what it holds already is seen too."""
        return self._follow(path, f"exec tail -n +1 -f {shlex.quote(path)}")

    def _follow(self, path, command):
        log = self.run_dir / f"{os.path.basename(path)}.{self.name}"
        self.texts[path] = Text(self.channel.spawn(command), log)
        return self.texts[path]

    def connect(self, where, timeout=20.0):
        """A stream to a socket in the host, as soon as something listens there."""
        deadline = time.monotonic() + timeout * PATIENCE
        while True:
            stream = self.channel.connect(where)
            try:
                self.channel.ping(timeout * PATIENCE)  # a refusal would have come back before the answer
                if stream.events.empty() or stream.events.queue[0][0] == DATA:
                    return stream
            except ChannelError:
                stream.kill()
                raise
            if time.monotonic() > deadline:
                raise ChannelError(f"{self.name}: nothing listens at {where}")
            time.sleep(0.1)

    def tunnel(self, where, timeout=30.0):
        """A command channel through this host to @where, as "tcp:10.9.0.10:9000"."""
        deadline = time.monotonic() + timeout * PATIENCE
        while True:
            inner = Channel(StreamPipe(self.channel.connect(where)))
            try:
                inner.ping(max(1.0, min(10.0, deadline - time.monotonic())))
                return inner
            except ChannelError:
                if time.monotonic() > deadline:
                    raise ChannelError(f"{self.name}: no command server at {where}") from None
                time.sleep(0.2)

    def add_tap(self, tap):
        self.run(f"tunctl -t {tap} >/dev/null && ip link set {tap} up && brctl addif br0 {tap}")

    def cpu_seconds(self):
        """Processor time that the emulation has taken: what it does, whatever else runs here."""
        fields = pathlib.Path(f"/proc/{self.qemu.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def collect(self):
        """What explains a failure and is still only inside: the host's log, the VMMs' files."""
        try:
            out = self.run("dmesg | tail -60; for f in /run/*.log /run/*.out /run/*.receive; do [ -f $f ] && "
                           "echo \"== $f\" && tail -60 $f; done; ps | grep -v '\\['", 20.0, False)
        except ChannelError as e:
            out = f"nothing: {e}"
        (self.run_dir / f"{self.name}.collected").write_text(out)

    def stop(self):
        if self.qemu:
            self.qemu.kill()
            self.qemu.wait()
            self.qemu = None


class Lane:
    """The hosts of one scenario, with their run directory; ends them all however it is left."""

    def __init__(self, images, run_dir, hosts, qemu_inside=False, ram_mib=HOST_RAM_MIB,
                 relay=False):
        self.images = images
        self.run_dir = pathlib.Path(run_dir)
        shutil.rmtree(self.run_dir, ignore_errors=True)
        self.run_dir.mkdir(parents=True)
        self.disk = self.run_dir / "guest.ext4"
        copy_sparse(images.guest_root(), self.disk)
        wire = self.run_dir / "wire" if hosts > 1 else None
        self.hosts = []
        for index, name in enumerate("ab"[:hosts]):
            scratch = self.run_dir / f"{name}.scratch"
            copy_sparse(images.scratch(), scratch)
            # One guest disk, seen by every host, and cached by none: as a SAN gives it.
            disks = {"guest": (self.disk, "file.locking=off,cache=none"),
                     "scratch": (scratch, "cache=unsafe")}
            if qemu_inside:
                disks["qemu"] = (images.qemu(), "readonly=on")
            self.hosts.append(Host(name, index, images, self.run_dir, disks, wire))
            self.hosts[-1].ram_mib = ram_mib
            self.hosts[-1].relay_port = _free_port() if relay else 0

    def __enter__(self):
        try:
            for host in self.hosts:
                host.start()
                if self.run_dir.joinpath("wire") == host.wire and host.index == 0:
                    self._wait_for(host.wire)
            for host in self.hosts:
                host.wait_ready()
        except BaseException:
            self.__exit__(True, None, None)
            raise
        return self

    @staticmethod
    def _wait_for(path):
        deadline = time.monotonic() + 10.0
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)

    def __exit__(self, kind, value, trace):
        if kind:
            for host in self.hosts:
                if host.channel and host.qemu and host.qemu.poll() is None:
                    host.collect()
        for host in self.hosts:
            host.stop()
            if not kind:
                (self.run_dir / f"{host.name}.scratch").unlink(missing_ok=True)
