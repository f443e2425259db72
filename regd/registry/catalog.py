"""The list of repositories, which is a walk over directories."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from regd.errors import NameInvalid
from regd.names import NAME_LIMIT, RepositoryName
from regd.registry.pace import EVERY, Breathe
from regd.registry.pages import Page, after
from regd.storage import layout
from regd.storage.driver import Driver, Missing

__all__ = ["Catalog"]


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
        async for name in self.walk(last):
            if visible is not None and not visible(name):
                continue
            if len(found) == limit:
                return Page(tuple(found), found[-1])
            found.append(name)
        return Page(tuple(found))

    async def walk(self, last: str = "") -> AsyncIterator[RepositoryName]:
        """All repositories after ``last``, in order."""
        async for name in self.candidates(last):
            if await self._driver.exists(layout.manifests(name)):
                yield name

    async def candidates(self, last: str = "") -> AsyncIterator[RepositoryName]:
        """
        All names after ``last`` that there is a directory for, in order: repositories, those that hold blobs and no manifest yet, and mere
        beginnings of names.
        """
        count = 0
        async for name in self._below("", last):
            yield name
            count += 1
            if count % EVERY == 0:
                await self._breathe()

    async def _below(self, prefix: str, last: str) -> AsyncIterator[RepositoryName]:
        """
        All names that begin with ``prefix``, which ends with ``/`` or is empty, and come after ``last``.

        ``-`` and ``.`` sort before ``/``, so ``a-b`` comes before ``a/b``: having met ``a``, its inside has to wait until no sibling is
        left that begins with ``a-`` or ``a.``. What waits is a stack, because a later sibling's inside always comes before an earlier
        one's.
        """
        try:
            names = await self._driver.names(layout.repository(prefix.rstrip("/")))
        except Missing:
            return
        rest = last[len(prefix) :] if last.startswith(prefix) else ""
        # Of the siblings that come before ``last``, only those that it begins with can hold names that come after it.
        opened = _opened(prefix, rest.partition("/")[0])
        waiting = [inside for inside in opened if prefix + inside > last or last.startswith(prefix + inside)]
        for index in after(names, rest):
            entry = names[index]
            while waiting and waiting[-1] < entry:
                async for name in self._below(prefix + waiting.pop(), last):
                    yield name
            if entry.startswith("_"):
                continue
            try:
                found = RepositoryName.parse(prefix + entry)
            except NameInvalid:
                # Not the whole of a name, and so not the beginning of one either.
                continue
            yield found
            waiting.append(entry + "/")
        while waiting:
            async for name in self._below(prefix + waiting.pop(), last):
                yield name


def _opened(prefix: str, component: str) -> list[str]:
    """
    The insides of every name below ``prefix`` that ``component`` begins with, the shortest first. It comes from a client, so only what
    passes the grammar becomes a path.
    """
    ends = range(1, min(len(component), NAME_LIMIT) + 1)
    return [component[:end] + "/" for end in ends if _is_name(prefix + component[:end])]


def _is_name(text: str) -> bool:
    try:
        RepositoryName.parse(text)
    except NameInvalid:
        return False
    return True
