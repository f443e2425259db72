"""Links: small files that hold a digest. Old trees have empty and torn ones; those count as absent."""

from __future__ import annotations

from typing import Final

from regd.errors import DigestInvalid
from regd.names import Digest
from regd.storage.damage import Damage
from regd.storage.driver import Driver, Missing
from regd.storage.layout import Path
from regd.storage.remembered import Remembered

__all__ = ["Links"]

#: More than the longest digest, in bytes.
_LIMIT: Final = 256

#: How many links are remembered; about half a kilobyte each.
_REMEMBERED: Final = 4096


class Links:
    """Reads links."""

    def __init__(self, driver: Driver, damage: Damage) -> None:
        self._driver = driver
        self._damage = damage
        self._known: Remembered[Digest] = Remembered(_REMEMBERED)

    async def read(self, path: Path, under: Digest | None = None, *, remember: bool = False) -> Digest | None:
        """
        What the link points to, or ``None`` where there is no link, or one that does not hold a digest, which is reported.

        :param under: the digest that the link stands under, if it does: content of another digest of that algorithm is not what it says.
        :param remember: whether it is likely to be read again soon. What is remembered is compared with the file on each use, which costs a
            third of reading it.
        :raises StorageError: when reading fails.
        """
        version = None
        try:
            if remember:
                version = (await self._driver.stat(path)).version
                known = self._known.get(path, version)
                if known is not None:
                    return self._fitting(path, known, under)
            content = await self._driver.read(path, _LIMIT)
        except Missing:
            self._known.forget(path)
            return None
        try:
            # Other tools have written links with a newline at the end.
            found = Digest.parse(content.decode("ascii", "replace").strip())
        except DigestInvalid:
            self._damage.report(path, f"{'an empty link' if not content else 'a link that holds no digest'}, passed over")
            return None
        self._known.put(path, version, found)
        return self._fitting(path, found, under)

    def _fitting(self, path: Path, found: Digest, under: Digest | None) -> Digest | None:
        if under is not None and found.algorithm == under.algorithm and found != under:
            self._damage.report(path, f"a link that holds another digest, {found}, passed over")
            return None
        return found

    @staticmethod
    def file(path: Path, digest: Digest) -> tuple[Path, bytes]:
        """A link as :meth:`regd.storage.driver.Driver.write` takes it."""
        return path, digest.encode("ascii")
