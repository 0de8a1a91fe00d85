# SPDX-License-Identifier: Apache-2.0
"""
The memory of a Linux system, as contents for the guests of the benchmarks.

A Debian kernel boots under software emulation, mounts a disk with programs, libraries and texts of
this machine, and reads files until 58 % of its memory has been used, most of it page cache, the rest
kernel and what it keeps.  QEMU then writes the memory to a file, which is kept under build/.
"""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "nested"))

from bench_qmp import Qmp  # noqa: E402
from images import Cpio, Images, Skip, digest, tool  # noqa: E402,F401

MIB = 1 << 20
MODULES = ("virtio_pci", "virtio_blk")
SOURCES = ("/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/share/doc", "/usr/share/perl",
           "/usr/lib/python3")
BOOT_S = 300

INIT = """#!/bin/busybox sh
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done </modules/order
while [ ! -b /dev/vda ]; do usleep 20000; done
mount -t ext4 -o ro /dev/vda /mnt
total=$(sed -n 's/^MemTotal: *\\([0-9]*\\) .*/\\1/p' /proc/meminfo)
find /mnt -type f | while read -r file; do
    cat "$file" >/dev/null
    free=$(sed -n 's/^MemFree: *\\([0-9]*\\) .*/\\1/p' /proc/meminfo)
    [ $((free * 100)) -gt $((total * FREE)) ] || break
done
echo filled >/dev/ttyS0
while :; do sleep 1000; done
"""


def _initramfs(images, path, percent):
    cpio = Cpio()
    images._add_userland(cpio, images.host_kernel, MODULES)  # pylint: disable=protected-access
    cpio.file("init", INIT.replace("FREE", str(100 - percent)).encode())
    path.write_bytes(cpio.done())


def _disk(path, size_mib):
    """An ext4 file system with files of this machine, @size_mib of them."""
    with tempfile.TemporaryDirectory(dir=path.parent) as top:
        left = size_mib * MIB
        for source in SOURCES:
            for folder, _, names in sorted(os.walk(source)):
                for name in sorted(names):
                    file = pathlib.Path(folder, name)
                    if left <= 0 or file.is_symlink() or not file.is_file():
                        continue
                    left -= file.stat().st_size
                    target = pathlib.Path(top, folder[1:], name)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, target)
        with open(path, "wb") as f:
            f.truncate((size_mib + 256) * MIB)
        tool("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d", top, path,
             env=os.environ | {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"})


def _boot_and_save(images, work, mib, path):
    with tempfile.TemporaryDirectory(prefix="linux.") as short:
        qmp = pathlib.Path(short, "qmp")
        argv = ["qemu-system-x86_64", "-accel", "tcg", "-m", str(mib), "-nodefaults", "-display",
                "none", "-no-reboot", "-kernel", images.host_kernel.image, "-initrd",
                work / "initramfs", "-append", "console=ttyS0 quiet", "-serial", "stdio", "-qmp",
                f"unix:{qmp},server=on,wait=off", "-drive",
                f"file={work / 'disk'},format=raw,if=virtio,readonly=on"]
        with subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE) as process:
            try:
                os.set_blocking(process.stdout.fileno(), False)
                end, seen = time.monotonic() + BOOT_S, b""
                while b"filled" not in seen:
                    if time.monotonic() > end or process.poll() is not None:
                        raise RuntimeError("the Linux that makes memory did not get there:\n" +
                                           seen[-2000:].decode(errors="replace"))
                    seen += process.stdout.read() or b""
                    time.sleep(0.1)
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(str(qmp))
                    monitor = Qmp(sock)
                    monitor("stop")
                    monitor("pmemsave", val=0, size=mib * MIB, filename=str(path))
            finally:
                process.kill()


def linux_memory(build, mib, percent):
    """Return: path of a file with @mib MiB of memory, about @percent of it not zero."""
    images = Images(build)
    keep = pathlib.Path(build) / "bench"
    keep.mkdir(parents=True, exist_ok=True)
    key = digest(pathlib.Path(__file__), str(images.host_kernel.tree))
    path = keep / f"linux-{mib}-{percent}-{key}.memory"
    if path.exists():
        return path
    print(f"making the memory of a Linux system: {path.name}", flush=True)
    with tempfile.TemporaryDirectory(dir=keep) as top:
        work = pathlib.Path(top)
        _initramfs(images, work / "initramfs", percent)
        _disk(work / "disk", mib * percent // 100)
        _boot_and_save(images, work, mib, work / "memory")
        (work / "memory").rename(path)
    return path
