"""``regd htpasswd``: passwords into a file for ``auth.htpasswd``."""

from __future__ import annotations

import getpass
import os
import re
import stat
import sys
import tempfile
from contextlib import suppress
from typing import Final

import bcrypt

__all__ = ["run"]

#: bcrypt looks at no more of a password, in bytes.
_LONGEST: Final = 72

#: Of a file that did not exist: for its owner and their group.
_MODE: Final = 0o640

_NAME: Final = re.compile(r"[^\s:,@*\x00-\x1f\x7f][^\s:,\x00-\x1f\x7f]*")


class _Problem(Exception):
    """What is wrong, for a person."""


def run(path: str, user: str, *, cost: int, delete: bool) -> int:
    """
    :param path: the file.
    :returns: the exit status.
    """
    try:
        if not _NAME.fullmatch(user) or user == "anonymous":
            raise _Problem(f"{user!r} cannot be the name of a user: no spaces, colons, commas, no @ or * at its beginning, not anonymous")
        lines = _read(path)
        there = any(_user_of(line) == user for line in lines)
        if delete:
            if not there:
                raise _Problem(f"{path}: there is no user {user}")
            _write(path, [line for line in lines if _user_of(line) != user])
        else:
            entry = f"{user}:{bcrypt.hashpw(_ask(user), bcrypt.gensalt(cost)).decode('ascii')}"
            _write(path, [entry if _user_of(line) == user else line for line in lines] if there else [*lines, entry])
    except _Problem as problem:
        print(f"regd htpasswd: {problem}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"regd htpasswd: {error.filename or path}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{path}: {'removed' if delete else 'changed' if there else 'added'} {user}", file=sys.stderr)
    return 0


def _user_of(line: str) -> str:
    stripped = line.strip()
    return "" if stripped.startswith("#") else stripped.partition(":")[0]


def _ask(user: str) -> bytes:
    if sys.stdin.isatty():
        password = getpass.getpass(f"password of {user}: ")
        if password != getpass.getpass("again: "):
            raise _Problem("these were two different passwords; nothing is changed")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    encoded = password.encode()
    if not encoded:
        raise _Problem("an empty password is none; nothing is changed")
    if len(encoded) > _LONGEST:
        raise _Problem(f"this password has {len(encoded)} bytes, and bcrypt looks at {_LONGEST} only; nothing is changed")
    return encoded


def _read(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []
    except UnicodeDecodeError:
        raise _Problem(f"{path}: this is no text in UTF-8; nothing is changed") from None


def _write(path: str, lines: list[str]) -> None:
    """Have another file in its place, so that nobody ever reads half of one; with the mode and the owner that it had."""
    target = os.path.realpath(path)
    fd, other = tempfile.mkstemp(prefix=".htpasswd-", dir=os.path.dirname(target))
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            try:
                before = os.stat(target)
                os.fchmod(fd, stat.S_IMODE(before.st_mode))
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(fd, before.st_uid, before.st_gid)
            except FileNotFoundError:
                os.fchmod(fd, _MODE)
            os.fsync(fd)
        os.replace(other, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(other)
        raise
