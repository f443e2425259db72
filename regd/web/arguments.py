"""Query parameters of a request."""

from __future__ import annotations

from regd.web.request import StreamingRequest

__all__ = ["argument", "arguments"]


def argument(request: StreamingRequest, name: str) -> str | None:
    """The first value of a parameter; ``None`` where it is absent or empty."""
    values = arguments(request, name)
    return values[0] if values and values[0] else None


def arguments(request: StreamingRequest, name: str) -> list[str]:
    """All values of a parameter, in order; what is not UTF-8 in them is replaced, and so matches no grammar."""
    found: dict[bytes, list[bytes]] = request.args or {}
    return [value.decode("utf-8", "replace") for value in found.get(name.encode("ascii"), ())]
