"""Links: small files that hold a digest. Old trees have empty and torn ones; those count as absent."""

from __future__ import annotations

from typing import Final

from regd.errors import DigestInvalid
from regd.names import Digest
from regd.storage.damage import Damage
from regd.storage.driver import Driver, Missing
from regd.storage.layout import Path
from regd.storage.remembered import Remembered

__all__ = ["LIMIT", "BadLink", "Links", "check_link", "parse_link"]

#: More than the longest digest, in bytes: what is read of a link.
LIMIT: Final = 256

#: How many links are remembered; about half a kilobyte each.
_REMEMBERED: Final = 4096


class BadLink(ValueError):
    """
    The content of a file that is no link, or not one to where it stands.

    :param what: for people: ``an empty link``.
    :ivar found: the digest that it holds, if it is one.
    """

    def __init__(self, what: str, found: Digest | None = None) -> None:
        super().__init__(what)
        self.found = found


def parse_link(content: bytes) -> Digest:
    """
    What a link points to.

    :param content: up to :data:`LIMIT` bytes of the file.
    :raises BadLink: when it holds no digest.
    """
    try:
        # Other tools have written links with a newline at the end.
        return Digest.parse(content.decode("ascii", "replace").strip())
    except DigestInvalid:
        # A file that the power was cut from may have its length, and none of its bytes.
        raise BadLink("a link that holds no digest" if content.strip(b"\0") else "an empty link") from None


def check_link(found: Digest, under: Digest | None) -> None:
    """
    See whether a link stands where it may.

    :param found: what it holds.
    :param under: the digest that it stands under, if it does. Content of another algorithm may be kept under that one's digest, as
        ``registry:2`` does; content of another digest of the same algorithm is not what the link says.
    :raises BadLink: when it may not.
    """
    if under is not None and found.algorithm == under.algorithm and found != under:
        raise BadLink(f"a link that holds another digest, {found}", found)


class Links:
    """Reads links."""

    def __init__(self, driver: Driver, damage: Damage) -> None:
        self._driver = driver
        self._damage = damage
        self._known: Remembered[Digest] = Remembered(_REMEMBERED)

    async def read(self, path: Path, under: Digest | None = None, *, remember: bool = False) -> Digest | None:
        """
        What the link points to, or ``None`` where there is no link, or one that does not hold a digest, which is reported.

        :param under: see :func:`check_link`.
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
            content = await self._driver.read(path, LIMIT)
        except Missing:
            self._known.forget(path)
            return None
        try:
            found = parse_link(content)
        except BadLink as error:
            self._damage.report(path, f"{error}, passed over")
            return None
        self._known.put(path, version, found)
        return self._fitting(path, found, under)

    def _fitting(self, path: Path, found: Digest, under: Digest | None) -> Digest | None:
        try:
            check_link(found, under)
        except BadLink as error:
            self._damage.report(path, f"{error}, passed over")
            return None
        return found

    @staticmethod
    def file(path: Path, digest: Digest) -> tuple[Path, bytes]:
        """A link as :meth:`regd.storage.driver.Driver.write` takes it."""
        return path, digest.encode("ascii")
