# SPDX-License-Identifier: Apache-2.0
"""Debian packages, downloaded and unpacked, never installed."""

import json
import pathlib
import re
import subprocess
import tempfile


class Skip(Exception):
    """The lane cannot run on this machine; the text says why."""


def tool(*argv, **kwargs):
    """Runs a program of this machine; its output is part of the error."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                          **kwargs)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, argv))}: {done.stdout.decode(errors='replace')}")
    return done.stdout.decode(errors="replace")


class Packages:
    """Debian packages from the registry that apt knows, kept under @root.

    Asking apt takes a second a question, so its answers are kept until its lists change.
    """

    LISTS = pathlib.Path("/var/lib/apt/lists")

    def __init__(self, root):
        self.debs = root / "debs"
        self.trees = root / "trees"
        self.note = root / "packages.json"
        self.debs.mkdir(parents=True, exist_ok=True)
        self.trees.mkdir(parents=True, exist_ok=True)
        stamp = self._stamp()
        kept = json.loads(self.note.read_text()) if self.note.exists() else {}
        self.answers = kept if kept.get("stamp") == stamp else {"stamp": stamp}

    def _stamp(self):
        """A number that changes when the registry's lists do."""
        return self.LISTS.stat().st_mtime_ns if self.LISTS.exists() else 0

    def _apt(self, program, *words, **kwargs):
        return subprocess.run([program, *words], stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.DEVNULL, check=False, **kwargs).stdout

    def _ask(self, *question):
        key = " ".join(question)
        if key not in self.answers:
            self.answers[key] = self._apt("apt-cache", *question)
            self.note.write_text(json.dumps(self.answers))
        return self.answers[key]

    def _candidate(self, package):
        """File name of the package's version in the registry; None if it is not known there."""
        text = self._ask("show", "--no-all-versions", package)
        found = re.search(r"^Version: (\S+)$", text, re.M)
        arch = re.search(r"^Architecture: (\S+)$", text, re.M)
        if not found or not arch:
            return None
        return f"{package}_{found[1].replace(':', '%3a')}_{arch[1]}.deb"

    def _cached(self, package):
        return max(self.debs.glob(f"{package}_*.deb"), key=lambda p: p.stat().st_mtime,
                   default=None)

    def deb(self, package):
        name = self._candidate(package)
        if name and not (self.debs / name).exists():
            self._apt("apt-get", "download", package, cwd=self.debs)
        if name and (self.debs / name).exists():
            return self.debs / name
        return self._cached(package)

    def tree(self, package):
        """The unpacked package; None where there is neither a registry nor a kept copy."""
        deb = self.deb(package)
        if not deb:
            return None
        tree = self.trees / deb.stem
        if not tree.exists():
            partial = pathlib.Path(tempfile.mkdtemp(dir=self.trees))
            tool("dpkg-deb", "-x", deb, partial)
            partial.chmod(0o755)
            partial.rename(tree)
        return tree

    def only(self, package, pattern):
        """One file of a package that is large; the rest of it is not kept.  None as for tree()."""
        name = self._candidate(package) or f"{package}_*.deb"
        kept = sorted(self.trees.glob(name.removesuffix(".deb")))
        deb = None if kept else self.deb(package)
        if deb:
            partial = pathlib.Path(tempfile.mkdtemp(dir=self.trees))
            tool("sh", "-c", 'dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --wildcards "$3"', "sh",
                 deb, partial, pattern)
            kept = [self.trees / deb.stem]
            partial.rename(kept[0])
            kept[0].chmod(0o755)
            deb.unlink()
        return next(kept[-1].glob(pattern), None) if kept else None

    def behind_meta(self, meta):
        """The package that a meta package stands for: kernels are never named by version."""
        note = self.debs / f"{meta}.depends"
        found = re.search(r"Depends: (linux-image-\S+)", self._ask("depends", meta))
        if found:
            note.write_text(found[1])
        return note.read_text() if note.exists() else None
