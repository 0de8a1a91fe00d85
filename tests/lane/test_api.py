# SPDX-License-Identifier: Apache-2.0
"""The API's answers to what is wrong."""

import json
import os

import lane_base
from lane_base import GUEST_ELF, MIB, LaneTest
from lane_tls import Authority
from lane_vmm import Background, Vmm, request, vm_args

GOOD = {"payload": {"kernel": str(GUEST_ELF)}, "memory": {"size": 128 * MIB},
        "serial": {"mode": "Null"}, "console": {"mode": "Off"}}


class ApiTest(LaneTest):
    def setUp(self):
        super().setUp()
        self.vmm = Vmm(self, "vm")

    def raw(self, method, path, body=None):
        return request(self.vmm.api_path, method, path, body)

    def test_ping(self):
        answer = self.vmm.get("vmm.ping")
        self.assertEqual(answer["pid"], self.vmm.pid)
        self.assertIn("version", answer)
        self.assertIn("build_version", answer)

    def test_paths_and_methods(self):
        self.assertEqual(self.raw("PUT", "/api/v1/vm.nothing")[0], 404)
        self.assertEqual(self.raw("GET", "/")[0], 404)
        self.assertEqual(self.raw("GET", "/api/v1/vm.boot")[0], 400)
        self.assertEqual(self.raw("PUT", "/api/v1/vm.info")[0], 400)
        self.assertEqual(self.raw("DELETE", "/api/v1/vm.create")[0], 400)

    def test_bodies(self):
        self.assertEqual(self.raw("PUT", "/api/v1/vm.create", b"{")[0], 400)
        self.assertEqual(self.raw("PUT", "/api/v1/vm.create", b"")[0], 400)
        self.assertEqual(self.raw("PUT", "/api/v1/vm.create", b"[]")[0], 400)
        self.assertEqual(self.raw("PUT", "/api/v1/vm.create", b"\xff\xfe")[0], 400)
        self.assertEqual(self.raw("PUT", "/api/v1/vm.create", b"[" * 100000)[0], 400)
        self.vmm.put("vm.create", GOOD)
        self.assertEqual(self.raw("PUT", "/api/v1/vm.boot", b"{}")[0], 400)

    def test_nothing_to_act_on(self):
        for name in ("vm.boot", "vm.pause", "vm.resume", "vm.shutdown", "vm.reboot",
                     "vm.power-button", "vm.nmi"):
            error = self.vmm.refused(name)
            self.assertIn(error.status, (404, 500), name)
            self.assertTrue(error.chain, name)
        self.assertEqual(self.vmm.refused("vm.info", method="GET").status, 404)
        self.assertEqual(self.vmm.refused("vm.boot").status, 404)
        self.assertEqual(self.vmm.call("PUT", "vm.delete")[0], 204)

    def test_configurations_name_what_is_wrong(self):
        for change, word in (
                ({"cpus": {"boot_vcpus": 0, "max_vcpus": 1}}, "boot"),
                ({"memory": {"size": 128 * MIB, "nonsense": 1}}, "nonsense"),
                ({"memory": {"size": "large"}}, "size"),
                ({"disks": [{"readonly": True}]}, "path"),
                ({"net": [{"mac": "hello"}]}, "mac"),
                ({"disks": [{"path": "/a", "id": "x"}, {"path": "/b", "id": "x"}]}, "x"),
                ({"payload": {}}, "kernel")):
            error = self.vmm.refused("vm.create", {**GOOD, **change})
            self.assertIn(error.status, (400, 409), f"{change}: {error}")
            self.assertTrue(error.names(word), f"{change}: {error}")
        self.assertEqual(self.vmm.refused("vm.info", method="GET").status, 404)

    def test_states(self):
        self.vmm.put("vm.create", GOOD)
        self.assertEqual(self.vmm.refused("vm.create", GOOD).status, 500)
        self.assertEqual(self.vmm.refused("vm.resume").status, 500)
        self.assertEqual(self.vmm.state(), "Created")
        self.vmm.put("vm.boot")
        self.assertEqual(self.vmm.state(), "Running")
        self.assertEqual(self.vmm.refused("vm.boot").status, 500)
        self.assertEqual(self.vmm.refused("vm.resume").status, 500)
        self.vmm.put("vm.delete")
        self.vmm.put("vm.create", GOOD)
        self.assertEqual(self.vmm.state(), "Created")

    def test_files_that_are_not_there(self):
        for change, word in (
                ({"payload": {"kernel": "/nonexistent/kernel"}}, "/nonexistent/kernel"),
                ({"payload": {"kernel": "/etc/passwd"}}, "kernel"),
                ({"disks": [{"path": "/nonexistent/disk"}]}, "/nonexistent/disk")):
            status, answer = self.vmm.call("PUT", "vm.create", {**GOOD, **change})
            if status < 300:
                status, answer = self.vmm.call("PUT", "vm.boot")
            self.assertGreaterEqual(status, 400, change)
            self.assertIn(word, json.dumps(answer))
            self.vmm.put("vm.delete")

    def test_info_round_trip(self):
        self.vmm.put("vm.create", {**GOOD, "cpus": {"boot_vcpus": 2, "max_vcpus": 2}})
        config = self.vmm.info()["config"]
        self.vmm.put("vm.delete")
        self.vmm.put("vm.create", config)
        self.assertEqual(self.vmm.info()["config"], config)

    def test_many_requests_at_once(self):
        self.vmm.put("vm.create", GOOD)
        calls = [Background(self.vmm.call, "GET", "vm.info") for _ in range(20)]
        self.assertEqual([c.result()[0] for c in calls], [200] * 20)

    def test_shutdown_ends_the_process(self):
        self.assertEqual(self.vmm.call("PUT", "vmm.shutdown")[0], 200)
        self.assertEqual(self.vmm.wait_exit(), 0)


class MigrationRefusedTest(LaneTest):
    """What is wrong with a migration before it begins is in the answer, and nothing has begun."""

    def setUp(self):
        super().setUp()
        self.tls = Authority(self.dir / "ca").tls_dir(self.dir / "tls")
        cut = Authority(self.dir / "other").tls_dir(self.dir / "cut")
        for role in ("client", "server"):
            (cut / f"{role}-key.pem").unlink()
        self.strange = Authority(self.dir / "third").tls_dir(self.dir / "strange")
        for role in ("client", "server"):
            key = (self.tls / f"{role}-key.pem").read_bytes()
            (self.strange / f"{role}-key.pem").write_bytes(key)
        self.rows = (
            # URL, what else, what the answer says
            ("http://h", {}, "neither unix:/path nor tcp:host:port"),
            ("", {}, "is missing"),
            ("unix:", {}, "a path of 1 to 107 bytes"),
            ("unix:/" + "x" * 107, {}, "a path of 1 to 107 bytes"),
            ("tcp:127.0.0.1", {}, "the form is tcp:host:port"),
            ("tcp:127.0.0.1:65536", {}, "'65536' is no port number"),
            ("tcp:::1:4444", {}, "an IPv6 address goes in brackets"),
            ("unix:/nowhere/m", {"tls_dir": str(self.tls)}, "tls_dir: not possible with a unix:"),
            ("unix:/nowhere/m", {"tls_dir": "/nowhere"}, "tls_dir: not possible with a unix:"),
            ("tcp:127.0.0.1:1", {"tls_dir": "/nowhere"}, "tls_dir: /nowhere/ca-cert.pem: No such"),
            ("tcp:127.0.0.1:1", {"tls_dir": str(cut)}, "-key.pem: No such file"),
            ("tcp:127.0.0.1:1", {"tls_dir": str(self.strange)}, "-key.pem: "),
            ("tcp:192.0.2.1:1", {}, "there is no tls_dir; insecure=on"),
            ("tcp:[2001:db8::1]:1", {}, "there is no tls_dir; insecure=on"),
            ("tcp:127.0.0.1:1", {"memory_mode": "Postcopy"}, "postcopy is not supported"),
            ("tcp:127.0.0.1:1", {"nonsense": 1}, "nonsense: unknown field"),
        )
        self.send_rows = (
            ("tcp:127.0.0.1:0", {}, "port 0"),
            ("tcp:127.0.0.1:1", {"local": True}, "local: "),
            ("tcp:127.0.0.1:1", {"preserve_source": True}, "preserve_source: "),
            ("tcp:127.0.0.1:1", {"connections": 0}, "connections: 0 is not in 1..128"),
            ("tcp:127.0.0.1:1", {"connections": 129}, "connections: 129 is not in 1..128"),
            ("tcp:127.0.0.1:1", {"bandwidth": 65535}, "bandwidth: at least 65536"),
            ("tcp:127.0.0.1:1", {"downtime_ms": 0}, "downtime_ms: 0 is not in"),
            ("tcp:127.0.0.1:1", {"timeout_s": 1 << 32}, "timeout_s: "),
            ("tcp:127.0.0.1:1", {"timeout_strategy": "Never"}, "timeout_strategy: must be one of"),
            ("tcp:127.0.0.1:1", {"compression": "Gzip"}, "compression: must be one of"),
        )
        self.receive_rows = (
            ("tcp:127.0.0.1:0", {"memory_size": 4097}, "memory_size: not a multiple"),
            ("tcp:127.0.0.1:0", {"connections": 1}, "connections: unknown field"),
            ("tcp:127.0.0.1:0", {"failure_strategy": "Wait"}, "failure_strategy: must be one of"),
            ("tcp:127.0.0.1:0", {"net_fds": [{"id": "n", "num_fds": 1}]}, "fds: 0 file descriptors"),
        )

    def refuses(self, vmm, name, key, rows):
        for url, more, words in rows:
            with self.subTest(name, url=url, **more):
                error = vmm.refused(name, {key: url, **more})
                self.assertEqual(error.status, 400, error)
                self.assertTrue(error.names(words), error)
        self.assertEqual(vmm.get("vm.migration-progress"), {"phase": "idle"})
        self.assertEqual([e for e in vmm.event_names() if e.startswith("migration-")], [])

    def test_away(self):
        vmm = Vmm(self, "vm", vm_args())
        vmm.boot()
        self.refuses(vmm, "vm.send-migration", "destination_url", self.rows + self.send_rows)
        self.assertEqual(vmm.state(), "Running")
        vmm.guest.do("rng 16")
        # A name that nobody knows: asked for outside of the request, and the answer waits for it.
        error = vmm.refused("vm.send-migration", {"destination_url": "tcp:nobody.invalid:1"})
        self.assertEqual(error.status, 500)
        self.assertTrue(error.names("nobody.invalid: "), error)
        self.assertEqual(vmm.get("vm.migration-progress"), {"phase": "idle"})

    def test_to_here(self):
        vmm = Vmm(self, "vm")
        self.refuses(vmm, "vm.receive-migration", "receiver_url", self.rows + self.receive_rows)
        error = vmm.refused("vm.receive-migration", {"receiver_url": "unix:/nowhere/m"})
        self.assertEqual(error.status, 500)
        self.assertTrue(error.names("/nowhere/m: No such file"), error)


class SnapshotUrlTest(LaneTest):
    """A URL that is none is known before anything begins, and leaves no trace."""

    rows = (
        ("", "is missing"),
        ("store:", "names no path"),
        ("store:/s#", "no snapshot behind '#'"),
        ("store://host/s", "a store is on this host"),
        ("file:relative", "write file:///directory"),
        ("http://example", "not a store"),
        ("x" * 4096, "the path is too long"),
    )

    def refuses(self, vmm, name, field):
        for url, words in self.rows:
            with self.subTest(name, url=url):
                error = vmm.refused(name, {field: url})
                self.assertEqual(error.status, 400, error)
                self.assertTrue(error.chain[-1].startswith(f"{field}: "), error)
                self.assertTrue(error.names(words), error)
        self.assertEqual(vmm.get("vm.snapshot-progress"), {"phase": "idle"})
        self.assertFalse({"snapshotting", "restoring"} & set(vmm.event_names()))

    def test_to_take(self):
        vmm = Vmm(self, "vm", vm_args())
        vmm.boot()
        self.refuses(vmm, "vm.snapshot", "destination_url")
        self.assertEqual(vmm.state(), "Running")
        self.assertEqual(vmm.refused("vm.snapshot", {"destination_url": "/nowhere/s"}).status, 500)

    def test_to_come_back(self):
        vmm = Vmm(self, "vm")
        self.refuses(vmm, "vm.restore", "source_url")
        self.assertEqual(vmm.refused("vm.restore", {"source_url": "/nowhere/s"}).status, 500)


class CommandLineTest(LaneTest):
    def refuses(self, args, *words):
        vmm = Vmm(self, f"vm{len(list(self.dir.iterdir()))}", args, wait_api=False)
        self.assertIn(vmm.wait_exit(), (1, 2), args)
        for word in words:
            self.assertIn(word, vmm.log(), args)

    def test_options_that_are_wrong(self):
        kernel = ["--kernel", str(GUEST_ELF)]
        self.refuses([*kernel, "--cpus", "boot=0"], "boot")
        self.refuses([*kernel, "--memory", "size=12Q"], "size")
        self.refuses([*kernel, "--memory", "sise=12M"], "sise")
        self.refuses([*kernel, "--disk", "path=/nonexistent/disk"], "/nonexistent/disk")
        self.refuses([*kernel, "--nonsense"], "nonsense")
        self.refuses([*kernel, "--vsock", "cid=3,socket=x"], "vsock")
        self.refuses(["--kernel", "/nonexistent/kernel"], "/nonexistent/kernel")

    def test_a_kernel_that_is_none(self):
        for name, content in (("empty", b""), ("text", b"hello\n" * 1000),
                              ("cut", GUEST_ELF.read_bytes()[:5000])):
            path = self.dir / name
            path.write_bytes(content)
            self.refuses(vm_args(kernel=path), "kernel")

    def test_a_fifo_is_not_waited_for(self):
        fifo = self.dir / "fifo"
        os.mkfifo(fifo)
        self.refuses(vm_args(kernel=fifo), "kernel")
        self.refuses([*vm_args(), "--initramfs", str(fifo)], "initramfs")
        self.refuses(vm_args(disk=f"path={fifo},readonly=on"), "neither a file nor a block device")


if __name__ == "__main__":
    lane_base.main()
