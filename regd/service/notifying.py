"""Notifications of a process: what it writes down, and, in the one that the others are workers of, who is told."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.logger import Logger

from regd.asked import INSTANCE
from regd.config import Config, Endpoint, TCPAddress
from regd.notifications.delivery import Delivery
from regd.notifications.events import Source
from regd.notifications.journal import Journal
from regd.notifications.listening import RequestListener
from regd.notifications.posting import Poster
from regd.notifications.recorder import Recorder
from regd.notifications.undelivered import Undelivered
from regd.storage import layout
from regd.storage.driver import Busy, Driver, StorageError
from regd.storage.filesystem import FilesystemDriver
from regd.storage.locks import FileLock, take
from regd.storage.threads import PoolThreads
from regd.web.urls import Urls

__all__ = ["Notifying", "add_recorded"]

#: Threads wait for flushes and locks here; one writes, others read for endpoints.
_THREADS = 4


class Notifying:
    """
    :param driver: the storage that the events are kept in. Those of one in memory are kept in a temporary directory, and go with it.
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    :param on_recorded: called when this process has put something into the journal.
    """

    _log = Logger()

    def __init__(self, config: Config, driver: Driver, reactor: Any, on_recorded: Callable[[], None]) -> None:
        self._config = config
        self._reactor = reactor
        self._threads = PoolThreads(reactor, _THREADS)
        self._temporary = ""
        if isinstance(driver, FilesystemDriver):
            self._root = driver.root
        else:
            self._root = self._temporary = tempfile.mkdtemp(prefix="regd-")
        self._journal = Journal(f"{self._root}/{layout.notifications()}", config.notifications.maxsize)
        self._recorder = Recorder(self._journal, config.notifications, self._threads.run, on_recorded)
        self._delivery: Delivery | None = None
        self._source = Source(_address(config), INSTANCE)

    def configure(self, config: Config) -> None:
        """Go by another configuration."""
        self._config = config
        self._journal.limit = config.notifications.maxsize
        self._recorder.config = config.notifications
        if self._delivery is not None:
            self._delivery.configure(config.notifications)

    def listener(self, urls: Urls) -> RequestListener | None:
        """Who is to be told what requests do; ``None`` where nobody wants to know."""
        if not self._config.notifications.active:
            return None
        return RequestListener(self._recorder, urls, self._source, time.time)

    def deliver(self) -> None:
        """Be one who tells the endpoints, from now on. Where the journal cannot be used, the log says so, and the next call tries again."""
        if self._delivery is not None:
            return
        undelivered = Undelivered(f"{self._root}/{layout.notifications('undelivered')}")
        delivery = Delivery(self._journal, undelivered, self._make_poster, self._lock, self._threads.run, self._reactor, time.time)
        try:
            os.makedirs(self._journal.directory, exist_ok=True)
            delivery.configure(self._config.notifications)
        except (OSError, StorageError) as error:
            self._log.error("notifications are not sent: {error}", error=error)
        else:
            self._delivery = delivery

    def wake(self) -> None:
        """There is something new in the journal: tell it, if that is done here."""
        if self._delivery is not None:
            self._delivery.wake()

    async def finish(self) -> None:
        """Write down what is still to be written, and end. What has not been delivered is, after the next start."""
        await self._recorder.settle()
        if self._delivery is not None:
            await self._delivery.stop()
        self._threads.stop()
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    async def refresh(self) -> None:
        """Find out what :meth:`variables` does not know by itself."""
        if self._delivery is not None:
            await self._delivery.refresh()

    def variables(self) -> dict[str, object]:
        """Counters."""
        told = {} if self._delivery is None else self._delivery.variables()
        return {**self._recorder.variables(), **told}

    def _make_poster(self, endpoint: Endpoint) -> Poster:
        return Poster(endpoint, self._reactor)

    def _lock(self) -> FileLock | None:
        try:
            root = self._root
            return take(f"{root}/{layout.notifications('sender')}", shared=False, root=root, sign=root)
        except Busy:
            return None


def add_recorded(ours: dict[str, Any], theirs: Iterable[Mapping[str, Any]]) -> None:
    """
    Add what workers have written down to what the parent has.

    :param ours: see :meth:`Notifying.variables`; changed. ``Any``: numbers, among other things.
    :param theirs: the same of workers; empty where one has none.
    """
    for found in theirs:
        for key in ("recorded", "dropped", "failed"):
            ours[key] += found.get(key, 0)
        for endpoint, count in found.get("events", {}).items():
            ours["events"][endpoint] = ours["events"].get(endpoint, 0) + count


def _address(config: Config) -> str:
    """Host name and port, as ``registry:2`` has them."""
    address = config.http.addr
    return f"{socket.gethostname()}:{address.port}" if isinstance(address, TCPAddress) else socket.gethostname()
