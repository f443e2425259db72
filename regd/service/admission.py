"""Who may come in, made of a configuration and its files."""

from __future__ import annotations

from typing import Any, Final

from regd.auth.authenticator import Authenticator
from regd.auth.htpasswd import PasswordFile, Passwords
from regd.auth.rules import Rules
from regd.config import Auth, Config
from regd.config.watched import Files
from regd.storage.threads import PoolThreads
from regd.web.guard import Guard

__all__ = ["Admission", "guarded"]

#: How many passwords a process checks at once. The rest waits, and requests that need no check do not.
_CHECKS: Final = 2


def guarded(config: Config) -> bool:
    """Whether there are things that not everybody may do."""
    return config.auth != Auth() or config.access is not None


class Admission:
    """
    Makes guards, one for each configuration.

    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._threads: PoolThreads | None = None

    def guard(self, config: Config, files: Files) -> Guard | None:
        """
        Who stands before the handlers; nobody where everybody may do everything.

        :raises ConfigError: when a file is not what it should be.
        """
        if not guarded(config):
            return None
        authenticators: list[Authenticator] = []
        htpasswd = config.auth.htpasswd
        if htpasswd is not None:
            parsed = PasswordFile.parse("auth.htpasswd.path", htpasswd.path, files[htpasswd.path])
            if self._threads is None:
                self._threads = PoolThreads(self._reactor, _CHECKS)
            authenticators.append(Passwords(parsed, htpasswd.realm, self._threads))
        return Guard(Rules(config.access, config.groups), authenticators)

    def stop(self) -> None:
        """Check nothing any more."""
        if self._threads is not None:
            self._threads.stop()
            self._threads = None
