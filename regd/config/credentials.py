"""
systemd's credentials (systemd.exec(5), ``LoadCredential=``) as variables: secrets that stand neither in the file nor in the environment.

A credential named ``REGISTRY_HTTP_SECRET`` is what a variable of that name would be, without the end of its last line. Loaded from a
directory, as the unit of the Debian package has it, it is named ``regd_REGISTRY_HTTP_SECRET`` and is the same. Others are files, which
keys of the configuration may name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from regd.config.error import ConfigError

__all__ = ["DIRECTORY", "read_credentials", "read_secret_files"]

#: The variable with the directory that systemd has put them in.
DIRECTORY = "CREDENTIALS_DIRECTORY"

_VARIABLE = re.compile(r"(?:regd_)?(REGISTRY_[A-Za-z0-9_]+)")

#: Variables that name a file with the value of another one, as images of the Docker library have it. The first of those that are none is a
#: key, and below the others operators choose the names.
_NAMED_FILE = re.compile(r"(REGISTRY_(?!HEALTH_FILE|LOG_FIELDS_|HTTP_HEADERS_|GROUPS_)[A-Za-z0-9_]+)_FILE")

#: systemd lets them be no larger.
_LARGEST = 1024 * 1024


def read_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """
    :param environ: the variables of the process.
    :returns: variables, by name.
    :raises ConfigError: when one cannot be read, or is no text in UTF-8. Its content is not told.
    """
    directory = environ.get(DIRECTORY)
    if not directory:
        return {}
    found: dict[str, str] = {}
    try:
        for name in sorted(os.listdir(directory)):
            if variable := _VARIABLE.fullmatch(name):
                found[variable[1]] = _read(os.path.join(directory, name))
    except OSError as error:
        raise ConfigError(f"{DIRECTORY}: cannot read {error.filename}: {error.strerror}") from None
    return found


def read_secret_files(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Variables such as ``REGISTRY_HTTP_SECRET_FILE``, which name a file: a secret of Docker or Kubernetes.

    :param environ: the variables of the process.
    :returns: the variables without ``_FILE``, each with what is in its file.
    :raises ConfigError: when one cannot be read, is no text in UTF-8, or the variable itself is there, too.
    """
    found: dict[str, str] = {}
    for name, path in sorted(environ.items()):
        variable = _NAMED_FILE.fullmatch(name)
        if variable is None or not path:
            continue
        if variable[1] in environ:
            raise ConfigError(f"{name}: found {variable[1]} beside it, allowed: one of them")
        try:
            found[variable[1]] = _read(path, name)
        except ConfigError:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "this cannot be the path of a file"
            raise ConfigError(f"{name}: cannot read {path}: {reason}") from None
    return found


def _read(path: str, whose: str = DIRECTORY) -> str:
    with open(path, "rb") as file:
        content = file.read(_LARGEST)
    try:
        return content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigError(f"{whose}: found bytes that are no text in {path}, allowed: text in UTF-8") from None
