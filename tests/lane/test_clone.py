# SPDX-License-Identifier: Apache-2.0
"""Restores that change the machine, and clones by the dozen."""

import contextlib
import fcntl
import http.client
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import time
import uuid

import lane_base
from lane_base import MIB, LaneTest, program, wait_until
from lane_guest import Guest, Line
from lane_host import GuestMemory
from lane_vmm import Background, Vmm, request, vm_args


class CloneTest(LaneTest):
    def frozen(self, name="warm", **kwargs):
        vmm = Vmm(self, "vm", vm_args(memory="128M", **kwargs))
        vmm.boot()
        vmm.guest.do("fill 64 8 sparse 3")
        if "disk" in kwargs:
            vmm.guest.do("blk 0 write 0 64 9")
            vmm.guest.do("blk 0 flush")
        vmm.put("vm.pause")
        vmm.put("vm.snapshot", {"destination_url": f"store:{self.dir}/store#{name}"})
        return vmm

    def chsnap(self, *args, code=0):
        result = subprocess.run([program("chsnap"), *map(str, args)], capture_output=True,
                                text=True, timeout=120, check=False, cwd=self.short)
        self.assertEqual(result.returncode, code, result.stderr)
        return result.stdout if code == 0 else result.stderr

    def clones(self, *args):
        found = json.loads(self.chsnap("clone", "-j", "--dir", self.short / "c", *args,
                                       self.dir / "store", "warm"))
        for clone in found:
            self.addCleanup(self.end, clone["pid"])
        return found

    @staticmethod
    def end(pid):
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass

    @staticmethod
    def kill(clones):
        for clone in clones:
            gone = pathlib.Path(f"/proc/{clone['pid']}")
            os.kill(clone["pid"], signal.SIGKILL)
            wait_until(lambda gone=gone: not gone.exists(), 10, "a clone to end")

    def config(self, clone):
        text = subprocess.run([program("chctl"), "--api-socket", clone["api_socket"], "info"],
                              check=True, capture_output=True, timeout=30).stdout
        return json.loads(text)["config"]

    def guest(self, clone):
        """The guest of a clone, whose serial port is a socket where chsnap was started."""
        line = Line(self.dir / f"{clone['pid']}.log")
        self.addCleanup(line.close)
        line.attach_socket(self.short / self.config(clone)["serial"]["socket"])
        return Guest(line)

    def refused(self, *options):
        vmm = Vmm(self, f"refused{len(list(self.dir.iterdir()))}",
                  ["--restore", f"source_url=store:{self.dir}/store#warm" + "".join(options)],
                  wait_api=False)
        self.assertEqual(vmm.wait_exit(), 1)
        return vmm.log()

    def test_a_dozen_share_what_they_do_not_write(self):
        self.frozen().kill()
        clones = self.clones("-n", 12)
        self.assertEqual(len(list((self.dir / "store" / "cache").glob("*.ram"))), 1)
        ids = set()
        for clone in clones:
            guest = self.guest(clone)
            guest.do("verify", timeout_s=60)
            ids.add(guest.do("genid")["id"])
            ids.add(clone["uuid"])
            log = (self.short / "c" / os.path.basename(clone["api_socket"])).with_suffix(".log")
            self.assertNotIn("error", log.read_text())
        self.assertEqual(len(ids), 2 * len(clones))

    def cloning(self, *args):
        """A chsnap clone that is at work."""
        process = subprocess.Popen(
            [program("chsnap"), "clone", "--dir", self.short / "c", *args, self.dir / "store",
             "warm"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=self.short)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        return process

    @staticmethod
    def children(process):
        pids = []
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it or a thread has ended
            for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
        return pids

    def assert_none_made(self, pids=()):
        for pid in pids:
            self.assertFalse(pathlib.Path(f"/proc/{pid}").exists(), pid)
        self.assertEqual(sorted(p.name for p in self.dir.glob("disk.img*")), ["disk.img"])
        left = [p.name for p in (self.short / "c").glob("*") if p.suffix != ".log"]
        self.assertEqual(left, [])
        self.assertEqual([p.name for p in self.short.glob("serial.sock*")], [])

    def test_clones_are_all_made_or_none(self):
        disk = self.make_disk("disk.img", 64 * MIB, os.urandom(64 * MIB))
        self.frozen(disk=f"path={disk}").kill()
        stopped = 0
        for i in range(20):
            process = self.cloning("-n", "3")
            try:
                process.wait(i * 0.02)
            except subprocess.TimeoutExpired:
                pass
            pids = self.children(process) if process.poll() is None else []
            process.send_signal((signal.SIGTERM, signal.SIGINT)[i % 2])
            if process.wait(30) == 0:
                break
            stopped += 1
            self.assertIn(process.returncode, (-signal.SIGTERM, -signal.SIGINT))
            if process.stderr.read().endswith(": all clones run\n"):
                break
            self.assert_none_made(pids)
        self.assertGreater(stopped, 0)
        # Those of a signal that came too late are not listed.
        listed = {int(line.split()[0]) for line in process.stdout.read().splitlines()[1:]}
        for pid in listed.union(pids):
            self.end(pid)

    def orphans(self):
        """{pid: API socket} of all clones that are there, whoever knows of them."""
        found = {}
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().decode(errors="replace").split("\0")
                found |= {int(path.parent.name): word for word in words
                          if word.startswith(f"{self.short}/c/")}
        return found

    def running(self):
        """pids of clones that run; None as long as there are others."""
        found = self.orphans()
        for path in found.values():
            try:
                status, body = request(path, "GET", "/api/v1/vm.info", timeout_s=5)
            except (OSError, http.client.HTTPException):
                return None  # it does not answer yet, or no longer
            if status != 200 or json.loads(body)["state"] != "Running":
                return None
        return list(found)

    def kill_orphans(self):
        for pid in self.orphans():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def settle(self):
        """pids of clones that run, when none is left that does not."""
        end = time.monotonic() + 30
        while (pids := self.running()) is None:
            self.assertLess(time.monotonic(), end, "a clone neither runs nor ends")
            time.sleep(0.01)
        return pids

    def test_clones_end_with_a_chsnap_that_is_killed(self):
        disk = self.make_disk("disk.img", 64 * MIB, os.urandom(64 * MIB))
        self.frozen(disk=f"path={disk}").kill()
        self.addCleanup(self.kill_orphans)
        nr_ended = 0
        for i in range(16):
            process = self.cloning("-n", "3")
            wait_until(lambda process=process: self.children(process) or
                       process.poll() is not None, 30, "a clone")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(i * 0.01)
            process.kill()
            process.wait()
            pids = self.settle()
            self.assertIn(len(pids), (0, 3))
            if process.returncode == 0:
                self.assertEqual(len(pids), 3)
            nr_ended += not pids
            copies = list(self.dir.glob("disk.img.*"))
            self.assertEqual(len(copies), len(pids))
            self.assertEqual(len(list((self.short / "c").glob("*.sock"))), len(pids))
            for pid in pids:
                self.end(pid)
            for pid in pids:
                wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), 30, "its end")
            for copy in copies:
                copy.unlink()
        self.assertGreater(nr_ended, 0)

    def test_a_chsnap_that_is_killed_has_let_all_run_or_none(self):
        self.frozen().kill()
        self.addCleanup(self.kill_orphans)
        first = str(self.short / "c" / "clone-0.sock")
        for _ in range(3):
            process = self.cloning("-n", "10")

            def runs(process=process):
                with contextlib.suppress(OSError, http.client.HTTPException):
                    status, body = request(first, "GET", "/api/v1/vm.info", timeout_s=5)
                    return status == 200 and json.loads(body)["state"] == "Running"
                return process.poll() is not None

            while not runs():
                pass
            process.kill()
            process.wait()
            pids = self.settle()
            self.assertEqual(len(pids), 10)
            for pid in pids:
                self.end(pid)
            for pid in pids:
                wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), 30, "its end")

    def leashed(self, name, fd, options=""):
        vmm = Vmm(self, name, ["--restore", f"source_url=store:{self.dir}/store#warm{options}",
                               "--end-with", f"fd={fd}"], pass_fds=(fd,))
        os.close(fd)
        vmm.wait_state("Paused")
        return vmm

    def test_one_byte_has_all_run_on_that_have_the_pipe(self):
        self.frozen().kill()
        out, into = os.pipe()
        vmms = [self.leashed(f"back{i}", os.dup(out)) for i in range(2)]
        os.close(out)
        vmms[0].process.send_signal(signal.SIGSTOP)  # it looks when who wrote has gone
        os.write(into, b"r")
        os.close(into)
        vmms[1].wait_state("Running")
        vmms[0].process.send_signal(signal.SIGCONT)
        vmms[0].wait_state("Running")
        for vmm in vmms:
            self.assertTrue(vmm.is_running())

    def test_who_cannot_run_on_ends_with_who_wanted_that(self):
        disk = self.make_disk("disk.img", 8 * MIB)
        self.frozen(disk=f"path={disk}").kill()
        out, into = os.pipe()
        with self.lock(disk):
            vmm = self.leashed("back", out)
            os.write(into, b"r")
            wait_until(lambda: "wants the VM to run on" in vmm.log(), 30, "the reason")
            self.assertEqual(vmm.state(), "Paused")
            os.close(into)
            self.assertEqual(vmm.wait_exit(), 0)
        # A socket's end is no word.
        ours, theirs = (s.detach() for s in socket.socketpair())
        vmm = self.leashed("other", theirs)
        os.close(ours)
        self.assertEqual(vmm.wait_exit(), 0)

    def test_a_clone_that_cannot_run_on_takes_the_others_with_it(self):
        self.frozen().kill()
        self.addCleanup(self.kill_orphans)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(self.short / "serial1"))
            other.listen()
            error = self.chsnap("clone", "-n", 3, "--dir", self.short / "c", "--set",
                                f"serial.socket={self.short}/serial{{n}}", self.dir / "store", "warm", code=1)
        self.assertIn("clone-1.sock: ", error)
        self.assertIn("serial1: somebody serves this socket", error)
        self.assertEqual(self.orphans(), {})
        self.assertEqual(list((self.short / "c").glob("*.sock")), [])

    def clones_of(self, process):
        """pids of two that are chvmm by now: to stop one before would stop who makes it."""
        pids = self.children(process)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if len(pids) == 2 and all(pathlib.Path(f"/proc/{pid}/comm").read_text() == "chvmm\n"
                                      for pid in pids):
                return pids
        return None

    def two_clones(self):
        """Return: the command and its clones' pids.  It may have ended before it was looked at."""
        for _ in range(20):
            process = self.cloning("-n", "2")
            pids = wait_until(lambda process=process: self.clones_of(process) or
                              process.poll() is not None, 30, "two clones")
            if pids is not True:
                return process, pids
            for line in process.stdout.read().splitlines()[1:]:
                pid = int(line.split()[0])
                self.end(pid)
                wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), 30, "its end")
            for copy in self.dir.glob("disk.img.*"):
                copy.unlink()
        self.fail("two clones were never seen")

    def test_a_clone_that_waits_for_another_has_done_nothing(self):
        disk = self.make_disk("disk.img", 8 * MIB, os.urandom(8 * MIB))
        self.frozen(disk=f"path={disk}").kill()
        process, pids = self.two_clones()
        os.kill(max(pids), signal.SIGSTOP)
        wait_until(lambda: list(self.dir.glob("disk.img.*")), 30, "a disk of the other's")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(30), -signal.SIGTERM)
        self.assertEqual(process.stderr.read(),
                         "chsnap: stopped by SIGTERM: none of the clones was made\n")
        self.assert_none_made(pids)
        # Nor if one of them cannot be made.
        taken = self.short / "c" / "clone-1.sock"
        taken.mkdir()
        process = self.cloning("-n", "2")
        self.assertEqual(process.wait(60), 1)
        taken.rmdir()
        self.assert_none_made()

    def test_a_wait_for_an_image_is_given_up(self):
        self.make_disk("disk.img", 8 * MIB)
        self.frozen().kill()
        cache = os.open(self.dir / "store" / "cache", os.O_RDONLY | os.O_DIRECTORY)
        self.addCleanup(os.close, cache)
        fcntl.flock(cache, fcntl.LOCK_EX)
        for sig in (signal.SIGTERM, signal.SIGINT):
            process = self.cloning("-n", "2")
            with self.assertRaises(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.send_signal(sig)
            self.assertEqual(process.wait(30), -sig)
            self.assertIn("none of the clones was made", process.stderr.read())
            self.assert_none_made()
            vmm = Vmm(self, f"mapped{sig}", ["--restore", f"source_url=store:{self.dir}/store#warm,"
                                             "memory_restore_mode=mapped"])
            vmm.process.send_signal(sig)
            self.assertEqual(vmm.wait_exit(), 128 + sig)
            self.assertIn("cancelled", vmm.log())

    def test_numbers_take_their_places(self):
        disk = self.make_disk("disk.img", 8 * MIB)
        self.frozen(disk=f"path={disk}").kill()
        clones = self.clones(
            "-n", 3, "--first", 10, "--name", "web{n:03}",
            "--set", "disks._disk0.path=" + str(self.dir / "web{n}.img"),
            "--set", "serial.socket=" + str(self.short / "web{n}.serial"),
            "--set", "platform.uuid=00000000-0000-4000-8000-{n:012x}")
        guests = []
        for n, clone in enumerate(clones, 10):
            self.assertTrue(clone["api_socket"].endswith(f"/web{n:03}.sock"), clone)
            self.assertEqual(clone["uuid"], str(uuid.UUID(f"00000000-0000-4000-8000-{n:012x}")))
            config = self.config(clone)
            self.assertEqual(config["disks"][0]["path"], f"{self.dir}/web{n}.img")
            guests.append(self.guest(clone))
            guests[-1].do("blk 0 verify 0 64 9", timeout_s=60)
            guests[-1].do(f"blk 0 write 0 64 {n}")
        for n, guest in enumerate(guests, 10):
            guest.do(f"blk 0 verify 0 64 {n}", timeout_s=60)

    def test_a_template_that_is_used_again_takes_no_disk_that_was_written_to(self):
        disk = self.make_disk("disk.img", 8 * MIB)
        self.frozen(disk=f"path={disk}").kill()
        options = ("-n", 2, "--set", f"disks._disk0.path={self.dir}/mine{{n}}.img")
        self.kill(self.clones(*options))
        # Nobody has written to what they left.
        again = self.clones(*options)
        guest = self.guest(again[1])
        guest.do("blk 0 verify 0 64 9", timeout_s=60)
        guest.do("blk 0 write 0 64 7")
        guest.do("blk 0 flush")
        self.kill(again)
        error = self.chsnap("clone", "--dir", self.short / "c", *options, self.dir / "store", "warm", code=1)
        self.assertIn("mine1.img): it is an earlier clone's, which has written to it", error)
        self.clones(*options, "--changed-disks")

    def test_what_two_clones_cannot_both_have_is_refused(self):
        self.frozen().kill()
        for option in ("net._net0.tap=tap0", "serial.socket=/tmp/s", "platform.uuid=1"):
            error = self.chsnap("clone", "-n", 2, "--dir", self.short / "c", "--set", option,
                                self.dir / "store", "warm", code=2)
            self.assertIn(f"--set {option}: would be the same for all", error)
        error = self.chsnap("clone", "-n", 2, "--dir", self.short / "c", "--name", "x",
                            self.dir / "store", "warm", code=2)
        self.assertIn("--name x", error)

    def test_a_disk_that_changed_is_refused(self):
        disk = self.make_disk("disk.img", 8 * MIB)
        vmm = self.frozen(disk=f"path={disk}")
        vmm.put("vm.resume")
        vmm.guest.do("blk 0 write 128 8 1")
        vmm.guest.do("blk 0 flush")
        vmm.kill()
        for clone in ("", ",clone=on"):
            log = self.refused(",resume=on", clone)
            self.assertIn("disk _disk0", log)
            self.assertIn("it was written after the snapshot", log)
        self.assertEqual(sorted(p.name for p in self.dir.glob("disk.img*")), ["disk.img"])
        back = Vmm(self, "back", ["--restore", f"source_url=store:{self.dir}/store#warm,"
                                  "changed_disks=on,resume=on"])
        back.wait_state("Running")
        back.attach()
        back.guest.do("verify", timeout_s=60)

    def test_a_disk_written_while_memory_is_read_has_changed(self):
        disk = self.make_disk("disk.img", 8 * MIB)
        vmm = Vmm(self, "vm", vm_args(memory="512M", disk=f"path={disk}"))
        vmm.boot()
        memory = GuestMemory(vmm.pid, 512 * MIB)
        with open(f"/proc/{vmm.pid}/mem", "r+b", buffering=0) as out:
            for at in range(64 * MIB, 512 * MIB, 8 * MIB):
                os.pwrite(out.fileno(), os.urandom(8 * MIB), memory.base + at)
        memory.close()
        vmm.guest.do("blk 0 run 0 2048")
        request = Background(vmm.put, "vm.snapshot",
                             {"destination_url": f"store:{self.dir}/store#warm",
                              "mode": "Moment"}, timeout_s=120)
        # The moment is over once the guest runs again; its memory is still being read.
        wait_until(lambda: request.is_done() or
                   vmm.get("vm.snapshot-progress")["phase"] in ("copy", "publish", "done"), 60,
                   "a guest that runs on")
        vmm.guest.do("blk 0 stop", timeout_s=60)
        request.result(120)
        vmm.kill()
        self.assertIn("it was written after the snapshot", self.refused(",resume=on"))

    def test_a_clone_that_does_not_come_to_life_leaves_no_disks(self):
        disks = [self.make_disk(f"disk{i}.img", 8 * MIB) for i in range(2)]
        self.frozen(disk=[f"path={d}" for d in disks]).kill()
        # Found only when the machine is built: by then there are copies.
        log = self.refused(f",clone=on,resume=on,set=[serial.file={self.dir}]")
        self.assertIn("Is a directory", log)
        self.assertEqual(sorted(p.name for p in self.dir.glob("disk*")),
                         ["disk0.img", "disk1.img"])

    def test_one_path_for_the_disks_of_two_gives_one_of_them_a_whole_disk(self):
        disk = self.make_disk("disk.img", 64 * MIB)
        self.frozen(disk=f"path={disk}").kill()
        with open(disk, "r+b") as image:
            stat = os.stat(disk)
            for at in range(MIB, 64 * MIB, MIB):
                image.seek(at)
                image.write(b"x" * MIB)
        os.utime(disk, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        mine = self.dir / "mine.img"
        vmms = [Vmm(self, f"clone{i}",
                    ["--restore", f"source_url=store:{self.dir}/store#warm,clone=on,resume=on,"
                                  f"set=[disks._disk0.path={mine}]"], wait_api=False)
                for i in range(3)]
        wait_until(lambda: sum(v.process.poll() is None for v in vmms) <= 1, 30,
                   "all but one to be refused")
        self.assertTrue(mine.exists())
        self.assertEqual(mine.read_bytes()[MIB:], disk.read_bytes()[MIB:])

    def test_huge_pages_that_there_are_not_are_refused(self):
        self.frozen().kill()
        log = self.refused(",set=[memory.hugepages=on,memory.hugepage_size=1G]")
        self.assertRegex(log, "memory: (this host has no|it takes 1) huge pages? of 1048576 KiB|"
                              "memory.hugepage_size")
        free = sum(int(p.read_text()) for p in
                   pathlib.Path("/sys/kernel/mm/hugepages").glob("*/free_hugepages"))
        if not free:
            self.assertIn("huge pages of", self.refused(",set=[memory.hugepages=on]"))

    def test_the_reason_is_said_where_a_clone_ends(self):
        disk = self.make_disk("disk.img", 8 * MIB)
        self.frozen(disk=f"path={disk}").kill()
        os.truncate(disk, 4 * MIB)
        error = self.chsnap("clone", "--dir", self.short / "c", "--set", "serial.socket=/nix/x",
                            self.dir / "store", "warm", code=1)
        self.assertIn("its size has changed", error)
        self.assertIn("serial.socket: /nix/x: No such file", error)

    def test_odd_paths_and_names(self):
        vmm = Vmm(self, "vm", vm_args())
        vmm.boot()
        create = ("create", "--api-socket", vmm.api_path)
        self.chsnap(*create, self.dir / "odd#store")
        self.assertEqual(len(json.loads(self.chsnap("list", "-j", self.dir / "odd#store"))), 1)
        self.assertFalse((self.dir / "odd").exists())
        self.assertIn("cannot be a name",
                      self.chsnap(*create, self.dir / "store", "a#b", code=2))
        self.assertEqual(list(self.dir.glob("store*")), [])  # nor is a store made for it
        self.chsnap(*create, self.dir / 'quo"te', "a")
        self.assertIn("with quotes", self.chsnap("clone", "--dir", self.short / "c",
                                                 self.dir / 'quo"te', "a", code=1))

    def test_the_id_that_is_printed_is_the_one_that_was_taken(self):
        vmm, other = (Vmm(self, name, vm_args()) for name in ("vm", "other"))
        for v in (vmm, other):
            v.boot()
        taken = [Background(self.chsnap, "create", "-j", "--api-socket", v.api_path,
                            self.dir / "store") for v in (vmm, other) for _ in range(1)]
        ids = {json.loads(t.result(60))["id"] for t in taken}
        self.assertEqual(ids, {v.get("vm.snapshot-progress")["id"] for v in (vmm, other)})

    def test_all_that_is_wrong_is_said_at_once(self):
        disk = self.make_disk("disk.img", 8 * MIB)
        self.frozen(disk=f"path={disk}").kill()
        os.truncate(disk, 4 * MIB)
        log = self.refused(",set=[cpus.boot_vcpus=9,disks.nobody.path=/x]")
        for text in ("cpus.boot_vcpus=9: cannot be changed", "no disks nobody",
                     "its size has changed"):
            self.assertIn(text, log)
            self.assertIn(text, log.rsplit("chain of errors", 1)[1])
        log = self.refused(",set=[serial.file=/nonexistent/log]")
        self.assertIn("serial.file: /nonexistent/log: No such file", log)
        self.assertIn("its size has changed", log)

    @staticmethod
    @contextlib.contextmanager
    def lock(path):
        """As another VM has it."""
        with open(path, "rb+") as image:
            fcntl.fcntl(image.fileno(), fcntl.F_OFD_SETLK,
                        struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            yield

    def test_disks_of_others_are_said_with_all_that_is_wrong(self):
        disks = [self.make_disk(f"disk{i}.img", 8 * MIB) for i in range(3)]
        self.frozen(disk=[f"path={d}" for d in disks]).kill()
        os.truncate(disks[1], 4 * MIB)
        with self.lock(disks[0]), self.lock(disks[2]):
            log = self.refused(",resume=on,set=[serial.file=/nonexistent/log]")
            for text in ("disk _disk0: ", "disk0.img is in use by another process", "disk2.img is in use by another process",
                         "its size has changed", "serial.file: /nonexistent/log: No such file"):
                self.assertIn(text, log.rsplit("chain of errors", 1)[1])
            # Nor does a clone begin to copy.
            own = self.make_disk("own.img", 8 * MIB)
            with self.lock(own):
                log = self.refused(f",clone=on,changed_disks=on,set=[disks._disk1.path={own}]")
            self.assertIn("own.img is in use by another process", log)
        self.assertEqual(sorted(p.name for p in self.dir.glob("disk*.img*")), [d.name for d in disks])

    def test_a_tap_of_another_vm_is_said_with_all_that_is_wrong(self):
        lane_base.need_root()
        ip = lane_base.need_tool("ip")
        tap = f"lane{os.getpid() % 100000}"
        vmm = self.frozen(net=f"tap={tap}")
        subprocess.run([ip, "link", "set", tap, "up"], check=True)
        log = self.refused(",resume=on,set=[serial.file=/nonexistent/log]")
        for text in (f"net _net0: tap {tap} is in use", "serial.file: /nonexistent/log: No such file"):
            self.assertIn(text, log.rsplit("chain of errors", 1)[1])
        vmm.kill()
        Vmm(self, "back", ["--restore", f"source_url=store:{self.dir}/store#warm,resume=on"]).wait_state("Running")

    def test_a_restore_that_stands_still_waits_for_its_disks(self):
        disk = self.make_disk("disk.img", 8 * MIB)
        self.frozen(disk=f"path={disk}").kill()
        with self.lock(disk):
            back = Vmm(self, "back", ["--restore", f"source_url=store:{self.dir}/store#warm"])
            back.wait_state("Paused")
            self.assertIn("disk.img is in use by another process: it cannot run on before that ends", back.log())
            back.refused("vm.resume")
            self.assertEqual(back.state(), "Paused")
        back.put("vm.resume")
        back.attach()
        back.guest.do("blk 0 verify 0 64 9", timeout_s=60)
        # Now it is its own.
        with self.assertRaises(OSError), self.lock(disk):
            pass

    def test_a_block_device_of_another_size_has_changed(self):
        lane_base.need_root()
        losetup = lane_base.need_tool("losetup")
        images = [self.make_disk(f"{mib}.img", mib * MIB) for mib in (8, 16)]
        loops = []
        for image in images:
            made = subprocess.run([losetup, "--find", "--show", image], capture_output=True, text=True, check=False)
            if made.returncode != 0:
                self.skipTest("no loop device: " + made.stderr.strip())
            loops.append(made.stdout.strip())
            self.addCleanup(subprocess.run, [losetup, "--detach", loops[-1]], check=True)
        self.frozen(disk=f"path={loops[0]}").kill()
        log = self.refused(f",resume=on,set=[disks._disk0.path={loops[1]}]")
        self.assertIn(f"disk _disk0 ({loops[1]}): its size is another than the snapshot's", log)
        back = Vmm(self, "back", ["--restore", f"source_url=store:{self.dir}/store#warm,resume=on"])
        back.wait_state("Running")
        back.attach()
        back.guest.do("blk 0 verify 0 64 9", timeout_s=60)

    def test_a_restore_may_change_the_host_s_side(self):
        disk = self.make_disk("disk.img", 8 * MIB)
        self.frozen(disk=f"path={disk}").kill()
        moved = disk.with_name("moved.img")
        disk.rename(moved)
        back = Vmm(self, "back", [
            "--restore", f"source_url=store:{self.dir}/store#warm,resume=on,"
            f"set=[disks._disk0.path={moved},memory.shared=on,serial.socket=other.sock]"])
        back.wait_state("Running")
        config = back.info()["config"]
        self.assertTrue(config["memory"]["shared"])
        self.assertEqual(config["disks"][0]["path"], str(moved))
        (back.dir / "other.sock").rename(back.dir / "serial.sock")
        back.attach()
        back.guest.do("verify", timeout_s=60)
        back.guest.do("blk 0 verify 0 64 9", timeout_s=60)


if __name__ == "__main__":
    lane_base.main()
