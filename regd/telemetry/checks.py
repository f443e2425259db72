"""One thing that has to be well, looked at again and again."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import treq
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.web.http_headers import Headers

from regd.config import FileCheck, HealthChecks, HTTPCheck, TCPCheck
from regd.storage.driver import Driver, StorageError

__all__ = ["Check", "make_checks"]

#: What is wrong, or nothing.
Look = Callable[[], Awaitable[str]]


class Check:
    """
    Looks, and remembers what it saw.

    :param name: what ``/debug/health`` calls it.
    :param look: sees what is wrong; whatever it raises is wrong, too.
    :param interval: seconds from the end of one look to the next.
    :param threshold: how many looks in a row have to fail before it counts.
    :param clock: ``Any``: a reactor is typed as the union of what reactors may be.
    """

    _log = Logger()

    def __init__(self, name: str, look: Look, interval: float, threshold: int, clock: Any) -> None:
        self.name = name
        self._look = look
        self._interval = interval
        self._threshold = max(threshold, 1)
        self._clock = clock
        self._failures = 0
        self._problem = ""
        self._running = False
        self._timer: IDelayedCall | None = None
        self._changed: Callable[[], None] = lambda: None

    @property
    def problem(self) -> str:
        """What is wrong; empty as long as that was not seen often enough, and before the first look."""
        return self._problem if self._failures >= self._threshold else ""

    def start(self, changed: Callable[[], None] = lambda: None) -> None:
        """
        Look now, and from now on.

        :param changed: called whenever it begins to fail, and when it is well again.
        """
        self._running = True
        self._changed = changed
        Deferred.fromCoroutine(self._go())

    def stop(self) -> None:
        """Look no more."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _again(self) -> None:
        Deferred.fromCoroutine(self._go())

    async def _go(self) -> None:
        self._timer = None
        try:
            problem = await self._look()
        except Exception as error:  # noqa: BLE001 - a check that fails, however, is a check that fails
            problem = str(error) or type(error).__name__
        # It may have been stopped while it looked.
        if not self._running:
            return
        failed = bool(self.problem)
        self._failures = self._failures + 1 if problem else 0
        self._problem = problem
        self._timer = self._clock.callLater(self._interval, self._again)
        if bool(self.problem) != failed:
            if self.problem:
                text = "health check {name} fails, and clients are refused until it is well: {problem}"
                self._log.error(text, name=self.name, problem=problem)
            else:
                self._log.info("health check {name} is well again", name=self.name)
            self._changed()


def make_checks(health: HealthChecks, driver: Driver, reactor: Any) -> list[Check]:
    """
    The checks that are configured, not yet started.

    :param reactor: ``Any``: as of :class:`Check`.
    """
    found = []
    if health.storagedriver.enabled:
        checked = health.storagedriver
        found.append(Check(f"storagedriver_{driver.name}", _storage(driver), checked.interval, checked.threshold, reactor))
    found += [Check(one.file, _file(one), one.interval, one.threshold, reactor) for one in health.file]
    found += [Check(one.uri, _http(one, reactor), one.interval, one.threshold, reactor) for one in health.http]
    found += [Check(str(one.addr), _tcp(one, reactor), one.interval, one.threshold, reactor) for one in health.tcp]
    return found


def _storage(driver: Driver) -> Look:
    async def look() -> str:
        try:
            await driver.check()
        except StorageError as error:
            return str(error)
        return ""

    return look


def _file(check: FileCheck) -> Look:
    async def look() -> str:
        try:
            os.lstat(check.file)
        except FileNotFoundError:
            return ""
        # As registry:2 says it; and as with registry:2 a place that cannot be looked at is not well either.
        return "file exists"

    return look


def _http(check: HTTPCheck, reactor: Any) -> Look:
    async def look() -> str:
        headers = Headers({name.encode(): [value.encode() for value in values] for name, values in check.headers.items()})
        asked: Deferred[Any] = treq.head(
            check.uri, headers=headers, timeout=check.timeout, unbuffered=True, persistent=False, reactor=reactor
        )
        answer = await asked
        return "" if answer.code == check.statuscode else f"downstream service returned unexpected status: {answer.code}"

    return look


def _tcp(check: TCPCheck, reactor: Any) -> Look:
    async def look() -> str:
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        endpoint = HostnameEndpoint(reactor, check.addr.host or "localhost", check.addr.port, timeout=check.timeout)
        connected: Any = await endpoint.connect(factory)
        connected.transport.loseConnection()
        return ""

    return look
