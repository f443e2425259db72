"""Several workers serve one registry: connections are spread evenly, and what one has done the others see at once."""

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

from tests.e2e.group import GroupTestCase, ask, owner
from tests.e2e.images import MIB, noise
from tests.e2e.process import free_port
from tests.e2e.rawhttp import Client, digest_of

OCTETS = "application/octet-stream"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
READ_ONLY = "readonly:\n      enabled: "


def manifest(config: bytes) -> bytes:
    """
    :param config: The content of a configuration that has been pushed.
    :return: A manifest without layers.
    """
    about = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(config), "size": len(config)}
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": about, "layers": []}).encode()


class SpreadTest(GroupTestCase):
    def test_connections_are_spread_evenly(self) -> None:
        server = self.make(2)
        wires = []
        for count in range(1, 9):
            wires.append(self.wire(server))
            shares = Counter(owner(server, wire) for wire in wires)
            self.assertLessEqual(max(shares.values()) - (min(shares.values()) if count > 1 else 0), 1, shares)
            self.assertEqual(len(shares), min(count, 2))
        # What counts is how many are open now.
        one = owner(server, wires[0])
        for wire in [wire for wire in wires if owner(server, wire) == one]:
            wire.close()
        time.sleep(0.5)
        self.assertEqual({owner(server, self.wire(server)) for _ in range(4)}, {one})

    def test_many_connections_at_once(self) -> None:
        server = self.make(3)
        wires = [self.wire(server) for _ in range(90)]
        self.assertEqual(sorted(Counter(owner(server, wire) for wire in wires).values()), [30, 30, 30])
        for wire in wires:
            self.assertEqual(ask(wire, "GET", "/v2/").status, 200)

    def test_metrics(self) -> None:
        """One page for all workers, on which nothing goes back when one of them is replaced."""
        port = free_port()
        settings = {"REGISTRY_HTTP_DEBUG_ADDR": f"127.0.0.1:{port}", "REGISTRY_HTTP_DEBUG_PROMETHEUS_ENABLED": "true"}
        server = self.make(2, settings)
        operator = Client(port)

        def numbers() -> dict[str, float]:
            lines = operator.get("/metrics").body.decode().splitlines()
            return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}

        requests = 'registry_http_requests_total{code="200",handler="base",method="get"}'
        wires = self.wires(server, 2)
        before = numbers()[requests]
        for wire in wires.values():
            for _ in range(5):
                self.assertEqual(ask(wire, "GET", "/v2/").status, 200)
        counted = numbers()
        self.assertEqual((counted[requests], counted["regd_workers"]), (before + 10, 2))
        os.kill(next(iter(wires)), signal.SIGKILL)
        self.wait_log(server, "another one takes its place")
        seen = [counted]
        deadline = time.monotonic() + 30
        while seen[-1]["regd_workers"] < 2 or len(seen) < 3:
            self.assertLess(time.monotonic(), deadline, "another worker")
            seen.append(numbers())
            for name, value in seen[-2].items():
                if name.partition("{")[0].endswith(("_total", "_bucket", "_sum", "_count")):
                    self.assertGreaterEqual(seen[-1].get(name, 0), value, name)
            time.sleep(0.1)
        self.assertEqual((counted["regd_workers_lost_total"], seen[-1]["regd_workers_lost_total"]), (0, 1))
        self.assertEqual(json.loads(operator.get("/readyz").body), {})

    def test_variables(self) -> None:
        port = free_port()
        server = self.make(2, {"REGISTRY_HTTP_DEBUG_ADDR": f"127.0.0.1:{port}"})
        operator = Client(port)
        for _ in range(3):
            self.wire(server)
        found = json.loads(operator.get("/debug/vars").body)
        self.assertEqual(found["pid"], server.program.pid)
        self.assertEqual({worker["pid"] for worker in found["workers"]}, set(server.program.children()))
        self.assertEqual(sorted(worker["open_connections"] for worker in found["workers"]), [1, 2])
        self.assertEqual((found["open_connections"], found["damaged_files"]), (3, 0))
        self.assertGreater(found["cpu_seconds"], sum(worker["cpu_seconds"] for worker in found["workers"]))
        self.assertEqual(operator.get("/debug/health").status, 200)
        # Those that answer are the processes that there are; the parent's sockets are not theirs.
        for pid in server.program.children():
            links = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
            self.assertFalse(links & self.listening(server.port, port))

    def listening(self, *ports: int) -> set[str]:
        """
        :param ports: Of 127.0.0.1.
        :return: How the descriptors of their listening sockets look in ``/proc/pid/fd``.
        """
        rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
        found = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) in ports}
        self.assertEqual(len(found), len(ports))
        return found

    def test_idle(self) -> None:
        """Nobody does anything when there is nothing to do."""
        server = self.make(2)
        self.wires(server, 2)
        time.sleep(1)
        before = server.program.ticks()
        time.sleep(5)
        self.assertLessEqual(server.program.ticks() - before, 1)


class OneTruthTest(GroupTestCase):
    def setUp(self) -> None:
        self.server = self.make(2)
        self.one, self.other = self.wires(self.server, 2).values()

    def test_an_upload_goes_from_worker_to_worker(self) -> None:
        content = noise(3 * MIB)
        half = len(content) // 2
        begun = ask(self.one, "POST", "/v2/a/b/blobs/uploads/", b"")
        first = ask(self.other, "PATCH", begun.headers["location"], content[:half], Content_Type=OCTETS)
        self.assertEqual(first.status, 202, first)
        status = ask(self.one, "GET", first.headers["location"])
        self.assertEqual((status.status, status.headers["range"]), (204, f"0-{half - 1}"))
        second = ask(self.one, "PATCH", status.headers["location"], content[half:-1000], Content_Type=OCTETS)
        self.assertEqual(second.status, 202, second)
        done = ask(self.other, "PUT", f"{second.headers['location']}&digest={digest_of(content)}", content[-1000:], Content_Type=OCTETS)
        self.assertEqual(done.status, 201, done)
        for wire in (self.one, self.other):
            self.assertEqual(ask(wire, "GET", f"/v2/a/b/blobs/{digest_of(content)}").body, content)

    def test_two_writers(self) -> None:
        """The second is refused, whichever process it is in."""
        begun = ask(self.one, "POST", "/v2/a/b/blobs/uploads/", b"")
        location = begun.headers["location"]
        self.one.head("PATCH", location, {"Content-Length": 100, "Content-Type": OCTETS})
        self.one.socket.sendall(b"x" * 50)
        time.sleep(0.3)
        refused = ask(self.other, "PATCH", location, b"y" * 10, Content_Type=OCTETS)
        self.assertEqual(refused.status, 416, refused)
        self.one.socket.sendall(b"x" * 50)
        self.assertEqual(self.one.answer().status, 202)

    def test_tags_and_deletes(self) -> None:
        configs = [b'{"a":1}', b'{"a":2}']
        for config in configs:
            self.server.client.push_blob("a/b", config)
        first, second = map(manifest, configs)
        for wire, content in ((self.one, first), (self.other, second), (self.one, first)):
            # Both remember what the tag said before.
            pushed = ask(wire, "PUT", "/v2/a/b/manifests/latest", content, Content_Type=MANIFEST)
            self.assertEqual(pushed.status, 201, pushed)
            for asked in (self.other, self.one):
                self.assertEqual(ask(asked, "GET", "/v2/a/b/manifests/latest").body, content)
        for deleter, asked in ((self.one, self.other), (self.other, self.one)):
            ask(deleter, "PUT", "/v2/a/b/manifests/latest", first, Content_Type=MANIFEST)
            self.assertEqual(ask(asked, "GET", f"/v2/a/b/manifests/{digest_of(first)}").body, first)
            self.assertEqual(ask(deleter, "DELETE", f"/v2/a/b/manifests/{digest_of(first)}").status, 202)
            for reference in ("latest", digest_of(first)):
                self.assertEqual(ask(asked, "GET", f"/v2/a/b/manifests/{reference}").status, 404)
            self.assertEqual(ask(asked, "GET", "/v2/a/b/tags/list").json(), {"name": "a/b", "tags": []})
        blob = digest_of(configs[0])
        self.assertEqual(ask(self.other, "GET", f"/v2/a/b/blobs/{blob}").status, 200)
        self.assertEqual(ask(self.one, "DELETE", f"/v2/a/b/blobs/{blob}").status, 202)
        self.assertEqual(ask(self.other, "GET", f"/v2/a/b/blobs/{blob}").status, 404)

    def test_read_only(self) -> None:
        """The switch is turned by SIGHUP, for all, and requests that have begun go on."""
        location = self.server.client.begin_upload("a/b")
        slow = self.wire(self.server)
        slow.head("PATCH", location, {"Content-Length": 100, "Content-Type": OCTETS})
        slow.socket.sendall(b"x" * 50)
        time.sleep(0.3)
        for value, status in (("true", 405), ("false", 202)):
            self.set(self.server, READ_ONLY + ("false" if value == "true" else "true"), READ_ONLY + value)
            self.server.program.send(signal.SIGHUP)
            self.wait_log(self.server, "was read again, and is in effect in 2 workers", 1 if value == "true" else 2)
            for wire in (self.one, self.other):
                self.assertEqual(ask(wire, "POST", "/v2/a/b/blobs/uploads/", b"").status, status)
            if value == "true":
                slow.socket.sendall(b"x" * 50)
                self.assertEqual(slow.answer().status, 202)
        self.assertFalse("Traceback" in self.server.program.output())
