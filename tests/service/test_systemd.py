"""What a manager of services says to the daemon, and hears from it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from regd.config import load
from regd.service.daemon import CannotStart, RegistryService, Streams
from regd.service.systemd import BadSocket, Manager
from tests.e2e.rawhttp import Client
from tests.web.support import MINIMAL

HERE = str(os.getpid())


class Listener:
    """The manager's end of ``NOTIFY_SOCKET``."""

    def __init__(self, case: SynchronousTestCase, *, abstract: bool = False) -> None:
        directory = tempfile.TemporaryDirectory()
        case.addCleanup(directory.cleanup)
        self.path = f"@{directory.name}/notify" if abstract else f"{directory.name}/notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        case.addCleanup(self.socket.close)
        self.socket.bind(self.path.replace("@", "\0"))
        self.socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        """The messages that have come, by lines."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return found




class NotifyTests(SynchronousTestCase):
    def manager(self, **environ: str) -> tuple[Manager, Listener]:
        listener = Listener(self)
        return Manager.from_environment({"NOTIFY_SOCKET": listener.path, **environ}), listener

    def test_its_life(self) -> None:
        manager, listener = self.manager()
        manager.ready("serves")
        manager.reloading()
        manager.reloaded("serves  more\nlines")
        manager.stopping("ends", 2.5)
        said = listener.heard()
        self.assertEqual(said[0], ["READY=1", "STATUS=serves"])
        self.assertEqual(said[1][0], "RELOADING=1")
        self.assertRegex(said[1][1], r"^MONOTONIC_USEC=[0-9]+$")
        self.assertEqual(said[2:], [["READY=1", "STATUS=serves more lines"], ["STOPPING=1", "EXTEND_TIMEOUT_USEC=2500000", "STATUS=ends"]])

    def test_several_reloads_end_with_the_last(self) -> None:
        manager, listener = self.manager()
        manager.ready("serves")
        manager.reloading()
        manager.reloading()
        manager.reloaded("first")
        self.assertEqual([lines[0] for lines in listener.heard()], ["READY=1", "RELOADING=1", "RELOADING=1"])
        manager.reloaded("second")
        self.assertEqual(listener.heard(), [["READY=1", "STATUS=second"]])

    def test_a_reload_before_it_serves_tells_nothing(self) -> None:
        manager, listener = self.manager()
        manager.reloading()
        manager.reloaded("too early")
        self.assertEqual(listener.heard(), [])

    def test_nothing_is_ready_that_stops(self) -> None:
        manager, listener = self.manager()
        manager.stopping("ends", 1)
        listener.heard()
        manager.ready("serves")
        manager.reloading()
        self.assertEqual(listener.heard(), [])

    def test_abstract_names(self) -> None:
        listener = Listener(self, abstract=True)
        Manager.from_environment({"NOTIFY_SOCKET": listener.path}).ready("serves")
        self.assertEqual(len(listener.heard()), 1)

    def test_nobody_listens(self) -> None:
        for address in ("", "vsock:2:1234", "/nowhere/at/all", "relative"):
            manager = Manager.from_environment({"NOTIFY_SOCKET": address})
            manager.ready("serves")
            manager.stopping("ends", 1)

    def test_watchdog(self) -> None:
        manager, listener = self.manager(WATCHDOG_USEC="3000000", WATCHDOG_PID=HERE)
        clock = Clock()
        manager.start_watchdog(clock)
        clock.pump([0.25] * 7)
        # At once, and each three quarters of a second.
        self.assertEqual(listener.heard(), [["WATCHDOG=1"]] * 3)

    def test_watchdog_of_what_is_not_well(self) -> None:
        manager, listener = self.manager(WATCHDOG_USEC="4000000", WATCHDOG_PID=HERE)
        clock = Clock()
        answers = [True, False, False, True]
        manager.start_watchdog(clock, lambda: answers.pop(0))
        clock.pump([1, 1])
        self.assertEqual(listener.heard(), [["WATCHDOG=1"]])
        clock.advance(1)
        self.assertEqual(listener.heard(), [["WATCHDOG=1"]])

    def test_no_watchdog(self) -> None:
        for environ in ({}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "often"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}):
            manager, listener = self.manager(**environ)
            clock = Clock()
            manager.start_watchdog(clock)
            self.assertEqual((listener.heard(), clock.getDelayedCalls()), ([], []))

    @given(st.dictionaries(st.sampled_from(["LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID", "NOTIFY_SOCKET"]), st.text()))
    def test_any_environment_is_understood_or_ignored(self, environ: dict[str, str]) -> None:
        environ = {**environ, "PATH": "/bin"}
        manager = Manager.from_environment(environ)
        self.assertEqual((environ, manager.descriptors), ({"PATH": "/bin"}, ()))


class SocketTests(SynchronousTestCase):
    def listening(self, family: int = socket.AF_INET) -> socket.socket:
        made = socket.socket(family)
        self.addCleanup(made.close)
        made.bind(("127.0.0.1", 0))
        made.listen()
        return made

    def take(self, manager: Manager, *originals: socket.socket) -> Manager:
        """Let the descriptors be copies of these."""
        manager.descriptors = tuple((os.dup(one.fileno()), name) for one, (_, name) in zip(originals, manager.descriptors, strict=True))
        return manager

    def test_who_is_passed_what(self) -> None:
        for environ, expected in (
            ({}, ()),
            ({"LISTEN_PID": "1", "LISTEN_FDS": "2"}, ()),
            ({"LISTEN_PID": HERE, "LISTEN_FDS": "none"}, ()),
            ({"LISTEN_PID": HERE, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "one"}, ()),
            ({"LISTEN_PID": HERE, "LISTEN_FDS": "2"}, ((3, "unknown"), (4, "unknown"))),
            ({"LISTEN_PID": HERE, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "one:one"}, ((3, "one"), (4, "one"))),
        ):
            variables = dict(environ)
            self.assertEqual(Manager.from_environment(variables).descriptors, expected)
            self.assertEqual(variables, {}, "what we start would take them for its own")

    def test_what_twisted_has_taken(self) -> None:
        first = {"LISTEN_PID": HERE, "LISTEN_FDS": "1"}
        self.assertEqual(Manager.from_environment({"LISTEN_FDNAMES": "regd.socket"}, first).descriptors, ((3, "regd.socket"),))

    def test_the_first_environment(self) -> None:
        asked = "from regd.service.systemd import first_environment; print(first_environment())"
        environ = {"ONE": "a=b", "TWO": "", "PYTHONPATH": os.pathsep.join(sys.path)}
        said = subprocess.run([sys.executable, "-c", asked], env=environ, capture_output=True, check=True)
        self.assertEqual(said.stdout.decode().strip(), str(environ))

    def test_sockets_and_their_names(self) -> None:
        manager = Manager(descriptors=((0, "regd.socket"), (0, "debug"), (0, "other")))
        originals = [self.listening() for _ in range(3)]
        passed = self.take(manager, *originals).take_sockets()
        assert passed.debug is not None
        ours = [*passed.serving, passed.debug]
        for one in ours:
            self.addCleanup(one.close)
        self.assertEqual([one.getsockname() for one in ours], [originals[n].getsockname() for n in (0, 2, 1)])
        self.assertTrue(all(one.gettimeout() == 0 and not one.get_inheritable() for one in ours))
        self.assertEqual(manager.take_sockets().serving, (), "they are taken once")

    def test_what_nobody_can_connect_to(self) -> None:
        datagram, bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
        for one in (datagram, bound):
            self.addCleanup(one.close)
            with self.assertRaisesRegex(BadSocket, r"descriptor [0-9]+ \(regd\.socket\).*ListenStream="):
                self.take(Manager(descriptors=((0, "regd.socket"),)), one).take_sockets()
        reading, writing = os.pipe()
        self.addCleanup(os.close, writing)
        with self.assertRaisesRegex(BadSocket, "is no socket"):
            Manager(descriptors=((reading, "regd.socket"),)).take_sockets()
        os.close(reading)

    def test_one_for_debug_is_enough(self) -> None:
        manager = Manager(descriptors=((0, "debug"), (0, "debug")))
        with self.assertRaisesRegex(BadSocket, "2 sockets are named debug"):
            self.take(manager, self.listening(), self.listening()).take_sockets()


class ServiceTests(TestCase):
    """The daemon under a manager."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.listener = Listener(self)
        self.messages: list[list[str]] = []
        self.config = self.directory / "config.yml"

    def service(self, count: int, *passed: tuple[socket.socket, str], text: str = "") -> RegistryService:
        self.config.write_text(MINIMAL + "http: {addr: '127.0.0.1:0', draintimeout: 7s}\n" + text, encoding="utf-8")
        manager = Manager.from_environment({"NOTIFY_SOCKET": self.listener.path})
        manager.descriptors = tuple((os.dup(one.fileno()), name) for one, name in passed)
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - closed by the cleanup
        self.addCleanup(stream.close)
        return RegistryService(load(str(self.config), {}), Streams(stream, stream), count, reactor, manager)

    def listening(self) -> tuple[socket.socket, int]:
        made = socket.socket()
        self.addCleanup(made.close)
        made.bind(("127.0.0.1", 0))
        made.listen()
        return made, made.getsockname()[1]

    async def hear(self, what: str) -> list[str]:
        """The next message that begins with ``what``; there has to be one soon."""
        for _ in range(500):
            self.messages += self.listener.heard()
            while self.messages:
                lines = self.messages.pop(0)
                if lines[0] == what:
                    return lines
            await deferLater(reactor, 0.01)
        raise AssertionError(f"nothing was heard of {what}")

    async def status_of(self, port: int, path: str = "/v2/") -> int:
        answer = await deferToThread(Client(port).get, path)
        return int(answer.status)

    def test_it_tells_of_itself(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.check_it_tells_of_itself())

    async def check_it_tells_of_itself(self) -> None:
        service = self.service(1)
        service.startService()
        try:
            said = await self.hear("READY=1")
            self.assertRegex(said[1], r"^STATUS=serves http://127\.0\.0\.1:[0-9]+/ from memory")
            os.kill(os.getpid(), signal.SIGHUP)
            await self.hear("RELOADING=1")
            self.assertEqual(await self.hear("READY=1"), said)
            self.config.write_text("version: 7\n", encoding="utf-8")
            os.kill(os.getpid(), signal.SIGHUP)
            await self.hear("RELOADING=1")
            self.assertIn("; a change of the configuration was refused: version", (await self.hear("READY=1"))[1])
        finally:
            await service.stopService()
        # 7 s to drain, and what comes after.
        self.assertEqual(int((await self.hear("STOPPING=1"))[1].removeprefix("EXTEND_TIMEOUT_USEC=")) // 1_000_000, 47)

    def test_it_serves_on_what_it_is_passed(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.check_it_serves_on_what_it_is_passed())

    async def check_it_serves_on_what_it_is_passed(self) -> None:
        (first, one), (second, two), (debug, three) = self.listening(), self.listening(), self.listening()
        path = self.directory / "socket"
        unix = socket.socket(socket.AF_UNIX)
        self.addCleanup(unix.close)
        unix.bind(str(path))
        unix.listen()
        path.chmod(0o640)
        service = self.service(1, (first, "regd.socket"), (debug, "debug"), (second, "regd.socket"), (unix, "regd.socket"))
        service.startService()
        try:
            said = await self.hear("READY=1")
            self.assertEqual(said[1].split(" from ")[0], f"STATUS=serves http://127.0.0.1:{one}/, http://127.0.0.1:{two}/, unix:{path}")
            self.assertEqual([await self.status_of(port) for port in (one, two)], [200, 200])
            self.assertEqual(await self.status_of(three, "/debug/health"), 200)
        finally:
            await service.stopService()
        self.assertEqual(path.stat().st_mode & 0o777, 0o640)
        # They are the manager's, who goes on to keep those who connect.
        for family, address in ((socket.AF_INET, ("127.0.0.1", one)), (socket.AF_UNIX, str(path))):
            with socket.socket(family) as client:
                client.connect(address)

    def test_what_is_of_no_use_ends_it(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.check_what_is_of_no_use_ends_it())

    async def check_what_is_of_no_use_ends_it(self) -> None:
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(datagram.close)
        service = self.service(1, (datagram, "regd.socket"))
        with self.assertRaisesRegex(CannotStart, "a socket that was passed is of no use: descriptor"):
            service.startService()
        await service.stopService()
        self.flushLoggedErrors()
