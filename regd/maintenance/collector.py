"""
The collection of what nothing refers to any more: one run of it.

Marking goes over all repositories with the registry open (:mod:`~regd.maintenance.marking`). What it has not met, and nobody has pushed or
asked for within the grace period, is moved into the trash with the gate closed, a few milliseconds at a time
(:mod:`~regd.maintenance.sweep`), and removed with the gate open. Why that is sound, and what a crash leaves, is told in
``docs/architecture.rst``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from time import monotonic

from regd.maintenance.closing import Closing
from regd.maintenance.evicting import Eviction
from regd.maintenance.fetches import remove_abandoned
from regd.maintenance.gate import Gate
from regd.maintenance.keeping import Means
from regd.maintenance.marking import Marking
from regd.maintenance.reading import Reader
from regd.maintenance.removing import Removing
from regd.maintenance.steps import Skipped, Steps
from regd.maintenance.summary import Orders, Running, Stopped, Summary, Witness
from regd.maintenance.survey import Survey, repositories
from regd.maintenance.sweep import Sweep
from regd.maintenance.tally import Tally
from regd.maintenance.trash import Trash
from regd.moments import rfc3339
from regd.pace import Sleep
from regd.storage import layout
from regd.storage.damage import Damage
from regd.storage.driver import Busy, Driver, Held, Missing, StorageError

__all__ = ["Collector", "Orders", "Running", "Stopped", "Summary", "Witness"]


class Collector:
    """
    One run.

    :param gate: closed for each lot that is moved.
    :param damage: told of each broken file that is met.
    :param witness: told what is found; ``None`` where nobody wants to know.
    :param sleep: waits.
    :param now: seconds since the epoch.
    """

    def __init__(
        self,
        driver: Driver,
        gate: Gate,
        damage: Damage,
        orders: Orders,
        witness: Witness | None,
        sleep: Sleep,
        now: Callable[[], float],
    ) -> None:
        self._driver = driver
        self._damage = damage
        self._orders = orders
        self._witness = witness
        self._now = now
        self._tally = Tally()
        self._steps = Steps(orders.maxrate, sleep)
        self._closing = Closing(gate, self._steps)
        self._skipped = Skipped(driver, damage)
        self._trash = Trash(driver, self._steps, witness)
        self._stale = False

    def stop(self) -> None:
        """End soon, and leave the rest to the next run. Safe to call at any time, also from a signal handler."""
        self._steps.stop()

    async def run(self) -> Summary:
        """
        Collect. What goes wrong with the storage is in the summary, and so is that it was stopped.

        :raises Running: when another collection runs on this directory.
        """
        started = rfc3339(self._now())
        began = monotonic()
        finished, error = False, ""
        lock: Held | None = None
        try:
            lock = await self._lock()
            await self._collect()
            finished = True
        except Stopped:
            pass
        except StorageError as failure:
            error = str(failure)
        finally:
            # Before the lock is let go of: the next one to hold it may write its own.
            summary = self._summary(started, monotonic() - began, finished, error)
            if lock is not None:
                try:
                    await self._report(summary)
                finally:
                    lock.close()
        return summary

    async def _report(self, summary: Summary) -> None:
        if not self._orders.dryrun:
            kind = "collection" if self._orders.garbage else "eviction"
            with suppress(StorageError):
                await self._driver.write((layout.report(kind), summary.to_json().encode()), durable=False)

    async def _lock(self) -> Held | None:
        """
        :returns: nothing for a dry run, which makes nothing, a lock's file included.
        """
        if self._orders.dryrun and self._driver.shared and not await self._driver.exists(layout.collector()):
            return None
        try:
            return await self._driver.lock(layout.collector())
        except Busy:
            raise Running from None
        except StorageError:
            if self._orders.dryrun:
                return None
            raise

    async def _collect(self) -> None:
        orders = self._orders
        if not orders.dryrun:
            self._tally.fetches_removed = await remove_abandoned(self._driver, self._steps, self._now())
        if not orders.garbage and not (await self._was_cut_short() or await self._has_to_make_room()):
            return
        if orders.dryrun:
            await self._mark_and_sweep(self._now())
            return
        # What is there from a run that was cut short. It may have taken a manifest out, and not yet what refers to it.
        self._stale = await self._trash.left()
        await self._trash.empty()
        try:
            await self._mark_and_sweep(await self._begin())
        finally:
            with suppress(Missing, StorageError):
                await self._driver.delete(layout.collecting(), durable=False)
        await self._trash.empty()

    async def _was_cut_short(self) -> bool:
        """Whether a run has left something to be finished."""
        return await self._driver.exists(layout.collecting()) or await self._trash.left()

    async def _has_to_make_room(self) -> bool:
        """Whether anything that is cached may have to go: a look at what there is of it, which is cheap."""
        orders = self._orders
        survey = Survey(self._driver, self._steps)
        async for name in repositories(self._driver, self._steps, orders.prefixes):
            await survey.add(name)
        self._tally.blobs_cached, self._tally.bytes_cached = survey.count, survey.total()
        too_old = orders.maxage is not None and survey.oldest() < self._now() - orders.maxage
        return too_old or (orders.maxsize is not None and self._tally.bytes_cached > orders.maxsize)

    async def _begin(self) -> float:
        """
        Have all changes know that a collection runs, and wait for those that began before they could.

        :returns: the time since when what they make reachable is renewed.
        """
        # Empty: on a disk that is full there may be room for a name.
        await self._driver.write((layout.collecting(), b""), durable=False)
        began = (await self._driver.stat(layout.collecting())).modified

        async def nothing() -> None:
            pass

        await self._closing(nothing, 0)
        return began

    async def _mark_and_sweep(self, began: float) -> None:
        """
        :param began: when the run did, by the storage's clock.
        """
        driver, steps, tally, orders = self._driver, self._steps, self._tally, self._orders
        limit = began - orders.grace
        closing = None if orders.dryrun else self._closing
        removing = None if closing is None else Removing(driver, closing, steps, self._trash.path, limit)
        marks: set[bytes] = set()
        means = Means(
            Reader(driver, self._skipped, steps, orders.prefixes),
            tally,
            self._witness,
            limit,
            orders.untagged and orders.garbage,
            orders.garbage,
            removing if orders.garbage else None,
            marks,
            orders.evicting,
        )
        try:
            await Marking(driver, steps, means, stale=removing if self._stale else None).run()
            if orders.evicting:
                await self._evict(means, closing, began)
        finally:
            tally.blobs = len(marks)
        if orders.garbage:
            await Sweep(driver, self._skipped, steps, tally, self._witness, limit, marks, closing, self._trash).run()

    async def _evict(self, means: Means, closing: Closing | None, began: float) -> None:
        """Take away what is cached and has to go: its links, its bytes, its marks."""
        driver, steps, witness, path = self._driver, self._steps, self._witness, self._trash.path
        marks, cached = means.marks, means.cached
        eviction = Eviction(driver, means.reader, steps, closing, path, self._orders, began, self._tally, witness, marks, cached)
        going = await eviction.links()
        tally = Tally()
        try:
            # All that may refer to it has been read, and what refers to it since has renewed it: so no grace period need be waited for.
            await Sweep(driver, self._skipped, steps, tally, witness, began, frozenset(), closing, self._trash).these(going)
        finally:
            self._tally.blobs_evicted, self._tally.bytes_evicted = tally.blobs_swept, tally.bytes_freed
        await eviction.unmark()
        if closing is None:
            # Counted once.
            marks.update(going)

    def _summary(self, started: str, seconds: float, finished: bool, error: str) -> Summary:
        closed = self._closing.closed
        return Summary(
            started=started,
            seconds=round(seconds, 3),
            seconds_open=round(seconds - closed, 3),
            milliseconds_closed=round(closed * 1000, 3),
            longest_closed_milliseconds=round(self._closing.longest * 1000, 3),
            **asdict(self._tally),
            skipped=self._skipped.count,
            dryrun=self._orders.dryrun,
            untagged=self._orders.untagged,
            finished=finished,
            error=error,
        )
