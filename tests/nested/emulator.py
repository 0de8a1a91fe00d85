# SPDX-License-Identifier: Apache-2.0
"""The QEMU that emulates the hosts, and the processor that it is asked for.

Before 8.2 QEMU's TCG does not give XSETBV to the hypervisor: KVM keeps another XCR0 than its guest
has, and loads it at every entry.  Debian 12 has 7.2, its backports have a newer one: that is
unpacked beside the kernels, not installed.  Its libraries are those of the installed one.
"""

import dataclasses
import pathlib
import re
import shutil
import subprocess
import time

from packages import Packages, Skip

PROGRAM = "qemu-system-x86_64"
XSAVE_SINCE = (8, 2)
CPU = "EPYC,+svm,+npt"
# Without AVX and AES in hardware: old TCG is slow at AES, and at vectors.
CPU_BEFORE = CPU + ",-xsave,-avx,-avx2,-f16c,-fma,-aes,-pclmulqdq,-ssse3,-sse4.1,-sse4.2"
BACKPORTS_PACKAGES = ("qemu-system-x86", "qemu-system-data", "seabios")
LISTS_AGE_S = 86400
KEYRING = pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclasses.dataclass
class Emulator:
    """How to start it: the command, and what to give to -cpu."""

    argv: tuple
    version: tuple

    @property
    def xsave(self):
        return self.version >= XSAVE_SINCE

    @property
    def cpu(self):
        return CPU if self.xsave else CPU_BEFORE

    def __str__(self):
        return f"QEMU {'.'.join(map(str, self.version))} {'with' if self.xsave else 'without'} XSAVE"


class Suite(Packages):
    """Another suite than the running Debian's, from the registry that that uses, without root."""

    def __init__(self, root, suite):
        """@suite: a code name; "backports" are those of the running Debian."""
        self.suite = suite
        self.own = root / suite
        self.lists = self.own / "lists"
        (self.lists / "partial").mkdir(parents=True, exist_ok=True)
        for name in ("cache", "sources.d"):
            (self.own / name).mkdir(exist_ok=True)
        super().__init__(self.own)

    def _apt(self, program, *words, **kwargs):
        settings = {"Dir::Etc::sourcelist": self.own / "sources.list",
                    "Dir::Etc::sourceparts": self.own / "sources.d",
                    "Dir::State::lists": self.lists, "Dir::State::status": "/dev/null",
                    "Dir::Cache": self.own / "cache", "APT::Sandbox::User": "root"}
        options = [o for k, v in settings.items() for o in ("-o", f"{k}={v}")]
        return super()._apt(program, *options, *words, **kwargs)

    def _stamp(self):
        """Asks the registry again when what it said is a day old."""
        note = self.own / "updated"
        if not note.exists() or time.time() - note.stat().st_mtime > LISTS_AGE_S:
            line = self._source()
            if line:
                (self.own / "sources.list").write_text(line)
                self._apt("apt-get", "update")
                note.touch()
        return note.stat().st_mtime_ns if note.exists() else 0

    def _source(self):
        """The line of sources.list; None where the running Debian names no registry."""
        targets = super()._apt("apt-get", "indextargets", "--format",
                               "$(REPO_URI) $(CODENAME) $(COMPONENT)",
                               "Created-By: Packages")
        found = re.search(r"^(\S+/debian/?) ([a-z]+) main$", targets, re.M)
        if not found:
            return None
        signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        suite = f"{found[2]}-backports" if self.suite == "backports" else self.suite
        return f"deb {signed}{found[1]} {suite} main\n"


def _version(argv):
    """(major, minor) of what @argv starts; (0, 0) when it does not run."""
    done = subprocess.run([*argv, "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          check=False, text=True)
    found = re.search(r"version (\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found and not done.returncode else (0, 0)


def find_emulator(root, installed_only=False):
    """The installed QEMU if it is new enough, else that of the backports, else the installed one."""
    if not shutil.which(PROGRAM):
        raise Skip(f"{PROGRAM} is not installed")
    installed = Emulator((PROGRAM,), _version((PROGRAM,)))
    if installed.xsave or installed_only:
        return installed
    packages = Suite(root, "backports")
    trees = [packages.tree(p) for p in BACKPORTS_PACKAGES]
    if not all(trees):
        return installed
    argv = (trees[0] / "usr/bin" / PROGRAM, "-L", trees[1] / "usr/share/qemu",
            "-L", trees[2] / "usr/share/seabios")
    newer = Emulator(argv, _version(argv[:1]))
    return newer if newer.xsave else installed
