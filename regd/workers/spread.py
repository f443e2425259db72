"""
Which worker gets which connection: the one that has the fewest open; of several, the one whose last turn is the longest ago.

A shared listening socket, or ``SO_REUSEPORT``, cannot promise that: which process wakes up first, or what a hash of two addresses says, may
give two connections to one process while another has none. Connections live long here, and one that moves a large blob keeps a core
busy, so two have to be on two cores.

A connection is kept until its worker says that it has it. What a worker had not taken when it died goes to another one.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from regd.workers.channel import Report

__all__ = ["Connection", "Lane", "Spread"]

#: How many connections one worker may have been given and not have said that it has. It keeps a worker that is busy for a moment from
#: being given what another could take now.
IN_FLIGHT: Final = 32

#: How long a worker that is out of file descriptors is left alone, in seconds, unless one of its connections ends before.
RETRY: Final = 1.0


class Connection(Protocol):
    """What is handed over: a socket."""

    def close(self) -> None:
        """Give up our copy."""


class Lane:
    """
    What is known here of one worker's connections.

    :param send: hands a connection over; ``False`` when that is not possible now.
    :ivar in_flight: what the worker has been given and has not said that it has, in order.
    :ivar open: how many it has.
    """

    def __init__(self, send: Callable[[Connection], bool]) -> None:
        self._send = send
        self.in_flight: deque[Connection] = deque()
        self.open = 0
        self.last_turn = 0
        #: The channel is full; the next report says that it has been read.
        self._full = False
        self.resting: IDelayedCall | None = None

    @property
    def load(self) -> int:
        """How many connections the worker has, or will have in a moment."""
        return self.open + len(self.in_flight)

    @property
    def has_room(self) -> bool:
        """Whether it can be given one more now."""
        return not self._full and self.resting is None and len(self.in_flight) < IN_FLIGHT

    def give(self, connection: Connection) -> bool:
        """
        :returns: whether the connection is on its way.
        """
        if not self._send(connection):
            # The next report says that there is room.
            self._full = bool(self.in_flight)
            return False
        self.in_flight.append(connection)
        return True

    def count(self, report: Report) -> list[Connection]:
        """
        Note what the worker says.

        :returns: the connections that it could not take.
        :raises ValueError: when it speaks of more than it was given.
        """
        if report.taken + report.refused > len(self.in_flight) or report.closed > self.open + report.taken:
            raise ValueError(f"{report} about {len(self.in_flight)} connections on their way and {self.open} open ones")
        self._full = False
        for _ in range(report.taken):
            self.in_flight.popleft().close()
        self.open += report.taken - report.closed
        return [self.in_flight.popleft() for _ in range(report.refused)]


class Spread:
    """
    Hands connections out.

    :param pause: called with whether new connections are to be left where they are, in the kernel's queue, because nobody can take them.
    """

    def __init__(self, clock: IReactorTime, pause: Callable[[bool], None]) -> None:
        self._clock = clock
        self._pause = pause
        self._paused = True
        self._lanes: list[Lane] = []
        self._waiting: deque[Connection] = deque()
        self._turns = itertools.count(1)
        self._closed = False
        self._settled: Deferred[None] | None = None

    @property
    def connections(self) -> int:
        """How many there are, those on their way and those that wait included."""
        return sum(lane.load for lane in self._lanes) + len(self._waiting)

    def offer(self, connection: Connection) -> None:
        """A client has connected."""
        self._waiting.append(connection)
        self._hand_out()

    def add(self, lane: Lane) -> None:
        """A worker is ready."""
        self._lanes.append(lane)
        self._hand_out()

    def remove(self, lane: Lane) -> None:
        """A worker is gone, or about to go: what it had not taken is somebody else's. May be called again."""
        if lane not in self._lanes:
            return
        self._lanes.remove(lane)
        self._wake(lane)
        self._take_back(lane.in_flight)
        lane.in_flight.clear()
        self._hand_out()

    def reported(self, lane: Lane, report: Report) -> None:
        """
        A worker says something.

        :raises ValueError: when it cannot be so.
        """
        refused = lane.count(report)
        if report.closed:
            self._wake(lane)
        if refused:
            self._take_back(refused)
            self._rest(lane)
        self._hand_out()

    def settle(self) -> Deferred[None]:
        """
        Nothing more is offered. To be called once.

        :returns: fires when workers have all that was offered, or there are none.
        """
        settled: Deferred[None] = Deferred()
        self._settled = settled
        self._fire_settled()
        return settled

    def close(self) -> None:
        """Hand nothing out any more."""
        self._closed = True
        self._hand_out()

    def _rest(self, lane: Lane) -> None:
        self._wake(lane)
        lane.resting = self._clock.callLater(RETRY, self._rested, lane)

    def _rested(self, lane: Lane) -> None:
        lane.resting = None
        self._hand_out()

    def _wake(self, lane: Lane) -> None:
        if lane.resting is not None:
            lane.resting.cancel()
            lane.resting = None

    def _take_back(self, connections: deque[Connection] | list[Connection]) -> None:
        # Those who came first are served first.
        self._waiting.extendleft(reversed(connections))

    def _fire_settled(self) -> None:
        on_their_way = self._lanes and (self._waiting or any(lane.in_flight for lane in self._lanes))
        if self._settled is not None and not self._settled.called and not on_their_way:
            self._settled.callback(None)

    def _hand_out(self) -> None:
        while self._waiting and not self._closed:
            free = [lane for lane in self._lanes if lane.has_room]
            if not free:
                break
            lane = min(free, key=lambda each: (each.load, each.last_turn))
            if lane.give(self._waiting[0]):
                lane.last_turn = next(self._turns)
                self._waiting.popleft()
            elif lane.has_room:
                # It has nothing to report about, so nothing else would say when to try again; unless it is gone, and is removed.
                self._rest(lane)
        if self._closed:
            while self._waiting:
                self._waiting.popleft().close()
        paused = self._closed or not any(lane.has_room for lane in self._lanes)
        if paused != self._paused:
            self._paused = paused
            self._pause(paused)
        self._fire_settled()
