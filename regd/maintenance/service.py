"""A chore that is done again and again by itself, at times of its own, and never twice at once."""

from __future__ import annotations

import random as randomness
import time
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from regd.maintenance.schedule import LocalTime, Plan, back_off, opening
from regd.moments import rfc3339

__all__ = ["Chore", "RunFailed", "Timed"]

#: However far away the next run is, the clock is looked at after so many seconds: it may have been set, or the machine have slept.
_LOOK: Final = 3600.0

#: A run that is further away than the plan can mean, by more than the longest wait for a window, in seconds, is so because the clock has
#: been set back.
_WINDOW_WAIT: Final = 2 * 86400.0


class RunFailed(Exception):
    """A run that did not come to its end; ``str()`` says why, for the log."""


class Chore(Protocol):
    """
    What is to be done.

    :ivar name: what the log calls it: ``garbage collection``.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - an attribute, documented above

    async def run(self) -> None:
        """
        Do it once.

        :raises RunFailed: when that was not possible.
        """

    def stop(self) -> None:
        """End a run soon; :meth:`run` then comes back as if it were done. Safe to call at any time."""


class Timed:
    """
    The times of one chore.

    :param clock: for waiting.
    :param now: seconds since the epoch.
    :param random: a number from 0 to just below 1.
    :param local: for windows.
    :ivar running: whether a run goes on.
    :ivar runs: how many have ended, those that failed included.
    :ivar failures: how many of them have failed.
    """

    _log = Logger()

    def __init__(
        self,
        chore: Chore,
        clock: IReactorTime,
        now: Callable[[], float],
        random: Callable[[], float] = randomness.random,
        local: LocalTime = time.localtime,
    ) -> None:
        self._chore = chore
        self._clock = clock
        self._now = now
        self._random = random
        self._local = local
        self._plan: Plan | None = None
        #: The next run: not before this, were there no window; and when.
        self._wanted = 0.0
        self._due = 0.0
        self._timer: IDelayedCall | None = None
        self._begun: float | None = None
        self._in_a_row = 0
        self._ended: Deferred[None] | None = None
        self.running = False
        self.runs = 0
        self.failures = 0

    @property
    def next(self) -> float | None:
        """When the next run begins, in seconds since the epoch; ``None`` where none is planned, or one goes on."""
        return self._due if self._plan is not None and not self.running else None

    def configure(self, plan: Plan | None) -> None:
        """
        Do it by this plan from now on; ``None`` ends a run that goes on, and begins none. The date of the next run stays where the interval
        stays, as far as the window allows it. A run that goes on is not affected by another plan.
        """
        before, self._plan = self._plan, plan
        if plan is None:
            self._cancel()
            if self.running:
                self._chore.stop()
        elif self.running or plan == before:
            # Planned when the run has ended, or already.
            return
        elif before is None or (self._begun is None and plan.interval != before.interval):
            self._plan_for(self._now() + self._random() * plan.first)
        elif plan.interval != before.interval and self._begun is not None:
            self._plan_for(max(self._now(), self._begun + plan.interval))
        else:
            self._plan_for(self._wanted)

    async def stop(self) -> None:
        """Begin no more runs, end the one that goes on, and wait for that. May be called again."""
        self.configure(None)
        if self._ended is not None:
            waiting: Deferred[None] = Deferred()
            self._ended.chainDeferred(waiting)
            await waiting

    def _plan_for(self, wanted: float) -> None:
        assert self._plan is not None
        self._wanted = wanted
        self._due = opening(wanted, self._plan.window, self._local)
        self._wait()

    def _wait(self) -> None:
        self._cancel()
        self._timer = self._clock.callLater(min(max(self._due - self._now(), 0.0), _LOOK), self._look)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """The time has come, or an hour has passed."""
        self._timer = None
        plan, now = self._plan, self._now()
        assert plan is not None
        if self._due - now > max(plan.interval, plan.first) + _WINDOW_WAIT:
            self._plan_for(now + plan.interval)
        elif now < self._due:
            self._wait()
        else:
            self._begun = now
            self.running = True
            self._ended = Deferred()
            Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        assert self._begun is not None
        assert self._ended is not None
        failed = await self._try()
        self.running = False
        self.runs += 1
        self.failures += failed
        self._in_a_row = self._in_a_row + 1 if failed else 0
        if self._plan is not None and failed:
            delay = back_off(self._in_a_row, self._plan.interval)
            self._plan_for(self._now() + delay)
            self._log.error("{name} is tried again at {when}", name=self._chore.name, when=rfc3339(self._due))
        elif self._plan is not None:
            # The clock may have been set back meanwhile.
            self._plan_for(min(self._begun, self._now()) + self._plan.interval)
        ended, self._ended = self._ended, None
        ended.callback(None)

    async def _try(self) -> bool:
        """Whether a run has failed."""
        try:
            await self._chore.run()
        except RunFailed as error:
            self._log.error("{name} failed: {error}", name=self._chore.name, error=error)
        except Exception:  # noqa: BLE001 - whatever it is, the next run is to come
            self._log.failure("{name} failed", name=self._chore.name)
        else:
            return False
        return True
