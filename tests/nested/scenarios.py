# SPDX-License-Identifier: Apache-2.0
"""What a stock Debian guest goes through under our VMM in a stock Debian host.

A scenario is a function of one Run; it fails by raising.  Its decorator says how many hosts it
needs and whether it belongs to the short lane or to the long one.
"""

import dataclasses
import json
import re
import secrets
import subprocess
import time

import borders
from channel import PATIENCE
from debugger import find_crash
from guest import (BOOT_TIMEOUT, CLONE_LOADS, Guest, bad_lines, check_crashed_disk,
                   check_filesystem, check_records, need)
from host import HOST_RAM_MIB, RELAY_HERE, Lane
from packages import Skip, tool
from vmm import TLS_DIR, ChVmm, QemuVmm, Spec

SCENARIOS = {}
# What the emulation makes of a move: encryption at a few MB/s beside a busy guest.  A stop of
# seconds is allowed, and wanted rather than a move without end.
MOVE_OPTIONS = "downtime_ms=1000,timeout_s=300,timeout_strategy=ignore"
# A move that is still in its first round when something is done to it.
SLOW_OPTIONS = "bandwidth=2M,connections=2,timeout_s=600"
SLOW_PAGES = 500
NOTICE_S = 20.0  # a dead peer is noticed after 10 s, docs/migration-protocol.md 7
BLACKOUT_MAX_MS = 15000
WALL_JUMP_MAX_MS = 400
# Where so many guests take turns on one emulated processor, the thread that sends for one of them
# may have to wait for five seconds, and reading two clocks one after the other takes so long that
# the kernel gives up comparing them; a clock that is wrong has a line of its own.  That the network
# goes on is checked with every load; the loads leave something of the processor to the next clone.
CROWD = 4
CROWD_SLOWER = 40
CROWD_HARMLESS = ("NETDEV WATCHDOG", "TX timeout on queue", "DL replenish lagged",
                  "Marking TSC unstable due to clocksource watchdog")
# ACPI is what says that there is no keyboard.  Two vCPUs take turns on the one emulated processor.
NO_ACPI_HARMLESS = ("i8042", "TSCs unsynchronized")


@dataclasses.dataclass
class Scenario:
    """One entry of the list that run prints."""

    name: str
    function: object
    hosts: int
    long: bool
    ram_mib: int
    generic: bool  # it wants Debian's generic kernel too
    relay: bool  # moves pass through this machine

    @property
    def summary(self):
        return self.function.__doc__.strip().splitlines()[0]


def scenario(name, hosts=1, long=False, ram_mib=HOST_RAM_MIB, generic=False, relay=False):
    def register(function):
        SCENARIOS[name] = Scenario(name, function, hosts, long, ram_mib, generic, relay)
        return function
    return register


class Run:
    """One run of one scenario: the lane, the kind of VMM, and what was measured."""

    def __init__(self, images, lane, vmm_class):
        self.images = images
        self.lane = lane
        self.vmm_class = vmm_class
        self.figures = []
        self.start = time.monotonic()
        self.kernels = list(images.guest_kernels)
        self.kernel = self.kernels[0]

    @property
    def hosts(self):
        return self.lane.hosts

    def step(self, text):
        """Says it, with the seconds since the start: on the clock, and of emulation."""
        took = sum(host.cpu_seconds() for host in self.hosts)
        print(f"  {time.monotonic() - self.start:6.1f} s {took:6.1f} s  {text}", flush=True)

    def figure(self, name, value, unit):
        self.figures.append((name, value, unit))
        self.step(f"{name}: {value:.0f} {unit}")

    def install_certificates(self):
        """For both ends of a move, in TLS_DIR of each host."""
        for host in self.hosts:
            host.run(f"mkdir -p {TLS_DIR}")
            for path in self.images.certificates(RELAY_HERE).glob("*.pem"):
                if path.name != "ca-key.pem":
                    host.put(f"{TLS_DIR}/{path.name}", path.read_bytes())

    def vmm(self, host, name, spec):
        return self.vmm_class(host, name, spec)

    def boot(self, vmm, observer=None):
        """From nothing to a guest that answers on its network."""
        began = time.monotonic()
        vmm.start()
        vmm.serial.wait("guest: init", BOOT_TIMEOUT)
        self.figure(f"boot of {vmm.spec.kernel} to its init", (time.monotonic() - began) * 1e3,
                    "ms")
        vmm.serial.wait("guest: up", BOOT_TIMEOUT)
        guest = Guest(observer or vmm.host)
        guest.connect()
        return guest

    def start_loads(self, guest, slower=1):
        """Starts every load and waits until each has gone on; their status."""
        guest.start_loads(slower)
        now = guest.check_loads(guest.check_loads())
        bits = 256 if self.images.emulator.xsave else 128
        need(now["vector"]["bits"] == bits, f"no vectors of {bits} bits: {now['vector']}")
        self.step("all loads go on")
        return now

    def wall_jump(self, guest, before):
        """By how many ms the guest's wall clock moved against this machine's: (least, most)."""
        now = guest.wall_offset_ms()
        least, most = now[0] - before[1], now[1] - before[0]
        self.step(f"wall clock against this machine's, since the start: {least:.0f} to {most:.0f} ms")
        return least, most

    def power_off(self, vmm, guest):
        """The guest ends by itself, and its VMM with status 0."""
        guest.power_off()
        vmm.serial.wait("guest: stopped", 60.0)
        status = vmm.wait_exit(60.0)
        need(status == 0, f"the VMM ended with status {status}: {vmm.output()}")

    def check_generations(self, guest, expected):
        """How often the guest's kernel was told of a new generation id, where it can be told."""
        if self.images.guest_kernels[self.kernel].has("VMGENID"):
            told = int(guest.run("dmesg | grep -c 'reseeded due to virtual machine fork'",
                                 check=False))
            need(told == expected, f"told {told} times of a new generation id, not {expected}")

    def check_warnings(self, guest, harmless=()):
        bad = guest.warnings((*self.vmm_class.harmless, *harmless))
        need(not bad, "the guest's kernel complains:\n" + "\n".join(bad[:20]))


@scenario("boot")
def boot(run):
    """Each Debian kernel boots to its init and powers off."""
    host = run.hosts[0]
    for kernel in run.kernels:
        vmm = run.vmm(host, "boot", Spec(kernel=kernel, disk="", tap="", init="poweroff"))
        began = time.monotonic()
        vmm.start()
        vmm.serial.wait("guest: init", BOOT_TIMEOUT)
        run.figure(f"boot of {kernel} to its init", (time.monotonic() - began) * 1e3, "ms")
        log = [line.removeprefix("guest: log ")
               for line in vmm.serial.wait("guest: log ends", 30.0).splitlines()
               if line.startswith("guest: log <")]
        bad = bad_lines("\n".join(log), vmm.harmless)
        need(not bad, f"the kernel {kernel} complains: {bad}")
        status = vmm.wait_exit(30.0)
        need(status == 0, f"power off: the VMM ended with status {status}: {vmm.output()}")
        run.step(f"{kernel}: powered off")


@scenario("no_acpi", long=True, generic=True)
def no_acpi(run):
    """A kernel without ACPI finds two processors, a disk and a network by the MP table and PCI."""
    if not run.images.generic:
        raise Skip("no generic Debian kernel: the package registry is out of reach")
    spec = Spec(kernel="generic", cpus=2, words="acpi=off")
    vmm = run.vmm(run.hosts[0], "no_acpi", spec)
    guest = run.boot(vmm)
    need(guest.run("nproc").strip() == "2", "not two processors")
    log = guest.run("dmesg")
    for text in ("Intel MultiProcessor Specification", "Processors: 2"):
        need(text in log, f"not in the log: {text}")
    need("ACPI: Interpreter enabled" not in log, "ACPI is on all the same")
    serial = guest.run("grep ttyS0 /proc/interrupts")
    need("IO-APIC" in serial, f"the serial port's interrupt: {serial}")
    guest.check_loads(run.start_loads(guest))
    guest.check_peer()
    run.check_warnings(guest, NO_ACPI_HARMLESS)
    guest.run("reboot", check=False)
    vmm.serial.wait("guest: stopped", 60.0)
    vmm.serial.wait("guest: up", BOOT_TIMEOUT)
    run.step("rebooted")
    vmm.kill()


@scenario("life")
def life(run):
    """A guest with a disk and a network: loads, serial port, reboot, power button."""
    vmm = run.vmm(run.hosts[0], "life", Spec(kernel=run.kernel))
    guest = run.boot(vmm)
    run.check_warnings(guest)

    before = run.start_loads(guest)
    vmm.pause()
    need(vmm.state() == "Paused", f"state after pause: {vmm.state()}")
    time.sleep(2.0)
    vmm.resume()
    after = guest.check_loads(before)
    guest.check_peer()
    run.step(f"loads went on across a pause: {after['disk']['acked']} records, "
             f"{after['tcp']['messages']} messages")
    run.check_warnings(guest)

    guest.run("reboot", check=False)
    vmm.serial.wait("guest: stopped", 60.0)
    vmm.serial.wait("guest: up", BOOT_TIMEOUT)
    guest.connect()
    run.step("rebooted")
    run.check_warnings(guest)
    acked = after["disk"]["acked"]

    vmm.power_button()
    vmm.serial.wait("guest: power button", 30.0)
    vmm.serial.wait("guest: stopped", 60.0)
    status = vmm.wait_exit(60.0)
    need(status == 0, f"the VMM ended with status {status}: {vmm.output()}")
    check_filesystem(run.lane.disk)
    check_records(run.lane.disk, acked)
    run.step("ended by the power button, file system clean, every record there")


@scenario("freeze")
def freeze(run):
    """Pause, snapshot, end of the VMM, restore: nothing in the guest notices."""
    host = run.hosts[0]
    url = "store:/scratch/store#frozen"
    vmm = run.vmm(host, "freeze", Spec(kernel=run.kernel))
    guest = run.boot(vmm)
    before = run.start_loads(guest)

    for turn in range(2):
        vmm.pause()
        began = time.monotonic()
        vmm.snapshot(f"{url}{turn}")
        run.figure("snapshot", (time.monotonic() - began) * 1e3, "ms")
        vmm.shutdown_vmm()
        vmm = run.vmm(host, f"thaw{turn}", vmm.spec)
        began = time.monotonic()
        vmm.restore(f"{url}{turn}")
        run.figure("restore", (time.monotonic() - began) * 1e3, "ms")
        before = guest.check_loads(before)
        guest.check_peer()
        run.check_generations(guest, turn + 1)
        run.check_warnings(guest)
    run.step(f"loads went on: {before}")

    run.power_off(vmm, guest)
    check_filesystem(run.lane.disk)
    check_records(run.lane.disk, before["disk"]["acked"])
    run.step("powered off, file system clean, every record there")


def _store_out_of(run, host, path):
    """A store on a host's scratch disk, copied out of it."""
    host.run("sync && umount /scratch")
    subprocess.run(["debugfs", "-R", f"rdump /{path} {run.lane.run_dir}",
                    str(run.lane.run_dir / f"{host.name}.scratch")], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})
    return run.lane.run_dir / path


def _check_crash(run, said, guest_said):
    """What crash found in a core file, and what the guest and its device state say."""
    need("CPUS: 2" in said["sys"], f"crash sys: {said['sys']}")
    need(f"RELEASE: {run.images.guest_kernels[run.kernel].release}" in said["sys"], said["sys"])
    for pid, name in guest_said["processes"].items():
        need(re.search(rf"^>?\s+{pid}\s.*\s{name}$", said["ps"], re.M),
             f"no process {pid}, {name}:\n{said['ps']}")
    need(guest_said["mark"] in said["log"], f"the log lacks its last line:\n{said['log'][-500:]}")
    need("entry_SYSCALL_64" in said["bt 1"], f"the stack of init:\n{said['bt 1']}")
    need("bt: " not in said["bt -a"], f"stacks of the processors:\n{said['bt -a']}")
    need(len(guest_said["rip"]) == 2, f"{len(guest_said['rip'])} processors in the state")
    for rip in guest_said["rip"]:
        need(f"RIP: {rip:016x}" in said["bt -a"], f"no RIP {rip:016x}:\n{said['bt -a']}")


@scenario("crash_dump", long=True)
def crash_dump(run):
    """A snapshot of a guest at work as a core file: crash shows processes, log and stacks."""
    if run.vmm_class is not ChVmm:
        raise Skip("only chvmm makes snapshots for chsnap")
    crash = find_crash(run.images.root)
    vmlinux = run.images.symbols(run.images.guest_kernels[run.kernel])
    run.step(f"{crash}, {vmlinux.name}")
    host = run.hosts[0]
    vmm = run.vmm(host, "crash_dump", Spec(kernel=run.kernel, cpus=2))
    guest = run.boot(vmm)
    run.start_loads(guest)
    mark = f"the last line {secrets.token_hex(8)}"
    guest.run(f"echo {mark} >/dev/kmsg")
    names = ("load_memory", "load_disk", "load_vector")
    processes = {int(guest.run(f"pidof {name}")): name for name in names}
    vmm.pause()
    vmm.snapshot("store:/scratch/store#dump")
    store = _store_out_of(run, host, "store")
    vmm.kill()
    run.step("snapshot taken, store copied out of the host")

    chsnap = run.images.build / "chsnap"
    core = run.lane.run_dir / "core"
    tool(chsnap, "dump", "--elf", "-o", core, store, "dump")
    state = json.loads(tool(chsnap, "show", "--state", store, "dump"))
    rip = [s["fields"]["regs"]["fields"]["rip"] for s in state if s["type"] == "x86-vcpu"]
    said = crash.ask(vmlinux, core, ("sys", "ps", "log", "bt 1", "bt -a"))
    _check_crash(run, said, {"processes": processes, "mark": mark, "rip": rip})
    tasks = len(re.findall(r"^>?\s+\d+\s", said["ps"], re.M))
    run.step(f"crash shows {tasks} processes, the log to its last line, a stack for each processor "
             f"from {', '.join(f'{r:x}' for r in rip)}")


class Clone:
    """One of several VMs from one snapshot, all running; reached at the address that it took."""

    def __init__(self, run, number, count, spec, url):
        self.run = run
        self.number = number
        self.harmless = CROWD_HARMLESS if count >= CROWD else ()
        self.vmm = run.vmm(run.hosts[0], f"clone{number}", spec)
        self.vmm.clone(url)
        self.vmm.serial.wait("guest: now", 60.0 * count)
        outside = self.vmm.identity()
        octets = [int(part, 16) for part in outside["MAC"].split(":")[3:]]
        address = "10.{}.{}.{}".format(*octets)
        self.guest = Guest(run.hosts[0], address, count)
        self.guest.connect()
        inside = self.guest.identity()
        need(inside["address"] == f"{address}/8" and inside["MAC inside"] == outside["MAC"],
             f"clone {number} is {outside} to us and {inside} to itself")
        self.identity = outside | inside
        run.step(f"clone {number}: {outside['MAC']} {address}, generation id "
                 f"{inside['generation id']}, random {inside['getrandom'][:16]}...")

    def check(self, parent, before=None):
        """It goes on with what the parent had in memory and on its disk."""
        now = self.guest.check_loads(before, names=CLONE_LOADS)
        need(now["memory"]["expected"] == parent["memory"]["expected"]
             and now["disk"]["acked"] > parent["disk"]["acked"],
             f"clone {self.number}: {now}, of the parent {parent}")
        self.run.check_generations(self.guest, 1)
        self.run.check_warnings(self.guest, self.harmless)
        need(self.vmm.state() == "Running", f"clone {self.number}: {self.vmm.state()}")
        return now

    def end(self):
        """Powers it off and looks at its disk."""
        acked = self.guest.loads(("disk",))["disk"]["acked"]
        self.run.power_off(self.vmm, self.guest)
        disk = self.run.lane.disk
        self.run.hosts[0].run(f"dd if={self.vmm.disk} of=/dev/by-serial/guest bs=1M 2>/dev/null; "
                              "sync", 60.0)
        check_filesystem(disk)
        check_records(disk, acked)
        self.run.step(f"clone {self.number}: {acked} records there, file system clean")


def _clones(run, count):
    """One warm snapshot, @count VMs from it that run at once."""
    if run.vmm_class is not ChVmm:
        raise Skip("only chvmm makes clones: QEMU gives each the MAC of the original")
    host = run.hosts[0]
    url = "store:/scratch/store#parent"
    vmm = run.vmm(host, "parent", Spec(kernel=run.kernel, disk="/scratch/parent.ext4"))
    host.run("cp /dev/by-serial/guest /scratch/parent.ext4", 60.0)
    guest = run.boot(vmm)
    parent = run.start_loads(guest, CROWD_SLOWER if count >= CROWD else 1)
    guest.run("/etc/renew >/run/renew.out 2>&1 </dev/null &")
    identities = [vmm.identity() | guest.identity()]
    vmm.pause()
    vmm.snapshot(url)
    vmm.shutdown_vmm()
    host.run("brctl delif br0 tap0")

    clones = [Clone(run, number + 1, count, vmm.spec, url) for number in range(count)]
    before = [c.check(parent) for c in clones]
    for clone, then in zip(clones, before):
        clone.check(parent, then)
    run.step(f"{count} clones run at once, each with the memory and the disk of the parent")
    identities += [c.identity for c in clones]
    for key in identities[0]:
        values = [i[key] for i in identities]
        need(len(set(values)) == len(values), f"{key} is shared: {values}")
    run.step(f"parent and clones differ in {', '.join(identities[0])}")
    for clone in clones:
        clone.end()


@scenario("clone")
def clone_three(run):
    """Three clones of one snapshot at once: own identity, own disk, same memory."""
    _clones(run, 3)


@scenario("clone_ten", long=True, ram_mib=4096)
def clone_ten(run):
    """Ten clones of one snapshot at once."""
    _clones(run, 10)


class Traveller:
    """A guest under every load that moves between the two hosts; observed from the first."""

    def __init__(self, run):
        self.run = run
        self.moves = 0
        self.vmm = run.vmm(run.hosts[0], "move0", Spec(kernel=run.kernel))
        self.begin(self.vmm)

    def begin(self, vmm):
        """Boots it there."""
        self.vmm = vmm
        self.guest = self.run.boot(vmm, observer=self.run.hosts[0])
        self.status = self.run.start_loads(self.guest)
        self.offset = self.guest.wall_offset_ms()

    def next_vmm(self):
        """A VMM on the host where the guest is not."""
        self.moves += 1
        there = self.run.hosts[1 - self.run.hosts.index(self.vmm.host)]
        return self.run.vmm(there, f"move{self.moves}", self.vmm.spec)

    def move(self, tls=None, lanes=0, target=None):
        """To the other host, where it must be as it was."""
        target = target or self.next_vmm()
        target.receive(tls)
        self.guest.new_clock_window()
        self.run.step(f"move {self.moves} begins")
        began = time.monotonic()
        self.vmm.send(target, tls, MOVE_OPTIONS + (f",connections={lanes}" if lanes else ""))
        kind = ("TLS" if tls else "tcp") + (f", {lanes} lanes" if lanes else "")
        self.run.figure(f"move {self.moves} ({kind})", (time.monotonic() - began) * 1e3, "ms")
        self.run.step(self.vmm.own_account())
        self.vmm = target
        need(target.state() == "Running", f"state at the destination: {target.state()}")
        if isinstance(target, ChVmm):
            how = target.progress()
            need(how["encrypted"] == bool(tls) and how["lanes"] == (lanes or how["lanes"]),
                 f"it was to move by {kind}: {how}")
        self._check_clocks()
        self.check()

    def check(self):
        """Every load went on, unharmed, since the last look; so did the peer of its connection."""
        self.status = self.guest.check_loads(self.status)
        self.guest.check_peer()
        self.run.check_warnings(self.guest)

    def _check_clocks(self):
        clock = self.guest.check_loads(self.status)["clock"]
        self.run.figure("blackout by the guest's clock", clock["worst_gap_ms"], "ms")
        need(clock["worst_gap_ms"] <= BLACKOUT_MAX_MS, f"blackout: {clock}")
        need(clock["worst_drift_ms"] <= WALL_JUMP_MAX_MS,
             f"wall and monotonic clock drifted apart: {clock}")
        least, most = self.run.wall_jump(self.guest, self.offset)
        need(least <= WALL_JUMP_MAX_MS and most >= -WALL_JUMP_MAX_MS,
             f"the wall clock moved by {least:.0f} to {most:.0f} ms")

    def end(self):
        """Powers it off; its disk must hold what it was told is durable."""
        peer = self.guest.check_peer()
        self.run.check_generations(self.guest, 0)
        acked = self.guest.check_loads()["disk"]["acked"]
        self.run.power_off(self.vmm, self.guest)
        check_filesystem(self.run.lane.disk)
        check_records(self.run.lane.disk, acked)
        self.run.step(f"powered off, file system clean, {acked} records there, one TCP connection "
                      f"with {peer['messages']} messages")


def _migrations(run, turns, tls_turns=(), netem="", lanes=0):
    """Moves the guest to and fro between the hosts, with every load running."""
    if tls_turns:
        run.install_certificates()
    if netem:
        for host in run.hosts:
            host.run(f"/usr/sbin/tc qdisc add dev eth0 root netem {netem}")
    guest = Traveller(run)
    for turn in range(turns):
        guest.move(TLS_DIR if turn in tls_turns else None, lanes)
    guest.end()


@scenario("migrate", hosts=2)
def migrate(run):
    """There and back by mutual TLS, with memory, disk, clock, vector and TCP loads."""
    _migrations(run, 2, tls_turns=(0, 1))


@scenario("migrate_ten", hosts=2, long=True)
def migrate_ten(run):
    """Ten moves to and fro, every other one by mutual TLS."""
    _migrations(run, 10, tls_turns=range(1, 10, 2))


@scenario("migrate_fifty", hosts=2, long=True)
def migrate_fifty(run):
    """Fifty moves to and fro by mutual TLS with two lanes."""
    _migrations(run, 50, tls_turns=range(50), lanes=2)


@scenario("migrate_poor_link", hosts=2, long=True)
def migrate_poor_link(run):
    """There and back over a link with 20 ms delay, jitter and loss."""
    _migrations(run, 2, netem="delay 20ms 5ms loss 0.1%")


def _begin_slow_move(guest, target):
    """Returns in the middle of a move: pages are there, and many are to come."""
    target.receive(TLS_DIR)
    guest.vmm.begin_send(target, TLS_DIR, SLOW_OPTIONS)
    deadline = time.monotonic() + 30.0 * PATIENCE
    while True:
        now = guest.vmm.progress()
        if now["phase"] == "rounds" and now["data_pages"] >= SLOW_PAGES:
            return
        need(now["phase"] in ("connect", "prepare", "rounds") and time.monotonic() < deadline,
             f"not in the middle of a move: {now}")
        time.sleep(0.2)


def _wait_given_up(run, target):
    """Until the destination has ended its part of a move, without a VM."""
    deadline = time.monotonic() + NOTICE_S * PATIENCE
    while (status := target.received()) is None:
        need(time.monotonic() < deadline, f"the destination waits on: {target.progress()}")
        time.sleep(0.2)
    need(status and not target.runs(), f"the destination: {status}, {target.receive_output()}")
    run.step(f"the destination: {target.receive_output().split(':')[-1].strip()}")


def _goes_on_here(run, guest, target):
    """The source noticed, and its guest alone runs, with every load."""
    how = guest.vmm.wait_failed(NOTICE_S)
    need(how["result"] == "failed" and guest.vmm.runs() and not target.runs(),
         f"exactly one is to run, here: {how}")
    run.step(f"the source: {how['error']}")
    guest.check()


@scenario("migrate_faults", hosts=2, long=True)
def migrate_faults(run):
    """Link cut, destination killed, source killed, each amid a move by TLS; then again."""
    if run.vmm_class is not ChVmm:
        raise Skip("only chvmm is told how a move ended")
    run.install_certificates()
    b = run.hosts[1]
    guest = Traveller(run)

    target = guest.next_vmm()
    _begin_slow_move(guest, target)
    b.run("ip link set eth0 down")
    _goes_on_here(run, guest, target)
    _wait_given_up(run, target)
    b.run("ip link set eth0 up")
    run.step("link cut: one guest runs; now again, to the same process")
    guest.move(TLS_DIR, 2, target)

    target = guest.next_vmm()
    _begin_slow_move(guest, target)
    target.kill()
    _goes_on_here(run, guest, target)
    run.step("destination killed: one guest runs; now again, to another process")
    guest.move(TLS_DIR, 2)

    target = guest.next_vmm()
    _begin_slow_move(guest, target)
    acked = guest.guest.loads(("disk",))["disk"]["acked"]
    guest.vmm.kill()
    _wait_given_up(run, target)
    said = json.loads(target.ctl("migration-resolve"))
    need(said["outcome"] == "never", f"the destination says {said}")
    check_crashed_disk(run.lane.disk, acked)
    run.step(f"source killed: the destination never starts it, {acked} records on the disk")
    target.shutdown_vmm()
    guest.begin(guest.next_vmm())
    run.step("booted on the other host; now again")
    guest.move(TLS_DIR, 2)
    guest.end()


@scenario("migrate_decision", hosts=2, relay=True)
def migrate_decision(run):
    """Link cut, either end killed, where it is decided whose the guest is."""
    borders.at_decision(run)


@scenario("migrate_cuts", hosts=2, long=True, relay=True)
def migrate_cuts(run):
    """Link cut at the border of every message; each time another attempt succeeds."""
    borders.everywhere(run, borders.cut_at)


@scenario("migrate_cuts_tls", hosts=2, long=True, relay=True)
def migrate_cuts_tls(run):
    """Link cut at the border of every TLS record; each time another attempt succeeds."""
    borders.at_records(run)


@scenario("migrate_kills", hosts=2, long=True, relay=True)
def migrate_kills(run):
    """Destination, then source killed at the border of every message."""
    borders.everywhere(run, borders.kill_target_at, borders.kill_source_at)


def run_scenario(entry, images, run_dir, vmm_name):
    """Runs one; returns its figures."""
    vmm_class = {"chvmm": ChVmm, "qemu": QemuVmm}[vmm_name]
    with Lane(images, run_dir, entry.hosts, vmm_class is QemuVmm, entry.ram_mib,
              entry.relay) as lane:
        run = Run(images, lane, vmm_class)
        run.step(f"{entry.hosts} host{'s' if entry.hosts > 1 else ''} up")
        entry.function(run)
        took = " and ".join(f"{host.cpu_seconds():.0f}" for host in lane.hosts)
        run.step(f"the emulation took {took} s of processor time")
        return run.figures


