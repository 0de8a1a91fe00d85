# SPDX-License-Identifier: Apache-2.0
"""A virtual machine monitor inside an emulated host, driven from outside.

ChVmm is the program under test.  QemuVmm is a stock QEMU in the same place: it tells a fault of
the lane from a fault of ours, and is what the boot benchmark compares with.
"""

import dataclasses
import json
import re
import shlex
import time

from channel import PATIENCE
from host import MIGRATION_PORT, CommandFailed

QEMU_DIR = "/mnt/qemu"
TLS_DIR = "/run/tls"  # in a host


@dataclasses.dataclass
class Spec:
    """One guest: what its virtual machine is made of."""

    kernel: str
    memory_mib: int = 192
    disk: str = "/dev/by-serial/guest"
    tap: str = "tap0"
    mac: str = "52:54:00:09:01:0a"
    addr: str = "10.9.0.10/24"
    serial: str = "/run/guest.serial"  # a FIFO; it stays the VM's when that is restored or moved
    init: str = ""
    quiet: bool = True
    cpus: int = 1
    words: str = ""  # more for the kernel's command line
    extra: tuple = ()

    def cmdline(self):
        words = ["console=ttyS0", "panic=5"]
        words += ["quiet"] if self.quiet else []
        words += [f"nested.init={self.init}"] if self.init else []
        words += [f"nested.addr={self.addr}"] if self.tap else []
        words += [self.words] if self.words else []
        return " ".join(words)


class Vmm:
    """What both kinds share: one process in a host, with its serial port followed."""

    harmless = ()  # lines of the guest kernel's log that this kind is known for

    def __init__(self, host, name, spec):
        self.host = host
        self.name = name
        self.spec = spec
        self.serial = None
        self.pid = None
        self.socket = f"/run/{name}.sock"

    def _prepare(self):
        self.serial = self.host.follow(self.spec.serial)
        if self.spec.tap and not self.host.run(f"ls /sys/class/net | grep -x {self.spec.tap}",
                                               check=False):
            self.host.add_tap(self.spec.tap)

    def _launch(self, argv):
        """Starts the process as a daemon of the host; its exit status goes to /run/NAME.exit."""
        self._prepare()
        words = " ".join(shlex.quote(str(a)) for a in argv)
        run = f"/run/{self.name}"
        script = (f"rm -f {run}.exit {run}.pid; ( sh -c 'echo $$ >{run}.pid; exec \"$@\"' sh "
                  f"{words} >>{run}.out 2>&1 </dev/null; echo $? >{run}.exit ) "
                  f">/dev/null 2>&1 & while [ ! -s {run}.pid ]; do usleep 10000; done; "
                  f"cat {run}.pid")
        self.pid = int(self.host.run(script))

    def exited(self):
        """The exit status, or None while the process lives."""
        text = self.host.run(f"cat /run/{self.name}.exit 2>/dev/null", check=False).strip()
        return int(text) if text else None

    def wait_exit(self, timeout):
        deadline = time.monotonic() + timeout * PATIENCE
        while (status := self.exited()) is None:
            if time.monotonic() > deadline:
                raise CommandFailed(f"{self.name} did not end within {timeout:.0f} s")
            time.sleep(0.1)
        return status

    def kill(self):
        if self.exited() is None:
            self.host.run(f"kill -9 {self.pid}")
            self.wait_exit(10.0)

    def output(self):
        return self.host.run(f"tail -20 /run/{self.name}.out", check=False)


class ChVmm(Vmm):
    """chvmm under chctl and chsnap; the syntax of the three is Cloud Hypervisor's."""

    program = "chvmm"
    failures = 0  # moves that were logged as failed when the last began

    def _common(self):
        return ["/bin/chvmm", "--api-socket", self.socket, "--event-monitor",
                f"path=/run/{self.name}.events", "--log-file", f"/run/{self.name}.log", "-v"]

    def _guest_options(self):
        s = self.spec
        image = f"/images/{s.kernel}"
        argv = ["--cpus", f"boot={s.cpus}", "--memory", f"size={s.memory_mib}M",
                "--kernel", f"{image}.kernel", "--initramfs", f"{image}.initramfs",
                "--cmdline", s.cmdline(), "--serial", f"file={self.spec.serial}", "--console", "off",
                "--rng", "src=/dev/urandom"]
        argv += ["--disk", f"path={s.disk},direct=on,id=disk0"] if s.disk else []
        argv += ["--net", f"tap={s.tap},mac={s.mac},id=net0"] if s.tap else []
        return argv + list(s.extra)

    def timed_argv(self):
        """The command line with the guest's serial port on the standard output."""
        options = self._guest_options()
        options[options.index(f"file={self.spec.serial}")] = "tty"
        return ["/bin/chvmm", "--api-socket", self.socket, *options]

    def start(self):
        self._launch(self._common() + self._guest_options())

    def start_empty(self):
        """A VMM without a VM, for a restore or for a migration to come."""
        self._launch(self._common())
        self.wait_api()

    def wait_api(self, timeout=20.0):
        deadline = time.monotonic() + timeout * PATIENCE
        while True:
            try:
                return self.ctl("ping")
            except CommandFailed:
                if time.monotonic() > deadline or self.exited() is not None:
                    raise
                time.sleep(0.1)

    def ctl(self, *words, timeout=60.0):
        line = " ".join(shlex.quote(w) for w in words)
        return self.host.run(f"/bin/chctl --api-socket {self.socket} {line}", timeout)

    def info(self):
        return json.loads(self.ctl("info"))

    def state(self):
        return self.info()["state"]

    def runs(self):
        """Whether there is a VM in the process, and it runs."""
        try:
            return self.exited() is None and self.state() == "Running"
        except CommandFailed:
            return False

    def pause(self):
        self.ctl("pause")

    def resume(self):
        self.ctl("resume")

    def power_button(self):
        self.ctl("power-button")

    def shutdown_vmm(self):
        self.ctl("shutdown-vmm")
        return self.wait_exit(20.0)

    def snapshot(self, url):
        self.ctl("snapshot", url, timeout=120.0)

    def restore(self, url, resume=True):
        """In place of start(): the same VM from a snapshot."""
        self.start_empty()
        self.ctl("restore", f"source_url={url}" + (",resume=on" if resume else ""), timeout=120.0)

    def clone(self, url):
        """A VM of its own from a snapshot, running: its disk, tap and ids are made here."""
        self.start_empty()
        before = set(self.host.run("ls /sys/class/net").split())
        self.ctl("restore", f"source_url={url},clone=on", timeout=120.0)
        config = self.info()["config"]
        self.disk = config["disks"][0]["path"]
        self.serial = self.host.follow_file(config["serial"]["file"])
        self.resume()
        # The tap is there from now on, and the kernel has named it.
        for tap in set(self.host.run("ls /sys/class/net").split()) - before:
            self.host.run(f"ip link set {tap} up && brctl addif br0 {tap}")

    def identity(self):
        """What no two clones may share, as seen from outside."""
        config = self.info()["config"]
        return {"UUID": config["platform"]["system_uuid"], "MAC": config["net"][0]["mac"],
                "disk": config["disks"][0]["path"]}

    def receive(self, tls=None, addr=None):
        """Starts listening for a migration; the answer comes when that has ended."""
        if self.pid is None:
            self.start_empty()
        options = f"receiver_url=tcp:{addr or self.host.addr}:{MIGRATION_PORT}"
        options += f",tls_dir={tls}" if tls else ",insecure=on"
        run = f"/run/{self.name}"
        self.host.run(f"rm -f {run}.received; "
                      f"( /bin/chctl --api-socket {self.socket} receive-migration {options} "
                      f">{run}.receive 2>&1; echo $? >{run}.received ) >/dev/null 2>&1 </dev/null &")
        self._wait_listening()

    def _wait_listening(self):
        want = f":{MIGRATION_PORT:04X} "
        self.host.run(f"until grep -q '{want}.* 0A ' /proc/net/tcp; do usleep 50000; "
                      f"[ ! -s /run/{self.name}.received ] || {{ cat /run/{self.name}.receive; "
                      "exit 1; }; done", 30.0)

    def begin_send(self, target, tls=None, options="", where=None):
        """Starts to move the VM to @target, a Vmm that receives; returns while it goes on.
        @where: "host:port" of a relay that leads there.
        """
        url = f"destination_url=tcp:{where or f'{target.host.addr}:{MIGRATION_PORT}'}"
        url += f",tls_dir={tls}" if tls else ",insecure=on"
        self.failures = self._failures()
        self.ctl("send-migration", url + (f",{options}" if options else ""))

    def send(self, target, tls=None, options="", timeout=180.0):
        """Moves the VM to @target; returns when it runs there."""
        self.begin_send(target, tls, options)
        deadline = time.monotonic() + timeout * PATIENCE
        while (status := target.received()) is None:
            if time.monotonic() > deadline:
                raise CommandFailed(f"the migration did not end within {timeout:.0f} s")
            time.sleep(0.2)
            gone = self.exited()
            if self._failures() > self.failures:
                raise CommandFailed(f"the source: {self.own_account()}")
            if gone not in (None, 0):
                raise CommandFailed(f"the source VMM ended with {gone}: {self.output()}")
        if status:
            raise CommandFailed(f"receive-migration: status {status}: {target.receive_output()}")

    def wait_failed(self, timeout):
        """Waits until the source says of the move that began last that it failed; how it says it."""
        deadline = time.monotonic() + timeout * PATIENCE
        while self._failures() == self.failures:
            if time.monotonic() > deadline:
                raise CommandFailed(f"no failure within {timeout:.0f} s: {self.progress()}")
            time.sleep(0.2)
        return self.progress()

    def _failures(self):
        """How many moves the source has logged as failed."""
        return int(self.host.run("grep -c -E 'migration (failed|cancelled|undecided) after' "
                                 f"/run/{self.name}.log", check=False))

    def received(self):
        """What receive-migration ended with; None while it waits."""
        text = self.host.run(f"cat /run/{self.name}.received 2>/dev/null", check=False)
        return int(text) if text.strip() else None

    def receive_output(self):
        return self.host.run(f"cat /run/{self.name}.receive", check=False)

    def progress(self):
        """What either end answers about the migration that goes on, or about the last."""
        return json.loads(self.ctl("migration-progress"))

    def own_account(self):
        """What the source logged of the last move."""
        line = self.host.run(f"grep 'migration.*blackout' /run/{self.name}.log", check=False)
        return line.strip().rpartition("migration ")[2]


class QemuVmm(Vmm):
    """QEMU with -accel kvm from a disk of the host; @machine is q35 or microvm."""

    program = "qemu"
    machine = "q35"
    session = None
    account = ""
    # It stops one of TSC and kvmclock, not both, while the guest is stopped.
    harmless = ("hpet: Lost", "clocksource", "Marking TSC unstable")

    def _prepare(self):
        super()._prepare()
        self._mount()

    def _mount(self):
        self.host.run(f"mkdir -p {QEMU_DIR}; [ -x {QEMU_DIR}/qemu ] || "
                      f"mount -t ext4 -o ro /dev/by-serial/qemu {QEMU_DIR}")

    def timed_argv(self):
        """The command line with the guest's serial port on the standard output."""
        self._mount()
        return self.argv("stdio")

    def argv(self, serial):
        s = self.spec
        image = f"/images/{s.kernel}"
        argv = [f"{QEMU_DIR}/lib/ld-linux-x86-64.so.2", "--library-path", f"{QEMU_DIR}/lib",
                f"{QEMU_DIR}/qemu", "-L", f"{QEMU_DIR}/firmware", "-nodefaults",
                "-no-user-config", "-display", "none", "-M", self.machine, "-accel", "kvm",
                "-cpu", "host", "-smp", s.cpus, "-m", s.memory_mib,
                "-kernel", f"{image}.kernel", "-initrd", f"{image}.initramfs",
                "-append", s.cmdline(), "-serial", serial]
        bus = "device" if self.machine.startswith("microvm") else "pci"
        if s.disk:
            argv += ["-drive", f"file={s.disk},format=raw,if=none,id=d,cache=none,"
                               "file.locking=off",
                     "-device", f"virtio-blk-{bus},drive=d"]
        if s.tap:
            argv += ["-netdev", f"tap,id=n,ifname={s.tap},script=no,downscript=no,vhost=off",
                     "-device", f"virtio-net-{bus},netdev=n,mac={s.mac}"
                                + (",romfile=" if bus == "pci" else "")]
        return argv

    def start(self, *more):
        self._launch(self.argv(f"file:{self.spec.serial}")
                     + ["-qmp", f"unix:{self.socket},server=on,wait=off", *self._identity(), *more])

    def _identity(self):
        return ["-device", "vmgenid,guid=auto"] if self.machine == "q35" else []

    def qmp(self, *commands, timeout=20.0):
        """Runs QMP commands, in the one session that a VMM has; the last answer."""
        deadline = time.monotonic() + timeout * PATIENCE
        if not self.session:
            commands = ({"execute": "qmp_capabilities"}, *commands)
            self.session = self.host.connect(f"unix:{self.socket}", timeout)
        for command in commands:
            self.session.write(json.dumps(command).encode() + b"\n")
        text = ""
        while len(found := _answers(text)) < len(commands):
            data = self.session.read(deadline - time.monotonic())
            if data is None:
                raise CommandFailed(f"{self.name}: QMP closed: {self.output()}")
            text += data.decode()
        if "error" in found[-1]:
            raise CommandFailed(f"{self.name}: {found[-1]['error']}")
        return found[-1]["return"]

    def _migrate(self, uri, timeout=180.0):
        self.qmp({"execute": "migrate-set-parameters",
                  "arguments": {"max-bandwidth": 1 << 30, "downtime-limit": 300}},
                 {"execute": "migrate", "arguments": {"uri": uri}})
        deadline = time.monotonic() + timeout * PATIENCE
        while (answer := self.qmp({"execute": "query-migrate"}))["status"] != "completed":
            if answer["status"] == "failed" or time.monotonic() > deadline:
                raise CommandFailed(f"{self.name}: migration {answer}")
            time.sleep(0.2)
        self.account = f"completed, downtime {answer.get('downtime', 0)} ms"

    def own_account(self):
        return self.account

    def state(self):
        return "Running" if self.qmp({"execute": "query-status"})["running"] else "Paused"

    def pause(self):
        self.qmp({"execute": "stop"})

    def resume(self):
        self.qmp({"execute": "cont"})

    def power_button(self):
        self.qmp({"execute": "system_powerdown"})

    def shutdown_vmm(self):
        self.qmp({"execute": "quit"})
        return self.wait_exit(20.0)

    def snapshot(self, url):
        self._migrate(f"exec:cat >{_file_of(url)}")

    def restore(self, url, resume=True):
        self.start("-S", "-incoming", f"exec:cat {_file_of(url)}")
        while self.qmp({"execute": "query-status"})["status"] == "inmigrate":
            time.sleep(0.2)
        if resume:
            self.resume()

    def receive(self, tls=None):
        del tls
        self.start("-incoming", f"tcp:{self.host.addr}:{MIGRATION_PORT}")
        self.qmp({"execute": "query-status"})

    def send(self, target, tls=None, options="", timeout=180.0):
        del tls, options
        self._migrate(f"tcp:{target.host.addr}:{MIGRATION_PORT}", timeout)
        self.shutdown_vmm()


def _answers(text):
    """The answers among complete QMP lines; events and the greeting are left out."""
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    return [line for line in lines if "return" in line or "error" in line]


def _file_of(url):
    """QEMU keeps one file for what is a name in a store."""
    return re.sub(r"[#:]", "_", url.partition(":")[2]) + ".qemu"
