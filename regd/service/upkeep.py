"""What the daemon does by itself at times of its own: garbage collection, the purge of uploads, eviction. Never in a worker."""

from __future__ import annotations

import json
import random as randomness
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Literal

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger

from regd.config import Maintenance
from regd.maintenance.chores import CutShort, Occupied, Order, order
from regd.maintenance.collector import Orders
from regd.maintenance.process import Here, InProcess, Runner
from regd.maintenance.purge import PurgeOrders
from regd.maintenance.schedule import Plan
from regd.maintenance.service import RunFailed, Timed
from regd.moments import rfc3339
from regd.service.measuring import ChoreState, collect_chore
from regd.service.serving import Serving
from regd.storage import layout
from regd.storage.driver import Missing, StorageError
from regd.storage.filesystem import FilesystemDriver
from regd.telemetry.samples import Samples

__all__ = ["Upkeep"]

#: The first purge of uploads begins within so many seconds, as in ``registry:2``.
_FIRST_PURGE: Final = 3600.0

#: The first look at what is cached is taken within so many seconds: the cache may have been too large when the daemon was stopped.
_FIRST_EVICTION: Final = 300.0

#: A summary has fewer bytes.
_LARGEST_SUMMARY: Final = 64 * 1024

#: What is so of a dry run, too.
_ALSO_DRY: Final = frozenset({"milliseconds_closed", "skipped"})

_Level = Literal["error", "warn", "info", "debug"]


class _Reported:
    """
    A :class:`~regd.maintenance.service.Chore`: gives an order, and logs what becomes of it.

    :param name: what the log calls it.
    :param report: what :func:`regd.storage.layout.report` calls it.
    :param text: the line for a summary, a format of its fields.
    :param damaged: see :class:`~regd.maintenance.chores.Listener`.
    :ivar last: the summary of the last run.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        report: str,
        text: str,
        runner: Runner,
        make_order: Callable[[], Order],
        damaged: Callable[[str, str], None],
    ) -> None:
        self.name = name
        self.report = report
        self.last: Mapping[str, Any] = {}
        #: What runs of this daemon add up to, by field of the summary; runs that only looked left out.
        self.totals: dict[str, float] = {}
        self.damaged = damaged
        self._text = text
        self._runner = runner
        self._make_order = make_order

    async def run(self) -> None:
        """See :class:`~regd.maintenance.service.Chore`."""
        try:
            summary = await self._runner.run(self._make_order(), self)
        except Occupied:
            self._log.info("{name}: another one is under way on this directory; the next is at its time", name=self.name)
            return
        except CutShort:
            self._log.info("{name}: stopped before it began", name=self.name)
            return
        self.last = summary
        for key, value in summary.items():
            # A bool is a number to Python.
            if type(value) in {int, float} and (not summary["dryrun"] or key in _ALSO_DRY):
                self.totals[key] = self.totals.get(key, 0) + value
        done = "dry run: " if summary["dryrun"] else ""
        unfinished = "" if summary["finished"] else " (stopped before its end; the next one goes on)"
        self._log.info(f"{{name}}: {done}{self._text}{unfinished}", name=self.name, fields=summary, **summary)
        if summary.get("error"):
            raise RunFailed(str(summary["error"]))

    def stop(self) -> None:
        """See :class:`~regd.maintenance.service.Chore`."""
        self._runner.stop()

    def say(self, level: str, text: str) -> None:
        """See :class:`~regd.maintenance.chores.Listener`."""
        tell = {"error": self._log.error, "warn": self._log.warn, "debug": self._log.debug}.get(level, self._log.info)
        tell("{name}: {text}", name=self.name, text=text)


class Upkeep:
    """
    The timed chores of the daemon.

    :param serving: the storage, and the configuration that is in effect.
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    """

    _log = Logger()

    def __init__(self, serving: Serving, reactor: Any, random: Callable[[], float] = randomness.random) -> None:
        self._serving = serving
        self._reactor = reactor
        self._random = random
        self._now = time.time
        self._suspended = False
        #: The grace period that clients have been promised something by, and a longer one before it, until when that counts.
        self._grace = 0.0
        self._longer = (0.0, 0.0)
        self._collecting = self._timed(
            "garbage collection",
            "collection",
            "{repositories} repositories, {manifests} manifests, {blobs} blobs marked; {blobs_swept} blobs swept, {bytes_freed} bytes "
            "freed; {young} blobs kept by grace, {skipped} bad files skipped; open {seconds_open} s, closed {milliseconds_closed} ms",
            self._collection_order,
        )
        self._purging = self._timed(
            "purge of uploads",
            "purge",
            "{removed} of {uploads} uploads in {repositories} repositories removed, {bytes_freed} bytes freed, "
            "{busy} left that are in use, {skipped} skipped that cannot be read, in {seconds} s",
            self._purge_order,
        )
        self._evicting = self._timed(
            "eviction",
            "eviction",
            "{blobs_evicted} blobs evicted, {bytes_evicted} bytes freed; {blobs_cached} of {bytes_cached} bytes are cached; "
            "{fetches_removed} abandoned fetches removed, {skipped} bad files skipped; "
            "open {seconds_open} s, closed {milliseconds_closed} ms",
            self._eviction_order,
        )

    def configure(self) -> None:
        """Put the configuration of :attr:`Serving.config` into effect; the first time, begin."""
        maintenance = self._serving.config.storage.maintenance
        suspended = maintenance.readonly.enabled
        if suspended and not self._suspended:
            self._log.debug("nothing is removed while storage.maintenance.readonly.enabled is true")
        self._suspended = suspended
        collecting, purging = maintenance.garbagecollect, maintenance.uploadpurging
        if collecting.grace < self._grace:
            self._longer = (max(self._grace, self._kept_for()), self._now() + collecting.grace)
        self._grace = collecting.grace
        plan = Plan(collecting.interval, collecting.interval, collecting.window)
        self._collecting[1].configure(plan if collecting.enabled and not suspended else None)
        plan = Plan(purging.interval, min(purging.interval, _FIRST_PURGE))
        self._purging[1].configure(plan if purging.enabled and not suspended else None)
        proxy = self._serving.config.proxy
        plan = Plan(proxy.limits.interval, min(proxy.limits.interval, _FIRST_EVICTION))
        # Without a limit there is still what is left of fetches.
        self._evicting[1].configure(plan if proxy.upstreams and not suspended else None)

    async def stop(self) -> None:
        """Begin nothing more, end what runs, and wait for that."""
        await gatherResults([Deferred.fromCoroutine(timed.stop()) for _, timed in self._all()])

    async def variables(self) -> dict[str, object]:
        """What is shown at ``/debug/vars``."""
        return {key: await self._state(chore, timed) for key, (chore, timed) in self._named().items()}

    async def collect(self, samples: Samples) -> None:
        """Add what runs have done, and what became of the last ones."""
        for chore, timed in self._all():
            state = ChoreState(timed.running, timed.runs, timed.failures, chore.totals, await self._last(chore))
            collect_chore(samples, chore.report, state)

    def _named(self) -> dict[str, tuple[_Reported, Timed]]:
        return {"garbagecollect": self._collecting, "uploadpurging": self._purging, "eviction": self._evicting}

    def _all(self) -> list[tuple[_Reported, Timed]]:
        return list(self._named().values())

    def _timed(self, name: str, report: str, text: str, make_order: Callable[[], Order]) -> tuple[_Reported, Timed]:
        chore = _Reported(name, report, text, self._runner(), make_order, self._serving.damaged)
        return chore, Timed(chore, self._reactor, time.time, self._random)

    def _runner(self) -> Runner:
        if self._serving.driver.shared:
            return InProcess(self._reactor)
        return Here(lambda: self._serving.driver, lambda seconds: deferLater(self._reactor, seconds), time.time)

    def _collection_order(self) -> Order:
        collecting = self._maintenance().garbagecollect
        orders = Orders(self._kept_for(), collecting.untagged, collecting.dryrun, collecting.maxrate, **self._cached())
        return order(orders, self._root(), collecting.wait)

    def _eviction_order(self) -> Order:
        collecting = self._maintenance().garbagecollect
        orders = Orders(self._kept_for(), maxrate=collecting.maxrate, garbage=False, **self._cached())
        return order(orders, self._root(), collecting.wait)

    def _cached(self) -> dict[str, Any]:
        """What the orders say of cached content. ``Any``: each is of its own type."""
        proxy = self._serving.config.proxy
        return {"prefixes": proxy.prefixes, "maxsize": proxy.limits.maxsize, "maxage": proxy.limits.maxage}

    def _kept_for(self) -> float:
        """
        The grace period of a run, in seconds. After it has been made shorter, what was promised by the longer one (for which a file that is
        old by the shorter was not renewed) is kept for as long as it would be by the shorter.
        """
        longer, until = self._longer
        return max(self._grace, longer) if self._now() < until else self._grace

    def _purge_order(self) -> Order:
        purging = self._maintenance().uploadpurging
        return order(PurgeOrders(purging.age, purging.dryrun), self._root())

    def _maintenance(self) -> Maintenance:
        return self._serving.config.storage.maintenance

    def _root(self) -> str:
        driver = self._serving.driver
        return driver.root if isinstance(driver, FilesystemDriver) else ""

    async def _state(self, chore: _Reported, timed: Timed) -> dict[str, object]:
        planned = timed.next
        return {
            "running": timed.running,
            "next": None if planned is None else rfc3339(planned),
            "runs": timed.runs,
            "failures": timed.failures,
            "last": await self._last(chore),
        }

    async def _last(self, chore: _Reported) -> Mapping[str, Any] | None:
        """The newest summary: that of a command, of this daemon, of one that ran before."""
        stored: Any = None
        with suppress(Missing, StorageError, ValueError, RecursionError):
            stored = json.loads(await self._serving.driver.read(layout.report(chore.report), _LARGEST_SUMMARY))
        known = [summary for summary in (stored, chore.last) if isinstance(summary, dict) and summary]
        return max(known, key=lambda summary: str(summary.get("started", "")), default=None)
