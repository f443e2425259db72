"""
Events on disk: a row of segments that many processes write to the end of, and one reads.

Everything here blocks, and is called in a thread::

    notifications/
    ├── journal.lock           held alone while a record is put at the end, and while a segment is begun
    ├── sender                 a lock of the one process that sends
    ├── <number>.events        segments: one record a line, the highest number is the one that grows
    ├── <key>.cursor           how far one endpoint has been told
    └── undelivered            what no endpoint could be told of (see :mod:`regd.notifications.undelivered`)

A record is a line: eight hexadecimal digits of its CRC-32, a space, and JSON, which has no newline in it. A line that is cut off, by a full
disk or by a power cut, is ended by whoever writes next, fails its sum, and is passed over. Records become durable before :meth:`append`
returns; what a reader is given is durable, too, so that no cursor stands where nothing is after a power cut.

A number is never used twice, because the segment with the highest one is never removed.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

__all__ = ["SEGMENT", "Cursor", "Full", "Journal", "Read"]

#: A segment is followed by another one when it has so many bytes.
SEGMENT: Final = 1024 * 1024

#: So many bytes are read at a time, or one record where it is longer. A record of a manifest of 4 MiB with its references is no longer.
_CHUNK: Final = 64 * 1024
_LONGEST: Final = 16 * 1024 * 1024

_NAME: Final = re.compile(r"([0-9]{12})\.events\Z")


class Full(Exception):
    """There is no room for another record."""


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """
    A place between two records.

    :ivar segment: a number; 0 is before all of them.
    :ivar offset: in bytes.
    """

    segment: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """
    What stands after a cursor.

    :ivar records: each with the cursor behind it.
    :ivar end: the cursor behind all of that, damaged lines included.
    :ivar damaged: how many lines were passed over.
    """

    records: tuple[tuple[bytes, Cursor], ...]
    end: Cursor
    damaged: int


class Journal:
    """
    :param directory: where it is; made when it is missing.
    :param limit: bytes that all segments may have together.
    :param segment: see :data:`SEGMENT`.
    """

    def __init__(self, directory: str, limit: int, segment: int = SEGMENT) -> None:
        self.directory = directory
        self.limit = limit
        self._segment = segment
        #: Of segments, their size and lines when they were counted.
        self._counted: dict[int, tuple[int, int]] = {}

    def append(self, records: Sequence[bytes]) -> None:
        """
        Put records at the end, in their order, durably.

        :raises Full: when there is no room for them, by the limit; nothing is written then.
        :raises ValueError: when one of them is longer than a reader takes.
        :raises OSError: when they could not be written. Some of them may be read all the same.
        """
        if any(len(one) > _LONGEST - 16 for one in records):
            msg = "too long"
            raise ValueError(msg)
        lines = b"".join(b"%08x %b\n" % (zlib.crc32(one), one) for one in records)
        with self._locked():
            numbers = self.segments()
            if self._size(numbers) + len(lines) > self.limit:
                raise Full
            fd = self._open_last(numbers)
            try:
                self._write(fd, lines)
            except BaseException:
                os.close(fd)
                raise
        # Not within the lock: others may write meanwhile, and one flush serves them all.
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def read(self, cursor: Cursor) -> Read:
        """
        Some of what stands after a cursor; without records and with the same cursor at its end when there is nothing.

        A cursor that is nowhere, as one of a journal that was removed, is taken for the nearest place after it, or for the beginning.

        :raises OSError: when it cannot be read.
        """
        while True:
            numbers = self.segments()
            if not numbers:
                return Read((), cursor, 0)
            if cursor.segment not in numbers:
                cursor = Cursor(next((number for number in numbers if number > cursor.segment), numbers[0]))
            found = self._read(cursor)
            if found.end != cursor:
                return found
            # Whoever begins a segment has finished the one before; and this one was read after we saw which there are.
            later = next((number for number in numbers if number > cursor.segment), None)
            if later is None:
                return found
            cursor = Cursor(later)

    def segments(self) -> list[int]:
        """The numbers of the segments, in their order."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        return sorted(int(match[1]) for match in map(_NAME.match, names) if match is not None)

    def size(self) -> int:
        """Bytes of all segments."""
        return self._size(self.segments())

    def count(self, cursor: Cursor) -> int:
        """How many lines stand after a cursor: the records that a reader has not had. Whole segments are counted once, and remembered."""
        numbers = self.segments()
        self._counted = {number: found for number, found in self._counted.items() if number in numbers}
        return sum(self._lines(number, cursor.offset if number == cursor.segment else 0) for number in numbers if number >= cursor.segment)

    def newest(self) -> tuple[int, int]:
        """The number of the newest segment and its size: both stay the same as long as nothing is written. 0 and 0 of none."""
        numbers = self.segments()
        return (numbers[-1], self._size(numbers[-1:])) if numbers else (0, 0)

    def end(self) -> Cursor:
        """Behind all that has been written."""
        return Cursor(*self.newest())

    def trim(self, before: int) -> None:
        """Remove segments with a lower number; never the newest."""
        for number in self.segments()[:-1]:
            if number < before:
                with suppress(FileNotFoundError):
                    os.remove(self._path(number))

    def after(self, number: int) -> Cursor:
        """The beginning of the segment that follows one; the end of everything where none does."""
        later = next((found for found in self.segments() if found > number), None)
        return self.end() if later is None else Cursor(later)

    def cursor(self, key: str) -> Cursor | None:
        """Where one of the readers was. ``None`` where it has never been."""
        try:
            with open(self._cursor_path(key), "rb") as file:
                found = json.loads(file.read(1024))
            cursor = Cursor(int(found["segment"]), max(0, int(found["offset"])))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            # Empty after a power cut, or none of ours. Told twice is better than not at all.
            return Cursor()
        # In a copy that was made while we ran, a cursor may be younger than its segment. What is written next would be passed over.
        with suppress(FileNotFoundError):
            return Cursor(cursor.segment, min(cursor.offset, os.stat(self._path(cursor.segment)).st_size))
        return cursor

    def keep_cursor(self, key: str, cursor: Cursor) -> None:
        """
        Remember where a reader is. Not durable by itself: after a power cut it may be an earlier one, so that something is told twice.

        :raises OSError: when it cannot be written.
        """
        path = self._cursor_path(key)
        with open(f"{path}.new", "wb") as file:
            file.write(json.dumps({"segment": cursor.segment, "offset": cursor.offset}).encode())
        os.replace(f"{path}.new", path)

    def keys(self) -> list[str]:
        """Of which readers there are cursors."""
        with suppress(FileNotFoundError):
            return sorted(name.removesuffix(".cursor") for name in os.listdir(self.directory) if name.endswith(".cursor"))
        return []

    def forget(self, key: str) -> None:
        """Of a reader that is no more."""
        with suppress(FileNotFoundError):
            os.remove(self._cursor_path(key))

    def _read(self, cursor: Cursor) -> Read:
        wanted = _CHUNK
        try:
            fd = os.open(self._path(cursor.segment), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return Read((), cursor, 0)
        try:
            while True:
                data = os.pread(fd, wanted, cursor.offset)
                whole = data.rfind(b"\n") + 1
                if whole or len(data) < wanted or wanted >= _LONGEST:
                    break
                wanted *= 4
            if whole:
                os.fsync(fd)
        finally:
            os.close(fd)
        return _parsed(data[:whole], cursor)

    def _lines(self, number: int, offset: int) -> int:
        try:
            with open(self._path(number), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if offset == 0 and self._counted.get(number, (0, 0))[0] == size:
                    return self._counted[number][1]
                # A segment is small: it ends with the record that makes it long enough.
                file.seek(offset)
                lines = file.read(size - offset).count(b"\n") if size > offset else 0
        except FileNotFoundError:
            return 0
        if offset == 0:
            self._counted[number] = (size, lines)
        return lines

    def _open_last(self, numbers: list[int]) -> int:
        """The segment that grows, opened to be written to; a new one where there is none, or it is long enough."""
        if numbers:
            fd = os.open(self._path(numbers[-1]), os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            try:
                size = os.fstat(fd).st_size
                if size < self._segment:
                    if size and os.pread(fd, 1, size - 1) != b"\n":
                        self._write(fd, b"\n")
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        number = numbers[-1] + 1 if numbers else 1
        fd = os.open(self._path(number), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            # Within the lock: whoever writes to it next relies on its being there after a power cut.
            self._sync_directory()
        except BaseException:
            os.close(fd)
            raise
        return fd

    @staticmethod
    def _write(fd: int, lines: bytes) -> None:
        # Where the disk is full, what fitted stays. Somebody may have read it by now, and a cursor must never stand behind the end.
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(fd, rest) :]

    def _size(self, numbers: Sequence[int]) -> int:
        total = 0
        for number in numbers:
            with suppress(FileNotFoundError):
                total += os.stat(self._path(number)).st_size
        return total

    @contextmanager
    def _locked(self) -> Iterator[None]:
        path = f"{self.directory}/journal.lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            os.makedirs(self.directory, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            # Held for a write at most, so it is waited for.
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _sync_directory(self) -> None:
        for path in (self.directory, os.path.dirname(self.directory)):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def _path(self, number: int) -> str:
        return f"{self.directory}/{number:012d}.events"

    def _cursor_path(self, key: str) -> str:
        return f"{self.directory}/{key}.cursor"


def _parsed(data: bytes, cursor: Cursor) -> Read:
    """
    :param data: whole lines.
    """
    records = []
    damaged, offset = 0, cursor.offset
    # Not splitlines(): a damaged line may have any byte in it.
    for line in data.split(b"\n")[:-1]:
        offset += len(line) + 1
        total, space, content = line.partition(b" ")
        if space and total == b"%08x" % zlib.crc32(content):
            records.append((content, Cursor(cursor.segment, offset)))
        elif line:
            damaged += 1
    return Read(tuple(records), Cursor(cursor.segment, offset), damaged)
