# SPDX-License-Identifier: Apache-2.0
"""Kernels, initramfs archives and disks of the nested lane.

Everything is made from Debian packages and from files of this tree, without root and without
installing anything, and is kept under build/nested/ by the digest of what it was made from: the
second run finds all of it there.
"""

import contextlib
import fcntl
import hashlib
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from emulator import find_emulator
from packages import Packages, Skip, tool

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent.parent
AGENTS = ("command_server", "load_memory", "load_disk", "load_tcp", "load_clock", "load_vector",
          "show_random", "show_clock", "boot_timer")

HOST_KERNEL = "linux-image-cloud-amd64"
# The first that the archive offers is the guest of the scenarios: it has the VM generation id.
GUEST_KERNELS = ("linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64")
# Debian's cloud kernels are built without CONFIG_X86_MPPARSE.
GENERIC_KERNEL = "linux-image-amd64"

HOST_MODULES = ("virtio_pci", "virtio_console", "virtio_blk", "virtio_net", "irqbypass", "ccp",
                "kvm", "kvm_amd", "tun", "bridge", "sch_netem", "sch_tbf")
GUEST_MODULES = ("virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_console",
                 "virtio_rng", "button", "evdev", "crc32c_generic", "ext4")

ROOT_MIB = 64
SCRATCH_MIB = 4096


def digest(*parts):
    """Hex digest of strings, bytes and the contents of paths."""
    h = hashlib.sha256()
    for part in parts:
        if isinstance(part, pathlib.Path):
            data = part.read_bytes()
        elif isinstance(part, str):
            data = part.encode()
        else:
            data = part
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()[:16]


class Cpio:
    """A "newc" archive, the kernel's initramfs format, all owned by root."""

    def __init__(self):
        self.data = bytearray()
        self.names = set()

    def _entry(self, name, mode, body=b"", rdev=(0, 0)):
        raw = name.encode() + b"\0"
        fields = (len(self.names) + 1, mode, 0, 0, 1, 0, len(body), 0, 0, *rdev, len(raw), 0)
        self.data += b"070701" + b"".join(b"%08x" % f for f in fields) + raw
        self.data += bytes(-len(self.data) % 4) + body
        self.data += bytes(-len(self.data) % 4)
        self.names.add(name)

    def directory(self, name):
        name = name.strip("/")
        if name and name not in self.names:
            self.directory(os.path.dirname(name))
            self._entry(name, 0o040755)

    def file(self, name, body, mode=0o755):
        self.directory(os.path.dirname(name))
        self._entry(name.strip("/"), 0o100000 | mode, body)

    def link(self, name, target):
        self.directory(os.path.dirname(name))
        self._entry(name.strip("/"), 0o120777, target.encode())

    def device(self, name, major, minor):
        self.directory(os.path.dirname(name))
        self._entry(name.strip("/"), 0o020600, rdev=(major, minor))

    def done(self):
        self._entry("TRAILER!!!", 0)
        return bytes(self.data) + bytes(-len(self.data) % 512)


def libraries_of(program):
    """The shared objects, the loader among them, that a program needs; none when it is static."""
    done = subprocess.run(["ldd", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          check=False, text=True)
    return sorted(set(re.findall(r"(/[^ ]+) \(0x", done.stdout))) if not done.returncode else []


def add_program(cpio, source, name):
    """A program, and the libraries it needs where it looks for them."""
    cpio.file(name, pathlib.Path(source).read_bytes())
    for lib in libraries_of(source):
        if lib.strip("/") not in cpio.names:
            cpio.file(lib, pathlib.Path(lib).read_bytes())


class Kernel:
    """One Debian kernel package: its image and its modules."""

    def __init__(self, tree):
        self.tree = tree
        self.image = next(iter((tree / "boot").glob("vmlinuz-*")))
        self.release = self.image.name.removeprefix("vmlinuz-")
        self._paths = {}
        for path in tree.glob("lib/modules/*/kernel/**/*.ko*"):
            self._paths[path.name.split(".")[0].replace("-", "_")] = path

    def has(self, option):
        config = next(iter((self.tree / "boot").glob("config-*"))).read_text()
        return f"CONFIG_{option}=y" in config

    def modules(self, names):
        """[(file name, contents)] in an order that insmod can follow; built-ins are left out."""
        order, seen = [], set()

        def add(name):
            if name in seen or name not in self._paths:
                return
            seen.add(name)
            raw = self._paths[name].read_bytes()
            if self._paths[name].suffix == ".xz":
                raw = lzma.decompress(raw)
            depends = re.search(rb"\0depends=([^\0]*)\0", raw)
            for other in depends[1].decode().split(",") if depends else ():
                add(other.replace("-", "_"))
            order.append((f"{name}.ko", raw))

        for name in names:
            add(name)
        return order


class Images:
    """Makes what the scenarios need; every method returns a path under build/nested/."""

    def __init__(self, build, installed_qemu=False, generic=False):
        self.build = pathlib.Path(build).resolve()
        self.root = TOP / "build" / "nested"
        self.made = self.root / "made"
        self.made.mkdir(parents=True, exist_ok=True)
        self.packages = Packages(self.root)
        self.emulator = find_emulator(self.root, installed_qemu)
        self.host_kernel = self._kernel(HOST_KERNEL)
        if not self.host_kernel:
            raise Skip("no Debian kernel: the package registry is out of reach and nothing is kept")
        found = {meta: self._kernel(meta) for meta in GUEST_KERNELS}
        self.guest_kernels = {".".join(k.release.split(".")[:2]): k for k in found.values() if k}
        self.guest_kernel = next(iter(self.guest_kernels.values()))
        self.generic = self._kernel(GENERIC_KERNEL) if generic else None

    @classmethod
    def locked(cls, build, installed_qemu=False, generic=False):
        """Builds under a lock, so that two test programs may start at once."""
        root = TOP / "build" / "nested"
        root.mkdir(parents=True, exist_ok=True)
        with open(root / "lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            images = cls(build, installed_qemu, generic)
            images.prepare()
            return images

    def _kernel(self, meta):
        package = self.packages.behind_meta(meta)
        tree = self.packages.tree(package) if package else None
        return Kernel(tree) if tree else None

    def symbols(self, kernel):
        """The kernel with its debugging symbols, of the very version."""
        package = f"linux-image-{kernel.release}-dbg"
        vmlinux = self.packages.only(package, f"./usr/lib/debug/boot/vmlinux-{kernel.release}")
        if not vmlinux:
            raise Skip(f"no {package}: the package registry is out of reach or has another version")
        return vmlinux

    def _agent(self, name):
        return self.build / "tests" / "nested" / "agents" / name

    def _keep(self, name, key, make):
        """@make(path) fills a new file, once per key; older ones of that name are removed."""
        path = self.made / f"{name}.{key}"
        if path.exists():
            return path
        partial = path.with_suffix(".partial")
        make(partial)
        for old in self.made.glob(f"{name}.*"):
            if old != partial:
                old.unlink()
        partial.rename(path)
        return path

    def busybox(self):
        tree = self.packages.tree("busybox-static")
        if not tree:
            raise Skip("no busybox-static package: the registry is out of reach")
        return next(p for p in (tree / "bin/busybox", tree / "usr/bin/busybox") if p.exists())

    def _add_userland(self, cpio, kernel, modules):
        busybox = self.busybox()
        cpio.file("bin/busybox", busybox.read_bytes())
        for applet in tool(busybox, "--list").split():
            if applet != "busybox":
                cpio.link(f"bin/{applet}", "busybox")
        for name in ("proc", "sys", "dev", "run", "tmp", "root", "mnt", "etc", "var"):
            cpio.directory(name)
        cpio.device("dev/console", 5, 1)
        cpio.device("dev/null", 1, 3)
        files = kernel.modules(modules)
        for name, body in files:
            cpio.file(f"modules/{name}", body, 0o644)
        cpio.file("modules/order", "".join(f"{n}\n" for n, _ in files).encode(), 0o644)

    def host_initramfs(self):
        programs = [p for p in (shutil.which("tc", path="/usr/sbin:/sbin:/usr/bin"),) if p]
        init = HERE / "host" / "init"
        key = digest(str(self.host_kernel.tree), init, pathlib.Path(__file__), self.busybox(),
                     *(self._agent(a) for a in AGENTS), *map(pathlib.Path, programs))

        def make(path):
            cpio = Cpio()
            self._add_userland(cpio, self.host_kernel, HOST_MODULES)
            cpio.file("init", init.read_bytes())
            for agent in AGENTS:
                cpio.file(f"bin/{agent}", self._agent(agent).read_bytes())
            for program in programs:
                add_program(cpio, program, f"usr/sbin/{os.path.basename(program)}")
            path.write_bytes(cpio.done())

        return self._keep("host.cpio", key, make)

    def guest_initramfs(self, kernel):
        init = HERE / "guest" / "init"
        key = digest(str(kernel.tree), init, pathlib.Path(__file__), self.busybox())

        def make(path):
            cpio = Cpio()
            self._add_userland(cpio, kernel, GUEST_MODULES)
            cpio.file("init", init.read_bytes())
            path.write_bytes(cpio.done())

        return self._keep(f"guest-{kernel.release}.cpio", key, make)

    def programs(self):
        """The programs under test, /bin/chvmm and so on; the set that the build tree has."""
        found = [p for p in (self.build / n for n in ("chvmm", "chctl", "chsnap")) if p.exists()]
        key = digest(pathlib.Path(__file__), *found)

        def make(path):
            cpio = Cpio()
            for program in found:
                add_program(cpio, program, f"bin/{program.name}")
            path.write_bytes(cpio.done())

        return self._keep("programs.cpio", key, make)

    def payload(self):
        """What the emulated host gives to guests: kernels and their initramfs, in /images."""
        parts = {}
        kernels = dict(self.guest_kernels)
        if self.generic:
            kernels["generic"] = self.generic
        for name, kernel in kernels.items():
            parts[f"images/{name}.kernel"] = kernel.image
            parts[f"images/{name}.initramfs"] = self.guest_initramfs(kernel)
        key = digest(*map(str, parts), *map(str, parts.values()))

        def make(path):
            cpio = Cpio()
            for name, source in parts.items():
                cpio.file(name, source.read_bytes(), 0o644)
            path.write_bytes(cpio.done())

        return self._keep("payload.cpio", key, make)

    def _ext4(self, path, mib, tree=None, *options):
        with open(path, "wb") as f:
            f.truncate(mib << 20)
        extra = ["-d", tree] if tree else []
        tool("mke2fs", "-q", "-F", "-t", "ext4", *options, *extra, path,
             env=os.environ | {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"})

    def guest_root(self):
        """The guest's ext4 root: busybox, the loads, its start-up scripts."""
        scripts = {"etc/rc": "rc", "etc/rc.stop": "rc.stop", "etc/inittab": "inittab",
                   "etc/renew": "renew", "etc/acpi/PWRF/00000080": "power_button"}
        key = digest(pathlib.Path(__file__), self.busybox(), *(self._agent(a) for a in AGENTS),
                     *(HERE / "guest" / s for s in scripts.values()))

        def make(path):
            with tempfile.TemporaryDirectory(dir=self.made) as top:
                tree = pathlib.Path(top)
                for name in ("bin", "sbin", "etc/acpi/PWRF", "proc", "sys", "dev", "run", "tmp",
                             "var/log", "root"):
                    (tree / name).mkdir(parents=True)
                shutil.copy(self.busybox(), tree / "bin/busybox")
                for applet in tool(self.busybox(), "--list").split():
                    if applet != "busybox":
                        (tree / "bin" / applet).symlink_to("busybox")
                (tree / "sbin/init").symlink_to("/bin/busybox")
                for agent in AGENTS:
                    shutil.copy(self._agent(agent), tree / "bin" / agent)
                for name, script in scripts.items():
                    shutil.copy(HERE / "guest" / script, tree / name)
                    (tree / name).chmod(0o755)
                self._ext4(path, ROOT_MIB, tree)

        return self._keep("guest-root.ext4", key, make)

    def scratch(self):
        """An empty disk for an emulated host: snapshots, and copies of guest disks."""
        return self._keep("scratch.ext4", digest(pathlib.Path(__file__)),
                          lambda path: self._ext4(path, SCRATCH_MIB, None, "-O", "^has_journal"))

    def qemu(self):
        """QEMU with its libraries and firmware, as a read-only disk for an emulated host."""
        program = shutil.which("qemu-system-x86_64")
        firmware = ["/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/linuxboot_dma.bin",
                    "/usr/share/qemu/bios-microvm.bin", "/usr/share/qemu/kvmvapic.bin",
                    "/usr/share/qemu/qboot.rom", "/usr/share/qemu/pvh.bin"]
        stat = os.stat(program)
        key = digest(pathlib.Path(__file__), f"{stat.st_size} {stat.st_mtime_ns}")

        def make(path):
            with tempfile.TemporaryDirectory(dir=self.made) as top:
                tree = pathlib.Path(top)
                (tree / "lib").mkdir()
                (tree / "firmware").mkdir()
                shutil.copy(program, tree / "qemu")
                for lib in libraries_of(program):
                    shutil.copy(lib, tree / "lib" / os.path.basename(lib))
                for image in filter(os.path.exists, firmware):
                    shutil.copy(image, tree / "firmware" / os.path.basename(image))
                mib = tool("du", "-sm", tree).split()[0]
                self._ext4(path, int(mib) + 24, tree, "-O", "^has_journal")

        return self._keep("qemu.ext4", key, make)

    def certificates(self, relay):
        """
        A directory with one authority and the keys of both ends, as tls_dir wants them.  relay: an address
        that leads to either, too.
        """
        tls, done = self.root / "tls", self.root / "tls" / "done"
        names = f"subjectAltName=DNS:host-a,DNS:host-b,IP:10.9.0.1,IP:10.9.0.2,IP:{relay}"
        if done.exists() and done.read_text(encoding="ascii") == names:
            return tls
        shutil.rmtree(tls, ignore_errors=True)
        tls.mkdir()
        run = lambda *argv: tool("openssl", *argv, cwd=tls)
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        run("req", "-x509", *curve, "-keyout", "ca-key.pem", "-out", "ca-cert.pem", "-days", "3650",
            "-subj", "/CN=nested lane")
        for end in ("server", "client"):
            run("req", *curve, "-keyout", f"{end}-key.pem", "-out", f"{end}.csr", "-subj",
                f"/CN={end}", "-addext", names)
            run("x509", "-req", "-in", f"{end}.csr", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem",
                "-CAcreateserial", "-out", f"{end}-cert.pem", "-days", "3650",
                "-copy_extensions", "copy")
        done.write_text(names, encoding="ascii")
        return tls

    def prepare(self):
        """Everything that every scenario needs."""
        missing = [a for a in AGENTS if not self._agent(a).exists()]
        if missing:
            raise Skip(f"not built in {self.build}: {', '.join(missing)}")
        self.host_initramfs()
        self.programs()
        self.payload()
        self.guest_root()
        self.scratch()


def copy_sparse(source, target):
    """A private copy of a disk; holes stay holes."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)
    tool("cp", "--sparse=always", "--reflink=auto", source, target)
