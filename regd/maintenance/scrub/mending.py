"""
The changes that ``--repair`` makes.

All of what concerns links and blobs passes the gate *alone*, and not together with others, because each change rests on what was seen just
before it: a link that is empty, a manifest that is here, a blob whose bytes are wrong. A delete, or a push, that passed at the same time
could make it untrue in between: then a link that somebody has deleted would come back, or a blob that somebody has just pushed whole be
moved away. What is slow stays outside: blobs are hashed before, and what was written is flushed after. Should the power fail before the
flush, the link is as bad as it was.

A link makes content reachable, so the content is promised as by a mount: its time is renewed within the gate, and a collection that has
looked at this repository already leaves it alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from time import monotonic
from typing import Final

from regd.maintenance.gate import Gate
from regd.maintenance.scrub.desk import Look
from regd.maintenance.scrub.findings import Finding
from regd.maintenance.scrub.hashing import Hasher
from regd.names import Digest
from regd.pace import Sleep
from regd.storage import layout
from regd.storage.driver import Driver, Missing, Stat
from regd.storage.layout import Path

__all__ = ["Mender"]

#: How many times as long as it was closed the gate stays open before the next change, so that pushes do not feel a tree of empty links.
_OPEN: Final = 4


class Mender:
    """
    Mends what the looks of a scrub have found.

    :param rest: waits until the gate can be closed; may raise what ends the scrub.
    """

    def __init__(self, driver: Driver, gate: Gate, hasher: Hasher, sleep: Sleep, rest: Sleep) -> None:
        self._driver = driver
        self._gate = gate
        self._hasher = hasher
        self._sleep = sleep
        self._rest = rest

    async def rewrite(self, finding: Finding, path: Path, digest: Digest, look: Look) -> Finding | None:
        """
        Write a link, if what it is to point to is there and right.

        :param look: sees whether that is still needed.
        """
        blob = layout.blob_data(digest)
        try:
            if not await self._hasher.right(digest, blob):
                return replace(finding, remedy="not written again, because the blob is damaged, too; pushing it again mends both")
            async with self._alone():
                if await look() is None:
                    return None
                await self._driver.renew(blob)
                await self._driver.write((path, digest.encode("ascii")), durable=False)
        except Missing:
            return replace(finding, remedy=f"not written again, because {digest} is not there; pushing it again mends that")
        # It may be gone already: a delete that came after it.
        with suppress(Missing):
            await self._driver.secure(path)
        return replace(finding, remedy=f"written again, for {digest}", mended=True)

    async def drop(self, finding: Finding, directory: Path, look: Look) -> Finding | None:
        """
        Remove a link that nobody needs.

        :param look: sees whether that is still so.
        """
        async with self._alone():
            if await look() is None:
                return None
            with suppress(Missing):
                await self._driver.delete(directory, durable=False)
        return replace(finding, remedy="removed", mended=True)

    async def aside(self, digest: Digest, seen: Stat) -> bool:
        """
        Move a damaged blob to where nobody looks, so that clients push it again. What was moved there earlier gives way.

        :param seen: what the file was when it was hashed.
        :returns: whether it was; else the file has changed meanwhile.
        """
        source, target = layout.blob_data(digest), layout.damaged(digest)
        above = layout.above(target)
        with suppress(Missing):
            await self._driver.delete(above, durable=False)
        try:
            async with self._alone():
                found = await self._driver.stat(source)
                if (found.size, found.modified) != (seen.size, seen.modified):
                    return False
                await self._driver.move(source, target)
        except Missing:
            return False
        await self._driver.settle([layout.above(path, 2) for path in (target, source)])
        return True

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        async with self._gate.alone(self._rest):
            begun = monotonic()
            yield
            closed = monotonic() - begun
        await self._sleep(closed * _OPEN)
