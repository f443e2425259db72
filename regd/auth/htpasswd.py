"""
Passwords in a file, as ``htpasswd -B`` writes it: a line for each user, the name, a colon, and the bcrypt hash of the password.

bcrypt is slow so that guessing is: some 60 ms a check, in threads of its own. A client that asks often does not pay that each time: what
was right is remembered under a key that holds no password (an HMAC by a key of this process), for as long as the file stays what it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, ParamSpec, Protocol, TypeVar

import bcrypt
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from regd.auth.authenticator import Busy, Refused
from regd.auth.users import Grant, User
from regd.config.error import ConfigError

__all__ = ["MOST_WAITING", "PasswordFile", "Passwords", "Threads"]

P = ParamSpec("P")
T = TypeVar("T")

#: A hash, with what its cost is.
_BCRYPT: Final = re.compile(rb"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")

#: A check costs twice as much with each step; 16 is some four seconds.
_COSTS: Final = range(4, 17)

#: bcrypt looks at no more of a password, in bytes. Some versions of the library say so by an exception, some do not.
_LONGEST: Final = 72

#: What a check of nobody's password is made against, but for its cost.
_NOBODY: Final = b"......................" + b"." * 31

#: So many right passwords are remembered.
_REMEMBERED: Final = 1024

#: So many checks run or wait at most.
MOST_WAITING: Final = 64


class Threads(Protocol):
    """Runs what is slow somewhere else; see :class:`regd.storage.threads.Threads`."""

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call ``function`` off the event loop; its result or exception comes back on it."""


@dataclass(frozen=True)
class PasswordFile:
    """
    What is in such a file.

    :ivar hashes: by the name of the user. Never shown.
    """

    hashes: Mapping[str, bytes]

    def __repr__(self) -> str:
        """How many there are; hashes are nobody's business."""
        return f"PasswordFile({len(self.hashes)} users)"

    @classmethod
    def parse(cls, key: str, path: str, data: bytes) -> PasswordFile:
        """
        Read a file.

        :param key: the key that names it, for messages, as is ``path``.
        :raises ConfigError: for lines that are something else, by their numbers. What is in them is not told.
        """
        found: dict[str, bytes] = {}
        problems = []
        for number, line in enumerate(data.splitlines(), 1):
            entry = line.strip()
            if not entry or entry.startswith(b"#"):
                continue
            name, colon, said = entry.partition(b":")
            problem = ""
            hashed = _BCRYPT.fullmatch(said)
            if not colon or not name:
                problem = "is not a name, a colon and a hash"
            elif hashed is None:
                problem = "has no bcrypt hash; `regd htpasswd` writes one"
            elif int(hashed[1]) not in _COSTS:
                problem = f"has a hash of cost {int(hashed[1])}; {_COSTS[0]} to {_COSTS[-1]} are allowed"
            try:
                user = name.decode()
            except UnicodeDecodeError:
                problem = "has a name that is not UTF-8"
            if not problem and user in found:
                problem = "has a name that an earlier line has"
            if problem:
                problems.append(ConfigError(f"{key}: {path}: line {number} {problem}"))
            else:
                found[user] = said
        if problems:
            raise ConfigError.joined(problems)
        return cls(found)


class Passwords:
    """
    The way in for who has a password (RFC 7617).

    :param realm: what people are told that the password is for.
    :param threads: where hashes are computed.
    """

    scheme = "basic"
    lasting = True

    def __init__(self, file: PasswordFile, realm: str, threads: Threads) -> None:
        self._hashes = file.hashes
        self._realm = realm
        self._threads = threads
        self._key = os.urandom(32)
        self._known: OrderedDict[bytes, User] = OrderedDict()
        #: Those who wait for a check, by what is checked.
        self._checking: dict[bytes, list[Deferred[User]]] = {}
        # A name that is not there takes as long as one that is.
        costs = [int(said[4:6]) for said in file.hashes.values()]
        self._nobody = b"$2b$%02d$" % max(costs, default=10) + _NOBODY

    def challenge(self, base: str, wanted: Sequence[Grant], problem: str) -> str:
        """See :class:`~regd.auth.authenticator.Authenticator`."""
        escaped = self._realm.replace("\\", "\\\\").replace('"', '\\"')
        return f'Basic realm="{escaped}"'

    def check(self, credentials: str) -> User | Deferred[User]:
        """See :class:`~regd.auth.authenticator.Authenticator`."""
        name, password = _parse(credentials)
        said = self._hashes.get(name)
        hashed = self._nobody if said is None else said
        key = hmac.digest(self._key, hashlib.sha256(name.encode()).digest() + hashed + password, "sha256")
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        waiting = self._checking.get(key)
        if waiting is None:
            if len(self._checking) >= MOST_WAITING:
                raise Busy
            waiting = self._checking[key] = []
            self._threads.run(_fits, password, hashed).addBoth(self._checked, key, name, said is not None)
            if key not in self._checking:
                # It was done in the call.
                known = self._known.get(key)
                if known is None:
                    raise Refused(_reason(name))
                return known
        answer: Deferred[User] = Deferred()
        waiting.append(answer)
        return answer

    def _checked(self, fits: bool | Failure, key: bytes, name: str, there: bool) -> None:
        user = User(name)
        right = fits is True and there
        if right:
            self._known[key] = user
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        for answer in self._checking.pop(key):
            if right:
                answer.callback(user)
            else:
                answer.errback(Refused(_reason(name)))


def _reason(name: str) -> str:
    return f"the password of {name[:64]!r} is wrong, or there is no such user"


def _parse(credentials: str) -> tuple[str, bytes]:
    """
    The name and the password.

    :raises Refused: when there are none.
    """
    try:
        name, colon, password = base64.b64decode(credentials.strip(), validate=True).partition(b":")
        if colon and b"\0" not in password:
            return name.decode(), password
    except (binascii.Error, ValueError):
        pass
    raise Refused("what came is not a name and a password (RFC 7617)")


def _fits(password: bytes, hashed: bytes) -> bool:
    """Whether this is the password; slow on purpose. The comparison takes the same time wherever the two differ."""
    return bcrypt.checkpw(password[:_LONGEST], hashed)
