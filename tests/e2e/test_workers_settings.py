"""The log of several processes, and the configuration that all of them have."""

import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import Regd, clean_environment
from tests.e2e.group import GroupTestCase, ask
from tests.e2e.process import wait_until
from tests.e2e.wire import Wire

ACCESS = re.compile(r'127\.0\.0\.1 - - \[[^]]+\] "GET (/v2/[a-z0-9/?=]*) HTTP/1\.1" \d+ \d+ "-" "-" [0-9a-f-]+')
LOG = re.compile(r'time="[^"]+" level=\w+ msg="(?:[^"\\]|\\.)*"( [\w.]+=\S+)*')


def load(port: int, number: int, count: int, size: int) -> None:
    """
    Ask for many things, on several connections.

    :param port: Where.
    :param number: Of this client.
    :param count: How many requests.
    :param size: How long the query of each is.
    """
    wires = [Wire(port) for _ in range(4)]
    for request in range(count):
        ask(wires[request % 4], "GET", f"/v2/?{number}x{request}={'a' * size}")
    for wire in wires:
        wire.close()


def load_much(port: int, size: int) -> None:
    """
    :param port: Where.
    :param size: How long the query of each request is.
    """
    clients = [threading.Thread(target=load, args=(port, number, 100, size)) for number in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()


def check_log(case: E2ETestCase, lines: list[str], size: int) -> None:
    """
    :param case: The test.
    :param lines: A log: every line has to be whole, and each request to be there.
    :param size: How long the queries were.
    """
    queries = set()
    for line in lines:
        found = ACCESS.fullmatch(line)
        case.assertTrue(found or LOG.fullmatch(line), line[:300])
        if found:
            queries.add(found[1])
    wanted = {f"/v2/?{number}x{request}={'a' * size}" for number in range(4) for request in range(100)}
    case.assertFalse([query[:20] for query in wanted - queries])


class LogTest(GroupTestCase):
    def test_a_file(self) -> None:
        server = self.make(2)
        load_much(server.port, 7000)
        server.stop()
        check_log(self, server.program.output().splitlines(), 7000)

    def test_a_pipe(self) -> None:
        """Lines are longer than what a pipe takes in one piece."""
        server = self.make(2)
        server.stop()
        program = subprocess.Popen(
            server.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=server.program.environment, cwd=server.directory
        )
        assert program.stdout is not None
        output: list[bytes] = []
        reader = threading.Thread(target=lambda: output.extend(program.stdout or ()))
        reader.start()
        self.addCleanup(program.stdout.close)
        wait_until(lambda: any(b"with 2 workers" in line for line in output), 30, "it to be ready")
        load_much(server.port, 7000)
        program.terminate()
        program.wait()
        reader.join()
        check_log(self, [line.decode().rstrip("\n") for line in output], 7000)

    def test_what_is_said_once(self) -> None:
        server = Regd(self.directory / "once", None, {"REGISTRY_HTTP_WORKERS": "3", "REGISTRY_NONSENSE": "1"})
        self.addCleanup(server.stop)
        server.start()
        self.wait_ready(server, 3)
        server.stop()
        output = server.program.output()
        for text in ("there is no such key", "regd 0", 'msg="stopped"'):
            self.assertEqual(output.count(text), 1, output)


class DaemonizedTest(GroupTestCase):
    def test_logfile(self) -> None:
        """In the background, with a log file of twistd's: the lines of all processes are in it."""
        server = Regd(self.directory / "daemonized", None, {"REGISTRY_HTTP_WORKERS": "2"})
        log, pidfile = server.directory / "twistd.log", server.directory / "pid"
        twistd = Path(sys.executable).with_name("twistd")
        command = [str(twistd), f"--logfile={log}", f"--pidfile={pidfile}", "regd", "-c", str(server.configuration)]
        done = subprocess.run(command, env=server.program.environment, cwd=server.directory, capture_output=True, check=True)
        self.assertEqual((done.stdout, done.stderr), (b"", b""))
        pid = int(pidfile.read_text(encoding="ascii"))
        try:
            wait_until(lambda: "with 2 workers" in log.read_text(encoding="utf-8"), 30, "the workers to be ready")
            load_much(server.port, 7000)
        finally:
            subprocess.run(["kill", str(pid)], check=True)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), 20, "the daemon to end")
        # twistd begins another file at each megabyte.
        files = [path.read_text(encoding="utf-8") for path in sorted(server.directory.glob("twistd.log*"))]
        self.assertGreater(len(files), 2)
        check_log(self, [line for text in files for line in text.splitlines()], 7000)


class OneProcessTest(E2ETestCase):
    def start(self, **environment: str) -> Regd:
        """
        :param environment: Overrides of the configuration.
        :return: A daemon that runs.
        """
        server = Regd(self.directory / self._testMethodName, None, environment)
        self.addCleanup(server.stop)
        server.start()
        return server

    def test_memory_is_served_by_one(self) -> None:
        server = self.start(REGISTRY_STORAGE="inmemory", REGISTRY_HTTP_WORKERS="3")
        self.assertEqual(server.program.children(), [])
        self.assertIn("level=warning msg=\"one process serves, and not 3", server.program.output())
        self.assertIn("in one process", server.program.output())

    def test_memory_by_default(self) -> None:
        server = self.start(REGISTRY_STORAGE="inmemory")
        self.assertEqual(server.program.children(), [])
        self.assertFalse("level=warning msg=\"one process" in server.program.output())

    def test_sighup(self) -> None:
        server = self.start(REGISTRY_HTTP_WORKERS="1")
        self.assertEqual(server.program.children(), [])
        text = server.configuration.read_text(encoding="utf-8")
        server.configuration.write_text(text.replace("readonly:\n      enabled: false", "readonly:\n      enabled: true"), encoding="utf-8")
        server.program.send(signal.SIGHUP)
        wait_until(lambda: "was read again, and is in effect" in server.program.output(), 10, "the configuration to be read")
        self.assertEqual(server.client.request("POST", "/v2/a/b/blobs/uploads/", b"").status, 405)


class SighupTest(GroupTestCase):
    def test_a_mistake_changes_nothing(self) -> None:
        server = self.make(2)
        workers = server.program.children()
        self.set(server, "delete:\n    enabled: true", "delete:\n    enabled: perhaps")
        server.program.send(signal.SIGHUP)
        self.wait_log(server, "level=error msg=.*storage.delete.enabled .line \\d+.: found .*perhaps")
        for wire in self.wires(server, 2).values():
            self.assertEqual(ask(wire, "GET", "/v2/").status, 200)
        # One that is replaced has what is in effect, and not what is in the file.
        subprocess.run(["kill", "-9", str(workers[0])], check=True)
        wait_until(lambda: set(server.program.children()) - set(workers) != set(), 30, "another worker")
        for wire in self.wires(server, 2).values():
            self.assertNotEqual(ask(wire, "DELETE", "/v2/a/b/blobs/sha256:" + "0" * 64).status, 405)

    def test_what_needs_a_restart_is_told(self) -> None:
        server = self.make(2)
        self.set(server, f"127.0.0.1:{server.port}", "127.0.0.1:1")
        self.set(server, f"rootdirectory: {server.data}", f"rootdirectory: {server.data}/elsewhere")
        self.set(server, "level: info", "level: error")
        self.set(server, "  secret:", "  relativeurls: true\n  secret:")
        server.program.send(signal.SIGHUP)
        for key in ("http.addr", "storage.filesystem.rootdirectory"):
            self.wait_log(server, f"level=warning msg=.*{key} has changed, which needs a restart")
        wait_until(lambda: ask_location(server).startswith("/v2/"), 10, "relativeurls to be in effect")
        # A worker that comes later serves the same directory as the others.
        time.sleep(1)
        workers = server.program.children()
        subprocess.run(["kill", "-9", str(workers[0])], check=True)
        wait_until(lambda: set(server.program.children()) - set(workers) != set(), 30, "another worker")
        digest = server.client.push_blob("a/b", b"hello")
        for wire in self.wires(server, 2).values():
            self.assertEqual(ask(wire, "GET", f"/v2/a/b/blobs/{digest}").body, b"hello")
            begun = ask(wire, "POST", "/v2/a/b/blobs/uploads/", b"")
            self.assertTrue(begun.headers["location"].startswith("/v2/"), begun)
        self.assertFalse((server.data / "elsewhere").exists())

    def test_again_and_again(self) -> None:
        """While clients ask."""
        server = self.make(2)
        asking = threading.Thread(target=load_much, args=(server.port, 10))
        asking.start()
        while asking.is_alive():
            server.program.send(signal.SIGHUP)
            time.sleep(0.05)
        asking.join()
        self.assertEqual(server.client.get("/v2/").status, 200)
        self.assertFalse("Traceback" in server.program.output(), server.program.tail())


def ask_location(server: Regd) -> str:
    """
    :param server: A daemon.
    :return: How it names a new upload.
    """
    return server.client.begin_upload("a/b")


class EnvironmentTest(E2ETestCase):
    def test_a_directory_full_of_modules(self) -> None:
        """Workers import what their parent does, and nothing that lies in the directory that it was started in."""
        server = Regd(self.directory / "modules", None, {"REGISTRY_HTTP_WORKERS": "2"})
        self.addCleanup(server.stop)
        (server.directory / "regd.py").write_text("raise SystemExit('the wrong one')\n", encoding="utf-8")
        (server.directory / "json.py").write_text("raise SystemExit('the wrong one')\n", encoding="utf-8")
        self.assertNotIn("PYTHONPATH", clean_environment(self.directory))
        serve = "import sys; from regd.cli import main; sys.exit(main())"
        server.program.command = [sys.executable, "-P", "-c", serve, "serve", str(server.configuration)]
        server.start()
        wait_until(lambda: "with 2 workers" in server.program.output(), 30, "the workers to be ready")
        self.assertFalse("the wrong one" in server.program.output())
