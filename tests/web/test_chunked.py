"""The decoder of chunked bodies, against Twisted's own, which it leaves the framing to."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import HTTPChannel, _ChunkedTransferDecoder, _MalformedChunkedDataError

from regd.web.chunked import ChunkedDecoder

CONTENTS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
CUTS = st.lists(st.integers(0, 400), max_size=12)


def encoded(chunks: list[bytes]) -> bytes:
    """
    :param chunks: what each chunk holds.
    :return: the chunked coding of them, every third with an extension and every third with zeros before its size, and with a trailer.
    """
    sizes = (b"%x", b"%x;a=b", b"000%X")
    coded = [b"%s\r\n%s\r\n" % (sizes[number % 3] % len(chunk), chunk) for number, chunk in enumerate(chunks)]
    return b"".join(coded) + b"0\r\nTrailer: yes\r\n\r\n"


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """
    :param data: what comes from a socket.
    :param cuts: where one read ends and the next begins.
    :return: the reads.
    """
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(places) if end > begin]


def decode(factory: Any, reads: list[bytes]) -> tuple[bytes, bytes | None, bool]:
    """
    Feed a decoder until it has ended or failed.

    :param factory: the decoder's class.
    :return: the content, what came after the body or ``None`` without its end, and whether it was malformed.
    """
    content: list[bytes] = []
    rest: list[bytes] = []
    decoder = factory(content.append, rest.append)
    for number, data in enumerate(reads):
        try:
            decoder.dataReceived(data)
        except _MalformedChunkedDataError:
            return b"".join(content), None, True
        if rest:
            return b"".join(content), b"".join([*rest, *reads[number + 1 :]]), False
    return b"".join(content), None, False


def recording(calls: list[str]) -> ChunkedDecoder:
    """
    :param calls: gets the kind of each call.
    :return: a decoder.
    """
    return ChunkedDecoder(lambda content: calls.append("content"), lambda rest: calls.append("end"))


class ChunkedDecoderTests(SynchronousTestCase):
    @given(CONTENTS, CUTS, st.binary(max_size=20))
    def test_whatever_the_reads(self, chunks: list[bytes], cuts: list[int], after: bytes) -> None:
        found = decode(ChunkedDecoder, pieces(encoded(chunks) + after, cuts))
        self.assertEqual(found, (b"".join(chunks), after, False))

    @given(CONTENTS, CUTS, st.integers(0, 400), st.sampled_from([b"", b"\n", b"\r\n", b"x", b"0", b"ffff\r\n", b";\x00"]))
    def test_what_is_malformed_for_twisted_is_malformed(self, chunks: list[bytes], cuts: list[int], place: int, intruder: bytes) -> None:
        """And the content before it is the same."""
        data = encoded(chunks)
        reads = pieces(data[:place] + intruder + data[place + 1 :], cuts)
        self.assertEqual(decode(ChunkedDecoder, reads), decode(_ChunkedTransferDecoder, reads))

    def test_one_delivery_for_each_read(self) -> None:
        content: list[bytes] = []
        ends: list[bytes] = []
        decoder = ChunkedDecoder(content.append, ends.append)
        decoder.dataReceived(b"4\r\nabcd\r\n3\r\nefg\r\n8\r\nhi")
        self.assertEqual(content, [b"abcdefghi"])
        decoder.dataReceived(b"jklmno\r\n")
        self.assertEqual((content[1:], ends), ([b"jklmno"], []))
        decoder.dataReceived(b"0\r\n\r\nGET /")
        self.assertEqual((content[2:], ends), ([], [b"GET /"]))

    def test_content_comes_before_the_end_and_the_error(self) -> None:
        for data, last in ((b"1\r\na\r\n0\r\n\r\n", "end"), (b"1\r\na\r\nnonsense\r\n", "error")):
            calls: list[str] = []
            decoder = recording(calls)
            try:
                decoder.dataReceived(data)
            except _MalformedChunkedDataError:
                calls.append("error")
            self.assertEqual(calls, ["content", last])

    def test_a_line_without_end_is_refused(self) -> None:
        decoder = ChunkedDecoder(lambda content: None, lambda rest: None)
        with self.assertRaises(_MalformedChunkedDataError):
            for _ in range(100):
                decoder.dataReceived(b"1;" + b"a" * 500)


class PrivateNamesTests(SynchronousTestCase):
    """What of Twisted's decoder and channel this leans on; see also :mod:`tests.web.test_twisted_private`."""

    def test_the_state_between_lines(self) -> None:
        """``state`` and ``length``; ``_buffer`` is empty where content begins, so that content need not pass through it."""
        decoder = _ChunkedTransferDecoder(lambda content: None, lambda rest: None)
        self.assertEqual(decoder.state, "CHUNK_LENGTH")
        decoder.dataReceived(b"1f\r\n")
        self.assertEqual((decoder.state, decoder.length, len(decoder._buffer)), ("BODY", 31, 0))
        decoder.dataReceived(b"x" * 31)
        self.assertEqual(decoder.state, "CRLF")
        decoder.dataReceived(b"\r\n")
        self.assertEqual((decoder.state, len(decoder._buffer)), ("CHUNK_LENGTH", 0))

    def test_the_channel(self) -> None:
        """``_transferDecoder``, which a channel feeds, and ``_finishRequestBody``, which it is to call at the end."""
        channel: Any = HTTPChannel()
        self.assertIsNone(channel._transferDecoder)
        self.assertTrue(callable(channel._finishRequestBody))
