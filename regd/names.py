"""
The grammar of names: repository, tag, digest, reference. Pure; no I/O.

Each type is the string that passed its grammar, so a value that exists is right, can be a key, and costs nothing to use. The patterns
are those of the OCI distribution specification 1.1, section "Pulling manifests", and of the OCI image specification, "Digests".
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from regd.errors import DigestInvalid, NameInvalid, TagInvalid

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["ALGORITHMS", "CANONICAL", "NAME_LIMIT", "Digest", "Reference", "RepositoryName", "Tag", "parse_reference"]

#: The supported digest algorithms, with the length of their hexadecimal form in characters.
ALGORITHMS: Final = {"sha256": 64, "sha512": 128}

#: The algorithm of a digest that nobody asked for by name.
CANONICAL: Final = "sha256"

#: The longest repository name, in characters; the limit of CNCF distribution.
NAME_LIMIT: Final = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})")
_ALGORITHM = re.compile(r"([A-Za-z0-9]+(?:[+._-][A-Za-z0-9]+)*):")

#: How much of a client's bad input an error message repeats, in characters.
_SHOWN: Final = 80


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


class RepositoryName(str):
    """A repository name such as ``library/alpine``: at most 255 characters, lower case, components joined by ``/``."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> RepositoryName:
        """
        :raises NameInvalid: when ``text`` is not a repository name.
        """
        if len(text) > NAME_LIMIT:
            raise NameInvalid(f"a repository name has at most {NAME_LIMIT} characters, this one has {len(text)}")
        if _NAME.fullmatch(text) is None:
            raise NameInvalid(
                f"{_shown(text)} is not a repository name: components of lower-case letters and digits, "
                "separated inside by '.', '_', '__' or '-', joined by '/'",
                detail={"name": text[:NAME_LIMIT]},
            )
        return cls(text)

    @staticmethod
    def fits(text: str) -> bool:
        """Whether ``text`` is a repository name."""
        return len(text) <= NAME_LIMIT and _NAME.fullmatch(text) is not None


class Tag(str):
    """A tag such as ``v1.0``: at most 128 characters."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Tag:
        """
        :raises TagInvalid: when ``text`` is not a tag.
        """
        if _TAG.fullmatch(text) is None:
            raise TagInvalid(
                f"{_shown(text)} is not a tag: at most 128 letters, digits, '_', '.' and '-', not beginning with '.' or '-'",
                detail={"tag": text[:NAME_LIMIT]},
            )
        return cls(text)


class Digest(str):
    """A digest such as ``sha256:<64 hexadecimal digits>``, of a supported algorithm."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Digest:
        """
        :raises DigestInvalid: when ``text`` is malformed, or of an algorithm that is not supported.
        """
        if _DIGEST.fullmatch(text) is None:
            algorithm = _ALGORITHM.match(text)
            if algorithm is not None and algorithm[1] not in ALGORITHMS:
                message = f"digest algorithm {_shown(algorithm[1])} is not supported, only {' and '.join(ALGORITHMS)}"
            else:
                message = f"{_shown(text)} is not a digest: 'sha256:' and 64, or 'sha512:' and 128, lower-case hexadecimal digits"
            raise DigestInvalid(message, detail={"digest": text[:NAME_LIMIT]})
        return cls(text)

    @classmethod
    def of(cls, content: bytes, algorithm: str = CANONICAL) -> Digest:
        """The digest of ``content``, which is small enough to hash where one stands."""
        return cls.from_hash(hashlib.new(algorithm, content))

    @classmethod
    def from_hash(cls, state: _Hash) -> Digest:
        """The digest of all that ``state`` has been fed."""
        return cls(f"{state.name}:{state.hexdigest()}")

    @property
    def algorithm(self) -> str:
        """``sha256`` or ``sha512``."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The lower-case hexadecimal digits."""
        return self.partition(":")[2]


#: What a manifest is asked for by.
Reference = Tag | Digest


def parse_reference(text: str) -> Reference:
    """
    A digest when there is a colon in ``text``, which no tag has; a tag else.

    :raises DigestInvalid: for a bad digest.
    :raises TagInvalid: for a bad tag.
    """
    return Digest.parse(text) if ":" in text else Tag.parse(text)
