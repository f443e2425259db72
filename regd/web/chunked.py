"""
Chunked bodies, one delivery for each read of the socket.

``twisted.web``'s decoder copies what it is fed twice and delivers every chunk by itself: with docker's chunks of 32 KiB three deliveries
for each read, each of which costs a turn of the thread that stores it. This one leaves the framing, with all its checks, to Twisted's, and
takes the content past it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from twisted.web.http import _ChunkedTransferDecoder

__all__ = ["ChunkedDecoder"]

#: What stands between two chunks as nearly every client writes it. All else, the end of the body included, goes through Twisted's decoder.
_BETWEEN: Final = re.compile(rb"\r\n([1-9a-fA-F][0-9a-fA-F]{0,7})\r\n")


class ChunkedDecoder(_ChunkedTransferDecoder):
    """
    Decodes the chunked transfer coding (RFC 9112, section 7.1).

    :param deliver: called with the content of each read, if it has any.
    :param finish: called after the last chunk and the trailers, with what was read past them.
    """

    def __init__(self, deliver: Callable[[bytes], None], finish: Callable[[bytes], None]) -> None:
        super().__init__(deliver, self._end)
        self._finish = finish
        self._ended = False

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """
        Part of the body.

        :raises twisted.web.http._MalformedChunkedDataError: when it is not in this coding; what came before it is delivered.
        """
        content: list[memoryview] = []
        position, end = 0, len(data)
        try:
            while position < end and not self._ended:
                if self.state == "BODY":
                    begin, position = position, min(position + self.length, end)
                    content.append(memoryview(data)[begin:position])
                    self.length -= position - begin
                    if not self.length:
                        self.state = "CRLF"
                elif self.state == "CRLF" and not self._buffer and (between := _BETWEEN.match(data, position)):
                    self.state, self.length, position = "BODY", int(between[1], 16), between.end()
                else:
                    # A line, or what is there of it, so that Twisted's decoder never holds content.
                    begin, position = position, data.find(b"\n", position) + 1 or end
                    super().dataReceived(data[begin:position])
        finally:
            if content:
                self.dataCallback(b"".join(content))
        if self._ended:
            self._finish(data[position:])

    def _end(self, rest: bytes) -> None:
        # Nothing is left of the line that it was fed.
        self._ended = True
