# SPDX-License-Identifier: Apache-2.0
"""One chvmm process: its command line, its API, its events, its guest."""

import datetime
import http.client
import json
import os
import re
import socket
import subprocess
import threading
import time

from lane_base import GUEST_ELF, program, wait_until
from lane_guest import Guest, Line


class ApiError(AssertionError):
    def __init__(self, request, status, chain):
        super().__init__(f"{request}: {status} {chain}")
        self.status = status
        self.chain = chain  # outermost first

    def names(self, text):
        return any(text in part for part in self.chain)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path, timeout_s):
        super().__init__("localhost", timeout=timeout_s)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def request(path, method, url, body=None, timeout_s=60):
    """One HTTP request.  Return: status, body bytes."""
    connection = _Connection(path, timeout_s)
    try:
        headers = {"Accept": "*/*"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, url, body=body, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def request_with_fds(path, name, body, fds):
    """A PUT whose file descriptors come with its first bytes.  Return: status, decoded body."""
    data = json.dumps(body).encode()
    head = (f"PUT /api/v1/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n").encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(60)
        sock.connect(str(path))
        socket.send_fds(sock, [head + data], fds)
        response = http.client.HTTPResponse(sock)
        response.begin()
        raw = response.read()
        return response.status, json.loads(raw) if raw else None


class Vmm:
    """
    Runs in a directory of its own, so that relative paths (serial.sock) of two processes with one
    configuration do not meet.  netns: the name of a network namespace to run in.  Arguments for all
    of them: $LANE_CHVMM_ARGS ("--seccomp log").  prefix: a command that execs the rest of its line.
    """

    def __init__(self, test, name, args=(), serial="socket", netns=None, line=None, wait_api=True,
                 pass_fds=(), prefix=()):
        self.test = test
        self.name = name
        self.dir = test.dir / name
        self.dir.mkdir()
        # The API socket has a short path, however long the build directory's name is.
        self.api_path = test.short / f"{name}.api"
        self.events_path = self.dir / "events.log"
        self.line = line or Line(self.dir / "serial.log")
        self.guest = Guest(self.line)
        self.serial = serial
        command = [program("chvmm"), "--api-socket", str(self.api_path),
                   "--event-monitor", f"path={self.events_path}", "-v",
                   *os.environ.get("LANE_CHVMM_ARGS", "").split(), *args]
        if serial and not any(a == "--serial" for a in args) and "--kernel" in args:
            command += ["--serial", {"socket": "socket=serial.sock", "pty": "pty"}[serial]]
        if "--kernel" in args and "--console" not in args:
            command += ["--console", "off"]
        if netns:
            command = ["ip", "netns", "exec", netns, *command]
        command = [*prefix, *command]
        self.command = command
        self.events_path.touch()
        self.stderr = open(self.dir / "chvmm.log", "wb")
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, cwd=self.dir, stdin=subprocess.DEVNULL,
                                        stdout=self.stderr, stderr=subprocess.STDOUT,
                                        pass_fds=pass_fds)
        test.addCleanup(self.close)
        if wait_api:
            wait_until(self._answers, 15, f"the API of {name}")

    # ---- the process

    @property
    def pid(self):
        return self.process.pid

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name}: chvmm ended with {self.process.returncode}: "
                                 f"{self.log()[-2000:]}")
        try:
            return request(self.api_path, "GET", "/api/v1/vmm.ping", timeout_s=5)[0] == 200
        except OSError:
            return False

    def log(self):
        return (self.dir / "chvmm.log").read_text(errors="replace")

    def logged_at(self, what):
        """Seconds of the wall clock, of the first line with it."""
        line = next(line for line in self.log().splitlines() if what in line)
        at = datetime.datetime.strptime(line.split()[0], "%Y-%m-%dT%H:%M:%S.%fZ")
        return at.replace(tzinfo=datetime.timezone.utc).timestamp()

    def is_running(self):
        return self.process.poll() is None

    def wait_exit(self, timeout_s=20):
        """Return: the exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name}: chvmm still runs after {timeout_s} s") from None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()
        self.line.close()
        self.stderr.close()

    # ---- the API

    def call(self, method, name, body=None, timeout_s=60):
        """Return: status and decoded body (None for none), whatever the status."""
        data = None if body is None else json.dumps(body).encode()
        try:
            status, raw = request(self.api_path, method, f"/api/v1/{name}", data, timeout_s)
        except (OSError, http.client.HTTPException) as error:
            time.sleep(0.1)
            raise AssertionError(f"{self.name}: {method} {name}: {error!r}; the process's exit "
                                 f"code is {self.process.poll()}") from None
        return status, json.loads(raw) if raw else None

    def _good(self, what, status, answer):
        if status >= 300:
            raise ApiError(what, status, answer if isinstance(answer, list) else [str(answer)])
        return answer

    def put(self, name, body=None, timeout_s=60):
        return self._good(f"PUT {name}", *self.call("PUT", name, body, timeout_s))

    def get(self, name):
        return self._good(f"GET {name}", *self.call("GET", name))

    def refused(self, name, body=None, method="PUT", timeout_s=60):
        """Return: the ApiError that this request must get."""
        status, answer = self.call(method, name, body, timeout_s)
        if status < 300:
            raise AssertionError(f"{method} {name}: answered {status}")
        return ApiError(f"{method} {name}", status, answer if isinstance(answer, list) else [])

    def info(self):
        return self.get("vm.info")

    def state(self):
        status, answer = self.call("GET", "vm.info")
        return answer["state"] if status == 200 else None

    def wait_state(self, state, timeout_s=20):
        wait_until(lambda: self.state() == state, timeout_s, f"{self.name}: state {state}")

    # ---- events

    def events(self):
        """All so far, as dicts."""
        decoder = json.JSONDecoder()
        text = self.events_path.read_text()
        events = []
        at = 0
        while True:
            match = re.compile(r"\s*").match(text, at)
            at = match.end()
            if at == len(text):
                return events
            try:
                event, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError:
                return events  # half written
            events.append(event)

    def event_names(self):
        return [e["event"] for e in self.events()]

    def wait_event(self, *names, timeout_s=30):
        """Return: the name, of these, that came first."""
        def look():
            return next((n for n in self.event_names() if n in names), None)
        return wait_until(look, timeout_s, f"{self.name}: event {' or '.join(names)}")

    # ---- the guest

    def attach(self, timeout_s=10):
        """Connects the line to the serial port."""
        if self.serial == "socket":
            wait_until(self.attach_now, timeout_s, f"the serial socket of {self.name}")
        elif self.serial == "pty":
            path = wait_until(lambda: self.info()["config"]["serial"].get("file"), timeout_s,
                              "the path of the pty")
            self.line.attach_path(path)

    def attach_now(self):
        """
        Return: whether the line could be joined.  The socket has a suffix in a clone, and in the
        destination of a move until it has taken over.
        """
        found = next(self.dir.glob("serial.sock*"), None)
        if found is None:
            return False
        link = self.test.short / f"{self.name}.dir"
        if not link.exists():
            link.symlink_to(self.dir)
        return self.line.attach_socket(link / found.name)

    def boot(self, timeout_s=30):
        self.attach()
        self.guest.wait_ready(timeout_s)
        return self.guest


def vm_args(memory="256M", cpus=1, kernel=GUEST_ELF, **more):
    """Command line of a VM with the test guest.  more: disk=..., net=[...], platform=..., etc."""
    args = ["--kernel", str(kernel), "--memory", f"size={memory}", "--cpus", f"boot={cpus}"]
    for name, value in more.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        args += ["--" + name.replace("_", "-"), *map(str, values)]
    return args


class Background:
    """A call in a thread; result() gives what it gave or raises what it raised."""

    def __init__(self, function, *args, **kwargs):
        self.value = None
        self.error = None
        self.thread = threading.Thread(target=self._run, args=(function, args, kwargs), daemon=True)
        self.thread.start()

    def _run(self, function, args, kwargs):
        try:
            self.value = function(*args, **kwargs)
        except Exception as error:  # pylint: disable=broad-except
            self.error = error

    def is_done(self):
        return not self.thread.is_alive()

    def wait(self, timeout_s=60):
        """Whatever the outcome."""
        self.thread.join(timeout_s)
        if self.thread.is_alive():
            raise AssertionError(f"still going after {timeout_s} s")

    def result(self, timeout_s=60):
        self.thread.join(timeout_s)
        if self.thread.is_alive():
            raise AssertionError(f"still going after {timeout_s} s")
        if self.error:
            raise self.error
        return self.value
