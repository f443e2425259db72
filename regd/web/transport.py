"""
Sockets that can send part of a file without its bytes passing through the process.

``twisted`` offers ``FileSender``, which reads and writes chunk by chunk and stops at half of what the kernel can do. Here ``doWrite``,
which the reactor calls whenever the socket has room, calls ``os.sendfile``: the reactor is the backpressure, and a slow reader costs
nothing.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from errno import EAGAIN, EINTR, ENOBUFS
from typing import Any, Final

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.main import CONNECTION_LOST
from twisted.python.failure import Failure

from regd.web.relay import WORTHWHILE, Relay

__all__ = [
    "SEND_AT_ONCE",
    "Lease",
    "SendingServer",
    "SendingTransport",
    "SendingUnixServer",
    "hold",
    "lend",
    "relay",
    "send_file",
    "take_back",
]

#: The most that all connections together hand to the kernel in one turn of the event loop, in bytes, where their clients read fast: some
#: two milliseconds. One connection by itself hands over as much at once, which costs a tenth less than a quarter of it does.
SEND_AT_ONCE: Final = 4 * 1024 * 1024

#: However many they are, each hands over so much, in bytes.
_SEND_AT_LEAST: Final = 256 * 1024

#: How far ahead of the socket the kernel is asked to read from the disk, in bytes.
READ_AHEAD: Final = 4 * 1024 * 1024


#: Above so many bytes that the socket has no room for, a producer has to wait.
_SEND_BUFFER: Final = 64 * 1024

#: How long a thread that reads a socket waits for more, in milliseconds, before it gives the socket back.
_PATIENCE: Final = 4


class Lease:
    """
    The receiving end of a connection, lent to a thread.

    The thread reads a descriptor of its own (dup(2)). The event loop may close the connection meanwhile, and its number may at once be that
    of another connection; this one stays what it was until :meth:`close`.

    :param connected: the connection's socket.
    :raises OSError: when there are no more descriptors to be had.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected.dup()
        self._poll: select.poll | None = None
        self._stopped = False

    def receive_into(self, room: memoryview) -> int:
        """
        Off the event loop: read what there is, or wait a few milliseconds for it.

        :returns: how many bytes; 0 when none come now. Whether the client is silent, has gone, or is to be heard no more is for the event
            loop to find out, once it has the socket again: the end of a connection can be read any number of times.
        """
        for last in (False, True):
            if self._stopped:
                break
            try:
                return self._receive(room)
            except BlockingIOError:
                if last or not self._readable():
                    break
            except OSError:
                break
        return 0

    def stop(self) -> None:
        """From any thread: read no more. What is being read is the last."""
        self._stopped = True

    def close(self) -> None:
        """Give the descriptor back; only when no thread uses it any more."""
        self._socket.close()

    def _receive(self, room: memoryview) -> int:
        """
        :raises BlockingIOError: when nothing has come.
        """
        return self._socket.recv_into(room)

    def _readable(self) -> bool:
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._socket, select.POLLIN)
        return bool(self._poll.poll(_PATIENCE))


@dataclass(slots=True, eq=False)
class _Sending:
    fd: int
    offset: int
    left: int
    announced: int
    done: Deferred[None]


class SendingTransport:
    """Mixed into Twisted's stream transports, whose untyped state it works with; so ``self`` is Any, and mypy cannot know ``super()``."""

    #: What is read at once, in bytes. Twisted's 64 KiB are full at each read of an upload, and each read costs the event loop a turn.
    bufferSize = 192 * 1024  # noqa: N815 - Twisted's name

    #: Whether the kernel can move bytes between this socket and another.
    relays = True

    #: How many connections of this process send a file.
    _senders = 0
    _held = False
    _sending: _Sending | None = None
    _lease: Lease | None = None
    #: What reads this socket, and what writes to it, instead of the protocol.
    _reader: Relay | None = None
    _writer: Relay | None = None

    @property
    def unsent(self: Any) -> bool:
        """Whether something that was written waits for room in the socket."""
        return bool(self.dataBuffer or self._tempDataBuffer)

    @property
    def backlog(self: Any) -> object:
        """What has still to be sent, to be compared with what it was before; ``None`` where there is nothing."""
        if self._sending is not None:
            return self._sending.offset
        return len(self.dataBuffer) - self.offset + self._tempDataLen or None

    def _isSendBufferFull(self: Any) -> bool:  # noqa: N802 - Twisted's name
        """Whether a producer is to wait: what it has under way, a read of an upstream maybe, comes on top of this (promise P1)."""
        return len(self.dataBuffer) + self._tempDataLen > _SEND_BUFFER  # type: ignore[no-any-return]  # self is Any

    def write_failed(self) -> bool:
        """
        The other end takes nothing any more.

        :returns: whether the connection lives on, because it may have said something before.
        """
        return False

    def relayed_from(self, reader: Relay | None) -> None:
        """Somebody else reads this socket, or nobody else any more."""
        self._reader = reader

    def relayed_to(self, writer: Relay | None) -> None:
        """Somebody else writes to this socket, or nobody else any more."""
        self._writer = writer

    def lend(self: Any) -> Lease | None:
        """
        Let a thread read, and read nothing until it is :meth:`taken back <take_back>`.

        :returns: ``None`` where that is not possible: the connection is ending, or no descriptor is left.
        """
        if self._lease is not None or self._reader is not None or self.disconnected or self.disconnecting:
            return None
        try:
            self._lease = self._make_lease()
        except OSError:
            return None
        self.stopReading()
        return self._lease  # type: ignore[no-any-return]  # self is Any

    def _make_lease(self: Any) -> Lease:
        return Lease(self.socket)

    def take_back(self: Any, lease: Lease) -> None:
        """The thread reads no more. It is for the caller to resume reading here."""
        lease.close()
        self._lease = None

    def startReading(self: Any) -> None:  # noqa: N802 - Twisted's name
        """Two who read one socket would tear its bytes apart, so not while it is lent, whoever wants it (the channel may)."""
        if self._lease is None:
            super().startReading()  # type: ignore[misc]

    def doRead(self: Any) -> Any:  # noqa: N802 - Twisted's name
        """There is something to read; unless that was so only before the socket was lent, in the same turn of the loop."""
        if self._reader is not None:
            return self._reader.fill()
        return super().doRead() if self._lease is None else None  # type: ignore[misc]

    def write(self: Any, data: bytes) -> None:
        """
        Send at once what the socket has room for, and buffer the rest. Twisted buffers all of it and asks to be told when there is room,
        which there is nearly always: three system calls and a turn of the event loop for an answer that one call can send.
        """
        if self._held:
            self._held = False
            self._tempDataBuffer.append(data)
            self._tempDataLen += len(data)
            return
        if (
            self.connected
            and not (self.dataBuffer or self._tempDataBuffer or self.disconnecting or self._writeDisconnecting or self._aborting)
            and self._sending is None
            and self._writer is None
        ):
            try:
                sent = self._send_at_once(data)
            except OSError:
                # No room, or no connection: doWrite will find out which.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        super().write(data)  # type: ignore[misc]

    def _send_at_once(self: Any, data: bytes) -> int:
        return self.socket.send(data)  # type: ignore[no-any-return]  # self is Any

    def writeSequence(self: Any, iovec: Iterable[bytes]) -> None:  # noqa: N802 - Twisted's name
        """As :meth:`write`, in one piece."""
        self.write(b"".join(iovec))

    def send_file(self: Any, fd: int, offset: int, length: int) -> Deferred[None]:
        """
        Send ``length`` bytes of a file, from ``offset``, after what has been written so far. Nothing else may be written until it is done.

        :param fd: stays open, and the caller's.
        :returns: fires when the kernel has taken the last byte; fails with the reason when the connection is lost, also when the file turns
            out to be shorter, which closes it.
        """
        self._held = False
        if self.disconnected or self.disconnecting:
            return fail(ConnectionDone())
        assert self._sending is None, "one file at a time"
        done: Deferred[None] = Deferred()
        self._sending = _Sending(fd, offset, length, offset, done)
        SendingTransport._senders += 1
        # The socket has room, mostly, for what came before is sent; asking the reactor would cost it a turn. If the connection is lost, the
        # reactor finds that out as well, and is the one who knows what is to be done then.
        if self.doWrite() is not None:
            self.startWriting()
        return done

    def hold(self: Any) -> None:
        """What is written next is the beginning of what :meth:`send_file` is called for right after it, and leaves with that."""
        self._held = not (self.disconnected or self.disconnecting)

    def writeSomeData(self: Any, data: bytes) -> Any:  # noqa: N802 - Twisted's name
        """As Twisted's; before a file, what is written waits for the file's first bytes, to go in one packet with them."""
        if self._sending is None:
            return super().writeSomeData(data)  # type: ignore[misc]
        try:
            return self.socket.send(memoryview(data)[: self.SEND_LIMIT], socket.MSG_MORE)
        except OSError as error:
            return 0 if error.errno in {EAGAIN, EINTR, ENOBUFS} else CONNECTION_LOST

    def doWrite(self: Any) -> Any:  # noqa: N802 - Twisted's name
        """The socket has room."""
        sending = self._sending
        if self._writer is not None and not self.unsent:
            return self._writer.drain()
        if sending is None:
            return super().doWrite()  # type: ignore[misc]
        if self.dataBuffer or self._tempDataBuffer:
            result = super().doWrite()  # type: ignore[misc]
            if result is not None:
                return result
            if self.dataBuffer or self._tempDataBuffer:
                self.startWriting()
                return None
        end = sending.offset + sending.left
        if sending.announced < end and sending.announced - sending.offset < READ_AHEAD // 2:
            # Sending what is not in memory would stop the event loop for the time that the disk takes.
            ahead = min(READ_AHEAD, end - sending.announced)
            os.posix_fadvise(sending.fd, sending.announced, ahead, os.POSIX_FADV_WILLNEED)
            sending.announced += ahead
        share = max(SEND_AT_ONCE // SendingTransport._senders, _SEND_AT_LEAST)
        try:
            sent = self._send_from(sending.fd, sending.offset, min(sending.left, share))
        except OSError as error:
            if error.errno not in {EAGAIN, EINTR}:
                return CONNECTION_LOST
            self.startWriting()
            return None
        if sent == 0:
            # The file has become shorter than it was. What was promised cannot be kept, and the client must notice.
            return CONNECTION_LOST
        sending.offset += sent
        sending.left -= sent
        if sending.left:
            self.startWriting()
            return None
        self._sending = None
        SendingTransport._senders -= 1
        if not self.disconnecting:
            self.stopWriting()
        sending.done.callback(None)
        return None

    def _send_from(self: Any, fd: int, offset: int, count: int) -> int:
        return os.sendfile(self.fileno(), fd, offset, count)

    def connectionLost(self: Any, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """The client is gone."""
        sending, self._sending = self._sending, None
        if self._lease is not None:
            # An orderly close has shut the connection down; the reset of an abort goes out when the thread's descriptor is closed, too.
            self._lease.stop()
        relays = self._reader, self._writer
        super().connectionLost(reason)  # type: ignore[misc]
        # The protocol first, for it knows what this means; what it has not stopped by then has no use.
        for relaying in relays:
            if relaying is not None:
                relaying.lost()
        if sending is not None:
            SendingTransport._senders -= 1
            sending.done.errback(reason)


class SendingServer(SendingTransport, tcp.Server):
    """An accepted TCP connection."""


class SendingUnixServer(SendingTransport, unix.Server):
    """An accepted connection of a Unix socket."""


def send_file(transport: object, fd: int, offset: int, length: int) -> Deferred[None] | None:
    """As :meth:`SendingTransport.send_file`, or ``None`` where this transport cannot (tests)."""
    return transport.send_file(fd, offset, length) if isinstance(transport, SendingTransport) else None


def relay(
    source: object, sink: object, length: int, progress: Callable[[], None], finished: Callable[[bool], None]
) -> Relay | None:
    """
    Let the kernel move the next ``length`` bytes that come from one transport to another, after what has been written to that so far.
    Nothing else may be written there until it is done, and the protocol of the first reads nothing.

    :param progress: see :class:`~regd.web.relay.Relay`, as for ``finished``.
    :returns: ``None`` where that is not possible (TLS, tests) or not worthwhile.
    """
    if length < WORTHWHILE or not isinstance(source, SendingTransport) or not isinstance(sink, SendingTransport):
        return None
    # Any: what Twisted's transports have has no types.
    ends: tuple[Any, Any] = source, sink
    if not source.relays or not sink.relays:
        return None
    if any(end.disconnected or end.disconnecting for end in ends) or source._reader is not None or source._lease is not None:
        return None
    if sink._writer is not None or sink._sending is not None:
        return None
    try:
        made = Relay(source, sink, length, progress, finished)
    except OSError:
        return None
    source.relayed_from(made)
    sink.relayed_to(made)
    ends[0].startReading()
    return made


def hold(transport: object) -> None:
    """As :meth:`SendingTransport.hold`; nothing where this transport cannot send files."""
    if isinstance(transport, SendingTransport):
        transport.hold()


def lend(transport: object) -> Lease | None:
    """As :meth:`SendingTransport.lend`, or ``None`` where a thread cannot read (tests)."""
    return transport.lend() if isinstance(transport, SendingTransport) else None


def take_back(transport: object, lease: Lease) -> None:
    """As :meth:`SendingTransport.take_back`."""
    assert isinstance(transport, SendingTransport)
    transport.take_back(lease)
