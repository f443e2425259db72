"""What a name that nobody knows was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["nearest"]

#: Longer names are not compared: the time grows with the square.
_LONGEST = 200


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is nearest, case aside; ``None`` if none is near."""
    folded = {candidate.lower(): candidate for candidate in known}
    found = get_close_matches(name[:_LONGEST].lower(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None
