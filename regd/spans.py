"""
Spans: what a trace is made of, as the parts see them whose work is traced. Pure.

Who traces is :mod:`regd.telemetry.tracing`, or nobody: then :data:`CURRENT` is ``None``, and that is all that it costs. The span that work
belongs to travels with the context of coroutines (PEP 567): a :class:`~twisted.internet.defer.Deferred` that is made of one keeps the
context that it was made in.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Final, Protocol, Self

__all__ = ["CURRENT", "NOTHING", "Attribute", "Part", "Span", "method_of", "trace_fields"]

#: What is said of a span, by a name of the semantic conventions of OpenTelemetry.
Attribute = str | int

#: RFC 9110, section 9, and RFC 5789.
_METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE"})

class Span(Protocol):
    """
    One piece of work: what, from when to when, and as part of what.

    :ivar trace_id: 32 hexadecimal digits, which all spans of one request share, in whatever daemon.
    :ivar recording: whether anybody keeps what is said of it.
    """

    trace_id: str
    recording: bool

    def child(self, name: str, attributes: Mapping[str, Attribute] | None = None, *, client: bool = False) -> Span:
        """
        Begin a part of this work.

        :param client: whether it is a request to another server.
        """

    def fields(self) -> Mapping[str, str]:
        """The header fields of a request that is made for it (W3C Trace Context, sections 3.2 and 3.3); each is one line of ASCII."""

    def tell(self, attributes: Mapping[str, Attribute]) -> None:
        """Say more of it."""

    def rename(self, name: str) -> None:
        """Call it otherwise."""

    def end(self, problem: str = "") -> None:
        """
        It is over. Only the first time counts.

        :param problem: what went wrong; empty for nothing.
        """


class _Nothing:
    """What has no consequences."""

    trace_id = ""
    recording = False

    def child(self, name: str, attributes: Mapping[str, Attribute] | None = None, *, client: bool = False) -> Span:
        """See :class:`Span`, as for the following."""
        return self

    def fields(self) -> Mapping[str, str]:
        """None."""
        return {}

    def tell(self, attributes: Mapping[str, Attribute]) -> None:
        """To nobody."""

    def rename(self, name: str) -> None:
        """Nothing."""

    def end(self, problem: str = "") -> None:
        """As it began."""


#: A span where nothing is traced, for code that would else ask again and again whether there is one.
NOTHING: Final[Span] = _Nothing()

#: The span that the running coroutine works for.
CURRENT: Final[ContextVar[Span | None]] = ContextVar("regd_span", default=None)


class Part:
    """
    For a ``with`` block whose time is worth knowing by itself. Nothing, where nothing is traced.

    :param name: what it is; few different ones, none that a client chooses.
    """

    __slots__ = ("_around", "_span")

    def __init__(self, name: str) -> None:
        self._around = CURRENT.get()
        self._span = None if self._around is None else self._around.child(name)

    def __enter__(self) -> Self:
        if self._span is not None:
            CURRENT.set(self._span)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._span is not None:
            # Not by a token: a coroutine may have been begun in one context and go on in a copy of it.
            CURRENT.set(self._around)
            self._span.end("" if kind is None else kind.__name__)


def method_of(method: bytes) -> tuple[str, str]:
    """
    A method as the semantic conventions of HTTP have it, so that clients cannot make names.

    :returns: the beginning of a span's name, and the value of ``http.request.method``.
    """
    if method in _METHODS:
        text = method.decode("ascii")
        return text, text
    return "HTTP", "_OTHER"


def trace_fields() -> Mapping[str, str]:
    """What a line of the log has to carry; nothing, where nothing is traced."""
    span = CURRENT.get()
    return {} if span is None else {"trace_id": span.trace_id}
