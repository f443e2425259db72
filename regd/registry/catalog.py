"""The list of repositories, which is a walk over directories."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from regd.errors import NameInvalid
from regd.names import NAME_LIMIT, RepositoryName
from regd.pace import Breathe, Pace
from regd.registry.pages import Page, names_after
from regd.storage import layout
from regd.storage.driver import Driver, Missing

__all__ = ["Catalog"]

#: How many repositories a walk asks for at once that does not know how many are needed.
_EXPECTED: Final = 100

#: A repository's directory seldom has as many entries: it has four, and the repositories below it.
_FEW: Final = 16


@dataclass(frozen=True, slots=True)
class _Seen:
    """
    A directory that may be a repository.

    :ivar repository: whether it has manifests.
    :ivar inside: whether there may be others below it.
    """

    name: RepositoryName
    repository: bool
    inside: bool


class Catalog:
    """Lists repositories in the order of their names' bytes, looking into no more directories than a page needs."""

    def __init__(self, driver: Driver, breathe: Breathe) -> None:
        self._driver = driver
        self._breathe = breathe

    async def page(
        self, limit: int, last: str = "", visible: Callable[[RepositoryName], bool] | None = None
    ) -> Page[RepositoryName]:
        """
        Up to ``limit`` repositories after ``last``, which need not be one.

        :param visible: whether the client may see a repository; without it, all.
        """
        found: list[RepositoryName] = []
        if limit <= 0:
            return Page(())
        async for seen in _Walk(self._driver, self._breathe, last, limit + 1).below(""):
            if not seen.repository or (visible is not None and not visible(seen.name)):
                continue
            if len(found) == limit:
                return Page(tuple(found), found[-1])
            found.append(seen.name)
        return Page(tuple(found))

    async def walk(self, last: str = "") -> AsyncIterator[RepositoryName]:
        """All repositories after ``last``, in order."""
        async for seen in _Walk(self._driver, self._breathe, last, _EXPECTED).below(""):
            if seen.repository:
                yield seen.name

    async def candidates(self, last: str = "") -> AsyncIterator[RepositoryName]:
        """
        All names after ``last`` that there is a directory for, in order: repositories, those that hold blobs and no manifest yet, and mere
        beginnings of names.
        """
        async for seen in _Walk(self._driver, self._breathe, last, _EXPECTED).below(""):
            yield seen.name


class _Walk:
    """
    One walk over the directories of repositories.

    :param last: only names that come after it.
    :param expected: how many are probably needed.
    """

    def __init__(self, driver: Driver, breathe: Breathe, last: str, expected: int) -> None:
        self._driver = driver
        self._pace = Pace(breathe)
        self._last = last
        self._expected = expected

    async def below(self, prefix: str) -> AsyncIterator[_Seen]:
        """
        All directories whose names begin with ``prefix``, which ends with ``/`` or is empty, in order.

        ``-`` and ``.`` sort before ``/``, so ``a-b`` comes before ``a/b``: having met ``a``, its inside has to wait until no sibling is
        left that begins with ``a-`` or ``a.``. What waits is a stack, because a later sibling's inside always comes before an earlier
        one's.
        """
        last = self._last
        rest = last[len(prefix) :] if last.startswith(prefix) else ""
        # Of the siblings that come before ``last``, only those that it begins with can hold names that come after it.
        opened = _opened(prefix, rest.partition("/")[0])
        waiting = [inside for inside in opened if prefix + inside > last or last.startswith(prefix + inside)]
        try:
            async for entry in names_after(self._driver, layout.repository(prefix.rstrip("/")), rest, self._expected, self._pace):
                while waiting and waiting[-1] < entry:
                    async for seen in self.below(prefix + waiting.pop()):
                        yield seen
                found = None if entry.startswith("_") else await self._look(prefix + entry)
                if found is None:
                    continue
                yield found
                if found.inside:
                    waiting.append(entry + "/")
        except Missing:
            return
        while waiting:
            async for seen in self.below(prefix + waiting.pop()):
                yield seen

    async def _look(self, text: str) -> _Seen | None:
        """What a directory is; ``None`` where there is none, or its name is not the whole of a repository's, nor the beginning of one."""
        try:
            name = RepositoryName.parse(text)
            entries = await self._driver.names(layout.repository(name), limit=_FEW)
        except (NameInvalid, Missing):
            return None
        if len(entries) < _FEW:
            # That was all: one look at the directory says both.
            manifests = layout.manifests(name).rpartition("/")[2]
            return _Seen(name, manifests in entries, not all(entry.startswith("_") for entry in entries))
        return _Seen(name, await self._driver.exists(layout.manifests(name)), inside=True)


def _opened(prefix: str, component: str) -> list[str]:
    """
    The insides of every name below ``prefix`` that ``component`` begins with, the shortest first. It comes from a client, so only what
    passes the grammar becomes a path.
    """
    ends = range(1, min(len(component), NAME_LIMIT) + 1)
    return [component[:end] + "/" for end in ends if RepositoryName.fits(prefix + component[:end])]
