"""
The files that a configuration names and that hold what it is about: passwords, keys and certificates.

The process that reads the configuration reads them with it, and hands both to the others. So all serve by the same ones, a process that is
started while one of them is broken has what its siblings have, and only one needs to be allowed to read them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Final, NamedTuple

from regd.config.error import ConfigError
from regd.config.model import Config

__all__ = ["TOKEN_SECRET", "WORKERS", "Files", "NamedFile", "named_files", "pack", "pair_section", "read_files", "unpack"]

#: What is in files, by the paths that the configuration names them by.
Files = Mapping[str, bytes]

#: What tokens are signed with that only this daemon checks: made when it starts. No path is called so.
TOKEN_SECRET: Final = "regd:token-secret"  # noqa: S105 - it is where the secret is, and not the secret

#: How many processes serve, of which each takes its share of what is limited. No path is called so either.
WORKERS: Final = "regd:workers"

#: In bytes: tens of thousands of users. A wrong file (an image, a log) should not be read to its end.
_LARGEST: Final = 4 * 1024 * 1024


class NamedFile(NamedTuple):
    """
    :ivar key: the key that names it.
    """

    key: str
    path: str


def named_files(config: Config) -> tuple[NamedFile, ...]:
    """Which ones they are."""
    auth = config.auth
    found = []
    if auth.htpasswd is not None:
        found.append(NamedFile("auth.htpasswd.path", auth.htpasswd.path))
    if auth.token is not None:
        found.append(NamedFile("auth.token.rootcertbundle", auth.token.rootcertbundle))
        found.append(NamedFile("auth.token.jwks", auth.token.jwks))
    if auth.issuer is not None:
        found.append(NamedFile("auth.issuer.key", auth.issuer.key))
    tls = config.http.tls
    if tls is not None:
        for index, pair in enumerate(tls.pairs):
            section = pair_section(index)
            found.append(NamedFile(f"{section}.certificate", pair.certificate))
            found.append(NamedFile(f"{section}.key", pair.key))
        found += [NamedFile(f"http.tls.clientcas[{index}]", path) for index, path in enumerate(tls.clientcas)]
    return tuple(file for file in found if file.path)


def pair_section(index: int) -> str:
    """Where a certificate stands in the configuration."""
    return "http.tls" if index == 0 else f"http.tls.certificates[{index - 1}]"


def read_files(config: Config) -> Files:
    """
    Read them.

    :raises ConfigError: when one cannot be read, with its key and path.
    """
    found: dict[str, bytes] = {}
    for key, path in named_files(config):
        try:
            with open(path, "rb") as file:
                found[path] = file.read(_LARGEST + 1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "this cannot be the path of a file"
            needed = "it has to be there, and the user that regd runs as has to be able to read it"
            raise ConfigError(f"{key}: {path}: {reason}; {needed}") from None
        if len(found[path]) > _LARGEST:
            raise ConfigError(f"{key}: {path}: found more than {_LARGEST} bytes, allowed: less; this is hardly such a file")
    return found


def pack(source: bytes, files: Files) -> bytes:
    """A configuration and its files, for another process.

    :param source: what is in the file of the configuration.
    """
    encoded = {path: base64.b64encode(data).decode("ascii") for path, data in files.items()}
    return json.dumps({"source": base64.b64encode(source).decode("ascii"), "files": encoded}).encode("ascii")


def unpack(packed: bytes) -> tuple[bytes, Files]:
    """What :func:`pack` was given."""
    found = json.loads(packed)
    return base64.b64decode(found["source"]), {path: base64.b64decode(data) for path, data in found["files"].items()}
