"""How many files a daemon may have open."""

from __future__ import annotations

import resource
from typing import Final

from twisted.logger import Logger

__all__ = ["raise_file_limit"]

#: Fewer open files than this are worth a warning: a connection takes two while a blob is on its way.
_FEW_FILES: Final = 4096


def raise_file_limit(log: Logger) -> None:
    """
    Have as many as the system lets this process have.

    :param log: told when these are few.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < _FEW_FILES:
        log.warn(
            "only {count} files may be open at once, which is enough for about {half} clients: raise the limit "
            "(ulimit -n, or LimitNOFILE= in a systemd unit)",
            count=hard,
            half=hard // 2,
        )
