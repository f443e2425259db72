"""
Bytes from one socket to another without passing through the process: splice(2), by way of a pipe.

The event loop says when there is something to read and when there is room, as for everything else; what a slow end does not take waits in
the pipe, at most a mebibyte of the kernel's memory, and then the other end is not read.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from errno import EAGAIN, EINTR
from typing import Any, Final

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

__all__ = ["WORTHWHILE", "Relay"]

#: Fewer bytes than this are sooner copied than a pipe is found for them.
WORTHWHILE: Final = 128 * 1024

#: What a pipe may hold, in bytes. With 64 KiB, moving as much costs half as much again of processor time.
_ROOM: Final = 1024 * 1024

#: How many empty pipes are kept.
_SPARE: Final = 16

_pipes: list[tuple[int, int]] = []


def _get_pipe() -> tuple[int, int]:
    """
    :raises OSError: when no descriptors are left.
    """
    if _pipes:
        return _pipes.pop()
    made = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.fcntl(made[1], fcntl.F_SETPIPE_SZ, _ROOM)
    except OSError:
        # A user's pipes may together take so much (pipe-user-pages-soft in pipe(7)). A small one works as well, only slower.
        return made
    return made


def _put_pipe(pipe: tuple[int, int], *, empty: bool) -> None:
    if empty and len(_pipes) < _SPARE:
        _pipes.append(pipe)
    else:
        os.close(pipe[0])
        os.close(pipe[1])


class Relay:
    """
    Moves a number of bytes. The two transports call it (``regd/web/transport.py``) from the time that it is made until it has called
    ``finished``.

    :param source: the transport that is read. ``Any``: Twisted's transports, whose reading and writing is switched on and off here.
    :param sink: the transport that is written to.
    :param length: how many bytes, more than 0.
    :param progress: called whenever something has moved.
    :param finished: called once, at the end: with whether all of them have been taken by the sink. The source is not read then; who wants
        to goes on.
    :ivar received: bytes that were read from the source so far.
    :ivar sent: bytes that the sink has taken so far.
    :raises OSError: when no descriptors are left for a pipe.
    """

    def __init__(self, source: Any, sink: Any, length: int, progress: Callable[[], None], finished: Callable[[bool], None]) -> None:
        self.received = 0
        self.sent = 0
        self._source = source
        self._sink = sink
        self._length = length
        self._progress = progress
        self._finished = finished
        self._pipe: tuple[int, int] | None = _get_pipe()

    @property
    def waits_for_sink(self) -> bool:
        """Whether it is the sink that has to go on."""
        return self.sent < self.received

    def fill(self) -> Any:
        """
        There is something to read.

        :returns: what a transport's ``doRead`` does.
        """
        if self._pipe is None:
            return None
        left = self._length - self.received
        if self.waits_for_sink or not left:
            self._source.stopReading()
            return None
        try:
            count = os.splice(self._source.fileno(), self._pipe[1], min(left, _ROOM))
        except OSError as error:
            return None if error.errno in {EAGAIN, EINTR} else CONNECTION_LOST
        if not count:
            return CONNECTION_DONE
        self.received += count
        self._progress()
        if self.drain() is not None:
            # The reactor finds out by itself what has become of the sink, and is the one who knows what is to be done then.
            self._source.stopReading()
            self._sink.startWriting()
        return None

    def drain(self) -> Any:
        """
        There is room.

        :returns: what a transport's ``doWrite`` does.
        """
        if self._pipe is None:
            return None
        before = self.sent
        while self.waits_for_sink:
            if self._sink.unsent:
                # What was written before goes first.
                return self._wait()
            try:
                self.sent += os.splice(self._pipe[0], self._sink.fileno(), self.received - self.sent)
            except OSError as error:
                if error.errno in {EAGAIN, EINTR}:
                    break
                if self._sink.write_failed():
                    self.stop()
                    self._finished(False)
                    return None
                return CONNECTION_LOST
        if self.sent > before:
            self._progress()
        if self.waits_for_sink:
            return self._wait()
        self._sink.stopWriting()
        if self.sent == self._length:
            self.stop()
            self._finished(True)
        else:
            self._source.startReading()
        return None

    def stop(self) -> None:
        """Move nothing any more. What was read and not yet taken is lost. May be called again."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            self._source.relayed_from(None)
            self._sink.relayed_to(None)
            _put_pipe(pipe, empty=not self.waits_for_sink)

    def lost(self) -> None:
        """One of the connections is gone."""
        if self._pipe is not None:
            self.stop()
            self._finished(False)

    def _wait(self) -> None:
        self._source.stopReading()
        self._sink.startWriting()
