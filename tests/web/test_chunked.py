"""Where bodies end: chunked ones against Twisted's own decoder, however they are cut, on the event loop and into a thread's buffer."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import HTTPChannel, _ChunkedTransferDecoder, _MalformedChunkedDataError

from regd.web.chunked import Chunked
from regd.web.framing import BodyDecoder, FixedLength, Framing

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


def chunked_decoder(deliver: Callable[[bytes], None], finish: Callable[[bytes], None]) -> BodyDecoder:
    return BodyDecoder(Chunked(), deliver, finish)


def read_into(framing: Framing, data: bytes, sizes: list[int]) -> tuple[bytes, bytes | None, bool]:
    """
    Decode as a thread does: from a socket into a buffer that is used again and again.

    :param sizes: how much each read of the socket brings, over and over.
    :return: the content, what came after the body or ``None`` without its end, and whether it was malformed.
    """
    buffer = bytearray(64)
    content = b""
    for size in itertools.cycle(sizes):
        if not data or framing.ended or framing.malformed is not None:
            break
        count = min(size, len(data), framing.wanted(len(buffer)))
        buffer[:count], data = data[:count], data[count:]
        content += b"".join(framing.decode(buffer, count))
    return content, framing.rest + data if framing.ended else None, framing.malformed is not None


def recording(calls: list[str]) -> BodyDecoder:
    """
    :param calls: gets the kind of each call.
    :return: a decoder.
    """
    return chunked_decoder(lambda content: calls.append("content"), lambda rest: calls.append("end"))


class ChunkedTests(SynchronousTestCase):
    @given(CONTENTS, CUTS, st.binary(max_size=20))
    def test_whatever_the_reads(self, chunks: list[bytes], cuts: list[int], after: bytes) -> None:
        found = decode(chunked_decoder, pieces(encoded(chunks) + after, cuts))
        self.assertEqual(found, (b"".join(chunks), after, False))

    @given(CONTENTS, CUTS, st.integers(0, 400), st.sampled_from([b"", b"\n", b"\r\n", b"x", b"0", b"ffff\r\n", b";\x00"]))
    def test_what_is_malformed_for_twisted_is_malformed(self, chunks: list[bytes], cuts: list[int], place: int, intruder: bytes) -> None:
        """And the content before it is the same."""
        data = encoded(chunks)
        reads = pieces(data[:place] + intruder + data[place + 1 :], cuts)
        self.assertEqual(decode(chunked_decoder, reads), decode(_ChunkedTransferDecoder, reads))

    @given(
        CONTENTS,
        st.lists(st.integers(1, 70), min_size=1, max_size=8),
        st.integers(0, 400),
        st.sampled_from([None, b"", b"\n", b"\r\n", b"x", b"0", b"ffff\r\n", b";\x00"]),
        st.binary(max_size=20),
    )
    def test_in_a_thread_as_on_the_loop(
        self, chunks: list[bytes], sizes: list[int], place: int, intruder: bytes | None, after: bytes
    ) -> None:
        data = encoded(chunks) + after
        if intruder is not None:
            data = data[:place] + intruder + data[place + 1 :]
        found = read_into(Chunked(), data, sizes)
        # Twisted's decoder looks for what is malformed as soon as it has a line; so does this one, whatever the sizes.
        self.assertEqual(found, decode(_ChunkedTransferDecoder, [data[at : at + 1] for at in range(len(data))]))

    def test_never_so_much_that_what_follows_the_body_would_fill_the_memory(self) -> None:
        self.assertLess(Chunked().wanted(1 << 30), 256 * 1024)

    def test_one_delivery_for_each_read(self) -> None:
        content: list[bytes] = []
        ends: list[bytes] = []
        decoder = chunked_decoder(content.append, ends.append)
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
        decoder = chunked_decoder(lambda content: None, lambda rest: None)
        with self.assertRaises(_MalformedChunkedDataError):
            for _ in range(100):
                decoder.dataReceived(b"1;" + b"a" * 500)


class FixedLengthTests(SynchronousTestCase):
    @given(st.binary(min_size=1, max_size=200), CUTS, st.binary(max_size=20))
    def test_whatever_the_reads(self, content: bytes, cuts: list[int], after: bytes) -> None:
        got: list[bytes] = []
        rest: list[bytes] = []
        decoder = BodyDecoder(FixedLength(len(content)), got.append, rest.append)
        reads = pieces(content + after, cuts)
        while not rest:
            decoder.dataReceived(reads.pop(0))
        self.assertEqual((b"".join(got), b"".join([*rest, *reads])), (content, after))

    @given(st.binary(max_size=200), st.lists(st.integers(1, 70), min_size=1, max_size=8), st.binary(max_size=20))
    def test_nothing_past_the_body_is_read(self, content: bytes, sizes: list[int], after: bytes) -> None:
        framing = FixedLength(len(content))
        self.assertEqual(read_into(framing, content + after, sizes), (content, after, False))
        self.assertEqual((framing.rest, framing.wanted(100)), (b"", 0))

    def test_a_whole_read_is_handed_on_as_it_is(self) -> None:
        data = b"x" * 100
        got: list[bytes] = []
        BodyDecoder(FixedLength(1000), got.append, lambda rest: None).dataReceived(data)
        self.assertIs(got[0], data)


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
