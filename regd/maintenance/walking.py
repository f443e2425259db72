"""What walks over repositories have in common: where they go on, and what the directories of digests hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final

from regd.maintenance.graph import raw_name
from regd.maintenance.steps import Steps
from regd.names import ALGORITHMS, NAME_LIMIT, Digest
from regd.storage.driver import Driver, Missing
from regd.storage.layout import Path

__all__ = ["OWN", "digests_in", "longer_names"]

#: How the names of a repository's own directories begin; what else is in its directory belongs to repositories of longer names.
OWN: Final = "_"


def longer_names(name: str, entries: Iterable[str]) -> list[str]:
    """
    The names of what may be repositories below one, the last first: who takes the next from the end goes through them in order.

    :param name: the repository, or what names begin with; empty for all.
    :param entries: the names in its directory.
    """
    below = (f"{name}/{entry}" if name else entry for entry in entries if not entry.startswith(OWN))
    # Nobody can ask for a longer name; a link of the file system that leads upwards makes them.
    return sorted((longer for longer in below if len(longer) <= NAME_LIMIT), reverse=True)


async def digests_in(driver: Driver, steps: Steps, place: Callable[[str], Path]) -> AsyncIterator[Digest]:
    """
    What the directories of algorithms hold. What is no digest is passed over.

    :param place: makes the path of such a directory of the name of an algorithm.
    :raises Stopped: when the run is to stop.
    """
    for algorithm in ALGORITHMS:
        try:
            names = await driver.scan(place(algorithm))
        except Missing:
            continue
        await steps.take(1)
        for name in names:
            if raw_name(algorithm, name) is not None:
                yield Digest(f"{algorithm}:{name}")
