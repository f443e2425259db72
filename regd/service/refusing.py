"""What clients are told while the registry is not well."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["refusal"]

#: How many failing checks clients are told of, and how long their names may be.
_FEW_NAMES = 5
_LONGEST_NAME = 200


def refusal(failing: Mapping[str, str]) -> str:
    """
    What clients are told: which checks fail, the first of them by their names.

    :returns: nothing when none does.
    """
    if not failing:
        return ""
    # The query of a URL may hold what is not for everybody.
    names = [name.partition("?")[0][:_LONGEST_NAME] for name in sorted(failing)]
    more = f" and {len(names) - _FEW_NAMES} more" if len(names) > _FEW_NAMES else ""
    return f"the health check of {', '.join(names[:_FEW_NAMES])}{more} fails; try again later"
