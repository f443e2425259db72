"""Sizes as people write them: ``4096``, ``64k``, ``50MiB``, ``1.5GB``."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["LARGEST", "SizeError", "format_size", "parse_size"]

#: ``k``, ``M``, ``G`` and ``T`` as dd(1) and rsync(1) read them: alone and with ``iB`` they go by 1024, with ``B`` by 1000.
_PREFIXES: Final = "kMGT"
_SIZE: Final = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,18}))? ?(?:([kKMGT])(iB|B)?|B)?")

#: The largest, in bytes: file offsets are signed numbers of 64 bits.
LARGEST: Final = 2**63 - 1

_ALLOWED: Final = "a number of bytes, such as 500000, 64k, 50MiB or 1.5GB"


class SizeError(ValueError):
    """A text that is no size; ``str()`` says what is allowed."""


def parse_size(text: str) -> int:
    """
    Read a size.

    :returns: bytes; parts of a byte are cut off.
    :raises SizeError: for anything else than a number with or without a unit.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise SizeError(_ALLOWED)
    whole, part, prefix, suffix = match.groups()
    unit: int = (1000 if suffix == "B" else 1024) ** (_PREFIXES.index(prefix.replace("K", "k")) + 1 if prefix else 0)
    size = int(whole) * unit
    if part:
        size += int(part) * unit // int("1" + "0" * len(part))
    if size > LARGEST:
        raise SizeError(_ALLOWED)
    return size


def format_size(size: int) -> str:
    """A size for people, in powers of 1024, of which one figure is behind the point: ``999 B``, ``1.5 MiB``."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for prefix in "KMGTP":
        value /= 1024
        # What would be rounded to 1024 of a unit is one of the next.
        if value < 1023.95:
            return f"{value:.1f} {prefix}iB"
    return f"{value / 1024:.1f} EiB"
