"""
A scrub: everything that is stored, looked at once.

It goes through three stages, each in an order of its own: the repositories, whose links and manifests it compares with each other and
with what is there; the blobs, which it reads to their ends; and what lies about in regd's own corner. Where it stands is written down every
few seconds, at the last place where nothing was in doubt, and the next scrub goes on there. What it remembers besides is which blobs are
linked; a scrub that goes on learns that anew, from names alone.

It runs beside a daemon, and changes nothing unless it is told to mend (:mod:`regd.maintenance.scrub.mending`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final

from regd.maintenance.gate import Gate
from regd.maintenance.scrub.blobs import Blobs
from regd.maintenance.scrub.desk import Desk, Witness
from regd.maintenance.scrub.findings import Progress, Stage
from regd.maintenance.scrub.hashing import Hasher, Stopped
from regd.maintenance.scrub.leftovers import Leftovers
from regd.maintenance.scrub.mending import Mender
from regd.maintenance.scrub.repositories import Repositories
from regd.moments import rfc3339
from regd.pace import Sleep, naps
from regd.storage import layout
from regd.storage.driver import Busy, Driver, Held, Missing, StorageError

__all__ = ["Orders", "Running", "Scrub"]

#: How often it is written down how far a scrub has come, in seconds.
_OFTEN: Final = 3.0

#: The most that is read of what was written down, in bytes. A finding has a path, which file systems limit to 4096 bytes.
_STATE_LIMIT: Final = 16 * 1024 * 1024


class Running(Exception):
    """Another scrub runs on this directory."""


@dataclass(frozen=True)
class Orders:
    """
    :ivar repair: mend what can be mended.
    :ivar restart: begin anew, also where the last scrub was stopped.
    :ivar maxrate: read so many bytes a second at most; 0 for no limit.
    :ivar sparse: the configuration lets an index name images that are not here.
    :ivar measure: say before the blobs how much there is to be read.
    """

    repair: bool = False
    restart: bool = False
    maxrate: int = 0
    sparse: bool = False
    measure: bool = False


class Scrub:
    """
    One scrub.

    :param sleep: waits; without a reactor that blocks.
    :param now: seconds since the epoch.
    :ivar stopping: whether it has been asked to end.
    """

    def __init__(self, driver: Driver, gate: Gate, witness: Witness, orders: Orders, sleep: Sleep, now: Callable[[], float]) -> None:
        self._driver = driver
        self._gate = gate
        self._witness = witness
        self._orders = orders
        self._sleep = sleep
        self._now = now
        self.stopping = False
        #: What is written down: the progress at the last place where nothing was in doubt.
        self._safe = Progress()
        self._saved = monotonic()
        self._writable = True

    def stop(self) -> None:
        """Have it end soon. May be called at any time, also by a signal's handler."""
        self.stopping = True

    async def run(self) -> Progress:
        """
        Scrub.

        :returns: what was found, earlier parts included; its stage is :attr:`Stage.DONE` unless it was stopped.
        :raises Running: when another one runs.
        :raises StorageError: when the storage cannot be used.
        """
        held = await self._lock()
        try:
            progress = self._safe = await self._begin()
            self._witness.begins(progress)
            try:
                await self._stages(replace(progress, findings=list(progress.findings)))
            except Stopped:
                pass
            finally:
                self._safe.ended = rfc3339(self._now())
                await self._save(durable=True)
            return self._safe
        finally:
            if held is not None:
                held.close()

    async def _rest(self, seconds: float) -> None:
        """A :data:`~regd.pace.Sleep` that ends with :class:`Stopped` soon after somebody has asked for it."""
        await naps(seconds, self._sleep, self._check)

    def _check(self) -> None:
        if self.stopping:
            raise Stopped

    async def _lock(self) -> Held | None:
        try:
            return await self._driver.lock(layout.scrubbing())
        except Busy:
            raise Running from None
        except StorageError:
            if self._orders.repair:
                raise
            # Whoever may only read can look.
            self._writable = False
            return None

    async def _begin(self) -> Progress:
        """What the last scrub has written down, if this one is to go on with it."""
        anew = Progress(started=rfc3339(self._now()), repair=self._orders.repair)
        try:
            last = Progress.from_json(await self._driver.read(layout.report("scrub"), _STATE_LIMIT))
        except (Missing, ValueError):
            return anew
        if self._orders.restart or last.stage is Stage.DONE or last.repair != self._orders.repair:
            return anew
        last.ended = ""
        return last

    async def _stages(self, progress: Progress) -> None:
        await self._driver.check()
        hasher = Hasher(
            self._driver,
            self._sleep,
            self._orders.maxrate,
            stopping=lambda: self.stopping,
            passed=lambda count: self._passed(progress, count),
        )
        mender = Mender(self._driver, self._gate, hasher, self._sleep, self._rest)
        desk = Desk(
            self._driver,
            self._witness,
            progress,
            self._sleep,
            self._now,
            repair=self._orders.repair,
            stopping=lambda: self.stopping,
        )
        repositories = Repositories(desk, mender, sparse=self._orders.sparse)
        await self._repositories(repositories, desk)
        if progress.stage is Stage.BLOBS:
            await self._blobs(Blobs(desk, hasher, mender, repositories.linked, repositories.aliases, repositories.cached), desk)
        await Leftovers(desk).check()
        progress.stage = Stage.DONE
        await self._mark(progress)

    async def _repositories(self, repositories: Repositories, desk: Desk) -> None:
        progress = desk.progress
        if progress.stage is Stage.LEFTOVERS:
            return
        after = progress.position if progress.stage is Stage.REPOSITORIES else ""
        if after or progress.stage is Stage.BLOBS:
            async for name in repositories.walk():
                await desk.breathe()
                await repositories.gather(name)
                if name == after:
                    break
        if progress.stage is Stage.BLOBS:
            return
        async for name in repositories.walk(after):
            await desk.step()
            progress.repositories += await repositories.check(name)
            await desk.confirm()
            progress.position = name
            await self._mark(progress)
        progress.stage, progress.position = Stage.BLOBS, ""
        await self._mark(progress)

    async def _blobs(self, blobs: Blobs, desk: Desk) -> None:
        progress = desk.progress
        if self._orders.measure:
            self._witness.expects(*await blobs.measure())
        async for digest in blobs.check(progress.position):
            progress.position = digest or progress.position
            if desk.settled:
                await self._mark(progress)
        progress.stage, progress.position = Stage.LEFTOVERS, ""
        await self._mark(progress)

    def _passed(self, progress: Progress, count: int) -> None:
        progress.size += count
        self._witness.progress(progress)

    async def _mark(self, progress: Progress) -> None:
        """Nothing is in doubt here: if the scrub is stopped, the next one goes on from here."""
        self._safe = replace(progress, findings=list(progress.findings))
        if monotonic() - self._saved >= _OFTEN:
            await self._save(durable=False)

    async def _save(self, *, durable: bool) -> None:
        self._saved = monotonic()
        if self._writable:
            await self._driver.write((layout.report("scrub"), self._safe.to_json()), durable=durable)
