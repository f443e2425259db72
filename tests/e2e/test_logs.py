"""The log and the access log: one id from the client to the upstream, rotated files, levels that change, the shape of registry:2."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from regd.manifest import OCI_IMAGE
from tests.e2e.caching import Cache
from tests.e2e.daemon import Peer, Regd, regd_command
from tests.e2e.group import GroupTestCase, ask
from tests.e2e.origin import Origin
from tests.e2e.process import need, wait_until
from tests.e2e.proxying import Proxy, Upstream, simple
from tests.e2e.wire import Wire


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


class RequestIdTest(GroupTestCase):
    """The id in the answer is the one in the access log, in the log, and upstream."""

    def test_storage(self) -> None:
        """A blob whose file is not readable: one line, with the id, the file and the reason."""
        server = self.make(2)
        digest = server.client.push_blob("a/b", b"some bytes")
        (path,) = server.directory.rglob(f"blobs/sha256/*/{digest.removeprefix('sha256:')}/data")
        path.unlink()
        path.symlink_to(path)
        answer = server.client.get(f"/v2/a/b/blobs/{digest}")
        self.assertEqual(answer.status, 503)
        name = answer.headers["x-request-id"]
        self.wait_log(server, f'"GET [^"]*" 503 .* {name}\n')
        told = [line for line in server.program.output().splitlines() if "level=error" in line]
        self.assertEqual(len(told), 1, told)
        self.assertIn(f"http.request.id={name} ", told[0])
        self.assertIn(str(path), told[0])
        self.assertNotIn("raceback", server.program.output())

    def wait_for(self, proxy: Proxy, pattern: re.Pattern[str]) -> None:
        wait_until(lambda: pattern.search(proxy.program.output()) is not None, 10, "the access log")

    def test_routes(self) -> None:
        """Passed on, small and through the kernel, by two workers; from the proxy in front that is trusted, and from others."""
        body = os.urandom(2_000_000)
        upstream = Upstream(answer=simple(body, fields="X-Request-Id: of the upstream\r\n"))
        self.addCleanup(upstream.close)
        for trusted in ("[]", "[127.0.0.0/8]"):
            routes = f"  trusted: {trusted}\n  routes: [{{path: /, upstreams: ['{upstream.url}']}}]"
            proxy = Proxy(self.directory / f"proxy{len(trusted)}", routes, workers=2)
            self.addCleanup(proxy.stop)
            proxy.start()
            for number in range(6):
                said = f"of-the-client-{number}"
                wire = Wire(proxy.port)
                self.addCleanup(wire.close)
                wire.head("GET", f"/x{number}", {"X-Request-Id": said})
                answer = wire.answer()
                self.assertEqual((answer.status, answer.body), (200, body))
                name = answer.headers["x-request-id"]
                self.assertEqual(name == said, trusted != "[]")
                self.assertEqual(upstream.seen[-1].all("X-Request-Id"), [name])
                pattern = re.compile(rf'"GET /x{number} HTTP/1.1" 200 {len(body)} .* {name}$', re.MULTILINE)
                self.wait_for(proxy, pattern)

    def test_cache(self) -> None:
        """What a cache asks its upstream for has the id of the request that caused it, and so has what it says of the upstream."""
        origin = Origin()
        self.addCleanup(origin.close)
        image = origin.put_image("library/a", "v1", [b"layer" * 1000])
        cache = Cache(self.directory / "cache", f"  remoteurl: {origin.url}")
        self.addCleanup(cache.stop)
        cache.start()
        answer = cache.manifest("library/a", "v1")
        self.assertEqual(answer.status, 200)
        asked = [one.fields.get("x-request-id") for one in origin.asked if "/manifests/" in one.path]
        self.assertEqual(set(asked), {answer.headers["x-request-id"]})
        origin.close()
        answer = cache.client.get(f"/v2/library/a/blobs/{image.layers[0]}")
        self.assertGreaterEqual(answer.status, 500)
        wait_until(lambda: "level=warning" in cache.program.output(), 10, "a warning")
        for line in cache.program.output().splitlines():
            if "level=warning" in line and "127.0.0.1" in line:
                self.assertIn(f"http.request.id={answer.headers['x-request-id']} ", line)


#: How many each client sends: for longer than the tenth of a second that lines gather for, many times.
REQUESTS = 2000


class AccessFileTest(GroupTestCase):
    def serve(self, **environment: str) -> tuple[Regd, Path]:
        path = self.directory / self._testMethodName / "logs" / "access.log"
        path.parent.mkdir(parents=True)
        return self.make(2, {"REGISTRY_LOG_ACCESSLOG_PATH": str(path), **environment}), path

    def test_rotation_loses_nothing(self) -> None:
        """Moved away under load, with the signal and without: each request has one line, whole, in one of the files."""
        server, path = self.serve()

        def load(client: int) -> None:
            wire = Wire(server.port)
            for number in range(REQUESTS):
                ask(wire, "GET", f"/v2/?{client}x{number}={'a' * (number % 300)}")
            wire.close()

        clients = [threading.Thread(target=load, args=(client,)) for client in range(4)]
        for client in clients:
            client.start()
        rotated = 0
        while any(client.is_alive() for client in clients):
            wait_until(lambda: (path.exists() and path.stat().st_size > 0) or not any(one.is_alive() for one in clients), 10, "lines")
            if path.exists():
                rotated += 1
                path.rename(path.with_name(f"access.log.{rotated}"))
                if rotated % 2:
                    server.program.send(signal.SIGUSR1)
        server.stop()
        self.assertGreater(rotated, 2)
        lines = [line for one in path.parent.iterdir() for line in lines_of(one)]
        whole = re.compile(r'127\.0\.0\.1 - - \[[^]]+\] "GET /v2/\?(\d+x\d+)=a* HTTP/1\.1" 200 2 "-" "-" [0-9a-f]+-[0-9a-f]+')
        found = [match[1] for line in lines if (match := whole.fullmatch(line))]
        others = [line for line in lines if not whole.fullmatch(line) and '"GET /v2/ HTTP' not in line]
        self.assertEqual(others, [])
        self.assertEqual(sorted(found), sorted(f"{client}x{number}" for client in range(4) for number in range(REQUESTS)))
        self.assertNotIn('"GET ', server.program.output())

    def test_copied_and_truncated(self) -> None:
        server, path = self.serve()
        server.client.get("/v2/?one")
        wait_until(lambda: any("?one" in line for line in lines_of(path)), 10, "a line")
        os.truncate(path, 0)
        server.client.get("/v2/?two")
        wait_until(lambda: any("?two" in line for line in lines_of(path)), 10, "a line")
        self.assertNotIn(b"\0", path.read_bytes())

    def test_logrotate(self) -> None:
        """By the example of the documentation, but for who is signalled."""
        need("logrotate")
        server, path = self.serve()
        server.client.get("/v2/?one")
        wait_until(lambda: any("?one" in line for line in lines_of(path)), 10, "a line")
        example = (Path(__file__).parents[2] / "etc" / "logrotate").read_text(encoding="utf-8")
        mine = example.replace("/var/log/regd/access.log", str(path)).replace("create 0640 regd adm", "create 0640")
        mine = mine.replace("systemctl kill --kill-whom=main --signal=SIGUSR1 regd.service", f"kill -USR1 {server.program.pid}")
        self.assertNotIn("regd.service", mine)
        configuration = self.directory / "logrotate"
        configuration.write_text(mine.replace("delaycompress\n", "\n"), encoding="utf-8")
        configuration.chmod(0o600)
        command = ["logrotate", "--force", "--state", str(self.directory / "state"), str(configuration)]
        subprocess.run(command, check=True, capture_output=True)
        server.client.get("/v2/?two")
        wait_until(lambda: any("?two" in line for line in lines_of(path)), 10, "a line")
        old = gzip.decompress(path.with_name("access.log.1.gz").read_bytes())
        self.assertIn(b"?one", old)
        self.assertFalse(any("?one" in line for line in lines_of(path)))

    def test_a_file_that_cannot_be_opened(self) -> None:
        """One line at the start that says which and what to do; at SIGHUP nothing changes."""
        server, path = self.serve()
        missing = path.parent / "none" / "access.log"
        self.set(server, "log:\n", f"log:\n  accesslog: {{path: {missing}}}\n")
        failed = subprocess.run(
            regd_command(server.configuration), capture_output=True, encoding="utf-8", check=False, timeout=60, cwd=self.directory
        )
        self.assertNotEqual(failed.returncode, 0)
        told = [line for line in failed.stderr.splitlines() if "level=error" in line]
        self.assertEqual(len(told), 1, failed.stderr)
        self.assertIn(f"log.accesslog.path: {missing}: No such file or directory; its directory has to be there", told[0])
        self.assertNotIn("raceback", failed.stderr)

    def test_a_full_disk(self) -> None:
        """Requests are answered as ever, and each worker says it once."""
        server = self.make(2, {"REGISTRY_LOG_ACCESSLOG_PATH": "/dev/full"})
        for wire in self.wires(server, 2).values():
            for _ in range(4):
                self.assertEqual(ask(wire, "GET", "/v2/").status, 200)
        self.wait_log(server, "lines of the access log are lost: No space left on device", 2)
        self.assertEqual(server.client.get("/v2/").status, 200)
        server.stop()
        self.assertEqual(server.program.output().count("are lost"), 2)


class LevelsTest(GroupTestCase):
    def damage(self, server: Regd, tag: str) -> int:
        """
        :return: how many workers say that a tag is damaged, of those that are asked for it.
        """
        (tags,) = server.directory.rglob("_manifests")
        link = tags / "tags" / tag / "current" / "link"
        link.parent.mkdir(parents=True)
        link.write_text("nonsense")
        for wire in self.wires(server, 2).values():
            self.assertEqual(ask(wire, "GET", f"/v2/a/b/manifests/{tag}").status, 404)
        return sum("damaged file" in line and f"/{tag}/" in line for line in server.program.output().splitlines())

    def test_one_part(self) -> None:
        """Read again at SIGHUP in all workers, without a restart."""
        server = self.make(2)
        layer = server.client.push_blob("a/b", b"{}")
        image = {"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": {"mediaType": "a/b", "size": 2, "digest": layer}, "layers": []}
        server.client.push_manifest("a/b", "v1", OCI_IMAGE, json.dumps(image).encode())
        workers = server.program.children()
        self.assertEqual(self.damage(server, "one"), 2)
        self.set(server, "log:\n", "log:\n  levels: {storage: error}\n")
        server.program.send(signal.SIGHUP)
        self.wait_log(server, "was read again, and is in effect in 2 workers")
        self.assertEqual(self.damage(server, "two"), 0)
        self.set(server, "{storage: error}", "{storage: debug, web: error}")
        server.program.send(signal.SIGHUP)
        self.wait_log(server, "was read again, and is in effect in 2 workers", 2)
        self.assertEqual(self.damage(server, "three"), 2)
        self.assertEqual(server.program.children(), workers)


class ShapeTest(GroupTestCase):
    """Lines as those of Debian's docker-registry, run beside."""

    SETTINGS = {"REGISTRY_LOG_FIELDS_ENVIRONMENT": "staging", "REGISTRY_LOG_FIELDS_SERVICE": "registry"}

    def lines(self, server: Any, kind: str) -> list[dict[str, Any]]:
        server.start()
        server.client.get("/v2/a/manifests/b", User_Agent="probe/1", Referer="there")
        server.client.get("/v2/", User_Agent="probe/1")
        server.stop()
        found = [json.loads(line) for line in server.program.output().splitlines() if line.startswith("{")]
        self.assertTrue(found, kind)
        return found

    def test_names(self) -> None:
        for formatter, message in (("json", "msg"), ("logstash", "message")):
            settings = {**self.SETTINGS, "REGISTRY_LOG_FORMATTER": formatter}
            peer = Peer(self.directory / f"peer-{formatter}", None, settings)
            own = {**settings, "REGISTRY_HTTP_WORKERS": "1", "REGISTRY_LOG_ACCESSLOG_FORMATTER": formatter}
            ours = Regd(self.directory / f"regd-{formatter}", None, own)
            self.addCleanup(peer.stop)
            self.addCleanup(ours.stop)
            theirs, mine = self.lines(peer, "peer"), self.lines(ours, "regd")
            # What they say of themselves.
            general = [next(line for line in found if "http.request.id" not in line) for found in (theirs, mine)]
            self.assertEqual(set(general[0]) - set(general[1]), {"go.version"})
            self.assertEqual({general[1]["environment"], general[1]["service"]}, {"staging", "registry"})
            for wanted in ("response completed", "response completed with error"):
                one, other = (next(line for line in reversed(found) if line[message] == wanted) for found in (theirs, mine))
                # Those of Go, and what the error's answer says anyway.
                missing = {name for name in set(one) - set(other) if not name.startswith(("err.", "vars."))}
                self.assertLessEqual(missing, {"go.version", "http.response.contenttype"})
                same = ("http.request.method", "http.request.uri", "http.request.useragent", "http.response.status", "level", "@version")
                for name in same:
                    self.assertEqual(other.get(name), one.get(name), name)
                for name in set(one) & set(other):
                    self.assertIs(type(other[name]), type(one[name]), name)


class SignalTest(GroupTestCase):
    def test_sent_to_all_processes(self) -> None:
        """As ``systemctl kill`` sends it: nobody dies of it."""
        server = self.make(2)
        children = server.program.children()
        for pid in (*children, server.program.pid):
            os.kill(pid, signal.SIGUSR1)
        self.assertEqual(server.client.get("/v2/").status, 200)
        self.assertEqual(server.program.children(), children)

    def test_log_file_of_twistd(self) -> None:
        """``--logfile`` is moved away, and begun anew."""
        server = self.make(2)
        server.stop()
        log = self.directory / "twistd.log"
        command = [*regd_command(server.configuration)]
        command[1:1] = ["--logfile", str(log)]
        environment = {**os.environ, "REGISTRY_HTTP_WORKERS": "1", "PYTHONUNBUFFERED": "1"}
        running = subprocess.Popen(command, env=environment, cwd=self.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(running.wait)
        self.addCleanup(running.terminate)
        wait_until(lambda: any("serves http" in line for line in lines_of(log)), 30, "it to serve")
        log.rename(self.directory / "twistd.log.old")
        running.send_signal(signal.SIGUSR1)
        wait_until(log.exists, 10, "another file")
        server.client.get("/v2/?new")
        wait_until(lambda: any("?new" in line for line in lines_of(log)), 10, "a line")
        self.assertIsNone(running.poll(), sys.version)
