"""
The settings of ``registry:2`` as a running daemon obeys them, most of them
given as environment variables, and what it says about those it cannot obey.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.case import E2ETestCase, Tool
from tests.e2e.daemon import Regd, clean_environment
from tests.e2e.images import noise
from tests.e2e.process import free_port
from tests.e2e.rawhttp import digest_of
from tests.telemetry.test_metrics_page import ALERTS

BLOB = noise(1000, seed=1)


class SettingsTest(E2ETestCase):
    def start(self, prefix: str = "", **environment: str) -> Regd:
        """
        :param prefix: What stands before ``/v2/``.
        :param environment: Overrides of the configuration.
        :return: A daemon that runs, with one blob in the repository ``a/b`` where it can be written to.
        """
        server = Regd(self.directory / self._testMethodName, None, environment, prefix)
        self.addCleanup(server.stop)
        server.start()
        return server

    def test_read_only(self) -> None:
        # In this form the setting makes registry:2 and registry:3 panic.
        server = self.start(REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED="true")
        self.assertEqual(server.client.get("/v2/_catalog").status, 200)
        for method, path in (
            ("POST", "/v2/a/b/blobs/uploads/"),
            ("PUT", "/v2/a/b/manifests/latest"),
            ("DELETE", f"/v2/a/b/manifests/{digest_of(BLOB)}"),
            ("DELETE", f"/v2/a/b/blobs/{digest_of(BLOB)}"),
        ):
            answer = server.client.request(method, path, b"")
            self.assertEqual((answer.status, answer.codes()), (405, ["UNSUPPORTED"]), f"{method} {path}")

    def test_read_only_as_a_section(self) -> None:
        server = self.start(REGISTRY_STORAGE_MAINTENANCE="{readonly: {enabled: true}}")
        self.assertEqual(server.client.request("POST", "/v2/a/b/blobs/uploads/", b"").status, 405)

    def test_deleting_is_switched_off(self) -> None:
        server = self.start(REGISTRY_STORAGE_DELETE_ENABLED="false")
        digest = server.client.push_blob("a/b", BLOB)
        answer = server.client.request("DELETE", f"/v2/a/b/blobs/{digest}")
        self.assertEqual((answer.status, answer.codes()), (405, ["UNSUPPORTED"]))
        self.assertEqual(server.client.get(f"/v2/a/b/blobs/{digest}").status, 200)

    def test_headers_are_on_every_answer(self) -> None:
        server = self.start(REGISTRY_HTTP_HEADERS="{X-Content-Type-Options: [nosniff], X-Two: [a, b]}")
        for path in ("/v2/", "/v2/no/such/tags/list", "/nothing/here"):
            answer = server.client.get(path)
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff", path)
            self.assertEqual(answer.headers["x-two"], "a, b", path)
            self.assertEqual(answer.headers["docker-distribution-api-version"], "registry/2.0", path)

    def test_prefix(self) -> None:
        server = self.start("/registry", REGISTRY_HTTP_PREFIX="/registry/")
        location = server.client.request("POST", "/registry/v2/a/b/blobs/uploads/", b"").headers["location"]
        self.assertIn("/registry/v2/a/b/blobs/uploads/", location)
        self.assertEqual(server.client.commit(location, digest_of(BLOB), BLOB).status, 201)
        self.assertEqual(server.client.get(f"/registry/v2/a/b/blobs/{digest_of(BLOB)}").body, BLOB)
        self.assertEqual(server.client.get("/v2/").status, 404)

    def test_locations_are_absolute(self) -> None:
        server = self.start()
        self.assertTrue(server.client.begin_upload("a/b").startswith(f"http://{server.host}/v2/a/b/blobs/uploads/"))

    def test_locations_are_relative(self) -> None:
        server = self.start(REGISTRY_HTTP_RELATIVEURLS="true")
        self.assertTrue(server.client.begin_upload("a/b").startswith("/v2/a/b/blobs/uploads/"))

    def test_locations_name_the_host(self) -> None:
        server = self.start(REGISTRY_HTTP_HOST="https://registry.example:8443", REGISTRY_HTTP_RELATIVEURLS="true")
        self.assertTrue(server.client.begin_upload("a/b").startswith("https://registry.example:8443/v2/a/b/blobs/uploads/"))

    def test_unix_socket(self) -> None:
        curl = Tool(self.directory, "curl", "-s")
        socket = self.directory / "regd.sock"
        server = Regd(self.directory / "unix", None, {"REGISTRY_HTTP_NET": "unix", "REGISTRY_HTTP_ADDR": str(socket)})
        self.addCleanup(server.stop)
        for _ in range(2):
            # The second time over the socket that a crash has left.
            server.program.start()
            server.program.wait_ready(lambda: curl.try_run("--unix-socket", str(socket), "http://regd/v2/").stdout == b"{}")
            server.kill()

    def test_ipv6(self) -> None:
        port = free_port()
        curl = Tool(self.directory, "curl", "-s")
        server = Regd(self.directory / "ipv6", None, {"REGISTRY_HTTP_ADDR": f"[::1]:{port}"})
        self.addCleanup(server.stop)
        server.program.start()
        server.program.wait_ready(lambda: curl.try_run(f"http://[::1]:{port}/v2/").stdout == b"{}")

    def test_debug_address(self) -> None:
        port = free_port()
        server = self.start(REGISTRY_HTTP_DEBUG_ADDR=f"127.0.0.1:{port}")
        curl = Tool(self.directory, "curl", "-s")
        self.assertEqual(json.loads(curl.run(f"http://127.0.0.1:{port}/debug/health")), {})
        self.assertEqual(server.client.get("/debug/health").status, 404)

    def test_in_memory(self) -> None:
        server = self.start(REGISTRY_STORAGE="{inmemory: {}, delete: {enabled: true}}")
        digest = server.client.push_blob("a/b", BLOB)
        self.assertEqual(server.client.get(f"/v2/a/b/blobs/{digest}").body, BLOB)
        self.assertEqual([path for path in server.data.rglob("*") if path.is_file()], [])

    def test_log_as_json(self) -> None:
        server = self.start(REGISTRY_LOG_FORMATTER="json", REGISTRY_LOG_ACCESSLOG_DISABLED="true")
        server.client.get("/v2/no/such/tags/list")
        server.stop()
        lines = [json.loads(line) for line in server.program.output().splitlines()]
        self.assertTrue(lines)
        for line in lines:
            self.assertEqual(line["service"], "registry")
            self.assertLessEqual({"level", "msg", "time"}, line.keys())

    def test_access_log(self) -> None:
        server = self.start()
        server.client.get("/v2/_catalog?n=7", User_Agent="an-agent")
        server.stop()
        # The combined format of Apache httpd, as registry:2 writes it; regd adds the id of the request.
        self.assertRegex(
            server.program.output(),
            r'(?m)^127\.0\.0\.1 - - \[[^]]+\] "GET /v2/_catalog\?n=7 HTTP/1\.1" 200 \d+ "[^"]*" "an-agent"( [0-9a-f]+-[0-9a-f]+)?$',
        )

    def test_drain(self) -> None:
        server = self.start(REGISTRY_HTTP_DRAINTIMEOUT="20s")
        location = server.client.begin_upload("a/b")
        content = noise(100_000)

        def halves() -> Iterator[bytes]:
            yield content[:50_000]
            # A connection that waits to be accepted is not a request yet, and is not waited for.
            time.sleep(0.5)
            server.program.send(signal.SIGTERM)
            time.sleep(0.5)
            yield content[50_000:]

        joint = "&" if "?" in location else "?"
        answer = server.client.request("PUT", f"{location}{joint}digest={digest_of(content)}", halves())
        self.assertEqual(answer.status, 201)
        # twistd ends by the signal that it was sent, once it has cleaned up.
        self.assertIn(server.stop(), (0, -signal.SIGTERM))


class CommandLineTest(E2ETestCase):
    def regd(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """
        :param arguments: What stands after ``regd``.
        :param environment: Variables besides the usual ones.
        :return: The finished process.
        """
        server = Regd(self.directory / self._testMethodName)
        return subprocess.run(
            [sys.executable, "-c", "import regd.cli, sys; sys.exit(regd.cli.main())", *arguments],
            env=clean_environment(self.directory) | server.settings() | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def configuration(self, text: str) -> str:
        """
        :param text: A configuration.
        :return: The path of a file that holds it.
        """
        path = self.directory / f"{self._testMethodName}.yml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    def test_version(self) -> None:
        done = self.regd("--version")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"\d+\.\d+\.\d+")

    def test_check_good_configuration(self) -> None:
        done = self.regd("check-config", self.configuration("version: 0.1\nstorage: inmemory\nhttp: {addr: ':0'}\n"))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_a_bad_value_is_named_in_one_line(self) -> None:
        path = self.configuration("version: 0.1\nstorage: inmemory\nhttp: {addr: ':0', draintimeout: soon}\n")
        for command in ("check-config", "serve"):
            done = self.regd(command, path)
            self.assertNotEqual(done.returncode, 0)
            (line,) = [line for line in (done.stdout + done.stderr).splitlines() if "soon" in line]
            self.assertIn("http.draintimeout", line)
            self.assertNotIn("Traceback", done.stderr)

    def test_an_unknown_key_is_a_warning(self) -> None:
        path = self.configuration("version: 0.1\nstorage: {inmemory: {}, delte: {enabled: true}}\nhttp: {addr: ':0'}\n")
        done = self.regd("check-config", path)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("storage.delte", done.stdout + done.stderr)
        self.assertIn("storage.delete", done.stdout + done.stderr)

    def test_a_missing_file_is_named(self) -> None:
        path = str(self.directory / "no-such.yml")
        done = self.regd("serve", path)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(path, done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_the_environment_names_the_file(self) -> None:
        path = self.configuration("version: 0.2\n")
        done = self.regd("check-config", REGISTRY_CONFIGURATION_PATH=path)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("version", done.stdout + done.stderr)

    def test_the_shipped_configurations_are_good(self) -> None:
        # The alerts are for Prometheus.
        for path in sorted({*(Path(__file__).resolve().parents[2] / "etc" / "regd").glob("*.yml")} - {ALERTS}):
            done = self.regd("check-config", str(path))
            self.assertEqual(done.returncode, 0, f"{path}: {done.stdout}{done.stderr}")
