"""Where everything is put together: options, start, stop, and what of the configuration reaches which room."""

# Much of Twisted's Options and factories, which ours inherit from, has no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

from twisted.application.service import Application, MultiService
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.python.log import ILogObserver as ILegacyObserver
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import IResource

from regd import __version__
from regd.config import Loaded, load
from regd.manifest import Platform
from regd.service import Options, makeService
from regd.service import options as options_module
from regd.service.daemon import CannotStart, RegistryService, Streams
from regd.service.limits import raise_file_limit
from regd.service.options import _streams
from regd.service.parts import make_driver, manifest_rules
from regd.service.serving import Serving
from regd.storage.driver import StorageError
from regd.storage.filesystem import FilesystemDriver
from regd.storage.memory import MemoryDriver
from regd.telemetry.catalogue import CATALOGUE
from regd.telemetry.logs import LineObserver
from tests.web.support import MINIMAL, ApiCase, digest_of, failing, path_of
from tests.web.wire import Client, request_bytes


def directory(case: SynchronousTestCase) -> Path:
    made = tempfile.TemporaryDirectory()
    case.addCleanup(made.cleanup)
    return Path(made.name)


def host_of(port: IListeningPort) -> IPv4Address:
    host = port.getHost()
    assert isinstance(host, IPv4Address)
    return host


def loaded(case: SynchronousTestCase, text: str = MINIMAL) -> Loaded:
    path = directory(case) / "config.yml"
    path.write_text(text, encoding="utf-8")
    return load(str(path), {})


class OptionsTests(SynchronousTestCase):
    def parse(self, *arguments: str, **environ: str) -> tuple[Options, str, int | str | None]:
        """The options, what was printed, and the exit status, if it ended there."""
        options, printed, status = Options(), io.StringIO(), None
        with patch.dict(os.environ, environ), contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            try:
                options.parseOptions(list(arguments))
            except SystemExit as end:
                status = end.code
        return options, printed.getvalue(), status

    def test_config(self) -> None:
        path = directory(self) / "config.yml"
        path.write_text(MINIMAL, encoding="utf-8")
        for arguments, environ in (
            (("--config", str(path)), {}),
            (("-c", str(path)), {"REGISTRY_CONFIGURATION_PATH": "/nowhere"}),
            ((), {"REGISTRY_CONFIGURATION_PATH": str(path)}),
        ):
            options, printed, status = self.parse(*arguments, **environ)
            self.assertEqual((options.loaded.path, printed, status), (str(path), "", None))

    def test_mistakes_are_one_line(self) -> None:
        bad = directory(self) / "config.yml"
        bad.write_text(MINIMAL + "http: {addr: nonsense}\n", encoding="utf-8")
        for path in (str(bad), str(bad) + ".none", str(bad.parent)):
            _, printed, status = self.parse("--config", path)
            self.assertEqual(status, 1)
            self.assertTrue(printed.startswith("regd: "), printed)
            self.assertEqual(printed.count("\n"), 1, printed)

    def test_version(self) -> None:
        self.assertEqual(self.parse("--version")[1:], (f"regd {__version__}\n", 0))

    def test_environment(self) -> None:
        path = directory(self) / "config.yml"
        path.write_text(MINIMAL, encoding="utf-8")
        options, _, _ = self.parse("--config", str(path), REGISTRY_HTTP_ADDR="127.0.0.1:1234")
        self.assertEqual(options.loaded.config.http.addr.port, 1234)  # type: ignore[union-attr]  # it is no Unix socket


class PartsTests(SynchronousTestCase):
    """What is made of the configuration."""

    def test_drivers(self) -> None:
        root = directory(self)
        text = "version: 0.1\nstorage: {filesystem: {rootdirectory: %s}%s}\n"
        self.assertIsInstance(make_driver(loaded(self).config, reactor), MemoryDriver)
        driver = make_driver(loaded(self, text % (root / "here", "")).config, reactor)
        self.assertIsInstance(driver, FilesystemDriver)
        driver.start()
        driver.stop()
        self.assertTrue((root / "here").is_dir())

    def test_a_read_only_registry_makes_nothing(self) -> None:
        root = directory(self)
        text = f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root}/new}}, maintenance: {{readonly: {{enabled: true}}}}}}\n"
        with contextlib.suppress(StorageError):
            make_driver(loaded(self, text).config, reactor).start()
        self.assertFalse((root / "new").exists())

    def test_rules(self) -> None:
        def rules(text: str) -> Any:
            return manifest_rules(loaded(self, MINIMAL + text).config)

        url, amd64 = "https://example.com/x", Platform("linux", "amd64")
        self.assertEqual((rules("").url_permitted(url), rules("").platforms), (False, None))
        disabled = rules("validation: {disabled: true}\n")
        self.assertEqual((disabled.url_permitted(url), disabled.platforms), (True, None))
        urls = rules("validation: {manifests: {urls: {allow: ['^https://example\\.com/']}}}\n")
        self.assertEqual((urls.url_permitted(url), urls.url_permitted("https://other/")), (True, False))
        for platforms, expected in (
            ("platforms: all", None),
            ("platforms: none", frozenset()),
            ("platforms: list, platformlist: [{os: linux, architecture: amd64}]", frozenset({amd64})),
        ):
            self.assertEqual(rules(f"validation: {{manifests: {{indexes: {{{platforms}}}}}}}\n").platforms, expected)

    def test_the_log_is_ours(self) -> None:
        """``twistd`` asks the application for it."""
        application: Any = Application("test")
        stream = io.StringIO()
        config = loaded(self, MINIMAL + "log: {formatter: json, fields: {service: registry}}\n")
        made = RegistryService(config, Streams(stream, stream), 1, reactor)
        made.setServiceParent(application)
        observer = application.getComponent(ILogObserver)
        self.assertIsInstance(observer, LineObserver)
        observer({"log_format": "hello", "log_time": 0.0, "log_namespace": "regd.x"})
        line = json.loads(stream.getvalue())
        self.assertEqual((line["msg"], line["service"]), ("hello", "registry"))

    def test_the_log_is_twistds(self) -> None:
        application: Any = Application("test")
        RegistryService(loaded(self), Streams(None, io.StringIO()), 1, reactor).setServiceParent(application)
        self.assertIsNone(application.getComponent(ILogObserver))
        self.assertIsNone(application.getComponent(ILegacyObserver))

    def test_streams(self) -> None:
        import sys  # noqa: PLC0415 - what it holds now, pytest's own

        path = str(directory(self) / "log")
        for twistd, streams in (
            (None, (sys.stderr, sys.stdout)),
            ({"nodaemon": True}, (sys.stderr, sys.stdout)),
            ({"logfile": "-"}, (sys.stderr, sys.stdout)),
            ({"syslog": True}, (None, sys.stdout)),
            ({"logger": "x.y"}, (None, sys.stdout)),
        ):
            options: Any = Options()
            options.parent = twistd
            found = _streams(options, several=False)
            self.assertEqual((found.log, found.access), streams)
        options.parent = {"logfile": path, "nodaemon": False}
        found = _streams(options, several=False)
        log: Any = found.log
        self.assertIs(log, found.access)
        log.write("é\n")
        log.close()
        self.assertEqual(Path(path).read_text(encoding="utf-8"), "é\n")

    def test_streams_of_several(self) -> None:
        """Workers write themselves, or by us where only we can."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            options: Any = Options()
            options.parent = {"nodaemon": True}
            with patch("sys.stdout", out), patch("sys.stderr", err):
                found = _streams(options, several=True)
                assert found.log is not None
                assert found.lock is not None
                self.addCleanup(os.close, found.lock)
                self.assertEqual(found.workers, {1: out.fileno(), 2: err.fileno()})
                found.log.write("log\n")
                found.access.write("access\n")
                options.parent = {"syslog": True}
                syslog = _streams(options, several=True)
            self.assertEqual([(file.seek(0), file.read())[1] for file in (out, err)], ["access\n", "log\n"])
            self.assertEqual((syslog.log, syslog.lock, syslog.workers[1]), (None, None, out.fileno()))
        line: Any = syslog.workers[2]
        events: list[Any] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        line("from {a} worker\n")
        self.assertEqual(formatEvent(events[-1]), "from {a} worker")
        path = directory(self) / "log"
        options.parent = {"logfile": str(path), "nodaemon": False}
        found = _streams(options, several=True)
        for fd in (1, 2):
            write: Any = found.workers[fd]
            write(f"{fd}\n")
        self.assertEqual((path.read_text(encoding="utf-8"), found.lock), ("1\n2\n", None))

    def test_how_many_workers(self) -> None:
        for text, cores, count in (("", 2, 2), ("", 16, 4), ("", 1, 1), ("http: {workers: 7}\n", 1, 7), ("http: {workers: 1}\n", 8, 1)):
            options: Any = Options()
            options.parent = {"syslog": True}
            options.loaded = loaded(self, MINIMAL + text)
            with tempfile.TemporaryFile("w+") as out, patch("sys.stdout", out):
                self.patch(options_module, "usable_cores", lambda cores=cores: cores)
                self.assertEqual(makeService(options)._count, count)

    def test_make_service(self) -> None:
        options = Options()
        options.loaded = loaded(self)
        self.assertIsInstance(makeService(options), RegistryService)

    def test_the_access_log_can_be_switched_off(self) -> None:
        for text, lines in (("", 1), ("log: {accesslog: {disabled: true}}\n", 0)):
            case = ApiCase("ask")
            case.setUp()
            case.build(MINIMAL + text)
            case.ask("GET", "/v2/")
            self.assertEqual(case.access.getvalue().count("\n"), lines)
            case.doCleanups()


class DebugTests(ApiCase):
    def operator(self) -> Client:
        return Client(self.service.debug_site, self.clock)

    def test_health(self) -> None:
        def fault() -> StorageError:
            return StorageError("the disk is on fire")

        driver: Any = failing(fault, "check")
        self.build(MINIMAL, driver)
        answer = self.operator().ask("GET", "/debug/health")
        self.assertEqual((answer.status, json.loads(answer.body)), (200, {}))
        driver.broken = True
        answer = self.operator().ask("GET", "/debug/health")
        self.assertEqual((answer.status, json.loads(answer.body)), (503, {"storagedriver_inmemory": "the disk is on fire"}))
        self.assertEqual(self.operator().ask("HEAD", "/debug/health").status, 503)

    def test_variables(self) -> None:
        self.client()
        found = json.loads(self.operator().ask("GET", "/debug/vars").body)
        self.assertEqual((found["version"], found["pid"], found["open_connections"]), (__version__, os.getpid(), 1))
        self.assertGreater(found["peak_memory_bytes"], 1_000_000)

    def test_nothing_else(self) -> None:
        for method, target, status, code in (
            ("GET", "/", 404, "NOT_FOUND"),
            ("GET", "/v2/", 404, "NOT_FOUND"),
            ("POST", "/debug/health", 405, "UNSUPPORTED"),
            ("GET", "/debug/%ff", 400, "BAD_REQUEST"),
        ):
            answer = self.operator().ask(method, target)
            self.check(answer, method)
            self.refused(answer, status, code)

    def test_it_is_not_in_the_access_log(self) -> None:
        self.operator().ask("GET", "/debug/health")
        self.assertEqual(self.access.getvalue(), "")


class StopTests(ApiCase):
    """Stopping with a clock: the driver is stopped last, whatever clients do."""

    config = MINIMAL + "http: {draintimeout: 30s}\n"

    def build(self, config: str, driver: Any = None) -> None:
        super().build(config, driver)
        self.stops: list[float] = []
        self.patch(self.driver, "stop", lambda: self.stops.append(self.clock.seconds()))

    def stop(self, client: Client) -> Deferred[None]:
        done: Deferred[None] = self.service.stopService()
        client.settle()
        return done

    def test_idle_connections(self) -> None:
        client = self.client()
        self.assertEqual(client.ask("GET", "/v2/").status, 200)
        self.successResultOf(self.stop(client))
        self.assertEqual((self.stops, client.wire.lost), ([0], True))

    def uploading(self) -> tuple[Client, str]:
        upload = self.begin("a")
        client = self.client()
        client.send(request_bytes("PATCH", upload, [("Content-Length", "2")]) + b"x")
        return client, upload

    def test_an_upload_that_ends_in_time(self) -> None:
        client, _ = self.uploading()
        done = self.stop(client)
        self.clock.advance(29)
        self.assertNoResult(done)
        client.send(b"y")
        self.assertEqual(client.statuses, [202])
        self.successResultOf(done)
        self.assertEqual(self.stops, [29])

    def test_an_upload_that_does_not(self) -> None:
        client, upload = self.uploading()
        done = self.stop(client)
        self.clock.advance(30)
        client.settle()
        self.successResultOf(done)
        self.assertTrue(client.wire.aborted)
        self.assertEqual(self.stops, [30])
        # What had arrived is stored.
        self.assertEqual(self.ask("GET", upload)["Range"], "0-0")

    def test_a_chore_that_does_not_end(self) -> None:
        """Requests are finished, and their connections closed, while it is waited for; the storage is there until it has ended."""
        ended: Deferred[None] = Deferred()

        async def stop() -> None:
            await ended

        self.patch(self.service.upkeep, "stop", stop)
        client, _ = self.uploading()
        done = self.stop(client)
        client.send(b"y")
        self.assertEqual((client.statuses, client.answers[0]["Connection"], client.wire.lost), ([202], "close", True))
        self.assertEqual(self.stops, [])
        ended.callback(None)
        self.successResultOf(done)
        self.assertEqual(self.stops, [0])

    def again(self, number: signal.Signals) -> None:
        handler: Any = signal.getsignal(number)
        handler(number, None)

    def test_told_again(self) -> None:
        """The second order to stop cuts off what has not finished; one that comes with the first is the same."""
        handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number=number):
                self.build(self.config)
                # A clock is no whole reactor.
                reactor: Any = self.clock
                reactor.callFromThread = lambda call: call()
                client, upload = self.uploading()
                done = self.stop(client)
                self.again(number)
                self.clock.advance(0.9)
                client.settle()
                self.assertNoResult(done)
                self.clock.advance(0.1)
                self.again(number)
                client.settle()
                self.successResultOf(done)
                self.assertEqual((client.wire.aborted, len(self.stops)), (True, 1))
                self.assertEqual(self.ask("GET", upload)["Range"], "0-0")
                self.assertEqual((signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)), handlers)

    def test_without_a_drain_timeout(self) -> None:
        self.build(MINIMAL)
        client, _ = self.uploading()
        self.successResultOf(self.stop(client))
        self.assertEqual((client.wire.aborted, self.stops), (True, [0]))


class ListeningTests(TestCase):
    """On real sockets, with the real reactor."""

    def setUp(self) -> None:
        self.root = directory(self)
        self.stream = io.StringIO()
        self.access = io.StringIO()

    def make(self, http: str, storage: str = "inmemory: {}") -> RegistryService:
        text = f"version: 0.1\nstorage: {{{storage}}}\nhttp: {{{http}}}\n"
        made = RegistryService(loaded(self, text), Streams(self.stream, self.access), 1, reactor)
        parent = MultiService()
        made.setServiceParent(parent)
        return made

    def start(self, http: str, storage: str = "inmemory: {}") -> RegistryService:
        made = self.make(http, storage)
        made.startService()
        self.addCleanup(made.stopService)
        return made

    def fails(self, http: str, storage: str = "inmemory: {}") -> str:
        """
        :return: The reason in the log.
        """
        made = self.make(http, storage)
        with patch.object(made, "_log") as log:
            error = self.assertRaises(CannotStart, made.startService)
        self.addCleanup(made.stopService)
        # Twisted starts the factory of a Unix socket before it binds.
        for site in (made.serving.site, made.debug_site):
            while site.numPorts:
                site.doStop()
        self.assertEqual(error.code, 1)
        reason = str(log.error.call_args.kwargs["reason"])
        self.assertNotIn("\n", reason)
        return reason

    async def get(self, family: int, address: Any, path: str) -> bytes:
        def ask() -> bytes:
            with socket.socket(family) as client:
                client.settimeout(10)
                client.connect(address)
                client.sendall(b"GET %s HTTP/1.0\r\n\r\n" % path.encode())
                return b"".join(iter(lambda: client.recv(65536), b""))

        return await deferToThread(ask)

    async def test_serves(self) -> None:
        made = self.start("addr: '127.0.0.1:0', debug: {addr: '127.0.0.1:0'}", f"filesystem: {{rootdirectory: {self.root}}}")
        assert made.ports.debug is not None
        ports = [host_of(port).port for port in (*made.ports.serving, made.ports.debug)]
        for port, path in zip(ports, ("/v2/", "/debug/health"), strict=True):
            answer = await self.get(socket.AF_INET, ("127.0.0.1", port), path)
            self.assertTrue(answer.startswith(b"HTTP/1.0 200 OK\r\n"), answer)
        self.assertEqual(self.access.getvalue().count("\n"), 1)

    async def test_unix_socket(self) -> None:
        path = self.root / "socket"
        made = self.start(f"net: unix, addr: {path}")
        answer = await self.get(socket.AF_UNIX, str(path), "/v2/")
        self.assertTrue(answer.startswith(b"HTTP/1.0 200 OK\r\n"), answer)
        await made.stopService()
        self.assertFalse(path.exists())

    def test_an_address_that_is_taken(self) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            reason = self.fails(f"addr: '127.0.0.1:{port}'")
            self.assertIn("http.addr", reason)
            self.assertIn(f"127.0.0.1:{port}", reason)
            debug = self.fails(f"addr: '127.0.0.1:0', debug: {{addr: '127.0.0.1:{port}'}}")
            self.assertIn("http.debug.addr", debug)
            self.assertIn(f"127.0.0.1:{port}", debug)

    def test_a_unix_socket_that_is_taken(self) -> None:
        path = self.root / "socket"
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            other.listen()
            reason = self.fails(f"net: unix, addr: {path}")
        self.assertIn(f"cannot listen on {path}: ", reason)
        self.assertIn("http.addr", reason)

    def test_an_unknown_host(self) -> None:
        self.assertIn("no-such-host.invalid:5000", self.fails("addr: 'no-such-host.invalid:5000'"))

    def test_storage_that_cannot_be_used(self) -> None:
        (self.root / "file").write_text("x", encoding="ascii")
        reason = self.fails("addr: '127.0.0.1:0'", f"filesystem: {{rootdirectory: {self.root}/file}}")
        self.assertIn(f"{self.root}/file", reason)

    def test_files(self) -> None:
        """As many files may be open as the system allows; few of them are worth a warning."""
        log = Mock()
        with patch.object(resource, "getrlimit", return_value=(100, 1000)), patch.object(resource, "setrlimit") as set_limit:
            raise_file_limit(log)
            set_limit.assert_called_once_with(resource.RLIMIT_NOFILE, (1000, 1000))
            log.warn.assert_called_once()
        with patch.object(resource, "getrlimit", return_value=(65536, 65536)), patch.object(resource, "setrlimit") as set_limit:
            raise_file_limit(log)
            set_limit.assert_not_called()
            log.warn.assert_called_once()

    async def test_sleep(self) -> None:
        await Serving(loaded(self).config, io.StringIO(), reactor)._sleep(0)
        await deferLater(reactor, 0)

    async def test_sighup(self) -> None:
        """The configuration is read again; with a mistake in it nothing changes."""
        made = self.start("addr: '127.0.0.1:0'", f"filesystem: {{rootdirectory: {self.root}}}")
        path = Path(made._path)
        text = path.read_text(encoding="utf-8")
        port = host_of(made.ports.serving[0]).port
        handler: Any = signal.getsignal(signal.SIGHUP)
        for new, level, said, answer in (
            (text + "http2: {", "error", "the configuration is not changed: {problem}", b"200 OK"),
            (text.replace("addr: '127.0.0.1:0'", "addr: '127.0.0.1:1', prefix: /x/"), "warn", "http.addr", b"404 Not Found"),
            (text, "info", "was read again", b"200 OK"),
        ):
            path.write_text(new, encoding="utf-8")
            with patch.object(made, "_log") as log:
                handler(signal.SIGHUP, None)
                await deferLater(reactor, 0.05)
            self.assertIn(said, str(getattr(log, level).call_args_list))
            self.assertIn(answer, await self.get(socket.AF_INET, ("127.0.0.1", port), "/v2/"))
        await made.stopService()
        self.assertIsNot(signal.getsignal(signal.SIGHUP), handler)
        made._reread()

    def test_sighup_and_a_storage_that_cannot_be_used(self) -> None:
        made = self.start("addr: '127.0.0.1:0'", f"filesystem: {{rootdirectory: {self.root}}}")
        with patch.object(made.serving, "configure", side_effect=StorageError("a read-only disk")), patch.object(made, "_log") as log:
            made._reread()
        log.error.assert_called_once()
        log.info.assert_not_called()

    def test_memory_is_served_by_one_process(self) -> None:
        for workers, level in (("", "info"), (", workers: 3", "warn")):
            loading = loaded(self, f"version: 0.1\nstorage: inmemory\nhttp: {{addr: '127.0.0.1:0'{workers}}}\n")
            made = RegistryService(loading, Streams(self.stream, self.access), 3, reactor)
            with patch.object(made, "_log") as log:
                made.startService()
            self.addCleanup(made.stopService)
            self.assertIsNone(made.group)
            self.assertIn("one process serves", str(getattr(log, level).call_args_list))

    def test_resources(self) -> None:
        self.assertTrue(IResource.providedBy(self.make("addr: '127.0.0.1:0'").serving.site.resource))


class MetricsTests(ApiCase):
    """The page of metrics, and what says whether clients should come."""

    config = MINIMAL + "http: {debug: {addr: '127.0.0.1:0', prometheus: {enabled: true, path: /numbers}}}\n"

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.service.serving._meter.stop)

    def operator(self) -> Client:
        return Client(self.service.debug_site, self.clock)

    def numbers(self) -> dict[str, float]:
        """The page, by metric and labels."""
        answer = self.operator().ask("GET", "/numbers")
        self.assertEqual((answer.status, answer["Content-Type"]), (200, "text/plain; version=0.0.4; charset=utf-8"))
        lines = [line for line in answer.body.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def test_a_push_and_a_pull(self) -> None:
        manifest = self.image("library/one")
        self.push_manifest("library/one", "latest", manifest)
        self.ask("GET", "/v2/library/one/manifests/latest")
        self.ask("GET", f"/v2/library/one/blobs/{digest_of(b'layer')}")
        self.ask("GET", "/v2/li%62rary/one/manifests/latest")
        self.ask("GET", "/nowhere")
        self.ask("GET", "/%6eowhere")
        found = self.numbers()

        def requests(handler: str, method: str, code: int) -> float:
            return found[f'registry_http_requests_total{{code="{code}",handler="{handler}",method="{method}"}}']

        self.assertEqual(requests("manifest", "put", 201), 1)
        # The name in the path is spelled in two ways.
        self.assertEqual(requests("manifest", "get", 200), 2)
        self.assertEqual(requests("blob", "get", 200), 1)
        self.assertEqual(requests("blob_upload", "post", 202), 2)
        self.assertEqual(requests("blob_upload_chunk", "put", 201), 2)
        self.assertEqual(requests("other", "get", 404), 2)
        self.assertEqual(found['regd_http_bytes_total{direction="in"}'], len(manifest) + len(b"layer{}"))
        self.assertEqual((found["regd_workers"], found[f'regd_build_info{{version="{__version__}"}}']), (1, 1))
        self.assertGreater(found["process_open_fds"], 0)
        self.assertFalse(any("library" in name for name in found))

    def test_every_metric_of_the_catalogue(self) -> None:
        """Every one has a value after a push and a pull, but what tells of a run before there was one, and of endpoints; no other."""
        self.push_manifest("library/one", "latest", self.image("library/one"))
        self.ask("GET", "/v2/library/one/manifests/latest")
        names = {re.sub(r"(_bucket|_sum|_count)?(\{.*)?$", "", name) for name in self.numbers()}
        later = {"regd_cache_bytes", "regd_cache_blobs", "regd_gate_longest_closed_seconds", "registry_storage_action_seconds"}
        later |= {"registry_notifications_events_total", "registry_notifications_pending_total", "registry_notifications_status_total"}
        later |= {"regd_notifications_undelivered_total"}
        self.assertEqual(names, {name for name in CATALOGUE if name not in later and not name.startswith("regd_chore_last_")})

    def test_what_is_under_way(self) -> None:
        begun = self.ask("POST", "/v2/some/blobs/uploads/", body=b"")
        client = self.client()
        head = f"PATCH {path_of(begun['Location'])} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfive."
        client.send(head.encode())
        found = self.numbers()
        self.assertEqual(found["regd_uploads_in_progress"], 1)
        self.assertEqual(found['registry_http_in_flight_requests{handler="blob_upload_chunk"}'], 1)
        client.send(b"more.")
        self.assertEqual(self.numbers()["regd_uploads_in_progress"], 0)

    def test_storage_errors(self) -> None:
        driver: Any = failing(lambda: StorageError("on fire"), "stat")
        self.build(self.config, driver)
        driver.broken = True
        self.assertEqual(self.ask("GET", f"/v2/some/blobs/{digest_of(b'')}").status, 503)
        self.assertEqual(self.numbers()['regd_storage_errors_total{kind="other"}'], 1)

    def test_only_where_it_is_wanted(self) -> None:
        self.build(MINIMAL)
        self.assertEqual(self.operator().ask("GET", "/metrics").status, 404)
        self.build(self.config)
        self.refused(self.operator().ask("POST", "/numbers"), 405, "UNSUPPORTED")
        self.assertEqual(self.operator().ask("GET", "/metrics").status, 404)

    def test_alive_and_ready(self) -> None:
        self.assertEqual(self.operator().ask("GET", "/livez").status, 200)
        answer = self.operator().ask("GET", "/readyz")
        self.assertEqual((answer.status, json.loads(answer.body)), (503, {"regd": "starting"}))
        self.service.running = True
        self.assertEqual(self.operator().ask("GET", "/readyz").status, 200)
        self.service._stopping = True
        answer = self.operator().ask("GET", "/readyz")
        self.assertEqual((answer.status, json.loads(answer.body)), (503, {"regd": "stopping"}))
        self.assertEqual(self.operator().ask("GET", "/livez").status, 200)
        self.service.running = False
