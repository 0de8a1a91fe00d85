# SPDX-License-Identifier: Apache-2.0
"""The crash utility that opens core files of guests, and the symbols of their kernels.

crash has to know the kernel that it looks at. Debian 12 has one that is older than the guest's
kernel; the next release has one that knows it, which is unpacked beside the kernels with the
libraries that it wants, not installed.
"""

import dataclasses
import re
import shutil
import subprocess

from channel import PATIENCE
from emulator import Suite
from packages import Skip

PROGRAM = "crash"
KNOWS_SINCE = (8, 0, 6)  # Linux 6.12
LATER_SUITE = "trixie"
LATER_PACKAGES = ("crash", "libc6", "libgcc-s1", "liblzo2-2", "libncursesw6", "libsnappy1v5",
                  "libstdc++6", "libtinfo6", "libzstd1")
LIBRARIES = "usr/lib/x86_64-linux-gnu"
ANSWER_S = 60.0


@dataclasses.dataclass
class Crash:
    """How to start it."""

    argv: tuple
    version: tuple

    def __str__(self):
        return f"crash {'.'.join(map(str, self.version))}"

    def ask(self, vmlinux, core, commands):
        """{command: what it printed}; all of the output if it does not end well."""
        script = core.with_suffix(".commands")
        script.write_text("".join(f"{c}\n" for c in commands) + "quit\n")
        done = subprocess.run([*self.argv, "--no_crashrc", "-i", script, vmlinux, core],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=ANSWER_S * PATIENCE, check=False,
                              cwd=core.parent, text=True, errors="replace")
        core.with_suffix(".collected").write_text(done.stdout)
        if done.returncode:
            raise RuntimeError(f"{self}: status {done.returncode}: {done.stdout[-2000:]}")
        parts = re.split(r"^crash> (.*)\n", done.stdout, flags=re.M)
        return dict(zip(parts[1::2], parts[2::2]))


def _version(argv):
    """(major, minor, patch) of what @argv starts; zeroes when it does not run."""
    done = subprocess.run([*argv, "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          stdin=subprocess.DEVNULL, check=False, text=True)
    found = re.search(r"^crash (\d+)\.(\d+)\.(\d+)", done.stdout, re.M)
    return tuple(map(int, found.groups())) if found and not done.returncode else (0, 0, 0)


def find_crash(root):
    """The installed one if it is new enough, else that of the next Debian."""
    installed = Crash((PROGRAM,), _version((PROGRAM,))) if shutil.which(PROGRAM) else None
    if installed and installed.version >= KNOWS_SINCE:
        return installed
    packages = Suite(root, LATER_SUITE)
    trees = {p: packages.tree(p) for p in LATER_PACKAGES}
    missing = [p for p, tree in trees.items() if not tree]
    if missing:
        raise Skip(f"no crash that knows Linux 6.12: the registry gives no {', '.join(missing)}")
    loader = next(trees["libc6"].glob(f"{LIBRARIES}/ld-linux-x86-64.so.2"))
    path = ":".join(str(tree / LIBRARIES) for tree in trees.values())
    argv = (loader, "--library-path", path, trees["crash"] / "usr/bin" / PROGRAM)
    later = Crash(argv, _version(argv))
    if later.version < KNOWS_SINCE:
        raise Skip(f"{later} does not know Linux 6.12")
    return later
