"""
The chunked transfer coding, cut where it lies.

``twisted.web``'s decoder copies what it is fed twice and delivers every chunk by itself: with docker's chunks of 32 KiB three deliveries
for each read. This one leaves the framing, with all its checks, to Twisted's, and takes the content past it.
"""

from __future__ import annotations

import re
from typing import Final

from twisted.web.http import _ChunkedTransferDecoder, _MalformedChunkedDataError

__all__ = ["Chunked"]

#: What may be read at once, in bytes: all of it but a few may follow the body, and would have to be held (promise P1).
_AHEAD: Final = 240 * 1024

#: Others would not keep the size of a larger chunk in their numbers, and take it for another one.
_LARGEST: Final = 2**63 - 1

#: What stands between two chunks as nearly every client writes it. All else, the end of the body included, goes through Twisted's decoder.
_BETWEEN: Final = re.compile(rb"\r\n([1-9a-fA-F][0-9a-fA-F]{0,7})\r\n")


class Chunked(_ChunkedTransferDecoder):
    """A :class:`~regd.web.framing.Framing` of the chunked transfer coding (RFC 9112, section 7.1)."""

    def __init__(self) -> None:
        # Twisted's decoder is fed lines only, so it has no content to deliver.
        super().__init__(_nothing, self._end)
        # Twisted's has it only from the first chunk on.
        self.length = 0
        self.ended = False
        self.rest = b""
        self.malformed: _MalformedChunkedDataError | None = None

    def wanted(self, room: int) -> int:
        """See :class:`~regd.web.framing.Framing`."""
        return min(room, _AHEAD)

    def decode(self, data: bytes | bytearray, end: int) -> list[memoryview]:
        """See :class:`~regd.web.framing.Framing`."""
        view = memoryview(data)
        content: list[memoryview] = []
        position = 0
        try:
            while position < end and not self.ended:
                if self.state == "BODY":
                    begin, position = position, min(position + self.length, end)
                    content.append(view[begin:position])
                    self.length -= position - begin
                    if not self.length:
                        self.state = "CRLF"
                elif self.state == "CRLF" and not self._buffer and (between := _BETWEEN.match(data, position, end)):
                    self.state, self.length, position = "BODY", int(between[1], 16), between.end()
                else:
                    # A line, or what is there of it, so that Twisted's decoder never holds content.
                    begin, position = position, data.find(b"\n", position, end) + 1 or end
                    self.dataReceived(bytes(view[begin:position]))
                    if self.length > _LARGEST:
                        raise _MalformedChunkedDataError("a chunk of more bytes than there are")
        except _MalformedChunkedDataError as error:
            self.malformed = error
        if self.ended:
            self.rest = bytes(view[position:end])
        return content

    def _end(self, rest: bytes) -> None:
        # Nothing is left of the line that it was fed.
        self.ended = True


def _nothing(content: bytes) -> None:
    """There is none."""
