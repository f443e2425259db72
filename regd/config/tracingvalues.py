"""``tracing``: the values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["Tracing"]


@dataclass(frozen=True)
class Tracing:
    """``tracing``.

    :ivar endpoint: the URL that spans are sent to; ``None`` as the environment says.
    :ivar headers: fields of those requests, never shown; empty as the environment says.
    :ivar sampleratio: 0 to 1: how many of the requests that come without a trace begin one; ``None`` as the environment says.
    :ivar servicename: what the daemon is called in traces; ``None`` as the environment says.
    """

    enabled: bool = False
    endpoint: str | None = None
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    sampleratio: float | None = None
    servicename: str | None = None
